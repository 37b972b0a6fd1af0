"""psycopg 3: see steps.txt. It binds on the server, prepares what it has run five times, and has pipelines."""

import threading
import time

import psycopg
import psycopg.errors
from psycopg.rows import dict_row
from psycopg.types.json import Json, Jsonb

from steps import AT, BIG, BYTES, DATA, DAY, FIRST, LOCAL, NUMBERS, PRICE, TEXT, URL, USERS, WORDS, Steps, fails, same

# Of the checks that are no steps.
OWN = list(range(FIRST + 16, FIRST + 32))


def one(conn, sql, params=(), **how):
    return conn.execute(sql, params, **how).fetchone()[0]


def rows(conn, sql, *values):
    return conn.execute(sql, values or None).fetchall()


def do(conn, sql, *values):
    return conn.execute(sql, values or None).rowcount


def failing(conn, sqlstate, sql, *values):
    return fails(sqlstate, psycopg.Error, lambda: do(conn, sql, *values))


def connect(conn):
    print("version", f"{psycopg.__version__}, libpq {psycopg.pq.version()}")
    same(conn.info.server_version >= 130000, True)
    same((conn.info.encoding, conn.info.parameter_status("client_encoding")), ("utf-8", "UTF8"))
    for user in [*USERS, *OWN]:
        for table, key in (("things", "user_id"), ("photos", "user_id"), ("users", "id")):
            do(conn, f"DELETE FROM {table} WHERE {key} = %s", user)


def create(conn):
    for user in USERS:
        same(do(conn, "INSERT INTO users (id, name) VALUES (%s, %s)", user, f"user {user}"), 1)
        [(photo, caption)] = rows(conn, "INSERT INTO photos (user_id, caption) VALUES (%s, %s) RETURNING id, caption", user, "first")
        same((type(photo), caption), (int, "first"))


def read(conn):
    for user in USERS:
        same(rows(conn, "SELECT name FROM users WHERE id = %s", user), [(f"user {user}",)])
        [(photo,)] = rows(conn, "SELECT id FROM photos WHERE user_id = %s", user)
        same(rows(conn, "SELECT user_id FROM photos WHERE id = %s", photo), [(user,)])
    same(rows(conn, "SELECT id FROM users WHERE id IN (%s, %s) ORDER BY id", USERS[0], USERS[5]), [(USERS[0],), (USERS[5],)])
    joined = "SELECT u.name, p.caption FROM users u JOIN photos p ON p.user_id = u.id WHERE u.id = %(user)s"
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(joined, {"user": USERS[3]})
        same(list(cursor), [{"name": f"user {USERS[3]}", "caption": "first"}])
    same(rows(conn, "SELECT name FROM users WHERE id = %s", FIRST + 999), [])


def update(conn):
    for user in USERS:
        same(do(conn, "UPDATE photos SET caption = %s WHERE user_id = %s", "updated", user), 1)
    same(do(conn, "UPDATE photos SET caption = 'updated' WHERE user_id = ANY(%s)", USERS[:4]), 4)


def delete(conn):
    do(conn, "INSERT INTO photos (user_id, caption) VALUES (%s, 'gone')", USERS[2])
    same(do(conn, "DELETE FROM photos WHERE user_id = %s AND caption = 'gone'", USERS[2]), 1)
    same(do(conn, "DELETE FROM photos WHERE user_id = %s AND caption = 'gone'", USERS[2]), 0)


def scatter(conn):
    same(rows(conn, "SELECT count(*) FROM photos WHERE user_id BETWEEN %s AND %s", USERS[0], USERS[-1]), [(16,)])
    got = rows(conn, "SELECT id FROM users WHERE id BETWEEN %s AND %s ORDER BY id DESC LIMIT 10", USERS[0], USERS[-1])
    same(got, [(user,) for user in reversed(USERS[-10:])])


def prepared(conn):
    for _ in range(3):
        for user in USERS:
            by = "SELECT name, (SELECT count(*) FROM photos WHERE user_id = %s) FROM users WHERE id = %s"
            same(conn.execute(by, (user, user), prepare=True).fetchone(), (f"user {user}", 1))
            rename = "UPDATE users SET name = %s WHERE id = %s"
            same(conn.execute(rename, (f"user {user}", user), prepare=True).rowcount, 1)
    conn.prepare_threshold = 2
    for user in USERS:
        same(one(conn, "SELECT id FROM users WHERE id = %b", (user,)), user)
    conn.prepare_threshold = 5


def commit(conn):
    conn.autocommit = False
    for user in (USERS[0], USERS[4], USERS[1]):
        do(conn, "UPDATE users SET name = 'committed' WHERE id = %s", user)
    conn.commit()
    same(rows(conn, "SELECT count(*) FROM users WHERE name = 'committed' AND id = ANY(%s)", USERS), [(3,)])
    conn.commit()
    conn.autocommit = True
    with conn.transaction():
        do(conn, "INSERT INTO photos (user_id, caption) VALUES (%s, 'with')", USERS[0])
    conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    conn.read_only = True
    with conn.transaction():
        same(rows(conn, "SELECT name FROM users WHERE id = %s", USERS[4]), [("committed",)])
    conn.isolation_level = conn.read_only = None


def rollback(conn):
    conn.autocommit = False
    for user in (USERS[0], USERS[4]):
        do(conn, "UPDATE users SET name = 'never' WHERE id = %s", user)
    conn.rollback()
    same(rows(conn, "SELECT count(*) FROM users WHERE name = 'never' AND id = ANY(%s)", USERS), [(0,)])
    conn.rollback()
    conn.autocommit = True


def savepoint(conn):
    with conn.transaction():
        for user in USERS[4:6]:
            do(conn, "INSERT INTO photos (user_id, caption) VALUES (%s, 'before')", user)
            try:
                with conn.transaction():
                    do(conn, "INSERT INTO photos (user_id, caption) VALUES (%s, 'undone')", user)
                    do(conn, "INSERT INTO users (id, name) VALUES (%s, 'twice')", user)
            except psycopg.errors.UniqueViolation:
                pass
            with conn.transaction("named"):
                do(conn, "UPDATE users SET name = 'inside' WHERE id = %s", user)
    same(rows(conn, "SELECT caption FROM photos WHERE user_id = %s ORDER BY id", USERS[4]), [("updated",), ("before",)])


def batch(conn):
    insert = "INSERT INTO photos (user_id, caption) VALUES (%s, %s)"
    with conn.pipeline() as pipeline:
        names = [conn.execute("SELECT name FROM users WHERE id = %s", (user,)) for user in USERS[6:]]
        for user in USERS:
            conn.execute(insert, (user, "batch 0"))
            pipeline.sync()
        same([name.fetchone()[0] for name in names], [f"user {user}" for user in USERS[6:]])
    with conn.cursor() as cursor:
        cursor.executemany(insert, [(user, "batch 1") for user in USERS])
        same(cursor.rowcount, 16)
        cursor.executemany(insert + " RETURNING user_id", [(user, "batch 2") for user in USERS], returning=True)
        returned = []
        for user in USERS:
            returned.append(cursor.fetchone()[0])
            cursor.nextset()
        same(returned, USERS)
        cursor.executemany("UPDATE photos SET caption = %s WHERE user_id = %s AND caption = %s", [("many", user, "batch 2") for user in USERS])
    same(rows(conn, "SELECT count(*) FROM photos WHERE user_id = %s AND caption = 'many'", USERS[7]), [(1,)])


def batch_error(conn):
    insert = "INSERT INTO things (user_id, id) VALUES (%s, 5)"

    def pipelined():
        with conn.pipeline():
            for n in (0, 4, 0, 1):
                conn.execute(insert, (USERS[n],))

    e = fails("23505", psycopg.errors.UniqueViolation, pipelined)
    same(e.diag.constraint_name, "things_pkey")
    same(rows(conn, "SELECT count(*) FROM things WHERE id = 5 AND user_id = ANY(%s)", USERS), [(0,)])


def copy_in(conn):
    with conn.cursor() as cursor:
        with cursor.copy("COPY photos (user_id, caption) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int8", "text"])
            for user in USERS:
                copy.write_row((user, "copied \t\\ ü🚀"))
        same(cursor.rowcount, 16)
        with cursor.copy("COPY things (user_id, id, note) FROM STDIN (FORMAT csv)") as copy:
            copy.write("".join(f"{user},30,\n" for user in USERS))
    same(rows(conn, "SELECT caption FROM photos WHERE user_id = %s AND caption LIKE 'copied%%'", USERS[9]), [("copied \t\\ ü🚀",)])
    same(rows(conn, "SELECT note FROM things WHERE user_id = %s AND id = 30", USERS[9]), [(None,)])
    try:
        with conn.cursor().copy("COPY photos (user_id, caption) FROM STDIN") as copy:
            copy.write_row((USERS[0], "lost"))
            raise KeyError
    except KeyError:
        pass
    same(rows(conn, "SELECT count(*) FROM photos WHERE user_id = %s AND caption = 'lost'", USERS[0]), [(0,)])


def copy_out(conn):
    with conn.cursor().copy("COPY (SELECT name, NULL FROM users WHERE id = %s) TO STDOUT", (USERS[9],)) as copy:
        same(list(copy.rows()), [(f"user {USERS[9]}", None)])
    all_users = "COPY (SELECT id FROM users WHERE id BETWEEN %s AND %s) TO STDOUT (FORMAT binary)"
    with conn.cursor().copy(all_users, (USERS[0], USERS[-1])) as copy:
        copy.set_types(["int8"])
        same(sorted(row[0] for row in copy.rows()), USERS)


def cursor(conn):
    conn.autocommit = False
    with conn.cursor("far", binary=True) as far:
        far.itersize = 2
        far.execute("SELECT caption FROM photos WHERE user_id = %s ORDER BY id", (USERS[0],))
        same(far.fetchone(), ("updated",))
        same(len(far.fetchmany(2)), 2)
        same(len(list(far)), 3)
    with conn.cursor("scrolling", scrollable=True) as far:
        far.execute("SELECT caption FROM photos WHERE user_id = %s ORDER BY id", (USERS[0],))
        far.scroll(2)
        far.scroll(-2)
        same(far.fetchone(), ("updated",))
    conn.commit()
    conn.autocommit = True
    ids = "SELECT id FROM users WHERE id BETWEEN %s AND %s ORDER BY id"
    same([row[0] for row in conn.cursor().stream(ids, (USERS[0], USERS[-1]))], USERS)


def unique_violation(conn):
    e = failing(conn, "23505", "INSERT INTO users (id, name) VALUES (%s, 'twice')", USERS[6])
    same((type(e), e.diag.table_name, e.diag.constraint_name), (psycopg.errors.UniqueViolation, "users", "users_pkey"))
    same(rows(conn, "SELECT name FROM users WHERE id = %s", USERS[6]), [(f"user {USERS[6]}",)])


def syntax_error(conn):
    failing(conn, "42601", "SELEC 1")
    failing(conn, "42601", "SELECT name FRM users WHERE id = %s", USERS[0])
    failing(conn, "42703", "SELECT nothing FROM users WHERE id = %s", USERS[0])
    same(rows(conn, "SELECT 1"), [(1,)])


def failed_transaction(conn):
    conn.autocommit = False
    do(conn, "INSERT INTO photos (user_id, caption) VALUES (%s, 'lost')", USERS[0])
    failing(conn, "22012", "SELECT 1 / (id - id) FROM users WHERE id = %s", USERS[0])
    failing(conn, "25P02", "SELECT 1")
    conn.rollback()
    same(rows(conn, "SELECT count(*) FROM photos WHERE user_id = %s AND caption = 'lost'", USERS[0]), [(0,)])
    conn.commit()
    conn.autocommit = True


def cancel(conn):
    for sql in ("SELECT pg_sleep(60)", f"SELECT pg_sleep(60) FROM users WHERE id = {USERS[0]}"):
        done = threading.Event()

        def cancels():
            while not done.wait(0.1):
                conn.cancel_safe()

        thread = threading.Thread(target=cancels)
        thread.start()
        began = time.monotonic()
        try:
            failing(conn, "57014", sql)
        finally:
            done.set()
            thread.join()
        same(time.monotonic() - began < 20, True)
        # One that came late can hit the next.
        try:
            do(conn, "SELECT 1")
        except psycopg.errors.QueryCanceled:
            pass
    same(rows(conn, "SELECT 1"), [(1,)])


def put(conn, number, column, *values):
    """A row for each user with these in one column after the other."""
    for user in USERS[:8]:
        for n, value in enumerate(values):
            do(conn, f"INSERT INTO things (user_id, id, {column}) VALUES (%s, %s, %s)", user, number + n, value)


def got(conn, user, number, columns):
    [row] = rows(conn, f"SELECT {columns} FROM things WHERE user_id = %s AND id = %s", user, number)
    return row


def arrays(conn):
    put(conn, 100, "numbers", NUMBERS, [])
    put(conn, 110, "words", WORDS, [])
    for user in USERS[:8]:
        same(got(conn, user, 100, "numbers"), (NUMBERS,))
        same(got(conn, user, 101, "numbers"), ([],))
        same(got(conn, user, 110, "words"), (WORDS,))
    found = rows(conn, "SELECT id FROM users WHERE id = ANY(%s) ORDER BY id", USERS[3:9])
    same(found, [(user,) for user in USERS[3:9]])
    same(rows(conn, "SELECT id FROM things WHERE user_id = %s AND 'b c' = ANY(words)", USERS[1]), [(110,)])


def json(conn):
    put(conn, 200, "data", Jsonb(DATA))
    put(conn, 201, "doc", Json(DATA))
    for user in USERS[:8]:
        same(got(conn, user, 200, "data"), (DATA,))
        same(got(conn, user, 201, "doc"), (DATA,))
        same(rows(conn, "SELECT id, data -> 'b' FROM things WHERE user_id = %s AND data ->> 'a' = '1'", user), [(200, DATA["b"])])
        same(rows(conn, "SELECT id FROM things WHERE user_id = %s AND data ? 'a'", user), [(200,)])


def timestamps(conn):
    put(conn, 300, "at", AT)
    put(conn, 301, "local", LOCAL)
    put(conn, 302, "day", DAY)
    do(conn, "SET TIME ZONE 'Asia/Kathmandu'")
    for user in USERS[:8]:
        same(got(conn, user, 300, "at, at::text"), (AT, "2024-02-29 18:19:56.789012+05:45"))
        same(got(conn, user, 301, "local"), (LOCAL,))
        same(got(conn, user, 302, "day"), (DAY,))
    do(conn, "RESET TIME ZONE")


def numerics(conn):
    put(conn, 400, "price", PRICE, -PRICE)
    put(conn, 410, "big", BIG)
    put(conn, 420, "ratio", float("inf"), float("nan"), 0.1)
    for user in USERS[:8]:
        same(got(conn, user, 401, "price"), (-PRICE,))
        same(got(conn, user, 410, "big"), (BIG,))
        same(got(conn, user, 420, "ratio"), (float("inf"),))
        same(str(got(conn, user, 421, "ratio")[0]), "nan")
        same(got(conn, user, 422, "ratio"), (0.1,))
    same(rows(conn, "SELECT sum(price) FROM things WHERE user_id BETWEEN %s AND %s AND id = 400", USERS[0], USERS[-1]), [(8 * PRICE,)])


def null(conn):
    columns = "numbers, words, data, doc, at, local, day, price, big, ratio, bytes, flag, note"
    for user in USERS[:8]:
        do(conn, f"INSERT INTO things (user_id, id, {columns}) VALUES (%s, 500{', %s' * 13})", user, *[None] * 13)
        same(got(conn, user, 500, columns), (None,) * 13)
    same(rows(conn, "SELECT id FROM things WHERE user_id = %s AND id >= 500 AND note IS NULL", USERS[5]), [(500,)])


def bytea(conn):
    put(conn, 600, "bytes", BYTES, b"", BYTES * 400)
    for user in USERS[:8]:
        for n, expected in enumerate((BYTES, b"", BYTES * 400)):
            same(bytes(got(conn, user, 600 + n, "bytes")[0]), expected)


def unicode(conn):
    put(conn, 700, "note", TEXT)
    for user in USERS[:8]:
        same(got(conn, user, 700, "note, length(note)"), (TEXT, len(TEXT)))
        same(rows(conn, "SELECT id FROM things WHERE user_id = %s AND note = %s", user, TEXT), [(700,)])
    same(rows(conn, f"SELECT id, '東🚀''' FROM things WHERE user_id = {USERS[0]} AND note LIKE '%🚀%'"), [(700, "東🚀'")])


def pool(conn):
    """More connections than the pool of a host. Their statements share names and differ."""
    connections = [psycopg.connect(URL, autocommit=True) for _ in range(24)]
    for turn in range(3):
        for n, mine in enumerate(connections):
            user = USERS[(n + turn) % 16]
            column = "name || id::text" if n % 2 else "id"
            same(str(one(mine, f"SELECT {column} FROM users WHERE id = %s", (user,), prepare=True))[-4:], str(user)[-4:])
            mine.execute(f"SET application_name = 'of {n}'")
    for n, mine in enumerate(connections):
        same(one(mine, "SHOW application_name"), f"of {n}")
        mine.close()


def also_parameters_of_every_kind(conn):
    """Python's int becomes smallint here, str is sent without a type."""
    for user in OWN:
        conn.execute("INSERT INTO users (id, name) VALUES (%s, %s)", (user, f"näme {user}"))
    for user in OWN:
        same(one(conn, "SELECT name FROM users WHERE id = %s", (user,)), f"näme {user}")
        same(one(conn, "SELECT name FROM users WHERE id = %t", (user,)), f"näme {user}")
        same(one(conn, "SELECT name FROM users WHERE id = %s", (str(user),)), f"näme {user}")
        same(one(conn, "SELECT name FROM users WHERE %s = id", (user,)), f"näme {user}")
    for user in OWN:
        same(one(conn, "SELECT name FROM users WHERE id = %b", (user,), binary=True), f"näme {user}")
        same(one(conn, "SELECT id FROM users WHERE id = %b::bigint", (user,), binary=True), user)
        same(one(conn, "SELECT id FROM users u WHERE u.id = %b AND name = %s", (user, f"näme {user}")), user)
    same(one(conn, "SELECT name FROM users WHERE id = %s", (OWN[3],)), f"näme {OWN[3]}")
    same(conn.execute("SELECT name FROM users WHERE id = %s", (1_000_000_007,)).fetchall(), [])
    same(conn.execute("SELECT name FROM users WHERE id = %s", (1 << 40,)).fetchall(), [])


def also_rows_found_by_id_alone(conn):
    for user in OWN:
        photo = one(conn, "INSERT INTO photos (user_id, caption) VALUES (%s, %s) RETURNING id", (user, "first"))
        same(conn.execute("SELECT user_id, caption FROM photos WHERE id = %s", (photo,)).fetchone(), (user, "first"))
        same(conn.execute("UPDATE photos SET caption = %s WHERE id = %s", ("by id", photo)).rowcount, 1)


def also_prepared_anew(conn):
    conn.prepare_threshold = 2
    for _ in range(3):
        for user in OWN:
            same(one(conn, "SELECT count(*) FROM photos WHERE user_id = %s AND caption = %s", (user, "by id")), 1)
    conn.prepare_threshold = 5
    for user in OWN:
        same(one(conn, "SELECT caption FROM photos WHERE user_id = %s", (user,), prepare=True), "by id")
    conn.execute("DEALLOCATE ALL")
    conn._prepared.clear()
    same(one(conn, "SELECT caption FROM photos WHERE user_id = %s", (OWN[1],), prepare=True), "by id")


def also_row_factories_and_reference_tables(conn):
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "SELECT u.id, u.name, p.caption FROM users u JOIN photos p ON p.user_id = u.id WHERE u.id = %s AND p.caption = %s", (OWN[2], "by id")
        )
        same(cursor.fetchall(), [{"id": OWN[2], "name": f"näme {OWN[2]}", "caption": "by id"}])
        same([column.name for column in cursor.description], ["id", "name", "caption"])
    same(
        conn.execute("WITH mine AS (SELECT * FROM photos WHERE user_id = %s) SELECT count(*) FROM mine", (OWN[5],)).fetchone(),
        (1,),
    )
    with psycopg.ClientCursor(conn) as cursor:
        cursor.execute("SELECT name FROM users WHERE id = %s", (OWN[4],))
        same(cursor.fetchone(), (f"näme {OWN[4]}",))
    same(one(conn, "SELECT name FROM countries WHERE code = %s", ("de",)), "Germany")


def also_notifications(conn):
    channel = f"of_psycopg_{FIRST}"
    conn.execute(f"LISTEN {channel}")
    with psycopg.connect(URL, autocommit=True) as other:
        for n in range(3):
            other.execute("SELECT pg_notify(%s, %s)", (channel, f"é{n}"))
    same([note.payload for note in conn.notifies(timeout=20, stop_after=3)], ["é0", "é1", "é2"])
    same(one(conn, "SELECT id FROM users WHERE id = %s", (USERS[4],)), USERS[4])
    conn.execute(f"UNLISTEN {channel}")


STEPS = [
    connect, create, read, update, delete, scatter, prepared, commit, rollback, savepoint, batch, batch_error, copy_in, copy_out,
    cursor, unique_violation, syntax_error, failed_transaction, cancel, arrays, json, timestamps, numerics, null, bytea, unicode, pool,
    also_parameters_of_every_kind, also_rows_found_by_id_alone, also_prepared_anew, also_row_factories_and_reference_tables, also_notifications,
]  # fmt: skip


def main():
    steps = Steps()
    conn = None
    for step in STEPS:
        if conn is None:
            conn = psycopg.connect(URL, autocommit=True)
        if not steps.run(step.__name__.replace("_", " ", step.__name__.startswith("also")), step, conn):
            conn.close()
            conn = None
    steps.end()


main()
