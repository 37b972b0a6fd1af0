"""What the feed's benchmark runs on: the hosts with the feed's tables, Redis, presplit, the service and its clients."""

import concurrent.futures
import json
import pathlib
import re
import signal
import socket
import subprocess

from stage import SHARDS, Cluster, Fault, Presplit, Stage, cpu_of, free_port, program, run, wait_until


class FeedStage(Stage):
    """Two Postgres hosts with the feed's tables in 64 shards, a Redis, presplit, and the service when it is wanted."""

    def set_up(self, args):
        self.args = args
        self.a, self.b = Cluster(self, "a"), Cluster(self, "b")
        self.clusters = [self.a, self.b]
        self.redis_port = free_port()
        server = [program("redis-server"), "--port", self.redis_port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", self.dir]
        self.redis = self.start("redis", server, signal.SIGTERM)
        ping = [program("redis-cli"), "-p", str(self.redis_port), "ping"]
        wait_until("redis answers", lambda: subprocess.run(ping, capture_output=True).stdout == b"PONG\n", self.redis, self.log("redis"))
        run([args.binary, "provision", "--feed", "--map", self.write_map(args.workers)])
        self.proxy = Presplit(self, "presplit", args.binary, args.workers)

    def write_map(self, workers):
        path = super().write_map(workers)
        tables = '[tables]\nmedia = { ids = ["id"] }\nstars = { kind = "reference" }\n'
        # The star's posts are to be pushed here, whatever its followers.
        path.write_text(path.read_text().replace("[users.app]", tables + "[users.app]") + "[feed.stars]\nfollowers = 1000000000\n")
        with_redis = path.with_name("redis.toml")
        with_redis.write_text(path.read_text() + f'[feed.redis.nodes]\nr1 = "redis://127.0.0.1:{self.redis_port}"\n')
        return path

    def feed_flags(self, store):
        """What `presplit feed` and its subcommands are told."""
        name = "redis.toml" if store == "redis" else "shardmap.toml"
        at = self.dir / f"map-{self.args.workers}" / name
        return ["--map", at, "--database-url", f"postgres://app@127.0.0.1:{self.proxy.port}/app"]

    def on_shards(self, sql):
        """Runs this on every shard of its host, `{s}` being the schema, `{n}` the shard's number, `{first}` its lowest user above 0."""

        def of(first, cluster):
            shards = range(first, first + SHARDS // 2)
            return cluster.psql("\n".join(sql.format(s=f"shard_{n:04}", n=n, first=n or SHARDS) for n in shards))

        with concurrent.futures.ThreadPoolExecutor(2) as two:
            done = [two.submit(of, first, c) for first, c in ((0, self.a), (SHARDS // 2, self.b))]
            return [row for rows in done for row in rows.result()]

    def redis_cli(self, *words, **more):
        return run([program("redis-cli"), "-p", self.redis_port, *words], **more)

    def used_memory(self):
        return int(re.search(r"used_memory:(\d+)", self.redis_cli("INFO", "memory"))[1])


class Client:
    """HTTP/1.1 over one connection, as cheap as Python can do it. Not for several threads."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.left = b""

    def call(self, method, path, body=None):
        """Status, headers as they came (lower case), body."""
        payload = json.dumps(body).encode() if body is not None else b""
        kind = "Content-Type: application/json\r\n" if body is not None else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\n{kind}Content-Length: {len(payload)}\r\n\r\n"
        self.socket.sendall(head.encode() + payload)
        data = self.left
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self.more()
        headers = data[:end].decode("latin-1").lower()
        length = int(re.search(r"content-length: (\d+)", headers)[1])
        parts, have = [data[end + 4 :]], len(data) - end - 4
        while have < length:
            parts.append(self.more())
            have += len(parts[-1])
        data = b"".join(parts)
        self.left = data[length:]
        return int(headers.split(" ", 2)[1]), headers, data[:length]

    def more(self):
        data = self.socket.recv(262144)
        if not data:
            raise Fault("the service closed the connection")
        return data

    def post(self, author, body):
        status, _, said = self.call("POST", "/v1/media", {"user_id": str(author), "body": body})
        if status != 201:
            raise Fault(f"post of {author}: {status} {said[:300]}")
        return json.loads(said)["id"]

    def home(self, user, limit=100):
        """Where the page came from, and its ids."""
        status, headers, said = self.call("GET", f"/v1/users/{user}/home?limit={limit}")
        if status != 200:
            raise Fault(f"home of {user}: {status} {said[:300]}")
        return re.search(r"presplit-source: (\w+)", headers)[1], said


class Service:
    """A `presplit feed` that runs."""

    def __init__(self, stage, store):
        self.stage, self.name = stage, f"feed with {store}"
        command = [stage.args.binary, "feed", *stage.feed_flags(store), "--listen", "127.0.0.1:0"]
        self.process = stage.start(self.name, command, signal.SIGTERM)
        log = stage.log(self.name)
        self.port = int(wait_until("the service listens", lambda: re.search(r"listening on \S+:(\d+)", log.read_text()), self.process, log)[1])
        wait_until("it is ready", lambda: self.client().call("GET", "/healthz")[0] == 200, self.process, log)

    def client(self):
        return Client(self.port)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)

    def rss(self):
        """Resident bytes."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024

    def deliveries(self, client):
        """Counts by outcome, as the workers say."""
        said = client.call("GET", "/metrics")[2].decode()
        found = dict(re.findall(r'presplit_feed_deliveries_total\{outcome="(\w+)"\} (\d+)', said))
        return {k: int(v) for k, v in found.items()}

    def cpu(self):
        s = self.stage
        return {"service": cpu_of(self.process.pid), "redis": cpu_of(s.redis.pid), "postgres": sum(c.cpu() for c in s.clusters), "proxy": s.proxy.cpu()}


def encode(id):
    return ((id ^ 1 << 63) & (1 << 64) - 1).to_bytes(8, "big")


def feed_key(user):
    return partitioned(b"f", user)


def partitioned(kind, id):
    """As src/feed/store/redis/keys.rs has it; a difference shows in reads that are `built`."""
    full = (1 << 64) - 1
    mixed = id & full
    mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & full
    mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & full
    return b"%b{%d}:%d" % (kind, (mixed ^ mixed >> 31) & 255, id)


def resp(words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)
