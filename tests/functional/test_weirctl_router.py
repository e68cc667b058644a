"""weirctl's nouns of routing and tunnels: with a real database server, and the switch's own database client (dbdump) to answer."""

import pytest

from test_weirctl import Weir, complete


@pytest.fixture
def weir(tmp_path):
    w = Weir(tmp_path)
    w.switch()
    w("network", "add", "blue", "--vni", "7")
    w("network", "add", "red", "--", "router", "add", "r1", "--", "router-port", "add", "gw1", "--router", "r1", "--network", "blue", "10.0.0.1/24", "fd00::1/64")
    yield w
    w.stop()


def told(weir, *args):
    """What weirctl says of a change that is in the database but can't be applied."""
    status, out, err = weir.run(*args)
    assert status == 1 and out == "", (args, out, err)
    return err[len("weirctl: "):].strip()


def routes(weir, *args):
    return {(r["table"], r["prefix"], r["metric"]): (r["type"], r["nexthops"]) for r in weir.json("route", "list", *args)}


def test_routers_and_ports(weir):
    assert weir.json("router", "list", "--columns", "name,enabled,problem") == [{"name": "r1", "enabled": None, "problem": None}]
    (port,) = weir.json("router-port", "list")
    assert (port["name"], port["router"], port["network"], sorted(port["addresses"]), port["host"]) == ("gw1", "r1", "blue", ["10.0.0.1/24", "fd00::1/64"], "")
    weir("router-port", "add", "gw2", "10.1.0.1/24", "mac=02:00:00:00:00:01", "--router", "r1", "--network", "red", "--ra", "--rdnss", "fd00::53", "--host", "h1")
    gw2 = weir.json("router-port", "show", "gw2")
    assert (gw2["mac"], gw2["addresses"], gw2["ra"], gw2["host"]) == ("02:00:00:00:00:01", ["10.1.0.1/24"], {"send": "true", "rdnss": "fd00::53"}, "h1")
    weir("router-port", "set", "gw2", "10.2.0.1/24", "ra:lifetime=0", "--disabled")
    gw2 = weir.json("router-port", "show", "gw2")
    assert (gw2["addresses"], gw2["ra"]["lifetime"], gw2["enabled"]) == (["10.2.0.1/24"], "0", False)
    weir("router", "set", "r1", "--disabled")
    assert weir.json("router", "show", "r1")["enabled"] is False
    assert weir.refuses("router", "add", "r1") == "there is a router r1 already"
    weir("router", "add", "r1", "--may-exist", "enabled=true")
    weir("router-port", "add", "gw2", "--may-exist", "10.3.0.1/24")
    assert weir.json("router-port", "show", "gw2")["addresses"] == ["10.3.0.1/24"]
    assert weir.refuses("router-port", "add", "gw3", "--network", "red") == "router port gw3: of which router? Say --router NAME"
    assert weir.refuses("router-port", "add", "gw3", "--router", "r1") == "router port gw3: in which network? Say --network NAME"
    assert weir.refuses("router-port", "add", "gw3", "10.0.0.1", "--router", "r1", "--network", "red").startswith("router port gw3: '10.0.0.1' is no address")
    assert weir.refuses("router-port", "add", "gw3", "--router", "r9", "--network", "red") == "router port gw3: there is no router r9"
    assert weir.refuses("router-port", "set", "gw9", "--mac", "02:00:00:00:00:01") == "there is no router port gw9"
    assert told(weir, "router-port", "add", "gw3", "10.0.0.0/24", "--router", "r1", "--network", "red") == \
        "router port gw3: addresses: 10.0.0.0/24 is the address of the network itself, or its broadcast address"
    assert weir.refuses("router", "del", "r1") == "router r1 still has port gw1; delete it first (router-port del gw1)"
    assert weir.refuses("network", "del", "blue") == "network blue still has router port gw1; delete it first (router-port del gw1)"
    assert weir.refuses("host", "del", "h1") == "host h1 still has router port gw2; delete it first (router-port del gw2)"
    weir("route", "add", "r1", "10.9.0.0/16", "blackhole", "--", "route-policy", "add", "r1", "--in-port", "gw1", "--action", "prohibit")
    for name in ("gw1", "gw2", "gw3"):
        weir("router-port", "del", name)
    assert not weir.json("route-policy", "list"), "it goes with its router port"
    weir("router", "del", "r1")
    assert not weir.json("route", "list") and not weir.json("router", "list")
    weir("router", "del", "r1", "--if-exists", "--", "router-port", "del", "gw1", "--if-exists", "--", "route", "del", "r1", "all", "--if-exists")
    weir("network", "del", "blue")


def test_routes(weir):
    weir("route", "add", "r1", "10.9.0.0/16", "via", "10.0.0.254")
    weir("route", "add", "r1", "default", "via", "10.0.0.254", "weight", "3", "via", "10.0.0.253")
    weir("route", "add", "r1", "default", "via", "fe80::1", "dev", "gw1", "--metric", "5")
    weir("route", "add", "r1", "10.8.0.0/16", "dev", "gw1", "weight", "7", "nexthop", "via", "10.0.0.252%gw1", "--table", "100")
    weir("route", "add", "r1", "10.7.0.0/16", "unreachable", "--", "route", "add", "r1", "fd07::/16", "prohibit")
    assert routes(weir, "r1") == {
        (None, "10.9.0.0/16", None): (None, {"10.0.0.254": 1}),
        (None, "default", None): (None, {"10.0.0.254": 3, "10.0.0.253": 1}),
        (None, "default", 5): (None, {"fe80::1%gw1": 1}),
        (100, "10.8.0.0/16", None): (None, {"%gw1": 7, "10.0.0.252%gw1": 1}),
        (None, "10.7.0.0/16", None): ("unreachable", {}),
        (None, "fd07::/16", None): ("prohibit", {})}
    assert "10.9.0.0/16" in weir("route", "list") and "unicast" in weir("route", "list")
    assert weir.refuses("route", "add", "r1", "10.9.0.0/16", "blackhole").startswith("router r1 has a route 10.9.0.0/16 already")
    weir("route", "add", "r1", "10.9.0.0/16", "via", "10.0.0.1%gw1", "--may-exist")
    assert routes(weir)[None, "10.9.0.0/16", None] == (None, {"10.0.0.1%gw1": 1})
    weir("route", "del", "r1", "default", "--metric", "5")
    assert (None, "default", 5) not in routes(weir) and (None, "default", None) in routes(weir)
    assert weir.refuses("route", "del", "r1", "10.8.0.0/16").startswith("router r1 has no such route 10.8.0.0/16")
    weir("route", "del", "r1", "10.8.0.0/16", "--table", "100")
    weir("route", "del", "r1", "all")
    assert not routes(weir)


@pytest.mark.parametrize("words, sentence", [
    (("r9", "10.0.0.0/8", "blackhole"), "there is no router r9"),
    (("r1", "10.0.0.0/8", "over", "10.0.0.254"), "route: 'over' is none of via, dev and weight"),
    (("r1", "10.0.0.0/8", "via"), "route: via what?"),
    (("r1", "10.0.0.0/8", "weight", "2"), "route: weight is that of a next hop"),
    (("r1", "10.0.0.0/8", "via", "10.0.0.254", "weight", "257"), "route: weight must be a number from 1 to 256, not '257'"),
    (("r1", "10.0.0.0/8", "via", "10.0.0.254", "weight", "-1"), "route: weight must be a number"),
    (("r1", "10.0.0.0/8", "via", "10.0.0.254", "via", "10.0.0.254"), "route: next hop 10.0.0.254 is there twice"),
    (("r1", "10.0.0.0/8", "via", "10.0.0.254", "blackhole"), "route: 'blackhole' is none of"),
    (("r1", "10.0.0.0/8", "via", "10.0.0.254", "--table", "0"), "--table must be a number from 1 to 4294967295, not '0'"),
    (("r1", "10.0.0.0/8", "via", "10.0.0.254", "--metric", "x"), "--metric must be a number from 0 to 4294967295, not 'x'"),
    (("r1", "10.0.0.0/8", *(w for i in range(65) for w in ("via", f"10.0.0.{i}"))), "route: 64 next hops are possible"),
])
def test_refused_routes(weir, words, sentence):
    assert weir.refuses("route", "add", *words).startswith(sentence)


def test_routes_that_the_switch_refuses(weir):
    """They are in the database, and named with what is wrong."""
    assert told(weir, "route", "add", "r1", "10.0.0.1/8", "blackhole") == "route r1 10.0.0.1/8: prefix: 10.0.0.1/8 has bits behind its 8"
    assert told(weir, "route", "add", "r1", "10.5.0.0/16", "dev", "nowhere", "--table", "7") == 'route r1 10.5.0.0/16 table 7: nexthops: router r1 has no port "nowhere"'
    (problem,) = {r["problem"] for r in weir.json("route", "list") if r["prefix"] == "10.0.0.1/8"}
    assert problem == "prefix: 10.0.0.1/8 has bits behind its 8"


def test_policies(weir):
    weir("route-policy", "add", "r1", "--src", "10.0.0.0/24", "--in-port", "gw1", "--dscp", "46", "--table", "100", "--priority", "10")
    weir("route-policy", "add", "r1", "--dst", "fd00::/8", "--action", "prohibit")
    assert [(p["router"], p["priority"], p["in_port"], p["src"], p["dst"], p["dscp"], p["action"], p["table"], p["problem"])
            for p in weir.json("route-policy", "list", "r1")] == [
        ("r1", 10, "gw1", "10.0.0.0/24", None, 46, None, 100, None), ("r1", None, None, None, "fd00::/8", None, "prohibit", None, None)]
    assert weir.refuses("route-policy", "add", "r1", "--priority", "10", "--table", "3") == \
        "router r1 has a policy of priority 10 already; say another --priority"
    assert weir.refuses("route-policy", "add", "r1", "--priority", "11").startswith("route-policy: what becomes of the packets?")
    assert weir.refuses("route-policy", "add", "r1", "--dscp", "64", "--table", "1", "--priority", "11").endswith("dscp must be a number from 0 to 63, not '64'")
    assert told(weir, "route-policy", "add", "r1", "--src", "10.0.0.1/24", "--table", "3", "--priority", "7") == "route policy r1 7: src: 10.0.0.1/24 has bits behind its 24"
    assert weir.refuses("route-policy", "del", "r1", "5") == "router r1 has no policy of priority 5"
    weir("route-policy", "del", "r1", "10")
    weir("route-policy", "del", "r1", "32768")
    weir("route-policy", "del", "r1", "all")
    assert not weir.json("route-policy", "list")


def test_tunnels(weir):
    weir("network", "set", "blue", "--tunnel", "geneve", "--flood-to", "192.0.2.2,192.0.2.3", "--arp-proxy", "--snooping", "--querier")
    blue = weir.json("network", "show", "blue")
    assert (blue["tunnel"], blue["flood_to"], blue["arp_proxy"], blue["multicast"]) == ("geneve", ["192.0.2.2", "192.0.2.3"], True, {"snooping": "true", "querier": "true"})
    weir("router-port", "add", "up", "192.0.2.1/24", "--router", "r1", "--network", "red", "--", "host", "set", "h1", "--tunnel-ips", "192.0.2.1")
    assert weir.json("host", "list")[0]["tunnel_ips"] == ["192.0.2.1"]
    assert told(weir, "host", "set", "h1", "--tunnel-ips", "192.0.2.9") == "host h1: tunnel_ips: 192.0.2.9 is no address of a router port of this switch"
    assert weir.refuses("host", "set", "h1", "endpoint=x") == "host h1: the switch itself writes endpoint"
    assert weir.refuses("host", "set", "h1").startswith("host h1: what should be set?")
    weir("fdb", "add", "blue", "52:54:00:00:00:01", "--tunnel", "192.0.2.2")
    (entry,) = weir.server.rows("FDB")
    assert (entry["tunnel_ip"], entry["port"]) == ("192.0.2.2", None)
    assert weir.refuses("fdb", "add", "blue", "52:54:00:00:00:02") == "52:54:00:00:00:02: where is it? Say a port, or --tunnel IP"
    assert told(weir, "fdb", "add", "red", "52:54:00:00:00:02", "--tunnel", "192.0.2.2").startswith("FDB red 52:54:00:00:00:02: tunnel_ip: tunnels carry a network by its vni")


def test_completion(weir):
    assert complete(weir, "weirctl router-p") == ["router-port"]
    assert complete(weir, "weirctl router del ") == ["r1"]
    assert complete(weir, "weirctl router-port set ") == ["gw1"]
    assert complete(weir, "weirctl route add ") == ["r1"]
    assert complete(weir, "weirctl route add r1 10.0.0.0/8 v") == ["via"]
    assert complete(weir, "weirctl route add r1 10.0.0.0/8 dev ") == ["gw1"]
    assert complete(weir, "weirctl route-policy add r1 --in-port ") == ["gw1"]
    assert complete(weir, "weirctl router-port add gw9 --router ") == ["r1"]
    assert complete(weir, "weirctl network set blue --tunnel g") == ["geneve", "gre"]


def test_the_manual(weir):
    """Each noun and option is in it."""
    text = weir("--commands=mdoc")
    for word in ("router\\-port", "route\\-policy", "blackhole", "tunnel\\-ips"):
        assert word in text or word.replace("\\", "") in text, word
