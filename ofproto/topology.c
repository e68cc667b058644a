// topology: see topology.h.
#include "topology.h"
#include "gen.h"
#include "key.h"
#include "row.h"
#include "sentence.h"
#include "table_stat.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct lport *topology_ports[MAX_PORTS];
struct network *topology_networks[MAX_NETWORKS];

static void lport_free(void *arg)
{
	struct lport *lp = arg;

	free(lp->vlans);
	free(lp->cvlans);
	free(lp->unknown);
	free(lp);
}

static bool lport_same(const struct lport *a, const struct lport *b)
{
	return !strcmp(a->name, b->name) && a->row == b->row && a->mtu == b->mtu && a->mtu_row == b->mtu_row && a->native == b->native && a->qinq == b->qinq &&
	       a->mode == b->mode && a->enabled == b->enabled && a->isolated == b->isolated && a->reserved == b->reserved && a->kind == b->kind && a->underlay == b->underlay &&
	       !memcmp(&a->untagged, &b->untagged, sizeof a->untagged) && !a->vlans == !b->vlans && !a->cvlans == !b->cvlans &&
	       (!a->vlans || !memcmp(a->vlans, b->vlans, 4096 * sizeof *a->vlans)) &&
	       (!a->cvlans || !memcmp(a->cvlans, b->cvlans, 4096 / 8)) && !a->unknown == !b->unknown &&
	       (!a->unknown || !memcmp(a->unknown, b->unknown, MAX_NETWORKS / 8));
}

static struct config_network *find_network(struct config *c, const struct row_id *id)
{
	for (size_t i = 0; i < c->n_networks; i++)
		if (row_id_equal(&c->networks[i].row, id))
			return &c->networks[i];
	return NULL;
}

static uint16_t profile_of(const struct config_network *n, uint32_t (*fields_of)(const struct config_network *))
{
	return profile_intern(fields_of ? fields_of(n) : 0);
}

static const char *name_of(const struct config *c, uint16_t network)
{
	for (size_t i = 0; i < c->n_networks; i++)
		if (c->networks[i].id == network)
			return c->networks[i].name;
	return "?";
}

// Gives the trunk's VLANs to their networks. Two networks of one tag on one port can't be told apart: an error.
static int fill_trunk(struct config *c, struct config_port *cp, struct lport *lp, uint32_t (*fields_of)(const struct config_network *))
{
	lp->vlans = calloc(4096, sizeof *lp->vlans);
	if (!lp->vlans)
		return -ENOMEM;
	for (size_t i = 0; i < c->n_networks; i++) {
		struct config_network *n = &c->networks[i];
		bool wanted = !cp->n_trunks || (n->id == lp->native && lp->mode == VLAN_NATIVE_TAGGED);

		for (size_t t = 0; t < cp->n_trunks && !wanted; t++)
			wanted = row_id_equal(&cp->trunks[t], &n->row);
		if (wanted && !n->vlan && cp->n_trunks)
			sentence_set(&cp->error, "network %s is in the port's trunks, but has no VLAN", n->name);
		if (!wanted || !n->vlan || n->error)
			continue;
		struct membership *m = &lp->vlans[n->vlan];
		if (m->network) {
			sentence_set(&cp->error, "networks %s and %s both have VLAN %u: name the port's networks in trunks",
				  name_of(c, m->network), n->name, n->vlan);
			return -EEXIST;
		}
		*m = (struct membership){n->id, profile_of(n, fields_of)};
	}
	return 0;
}

// Gives a tunnel its networks.
static int fill_tunnel(struct config *c, const struct config_port *cp, struct lport *lp, uint32_t (*fields_of)(const struct config_network *))
{
	lp->vlans = calloc(MAX_NETWORKS, sizeof *lp->vlans);
	lp->unknown = calloc(MAX_NETWORKS / 64, sizeof *lp->unknown);
	if (!lp->vlans || !lp->unknown)
		return -ENOMEM;
	for (size_t i = 0; i < cp->n_trunks; i++) {
		const struct config_network *n = find_network(c, &cp->trunks[i]);

		if (n && n->id && n->vni && !n->error)
			lp->vlans[n->id] = (struct membership){n->id, profile_of(n, fields_of)};
	}
	for (size_t i = 0; i < cp->n_unknown; i++) {
		const struct config_network *n = find_network(c, &cp->unknown[i]);

		if (n && n->id)
			lp->unknown[n->id / 64] |= 1ULL << n->id % 64;
	}
	return 0;
}

// Of the networks that the port is in: a trunk's other networks may have larger frames than its native one.
static const struct config_network *largest_mtu(const struct config *c, const struct lport *lp, const struct config_network *native)
{
	const struct config_network *largest = native;

	for (size_t i = 0; i < c->n_networks && lp->vlans; i++)
		if (lp->vlans[c->networks[i].vlan].network == c->networks[i].id && (!largest || c->networks[i].mtu > largest->mtu))
			largest = &c->networks[i];
	return largest;
}

static void set_mtu(const struct config *c, const struct config_port *cp, struct lport *lp, const struct config_network *native)
{
	const struct config_network *net = cp->mtu ? NULL : largest_mtu(c, lp, native);

	lp->mtu = cp->mtu ? cp->mtu : net && net->mtu ? net->mtu : 1500;
	lp->mtu_row = net ? row_intern("Network", &net->row, net->name) : lp->row;
}

static struct lport *lport_make(struct config *c, struct config_port *cp, uint32_t (*fields_of)(const struct config_network *))
{
	struct config_network *native = row_id_is_zero(&cp->network) ? NULL : find_network(c, &cp->network);
	bool trunk = cp->vlan_mode == VLAN_TRUNK || cp->vlan_mode == VLAN_NATIVE_TAGGED || cp->vlan_mode == VLAN_NATIVE_UNTAGGED;
	struct lport *lp = calloc(1, sizeof *lp);

	if (!lp)
		return NULL;
	snprintf(lp->name, sizeof lp->name, "%s", cp->name);
	lp->row = row_intern(cp->kind == PORT_TUNNEL ? "Tunnel" : "Port", &cp->row, cp->name);
	lp->id = cp->id;
	lp->mode = (uint8_t)cp->vlan_mode;
	lp->enabled = cp->enabled;
	lp->isolated = cp->isolated;
	lp->reserved = cp->reserved;
	lp->kind = (uint8_t)cp->kind;
	lp->underlay = cp->underlay;
	lp->qinq = !strcmp(config_map_get(&cp->other_config, "qinq-ethtype", "802.1ad"), "802.1q") ? 0x8100 : 0x88a8;
	if (!native && cp->vlan_mode != VLAN_TRUNK && cp->vlan_mode != VLAN_NETWORK_ID)
		sentence_set(&cp->error, "the port has no network yet: set its network");
	if (native && cp->vlan_mode == VLAN_NATIVE_TAGGED && !native->vlan)
		sentence_set(&cp->error, "network %s has no VLAN, so it can't leave the port tagged", native->name);
	if (native && !native->error) {
		lp->native = native->id;
		if (cp->vlan_mode != VLAN_TRUNK)
			lp->untagged = (struct membership){native->id, profile_of(native, fields_of)};
	}
	if ((trunk && fill_trunk(c, cp, lp, fields_of)) || (cp->vlan_mode == VLAN_NETWORK_ID && fill_tunnel(c, cp, lp, fields_of))) {
		lport_free(lp);
		return NULL;
	}
	set_mtu(c, cp, lp, native);
	if (cp->vlan_mode == VLAN_DOT1Q_TUNNEL && cp->n_cvlans) {
		lp->cvlans = calloc(4096 / 64, sizeof *lp->cvlans);
		for (size_t i = 0; lp->cvlans && i < cp->n_cvlans; i++)
			lp->cvlans[cp->cvlans[i] / 64 % 64] |= 1ULL << cp->cvlans[i] % 64;
	}
	return lp;
}


static struct network *network_make(const struct config_network *cn, struct lport *const *ports)
{
	unsigned n = 0;

	// Trunks are asked by the network's own tag, so that this stays linear in the ports.
	for (unsigned i = 1; i < MAX_PORTS; i++)
		n += ports[i] && (ports[i]->untagged.network == cn->id || (ports[i]->vlans && ports[i]->vlans[ports[i]->mode == VLAN_NETWORK_ID ? cn->id : cn->vlan].network == cn->id));
	struct network *net = calloc(1, sizeof *net + n * sizeof net->target[0]);
	if (!net)
		return NULL;
	snprintf(net->name, sizeof net->name, "%s", cn->name);
	net->row = row_intern("Network", &cn->row, cn->name);
	net->id = cn->id;
	net->vlan = cn->vlan;
	net->mtu = cn->mtu;
	net->overlay = cn->vni != 0;
	net->learning = cn->learning;
	net->flood_unknown = cn->flood_unknown;
	net->forward_bpdu = cn->forward_bpdu;
	for (unsigned i = 1; i < MAX_PORTS; i++) {
		const struct lport *lp = ports[i];

		if (!lp || !lp->enabled || lp->reserved || lp->kind == PORT_ROUTER)
			continue;
		if (lp->untagged.network == cn->id || (lp->vlans && lp->vlans[lp->mode == VLAN_NETWORK_ID ? cn->id : cn->vlan].network == cn->id))
			net->target[net->n_targets++] = (struct flood_target){
				.port = (uint16_t)i,
				.isolated = lp->isolated,
				.tunnel = lp->kind == PORT_TUNNEL,
				.told = lp->unknown && !(lp->unknown[cn->id / 64] >> cn->id % 64 & 1),
			};
	}
	return net;
}

static bool network_same(const struct network *a, const struct network *b)
{
	return !strcmp(a->name, b->name) && a->row == b->row && a->vlan == b->vlan && a->mtu == b->mtu && a->overlay == b->overlay && a->learning == b->learning &&
	       a->flood_unknown == b->flood_unknown && a->forward_bpdu == b->forward_bpdu && a->n_targets == b->n_targets &&
	       !memcmp(a->target, b->target, a->n_targets * sizeof a->target[0]);
}

// Whether the change concerns decisions made for the network; who is flooded to is read when it is done.
static bool network_decides_same(const struct network *a, const struct network *b)
{
	return a->row == b->row && a->vlan == b->vlan && a->learning == b->learning && a->flood_unknown == b->flood_unknown &&
	       a->forward_bpdu == b->forward_bpdu && a->mtu == b->mtu && a->overlay == b->overlay;
}

static void publish_ports(struct lport **fresh)
{
	for (unsigned i = 1; i < MAX_PORTS; i++) {
		struct lport *old = topology_ports[i], *new = fresh[i];

		if (old == new)
			continue;
		if (old && new && lport_same(old, new)) {
			lport_free(new);
			continue;
		}
		rcu_publish(topology_ports[i], new);
		gen_bump(gen_slot(GEN_PORT, i));
		if (old)
			rcu_defer(lport_free, old);
	}
}

static void fill_each(table_fill_fn *fn, void *arg)
{
	uint64_t n = 0;

	for (unsigned i = 1; i < MAX_NETWORKS; i++)
		n += topology_networks[i] != NULL;
	fn(arg, NULL, n, MAX_NETWORKS - 1);
}

static struct table_stat fill_stat = {.name = "network", .help = "networks", .each = fill_each};

int topology_reconcile(struct config *c, uint32_t (*fields_of)(const struct config_network *))
{
	struct lport **fresh = calloc(MAX_PORTS, sizeof *fresh);
	bool *seen = calloc(MAX_NETWORKS, sizeof *seen);
	int rc = 0;

	table_stat_register(&fill_stat);
	if (!fresh || !seen) {
		free(fresh);
		free(seen);
		return -ENOMEM;
	}
	for (size_t i = 0; i < c->n_ports; i++) {
		struct config_port *cp = &c->ports[i];

		if (!cp->id)
			continue;
		fresh[cp->id] = cp->error ? NULL : lport_make(c, cp, fields_of);
		if (!fresh[cp->id]) // a row that went bad leaves its port as it was
			fresh[cp->id] = topology_ports[cp->id];
	}
	for (size_t i = 0; i < c->n_networks; i++) {
		struct config_network *cn = &c->networks[i];

		if (cn->error || !cn->id)
			continue;
		struct network *new = network_make(cn, fresh), *old = topology_networks[cn->id];
		if (!new) {
			rc = -ENOMEM;
			continue;
		}
		seen[cn->id] = true;
		if (old && network_same(old, new)) {
			free(new);
			continue;
		}
		rcu_publish(topology_networks[cn->id], new);
		if (!old || !network_decides_same(old, new))
			gen_bump(gen_slot(GEN_NETWORK, cn->id));
		rcu_free_later(old);
	}
	publish_ports(fresh);
	for (unsigned i = 1; i < MAX_NETWORKS; i++) {
		struct network *old = topology_networks[i];

		if (!old || seen[i])
			continue;
		rcu_publish(topology_networks[i], NULL);
		gen_bump(gen_slot(GEN_NETWORK, i));
		rcu_free_later(old);
	}
	free(fresh);
	free(seen);
	return rc;
}

void topology_clear(void)
{
	struct config empty = {0};

	topology_reconcile(&empty, NULL);
}
