// forward: see forward.h.
#include "forward.h"
#include "parse.h"
#include "rewrite.h"
#include "row.h"
#include "vlan.h"

#include <errno.h>
#include <string.h>
#include <rte_branch_prediction.h>
#include <rte_cycles.h>
#include <rte_prefetch.h>

uint16_t forward_reason_base;

static const struct reason reason_rows[] = {FORWARD_REASONS(REASON_ROW)};
static uint64_t ingress_stages, egress_stages, egress_runs;

#define FLOW_REASON(name) ((uint16_t)(forward_reason_base + flow_##name))
#define REFRESH_MS 1000

// One packet on its way to a decision.
struct lookup {
	struct flow_key whole; // as parsed
	struct flow_key key;   // masked by its profile
	uint64_t hash;
	uint8_t len;
};

void forward_init(void)
{
	forward_reason_base = reason_register(reason_rows, FORWARD_REASON_N);
	ingress_stages = egress_stages = egress_runs = 0;
	for (unsigned i = 0; i < stage_count(); i++) {
		const struct stage *s = stage_get((uint8_t)i);

		*(s->egress ? &egress_stages : &ingress_stages) |= 1ULL << i;
		if (s->egress && s->run)
			egress_runs |= 1ULL << i;
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

static void trace_decision(struct trace *t, uint8_t kind, const struct flow *f, uint32_t index)
{
	struct core_record r = {
		.kind = kind,
		.out_kind = f->out_kind,
		.port = f->out,
		.reason = f->out,
		.network = f->network,
		.vlan_op = f->vlan_op,
		.vlan_tci = f->vlan_tci,
		.stages = f->stages,
		.flow = index,
	};
	trace_put(t, TRACE_CORE, &r, sizeof r);
}

static void trace_kind(struct trace *t, uint8_t kind, uint16_t port)
{
	struct core_record r = {.kind = kind, .port = port};

	trace_put(t, TRACE_CORE, &r, sizeof r);
}

static void trace_lost(struct trace *t, uint16_t port)
{
	struct core_record r = {.kind = CORE_DROPPED, .port = port, .reason = FLOW_REASON(NO_MEMORY)};

	trace_put(t, TRACE_CORE, &r, sizeof r);
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

// Parses *m (which may get another head) and makes its whole key and the one masked by its profile. False: it was malformed and is dropped.
static inline bool prepare(struct worker *w, const struct lport *lp, struct rte_mbuf **m, struct flow_key *whole, struct flow_key *key,
			   uint8_t *len, uint64_t *hash)
{
	int rc = parse(*m, whole);
	struct pkt *p = pkt_of(*m);

	if (unlikely(rc || p->trace || p->drop) && !prepare_rest(w, m, whole, rc))
		return false;
	struct membership in = lport_classify(lp, whole->vlan);
	const struct profile *pr = profile_get(in.profile);
	pkt_of(*m)->network = in.network;
	whole->profile = in.profile;
	*len = (uint8_t)key_len(pr, whole->ethertype);
	key_mask(key, whole, pr, *len);
	*hash = key_hash(key, *len);
	return true;
}

// ---- decisions

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

// The rows that the stage named, behind its own line.
static void trace_because(struct resolve *r)
{
	for (unsigned i = 0; i < r->cold->n_prov; i++) {
		struct core_record rec = {.kind = CORE_BECAUSE, .row = r->cold->prov_row[i]};

		if (r->because & 1u << i)
			trace_put(r->trace, TRACE_CORE, &rec, sizeof rec);
	}
	r->because = 0;
}

static void run_resolve(struct resolve *r)
{
	struct flow *f = r->flow;

	f->stages = ingress_stages | egress_stages;
	f->aux = UINT32_MAX;
	resolve_depend(r, GEN_CONFIG, 0);
	// The port once more, now that its generation is noted: the one that the key was made with may have been replaced meanwhile.
	resolve_depend(r, GEN_PORT, r->pkt->in_port);
	r->in = lport_get(r->pkt->in_port);
	if (unlikely(!r->in)) {
		f->stages = 0;
		f->out_kind = OUT_DROP;
		f->out = FLOW_REASON(PORT_GONE);
		return;
	}
	r->pkt->network = lport_classify(r->in, r->key->vlan).network;
	for (unsigned i = 0; i < stage_count(); i++) {
		struct stage *s = stage_get((uint8_t)i);

		r->stage = (uint8_t)i;
		if (!s->run)
			f->stages &= ~(1ULL << i);
		uint16_t reason = s->resolve ? s->resolve(r) : 0;
		if (unlikely(r->trace))
			trace_because(r);
		if (reason) {
			f->out_kind = OUT_DROP;
			f->out = reason;
			// What ran before still does: a meter counts what is dropped later.
			f->stages &= (r->keeps_bit ? 2ULL << i : 1ULL << i) - 1;
			break;
		}
	}
	if (f->out_kind == OUT_NONE) {
		f->out_kind = OUT_DROP;
		f->out = FLOW_REASON(NO_OUTPUT);
	}
	if (f->out_kind == OUT_DROP)
		f->vlan_op = VLAN_OP_NONE;
	f->network = r->pkt->network;
	if (r->trace)
		trace_decision(r->trace, CORE_DECIDED, f, 0);
}

static void resolve_start(struct resolve *r, struct worker *w, struct rte_mbuf *m, const struct flow_key *key, struct flow *f,
			  struct flow_cold *c)
{
	memset(f, 0, sizeof *f);
	c->n_deps = c->n_prov = 0;
	*r = (struct resolve){.w = w, .pkt = pkt_of(m), .key = key, .flow = f, .cold = c, .tag = TAG_OF_PORT};
	f->epoch = gen_read_epoch(); // before anything is looked up
}

// Effects that bumped a generation which this very decision depends on leave it fresh.
static void commit(struct resolve *r)
{
	for (unsigned i = 0; i < r->n_effects; i++) {
		struct stage *s = stage_get(r->effect[i].stage);

		if (s->commit)
			s->commit(r->w, r, &r->effect[i]);
	}
}

// Moves the decision into the table: into `old` if there is one, else into a new record. Returns the record, or `f` if it isn't cached.
static struct flow *keep(struct resolve *r, const struct lookup *l, struct flow *old)
{
	struct worker *w = r->w;
	struct flow *f = r->flow;
	uint32_t beyond = r->fields & ~profile_get(l->key.profile)->fields;

	if (unlikely(beyond))
		worker_count(w, r->pkt->in_port, COUNT_BEYOND_PROFILE, 1);
	if (unlikely(beyond || (f->flags & FLOW_UNCACHED))) {
		worker_count(w, r->pkt->in_port, COUNT_UNCACHED, 1);
		if (old)
			flow_table_remove(w->flows, old);
		f->flags |= FLOW_UNCACHED;
		return f;
	}
	struct flow *record = old ? old : flow_table_insert(w->flows, &l->key, l->len, l->hash, w->now_ms);
	if (unlikely(!record)) {
		worker_count(w, r->pkt->in_port, COUNT_UNCACHED, 1);
		f->flags |= FLOW_UNCACHED;
		return f;
	}
	flow_decide(w->flows, record, f, r->cold);
	return record;
}

static struct flow *resolve_packet(struct worker *w, struct rte_mbuf *m, struct lookup *l, struct flow *old, struct flow *scratch)
{
	struct flow_cold cold;
	struct resolve r;

	resolve_start(&r, w, m, &l->whole, scratch, &cold);
	r.trace = pkt_of(m)->trace;
	if (unlikely(r.trace))
		trace_kind(r.trace, CORE_MISS, 0);
	run_resolve(&r);
	commit(&r);
	worker_count(w, pkt_of(m)->in_port, COUNT_RESOLVED, 1);
	return keep(&r, l, old);
}

// A traced packet that a cached flow serves: shows how the decision came about, by making it once more, and holds both to each other.
static void trace_hit(struct worker *w, struct rte_mbuf *m, const struct flow_key *whole, struct flow *f)
{
	struct pkt *p = pkt_of(m);
	struct flow again;
	struct flow_cold cold;
	struct resolve r;

	trace_decision(p->trace, CORE_HIT, f, flow_index(w->flows, f));
	resolve_start(&r, w, m, whole, &again, &cold);
	r.trace = p->trace;
	run_resolve(&r);
	if ((again.out_kind != f->out_kind || again.out != f->out || again.vlan_op != f->vlan_op || again.stages != f->stages ||
	     again.rule != f->rule || again.actions != f->actions) &&
	    gen_read_epoch() == w->epoch)
		trace_decision(p->trace, CORE_DIFFERS, &again, 0);
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

// ---- stages

// Bytes of headers that are made a packet's own before they are changed.
static uint16_t headers_of(const struct pkt *p)
{
	// Of headers too long for one buffer the tags will do: no offload can be asked for behind them.
	return (uint16_t)(p->l4_ofs && p->l4_ofs <= PARSE_HEADERS_MAX ? p->l4_ofs + 64 : 128);
}

// Gives the packets that have the stage's bit headers of their own, which may make them other packets.
static __rte_noinline void own_headers(struct worker *w, struct pkt **p, unsigned n, uint64_t bit)
{
	for (unsigned i = 0; i < n; i++) {
		if (!(p[i]->stages & bit) || p[i]->drop)
			continue;
		struct rte_mbuf *own = pkt_own_headers(pkt_mbuf(p[i]), headers_of(p[i]), w->pool);

		if (likely(own))
			p[i] = pkt_of(own);
		else
			p[i]->drop = FLOW_REASON(NO_MEMORY);
	}
}

// May put other packets into p[], in the place of the same ones.
static void run_stages(struct worker *w, struct pkt **p, unsigned n, uint64_t which)
{
	uint64_t all = 0;

	for (unsigned i = 0; i < n; i++)
		all |= p[i]->stages;
	for (all &= which; all; all &= all - 1) {
		uint64_t bit = all & -all;
		const struct stage *s = stage_get((uint8_t)__builtin_ctzll(bit));
		struct pkt *mine[BURST];
		uint16_t k = 0;

		if (unlikely(s->writes))
			own_headers(w, p, n, bit);
		for (unsigned i = 0; i < n; i++)
			if ((p[i]->stages & bit) && !p[i]->drop)
				mine[k++] = p[i];
		if (k)
			s->run(w, mine, k);
	}
}

// The outer tag as the egress port wants it, on headers of the packet's own.
static struct rte_mbuf *rewrite(struct worker *w, struct rte_mbuf *m)
{
	struct pkt *p = pkt_of(m);
	struct rte_mbuf *own = pkt_own_headers(m, headers_of(p), w->pool);

	if (unlikely(!own)) {
		worker_drop(w, m, FLOW_REASON(NO_MEMORY));
		return NULL;
	}
	p = pkt_of(own);
	p->vlan_tci = (uint16_t)((p->tci & 0xf000) | (p->vlan_tci & 0xfff));
	if (unlikely(pkt_apply_vlan(own))) {
		worker_drop(w, own, FLOW_REASON(NO_MEMORY));
		return NULL;
	}
	return own;
}

// Packets whose egress port is known.
static void run_egress(struct worker *w, struct pkt **p, unsigned n)
{
	struct rte_mbuf *out[BURST];
	unsigned k = 0;

	run_stages(w, p, n, egress_stages);
	for (unsigned i = 0; i < n; i++) {
		struct rte_mbuf *m = pkt_mbuf(p[i]);

		if (unlikely(p[i]->drop)) {
			worker_drop(w, m, p[i]->drop);
			continue;
		}
		if (unlikely(p[i]->vlan_op != VLAN_OP_NONE)) {
			m = rewrite(w, m);
			if (!m)
				continue;
		}
		out[k++] = m;
	}
	worker_tx(w, out, k);
}

static void egress_to(struct rte_mbuf *m, const struct lport *in, const struct lport *out, const struct network *net, int tag, uint8_t kind)
{
	struct pkt *p = pkt_of(m);
	struct vlan_change c = vlan_between(in, out, net, p->n_tags > 0, tag);

	p->out = out->id;
	p->vlan_op = c.op;
	p->vlan_tci = c.vid;
	p->qinq = c.qinq;
	if (unlikely(p->trace))
		trace_kind(p->trace, kind, out->id);
}

void forward_copy(struct worker *w, struct pkt *p, const struct lport *out, int tag, const struct rewrite *set, unsigned n)
{
	const struct network *net = network_get(p->network);
	const struct lport *in = lport_get(p->in_port);
	struct rte_mbuf *c = net && in ? pkt_clone(pkt_mbuf(p), w->pool) : NULL;
	// What is done to the packet itself later would change a copy that shares its headers.
	struct rte_mbuf *own = c ? pkt_own_headers(c, headers_of(p), w->pool) : NULL;

	worker_count(w, p->origin, COUNT_COPIES, 1);
	if (unlikely(!own)) {
		rte_pktmbuf_free(c);
		worker_lose(w, p->origin, net && in ? FLOW_REASON(NO_MEMORY) : FLOW_REASON(NETWORK_GONE));
		if (unlikely(p->trace))
			trace_lost(p->trace, out->id);
		return;
	}
	struct pkt *copy = pkt_of(own);
	trace_ref(p->trace);
	copy->stages = egress_runs;
	copy->out_kind = OUT_PORT;
	egress_to(own, in, out, net, tag, CORE_FURTHER);
	rewrite_apply(own, set, n);
	run_egress(w, &copy, 1);
}

// One copy for each port of the network but the packet's own; the last one is the packet itself. The payload is shared.
static void flood(struct worker *w, struct pkt *p)
{
	const struct network *net = network_get(p->out);
	const struct lport *in = lport_get(p->in_port);
	struct rte_mbuf *m = pkt_mbuf(p);
	const struct lport *last = NULL;
	int tag = p->vlan_op == VLAN_OP_GIVEN ? p->vlan_tci : TAG_OF_PORT;
	struct pkt *batch[BURST];
	unsigned n = 0;

	if (unlikely(!net || !in)) {
		worker_drop(w, m, FLOW_REASON(NETWORK_GONE));
		return;
	}
	for (uint32_t i = 0; i < net->n_targets; i++) {
		const struct flood_target *t = &net->target[i];
		const struct lport *out = t->port == p->in_port || (t->isolated && in->isolated) ? NULL : lport_get(t->port);

		if (!out)
			continue;
		if (last) {
			struct rte_mbuf *c = pkt_clone(m, w->pool);

			if (likely(c)) {
				trace_ref(p->trace);
				worker_count(w, p->origin, COUNT_COPIES, 1);
				egress_to(c, in, last, net, tag, CORE_COPY);
				batch[n++] = pkt_of(c);
			} else { // A copy that could not be made is a copy that was lost.
				worker_count(w, p->origin, COUNT_COPIES, 1);
				worker_lose(w, p->origin, FLOW_REASON(NO_MEMORY));
				if (unlikely(p->trace))
					trace_lost(p->trace, last->id);
			}
			if (n == BURST) {
				run_egress(w, batch, n);
				n = 0;
			}
		}
		last = out;
	}
	if (unlikely(!last)) {
		worker_drop(w, m, FLOW_REASON(NOBODY));
	} else {
		egress_to(m, in, last, net, tag, CORE_COPY);
		batch[n++] = p;
	}
	run_egress(w, batch, n);
}

// Packets with their decisions, n <= BURST, in order.
static void run_batch(struct worker *w, struct rte_mbuf **m, unsigned n)
{
	struct pkt *p[BURST], *out[BURST];
	unsigned k = 0;

	for (unsigned i = 0; i < n; i++)
		p[i] = pkt_of(m[i]);
	run_stages(w, p, n, ingress_stages);
	for (unsigned i = 0; i < n; i++) {
		if (unlikely(p[i]->drop)) {
			worker_drop(w, pkt_mbuf(p[i]), p[i]->drop);
		} else if (likely(p[i]->out_kind == OUT_PORT)) {
			out[k++] = p[i];
		} else if (p[i]->out_kind == OUT_FLOOD) {
			// What came before it leaves before it.
			run_egress(w, out, k);
			k = 0;
			flood(w, p[i]);
		} else {
			worker_drop(w, pkt_mbuf(p[i]), p[i]->out);
		}
	}
	run_egress(w, out, k);
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
		worker_drop(w, m, FLOW_REASON(RESOLVE_QUEUE));
		return;
	}
	p->hash = (uint32_t)hash; // for the guard, when it leaves; parse starts afresh then
	++*guard_of(pw, hash);
	pw->miss[(pw->miss_head + pw->miss_n++) & (MISS_MAX - 1)] = m;
	worker_count(w, p->origin, COUNT_QUEUED, 1);
}

static struct rte_mbuf *miss_pop(struct worker *w, struct port_worker *pw)
{
	struct rte_mbuf *m = pw->miss[pw->miss_head++ & (MISS_MAX - 1)];

	pw->miss_n--;
	--*guard_of(pw, pkt_of(m)->hash);
	worker_count(w, pkt_of(m)->origin, COUNT_QUEUED, (uint64_t)-1);
	return m;
}

// Most are resolved in the very round in which they came; a trace says which were not.
static void trace_waiting(struct port_worker *pw, uint64_t since)
{
	for (unsigned i = 0; i < pw->miss_n; i++) {
		struct pkt *p = pkt_of(pw->miss[(pw->miss_head + i) & (MISS_MAX - 1)]);

		if (p->trace && p->rx_tsc == since)
			trace_kind(p->trace, CORE_WAIT, 0);
	}
}

unsigned forward_misses(struct worker *w, uint16_t port)
{
	struct port_worker *pw = worker_port(w, port);
	const struct lport *lp = lport_get(port);
	unsigned budget = w->resolve_budget;

	if (!pw || !pw->miss_n)
		return 0;
	if (!lp) {
		forward_drain(w, port);
		return 0;
	}
	w->epoch = gen_read_epoch();
	while (pw->miss_n && budget) {
		struct rte_mbuf *ready[BURST];
		unsigned n = 0;

		while (n < BURST && pw->miss_n && budget) {
			struct rte_mbuf *m = miss_pop(w, pw);
			struct lookup l;
			struct flow *f, scratch;

			pkt_reset(pkt_of(m));
			if (!prepare(w, lp, &m, &l.whole, &l.key, &l.len, &l.hash))
				continue;
			flow_table_lookup(w->flows, &l.key, &l.len, &l.hash, 1, &f);
			if (!f || !is_fresh(w, f)) {
				f = resolve_packet(w, m, &l, f, &scratch);
				budget--;
			} else if (unlikely(pkt_of(m)->trace)) {
				trace_hit(w, m, &l.whole, f);
			}
			apply(w, m, f);
			m->hash.usr = f->actions;
			if (unlikely(f == &scratch && f->rule))
				flow_credit(w->flows, f->rule, 1, m->pkt_len);
			ready[n++] = m;
		}
		run_batch(w, ready, n);
	}
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
	struct flow_key whole;

	pkt_reset(pkt_of(m));
	parse(m, &whole);
	trace_hit(w, m, &whole, f);
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
	const struct profile *pr; // of untagged IPv4; NULL: a trace is on, and there are no common packets
	uint64_t word0;           // first word of their keys
	struct pkt blank;         // their struct pkt before it is parsed
};

static_assert(offsetof(struct flow_key, port) == 0 && offsetof(struct flow_key, profile) == 2 && offsetof(struct flow_key, vlan) == 4 &&
		      offsetof(struct flow_key, ethertype) == 6 && offsetof(struct flow_key, dst) == 8 && offsetof(struct flow_key, class) == 20 &&
		      offsetof(struct flow_key, proto) == 21 && offsetof(struct flow_key, sport) == 24 && offsetof(struct flow_key, tos) == 28 &&
		      offsetof(struct flow_key, v4) == 32 && RTE_BYTE_ORDER == RTE_LITTLE_ENDIAN,
	      "prepare_common() makes the key's words by itself");

// The key of a packet that parse_common() knows, made word by word: bytes written one by one and read as words would stall the load.
static inline void prepare_common(struct burst *b, const uint8_t *d, unsigned class, uint8_t proto)
{
	key_word *k = (key_word *)(void *)&b->key[b->n];
	const key_word *mask = (const key_word *)(const void *)&b->pr->mask;
	uint64_t addresses;
	uint32_t tail, ports;

	memcpy(&k[1], d, 8);
	memcpy(&tail, d + 8, 4);
	k[0] = b->word0;
	k[2] = (tail | (uint64_t)class << 32 | (uint64_t)proto << 40) & mask[2];
	b->len[b->n] = b->pr->len;
	if (b->pr->len > KEY_LEN_L2) {
		memcpy(&ports, d + 34, 4);
		memcpy(&addresses, d + 26, 8);
		k[3] = (ports | (uint64_t)(d[15] & 0xfc) << 32) & mask[3];
		k[4] = addresses & mask[4];
	}
	b->hash[b->n] = key_hash(&b->key[b->n], b->pr->len);
}

// Fills b with the packets that are well-formed, and their keys.
static void prepare_burst(struct worker *w, struct burst *b, const struct lport *lp, struct tracer *tracer, struct rte_mbuf **m, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct pkt *p = pkt_of(m[i]);
		const uint8_t *d = rte_pktmbuf_mtod(m[i], const uint8_t *);
		struct flow_key whole;
		int class;

		*p = b->blank;
		b->m[b->n] = m[i];
		if (likely(b->pr && (class = parse_common(d, m[i]->data_len, m[i]->pkt_len, p)) >= 0)) {
			if (unlikely(parse_wants_offload(m[i]))) {
				parse_offload(m[i], p);
				if (unlikely(p->drop)) {
					worker_drop(w, m[i], p->drop);
					continue;
				}
			}
			prepare_common(b, d, (unsigned)class, p->proto);
			b->n++;
			continue;
		}
		if (unlikely(tracer))
			p->trace = w->mark(w, tracer, m[i]);
		if (likely(prepare(w, lp, &b->m[b->n], &whole, &b->key[b->n], &b->len[b->n], &b->hash[b->n])))
			b->n++;
	}
}

static void start_burst(struct burst *b, const struct lport *lp, bool traced, uint64_t tsc)
{
	b->n = 0;
	memset(&b->blank, 0, sizeof b->blank);
	b->blank.in_port = b->blank.origin = lp->id;
	b->blank.rx_tsc = tsc;
	b->blank.network = lp->untagged.network;
	b->pr = traced ? NULL : profile_get(lp->untagged.profile);
	b->word0 = lp->id | (uint64_t)lp->untagged.profile << 16 | (uint64_t)RTE_STATIC_BSWAP16(0x0800) << 48;
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
	}
	out->tx[out->tx_n++] = m;
	if (unlikely(out->tx_n == TX_BATCH))
		w->flush(w, out);
	return out;
}

// Serves what cached flows serve, queues the rest.
static void serve_burst(struct worker *w, struct port_worker *pw, struct burst *b)
{
	struct port_worker *out = NULL;
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
		// Not while a trace is on: the packets that are traced take the other way, and would be overtaken by the rest of their flow.
		if (likely((f->flags & FLOW_DIRECT) && p->seg_len <= f->mtu && b->pr)) {
			out = send_direct(w, out, m, f);
		} else {
			m->hash.usr = f->actions;
			b->m[k++] = m;
		}
	}
	worker_count(w, pw->id, COUNT_CACHE_HIT, hits);
	if (k)
		run_batch(w, b->m, k);
}

void forward_burst(struct worker *w, uint16_t port, struct rte_mbuf **m, unsigned n)
{
	struct port_worker *pw = worker_port(w, port);
	const struct lport *lp = lport_get(port);
	struct tracer *tracer = rcu_read(w->tracer);
	uint64_t tsc = rte_rdtsc(), bytes = 0;
	struct burst b;

	w->epoch = gen_read_epoch();
	for (unsigned i = 0; i < n; i++)
		bytes += m[i]->pkt_len;
	worker_count(w, port, COUNT_RX, n);
	worker_count(w, port, COUNT_RX_BYTES, bytes);
	if (unlikely(!lp || !pw)) {
		for (unsigned i = 0; i < n; i++) {
			memset(pkt_of(m[i]), 0, sizeof(struct pkt));
			pkt_of(m[i])->in_port = pkt_of(m[i])->origin = port;
			if (unlikely(tracer))
				pkt_of(m[i])->trace = w->mark(w, tracer, m[i]);
			worker_drop(w, m[i], FLOW_REASON(PORT_GONE));
		}
		return;
	}
	start_burst(&b, lp, tracer, tsc);
	prepare_burst(w, &b, lp, tracer, m, n);
	flow_table_lookup(w->flows, b.key, b.len, b.hash, b.n, b.flow);
	serve_burst(w, pw, &b);
	if (unlikely(pw->miss_n))
		forward_misses(w, port);
	if (unlikely(tracer))
		trace_waiting(pw, tsc);
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
	if (!prepare(w, lp, &m, &l.whole, &l.key, &l.len, &l.hash))
		return;
	resolve_start(&r, w, m, &l.whole, &flow, &cold);
	r.trace = t;
	r.overlay = overlay;
	r.n_overlay = *n_overlay;
	run_resolve(&r);
	for (unsigned i = 0; i < r.n_effects && *n_overlay < EFFECTS_MAX; i++)
		overlay[(*n_overlay)++] = r.effect[i];
	flow.flags |= FLOW_UNCACHED;
	apply(w, m, &flow);
	m->hash.usr = flow.actions;
	run_batch(w, &m, 1);
}
