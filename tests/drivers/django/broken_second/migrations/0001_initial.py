"""Fails on its last operation."""

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = [("demo", "0004_titles")]

    operations = [
        migrations.CreateModel(
            name="Album",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("user_id", models.BigIntegerField(db_index=True)),
            ],
            options={"db_table": "albums"},
        ),
        migrations.RunSQL("INSERT INTO users (id, name, created_at) VALUES (101, 'x', now())"),
        migrations.RunSQL("INSERT INTO users (id, name, created_at) VALUES (110, 'y', now())"),
        migrations.RunSQL("ALTER TABLE photos ADD COLUMN a no_such_type"),
    ]
