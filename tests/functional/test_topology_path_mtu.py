"""Tunnels over an underlay that takes smaller packets than the switch's uplink does: nothing is a black hole.

    a 10.1.0.1 fd01::1 -- blue, VNI 4711, 1,500 bytes ------.
                                                        [ Weir ] 10.9.0.1 fd09::1 -- under, 1,600 bytes -- u  kernel router `middle`
    c 10.3.0.1 fd03::1 -- green, VNI 4712, 1,500 bytes -----'                                              |  10.9.0.9 fd09::9
                                                                                                           m  10.8.0.9 fd08::9, 1,400 bytes
                                                                                                           |
    10.1.0.2 fd01::2 on vx4 (VNI 4711), 10.3.0.2 fd03::2 on vx6 (VNI 4712) ---- kernel `peer`, 10.8.0.2 fd08::2, 1,400 bytes

Blue goes over IPv4, green over IPv6. The peer's VXLAN devices have 1,500 bytes; what vx4 sends comes in fragments.
"""

import json

import pytest

from net import SLOW, run, wait_for
from topology import Kernel, route, router_port, tcp, traced, tunnel_ips

V4, V6 = 4711, 4712


@pytest.fixture(scope="module")
def world(lab):
    lab.network("under", "mtu=1600")
    lab.network("blue", f"vni={V4}", "mtu=1500", "flood_to=10.8.0.2")
    lab.network("green", f"vni={V6}", "mtu=1500", "flood_to=fd08::2")
    lab.weirctl("router", "add", "underlay")
    router_port(lab, "vtep", "underlay", "under", "10.9.0.1/24", "fd09::1/64")
    route(lab, "underlay", "10.8.0.0/24", "10.9.0.9")
    route(lab, "underlay", "fd08::/64", "fd09::9")
    tunnel_ips(lab, "10.9.0.1", "fd09::1")
    middle = Kernel(forward=True).plug(lab, "u", "under", "10.9.0.9/24", "fd09::9/64", mtu=1600)
    peer = Kernel()
    run("ip", "link", "add", "pm-m", "type", "veth", "peer", "name", "pm-p")
    middle.take("pm-m")
    peer.take("pm-p")
    for kernel, device, addresses in ((middle, "pm-m", ("10.8.0.9/24", "fd08::9/64")), (peer, "pm-p", ("10.8.0.2/24", "fd08::2/64"))):
        kernel.run("ip", "link", "set", "dev", device, "mtu", 1400, "up")
        for address in addresses:
            kernel.address(device, address)
    peer.default("10.8.0.9", "fd08::9")
    for device, vni, local, remote, addresses in (("vx4", V4, "10.8.0.2", "10.9.0.1", ("10.1.0.2/24", "fd01::2/64")),
                                                  ("vx6", V6, "fd08::2", "fd09::1", ("10.3.0.2/24", "fd03::2/64"))):
        peer.run("ip", "link", "add", device, "mtu", 1500, "type", "vxlan", "id", vni, "local", local, "remote", remote, "dstport", 4789)
        peer.run("ip", "link", "set", "dev", device, "up")
        for address in addresses:
            peer.address(device, address)
    # The kernel would look at its own route and take smaller segments. Over IPv6 it has to: its VXLAN devices send no fragments there.
    peer.route("10.1.0.0/24", "dev", "vx4", "mtu", "lock", "1500")
    a = Kernel().plug(lab, "a", "blue", "10.1.0.1/24", "fd01::1/64", mtu=1500)
    c = Kernel().plug(lab, "c", "green", "10.3.0.1/24", "fd03::1/64", mtu=1500)
    yield {"a": a, "c": c, "peer": peer, "middle": middle}
    for kernel in (a, c, peer, middle):
        kernel.close()


UNDERLAYS = pytest.mark.parametrize("port, v4, v6", [("a", "10.1.0", "fd01"), ("c", "10.3.0", "fd03")], ids=["ipv4", "ipv6"])


def path_mtu(lab, remote):
    (row,) = [t for t in lab.weirctl("tunnel", "list", json=True) if t["remote"] == remote]
    return row


def forget_paths(kernel):
    kernel.run("ip", "route", "flush", "cache")
    kernel.run("ip", "-6", "route", "flush", "cache")


def set_path(world, mtu):
    for kernel, device in (("middle", "pm-m"), ("peer", "pm-p")):
        world[kernel].run("ip", "link", "set", "dev", device, "mtu", mtu)


@pytest.fixture
def deaf(lab):
    """The switch doesn't believe errors: MSS stay large, and what comes is in fragments."""
    lab.weirctl("config", "set", "tunnel-path-mtu=false")
    yield
    lab.weirctl("config", "set", "tunnel-path-mtu=true")


def test_fragments_come_in(world, lab, deaf):
    """TCP of the peer, each of whose packets comes in two fragments."""
    a, peer, mine = world["a"], world["peer"], "10.1.0.1"
    a.reaches("10.1.0.2")
    before = lab.stats("u")["merged"]
    tcp(peer, a, mine, 8)
    assert lab.stats("u")["merged"] > before + 1000
    said = traced(lab, "u", lambda: peer.ping(mine, "-s", 1400, count=1), "ip[6:2] & 0x3fff != 0")
    assert "a fragment of a packet for a tunnel's end point" in said, said
    lab.check_conservation()


def test_fragments_of_ipv6(world, lab):
    """Packets that another end point sends in fragments over IPv6: pings, which are answered."""
    from scapy.all import ICMP, IP, UDP, Ether, IPv6, IPv6ExtHdrFragment, Raw, fragment6, sendp
    c, middle, peer = world["c"], world["middle"], world["peer"]
    c.reaches("10.3.0.2")
    (mac,) = {n["lladdr"] for n in json.loads(middle.run("ip", "-j", "neigh", "show", "dev", "u")) if n["dst"] == "fd09::1"}
    ping = Ether(src=peer.mac("vx6"), dst=c.mac("c")) / IP(src="10.3.0.2", dst="10.3.0.1") / ICMP(id=77) / Raw(bytes(1400))
    head = Ether(src=middle.mac("u"), dst=mac)
    before, answered = lab.stats("u")["merged"], lab.stats("c")["rx_packets"]
    for _ in range(20):
        whole = IPv6(src="fd08::2", dst="fd09::1") / IPv6ExtHdrFragment() / UDP(sport=50000, dport=4789) / Raw(b"\x08\0\0\0" + V6.to_bytes(3, "big") + b"\0" + bytes(ping))
        with middle:
            for piece in reversed(fragment6(whole, 700)):
                sendp(head / piece, iface="u", verbose=False)
    wait_for(lambda: lab.stats("u")["merged"] >= before + 40, 10 * SLOW, lambda: lab.stats("u"))
    wait_for(lambda: lab.stats("c")["rx_packets"] >= answered + 20, 10 * SLOW, lambda: lab.stats("c"))
    lab.check_conservation()


@UNDERLAYS
def test_path_mtu(world, lab, port, v4, v6):
    """What routers on the way say is followed: TCP and pings go both ways, and large ones that mustn't be cut are answered."""
    here, peer = world[port], world["peer"]
    remote, overhead = ("10.8.0.2", 50) if port == "a" else ("fd08::2", 70)
    for mine, other in ((v4 + ".1", v4 + ".2"), (v6 + "::1", v6 + "::2")):
        here.reaches(other)
        tcp(here, peer, other)
        tcp(peer, here, mine)
    here.ping(v4 + ".2", "-s", 1472)
    wait_for(lambda: path_mtu(lab, remote)["path_mtu"] == 1400, 10 * SLOW, lambda: path_mtu(lab, remote))
    wait_for(lambda: path_mtu(lab, remote)["mtu"] == 1400 - overhead, 10 * SLOW, lambda: path_mtu(lab, remote))
    assert 0 < path_mtu(lab, remote)["path_mtu_seconds"] <= 600
    forget_paths(here)
    for other in (v4 + ".2", v6 + "::2"):
        text = here.ping(other, "-M", "do", "-s", 1440)
        assert f"mtu = {1400 - overhead}" in text or f"mtu={1400 - overhead}" in text, text
        here.reaches(other, "-s", 1440)  # in fragments, made by the switch or, with IPv6, by who was told
        tcp(here, peer, other)
    lab.check_conservation()


@UNDERLAYS
def test_path_of_least(world, lab, port, v4, v6):
    """A path with less than 1,280 bytes for what is inside: packets of the tunnel leave in fragments."""
    here, peer = world[port], world["peer"]
    remote, least = "10.8.0.2" if port == "a" else "fd08::2", 1280
    set_path(world, least)
    try:
        for other in (v4 + ".2", v6 + "::2"):
            here.answers(other)
            wait_for(lambda: here.ping(other, "-s", 1230, count=1) and path_mtu(lab, remote)["path_mtu"] == least, 10 * SLOW, lambda: path_mtu(lab, remote))
            wait_for(lambda: path_mtu(lab, remote)["mtu"] == 1280, 10 * SLOW, lambda: path_mtu(lab, remote))
            tcp(here, peer, other)
            if port == "a" or ":" not in other:  # answers in IPv6 are too large for what the kernel sends over IPv6
                here.reaches(other, "-s", 1230)
                here.reaches(other, "-s", 2000)
        before = lab.stats(port)["segments_added"]
        here.reaches(v4 + ".2", "-s", 1230)
        assert lab.stats(port)["segments_added"] > before
        text = lab.explain(port, f"udp,dl_src={here.mac(port)},dl_dst={peer.mac('vx4' if port == 'a' else 'vx6')},nw_src={v4}.1,nw_dst={v4}.2,packet_len=1290")
        assert f"in fragments, as the path takes {least}" in text, text
    finally:
        set_path(world, 1400)
    lab.check_conservation()


@UNDERLAYS
def test_errors_made_up(world, lab, port, v4, v6):
    """Who isn't asked says that nothing fits: it is believed down to what every path takes, and no further; of what was never sent nothing is."""
    from scapy.all import ICMP, IP, UDP, Ether, ICMPv6PacketTooBig, IPv6, Raw, conf, sendp
    middle = world["middle"]
    six = port == "c"
    own, remote, vni = ("fd09::1", "fd08::2", V6) if six else ("10.9.0.1", "10.8.0.2", V4)
    (mac,) = {n["lladdr"] for n in json.loads(middle.run("ip", "-j", "neigh", "show", "dev", "u")) if n["dst"] == own}
    net, (by, stranger) = (IPv6, ("fd09::9", "fd08::77")) if six else (IP, ("10.9.0.9", "10.8.0.77"))

    def error(about, mtu, dport=4789):
        inner = net(src=own, dst=about) / UDP(sport=50000, dport=dport, chksum=0) / Raw(b"\x08\0\0\0" + vni.to_bytes(3, "big") + bytes(1400))
        quote = Raw(bytes(inner)[:120])
        head = Ether(src=middle.mac("u"), dst=mac) / net(src=by, dst=own)
        return head / (ICMPv6PacketTooBig(mtu=mtu) if six else ICMP(type=3, code=4, nexthopmtu=mtu)) / quote

    def send(*packets):
        with middle:
            for packet in packets:
                sendp(packet, iface="u", verbose=False)
    conf.verb = 0
    before = lab.drops("u").get("router.NOT_SERVED", 0)
    send(error(stranger, 1300), error(remote, 1300, dport=53))
    wait_for(lambda: lab.drops("u").get("router.NOT_SERVED", 0) == before + 2, 10 * SLOW, lambda: f"two drops: {lab.drops('u')}")
    send(error(remote, 100))
    floor = 1280 if six else 576
    wait_for(lambda: path_mtu(lab, remote)["path_mtu"] == floor, 10 * SLOW, lambda: path_mtu(lab, remote))
    wait_for(lambda: path_mtu(lab, remote)["mtu"] == 1280, 10 * SLOW, lambda: path_mtu(lab, remote))
    world[port].reaches(v4 + ".2", "-s", 1200)
    lab.weirctl("config", "set", "tunnel-path-mtu=false")  # which forgets it
    wait_for(lambda: path_mtu(lab, remote)["path_mtu"] is None, 10 * SLOW, lambda: path_mtu(lab, remote))
    lab.weirctl("config", "set", "tunnel-path-mtu=true")
