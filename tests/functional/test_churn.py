"""A million packets of every kind, through ports that come and go while it runs: conserved. WEIR_LONG=1 for the million."""

import random
import time

from corpus import corpus, tagged
from net import BROADCAST, LONG, SLOW, frame, mac, wait_for
from test_explain import SEED
from test_vhost_ports import partial, plug

COUNT = 1000000 if LONG else 100000 // SLOW
SOURCES = [mac(n) for n in range(1, 9)]


class Churn:
    """What is there at the moment, and the dice."""

    def __init__(self, lab):
        self.lab, self.dice, self.serial = lab, random.Random(SEED), 0
        self.taps, self.guests = [], {}
        self.counted = 0  # packets of ports that went

    def settings(self):
        network = self.dice.choice(["red", "blue"])
        return self.dice.choice([["--network", network], ["--network", network, "--isolated"], ["--vlan-mode", "trunk"],
                                 ["--vlan-mode", "native-untagged", "--network", network], ["--vlan-mode", "dot1q-tunnel", "--network", "red"],
                                 ["--network", network, "storm_control=broadcast=500"], ["--network", network, "--mac-limit", "3"]])

    def add_tap(self):
        self.serial += 1
        name = f"t{self.serial}"
        self.lab.tap(name, *self.settings())
        self.taps.append(name)

    def add_guest(self):
        self.serial += 1
        name = f"v{self.serial}"
        self.lab.weirctl("port", "add", name, *self.settings(), "--queues", "2", "options:packed=true", f"options:mode={self.dice.choice(['server', 'client'])}")
        server = self.lab.port(name)["options"]["mode"] == "client"
        kind = self.dice.choice(["", ",packed=1", ",mrg=0", ",queues=2", ",offload=0"])
        guest = plug(self.lab, name, server=server, guest=kind.strip(","), port=False)
        guest.capture(0, False)
        self.guests[name] = guest

    def remove_tap(self):
        self.lab.delete(self.taps.pop(self.dice.randrange(len(self.taps))))

    def remove_guest(self):
        """The port first, or the guest first, in order or by force."""
        name = self.dice.choice(list(self.guests))
        guest = self.guests.pop(name)
        how = self.dice.randrange(3)
        if how:
            (guest.quit if how == 1 else guest.kill)()
        self.lab.weirctl("port", "del", name)
        if not how:
            guest.quit()

    def change(self):
        lab, name = self.lab, self.dice.choice([*self.taps, *self.guests])
        self.dice.choice([
            lambda: lab.weirctl("port", "set", name, f"isolated={self.dice.choice(['true', 'false'])}"),
            lambda: lab.weirctl("port", "set", name, f"enabled={self.dice.choice(['true', 'false'])}"),
            lambda: lab.weirctl("port", "set", name, f"mtu_request={self.dice.choice([1200, 1500])}"),
            lambda: lab.weirctl("network", "set", "blue", f"vlan={self.dice.choice([20, 21])}"),
            lambda: lab.weirctl("network", "set", "red", f"unknown_unicast={self.dice.choice(['drop', 'flood'])}"),
            lambda: lab.unixctl("fdb/flush"),
            lambda: lab.unixctl("cache/flush"),
            lambda: lab.weirctl("--", "fdb", "add", "--may-exist", "red", mac(3), name, check=False),
            lambda: lab.weirctl("fdb", "del", "--if-exists", "red", mac(3)),
        ])()

    def received(self):
        total = next(r for r in self.lab.health()["ledger"] if r["port"] == "total")
        return total["rx_packets"]


def large():
    """A large packet as a guest sends it: bytes, where its checksum goes, headers."""
    from scapy.all import IP, TCP, Ether, Raw
    data, start, offset = partial(Ether(src=mac(0x51), dst=BROADCAST) / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(flags="A") / Raw(bytes(8000)))
    return data, start, offset


def test_churn(clean):
    print(f"WEIR_SEED={SEED}")
    lab = clean
    lab.network("red", "vlan=10")
    lab.network("blue", "vlan=20", "--mac-limit", "50")
    churn, begin = Churn(lab), time.monotonic()
    frames = corpus(SEED, SOURCES, SOURCES, [(10,), (20,), (5,), (30,), ((0x88a8, 10), 5)])
    ring = [next(frames) for _ in range(3000)]
    gso, gso_start, gso_offset = large()
    for _ in range(3):
        churn.add_tap()
        churn.add_guest()
    rounds = 0
    try:
        while churn.received() < COUNT:
            rounds += 1
            for guest in churn.guests.values():
                guest.blast(0, 3000, tagged(frame(0x61, BROADCAST, size=90), *churn.dice.choice([(), (), (10,)])), rate=20000,
                            random=[(5, 1), (11, 1)])
            for name in list(churn.taps):
                wire = lab.wire[name]
                for data in churn.dice.sample(ring, 400):
                    try:
                        wire.send(data)
                    except OSError:
                        pass  # larger than the kernel sends there, or the interface is on its way out
                wire.clear()
            for guest in churn.guests.values():
                guest.tx(0, gso, csum=(gso_start, gso_offset), tso=(1400, 54))
            churn.change()
            turn = rounds % 6
            if turn == 1 and len(churn.guests) > 1:
                churn.remove_guest()
            elif turn == 2:
                churn.add_guest()
            elif turn == 3 and len(churn.taps) > 1:
                churn.remove_tap()
            elif turn == 4:
                churn.add_tap()
            elif turn == 5 and LONG and rounds % 30 == 5:
                lab.check_conservation()
        for guest in churn.guests.values():
            guest.blast(0, 0, frame(1, BROADCAST), rate=0)
    finally:
        for guest in churn.guests.values():
            guest.quit()
    lab.check_conservation(20 * SLOW)
    health = lab.health()
    total = next(r for r in health["ledger"] if r["port"] == "total")
    print(f"{total['rx_packets']} packets received, {total['copies']} copies, {total['segments_added']} segments more, {total['dropped']} dropped, "
          f"{churn.serial} ports, {rounds} rounds, {time.monotonic() - begin:.0f} s")
    print({d["reason"]: d["packets"] for d in health["drops"]})
    assert total["rx_packets"] >= COUNT and total["copies"] > 0 and total["segments_added"] > 0
    wait_for(lambda: not any(row["queued"] for row in lab.health()["ledger"]), 10 * SLOW, lambda: f"nothing to wait: {lab.health()['ledger']}")
    # The switch is as good as new.
    lab.clear()
    lab.network("end")
    lab.tap("a", "--network", "end")
    lab.tap("b", "--network", "end")
    f = frame(1, BROADCAST)
    lab.check("a", f, {"b": [f]})
