"""Fails where a user has two photos of one title."""

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = [("demo", "0004_titles")]

    operations = [
        migrations.CreateModel(
            name="Tag",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("user_id", models.BigIntegerField(db_index=True)),
            ],
            options={"db_table": "tags"},
        ),
        migrations.RunSQL("CREATE UNIQUE INDEX once ON photos (user_id, title)"),
    ]
