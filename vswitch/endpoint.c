// endpoint: see endpoint.h.
#include "endpoint.h"
#include "buf.h"
#include "port.h"
#include "topology.h"
#include "tunnel_table.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

struct texts {
	char **text;
	size_t n, room;
};

static void add(struct texts *t, char *text)
{
	if (t->n == t->room) {
		size_t room = t->room ? 2 * t->room : 64;
		char **more = realloc(t->text, room * sizeof *more);

		if (!more) {
			free(text);
			return;
		}
		t->text = more;
		t->room = room;
	}
	if (text)
		t->text[t->n++] = text;
}

static void add_ip(struct buf *b, const struct config_ip *ip)
{
	char text[INET6_ADDRSTRLEN];

	buf_add(b, "%s", inet_ntop(ip->v6 ? AF_INET6 : AF_INET, ip->b, text, sizeof text));
}

static void add_station(struct texts *t, const struct config_network *n, const struct config_address *a)
{
	struct buf b = {0};

	buf_add(&b, "%s ", n->name);
	buf_add_mac(&b, a->mac);
	for (size_t i = 0; i < a->n_ips; i++) {
		buf_add(&b, " ");
		add_ip(&b, &a->ip[i]);
	}
	add(t, b.text);
}

// By a router of this switch somebody here may want what is sent to a group in the network.
static bool routes_multicast(const struct config *c, const struct config_network *n)
{
	if (!config_map_bool(&n->multicast, "snooping", false))
		return false;
	for (size_t i = 0; i < c->n_router_ports; i++) {
		const struct config_router_port *rp = &c->router_ports[i];

		if (rp->error || !rp->enabled || !rp->id || !row_id_equal(&rp->network, &n->row))
			continue;
		for (size_t k = 0; k < c->n_routers; k++)
			if (row_id_equal(&c->routers[k].row, &rp->router) && c->routers[k].enabled && config_map_bool(&c->routers[k].other_config, "multicast", false))
				return true;
	}
	return false;
}

// Those of a network. A port without addresses, or one that isn't alone in the network's native one, may have any station.
static void add_stations(struct texts *t, const struct config *c, const struct config_network *n)
{
	size_t before = t->n;
	bool others = false;

	for (size_t i = 0; i < c->n_ports; i++) {
		const struct config_port *cp = &c->ports[i];
		const struct lport *lp = cp->id && cp->kind == PORT_DEVICE ? lport_get(cp->id) : NULL;
		bool native = lp && lp->untagged.network == n->id;

		if (!lp || lp->reserved || (!native && !(lp->vlans && lp->vlans[n->vlan].network == n->id)))
			continue;
		bool has = row_id_equal(&cp->network, &n->row) && cp->n_addresses;
		for (size_t k = 0; has && k < cp->n_addresses; k++)
			add_station(t, n, &cp->addresses[k]);
		others |= !has;
	}
	if (others)
		add(t, strdup(n->name));
	if (t->n == before && routes_multicast(c, n)) {
		struct buf b = {0};

		buf_add(&b, "%s -", n->name);
		add(t, b.text);
	}
}

static void counts_of(uint16_t port, uint64_t *rx, uint64_t *tx)
{
	const struct port *p = port_get(port);
	struct counts sum = {0};

	if (p)
		port_counts(p, &sum);
	*rx = sum.c[COUNT_RX];
	*tx = sum.c[COUNT_TX];
}

void endpoint_publish(const struct config *c, struct db *db)
{
	struct texts ips = {.n = 0}, stations = {.n = 0};

	tunnel_counts = counts_of; // for weirctl tunnel list
	for (size_t i = 0; i < c->n_tunnel_ips; i++) {
		struct buf b = {0};

		add_ip(&b, &c->tunnel_ips[i]);
		add(&ips, b.text);
	}
	for (size_t i = 0; ips.n && i < c->n_networks; i++)
		if (c->networks[i].vni && c->networks[i].id && !c->networks[i].error)
			add_stations(&stations, c, &c->networks[i]);
	db_publish(db, (const char *const *)ips.text, ips.n, (const char *const *)stations.text, stations.n);
	for (size_t i = 0; i < ips.n; i++)
		free(ips.text[i]);
	for (size_t i = 0; i < stations.n; i++)
		free(stations.text[i]);
	free(ips.text);
	free(stations.text);
}
