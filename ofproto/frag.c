// frag: see frag.h.
#include "frag.h"
#include "offload.h"
#include "trace.h"

#include <string.h>
#include <rte_ip.h>
#include <rte_jhash.h>

enum {
	IP4 = 20,
	IP6 = 40,
	FRAGMENT = 44,
	DF = 0x4000,
	MF = 0x2000,
	OFFSET = 0x1fff, // of eight bytes each
	ID_FROM = 128,
};

// How a packet is cut.
struct cut {
	const uint8_t *ip;
	bool v6;             // `copied` is for all pieces
	uint16_t l3, header; // header: of the first piece
	uint16_t payload;    // bytes behind the header
	uint16_t first, further; // bytes of payload in the first piece, and in others but the last
	uint8_t len;         // of the header of further pieces
	uint8_t copied[60];  // that header
};

static uint16_t get16(const uint8_t *b)
{
	return (uint16_t)(b[0] << 8 | b[1]);
}

static void put16(uint8_t *b, uint32_t v)
{
	b[0] = (uint8_t)(v >> 8);
	b[1] = (uint8_t)v;
}

// Header of the pieces but the first: options only that have the copied flag, whatever doesn't make sense ends them.
static void copy_header(struct cut *c)
{
	unsigned n = IP4;

	memcpy(c->copied, c->ip, IP4);
	for (unsigned at = IP4; at < c->header && c->ip[at];) {
		unsigned size = c->ip[at] == 1 ? 1 : at + 1 < c->header ? c->ip[at + 1] : 0;

		if (!size || (c->ip[at] != 1 && size < 2) || size > c->header - at)
			break;
		if (c->ip[at] & 0x80) {
			memcpy(c->copied + n, c->ip + at, size);
			n += size;
		}
		at += size;
	}
	while (n % 4)
		c->copied[n++] = 0;
	c->copied[0] = (uint8_t)(0x40 | n / 4);
	c->len = (uint8_t)n;
}

// Pieces of so many bytes behind their headers.
static unsigned count(struct cut *c, uint16_t mtu)
{
	// The last one need not be a multiple of eight.
	unsigned left = c->payload - c->first, n = 1;

	for (; left > (unsigned)(mtu - c->len); n++)
		left -= c->further;
	return n + 1;
}

static unsigned look6(const struct rte_mbuf *m, const struct pkt *p, uint16_t mtu, struct cut *c)
{
	if (!p->l3_ofs || p->l4_ofs != p->l3_ofs + IP6 || p->l4_ofs + 8u > m->data_len || p->l3_len <= IP6 + 8 || m->pkt_len < (uint32_t)p->l3_ofs + p->l3_len)
		return 0;
	if (p->l3_len <= mtu)
		return 1;
	if (mtu < IP6 + 16)
		return 0;
	c->v6 = true;
	c->l3 = p->l3_ofs;
	c->ip = rte_pktmbuf_mtod_offset(m, const uint8_t *, c->l3);
	c->header = IP6;
	c->len = IP6 + 8;
	c->payload = (uint16_t)(p->l3_len - IP6);
	c->first = c->further = (uint16_t)((mtu - c->len) & ~7);
	memcpy(c->copied, c->ip, IP6);
	memset(c->copied + IP6, 0, 8);
	c->copied[6] = FRAGMENT;
	c->copied[IP6] = c->ip[6];
	// Identification: what its payload begins with, as that has checksums and numbers, those of a packet in a tunnel included; all fragments come to the same.
	uint32_t copy[ID_FROM / 4]; // as the hash reads words
	uint32_t n = RTE_MIN((uint32_t)c->payload, (uint32_t)ID_FROM);
	const void *l4 = rte_pktmbuf_read(m, p->l4_ofs, n, copy);
	if (l4 && l4 != copy)
		memcpy(copy, l4, n);
	uint32_t id = l4 ? rte_jhash(copy, n, c->payload) : 0;
	memcpy(c->copied + IP6 + 4, &id, 4);
	return count(c, mtu);
}

static unsigned look(const struct rte_mbuf *m, uint16_t mtu, struct cut *c)
{
	const struct pkt *p = pkt_of((struct rte_mbuf *)(uintptr_t)m);

	c->v6 = false;
	if (p->ethertype == 0x86dd)
		return look6(m, p, mtu, c);
	if (p->ethertype != 0x0800 || !p->l3_ofs || p->l3_ofs + (unsigned)IP4 > m->data_len)
		return 0;
	c->ip = rte_pktmbuf_mtod_offset(m, const uint8_t *, p->l3_ofs);
	c->l3 = p->l3_ofs;
	c->header = (uint16_t)((c->ip[0] & 15) * 4);
	if (p->l3_len <= mtu)
		return 1;
	if (get16(c->ip + 6) & DF || c->header < IP4 || c->l3 + c->header > m->data_len || c->header > p->l3_len || mtu < c->header + 8 ||
	    m->pkt_len < (uint32_t)c->l3 + p->l3_len)
		return 0;
	c->payload = (uint16_t)(p->l3_len - c->header);
	copy_header(c);
	c->first = (uint16_t)((mtu - c->header) & ~7);
	c->further = (uint16_t)((mtu - c->len) & ~7);
	unsigned n = count(c, mtu);
	// An offset beyond 65,535 bytes can't be said; the packet is itself a fragment that lies.
	return (get16(c->ip + 6) & OFFSET) * 8u + c->payload > 0xffff ? 0 : n;
}

unsigned frag_count(const struct rte_mbuf *m, uint16_t mtu)
{
	struct cut c;

	return look(m, mtu, &c);
}

struct rte_mbuf *frag_piece(const struct rte_mbuf *m, unsigned i, uint16_t mtu, struct rte_mempool *pool)
{
	struct cut c;
	unsigned n = look(m, mtu, &c);
	struct rte_mbuf *s = n > 1 && i < n ? rte_pktmbuf_alloc(pool) : NULL;

	if (!s)
		return NULL;
	uint32_t from = i ? c.first + (i - 1) * c.further : 0, header = i || c.v6 ? c.len : c.header;
	uint32_t len = i + 1 == n ? c.payload - from : i ? c.further : c.first;
	uint8_t *d = (uint8_t *)rte_pktmbuf_append(s, (uint16_t)(c.l3 + header)), *ip = d + c.l3;
	memcpy(d, rte_pktmbuf_mtod(m, const uint8_t *), c.l3);
	memcpy(ip, i || c.v6 ? c.copied : c.ip, header);
	if (!offload_append(s, m, c.l3 + c.header + from, len, pool)) {
		rte_pktmbuf_free(s);
		return NULL;
	}
	if (c.v6) {
		put16(ip + 4, header - IP6 + len);
		put16(ip + IP6 + 2, from | (i + 1 < n));
	} else {
		put16(ip + 2, header + len);
		put16(ip + 6, (get16(c.ip + 6) & MF) | (i + 1 < n ? MF : 0) | ((get16(c.ip + 6) & OFFSET) + from / 8));
		memset(ip + 10, 0, 2);
		uint16_t sum = (uint16_t)~rte_raw_cksum(ip, header);
		memcpy(ip + 10, &sum, 2);
	}
	pkt_copy_metadata(s, m);
	s->ol_flags = 0;
	s->tx_offload = 0;
	struct pkt *p = pkt_of(s);
	p->l3_len = (uint16_t)(header + len);
	p->seg_len = header + len;
	p->class = p->class == CLASS_FRAG_LATER || i ? CLASS_FRAG_LATER : CLASS_FRAG_FIRST;
	if (i)
		p->l4_ofs = p->l4_len = 0;
	else if (c.v6)
		p->l4_ofs = (uint16_t)(p->l4_ofs + 8);
	trace_ref(p->trace);
	return s;
}
