"""multicast over tunnels: two switches of one database with kernels as hosts (pipeline/multicast.c, group_proxy.c).

    a1 a2  10.0.0.11-12 -- blue, VNI 5000 --.                                .-- blue, VNI 5000 -- b1 b2  10.0.0.21-22
    red1   10.0.1.13 ----- red, VNI 5001 ---+ [h1] up1 -- bridge0 -- up2 [h2] +-- red, VNI 5001 --- red2   10.0.1.23
                                        r1 on both: 10.0.0.254, 10.0.1.254
"""

import time

import pytest
from scapy.all import IP, UDP, VXLAN, Ether, conf

from net import SLOW, Lab, Wire, run, wait_for
from test_multicast import SETTINGS, Host, query4
from test_vxlan import Second

conf.verb = 0
GROUPS = {4: "239.1.1.1", 6: "ff05::1:1"}
VNI = {"blue": 5000, "red": 5001}


class Other(Second):
    trace_start, trace_read, trace_end, explain = Lab.trace_start, Lab.trace_read, Lab.trace_end, Lab.explain


class There(Host):
    """A kernel behind a TAP of one of two switches."""

    def __init__(self, lab, host, name, n, network="blue", prefix=(10, 0, 0)):
        self.host = host
        super().__init__(Placed(lab, host), name, n, network, prefix)


class Placed:
    """Adds ports to one host of the database."""

    def __init__(self, lab, host):
        self.lab, self.host = lab, host

    def weirctl(self, *words):
        self.lab.weirctl(*words, *(["--host", self.host] if words[:2] == ("port", "add") else []))
        wait_for(lambda: words[2] in run("ip", "-o", "link"), 10 * SLOW, f"interface {words[2]}")


def rows(lab, table):
    return {r["name"]: r["_uuid"] for r in lab.weirctl("list", table, json=True)}


@pytest.fixture(scope="module")
def pair():
    with Lab(host="h1") as one:
        two = Other(one, "h2")
        two.start_daemon()
        hosts = []
        try:
            run("ip", "link", "add", "bridge0", "type", "bridge", "mcast_snooping", "0")
            run("ip", "link", "set", "dev", "bridge0", "up")
            one.network("under")
            for network, vni in VNI.items():
                one.network(network, f"vni={vni}", *SETTINGS)
            one.weirctl("create", "Router", "name=r")
            for n in (1, 2):
                one.weirctl("create", "Router_Port", f"name=end{n}", f"host=h{n}", f"router={rows(one, 'Router')['r']}",
                            f"network={rows(one, 'Network')['under']}", f'addresses=["192.0.2.{n}/24"]')
                one.weirctl("set", "Host", rows(one, "Host")[f"h{n}"], f'tunnel_ips=["192.0.2.{n}"]')
                one.weirctl("port", "add", f"up{n}", "--type", "tap", "--network", "under", "--host", f"h{n}")
                wait_for(lambda: f"up{n}" in run("ip", "-o", "link"), 10 * SLOW, f"interface up{n}")
                run("ip", "link", "set", "dev", f"up{n}", "up", "master", "bridge0")
            for host, name, n, network, prefix in (("h1", "a1", 11, "blue", (10, 0, 0)), ("h1", "a2", 12, "blue", (10, 0, 0)), ("h1", "red1", 13, "red", (10, 0, 1)),
                                                   ("h2", "b1", 21, "blue", (10, 0, 0)), ("h2", "b2", 22, "blue", (10, 0, 0)), ("h2", "red2", 23, "red", (10, 0, 1))):
                hosts.append(There(one, host, name, n, network, prefix))
                setattr(one, name, hosts[-1])
            for lab, far in ((one, "192.0.2.2"), (two, "192.0.2.1")):
                wait_for(lambda: [t["state"] for t in lab.ask("tunnel/list")] == ["up"], 20 * SLOW, lambda: f"the way: {lab.ask('tunnel/list')}")
                wait_for(lambda: all(r["settled"] for r in lab.ask("group/networks")), 30 * SLOW, "somebody to have asked and been answered")
            with Wire("up1") as up1, Wire("up2") as up2:
                one.uplinks = up1, up2
                yield one, two
            for lab in (one, two):
                lab.check_conservation()
            two.stop_daemon()
        finally:
            for h in hosts:
                h.close()
            two.stop()


def ports_of(lab, network, group, source="*"):
    for row in lab.ask("group/list", network):
        if row["group"] == group and row["source"] == source:
            return row["ports"]
    return []


def wait_ports(lab, network, group, ports, source="*"):
    wait_for(lambda: ports_of(lab, network, group, source) == ports, 20 * SLOW, lambda: f"{ports} in {group}: {lab.ask('group/list')}", 0.02)


def in_tunnel(one, text):
    """How many packets with that went from switch to switch since the last look."""
    one.underlay = getattr(one, "underlay", []) + [f for wire in one.uplinks for f in wire.received()]
    return sum(text.encode() in f for f in one.underlay)


def delivered(sender, group, receivers, text):
    """A packet comes to each of the sockets; nothing more of it comes behind it."""
    sender.send(group, text)
    for s in receivers:
        assert s.recv(2000).decode() == text
    sender.send(group, f"behind {text}")
    for s in receivers:
        assert s.recv(2000).decode() == f"behind {text}", "once"


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("igmp, mld", [(3, 2), (2, 1)])
def test_across(pair, v, igmp, mld):
    """A receiver on one switch, a source on the other: one packet in the tunnel, one at the receiver; nothing in it that nobody wants; leaving ends it."""
    one, two = pair
    group, tunnel = GROUPS[v], "tunnel:192.0.2.1"
    one.a1.version(igmp, mld)
    before = two.drops("b1").get("multicast.UNREGISTERED", 0)
    one.b1.send(group, f"nobody {v}{igmp}")
    wait_for(lambda: two.drops("b1").get("multicast.UNREGISTERED", 0) == before + 1, 10 * SLOW, "the packet to be dropped")
    with one.a1.join(group) as s:
        wait_ports(one, "blue", group, ["a1"])
        wait_ports(two, "blue", group, [tunnel])
        number = two.trace_start("--port", "b1", "--count", "1", "--filter", "udp")
        delivered(one.b1, group, [s], f"across {v}{igmp}")
        assert f"wanted by {tunnel}" in two.trace_end(number)
        wait_for(lambda: in_tunnel(one, f"across {v}{igmp}") >= 2, 10 * SLOW, "it and what came behind it")
        assert in_tunnel(one, f"across {v}{igmp}") == 2 and in_tunnel(one, f"nobody {v}{igmp}") == 0
        assert not any(h.seen(f"across {v}{igmp}") for h in (one.a2, one.red1, one.b2, one.red2))
        # Another one here and there; who leaves first takes nothing away from the others.
        with one.a2.join(group) as t, one.b2.join(group) as u:
            wait_ports(one, "blue", group, ["a1", "a2", "tunnel:192.0.2.2"])
            delivered(one.b1, group, [s, t, u], f"three {v}{igmp}")
            one.a2.leave(t, group)
            wait_ports(one, "blue", group, ["a1", "tunnel:192.0.2.2"])
            delivered(one.b1, group, [s, u], f"two {v}{igmp}")
            assert not one.a2.seen(f"two {v}{igmp}")
        one.a1.leave(s, group)
        wait_ports(two, "blue", group, [])
    one.b1.send(group, f"after {v}{igmp}")
    wait_for(lambda: two.drops("b1").get("multicast.UNREGISTERED", 0) == before + 2, 10 * SLOW, "the packet to be dropped")
    assert in_tunnel(one, f"after {v}{igmp}") == 0
    one.a1.version(0, 0)


@pytest.mark.parametrize("v", [4, 6])
def test_sources(pair, v):
    """What is wanted of one source alone is asked for so, and other sources are dropped where they are."""
    one, two = pair
    group = {4: "232.1.1.1", 6: "ff35::1"}[v]
    with one.a1.join(group, one.b1.ip[v]) as s:
        wait_ports(two, "blue", group, ["tunnel:192.0.2.1"], one.b1.ip[v])
        one.b2.send(group, f"other {v}")
        wait_for(lambda: two.drops("b2").get("multicast.NOT_WANTED", 0) >= 1, 10 * SLOW, "the other source to be dropped")
        delivered(one.b1, group, [s], f"wanted {v}")
    assert in_tunnel(one, f"other {v}") == 0


def test_fast_leave(pair):
    """Who leaves at a port with one station is gone on both switches, without a question."""
    one, two = pair
    one.weirctl("network", "set", "blue", "multicast:last-member-interval=20000", "multicast:fast-leave=true")
    try:
        with one.a1.join("239.1.1.9") as s:
            wait_ports(two, "blue", "239.1.1.9", ["tunnel:192.0.2.1"])
            began = time.monotonic()
            one.a1.leave(s, "239.1.1.9")
            wait_ports(two, "blue", "239.1.1.9", [])
            assert time.monotonic() - began < 20
    finally:
        one.weirctl("network", "set", "blue", "multicast:last-member-interval=200", "multicast:fast-leave=false")


def test_queries_end_at_the_switch(pair):
    """Each switch asks its own ports: both are queriers, and hear of the other's questions as those of a switch."""
    one, two = pair
    for lab in (one, two):
        wait_for(lambda: {(r["family"], tuple(r["why"])) for r in lab.ask("group/routers", "blue")} == {("ipv4", ("query-of-switch",)), ("ipv6", ("query-of-switch",))},
                 40 * SLOW, lambda: f"the other one's questions: {lab.ask('group/routers')}")
        assert all(r["querier"] == r["querier_ipv6"] == "this switch" for r in lab.ask("group/networks"))
    end = two.ask("tunnel/list")[0]["mac"]
    query = Ether(dst=end) / IP(src="192.0.2.2", dst="192.0.2.1") / UDP(sport=50000, dport=4789) / VXLAN(vni=VNI["blue"], flags=8) / Ether(query4("0.0.0.0"))
    assert "asks who is in a group: the switch answers for its ports" in one.explain("up1", bytes(query))


# ---- a router on both


@pytest.fixture(scope="module")
def routed(pair):
    one, two = pair
    one.weirctl("create", "Router", "name=r1", "other_config:multicast=true")
    for n, network in enumerate(VNI):
        one.weirctl("create", "Router_Port", f"name=r1-{network}", f"router={rows(one, 'Router')['r1']}", f"network={rows(one, 'Network')[network]}",
                    f'mac="02:00:00:00:0{n}:01"', f'addresses=["10.0.{n}.254/24","fd0{n}::fe/64"]')
    for lab in pair:
        wait_for(lambda: all(r["settled"] for r in lab.ask("group/networks")), 30 * SLOW, "somebody to have asked and been answered")
    return pair


def ttl_of(host, v, text):
    """TTLs of the frames with it that came to the port."""
    host.seen("")
    return [f[22 if v == 4 else 21] for f in host.frames if text.encode() in f]


@pytest.mark.parametrize("v", [4, 6])
def test_routed(routed, v):
    """A source in blue on one host, receivers in red and blue on both: each gets one packet, with one hop less where it was routed, and one is in the tunnel."""
    one, two = routed
    group, tunnel = {4: "239.5.1.1", 6: "ff05::5:1"}[v], "tunnel:192.0.2.1"
    with one.red1.join(group) as ar:
        # In red, on the other host: blue's packets are asked for.
        wait_ports(two, "blue", group, [tunnel])
        delivered(one.b1, group, [ar], f"far red {v}")
        wait_for(lambda: in_tunnel(one, f"far red {v}") >= 2, 10 * SLOW, "it and what came behind it")
        assert in_tunnel(one, f"far red {v}") == 2
        assert ttl_of(one.red1, v, f"far red {v}") == [7, 7]
        with one.red2.join(group) as br, one.a1.join(group) as a1, one.b2.join(group) as b2:
            wait_for(lambda: set(ports_of(two, "blue", group)) == {"b2", tunnel} and "red2" in ports_of(two, "red", group), 20 * SLOW, lambda: two.ask("group/list"))
            wait_for(lambda: set(ports_of(one, "blue", group)) == {"a1", "tunnel:192.0.2.2"} and "red1" in ports_of(one, "red", group), 20 * SLOW, lambda: one.ask("group/list"))
            number = one.trace_start("--port", "tunnel:192.0.2.2", "--count", "1", "--filter", "udp")
            delivered(one.b1, group, [ar, br, a1, b2], f"all {v}")
            wait_for(lambda: in_tunnel(one, f"all {v}") >= 2, 10 * SLOW, "it and what came behind it")
            assert in_tunnel(one, f"all {v}") == 2
            text = one.trace_end(number)
            assert "red1 in red" in text and "routed to ports of this switch only" in text, text
            assert [ttl_of(h, v, f"all {v}") for h in (one.red1, one.red2, one.a1, one.b2)] == [[7, 7], [7, 7], [8, 8], [8, 8]]
            assert not one.a2.seen(f"all {v}")
            # The other way, and from red.
            delivered(one.a2, group, [ar, br, a1, b2], f"back {v}")
            assert [ttl_of(h, v, f"back {v}") for h in (one.red1, one.red2, one.a1, one.b2)] == [[7, 7], [7, 7], [8, 8], [8, 8]]
            one.red2.leave(br, group)
            one.red2.send(group, f"from red {v}")
            for s in (ar, a1, b2):
                assert s.recv(2000).decode() == f"from red {v}"
            assert [ttl_of(h, v, f"from red {v}") for h in (one.red1, one.a1, one.b2)] == [[8], [7], [7]]
            says = f"udp,nw_src={one.b1.ip[4]},nw_dst={group}" if v == 4 else f"udp6,ipv6_src={one.b1.ip[6]},ipv6_dst={group}"
            assert "b2" in two.explain("b1", says) and tunnel in two.explain("b1", says)
            assert "not routed, as its source is behind r1-blue" in two.explain("red2", says)
    wait_ports(two, "blue", group, [])


def test_one_dies(routed):
    """What a switch that is gone wanted is forgotten when its time is up, and it comes back."""
    one, two = routed
    for network in VNI:
        one.weirctl("network", "set", network, "multicast:query-interval=2", "multicast:response-interval=1")
    with one.b1.join("239.1.1.8") as s:
        wait_ports(one, "blue", "239.1.1.8", ["tunnel:192.0.2.2"])
        delivered(one.a1, "239.1.1.8", [s], "alive")
        two.stop_daemon()
        for network in VNI:
            wait_ports(one, network, "239.1.1.8", [])
        before = one.drops("a1").get("multicast.UNREGISTERED", 0)
        one.a1.send("239.1.1.8", "dead")
        wait_for(lambda: one.drops("a1").get("multicast.UNREGISTERED", 0) == before + 1, 10 * SLOW, "the packet to be dropped")
        two.start_daemon()
    for network in VNI:
        one.weirctl("network", "set", network, "multicast:query-interval=30")
