"""psycopg2: see steps.txt. It binds parameters on its own side and sends simple queries; a block is open unless autocommit is on."""

import io
import threading
import time

import psycopg2
import psycopg2.errors
import psycopg2.extensions
import psycopg2.extras
import psycopg2.pool

from steps import AT, BIG, BYTES, DATA, DAY, FIRST, LOCAL, NUMBERS, PRICE, TEXT, URL, USERS, WORDS, Steps, fails, same


def rows(conn, sql, *values):
    with conn.cursor() as cursor:
        cursor.execute(sql, values or None)
        return cursor.fetchall()


def do(conn, sql, *values):
    with conn.cursor() as cursor:
        cursor.execute(sql, values or None)
        return cursor.rowcount


def failing(conn, sqlstate, sql, *values):
    return fails(sqlstate, psycopg2.Error, lambda: do(conn, sql, *values), lambda e: e.pgcode)


def connect(conn):
    print("version", psycopg2.__version__)
    same(conn.server_version >= 130000, True)
    same(rows(conn, "SHOW client_encoding"), [("UTF8",)])
    same(conn.get_parameter_status("standard_conforming_strings"), "on")
    for user in USERS:
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
    same(rows(conn, "SELECT id FROM users WHERE id IN %s ORDER BY id", (USERS[0], USERS[5])), [(USERS[0],), (USERS[5],)])
    joined = "SELECT u.name, p.caption FROM users u JOIN photos p ON p.user_id = u.id WHERE u.id = %(user)s"
    with conn.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
        cursor.execute(joined, {"user": USERS[3]})
        same([dict(row) for row in cursor], [{"name": f"user {USERS[3]}", "caption": "first"}])
    same(rows(conn, "SELECT name FROM users WHERE id = %s", FIRST + 999), [])


def update(conn):
    for user in USERS:
        same(do(conn, "UPDATE photos SET caption = %s WHERE user_id = %s", "updated", user), 1)
    same(do(conn, "UPDATE photos SET caption = 'updated' WHERE user_id IN %s", tuple(USERS[:4])), 4)


def delete(conn):
    do(conn, "INSERT INTO photos (user_id, caption) VALUES (%s, 'gone')", USERS[2])
    same(do(conn, "DELETE FROM photos WHERE user_id = %s AND caption = 'gone'", USERS[2]), 1)
    same(do(conn, "DELETE FROM photos WHERE user_id = %s AND caption = 'gone'", USERS[2]), 0)


def scatter(conn):
    same(rows(conn, "SELECT count(*) FROM photos WHERE user_id BETWEEN %s AND %s", USERS[0], USERS[-1]), [(16,)])
    got = rows(conn, "SELECT id FROM users WHERE id BETWEEN %s AND %s ORDER BY id DESC LIMIT 10", USERS[0], USERS[-1])
    same(got, [(user,) for user in reversed(USERS[-10:])])


def prepared(conn):
    """It has none of its own: in SQL."""
    do(conn, "PREPARE by_user (bigint) AS SELECT name, (SELECT count(*) FROM photos WHERE user_id = $1) FROM users WHERE id = $1")
    do(conn, "PREPARE rename AS UPDATE users SET name = $2 WHERE id = $1")
    for _ in range(3):
        for user in USERS:
            same(rows(conn, "EXECUTE by_user (%s)", user), [(f"user {user}", 1)])
            same(do(conn, "EXECUTE rename (%s, %s)", user, f"user {user}"), 1)
    do(conn, "DEALLOCATE rename")
    failing(conn, "26000", "EXECUTE rename (1, '')")


def commit(conn):
    conn.autocommit = False
    for user in (USERS[0], USERS[4], USERS[1]):
        do(conn, "UPDATE users SET name = 'committed' WHERE id = %s", user)
    conn.commit()
    same(rows(conn, "SELECT count(*) FROM users WHERE name = 'committed' AND id IN %s", tuple(USERS)), [(3,)])
    conn.commit()
    with conn:
        do(conn, "INSERT INTO photos (user_id, caption) VALUES (%s, 'with')", USERS[0])
    conn.autocommit = True


def rollback(conn):
    conn.autocommit = False
    for user in (USERS[0], USERS[4]):
        do(conn, "UPDATE users SET name = 'never' WHERE id = %s", user)
    conn.rollback()
    same(rows(conn, "SELECT count(*) FROM users WHERE name = 'never' AND id IN %s", tuple(USERS)), [(0,)])
    conn.rollback()
    conn.autocommit = True


def savepoint(conn):
    conn.autocommit = False
    for user in USERS[4:6]:
        do(conn, "INSERT INTO photos (user_id, caption) VALUES (%s, 'before')", user)
        do(conn, "SAVEPOINT one")
        do(conn, "INSERT INTO photos (user_id, caption) VALUES (%s, 'undone')", user)
        failing(conn, "23505", "INSERT INTO users (id, name) VALUES (%s, 'twice')", user)
        same(conn.info.transaction_status, psycopg2.extensions.TRANSACTION_STATUS_INERROR)
        do(conn, "ROLLBACK TO SAVEPOINT one")
        do(conn, "RELEASE SAVEPOINT one")
    conn.commit()
    same(rows(conn, "SELECT caption FROM photos WHERE user_id = %s ORDER BY id", USERS[4]), [("updated",), ("before",)])
    conn.commit()
    conn.autocommit = True


def batch(conn):
    made = [(user, f"batch {n}") for n in range(3) for user in USERS]
    with conn.cursor() as cursor:
        psycopg2.extras.execute_batch(cursor, "INSERT INTO photos (user_id, caption) VALUES (%s, %s)", made[:24], page_size=10)
        ids = psycopg2.extras.execute_values(
            cursor, "INSERT INTO photos (user_id, caption) VALUES %s RETURNING user_id, caption", made[24:], page_size=100, fetch=True
        )
        same(ids, made[24:])
        cursor.executemany("UPDATE photos SET caption = %s WHERE user_id = %s AND caption = %s", [("many", user, "batch 2") for user in USERS])
    same(rows(conn, "SELECT count(*) FROM photos WHERE user_id = %s AND caption = 'many'", USERS[7]), [(1,)])


def batch_error(conn):
    with conn.cursor() as cursor:
        made = [(USERS[0], 5), (USERS[4], 5), (USERS[0], 5)]
        insert = "INSERT INTO things (user_id, id) VALUES (%s, %s)"
        fails("23505", psycopg2.Error, lambda: psycopg2.extras.execute_batch(cursor, insert, made), lambda e: e.pgcode)
    same(rows(conn, "SELECT count(*) FROM things WHERE id = 5 AND user_id IN %s", tuple(USERS)), [(0,)])


def copy_in(conn):
    lines = "".join(f"{user}\tcopied \\t\\\\ ü🚀\n" for user in USERS)
    with conn.cursor() as cursor:
        cursor.copy_expert("COPY photos (user_id, caption) FROM STDIN", io.StringIO(lines))
        same(cursor.rowcount, 16)
        things = "".join(f"{user},30,\n" for user in USERS)
        cursor.copy_expert("COPY things (user_id, id, note) FROM STDIN (FORMAT csv)", io.StringIO(things))
    same(rows(conn, "SELECT caption FROM photos WHERE user_id = %s AND caption LIKE 'copied%%'", USERS[9]), [("copied \t\\ ü🚀",)])
    same(rows(conn, "SELECT note FROM things WHERE user_id = %s AND id = 30", USERS[9]), [(None,)])

    class Breaks:
        def __init__(self):
            self.read_before = False

        def read(self, size):
            if self.read_before:
                raise KeyError("the client breaks off")
            self.read_before = True
            return f"{USERS[0]}\tlost\n"

    with conn.cursor() as cursor:
        copy = "COPY photos (user_id, caption) FROM STDIN"
        fails("57014", psycopg2.errors.QueryCanceled, lambda: cursor.copy_expert(copy, Breaks()), lambda e: e.pgcode)
    same(rows(conn, "SELECT count(*) FROM photos WHERE user_id = %s AND caption = 'lost'", USERS[0]), [(0,)])


def copy_out(conn):
    with conn.cursor() as cursor:
        out = io.StringIO()
        cursor.copy_expert(f"COPY (SELECT name, NULL FROM users WHERE id = {USERS[9]}) TO STDOUT", out)
        same(out.getvalue(), f"user {USERS[9]}\t\\N\n")
        out = io.StringIO()
        cursor.copy_expert(f"COPY (SELECT id FROM users WHERE id BETWEEN {USERS[0]} AND {USERS[-1]}) TO STDOUT", out)
        same(sorted(out.getvalue().split()), [str(user) for user in USERS])


def cursor(conn):
    conn.autocommit = False
    with conn.cursor("far") as far:
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


def unique_violation(conn):
    e = failing(conn, "23505", "INSERT INTO users (id, name) VALUES (%s, 'twice')", USERS[6])
    same((type(e), e.diag.table_name, e.diag.constraint_name), (psycopg2.errors.UniqueViolation, "users", "users_pkey"))
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
                conn.cancel()

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
        except psycopg2.errors.QueryCanceled:
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
    put(conn, 200, "data", psycopg2.extras.Json(DATA))
    put(conn, 201, "doc", psycopg2.extras.Json(DATA))
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
    connections = psycopg2.pool.ThreadedConnectionPool(1, 16, URL)
    faults = []

    def work(n):
        try:
            for turn in range(10):
                mine = connections.getconn(key=n)
                user = USERS[(n + turn) % 16]
                same(rows(mine, "SELECT id FROM users WHERE id = %s", user), [(user,)])
                if turn % 3 == 0:
                    mine.commit()
                connections.putconn(mine, key=n)
        except Exception as e:
            faults.append(e)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    connections.closeall()
    if faults:
        raise faults[0]


STEPS = [
    connect, create, read, update, delete, scatter, prepared, commit, rollback, savepoint, batch, batch_error, copy_in, copy_out,
    cursor, unique_violation, syntax_error, failed_transaction, cancel, arrays, json, timestamps, numerics, null, bytea, unicode, pool,
]  # fmt: skip


def main():
    steps = Steps()
    conn = None
    for step in STEPS:
        if conn is None:
            conn = psycopg2.connect(URL)
            conn.autocommit = True
        if not steps.run(step.__name__, step, conn):
            conn.close()
            conn = None
    steps.end()


main()
