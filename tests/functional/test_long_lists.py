"""Long lists: read in parts, each of them a bounded piece of the main thread's time, which together are one list.

As many ports and addresses as a large host has; a million cached flows with WEIR_LONG=1.
"""
import json
from contextlib import ExitStack

import pytest

from net import LONG, SLOW, Lab, SwitchError, frame, wait_for
from test_vhost_ports import plug

PORTS, ADDRESSES, FLOWS, RULES = 1000, 100000, 1000000 if LONG else 20000, 600
PAGE_ROWS, PAGE_LOOKS, WHOLE = 250, 8192, 20000  # page.h, pages.h


def in_batches(lab, commands, size=200):
    for at in range(0, len(commands), size):
        words = []
        for command in commands[at:at + size]:
            words += [*(["--"] if words else []), *command]
        lab.weirctl(*words, limit=120 * SLOW)


@pytest.fixture(scope="module")
def crowd():
    """A switch with all of that."""
    with Lab() as lab, ExitStack() as stack:
        lab.weirctl("config", "set", "flow-idle-timeout=86400", "resolve-queue=1024", "flow-limit=4194304", "--", "network", "add", "idle", "--", "network", "add", "busy",
                    "unknown_unicast=drop", f"mac_limit={1 << 20}", "ageing=0")
        # Nothing listens at their sockets.
        in_batches(lab, [["port", "add", f"p{n}", "--network", "idle"] for n in range(PORTS - 1)])
        in_batches(lab, [["flow", "add", "--network", "idle", "--priority", str(n // 2), f"udp,tp_dst={n}", "drop"] for n in range(RULES)])
        guest = stack.enter_context(plug(lab, "vm1", network="busy"))

        # What is lost on the way (a miss too many in the queue) is sent again: the addresses count up once more.
        def addresses():
            guest.blast(0, ADDRESSES, frame(0, 0xffff), rate=100000, vary=[(9, 3)])
            guest.blasted(0)
            lab.settle("vm1", lab.stats("vm1")["rx_packets"])
            return lab.stats("vm1")["fdb_learned"] >= ADDRESSES
        wait_for(addresses, 60 * SLOW, "all addresses to be learned", 0)

        def flows():
            guest.blast(0, FLOWS, frame(1, 0), rate=400000, vary=[(3, 3)])
            guest.blasted(0)
            (worker,) = lab.ask("worker/list")
            return worker["flows"] >= FLOWS
        wait_for(flows, 120 * SLOW, "all flows to be cached", 0)
        lab.settle("vm1", lab.stats("vm1")["rx_packets"])
        lab.flows = lab.ask("worker/list")[0]["flows"]
        yield lab


def parts(lab, method, *words, json_=True):
    """The parts of a list, as whoever keeps to the protocol gets them."""
    cursor = "start"
    while cursor:
        first, _, rest = lab.unixctl(method, *(["--json"] if json_ else []), *words, "--page", cursor).partition("\n")
        if first == "end":
            cursor = None
        else:
            word, cursor = first.split(" ")
            assert word == "next", first
        yield rest


LISTS = [("cache/list", [], lambda lab: lab.flows), ("fdb/list", [], lambda lab: ADDRESSES), ("port/stats", [], lambda lab: PORTS), ("flow/list", [], lambda lab: RULES)]


@pytest.mark.parametrize("method,words,count", LISTS, ids=[method for method, _, _ in LISTS])
def test_parts(crowd, method, words, count):
    texts = list(parts(crowd, method, *words))
    rows = json.loads("".join(texts))
    assert len(rows) == count(crowd)
    assert len({json.dumps([row.get(k) for k in ("worker", "flow", "network", "mac", "port", "row")]) for row in rows}) == len(rows)
    # Every part is bounded, and the first one has rows already.
    sizes = [sum(1 for line in text.splitlines() if "{" in line) for text in texts]
    assert sum(sizes) == len(rows) and max(sizes) <= PAGE_ROWS and sizes[0] == PAGE_ROWS
    assert len(texts) >= len(rows) / PAGE_ROWS


def test_rows_that_are_rare(crowd):
    """A filter that passes little: parts are bounded by what is looked at, not only by what is found."""
    texts = list(parts(crowd, "cache/list", "--port", "p7"))
    assert "".join(texts) == "[]\n" and len(texts) >= crowd.flows / (PAGE_LOOKS + 1)
    (row,) = crowd.weirctl("fdb", "list", "--mac", "52:54:00:01:02:0a", json=True)
    assert row["mac"] == "52:54:00:01:02:0a" and row["port"] == "vm1"


def test_rules_that_go(crowd):
    """A list of rules goes on behind the one that was shown last, also when others have come or gone meanwhile."""
    first, _, text = crowd.unixctl("flow/list", "--json", "--page", "start").partition("\n")
    before = json.loads(text + "]")
    crowd.weirctl("flow", "del", "--network", "idle", before[3]["match"], "--", "flow", "add", "--network", "idle", "--priority", "65535", "arp", "normal")
    rest, cursor = [], first.split()[1]
    while cursor:
        first, _, text = crowd.unixctl("flow/list", "--json", "--page", cursor).partition("\n")
        rest += json.loads("[" + text.strip().lstrip(",").rstrip("]") + "]")
        cursor = first.partition(" ")[2]
    assert len({r["row"] for r in before + rest}) == RULES
    priorities = [r["priority"] for r in before + rest]
    assert priorities == sorted(priorities, reverse=True)
    crowd.weirctl("flow", "del", "--network", "idle", "arp", "--", "flow", "add", "--network", "idle", "--priority", str(before[3]["priority"]),
                  before[3]["match"], "drop")


def test_weirctl(crowd):
    """weirctl reads on by itself, and what it prints is one table, or one JSON array."""
    rows = crowd.weirctl("fdb", "list", "busy", json=True, limit=60 * SLOW)
    assert len(rows) == ADDRESSES and {row["network"] for row in rows} == {"busy"}
    lines = crowd.weirctl("fdb", "list", "busy", limit=60 * SLOW).splitlines()
    assert len(lines) == ADDRESSES + 1 and lines[0].split()[:2] == ["NETWORK", "MAC"] and sum("MAC" in line for line in lines) == 1
    # Columns keep their places.
    at = lines[0].index("PORT")
    assert all(line[at:].startswith("vm1") for line in lines[1:])
    lines = crowd.weirctl("cache", "list", limit=120 * SLOW).splitlines()
    assert len(lines) == crowd.flows + 1
    assert len(crowd.weirctl("port", "list", json=True)) == PORTS
    for n in (1, PAGE_ROWS, PAGE_ROWS + 1):
        assert len(crowd.weirctl("cache", "list", "--limit", str(n), json=True)) == n
    assert len(crowd.weirctl("fdb", "list", "--limit", "3").splitlines()) == 4


def test_whole_lists(crowd):
    """Without pages the answer is whole, made in slices; one that would be endless is refused."""
    assert len(crowd.ask("port/stats")) == PORTS
    assert len(crowd.ask("cache/list", "--limit", str(WHOLE))) == WHOLE
    assert crowd.ask("cache/list", "--port", "p7") == []
    with pytest.raises(SwitchError, match="more than 20000 rows: read it with weirctl"):
        crowd.ask("fdb/list")
    # A list in the making and the switch's end.
    assert len(crowd.ask("fdb/list", "--limit", "10000")) == 10000


@pytest.mark.parametrize("words,sentence", [
    (["--page"], "--page wants a value"),
    (["--page", "x"], "--page wants start"),
    (["--page", "0.0.0.1.0.4.4"], "the place in another list"),
    (["--page", "0.0.0.ffffffffffffffff"], "--page wants start"),
    (["--limit", "x"], "--limit wants a number"),
    (["--limit", "-1"], "--limit wants a number"),
    (["--limit", "0"], "--limit wants a number"),
    (["red"], "no network red"),
], ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_rubbish(crowd, words, sentence):
    with pytest.raises(SwitchError, match=sentence):
        crowd.unixctl("fdb/list", *words)


def test_places_beyond_the_end(crowd):
    """A cursor that somebody made up: the list ends, nothing else happens."""
    assert list(parts(crowd, "port/stats"))
    far = ".".join(3 * ["ffffffffffffffff"]) + ".5.0"
    for method in ("cache/list", "fdb/list", "port/stats"):
        assert crowd.unixctl(method, "--json", "--page", far) == "end\n[]\n"
