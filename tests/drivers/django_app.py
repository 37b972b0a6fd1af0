"""Django in one file: see steps.txt. Each step runs over both ways that it sends parameters: bound by psycopg, and bound by the
server and prepared. Its migrations are in tests/migrations.rs."""

import threading
import time
from urllib.parse import urlsplit

import django
import psycopg
from django.conf import settings

from steps import AT, BIG, BYTES, DATA, DAY, FIRST, LOCAL, NUMBERS, PRICE, TEXT, URL, WORDS, Steps, Wrong, same

url = urlsplit(URL)
database = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": url.path.lstrip("/"),
    "USER": url.username,
    "PASSWORD": url.password or "",
    "HOST": url.hostname,
    "PORT": url.port,
}
settings.configure(
    INSTALLED_APPS=["__main__"],
    DATABASES={
        "default": database,
        "binding": {**database, "OPTIONS": {"server_side_binding": True, "prepare_threshold": 1}},
        "pooled": {**database, "OPTIONS": {"pool": {"min_size": 1, "max_size": 16}}},
    },
    USE_TZ=True,
    TIME_ZONE="Europe/Berlin",
)
django.setup()

from django.contrib.postgres.fields import ArrayField  # noqa: E402
from django.db import DatabaseError, IntegrityError, OperationalError, connections, models, transaction  # noqa: E402
from django.db.models import Count, F, Max, Q, Sum  # noqa: E402
from django.db.models.functions import Length, Now, Upper  # noqa: E402
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


class Local(models.Field):
    """A timestamp without time zone, which Django does not have."""

    def db_type(self, connection):
        return "timestamp"


class Thing(models.Model):
    pk = models.CompositePrimaryKey("user_id", "id")
    user_id = models.BigIntegerField()
    id = models.IntegerField()
    numbers = ArrayField(models.IntegerField(null=True), null=True)
    words = ArrayField(models.TextField(null=True), null=True)
    data = models.JSONField(null=True)
    at = models.DateTimeField(null=True)
    local = Local(null=True)
    day = models.DateField(null=True)
    price = models.DecimalField(max_digits=20, decimal_places=6, null=True)
    big = models.DecimalField(max_digits=60, decimal_places=10, null=True)
    ratio = models.FloatField(null=True)
    bytes = models.BinaryField(null=True)
    flag = models.BooleanField(null=True)
    note = models.TextField(null=True)

    class Meta:
        app_label = "__main__"
        db_table = "things"
        managed = False


def fails(sqlstate, does):
    try:
        does()
    except DatabaseError as e:
        same(e.__cause__.sqlstate, sqlstate)
        return e
    raise Wrong(f"no error, where {sqlstate} was expected")


class App:
    """The steps over one of the two ways. Users `own` are those of the first steps."""

    def __init__(self, alias, users, own):
        self.alias, self.range, self.own = alias, users, own
        self.users = User.objects.using(alias)
        self.photos = Photo.objects.using(alias)
        self.things = Thing.objects.using(alias)

    def atomic(self):
        return transaction.atomic(using=self.alias)

    def run(self, sql, *values):
        with connections[self.alias].cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else cursor.rowcount

    def named(self, name):
        return self.users.filter(id__in=self.range, name=name).count()

    def connect(self):
        same(self.run("SHOW client_encoding"), [("UTF8",)])
        same(connections[self.alias].is_usable(), True)
        same(connections[self.alias].pg_version >= 130000, True)
        for user in [*self.range, *self.own]:
            self.things.filter(user_id=user).delete()
            self.photos.filter(user_id=user).delete()
            self.users.filter(id=user).delete()

    def create(self):
        for user in self.own:
            self.users.create(id=user, name=f"näme {user}")
            first = self.photos.create(user_id=user, caption="first")
            second = Photo(user_id=user, caption="it's 100% \"second\" \\")
            second.save(using=self.alias)
            if not first.id < second.id:
                raise Wrong("ids do not rise")
            again = self.photos.get(id=second.id)
            same((again.user_id, again.caption), (user, "it's 100% \"second\" \\"))
            if abs((timezone.now() - again.created_at).total_seconds()) > 60:
                raise Wrong(f"created at {again.created_at}")

    def read(self):
        for user in self.own:
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
            self.users.get(id=FIRST + 999)
            raise Wrong("there is no such user")
        except User.DoesNotExist:
            pass

    def update(self):
        for user in self.own:
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
        for user in self.own:
            self.photos.get(user_id=user, caption="made").delete()
            same(self.photos.filter(user_id=user, caption="or").delete(), (1, {"__main__.Photo": 1}))
            same(self.photos.filter(user_id=user).count(), 1)
        self.photos.filter(user_id=self.own[-1]).delete()
        self.users.get(id=self.own[-1]).delete()
        same(self.users.filter(id=self.own[-1]).exists(), False)

    def scatter(self):
        mine = self.photos.filter(user_id__in=self.own[:-1])
        same(mine.count(), 15)
        found = self.users.filter(id__gte=self.own[0], id__lte=self.own[-1]).order_by("-id")[:5]
        same([user.id for user in found], list(self.own[-2:-7:-1]))
        counts = mine.values("user_id").annotate(n=Count("id")).order_by("user_id")
        same([row["n"] for row in counts], [1] * 15)

    def prepared(self):
        for _ in range(4):
            for user in self.own[:-1]:
                same(self.users.get(id=user).id, user)
                same(self.users.filter(id=user).update(name=f"user {user}"), 1)

    def commit(self):
        for user in self.range:
            self.users.create(id=user, name=f"user {user}")
        with self.atomic():
            for n in (0, 4, 1):
                self.users.filter(id=self.range[n]).update(name="committed")
        same(self.named("committed"), 3)

    def rollback(self):
        try:
            with self.atomic():
                for n in (0, 4):
                    self.users.filter(id=self.range[n]).update(name="never")
                raise KeyError
        except KeyError:
            pass
        same(self.named("never"), 0)

    def savepoint(self):
        with self.atomic():
            for user in self.range[4:6]:
                owner = self.users.select_for_update().get(id=user)
                self.photos.create(user=owner, caption="kept")
                try:
                    with self.atomic():
                        self.photos.create(user=owner, caption="undone")
                        self.users.create(id=user, name="twice")
                    raise Wrong("two users of one id")
                except IntegrityError:
                    pass
                with self.atomic():
                    self.users.filter(id=user).update(name="inside")
        same(list(self.photos.filter(user_id=self.range[4]).values_list("caption", flat=True)), ["kept"])

    def batch(self):
        made = self.photos.bulk_create([Photo(user_id=user, caption="many") for user in self.range])
        for photo in made:
            same(self.photos.get(id=photo.id).user_id, photo.user_id)
        upserted = [User(id=user, name="upserted") for user in self.range]
        self.users.bulk_create(upserted, update_conflicts=True, unique_fields=["id"], update_fields=["name"])
        same(self.named("upserted"), 16)
        with connections[self.alias].cursor() as cursor:
            insert = "INSERT INTO photos (user_id, caption) VALUES (%s, %s)"
            cursor.executemany(insert, [(user, "executemany") for user in self.range])

    def batch_error(self):
        made = [Thing(user_id=self.range[n], id=5) for n in (0, 4, 0)]
        fails("23505", lambda: self.things.bulk_create(made))
        same(self.things.filter(user_id__in=self.range, id=5).count(), 0)

    def copy_in(self):
        with connections[self.alias].cursor() as cursor:
            with cursor.copy("COPY photos (user_id, caption) FROM STDIN") as copy:
                for user in self.range:
                    copy.write_row((user, "copied \t\\ ü🚀"))
            same(self.photos.filter(user_id__in=self.range, caption="copied \t\\ ü🚀").count(), 16)
            try:
                with cursor.copy("COPY photos (user_id, caption) FROM STDIN") as copy:
                    copy.write_row((self.range[0], "lost"))
                    raise KeyError
            except KeyError:
                pass
        same(self.photos.filter(user_id__in=self.range, caption="lost").count(), 0)

    def copy_out(self):
        with connections[self.alias].cursor() as cursor:
            ids = f"COPY (SELECT id FROM users WHERE id BETWEEN {self.range[0]} AND {self.range[-1]}) TO STDOUT"
            with cursor.copy(ids) as copy:
                same(sorted(int(row[0]) for row in copy.rows()), list(self.range))

    def cursor(self):
        """`iterator` declares a cursor WITH HOLD outside of transactions, and one without inside."""
        mine = self.photos.filter(user_id=self.range[4]).order_by("id")
        same([photo.caption for photo in mine.iterator(chunk_size=2)], ["kept", "many", "executemany", "copied \t\\ ü🚀"])
        with self.atomic():
            same(len(list(mine.iterator(chunk_size=1))), 4)
        rows = mine.iterator(chunk_size=1)
        same(next(rows).caption, "kept")
        same(self.run("SELECT count(*) FROM pg_cursors"), [(1,)])
        same(len(list(rows)), 3)

    def unique_violation(self):
        e = fails("23505", lambda: self.users.create(id=self.range[6], name="twice"))
        same((type(e), e.__cause__.diag.constraint_name), (IntegrityError, "users_pkey"))
        same(self.users.get(id=self.range[6]).name, "upserted")

    def syntax_error(self):
        fails("42601", lambda: self.run("SELEC 1"))
        fails("42601", lambda: self.run("SELECT name FRM users WHERE id = %s", self.range[0]))
        fails("42703", lambda: self.run("SELECT nothing FROM users WHERE id = %s", self.range[0]))
        same(self.run("SELECT 1"), [(1,)])

    def failed_transaction(self):
        with self.atomic():
            self.photos.create(user_id=self.range[0], caption="lost")
            fails("22012", lambda: self.run("SELECT 1 / (id - id) FROM users WHERE id = %s", self.range[0]))
            fails("25P02", lambda: self.run("SELECT 1"))
            transaction.set_rollback(True, using=self.alias)
        same(self.photos.filter(user_id=self.range[0], caption="lost").count(), 0)

    def cancel(self):
        raw = connections[self.alias].connection
        for sql in ("SELECT pg_sleep(60)", f"SELECT pg_sleep(60) FROM users WHERE id = {self.range[0]}"):
            done = threading.Event()

            def cancels():
                while not done.wait(0.1):
                    raw.cancel_safe()

            thread = threading.Thread(target=cancels)
            thread.start()
            began = time.monotonic()
            try:
                same(type(fails("57014", lambda: self.run(sql))), OperationalError)
            finally:
                done.set()
                thread.join()
            same(time.monotonic() - began < 20, True)
            # One that came late can hit the next.
            try:
                self.run("SELECT 1")
            except OperationalError:
                pass
        same(self.run("SELECT 1"), [(1,)])

    def put(self, id, column, *values):
        for user in self.range[:8]:
            for n, value in enumerate(values):
                self.things.create(user_id=user, id=id + n, **{column: value})

    def got(self, id, column, expected):
        for user in self.range[:8]:
            same(getattr(self.things.get(user_id=user, id=id), column), expected)

    def arrays(self):
        self.put(100, "numbers", NUMBERS, [])
        self.put(110, "words", WORDS)
        self.got(100, "numbers", NUMBERS)
        self.got(101, "numbers", [])
        self.got(110, "words", WORDS)
        some = list(self.range[3:9])
        same(self.run("SELECT id FROM users WHERE id = ANY(%s) ORDER BY id", some), [(user,) for user in some])
        same(self.run("SELECT id FROM things WHERE user_id = %s AND 'b c' = ANY(words)", self.range[1]), [(110,)])

    def json(self):
        self.put(200, "data", DATA)
        self.got(200, "data", DATA)
        for user in self.range[:8]:
            same(self.things.get(user_id=user, data__a=1, data__c__x=1.5).id, 200)
            same(self.things.filter(user_id=user, data__has_key="b").values_list("data__b", flat=True)[0], DATA["b"])

    def timestamps(self):
        self.put(300, "at", AT)
        self.put(301, "local", LOCAL)
        self.put(302, "day", DAY)
        self.got(300, "at", AT)
        self.got(301, "local", LOCAL)
        self.got(302, "day", DAY)
        with self.atomic():
            self.run("SET LOCAL TIME ZONE 'Asia/Kathmandu'")
            shown = self.run("SELECT at::text FROM things WHERE user_id = %s AND id = 300", self.range[1])
            same(shown, [("2024-02-29 18:19:56.789012+05:45",)])
        same(self.run("SHOW TIME ZONE"), [("UTC",)])
        same(self.things.filter(user_id=self.range[1], at__date="2024-02-29", at__hour=13).count(), 1)

    def numerics(self):
        self.put(400, "price", PRICE, -PRICE)
        self.put(410, "big", BIG)
        self.put(420, "ratio", float("inf"), float("nan"), 0.1)
        self.got(401, "price", -PRICE)
        self.got(410, "big", BIG)
        self.got(420, "ratio", float("inf"))
        self.got(422, "ratio", 0.1)
        same(str(self.things.get(user_id=self.range[0], id=421).ratio), "nan")
        mine = self.things.filter(user_id__gte=self.range[0], user_id__lte=self.range[-1], id=400)
        same(mine.aggregate(total=Sum("price"))["total"], 8 * PRICE)

    def null(self):
        columns = [field.name for field in Thing._meta.fields if field.null]
        for user in self.range[:8]:
            self.things.create(user_id=user, id=500)
            row = self.things.filter(user_id=user, id=500, note=None).values_list(*columns)
            same(list(row), [(None,) * len(columns)])

    def bytea(self):
        self.put(600, "bytes", BYTES, b"", BYTES * 400)
        for user in self.range[:8]:
            for n, expected in enumerate((BYTES, b"", BYTES * 400)):
                same(bytes(self.things.get(user_id=user, id=600 + n).bytes), expected)

    def unicode(self):
        self.put(700, "note", TEXT)
        self.got(700, "note", TEXT)
        for user in self.range[:8]:
            found = self.things.annotate(length=Length("note")).get(user_id=user, note=TEXT)
            same((found.id, found.length), (700, len(TEXT)))
        found = self.run(f"SELECT '東🚀''' FROM things WHERE user_id = {self.range[0]} AND note LIKE '%🚀%'")
        same(found, [("東🚀'",)])

    def pool(self):
        faults = []

        def work(n):
            try:
                for turn in range(10):
                    user = self.range[(n + turn) % 16]
                    same(User.objects.using("pooled").get(id=user).id, user)
                    if turn % 3 == 0:
                        connections["pooled"].close()
            except Exception as e:
                faults.append(e)
            finally:
                connections["pooled"].close()

        threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        connections["pooled"].close_pool()
        if faults:
            raise faults[0]


STEPS = """connect create read update delete scatter prepared commit rollback savepoint batch batch_error copy_in copy_out cursor
    unique_violation syntax_error failed_transaction cancel arrays json timestamps numerics null bytea unicode pool""".split()


def main():
    print("version", f"{django.__version__} on psycopg {psycopg.__version__}")
    steps = Steps()
    apps = [
        App("default", range(FIRST, FIRST + 16), range(FIRST + 16, FIRST + 32)),
        App("binding", range(FIRST + 32, FIRST + 48), range(FIRST + 48, FIRST + 64)),
    ]

    def over_both(step):
        for app in apps:
            getattr(app, step)()

    for step in STEPS:
        if not steps.run(step, over_both, step):
            for app in apps:
                connections[app.alias].close()
    steps.end()


main()
