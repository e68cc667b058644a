"""What guests on QEMU notice of the switch: split and packed rings over its restart, and memory that is plugged in under traffic."""

import json
import os
import re
import time

import pytest

from guest import Guest, Nic, boot, iperf
from wait import wait_for

LONG = bool(os.environ.get("WEIR_LONG"))
RATE = 50  # pings a second, for each port and family
PORTS = {"split": 1, "packed": 2, "late": 3}  # of vm1, and the third number of its network


@pytest.fixture(scope="module")
def pair(switch):
    """vm1 has a split and a packed NIC, vm2 a packed one; their QEMUs listen, as one that listens can be found at once. "late" has a QEMU
    that connects, once a second, on either side."""
    nics = {name: Nic(switch.path(name + ".sock"), packed=name != "split", server="late" not in name)
            for name in ("split", "packed", "late", "peer", "late-peer")}
    for network in ("blue", "green"):
        switch.weirctl("network", "add", network)
    for name, nic in nics.items():
        switch.weirctl("port", "add", name, "--network", "blue" if nic.server else "green", "--path", nic.path, "options:packed=true",
                       *([] if nic.server else ["--mode", "server"]))
    vm1 = Guest("vm1", switch.rundir, [nics[name] for name in ("split", "packed", "late")], cpus=1)
    vm1.memory_options = ",slots=4,maxmem=1G"
    vm2 = Guest("vm2", switch.rundir, [nics["peer"], nics["late-peer"]], cpus=1)
    try:
        boot([vm1, vm2])
        vm1.sh("sysctl -q -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2")
        for guest, host in ((vm1, 1), (vm2, 2)):
            for name, net in PORTS.items():
                nic = nics[name if host == 1 else "late-peer" if name == "late" else "peer"]
                guest.sh(f"ip address add 10.{net}.0.{host}/24 dev {guest.interface(nic)}")
                guest.sh(f"ip link set {guest.interface(nic)} up && ip -6 address add fd00:{net}::{host}/64 dev {guest.interface(nic)} nodad")
        for address in addresses():
            vm1.wait_ping(address)
        yield vm1, vm2
    finally:
        vm1.stop()
        vm2.stop()


def addresses(ports=tuple(PORTS)):
    """Where vm1 sends by these ports of it, in IPv4 and IPv6."""
    return [address for name in ports for address in (f"10.{PORTS[name]}.0.2", f"fd00:{PORTS[name]}::2")]


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


def wait_streams(switch):
    """Until all streams have been under way for half a second."""
    def received():
        return {row["port"]: row["rx_packets"] for row in json.loads(switch.unixctl("port/stats", "--json"))}

    before = received()
    wait_for(lambda: all(received()[name] >= before[name] + RATE for name in PORTS), 10, "the pings")


def evict(guests, on):
    """QEMU takes the link away while it has no switch. Linux then forgets its neighbours, asks for them while the link is away and again a
    second later, unless the switch tells it before that. With `on` False it keeps them."""
    for guest in guests:
        guest.sh(f"for f in /proc/sys/net/ipv4/conf/*/arp_evict_nocarrier /proc/sys/net/ipv6/conf/*/ndisc_evict_nocarrier; do echo {int(on)} > $f; done")


@pytest.mark.parametrize("keeps", [True, False], ids=["neighbours-kept", "neighbours-forgotten"])
def test_killed_under_traffic(pair, switch, keeps):
    """kill -9 and start: how long traffic is away, in IPv4 and IPv6, for split and packed rings at once, and where QEMU connects."""
    vm1, vm2 = pair
    kinds = {name + family: address for name in PORTS for family, address in zip(("", " IPv6"), addresses([name]))}
    pauses = {kind: [] for kind in kinds}
    evict(pair, not keeps)
    for _ in range((20 if keeps else 10) if LONG else 2):
        streams = {kind: Pings(vm1, address, 5) for kind, address in kinds.items()}
        wait_streams(switch)
        switch.restart_daemon(kill=True)
        for kind, stream in streams.items():
            sent, received, pause = stream.result()
            assert received > sent / 4, f"{kind}: {received} of {sent}"
            pauses[kind].append(pause)
    evict(pair, True)
    for name in ("split", "packed", "peer", "late", "late-peer"):
        assert switch.port(name)["problem"] == "", name
    print("traffic back after the kill, s:", {kind: [round(p, 2) for p in sorted(values)] for kind, values in pauses.items()})
    for address in addresses(["split", "packed"]):
        assert iperf(vm1, vm2, address, 2) > 50


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
