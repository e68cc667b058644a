"""Ports of every kind but vhost-user: TAP, kernel interfaces, DPDK devices; links, statistics, many ports coming and going."""

import subprocess

import pytest

from net import BROADCAST, SLOW, Namespace, Stream, Wire, frame, mac, run, wait_for


@pytest.fixture
def ports(clean):
    clean.network("blue")
    return clean


@pytest.fixture
def veth(ports):
    """A pair of kernel interfaces: wfk for the switch, wfp for the test."""
    run("ip", "link", "add", "wfk", "type", "veth", "peer", "name", "wfp")
    for name in ("wfk", "wfp"):
        run("ip", "link", "set", "dev", name, "up")
    yield ports
    ports.weirctl("port", "del", "--if-exists", "k")
    run("ip", "link", "del", "wfk", check=False)


def station(lab, port, address, ipv6=None):
    """A kernel behind a TAP: the interface in a namespace of its own, with an address."""
    space = Namespace(ipv6=bool(ipv6))
    space.take(port)
    space.run("ip", "address", "add", address, "dev", port)
    if ipv6:
        space.run("ip", "address", "add", ipv6, "dev", port, "nodad")
    space.run("ip", "link", "set", "dev", port, "up")
    return space


def test_kernels_talk(ports):
    """ARP, ICMP, TCP and IPv6 between two real kernels, behind an access port and a trunk with a VLAN interface."""
    ports.weirctl("network", "set", "blue", "vlan=7")
    ports.weirctl("port", "add", "t1", "--type", "tap", "--network", "blue")
    ports.weirctl("port", "add", "t2", "--type", "tap", "--vlan-mode", "trunk")
    one = station(ports, "t1", "10.9.0.1/24", "fd09::1/64")
    two = Namespace(ipv6=True)
    two.take("t2")
    two.run("ip", "link", "set", "dev", "t2", "up")
    two.run("ip", "link", "add", "link", "t2", "name", "t2.7", "type", "vlan", "id", "7", check=False)
    vlans = two.run("ip", "link", "show", "dev", "t2.7", check=False).returncode == 0
    if vlans:
        two.run("ip", "link", "set", "dev", "t2.7", "up")
    else:  # a kernel without 802.1Q
        ports.weirctl("port", "set", "t2", "vlan_mode=access", "network=blue")
    device = "t2.7" if vlans else "t2"
    two.run("ip", "address", "add", "10.9.0.2/24", "dev", device)
    two.run("ip", "address", "add", "fd09::2/64", "dev", device, "nodad")
    try:
        out = one.run("ping", "-c", "20", "-i", "0.01", "-w", "10", "10.9.0.2")
        assert " 0% packet loss" in out, out
        assert " 0% packet loss" in one.run("ping", "-6", "-c", "5", "-i", "0.01", "-w", "10", "fd09::2")
        assert " 0% packet loss" in one.run("ping", "-c", "3", "-i", "0.01", "-w", "10", "-s", "1472", "-M", "do", "10.9.0.2")
        assert " 0% packet loss" in one.run("ping", "-c", "3", "-i", "0.01", "-w", "10", "-s", "20000", "10.9.0.2")  # fragments
        server = two.popen("/usr/bin/python3", "-c", "import socket; s=socket.create_server(('10.9.0.2', 999)); print(flush=True); c=s.accept()[0]\n"
                           "n=0\nwhile d:=c.recv(1<<20): n+=len(d)\nc.send(str(n).encode())", stdout=subprocess.PIPE)
        server.stdout.readline()
        sent = one.run("/usr/bin/python3", "-c", "import socket; c=socket.create_connection(('10.9.0.2', 999), 5); c.settimeout(30)\n"
                       "c.sendall(bytes(5000000)); c.shutdown(socket.SHUT_WR); print(c.recv(20).decode())")
        assert sent.strip() == "5000000"
        server.wait(10)
        flows = ports.ask("cache/list", "--port", "t1")
        assert len(flows) < 20  # one for all of a pair's connections, and some for ARP and classes of TCP
        assert ports.port("t1")["link_state"] == "up"  # it can't be asked for in another namespace, but passes packets
    finally:
        one.close()
        two.close()


def test_tap(ports):
    """The interface is made with the port, has its MTU, and goes with it."""
    ports.tap("t1", "--network", "blue", "--mtu", "1300", iface="wfx9")
    assert "mtu 1300 " in run("ip", "link", "show", "dev", "wfx9")
    wait_for(lambda: ports.port("t1")["link_state"] == "up", 5 * SLOW, "link")
    ports.tap("t2", "--network", "blue")
    f = frame(1, BROADCAST)
    ports.check("t1", f, {"t2": [f]})
    ports.delete("t1")
    assert run("ip", "link", "show", "dev", "wfx9", check=False).returncode


def test_tap_down(ports):
    """A TAP that is switched off: the status says so, packets for it drop, and it comes back."""
    ports.tap("t1", "--network", "blue")
    ports.tap("t2", "--network", "blue")
    run("ip", "link", "set", "dev", "t2", "down")
    wait_for(lambda: ports.port("t2")["link_state"] == "down", 10 * SLOW, "the link to be seen down")
    assert "down or has no carrier" in ports.port("t2")["status"]["problem"]
    assert any(p["what"] == "port t2" and "down" in p["problem"] for p in ports.health()["problems"])
    before = ports.stats("t1")
    ports.wire["t1"].send(frame(1, BROADCAST))
    after = ports.settle("t1", before["rx_packets"] + 1)
    assert (after["sent"], after["dropped"]) == (before["sent"], before["dropped"] + 1) and ports.drops("t1") == {"tx.DEVICE": 1}
    run("ip", "link", "set", "dev", "t2", "up")
    wait_for(lambda: ports.port("t2")["link_state"] == "up", 10 * SLOW, "the link to be seen up")
    ports.wire.pop("t2").close()
    ports.wire["t2"] = Wire("t2")
    f = frame(1, BROADCAST)
    ports.check("t1", f, {"t2": [f]})


@pytest.mark.parametrize("driver", ["af_packet", "af_xdp"])
def test_kernel_interface(veth, driver):
    """Both ways, many sizes, tagged and not; the link follows the interface's."""
    veth.tap("t1", "--network", "blue")
    done = veth.weirctl("port", "add", "k", "--type", "kernel", "--network", "blue", "--iface", "wfk", f"options:driver={driver}", check=False)
    if done.returncode and driver == "af_xdp":
        pytest.skip(f"no AF_XDP here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    veth.wire["k"] = Wire("wfp")
    for size in (60, 61, 127, 128, 511, 1024, 1513, 1514):
        f, back = frame(1, 2, size=size, payload=bytes(range(200))), frame(2, 1, size=size, payload=bytes(range(100, 200)))
        veth.unixctl("fdb/flush")
        check_soon(veth, "k", f, "t1")
        check_soon(veth, "t1", back, "k")
    assert veth.fdb("blue")[mac(1)]["port"] == "k"
    # Only AF_PACKET's sockets say what the kernel had no room for.
    below = {r["loss"]: r["packets"] for r in veth.ask("drops", "--below", "--port", "k")}
    assert below["below_rx_kernel"] == ("unknown" if driver == "af_xdp" else 0)
    run("ip", "link", "set", "dev", "wfp", "down")
    wait_for(lambda: veth.port("k")["link_state"] == "down", 10 * SLOW, "the link to be seen down")
    assert "wfk is down or has no carrier" in veth.port("k")["status"]["problem"]
    run("ip", "link", "set", "dev", "wfp", "up")
    wait_for(lambda: veth.port("k")["link_state"] == "up", 10 * SLOW, "the link to be seen up")


def check_soon(lab, source, f, target):
    """For devices whose sending the kernel finishes later than the switch's count of it."""
    lab.wire[target].clear()
    before, explained = lab.stats(source)["rx_packets"], lab.explain(source, f)
    assert f"out by {target}" in explained
    lab.wire[source].send(f)
    lab.settle(source, before + 1)
    assert lab.wire[target].wait(1) == [f]


def test_kernel_interface_goes(veth):
    veth.weirctl("port", "add", "k", "--type", "kernel", "--network", "blue", "--iface", "wfk")
    wait_for(lambda: veth.port("k")["link_state"] == "up", 5 * SLOW, "link")
    run("ip", "link", "del", "wfk")
    wait_for(lambda: "wfk is gone" in veth.port("k")["status"].get("problem", ""), 10 * SLOW, lambda: veth.port("k")["status"])
    veth.tap("t1", "--network", "blue")
    veth.wire["t1"].send(frame(1, BROADCAST))
    wait_for(lambda: veth.stats("t1")["rx_packets"] == 1 and not veth.stats("t1")["queued"], 10 * SLOW, lambda: veth.stats("t1"))


def test_kernel_jumbo(veth):
    for name in ("wfk", "wfp"):
        run("ip", "link", "set", "dev", name, "mtu", "9000")
    veth.weirctl("port", "add", "k", "--type", "kernel", "--network", "blue", "--iface", "wfk", "--mtu", "9000")
    veth.tap("t1", "--network", "blue", "--mtu", "9000")
    veth.wire["k"] = Wire("wfp")
    f = frame(2, BROADCAST, size=8999)
    assert "out by k" in veth.explain("t1", f)
    done = veth.weirctl("port", "set", "k", "options:driver=af_xdp", check=False)
    assert done.returncode == 1 and "af_xdp takes an MTU of 1900 at most, not 9000" in done.stderr
    veth.weirctl("port", "set", "k", "options:driver=af_packet")
    check_soon(veth, "t1", f, "k")


def test_dpdk_null(ports):
    """A device by devargs that eats what it gets."""
    ports.tap("t1", "--network", "blue")
    ports.weirctl("port", "add", "d", "--type", "dpdk", "--network", "blue", "--devargs", "net_null_wf,size=64,no-rx=1")
    assert "out by d" in ports.explain("t1", frame(1, BROADCAST))
    ports.wire["t1"].send(frame(1, BROADCAST))
    assert ports.settle("t1", 1)["sent"] == 1
    assert ports.stats("d")["tx_packets"] == 1 and ports.port("d")["link_state"] in ("up", "down")
    assert ports.port("d")["status"]["link_speed"]


def test_dpdk_ring(ports):
    """What is sent into a ring comes back out of it: a device that shows packets in both directions."""
    ports.tap("t1", "--network", "blue")
    ports.network("loop")
    ports.tap("t2", "--network", "loop")
    ports.weirctl("port", "add", "d", "--type", "dpdk", "--network", "loop", "--devargs", "net_ring_wf")
    f = frame(1, BROADCAST)
    before = ports.stats("d")
    ports.wire["t2"].send(f)
    assert ports.wire["t2"].wait(1) == [f]  # in by t2, out by d, in by d, out by t2
    wait_for(lambda: ports.stats("d")["rx_packets"] == before["rx_packets"] + 1, 5 * SLOW, "the counter")
    assert ports.fdb("loop")[mac(1)]["port"] == "d"


def test_dpdk_pcap(ports, tmp_path):
    """The frames of a capture file, as a device."""
    from scapy.all import rdpcap, wrpcap, Ether
    frames = [frame(1, BROADCAST, payload=bytes([n]), size=60 + n) for n in range(20)]
    wrpcap(str(tmp_path / "in.pcap"), [Ether(f) for f in frames])
    ports.tap("t1", "--network", "blue")
    ports.weirctl("port", "add", "d", "--type", "dpdk", "--network", "blue", "--devargs",
                  f"net_pcap_wf,rx_pcap={tmp_path}/in.pcap,tx_pcap={tmp_path}/out.pcap")
    assert ports.wire["t1"].wait(20) == frames
    ports.wire["t1"].send(frames[7][:6] + frame(2, 1)[6:])
    wait_for(lambda: ports.stats("d")["tx_packets"] == 1, 5 * SLOW, "a packet to be sent")
    ports.delete("d")
    assert [bytes(p)[6:12] for p in rdpcap(str(tmp_path / "out.pcap"))] == [frame(2, 1)[6:12]]


def test_dpdk_again(ports):
    """One device for two ports: the second says what is wrong, and the first goes on."""
    ports.weirctl("port", "add", "d1", "--type", "dpdk", "--network", "blue", "--devargs", "net_null_wf2,no-rx=1")
    done = ports.weirctl("port", "add", "d2", "--type", "dpdk", "--network", "blue", "--devargs", "net_null_wf2,no-rx=1", check=False)
    assert done.returncode == 1 and "another port has the device net_null_wf2" in done.stderr
    ports.tap("t1", "--network", "blue")
    ports.wire["t1"].send(frame(1, BROADCAST))
    wait_for(lambda: ports.stats("d1")["tx_packets"] == 1, 5 * SLOW, "d1 to send")
    ports.weirctl("port", "del", "d1")
    wait_for(lambda: ports.port("d2")["error"] is None, 10 * SLOW, lambda: f"d2 to take over: {ports.port('d2')['error']}")


def test_too_many_devices(ports):
    """DPDK has room for 32 devices; the port that finds none says so and gets one when there is one."""
    names = [f"n{n}" for n in range(32)]
    words = []
    for n in names:
        words += [*(["--"] if words else []), "port", "add", n, "--type", "dpdk", "--network", "blue", "--devargs", f"net_null_{n},no-rx=1"]
    ports.weirctl(*words)
    done = ports.weirctl("port", "add", "more", "--type", "dpdk", "--network", "blue", "--devargs", "net_null_more,no-rx=1", check=False)
    assert done.returncode == 1 and "this DPDK takes 32 devices, and all are in use" in done.stderr, done.stderr
    assert ports.port("n31")["error"] is None
    ports.weirctl("port", "del", "n3")
    wait_for(lambda: ports.port("more")["error"] is None, 10 * SLOW, "the port to get its device")


def test_statistics_in_the_database(ports):
    ports.weirctl("config", "set", "stats-interval=100")
    ports.tap("t1", "--network", "blue")
    ports.tap("t2", "--network", "blue")
    for _ in range(5):
        ports.check("t1", frame(1, BROADCAST), {"t2": [frame(1, BROADCAST)]})
    ports.check("t1", frame("01:00:00:00:00:01", 1), {}, drop="vlan.GROUP_SOURCE")

    def written():
        one, two = ports.port("t1")["statistics"], ports.port("t2")["statistics"]
        return (one.get("rx_packets") == 6 and one.get("rx_bytes") == 360 and one.get("sent") == 5 and one.get("drop_vlan_group_source") == 1 and
                two.get("tx_packets") == 5 and two.get("tx_bytes") == 300)
    wait_for(written, 10 * SLOW, lambda: f"statistics: {ports.port('t1')['statistics']}")
    host = ports.weirctl("host", "list", json=True)[0]["name"]
    wait_for(lambda: ports.row("Host", host)["statistics"].get("missing") == 0, 5, "the host's statistics")
    ports.weirctl("config", "del", "stats-interval")


def test_fifty_ports_come_and_go(ports):
    """Hot add and remove: the stream between two others loses nothing and stays in order."""
    ports.tap("t1", "--network", "blue", f"addresses={mac(1)}")
    ports.tap("t2", "--network", "blue", f"addresses={mac(2)}")
    source, target = ports.wire.pop("t1"), ports.wire.pop("t2")
    target.lost()
    stream = Stream(source, target, 1, 2)
    stream.wait(100)
    for start in range(0, 50, 10):
        words = []
        for n in range(start, start + 10):
            kind = ["--type", "tap"] if n % 2 else []  # every other one waits for a guest that never comes
            words += [*(["--"] if words else []), "port", "add", f"x{n}", *kind, "--network", "blue"]
        ports.weirctl(*words)
        stream.poll()
        for n in range(start + 1, start + 10, 2):
            ports.wire[f"x{n}"] = Wire(f"x{n}")
            ports.wire[f"x{n}"].send(frame(100 + n, BROADCAST))
        for n in range(start, start + 10):
            ports.delete(f"x{n}")
            stream.poll()
    stream.wait(100)
    missing, disorder = stream.end()
    lost = target.lost()
    source.close()
    target.close()
    assert not missing and not disorder and not lost and stream.count > 500
