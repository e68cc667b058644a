// rewrite: see rewrite.h.
#include "rewrite.h"

#include <string.h>

enum {
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	PROTO_ROUTING = 43,
	PROTO_ICMPV6 = 58,
	PROTO_UDPLITE = 136,
};

static uint32_t sum_words(const uint8_t *b, unsigned n)
{
	uint32_t acc = 0;

	for (unsigned i = 0; i + 1 < n; i += 2)
		acc += (uint32_t)(b[i] << 8 | b[i + 1]);
	return acc;
}

static uint16_t fold(uint32_t acc)
{
	while (acc >> 16)
		acc = (acc & 0xffff) + (acc >> 16);
	return (uint16_t)acc;
}

// What a sum grows by when the bytes `old` become `new` (RFC 1624: ~m + m').
static uint32_t difference(const uint8_t *old, const uint8_t *new, unsigned n)
{
	return (uint16_t)~fold(sum_words(old, n)) + (uint32_t)fold(sum_words(new, n));
}

static void put16(uint8_t *b, uint16_t v)
{
	b[0] = (uint8_t)(v >> 8);
	b[1] = (uint8_t)v;
}

// A checksum field: the complement of a sum.
static void adjust(uint8_t *field, uint32_t diff)
{
	put16(field, (uint16_t)~fold((uint16_t)~sum_words(field, 2) + diff));
}

// Where the transport checksum is that covers the addresses (or, with `ports`, the ports); NULL: there is none in this packet.
static uint8_t *l4_checksum(struct rte_mbuf *m, bool ports)
{
	struct pkt *p = pkt_of(m);
	uint32_t ofs;

	if (!p->l4_ofs)
		return NULL;
	switch (p->proto) {
	case PROTO_TCP:
		ofs = 16;
		break;
	case PROTO_UDP:
	case PROTO_UDPLITE:
		ofs = 6;
		break;
	case PROTO_ICMPV6:
		if (ports || p->ethertype != FIELD_ETH_IPV6)
			return NULL;
		ofs = 2;
		break;
	default:
		return NULL;
	}
	if ((uint32_t)p->l4_ofs + ofs + 2 > m->data_len || (uint32_t)p->l4_ofs - p->l3_ofs + ofs + 2 > p->l3_len)
		return NULL;
	return rte_pktmbuf_mtod_offset(m, uint8_t *, p->l4_ofs + ofs);
}

static void adjust_l4(struct rte_mbuf *m, uint32_t diff, bool ports)
{
	struct pkt *p = pkt_of(m);
	uint8_t *field = l4_checksum(m, ports);

	if (!field)
		return;
	if (m->ol_flags & RTE_MBUF_F_TX_L4_MASK) { // a sum, not its complement, of the pseudo-header
		if (!ports)
			put16(field, fold(sum_words(field, 2) + diff));
		return;
	}
	bool udp = p->proto == PROTO_UDP;
	if (udp && !field[0] && !field[1]) // RFC 768: there is none
		return;
	adjust(field, diff);
	if (udp && !field[0] && !field[1])
		put16(field, 0xffff);
}

// RFC 791 section 3.1, RFC 8200 section 8.1: with a source route that has hops left, the last of them is in the pseudo-header in place of the destination.
static bool has_further_hops(const struct rte_mbuf *m, const struct pkt *p)
{
	const uint8_t *ip = rte_pktmbuf_mtod_offset(m, const uint8_t *, p->l3_ofs);

	if (p->ethertype == FIELD_ETH_IPV4) {
		unsigned end = (ip[0] & 15u) * 4;

		for (unsigned at = 20; at + 2 < end && ip[at];) {
			if (ip[at] == 1) { // no operation
				at++;
				continue;
			}
			if (ip[at] == 131 || ip[at] == 137) // loose, strict source route: pointer past the length when it is used up
				return ip[at + 2] <= ip[at + 1];
			at += ip[at + 1] < 2 ? end : ip[at + 1];
		}
		return false;
	}
	uint8_t next = ip[6];
	for (unsigned at = p->l3_ofs + 40u; at + 8 <= p->l4_ofs;) {
		const uint8_t *h = rte_pktmbuf_mtod_offset(m, const uint8_t *, at);

		if (next == PROTO_ROUTING)
			return h[3] != 0;
		at += next == 44 ? 8 : next == 51 ? (h[1] + 2u) * 4 : (h[1] + 1u) * 8;
		next = h[0];
	}
	return false;
}

static void set_address(struct rte_mbuf *m, const struct rewrite *r, bool destination)
{
	struct pkt *p = pkt_of(m);
	bool v4 = r->field == NW_SRC || r->field == NW_DST;
	unsigned len = v4 ? 4 : 16, ofs = (v4 ? 12u : 8u) + (destination ? len : 0);

	if (!p->l3_ofs || p->ethertype != (v4 ? FIELD_ETH_IPV4 : FIELD_ETH_IPV6) || p->l3_ofs + ofs + len > m->data_len)
		return;
	uint8_t *ip = rte_pktmbuf_mtod_offset(m, uint8_t *, p->l3_ofs);
	uint32_t diff = difference(ip + ofs, r->value.b, len);
	if (v4)
		adjust(ip + 10, diff);
	if (!destination || !has_further_hops(m, p))
		adjust_l4(m, diff, false);
	memcpy(ip + ofs, r->value.b, len);
}

static void set_port(struct rte_mbuf *m, const struct rewrite *r, unsigned ofs)
{
	struct pkt *p = pkt_of(m);
	uint8_t new[2];

	if (!p->l4_ofs || (p->proto != PROTO_TCP && p->proto != PROTO_UDP) || !p->l4_len || p->l4_ofs + ofs + 2 > m->data_len)
		return;
	uint8_t *at = rte_pktmbuf_mtod_offset(m, uint8_t *, p->l4_ofs + ofs);
	put16(new, (uint16_t)r->value.n);
	adjust_l4(m, difference(at, new, 2), true);
	memcpy(at, new, 2);
}

// ECN stays (RFC 3168).
static void set_tos(struct rte_mbuf *m, const struct rewrite *r)
{
	struct pkt *p = pkt_of(m);

	if (!p->l3_ofs || p->l3_ofs + 20u > m->data_len)
		return;
	uint8_t *ip = rte_pktmbuf_mtod_offset(m, uint8_t *, p->l3_ofs);
	if (p->ethertype == FIELD_ETH_IPV4) {
		uint8_t new[2] = {ip[0], (uint8_t)((r->value.n & 0xfc) | (ip[1] & 3))};

		adjust(ip + 10, difference(ip, new, 2));
		ip[1] = new[1];
	} else if (p->ethertype == FIELD_ETH_IPV6) {
		ip[0] = (uint8_t)((ip[0] & 0xf0) | r->value.n >> 4);
		ip[1] = (uint8_t)((ip[1] & 0x3f) | (r->value.n << 4 & 0xc0));
	}
}

void rewrite_apply(struct rte_mbuf *m, const struct rewrite *r, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		switch (r[i].field) {
		case DL_DST:
			memcpy(rte_pktmbuf_mtod(m, uint8_t *), r[i].value.b, 6);
			break;
		case DL_SRC:
			memcpy(rte_pktmbuf_mtod_offset(m, uint8_t *, 6), r[i].value.b, 6);
			break;
		case NW_SRC:
		case IPV6_SRC:
			set_address(m, &r[i], false);
			break;
		case NW_DST:
		case IPV6_DST:
			set_address(m, &r[i], true);
			break;
		case TP_SRC:
			set_port(m, &r[i], 0);
			break;
		case TP_DST:
			set_port(m, &r[i], 2);
			break;
		case NW_TOS:
			set_tos(m, &r[i]);
			break;
		default:
			break;
		}
	}
}
