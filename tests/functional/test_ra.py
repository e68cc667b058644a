"""ra, mss, mtu and reassembly with kernels: what routers advertise ends, TCP says what fits, who sends too much is told, large pings come back.

    a (MTU 1,500) ---- blue ---- fd01::1/64, 10.1.0.1/24 [ router r ] fd02::1/64, 10.2.0.1/24 ---- red (MTU 1,300) ---- c
    b (port of MTU 1,200) -- blue
"""

import json
import re
import socket

import pytest

from net import SLOW, Namespace, wait_for

RED = 1300


class Host:
    def __init__(self, lab, name, network, *addresses, mtu=None, settings=()):
        self.lab, self.name = lab, name
        lab.weirctl("port", "add", name, "--type", "tap", "--network", network, *settings)
        self.namespace = Namespace(ipv6=True)
        self.namespace.take(name)
        for words in (("mtu", mtu),) if mtu else ():
            self.ip("link", "set", "dev", name, *words)
        self.ip("link", "set", "dev", name, "up")
        for address in addresses:
            self.ip("address", "add", address, "dev", name, *(["nodad"] if ":" in address else []))

    def ip(self, *words):
        return self.namespace.run("ip", *words)

    def ping(self, address, *options, count=1):
        return self.namespace.run("ping", "-n", "-c", count, "-W", 2 * SLOW, *options, address, check=False, limit=60).stdout

    def answers(self, address, *options):
        wait_for(lambda: "bytes from" in self.ping(address, *options), 10 * SLOW, f"a ping of {self.name} to {address} to come back", 0)

    def socket(self, *args):
        with self.namespace:
            return socket.socket(*args)

    def routes(self):
        return json.loads(self.namespace.run("ip", "-j", "-6", "route", "show", "default"))

    def forget_paths(self):
        self.ip("route", "flush", "cache")
        self.ip("-6", "route", "flush", "cache")


@pytest.fixture(scope="module")
def hosts(lab):
    lab.network("blue")
    lab.network("red", "--mtu", str(RED))
    lab.weirctl("router", "add", "r")
    lab.weirctl("router-port", "add", "r-blue", "router=r", "network=blue", "addresses=10.1.0.1/24,fd01::1/64")
    lab.weirctl("router-port", "add", "r-red", "router=r", "network=red", "addresses=10.2.0.1/24,fd02::1/64")
    found = {"a": Host(lab, "a", "blue", "10.1.0.10/24", "fd01::10/64"), "b": Host(lab, "b", "blue", "10.1.0.11/24", "fd01::11/64", mtu=1500, settings=("--mtu", "1200")),
             "c": Host(lab, "c", "red", "10.2.0.10/24", "fd02::10/64", mtu=1500)}
    for name, v4, v6 in (("a", "10.1.0.1", "fd01::1"), ("b", "10.1.0.1", "fd01::1"), ("c", "10.2.0.1", "fd02::1")):
        found[name].ip("route", "add", "default", "via", v4)
        found[name].ip("-6", "route", "add", "default", "via", v6, "metric", "2000")
    for there in ("10.2.0.10", "fd02::10", "10.1.0.11", "fd01::11"):
        found["a"].answers(there)
    yield found
    for host in found.values():
        host.namespace.close()


@pytest.mark.parametrize("there", ["10.1.0.1", "fd01::1", "10.2.0.1"])
def test_large_pings(hosts, lab, there):
    """Fragments for the router itself are put together, and its answers leave in fragments."""
    before = lab.stats("a")
    text = hosts["a"].ping(there, "-s", 6000, count=3)
    assert text.count("6008 bytes from") == 3, text
    wait_for(lambda: lab.stats("a")["segments_added"] >= before["segments_added"] + 12, 5 * SLOW, "the fragments of three answers")


@pytest.mark.parametrize("family, there", [(socket.AF_INET, "10.2.0.10"), (socket.AF_INET6, "fd02::10")])
def test_segments_fit(hosts, lab, family, there):
    """Neither end says more than the smaller network takes, though the kernel of c believes in 1,500."""
    listener = hosts["c"].socket(family)
    listener.bind((there, 0))
    listener.listen()
    client = hosts["a"].socket(family)
    client.settimeout(5 * SLOW)
    number = lab.trace_start("--port", "a", "--count", "1", "--filter", "tcp" if family == socket.AF_INET else "ip6 proto 6")
    client.connect(listener.getsockname()[:2])
    server, _ = listener.accept()
    headers = 40 if family == socket.AF_INET else 60
    text = lab.trace_end(number)
    assert f"would not fit: {RED - headers}" in text, text
    for s in (client, server):  # the kernel takes the time stamps' 12 bytes off
        assert RED - headers - 12 <= s.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= RED - headers
    before = lab.drops().get("mtu.TOO_LARGE", 0)
    server.settimeout(5 * SLOW)
    client.sendall(bytes(200000))
    got = 0
    while got < 200000:
        got += len(server.recv(65536))
    assert lab.drops().get("mtu.TOO_LARGE", 0) == before
    for s in (client, server, listener):
        s.close()


@pytest.mark.parametrize("there, source", [("10.2.0.10", "10.1.0.1"), ("fd02::10", "fd01::1"), ("10.1.0.11", "10.1.0.1"), ("fd01::11", "fd01::1")])
def test_who_sends_too_much_is_told(hosts, lab, there, source):
    """By the router, of what it routes and of what meets a port of smaller MTU in the network itself. IPv6 has no MTU below 1,280."""
    if there == "fd01::11":
        lab.weirctl("port", "set", "b", "--mtu", "1290")
    mtu = RED if "2" in there.split(".")[1:2] or there.startswith("fd02") else lab.port("b")["mtu"]
    host = hosts["a"]
    host.forget_paths()
    before, made = lab.drops("a").get("mtu.TOO_LARGE", 0), lab.stats("a")["generated"]
    text = host.ping(there, "-M", "do", "-s", 1400)
    assert re.search(rf"[Ff]rom {re.escape(source)}.*mtu ?= ?{mtu}\b", text), text
    assert lab.drops("a")["mtu.TOO_LARGE"] == before + 1 and lab.stats("a")["generated"] > made
    size = mtu - (48 if ":" in there else 28)
    host.answers(there, "-M", "do", "-s", size)
    host.forget_paths()


def test_fragments_of_the_router(hosts, lab):
    """IPv4 that may be cut is cut, where it is routed; in the network itself that is nobody's business."""
    host, before = hosts["a"], lab.stats("a")["segments_added"]
    text = host.ping("10.2.0.10", "-M", "dont", "-s", 1472, count=2)
    assert text.count("1480 bytes from") == 2, text
    assert lab.stats("a")["segments_added"] == before + 2
    lab.weirctl("port", "set", "b", "--mtu", "1200")
    drops = lab.drops("a").get("mtu.TOO_LARGE", 0)
    assert "bytes from" not in host.ping("10.1.0.11", "-M", "dont", "-s", 1400)
    assert lab.drops("a")["mtu.TOO_LARGE"] == drops + 1


def test_traceroute(hosts, lab):
    for options, there, hop in (([], "10.2.0.10", "10.1.0.1"), (["-6"], "fd02::10", "fd01::1")):
        text = hosts["a"].namespace.run("traceroute", "-n", "-q", "1", "-w", str(3 * SLOW), *options, there, limit=60)
        hops = re.findall(r"^ *\d+  (\S+)", text, re.M)
        assert hops == [hop, there], text
    # Nobody serves UDP on the router: that is what ends a traceroute to it.
    text = hosts["a"].namespace.run("traceroute", "-n", "-q", "1", "-w", str(3 * SLOW), "10.2.0.1", limit=60)
    assert re.findall(r"^ *\d+  (\S+)", text, re.M) == ["10.2.0.1"], text


def test_advertised_until_switched_off(hosts, lab):
    """A host has an address, a default route and the MTU as soon as advertisements are on; the route goes with them."""
    d = Host(lab, "d", "red", mtu=1500)
    with d.namespace:
        for key, value in (("accept_ra", 1), ("autoconf", 1)):
            with open(f"/proc/sys/net/ipv6/conf/d/{key}", "w") as f:
                f.write(str(value))
    assert d.routes() == []
    lab.weirctl("router-port", "set", "r-red", "ra:send=true", "ra:preference=high")
    wait_for(lambda: "fd02:" in d.ip("-6", "address", "show", "dev", "d", "scope", "global", "-tentative"), 15 * SLOW, "an address of the prefix")
    (route,) = d.routes()
    assert route["gateway"].startswith("fe80:") and route["protocol"] == "ra" and route.get("pref") == "high", route
    with d.namespace, open("/proc/sys/net/ipv6/conf/d/mtu") as f:
        assert f.read().strip() == str(RED)
    d.answers("fd01::10")
    lab.weirctl("router-port", "set", "r-red", "ra:send=false")
    wait_for(lambda: d.routes() == [], 15 * SLOW, "the default route to go")
    d.namespace.close()
