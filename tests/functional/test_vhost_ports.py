"""vhost-user ports of the switch, with virtio-user guests: modes, queues, checksums and segments in software, guests that stop or die."""

import socket
import struct
from pathlib import Path

import pytest
from scapy.all import IP, TCP, UDP, Ether, IPv6, Raw, raw

from net import BROADCAST, SLOW, frame, mac, wait_for
from vguest import Driver, Guest

ETH, IP4, IP6, T, U = 14, 20, 40, 20, 8


@pytest.fixture
def ports(clean):
    clean.network("blue")
    return clean


def plug(lab, name, *settings, network="blue", server=True, guest="", port=True):
    """A port and its guest; ready when the switch says so. server: the guest listens, the default."""
    path = lab.path(f"{name}.sock")
    if port:
        lab.weirctl("port", "add", name, "--network", network, *(["--mode", "server"] if not server else []), *settings)
    if server:
        Path(path).unlink(missing_ok=True)  # one that was killed has left it
    g = Guest(f"path={path},server={int(server)}{',' + guest if guest else ''}")
    g.ready(20 * SLOW)
    wait_for(lambda: lab.port(name)["link_state"] == "up", 20 * SLOW, lambda: f"{name}: {lab.port(name)['words']}")
    return g


def learn(lab, guest, src, port=None):
    before = lab.stats(port)["rx_packets"]
    guest.tx(0, frame(src, BROADCAST))
    lab.settle(port, before + 1)


@pytest.mark.parametrize("server", [True, False])
@pytest.mark.parametrize("guest", ["", "packed=1", "mrg=0", "packed=1,mrg=0", "in_order=0"])
def test_pair(ports, server, guest):
    """Both ways, sizes from the smallest to the MTU, exact bytes; the ring, and who listens, make no difference."""
    with plug(ports, "vm1", "options:packed=true", server=server, guest=guest) as one:
        ports.tap("t1", "--network", "blue")
        status = ports.port("vm1")["status"]
        assert status["driver"] == "ready" and status["packed"] == str("packed=1" in guest).lower()
        frames = [frame(1, 2, size=60 + 96 * n, payload=bytes((n + i) & 255 for i in range(96 * n + 40))) for n in range(16)]
        for f in frames:
            assert one.tx(0, f) == 1
        assert ports.wire["t1"].wait(len(frames)) == frames
        back = [f[6:12] + f[:6] + f[12:] for f in frames]
        for f in back:
            ports.wire["t1"].send(f)
        assert [data for _, _, _, data in one.rx(0, len(back))] == back
        ports.settle("t1", len(back))
        stats = ports.stats("vm1")
        assert (stats["rx_packets"], stats["tx_packets"], stats["tx_bytes"]) == (16, 16, sum(map(len, back)))
        assert ports.fdb("blue")[mac(1)]["port"] == "vm1"
    wait_for(lambda: "not connected" in ports.port("vm1")["status"].get("problem", ""), 10 * SLOW, lambda: ports.port("vm1")["status"])
    assert ports.port("vm1")["link_state"] == "down"


def test_comes_again(ports):
    """A guest that restarts, three times, in both modes."""
    ports.tap("t1", "--network", "blue")
    for server in (True, False):
        for n in range(3):
            with plug(ports, "vm1", server=server, port=not n) as one:
                one.tx(0, frame(1, BROADCAST))
                assert ports.wire["t1"].wait(1) == [frame(1, BROADCAST)]
        ports.delete("vm1")


def test_queues(ports):
    """A flow keeps to one queue, flows spread over all, and queues come and go as the guest's driver likes."""
    ports.tap("t1", "--network", "blue")
    with plug(ports, "vm1", "--queues", "4", guest="queues=4") as one:
        learn(ports, one, 1, "vm1")

        def flow(n):
            return raw(Ether(src=mac(2), dst=mac(1)) / IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=1000 + n, dport=53) / Raw(bytes(20)))

        used = {}
        for count in (4, 2, 3, 1, 4):
            one.queues(0, count)
            wait_for(lambda c=count: ports.port("vm1")["status"].get("tx_queues") == str(c), 10 * SLOW, lambda: ports.port("vm1")["status"])
            one.clear(0)
            for _ in range(3):
                for n in range(32):
                    ports.wire["t1"].send(flow(n))
            got = one.rx(0, 96)
            queue = {}
            for q, _, _, data in got:
                queue.setdefault(data, set()).add(q)
            assert len(queue) == 32 and all(len(qs) == 1 for qs in queue.values()), queue.values()
            now = {data: qs.pop() for data, qs in queue.items()}
            assert set(now.values()) == set(range(count)), now.values()
            used.setdefault(count, now)
            assert used[count] == now  # the same flows on the same queues when the driver comes back to as many
        stayed = sum(used[4][f] == used[3][f] for f in used[4])
        assert stayed >= 16  # few flows move for one queue less
        queues = [q for q in ports.ask("worker/queues") if q["port"] == "vm1"]
        assert [q["queue"] for q in queues] == [0, 1, 2, 3] or {q["queue"] for q in queues} == {0, 1, 2, 3}
        for q in range(4):  # and each of the guest's own queues is polled
            assert one.tx(0, frame(1, 2, payload=bytes([q])), queue=q) == 1
        wait_for(lambda: all(row["packets"] for row in ports.ask("worker/queues") if row["port"] == "vm1"), 10 * SLOW, "every queue to be read")


def partial(packet):
    """The frame with the pseudo-header's sum in its checksum field, as a guest leaves it to others to finish."""
    whole = Ether(raw(packet))
    l4 = whole[TCP] if TCP in whole else whole[UDP]
    l3 = whole[IPv6] if IPv6 in whole else whole[IP]
    data = bytearray(raw(whole))
    start = len(data) - len(raw(l4))
    length = len(raw(l4))
    if IPv6 in whole:
        pseudo = socket.inet_pton(socket.AF_INET6, l3.src) + socket.inet_pton(socket.AF_INET6, l3.dst) + struct.pack("!II", length, 6 if TCP in whole else 17)
    else:
        pseudo = socket.inet_aton(l3.src) + socket.inet_aton(l3.dst) + struct.pack("!HH", 6 if TCP in whole else 17, length)
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    offset = 16 if TCP in whole else 6
    struct.pack_into("!H", data, start + offset, total)
    return bytes(data), start, offset


def right(data):
    """Whether scapy makes the same bytes of the packet when it fills in lengths and checksums itself."""
    p = Ether(data)
    for layer in (IP, TCP, UDP):
        if layer in p:
            del p[layer].chksum
            if layer is IP:
                del p[IP].len
            if layer is UDP:
                del p[UDP].len
    if IPv6 in p:
        del p[IPv6].plen
    return raw(p) == data


def packets(size=500):
    body = Raw(bytes(i * 7 & 255 for i in range(size)))
    yield Ether(src=mac(1), dst=mac(2)) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / body
    yield Ether(src=mac(1), dst=mac(2)) / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1, dport=2) / body
    yield Ether(src=mac(1), dst=mac(2)) / IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=1, dport=2) / body
    yield Ether(src=mac(1), dst=mac(2)) / IPv6(src="fd00::1", dst="fd00::2") / TCP(sport=1, dport=2) / body


def test_checksums(ports):
    """A partial checksum passes as it is to a guest that takes it, and is finished for one that doesn't, and for a TAP."""
    ports.tap("t1", "--network", "blue")
    with plug(ports, "vm1") as one, plug(ports, "vm2") as able, plug(ports, "vm3", "options:csum=false", guest="offload=0") as unable:
        for size in (0, 1, 499, 1400):
            for packet in packets(size):
                data, start, offset = partial(packet)
                finished = raw(packet)
                one.tx(0, data, csum=(start, offset))
                ((_, flags, _, got),) = able.rx(0, 1)
                assert "p" in flags and got == data
                ((_, flags, _, got),) = unable.rx(0, 1)
                assert "p" not in flags and got == finished and right(got)
                assert ports.wire["t1"].wait(1) == [finished]
        ports.settle("vm1", 16)
        assert ports.stats("vm1")["dropped"] == 0 and ports.stats("vm1")["copies"] == 32


def check_segments(whole, frames, mss):
    """Whole: the packet that the guest sent. Each frame must be right, and together they must be the payload, in order."""
    first, payload, at = Ether(raw(whole)), bytes(whole[TCP].payload), 0
    for n, data in enumerate(frames):
        p = Ether(data)
        assert right(data), p.show(dump=True)
        assert (p.src, p.dst, p.type) == (first.src, first.dst, first.type)
        last = n == len(frames) - 1
        if IP in p:
            assert (p[IP].src, p[IP].dst, p[IP].ttl, p[IP].tos) == (first[IP].src, first[IP].dst, first[IP].ttl, first[IP].tos)
            assert p[IP].id == (first[IP].id + n) & 0xffff
        else:
            assert (p[IPv6].src, p[IPv6].dst, p[IPv6].hlim, p[IPv6].tc) == (first[IPv6].src, first[IPv6].dst, first[IPv6].hlim, first[IPv6].tc)
        assert p[TCP].seq == (first[TCP].seq + at) & 0xffffffff and p[TCP].ack == first[TCP].ack and p[TCP].window == first[TCP].window
        assert p[TCP].options == first[TCP].options
        flags = {"F", "P"} if last else set()
        assert set(str(p[TCP].flags)) == {"A"} | flags | ({"C"} if n == 0 else set())
        part = bytes(p[TCP].payload)
        assert len(part) == (mss if not last else len(payload) - at)
        assert part == payload[at:at + len(part)]
        at += len(part)
    assert at == len(payload)


def test_segments(ports):
    """A large packet passes whole to a guest that takes it; for others it is cut, and every header of every segment is right."""
    ports.tap("t1", "--network", "blue")
    with plug(ports, "vm1") as one, plug(ports, "vm2") as able, plug(ports, "vm3", "options:tso=false", guest="offload=0") as unable:
        for six in (False, True):
            for size, mss in ((30000, 1400), (2000, 1000), (1421, 1420), (60000, 536), (9000, 1428), (700, 48)):
                segment(ports, one, able, unable, six, size, mss)
    # The same through a packed ring, in which a chain of descriptors is another thing.
    ports.delete("vm1", "vm2", "vm3")
    with plug(ports, "vm1", "options:packed=true", guest="packed=1") as one, \
            plug(ports, "vm2", "options:packed=true", guest="packed=1") as able, \
            plug(ports, "vm3", "options:tso=false", "options:packed=true", guest="offload=0,packed=1") as unable:
        segment(ports, one, able, unable, False, 30000, 1400)


def segment(ports, one, able, unable, six, size, mss):
    l3 = IPv6(src="fd00::1", dst="fd00::2", hlim=33, tc=0x20) if six else IP(src="10.0.0.1", dst="10.0.0.2", id=0xfffe, ttl=33, tos=0x20)
    payload = bytes(i * 11 & 255 for i in range(size))
    whole = Ether(src=mac(1), dst=mac(2)) / l3 / TCP(sport=1000, dport=5001, seq=0xfffffc00, ack=77, flags="APFC", window=999,
                                                     options=[("NOP", None), ("NOP", None), ("Timestamp", (5, 6))]) / Raw(payload)
    headers, count = ETH + (IP6 if six else IP4) + 32, -(-size // mss)
    data, start, offset = partial(whole)
    before = ports.stats("vm1")
    number = ports.trace_start("--port", "vm1", "--count", "1")
    assert one.tx(0, data, csum=(start, offset), tso=(mss, headers)) == 1
    after = ports.settle("vm1", before["rx_packets"] + 1)
    trace = ports.trace_end(number)
    assert "packet 1" in trace
    if count < 10:  # more don't fit into one trace, which says so
        assert trace.count("out by vm2") == 1 and trace.count("out by vm3") == trace.count("out by t1") == count, trace
    ((_, flags, got_mss, got),) = able.rx(0, 1)
    assert "l" in flags and got_mss == mss
    # Its checksum isn't finished, and the vhost library leaves the length out of what it has.
    assert got[:start + offset] == data[:start + offset] and got[start + offset + 2:] == data[start + offset + 2:]
    check_segments(whole, [got for _, _, _, got in unable.rx(0, count)], mss)
    check_segments(whole, ports.wire["t1"].wait(count), mss)
    change = {key: after[key] - before[key] for key in ("copies", "segments_added", "sent", "dropped")}
    assert change == {"copies": 2, "segments_added": 2 * (count - 1), "sent": 1 + 2 * count, "dropped": 0}


def test_large_packet_against_mtu(ports):
    """A large packet is judged by its segments."""
    ports.tap("t1", "--network", "blue")
    whole = next(p for p in packets(5000) if TCP in p)
    data, start, offset = partial(whole)
    with plug(ports, "vm1") as one:
        one.tx(0, data, csum=(start, offset), tso=(1460, ETH + IP4 + T))
        ports.settle("vm1", 1)
        assert len(ports.wire["t1"].wait(4)) == 4
        one.tx(0, data, csum=(start, offset), tso=(1461, ETH + IP4 + T))
        ports.settle("vm1", 2)
        assert ports.drops("vm1") == {"mtu.TOO_LARGE": 1}
        assert ports.wire["t1"].received() == []


def test_malformed_gso(ports):
    """What the guest says of its packets is checked: tiny segments multiply packets, and only TCP is cut."""
    ports.tap("t1", "--network", "blue")
    tcp = next(p for p in packets(3000) if TCP in p)
    with plug(ports, "vm1") as one:
        data, start, offset = partial(tcp)
        lost = 0
        for mss in (1, 47):
            one.tx(0, data, csum=(start, offset), tso=(mss, ETH + IP4 + T))
            lost += 1
            ports.settle("vm1", lost)
            assert ports.drops("vm1").get("parse.GSO") == lost
        # A checksum that is none of TCP or UDP.
        one.tx(0, raw(Ether(src=mac(1), dst=mac(2)) / IP(src="10.0.0.1", dst="10.0.0.2", proto=132) / Raw(bytes(80))), csum=(34, 6))
        ports.settle("vm1", lost + 1)
        drops = ports.drops("vm1")
        assert sum(drops.values()) == lost + 1 and drops == {"parse.GSO": lost, "parse.CSUM": 1}, drops
        assert ports.wire["t1"].received() == []
        one.tx(0, frame(1, 2))
        assert ports.wire["t1"].wait(1) == [frame(1, 2)]


def test_guest_that_stops(ports):
    """Packets for a guest without receive buffers wait a moment, then drop with that reason; nobody else notices."""
    ports.tap("t1", "--network", "blue", f"addresses={mac(1)}")
    with plug(ports, "vm1", guest="size=256") as stuck, plug(ports, "vm2") as fine:
        learn(ports, stuck, 11, "vm1")
        learn(ports, fine, 12, "vm2")
        stuck.stop(0)
        fine.clear(0)
        before = ports.stats("t1")
        for n in range(2000):
            ports.wire["t1"].send(frame(1, 11, payload=struct.pack("!I", n)))
            ports.wire["t1"].send(frame(1, 12, payload=struct.pack("!I", n)))
            if n % 200 == 199:  # no more than the TAP's queue in the kernel holds
                wait_for(lambda: ports.stats("t1")["rx_packets"] >= before["rx_packets"] + 2 * n + 2, 10 * SLOW, "packets to be taken", 0.002)
        after = ports.settle("t1", before["rx_packets"] + 4000, 20)
        got = fine.rx(0, 2000)
        assert [struct.unpack("!I", data[14:18])[0] for _, _, _, data in got] == list(range(2000))
        drops = ports.drops("t1")
        assert set(drops) <= {"tx.NO_BUFFERS", "tx.QUEUE_FULL"} and drops["tx.NO_BUFFERS"] > 0, drops
        assert after["dropped"] == sum(drops.values()) >= 2000 - 512
        assert ports.stats("vm1")["tx_dropped"] == after["dropped"]
        wait_for(lambda: "no receive buffers posted" in ports.port("vm1")["status"].get("problem", ""), 10 * SLOW,
                 lambda: ports.port("vm1")["status"])
        stuck.go(0)
        wait_for(lambda: stuck.count(0)["rx"] >= 2000 - sum(drops.values()), 10 * SLOW, "what waits in the ring")
        stuck.clear(0)
        ports.wire["t1"].send(frame(1, 11))
        assert stuck.rx(0, 1)[0][3] == frame(1, 11)
        wait_for(lambda: not ports.port("vm1")["status"].get("problem"), 10 * SLOW, "the problem to be gone")


def test_guest_is_killed(ports):
    """Under traffic in both directions: packets for it drop with that reason, the others go on, and it may come back."""
    ports.tap("t1", "--network", "blue", f"addresses={mac(1)}")
    with plug(ports, "vm2") as other:
        learn(ports, other, 12, "vm2")
        victim = plug(ports, "vm1")
        learn(ports, victim, 11, "vm1")
        victim.blast(0, 0, frame(11, 1), rate=5000)
        other.blast(0, 0, frame(12, 11), rate=5000)
        wait_for(lambda: victim.count(0)["rx"] > 500, 10 * SLOW, "traffic")
        victim.kill()
        wait_for(lambda: ports.drops("vm2").get("tx.DISCONNECTED", 0) > 500, 10 * SLOW, lambda: ports.drops("vm2"))
        wait_for(lambda: ports.port("vm1")["link_state"] == "down", 10 * SLOW, "the link to be down")
        other.clear(0)
        ports.wire["t1"].send(frame(1, 12))
        assert other.rx(0, 1)[0][3] == frame(1, 12)
        with plug(ports, "vm1", port=False) as again:
            wait_for(lambda: again.count(0)["rx"] > 500, 10 * SLOW, "traffic of the other one")
        other.blast(0, 0, frame(12, 11), rate=0)
        ports.check_conservation()


def test_port_is_removed_under_traffic(ports):
    """The guest keeps sending and the others keep sending to it."""
    ports.tap("t1", "--network", "blue", f"addresses={mac(1)}")
    with plug(ports, "vm2") as other:
        learn(ports, other, 12, "vm2")
        for _ in range(3):
            with plug(ports, "vm1") as one:
                learn(ports, one, 11, "vm1")
                one.blast(0, 0, frame(11, 12), rate=10000)
                other.blast(0, 0, frame(12, 11), rate=10000)
                wait_for(lambda o=one: o.count(0)["rx"] > 200, 10 * SLOW, "traffic")
                ports.delete("vm1")
                ports.check_conservation()
                assert other.count(0)["rx"] > 0
                other.clear(0)
        other.blast(0, 0, frame(12, 11), rate=0)


def told(ports, mtu, mtu_of_port=None):
    """A guest whose hypervisor told it an MTU, if any; ready when the switch says so."""
    path = ports.path("vm1.sock")
    g = Driver(path, window=0, **({"mtu": mtu} if mtu else {}))
    g.ready()
    wait_for(lambda: ports.port("vm1")["link_state"] == "up", 20 * SLOW, lambda: ports.port("vm1")["words"])
    return g


def test_mtu_for_the_guest(ports):
    """What a hypervisor is to say is asked of the switch; what it said is shown, and is a problem if it is more."""
    ports.weirctl("network", "set", "blue", "--mtu", "1300")
    ports.weirctl("port", "add", "vm1", "--network", "blue", "options:packed=true")
    assert ports.weirctl("port", "mtu", "vm1") == "1300\n" and ports.weirctl("port", "mtu", "vm1", json=True) == {"mtu": 1300}
    assert "there is no port vm9" in ports.weirctl("port", "mtu", "vm9", check=False).stderr

    def shown():
        (row,) = ports.weirctl("port", "list", json=True)
        return row["mtu"], row["guest_mtu"], row["problem"]

    with told(ports, 1300):
        assert shown() == (1300, 1300, None) and ports.port("vm1")["status"]["guest_mtu"] == "1300"
        head, row = ports.weirctl("port", "list").splitlines()[:2]
        assert "GUEST-MTU" in head and row.split()[-3:] == ["1300", "1300", "-"]
        # The network shrinks: the guest can't be told before its next start.
        ports.weirctl("network", "set", "blue", "--mtu", "1200")
        mtu, guest, problem = wait_for(lambda: shown()[2] and shown(), 10 * SLOW, "a problem")
        assert (mtu, guest) == (1200, 1300) and ports.weirctl("port", "mtu", "vm1") == "1200\n"
        for words in ("told it 1300 bytes", "the port takes 1200", "host_mtu=1200", "<mtu size='1200'/>"):
            assert words in problem
        assert problem in str(ports.weirctl("health", json=True)["problems"]) and ports.port("vm1")["link_state"] == "up"
        assert "weir_port_guest_mtu_bytes{port=\"vm1\"} 1300" in ports.weirctl("metrics")
        ports.weirctl("network", "set", "blue", "--mtu", "1400")
        wait_for(lambda: not shown()[2], 10 * SLOW, "no problem")  # less than the port takes is no problem
    wait_for(lambda: shown()[1] is None, 10 * SLOW, "no guest, no MTU")
    with told(ports, 0):  # one that was told nothing believes what it likes: nobody knows
        assert shown() == (1400, None, None)
    assert "GUEST-MTU" not in ports.weirctl("port", "list")
