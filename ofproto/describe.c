// describe: see describe.h.
#include "describe.h"
#include "compose.h"
#include "field.h"

#include <arpa/inet.h>
#include <string.h>

// What is left of the frame, and how much of it is known.
struct rest {
	const uint8_t *b;
	unsigned have, len;
};

static unsigned get16(const uint8_t *b)
{
	return (unsigned)(b[0] << 8 | b[1]);
}

static void skip(struct rest *r, unsigned n)
{
	r->b += n;
	r->have -= n;
	r->len -= n;
}

static void add_mac(struct buf *b, const char *name, const uint8_t *mac)
{
	buf_add(b, ",%s=", name);
	buf_add_mac(b, mac);
}

static void add_address(struct buf *b, const char *name, int family, const uint8_t *address)
{
	char text[INET6_ADDRSTRLEN];

	buf_add(b, ",%s=%s", name, inet_ntop(family, address, text, sizeof text));
}

static void add_flags(struct buf *b, unsigned flags)
{
	static const char *const names[] = {"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns"};
	const char *between = ",tcp_flags=";

	for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
		if (flags & 1u << i) {
			buf_add(b, "%s%s", between, names[i]);
			between = "|";
		}
}

// The protocol as a word; NULL: it is a number.
static const char *word_of(unsigned proto, bool six)
{
	switch (proto) {
	case FIELD_IP_TCP:
		return six ? "tcp6" : "tcp";
	case FIELD_IP_UDP:
		return six ? "udp6" : "udp";
	case FIELD_IP_SCTP:
		return six ? "sctp6" : "sctp";
	case FIELD_IP_ICMP:
		return six ? NULL : "icmp";
	case FIELD_IP_ICMPV6:
		return six ? "icmp6" : NULL;
	default:
		return NULL;
	}
}

// Transport headers. `r`: behind the IP header, r->len: as IP says.
static bool add_transport(struct buf *b, const struct rest *r, unsigned proto)
{
	static const unsigned least[256] = {[FIELD_IP_TCP] = 20, [FIELD_IP_UDP] = 8, [FIELD_IP_SCTP] = 12, [FIELD_IP_ICMP] = 8, [FIELD_IP_ICMPV6] = 8};

	if (r->have < least[proto] || r->len < least[proto])
		return false;
	if (proto == FIELD_IP_ICMP || proto == FIELD_IP_ICMPV6) {
		const char *name = proto == FIELD_IP_ICMP ? "icmp" : "icmpv6";

		buf_add(b, ",%s_type=%u,%s_code=%u", name, r->b[0], name, r->b[1]);
		if (proto == FIELD_IP_ICMP || (r->b[0] != 135 && r->b[0] != 136))
			return true;
		// A neighbour's solicitation or advertisement: whom it is about (RFC 4861).
		if (r->have < 24 || r->len < 24)
			return false;
		add_address(b, "nd_target", AF_INET6, r->b + 8);
		return true;
	}
	buf_add(b, ",tp_src=%u,tp_dst=%u", get16(r->b), get16(r->b + 2));
	if (proto == FIELD_IP_UDP)
		return get16(r->b + 4) == r->len;
	if (proto != FIELD_IP_TCP)
		return true;
	unsigned header = (r->b[12] >> 4) * 4u, flags = get16(r->b + 12) & 0x1ff;
	add_flags(b, flags);
	return header >= 20 && header <= r->len && flags && !(r->b[12] & 0x0e);
}

static bool add_ip(struct buf *b, struct rest r, bool six, unsigned *end)
{
	unsigned header = six ? 40 : 20;

	if (r.have < header || r.len < header || r.b[0] != (six ? 0x60 | (r.b[0] & 0xf) : 0x45))
		return false;
	unsigned total = six ? get16(r.b + 4) + 40 : get16(r.b + 2), frag = six ? 0 : get16(r.b + 6);
	unsigned proto = r.b[six ? 6 : 9], ttl = r.b[six ? 7 : 8], tos = six ? (get16(r.b) >> 4 & 0xff) : r.b[1];
	bool later = frag & 0x1fff, first = !later && frag & 0x2000;
	const char *word = word_of(proto, six);
	if (total < header || total > r.len || frag & 0x8000)
		return false;
	// Extension headers.
	if (six && (!proto || proto == 43 || proto == 44 || proto == 50 || proto == 51 || proto == 60 || proto == 135))
		return false;
	if (!word && (proto == FIELD_IP_ICMP || proto == FIELD_IP_ICMPV6))
		return false;
	*end = total;
	add_address(b, six ? "ipv6_src" : "nw_src", six ? AF_INET6 : AF_INET, r.b + (six ? 8 : 12));
	add_address(b, six ? "ipv6_dst" : "nw_dst", six ? AF_INET6 : AF_INET, r.b + (six ? 24 : 16));
	if (!word)
		buf_add(b, ",nw_proto=%u", proto);
	buf_add(b, ",nw_ttl=%u", ttl);
	if (tos)
		buf_add(b, ",nw_tos=%u", tos);
	if (first || later)
		buf_add(b, ",nw_frag=%s", later ? "later" : "first");
	r.len = total;
	skip(&r, header);
	return !word || later || add_transport(b, &r, proto);
}

static bool add_arp(struct buf *b, const struct rest *r)
{
	if (r->have < 28 || r->len < 28 || memcmp(r->b, "\0\1\x08\0\6\4\0", 7) || !r->b[7])
		return false;
	buf_add(b, ",arp_op=%u", r->b[7]);
	add_mac(b, "arp_sha", r->b + 8);
	add_address(b, "arp_spa", AF_INET, r->b + 14);
	add_mac(b, "arp_tha", r->b + 18);
	add_address(b, "arp_tpa", AF_INET, r->b + 24);
	return true;
}

static const char *first_word(unsigned type, const struct rest *r)
{
	const char *word = NULL;

	if (type == FIELD_ETH_ARP)
		return "arp";
	if (type == FIELD_ETH_IPV4 && r->have >= 10)
		word = word_of(r->b[9], false);
	else if (type == FIELD_ETH_IPV6 && r->have >= 7)
		word = word_of(r->b[6], true);
	return word ? word : type == FIELD_ETH_IPV4 ? "ip" : type == FIELD_ETH_IPV6 ? "ipv6" : NULL;
}

static bool add_frame(struct buf *b, struct rest r)
{
	const uint8_t *frame = r.b;
	unsigned len = r.len, end = len, tci = 0;
	bool tagged = false, known = true;

	if (r.have < 14 || len > COMPOSE_MAX)
		return false;
	skip(&r, 12);
	if (get16(r.b) == FIELD_ETH_VLAN && r.have >= 6) {
		tagged = true;
		tci = get16(r.b + 2);
		skip(&r, 4);
	}
	unsigned type = get16(r.b);
	skip(&r, 2);
	if (type == FIELD_ETH_VLAN || type == FIELD_ETH_QINQ || tci & 0x1000 || (type < 0x600 && type > 1500))
		return false;
	const char *word = first_word(type, &r);
	if (word)
		buf_add(b, "%s", word);
	else
		buf_add(b, "dl_type=0x%04x", type < 0x600 ? FIELD_ETH_LLC : type);
	add_mac(b, "dl_src", frame + 6);
	add_mac(b, "dl_dst", frame);
	if (tagged)
		buf_add(b, ",dl_vlan=%u", tci & 0xfff);
	if (tci >> 13)
		buf_add(b, ",dl_vlan_pcp=%u", tci >> 13);
	if (type == FIELD_ETH_ARP) {
		known = add_arp(b, &r);
		end = 28;
	} else if (type == FIELD_ETH_IPV4 || type == FIELD_ETH_IPV6) {
		known = add_ip(b, r, type == FIELD_ETH_IPV6, &end);
	} else {
		end = r.len;
	}
	// Without it the frame is as long as its headers, and padded to 60 bytes.
	if (len != 60 || end == r.len)
		buf_add(b, ",packet_len=%u", len);
	return known;
}

bool describe(struct buf *b, const uint8_t *frame, unsigned have, unsigned len)
{
	size_t before = b->len;

	if (add_frame(b, (struct rest){frame, have, len}))
		return true;
	b->len = before;
	if (b->text)
		b->text[before] = '\0';
	return false;
}

void describe_bytes(struct buf *b, const uint8_t *frame, unsigned have)
{
	for (unsigned i = 0; i < have; i++)
		buf_add(b, "%02x", frame[i]);
}
