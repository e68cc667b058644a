"""Ports that are added, changed and removed never pause the traffic of others."""
import json
import os
import sys
from pathlib import Path

import pytest

from net import LONG, SLOW, Lab, frame, wait_for
from vguest import Driver, Guest

sys.path.append(str(Path(__file__).resolve().parents[1] / "bench"))
from pauses import LIMIT_MS, PROBE, RATE, Pauses, come_and_go, flow  # noqa: E402

PORTS = 50


@pytest.fixture
def switch():
    with Lab() as lab:
        lab.network("blue")
        yield lab


def test_fifty_ports_come_and_go(switch):
    """10,000 packets a second from one guest to another while 50 ports, ten with a guest, come, change and go: none is lost, and no worker is away
    from its ports for 5 ms by its own doing. How long packets were under way is told, as that depends on the machine."""
    paths = [switch.path(f"quiet{i}.sock") for i in range(2)]
    for i in range(2):
        switch.weirctl("port", "add", f"quiet{i}", "--network", "blue", "--path", paths[i])
    with Guest(f"path={paths[0]},server=1", f"path={paths[1]},server=1,size=1024") as guest:
        guest.ready()
        for i in range(2):
            guest.capture(i, False)
            wait_for(lambda: switch.port(f"quiet{i}")["problem"] == "", 10 * SLOW, "the driver")
        guest.tx(1, frame(2, 1))
        guest.tx(0, frame(1, 2))
        wait_for(lambda: guest.count(0)["rx"] and guest.count(1)["rx"], 10 * SLOW, "the guests to know each other")
        known = switch.stats("quiet1")["tx_packets"]
        guest.blast(0, 0, flow(frame), rate=RATE, vary=[(14, 4)], stamp=PROBE)
        wait_for(lambda: switch.stats("quiet1")["tx_packets"] > RATE // 10, 10 * SLOW, "the flow")
        pauses = Pauses(switch, guest)
        for _ in range(5 if LONG else 1):
            come_and_go(switch, pauses, PORTS, lambda path: Driver(path, size=64, window=0))
        guest.blast(0, 0, flow(frame), rate=0)
        stats = {}
        wait_for(lambda: stats.update(switch.stats("quiet0")) or stats["rx_packets"] == switch.stats("quiet0")["rx_packets"] and
                 switch.stats("quiet1")["tx_packets"] - known >= stats["rx_packets"] - 1, 10 * SLOW, "the last packets")
        print({key: value for key, value in pauses.figures().items() if key != "above"})
        # The sender keeps what its ring doesn't take, so what the switch received is all; and all of that went to the receiver.
        assert stats["dropped"] == 0, switch.drops("quiet0")
        worst = max(pauses.changes, key=lambda c: c["own"])
        assert pauses.own() < LIMIT_MS * SLOW, worst
        assert worst["own"] <= worst["longest"]
    assert not os.listdir(switch.path("rings"))


def test_longest_round_is_told(switch):
    """worker list has it, of the time since worker history clear; so have metrics."""
    def figures():
        return json.loads(switch.unixctl("worker/list", "--json"))[0]

    row = wait_for(lambda: figures()["own_us"] > 0 and figures(), 10 * SLOW, "a round")
    assert row["longest_us"] >= row["own_us"] > 0 and row["longest_us"] >= row["longest_away_us"] >= 0
    switch.unixctl("worker/history", "clear")
    wait_for(lambda: figures()["own_us"] > 0, 10 * SLOW, "rounds since")
    assert "weir_worker_round_own_max_seconds{" in switch.unixctl("metrics")
