from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("demo", "0003_first_users")]

    operations = [
        migrations.RenameField("Photo", "caption", "title"),
        migrations.RemoveField("Photo", "stars"),
        migrations.RemoveField("User", "motto"),
    ]
