"""The demo's tables, as they are after all migrations."""

from django.db import models


class Country(models.Model):
    code = models.CharField(max_length=2, primary_key=True)
    name = models.TextField()

    class Meta:
        db_table = "countries"


class User(models.Model):
    id = models.BigIntegerField(primary_key=True)
    name = models.CharField(max_length=200)
    country = models.ForeignKey(Country, models.PROTECT, null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "users"


class Photo(models.Model):
    user = models.ForeignKey(User, models.CASCADE)
    title = models.TextField(default="")
    taken_in = models.ForeignKey(Country, models.PROTECT, null=True)
    private = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "photos"
        indexes = [models.Index(fields=["user", "-created_at"], name="photos_newest")]
        constraints = [models.UniqueConstraint(fields=["user", "id"], name="photos_of_user")]


class Follow(models.Model):
    pk = models.CompositePrimaryKey("source", "target_id")
    source = models.ForeignKey(User, models.CASCADE)
    target_id = models.BigIntegerField()

    class Meta:
        db_table = "follows"


class Like(models.Model):
    user = models.ForeignKey(User, models.CASCADE)
    photo_id = models.BigIntegerField()

    class Meta:
        db_table = "likes"
        unique_together = [("user", "photo_id")]


class Invoice(models.Model):
    user_id = models.BigIntegerField(db_index=True)
    cents = models.BigIntegerField()

    class Meta:
        db_table = "invoices"
