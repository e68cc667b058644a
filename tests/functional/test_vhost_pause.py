"""Ports that are added, changed and removed never pause the traffic of others."""
import os
from pathlib import Path

import pytest

from net import LONG, SLOW, Lab, frame, wait_for
from vguest import Driver, Guest

PORTS = 50
RATE = 10000


@pytest.fixture
def switch():
    with Lab() as lab:
        lab.network("blue")
        yield lab


class Pauses:
    """The longest gap in the flow during each change, and whose it is.

    A worker that is ready to run and has no processor is the machine's doing: Linux counts that time (schedstat). What the switch does to it is in its rounds,
    of which the flight recorder keeps the first that took longer than a millisecond; a round that Linux interrupts is longer by as much.
    """

    def __init__(self, switch, sender, receiver):
        self.switch, self.sender, self.receiver = switch, sender, receiver
        self.gaps, self.worst, self.unexplained = [], None, 0
        self.rounds, self.own = [], 0  # rounds of more than a millisecond; the longest of what Linux doesn't explain
        switch.weirctl("config", "set", "history-round-us=1000", "history-resolves=0", "history-queue-full=0")
        tasks = Path(f"/proc/{switch.daemon.pid}/task").iterdir()
        self.workers = [t for t in tasks if (t / "comm").read_text().startswith("weir-worker")]

    def waited(self):
        """Milliseconds for which the workers were ready to run and had no processor."""
        return sum(int((t / "schedstat").read_text().split()[1]) for t in self.workers) / 1e6

    def change(self, *words):
        self.receiver.clear(0)
        self.sender.ask("clear 0")
        before = self.waited()
        self.switch.unixctl("worker/history", "clear")
        self.switch.weirctl(*words)
        long = [row["busy_us"] / 1000 for row in self.switch.ask("worker/history", "--frozen", "--limit", "1")]
        waited = self.waited() - before
        end = self.receiver.count(0)
        gap, away = end["gap_us"] / 1000, max(end["poll_us"], self.sender.count(0)["poll_us"]) / 1000
        self.gaps.append(gap)
        if gap >= max(self.gaps):
            self.worst = f"{gap:.1f} ms at {' '.join(words[:3])}, when the worker had no processor for {waited:.1f} ms and a guest none for {away:.1f} ms"
        self.unexplained = max(self.unexplained, gap - waited - away)
        self.rounds += long
        self.own = max([self.own, *[ms - waited for ms in long]])


def test_fifty_ports_come_and_go(switch):
    """10,000 packets a second from one guest to another while 50 ports, ten with a guest, come, change and go: none is lost."""
    paths = [switch.path(f"quiet{i}.sock") for i in range(2)]
    for i in range(2):
        switch.weirctl("port", "add", f"quiet{i}", "--network", "blue", "--path", paths[i])
    with Guest(f"path={paths[0]},server=1") as sender, Guest(f"path={paths[1]},server=1,size=1024") as receiver:
        for guest in (sender, receiver):
            guest.ready()
            guest.capture(0, False)
        receiver.tx(0, frame(2, 1))
        sender.tx(0, frame(1, 2))
        wait_for(lambda: receiver.count(0)["rx"] and sender.count(0)["rx"], 10 * SLOW, "the guests to know each other")
        known = switch.stats("quiet1")["tx_packets"]
        sender.blast(0, 0, frame(1, 2), rate=RATE, vary=[(14, 4)])
        wait_for(lambda: switch.stats("quiet1")["tx_packets"] > RATE // 10, 10 * SLOW, "the flow")
        pauses, drivers = Pauses(switch, sender, receiver), []
        for _ in range(5 if LONG else 1):
            for i in range(PORTS):
                pauses.change("port", "add", f"p{i}", "--network", "blue", *(["--mode", "server"] if i % 3 == 0 else []), "options:packed=true")
                if i % 5 == 1 and i % 3:
                    drivers.append(Driver(switch.path(f"p{i}.sock"), size=64))
            for i in range(PORTS):
                pauses.change("set", "Port", f"p{i}", *(["mtu=1400"] if i % 2 else ["enabled=false"]))
            for i in range(PORTS):
                pauses.change("port", "del", f"p{i}")
            while drivers:
                drivers.pop().quit()
        sender.blast(0, 0, frame(1, 2), rate=0)
        stats = {}
        wait_for(lambda: stats.update(switch.stats("quiet0")) or stats["rx_packets"] == switch.stats("quiet0")["rx_packets"] and
                 switch.stats("quiet1")["tx_packets"] - known >= stats["rx_packets"] - 1, 10 * SLOW, "the last packets")
        gaps = sorted(pauses.gaps)
        print(f"{len(gaps)} changes: the longest gap was {gaps[len(gaps) // 2]:.1f} ms in the median, {gaps[len(gaps) * 9 // 10]:.1f} in nine of ten, "
              f"{sum(g < 5 for g in gaps)} times under 5 ms; worst {pauses.worst}; not explained by that: {pauses.unexplained:.1f} ms at most; "
              f"{len(pauses.rounds)} rounds of the worker were longer than 1 ms, the longest {max(pauses.rounds, default=0):.1f} ms, "
              f"of which {pauses.own:.1f} ms at most was not for want of a processor")
        # The sender keeps what its ring doesn't take, so what the switch received is all; and all of that went to the receiver.
        assert stats["dropped"] == 0, switch.drops("quiet0")
        assert pauses.unexplained < 100 * SLOW
    assert not os.listdir(switch.path("rings"))
