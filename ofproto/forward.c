// forward: bursts from parsing to their flows, and the queue of misses. See forward.h.
#include "forward_private.h"
#include "adjacency.h"
#include "parse.h"
#include "tunnel.h"

#include <errno.h>
#include <string.h>
#include <rte_branch_prediction.h>
#include <rte_cycles.h>

uint16_t forward_reason_base;

static const struct reason reason_rows[] = {FORWARD_REASONS(REASON_ROW)};
uint64_t forward_ingress, forward_egress, forward_egress_runs;

#define REFRESH_MS 1000
#define HOLD_MS 500      // a guest's ring is left alone that long on end: 100,000 flows are resolved anew in a fifth of it
#define HOLD_REST_MS 100 // and all of it again when its queue had room for so long

void forward_init(void)
{
	forward_reason_base = reason_register(reason_rows, FORWARD_REASON_N);
	forward_ingress = forward_egress = forward_egress_runs = 0;
	for (unsigned i = 0; i < stage_count(); i++) {
		const struct stage *s = stage_get((uint8_t)i);

		*(s->egress ? &forward_egress : &forward_ingress) |= 1ULL << i;
		if (s->egress && s->run)
			forward_egress_runs |= 1ULL << i;
	}
}

// ---- tracing

static void trace_received(struct pkt *p, const struct flow_key *k)
{
	struct core_record r = {
		.kind = CORE_RECEIVED,
		.port = p->in_port,
		.len = pkt_mbuf(p)->pkt_len,
		.class = p->class,
		.n_tags = p->n_tags,
		.vlan = k->vlan,
		.ethertype = p->ethertype,
		.proto = p->l3_ofs ? p->proto : 0,
	};
	memcpy(r.dst, k->dst, 6);
	memcpy(r.src, k->src, 6);
	trace_put(p->trace, TRACE_CORE, &r, sizeof r);
}

// ---- from packet to key

// Whatever parse() and the decision write; who the packet is and its trace stay.
static void pkt_reset(struct pkt *p)
{
	struct pkt keep = *p;

	memset(p, 0, sizeof *p);
	p->in_port = keep.in_port;
	p->origin = keep.origin;
	p->rx_tsc = keep.rx_tsc;
	p->trace = keep.trace;
}

// Headers in several buffers, a trace, malformed input: what prepare() rarely meets. False: the packet is dropped.
static __rte_noinline bool prepare_rest(struct worker *w, struct rte_mbuf **m, struct flow_key *whole, int rc)
{
	struct pkt *p = pkt_of(*m);

	if (rc == -EAGAIN) {
		struct rte_mbuf *head = pkt_own_headers(*m, PARSE_HEADERS_MAX, w->pool);

		if (!head) {
			worker_drop(w, *m, FLOW_REASON(NO_MEMORY));
			return false;
		}
		*m = head;
		p = pkt_of(head);
		rc = parse(head, whole);
		if (rc && !p->drop) // headers longer than any real ones
			p->drop = (uint16_t)(parse_reason_base + parse_IPV6_EXT);
	}
	if (p->trace && !p->trace->used) // else it waited to be resolved, and has been here before
		trace_received(p, whole);
	if (p->drop) {
		worker_drop(w, *m, p->drop);
		return false;
	}
	return true;
}

// What came out of a tunnel has the network that the tunnel's header said; its tags are the customer's.
static inline void set_arrival(const struct lport *lp, struct rte_mbuf *m, struct flow_key *whole)
{
	if (unlikely(lp->mode == VLAN_NETWORK_ID))
		whole->vlan = KEY_VLAN_NETWORK | *pkt_arrival(m);
}

// Parses *m (which may get another head) and makes its whole key and the one masked by its profile. False: it was malformed and is dropped.
static inline bool prepare(struct worker *w, const struct lport *lp, struct rte_mbuf **m, struct flow_key *whole, struct flow_key *key,
			   uint8_t *len, uint64_t *hash)
{
	int rc = parse(*m, whole);
	struct pkt *p = pkt_of(*m);

	if (unlikely(rc || p->trace || p->drop) && !prepare_rest(w, m, whole, rc))
		return false;
	set_arrival(lp, *m, whole);
	struct membership in = lport_classify(lp, whole->vlan);
	const struct profile *pr = profile_get(in.profile);
	pkt_of(*m)->network = in.network;
	whole->profile = in.profile;
	*len = (uint8_t)key_len(pr, whole->ethertype);
	key_mask(key, whole, pr, *len);
	*hash = key_hash(key, *len);
	return true;
}
static bool still_right(struct worker *w, struct flow *f)
{
	struct flow_cold *c = flow_cold(w->flows, f);

	for (unsigned i = 0; i < c->n_deps; i++)
		if (gen_read(c->dep_slot[i]) != c->dep_gen[i])
			return false;
	f->epoch = w->epoch;
	return true;
}

static inline bool is_fresh(struct worker *w, struct flow *f)
{
	return likely(f->epoch == w->epoch) || still_right(w, f);
}

static void refresh(struct worker *w, struct flow *f)
{
	f->refreshed_ms = w->now_ms;
	for (unsigned i = 0; i < stage_count(); i++) {
		struct stage *s = stage_get((uint8_t)i);

		if (s->refresh)
			s->refresh(w, f);
	}
}

static inline void apply(struct worker *w, struct rte_mbuf *m, struct flow *f)
{
	struct pkt *p = pkt_of(m);

	p->decision = f->decision;
	p->stages = f->stages;
	f->packets++;
	f->bytes += m->pkt_len;
	f->used_ms = w->now_ms;
	if (unlikely(w->now_ms - f->refreshed_ms >= REFRESH_MS) && !(f->flags & FLOW_UNCACHED))
		refresh(w, f);
}

// What the stages' run needs of the flow beyond the decision.
static inline void hand_on(struct rte_mbuf *m, const struct flow *f)
{
	m->hash.usr = f->actions;
	m->hash.fdir.hi = f->adj;
}

// ---- misses

static inline uint16_t *guard_of(struct port_worker *pw, uint64_t hash)
{
	return &pw->guard[hash & (MISS_GUARDS - 1)];
}

static void miss_push(struct worker *w, struct port_worker *pw, struct rte_mbuf *m, uint64_t hash)
{
	struct pkt *p = pkt_of(m);

	if (unlikely(pw->miss_n >= w->miss_limit)) {
		w->tally.full++;
		w->tally.full_port = p->in_port;
		w->tally.full_tx = false;
		worker_drop(w, m, FLOW_REASON(RESOLVE_QUEUE));
		return;
	}
	p->hash = (uint32_t)hash; // for the guard, when it leaves; parse starts afresh then
	++*guard_of(pw, hash);
	pw->miss[(pw->miss_head + pw->miss_n++) & (MISS_MAX - 1)] = m;
	w->tally.misses++;
	worker_count(w, p->origin, COUNT_QUEUED, 1);
}

static struct rte_mbuf *miss_pop(struct worker *w, struct port_worker *pw)
{
	struct rte_mbuf *m = pw->miss[pw->miss_head++ & (MISS_MAX - 1)];

	pw->miss_n--;
	w->tally.misses--;
	--*guard_of(pw, pkt_of(m)->hash);
	worker_count(w, pkt_of(m)->origin, COUNT_QUEUED, (uint64_t)-1);
	return m;
}

bool forward_hold(struct worker *w, uint16_t port)
{
	struct port_worker *pw = worker_port(w, port);

	if (!pw || !pw->miss_n || pw->miss_n + BURST <= w->miss_limit)
		return false;
	if (w->now_ms - pw->full_last_ms > HOLD_REST_MS)
		pw->full_ms = w->now_ms;
	pw->full_last_ms = w->now_ms;
	return w->now_ms - pw->full_ms < HOLD_MS;
}

// Most are resolved in the very round in which they came; a trace says which were not.
static void trace_waiting(struct port_worker *pw, uint64_t since)
{
	for (unsigned i = 0; i < pw->miss_n; i++) {
		struct pkt *p = pkt_of(pw->miss[(pw->miss_head + i) & (MISS_MAX - 1)]);

		if (p->trace && p->rx_tsc == since)
			forward_trace(p->trace, CORE_WAIT, 0);
	}
}

unsigned forward_misses(struct worker *w, uint16_t port)
{
	struct port_worker *pw = worker_port(w, port);
	const struct lport *lp = lport_get(port);
	unsigned budget = w->resolve_budget, before = budget;

	if (!pw || !pw->miss_n)
		return 0;
	if (!lp) {
		forward_drain(w, port);
		return 0;
	}
	w->epoch = gen_read_epoch();
	bool measured = INSTRUMENTS && !--pw->load.turns_left;
	uint64_t cycles = 0;
	while (pw->miss_n && budget) {
		struct rte_mbuf *ready[BURST];
		unsigned n = 0;

		if (unlikely(measured))
			cycles -= rte_rdtsc();

		while (n < BURST && pw->miss_n && budget) {
			struct rte_mbuf *m = miss_pop(w, pw);
			struct lookup l;
			struct flow *f, scratch;

			pkt_reset(pkt_of(m));
			if (!prepare(w, lp, &m, &l.whole, &l.key, &l.len, &l.hash))
				continue;
			flow_table_lookup(w->flows, &l.key, &l.len, &l.hash, 1, &f);
			if (!f || !is_fresh(w, f)) {
				f = forward_resolve(w, m, &l, f, &scratch);
				budget--;
			} else if (unlikely(pkt_of(m)->trace)) {
				forward_trace_hit(w, m, &l.whole, f);
			}
			apply(w, m, f);
			hand_on(m, f);
			ready[n++] = m;
		}
		if (unlikely(measured))
			cycles += rte_rdtsc();
		worker_lap(w, CYCLES_RESOLVE, n);
		forward_run(w, ready, n);
	}
	if (measured)
		pw->load.turns_left = RESOLVE_EVERY;
	if (INSTRUMENTS)
		load_resolved(&pw->load, before - budget, cycles);
	return pw->miss_n;
}

void forward_drain(struct worker *w, uint16_t port)
{
	struct port_worker *pw = worker_port(w, port);

	while (pw && pw->miss_n)
		worker_drop(w, miss_pop(w, pw), FLOW_REASON(PORT_GONE));
}

// ---- bursts

// A hit that is traced: its whole key once more, which the burst didn't keep.
static __rte_noinline void trace_burst_hit(struct worker *w, struct rte_mbuf *m, struct flow *f)
{
	const struct lport *lp = lport_get(pkt_of(m)->in_port);
	struct flow_key whole;

	pkt_reset(pkt_of(m));
	parse(m, &whole);
	if (lp)
		set_arrival(lp, m, &whole);
	forward_trace_hit(w, m, &whole, f);
}

// A burst on its way to decisions.
struct burst {
	struct flow_key key[BURST];
	uint64_t hash[BURST];
	struct flow *flow[BURST];
	struct rte_mbuf *m[BURST];
	uint8_t len[BURST];
	unsigned n;
	// What common packets of the port have in common.
	const struct profile *pr; // of what is untagged
	uint64_t word0;           // first word of their keys
	struct pkt blank;         // their struct pkt before it is parsed
};

static_assert(offsetof(struct flow_key, port) == 0 && offsetof(struct flow_key, profile) == 2 && offsetof(struct flow_key, vlan) == 4 &&
		      offsetof(struct flow_key, ethertype) == 6 && offsetof(struct flow_key, dst) == 8 && offsetof(struct flow_key, class) == 20 &&
		      offsetof(struct flow_key, proto) == 21 && offsetof(struct flow_key, sport) == 24 && offsetof(struct flow_key, tos) == 28 &&
		      offsetof(struct flow_key, v4) == 32 && offsetof(struct flow_key, v6) == 32 && RTE_BYTE_ORDER == RTE_LITTLE_ENDIAN,
	      "prepare_common() and prepare_common6() make the key's words by themselves");

// The key of a packet that parse_common() knows, made word by word: bytes written one by one and read as words would stall the load.
static inline void prepare_common(struct burst *b, const uint8_t *d, unsigned class, uint8_t proto)
{
	const struct profile *pr = b->pr; // read once: as far as the compiler knows, a key may be anywhere
	const key_word *mask = (const key_word *)(const void *)&pr->mask;
	const unsigned n = b->n, len = pr->len;
	key_word *k = (key_word *)(void *)&b->key[n];
	uint64_t addresses;
	uint32_t tail, ports;

	memcpy(&k[1], d, 8);
	memcpy(&tail, d + 8, 4);
	k[0] = b->word0;
	k[2] = (tail | (uint64_t)class << 32 | (uint64_t)proto << 40) & mask[2];
	b->len[n] = (uint8_t)len;
	if (len > KEY_LEN_L2) {
		memcpy(&ports, d + 34, 4);
		memcpy(&addresses, d + 26, 8);
		k[3] = (ports | (uint64_t)(d[15] & 0xfc) << 32) & mask[3];
		k[4] = addresses & mask[4];
		b->hash[n] = key_hash(&b->key[n], KEY_LEN_V4);
	} else {
		b->hash[n] = key_hash(&b->key[n], KEY_LEN_L2);
	}
}

// The same of a packet that parse_common6() knows.
static inline void prepare_common6(struct burst *b, const uint8_t *d, unsigned class, uint8_t proto)
{
	const struct profile *pr = b->pr;
	const key_word *mask = (const key_word *)(const void *)&pr->mask;
	const unsigned n = b->n, len = pr->len_ipv6;
	key_word *k = (key_word *)(void *)&b->key[n];
	uint64_t word;
	uint32_t tail, ports;

	memcpy(&k[1], d, 8);
	memcpy(&tail, d + 8, 4);
	k[0] = (b->word0 & 0xffffffffffff) | (uint64_t)RTE_STATIC_BSWAP16(0x86dd) << 48;
	k[2] = (tail | (uint64_t)class << 32 | (uint64_t)proto << 40) & mask[2];
	b->len[n] = (uint8_t)len;
	if (len > KEY_LEN_L2) {
		memcpy(&ports, d + 54, 4);
		k[3] = (ports | (uint64_t)((d[14] << 4 | d[15] >> 4) & 0xfc) << 32) & mask[3];
		for (unsigned i = 0; i < 4; i++) {
			memcpy(&word, d + 22 + 8 * i, 8);
			k[4 + i] = word & mask[4 + i];
		}
		b->hash[n] = key_hash(&b->key[n], KEY_LEN_V6);
	} else {
		b->hash[n] = key_hash(&b->key[n], KEY_LEN_L2);
	}
}

// False: what the guest asks for can't be; the packet is dropped.
static __rte_noinline bool prepare_offload(struct worker *w, struct rte_mbuf *m, struct pkt *p)
{
	parse_offload(m, p);
	if (p->drop)
		worker_drop(w, m, p->drop);
	return !p->drop;
}

// How many packets that makes, 0 or 1; -1: the packet isn't one that parse_common6() knows. A function of its own, so that it costs IPv4 nothing.
static __rte_noinline int prepare_ipv6(struct worker *w, struct burst *b, struct rte_mbuf *m, const uint8_t *d)
{
	struct pkt *p = pkt_of(m);
	int class = parse_common6(d, m->data_len, m->pkt_len, p);

	if (unlikely(class < 0))
		return class;
	if (unlikely(parse_wants_offload(m)) && !prepare_offload(w, m, p))
		return 0;
	prepare_common6(b, d, (unsigned)class, p->proto);
	return 1;
}

// A packet that is traced, whatever it is, takes the long way.
static __rte_noinline void prepare_traced(struct worker *w, struct burst *b, const struct lport *lp, struct rte_mbuf *m, struct trace *t)
{
	struct flow_key whole;

	*pkt_of(m) = b->blank;
	pkt_of(m)->trace = t;
	b->m[b->n] = m;
	if (prepare(w, lp, &b->m[b->n], &whole, &b->key[b->n], &b->len[b->n], &b->hash[b->n]))
		b->n++;
}

// Fills b with the packets that are well-formed, and their keys. None is traced.
static __rte_noinline void prepare_burst(struct worker *w, struct burst *b, const struct lport *lp, struct rte_mbuf **m, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct pkt *p = pkt_of(m[i]);
		const uint8_t *d = rte_pktmbuf_mtod(m[i], const uint8_t *);
		struct flow_key whole;
		uint16_t type;
		int class;

		*p = b->blank;
		b->m[b->n] = m[i];
		if (likely((class = parse_common(d, m[i]->data_len, m[i]->pkt_len, p)) >= 0)) {
			if (unlikely(parse_wants_offload(m[i])) && !prepare_offload(w, m[i], p))
				continue;
			prepare_common(b, d, (unsigned)class, p->proto);
			b->n++;
			continue;
		}
		memcpy(&type, d + 12, 2); // there is room for it in any buffer
		if (type == RTE_STATIC_BSWAP16(0x86dd) && (class = prepare_ipv6(w, b, m[i], d)) >= 0) {
			b->n += (unsigned)class;
			continue;
		}
		if (likely(prepare(w, lp, &b->m[b->n], &whole, &b->key[b->n], &b->len[b->n], &b->hash[b->n])))
			b->n++;
	}
}

// The same where the packets with a bit in `traced` have a trace in t[].
static __rte_noinline void prepare_mixed(struct worker *w, struct burst *b, const struct lport *lp, struct rte_mbuf **m, unsigned n, uint32_t traced,
					 struct trace **t)
{
	unsigned from = 0;

	for (; traced; traced &= traced - 1) {
		unsigned to = (unsigned)__builtin_ctz(traced);

		prepare_burst(w, b, lp, m + from, to - from);
		prepare_traced(w, b, lp, m[to], t[to]);
		from = to + 1;
	}
	prepare_burst(w, b, lp, m + from, n - from);
}

// `vlan`: as in the key, of packets without a tag.
static void start_burst(struct burst *b, const struct lport *lp, uint16_t vlan, uint64_t tsc)
{
	struct membership in = lport_classify(lp, vlan);

	b->n = 0;
	memset(&b->blank, 0, sizeof b->blank);
	b->blank.in_port = b->blank.origin = lp->id;
	b->blank.rx_tsc = tsc;
	b->blank.network = in.network;
	b->pr = profile_get(in.profile);
	b->word0 = lp->id | (uint64_t)in.profile << 16 | (uint64_t)vlan << 32 | (uint64_t)RTE_STATIC_BSWAP16(0x0800) << 48;
}

// A packet that only needs to be sent: straight into the batch of its port. Others of the same burst may leave after it, but none of its flow.
static inline struct port_worker *send_direct(struct worker *w, struct port_worker *out, struct rte_mbuf *m, const struct flow *f)
{
	if (unlikely(!out || out->id != f->out)) {
		out = worker_port(w, f->out);
		if (unlikely(!out)) {
			worker_tx(w, &m, 1); // counts it as lost
			return NULL;
		}
		if (!out->tx_dirty) {
			out->tx_dirty = true;
			w->tx_dirty[w->n_tx_dirty++] = out->id;
		}
		if (!out->tx_n)
			out->tx_origin = pkt_of(m)->origin;
		else if (out->tx_origin != pkt_of(m)->origin)
			out->tx_same = 0; // never again tx_n, before the batch leaves
	}
	out->tx[out->tx_n++] = m;
	out->tx_same++;
	out->tx_bytes += m->pkt_len;
	if (unlikely(out->tx_n == TX_BATCH)) {
		worker_lap(w, CYCLES_SERVE, 0);
		w->flush(w, out);
		return NULL; // the next packet begins a batch, and says of which origin that is
	}
	return out;
}

// The packet goes on to the next link: its headers are its own, as it has just come from its device. False: its header's checksum is wrong; it is dropped.
static inline bool route_direct(struct worker *w, struct rte_mbuf *m, const struct flow *f)
{
	if (likely(adjacency_apply(rte_pktmbuf_mtod(m, uint8_t *), pkt_of(m)->l3_ofs, adjacency_get(f->adj))))
		return true;
	worker_drop(w, m, FLOW_REASON(CHECKSUM));
	return false;
}

// Serves what cached flows serve, queues the rest.
static void serve_burst(struct worker *w, struct port_worker *pw, struct burst *b)
{
	struct port_worker *out = NULL;
	// Stages that are captured at are to be seen at work.
	const uint16_t direct = INSTRUMENTS && unlikely(w->watch & WATCH(CAPTURE_STAGE)) ? 0 : FLOW_DIRECT;
	unsigned hits = 0, k = 0;

	for (unsigned i = 0; i < b->n; i++) {
		struct flow *f = b->flow[i];
		struct rte_mbuf *m = b->m[i];
		struct pkt *p = pkt_of(m);

		if (unlikely(!f || !is_fresh(w, f) || (pw->miss_n && *guard_of(pw, b->hash[i])))) {
			miss_push(w, pw, m, b->hash[i]);
			continue;
		}
		hits++;
		if (unlikely(p->trace))
			trace_burst_hit(w, m, f);
		apply(w, m, f);
		if (unlikely(!(f->flags & direct) || p->seg_len > f->mtu)) {
			hand_on(m, f);
			b->m[k++] = m;
		} else if (likely(!p->trace)) {
			if (f->adj && unlikely(!route_direct(w, m, f)))
				continue;
			out = send_direct(w, out, m, f);
		} else {
			// It goes through all the stages, and does so at once, or the rest of its flow would overtake it.
			hand_on(m, f);
			forward_run(w, &m, 1);
			out = NULL; // its batch may have left
		}
	}
	worker_count(w, pw->id, COUNT_CACHE_HIT, hits);
	worker_lap(w, CYCLES_SERVE, b->n);
	if (k)
		forward_run(w, b->m, k);
}

static __rte_noinline uint32_t mark(struct worker *w, struct tracer *tracer, uint16_t port, struct rte_mbuf **m, unsigned n, uint64_t tsc,
				    struct trace **t)
{
	uint32_t traced = w->mark(w, tracer, port, m, n, t);

	for (uint32_t left = traced; left; left &= left - 1)
		t[__builtin_ctz(left)]->start = tsc;
	return traced;
}

// Some instrument is on. Returns the tracer, if one is.
static __rte_noinline struct tracer *watch_burst(struct worker *w, uint16_t port, struct rte_mbuf **m, unsigned n)
{
	if (w->watch & WATCH(CAPTURE_RX))
		w->capture(w, CAPTURE_RX, port, m, n, 0, 0);
	return w->watch & WATCH_TRACE ? rcu_read(w->tracer) : NULL;
}

static inline void count_burst(struct worker *w, uint16_t port, struct rte_mbuf **m, unsigned n)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < n; i++)
		bytes += m[i]->pkt_len;
	worker_count(w, port, COUNT_RX, n);
	worker_count(w, port, COUNT_RX_BYTES, bytes);
}

static __rte_noinline void drop_burst(struct worker *w, uint16_t port, struct rte_mbuf **m, unsigned n, uint32_t traced, struct trace **trace)
{
	for (unsigned i = 0; i < n; i++) {
		memset(pkt_of(m[i]), 0, sizeof(struct pkt));
		pkt_of(m[i])->in_port = pkt_of(m[i])->origin = port;
		if (traced >> i & 1)
			pkt_of(m[i])->trace = trace[i];
		worker_drop(w, m[i], FLOW_REASON(PORT_GONE));
	}
}

// A burst that is counted. `vlan`: as in the key, of packets without a tag.
static inline void decide_burst(struct worker *w, struct port_worker *pw, const struct lport *lp, uint16_t vlan, struct rte_mbuf **m, unsigned n,
				uint64_t tsc, uint32_t traced, struct trace **trace)
{
	struct burst b;

	start_burst(&b, lp, vlan, tsc);
	if (likely(!traced))
		prepare_burst(w, &b, lp, m, n);
	else
		prepare_mixed(w, &b, lp, m, n, traced, trace);
	worker_lap(w, CYCLES_PARSE, n);
	flow_table_lookup(w->flows, b.key, b.len, b.hash, b.n, b.flow);
	worker_lap(w, CYCLES_LOOKUP, b.n);
	serve_burst(w, pw, &b);
	if (unlikely(pw->miss_n))
		forward_misses(w, lp->id);
	if (unlikely(traced))
		trace_waiting(pw, tsc);
}

void forward_burst(struct worker *w, uint16_t port, struct rte_mbuf **m, unsigned n)
{
	struct port_worker *pw = worker_port(w, port);
	const struct lport *lp = lport_get(port);
	uint32_t watch = INSTRUMENTS ? w->watch : 0;
	struct tracer *tracer = unlikely(watch) ? watch_burst(w, port, m, n) : NULL;
	uint64_t tsc = rte_rdtsc();
	struct trace *trace[BURST];
	uint32_t traced = unlikely(tracer) ? mark(w, tracer, port, m, n, tsc, trace) : 0;

	w->epoch = gen_read_epoch();
	count_burst(w, port, m, n);
	if (unlikely(!lp || !pw)) {
		drop_burst(w, port, m, n, traced, trace);
		return;
	}
	if (unlikely(lp->underlay)) {
		n = tunnel_receive(w, lp, m, n, tsc, &traced, trace);
		if (!n && !pw->miss_n)
			return;
	}
	decide_burst(w, pw, lp, 0, m, n, tsc, traced, trace);
}

void forward_arrived(struct worker *w, uint16_t port, uint16_t network, struct rte_mbuf **m, unsigned n, uint64_t tsc, uint32_t traced, struct trace **t)
{
	struct port_worker *pw = worker_port(w, port);
	const struct lport *lp = lport_get(port);
	uint32_t watch = INSTRUMENTS ? w->watch : 0;
	struct tracer *tracer = unlikely(watch) ? watch_burst(w, port, m, n) : NULL;

	// One that was marked as it came in goes on with the trace that it has.
	if (unlikely(tracer && !traced))
		traced = mark(w, tracer, port, m, n, tsc, t);
	count_burst(w, port, m, n);
	if (unlikely(!lp || !pw))
		drop_burst(w, port, m, n, traced, t);
	else
		decide_burst(w, pw, lp, KEY_VLAN_NETWORK | network, m, n, tsc, traced, t);
}

void forward_again(struct worker *w, struct rte_mbuf *m)
{
	uint16_t port = pkt_of(m)->in_port;
	struct port_worker *pw = worker_port(w, port);

	w->epoch = gen_read_epoch();
	if (unlikely(!pw || !lport_get(port))) {
		worker_drop(w, m, FLOW_REASON(PORT_GONE));
		return;
	}
	miss_push(w, pw, m, 0);
	while (forward_misses(w, port)) // nobody may ever poll the port
		;
}

void forward_explain(struct worker *w, uint16_t port, struct rte_mbuf *m, struct effect *overlay, uint8_t *n_overlay)
{
	const struct lport *lp = lport_get(port);
	struct trace *t = pkt_of(m)->trace;
	struct flow_cold cold;
	struct flow flow;
	struct resolve r;
	struct lookup l;

	pkt_of(m)->in_port = pkt_of(m)->origin = port;
	w->epoch = gen_read_epoch();
	if (!lp) {
		worker_drop(w, m, FLOW_REASON(PORT_GONE));
		return;
	}
	if (lp->underlay) {
		port = tunnel_unwrap(w, lp, &m);
		if (!port)
			return;
		lp = lport_get(port);
		if (!lp) {
			worker_drop(w, m, FLOW_REASON(PORT_GONE));
			return;
		}
		pkt_of(m)->in_port = pkt_of(m)->origin = port;
	}
	if (!prepare(w, lp, &m, &l.whole, &l.key, &l.len, &l.hash))
		return;
	resolve_start(&r, w, m, &l.whole, &flow, &cold);
	r.trace = t;
	r.overlay = overlay;
	r.n_overlay = *n_overlay;
	resolve_run(&r);
	for (unsigned i = 0; i < r.n_effects && *n_overlay < EFFECTS_MAX; i++)
		overlay[(*n_overlay)++] = r.effect[i];
	flow.flags |= FLOW_UNCACHED;
	apply(w, m, &flow);
	hand_on(m, &flow);
	forward_run(w, &m, 1);
}
