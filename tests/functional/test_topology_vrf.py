"""Two customers with the same addresses, each with a router of their own, and one router that chooses by source.

    a1 10.0.1.2 ---- red1 ---- [ router red  ] ---- red2 ---- b1 10.0.2.2
    a2 10.0.1.2 ---- tan1 ---- [ router tan  ] ---- tan2 ---- b2 10.0.2.2

    s1 10.4.0.2 \\                             10.5.0.11 [ kernel k1, 10.8.0.8 ]
                 sand ---- [ router pick ] ----
    s2 10.4.0.3 /   10.4.0.1          10.5.0.1  10.5.0.12 [ kernel k2, 10.8.0.8 ]

IPv6: the same with fd0x. Router `pick` has a default route by k1 in its main table, and one by k2 in table 100, which s2's packets are for, and those that
rules mark.
"""

import pytest

from net import SwitchError
from topology import Kernel, icmp, route, router


@pytest.fixture(scope="module")
def vrfs(lab):
    found = {}
    for name in ("red", "tan"):
        for n in (1, 2):
            lab.network(f"{name}{n}")
        for host, n in (("a", 1), ("b", 2)):
            port = host + ("1" if name == "red" else "2")
            found[port] = Kernel().plug(lab, port, f"{name}{n}", f"10.0.{n}.2/24", f"fd0{n}::2/64").default(f"10.0.{n}.1", f"fd0{n}::1")
        router(lab, name, {f"{name}-r{n}": (f"{name}{n}", f"10.0.{n}.1/24", f"fd0{n}::1/64") for n in (1, 2)})
    yield found
    for kernel in found.values():
        kernel.close()


@pytest.mark.parametrize("v", [4, 6])
def test_overlapping_prefixes(vrfs, lab, v):
    there = ("10.0.2.2", "fd02::2")[v // 6]
    for n in (1, 2):
        other = 3 - n
        before = lab.stats(f"b{other}")["tx_packets"]
        vrfs[f"a{n}"].reaches(there)
        said = lab.explain(f"a{n}", icmp(("10.0.1.2", "fd01::2")[v // 6], there))
        assert f"out by b{n}" in said, said
        assert lab.stats(f"b{other}")["tx_packets"] - before <= 3  # what a kernel says unasked goes its own way


@pytest.fixture(scope="module")
def pick(lab):
    lab.network("sand")
    lab.network("street")
    s = [Kernel().plug(lab, f"s{n}", "sand", f"10.4.0.{n + 1}/24", f"fd04::{n + 1}/64").default("10.4.0.1", "fd04::1") for n in (1, 2)]
    k = [Kernel().plug(lab, f"k{n}", "street", f"10.5.0.1{n}/24", f"fd05::1{n}/64").default("10.5.0.1", "fd05::1") for n in (1, 2)]
    for kernel in k:
        kernel.address("lo", "10.8.0.8/32")
        kernel.address("lo", "fd08::8/128")
    router(lab, "pick", {"p4": ("sand", "10.4.0.1/24", "fd04::1/64"), "p5": ("street", "10.5.0.1/24", "fd05::1/64")},
           [("0.0.0.0/0", "10.5.0.11"), ("::/0", "fd05::11")])
    route(lab, "pick", "0.0.0.0/0", "10.5.0.12", table=100)
    route(lab, "pick", "::/0", "fd05::12", table=100)
    for priority, src in enumerate(("10.4.0.3/32", "fd04::3/128"), 1):
        lab.weirctl("route-policy", "add", "pick", "--src", src, "--table", 100, "--priority", priority)
    yield s, k
    for kernel in s + k:
        kernel.close()


@pytest.mark.parametrize("v", [4, 6])
def test_policy_by_source(pick, lab, v):
    s, k = pick
    there = ("10.8.0.8", "fd08::8")[v // 6]
    for n in (1, 2):
        before = [lab.stats(f"k{i}")["tx_packets"] for i in (1, 2)]
        s[n - 1].reaches(there, count=20)
        after = [lab.stats(f"k{i}")["tx_packets"] for i in (1, 2)]
        sent = [b - a for a, b in zip(before, after)]
        assert sent[n - 1] >= 20 and sent[2 - n] < 15, sent
        said = lab.explain(f"s{n}", icmp(("10.4.0.", "fd04::")[v // 6] + str(n + 1), there))
        assert f"out by k{n}" in said and (n == 1 or "table 100" in said), said


@pytest.mark.parametrize("v", [4, 6])
def test_policy_by_mark(pick, lab, v):
    """Pings of s1 with one DSCP are marked by a rule, and go by k2 as the policy says; others by k1."""
    s, k = pick
    there, here = ("10.8.0.8", "fd08::8")[v // 6], ("10.4.0.2", "fd04::2")[v // 6]
    match = f"{'icmp' if v == 4 else 'icmp6'},in_port=s1,nw_tos=32"

    def by():
        before = [lab.stats(f"k{i}")["tx_packets"] for i in (1, 2)]
        s[0].reaches(there, "-Q", 32, count=20)
        sent = [lab.stats(f"k{i}")["tx_packets"] - n for i, n in zip((1, 2), before)]
        assert min(sent) < 15 and max(sent) >= 20, sent
        return 1 + sent.index(max(sent))

    assert by() == 1
    lab.weirctl("flow", "add", match, "set_field:0x110->pkt_mark")
    assert by() == 1
    lab.weirctl("route-policy", "add", "pick", "--mark", "0x10/0xff", "--table", 100, "--priority", 10)
    try:
        assert by() == 2
        (row,) = [p for p in lab.weirctl("route-policy", "list", "pick", json=True) if p["priority"] == 10]
        assert (row["mark"], row["problem"]) == ("0x10/0xff", None)
        (counted,) = lab.weirctl("flow", "list", json=True)
        assert counted["packets"] >= 40
        said = lab.explain("s1", f"{icmp(here, there)},nw_tos=32")
        assert "set_field:0x110->pkt_mark; mark 0x110" in said and "mark 0x110, /0 of table 100" in said and "out by k2" in said, said
        said = lab.weirctl("why", "--port", "s1", f"{icmp(here, there)},nw_tos=32")
        assert "out by k2; mark 0x110" in said and "Route_Policy:10" in said, said
        assert "out by k1" in lab.explain("s1", icmp(here, there))
        gateway = ("10.5.0.12", "fd05::12")[v // 6]
        for mark, table in (("0x10", 100), ("0xff10", 100), ("272", 100), ("0x11", 0), ("0", 0)):
            answer = lab.ask("route/lookup", "pick", there, "mark", mark)
            assert answer["table"] == table and (gateway in answer["next_hop"]) == (table == 100), answer
            assert answer["policy"] == ("Route_Policy 10" if table else None)
        for bad in ("", "0x10/0xff", "gold", "4294967296", "-1"):
            with pytest.raises(SwitchError, match="mark"):
                lab.weirctl("route", "lookup", "pick", there, "mark", bad)
        # Another mark, and none.
        lab.weirctl("flow", "del", match)
        lab.weirctl("flow", "add", match, "set_field:0x11->pkt_mark")
        assert by() == 1
        lab.weirctl("flow", "del", match)
        lab.weirctl("flow", "add", match, "set_field:0x10->pkt_mark,normal")
        assert by() == 2
    finally:
        lab.weirctl("route-policy", "del", "pick", 10)
        lab.weirctl("flow", "del", "all")
    assert by() == 1
