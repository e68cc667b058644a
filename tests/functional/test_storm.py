"""storm: limits what a port may make the switch flood (pipeline/storm.c)."""

import pytest

from net import BROADCAST, frame, mac

MULTICAST = "01:00:5e:00:00:fb"
KINDS = {"broadcast": (BROADCAST, "BROADCAST", "broadcast"), "multicast": (MULTICAST, "MULTICAST", "multicast"),
         "unknown-unicast": (mac(99), "UNKNOWN", "unknown unicast")}


@pytest.fixture(scope="module")
def ports(lab):
    lab.network("blue")
    lab.tap("a", "--network", "blue")
    lab.tap("b", "--network", "blue")
    lab.wire["b"].send(frame(2, BROADCAST))
    lab.settle("b", 1)
    lab.wire["a"].clear()
    return lab


def burst(lab, dst, count, port="a"):
    """Sends so many at once; how many arrived at b, and the drops."""
    drops, before = lab.drops(), lab.stats(port)["rx_packets"]
    for _ in range(count):
        lab.wire[port].send(frame(1, dst))
    lab.settle(port, before + count)
    arrived = len(lab.wire["b"].received())
    return arrived, {r: n - drops.get(r, 0) for r, n in lab.drops().items() if n != drops.get(r, 0)}


@pytest.mark.parametrize("kind", KINDS)
def test_limit(ports, kind):
    """One packet a minute would be too coarse to see; one a second with a burst of 10 passes 10, and hardly more in the test's time."""
    dst, reason, words = KINDS[kind]
    ports.weirctl("port", "set", "a", f"storm_control={kind}=1,{kind}-burst=10")
    passes, lost = burst(ports, dst, 200)
    assert 10 <= passes <= 13 and lost == {f"storm.{reason}": 200 - passes}
    text = ports.explain("a", frame(1, dst))
    assert f"{words}, limit 1 packets/s: " in text
    # The other kinds, and unicast to where it is known, are not concerned.
    for other, (dst2, _, _) in KINDS.items():
        if other != kind:
            assert burst(ports, dst2, 30) == (30, {})
    assert burst(ports, mac(2), 300) == (300, {})
    # Nor is another port.
    before = ports.stats("b")["dropped"]
    ports.check("b", frame(2, BROADCAST), {"a": [frame(2, BROADCAST)]})
    assert ports.stats("b")["dropped"] == before


def test_dropped_packet(ports):
    """What is over the limit says so, in explain too."""
    ports.weirctl("port", "set", "a", "storm_control=broadcast=1,broadcast-burst=1")
    # One passes; the second comes within the same second, or else the third comes within the one after.
    for _ in range(5):
        burst(ports, BROADCAST, 2)
        if "over the limit" in ports.explain("a", frame(1, BROADCAST)):
            break
    ports.check("a", frame(1, BROADCAST), {}, drop="storm.BROADCAST", says="broadcast, limit 1 packets/s: over the limit")


def test_at_run_time(ports):
    """A raised limit holds for flows that are cached; without a limit the stage is out of the packets' way."""
    ports.weirctl("port", "set", "a", "storm_control=broadcast=1,broadcast-burst=1")
    burst(ports, BROADCAST, 2)
    ports.weirctl("port", "set", "a", "storm_control=broadcast=1000000,broadcast-burst=10000")
    assert burst(ports, BROADCAST, 200) == (200, {})
    assert "storm" in ports.explain("a", frame(1, BROADCAST))
    ports.weirctl("clear", "Port", "a", "storm_control")
    assert burst(ports, BROADCAST, 200) == (200, {})
    assert "storm" not in ports.explain("a", frame(1, BROADCAST))


def test_bad_settings(ports):
    for value, sentence in (("broadcast=0", "broadcast must be a number from 1 to 4294967295"), ("broadcast-burst=5", "broadcast isn't"),
                            ("brodcast=5", "brodcast")):
        done = ports.weirctl("port", "set", "a", f"storm_control={value}", check=False)
        assert done.returncode and sentence in done.stderr, done.stderr
        assert sentence in ports.port("a")["error"]
    ports.weirctl("clear", "Port", "a", "storm_control")
    assert ports.port("a")["error"] is None
    ports.check("a", frame(1, 2), {"b": [frame(1, 2)]})
