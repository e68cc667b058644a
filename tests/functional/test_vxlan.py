"""Tunnels: a kernel's VXLAN device as the other end, over IPv4 and IPv6; GENEVE and GRE against packets made by hand; two switches of one database.

    vm  10.1.0.1  fd01::1 ---- blue, VNI 5000 ----.                                        kernel `peer`: vx  10.1.0.2  fd01::2
                                               [ Weir ] 192.0.2.1  fd00::1 ---- under ---- u  192.0.2.2  fd00::2
    w: a wire in `under`, static neighbours 192.0.2.7 and fd00::7, the other end of GENEVE and GRE tunnels ----'
"""

import json
import subprocess

import pytest
from scapy.all import GRE, IP, UDP, VXLAN, Ether, IPv6, Raw, raw
from scapy.contrib.geneve import GENEVE, GeneveOptions

from lab import Switch
from net import SLOW, Lab, Namespace, Wire, mac, run, wait_for

ROUTER_MAC = "02:00:00:00:99:01"
VNI = 5000
KINDS = {"vxlan": 5500, "geneve": 6000, "gre": 7000}


class Kernel(Namespace):
    def __init__(self):
        super().__init__(ipv6=True)

    def plug(self, lab, port, network, *addresses, mtu=None):
        lab.weirctl("port", "add", port, "--type", "tap", "--network", network)
        self.take(port)
        if mtu:
            self.run("ip", "link", "set", "dev", port, "mtu", mtu)
        self.run("ip", "link", "set", "dev", port, "up")
        for address in addresses:
            self.run("ip", "address", "add", address, "dev", port, *(["nodad"] if ":" in address else []))
        return self

    def ping(self, address, *options, count=1):
        return self.run("ping", "-n", "-c", count, "-i", "0.05", "-W", 2 * SLOW, *options, address, check=False, limit=60).stdout

    def reaches(self, address, *options):
        wait_for(lambda: "bytes from" in self.ping(address, *options), 20 * SLOW, f"a ping to {address} to come back", 0)
        text = self.ping(address, *options, count=5)
        assert "5 received" in text and "DUP" not in text, text


def end_points(lab, network="under"):
    """The switch gets a router in the underlay, whose addresses its tunnels end at."""
    lab.network(network)
    lab.weirctl("create", "Router", "name=r")
    lab.weirctl("create", "Router_Port", "name=r-under", f"router={lab.weirctl('list', 'Router', json=True)[0]['_uuid']}",
                f"network={[n['_uuid'] for n in lab.weirctl('list', 'Network', json=True) if n['name'] == network][0]}",
                f'mac="{ROUTER_MAC}"', 'addresses=["192.0.2.1/24","fd00::1/64"]')
    (host,) = lab.weirctl("list", "Host", json=True)
    lab.weirctl("set", "Host", host["_uuid"], 'tunnel_ips=["192.0.2.1","fd00::1"]')


def tunnels(lab):
    return {t["remote"]: t for t in lab.ask("tunnel/list")}


@pytest.fixture(scope="module")
def world(lab):
    end_points(lab)
    lab.network("blue", f"vni={VNI}", "flood_to=192.0.2.2")
    lab.network("green", "vni=5001", "flood_to=fd00::2")
    peer = Kernel().plug(lab, "u", "under", "192.0.2.2/24", "fd00::2/64")
    vm = Kernel().plug(lab, "vm", "blue", "10.1.0.1/24", "fd01::1/64", mtu=1450)
    vm6 = Kernel().plug(lab, "vm6", "green", "10.2.0.1/24", "fd02::1/64", mtu=1430)
    for device, vni, local, remote, net in (("vx", VNI, "192.0.2.2", "192.0.2.1", 1), ("vx6", 5001, "fd00::2", "fd00::1", 2)):
        peer.run("ip", "link", "add", device, "type", "vxlan", "id", vni, "local", local, "remote", remote, "dstport", 4789, "dev", "u")
        peer.run("ip", "link", "set", "dev", device, "up")
        peer.run("ip", "address", "add", f"10.{net}.0.2/24", "dev", device)
        peer.run("ip", "address", "add", f"fd0{net}::2/64", "dev", device, "nodad")
    yield {"vm": vm, "vm6": vm6, "peer": peer}
    for kernel in (vm, vm6, peer):
        kernel.close()


@pytest.mark.parametrize("port, net, remote, room", [("vm", 1, "192.0.2.2", 1450), ("vm6", 2, "fd00::2", 1430)], ids=["ipv4", "ipv6"])
def test_kernel(world, lab, port, net, remote, room):
    """Pings of all sizes both ways; the kernel's address is learned on the tunnel; the list says how the tunnel is."""
    vm, peer = world[port], world["peer"]
    for mine, other in ((f"10.{net}.0.1", f"10.{net}.0.2"), (f"fd0{net}::1", f"fd0{net}::2")):
        vm.reaches(other)
        peer.reaches(mine)
        vm.reaches(other, "-s", room - 48 - 20)
    at = tunnels(lab)[remote]
    assert at["state"] == "up" and at["underlay_port"] == "u" and at["mtu"] == room and at["next_hop"] == remote and at["underlay"] == "under", at
    assert at["rx_packets"] == lab.stats(f"tunnel:{remote}")["rx_packets"] >= 20 and at["tx_packets"] >= 20
    device = json.loads(peer.run("ip", "-j", "link", "show", "dev", "vx" if port == "vm" else "vx6"))[0]
    network = "blue" if port == "vm" else "green"
    assert lab.fdb(network)[device["address"]]["port"] == f"tunnel:{remote}"
    number = lab.trace_start("--port", port, "--count", "1", "--filter", "icmp" if net == 1 else "icmp6")
    vm.ping(f"10.{net}.0.2" if net == 1 else "fd02::2")
    text = lab.trace_end(number)
    assert f"by tunnel tunnel:{remote}, vxlan, VNI {4999 + net}, to {remote}: up" in text and "out by u" in text, text
    number = lab.trace_start("--port", "u", "--count", "1", "--filter", "udp port 4789")
    peer.ping(f"10.{net}.0.1")
    text = lab.trace_end(number)
    assert f"vxlan packet, VNI {4999 + net}: its frame comes in by tunnel:{remote}, network {network}" in text and f"out by {port}" in text, text


@pytest.mark.parametrize("port, net", [("vm", 1), ("vm6", 2)], ids=["ipv4", "ipv6"])
def test_tcp(world, lab, port, net):
    """Large frames go through, cut by whoever has to, both ways."""
    for client, server, address in ((world[port], world["peer"], f"10.{net}.0.2"), (world["peer"], world[port], f"fd0{net}::1")):
        listener = server.popen("iperf3", "-s", "-1", "-p", 5201, stdout=subprocess.DEVNULL)
        try:
            wait_for(lambda: ":5201" in server.run("ss", "-Hltn"), 10 * SLOW, "iperf3 to listen", 0.02)
            result = json.loads(client.run("iperf3", "-J", "-c", address, "-n", "4M", "--connect-timeout", 5000, check=False, limit=60 * SLOW).stdout)
            assert "error" not in result and result["end"]["sum_received"]["bytes"] > 0, result
            listener.wait(10)
        finally:
            listener.kill()
            listener.wait()
    lab.check_conservation()


def test_refused(world, lab):
    """What the kernel sends with another VNI is dropped with a reason, and counted on the uplink."""
    peer = world["peer"]
    peer.run("ip", "link", "add", "vq", "type", "vxlan", "id", 99, "local", "192.0.2.2", "remote", "192.0.2.1", "dstport", 4789)
    peer.run("ip", "link", "set", "dev", "vq", "up")
    peer.run("ip", "address", "add", "10.99.0.1/24", "dev", "vq")
    try:
        peer.ping("10.99.0.2")
        wait_for(lambda: lab.drops("u").get("tunnel.UNKNOWN_VNI", 0) > 0, 10 * SLOW, lambda: f"a drop: {lab.drops('u')}")
    finally:
        peer.run("ip", "link", "del", "vq")


def wrapped(kind, v6, inner, vni=None, **header):
    vni = KINDS[kind] if vni is None else vni
    outer = Ether(src=mac(7), dst=ROUTER_MAC) / (IPv6(src="fd00::7", dst="fd00::1") if v6 else IP(src="192.0.2.7", dst="192.0.2.1"))
    if kind == "gre":
        return outer / GRE(key_present=1, key=vni, proto=0x6558, **header) / inner
    udp = UDP(sport=50000, dport=4789 if kind == "vxlan" else 6081)
    return outer / udp / (VXLAN(vni=vni, flags=8, **header) if kind == "vxlan" else GENEVE(vni=vni, proto=0x6558, **header)) / inner


@pytest.fixture(scope="module")
def crafted(lab, world):
    for kind, vni in KINDS.items():
        lab.network(f"n-{kind}", f"vni={vni + 1}", f"tunnel={kind}", "flood_to=192.0.2.7")
        lab.network(f"m-{kind}", f"vni={vni + 2}", f"tunnel={kind}", "flood_to=fd00::7")
        lab.tap(f"a-{kind}", "--network", f"n-{kind}")
        lab.tap(f"b-{kind}", "--network", f"m-{kind}")
    lab.tap("w", "--network", "under", f"addresses={mac(7)} 192.0.2.7 fd00::7")
    for remote in ("192.0.2.7", "fd00::7"):
        wait_for(lambda: tunnels(lab).get(remote, {}).get("state") == "up", 10 * SLOW, lambda: f"the way: {tunnels(lab)}")
    return lab


@pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_formats(crafted, kind, v6):
    """What comes goes to the port as it was in the tunnel; what the port answers leaves in headers that scapy reads."""
    lab, vni = crafted, KINDS[kind] + 1 + v6
    port, remote = f"{'b' if v6 else 'a'}-{kind}", "fd00::7" if v6 else "192.0.2.7"
    inner = Ether(src=mac(20), dst=mac(21)) / IP(src="10.9.0.1", dst="10.9.0.2", tos=0xb9) / UDP(sport=1, dport=2) / Raw(b"inner" * 20)
    lab.wire[port].clear()
    lab.wire["w"].send(raw(wrapped(kind, v6, inner, vni)))
    assert lab.wire[port].wait(1) == [raw(inner)]
    back = Ether(src=mac(21), dst=mac(20)) / IP(src="10.9.0.2", dst="10.9.0.1", tos=0xb9) / UDP(sport=2, dport=1) / Raw(b"outer" * 20)
    lab.wire["w"].clear()
    lab.wire[port].send(raw(back))

    def ours():
        return [f for f in lab.wire["w"].received() if raw(back) in f]
    packet = Ether(wait_for(ours, 10 * SLOW, "the packet on the wire")[0])
    ip = packet[IPv6] if v6 else packet[IP]
    assert (packet.dst, packet.src, ip.dst, ip.src) == (mac(7), ROUTER_MAC, remote, "fd00::1" if v6 else "192.0.2.1")
    assert (ip.tc if v6 else ip.tos) == 0xb9  # DSCP and ECN of the inner packet
    if not v6:
        assert ip.flags == "DF"
        again = IP(raw(ip))
        del again.chksum
        assert IP(raw(again)).chksum == ip.chksum
    if kind == "gre":
        assert packet[GRE].key == vni and packet[GRE].proto == 0x6558
        return
    assert 49152 <= packet[UDP].sport and packet[UDP].dport == (4789 if kind == "vxlan" else 6081)
    if v6:  # right by default
        given = packet[UDP].chksum
        del packet[UDP].chksum
        assert Ether(raw(packet))[UDP].chksum == given
    else:
        assert packet[UDP].chksum == 0
    assert (packet[VXLAN] if kind == "vxlan" else packet[GENEVE]).vni == vni
    assert lab.fdb(f"{'m' if v6 else 'n'}-{kind}")[mac(20)]["port"] == f"tunnel:{remote}"
    lab.check_conservation()




def test_reasons(crafted):
    """Every reason for which a packet out of a tunnel is dropped, with what provokes it."""
    lab = crafted
    inner = Ether(src=mac(20), dst=mac(21)) / IP(src="10.9.0.1", dst="10.9.0.2") / UDP(sport=1, dport=2) / Raw(bytes(40))
    tagged = bytearray(raw(inner))
    tagged[12:12] = b"\x81\0\0\x05"

    def good():
        return wrapped("vxlan", False, inner, 5501)

    def changed(packet, **ip):
        for name, value in ip.items():
            setattr(packet[IP], name, value)
        return packet
    wrong_sum = bytearray(raw(good()))
    wrong_sum[24] ^= 1
    no_vni = bytearray(raw(good()))
    no_vni[40:43] = bytes(3)
    cases = {
        "tunnel.FRAGMENT": changed(good(), flags="MF"),
        "tunnel.CHECKSUM": bytes(wrong_sum),
        "tunnel.HEADER": bytes(no_vni),
        "tunnel.CRITICAL": wrapped("geneve", False, inner, 6001, critical=1, options=[GeneveOptions(classid=0x100, type=0x80, data=b"abcd")]),
        "tunnel.UNKNOWN_REMOTE": changed(good(), src="192.0.2.99"),
        "tunnel.UNKNOWN_VNI": wrapped("vxlan", False, inner, 1234),
        "tunnel.INNER": wrapped("vxlan", False, Raw(bytes(13)), 5501),
        "tunnel.INNER_VLAN": wrapped("vxlan", False, Raw(bytes(tagged)), 5501),
        "tunnel.CONGESTION": changed(good(), tos=3),
    }
    for reason, packet in cases.items():
        before = lab.drops("w").get(reason, 0)
        number = lab.trace_start("--port", "w", "--count", "1")
        lab.wire["w"].send(raw(packet) if not isinstance(packet, bytes) else packet)
        wait_for(lambda: lab.drops("w").get(reason, 0) == before + 1, 10 * SLOW, lambda: f"{reason}: {lab.drops('w')}")
        assert f"({reason})" in lab.trace_end(number)
    lab.check_conservation()


def test_no_way(crafted):
    """A remote end point that nobody answers for: what goes there is dropped with a reason, and the list says why."""
    lab = crafted
    lab.network("lost", "vni=8000", "flood_to=192.0.2.200")
    lab.tap("l", "--network", "lost")
    lab.wire["l"].send(raw(Ether(src=mac(30), dst="ff:ff:ff:ff:ff:ff") / IP(dst="255.255.255.255") / Raw(bytes(30))))
    wait_for(lambda: lab.drops("l").get("tunnel.NO_NEXT_HOP", 0) == 1, 10 * SLOW, lambda: f"a drop: {lab.drops('l')}")
    wait_for(lambda: "next hop" in tunnels(lab)["192.0.2.200"]["state"], 10 * SLOW, lambda: f"the state: {tunnels(lab)}")
    assert "192.0.2.200" in lab.weirctl("tunnel", "list")


def test_capture_and_explain(crafted):
    """The tunnel's port shows frames as they are in the tunnel, the uplink's packets as they are on the wire; explain follows both."""
    lab = crafted
    inner = raw(Ether(src=mac(20), dst=mac(21)) / IP(src="10.9.0.1", dst="10.9.0.2") / UDP(sport=1, dport=2) / Raw(bytes(40)))
    text = lab.explain("w", raw(wrapped("vxlan", False, Ether(inner), 5501)).hex())
    assert "its frame comes in by tunnel:192.0.2.7, network n-vxlan" in text, text
    lab.wire["a-vxlan"].send(raw(Ether(src=mac(21), dst=mac(20)) / IP() / UDP() / Raw(bytes(30))))
    wait_for(lambda: mac(20) in lab.fdb("n-vxlan"), 10 * SLOW, "the address")
    text = lab.explain("a-vxlan", f"udp,dl_src={mac(21)},dl_dst={mac(20)}")
    assert "vxlan packet, VNI 5501" in text and "out by w" in text, text


class Second(Switch):
    """Another switch of the same database."""

    def __init__(self, first, host):
        super().__init__(host=host)
        self.first = first

    db = property(lambda self: self.first.db)
    ask, fdb, stats, drops = Lab.ask, Lab.fdb, Lab.stats, Lab.drops


@pytest.fixture
def pair():
    """h1 and h2, an uplink each, and a kernel's bridge between these. vm1 and vm2 have addresses in the database; quiet1 and quiet2 have none."""
    with Lab(host="h1") as one:
        two = Second(one, "h2")
        two.start_daemon()
        try:
            run("ip", "link", "add", "bridge0", "type", "bridge")
            run("ip", "link", "set", "dev", "bridge0", "up")
            one.network("under")
            one.network("blue", f"vni={VNI}")
            one.weirctl("create", "Router", "name=r")
            rows = {t: {r["name"]: r["_uuid"] for r in one.weirctl("list", t, json=True)} for t in ("Router", "Network", "Host")}
            for n, lab in ((1, one), (2, two)):
                one.weirctl("create", "Router_Port", f"name=end{n}", f"host=h{n}", f"router={rows['Router']['r']}", f"network={rows['Network']['under']}",
                            f'addresses=["192.0.2.{n}/24","fd00::{n}/64"]')
                one.weirctl("set", "Host", rows["Host"][f"h{n}"], f'tunnel_ips=["192.0.2.{n}","fd00::{n}"]')
                for port, network, settings in ((f"up{n}", "under", []), (f"vm{n}", "blue", [f"addresses={mac(n)} 10.0.0.{n}"])):
                    one.weirctl("port", "add", port, "--type", "tap", "--network", network, "--host", f"h{n}", *settings)
                    wait_for(lambda: port in run("ip", "-o", "link"), 10 * SLOW, f"interface {port}")
                run("ip", "link", "set", "dev", f"up{n}", "up", "master", "bridge0")
                one.wire[f"vm{n}"] = Wire(f"vm{n}")
            yield one, two
            for lab in (one, two):
                lab.check_conservation()
            two.stop_daemon()
        finally:
            two.stop()


def test_one_database(pair):
    """Each switch tells the other of its stations, so that nothing is flooded to find them. What goes takes its entries along."""
    one, two = pair
    for lab, here, there in ((one, 1, 2), (two, 2, 1)):
        remote = f"192.0.2.{there}"
        wait_for(lambda: tunnels(lab).get(remote, {}).get("state") == "up", 20 * SLOW, lambda: f"the way: {tunnels(lab)}")
        assert tunnels(lab)[remote]["host"] == f"h{there}"
        entry = lab.fdb("blue")[mac(there)]
        assert entry["port"] == f"tunnel:{remote}" and entry["type"] == "static", entry
    packet = raw(Ether(src=mac(1), dst=mac(2)) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / Raw(b"there" * 10))
    one.wire["vm2"].clear()
    one.wire["vm1"].send(packet)
    assert one.wire["vm2"].wait(1) == [packet]
    one.settle("vm1", 1)
    # Nobody there that isn't told of: what is for an unknown address doesn't leave.
    before = one.stats("up1")["tx_packets"]
    drops = one.drops("vm1").get("flow.NOBODY", 0)
    one.wire["vm1"].send(raw(Ether(src=mac(1), dst=mac(77)) / IP() / UDP() / Raw(bytes(30))))
    wait_for(lambda: one.drops("vm1").get("flow.NOBODY", 0) == drops + 1, 10 * SLOW, lambda: f"a drop: {one.drops('vm1')}")
    # A broadcast does.
    call = raw(Ether(src=mac(1), dst="ff:ff:ff:ff:ff:ff") / IP(dst="255.255.255.255") / Raw(bytes(30)))
    one.wire["vm1"].send(call)
    assert one.wire["vm2"].wait(1) == [call]
    # What is sent is counted a moment after it is there.
    wait_for(lambda: one.stats("up1")["tx_packets"] > before, 10 * SLOW, "the packet at the uplink to be counted", 0.01)
    # A port without addresses: now unknown ones are looked for there as well.
    one.weirctl("port", "add", "quiet2", "--type", "tap", "--network", "blue", "--host", "h2")
    wait_for(lambda: "quiet2" in run("ip", "-o", "link"), 10 * SLOW, "interface quiet2")
    with Wire("quiet2") as quiet:
        lost = raw(Ether(src=mac(1), dst=mac(77)) / IP() / UDP() / Raw(bytes(30)))

        def found():
            one.wire["vm1"].send(lost)
            return lost in quiet.received()
        wait_for(found, 10 * SLOW, "the packet for an unknown address", 0.1)
    one.weirctl("port", "del", "quiet2")
    # A station moves to the other host; its address with it.
    one.wire.pop("vm2").close()
    one.weirctl("port", "del", "vm2")
    wait_for(lambda: mac(2) not in one.fdb("blue"), 10 * SLOW, lambda: f"the entry to go: {one.fdb('blue')}")
    # The host leaves for good.
    (host,) = [h["_uuid"] for h in one.weirctl("list", "Host", json=True) if h["name"] == "h2"]
    one.weirctl("clear", "Host", host, "tunnel_ips")
    wait_for(lambda: not tunnels(one), 10 * SLOW, lambda: f"the tunnel to go: {tunnels(one)}")
