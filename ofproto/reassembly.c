// reassembly: see reassembly.h.
#include "reassembly.h"
#include "offload.h"
#include "parse.h"
#include "sizes.h"

#include <string.h>
#include <sys/queue.h>
#include <rte_ip.h>
#include <rte_jhash.h>
#include <rte_pause.h>
#include <rte_spinlock.h>

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
	uint8_t kind, pad;
	uint32_t id;
	uint8_t src[16], dst[16];
};

// Where a fragment belongs.
struct piece {
	struct rte_mbuf *m;
	uint16_t ofs, len;    // of the payload
	uint16_t start;       // where it is in the frame
	uint16_t header;      // of IPv6: where its fragment header is in the frame
	uint8_t ecn;
};

struct datagram {
	struct key key;
	TAILQ_ENTRY(datagram) age;
	LIST_ENTRY(datagram) bucket; // while it is free: of the free ones
	uint64_t deadline;
	uint32_t serial; // of its port
	uint32_t total;  // bytes of payload; 0: the last fragment isn't there yet
	uint32_t have;
	uint16_t n;      // 0: free
	struct piece piece[REASSEMBLY_PIECES]; // by offset
};

// Fragments that are in nobody's table any more.
struct pieces {
	struct key key;
	uint32_t total;
	uint16_t n;
	struct piece piece[REASSEMBLY_PIECES];
};

#define BUCKETS 1024

// Under `lock`, which nobody holds for longer than it takes to put a fragment in its place.
static rte_spinlock_t lock = RTE_SPINLOCK_INITIALIZER;
static struct datagram datagrams[REASSEMBLY_KINDS * REASSEMBLY_MAX];
static TAILQ_HEAD(, datagram) by_age = TAILQ_HEAD_INITIALIZER(by_age);
static LIST_HEAD(list, datagram) buckets[BUCKETS], unused;
static unsigned n_used[REASSEMBLY_KINDS], n_touched; // datagrams from n_touched on were never used
static struct of_port {
	uint32_t begun;
	uint16_t packets, pieces;
} of_ports[REASSEMBLY_KINDS][MAX_PORTS];

// A holder may have lost its processor: then the fragment is lost, and not the worker's time.
static bool get_lock(void)
{
	for (unsigned i = 0; i < 2000; i++) {
		if (rte_spinlock_trylock(&lock))
			return true;
		rte_pause();
	}
	return false;
}

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

static bool look(enum reassembly_kind kind, struct rte_mbuf *m, struct key *k, struct piece *f, bool *more)
{
	const struct pkt *p = pkt_of(m);
	const uint8_t *d = rte_pktmbuf_mtod(m, const uint8_t *), *ip = d + p->l3_ofs;
	bool v6 = p->ethertype == 0x86dd;
	unsigned end = (unsigned)p->l3_ofs + p->l3_len, flags;

	if ((!v6 && p->class != CLASS_FRAG_FIRST && p->class != CLASS_FRAG_LATER) || !p->l3_ofs || m->data_len < p->l3_ofs + (v6 ? IP6 : IP4) || m->pkt_len < end)
		return false;
	*k = (struct key){.port = p->in_port, .network = p->network, .v6 = v6, .kind = (uint8_t)kind};
	*f = (struct piece){.m = m};
	if (v6) {
		f->header = (uint16_t)fragment_header(m, p->l3_ofs);
		if (!f->header)
			return false;
		f->start = (uint16_t)(f->header + 8);
		flags = get16(d + f->header + 2);
		f->ofs = (uint16_t)(flags & 0xfff8);
		*more = flags & 1;
		f->ecn = ip[1] >> 4 & 3;
		memcpy(&k->id, d + f->header + 4, 4);
		memcpy(k->src, ip + 8, 16);
		memcpy(k->dst, ip + 24, 16);
	} else {
		f->start = (uint16_t)(p->l3_ofs + (ip[0] & 15) * 4);
		flags = get16(ip + 6);
		f->ofs = (uint16_t)((flags & 0x1fff) * 8);
		*more = flags & 0x2000;
		f->ecn = ip[1] & 3;
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

// ---- the table

static struct of_port *port_of(const struct key *k)
{
	return &of_ports[k->kind][k->port & (MAX_PORTS - 1)];
}

static struct list *bucket_of(const struct key *k)
{
	return &buckets[rte_jhash(k, sizeof *k, 0) % BUCKETS];
}

static struct datagram *find(const struct key *k)
{
	struct datagram *g;

	LIST_FOREACH(g, bucket_of(k), bucket)
		if (!memcmp(&g->key, k, sizeof *k))
			return g;
	return NULL;
}

// Takes it out of the table.
static void take(struct datagram *g, struct pieces *to)
{
	struct of_port *p = port_of(&g->key);

	to->key = g->key;
	to->total = g->total;
	to->n = g->n;
	memcpy(to->piece, g->piece, g->n * sizeof g->piece[0]);
	p->packets--;
	p->pieces = (uint16_t)(p->pieces - g->n);
	g->n = 0;
	n_used[g->key.kind]--;
	LIST_REMOVE(g, bucket);
	TAILQ_REMOVE(&by_age, g, age);
	LIST_INSERT_HEAD(&unused, g, bucket);
}

// The oldest one but `not`, of the port if it has one. There are some of the kind.
static struct datagram *oldest(const struct key *k, const struct datagram *not)
{
	struct datagram *g, *any = NULL;

	TAILQ_FOREACH(g, &by_age, age) {
		if (g == not || g->key.kind != k->kind)
			continue;
		if (g->key.port == k->port)
			return g;
		any = any ? any : g;
	}
	return any;
}

static struct datagram *begin(const struct key *k, uint64_t now)
{
	struct datagram *g = LIST_FIRST(&unused);
	struct of_port *p = port_of(k);

	if (g)
		LIST_REMOVE(g, bucket);
	else
		g = &datagrams[n_touched++];
	g->key = *k;
	g->deadline = now + (k->v6 ? 60 : 30) * SECOND;
	g->serial = ++p->begun;
	g->total = g->have = 0;
	g->n = 0;
	p->packets++;
	n_used[k->kind]++;
	LIST_INSERT_HEAD(bucket_of(k), g, bucket);
	TAILQ_INSERT_TAIL(&by_age, g, age);
	return g;
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
	port_of(&g->key)->pieces++;
	return 1;
}

// ---- the whole packet

static void end_all(const struct pieces *g, enum reassembly_end how, reassembly_fn *end, void *arg)
{
	for (unsigned i = 0; i < g->n; i++)
		end(arg, g->piece[i].m, how, !i && !g->piece[0].ofs);
}

// RFC 3168 section 5.3: marks of congestion are kept, unless a fragment says that its sender takes none. -1: the packet must be dropped.
static int ecn_of(const struct pieces *g)
{
	unsigned seen = 0;

	for (unsigned i = 0; i < g->n; i++)
		seen |= 1u << g->piece[i].ecn;
	if (!(seen & 1u << 3))
		return g->piece[0].ecn;
	return seen & 1 ? -1 : 3;
}

static void fix_headers(struct rte_mbuf *m, const struct piece *first, uint32_t total, int ecn)
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
		ip[1] = (uint8_t)((ip[1] & 0xcf) | ecn << 4);
	} else {
		ip[1] = (uint8_t)((ip[1] & 0xfc) | ecn);
		put16(ip + 2, front + total);
		put16(ip + 6, 0);
		memset(ip + 10, 0, 2);
		uint16_t sum = (uint16_t)~rte_raw_cksum(ip, front);
		memcpy(ip + 10, &sum, 2);
	}
}

// The packet in place of its first fragment; NULL: no buffer.
static struct rte_mbuf *merge(struct pieces *g, int ecn, reassembly_fn *end, void *arg)
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
	fix_headers(whole, first, g->total, ecn);
	struct pkt *p = pkt_of(whole);
	p->class = CLASS_PLAIN;
	p->proto = p->l4_len = 0;
	p->l4_ofs = 0;
	p->hash = 0;
	parse(whole, &key);
	rte_pktmbuf_free(first->m); // the whole packet stands for it
	for (unsigned i = 1; i < g->n; i++)
		end(arg, g->piece[i].m, REASSEMBLY_MERGED, false);
	return whole;
}

static struct rte_mbuf *finish(struct pieces *g, reassembly_fn *end, void *arg)
{
	int ecn = ecn_of(g);
	struct rte_mbuf *whole = ecn < 0 ? NULL : merge(g, ecn, end, arg);

	if (!whole)
		end_all(g, ecn < 0 ? REASSEMBLY_BAD : REASSEMBLY_FULL, end, arg);
	return whole;
}

// ---- adding

enum outcome { WAITS, WHOLE, BAD, BAD_ALL };

// Whose fragments are out of the table then.
enum gone { THIS, ROOM, STALE, GONE_N };

// Under the lock.
static enum outcome add(const struct key *k, const struct piece *f, bool more, uint64_t now, struct pieces gone[GONE_N])
{
	struct datagram *g = find(k);
	const struct of_port *p = port_of(k);

	if (g && !k->v6 && p->begun - g->serial > REASSEMBLY_DISTANCE) {
		take(g, &gone[STALE]);
		g = NULL;
	}
	if ((!g && (p->packets >= REASSEMBLY_PORT_MAX || n_used[k->kind] == REASSEMBLY_MAX)) || p->pieces >= REASSEMBLY_PORT_PIECES)
		take(oldest(k, g), &gone[ROOM]);
	if (!g)
		g = begin(k, now);
	int in = insert(g, f, more);
	if (in > 0 && (!g->total || g->have != g->total))
		return WAITS;
	if (!in)
		return BAD;
	take(g, &gone[THIS]);
	return in > 0 ? WHOLE : BAD_ALL;
}

struct rte_mbuf *reassembly_add(enum reassembly_kind kind, struct rte_mbuf *m, uint64_t now, reassembly_fn *end, void *arg)
{
	struct pieces gone[GONE_N];
	struct piece f;
	struct key k;
	bool more;

	if (!look(kind, m, &k, &f, &more)) {
		end(arg, m, REASSEMBLY_BAD, false);
		return NULL;
	}
	gone[THIS].n = gone[ROOM].n = gone[STALE].n = 0;
	if (!more && !f.ofs) { // RFC 6946: whole by itself
		gone[THIS] = (struct pieces){.key = k, .total = f.len, .n = 1, .piece = {f}};
		return finish(&gone[THIS], end, arg);
	}
	if (!get_lock()) {
		end(arg, m, REASSEMBLY_FULL, false);
		return NULL;
	}
	enum outcome out = add(&k, &f, more, now, gone);
	rte_spinlock_unlock(&lock);
	end_all(&gone[ROOM], REASSEMBLY_FULL, end, arg);
	end_all(&gone[STALE], REASSEMBLY_TIMEOUT, end, arg);
	if (out == WHOLE)
		return finish(&gone[THIS], end, arg);
	if (out != WAITS)
		end(arg, m, REASSEMBLY_BAD, false);
	if (out == BAD_ALL)
		end_all(&gone[THIS], REASSEMBLY_BAD, end, arg);
	return NULL;
}

// One that is over by `now`, out of the table. Those of IPv6 wait longer, so that the oldest aren't the first.
static bool take_late(enum reassembly_kind kind, uint64_t now, struct pieces *to)
{
	struct datagram *g;

	if (!get_lock())
		return false;
	TAILQ_FOREACH(g, &by_age, age)
		if (g->key.kind == kind && now >= g->deadline)
			break;
	if (g)
		take(g, to);
	rte_spinlock_unlock(&lock);
	return g != NULL;
}

void reassembly_tick(enum reassembly_kind kind, uint64_t now, reassembly_fn *end, void *arg)
{
	struct pieces g;

	while (take_late(kind, now, &g))
		end_all(&g, REASSEMBLY_TIMEOUT, end, arg);
}

void reassembly_flush(enum reassembly_kind kind, reassembly_fn *end, void *arg)
{
	reassembly_tick(kind, UINT64_MAX, end, arg);
}

unsigned reassembly_waiting(void)
{
	rte_spinlock_lock(&lock);
	unsigned n = n_used[REASSEMBLY_ROUTER] + n_used[REASSEMBLY_TUNNEL];
	rte_spinlock_unlock(&lock);
	return n;
}
