"""Tunnels over an underlay that takes smaller packets than the switch's uplink does: nothing is a black hole.

    a 10.1.0.1 fd01::1 -- blue, VNI 4711, 1,500 bytes ------.
                                                        [ Weir ] 10.9.0.1 fd09::1 -- under, 1,600 bytes -- u  kernel router `middle`
    c 10.3.0.1 fd03::1 -- green, VNI 4712, 1,500 bytes -----'                                              |  10.9.0.9 fd09::9
                                                                                                           m  10.8.0.9 fd08::9, 1,400 bytes
                                                                                                           |
    10.1.0.2 fd01::2 on vx4 (VNI 4711), 10.3.0.2 fd03::2 on vx6 (VNI 4712) ---- kernel `peer`, 10.8.0.2 fd08::2, 1,400 bytes

Blue goes over IPv4, green over IPv6. The peer's VXLAN devices have 1,500 bytes and know nothing of their path: what they send comes in fragments.
"""

import json
import subprocess

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
    a = Kernel().plug(lab, "a", "blue", "10.1.0.1/24", "fd01::1/64", mtu=1500)
    c = Kernel().plug(lab, "c", "green", "10.3.0.1/24", "fd03::1/64", mtu=1500)
    yield {"a": a, "c": c, "peer": peer, "middle": middle}
    for kernel in (a, c, peer, middle):
        kernel.close()


UNDERLAYS = pytest.mark.parametrize("port, v4, v6", [("a", "10.1.0", "fd01"), ("c", "10.3.0", "fd03")], ids=["ipv4", "ipv6"])


@UNDERLAYS
def test_fragments_come_in(world, lab, port, v4, v6):
    """TCP and large pings of the peer, whose packets come in fragments."""
    here, peer = world[port], world["peer"]
    before = lab.stats("u")
    for mine, other in ((v4 + ".1", v4 + ".2"), (v6 + "::1", v6 + "::2")):
        here.reaches(other)
        peer.run("ping", "-n", "-c", 5, "-i", "0.05", "-w", 3, "-s", 1400, mine, check=False)
        tcp(peer, here, mine, 8)
    after = lab.stats("u")
    assert after["merged"] > before["merged"] + 1000, after
    said = traced(lab, "u", lambda: peer.run("ping", "-c", 1, "-s", 1400, v4 + ".1", check=False), "ip[6:2] & 0x3fff != 0" if port == "a" else "ip6[6] == 44")
    assert "a fragment of a packet for a tunnel's end point" in said, said
    lab.check_conservation()
