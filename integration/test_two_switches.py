"""Two switches, two guests each, one database, VXLAN between them; a second network and a router that both switches have.

    vm1 10.1.0.1 -- blue  \\                                                  /  blue -- vm3 10.1.0.3
                           [ h1 ] 10.9.0.1 ---- veth, network under ---- 10.9.0.2 [ h2 ]
    vm2 10.2.0.2 -- green /      fd09::1                            fd09::2         \\  green -- vm4 10.2.0.4

    blue and green: VNI 100 and 200, IPv6 fd01::N and fd02::N. Router r on both switches: 10.1.0.254 in blue, 10.2.0.254 in green, fd01::fe, fd02::fe.

Guests' MTU is 1,500 unless a test says otherwise, which is more than fits: 1,450 with the underlay's 1,500.
"""

import re
import subprocess
import time

import pytest

from guest import Guest, Nic, boot, iperf
from lab import Switch
from wait import wait_for

MTU = 1450
GUESTS = {"vm1": ("h1", "blue", 1), "vm2": ("h1", "green", 2), "vm3": ("h2", "blue", 3), "vm4": ("h2", "green", 4)}


def address(name, v):
    _, network, n = GUESTS[name]
    side = 1 if network == "blue" else 2
    return f"10.{side}.0.{n}" if v == 4 else f"fd0{side}::{n}"


class Second(Switch):
    """A switch with the database of another."""

    def __init__(self, first, **options):
        super().__init__(**options)
        self.first = first

    @property
    def db(self):
        return self.first.db

    def start(self):
        self.start_daemon()
        return self


def ip(*words):
    subprocess.run(["ip", *map(str, words)], check=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def veth():
    ends = ("weir-two-1", "weir-two-2")
    subprocess.run(["ip", "link", "del", ends[0]], stderr=subprocess.DEVNULL)
    ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
    for end in ends:
        with open(f"/proc/sys/net/ipv6/conf/{end}/disable_ipv6", "w") as f:
            f.write("1")
        ip("link", "set", "dev", end, "up")
    yield ends
    ip("link", "del", ends[0])


@pytest.fixture(scope="module")
def switches(veth):
    with Switch(host="h1") as h1, Second(h1, host="h2") as h2:
        h1.weirctl("network", "add", "under", "--", "network", "add", "blue", "vni=100", "--", "network", "add", "green", "vni=200")
        h1.weirctl("router", "add", "underlay", "--", "router", "add", "r")
        for n, (host, end) in enumerate(zip(("h1", "h2"), veth), 1):
            h1.weirctl("port", "add", f"up{n}", "--host", host, "type=kernel", "network=under", f"options:iface={end}")
            h1.weirctl("router-port", "add", f"vtep{n}", "--host", host, "--router", "underlay", "--network", "under", f"10.9.0.{n}/24", f"fd09::{n}/64")
        h1.weirctl("router-port", "add", "gw1", "--router", "r", "--network", "blue", "10.1.0.254/24", "fd01::fe/64")
        h1.weirctl("router-port", "add", "gw2", "--router", "r", "--network", "green", "10.2.0.254/24", "fd02::fe/64")
        for n in (1, 2):
            h1.weirctl("host", "set", f"h{n}", "--tunnel-ips", f"10.9.0.{n}")
        yield {"h1": h1, "h2": h2}


@pytest.fixture(scope="module")
def guests(switches):
    found = {name: Guest(name, switches[host].rundir, [Nic(switches[host].path(name + ".sock"))]) for name, (host, _, _) in GUESTS.items()}
    h1 = switches["h1"]
    for name, (host, network, _) in GUESTS.items():
        nic = found[name].nics[0]
        h1.weirctl("port", "add", name, "--host", host, f"network={network}", f"options:path={nic.path}",
                   "--address", f"{nic.mac} {address(name, 4)} {address(name, 6)}")
    try:
        boot(list(found.values()))
        for name, guest in found.items():
            gateway = ["10.1.0.254", "fd01::fe"] if GUESTS[name][1] == "blue" else ["10.2.0.254", "fd02::fe"]
            guest.sh(f"""ip link set eth0 mtu 1500 up
                ip address replace {address(name, 4)}/24 dev eth0; ip -6 address replace {address(name, 6)}/64 dev eth0 nodad
                ip route replace default via {gateway[0]}; ip -6 route replace default via {gateway[1]}""")
        yield found
    finally:
        for guest in found.values():
            guest.stop()


PAIRS = [("vm1", "vm3", 64), ("vm1", "vm4", 63), ("vm1", "vm2", 63), ("vm4", "vm2", 64)]  # with the TTL that arrives


@pytest.mark.parametrize("v", [4, 6])
def test_ping(guests, v):
    for one, other, ttl in PAIRS:
        guests[one].wait_ping(address(other, v))
        text = guests[one].sh(f"ping -n -c 3 -i 0.1 -W 5 {address(other, v)}")
        assert " 0% packet loss" in text and set(re.findall(r"ttl=(\d+)", text)) == {str(ttl)}, text


def test_nothing_unknown_is_flooded(switches):
    """Each switch has published its stations: no switch needs to flood for them."""
    for host, name in (("h1", "vm3"), ("h2", "vm1")):
        text = switches[host].weirctl("fdb", "list", "blue")
        assert re.search(rf"52:54:00:00:00:0{name[-1]}", text), text


@pytest.mark.parametrize("v", [4, 6])
def test_tcp(guests, v):
    """With the guests' segmentation offload: frames of 64 KB are cut for the tunnel, with an MSS that fits into it."""
    for one, other, _ in PAIRS[:2]:
        assert iperf(guests[one], guests[other], address(other, v), 1) > 20
    assert iperf(guests["vm1"], guests["vm4"], address("vm4", v), 1, "-R") > 20


@pytest.mark.parametrize("v", [4, 6])
def test_path_mtu(guests, v):
    """A guest that believes in 1,500 bytes is told what fits, in its network and by the router."""
    for other in ("vm3", "vm4"):
        guests["vm1"].sh("ip route flush cache; ip -6 route flush cache")
        _, text = guests["vm1"].run(f"ping -n -c 3 -i 0.1 -W 2 -M do -s 1440 {address(other, v)}")
        assert re.search(rf"mtu ?= ?{MTU}", text), text
        guests["vm1"].sh(f"ping -n -c 2 -i 0.1 -W 5 -M do -s {MTU - (28 if v == 4 else 48)} {address(other, v)}")


def test_explained_and_traced(guests, switches):
    """What is said of a packet before it is sent, and what the traces on both switches say then."""
    h1, h2 = switches["h1"], switches["h2"]
    said = h1.unixctl("explain", "--port", "vm1", f"icmp,nw_dst={address('vm4', 4)}")
    assert "router" in said and "out by" in said and "drop" not in said.lower(), said
    numbers = [s.unixctl("trace/start", "--port", port, "--count", "1", "--filter", filter).split("\n")[0]
               for s, port, filter in ((h1, "vm1", "icmp"), (h2, "up2", "udp port 4789"))]
    guests["vm1"].sh(f"ping -n -c 2 -i 0.2 -W 5 {address('vm4', 4)}")
    texts = []
    for s, number in zip((h1, h2), numbers):
        text = []
        wait_for(lambda: text.append(s.unixctl("trace/read", number)) or text[-1].endswith("end\n"), 10, "a trace to end")
        s.unixctl("trace/stop", number)
        texts.append("".join(text))
    assert "router" in texts[0] and "vxlan" in texts[0].lower(), texts[0]
    assert "vm4" in texts[1], texts[1]


def test_a_guest_moves(guests, switches):
    """Its port appears at the other switch: both follow what the database says."""
    h1 = switches["h1"]
    mac = guests["vm2"].nics[0].mac
    wait_for(lambda: mac in switches["h2"].weirctl("fdb", "list", "green"), 10, "h2 to know vm2")
    h1.weirctl("set", "Port", "vm2", "enabled=false")
    assert guests["vm4"].ping(address("vm2", 4), 2, limit=10)[1] == 0
    h1.weirctl("set", "Port", "vm2", "enabled=true")
    guests["vm4"].wait_ping(address("vm2", 4))


def test_a_switch_restarts(guests, switches):
    """The tunnel is there again when the switch is."""
    h2 = switches["h2"]
    h2.restart_daemon()
    started = time.monotonic()
    guests["vm1"].wait_ping(address("vm3", 4), 20)
    guests["vm1"].wait_ping(address("vm4", 6), 20)
    assert time.monotonic() - started < 20
    assert guests["vm4"].ping(address("vm1", 4), 3)[1] == 3
