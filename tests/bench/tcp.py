#!/usr/bin/python3
"""TCP between two QEMU guests with TSO: Weir beside OVS-DPDK with its TSO on, in alternated pairs. See README.md.

    tests/bench/tcp.py [--pairs 9] [--seconds 5] [--build FOLDER] [--json FILE]
"""

import argparse
import json
import os
import random
import sys
import tempfile
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "integration")]

from guest import Guest, GuestError, Nic, boot, iperf  # noqa: E402
from lab import SwitchError  # noqa: E402
from peers import Ovs, Weir  # noqa: E402
from process import BenchError, Hugepages  # noqa: E402
from wait import Timeout  # noqa: E402


class OvsTso(Ovs):
    what = "OVS-DPDK as Debian packages it, with userspace-tso-enable"
    settings = {"userspace-tso-enable": "true"}


class SleepyOvs(OvsTso):
    what = "the same, with a worker that may sleep for 500 us"
    settings = {**OvsTso.settings, "pmd-maxsleep": "500"}


class AdaptiveWeir(Weir):
    """As it comes: its worker sleeps when there is nothing to do. OVS' worker polls all the time, which is how it comes."""

    def start(self, paths, kind):
        super().start(paths, kind)
        self.switch.weirctl("config", "set", "poll=adaptive")


def measure(peer, rundir, seconds):
    """Mbit/s of one start of the switch and of both guests, which must have TSO."""
    paths = [f"{rundir}/vm{i}.sock" for i in (1, 2)]
    guests = [Guest(f"vm{i}", rundir, [Nic(path)]) for i, path in zip((1, 2), paths)]
    try:
        for guest in guests:
            guest.start()  # its QEMU waits for the switch
        peer.start(paths, "l2")
        boot(guests)
        for i, guest in enumerate(guests):
            guest.configure(f"10.1.0.{i + 1}/24")
            features = guest.sh("ethtool -k eth0")
            if "tcp-segmentation-offload: on" not in features:
                raise BenchError(f"{guest.name} has no TSO:\n{features}")
        guests[0].wait_ping("10.1.0.2")
        iperf(*guests, "10.1.0.2", 1)
        return iperf(*guests, "10.1.0.2", seconds)
    finally:
        for guest in guests:
            guest.stop()
        peer.stop()


def main(argv):
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--build", default=os.environ.get("WEIR_BUILD", str(HERE.parents[1] / "build-bench")))
    a.add_argument("--cpus", default="1,0", metavar="WORKER,OTHERS")
    a.add_argument("--pairs", type=int, default=9)
    a.add_argument("--seconds", type=float, default=5)
    a.add_argument("--busy", action="store_true", help="Weir's worker polls all the time too")
    a.add_argument("--ovs-sleep", action="store_true", help="the worker of OVS may sleep")
    a.add_argument("--json", metavar="FILE")
    args = a.parse_args(argv)
    cpus = [int(c) for c in args.cpus.split(",")]
    pairs = []
    try:
        with Hugepages(Ovs.pages):
            for n in range(args.pairs):
                pair = {}
                for name in ("weir", "ovs") if n % 2 else ("ovs", "weir"):
                    with tempfile.TemporaryDirectory(prefix="weir-tcp-", dir="/tmp") as rundir:
                        peer = (SleepyOvs if args.ovs_sleep else OvsTso)(rundir, cpus) if name == "ovs" else (Weir if args.busy else AdaptiveWeir)(rundir, cpus, Path(args.build).absolute())
                        pair[name] = measure(peer, rundir, args.seconds)
                pairs.append({**pair, "ratio": pair["weir"] / pair["ovs"]})
                print(f"pair {n + 1}: Weir {pair['weir']:.0f} Mbit/s, OVS-DPDK {pair['ovs']:.0f} Mbit/s, ratio {pairs[-1]['ratio']:.2f}", flush=True)
    except KeyboardInterrupt:
        pass
    except (BenchError, SwitchError, GuestError, Timeout, OSError) as e:
        print(f"tcp: {e}", file=sys.stderr)
        return 1
    if pairs:
        ratios = [p["ratio"] for p in pairs]
        # Of the median, without assumptions: resampled.
        draws = sorted(median(random.choices(ratios, k=len(ratios))) for _ in range(10000))
        print(f"median of {len(pairs)} pairs: ratio {median(ratios):.2f} (95 %: {draws[250]:.2f} to {draws[9750]:.2f}), "
              f"Weir {median(p['weir'] for p in pairs):.0f} Mbit/s, OVS-DPDK {median(p['ovs'] for p in pairs):.0f} Mbit/s")
    if args.json:
        Path(args.json).write_text(json.dumps(pairs, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
