"""Flow records: what collectors are told is what was sent through the switch, to the packet (vswitch/export.c, ofproto/ipfix.c)."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

import ipfix
from net import BROADCAST, SLOW, frame, mac, run, wait_for

IDLE, ACTIVE, FORCED = 1, 2, 4


class Collector:
    """A UDP socket on the loopback, and what came in by it."""

    def __init__(self, address=("127.0.0.1", 0)):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.socket.bind(address)
        self.socket.setblocking(False)
        self.reader, self.source = ipfix.Reader(), None

    @property
    def target(self):
        return f"udp:127.0.0.1:{self.socket.getsockname()[1]}"

    def poll(self):
        while True:
            try:
                data, source = self.socket.recvfrom(65536)
            except BlockingIOError:
                return self.reader
            if source != self.source:  # another session: a switch that was started anew
                self.reader.sequence.clear()
                self.reader.templates.clear()
            self.source = source
            self.reader.message(data)

    def wait(self, condition, what, limit=20):
        wait_for(lambda: condition(self.poll()), limit * SLOW, lambda: f"{what}: {self.reader.records} {self.reader.options}", 0.01)
        return self.reader

    def packets(self):
        return sum(r["packetDeltaCount"] for r in self.poll().records)

    def names(self):
        return {r["ingressInterface"]: (r["interfaceName"], r["interfaceDescription"]) for r in self.poll().options[("ingressInterface",)]}

    def close(self):
        self.socket.close()


@pytest.fixture
def collector(lab):
    it = Collector()
    yield it
    it.close()


@pytest.fixture
def ports(clean):
    clean.weirctl("config", "set", "flow-idle-timeout=1")
    clean.network("blue")
    clean.tap("a", "--network", "blue", f"addresses={mac(1)}")
    clean.tap("b", "--network", "blue", f"addresses={mac(2)}")
    yield clean
    for row in clean.weirctl("list", "Flow_Export", json=True):
        clean.weirctl("export", "del", row["name"])
    clean.weirctl("flow", "del", "all")
    clean.weirctl("clear", "Weir", ".", "other_config")


def send(lab, port, frames):
    before = lab.stats(port)["rx_packets"]
    for n, f in enumerate(frames, 1):
        lab.wire[port].send(f)
        if n % 250 == 0 or n == len(frames):  # what a TAP's queue holds
            lab.settle(port, before + n)


def ip(src, dst, proto, size=100, **fields):
    from scapy.all import ICMP, IP, TCP, UDP, Ether, raw
    layer = {"tcp": TCP, "udp": UDP, "icmp": ICMP}[proto](**fields)
    data = raw(Ether(src=mac(1), dst=mac(2)) / IP(src=src, dst=dst) / layer)
    return data.ljust(size, b"x")


def test_layer_2(ports, collector):
    """A plain network: addresses of Ethernet, and nothing that its flows don't hold; names come as options."""
    ports.weirctl("export", "add", "x", "--target", collector.target)
    begin = time.time()
    send(ports, "a", [frame(1, 2, size=60)] * 7 + [frame(1, 2, size=600)] * 3)
    send(ports, "b", [frame(2, BROADCAST)] * 4)
    reader = collector.wait(lambda r: sum(x["packetDeltaCount"] for x in r.records) >= 14, "all packets in records")
    assert len(reader.records) == 2
    there, flood = sorted(reader.records, key=lambda r: -r["packetDeltaCount"])  # they may begin in the same millisecond
    numbers = {name: number for number, (name, _) in collector.names().items()}
    assert set(collector.names().values()) == {("a", "blue"), ("b", "blue")}
    assert there == {"flowStartMilliseconds": there["flowStartMilliseconds"], "flowEndMilliseconds": there["flowEndMilliseconds"],
                     "octetDeltaCount": 7 * 60 + 3 * 600, "packetDeltaCount": 10, "ingressInterface": numbers["a"], "egressInterface": numbers["b"],
                     "forwardingStatus": 64, "flowEndReason": IDLE, "sourceMacAddress": mac(1), "destinationMacAddress": mac(2),
                     "ethernetType": 0x88b5, "own3": "blue", "enterprise": ipfix.OWN}
    assert flood["packetDeltaCount"] == 4 and flood["forwardingStatus"] == 64 and "egressInterface" not in flood
    for r in reader.records:
        assert begin - 1 <= r["flowStartMilliseconds"] / 1000 <= r["flowEndMilliseconds"] / 1000 <= time.time() + 1
    own = {r["informationElementId"]: r["informationElementName"] for r in reader.options["privateEnterpriseNumber", "informationElementId"]}
    assert own == {1: "weirDropReason", 2: "weirDropRow", 3: "weirNetworkName"}
    lost = reader.options[("observationDomainId",)][-1]
    assert (lost["notSentFlowTotalCount"], lost["notSentPacketTotalCount"]) == (0, 0) and reader.domain == 1
    (row,) = ports.weirctl("export", "list", json=True)
    assert row["name"] == "x" and row["target"] == collector.target and row["state"] == "ok" and row["lost"] == 0 and row["messages"] == reader.messages
    assert row["records"] == reader.count()


def test_five_tuples(ports, collector):
    """Where rules look at addresses and ports, records have them; what a rule drops has its reason, and the rule."""
    ports.weirctl("flow", "add", "--network", "blue", "tcp,nw_src=10.0.0.0/8,nw_dst=10.0.0.9,tp_src=99,tp_dst=23", "drop")
    ports.weirctl("export", "add", "x", "--target", collector.target, "--domain", "77", "other_config:enterprise=4711")
    send(ports, "a", [ip("10.0.0.1", "10.0.0.2", "udp", sport=1000 + n, dport=53) for n in range(5) for _ in range(n + 1)])
    send(ports, "a", [ip("10.0.0.1", "10.0.0.9", "tcp", sport=99, dport=23, flags="A")] * 6)
    send(ports, "a", [ip("10.0.0.1", "10.0.0.2", "icmp", type=8, code=0)] * 2)
    reader = collector.wait(lambda r: sum(x["packetDeltaCount"] for x in r.records) >= 23, "all packets in records")
    udp = {r["sourceTransportPort"]: r for r in reader.records if r.get("protocolIdentifier") == 17}
    assert {port: r["packetDeltaCount"] for port, r in udp.items()} == {1000 + n: n + 1 for n in range(5)}
    for r in udp.values():
        assert (r["sourceIPv4Address"], r["destinationIPv4Address"]) == (bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
        assert r["destinationTransportPort"] == 53 and r["octetDeltaCount"] == 100 * r["packetDeltaCount"]
    (dropped,) = [r for r in reader.records if r.get("protocolIdentifier") == 6]
    assert dropped["packetDeltaCount"] == 6 and dropped["forwardingStatus"] == 129 and "egressInterface" not in dropped
    assert dropped["own1"] == "rule.DROP" and dropped["own2"].startswith("Flow:") and dropped["enterprise"] == 4711
    (ping,) = [r for r in reader.records if r.get("protocolIdentifier") == 1]
    assert ping["icmpTypeCodeIPv4"] == 0x0800 and ping["packetDeltaCount"] == 2 and "sourceTransportPort" not in ping
    assert reader.domain == 77 and len(reader.records) == 7
    assert ports.drops("a")["rule.DROP"] >= 6


def test_active_timeout(ports, collector):
    """A flow that lasts is reported in between; what its records count adds up to what was sent, and their times don't overlap."""
    ports.weirctl("export", "add", "x", "--target", collector.target, "--active-timeout", "2")
    sent = 0

    def reports():
        nonlocal sent
        send(ports, "a", [frame(1, 2)] * 3)
        sent += 3
        return sum(r["flowEndReason"] == ACTIVE for r in collector.poll().records) >= 3
    wait_for(reports, 30 * SLOW, "reports of a flow that lasts", 0.05)
    send(ports, "a", [frame(1, 2)] * 2)  # of which no report in between can tell: the flow is idle before that is due
    sent += 2
    reader = collector.wait(lambda r: r.records[-1]["flowEndReason"] == IDLE, "its end")
    assert collector.packets() == sent and sum(r["octetDeltaCount"] for r in reader.records) == 60 * sent
    for one, next_ in zip(reader.records, reader.records[1:]):
        assert one["flowEndMilliseconds"] <= next_["flowStartMilliseconds"]


def test_changed_decision(ports, collector):
    """An address moves: the flow's packets so far were for the old port, those after are for the new one."""
    ports.tap("c", "--network", "blue")
    ports.weirctl("export", "add", "x", "--target", collector.target, "--", "config", "set", "flow-idle-timeout=2")
    send(ports, "b", [frame(5, BROADCAST)])
    send(ports, "a", [frame(1, 5)] * 4)
    send(ports, "c", [frame(5, BROADCAST)])
    send(ports, "a", [frame(1, 5)] * 3)
    reader = collector.wait(lambda r: sum(x["packetDeltaCount"] for x in r.records) >= 9, "all packets in records")
    names = {number: name for number, (name, _) in collector.names().items()}
    to = [(names[r["egressInterface"]], r["packetDeltaCount"], r["flowEndReason"]) for r in reader.records if r["destinationMacAddress"] == mac(5)]
    assert to == [("b", 4, FORCED), ("c", 3, IDLE)]


def test_vlan_and_networks(ports, collector):
    """Only flows of the networks that are wanted; the tag is in the record."""
    ports.network("red", "--vlan", "20")
    ports.tap("t", "--vlan-mode", "trunk")
    ports.tap("r", "--network", "red")
    ports.weirctl("export", "add", "x", "--target", collector.target, "--networks", "red")
    send(ports, "a", [frame(1, 2)] * 5)
    send(ports, "t", [frame(7, BROADCAST, 20)] * 3)
    collector.wait(lambda r: r.records, "a record")
    wait_for(lambda: not ports.ask("cache/list"), 20 * SLOW, "all flows to be gone")
    (r,) = collector.poll().records
    assert r["vlanId"] == 20 and r["packetDeltaCount"] == 3 and r["own3"] == "red"
    done = ports.weirctl("network", "del", "red", check=False)
    assert done.returncode == 1


def test_sampling(ports, collector):
    """One of four flows, whole or not at all; every target is told the same ones, and collectors are told the figure."""
    path = ports.path("flows.json")
    ports.weirctl("export", "add", "x", "--target", collector.target, "--target", f"file:{path}", "--sampling", "4")
    ports.weirctl("export", "add", "all", "--target", f"file:{path}.all")
    frames = [frame(1, f"52:54:00:01:{n >> 8:02x}:{n & 255:02x}") for n in range(400) for _ in range(3)]
    send(ports, "a", frames)
    wait_for(lambda: Path(path + ".all").exists() and len(Path(path + ".all").read_text().splitlines()) >= 400, 30 * SLOW, "all flows in the file")
    everything = [json.loads(line) for line in Path(path + ".all").read_text().splitlines()]
    assert len(everything) == 400 and {r["packets"] for r in everything} == {3} and {r["bytes"] for r in everything} == {180}
    collector.wait(lambda r: ("observationDomainId",) in r.options, "options")
    wait_for(lambda: len(Path(path).read_text().splitlines()) == len(collector.poll().records), 10 * SLOW, "the same in both")
    some = [json.loads(line) for line in Path(path).read_text().splitlines()]
    # 100 on average, with a deviation of 9: seven of them leave one run in 10^11.
    assert 40 < len(some) < 160
    assert {r["dl_dst"] for r in some} == {r["destinationMacAddress"] for r in collector.reader.records} < {r["dl_dst"] for r in everything}
    assert all(r["packetDeltaCount"] == 3 for r in collector.reader.records)
    told = [o for o in collector.reader.options[("observationDomainId",)] if "samplingInterval" in o][0]
    assert told["samplingInterval"] == 4 and told["samplingProbability"] == 0.25


def test_json(ports):
    """A line for each record; a file that was moved away is opened anew; a reader at a socket gets the same lines."""
    path, sock = ports.path("flows.json"), ports.path("flows.sock")
    Path(path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sock)
    listener.listen()
    ports.weirctl("export", "add", "log", "--target", f"file:{path}", "--target", f"unix:{sock}")
    reader, _ = listener.accept()
    send(ports, "a", [frame(1, 2)] * 2)
    wait_for(lambda: Path(path).exists() and Path(path).read_text().endswith("\n"), 20 * SLOW, "a line")
    (line,) = Path(path).read_text().splitlines()
    r = json.loads(line)
    assert {k: r[k] for k in ("kind", "ended", "network", "in_port", "verdict", "out_port", "dl_src", "dl_dst", "dl_type", "packets", "bytes")} == {
        "kind": "flow", "ended": "idle", "network": "blue", "in_port": "a", "verdict": "forwarded", "out_port": "b", "dl_src": mac(1), "dl_dst": mac(2),
        "dl_type": "0x88b5", "packets": 2, "bytes": 120}
    assert set(r["because"]) >= {"Network:blue", "Port:a"} and not {"nw_src", "tp_dst", "dl_vlan", "reason"} & set(r)
    assert r["start"] <= r["end"] and r["end"].endswith("Z")
    assert os.stat(path).st_mode & 0o777 == 0o640
    reader.settimeout(20 * SLOW)
    assert json.loads(reader.makefile().readline()) == r
    os.rename(path, path + ".1")
    wait_for(lambda: Path(path).exists(), 20 * SLOW, "the file to be opened again")
    reader.close()
    listener.close()
    os.unlink(sock)
    send(ports, "a", [frame(1, 2)])
    wait_for(lambda: Path(path).read_text().endswith("\n"), 20 * SLOW, "a line in the new file")
    assert json.loads(Path(path).read_text())["packets"] == 1 and Path(path + ".1").read_text() == line + "\n"
    (state,) = [row["state"] for row in ports.weirctl("export", "list", json=True) if row["target"].startswith("unix:")]
    assert "No such file" in state or "reset" in state


def test_class(ports):
    """The class of traffic that a rule put packets into is among the rows that decided."""
    path = ports.path("classes.json")
    ports.weirctl("class", "add", "gold", "--", "flow", "add", "--network", "blue", "any", "class:gold")
    try:
        ports.weirctl("export", "add", "log", "--target", f"file:{path}")
        send(ports, "a", [frame(1, 2)] * 2)
        wait_for(lambda: Path(path).exists() and Path(path).read_text().endswith("\n"), 20 * SLOW, "a line")
        (r,) = map(json.loads, Path(path).read_text().splitlines())
        assert r["packets"] == 2 and "Class:gold" in r["because"] and any(row.startswith("Flow:") for row in r["because"]), r
    finally:
        ports.weirctl("flow", "del", "all", "--", "class", "del", "gold")


def test_line_rate(ports):
    """Lines beyond the rate are lost, and counted as such."""
    path = ports.path("few.json")
    ports.weirctl("export", "add", "log", "--target", f"file:{path}", "other_config:line-rate=1")
    send(ports, "a", [frame(1, 1000 + n) for n in range(200)])

    def all_done():
        (row,) = ports.weirctl("export", "list", json=True)
        return row["records"] + row["lost"] >= 200 and row
    row = wait_for(all_done, 30 * SLOW, "200 flows to end") or all_done()
    assert row["lost"] > 100 and row["records"] + row["lost"] == 200
    wait_for(lambda: len(Path(path).read_text().splitlines()) == row["records"], 10 * SLOW, "the lines that there are")


def test_tcp(ports):
    """A collector that comes, goes and comes again: each session begins with its templates and with sequence number 0."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    listener.settimeout(20 * SLOW)
    port = listener.getsockname()[1]
    ports.weirctl("export", "add", "x", "--target", f"tcp:127.0.0.1:{port}")
    for turn in range(2):
        conversation, _ = listener.accept()
        conversation.settimeout(20 * SLOW)
        reader, stream = ipfix.Reader(), conversation.makefile("rb")
        send(ports, "a", [frame(1, 2)] * (turn + 1))
        while not reader.records:
            head = stream.read(4)
            reader.message(head + stream.read(int.from_bytes(head[2:], "big") - 4))
            assert reader.messages > 1 or reader.sequence[1] == reader.count()
        assert reader.records[0]["packetDeltaCount"] == turn + 1
        stream.close()
        conversation.close()
    listener.close()
    # With nobody there the switch goes on, and what isn't told is counted.
    send(ports, "a", [frame(1, 2)] * 2)

    def lost():
        (row,) = ports.weirctl("export", "list", json=True)
        return row["lost"] >= 1 and row["state"] != "ok"
    wait_for(lost, 30 * SLOW, "a lost record")


def test_dead_collector(ports, collector):
    """A collector that is away costs nothing, and a list says so; when it is back it is told templates again."""
    address = collector.socket.getsockname()
    target = collector.target
    collector.close()
    ports.weirctl("export", "add", "x", "--target", target, "other_config:template-interval=1")

    def refused():
        send(ports, "a", [frame(1, 2)])
        (row,) = ports.weirctl("export", "list", json=True)
        return row["state"] == "Connection refused"
    wait_for(refused, 20 * SLOW, "the list to say so", 0.05)
    again = Collector(address)
    # What comes first may be data of templates from before.
    wait_for(lambda: again_has_options(again), 20 * SLOW, "templates", 0.05)
    send(ports, "a", [frame(1, 2)])
    again.wait(lambda r: r.records, "a record")
    again.close()


def again_has_options(collector):
    while True:
        try:
            data = collector.socket.recv(65536)
        except BlockingIOError:
            return False
        if int.from_bytes(data[16:18], "big") == 3:
            collector.reader.message(data)
            return True


def test_end_of_the_switch(ports, collector):
    """Flows that are there when the switch ends are told of, as forced ends."""
    ports.weirctl("export", "add", "x", "--target", collector.target, "--", "config", "set", "flow-idle-timeout=600")
    send(ports, "a", [frame(1, 2)] * 5)
    ports.check_conservation()
    ports.restart_daemon()
    reader = collector.wait(lambda r: r.records, "a record")
    assert [(r["packetDeltaCount"], r["flowEndReason"]) for r in reader.records] == [(5, FORCED)]
    wait_for(lambda: {"a", "b"} <= {name for _, name in socket.if_nameindex()}, 20 * SLOW, "the ports to be back")
    for name in "ab":
        ports.wire[name].close()
        ports.wire[name] = type(ports.wire[name])(name)


def test_worker_that_goes(ports, collector):
    """The flows of a worker that is no more are told of; those of the next one are again."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one processor")
    ports.weirctl("config", "set", "flow-idle-timeout=600", f"worker-cores={cores[0]},{cores[1]}", "--", "export", "add", "x", "--target", collector.target)
    send(ports, "a", [frame(1, 2)] * 5)
    (at,) = [row["worker"] for row in ports.ask("cache/list") if row["packets"] >= 5]
    (stays,) = [row["core"] for row in ports.ask("worker/list") if row["worker"] != at]
    ports.weirctl("config", "set", f"worker-cores={stays}")
    reader = collector.wait(lambda r: r.records, "a record")
    assert [(r["packetDeltaCount"], r["flowEndReason"]) for r in reader.records] == [(5, FORCED)]
    ports.weirctl("config", "set", "flow-idle-timeout=1", f"worker-cores={cores[0]},{cores[1]}")
    send(ports, "a", [frame(1, 2)] * 3)
    reader = collector.wait(lambda r: len(r.records) > 1, "another")
    assert (reader.records[1]["packetDeltaCount"], reader.records[1]["flowEndReason"]) == (3, IDLE)


@pytest.mark.parametrize("target,sentence", [
    ("udp:10.0.0.1", "targets: \"udp:10.0.0.1\" isn't udp:IP:PORT"), ("udp:10.0.0.1:0", "isn't udp"), ("udp:10.0.0.1:99999", "isn't udp"),
    ("udp:::1:4739", "isn't udp"), ("udp:[::1:4739", "isn't udp"), ("udp:collector:4739", "isn't udp"), ("file:flows", "isn't udp"),
    ("unix:" + "/x" * 100, "isn't udp"), ("http://x", "isn't udp"),
])
def test_wrong_targets(ports, target, sentence):
    done = ports.weirctl("export", "add", "x", "--target", target, check=False)
    assert done.returncode == 1 and sentence in done.stderr, done
    assert sentence in ports.row("Flow_Export", "x")["error"]
    assert ports.weirctl("export", "list", json=True) == []


def test_commands(ports):
    for words, sentence in ((["add", "x"], "where to?"), (["del", "y"], "no export y"), (["add", "x/y", "--target", "udp:127.0.0.1:1"], "can't be the name"),
                            (["add", "x", "--target", "udp:127.0.0.1:1", "--networks", "nosuch"], "nosuch"),
                            (["add", "x", "--target", "udp:127.0.0.1:1", "other_config:line-rate=0"], "line-rate")):
        done = ports.weirctl("export", *words, check=False)
        assert done.returncode == 1 and sentence in done.stderr, done
    ports.weirctl("export", "del", "--if-exists", "x")
    ports.weirctl("export", "add", "x", "--target", "udp:[::1]:4739", "--target", "udp:127.0.0.1:4739", "--sampling", "10")
    assert ports.weirctl("export", "add", "x", check=False).returncode == 1
    ports.weirctl("export", "add", "--may-exist", "x", "--sampling", "20")
    assert ports.row("Flow_Export", "x")["sampling"] == 20
    assert len(ports.weirctl("export", "list", json=True)) == 2
    ports.weirctl("set", "Flow_Export", "x", "enabled=false")
    assert ports.weirctl("export", "list", json=True) == []


def objects(text):
    """The objects of a JSON text, whatever is between them."""
    found, at = [], text.find("{")
    while at >= 0:
        value, end = json.JSONDecoder().raw_decode(text, at)
        found.append(value)
        at = text.find("{", end)
    return found


@pytest.mark.skipif(not shutil.which("nfcapd"), reason="nfdump isn't installed")
def test_nfdump(ports, tmp_path):
    """A collector of other people's making reads the same figures."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    nfcapd = subprocess.Popen(["nfcapd", "-w", str(tmp_path), "-b", "127.0.0.1", "-p", str(port), "-T", "all"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_for(lambda: str(port) in run("ss", "-Hlun"), 20 * SLOW, "nfcapd to listen")
        ports.weirctl("flow", "add", "--network", "blue", "udp,nw_src=1.2.3.4,nw_dst=10.0.0.9,tp_src=99,tp_dst=23", "drop")
        ports.weirctl("export", "add", "x", "--target", f"udp:127.0.0.1:{port}")
        send(ports, "a", [ip("10.0.0.1", f"10.0.0.{n}", "udp", sport=4000 + n, dport=53, size=100 + n) for n in range(2, 12) for _ in range(n)])
        wait_for(lambda: ports.weirctl("export", "list", json=True)[0]["records"] >= 10 and not ports.ask("cache/list"), 20 * SLOW, "all flows to end")
        # What was handed over lies in the collector's socket, on the same machine.
        wait_for(lambda: not any(f":{port} " in line and line.split()[0] != "0" for line in run("ss", "-Hun").splitlines()), 10 * SLOW, "it to be read")
    finally:
        nfcapd.send_signal(signal.SIGTERM)
        text, _ = nfcapd.communicate(timeout=20 * SLOW)
    (file,) = [f for f in tmp_path.iterdir() if f.name.startswith("nfcapd.")]
    rows = objects(run("nfdump", "-r", file, "-o", "json", "-q"))
    seen = {r["src_port"]: r for r in rows}
    assert len(rows) == 10, (rows, text)
    for n in range(2, 12):
        r = seen[4000 + n]
        assert (r["src4_addr"], r["dst4_addr"], r["dst_port"], r["proto"]) == ("10.0.0.1", f"10.0.0.{n}", 53, 17), r
        assert (r["in_packets"], r["in_bytes"]) == (n, n * (100 + n)), r
        assert r["in_src_mac"] == mac(1) and r["input_snmp"] and r["output_snmp"], r
