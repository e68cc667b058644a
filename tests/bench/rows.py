"""The rows of the bench: what is sent, and what is asked of the switch. A later row is a line here.

mix: what the generator sends, see frames.h: flows (of both directions together), macs (addresses a side; 0: every conversation is a pair
     of its own; with routes: gateways a side), bytes, random, tso (the size of segments; the peers but weir would need settings of their own),
     kind (l2, route, vxlan; l2v6, route6: the same in IPv6, whose smallest frames with the generator's mark have 78 bytes; vxlan6: the tunnel is in
     IPv6, what is in it is as in vxlan), routes (of both sides together)
learn: each flow is sent once, in order and slowly, before the windows
asked: the least ratio of Weir's median to a peer's, or None
of: the least ratio of a build of Weir to itself in other rows of the same run
without: peers that can't do it
counts: counters of Weir whose rate is shown as well, and the least that is asked of it (or None)
"""

ROWS = {
    "l2-64": {
        "title": "64 flows, each a pair of addresses of its own",
        "mix": {"flows": 64, "macs": 8, "bytes": 64},
        "asked": {"ovs": 1.3, "ovs-tuned": 1.3, "testpmd": 0.82},
    },
    "l2-100k": {
        "title": "100,000 5-tuples between 8 addresses a side",
        "mix": {"flows": 100000, "macs": 8, "bytes": 64},
        "asked": {"ovs": 2.2, "ovs-tuned": 2.2, "testpmd": 0.80},
    },
    "l2-100k-macs": {
        "title": "100,000 flows, each a pair of addresses of its own",
        "mix": {"flows": 100000, "macs": 0, "bytes": 64},
        "asked": {"ovs": 1.7, "ovs-tuned": 1.7, "testpmd": 0.62},
    },
    "resolve-l2": {
        "title": "each packet from and to any of 2,048 known addresses a side: seven of eight are of no known flow",
        "mix": {"flows": 8192, "macs": 2048, "bytes": 64, "random": "pairs"},
        "asked": {},
        "counts": {"resolved": 1e6},
    },
    "resolve-l2-unknown": {
        "title": "each packet from an address that nobody has seen",
        "mix": {"flows": 64, "macs": 8, "bytes": 64, "random": "source"},
        "asked": {},
        "counts": {"resolved": None},
    },
    "route-64": {
        "title": "64 flows between gateways of a router with 16 routes",
        "mix": {"kind": "route", "flows": 64, "macs": 8, "bytes": 64, "routes": 16},
        "asked": {"ovs": 1.3, "ovs-tuned": 1.3},
        "of": {"l2-64": 0.85},
    },
    "route-100k": {
        "title": "100,000 flows to as many destinations, 16 routes",
        "mix": {"kind": "route", "flows": 100000, "macs": 8, "bytes": 64, "routes": 16},
        "asked": {"ovs": 2.0, "ovs-tuned": 2.0},
    },
    "route-1m": {
        "title": "100,000 flows to as many destinations, 1,000,000 routes",
        "mix": {"kind": "route", "flows": 100000, "macs": 8, "bytes": 64, "routes": 1000000},
        "asked": {},
        "of": {"route-100k": 0.7},
        "without": ["ovs", "ovs-tuned"],
    },
    "l2v6-64": {
        "title": "64 flows of IPv6, each a pair of addresses of its own, frames of 78 bytes: the least with the generator's mark",
        "mix": {"kind": "l2v6", "flows": 64, "macs": 8, "bytes": 78},
        "asked": {"ovs": 1.3, "ovs-tuned": 1.3},
        "of": {"l2-64": 0.85},
    },
    "route6-64": {
        "title": "64 flows of IPv6 between gateways of a router with 16 routes, frames of 78 bytes: the least with the generator's mark",
        "mix": {"kind": "route6", "flows": 64, "macs": 8, "bytes": 78, "routes": 16},
        "asked": {"ovs": 1.3, "ovs-tuned": 1.3},
        "of": {"route-64": 0.85},
    },
    "route6-100k": {
        "title": "100,000 flows of IPv6 to as many destinations, 16 routes, frames of 78 bytes: the least with the generator's mark",
        "mix": {"kind": "route6", "flows": 100000, "macs": 8, "bytes": 78, "routes": 16},
        "asked": {"ovs": 2.0, "ovs-tuned": 2.0},
        "of": {"route-100k": 0.85},
    },
    "resolve-route": {
        "title": "each packet from and to any address of 1,000,000 routes: every one is of no known flow",
        "mix": {"kind": "route", "flows": 100000, "macs": 8, "bytes": 64, "routes": 1000000, "random": "pairs"},
        "asked": {},
        "without": ["ovs", "ovs-tuned"],
        "counts": {"resolved": 0.5e6},
    },
    "vxlan-64": {
        "title": "64 flows between a network and an uplink with VXLAN: half of the packets are encapsulated, half decapsulated",
        "mix": {"kind": "vxlan", "flows": 64, "macs": 8, "bytes": 64},
        "asked": {"ovs": 1.6, "ovs-tuned": 1.6},
        "without": ["testpmd"],
    },
    "vxlan-10k": {
        "title": "10,000 flows, each a pair of addresses of its own, between a network and an uplink with VXLAN",
        "mix": {"kind": "vxlan", "flows": 10000, "macs": 0, "bytes": 64},
        "asked": {"ovs": 3.2, "ovs-tuned": 3.2},
        "without": ["testpmd"],
    },
    "vxlan6-64": {
        "title": "as vxlan-64, through a tunnel in IPv6, whose UDP has a checksum, as Linux has it",
        "mix": {"kind": "vxlan6", "flows": 64, "macs": 8, "bytes": 64},
        "asked": {"ovs": 1.6, "ovs-tuned": 1.6},
        "without": ["testpmd"],
    },
    "l2-1514": {
        "title": "64 flows, the largest frames of an MTU of 1,500",
        "mix": {"flows": 64, "macs": 8, "bytes": 1514},
        "asked": {},
    },
    "tso-64k": {
        "title": "TCP frames of 65,226 bytes, to be cut into segments of 1,448 by nobody: what a frame costs that goes from guest to guest as it is",
        "mix": {"flows": 64, "macs": 8, "bytes": 65226, "tso": 1448},
        "asked": {},
    },
}


def mix_words(row):
    """The row's mix as the generator takes it."""
    mix = {"kind": "l2", "random": "no", "tso": 0, **ROWS[row]["mix"]}
    return " ".join(f"{key}={value}" for key, value in mix.items())


def records(row):
    """Pairs of addresses in the row's flows, which are what a switch that looks at no more has to know; 0: without end."""
    mix = ROWS[row]["mix"]
    if "random" in mix:
        return 0
    if mix.get("kind", "").startswith("route"):  # and here it is the prefixes
        return min(mix["flows"], mix["routes"])
    return min(mix["flows"], 2 * mix["macs"] ** 2) if mix["macs"] else mix["flows"]


def fastpath_options(row):
    """The row's mix as options of fastpath."""
    return [word for key, value in ROWS[row]["mix"].items() for word in ("--" + key, str(value))]
