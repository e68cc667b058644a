"""Kernel routers beside the switch's own.

                                       10.0.5.11  fd05::11 [ kernel router k1 ]
                                      |                                        \\
    a ---- blue ---- [ router r ] ---- transit                                  veth pairs ---- [ far: 10.7.0.7  fd07::7 on lo ]
    10.0.1.2          10.0.1.1        |                                        /
    fd01::2           10.0.5.1         10.0.5.12  fd05::12 [ kernel router k2 ]

The switch's router has a default route, and one to 10.7.0.0/16 and fd07::/64 by both kernel routers.
"""

import pytest

from net import LONG, SLOW, run, wait_for
from topology import Kernel, router, tcp


@pytest.fixture(scope="module")
def world(lab):
    lab.network("blue")
    lab.network("transit")
    a = Kernel().plug(lab, "a", "blue", "10.0.1.2/24", "fd01::2/64").default("10.0.1.1", "fd01::1")
    k1 = Kernel(forward=True).plug(lab, "k1", "transit", "10.0.5.11/24", "fd05::11/64")
    k2 = Kernel(forward=True).plug(lab, "k2", "transit", "10.0.5.12/24", "fd05::12/64")
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
            k.route(back, "via", home)
    for address in ("10.7.0.7/32", "10.7.0.8/32", "fd07::7/128", "fd07::8/128"):
        far.address("lo", address)
    far.route("10.0.0.0/16", "via", "10.0.61.1")  # answers come by k1, whichever way a packet went: paths are asymmetric
    far.route("fd01::/64", "via", "fd06:1::1")
    far.sysctl(**{"net.ipv4.conf.all.rp_filter": 0})
    router(lab, "r", {"r1": ("blue", "10.0.1.1/24", "fd01::1/64"), "r5": ("transit", "10.0.5.1/24", "fd05::1/64")},
           [("10.7.0.0/16", "10.0.5.11", "10.0.5.12"), ("fd07::/64", "fd05::11", "fd05::12"), ("default", "10.0.5.12"), ("::/0", "fd05::12")])
    yield {"a": a, "k1": k1, "k2": k2, "far": far}
    for kernel in (a, k1, k2, far):
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


@pytest.mark.skipif(not LONG, reason="takes as long as neighbours are believed without a word: up to 50 s")
def test_a_next_hop_dies(world, lab):
    """k2 goes away without a word: its flows go by k1 as soon as the neighbour has failed."""
    a, k2 = world["a"], world["k2"]
    for there in ("10.7.0.7", "fd07::7"):
        a.answers(there)
    k2.run("ip", "link", "set", "dev", "k2", "down")
    try:
        for v in (4, 6):
            there = ("10.7.0.7", "fd07::7")[v // 6]
            wait_for(lambda: all_by_k1(world, lab, v), 70 * SLOW, lambda: "all flows to go by k1:\n" + lab.explain("a", MATCH[v // 6].format(20000)), 0.5)
            a.reaches(there)
    finally:
        k2.run("ip", "link", "set", "dev", "k2", "up")
        k2.address("k2", "fd05::12/64")  # the kernel has forgotten what it had of IPv6
        k2.route("fd01::/64", "via", "fd05::1")
        k2.route("10.0.1.0/24", "via", "10.0.5.1")
    for v in (4, 6):  # it is asked for every second, though nobody sends to it
        wait_for(lambda: not all_by_k1(world, lab, v), 30 * SLOW, "the next hop to be used again")
