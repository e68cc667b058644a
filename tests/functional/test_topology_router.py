"""Two networks and a router of the switch, with kernels as hosts.

         a 10.1.0.2  fd01::2                                10.2.0.2  fd02::2 b
         |                                                                    |
    ---- blue ---- 10.1.0.1  fd01::1 [ router r ] 10.2.0.1  fd02::1 ---- green ----
                                          |
                               10.3.0.1  fd03::1, MTU 1,300
                                          |
                                       narrow ---- c 10.3.0.2  fd03::2
"""

import re

import pytest

from net import wait_for
from topology import Kernel, icmp, router, tcp, traced, udp_error

HOSTS = {"a": ("blue", "10.1.0.2", "fd01::2"), "b": ("green", "10.2.0.2", "fd02::2"), "c": ("narrow", "10.3.0.2", "fd03::2")}
MTU = 1300


def address(host, v):
    return HOSTS[host][v // 2 - 1]


@pytest.fixture(scope="module")
def hosts(lab):
    lab.network("blue")
    lab.network("green")
    lab.network("narrow", f"mtu={MTU}")
    found = {}
    for name, (network, v4, v6) in HOSTS.items():
        found[name] = Kernel().plug(lab, name, network, v4 + "/24", v6 + "/64", mtu=MTU if network == "narrow" else None)
        found[name].default(v4[:-1] + "1", v6[:-1] + "1")
    router(lab, "r", {f"r{n}": (network, f"10.{n}.0.1/24", f"fd0{n}::1/64") for n, (network, _, _) in enumerate(HOSTS.values(), 1)})
    yield found
    for host in found.values():
        host.close()


@pytest.mark.parametrize("v", [4, 6])
def test_ping(hosts, lab, v):
    a, there = hosts["a"], address("b", v)
    text = a.reaches(there)
    assert set(re.findall(r"ttl=(\d+)", text)) == {"63"}
    a.reaches(address("a", v)[:-1] + "1")  # the router, near and far
    a.reaches(there[:-1] + "1")
    hosts["b"].reaches(address("a", v))
    a.reaches(there, "-s", "1400")
    said = traced(lab, "a", lambda: a.ping(there, count=1), "icmp" if v == 4 else "icmp6")
    assert "router" in said and "out by b" in said, said
    assert "output to b" in lab.explain("a", icmp(address("a", v), there))


@pytest.mark.parametrize("v", [4, 6])
def test_traceroute(hosts, lab, v):
    """Time exceeded comes from the router's address of the network that the packet came in by."""
    there = address("b", v)
    assert hosts["a"].traceroute(there) == [address("a", v)[:-1] + "1", there]
    text = hosts["a"].ping(there, "-t", "1", count=1)
    assert "Time to live exceeded" in text or "Time exceeded: Hop limit" in text, text
    assert hosts["b"].traceroute(address("a", v)) == [there[:-1] + "1", address("a", v)]
    said = lab.explain("a", icmp(address("a", v), there) + ",nw_ttl=1")
    assert "time exceeded" in said and "out by a" in said, said  # the packet becomes its answer


@pytest.mark.parametrize("v", [4, 6])
def test_tcp(hosts, v):
    for one, other in (("a", "b"), ("b", "a")):
        tcp(hosts[one], hosts[other], address(other, v))


@pytest.mark.parametrize("v", ["4", "6"])
def test_closed_port(hosts, v):
    """Port unreachable comes through the router, and from it."""
    there = address("b", int(v))
    assert udp_error(hosts["a"], there, family=v) == "ECONNREFUSED"
    assert udp_error(hosts["a"], there[:-1] + "1", family=v) == "ECONNREFUSED"


@pytest.mark.parametrize("v", [4, 6])
def test_nobody_there(hosts, lab, v):
    """A neighbour that doesn't answer: the sender is told."""
    there = address("b", v)[:-1] + "99"
    text = hosts["a"].run("ping", "-n", "-c", 3, "-W", 5, there, check=False, limit=60).stdout
    assert "Destination Host Unreachable" in text or "Address unreachable" in text, text
    said = lab.explain("a", icmp(address("a", v), there))
    assert "doesn't answer" in said or "is being asked for" in said, said


@pytest.mark.parametrize("v", [4, 6])
def test_path_mtu(hosts, lab, v):
    """The narrow network: ping is told, tracepath finds it, TCP goes through, and back."""
    a, c, there = hosts["a"], hosts["c"], address("c", v)
    a.answers(there)
    mtu, text = a.path_mtu(there)
    assert mtu == MTU, text
    a.run("ip", "route", "flush", "cache")
    a.run("ip", "-6", "route", "flush", "cache")
    text = a.ping(there, "-M", "do", "-s", 1400)
    assert re.search(rf"mtu ?= ?{MTU}", text), text
    tcp(a, c, there)
    tcp(c, a, address("a", v))
    a.reaches(there, "-s", MTU - (28 if v == 4 else 48))


def test_fragments(hosts):
    """Without DF a large packet is cut at the narrow network; what the sender has cut goes through as it is."""
    a, c = hosts["a"], hosts["c"]
    a.run("ip", "route", "flush", "cache")
    a.reaches(HOSTS["c"][1], "-M", "dont", "-s", 1472)
    for v in (1, 2):
        a.reaches(HOSTS["b"][v], "-s", 8000, count=2)
        c.reaches(HOSTS["b"][v], "-s", 8000, count=2)


@pytest.mark.parametrize("kind, reason, says", [("blackhole", "BLACKHOLE", ""), ("unreachable", "UNREACHABLE", "Unreachable|unreachable"),
                                                ("prohibit", "PROHIBITED", "Packet filtered|Administratively prohibited")])
def test_route_types(hosts, lab, kind, reason, says):
    for prefix, there in (("10.9.0.0/16", "10.9.0.9"), ("fd09::/64", "fd09::9")):
        lab.weirctl("route", "add", "r", prefix, kind)
        try:
            text = hosts["a"].run("ping", "-n", "-c", 1, "-W", 1, there, check=False).stdout
            assert re.search(says, text) and "bytes from" not in text and (says or "nreachable" not in text), text
            said = lab.explain("a", icmp(address("a", 6 if ":" in there else 4), there))
            assert kind in said, said
            if not says:
                assert f"router.{reason}" in said, said
        finally:
            lab.weirctl("route", "del", "r", prefix)
    assert "nreachable" in hosts["a"].run("ping", "-n", "-c", 1, "-W", 1, "10.9.0.9", check=False).stdout  # no route at all
