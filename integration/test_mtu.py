"""The MTU from an underlay's interface to the inside of a guest: virtio, answers, and what happens when it changes.

    eth0 10.1.0.1  fd01::1, told what the switch says \\
                                                        blue, VNI 100 [ Weir ] 10.9.0.1 --- veth, MTU 1,500 --- 10.9.0.2 kernel, vx (VNI 100)
    eth1 10.2.0.1  fd02::1, told 1,500                /                                                             10.1.0.2, 10.2.0.2 ...

Nobody in the guest sets an MTU, and there are neither router advertisements nor DHCP.
"""

import json
import re
import subprocess

import pytest

from guest import Guest, Nic, boot
from lab import Switch
from wait import wait_for

NAME = "weir-mtu"
ENDS = (NAME + "-1", NAME + "-2")
TCP_ENOUGH = 20  # Mbit/s


def ip(*words):
    return subprocess.run(["ip", *map(str, words)], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True).stdout


def there(*words):
    return subprocess.run(["ip", "netns", "exec", NAME, *map(str, words)], check=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def peer():
    for words in (("link", "del", ENDS[0]), ("netns", "del", NAME)):
        subprocess.run(["ip", *words], stderr=subprocess.DEVNULL)
    ip("netns", "add", NAME)
    ip("link", "add", ENDS[0], "type", "veth", "peer", "name", ENDS[1], "netns", NAME)
    with open(f"/proc/sys/net/ipv6/conf/{ENDS[0]}/disable_ipv6", "w") as f:
        f.write("1")
    ip("link", "set", "dev", ENDS[0], "up")
    there("ethtool", "-K", ENDS[1], "tx", "off")
    there("ip", "link", "set", "dev", ENDS[1], "up")
    there("ip", "address", "add", "10.9.0.2/24", "dev", ENDS[1])
    there("ip", "link", "add", "vx", "type", "vxlan", "id", 100, "local", "10.9.0.2", "remote", "10.9.0.1", "dstport", 4789, "dev", ENDS[1])
    there("ip", "link", "set", "dev", "vx", "up")
    for n in (1, 2):
        there("ip", "address", "add", f"10.{n}.0.2/24", "dev", "vx")
        there("ip", "address", "add", f"fd0{n}::2/64", "dev", "vx", "nodad")
    servers = [subprocess.Popen(["ip", "netns", "exec", NAME, "iperf3", "-s", "-p", str(port)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
               for port in (5201, 5202)]
    yield
    for server in servers:
        server.kill()
        server.wait()
    ip("link", "del", ENDS[0])
    ip("netns", "del", NAME)


@pytest.fixture(scope="module")
def switch(peer):
    with Switch(host="h1") as s:
        s.weirctl("network", "add", "under", "--", "network", "add", "blue", "vni=100", "flood_to=10.9.0.2")
        s.weirctl("router", "add", "underlay")
        s.weirctl("port", "add", "up", "type=kernel", "network=under", f"options:iface={ENDS[0]}")
        s.weirctl("router-port", "add", "vtep", "--router", "underlay", "--network", "under", "10.9.0.1/24")
        s.weirctl("host", "set", "h1", "--tunnel-ips", "10.9.0.1")
        yield s


@pytest.fixture(scope="module")
def vm(switch):
    nics = [Nic(switch.path("vm1.sock")), Nic(switch.path("vm2.sock"), host_mtu=1500)]
    for n, nic in enumerate(nics, 1):
        switch.weirctl("port", "add", f"vm{n}", "network=blue", f"options:path={nic.path}")
    nics[0].host_mtu = int(switch.weirctl("port", "mtu", "vm1"))
    guest = Guest("vm", switch.rundir, nics)
    try:
        boot([guest])
        # Each NIC answers for its own address only.
        guest.sh("sysctl -q -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2")
        for n in (1, 2):
            guest.sh(f"""ip address add 10.{n}.0.1/24 dev eth{n - 1}; ip -6 address add fd0{n}::1/64 dev eth{n - 1} nodad
                ip link set eth{n - 1} up""")
        yield guest
    finally:
        guest.stop()


def port(switch, name):
    return next(p for p in switch.weirctl("port", "list", json=True) if p["name"] == name)


def ping(guest, address, size):
    """A ping with DF whose packet has so many bytes: its text."""
    headers = 48 if ":" in address else 28
    return guest.run(f"ping -n -c 2 -i 0.2 -W 2 -M do -s {size - headers} {address}")[1]


def tcp(guest, address, port):
    out = json.loads(guest.sh(f"iperf3 -c {address} -p {port} -t 1 -J", 40))
    assert out["end"]["sum_received"]["bits_per_second"] > TCP_ENOUGH * 1e6, out["end"]


def test_the_guest_has_what_the_switch_says(switch, vm):
    assert vm.nics[0].host_mtu == 1450
    assert vm.sh("cat /sys/class/net/eth0/mtu /sys/class/net/eth1/mtu").split() == ["1450", "1500"]
    assert (port(switch, "vm1")["mtu"], port(switch, "vm1")["guest_mtu"], port(switch, "vm1")["problem"]) == (1450, 1450, None)
    assert vm.run("ip link set eth0 mtu 1500")[0]  # and nobody in it can change its mind


def test_told_too_much(switch, vm):
    """The port says both figures, and what to set."""
    row = port(switch, "vm2")
    assert row["guest_mtu"] == 1500 and row["link_state"] == "up"
    assert all(words in row["problem"] for words in ("told it 1500 bytes", "takes 1450", "host_mtu=1450", "<mtu size='1450'/>")), row


@pytest.mark.parametrize("to", ["10.1.0.2", "fd01::2"])
def test_full_size(vm, to):
    vm.wait_ping(to)
    assert " 0% packet loss" in ping(vm, to, 1450)
    tcp(vm, to, 5201)


@pytest.mark.parametrize("to", ["10.2.0.2", "fd02::2"])
def test_above(vm, to):
    """A guest that believes in 1,500 bytes is told of each packet that doesn't fit, and its TCP passes."""
    vm.wait_ping(to)
    tcp(vm, to, 5202)
    vm.sh("ip route flush cache; ip -6 route flush cache")
    assert re.search(r"mtu ?= ?1450", ping(vm, to, 1451))
    assert " 0% packet loss" in ping(vm, to, 1450)


def test_underlay_changes(switch, vm):
    """What guests were told stays; the switch follows at once: what it says to set, the problem, the answers, the clamp."""
    def set_mtu(mtu):
        ip("link", "set", "dev", ENDS[0], "mtu", mtu)
        there("ip", "link", "set", "dev", ENDS[1], "mtu", mtu)
        there("ip", "link", "set", "dev", "vx", "mtu", mtu - 50)
    set_mtu(1400)
    wait_for(lambda: switch.weirctl("port", "mtu", "vm1") == "1350\n", 10, "the port's MTU to follow")
    problem = wait_for(lambda: port(switch, "vm1")["problem"], 10, "a problem")
    assert "told it 1450 bytes" in problem and "takes 1350" in problem
    assert vm.sh("cat /sys/class/net/eth0/mtu") == "1450"
    for to in ("10.1.0.2", "fd01::2"):
        tcp(vm, to, 5201)
        vm.sh("ip route flush cache; ip -6 route flush cache")
        assert re.search(r"mtu ?= ?1350", ping(vm, to, 1351))
        assert " 0% packet loss" in ping(vm, to, 1350)
    set_mtu(1500)
    wait_for(lambda: not port(switch, "vm1")["problem"], 10, "no problem")
    vm.sh("ip route flush cache; ip -6 route flush cache")
    for to in ("10.1.0.2", "fd01::2"):
        assert " 0% packet loss" in ping(vm, to, 1450)
