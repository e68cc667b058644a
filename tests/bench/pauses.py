#!/usr/bin/python3
"""Ports that come, change and go: how long they hold up the traffic of others. See README.md.

    tests/bench/pauses.py [--ports 50] [--rounds 3] [--cpus WORKER,OTHERS]

The longest time between two packets of a flow depends on whoever runs on these processors, so each change is measured in three ways:

    gap     the longest time between two packets of the flow, as the receiving guest sees it: generator, receiver and machine included
    held    the longest time that the switch provably had a packet: until a look at the receiver's ring that didn't find it there yet
    own     the longest round of the worker, less the time in which the kernel had something else run on its core (pause.h)
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "integration"), str(HERE.parent / "functional")]

LIMIT_MS = 5
RATE = 10000
PROBE = 40  # where in a packet it says when it was sent


def stolen():
    """Milliseconds for which the host of a virtual machine had something else run on its processors, so far."""
    return int(Path("/proc/stat").read_text().split()[8]) * 1000 / os.sysconf("SC_CLK_TCK")


class Pauses:
    """A flow from port 0 to port 1 of a guest, and how long each change held it up; milliseconds."""

    def __init__(self, switch, guest):
        self.switch, self.guest, self.changes = switch, guest, []
        tasks = Path(f"/proc/{switch.daemon.pid}/task").iterdir()
        self.workers = [t for t in tasks if (t / "comm").read_text().startswith("weir-worker")]

    def waited(self):
        """For which the workers were ready to run and had no processor."""
        return sum(int((t / "schedstat").read_text().split()[1]) for t in self.workers) / 1e6

    def change(self, *words):
        self.guest.clear(0)
        self.guest.clear(1)
        waited, steal = self.waited(), stolen()
        self.switch.unixctl("worker/history", "clear")
        self.switch.weirctl(*words)
        workers = json.loads(self.switch.unixctl("worker/list", "--json"))
        waited, steal = self.waited() - waited, stolen() - steal
        count = self.guest.count(1)
        own = max(workers, key=lambda w: w["own_us"])
        self.changes.append({"change": " ".join(words[:3]), "gap": count["gap_us"] / 1000, "held": count["held_us"] / 1000,
                             "own": own["own_us"] / 1000, "own_asleep": own["own_asleep_us"] / 1000, "longest": max(w["longest_us"] for w in workers) / 1000,
                             "worker_waited": waited, "guest_away": count["poll_us"] / 1000, "steal": steal})

    def own(self):
        """The longest of what the switch did itself. Time that the host took away counts as a processor's, as far as Linux isn't told of it."""
        return max(c["own"] - c["steal"] for c in self.changes)

    def figures(self):
        result = {"changes": len(self.changes)}
        for key in ("gap", "held", "own", "longest"):
            values = sorted(c[key] for c in self.changes)
            result[key + "_ms"] = {"median": round(values[len(values) // 2], 2), "nine_of_ten": round(values[len(values) * 9 // 10], 2),
                                   "worst": round(values[-1], 2), f"under_{LIMIT_MS}": sum(v < LIMIT_MS for v in values)}
        result["above"] = [{k: v if k == "change" else round(v, 2) for k, v in c.items()} for c in self.changes
                           if c["gap"] >= LIMIT_MS]
        return result


def come_and_go(switch, pauses, ports, driver):
    """So many ports are added, changed and removed, one after the other; a fifth of them gets a front-end, which sends nothing: a round is as long as what guests offer takes."""
    drivers = []
    try:
        for i in range(ports):
            pauses.change("port", "add", f"p{i}", "--network", "blue", *(["--mode", "server"] if i % 3 == 0 else []), "options:packed=true")
            if i % 5 == 1 and i % 3:
                drivers.append(driver(switch.path(f"p{i}.sock")))
        for i in range(ports):
            pauses.change("set", "Port", f"p{i}", *(["mtu=1400"] if i % 2 else ["enabled=false"]))
        for i in range(ports):
            pauses.change("port", "del", f"p{i}")
    finally:
        for d in drivers:
            d.quit()


class Quiet:
    """All that isn't a worker runs on one processor, interrupts too, as far as they can be moved."""

    def __init__(self, cpu):
        self.cpu, self.irqs = cpu, {}

    def __enter__(self):
        for f in Path("/proc/irq").glob("*/smp_affinity_list"):
            try:
                self.irqs[f] = f.read_text()
                f.write_text(str(self.cpu))
            except OSError:
                self.irqs.pop(f, None)
        return self

    def place(self, pid, but=()):
        for task in Path(f"/proc/{pid}/task").iterdir():
            if int(task.name) not in but:
                os.sched_setaffinity(int(task.name), {self.cpu})

    def __exit__(self, *_):
        for f, was in self.irqs.items():
            try:
                f.write_text(was)
            except OSError:
                pass


def flow(frame):
    """What the guest's port 0 sends to port 1: for both to be known, and then at a rate."""
    return frame(1, 2, payload=b"\0" * 46)


def measure(args):
    from lab import Switch
    from net import frame, wait_for
    from vguest import Driver, Guest

    def driver(path):
        d = Driver(path, size=64, window=0)
        os.setpriority(os.PRIO_PROCESS, d.process.pid, 10)
        return d

    worker, others = args.cpus
    with Quiet(others) as quiet, Switch(build=args.build) as switch:
        switch.weirctl("config", "set", f"worker-cores={worker}", "history-resolves=0", "history-queue-full=0")
        os.sched_setaffinity(0, {others})  # and what is started from now on
        switch.weirctl("network", "add", "blue")
        paths = [switch.path(f"quiet{i}.sock") for i in range(2)]
        for i in range(2):
            switch.weirctl("port", "add", f"quiet{i}", "--network", "blue", "--path", paths[i])
        with Guest(f"path={paths[0]},server=1", f"path={paths[1]},server=1,size=1024") as guest:
            guest.ready()
            for i in range(2):
                guest.capture(i, False)
            guest.tx(1, frame(2, 1))
            guest.tx(0, frame(1, 2))
            wait_for(lambda: guest.count(0)["rx"] and guest.count(1)["rx"], 10, "the guests to know each other")
            pauses = Pauses(switch, guest)
            quiet.place(switch.daemon.pid, [int(t.name) for t in pauses.workers])
            quiet.place(switch.database.pid)
            quiet.place(guest.process.pid)
            for task in Path(f"/proc/{guest.process.pid}/task").iterdir():
                os.sched_setscheduler(int(task.name), os.SCHED_FIFO, os.sched_param(10))  # it sleeps between looks
            guest.blast(0, 0, flow(frame), rate=RATE, vary=[(14, 4)], stamp=PROBE)
            time.sleep(0.5)
            for _ in range(args.rounds):
                come_and_go(switch, pauses, args.ports, driver)
            guest.blast(0, 0, flow(frame), rate=0)
            time.sleep(0.2)
            stats = {p["port"]: p for p in json.loads(switch.unixctl("port/stats", "--json"))}
            result = pauses.figures()
            result.update(sent=stats["quiet0"]["rx_packets"], lost=stats["quiet0"]["dropped"] + stats["quiet1"]["tx_dropped"],
                          own_worst_ms=round(pauses.own(), 2))
            if args.all:
                result["each"] = pauses.changes
            return result


def main(argv):
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--build", default=os.environ.get("WEIR_BUILD", str(HERE.parents[1] / "build")))
    a.add_argument("--cpus", default="1,0", metavar="WORKER,OTHERS", type=lambda s: [int(c) for c in s.split(",")])
    a.add_argument("--ports", type=int, default=50)
    a.add_argument("--rounds", type=int, default=1)
    a.add_argument("--all", action="store_true", help="every change, not only those whose gap was long")
    args = a.parse_args(argv)
    os.environ["WEIR_BUILD"] = args.build
    try:
        print(json.dumps(measure(args), indent=1))
        return 0
    except (OSError, subprocess.SubprocessError, TimeoutError) as e:
        print(f"pauses: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
