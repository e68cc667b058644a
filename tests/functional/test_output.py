"""output: is the egress port there, and open (pipeline/output.c); what becomes of packets for ports that went."""

import pytest

from net import BROADCAST, frame


@pytest.fixture
def ports(clean):
    clean.network("blue")
    for n, name in enumerate(("a", "b", "c"), 1):
        clean.tap(name, "--network", "blue")
    for n, name in enumerate(("a", "b", "c"), 1):
        clean.wire[name].send(frame(n, BROADCAST))
        clean.settle(name, 1)
    return clean


def test_disabled_egress(ports):
    ports.check("a", frame(1, 2), {"b": [frame(1, 2)]}, says="output to b")
    ports.weirctl("port", "set", "b", "--disabled")
    ports.check("a", frame(1, 2), {}, drop="output.DISABLED", says="was learned on b")
    # Who floods doesn't mean a disabled port.
    ports.check("a", frame(1, BROADCAST), {"c": [frame(1, BROADCAST)]})
    (flow,) = [f for f in ports.ask("cache/list", "--port", "a") if "dl_dst=52:54:00:00:00:02" in f["match"]]
    assert flow["actions"] == "drop(output.DISABLED)" and "Port:b" in flow["because"].split(",")
    ports.weirctl("port", "set", "b", "enabled=true")
    ports.check("a", frame(1, 2), {"b": [frame(1, 2)]})


def test_gone_port(ports):
    """What was known at the port is unknown again, and is flooded to who is left."""
    ports.check("a", frame(1, 2), {"b": [frame(1, 2)]})
    ports.delete("b")
    assert {row["port"] for row in ports.fdb().values()} == {"a", "c"}
    ports.check("a", frame(1, 2), {"c": [frame(1, 2)]}, says="is unknown: flood")


def test_port_in_another_network(ports):
    ports.network("red")
    ports.check("a", frame(1, 2), {"b": [frame(1, 2)]})
    ports.weirctl("port", "set", "b", "network=red")
    ports.check("a", frame(1, 2), {"c": [frame(1, 2)]}, says="is unknown: flood")
    ports.check("b", frame(2, 1), {}, drop="flow.NOBODY", says="network red")
    ports.weirctl("port", "set", "b", "network=blue")
    ports.check("a", frame(1, 2), {"b": [frame(1, 2)], "c": [frame(1, 2)]})


def test_no_device_behind_the_port(ports):
    """A vhost-user port that nobody has connected to: a reason that says so, for unicast and for its share of a flood."""
    ports.weirctl("port", "add", "vm", "--network", "blue")
    ports.weirctl("fdb", "add", "blue", "52:54:00:00:00:09", "vm")
    ports.check("a", frame(1, 9), {}, drop="tx.DISCONNECTED", says="is static on vm")
    before = ports.stats("vm")["tx_dropped"]
    ports.check("a", frame(1, BROADCAST), {"b": [frame(1, BROADCAST)], "c": [frame(1, BROADCAST)]}, drop="tx.DISCONNECTED", same=False)
    assert ports.stats("vm")["tx_dropped"] == before + 1
    assert "not connected" in ports.health()["problems"][0]["problem"]


def test_same_port(ports):
    ports.weirctl("fdb", "add", "blue", "52:54:00:00:00:09", "a")
    ports.check("a", frame(1, 9), {}, drop="fdb.SAME_PORT", says="is static on a")
    ports.check("a", frame(1, 1), {}, drop="fdb.SAME_PORT")
