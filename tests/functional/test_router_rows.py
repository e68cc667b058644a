"""Rows of routers to a running switch: status columns, errors, any order, and bad rows that hurt nothing else.

    t1 --- blue (10.0.0.0/24) --- gw1 r1 gw2 --- red (10.1.0.0/24) --- t2
"""

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether

from net import SwitchError, mac, wait_for


@pytest.fixture
def r1(clean):
    clean.network("blue")
    clean.network("red", "--mtu", "1400")
    clean.weirctl("router", "add", "r1",
                  "--", "router-port", "add", "gw1", "--router", "r1", "--network", "blue", "10.0.0.1/24", "fd00::1/64",
                  "--", "router-port", "add", "gw2", "--router", "r1", "--network", "red", "10.1.0.1/24", "mac=02:00:00:00:00:02")
    clean.tap("t1", "--network", "blue")
    clean.tap("t2", "--network", "red")
    return clean


def row(lab, table, name):
    return next(r for r in lab.weirctl("list", table, json=True) if r["name"] == name)


def answers(lab, wire, ip, src=1):
    """Who says that it has the address, or None."""
    wire.clear()
    request = bytes(Ether(src=mac(src), dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=mac(src), psrc="10.0.0.9" if ip.startswith("10.0") else "10.1.0.9", pdst=ip))
    found = []

    def asked():
        wire.send(request)
        for f in wire.received():
            p = Ether(f)
            if ARP in p and p[ARP].op == 2 and p[ARP].psrc == ip:
                found.append(p[ARP].hwsrc)
        return found

    wait_for(asked, 10, f"an answer for {ip}", 0.05)
    return found[0]


def test_status(r1):
    """What is in use: MAC, addresses, MTU, numbers."""
    gw1, gw2 = row(r1, "Router_Port", "gw1")["status"], row(r1, "Router_Port", "gw2")["status"]
    (number,) = [k for k in gw1 if k.startswith("port_number:")]
    assert gw1["mac"] == answers(r1, r1.wire["t1"], "10.0.0.1")
    assert gw1["addresses"].startswith("10.0.0.1/24 fd00::1/64 fe80::") and gw1["mtu"] == "1500"
    assert gw2 == {"mac": "02:00:00:00:00:02", "addresses": "10.1.0.1/24 fe80::ff:fe00:2/64", "mtu": "1400", number: gw2[number]}
    assert gw1[number] != gw2[number]
    assert [r["status"]["mtu"] for r in sorted(r1.weirctl("list", "Network", json=True), key=lambda r: r["name"])] == ["1500", "1400"]
    (n,) = row(r1, "Router", "r1")["status"].values()
    assert int(n) > 0
    r1.weirctl("network", "set", "red", "mtu=1300")
    assert row(r1, "Router_Port", "gw2")["status"]["mtu"] == "1300"
    # It is part of the ledger as any port is, and no row of table Port.
    assert r1.stats("gw1") and "gw1" not in [p["name"] for p in r1.weirctl("list", "Port", json=True)]


def test_bad_rows_hurt_nothing_else(r1):
    """Each says what is wrong; packets between two networks go on."""
    r1.weirctl("port", "set", "t1", f"addresses={mac(1)} 10.0.0.9")
    gateway = answers(r1, r1.wire["t1"], "10.0.0.1")
    assert answers(r1, r1.wire["t2"], "10.1.0.1", 2) == "02:00:00:00:00:02"  # and t2 is known now

    def passes():
        r1.wire["t2"].clear()
        r1.wire["t1"].send(bytes(Ether(src=mac(1), dst=gateway) / IP(src="10.0.0.9", dst="10.1.0.9", ttl=9) / ICMP() / b"through"))
        wait_for(lambda: any(b"through" in f for f in r1.wire["t2"].received()), 10, "the packet behind the router", 0.02)

    passes()
    bad = {
        ("router-port", "add", "bad1", "--router", "r1", "--network", "blue", "10.0.0.0/24"): "addresses: 10.0.0.0/24 is the address of the network itself",
        ("router-port", "add", "bad2", "--router", "r1", "--network", "blue", "10.0.0.1/24"): "addresses: ",
        ("router-port", "add", "bad3", "--router", "r1", "--network", "red", "10.3.0.1/24", "mac=02:00:00:00:00:02"): "mac: ",
        ("router-port", "add", "t1", "--router", "r1", "--network", "blue", "10.4.0.1/24"): "name: a port of this switch has the name t1 too",
        ("route", "add", "r1", "10.9.0.1/16", "via", "10.1.0.9"): "prefix: 10.9.0.1/16 has bits behind its 16",
        ("route", "add", "r1", "10.9.0.0/16", "dev", "nowhere"): 'nexthops: router r1 has no port "nowhere"',
        ("route", "add", "r1", "10.8.0.0/16", "via", "fd00::9"): "",
        ("route", "add", "r1", "10.7.0.0/16", "via", "192.0.2.1"): "",
        ("route-policy", "add", "r1", "--src", "x", "--table", "1"): 'src: "x" is no prefix',
        ("route-policy", "add", "r1", "--mark", "4294967296", "--table", "1", "--priority", 1): "mark: a mark is a number of 32 bits",
    }
    for words, sentence in bad.items():
        with pytest.raises(SwitchError) as e:
            r1.weirctl(*words)
        assert sentence in str(e.value), e.value
        passes()
    errors = [r["error"] for table in ("Router_Port", "Route", "Route_Policy") for r in r1.weirctl("list", table, json=True) if r["error"]]
    assert len(errors) == len(bad) and not any("\n" in e for e in errors)
    # A row that goes bad leaves its port as it was.
    with pytest.raises(SwitchError, match="addresses: 10.1.0.255/24"):
        r1.weirctl("router-port", "set", "gw2", "10.1.0.255/24")
    passes()
    r1.weirctl("router-port", "set", "gw2", "10.1.0.1/24")
    # What it lacked comes: the row is in order by itself.
    r1.weirctl("router-port", "add", "nowhere", "--router", "r1", "--network", "red", "10.7.7.1/24")
    assert not [r for r in r1.weirctl("list", "Route", json=True) if r["prefix"] == "10.9.0.0/16" and r["error"]]
    passes()
    r1.check_conservation()


def test_rows_in_any_order(clean):
    """Routes, then their router's ports, then what these are in, in one transaction or several."""
    clean.weirctl("router", "add", "r1")
    with pytest.raises(SwitchError):
        clean.weirctl("route", "add", "r1", "10.9.0.0/16", "via", "10.0.0.254", "dev", "gw1")
    clean.network("blue")
    clean.weirctl("router-port", "add", "gw1", "--router", "r1", "--network", "blue", "10.0.0.1/24")
    assert not [r["error"] for r in clean.weirctl("list", "Route", json=True) if r["error"]]
    clean.tap("t1", "--network", "blue")
    answers(clean, clean.wire["t1"], "10.0.0.1")


def test_numbers_stay(r1):
    """A router port keeps its number while its row is there, whatever comes and goes beside it."""
    def numbers():
        return {r["name"]: next(v for k, v in r["status"].items() if k.startswith("port_number:")) for r in r1.weirctl("list", "Router_Port", json=True)}

    before = numbers()
    r1.weirctl("router-port", "add", "gw0", "--router", "r1", "--network", "blue", "10.5.0.1/24")
    with_it = numbers()
    assert len(set(with_it.values())) == 3 and {k: with_it[k] for k in before} == before
    r1.weirctl("router-port", "del", "gw1")
    after = numbers()
    assert after == {"gw0": with_it["gw0"], "gw2": before["gw2"]}
    r1.weirctl("router-port", "set", "gw2", "10.6.0.1/24", "mac=02:00:00:00:00:09")
    assert numbers() == after and answers(r1, r1.wire["t2"], "10.6.0.1") == "02:00:00:00:00:09"
