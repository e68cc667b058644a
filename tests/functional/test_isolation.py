"""isolation: no packet passes between two isolated ports (pipeline/isolation.c); floods leave them out."""

import pytest

from net import BROADCAST, frame


@pytest.fixture(scope="module")
def ports(lab):
    lab.network("blue")
    for name in ("i1", "i2", "up"):
        lab.tap(name, "--network", "blue", *(["--isolated"] if name != "up" else []))
    for n, name in enumerate(("i1", "i2", "up"), 1):
        lab.wire[name].send(frame(n, BROADCAST))
        lab.settle(name, 1)
    return lab


def test_unicast(ports):
    ports.check("i1", frame(1, 2), {}, drop="isolation.ISOLATED", says="destination 52:54:00:00:00:02 was learned on i2")
    ports.check("i1", frame(1, 3), {"up": [frame(1, 3)]}, says="output to up")
    ports.check("up", frame(3, 2), {"i2": [frame(3, 2)]}, says="output to i2")
    (flow,) = [f for f in ports.ask("cache/list", "--port", "i1") if "dl_dst=52:54:00:00:00:02" in f["match"]]
    assert flow["actions"] == "drop(isolation.ISOLATED)" and {"Port:i1", "Port:i2"} <= set(flow["because"].split(","))


def test_flood(ports):
    """One copy less, and none of it counts as dropped: nobody asked for it."""
    ports.check("i1", frame(1, BROADCAST), {"up": [frame(1, BROADCAST)]})
    ports.check("i1", frame(1, 99), {"up": [frame(1, 99)]}, says="is unknown: flood")
    ports.check("up", frame(3, BROADCAST), {"i1": [frame(3, BROADCAST)], "i2": [frame(3, BROADCAST)]})


def test_only_isolated_ports(ports):
    ports.weirctl("port", "set", "up", "enabled=false")
    ports.check("i1", frame(1, BROADCAST), {}, drop="flow.NOBODY")
    ports.weirctl("port", "set", "up", "enabled=true")


def test_at_run_time(ports):
    ports.check("i1", frame(1, 2), {}, drop="isolation.ISOLATED")
    ports.weirctl("port", "set", "i2", "isolated=false")
    ports.check("i1", frame(1, 2), {"i2": [frame(1, 2)]})
    ports.check("i1", frame(1, BROADCAST), {"up": [frame(1, BROADCAST)], "i2": [frame(1, BROADCAST)]})
    ports.weirctl("port", "set", "i2", "--isolated")
    ports.check("i1", frame(1, 2), {}, drop="isolation.ISOLATED")
