"""multicast: kernels in namespaces join and leave groups by IGMP and MLD of all versions (pipeline/multicast.c).

          h1 (sends)   h2 (joins)   h3 (never asks)   probe (scapy: routers, rubbish)
            \\             |             |              /
             +------------- network blue -------------+
"""

import ipaddress
import random
import socket
import struct
import time
from pathlib import Path

import pytest
from scapy.all import IP, UDP, Ether, IPOption_Router_Alert, IPv6, IPv6ExtHdrHopByHop, Raw, RouterAlert, checksum, conf, raw
from scapy.contrib.igmp import IGMP
from scapy.contrib.igmpv3 import IGMPv3, IGMPv3mq
from scapy.layers.inet6 import ICMPv6MLQuery2, ICMPv6Unknown

from net import SLOW, Lab, Namespace, Wire, mac, wait_for

conf.verb = 0
PORT = 5000
MCAST_JOIN_GROUP, MCAST_LEAVE_GROUP, MCAST_JOIN_SOURCE_GROUP, MCAST_LEAVE_SOURCE_GROUP = 42, 45, 46, 47
GROUPS = {4: "239.1.1.1", 6: "ff05::1:1"}


def sockaddr(address):
    ip = ipaddress.ip_address(address)
    if ip.version == 4:
        return struct.pack("=HH4s", socket.AF_INET, 0, ip.packed).ljust(128, b"\0")
    return struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, ip.packed, 0).ljust(128, b"\0")


class Host:
    """A kernel behind a TAP port."""

    def __init__(self, lab, name, n, network="blue", prefix=(10, 0, 0)):
        self.lab, self.name = lab, name
        self.ip = {4: ".".join(map(str, (*prefix, n))), 6: f"fd{prefix[2]:02x}::{n:x}"}
        lab.weirctl("port", "add", name, "--type", "tap", "--network", network)
        self.namespace = Namespace(ipv6=True)
        self.namespace.take(name)
        self.namespace.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
        for words in (("link", "set", name, "address", mac(n)), ("link", "set", name, "up"), ("addr", "add", f"{self.ip[4]}/24", "dev", name),
                      ("addr", "add", f"{self.ip[6]}/64", "dev", name, "nodad"), ("route", "add", "224.0.0.0/4", "dev", name)):
            self.namespace.run("ip", *words)
        with self.namespace:
            self.index = socket.if_nametoindex(name)
            self.wire = Wire(name)

    def version(self, igmp, mld):
        with self.namespace:
            Path(f"/proc/sys/net/ipv4/conf/{self.name}/force_igmp_version").write_text(str(igmp))
            Path(f"/proc/sys/net/ipv6/conf/{self.name}/force_mld_version").write_text(str(mld))

    def socket(self, v):
        with self.namespace:
            s = socket.socket(socket.AF_INET if v == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if v == 4:
            s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(self.ip[4]))
            s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 8)
        else:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, self.index)
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 8)
        return s

    def join(self, group, source=None):
        """A socket that is in the group."""
        v = ipaddress.ip_address(group).version
        s = self.socket(v)
        s.bind((group, PORT) if v == 4 else (group, PORT, 0, self.index))
        s.settimeout(5 * SLOW)
        self.option(s, group, source, MCAST_JOIN_GROUP, MCAST_JOIN_SOURCE_GROUP)
        return s

    def leave(self, s, group, source=None):
        self.option(s, group, source, MCAST_LEAVE_GROUP, MCAST_LEAVE_SOURCE_GROUP)

    def option(self, s, group, source, plain, specific):
        level = socket.IPPROTO_IP if ipaddress.ip_address(group).version == 4 else socket.IPPROTO_IPV6
        value = struct.pack("=II", self.index, 0) + sockaddr(group)
        s.setsockopt(level, specific if source else plain, value + sockaddr(source) if source else value)

    def send(self, group, text):
        v = ipaddress.ip_address(group).version
        with self.socket(v) as s:
            s.sendto(text.encode(), (group, PORT) if v == 4 else (group, PORT, 0, self.index))

    def seen(self, text):
        """How many frames with it have come to the port, whether the kernel wants them or not."""
        self.frames = getattr(self, "frames", []) + self.wire.received()
        return sum(text.encode() in f for f in self.frames)

    def close(self):
        self.wire.close()
        self.namespace.close()


SETTINGS = ("multicast:snooping=true", "multicast:query-interval=30", "multicast:response-interval=1", "multicast:last-member-interval=200",
            "multicast:unregistered=drop")


def settled(lab, network="blue"):
    wait_for(lambda: any(r["network"] == network and r["settled"] for r in lab.ask("group/networks")), 20 * SLOW, "somebody to have asked and been answered")


@pytest.fixture(scope="module")
def hosts():
    with Lab() as lab:
        lab.network("blue", *SETTINGS)
        lab.h = [Host(lab, f"h{n}", n) for n in (1, 2, 3)]
        lab.tap("probe", "--network", "blue")
        settled(lab)
        try:
            yield lab
            assert not [row for row in lab.health()["ledger"] if row["missing"]]
        finally:
            for h in lab.h:
                h.close()


def ports_of(lab, group, source="*", mode=None):
    for row in lab.ask("group/list", "blue"):
        if row["group"] == group and row["source"] == source and mode in (None, row["mode"]):
            return row["ports"]
    return []


def wait_ports(lab, ports, group, source="*", mode=None):
    wait_for(lambda: ports_of(lab, group, source, mode) == ports, 20 * SLOW, lambda: f"{ports} in {group}: {lab.ask('group/list')}", 0.02)


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("igmp, mld", [(3, 2), (2, 1), (1, 1)])
def test_join_and_leave(hosts, v, igmp, mld):
    h1, h2, h3 = hosts.h
    group = GROUPS[v]
    h2.version(igmp, mld)
    before = hosts.drops("h1").get("multicast.UNREGISTERED", 0)
    h1.send(group, f"nobody {v} {igmp}")
    wait_for(lambda: hosts.drops("h1").get("multicast.UNREGISTERED", 0) == before + 1, 10 * SLOW, "the packet to be dropped")
    with h2.join(group) as s:
        wait_ports(hosts, ["h2"], group)
        for i in range(5):
            h1.send(group, f"packet {v} {igmp} {i}")
            assert s.recv(2000).decode() == f"packet {v} {igmp} {i}"
        assert not h3.seen(f"packet {v} {igmp}")
        assert "wanted by h2" in hosts.explain("h1", f"udp,nw_src={h1.ip[4]},nw_dst={group}" if v == 4 else
                                               f"udp6,ipv6_src={h1.ip[6]},ipv6_dst={group}")
        h2.leave(s, group)
        if igmp > 1 or v == 6:
            wait_ports(hosts, [], group)
            h1.send(group, f"after {v} {igmp}")
            wait_for(lambda: hosts.drops("h1").get("multicast.UNREGISTERED", 0) == before + 2, 10 * SLOW, "the packet to be dropped")
            assert not h2.seen(f"after {v} {igmp}")
        else:  # version 1 knows no leave, so the port is in the group until its time is up
            assert ports_of(hosts, group) == ["h2"]
    h2.version(0, 0)


@pytest.mark.parametrize("v", [4, 6])
def test_sources(hosts, v):
    """One host wants the first sender, another one both."""
    h1, h2, h3 = hosts.h
    group = {4: "232.1.1.1", 6: "ff35::1"}[v]
    with h2.join(group, h1.ip[v]) as s:
        wait_ports(hosts, ["h2"], group, h1.ip[v], "include")
        h3.send(group, f"other {v}")
        h1.send(group, f"wanted {v}")
        assert s.recv(2000).decode() == f"wanted {v}"
        wait_for(lambda: hosts.drops("h3").get("multicast.NOT_WANTED", 0) >= 1, 10 * SLOW, "the other source to be dropped")
        assert not h2.seen(f"other {v}")
        h2.option(s, group, h3.ip[v], MCAST_JOIN_GROUP, MCAST_JOIN_SOURCE_GROUP)
        wait_ports(hosts, ["h2"], group, h3.ip[v], "include")
        h3.send(group, f"other now {v}")
        assert s.recv(2000).decode() == f"other now {v}"
        h2.leave(s, group, h1.ip[v])
        wait_ports(hosts, [], group, h1.ip[v], "include")
    wait_ports(hosts, [], group, h3.ip[v], "include")


def test_fast_leave(hosts):
    h1, h2, h3 = hosts.h
    hosts.weirctl("network", "set", "blue", "multicast:last-member-interval=20000", "multicast:fast-leave=true")
    try:
        with h2.join("239.1.1.9") as s, h3.join("239.1.1.9") as t:
            wait_ports(hosts, ["h2", "h3"], "239.1.1.9")
            began = time.monotonic()
            h2.leave(s, "239.1.1.9")
            wait_ports(hosts, ["h3"], "239.1.1.9")
            assert time.monotonic() - began < 20, "without a question"
            h1.send("239.1.1.9", "who is left")
            assert t.recv(2000) == b"who is left"
            assert not h2.seen("who is left")
    finally:
        hosts.weirctl("network", "set", "blue", "multicast:last-member-interval=200", "multicast:fast-leave=false")


def query4(src, group="0.0.0.0", version=3, response=10):
    q = IGMPv3(type=0x11, mrcode=response) / IGMPv3mq(gaddr=group, qrv=2, qqic=30) if version == 3 else IGMP(type=0x11, mrcode=response, gaddr=group)
    to = "224.0.0.1" if group == "0.0.0.0" else group
    p = Ether(src="52:54:00:00:00:77", dst="01:00:5e:00:00:01") / IP(src=src, dst=to, ttl=1, options=[IPOption_Router_Alert()]) / q
    return raw(p)


def query6(src):
    p = Ether(src="52:54:00:00:00:77", dst="33:33:00:00:00:01") / IPv6(src=src, dst="ff02::1", hlim=1) / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / \
        ICMPv6MLQuery2(mladdr="::", mrd=1000, QRV=2, QQIC=30)
    return raw(p)


def announcement(v, kind):
    """Multicast Router Discovery (RFC 4286): 0 advertises, 2 ends."""
    if v == 4:
        body = struct.pack("!BBHHH", 0x30 + kind, 20, 0, 125, 2)
        return raw(Ether(src="52:54:00:00:00:77", dst="01:00:5e:00:00:6a") / IP(src="10.0.0.1", dst="224.0.0.106", ttl=1, proto=2) / Raw(body[:2] + struct.pack("!H", checksum(body)) + body[4:]))
    p = IPv6(src="fe80::1", dst="ff02::6a", hlim=1) / ICMPv6Unknown(type=151 + kind, code=20, msgbody=struct.pack("!HH", 125, 2))
    return raw(Ether(src="52:54:00:00:00:77", dst="33:33:00:00:00:6a") / p)


def pim_hello():
    body = struct.pack("!BBHHHH", 0x20, 0, 0, 1, 2, 30)
    return raw(Ether(src="52:54:00:00:00:77", dst="01:00:5e:00:00:0d") / IP(src="10.0.0.1", dst="224.0.0.13", ttl=1, proto=103) / Raw(body[:2] + struct.pack("!H", checksum(body)) + body[4:]))


def routers(lab):
    return {(r["family"], r["port"], *r["why"]) for r in lab.ask("group/routers", "blue") if r["address"] in ("10.0.0.1", "fe80::1")}


@pytest.mark.parametrize("v", [4, 6])
def test_announcements(hosts, v):
    """A router that says so is sent what is for groups, until it says goodbye."""
    wire = hosts.wire["probe"]
    wire.send(announcement(v, 0))
    wait_for(lambda: routers(hosts) == {(f"ipv{v}", "probe", "announcement")}, 10 * SLOW, lambda: f"the router: {hosts.ask('group/routers')}")
    wire.send(announcement(v, 2))
    wait_for(lambda: not routers(hosts), 10 * SLOW, lambda: f"no router: {hosts.ask('group/routers')}")


def test_guard(hosts):
    """A guest that claims to be a querier or a router: it isn't believed, and nobody hears of it. What it says as a host counts."""
    wire, claims = hosts.wire["probe"], [query4("10.0.0.1"), query6("fe80::1"), pim_hello(), announcement(4, 0), announcement(6, 0)]
    hosts.weirctl("port", "set", "probe", "multicast_router=never")
    try:
        before = hosts.drops("probe").get("multicast.ROUTER_GUARD", 0)
        assert "by multicast_router none may be at this port" in hosts.explain("probe", claims[0])
        number = hosts.trace_start("--port", "probe", "--count", "1")
        hosts.h[1].wire.clear()
        queriers = [(r["querier"], r["querier_ipv6"]) for r in hosts.ask("group/networks", "blue")]
        for claim in claims:
            wire.send(claim)
        wait_for(lambda: hosts.drops("probe").get("multicast.ROUTER_GUARD", 0) == before + len(claims), 10 * SLOW, lambda: f"drops: {hosts.drops('probe')}")
        assert "dropped (multicast.ROUTER_GUARD)" in hosts.trace_end(number)
        assert queriers == [(r["querier"], r["querier_ipv6"]) for r in hosts.ask("group/networks", "blue")] and not routers(hosts)
        assert not any(f in claims for f in hosts.h[1].wire.received())
        (use,) = hosts.weirctl("group", "ports", "--port", "probe", json=True)
        assert use["router"] == "never"
    finally:
        hosts.weirctl("port", "set", "probe", "multicast_router=auto")
    # Always: it gets everything, without a word.
    hosts.weirctl("port", "set", "probe", "multicast_router=always")
    with hosts.h[1].join("239.1.1.5"):
        wait_ports(hosts, ["h2"], "239.1.1.5")
        wire.clear()
        hosts.h[0].send("239.1.1.5", "always")
        wait_for(lambda: any(b"always" in f for f in wire.received()), 10 * SLOW, "the packet")
    hosts.weirctl("port", "set", "probe", "multicast_router=auto")
    # A guest of vhost-user is never one unless somebody says so.
    hosts.weirctl("port", "add", "vm9", "--network", "blue")
    assert [r["router"] for r in hosts.weirctl("group", "ports", "--port", "vm9", json=True)] == ["never"]
    hosts.weirctl("port", "set", "vm9", "multicast_router=auto")
    assert [r["router"] for r in hosts.weirctl("group", "ports", "--port", "vm9", json=True)] == ["auto"]
    hosts.weirctl("port", "del", "vm9")


def test_election_and_router_ports(hosts):
    """A querier with a lower address, by scapy: the switch falls silent, its port gets reports and every packet for a group."""
    h1, h2, _ = hosts.h
    wire = hosts.wire["probe"]
    (row,) = hosts.ask("group/networks", "blue")
    assert row["querier"] == row["querier_ipv6"] == "this switch"
    wire.send(query4("10.0.0.200"))
    wire.send(query6("fe80::1"))
    wait_for(lambda: [(r["querier"], r["querier_ipv6"]) for r in hosts.ask("group/networks", "blue")] == [("10.0.0.200", "fe80::1")], 10 * SLOW,
             "another querier")
    assert {(r["family"], r["port"], r["address"]) for r in hosts.ask("group/routers", "blue")} == \
        {("ipv4", "probe", "10.0.0.200"), ("ipv6", "probe", "fe80::1")}
    wire.clear()
    for v, group in {4: "239.1.1.7", 6: "ff05::1:7"}.items():
        with h2.join(group) as s:
            wait_ports(hosts, ["h2"], group)
            h1.send(group, f"with a router {v}")
            assert s.recv(2000).decode() == f"with a router {v}"
            frames = []
            wait_for(lambda: frames.extend(wire.received()) or any(f"with a router {v}".encode() in f for f in frames), 10 * SLOW, "the router's copy")
            report = bytes.fromhex("01005e000016") if v == 4 else bytes.fromhex("333300000016")
            assert any(f.startswith(report) for f in frames), [f.hex() for f in frames]
    # What nobody asked for, by the third policy, goes to the router alone.
    hosts.weirctl("network", "set", "blue", "multicast:unregistered=router-ports")
    h1.send("239.9.9.9", "unregistered")
    frames = []
    wait_for(lambda: frames.extend(wire.received()) or any(b"unregistered" in f for f in frames), 10 * SLOW, "the router's copy")
    assert not h2.seen("unregistered")
    hosts.weirctl("network", "set", "blue", "multicast:unregistered=drop")


def test_rubbish(hosts):
    """Messages of which bytes were changed: nothing breaks, what is wrong is counted."""
    wire = hosts.wire["probe"]
    rng = random.Random(1)
    good = [query4("10.0.0.250"), query4("10.0.0.250", "239.1.1.1"), query4("10.0.0.250", version=2), query6("fe80::2")]
    before = hosts.stats("probe")["rx_packets"]
    for i in range(2000):
        f = bytearray(rng.choice(good))
        for _ in range(rng.randrange(1, 4)):
            f[rng.randrange(14, len(f))] = rng.randrange(256)
        wire.send(bytes(f[: rng.randrange(14, len(f) + 1)] if not rng.randrange(4) else f))
        if i % 200 == 199:
            hosts.settle("probe", before + i + 1)
    assert hosts.drops("probe").get("multicast.MALFORMED", 0) > 100
    assert not hosts.health()["problems"]


def test_lists(hosts):
    h2 = hosts.h[1]
    with h2.join("239.1.2.3"):
        wait_ports(hosts, ["h2"], "239.1.2.3")
        rows = hosts.weirctl("group", "list", "--port", "h2", json=True)
        assert {"network": "blue", "group": "239.1.2.3", "source": "*", "mode": "exclude", "ports": ["h2"]}.items() <= \
            next(r for r in rows if r["group"] == "239.1.2.3").items()
        assert "239.1.2.3" in hosts.weirctl("group", "list", "blue")
        (use,) = [r for r in hosts.weirctl("group", "ports", json=True) if r["port"] == "h2"]
        assert use["groups"] >= 1 and use["refused"] == 0
    assert "there is no network grey" in hosts.weirctl("group", "list", "grey", check=False).stderr


# ---- a router


@pytest.fixture(scope="module")
def routed():
    """
          b1 --- blue (10.0.0.0/24) --- r1 --- red (10.0.1.0/24) --- d1, d2
                                         |
                                       green (10.0.2.0/24) --- g1: upstream, where a querier is
    """
    with Lab() as lab:
        for network in ("blue", "red", "green"):
            lab.network(network, *SETTINGS)
        router = lab.weirctl("create", "Router", "name=r1", "other_config:multicast=true", "other_config:multicast-upstream=r1-green").strip()
        uuid = {row["name"]: row["_uuid"] for row in lab.weirctl("list", "Network", json=True)}
        for n, network in enumerate(("blue", "red", "green")):
            lab.weirctl("create", "Router_Port", f"name=r1-{network}", f"router={router}", f"network={uuid[network]}", f'mac="02:00:00:00:0{n}:01"',
                        f'addresses=["10.0.{n}.254/24","fd0{n}::fe/64"]')
        lab.b1, lab.d1, lab.d2, lab.g1 = lab.h = [Host(lab, name, n, network, prefix) for name, n, network, prefix in (
            ("b1", 11, "blue", (10, 0, 0)), ("d1", 12, "red", (10, 0, 1)), ("d2", 13, "red", (10, 0, 1)), ("g1", 14, "green", (10, 0, 2)))]
        lab.tap("querier", "--network", "green")
        for network in ("blue", "red", "green"):
            settled(lab, network)
        try:
            yield lab
        finally:
            for h in lab.h:
                h.close()


def wait_in(lab, network, group, ports):
    wait_for(lambda: [r["ports"] for r in lab.ask("group/list", network) if r["group"] == group and r["source"] == "*"] == ([ports] if ports else []), 20 * SLOW,
             lambda: f"{ports} in {group} of {network}: {lab.ask('group/list')}", 0.02)


@pytest.mark.parametrize("v", [4, 6])
def test_router_forwards(routed, v):
    """To the network where somebody asked, a hop less; to no other port of it; not for a source that is elsewhere."""
    b1, d1, d2, g1 = routed.h
    group = {4: "239.5.1.1", 6: "ff05::5:1"}[v]
    with d1.join(group) as s:
        wait_in(routed, "red", group, ["d1"])
        b1.send(group, f"routed {v}")
        assert s.recv(2000).decode() == f"routed {v}"
        assert not d2.seen(f"routed {v}") and not g1.seen(f"routed {v}")
        d1.seen("")
        (frame,) = [f for f in d1.frames if f"routed {v}".encode() in f]
        assert frame[6:12] == bytes.fromhex("020000000101") and frame[22 if v == 4 else 21] == 7
        says = f"udp,nw_src={b1.ip[4]},nw_dst={group}" if v == 4 else f"udp6,ipv6_src={b1.ip[6]},ipv6_dst={group}"
        assert "wanted by d1 in red" in routed.explain("b1", says)
        assert "not routed, as its source is behind r1-blue" in routed.explain("g1", says)
        d1.leave(s, group)
        wait_in(routed, "red", group, None)


@pytest.mark.parametrize("v", [4, 6])
def test_proxy(routed, v):
    """What is wanted downstream is asked for upstream, and taken back."""
    b1, d1, _, g1 = routed.h
    wire, group = routed.wire["querier"], {4: "239.5.1.2", 6: "ff05::5:2"}[v]
    wire.send(query4("10.0.2.1") if v == 4 else query6("fe80::1"))
    wait_for(lambda: any(r["port"] == "querier" and r["family"] == f"ipv{v}" for r in routed.ask("group/routers", "green")), 10 * SLOW, "the querier")
    wire.clear()
    packed, frames = ipaddress.ip_address(group).packed, []

    def report(kind):
        """A report of one record of that type for the group has come from the router's address."""
        frames.extend(wire.received())
        return any(bytes([kind, 0, 0, 0]) + packed in f and f[6:12] == bytes.fromhex("020000000201") for f in frames)
    with d1.join(group) as s:
        wait_for(lambda: report(4), 10 * SLOW, lambda: [f.hex() for f in frames])
        assert group in [r["group"] for r in routed.weirctl("group", "upstream", json=True)]
        g1.send(group, f"from upstream {v}")
        assert s.recv(2000).decode() == f"from upstream {v}"
        b1.send(group, f"upwards {v}")
        wait_for(lambda: frames.extend(wire.received()) or any(f"upwards {v}".encode() in f for f in frames), 10 * SLOW, "the packet upstream")
        assert s.recv(2000).decode() == f"upwards {v}"
        frames.clear()
        d1.leave(s, group)
        wait_for(lambda: report(3), 20 * SLOW, lambda: [f.hex() for f in frames])
    assert not [row for row in routed.health()["ledger"] if row["missing"]]
