"""Rows and COPY data of one client, in MB/s and in the proxy's CPU: direct Postgres, PgBouncer and presplit in the same run, each
proxy pinned to one core.

    python3 bench/stream.py --binary target/release/presplit [--rounds 5] [--mb 200] [--only copy-in] [--against OTHER]

Speaks the protocol itself, with a buffer of 1 MB and without looking at what comes, so that the client costs as little as it can."""

import argparse
import os
import pathlib
import signal
import socket
import statistics
import struct
import sys
import time

import stage as stage_module
from stage import SHARDS, Fault, PgBouncer, Presplit, Stage, Target

CORE = 0
NARROW, WIDE, HUGE = 100, 8192, 150_000_000
READY = b"Z\0\0\0\x05I"


class Client:
    """One connection."""

    def __init__(self, target):
        self.socket = socket.create_connection(("127.0.0.1", target.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        said = f"user\0app\0database\0{target.database}\0\0".encode()
        self.socket.sendall(struct.pack("!II", len(said) + 8, 196608) + said)
        self.buffer = bytearray(1 << 20)
        self.read_until_ready()

    def read_until_ready(self):
        """Bytes that came; those of what is read are never such that a row could be taken for ReadyForQuery."""
        count, tail = 0, b""
        while True:
            n = self.socket.recv_into(self.buffer)
            if n == 0:
                raise Fault(f"the connection ended behind {bytes(tail)!r}")
            if count == 0 and self.buffer[:1] == b"E":
                raise Fault(bytes(self.buffer[:n]).decode(errors="replace"))
            count += n
            tail = (tail + self.buffer[max(0, n - 64) : n])[-64:]
            if tail.endswith(READY):
                self.last = tail
                return count

    def ask(self, sql):
        body = sql.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!I", len(body) + 4) + body)

    def query(self, sql, rows):
        """Runs a statement and reads it all; its bytes."""
        self.ask(sql)
        count = self.read_until_ready()
        self.check(rows)
        return count

    def check(self, rows):
        if rows is not None and f" {rows}\0".encode() not in self.last:
            raise Fault(f"{rows} rows were expected: {bytes(self.last)!r}")

    def copy_in(self, sql, messages, times, rows):
        """Sends the messages so many times; their bytes."""
        self.ask(sql)
        n = self.socket.recv_into(self.buffer)
        if self.buffer[:1] != b"G":
            raise Fault(bytes(self.buffer[:n]).decode(errors="replace"))
        for _ in range(times):
            self.socket.sendall(messages)
        self.socket.sendall(b"c\0\0\0\x04")
        self.read_until_ready()
        self.check(rows * times)
        return len(messages) * times


def data(ids, width, message):
    """COPY data of rows of these keys, in messages of about so many bytes (0: one a row)."""
    out, piece = bytearray(), bytearray()

    def put():
        out.extend(b"d" + struct.pack("!I", len(piece) + 4) + piece)
        piece.clear()

    for n in ids:
        piece += f"{n}\t".encode().ljust(width - 1, b"x") + b"\n"
        if len(piece) >= message:
            put()
    if piece:
        put()
    return bytes(out)


class Copy:
    """COPY FROM STDIN of some 2 MB of rows, sent until it is enough. `kept`: the rows stay; else the server only reads them."""

    def __init__(self, name, ids, width, message=8192, kept=False):
        self.name, self.kept = name, kept
        count = 2_000_000 // width
        self.rows = count if kept else 0
        self.messages = data((ids(n) for n in range(count)), width, message)

    def run(self, client, mb):
        times = max(1, mb * 1_000_000 // len(self.messages))
        return client.copy_in("COPY items (user_id, body) FROM STDIN" + ("" if self.kept else " WHERE false"), self.messages, times, self.rows)


class Query:
    """A statement that gives `rows` rows of `width` bytes for so many MB."""

    def __init__(self, name, sql, width, rows=None):
        self.name, self.sql, self.width, self.rows, self.kept = name, sql, width, rows, False

    def run(self, client, mb):
        rows = self.rows or max(1, mb * 1_000_000 // self.width)
        return client.query(self.sql.format(rows=rows), rows if self.rows is None else None)


def cases(stored):
    """`stored`: what lies in the table of items, in rows."""
    series = "SELECT repeat('x', {}) FROM generate_series(1, {{rows}})"
    one_shard = lambda n: (n % 1000) * SHARDS + 5
    one_host = lambda n: n // (SHARDS // 2) % 1000 * SHARDS + n % (SHARDS // 2)
    everywhere = lambda n: n % 100_000
    return [
        Query("select narrow", series.format(NARROW - 11), NARROW),
        Query("select wide", series.format(WIDE - 11), WIDE),
        Query("select huge", f"SELECT repeat('x', {HUGE})", HUGE, 1),
        Query("select all shards", "SELECT * FROM items", NARROW, stored),
        Query("copy-out narrow", f"COPY ({series.format(NARROW - 6)}) TO STDOUT", NARROW),
        Query("copy-out all shards", "COPY items TO STDOUT", NARROW, stored),
        Copy("copy-in one shard", one_shard, NARROW),
        Copy("copy-in one shard wide", one_shard, WIDE),
        Copy("copy-in one shard, a message a row", one_shard, NARROW, message=0),
        Copy("copy-in one host", one_host, NARROW),
        Copy("copy-in two hosts", everywhere, NARROW),
        Copy("copy-in two hosts wide", everywhere, WIDE),
        Copy("copy-in kept, one shard", one_shard, NARROW, kept=True),
        Copy("copy-in kept, one host", one_host, NARROW, kept=True),
    ]  # fmt: skip


def tasks(pid):
    return [int(entry.name) for entry in pathlib.Path(f"/proc/{pid}/task").iterdir()]


def cpu_of(target):
    """Seconds of all threads of the proxy, finer than the clock's ticks."""
    if not target.process:
        return 0.0
    pid = target.process.pid
    return sum(int(pathlib.Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0]) for task in tasks(pid)) / 1e9


def memory_of(target, field):
    status = pathlib.Path(f"/proc/{target.process.pid}/status").read_text()
    return int(status.split(field + ":")[1].split()[0]) / 1024


def measured(stage, case, target, mb):
    client = Client(target)
    before = cpu_of(target)
    resident = None
    if target.process:
        resident = memory_of(target, "VmRSS")
        pathlib.Path(f"/proc/{target.process.pid}/clear_refs").write_text("5")
    begun = time.perf_counter()
    count = case.run(client, mb)
    took = time.perf_counter() - begun
    cpu = cpu_of(target) - before
    client.socket.close()
    row = {"mb_s": count / took / 1e6}
    if target.process:
        row |= {"cpu_ms": 1e3 * cpu / (count / 1e6), "grew": memory_of(target, "VmHWM") - resident, "peak": memory_of(target, "VmHWM")}
    if case.kept:
        for cluster, database, schemas in ((stage.a, "app", range(SHARDS // 2)), (stage.b, "app", range(SHARDS // 2, SHARDS))):
            cluster.psql("TRUNCATE " + ", ".join(f"shard_{n:04}.items" for n in schemas), database)
        stage.a.psql("TRUNCATE items", "plain")
        fill(stage)
    return row


STORED = 400_000


def fill(stage):
    rows = f"SELECT g, repeat('x', {NARROW - 30}) FROM generate_series({{}}, {STORED}, {{}}) g"
    for first, cluster in ((0, stage.a), (SHARDS // 2, stage.b)):
        cluster.psql("\n".join(f"INSERT INTO shard_{n:04}.items {rows.format(n or SHARDS, SHARDS)};" for n in range(first, first + SHARDS // 2)))
    stage.a.psql(f"INSERT INTO items {rows.format(1, 1)};", "plain")


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--binary", type=pathlib.Path, required=True)
    flags.add_argument("--against", type=pathlib.Path, help="another presplit, measured beside it")
    flags.add_argument("--rounds", type=int, default=5)
    flags.add_argument("--mb", type=int, default=200, help="of each slice")
    flags.add_argument("--only", default="", help="only cases whose name holds this")
    flags.add_argument("--targets", default="", help="only these, comma-separated")
    args = flags.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda n, _: sys.exit(128 + n))
    stage_module.SETTINGS["max_prepared_transactions"] = "20"
    stage = Stage(1000)
    try:
        stage.load(str(args.binary.resolve()))
        fill(stage)
        targets = [Target("direct", stage.a.port, "plain"), PgBouncer(stage), Presplit(stage, "presplit", args.binary.resolve(), 1)]
        if args.against:
            targets.append(Presplit(stage, "presplit-other", args.against.resolve(), 1))
        targets = [t for t in targets if not args.targets or t.name in args.targets.split(",")]
        for target in targets:
            for task in tasks(target.process.pid) if target.process else ():
                os.sched_setaffinity(task, {CORE})
        print("| what | target | MB/s | proxy CPU ms/MB | MB/s of a core | memory grew by MiB | peak MiB |\n|---|---|--:|--:|--:|--:|--:|")
        for case in cases(STORED):
            if args.only in case.name:
                compare(stage, case, targets, args)
    except Fault as fault:
        for target in targets if "targets" in locals() else ():
            if target.presplit:
                print(stage.log(target.name).read_text(errors="replace")[-2000:], file=sys.stderr)
        sys.exit(f"bench: {fault}")
    finally:
        stage.stop()


def compare(stage, case, targets, args):
    slices = {target.name: [] for target in targets}
    for target in targets:
        measured(stage, case, target, min(20, args.mb))
    for n in range(args.rounds):
        k = n % len(targets)
        for target in targets[k:] + targets[:k]:
            slices[target.name].append(measured(stage, case, target, args.mb))
    for name, rows in slices.items():
        median = lambda field: statistics.median(row[field] for row in rows)
        proxy = "- | - | - | -"
        if "cpu_ms" in rows[0]:
            proxy = f"{median('cpu_ms'):.2f} | {1000 / median('cpu_ms'):.0f} | {max(r['grew'] for r in rows):.1f} | {max(r['peak'] for r in rows):.1f}"
        print(f"| {case.name} | {name} | {median('mb_s'):.0f} | {proxy} |", flush=True)


if __name__ == "__main__":
    main()
