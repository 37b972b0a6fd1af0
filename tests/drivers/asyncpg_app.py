"""asyncpg: see steps.txt. It prepares all statements under names, asks for types that it does not know (WITH RECURSIVE over
pg_type), sends and reads binary, and resets a connection that goes back to its pool."""

import asyncio
import io
import json as json_module

import asyncpg

from steps import AT, BIG, BYTES, DATA, DAY, FIRST, LOCAL, NUMBERS, PRICE, TEXT, URL, USERS, WORDS, Steps, Wrong, same


async def failing(sqlstate, awaited):
    try:
        await awaited
    except asyncpg.PostgresError as e:
        same(e.sqlstate, sqlstate)
        return e
    raise Wrong(f"no error, where {sqlstate} was expected")


async def connect(conn):
    print("version", asyncpg.__version__)
    same(conn.get_server_version().major >= 13, True)
    same(conn.get_settings().client_encoding, "UTF8")
    for user in USERS:
        for table, key in (("things", "user_id"), ("photos", "user_id"), ("users", "id")):
            await conn.execute(f"DELETE FROM {table} WHERE {key} = $1", user)


async def create(conn):
    for user in USERS:
        same(await conn.execute("INSERT INTO users (id, name) VALUES ($1, $2)", user, f"user {user}"), "INSERT 0 1")
        row = await conn.fetchrow("INSERT INTO photos (user_id, caption) VALUES ($1, $2) RETURNING id, caption", user, "first")
        same((type(row["id"]), row["caption"]), (int, "first"))


async def read(conn):
    for user in USERS:
        same(await conn.fetchval("SELECT name FROM users WHERE id = $1", user), f"user {user}")
        photo = await conn.fetchval("SELECT id FROM photos WHERE user_id = $1", user)
        same(await conn.fetchval("SELECT user_id FROM photos WHERE id = $1", photo), user)
    found = await conn.fetch("SELECT id FROM users WHERE id IN ($1, $2) ORDER BY id", USERS[0], USERS[5])
    same([row[0] for row in found], [USERS[0], USERS[5]])
    joined = "SELECT u.name, p.caption FROM users u JOIN photos p ON p.user_id = u.id WHERE u.id = $1"
    same(dict(await conn.fetchrow(joined, USERS[3])), {"name": f"user {USERS[3]}", "caption": "first"})
    same(await conn.fetchrow("SELECT name FROM users WHERE id = $1", FIRST + 999), None)


async def update(conn):
    for user in USERS:
        same(await conn.execute("UPDATE photos SET caption = $2 WHERE user_id = $1", user, "updated"), "UPDATE 1")
    same(await conn.execute("UPDATE photos SET caption = 'updated' WHERE user_id = ANY($1)", USERS[:4]), "UPDATE 4")


async def delete(conn):
    await conn.execute("INSERT INTO photos (user_id, caption) VALUES ($1, 'gone')", USERS[2])
    same(await conn.execute("DELETE FROM photos WHERE user_id = $1 AND caption = 'gone'", USERS[2]), "DELETE 1")
    same(await conn.execute("DELETE FROM photos WHERE user_id = $1 AND caption = 'gone'", USERS[2]), "DELETE 0")


async def scatter(conn):
    same(await conn.fetchval("SELECT count(*) FROM photos WHERE user_id BETWEEN $1 AND $2", USERS[0], USERS[-1]), 16)
    found = await conn.fetch("SELECT id FROM users WHERE id BETWEEN $1 AND $2 ORDER BY id DESC LIMIT 10", USERS[0], USERS[-1])
    same([row[0] for row in found], list(reversed(USERS[-10:])))


async def prepared(conn):
    by_user = await conn.prepare("SELECT name, (SELECT count(*) FROM photos WHERE user_id = $1) AS photos FROM users WHERE id = $1")
    rename = await conn.prepare("UPDATE users SET name = $2 WHERE id = $1 RETURNING name")
    same([a.name for a in by_user.get_attributes()], ["name", "photos"])
    same([p.name for p in rename.get_parameters()], ["int8", "text"])
    for _ in range(3):
        for user in USERS:
            same(tuple(await by_user.fetchrow(user)), (f"user {user}", 1))
            same(await rename.fetchval(user, f"user {user}"), f"user {user}")
    await rename.fetch(USERS[0], f"user {USERS[0]}")
    same(rename.get_statusmsg(), "UPDATE 1")


async def commit(conn):
    async with conn.transaction():
        for user in (USERS[0], USERS[4], USERS[1]):
            await conn.execute("UPDATE users SET name = 'committed' WHERE id = $1", user)
    same(await conn.fetchval("SELECT count(*) FROM users WHERE name = 'committed' AND id = ANY($1)", USERS), 3)
    async with conn.transaction(isolation="serializable", readonly=True, deferrable=True):
        same(await conn.fetchval("SELECT name FROM users WHERE id = $1", USERS[4]), "committed")


async def rollback(conn):
    transaction = conn.transaction()
    await transaction.start()
    for user in (USERS[0], USERS[4]):
        await conn.execute("UPDATE users SET name = 'never' WHERE id = $1", user)
    await transaction.rollback()
    same(await conn.fetchval("SELECT count(*) FROM users WHERE name = 'never' AND id = ANY($1)", USERS), 0)


async def savepoint(conn):
    async with conn.transaction():
        for user in USERS[4:6]:
            await conn.execute("INSERT INTO photos (user_id, caption) VALUES ($1, 'before')", user)
            try:
                async with conn.transaction():
                    await conn.execute("INSERT INTO photos (user_id, caption) VALUES ($1, 'undone')", user)
                    await conn.execute("INSERT INTO users (id, name) VALUES ($1, 'twice')", user)
            except asyncpg.UniqueViolationError:
                pass
            async with conn.transaction():
                await conn.execute("UPDATE photos SET caption = 'before' WHERE user_id = $1 AND caption = 'before'", user)
    found = await conn.fetch("SELECT caption FROM photos WHERE user_id = $1 ORDER BY id", USERS[4])
    same([row[0] for row in found], ["updated", "before"])


async def batch(conn):
    insert = "INSERT INTO photos (user_id, caption) VALUES ($1, $2)"
    await conn.executemany(insert, [(user, f"batch {n}") for n in range(3) for user in USERS])
    returned = await conn.fetchmany("UPDATE photos SET caption = $2 WHERE user_id = $1 AND caption = 'batch 2' RETURNING user_id", [(user, "many") for user in USERS])
    same([row[0] for row in returned], USERS)
    same(await conn.fetchval("SELECT count(*) FROM photos WHERE user_id BETWEEN $1 AND $2 AND caption = 'many'", USERS[0], USERS[-1]), 16)


async def batch_error(conn):
    insert = "INSERT INTO things (user_id, id) VALUES ($1, $2)"
    await failing("23505", conn.executemany(insert, [(USERS[0], 5), (USERS[4], 5), (USERS[0], 5)]))
    same(await conn.fetchval("SELECT count(*) FROM things WHERE id = 5 AND user_id = ANY($1)", USERS), 0)


async def copy_in(conn):
    records = [(user, "copied \t\\ ü🚀") for user in USERS]
    same(await conn.copy_records_to_table("photos", columns=["user_id", "caption"], records=records), "COPY 16")
    lines = io.BytesIO("".join(f"{user},30,\n" for user in USERS).encode())
    same(await conn.copy_to_table("things", source=lines, columns=["user_id", "id", "note"], format="csv"), "COPY 16")
    same(await conn.fetchval("SELECT caption FROM photos WHERE user_id = $1 AND caption LIKE 'copied%'", USERS[9]), "copied \t\\ ü🚀")
    same(await conn.fetchval("SELECT note FROM things WHERE user_id = $1 AND id = 30", USERS[9]), None)

    async def breaks():
        yield f"{USERS[0]}\tlost\n".encode()
        raise KeyError("the client breaks off")

    try:
        await conn.copy_to_table("photos", source=breaks(), columns=["user_id", "caption"])
        raise Wrong("a copy that breaks off went well")
    except KeyError:
        pass
    same(await conn.fetchval("SELECT count(*) FROM photos WHERE user_id = $1 AND caption = 'lost'", USERS[0]), 0)


async def copy_out(conn):
    out = io.BytesIO()
    await conn.copy_from_query("SELECT name, NULL FROM users WHERE id = $1", USERS[9], output=out)
    same(out.getvalue().decode(), f"user {USERS[9]}\t\\N\n")
    out = io.BytesIO()
    await conn.copy_from_query("SELECT id FROM users WHERE id BETWEEN $1 AND $2", USERS[0], USERS[-1], output=out)
    same(sorted(out.getvalue().decode().split()), [str(user) for user in USERS])


async def cursor(conn):
    async with conn.transaction():
        far = await conn.cursor("SELECT caption FROM photos WHERE user_id = $1 ORDER BY id", USERS[0])
        same([row[0] for row in await far.fetch(1)], ["updated"])
        same(await far.forward(1), 1)
        same(len(await far.fetch(2)), 2)
        same(len(await far.fetch(100)), 1)
        found = []
        async for row in conn.cursor("SELECT id FROM users WHERE id BETWEEN $1 AND $2 ORDER BY id", USERS[0], USERS[-1], prefetch=5):
            found.append(row[0])
        same(found, USERS)


async def unique_violation(conn):
    e = await failing("23505", conn.execute("INSERT INTO users (id, name) VALUES ($1, 'twice')", USERS[6]))
    same((type(e), e.table_name, e.constraint_name), (asyncpg.UniqueViolationError, "users", "users_pkey"))
    same(await conn.fetchval("SELECT name FROM users WHERE id = $1", USERS[6]), f"user {USERS[6]}")


async def syntax_error(conn):
    await failing("42601", conn.execute("SELEC 1"))
    await failing("42601", conn.fetch("SELECT name FRM users WHERE id = $1", USERS[0]))
    await failing("42703", conn.fetch("SELECT nothing FROM users WHERE id = $1", USERS[0]))
    same(await conn.fetchval("SELECT 1"), 1)


async def failed_transaction(conn):
    transaction = conn.transaction()
    await transaction.start()
    await conn.execute("INSERT INTO photos (user_id, caption) VALUES ($1, 'lost')", USERS[0])
    await failing("22012", conn.fetch("SELECT 1 / (id - id) FROM users WHERE id = $1", USERS[0]))
    await failing("25P02", conn.fetchval("SELECT 1"))
    await transaction.rollback()
    same(await conn.fetchval("SELECT count(*) FROM photos WHERE user_id = $1 AND caption = 'lost'", USERS[0]), 0)


async def cancel(conn):
    for sql, values in (("SELECT pg_sleep(60)", ()), ("SELECT pg_sleep(60) FROM users WHERE id = $1", (USERS[0],))):
        try:
            await conn.fetch(sql, *values, timeout=0.3)
            raise Wrong("it was not cancelled")
        except asyncio.TimeoutError:
            pass
        same(await conn.fetchval("SELECT 1"), 1)
    other = await asyncpg.connect(URL)
    try:
        task = asyncio.ensure_future(other.execute(f"SELECT pg_sleep(60) FROM users WHERE id = {USERS[1]}"))
        while not task.done():
            await asyncio.sleep(0.1)
            if not task.done():
                await other._cancel(asyncio.get_running_loop().create_future())
        await failing("57014", task)
    finally:
        await other.close()


async def put(conn, number, column, *values):
    for user in USERS[:8]:
        for n, value in enumerate(values):
            await conn.execute(f"INSERT INTO things (user_id, id, {column}) VALUES ($1, $2, $3)", user, number + n, value)


async def got(conn, user, number, columns):
    return await conn.fetchval(f"SELECT {columns} FROM things WHERE user_id = $1 AND id = $2", user, number)


async def arrays(conn):
    await put(conn, 100, "numbers", NUMBERS, [])
    await put(conn, 110, "words", WORDS, [])
    for user in USERS[:8]:
        same(await got(conn, user, 100, "numbers"), NUMBERS)
        same(await got(conn, user, 101, "numbers"), [])
        same(await got(conn, user, 110, "words"), WORDS)
    found = await conn.fetch("SELECT id FROM users WHERE id = ANY($1::bigint[]) ORDER BY id", USERS[3:9])
    same([row[0] for row in found], USERS[3:9])
    same(await conn.fetchval("SELECT id FROM things WHERE user_id = $1 AND $2 = ANY(words)", USERS[1], "b c"), 110)


async def json(conn):
    for name in ("json", "jsonb"):
        await conn.set_type_codec(name, encoder=json_module.dumps, decoder=json_module.loads, schema="pg_catalog")
    await put(conn, 200, "data", DATA)
    await put(conn, 201, "doc", DATA)
    for user in USERS[:8]:
        same(await got(conn, user, 200, "data"), DATA)
        same(await got(conn, user, 201, "doc"), DATA)
        same(await conn.fetchval("SELECT data -> 'b' FROM things WHERE user_id = $1 AND data ->> 'a' = $2", user, "1"), DATA["b"])
        same(await conn.fetchval("SELECT id FROM things WHERE user_id = $1 AND data ? 'a'", user), 200)


async def timestamps(conn):
    await put(conn, 300, "at", AT)
    await put(conn, 301, "local", LOCAL)
    await put(conn, 302, "day", DAY)
    await conn.execute("SET TIME ZONE 'Asia/Kathmandu'")
    for user in USERS[:8]:
        same(await got(conn, user, 300, "at"), AT)
        same(await got(conn, user, 300, "at::text"), "2024-02-29 18:19:56.789012+05:45")
        same(await got(conn, user, 301, "local"), LOCAL)
        same(await got(conn, user, 302, "day"), DAY)
    same(conn.get_settings().TimeZone, "Asia/Kathmandu")
    await conn.execute("RESET TIME ZONE")


async def numerics(conn):
    await put(conn, 400, "price", PRICE, -PRICE)
    await put(conn, 410, "big", BIG)
    await put(conn, 420, "ratio", float("inf"), float("nan"), 0.1)
    for user in USERS[:8]:
        same(await got(conn, user, 401, "price"), -PRICE)
        same(await got(conn, user, 410, "big"), BIG)
        same(await got(conn, user, 420, "ratio"), float("inf"))
        same(str(await got(conn, user, 421, "ratio")), "nan")
        same(await got(conn, user, 422, "ratio"), 0.1)
    total = await conn.fetchval("SELECT sum(price) FROM things WHERE user_id BETWEEN $1 AND $2 AND id = 400", USERS[0], USERS[-1])
    same(total, 8 * PRICE)


async def null(conn):
    columns = "numbers, words, data, doc, at, local, day, price, big, ratio, bytes, flag, note"
    places = ", ".join(f"${n}" for n in range(2, 15))
    for user in USERS[:8]:
        await conn.execute(f"INSERT INTO things (user_id, id, {columns}) VALUES ($1, 500, {places})", user, *[None] * 13)
        row = await conn.fetchrow(f"SELECT {columns} FROM things WHERE user_id = $1 AND id = 500", user)
        same(tuple(row), (None,) * 13)
    same(await conn.fetchval("SELECT id FROM things WHERE user_id = $1 AND id >= 500 AND note IS NULL", USERS[5]), 500)


async def bytea(conn):
    await put(conn, 600, "bytes", BYTES, b"", BYTES * 400)
    for user in USERS[:8]:
        for n, expected in enumerate((BYTES, b"", BYTES * 400)):
            same(await got(conn, user, 600 + n, "bytes"), expected)


async def unicode(conn):
    await put(conn, 700, "note", TEXT)
    for user in USERS[:8]:
        same(await got(conn, user, 700, "note"), TEXT)
        same(await got(conn, user, 700, "length(note)"), len(TEXT))
        same(await conn.fetchval("SELECT id FROM things WHERE user_id = $1 AND note = $2", user, TEXT), 700)
    same(await conn.fetchval(f"SELECT '東🚀''' FROM things WHERE user_id = {USERS[0]} AND note LIKE '%🚀%'"), "東🚀'")


async def pool(conn):
    async with asyncpg.create_pool(URL, min_size=16, max_size=16) as connections:

        async def work(n):
            for turn in range(10):
                async with connections.acquire() as mine:
                    user = USERS[(n + turn) % 16]
                    same(await mine.fetchval("SELECT id FROM users WHERE id = $1", user), user)
                    # What it left must be gone when the pool hands the connection on.
                    same(await mine.fetchval("SHOW application_name"), "")
                    await mine.execute(f"SET application_name = 'work {n}'")
                    same(await mine.fetchval("SHOW application_name"), f"work {n}")
                    if turn == 5:
                        await mine.execute(f"BEGIN; UPDATE users SET name = 'never' WHERE id = {user}")

        await asyncio.gather(*(work(n) for n in range(48)))
    same(await conn.fetchval("SELECT count(*) FROM users WHERE id = ANY($1) AND name = 'never'", USERS), 0)


async def also_reset(conn):
    await conn.execute("SET statement_timeout = '7s'")
    await conn.reset()
    same(await conn.fetchval("SHOW statement_timeout"), "0")
    await conn.reload_schema_state()


async def also_types(conn):
    """Types of the catalog that it must look up: arrays of records, ranges, a composite of a table."""
    same(await conn.fetchval("SELECT int8range(1, 5)"), asyncpg.Range(1, 5))
    same(await conn.fetchval("SELECT ARRAY[int4range(1, 5)]"), [asyncpg.Range(1, 5)])
    same(tuple(await conn.fetchval("SELECT ROW(1, 'a'::text)")), (1, "a"))
    row = await conn.fetchval("SELECT u FROM users u WHERE id = $1", USERS[2])
    same((row["id"], row["name"]), (USERS[2], f"user {USERS[2]}"))
    for user in USERS:
        same((await conn.fetchval("SELECT u FROM users u WHERE id = $1", user))["id"], user)


async def also_notifications(conn):
    """Those of two channels, while it is idle and in a transaction of its own; the pool's reset ends them."""
    heard = asyncio.Queue()
    channel = f"of asyncpg {FIRST}"
    await conn.add_listener(channel, lambda _, pid, channel, payload: heard.put_nowait(payload))
    other = await asyncpg.connect(URL)
    try:
        for n in range(3):
            await other.execute("SELECT pg_notify($1, $2)", channel, f"é{n}")
            same(await asyncio.wait_for(heard.get(), 20), f"é{n}")
            same(await conn.fetchval("SELECT id FROM users WHERE id = $1", USERS[n]), USERS[n])
        async with other.transaction():
            await other.execute(f'NOTIFY "{channel}", \'inside\'')
            await other.execute("UPDATE users SET name = 'notifies' WHERE id = $1", USERS[7])
        same(await asyncio.wait_for(heard.get(), 20), "inside")
    finally:
        await other.close()
    await conn.reset()


STEPS = [
    connect, create, read, update, delete, scatter, prepared, commit, rollback, savepoint, batch, batch_error, copy_in, copy_out,
    cursor, unique_violation, syntax_error, failed_transaction, cancel, arrays, json, timestamps, numerics, null, bytea, unicode, pool,
    also_reset, also_types, also_notifications,
]  # fmt: skip


def main():
    steps, loop, conn = Steps(), asyncio.new_event_loop(), None
    for step in STEPS:
        if conn is None:
            conn = loop.run_until_complete(asyncpg.connect(URL))
        if not steps.run(step.__name__.replace("_", " ", step.__name__.startswith("also")), lambda: loop.run_until_complete(step(conn))):
            conn.terminate()
            conn = None
    steps.end()


main()
