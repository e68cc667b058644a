"""weirctl, with a real database server, the switch's own database client (dbdump) to answer, and a control socket of the test's."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from xml.etree import ElementTree

import pytest

from database import BUILD, LIMIT, ROOT, Dump, Server, kill, wait_for

WEIRCTL = BUILD / "ctl/weirctl"
MAC = "52:54:00:00:00:01"


class Control:
    """The switch's side of the control socket: JSON-RPC 1.0. `answers` maps a method to text, or to a function of its arguments;
    an exception of the function is an error answer."""

    def __init__(self, path):
        self.path, self.calls, self.lock = path, [], threading.Lock()
        self.answers = {"list-commands": lambda: "The available commands are:\n" + "".join(
            f"  {m:<20} [ARG]...\n" for m in sorted(self.answers))}
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        decoder, text = json.JSONDecoder(), ""
        with connection:
            while data := connection.recv(65536):
                text += data.decode()
                while text:
                    try:
                        request, end = decoder.raw_decode(text)
                    except ValueError:
                        break  # more is to come
                    text = text[end:]
                    reply = self.answer(request)
                    if reply is None:
                        return
                    connection.sendall(json.dumps(reply).encode())

    def answer(self, request):
        method, params = request["method"], request["params"]
        with self.lock:
            self.calls.append((method, params))
        answer = self.answers.get(method)
        if answer is None:
            return {"id": request["id"], "result": None, "error": f'"{method}" is not a valid command'}
        try:
            result = answer(*params) if callable(answer) else answer
        except Exception as e:
            return {"id": request["id"], "result": None, "error": str(e)}
        return None if result is None else {"id": request["id"], "result": result, "error": None}

    def called(self, method):
        with self.lock:
            return [params for m, params in self.calls if m == method]

    def stop(self):
        self.listener.close()
        os.unlink(self.path)


class Weir:
    """A folder with a database and whatever of a switch the test starts."""

    def __init__(self, folder):
        self.folder, self.things = folder, []
        self.server = self.keep(Server(folder))
        self.environment = {**os.environ, "WEIR_RUNDIR": str(folder), "WEIR_DB": self.server.remote}
        self.environment.pop("WEIR_CTL", None)

    def keep(self, thing):
        self.things.append(thing)
        return thing

    def switch(self, host="h1"):
        """The part of a switch that applies what is in the database."""
        if not self.server.rows("Weir"):
            self.server.insert("Weir")
        dump = self.keep(Dump(self.server.remote, host, folder=self.folder))
        dump.in_order()
        return dump

    def control(self):
        return self.keep(Control(self.folder / "weir-vswitchd.ctl"))

    def start(self, *args, **kwargs):
        return subprocess.Popen([WEIRCTL, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
                                env=self.environment, **kwargs)

    def run(self, *args):
        process = self.start(*args)
        try:
            out, err = process.communicate(timeout=LIMIT)
        finally:
            kill(process)
        assert process.returncode in (0, 1), f"weirctl {args} ended with {process.returncode}: {err}"
        # A sentence, or nothing: no log lines, no half answers.
        assert all(line.startswith("weirctl: ") for line in err.splitlines()), err
        return process.returncode, out, err

    def __call__(self, *args):
        """The output; it must have worked."""
        status, out, err = self.run(*args)
        assert status == 0 and err == "", f"weirctl {args}: {err}"
        return out

    def json(self, *args):
        return json.loads(self(*args, "-f", "json"))

    def refuses(self, *args):
        """The sentence; nothing may have changed."""
        before = self.contents()
        status, out, err = self.run(*args)
        assert status == 1 and out == "" and len(err.splitlines()) == 1, f"weirctl {args}: {status} {out!r} {err!r}"
        assert self.contents() == before
        return err[len("weirctl: "):].strip()

    def contents(self):
        return {table: sorted(json.dumps(row, sort_keys=True) for row in self.server.rows(table))
                for table in ("Weir", "Network", "Port", "FDB")}

    def stop(self):
        for thing in reversed(self.things):
            thing.stop()


@pytest.fixture
def weir(tmp_path):
    w = Weir(tmp_path)
    yield w
    w.stop()


@pytest.fixture
def up(weir):
    """With a switch that applies everything."""
    weir.dump = weir.switch()
    return weir


# --- networks and ports

def test_network(up):
    up("network", "add", "blue", "--vlan", "10", "--mtu=9000", "--no-learning", "--ageing", "60", "--vni", "5000", "--mac-limit", "9",
       "--unknown-unicast", "drop", "external-id:owner=me", "other_config:flap-window=20")
    row = up.server.row("Network", "blue")
    assert (row["vlan"], row["mtu"], row["learning"], row["ageing"], row["vni"], row["mac_limit"], row["unknown_unicast"]) == \
        (10, 9000, False, 60, 5000, 9, "drop")
    assert row["external_ids"] == {"owner": "me"} and row["other_config"] == {"flap-window": "20"}
    # It has been applied when the command is done.
    assert up.dump.poll().network("blue")["mtu"] == 9000

    up("network", "set", "blue", "mtu=1500", "vlan=", "other_config:flap-window=", "--ageing", "0")
    row = up.server.row("Network", "blue")
    assert (row["vlan"], row["mtu"], row["ageing"], row["other_config"]) == (None, 1500, 0, {})

    up("network", "add", "red")
    assert [n["name"] for n in up.json("network", "list")] == ["blue", "red"]
    assert up.json("network", "show", "blue")["mtu"] == 1500
    lines = up("network", "list").splitlines()
    assert lines[0].split() == ["NAME", "VLAN", "VNI", "MTU", "LEARNING", "AGEING", "MAC-LIMIT", "UNKNOWN-UNICAST", "PROBLEM"]
    assert lines[1].split() == ["blue", "-", "5000", "1500", "no", "0", "9", "drop", "-"]
    assert re.search(r"^mtu: +1500$", up("network", "show", "blue"), re.M)
    assert up.json("network", "list", "--columns", "name,vni") == [{"name": "blue", "vni": 5000}, {"name": "red", "vni": None}]

    up("network", "del", "blue")
    assert not up.server.row("Network", "blue") and not up.dump.poll().network("blue")
    up("network", "del", "blue", "--if-exists")


def test_port(up):
    up("network", "add", "blue", "--vlan", "10", "--", "network", "add", "red", "--vlan", "20")
    up("port", "add", "vm1", "--network", "blue", "--path", "/run/x/vm1.sock", "--mode", "server", "--queues", "4", "--address",
       f"{MAC} 10.0.0.1 fd00::1", "--address", "52:54:00:00:00:02", "--isolated", "--mtu", "1400", "option:packed=true",
       "external-id:vm=a b, c=d", "--mac-limit", "3")
    row = up.server.row("Port", "vm1")
    assert row["options"] == {"path": "/run/x/vm1.sock", "mode": "server", "queues": "4", "packed": "true"}
    assert row["addresses"] == [f"{MAC} 10.0.0.1 fd00::1", "52:54:00:00:00:02"] and row["external_ids"] == {"vm": "a b, c=d"}
    assert (row["isolated"], row["mtu_request"], row["mac_limit"], row["host"]) == (True, 1400, 3, "")
    assert row["network"] == up.server.row("Network", "blue")["_uuid"]
    assert up.dump.poll().port("vm1")

    up("port", "add", "up1", "--type", "kernel", "--iface", "eth1", "--vlan-mode", "trunk", "--trunks", "red,blue")
    up("port", "add", "vm10", "--network", "red", "--disabled")
    up("port", "set", "up1", "trunks-=red")
    assert up.json("port", "show", "up1")["trunks"] == ["blue"]
    up("port", "set", "up1", "trunks+=red", "--network", "blue", "vlan-mode=native-tagged")
    shown = up.json("port", "show", "up1")
    assert (shown["trunks"], shown["network"], shown["vlan_mode"]) == (["blue", "red"], "blue", "native-tagged")
    up("port", "set", "vm1", "network=red", "enabled=no", "addresses=", "options:queues=2", "options:packed=",
       "storm_control=broadcast=100,multicast=50")
    shown = up.json("port", "show", "vm1")
    assert (shown["network"], shown["enabled"], shown["addresses"]) == ("red", False, [])
    assert shown["options"] == {"path": "/run/x/vm1.sock", "mode": "server", "queues": "2"}
    assert shown["storm_control"] == {"broadcast": "100", "multicast": "50"}

    up.dump.say("port up1 up -")
    up.dump.say("port vm1 down - problem=not_connected")
    up.dump.say("stats up1 rx_packets=7")
    wait_for(lambda: up.server.row("Port", "vm1")["link_state"] and up.server.row("Port", "up1")["statistics"], "the status of the ports")
    listed = {p["name"]: p for p in up.json("port", "list")}
    assert list(listed) == ["up1", "vm1", "vm10"]
    assert listed["up1"]["link_state"] == "up" and listed["vm1"]["link_state"] == "down"
    assert listed["vm1"]["problem"] == "not_connected" and listed["up1"]["problem"] is None
    assert up.json("port", "show", "up1")["statistics"] == {"rx_packets": 7}
    table = up("port", "list").splitlines()
    assert table[0].split() == ["NAME", "TYPE", "NETWORK", "VLAN-MODE", "LINK-STATE", "MTU", "PROBLEM"]
    assert table[2].split()[0] == "vm1" and table[2].split()[-1] == "not_connected"

    up("port", "del", "vm1")
    assert not up.server.row("Port", "vm1") and not up.dump.poll().port("vm1")
    up("--if-exists", "port", "del", "vm1")


def test_defaults(weir):
    """Lists show people what an empty column means, as the reference has it, and programs that it is empty."""
    weir("--no-wait", "network", "add", "blue", "--", "port", "add", "vm1", "--network", "blue")
    reference = ElementTree.parse(ROOT / "vswitch/weir.xml").getroot()
    columns = {"network": "mtu,learning,ageing,mac_limit,unknown_unicast", "port": "type,vlan_mode,enabled"}
    for noun, names in columns.items():
        (row,) = weir.json(noun, "list", "--columns", names)
        assert set(row.values()) == {None}
        shown = weir(noun, "list", "--columns", names).splitlines()[1].split()
        for name, value in zip(names.split(","), shown, strict=True):
            text = "".join(reference.find(f"table[@name='{noun.capitalize()}']/column[@name='{name}']").itertext())
            value = {"yes": "true"}.get(value, value)
            assert f"Default: {value}" in text or re.search(rf"\b{value}(</code>)?, the\s+default\b", text), f"{name}: {value}: {text}"


def test_may_exist(up):
    up("network", "add", "blue", "--mtu", "1500")
    up("port", "add", "vm1", "--network", "blue", "--path", "/a")
    generation = up.server.rows("Weir")[0]["next_cfg"]
    up("network", "add", "blue", "--may-exist")
    up("port", "add", "vm1", "--may-exist", "--network", "blue", "--path", "/a")
    # Nothing was to be done, so the switch has nothing to apply.
    assert up.server.rows("Weir")[0]["next_cfg"] == generation
    up("--may-exist", "port", "add", "vm1", "--path", "/b")
    assert up.server.row("Port", "vm1")["options"] == {"path": "/b"}


def test_fdb(up):
    up("network", "add", "blue", "--", "port", "add", "vm1", "--network", "blue", "--", "port", "add", "vm2", "--network", "blue")
    up("fdb", "add", "blue", "52:54:00:00:00:0A", "vm1")
    (row,) = up.server.rows("FDB")
    assert row["mac"] == "52:54:00:00:00:0a"
    assert up.refuses("fdb", "add", "blue", "52:54:00:00:00:0a", "vm2") == "52:54:00:00:00:0a is in network blue already, at port vm1"
    up("fdb", "add", "blue", "52:54:00:00:00:0a", "vm2", "--may-exist")
    (row,) = up.server.rows("FDB")
    assert row["port"] == up.server.row("Port", "vm2")["_uuid"]
    assert up.refuses("fdb", "add", "grey", MAC, "vm1") == "there is no network grey"
    assert up.refuses("fdb", "add", "blue", MAC, "vm9") == "there is no port vm9"
    for bad, why in (("52:54:00:00:00", "is not an Ethernet address such as 52:54:00:00:00:01"),
                     ("52:54:00:00:00:0g", "is not an Ethernet address such as 52:54:00:00:00:01"),
                     ("01:00:5e:00:00:01", "is a multicast address, which no interface has"),
                     ("00:00:00:00:00:00", "is the zero address, which no interface has")):
        assert up.refuses("fdb", "add", "blue", bad, "vm1") == f"'{bad}' {why}"
    assert up.refuses("fdb", "del", "blue", MAC) == f"network blue has no static entry {MAC}"
    up("fdb", "del", "blue", MAC, "--if-exists", "--", "fdb", "del", "grey", MAC, "--if-exists")
    up("fdb", "del", "blue", "52:54:00:00:00:0A")
    assert up.server.rows("FDB") == []
    # Entries go with their port, and with their network.
    up("fdb", "add", "blue", MAC, "vm1", "--", "fdb", "add", "blue", "52:54:00:00:00:02", "vm2")
    up("port", "del", "vm1")
    assert [r["mac"] for r in up.server.rows("FDB")] == ["52:54:00:00:00:02"]
    up("port", "set", "vm2", "network=", "vlan_mode=trunk", "--", "network", "del", "blue")
    assert up.server.rows("FDB") == [] and not up.server.row("Network", "blue")


def test_config_and_hosts(up):
    up("set", "poll=busy", "flow-limit=4096")
    assert up.dump.poll().config["other_config"]["poll"] == "busy"
    up("config", "set", "sleep-max-us=100", "--host", "h1")
    assert up.server.row("Host", "h1")["other_config"] == {"sleep-max-us": "100"}
    assert up("config", "get", "poll") == "busy\n" and up.json("config", "get", "poll") == {"key": "poll", "value": "busy"}
    assert up.json("config", "list") == [{"key": "flow-limit", "value": "4096"}, {"key": "poll", "value": "busy"}]
    assert up("config", "list", "--host", "h1").splitlines()[1].split() == ["sleep-max-us", "100"]
    up("config", "del", "poll", "flow-limit")
    assert up.json("config", "list") == []
    assert up.refuses("config", "get", "poll") == "poll is not set"
    assert up.refuses("config", "set", "poll") == "'poll' is not KEY=VALUE"
    assert up.refuses("config", "set", "a=b", "--host", "h9") == "there is no host h9"
    # What a switch says of a setting stands in its row.
    status, _, err = up.run("set", "poll=sometimes")
    assert status == 1 and err.startswith("weirctl: host h1: ") and "poll" in err

    assert [h["name"] for h in up.json("host", "list")] == ["h1"]
    assert up.json("host", "show", "h1")["other_config"] == {"sleep-max-us": "100"}
    assert up.refuses("host", "show", "h9") == "there is no host h9"
    up.server.insert("Host", name="old")
    up("host", "del", "old")
    up("host", "del", "old", "--if-exists")
    assert up.refuses("host", "del", "old") == "there is no host old"


def test_init(weir):
    assert weir("network", "list").splitlines()[1:] == []
    weir("init")
    (root,) = weir.server.rows("Weir")
    weir("init")
    assert weir.server.rows("Weir") == [root]
    weir("network", "add", "blue", "--no-wait")
    assert len(weir.server.rows("Weir")) == 1


# --- what is refused

def test_refusals(up):
    up("network", "add", "blue", "--vlan", "10", "--", "network", "add", "plain")
    up("port", "add", "vm1", "--network", "blue", "--", "port", "add", "up1", "--vlan-mode", "trunk", "--trunks", "blue")
    bad_name = "'{}' can't be the name of a {}: 1 to 63 letters, digits and ._-, first a letter or digit"
    cases = {
        ("network", "add", "blue"): "there is a network blue already",
        ("network", "add", "a b"): bad_name.format("a b", "network"),
        ("network", "add", ""): bad_name.format("", "network"),
        ("port", "add", "../x", "--network", "blue"): bad_name.format("../x", "port"),
        ("port", "add", "x" * 64, "--network", "blue"): bad_name.format("x" * 64, "port"),
        ("network", "del", "grey"): "there is no network grey",
        ("network", "set", "grey", "mtu=1500"): "there is no network grey",
        ("network", "show", "grey"): "there is no network grey",
        ("network", "set", "blue"): "network blue: what should be set? COLUMN=VALUE, or an option of network add",
        ("network", "del", "blue"): "network blue still has port vm1; delete it first, or move it (port set vm1 network=...)",
        ("port", "del", "vm1", "--", "network", "del", "blue"): "network blue is still on the trunk of port up1 (port set up1 trunks-=blue)",
        ("network", "add", "n", "--vlan", "4095"): "network n: vlan must be a number from 1 to 4094, not '4095'",
        ("network", "add", "n", "--vlan", "ten"): "network n: vlan must be a number from 1 to 4094, not 'ten'",
        ("network", "add", "n", "mtu=1e9"): "network n: mtu must be a number from 68 to 9216, not '1e9'",
        ("network", "add", "n", "--vni", "16777216"): "network n: vni must be a number from 1 to 16777215, not '16777216'",
        ("network", "add", "n", "--ageing", "-1"): "network n: ageing must be a number from 0 to 1000000, not '-1'",
        ("network", "add", "n", "learning=perhaps"): "network n: learning must be true or false, not 'perhaps'",
        ("network", "add", "n", "--unknown-unicast", "eat"): "network n: unknown_unicast must be drop or flood, not 'eat'",
        ("network", "add", "n", "vlan+=7"): "network n: vlan holds one value: use vlan=VALUE",
        ("network", "add", "n", "name=m"): "network n: a name stays as it is; delete it and add another",
        ("network", "add", "n", "error=no"): "network n: the switch itself writes error",
        ("network", "add", "n", "ageign=7"): "network n: there is no column ageign; did you mean ageing?",
        ("network", "add", "n", "zzzzzz=7"): "network n: there is no column zzzzzz (weirctl --columns lists them)",
        ("network", "add", "n", "vlan"): "network n: 'vlan' is not COLUMN=VALUE",
        ("network", "add", "n", "vlan:x=7"): "network n: vlan:x: column vlan has no keys",
        ("network", "add", "n", "other_config:=7"): "network n: other_config: needs a key",
        ("network", "add", "n", "other_config=7"): "network n: other_config must be KEY=VALUE,..., not '7'",
        ("network", "list", "--columns", "nme"): "table Network has no column nme (weirctl --columns lists them)",
        ("port", "add", "vm1", "--network", "blue"): "there is a port vm1 already",
        ("port", "add", "p", "--network", "grey"): "port p: there is no network grey",
        ("port", "add", "p"): "port p: in which network? Say --network NAME (or --vlan-mode trunk for one without a native one)",
        ("port", "add", "p", "--network", "blue", "--trunks", "blue"):
            "port p: --trunks goes with --vlan-mode trunk, native-tagged or native-untagged",
        ("port", "add", "p", "--vlan-mode", "trunk", "--trunks", "blue,grey"): "port p: there is no network grey",
        ("port", "add", "p", "--vlan-mode", "trunk", "--trunks", "plain"):
            "port p: network plain has no VLAN, so it can't be on a trunk (network set plain vlan=N)",
        ("port", "add", "p", "--vlan-mode", "native-tagged", "--network", "plain"):
            "port p: network plain has no VLAN to tag its frames with (network set plain vlan=N)",
        ("port", "add", "p", "--network", "blue", "cvlans=1,2"): "port p: cvlans goes with --vlan-mode dot1q-tunnel",
        ("port", "add", "p", "--network", "blue", "--vlan-mode", "qinq"):
            "port p: vlan_mode must be access, dot1q-tunnel, native-tagged, native-untagged or trunk, not 'qinq'",
        ("port", "add", "p", "--network", "blue", "--type", "tun"): "port p: type must be bond, dpdk, kernel, tap or vhost-user, not 'tun'",
        ("port", "add", "p", "--network", "blue", "--address", "10.0.0.1"):
            "port p: addresses: '10.0.0.1' is not an Ethernet address such as 52:54:00:00:00:01",
        ("port", "add", "p", "--network", "blue", "--address", f"{MAC} 10.0.0.256"):
            "port p: addresses: '10.0.0.256' is not an IPv4 or IPv6 address",
        ("port", "add", "p", "--network", "blue", "--host", "h9"):
            "port p: there is no host h9, but: h1 (with --no-wait the port is kept for one to come)",
        ("port", "set", "vm1", "status:x=y"): "port vm1: the switch itself writes status",
        ("port", "set", "vm1", "mtu=9"): "port vm1: the switch itself writes mtu",
        ("port", "set", "vm9", "mtu_request=900"): "there is no port vm9",
        ("port", "del", "vm9"): "there is no port vm9",
        ("port", "show", "vm9"): "there is no port vm9",
        ("port", "set", "vm1"): "port vm1: what should be set? COLUMN=VALUE, or an option of port add",
        # The command line itself
        (): "what should be done? weirctl --help shows the commands",
        ("--db",): "--db needs a value: --db REMOTE",
        ("-f",): "-f needs a value: -f table|json",
        ("-f", "xml", "port", "list"): "--format is table or json, not 'xml'",
        ("--timeout", "soon", "port", "list"): "--timeout needs a number of seconds (0: no limit), not 'soon'",
        ("--no-wait=1", "port", "list"): "--no-wait takes no value",
        ("-z", "port", "list"): "there is no option -z (weirctl --help shows those that are)",
        ("port",): "port needs a verb: add, del, list, mtu, set, show, latency, cost",
        ("port", "lits"): "port has no verb 'lits'; did you mean port list?",
        ("port", "frobnicate"): "port has no verb 'frobnicate', but: add, del, list, mtu, set, show, latency, cost",
        ("prot", "list"): "there is no 'prot'; did you mean port?",
        ("frobnicate",): "there is no 'frobnicate' (weirctl --help shows what there is)",
        ("port", "add"): "port add needs more: weirctl port add [OPTION]... NAME [COLUMN[:KEY]=VALUE]...",
        ("port", "list", "vm1"): "port list: 'vm1' is too much: weirctl port list [OPTION]...",
        ("port", "add", "p", "--netwrok", "blue"): "port add has no option --netwrok; did you mean --network?",
        ("port", "add", "p", "--wibble"): "port add has no option --wibble (weirctl port add --help shows what it has)",
        ("port", "add", "p", "--network", "blue", "--network", "red"): "--network is said twice",
        ("port", "add", "p", "--network"): "--network needs a value: --network NETWORK",
        ("network", "add", "n", "--", "health"): "'health' asks the running switch: it can't be one of several commands",
        # Generic commands
        ("list", "Prot"): 'unknown table "Prot"',
        ("get", "Port", "vm9", "name"): 'no row "vm9" in table Port',
        ("set", "Network", "blue", "vlan=9999"): "constraint violation: 9999 is not in the valid range 1 to 4094 (inclusive)",
    }
    for args, sentence in cases.items():
        assert up.refuses(*args) == sentence, args


def test_server_refuses(up):
    """What only the server knows comes as its own words."""
    up("network", "add", "blue", "--", "port", "add", "vm1", "--network", "blue")
    assert up.refuses("destroy", "Network", "blue").startswith("the database refuses the change: ")
    assert up.refuses("create", "Network", "name=blue").startswith("the database refuses the change: ")


# --- transactions, and waiting

def test_transaction_is_all_or_nothing(up):
    assert up.refuses("network", "add", "blue", "--", "port", "add", "vm1", "--network", "blue", "--", "port", "add", "vm2", "--network",
                      "grey") == "port vm2: there is no network grey"
    generation = up.server.rows("Weir")[0]["next_cfg"]
    up("network", "add", "blue", "--", "port", "add", "vm1", "--network", "blue", "--", "--", "set", "Port", "vm1", "external_ids:a=b",
       "--", "network", "add", "red")
    assert up.server.rows("Weir")[0]["next_cfg"] == generation + 1
    # Gone and back in one.
    up("port", "del", "vm1", "--", "network", "del", "blue", "--", "network", "add", "blue", "--", "port", "add", "vm1", "--network",
       "blue")
    assert up.server.row("Port", "vm1")["external_ids"] == {}
    out = up("network", "list", "--columns", "name", "--", "port", "list", "--columns", "name")
    assert out.split() == ["NAME", "blue", "red", "NAME", "vm1"]


def test_errors_of_the_switch(up):
    """The row stays, and its error is told; so is it when nothing changes."""
    up("network", "add", "blue")
    status, out, err = up.run("port", "add", "vm1", "--network", "blue", "option:colour=green")
    assert (status, out) == (1, "") and err.startswith("weirctl: port vm1: ") and "colour" in err and err.count("\n") == 1
    error = up.server.row("Port", "vm1")["error"]
    assert error and err == f"weirctl: port vm1: {error}\n" or err == f"weirctl: {error}\n"
    assert up.run("port", "add", "vm1", "--may-exist") == (1, "", err)
    assert up.json("port", "list")[0]["problem"] == error
    # Other rows are none of this command's business.
    up("port", "add", "vm2", "--network", "blue")
    status, _, err2 = up.run("set", "Port", "vm1", "enabled=false")
    assert status == 1 and err2 == err
    up("port", "set", "vm1", "options:colour=")
    assert up.server.row("Port", "vm1")["error"] is None


def test_wait(up):
    """The command is done when the switch has applied the change, not before."""
    up.dump.say("apply off")
    process = up.start("network", "add", "blue")
    wait_for(lambda: up.server.row("Network", "blue"), "the network in the database")
    up.dump.until(lambda d: d.network("blue"), "the network at the switch")
    assert process.poll() is None
    up.dump.say("apply on")
    # It reports with the next config.
    up.server.commit()
    assert process.wait(LIMIT) == 0
    assert process.communicate() == ("", "")


def test_not_applied(up):
    up.dump.say("apply off")
    status, out, err = up.run("network", "add", "blue", "--timeout", "1")
    assert (status, out) == (1, "") and up.server.row("Network", "blue")
    assert err == ("weirctl: host h1 has not applied the change within 1 s (is weir-vswitchd running?); the change is in the database "
                   "and applies when it is back (--no-wait doesn't wait)\n")
    up("network", "add", "red", "--no-wait")


def test_no_switch_ever(weir):
    status, _, err = weir.run("network", "add", "blue", "--timeout", "1")
    assert status == 1 and err.startswith("weirctl: no switch has ever connected to this database within 1 s")
    # A switch that comes while weirctl waits.
    process = weir.start("network", "add", "red")
    wait_for(lambda: weir.server.row("Network", "red"), "the network in the database")
    weir.switch()
    assert process.wait(LIMIT) == 0
    assert process.communicate() == ("", "")


def test_several_hosts(weir):
    for host in ("h1", "h2"):
        weir.switch(host)
    weir("network", "add", "blue")
    assert weir.refuses("port", "add", "vm1", "--network", "blue") == "port vm1: on which host? Say --host NAME, one of: h1, h2"
    # --host is for its own command, or, before the first noun, for all.
    weir("port", "add", "vm1", "--network", "blue", "--host", "h1", "--", "port", "add", "vm1", "--network", "blue", "--host=h2",
         "--path", "/two")
    weir("--host", "h2", "port", "add", "vm2", "--network", "blue", "--", "port", "add", "vm3", "--network", "blue")
    assert {(r["name"], r["host"]) for r in weir.server.rows("Port")} == {("vm1", "h1"), ("vm1", "h2"), ("vm2", "h2"), ("vm3", "h2")}
    weir("--host", "h2", "port", "del", "vm2", "--", "port", "del", "vm3")
    assert sorted(r["host"] for r in weir.server.rows("Port")) == ["h1", "h2"]
    assert "say which with --host" in weir.refuses("port", "del", "vm1")
    assert "say which with --host" in weir.refuses("port", "show", "vm1")
    assert weir.json("port", "show", "vm1", "--host", "h2")["options"] == {"path": "/two"}
    assert [p["host"] for p in weir.json("port", "list", "--host", "h1")] == ["h1"]
    assert weir("port", "list").splitlines()[0].split()[1] == "HOST"
    assert weir.refuses("host", "del", "h2") == "host h2 still has port vm1; delete it first (port del vm1 --host h2)"
    # Only the host concerned is waited for.
    weir.things[-1].stop()
    weir("port", "set", "vm1", "--host", "h1", "enabled=false")
    status, _, err = weir.run("network", "set", "blue", "mtu=1400", "--timeout", "1")
    assert status == 1 and err.startswith("weirctl: host h2 has not applied the change within 1 s")
    weir("network", "set", "blue", "mtu=1300", "--host", "h1")
    weir("--host", "h2", "--no-wait", "port", "del", "vm1", "--", "host", "del", "h2")
    assert [r["host"] for r in weir.server.rows("Port")] == ["h1"]
    weir("network", "set", "blue", "mtu=1400")


def test_database_not_there(weir):
    weir.server.stop()
    remote = weir.server.remote
    for args in (("port", "list"), ("network", "add", "x"), ("list", "Port")):
        status, out, err = weir.run(*args)
        assert (status, out, err) == (1, "", f"weirctl: no database answers at {remote} (is ovsdb-server running?)\n")
    status, _, err = weir.run("--db", "nonsense", "port", "list")
    assert status == 1 and err == "weirctl: nonsense is no OVSDB remote: unix:/path, tcp:address:port or ssl:address:port\n"
    # A path of one's own working directory.
    status, _, err = weir.run("--db", "unix:nowhere.sock", "port", "list")
    assert status == 1 and "no database answers at unix:nowhere.sock" in err
    weir.server.start()
    process = weir.start("--db", f"unix:{weir.server.socket.name}", "network", "list", cwd=weir.folder)
    assert process.wait(LIMIT) == 0 and process.communicate()[1] == ""


def test_database_hangs(weir):
    weir.server.process.send_signal(signal.SIGSTOP)
    try:
        status, out, err = weir.run("--timeout", "1", "port", "list")
        assert (status, out) == (1, "") and err.startswith(f"weirctl: the database at {weir.server.remote} does not answer within 1 s")
    finally:
        weir.server.process.send_signal(signal.SIGCONT)


def test_several_remotes(weir):
    """Any member of a cluster will do; the first one isn't there."""
    weir.environment["WEIR_DB"] = f"unix:{weir.folder}/nobody.sock,{weir.server.remote}"
    weir("network", "add", "blue", "--no-wait")
    assert weir.server.row("Network", "blue")


def test_ssl(weir):
    folder = weir.folder

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca-key.pem", "-out", "ca.pem", "-days", "2", "-subj", "/CN=authority")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=operator")
    openssl("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2", "-out", "cert.pem")
    server = weir.keep(Server(folder, "secure", options=["--remote=pssl:0:127.0.0.1", f"--private-key={folder}/key.pem",
                                                         f"--certificate={folder}/cert.pem", f"--ca-cert={folder}/ca.pem"]))
    sockets = subprocess.run(["ss", "-Htlnp"], capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in sockets.splitlines() if f"pid={server.process.pid}," in line]
    remote = "ssl:127.0.0.1:" + line.split()[3].rsplit(":", 1)[1]
    keys = [f"--private-key={folder}/key.pem", "--certificate", f"{folder}/cert.pem"]
    weir("--db", remote, *keys, "--ca-cert", f"{folder}/ca.pem", "--no-wait", "network", "add", "blue")
    assert server.row("Network", "blue")
    assert weir.refuses("--db", remote, *keys, "network", "list") == f"{remote} needs --private-key, --certificate and --ca-cert"
    assert weir.refuses("--db", remote, *keys, "--ca-cert", "/nowhere/ca", "network", "list") == "/nowhere/ca: No such file or directory"
    # Certificates of another authority
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "other-key.pem", "-out", "other.pem", "-days", "2", "-subj", "/CN=other")
    assert weir.refuses("--db", remote, *keys, "--ca-cert", f"{folder}/other.pem", "network", "list").startswith("no database answers at ssl:")


# --- generic commands

def test_generic(up):
    uuid = up("create", "Network", "name=blue").strip()
    assert up.server.row("Network", "blue")["_uuid"] == uuid
    up("set", "Network", "blue", "vlan=7", "external_ids:a=b")
    assert up("get", "Network", "blue", "vlan") == "7\n"
    up("add", "Network", "blue", "external_ids", "c=d", "--", "remove", "Network", "blue", "external_ids", "a")
    assert up.server.row("Network", "blue")["external_ids"] == {"c": "d"}
    up("clear", "Network", "blue", "vlan")
    up("--id=@n", "create", "Network", "name=red", "--", "create", "Port", "name=vm1", "network=@n")
    assert up.json("list", "Port", "vm1", "--columns", "name,network,options") == [{"name": "vm1", "network": "red", "options": {}}]
    assert [n["name"] for n in up.json("find", "Network", "external_ids:c=d")] == ["blue"]
    rows = up.json("list", "Network")
    assert {r["name"] for r in rows} == {"blue", "red"} and all(r["vlan"] is None and r["status"] == {} for r in rows)
    paragraphs = up("list", "Network").split("\n\n")
    assert len(paragraphs) == 2 and re.search(r"^name: +(blue|red)$", paragraphs[0], re.M)
    up("wait-until", "Network", "blue", "external_ids:c=d")
    process = up.start("wait-until", "Network", "green")
    up("network", "add", "green")
    assert process.wait(LIMIT) == 0 and process.communicate() == ("", "")
    status, _, err = up.run("--timeout", "1", "wait-until", "Network", "white")
    assert status == 1 and "does not come to what is waited for within 1 s" in err
    up("destroy", "Port", "vm1", "--", "destroy", "Network", "red")
    up("--if-exists", "destroy", "Network", "red")
    up("--all", "destroy", "Network")
    assert up.server.rows("Network") == []


# --- the running switch

def test_control(weir):
    control = weir.control()
    control.answers.update({
        "fdb/list": lambda *a: f"end\nFDB {list(a)}\n", "health": "in order\n", "cache/list": lambda *a: "end\n" + json.dumps(a), "version": "weir 9",
        "explain": lambda *a: repr(a), "log/set": lambda *a: "", "worker/list": "", "nat/list": lambda *a: f"NAT {list(a)}",
        "frob": lambda *a: f"FROB {list(a)}"})
    assert weir("fdb", "list") == "FDB ['--page', 'start']\n" and weir("fdb", "list", "blue") == "FDB ['blue', '--page', 'start']\n"
    assert weir("health") == "in order\n" and weir("worker", "list") == "" and weir("version") == "weir 9\n"
    assert weir.json("cache", "list", "--port", "vm1") == ["--json", "--port", "vm1", "--page", "start"]
    assert json.loads(weir("-f", "json", "cache", "list")) == ["--json", "--page", "start"]
    assert weir("explain", "--port", "vm1", "eth_src=1,ip") == "('--port', 'vm1', 'eth_src=1,ip')\n"
    weir("log", "set", "db", "debug", "-f", "json")
    assert control.called("log/set") == [["--json", "db", "debug"]]
    # Commands of a newer switch, with and without a verb.
    assert weir("nat", "list", "x") == "NAT ['x']\n" and weir("frob") == "FROB []\n" and weir("frob", "a", "b") == "FROB ['a', 'b']\n"
    assert weir("nat", "list", "-f", "json") == "NAT ['--json']\n"
    assert weir.refuses("nta", "list") == "there is no 'nta'; did you mean nat?"
    assert weir.refuses("fdb", "lsit") == "fdb has no verb 'lsit'; did you mean fdb list?"
    # Refusals of the switch
    assert weir.refuses("drops") == '"drops" is not a valid command'

    def wrong(*_):
        raise ValueError("3 packets are unaccounted for\nrx 5\ntx 2")

    control.answers["health"] = wrong
    assert weir.run("health") == (1, "rx 5\ntx 2\n", "weirctl: 3 packets are unaccounted for\n")


def test_long_answer(weir):
    control = weir.control()
    control.answers["health"] = ("x" * 79 + "\n") * 50000
    assert len(weir("health")) == 4000000


def test_parts(weir):
    """A long list: each part is asked for with what the one before has said, and all are printed behind each other."""
    control = weir.control()
    parts = {"start": "next 1.2\nA\n", "1.2": "next 7\n", "7": "end\nB\n"}
    control.answers["cache/list"] = lambda *a: parts[a[-1]]
    assert weir("cache", "list", "--limit", "9") == "A\nB\n"
    assert control.called("cache/list") == [["--limit", "9", "--page", at] for at in ("start", "1.2", "7")]
    for nonsense in ("", "end", "next\nx", "ending\nx", "A\n"):
        control.answers["cache/list"] = nonsense
        assert weir.run("cache", "list")[0] == 1 and "answers nonsense" in weir.run("cache", "list")[2]


def test_no_switch(weir):
    path = weir.folder / "weir-vswitchd.ctl"
    sentence = f"no switch answers at {path} (is weir-vswitchd running?)"
    for args in (("health",), ("fdb", "list"), ("trace",), ("version",)):
        assert weir.refuses(*args) == sentence
    assert weir.refuses("health", "--ctl", "/nowhere/x") == "no switch answers at /nowhere/x (is weir-vswitchd running?)"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert weir.refuses("health") == sentence
    path.unlink()
    control = weir.control()
    control.answers["health"] = lambda: None  # hangs up
    assert weir.refuses("health") == f"the switch at {path} hung up (did weir-vswitchd just end?)"
    done = threading.Event()
    control.answers["health"] = lambda: done.wait(LIMIT) and None
    assert weir.refuses("health", "--timeout", "1") == f"the switch at {path} does not answer within 1 s"
    done.set()


def test_trace_to_its_end(weir):
    control = weir.control()
    batches = iter(["one\ntwo\n", "", "three\n", "end\nfour\n"])
    control.answers.update({"trace/start": "7\n", "trace/read": lambda id_: next(batches), "trace/stop": ""})
    assert weir("trace", "--port", "vm1", "--count", "4") == "one\ntwo\nthree\nfour\n"
    assert control.called("trace/start") == [["--port", "vm1", "--count", "4"]]
    assert set(map(tuple, control.called("trace/read"))) == {("7",)} and not control.called("trace/stop")
    control.answers["trace/read"] = "end"
    assert weir("trace", "-f", "json") == ""
    assert control.called("trace/start")[-1] == ["--json"]

    def refuse(*_):
        raise ValueError("port vm9: there is no such port")

    control.answers["trace/start"] = refuse
    assert weir.refuses("trace", "--port", "vm9") == "port vm9: there is no such port"


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "closed"])
def test_trace_stops(weir, how):
    """Ctrl-C, or a reader that goes: the switch is told."""
    control = weir.control()
    numbers = iter(range(1000000))
    control.answers.update({"trace/start": "8", "trace/read": lambda id_: f"packet {next(numbers)}\n", "trace/stop": ""})
    process = weir.start("trace")
    try:
        # Each line comes when it happens, not when a buffer is full.
        assert process.stdout.readline() == "packet 0\n"
        assert process.stdout.readline() == "packet 1\n"
        if how == "closed":
            process.stdout.close()
        else:
            process.send_signal(getattr(signal, how))
        status = process.wait(LIMIT)
        assert status == (1 if how == "closed" else 0) and process.stderr.read() == ""
    finally:
        kill(process)
    assert control.called("trace/stop") == [["8"]]


def test_trace_of_a_switch_that_hangs(weir):
    control = weir.control()
    done = threading.Event()
    control.answers.update({"trace/start": "8", "trace/read": lambda id_: done.wait(LIMIT) and None})
    process = weir.start("trace")
    try:
        wait_for(lambda: control.called("trace/read"), "the first read")
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT / 2) == 1
        assert process.stderr.read() == f"weirctl: the switch at {control.path} does not answer\n"
    finally:
        done.set()
        kill(process)


def test_appctl(weir):
    """Both ends speak what Open vSwitch's tools speak."""
    weir.dump = Dump(weir.server.remote, "h1", control=str(weir.folder / "weir-vswitchd.ctl"), folder=weir.folder)
    weir.keep(weir.dump)
    wait_for(lambda: (weir.folder / "weir-vswitchd.ctl").exists(), "the control socket")
    assert weir("vlog", "list")
    assert "vlog/set" in weir("list-commands")
    weir("vlog", "set", "ANY:file:dbg")
    appctl = subprocess.run(["ovs-appctl", "-t", weir.folder / "weir-vswitchd.ctl", "vlog/list"], capture_output=True, text=True)
    assert appctl.returncode == 0 and appctl.stdout == weir("vlog", "list")


# --- with the switch itself

@pytest.fixture(scope="module")
def switch():
    if not (BUILD / "vswitch/weir-vswitchd").exists():
        pytest.skip("weir-vswitchd isn't built")
    sys.path.append(str(ROOT / "integration"))
    from lab import Switch
    with Switch(build=BUILD) as s:
        yield s


def test_switch_knows_the_commands(switch):
    known = {line.split()[0] for line in switch.unixctl("list-commands").splitlines() if line.startswith(" ")}
    assert known >= {"fdb/list", "fdb/flush", "cache/list", "cache/flush", "worker/list", "worker/queues", "health", "drops", "explain",
                     "trace/start", "trace/read", "trace/stop", "log/set", "log/list", "log/reopen", "vlog/set", "vlog/list", "version"}


def test_answers_of_the_switch(switch):
    switch.weirctl("network", "add", "blue", "--", "port", "add", "tap1", "--type", "tap", "--network", "blue", "--address", MAC)
    for words in (("fdb", "list"), ("cache", "list"), ("worker", "list"), ("worker", "queues"), ("worker", "cycles"), ("worker", "history"),
                  ("port", "latency"), ("port", "cost", "tap1"), ("health",), ("drops",)):
        assert switch.weirctl(*words), words
        switch.weirctl(*words, json=True)
    assert MAC in switch.weirctl("fdb", "list", "blue")
    switch.weirctl("fdb", "flush")
    switch.weirctl("cache", "flush")
    packet = f"eth_src={MAC},eth_dst=ff:ff:ff:ff:ff:ff,arp"
    assert switch.weirctl("explain", "--port", "tap1", packet)
    switch.weirctl("explain", "--port", "tap1", packet, json=True)
    for words in (("explain", "--port", "nosuch", packet), ("trace", "--port", "nosuch"), ("fdb", "list", "nosuch")):
        refused = switch.weirctl(*words, check=False)
        assert refused.returncode == 1 and refused.stderr.startswith("weirctl: ") and refused.stderr.count("\n") == 1
    failed = switch.weirctl("port", "add", "k1", "--type", "kernel", "--iface", "nosuch0", "--network", "blue", check=False)
    assert failed.returncode == 1 and failed.stderr.startswith("weirctl: port k1: ")
    assert [p["problem"] for p in switch.weirctl("port", "list", json=True) if p["name"] == "k1"] == [switch.row("Port", "k1")["error"]]
    switch.weirctl("port", "del", "k1", "--", "port", "del", "tap1", "--", "network", "del", "blue")


# --- help, and what is made from the table of commands

def test_help(weir):
    text = weir("--help")
    listing = [line.split("\t") for line in weir("--commands").splitlines()]
    commands = [(noun, verb, options) for noun, verb, _, options in listing if noun]
    assert len(commands) > 40
    for noun, verb, options in commands:
        name = f"{noun} {verb}".strip()
        assert f"\n  {name}" in text
        words = [noun] + ([verb] if verb else [])
        help_ = weir(*words, "--help")
        assert f"weirctl {name}" in help_
        for option in options.split():
            assert option.rstrip("=") in help_
    for option in ("--db", "--ctl", "--no-wait", "--host", "--timeout", "--format"):
        assert f"  {option}" in text
    assert weir("port", "--help").count("  port ") == 8
    assert weir("--version").startswith("weirctl ")
    assert "Port\tvlan_mode" in weir("--columns").splitlines()


def test_man_page(weir):
    page = (BUILD / "docs/weirctl.8").read_text()
    for line in weir("--commands").splitlines():
        noun, verb, args, options = line.split("\t")
        if noun:
            assert f".It Cm {noun}{' ' if verb else ''}{verb}{' Ar ' if args else ''}{args}\n" in page
        for option in options.split():
            assert f".It Fl {option[1:].rstrip('=')}" in page


def complete(weir, line):
    """What bash offers at the end of the line."""
    # bash cuts words up at these; what is cut off is a word of its own.
    words = re.findall(r"[:=]+|[^\s:=]+", line) + ([""] if line.endswith(" ") else [])
    script = """
        source "$SCRIPT"
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_POINT=${#COMP_LINE}
        _weirctl
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    environment = {**weir.environment, "COMP_LINE": line, "SCRIPT": str(ROOT / "ctl/weirctl.bash"),
                   "PATH": f"{WEIRCTL.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script, "bash", *words], env=environment, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.split()


def test_completion(weir):
    weir("--no-wait", "network", "add", "blue", "--", "network", "add", "black", "--", "port", "add", "vm1", "--network", "blue")
    assert complete(weir, "weirctl po") == ["port"]
    assert complete(weir, "weirctl port ") == ["add", "del", "list", "mtu", "set", "show", "latency", "cost"]
    assert complete(weir, "weirctl port li") == ["list"]
    weir("--no-wait", "class", "add", "gold")
    assert complete(weir, "weirctl class show ") == ["gold"]
    assert "description=" in complete(weir, "weirctl class set gold ")
    assert complete(weir, "weirctl port latency ") == ["vm1"]
    assert complete(weir, "weirctl worker history c") == ["clear"]
    assert complete(weir, "weirctl port del ") == ["vm1"]
    assert sorted(complete(weir, "weirctl network show bl")) == ["black", "blue"]
    assert complete(weir, "weirctl port add x --netw") == ["--network="]
    assert sorted(complete(weir, "weirctl port add x --network ")) == ["black", "blue"]
    assert sorted(complete(weir, "weirctl port add x --network=b")) == ["black", "blue"]
    assert complete(weir, "weirctl port add x --vlan-mode native-t") == ["native-tagged"]
    assert complete(weir, "weirctl network add a -- port sh") == ["show"]
    assert complete(weir, "weirctl -f json fdb add blue 00:00:00:00:00:01 v") == ["vm1"]
    assert complete(weir, "weirctl -f j") == ["json"]
    assert complete(weir, "weirctl --no-w") == ["--no-wait"]
    assert complete(weir, "weirctl cache list --po") == ["--port"]
    assert complete(weir, "weirctl list N") == ["Network"]
    assert complete(weir, "weirctl get Port v") == ["vm1"]
    assert "mtu_request=" in complete(weir, "weirctl port set vm1 m")
    # The connection that is on the line
    weir.environment["WEIR_DB"] = "unix:/nowhere"
    assert complete(weir, "weirctl port del ") == []
    assert complete(weir, f"weirctl --db {weir.server.remote} port del ") == ["vm1"]
    assert complete(weir, f"weirctl --db={weir.server.remote} port del ") == ["vm1"]
