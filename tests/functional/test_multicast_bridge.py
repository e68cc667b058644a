"""multicast with a Linux bridge behind a tunnel: the kernel snoops there, and is neither told nor asked otherwise than by IGMP and MLD.

    vm1  10.0.0.41 --.                                                  kernel `peer`:
    vm2  10.0.0.42 -- blue, VNI 5000 -- [ Weir ] 192.0.2.1 -- under -- u 192.0.2.2, vx -- br0 -- p1 -- far1  10.0.0.51
                                                                                             `-- p2 -- far2  10.0.0.52
"""

import json
import socket

import pytest

from net import SLOW, Lab, Namespace, Wire, mac, wait_for
from test_multicast import SETTINGS, Host, settled
from test_vxlan import Kernel, end_points

GROUPS = {4: "239.3.1.1", 6: "ff05::3:1"}
TUNNEL = "tunnel:192.0.2.2"


class Behind(Host):
    """A kernel at a port of the bridge."""

    def __init__(self, peer, port, name, n):
        self.name, self.ip = name, {4: f"10.0.0.{n}", 6: f"fd00::{n:x}"}
        self.namespace = Namespace(ipv6=True)
        peer.run("ip", "link", "add", port, "type", "veth", "peer", "name", name)
        peer.run("ip", "link", "set", "dev", port, "up", "master", "br0")
        with peer:
            self.namespace.take(name)
        for words in (("link", "set", name, "address", mac(n)), ("link", "set", name, "mtu", "1450"), ("link", "set", name, "up"),
                      ("addr", "add", f"{self.ip[4]}/24", "dev", name), ("addr", "add", f"{self.ip[6]}/64", "dev", name, "nodad"),
                      ("route", "add", "224.0.0.0/4", "dev", name)):
            self.namespace.run("ip", *words)
        with self.namespace:
            self.index = socket.if_nametoindex(name)
            self.wire = Wire(name)


def bridge_snoops(lab):
    """The kernel floods what is for groups until it has asked for some time."""
    tries = 0

    def alone():
        nonlocal tries
        tries += 1
        lab.vm[0].send("239.3.9.9", f"does it snoop {tries}.")
        return b"does it snoop" in s.recv(2000) and not lab.far[1].seen(f"does it snoop {tries}.")
    with lab.far[0].join("239.3.9.9") as s:
        wait_ports(lab, "239.3.9.9", [TUNNEL])
        wait_for(alone, 30 * SLOW, "the bridge to send to who asked alone", 0.2)


@pytest.fixture(scope="module")
def world():
    with Lab() as lab:
        end_points(lab)
        lab.network("blue", "vni=5000", "flood_to=192.0.2.2", *SETTINGS)
        lab.peer = Kernel().plug(lab, "u", "under", "192.0.2.2/24")
        lab.vm = [Host(lab, f"vm{i}", 40 + i) for i in (1, 2)]
        for vm in lab.vm:
            vm.namespace.run("ip", "link", "set", vm.name, "mtu", "1450")
        peer = lab.peer
        peer.run("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "1", "mcast_querier", "1", "mcast_query_response_interval", 100,
                 "mcast_query_interval", 500, "mcast_startup_query_interval", 100)
        peer.run("ip", "link", "add", "vx", "type", "vxlan", "id", 5000, "local", "192.0.2.2", "remote", "192.0.2.1", "dstport", 4789, "dev", "u")
        peer.run("ip", "link", "set", "dev", "vx", "up", "master", "br0")
        peer.run("ip", "link", "set", "dev", "br0", "up")
        peer.run("bridge", "link", "set", "dev", "vx", "mcast_router", "2")
        lab.far = [Behind(peer, f"p{i}", f"far{i}", 50 + i) for i in (1, 2)]
        wait_for(lambda: [t["state"] for t in lab.ask("tunnel/list")] == ["up"], 20 * SLOW, lambda: f"the way: {lab.ask('tunnel/list')}")
        settled(lab)
        bridge_snoops(lab)
        try:
            yield lab
            lab.check_conservation()
        finally:
            for h in (*lab.vm, *lab.far):
                h.close()
            lab.peer.close()


def ports_of(lab, group):
    return next((r["ports"] for r in lab.ask("group/list", "blue") if r["group"] == group and r["source"] == "*"), [])


def wait_ports(lab, group, ports):
    wait_for(lambda: ports_of(lab, group) == ports, 20 * SLOW, lambda: f"{ports} in {group}: {lab.ask('group/list')}", 0.02)


def bridge_ports(lab, group):
    """Where the kernel sends packets for the group."""
    return {e["port"] for b in json.loads(lab.peer.run("bridge", "-j", "mdb", "show")) for e in b["mdb"] if e["grp"] == group}


def once(sender, receivers, group, text):
    sender.send(group, text)
    sender.send(group, f"behind {text}")
    for s in receivers:
        assert [s.recv(2000).decode() for _ in range(2)] == [text, f"behind {text}"]


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("igmp, mld", [(3, 2), (2, 1)])
def test_receiver_behind_the_bridge(world, v, igmp, mld):
    """It joins, is heard by the bridge and by the switch, gets each packet once, and is asked before it is believed that nobody is left."""
    group, (far1, far2), (vm1, vm2) = GROUPS[v], world.far, world.vm
    far1.version(igmp, mld)
    with far1.join(group) as s:
        wait_ports(world, group, [TUNNEL])
        once(vm1, [s], group, f"to the bridge {v}{igmp}")
        assert f"wanted by {TUNNEL}" in world.explain("vm1", f"udp,nw_src={vm1.ip[4]},nw_dst={group}" if v == 4 else f"udp6,ipv6_src={vm1.ip[6]},ipv6_dst={group}")
        assert not far2.seen(f"to the bridge {v}{igmp}") and not vm2.seen(f"to the bridge {v}{igmp}")
        far1.leave(s, group)
        wait_ports(world, group, [])
    before = world.drops("vm1").get("multicast.UNREGISTERED", 0)
    vm1.send(group, "nobody")
    wait_for(lambda: world.drops("vm1").get("multicast.UNREGISTERED", 0) == before + 1, 10 * SLOW, "the packet to be dropped")
    far1.version(0, 0)


@pytest.mark.parametrize("v", [4, 6])
def test_receiver_behind_the_switch(world, v):
    """The kernel learns from the switch what a guest wants, keeps it by asking, and forgets it when the guest has left."""
    group, (far1, far2), (vm1, vm2) = {4: "239.3.1.2", 6: "ff05::3:2"}[v], world.far, world.vm
    with vm1.join(group) as s:
        wait_ports(world, group, ["vm1"])
        wait_for(lambda: bridge_ports(world, group) == {"vx"}, 20 * SLOW, lambda: f"the bridge to know: {world.peer.run('bridge', 'mdb', 'show')}")
        once(far1, [s], group, f"from the bridge {v}")
        assert not far2.seen(f"from the bridge {v}") and not vm2.seen(f"from the bridge {v}")
        vm1.leave(s, group)
        wait_for(lambda: not bridge_ports(world, group), 20 * SLOW, lambda: f"the bridge to forget: {world.peer.run('bridge', 'mdb', 'show')}")
    assert [r["querier"] for r in world.ask("group/networks", "blue")] == ["this switch"]


def test_the_bridge_asks(world):
    """Its questions end at the switch, which answers for the guests."""
    vm1 = world.vm[0]
    with vm1.join("239.3.1.3") as s:
        wait_for(lambda: bridge_ports(world, "239.3.1.3") == {"vx"}, 20 * SLOW, "the bridge to know")
        # What it was told is taken from it; what it is told when it asks next brings it back.
        number = world.trace_start("--port", TUNNEL, "--count", "1", "--filter", "igmp[0] = 0x11")
        world.peer.run("ip", "link", "set", "dev", "br0", "type", "bridge", "mcast_snooping", "0")
        world.peer.run("ip", "link", "set", "dev", "br0", "type", "bridge", "mcast_snooping", "1")
        wait_for(lambda: bridge_ports(world, "239.3.1.3") == {"vx"}, 30 * SLOW, lambda: f"the bridge to know again: {world.peer.run('bridge', 'mdb', 'show')}")
        assert "asks who is in a group: the switch answers for its ports" in world.trace_end(number)
        once(world.far[0], [s], "239.3.1.3", "again")
