"""What a transaction over two hosts costs: through presplit, and by hand over a connection to each host with PREPARE
TRANSACTION and COMMIT PREPARED on both at once. And that one host pays nothing: the packets on the way to it.

    target/drivers/venv/bin/python bench/twophase.py --binary target/perf/presplit [--against OTHER] [--times 500] [--place DIR]

Postgres waits for the disk here (fsync and all), so DIR should be on the disk that is meant (default: the temporary directory).
Needs psycopg 3: tests/drivers/setup.sh installs it there."""

import argparse
import multiprocessing
import os
import pathlib
import re
import selectors
import signal
import socket
import statistics
import subprocess
import tempfile
import time

from psycopg import pq

import gather
import stage

SHARDS = 8
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "max_prepared_transactions": "50"}
# Users 1 and 2 are on host a, user 5 is on host b.
UPDATE = "UPDATE {}accounts SET balance = balance + 1 WHERE user_id = {}"


class Counter(multiprocessing.Process):
    """A relay that counts what arrives in one piece from either end: of small messages as many as there are packets."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.target = port
        # Up and down; written by the relay alone.
        self.counts = multiprocessing.Array("q", 2, lock=False)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        pairs, ready = {}, selectors.DefaultSelector()
        ready.register(self.listener, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is self.listener:
                    near = self.listener.accept()[0]
                    far = socket.create_connection(("127.0.0.1", self.target))
                    for end, other, is_up in ((near, far, True), (far, near, False)):
                        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        ready.register(end, selectors.EVENT_READ)
                        pairs[end] = (other, is_up)
                    continue
                other, is_up = pairs[key.fileobj]
                data = key.fileobj.recv(65536)
                if data:
                    other.sendall(data)
                    self.counts[0 if is_up else 1] += 1
                    continue
                for end in (key.fileobj, other):
                    ready.unregister(end)
                    del pairs[end]
                    end.close()


class Presplit:
    def __init__(self, place, binary, ports):
        place.mkdir()
        hosts = "".join(f'[hosts.{name}]\nurl = "postgres://app@127.0.0.1:{port}/app"\n' for name, port in zip("ab", ports))
        self.map_file = place / "shardmap.toml"
        self.map_file.write_text(
            f"""version = 1
[keyspace]
shards = {SHARDS}
key = "user_id"
function = "modulo"
schema = "shard_{{:04}}"
{hosts}[map]
"0-{SHARDS // 2 - 1}" = "a"
"{SHARDS // 2}-{SHARDS - 1}" = "b"
[tables]
[users.app]
[proxy]
listen = "127.0.0.1:0"
database = "app"
"""
        )
        self.binary, self.log = binary, place / "log"

    def provision(self):
        schema = self.map_file.with_name("schema.sql")
        schema.write_text("CREATE TABLE accounts (user_id bigint PRIMARY KEY, balance bigint NOT NULL);")
        stage.run([self.binary, "provision", "--map", self.map_file, "--schema", schema])

    def start(self):
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([self.binary, "serve", "--map", self.map_file], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        heard = stage.wait_until("presplit listens", lambda: re.search(r"listening on \S+:(\d+)", self.log.read_text()), self.process, self.log)
        self.port = int(heard[1])
        return self

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def connect(port):
    connection = pq.PGconn.connect(f"host=127.0.0.1 port={port} user=app dbname=app".encode())
    if connection.status != pq.ConnStatus.OK:
        raise stage.Fault(connection.error_message.decode())
    return connection


def ask(*asked):
    """Sends each statement over its connection, then waits for all answers."""
    for connection, sql in asked:
        connection.send_query(sql.encode())
    for connection, sql in asked:
        while result := connection.get_result():
            if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
                raise stage.Fault(f"{sql}: {result.error_message.decode()}")


def in_turn(connection, *statements):
    for sql in statements:
        ask((connection, sql))


def one_host(connection, schema=True):
    names = ("shard_0001.", "shard_0002.") if schema else ("", "")
    in_turn(connection, "BEGIN", UPDATE.format(names[0], 1), UPDATE.format(names[1], 2), "COMMIT")


def two_hosts(connection):
    in_turn(connection, "BEGIN", UPDATE.format("", 1), UPDATE.format("", 5))
    begun = time.perf_counter()
    in_turn(connection, "COMMIT")
    return time.perf_counter() - begun


def by_hand(a, b, gid):
    in_turn(a, "BEGIN", UPDATE.format("shard_0001.", 1))
    in_turn(b, "BEGIN", UPDATE.format("shard_0005.", 5))
    begun = time.perf_counter()
    ask((a, f"PREPARE TRANSACTION '{gid}'"), (b, f"PREPARE TRANSACTION '{gid}'"))
    ask((a, f"COMMIT PREPARED '{gid}'"), (b, f"COMMIT PREPARED '{gid}'"))
    return time.perf_counter() - begun


def packets(counters, what, times):
    """What arrives in one piece for each transaction, to and from all hosts together."""
    for _ in range(20):
        what()
    before = [sum(c.counts[way] for c in counters) for way in (0, 1)]
    for _ in range(times):
        what()
    # What is tidied up beside them is counted too.
    return [round((sum(c.counts[way] for c in counters) - before[way]) / times, 2) for way in (0, 1)]


def latencies(cases, times):
    """Whole and COMMIT, ms: medians, in turns, so that all have the same disk."""
    took = {name: [] for name in cases}
    for n in range(times + 20):
        for name, what in cases.items():
            begun = time.perf_counter()
            commit = what(n) or 0.0
            took[name].append((1000 * (time.perf_counter() - begun), 1000 * commit))
    return {name: tuple(statistics.median(part) for part in zip(*rows[20:])) for name, rows in took.items()}


def main():
    flags = argparse.ArgumentParser()
    flags.add_argument("--binary", type=pathlib.Path, required=True)
    flags.add_argument("--against", type=pathlib.Path, help="another presplit, whose packets for one host are counted beside it")
    flags.add_argument("--times", type=int, default=500)
    flags.add_argument("--place", help="where the clusters are made")
    args = flags.parse_args()
    with tempfile.TemporaryDirectory(prefix="presplit-twophase-", dir=args.place) as place:
        os.chmod(place, 0o755)
        run(args, pathlib.Path(place))


def run(args, place):
    started = []
    try:
        for name in "ab":
            started.append(gather.postgres(place, f"pg-{name}", DURABLE))
        ports = [server.port for server in started]
        first = Presplit(place / "first", args.binary, ports)
        first.provision()
        for port, user in zip((*ports, ports[0]), (1, 5, 2)):
            ask((connect(port), f"INSERT INTO shard_{user:04}.accounts VALUES ({user}, 0)"))
        started.append(first.start())
        measure(args, place, ports, first, started)
    finally:
        for server in reversed(started):
            server.stop()


def measure(args, place, ports, proxy, started):
    counters = [Counter(port) for port in ports]
    relayed = [counter.port for counter in counters]
    print("packets for each transaction, to the hosts and from them\n")
    print("| transaction | way | to | from |\n|---|---|--:|--:|")

    def row(what, way, counted):
        print(f"| {what} | {way} | {counted[0]:g} | {counted[1]:g} |")

    statements = "BEGIN, 2 UPDATEs, COMMIT"
    direct = connect(relayed[0])
    row(f"one host: {statements}", "direct", packets(counters, lambda: one_host(direct), args.times))
    binaries = {"presplit": args.binary, **({"presplit, the other": args.against} if args.against else {})}
    for n, (way, binary) in enumerate(binaries.items()):
        counted = Presplit(place / f"counted-{n}", binary, relayed).start()
        started.append(counted)
        through = connect(counted.port)
        row(f"one host: {statements}", way, packets(counters, lambda: one_host(through, False), args.times))
        if n == 0:
            row(f"two hosts: {statements}", way, packets(counters, lambda: two_hosts(through), args.times))
        started.remove(counted)
        counted.stop()
    a, b = (connect(port) for port in relayed)
    numbers = iter(range(10**9))
    row("two hosts: + BEGIN, 2 PREPAREs, 2 COMMIT PREPAREDs for COMMIT", "by hand", packets(counters, lambda: by_hand(a, b, f"c{next(numbers)}"), args.times))

    a, b, through = connect(ports[0]), connect(ports[1]), connect(proxy.port)
    took = latencies(
        {
            "one host, direct": lambda n: one_host(a),
            "one host, presplit": lambda n: one_host(through, False),
            "two hosts, by hand": lambda n: by_hand(a, b, f"t{n}"),
            "two hosts, presplit": lambda n: two_hosts(through),
        },
        args.times,
    )
    print(f"\nms, medians of {args.times} in turns, one client\n\n| transaction | whole | its COMMIT |\n|---|--:|--:|")
    for name, (whole, commit) in took.items():
        print(f"| {name} | {whole:.2f} | {f'{commit:.2f}' if commit else '-'} |")
    ratio = [ours / hand for ours, hand in zip(took["two hosts, presplit"], took["two hosts, by hand"])]
    print(f"\npresplit / by hand: {ratio[0]:.2f} as a whole, {ratio[1]:.2f} for COMMIT")


if __name__ == "__main__":
    main()
