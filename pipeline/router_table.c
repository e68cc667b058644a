// router_table: see router_table.h.
#include "router_table.h"
#include "gen.h"
#include "route_table.h"
#include "row.h"
#include "sentence.h"
#include "table_stat.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct router_port *router_ports[MAX_PORTS];
uint16_t router_first[MAX_NETWORKS];

// What the config that was prepared wants of each network, and of each router, ROUTER_WANTS_*, by id.
static uint8_t wants[MAX_NETWORKS], router_wants[MAX_ROUTERS];

const struct router_port *router_port_in(uint16_t network, const struct router_port *after)
{
	return router_port_get(after ? after->next : __atomic_load_n(&router_first[network & (MAX_NETWORKS - 1)], __ATOMIC_ACQUIRE));
}

const struct router_port *router_port_with(uint16_t network, const uint8_t mac[6])
{
	const struct router_port *rp = NULL;

	while ((rp = router_port_in(network, rp)))
		if (!memcmp(rp->mac, mac, 6))
			return rp;
	return NULL;
}

bool ip_in_prefix(const uint8_t *ip, const uint8_t *prefix, unsigned len)
{
	unsigned rest = len % 8;

	return !memcmp(ip, prefix, len / 8) && (!rest || !((ip[len / 8] ^ prefix[len / 8]) >> (8 - rest)));
}

const struct config_prefix *router_port_prefix(const struct router_port *rp, bool v6, const uint8_t *ip)
{
	const struct config_prefix *best = NULL;

	for (unsigned i = 0; i < rp->n_addresses; i++) {
		const struct config_prefix *a = &rp->address[i];

		if (a->ip.v6 == v6 && ip_in_prefix(ip, a->ip.b, a->len) && (!best || a->len > best->len))
			best = a;
	}
	return best;
}

const struct config_prefix *router_port_address(const struct router_port *rp, bool v6, const uint8_t *near)
{
	const struct config_prefix *any = NULL, *in = near ? router_port_prefix(rp, v6, near) : NULL;

	if (in)
		return in;
	for (unsigned i = 0; i < rp->n_addresses; i++) {
		const struct config_prefix *a = &rp->address[i];

		if (a->ip.v6 == v6 && (!any || ip_is_link_local(v6, any->ip.b)))
			any = a;
	}
	return any;
}

bool router_port_has(const struct router_port *rp, bool v6, const uint8_t *ip)
{
	for (unsigned i = 0; i < rp->n_addresses; i++)
		if (rp->address[i].ip.v6 == v6 && !memcmp(rp->address[i].ip.b, ip, v6 ? 16 : 4))
			return true;
	return false;
}

// ---- configuration

static const struct config_network *network_of(const struct config *c, const struct row_id *id)
{
	for (size_t i = 0; i < c->n_networks; i++)
		if (row_id_equal(&c->networks[i].row, id) && c->networks[i].id && !c->networks[i].error)
			return &c->networks[i];
	return NULL;
}

static const struct config_router *router_of(const struct config *c, const struct row_id *id)
{
	for (size_t i = 0; i < c->n_routers; i++)
		if (row_id_equal(&c->routers[i].row, id) && c->routers[i].id && c->routers[i].enabled && !c->routers[i].error)
			return &c->routers[i];
	return NULL;
}

// Two ports of a router can't be in one prefix, and two in a network can't have one address or MAC.
static void check_pair(struct config_router_port *a, const struct config_router_port *b)
{
	bool network = row_id_equal(&a->network, &b->network), router = row_id_equal(&a->router, &b->router);

	if (network && !memcmp(a->mac, b->mac, 6))
		sentence_set(&a->error, "mac: router port %s has the same address in the same network", b->name);
	for (size_t i = 0; i < a->n_addresses && (network || router); i++)
		for (size_t k = 0; k < b->n_addresses; k++) {
			const struct config_prefix *p = &a->addresses[i], *q = &b->addresses[k];
			char text[INET6_ADDRSTRLEN];

			if (p->ip.v6 != q->ip.v6)
				continue;
			inet_ntop(p->ip.v6 ? AF_INET6 : AF_INET, p->ip.b, text, sizeof text);
			if (network && !memcmp(p->ip.b, q->ip.b, p->ip.v6 ? 16 : 4))
				sentence_set(&a->error, "addresses: router port %s has %s too", b->name, text);
			else if (router && !ip_is_link_local(p->ip.v6, p->ip.b) && ip_in_prefix(p->ip.b, q->ip.b, p->len < q->len ? p->len : q->len))
				sentence_set(&a->error, "addresses: %s/%u overlaps a prefix of router port %s", text, p->len, b->name);
		}
}

// It is what it was.
static bool in_force(const struct config *c, const struct config_router_port *cp)
{
	const struct router_port *rp = cp->id && cp->id < MAX_PORTS ? router_ports[cp->id] : NULL;
	const struct config_network *cn = network_of(c, &cp->network);

	if (!rp || !cn || rp->network != cn->id || memcmp(rp->mac, cp->mac, 6) || rp->n_addresses != cp->n_addresses)
		return false;
	return !cp->n_addresses || !memcmp(rp->address, cp->addresses, cp->n_addresses * sizeof rp->address[0]);
}

// Of two that can't both be, the one that works already goes on; else the one that comes first.
static void check_pairs(struct config *c)
{
	bool *old = calloc(c->n_router_ports + 1, sizeof *old);

	for (size_t i = 0; old && i < c->n_router_ports; i++)
		old[i] = in_force(c, &c->router_ports[i]);
	for (int fresh = 0; old && fresh < 2; fresh++)
		for (size_t i = 0; i < c->n_router_ports; i++)
			for (size_t k = 0; k < c->n_router_ports && old[i] == !fresh; k++)
				if (k != i && (old[k] == old[i] ? k < i : old[k]) && !c->router_ports[k].error)
					check_pair(&c->router_ports[i], &c->router_ports[k]);
	free(old);
}

static int by_row(const void *a, const void *b)
{
	return memcmp(&(*(const struct config_port *const *)a)->row, &(*(const struct config_port *const *)b)->row, sizeof(struct row_id));
}

// Of those config ports that are router ports, sorted by row.
static const struct config_port **port_index(const struct config *c, size_t *n)
{
	const struct config_port **index = calloc(c->n_ports + 1, sizeof *index);

	*n = 0;
	for (size_t i = 0; index && i < c->n_ports; i++)
		if (c->ports[i].kind == PORT_ROUTER)
			index[(*n)++] = &c->ports[i];
	if (index && *n)
		qsort(index, *n, sizeof *index, by_row);
	return index;
}

static bool usable(const struct config *c, const struct config_router_port *rp)
{
	return rp->id && rp->enabled && !rp->error && router_of(c, &rp->router) && network_of(c, &rp->network);
}

// Routes of the database are known before they are applied; others are those that are there.
static void read_routes(const struct config *c)
{
	const struct config_router *router;

	for (unsigned i = 1; i < MAX_ROUTERS; i++)
		router_wants[i] = (uint8_t)(ROUTER_WANTS_ADDRESSES | (route_reads_ports((uint16_t)i) ? ROUTER_WANTS_PORTS : 0) |
					    (route_reads_policy((uint16_t)i) ? ROUTER_WANTS_POLICY : 0));
	for (size_t i = 0; i < c->n_routes; i++)
		if (c->routes[i].n_hops > 1 && (router = router_of(c, &c->routes[i].router)))
			router_wants[router->id] |= ROUTER_WANTS_PORTS;
	for (size_t i = 0; i < c->n_policies; i++)
		if ((router = router_of(c, &c->policies[i].router)))
			router_wants[router->id] |= ROUTER_WANTS_POLICY;
}

// A packet passes several routers in one decision: what one of them reads, those read too by whom it may get there.
static void read_neighbouring_routers(const struct config *c)
{
	bool more = true;

	while (more) {
		uint8_t network_wants[MAX_NETWORKS] = {0};

		more = false;
		for (size_t i = 0; i < c->n_router_ports; i++)
			if (usable(c, &c->router_ports[i]))
				network_wants[network_of(c, &c->router_ports[i].network)->id] |= router_wants[router_of(c, &c->router_ports[i].router)->id];
		for (size_t i = 0; i < c->n_router_ports; i++) {
			if (!usable(c, &c->router_ports[i]))
				continue;
			uint8_t *mine = &router_wants[router_of(c, &c->router_ports[i].router)->id], all = *mine | network_wants[network_of(c, &c->router_ports[i].network)->id];
			more |= all != *mine;
			*mine = all;
		}
	}
}

bool router_table_stale(void)
{
	for (unsigned i = 1; i < MAX_ROUTERS; i++)
		if (router_wants[i] && ((route_reads_ports((uint16_t)i) && !(router_wants[i] & ROUTER_WANTS_PORTS)) ||
					(route_reads_policy((uint16_t)i) && !(router_wants[i] & ROUTER_WANTS_POLICY))))
			return true;
	return false;
}

int router_table_prepare(struct config *c)
{
	size_t n;
	const struct config_port **index = port_index(c, &n);

	if (!index)
		return -ENOMEM;
	memset(wants, 0, sizeof wants);
	read_routes(c);
	for (size_t i = 0; i < c->n_router_ports; i++) {
		struct config_router_port *rp = &c->router_ports[i];
		struct config_port key = {.row = rp->row};
		const struct config_port *at = &key, **found = n ? bsearch(&at, index, n, sizeof *index, by_row) : NULL;

		rp->id = found && !(*found)->error ? (*found)->id : 0;
		if (found && (*found)->error)
			sentence_set(&rp->error, "%s", (*found)->error);
	}
	check_pairs(c);
	read_neighbouring_routers(c);
	for (size_t i = 0; i < c->n_router_ports; i++) {
		const struct config_router_port *rp = &c->router_ports[i];

		if (!usable(c, rp))
			continue;
		wants[network_of(c, &rp->network)->id] |= router_wants[router_of(c, &rp->router)->id];
	}
	free(index);
	return 0;
}

unsigned router_table_wants(const struct config_network *cn)
{
	return cn->id < MAX_NETWORKS ? wants[cn->id] : 0;
}

static struct router_port *make(const struct config *c, const struct config_router_port *cp)
{
	const struct config_router *router = router_of(c, &cp->router);
	struct router_port *rp = calloc(1, sizeof *rp + cp->n_addresses * sizeof rp->address[0]);

	if (!rp)
		return NULL;
	rp->id = cp->id;
	rp->router = router->id;
	rp->network = network_of(c, &cp->network)->id;
	rp->row = row_intern("Router_Port", &cp->row, cp->name);
	rp->router_row = row_intern("Router", &router->row, router->name);
	rp->ports = router_wants[router->id] & ROUTER_WANTS_PORTS;
	rp->policy = router_wants[router->id] & ROUTER_WANTS_POLICY;
	rp->redirects = config_map_bool(&cp->other_config, "redirects", true);
	rp->reassembles = config_map_bool(&cp->other_config, "reassembly", true);
	memcpy(rp->mac, cp->mac, 6);
	rp->n_addresses = (uint16_t)cp->n_addresses;
	if (cp->n_addresses)
		memcpy(rp->address, cp->addresses, cp->n_addresses * sizeof rp->address[0]);
	return rp;
}

static bool same(const struct router_port *a, const struct router_port *b)
{
	if (a->router != b->router || a->network != b->network || a->next != b->next || a->row != b->row || a->ports != b->ports || a->policy != b->policy || a->redirects != b->redirects || a->reassembles != b->reassembles || memcmp(a->mac, b->mac, 6) ||
	    a->n_addresses != b->n_addresses)
		return false;
	for (unsigned i = 0; i < a->n_addresses; i++)
		if (a->address[i].len != b->address[i].len || a->address[i].ip.v6 != b->address[i].ip.v6 ||
		    memcmp(a->address[i].ip.b, b->address[i].ip.b, a->address[i].ip.v6 ? 16 : 4))
			return false;
	return true;
}

static bool has_prefix(const struct router_port *rp, uint16_t router, const struct config_prefix *p)
{
	for (unsigned i = 0; rp && rp->router == router && i < rp->n_addresses; i++)
		if (rp->address[i].len == p->len && rp->address[i].ip.v6 == p->ip.v6 && !memcmp(rp->address[i].ip.b, p->ip.b, p->ip.v6 ? 16 : 4))
			return true;
	return false;
}

// What `new` has and `old` hasn't is added to the routes, and the other way round. Link-local prefixes are no routes: they are on every link.
static void update_routes(const struct router_port *old, const struct router_port *new)
{
	for (unsigned i = 0; old && i < old->n_addresses; i++)
		if (!ip_is_link_local(old->address[i].ip.v6, old->address[i].ip.b) && !has_prefix(new, old->router, &old->address[i]))
			route_connected(old->router, old->id, &old->address[i], old->row, false);
	for (unsigned i = 0; new && i < new->n_addresses; i++)
		if (!ip_is_link_local(new->address[i].ip.v6, new->address[i].ip.b) && !has_prefix(old, new->router, &new->address[i]))
			route_connected(new->router, new->id, &new->address[i], new->row, true);
}

static void publish(uint16_t id, struct router_port *new)
{
	struct router_port *old = router_ports[id];

	if (old && new && same(old, new)) {
		free(new);
		return;
	}
	rcu_publish(router_ports[id], new);
	gen_bump(gen_slot(GEN_PORT, id));
	update_routes(old, new);
	rcu_free_later(old);
}

static void fill(table_fill_fn *fn, void *arg)
{
	uint64_t n = 0;

	for (unsigned i = 1; i < MAX_PORTS; i++)
		n += router_ports[i] != NULL;
	fn(arg, NULL, n, MAX_PORTS - 1);
}

static struct table_stat stat = {.name = "router_port", .help = "router ports", .each = fill};

int router_table_reconcile(struct config *c)
{
	struct router_port **fresh = calloc(MAX_PORTS, sizeof *fresh);
	uint16_t *first = calloc(MAX_NETWORKS, sizeof *first);
	int rc = 0;

	table_stat_register(&stat);
	for (size_t i = 0; fresh && first && i < c->n_router_ports; i++) {
		struct config_router_port *rp = &c->router_ports[i];

		if (!usable(c, rp))
			continue;
		fresh[rp->id] = make(c, rp);
		if (!fresh[rp->id]) {
			rc = -ENOMEM;
			continue;
		}
		fresh[rp->id]->next = first[fresh[rp->id]->network];
		first[fresh[rp->id]->network] = rp->id;
	}
	for (unsigned i = 1; fresh && first && i < MAX_PORTS; i++)
		if (fresh[i] || router_ports[i])
			publish((uint16_t)i, fresh[i]);
	for (unsigned i = 1; first && i < MAX_NETWORKS; i++)
		if (router_first[i] != first[i])
			__atomic_store_n(&router_first[i], first[i], __ATOMIC_RELEASE);
	if (!fresh || !first)
		rc = -ENOMEM;
	free(fresh);
	free(first);
	return rc;
}

bool router_any(void)
{
	for (unsigned i = 1; i < MAX_NETWORKS; i++)
		if (router_first[i])
			return true;
	return false;
}

void router_table_fini(void)
{
	for (unsigned i = 0; i < MAX_PORTS; i++) {
		rcu_free_later(router_ports[i]);
		router_ports[i] = NULL;
	}
	memset(router_first, 0, sizeof router_first);
	memset(wants, 0, sizeof wants);
}
