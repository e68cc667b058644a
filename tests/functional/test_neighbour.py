"""neighbour: routers and their neighbours, ARP and ND answered for those who are known, and addresses that two want to have.

    alice (10.1.0.10, fd01::10) -- blue -- r1 -- red -- bob (10.2.0.10, fd02::10)
                                     |             |
                                     c             d

alice and bob are kernels in namespaces of their own; c and d are raw sockets that see what is flooded.
"""

import json
import re
from pathlib import Path

import pytest
from scapy.all import ARP, Ether, ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6, raw

from net import BROADCAST, SLOW, Namespace, Wire, mac, wait_for
from vguest import Guest

MAC = {"blue": mac(0x1001), "red": mac(0x2001)}


class Host(Namespace):
    """A kernel behind a TAP of the switch."""

    def __init__(self, lab, name, network, number, *settings):
        super().__init__(ipv6=True)
        lab.weirctl("port", "add", name, "--type", "tap", "--network", network, *settings)
        self.name = name
        self.take(name)
        self.run("sysctl", "-q", "-w", f"net.ipv6.conf.{name}.router_solicitations=0")
        self.run("ip", "link", "set", name, "address", mac(number), "up")

    def address(self, *addresses, via=(), dad=False):
        for a in addresses:
            self.run("ip", "address", "add", a, "dev", self.name, *([] if dad or "." in a else ["nodad"]))
        for gateway in via:
            self.run("ip", "route", "add", "default", "via", gateway)

    def ping(self, address, count=1, check=True):
        done = self.run("ping", "-n", "-c", count, "-i", "0.2", "-W", 5 * SLOW, address, check=False)
        assert not check or not done.returncode, done.stdout + done.stderr
        return done.stdout

    def neighbours(self):
        return {n["dst"]: n for n in json.loads(self.run("ip", "-j", "neighbour", "show", "dev", self.name) or "[]")}


def router(lab, name, ports):
    """ports: {network: addresses}"""
    uuid = lab.weirctl("create", "Router", f"name={name}").strip()
    networks = {row["name"]: row["_uuid"] for row in lab.weirctl("list", "Network", json=True)}
    for network, addresses in ports.items():
        lab.weirctl("create", "Router_Port", f"name={name}-{network}", f"router={uuid}", f"network={networks[network]}", f'mac="{MAC[network]}"',
                    "addresses=[" + ",".join(f'"{a}"' for a in addresses) + "]")


def known(lab, name="neighbour/list"):
    return {row["ip"]: row for row in lab.ask(name)}


@pytest.fixture
def lab(lab):
    hosts = []

    def host(*args):
        hosts.append(Host(lab, *args))
        return hosts[-1]
    lab.kernel = host
    yield lab
    lab.check_conservation()
    lab.weirctl("--", "--all", "destroy", "Router_Port", check=False)
    lab.weirctl("--", "--all", "destroy", "Router", check=False)
    lab.clear()
    for h in hosts:
        h.close()


@pytest.fixture
def routed(lab):
    for network in ("blue", "red"):
        lab.network(network)
    lab.tap("c", "--network", "blue")
    lab.tap("d", "--network", "red")
    lab.alice = lab.kernel("alice", "blue", 1)
    lab.bob = lab.kernel("bob", "red", 2)
    router(lab, "r1", {"blue": ["10.1.0.1/24", "fd01::1/64"], "red": ["10.2.0.1/24", "fd02::1/64"]})
    lab.alice.address("10.1.0.10/24", "fd01::10/64", via=["10.1.0.1", "fd01::1"])
    lab.bob.address("10.2.0.10/24", "fd02::10/64", via=["10.2.0.1", "fd02::1"])
    return lab


@pytest.mark.parametrize("address", ["10.2.0.10", "fd02::10"])
def test_resolves(routed, address):
    """The first packet waits for its neighbour, and none is lost."""
    out = routed.alice.ping(address, 3)
    assert "3 received" in out, out
    n = known(routed)[address]
    assert n["router_port"] == "r1-red" and n["mac"] == mac(2) and n["state"] in ("reachable", "stale", "delay", "probe")
    assert not routed.drops("alice")


def test_nobody_there(routed):
    out = routed.alice.ping("10.2.0.99", check=False)
    assert re.search(r"From 10.1.0.1 .*Destination Host Unreachable", out), out
    assert routed.drops("alice")["router.NO_NEIGHBOUR"] >= 1
    out = routed.alice.ping("fd02::99", check=False)
    assert re.search(r"From fd01::1 .*Address unreachable", out), out


def test_moves_to_another_mac(routed):
    """What a gratuitous ARP says of a neighbour that is in use holds at once."""
    routed.alice.ping("10.2.0.10")
    routed.bob.run("ip", "link", "set", "bob", "address", mac(7))
    gratuitous = Ether(src=mac(7), dst=BROADCAST) / ARP(op=1, hwsrc=mac(7), psrc="10.2.0.10", hwdst="00:00:00:00:00:00", pdst="10.2.0.10")
    with routed.bob, Wire("bob") as wire:
        wire.send(raw(gratuitous))
    wait_for(lambda: known(routed)["10.2.0.10"]["mac"] == mac(7), 5 * SLOW, lambda: f"the new MAC: {known(routed)}")
    out = routed.alice.ping("10.2.0.10", 3)
    assert "3 received" in out, out


def test_verbs(routed):
    routed.alice.ping("10.2.0.10")
    assert "10.2.0.10" in routed.weirctl("neighbour", "list", "r1-red")
    assert {row["ip"] for row in routed.weirctl("neighbour", "own", json=True)} >= {"10.1.0.1", "fd01::1", "10.2.0.1", "fd02::1"}
    wait_for(lambda: "10.2.0.10" in known(routed, "neighbour/stations"), 5 * SLOW, "what was heard of bob")
    row = {r["ip"]: r for r in routed.weirctl("neighbour", "stations", "red", json=True)}["10.2.0.10"]
    assert (row["port"], row["mac"], row["type"], row["router"]) == ("bob", mac(2), "learned", False)
    assert "there is no router port nobody in use" in routed.weirctl("neighbour", "list", "nobody", check=False).stderr
    assert "flushed" in routed.weirctl("neighbour", "flush", "r1-red")
    assert "10.2.0.10" not in known(routed)
    metrics = routed.unixctl("metrics")
    assert re.search(r'weir_neighbour_entries(\{[^}]*\})? \d+', metrics) and "weir_station_entries" in metrics
    routed.alice.ping("10.2.0.10")


def asked(wire):
    """ARP requests and neighbour solicitations that came out there."""
    return [f for f in wire.received() if f[12:14] == b"\x08\x06" and f[21] == 1 or f[12:14] == b"\x86\xdd" and f[20] == 58 and f[54] == 135]


@pytest.mark.parametrize("how", ["configured", "learned"])
def test_proxy(lab, how):
    """Stations that are known are answered for, and nothing is flooded."""
    lab.network("blue")
    lab.tap("c", "--network", "blue")
    given = [f"addresses={mac(2)} 10.1.0.11 fd01::11"] if how == "configured" else []
    alice, bob = lab.kernel("alice", "blue", 1), lab.kernel("bob", "blue", 2, *given)
    alice.address("10.1.0.10/24", "fd01::10/64")
    bob.address("10.1.0.11/24", "fd01::11/64")
    alice.ping("10.1.0.11")
    alice.ping("fd01::11")
    stations = {"10.1.0.11", "fd01::11"}
    wait_for(lambda: stations <= known(lab, "neighbour/stations").keys(), 5 * SLOW, lambda: f"stations: {known(lab, 'neighbour/stations')}")
    lab.weirctl("set", "Network", "blue", "arp_proxy=true")
    for address in sorted(stations):
        alice.run("ip", "neighbour", "flush", "all")
        lab.wire["c"].clear()
        before = lab.stats("alice")
        alice.ping(address)
        assert alice.neighbours()[address]["lladdr"] == mac(2)
        assert not [f for f in asked(lab.wire["c"]) if f[6:12] == bytes.fromhex(mac(1).replace(":", ""))]
        assert lab.stats("alice")["consumed"] > before["consumed"]
    lab.wire["c"].clear()
    alice.ping("10.1.0.77", check=False)  # not known: flooded as ever
    assert asked(lab.wire["c"])


def test_address_that_the_router_has(routed):
    """A kernel that wants the router's address is told that it is taken."""
    routed.alice.address("fd01::1/64", dad=True)

    def failed():
        return "dadfailed" in routed.alice.run("ip", "-6", "address", "show", "dev", "alice", "to", "fd01::1")
    wait_for(failed, 10 * SLOW, "duplicate address detection to fail")


@pytest.mark.parametrize("address", ["10.1.0.1/24", "fd01::1/64"])
def test_address_that_another_has(lab, address):
    """A router port whose address is taken already doesn't use it, and says so."""
    lab.network("blue")
    ip = address.split("/")[0]
    alice, bob = lab.kernel("alice", "blue", 1), lab.kernel("bob", "blue", 2)
    bob.address(address)
    alice.address("10.1.0.10/24", "fd01::10/64")
    router(lab, "r1", {"blue": [address]})
    wait_for(lambda: known(lab, "neighbour/own").get(ip, {}).get("state") == "duplicate", 10 * SLOW, lambda: f"a duplicate: {known(lab, 'neighbour/own')}")
    row = known(lab, "neighbour/own")[ip]
    assert row["claimed_by"] == mac(2) and row["claimed_on"] == "bob" and row["conflicts"] >= 1

    def status():
        return [value for key, value in lab.row("Router_Port", "r1-blue")["status"].items() if key.startswith("duplicate:")]
    wait_for(lambda: status() == [f"{ip} ({mac(2)} on port bob)"], 10 * SLOW, lambda: f"the port's status: {status()}")
    alice.run("ip", "neighbour", "flush", "all")
    alice.ping(ip)
    assert alice.neighbours()[ip]["lladdr"] == mac(2)
    wait_for(lambda: f"WARN neighbour: {ip} of router port r1-blue is claimed by {mac(2)} on port bob" in
             Path(lab.path("weir-vswitchd.log")).read_text(), 5 * SLOW, "the log")


def test_kept_over_a_restart(lab):
    """Who talks with whom is kept, and rubbish in the file does no harm."""
    lab.network("blue")
    alice, bob = lab.kernel("alice", "blue", 1), lab.kernel("bob", "blue", 2)
    alice.address("10.1.0.10/24")
    bob.address("10.1.0.11/24")
    alice.ping("10.1.0.11")
    path = Path(lab.path("stations"))
    wait_for(lambda: path.exists() and "10.1.0.11" in path.read_text(), 10 * SLOW, "the file")
    lines = path.read_text().splitlines()
    assert lines[0] == "weir stations 1"
    assert f"blue\talice\t10.1.0.10\t{mac(1)}\tbob\t10.1.0.11\t{mac(2)}" in lines
    lab.kill_daemon()
    path.write_bytes(b"\n".join([lines[0].encode(), b"\xff\0\t\t", b"blue\talice\tx\ty\tz\t1\t2", b"no\tsuch\t1.1.1.1\t" + mac(9).encode() + b"\tport\t1.1.1.2\t-",
                                 b"blue\talice\t10.1.0.77\t" + b"9" * 5000, *(line.encode() for line in lines[1:])]) + b"\n")
    lab.start_daemon()
    wait_for(lambda: "10.1.0.11" in known(lab, "neighbour/stations"), 10 * SLOW, "what was kept")
    stations = known(lab, "neighbour/stations")
    assert stations["10.1.0.10"]["port"] == "alice" and stations["10.1.0.11"]["mac"] == mac(2) and "10.1.0.77" not in stations
    lab.kill_daemon()
    path.write_bytes(bytes(range(256)) * 100)
    lab.start_daemon()
    lab.ask("neighbour/stations")


def test_guests_are_told_after_a_restart(lab):
    """Guests whose switch was killed are told where those are whom they talk with, before they ask, and again: the first time may be too early."""
    lab.network("blue")
    paths = [lab.path(f"{name}.sock") for name in ("a", "b")]
    for name, path in zip("ab", paths):
        lab.weirctl("port", "add", name, "--network", "blue", "--path", path)
    ask = [Ether(src=mac(1), dst=BROADCAST) / ARP(op=1, hwsrc=mac(1), psrc="10.1.0.1", pdst="10.1.0.2"),
           Ether(src=mac(1), dst="33:33:ff:00:00:02") / IPv6(src="fd01::1", dst="ff02::1:ff00:2", hlim=255) /
           ICMPv6ND_NS(tgt="fd01::2") / ICMPv6NDOptSrcLLAddr(lladdr=mac(1))]
    answer = [Ether(src=mac(2), dst=mac(1)) / ARP(op=2, hwsrc=mac(2), psrc="10.1.0.2", hwdst=mac(1), pdst="10.1.0.1"),
              Ether(src=mac(2), dst=mac(1)) / IPv6(src="fd01::2", dst="fd01::1", hlim=255) /
              ICMPv6ND_NA(tgt="fd01::2", R=0, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=mac(2))]
    with Guest(f"path={paths[0]},server=1") as a, Guest(f"path={paths[1]},server=1") as b:
        for guest, name in ((a, "a"), (b, "b")):
            guest.ready()
            wait_for(lambda: lab.port(name)["problem"] == "", 10 * SLOW, "the driver")
        for question, reply in zip(ask, answer):
            a.tx(0, raw(question))
            b.rx(0, 1)
            b.tx(0, raw(reply))
            a.rx(0, 1)
        path = Path(lab.path("stations"))
        head = b"weir stations 1\n"  # and both ways of two pairs
        wait_for(lambda: path.exists() and path.read_bytes().startswith(head) and path.read_bytes().count(b"\n") == 5, 10 * SLOW, "the file")
        lab.kill_daemon()
        lab.start_daemon()
        for guest, me, other in ((a, 1, 2), (b, 2, 1)):
            told = {"arp": 0, "nd": 0}

            def enough():
                for *_, data in guest.rx(0):
                    p = Ether(data)
                    if ARP in p:
                        assert (p[ARP].op, p[ARP].hwsrc, p[ARP].psrc, p[ARP].pdst) == (2, mac(other), f"10.1.0.{other}", f"10.1.0.{me}")
                        told["arp"] += 1
                    elif ICMPv6ND_NA in p:
                        na = p[ICMPv6ND_NA]
                        assert (na.tgt, na.S, na.O, na.lladdr) == (f"fd01::{other}", 0, 1, mac(other))
                        told["nd"] += 1
                return min(told.values()) >= 4
            wait_for(enough, 10 * SLOW, lambda: f"guest {me} to be told: {told}")
