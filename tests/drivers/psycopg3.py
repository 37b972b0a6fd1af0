"""psycopg 3 against DATABASE_URL, which holds the demo's tables: one `ok` line for each thing tried, exit code 1 at the
first difference from what one Postgres does. Users 1000-1015 and 1020-1035 are its own; it leaves rows of theirs behind
and says how many."""

import os
import sys

import psycopg
from psycopg.rows import dict_row

URL = os.environ["DATABASE_URL"]
USERS = range(1000, 1016)


def ok(what):
    print(f"ok {what}", flush=True)


def same(got, expected):
    if got != expected:
        sys.exit(f"got {got!r}, expected {expected!r}")


def one(conn, sql, params=(), **how):
    return conn.execute(sql, params, **how).fetchone()[0]


def clean(conn):
    for user in [*USERS, *range(1020, 1036)]:
        conn.execute("DELETE FROM photos WHERE user_id = %s", (user,))
        conn.execute("DELETE FROM users WHERE id = %s", (user,))
    ok("clean")


def parameters(conn):
    """Python's int becomes smallint here, str is sent without a type."""
    for user in USERS:
        conn.execute("INSERT INTO users (id, name) VALUES (%s, %s)", (user, f"näme {user}"))
    for user in USERS:
        same(one(conn, "SELECT name FROM users WHERE id = %s", (user,)), f"näme {user}")
        same(one(conn, "SELECT name FROM users WHERE id = %t", (user,)), f"näme {user}")
        same(one(conn, "SELECT name FROM users WHERE id = %s", (str(user),)), f"näme {user}")
        same(one(conn, "SELECT name FROM users WHERE %s = id", (user,)), f"näme {user}")
    ok("text parameters")
    for user in USERS:
        same(one(conn, "SELECT name FROM users WHERE id = %b", (user,), binary=True), f"näme {user}")
        same(one(conn, "SELECT id FROM users WHERE id = %b::bigint", (user,), binary=True), user)
        same(one(conn, "SELECT id FROM users u WHERE u.id = %b AND name = %s", (user, f"näme {user}")), user)
    ok("binary parameters")
    same(one(conn, "SELECT name FROM users WHERE id = 1003"), "näme 1003")
    same(conn.execute("SELECT name FROM users WHERE id = %s", (1_000_000_007,)).fetchall(), [])
    same(conn.execute("SELECT name FROM users WHERE id = %s", (1 << 40,)).fetchall(), [])
    ok("literals, int4 and int8 parameters")


def ids(conn):
    for user in USERS:
        photo = one(conn, "INSERT INTO photos (user_id, caption) VALUES (%s, %s) RETURNING id", (user, "first"))
        same(conn.execute("SELECT user_id, caption FROM photos WHERE id = %s", (photo,)).fetchone(), (user, "first"))
        same(conn.execute("UPDATE photos SET caption = %s WHERE id = %s", ("by id", photo)).rowcount, 1)
    ok("rows found by id alone")


def prepared(conn):
    conn.prepare_threshold = 2
    for _ in range(3):
        for user in USERS:
            same(one(conn, "SELECT count(*) FROM photos WHERE user_id = %s AND caption = %s", (user, "by id")), 1)
    conn.prepare_threshold = 5
    for user in USERS:
        same(one(conn, "SELECT caption FROM photos WHERE user_id = %s", (user,), prepare=True), "by id")
    conn.execute("DEALLOCATE ALL")
    conn._prepared.clear()
    same(one(conn, "SELECT caption FROM photos WHERE user_id = %s", (1001,), prepare=True), "by id")
    ok("prepared statements")


def pipelines(conn):
    with conn.pipeline() as pipeline:
        cursors = [conn.execute("SELECT name FROM users WHERE id = %s", (user,)) for user in USERS]
        pipeline.sync()
        names = [cursor.fetchone()[0] for cursor in cursors]
    same(names, [f"näme {user}" for user in USERS])
    with conn.pipeline() as pipeline:
        for user in USERS:
            conn.execute("INSERT INTO photos (user_id, caption) VALUES (%s, 'pipelined')", (user,))
            pipeline.sync()
    for user in USERS:
        same(one(conn, "SELECT count(*) FROM photos WHERE user_id = %s AND caption = 'pipelined'", (user,)), 1)
    ok("pipelines")
    try:
        with conn.pipeline():
            conn.execute("INSERT INTO photos (user_id, caption) VALUES (1000, 'lost')")
            conn.execute("INSERT INTO users (id, name) VALUES (1000, 'twice')")
            conn.execute("INSERT INTO photos (user_id, caption) VALUES (1000, 'skipped')")
        sys.exit("the pipeline should have failed")
    except psycopg.errors.UniqueViolation as e:
        same(e.diag.constraint_name, "users_pkey")
    same(one(conn, "SELECT count(*) FROM photos WHERE user_id = 1000 AND caption IN ('lost', 'skipped')"), 0)
    ok("an error in a pipeline undoes it up to its sync")


def many(conn):
    with conn.cursor() as cursor:
        cursor.executemany("INSERT INTO photos (user_id, caption) VALUES (%s, %s)", [(1005, f"m{n}") for n in range(20)])
        same(cursor.rowcount, 20)
        cursor.executemany(
            "INSERT INTO photos (user_id, caption) VALUES (%s, %s) RETURNING caption", [(1006, "r1"), (1006, "r2")], returning=True
        )
        got = []
        while True:
            got.append(cursor.fetchone()[0])
            if not cursor.nextset():
                break
        same(got, ["r1", "r2"])
    same(one(conn, "SELECT count(*) FROM photos WHERE user_id = 1005 AND caption LIKE 'm%%'"), 20)
    ok("executemany")


def transactions(conn):
    with conn.transaction():
        conn.execute("UPDATE users SET name = 'renamed' WHERE id = %s", (1002,))
        conn.execute("INSERT INTO photos (user_id, caption) VALUES (%s, 'kept')", (1002,))
        try:
            with conn.transaction():
                conn.execute("INSERT INTO photos (user_id, caption) VALUES (%s, 'undone')", (1002,))
                conn.execute("INSERT INTO users (id, name) VALUES (%s, 'twice')", (1002,))
        except psycopg.errors.UniqueViolation:
            pass
        same(one(conn, "SELECT array_agg(caption ORDER BY id) FROM photos WHERE user_id = %s", (1002,)), ["by id", "pipelined", "kept"])
        # Shard 2 and shard 3 are on one host.
        conn.execute("UPDATE users SET name = 'renamed too' WHERE id = %s", (1003,))
    same(one(conn, "SELECT name FROM users WHERE id = 1003"), "renamed too")
    try:
        with conn.transaction():
            conn.execute("DELETE FROM photos WHERE user_id = %s", (1002,))
            raise KeyError
    except KeyError:
        pass
    same(one(conn, "SELECT count(*) FROM photos WHERE user_id = 1002"), 3)
    ok("transactions and savepoints")
    conn.autocommit = False
    conn.execute("UPDATE users SET name = 'committed' WHERE id = 1004")
    conn.commit()
    conn.execute("UPDATE users SET name = 'not so' WHERE id = 1004")
    conn.rollback()
    same(one(conn, "SELECT name FROM users WHERE id = 1004"), "committed")
    conn.commit()
    with conn.cursor("far") as cursor:
        cursor.execute("SELECT caption FROM photos WHERE user_id = %s ORDER BY id", (1005,))
        same(len(cursor.fetchmany(5)), 5)
        same(len(cursor.fetchall()), 17)
    conn.commit()
    conn.autocommit = True
    ok("implicit transactions and a server-side cursor")


def errors(conn):
    for sql, fault in (
        ("SELECT nothing FROM photos WHERE user_id = 1001", psycopg.errors.UndefinedColumn),
        ("INSERT INTO users (id, name) VALUES (1001, NULL)", psycopg.errors.NotNullViolation),
        ("SELECT 1/(id - id) FROM users WHERE id = 1001", psycopg.errors.DivisionByZero),
    ):
        try:
            conn.execute(sql)
            sys.exit(f"{sql}: should have failed")
        except fault:
            pass
    try:
        conn.execute("SELECT caption FRM photos WHERE user_id = 1001")
        sys.exit("a syntax error should have failed")
    except psycopg.DatabaseError as e:
        # What names a sharded table and can't be read is refused by the proxy in words of its own.
        if e.sqlstate not in ("42601", "SR006"):
            raise
    same(one(conn, "SELECT 1"), 1)
    ok("errors keep their code, and the connection goes on")


def shapes(conn):
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "SELECT u.id, u.name, p.caption FROM users u JOIN photos p ON p.user_id = u.id WHERE u.id = %s AND p.caption = %s", (1002, "kept")
        )
        same(cursor.fetchall(), [{"id": 1002, "name": "renamed", "caption": "kept"}])
        same([column.name for column in cursor.description], ["id", "name", "caption"])
    same(
        conn.execute("WITH mine AS (SELECT * FROM photos WHERE user_id = %s) SELECT count(*) FROM mine", (1005,)).fetchone(),
        (22,),
    )
    with psycopg.ClientCursor(conn) as cursor:
        cursor.execute("SELECT name FROM users WHERE id = %s", (1004,))
        same(cursor.fetchone(), ("committed",))
    same(one(conn, "SELECT name FROM countries WHERE code = %s", ("de",)), "Germany")
    ok("joins, CTEs, client-side binding, a reference table")


def many_connections():
    """More connections than the pool of a host, each with its own prepared statement of one name."""
    connections = [psycopg.connect(URL, autocommit=True) for _ in range(24)]
    for turn in range(3):
        for n, conn in enumerate(connections):
            user = 1020 + (n + turn) % 16
            if turn == 0 and n < 16:
                conn.execute("INSERT INTO users (id, name) VALUES (%s, %s)", (user, str(user)), prepare=True)
            elif turn > 0:
                column = "name" if n % 2 else "id"
                same(str(one(conn, f"SELECT {column} FROM users WHERE id = %s", (user,), prepare=True)), str(user))
    for conn in connections:
        conn.close()
    ok("many connections whose statements share names")


def main():
    with psycopg.connect(URL, autocommit=True) as conn:
        clean(conn)
        parameters(conn)
        ids(conn)
        prepared(conn)
        pipelines(conn)
        many(conn)
        transactions(conn)
        errors(conn)
        shapes(conn)
        many_connections()
        photos = sum(one(conn, "SELECT count(*) FROM photos WHERE user_id = %s", (user,)) for user in USERS)
        same(photos, 16 + 16 + 22 + 1)
        print(f"left users=32 photos={photos}")


main()
