"""SQLAlchemy 2 over psycopg 3 and its own pool, Core and ORM: see steps.txt."""

import threading
import time

import sqlalchemy
from sqlalchemy import BigInteger, Column, DateTime, ForeignKey, Integer, LargeBinary, MetaData, Numeric, Table, Text, create_engine
from sqlalchemy import bindparam, delete as sql_delete, func, insert, inspect, select, text, update as sql_update
from sqlalchemy.dialects.postgresql import ARRAY, DATE, DOUBLE_PRECISION, JSON, JSONB, TIMESTAMP, insert as pg_insert
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from steps import AT, BIG, BYTES, DATA, DAY, FIRST, LOCAL, NUMBERS, PRICE, TEXT, URL, USERS, WORDS, Steps, fails, same

URL = URL.replace("postgres://", "postgresql+psycopg://")


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    name: Mapped[str]
    photos: Mapped[list["Photo"]] = relationship(back_populates="user", order_by="Photo.id")


class Photo(Base):
    __tablename__ = "photos"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    user_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("users.id"))
    caption: Mapped[str]
    user: Mapped[User] = relationship(back_populates="photos")


things = Table(
    "things", MetaData(),
    Column("user_id", BigInteger, primary_key=True), Column("id", Integer, primary_key=True),
    Column("numbers", ARRAY(Integer)), Column("words", ARRAY(Text)), Column("data", JSONB(none_as_null=True)), Column("doc", JSON(none_as_null=True)),
    Column("at", DateTime(timezone=True)), Column("local", TIMESTAMP), Column("day", DATE),
    Column("price", Numeric(20, 6)), Column("big", Numeric), Column("ratio", DOUBLE_PRECISION),
    Column("bytes", LargeBinary), Column("note", Text),
)  # fmt: skip


def code(e):
    return e.orig.sqlstate


def failing(conn, sqlstate, statement, values=None):
    return fails(sqlstate, DBAPIError, lambda: conn.execute(statement, values or {}), code)


def count(conn, caption, users=USERS):
    return conn.scalar(select(func.count()).select_from(Photo).where(Photo.user_id.in_(users), Photo.caption == caption))


def connect(engine):
    print("version", sqlalchemy.__version__, "on psycopg", engine.dialect.dbapi.__version__)
    with engine.begin() as conn:
        same(engine.dialect.server_version_info >= (13,), True)
        same(conn.scalar(text("SHOW client_encoding")), "UTF8")
        for user in USERS:
            conn.execute(sql_delete(things).where(things.c.user_id == user))
            conn.execute(sql_delete(Photo).where(Photo.user_id == user))
            conn.execute(sql_delete(User).where(User.id == user))


def create(engine):
    for user in USERS:
        with Session(engine) as session:
            made = User(id=user, name=f"user {user}", photos=[Photo(caption="first")])
            session.add(made)
            session.commit()
            same((type(made.photos[0].id), made.photos[0].user_id), (int, user))


def read(engine):
    with Session(engine) as session:
        for user in USERS:
            found = session.get(User, user)
            same((found.name, [photo.caption for photo in found.photos]), (f"user {user}", ["first"]))
            same(session.scalars(select(Photo).where(Photo.id == found.photos[0].id)).one().user_id, user)
        two = select(User.id).where(User.id.in_([USERS[0], USERS[5]])).order_by(User.id)
        same(session.scalars(two).all(), [USERS[0], USERS[5]])
        joined = select(User.name, Photo.caption).join(Photo.user).where(User.id == USERS[3])
        same(session.execute(joined).all(), [(f"user {USERS[3]}", "first")])
        same(session.get(User, FIRST + 999), None)


def update(engine):
    with Session(engine) as session:
        for user in USERS:
            session.scalars(select(Photo).where(Photo.user_id == user)).one().caption = "updated"
            # Written photo by photo: several at once have no key in their WHERE.
            session.commit()
        result = session.execute(sql_update(Photo).where(Photo.user_id.in_(USERS[:4])).values(caption="updated"))
        same(result.rowcount, 4)
        session.commit()


def delete(engine):
    with Session(engine) as session:
        photo = Photo(user_id=USERS[2], caption="gone")
        session.add(photo)
        session.commit()
        session.delete(photo)
        session.commit()
        same(session.execute(sql_delete(Photo).where(Photo.user_id == USERS[2], Photo.caption == "gone")).rowcount, 0)


def scatter(engine):
    with engine.connect() as conn:
        same(conn.scalar(select(func.count()).select_from(Photo).where(Photo.user_id.between(USERS[0], USERS[-1]))), 16)
        last = select(User.id).where(User.id.between(USERS[0], USERS[-1])).order_by(User.id.desc()).limit(10)
        same(conn.scalars(last).all(), list(reversed(USERS[-10:])))


def prepared(engine):
    """psycopg prepares what it has run `prepare_threshold` times."""
    with create_engine(URL, connect_args={"prepare_threshold": 1}).connect() as conn:
        for _ in range(4):
            for user in USERS:
                same(conn.scalar(select(User.name).where(User.id == user)), f"user {user}")
                same(conn.execute(sql_update(User).where(User.id == user).values(name=f"user {user}")).rowcount, 1)
            conn.commit()


def commit(engine):
    with engine.begin() as conn:
        for user in (USERS[0], USERS[4], USERS[1]):
            conn.execute(sql_update(User).where(User.id == user).values(name="committed"))
    with engine.connect() as conn:
        same(conn.scalar(select(func.count()).select_from(User).where(User.name == "committed", User.id.in_(USERS))), 3)
    with engine.connect().execution_options(isolation_level="SERIALIZABLE") as conn:
        same(conn.scalar(select(User.name).where(User.id == USERS[4])), "committed")
        same(conn.scalar(text("SHOW transaction_isolation")), "serializable")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(insert(Photo).values(user_id=USERS[0], caption="with"))


def rollback(engine):
    with engine.connect() as conn:
        for user in (USERS[0], USERS[4]):
            conn.execute(sql_update(User).where(User.id == user).values(name="never"))
        conn.rollback()
        same(conn.scalar(select(func.count()).select_from(User).where(User.name == "never", User.id.in_(USERS))), 0)


def savepoint(engine):
    with engine.begin() as conn:
        for user in USERS[4:6]:
            conn.execute(insert(Photo).values(user_id=user, caption="before"))
            try:
                with conn.begin_nested():
                    conn.execute(insert(Photo).values(user_id=user, caption="undone"))
                    conn.execute(insert(User).values(id=user, name="twice"))
            except IntegrityError:
                pass
            with conn.begin_nested():
                conn.execute(sql_update(Photo).where(Photo.user_id == user, Photo.caption == "before").values(caption="before"))
    with engine.connect() as conn:
        mine = select(Photo.caption).where(Photo.user_id == USERS[4]).order_by(Photo.id)
        same(conn.scalars(mine).all(), ["updated", "before"])


def batch(engine):
    made = [{"user_id": user, "caption": f"batch {n}"} for n in range(3) for user in USERS]
    with engine.begin() as conn:
        conn.execute(insert(Photo), made[:16])
        # insertmanyvalues: many rows in one statement
        rows = conn.execute(insert(Photo).returning(Photo.user_id, Photo.caption), made[16:]).all()
        same([tuple(row) for row in rows], [(row["user_id"], row["caption"]) for row in made[16:]])
    # A flush of several new photos, which must get their own ids. SQLAlchemy tells them apart by ids that rise in the order of
    # the rows, and those of several users' shards don't: presplit refuses its statement, so for these it is turned off.
    for users, engine in (([USERS[5]] * 16, engine), (USERS, create_engine(URL, use_insertmanyvalues=False))):
        with Session(engine) as session:
            flushed = [Photo(user_id=user, caption=f"flushed {n}") for n, user in enumerate(users)]
            session.add_all(flushed)
            session.flush()
            for photo in flushed:
                found = select(Photo.user_id, Photo.caption).where(Photo.id == photo.id)
                same(tuple(session.execute(found).one()), (photo.user_id, photo.caption))
            session.commit()
    with engine.begin() as conn:
        renaming = sql_update(Photo.__table__).where(Photo.user_id == bindparam("u"), Photo.caption == "batch 2").values(caption="many")
        same(conn.execute(renaming, [{"u": user} for user in USERS]).rowcount, 16)
    with engine.connect() as conn:
        same(count(conn, "many"), 16)


def batch_error(engine):
    with engine.connect() as conn:
        made = [{"user_id": USERS[0], "id": 5}, {"user_id": USERS[4], "id": 5}, {"user_id": USERS[0], "id": 5}]
        fails("23505", IntegrityError, lambda: conn.execute(insert(things), made), code)
        conn.rollback()
        same(conn.scalar(select(func.count()).select_from(things).where(things.c.id == 5, things.c.user_id.in_(USERS))), 0)


def copy_in(engine):
    with engine.begin() as conn:
        cursor = conn.connection.cursor()
        with cursor.copy("COPY photos (user_id, caption) FROM STDIN") as copy:
            for user in USERS:
                copy.write_row((user, "copied \t\\ ü🚀"))
        same(cursor.rowcount, 16)
        with cursor.copy("COPY things (user_id, id, note) FROM STDIN (FORMAT csv)") as copy:
            copy.write("".join(f"{user},30,\n" for user in USERS))
        same(count(conn, "copied \t\\ ü🚀"), 16)
    with engine.connect() as conn:
        cursor = conn.connection.cursor()
        try:
            with cursor.copy("COPY photos (user_id, caption) FROM STDIN") as copy:
                copy.write_row((USERS[0], "lost"))
                raise KeyError
        except KeyError:
            conn.connection.rollback()
        same(count(conn, "lost"), 0)


def copy_out(engine):
    with engine.connect() as conn:
        cursor = conn.connection.cursor()
        with cursor.copy("COPY (SELECT name, NULL FROM users WHERE id = %s) TO STDOUT", (USERS[9],)) as copy:
            same(list(copy.rows()), [(f"user {USERS[9]}", None)])
        with cursor.copy("COPY (SELECT id FROM users WHERE id BETWEEN %s AND %s) TO STDOUT", (USERS[0], USERS[-1])) as copy:
            same(sorted(b"".join(copy).split()), [str(user).encode() for user in USERS])


def cursor(engine):
    with engine.connect().execution_options(stream_results=True, max_row_buffer=2) as conn:
        rows = conn.execute(select(Photo.caption).where(Photo.user_id == USERS[0]).order_by(Photo.id))
        same(rows.fetchone(), ("updated",))
        same(len(list(rows)), 6)
    with Session(engine) as session:
        mine = select(Photo).where(Photo.user_id == USERS[0]).order_by(Photo.id).execution_options(yield_per=3)
        same([len(part) for part in session.scalars(mine).partitions()], [3, 3, 1])


def unique_violation(engine):
    with engine.connect() as conn:
        e = failing(conn, "23505", insert(User).values(id=USERS[6], name="twice"))
        same((type(e), e.orig.diag.table_name, e.orig.diag.constraint_name), (IntegrityError, "users", "users_pkey"))
        conn.rollback()
        same(conn.scalar(select(User.name).where(User.id == USERS[6])), f"user {USERS[6]}")
        again = pg_insert(User).values(id=USERS[6], name="twice").on_conflict_do_nothing().returning(User.id)
        same(conn.execute(again).all(), [])


def syntax_error(engine):
    with engine.connect() as conn:
        for sqlstate, sql in (
            ("42601", "SELEC 1"),
            ("42601", f"SELECT name FRM users WHERE id = {USERS[0]}"),
            ("42703", f"SELECT nothing FROM users WHERE id = {USERS[0]}"),
        ):
            failing(conn, sqlstate, text(sql))
            conn.rollback()
        same(conn.scalar(text("SELECT 1")), 1)


def failed_transaction(engine):
    with engine.connect() as conn:
        conn.execute(insert(Photo).values(user_id=USERS[0], caption="lost"))
        failing(conn, "22012", select(1 / (User.id - User.id)).where(User.id == USERS[0]))
        failing(conn, "25P02", text("SELECT 1"))
        conn.rollback()
        same(count(conn, "lost"), 0)


def cancel(engine):
    with engine.connect() as conn:
        raw = conn.connection.driver_connection
        for sql in ("SELECT pg_sleep(60)", f"SELECT pg_sleep(60) FROM users WHERE id = {USERS[0]}"):
            done = threading.Event()

            def cancels():
                while not done.wait(0.1):
                    raw.cancel_safe()

            thread = threading.Thread(target=cancels)
            thread.start()
            began = time.monotonic()
            try:
                failing(conn, "57014", text(sql))
            finally:
                done.set()
                thread.join()
            same(time.monotonic() - began < 20, True)
            conn.rollback()
        same(conn.scalar(text("SELECT 1")), 1)


def put(engine, number, column, *values):
    with engine.begin() as conn:
        for user in USERS[:8]:
            for n, value in enumerate(values):
                conn.execute(insert(things).values(user_id=user, id=number + n, **{column: value}))


def got(engine, user, number, *columns):
    with engine.connect() as conn:
        return conn.execute(select(*columns).where(things.c.user_id == user, things.c.id == number)).one()[0]


def arrays(engine):
    put(engine, 100, "numbers", NUMBERS, [])
    put(engine, 110, "words", WORDS, [])
    for user in USERS[:8]:
        same(got(engine, user, 100, things.c.numbers), NUMBERS)
        same(got(engine, user, 101, things.c.numbers), [])
        same(got(engine, user, 110, things.c.words), WORDS)
    with engine.connect() as conn:
        found = select(User.id).where(User.id == sqlalchemy.any_(bindparam("users", USERS[3:9], ARRAY(BigInteger)))).order_by(User.id)
        same(conn.scalars(found).all(), USERS[3:9])
        same(conn.scalars(select(things.c.id).where(things.c.user_id == USERS[1], sqlalchemy.literal("b c") == sqlalchemy.any_(things.c.words))).all(), [110])


def json(engine):
    put(engine, 200, "data", DATA)
    put(engine, 201, "doc", DATA)
    for user in USERS[:8]:
        same(got(engine, user, 200, things.c.data), DATA)
        same(got(engine, user, 201, things.c.doc), DATA)
        same(got(engine, user, 200, things.c.data["b"]), DATA["b"])
        with engine.connect() as conn:
            found = select(things.c.id).where(things.c.user_id == user, things.c.data["a"].astext == "1", things.c.data.has_key("c"))
            same(conn.scalars(found).all(), [200])


def timestamps(engine):
    put(engine, 300, "at", AT)
    put(engine, 301, "local", LOCAL)
    put(engine, 302, "day", DAY)
    for user in USERS[:8]:
        same(got(engine, user, 300, things.c.at), AT)
        same(got(engine, user, 301, things.c.local), LOCAL)
        same(got(engine, user, 302, things.c.day), DAY)
    with engine.connect() as conn:
        conn.execute(text("SET TIME ZONE 'Asia/Kathmandu'"))
        conn.commit()
        at = select(sqlalchemy.cast(things.c.at, Text)).where(things.c.user_id == USERS[1], things.c.id == 300)
        same(conn.scalar(at), "2024-02-29 18:19:56.789012+05:45")
        conn.invalidate()


def numerics(engine):
    put(engine, 400, "price", PRICE, -PRICE)
    put(engine, 410, "big", BIG)
    put(engine, 420, "ratio", float("inf"), float("nan"), 0.1)
    for user in USERS[:8]:
        same(got(engine, user, 401, things.c.price), -PRICE)
        same(got(engine, user, 410, things.c.big), BIG)
        same(got(engine, user, 420, things.c.ratio), float("inf"))
        same(str(got(engine, user, 421, things.c.ratio)), "nan")
        same(got(engine, user, 422, things.c.ratio), 0.1)
    with engine.connect() as conn:
        total = select(func.sum(things.c.price)).where(things.c.user_id.between(USERS[0], USERS[-1]), things.c.id == 400)
        same(conn.scalar(total), 8 * PRICE)


def null(engine):
    columns = [column for column in things.c if not column.primary_key]
    with engine.begin() as conn:
        for user in USERS[:8]:
            conn.execute(insert(things).values(user_id=user, id=500, **{column.name: None for column in columns}))
            row = conn.execute(select(*columns).where(things.c.user_id == user, things.c.id == 500)).one()
            same(tuple(row), (None,) * len(columns))
            found = select(things.c.id).where(things.c.user_id == user, things.c.id >= 500, things.c.note.is_(None))
            same(conn.scalars(found).all(), [500])


def bytea(engine):
    put(engine, 600, "bytes", BYTES, b"", BYTES * 400)
    for user in USERS[:8]:
        for n, expected in enumerate((BYTES, b"", BYTES * 400)):
            same(got(engine, user, 600 + n, things.c.bytes), expected)


def unicode(engine):
    put(engine, 700, "note", TEXT)
    for user in USERS[:8]:
        same(got(engine, user, 700, things.c.note), TEXT)
        same(got(engine, user, 700, func.length(things.c.note)), len(TEXT))
    with engine.connect() as conn:
        found = text(f"SELECT '東🚀''' FROM things WHERE user_id = {USERS[0]} AND note LIKE '%🚀%'")
        same(conn.scalars(found).all(), ["東🚀'"])


def pool(engine):
    shared = create_engine(URL, pool_size=12, max_overflow=4, pool_pre_ping=True)
    faults = []

    def work(n):
        try:
            for turn in range(10):
                with Session(shared) as session:
                    user = USERS[(n + turn) % 16]
                    same(session.get(User, user).id, user)
                    if turn % 2:
                        session.execute(sql_update(User).where(User.id == user).values(name="never"))
        except Exception as e:
            faults.append(e)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(24)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    shared.dispose()
    if faults:
        raise faults[0]
    with engine.connect() as conn:
        same(conn.scalar(select(func.count()).select_from(User).where(User.name == "never", User.id.in_(USERS))), 0)


def also_reflection(engine):
    seen = inspect(engine)
    same({"users", "photos", "things", "countries"} <= set(seen.get_table_names()), True)
    same([column["name"] for column in seen.get_columns("photos")], ["id", "user_id", "caption", "created_at"])
    same(seen.get_pk_constraint("things")["constrained_columns"], ["user_id", "id"])
    same(seen.has_table("nothing"), False)
    reflected = Table("things", MetaData(), autoload_with=engine)
    same(isinstance(reflected.c.data.type, JSONB), True)


STEPS = [
    connect, create, read, update, delete, scatter, prepared, commit, rollback, savepoint, batch, batch_error, copy_in, copy_out,
    cursor, unique_violation, syntax_error, failed_transaction, cancel, arrays, json, timestamps, numerics, null, bytea, unicode, pool,
    also_reflection,
]  # fmt: skip


def main():
    steps, engine = Steps(), create_engine(URL)
    for step in STEPS:
        steps.run(step.__name__.replace("_", " ", step.__name__.startswith("also")), step, engine)
    steps.end()


main()
