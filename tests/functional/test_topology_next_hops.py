"""Kernel routers beside the switch's own.

                                       10.0.5.11  fd05::11 [ kernel router k1 ]
                                      |                                        \\
    a ---- blue ---- [ router r ] ---- transit                                  veth pairs ---- [ far: 10.7.0.7  fd07::7 on lo ]
    10.0.1.2          10.0.1.1        |                                        /
    fd01::2           10.0.5.1         [ kernel bridge ] -- 10.0.5.12  fd05::12 [ kernel router k2 ]

The switch's router has a default route, one to 10.7.0.0/16 and fd07::/64 by both kernel routers, and one to 10.8.0.0/16 and fd08::/64 by k2, or with a worse metric by k1. What is done to k2 behind the bridge the switch sees by no link.
"""

import re
import subprocess
import time

import pytest

from net import SLOW, Namespace, run, wait_for
from topology import Kernel, router, tcp


@pytest.fixture(scope="module")
def world(lab):
    lab.network("blue")
    lab.network("transit")
    a = Kernel().plug(lab, "a", "blue", "10.0.1.2/24", "fd01::2/64").default("10.0.1.1", "fd01::1")
    k1 = Kernel(forward=True).plug(lab, "k1", "transit", "10.0.5.11/24", "fd05::11/64")
    k2, bridge = Kernel(forward=True), Namespace()
    lab.weirctl("port", "add", "k2", "--type", "tap", "--network", "transit")
    run("ip", "link", "add", "inner", "type", "veth", "peer", "name", "outer")
    k2.take("inner")
    for device in ("k2", "outer"):
        bridge.take(device)
    bridge.run("ip", "link", "add", "name", "br", "type", "bridge")
    for device in ("k2", "outer", "br"):
        bridge.run("ip", "link", "set", "dev", device, *(["master", "br"] if device != "br" else []), "up")
    k2.run("ip", "link", "set", "dev", "inner", "name", "k2")
    k2.run("ip", "link", "set", "dev", "k2", "up")
    for address in ("10.0.5.12/24", "fd05::12/64"):
        k2.address("k2", address)
    far = Kernel(forward=True)
    for n, k in ((1, k1), (2, k2)):
        run("ip", "link", "add", "upl", "type", "veth", "peer", "name", f"down{n}")
        k.take("upl")
        far.take(f"down{n}")
        for space, device, last in ((k, "upl", 1), (far, f"down{n}", 2)):
            space.run("ip", "link", "set", "dev", device, "up")
            space.address(device, f"10.0.6{n}.{last}/24")
            space.address(device, f"fd06:{n}::{last}/64")
        for prefix, there, back, home in (("10.7.0.0/16", f"10.0.6{n}.2", "10.0.1.0/24", "10.0.5.1"), ("fd07::/64", f"fd06:{n}::2", "fd01::/64", "fd05::1")):
            k.route(prefix, "via", there)
            k.route(prefix.replace("7", "8"), "via", there)
            k.route(back, "via", home)
    for address in ("10.7.0.7/32", "10.7.0.8/32", "fd07::7/128", "fd07::8/128", "10.8.0.7/32", "fd08::7/128"):
        far.address("lo", address)
    far.route("10.0.0.0/16", "via", "10.0.61.1")  # answers come by k1, whichever way a packet went: paths are asymmetric
    far.route("fd01::/64", "via", "fd06:1::1")
    far.sysctl(**{"net.ipv4.conf.all.rp_filter": 0})
    router(lab, "r", {"r1": ("blue", "10.0.1.1/24", "fd01::1/64"), "r5": ("transit", "10.0.5.1/24", "fd05::1/64")},
           [("10.7.0.0/16", "10.0.5.11", "10.0.5.12"), ("fd07::/64", "fd05::11", "fd05::12"), ("default", "10.0.5.12"), ("::/0", "fd05::12")])
    for prefix, first, second in (("10.8.0.0/16", "10.0.5.12", "10.0.5.11"), ("fd08::/64", "fd05::12", "fd05::11")):
        lab.weirctl("route", "add", "--metric", "10", "r", prefix, "via", first)
        lab.weirctl("route", "add", "--metric", "20", "r", prefix, "via", second)
    yield {"a": a, "k1": k1, "k2": k2, "far": far, "bridge": bridge}
    for kernel in (a, k1, k2, far, bridge):
        kernel.close()


def forwarded(kernel, v):
    """Packets that a kernel has forwarded."""
    with kernel:
        if v == 4:
            names, values = [line.split() for line in open("/proc/net/snmp") if line.startswith("Ip:")]
            return int(values[names.index("ForwDatagrams")])
        return int(next(line.split()[1] for line in open("/proc/net/snmp6") if line.startswith("Ip6OutForwDatagrams")))


@pytest.mark.parametrize("v", [4, 6])
def test_default_route(world, lab, v):
    """By the default route to what only k2 has, and from k2 to a, whose neighbour the switch must find."""
    a, k2 = world["a"], world["k2"]
    there = ("10.0.62.2", "fd06:2::2")[v // 6]
    world["far"].route(("10.0.1.0/24", "fd01::/64")[v // 6], "via", ("10.0.62.1", "fd06:2::1")[v // 6])
    try:
        a.reaches(there)
        hops = a.traceroute(there)
        assert hops == [("10.0.1.1", "fd01::1")[v // 6], ("10.0.5.12", "fd05::12")[v // 6], there], hops
        k2.reaches(("10.0.1.2", "fd01::2")[v // 6])
        tcp(a, world["far"], there)
    finally:
        world["far"].route(("10.0.1.0/24", "fd01::/64")[v // 6], "via", ("10.0.61.1", "fd06:1::1")[v // 6])


def flood_of_flows(world, v, ports):
    """A UDP packet from each source port; k1 and k2: how many each has forwarded of them."""
    before = [forwarded(world[k], v) for k in ("k1", "k2")]
    there, family = (("10.7.0.7", "AF_INET"), ("fd07::7", "AF_INET6"))[v // 6]
    world["a"].run("/usr/bin/python3", "-c", f"import socket, time\nfor p in range(20000, 20000 + {ports}):\n"
                   f" s = socket.socket(socket.{family}, socket.SOCK_DGRAM); s.bind(('', p)); s.sendto(b'x', ('{there}', 9)); s.close()\n time.sleep(0.002)")

    def both():
        now = [forwarded(world[k], v) for k in ("k1", "k2")]
        return [n - b for n, b in zip(now, before)]

    return both


@pytest.mark.parametrize("v", [4, 6])
def test_both_next_hops(world, lab, v):
    """Flows are shared between the next hops; each stays with its own."""
    a = world["a"]
    for there in (("10.7.0.7", "10.7.0.8"), ("fd07::7", "fd07::8"))[v // 6]:
        a.answers(there)
    both = flood_of_flows(world, v, 64)
    # Answers of `far` (port unreachable) come by k1: it has forwarded those too.
    wait_for(lambda: both()[1] >= 10 and sum(both()) >= 64, 10 * SLOW, lambda: f"both next hops to be used: {both()}")
    assert both()[0] >= 10
    ways = {"k1" if "out by k1" in text else "k2" for text in (lab.explain("a", MATCH[v // 6].format(p)) for p in range(20000, 20040))}
    assert ways == {"k1", "k2"}


MATCH = ("udp,nw_src=10.0.1.2,nw_dst=10.7.0.7,tp_src={},tp_dst=9", "udp6,ipv6_src=fd01::2,ipv6_dst=fd07::7,tp_src={},tp_dst=9")


def all_by_k1(world, lab, v):
    flood_of_flows(world, v, 32)
    return all("out by k1" in lab.explain("a", MATCH[v // 6].format(p)) for p in range(20000, 20032))


def test_a_next_hop_is_switched_off(world, lab):
    """The port behind which k2 is: its flows go by k1, and come back with it."""
    a = world["a"]
    for there in ("10.7.0.7", "fd07::7"):
        a.answers(there)
    lab.weirctl("port", "set", "k2", "--disabled")
    try:
        for v in (4, 6):
            there = ("10.7.0.7", "fd07::7")[v // 6]
            wait_for(lambda: all_by_k1(world, lab, v), 20 * SLOW, lambda: "all flows to go by k1:\n" + lab.explain("a", MATCH[v // 6].format(20000)), 0.2)
            a.reaches(there)
            tcp(a, world["far"], there, 1)
    finally:
        lab.weirctl("port", "set", "k2", "enabled=true")
    for there in ("10.0.5.1", "fd05::1"):
        world["k2"].answers(there)


# Packets of 32 flows, numbered, 200 a second; `far` writes down which arrive.
SENDER = """
import socket, sys, time
there, family = sys.argv[1], socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
flows = []
for i in range(32):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.bind(("", 30000 + i))
    flows.append(s)
n, start = 0, time.monotonic()
while True:
    flows[n % 32].sendto(b"%d" % n, (there, 9999))
    n += 1
    time.sleep(max(0, start + n * 0.005 - time.monotonic()))
"""
SINK = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 9999))
print("ready", flush=True)
while True:
    print(int(s.recv(100)), flush=True)
"""


class Flows:
    """The flows, and what of them arrives."""

    def __init__(self, world, there, log):
        self.log = log
        self.sink = world["far"].popen("/usr/bin/python3", "-c", SINK, there, stdout=log.open("w"))
        wait_for(lambda: log.read_text(), 10 * SLOW, "the sink to be ready", 0.02)
        self.sender = world["a"].popen("/usr/bin/python3", "-c", SENDER, there)

    def arrived(self):
        return [int(line) for line in self.log.read_text().split("\n")[1:-1]]  # the last one may still be written

    def all_arrive(self):
        """Each of the last 64, which are two of each flow."""
        got = self.arrived()
        return len(got) >= 64 and max(got) - min(got[-64:]) < 64

    def stop(self):
        for process in (self.sender, self.sink):
            process.kill()
            process.wait()


def dead(lab):
    """Next hops of the router that its routes have left."""
    return {hop.split()[1] for route in lab.weirctl("route", "show", "--router", "r", json=True) for hop in route["next_hops"] if hop.endswith(" dead")}


@pytest.mark.parametrize("kind", ["several", "metric"])
@pytest.mark.parametrize("v", [4, 6])
def test_a_next_hop_dies(world, lab, v, kind, tmp_path):
    """k2 goes away without a word: its flows go by k1, the other next hop or that of the next metric, and come back with it."""
    there = {"several": ("10.7.0.7", "fd07::7"), "metric": ("10.8.0.7", "fd08::7")}[kind][v // 6]
    k2 = ("10.0.5.12", "fd05::12")[v // 6]
    match = ("udp,nw_src=10.0.1.2,nw_dst={},tp_src={},tp_dst=9999", "udp6,ipv6_src=fd01::2,ipv6_dst={},tp_src={},tp_dst=9999")[v // 6]
    ways = lambda: {"k1" if "out by k1" in text else "k2" for text in (lab.explain("a", match.format(there, p)) for p in range(30000, 30032))}
    before = {"several": {"k1", "k2"}, "metric": {"k2"}}[kind]
    wait_for(lambda: not dead(lab) and ways() == before, 20 * SLOW, lambda: f"both next hops to live: {dead(lab)}, {ways()}")
    world["a"].answers(there)
    flows = Flows(world, there, tmp_path / "arrived")
    try:
        wait_for(flows.all_arrive, 20 * SLOW, "all flows to arrive")
        world["bridge"].run("ip", "link", "set", "dev", "outer", "nomaster")
        begun, first = time.monotonic(), max(flows.arrived())
        wait_for(lambda: k2 in dead(lab), 20 * SLOW, lambda: "the next hop to be left:\n" + lab.weirctl("neighbour", "list"), 0.02)
        known = time.monotonic() - begun
        assert ways() == {"k1"}
        wait_for(lambda: max(flows.arrived()) > first + 64 and flows.all_arrive(), 20 * SLOW, "all flows to arrive again")
        got = set(flows.arrived())
        lost = sorted(set(range(first, max(got))) - got)
        print(f"IPv{v}, {kind}: left after {known:.2f} s; of {max(got) - first} packets at 200 a second {len(lost)} were lost, in {(lost[-1] - lost[0] + 1) / 200 if lost else 0:.2f} s")
        if kind == "several":
            assert "one of 2 next hops" in lab.explain("a", match.format(there, 30000))
        else:
            assert "via " + ("10.0.5.11", "fd05::11")[v // 6] in lab.explain("a", match.format(there, 30000))
        assert next(n for n in lab.weirctl("neighbour", "list", "r5", json=True) if n["ip"] == k2)["next_hop"] == "dead"
        assert re.search(r'weir_next_hops\{port="r5",state="dead"\} [12]\n', lab.unixctl("metrics"))  # that of the other family is as dead
        world["bridge"].run("ip", "link", "set", "dev", "outer", "master", "br")
        begun = time.monotonic()
        wait_for(lambda: k2 not in dead(lab), 20 * SLOW, "the next hop to be back", 0.02)  # it is asked on, though nobody sends to it
        print(f"back after {time.monotonic() - begun:.2f} s")
        assert ways() == before
    finally:
        world["bridge"].run("ip", "link", "set", "dev", "outer", "master", "br")
        flows.stop()
