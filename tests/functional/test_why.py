"""why: all that is known of packets like one, joined: each check with each of its answers, and the verdict."""

import json

import pytest
from scapy.all import IP, TCP, Dot1Q, Ether, Raw, raw

from net import BROADCAST, SLOW, frame, mac, run, wait_for
from test_vhost_ports import plug
from vguest import Driver

CHECKS = ["ingress", "flow", "decision", "destination", "neighbour", "egress", "mtu", "drops", "answer"]


@pytest.fixture
def ports(clean):
    clean.network("red", "vlan=10")
    for n, name in enumerate(("a", "b"), 1):
        clean.tap(name, "--network", "red", "--address", f"{mac(n)} 10.0.0.{n}")
    yield clean
    clean.weirctl("flow", "del", "all")


def why(lab, *words):
    """The answer in JSON, its checks as {name: (state, text)}; the text for people must say the same."""
    data = lab.weirctl("why", *words, json=True)
    checks = {c["check"]: (c["state"], c["text"]) for c in data["checks"]}
    assert list(checks) == CHECKS and all(c["question"].endswith("?") for c in data["checks"])
    text = lab.weirctl("why", *words)
    assert text.startswith(f"From port {data['port']}: ") and all(f" {name} " in text for name in CHECKS), text
    return data, checks


def tcp(dport, src=1, dst=2, size=0):
    p = Ether(src=mac(src), dst=mac(dst)) / IP(src=f"10.0.0.{src}", dst=f"10.0.0.{dst}") / TCP(sport=1000, dport=dport, flags="A") / Raw(bytes(size))
    return raw(p).ljust(60, b"\0")


def send(lab, port, data):
    before = lab.stats(port)["rx_packets"]
    lab.wire[port].send(data)
    lab.settle(port, before + 1)


def test_passes(ports):
    data, checks = why(ports, "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_dst=443")
    assert data["port"] == "a" and data["verdict"] == "passes" and "the answer comes back" in data["text"]
    assert checks["ingress"] == ("unknown", "port a: its link is up, but no packet has come in by it yet")
    assert checks["flow"][0] == "unknown" and "no cached flow" in checks["flow"][1]
    send(ports, "a", tcp(443))
    data, checks = why(ports, "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_dst=443")
    assert all(state == "ok" for state, _ in checks.values()), checks
    assert "1 packets received" in checks["ingress"][1] and "1 packets, idle for" in checks["flow"][1] and "output:b" in checks["flow"][1]
    assert "out by b" in checks["decision"][1] and "static at port b" in checks["destination"][1] and "10.0.0.2 is " + mac(2) in checks["neighbour"][1]
    assert checks["answer"][1] == "the answer from port b comes out by a" and checks["drops"][1] == "port a has lost nothing"
    # The same by its bytes, which don't say by which port they came.
    assert why(ports, "--port", "a", tcp(443).hex())[0]["verdict"] == "passes"


def test_rule_that_denies(ports):
    ports.weirctl("flow", "add", "--network", "red", "tcp,tp_dst=80", "drop")
    send(ports, "a", tcp(80))
    send(ports, "a", tcp(81))
    data, checks = why(ports, "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_dst=80")
    assert data["verdict"] == "dropped" and "(rule.DROP)" in data["text"]
    assert checks["flow"][0] == "problem" and "drop(rule.DROP)" in checks["flow"][1]
    assert checks["decision"][0] == "problem" and "decided by" in checks["decision"][1] and "Flow " in checks["decision"][1]
    assert checks["drops"][0] == "problem" and "(rule.DROP)" in checks["drops"][1] and "by Flow" in checks["drops"][1] and "1 packet of port a" in checks["drops"][1]
    # Without the rule it is past: what is cached is decided anew, what was lost would not be lost again.
    ports.weirctl("flow", "del", "all")
    data, checks = why(ports, "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_dst=80")
    assert data["verdict"] == "passes" and checks["flow"][0] == "unknown" and "is decided anew" in checks["flow"][1]
    assert checks["drops"][0] == "ok" and "it would pass now" in checks["drops"][1]
    # What another connection lost is no problem of this one.
    data, checks = why(ports, "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_dst=81")
    assert data["verdict"] == "passes" and checks["drops"][0] == "ok" and "none like this" in checks["drops"][1]


def test_answer_that_is_dropped(ports):
    ports.weirctl("flow", "add", "in_port=b,tcp,tp_src=443", "drop")
    data, checks = why(ports, "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_dst=443")
    assert data["verdict"] == "one-way" and checks["answer"] == ("problem", "the answer from port b is dropped (rule.DROP): a rule of table Flow drops it")
    assert checks["decision"][0] == "ok"


def test_copies(ports):
    """Copies for somebody who watches are no arrival, and nobody there answers."""
    ports.tap("probe", "--network", "red")
    ports.weirctl("flow", "add", "--priority", 10, "tcp", "mirror:probe,normal")
    ports.weirctl("flow", "add", "--priority", 20, "tcp,tp_dst=80", "mirror:probe,drop")
    data, checks = why(ports, "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_dst=443")
    assert data["verdict"] == "passes" and data["text"].startswith("it arrives at port b"), data
    data, checks = why(ports, "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_dst=80")
    assert data["verdict"] == "dropped" and "(rule.DROP)" in data["text"] and "reaches nobody" in checks["answer"][1]
    said = ports.ask("explain", "--reply", "--port", "a", "tcp,nw_dst=10.0.0.2,tp_dst=80")
    assert [o["port"] for o in said["out"]] == ["probe"] and said["no_reply"] == "the packet reaches nobody"


def test_answer_that_was_lost(ports):
    """One that came with a tag that it should not have had."""
    ports.tap("trk", "--vlan-mode", "trunk", "--trunks", "red")
    ports.wire["trk"].send(frame(7, BROADCAST, 10))
    ports.settle("trk", 1)
    match = f"tcp,nw_src=10.0.0.1,nw_dst=10.0.0.7,tp_dst=443,dl_dst={mac(7)}"
    assert why(ports, match)[0]["verdict"] == "passes"
    back = Ether(src=mac(7), dst=mac(1)) / Dot1Q(vlan=110) / IP(src="10.0.0.7", dst="10.0.0.1") / TCP(sport=443, dport=1000, flags="SA")
    ports.wire["trk"].send(raw(back).ljust(64, b"\0"))
    ports.settle("trk", 2)
    data, checks = why(ports, match)
    assert data["verdict"] == "problem" and checks["answer"][0] == "problem" and "one like the answer was lost" in checks["answer"][1]
    assert "(vlan.NOT_ALLOWED)" in checks["answer"][1] and "1 packet of port trk went that way" in checks["answer"][1]
    # Another connection's answer is none of this one.
    assert why(ports, match.replace("443", "444"))[0]["verdict"] == "passes"


def test_mtu_of_a_guest(ports):
    """What counts is what the hypervisor told the guest."""
    ports.weirctl("port", "add", "vm", "--network", "red", "--address", f"{mac(9)} 10.0.0.9", "options:packed=true")
    with Driver(ports.path("vm.sock"), window=0, mtu=2000) as guest:
        guest.ready()
        wait_for(lambda: ports.port("vm")["link_state"] == "up", 20 * SLOW, lambda: ports.port("vm")["words"])
        state, text = why(ports, "tcp,nw_src=10.0.0.9,nw_dst=10.0.0.2,tp_dst=443")[1]["mtu"]
        assert state == "problem" and "port b takes 1500 bytes, port vm may send 2000, as its hypervisor told the guest" in text


def test_mtu(ports):
    ports.weirctl("port", "set", "b", "mtu_request=1400")
    send(ports, "a", tcp(443, size=1440))
    data, checks = why(ports, "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_dst=443")
    assert data["verdict"] == "problem" and checks["mtu"][0] == "problem" and "port b takes 1400 bytes, port a may send 1500" in checks["mtu"][1]
    assert "1 of port a so far" in checks["mtu"][1] and checks["drops"][0] == "problem" and "(mtu.TOO_LARGE)" in checks["drops"][1]
    assert why(ports, "tcp,nw_src=10.0.0.2,nw_dst=10.0.0.1")[1]["mtu"][0] == "ok"


def test_unknown_address(ports):
    # With one other address on the network that is who will be meant; with two nobody knows.
    assert why(ports, "icmp,nw_src=10.0.0.1,nw_dst=10.0.0.99")[0]["verdict"] == "passes"
    ports.tap("c", "--network", "red", f"addresses={mac(3)}")
    data, checks = why(ports, "icmp,nw_src=10.0.0.1,nw_dst=10.0.0.99")
    assert data["verdict"] == "problem" and "not known who has the destination's address" in checks["destination"][1]
    assert checks["neighbour"] == ("unknown", "not known: no port has 10.0.0.99 in its addresses, and nobody was heard to have it")
    assert checks["answer"][0] == "unknown"
    data, checks = why(ports, "--port", "a", f"icmp,nw_dst=10.0.0.99,dl_dst={mac(77)}")
    assert checks["destination"][0] == "unknown" and f"{mac(77)} is not known in network red" in checks["destination"][1]
    ports.weirctl("network", "set", "red", "unknown_unicast=drop")
    data, checks = why(ports, "--port", "a", f"icmp,nw_dst=10.0.0.99,dl_dst={mac(77)}")
    assert data["verdict"] == "dropped" and "(fdb.UNKNOWN)" in data["text"] and checks["destination"][0] == "problem"
    ports.wire["b"].send(frame(77, BROADCAST))
    ports.settle("b", 1)
    data, checks = why(ports, "--port", "a", f"icmp,nw_dst=10.0.0.99,dl_dst={mac(77)}")
    assert data["verdict"] == "passes" and "was learned at port b, seen 0 s ago" in checks["destination"][1]
    # An address that is given to the wrong station.
    data, checks = why(ports, "--port", "a", f"icmp,nw_dst=10.0.0.2,dl_dst={mac(77)}")
    assert checks["neighbour"][0] == "problem" and "for another Ethernet address" in checks["neighbour"][1]


def test_wrong_vlan(ports):
    data, checks = why(ports, "--port", "a", "dl_vlan=7,icmp,nw_dst=10.0.0.2")
    assert data["verdict"] == "dropped" and "(vlan.NOT_ALLOWED)" in data["text"] and "in no network" in checks["destination"][1]


def test_ports_that_are_ill(ports):
    """Each way in which a port is not well, of the one that it leaves by and of the one that it comes in by."""
    ports.weirctl("port", "add", "vm", "--network", "red", "--address", f"{mac(9)} 10.0.0.9")
    data, checks = why(ports, "udp,nw_src=10.0.0.1,nw_dst=10.0.0.9")
    assert data["verdict"] == "dropped" and "(tx.DISCONNECTED)" in data["text"]
    assert checks["egress"][0] == "problem" and "vm: not connected" in checks["egress"][1] and checks["decision"][0] == "ok"
    data, checks = why(ports, "udp,nw_src=10.0.0.9,nw_dst=10.0.0.1")
    assert data["port"] == "vm" and checks["ingress"][0] == "problem" and "not connected" in checks["ingress"][1]
    run("ip", "link", "set", "dev", "b", "down")
    data, checks = why(ports, "udp,nw_src=10.0.0.1,nw_dst=10.0.0.2")
    assert data["verdict"] == "dropped" and "the interface b is down" in checks["egress"][1]
    ports.weirctl("port", "set", "a", "enabled=false")
    data, checks = why(ports, "udp,nw_src=10.0.0.1,nw_dst=10.0.0.2")
    assert checks["ingress"] == ("problem", "port a: it is disabled") and "(vlan.DISABLED)" in data["text"]


def test_guest_without_buffers(ports):
    with plug(ports, "vm", "--address", f"{mac(9)} 10.0.0.9", network="red") as guest:
        guest.stop(0)

        def full():
            ports.wire["a"].send(tcp(443, dst=9))
            return why(ports, "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.9,tp_dst=443")[1]["egress"][0] == "problem"
        wait_for(full, 20 * SLOW, "the guest's ring to be full", 0)
        data, checks = why(ports, "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.9,tp_dst=443")
        assert data["verdict"] == "dropped" and "(tx.NO_BUFFERS)" in data["text"] and "receive buffers posted" in checks["egress"][1]

        def dropped():
            ports.wire["a"].send(tcp(443, dst=9))
            return "tx.NO_BUFFERS" in ports.drops("a")
        wait_for(dropped, 10 * SLOW, "packets to be dropped", 0.01)
        checks = why(ports, "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.9,tp_dst=443")[1]
        assert checks["drops"][0] == "problem" and "(tx.NO_BUFFERS)" in checks["drops"][1]


def test_many_flows(ports):
    """Source ports that aren't said: flows of each of them count, the last one is shown."""
    ports.weirctl("flow", "add", "tcp,tp_src=9999", "drop")  # so that flows keep source ports apart
    for n in range(5):
        send(ports, "a", raw(Ether(src=mac(1), dst=mac(2)) / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=2000 + n, dport=443, flags="A")).ljust(60, b"\0"))
    flow = why(ports, "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_dst=443")[1]["flow"]
    assert flow[0] == "ok" and "5 cached flows" in flow[1]
    assert "no cached flow" in why(ports, "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=3000,tp_dst=443")[1]["flow"][1]
    assert "1 packets" in why(ports, "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=2003,tp_dst=443")[1]["flow"][1]


@pytest.mark.parametrize("words, sentence", [
    ([], "why needs more"),
    (["tcp"], "it is not known where this source is: say by which port it comes in"),
    (["--port", "nobody", "tcp"], "there is no port nobody"),
    (["--port", "a"], "say which packets"),
    (["--port"], "--port wants a value"),
    (["--port", "a", "tpc"], "tpc: no such field or protocol"),
    (["--wrong", "tcp"], "why doesn't know --wrong"),
    (["00112233"], "say by which port the packet comes in: why --port PORT HEX"),
    (["tcp,nw_src=10.0.0.77"], "it is not known where this source is"),
])
def test_bad_input(ports, words, sentence):
    done = ports.weirctl("why", *words, check=False)
    assert done.returncode == 1 and not done.stdout and sentence in done.stderr and len(done.stderr.splitlines()) <= 2, done.stderr


def test_source_in_two_places(ports):
    ports.network("blue")
    ports.tap("c", "--network", "blue", "--address", f"{mac(1)} 10.0.0.1")
    for match in ("tcp,nw_src=10.0.0.1", f"dl_src={mac(1)}"):
        assert "several ports have this source" in ports.weirctl("why", match, check=False).stderr
    assert json.loads(ports.weirctl("-f", "json", "why", "--port", "c", "tcp"))["port"] == "c"
