"""pgbench against direct Postgres, PgBouncer and presplit in short interleaved slices; medians as a table and as JSON."""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import signal
import statistics
import subprocess
import sys
import time

import stage as stage_module
from stage import HERE, SHARDS, Fault, PgBouncer, Presplit, Stage, Target, program, run

SCRIPTS = ("select", "rw", "join")
MODES = ("simple", "extended", "prepared")


def flags():
    p = argparse.ArgumentParser(prog="bench/run.sh", description=__doc__)
    p.add_argument("--quick", action="store_true", help="1 round of 1 s: does it run at all")
    p.add_argument("--seconds", type=int, help="length of a slice (default 3)")
    p.add_argument("--rounds", type=int, help="slices for each target (default 5)")
    p.add_argument("--only", default="", metavar="WORDS", help="comma list out of targets, scripts, modes, numbers of clients: `presplit,pgbouncer,rw,32`")
    p.add_argument("--clients", default="1,32", help="numbers of clients (default 1,32)")
    p.add_argument("--workers", default="1", help="[proxy] workers of presplit; a list compares them: `1,2`")
    p.add_argument("--shared", default="1", help="presplit with so many shared connections beside presplit without, as `presplit-shared-1`; a list: `1,2,4`")
    p.add_argument("--rows", type=int, default=100_000, help="accounts (default 100000)")
    p.add_argument("--json", metavar="FILE", help="where the JSON goes (default target/bench/DATE.json)")
    p.add_argument("--strace", action="store_true", help="instead: system calls per transaction of each proxy, side by side")
    p.add_argument("--binary", metavar="PATH", help="the presplit to run (default target/release/presplit, built first)")
    p.add_argument("--against", metavar="PATH", help="another presplit, measured beside it as `presplit-other`")
    p.add_argument("--no-build", action="store_true", help="take target/release/presplit as it is")
    args = p.parse_args()
    args.seconds = args.seconds or (1 if args.quick else 3)
    args.rounds = args.rounds or (1 if args.quick else 5)
    args.clients = [int(n) for n in args.clients.split(",")]
    args.workers = [int(n) for n in args.workers.split(",")]
    args.binary = str(pathlib.Path(args.binary or "target/release/presplit").resolve())
    return args


def pick(options, words):
    """Those options that were asked for; all, if none of them was."""
    return [o for o in options if str(o) in words] or list(options)


class Bench:
    def __init__(self, args):
        self.args = args
        self.words = {w for w in args.only.split(",") if w}
        self.scripts = pick(SCRIPTS, self.words)
        self.modes = pick(MODES, self.words)
        self.clients = pick(args.clients, self.words)
        self.stage = Stage(args.rows)

    def set_up(self):
        began = time.monotonic()
        args, stage = self.args, self.stage
        stage.load(args.binary)
        presplits = [("presplit" if len(args.workers) == 1 else f"presplit-w{n}", args.binary, n) for n in args.workers]
        if args.against:
            presplits.append(("presplit-other", str(pathlib.Path(args.against).resolve()), args.workers[0]))
        makers = {"direct": lambda: Target("direct", stage.a.port, "plain", note="no proxy, plain tables, one host")}
        makers["pgbouncer"] = lambda: PgBouncer(stage)
        for name, binary, workers in presplits:
            makers[name] = lambda name=name, binary=binary, workers=workers: Presplit(stage, name, binary, workers)
        for n in filter(None, args.shared.split(",")):
            makers[f"presplit-shared-{n}"] = lambda n=int(n): Presplit(stage, f"presplit-shared-{n}", args.binary, args.workers[0], n)
        unknown = self.words - {*makers, *SCRIPTS, *MODES, *map(str, args.clients)}
        if unknown:
            raise Fault(f"--only knows no {', '.join(sorted(unknown))}")
        self.targets = [makers[name]() for name in pick(makers, self.words)]
        say(f"set up in {time.monotonic() - began:.1f} s: {', '.join(t.name for t in self.targets)}")

    def pgbench(self, target, script, mode, clients, length):
        """One run; returns (transactions, transactions a second without the time to connect)."""
        command = [
            program("pgbench"), "-n", "-M", mode, "-c", clients, "-j", min(clients, 2), *length,
            "-D", f"rows={self.args.rows}", "-f", HERE / f"{script}.sql",
            "-h", "127.0.0.1", "-p", target.port, "-U", "app", target.database_for(mode),
        ]  # fmt: skip
        said = run(command)
        done, failed = re.search(r"processed: (\d+)", said), re.search(r"failed transactions: (\d+)", said)
        tps = re.search(r"tps = ([\d.]+)", said)
        if not done or not tps or (failed and int(failed[1])):
            raise Fault(f"{target.name}, {script}, {mode}, {clients} clients:\n{said}")
        return int(done[1]), float(tps[1])

    def checked(self, target, script, mode, clients, length):
        """[`pgbench`], and behind presplit: each transaction is in the shards exactly once, each row where it belongs."""
        before = self.stage.misplaced()[1] if target.presplit else 0
        cpu = target.cpu(), sum(c.cpu() for c in self.stage.clusters)
        done, tps = self.pgbench(target, script, mode, clients, length)
        cpu = target.cpu() - cpu[0], sum(c.cpu() for c in self.stage.clusters) - cpu[1]
        if target.presplit:
            new = self.stage.misplaced()[1] - before
            if new != (done if script == "rw" else 0):
                raise Fault(f"{target.name}, {script}, {mode}: {done} transactions, but {new} new rows of history in the shards")
        return {"tps": tps, "latency_us": 1e6 * clients / tps, "proxy_us": 1e6 * cpu[0] / done, "server_us": 1e6 * cpu[1] / done, "transactions": done}

    def measure(self):
        """Each case: every target once to warm up, then rounds of slices; who is first changes from round to round."""
        results = []
        warm = ["-t", 20] if self.args.quick else ["-T", 1]
        for script in self.scripts:
            for mode in self.modes:
                for clients in self.clients:
                    slices = {t.name: [] for t in self.targets}
                    for target in self.targets:
                        self.checked(target, script, mode, clients, warm)
                    for n in range(self.args.rounds):
                        k = n % len(self.targets)
                        for target in self.targets[k:] + self.targets[:k]:
                            slices[target.name].append(self.checked(target, script, mode, clients, ["-T", self.args.seconds]))
                    results.append({"script": script, "mode": mode, "clients": clients, "targets": summary(slices)})
                    say(one_line(results[-1]))
        return results

    def count_syscalls(self):
        """System calls per transaction of each proxy, from `strace -c -f` attached to it."""
        results = []
        for script in self.scripts:
            for mode in self.modes:
                for clients in self.clients:
                    counts = {}
                    for target in self.targets:
                        if target.process:
                            counts[target.name] = self.syscalls_of(target, script, mode, clients)
                    results.append({"script": script, "mode": mode, "clients": clients, "targets": counts})
                    say(f"{script} {mode} {clients}: done")
        return results

    def syscalls_of(self, target, script, mode, clients):
        self.checked(target, script, mode, clients, ["-t", 20 if self.args.quick else 400])
        out, said = self.stage.dir / "strace.out", self.stage.log("strace")
        tracer = self.stage.start("strace", [program("strace"), "-f", "-c", "-o", out, "-p", target.process.pid], signal.SIGINT)
        stage_module.wait_until("strace is attached", lambda: "attached" in said.read_text(), tracer, said)
        done, _ = self.pgbench(target, script, mode, clients, ["-t", 100 if self.args.quick else max(4000 // clients, 200)])
        tracer.send_signal(signal.SIGINT)
        tracer.wait(20)
        calls = {}
        for line in out.read_text().splitlines():
            fields = line.split()
            if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
                calls[fields[-1]] = calls.get(fields[-1], 0) + int(fields[3]) / done
        if not calls:
            raise Fault(f"strace counted nothing:\n{out.read_text()}")
        return calls


def summary(slices):
    """Medians over a target's slices; the latency added over direct is the median of the differences within each round."""
    medians = {}
    for name, runs in slices.items():
        row = {k: statistics.median(r[k] for r in runs) for k in ("tps", "latency_us", "proxy_us", "server_us")}
        if "direct" in slices and name != "direct":
            row["added_us"] = statistics.median(r["latency_us"] - d["latency_us"] for r, d in zip(runs, slices["direct"]))
        row["slices"] = runs
        medians[name] = row
    return medians


def one_line(result):
    parts = [f"{name} {row['tps']:.0f} tps {row['proxy_us']:.1f} us" for name, row in result["targets"].items()]
    return f"{result['script']} {result['mode']} {result['clients']}: " + " | ".join(parts)


def table(results, names):
    """Markdown: a row for each case and target."""
    lines = [
        "| script | mode | clients | target | tps | proxy CPU us/txn | servers CPU us/txn | latency us | added over direct us |",
        "|---|---|--:|---|--:|--:|--:|--:|--:|",
    ]
    for r in results:
        for name in names:
            row = r["targets"].get(name)
            if not row:
                continue
            proxy = "-" if name == "direct" else f"{row['proxy_us']:.1f}"
            # With many clients on few cores the latency is the queue, not the proxy.
            added = f"{row['added_us']:.0f}" if "added_us" in row and r["clients"] == 1 else "-"
            lines.append(
                f"| {r['script']} | {r['mode']} | {r['clients']} | {name} | {row['tps']:.0f} | {proxy} | {row['server_us']:.1f} | {row['latency_us']:.0f} | {added} |"
            )
    return "\n".join(lines)


READS = ("read", "readv", "recvfrom", "recvmsg", "recvmmsg")
WRITES = ("write", "writev", "sendto", "sendmsg", "sendmmsg")


def syscall_table(results, names):
    """Markdown: reads, writes and the rest per transaction, each proxy beside the others."""
    lines = ["| script | mode | clients | proxy | reads | writes | epoll_wait | other | which |", "|---|---|--:|---|--:|--:|--:|--:|---|"]
    for r in results:
        for name in names:
            calls = r["targets"].get(name)
            if not calls:
                continue
            reads, writes = (sum(calls.get(c, 0) for c in group) for group in (READS, WRITES))
            waits = sum(n for c, n in calls.items() if c.startswith("epoll_") and "wait" in c)
            rest = {c: n for c, n in calls.items() if c not in READS + WRITES and not (c.startswith("epoll_") and "wait" in c)}
            which = ", ".join(f"{c} {n:.2f}" for c, n in sorted(rest.items(), key=lambda i: -i[1]) if n >= 0.005)
            lines.append(f"| {r['script']} | {r['mode']} | {r['clients']} | {name} | {reads:.2f} | {writes:.2f} | {waits:.2f} | {sum(rest.values()):.2f} | {which} |")
    return "\n".join(lines)


def machine():
    info = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", info)
    memory = int(re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1]) / 2**20
    postgres = run([program("postgres"), "--version"]).strip()
    return f"{os.cpu_count()} x {model[1] if model else platform.machine()}, {memory:.0f} GiB, Linux {platform.release()}, {postgres}"


def say(line):
    print(line, file=sys.stderr, flush=True)


def main():
    args = flags()
    if not os.access(args.binary, os.X_OK):
        sys.exit(f"{args.binary} is not there")
    # So that `finally` runs whichever way it ends.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda n, _: sys.exit(128 + n))
    bench = Bench(args)
    try:
        load_before = os.getloadavg()[0]
        bench.set_up()
        results = bench.count_syscalls() if args.strace else bench.measure()
        logs = {t.name: bench.stage.log(t.name).read_text(errors="replace") for t in bench.targets if t.presplit}
        names = [t.name for t in bench.targets]
        report = {
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "machine": machine(),
            "load_before": round(load_before, 2),
            "commit": subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip(),
            "seconds": args.seconds, "rounds": args.rounds, "rows": args.rows, "shards": SHARDS, "pool": stage_module.POOL,
            "targets": {t.name: t.note for t in bench.targets},
            "strace" if args.strace else "results": results,
        }  # fmt: skip
        print_report(report, (syscall_table if args.strace else table)(results, names))
        write_json(args.json, "", report)
        for name, log in logs.items():
            loud = [line for line in log.splitlines() if re.search(r"\b(ERROR|panicked)\b", line)]
            if loud:
                raise Fault(f"{name} said:\n" + "\n".join(loud[:20]))
    except Fault as fault:
        for target in getattr(bench, "targets", []):
            if target.presplit:
                say(f"---- {target.name} said at the end:\n{bench.stage.log(target.name).read_text(errors='replace')[-3000:]}----")
        sys.exit(f"bench: {fault}")
    finally:
        bench.stage.stop()


def print_report(report, markdown):
    print(f"{report['date']}, commit {report['commit']}, {report['machine']}, load before {report['load_before']}.")
    if "results" in report:
        print(f"Medians of {report['rounds']} slices of {report['seconds']} s, {report['rows']} rows, {report['shards']} shards on 2 hosts.")
    else:
        print("System calls per transaction (strace -c -f).")
    for name, note in report["targets"].items():
        print(f"{name}: {note}.")
    print(f"\n{markdown}\n")


def write_json(file, name, report):
    path = pathlib.Path(file or f"target/bench/{name}{datetime.datetime.now():%Y%m%d-%H%M%S}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"JSON: {path}")


if __name__ == "__main__":
    main()
