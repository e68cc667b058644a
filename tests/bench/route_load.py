#!/usr/bin/python3
"""How long a million routes take, by file and from the kernel, and what memory: figures of docs/performance.md.

    tests/bench/route_load.py [ROUTES]

Prints a line for each load: routes, seconds, MB of PSS before and after, and the longest time that another verb waited meanwhile.
"""

import json
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "functional"))

from net import Lab, run, wait_for  # noqa: E402


def pss(pid):
    """MB of the process' own share of memory."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0


def cpu(pid):
    """Seconds of processor time of the main thread."""
    fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def prefixes(n, v6_share, seed=1):
    """Prefixes with lengths as in a table of the Internet: most IPv4 ones of 24 bits, most IPv6 ones of 48."""
    pick, seen = random.Random(seed), set()
    while len(seen) < n:
        if pick.random() < v6_share:
            length = 48 if pick.random() < 0.5 else pick.randrange(32, 49)
            value = (0x2000 << 112 | pick.getrandbits(125)) >> (128 - length) << (128 - length)
            seen.add((6, value, length))
        else:
            length = 24 if pick.random() < 0.6 else pick.randrange(16, 25)
            value = (pick.randrange(1 << 24, 224 << 24)) >> (32 - length) << (32 - length)
            if value >> 24 not in (10, 127):
                seen.add((4, value, length))
    return list(seen)


def text(p):
    import socket
    family, value, length = p
    packed = value.to_bytes(16 if family == 6 else 4, "big")
    return f"{socket.inet_ntop(socket.AF_INET6 if family == 6 else socket.AF_INET, packed)}/{length}"


def gateway(p, i):
    return f"2001:db8::{2 + i % 100:x}" if p[0] == 6 else f"10.0.0.{2 + i % 100}"


class Pinger(threading.Thread):
    """Asks for something short all the time, and notes how long the worst answer took."""

    def __init__(self, lab):
        super().__init__(daemon=True)
        self.lab, self.worst, self.stop = lab, 0.0, False

    def run(self):
        while not self.stop:
            begin = time.monotonic()
            self.lab.unixctl("version")
            self.worst = max(self.worst, time.monotonic() - begin)
            time.sleep(0.002)


def measure(lab, what, load, n):
    before, cpu_before = pss(lab.daemon.pid), cpu(lab.daemon.pid)
    pinger = Pinger(lab)
    pinger.start()
    begin = time.monotonic()
    load()
    took = time.monotonic() - begin
    pinger.stop = True
    pinger.join()
    print(json.dumps({"what": what, "routes": n, "seconds": round(took, 2), "main_thread_cpu_s": round(cpu(lab.daemon.pid) - cpu_before, 2),
                      "pss_before_mb": round(before), "pss_after_mb": round(pss(lab.daemon.pid)), "worst_answer_ms": round(pinger.worst * 1000, 1)}), flush=True)


def sources(lab):
    return {s["source"].split()[0]: s for s in lab.weirctl("route", "sources", json=True)}


def main():
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1000000
    with Lab() as lab, tempfile.TemporaryDirectory() as folder:
        run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0", "net.ipv6.conf.default.disable_ipv6=0", "net.ipv6.route.max_size=4000000")
        lab.network("blue")
        router = lab.weirctl("create", "Router", "name=r").split()[-1]
        blue = lab.weirctl("get", "Network", "blue", "_uuid").strip()
        lab.weirctl("create", "Router_Port", "name=r-a", f"router={router}", f"network={blue}", 'addresses=["10.0.0.1/24","2001:db8::1/64"]')
        empty = Path(folder) / "empty"
        empty.write_text("")
        for what, share in (("IPv4", 0), ("IPv4 and a fifth IPv6", 0.2)):
            routes = prefixes(n, share)
            path = Path(folder) / "routes"
            path.write_text("".join(f"{text(p)} via {gateway(p, i)}\n" for i, p in enumerate(routes)))
            measure(lab, f"file, {what}", lambda: lab.weirctl("route", "load", path, "--router", "r", limit=300), n)
            measure(lab, f"the same file again, {what}", lambda: lab.weirctl("route", "load", path, "--router", "r", limit=300), n)
            measure(lab, "an empty file", lambda: lab.weirctl("route", "load", empty, "--router", "r", limit=300), 0)
        run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
        for name in ("up0", "up1"):
            run("ip", "link", "set", name, "up")
        run("ip", "addr", "add", "10.0.0.99/24", "dev", "up0")
        run("ip", "-6", "addr", "add", "2001:db8::99/64", "dev", "up0", "nodad")
        batch = Path(folder) / "batch"
        batch.write_text("".join(f"route add {text(p)} via {gateway(p, i)} table 100\n" for i, p in enumerate(routes)))
        begin = time.monotonic()
        run("ip", "-batch", batch, limit=300)
        print(f"the kernel took {time.monotonic() - begin:.1f} s for its own", flush=True)

        def follow():
            lab.weirctl("set", "Router", router, "other_config:netlink-table=100")
            wait_for(lambda: "kernel" in sources(lab) and sources(lab)["kernel"]["state"] == "following", 300, "the kernel's routes")

        measure(lab, f"kernel, {what}", follow, n)
        print(sources(lab)["kernel"], flush=True)

        # All of them change while the switch follows.
        batch.write_text("".join(f"route replace {text(p)} via {gateway(p, i + 1)} table 100\n" for i, p in enumerate(routes) if p[0] == 4))
        changed = sum(p[0] == 4 for p in routes)
        before = sources(lab)["kernel"]

        def change():
            begin = time.monotonic()
            run("ip", "-batch", batch, limit=300)
            print(f"the kernel took {time.monotonic() - begin:.1f} s for {changed} changes", flush=True)
            last = [p for p in routes if p[0] == 4][-1]
            index = max(i for i, p in enumerate(routes) if p == last)
            wait_for(lambda: lab.ask("route/lookup", "r", text(last).split("/")[0])["next_hop"] == f"via {gateway(last, index + 1)} dev r-a", 300, "the last change")

        measure(lab, "changes in the kernel", change, changed)
        print(before, sources(lab)["kernel"], flush=True)


if __name__ == "__main__":
    main()
