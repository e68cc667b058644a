"""fdb: what the switch learns of who is where, and what it does with that (pipeline/fdb.c)."""

import pytest

from net import BROADCAST, frame, mac, wait_for


@pytest.fixture
def ports(clean):
    clean.network("blue")
    for name in "abc":
        clean.tap(name, "--network", "blue")
    return clean


def say(lab, port, src, dst=BROADCAST):
    before = lab.stats(port)["rx_packets"]
    lab.wire[port].send(frame(src, dst))
    lab.settle(port, before + 1)
    for wire in lab.wire.values():
        wire.clear()


def test_learning(ports):
    ports.check("a", frame(1, 2), {"b": [frame(1, 2)], "c": [frame(1, 2)]},
                says=[f"source {mac(1)} is new, learned on a", f"destination {mac(2)} is unknown: flood"])
    row = ports.fdb("blue")[mac(1)]
    assert row["port"] == "a" and row["type"] == "learned" and row["moves"] == 0 and row["age"] <= 1
    ports.check("b", frame(2, 1), {"a": [frame(2, 1)]}, says=[f"destination {mac(1)} was learned on a", "output to a"])
    ports.check("a", frame(1, 2), {"b": [frame(1, 2)]}, says=[f"source {mac(1)} is known on a"])
    assert ports.stats("a")["fdb_learned"] == ports.stats("b")["fdb_learned"] == 1


def test_networks_are_apart(ports):
    ports.network("red")
    ports.tap("r", "--network", "red")
    ports.tap("s", "--network", "red")
    say(ports, "a", 1)
    say(ports, "r", 1)
    assert ports.fdb("blue")[mac(1)]["port"] == "a" and ports.fdb("red")[mac(1)]["port"] == "r"
    ports.check("s", frame(2, 1), {"r": [frame(2, 1)]})
    ports.check("b", frame(2, 1), {"a": [frame(2, 1)]})


def test_move(ports):
    say(ports, "a", 1)
    ports.check("c", frame(3, 1), {"a": [frame(3, 1)]})
    ports.check("b", frame(1, BROADCAST), {"a": [frame(1, BROADCAST)], "c": [frame(1, BROADCAST)]}, says=f"source {mac(1)} was on a, moves")
    # The cached flow of c follows at once.
    ports.check("c", frame(3, 1), {"b": [frame(3, 1)]}, says="was learned on b")
    assert ports.fdb()[mac(1)]["moves"] == 1
    assert ports.stats("b")["fdb_moved"] == 1


def test_flapping(ports):
    """After so many moves in the window the address stays where it is, for a while."""
    ports.weirctl("network", "set", "blue", "other_config=flap-threshold=3,flap-window=60,flap-hold=2")
    say(ports, "a", 1)
    for port in "bab":
        say(ports, port, 1)
    refused = ports.stats("a")["fdb_refused"]
    say(ports, "a", 1)
    row = ports.fdb()[mac(1)]
    assert row["port"] == "b" and row["type"] == "flapping" and ports.stats("a")["fdb_refused"] == refused + 1
    ports.check("a", frame(1, 9), {"b": [frame(1, 9)], "c": [frame(1, 9)]}, says=f"source {mac(1)} was on b, held there because it flaps")
    ports.check("c", frame(3, 1), {"b": [frame(3, 1)]})

    def held_no_more():
        say(ports, "a", 1)
        return ports.fdb()[mac(1)]["port"] == "a"
    wait_for(held_no_more, 10, "the address to move again", 0.2)
    ports.check("c", frame(3, 1), {"a": [frame(3, 1)]})


def test_limit_of_the_network(ports):
    ports.weirctl("network", "set", "blue", "--mac-limit", "3")
    for src in range(1, 6):
        say(ports, "a", src)
    assert len(ports.fdb("blue")) == 3 and ports.stats("a")["fdb_refused"] >= 2
    # What isn't learned is forwarded all the same.
    f = frame(9, BROADCAST)
    ports.check("a", f, {"b": [f], "c": [f]})
    ports.check("b", frame(1, 5), {"a": [frame(1, 5)], "c": [frame(1, 5)]}, says="is unknown: flood")
    ports.weirctl("network", "set", "blue", "--mac-limit", "100")

    def learned():
        say(ports, "a", 5)
        return mac(5) in ports.fdb()
    wait_for(learned, 5, "the address to be learned by its cached flow", 0.2)


def test_limit_of_the_port(ports):
    ports.weirctl("port", "set", "a", "--mac-limit", "2")
    for src in (1, 2, 3):
        say(ports, "a", src)
        say(ports, "b", src + 10)
    assert {m for m, row in ports.fdb().items() if row["port"] == "a"} == {mac(1), mac(2)}
    assert {m for m, row in ports.fdb().items() if row["port"] == "b"} == {mac(n) for n in (11, 12, 13)}
    # A move to a full port isn't one; a move away makes room.
    say(ports, "a", 11)
    assert ports.fdb()[mac(11)]["port"] == "b"
    say(ports, "b", 1)
    say(ports, "a", 11)
    wait_for(lambda: say(ports, "a", 11) or ports.fdb()[mac(11)]["port"] == "a", 5, "the move", 0.2)


def test_ageing(ports):
    ports.weirctl("network", "set", "blue", "--ageing", "1")
    say(ports, "a", 1)
    say(ports, "b", 2)
    ports.weirctl("fdb", "add", "blue", mac(7), "c")
    assert mac(1) in ports.fdb()
    # Traffic of a cached flow keeps an address.
    wait_for(lambda: say(ports, "b", 2, 1) or mac(1) not in ports.fdb(), 10, "the idle address to go", 0.1)
    assert mac(2) in ports.fdb() and ports.fdb()[mac(7)]["type"] == "static"
    ports.check("b", frame(2, 1), {"a": [frame(2, 1)], "c": [frame(2, 1)]}, says=f"destination {mac(1)} is unknown: flood")


def test_no_ageing(ports):
    ports.weirctl("network", "set", "blue", "--ageing", "1")
    say(ports, "a", 1)
    ports.weirctl("network", "set", "blue", "--ageing", "0")
    say(ports, "b", 2)
    wait_for(lambda: ports.fdb()[mac(2)]["age"] >= 3, 10, "time to pass")
    assert mac(2) in ports.fdb() and mac(1) in ports.fdb()


def test_static(ports):
    """By the port's addresses and by table FDB: not moved by who claims it, kept by a flush, gone with its row."""
    ports.weirctl("port", "set", "a", f"addresses={mac(1)}")
    ports.weirctl("fdb", "add", "blue", mac(2), "b")
    assert {m: (row["port"], row["type"]) for m, row in ports.fdb().items()} == {mac(1): ("a", "static"), mac(2): ("b", "static")}
    ports.check("a", frame(1, 2), {"b": [frame(1, 2)]}, says=[f"source {mac(1)} is static on a", f"destination {mac(2)} is static on b"])
    ports.check("c", frame(1, 2), {"b": [frame(1, 2)]}, says="is static on a (seen elsewhere, not learned)")
    assert ports.fdb()[mac(1)]["port"] == "a"
    say(ports, "c", 3)
    assert ports.unixctl("fdb/flush") == "1 learned addresses flushed\n"
    assert set(ports.fdb()) == {mac(1), mac(2)}
    ports.weirctl("fdb", "del", "blue", mac(2))
    ports.weirctl("clear", "Port", "a", "addresses")
    assert ports.fdb() == {}
    ports.check("c", frame(3, 1), {"a": [frame(3, 1)], "b": [frame(3, 1)]})


def test_static_takes_over_what_was_learned(ports):
    say(ports, "a", 1)
    ports.check("c", frame(3, 1), {"a": [frame(3, 1)]})
    ports.weirctl("fdb", "add", "blue", mac(1), "b")
    ports.check("c", frame(3, 1), {"b": [frame(3, 1)]}, says="is static on b")
    ports.weirctl("fdb", "del", "blue", mac(1))
    say(ports, "a", 1)
    ports.check("c", frame(3, 1), {"a": [frame(3, 1)]}, says="was learned on a")


def test_static_twice(ports):
    ports.weirctl("port", "set", "a", f"addresses={mac(1)}")
    done = ports.weirctl("fdb", "add", "blue", mac(1), "b", check=False)
    assert done.returncode and f"the address {mac(1)} is already static on port a by Port a" in done.stderr, done.stderr
    assert ports.fdb()[mac(1)]["port"] == "a"
    ports.weirctl("clear", "Port", "a", "addresses")
    assert ports.fdb()[mac(1)]["port"] == "b"
    ports.weirctl("fdb", "del", "blue", mac(1))


def test_static_elsewhere(ports):
    ports.network("red")
    done = ports.weirctl("fdb", "add", "red", mac(1), "a", check=False)
    assert done.returncode and "port a is not in network red" in done.stderr
    ports.weirctl("fdb", "del", "red", mac(1))


def test_unknown_unicast_dropped(ports):
    ports.weirctl("network", "set", "blue", "--unknown-unicast", "drop")
    ports.check("a", frame(1, 2), {}, drop="fdb.UNKNOWN", says="is unknown: not flooded here")
    f = frame(1, BROADCAST)
    ports.check("a", f, {"b": [f], "c": [f]})
    say(ports, "b", 2)
    ports.check("a", frame(1, 2), {"b": [frame(1, 2)]})
    ports.weirctl("network", "set", "blue", "--unknown-unicast", "flood")
    ports.check("a", frame(1, 99), {"b": [frame(1, 99)], "c": [frame(1, 99)]})


def test_no_learning(ports):
    ports.weirctl("network", "set", "blue", "--no-learning")
    ports.check("a", frame(1, 2), {"b": [frame(1, 2)], "c": [frame(1, 2)]}, says=f"source {mac(1)} is not learned")
    assert ports.fdb() == {}
    ports.weirctl("network", "set", "blue", "learning=true")
    ports.check("a", frame(1, 2), {"b": [frame(1, 2)], "c": [frame(1, 2)]}, says="is new, learned on a")


def test_flush(ports):
    ports.network("red")
    ports.tap("r", "--network", "red")
    say(ports, "a", 1)
    say(ports, "r", 2)
    ports.check("b", frame(3, 1), {"a": [frame(3, 1)]})
    assert ports.ask("fdb/flush", "blue") == {"flushed": 2}
    assert set(ports.fdb()) == {mac(2)}
    ports.check("b", frame(3, 1), {"a": [frame(3, 1)], "c": [frame(3, 1)]}, says="is unknown: flood")
    done = ports.weirctl("fdb", "flush", "grey", check=False)
    assert done.returncode and "there is no network grey" in done.stderr


def test_removal_of_the_network(ports):
    ports.network("red")
    ports.tap("r", "--network", "red")
    say(ports, "r", 1)
    ports.delete("r")
    assert ports.fdb() == {}
    ports.weirctl("network", "del", "red")
    ports.network("red")
    ports.tap("r", "--network", "red")
    assert ports.fdb("red") == {}


def test_many_addresses(ports):
    """A thousand, by one port, each known to another; all of them leave with the port."""
    before = ports.stats("a")["rx_packets"]
    for n in range(1000):
        ports.wire["a"].send(frame(1000 + n, BROADCAST))
        if n % 100 == 99:
            ports.settle("a", before + n + 1)
    wait_for(lambda: len(ports.fdb()) == 1000, 5, lambda: f"1000 addresses, not {len(ports.fdb())}")
    assert ports.stats("a")["fdb_learned"] == 1000
    ports.check("b", frame(1, 1500), {"a": [frame(1, 1500)]})
    ports.delete("a")
    assert set(ports.fdb()) == {mac(1)}


def test_list_filters(ports):
    for n, port in ((1, "a"), (2, "b"), (0x102, "b")):
        say(ports, port, n)
    assert set(ports.fdb("blue")) == {mac(1), mac(2), mac(0x102)}

    def listed(*words):
        return {row["mac"] for row in ports.weirctl("fdb", "list", *words, json=True)}
    assert listed("--port", "b") == {mac(2), mac(0x102)} and listed("--port", "b", "--mac", mac(2).upper(), "blue") == {mac(2)}
    assert listed("--mac", mac(2)[:14]) == {mac(1), mac(2)} and listed("blue", "--limit", "1") < {mac(1), mac(2), mac(0x102)}
    for words, sentence in ((["--port", "x"], "no port x"), (["--port"], "--port wants a value"), (["--age", "3"], "fdb list takes"), (["blue", "red"], "fdb list takes")):
        done = ports.weirctl("fdb", "list", *words, check=False)
        assert done.returncode == 1 and sentence in done.stderr, done
