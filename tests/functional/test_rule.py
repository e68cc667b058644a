"""rule: the operator's rules (table Flow) on a real switch: verdict, counter and trace line, and what weirctl says (pipeline/rule.c)."""

import json
import socket
import time

import pytest
from scapy.all import IP, TCP, UDP, Dot1Q, Ether, IPv6, Raw, raw

from net import BROADCAST, SLOW, Stream, SwitchError, frame, mac, run, wait_for


@pytest.fixture(scope="module")
def ports(lab):
    lab.network("blue", "--vlan", "10")
    for name in ("a", "b", "c"):
        lab.tap(name, "--network", "blue")
    lab.tap("t", "--vlan-mode", "trunk", "--trunks", "blue")
    for n, name in enumerate(("a", "b", "c"), 1):
        lab.wire[name].send(frame(n, BROADCAST))
        lab.settle(name, 1)
    return lab


@pytest.fixture
def rules(ports):
    yield ports
    ports.weirctl("flow", "del", "all")


def packet(*layers, src=1, dst=2):
    data = raw(Ether(src=mac(src), dst=mac(dst)) / layers[0])
    return data + bytes(max(0, 60 - len(data)))


def udp(dport=53, sport=1000, src="10.0.0.1", dst="10.0.0.2", size=30):
    return packet(IP(src=src, dst=dst) / UDP(sport=sport, dport=dport) / Raw(b"x" * size))


def tcp(dport=80, src="10.0.0.1", dst="10.0.0.2"):
    return packet(IP(src=src, dst=dst) / TCP(sport=1000, dport=dport, flags="A") / Raw(b"y" * 33))


def listed(lab, *options):
    return lab.weirctl("flow", "list", *options, json=True)


def one(lab, match):
    (row,) = [r for r in listed(lab) if r["match"] == match]
    return row


def test_drop(rules):
    rules.check("a", tcp(80), {"b": [tcp(80)]})
    rules.weirctl("flow", "add", "--network", "blue", "--priority", 100, "tcp,tp_dst=80", "drop")
    rules.check("a", tcp(80), {}, drop="rule.DROP", says=["priority 100, tcp,tp_dst=80: drop", "decided by Flow"])
    rules.check("a", tcp(81), {"b": [tcp(81)]}, says="none of 1 rules matches")
    rules.check("a", udp(80), {"b": [udp(80)]})
    row = one(rules, "tcp,tp_dst=80")
    assert (row["packets"], row["bytes"], row["priority"], row["network"]) == (1, len(tcp(80)), 100, "blue")
    rules.weirctl("flow", "del", "--network", "blue", "tcp,tcp_dst=0x50")
    rules.check("a", tcp(80), {"b": [tcp(80)]})
    assert not listed(rules)


def test_priority_and_masks(rules):
    rules.weirctl("flow", "add", "priority=10,ip,nw_dst=10.0.0.0/8,actions=drop")
    rules.weirctl("flow", "add", "priority=20,udp,nw_dst=10.1.0.0/255.255.0.0,tp_dst=0x1000/0xf000,actions=output:c")
    rules.weirctl("flow", "add", "priority=30,in_port=b,ip", "actions=normal")
    rules.check("a", udp(0x1234, dst="10.1.9.9"), {"c": [udp(0x1234, dst="10.1.9.9")]}, says="priority 20")
    rules.check("a", udp(0x2234, dst="10.1.9.9"), {}, drop="rule.DROP")
    rules.check("a", udp(0x1234, dst="10.2.9.9"), {}, drop="rule.DROP")
    rules.check("a", udp(0x1234, dst="11.1.9.9"), {"b": [udp(0x1234, dst="11.1.9.9")]})
    back = packet(IP(src="10.0.0.2", dst="10.0.0.1") / UDP(), src=2, dst=1)
    rules.check("b", back, {"a": [back]}, says="priority 30, in_port=b,ip: normal")
    (flow,) = [f for f in rules.ask("cache/list", "--port", "a") if "nw_dst=10.1.9.9" in f["match"] and "tp_dst=4660" in f["match"]]
    assert flow["actions"] == "output:c" and "Flow:" in flow["because"]


def test_ipv6(rules):
    rules.weirctl("flow", "add", "ipv6,ipv6_dst=fd00::/16", "drop")
    rules.weirctl("flow", "add", "icmp6,icmpv6_type=128", "drop")
    for dst, arrives in (("fd00::1", False), ("fe80::1", True)):
        data = packet(IPv6(src="fe80::5", dst=dst) / UDP(dport=5))
        rules.check("a", data, {"b": [data]} if arrives else {}, drop=None if arrives else "rule.DROP")


def checksums_right(data):
    """Whether scapy, which makes checksums anew when they are taken out, makes the same packet of it."""
    again = Ether(data)
    for layer in (IP, UDP, TCP):
        if layer in again:
            del again[layer].chksum
    return raw(again) == bytes(data)


def test_set_field(rules):
    rules.weirctl("flow", "add", "udp,tp_dst=53", f"set_field:10.9.9.9->nw_dst,mod_tp_dst:5353,mod_dl_dst:{mac(3)}")
    sent = udp(53)
    want = bytearray(raw(Ether(src=mac(1), dst=mac(3)) / IP(src="10.0.0.1", dst="10.9.9.9") / UDP(sport=1000, dport=5353) / Raw(b"x" * 30)))
    # The new address is the one that is looked up.
    rules.check("a", sent, {"c": [bytes(want)]}, says=["output to c", "per packet: rule"])
    assert checksums_right(want)
    rules.weirctl("flow", "add", "tcp", "mod_nw_src:1.2.3.4,mod_nw_tos:0xb8,output:b")
    rules.wire["b"].clear()
    for n in range(50):
        rules.wire["a"].send(packet(IP(src=f"10.0.0.{n}", dst=f"10.{n}.0.7", tos=1) / TCP(sport=n, dport=n * 7) / Raw(b"z" * n)))
    for data in rules.wire["b"].wait(50):
        got = Ether(data)
        size = 14 + got[IP].len
        assert got[IP].src == "1.2.3.4" and got[IP].tos == 0xb9 and checksums_right(data[:size])


def test_kernel_takes_what_was_set(rules):
    """A socket of the kernel behind a TAP gets the datagram, which it would drop if a checksum were wrong."""
    run("ip", "addr", "add", "10.77.0.2/24", "dev", "b")
    try:
        address = json.loads(run("ip", "-j", "link", "show", "b"))[0]["address"]
        rules.weirctl("flow", "add", "udp,nw_dst=10.77.0.99", f"mod_nw_dst:10.77.0.2,mod_tp_dst:7777,mod_dl_dst:{address},output:b")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind(("10.77.0.2", 7777))
            s.settimeout(5 * SLOW)
            rules.wire["a"].send(udp(53, src="10.77.0.1", dst="10.77.0.99", size=101))
            data, peer = s.recvfrom(2000)
            assert data == b"x" * 101 and peer == ("10.77.0.1", 1000)
    finally:
        run("ip", "addr", "flush", "dev", "b")


def test_outputs_and_mirrors(rules):
    before = rules.stats("a")["copies"]
    rules.weirctl("flow", "add", "udp", "output:b,mod_nw_dst:10.9.9.9,output:c")
    changed = packet(IP(src="10.0.0.1", dst="10.9.9.9") / UDP(sport=1000, dport=53) / Raw(b"x" * 30))
    rules.check("a", udp(), {"b": [udp()], "c": [changed]}, says="a copy for b, as a rule wants", same=False)  # copies of real packets leave together
    assert rules.stats("a")["copies"] == before + 1
    rules.weirctl("flow", "add", "--may-exist", "udp", "mirror:c,drop")
    # A mirror gets what is dropped, too.
    rules.check("a", udp(), {"c": [udp()]}, drop="rule.DROP", same=False)
    rules.weirctl("flow", "add", "--may-exist", "udp", "mirror:c,normal")
    rules.check("a", udp(), {"b": [udp()], "c": [udp()]}, same=False)
    # As it was received, with its tag.
    tagged = raw(Ether(src=mac(9), dst=mac(2)) / Dot1Q(vlan=10, prio=3) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP() / Raw(b"x" * 30))
    plain = raw(Ether(src=mac(9), dst=mac(2)) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP() / Raw(b"x" * 30))
    rules.check("t", tagged, {"b": [plain], "c": [tagged]}, same=False)
    rules.weirctl("port", "set", "c", "enabled=false")
    rules.check("a", udp(), {"b": [udp()]}, drop="rule.COPY")
    rules.weirctl("port", "set", "c", "enabled=true")


def test_flood_and_back(rules):
    rules.weirctl("flow", "add", "udp,tp_dst=1", "flood")
    rules.weirctl("flow", "add", "udp,tp_dst=2", "in_port")
    rules.weirctl("flow", "add", "udp,tp_dst=3", "output:a")
    rules.weirctl("flow", "add", "udp,tp_dst=4", "mod_vlan_vid:99,output:t")
    data = udp(1)
    rules.check("a", data, {"b": [data], "c": [data], "t": [data[:12] + b"\x81\0\0\x0a" + data[12:]]})
    rules.check("a", udp(2), {"a": [udp(2)]})
    rules.check("a", udp(3), {}, drop="rule.SAME_PORT")
    data = udp(4)
    rules.check("a", data, {"t": [data[:12] + b"\x81\0\0\x63" + data[12:]]}, says="tagged with VLAN 99")
    rules.weirctl("flow", "add", "udp,tp_dst=5", "push_vlan:0x88a8,set_field:4195->vlan_vid,mod_vlan_pcp:5,output:t")
    data = udp(5)
    rules.check("a", data, {"t": [data[:12] + b"\x88\xa8\xa0\x63" + data[12:]]}, says="tagged with VLAN 99")
    rules.weirctl("flow", "add", "udp,tp_dst=6", "mod_vlan_pcp:3,normal")
    data = udp(6)
    rules.check("t", data[:12] + b"\x81\0\xa0\x0a" + data[12:], {"b": [data]})


def test_learning(rules):
    """What a rule sends elsewhere is learned from; what it drops is not."""
    rules.weirctl("flow", "add", "udp,tp_dst=1", "output:c")
    rules.weirctl("flow", "add", "udp,tp_dst=2", "drop")
    for port, known in ((1, True), (2, False)):
        src = 40 + port
        rules.wire["a"].send(packet(IP(src="10.0.0.1", dst="10.0.0.2") / UDP(dport=port), src=src))
        rules.settle("a", rules.stats("a")["rx_packets"])
        wait_for(lambda: sum(r["packets"] for r in listed(rules)) >= port, 5 * SLOW, "the rule to count", 0.01)
        assert (mac(src) in rules.fdb("blue")) == known


def test_bad_words(rules):
    """weirctl refuses what it can't be, in the switch's own words; nothing is stored."""
    for words, says in {
        ("tpc", "drop"): "tpc: no such field or protocol",
        ("tp_dst=80", "drop"): "tp_dst needs a protocol with ports",
        ("tcp", "dorp"): "dorp: no such action",
        ("tcp",): "what happens to these packets?",
        ("icmp", "mod_tp_dst:5"): "ports can be set in tcp and udp only",
        ("tcp", "class:gold,drop"): "what is dropped is in no class",
        ("priority=70000,tcp,actions=drop",): "priority must be a number from 0 to 65535",
        ("--network", "red", "tcp", "drop"): "there is no network red",
    }.items():
        done = rules.weirctl("flow", "add", *words, check=False)
        assert done.returncode == 1 and says in done.stderr, (words, done.stderr)
    assert not listed(rules)
    rules.weirctl("flow", "add", "tcp", "drop")
    done = rules.weirctl("flow", "add", "dl_type=0x800,nw_proto=6", "normal", check=False)
    assert done.returncode == 1 and "there is a rule of this priority and match already" in done.stderr
    rules.weirctl("flow", "add", "--may-exist", "dl_type=0x800,nw_proto=6", "normal")
    assert one(rules, "tcp")["actions"] == "normal"
    done = rules.weirctl("flow", "del", "udp", check=False)
    assert done.returncode == 1 and "there is no rule udp" in done.stderr
    rules.weirctl("flow", "del", "--if-exists", "udp")
    rules.weirctl("flow", "del", one(rules, "tcp")["row"][:8])
    assert not listed(rules)


def test_bad_rows(rules):
    """A row that another client wrote wrong says so in its error, and hurts no other; a rule waits for its port."""
    done = rules.weirctl("flow", "add", "udp", "output:later", check=False)
    assert done.returncode == 1 and "output:later: there is no port later yet" in done.stderr
    rules.weirctl("create", "Flow", "match=tpc", "actions=drop", check=False)
    rules.weirctl("flow", "add", "tcp", "drop")
    rules.check("a", tcp(), {}, drop="rule.DROP")
    rules.check("a", udp(), {"b": [udp()]})
    problems = {r["match"]: r["problem"] for r in listed(rules)}
    assert problems["tpc"] == "tpc: no such field or protocol" and problems["tcp"] is None
    rules.tap("later", "--network", "blue")
    rules.check("a", udp(), {"later": [udp()]})
    assert one(rules, "udp")["problem"] is None
    rules.delete("later")
    assert "no port later" in one(rules, "udp")["problem"]
    rules.check("a", udp(), {"b": [udp()]})


def test_profile_change_loses_nothing(rules):
    """Rules that make flows finer, and coarser again, come and go under traffic."""
    stream = Stream(rules.wire["a"], rules.wire["b"], 1, 2, rate=1000)
    stream.wait(50)
    for n in range(6):
        rules.weirctl("flow", "add", "--network", "blue", f"udp,tp_dst={n + 1}", "drop")
        stream.wait(20)
        rules.weirctl("flow", "add", "--network", "blue", "ipv6", "drop")
        stream.wait(20)
        rules.weirctl("flow", "del", "all")
        stream.wait(20)
    missing, late = stream.end()
    assert not missing and not late and stream.count >= 400
    assert all(rules.stats(p)["beyond_profile"] == 0 for p in ("a", "b"))


def test_counters_last(rules):
    """The sum of a rule's packets is that of all that it ever matched, in the switch and in the database."""
    rules.weirctl("config", "set", "stats-interval=100")
    rules.weirctl("flow", "add", "udp,tp_dst=9", "drop")
    total = 0
    for n in range(5):
        for i in range(20):
            rules.wire["a"].send(udp(9, sport=i))
        total += 20
        wait_for(lambda: one(rules, "udp,tp_dst=9")["packets"] == total, 5 * SLOW, f"{total} packets", 0.02)
        rules.weirctl("cache", "flush")
    row = one(rules, "udp,tp_dst=9")["row"]

    def stored():
        text = rules.weirctl("get", "Flow", row, "statistics")
        return f"n_packets={total}" in text.replace(" ", "")

    wait_for(stored, 5 * SLOW, lambda: rules.weirctl("get", "Flow", row, "statistics"), 0.05)
    rules.weirctl("config", "del", "stats-interval")


def test_network_goes_with_its_rules(ports):
    ports.weirctl("network", "add", "red")
    ports.weirctl("flow", "add", "--network", "red", "any", "drop")
    ports.weirctl("flow", "add", "--network", "blue", "class=later-fragment", "drop")
    ports.weirctl("network", "del", "red")
    assert [r["network"] for r in listed(ports)] == ["blue"]
    ports.weirctl("flow", "del", "all")


def test_ten_thousand(rules):
    """10,000 rules in one transaction: applied at once, each of them works, and taken away."""
    operations = [{"op": "insert", "table": "Flow", "row": {
        "match": f"udp,nw_dst=10.{n >> 8}.{n & 255}.0/{24 + n % 8},tp_dst={n}", "actions": "drop" if n % 2 else "output:c", "priority": n % 100}}
        for n in range(10000)]
    operations.append({"op": "mutate", "table": "Weir", "where": [], "mutations": [["next_cfg", "+=", 1]]})
    start = time.monotonic()
    transact(rules.path("db.sock"), operations)
    wait_for(lambda: len(listed(rules)) == 10000, 60 * SLOW, lambda: f"10,000 rules, not {len(listed(rules))}", 0.2)
    print(f"10,000 rules in {time.monotonic() - start:.1f} s")
    for n in (0, 1, 5000, 7777, 9999):
        data = udp(n, dst=f"10.{n >> 8}.{n & 255}.1")
        rules.check("a", data, {"c": [data]} if n % 2 == 0 else {}, drop="rule.DROP" if n % 2 else None)
    other = udp(5, dst="10.200.0.1")
    rules.check("a", other, {"b": [other]}, says="none of 10000 rules")
    rules.weirctl("flow", "del", "all", limit=60)
    assert not listed(rules)


def transact(path, operations):
    """A transaction that is too long for a command line (RFC 7047 section 4.1.3)."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(60)
        s.connect(path)
        s.sendall(json.dumps({"id": 1, "method": "transact", "params": ["Weir"] + operations}).encode())
        text = ""
        while True:
            text += s.recv(1 << 20).decode()
            try:
                reply = json.loads(text)
            except ValueError:
                continue
            assert reply["error"] is None and not any("error" in (r or {}) for r in reply["result"]), str(reply)[:500]
            return


@pytest.fixture
def classes(rules):
    yield rules
    rules.weirctl("flow", "del", "all")
    for row in rules.weirctl("class", "list", json=True):
        rules.weirctl("class", "del", row["name"])


def in_class(lab, name):
    """How many rules, packets and bytes."""
    (row,) = [r for r in lab.weirctl("class", "list", json=True) if r["name"] == name]
    return row["rules"], row["packets"], row["bytes"]


def test_class(classes):
    """Packets of two rules are one class: it counts them, and they go where they would go."""
    weirctl = classes.weirctl
    weirctl("class", "add", "gold", "--description", "voice and what it needs")
    weirctl("class", "add", "iron")
    weirctl("flow", "add", "--network", "blue", "udp,tp_dst=53", "class:gold")
    weirctl("flow", "add", "tcp,tp_dst=80", "class:gold,mirror:t,output:c")
    assert in_class(classes, "gold") == (2, 0, 0)
    for n in range(1, 4):
        classes.check("a", udp(), {"b": [udp()]}, says=["udp,tp_dst=53: class:gold; class gold", "decided by Class gold"])
        assert in_class(classes, "gold") == (2, n, n * len(udp()))
    classes.check("a", tcp(80), {"c": [tcp(80)], "t": [tcp(80)]}, says="; class gold", same=False)
    classes.check("a", tcp(81), {"b": [tcp(81)]})
    said = classes.weirctl("why", "--port", "a", "udp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=1000,tp_dst=53,dl_src=" + mac(1) + ",dl_dst=" + mac(2))
    assert "gold" in said, said
    both = 4, 3 * len(udp()) + len(tcp(80))
    assert in_class(classes, "gold") == (2, *both) and in_class(classes, "iron") == (0, 0, 0)
    shown = weirctl("class", "show", "gold", json=True)
    assert (shown["name"], shown["description"], shown["host"], shown["error"]) == ("gold", "voice and what it needs", "", None)
    wait_for(lambda: weirctl("class", "show", "gold", json=True)["statistics"] == {"n_packets": both[0], "n_bytes": both[1]}, 20, "the row's counters", 0.2)
    lines = weirctl("metrics").splitlines()
    assert f'weir_class_packets_total{{class="gold"}} {both[0]}' in lines and f'weir_class_bytes_total{{class="iron"}} 0' in lines, lines
    # A rule goes to another class, and one goes: what was counted stays.
    weirctl("flow", "del", "udp,tp_dst=53", "--network", "blue")
    weirctl("flow", "add", "--network", "blue", "udp,tp_dst=53", "class:iron")
    classes.check("a", udp(), {"b": [udp()]}, says="; class iron")
    assert in_class(classes, "gold") == (1, *both) and in_class(classes, "iron") == (1, 1, len(udp()))
    assert len(weirctl("class", "list", "--limit", 1, json=True)) == 1
    weirctl("flow", "del", "all")
    classes.check("a", udp(), {"b": [udp()]})
    assert in_class(classes, "gold") == (0, *both)


def test_class_that_is_not_there(classes):
    """Its rule says so, and is in force as soon as the class is there."""
    weirctl = classes.weirctl
    with pytest.raises(SwitchError, match="class:gold: there is no class gold yet"):
        weirctl("flow", "add", "udp", "class:gold,output:c")
    weirctl("flow", "add", "tcp", "output:c")
    classes.check("a", udp(), {"b": [udp()]})
    classes.check("a", tcp(), {"c": [tcp()]})
    weirctl("class", "add", "gold")
    assert one(classes, "udp")["problem"] is None
    classes.check("a", udp(), {"c": [udp()]}, says="; class gold")
    assert in_class(classes, "gold")[:2] == (1, 1)
    weirctl("class", "set", "gold", "--description", "x")
    weirctl("class", "add", "gold", "--may-exist")
    classes.check("a", udp(), {"c": [udp()]})
    assert in_class(classes, "gold")[:2] == (1, 2)
    weirctl("class", "del", "gold")
    assert "there is no class gold" in one(classes, "udp")["problem"]
    classes.check("a", udp(), {"b": [udp()]})
    for words, why in {("class", "add", "a b"): "a b", ("class", "add", ""): "name", ("class", "del", "gold"): "there is no class gold",
                       ("class", "show", "gold"): "there is no class gold", ("class", "set", "gold", "--description", "x"): "there is no class gold",
                       ("class", "list", "x"): "class list", ("flow", "add", "ip", "class:"): "the name of a class is needed",
                       ("flow", "add", "ip", "class:x,class:y"): "another word has put", ("flow", "add", "arp", "class:x,drop"): "is in no class",
                       ("flow", "add", "ip,pkt_mark=1", "normal"): "pkt_mark can't be matched", ("explain", "--port", "a", "udp,pkt_mark=1"): "packets come without a mark"}.items():
        with pytest.raises(SwitchError, match=why):
            weirctl(*words)
    weirctl("class", "del", "gold", "--if-exists")
    # One of this switch alone beside one of every switch.
    (host,) = weirctl("host", "list", json=True)
    weirctl("class", "add", "gold")
    with pytest.raises(SwitchError, match="there is another class gold for this switch"):
        weirctl("class", "add", "gold", "--host", host["name"])
    assert [r["name"] for r in weirctl("class", "list", json=True)] == ["gold"]
    with pytest.raises(SwitchError, match="on several hosts"):
        weirctl("class", "del", "gold")
    weirctl("class", "del", "gold", "--host", host["name"])
