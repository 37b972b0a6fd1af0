from django.db import migrations, models

USERS = range(1, 33)


def fill(apps, schema_editor):
    User, Photo = apps.get_model("demo", "User"), apps.get_model("demo", "Photo")
    for id in USERS:
        user = User.objects.create(id=id, name=f"user {id}")
        Photo.objects.create(user=user, caption="first")
        # In the column that this migration has made.
        User.objects.filter(id=id).update(motto=f"motto of {user.name}")
        assert User.objects.get(id=id).motto == f"motto of user {id}"


class Migration(migrations.Migration):
    dependencies = [("demo", "0002_private_photos")]

    operations = [
        migrations.AddField("User", "motto", models.TextField(default="")),
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
