"""What a benchmark runs on: private Postgres clusters, PgBouncer, presplit. All on 127.0.0.1, all stopped by PID."""

import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
SHARDS = 64
POOL = 40  # server connections per host, for PgBouncer and presplit alike; above 32, so that session pooling has no queue
TICK = os.sysconf("SC_CLK_TCK")

# The disk is not what is measured: nothing waits for it, nothing runs beside the load.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "max_wal_size": "8GB",
    "shared_buffers": "256MB",
    "max_connections": "300",
    "listen_addresses": "127.0.0.1",
    "log_min_messages": "fatal",
}


class Fault(Exception):
    """The benchmark can't go on, or what it saw is wrong."""


def program(name):
    """A program's path: Postgres' own directories, PATH, and where daemons are."""
    places = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: -int(p.parent.name))
    path = os.pathsep.join([*map(str, places), os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(name, path=path)
    if not found:
        raise Fault(f"{name} is not installed (Debian: postgresql, postgresql-contrib, pgbouncer, strace)")
    return found


def unprivileged():
    """Postgres and PgBouncer refuse to run as root: Popen's arguments that make them run as somebody else."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise Fault("root needs a user `postgres` or `nobody` to run Postgres as")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run(command, **more):
    """Runs to the end and returns its standard output."""
    done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise Fault(f"{command[0]} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def wait_until(what, holds, process=None, log=None, seconds=30):
    end = time.monotonic() + seconds
    while True:
        value = holds()
        ended = process and process.poll() is not None
        if value and not ended:
            return value
        if ended or time.monotonic() > end:
            said = log.read_text(errors="replace") if log and log.exists() else ""
            raise Fault(f"waited until {what}; it said:\n{said}")
        time.sleep(0.05)


def cpu_of(pid, reaped=False):
    """User and system seconds of a process, all its threads; with those of its dead children if `reaped`."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    fields = stat.rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15] if reaped else fields[11:13])) / TICK


def children_of(parent):
    """The processes whose parent it is. (`/proc/PID/task/TID/children` is missing from some kernels.)"""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(stat.rsplit(")", 1)[1].split()[1]) == parent:
                found.append(int(entry.name))
    return found


class Cluster:
    """A private Postgres with superuser `app`, trust, and database `app`."""

    def __init__(self, stage, name):
        self.dir = stage.dir / f"pg-{name}"
        self.port = free_port()
        as_user = unprivileged()
        run([program("initdb"), "-D", self.dir, "-U", "app", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"], cwd=stage.dir, **as_user)
        settings = [part for item in SETTINGS.items() for part in ("-c", "=".join(item))]
        self.process = stage.start(
            f"postgres {name}",
            [program("postgres"), "-D", self.dir, "-p", self.port, "-k", self.dir, *settings],
            signal.SIGINT,
            cwd=stage.dir,
            **as_user,
        )
        # By the socket in its own directory: what answers on the TCP port could be somebody else's server.
        ready = [program("pg_isready"), "-q", "-h", str(self.dir), "-p", str(self.port), "-d", "postgres"]
        wait_until(f"postgres {name} is up", lambda: subprocess.run(ready).returncode == 0, self.process, stage.log(f"postgres {name}"))
        self.psql("CREATE DATABASE app", "postgres")

    def psql(self, sql, database="app"):
        """Runs SQL, one statement or many in one transaction each; returns unaligned rows."""
        return psql(self.dir, self.port, sql, database)

    def cpu(self):
        """Seconds of the whole cluster: the living, and what the postmaster has of the dead. Taken again if a backend
        ended in between, which would count it twice or not at all."""
        postmaster = self.process.pid
        while True:
            backends = children_of(postmaster)
            seconds = sum(cpu_of(pid, reaped=True) for pid in [postmaster, *backends])
            if children_of(postmaster) == backends:
                return seconds


def psql(host, port, sql, database):
    command = [program("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", str(host), "-p", str(port), "-U", "app", "-d", database]
    done = subprocess.run(command, input=sql, capture_output=True, text=True)
    if done.returncode != 0:
        raise Fault(f"psql on port {port}: {done.stderr}")
    return [line.split("|") for line in done.stdout.splitlines()]


class Stage:
    """Starts everything, and stops what it started, in reverse order."""

    def __init__(self, rows):
        self.rows = rows
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="presplit-bench-"))
        self.started = []
        as_user = unprivileged()
        if as_user:
            os.chown(self.dir, as_user["user"], as_user["group"])

    def log(self, name):
        return self.dir / (re.sub(r"\W+", "-", name) + ".log")

    def start(self, name, command, end, **more):
        """A child with standard output and error in a log of its own, to be stopped by the signal `end`."""
        with open(self.log(name), "wb") as log:
            process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **more
            )
        self.started.append((process, end))
        return process

    def stop(self):
        for process, end in reversed(self.started):
            if process.poll() is None:
                process.send_signal(end)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self.started.clear()
        shutil.rmtree(self.dir, ignore_errors=True)

    def load(self, presplit):
        """Two hosts with 64 provisioned shards, each row in its shard; beside them the same rows in plain tables."""
        self.a, self.b = Cluster(self, "a"), Cluster(self, "b")
        self.clusters = [self.a, self.b]
        map_file = self.write_map(1)
        run([presplit, "provision", "--map", map_file, "--schema", HERE / "schema.sql"])
        for first, cluster in ((0, self.a), (SHARDS // 2, self.b)):
            shards = range(first, first + SHARDS // 2)
            sql = [
                f"INSERT INTO shard_{n:04}.accounts (user_id) SELECT generate_series({n or SHARDS}, {self.rows}, {SHARDS});"
                for n in shards
            ]
            cluster.psql("\n".join([*sql, "VACUUM ANALYZE;", "CHECKPOINT;"]))
        self.a.psql("CREATE DATABASE plain")
        self.a.psql((HERE / "schema.sql").read_text(), "plain")
        self.a.psql(
            f"INSERT INTO accounts (user_id) SELECT generate_series(1, {self.rows}); VACUUM ANALYZE; CHECKPOINT;".replace("; ", ";\n"),
            "plain",
        )

    def write_map(self, workers, shared=0):
        # In a directory of its own: presplit watches it, and is not to wake up for other files.
        path = self.dir / f"map-{workers}-{shared}" / "shardmap.toml"
        path.parent.mkdir(exist_ok=True)
        half = SHARDS // 2
        path.write_text(
            f"""version = 1
[keyspace]
shards = {SHARDS}
key = "user_id"
function = "modulo"
schema = "shard_{{:04}}"
[hosts.a]
url = "postgres://app@127.0.0.1:{self.a.port}/app"
pool = {POOL}
[hosts.b]
url = "postgres://app@127.0.0.1:{self.b.port}/app"
pool = {POOL}
[map]
"0-{half - 1}" = "a"
"{half}-{SHARDS - 1}" = "b"
[users.app]
[proxy]
listen = "127.0.0.1:0"
workers = {workers}
shared_connections = {shared}
"""
        )
        return path

    def misplaced(self):
        """Looks on the hosts, past any proxy. Returns (rows of accounts, rows of history), or raises with what is wrong:
        a row in a shard that isn't its own, a shard on two hosts, a balance that is not the sum of its history."""
        accounts = history = 0
        for first, cluster in ((0, self.a), (SHARDS // 2, self.b)):
            shards = range(first, first + SHARDS // 2)
            there = cluster.psql("SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relname IN ('accounts', 'history') ORDER BY 1")
            expected = sorted(f"shard_{n:04}" for n in shards for _ in range(2))
            if [row[0] for row in there] != expected:
                raise Fault(f"host on port {cluster.port} has tables in {sorted({row[0] for row in there})}")
            sql = " UNION ALL ".join(
                f"""SELECT {n},
                    (SELECT count(*) FROM shard_{n:04}.accounts), (SELECT count(*) FROM shard_{n:04}.history),
                    (SELECT count(*) FROM shard_{n:04}.accounts WHERE user_id % {SHARDS} <> {n})
                    + (SELECT count(*) FROM shard_{n:04}.history WHERE user_id % {SHARDS} <> {n}),
                    (SELECT count(*) FROM shard_{n:04}.accounts a FULL JOIN
                        (SELECT user_id, sum(delta) AS s FROM shard_{n:04}.history GROUP BY 1) h USING (user_id)
                        WHERE balance IS NULL OR balance <> coalesce(s, 0))"""
                for n in shards
            )
            for shard, rows, entries, foreign, unequal in (map(int, row) for row in cluster.psql(sql)):
                if foreign or unequal:
                    raise Fault(f"shard {shard}: {foreign} rows of other shards, {unequal} balances that are not the sum of their history")
                accounts, history = accounts + rows, history + entries
        if accounts != self.rows:
            raise Fault(f"{accounts} accounts in the shards, {self.rows} were loaded")
        return accounts, history


class Target:
    """Where pgbench connects: a port, a database, and the proxy process in between, if there is one."""

    def __init__(self, name, port, database, process=None, note=""):
        self.name, self.port, self.database, self.process, self.note = name, port, database, process, note
        self.presplit = False

    def database_for(self, mode):
        return self.database

    def cpu(self):
        return cpu_of(self.process.pid) if self.process else 0.0


class PgBouncer(Target):
    """Transaction pooling. Before 1.21 it doesn't know prepared statements there, so that `prepared` gets session pooling."""

    def __init__(self, stage):
        said = run([program("pgbouncer"), "--version"])
        self.version = re.search(r"(\d+)\.(\d+)(\.\d+)?", said)
        knows_prepared = (int(self.version[1]), int(self.version[2])) >= (1, 21)
        self.prepared_database = "plain" if knows_prepared else "plain_session"
        port = free_port()
        backend = f"host=127.0.0.1 port={stage.a.port} dbname=plain user=app pool_size={POOL}"
        config = stage.dir / "pgbouncer.ini"
        config.write_text(
            f"""[databases]
plain = {backend} pool_mode=transaction
plain_session = {backend} pool_mode=session
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir = {stage.dir}
auth_type = any
pool_mode = transaction
max_client_conn = 500
log_connections = 0
log_disconnections = 0
{"max_prepared_statements = 200" if knows_prepared else ""}
"""
        )
        process = stage.start("pgbouncer", [program("pgbouncer"), "-q", config], signal.SIGINT, cwd=stage.dir, **unprivileged())
        note = f"PgBouncer {self.version[0]}, transaction pooling, pool_size {POOL}"
        if not knows_prepared:
            note += "; this version does not know prepared statements in transaction pooling: `prepared` runs with session pooling"
        super().__init__("pgbouncer", port, "plain", process, note)
        answers = [program("pg_isready"), "-q", "-h", str(stage.dir), "-p", str(port), "-d", "plain", "-U", "app"]
        wait_until("pgbouncer answers", lambda: subprocess.run(answers).returncode == 0, process, stage.log("pgbouncer"))

    def database_for(self, mode):
        return self.prepared_database if mode == "prepared" else self.database


class Presplit(Target):
    def __init__(self, stage, name, binary, workers, shared=0):
        process = stage.start(name, [binary, "serve", "--map", stage.write_map(workers, shared)], signal.SIGTERM)
        log = stage.log(name)
        heard = wait_until(f"{name} listens", lambda: re.search(r"listening on \S+:(\d+)", log.read_text()), process, log)
        note = f"{run([binary, '--version']).strip()}, workers {workers}, pool {POOL} per host"
        if shared:
            note += f", {shared} of them shared by short reads"
        super().__init__(name, int(heard[1]), "app", process, note)
        self.presplit = True
