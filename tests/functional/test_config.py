"""The database's rows to a running switch: in any order, one bad row at a time, while a stream of numbered packets loses nothing."""

import json
import os
import random

import pytest

from net import BROADCAST, SLOW, Stream, Timeout, Wire, frame, mac, run, wait_for

CORES = sorted(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def pair(lab):
    """Two ports that every test leaves alone, with a stream between them, and a third one in their network."""
    lab.network("steady")
    for n in (1, 2, 3):
        lab.tap(f"s{n}", "--network", "steady", f"addresses={mac(0x100 + n)}")
    lab.steady = [lab.wire.pop("s1"), lab.wire.pop("s2")]
    yield lab
    for wire in lab.steady:
        wire.close()


@pytest.fixture
def ports(pair):
    """What a test does, the stream between s1 and s2 goes on, in order and without loss."""
    source, target = pair.steady
    target.clear()
    target.lost()
    stream = Stream(source, target, 0x101, 0x102)
    stream.wait(10)
    try:
        yield pair
    finally:
        pair.clear(["s1", "s2", "s3"], ["steady"])
        pair.weirctl("clear", "Weir", ".", "other_config")
        stream.wait(50)
    missing, disorder = stream.end()
    assert not target.lost()
    assert not missing, f"{len(missing)} of {stream.count} packets are missing: {missing[:10]}"
    assert not disorder
    pair.check_conservation()


@pytest.fixture
def ab(ports):
    ports.network("blue")
    ports.tap("a", "--network", "blue")
    ports.tap("b", "--network", "blue")
    return ports


def passes(lab, source="a", target="b", src=1):
    f = frame(src, BROADCAST)
    lab.check(source, f, {target: [f]})


def exchange(lab):
    """A packet from the third port of the stream's network."""
    before = lab.stats("s3")
    lab.wire["s3"].send(frame(0x103, 0x101))
    after = lab.settle("s3", before["rx_packets"] + 1)
    assert (after["sent"], after["dropped"]) == (before["sent"] + 1, before["dropped"])


def refused(lab, *command, says):
    """The command's sentence, and the row's."""
    done = lab.weirctl(*command, check=False)
    assert done.returncode == 1 and says in done.stderr, done.stderr
    return done


def test_any_order(ports):
    """A network, ports and static entries made one row at a time, in random orders: the end is the same."""
    dice = random.Random(7)
    for _ in range(4):
        rows = {"net": ["create", "Network", "name=blue"]}
        for n, name in enumerate(("a", "b"), 1):
            rows[name] = ["create", "Port", f"name={name}", "type=tap", f'addresses="{mac(n)}"']
        links = [["port", "set", "a", "network=blue"], ["port", "set", "b", "network=blue"]]
        order = list(rows.values())
        dice.shuffle(order)
        for command in order:
            ports.weirctl(*command, check=False)  # a port without network isn't complete, and says so
        dice.shuffle(links)
        for command in links:
            ports.weirctl(*command)
        for name in "ab":
            assert ports.port(name)["error"] is None
            ports.wire[name] = Wire(name)
        ports.check("a", frame(1, 2), {"b": [frame(1, 2)]}, says=f"{mac(2)} is static on b")
        for name in "ab":
            ports.wire.pop(name).close()
        removals = [["port", "del", "a"], ["port", "del", "b"]]
        dice.shuffle(removals)
        for command in removals:
            ports.weirctl(*command)
        ports.weirctl("network", "del", "blue")


def test_all_in_one_transaction(ports):
    ports.weirctl("network", "add", "blue", "--", "port", "add", "--may-exist", "a", "--type", "tap", "--network", "blue", "--", "port", "add", "b",
                  "--type", "tap", "--network", "blue")
    for name in "ab":
        ports.wire[name] = Wire(name)
    passes(ports)
    for name in "ab":
        ports.wire.pop(name).close()
    ports.weirctl("port", "del", "a", "--", "port", "del", "b", "--", "network", "del", "blue")
    assert ports.fdb("steady").keys() == {mac(0x101), mac(0x102), mac(0x103)}


@pytest.mark.parametrize("row, sentence", [
    (["--type", "kernel", "options:iface=wfnone0"], "there is no network interface wfnone0"),
    (["--type", "kernel", "options:iface=lo", "options:driver=af_smoke"], "af_packet af_xdp, not"),
    (["--type", "tap", "options:iface=far-too-long-a-name"], "no name of a network interface"),
    (["--type", "tap", "options:queues=17"], "queues must be a number from 1 to 16"),
    (["--type", "tap", "options:path=/tmp/x"], "path"),
    (["--type", "dpdk"], "devargs"),
    (["--type", "dpdk", "options:devargs=net_nonsense0"], "net_nonsense0"),
    (["options:mode=sideways"], "mode must be one of client server, not"),
    (["options:path=x.sock"], "path must be an absolute path"),
    (["options:path=/" + 200 * "x"], "107"),
    (["--type", "tap", "addresses=ff:ff:ff:ff:ff:ff"], "is a multicast address"),
    (["--type", "tap", "addresses=52:54:00"], "Ethernet address"),
    (["--type", "tap", "storm_control=broadcast=none"], "broadcast must be a number"),
    (["--type", "tap", "other_config=rxq-affinity=x"], "rxq-affinity"),
])
def test_bad_row(ports, row, sentence):
    """Its error says what is wrong; no other row notices; a repaired row works."""
    done = ports.weirctl("port", "add", "bad", "--network", "steady", *row, check=False)
    error = ports.port("bad")["error"] if ports.weirctl("list", "Port", "bad", check=False).returncode == 0 else None
    assert done.returncode and sentence in done.stderr, (done.stderr, error)
    if error is not None:
        assert sentence in error
        assert ports.port("s1")["error"] is None
        ports.weirctl("port", "del", "bad")
    ports.tap("bad", "--network", "steady")
    f = frame(1, 0x103)
    ports.check("bad", f, {"s3": [f]}, same=False)
    ports.delete("bad")


def test_interface_comes_later(ports):
    """A kernel interface that isn't there yet: the port works when it is, without anybody saying so."""
    refused(ports, "port", "add", "k", "--type", "kernel", "--network", "steady", "--iface", "wfv0", says="there is no network interface wfv0")
    run("ip", "link", "add", "wfv0", "type", "veth", "peer", "name", "wfv1")
    for name in ("wfv0", "wfv1"):
        run("ip", "link", "set", "dev", name, "up")
    wait_for(lambda: ports.port("k")["error"] is None and ports.port("k")["link_state"] == "up", 10 * SLOW, lambda: ports.port("k"))
    wire = Wire("wfv1")
    f = frame(1, 0x103)
    before = ports.stats("k")["rx_packets"]
    wire.send(f)
    ports.settle("k", before + 1)
    assert ports.wire["s3"].wait(1)[-1] == f
    wire.close()
    ports.weirctl("port", "del", "k")
    run("ip", "link", "del", "wfv0")


def test_name_taken(ports):
    """A TAP whose name another interface has."""
    run("ip", "link", "add", "wft0", "type", "veth", "peer", "name", "wft1")
    done = ports.weirctl("port", "add", "wft0", "--type", "tap", "--network", "steady", check=False)
    assert done.returncode == 1 and "wft0" in done.stderr, done.stderr
    assert ports.port("wft0")["error"]
    run("ip", "link", "del", "wft0")
    wait_for(lambda: ports.port("wft0")["error"] is None, 10 * SLOW, lambda: ports.port("wft0")["error"])
    ports.wire["wft0"] = Wire("wft0")
    f = frame(1, 0x103)
    ports.check("wft0", f, {"s3": [f]}, same=False)
    ports.delete("wft0")


def test_row_goes_bad(ab):
    """A row that becomes wrong leaves its port as it was."""
    passes(ab)
    refused(ab, "port", "set", "a", "options:queues=99", says="queues must be a number from 1 to 16")
    assert "queues must be" in ab.port("a")["error"]
    passes(ab)
    ab.weirctl("remove", "Port", "a", "options", "queues")
    assert ab.port("a")["error"] is None
    passes(ab)


def test_two_rows_of_one_name(ab):
    """Hosts may have ports of one name; one switch may not."""
    host, network = ab.weirctl("host", "list", json=True)[0]["name"], ab.row("Network", "blue")["_uuid"]
    done = ab.weirctl("create", "Port", "name=a", f"host={host}", "type=tap", f"network={network}", check=False)
    assert "another row of table Port has the name a too" in done.stderr, done.stderr
    rows = ab.weirctl("find", "Port", "name=a", json=True)
    assert sorted(bool(row["error"]) for row in rows) in ([False, True], [True, True])
    ab.weirctl("destroy", "Port", [row["_uuid"] for row in rows if row["host"]][0])
    passes(ab)


def test_run_time_changes(ab):
    """Mode, MTU and enabled take effect with the next packet; the TAP stays, and with it what its owner has configured on it."""
    index = run("ip", "-o", "link", "show", "dev", "a").split(":")[0]
    passes(ab)
    ab.weirctl("network", "set", "blue", "vlan=5")
    ab.weirctl("port", "set", "b", "vlan_mode=native-tagged")
    ab.check("a", frame(1, BROADCAST), {"b": [frame(1, BROADCAST, 5, size=64)]}, says="port a (access)")
    ab.weirctl("port", "set", "b", "vlan_mode=trunk", "trunks=blue")
    ab.check("b", frame(2, BROADCAST), {}, drop="vlan.NO_NETWORK")
    ab.weirctl("port", "set", "b", "vlan_mode=access", "trunks=")
    passes(ab)
    ab.weirctl("network", "set", "blue", "--mtu", "1000")
    run("ip", "link", "set", "dev", "a", "mtu", "1500")  # or the kernel wouldn't send it
    ab.check("a", frame(1, BROADCAST, size=1015), {}, drop="mtu.TOO_LARGE")
    ab.weirctl("network", "set", "blue", "mtu=")
    ab.weirctl("port", "set", "a", "enabled=false")
    ab.check("a", frame(1, BROADCAST), {}, drop="vlan.DISABLED")
    ab.weirctl("port", "set", "a", "enabled=true")
    passes(ab)
    assert index == run("ip", "-o", "link", "show", "dev", "a").split(":")[0]


def test_rename(ab):
    """A port that is renamed keeps its counters and what was learned; what depends on the name follows."""
    passes(ab)
    received = ab.stats("a")["rx_packets"]
    ab.weirctl("set", "Port", "a", "name=neu")
    assert ab.port("neu")["error"] is None
    assert ab.stats("neu")["rx_packets"] == received and ab.fdb("blue")[mac(1)]["port"] == "neu"
    text = ab.explain("neu", frame(1, BROADCAST))
    assert "port neu (access)" in text
    ab.weirctl("set", "Port", "neu", "name=a")
    assert ab.stats("a")["rx_packets"] == received
    passes(ab)


def test_type_changed(ab):
    ab.wire.pop("a").close()
    ab.weirctl("port", "set", "a", "type=vhost-user")
    assert "not connected" in ab.port("a")["status"]["problem"] and ab.port("a")["link_state"] == "down"
    assert run("ip", "link", "show", "dev", "a", check=False).returncode  # the TAP is gone
    ab.check("b", frame(2, BROADCAST), {}, drop="tx.DISCONNECTED")
    ab.weirctl("port", "set", "a", "type=tap")
    ab.wire["a"] = Wire("a")
    passes(ab)


def test_queues_changed(ab):
    ab.wire.pop("a").close()
    ab.weirctl("port", "set", "a", "options:queues=4")
    ab.wire["a"] = Wire("a")
    assert len([q for q in ab.ask("worker/queues") if q["port"] == "a"]) == 4
    passes(ab)
    ab.wire.pop("a").close()
    ab.weirctl("port", "set", "a", "options:queues=1")
    ab.wire["a"] = Wire("a")
    passes(ab)


def test_no_wait(ab):
    """--no-wait comes back at once, and the switch applies it all the same."""
    ab.weirctl("--no-wait", "network", "set", "blue", "--mtu", "1100")
    wait_for(lambda: ab.port("a")["mtu"] == 1100, 10, lambda: ab.port("a")["mtu"])
    done = ab.weirctl("--no-wait", "port", "set", "a", "options:queues=99", check=False)
    assert done.returncode == 0  # nobody waited for the switch's opinion
    wait_for(lambda: ab.port("a")["error"], 10, "the error of the row")
    ab.weirctl("remove", "Port", "a", "options", "queues", "--", "network", "set", "blue", "mtu=")


@pytest.mark.parametrize("name", ["x.y", "a-b_c", "0", "A" * 15])
def test_odd_names(ports, name):
    ports.tap(name, "--network", "steady")
    f = frame(1, 0x103)
    ports.check(name, f, {"s3": [f]}, same=False, says=f"port {name} (access)")
    ports.delete(name)


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "ü", "x" * 64, "a\"b", "%s%n"])
def test_impossible_names(ports, name):
    """weirctl refuses them; a row that came by another way gets an error."""
    done = ports.weirctl("port", "add", "--type", "tap", "--network", "steady", "--", name, check=False)
    assert done.returncode
    done = ports.weirctl("create", "Port", "type=tap", "name=" + json.dumps(name), check=False)
    rows = [row for row in ports.weirctl("list", "Port", json=True) if row["name"] not in ("s1", "s2", "s3")]
    for row in rows:
        assert row["error"], row
        ports.weirctl("destroy", "Port", row["_uuid"])


def test_database_away(ab):
    """Without its database the switch goes on; changes that were made meanwhile are there when it is back."""
    passes(ab)
    ab._reap(ab.database, 15, 10)
    wait_for(lambda: any(p["what"] == "database" for p in ab.ask("health")["problems"]), 10 * SLOW, "health to say that the database is away")
    passes(ab)
    done = ab.weirctl("--timeout", "1", "network", "add", "red", check=False)
    assert done.returncode
    ab.start_database()
    ab.weirctl("network", "set", "blue", "--unknown-unicast", "drop")
    ab.check("a", frame(1, 77), {}, drop="fdb.UNKNOWN")
    wait_for(lambda: not any(p["what"] == "database" for p in ab.ask("health")["problems"]), 10 * SLOW, "health to be well")
    for name in ("a", "s1"):
        wait_for(lambda n=name: ab.port(n)["link_state"] == "up", 10 * SLOW, f"the status of {name} to be written again")


def test_workers(ports):
    """One worker, two, one again, each while packets flow: the stream of the module sees nothing of it."""
    if len(CORES) < 2:
        pytest.skip("one processor")
    for cores in (f"{CORES[0]},{CORES[1]}", f"{CORES[1]}", f"{CORES[0]}", f"{CORES[0]}-{CORES[1]}", f"{CORES[-1]}"):
        ports.weirctl("config", "set", f"worker-cores={cores}")
        want = {int(c) for c in cores.replace("-", ",").split(",")}
        assert {w["core"] for w in ports.ask("worker/list")} == want
        assert sum(w["queues"] for w in ports.ask("worker/list")) == 3
        exchange(ports)
        ports.check_conservation()
    refused_row = ports.weirctl("config", "set", "worker-cores=4000", check=False)
    assert "worker-cores" in refused_row.stderr or "worker-cores" in str(ports.health()["problems"])
    assert len(ports.ask("worker/list")) == 1
    ports.weirctl("config", "del", "worker-cores")


def test_affinity(ports):
    if len(CORES) < 2:
        pytest.skip("one processor")
    ports.weirctl("config", "set", f"worker-cores={CORES[0]},{CORES[1]}")
    for worker in (0, 1, 0):
        ports.weirctl("port", "set", "s1", f"other_config:rxq-affinity=0:{worker}")
        ports.weirctl("port", "set", "s2", f"other_config:rxq-affinity=0:{1 - worker}")
        assert {q["port"]: q["worker"] for q in ports.ask("worker/queues") if q["port"] != "s3"} == {"s1": worker, "s2": 1 - worker}
        exchange(ports)
    # A worker that isn't there: the queue goes to one that is.
    ports.weirctl("port", "set", "s1", "other_config:rxq-affinity=0:40")
    assert {q["port"] for q in ports.ask("worker/queues")} == {"s1", "s2", "s3"}
    ports.weirctl("remove", "Port", "s1", "other_config", "rxq-affinity", "--", "remove", "Port", "s2", "other_config", "rxq-affinity")
    ports.weirctl("config", "del", "worker-cores")


def test_settings(ports):
    ports.weirctl("config", "set", "flow-limit=4096")
    assert [w["flow_limit"] for w in ports.ask("worker/list")] == [4096]
    for key, value in (("flow-limit", "many"), ("poll", "sometimes"), ("stats-interval", "1"), ("resolve-queue", "0")):
        ports.weirctl("config", "set", f"{key}={value}", check=False)
        host = ports.weirctl("host", "list", json=True)[0]["name"]
        row = ports.row("Host", host)
        assert key in (row["error"] or ""), row
        ports.weirctl("config", "del", key)
    wait_for(lambda: ports.row("Host", ports.weirctl("host", "list", json=True)[0]["name"])["error"] is None, 5, "no error")
    assert [w["flow_limit"] for w in ports.ask("worker/list")] == [1 << 20]


def test_busy_polling(ports):
    ports.weirctl("config", "set", "poll=busy")
    blocks = ports.ask("worker/list")[0]["blocks"]
    exchange(ports)
    assert ports.ask("worker/list")[0]["blocks"] == blocks
    ports.weirctl("config", "del", "poll")


def back(lab):
    for name in ("s1", "s2", "s3"):
        wait_for(lambda n=name: n in {r["port"] for r in lab.ask("port/stats")} and lab.port(n)["link_state"] == "up", 10 * SLOW, f"link of {name}")
        lab.wire[name] = Wire(name)
    f = frame(0x101, 0x103)
    lab.check("s1", f, {"s3": [f]}, says="is static on s3")
    for name in ("s1", "s2", "s3"):
        lab.wire.pop(name).close()


def test_restart(pair):
    """A restart is a reconcile from nothing: the same rows make the same switch."""
    pair.check_conservation()
    pair.wire.pop("s3").close()
    pair.stop_daemon()
    pair.start_daemon()
    back(pair)


def test_unclean_end(pair):
    """Killed and started again: it comes back by itself, whatever is left over."""
    pair.daemon.kill()
    pair.daemon.wait()
    pair.daemon = None
    pair.start_daemon()
    back(pair)
