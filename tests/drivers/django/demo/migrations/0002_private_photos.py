from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("demo", "0001_initial")]

    operations = [
        migrations.AddField("Photo", "private", models.BooleanField(default=False)),
        migrations.AddField("Photo", "stars", models.IntegerField(default=3)),
        migrations.AddField("Photo", "taken_in", models.ForeignKey("demo.Country", models.PROTECT, null=True)),
        migrations.AlterField("Invoice", "cents", models.BigIntegerField()),
        migrations.AlterField("User", "name", models.CharField(max_length=200)),
        migrations.AddIndex("Photo", models.Index(fields=["user", "-created_at"], name="photos_newest")),
        migrations.AddConstraint("Photo", models.UniqueConstraint(fields=["user", "id"], name="photos_of_user")),
    ]
