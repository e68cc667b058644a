"""Kernels as the other end of VXLAN tunnels.

    a 10.1.0.1  fd01::1, MTU 1,450 ---- blue, VNI 4711                                    kernel `peer`
                                             |                                  10.9.0.2  fd09::2 on its interface u
                                        [ Weir ] 10.9.0.1  fd09::1 ---- under ---- u      vx4 (VNI 4711) 10.1.0.2  fd01::2
    c 10.3.0.1, MTU 1,450 ------------- green, VNI 4712 (over IPv6)                       vx6 (VNI 4712) 10.3.0.2  fd03::2
"""

import pytest

from net import run
from topology import Kernel, router_port, tcp, traced, tunnel_ips

V4, V6 = 4711, 4712


@pytest.fixture(scope="module")
def world(lab):
    lab.network("under")
    lab.network("blue", f"vni={V4}", "flood_to=10.9.0.2")
    lab.network("green", f"vni={V6}", "flood_to=fd09::2")
    lab.weirctl("router", "add", "underlay")
    router_port(lab, "vtep", "underlay", "under", "10.9.0.1/24", "fd09::1/64")
    tunnel_ips(lab, "10.9.0.1", "fd09::1")
    peer = Kernel().plug(lab, "u", "under", "10.9.0.2/24", "fd09::2/64")
    for device, vni, local, remote, addresses in (("vx4", V4, "10.9.0.2", "10.9.0.1", ("10.1.0.2/24", "fd01::2/64")),
                                                  ("vx6", V6, "fd09::2", "fd09::1", ("10.3.0.2/24", "fd03::2/64"))):
        peer.run("ip", "link", "add", device, "type", "vxlan", "id", vni, "local", local, "remote", remote, "dstport", 4789, "dev", "u")
        peer.run("ip", "link", "set", "dev", device, "up")
        for address in addresses:
            peer.address(device, address)
    a = Kernel().plug(lab, "a", "blue", "10.1.0.1/24", "fd01::1/64", mtu=1450)
    c = Kernel().plug(lab, "c", "green", "10.3.0.1/24", "fd03::1/64", mtu=1430)
    yield {"a": a, "c": c, "peer": peer}
    for kernel in (a, c, peer):
        kernel.close()


UNDERLAYS = pytest.mark.parametrize("port, v4, v6", [("a", "10.1.0", "fd01"), ("c", "10.3.0", "fd03")], ids=["ipv4", "ipv6"])


@UNDERLAYS
def test_ping(world, lab, port, v4, v6):
    here, peer = world[port], world["peer"]
    for mine, other in ((v4 + ".1", v4 + ".2"), (v6 + "::1", v6 + "::2")):
        here.reaches(other)
        peer.reaches(mine)
        here.reaches(other, "-s", 1300)
    said = traced(lab, port, lambda: here.ping(v4 + ".2", count=1), "icmp")
    assert "u" in said and "vxlan" in said.lower(), said
    said = traced(lab, "u", lambda: peer.ping(v4 + ".1", count=1), "udp port 4789")
    assert f"output to {port}" in said or "tunnel" in said, said


@UNDERLAYS
def test_tcp(world, lab, port, v4, v6):
    """Both ways, with the kernels' segmentation offloads on."""
    here, peer = world[port], world["peer"]
    for mine, other in ((v4 + ".1", v4 + ".2"), (v6 + "::1", v6 + "::2")):
        tcp(here, peer, other)
        tcp(peer, here, mine)


@UNDERLAYS
def test_path_mtu(world, lab, port, v4, v6):
    """A host that believes in 1,500 bytes: what doesn't fit into the tunnel is answered, or cut, and TCP goes through."""
    here, peer = world[port], world["peer"]
    room = 1450 if port == "a" else 1430
    here.run("ip", "link", "set", "dev", port, "mtu", 1500)
    try:
        for other in (v4 + ".2", v6 + "::2"):
            tcp(here, peer, other)
            text = here.ping(other, "-M", "do", "-s", 1450)
            assert f"mtu = {room}" in text or f"mtu={room}" in text, text
    finally:
        here.run("ip", "link", "set", "dev", port, "mtu", room)
        here.run("ip", "route", "flush", "cache")
        here.run("ip", "-6", "route", "flush", "cache")


def test_checksums(world, lab):
    """The kernel sends outer checksums over IPv4 unless told not to: both are taken."""
    peer, a = world["peer"], world["a"]
    peer.run("ip", "link", "set", "vx4", "type", "vxlan", "noudpcsum", check=False)
    a.reaches("10.1.0.2")
    peer.run("ip", "link", "add", "vz", "type", "vxlan", "id", 4713, "local", "10.9.0.2", "remote", "10.9.0.1", "dstport", 4789, "noudpcsum")
    peer.run("ip", "link", "set", "dev", "vz", "up")
    lab.weirctl("network", "add", "violet", "vni=4713", "flood_to=10.9.0.2")
    v = Kernel().plug(lab, "v", "violet", "10.4.0.1/24", mtu=1450)
    try:
        peer.address("vz", "10.4.0.2/24")
        v.reaches("10.4.0.2")
        tcp(peer, v, "10.4.0.1", 1)
    finally:
        v.close()


def test_unknown_vni(world, lab):
    """A packet of no network of ours is one of the uplink: the router's address serves nothing there."""
    peer = world["peer"]
    peer.run("ip", "link", "add", "vq", "type", "vxlan", "id", 99, "local", "10.9.0.2", "remote", "10.9.0.1", "dstport", 4789)
    try:
        peer.run("ip", "link", "set", "dev", "vq", "up")
        peer.address("vq", "10.99.0.1/24")
        before = lab.stats("u")
        assert "bytes from" not in peer.ping("10.99.0.2", count=1)
        after = lab.stats("u")
        assert after["rx_packets"] > before["rx_packets"]
    finally:
        peer.run("ip", "link", "del", "vq")
