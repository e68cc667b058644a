"""support-bundle: what is in it, that nobody's data are, and that it comes also from a switch that is in no state to help."""

import json
import re
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest

from net import BROADCAST, SLOW, Lab, frame, mac, wait_for

ROOT = Path(__file__).resolve().parents[2]
MARK = b"top-secret-of-a-guest"
# What the table of commands says is in it.
VERBS = {noun + ("-" + verb if verb else "") for noun, verb in
         re.findall(r'\{"([\w-]+)",\s*(?:"([\w-]+)"|NULL),[^{}]*?CONTROL,[^{}]*?\.bundle = true', (ROOT / "ctl/commands.c").read_text())}


@pytest.fixture
def lab():
    with Lab() as it:
        it.network("blue")
        for n, name in enumerate(("a", "b"), 1):
            it.tap(name, "--network", "blue", f"addresses={mac(n)}")
        yield it


def bundle(lab, folder, *options, wait=60):
    """{name in the bundle: bytes}, and what weirctl said."""
    target = folder / "bundle.tar.gz"
    said = lab.weirctl("--timeout", "4", "support-bundle", "-o", target, "--logdir", lab.rundir, *options, limit=wait * SLOW)
    assert [p.name for p in folder.iterdir()] == ["bundle.tar.gz"], "something is left over"
    assert target.stat().st_mode & 0o77 == 0
    with tarfile.open(target) as tar:
        files = {m.name.split("/", 1)[1]: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}
    return files, said


def test_contents(lab, tmp_path):
    files, said = bundle(lab, tmp_path)
    assert VERBS >= {"version", "health", "drops", "worker-list", "cache-list", "fdb-list", "log-list"}
    for verb in VERBS:
        assert files[f"switch/{verb}.txt"], f"{verb}: nothing"
        assert b"weirctl: " not in files[f"switch/{verb}.txt"], files[f"switch/{verb}.txt"]
    assert {p["name"] for p in json.loads(files["database/Port.json"])} == {"a", "b"} and b"holds" in files["switch/health.txt"]
    for table in json.loads((ROOT / "vswitch/weir.ovsschema").read_text())["tables"]:
        assert json.loads(files[f"database/{table}.json"]) is not None
    assert b"weir-vswitchd runs" in files["log/weir-vswitchd.log"]
    assert b"MemTotal" in files["system/memory.txt"] and b"HugePages" in files["system/memory.txt"]
    assert b"weirctl (Weir)" in files["system/versions.txt"] and b"weir-vswitchd " in files["system/versions.txt"]
    assert b"NUMA" in files["system/cpu.txt"] and b"Linux" in files["system/kernel.txt"]
    assert b"weir-worker0" in files["process/threads.txt"] and b"VmRSS" in files["process/status.txt"]
    assert b"kB resident" in files["process/memory.txt"] and b"weir-vswitchd.ctl" in files["system/rundir.txt"]
    summary = files["SUMMARY"].decode()
    assert "0 of" in summary.splitlines()[-1], summary
    # Every part was shown while it was collected.
    shown = re.findall(r"^ *(\d+)/(\d+)  (.*?) +there$", said, re.M)
    assert len(shown) == int(shown[-1][1]) == len(files) - 1, said


def test_no_payload_no_secrets(lab, tmp_path):
    """Packets that are dropped, traced, flooded: their payload is nowhere. Nor are the values of keys that name a secret."""
    lab.weirctl("set", "Port", "a", "external_ids:vm-password=hunter2", "external_ids:Api-Token=hunter3", "external_ids:owner=somebody")
    number = lab.trace_start("--port", "a")
    udp = bytes.fromhex("45000050000100004011f2a80a0000010a000002") + bytes.fromhex("04000035003c0000")
    frames = [frame(1, 2, payload=MARK * 4), frame(1, BROADCAST, payload=MARK * 4), frame("01:00:00:00:00:09", 2, payload=MARK * 4),
              frame(1, 2, payload=udp + MARK * 4, ethertype=0x800), frame("01:00:00:00:00:09", 2, payload=udp + MARK * 4, ethertype=0x800),
              frame("00:00:00:00:00:00", 2, payload=udp + MARK * 4, ethertype=0x800), frame(1, 2, payload=b"\x45" + MARK, ethertype=0x800)]
    before = lab.stats("a")["rx_packets"]
    for f in frames:
        lab.wire["a"].send(f)
    lab.settle("a", before + len(frames))
    assert lab.drops("a")
    files, _ = bundle(lab, tmp_path)
    traced = lab.trace_end(number).encode()
    assert b"packet 7" in traced
    for name, data in [*files.items(), ("the trace", traced)]:
        for mark in (MARK, MARK[:8], MARK.hex().encode()[:16], " ".join(f"{c:02x}" for c in MARK[:6]).encode()):
            assert mark not in data, f"{mark} is in {name}"
        assert b"hunter" not in data, f"a secret is in {name}"
    port = next(p for p in json.loads(files["database/Port.json"]) if p["name"] == "a")
    assert b"udp," in files["switch/drops.txt"] and b"(words can't say it)" in files["switch/drops.txt"], files["switch/drops.txt"].decode()
    assert port["external_ids"] == {"vm-password": "(left out)", "Api-Token": "(left out)", "owner": "somebody"}


def test_switch_has_ended(lab, tmp_path):
    lab.daemon.kill()
    lab.daemon.wait()
    files, said = bundle(lab, tmp_path)
    assert b"weir-vswitchd runs" in files["log/weir-vswitchd.log"] and b"MemTotal" in files["system/memory.txt"]
    assert json.loads(files["database/Port.json"])
    assert "weirctl health" in said and "missing: the switch does not answer" in said
    assert "no switch runs in this run directory" in files["SUMMARY"].decode()
    lab.start_daemon()


def test_switch_hangs(lab, tmp_path):
    """One step waits in vain, the others aren't tried; what the kernel knows of the process is there."""
    lab.daemon.send_signal(signal.SIGSTOP)
    try:
        files, said = bundle(lab, tmp_path)
    finally:
        lab.daemon.send_signal(signal.SIGCONT)
    assert said.count("does not answer within 4 s") == 1 and "weirctl drops" in said
    assert b"State:\tT" in files["process/status.txt"] and b"weir-worker0" in files["process/threads.txt"]
    assert b"weir-vswitchd runs" in files["log/weir-vswitchd.log"] and json.loads(files["database/Port.json"])


def test_database_is_away(lab, tmp_path):
    lab._reap(lab.database, 15, 10)
    files, said = bundle(lab, tmp_path)
    assert b"holds" in files["switch/health.txt"] and "missing: the database does not answer" in said
    lab.start_database()


def test_interrupted(lab, tmp_path):
    """Ctrl-C leaves nothing behind."""
    lab.daemon.send_signal(signal.SIGSTOP)
    try:
        process = subprocess.Popen([lab.build / "ctl/weirctl", "--ctl", lab.ctl, "--db", lab.db, "support-bundle", "-o", tmp_path / "b.tar.gz"],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: list(tmp_path.iterdir()), 10 * SLOW, "the bundle to begin")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30 * SLOW)
    finally:
        lab.daemon.send_signal(signal.SIGCONT)
    assert process.returncode == 1 and err == "weirctl: interrupted: no bundle was made\n" and not list(tmp_path.iterdir())


def test_as_json(lab, tmp_path):
    target = tmp_path / "b.tar.gz"
    result = lab.weirctl("support-bundle", "-o", target, "--logdir", lab.rundir, json=True, limit=60 * SLOW)
    assert result["file"] == str(target) and result["missing"] == 0 and {p["result"] for p in result["parts"]} == {"there"}


@pytest.mark.parametrize("words, sentence", [
    (["-o", "/nonexistent/x.tar.gz"], "/nonexistent/x.tar.gz can't be made: No such file or directory"),
    (["-o"], "-o needs a value: -o FILE.tar.gz"),
    (["everything"], 'support-bundle doesn\'t know "everything": it takes -o FILE.tar.gz and --logdir DIR'),
])
def test_refused(lab, words, sentence):
    done = lab.weirctl("support-bundle", *words, check=False)
    assert done.returncode == 1 and done.stderr == f"weirctl: {sentence}\n"
