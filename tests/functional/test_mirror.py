"""mirror, mirror_egress: table Mirror on a real switch, and what weirctl says (pipeline/mirror.c, pipeline/mirror_egress.c)."""

import pytest
from scapy.all import IP, UDP, Ether, raw

from net import BROADCAST, SLOW, Stream, frame, mac, wait_for


@pytest.fixture(scope="module")
def ports(lab):
    lab.network("blue", "--vlan", "10")
    lab.network("watch", "--vlan", "99", "learning=false")
    for n, name in enumerate(("a", "b", "c"), 1):
        lab.tap(name, "--network", "blue", f"addresses={mac(n)}")
    lab.tap("t", "--vlan-mode", "trunk", "--trunks", "blue,watch")
    lab.tap("probe", "--network", "blue")
    lab.tap("far", "--network", "watch")
    return lab


# Copies of real packets leave together with them, explain's one after the other: the lines of both are the same, in another order (same=False).

@pytest.fixture
def mirrors(ports):
    yield ports
    for row in ports.weirctl("mirror", "list", json=True):
        ports.weirctl("mirror", "del", row["name"])
    ports.check_conservation()


def tagged(data, vid, prio=0):
    return data[:12] + b"\x81\0" + bytes([prio << 5 | vid >> 8, vid & 255]) + data[12:]


def one(lab, name):
    (row,) = [r for r in lab.weirctl("mirror", "list", json=True) if r["name"] == name]
    return row


def test_span_of_what_comes_in(mirrors):
    mirrors.weirctl("mirror", "add", "span", "--src", "a", "--to", "probe")
    data = frame(1, 2)
    before = mirrors.stats("a")["copies"]
    mirrors.check("a", data, {"b": [data], "probe": [data]}, says=["span copies what comes in", "a copy for probe, as a mirror wants"], same=False)
    assert mirrors.stats("a")["copies"] == before + 1
    mirrors.check("b", frame(2, 1), {"a": [frame(2, 1)]})
    # A rule's drop, and a tag that the port doesn't take, come after the mirror.
    mirrors.weirctl("flow", "add", f"dl_dst={mac(2)}", "drop")
    mirrors.check("a", data, {"probe": [data]}, drop="rule.DROP", same=False)
    mirrors.weirctl("flow", "del", "all")
    mirrors.check("a", tagged(data, 77), {"probe": [tagged(data, 77)]}, drop="vlan.NOT_ALLOWED", same=False)
    wait_for(lambda: (one(mirrors, "span")["statistics"] or {}).get("tx_packets", 0) >= 3, 20 * SLOW, "statistics", 0.2)
    assert one(mirrors, "span")["statistics"]["tx_bytes"] == 60 + 60 + 64


def test_span_of_what_leaves(mirrors):
    mirrors.weirctl("mirror", "add", "out", "--dst", "b,t", "--to", "probe")
    data = frame(1, 2)
    mirrors.check("a", data, {"b": [data], "probe": [data]}, says="out copies what leaves", same=False)
    came = tagged(frame(7, 2), 10, 3)
    mirrors.check("t", came, {"b": [frame(7, 2)], "probe": [frame(7, 2)]}, same=False)
    flood = frame(1, BROADCAST)
    mirrors.check("a", flood, {"b": [flood], "c": [flood], "t": [tagged(flood, 10)], "probe": [flood, tagged(flood, 10)]}, same=False)
    mirrors.check("b", frame(2, 1), {"a": [frame(2, 1)]})
    mirrors.check("a", frame(1, 7), {"t": [tagged(frame(1, 7), 10)], "probe": [tagged(frame(1, 7), 10)]}, same=False)


def test_reserved(mirrors):
    """The output port is nobody's but the mirror's, until that is gone."""
    mirrors.weirctl("fdb", "add", "blue", mac(9), "probe")
    mirrors.weirctl("mirror", "add", "all", "--all", "--to", "probe")
    mirrors.check("probe", frame(9, 1), {}, drop="mirror.RESERVED", says="decided by Mirror all")
    mirrors.check("a", frame(1, 9), {"probe": [frame(1, 9)]}, drop="mirror_egress.RESERVED", same=False)
    lost = mirrors.ask("drops")
    assert [r["packets"] for r in lost if r["reason"] == "mirror.RESERVED"]
    mirrors.weirctl("mirror", "del", "all")
    mirrors.check("a", frame(1, 9), {"probe": [frame(1, 9)]}, same=False)
    mirrors.check("probe", frame(9, 1), {"a": [frame(9, 1)]})
    mirrors.weirctl("fdb", "del", "blue", mac(9))


def test_rspan(mirrors):
    """Into a VLAN: to all of its ports, with its tag in place of the packet's own."""
    mirrors.weirctl("mirror", "add", "rspan", "--src", "a,t", "--to-vlan", "99")
    data = frame(1, 2)
    mirrors.check("a", data, {"b": [data], "far": [data], "t": [tagged(data, 99)]}, same=False)
    came = tagged(frame(7, 2), 10, 5)
    mirrors.check("t", came, {"b": [frame(7, 2)], "far": [frame(7, 2)], "t": [tagged(frame(7, 2), 99, 5)]}, same=False)
    # A copy that another switch made isn't copied.
    mirrors.check("t", tagged(data, 99), {"far": [data]}, same=False)


def test_selection(mirrors):
    mirrors.weirctl("mirror", "add", "m", "--all", "--vlan", "99", "--to", "probe")
    mirrors.check("a", frame(1, 2), {"b": [frame(1, 2)]})
    mirrors.check("far", frame(8, BROADCAST), {"t": [tagged(frame(8, BROADCAST), 99)], "probe": [frame(8, BROADCAST)]}, same=False)
    mirrors.weirctl("mirror", "set", "m", "select_vlan=", "--network", "blue", "--snaplen", "64")
    data = raw(Ether(src=mac(1), dst=mac(2)) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP() / bytes(500))
    mirrors.check("a", data, {"b": [data], "probe": [data[:64]]}, same=False)
    mirrors.check("far", frame(8, BROADCAST), {"t": [tagged(frame(8, BROADCAST), 99)]})


def test_output_disabled(mirrors):
    mirrors.weirctl("mirror", "add", "span", "--src", "a", "--to", "probe")
    mirrors.weirctl("port", "set", "probe", "enabled=false")
    mirrors.check("a", frame(1, 2), {"b": [frame(1, 2)]}, drop="mirror.NO_PORT")
    mirrors.weirctl("port", "set", "probe", "enabled=true")
    mirrors.check("a", frame(1, 2), {"b": [frame(1, 2)], "probe": [frame(1, 2)]}, same=False)


def test_bad_rows(mirrors):
    """Each says what is wrong with it, and hurts no other."""
    def refused(*words):
        done = mirrors.weirctl("mirror", *words, check=False)
        assert done.returncode == 1
        return done.stderr
    assert "nobody gets the copies" in refused("add", "m1", "--all")
    assert "nothing is selected" in refused("add", "m2", "--to", "probe")
    assert "can't be mirrored to itself" in refused("add", "m3", "--src", "probe", "--to", "probe")
    assert "no end point of tunnels of IPv4: set tunnel_ips" in refused("add", "m4", "--all", "--to-address", "10.0.0.9")
    assert "isn't the IP address of an analyser" in refused("add", "m8", "--all", "--to-address", "probe")
    assert "there is no network with VLAN 98 yet" in refused("add", "m5", "--all", "--to-vlan", "98")
    assert "not to several of these" in refused("add", "m6", "--all", "--to-vlan", "99", "--to", "probe")
    assert "there is no port nobody" in refused("add", "m7", "--src", "nobody", "--to", "probe")
    assert "there is a mirror m1 already" in refused("add", "m1", "--all")
    assert "there is no mirror m9" in refused("del", "m9")
    assert "what should be set" in refused("set", "m1")
    mirrors.weirctl("mirror", "del", "--if-exists", "m9")
    mirrors.check("probe", frame(9, 1), {"a": [frame(9, 1)]})
    mirrors.weirctl("mirror", "set", "m1", "--to", "probe")
    mirrors.check("a", frame(1, 2), {"b": [frame(1, 2)], "probe": [frame(1, 2)]}, same=False)
    assert one(mirrors, "m1")["problem"] is None and one(mirrors, "m2")["problem"]


def test_rows_go(mirrors):
    """The output port and the network of a mirror are deleted; the network takes its mirrors along."""
    mirrors.tap("tmp", "--network", "blue")
    mirrors.network("gone")
    mirrors.weirctl("mirror", "add", "span", "--src", "a", "--to", "tmp", "--", "mirror", "add", "other", "--all", "--network", "gone", "--to", "tmp")
    mirrors.check("a", frame(1, 2), {"b": [frame(1, 2)], "tmp": [frame(1, 2)]}, same=False)
    mirrors.weirctl("network", "del", "gone")
    assert [m["name"] for m in mirrors.weirctl("mirror", "list", json=True)] == ["span"]
    mirrors.delete("tmp")
    wait_for(lambda: "nobody gets the copies" in (one(mirrors, "span")["problem"] or ""), 10 * SLOW, "the mirror's error", 0.05)
    mirrors.check("a", frame(1, 2), {"b": [frame(1, 2)]})


def test_under_traffic(mirrors):
    """Mirrors come and go, and the mirrored packets are neither lost nor out of order."""
    mirrors.wire["b"].clear()
    stream = Stream(mirrors.wire["a"], mirrors.wire["b"], 1, 2, rate=1000)
    stream.wait(50)
    for _ in range(5):
        mirrors.weirctl("mirror", "add", "span", "--src", "a", "--dst", "b", "--to", "probe")
        stream.wait(20)
        mirrors.weirctl("mirror", "del", "span")
        stream.wait(20)
    assert stream.end() == ([], [])
