"""Two guests on one network: what passes between them, and what happens when an end of it goes away and returns.

vm1's QEMU listens on the vhost-user socket and the switch connects; for vm2 it is the other way round.
"""

import re

import pytest

from guest import Guest, Nic, boot, throughput
from wait import wait_for

ADDRESS = {"vm1": "10.0.0.1", "vm2": "10.0.0.2"}


@pytest.fixture(scope="module")
def pair(switch):
    switch.weirctl("network", "add", "blue")
    guests = [Guest("vm1", switch.rundir, [Nic(switch.path("vm1.sock"), queues=2)], cpus=2),
              Guest("vm2", switch.rundir, [Nic(switch.path("vm2.sock"), queues=2, server=False)], cpus=2)]
    for guest in guests:
        mode = "client" if guest.nics[0].server else "server"
        switch.weirctl("port", "add", guest.name, "--network", "blue", "--path", guest.nics[0].path, "--mode", mode,
                       "--queues", 2)
    try:
        boot(guests)
        for guest in guests:
            configure(guest)
        yield guests
    finally:
        for guest in guests:
            guest.stop()


@pytest.fixture(autouse=True)
def ready(pair):
    """Every test begins with guests that reach each other."""
    pair[0].wait_ping(ADDRESS["vm2"])


def configure(guest):
    guest.configure(ADDRESS[guest.name] + "/24")


def offload(guests, what):
    for guest in guests:
        guest.sh(f"ethtool -K eth0 {what}")


class Pings:
    """A stream of pings in the background, ten a second."""

    def __init__(self, guest, address, seconds):
        self.future = guest.send(f"ping -n -D -O -i 0.1 -c {seconds * 10} {address}", seconds + 30)
        self.limit = seconds + 40

    def result(self):
        """(sent, received, longest pause in seconds)"""
        _, out = self.future.result(self.limit)
        sent, received = map(int, re.search(r"(\d+) packets transmitted, (\d+) received", out).groups())
        times = [float(t) for t in re.findall(r"\[([\d.]+)\] \d+ bytes from", out)]
        return sent, received, max((b - a for a, b in zip(times, times[1:])), default=None)


def test_both_socket_modes(pair, switch):
    vm1, vm2 = pair
    assert vm1.ping(ADDRESS["vm2"], 5) == (5, 5)
    assert vm2.ping(ADDRESS["vm1"], 5) == (5, 5)
    for guest in pair:
        port = switch.port(guest.name)
        assert port["link_state"] == "up" and not port["error"]


def test_fdb_knows_both(pair, switch):
    text = switch.weirctl("fdb", "list")
    for guest in pair:
        assert guest.nics[0].mac in text


def test_fragments_and_sizes(pair):
    """Every size from the smallest to beyond the MTU, where IP fragments."""
    out = pair[0].sh(f"""for size in 0 1 17 18 19 63 64 65 255 256 1000 1471 1472 1473 2960 2961 9000 20000; do
        ping -n -q -c 2 -i 0.1 -W 3 -s $size {ADDRESS["vm2"]} >/dev/null || echo lost $size; done""", 120)
    assert out == ""


def test_ipv6(pair):
    for guest in pair:
        guest.sh(f"ip -6 address replace fd00::{ADDRESS[guest.name][-1]}/64 dev eth0 nodad")
    pair[0].wait_ping("fd00::2")
    assert throughput(pair[0], pair[1], "fd00::2", 2) > 50


def test_tcp_with_offloads(pair):
    for guest in pair:
        assert re.search(r"tcp-segmentation-offload: on", guest.sh("ethtool -k eth0"))
    assert throughput(pair[0], pair[1], ADDRESS["vm2"]) > 50
    assert throughput(pair[0], pair[1], ADDRESS["vm2"], options="-R") > 50


def test_tcp_without_tso(pair):
    offload(pair, "tso off gso off gro off")
    try:
        assert throughput(pair[0], pair[1], ADDRESS["vm2"]) > 50
    finally:
        offload(pair, "tso on gso on gro on")


def test_tcp_without_checksum_offload(pair):
    """One side sums itself, the other relies on the device: both ways."""
    offload(pair[:1], "tx off")
    try:
        assert throughput(pair[0], pair[1], ADDRESS["vm2"], 2) > 50
        assert throughput(pair[0], pair[1], ADDRESS["vm2"], 2, options="-R") > 50
    finally:
        offload(pair[:1], "tx on tso on")


def test_small_udp(pair):
    vm1, vm2 = pair
    received = vm2.sh("cat /sys/class/net/eth0/statistics/rx_packets")
    vm2.sh("iperf3 -s -1 -D; for i in $(seq 200); do netstat -ltn | grep -q :5201 && exit; sleep 0.05; done; exit 1")
    vm1.sh(f"iperf3 -u -b 0 -l 64 -t 2 -c {ADDRESS['vm2']} || true", 40)
    received = int(vm2.sh("cat /sys/class/net/eth0/statistics/rx_packets")) - int(received)
    assert received / 2 > 3000


def queue_packets(guest, direction):
    return [int(n) for n in re.findall(rf"{direction}_queue_\d+_packets: (\d+)", guest.sh("ethtool -S eth0"))]


def test_multi_queue(pair):
    vm1, vm2 = pair
    for guest in pair:
        guest.sh("ethtool -L eth0 combined 2")
    try:
        sent, received = queue_packets(vm1, "tx"), queue_packets(vm2, "rx")
        # Many connections, so that both of the two queues are hashed to.
        assert throughput(vm1, vm2, ADDRESS["vm2"], 3, "-P 16") > 50
        assert all(b - a > 20 for a, b in zip(received, queue_packets(vm2, "rx"))), "a receive queue was not used"
        assert all(b - a > 20 for a, b in zip(sent, queue_packets(vm1, "tx"))), "a transmit queue was not used"
    finally:
        for guest in pair:
            guest.sh("ethtool -L eth0 combined 1")


def test_queues_change_under_traffic(pair):
    vm1, vm2 = pair
    pings = Pings(vm1, ADDRESS["vm2"], 6)
    for n in (2, 1, 2, 1):
        vm2.sh(f"ethtool -L eth0 combined {n}")
        vm1.sh(f"ethtool -L eth0 combined {n}")
    sent, received, _ = pings.result()
    assert received >= sent - 3


# An emulated guest restarts slowly, so not every combination is tried.
@pytest.mark.parametrize("position, way", [(0, "reset"), (1, "reboot")], ids=["qemu listens-reset", "switch listens-reboot"])
def test_guest_restarts(pair, position, way):
    getattr(pair[position], way)()
    configure(pair[position])
    pair[0].wait_ping(ADDRESS["vm2"])
    assert throughput(pair[0], pair[1], ADDRESS["vm2"], 2) > 50


@pytest.mark.parametrize("position", [0, 1], ids=["qemu listens", "switch listens"])
def test_qemu_killed_and_back(pair, switch, position):
    guest, other = pair[position], pair[1 - position]
    guest.kill()
    wait_for(lambda: switch.port(guest.name)["link_state"] == "down", 20, "the port to be down")
    assert other.ping(ADDRESS[guest.name], 2, limit=20)[1] == 0
    guest.start()
    guest.wait_up()
    configure(guest)
    pair[0].wait_ping(ADDRESS["vm2"])


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_switch_restarts_under_traffic(pair, switch, kill):
    """The guests' split rings go on where they were; nothing is done in the guests."""
    vm1, vm2 = pair
    pings = Pings(vm1, ADDRESS["vm2"], 12)
    back = Pings(vm2, ADDRESS["vm1"], 12)
    if not kill:
        switch.check_conservation()
    switch.restart_daemon(kill=kill)
    for stream in (pings, back):
        sent, received, pause = stream.result()
        assert received > sent / 3, f"{received} of {sent} pings came back"
        assert pause < 10
    assert throughput(vm1, vm2, ADDRESS["vm2"], 2) > 50


def test_switch_restarts_while_tcp_flows(pair, switch):
    vm1, vm2 = pair
    vm2.sh("killall -q iperf3; iperf3 -s -1 -D; for i in $(seq 200); do netstat -ltn | grep -q :5201 && exit; sleep 0.05; done")
    transfer = vm1.send(f"iperf3 -c {ADDRESS['vm2']} -n 200M", 120)
    switch.restart_daemon()
    rc, out = transfer.result(130)
    assert rc == 0, out


def test_database_restarts(pair, switch):
    """Losing the database changes nothing for packets; afterwards the configuration converges."""
    vm1, vm2 = pair
    pings = Pings(vm1, ADDRESS["vm2"], 4)
    switch.stop_database()
    assert vm1.ping(ADDRESS["vm2"], 3) == (3, 3)
    switch.start_database()
    sent, received, _ = pings.result()
    assert received >= sent - 1
    switch.weirctl("set", "Port", "vm2", "enabled=false")
    wait_for(lambda: vm1.ping(ADDRESS["vm2"], 1, limit=10)[1] == 0, 20, "the port to be disabled")
    switch.weirctl("set", "Port", "vm2", "enabled=true")
    vm1.wait_ping(ADDRESS["vm2"])
