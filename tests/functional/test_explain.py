"""explain says what will happen: the real stages on a worker that changes nothing."""

import json
import os
import random

import pytest
from scapy.all import ARP, ICMP, IP, TCP, UDP, Dot1Q, Ether, ICMPv6EchoRequest, IPv6, Raw, raw

from net import BROADCAST, frame, mac, wait_for

SEED = int(os.environ.get("WEIR_SEED", random.randrange(1 << 32)))


@pytest.fixture(scope="module")
def ports(lab):
    lab.network("red", "vlan=10")
    lab.network("blue", "vlan=20", "--unknown-unicast", "drop", "--mtu", "1400")
    lab.tap("a", "--network", "red", f"addresses={mac(1)}")
    lab.tap("b", "--network", "red", f"addresses={mac(2)}")
    lab.tap("iso", "--network", "red", "--isolated", f"addresses={mac(3)}")
    lab.tap("iso2", "--network", "red", "--isolated", f"addresses={mac(4)}")
    lab.tap("c", "--network", "blue", f"addresses={mac(5)}")
    lab.tap("trk", "--vlan-mode", "trunk")
    lab.tap("nat", "--vlan-mode", "native-untagged", "--network", "blue", "--trunks", "red")
    lab.tap("off", "--network", "red", f"addresses={mac(6)}")
    lab.weirctl("port", "set", "off", "enabled=false")
    lab.weirctl("fdb", "add", "red", mac(7), "trk")
    return lab


def random_frame(dice):
    src = dice.choice([mac(n) for n in range(1, 12)] + ["01:00:5e:00:00:01", "00:00:00:00:00:00"])
    dst = dice.choice([mac(n) for n in range(1, 12)] + [BROADCAST, "01:00:5e:00:00:05", "01:80:c2:00:00:00", "01:80:c2:00:00:20"])
    p = Ether(src=src, dst=dst)
    for _ in range(dice.choice([0, 0, 0, 1, 1, 2])):
        p /= Dot1Q(vlan=dice.choice([0, 10, 20, 30, 4095]), prio=dice.randrange(8))
    v4 = IP(src="10.0.0.1", dst="10.0.0.2", ttl=dice.choice([1, 64]), flags=dice.choice(["", "MF"]), frag=dice.choice([0, 0, 7]))
    v6 = IPv6(src="fd00::1", dst="fd00::2")
    body = Raw(bytes(dice.choice([0, 10, 100, 1380, 1450])))
    p /= dice.choice([ARP(), v4 / TCP() / body, v4 / UDP() / body, v4 / ICMP() / body, v6 / TCP() / body, v6 / ICMPv6EchoRequest() / body,
                      v6 / UDP() / body, body])
    data = bytearray(raw(p))
    if dice.random() < 0.3 and len(data) > 15:  # malformed: a byte that the parser may care for, or cut short
        if dice.random() < 0.5:
            data[dice.randrange(12, min(len(data), 60))] ^= 1 << dice.randrange(8)
        else:
            del data[dice.randrange(15, len(data)):]
    if len(data) < 20:  # the kernel takes no shorter ones: with a tag added they have to have a byte behind it
        data = data.ljust(20, b"\0")
    return bytes(data)


def predicted(lab, port, data):
    """{port: number of copies} and drops as explain has them."""
    to, drops = {}, {}
    for step in lab.explain(port, data, json=True)["steps"]:
        if step["stage"] == "tx" and step["text"].startswith("out by "):
            name = step["text"][len("out by "):]
            to[name] = to.get(name, 0) + 1
        elif step["stage"] == "drop":
            reason = step["text"][len("dropped ("):].split(")")[0]
            drops[reason] = drops.get(reason, 0) + 1
    return to, drops


def test_prediction(ports):
    """What explain says of a random packet is what then becomes of it."""
    print(f"WEIR_SEED={SEED}")
    dice, seen = random.Random(SEED), set()
    for n in range(300):
        port = dice.choice([p for p in ports.wire])
        data = random_frame(dice)
        # What the packet teaches the switch is what explain says without having learned it: the prediction is of the same state.
        to, drops = predicted(ports, port, data)
        before, drops_before = ports.stats(port), ports.drops()
        for wire in ports.wire.values():
            wire.clear()
        try:
            ports.wire[port].send(data)
        except OSError:
            continue  # larger than the kernel sends on this interface
        ports.settle(port, before["rx_packets"] + 1)
        got = {name: len(frames) for name, wire in ports.wire.items() if (frames := wire.received())}
        after = {r: c - drops_before.get(r, 0) for r, c in ports.drops().items() if c != drops_before.get(r, 0)}
        assert (got, after) == (to, drops), f"WEIR_SEED={SEED}, packet {n} on {port}: {data.hex()}\n{ports.explain(port, data)}"
        seen |= set(drops) | {f"to {len(to)}"}
    assert len(seen) > 6, seen  # it is no test if all went the same way


def test_match_syntax(ports):
    """Each description makes the packet that it says; its bytes are shown by what the stages see of them."""
    for match, words in {
        f"dl_src={mac(1)},dl_dst={mac(2)}": ["60 bytes on port a", f"{mac(1)} > {mac(2)}", "output to b"],
        "arp,arp_spa=10.0.0.1,arp_tpa=10.0.0.2": ["type 0x0806", "class ARP", "flooded"],
        f"icmp,dl_dst={mac(2)},nw_src=10.0.0.1,nw_dst=10.0.0.2": ["type 0x0800, protocol 1", "output to b"],
        f"tcp,dl_dst={mac(2)},tcp_dst=443,tcp_flags=syn": ["protocol 6", "class tcp-syn"],
        f"udp,dl_dst={mac(2)},udp_dst=53": ["protocol 17"],
        f"tcp6,dl_dst={mac(2)},ipv6_src=fd00::1,ipv6_dst=fd00::2,tcp_dst=80": ["type 0x86dd, protocol 6"],
        f"icmp6,dl_dst={mac(2)},icmpv6_type=135": ["type 0x86dd, protocol 58"],
        f"sctp,dl_dst={mac(2)}": ["protocol 132"],
        f"udp,dl_dst={mac(2)},nw_frag=later": ["fragment"],
        f"udp,dl_dst={mac(2)},packet_len=1514": ["1514 bytes", "1500 bytes against MTU 1500 of b: fits"],
        f"udp,dl_dst={mac(2)},packet_len=1515": ["1501 bytes against MTU 1500 of b: too large", "(mtu.TOO_LARGE)"],
        f"dl_vlan=10,dl_dst={mac(2)}": ["VLAN 10: no network", "(vlan.NOT_ALLOWED)"],
        f"dl_dst={mac(7)}": ["output to trk, tagged with VLAN 10"],
    }.items():
        text = ports.explain("a", match)
        for word in words:
            assert word.lower() in text.lower(), f"{match}: no \"{word}\" in\n{text}"
        assert ports.explain("a", match, json=True)["port"] == "a"


def test_hex(ports):
    data = frame(1, 2)
    assert ports.explain("a", data) == ports.explain("a", data.hex(":")) == ports.explain("a", data.hex(" ", 2).upper())


def test_rows_that_decided(ports):
    """Each decision with the rows of the database that made it."""
    text = ports.explain("iso", frame(3, 4))
    assert "(isolation.ISOLATED)" in text
    for table, name in (("Port", "iso"), ("Port", "iso2"), ("Network", "red")):
        assert f"decided by {table} {name}, row {ports.row(table, name)['_uuid']}" in text, text


@pytest.mark.parametrize("words, sentence", [
    ([], "explain needs more: weirctl explain --port PORT"),
    (["--port"], "--port wants a value"),
    (["--port", "a"], "say which packet"),
    (["--port", "nobody", "arp"], "there is no port nobody"),
    (["--port", "a", "arpp"], "arpp"),
    (["--port", "a", "tcp,tcp_dst=99999"], "99999"),
    (["--port", "a", "tcp,nw_src=10.0.0.256"], "10.0.0.256"),
    (["--port", "a", "dl_src=52:54:00"], "52:54:00"),
    (["--port", "a", "arp,tcp_dst=1"], "tcp_dst"),
    (["--port", "a", "0011223"], "half a byte is missing"),
    (["--port", "a", "packet_len=100000"], "packet_len"),
])
def test_bad_input(ports, words, sentence):
    done = ports.weirctl("explain", *words, check=False)
    assert done.returncode == 1 and not done.stdout
    assert sentence in done.stderr and len(done.stderr.splitlines()) <= 2, done.stderr


def test_short_hex(ports):
    """A runt can't be made by description, but by its bytes."""
    done = ports.weirctl("explain", "--port", "a", "001122334455", check=False)
    assert "(parse.RUNT)" in done.stdout or done.returncode == 1, done


def test_json(ports):
    data = json.loads(ports.weirctl("-f", "json", "explain", "--port", "a", f"dl_src={mac(1)},dl_dst={mac(2)}"))
    assert data["port"] == "a" and data["bytes"] == 60
    assert [step["stage"] for step in data["steps"]][0] == "rx" and data["steps"][-1]["text"] == "out by b"
    assert all(set(step) == {"stage", "text", "ns", "took_ns"} for step in data["steps"])


def test_nothing_changes(ports):
    """No address learned, no counter moved, no flow cached, no allowance used up."""
    ports.weirctl("port", "set", "a", "storm_control=broadcast=1,broadcast-burst=3")
    flows, fdb, drops, health = (ports.ask(m) for m in ("cache/list", "fdb/list", "drops", "health"))
    drops = [(d["port"], d["reason"], d["packets"]) for d in drops]
    stats = ports.ask("port/stats")
    for n in range(50):
        text = ports.explain("a", frame(100 + n, BROADCAST))
        assert "is new, learned on a" in text and "limit 1 packets/s: passes" in text
        ports.explain("c", frame(100, 101))
    assert [(r["mac"], r["port"]) for r in ports.ask("fdb/list")] == [(r["mac"], r["port"]) for r in fdb]
    assert [(d["port"], d["reason"], d["packets"]) for d in ports.ask("drops")] == drops and ports.ask("port/stats") == stats and ports.ask("health")["ledger"] == health["ledger"]
    wait_for(lambda: {(f["worker"], f["flow"]) for f in ports.ask("cache/list")} <= {(f["worker"], f["flow"]) for f in flows}, 5, "no new flow")
    ports.weirctl("clear", "Port", "a", "storm_control")


def test_disconnected(ports):
    """Explain knows of the egress port's state, as it is."""
    ports.weirctl("port", "add", "vm", "--network", "red", f"addresses={mac(9)}")
    assert "(tx.DISCONNECTED)" in ports.explain("a", frame(1, 9))
    ports.delete("vm")
