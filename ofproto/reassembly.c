// reassembly: see reassembly.h.
#include "reassembly.h"
#include "offload.h"
#include "parse.h"

#include <string.h>
#include <rte_ip.h>

enum {
	IP4 = 20,
	IP6 = 40,
	FRAGMENT = 44,
	TCP = 6,
	TCP_HEADER = 20,
	AH = 51,
};

#define SECOND 1000000000ULL

struct key {
	uint16_t port, network;
	uint8_t v6, proto; // proto: of IPv4, whose identifications are counted by it
	uint8_t pad[2];
	uint32_t id;
	uint8_t src[16], dst[16];
};

// Where a fragment belongs.
struct piece {
	struct rte_mbuf *m;
	uint16_t ofs, len;    // of the payload
	uint16_t start;       // where it is in the frame
	uint16_t header;      // of IPv6: where its fragment header is in the frame
};

struct datagram {
	struct key key;
	uint64_t deadline;
	uint32_t total;  // bytes of payload; 0: the last fragment isn't there yet
	uint32_t have;
	uint16_t n;      // 0: free
	struct piece piece[REASSEMBLY_PIECES]; // by offset
};

static struct datagram datagrams[REASSEMBLY_MAX];

static uint16_t get16(const uint8_t *b)
{
	return (uint16_t)(b[0] << 8 | b[1]);
}

static void put16(uint8_t *b, uint32_t v)
{
	b[0] = (uint8_t)(v >> 8);
	b[1] = (uint8_t)v;
}

// Of IPv6: the offset of the fragment header, 0: there is none where it can be read.
static unsigned fragment_header(const struct rte_mbuf *m, unsigned l3)
{
	const uint8_t *d = rte_pktmbuf_mtod(m, const uint8_t *);
	uint8_t next = d[l3 + 6];

	for (unsigned at = l3 + IP6; at + 8 <= m->data_len;) {
		if (next == FRAGMENT)
			return at;
		if (next != 0 && next != 43 && next != 60 && next != AH)
			return 0;
		unsigned len = next == AH ? (d[at + 1] + 2u) * 4 : (d[at + 1] + 1u) * 8;
		next = d[at];
		at += len;
	}
	return 0;
}

static bool look(struct rte_mbuf *m, struct key *k, struct piece *f, bool *more)
{
	const struct pkt *p = pkt_of(m);
	const uint8_t *d = rte_pktmbuf_mtod(m, const uint8_t *), *ip = d + p->l3_ofs;
	bool v6 = p->ethertype == 0x86dd;
	unsigned end = (unsigned)p->l3_ofs + p->l3_len, flags;

	if ((p->class != CLASS_FRAG_FIRST && p->class != CLASS_FRAG_LATER) || !p->l3_ofs || m->data_len < p->l3_ofs + (v6 ? IP6 : IP4) || m->pkt_len < end)
		return false;
	*k = (struct key){.port = p->in_port, .network = p->network, .v6 = v6};
	*f = (struct piece){.m = m};
	if (v6) {
		f->header = (uint16_t)fragment_header(m, p->l3_ofs);
		if (!f->header)
			return false;
		f->start = (uint16_t)(f->header + 8);
		flags = get16(d + f->header + 2);
		f->ofs = (uint16_t)(flags & 0xfff8);
		*more = flags & 1;
		memcpy(&k->id, d + f->header + 4, 4);
		memcpy(k->src, ip + 8, 16);
		memcpy(k->dst, ip + 24, 16);
	} else {
		f->start = (uint16_t)(p->l3_ofs + (ip[0] & 15) * 4);
		flags = get16(ip + 6);
		f->ofs = (uint16_t)((flags & 0x1fff) * 8);
		*more = flags & 0x2000;
		k->id = get16(ip + 4);
		k->proto = ip[9];
		memcpy(k->src, ip + 12, 4);
		memcpy(k->dst, ip + 16, 4);
	}
	if (f->start >= end || f->start > m->data_len)
		return false;
	f->len = (uint16_t)(end - f->start);
	// All but the last are multiples of eight; nothing is beyond what lengths can say; no second fragment in a TCP header (RFC 3128).
	return !(*more && f->len % 8) && f->ofs + (uint32_t)f->len <= 0xffff - (uint32_t)(f->start - p->l3_ofs) && !(f->ofs && f->ofs < TCP_HEADER && p->proto == TCP);
}

static void end_all(struct datagram *g, enum reassembly_end how, reassembly_fn *end)
{
	unsigned n = g->n;

	g->n = 0;
	for (unsigned i = 0; i < n; i++)
		end(g->piece[i].m, how, !i && !g->piece[0].ofs);
}

static struct datagram *find(const struct key *k)
{
	struct datagram *free = NULL;
	unsigned of_port = 0;

	for (unsigned i = 0; i < REASSEMBLY_MAX; i++) {
		struct datagram *g = &datagrams[i];

		if (!g->n) {
			free = free ? free : g;
			continue;
		}
		if (!memcmp(&g->key, k, sizeof *k))
			return g;
		of_port += g->key.port == k->port;
	}
	return of_port < REASSEMBLY_PORT_MAX ? free : NULL;
}

// Puts it in its place. 1: it is there; 0: it was before, the same; -1: it overlaps, or there are too many, or their ends differ.
static int insert(struct datagram *g, const struct piece *f, bool more)
{
	unsigned at = g->n;

	while (at && g->piece[at - 1].ofs > f->ofs)
		at--;
	const struct piece *before = at ? &g->piece[at - 1] : NULL, *behind = at < g->n ? &g->piece[at] : NULL;
	uint32_t end = f->ofs + (uint32_t)f->len;
	if (before && before->ofs == f->ofs && before->len == f->len)
		return 0;
	if ((before && before->ofs + (uint32_t)before->len > f->ofs) || (behind && end > behind->ofs) || g->n == REASSEMBLY_PIECES)
		return -1;
	if (more ? g->total && end >= g->total : (g->total && g->total != end) || behind)
		return -1;
	if (!more)
		g->total = end;
	memmove(&g->piece[at + 1], &g->piece[at], (g->n - at) * sizeof *f);
	g->piece[at] = *f;
	g->n++;
	g->have += f->len;
	return 1;
}

static void fix_headers(struct rte_mbuf *m, const struct piece *first, uint32_t total)
{
	struct pkt *p = pkt_of(m);
	uint8_t *d = rte_pktmbuf_mtod(m, uint8_t *), *ip = d + p->l3_ofs;
	uint32_t front = (uint32_t)first->start - p->l3_ofs;

	if (first->header) { // what comes behind the fragment header is in its place now
		uint8_t *next = ip + 6;

		for (unsigned at = p->l3_ofs + IP6; at < first->header;) {
			unsigned len = *next == AH ? (d[at + 1] + 2u) * 4 : (d[at + 1] + 1u) * 8;

			next = d + at;
			at += len;
		}
		*next = rte_pktmbuf_mtod(first->m, uint8_t *)[first->header];
		put16(ip + 4, front - 8 - IP6 + total);
	} else {
		put16(ip + 2, front + total);
		put16(ip + 6, 0);
		memset(ip + 10, 0, 2);
		uint16_t sum = (uint16_t)~rte_raw_cksum(ip, front);
		memcpy(ip + 10, &sum, 2);
	}
}

// The packet in place of its first fragment; NULL: no buffer.
static struct rte_mbuf *merge(struct datagram *g, reassembly_fn *end)
{
	struct piece *first = &g->piece[0];
	struct rte_mbuf *whole = rte_pktmbuf_alloc(first->m->pool);
	bool ok = whole && offload_append(whole, first->m, 0, first->header ? first->header : first->start, whole->pool);
	struct flow_key key;

	for (unsigned i = 0; i < g->n && ok; i++)
		ok = offload_append(whole, g->piece[i].m, g->piece[i].start, g->piece[i].len, whole->pool);
	if (!ok) {
		rte_pktmbuf_free(whole);
		return NULL;
	}
	pkt_copy_metadata(whole, first->m);
	whole->ol_flags = 0;
	whole->tx_offload = 0;
	fix_headers(whole, first, g->total);
	struct pkt *p = pkt_of(whole);
	p->class = CLASS_PLAIN;
	p->proto = p->l4_len = 0;
	p->l4_ofs = 0;
	p->hash = 0;
	parse(whole, &key);
	rte_pktmbuf_free(first->m); // the whole packet stands for it
	for (unsigned i = 1; i < g->n; i++)
		end(g->piece[i].m, REASSEMBLY_MERGED, false);
	g->n = 0;
	return whole;
}

struct rte_mbuf *reassembly_add(struct rte_mbuf *m, uint64_t now, reassembly_fn *end)
{
	struct piece f;
	struct key k;
	bool more;

	if (!look(m, &k, &f, &more)) {
		end(m, REASSEMBLY_BAD, false);
		return NULL;
	}
	struct datagram *g = find(&k);
	if (!g) {
		end(m, REASSEMBLY_FULL, false);
		return NULL;
	}
	if (!g->n) {
		g->key = k;
		g->deadline = now + (k.v6 ? 60 : 30) * SECOND;
		g->total = g->have = 0;
	}
	int in = insert(g, &f, more);
	if (in <= 0) {
		end(m, REASSEMBLY_BAD, false);
		if (in)
			end_all(g, REASSEMBLY_BAD, end);
		return NULL;
	}
	if (!g->total || g->have != g->total)
		return NULL;
	struct rte_mbuf *whole = merge(g, end);
	if (!whole)
		end_all(g, REASSEMBLY_FULL, end);
	return whole;
}

void reassembly_tick(uint64_t now, reassembly_fn *end)
{
	for (unsigned i = 0; i < REASSEMBLY_MAX; i++)
		if (datagrams[i].n && now >= datagrams[i].deadline)
			end_all(&datagrams[i], REASSEMBLY_TIMEOUT, end);
}

void reassembly_flush(reassembly_fn *end)
{
	for (unsigned i = 0; i < REASSEMBLY_MAX; i++)
		end_all(&datagrams[i], REASSEMBLY_TIMEOUT, end);
}

unsigned reassembly_waiting(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < REASSEMBLY_MAX; i++)
		n += datagrams[i].n != 0;
	return n;
}
