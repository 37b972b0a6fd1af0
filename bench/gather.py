"""What a read over all shards costs: 1,024 shards on two hosts, through presplit against the best SQL written by hand
for each host (run on both at once), and the first row and the memory of a scan of ten million rows.

    target/drivers/venv/bin/python bench/gather.py --binary target/release/presplit [--rows 1000] [--scan 10000000]

Needs psycopg 3: tests/drivers/setup.sh installs it there."""

import argparse
import concurrent.futures
import os
import pathlib
import signal
import statistics
import subprocess
import tempfile
import time

import psycopg

import stage

SHARDS = 1024
ARMS = 16
SCHEMA = "g{:04}"

QUERIES = {
    # What is asked, each shard's arm by hand, and what each host makes of its arms.
    "count(*)": ("SELECT count(*) FROM users", "SELECT count(*) c FROM {}.users", "SELECT sum(c) FROM ({}) x"),
    "ORDER BY id DESC LIMIT 100": (
        "SELECT id, name FROM users ORDER BY id DESC LIMIT 100",
        "(SELECT id, name FROM {}.users ORDER BY id DESC LIMIT 100)",
        "SELECT * FROM ({}) x ORDER BY id DESC LIMIT 100",
    ),
    "GROUP BY country": (
        "SELECT country, count(*) FROM users GROUP BY country",
        "SELECT country, count(*) c FROM {}.users GROUP BY country",
        "SELECT country, sum(c) FROM ({}) x GROUP BY country",
    ),
}


def fill(cluster, shards, rows):
    with psycopg.connect(host="127.0.0.1", port=cluster.port, user="app", dbname="app", autocommit=True) as c:
        for shard in shards:
            s = SCHEMA.format(shard)
            c.execute(f"CREATE SCHEMA {s}; CREATE TABLE {s}.users (id bigint PRIMARY KEY, name text, country text)")
            c.execute(
                f"INSERT INTO {s}.users SELECT {shard} + {SHARDS} * g, 'name ' || g,"
                f" (array['de','fr','us','gb','jp','br'])[1 + g % 6] FROM generate_series(1, {rows}) g"
            )
        c.execute("ANALYZE")


def by_hand(connection, shards, arm, whole, arms):
    names = [SCHEMA.format(shard) for shard in shards]
    texts = [whole.format(" UNION ALL ".join(map(arm.format, names[i : i + arms]))) for i in range(0, len(names), arms)]
    with connection.pipeline() as pipeline:
        cursors = []
        for text in texts:
            cursor = connection.cursor()
            cursor.execute(text, prepare=False)
            cursors.append(cursor)
        pipeline.sync()
        return sum(len(cursor.fetchall()) for cursor in cursors)


def timed(what, times):
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        what()
        took.append((time.perf_counter() - begun) * 1000)
    return statistics.median(took[1:])


def memory(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def main():
    flags = argparse.ArgumentParser()
    flags.add_argument("--binary", type=pathlib.Path, required=True)
    flags.add_argument("--rows", type=int, default=1000, help="rows in each shard")
    flags.add_argument("--scan", type=int, default=10_000_000, help="rows of the scan, in all")
    flags.add_argument("--times", type=int, default=9)
    args = flags.parse_args()
    halves = [range(0, SHARDS // 2), range(SHARDS // 2, SHARDS)]
    with tempfile.TemporaryDirectory(prefix="presplit-gather-") as place:
        os.chmod(place, 0o755)
        run(args, halves, pathlib.Path(place))


class Server:
    """A process of ours that listens on a port."""

    def __init__(self, port, command, **more):
        self.port = port
        self.process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
        self.pid = self.process.pid

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()


def postgres(place, name, more=()):
    place, port, as_user = place / name, stage.free_port(), stage.unprivileged()
    place.mkdir()
    if as_user:
        os.chown(place, as_user["user"], as_user["group"])
    initdb = [stage.program("initdb"), "-D", place / "data", "-U", "app", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
    stage.run(initdb, cwd=place, **as_user)
    settings = {**stage.SETTINGS, "max_locks_per_transaction": "512", **dict(more)}
    options = [part for item in settings.items() for part in ("-c", "=".join(item))]
    server = Server(port, [stage.program("postgres"), "-D", place / "data", "-p", port, "-k", place, *options], cwd=place, **as_user)
    ready = [stage.program("pg_isready"), "-q", "-h", str(place), "-p", str(port), "-d", "postgres"]
    stage.wait_until(f"postgres {name} is up", lambda: subprocess.run(ready).returncode == 0, server.process)
    stage.psql(place, port, "CREATE DATABASE app", "postgres")
    return server


def presplit(binary, place, hosts):
    port, map_file = stage.free_port(), place / "shardmap.toml"
    verifier = stage.psql("127.0.0.1", hosts[0].port, "SET password_encryption = 'scram-sha-256'; CREATE ROLE client PASSWORD 'app';"
                          " SELECT rolpassword FROM pg_authid WHERE rolname = 'client'", "app")[0][0]
    half = SHARDS // 2
    map_file.write_text(
        f"""version = 1
[keyspace]
shards = {SHARDS}
key = "user_id"
function = "modulo"
schema = "{SCHEMA}"
[hosts.a]
url = "postgres://app@127.0.0.1:{hosts[0].port}/app"
[hosts.b]
url = "postgres://app@127.0.0.1:{hosts[1].port}/app"
[map]
"0-{half - 1}" = "a"
"{half}-{SHARDS - 1}" = "b"
[tables]
users = {{ key = "id" }}
[users.app]
password = "{verifier}"
[proxy]
listen = "127.0.0.1:{port}"
"""
    )
    server = Server(port, [binary, "serve", "--map", map_file])
    connection = dict(host="127.0.0.1", port=port, user="app", password="app", dbname="app", autocommit=True)

    def answers():
        try:
            with psycopg.connect(**connection) as c:
                return c.execute("SELECT count(*) FROM users WHERE id = 1").fetchone() is not None
        except psycopg.Error:
            return False

    stage.wait_until("presplit answers", answers, server.process)
    return server, psycopg.connect(**connection)


def run(args, halves, place):
    servers = []
    try:
        hosts = []
        for name, half in zip("ab", halves):
            hosts.append(postgres(place, name))
            servers.append(hosts[-1])
            fill(hosts[-1], half, args.rows)
        server, through = presplit(args.binary.resolve(), place, hosts)
        servers.append(server)
        direct = [psycopg.connect(host="127.0.0.1", port=h.port, user="app", dbname="app", autocommit=True) for h in hosts]
        compare(args, direct, through, halves)
        scan(args, direct, through, halves, server)
    finally:
        for server in reversed(servers):
            server.stop()


def compare(args, direct, through, halves):
    pool = concurrent.futures.ThreadPoolExecutor(2)
    for name, (asked, arm, whole) in QUERIES.items():
        hand = {}
        for arms in (1, ARMS, 64, SHARDS // 2):
            both = lambda: list(pool.map(lambda pair: by_hand(*pair, arm, whole, arms), zip(direct, halves)))
            hand[arms] = timed(both, args.times)
        best = min(hand.values())
        ours = timed(lambda: through.execute(asked).fetchall(), args.times)
        shown = ", ".join(f"{arms}: {ms:.0f}" for arms, ms in hand.items())
        print(f"{name}: presplit {ours:.0f} ms, by hand {best:.0f} ms ({shown} arms at a time): {ours / best:.2f}", flush=True)


def scan(args, direct, through, halves, presplit):
    rows = args.scan // SHARDS - args.rows
    for connection, half in zip(direct, halves):
        for shard in half:
            s = SCHEMA.format(shard)
            connection.execute(f"INSERT INTO {s}.users SELECT {shard} + {SHARDS} * g, 'name ' || g, 'de' FROM generate_series({args.rows + 1}, {args.rows + rows}) g")
        connection.execute("CREATE OR REPLACE VIEW all_users AS " + " UNION ALL ".join(f"SELECT * FROM {SCHEMA.format(s)}.users" for s in half[:ARMS]))
    before = memory(presplit.pid)
    first = {"one host": [], "presplit": []}
    most = before
    for _ in range(args.times):
        for name, connection, text in (("one host", direct[0], "SELECT id, name FROM all_users"), ("presplit", through, "SELECT id, name FROM users")):
            begun = time.perf_counter()
            seen = 0
            for _ in connection.cursor().stream(text):
                seen += 1
                if seen == 1:
                    first[name].append((time.perf_counter() - begun) * 1000)
                if seen % 100_000 == 0:
                    most = max(most, memory(presplit.pid))
    shown = {name: f"{statistics.median(took):.1f} ms, at best {min(took):.1f}" for name, took in first.items()}
    print(f"first row of a scan of {args.scan:,} rows: {shown}; memory of the proxy grew by {most - before:.1f} MiB at the most")


if __name__ == "__main__":
    main()
