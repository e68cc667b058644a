"""Uplinks that work as one.

    t1 ---+                     +--- m0 ===== p0
          |  weir   bond0 ------+                 the test, or a peer
    t2 ---+                     +--- m1 ===== p1

m0 and m1 are kernel interfaces, the members of bond0; p0 and p1 are their other ends.
"""

import random
import struct
import time

import pytest

from net import BROADCAST, SLOW, Wire, frame, mac, mac_bytes, run, wait_for
from ovs import Ovs


@pytest.fixture
def bond(clean):
    clean.network("blue", "vlan=7")
    clean.network("red", "vlan=8")
    for i in range(2):
        run("ip", "link", "add", f"m{i}", "type", "veth", "peer", "name", f"p{i}")
        for name in (f"m{i}", f"p{i}"):
            run("ip", "link", "set", "dev", name, "up")
        clean.weirctl("port", "add", f"m{i}", "--type", "kernel", "--network", "red")
        clean.wire[f"m{i}"] = Wire(f"p{i}")
    clean.tap("t1", "--network", "blue")
    yield clean
    clean.check_conservation()
    clean.clear()
    for i in range(2):
        run("ip", "link", "del", f"m{i}", check=False)


def make(lab, mode="active-backup", *settings):
    lab.weirctl("port", "add", "bond0", "--type", "bond", "--network", "blue", "options:members=m0,m1", f"options:bond-mode={mode}", *settings)
    wait_for(lambda: all(row["state"] != "down" for row in members(lab).values()) and len(members(lab)) == 2, 10 * SLOW, lambda: f"members: {members(lab)}")


def link(lab, i, up):
    """The other end's link. A socket on an interface that was down is of no use any more."""
    if not up:
        lab.wire.pop(f"m{i}").close()
    run("ip", "link", "set", "dev", f"p{i}", "up" if up else "down")
    if up:
        lab.wire[f"m{i}"] = Wire(f"p{i}")


def members(lab):
    return {row["member"]: row for row in lab.ask("bond/list")}


def states(lab):
    return {name: row["state"] for name, row in members(lab).items()}


def test_active_backup(bond):
    make(bond)
    assert states(bond) == {"m0": "in use", "m1": "stands by"}
    port = bond.port("bond0")
    assert port["link_state"] == "up" and port["status"]["sending"] == "m0" and port["status"]["members"] == "m0 m1"
    assert bond.port("m1")["status"]["bond"] == "bond0"
    f, back = frame(1, BROADCAST), frame(2, 1)
    bond.check("t1", f, {"m0": [f]})
    # What comes in is the bond's, its address too; what comes in at the other one is of no use: it would come twice.
    before = bond.stats("bond0")
    bond.wire["m0"].send(back)
    assert bond.wire["t1"].wait(1) == [back]
    assert bond.stats("bond0")["rx_packets"] == before["rx_packets"] + 1
    assert bond.fdb("blue")[mac(2)]["port"] == "bond0"
    bond.wire["m1"].send(frame(3, BROADCAST))
    wait_for(lambda: bond.drops("m1").get("link.INACTIVE") == 1, 10 * SLOW, "the packet at the backup to be dropped", 0.01)
    assert bond.stats("bond0")["rx_packets"] == before["rx_packets"] + 1 and mac(3) not in bond.fdb("blue")
    # The link goes: the other one takes over, and the peer is told what is behind it.
    link(bond, 0, False)
    told = bond.wire["m1"].wait(1)
    assert told[0] == (mac_bytes(BROADCAST) + mac_bytes(mac(1)) + bytes.fromhex("80350001080006040003") + mac_bytes(mac(1)) + bytes(4) + mac_bytes(mac(1))).ljust(64, b"\0")
    wait_for(lambda: states(bond) == {"m0": "down", "m1": "in use"}, 10 * SLOW, lambda: f"m1 to take over: {states(bond)}", 0.01)
    bond.check("t1", frame(1, 2), {"m1": [frame(1, 2)]})
    # The first one is back, and nothing is gained by going back.
    link(bond, 0, True)
    wait_for(lambda: states(bond) == {"m0": "stands by", "m1": "in use"}, 10 * SLOW, lambda: f"m0 to be up: {states(bond)}", 0.01)
    bond.weirctl("port", "set", "bond0", "options:bond-primary=m0")
    wait_for(lambda: states(bond) == {"m0": "in use", "m1": "stands by"}, 10 * SLOW, lambda: f"m0 to be preferred: {states(bond)}", 0.01)
    # Nothing is left.
    for i in range(2):
        link(bond, i, False)
    wait_for(lambda: bond.port("bond0")["link_state"] == "down", 10 * SLOW, "the bond to be down")
    assert "no member is up" in bond.port("bond0")["status"]["problem"]
    bond.check("t1", f, {}, drop="tx.DISCONNECTED")
    assert members(bond)["m0"]["link_losses"] == 2


def flows(n):
    """Frames of UDP that differ in ports only."""
    frames = []
    for i in range(n):
        udp = struct.pack("!HHHH", 1000 + i, 53, 8 + 20, 0) + bytes(20)
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
        total = sum(struct.unpack("!10H", ip))
        ip = ip[:10] + struct.pack("!H", ~((total & 0xffff) + (total >> 16)) & 0xffff) + ip[12:]
        frames.append((mac_bytes(mac(2)) + mac_bytes(mac(1)) + b"\x08\0" + ip + udp).ljust(60, b"\0"))
    return frames


def spread(lab, frames, ports):
    """{frame: member by which it left}"""
    for wire in lab.wire.values():
        wire.clear()
    for f in frames:
        lab.wire["t1"].send(f)
    got = {}

    def all_there():
        for name in ports:
            for f in lab.wire[name].received():
                assert f not in got
                got[f] = name
        return len(got) == len(frames)

    wait_for(all_there, 20 * SLOW, lambda: f"{len(frames)} frames, not {len(got)}", 0.01)
    return got


def test_balance(bond):
    make(bond, "balance")
    assert states(bond) == {"m0": "in use", "m1": "in use"}
    frames = flows(200)
    first = spread(bond, frames, ("m0", "m1"))
    used = list(first.values())
    assert 50 < used.count("m0") < 150
    assert spread(bond, frames, ("m0", "m1")) == first
    rows = members(bond)
    assert rows["m0"]["tx_packets"] >= 2 * used.count("m0") and rows["m1"]["tx_bytes"] >= 120 * used.count("m1")
    text = bond.weirctl("metrics")
    rows = members(bond)
    assert f'weir_bond_member_transmit_packets_total{{bond="bond0",port="m0"}} {rows["m0"]["tx_packets"]}' in text
    assert 'weir_bond_member_active{bond="bond0",port="m1"} 1' in text
    # Both are listened to.
    for i in range(2):
        bond.wire[f"m{i}"].send(frame(5 + i, 1))
    assert len(bond.wire["t1"].wait(2)) == 2
    # All go the other way while one is away, and each goes back to its own after that.
    link(bond, 1, False)
    wait_for(lambda: states(bond)["m1"] == "down", 10 * SLOW, "m1 to be down", 0.01)
    assert set(spread(bond, frames, ("m0",)).values()) == {"m0"}
    link(bond, 1, True)
    wait_for(lambda: states(bond)["m1"] == "in use", 10 * SLOW, "m1 to be up", 0.01)
    assert spread(bond, frames, ("m0", "m1")) == first
    # By addresses they are all the same.
    for hashed in ("l2", "l2+l3"):
        bond.weirctl("port", "set", "bond0", f"options:bond-hash={hashed}")
        assert len(set(spread(bond, frames, ("m0", "m1")).values())) == 1
    assert bond.stats("bond0")["tx_packets"] == sum(row["tx_packets"] for row in members(bond).values())


def test_members_come_and_go(bond):
    """Rows that change while traffic flows: members that leave work by themselves again, a bond that goes leaves its members."""
    make(bond, "balance")
    stream = [frame(1, BROADCAST, payload=bytes([i])) for i in range(50)]
    bond.weirctl("port", "set", "bond0", "options:members=m1")
    assert states(bond) == {"m1": "in use"}
    assert set(spread(bond, stream, ("m0", "m1")).values()) == {"m1"}
    # m0 is in the network of its row again.
    f = frame(9, BROADCAST)
    bond.wire["m0"].send(f)
    wait_for(lambda: bond.fdb("red").get(mac(9), {}).get("port") == "m0", 10 * SLOW, "the address to be learned", 0.01)
    # As a member it has none again, whatever its row says.
    bond.weirctl("port", "set", "bond0", "options:members=m0 m1", "vlan_mode=trunk", "network=")
    tagged = frame(9, BROADCAST, 7)
    bond.wire["m0"].send(tagged)
    wait_for(lambda: bond.fdb("blue").get(mac(9), {}).get("port") == "bond0", 10 * SLOW, "the address to be known", 0.01)
    assert mac(9) not in bond.fdb("red")
    # Names that aren't there, and those of ports that can't be: the rest works, and the row says so.
    bond.weirctl("port", "set", "bond0", "options:members=m0 nosuch t1")
    wait_for(lambda: "nosuch" in bond.port("bond0")["status"].get("problem", ""), 10 * SLOW, "the missing member to be named")
    bond.weirctl("port", "set", "bond0", "options:members=m0,bond0", check=False)
    wait_for(lambda: "member bond0" in bond.port("bond0")["status"].get("problem", ""), 10 * SLOW, "the bond to be no member of itself")
    assert states(bond) == {"m0": "in use"}
    done = bond.weirctl("port", "set", "bond0", "options:bond-mode=roundrobin", check=False)
    assert done.returncode and "bond-mode must be one of" in done.stderr
    assert states(bond) == {"m0": "in use"}
    # A member whose device isn't there comes and goes without one.
    bond.weirctl("port", "set", "bond0", "options:bond-mode=balance", "options:members=m0,m1,m2")
    bond.weirctl("port", "add", "m2", "--type", "kernel", "--iface", "nosuchif", check=False)
    wait_for(lambda: states(bond).get("m2") == "not open", 10 * SLOW, lambda: f"m2 to be a member: {states(bond)}", 0.01)
    bond.weirctl("port", "del", "m2")
    assert "m2" not in states(bond)
    bond.weirctl("port", "del", "m1")
    wait_for(lambda: states(bond) == {"m0": "in use"}, 10 * SLOW, lambda: f"m1 to be gone: {states(bond)}", 0.01)
    bond.weirctl("port", "del", "bond0")
    bond.wire["m0"].send(f)
    wait_for(lambda: bond.fdb("red").get(mac(9), {}).get("port") == "m0", 10 * SLOW, "m0 to work by itself", 0.01)
    assert bond.ask("bond/list") == []


def measure(what, send, receive, cut):
    """Sends for three seconds, about 5,000 a second, and has the link cut meanwhile. Prints the longest time without a packet around that."""
    arrived, n, at = [], 0, None
    stop = time.monotonic() + 3
    while time.monotonic() < stop:
        send(n)
        n += 1
        if at is None and n == 2000:
            cut()
            at = time.monotonic()
        if n % 10 == 0:
            arrived.extend([time.monotonic()] * receive())
        time.sleep(0.0001)
    assert at and arrived[-1] > stop - 1
    gaps = [b - a for a, b in zip(arrived, arrived[1:]) if b > at - 0.1 and a < at + 1]
    print(f"{what}: {n} packets, {n - len(arrived)} of them lost, longest time without one around the failure {max(gaps) * 1000:.1f} ms")


@pytest.mark.parametrize("mode", ["active-backup", "balance"])
def test_failover(bond, mode):
    """How long nothing passes when a member's link goes: a figure, printed. What is lost is what was on its way."""
    make(bond, mode)
    frames = flows(64)
    for wire in bond.wire.values():
        wire.clear()

    def receive():
        return sum(f[12:14] == b"\x08\0" for name in ("m0", "m1") if name in bond.wire for f in bond.wire[name].received())

    measure(mode, lambda n: bond.wire["t1"].send(frames[n % 64]), receive, lambda: link(bond, 0, False))


def lacp(lab):
    return {row["member"]: row for row in lab.ask("lacp/list")}


def settled(lab):
    return all("collecting" in r["actor_state"] and "distributing" in r["actor_state"] and "distributing" in r["partner_state"] for r in lacp(lab).values())


def test_lacp_with_ovs(bond):
    """802.3ad with Open vSwitch's user-space datapath.

        t1 --- weir bond0 === p0, p1 bond OVS br --- host
    """
    for i in range(2):
        bond.wire.pop(f"m{i}").close()
    run("ip", "link", "add", "host", "type", "veth", "peer", "name", "hostp")
    for name in ("host", "hostp"):
        run("ip", "link", "set", "dev", name, "up")
    try:
        with Ovs() as peer:
            peer.vsctl("add-br", "br", "--", "set", "bridge", "br", "datapath_type=netdev", "other_config:mac-learning-fallback=true",
                       "--", "add-port", "br", "hostp",
                       "--", "add-bond", "br", "up", "p0", "p1", "lacp=active", "bond_mode=balance-tcp", "other_config:lacp-time=fast")
            make(bond, "802.3ad", "options:lacp-time=fast")
            wait_for(lambda: settled(bond), 30 * SLOW, lambda: f"agreement: {lacp(bond)}\n{peer.appctl('lacp/show')}", 0.1)
            assert states(bond) == {"m0": "in use", "m1": "in use"}
            said = peer.appctl("lacp/show")
            assert said.count("current attached") == 2, said
            one, two = lacp(bond).values()
            assert one["actor_system"] in said and one["partner_system"] == two["partner_system"] and one["partner_key"] == two["partner_key"]
            assert one["rx"] > 1 and one["tx"] > 1 and not one["bad"]
            with Wire("host") as host:
                # Both ways, each frame once.
                frames = flows(100)
                host.clear()
                for f in frames:
                    bond.wire["t1"].send(f)
                got = [f for f in host.wait(100) if f[12:14] == b"\x08\0"]
                assert sorted(got) == sorted(frames)
                sent = members(bond)
                assert sent["m0"]["tx_packets"] > 20 and sent["m1"]["tx_packets"] > 20
                bond.wire["t1"].clear()
                back = [f[6:12] + f[:6] + f[12:] for f in frames]
                for f in back:
                    host.send(f)
                assert sorted(f for f in bond.wire["t1"].wait(100) if f[12:14] == b"\x08\0") == sorted(back)
                assert bond.fdb("blue")[mac(2)]["port"] == "bond0"
                host.clear()
                measure("802.3ad", lambda n: bond.wire["t1"].send(frames[n % 100]), lambda: sum(f[12:14] == b"\x08\0" for f in host.received()),
                        lambda: run("ip", "link", "set", "dev", "p1", "down"))
                wait_for(lambda: states(bond) == {"m0": "in use", "m1": "down"}, 10 * SLOW, lambda: f"m1 to go: {states(bond)}", 0.01)
                host.clear()
                for f in frames:
                    bond.wire["t1"].send(f)
                assert sorted(f for f in host.wait(100) if f[12:14] == b"\x08\0") == sorted(frames)
                run("ip", "link", "set", "dev", "p1", "up")
                wait_for(lambda: settled(bond), 30 * SLOW, lambda: f"agreement again: {lacp(bond)}", 0.1)
                # LACP is switched off there: nobody is left to agree with, and what hears nothing passes nothing.
                peer.vsctl("set", "port", "up", "lacp=off")
                wait_for(lambda: not bond.port("bond0")["status"].get("sending"), 30 * SLOW, "the partner to be missed", 0.1)
                assert "agreed with a partner" in bond.port("bond0")["status"]["problem"]
                with Wire("p0") as wire:
                    wire.send(frame(2, BROADCAST))
                wait_for(lambda: bond.drops("m0").get("link.INACTIVE"), 10 * SLOW, "a drop", 0.01)
                bond.weirctl("port", "set", "bond0", "options:lacp-fallback=true")
                wait_for(lambda: sorted(states(bond).values()) == ["in use", "stands by"], 10 * SLOW, lambda: f"one to be used: {states(bond)}", 0.1)
                peer.vsctl("set", "port", "up", "lacp=passive")
                wait_for(lambda: settled(bond), 30 * SLOW, lambda: f"agreement with one who waits: {lacp(bond)}", 0.1)
    finally:
        run("ip", "link", "del", "host", check=False)
        for i in range(2):
            bond.wire[f"m{i}"] = Wire(f"p{i}")


def test_lacp_rubbish(bond):
    """Anything in frames of slow protocols: counted, and nothing more."""
    make(bond, "802.3ad")
    random.seed(3)
    head = bytes.fromhex("0180c2000002") + mac_bytes(mac(9)) + bytes.fromhex("8809")
    before = bond.stats("m0")
    for i in range(200):
        body = bytes(random.randrange(256) for _ in range(random.randrange(1, 110)))
        bond.wire["m0"].send((head + bytes([1 + i % 2]) + body).ljust(60, b"\0"))
    wait_for(lambda: lacp(bond)["m0"]["bad"] + lacp(bond)["m0"]["markers_ignored"] + lacp(bond)["m0"]["markers"] >= 195, 10 * SLOW,
             lambda: f"them to be read: {lacp(bond)['m0']}", 0.05)
    after = bond.stats("m0")
    assert after["consumed"] + after["dropped"] - before["consumed"] - before["dropped"] == 200
    assert states(bond)["m0"] == "stands by" and bond.stats("bond0")["rx_packets"] == 0
    # A marker is answered.
    bond.wire["m0"].clear()
    marker = head + bytes([2, 1, 1, 16]) + bytes(range(14)) + bytes(92)
    answers = []

    def answered():  # five a second are
        bond.wire["m0"].send(marker)
        answers.extend(f for f in bond.wire["m0"].received() if f[14] == 2 and f[18:32] == bytes(range(14)))
        return answers

    wait_for(answered, 10 * SLOW, "an answer", 0.2)
    answer = answers[0]
    assert answer[15:18] == bytes([1, 2, 16]) and answer[18:32] == bytes(range(14)) and answer[6:12] != mac_bytes(mac(9))
