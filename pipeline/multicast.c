// multicast: packets for a group go to the ports that asked for it (RFC 4541), and by a router into its other networks; IGMP and MLD are listened to.
//
// Replaces the flood that stage fdb decided on. What a network knows is on the main thread (group_table.h), and published for this stage
// (group_view.h).
#include "group_config.h"
#include "group_message.h"
#include "group_table.h"
#include "group_verbs.h"
#include "group_view.h"
#include "punt.h"
#include "route_table.h"
#include "stage.h"
#include "targets.h"

#include <string.h>
#include <arpa/inet.h>
#include <rte_branch_prediction.h>

#define MULTICAST_REASONS(X)                                                                                                                         \
	X(multicast, MALFORMED, "an IGMP, MLD or PIM message whose checksum, length or addresses are wrong")                                         \
	X(multicast, ROUTER_GUARD, "a query or a multicast router's announcement, from a port where none may be")                                    \
	X(multicast, NOT_WANTED, "nobody in the network asked for the multicast group, or not from this source")                                     \
	X(multicast, UNREGISTERED, "nobody asked for the multicast group, and the network does not flood such packets")

STAGE_REASONS(multicast, MULTICAST_REASONS);

enum what {
	WHAT_LINK, // a group that is everybody's
	WHAT_QUERY,
	WHAT_QUERY_TUNNEL,
	WHAT_GUARDED,
	WHAT_REPORT,
	WHAT_REPORT_FLOODED,
	WHAT_UNSETTLED,
	WHAT_UNKNOWN, // nobody asked for the group
	WHAT_KNOWN,
};

// What a router does with it.
enum routed {
	ROUTED_NOT,
	ROUTED_YES,
	ROUTED_RPF, // it came in elsewhere than where its source is
	ROUTED_TTL,
};

struct record {
	uint8_t what, routed, unregistered, from_tunnel;
	uint16_t network;
	uint16_t list; // 0: nobody
	uint16_t rpf;  // router port where the source is, 0: there is no route
	struct config_ip group, src;
};

static uint64_t now_ns; // of the last tick

// ---- decisions

static struct config_ip ip_of(struct resolve *r, bool v6, bool dst)
{
	struct config_ip ip = {.v6 = v6};

	if (v6)
		memcpy(ip.b, dst ? *resolve_field(r, NW_DST, v6.dst) : *resolve_field(r, NW_SRC, v6.src), 16);
	else
		memcpy(ip.b, dst ? resolve_field(r, NW_DST, v4.dst) : resolve_field(r, NW_SRC, v4.src), 4);
	return ip;
}

static bool is_only(const struct target_list *l, uint16_t port)
{
	return !l || (l->n == 1 && l->to[0].port == port);
}

static uint16_t to_list(struct resolve *r, struct record *rec, uint16_t list)
{
	r->flow->out_kind = OUT_GROUP;
	r->flow->out = list;
	if (rec->routed == ROUTED_YES)
		r->flow->flags |= FLOW_HOP;
	rec->list = list;
	return 0;
}

// Routers hear of it, and the switch itself.
static void report(struct resolve *r, const struct group_network *gn, bool v6, struct record *rec)
{
	rec->what = gn->settled[v6] ? WHAT_REPORT : WHAT_REPORT_FLOODED;
	if (!gn->settled[v6] && !gn->reports[v6])
		return;
	if (is_only(targets_get(gn->reports[v6]), r->in->id))
		resolve_consume(r);
	else
		to_list(r, rec, gn->reports[v6]);
}

static bool is_pim(const struct config_ip *g)
{
	static const uint8_t v4[4] = {224, 0, 0, 13}, v6[16] = {0xff, 2, [15] = 13};

	return !memcmp(g->b, g->v6 ? v6 : v4, group_address_len(g->v6));
}

// Multicast Router Discovery (RFC 4286): to all snoopers. Of IPv4 it has IGMP's class.
static bool is_snoopers(const struct config_ip *g)
{
	static const uint8_t v4[4] = {224, 0, 0, 106}, v6[16] = {0xff, 2, [15] = 0x6a};

	return !memcmp(g->b, g->v6 ? v6 : v4, group_address_len(g->v6));
}

// Groups that everybody gets (RFC 4541 sections 2.1.2 and 3).
static bool is_everybodys(const struct config_ip *g)
{
	static const uint8_t all[16] = {0xff, 2, [15] = 1};

	return g->v6 ? (g->b[1] & 15) < 2 || !memcmp(g->b, all, 16) || is_pim(g) || is_snoopers(g) : group_ip_is_link(g);
}

// Whether a router takes it into other networks: it has to come from where its source is.
static enum routed may_route(struct resolve *r, const struct group_network *gn, struct record *rec)
{
	const struct config_ip *src = &rec->src;
	struct route_result found = {0};

	if (!gn->router || group_ip_is_link(&rec->group) || group_ip_is_zero(src) || group_ip_is_group(src))
		return ROUTED_NOT;
	if (src->v6 ? src->b[0] == 0xfe && (src->b[1] & 0xc0) == 0x80 : src->b[0] == 169 && src->b[1] == 254)
		return ROUTED_NOT;
	if (*resolve_field(r, CLASS, class) == CLASS_TTL)
		return ROUTED_TTL;
	enum route_type type = route_find(r, gn->router, gn->lport, src->v6, rec->group.b, src->b, 0, 0, 0, &found);
	rec->rpf = type == ROUTE_UNICAST && found.hop ? found.hop->port : 0;
	return rec->rpf == gn->lport ? ROUTED_YES : ROUTED_RPF;
}

static uint16_t unregistered(struct resolve *r, const struct group_network *gn, bool v6, struct record *rec)
{
	rec->what = WHAT_UNKNOWN;
	rec->unregistered = gn->unregistered;
	if (gn->up[v6] && (rec->routed = may_route(r, gn, rec)) == ROUTED_YES)
		return to_list(r, rec, gn->up[v6]);
	// Hosts are to report link-local groups of IPv6 too, but what keeps the link itself running is not left to it that they do.
	if (gn->unregistered == GROUP_FLOOD || group_ip_is_link(&rec->group))
		return 0;
	resolve_because(r, r->net->row);
	if (gn->unregistered == GROUP_ROUTERS && gn->routers[v6])
		return to_list(r, rec, gn->routers[v6]);
	return resolve_drop(r, STAGE_REASON(multicast, UNREGISTERED), r->net->row);
}

// Whom of a list a packet reaches: in its own network, and by a router in others.
static void look_through(const struct resolve *r, uint16_t list, bool *own, bool *others)
{
	const struct target_list *l = targets_get(list);

	for (unsigned i = 0; l && i < l->n; i++) {
		const struct target *t = &l->to[i];

		if (t->network == r->net->id)
			*own = true;
		else if (target_routed(t, r->in->kind == PORT_TUNNEL))
			*others = true;
	}
}

static uint16_t to_group(struct resolve *r, const struct group_network *gn, bool v6, struct record *rec)
{
	uint16_t domain = group_domain(r->net->id, gn->router, &rec->group), list;
	bool own = false, others = false;

	rec->src = ip_of(r, v6, false);
	resolve_depend(r, GEN_GROUP, group_generation(domain, &rec->group));
	if (!group_view_find(domain, &rec->group, rec->src.b, &list))
		return unregistered(r, gn, v6, rec);
	rec->what = WHAT_KNOWN;
	look_through(r, list, &own, &others);
	if (others)
		rec->routed = may_route(r, gn, rec);
	if (rec->routed != ROUTED_YES && !own)
		return resolve_drop(r, STAGE_REASON(multicast, NOT_WANTED), r->net->row);
	return to_list(r, rec, list);
}

static uint16_t decide(struct resolve *r, const struct group_network *gn, bool v6, struct record *rec, bool *listen)
{
	uint8_t class = *resolve_field(r, CLASS, class);
	bool routers;

	rec->group = ip_of(r, v6, true);
	routers = is_pim(&rec->group) || is_snoopers(&rec->group);
	*listen = true;
	if ((class == CLASS_GROUP_QUERY || (routers && class != CLASS_GROUP)) && gn->guarded[r->in->id / 64] >> r->in->id % 64 & 1) {
		rec->what = WHAT_GUARDED;
		*listen = false;
		return resolve_drop(r, STAGE_REASON(multicast, ROUTER_GUARD), r->in->row);
	}
	if (class == CLASS_GROUP_QUERY && !routers) {
		bool ends = gn->asks && r->in->kind == PORT_TUNNEL;

		rec->what = ends ? WHAT_QUERY_TUNNEL : WHAT_QUERY;
		if (ends)
			resolve_consume(r);
		return 0;
	}
	if (class == CLASS_GROUP) {
		report(r, gn, v6, rec);
		return 0;
	}
	*listen = routers;
	if (!group_ip_is_group(&rec->group) || is_everybodys(&rec->group)) {
		rec->what = WHAT_LINK;
		return 0;
	}
	if (!gn->settled[v6]) {
		rec->what = WHAT_UNSETTLED;
		return 0;
	}
	return to_group(r, gn, v6, rec);
}

static uint16_t multicast_resolve(struct resolve *r)
{
	struct flow *f = r->flow;
	uint64_t bit = 1ULL << stage_multicast.index;
	struct record rec = {.network = r->net ? r->net->id : 0, .from_tunnel = r->in && r->in->kind == PORT_TUNNEL};
	bool listen = false;

	f->stages &= ~bit;
	if (f->out_kind != OUT_FLOOD || !(f->flags & FLOW_BUM_MULTICAST))
		return 0;
	resolve_depend(r, GEN_GROUP, group_generation(r->net->id, NULL));
	const struct group_network *gn = group_network_get(r->net->id);
	uint16_t type = *resolve_field(r, DL_TYPE, ethertype);
	if (!gn || (type != htons(RTE_ETHER_TYPE_IPV4) && type != htons(RTE_ETHER_TYPE_IPV6)))
		return 0;
	uint16_t reason = decide(r, gn, type == htons(RTE_ETHER_TYPE_IPV6), &rec, &listen);
	if (listen)
		f->stages |= bit;
	resolve_record(r, &rec, sizeof rec);
	return reason;
}

// ---- listening

static int read_message(struct rte_mbuf *m, struct group_message *msg, uint8_t room[GROUP_MESSAGE_MAX])
{
	const struct pkt *p = pkt_of(m);

	if (!p->l3_ofs || !p->l4_ofs || p->l4_ofs < p->l3_ofs || p->l3_len > GROUP_MESSAGE_MAX || (uint32_t)p->l3_ofs + p->l3_len > m->pkt_len)
		return -1;
	const uint8_t *ip = rte_pktmbuf_read(m, p->l3_ofs, p->l3_len, room);
	return ip ? group_message_read(msg, ip, p->l3_len, p->ethertype == RTE_ETHER_TYPE_IPV6, (uint32_t)p->l4_ofs - p->l3_ofs) : -1;
}

// Multicast Router Discovery of IPv6, types 151 to 153.
static bool is_router_message(const struct pkt *p)
{
	const uint8_t *d = rte_pktmbuf_mtod(pkt_mbuf(p), const uint8_t *);

	return p->proto == 58 && p->l4_ofs && p->l4_ofs < rte_pktmbuf_data_len(pkt_mbuf(p)) && d[p->l4_ofs] >= 151 && d[p->l4_ofs] <= 153;
}

static void multicast_run(struct worker *w, struct pkt **p, uint16_t n)
{
	for (unsigned i = 0; i < n; i++) {
		uint8_t room[GROUP_MESSAGE_MAX];
		struct group_message msg;

		if (p[i]->class != CLASS_GROUP && p[i]->class != CLASS_GROUP_QUERY && p[i]->proto != 103 && !is_router_message(p[i]))
			continue;
		if (read_message(pkt_mbuf(p[i]), &msg, room))
			pkt_drop(p[i], STAGE_REASON(multicast, MALFORMED), 0);
		else if (msg.kind != GROUP_OTHER)
			punt_copy(w, p[i], stage_multicast.index, 0, p[i]->network);
	}
}

static void multicast_punted(struct rte_mbuf *m, uint8_t kind, uint16_t network)
{
	static uint8_t room[GROUP_MESSAGE_MAX];
	struct group_message msg;

	if (!read_message(m, &msg, room))
		group_heard(network, pkt_of(m)->in_port, &msg, now_ns);
	punt_consume(m);
}

// ---- what is said

static void format_ip(struct buf *b, const struct config_ip *ip)
{
	char text[INET6_ADDRSTRLEN];

	buf_add(b, "%s", inet_ntop(ip->v6 ? AF_INET6 : AF_INET, ip->b, text, sizeof text));
}

#define NAMES 12

// Those of the list that a packet of the network reaches.
static void format_list(struct buf *b, const struct record *r)
{
	const struct target_list *l = targets_get(r->list);
	unsigned named = 0, more = 0;

	for (unsigned i = 0; l && i < l->n; i++) {
		const struct target *t = &l->to[i];
		const struct network *net = network_get(t->network);
		bool other = t->network != r->network;

		if (other && (r->routed != ROUTED_YES || !target_routed(t, r->from_tunnel)))
			continue;
		if (named == NAMES) {
			more++;
			continue;
		}
		buf_add(b, "%s%s", named++ ? ", " : "", lport_name(t->port));
		if (other && t->why & TARGET_UPSTREAM)
			buf_add(b, " (upstream)");
		else if (t->why & TARGET_ROUTER)
			buf_add(b, " (a router's)");
		if (other)
			buf_add(b, " in %s", net ? net->name : "a network that is gone");
	}
	if (more)
		buf_add(b, " and %u more", more);
	if (!named)
		buf_add(b, "nobody");
}

static void format_routed(struct buf *b, const struct record *r)
{
	switch ((enum routed)r->routed) {
	case ROUTED_RPF:
		buf_add(b, "; not routed, as its source is %s%s", r->rpf ? "behind " : "nowhere", r->rpf ? lport_name(r->rpf) : "");
		break;
	case ROUTED_TTL:
		buf_add(b, "; not routed, as its TTL is used up");
		break;
	case ROUTED_YES:
		if (r->from_tunnel)
			buf_add(b, "; routed to ports of this switch only");
		break;
	case ROUTED_NOT:
		break;
	}
}

static void multicast_format(struct buf *b, const void *record, uint16_t size)
{
	const struct record *r = record;

	switch ((enum what)r->what) {
	case WHAT_QUERY:
		buf_add(b, "asks who is in a group: everybody hears it");
		return;
	case WHAT_GUARDED:
		buf_add(b, "a query or a multicast router's announcement: by multicast_router none may be at this port");
		return;
	case WHAT_QUERY_TUNNEL:
		buf_add(b, "asks who is in a group: the switch answers for its ports");
		return;
	case WHAT_REPORT:
		buf_add(b, "says which groups somebody wants: ");
		if (r->list)
			format_list(b, r);
		else
			buf_add(b, "no router is to know, the switch does");
		return;
	case WHAT_REPORT_FLOODED:
		buf_add(b, "says which groups somebody wants: flooded, as nobody has asked in the network yet");
		return;
	default:
		break;
	}
	buf_add(b, "group ");
	format_ip(b, &r->group);
	if (r->what == WHAT_LINK) {
		buf_add(b, group_ip_is_group(&r->group) ? " is everybody's: flood" : " is none: flood");
		return;
	}
	if (r->what == WHAT_UNSETTLED) {
		buf_add(b, ": it is not known yet who wants it: flood");
		return;
	}
	buf_add(b, " from ");
	format_ip(b, &r->src);
	if (r->what == WHAT_KNOWN || r->list) {
		buf_add(b, r->what == WHAT_KNOWN ? ": wanted by " : ": nobody asked for it: to ");
		format_list(b, r);
	} else if (r->unregistered == GROUP_FLOOD || group_ip_is_link(&r->group)) {
		buf_add(b, ": nobody asked for it: flood");
	} else {
		buf_add(b, ": nobody asked for it, and it is not flooded here");
	}
	format_routed(b, r);
}

// ---- set up

static uint32_t multicast_fields(const struct config_network *cn)
{
	return config_map_bool(&cn->multicast, "snooping", false) ? KEY_BIT(NW_SRC) | KEY_BIT(NW_DST) : 0;
}

static int multicast_reconcile(struct config *want)
{
	return group_reconcile(want, now_ns);
}

static void multicast_tick(uint64_t now)
{
	now_ns = now;
	group_tick(now);
}

static int multicast_init(void)
{
	now_ns = 0;
	group_config_init();
	group_verbs_init();
	return group_table_init();
}

static void multicast_fini(void)
{
	group_table_fini();
	group_verbs_fini();
}

STAGE(multicast, .fields = multicast_fields, .resolve = multicast_resolve, .run = multicast_run, .punted = multicast_punted,
      .format = multicast_format, .reconcile = multicast_reconcile, .tick = multicast_tick, .init = multicast_init, .fini = multicast_fini,
      .verbs = group_verbs);
