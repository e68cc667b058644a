"""Kinds of virtio-net devices: one guest with a NIC of each kind, another with a plain one, all on one network."""

import os
import re
import time

import pytest

from guest import Guest, Nic, boot, throughput

KINDS = {
    "plain": Nic(),
    "legacy": Nic(legacy=True),
    "packed": Nic(packed=True),
    "no-offload": Nic(csum=False, tso=False),
    "no-tso": Nic(tso=False),
    "no-mergeable": Nic(mrg_rxbuf=False),
    "mtu": Nic(),
}
OPTIONS = {"packed": ["options:packed=true"], "mtu": ["--mtu", "1400"]}


@pytest.fixture(scope="module")
def guests(switch):
    switch.weirctl("network", "add", "blue")
    nics = []
    for kind, nic in KINDS.items():
        nic.path = switch.path(kind + ".sock")
        switch.weirctl("port", "add", kind, "--network", "blue", "--path", nic.path, *OPTIONS.get(kind, []))
        if kind == "mtu":
            nic.host_mtu = int(switch.weirctl("port", "mtu", kind))
        nics.append(nic)
    peer = Nic(switch.path("peer.sock"))
    switch.weirctl("port", "add", "peer", "--network", "blue", "--path", peer.path)
    all_kinds, plain = Guest("vm1", switch.rundir, nics), Guest("vm2", switch.rundir, [peer])
    try:
        boot([all_kinds, plain])
        # Each NIC has a subnet and answers ARP requests for its own address only.
        all_kinds.sh("sysctl -q -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2")
        plain.configure("10.0.0.2/24")
        for i, nic in enumerate(nics):
            all_kinds.configure(f"10.1.{i}.1/24", nic)
            plain.sh(f"ip address add 10.1.{i}.2/24 dev eth0")
        yield all_kinds, plain
    finally:
        all_kinds.stop()
        plain.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_ping_and_tcp(guests, switch, kind):
    all_kinds, plain = guests
    i = list(KINDS).index(kind)
    all_kinds.wait_ping(f"10.1.{i}.2")
    assert all_kinds.ping(f"10.1.{i}.2", 5) == (5, 5)
    assert throughput(all_kinds, plain, f"10.1.{i}.2", 2) > 50
    assert throughput(all_kinds, plain, f"10.1.{i}.2", 2, options="-R") > 50
    assert switch.port(kind)["link_state"] == "up"


def features(guest, kind):
    """Negotiated feature bits, as the guest's kernel shows them: the first character is bit 0."""
    name = guest.interface(KINDS[kind])
    return guest.sh(f"cat /sys/class/net/{name}/device/features")


def test_devices_are_what_they_should_be(guests):
    """Else the test above proves less than it says."""
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_F_VERSION_1, VIRTIO_F_RING_PACKED = 0, 11, 15, 32, 34
    guest = guests[0]
    plain = features(guest, "plain")
    assert plain[VIRTIO_F_VERSION_1] == "1" and plain[VIRTIO_F_RING_PACKED] == "0" and plain[VIRTIO_NET_F_MRG_RXBUF] == "1"
    assert plain[VIRTIO_NET_F_CSUM] == "1" and plain[VIRTIO_NET_F_HOST_TSO4] == "1"
    assert features(guest, "legacy")[VIRTIO_F_VERSION_1] == "0"
    assert features(guest, "packed")[VIRTIO_F_RING_PACKED] == "1"
    assert features(guest, "no-offload")[VIRTIO_NET_F_CSUM] == "0"
    assert features(guest, "no-tso")[VIRTIO_NET_F_HOST_TSO4] == "0"
    assert features(guest, "no-mergeable")[VIRTIO_NET_F_MRG_RXBUF] == "0"


def test_guest_has_the_mtu(guests):
    name = guests[0].interface(KINDS["mtu"])
    assert guests[0].sh(f"cat /sys/class/net/{name}/mtu") == "1400"


def test_hot_plug(guests, switch):
    guest, plain = guests
    nic = Nic(switch.path("hot.sock"), mac="52:54:00:00:77:01")
    switch.weirctl("port", "add", "hot", "--network", "blue", "--path", nic.path)
    guest.plug(nic)
    guest.configure("10.2.0.1/24", nic)
    plain.sh("ip address add 10.2.0.2/24 dev eth0")
    guest.wait_ping("10.2.0.2")
    guest.unplug(nic)
    switch.weirctl("port", "del", "hot")


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def own_memory(pid):
    """PSS in bytes without the guests' memory, which QEMU makes as memfds."""
    total = 0
    with open(f"/proc/{pid}/smaps") as f:
        for line in f:
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                mine = "memory-backend-memfd" not in line
            elif mine and line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def test_idle_switch_uses_little(guests, switch):
    """With more than four connected ports: under 3 % of a core, and under 200 MB."""
    seconds, pid = 10, switch.daemon.pid
    before = cpu_seconds(pid)
    time.sleep(seconds)  # the time over which it is measured
    used = (cpu_seconds(pid) - before) / seconds
    memory = own_memory(pid) / 1e6
    print(f"idle: {used:.2%} of a core, {memory:.0f} MB")
    assert used < 0.03
    assert memory < 200
