"""What guests on QEMU notice of the switch: split and packed rings over its restart, and memory that is plugged in under traffic."""

import os
import re
import time

import pytest

from guest import Guest, Nic, boot, iperf
from wait import wait_for

LONG = bool(os.environ.get("WEIR_LONG"))
RATE = 50  # pings a second


@pytest.fixture(scope="module")
def pair(switch):
    """vm1 has a split and a packed NIC, vm2 a packed one; all QEMUs listen, as the one that listens can be found at once."""
    switch.weirctl("network", "add", "blue")
    split, packed, peer = (Nic(switch.path(name + ".sock"), packed=name != "split") for name in ("split", "packed", "peer"))
    for name, nic in (("split", split), ("packed", packed), ("peer", peer)):
        switch.weirctl("port", "add", name, "--network", "blue", "--path", nic.path, "options:packed=true")
    vm1 = Guest("vm1", switch.rundir, [split, packed], cpus=1)
    vm1.memory_options = ",slots=4,maxmem=1G"
    vm2 = Guest("vm2", switch.rundir, [peer], cpus=1)
    try:
        boot([vm1, vm2])
        vm1.sh("sysctl -q -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2")
        vm1.configure("10.1.0.1/24", split)
        vm1.configure("10.2.0.1/24", packed)
        vm2.configure("10.1.0.2/24")
        vm2.sh("ip address add 10.2.0.2/24 dev eth0")
        for net in (1, 2):
            vm1.wait_ping(f"10.{net}.0.2")
        yield vm1, vm2
    finally:
        vm1.stop()
        vm2.stop()


class Pings:
    """A stream of pings in the background; when their answers came, by the guest's clock."""

    def __init__(self, guest, address, seconds):
        self.seconds = seconds
        self.future = guest.send(f"ping -n -D -i {1 / RATE} -W 1 -c {seconds * RATE} {address}", seconds + 30)

    def result(self):
        """(sent, received, longest pause in seconds)"""
        _, out = self.future.result(self.seconds + 40)
        sent, received = map(int, re.search(r"(\d+) packets transmitted, (\d+) received", out).groups())
        times = [float(t) for t in re.findall(r"\[([\d.]+)\] \d+ bytes from", out)]
        return sent, received, max((b - a for a, b in zip(times, times[1:])), default=None)


def test_killed_under_traffic(pair, switch):
    """kill -9 and start: how long traffic is away, for split and packed rings at once."""
    vm1, vm2 = pair
    pauses = {"split": [], "packed": []}
    for _ in range(10 if LONG else 3):
        streams = {"split": Pings(vm1, "10.1.0.2", 4), "packed": Pings(vm1, "10.2.0.2", 4)}
        time.sleep(1)
        switch.restart_daemon(kill=True)
        for kind, stream in streams.items():
            sent, received, pause = stream.result()
            assert received > sent / 3, f"{kind}: {received} of {sent}"
            pauses[kind].append(pause)
    for name in ("split", "packed", "peer"):
        assert switch.port(name)["problem"] == "", name
    print("traffic back after the kill, s:", {kind: [round(p, 2) for p in values] for kind, values in pauses.items()})
    assert max(pauses["split"] + pauses["packed"]) < 5
    for net in (1, 2):
        assert iperf(vm1, vm2, f"10.{net}.0.2", 2) > 50


def test_killed_while_tcp_flows(pair, switch):
    vm1, vm2 = pair
    vm2.sh("killall -q iperf3; iperf3 -s -1 -D; for i in $(seq 200); do netstat -ltn | grep -q :5201 && exit; sleep 0.05; done")
    transfer = vm1.send("iperf3 -c 10.2.0.2 -n 300M", 120)
    for _ in range(5 if LONG else 2):
        time.sleep(0.7)
        switch.restart_daemon(kill=True)
    rc, out = transfer.result(130)
    assert rc == 0, out
    assert switch.port("packed")["problem"] == "" == switch.port("peer")["problem"]


def test_memory_is_plugged_in(pair, switch):
    """The front-end exchanges the memory table of running devices; packets go on, and the new memory can hold packets."""
    vm1, vm2 = pair

    def total():
        return int(re.search(r"MemTotal: +(\d+)", vm1.sh("cat /proc/meminfo")).group(1))

    before = total()
    streams = [Pings(vm1, "10.1.0.2", 6), Pings(vm1, "10.2.0.2", 6)]
    time.sleep(1)
    for i in range(2):
        vm1.qmp.execute("object-add", **{"qom-type": "memory-backend-memfd"}, id=f"more{i}", size=128 << 20, share=True)
        vm1.qmp.execute("device_add", driver="pc-dimm", id=f"dimm{i}", memdev=f"more{i}")
        time.sleep(1)
    for stream in streams:
        sent, received, pause = stream.result()
        print(f"memory plugged in: {received} of {sent} pings, longest pause {pause:.2f} s")
        assert received >= sent - 3
    vm1.sh("""for f in /sys/devices/system/memory/memory*/state; do grep -q online $f || echo online_movable > $f || true; done""")
    wait_for(lambda: total() > before + 200000, 10, lambda: f"the guest to use its new memory: {before} kB, {total()} kB")
    for net in (1, 2):
        assert iperf(vm1, vm2, f"10.{net}.0.2", 2) > 50
        assert iperf(vm1, vm2, f"10.{net}.0.2", 2, options="-R") > 50
