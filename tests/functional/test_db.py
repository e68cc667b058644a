"""The database client (vswitch/db*.c) against a real ovsdb-server, and the control socket."""

import contextlib
import itertools
import json
import signal
import socket
import subprocess
import time

import pytest

from database import BUILD, SCHEMA, Dump, Server, a_map, a_set, ref, wait_for

MAC = "52:54:00:00:00:01"


@pytest.fixture
def things(tmp_path):
    """Started with make(); all are stopped at the end."""
    with contextlib.ExitStack() as made:  # stops the rest too, if one has crashed

        def make(kind, *args, **kwargs):
            thing = kind(*args, **kwargs)
            made.callback(thing.stop)
            return thing

        make.folder = tmp_path
        yield make


@pytest.fixture
def server(things):
    server = things(Server, things.folder)
    server.insert("Weir")
    return server


def dump_of(things, server, host="h1", **kwargs):
    remote = server if isinstance(server, str) else server.remote
    return things(Dump, remote, host, folder=things.folder, **kwargs)


@pytest.fixture
def dump(things, server):
    dump = dump_of(things, server)
    dump.in_order()
    return dump


def applied(server, dump, *operations, host="h1"):
    """Commits and waits for the handshake, as weirctl does."""
    generation = server.commit(*operations)
    dump.until(lambda d: d.config["next_cfg"] == generation, f"the config of generation {generation}")
    wait_for(lambda: (server.row("Host", host) or {}).get("cur_cfg") == generation, f"cur_cfg {generation}")
    return generation


def insert(table, **columns):
    return {"op": "insert", "table": table, "row": columns}


def a_port(name, **columns):
    return insert("Port", name=name, **columns)


# ---- what a row becomes


def test_defaults(server, dump):
    applied(server, dump, {**insert("Network", name="blue"), "uuid-name": "n"}, a_port("vm1", network=["named-uuid", "n"]))
    net, port = dump.network("blue"), dump.port("vm1")
    assert net == {"row": server.row("Network", "blue")["_uuid"], "name": "blue", "vlan": 0, "vni": 0, "mtu": 1500, "learning": True,
                   "flood_unknown": True, "forward_bpdu": False, "ageing": 300, "mac_limit": 8192, "flap_threshold": 5,
                   "flap_window": 10, "flap_hold": 30, "tunnel": "vxlan", "flood_to": [], "arp_proxy": False, "multicast": {}, "error": None}
    assert port == {"row": server.row("Port", "vm1")["_uuid"], "name": "vm1", "type": "vhost-user", "options": {}, "other_config": {},
                    "external_ids": {}, "enabled": True, "network": net["row"], "vlan_mode": "access", "trunks": [], "cvlans": [],
                    "addresses": [], "mtu": 0, "isolated": False, "multicast_router": "never", "mac_limit": 0, "storm_broadcast": [0, 0],
                    "storm_multicast": [0, 0], "storm_unknown": [0, 0], "error": None}


def test_every_column(server, dump):
    red = server.insert("Network", name="red", vlan=7, vni=16777215, mtu=9000, learning=False, ageing=0, mac_limit=10,
                        unknown_unicast="drop", tunnel="gre", flood_to=a_set("192.0.2.9", "2001:db8::9"), arp_proxy=True,
                        multicast=a_map(snooping="true", query_interval="60"), other_config=a_map(flap_threshold="0", flap_window="3", flap_hold="4",
                                                                   forward_bpdu="true"))
    blue = server.insert("Network", name="blue", vlan=8)
    port = server.insert(
        "Port", name="t1", type="tap", options=a_map(iface="eth9", queues="2"), network=ref(red), vlan_mode="native-untagged",
        trunks=a_set(ref(red), ref(blue)), addresses=a_set(MAC, "52:54:00:00:00:0A 10.0.0.1 fd00::1"), enabled=False, isolated=True, multicast_router="always",
        mtu_request=1400, mac_limit=3, external_ids=a_map(owner="me"), other_config=a_map(rxq_affinity="0:1,1:2", more="x"),
        storm_control=a_map(broadcast="100", multicast="200", multicast_burst="50", unknown_unicast="4294967295"))
    q = server.insert("Port", name="q1", network=ref(red), vlan_mode="dot1q-tunnel", cvlans=a_set(0, 4095, 7))
    entry = server.insert("FDB", network=ref(blue), mac="02:00:00:00:00:FF", port=ref(port))
    applied(server, dump)
    net, t1, q1 = dump.network("red"), dump.port("t1"), dump.port("q1")
    assert net == {"row": red, "name": "red", "vlan": 7, "vni": 16777215, "mtu": 9000, "learning": False, "flood_unknown": False,
                   "forward_bpdu": True, "ageing": 0, "mac_limit": 10, "flap_threshold": 0, "flap_window": 3, "flap_hold": 4,
                   "tunnel": "gre", "flood_to": ["192.0.2.9", "2001:db8::9"], "arp_proxy": True,
                   "multicast": {"snooping": "true", "query-interval": "60"}, "error": None}
    assert set(t1.pop("trunks")) == {red, blue}
    assert sorted(t1.pop("addresses")) == [MAC, "52:54:00:00:00:0a 10.0.0.1 fd00::1"]
    assert t1 == {"row": port, "name": "t1", "type": "tap", "options": {"iface": "eth9", "queues": "2"},
                  "other_config": {"rxq-affinity": "0:1,1:2", "more": "x"}, "external_ids": {"owner": "me"}, "enabled": False,
                  "network": red, "vlan_mode": "native-untagged", "cvlans": [], "mtu": 1400, "isolated": True, "multicast_router": "always", "mac_limit": 3,
                  "storm_broadcast": [100, 100], "storm_multicast": [200, 50], "storm_unknown": [4294967295, 4294967295],
                  "error": None}
    assert q1["row"] == q and q1["vlan_mode"] == "dot1q-tunnel" and sorted(q1["cvlans"]) == [0, 7, 4095] and q1["error"] is None
    assert dump.config["fdb"] == [{"row": entry, "network": blue, "port": port, "mac": "02:00:00:00:00:ff", "error": None}]


BAD_PORTS = [
    ({"name": "../vm"}, 'name: "../vm" isn\'t 1 to 63 letters, digits and ._- that begin with a letter or digit'),
    ({"name": ""}, 'name: "" isn\'t 1 to 63 letters'),
    ({"name": "a" * 64}, "name: "),
    ({"addresses": "52:54:00:00:00"}, 'addresses: "52:54:00:00:00" doesn\'t begin with an Ethernet address'),
    ({"addresses": "52:54:00:00:00:01:02"}, "addresses: "),
    ({"addresses": "01:00:5e:00:00:01"}, 'addresses: "01:00:5e:00:00:01" isn\'t the Ethernet address of one station'),
    ({"addresses": "00:00:00:00:00:00"}, "addresses: "),
    ({"addresses": MAC + " 10.0.0"}, f'addresses: "10.0.0" in "{MAC} 10.0.0" is no IPv4 or IPv6 address'),
    ({"addresses": MAC + " 10.0.0.1 " + "1" * 100}, "addresses: "),
    ({"addresses": ""}, "addresses: "),
    ({"storm_control": a_map(broadcast="abc")}, 'storm_control: broadcast must be a number of packets per second, not "abc"'),
    ({"storm_control": a_map(broadcast="-1")}, "storm_control: broadcast must be a number of packets per second"),
    ({"storm_control": a_map(broadcast="4294967296")},
     'storm_control: broadcast must be a number from 1 to 4294967295 packets per second, not "4294967296"'),
    ({"storm_control": a_map(broadcast="9" * 30)}, "storm_control: broadcast must be"),
    ({"storm_control": a_map(brodcast="1")}, 'storm_control: there is no key "brodcast"'),
    ({"storm_control": a_map(multicast_burst="5")}, "storm_control: multicast-burst is set, but multicast isn't"),
    ({"options": a_map(queues="17")}, 'options: queues must be a number from 1 to 16, not "17"'),
    ({"options": a_map(queues="")}, "options: queues must be a number"),
    ({"options": a_map(pth="/x")}, 'options: there is no key "pth"'),
    ({"options": a_map(path="x.sock")}, 'options: path must be an absolute path, not "x.sock"'),
    ({"options": a_map(path="/" + "x" * 200)}, "options: path is longer than the 107 bytes"),
    ({"options": a_map(mode="Server")}, 'options: mode must be one of client server, not "Server"'),
    ({"options": a_map(permissions="888")}, 'options: permissions must be an octal number up to 0777, not "888"'),
    ({"options": a_map(permissions="7777")}, "options: permissions must be"),
    ({"options": a_map(tso="yes")}, 'options: tso must be true or false, not "yes"'),
    ({"options": a_map(mtu="1400")}, 'options: there is no key "mtu"'),
    ({"type": "tap", "options": a_map(path="/x")}, "options: path isn't for ports of type tap"),
    ({"type": "dpdk"}, "options: a port of type dpdk needs devargs"),
    ({"type": "kernel", "options": a_map(driver="pcap")}, "options: driver must be one of af_packet af_xdp"),
    ({"other_config": a_map(rxq_affinity="0:1,")}, 'other_config: rxq-affinity must be a list of pairs such as 0:1,1:2, not "0:1,"'),
    ({"vlan_mode": "access", "network": a_set()}, "network: vlan_mode access needs one"),
    ({"vlan_mode": "native-tagged", "network": a_set()}, "network: vlan_mode native-tagged needs one"),
    ({"vlan_mode": "dot1q-tunnel", "network": a_set()}, "network: vlan_mode dot1q-tunnel needs one"),
    ({"trunks": "NET"}, "trunks: only a port of vlan_mode trunk, native-tagged or native-untagged has them"),
    ({"cvlans": 5}, "cvlans: only a port of vlan_mode dot1q-tunnel has them"),
]


def test_bad_ports(server, dump):
    """Each says what is wrong, and hurts no other."""
    net = server.insert("Network", name="blue")
    operations, wanted = [], []
    for i, (columns, text) in enumerate(BAD_PORTS):
        columns = {"name": f"bad{i}", "network": ref(net), **columns}
        if columns.get("trunks") == "NET":
            columns["trunks"] = ref(net)
        operations.append(insert("Port", **columns))
        wanted.append((columns["name"], text))
    applied(server, dump, *operations, a_port("good", network=ref(net), addresses=MAC))
    assert len(dump.config["ports"]) == len(BAD_PORTS) + 1
    for name, text in wanted:
        error = dump.port(name)["error"]
        assert error and error.startswith(text), (name, error)
        # The error is in the database when cur_cfg is.
        assert server.row("Port", name)["error"] == error
    assert dump.port("good")["error"] is None and server.row("Port", "good")["error"] is None


def test_error_goes_when_row_is_mended(server, dump):
    applied(server, dump, a_port("vm1", addresses="junk"), insert("Network", name="n 1"),
            insert("Network", name="ok", other_config=a_map(flap_hold="0", forward_bpdu="1")))
    assert "junk" in server.row("Port", "vm1")["error"]
    assert server.row("Network", "n 1")["error"].startswith('name: "n 1"')
    assert server.row("Network", "ok")["error"] == 'other_config: flap-hold must be a number from 1 to 86400 seconds, not "0"'
    # A value that can't be read leaves the default.
    assert dump.network("ok")["flap_hold"] == 30 and dump.network("ok")["forward_bpdu"] is False
    applied(server, dump, {"op": "update", "table": "Port", "where": [], "row": {"addresses": MAC}},
            {"op": "update", "table": "Network", "where": [["name", "==", "n 1"]], "row": {"name": "n1"}},
            {"op": "update", "table": "Network", "where": [["name", "==", "ok"]], "row": {"other_config": a_map()}})
    assert server.row("Port", "vm1")["error"] is None
    assert [n["error"] for n in server.rows("Network")] == [None, None]


def test_static_entries(server, dump):
    net = server.insert("Network", name="blue")
    port = server.insert("Port", name="vm1", network=ref(net))
    other = server.insert("Port", name="vm1", host="h2", network=ref(net))
    for mac in ("junk", "01:00:00:00:00:01", MAC):
        server.insert("FDB", network=ref(net), mac=mac, port=ref(port))
    server.insert("FDB", network=ref(net), mac="02:00:00:00:00:02", port=ref(other))
    applied(server, dump)
    fdb = {f["mac"]: f for f in dump.config["fdb"]}
    assert fdb[MAC]["port"] == port and fdb[MAC]["error"] is None
    # The port of another switch isn't there, which is no error here.
    assert fdb["02:00:00:00:00:02"]["port"] is None and fdb["02:00:00:00:00:02"]["error"] is None
    assert {f["mac"]: f["error"] for f in server.rows("FDB")} == {
        MAC: None, "02:00:00:00:00:02": None, "junk": 'mac: "junk" is no Ethernet address',
        "01:00:00:00:00:01": "mac: 01:00:00:00:00:01 isn't the Ethernet address of one station"}
    # A port can be deleted although an entry names it; the entry says so.
    applied(server, dump, {"op": "delete", "table": "Port", "where": [["_uuid", "==", ref(port)]]})
    assert [f["error"] for f in server.rows("FDB", ["mac", "==", MAC])] == [
        "port: the port is gone, or was never set; set it or delete this entry"]


def test_schema_refuses_what_it_can(server):
    net = server.insert("Network", name="blue")
    server.insert("Port", name="vm1", network=ref(net))
    constraint = "constraint violation"
    for table, row in [("Network", {"name": "blue"}), ("Network", {"name": "x", "vlan": 4095}), ("Network", {"name": "x", "vni": 1 << 24}),
                       ("Network", {"name": "x", "mtu": 67}), ("Network", {"name": "x", "unknown_unicast": "learn"}),
                       ("Port", {"name": "vm1"}), ("Port", {"name": "x", "cvlans": 4096}), ("Port", {"name": "x", "type": "veth"}),
                       ("Port", {"name": "x", "vlan_mode": "trunks"}), ("Weir", {}), ("Host", {"name": "a", "cur_cfg": "x"})]:
        assert server.refuses(insert(table, **row)) in (constraint, "syntax error"), (table, row)
    # A network with ports can't be deleted by mistake.
    assert server.refuses({"op": "delete", "table": "Network", "where": []}) == "referential integrity violation"
    server.delete("Port")
    server.delete("Network")


# ---- order, hosts, settings


def test_any_order_of_rows(server, dump):
    """Transactions in every order lead to the same config."""
    steps = {
        "network": insert("Network", name="blue", vlan=5),
        "port": a_port("vm1", vlan_mode="trunk"),
        "other": insert("Network", name="red", vlan=6),
    }
    for order in itertools.permutations(steps):
        for step in order:
            applied(server, dump, steps[step])
        blue, red = (server.row("Network", n)["_uuid"] for n in ("blue", "red"))
        applied(server, dump, {"op": "update", "table": "Port", "where": [], "row": {"trunks": a_set(ref(blue), ref(red))}})
        assert [n["name"] for n in dump.config["networks"]] == ["blue", "red"]
        assert set(dump.port("vm1")["trunks"]) == {blue, red} and dump.port("vm1")["error"] is None
        applied(server, dump, *({"op": "delete", "table": t, "where": []} for t in ("Port", "Network")))
        assert dump.config["networks"] == dump.config["ports"] == []


def test_ports_of_this_host_only(things, server, dump):
    second = dump_of(things, server, "h2")
    second.in_order()
    applied(server, dump, a_port("all"), a_port("one", host="h1"), a_port("two", host="h2"), a_port("three", host="h3"))
    second.until(lambda d: d.config["next_cfg"] == dump.config["next_cfg"], "the config at h2")
    assert [p["name"] for p in dump.config["ports"]] == ["all", "one"]
    assert [p["name"] for p in second.config["ports"]] == ["all", "two"]
    # A port moves, as with a live migration.
    applied(server, dump, {"op": "update", "table": "Port", "where": [["name", "==", "one"]], "row": {"host": "h2"}})
    second.until(lambda d: d.port("one"), "port one at h2")
    assert dump.port("one") is None
    assert {h["name"] for h in server.rows("Host")} == {"h1", "h2"}
    wait_for(lambda: server.row("Port", "two")["link_state"] == "down", "the state of h2's port")
    assert server.row("Port", "three")["link_state"] is None


def test_two_switches_do_not_fight_over_shared_rows(things, server, dump):
    second = dump_of(things, server, "h2")
    second.in_order()
    applied(server, dump, a_port("all"))
    second.until(lambda d: d.port("all"), "the port at h2")
    for d in (dump, second):
        d.say("interval 100")
    dump.say("port all up - who=h1")
    wait_for(lambda: server.row("Port", "all")["status"] == {"who": "h1"}, "h1's status")
    second.say("port all down - who=h2")
    wait_for(lambda: server.row("Port", "all")["status"] == {"who": "h2"}, "h2's status")
    # Several intervals of both later (their statistics pass) it is still what was written last.
    for d in (dump, second):
        for i in range(3):
            d.say(f"stats all n={i}")
            wait_for(lambda: server.row("Port", "all")["statistics"] == {"n": i}, "the statistics")
    assert server.row("Port", "all")["status"] == {"who": "h2"}


def test_settings_overlay(server, dump):
    server.transact({"op": "update", "table": "Weir", "where": [],
                     "row": {"other_config": a_map(flow_limit="5000", poll="busy", custom="1", sleep_max_us="70")}})
    server.update("Host", "h1", other_config=a_map(flow_limit="6000", worker_cores="1-3,5", poll="always"))
    applied(server, dump)
    assert dump.config["other_config"] == {"flow-limit": "6000", "poll": "busy", "custom": "1", "sleep-max-us": "70",
                                           "worker-cores": "1-3,5"}
    assert server.row("Host", "h1")["error"] == 'other_config: poll must be one of adaptive busy, not "always"'
    server.transact({"op": "update", "table": "Weir", "where": [], "row": {"other_config": a_map(flow_limit="12", mbufs="x")}})
    server.update("Host", "h1", other_config=a_map(worker_cores="3-1"))
    applied(server, dump)
    assert dump.config["other_config"] == {}
    server.update("Host", "h1", other_config=a_map())
    applied(server, dump)
    assert server.row("Host", "h1")["error"].startswith("table Weir: other_config: flow-limit must be a number from 1024 to")
    server.transact({"op": "update", "table": "Weir", "where": [], "row": {"other_config": a_map()}})
    applied(server, dump)
    assert server.row("Host", "h1")["error"] is None


# ---- what is written back


def test_handshake(server, dump):
    dump.say("apply off")
    generation = server.commit(a_port("vm1", addresses="x"))
    dump.until(lambda d: d.config["next_cfg"] == generation, "the config")
    host = server.row("Host", "h1")
    assert host["cur_cfg"] < generation and server.row("Port", "vm1")["error"] is None
    dump.say("apply on")
    wait_for(lambda: server.row("Host", "h1")["cur_cfg"] == generation, "cur_cfg")
    assert server.row("Port", "vm1")["error"]
    assert server.rows("Weir")[0]["cur_cfg"] == generation


def test_write_back(server, dump):
    applied(server, dump, a_port("vm1", host="h1"))
    configs = dump.configs
    dump.say("port vm1 up no_guest state=waiting mac=ab")
    wait_for(lambda: server.row("Port", "vm1")["link_state"] == "up", "link_state")
    wait_for(lambda: server.row("Port", "vm1")["error"] == "no_guest", "error")
    row = server.row("Port", "vm1")
    assert row["status"] == {"state": "waiting", "mac": "ab"} and row["port_number"] == 1 and row["mtu"] == 1500
    dump.say("interval 100")
    dump.say("stats vm1 rx=1 tx=9223372036854775807")
    wait_for(lambda: server.row("Port", "vm1")["statistics"] == {"rx": 1, "tx": 9223372036854775807}, "statistics")
    dump.say("host version=1.2")
    wait_for(lambda: server.row("Host", "h1")["status"] == {"version": "1.2"}, "the host's status")
    # Somebody else writes over what is the switch's own: it comes back.
    server.update("Port", "vm1", status=a_map(state="stolen"), link_state="down")
    wait_for(lambda: server.row("Port", "vm1")["status"] == {"state": "waiting", "mac": "ab"}, "the switch's status")
    assert server.row("Port", "vm1")["link_state"] == "up"
    dump.say("port vm1 down -")
    wait_for(lambda: server.row("Port", "vm1")["error"] is None, "no error")
    assert server.row("Port", "vm1")["status"] == {}
    # What the switch writes is no change of its configuration.
    assert dump.poll().configs == configs


class Monitor:
    """Counts the updates of a column that the server sends."""

    def __init__(self, server, table, column):
        self.process = subprocess.Popen(["ovsdb-client", "--format=json", "monitor", server.remote, "Weir", table, column],
                                        stdout=subprocess.PIPE, text=True)
        assert json.loads(self.process.stdout.readline())["data"]

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()

    def updates(self, last):
        """The updates up to the one that has the text `last`, which is known to be in the database."""
        lines = []
        while last not in (line := self.process.stdout.readline()):
            assert line, "the monitor has ended"
            lines += [line] if '"new"' in line else []
        return lines + [line]


def test_statistics_are_bounded(things, server, dump):
    """Of many updates only those at the interval go out."""
    applied(server, dump, a_port("vm1", host="h1"))
    monitor = things(Monitor, server, "Port", "statistics")
    begin = time.monotonic()
    dump.say("interval 1500")
    for i in range(20):
        dump.say(f"stats vm1 n={i}")
        dump.say(f"port vm1 up - n={i}")  # goes out at once, in a transaction that must leave the statistics alone
        wait_for(lambda: server.row("Port", "vm1")["status"] == {"n": str(i)}, "the status")
    wait_for(lambda: server.row("Port", "vm1")["statistics"] == {"n": 19}, "the last statistics")
    limit = (time.monotonic() - begin) / 1.5 + 2
    updates = monitor.updates('["n",19]')
    assert len(updates) <= limit, updates


def test_status_is_bounded(things, server):
    """A port whose status changes all the time is written at most every 20 ms."""
    path = str(things.folder / "control.sock")
    dump = dump_of(things, server, control=path)
    dump.in_order()
    applied(server, dump, a_port("vm1", host="h1"))
    monitor = things(Monitor, server, "Port", "status")
    begin = time.monotonic()
    for i in range(100):
        dump.say(f"port vm1 up - n={i}")
        assert appctl(path, "echo").returncode == 0  # the switch has been through its loop
    wait_for(lambda: server.row("Port", "vm1")["status"] == {"n": "99"}, "the last status")
    limit = (time.monotonic() - begin) / 0.02 + 2
    updates = monitor.updates('["n","99"]')
    assert 2 <= len(updates) <= limit, (len(updates), limit)


def test_host_row_comes_back(server, dump):
    applied(server, dump)
    server.delete("Host", ["name", "==", "h1"])
    wait_for(lambda: server.row("Host", "h1"), "the host's row")
    wait_for(lambda: server.row("Host", "h1")["cur_cfg"] == dump.poll().config["next_cfg"], "its cur_cfg")


def test_bytes_that_are_no_utf8(server, dump):
    """One bad byte must not hold up everything else."""
    applied(server, dump, a_port("vm1", host="h1"))
    dump.process.stdin.write(b"port vm1 up - name=a\xffb\n")
    wait_for(lambda: server.row("Port", "vm1")["status"] == {"name": "a?b"}, "the status")


# ---- a server that comes and goes


def test_server_restart(server, dump):
    applied(server, dump, a_port("vm1", host="h1"))
    dump.say("port vm1 up - state=fine")
    wait_for(lambda: server.row("Port", "vm1")["link_state"] == "up", "link_state")
    before = dump.poll().config
    server.stop()
    dump.until(lambda d: d.problem and "not connected" in d.problem, "a problem")
    assert dump.config == before
    server.start()
    dump.until(lambda d: d.problem is None, "the connection")
    # Ephemeral columns are lost with the server, and come back.
    wait_for(lambda: server.row("Port", "vm1")["link_state"] == "up", "link_state after the restart")
    assert server.row("Port", "vm1")["status"] == {"state": "fine"}
    # It converges on what changes after that.
    applied(server, dump, a_port("vm2"))
    assert [p["name"] for p in dump.config["ports"]] == ["vm1", "vm2"]


def test_change_while_away(things, server, dump):
    """A switch that was disconnected sees afterwards what changed meanwhile."""
    applied(server, dump, a_port("vm1"), a_port("vm2"))
    server.stop()
    dump.until(lambda d: d.problem, "a problem")
    configs = dump.configs
    hidden = things(Server, things.folder, name="hidden", create=False)
    hidden.file = server.file
    hidden.start()
    hidden.delete("Port", ["name", "==", "vm1"])
    generation = hidden.commit(a_port("vm3"))
    hidden.stop()
    assert dump.poll().configs == configs
    server.start()
    dump.until(lambda d: d.config["next_cfg"] == generation, "the new generation")
    assert [p["name"] for p in dump.config["ports"]] == ["vm2", "vm3"]


def test_emptied_database_is_not_applied(server, dump):
    applied(server, dump, a_port("vm1"))
    configs = dump.configs
    server.stop()
    server.create()
    server.start()
    dump.until(lambda d: d.problem and "table Weir has no row, though it had one before" in d.problem, "a problem")
    # Somebody fills it: it is another database, which takes a restart of the switch.
    server.insert("Weir")
    dump.until(lambda d: d.problem and "isn't the database that was applied before" in d.problem, "another problem")
    server.insert("Port", name="other")
    assert dump.poll().configs == configs and [p["name"] for p in dump.config["ports"]] == ["vm1"]
    assert server.rows("Host") == [] and server.row("Port", "other")["link_state"] is None


def test_root_row_deleted(server, dump):
    applied(server, dump, a_port("vm1"))
    configs = dump.configs
    server.delete("Weir")
    server.delete("Port")
    dump.until(lambda d: d.problem and "table Weir has no row" in d.problem, "a problem")
    assert dump.configs == configs


def test_waits_for_the_root_row(things):
    server = things(Server, things.folder)
    server.insert("Port", name="vm1")
    dump = dump_of(things, server)
    dump.until(lambda d: d.problem and d.problem.endswith("table Weir has no row; weirctl init adds it"), "a problem")
    assert server.rows("Host") == [] and dump.config is None
    server.insert("Weir", next_cfg=3)
    wait_for(lambda: (server.row("Host", "h1") or {}).get("cur_cfg") == 3, "the handshake")
    assert dump.in_order() and dump.port("vm1")


def test_other_schema(things):
    """A database called Weir that lacks a table or a column is refused in words."""
    folder = things.folder
    full = json.loads(SCHEMA.read_text())
    old = json.loads(SCHEMA.read_text())
    del old["tables"]["FDB"]
    older = json.loads(SCHEMA.read_text())
    del older["tables"]["Port"]["columns"]["isolated"]
    for i, (schema, text) in enumerate([(old, "its schema has no table FDB"), (older, "its schema has no column isolated in table Port")]):
        path = folder / f"schema{i}"
        path.write_text(json.dumps(schema))
        server = things(Server, folder, name=f"old{i}", schema=path)
        server.insert("Weir")
        dump = dump_of(things, server, f"h{i}")
        dump.until(lambda d: d.problem and text in d.problem, text)
        assert dump.config is None
        # Converted, it is applied.
        path.write_text(json.dumps(full))
        subprocess.run(["ovsdb-client", "convert", server.remote, path], check=True)
        server.stop()
        server.start()
        dump.in_order()


def test_no_such_database(things):
    folder = things.folder
    schema = folder / "schema"
    schema.write_text(json.dumps({"name": "Other", "version": "1.0.0", "tables": {"T": {"columns": {"a": {"type": "integer"}}}}}))
    server = things(Server, folder, schema=schema)
    dump = dump_of(things, server)
    dump.until(lambda d: any('database "Weir" isn\'t there' in (e.get("problem") or "") for e in d.events), "a problem")
    assert dump.config is None


def test_two_endpoints_one_dead(things, server):
    remote = f"unix:{things.folder}/nobody.sock,{server.remote}"
    dump = dump_of(things, remote)
    dump.in_order()
    applied(server, dump, a_port("vm1"))
    assert dump.port("vm1")


def test_ssl(things):
    """Both ends show certificates of the same authority; without one of it there is no connection."""
    folder = things.folder

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca-key.pem", "-out", "ca.pem", "-days", "2", "-subj", "/CN=authority")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=switch")
    openssl("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2", "-out", "cert.pem")
    server = things(Server, folder, options=["--remote=pssl:0:127.0.0.1", f"--private-key={folder}/key.pem",
                                             f"--certificate={folder}/cert.pem", f"--ca-cert={folder}/ca.pem"])
    server.insert("Weir")
    port = int(subprocess.run(["ss", "-Htlnp"], capture_output=True, text=True, check=True).stdout.split(
        f"pid={server.process.pid},")[0].splitlines()[-1].split()[3].rsplit(":", 1)[1])
    remote = f"ssl:127.0.0.1:{port}"
    dump = dump_of(things, remote, env={"DBDUMP_CERTIFICATES": str(folder)})
    dump.in_order()
    without = dump_of(things, remote, "h2")
    without.until(lambda d: "Private key must be configured" in d.log(), "a refusal")
    assert without.poll().config is None and without.problem


def test_cluster(things):
    """Three members; the one that the switch uses dies, and it goes on with another."""
    folder = things.folder
    members = [things(Member, folder, i) for i in range(3)]
    for m in members:
        m.join(members)
        m.start()
        m.insert("Weir") if m is members[0] else m.joined()
    dump = dump_of(things, ",".join(m.remote for m in members))
    dump.in_order()
    applied(members[0], dump, a_port("vm1"))
    for victim in members:
        victim.stop(hard=True)
        rest = [m for m in members if m is not victim]
        wait_for(lambda: rest[0].accepts(), "a leader")
        generation = rest[0].commit()
        dump.until(lambda d: d.problem is None and d.config["next_cfg"] == generation, f"generation {generation}")
        wait_for(lambda: rest[0].row("Host", "h1")["cur_cfg"] == generation, "cur_cfg")
        assert dump.port("vm1")
        victim.start()
        victim.joined()


class Member(Server):
    """One server of a cluster on loopback."""

    def __init__(self, folder, number):
        super().__init__(folder, name=f"member{number}", create=False)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.raft = f"tcp:127.0.0.1:{s.getsockname()[1]}"

    def join(self, members):
        if self is members[0]:
            subprocess.run(["ovsdb-tool", "--election-timer=1000", "create-cluster", self.file, SCHEMA, self.raft], check=True)
        else:
            subprocess.run(["ovsdb-tool", "join-cluster", self.file, "Weir", self.raft, members[0].raft], check=True)

    def joined(self):
        wait_for(lambda: subprocess.run(["ovsdb-client", "-t", "5", "wait", self.remote, "Weir", "connected"],
                                        capture_output=True).returncode == 0, "the member to join")

    def accepts(self):
        """Whether the cluster takes a transaction; without a leader the request isn't answered."""
        done = subprocess.run(["ovsdb-client", "-t", "2", "transact", self.remote, json.dumps(["Weir", {"op": "mutate", "table": "Weir",
                               "where": [], "mutations": [["next_cfg", "+=", 1]]}])], capture_output=True, text=True)
        return done.returncode == 0 and "error" not in done.stdout


def test_garbage(server, dump):
    """Rows of nonsense in every text column, many at once: all are listed, and good ones are untouched."""
    junk = ["", " ", "\u0000"[:0] + "%s%n", "é", "-", "0x10", "1e9", "99999999999999999999", "true ", ":", ",", "a" * 10000, "\n", "\"'\\"]
    net = server.insert("Network", name="good")
    operations = []
    for i, text in enumerate(junk):
        operations.append(insert("Network", name=f"n{i}{text}", other_config=["map", [[k, text] for k in (
            "flap-threshold", "flap-window", "flap-hold", "forward-bpdu", text)]]))
        operations.append(a_port(f"p{i}", addresses=a_set(text, MAC + text), network=ref(net), options=["map", [[k, text] for k in (
            "path", "mode", "queues", "permissions", "csum", text)]], storm_control=["map", [[text, text], ["broadcast", text]]],
            other_config=["map", [["rxq-affinity", text], [text, text]]], external_ids=["map", [[text, text]]]))
        operations.append(insert("FDB", network=ref(net), mac=text))
    applied(server, dump, *operations, a_port("good", network=ref(net)))
    assert len(dump.config["ports"]) == len(junk) + 1 and len(dump.config["networks"]) == len(junk) + 1
    assert len(dump.config["fdb"]) == len(junk)
    assert dump.port("good")["error"] is None and dump.network("good")["error"] is None
    assert all(p["error"] for p in dump.config["ports"] if p["name"] != "good")
    assert all(f["error"] for f in server.rows("FDB"))


def test_many_ports(server, dump):
    """A thousand ports in one transaction: one config, one handshake."""
    net = server.insert("Network", name="blue")
    applied(server, dump)
    configs = dump.configs
    applied(server, dump, *(a_port(f"vm{i}", network=ref(net), addresses=f"52:54:00:00:{i >> 8:02x}:{i & 255:02x}") for i in range(1000)))
    assert len(dump.config["ports"]) == 1000 and dump.configs == configs + 1
    assert len(server.rows("Port", ["link_state", "==", "down"])) == 1000
    applied(server, dump, {"op": "delete", "table": "Port", "where": []})
    assert dump.config["ports"] == []


# ---- the control socket


def appctl(path, *words):
    return subprocess.run(["ovs-appctl", "-T", "10", "-t", path, *words], capture_output=True, text=True)


def test_control_socket(things, server):
    path = str(things.folder / "control.sock")
    dump = dump_of(things, server, control=path)
    dump.in_order()
    assert appctl(path, "echo", "two words").stdout == "two words\n"
    failed = appctl(path, "fail")
    assert failed.returncode != 0 and failed.stderr.startswith("it fails, as asked")
    assert "echo" in appctl(path, "list-commands").stdout
    assert "requires at least 3 arguments" in appctl(path, "log", "w").stderr
    # An answer may come later, and others are answered meanwhile.
    slow = subprocess.Popen(["ovs-appctl", "-T", "10", "-t", path, "later"], stdout=subprocess.PIPE, text=True)
    wait_for(lambda: appctl(path, "waits").stdout == "yes\n", "the request to wait")
    assert appctl(path, "now").stdout == "done\n"
    assert slow.wait(10) == 0
    assert slow.stdout.read() == "late\n"


def test_control_socket_held_or_left_over(things, server):
    path = str(things.folder / "control.sock")
    first = dump_of(things, server, control=path)
    first.in_order()
    second = subprocess.run([BUILD / "tests/tools/dbdump", server.remote, "h2", path], capture_output=True, text=True,
                            stdin=subprocess.DEVNULL)
    assert second.returncode == 1
    assert f"control socket {path} is held by process {first.process.pid}; stop it, or choose another run directory" in second.stderr
    assert appctl(path, "echo", "still").stdout == "still\n"
    # A process that was killed leaves its socket: the next one replaces it.
    first.process.kill()
    first.process.wait()
    third = dump_of(things, server, control=path)
    third.in_order()
    assert appctl(path, "echo", "again").stdout == "again\n"
    nowhere = subprocess.run([BUILD / "tests/tools/dbdump", server.remote, "h2", f"{things.folder}/none/c.sock"], capture_output=True,
                             text=True, stdin=subprocess.DEVNULL)
    assert nowhere.returncode == 1 and "none: No such file or directory" in nowhere.stderr


def test_closing_answers_nobody_twice(things, server):
    """A request that is still waiting when the socket is closed is dropped in order (dbdump answers it afterwards)."""
    path = str(things.folder / "control.sock")
    dump = dump_of(things, server, control=path)
    dump.in_order()
    slow = subprocess.Popen(["ovs-appctl", "-T", "10", "-t", path, "later"], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: appctl(path, "waits").stdout == "yes\n", "the request to wait")
    dump.stop()
    assert slow.wait(10) != 0


def test_client_that_does_not_wait_for_its_answer(things, server):
    path = str(things.folder / "control.sock")
    dump = dump_of(things, server, control=path)
    dump.in_order()
    slow = subprocess.Popen(["ovs-appctl", "-t", path, "later"])
    wait_for(lambda: appctl(path, "waits").stdout == "yes\n", "the request to wait")
    slow.kill()
    slow.wait()
    assert appctl(path, "now").stdout == "done\n"
    assert appctl(path, "echo", "alive").stdout == "alive\n"


def test_signals_stay_the_programs_own(things, server):
    dump = dump_of(things, server)
    dump.in_order()
    dump.process.send_signal(signal.SIGTERM)
    dump.until(lambda d: {"sigterm": True} in d.events, "the program's own handler")
    assert not [e for e in dump.events if "foreign_handler" in e]


def test_log_levels(things, server):
    path = str(things.folder / "control.sock")
    dump = dump_of(things, server, control=path)
    dump.in_order()
    appctl(path, "log", "d", "mine", "not-shown")
    appctl(path, "log", "w", "mine", "shown-warning")
    assert "WARN mine: shown-warning" in dump.log() and "not-shown" not in dump.log()
    # Levels hold for modules that haven't logged anything yet.
    assert appctl(path, "vlog/set", "ANY:console:dbg").returncode == 0
    appctl(path, "log", "d", "late", "shown-debug")
    assert "DBG late: shown-debug" in dump.log()
    assert appctl(path, "vlog/set", "late:console:off").returncode == 0
    appctl(path, "log", "e", "late", "silenced")
    assert " late: silenced" not in dump.log()
