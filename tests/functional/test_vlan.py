"""vlan: which frames a port admits to which network, and with which tags they leave (pipeline/vlan.c, ofproto/vlan.h)."""

import pytest

from net import BROADCAST, frame

STAG, CTAG = 0x88a8, 0x8100
PCP5 = 5 << 13


@pytest.fixture(scope="module")
def ports(lab):
    """red is VLAN 10, blue VLAN 20, green has no VLAN. A port of each mode."""
    lab.network("red", "vlan=10")
    lab.network("blue", "vlan=20")
    lab.network("green")
    lab.tap("acc", "--network", "red")
    lab.tap("accb", "--network", "blue")
    lab.tap("grn", "--network", "green")
    lab.tap("trk", "--vlan-mode", "trunk")
    lab.tap("trk10", "--vlan-mode", "trunk", "--trunks", "red")
    lab.tap("ntag", "--vlan-mode", "native-tagged", "--network", "red", "--trunks", "blue")
    lab.tap("nunt", "--vlan-mode", "native-untagged", "--network", "red", "--trunks", "blue")
    lab.tap("qinq", "--vlan-mode", "dot1q-tunnel", "--network", "red")
    lab.tap("qcv", "--vlan-mode", "dot1q-tunnel", "--network", "red", "cvlans=0,7", "other_config:qinq-ethtype=802.1q")
    return lab


def everywhere(ports, but, **arrives):
    """Broadcasts of a network reach its other ports."""
    return {port: [f] for port, f in arrives.items() if port != but}


def red(src, payload=b"", pcp=0):
    """What a broadcast in red looks like at each port of red, when its payload carries no tag of a customer."""
    bare, tagged = frame(src, BROADCAST, payload=payload), frame(src, BROADCAST, pcp | 10, payload=payload, size=64)
    return {"acc": bare, "trk": tagged, "trk10": tagged, "ntag": tagged, "nunt": bare, "qinq": bare, "qcv": bare}


def blue(src):
    bare, tagged = frame(src, BROADCAST), frame(src, BROADCAST, 20, size=64)
    return {"accb": bare, "trk": tagged, "ntag": tagged, "nunt": tagged}


def test_access(ports):
    ports.check("acc", frame(1, BROADCAST), everywhere(ports, "acc", **red(1)), says=["port acc (access), untagged: network red"])
    ports.check("accb", frame(2, BROADCAST), everywhere(ports, "accb", **blue(2)), says="untagged: network blue")
    ports.check("grn", frame(3, BROADCAST), {}, drop="flow.NOBODY", says="untagged: network green")


def test_priority_tag(ports):
    """VLAN 0 carries a priority only (IEEE 802.1Q table 9-2); the priority is kept where the frame leaves tagged."""
    ports.check("acc", frame(4, BROADCAST, PCP5, size=64), everywhere(ports, "acc", **red(4, pcp=PCP5)), says="network red")
    ports.check("nunt", frame(4, BROADCAST, PCP5, size=64), everywhere(ports, "nunt", **red(4, pcp=PCP5)), says="network red")


def test_wrong_tags(ports):
    for port, vlan in (("acc", 10), ("acc", 20), ("acc", 4095), ("trk", 30), ("trk10", 20), ("trk", 4095), ("ntag", 30), ("nunt", 30)):
        ports.check(port, frame(5, BROADCAST, vlan, size=64), {}, drop="vlan.NOT_ALLOWED", says=[f"VLAN {vlan}: no network", f"port {port}"])
    for port in ("trk", "trk10"):
        ports.check(port, frame(5, BROADCAST), {}, drop="vlan.NO_NETWORK", says="untagged: no network")
        ports.check(port, frame(5, BROADCAST, PCP5, size=64), {}, drop="vlan.NO_NETWORK", says="no network")


def test_trunk(ports):
    ports.check("trk", frame(6, BROADCAST, 10, size=64), everywhere(ports, "trk", **red(6)), says=["port trk (trunk), VLAN 10: network red"])
    ports.check("trk", frame(7, BROADCAST, 20, size=64), everywhere(ports, "trk", **blue(7)), says="VLAN 20: network blue")
    ports.check("trk10", frame(8, BROADCAST, PCP5 | 10, size=64), everywhere(ports, "trk10", **red(8, pcp=PCP5)), says="VLAN 10: network red")


def test_native(ports):
    for port in ("ntag", "nunt"):
        ports.check(port, frame(9, BROADCAST), everywhere(ports, port, **red(9)), says=f"port {port} (native-")
        ports.check(port, frame(10, BROADCAST, 20, size=64), everywhere(ports, port, **blue(10)), says="VLAN 20: network blue")
    # A native-tagged port takes its network's frames tagged too; a native-untagged one has it as its native VLAN only.
    ports.check("ntag", frame(11, BROADCAST, 10, size=64), everywhere(ports, "ntag", **red(11)), says="VLAN 10: network red")
    ports.check("nunt", frame(11, BROADCAST, 10, size=64), {}, drop="vlan.NOT_ALLOWED", says="VLAN 10: no network")


def test_dot1q_tunnel(ports):
    """Whatever the customer sends is payload; between tunnel ports it passes as it is, on a trunk under the network's tag."""
    for tags in ((7,), ((STAG, 100),), (7, 8), ((STAG, 100), 7)):
        customer = frame(12, BROADCAST, *tags, size=64)
        outer = frame(12, BROADCAST, (STAG, 10), *tags, size=68)
        to = {"acc": customer, "trk": outer, "trk10": outer, "ntag": outer, "nunt": customer, "qinq": customer}
        if tags == (7,):
            to["qcv"] = customer
        got = {port: [f] for port, f in to.items() if port != "qinq"}
        if "qcv" not in to:
            got["qcv"] = [customer]
        ports.check("qinq", customer, got, says="network red")


def test_customer_vlans(ports):
    customer = frame(13, BROADCAST, 7, size=64)
    outer = frame(13, BROADCAST, (CTAG, 10), 7, size=68)
    to = {"acc": customer, "trk": outer, "trk10": outer, "ntag": outer, "nunt": customer, "qinq": customer}
    ports.check("qcv", customer, {port: [f] for port, f in to.items()}, says="port qcv (dot1q-tunnel), VLAN 7: network red")
    ports.check("qcv", frame(13, BROADCAST), everywhere(ports, "qcv", **red(13)), says="untagged: network red")
    ports.check("qcv", frame(13, BROADCAST, 8, size=64), {}, drop="vlan.CUSTOMER", says="VLAN 8: network red")
    ports.weirctl("port", "set", "qcv", "cvlans=8")
    ports.check("qcv", frame(13, BROADCAST), {}, drop="vlan.CUSTOMER")
    ports.check("qcv", frame(13, BROADCAST, 7, size=64), {}, drop="vlan.CUSTOMER")
    ports.weirctl("port", "set", "qcv", "cvlans=0,7")


def test_unicast_between_modes(ports):
    """The cached unicast flow rewrites tags as the flood does."""
    learn = {"acc": (21,), "trk": (22, 10), "ntag": (23,), "nunt": (24,), "qinq": (25,)}
    for port, (src, *tags) in learn.items():
        before = ports.stats(port)["rx_packets"]
        ports.wire[port].send(frame(src, BROADCAST, *tags, size=64 if tags else 60))
        ports.settle(port, before + 1)
    for _ in range(2):  # resolved, then from the cache
        ports.check("acc", frame(21, 22), {"trk": [frame(21, 22, 10, size=64)]}, says=["output to trk", "tagged with VLAN 10"])
        ports.check("trk", frame(22, 21, PCP5 | 10, size=64), {"acc": [frame(22, 21)]}, says=["output to acc", "outer tag taken off"])
        ports.check("trk", frame(22, 23, PCP5 | 10, size=64), {"ntag": [frame(22, 23, PCP5 | 10, size=64)]}, says="VLAN set to 10")
        ports.check("trk", frame(22, 24, 10, size=64), {"nunt": [frame(22, 24)]}, says="outer tag taken off")
        ports.check("qinq", frame(25, 22, 77, size=64), {"trk": [frame(25, 22, (STAG, 10), 77, size=68)]}, says="tagged with VLAN 10")
        # The inner tag of what comes from a trunk is the customer's.
        ports.check("trk", frame(22, 25, (STAG, 10), 77, size=68), {"qinq": [frame(22, 25, 77, size=64)]}, says="outer tag taken off")


def test_bad_addresses(ports):
    ports.check("acc", frame("53:54:00:00:00:01", 21), {}, drop="vlan.GROUP_SOURCE")
    ports.check("acc", frame(BROADCAST, BROADCAST), {}, drop="vlan.GROUP_SOURCE")
    ports.check("acc", frame("00:00:00:00:00:00", 21), {}, drop="vlan.ZERO_SOURCE")


def test_reserved_destinations(ports):
    for last in (0x00, 0x0e, 0x0f):
        ports.check("acc", frame(30, f"01:80:c2:00:00:{last:02x}"), {}, drop="vlan.RESERVED")
    passes = frame(30, "01:80:c2:00:00:10")
    assert "flooded" in ports.explain("acc", passes)
    ports.weirctl("network", "set", "green", "other_config:forward-bpdu=true")
    ports.tap("grn2", "--network", "green")
    bpdu = frame(30, "01:80:c2:00:00:00")
    ports.check("grn", bpdu, {"grn2": [bpdu]}, says="is a group: flood")
    ports.weirctl("remove", "Network", "green", "other_config", "forward-bpdu")
    ports.check("grn", bpdu, {}, drop="vlan.RESERVED")
    ports.delete("grn2")


def test_no_network(ports):
    """An access port whose network isn't said yet passes nothing, and says so."""
    done = ports.weirctl("create", "Port", "name=bare", "type=tap", check=False)
    assert "no network yet" in done.stderr or "no network yet" in (ports.port("bare")["error"] or ""), done
    ports.weirctl("port", "set", "bare", "network=green")
    assert ports.port("bare")["error"] is None
    ports.weirctl("port", "del", "bare")


def test_disabled_ingress(ports):
    ports.weirctl("port", "set", "acc", "enabled=false")
    ports.check("acc", frame(1, BROADCAST), {}, drop="vlan.DISABLED")
    ports.weirctl("port", "set", "acc", "enabled=true")
    ports.check("acc", frame(1, BROADCAST), everywhere(ports, "acc", **red(1)))


def test_vlan_of_two_networks(ports):
    """Two networks of one VLAN are fine until a trunk carries both: then the trunk says so and keeps what it had."""
    ports.network("rose", "vlan=10")
    for port in ("trk",):
        assert "networks red and rose both have VLAN 10: name the port's networks in trunks" in ports.port(port)["error"]
    assert ports.port("trk10")["error"] is None and ports.port("ntag")["error"] is None
    ports.check("trk10", frame(8, BROADCAST, 10, size=64), everywhere(ports, "trk10", **red(8)))
    ports.check("trk", frame(6, BROADCAST, 10, size=64), everywhere(ports, "trk", **red(6)), says="VLAN 10: network red")
    ports.weirctl("port", "set", "trk", "trunks=red,blue")
    assert ports.port("trk")["error"] is None
    ports.check("trk", frame(6, BROADCAST, 10, size=64), everywhere(ports, "trk", **red(6)))
    ports.weirctl("network", "del", "rose", "--", "port", "set", "trk", "trunks=")
    assert ports.port("trk")["error"] is None


def test_change_of_vlan(ports):
    """The tags follow at once when the network's VLAN changes, also for a flow that is cached."""
    ports.check("trk", frame(6, BROADCAST, 20, size=64), everywhere(ports, "trk", **blue(6)))
    ports.weirctl("network", "set", "blue", "vlan=21")
    try:
        ports.check("trk", frame(6, BROADCAST, 20, size=64), {}, drop="vlan.NOT_ALLOWED")
        tagged, bare = frame(6, BROADCAST, 21, size=64), frame(6, BROADCAST, size=60)
        ports.check("trk", tagged, {"accb": [bare], "ntag": [tagged], "nunt": [tagged]}, says="VLAN 21: network blue")
    finally:
        ports.weirctl("network", "set", "blue", "vlan=20")
