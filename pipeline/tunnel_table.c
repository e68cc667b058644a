// tunnel_table: see tunnel_table.h.
#include "tunnel_table.h"
#include "fdb.h"
#include "gen.h"
#include "neighbour_table.h"
#include "route_table.h"
#include "router_table.h"
#include "sentence.h"
#include "table_stat.h"
#include "topology.h"
#include "tunnel.h"
#include "tunnel_mtu.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_AGAIN_NS 1000000000ULL

// What all tunnels have in common.
static struct {
	int ttl, dscp;
	bool df, checksum4, checksum6;
	struct {
		struct config_ip ip;
		uint16_t router, router_port, network; // router_port 0: there is no such end point
		uint8_t mac[6];
		bool collects;
	} end[2]; // IPv4, IPv6
} own;

void (*tunnel_counts)(uint16_t port, uint64_t *rx, uint64_t *tx);

static struct tunnel_view *tunnels;
static size_t n_tunnels;
static uint32_t seen_epoch;
static uint64_t seen_ns;

// Next hops on the way to remote end points, by tunnel: they are watched as those of routes are.
static struct {
	uint16_t router_port; // 0: none
	struct config_ip ip;
} hops[MAX_PORTS];

// ---- what the config says

static const struct config_router_port *port_with(const struct config *c, const struct config_ip *ip)
{
	for (size_t i = 0; i < c->n_router_ports; i++)
		for (size_t k = 0; k < c->router_ports[i].n_addresses; k++)
			if (c->router_ports[i].addresses[k].ip.v6 == ip->v6 && !memcmp(c->router_ports[i].addresses[k].ip.b, ip->b, ip->v6 ? 16 : 4))
				return &c->router_ports[i];
	return NULL;
}

static const struct config_network *network_of(const struct config *c, const struct row_id *row)
{
	for (size_t i = 0; i < c->n_networks; i++)
		if (row_id_equal(&c->networks[i].row, row))
			return &c->networks[i];
	return NULL;
}

// The network that tunnels of a family go through, or NULL.
static const struct config_network *underlay_of(const struct config *c, bool v6)
{
	for (size_t i = 0; i < c->n_tunnel_ips; i++) {
		const struct config_router_port *rp = c->tunnel_ips[i].v6 == v6 ? port_with(c, &c->tunnel_ips[i]) : NULL;

		if (rp)
			return network_of(c, &rp->network);
	}
	return NULL;
}

static bool is_in(const struct config_port *cp, const struct config_network *n)
{
	bool trunk = cp->vlan_mode == VLAN_TRUNK || cp->vlan_mode == VLAN_NATIVE_TAGGED || cp->vlan_mode == VLAN_NATIVE_UNTAGGED;

	if (row_id_equal(&cp->network, &n->row) && cp->vlan_mode != VLAN_TRUNK)
		return true;
	for (size_t i = 0; i < cp->n_trunks; i++)
		if (trunk && row_id_equal(&cp->trunks[i], &n->row))
			return true;
	return trunk && !cp->n_trunks && n->vlan;
}

static enum tunnel_format format_of(const struct config_network *n)
{
	int f = tunnel_format_find(n->tunnel ? n->tunnel : "vxlan");

	return f < TUNNEL_FORMATS ? (enum tunnel_format)f : TUNNEL_VXLAN;
}

static bool allows_tags(const struct config_network *n)
{
	return config_map_bool(&n->other_config, "inner-vlan", false);
}

// Bytes of layer 3 that an underlay's packet has room for: what its network says, or a port of it that is no guest's, if that is less.
static unsigned underlay_mtu(const struct config *c, const struct config_network *under)
{
	unsigned mtu = under->mtu ? under->mtu : 1500;

	for (size_t i = 0; i < c->n_ports; i++) {
		const struct config_port *cp = &c->ports[i];

		if (cp->kind == PORT_DEVICE && cp->mtu && cp->mtu < mtu && cp->type && strcmp(cp->type, "vhost-user") && is_in(cp, under))
			mtu = cp->mtu;
	}
	return mtu;
}

// What is left of it for a network's packets; 0: there is no underlay of that family.
static unsigned mtu_through(const struct config *c, bool v6, enum tunnel_format f, bool tags)
{
	const struct config_network *under = underlay_of(c, v6);
	unsigned overhead = tunnel_overhead(f, v6) + (tags ? 4 : 0), mtu = under ? underlay_mtu(c, under) : 0;

	return mtu > overhead + 68 ? mtu - overhead : 0;
}

// A tunnel's port has one MTU for all networks: that of the format with the largest header among them.
static uint16_t port_mtu(const struct config *c, const struct config_port *cp)
{
	unsigned least = 0;

	for (size_t i = 0; i < cp->n_trunks; i++) {
		const struct config_network *n = network_of(c, &cp->trunks[i]);
		unsigned mtu = n && n->vni ? mtu_through(c, cp->remote.v6, format_of(n), allows_tags(n)) : 0;

		if (mtu && (!least || mtu < least))
			least = mtu;
	}
	return (uint16_t)(least ? least : mtu_through(c, cp->remote.v6, TUNNEL_VXLAN, false));
}

// What the path leaves of that. Networks keep theirs: what routers say lasts ten minutes, and may be made up.
static uint16_t path_mtu(const struct config *c, const struct config_port *cp)
{
	const struct config_network *under = cp->mtu ? underlay_of(c, cp->remote.v6) : NULL;

	return under ? tunnel_mtu_inner(&cp->remote, cp->mtu, underlay_mtu(c, under) - cp->mtu) : cp->mtu;
}

// Everything that follows from a network's MTU (of guests, of router ports, advertised) is to be what each of its tunnels takes.
static void limit_networks(struct config *c, const struct config_port *tunnel)
{
	const struct config_network *under[] = {underlay_of(c, false), underlay_of(c, true)};

	for (size_t i = 0; i < c->n_networks; i++) {
		struct config_network *n = &c->networks[i];
		bool in = false;

		for (size_t k = 0; k < tunnel->n_trunks && !in; k++)
			in = row_id_equal(&tunnel->trunks[k], &n->row);
		if (in && n->vni && n != under[0] && n != under[1] && tunnel->mtu && (!n->mtu || tunnel->mtu < n->mtu))
			n->mtu = tunnel->mtu;
	}
}

static void check_vnis(struct config *c)
{
	for (size_t i = 0; i < c->n_networks; i++) {
		struct config_network *n = &c->networks[i];

		for (size_t k = 0; k < i && n->vni; k++)
			if (c->networks[k].vni == n->vni && format_of(&c->networks[k]) == format_of(n))
				sentence_set(&n->error, "network %s has VNI %u too, and the same kind of tunnel", c->networks[k].name, (unsigned)n->vni);
	}
}

int tunnel_table_prepare(struct config *c)
{
	check_vnis(c);
	tunnel_mtu_prepare(c);
	for (size_t i = 0; i < c->n_ports; i++) {
		struct config_port *cp = &c->ports[i];

		cp->underlay = false;
		for (int v6 = 0; v6 < 2 && cp->kind == PORT_DEVICE; v6++) {
			const struct config_network *under = underlay_of(c, v6);

			cp->underlay |= under && is_in(cp, under);
		}
		if (cp->kind != PORT_TUNNEL)
			continue;
		cp->mtu = port_mtu(c, cp);
		limit_networks(c, cp);
		cp->mtu = path_mtu(c, cp);
	}
	return 0;
}

// ---- the table of workers

static void table_free(void *arg)
{
	struct tunnel_table *t = arg;

	if (!t)
		return;
	free(t->vni);
	free(t->remote);
	free(t->port);
	free(t);
}

static uint32_t mask_for(size_t n)
{
	uint32_t mask = 15;

	while (mask < 2 * n)
		mask = mask << 1 | 1;
	return mask;
}

static void add_network(struct tunnel_table *t, const struct config_network *n)
{
	uint32_t key = tunnel_key(format_of(n), n->vni), at = tunnel_hash_vni(key);

	while (t->vni[at & t->vni_mask].network)
		at++;
	t->vni[at & t->vni_mask] = (struct tunnel_vni){key, n->id};
	t->network[n->id] = (struct tunnel_network){.key = key, .tags = allows_tags(n), .used = true};
}

static void add_remote(struct tunnel_table *t, const struct config_port *cp)
{
	struct tunnel_remote r = {.v6 = cp->remote.v6, .port = cp->id};

	memcpy(r.ip, cp->remote.b, r.v6 ? 16 : 4);
	uint32_t at = tunnel_hash_remote(r.ip);
	while (t->remote[at & t->remote_mask].port)
		at++;
	t->remote[at & t->remote_mask] = r;
	t->port[t->n_ports++] = cp->id;
}

static struct tunnel_table *table_make(const struct config *c)
{
	struct tunnel_table *t = calloc(1, sizeof *t);
	size_t n = 0;

	if (!t)
		return NULL;
	for (size_t i = 0; i < c->n_ports; i++)
		n += c->ports[i].kind == PORT_TUNNEL && c->ports[i].id && !c->ports[i].error;
	t->vni_mask = mask_for(c->n_networks);
	t->remote_mask = mask_for(n);
	t->vni = calloc(t->vni_mask + 1, sizeof *t->vni);
	t->remote = calloc(t->remote_mask + 1, sizeof *t->remote);
	t->port = calloc(n + 1, sizeof *t->port);
	if (!t->vni || !t->remote || !t->port) {
		table_free(t);
		return NULL;
	}
	for (unsigned f = 0; f < 2; f++) {
		t->end[f].network = own.end[f].router_port ? own.end[f].network : TUNNEL_NO_NETWORK;
		memcpy(t->end[f].mac, own.end[f].mac, 6);
		memcpy(t->end[f].ip, own.end[f].ip.b, 16);
		t->end[f].router = own.end[f].router;
		t->end[f].collects = own.end[f].collects;
	}
	for (size_t i = 0; i < c->n_networks; i++)
		if (c->networks[i].vni && c->networks[i].id && !c->networks[i].error)
			add_network(t, &c->networks[i]);
	for (size_t i = 0; i < c->n_ports; i++)
		if (c->ports[i].kind == PORT_TUNNEL && c->ports[i].id && !c->ports[i].error)
			add_remote(t, &c->ports[i]);
	return t;
}

static bool table_same(const struct tunnel_table *a, const struct tunnel_table *b)
{
	return a->vni_mask == b->vni_mask && a->remote_mask == b->remote_mask && a->n_ports == b->n_ports && !memcmp(a->end, b->end, sizeof a->end) &&
	       !memcmp(a->network, b->network, sizeof a->network) && !memcmp(a->vni, b->vni, (a->vni_mask + 1) * sizeof *a->vni) &&
	       !memcmp(a->remote, b->remote, (a->remote_mask + 1) * sizeof *a->remote) && !memcmp(a->port, b->port, a->n_ports * sizeof *a->port);
}

// ---- ways

static void publish_way(uint16_t port, struct tunnel_way *new)
{
	struct tunnel_way *old = tunnel_ways[port];

	if (old && new && !memcmp(old, new, sizeof *old)) {
		free(new);
		return;
	}
	if (!old && !new)
		return;
	rcu_publish(tunnel_ways[port], new);
	rcu_free_later(old);
}

// The next hop on the way to the remote end point: its address and router port. False: there is no route.
static bool find_hop(struct tunnel_view *v, uint16_t *router_port)
{
	struct route_result r;
	unsigned f = v->remote.v6;

	if (route_find(NULL, own.end[f].router, 0, v->remote.v6, v->local.b, v->remote.b, 0, 0, 0, &r) != ROUTE_UNICAST || !r.hop)
		return false;
	v->has_hop = true;
	v->hop = r.hop->has_gateway ? r.hop->gateway : v->remote;
	*router_port = r.hop->port;
	return true;
}

// The port of the underlay where the address is; while that isn't known, the only one that there is. 0: there are several.
static uint16_t find_port(uint16_t network, const uint8_t mac[6])
{
	const struct network *net = network_get(network);
	uint16_t only = 0;
	struct fdb_entry e;

	if (fdb_lookup(fdb_key(network, mac), &e)) {
		const struct lport *lp = lport_get(e.port);

		return lp && lp->kind == PORT_DEVICE && lp->enabled ? e.port : 0;
	}
	for (uint32_t i = 0; net && i < net->n_targets; i++) {
		const struct lport *lp = lport_get(net->target[i].port);

		if (!lp || lp->kind != PORT_DEVICE)
			continue;
		if (only)
			return 0;
		only = lp->id;
	}
	return only;
}

static enum tunnel_state look(struct tunnel_view *v, uint16_t *router_port)
{
	unsigned f = v->remote.v6;
	uint16_t adj;

	v->has_hop = false;
	v->out = v->underlay = 0;
	v->local = own.end[f].ip;
	if (!own.end[f].router_port)
		return TUNNEL_NO_END;
	if (!find_hop(v, router_port))
		return TUNNEL_NO_ROUTE;
	neighbour_want(*router_port, &v->hop);
	int known = neighbour_find(NULL, *router_port, v->hop.v6, v->hop.b, v->mac, &adj);
	if (known <= 0)
		return known ? TUNNEL_DEAD : TUNNEL_NO_NEIGHBOR;
	const struct router_port *rp = router_port_get(*router_port);
	v->underlay = rp ? rp->network : 0;
	v->out = rp && network_get(rp->network) ? find_port(rp->network, v->mac) : 0;
	return v->out ? TUNNEL_UP : TUNNEL_NO_PORT;
}

static struct tunnel_way *make_way(const struct tunnel_view *v, const struct router_port *rp)
{
	struct tunnel_way *way = calloc(1, sizeof *way);
	uint16_t path = tunnel_mtu_path(&v->remote, NULL);
	struct tunnel_spec s = {
		.v6 = v->remote.v6,
		.vlan = lport_tag(lport_get(v->out), network_get(v->underlay)),
		.src = v->local.b,
		.dst = v->remote.b,
		.out = v->out,
		.network = v->underlay,
		.ttl = (uint8_t)own.ttl,
		.dscp = own.dscp,
		.checksum = v->remote.v6 ? own.checksum6 : own.checksum4,
	};

	memcpy(s.dst_mac, v->mac, 6);
	memcpy(s.src_mac, rp->mac, 6);
	for (unsigned f = 0; way && f < TUNNEL_HEADERS; f++) {
		s.format = (enum tunnel_format)f;
		s.limit = path && v->mtu + tunnel_overhead(s.format, s.v6) > path ? path : 0;
		s.df = own.df && !s.limit;
		tunnel_make_header(&way->header[f], &s);
	}
	return way;
}

// `router_port` 0: none.
static void watch_hop(uint16_t port, uint16_t router_port, const struct config_ip *ip)
{
	if (hops[port].router_port == router_port && (!router_port || (hops[port].ip.v6 == ip->v6 && !memcmp(hops[port].ip.b, ip->b, ip->v6 ? 16 : 4))))
		return;
	if (hops[port].router_port)
		neighbour_watch(hops[port].router_port, &hops[port].ip, false);
	hops[port].router_port = router_port;
	if (!router_port)
		return;
	hops[port].ip = *ip;
	neighbour_watch(router_port, ip, true);
}

static void find_way(struct tunnel_view *v)
{
	uint16_t router_port = 0;

	v->state = look(v, &router_port);
	watch_hop(v->port, v->has_hop ? router_port : 0, &v->hop);
	const struct router_port *rp = router_port_get(router_port);
	publish_way(v->port, v->state == TUNNEL_UP && rp ? make_way(v, rp) : NULL);
}

void tunnel_table_tick(uint64_t now)
{
	uint32_t epoch = gen_read_epoch();

	tunnel_mtu_tick(now);
	if (!n_tunnels || (epoch == seen_epoch && now - seen_ns < LOOK_AGAIN_NS))
		return;
	seen_epoch = epoch;
	seen_ns = now;
	for (size_t i = 0; i < n_tunnels; i++)
		find_way(&tunnels[i]);
}

// ---- reconcile

static void read_ends(const struct config *c)
{
	memset(&own.end, 0, sizeof own.end);
	for (size_t i = 0; i < c->n_tunnel_ips; i++) {
		const struct config_ip *ip = &c->tunnel_ips[i];
		const struct config_router_port *cp = port_with(c, ip);
		const struct router_port *rp = cp && cp->id ? router_port_get(cp->id) : NULL;

		if (!rp || own.end[ip->v6].router_port)
			continue;
		own.end[ip->v6].ip = *ip;
		own.end[ip->v6].router = rp->router;
		own.end[ip->v6].router_port = rp->id;
		own.end[ip->v6].network = rp->network;
		own.end[ip->v6].collects = rp->reassembles;
		memcpy(own.end[ip->v6].mac, rp->mac, 6);
	}
}

static void read_options(const struct config *c)
{
	const char *bad = NULL;

	own.ttl = (int)config_map_uint(&c->other_config, "tunnel-ttl", 64, 1, 255, &bad);
	own.dscp = -1;
	if (config_map_get(&c->other_config, "tunnel-dscp", NULL))
		own.dscp = (int)config_map_uint(&c->other_config, "tunnel-dscp", 0, 0, 63, &bad);
	own.df = config_map_bool(&c->other_config, "tunnel-df", true);
	own.checksum4 = config_map_bool(&c->other_config, "tunnel-csum", false);
	own.checksum6 = config_map_bool(&c->other_config, "tunnel-csum6", true);
}

static const struct config_remote *remote_of(const struct config *c, const struct config_ip *ip)
{
	for (size_t i = 0; i < c->n_remotes; i++)
		if (c->remotes[i].ip.v6 == ip->v6 && !memcmp(c->remotes[i].ip.b, ip->b, ip->v6 ? 16 : 4))
			return &c->remotes[i];
	return NULL;
}

static void list_tunnels(const struct config *c, const struct tunnel_table *t)
{
	bool seen[MAX_PORTS] = {false};

	n_tunnels = 0;
	free(tunnels);
	tunnels = calloc(t->n_ports + 1, sizeof *tunnels);
	for (size_t i = 0; tunnels && i < c->n_ports; i++) {
		const struct config_port *cp = &c->ports[i];

		if (cp->kind != PORT_TUNNEL || !cp->id || cp->error)
			continue;
		struct tunnel_view *v = &tunnels[n_tunnels++];
		const struct config_remote *r = remote_of(c, &cp->remote);
		*v = (struct tunnel_view){.port = cp->id, .remote = cp->remote, .mtu = cp->mtu};
		snprintf(v->host, sizeof v->host, "%s", r && r->name && !row_id_is_zero(&r->host) ? r->name : "");
		seen[cp->id] = true;
		find_way(v);
	}
	for (unsigned i = 1; i < MAX_PORTS; i++)
		if (!seen[i]) {
			publish_way((uint16_t)i, NULL);
			watch_hop((uint16_t)i, 0, NULL);
		}
}

static void fill_each(table_fill_fn *fn, void *arg)
{
	fn(arg, NULL, n_tunnels, MAX_PORTS - 1);
}

static struct table_stat fill_stat = {.name = "tunnel", .help = "remote end points of tunnels", .each = fill_each};

int tunnel_table_reconcile(const struct config *c)
{
	table_stat_register(&fill_stat);
	read_ends(c);
	read_options(c);
	struct tunnel_table *new = table_make(c), *old = tunnel_table;
	if (!new)
		return -ENOMEM;
	tunnel_mtu_reconcile(new);
	list_tunnels(c, new);
	if (old && table_same(old, new)) {
		table_free(new);
		return 0;
	}
	rcu_publish(tunnel_table, new);
	if (old)
		rcu_defer(table_free, old);
	return 0;
}

void tunnel_table_fini(void)
{
	table_stat_unregister(&fill_stat);
	tunnel_mtu_fini();
	for (unsigned i = 1; i < MAX_PORTS; i++) {
		publish_way((uint16_t)i, NULL);
		watch_hop((uint16_t)i, 0, NULL);
	}
	if (tunnel_table)
		rcu_defer(table_free, tunnel_table);
	rcu_publish(tunnel_table, NULL);
	free(tunnels);
	tunnels = NULL;
	n_tunnels = 0;
}

// ---- for people

bool tunnel_table_at(uint64_t *at, struct tunnel_view *v)
{
	if (*at >= n_tunnels)
		return false;
	*v = tunnels[(*at)++];
	return true;
}

const char *tunnel_state_text(enum tunnel_state s)
{
	static const char *const text[] = {
		[TUNNEL_UP] = "up",
		[TUNNEL_NO_END] = "no local end point",
		[TUNNEL_NO_ROUTE] = "no route",
		[TUNNEL_NO_NEIGHBOR] = "next hop not known yet",
		[TUNNEL_DEAD] = "next hop doesn't answer",
		[TUNNEL_NO_PORT] = "no port for next hop",
	};
	return text[s];
}
