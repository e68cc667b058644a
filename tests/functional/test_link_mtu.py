"""The MTU of kernel interfaces: that of TAPs follows the switch, the switch follows that of others (vswitch/link_mtu.c)."""

import json

import pytest

from net import SLOW, Namespace, run, wait_for
from topology import router_port, tunnel_ips


@pytest.fixture
def veth(clean):
    """A pair of kernel interfaces: wfk for the switch, wfp for its peer."""
    run("ip", "link", "add", "wfk", "type", "veth", "peer", "name", "wfp")
    for name in ("wfk", "wfp"):
        run("ip", "link", "set", "dev", name, "up")
    yield clean
    run("ip", "link", "del", "wfk", check=False)


def mtu_of(interface, run=run):
    return json.loads(run("ip", "-j", "link", "show", "dev", interface))[0]["mtu"]


def test_tap_follows(clean):
    """The interface of a TAP has the MTU in force, wherever it went and whatever it is called there."""
    clean.network("blue")
    for name, words in (("a", ()), ("small", ("--mtu", "1000")), ("other", ())):
        clean.tap(name, "--network", "blue", *words)
    assert [mtu_of(name) for name in ("a", "small", "other")] == [1500, 1000, 1500]
    space = Namespace()
    try:
        space.take("other")
        space.run("ip", "link", "set", "dev", "other", "down")
        space.run("ip", "link", "set", "dev", "other", "name", "eth0")
        run("ip", "link", "add", "other", "type", "veth")  # somebody else's, with the name that it had
        clean.weirctl("network", "set", "blue", "--mtu", "1400")
        assert mtu_of("eth0", space.run) == 1400 and clean.port("other")["mtu"] == 1400
        assert [mtu_of(name) for name in ("a", "small", "other")] == [1400, 1000, 1500]
        clean.weirctl("port", "set", "small", "mtu_request=")
        assert mtu_of("small") == 1400
    finally:
        run("ip", "link", "del", "other", check=False)
        space.close()


def test_kernel_interface_is_the_limit(veth):
    """From an underlay's interface to the guests behind a tunnel over it, at run time."""
    veth.network("under", "--mtu", "9000")
    veth.network("over", "vni=7", "flood_to=10.9.0.2")
    veth.weirctl("router", "add", "r")
    router_port(veth, "vtep", "r", "under", "10.9.0.1/24")
    tunnel_ips(veth, "10.9.0.1")
    veth.weirctl("port", "add", "k", "--type", "kernel", "--network", "under", "--iface", "wfk")
    veth.tap("t", "--network", "over")
    assert veth.port("k")["mtu"] == 1500 and veth.port("t")["mtu"] == 1450
    for name in ("wfk", "wfp"):
        run("ip", "link", "set", "dev", name, "mtu", "1400")

    def everything():
        (network,) = (n for n in veth.weirctl("list", "Network", json=True) if n["name"] == "over")
        tunnels = {t["mtu"] for t in veth.weirctl("tunnel", "list", json=True)}
        return veth.port("k")["mtu"], tunnels, network["status"]["mtu"], veth.port("t")["mtu"], mtu_of("t")
    wait_for(lambda: everything() == (1400, {1350}, "1350", 1350, 1350), 10 * SLOW, everything)
    assert veth.weirctl("port", "mtu", "t") == "1350\n"
    for name in ("wfk", "wfp"):
        run("ip", "link", "set", "dev", name, "mtu", "1600")
    wait_for(lambda: everything() == (1600, {1550}, "1500", 1500, 1500), 10 * SLOW, everything)
    veth.weirctl("network", "set", "under", "--mtu", "1500")  # less than the interface takes
    assert everything() == (1500, {1450}, "1450", 1450, 1450)
