// route_config: routes and policies of the database.
#include "key.h"
#include "route_private.h"
#include "router_table.h"
#include "row.h"
#include "sentence.h"
#include "stage.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

// What a row stands for.
struct applied {
	uint32_t row;
	uint16_t router;
	uint32_t table;
	uint32_t metric;
	struct config_prefix prefix;
};

static struct applied *applied; // by row
static size_t n_applied;
static uint64_t applied_context; // context_of() at that time
static bool applied_all;         // none failed for want of room
static bool rows_wanted;

static uint64_t mix(uint64_t h, const void *bytes, size_t n)
{
	for (size_t i = 0; i < n; i += 8) {
		uint64_t w = 0;

		memcpy(&w, (const uint8_t *)bytes + i, n - i < 8 ? n - i : 8);
		h = key_mum(h ^ w ^ key_secret[0], key_secret[1]);
	}
	return h;
}

// What rows of routes depend on, beside themselves: ids of routers and router ports, and which of these are in force.
static uint64_t context_of(const struct config *c)
{
	uint64_t h = 0;

	for (size_t i = 0; i < c->n_routers; i++) {
		h = mix(h, &c->routers[i].row, sizeof c->routers[i].row);
		h = mix(h, &c->routers[i].id, sizeof c->routers[i].id);
	}
	for (size_t i = 0; i < c->n_router_ports; i++) {
		const struct config_router_port *cp = &c->router_ports[i];
		const struct router_port *rp = cp->id ? router_port_get(cp->id) : NULL;

		h = mix(h, &cp->row, sizeof cp->row);
		h = mix(h, &cp->router, sizeof cp->router);
		h = mix(h, &cp->id, sizeof cp->id);
		for (unsigned k = 0; rp && k < rp->n_addresses; k++) {
			h = mix(h, &rp->address[k].ip.v6, 1);
			h = mix(h, rp->address[k].ip.b, 16);
			h = mix(h, &rp->address[k].len, 1);
		}
	}
	return h;
}

static const struct config_router *router_of(const struct config *c, const struct row_id *id)
{
	for (size_t i = 0; i < c->n_routers; i++)
		if (row_id_equal(&c->routers[i].row, id))
			return &c->routers[i];
	return NULL;
}

static const struct config_router_port *port_of(const struct config *c, const struct row_id *id)
{
	for (size_t i = 0; i < c->n_router_ports; i++)
		if (row_id_equal(&c->router_ports[i].row, id))
			return &c->router_ports[i];
	return NULL;
}

static const char *ip_text(const struct config_ip *ip, char text[INET6_ADDRSTRLEN])
{
	return inet_ntop(ip->v6 ? AF_INET6 : AF_INET, ip->b, text, INET6_ADDRSTRLEN);
}

// The row's next hops as the tables have them. False: the row can't be, and says why.
static bool hops_of(const struct config *c, struct config_route *cr, const struct config_router *router, struct route_hop *hop)
{
	char text[INET6_ADDRSTRLEN];

	if (cr->type == ROUTE_UNICAST && !cr->n_hops)
		sentence_set(&cr->error,
			     "the route has no next hop: give it one, or the type blackhole, unreachable or prohibit");
	else if (cr->n_hops > ROUTE_HOPS_MAX)
		sentence_set(&cr->error, "the route has %zu next hops; %d are possible", cr->n_hops, ROUTE_HOPS_MAX);
	for (size_t i = 0; !cr->error && i < cr->n_hops; i++) {
		const struct config_next_hop *h = &cr->hops[i];
		const struct config_router_port *p = h->has_port ? port_of(c, &h->port) : NULL;

		hop[i] = (struct route_hop){.weight = h->weight ? h->weight : 1,
					    .has_gateway = h->has_gateway,
					    .by_address = !h->has_port,
					    .gateway = h->gateway};
		if (h->has_gateway && h->gateway.v6 != cr->prefix.ip.v6)
			sentence_set(&cr->error, "the gateway %s is not of the prefix' family", ip_text(&h->gateway, text));
		else if (!h->has_gateway && !h->has_port)
			sentence_set(&cr->error, "a next hop has neither a gateway nor a router port");
		else if (p && !row_id_equal(&p->router, &cr->router))
			sentence_set(&cr->error, "router port %s is not one of router %s", p->name, router->name);
		else if (h->has_gateway && h->gateway.v6 && !h->has_port && h->gateway.b[0] == 0xfe &&
			 (h->gateway.b[1] & 0xc0) == 0x80)
			sentence_set(&cr->error, "the gateway %s is link-local: say which router port it is at",
				     ip_text(&h->gateway, text));
		if (p)
			hop[i].port = p->id; // a port that isn't there yet has none: the hop isn't used
	}
	return !cr->error;
}

static void check_gateways(struct config_route *cr, const struct router *r, const struct route_hop *hop)
{
	char text[INET6_ADDRSTRLEN];

	for (size_t i = 0; i < cr->n_hops; i++)
		if (hop[i].by_address && !route_gateway_port(r, &hop[i].gateway))
			sentence_set(&cr->error,
				     "no port of router %s has a prefix that the gateway %s is in: the next hop is not used "
				     "until one has",
				     r->name, ip_text(&hop[i].gateway, text));
}

static const struct applied *applied_find(uint32_t row)
{
	size_t lo = 0, hi = n_applied;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (applied[mid].row < row)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < n_applied && applied[lo].row == row ? &applied[lo] : NULL;
}

// Sets the row's route. False: it isn't there, and *a is nothing.
static bool apply(struct config *want, struct config_route *cr, struct applied *a)
{
	static struct route_hop hop[ROUTE_HOPS_MAX];
	const struct config_router *router = router_of(want, &cr->router);
	char name[INET6_ADDRSTRLEN + 4], text[INET6_ADDRSTRLEN];

	snprintf(name, sizeof name, "%s/%u", ip_text(&cr->prefix.ip, text), cr->prefix.len);
	uint32_t row = row_intern("Route", &cr->row, name);
	const struct applied *before = applied_find(row);
	bool there = before && route_router_name(before->router);
	if (there)
		*a = *before; // what a row that went bad, or is incomplete for now, stays
	if (cr->error || !router || !router->id || !hops_of(want, cr, router, hop))
		return there;
	struct router *r = route_router_get(router->id);
	struct route_spec s = {.prefix = cr->prefix,
			       .source = ROUTE_CONFIG,
			       .type = cr->type,
			       .metric = cr->metric,
			       .row = row,
			       .n_hops = cr->type == ROUTE_UNICAST ? (uint16_t)cr->n_hops : 0,
			       .hop = hop};
	int rc = r ? route_set(router->id, cr->table, &s) : -ENOMEM;
	if (rc == -ENOSPC)
		sentence_set(&cr->error, "there is no room for the route: %d routes, or %d tables of a router", ROUTE_MAX,
			     ROUTE_TABLES_MAX);
	else if (rc)
		sentence_set(&cr->error, "out of memory");
	if (rc) {
		applied_all = false;
		return there;
	}
	if (s.n_hops)
		check_gateways(cr, r, hop);
	*a = (struct applied){row, router->id, cr->table, cr->metric, prefix_masked(cr->prefix)};
	return true;
}

static int by_row(const void *a, const void *b)
{
	const struct applied *x = a, *y = b;

	return x->row < y->row ? -1 : x->row > y->row;
}

static void remove_applied(const struct applied *a)
{
	route_remove(a->router, a->table,
		     &(struct route_spec){.prefix = a->prefix, .source = ROUTE_CONFIG, .metric = a->metric, .row = a->row});
}

static bool same_place(const struct applied *a, const struct applied *b)
{
	return a->router == b->router && a->table == b->table && a->metric == b->metric && a->prefix.len == b->prefix.len &&
	       a->prefix.ip.v6 == b->prefix.ip.v6 && !memcmp(a->prefix.ip.b, b->prefix.ip.b, 16);
}

static int reconcile_routes(struct config *want)
{
	uint64_t context = context_of(want);

	rows_wanted = want->routes_kept && (!applied_all || context != applied_context);
	if (want->routes_kept)
		return 0;
	struct applied *now = calloc(want->n_routes + 1, sizeof *now);
	size_t n = 0, k = 0;
	applied_context = context;
	applied_all = now != NULL;
	if (!now)
		return -ENOMEM;
	// What is new comes first, so that an address whose route moves from one row to another, or from one metric to another,
	// is never without.
	for (size_t i = 0; i < want->n_routes; i++)
		n += apply(want, &want->routes[i], &now[n]);
	qsort(now, n, sizeof *now, by_row);
	for (size_t i = 0; i < n_applied; i++) {
		while (k < n && now[k].row < applied[i].row)
			k++;
		if (k == n || now[k].row != applied[i].row || !same_place(&now[k], &applied[i]))
			remove_applied(&applied[i]);
	}
	free(applied);
	applied = now;
	n_applied = n;
	return 0;
}

static int by_priority(const void *a, const void *b)
{
	const struct policy *x = a, *y = b;

	if (x->priority != y->priority)
		return x->priority < y->priority ? -1 : 1;
	return x->row < y->row ? -1 : x->row > y->row;
}

static bool policy_of(const struct config *want, struct config_route_policy *cp, struct policy *p)
{
	const struct config_router_port *port = cp->has_port ? port_of(want, &cp->port) : NULL;
	char name[16];

	if (cp->error)
		return false;
	if (cp->has_src && cp->has_dst && cp->src.ip.v6 != cp->dst.ip.v6) {
		sentence_set(&cp->error, "source and destination are of different families: no packet is");
		return false;
	}
	snprintf(name, sizeof name, "%u", cp->priority);
	p->priority = cp->priority;
	p->row = row_intern("Route_Policy", &cp->row, name);
	p->table = cp->table;
	p->type = cp->type;
	p->has_src = cp->has_src;
	p->has_dst = cp->has_dst;
	p->has_port = cp->has_port;
	p->port = port ? port->id : 0;
	p->dscp = cp->dscp;
	p->mark = cp->mark;
	if (cp->has_src)
		p->src = prefix_masked(cp->src);
	if (cp->has_dst)
		p->dst = prefix_masked(cp->dst);
	return true;
}

// A row that went bad leaves its rule as it was.
static bool policy_before(const struct router *r, const struct config_route_policy *cp, struct policy *p)
{
	for (uint32_t i = 0; r->policies && i < r->policies->n; i++) {
		const struct row_info *row = row_get(r->policies->policy[i].row);

		if (row && row_id_equal(&row->id, &cp->row)) {
			*p = r->policies->policy[i];
			return true;
		}
	}
	return false;
}

static int reconcile_policies(struct config *want)
{
	for (size_t i = 0; i < want->n_routers; i++) {
		const struct config_router *cr = &want->routers[i];
		struct router *r = cr->id ? route_router_get(cr->id) : NULL;
		struct policies *all = r ? calloc(1, sizeof *all + want->n_policies * sizeof all->policy[0]) : NULL;

		if (!r)
			continue;
		if (!all)
			return -ENOMEM;
		for (size_t k = 0; k < want->n_policies; k++) {
			struct config_route_policy *cp = &want->policies[k];
			struct policy *p = &all->policy[all->n];

			if (!row_id_equal(&cp->router, &cr->row) || (!policy_of(want, cp, p) && !policy_before(r, cp, p)))
				continue;
			all->n++;
			all->reads |= p->has_src || p->has_port || p->dscp >= 0;
		}
		qsort(all->policy, all->n, sizeof all->policy[0], by_priority);
		if (!all->n) {
			free(all);
			all = NULL;
		}
		route_set_policies(r, all);
	}
	return 0;
}

int route_reconcile(struct config *want)
{
	route_routers(want);
	int rc = reconcile_routes(want);
	if (!rc)
		rc = reconcile_policies(want);
	route_commit();
	return rc;
}

bool route_rows_wanted(void)
{
	return rows_wanted;
}

void route_config_fini(void)
{
	applied_all = rows_wanted = false;
	free(applied);
	applied = NULL;
	n_applied = 0;
}
