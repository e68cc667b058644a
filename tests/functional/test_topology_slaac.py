"""Hosts that configure themselves by what the router advertises.

    a (nothing configured) ---- blue ---- fd01::1/64 [ router r ] fd02::1/64 ---- green ---- b (nothing configured)
                              MTU 1,400                                    MTU 1,500
"""

import json

import pytest

from net import SLOW, wait_for
from topology import Kernel, router_port, tcp

MTU = 1400


@pytest.fixture(scope="module")
def hosts(lab):
    lab.network("blue", f"mtu={MTU}")
    lab.network("green")
    lab.weirctl("router", "add", "r")
    router_port(lab, "r1", "r", "blue", "fd01::1/64", "--ra", "--rdnss", "fd02::53", "ra:dnssl=example.net")
    router_port(lab, "r2", "r", "green", "fd02::1/64", "--ra")
    found = {}
    for name, network in (("a", "blue"), ("b", "green")):
        kernel = found[name] = Kernel()
        kernel.sysctl(**{"net.ipv6.conf.default.accept_ra": 1, "net.ipv6.conf.default.autoconf": 1})
        kernel.plug(lab, name, network)
    yield found
    for kernel in found.values():
        kernel.close()


def global_address(kernel, device):
    found = json.loads(kernel.run("ip", "-j", "-6", "address", "show", "dev", device, "scope", "global", "-tentative"))
    return next((a["local"] for i in found for a in i.get("addr_info", []) if a.get("local")), None)


def test_autoconfiguration(hosts, lab):
    """Soon, as the kernel solicits: an address of the prefix, a default route by the router's link-local address, the MTU."""
    for name, prefix in (("a", "fd01:"), ("b", "fd02:")):
        wait_for(lambda: (global_address(hosts[name], name) or "").startswith(prefix), 15 * SLOW, f"{name} to have an address")
        route = json.loads(hosts[name].run("ip", "-j", "-6", "route", "show", "default"))
        assert route[0]["gateway"].startswith("fe80:") and route[0]["protocol"] == "ra", route
    hosts["a"].run("ip", "-6", "route")
    with hosts["a"]:
        assert open("/proc/sys/net/ipv6/conf/a/mtu").read().strip() == str(MTU)
    b = global_address(hosts["b"], "b")
    hosts["a"].reaches(b)
    tcp(hosts["b"], hosts["a"], global_address(hosts["a"], "a"), 1)


def test_solicited(hosts):
    """What rdisc6 sees of the advertisement that it asks for."""
    text = hosts["a"].run("rdisc6", "-1", "-w", 3000 * SLOW, "a", limit=60)
    for words in ("fd01::/64", f"MTU                      :         {MTU}", "fd02::53", "example.net", "Hop limit"):
        assert words in text, text


def test_neighbour_discovery(hosts, lab):
    """ndisc6 asks for the router's addresses."""
    mac = lab.row("Router_Port", "r1")["status"]["mac"]
    text = hosts["a"].run("ndisc6", "-1", "-w", 3000 * SLOW, "fd01::1", "a", limit=60)
    assert mac.upper() in text.upper(), text
