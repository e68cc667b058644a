"""mtu: every packet against the MTU of its egress port (pipeline/mtu.c). Large TCP packets: test_vhost_ports.py."""

import pytest

from net import BROADCAST, frame, run


@pytest.fixture(scope="module")
def ports(lab):
    """small has an MTU of its own; the kernel's ends of the TAPs can send more than the switch would take."""
    lab.network("blue")
    lab.network("big", "--mtu", "9000", "vlan=9")
    lab.tap("a", "--network", "blue")
    lab.tap("small", "--network", "blue", "--mtu", "1000")
    lab.tap("other", "--network", "blue")
    lab.tap("ba", "--network", "big")
    lab.tap("bb", "--network", "big")
    for name in lab.wire:
        run("ip", "link", "set", "dev", name, "mtu", "9300")
    for n, name in enumerate(("a", "small", "other"), 1):
        lab.wire[name].send(frame(n, BROADCAST))
        lab.settle(name, 1)
    return lab


def test_limits(ports):
    """The MTU counts from layer 3: 14 bytes of Ethernet header are not in it."""
    fits, beyond = frame(1, 2, size=1014), frame(1, 2, size=1015)
    ports.check("a", fits, {"small": [fits]}, says="1000 bytes against MTU 1000 of small: fits")
    ports.check("a", beyond, {}, drop="mtu.TOO_LARGE", says="1001 bytes against MTU 1000 of small: too large")
    full, more = frame(2, 3, size=1514), frame(2, 3, size=1515)
    ports.check("small", full, {"other": [full]}, says="1500 bytes against MTU 1500 of other: fits")
    ports.check("small", more, {}, drop="mtu.TOO_LARGE")


def test_flood(ports):
    """Each copy against its own port."""
    f = frame(1, BROADCAST, size=1300)
    ports.check("a", f, {"other": [f]}, drop="mtu.TOO_LARGE", says=["MTU 1000 of small: too large", "MTU 1500 of other: fits"])


def test_mtu_of_the_network(ports):
    f = frame(1, BROADCAST, size=9014)
    ports.check("ba", f, {"bb": [f]}, says="9000 bytes against MTU 9000 of bb: fits")
    ports.check("ba", frame(1, BROADCAST, size=9015), {}, drop="mtu.TOO_LARGE")


def test_at_run_time(ports):
    f, index = frame(1, 2, size=1214), run("ip", "-o", "link", "show", "dev", "small").split(":")[0]
    ports.check("a", f, {}, drop="mtu.TOO_LARGE")
    ports.weirctl("port", "set", "small", "--mtu", "1200")
    assert "mtu 1200 " in run("ip", "link", "show", "dev", "small")
    ports.check("a", f, {"small": [f]}, says="MTU 1200 of small: fits")
    assert ports.port("small")["mtu"] == 1200
    ports.weirctl("port", "set", "small", "mtu_request=")
    assert ports.port("small")["mtu"] == 1500 and index == run("ip", "-o", "link", "show", "dev", "small").split(":")[0]


def test_a_tag_is_not_counted(ports):
    """IEEE 802.3as: the tag is room beyond the MTU, on the way in and on the way out."""
    ports.tap("trk", "--vlan-mode", "trunk", "--trunks", "big", "--mtu", "1500")
    run("ip", "link", "set", "dev", "trk", "mtu", "9300")
    bare, tagged = frame(7, BROADCAST, size=1514), frame(7, BROADCAST, 9, size=1518)
    ports.check("ba", bare, {"trk": [tagged], "bb": [bare]}, says="1500 bytes against MTU 1500 of trk: fits")
    ports.check("trk", tagged, {"ba": [bare], "bb": [bare]})
