// tunnel_path: bursts through tunnels, on the workers. See tunnel.h.
#include "forward.h"
#include "frag.h"
#include "key.h"
#include "offload.h"
#include "parse.h"
#include "trace.h"
#include "tunnel.h"
#include "worker.h"

#include <stdlib.h>
#include <emmintrin.h>
#include <string.h>
#include <rte_branch_prediction.h>
#include <rte_byteorder.h>

#define HEADERS_MAX 384 // what tunnel_open() may have to read: IPv4 and GENEVE options at their longest

enum {
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	ETH_IPV4 = 0x0800,
	ETH_IPV6 = 0x86dd,
};

// ---- receive

// Frames on their way in, all of one burst.
struct arrivals {
	struct rte_mbuf *m[BURST];
	struct trace *t[BURST];
	uint32_t whence[BURST]; // port << 16 | network
	uint32_t traced;
	unsigned n;
	bool mixed;             // not all of one port and network
};

// Whose packet it is: what the last one had is likely what the next one has.
struct known {
	uint32_t key;
	bool v6;
	bool tags;
	bool again;        // word[] is there
	uint8_t src[16];
	uint32_t whence;   // 0: nothing is known
	__m128i bytes[4];  // of its headers, see again_bytes()
	uint64_t sum;
};

// Headers of the shortest kind: VXLAN in IPv4, no options, no tag. Held against those of a packet that tunnel_open() let in are all bits of them but lengths,
// identification, TTL, the IPv4 checksum, and the UDP source port.
#define AGAIN 50
static const uint8_t again_mask[4][16] __attribute__((aligned(16))) = {
	{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}, // bytes 0 to 15
	{0, 0, 0, 0, 255, 255, 0, 255, 0, 0, 255, 255, 255, 255, 255, 255},               // 16 to 31
	{0, 0, 255, 255, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255},         // 34 to 49
	{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255},                             // 18 to 33
};

static inline __m128i again_bytes(const uint8_t *d, unsigned i)
{
	static const unsigned at[4] = {0, 16, 34, 18};

	return _mm_and_si128(_mm_loadu_si128((const __m128i *)(const void *)(d + at[i])), _mm_load_si128((const __m128i *)(const void *)again_mask[i]));
}

static inline uint32_t load32(const uint8_t *b)
{
	uint32_t w;

	memcpy(&w, b, 4);
	return w;
}

// Such a packet was let in: what follows may be held against it. Without ECN, and without a checksum of UDP, there is little left to look at.
static __rte_noinline void remember(struct known *k, const uint8_t *d, const struct tunnel_packet *f)
{
	uint16_t checksum;

	memcpy(&checksum, d + 40, 2);
	k->again = f->ofs == AGAIN && !f->v6 && f->key >> 24 == TUNNEL_VXLAN && !(f->tos & 3) && !checksum;
	if (!k->again)
		return;
	for (unsigned i = 0; i < 4; i++)
		k->bytes[i] = again_bytes(d, i);
	// Of the header's checksum, what doesn't differ (RFC 1071: any order will do).
	k->sum = (uint64_t)(load32(d + 14) & RTE_BE32(0xffff0000)) + (load32(d + 20) & RTE_BE32(0xffff0000)) + load32(d + 26) + load32(d + 30);
}

// Whether tunnel_open() would say of the packet what it said of the one that is known, and unwrap() has nothing to do but to take the headers off.
static __rte_always_inline bool is_again(const struct known *k, const struct rte_mbuf *m)
{
	const uint8_t *d = rte_pktmbuf_mtod(m, const uint8_t *);
	uint16_t total, udp, type;

	if (unlikely(!k->again || m->data_len < AGAIN + 14 || m->nb_segs > 1 || (m->ol_flags & RTE_MBUF_F_RX_LRO)))
		return false;
	__m128i differs = _mm_xor_si128(again_bytes(d, 0), k->bytes[0]);
	differs = _mm_or_si128(differs, _mm_xor_si128(again_bytes(d, 1), k->bytes[1]));
	differs = _mm_or_si128(differs, _mm_xor_si128(again_bytes(d, 2), k->bytes[2]));
	differs = _mm_or_si128(differs, _mm_xor_si128(again_bytes(d, 3), k->bytes[3]));
	memcpy(&total, d + 16, 2);
	memcpy(&udp, d + 38, 2);
	memcpy(&type, d + AGAIN + 12, 2);
	// Length and identification; TTL, protocol and checksum.
	uint64_t sum = k->sum + load32(d + 16) + load32(d + 22);
	return _mm_movemask_epi8(_mm_cmpeq_epi8(differs, _mm_setzero_si128())) == 0xffff && rte_be_to_cpu_16(total) + 14u == m->data_len &&
	       rte_be_to_cpu_16(udp) + 34u == m->data_len && sum % 0xffff == 0 &&
	       (likely(type == RTE_STATIC_BSWAP16(0x0800)) || (type != RTE_STATIC_BSWAP16(0x8100) && type != RTE_STATIC_BSWAP16(0x88a8)));
}

static inline bool is_known(const struct known *k, const struct tunnel_packet *f)
{
	uint32_t a, b;

	memcpy(&a, k->src, 4);
	memcpy(&b, f->src, 4);
	if (a != b || k->key != f->key || k->v6 != f->v6 || !k->whence)
		return false;
	return likely(!f->v6) || !memcmp(k->src + 4, f->src + 4, 12);
}

// 0, or the reason to drop for.
static __rte_noinline uint16_t find_out(struct known *k, const struct tunnel_table *t, const struct tunnel_packet *f)
{
	uint16_t port = tunnel_find_remote(t, f->v6, f->src), network = tunnel_find_network(t, f->key);
	const struct lport *lp = port ? lport_get(port) : NULL;

	k->whence = 0;
	if (!lp)
		return TUNNEL_REASON(UNKNOWN_REMOTE);
	if (!network || !lp->vlans || lp->vlans[network].network != network)
		return TUNNEL_REASON(UNKNOWN_VNI);
	*k = (struct known){.key = f->key, .v6 = f->v6, .whence = (uint32_t)port << 16 | network, .tags = t->network[network].tags};
	memcpy(k->src, f->src, f->v6 ? 16 : 4);
	return 0;
}

static void trace_in(struct trace *t, const struct lport *lp, const struct rte_mbuf *m, const struct tunnel_packet *f, uint32_t whence)
{
	struct core_record r = {.kind = CORE_TUNNEL_IN,
				.port = lp->id,
				.len = m->pkt_len,
				.proto = (uint8_t)(f->key >> 24),
				.flow = f->key & 0xffffff,
				.out_kind = (uint8_t)(whence >> 16 != 0),
				.reason = (uint16_t)(whence >> 16),
				.network = (uint16_t)whence};

	trace_put(t, TRACE_CORE, &r, sizeof r);
}

// Of the packet's tag on the underlay's link.
static uint16_t outer_network(const struct lport *lp, const struct rte_mbuf *m)
{
	const uint8_t *d = rte_pktmbuf_mtod(m, const uint8_t *);
	bool tagged = (d[12] == 0x81 && d[13] == 0) || (d[12] == 0x88 && d[13] == 0xa8);

	return lport_classify(lp, tagged ? (uint16_t)(0x1000 | (d[14] & 15) << 8 | d[15]) : 0).network;
}

// A packet of a tunnel that is not let in: on the ledger of the underlay's port.
static __rte_noinline void refuse(struct worker *w, const struct lport *lp, struct rte_mbuf *m, uint16_t reason, uint64_t tsc, struct trace *t)
{
	struct pkt *p = pkt_of(m);

	*p = (struct pkt){.trace = t, .rx_tsc = tsc};
	p->in_port = p->origin = lp->id;
	worker_drop(w, m, reason);
}

// The congestion that the underlay marked becomes the inner packet's. `d`: its frame, `have` bytes of it. False: drop.
static __rte_noinline bool mark_congestion(uint8_t *d, uint32_t have, uint8_t outer)
{
	unsigned l3 = 14;
	uint16_t type = (uint16_t)(d[12] << 8 | d[13]);

	for (unsigned tags = 0; (type == 0x8100 || type == 0x88a8) && tags < 2 && l3 + 4 <= have; tags++, l3 += 4)
		type = (uint16_t)(d[l3 + 2] << 8 | d[l3 + 3]);
	if (l3 + 20 > have || (type != ETH_IPV4 && type != ETH_IPV6))
		return true; // no ECN
	uint8_t *ip = d + l3;
	unsigned inner = type == ETH_IPV4 ? ip[1] & 3u : ip[1] >> 4 & 3u;
	int ecn = tunnel_ecn(inner, outer);
	if (ecn < 0)
		return false;
	if (type == ETH_IPV6) {
		ip[1] = (uint8_t)((ip[1] & 0xcf) | ecn << 4);
		return true;
	}
	uint32_t sum = (uint32_t)(ip[10] << 8 | ip[11]) + inner + (uint16_t)~(unsigned)ecn; // RFC 1624, equation 4, of the complement
	sum = (sum & 0xffff) + (sum >> 16);
	sum += sum >> 16;
	ip[10] = (uint8_t)(sum >> 8);
	ip[11] = (uint8_t)sum;
	ip[1] = (uint8_t)((ip[1] & 0xfc) | ecn);
	return true;
}

static inline void take_off(struct rte_mbuf *m, unsigned n)
{
	m->ol_flags &= ~(uint64_t)(RTE_MBUF_F_RX_L4_CKSUM_MASK | RTE_MBUF_F_RX_IP_CKSUM_MASK); // what is said of the outer packet
	m->data_off = (uint16_t)(m->data_off + n);
	m->data_len = (uint16_t)(m->data_len - n);
	m->pkt_len -= n;
}

// Makes m the frame in it. 0, or the reason to drop for.
static inline uint16_t unwrap(struct worker *w, struct rte_mbuf **mp, const struct tunnel_packet *f, bool tags)
{
	struct rte_mbuf *m = *mp;
	const uint8_t *d = rte_pktmbuf_mtod_offset(m, const uint8_t *, f->ofs);
	uint16_t type;

	if (unlikely(m->data_len < f->ofs + 54u && m->nb_segs > 1)) { // what is written and read below
		struct rte_mbuf *own = pkt_own_headers(m, (uint16_t)(f->ofs + 128), w->pool);

		if (!own)
			return TX_REASON(NO_MEMORY);
		*mp = m = own;
		d = rte_pktmbuf_mtod_offset(m, const uint8_t *, f->ofs);
	}
	memcpy(&type, d + 12, 2);
	if (unlikely(type == RTE_STATIC_BSWAP16(0x8100) || type == RTE_STATIC_BSWAP16(0x88a8)) && !tags)
		return TUNNEL_REASON(INNER_VLAN);
	if (unlikely(f->tos & 3) && !mark_congestion(rte_pktmbuf_mtod_offset(m, uint8_t *, f->ofs), m->data_len - f->ofs, f->tos & 3))
		return TUNNEL_REASON(CONGESTION);
	if (unlikely(f->ofs + f->len != m->pkt_len)) // padding of the underlay's link
		pkt_truncate(m, f->ofs + f->len);
	take_off(m, f->ofs);
	return 0;
}

// Frames of several ports or networks: each in turn with those that are of the same.
static __rte_noinline void forward_mixed(struct worker *w, struct arrivals *a, uint64_t tsc)
{
	while (a->n) {
		struct rte_mbuf *m[BURST];
		struct trace *t[BURST];
		uint32_t whence = a->whence[0], traced = 0, rest_traced = 0;
		unsigned n = 0, rest = 0;

		for (unsigned i = 0; i < a->n; i++) {
			bool has = a->traced >> i & 1;

			if (a->whence[i] == whence) {
				m[n] = a->m[i];
				t[n] = a->t[i];
				traced |= (uint32_t)has << n++;
			} else {
				a->m[rest] = a->m[i];
				a->t[rest] = a->t[i];
				a->whence[rest] = a->whence[i];
				rest_traced |= (uint32_t)has << rest++;
			}
		}
		a->n = rest;
		a->traced = rest_traced;
		forward_arrived(w, (uint16_t)(whence >> 16), (uint16_t)whence, m, n, tsc, traced, t);
	}
}

tunnel_mirror_fn *tunnel_mirror;

// Mirrors get a copy of the packet as it is on the link, with a struct pkt of its own. `as`: who it is.
static __rte_noinline void mirror_outer(struct worker *w, struct rte_mbuf *m, uint16_t port, uint16_t network, uint16_t inner, const struct pkt *as)
{
	tunnel_mirror_fn *fn = __atomic_load_n(&tunnel_mirror, __ATOMIC_ACQUIRE);
	const struct pkt who = *as;
	struct flow_key k;

	if (!fn || !fn(w, NULL, port, inner))
		return;
	struct rte_mbuf *c = rte_pktmbuf_copy(m, w->pool, 0, UINT32_MAX);
	if (unlikely(!c)) {
		pkt_of(m)->origin = who.origin;
		worker_count(w, who.origin, COUNT_COPIES, 1);
		worker_lose(w, m, TX_REASON(NO_MEMORY), 0);
		return;
	}
	struct pkt *p = pkt_of(c);
	*p = (struct pkt){.rx_tsc = who.rx_tsc, .trace = who.trace};
	p->in_port = who.in_port;
	p->origin = who.origin;
	if (!parse(c, &k) && !p->drop) {
		p->network = network;
		fn(w, p, port, inner);
	}
	rte_pktmbuf_free(c);
}

static void mirror_arrival(struct worker *w, const struct lport *lp, struct rte_mbuf *m, uint64_t tsc, struct trace *trace)
{
	struct pkt as = {.rx_tsc = tsc, .trace = trace};

	as.in_port = as.origin = lp->id;
	mirror_outer(w, m, lp->id, outer_network(lp, m), 0, &as);
}

// tunnel_open() of a packet whose headers are not in one piece.
static __rte_noinline uint16_t open_split(struct worker *w, const struct tunnel_table *table, const struct lport *lp, struct rte_mbuf **m, struct tunnel_packet *f)
{
	struct rte_mbuf *own = pkt_own_headers(*m, HEADERS_MAX, w->pool);

	*m = own ? own : *m;
	return own ? tunnel_open(table, lp, own, f) : TX_REASON(NO_MEMORY);
}

// A fragment, which mirrors see as it is on the link. Returns the whole packet, or NULL.
static __rte_noinline struct rte_mbuf *collect(struct worker *w, const struct tunnel_table *table, const struct lport *lp, struct rte_mbuf *m, uint64_t tsc, struct trace **trace)
{
	uint16_t network = outer_network(lp, m);

	mirror_arrival(w, lp, m, tsc, *trace);
	return tunnel_collect(w, table, lp, m, network, tsc, trace);
}

unsigned tunnel_receive(struct worker *w, const struct lport *lp, struct rte_mbuf **m, unsigned n, uint64_t tsc, uint32_t *traced, struct trace **t)
{
	const struct tunnel_table *table = rcu_read(tunnel_table);
	uint32_t had = *traced, kept_traced = 0;
	struct known known;
	struct arrivals a;
	const bool mirrors = __atomic_load_n(&tunnel_mirror, __ATOMIC_ACQUIRE) != NULL, slow = had || mirrors;
	unsigned kept = 0;

	if (unlikely(!table))
		return n;
	a.n = a.traced = 0;
	a.mixed = known.again = false;
	known.whence = 0;
	for (unsigned i = 0; i < n; i++) {
		if (likely(!slow && is_again(&known, m[i]))) {
			take_off(m[i], AGAIN);
			*pkt_arrival(m[i]) = (uint16_t)known.whence;
			a.m[a.n] = m[i];
			a.whence[a.n++] = known.whence;
			continue;
		}
		struct trace *trace = unlikely(had >> i & 1) ? t[i] : NULL;
		struct tunnel_packet f = {.key = 0};
		uint16_t verdict = tunnel_open(table, lp, m[i], &f);

		if (unlikely(verdict == TUNNEL_SPLIT))
			verdict = open_split(w, table, lp, &m[i], &f);
		bool collected = verdict == TUNNEL_PIECE;
		if (unlikely(collected)) {
			m[i] = collect(w, table, lp, m[i], tsc, &trace);
			if (!m[i])
				continue;
			verdict = tunnel_open(table, lp, m[i], &f);
			verdict = verdict == TUNNEL_SPLIT ? open_split(w, table, lp, &m[i], &f) : verdict;
		}
		if (unlikely(verdict >= TUNNEL_PIECE)) {
			if (trace) {
				t[kept] = trace;
				kept_traced |= 1u << kept;
			}
			m[kept++] = m[i];
			continue;
		}
		if (unlikely(mirrors) && !collected)
			mirror_arrival(w, lp, m[i], tsc, trace);
		if (likely(!verdict) && unlikely(!is_known(&known, &f)))
			verdict = find_out(&known, table, &f);
		if (unlikely(trace))
			trace_in(trace, lp, m[i], &f, verdict ? 0 : known.whence);
		if (likely(!verdict)) {
			remember(&known, rte_pktmbuf_mtod(m[i], const uint8_t *), &f);
			verdict = unwrap(w, &m[i], &f, known.tags);
		}
		if (unlikely(verdict)) {
			refuse(w, lp, m[i], verdict, tsc, trace);
			continue;
		}
		*pkt_arrival(m[i]) = (uint16_t)known.whence;
		a.m[a.n] = m[i];
		a.whence[a.n] = known.whence;
		a.mixed |= known.whence != a.whence[0];
		if (unlikely(trace)) {
			a.t[a.n] = trace;
			a.traced |= 1u << a.n;
		}
		a.n++;
	}
	*traced = kept_traced;
	if (!a.n)
		return kept;
	worker_count(w, lp->id, COUNT_CONSUMED, a.n);
	if (likely(!a.mixed))
		forward_arrived(w, (uint16_t)(a.whence[0] >> 16), (uint16_t)a.whence[0], a.m, a.n, tsc, a.traced, a.t);
	else
		forward_mixed(w, &a, tsc);
	return kept;
}

uint16_t tunnel_unwrap(struct worker *w, const struct lport *lp, struct rte_mbuf **m)
{
	const struct tunnel_table *table = rcu_read(tunnel_table);
	struct trace *trace = pkt_of(*m)->trace;
	struct known known = {.whence = 0};
	struct tunnel_packet f = {.key = 0};
	uint16_t verdict = table ? tunnel_open(table, lp, *m, &f) : TUNNEL_OTHER;

	if (verdict >= TUNNEL_PIECE)
		return lp->id;
	if (!verdict)
		verdict = find_out(&known, table, &f);
	if (trace)
		trace_in(trace, lp, *m, &f, verdict ? 0 : known.whence);
	if (!verdict)
		verdict = unwrap(w, m, &f, known.tags);
	if (verdict) {
		refuse(w, lp, *m, verdict, pkt_of(*m)->rx_tsc, trace);
		return 0;
	}
	*pkt_arrival(*m) = (uint16_t)known.whence;
	return (uint16_t)(known.whence >> 16);
}

unsigned tunnel_misses(struct worker *w)
{
	const struct tunnel_table *t = rcu_read(tunnel_table);
	unsigned left = 0;

	for (unsigned i = 0; t && i < t->n_ports; i++) {
		const struct port_worker *pw = worker_port(w, t->port[i]);

		if (pw && pw->miss_n)
			left += forward_misses(w, t->port[i]) > 0;
	}
	return left;
}

// ---- send

static inline void put16(uint8_t *b, uint32_t v)
{
	uint16_t be = rte_cpu_to_be_16((uint16_t)v);

	memcpy(b, &be, 2);
}

// The same for all packets of a direction of a connection: spreads them over paths and queues. Cheaper than parse_flow_hash() for what most packets are.
static inline uint32_t spread(struct rte_mbuf *m, const struct pkt *p, const uint8_t *d)
{
	uint64_t addresses, where;
	uint32_t ports;

	// TCP or UDP behind an IPv4 header of 20 bytes behind an Ethernet header: one word of struct pkt says it, but for the first fragment of something.
	static_assert(offsetof(struct pkt, l4_ofs) == offsetof(struct pkt, ethertype) + 6 && offsetof(struct pkt, proto) == offsetof(struct pkt, ethertype) + 5 &&
			      offsetof(struct pkt, l3_ofs) == offsetof(struct pkt, ethertype) + 4 && offsetof(struct pkt, class) == offsetof(struct pkt, ethertype) + 3,
		      "ethertype, n_tags, class, l3_ofs, proto, l4_ofs are read at once");
	memcpy(&where, &p->ethertype, 8);
	where &= 0xffffffff00ffffff; // any class
	if (unlikely((where != (ETH_IPV4 | 14ULL << 32 | (uint64_t)PROTO_UDP << 40 | 34ULL << 48) && where != (ETH_IPV4 | 14ULL << 32 | (uint64_t)PROTO_TCP << 40 | 34ULL << 48)) ||
		     p->class == CLASS_FRAG_FIRST || m->data_len < 38))
		return parse_flow_hash(m);
	memcpy(&addresses, d + 26, 8);
	memcpy(&ports, d + 34, 4);
	return (uint32_t)key_mum(addresses ^ key_secret[0], ports ^ key_secret[1]);
}

static inline uint8_t tos_of(const struct pkt *p, const uint8_t *d)
{
	if (likely(p->ethertype == ETH_IPV4 && p->l3_ofs))
		return d[p->l3_ofs + 1];
	if (p->ethertype == ETH_IPV6 && p->l3_ofs)
		return (uint8_t)(d[p->l3_ofs] << 4 | d[p->l3_ofs + 1] >> 4);
	return 0;
}

// What is written into each header. `o`: its first byte, `len` bytes with what is behind it; vni: as the tunnel header has it in its last four bytes.
static __rte_always_inline void fill_in(struct rte_mbuf *m, uint8_t *o, const struct tunnel_header *h, uint32_t len, uint32_t vni, uint8_t tos, uint32_t hash)
{
	static __thread uint16_t identification;
	uint8_t *ip = o + h->l3, *l4 = o + h->l4;
	uint32_t l3_len = len - h->l3;

	// ECN is copied (RFC 6040 section 4.1), DSCP too unless it is given.
	if (likely(!h->v6)) {
		if (unlikely(!h->inherits))
			tos = (uint8_t)((tos & 3) | (ip[1] & 0xfc));
		uint32_t sum = h->sum + rte_cpu_to_be_16((uint16_t)l3_len) + ((uint32_t)tos << 8); // words as they are in memory

		if (unlikely(!h->df)) { // RFC 6864
			uint16_t id = ++identification;

			memcpy(ip + 4, &id, 2);
			sum += id;
		}
		put16(ip + 2, l3_len);
		ip[1] = tos;
		sum = (sum & 0xffff) + (sum >> 16);
		sum = (sum & 0xffff) + (sum >> 16);
		uint16_t check = (uint16_t)~sum;
		memcpy(ip + 10, &check, 2);
	} else {
		if (unlikely(!h->inherits))
			tos = (uint8_t)((tos & 3) | (ip[0] << 4 & 0xf0) | (ip[1] >> 4 & 0x0c));
		// With a flow label, so that routers needn't look behind the header (RFC 6438).
		uint32_t word = rte_cpu_to_be_32(0x60000000u | (uint32_t)tos << 20 | (hash >> 8 & 0xfffff));

		memcpy(ip, &word, 4);
		put16(ip + 4, l3_len - 40);
	}
	memcpy(o + h->len - 4, &vni, 4);
	if (unlikely(!h->udp))
		return;
	uint32_t udp_len = len - h->l4;
	put16(l4, 0xc000 | (hash & 0x3fff)); // RFC 7348 section 5: from the dynamic ports
	put16(l4 + 4, udp_len);
	if (likely(!h->checksum))
		return;
	// Asked for, so that a device may do it.
	uint32_t sum = h->pseudo + rte_cpu_to_be_16((uint16_t)udp_len);
	uint16_t pseudo = (uint16_t)((sum & 0xffff) + (sum >> 16));
	memcpy(l4 + 6, &pseudo, 2);
	m->ol_flags |= RTE_MBUF_F_TX_UDP_CKSUM | (h->v6 ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4);
	m->l2_len = h->l3;
	m->l3_len = (uint64_t)(h->l4 - h->l3);
	m->l4_len = 8;
	pkt_of(m)->l4_len = 8;
}

// Packets of one tunnel on their way out.
struct departure {
	struct worker *w;
	struct port_worker *pw;        // the tunnel's
	struct port_worker *out;       // the underlay's
	const struct tunnel_table *table;
	const struct tunnel_way *way;
	// Of the network of the last packet:
	uint16_t network;
	bool tags;
	uint16_t refused;              // reason why its packets can't go
	uint32_t vni;                  // as the tunnel header has it
	const struct tunnel_span *span; // NULL: none
	struct tunnel_header *mine;    // of a span: what is h, to be filled in for each packet
	bool cut;
	bool mirrors;                  // there are some
	const struct tunnel_header *h;
	// What left.
	uint32_t packets;
	uint64_t bytes;
};

static __rte_noinline void turn_to(struct departure *d, uint16_t network)
{
	const struct tunnel_network *tn = d->table ? &d->table->network[network] : NULL;

	d->network = network;
	d->h = NULL;
	d->refused = TUNNEL_REASON(NO_VNI);
	if (!tn || !tn->used)
		return;
	d->refused = TUNNEL_REASON(NO_NEXT_HOP);
	enum tunnel_format f = tn->key >> 24;
	const struct tunnel_header *h = d->way ? &d->way->header[f] : NULL;
	d->out = h && h->out && !d->w->dry ? worker_port(d->w, h->out) : NULL;
	if (!h || !h->out || (!d->out && !d->w->dry))
		return;
	d->h = h;
	d->tags = tn->tags;
	d->refused = 0;
	d->vni = rte_cpu_to_be_32(f == TUNNEL_GRE ? tn->key & 0xffffff : tn->key << 8);
}

static void trace_out(struct departure *d, struct rte_mbuf *m, bool large)
{
	uint32_t key = d->span ? tunnel_key(TUNNEL_ERSPAN, d->span->session) : d->table->network[d->network].key;
	struct core_record r = {.kind = CORE_TUNNEL_OUT,
				.port = d->h->out,
				.reason = d->pw->id,
				.network = d->network,
				.proto = (uint8_t)(key >> 24),
				.flow = key & 0xffffff,
				.adj = large ? d->h->limit : 0,
				.len = m->pkt_len};

	trace_put(pkt_of(m)->trace, TRACE_CORE, &r, sizeof r);
}

// Whether a packet can get its header in front as it is.
static inline bool is_plain(const struct rte_mbuf *m)
{
	uint32_t shared;

	static_assert(offsetof(struct rte_mbuf, nb_segs) == offsetof(struct rte_mbuf, refcnt) + 2, "they are read at once");
	memcpy(&shared, &m->refcnt, 4);
	return !(m->ol_flags & (RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_L4_MASK | RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL)) && shared == 0x10001 &&
	       m->data_off >= TUNNEL_ROOM;
}

// A packet of port `origin` is about to join the batch.
static inline void begin_batch(struct worker *w, struct port_worker *out, uint16_t origin)
{
	if (!out->tx_dirty) {
		out->tx_dirty = true;
		w->tx_dirty[w->n_tx_dirty++] = out->id;
	}
	if (!out->tx_n)
		out->tx_origin = origin;
	else if (out->tx_origin != origin)
		out->tx_same = 0; // never again tx_n, before the batch leaves
}

// Into the batch of the underlay's port.
static void depart_now(struct departure *d, struct rte_mbuf *m)
{
	struct port_worker *out = d->out;
	struct pkt *p = pkt_of(m);

	if (unlikely(d->mirrors && !d->span))
		mirror_outer(d->w, m, d->h->out, d->h->network, d->network, p);
	if (unlikely(d->w->dry)) {
		d->w->send_dry(d->w, m);
		return;
	}
	begin_batch(d->w, out, p->origin);
	out->tx[out->tx_n++] = m;
	if (unlikely(out->tx_n == TX_BATCH))
		d->w->flush(d->w, out);
}

// In fragments, as the path takes no more. `m`: its first buffer, with the header, is nobody else's.
static __rte_noinline void depart_in_pieces(struct departure *d, struct rte_mbuf *m)
{
	const struct tunnel_header *h = d->h;
	struct worker *w = d->w;
	struct pkt *p = pkt_of(m);

	p->ethertype = h->v6 ? ETH_IPV6 : ETH_IPV4;
	p->class = CLASS_PLAIN;
	p->l3_ofs = h->l3;
	p->l4_ofs = h->l4;
	p->l3_len = (uint16_t)(m->pkt_len - h->l3);
	unsigned n = offload_checksum(m) ? 0 : frag_count(m, h->limit);
	if (!n) {
		worker_drop_tx(w, d->pw, m, TX_REASON(OFFLOAD));
		return;
	}
	worker_count(w, p->origin, COUNT_SEGMENTS, n - 1);
	for (unsigned i = 0; i < n; i++) {
		struct rte_mbuf *piece = frag_piece(m, i, h->limit, w->pool);

		if (likely(piece))
			depart_now(d, piece);
		else
			worker_lose(w, m, TX_REASON(NO_MEMORY), 0);
	}
	trace_unref(p->trace);
	rte_pktmbuf_free(m); // its fragments stand for it
}

static inline void depart(struct departure *d, struct rte_mbuf *m)
{
	bool large = unlikely(d->h->limit) && m->pkt_len - d->h->l3 > d->h->limit;

	if (unlikely(pkt_of(m)->trace))
		trace_out(d, m, large);
	if (unlikely(large))
		depart_in_pieces(d, m);
	else
		depart_now(d, m);
}

// Puts the header in front of a packet of one buffer that nobody shares, with room in front and no wishes.
static __rte_always_inline void put_header(struct rte_mbuf *m, const struct tunnel_header *h, uint32_t vni)
{
	struct pkt *p = pkt_of(m);
	uint8_t *inner = rte_pktmbuf_mtod(m, uint8_t *);
	uint32_t hash = spread(m, p, inner);
	uint8_t tos = tos_of(p, inner);

	if (likely(h->len <= 64)) // in one cache line, where the frame begins with another
		memcpy(inner - 64, h->bytes + TUNNEL_ROOM - 64, 64);
	else
		memcpy(inner - TUNNEL_ROOM, h->bytes, TUNNEL_ROOM);
	m->data_off = (uint16_t)(m->data_off - h->len);
	m->data_len = (uint16_t)(m->data_len + h->len);
	m->pkt_len += h->len;
	p->hash = hash;
	p->out = h->out;
	fill_in(m, inner - h->len, h, m->pkt_len, vni, tos, hash);
}

// Such packets, all of one port and none of them traced, go into the batch as they would by send_direct() of forward.c. Returns how many of n did.
static inline unsigned wrap_plain(struct departure *d, struct rte_mbuf **m, unsigned n, uint16_t origin)
{
	struct port_worker *out = d->out;
	unsigned i = 0, room = TX_BATCH - out->tx_n;

	const struct tunnel_header h = *d->h; // a copy, of which the compiler knows that nothing below writes to it
	const uint16_t network = d->network;
	const uint32_t vni = d->vni;
	struct rte_mbuf **to = &out->tx[out->tx_n];
	uint32_t bytes = 0;

	begin_batch(d->w, out, origin);
	for (n = RTE_MIN(n, room); i < n && pkt_of(m[i])->network == network && is_plain(m[i]) && !pkt_of(m[i])->n_tags; i++) {
		put_header(m[i], &h, vni);
		bytes += m[i]->pkt_len;
		to[i] = m[i];
	}
	out->tx_n = (uint16_t)(out->tx_n + i);
	out->tx_same = (uint16_t)(out->tx_same + i);
	out->tx_bytes += bytes;
	d->packets += i;
	d->bytes += bytes - i * h.len;
	if (unlikely(out->tx_n == TX_BATCH))
		d->w->flush(d->w, out);
	return i;
}

// ERSPAN type II: what is said of this packet. En: 3, its tag is still in it; 0, it has none. Not what is too long for the underlay.
static void prepare_span(struct departure *d, struct rte_mbuf *m)
{
	const struct lport *lp = lport_get(d->pw->id);
	const struct pkt *p = pkt_of(m);
	uint8_t *b = d->mine->bytes + TUNNEL_ROOM - 12, tci[2] = {0};
	bool cut = d->cut;

	if (lp && m->pkt_len > lp->mtu + 14u) {
		pkt_truncate(m, lp->mtu + 14u);
		cut = true;
	}
	if (p->n_tags)
		memcpy(tci, rte_pktmbuf_mtod_offset(m, const uint8_t *, 14), 2);
	// One number for all workers, as the analyser knows one session: the only figure that packets of several workers share, and those are copies for an instrument.
	uint32_t sequence = rte_cpu_to_be_32(__atomic_fetch_add(d->span->sequence, 1, __ATOMIC_RELAXED));
	memcpy(b, &sequence, 4);
	b[4] = (uint8_t)(0x10 | (tci[0] & 0x0f));
	b[5] = tci[1];
	b[6] = (uint8_t)((tci[0] & 0xe0) | (p->n_tags ? 0x18 : 0) | (cut ? 0x04 : 0) | d->span->session >> 8);
	b[7] = (uint8_t)d->span->session;
}

// Any packet that asks for nothing any more: the header is in a buffer of its own if the first one is shared or has no room.
static void wrap_any(struct departure *d, struct rte_mbuf *m)
{
	if (d->span)
		prepare_span(d, m);
	if (m->pkt_len > UINT16_MAX - TUNNEL_ROOM) {
		worker_drop_tx(d->w, d->pw, m, TX_REASON(OFFLOAD));
		return;
	}
	if (RTE_MBUF_DIRECT(m) && rte_mbuf_refcnt_read(m) == 1 && rte_pktmbuf_headroom(m) >= TUNNEL_ROOM) {
		d->packets++;
		d->bytes += m->pkt_len;
		put_header(m, d->h, d->vni);
		depart(d, m);
		return;
	}
	struct rte_mbuf *head = rte_pktmbuf_alloc(d->w->pool);
	if (!head) {
		worker_drop_tx(d->w, d->pw, m, TX_REASON(NO_MEMORY));
		return;
	}
	const struct tunnel_header *h = d->h;
	const uint8_t *inner = rte_pktmbuf_mtod(m, const uint8_t *);
	uint8_t *o = rte_pktmbuf_mtod(head, uint8_t *);
	uint32_t hash = spread(m, pkt_of(m), inner);
	uint8_t tos = tos_of(pkt_of(m), inner);

	d->packets++;
	d->bytes += m->pkt_len;
	memcpy(o, h->bytes + TUNNEL_ROOM - h->len, h->len);
	pkt_copy_metadata(head, m);
	head->data_len = h->len;
	head->pkt_len = m->pkt_len + h->len;
	head->nb_segs = (uint16_t)(m->nb_segs + 1);
	head->next = m;
	pkt_of(head)->hash = hash;
	pkt_of(head)->out = h->out;
	fill_in(head, o, h, head->pkt_len, d->vni, tos, hash);
	depart(d, head);
}

// What the packet asks of a device is done now: none looks for it behind a tunnel header.
static void finish(struct departure *d, struct rte_mbuf *m)
{
	if (m->ol_flags & RTE_MBUF_F_TX_L4_MASK) {
		struct rte_mbuf *own = pkt_own_headers(m, (uint16_t)(m->l2_len + m->l3_len + pkt_of(m)->l4_len), d->w->pool);

		if (!own || offload_checksum(own)) {
			worker_drop_tx(d->w, d->pw, own ? own : m, own ? TX_REASON(OFFLOAD) : TX_REASON(NO_MEMORY));
			return;
		}
		m = own;
	}
	wrap_any(d, m);
}

static void wrap_slowly(struct departure *d, struct rte_mbuf *m)
{
	if (!(m->ol_flags & RTE_MBUF_F_TX_TCP_SEG)) {
		finish(d, m);
		return;
	}
	struct pkt *p = pkt_of(m);
	unsigned n = offload_segments(m);
	if (!n) {
		worker_drop_tx(d->w, d->pw, m, TX_REASON(OFFLOAD));
		return;
	}
	worker_count(d->w, p->origin, COUNT_SEGMENTS, n - 1);
	for (unsigned i = 0; i < n; i++) {
		struct rte_mbuf *s = offload_segment(m, i, d->w->pool);

		if (s)
			finish(d, s); // it came with a reference of its own to the trace
		else
			worker_lose(d->w, m, TX_REASON(NO_MEMORY), 0);
	}
	trace_unref(p->trace);
	rte_pktmbuf_free(m); // its segments stand for it
}

void tunnel_span(struct worker *w, uint16_t tunnel, struct rte_mbuf *m, const struct tunnel_span *span, bool cut)
{
	struct port_worker *dry = w->dry ? calloc(1, sizeof *dry) : NULL; // which has no ports
	struct departure d = {.w = w, .pw = w->dry ? dry : worker_port(w, tunnel), .way = rcu_read(tunnel_ways[tunnel & (MAX_PORTS - 1)]), .span = span, .cut = cut};
	const struct tunnel_header *h = d.way ? &d.way->header[TUNNEL_ERSPAN] : NULL;

	d.network = pkt_of(m)->network;
	d.out = h && h->out && !w->dry ? worker_port(w, h->out) : NULL;
	if (dry)
		dry->id = tunnel;
	if (!d.pw) {
		worker_drop(w, m, TX_REASON(NO_PORT));
	} else if (!h || !h->out || (!d.out && !w->dry)) {
		worker_drop_tx(w, d.pw, m, TUNNEL_REASON(NO_NEXT_HOP));
	} else {
		struct tunnel_header mine = *h;

		d.h = d.mine = &mine;
		wrap_slowly(&d, m);
		worker_count(w, tunnel, COUNT_TX, d.packets);
		worker_count(w, tunnel, COUNT_TX_BYTES, d.bytes);
	}
	free(dry);
}

static __rte_noinline void send_one(struct departure *d, struct rte_mbuf *m)
{
	const struct pkt *p = pkt_of(m);

	if (p->network != d->network)
		turn_to(d, p->network);
	if (d->refused || (p->n_tags && !d->tags))
		worker_drop_tx(d->w, d->pw, m, d->refused ? d->refused : TUNNEL_REASON(INNER_VLAN));
	else
		wrap_slowly(d, m);
}

bool tunnel_send(struct worker *w, struct port_worker *pw)
{
	const struct lport *lp = lport_get(pw->id);

	if (!lp || lp->kind != PORT_TUNNEL)
		return false;
	struct departure d = {.w = w, .pw = pw, .table = rcu_read(tunnel_table), .way = rcu_read(tunnel_ways[pw->id]), .mirrors = __atomic_load_n(&tunnel_mirror, __ATOMIC_ACQUIRE) != NULL};
	unsigned n = pw->tx_n;
	bool plain = pw->tx_same == n;
	pw->tx_n = pw->tx_same = 0;
	pw->tx_bytes = 0;
	turn_to(&d, pkt_of(pw->tx[0])->network);
	for (unsigned i = 0; i < n;) {
		unsigned k = likely(plain && d.out && !d.refused && !d.mirrors && !d.h->limit) ? wrap_plain(&d, &pw->tx[i], n - i, pw->tx_origin) : 0;

		i += k;
		if (unlikely(!k))
			send_one(&d, pw->tx[i++]);
	}
	worker_count(w, pw->id, COUNT_TX, d.packets);
	worker_count(w, pw->id, COUNT_TX_BYTES, d.bytes);
	return true;
}
