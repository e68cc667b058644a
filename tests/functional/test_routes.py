"""Routes that a router gets from the database, from files, and from a routing table of the kernel; look-ups and lists of them.

    network blue (10.0.0.0/24, 2001:db8::/64)          network red (10.0.1.0/24)
         |                                                  |
         +-- red-a 10.0.0.1, 2001:db8::1    router r    red-b 10.0.1.1 --+
"""

import os
import signal
import struct
import threading
import time

import pytest

from net import LONG, SLOW, Lab, frame, mac, mac_bytes, run, wait_for
from lab import SwitchError

ROUTER_MAC = "02:00:00:00:aa:01"


def create(lab, table, *columns):
    return lab.weirctl("create", table, *columns).split()[-1]


@pytest.fixture(scope="module")
def lab():
    with Lab() as it:
        run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0", "net.ipv6.conf.default.disable_ipv6=0")
        it.network("blue")
        it.network("red")
        it.r = create(it, "Router", "name=r")
        blue, red = (it.weirctl("get", "Network", name, "_uuid").strip() for name in ("blue", "red"))
        create(it, "Router_Port", "name=r-a", f"router={it.r}", f"network={blue}", f'mac="{ROUTER_MAC}"', 'addresses=["10.0.0.1/24","2001:db8::1/64"]')
        create(it, "Router_Port", "name=r-b", f"router={it.r}", f"network={red}", 'addresses="10.0.1.1/24"')
        yield it


def lookup(lab, *words):
    return lab.ask("route/lookup", "r", *words)


def goes(lab, address, *words):
    """How the address is routed: "via ... dev ..." or the type."""
    answer = lookup(lab, address, *words)
    return answer["next_hop"] if answer["type"] == "unicast" else answer["type"]


def routes(lab, *words):
    return {(r["prefix"], r["source"]): r for r in lab.weirctl("route", "show", "--router", "r", *words, json=True)}


def load(lab, tmp_path, text, *words, router="r"):
    path = tmp_path / "routes"
    path.write_text(text)
    return lab.weirctl("route", "load", path, "--router", router, *words)


def sources(lab):
    return lab.weirctl("route", "sources", json=True)


def test_router_ports(lab):
    assert goes(lab, "10.0.0.7") == "dev r-a"
    assert goes(lab, "10.0.1.7") == "dev r-b"
    assert goes(lab, "2001:db8::7") == "dev r-a"
    assert goes(lab, "10.0.0.1") == "local"
    assert goes(lab, "10.0.0.255") == "blackhole"
    nowhere = lookup(lab, "192.0.2.1")
    assert nowhere["type"] == "none" and "no route" in nowhere["why"]
    assert routes(lab)[("10.0.0.0/24", "connected")]["next_hops"] == ["dev r-a"]


def test_a_file(lab, tmp_path):
    text = load(lab, tmp_path, "# the first one\n\n"
                               "10.9.0.0/16 via 10.0.0.9 proto bird metric 10\n"
                               "default metric 5 \n\tnexthop via 10.0.0.10 weight 1 \n\tnexthop via 10.0.1.10 weight 3 \n"
                               "2001:db8:9::/48 via 2001:db8::9\n"
                               "blackhole 10.9.9.0/24\n"
                               "10.8.0.0/16 dev r-b\n")
    assert text.startswith("5 routes in ")
    assert goes(lab, "10.9.1.1") == "via 10.0.0.9 dev r-a"
    assert goes(lab, "10.9.9.1") == "blackhole"
    assert goes(lab, "2001:db8:9::1") == "via 2001:db8::9 dev r-a"
    assert goes(lab, "10.8.1.1") == "dev r-b"
    answer = lookup(lab, "192.0.2.1")
    assert answer["prefix"] == "0.0.0.0/0" and answer["metric"] == 5 and "one of 2 next hops" in answer["why"]
    assert routes(lab)[("0.0.0.0/0", "file")]["next_hops"] == ["via 10.0.0.10 dev r-a weight 1", "via 10.0.1.10 dev r-b weight 3"]
    # Another file replaces it; what is in both stays.
    load(lab, tmp_path, "10.9.0.0/16 via 10.0.0.9 metric 10\n")
    assert goes(lab, "10.9.1.1") == "via 10.0.0.9 dev r-a"
    assert lookup(lab, "192.0.2.1")["type"] == "none"
    assert [k for k in routes(lab) if k[1] == "file"] == [("10.9.0.0/16", "file")]
    source, = (s for s in sources(lab) if s["router"] == "r")
    assert source["state"] == "loaded" and source["percent"] == 100 and source["routes"] == 1
    # Into another table.
    load(lab, tmp_path, "10.7.0.0/16 via 10.0.0.7\n", "--table", "77")
    assert lookup(lab, "10.7.0.1")["type"] == "none"
    assert list(routes(lab, "--table", "77")) == [("10.7.0.0/16", "file")]
    load(lab, tmp_path, "", "--table", "77")
    load(lab, tmp_path, "")
    assert not [k for k in routes(lab) if k[1] == "file"]


def test_bad_lines_are_named_and_nothing_else_is_lost(lab, tmp_path):
    with pytest.raises(SwitchError) as refused:
        load(lab, tmp_path, "10.9.0.0/16 via 10.0.0.9\n10.9.0.0/33 via 10.0.0.9\nrubbish\n\tnexthop via 10.0.0.1\n10.6.0.0/16\n10.8.0.0/16 via 10.0.0.8")
    said = str(refused.value)
    assert "line 2: \"10.9.0.0/33\" is no prefix" in said
    assert "line 3: \"rubbish\" is no prefix" in said
    assert "line 5: the route has no next hop" in said
    assert goes(lab, "10.9.1.1") == "via 10.0.0.9 dev r-a"
    assert goes(lab, "10.8.1.1") == "via 10.0.0.8 dev r-a"
    with pytest.raises(SwitchError, match="there is no router nobody"):
        load(lab, tmp_path, "", router="nobody")
    with pytest.raises(SwitchError, match="No such file"):
        lab.weirctl("route", "load", tmp_path / "none", "--router", "r")
    with pytest.raises(SwitchError, match="no ordinary file"):
        lab.weirctl("route", "load", "/dev/zero", "--router", "r")
    # Not text, and lines without end.
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 8192 + b"x" * 600000 + b"\n10.5.0.0/16 via 10.0.0.5\n")
    with pytest.raises(SwitchError, match="left out"):
        lab.weirctl("route", "load", tmp_path / "binary", "--router", "r")
    assert goes(lab, "10.5.0.1") == "via 10.0.0.5 dev r-a"
    load(lab, tmp_path, "")


def test_rows(lab):
    create(lab, "Route", f"router={lab.r}", 'prefix="10.20.0.0/16"', 'nexthops={"10.0.0.20"=1}', "metric=7")
    create(lab, "Route", f"router={lab.r}", 'prefix="10.21.0.0/16"', "type=prohibit")
    assert goes(lab, "10.20.0.1") == "via 10.0.0.20 dev r-a"
    assert goes(lab, "10.21.0.1") == "prohibit"
    answer = lookup(lab, "10.20.0.1")
    assert answer["source"] == "static" and answer["metric"] == 7 and answer["row"] == "Route 10.20.0.0/16"
    with pytest.raises(SwitchError, match="no port of router r"):
        create(lab, "Route", f"router={lab.r}", 'prefix="10.22.0.0/16"', 'nexthops={"172.31.0.1"=1}')
    assert lookup(lab, "10.22.0.1")["type"] == "none"
    lab.weirctl("destroy", "--all", "Route")
    assert lookup(lab, "10.20.0.1")["type"] == "none"


def kernel(lab, *words):
    run("ip", *words)


def wait_route(lab, address, how):
    wait_for(lambda: goes(lab, address) == how, 20, f"{address}: {how}")


def state(lab):
    return next((s for s in sources(lab) if s["source"].startswith("kernel")), {}).get("state")


def test_the_kernels_table(lab):
    kernel(lab, "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    kernel(lab, "link", "set", "up1", "up")
    kernel(lab, "link", "set", "up0", "up")
    kernel(lab, "addr", "add", "10.0.0.99/24", "dev", "up0")
    kernel(lab, "addr", "add", "10.0.1.99/24", "dev", "up0")
    kernel(lab, "-6", "addr", "add", "2001:db8::99/64", "dev", "up0", "nodad")
    kernel(lab, "route", "add", "10.30.0.0/16", "via", "10.0.0.30", "metric", "50", "table", "100")
    kernel(lab, "route", "add", "10.39.0.0/16", "via", "10.0.0.30", "table", "101")
    kernel(lab, "-6", "route", "add", "2001:db8:30::/48", "via", "2001:db8::30", "table", "100")
    kernel(lab, "route", "add", "unreachable", "10.31.0.0/16", "table", "100")
    lab.weirctl("set", "Router", lab.r, "other_config:netlink-table=100")
    wait_for(lambda: state(lab) == "following", 20, "the kernel's routes")
    assert goes(lab, "10.30.0.1") == "via 10.0.0.30 dev r-a"
    assert lookup(lab, "10.30.0.1")["metric"] == 50
    assert goes(lab, "2001:db8:30::1") == "via 2001:db8::30 dev r-a"
    assert goes(lab, "10.31.0.1") == "unreachable"
    assert lookup(lab, "10.39.0.1")["type"] == "none"  # another table
    # Changes.
    kernel(lab, "route", "add", "10.32.0.0/16", "table", "100", "nexthop", "via", "10.0.0.32", "weight", "2", "nexthop", "via", "10.0.1.32")
    wait_for(lambda: ("10.32.0.0/16", "kernel") in routes(lab), 20, "a route of two next hops")
    assert routes(lab)[("10.32.0.0/16", "kernel")]["next_hops"] == ["via 10.0.0.32 dev r-a weight 2", "via 10.0.1.32 dev r-b weight 1"]
    kernel(lab, "route", "replace", "10.30.0.0/16", "via", "10.0.1.33", "metric", "50", "table", "100")
    wait_route(lab, "10.30.0.1", "via 10.0.1.33 dev r-b")
    kernel(lab, "route", "del", "10.30.0.0/16", "metric", "50", "table", "100")
    wait_for(lambda: lookup(lab, "10.30.0.1")["type"] == "none", 20, "the route is gone")
    # IPv6: next hops are added and taken away one by one.
    kernel(lab, "-6", "route", "append", "2001:db8:30::/48", "via", "2001:db8::31", "table", "100")
    wait_for(lambda: len(routes(lab)[("2001:db8:30::/48", "kernel")]["next_hops"]) == 2, 20, "a second next hop")
    kernel(lab, "-6", "route", "del", "2001:db8:30::/48", "via", "2001:db8::30", "table", "100")
    wait_route(lab, "2001:db8:30::1", "via 2001:db8::31 dev r-a")
    # An interface goes down, and its IPv4 routes without a word.
    kernel(lab, "link", "set", "up0", "down")
    wait_for(lambda: ("10.32.0.0/16", "kernel") not in routes(lab), 20, "routes by an interface that is down")
    assert goes(lab, "10.31.0.1") == "unreachable"
    # Another table, then none.
    lab.weirctl("set", "Router", lab.r, "other_config:netlink-table=101")
    wait_for(lambda: lookup(lab, "10.31.0.1")["type"] == "none", 20, "routes of the table before")
    lab.weirctl("remove", "Router", lab.r, "other_config", "netlink-table")
    wait_for(lambda: not [k for k in routes(lab) if k[1] == "kernel"], 20, "all of them are gone")
    with pytest.raises(SwitchError, match="netlink-table"):
        lab.weirctl("set", "Router", lab.r, "other_config:netlink-table=many")
    lab.weirctl("remove", "Router", lab.r, "other_config", "netlink-table")
    kernel(lab, "link", "del", "up0")


@pytest.mark.skipif(not LONG, reason="takes a while: WEIR_LONG=1")
def test_lost_notifications(lab, tmp_path):
    """More changes than the socket holds, while the switch stands still: it reads everything again."""
    run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    for name in ("up0", "up1"):
        run("ip", "link", "set", name, "up")
    run("ip", "addr", "add", "10.0.0.99/24", "dev", "up0")
    lab.weirctl("set", "Router", lab.r, "other_config:netlink-table=100")
    wait_for(lambda: state(lab) == "following", 20, "the kernel's routes")
    batch, n = tmp_path / "batch", 400000
    batch.write_text("".join(f"route add {100 + (i >> 16)}.{i >> 8 & 255}.{i & 255}.0/24 via 10.0.0.{2 + i % 90} table 100\n" for i in range(n)))
    os.kill(lab.daemon.pid, signal.SIGSTOP)
    try:
        run("ip", "-batch", batch, limit=120)
    finally:
        os.kill(lab.daemon.pid, signal.SIGCONT)

    def kernels():
        return next(s for s in sources(lab) if s["source"].startswith("kernel"))

    wait_for(lambda: kernels()["routes"] == n and kernels()["state"] == "following", 60 * SLOW, kernels)
    assert "read 2 times" in kernels()["note"]
    lab.weirctl("remove", "Router", lab.r, "other_config", "netlink-table")
    wait_for(lambda: not [s for s in sources(lab) if s["source"].startswith("kernel")], 60 * SLOW, "all of them are gone")
    run("ip", "link", "del", "up0")


def test_gateways_on_a_link(lab):
    """A link-local gateway is where the kernel's interface is: the other end of a TAP port in network blue."""
    lab.tap("t0", "--network", "blue")
    kernel(lab, "addr", "add", "10.0.0.98/24", "dev", "t0")
    kernel(lab, "-6", "route", "add", "2001:db8:40::/48", "via", "fe80::40", "dev", "t0", "table", "100")
    kernel(lab, "route", "add", "10.40.0.0/16", "dev", "t0", "table", "100")
    lab.weirctl("set", "Router", lab.r, "other_config:netlink-table=100")
    wait_route(lab, "2001:db8:40::1", "via fe80::40 dev r-a")
    assert goes(lab, "10.40.0.1") == "dev r-a"
    lab.weirctl("remove", "Router", lab.r, "other_config", "netlink-table")
    lab.delete("t0")


def test_many_routes(lab, tmp_path):
    """Long lists come in pages; while a file is read, others are answered."""
    lines = [f"10.{64 + i // 65536}.{i // 256 % 256}.{i % 256}/32 via 10.0.0.{2 + i % 200}" for i in range(50000)]
    assert load(lab, tmp_path, "\n".join(lines) + "\n").startswith("50000 routes")
    shown = lab.weirctl("route", "show", "--router", "r", json=True)
    assert len([r for r in shown if r["source"] == "file"]) == 50000
    prefixes = [tuple(map(int, r["prefix"].split("/")[0].split("."))) for r in shown if ":" not in r["prefix"]]
    assert prefixes == sorted(prefixes)
    assert len(lab.weirctl("route", "show", "--router", "r", "--limit", "7", json=True)) == 7
    entries = next(line for line in lab.weirctl("metrics").splitlines() if line.startswith("weir_route_entries "))
    assert float(entries.split()[1]) >= 50000
    load(lab, tmp_path, "")
    assert len(lab.weirctl("route", "show", "--router", "r", json=True)) < 20


def test_refusals(lab):
    for words, why in ((("nobody", "10.0.0.1"), "no router nobody"), (("r", "10.0.0"), "no address"), (("r", "10.0.0.1", "from", "::1"), "families"),
                       (("r", "10.0.0.1", "in", "nowhere"), "no port"), (("r", "10.0.0.1", "dscp", "64"), "DSCP"), (("r", "10.0.0.1", "by", "x"), "not understood")):
        with pytest.raises(SwitchError, match=why):
            lab.weirctl("route", "lookup", *words)
    with pytest.raises(SwitchError, match="--table wants"):
        lab.weirctl("route", "show", "--table", "x")


def udp(number, dst):
    """A numbered packet from 10.0.0.2 to dst, by way of the router."""
    body = struct.pack("!I", number).ljust(18, b"\0")
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(body), 0, 0, 64, 17, 0, bytes([10, 0, 0, 2]), bytes(map(int, dst.split("."))))
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xffff) + (total >> 16)
    head = head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xffff) + head[12:]
    return frame(mac(2), ROUTER_MAC)[:12] + b"\x08\x00" + head + struct.pack("!HHHH", 4000, 5000, 8 + len(body), 0) + body


def test_nothing_is_lost_while_routes_change(lab):
    """A /24 comes and goes, many times, over a /16 that stays, by the kernel's table; what is sent into it all arrives, by one next hop or the other."""
    lab.tap("t2", "--network", "blue", f"addresses={mac(2)} 10.0.0.2")
    for n in (3, 4):
        lab.tap(f"t{n}", "--network", "red", f"addresses={mac(n)} 10.0.1.{n}")
    run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    for name in ("up0", "up1"):
        run("ip", "link", "set", name, "up")
    run("ip", "addr", "add", "10.0.1.99/24", "dev", "up0")
    run("ip", "route", "add", "198.51.0.0/16", "via", "10.0.1.3", "table", "100")
    lab.weirctl("set", "Router", lab.r, "other_config:netlink-table=100")
    wait_route(lab, "198.51.100.7", "via 10.0.1.3 dev r-b")
    before, stop, sent = {**lab.drops(), "flow.NOBODY": 0}, threading.Event(), [0]

    def send():
        while not stop.is_set():
            for _ in range(20):
                lab.wire["t2"].send(udp(sent[0], "198.51.100.7"))
                sent[0] += 1
            time.sleep(0.005)

    def arrived():
        for n in (3, 4):
            for data in lab.wire[f"t{n}"].received():
                if data[12:14] == b"\x08\x00" and data[30:34] == bytes([198, 51, 100, 7]):
                    assert data[:6] == mac_bytes(mac(n)) and data[22] == 63
                    seen[n].append(struct.unpack("!I", data[42:46])[0])
        return len(seen[3]) + len(seen[4])

    seen = {3: [], 4: []}
    sender = threading.Thread(target=send)
    sender.start()
    for _ in range(100):
        run("ip", "route", "add", "198.51.100.0/24", "via", "10.0.1.4", "table", "100")
        arrived()
        run("ip", "route", "del", "198.51.100.0/24", "table", "100")
        arrived()
    stop.set()
    sender.join()
    wait_for(lambda: arrived() >= sent[0], 20 * SLOW, lambda: f"{sent[0]} packets, not {len(seen[3]) + len(seen[4])}")
    assert sorted(seen[3] + seen[4]) == list(range(sent[0]))
    assert seen[3] and seen[4]
    assert {**lab.drops(), "flow.NOBODY": 0} == before  # but what kernels say of themselves
    lab.weirctl("remove", "Router", lab.r, "other_config", "netlink-table")
    run("ip", "link", "del", "up0")
    lab.delete("t2", "t3", "t4")
