#!/usr/bin/python3
"""Flows under pressure: what a change of a network's profile, and a guest that sends random addresses, cost the traffic. See README.md.

    tests/bench/pressure.py profile [--flows 100000]    a rule makes the profile one of 5-tuples, at half of the load that is possible
    tests/bench/pressure.py routes [--routes 1000000]   so many routes change their next hop again and again, at half of the load that is possible
    tests/bench/pressure.py attack                      latency of a quiet pair of ports, without and with an attacker on the same worker
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "integration")]

from lab import SwitchError  # noqa: E402
from peers import Weir  # noqa: E402
from rows import mix_words  # noqa: E402
from process import BenchError, Generator, Hugepages, busiest_on, confine, wait_until  # noqa: E402

PAGES = 512


class Pressure:
    """Weir with one worker, and the generator with its two ports and the probe's; the probe has a network of its own."""

    def __init__(self, build, cpus, nice, kind):
        self.build, self.cpus, self.nice, self.kind = Path(build).absolute(), cpus, nice, kind

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="weir-pressure-", dir="/tmp")
        self.peer = Weir(self.folder.name, self.cpus, self.build)
        quiet = [self.folder.name + f"/quiet{i}.sock" for i in range(2)]
        self.generator = Generator(self.build / "tests/bench/gen", self.folder.name, self.cpus[1], self.nice, "queue_size=1024", quiet).listening()
        self.peer.start(self.generator.paths, self.kind)
        self.weirctl = self.peer.switch.weirctl
        self.weirctl("network", "add", "quiet", *[word for i in range(2) for word in
                     ("--", "port", "add", f"quiet{i}", "--network", "quiet", "--path", quiet[i])])
        self.generator.ready()
        wait_until(lambda: busiest_on(self.peer.pid, self.cpus[0]), 10, "no worker")
        self.worker = busiest_on(self.peer.pid, self.cpus[0])
        confine(self.peer.pid, self.worker, self.cpus[1], self.nice)
        return self

    def __exit__(self, *_):
        self.peer.stop()
        self.generator.stop()
        self.folder.cleanup()

    def run(self, words, limit=120):
        w = self.generator.ask(f"run {words} watch={self.peer.pid}/{self.worker}", limit)
        w["mpps"] = sum(w["received"]) / w["seconds"] / 1e6
        w["waited"] = max(t["waited"] for t in w["threads"])
        return w

    def drops(self):
        """By port and reason."""
        return {(row["port"], row["reason"]): row["packets"] for row in json.loads(self.peer.switch.unixctl("drops", "--json")) if row["packets"]}

    def new_drops(self, before):
        return {f"{port} {reason}": n - before.get((port, reason), 0) for (port, reason), n in self.drops().items() if n > before.get((port, reason), 0)}

    def stats(self, key, *ports):
        return sum(row[key] for row in json.loads(self.peer.switch.unixctl("port/stats", "--json")) if row["port"] in (ports or (row["port"],)))


CHANGES = [
    ("the profile becomes one of ports", ("flow", "add", "--network", "bench", "priority=10,udp,tp_src=1,tp_dst=1,actions=drop")),
    ("and of addresses and the type of service", ("flow", "add", "--network", "bench", "priority=11,ip,nw_src=192.0.2.1,nw_dst=192.0.2.2,nw_tos=4,actions=drop")),
    ("another rule, the same profile", ("flow", "add", "--network", "bench", "priority=12,udp,tp_src=2,tp_dst=2,actions=drop")),
    ("back to addresses of layer 2", ("flow", "del", "all")),
]


def profile(p, args):
    """The changes, one after the other, in one run. The generator makes up for what it could not send in time: only the switch can lose packets."""
    p.generator.ask(f"mix flows={args.flows} macs=8 bytes=64 random=no")
    p.generator.ask("learn")
    most = p.run("seconds=1 warm=1")["mpps"]
    rate = int(args.load * most / 2 * 1e6)
    before, told = p.drops(), []

    def change():
        time.sleep(args.warm + 0.3)
        for what, words in CHANGES:
            resolved, began = p.stats("resolved"), time.monotonic()
            p.weirctl(*words)
            applied = time.monotonic() - began
            time.sleep(0.7)
            told.append({"change": what, "applied_ms": round(applied * 1000), "resolved": p.stats("resolved") - resolved,
                         "flows": sum(row["flows"] for row in json.loads(p.peer.switch.unixctl("worker/list", "--json")))})

    thread = threading.Thread(target=change)
    thread.start()
    w = p.run(f"seconds={args.seconds + len(CHANGES)} warm={args.warm} rate={rate}")
    thread.join()
    return {"capacity_mpps": most, "rate_mpps": 2 * rate / 1e6, "mpps": w["mpps"], "lowest_tenth_mpps": min(w["samples_mpps"]), "sent": w["sent_in_all"],
            "lost": w["lost"], "drops": p.new_drops(before), "changes": told, "waited": w["waited"], "steal": w["steal"]}


def learn_routed(p):
    limit = time.monotonic() + 15  # a router sees first that nobody else has its addresses
    while True:
        learned = p.generator.ask("learn ask=1")
        if learned["received"] >= 0.9 * learned["sent"]:
            return
        if time.monotonic() > limit:
            raise BenchError("the router forwards nothing")
        time.sleep(0.2)


def routes(p, args):
    """Row route-100k, beside it as many routes as are wanted, all of which go to another gateway with each load of a file."""
    own = p.folder.name + "/routes"
    p.generator.ask("mix " + mix_words("route-100k"))
    p.peer.plan(p.generator.ask("plan " + own), own)
    learn_routed(p)
    lines = [line.split() for line in Path(own).read_text().splitlines()]
    gateways = sorted({gateway for _, gateway, *_ in lines})[:2]
    files = []
    for i in range(2):
        files.append(p.folder.name + f"/change{i}")
        with open(files[i], "w") as f:
            f.writelines(f"{prefix} via {gateway}\n" for prefix, gateway, *_ in lines)
            f.writelines(f"{32 + n // 65536 % 64}.{n // 256 % 256}.{n % 256}.{n // 4194304 * 64}/26 via {gateways[(i + n) % len(gateways)]}\n" for n in range(args.routes))
    p.weirctl("route", "load", files[0], "--router", "r", limit=120)
    most = p.run("seconds=1 warm=1")["mpps"]
    rate = int(args.load * most / 2 * 1e6)
    before, took = p.drops(), []

    def change():
        time.sleep(args.warm + 0.3)
        for i in range(1, args.loads + 1):
            began = time.monotonic()
            p.weirctl("route", "load", files[i % 2], "--router", "r", limit=120)
            took.append(time.monotonic() - began)

    thread = threading.Thread(target=change)
    thread.start()
    w = p.run(f"seconds={args.seconds + 8 * args.loads} warm={args.warm} rate={rate}", 300)
    running = thread.is_alive()
    thread.join()
    return {"capacity_mpps": most, "rate_mpps": 2 * rate / 1e6, "mpps": w["mpps"], "lowest_tenth_mpps": min(w["samples_mpps"]), "sent": w["sent_in_all"],
            "lost": w["lost"], "drops": p.new_drops(before), "changes": args.routes * len(took), "seconds": [round(t, 2) for t in took],
            "changes_per_second": round(args.routes * len(took) / sum(took)), "all_under_load": not running, "waited": w["waited"], "steal": w["steal"]}


def attack(p, args):
    """The quiet pair alone, then beside an attacker who sends all that his ring takes, each packet from an address that nobody knows."""
    p.generator.ask("mix flows=64 macs=8 bytes=64 random=no")
    p.generator.ask("learn")
    result = {}
    for name, senders in (("alone", 0), ("attacked", 1)):
        p.generator.ask(f"mix flows=64 macs=8 bytes=64 random={'source' if senders else 'no'}")
        before, rx, resolved = p.drops(), p.stats("rx_packets", "a"), p.stats("resolved", "a")
        w = p.run(f"seconds={args.seconds} warm={args.warm if senders else 0} senders={senders} probe={args.probe}")
        result[name] = {**w["probe"], "attacker_mpps": (p.stats("rx_packets", "a") - rx) / (w["seconds"] + args.warm) / 1e6,
                        "resolved_mpps": (p.stats("resolved", "a") - resolved) / (w["seconds"] + args.warm) / 1e6,
                        "drops": p.new_drops(before), "waited": w["waited"], "steal": w["steal"], "generator_away_us": w["gap_longest_us"]}
    return result


def main(argv):
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("what", choices=["profile", "routes", "attack"])
    a.add_argument("--build", default=os.environ.get("WEIR_BUILD", str(HERE.parents[1] / "build-bench")))
    a.add_argument("--cpus", default="1,0", metavar="WORKER,GENERATOR")
    a.add_argument("--nice", type=int, default=-20)
    a.add_argument("--runs", type=int, default=5)
    a.add_argument("--seconds", type=float, default=3)
    a.add_argument("--warm", type=float, default=1)
    a.add_argument("--flows", type=int, default=100000, help="profile: 5-tuples between 8 addresses a side")
    a.add_argument("--routes", type=int, default=1000000, help="routes: how many change with each load")
    a.add_argument("--loads", type=int, default=3, help="routes: how often")
    a.add_argument("--load", type=float, default=0.5, help="profile: share of what the switch can do")
    a.add_argument("--probe", type=int, default=10000, help="attack: packets a second between the quiet ports")
    args = a.parse_args(argv)
    try:
        with Hugepages(PAGES), Pressure(args.build, [int(c) for c in args.cpus.split(",")], args.nice,
                                         "route" if args.what == "routes" else "l2") as p:
            for _ in range(args.runs):
                print(json.dumps({"profile": profile, "routes": routes, "attack": attack}[args.what](p, args)), flush=True)
        return 0
    except (BenchError, SwitchError, OSError) as e:
        print(f"pressure: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
