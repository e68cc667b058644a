"""The bench itself: its rows, the packet path alone, and that its generator moves packets through a switch. No figure is checked: see tests/bench."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("WEIR_BUILD", ROOT / "build")).absolute()
sys.path.insert(0, str(ROOT / "tests/bench"))

from net import SLOW, sanitized  # noqa: E402
import plot  # noqa: E402
from rows import ROWS, mix_words, records  # noqa: E402

FASTPATH = BUILD / "tests/bench/fastpath"


def run(*command, limit=120, skip=None):
    done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=limit * SLOW, env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
    if skip and done.returncode and skip in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_list():
    text = run(ROOT / "scripts/bench", "--list")
    for row in ROWS:
        assert row in text
    assert "testpmd" in text and "ovs" in text


def test_refusals():
    for words, says in ((["nonsense"], "no row nonsense"), ([], "which rows?"), (["l2-64", "--peers", "nobody"], "no peer nobody"),
                        (["l2-64", "--plot", "x.png"], "svg")):
        done = subprocess.run([ROOT / "scripts/bench", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
        assert done.returncode == 1 and says in done.stderr, done.stderr


def test_rows():
    for name, row in ROWS.items():
        assert row["title"] and set(row["mix"]) >= {"flows", "macs", "bytes"}, name
        assert all(ratio > 0 for ratio in row["asked"].values())
    assert mix_words("resolve-l2").count("random=pairs") == 1
    assert records("l2-64") == 64 and records("l2-100k") == 128 and records("l2-100k-macs") == 100000 and records("resolve-l2") == 0


@pytest.mark.parametrize("options, flows", [(["--flows", "64"], 64), (["--flows", "5000", "--macs", "0"], 5000), (["--flows", "5000"], 128),
                                            (["--bytes", "1514"], 64), (["--kind", "route"], 64), (["--kind", "vxlan"], 64),
                                            (["--kind", "route", "--flows", "5000", "--routes", "10000"], 5000),
                                            (["--kind", "l2v6"], 64), (["--kind", "route6"], 64), (["--kind", "vxlan6"], 64),
                                            (["--kind", "route6", "--flows", "5000", "--routes", "10000"], 5000),
                                            (["--tagged"], 64), (["--kind", "route", "--tagged"], 64), (["--kind", "route6", "--tagged"], 64)])
def test_fastpath(options, flows):
    got = json.loads(run(FASTPATH, "--packets", "10000", "--repeat", "1", "--json", *options))
    assert got["forwarded"] == got["packets"] == 10016  # whole bursts
    assert got["flows"] == flows and got["dropped"] == 0 and 0 < got["cycles_best"] <= got["cycles_median"]


@pytest.mark.parametrize("kind", ["pairs", "source"])
def test_fastpath_resolves(kind):
    got = json.loads(run(FASTPATH, "--packets", "10000", "--repeat", "1", "--json", "--random", kind, "--macs", "2048"))
    assert got["forwarded"] + got["dropped"] >= got["packets"] and got["resolved"] > 10000


def test_pingpong():
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two processors are needed")
    a, b = sorted(os.sched_getaffinity(0))[:2]
    got = json.loads(run(BUILD / "tests/bench/pingpong", a, b, 100))
    assert 0 < got["best_ns"] <= got["ns"] and got["batches"] > 0


def need_a_bench():
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two processors are needed")
    if sanitized():
        pytest.skip("hugepages and sanitizers don't go together")
    if os.geteuid() or not Path("/sys/kernel/mm/hugepages/hugepages-2048kB").exists():
        pytest.skip("root and hugepages are needed")
    worker, other = sorted(os.sched_getaffinity(0))[1::-1]
    return f"{worker},{other}"


def test_pressure():
    """A quiet pair beside an attacker; and a change of profile. Both lose nothing on the way through the switch."""
    cpus = need_a_bench()
    got = json.loads(run(ROOT / "tests/bench/pressure.py", "attack", "--build", BUILD, "--cpus", cpus, "--nice", "0", "--runs", "1", "--seconds", "0.5",
                         "--warm", "0.2", "--probe", "2000", skip="the kernel has no memory"))
    for name in ("alone", "attacked"):
        assert 0 < got[name]["received"] <= got[name]["sent"] and got[name]["median_us"] <= got[name]["p99_us"]
    assert got["attacked"]["resolved_mpps"] > 0 == got["alone"]["resolved_mpps"]
    got = json.loads(run(ROOT / "tests/bench/pressure.py", "profile", "--build", BUILD, "--cpus", cpus, "--nice", "0", "--runs", "1", "--seconds", "0.5",
                         "--warm", "0.2", "--flows", "10000", "--load", "0.2"))
    assert [c["resolved"] > 0 for c in got["changes"]] == [True] * 4 and got["changes"][0]["resolved"] >= 10000
    assert not [reason for reason in got["drops"] if " tx." not in reason], got


@pytest.mark.parametrize("row", ["l2-64", "l2v6-64", "route-64", "route6-64", "vxlan-64", "vxlan6-64", "tso-64k"])
def test_packets_move(row, tmp_path):
    """One short window with Weir alone, of whatever quality, and what is made of it."""
    cpus = need_a_bench()
    text = run(ROOT / "scripts/bench", row, "--peers", "weir", "--build", BUILD, "--no-build", "--runs", "1", "--seconds", "1", "--warm", "0.2",
               "--nice", "0", "--any", "--cpus", cpus, "--json", tmp_path / "x.json", "--plot", tmp_path / "x.svg",
               skip="the kernel has no memory")
    assert row in text and "weir" in text
    result = json.loads((tmp_path / "x.json").read_text())
    window, = result["rows"][row]["peers"]["weir"]["windows"]
    assert window["mpps"] > 0 and min(window["received"]) > 0
    if row.startswith(("route", "vxlan")):  # whose routers say something of their own now and then
        assert window["checked"] > 0 == window["wrong"] and max(window["other"]) < 100
        assert row.startswith("route") or window["ports"] > 1  # UDP source ports of the tunnel, of some of the 32 conversations
    else:
        assert window["other"] == [0, 0]
    assert sum(window["received"]) <= sum(window["sent"]) + 8192  # what was under way when the window began
    assert len(window["threads"]) == 2 and window["samples_mpps"] and window["facts"]["rx_packets"] > 0
    assert (tmp_path / "x.svg").read_text().startswith("<svg") and plot.svg(result) == (tmp_path / "x.svg").read_text()
    assert text.strip() == run(ROOT / "scripts/bench", "--from", tmp_path / "x.json").strip()
