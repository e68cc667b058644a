"""The flow cache under attack: random addresses from one guest, and what that costs the others."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from net import BROADCAST, LONG, SLOW, Namespace, frame, mac, wait_for
from test_vhost_ports import plug


@pytest.fixture
def ports(clean):
    clean.network("blue")
    yield clean
    clean.weirctl("clear", "Weir", ".", "other_config")


def station(lab, name, address):
    lab.weirctl("port", "add", name, "--type", "tap", "--network", "blue")
    space = Namespace()
    space.take(name)
    space.run("ip", "address", "add", address, "dev", name)
    space.run("ip", "link", "set", "dev", name, "up")
    return space


def udp(src, dst):
    from scapy.all import IP, UDP, Ether, raw
    return raw(Ether(src=mac(src), dst=mac(dst)) / IP(src="10.0.0.0", dst="10.0.0.1", chksum=0) / UDP(sport=1, dport=2, chksum=0) / bytes(18))


def resident(lab):
    """Kilobytes of memory that are the daemon's own."""
    with open(f"/proc/{lab.daemon.pid}/smaps_rollup") as f:
        return int(next(line for line in f if line.startswith("Pss:")).split()[1])


def waited(lab):
    """Seconds that the threads of the switch could have run, but had no processor."""
    return sum(int(f.read_text().split()[1]) for f in Path(f"/proc/{lab.daemon.pid}/task").glob("*/schedstat")) / 1e9


def flows_of(lab, port):
    return len(lab.ask("cache/list", "--port", port, "--limit", "100000"))


def test_attack(ports):
    """Addresses at random, as fast as one guest can, on the worker that serves a quiet pair too: the pair loses nothing, and keeps its flows;
    the attacker has its bounded share of flows, and drops of its own."""
    ports.weirctl("config", "set", "flow-limit=4096", "resolve-queue=32")
    ports.weirctl("network", "set", "blue", "--mac-limit", "1000")
    one, two = station(ports, "t1", "10.9.0.1/24"), station(ports, "t2", "10.9.0.2/24")
    try:
        one.run("ping", "-c", "3", "-i", "0.01", "10.9.0.2")
        with plug(ports, "vm1") as attacker, plug(ports, "vm2") as sink:
            sink.capture(0, False)
            attacker.capture(0, False)
            ports.weirctl("port", "set", "vm2", f"addresses={mac(0x200)}", "--", "port", "set", "vm1", f"addresses={mac(0x201)}")
            before = resident(ports)
            ping = one.popen("ping", "-q", "-c", "300" if LONG else "100", "-i", "0.02", "-W", "20", "10.9.0.2", stdout=subprocess.PIPE, text=True)
            # Two of them at work share the worker's time, and get ahead of the share of resolves that each has then.
            sink.blast(0, 0, frame(1, 0x201), rate=2000000, random=[(7, 5)])
            attacker.blast(0, 0, frame(1, 0x200), rate=2000000, random=[(7, 5)])
            out, _ = ping.communicate(timeout=90)
            # Guests without a processor of their own are behind at first.
            wait_for(lambda: ports.drops("vm1").get("flow.RESOLVE_QUEUE"), 20 * SLOW, "the attacker to get ahead")
            stats = ports.stats("vm1")
            attacker.blast(0, 0, frame(1, 0x200), rate=0)
            sink.blast(0, 0, frame(1, 0x200), rate=0)
            assert " 0% packet loss" in out, out
            assert stats["rx_packets"] > 10000 and stats["resolved"] > 1000
            after = resident(ports)
            assert after - before < 60000 * (5 if SLOW > 1 else 1), f"{before} KB before, {after} KB after"
            (worker,) = ports.ask("worker/list")
            assert worker["flows"] <= 4096
            assert 0 < flows_of(ports, "vm1") < 4096
            assert flows_of(ports, "t1") >= 1 and flows_of(ports, "t2") >= 1
            ports.check_conservation()
            drops = ports.drops("vm1")
            assert drops.get("flow.RESOLVE_QUEUE", 0) > 0, drops
            assert set(drops) <= {"flow.RESOLVE_QUEUE", "tx.NO_BUFFERS", "tx.QUEUE_FULL"}, drops
            log = Path(ports.path("weir-vswitchd.log"))
            wait_for(lambda: re.search("WARN worker: port vm1: packets were dropped because too many of unknown flows .* port=vm1 packets=", log.read_text()),
                     20 * SLOW, "a line in the log")
            assert ports.stats("t1")["dropped"] == ports.stats("t2")["dropped"] == 0
            # What was forwarded meanwhile came without a flow where there was none to be had.
            assert stats["uncached"] > 0 and stats["beyond_profile"] == 0
            assert len([r for r in ports.fdb("blue").values() if r["type"] == "learned"]) <= 1000
            assert out.split("min/avg/max")[1]
            print("ping while attacked:", out.strip().splitlines()[-1])
    finally:
        one.close()
        two.close()


def test_the_profile_changes(ports):
    """Rules make one flow many, 65,536 from each of two guests at full speed, then others, then one again. No packet is lost for it."""
    packets = 4096 if SLOW > 1 else (1 << 20 if LONG else 1 << 18)
    ports.weirctl("config", "set", "resolve-queue=64")
    start = waited(ports)
    with plug(ports, "vm1", guest="size=1024") as one, plug(ports, "vm2", guest="size=1024") as two:
        guests = {one: udp(1, 2), two: udp(2, 1)}
        for guest, data in guests.items():
            guest.capture(0, False)
            guest.tx(0, data)
        wait_for(lambda: len(ports.fdb("blue")) == 2, 10 * SLOW, "both to be known")
        for words, flows in ((["flow", "add", "--network", "blue", "ip,nw_src=192.0.2.1,actions=drop"], True),
                             (["flow", "add", "--network", "blue", "udp,nw_src=192.0.2.1,tp_dst=7,actions=drop"], True),
                             (["flow", "del", "all"], False)):
            before = {name: ports.stats(name) for name in ("vm1", "vm2")}
            for guest, data in guests.items():
                guest.blast(0, packets, data, vary=[(28, 2)])
            ports.weirctl(*words)
            for guest, data in guests.items():
                guest.blasted(0, 60 * SLOW)
                guest.blast(0, packets, data, vary=[(28, 2)])
            for name, guest in zip(before, guests):
                guest.blasted(0, 60 * SLOW)
                after = ports.settle(name, before[name]["rx_packets"] + 2 * packets, 20)
                assert after["resolved"] - before[name]["resolved"] >= (min(packets, 65536) if flows else 1)
        for name in ("vm1", "vm2"):
            drops = ports.drops(name)
            # A guest that has no processor takes nothing. A worker that had none finds full rings afterwards, more than may wait.
            held_up = waited(ports) - start > 0.02
            assert set(drops) <= {"tx.NO_BUFFERS", "tx.QUEUE_FULL", *(["flow.RESOLVE_QUEUE"] if held_up else [])}, drops


def test_queues_move_away_from_misses(ports):
    """Packets wait to be resolved when their queue goes to another worker, or when their guest goes: they don't wait for ever."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one processor")
    ports.weirctl("config", "set", "resolve-queue=1024", f"worker-cores={cores[0]},{cores[1]}")
    ports.weirctl("network", "set", "blue", "--mac-limit", "1000")
    ports.tap("t1", "--network", "blue")
    with plug(ports, "vm1") as one, plug(ports, "vm2") as two:
        for guest in (one, two):
            guest.capture(0, False)
            guest.blast(0, 0, frame(1, BROADCAST), rate=2000000, random=[(7, 5)])
        for turn in range(20):
            wait_for(lambda: ports.stats("vm1")["queued"] > 32, 20 * SLOW, "packets to wait", 0.001)
            words = [["set", "Port", name, f"other_config:rxq-affinity=0:{turn % 2}"] for name in ("vm1", "vm2")]
            ports.weirctl(*words[0], "--", *words[1])
        one.blast(0, 0, frame(1, BROADCAST), rate=0)
        two.kill()
        for name in ("vm1", "vm2"):
            wait_for(lambda n=name: not ports.stats(n)["queued"], 5 * SLOW, lambda n=name: f"nothing to wait: {ports.stats(n)}")


def test_ageing(ports):
    ports.weirctl("config", "set", "flow-idle-timeout=1")
    ports.tap("a", "--network", "blue")
    ports.tap("b", "--network", "blue")
    f = frame(1, BROADCAST)
    ports.check("a", f, {"b": [f]})
    assert flows_of(ports, "a") == 1
    wait_for(lambda: flows_of(ports, "a") == 0, 10 * SLOW, "the flow to go")
    ports.check("a", f, {"b": [f]})
    assert flows_of(ports, "a") == 1


def test_flush(ports):
    """After a flush each flow is resolved once more, and then served again; what it counted stays."""
    ports.tap("a", "--network", "blue")
    ports.tap("b", "--network", "blue", f"addresses={mac(2)}")
    f = frame(1, 2)
    for _ in range(3):
        ports.check("a", f, {"b": [f]})
    stats = ports.stats("a")
    assert (stats["resolved"], stats["flow_hits"]) == (1, 2) or stats["resolved"] == 2  # the first one learns, by which it may be stale
    assert "resolved again" in ports.weirctl("cache", "flush")
    ports.check("a", f, {"b": [f]})
    ports.check("a", f, {"b": [f]})
    assert ports.stats("a")["resolved"] == stats["resolved"] + 1
    (flow,) = ports.ask("cache/list", "--port", "a")
    assert flow["packets"] == 5 and flow["bytes"] == 5 * len(f) and flow["actions"] == "output:b" and flow["network"] == "blue"
    assert f"dl_src={mac(1)},dl_dst={mac(2)}" in flow["match"] and set(flow["because"].split(",")) == {"Port:a", "Port:b", "Network:blue"}


def test_listing(ports):
    ports.tap("a", "--network", "blue")
    ports.tap("b", "--network", "blue")
    for n in range(20):
        ports.wire["a"].send(frame(n + 10, BROADCAST))
    ports.wire["b"].send(frame(1, BROADCAST))
    ports.settle("a", 20)
    ports.settle("b", 1)
    assert flows_of(ports, "a") == 20 and len(ports.ask("cache/list")) == 21
    assert len(ports.ask("cache/list", "--limit", "7")) == 7
    assert len(ports.ask("cache/list", "--network", "blue")) == 21
    for options, sentence in ((["--port", "x"], "no port x"), (["--limit"], "--limit wants a value"), (["x"], "--port PORT")):
        done = ports.weirctl("cache", "list", *options, check=False)
        assert done.returncode == 1 and sentence in done.stderr, done


def test_one_flow_for_many_connections(ports):
    """A plain layer 2 network: a pair of addresses is one flow, whatever they talk about."""
    from scapy.all import IP, UDP, Ether, raw
    ports.tap("a", "--network", "blue")
    ports.tap("b", "--network", "blue", f"addresses={mac(2)}")
    before = 0
    for n in range(200):
        ports.wire["a"].send(raw(Ether(src=mac(1), dst=mac(2)) / IP(src="10.0.0.1", dst=f"10.0.{n}.1") / UDP(sport=n, dport=1000 + n)))
    ports.settle("a", before + 200)
    assert flows_of(ports, "a") == 1 and len(ports.wire["b"].wait(200)) == 200
