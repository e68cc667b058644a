"""Conservation: whatever comes in, every packet is accounted for, for the switch and for each port, at any moment when nothing moves."""

import itertools
import os

import pytest

from corpus import corpus
from net import BROADCAST, LONG, SLOW, frame, mac, wait_for
from test_explain import SEED
from test_vhost_ports import plug

COUNT = 200000 if LONG else 6000


@pytest.fixture
def ports(clean):
    clean.network("red", "vlan=10")
    clean.network("blue", "vlan=20", "--mtu", "1400", "--mac-limit", "20")
    return clean


def counted(stats, drops):
    return stats["sent"] + stats["queued"] + stats["consumed"] + stats["merged"] + sum(drops.values())


def test_every_kind(ports):
    """Each frame of the corpus through each kind of port. After every burst the figures of the port that it came in by add up."""
    print(f"WEIR_SEED={SEED}")
    ports.tap("a", "--network", "red", "storm_control=unknown-unicast=1000")
    ports.tap("b", "--network", "red", "--isolated")
    ports.tap("i", "--network", "red", "--isolated")
    ports.tap("c", "--network", "blue", f"addresses={mac(3)}")
    ports.tap("trk", "--vlan-mode", "trunk")
    ports.tap("nat", "--vlan-mode", "native-untagged", "--network", "blue", "--trunks", "red")
    ports.tap("q", "--vlan-mode", "dot1q-tunnel", "--network", "red", "cvlans=0,5")
    ports.weirctl("port", "add", "nobody", "--network", "red")
    ports.weirctl("fdb", "add", "red", mac(9), "nobody")
    frames = corpus(SEED, [mac(n) for n in range(1, 9)], [mac(n) for n in range(1, 10)], [(10,), (20,), (5,), (30,), ((0x88a8, 10), 5), (0,)])
    with plug_red(ports) as guest:
        sent = dict.fromkeys(ports.wire, 0)
        for n in range(0, COUNT, 200):
            port = list(ports.wire)[n // 200 % len(ports.wire)]
            for data in itertools.islice(frames, 200):
                try:
                    ports.wire[port].send(data)
                    sent[port] += 1
                except OSError:
                    pass  # larger than the kernel sends there
            stats = ports.settle(port, sent[port])
            drops = ports.drops(port)
            assert stats["rx_packets"] == sent[port]
            assert stats["rx_packets"] + stats["generated"] + stats["copies"] + stats["segments_added"] == counted(stats, drops), (stats, drops)
            assert stats["dropped"] == sum(drops.values())
            for wire in ports.wire.values():
                wire.clear()
            guest.clear(0)
    seen = ports.drops()
    print(seen)
    wanted = {"vlan.NOT_ALLOWED", "vlan.NO_NETWORK", "vlan.CUSTOMER", "isolation.ISOLATED", "mtu.TOO_LARGE", "tx.DISCONNECTED", "fdb.SAME_PORT"}
    assert wanted <= set(seen), wanted - set(seen)
    assert len([r for r in seen if r.startswith("parse.")]) >= 6, seen
    assert ports.health()["conserved"]


def plug_red(lab):
    return plug(lab, "vm1", network="red")


def test_table_and_json_agree(ports):
    ports.tap("a", "--network", "red")
    ports.tap("b", "--network", "red")
    f = frame(1, BROADCAST)
    ports.check("a", f, {"b": [f]})
    ports.check("a", frame("01:00:00:00:00:01", 1), {}, drop="vlan.GROUP_SOURCE")
    health, text = ports.health(), ports.weirctl("health")
    assert health["conserved"] is True and "= sent + queued + consumed + merged + dropped: holds" in text
    row = next(r for r in health["ledger"] if r["port"] == "a")
    assert (row["rx_packets"], row["sent"], row["dropped"]) == (2, 1, 1)
    line = next(line for line in text.splitlines() if line.split()[:1] == ["a"])
    assert line.split()[1] == "2"
    assert next(d for d in health["drops"] if d["reason"] == "vlan.GROUP_SOURCE")["text"] == "the source address is a group address"
    total = next(r for r in health["ledger"] if r["port"] == "total")
    assert total["rx_packets"] == sum(r["rx_packets"] for r in health["ledger"]) - total["rx_packets"]


def test_figures_of_ports_that_went(ports):
    """A port takes its counts with it to the switch's own row, so that the sum goes on to hold."""
    before = next(r for r in ports.health()["ledger"] if r["port"] == "total")
    ports.tap("a", "--network", "red")
    ports.tap("b", "--network", "red")
    f = frame(1, BROADCAST)
    ports.check("a", f, {"b": [f]})
    ports.delete("a", "b")
    health = ports.health()
    after = next(r for r in health["ledger"] if r["port"] == "total")
    assert after["rx_packets"] == before["rx_packets"] + 1 and after["sent"] == before["sent"] + 1 and health["conserved"]
    assert [r["port"] for r in health["ledger"]] == ["(switch)", "total"]


def test_drops_by_port(ports):
    ports.tap("a", "--network", "red")
    ports.tap("b", "--network", "red")
    ports.check("b", frame("01:00:00:00:00:01", 1), {}, drop="vlan.GROUP_SOURCE")
    (row,) = [r for r in ports.ask("drops") if r["port"] == "b"]
    assert (row["reason"], row["packets"], row["text"]) == ("vlan.GROUP_SOURCE", 1, "the source address is a group address")
    assert any(line.split()[:3] == ["b", "vlan.GROUP_SOURCE", "1"] for line in ports.weirctl("drops").splitlines())


def test_queue_full(ports):
    """A guest that takes nothing, and more packets for it at once than may wait."""
    ports.tap("a", "--network", "red", f"addresses={mac(1)}")
    with plug_red(ports) as guest:
        guest.tx(0, frame(2, BROADCAST))
        ports.settle("vm1", 1)
        guest.stop(0)
        sent = 0

        def full():
            nonlocal sent
            for _ in range(500):
                ports.wire["a"].send(frame(1, 2))
            sent += 500
            return ports.drops("a").get("tx.QUEUE_FULL", 0) > 0
        wait_for(full, 20 * SLOW, lambda: f"a full queue: {ports.drops('a')}", 0)
        wait_for(lambda: not ports.stats("a")["queued"], 10 * SLOW, "what waits to be dropped")
        drops = ports.drops("a")
        assert set(drops) == {"tx.QUEUE_FULL", "tx.NO_BUFFERS"}, drops


def test_closed(ports):
    """A worker ends, or a port goes, while packets wait for a guest: they drop, with that reason."""
    ports.tap("a", "--network", "red")
    cores = sorted(os.sched_getaffinity(0))
    with plug_red(ports) as stuck, plug(ports, "vm2", network="red") as sender:
        stuck.tx(0, frame(2, BROADCAST))
        ports.settle("vm1", 1)
        stuck.stop(0)
        sender.blast(0, 0, frame(3, 2), rate=20000)
        turn = itertools.cycle(cores)

        def closed():
            wait_for(lambda: ports.stats("vm2")["queued"], 10 * SLOW, "packets to wait", 0.001)
            ports.weirctl("config", "set", f"worker-cores={next(turn)}")
            return ports.drops("vm2").get("tx.CLOSED", 0) > 0
        wait_for(closed, 30 * SLOW, lambda: f"a drop: {ports.drops('vm2')}", 0)
        before = ports.drops("vm2").get("tx.DISCONNECTED", 0)
        ports.weirctl("port", "del", "vm1")
        sender.blast(0, 0, frame(3, 2), rate=0)
        ports.check_conservation()
        assert ports.drops("vm2").get("tx.DISCONNECTED", 0) >= before
    ports.weirctl("config", "del", "worker-cores")
