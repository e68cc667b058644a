"""explain says what will happen: the real stages on a worker that changes nothing."""

import json
import os
import random
import struct
from pathlib import Path

import pytest
from scapy.all import IP, SCTP, TCP, UDP, Ether, IPv6, Raw, raw, wrpcap, wrpcapng

from corpus import PARSE_REASONS, WRONG, corpus
from net import BROADCAST, LONG, SLOW, Lab, Timeout, frame, mac, run, wait_for
from test_vhost_ports import partial, plug
from vguest import Guest

SEED = int(os.environ.get("WEIR_SEED", random.randrange(1 << 32)))
PREDICTIONS = 10000 if LONG else 360
GUESTS = ["vm1", "vm2"]


@pytest.fixture(scope="module")
def ports(lab):
    lab.network("red", "vlan=10")
    lab.network("blue", "vlan=20", "--unknown-unicast", "drop", "--mtu", "1400")
    lab.tap("a", "--network", "red", f"addresses={mac(1)}")
    lab.tap("b", "--network", "red", f"addresses={mac(2)}")
    lab.tap("iso", "--network", "red", "--isolated", f"addresses={mac(3)}")
    lab.tap("iso2", "--network", "red", "--isolated", f"addresses={mac(4)}")
    lab.tap("c", "--network", "blue", f"addresses={mac(5)}")
    lab.tap("trk", "--vlan-mode", "trunk")
    lab.tap("nat", "--vlan-mode", "native-untagged", "--network", "blue", "--trunks", "red")
    lab.tap("off", "--network", "red", f"addresses={mac(6)}")
    lab.weirctl("port", "set", "off", "enabled=false")
    lab.weirctl("fdb", "add", "red", mac(7), "trk")
    return lab


TAGS = [(10,), (20,), (30,), (40,), (5,), (4095,), (0,), (0x600a,), ((0x88a8, 10), 5), (10, 7), ((0x88a8, 5), 6)]
RULES = [
    [],
    [("green", "priority=10,udp,tp_dst=53", "set_field:10.9.9.9->nw_dst,mod_tp_dst:5353"),
     ("green", "priority=20,tcp", f"mod_dl_src:{mac(77)},mod_nw_src:1.2.3.4,mod_nw_tos:0xb8,output:g2,mod_tp_src:7,normal"),
     ("green", "priority=30,icmp", "mirror:trk,drop"),
     ("green", "priority=5,ipv6", f"set_field:fd00::99->ipv6_dst,mod_dl_dst:{mac(14)},mod_vlan_vid:99"),
     (None, "priority=40,arp,arp_op=2", "drop")],
    [("green", "priority=10,sctp", "output:nat"), ("green", "priority=10,class=first-fragment", "drop"), ("green", "priority=3,ip", "flood"),
     ("red", "priority=10,udp,nw_src=10.0.0.0/8", "strip_vlan,flood"), ("red", "priority=9,ipv6", "in_port"),
     ("red", "priority=8,in_port=a,tcp", "output:b,mod_nw_dst:10.1.1.1,output:iso,mod_vlan_vid:7,output:trk"),
     ("red", "priority=50,dl_type=0x88b6", "mod_vlan_vid:123,output:trk"), ("red", "priority=50,dl_type=0x88b7", "drop"),
     ("blue", "priority=7,dl_vlan=20,udp", "mod_nw_tos:0x20,mirror:a,normal"), ("blue", "priority=6,tcp,tp_dst=80/0xfff0", "output:c")],
]


# What the dice may leave out, with the last of the rules: kind, port, frame.
DIRECTED = {
    "isolation.ISOLATED": ("iso", frame(3, 4)), "mtu.TOO_LARGE": ("trk", frame(99, 5, 20, size=1514)), "set": ("natt", frame(97, BROADCAST, 10, ethertype=0x88b6)),
    "qinq": ("qq", frame(96, BROADCAST, 5)), "vlan.DISABLED": ("off", frame(14, 1)), "tx.DISCONNECTED": ("a", frame(1, 20)),
    "fdb.SAME_PORT": ("a", frame(2, 1)), "vlan.CUSTOMER": ("qq", frame(96, 5, 77)), "vlan.NO_NETWORK": ("trk", frame(99, 5)),
    "vlan.ZERO_SOURCE": ("a", frame("00:00:00:00:00:00", 2)), "vlan.GROUP_SOURCE": ("a", frame("01:00:5e:00:00:01", 2)),
    "vlan.RESERVED": ("a", frame(1, "01:80:c2:00:00:00")), "vlan.NOT_ALLOWED": ("a", frame(1, 2, 99)), "fdb.UNKNOWN": ("c", frame(5, 0x999)),
    "output.DISABLED": ("a", frame(1, 14)), "rule.DROP": ("a", frame(1, 2, ethertype=0x88b7)),
}


@pytest.fixture(scope="module")
def mixed():
    """Ports of every VLAN mode in four networks with different fields in their keys, and guests that ask for checksums and segments."""
    with Lab() as lab:
        lab.network("red", "vlan=10", "--ageing", "0")
        lab.network("blue", "vlan=20", "--unknown-unicast", "drop", "--mtu", "1400", "--ageing", "0")
        lab.network("green", "vlan=30", "--ageing", "0")
        lab.network("grey", "vlan=40", "--no-learning", "other_config:forward-bpdu=true")
        for number, (name, *settings) in enumerate([
                ("a", "--network", "red"), ("b", "--network", "red"), ("iso", "--network", "red", "--isolated"), ("iso2", "--network", "red", "--isolated"),
                ("c", "--network", "blue"), ("g1", "--network", "green"), ("g2", "--network", "green"), ("x1", "--network", "grey"),
                ("x2", "--network", "grey"), ("trk", "--vlan-mode", "trunk"), ("nat", "--vlan-mode", "native-untagged", "--network", "blue"),
                ("natt", "--vlan-mode", "native-tagged", "--network", "green", "--trunks", "red"),
                ("qq", "--vlan-mode", "dot1q-tunnel", "--network", "grey", "cvlans=0,5,10"), ("off", "--network", "red")], 1):
            lab.tap(name, *settings, *([f"addresses={mac(number)}"] if name != "trk" else []))
        lab.weirctl("port", "set", "off", "enabled=false")
        lab.weirctl("port", "add", "nobody", "--network", "red", f"addresses={mac(20)}")
        for n, name in enumerate(GUESTS):
            lab.weirctl("port", "add", name, "--network", "green", f"addresses={mac(21 + n)}")
        with Guest(*(f"path={lab.path(name)}.sock,server=1" for name in GUESTS)) as lab.guest:
            for name in GUESTS:
                wait_for(lambda n=name: lab.port(n)["link_state"] == "up", 20 * SLOW, lambda n=name: lab.port(n)["words"])
            yield lab


def as_guest(data, csum, mss):
    """A packet for a guest that cuts it itself, without the sum in it: the vhost library writes that of the pseudo-header anew, in its own way."""
    tag = 4 if data[12:14] == b"\x81\0" else 0
    at = tag + (70 if data[tag + 12:tag + 14] == b"\x86\xdd" else 50)
    return (data[:at] + b"\0\0" + data[at + 2:] if mss else data), csum, mss


class Prediction:
    """What explain said of a packet, in the form of what then happens."""

    def __init__(self, said):
        self.said, self.out, self.drops = said, {}, {}
        for o in said["out"]:
            self.out.setdefault(o["port"], []).append(as_guest(bytes.fromhex(o["hex"]), o["checksum_left"], o["segment_size"]))
        for d in said["drops"]:
            self.drops[d["reason"]] = self.drops.get(d["reason"], 0) + 1
        self.out = {port: sorted(frames) for port, frames in self.out.items()}

    def kinds(self):
        """What it is an example of: the suite wants to see all of them."""
        changes = [s["text"] for s in self.said["steps"] if s["stage"] == "change"]
        for text in changes:
            if text.startswith("dl_vlan"):
                yield "push" if text.startswith("dl_vlan none") else "pop" if text.endswith("none") else "qinq" if "+" in text else "set"
            else:
                yield "field"
        yield f"to {min(len(self.out), 3)}"
        yield from self.drops
        for frames in self.out.values():
            for _, csum, mss in frames:
                yield "segments left" if mss else "checksum left" if csum else "whole"


def asking(dice):
    """A packet of a guest that leaves its checksum to others, or segmentation too: (frame, csum, tso)."""
    e = Ether(src=mac(21), dst=dice.choice([mac(22), mac(dice.randrange(1, 22)), BROADCAST]))
    ip = dice.choice([IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")])
    size = dice.choice([0, 10, 1000, 1440, 4000, 9000])
    if dice.random() < 0.3:
        data, start, offset = partial(e / ip / UDP(sport=5, dport=dice.choice([53, 99])) / Raw(bytes(size)))
        return data, (start, offset), None
    data, start, offset = partial(e / ip / TCP(sport=5, dport=80, flags=dice.choice(["S", "A", "FA"])) / Raw(dice.randbytes(size)))
    return data, (start, offset), (dice.choice([20, 536, 1400, 1460]), start + 20) if size > 1000 else None


def source_of(lab, dice, frames):
    """(port, frame, csum, tso): who sends what."""
    if dice.random() < 0.1:
        reason, data = dice.choice(WRONG)
        if len(data) < 20:  # the kernel takes no shorter ones: with a tag added they have to have a byte behind it
            return dice.choice(GUESTS), data, None, None
        return dice.choice([*lab.wire, *GUESTS]), data, None, None
    if dice.random() < 0.1:
        return "vm1", *asking(dice)
    data = next(frames)
    if dice.random() < 0.1:
        return "vm1", data, None, None
    return dice.choice(list(lab.wire)), data, None, None


class Sender:
    """Sends packets of which explain has said what would happen, and sees what does."""

    def __init__(self, lab):
        self.lab, self.drops = lab, lab.drops()
        self.received = {port: lab.stats(port)["rx_packets"] for port in [*lab.wire, *GUESTS]}
        self.seen, self.count = set(), 0

    def clear(self):
        for wire in self.lab.wire.values():
            wire.clear()
        for n in range(len(GUESTS)):
            self.lab.guest.rx(n)

    def explain(self, port, data, csum, tso):
        options = (["--csum"] if csum else []) + (["--tso", str(tso[0])] if tso else [])
        return Prediction(self.lab.ask("explain", "--port", port, *options, bytes(data).hex()))

    def got(self, want):
        """{port: [(bytes, checksum left, segment size)]}, sorted. want: the same as it should be, as guests poll in their own time."""
        got = {name: sorted((data, False, 0) for data in frames) for name, wire in self.lab.wire.items() if (frames := wire.received())}
        for n, name in enumerate(GUESTS):
            frames = []
            try:
                wait_for(lambda n=n, f=frames, w=len(want.get(name, [])): f.extend(self.lab.guest.rx(n)) or len(f) >= w, 2 * SLOW, "frames", 0.0005)
            except Timeout:
                pass
            if frames:
                got[name] = sorted(as_guest(data, "p" in flags, mss) for _, flags, mss, data in frames)
        return got

    @staticmethod
    def differs(a, b):
        """Of each port where a isn't b what is in a."""
        return {port: [(data.hex(), csum, mss) for data, csum, mss in frames] for port, frames in a.items() if frames != b.get(port)}

    def send(self, port, data, csum=None, tso=None):
        """False: the kernel doesn't send it there."""
        said = self.explain(port, data, csum, tso)
        try:
            if port in GUESTS:
                assert self.lab.guest.tx(GUESTS.index(port), data, csum=csum, tso=tso) == 1
            else:
                self.lab.wire[port].send(data)
        except OSError:
            return False
        self.received[port] += 1
        self.lab.settle(port, self.received[port])
        drops = self.lab.drops()
        lost = {r: n - self.drops.get(r, 0) for r, n in drops.items() if n != self.drops.get(r, 0)}
        self.drops = drops
        want = said.out
        got = self.got(want)
        if (got, lost) != (want, said.drops):
            pytest.fail(f"WEIR_SEED={SEED}, packet {self.count} on {port}, csum={csum}, tso={tso}: {bytes(data).hex()}\n"
                        f"explain said: {self.differs(want, got)} and drops {said.drops}\nit happened:  {self.differs(got, want)} and drops {lost}\n"
                        + "\n".join(f"  {s['stage']:10} {s['text']}" for s in said.said["steps"]), pytrace=False)
        self.seen |= set(said.kinds())
        self.count += 1
        return True


def set_rules(lab, rules):
    lab.weirctl("flow", "del", "all")
    for network, match, actions in rules:
        lab.weirctl("flow", "add", *(["--network", network] if network else []), match, actions)


def test_prediction(mixed):
    """What explain says of a packet is what then happens: the ports and every byte there, or the reasons that it was dropped for."""
    print(f"WEIR_SEED={SEED}")
    dice = random.Random(SEED)
    frames = corpus(SEED, [mac(n) for n in range(1, 30)] + ["01:00:5e:00:00:01", "00:00:00:00:00:00"],
                    [mac(n) for n in range(1, 24)] + ["01:80:c2:00:00:00", "01:80:c2:00:00:20"], TAGS)
    sender = Sender(mixed)
    sender.clear()
    total = PREDICTIONS // len(RULES)
    for rules in RULES:
        set_rules(mixed, rules)
        for _ in range(total):
            sender.send(*source_of(mixed, dice, frames))
    for reason, data in WRONG:  # each of them, whatever the dice say
        said = sender.explain("vm1", data, None, None)
        assert said.drops == {f"parse.{reason}": 1}, (reason, data.hex(), said.said)
        assert sender.send("vm1", data)
    for data, csum, tso, reason in (*asking_wrong(),):
        assert sender.explain("vm1", data, csum, tso).drops == {f"parse.{reason}": 1}
        assert sender.send("vm1", data, csum, tso)
    for kind, (port, data) in DIRECTED.items():
        assert kind in set(sender.explain(port, data, None, None).kinds()), (kind, port, data.hex())
        assert sender.send(port, data), kind
    mixed.check_conservation()
    print(f"{sender.count} packets; {sorted(sender.seen)}")
    assert {f"parse.{reason}" for reason in PARSE_REASONS} <= sender.seen  # each of them
    wanted = {"push", "pop", "field", "to 0", "to 1", "to 3", "whole", "checksum left", "segments left", *DIRECTED}
    assert wanted <= sender.seen, wanted - sender.seen


def asking_wrong():
    """What a guest may ask for and doesn't get: segments that are too small, a checksum that is none of the internet's."""
    data, start, offset = partial(Ether(src=mac(21), dst=mac(6)) / IP(dst="10.0.0.2") / TCP() / Raw(bytes(3000)))
    yield data, (start, offset), (20, start + 20), "GSO"
    yield raw(Ether(src=mac(21), dst=mac(6)) / IP(dst="10.0.0.2") / SCTP() / Raw(bytes(100))), (34, 8), None, "CSUM"


def test_match_syntax(ports):
    """Each description makes the packet that it says; its bytes are shown by what the stages see of them."""
    for match, words in {
        f"dl_src={mac(1)},dl_dst={mac(2)}": ["60 bytes on port a", f"{mac(1)} > {mac(2)}", "output to b"],
        "arp,arp_spa=10.0.0.1,arp_tpa=10.0.0.2": ["type 0x0806", "class ARP", "flooded"],
        f"icmp,dl_dst={mac(2)},nw_src=10.0.0.1,nw_dst=10.0.0.2": ["type 0x0800, protocol 1", "output to b"],
        f"tcp,dl_dst={mac(2)},tcp_dst=443,tcp_flags=syn": ["protocol 6", "class tcp-syn"],
        f"udp,dl_dst={mac(2)},udp_dst=53": ["protocol 17"],
        f"tcp6,dl_dst={mac(2)},ipv6_src=fd00::1,ipv6_dst=fd00::2,tcp_dst=80": ["type 0x86dd, protocol 6"],
        f"icmp6,dl_dst={mac(2)},icmpv6_type=135": ["type 0x86dd, protocol 58"],
        f"sctp,dl_dst={mac(2)}": ["protocol 132"],
        f"udp,dl_dst={mac(2)},nw_frag=later": ["fragment"],
        f"udp,dl_dst={mac(2)},packet_len=1514": ["1514 bytes", "1500 bytes against MTU 1500 of b: fits"],
        f"udp,dl_dst={mac(2)},packet_len=1515": ["1501 bytes against MTU 1500 of b: too large", "(mtu.TOO_LARGE)"],
        f"dl_vlan=10,dl_dst={mac(2)}": ["VLAN 10: no network", "(vlan.NOT_ALLOWED)"],
        f"dl_dst={mac(7)}": ["output to trk, tagged with VLAN 10"],
    }.items():
        text = ports.explain("a", match)
        for word in words:
            assert word.lower() in text.lower(), f"{match}: no \"{word}\" in\n{text}"
        assert ports.explain("a", match, json=True)["port"] == "a"


def test_hex(ports):
    data = frame(1, 2)
    assert ports.explain("a", data) == ports.explain("a", data.hex(":")) == ports.explain("a", data.hex(" ", 2).upper())


def test_rows_that_decided(ports):
    """Each decision with the rows of the database that made it."""
    text = ports.explain("iso", frame(3, 4))
    assert "(isolation.ISOLATED)" in text
    for table, name in (("Port", "iso"), ("Port", "iso2"), ("Network", "red")):
        assert f"decided by {table} {name}, row {ports.row(table, name)['_uuid']}" in text, text


@pytest.mark.parametrize("words, sentence", [
    ([], "explain needs more: weirctl explain --port PORT"),
    (["--port"], "--port wants a value"),
    (["--port", "a"], "say which packet"),
    (["--port", "nobody", "arp"], "there is no port nobody"),
    (["--port", "a", "arpp"], "arpp"),
    (["--port", "a", "tcp,tcp_dst=99999"], "99999"),
    (["--port", "a", "tcp,nw_src=10.0.0.256"], "10.0.0.256"),
    (["--port", "a", "dl_src=52:54:00"], "52:54:00"),
    (["--port", "a", "arp,tcp_dst=1"], "tcp_dst"),
    (["--port", "a", "0011223"], "half a byte is missing"),
    (["--port", "a", "packet_len=100000"], "packet_len"),
    (["--port", "a", "--tso", "x", "tcp"], "--tso wants the size of a segment"),
    (["--port", "a", "--wrong", "tcp"], "explain doesn't know --wrong"),
    (["--port", "a", "icmp6,nd_target=fd00::1"], "nd_target needs icmpv6_type=135 or 136"),
])
def test_bad_input(ports, words, sentence):
    done = ports.weirctl("explain", *words, check=False)
    assert done.returncode == 1 and not done.stdout
    assert sentence in done.stderr and len(done.stderr.splitlines()) <= 2, done.stderr


def test_short_hex(ports):
    """A runt can't be made by description, but by its bytes."""
    done = ports.weirctl("explain", "--port", "a", "001122334455", check=False)
    assert "(parse.RUNT)" in done.stdout or done.returncode == 1, done


def test_json(ports):
    data = json.loads(ports.weirctl("-f", "json", "explain", "--port", "a", f"dl_src={mac(1)},dl_dst={mac(2)}"))
    assert data["port"] == "a" and data["bytes"] == 60
    assert [step["stage"] for step in data["steps"]][0] == "rx" and data["steps"][-1]["text"] == "out by b"
    assert all(set(step) == {"stage", "text", "ns", "took_ns"} for step in data["steps"])


def test_assumed(ports):
    """What a description leaves out is filled in with what the switch knows, and it says so."""
    for name, n in (("d", 31), ("e", 32)):
        ports.tap(name, "--network", "red", "--address", f"{mac(n)} 10.1.0.{n} fd00:1::{n}")
    try:
        for match, words in {
            "tcp,nw_dst=10.1.0.32,tp_dst=443": ["nw_src=10.1.0.31: an address of port d", f"dl_src={mac(31)}: the station at the port that has the source address",
                                                f"dl_dst={mac(32)}: has that address, at port e", "output to e"],
            "udp6,ipv6_dst=fd00:1::32": [f"ipv6_src=fd00:1::31: an address of port d", f"dl_dst={mac(32)}: has that address", "output to e"],
            "udp,nw_src=10.1.0.31,nw_dst=10.9.9.9": [f"dl_dst={BROADCAST}: everybody, as it is not known who has that address", "flooded"],
            "dl_type=0x88b5": [f"dl_src={mac(31)}: a static address of the port", f"dl_dst={BROADCAST}: everybody, as no destination is given"],
            "arp,arp_tpa=10.1.0.32": ["nw_src=10.1.0.31", "class arp", "flooded"],
            "dl_vlan=7,udp": ["dl_src=02:00:00:00:", "made up, as no address is known on the port", "everybody, as the packet is in no network"],
        }.items():
            said = ports.explain("d", match)
            for word in words:
                assert word in said, f"{match}: no \"{word}\" in\n{said}"
        data = ports.explain("d", "tcp,nw_dst=10.1.0.32", json=True)
        assert len(data["assumed"]) == 3 and data["out"][0]["port"] == "e"
        frame_ = bytes.fromhex(data["out"][0]["hex"])
        assert Ether(frame_)[IP].src == "10.1.0.31" and Ether(frame_).dst == mac(32) and len(frame_) == data["out"][0]["length"]
        # Nothing is assumed of what is given.
        assert "assumed" not in ports.explain("d", frame(31, 32))
    finally:
        ports.delete("d", "e")
    # The only one that there is to talk to.
    ports.network("two")
    ports.tap("x", "--network", "two")
    ports.tap("y", "--network", "two")
    ports.wire["y"].send(frame(41, BROADCAST))
    ports.settle("y", 1)
    assert f"dl_dst={mac(41)}: the only address that is known at another port of the network, y" in ports.explain("x", "icmp,nw_dst=10.0.0.2")
    assert f"dl_src={mac(41)}: learned on the port" in ports.explain("y", "icmp,nw_dst=10.0.0.2")
    ports.delete("x", "y")


def test_bytes(ports):
    """--hex shows each packet as it leaves; changes are told field by field."""
    ports.weirctl("flow", "add", "--network", "red", "udp,tp_dst=53", f"mod_tp_dst:5353,mod_dl_dst:{mac(7)}")
    try:
        text = ports.weirctl("explain", "--port", "a", "--hex", f"udp,dl_src={mac(1)},dl_dst={mac(2)},udp_dst=53,nw_src=10.0.0.1,nw_dst=10.0.0.2")
    finally:
        ports.weirctl("flow", "del", "all")
    assert f"change     dl_dst {mac(2)} -> {mac(7)}, tp_dst 53 -> 5353\n" in text and "change     dl_vlan none -> 10\n" in text, text
    (line,) = [line for line in text.splitlines() if line.startswith("  bytes")]
    assert "trk, 64 bytes: " in line
    p = Ether(bytes.fromhex(line.split(": ")[1]))
    assert p.dst == mac(7) and p[UDP].dport == 5353 and p.vlan == 10


def test_reply(ports):
    """The answer goes back by the port where the packet came out, and finds what the packet would have taught the switch."""
    arp = ports.weirctl("explain", "--port", "a", "--reply", f"arp,dl_src={mac(90)},arp_spa=10.0.0.1,arp_tpa=10.0.0.2")
    assert "flooded" in arp and f"source {mac(90)} is new, learned on a" in arp
    there, back = arp.split("The answer: ")
    assert f"> {mac(90)}, type 0x0806" in back and f"destination {mac(90)} was learned on a" in back and "out by a" in back, back
    assert mac(90) not in ports.fdb("red")  # nothing has happened
    for match, words in {
        f"icmp,dl_src={mac(1)},dl_dst={mac(2)},nw_src=10.0.0.1,nw_dst=10.0.0.2": ["60 bytes on port b", "protocol 1", "out by a"],
        f"tcp,dl_src={mac(1)},dl_dst={mac(7)},tcp_dst=443": ["on port trk", "VLAN 10", "class tcp-syn", "dl_vlan 10 -> none", "out by a"],
        f"icmp6,dl_src={mac(1)},icmpv6_type=135,nd_target=fd00::2,ipv6_src=fd00::1": ["class nd", "out by a"],
        f"udp,dl_src={mac(1)},dl_dst={mac(2)},packet_len=1000": ["1000 bytes on port b"],
    }.items():
        text = ports.weirctl("explain", "--port", "a", "--reply", match).split("The answer: ")[1]
        for word in words:
            assert word in text, f"{match}: no \"{word}\" in\n{text}"
    for match, why in {f"dl_src={mac(1)},dl_dst={BROADCAST}": "it is for a group", "dl_vlan=5": "the packet reaches nobody",
                       f"tcp,dl_dst={mac(2)},tcp_flags=rst": "a reset of TCP is not answered", f"arp,arp_op=2,dl_dst={mac(2)}": "an ARP reply is an answer itself"}.items():
        assert f"No answer: {why}" in ports.weirctl("explain", "--port", "a", "--reply", match)
    data = json.loads(ports.weirctl("-f", "json", "explain", "--port", "a", "--reply", f"icmp,dl_src={mac(1)},dl_dst={mac(2)}"))
    assert data["reply"]["port"] == "b" and [o["port"] for o in data["reply"]["out"]] == ["a"]
    assert "group" in ports.ask("explain", "--reply", "--port", "a", f"dl_dst={BROADCAST}")["no_reply"]


def test_pcap(ports, tmp_path):
    """A packet out of a file, as if its bytes had been typed; what is wrong with a file is told in a sentence."""
    packets = [frame(1, 2), raw(Ether(src=mac(1), dst=mac(7)) / IP(dst="10.0.0.2") / TCP(dport=443)).ljust(60, b"\0")]
    file, ng = str(tmp_path / "a.pcap"), str(tmp_path / "a.pcapng")
    wrpcap(file, [Ether(p) for p in packets])
    wrpcapng(ng, [Ether(p) for p in packets])

    def said(name, *more):
        return ports.weirctl("explain", "--port", "a", "--pcap", name, *more)
    for name in (file, ng):
        assert said(name) == said(name, "--packet", "1") == ports.explain("a", packets[0])
        assert said(name, "--packet=2") == ports.explain("a", packets[1]) and "output to trk" in said(name, "--packet", "2")
    assert "The answer" in said(file, "--packet", "2", "--reply")
    cut, other, empty = str(tmp_path / "cut.pcap"), str(tmp_path / "ip.pcap"), str(tmp_path / "empty.pcap")
    Path(cut).write_bytes(Path(file).read_bytes()[:-10])
    wrpcap(other, [IP(dst="10.0.0.2") / UDP()], linktype=101)
    Path(empty).write_bytes(b"")
    snapped = str(tmp_path / "snap.pcap")
    whole = Path(file).read_bytes()
    Path(snapped).write_bytes(whole[:24] + whole[24:32] + struct.pack("=II", 40, 60) + whole[40:80])  # 40 of the first packet's 60 bytes
    done = ports.weirctl("explain", "--port", "a", "--pcap", snapped, check=False)
    assert done.returncode == 0 and "only 40 of the packet's 60 bytes were captured" in done.stderr and done.stdout == ports.explain("a", packets[0][:40] + bytes(20))
    for words, sentence in [
            ([file, "--packet", "3"], "has 2 packets, so there is no packet 3"), ([cut, "--packet", "2"], "is damaged: packet 2: truncated"),
            ([other], "has packets of link type RAW, not of Ethernet"), ([empty], "can't be read as a capture file"), (["/etc/passwd"], "can't be read"),
            ([str(tmp_path / "none")], "No such file"), ([str(tmp_path)], "can't be read"), ([file, "--packet", "0"], "from 1"), ([file, "--packet", "x"], "from 1"),
            ([file, "tcp"], "either described or taken from"), ([file, "--packet"], "--packet needs a value")]:
        done = ports.weirctl("explain", "--port", "a", "--pcap", *words, check=False)
        assert done.returncode == 1 and sentence in done.stderr and len(done.stderr.splitlines()) == 1 and not done.stdout, (words, done)
    assert "--packet says which" in ports.weirctl("explain", "--port", "a", "--packet", "1", "tcp", check=False).stderr


def test_ports_that_take_nothing(ports):
    """The state of the egress port: a guest without receive buffers, an interface that is down. What is said is what then happens."""
    with plug(ports, "vm", f"addresses={mac(51)}", network="red") as guest:
        run("ip", "link", "set", "dev", "b", "down")
        said = ports.explain("a", frame(1, 2))
        assert "waits in the queue of b" in said and "(tx.DEVICE)" in said and "b: the interface b is down or has no carrier" in said, said
        drops = ports.drops().get("tx.DEVICE", 0)
        ports.wire["a"].send(frame(1, 2))
        wait_for(lambda: ports.drops().get("tx.DEVICE", 0) == drops + 1, 10 * SLOW, "the drop")
        run("ip", "link", "set", "dev", "b", "up")
        assert "out by b" in ports.explain("a", frame(1, 2))
        assert "out by vm" in ports.explain("a", frame(1, 51))
        guest.stop(0)

        def full():
            ports.wire["a"].send(frame(1, 51))
            return "(tx.NO_BUFFERS)" in ports.explain("a", frame(1, 51))
        wait_for(full, 20 * SLOW, "the guest's ring to be full", 0)

        def dropped():
            ports.wire["a"].send(frame(1, 51))
            return ports.drops().get("tx.NO_BUFFERS", 0) > 0
        wait_for(dropped, 10 * SLOW, "packets to be dropped for it", 0.01)
        assert ports.ask("explain", "--port", "a", frame(1, 51).hex())["drops"][0]["reason"] == "tx.NO_BUFFERS"
        guest.go(0)
        wait_for(lambda: "out by vm" in ports.explain("a", frame(1, 51)), 20 * SLOW, "the guest to take packets again")
    ports.delete("vm")


def test_large_flood(ports):
    """A flood to many ports is explained whole."""
    words = []
    for n in range(120):
        words += [*(["--"] if words else []), "port", "add", f"many{n}", "--network", "red"]
    ports.weirctl(*words)
    try:
        said = ports.ask("explain", "--port", "a", frame(1, BROADCAST).hex())
        assert len(said["drops"]) == 120 and all(d["problem"].startswith("not connected") for d in said["drops"])
        assert "did not fit" not in ports.explain("a", frame(1, BROADCAST))
    finally:
        ports.delete(*(f"many{n}" for n in range(120)))


def test_nothing_changes(ports):
    """No address learned, no counter moved, no flow cached, no allowance used up."""
    ports.weirctl("port", "set", "a", "storm_control=broadcast=1,broadcast-burst=3")
    flows, fdb, drops, health = (ports.ask(m) for m in ("cache/list", "fdb/list", "drops", "health"))
    drops = [(d["port"], d["reason"], d["packets"]) for d in drops]
    stats = ports.ask("port/stats")
    for n in range(50):
        text = ports.explain("a", frame(100 + n, BROADCAST))
        assert "is new, learned on a" in text and "limit 1 packets/s: passes" in text
        ports.explain("c", frame(100, 101))
    assert [(r["mac"], r["port"]) for r in ports.ask("fdb/list")] == [(r["mac"], r["port"]) for r in fdb]
    assert [(d["port"], d["reason"], d["packets"]) for d in ports.ask("drops")] == drops and ports.ask("port/stats") == stats and ports.ask("health")["ledger"] == health["ledger"]
    wait_for(lambda: {(f["worker"], f["flow"]) for f in ports.ask("cache/list")} <= {(f["worker"], f["flow"]) for f in flows}, 5, "no new flow")
    ports.weirctl("clear", "Port", "a", "storm_control")


def test_disconnected(ports):
    """Explain knows of the egress port's state, as it is."""
    ports.weirctl("port", "add", "vm", "--network", "red", f"addresses={mac(9)}")
    assert "(tx.DISCONNECTED)" in ports.explain("a", frame(1, 9))
    ports.delete("vm")
