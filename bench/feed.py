"""The feed service under load: deliveries, a post to very many followers, how soon posts are seen, reads, memory. See bench/README.md."""

import argparse
import concurrent.futures
import datetime
import os
import pathlib
import random
import re
import signal
import statistics
import subprocess
import sys
import threading
import time

from feed_stage import FeedStage, Service, encode, feed_key, partitioned, resp
from run import machine, say, write_json
from stage import SHARDS, Fault, program, run

PARTS = ("read", "post", "deliver", "star", "memory")
EPOCH_MS = 1_420_070_400_000  # of ids: 2015-01-01
FEED_MOST = 800

# Who is who. Users 1 to --followers follow the star; the first of them have feeds in Redis. Beyond them:
STAR = 40_000_000  # shard 0
MIDDLE = 41_000_000  # authors of (a), by --size followers each
SMALL = 42_000_000  # authors of 100 followers each
POOL = 43_000_000  # authors that readers follow
READERS = 44_000_000  # who follow 500 of the pool
MODEST = 45_000_000  # who follow 20 of the pool
LONELY = 46_000_000  # whom nobody follows


def flags():
    p = argparse.ArgumentParser(prog="bench/feed.py", description=__doc__)
    p.add_argument("--quick", action="store_true", help="a tenth of everything: does it run at all, about a minute")
    p.add_argument("--binary", default="target/release/presplit", metavar="PATH", help="the presplit to run (default target/release/presplit)")
    p.add_argument("--only", default="", metavar="PARTS", help=f"comma list out of {', '.join(PARTS)}")
    p.add_argument("--followers", type=int, help="of the star (default 1000000)")
    p.add_argument("--feeds", type=int, help="how many of them have a feed in Redis, full ones (default 200000)")
    p.add_argument("--authors", type=int, help="authors that post at once for the deliveries per second (default 400)")
    p.add_argument("--size", type=int, default=2500, help="followers of each of them, all with feeds (default 2500)")
    p.add_argument("--rounds", type=int, help="posts of the star, and rounds of deliveries (default 3)")
    p.add_argument("--rate", type=float, default=20, help="posts a second of authors with 100 followers while the star's is delivered (default 20)")
    p.add_argument("--workers", type=int, default=1, help="[proxy] workers (default 1)")
    p.add_argument("--json", metavar="FILE", help="where the JSON goes (default target/bench/feed-DATE.json)")
    args = p.parse_args()
    tenth = 10 if args.quick else 1
    args.followers = args.followers or 1_000_000 // tenth
    args.feeds = args.feeds or 200_000 // tenth
    args.authors = args.authors or 400 // tenth
    args.rounds = args.rounds or (1 if args.quick else 3)
    args.pool, args.readers, args.modest = 5000 // tenth, 200 // tenth, 5000 // tenth
    args.binary = str(pathlib.Path(args.binary).resolve())
    parts = {w for w in args.only.split(",") if w}
    if parts - set(PARTS):
        p.error(f"--only knows {', '.join(PARTS)}")
    args.parts = parts or set(PARTS)
    return args


def used(before, after, n):
    """CPU by process in us for each of n."""
    return {k: round(1e6 * (after[k] - before[k]) / n, 2) for k in before}


def at(values, quantile):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * quantile))]


def spread(seconds):
    """Percentiles in milliseconds."""
    return {"n": len(seconds), "p50": round(1e3 * at(seconds, 0.5), 2), "p99": round(1e3 * at(seconds, 0.99), 2), "max": round(1e3 * max(seconds), 2)}


class Bench:
    def __init__(self, args):
        self.args, self.stage = args, FeedStage(0)
        self.figures = {}

    # What there is before the first call.

    def load(self):
        """Rows straight into the shards, past the proxy, as calls would have made them."""
        began, a = time.monotonic(), self.args
        now = int(time.time() * 1000) - EPOCH_MS
        edges = []  # (which sources, expression of a source's targets): both directions follow
        # The star's followers.
        edges.append((f"SELECT u AS source, {STAR} AS target FROM generate_series(1, {a.followers}) u", STAR, STAR))
        # Author k of (a): a run of users that have feeds; of the small ones: 100.
        for first, count, size in ((MIDDLE, a.authors, a.size), (SMALL, 200, 100)):
            edges.append(
                (
                    f"SELECT DISTINCT 1 + (k::bigint * {size} + i) % {a.feeds} AS source, {first} + k AS target FROM generate_series(0, {count - 1}) k, generate_series(1, {size}) i",
                    first,
                    first + count - 1,
                )
            )
        # Readers: 500 of the pool, in all shards; modest ones 20.
        for first, count, each in ((READERS, a.readers, 500), (MODEST, a.modest, 20)):
            each = min(each, a.pool)
            edges.append(
                (
                    f"SELECT {first} + k AS source, {POOL} + (k::bigint * 37 + i * {a.pool // each}) % {a.pool} AS target FROM generate_series(0, {count - 1}) k, generate_series(1, {each}) i",
                    POOL,
                    POOL + a.pool - 1,
                )
            )
        text = []
        for rows, first, last in edges:
            if first == last:
                # One author: only its shard has to be gone through.
                text.append(f"INSERT INTO {{s}}.follow_in (user_id, source, status, rev) SELECT target, source, 'following', 1 FROM ({rows}) e WHERE {first} % {SHARDS} = {{n}};")
                text.append(
                    f"INSERT INTO {{s}}.follow_out (user_id, target, status, rev) SELECT u, {first}, 'following', 1 FROM generate_series({{first}}, {a.followers}, {SHARDS}) u;"
                )
                continue
            text.append(f"INSERT INTO {{s}}.follow_in (user_id, source, status, rev) SELECT target, source, 'following', 1 FROM ({rows}) e WHERE target % {SHARDS} = {{n}};")
            text.append(f"INSERT INTO {{s}}.follow_out (user_id, target, status, rev) SELECT source, target, 'following', 1 FROM ({rows}) e WHERE source % {SHARDS} = {{n}};")
        # 40 media of each of the pool, over the last 25 days, with bodies as an app's.
        text.append(
            f"""INSERT INTO {{s}}.media (id, user_id, body, created_at)
            SELECT (({now} - 25 * 86400000::bigint + (i * 54000000::bigint + hashint8(u::bigint * 64 + i)::bigint % 54000000)) << 23) | ({{n}} << 10) | (row_number() OVER () % 1024), u,
                jsonb_build_object('text', repeat('a word or two ', 6), 'photo', 'https://cdn.example/' || u || '/' || i || '.jpg'),
                now() - interval '25 days' + i * interval '15 hours'
            FROM generate_series({POOL}, {POOL + a.pool - 1}) u, generate_series(1, 40) i WHERE u % {SHARDS} = {{n}} ON CONFLICT DO NOTHING;"""
        )
        text.append(
            "INSERT INTO {s}.counters (user_id, name, value) SELECT user_id, 'followers', count(*) FROM {s}.follow_in WHERE status = 'following' GROUP BY 1;"
        )
        self.stage.on_shards("".join(text))
        for cluster in self.stage.clusters:
            cluster.psql("VACUUM ANALYZE;\nCHECKPOINT;")
        say(f"rows loaded in {time.monotonic() - began:.1f} s")

    def fill_redis(self):
        """Full feeds of old ids for the first users, as pushes of months would have left them: one is written, the others are copies.
        That the service believes them is checked by reads."""
        began, stage = time.monotonic(), self.stage
        before = stage.used_memory()
        run_id = bytes.fromhex(re.search(r"run_id:(\w{16})", stage.redis_cli("INFO", "server"))[1])
        old = int(time.time() * 1000) - EPOCH_MS - 20 * 86_400_000
        ids = b"".join(encode((old - i * 1000) << 23 | 5 << 10) for i in range(FEED_MOST))
        mark = b"C" + run_id + os.urandom(8) + bytes(8)
        words = [b"RPUSH", feed_key(1), mark, *(ids[i : i + 8] for i in range(0, len(ids), 8))]
        pipe = [resp(words), resp([b"EXPIRE", feed_key(1), b"2592000"])]
        pipe += [resp([b"COPY", feed_key(1), feed_key(user)]) for user in range(2, self.args.feeds + 1)]
        done = subprocess.run([program("redis-cli"), "-p", str(stage.redis_port), "--pipe"], input=b"".join(pipe), capture_output=True)
        if done.returncode or b"errors: 0" not in done.stdout:
            raise Fault(f"redis-cli --pipe: {done.stdout} {done.stderr}")
        self.figures["bytes_before"] = before
        say(f"{self.args.feeds} feeds in {time.monotonic() - began:.1f} s")

    # The parts.

    def until(self, client, wanted, limit=600):
        """Waits until the workers have done so many deliveries in all."""
        end = time.monotonic() + limit
        while (now := self.service.deliveries(client)) and sum(now.values()) < wanted:
            if time.monotonic() > end or self.service.process.poll() is not None:
                raise Fault(f"{sum(now.values())} of {wanted} deliveries after {limit} s: {self.said()}")
            time.sleep(0.02)
        return now

    def said(self):
        return self.stage.log(self.service.name).read_text(errors="replace")[-2000:]

    def post(self):
        """What a post costs without its deliveries: of authors without followers, by 8 clients."""
        count, clients = 4000 // (10 if self.args.quick else 1), [self.service.client() for _ in range(8)]
        watch = self.service.client()

        def some(k, count):
            for n in range(k, count, len(clients)):
                clients[k].post(LONELY + n % 500, {"text": "into the void"})

        for count in (count // 4, count):
            before, cpu, began = self.service.deliveries(watch), self.service.cpu(), time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
                list(pool.map(lambda k: some(k, count), range(len(clients))))
            # Each is pushed to its author's own feed.
            self.until(watch, sum(before.values()) + count)
        self.figures["post"] = {"per_second": round(count / (time.monotonic() - began)), "cpu_us": used(cpu, self.service.cpu(), count)}
        say(f"post: {self.figures['post']}")

    def deliver(self):
        """(a) Authors post all at once; every follower has a feed that is full."""
        a, rounds = self.args, []
        watch, clients = self.service.client(), [self.service.client() for _ in range(8)]
        for n in range(a.rounds + 1):
            before, cpu = self.service.deliveries(watch), self.service.cpu()
            began = time.monotonic()

            def some(k):
                for author in range(k, a.authors, len(clients)):
                    clients[k].post(MIDDLE + author, {"text": f"round {n}"})

            with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
                list(pool.map(some, range(len(clients))))
            posted = time.monotonic() - began
            # Each author has its own post, too.
            size = min(a.size, a.feeds)
            wanted = a.authors * (size + 1)
            after = self.until(watch, sum(before.values()) + wanted)
            took = time.monotonic() - began
            new = after["new"] - before["new"]
            # The service looks at some feeds at random, and drops those that are not as Postgres says: such as those written here.
            if new < a.authors * size * 0.999:
                raise Fault(f"{a.authors} posts to {size} feeds each, but {new} new deliveries: {before} {after}")
            if n == 0:
                continue  # connections, statements and plans are made in the first
            rounds.append({"seconds": round(took, 2), "posted_in": round(posted, 2), "per_second": round(wanted / took), "cpu_us": used(cpu, self.service.cpu(), wanted)})
            say(f"deliver: {rounds[-1]}")
        self.check_feed(MIDDLE, 1 + (0 + 1) % a.feeds)
        best = sorted(rounds, key=lambda r: r["per_second"])[len(rounds) // 2]
        self.figures["deliver"] = {**best, "rounds": rounds, "authors": a.authors, "followers_each": size}

    def check_feed(self, author, user):
        """A feed written by hand is one that the service believes, and it has the author's posts."""
        source, page = self.service.client().home(user)
        if source != "list" or f'"user_id":"{author}"'.encode() not in page:
            raise Fault(f"home of {user}, source {source}, does not show {author}: {page[:500]}")

    def star(self):
        """(b) A post to all of the star's followers, and (c) how soon small authors' posts are seen meanwhile, and without it."""
        a = self.args
        self.post_small(0.2, [])
        quiet = []
        self.post_small(5 if not a.quick else 2, quiet)
        rounds, seen = [], []
        watch = self.service.client()
        for n in range(a.rounds):
            before, cpu = self.service.deliveries(watch), self.service.cpu()
            posting = threading.Event()
            small = threading.Thread(target=self.post_small, args=(posting, seen))
            small.start()
            began = time.monotonic()
            id = watch.post(STAR, {"text": f"star {n}"})
            # Small posts count too: done is when the star's row is gone.
            try:
                self.until_row_is_gone(id)
                took = time.monotonic() - began
            finally:
                posting.set()
                small.join()
            if self.failed:
                raise self.failed
            time.sleep(0.3)
            after = self.service.deliveries(watch)
            done = sum(after.values()) - sum(before.values())
            if done < a.followers:
                raise Fault(f"{done} deliveries, {a.followers} followers")
            rounds.append(
                {"seconds": round(took, 2), "per_second": round(a.followers / took), "new": after["new"] - before["new"], "absent": after["absent"] - before["absent"], "cpu_us": used(cpu, self.service.cpu(), done)}
            )
            say(f"star: {rounds[-1]}")
        for user in (1, a.feeds // 2, a.feeds):
            self.check_feed(STAR, user)
        self.figures["star"] = {**sorted(rounds, key=lambda r: r["seconds"])[len(rounds) // 2], "rounds": rounds, "followers": a.followers, "feeds": a.feeds}
        self.figures["visible_ms"] = {"during": spread(seen), "without": spread(quiet), "rate": a.rate}
        say(f"post -> visible: {self.figures['visible_ms']}")

    def until_row_is_gone(self, id, limit=600):
        end = time.monotonic() + limit
        while self.stage.a.psql(f"SELECT 1 FROM shard_0000.outbox WHERE kind = 'post' AND object = {id}"):
            if time.monotonic() > end:
                raise Fault(f"the star's post is not delivered after {limit} s: {self.said()}")
            time.sleep(0.05)

    failed = None

    def post_small(self, until, seen):
        """Small authors post at a steady rate until it is over; each time it is taken when one of the followers sees it. Posts are sent when
        they are due, however long those before took."""
        over = (lambda: until.is_set()) if hasattr(until, "is_set") else (lambda end=time.monotonic() + until: time.monotonic() > end)
        a, idle, began = self.args, [], time.monotonic()

        def one(author, client):
            try:
                sent = time.monotonic()
                id = client.post(SMALL + author, {"text": "small"}).encode()
                user = 1 + (author * 100 + random.randint(1, 100)) % a.feeds
                while id not in client.home(user, 5)[1]:
                    if time.monotonic() - sent > 60:
                        raise Fault(f"media {id} of {SMALL + author} is not in the feed of {user} after 60 s")
                    time.sleep(0.002)
                seen.append(time.monotonic() - sent)
                idle.append(client)
            except Exception as fault:
                self.failed = fault

        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            n = 0
            while not over() and not self.failed:
                client = idle.pop() if idle else self.service.client()
                pool.submit(one, random.randrange(200), client)
                n += 1
                time.sleep(max(0, began + n / a.rate - time.monotonic()))
        if self.failed:
            raise self.failed

    def read(self):
        """(d) Home: readers of 500 authors in all shards, first without a feed, then with it."""
        a = self.args
        readers = [READERS + k for k in range(a.readers)]
        cold, cpu = [], self.service.cpu()
        self.read_all(readers[: a.readers // 10], "built", [])
        cpu = self.service.cpu()
        self.read_all(readers[a.readers // 10 :], "built", cold)
        cold_cpu = used(cpu, self.service.cpu(), len(cold))
        self.read_all(readers, "list", [])
        warm, cpu = [], self.service.cpu()
        for _ in range(10 if not a.quick else 5):
            self.read_all(readers, "list", warm)
        warm_cpu = used(cpu, self.service.cpu(), len(warm))
        together, began = [], time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            lists = [[] for _ in range(8)]
            list(pool.map(lambda l: [self.read_all(readers, "list", l) for _ in range(3)], lists))
            together = sum(lists, [])
        took = time.monotonic() - began
        self.figures["home_ms"] = {
            "cold": spread(cold), "cold_cpu_us": cold_cpu, "warm": spread(warm), "warm_cpu_us": warm_cpu,
            "warm_8_clients": {**spread(together), "per_second": round(len(together) / took)},
        }  # fmt: skip
        say(f"home: {self.figures['home_ms']}")
        ids = [int(id) for id in re.findall(rb'"id":"(\d+)"', self.service.client().home(readers[0])[1])]
        sizes = [int(self.stage.redis_cli("MEMORY", "USAGE", partitioned(b"o", id).decode())) for id in ids[:50]]
        self.object_bytes = round(statistics.mean(sizes) + 48)

    def read_all(self, readers, wanted, seconds):
        """One after the other. A page that did not come from where it should is none to be counted."""
        client = self.service.client()
        for reader in readers:
            began = time.monotonic()
            source, page = client.home(reader)
            seconds.append(time.monotonic() - began)
            if source != wanted or page.count(b'"user_id"') != 100:
                raise Fault(f"home of {reader} is {source}, not {wanted}, with {page.count(b'user_id')} media")

    def entry_bytes(self):
        """(e) What a feed and an entry of it take in Redis: all keys of feeds, after the pushes."""
        stage = self.stage
        sizes = {"list": 0, "entries": 0, "feeds": 0}
        for user in random.Random(1).sample(range(1, self.args.feeds + 1), min(500, self.args.feeds)):
            key = feed_key(user).decode()
            sizes["list"] += int(stage.redis_cli("MEMORY", "USAGE", key, "SAMPLES", "0"))
            sizes["entries"] += int(stage.redis_cli("LLEN", key)) - 1
            sizes["feeds"] += 1
        self.figures["redis_bytes"] = {
            "per_entry": round(sizes["list"] / sizes["entries"], 2),
            "entries_per_feed": round(sizes["entries"] / sizes["feeds"]),
            # A cached media: the value, its key, and its time to live (two places in a dictionary).
            "per_object": self.object_bytes,
            # With the dictionaries of keys and of times to live, and what the allocator has over.
            "all_per_entry": round((self.bytes_filled - self.figures.pop("bytes_before")) / (self.args.feeds * FEED_MOST), 2),
        }
        say(f"redis: {self.figures['redis_bytes']}")

    object_bytes = None

    def warm_up(self):
        """`presplit feed warm` builds feeds of modest readers, beside the service."""
        ids = "".join(f"{MODEST + k}\n" for k in range(self.args.modest))
        cpu, began = self.service.cpu(), time.monotonic()
        command = [self.args.binary, "feed", "warm", *map(str, self.stage.feed_flags("redis")), "--stdin"]
        done = subprocess.run(command, input=ids, capture_output=True, text=True)
        if done.returncode:
            raise Fault(f"feed warm: {done.stdout}{done.stderr}")
        took = time.monotonic() - began
        self.figures["builds_per_second"] = round(self.args.modest / took)
        say(f"warm: {self.figures['builds_per_second']} builds a second, {used(cpu, self.service.cpu(), self.args.modest)} us each beside the command's own")
        source, _ = self.service.client().home(MODEST)
        if source != "list":
            raise Fault(f"a feed that was warmed is {source}")

    def memory(self):
        """(f) What the service takes, with feeds in Redis and with feeds in itself."""
        self.service.stop()
        self.service = Service(self.stage, "memory")
        idle = self.service.rss()
        users = [MODEST + k for k in range(self.args.modest)]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda k: self.read_all(users[k::4], "built", []), range(4)))
        full = self.service.rss()
        memory = {"idle": idle, "feeds": len(users), "with_feeds": full, "per_feed": round((full - idle) / len(users))}
        self.figures.setdefault("rss", {})["memory"] = memory
        say(f"memory: {memory}")

    def all(self):
        a, parts = self.args, self.args.parts
        self.stage.set_up(a)
        self.load()
        self.fill_redis()
        self.service = Service(self.stage, "redis")
        self.bytes_filled = self.stage.used_memory()
        rss = {"idle": self.service.rss()}
        if "read" in parts:
            self.read()
            self.warm_up()
        if "post" in parts:
            self.post()
        if "deliver" in parts:
            self.deliver()
        if "star" in parts:
            self.star()
        self.entry_bytes()
        rss["after_all"] = self.service.rss()
        self.figures["rss"] = {"redis": rss}
        # Feeds written by hand are found out as such now and then.
        loud = [l for l in self.said().splitlines() if re.search(r"\b(ERROR|WARN|panicked)\b", l) and "is not what it should be" not in l]
        self.figures["warnings"] = loud[:10]
        if "memory" in parts:
            self.memory()


def table(f):
    """Markdown: what was wanted, what was found."""
    lines = ["| what | goal | found | CPU us of service / redis / postgres / proxy |", "|---|--:|--:|---|"]

    def row(what, goal, found, cpu=None):
        each = " / ".join(f"{cpu[k]:.1f}" for k in ("service", "redis", "postgres", "proxy")) if cpu else ""
        lines.append(f"| {what} | {goal} | {found} | {each} |")

    if d := f.get("deliver"):
        row(f"deliveries a second, {d['authors']} authors of {d['followers_each']} followers, all feeds full", "60000", d["per_second"], d["cpu_us"])
    if s := f.get("star"):
        row(f"a post to {s['followers']} followers, {s['feeds']} of them with feeds, seconds", "20", s["seconds"], s["cpu_us"])
        row("the same, deliveries a second", "", s["per_second"])
    if p := f.get("post"):
        row("posts a second, authors without followers, 8 clients", "", p["per_second"], p["cpu_us"])
    if v := f.get("visible_ms"):
        row(f"post -> visible, 100 followers, meanwhile, p50 / p99 ms ({v['during']['n']} posts)", "1000", f"{v['during']['p50']} / {v['during']['p99']}")
        row(f"the same without the star's post ({v['without']['n']})", "", f"{v['without']['p50']} / {v['without']['p99']}")
    if h := f.get("home_ms"):
        row("home, 100 media, warm, one client, p50 / p99 ms", "10", f"{h['warm']['p50']} / {h['warm']['p99']}", h["warm_cpu_us"])
        e = h["warm_8_clients"]
        row("the same, 8 clients (of Python)", "", f"{e['p50']} / {e['p99']}, {e['per_second']} a second")
        row("home, cold, 500 followees over 64 shards, p50 / p99 ms", "100", f"{h['cold']['p50']} / {h['cold']['p99']}", h["cold_cpu_us"])
    if b := f.get("builds_per_second"):
        row("`feed warm`, builds a second (20 followees)", "", b)
    if r := f.get("redis_bytes"):
        row(f"bytes of Redis for an entry ({r['entries_per_feed']} in a feed): MEMORY USAGE / with all that belongs to it", "12", f"{r['per_entry']} / {r['all_per_entry']}")
    rss = f.get("rss", {})
    if r := rss.get("redis"):
        row("resident MiB of the service, feeds in Redis: idle / after all", "", f"{r['idle'] / 2**20:.1f} / {r['after_all'] / 2**20:.1f}")
    if r := rss.get("memory"):
        row(f"resident MiB, feeds in the process: idle / with {r['feeds']} full feeds and their media", "", f"{r['idle'] / 2**20:.1f} / {r['with_feeds'] / 2**20:.1f}")
    return "\n".join(lines)


def leave(number, _):
    """So that what was started is stopped, also if the signal comes twice."""
    for other in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def main():
    args = flags()
    if not os.access(args.binary, os.X_OK):
        sys.exit(f"{args.binary} is not there: cargo build --release")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, leave)
    bench = Bench(args)
    try:
        before = os.getloadavg()[0]
        bench.all()
    except Fault as fault:
        sys.exit(f"bench: {fault}")
    finally:
        bench.stage.stop()
    now = datetime.datetime.now(datetime.timezone.utc)
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    redis = run([program("redis-server"), "--version"]).split()[2]
    report = {
        "date": f"{now:%Y-%m-%d %H:%M UTC}", "machine": machine(), "redis": redis, "load_before": round(before, 2), "load_after": round(os.getloadavg()[0], 2),
        "commit": commit, "shards": SHARDS, **bench.figures,
    }  # fmt: skip
    print(f"{report['date']}, commit {commit}, {report['machine']}, Redis {redis}, load {report['load_before']} before, {report['load_after']} after (its own included).\n")
    print(table(report))
    for line in report["warnings"]:
        print(f"said: {line}")
    print()
    write_json(args.json, "feed-", report)


if __name__ == "__main__":
    main()
