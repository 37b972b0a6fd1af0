"""A Django app in one file against DATABASE_URL, which holds the demo's tables: one `ok` line for each thing tried, exit
code 1 at the first difference from what one Postgres does. Users 2000-2031 are its own; it says what rows it leaves."""

import os
import sys
from urllib.parse import urlsplit

import django
from django.conf import settings

url = urlsplit(os.environ["DATABASE_URL"])
database = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": url.path.lstrip("/"),
    "USER": url.username,
    "PASSWORD": url.password or "",
    "HOST": url.hostname,
    "PORT": url.port,
    # As with any transaction pooler.
    "DISABLE_SERVER_SIDE_CURSORS": True,
}
settings.configure(
    INSTALLED_APPS=["__main__"],
    DATABASES={"default": database, "binding": {**database, "OPTIONS": {"server_side_binding": True}}},
    USE_TZ=True,
    TIME_ZONE="Europe/Berlin",
)
django.setup()

from django.db import DatabaseError, IntegrityError, connections, models, transaction  # noqa: E402
from django.db.models import Count, F, Max, Q  # noqa: E402
from django.db.models.functions import Now, Upper  # noqa: E402
from django.utils import timezone  # noqa: E402


class User(models.Model):
    id = models.BigIntegerField(primary_key=True)
    name = models.TextField()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        app_label = "__main__"
        db_table = "users"
        managed = False


class Photo(models.Model):
    id = models.BigAutoField(primary_key=True)
    user = models.ForeignKey(User, models.DO_NOTHING, db_column="user_id", db_constraint=False)
    caption = models.TextField(default="")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        app_label = "__main__"
        db_table = "photos"
        managed = False


def ok(alias, what):
    print(f"ok {alias}: {what}", flush=True)


def same(got, expected):
    if got != expected:
        sys.exit(f"got {got!r}, expected {expected!r}")


class App:
    """All of it over one of the two ways that Django sends parameters."""

    def __init__(self, alias, users):
        self.alias, self.range = alias, users
        self.users = User.objects.using(alias)
        self.photos = Photo.objects.using(alias)

    def run(self):
        for step in (self.clean, self.create, self.read, self.update, self.delete, self.atomic, self.errors):
            step()
            ok(self.alias, step.__name__)

    def clean(self):
        for user in self.range:
            self.photos.filter(user_id=user).delete()
            self.users.filter(id=user).delete()

    def create(self):
        for user in self.range:
            self.users.create(id=user, name=f"näme {user}")
            first = self.photos.create(user_id=user, caption="first")
            second = Photo(user_id=user, caption="it's 100% \"second\" \\")
            second.save(using=self.alias)
            if not first.id < second.id:
                sys.exit("ids do not rise")
            again = self.photos.get(id=second.id)
            same((again.user_id, again.caption), (user, "it's 100% \"second\" \\"))
            if abs((timezone.now() - again.created_at).total_seconds()) > 60:
                sys.exit(f"created at {again.created_at}")

    def read(self):
        for user in self.range:
            mine = self.photos.filter(user_id=user)
            same(mine.count(), 2)
            same(mine.exists(), True)
            same([p.caption for p in mine.order_by("-id")[:1]], ["it's 100% \"second\" \\"])
            same(list(mine.filter(Q(caption="first") | Q(caption__startswith="no")).values_list("caption", flat=True)), ["first"])
            same(mine.exclude(caption="first").count(), 1)
            same(mine.aggregate(n=Count("id"))["n"], 2)
            same(mine.aggregate(last=Max("id"))["last"], mine.latest("id").id)
            same(mine.select_related("user").get(caption="first").user.name, f"näme {user}")
            same(self.photos.filter(user__id=user, user__name=f"näme {user}").count(), 2)
            same(mine.annotate(loud=Upper("caption")).values_list("loud", flat=True).get(caption="first"), "FIRST")
            same(sorted(mine.values_list("caption").annotate(n=Count("*"))), [("first", 1), ("it's 100% \"second\" \\", 1)])
            same(len(list(mine.iterator())), 2)
            same(self.users.get(pk=user).photo_set.using(self.alias).count(), 2)
            same(self.users.filter(id=user, photo__caption="first").count(), 1)
        try:
            self.users.get(id=2999)
            sys.exit("nobody is user 2999")
        except User.DoesNotExist:
            pass

    def update(self):
        for user in self.range:
            first = self.photos.get(user_id=user, caption="first")
            first.caption = "saved"
            first.save()  # every column, the shard key too
            first.refresh_from_db()
            same(first.caption, "saved")
            same(self.photos.filter(user_id=user, caption="saved").update(caption="updated"), 1)
            first.caption = "field"
            first.save(update_fields=["caption"])
            same(self.users.filter(id=user).update(name=F("name") if user % 2 else "even"), 1)
            photo, made = self.photos.update_or_create(user_id=user, caption="field", defaults={"caption": "or"})
            same((photo.id, made), (first.id, False))
            same(self.photos.get_or_create(user_id=user, caption="made")[1], True)
            same(self.photos.get_or_create(user_id=user, caption="made")[1], False)

    def delete(self):
        for user in self.range:
            self.photos.get(user_id=user, caption="made").delete()
            same(self.photos.filter(user_id=user, caption="or").delete(), (1, {"__main__.Photo": 1}))
            same(self.photos.filter(user_id=user).count(), 1)
        self.photos.filter(user_id=self.range[-1]).delete()
        self.users.get(id=self.range[-1]).delete()
        same(self.users.filter(id=self.range[-1]).exists(), False)

    def atomic(self):
        for user in self.range[:-1]:
            with transaction.atomic(using=self.alias):
                owner = self.users.select_for_update().get(id=user)
                self.photos.create(user=owner, caption="kept")
                try:
                    with transaction.atomic(using=self.alias):
                        self.photos.create(user=owner, caption="undone")
                        self.users.create(id=user, name="twice")
                    sys.exit("two users of one id")
                except IntegrityError:
                    pass
                same(self.photos.filter(user_id=user, caption="undone").exists(), False)
                self.users.filter(id=user).update(name=f"atomic {user}")
            try:
                with transaction.atomic(using=self.alias):
                    self.photos.filter(user_id=user).delete()
                    raise KeyError
            except KeyError:
                pass
            same(sorted(self.photos.filter(user_id=user).values_list("caption", flat=True)), ["it's 100% \"second\" \\", "kept"])
            same(self.users.get(id=user).name, f"atomic {user}")

    def errors(self):
        user = self.range[0]
        try:
            self.users.create(id=user, name="twice")
            sys.exit("two users of one id")
        except IntegrityError as e:
            same(e.__cause__.sqlstate, "23505")
        with connections[self.alias].cursor() as cursor:
            try:
                cursor.execute("SELECT nothing FROM photos WHERE user_id = %s", [user])
                sys.exit("there is no such column")
            except DatabaseError as e:
                same(e.__cause__.sqlstate, "42703")
            cursor.execute("SELECT caption FROM photos WHERE user_id = %s ORDER BY id", [user])
            same(len(cursor.fetchall()), 2)


def main():
    App("default", range(2000, 2016)).run()
    App("binding", range(2016, 2032)).run()
    print("left users=30 photos=60")


main()
