"""Two customers with the same addresses, each with a router of their own, and one router that chooses by source.

    a1 10.0.1.2 ---- red1 ---- [ router red  ] ---- red2 ---- b1 10.0.2.2
    a2 10.0.1.2 ---- tan1 ---- [ router tan  ] ---- tan2 ---- b2 10.0.2.2

    s1 10.4.0.2 \\                             10.5.0.11 [ kernel k1, 10.8.0.8 ]
                 sand ---- [ router pick ] ----
    s2 10.4.0.3 /   10.4.0.1          10.5.0.1  10.5.0.12 [ kernel k2, 10.8.0.8 ]

IPv6: the same with fd0x. Router `pick` has a default route by k1 in its main table, and one by k2 in table 100, which s2's packets are for.
"""

import pytest

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
