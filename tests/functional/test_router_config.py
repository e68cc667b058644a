"""Rows of routers, routes and tunnels: what they become (by dbdump, without a switch), and what a switch says of them.

    r1 -- gw1 -- blue (10.0.0.1/24, fd00::1/64)
       -- gw2 -- red  (10.0.1.1/24)
"""

import contextlib
import ipaddress
import random

import pytest

from database import Dump, Server, a_map, a_set, ref, wait_for


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    server.insert("Weir")
    yield server
    server.stop()


@pytest.fixture
def dumps(server, tmp_path):
    with contextlib.ExitStack() as made:

        def make(host="h1"):
            dump = Dump(server.remote, host, folder=tmp_path)
            made.callback(dump.stop)
            dump.in_order()
            return dump

        yield make


@pytest.fixture
def dump(dumps):
    return dumps()


@pytest.fixture
def r1(server):
    """The router of the drawing: rows by name."""
    rows = {name: server.insert("Network", name=name, vni=vni) for name, vni in (("blue", 7), ("red", 8))}
    rows["r1"] = server.insert("Router", name="r1")
    rows["gw1"] = server.insert("Router_Port", name="gw1", router=ref(rows["r1"]), network=ref(rows["blue"]),
                                addresses=a_set("10.0.0.1/24", "fd00::1/64"))
    rows["gw2"] = server.insert("Router_Port", name="gw2", router=ref(rows["r1"]), network=ref(rows["red"]), addresses="10.0.1.1/24")
    return rows


def applied(server, *dumps):
    generation = server.commit()
    for dump in dumps:
        dump.until(lambda d: d.config["next_cfg"] == generation, f"the config of generation {generation}")
    wait_for(lambda: all(h["cur_cfg"] == generation for h in server.rows("Host")), f"cur_cfg {generation}")
    return dumps[0].config


def weights(pairs):
    return ["map", [[k, v] for k, v in pairs.items()]]


def link_local(mac):
    """RFC 4291 appendix A."""
    b = bytes.fromhex(mac.replace(":", ""))
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes([b[0] ^ 2]) + b[1:3] + b"\xff\xfe" + b[3:]))


# ---- routers and their ports


def test_defaults(server, dump, r1):
    config = applied(server, dump)
    (router,) = config["routers"]
    assert router == {"row": r1["r1"], "name": "r1", "enabled": True, "other_config": {}, "error": None}
    gw1 = dump.named("router_ports", "gw1")
    local = link_local(gw1["mac"])
    assert gw1 == {"row": r1["gw1"], "name": "gw1", "router": r1["r1"], "network": r1["blue"], "mac": gw1["mac"], "enabled": True, "ra": {},
                   "addresses": ["10.0.0.1/24", "fd00::1/64", f"{local}/64"], "other_config": {}, "error": None}
    port = dump.port("gw1")
    assert (port["row"], port["type"], port["network"], port["vlan_mode"], port["error"]) == (r1["gw1"], "router", r1["blue"], "access", None)


def test_a_mac_of_the_row(server, dumps, r1):
    """Without a MAC it is made of the row's UUID: locally administered, of one station, the same on every host, and another one for each row."""
    one, two = dumps("h1"), dumps("h2")
    applied(server, one, two)
    for name in ("gw1", "gw2"):
        mac = one.named("router_ports", name)["mac"]
        assert mac == two.named("router_ports", name)["mac"]
        assert int(mac[:2], 16) & 3 == 2
    assert one.named("router_ports", "gw1")["mac"] != one.named("router_ports", "gw2")["mac"]


def test_mac_and_link_local_address_that_are_given(server, dump, r1):
    server.update("Router_Port", "gw1", mac="02:00:00:00:00:01", addresses=a_set("fe80::1/64"), enabled=False,
                  ra=a_map(send="true", rdnss="fd00::53 fd00::54", preferred_lifetime="4294967295"))
    applied(server, dump)
    gw1 = dump.named("router_ports", "gw1")
    assert (gw1["mac"], gw1["addresses"], gw1["enabled"], gw1["error"]) == ("02:00:00:00:00:01", ["fe80::1/64"], False, None)
    assert gw1["ra"] == {"send": "true", "rdnss": "fd00::53 fd00::54", "preferred-lifetime": "4294967295"}
    assert not dump.port("gw1")["enabled"]


def test_eui_64(server, dump, r1):
    server.update("Router_Port", "gw2", mac="34:56:78:9a:bc:de")
    applied(server, dump)
    assert dump.named("router_ports", "gw2")["addresses"] == ["10.0.1.1/24", "fe80::3656:78ff:fe9a:bcde/64"]


BAD_ROUTER_PORTS = [
    ({"name": "a b"}, 'name: "a b" isn\'t 1 to 63 letters'),
    ({"mac": "02:00:00:00:00"}, 'mac: "02:00:00:00:00" is no Ethernet address'),
    ({"mac": "01:00:5e:00:00:01"}, "mac: 01:00:5e:00:00:01 isn't the Ethernet address of one station"),
    ({"mac": "00:00:00:00:00:00"}, "mac: 00:00:00:00:00:00 isn't"),
    ({"mac": ""}, 'mac: "" is no Ethernet address'),
    ({"addresses": "10.0.0.1"}, 'addresses: "10.0.0.1" isn\'t an IP address with the length of its prefix'),
    ({"addresses": "10.0.0.1/33"}, 'addresses: "10.0.0.1/33" isn\'t'),
    ({"addresses": "10.0.0.1/"}, 'addresses: "10.0.0.1/" isn\'t'),
    ({"addresses": "10.0.0.1/24x"}, "addresses: "),
    ({"addresses": "10.0.0.1/0"}, "addresses: "),
    ({"addresses": "10.0.0.1/-1"}, "addresses: "),
    ({"addresses": "10.0.0.1/99999999999999999999"}, "addresses: "),
    ({"addresses": "fd00::1/129"}, "addresses: "),
    ({"addresses": "fd00::1::/64"}, "addresses: "),
    ({"addresses": "9" * 200 + "/24"}, "addresses: "),
    ({"addresses": "/24"}, "addresses: "),
    ({"addresses": ""}, "addresses: "),
    ({"addresses": "10.0.0.0/24"}, "addresses: 10.0.0.0/24 is the address of the network itself, or its broadcast address"),
    ({"addresses": "10.0.0.255/24"}, "addresses: 10.0.0.255/24 is the address of the network itself"),
    ({"addresses": "224.0.0.1/24"}, "addresses: 224.0.0.1/24 can't be the address of a router port"),
    ({"addresses": "127.0.0.1/8"}, "addresses: 127.0.0.1/8 can't be"),
    ({"addresses": "0.0.0.0/24"}, "addresses: 0.0.0.0/24 can't be"),
    ({"addresses": "ff02::1/64"}, "addresses: ff02::1/64 can't be"),
    ({"addresses": "::1/128"}, "addresses: ::1/128 can't be"),
    ({"addresses": "::/64"}, "addresses: ::/64 can't be"),
    ({"addresses": "fe80::1/10"}, "addresses: fe80::1/10: the prefix of a link-local address has 64 bits"),
    ({"ra": a_map(sned="true")}, 'ra: there is no key "sned"'),
    ({"ra": a_map(max_interval="3")}, 'ra: max-interval must be a number from 4 to 1800 seconds, not "3"'),
    ({"ra": a_map(preference="best")}, 'ra: preference must be one of high medium low, not "best"'),
    ({"ra": a_map(rdnss="fd00::53,fd00::54")}, 'ra: rdnss must be IP addresses with spaces between, not "fd00::53,fd00::54"'),
    ({"ra": a_map(rdnss="")}, "ra: rdnss is empty"),
]


def test_bad_router_ports(server, dump, r1):
    """Each names what is wrong and hurts no other one."""
    rows = {}
    for i, (columns, _) in enumerate(BAD_ROUTER_PORTS):
        row = {"name": f"bad{i}", "router": ref(r1["r1"]), "network": ref(r1["red"]), **columns}
        rows[i] = server.insert("Router_Port", **row)
    config = applied(server, dump)
    by_row = {p["row"]: p for p in config["router_ports"]}
    for i, (columns, error) in enumerate(BAD_ROUTER_PORTS):
        found = by_row[rows[i]]["error"]
        assert found and found.startswith(error), (columns, found)
        assert "\n" not in found
    assert not by_row[r1["gw1"]]["error"] and not by_row[r1["gw2"]]["error"]
    in_database = {p["_uuid"]: p["error"] for p in server.rows("Router_Port")}
    assert in_database == {p["row"]: p["error"] for p in config["router_ports"]}
    # Set right, each is in order.
    for i, row in rows.items():
        server.transact({"op": "update", "table": "Router_Port", "where": [["_uuid", "==", ref(row)]],
                         "row": {"name": f"bad{i}", "mac": a_set(), "addresses": f"10.9.{i}.1/24", "ra": a_map()}})
    config = applied(server, dump)
    assert not [p for p in config["router_ports"] if p["error"]]
    assert not [p for p in server.rows("Router_Port") if p["error"]]


def test_a_row_that_goes_bad(server, dumps, r1):
    """The port stays as it was, on a switch that knew it; one that doesn't has nothing to go by."""
    dump = dumps()
    applied(server, dump)
    before = dump.named("router_ports", "gw1")
    for columns in ({"mac": "x"}, {"addresses": a_set("10.0.0.1/24", "10.0.0.0/24")}, {"ra": a_map(send="perhaps")}):
        server.update("Router_Port", "gw1", mac=a_set(), addresses=a_set("10.0.0.1/24", "fd00::1/64"), ra=a_map())
        server.update("Router_Port", "gw1", **columns)
        applied(server, dump)
        now = dump.named("router_ports", "gw1")
        assert now["error"] and server.row("Router_Port", "gw1")["error"] == now["error"]
        assert {**now, "error": None} == before and not dump.port("gw1")["error"]
    other = dumps("h2")
    assert other.named("router_ports", "gw1")["error"] and other.port("gw1")["error"]
    server.update("Router_Port", "gw1", ra=a_map(), addresses="10.0.0.2/24")
    applied(server, dump, other)
    assert dump.named("router_ports", "gw1")["addresses"][0] == "10.0.0.2/24" and not dump.named("router_ports", "gw1")["error"]


def test_point_to_point_addresses(server, dump, r1):
    """RFC 3021, RFC 6164: of two addresses both are stations'."""
    server.update("Router_Port", "gw2", addresses=a_set("192.0.2.0/31", "2001:db8::/127", "198.51.100.1/32", "2001:db8:1::1/128"))
    applied(server, dump)
    gw2 = dump.named("router_ports", "gw2")
    assert not gw2["error"] and len(gw2["addresses"]) == 5


def test_name_of_a_port(server, dump, r1):
    """A router port that has a port's name says so; the port works on."""
    port = server.insert("Port", name="gw1", type="tap", network=ref(r1["blue"]))
    applied(server, dump)
    assert dump.named("router_ports", "gw1")["error"] == "name: a port of this switch has the name gw1 too"
    assert dump.port("gw1")["row"] == port and not dump.port("gw1")["error"]
    server.delete("Port", ["name", "==", "gw1"])
    applied(server, dump)
    assert not dump.named("router_ports", "gw1")["error"] and dump.port("gw1")["row"] == r1["gw1"]


def test_router_ports_of_one_host(server, dumps, r1):
    """A port that names its host is there only. Routes by it are there only, too, and have no error anywhere else."""
    one, two = dumps("h1"), dumps("h2")
    server.insert("Router_Port", name="up1", host="h1", router=ref(r1["r1"]), network=ref(r1["red"]), addresses="192.0.2.1/24")
    server.insert("Router_Port", name="up2", host="h2", router=ref(r1["r1"]), network=ref(r1["red"]), addresses="198.51.100.1/24")
    server.insert("Route", router=ref(r1["r1"]), prefix="10.1.0.0/16", nexthops=weights({"192.0.2.254": 1}))
    server.insert("Route", router=ref(r1["r1"]), prefix="10.2.0.0/16", nexthops=weights({"%up2": 1}))
    server.insert("Route", router=ref(r1["r1"]), prefix="10.3.0.0/16", nexthops=weights({"192.0.2.254": 1, "10.0.0.254": 2}))
    applied(server, one, two)
    assert one.named("router_ports", "up1") and not one.named("router_ports", "up2") and not one.port("up2")
    assert two.named("router_ports", "up2") and not two.named("router_ports", "up1") and not two.port("up1")
    assert [r["prefix"] for r in one.config["routes"]] == ["10.1.0.0/16", "10.3.0.0/16"]
    assert [r["prefix"] for r in two.config["routes"]] == ["10.2.0.0/16", "10.3.0.0/16"]
    assert [len(r["hops"]) for r in one.config["routes"]] == [1, 2]
    assert [(h["gateway"], h["weight"]) for h in two.config["routes"][1]["hops"]] == [("10.0.0.254", 2)]
    assert not [r for r in server.rows("Route") if r["error"]]


# ---- routes


def test_routes(server, dump, r1):
    def route(prefix, **columns):
        server.insert("Route", router=ref(r1["r1"]), prefix=prefix, **columns)

    route("10.9.0.0/16", nexthops=weights({"10.0.0.254": 1}))
    route("default", nexthops=weights({"10.0.0.254": 3, "10.0.1.254%gw2": 256}), metric=4294967295)
    route("default", nexthops=weights({"fe80::1%gw1": 1}))
    route("10.8.0.7", nexthops=weights({"%gw2": 1}), table=100)
    route("10.7.0.0/16", type="blackhole")
    route("fd07::/16", type="unreachable", metric=5)
    route("fd08::/16", type="prohibit", table=4294967295)
    config = applied(server, dump)
    found = {(r["table"], r["prefix"]): r for r in config["routes"]}
    assert not [r["error"] for r in config["routes"] if r["error"]]
    assert found[0, "10.9.0.0/16"]["hops"] == [{"gateway": "10.0.0.254", "port": None, "weight": 1}]
    assert found[0, "0.0.0.0/0"]["metric"] == 4294967295
    assert sorted((h["gateway"], h["port"], h["weight"]) for h in found[0, "0.0.0.0/0"]["hops"]) == [("10.0.0.254", None, 3), ("10.0.1.254", r1["gw2"], 256)]
    assert found[0, "::/0"]["hops"] == [{"gateway": "fe80::1", "port": r1["gw1"], "weight": 1}]
    assert found[100, "10.8.0.7/32"]["hops"] == [{"gateway": None, "port": r1["gw2"], "weight": 1}]
    assert [found[k]["type"] for k in ((0, "10.7.0.0/16"), (0, "fd07::/16"), (4294967295, "fd08::/16"))] == ["blackhole", "unreachable", "prohibit"]


BAD_ROUTES = [
    ({"prefix": "10.0.0.1/8"}, "prefix: 10.0.0.1/8 has bits behind its 8"),
    ({"prefix": "fd00::1/64"}, "prefix: fd00::1/64 has bits behind its 64"),
    ({"prefix": "10.0.0.0/33"}, 'prefix: "10.0.0.0/33" is no prefix such as 10.0.0.0/8 or fd00::/8, nor default'),
    ({"prefix": "10.0.0/24"}, 'prefix: "10.0.0/24" is no prefix'),
    ({"prefix": ""}, 'prefix: "" is no prefix'),
    ({"prefix": "x" * 1000}, "prefix: "),
    ({"prefix": "default", "type": "blackhole", "nexthops": weights({})}, "prefix: there is no gateway that tells which default it is"),
    ({"nexthops": weights({})}, "nexthops: there is none"),
    ({"nexthops": weights({"": 1})}, "nexthops: a next hop is empty"),
    ({"nexthops": weights({"10.0.0": 1})}, 'nexthops: "10.0.0" isn\'t the IP address of a gateway'),
    ({"nexthops": weights({"224.0.0.5": 1})}, 'nexthops: "224.0.0.5" isn\'t the IP address of a gateway'),
    ({"nexthops": weights({"10.0.0.254%": 1})}, 'nexthops: router r1 has no port ""'),
    ({"nexthops": weights({"%nowhere": 1})}, 'nexthops: router r1 has no port "nowhere"'),
    ({"nexthops": weights({"10.5.0.254%other": 1})}, 'nexthops: router r1 has no port "other"'),
    ({"type": "blackhole"}, "nexthops: a route of type blackhole has none"),
]


def test_bad_routes(server, dump, r1):
    r2 = server.insert("Router", name="r2")
    server.insert("Router_Port", name="other", router=ref(r2), network=ref(r1["red"]), addresses="10.5.0.1/24")
    good = server.insert("Route", router=ref(r1["r1"]), prefix="10.6.0.0/16", nexthops=weights({"10.0.0.254": 1}))
    rows = [server.insert("Route", **{"router": ref(r1["r1"]), "prefix": f"10.100.{i}.0/24", "nexthops": weights({"10.0.0.254": 1}), **columns})
            for i, (columns, _) in enumerate(BAD_ROUTES)]
    config = applied(server, dump)
    by_row = {r["row"]: r for r in config["routes"]}
    for row, (columns, error) in zip(rows, BAD_ROUTES):
        found = by_row[row]["error"]
        assert found and found.startswith(error), (columns, found)
    assert not by_row[good]["error"]
    assert {r["_uuid"]: r["error"] for r in server.rows("Route")} == {r["row"]: r["error"] for r in config["routes"]}


def test_the_same_route_twice(server, dump, r1):
    """One of them holds, always the same; a row with an error never keeps one without from holding."""
    rows = [server.insert("Route", router=ref(r1["r1"]), prefix="10.9.0.0/16", nexthops=weights({hop: 1})) for hop in ("10.0.0.254", "10.0.1.254", "x")]
    config = applied(server, dump)
    errors = {r["row"]: r["error"] for r in config["routes"]}
    first, second = sorted(rows[:2])
    assert not errors[first]
    assert errors[second] == "prefix: there is this route with metric 0 already; give this one another metric, or that one more next hops"
    assert errors[rows[2]].startswith('nexthops: "x" isn\'t')
    server.transact({"op": "update", "table": "Route", "where": [["_uuid", "==", ref(second)]], "row": {"metric": 1}})
    assert not [r for r in applied(server, dump)["routes"] if r["error"] and r["row"] != rows[2]]


def test_policies(server, dump, r1):
    def policy(**columns):
        return server.insert("Route_Policy", **{"router": ref(r1["r1"]), **columns})

    r2 = server.insert("Router", name="r2")
    all_of_it = policy(priority=10, src="10.0.0.0/24", dst="10.1.0.0/16", in_port=ref(r1["gw1"]), dscp=46, mark="0x10/0xff", table=100)
    default = policy(table=7)
    drops = policy(priority=5, dst="fd00::/8", action="blackhole")
    bad = {policy(src="10.0.0.1/24"): "src: 10.0.0.1/24 has bits behind its 24", policy(dst="x"): 'dst: "x" is no prefix',
           policy(src="10.0.0.0/8", dst="fd00::/8"): "dst: it is of another family than src",
           policy(router=ref(r2), in_port=ref(r1["gw1"])): "in_port: gw1 is a port of another router",
           policy(mark="gold"): "mark: a mark is a number of 32 bits, such as 0x10, or one with a mask, 0x10/0xff",
           policy(mark="0x100/0xff"): "mark: the mark has bits that its mask leaves out", policy(mark="1/0"): "mark: the mask 0 leaves nothing of the mark",
           policy(action="prohibit", table=3): "table: action prohibit looks nothing up"}
    config = applied(server, dump)
    found = {p["row"]: p for p in config["policies"]}
    assert found[all_of_it] == {"row": all_of_it, "router": r1["r1"], "priority": 10, "src": "10.0.0.0/24", "dst": "10.1.0.0/16", "port": r1["gw1"], "dscp": 46, "mark": 16, "mask": 255,
                                "type": "unicast", "table": 100, "error": None}
    assert (found[default]["priority"], found[default]["dscp"], found[default]["mask"], found[default]["src"], found[default]["port"]) == (32768, -1, 0, None, None)
    assert (found[drops]["type"], found[drops]["error"]) == ("blackhole", None)
    for row, error in bad.items():
        assert found[row]["error"] and found[row]["error"].startswith(error), found[row]
    of_r1 = [p["priority"] for p in config["policies"] if p["router"] == r1["r1"]]
    assert of_r1 == sorted(of_r1)
    assert {p["_uuid"]: p["error"] for p in server.rows("Route_Policy")} == {p["row"]: p["error"] for p in config["policies"]}


def test_rows_in_any_order(server, dump):
    """Whatever comes first, the outcome is the same; the server itself keeps references whole."""
    networks = [{"op": "insert", "table": "Network", "uuid-name": f"n{i}", "row": {"name": f"n{i}"}} for i in range(3)]
    routers = [{"op": "insert", "table": "Router", "uuid-name": f"r{i}", "row": {"name": f"r{i}"}} for i in range(3)]
    ports = [{"op": "insert", "table": "Router_Port", "uuid-name": f"p{r}{n}",
              "row": {"name": f"p{r}{n}", "router": ["named-uuid", f"r{r}"], "network": ["named-uuid", f"n{n}"], "addresses": f"10.{n}.0.{r + 1}/24"}}
             for r in range(3) for n in range(3)]
    routes = [{"op": "insert", "table": "Route", "row": {"router": ["named-uuid", f"r{r}"], "prefix": f"172.16.{n}.0/24", "nexthops": weights({f"10.{n}.0.254": 1})}}
              for r in range(3) for n in range(3)]
    for seed in range(5):
        rows = networks + routers + ports + routes
        random.Random(seed).shuffle(rows)
        server.transact(*rows)
        config = applied(server, dump)
        assert [len(config[k]) for k in ("networks", "routers", "router_ports", "routes")] == [3, 3, 9, 9]
        assert not [x for k in ("networks", "routers", "router_ports", "routes", "ports") for x in config[k] if x["error"]]
        server.transact(*({"op": "delete", "table": t, "where": []} for t in ("Route", "Router_Port", "Router", "Network")))


def test_references_are_kept(server, r1):
    server.insert("Route", router=ref(r1["r1"]), prefix="10.9.0.0/16", type="blackhole")
    server.insert("Route_Policy", router=ref(r1["r1"]), in_port=ref(r1["gw1"]))
    for table, name in (("Router", "r1"), ("Network", "blue"), ("Router_Port", "gw1")):
        assert server.refuses({"op": "delete", "table": table, "where": [["name", "==", name]]}) == "referential integrity violation"


# ---- tunnels


def test_tunnels_between_hosts(server, dumps, r1):
    """What a switch tells is what the others know, as long as both have end points of a family."""
    one, two, three = dumps("h1"), dumps("h2"), dumps("h3")
    for n in (1, 2):
        server.insert("Router_Port", name=f"up{n}", host=f"h{n}", router=ref(r1["r1"]), network=ref(r1["red"]), addresses=a_set(f"192.0.2.{n}/24", f"2001:db8::{n}/64"))
    applied(server, one, two, three)
    server.update("Host", "h1", tunnel_ips=a_set("192.0.2.1", "2001:db8::1"))
    server.update("Host", "h2", tunnel_ips="2001:db8::2")
    server.update("Host", "h3", tunnel_ips="192.0.2.3")
    two.say("publish 2001:db8::2 blue red_52:54:00:00:00:02_10.0.0.2_fd00::2 blue_52:54:00:00:00:03 nowhere_52:54:00:00:00:04 blue_rubbish blue_53:54:00:00:00:05")
    three.say("publish 192.0.2.3 blue_52:54:00:00:00:06")
    one.until(lambda d: len(d.config["remotes"]) == 2, "two remotes")
    assert one.config["tunnel_ips"] == ["192.0.2.1", "2001:db8::1"]
    two.until(lambda d: d.config["tunnel_ips"] == ["2001:db8::2"], "its own end point")
    remotes = {r["name"]: r for r in one.config["remotes"]}
    assert (remotes["h2"]["ip"], set(remotes["h2"]["networks"])) == ("2001:db8::2", {r1["blue"], r1["red"]})
    assert (remotes["h3"]["ip"], remotes["h3"]["networks"]) == ("192.0.2.3", [r1["blue"]])
    assert sorted((m["mac"], m["network"], m["ip"], m["ips"], m["row"]) for m in one.config["remote_macs"]) == [
        ("52:54:00:00:00:02", r1["red"], "2001:db8::2", ["10.0.0.2", "fd00::2"], None),
        ("52:54:00:00:00:03", r1["blue"], "2001:db8::2", [], None),
        ("52:54:00:00:00:06", r1["blue"], "192.0.2.3", [], None)]
    port = one.port("tunnel:2001:db8::2")
    assert (port["type"], port["vlan_mode"], set(port["trunks"])) == ("tunnel", "network-id", {r1["blue"], r1["red"]})
    assert not two.config["remotes"], "h3 has no IPv6 end point, and h1 publishes nothing"
    # h3's address is no router port's of it.
    wait_for(lambda: server.row("Host", "h3")["error"] == "tunnel_ips: 192.0.2.3 is no address of a router port of this switch", "the error of h3")
    assert not server.row("Host", "h1")["error"]
    # The row of what it tells goes with the host, or when it has nothing to tell.
    assert {e["host"] for e in server.rows("Endpoint")} == {"h2", "h3"}
    three.say("publish -")
    one.until(lambda d: len(d.config["remotes"]) == 1, "one remote")
    assert {e["host"] for e in server.rows("Endpoint")} == {"h2"}
    two.say("publish 2001:db8::2 blue")
    one.until(lambda d: not d.config["remote_macs"], "no stations")
    server.stop()
    server.start()
    wait_for(lambda: {e["host"]: e["stations"] for e in server.rows("Endpoint")} == {"h2": ["blue"]}, "what h2 tells, after a restart of the server")


def test_static_tunnels(server, dump, r1):
    server.insert("Router_Port", name="up", router=ref(r1["r1"]), network=ref(r1["red"]), addresses="192.0.2.1/24")
    applied(server, dump)
    server.update("Host", "h1", tunnel_ips="192.0.2.1")
    server.update("Network", "blue", flood_to=a_set("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::2"))
    server.update("Network", "red", flood_to=a_set("192.0.2.2"))
    plain = server.insert("Network", name="plain")
    entry = server.insert("FDB", network=ref(r1["blue"]), mac="52:54:00:00:00:01", tunnel_ip="192.0.2.4")
    port = server.insert("Port", name="vm1", network=ref(r1["blue"]))
    bad = {
        server.insert("FDB", network=ref(r1["blue"]), mac="52:54:00:00:00:02", tunnel_ip="x"): 'tunnel_ip: "x" isn\'t the IP address of one end point',
        server.insert("FDB", network=ref(r1["blue"]), mac="52:54:00:00:00:03", tunnel_ip="192.0.2.4", port=ref(port)): "tunnel_ip: an address is at a port or behind a tunnel",
        server.insert("FDB", network=ref(plain), mac="52:54:00:00:00:04", tunnel_ip="192.0.2.4"): "tunnel_ip: tunnels carry a network by its vni, which network plain",
    }
    config = applied(server, dump)
    assert [(r["ip"], r["name"], r["host"]) for r in config["remotes"]] == [("192.0.2.2", "192.0.2.2", None), ("192.0.2.3", "192.0.2.3", None), ("192.0.2.4", "192.0.2.4", None)]
    assert set(config["remotes"][0]["networks"]) == {r1["blue"], r1["red"]}
    assert [(m["mac"], m["ip"], m["row"]) for m in config["remote_macs"]] == [("52:54:00:00:00:01", "192.0.2.4", entry)]
    errors = {f["row"]: f["error"] for f in config["fdb"]}
    for row, error in bad.items():
        assert errors[row] and errors[row].startswith(error), errors[row]
    server.update("Network", "plain", flood_to=a_set("192.0.2.2"))
    server.update("Network", "red", flood_to=a_set("192.0.2.2", "224.0.0.1"))
    applied(server, dump)
    assert dump.network("plain")["error"] == "flood_to: tunnels carry a network by its vni, which isn't set"
    assert dump.network("red")["error"] == 'flood_to: "224.0.0.1" isn\'t the IP address of one end point'


def test_rubbish_of_other_hosts(server, dump, r1):
    """Another switch's words may be of a later version, or nonsense: what isn't understood is passed over."""
    server.insert("Router_Port", name="up", router=ref(r1["r1"]), network=ref(r1["red"]), addresses="192.0.2.1/24")
    applied(server, dump)
    server.update("Host", "h1", tunnel_ips="192.0.2.1")
    words = ["blue", "", " ", "red", "52:54:00:00:00:07", "ff:ff:ff:ff:ff:ff", "10.0.0.1", "::", "x" * 300, "%s%n", "\u00e4"]
    rng = random.Random(5)
    stations = {" ".join(rng.choice(words) for _ in range(rng.randrange(5))) for _ in range(500)}
    server.transact({"op": "insert", "table": "Endpoint", "uuid-name": "e", "row": {"host": "h9", "tunnel_ips": a_set("192.0.2.9", "rubbish", ""), "stations": a_set(*stations)}},
                    {"op": "insert", "table": "Host", "row": {"name": "h9", "endpoint": ["named-uuid", "e"]}})
    dump.until(lambda d: d.config["remotes"], "a remote")
    (remote,) = dump.config["remotes"]
    assert remote["ip"] == "192.0.2.9" and set(remote["networks"]) == {r1["blue"], r1["red"]}
    assert {m["mac"] for m in dump.config["remote_macs"]} == {"52:54:00:00:00:07"}


# ---- many


def test_ten_thousand_routes(server, dump, r1):
    """In one transaction; of these one in a hundred is bad, and says so."""
    def row(i):
        return {"router": ref(r1["r1"]), "prefix": f"20.{i >> 8}.{i & 255}.{i % 100 == 7:d}/24", "nexthops": weights({"10.0.0.254": 1})}

    server.transact(*({"op": "insert", "table": "Route", "row": row(i)} for i in range(10000)))
    config = applied(server, dump)
    assert len(config["routes"]) == 10000
    assert sum(r["error"] is not None for r in config["routes"]) == 100
    assert {r["prefix"] for r in server.rows("Route") if r["error"]} == {row(i)["prefix"] for i in range(7, 10000, 100)}
