"""No black holes: for each way that a packet may go, one of exactly the MTU that the switch tells arrives, and one byte more has an answer, fragments or a reason.

    s 10.0.0.5 -- src --.
                         \\
    nN 10.N.0.5 -- net N -+-- [ Weir ] --+-- fN 10.N.0.9: plain, dot1q (tagged), MTU 1,400
       (bridged)    \\     |               +-- w, network under:           192.0.2.1N, the other end of tunnels over IPv4
                     '- router r         +-- w6, network under6, tagged: fd00::1N,   of those over IPv6
                       (routed)

Stations are wires. Those behind tunnels are 10.N.0.9 too; what is told is `weirctl port mtu nN`, as of a guest's port.
"""

import socket
import struct
from dataclasses import dataclass

import pytest
from scapy.all import ARP, GRE, ICMP, IP, TCP, UDP, VXLAN, Ether, ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6, Raw, in6_getnsma, in6_getnsmac, raw
from scapy.contrib.geneve import GENEVE

from net import BROADCAST, SLOW, mac, run, wait_for
from topology import router_port, tunnel_ips

UNDERLAY, NARROW = 1500, 1400
VTEP = {4: "02:00:00:00:02:04", 6: "02:00:00:00:02:06"}  # the router's ports in the underlay
HEADER = {"vxlan": 16, "geneve": 16, "gre": 8}


@dataclass
class Way:
    """N, what is at the far end, and over which IP version it is a tunnel; 0: none."""
    n: int
    kind: str
    v: int = 0

    @property
    def network(self):
        return f"{self.kind}{self.v or ''}"

    @property
    def gateway(self):
        return f"02:00:00:00:01:{self.n:02x}"

    @property
    def limit(self):
        """What has to come out: Ethernet's header is in the tunnel too."""
        return UNDERLAY - (20 if self.v == 4 else 40) - HEADER[self.kind] - 14 if self.v else NARROW


WAYS = [Way(1, "plain"), Way(2, "dot1q"), *(Way(3 + i, kind, v) for i, (kind, v) in enumerate((k, v) for k in HEADER for v in (4, 6)))]
WRONG = {"v4df": "answer", "v6": "answer", "v4": "fragments", "other": "dropped"}


@pytest.fixture(scope="module")
def world(lab):
    lab.network("under")
    lab.network("under6", "vlan=66")
    lab.network("src")
    lab.weirctl("router", "add", "underlay", "--", "router", "add", "r")
    router_port(lab, "u4", "underlay", "under", "192.0.2.1/24", "--mac", VTEP[4])
    router_port(lab, "u6", "underlay", "under6", "fd00::1/64", "--mac", VTEP[6])
    tunnel_ips(lab, "192.0.2.1", "fd00::1")
    ends = [w for w in WAYS if w.v]
    lab.tap("w", "--network", "under", "--address", " ".join([mac(7), *(f"192.0.2.1{w.n}" for w in ends if w.v == 4)]))
    lab.tap("w6", "--network", "under6", "--vlan-mode", "native-tagged", "--trunks", "under6", "--address", " ".join([mac(7), *(f"fd00::1{w.n}" for w in ends if w.v == 6)]))
    lab.tap("s", "--network", "src")
    router_port(lab, "gw0", "r", "src", "10.0.0.1/24", "fda0::1/64", "--mac", "02:00:00:00:01:00")
    for w in WAYS:
        remote = f"192.0.2.1{w.n}" if w.v == 4 else f"fd00::1{w.n}"
        lab.network(w.network, *((f"vni={w.n}", f"tunnel={w.kind}", f"flood_to={remote}") if w.v else ("vlan=10",) if w.kind == "dot1q" else ()))
        lab.tap(f"n{w.n}", "--network", w.network)
        router_port(lab, f"gw{w.n}", "r", w.network, f"10.{w.n}.0.1/24", f"fda{w.n}::1/64", "--mac", w.gateway)
        if w.v:
            lab.weirctl("fdb", "add", w.network, mac(9), "--tunnel", remote)
        else:
            lab.tap(f"f{w.n}", "--network", w.network, "--mtu", NARROW, "--address", f"{mac(9)} 10.{w.n}.0.9 fda{w.n}::9",
                    *(("--vlan-mode", "native-tagged", "--trunks", w.network) if w.kind == "dot1q" else ()))
    wait_for(lambda: len(t := lab.ask("tunnel/list")) == len(ends) and all(x["state"] == "up" for x in t), 10 * SLOW, lambda: lab.ask("tunnel/list"))
    for name in lab.wire:  # stations send what they like
        run("ip", "link", "set", "dev", name, "mtu", 9000)
    return lab


def far(lab, w):
    return lab.wire[("w" if w.v == 4 else "w6") if w.v else f"f{w.n}"]


def wrapped(w, inner):
    """As the other end of the tunnel sends it."""
    outer = Ether(src=mac(7), dst=VTEP[w.v]) / (IP(src=f"192.0.2.1{w.n}", dst="192.0.2.1") if w.v == 4 else IPv6(src=f"fd00::1{w.n}", dst="fd00::1"))
    if w.kind == "gre":
        return outer / GRE(key_present=1, key=w.n, proto=0x6558) / inner
    udp = UDP(sport=50000, dport=4789 if w.kind == "vxlan" else 6081)
    return outer / udp / (VXLAN(vni=w.n, flags=8) if w.kind == "vxlan" else GENEVE(vni=w.n, proto=0x6558)) / inner


def unwrapped(w, data):
    """(inner frame, bytes of layer 3 on the wire), None: it's something else."""
    if w.v == 6 or w.kind == "dot1q":
        if data[12:14] != b"\x81\x00":
            return None
        data = data[:12] + data[16:]
    if not w.v:
        return data, len(data) - 14
    if data[12:14] != (b"\x08\x00" if w.v == 4 else b"\x86\xdd") or data[23 if w.v == 4 else 20] != (47 if w.kind == "gre" else 17):
        return None
    return data[14 + (20 if w.v == 4 else 40) + HEADER[w.kind]:], len(data) - 14


def hello(lab, w):
    """The station behind a tunnel asks for its router, which then knows where it is."""
    asks = [Ether(src=mac(9), dst=BROADCAST) / ARP(op=1, hwsrc=mac(9), psrc=f"10.{w.n}.0.9", pdst=f"10.{w.n}.0.1")]
    group = in6_getnsma(socket.inet_pton(socket.AF_INET6, f"fda{w.n}::1"))
    asks.append(Ether(src=mac(9), dst=in6_getnsmac(group)) / IPv6(src=f"fda{w.n}::9", dst=f"ff02::1:ff00:1", hlim=255) /
                ICMPv6ND_NS(tgt=f"fda{w.n}::1") / ICMPv6NDOptSrcLLAddr(lladdr=mac(9)))
    for ask in asks:
        data = raw(wrapped(w, ask))
        far(lab, w).send(data[:12] + b"\x81\x00\x00\x42" + data[12:] if w.v == 6 else data)

    def known():
        here = [n for n in lab.ask("neighbour/list") if n.get("mac") == mac(9) and n["ip"] in (f"10.{w.n}.0.9", f"fda{w.n}::9")]
        return len(here) == 2
    wait_for(known, 10 * SLOW, lambda: lab.ask("neighbour/list"))


def packet(w, routed, inner, size):
    """A frame with so many bytes of layer 3."""
    src, dst = (mac(1), "02:00:00:00:01:00") if routed else (mac(5), mac(9))
    net = 0 if routed else w.n
    ether = Ether(src=src, dst=dst)
    if inner == "other":
        return raw(ether)[:12] + b"\x88\xb5" + bytes(i & 255 for i in range(size))
    head = IPv6(src=f"fda{net}::5", dst=f"fda{w.n}::9") if inner == "v6" else IP(src=f"10.{net}.0.5", dst=f"10.{w.n}.0.9", id=77, flags="DF" if inner == "v4df" else 0)
    empty = len(raw(ether / head / UDP(sport=1, dport=2))) - 14
    return raw(ether / head / UDP(sport=1, dport=2) / Raw(bytes(i * 7 & 255 for i in range(size - empty))))


def payload(data):
    """What routing doesn't change, and a place in the whole: (offset, more, bytes behind the IP header)."""
    if data[12:14] != b"\x08\x00":
        return 0, False, data[14 + (40 if data[12:14] == b"\x86\xdd" else 0):]
    total, = struct.unpack_from("!H", data, 16)
    fragment, = struct.unpack_from("!H", data, 20)
    return (fragment & 0x1fff) * 8, bool(fragment & 0x2000), data[34:14 + total]


def ours(w, frames, ethertype):
    """Of what arrived at the far end: [(frame in it, bytes on the wire)]."""
    got = [u for u in (unwrapped(w, f) for f in frames) if u]
    return [(inner, size) for inner, size in got if inner[12:14] == ethertype and inner[:6] == bytes.fromhex(mac(9).replace(":", "")) and
            (ethertype != b"\x86\xdd" or inner[20] == 17) and (ethertype != b"\x08\x00" or inner[23] == 17)]


def send(lab, w, near, data, settled):
    """What it becomes: (frames at the far end, answers at the near end, drops)."""
    drops, before = lab.drops(near), lab.stats(near)
    for wire in lab.wire.values():
        wire.clear()
    lab.wire[near].send(data)
    lab.settle(near, before["rx_packets"] + 1)
    arrived, answers = [], []

    def done():
        arrived.extend(ours(w, far(lab, w).received(), data[12:14]))
        answers.extend(f for f in lab.wire[near].received() if too_big(f))
        return settled(arrived, answers)
    wait_for(done, 5 * SLOW, lambda: f"arrived {[(len(f), s) for f, s in arrived]}, answers {answers}, drops {lab.drops(near)}", 0.005)
    cost = {reason: n - drops.get(reason, 0) for reason, n in lab.drops(near).items() if n != drops.get(reason, 0)}
    return arrived, answers, cost


def too_big(data):
    """The MTU that an answer tells, or None."""
    p = Ether(data)
    if ICMP in p and (p[ICMP].type, p[ICMP].code) == (3, 4):
        return p[ICMP].nexthopmtu
    if data[12:14] == b"\x86\xdd" and data[20] == 58 and data[54] == 2:
        return struct.unpack_from("!I", data, 58)[0]
    return None


@pytest.fixture
def way(world, request):
    w = request.param
    if w.v:
        hello(world, w)
    return w


@pytest.mark.parametrize("routed, inner", [(routed, inner) for routed in (False, True) for inner in WRONG if not routed or inner != "other"])
@pytest.mark.parametrize("way", WAYS, ids=lambda w: w.network, indirect=True)
def test_limit(world, way, routed, inner):
    lab, w, near = world, way, "s" if routed else f"n{way.n}"
    limit = w.limit
    if w.v:  # what a guest there is told
        assert lab.weirctl("port", "mtu", f"n{w.n}") == f"{limit}\n"
    whole = packet(w, routed, inner, limit)
    arrived, answers, cost = send(lab, w, near, whole, lambda a, _: a)
    (frame, size), = arrived
    assert payload(frame) == payload(whole) and not answers and not cost
    assert size == (UNDERLAY if w.v else limit)  # the wire is full: not a byte is given away

    more = packet(w, routed, inner, limit + 1)
    wanted = WRONG[inner]
    if wanted == "fragments" and not routed and not w.v:
        wanted = "dropped"  # no bridge fragments
    arrived, answers, cost = send(lab, w, near, more, {"answer": lambda _, b: b, "fragments": lambda a, _: len(a) > 1,
                                                      "dropped": lambda *_: True}[wanted])
    if wanted == "fragments":
        pieces = sorted(payload(f) for f, _ in arrived)
        assert b"".join(piece for _, _, piece in pieces) == payload(more)[2] and [m for _, m, _ in pieces] == [True] * (len(pieces) - 1) + [False]
        assert all(size <= (UNDERLAY if w.v else limit) for _, size in arrived) and not answers and not cost
    else:
        assert not arrived and cost == {"mtu.TOO_LARGE": 1} and [too_big(a) for a in answers] == ([limit] if wanted == "answer" else [])


@pytest.mark.parametrize("routed", [False, True], ids=["bridged", "routed"])
@pytest.mark.parametrize("way", WAYS, ids=lambda w: w.network, indirect=True)
def test_mss(world, way, routed):
    """A connection's SYN says no more than fits, so that it needs no answers."""
    lab, w, near = world, way, "s" if routed else f"n{way.n}"
    net = 0 if routed else w.n
    for ip, headers in ((IP(src=f"10.{net}.0.5", dst=f"10.{w.n}.0.9"), 40), (IPv6(src=f"fda{net}::5", dst=f"fda{w.n}::9"), 60)):
        ether = Ether(src=mac(1), dst="02:00:00:00:01:00") if routed else Ether(src=mac(5), dst=mac(9))
        syn = raw(ether / ip / TCP(sport=1000, dport=80, flags="S", options=[("MSS", 8960)]))
        far(lab, w).clear()
        lab.wire[near].send(syn)

        def said():
            for f in far(lab, w).received():
                u = unwrapped(w, f)
                if u and u[0][12:14] == syn[12:14] and TCP in (p := Ether(u[0])):
                    return dict(p[TCP].options)["MSS"]
        assert wait_for(said, 5 * SLOW, "the SYN", 0.005) == w.limit - headers


def test_too_large_for_all(world):
    """Broadcast, which nobody may answer: the ports that it fits get it, the others cost a reason."""
    lab = world
    data = raw(Ether(src=mac(5), dst=BROADCAST) / IP(src="10.1.0.5", dst="10.1.0.255", flags="DF") / Raw(bytes(NARROW + 1 - 20)))
    _, answers, cost = send(lab, WAYS[0], "n1", data, lambda *_: True)
    assert cost == {"mtu.TOO_LARGE": 1} and not answers
    lab.check_conservation()
