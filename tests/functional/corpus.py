"""Frames of every kind that the tests know: sound ones of each protocol, and each of them cut short and with bytes changed."""

import random

from scapy.all import (ARP, BOOTP, DHCP, DNS, GRE, ICMP, IP, LLC, SCTP, SNAP, STP, TCP, UDP, VXLAN, Dot1Q, Dot3, Ether, ICMPv6EchoRequest, ICMPv6ND_NS,
                       IPOption_NOP, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, Raw, fragment, raw)

from net import BROADCAST, mac

MULTICAST = "01:00:5e:00:00:fb"


def sound(src, dst):
    """Packets of each protocol from one address to another, as bytes."""
    e = Ether(src=src, dst=dst)
    v4, v6 = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")
    body = Raw(bytes(range(256)))
    packets = [
        e / Raw(bytes(46)), Ether(src=src, dst=dst, type=0x88b5) / body, e / ARP(), e / ARP(op=2, psrc="10.0.0.1", pdst="10.0.0.2"),
        e / v4 / ICMP() / body, e / v4 / ICMP(type=3, code=4) / v4 / UDP(), e / v4 / UDP(dport=53) / DNS(), e / v4 / UDP(chksum=0) / body,
        e / v4 / TCP(flags="S", options=[("MSS", 1460)]), e / v4 / TCP(flags="A") / body, e / v4 / TCP(flags="F"), e / v4 / TCP(flags="R"),
        e / v4 / SCTP() / body, e / IP(src="10.0.0.1", dst="10.0.0.2", options=[IPOption_NOP()] * 4) / UDP() / body,
        e / IP(src="10.0.0.1", dst="10.0.0.2", ttl=1) / UDP(), e / v4 / GRE() / v4 / UDP(), e / v4 / UDP(dport=4789) / VXLAN(vni=7) / e / v4 / UDP(),
        e / v4 / UDP(sport=68, dport=67) / BOOTP() / DHCP(options=["end"]), e / IP(src="10.0.0.1", dst="224.0.0.251", proto=2) / Raw(bytes(8)),
        e / v6 / ICMPv6EchoRequest() / body, e / v6 / ICMPv6ND_NS(tgt="fd00::2"), e / v6 / UDP(dport=53) / body, e / v6 / TCP(flags="S"),
        e / v6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP() / body, e / v6 / IPv6ExtHdrRouting() / TCP() / body,
        e / v6 / IPv6ExtHdrFragment(offset=10, m=1) / body, e / v6 / IPv6ExtHdrFragment(offset=0, m=1) / UDP() / body,
        Dot3(src=src, dst=dst) / LLC() / STP(), Dot3(src=src, dst=dst) / LLC() / SNAP() / body,
        Ether(src=src, dst=dst, type=0x88cc) / Raw(bytes(20)), Ether(src=src, dst=dst, type=0x8809) / Raw(bytes(100)),
    ]
    packets += [e / p for p in fragment(v4 / UDP() / Raw(bytes(3000)), fragsize=1400)]
    return [raw(p) for p in packets]


def tagged(data, *vlans):
    """The frame with tags, the outer one first: a number is an 802.1Q tag, 88a8:N an 802.1ad one."""
    for vlan in reversed(vlans):
        tpid, tci = vlan if isinstance(vlan, tuple) else (0x8100, vlan)
        data = data[:12] + tpid.to_bytes(2, "big") + tci.to_bytes(2, "big") + data[12:]
    return data


def malformed(data, dice):
    """The frame with something wrong: cut short, a bit changed, or a field set to an extreme value."""
    data = bytearray(data)
    kind = dice.randrange(3)
    if kind == 0:
        del data[dice.randrange(20, max(21, len(data))):]
    elif kind == 1:
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(12, len(data))] ^= 1 << dice.randrange(8)
    else:
        at = dice.randrange(12, min(len(data) - 1, 70))
        data[at:at + 2] = dice.choice([b"\0\0", b"\xff\xff", b"\0\1", b"\x7f\xff"])
    return bytes(data).ljust(20, b"\0")


def wrong():
    """(reason of the parser, frame): each kind of malformed frame, and each place where one can end too early."""
    e = Ether(src=mac(1), dst=mac(2))
    v4, v6 = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")
    options = IPv6ExtHdrDestOpt()
    for _ in range(16):
        options /= IPv6ExtHdrDestOpt()
    for reason, packet, end in [
            ("RUNT", e / Raw(), 13), ("VLAN", e / Dot1Q(vlan=5) / Raw(), 17), ("VLAN", e / Dot1Q(vlan=5) / Dot1Q(vlan=6) / Raw(), 19),
            ("ARP", e / ARP(hwtype=6), 60), ("ARP", e / ARP(plen=16), 60), ("ARP", e / ARP(), 41),
            ("IPV4_HEADER", e / IP(version=5) / UDP(), 60), ("IPV4_HEADER", e / IP(ihl=4) / UDP(), 60), ("IPV4_HEADER", e / v4 / UDP(), 33),
            ("IPV4_HEADER", e / IP(ihl=15, len=60) / UDP(), 50),
            ("IPV4_LENGTH", e / IP(len=19) / UDP(), 60), ("IPV4_LENGTH", e / IP(len=2000) / UDP(), 60), ("IPV4_LENGTH", e / v4 / UDP() / Raw(bytes(100)), 120),
            ("IPV6_HEADER", e / IPv6(version=4) / UDP(), 80), ("IPV6_HEADER", e / v6 / UDP(), 53),
            ("IPV6_LENGTH", e / IPv6(plen=5000) / UDP(), 80), ("IPV6_LENGTH", e / v6 / UDP() / Raw(bytes(100)), 130),
            ("IPV6_EXT", e / v6 / options / UDP(), 300), ("IPV6_EXT", e / IPv6(nh=60, plen=4) / Raw(bytes(4)), 58),
            ("TCP", e / v4 / TCP(dataofs=4), 60), ("TCP", e / v4 / TCP(dataofs=15), 60), ("TCP", e / IP(proto=6) / Raw(bytes(19)), 60),
            ("TCP", e / IPv6(nh=6) / Raw(bytes(10)), 80), ("UDP", e / v4 / UDP(len=7), 60), ("UDP", e / v4 / UDP(len=2000), 60),
            ("UDP", e / IP(proto=17) / Raw(bytes(7)), 60), ("SCTP", e / IP(proto=132) / Raw(bytes(11)), 60), ("ICMP", e / IP(proto=1) / Raw(bytes(7)), 60),
            ("ICMP", e / IPv6(nh=58) / Raw(bytes(3)), 57)]:
        yield reason, raw(packet).ljust(end, b"\0")[:end]


WRONG = list(wrong())
PARSE_REASONS = {reason for reason, _ in WRONG} | {"GSO", "CSUM"}


def corpus(seed, sources, destinations, vlans=()):
    """For ever: random frames. sources, destinations: addresses. vlans: tags that some carry."""
    dice = random.Random(seed)
    made = {}
    while True:
        src, dst = dice.choice(sources), dice.choice([*destinations, BROADCAST, MULTICAST, mac(0x7000 + dice.randrange(5))])
        if (src, dst) not in made:
            if len(made) > 500:
                made.clear()
            made[src, dst] = sound(src, dst)
        data = dice.choice(made[src, dst])
        if vlans and dice.random() < 0.4:
            data = tagged(data, *dice.choice(vlans))
        if dice.random() < 0.25:
            data = malformed(data, dice)
        yield data[:1514]
