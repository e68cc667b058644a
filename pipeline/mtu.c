// mtu: holds every packet against the MTU of its egress port. A large packet that will be cut (TSO) is judged by its segments.
//
// What doesn't fit and may be fragmented (IPv4 without DF) is, where it is routed or goes into a tunnel; TCP that will be cut anyway is cut smaller. Of what may
// not, the sender is told (RFC 1191, RFC 8201): by the router, or, where a network's own frames meet a smaller MTU on their way, as if by the destination, which is
// what Linux' VXLAN devices do. Either way the packet itself counts as dropped, the answer as generated.
#include "mtu.h"
#include "adjacency.h"
#include "frag.h"
#include "parse.h"
#include "respond.h"
#include "router_table.h"
#include "stage.h"
#include "vlan.h"

#include <string.h>

#define MTU_REASONS(X) X(mtu, TOO_LARGE, "the packet is larger than the MTU of its egress port")

STAGE_REASONS(mtu, MTU_REASONS);

struct record {
	uint16_t port;
	uint16_t mtu;
	uint32_t len;
	uint8_t fate;
};

enum fate { FITS, TOO_LARGE, FRAGMENTED, CUT_SMALLER, ANSWERED };

// A flow to one port can hold its packets against the MTU by itself; those that fit then skip the run.
static uint16_t mtu_resolve(struct resolve *r)
{
	struct flow *f = r->flow;

	if (f->out_kind != OUT_PORT)
		return 0;
	resolve_depend(r, GEN_PORT, f->out);
	const struct lport *out = lport_get(f->out);
	uint64_t others = f->stages & ~(1ULL << stage_mtu.index) & ~r->direct;
	if (out && !others && f->vlan_op == VLAN_OP_NONE) {
		f->mtu = f->adj && r->net && r->net->mtu < out->mtu ? r->net->mtu : out->mtu;
		f->flags |= FLOW_DIRECT;
	}
	return 0;
}

uint16_t mtu_limit(const struct pkt *p, bool routed)
{
	const struct lport *out = lport_get(p->out);
	const struct network *net = routed ? network_get(p->network) : NULL;

	return !out ? 0 : net && net->mtu < out->mtu ? net->mtu : out->mtu;
}

uint16_t mtu_ingress_network(const struct pkt *p)
{
	const struct lport *in = lport_get(p->in_port);

	if (in && in->mode == VLAN_NETWORK_ID)
		return *pkt_arrival(pkt_mbuf(p));
	return in ? lport_classify(in, p->n_tags ? (uint16_t)(0x1000 | (p->tci & 0xfff)) : 0).network : 0;
}

void mtu_turn_back(struct pkt *p, uint16_t network)
{
	struct rte_mbuf *m = pkt_mbuf(p);

	p->out_kind = OUT_PORT;
	p->out = p->in_port;
	p->network = network;
	p->vlan_op = VLAN_OP_NONE;
	p->flags = 0;
	p->stages = 0;
	m->hash.fdir.lo = m->hash.fdir.hi = 0;
}

// Turns the packet, whose headers are its own, into an answer to where it came from. False: there is none for it; untouched.
static bool answer(struct worker *w, struct pkt *p, uint16_t limit)
{
	struct rte_mbuf *m = pkt_mbuf(p);
	uint16_t network = mtu_ingress_network(p);
	const uint8_t *d = pkt_data(p), *ip = d + p->l3_ofs;
	bool v6 = p->ethertype == 0x86dd;
	const struct lport *out = lport_get(p->out);
	const struct router_port *rp = router_port_with(network, d);
	struct config_ip from = {.v6 = v6};
	uint8_t mac[6];

	if (!respond_error_allowed(m, RESPOND_TOO_BIG) || d[0] & 1)
		return false;
	const struct config_prefix *own = NULL;
	for (rp = rp ? rp : router_port_in(network, NULL); rp && !own; rp = router_port_in(network, rp))
		own = router_port_address(rp, v6, ip + (v6 ? 8 : 12));
	memcpy(mac, d, 6);
	memcpy(from.b, own ? own->ip.b : ip + (v6 ? 24 : 16), v6 ? 16 : 4);
	if (!respond_may(w, p->in_port, RESPOND_TOO_BIG) || respond_error(m, RESPOND_TOO_BIG, mac, &from, limit))
		return false;
	respond_count(w, m, STAGE_REASON(mtu, TOO_LARGE), out ? out->mtu_row : 0);
	mtu_turn_back(p, network);
	return true;
}

static void say(const struct pkt *p, uint32_t len, uint16_t port, uint16_t limit, enum fate fate)
{
	struct record r = {.port = port, .mtu = limit, .len = len, .fate = (uint8_t)fate};

	if (unlikely(p->trace))
		trace_put(p->trace, stage_mtu.index, &r, sizeof r);
}

// TCP that the egress cuts, and whose sender didn't ask for its packets to stay whole.
static bool cut_smaller(struct rte_mbuf *m, struct pkt *p, uint16_t limit)
{
	uint32_t headers = (uint32_t)m->l3_len + m->l4_len;

	if (!(m->ol_flags & RTE_MBUF_F_TX_TCP_SEG) || p->ethertype != 0x0800 || pkt_data(p)[p->l3_ofs + 6] & 0x40 || limit < headers + PARSE_MIN_SEGMENT)
		return false;
	m->tso_segsz = (uint16_t)(limit - headers);
	p->seg_len = limit;
	return true;
}

static bool fragment(struct rte_mbuf *m, struct pkt *p, uint16_t limit)
{
	if (m->ol_flags & RTE_MBUF_F_TX_TCP_SEG || frag_count(m, limit) < 2)
		return false;
	p->flags |= FLOW_FRAGMENT;
	p->seg_len = limit;
	return true;
}

bool mtu_answer(struct worker *w, struct pkt *p)
{
	uint16_t limit = mtu_limit(p, true), port = p->out;
	uint32_t len = p->seg_len;

	if (likely(!limit || len <= limit) || (p->ethertype == 0x0800 && !(pkt_data(p)[p->l3_ofs + 6] & 0x40)))
		return false;
	bool answered = answer(w, p, limit);
	if (!answered) {
		const struct lport *out = lport_get(port);

		pkt_drop(p, STAGE_REASON(mtu, TOO_LARGE), out ? out->mtu_row : 0);
	}
	say(p, len, port, limit, answered ? ANSWERED : TOO_LARGE);
	return true;
}

// Whether the sender of frames that don't fit couldn't know: its own MTU, or what its network was said to have, is larger than that of their egress.
static bool is_surprise(const struct pkt *p, const struct lport *out)
{
	const struct lport *in = lport_get(p->in_port);
	const struct network *net = network_get(p->network);

	if (p->flags & FLOW_COPY)
		return false;
	return out->kind == PORT_TUNNEL || (p->out_kind == OUT_PORT && ((in && in->mtu > out->mtu) || (net && net->overlay)));
}

// What becomes of a packet that is too large. *at: it, which may move to another buffer.
static enum fate too_large(struct worker *w, struct pkt **at, const struct lport *out, uint16_t limit, bool routed)
{
	struct pkt *p = *at;
	struct rte_mbuf *m = pkt_mbuf(p);

	bool answer_of_ours = pkt_adj(p) >= ADJACENCY_ACTIONS; // an answer: large, as what was asked came in fragments
	if (p->l3_ofs && (routed || answer_of_ours || out->kind == PORT_TUNNEL)) {
		if (cut_smaller(m, p, limit))
			return CUT_SMALLER;
		if ((answer_of_ours || p->ethertype == 0x0800) && fragment(m, p, limit))
			return FRAGMENTED;
	}
	// A routed one was to be answered before its headers changed: mtu_answer().
	if (p->l3_ofs && !routed && is_surprise(p, out) && respond_error_allowed(m, RESPOND_TOO_BIG) &&
	    !(p->ethertype == 0x0800 && !(pkt_data(p)[p->l3_ofs + 6] & 0x40))) {
		struct rte_mbuf *own = pkt_own_headers(m, (uint16_t)(p->l4_ofs ? p->l4_ofs + 64 : p->l3_ofs + 64), w->pool);

		if (own) {
			*at = p = pkt_of(own);
			if (answer(w, p, limit))
				return ANSWERED;
		}
	}
	pkt_drop(p, STAGE_REASON(mtu, TOO_LARGE), out->mtu_row);
	return TOO_LARGE;
}

static void mtu_run(struct worker *w, struct pkt **p, uint16_t n)
{
	for (unsigned i = 0; i < n; i++) {
		const struct lport *out = lport_get(p[i]->out);
		bool routed = pkt_adj(p[i]) && pkt_adj(p[i]) < ADJACENCY_ACTIONS;
		uint16_t limit = mtu_limit(p[i], routed);
		uint32_t len = p[i]->seg_len;
		enum fate fate = FITS;

		if (unlikely(out && len > limit))
			fate = too_large(w, &p[i], out, limit, routed);
		if (out)
			say(p[i], len, out->id, limit, fate);
	}
}

static void mtu_format(struct buf *b, const void *record, uint16_t size)
{
	static const char *const fates[] = {
		[FITS] = "fits",
		[TOO_LARGE] = "too large",
		[FRAGMENTED] = "too large, it leaves in fragments",
		[CUT_SMALLER] = "too large, it is cut into smaller segments",
		[ANSWERED] = "too large, and the sender is told",
	};
	const struct record *r = record;

	buf_add(b, "%u bytes against MTU %u of %s: %s", r->len, r->mtu, lport_name(r->port), fates[r->fate]);
}

STAGE(mtu, .resolve = mtu_resolve, .run = mtu_run, .format = mtu_format, .egress = true, .replaces = true);
