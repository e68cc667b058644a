"""A guest's kernel as the other end of GENEVE and GRE tunnels, of a trunk with 802.1Q, and of a bond with LACP.

    vm 10.N.0.1, fd0N::1 ---- networks with a VNI ---- [ switch ] 10.9.0.1, fd09::1 ---- under ---- peer 10.9.0.2, fd09::2
                                                                                                    its tunnel devices: 10.N.0.2, fd0N::2

The host's kernel has none of these; Debian's for guests has all.
"""

import re
import subprocess
from pathlib import Path

import pytest

from guest import Guest, Nic, boot, iperf
from wait import wait_for

# name, format, VNI, whether the underlay is IPv6, number in addresses, bytes of layer 3 that fit into 1,500. GRE alone would
# leave 8 more, but a tunnel's port has the smallest MTU of all networks behind it.
TUNNELS = [("geneve4", "geneve", 1001, False, 1, 1450), ("geneve6", "geneve", 1002, True, 2, 1430),
           ("gre4", "gre", 1003, False, 3, 1450), ("gre6", "gre", 1004, True, 4, 1430)]
DEVICE = {  # what the peer makes
    "geneve4": "type geneve id 1001 remote 10.9.0.1 dstport 6081", "geneve6": "type geneve id 1002 remote fd09::1 dstport 6081",
    "gre4": "type gretap local 10.9.0.2 remote 10.9.0.1 key 1003", "gre6": "type ip6gretap local fd09::2 remote fd09::1 key 1004 encaplimit none",
}
TAPS = ("weir-lacp-0", "weir-lacp-1")  # the peer's second and third NIC, uplinks of the switch


@pytest.fixture(scope="module")
def world(switch):
    switch.weirctl("network", "add", "under")
    switch.weirctl("router", "add", "underlay")
    switch.weirctl("router-port", "add", "vtep", "--router", "underlay", "--network", "under", "10.9.0.1/24", "fd09::1/64")
    (host,) = switch.weirctl("host", "list", json=True)
    switch.weirctl("host", "set", host["name"], "--tunnel-ips", "10.9.0.1,fd09::1")
    for name, format, vni, v6, _, _ in TUNNELS:
        switch.weirctl("network", "add", name, f"vni={vni}", f"tunnel={format}", "flood_to=" + ("fd09::2" if v6 else "10.9.0.2"))
    vm = Guest("vm1", switch.rundir, [Nic(switch.path("vm1.sock"))])
    for tap in TAPS:
        subprocess.run(["ip", "link", "del", tap], stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "tuntap", "add", tap, "mode", "tap"], check=True)
        Path(f"/proc/sys/net/ipv6/conf/{tap}/disable_ipv6").write_text("1")
        subprocess.run(["ip", "link", "set", "dev", tap, "up"], check=True)
    # What comes from a TAP by a raw socket must be whole: no offloads.
    peer = Guest("peer2", switch.rundir, [Nic(switch.path("peer.sock"))] +
                 [Nic(netdev=f"tap,ifname={tap},script=no,downscript=no", csum=False, tso=False) for tap in TAPS])
    switch.weirctl("port", "add", "vm1", "--network", "geneve4", "--path", vm.nics[0].path)
    switch.weirctl("port", "add", "peer", "--network", "under", "--path", peer.nics[0].path)
    try:
        boot([vm, peer])
        vm.sh("ip link set eth0 up")
        peer.sh("""modprobe geneve; modprobe ip_gre; modprobe ip6_gre; modprobe 8021q
            ip link set eth0 up; ip address replace 10.9.0.2/24 dev eth0; ip -6 address replace fd09::2/64 dev eth0 nodad""")
        yield {"vm": vm, "peer": peer}
    finally:
        vm.stop()
        peer.stop()
        for tap in TAPS:
            subprocess.run(["ip", "link", "del", tap])


@pytest.mark.parametrize("name, format, vni, v6, n, room", TUNNELS, ids=[t[0] for t in TUNNELS])
def test_tunnel(world, switch, name, format, vni, v6, n, room):
    """Ping, TCP with offloads both ways, and what doesn't fit, IPv4 and IPv6 inside."""
    vm, peer = world["vm"], world["peer"]
    switch.weirctl("port", "set", "vm1", f"network={name}")
    vm.sh(f"ip address flush dev eth0; ip address replace 10.{n}.0.1/24 dev eth0; ip -6 address replace fd0{n}::1/64 dev eth0 nodad")
    peer.sh(f"ip link add {name} {DEVICE[name]} && ip link set {name} mtu {room} up && ip address add 10.{n}.0.2/24 dev {name} && "
            f"ip -6 address add fd0{n}::2/64 dev {name} nodad")
    for there, mine in ((f"10.{n}.0.2", f"10.{n}.0.1"), (f"fd0{n}::2", f"fd0{n}::1")):
        vm.wait_ping(there)
        assert vm.ping(there, 3) == (3, 3) and peer.ping(mine, 3) == (3, 3)
        _, text = vm.run(f"ping -n -c 2 -i 0.2 -W 2 -M do -s 1440 {there}")
        assert re.search(rf"mtu ?= ?{room}", text), text
    # The guest's own MTU stays at 1,500: what it is told is enough for TCP.
    assert iperf(vm, peer, f"10.{n}.0.2", 1) > 5
    assert iperf(peer, vm, f"fd0{n}::1", 1) > 5
    said = switch.unixctl("explain", "--port", "vm1", f"icmp,nw_src=10.{n}.0.1,nw_dst=10.{n}.0.2")
    assert format in said.lower() and str(vni) in said, said


def test_trunk(world, switch):
    """VLAN interfaces of the kernel's on a trunk: two networks, and a router between them."""
    vm, peer = world["vm"], world["peer"]
    switch.weirctl("network", "add", "v10", "vlan=10", "--", "network", "add", "v20", "vlan=20", "--", "router", "add", "rv")
    switch.weirctl("router-port", "add", "rv10", "--router", "rv", "--network", "v10", "10.10.0.254/24", "fd10::fe/64")
    switch.weirctl("router-port", "add", "rv20", "--router", "rv", "--network", "v20", "10.20.0.254/24", "fd20::fe/64")
    switch.weirctl("port", "set", "vm1", "network=v10")
    switch.weirctl("port", "set", "peer", "vlan_mode=native-untagged")
    vm.sh("""ip address flush dev eth0; ip address replace 10.10.0.1/24 dev eth0; ip -6 address replace fd10::1/64 dev eth0 nodad
        ip route replace default via 10.10.0.254; ip -6 route replace default via fd10::fe""")
    for n in (10, 20):
        peer.sh(f"""ip link add link eth0 name eth0.{n} type vlan id {n} && ip link set eth0.{n} up && ip address add 10.{n}.0.2/24 dev eth0.{n} &&
            ip -6 address add fd{n}::2/64 dev eth0.{n} nodad""")
    peer.sh("ip route replace 10.10.0.1/32 via 10.20.0.254; ip -6 route replace fd10::1/128 via fd20::fe")  # back by the router, so ways differ
    for there in ("10.10.0.2", "fd10::2", "10.20.0.2", "fd20::2"):
        vm.wait_ping(there)
        assert vm.ping(there, 3) == (3, 3)
    assert iperf(vm, peer, "10.20.0.2", 1) > 5
    vm.wait_ping("10.10.0.2")
    wait_for(lambda: peer.ping("10.9.0.1", 1)[1] == 1, 10, "the native network to work beside the tags")


def test_lacp(world, switch):
    """The kernel's bonding, mode 802.3ad: both links are of one aggregate; one may go."""
    vm, peer = world["vm"], world["peer"]
    switch.weirctl("network", "add", "bonded")
    for n, tap in enumerate(TAPS):
        switch.weirctl("port", "add", f"l{n}", "--type", "kernel", "--network", "bonded", "--iface", tap)
    switch.weirctl("port", "add", "bond0", "--type", "bond", "--network", "bonded", "options:members=l0,l1", "options:bond-mode=802.3ad",
                   "options:lacp-time=fast")
    switch.weirctl("port", "set", "vm1", "network=bonded")
    vm.sh("ip address flush dev eth0; ip address replace 10.30.0.1/24 dev eth0; ip -6 address replace fd30::1/64 dev eth0 nodad")
    peer.sh("""modprobe bonding max_bonds=0; ip link add bond0 type bond mode 802.3ad lacp_rate fast miimon 100 && for i in 1 2; do
        ethtool -s eth$i speed 1000 duplex full; ip link set eth$i down && ip link set eth$i master bond0 || exit 1; done
        ip link set bond0 up && ip address add 10.30.0.2/24 dev bond0 && ip -6 address add fd30::2/64 dev bond0 nodad""")

    def aggregated():
        text = peer.sh("cat /proc/net/bonding/bond0")
        ids = re.findall(r"Aggregator ID: (\d+)", text)
        return "Number of ports: 2" in text and len(set(ids)) == 1 and "Partner Mac Address: 00:00:00:00:00:00" not in text

    wait_for(aggregated, 30, lambda: "an aggregate of two links:\n" + peer.sh("cat /proc/net/bonding/bond0") + switch.unixctl("bond/list"))
    for there in ("10.30.0.2", "fd30::2"):
        vm.wait_ping(there)
        assert vm.ping(there, 3) == (3, 3)
    assert iperf(vm, peer, "10.30.0.2", 1) > 5
    peer.sh("ip link set eth1 down")
    vm.wait_ping("10.30.0.2", 20)
    peer.sh("ip link set eth1 up")
    wait_for(aggregated, 30, "both links to be used again")
    vm.wait_ping("fd30::2")
