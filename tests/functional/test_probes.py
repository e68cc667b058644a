"""The probes: all of the table are in the program, and the scripts that come with it see what happens."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from net import SLOW, Lab, frame, mac, wait_for

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ["WEIR_BUILD"])
PROGRAM = BUILD / "vswitch/weir-vswitchd"
TABLE = dict(re.findall(r'^\tX\((\w+), "[^"]*", *"([^"]*)"\)', (ROOT / "ofproto/probe.h").read_text(), re.M))


@pytest.fixture(scope="module")
def ports(tmp_path_factory):
    """A switch whose program is a file of its own: probes are a file's, and fire in all processes that run it, also in those of other tests."""
    build = tmp_path_factory.mktemp("build")
    (build / "vswitch").mkdir()
    shutil.copy(PROGRAM, build / "vswitch")
    (build / "ctl").symlink_to(BUILD.resolve() / "ctl")
    with Lab(build=build) as lab:
        lab.program = build / "vswitch" / PROGRAM.name
        lab.network("blue")
        for n, name in enumerate(("a", "b"), 1):
            lab.tap(name, "--network", "blue", f"addresses={mac(n)}")
        yield lab


def notes():
    """{probe: [(semaphore, number of arguments), one for each place]} of the program."""
    text = subprocess.run(["readelf", "-n", PROGRAM], stdout=subprocess.PIPE, text=True, check=True).stdout
    found = {}
    for name, semaphore, arguments in re.findall(r"Provider: weir\s+Name: (\w+)\s+Location: \S+ Base: \S+ Semaphore: (\S+)\s+Arguments: (.*)", text):
        found.setdefault(name, []).append((int(semaphore, 16), len(arguments.split())))
    return found


def test_every_probe_is_in_the_program():
    found = notes()
    if not found and "-DINSTRUMENTS=0" in (BUILD / "build.ninja").read_text():
        pytest.skip("a build without instruments")
    assert found.keys() == TABLE.keys() and len(TABLE) >= 7
    for name, places in found.items():
        wanted = len(TABLE[name].split(";"))
        for semaphore, arguments in places:
            assert semaphore, f"{name} has no semaphore"
            assert arguments == wanted, f"{name}: {arguments} arguments, the table has {TABLE[name]}"


def test_the_guide_has_the_table():
    guide = (ROOT / "docs/operators-guide.md").read_text()
    for name, arguments in TABLE.items():
        assert f"| `{name}` | " in guide and f" | {arguments} |" in guide, name


class Script:
    """A script at work on the switch."""

    def __init__(self, name, program, tmp_path):
        text = (BUILD / f"packaging/{name}.bt").read_text()
        installed = set(re.findall(r"usdt:([^:]*):weir:", text))
        assert len(installed) == 1
        path = tmp_path / f"{name}.bt"
        path.write_text(text.replace(installed.pop(), str(program)))
        self.out = tmp_path / f"{name}.out"
        with open(self.out, "w") as out:
            self.process = subprocess.Popen(["bpftrace", "-B", "line", path], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)

    def text(self):
        return self.out.read_text()

    def __enter__(self):
        wait_for(lambda: "Ctrl-C ends" in self.text() or self.process.poll() is not None, 60 * SLOW, self.text)
        if self.process.poll() is not None:
            refused = re.search(r"Operation not permitted|tracefs|debugfs|kernel (?:lacks|does not)|BTF|Function not implemented", self.text())
            assert refused, self.text()
            pytest.skip(f"this kernel refuses: {self.text().strip()[:200]}")
        return self

    def end(self):
        """Ctrl-C: it shows what it has counted."""
        self.process.send_signal(2)
        self.process.wait(30 * SLOW)
        return self.text()

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def test_drops(ports, tmp_path):
    with Script("weir-drops", ports.program, tmp_path) as script:
        for _ in range(7):
            ports.wire["a"].send(frame("01:00:00:00:00:01", 2))
        wait_for(lambda: "@drops[a, vlan, GROUP_SOURCE]: 7" in script.text(), 10 * SLOW, script.text)


def test_resolve_and_flows(ports, tmp_path):
    with Script("weir-resolve", ports.program, tmp_path) as resolve, Script("weir-flows", ports.program, tmp_path) as flows:
        ports.unixctl("cache/flush")
        before = ports.stats("b")["rx_packets"]
        for n in range(20, 25):
            ports.wire["b"].send(frame(2, n))
        ports.settle("b", before + 5)
        wait_for(lambda: "@made[b]: 5" in flows.text(), 10 * SLOW, flows.text)
        text = resolve.end()
        assert "@by_port[b]: 5" in text and "@ns[flood]:" in text, text
        ports.tap("c", "--network", "blue")
        before = ports.stats("c")["rx_packets"]
        ports.wire["c"].send(frame(30, 1))
        ports.settle("c", before + 1)
        ports.delete("c")
        wait_for(lambda: "@gone[c, port]: 1" in flows.text() or "@gone[a port that is gone, port]: 1" in flows.text(), 10 * SLOW, flows.text)


def test_workers_and_ports(ports, tmp_path):
    with Script("weir-sleep", ports.program, tmp_path) as sleep, Script("weir-ports", ports.program, tmp_path) as states:
        ports.weirctl("port", "add", "vm1", "--network", "blue", "--path", "/nonexistent/vm1.sock")
        wait_for(lambda: re.search(r" vm1 down not connected: /nonexistent/vm1.sock does not exist", states.text()), 10 * SLOW, states.text)
        ports.tap("d", "--network", "blue")
        wait_for(lambda: re.search(r" d up ", states.text()), 10 * SLOW, states.text)
        ports.delete("d")
        ports.weirctl("port", "del", "vm1")
        wait_for(lambda: re.search(r"@sleeps\[0, pause\]: [1-9]", sleep.text()), 10 * SLOW, sleep.text)
        assert "@us[0, pause]:" in sleep.end()
