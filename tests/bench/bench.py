#!/usr/bin/python3
"""The bench: what one worker of Weir forwards, beside other switches, on the same processors in the same minutes. See README.md."""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "integration")]

import plot  # noqa: E402
from lab import SwitchError  # noqa: E402
from peers import OTHERS, Weir  # noqa: E402
from process import PAGES, BenchError, Generator, Hugepages, busiest_on, confine, pingpong, wait_until  # noqa: E402
from rows import ROWS, fastpath_options, mix_words, records  # noqa: E402

GENERATOR_PAGES = 160
NEAR_NS = 250           # a round trip below is between near processors
FAR_NS = 3000           # and one above says only that somebody else used them meanwhile
MOST_WAITED = 0.02      # of a window that generator and worker may have waited for a processor
MOST_GAPS = 0.02        # of a window that the generator's rounds may have been interrupted
MOST_SPARED = 0.06      # of a window for both, of a generator that found the rings full nine times of ten: it missed nothing that the switch would have taken
SPARE = 0.9
ROUNDS = 3              # times the number of runs, until each peer has enough good windows of one placement
MOST_ERRORS = 3         # after which a peer is left out of a row
FULL = 0.05             # of the offers of packets that a ring must have refused for the switch to be the limit
BUILDS = {"weir": "native", "weir-baseline": ""}  # peers that are builds of Weir, and the processor that they are for


def parse_arguments(argv):
    p = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("rows", nargs="*", metavar="ROW", help="rows to run, or all of a kind: l2 for l2-64, l2-100k, ...; --list names them")
    p.add_argument("--list", action="store_true", help="name the rows and the peers")
    p.add_argument("--peers", metavar="NAME,...", help="switches to run (default: all; weir alone needs no package)")
    p.add_argument("--weir", action="append", default=[], metavar="NAME=FOLDER",
                   help="one more peer: Weir from another build folder, to hold two states of it against each other (may be repeated)")
    p.add_argument("--trace", type=int, metavar="N", help="one more peer, weir-trace: the peer weir while weirctl trace --sample 1/N looks on")
    p.add_argument("--build", default=str(ROOT / "build-bench"), metavar="FOLDER", help="build folder of the peer weir (default build-bench)")
    p.add_argument("--no-build", action="store_true", help="take what is in the build folders")
    p.add_argument("--runs", type=int, default=5, help="good windows of each peer and row (default 5)")
    p.add_argument("--seconds", type=float, default=2, help="length of a window (default 2)")
    p.add_argument("--warm", type=float, default=1.5, help="seconds of traffic before it (default 1.5)")
    p.add_argument("--tries", type=int, default=4, help="windows at most for a good one (default 4)")
    p.add_argument("--pairs", metavar="A,B", help="also: how much slower A is than B, from rounds in which both have a good window of one placement")
    p.add_argument("--any", action="store_true", help="keep windows of bad quality as well, marked; for trying out, not for figures")
    p.add_argument("--placement", choices=["near", "far"], help="keep windows of this placement only (default: that of most windows of a row)")
    p.add_argument("--cpus", default="1,0", metavar="WORKER,GENERATOR", help="processors (default 1,0)")
    p.add_argument("--nice", type=int, default=-20, help="priority of generator and worker (default -20)")
    p.add_argument("--rate", type=int, default=0, metavar="PPS", help="packets a second and side (default: all that the rings take)")
    p.add_argument("--devargs", metavar="ARGS", help="of the generator's ports, such as packed_vq=1 (default queue_size=1024)",
                   default="queue_size=1024")
    p.add_argument("--json", metavar="FILE", help="all figures of all windows")
    p.add_argument("--plot", metavar="FILE", help="a picture, SVG")
    p.add_argument("--from", dest="source", metavar="FILE", help="measure nothing: print and plot a file of --json")
    p.add_argument("--instructions", action="store_true", help="instead: instructions per packet of the fast path, by function (valgrind)")
    return p.parse_args(argv)


def say(text):
    print(f"[{datetime.now():%H:%M:%S}] {text}", file=sys.stderr, flush=True)


# --- builds

def options_for(march):
    return ["--buildtype=release", "-Db_ndebug=true", "-Doptimization=3", f"-Dmarch={march}"]


def build(folder, march):
    say(f"building {folder}{' for ' + march if march else ''}")
    if subprocess.run([str(ROOT / "scripts/build"), str(folder), *options_for(march)]).returncode:
        raise BenchError(f"{folder} can't be built")


def instructions(args):
    """Instructions per packet of each row; a processor that valgrind knows, and debug information."""
    folder = Path(args.build + "-count")
    if not args.no_build:
        say(f"building {folder}, of it what is counted")
        if not (folder / "build.ninja").exists():
            subprocess.run(["meson", "setup", str(folder), str(ROOT), *options_for("x86-64-v3"), "-Dc_args=-g"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["ninja", "-C", str(folder), "tests/bench/fastpath"], check=True, stdout=subprocess.DEVNULL)
    for row in args.rows:
        print(f"{row}: {ROWS[row]['title']}")
        subprocess.run([str(HERE / "instructions.py"), str(folder / "tests/bench/fastpath"), "--packets", "50000", *fastpath_options(row)], check=True)
    return 0


# --- one window

class Session:
    """A peer between the two ports of the generator, from start to stop."""

    def __init__(self, bench, name, row):
        self.bench, self.name, self.row = bench, name, row
        self.rundir = tempfile.mkdtemp(prefix="weir-bench-", dir="/tmp")
        self.peer = self.generator = None

    def __enter__(self):
        try:
            b, args = self.bench, self.bench.args
            self.peer = b.make_peer(self.name, self.rundir)
            self.generator = Generator(b.program("gen"), self.rundir, b.cpus[1], args.nice,
                                       args.devargs + (",tso=1" if ROWS[self.row]["mix"].get("tso") else "")).listening()
            self.peer.start(self.generator.paths, ROWS[self.row]["mix"].get("kind", "l2"))
            self.generator.ready()
            found = []

            def worker():
                found[:] = [busiest_on(self.peer.pid, b.cpus[0])]
                return found[0]

            wait_until(worker, 10, f"{self.name} has no thread on processor {b.cpus[0]}")
            self.worker = found[0]
            confine(self.peer.pid, self.worker, b.cpus[1], args.nice)
            self.generator.ask("mix " + mix_words(self.row))
            routes = self.rundir + "/routes"
            self.peer.plan(self.generator.ask("plan " + routes), routes)
            learn = f"learn ask={int(self.peer.answers)}"
            learned = self.generator.ask(learn)
            limit = time.monotonic() + 15  # ports come up, and routers see first that nobody else has their addresses
            while learned["received"] < 0.9 * learned["sent"] and time.monotonic() < limit:
                time.sleep(0.2)
                learned = self.generator.ask(learn)
            if not learned["received"]:
                raise BenchError(f"{self.name} forwards nothing")
            return self
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise

    def __exit__(self, kind, *_):
        # The switch first: it has the generator's memory mapped.
        if self.peer:
            self.peer.stop()
        if self.generator:
            self.generator.stop()
        if kind is None or kind is KeyboardInterrupt:
            shutil.rmtree(self.rundir, ignore_errors=True)
        else:
            say(f"the logs are in {self.rundir}")

    def distance(self):
        """While the peer stands still."""
        pid = self.peer.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            return pingpong(self.bench.program("pingpong"), self.bench.cpus, self.bench.args.nice)
        finally:
            os.kill(pid, signal.SIGCONT)

    def window(self):
        args = self.bench.args
        self.peer.settle(self.generator, records(self.row), mix_words(self.row))
        before = self.distance()
        counted = self.peer.facts()
        began = time.monotonic()
        w = self.generator.ask(f"run seconds={args.seconds} warm={args.warm} rate={args.rate} watch={self.peer.pid}/{self.worker}",
                               limit=60 + args.seconds + args.warm)
        after = self.distance()
        w["round_trip_ns"] = [before, after]
        w["class"] = [("near" if ns < NEAR_NS else "far") for ns in (before, after)]
        w["mpps"] = sum(w["received"]) / w["seconds"] / 1e6
        w["cycles_per_packet"] = w["tsc_hz"] / w["mpps"] / 1e6 if w["mpps"] else None
        w["full_share"] = [f / o if o else 0 for f, o in zip(w["full"], w["offers"])]
        w["limit"] = "switch" if min(w["full_share"]) > FULL else "rate" if args.rate else "generator"
        w["facts"] = self.peer.facts()
        # Over the whole run, warm-up included: it was the same all the time.
        w["counted"] = {k: (w["facts"][k] - counted[k]) / (args.warm + args.seconds) for k in ROWS[self.row].get("counts", {}) if k in counted}
        w["took"] = time.monotonic() - began
        w["problems"] = problems(w)
        if args.placement and args.placement != w["class"][0]:
            w["problems"].append(f"placement is {w['class'][0]}")
        if self.peer.rewrites and w["wrong"]:
            raise BenchError(f"{self.name}: of {w['checked']} packets {w['wrong']} came back wrong: {w['what_is_wrong']}")
        missed = w["facts"].get("misses", 0) - counted.get("misses", 0)
        if records(self.row) and missed > 0.001 * w["sent_in_all"]:
            w["problems"].append(f"{self.name} had forgotten {missed} flows")
        return w


def problems(w):
    """Why a window is worth nothing."""
    found = []
    spare = min(w["full_share"]) > SPARE
    for thread, who, most in zip(w["threads"], ("generator", "worker"), (MOST_SPARED if spare else MOST_WAITED, MOST_WAITED)):
        # Whoever neither ran nor waited slept of its own will, as a switch does that waits for a lock of its own.
        if thread["waited"] > most:
            found.append(f"{who} waited {thread['waited']:.0%}")
    if w["steal"] > MOST_WAITED * w["seconds"]:
        found.append(f"stolen {w['steal']:.2f} s")
    if w["gaps_us"] > (MOST_SPARED if spare else MOST_GAPS) * w["seconds"] * 1e6:
        found.append(f"interrupted for {w['gaps_us'] / 1000:.0f} ms")
    if max(w["round_trip_ns"]) > FAR_NS:
        found.append("placement not known")
    elif w["class"][0] != w["class"][1]:
        found.append("placement changed")
    return found


# --- figures

def median(values):
    values = sorted(values)
    n = len(values)
    return (values[n // 2] + values[(n - 1) // 2]) / 2 if n else None


def good_windows(entry, options):
    return [w for w in entry["windows"] if options["any"] or not w["problems"]]


def placement_of(row, options):
    """The class of processors that most good windows of the row were measured in, or the one that was asked for."""
    classes = [w["class"][0] for entry in row["peers"].values() for w in good_windows(entry, options)]
    return options.get("placement") or max(("near", "far"), key=classes.count)


def summarize(entry, placement, options):
    good = good_windows(entry, options)
    mine = [w for w in good if w["class"][0] == placement] or good
    if not mine:
        return None
    windows, placement = entry["windows"], mine[0]["class"][0]
    mpps = [w["mpps"] for w in mine]
    sent = sum(w["sent_in_all"] for w in mine)
    return {
        "placement": placement, "windows": len(mine), "other_windows": len(windows) - len(mine), "mpps": median(mpps),
        "mpps_min": min(mpps), "mpps_max": max(mpps), "spread": (max(mpps) - min(mpps)) / median(mpps) if median(mpps) else 0,
        "cycles_per_packet": median([w["cycles_per_packet"] or 0 for w in mine]),
        "limit": max({w["limit"] for w in mine}, key=[w["limit"] for w in mine].count),
        "full_share": median([min(w["full_share"]) for w in mine]),
        "lost_share": sum(w["lost"] for w in mine) / sent if sent else 0,
        "counted": {k: median([w["counted"][k] for w in mine]) for k in mine[0]["counted"]},
        "noisy": any(w["problems"] for w in mine),
    }


def summaries(result):
    for row in result["rows"].values():
        placement = placement_of(row, result["options"])
        for entry in row["peers"].values():
            entry["summary"] = summarize(entry, placement, result["options"])


def subjects(result):
    return [name for name, peer in result["peers"].items() if peer["weir"]]


def print_table(result, out=sys.stdout):
    for name, row in result["rows"].items():
        print(f"\n{name}: {row['title']}", file=out)
        weirs = [w for w in subjects(result) if row["peers"].get(w, {}).get("summary")]
        heads = "".join(f"{w + '/peer':>{max(13, len(w) + 6)}}" for w in weirs)
        print(f"{'peer':<15}{'Mpps':>7}{'min':>8}{'max':>8}{'spread':>8}{'cycles':>8}  {'limit':<10}{'lost':>8}  {'placement':<11}{heads}", file=out)
        for peer, entry in row["peers"].items():
            s = entry["summary"]
            if peer in row.get("without", []):
                continue
            if not s:
                bad = entry["windows"][-1]["problems"] if entry["windows"] else [entry.get("error", "not run")]
                print(f"{peer:<15}{'-':>7}  no good window: {', '.join(bad)}", file=out)
                continue
            ratios = ""
            for w in weirs:
                mine = row["peers"][w]["summary"]
                same = mine["placement"] == s["placement"]
                text = f"{mine['mpps'] / s['mpps']:.2f}" if same and s["mpps"] and w != peer else "-" if w == peer else "other"
                asked = row["asked"].get(peer)
                if asked and same and w == "weir":
                    text += f" ({'>=' if mine['mpps'] / s['mpps'] >= asked else '<'}{asked})"
                ratios += f"{text:>{max(13, len(w) + 6)}}"
            mark = "!" if s["noisy"] else ""
            print(f"{peer:<15}{s['mpps']:>7.2f}{s['mpps_min']:>8.2f}{s['mpps_max']:>8.2f}{s['spread']:>8.1%}{s['cycles_per_packet']:>8.1f}  "
                  f"{s['limit']:<10}{s['lost_share']:>8.2%}  {s['placement'] + ' x' + str(s['windows']) + mark:<11}{ratios}", file=out)
            for key, rate in s["counted"].items():
                asked = row["counts"][key]
                verdict = f" ({'>=' if rate >= asked else '<'}{asked / 1e6:g})" if asked else ""
                print(f"{'':<15}{key}: {rate / 1e6:.2f} million a second{verdict}", file=out)
        for weir in weirs:
            for other, asked in row.get("of", {}).items():
                s, t = (result["rows"].get(r, {}).get("peers", {}).get(weir, {}).get("summary") for r in (name, other))
                if s and t:
                    ratio = s["mpps"] / t["mpps"]
                    text = "the placements differ" if s["placement"] != t["placement"] else f"{ratio:.2f} ({'>=' if ratio >= asked else '<'}{asked:g})"
                    print(f"{'':<15}{weir}, of its {other}: {text}", file=out)
    print("\nMpps: both directions together, received; cycles: of the time stamp counter per packet on the worker's processor, an upper bound where", file=out)
    print("the generator is the limit; lost: sent and not received; ratio: that of the medians, with what is asked of it.", file=out)
    if result["options"]["any"]:
        print("! some windows were of bad quality and are in the figures: not for comparing.", file=out)


def t_quantile(df):
    """Of Student's distribution, two-sided 95 %; Abramowitz and Stegun 26.7.5."""
    z = 1.959964
    return z + (z ** 3 + z) / (4 * df) + (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * df ** 2)


def print_pairs(result, out=sys.stdout):
    """How much slower the first of two peers is, with a 95 % interval, from windows of the same round."""
    names = result["options"]["pairs"].split(",")
    for name, row in result["rows"].items():
        windows = [{w["round"]: w for w in good_windows(row["peers"][n], result["options"])} for n in names]
        both = [(windows[0][k], windows[1][k]) for k in windows[0] if k in windows[1] and windows[0][k]["class"] == windows[1][k]["class"]]
        slower = [1 - a["mpps"] / b["mpps"] for a, b in both]
        n = len(slower)
        if n < 3:
            print(f"{name}: {n} pairs are too few", file=out)
            continue
        mean = sum(slower) / n
        wide = t_quantile(n - 1) * (sum((s - mean) ** 2 for s in slower) / (n - 1) / n) ** 0.5
        print(f"{name}: {names[0]} forwards {mean:.2%} fewer packets than {names[1]}, 95 % interval {mean - wide:.2%} to {mean + wide:.2%}, "
              f"{n} pairs, median {median(slower):.2%}", file=out)


# --- a run of rows

class Bench:
    def __init__(self, args):
        self.args = args
        self.cpus = [int(c) for c in args.cpus.split(",")]
        self.weirs = {"weir": args.build, "weir-baseline": args.build + "-baseline"}
        self.weirs.update(w.split("=", 1) for w in args.weir)
        self.weirs = {name: str(Path(folder).absolute()) for name, folder in self.weirs.items()}
        if args.trace:
            self.weirs["weir-trace"] = args.build
        known = {**self.weirs, **OTHERS}
        self.names = args.peers.split(",") if args.peers else list(known)
        self.names += [n for n in [*(w.split("=", 1)[0] for w in args.weir), *(["weir-trace"] if args.trace else [])] if n not in self.names]
        unknown = [n for n in self.names if n not in known] + [n for n in (args.pairs or "").split(",") if n and n not in self.names]
        if unknown:
            raise BenchError(f"no peer {', '.join(unknown)}: {', '.join(known)}")

    def program(self, name):
        return Path(self.args.build) / "tests/bench" / name

    def make_peer(self, name, rundir):
        if name in self.weirs:
            return Weir(rundir, self.cpus, self.weirs[name], self.args.trace if name == "weir-trace" else None)
        return OTHERS[name](rundir, self.cpus)

    def prepare(self):
        if os.geteuid() != 0:
            raise BenchError("this needs root: hugepages, priorities")
        if not set(self.cpus) <= os.sched_getaffinity(0) or len(set(self.cpus)) != 2:
            raise BenchError(f"processors {self.cpus} are not two that this may run on: --cpus")
        if not self.args.no_build:
            build(self.args.build, "native")
            if "weir-baseline" in self.names:
                build(self.weirs["weir-baseline"], BUILDS["weir-baseline"])
        if any(n in OTHERS for n in self.names):
            subprocess.run([str(ROOT / "scripts/install-deps"), "run", "bench"], check=True)

    def describe(self):
        def text(*command):
            try:
                return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip()
            except OSError:
                return ""

        model = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
        return {"time": datetime.now(timezone.utc).isoformat(timespec="seconds"), "processor": model[0] if model else "",
                "processors": os.cpu_count(), "kernel": platform.release(), "commit": text("git", "rev-parse", "--short=12", "HEAD"),
                "changed": bool(text("git", "status", "--porcelain", "--untracked-files=no")),
                "dpdk": text("pkg-config", "--modversion", "libdpdk"),
                "hugepages": int((PAGES / "nr_hugepages").read_text()), "load": os.getloadavg()[0]}

    def visit(self, row, name, entry, nth):
        """One good window, if it can be had."""
        try:
            with Session(self, name, row) as session:
                for _ in range(self.args.tries):
                    w = session.window()
                    w["round"] = nth
                    entry["windows"].append(w)
                    say(f"{row:<18} {name:<14} {w['mpps']:6.2f} Mpps  {w['limit']:<9} {w['class'][0]:<4} {w['round_trip_ns'][0]:.0f} ns"
                        + (f"  thrown away: {', '.join(w['problems'])}" if w["problems"] and not self.args.any
                           else f"  bad: {', '.join(w['problems'])}" if w["problems"] else ""))
                    if self.args.any or not w["problems"]:
                        return
        except (BenchError, SwitchError, OSError, subprocess.SubprocessError) as e:
            entry["error"] = str(e)
            entry["errors"] = entry.get("errors", 0) + 1
            say(f"{row} {name}: {e}")

    def run(self):
        args = self.args
        result = {"machine": self.describe(), "options": {**vars(args)}, "peers": {n: {"weir": n in self.weirs} for n in self.names},
                  "rows": {r: {**ROWS[r], "peers": {n: {"windows": []} for n in self.names}} for r in args.rows}}
        pages = GENERATOR_PAGES + max(OTHERS[n].pages if n in OTHERS else Weir.pages for n in self.names)
        def missing(row, name):
            it = result["rows"][row]
            if it["peers"][name].get("errors", 0) >= MOST_ERRORS or name in it.get("without", []):
                return 0
            placement = placement_of(it, result["options"])
            return args.runs - sum(w["class"][0] == placement for w in good_windows(it["peers"][name], result["options"]))

        with Hugepages(pages):
            try:
                for i in range(ROUNDS * args.runs):
                    todo = {row: [n for n in self.names if missing(row, n) > 0] for row in args.rows}
                    if not any(todo.values()):
                        break
                    began, visits = time.monotonic(), 0
                    for row, names in todo.items():
                        # Alternated, and another one first each time.
                        for k in range(len(names)):
                            name = names[(i + k) % len(names)]
                            self.visit(row, name, result["rows"][row]["peers"][name], i)
                            visits += 1
                    left = sum(max(0, missing(row, n)) for row in args.rows for n in self.names)
                    say(f"round {i + 1} is done; {left} windows are still to be had, about {(time.monotonic() - began) / visits * left / 60:.0f} min")
            except KeyboardInterrupt:
                say("interrupted; what there is:")
        summaries(result)
        return result


def chosen(words):
    rows = []
    for word in words:
        some = [r for r in ROWS if r == word] or [r for r in ROWS if r.startswith(word + "-")]
        if not some:
            raise BenchError(f"no row {word}: scripts/bench --list")
        rows += [r for r in some if r not in rows]
    return rows


def main(argv):
    args = parse_arguments(argv)
    try:
        if args.list:
            for name, row in ROWS.items():
                print(f"{name:<20} {row['title']}")
            print("\npeers: " + ", ".join([*BUILDS, *OTHERS]))
            return 0
        if args.plot and not args.plot.endswith(".svg"):
            raise BenchError("--plot writes SVG: give it a name that ends with .svg")
        if args.source:
            result = json.loads(Path(args.source).read_text())
            summaries(result)
        else:
            args.rows = chosen(args.rows)
            if not args.rows:
                raise BenchError("which rows? scripts/bench --list names them")
            signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
            if args.instructions:
                args.rows = [row for row in args.rows if "tso" not in ROWS[row]["mix"]]  # which is for devices
                return instructions(args)
            bench = Bench(args)
            bench.prepare()
            result = bench.run()
        if args.json:
            Path(args.json).write_text(json.dumps(result, indent=1) + "\n")
        if args.plot:
            Path(args.plot).write_text(plot.svg(result))
        print_table(result)
        if args.pairs:
            result["options"]["pairs"] = args.pairs
            print_pairs(result)
        return 0
    except (BenchError, SwitchError, OSError, subprocess.CalledProcessError) as e:
        print(f"bench: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
