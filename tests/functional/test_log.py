"""The log: one line for one event, with fields; levels, limits, rotation."""

import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from net import BROADCAST, SLOW, Lab, frame, mac, wait_for
from vguest import Guest

ROOT = Path(__file__).resolve().parents[2]
LINE = re.compile(r'^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (ERR|WARN|INFO|DBG) ([a-z]+): \S.*$')
MODULES = set(re.findall(r'^\tX\((\w+), "', (ROOT / "vswitch/log.h").read_text(), re.M))


class Log:
    """What is written from now on."""

    def __init__(self, lab):
        self.path = Path(lab.path("weir-vswitchd.log"))
        self.start = self.path.stat().st_size

    def text(self):
        with open(self.path) as f:
            f.seek(self.start)
            return f.read()

    def lines(self, module=None, level=None):
        return [line for line in self.text().splitlines()
                if (module is None or f" {module}: " in line) and (level is None or f" {level} " in line)]

    def wait(self, *parts, limit=10):
        """For a line that has all of these."""
        def there():
            return any(all(part in line for part in parts) for line in self.lines())
        wait_for(there, limit * SLOW, lambda: f"a line with {parts}:\n{self.text()}")


@pytest.fixture
def log(lab):
    return Log(lab)


def test_modules_of_the_source():
    """What logs, logs under a name of the table."""
    used = {}
    for path in [*(ROOT / "vswitch").glob("*.c"), *(ROOT / "pipeline").glob("*.c"), *(ROOT / "ofproto").glob("*.c")]:
        for module in re.findall(r'\b(?:log_line|log_event|notice)\((?:\'.\'|[^",]*|[^"]*\?[^"]*), "(\w+)"', path.read_text()):
            used.setdefault(module, path.name)
    assert used and used.keys() <= MODULES, f"not in LOG_MODULES: {used.keys() - MODULES}"


def test_lines(lab, log):
    """Every line has its time, level and module, from the first one on, whoever wrote it."""
    lab.network("blue")
    lab.tap("a", "--network", "blue")
    log.wait(" port: port a: open port=a type=tap row=")
    log.wait(" port: port a: up port=a state=up")
    lab.delete("a")
    log.wait(" port: port a: closed port=a")
    lines = log.path.read_text().splitlines()
    assert len(lines) > 5
    for line in lines:
        found = LINE.match(line)
        assert found and found.group(2) in MODULES, line
    text = log.path.read_text()
    assert " main: weir-vswitchd runs version=" in text and " worker: worker 0 runs worker=0 core=" in text
    assert re.search(r" INFO db: unix:\S+: connected library=reconnect$", text, re.M)


def test_levels(lab, log):
    levels = {row["module"]: row for row in lab.weirctl("log", "list", json=True)}
    assert levels.keys() >= MODULES and {row["level"] for row in levels.values()} == {"info"}
    assert all(levels[name]["text"] for name in MODULES)
    lab.weirctl("log", "set", "db", "debug")
    lab.network("green")
    log.wait(" DBG db: generation ")
    log.wait(" DBG db: ", "library=")  # the library's modules go with it
    lab.weirctl("log", "set", "all", "warning")
    here = Log(lab)
    lab.tap("g", "--network", "green")
    lab.delete("g")
    lab.weirctl("network", "del", "green")
    assert here.lines() == []
    lab.weirctl("log", "set", "port:info")
    lab.network("green")
    lab.tap("g", "--network", "green")
    here.wait(" INFO port: port g: open")
    assert {row["module"] for row in lab.weirctl("log", "list", json=True) if row["level"] == "info"} == {"port"}
    lab.delete("g")
    lab.weirctl("log", "set", "all", "info")


@pytest.mark.parametrize("words, sentence", [
    (["nothing", "info"], 'there is no module "nothing": weirctl log list shows them'),
    (["port", "loud"], 'there is no level "loud": off, error, warning, info or debug'),
    (["port"], "log set wants a module and a level, such as port debug"),
])
def test_refused(lab, words, sentence):
    done = lab.weirctl("log", "set", *words, check=False)
    assert done.returncode == 1 and done.stderr == f"weirctl: {sentence}\n"


def test_limit(lab, log):
    """A place that says the same again and again is cut short; a line says how often, and what came last."""
    wait_for(lambda: lab.unixctl("log/list") and True, 1, "an answer")
    for n in range(120):
        lab.unixctl("log/set", "trace", "debug" if n % 2 else "error")
    log.wait("more of these in", "were left out; the last: lines of module trace are written from level debug on left_out=")
    lines = log.lines("control")
    left_out = sum(int(re.search(r"left_out=(\d+)", line).group(1)) for line in lines if "left_out=" in line)
    assert left_out + sum("left_out=" not in line for line in lines) == 120 and left_out >= 40
    row = {r["module"]: r for r in lab.weirctl("log", "list", json=True)}["control"]
    assert row["left_out"] >= left_out
    lab.unixctl("log/set", "trace", "info")


def test_rotation(lab, tmp_path):
    """The file is renamed and opened anew, by the verb, by SIGHUP, and as logrotate does it with the file that is installed."""
    path = Path(lab.path("weir-vswitchd.log"))

    def by_logrotate():
        text = (ROOT / "packaging/logrotate").read_text().replace("/var/log/weir/*.log", str(path))
        (tmp_path / "conf").write_text(text.replace("notifempty", "notifempty\n\tnocreate"))
        subprocess.run(["/usr/sbin/logrotate", "-f", "-s", tmp_path / "state", tmp_path / "conf"], check=True,
                       env={**os.environ, "PATH": f"{lab.build / 'ctl'}:{os.environ['PATH']}", "WEIR_CTL": lab.ctl})
    for ask in (lambda: lab.weirctl("log", "reopen"), lambda: lab.daemon.send_signal(signal.SIGHUP), by_logrotate):
        if ask is not by_logrotate:
            path.rename(tmp_path / "old")
        ask()
        wait_for(lambda: path.exists() and "the log was opened anew" in path.read_text(), 10 * SLOW, f"{path} to be there again")
    assert lab.daemon.poll() is None


def test_events(lab, log):
    """What an operator can do something about. (That a port is flooded with unknown flows: test_flows.)"""
    lab.weirctl("network", "add", "--may-exist", "blue")
    lab.weirctl("port", "add", "k", "--type", "kernel", "--network", "blue", "--iface", "wlnone0", check=False)
    log.wait(" WARN port: port k: there is no network interface wlnone0", "port=k")
    lab.weirctl("port", "del", "k")
    lab.weirctl("port", "add", "vm1", "--network", "blue", "--mode", "server")
    log.wait("port vm1: down: not connected: no front-end has connected")
    with Guest(f"path={lab.path('vm1.sock')},server=0") as guest:
        guest.ready(20 * SLOW)
        log.wait("port vm1: a front-end has connected port=vm1")
        log.wait("port vm1: up port=vm1 state=up", limit=20)
        with socket.socket(socket.AF_UNIX) as second:
            second.connect(lab.path("vm1.sock"))
            log.wait(" WARN port: port vm1: another front-end wanted its socket", "refused=1")
    log.wait(" port: port vm1: the front-end has disconnected port=vm1")
    wait_for(lambda: log.text().count("port vm1: down: not connected: no front-end has connected") == 2, 10 * SLOW, log.text)
    lab.weirctl("port", "del", "vm1")
    lab.weirctl("config", "set", "worker-cores=4000", check=False)
    log.wait(" WARN config: other_config: worker-cores must be a list")
    lab.weirctl("config", "del", "worker-cores")


def test_flap(lab, log):
    lab.weirctl("network", "add", "--may-exist", "blue")
    for name in ("f1", "f2"):
        lab.tap(name, "--network", "blue")
    for n in range(12):
        before = lab.stats(f"f{n % 2 + 1}")["rx_packets"]
        lab.wire[f"f{n % 2 + 1}"].send(frame(7, BROADCAST))
        lab.settle(f"f{n % 2 + 1}", before + 1)
    log.wait(f" WARN fdb: address {mac(7)} moves to and fro between ports: it is held on f", f"mac={mac(7)} network=blue port=f")
    assert len(log.lines("fdb")) == 1
    lab.delete("f1", "f2")


def test_database_away(lab, log):
    lab._reap(lab.database, 15, 10)
    log.wait(" WARN db: database unix:", "not connected", "database=unix:")
    lab.start_database()
    log.wait(" INFO db: database unix:", "in order database=unix:", limit=30)


def test_json():
    """--log-format json: an object a line, whoever wrote it, whatever is in it."""
    with Lab(options=["--log-format", "json"]) as lab:
        lab.network("blue")
        lab.tap("a", "--network", "blue")
        lab.weirctl("config", "set", 'worker-cores="quo\\"ted\\\\"', check=False)
        lab.weirctl("config", "del", "worker-cores")
        lab.weirctl("log", "reopen")
        lab._reap(lab.database, 15, 10)
        path = Path(lab.path("weir-vswitchd.log"))
        wait_for(lambda: "not connected" in path.read_text(), 10 * SLOW, path.read_text)
        lab.start_database()
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            assert list(line)[:4] == ["time", "level", "module", "event"] and line["module"] in MODULES
            assert line["level"] in ("error", "warning", "info", "debug")
        (opened,) = [line for line in lines if line["event"] == "port a: open"]
        assert opened["port"] == "a" and opened["type"] == "tap" and opened["level"] == "info"
        assert any(line.get("library") == "reconnect" for line in lines)


def test_bad_format():
    done = subprocess.run([Path(os.environ["WEIR_BUILD"]) / "vswitch/weir-vswitchd", "--log-format", "xml"], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == 'weir-vswitchd: --log-format is text or json, not "xml"\n'
