"""drops and health --since: which packets were lost, because of which row, what they looked like, and when."""

import json
import os
import select
import signal
import subprocess
import time

import pytest
from scapy.all import ARP, IP, TCP, UDP, Ether, Raw, raw

from net import BROADCAST, SLOW, frame, mac, wait_for
from test_vhost_ports import plug


@pytest.fixture
def ports(clean):
    clean.network("blue", "vlan=10")
    for n, name in enumerate(("a", "b"), 1):
        clean.tap(name, "--network", "blue", f"addresses={mac(n)}")
    yield clean
    clean.weirctl("flow", "del", "all")


def lost(lab, port, reason):
    """The rows of drops for this port and reason."""
    return [r for r in lab.ask("drops") if (r["port"], r["reason"]) == (port, reason)]


def send(lab, port, *frames):
    before = lab.stats(port)["rx_packets"]
    for f in frames:
        lab.wire[port].send(bytes(f))
    lab.settle(port, before + len(frames))


def test_each_kind_of_row(ports):
    """The first packet of a flow, and those that the cached flow serves, are counted by the row that is to blame."""
    tcp = raw(Ether(src=mac(1), dst=mac(2)) / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=40000, dport=22, flags="S"))

    def case(reason, table, name, data, *settings, undo=None):
        for command in settings:
            ports.weirctl(*command)
        send(ports, "a", *[data] * 3)
        (row,) = lost(ports, "a", reason)
        assert (row["packets"], row["row"]["table"], row["row"]["name"]) == (3, table, name), row
        uuid = ports.weirctl("list", table, row["row"]["uuid"], json=True)[0]["_uuid"]
        assert uuid == row["row"]["uuid"]
        text = ports.weirctl("drops", "--reason", reason)
        assert f"{table} {name}" in text and row["text"] in text
        if undo:
            ports.weirctl(*undo)
    case("vlan.NOT_ALLOWED", "Port", "a", frame(1, 2, 5))
    case("mtu.TOO_LARGE", "Network", "blue", frame(1, 2, size=1400), ("port", "set", "a", "mtu_request=1500", "--", "network", "set", "blue", "mtu=1300"),
         undo=("network", "set", "blue", "mtu=1500"))
    case("isolation.ISOLATED", "Port", "b", frame(1, 2), ("port", "set", "a", "isolated=true", "--", "port", "set", "b", "isolated=true"),
         undo=("port", "set", "a", "isolated=false", "--", "port", "set", "b", "isolated=false"))
    case("output.DISABLED", "Port", "b", frame(1, 2), ("port", "set", "b", "enabled=false"), undo=("port", "set", "b", "enabled=true"))
    case("fdb.UNKNOWN", "Network", "blue", frame(1, 99), ("network", "set", "blue", "unknown_unicast=drop"),
         undo=("network", "set", "blue", "unknown_unicast=flood"))
    ports.weirctl("flow", "add", "tcp,tp_dst=22", "drop")
    (rule,) = ports.weirctl("list", "Flow", json=True)
    case("rule.DROP", "Flow", rule["_uuid"][:8], tcp)
    # A port that nothing is connected to, and its row, with the egress port to blame.
    ports.weirctl("port", "add", "vm1", "--network", "blue", f"addresses={mac(7)}")
    case("tx.DISCONNECTED", "Port", "vm1", frame(1, 7))
    # No row is to blame for what is malformed.
    send(ports, "a", frame("01:00:00:00:00:01", 1))
    assert lost(ports, "a", "vlan.GROUP_SOURCE")[0]["row"] is None
    assert ports.health()["conserved"]


def test_storm_names_the_port(ports):
    ports.weirctl("port", "set", "a", "storm_control:broadcast=1", "storm_control:broadcast-burst=1")
    send(ports, "a", *[frame(1, BROADCAST)] * 20)
    (row,) = lost(ports, "a", "storm.BROADCAST")
    assert row["packets"] >= 15 and row["row"]["table"] == "Port" and row["row"]["name"] == "a"


def test_last_packets(ports):
    """They are kept as words which explain takes, and as bytes."""
    ports.weirctl("flow", "add", "tcp", "drop")
    tcp = raw(Ether(src=mac(1), dst=mac(2)) / IP(src="10.0.0.1", dst="10.0.0.7") / TCP(sport=40000, dport=443, flags="S") / Raw(bytes(500)))
    send(ports, "a", tcp)
    start = time.time()
    (row,) = lost(ports, "a", "rule.DROP")
    (packet,) = row["last"]
    assert packet["bytes"] == len(tcp) and bytes.fromhex(packet["hex"]) == tcp[:96] and abs(packet["time"] - start) < 60
    words = packet["packet"]
    assert words.startswith(f"tcp,dl_src={mac(1)},dl_dst={mac(2)},nw_src=10.0.0.1,nw_dst=10.0.0.7,") and "tp_dst=443" in words
    text = ports.weirctl("drops", "--port", "a")
    assert "The last of them:" in text and words in text
    again = ports.explain("a", words)
    assert f"{len(tcp)} bytes" in again and "(rule.DROP)" in again and "40000" not in text.replace(words, "")
    # What words can't say: its bytes, which explain takes too.
    send(ports, "a", frame("01:00:00:00:00:01", 1, 5, 6))
    (packet,) = lost(ports, "a", "vlan.NOT_ALLOWED")[0]["last"]
    assert packet["packet"] is None and "(vlan.NOT_ALLOWED)" in ports.explain("a", packet["hex"])
    assert tcp[:96].hex() in ports.weirctl("drops", "--hex") and words not in ports.weirctl("drops", "--hex")
    assert "The last of them" not in ports.weirctl("drops", "--sums") and "rule.DROP" in ports.weirctl("drops", "--sums")
    assert all("last" not in row for row in ports.ask("drops", "--sums"))
    # The newest ones, newest first, and no more than a few.
    for n in range(1, 9):
        send(ports, "a", raw(Ether(src=mac(1), dst=mac(2)) / IP(src="10.0.0.1", dst="10.0.0.7") / TCP(sport=1000 + n, dport=443)))
    (row,) = lost(ports, "a", "rule.DROP")
    assert row["packets"] == 9
    assert [next(w for w in p["packet"].split(",") if w.startswith("tp_src")) for p in row["last"]] == [f"tp_src={n}" for n in (1008, 1007, 1006, 1005)]


def test_most_first_and_filters(ports):
    send(ports, "a", *[frame("01:00:00:00:00:01", 1)] * 3, *[frame(1, 2, 5)] * 7)
    send(ports, "b", *[frame(2, 2)] * 5)
    rows = ports.ask("drops")
    ours = [(r["port"], r["reason"], r["packets"]) for r in rows if r["port"] in "ab"]
    assert ours == [("a", "vlan.NOT_ALLOWED", 7), ("b", "fdb.SAME_PORT", 5), ("a", "vlan.GROUP_SOURCE", 3)]
    assert [r["packets"] for r in rows] == sorted((r["packets"] for r in rows), reverse=True)
    assert {r["reason"] for r in ports.ask("drops", "--port", "a", "--reason", "vlan")} == {"vlan.NOT_ALLOWED", "vlan.GROUP_SOURCE"}
    assert [r["reason"] for r in ports.ask("drops", "--port", "a", "--reason", "vlan.group_source")] == ["vlan.GROUP_SOURCE"]
    assert ports.ask("drops", "--port", "b", "--reason", "vlan") == []
    assert ports.weirctl("drops", "--reason", "tx.QUEUE_FULL", "--port", "a").count("\n") == 1


@pytest.mark.parametrize("options, sentence", [
    (["drops", "--port", "nobody"], "there is no port nobody"),
    (["drops", "--reason", "bad.LUCK"], "there is no reason bad.LUCK"),
    (["drops", "--reason"], "--reason wants a value"),
    (["drops", "--frobnicate"], "--frobnicate"),
    (["drops", "--follow", "--port", "nobody"], "there is no port nobody"),
    (["health", "--since", "yesterday"], "--since wants a time"),
    (["health", "--since", "-5s"], "--since wants a time"),
    (["health", "--since", "nan"], "--since wants a time"),
    (["health", "--since"], "--since wants a value"),
    (["health", "now"], "now"),
])
def test_rubbish(lab, options, sentence):
    done = lab.weirctl(*options, check=False)
    assert done.returncode == 1 and sentence in done.stderr and not done.stdout, done


def test_rate(ports):
    """Packets a second of the last seconds; 0 again when nothing comes."""
    def steady():
        send(ports, "a", *[frame("01:00:00:00:00:01", 1)] * 10)
        return lost(ports, "a", "vlan.GROUP_SOURCE")[0]["rate"] > 10
    wait_for(steady, 10 * SLOW, "a rate", 0.1)
    wait_for(lambda: lost(ports, "a", "vlan.GROUP_SOURCE")[0]["rate"] == 0, 15 * SLOW, "a rate of 0", 0.1)


class Following:
    """weirctl drops --follow at work."""

    def __init__(self, lab, *options):
        command = [str(lab.build / "ctl/weirctl"), "--db", lab.db, "--ctl", lab.ctl, "-f", "json", "drops", "--follow", *options]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        self.rest = b""

    def line(self, limit):
        """The next line, or None."""
        while b"\n" not in self.rest:
            if not select.select([self.process.stdout], [], [], limit)[0]:
                return None
            self.rest += os.read(self.process.stdout.fileno(), 1 << 16)
        line, self.rest = self.rest.split(b"\n", 1)
        return json.loads(line)

    def end(self):
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=10 * SLOW)
        return (self.rest + out).decode().splitlines(), err, self.process.returncode


def test_follow(ports):
    """Drops as they happen, not those of before; Ctrl-C ends it in order."""
    send(ports, "a", frame(1, 2, 5))
    follow = Following(ports, "--port", "a")

    def begun():  # it follows from some moment on
        send(ports, "a", frame("01:00:00:00:00:01", 1))
        return follow.line(0.1)
    first = wait_for(begun, 10 * SLOW, "a line of a drop", 0)
    assert (first["port"], first["reason"], first["row"]) == ("a", "vlan.GROUP_SOURCE", None)
    assert first["bytes"] == 60 and first["packet"].startswith("dl_type=0x88b5,dl_src=01:00:00:00:00:01") and abs(first["time"] - time.time()) < 60
    send(ports, "b", frame(2, 2))
    udp = raw(Ether(src=mac(1), dst=mac(2)) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(dport=53) / Raw(bytes(30)))
    ports.weirctl("flow", "add", "udp", "drop")
    send(ports, "a", *[udp] * 100)
    seen, count = [], 0
    while count < 100:
        line = follow.line(10 * SLOW)
        if line["reason"] == "rule.DROP":
            seen.append(line)
            count += 1 + line["more"]
    assert count == 100 and seen[0]["row"]["table"] == "Flow" and "tp_dst=53" in seen[0]["packet"]
    lines, err, code = follow.end()
    assert code == 0 and not err and all(json.loads(line)["port"] == "a" for line in lines)


def test_follow_in_words(ports):
    number = ports.unixctl("drops/start", "--reason", "vlan").split("\n")[0]
    assert ports.unixctl("drops/read", number) == ""
    ports.tap("gone", "--network", "blue")
    send(ports, "gone", frame(9, 2, 5))
    (line,) = ports.unixctl("drops/read", number).splitlines()
    assert line.split()[1:] == ["gone", "vlan.NOT_ALLOWED", "(Port", "gone)", "60", "bytes:",
                                f"dl_type=0x88b5,dl_src={mac(9)},dl_dst={mac(2)},dl_vlan=5,packet_len=60"], line
    # A port that goes takes its drops to the switch's: no news.
    ports.delete("gone")
    assert ports.unixctl("drops/read", number) == ""
    ports.unixctl("drops/stop", number)
    assert ports.unixctl("drops/read", number) == "end\n"
    # There is an end to those who may follow, and who doesn't come is forgotten.
    numbers = [ports.unixctl("drops/start").strip() for _ in range(8)]
    done = ports.weirctl("drops", "--follow", check=False)
    assert done.returncode == 1 and "follow drops already" in done.stderr
    for number in numbers:
        ports.unixctl("drops/stop", number)


def test_figures_of_ports_that_went(ports):
    def of_switch():
        return sum(r["packets"] for r in ports.ask("drops", "--port", "(switch)", "--reason", "vlan.NOT_ALLOWED"))
    before = of_switch()
    ports.tap("gone", "--network", "blue")
    send(ports, "gone", *[frame(9, 2, 5)] * 4)
    ports.delete("gone")
    assert of_switch() == before + 4 and ports.health()["conserved"]


def test_since(ports):
    """The ledger of an interval: what happened in it, balanced by itself."""
    send(ports, "a", *[frame(1, 2)] * 50, *[frame(1, 2, 5)] * 5)

    def of(health, port):
        return next(r for r in health["ledger"] if r["port"] == port)
    everything = ports.weirctl("health", json=True)
    assert "seconds" not in everything and of(everything, "a")["rx_packets"] >= 55

    def quiet():
        health = ports.weirctl("health", "--since", "1s", json=True)
        assert health["conserved"]
        return health if of(health, "a")["rx_packets"] == 0 else None
    health = wait_for(quiet, 10 * SLOW, "an interval without packets", 0.1)
    assert health["seconds"] < 3 and health["drops"] == []
    send(ports, "a", *[frame(1, 2)] * 7, *[frame(1, 2, 5)] * 2)
    health = ports.weirctl("health", "--since", "1", json=True)
    row = of(health, "a")
    assert (row["rx_packets"], row["sent"], row["dropped"], row["missing"]) == (9, 7, 2, 0)
    assert [(d["reason"], d["packets"]) for d in health["drops"]] == [("vlan.NOT_ALLOWED", 2)]
    text = ports.weirctl("health", "--since", "1h")
    assert text.startswith("The last ") and "asked for: 1h." in text and "consumed + merged + dropped: holds" in text
    # A port that went has done what it did.
    total = of(ports.weirctl("health", "--since", "10m", json=True), "total")["rx_packets"]
    ports.delete("b", "a")
    health = ports.weirctl("health", "--since", "10m", json=True)
    assert health["conserved"] and of(health, "total")["rx_packets"] == total


def test_balanced_while_packets_flow(ports):
    """Queues and all: at any moment, for any interval."""
    with plug(ports, "vm1", f"addresses={mac(7)}", network="blue") as guest, plug(ports, "vm2", network="blue") as sender:
        guest.stop(0)
        sender.blast(0, 0, frame(8, 7), rate=20000)
        for n in range(30):
            health = ports.weirctl("health", "--since", f"{0.5 + n % 4}s", json=True)
            assert health["conserved"], health
            ports.wire["a"].send(raw(Ether(src=mac(1), dst=BROADCAST) / ARP()))
        sender.blast(0, 0, frame(8, 7), rate=0)
        assert {r["row"]["name"] for r in ports.ask("drops", "--port", "vm2") if r["reason"] in ("tx.NO_BUFFERS", "tx.QUEUE_FULL")} == {"vm1"}
