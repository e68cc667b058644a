// run: what happens to packets that are decided: their stages, copies for further ports, tags, egress batches. See forward_private.h.
#include "forward_private.h"
#include "change.h"
#include "frag.h"
#include "offload.h"
#include "parse.h"
#include "punt.h"
#include "rewrite.h"
#include "tunnel.h"
#include "targets.h"
#include "vlan.h"

#include <string.h>
#include <rte_branch_prediction.h>

void forward_trace_decision(struct trace *t, uint8_t kind, const struct flow *f, uint32_t index, uint32_t mark)
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
		.adj = f->adj,
		.mark = mark,
	};
	trace_put(t, TRACE_CORE, &r, sizeof r);
}

void forward_trace(struct trace *t, uint8_t kind, uint16_t port)
{
	struct core_record r = {.kind = kind, .port = port};

	trace_put(t, TRACE_CORE, &r, sizeof r);
}

void forward_trace_lost(struct trace *t, uint16_t port)
{
	struct core_record r = {.kind = CORE_DROPPED, .port = port, .reason = FLOW_REASON(NO_MEMORY)};

	trace_put(t, TRACE_CORE, &r, sizeof r);
}

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
			pkt_drop(p[i], FLOW_REASON(NO_MEMORY), 0);
	}
}

static __rte_noinline void capture_stage(struct worker *w, struct pkt **p, unsigned n, uint8_t stage)
{
	struct rte_mbuf *m[BURST];

	for (unsigned i = 0; i < n; i++)
		m[i] = pkt_mbuf(p[i]);
	w->capture(w, CAPTURE_STAGE, 0, m, n, stage, 0);
}

// Runs a stage that writes: if one of the packets is traced each by itself, so that its trace says what became of it.
static __rte_noinline void run_writer(struct worker *w, const struct stage *s, struct pkt **p, uint16_t n)
{
	struct change_headers before;
	bool traced = false;

	for (unsigned i = 0; i < n; i++)
		traced |= p[i]->trace != NULL;
	if (likely(!traced)) {
		s->run(w, p, n);
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		struct trace *t = p[i]->trace;

		if (t)
			change_look(pkt_mbuf(p[i]), &before);
		s->run(w, &p[i], 1);
		if (t)
			change_trace(t, &before, pkt_mbuf(p[i]));
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
		uint8_t place[BURST];
		uint16_t k = 0;

		if (unlikely(s->writes))
			own_headers(w, p, n, bit);
		for (unsigned i = 0; i < n; i++) {
			if ((p[i]->stages & bit) && !p[i]->drop) {
				place[k] = (uint8_t)i;
				mine[k++] = p[i];
			}
		}
		if (!k)
			continue;
		worker_lap(w, CYCLES_RUN, 0);
		if (unlikely(s->writes))
			run_writer(w, s, mine, k);
		else
			s->run(w, mine, k);
		for (unsigned i = 0; s->replaces && i < k; i++)
			p[place[i]] = mine[i];
		worker_lap(w, CYCLES_STAGES + (unsigned)__builtin_ctzll(bit), k);
		if (INSTRUMENTS && unlikely(w->watch & WATCH(CAPTURE_STAGE)))
			capture_stage(w, mine, k, s->index);
	}
}

static int apply_vlan(struct rte_mbuf *m)
{
	struct change_headers before;
	struct pkt *p = pkt_of(m);

	if (likely(!p->trace))
		return pkt_apply_vlan(m);
	change_look(m, &before);
	int rc = pkt_apply_vlan(m);
	change_trace(p->trace, &before, m);
	return rc;
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
	if (likely(!(p->vlan_tci & TAG_PCP)))
		p->vlan_tci = (uint16_t)((p->tci & 0xf000) | (p->vlan_tci & 0xfff));
	else // a tag that is kept keeps its DEI, and a new one has none
		p->vlan_tci = (uint16_t)((p->vlan_tci & 0xefff) | (p->vlan_op == VLAN_OP_SET ? p->tci & 0x1000 : 0));
	if (unlikely(apply_vlan(own))) {
		worker_drop(w, own, FLOW_REASON(NO_MEMORY));
		return NULL;
	}
	return own;
}

// In place of a packet that is too large for its egress its fragments, of what it says of itself by seg_len.
static __rte_noinline void send_fragments(struct worker *w, struct rte_mbuf *m)
{
	uint16_t mtu = (uint16_t)pkt_of(m)->seg_len;
	struct rte_mbuf *own = pkt_own_headers(m, headers_of(pkt_of(m)), w->pool);
	unsigned n = own && !offload_checksum(own) ? frag_count(own, mtu) : 0;

	if (!n) {
		worker_drop(w, own ? own : m, FLOW_REASON(NO_MEMORY));
		return;
	}
	worker_count(w, pkt_of(own)->origin, COUNT_SEGMENTS, n - 1);
	for (unsigned i = 0; i < n; i++) {
		struct rte_mbuf *piece = frag_piece(own, i, mtu, w->pool);

		if (likely(piece))
			worker_tx(w, &piece, 1);
		else
			worker_lose(w, own, FLOW_REASON(NO_MEMORY), 0);
	}
	trace_unref(pkt_of(own)->trace);
	rte_pktmbuf_free(own); // its fragments stand for it
}

// Packets whose egress port is known.
static void run_egress(struct worker *w, struct pkt **p, unsigned n)
{
	struct rte_mbuf *out[BURST];
	unsigned k = 0;

	run_stages(w, p, n, forward_egress);
	for (unsigned i = 0; i < n; i++) {
		struct rte_mbuf *m = pkt_mbuf(p[i]);

		if (unlikely(p[i]->drop)) {
			worker_drop_for(w, m, p[i]->drop, p[i]->drop_row);
			continue;
		}
		if (unlikely(p[i]->vlan_op != VLAN_OP_NONE)) {
			m = rewrite(w, m);
			if (!m)
				continue;
		}
		if (unlikely(pkt_of(m)->flags & FLOW_FRAGMENT)) {
			worker_tx(w, out, k); // what came before it leaves before it
			k = 0;
			send_fragments(w, m);
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
	p->vlan_tci = c.tci;
	p->qinq = c.qinq;
	if (unlikely(p->trace))
		forward_trace(p->trace, kind, out->id);
}

// A copy of the packet as it is now, with its headers its own, on its way to `out`. NULL: it was lost, which is counted.
static struct rte_mbuf *copy_to(struct worker *w, struct pkt *p, const struct lport *out, int tag, uint8_t kind)
{
	const struct network *net = network_get(p->network);
	const struct lport *in = lport_get(p->in_port);
	bool can = in && (net || !tag_asks_port(tag));
	struct rte_mbuf *c = can ? pkt_clone(pkt_mbuf(p), w->pool) : NULL;
	// What is done to the packet itself later would change a copy that shares its headers.
	struct rte_mbuf *own = c ? pkt_own_headers(c, headers_of(p), w->pool) : NULL;

	worker_count(w, p->origin, COUNT_COPIES, 1);
	if (unlikely(!own)) {
		rte_pktmbuf_free(c);
		worker_lose(w, pkt_mbuf(p), can ? FLOW_REASON(NO_MEMORY) : FLOW_REASON(NETWORK_GONE), 0);
		if (unlikely(p->trace))
			forward_trace_lost(p->trace, out->id);
		return NULL;
	}
	struct pkt *copy = pkt_of(own);
	trace_ref(p->trace);
	copy->stages = forward_egress_runs;
	copy->out_kind = OUT_PORT;
	copy->flags |= FLOW_COPY;
	egress_to(own, in, out, net, tag, kind);
	return own;
}

void forward_copy(struct worker *w, struct pkt *p, const struct lport *out, int tag, const struct rewrite *set, unsigned n)
{
	struct rte_mbuf *own = copy_to(w, p, out, tag, CORE_FURTHER);

	if (!own)
		return;
	struct pkt *copy = pkt_of(own);
	struct change_headers before;
	if (unlikely(p->trace))
		change_look(own, &before);
	rewrite_apply(own, set, n);
	if (unlikely(p->trace))
		change_trace(p->trace, &before, own);
	run_egress(w, &copy, 1);
}

void forward_back(struct worker *w, struct pkt *p, int (*fn)(struct rte_mbuf *, void *arg), void *arg)
{
	struct rte_mbuf *c = pkt_clone(pkt_mbuf(p), w->pool);
	struct rte_mbuf *own = c ? pkt_own_headers(c, headers_of(p), w->pool) : NULL;

	if (!own || fn(own, arg)) {
		rte_pktmbuf_free(own ? own : c); // it was never promised to anybody
		return;
	}
	struct pkt *copy = pkt_of(own);
	copy->out_kind = OUT_PORT;
	copy->out = p->in_port;
	copy->vlan_op = VLAN_OP_NONE; // the tags that it came with
	copy->trace = NULL;
	worker_count(w, p->origin, COUNT_COPIES, 1);
	worker_tx(w, &own, 1);
}

void forward_mirror(struct worker *w, struct pkt *p, const struct lport *out, int tag, uint32_t snaplen)
{
	struct rte_mbuf *own = copy_to(w, p, out, tag, CORE_MIRROR);

	if (!own)
		return;
	if (snaplen && own->pkt_len > snaplen)
		pkt_truncate(own, snaplen);
	struct pkt *copy = pkt_of(own);
	run_egress(w, &copy, 1);
}

// Past the egress stages: they are about packets, and this is one about a packet.
void forward_span(struct worker *w, struct pkt *p, const struct lport *tunnel, int tag, uint32_t snaplen, const struct tunnel_span *span)
{
	struct rte_mbuf *own = copy_to(w, p, tunnel, tag, CORE_MIRROR);
	bool cut = own && snaplen && own->pkt_len > snaplen;

	if (cut)
		pkt_truncate(own, snaplen);
	if (own && pkt_of(own)->vlan_op != VLAN_OP_NONE)
		own = rewrite(w, own);
	if (own)
		tunnel_span(w, tunnel->id, own, span, cut);
}

// What is left of TTL or hop limit; 0: no IP.
static uint8_t hops_left(const struct pkt *p)
{
	return !p->l3_ofs ? 0 : pkt_data(p)[p->l3_ofs + (p->ethertype == RTE_ETHER_TYPE_IPV4 ? 8 : 7)];
}

// A packet that a router takes into another network: its source address and TTL, on headers of its own. NULL: it was lost.
static struct rte_mbuf *hop(struct worker *w, struct rte_mbuf *m, const uint8_t src[6], const struct network *net)
{
	struct rte_mbuf *own = pkt_own_headers(m, headers_of(pkt_of(m)), w->pool);
	struct change_headers before;

	if (unlikely(!own)) {
		worker_drop(w, m, FLOW_REASON(NO_MEMORY));
		return NULL;
	}
	struct pkt *p = pkt_of(own);
	uint8_t *d = rte_pktmbuf_mtod(own, uint8_t *);
	if (unlikely(p->trace))
		change_look(own, &before);
	memcpy(d + 6, src, 6);
	p->network = net->id;
	if (p->ethertype == RTE_ETHER_TYPE_IPV4) {
		uint8_t *sum = d + p->l3_ofs + 10;
		uint32_t s = (uint32_t)(sum[0] << 8 | sum[1]) + 0x100; // RFC 1624: TTL is the high byte of its word

		s += s >> 16;
		sum[0] = (uint8_t)(s >> 8);
		sum[1] = (uint8_t)s;
		d[p->l3_ofs + 8]--;
	} else {
		d[p->l3_ofs + 7]--;
	}
	if (unlikely(p->trace))
		change_trace(p->trace, &before, own);
	return own;
}

// With which tag every copy leaves.
static int tag_given(const struct pkt *p)
{
	return p->vlan_op == VLAN_OP_GIVEN ? p->vlan_tci | p->qinq << 16 : TAG_OF_PORT;
}

// A packet that goes to several ports: a copy for each, the last one is the packet itself. The payload is shared.
struct fan {
	struct worker *w;
	struct pkt *p;
	const struct lport *in, *last; // last: where it goes that nothing was sent to yet
	const struct network *net;     // that `last` gets it in
	const uint8_t *src;            // routed to `last`: its new source address
	int tag;
	unsigned n;
	struct pkt *batch[BURST];
};

static void fan_send(struct fan *f, struct rte_mbuf *m)
{
	if (unlikely(f->src)) {
		m = hop(f->w, m, f->src, f->net);
		if (!m)
			return;
	}
	egress_to(m, f->in, f->last, f->net, f->src ? TAG_OF_PORT : f->tag, CORE_COPY);
	f->batch[f->n++] = pkt_of(m);
	if (f->n == BURST) {
		run_egress(f->w, f->batch, f->n);
		f->n = 0;
	}
}

static void fan_to(struct fan *f, const struct lport *out, const struct network *net, const uint8_t *src)
{
	struct rte_mbuf *m = pkt_mbuf(f->p);

	if (f->last) {
		struct rte_mbuf *c = pkt_clone(m, f->w->pool);

		worker_count(f->w, f->p->origin, COUNT_COPIES, 1);
		if (likely(c)) {
			trace_ref(f->p->trace);
			fan_send(f, c);
		} else { // A copy that could not be made is a copy that was lost.
			worker_lose(f->w, m, FLOW_REASON(NO_MEMORY), 0);
			if (unlikely(f->p->trace))
				forward_trace_lost(f->p->trace, f->last->id);
		}
	}
	f->last = out;
	f->net = net;
	f->src = src;
}

static void fan_end(struct fan *f, uint32_t row)
{
	if (unlikely(!f->last))
		worker_drop_for(f->w, pkt_mbuf(f->p), FLOW_REASON(NOBODY), row);
	else
		fan_send(f, pkt_mbuf(f->p));
	run_egress(f->w, f->batch, f->n);
}

static void flood(struct worker *w, struct pkt *p)
{
	const struct network *net = network_get(p->out);
	struct fan f = {.w = w, .p = p, .in = lport_get(p->in_port), .tag = tag_given(p)};

	if (unlikely(!net || !f.in)) {
		worker_drop(w, pkt_mbuf(p), FLOW_REASON(NETWORK_GONE));
		return;
	}
	for (uint32_t i = 0; i < net->n_targets; i++) {
		const struct flood_target *t = &net->target[i];
		bool leave_out = t->port == p->in_port || (t->isolated && f.in->isolated) ||
				 (t->tunnel && (f.in->kind == PORT_TUNNEL || (t->told && (p->flags & FLOW_BUM_UNKNOWN))));
		const struct lport *out = leave_out ? NULL : lport_get(t->port);

		if (out)
			fan_to(&f, out, net, NULL);
	}
	fan_end(&f, net->row);
}

static bool may_reach(const struct pkt *p, const struct lport *in, const struct lport *out)
{
	return out->id != p->in_port && !(out->isolated && in->isolated) && !(out->kind == PORT_TUNNEL && in->kind == PORT_TUNNEL);
}

// To the members of its group, in its own network and by a router in others.
static void to_group(struct worker *w, struct pkt *p)
{
	const struct target_list *l = targets_get(p->out);
	const struct network *own = network_get(p->network);
	struct fan f = {.w = w, .p = p, .in = lport_get(p->in_port), .tag = tag_given(p)};
	bool may_hop = (p->flags & FLOW_HOP) && hops_left(p) > 1;

	if (unlikely(!l || !own || !f.in)) {
		worker_drop(w, pkt_mbuf(p), FLOW_REASON(NETWORK_GONE));
		return;
	}
	for (unsigned i = 0; i < l->n; i++) {
		const struct target *t = &l->to[i];
		const struct lport *out = lport_get(t->port);
		const struct network *net = t->network == own->id ? own : network_get(t->network);

		if (!out || !out->enabled || !net)
			continue;
		if (net != own ? may_hop && target_routed(t, f.in->kind == PORT_TUNNEL) : may_reach(p, f.in, out))
			fan_to(&f, out, net, net != own ? t->src : NULL);
	}
	fan_end(&f, own->row);
}

void forward_return(struct pkt *p)
{
	p->stages = forward_egress_runs;
	p->out_kind = OUT_PORT;
	p->out = p->in_port;
	p->vlan_op = VLAN_OP_NONE;
	p->flags = 0;
	pkt_mbuf(p)->hash.fdir.hi = 0;
}

// Packets with their decisions, n <= BURST, in order.
void forward_run(struct worker *w, struct rte_mbuf **m, unsigned n)
{
	struct pkt *p[BURST], *out[BURST];
	unsigned k = 0;

	for (unsigned i = 0; i < n; i++)
		p[i] = pkt_of(m[i]);
	run_stages(w, p, n, forward_ingress);
	for (unsigned i = 0; i < n; i++) {
		if (unlikely(p[i]->drop)) {
			worker_drop_for(w, pkt_mbuf(p[i]), p[i]->drop, p[i]->drop_row);
		} else if (likely(p[i]->out_kind == OUT_PORT)) {
			out[k++] = p[i];
		} else if (p[i]->out_kind == OUT_PUNT) {
			punt_give(w, pkt_mbuf(p[i]));
		} else if (p[i]->out_kind == OUT_FLOOD) {
			// What came before it leaves before it.
			run_egress(w, out, k);
			k = 0;
			flood(w, p[i]);
		} else if (p[i]->out_kind == OUT_GROUP) {
			run_egress(w, out, k);
			k = 0;
			to_group(w, p[i]);
		} else {
			worker_drop_for(w, pkt_mbuf(p[i]), p[i]->out, p[i]->drop_row);
		}
	}
	run_egress(w, out, k);
	worker_lap(w, CYCLES_RUN, n);
}
