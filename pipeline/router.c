// router: takes what is sent to a router's MAC address on to where its routes say, and answers what is for the router itself.
//
// Behind `fdb`, which finds router ports by their addresses as any station. Forwarding is that of RFC 1812 section 5 and RFC 8200: which packets may be routed, where to
// (route_table.h), which neighbour that is (neighbour_table.h), and then the destination in the next network as `fdb` has it. A router port may be the next hop too: then
// its router goes on, in the same decision.
#include "adjacency.h"
#include "fdb.h"
#include "forward.h"
#include "mtu.h"
#include "neighbour_table.h"
#include "next_hop.h"
#include "parse.h"
#include "punt.h"
#include "reassembly.h"
#include "respond.h"
#include "route_table.h"
#include "router_table.h"
#include "stage.h"
#include "tunnel_mtu.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <rte_branch_prediction.h>

#define ROUTER_REASONS(X)                                                                                              \
	X(router, NOT_IP, "it is for a router's address, but is no IP packet")                                          \
	X(router, MARTIAN, "its source or destination address may not be routed")                                       \
	X(router, LINK_LOCAL, "link-local addresses are not routed")                                                    \
	X(router, DIRECTED_BROADCAST, "broadcasts into a network are not routed (RFC 2644)")                            \
	X(router, SOURCE_ROUTE, "it brings its own route, by an IPv4 option or a routing header")                       \
	X(router, TTL, "its TTL or hop limit is used up")                                                               \
	X(router, NO_ROUTE, "the router has no route to its destination")                                               \
	X(router, BLACKHOLE, "the route is a blackhole")                                                                \
	X(router, UNREACHABLE, "the route says that the destination is unreachable")                                    \
	X(router, PROHIBITED, "the route prohibits it")                                                                 \
	X(router, NO_NEIGHBOUR, "the next hop doesn't answer")                                                          \
	X(router, LOOP, "it would go through too many routers of this switch")                                          \
	X(router, NOT_SERVED, "it is for the router itself, which serves nothing of the kind")                               \
	X(router, FRAGMENT, "fragments for the router itself overlap, break rules, or are too many")                    \
	X(router, FRAGMENT_TIMEOUT, "it is a fragment for the router itself, and others did not come in time")

STAGE_REASONS(router, ROUTER_REASONS);

#define ROUTERS_MAX 4 // that a packet may pass in one decision: hops beyond the first are FLOW_HOPS
static_assert(ROUTERS_MAX - 1 <= FLOW_HOPS >> FLOW_HOPS_SHIFT, "a flow has room for them");

// What is done with a packet that is not sent on: adjacencies from ADJACENCY_ACTIONS on. Error, and why the packet itself ends.
#define ACTIONS(X)                                                                                                     \
	X(ECHO, RESPOND_ANSWER, NOT_SERVED, "answer the ping")                                                          \
	X(TTL, RESPOND_TTL, TTL, "TTL is used up: time exceeded")                                                       \
	X(NO_ROUTE, RESPOND_NET_UNREACHABLE, NO_ROUTE, "no route: net unreachable")                                     \
	X(UNREACHABLE, RESPOND_HOST_UNREACHABLE, UNREACHABLE, "unreachable by its route: host unreachable")             \
	X(PROHIBITED, RESPOND_PROHIBITED, PROHIBITED, "prohibited by its route: administratively prohibited")           \
	X(NO_NEIGHBOUR, RESPOND_HOST_UNREACHABLE, NO_NEIGHBOUR, "the next hop doesn't answer: host unreachable")        \
	X(NO_PORT, RESPOND_PORT_UNREACHABLE, NOT_SERVED, "for the router itself: port unreachable")                     \
	X(NO_PROTO, RESPOND_PROTO_UNREACHABLE, NOT_SERVED, "for the router itself: protocol unreachable")               \
	X(LATE, RESPOND_REASSEMBLY, FRAGMENT_TIMEOUT, "fragments are missing: time exceeded")                            \
	X(SCOPE, RESPOND_BEYOND_SCOPE, LINK_LOCAL, "link-local: beyond its scope")

enum action {
#define X(id, error, reason, text) ACT_##id,
	ACTIONS(X)
#undef X
	ACT_N
};
static const struct {
	uint8_t error, reason;
	bool local; // of packets for the router's own addresses
	const char *text;
} actions[] = {
#define X(id, error_, reason_, text_)                                                                                  \
	[ACT_##id] = {.error = error_, .reason = router_##reason_, .text = text_, .local = ACT_##id == ACT_NO_PORT || ACT_##id == ACT_NO_PROTO || ACT_##id == ACT_LATE},
	ACTIONS(X)
#undef X
};

#define TO_HOLD 1       // kinds of punt: waits for a neighbour
#define TO_REASSEMBLE 2 // ... for other fragments
#define TO_PATH_MTU 3   // an error about a packet of a tunnel

enum ends { SENT_ON, ACTS, HELD, COLLECTED, LEARNED, DROPPED };

struct record {
	uint8_t ends; // enum ends
	uint8_t v6;
	uint8_t type, len;
	uint8_t action;
	uint8_t has_gateway;
	uint8_t n_hops;
	uint8_t dst[16], gateway[16], mac[6];
	uint16_t reason;
	uint16_t in, out; // router ports
	uint32_t router, route, table, mark;
};

// ---- which way

// A packet on its way through routers.
struct way {
	bool v6;
	uint8_t tos;
	uint32_t mark;
	uint8_t src[16], dst[16];
	uint64_t hash;
	unsigned ttl;                  // what is asked is which router it ends at; 0: it isn't
	const struct router_port *in;  // where it is now
	const struct router_port *out; // where it leaves
	uint8_t next[16];              // the address of the next hop
	struct route_result route;
};

// Where the router of w->in sends it. -1: on, by w->out to w->next; else an action, or ACT_N with *reason.
static int one_router(struct resolve *r, struct way *w, uint16_t *reason)
{
	static const uint8_t by_type[] = {
		[ROUTE_NONE] = ACT_NO_ROUTE, [ROUTE_UNREACHABLE] = ACT_UNREACHABLE, [ROUTE_PROHIBIT] = ACT_PROHIBITED, [ROUTE_LOCAL] = ACT_ECHO};
	enum route_type type = route_find(r, w->in->router, w->in->id, w->v6, w->src, w->dst, w->tos, w->mark, w->hash, &w->route);

	if (type == ROUTE_BLACKHOLE) { // of a router port: the broadcast address of its prefix
		*reason = w->route.source == ROUTE_CONNECTED ? STAGE_REASON(router, DIRECTED_BROADCAST) : STAGE_REASON(router, BLACKHOLE);
		return ACT_N;
	}
	if (type != ROUTE_UNICAST)
		return by_type[type];
	const struct route_hop *hop = w->route.hop;
	if (r)
		resolve_depend(r, GEN_PORT, hop->port);
	w->out = router_port_get(hop->port);
	if (!w->out)
		return ACT_NO_ROUTE;
	memcpy(w->next, hop->has_gateway ? hop->gateway.b : w->dst, 16);
	return -1;
}

// Another router's port of the same network, if the next hop is one.
static const struct router_port *next_router(struct resolve *r, const struct way *w, bool v6)
{
	const struct router_port *rp = NULL;

	if (r)
		resolve_depend(r, GEN_NETWORK, w->out->network);
	while ((rp = router_port_in(w->out->network, rp)))
		if (rp != w->out && router_port_has(rp, v6, w->next))
			return rp;
	return NULL;
}

static bool next_is_v6(const struct way *w)
{
	return w->route.hop->has_gateway ? w->route.hop->gateway.v6 : w->v6;
}

// As one_router(), through as many as it takes; *hops: how many more than one they are.
static int through_routers(struct resolve *r, struct way *w, unsigned *hops, uint16_t *reason)
{
	for (*hops = 0; *hops < ROUTERS_MAX; ++*hops) {
		if (unlikely(w->ttl == *hops + 1))
			return ACT_TTL;
		int end = one_router(r, w, reason);

		if (end >= 0)
			return end;
		const struct router_port *next = next_router(r, w, next_is_v6(w));
		if (!next)
			return -1;
		w->in = next;
		if (router_port_has(next, w->v6, w->dst))
			return ACT_ECHO;
	}
	*reason = STAGE_REASON(router, LOOP);
	return ACT_N;
}

// RFC 1812 sections 4.2.2.11, 5.3.7; RFC 6890; RFC 4291 section 2. 0: it may be routed.
static uint16_t martian(const struct way *w)
{
	static const uint8_t zero[16];
	const uint8_t *s = w->src, *d = w->dst;
	bool bad;

	if (w->v6)
		bad = s[0] == 0xff || d[0] == 0xff || !memcmp(s, zero, 15) || !memcmp(d, zero, 15); // ::, ::1 and their like
	else
		bad = !s[0] || s[0] == 127 || s[0] >= 224 || !d[0] || d[0] == 127 || d[0] >= 224;
	if (bad)
		return STAGE_REASON(router, MARTIAN);
	return ip_is_link_local(w->v6, s) || ip_is_link_local(w->v6, d) ? STAGE_REASON(router, LINK_LOCAL) : 0;
}

// Strict and loose source routes (RFC 7126 section 4.3), routing headers of type 0 (RFC 5095).
static bool has_source_route(const struct pkt *p, bool v6)
{
	uint8_t room[64];
	const uint8_t *ip = rte_pktmbuf_read(pkt_mbuf(p), p->l3_ofs, v6 ? 48 : 20, room);
	unsigned len = ip && !v6 ? (ip[0] & 15u) * 4 : 0;

	if (!ip)
		return true;
	if (v6) // in front of any other header, or behind hop-by-hop options, which come first
		return ip[6] == 43 || (ip[6] == 0 && ip[40] == 43);
	ip = rte_pktmbuf_read(pkt_mbuf(p), p->l3_ofs, len, room);
	for (unsigned at = 20; ip && at < len && ip[at]; at += ip[at] == 1 ? 1 : at + 1 < len && ip[at + 1] >= 2 ? ip[at + 1] : len)
		if (ip[at] == 131 || ip[at] == 137)
			return true;
	return false;
}

// ---- resolve

// The router answers it, back to where it came from.
static uint16_t answer(struct resolve *r, struct record *rec, uint8_t action)
{
	rec->ends = ACTS;
	rec->action = action;
	r->flow->out_kind = OUT_PORT;
	r->flow->out = r->in->id;
	r->flow->adj = (uint16_t)(ADJACENCY_ACTIONS | action);
	// What is decided by fields that profiles lack, or comes too rarely to be kept.
	r->flow->flags |= FLOW_UNCACHED;
	return 0;
}

static uint16_t refuse(struct resolve *r, struct record *rec, uint16_t reason, uint32_t row)
{
	rec->ends = DROPPED;
	rec->reason = reason;
	return resolve_drop(r, reason, row);
}

// For one of the router's own addresses.
static uint16_t local(struct resolve *r, struct record *rec, const struct way *w)
{
	uint8_t proto = *resolve_field(r, NW_PROTO, proto), type = (uint8_t)ntohs(r->key->sport);
	bool transport = proto == IPPROTO_UDP || proto == IPPROTO_TCP || proto == IPPROTO_SCTP;

	if (neighbour_is_duplicate(r, w->in->id, w->v6, w->dst)) // somebody else's
		return refuse(r, rec, STAGE_REASON(router, NOT_SERVED), w->in->row);
	if (r->key->class == CLASS_FRAG_FIRST || r->key->class == CLASS_FRAG_LATER) {
		if (!w->in->reassembles)
			return refuse(r, rec, STAGE_REASON(router, FRAGMENT), w->in->row);
		rec->ends = COLLECTED;
		resolve_punt(r, TO_REASSEMBLE, 0);
		return 0;
	}
	if (proto == (w->v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP)) {
		r->flow->flags |= FLOW_UNCACHED; // the type is none of the profile's fields
		if (type == (w->v6 ? 128 : 8))
			return answer(r, rec, ACT_ECHO);
		if (r->key->class == CLASS_ICMP_ERROR && tunnel_mtu_concerns(w->in->router, w->v6, w->dst, type)) {
			rec->ends = LEARNED;
			resolve_punt(r, TO_PATH_MTU, 0);
			return 0;
		}
		return refuse(r, rec, STAGE_REASON(router, NOT_SERVED), w->in->row);
	}
	return answer(r, rec, transport ? ACT_NO_PORT : ACT_NO_PROTO);
}

// On, to a neighbour of w->out.
static uint16_t send_on(struct resolve *r, struct record *rec, const struct way *w, unsigned hops)
{
	struct flow *f = r->flow;
	uint16_t adj = 0;
	int known = neighbour_find(r, w->out->id, next_is_v6(w), w->next, rec->mac, &adj);

	if (known < 0)
		return answer(r, rec, ACT_NO_NEIGHBOUR);
	if (!known) {
		rec->ends = HELD;
		resolve_punt(r, TO_HOLD, w->out->id);
		return 0;
	}
	resolve_depend(r, GEN_NETWORK, w->out->network);
	const struct network *net = network_get(w->out->network);
	if (!net)
		return answer(r, rec, ACT_NO_ROUTE);
	resolve_because(r, net->row);
	rec->ends = SENT_ON;
	f->adj = adj;
	f->flags |= (uint16_t)(hops << FLOW_HOPS_SHIFT);
	f->out_kind = OUT_NONE;
	r->net = net;
	r->pkt->network = net->id;
	// RFC 1812 section 5.2.7.2, RFC 4861 section 8.2.
	const struct router_port *in = hops ? NULL : router_port_get(rec->in);
	// Who is told of another way takes it for all packets, marked or not.
	bool back = in && !w->mark && in->redirects && in->id == w->out->id && next_is_v6(w) == w->v6 && router_port_prefix(in, w->v6, w->src) &&
		    router_port_prefix(in, w->v6, w->next);
	if (back)
		f->flags |= FLOW_REDIRECT;
	if (!hops && !back)
		r->direct |= 1ULL << stage_router.index;
	return fdb_send(r, rec->mac);
}

static void read_way(struct resolve *r, struct way *w)
{
	bool v6 = r->pkt->ethertype == 0x86dd;

	w->v6 = v6;
	w->tos = r->key->tos;
	w->mark = r->mark;
	memset(w->src, 0, 32);
	if (v6) {
		memcpy(w->src, *resolve_field(r, NW_SRC, v6.src), 16);
		memcpy(w->dst, *resolve_field(r, NW_DST, v6.dst), 16);
	} else {
		memcpy(w->src, resolve_field(r, NW_SRC, v4.src), 4);
		memcpy(w->dst, resolve_field(r, NW_DST, v4.dst), 4);
	}
	if (w->in->policy)
		w->tos = *resolve_field(r, NW_TOS, tos);
	w->hash = 0;
	if (w->in->ports) {
		r->fields |= KEY_BIT(TP_SRC) | KEY_BIT(TP_DST) | KEY_BIT(NW_PROTO);
		w->hash = parse_flow_hash(pkt_mbuf(r->pkt));
	}
}

static uint16_t route(struct resolve *r, struct record *rec, struct way *w)
{
	uint16_t reason = 0;
	unsigned hops;

	if (!r->pkt->l3_ofs || (r->pkt->ethertype != 0x0800 && r->pkt->ethertype != 0x86dd))
		return refuse(r, rec, STAGE_REASON(router, NOT_IP), w->in->row);
	read_way(r, w);
	rec->v6 = w->v6;
	memcpy(rec->dst, w->dst, 16);
	if (r->key->class == CLASS_OPTIONS) {
		r->flow->flags |= FLOW_UNCACHED;
		if (has_source_route(r->pkt, w->v6))
			return refuse(r, rec, STAGE_REASON(router, SOURCE_ROUTE), w->in->row);
	}
	if (router_port_has(w->in, w->v6, w->dst))
		return local(r, rec, w);
	reason = martian(w);
	if (reason == STAGE_REASON(router, LINK_LOCAL) && !ip_is_link_local(w->v6, w->dst))
		return answer(r, rec, ACT_SCOPE);
	if (reason)
		return refuse(r, rec, reason, w->in->row);
	int end = through_routers(r, w, &hops, &reason);
	rec->type = (uint8_t)w->route.type;
	rec->len = w->route.len;
	rec->route = w->route.row;
	rec->table = w->route.table;
	rec->mark = w->mark;
	rec->n_hops = w->route.n_hops;
	resolve_because(r, w->route.policy);
	if (w->route.type != ROUTE_LOCAL)
		resolve_because(r, w->route.row);
	if (end == ACT_N)
		return refuse(r, rec, reason, w->route.row);
	if (end == ACT_ECHO)
		return local(r, rec, w);
	if (r->key->class == CLASS_TTL) // what is for the router itself may have used its TTL up
		return answer(r, rec, ACT_TTL);
	if (end >= 0)
		return answer(r, rec, (uint8_t)end);
	rec->out = w->out->id;
	rec->has_gateway = w->route.hop->has_gateway;
	memcpy(rec->gateway, w->next, 16);
	return send_on(r, rec, w, hops);
}

static uint16_t router_resolve(struct resolve *r)
{
	struct flow *f = r->flow;
	const struct router_port *rp = f->out_kind == OUT_PORT ? router_port_get(f->out) : NULL;
	uint16_t reason = 0;

	if (likely(rp != NULL)) {
		struct way w = {.in = rp};
		struct record rec = {.in = rp->id, .router = rp->router_row};

		resolve_depend(r, GEN_PORT, rp->id);
		resolve_because(r, rp->router_row);
		reason = route(r, &rec, &w);
		resolve_record(r, &rec, sizeof rec);
	}
	if (!f->adj || f->out_kind == OUT_PUNT)
		f->stages &= ~(1ULL << stage_router.index);
	return reason;
}

// ---- run

// Turns the packet into an answer that leaves by where it came from. The packet itself ends, and is counted so; the answer is a new one. `by`: the router port whose
// address it has, NULL: that where the packet came in.
static void respond(struct worker *w, struct pkt *p, uint8_t action, const struct router_port *by)
{
	struct rte_mbuf *m = pkt_mbuf(p);
	bool v6 = p->ethertype == 0x86dd;
	const uint8_t *d = pkt_data(p);
	const struct router_port *rp = router_port_with(p->network, d);
	const struct config_prefix *from = rp ? router_port_address(by ? by : rp, v6, d + p->l3_ofs + (v6 ? 8 : 12)) : NULL;
	uint16_t reason = (uint16_t)(stage_router.reason_base + actions[action].reason);
	enum respond_error error = actions[action].error;
	uint32_t row = rp ? rp->row : 0;
	struct config_ip src = {.v6 = v6};
	int rc;

	// RFC 1812 section 4.3.2.4, RFC 4443 section 2.2: of what was for an address of the router's that address, else one of where it came in.
	const uint8_t *own = actions[action].local ? d + p->l3_ofs + (v6 ? 24 : 16) : from ? from->ip.b : NULL;
	if (own)
		memcpy(src.b, own, v6 ? 16 : 4);
	if (!rp || (error != RESPOND_ANSWER && (!from || !respond_error_allowed(m, error))) || !respond_may(w, p->in_port, error)) {
		pkt_drop(p, reason, row);
		return;
	}
	if (error == RESPOND_ANSWER) {
		rc = respond_echo(m, rp->mac, NULL);
		reason = rc ? reason : 0;
	} else {
		rc = respond_error(m, error, rp->mac, &src, 0);
	}
	if (!rc)
		respond_count(w, m, reason, row);
	else
		pkt_drop(p, reason, row);
}

// The way of a packet that is not being decided: where its router sends it now, or with `ttl` the router (w->in) at which that is used up. -1: on; else an action.
static int look_again(struct rte_mbuf *m, uint32_t mark, struct way *w, unsigned ttl)
{
	struct pkt *p = pkt_of(m);
	uint8_t room[60], mac[6];
	bool v6 = p->ethertype == 0x86dd;
	const uint8_t *dst = rte_pktmbuf_read(m, 0, 6, mac), *ip = rte_pktmbuf_read(m, p->l3_ofs, v6 ? 40 : 20, room);
	uint16_t reason;
	unsigned hops;

	*w = (struct way){.v6 = v6, .mark = mark, .ttl = ttl, .in = dst && ip ? router_port_with(p->network, dst) : NULL};
	if (!w->in)
		return ACT_N;
	memcpy(w->src, ip + (v6 ? 8 : 12), v6 ? 16 : 4);
	memcpy(w->dst, ip + (v6 ? 24 : 16), v6 ? 16 : 4);
	w->tos = v6 ? (uint8_t)(((ip[0] & 15) << 4 | ip[1] >> 4) & 0xfc) : ip[1] & 0xfc;
	w->hash = w->in->ports ? parse_flow_hash(m) : 0;
	return through_routers(NULL, w, &hops, &reason);
}

// It passes routers of the switch in one decision, and its TTL is used up at one behind the first: that one says so (RFC 1812 section 5.3.1, RFC 4443 section 3.3).
static __rte_noinline void expire(struct worker *w, struct pkt *p, unsigned ttl)
{
	uint16_t network = mtu_ingress_network(p);
	struct way way;

	p->network = network;
	if (look_again(pkt_mbuf(p), 0, &way, ttl) != ACT_TTL) { // routes have changed since
		pkt_drop(p, STAGE_REASON(router, TTL), 0);
		return;
	}
	respond(w, p, ACT_TTL, way.in);
	if (!p->drop)
		mtu_turn_back(p, network);
}

struct redirect {
	const struct router_port *rp;
	struct config_ip src, target;
	bool v6;
	uint8_t mac[6];
};

static int make_redirect(struct rte_mbuf *m, void *arg)
{
	const struct redirect *d = arg;

	return respond_redirect(m, d->rp->mac, &d->src, &d->target, d->v6 ? d->mac : NULL);
}

// Tells the sender of the next hop, once a second for each port.
static __rte_noinline void redirect(struct worker *w, struct pkt *p, uint32_t adj)
{
	struct port_worker *pw = worker_port(w, p->in_port);
	struct redirect d = {.v6 = p->ethertype == 0x86dd};
	const struct config_prefix *from = NULL;
	struct way way;

	if (!pw || (pw->redirected_ms && w->now_ms - pw->redirected_ms < 1000) || look_again(pkt_mbuf(p), 0, &way, 0) >= 0)
		return;
	d.rp = way.in;
	d.target.v6 = d.v6;
	memcpy(d.target.b, way.next, 16);
	// Of IPv6 it comes from the link-local address, by which hosts know their router.
	for (unsigned i = 0; i < d.rp->n_addresses; i++)
		if (d.rp->address[i].ip.v6 == d.v6 && (!d.v6 || ip_is_link_local(true, d.rp->address[i].ip.b)) && !from)
			from = &d.rp->address[i];
	if (!from || !respond_may(w, p->in_port, RESPOND_NET_UNREACHABLE))
		return;
	d.src = from->ip;
	memcpy(d.mac, adjacency_get(adj)->dst, 6);
	if (!w->dry)
		pw->redirected_ms = w->now_ms ? w->now_ms : 1;
	forward_back(w, p, make_redirect, &d);
}

static void router_run(struct worker *w, struct pkt **p, uint16_t n)
{
	for (unsigned i = 0; i < n; i++) {
		uint32_t adj = pkt_adj(p[i]);
		unsigned more = (p[i]->flags & FLOW_HOPS) >> FLOW_HOPS_SHIFT;
		uint8_t *d = rte_pktmbuf_mtod(pkt_mbuf(p[i]), uint8_t *);

		if (adj >= ADJACENCY_ACTIONS) {
			respond(w, p[i], (uint8_t)adj, NULL);
			continue;
		}
		uint8_t ttl = d[p[i]->l3_ofs + (d[p[i]->l3_ofs] >> 4 == 4 ? 8 : 7)];
		if (unlikely(more && ttl <= more + 1)) {
			expire(w, p[i], ttl);
			continue;
		}
		if (unlikely(mtu_answer(w, p[i])))
			continue;
		if (unlikely(p[i]->flags & FLOW_REDIRECT))
			redirect(w, p[i], adj);
		for (unsigned k = 0; k <= more; k++)
			if (unlikely(!adjacency_apply(d, p[i]->l3_ofs, adjacency_get(adj)))) {
				pkt_drop(p[i], (uint16_t)(forward_reason_base + flow_CHECKSUM), 0);
				break;
			}
	}
}

static void router_refresh(struct worker *w, const struct flow *f)
{
	if (f->adj && f->adj < ADJACENCY_ACTIONS && f->out_kind != OUT_PUNT)
		neighbour_used(f->adj, (uint32_t)(w->now / 1000000000ULL));
}

// ---- main thread

static uint64_t clock_now;

// A worker has the first fragment of a packet whose others are missing.
static void tell_late(struct worker *w, struct rte_mbuf *m, uint16_t arg)
{
	struct rte_mbuf *own = pkt_own_headers(m, (uint16_t)(pkt_of(m)->l3_ofs + 128), w->pool);
	struct pkt *p = pkt_of(own ? own : m);

	if (own)
		respond(w, p, ACT_LATE, NULL);
	if (!own || p->drop) {
		worker_drop_for(w, pkt_mbuf(p), STAGE_REASON(router, FRAGMENT_TIMEOUT), 0);
		return;
	}
	forward_return(p);
	worker_tx(w, &own, 1);
}

static void merged(struct worker *w, struct rte_mbuf *m, uint16_t arg)
{
	worker_merge(w, m);
}

static void fragment_ended(void *arg, struct rte_mbuf *m, enum reassembly_end how, bool first)
{
	if (how == REASSEMBLY_MERGED)
		punt_run(m, merged, 0);
	else if (how == REASSEMBLY_TIMEOUT && first)
		punt_run(m, tell_late, 0);
	else
		punt_drop(m, how == REASSEMBLY_TIMEOUT ? STAGE_REASON(router, FRAGMENT_TIMEOUT) : STAGE_REASON(router, FRAGMENT), 0);
}

// A fragment for the router itself; or a packet that waits for its neighbour. Which one that is may have changed on the way: it is looked up again.
static void router_punted(struct rte_mbuf *m, uint8_t kind, uint16_t arg)
{
	struct way w;

	if (kind == TO_REASSEMBLE) {
		struct rte_mbuf *whole = reassembly_add(REASSEMBLY_ROUTER, m, clock_now, fragment_ended, NULL);

		if (whole)
			punt_resume(whole);
		return;
	}
	if (kind == TO_PATH_MTU) {
		if (tunnel_mtu_learn(m))
			punt_consume(m);
		else
			punt_drop(m, STAGE_REASON(router, NOT_SERVED), 0);
		return;
	}
	if (look_again(m, pkt_actions(pkt_of(m)), &w, 0) >= 0) {
		punt_resume(m);
		return;
	}
	struct config_ip next = {.v6 = next_is_v6(&w)};
	memcpy(next.b, w.next, 16);
	neighbour_hold(w.out->id, &next, m);
}

static void add_ip(struct buf *b, bool v6, const uint8_t *ip)
{
	char text[INET6_ADDRSTRLEN];

	buf_add(b, "%s", inet_ntop(v6 ? AF_INET6 : AF_INET, ip, text, sizeof text) ? text : "?");
}

static void router_format(struct buf *b, const void *record, uint16_t size)
{
	const struct record *r = record;
	const struct row_info *router = row_get(r->router);

	buf_add(b, "%s at %s: ", router ? router->name : "?", lport_name(r->in));
	if (r->ends == DROPPED && r->reason == STAGE_REASON(router, NOT_IP)) {
		buf_add(b, "no IP packet");
		return;
	}
	buf_add(b, "to ");
	add_ip(b, r->v6, r->dst);
	if (r->mark)
		buf_add(b, ", mark 0x%x", r->mark);
	if (r->type) {
		buf_add(b, ", /%u", r->len);
		if (r->table)
			buf_add(b, " of table %u", r->table);
		buf_add(b, " is %s", route_type_name((enum route_type)r->type));
	}
	if (r->out) {
		buf_add(b, " by %s", lport_name(r->out));
		if (r->has_gateway) {
			buf_add(b, " via ");
			add_ip(b, r->v6, r->gateway);
		}
		if (r->n_hops > 1)
			buf_add(b, ", one of %u next hops", r->n_hops);
	}
	if (r->ends == SENT_ON) {
		buf_add(b, ", neighbour ");
		buf_add_mac(b, r->mac);
	} else if (r->ends == HELD) {
		buf_add(b, ", whose neighbour is being asked for");
	} else if (r->ends == COLLECTED) {
		buf_add(b, ": a fragment, which waits for the others");
	} else if (r->ends == LEARNED) {
		buf_add(b, ": an error, which may say what the path of a tunnel takes");
	} else if (r->ends == ACTS && r->action < ACT_N) {
		buf_add(b, ": %s", actions[r->action].text);
	}
}

static uint32_t router_fields(const struct config_network *cn)
{
	unsigned wants = router_table_wants(cn);

	return (wants & ROUTER_WANTS_ADDRESSES ? KEY_BIT(NW_SRC) | KEY_BIT(NW_DST) | KEY_BIT(NW_PROTO) : 0) |
	       (wants & ROUTER_WANTS_PORTS ? KEY_BIT(TP_SRC) | KEY_BIT(TP_DST) : 0) | (wants & ROUTER_WANTS_POLICY ? KEY_BIT(NW_TOS) : 0);
}

static int router_reconcile(struct config *want)
{
	respond_limits((uint32_t)config_map_uint(&want->other_config, "icmp-error-limit", RESPOND_ERRORS_PPS, 1, 1000000, NULL),
		       (uint32_t)config_map_uint(&want->other_config, "answer-limit", RESPOND_ANSWERS_PPS, 1, 10000000, NULL));
	route_routers(want);
	int rc = router_table_reconcile(want), more = route_reconcile(want);

	return rc ? rc : more;
}

static void router_release(void)
{
	reassembly_flush(REASSEMBLY_ROUTER, fragment_ended, NULL);
}

static void router_tick(uint64_t now)
{
	clock_now = now;
	reassembly_tick(REASSEMBLY_ROUTER, now, fragment_ended, NULL);
	route_tick(now);
}

static int router_prepare(struct config *want)
{
	next_hop_ports(want);
	return router_table_prepare(want);
}

static int router_init(void)
{
	next_hop_init();
	return route_init();
}

static void router_fini(void)
{
	router_table_fini();
	route_fini();
}

STAGE(router, .resolve = router_resolve, .run = router_run, .writes = true, .refresh = router_refresh, .format = router_format, .punted = router_punted, .release = router_release,
      .fields = router_fields, .prepare = router_prepare, .reconcile = router_reconcile, .tick = router_tick, .init = router_init, .fini = router_fini);
