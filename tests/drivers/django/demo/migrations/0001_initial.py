import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    operations = [
        migrations.CreateModel(
            name="Country",
            fields=[
                ("code", models.CharField(max_length=2, primary_key=True, serialize=False)),
                ("name", models.TextField()),
            ],
            options={"db_table": "countries"},
        ),
        migrations.CreateModel(
            name="User",
            fields=[
                ("id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=100, db_index=True)),
                ("country", models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, to="demo.country")),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
            options={"db_table": "users"},
        ),
        migrations.CreateModel(
            name="Photo",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("user", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="demo.user")),
                ("caption", models.TextField(default="")),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
            options={"db_table": "photos"},
        ),
        migrations.CreateModel(
            name="Follow",
            fields=[
                ("pk", models.CompositePrimaryKey("source", "target_id", blank=True, editable=False, primary_key=True, serialize=False)),
                ("source", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="demo.user")),
                ("target_id", models.BigIntegerField()),
            ],
            options={"db_table": "follows"},
        ),
        migrations.CreateModel(
            name="Like",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("user", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="demo.user")),
                ("photo_id", models.BigIntegerField()),
            ],
            options={"db_table": "likes", "unique_together": {("user", "photo_id")}},
        ),
        migrations.CreateModel(
            name="Invoice",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("user_id", models.BigIntegerField(db_index=True)),
                ("cents", models.IntegerField()),
            ],
            options={"db_table": "invoices"},
        ),
    ]
