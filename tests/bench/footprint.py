#!/usr/bin/python3
"""What the switch costs when nothing happens: processor time, memory, and how fast it wakes up.

    tests/bench/footprint.py [--json] [--huge] [--seconds N] [--ports N]

WEIR_BUILD names the build folder (default build/, which should be a release). Needs root. The processor time is the daemon's
alone; memory is its PSS, which counts shared pages by their share, without the memory of guests, which isn't the switch's.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "functional"))

from net import Lab, wait_for  # noqa: E402
from vguest import Guest  # noqa: E402

TICK = os.sysconf("SC_CLK_TCK")
BUFFER = 128 + 64 + 128 + 2048  # bytes of a packet buffer: mbuf, its private area, headroom, data


def pss(pid):
    """(KB of all mappings, KB of those that are guests' memory: shared with another process and not DPDK's own)."""
    total = guests = 0
    shared = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and len(words[0]) > 16:
            shared = len(words) > 5 and ("memfd:" in line or "/hugefile" in line or "virtio" in line) and "rtemap" not in line and "seg_" not in line
        elif words[0] == "Pss:":
            total += int(words[1])
            guests += int(words[1]) if shared else 0
    huge = sum(int(line.split()[1]) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if "Hugetlb" in line)
    return total - guests, huge


def cpu(pid):
    """Seconds of processor time, by thread name."""
    times = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            text = (task / "stat").read_text()
            name = text[text.index("(") + 1:text.rindex(")")]
            ns = int((task / "schedstat").read_text().split()[0])
            times[name] = times.get(name, 0) + ns / 1e9
    return times


def idle(lab, seconds):
    """Percent of one core over the time, in total and by thread, after a moment to come to rest."""
    time.sleep(2)
    before, start, workers = cpu(lab.daemon.pid), time.monotonic(), lab.ask("worker/list")
    time.sleep(seconds)
    after, span = cpu(lab.daemon.pid), time.monotonic() - start
    by_thread = {name: round(100 * (after[name] - before.get(name, 0)) / span, 2) for name in after if after[name] - before.get(name, 0) > 0.0005}
    ends = lab.ask("worker/list")
    return {"percent": round(100 * (sum(after.values()) - sum(before.values())) / span, 2), "threads": by_thread,
            "rounds_per_second": round((ends[0]["iterations"] - workers[0]["iterations"]) / span),
            "sleeps_per_second": round((ends[0]["blocks"] - workers[0]["blocks"]) / span, 1),
            "wakeup_us": ends[0]["wakeup_us"], "wakeup_max_us": ends[0]["wakeup_max_us"]}


def memory(huge, ports):
    """PSS without ports and what ports add, each kind in a switch of its own."""
    result = {}
    for kind in ("vhost-user", "tap"):
        with Lab(huge=huge) as lab:
            lab.network("blue")
            time.sleep(1)
            empty, huge_kb = pss(lab.daemon.pid)
            result["pss_no_ports_mb"], result["hugepages_mb"] = round(empty / 1024, 1), round(huge_kb / 1024, 1)
            count = ports
            words = []
            for n in range(count):
                words += [*(["--"] if words else []), "port", "add", f"p{n}", "--type", kind, "--network", "blue"]
            lab.weirctl(*words)
            time.sleep(1)
            full, _ = pss(lab.daemon.pid)
            result[f"pss_per_{kind}_port_kb"] = round((full - empty) / count, 1)
            result[f"{kind}_ports"] = count
    return result


def connected(lab, count=4):
    """Guests on `count` ports, connected and silent."""
    lab.network("blue")
    guests = []
    for n in range(count):
        lab.weirctl("port", "add", f"vm{n}", "--network", "blue")
        guests.append(Guest(f"path={lab.path(f'vm{n}.sock')},server=1"))
    for n, guest in enumerate(guests):
        guest.ready()
        wait_for(lambda n=n: lab.port(f"vm{n}")["link_state"] == "up", 20, f"vm{n} to be connected")
    return guests


def measure(huge, seconds, ports):
    result = memory(huge, ports)
    with Lab(huge=huge) as lab:
        result["idle_no_ports"] = idle(lab, seconds)
    with Lab(huge=huge) as lab:
        lab.network("blue")
        for n in range(4):
            lab.weirctl("port", "add", f"t{n}", "--type", "tap", "--network", "blue")
        result["idle_4_taps"] = idle(lab, seconds)
    with Lab(huge=huge) as lab:
        before, _ = pss(lab.daemon.pid)
        guests = connected(lab)
        result["idle_4_vhost"] = idle(lab, seconds)
        after, _ = pss(lab.daemon.pid)
        result["pss_per_connected_vhost_port_kb"] = round((after - before) / 4, 1)
        for guest in guests:
            guest.quit()
    return result


def show(name, value, indent=0):
    if isinstance(value, dict):
        print(f"{' ' * indent}{name}:")
        for key, inner in value.items():
            show(key, inner, indent + 2)
    else:
        print(f"{' ' * indent}{name:<34} {value}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--huge", action="store_true", help="with hugepages, of which some must be reserved")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--ports", type=int, default=32)
    options = parser.parse_args()
    result = {"hugepages": options.huge, **measure(options.huge, options.seconds, options.ports)}
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        for key, value in result.items():
            show(key, value)


if __name__ == "__main__":
    main()
