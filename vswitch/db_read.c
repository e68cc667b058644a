// db_read: rows of the database -> struct config. A row that can't be applied is in it with a sentence in `error`.
#include "openvswitch.h"

#include "control.h"
#include "db_private.h"

#include "smap.h"
#include "util.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

// The defaults of weir.xml.
enum {
	DEFAULT_MTU = 1500,
	DEFAULT_AGEING_S = 300,
	DEFAULT_MAC_LIMIT = 8192,
	DEFAULT_FLAP_THRESHOLD = 5,
	DEFAULT_FLAP_WINDOW_S = 10,
	DEFAULT_FLAP_HOLD_S = 30,
	DEFAULT_PRIORITY = 32768,
	DEFAULT_ACTIVE_TIMEOUT_S = 60,
	DEFAULT_TEMPLATE_INTERVAL_S = 60,
	DEFAULT_ENTERPRISE = 32473,
	DEFAULT_LINE_RATE = 10000,
};

void db_row_error(char **error, char *text)
{
	if (*error)
		free(text);
	else
		*error = text;
}

int64_t db_optional_int(const char *column, const int64_t *v, size_t n, int64_t fallback, int64_t lo, int64_t hi, char **error)
{
	if (!n)
		return fallback;
	if (*v < lo || *v > hi) {
		db_row_error(error, xasprintf("%s: must be from %lld to %lld, not %lld", column, (long long)lo, (long long)hi,
					   (long long)*v));
		return fallback;
	}
	return *v;
}

static int pair_compare(const void *a, const void *b)
{
	return strcmp(((const struct config_pair *)a)->key, ((const struct config_pair *)b)->key);
}

static void map_sort(struct config_map *map)
{
	if (map->n)
		qsort(map->pair, map->n, sizeof *map->pair, pair_compare);
}

struct config_map db_read_map(const struct smap *smap)
{
	struct config_map map = {.pair = xcalloc(smap_count(smap) + 1, sizeof *map.pair)};
	const struct smap_node *node;

	SMAP_FOR_EACH (node, smap) {
		map.pair[map.n].key = xstrdup(node->key);
		map.pair[map.n++].value = xstrdup(node->value);
	}
	map_sort(&map);
	return map;
}

static void map_remove(struct config_map *map, size_t i)
{
	free(map->pair[i].key);
	free(map->pair[i].value);
	memmove(&map->pair[i], &map->pair[i + 1], (map->n - i - 1) * sizeof *map->pair);
	map->n--;
}

// Weir.other_config and over it Host.other_config. A value that can't be read is left out, so that what is under it holds: the
// host's own is wrong, then the root's; that is wrong too, then the default.
static struct config_map read_settings(const struct weirrec_weir *root, const struct weirrec_host *host, char **error)
{
	struct config_map under = db_read_map(&root->other_config);
	struct config_map over = host ? db_read_map(&host->other_config) : (struct config_map){0};
	struct config_map all = {0};
	char *text;
	size_t bad;

	while ((text = db_check_map("Host", "other_config", &over, NULL, &bad))) {
		db_row_error(error, text);
		map_remove(&over, bad);
	}
	while ((text = db_check_map("Weir", "other_config", &under, NULL, &bad))) {
		db_row_error(error, xasprintf("table Weir: %s", text));
		free(text);
		map_remove(&under, bad);
	}
	all.pair = xcalloc(under.n + over.n + 1, sizeof *all.pair);
	for (size_t i = 0; i < under.n; i++)
		if (!config_map_get(&over, under.pair[i].key, NULL)) {
			all.pair[all.n++] = under.pair[i];
		} else {
			free(under.pair[i].key);
			free(under.pair[i].value);
		}
	if (over.n)
		memcpy(&all.pair[all.n], over.pair, over.n * sizeof *over.pair);
	all.n += over.n;
	free(under.pair);
	free(over.pair);
	map_sort(&all);
	return all;
}

struct config_map db_checked_map(const char *table, const char *column, const struct smap *smap, char **error)
{
	struct config_map map = db_read_map(smap);
	size_t bad;
	char *text;

	while ((text = db_check_map(table, column, &map, NULL, &bad))) {
		db_row_error(error, text);
		map_remove(&map, bad);
	}
	return map;
}

static void read_network(const struct weirrec_network *row, struct config_network *net)
{
	net->row = db_row_id(&row->header_.uuid);
	net->name = xstrdup(row->name);
	net->error = db_check_name(row->name);
	net->vlan = (uint16_t)db_optional_int("vlan", row->vlan, row->n_vlan, 0, 1, 4094, &net->error);
	net->vni = (uint32_t)db_optional_int("vni", row->vni, row->n_vni, 0, 1, (1 << 24) - 1, &net->error);
	net->mtu = (uint16_t)db_optional_int("mtu", row->mtu, row->n_mtu, DEFAULT_MTU, 68, 9216, &net->error);
	net->ageing_s = (uint32_t)db_optional_int("ageing", row->ageing, row->n_ageing, DEFAULT_AGEING_S, 0, 1000000, &net->error);
	net->mac_limit = (uint32_t)db_optional_int("mac_limit", row->mac_limit, row->n_mac_limit, DEFAULT_MAC_LIMIT, 0, 1 << 20,
						&net->error);
	net->learning = row->n_learning ? row->learning[0] : true;
	net->flood_unknown = !row->unknown_unicast || strcmp(row->unknown_unicast, "drop");

	net->other_config = db_checked_map("Network", "other_config", &row->other_config, &net->error);
	const struct config_map map = net->other_config;
	net->flap_threshold = (uint32_t)config_map_uint(&map, "flap-threshold", DEFAULT_FLAP_THRESHOLD, 0, UINT32_MAX, NULL);
	net->flap_window_s = (uint32_t)config_map_uint(&map, "flap-window", DEFAULT_FLAP_WINDOW_S, 1, UINT32_MAX, NULL);
	net->flap_hold_s = (uint32_t)config_map_uint(&map, "flap-hold", DEFAULT_FLAP_HOLD_S, 1, UINT32_MAX, NULL);
	net->forward_bpdu = config_map_bool(&map, "forward-bpdu", false);
	net->multicast = db_checked_map("Network", "multicast", &row->multicast, &net->error);
	net->tunnel = xstrdup(row->tunnel ? row->tunnel : "vxlan");
	net->arp_proxy = row->arp_proxy;
	net->flood_to = xcalloc(row->n_flood_to + 1, sizeof *net->flood_to);
	for (size_t i = 0; i < row->n_flood_to; i++)
		if (db_parse_station_ip(row->flood_to[i], &net->flood_to[net->n_flood_to]))
			net->n_flood_to++;
		else
			db_row_error(&net->error, xasprintf("flood_to: \"%s\" isn't the IP address of one end point", row->flood_to[i]));
	if (net->n_flood_to && !net->vni)
		db_row_error(&net->error, xstrdup("flood_to: tunnels carry a network by its vni, which isn't set"));
}

// "MAC" or "MAC IP [IP...]".
static void read_address(const char *text, struct config_port *port)
{
	const char *end = text + strcspn(text, " ");
	struct config_address *address = &port->addresses[port->n_addresses];
	uint8_t *mac = address->mac;

	if (!db_parse_mac(text, (size_t)(end - text), mac)) {
		db_row_error(&port->error, xasprintf("addresses: \"%s\" doesn't begin with an Ethernet address", text));
		return;
	}
	if (mac[0] & 1 || !memcmp(mac, (uint8_t[6]){0}, 6)) {
		db_row_error(&port->error, xasprintf("addresses: \"%s\" isn't the Ethernet address of one station", text));
		return;
	}
	for (const char *ip = end + strspn(end, " "); *ip; ip = end + strspn(end, " ")) {
		char one[INET6_ADDRSTRLEN];
		struct config_ip addr = {.v6 = false};

		end = ip + strcspn(ip, " ");
		ovs_strlcpy(one, ip, MIN(sizeof one, (size_t)(end - ip) + 1));
		if ((size_t)(end - ip) >= sizeof one ||
		    (inet_pton(AF_INET, one, addr.b) != 1 && !(addr.v6 = inet_pton(AF_INET6, one, addr.b) == 1))) {
			db_row_error(&port->error, xasprintf("addresses: \"%.*s\" in \"%s\" is no IPv4 or IPv6 address",
							  (int)(end - ip), ip, text));
			free(address->ip);
			*address = (struct config_address){.ip = NULL};
			return;
		}
		address->ip = xrealloc(address->ip, (address->n_ips + 1) * sizeof *address->ip);
		address->ip[address->n_ips++] = addr;
	}
	port->n_addresses++;
}

static struct config_rate read_rate(const struct config_map *map, const char *rate, const char *burst, char **error)
{
	struct config_rate r;

	r.pps = (uint32_t)config_map_uint(map, rate, 0, 1, UINT32_MAX, NULL);
	r.burst = (uint32_t)config_map_uint(map, burst, r.pps, 1, UINT32_MAX, NULL);
	if (!r.pps && r.burst)
		db_row_error(error, xasprintf("storm_control: %s is set, but %s isn't", burst, rate));
	return r;
}

static enum vlan_mode read_vlan_mode(const char *word, char **error)
{
	static const char *const words[] = {
		[VLAN_ACCESS] = "access",
		[VLAN_TRUNK] = "trunk",
		[VLAN_NATIVE_TAGGED] = "native-tagged",
		[VLAN_NATIVE_UNTAGGED] = "native-untagged",
		[VLAN_DOT1Q_TUNNEL] = "dot1q-tunnel",
	};
	for (size_t i = 0; word && i < ARRAY_SIZE(words); i++)
		if (!strcmp(word, words[i]))
			return (enum vlan_mode)i;
	if (word)
		db_row_error(error, xasprintf("vlan_mode: there is no mode \"%s\"", word));
	return VLAN_ACCESS;
}

// A network that isn't in the replica yet stays in the list as the zero id: left out, an emptied list would mean all networks.
static void read_trunks(const struct weirrec_port *row, const struct ovsdb_idl *idl, struct config_port *port)
{
	const struct ovsdb_datum *datum = weirrec_port_get_trunks(row, OVSDB_TYPE_UUID);

	port->trunks = xcalloc(datum->n + 1, sizeof *port->trunks);
	for (size_t i = 0; i < datum->n; i++) {
		const struct weirrec_network *net = weirrec_network_get_for_uuid(idl, &datum->keys[i].uuid);
		if (net && db_row_exists(&net->header_))
			port->trunks[i] = db_row_id(&datum->keys[i].uuid);
	}
	port->n_trunks = datum->n;
}

static void read_vlans(const struct weirrec_port *row, const struct ovsdb_idl *idl, struct config_port *port)
{
	bool has_network = weirrec_port_get_network(row, OVSDB_TYPE_UUID)->n > 0;

	port->vlan_mode = read_vlan_mode(row->vlan_mode, &port->error);
	if (row->network)
		port->network = db_row_id(&row->network->header_.uuid);
	read_trunks(row, idl, port);
	port->cvlans = xcalloc(row->n_cvlans + 1, sizeof *port->cvlans);
	for (size_t i = 0; i < row->n_cvlans; i++) {
		if (row->cvlans[i] < 0 || row->cvlans[i] > 4095)
			db_row_error(&port->error,
				  xasprintf("cvlans: a VLAN is from 0 to 4095, not %lld", (long long)row->cvlans[i]));
		else
			port->cvlans[port->n_cvlans++] = (uint16_t)row->cvlans[i];
	}
	// Without a mode a port without network is one that somebody hasn't finished; with a mode that needs one it is a
	// mistake.
	if (row->vlan_mode && port->vlan_mode != VLAN_TRUNK && !has_network)
		db_row_error(&port->error, xasprintf("network: vlan_mode %s needs one", row->vlan_mode));
	if (port->n_trunks && (port->vlan_mode == VLAN_ACCESS || port->vlan_mode == VLAN_DOT1Q_TUNNEL))
		db_row_error(&port->error,
			  xstrdup("trunks: only a port of vlan_mode trunk, native-tagged or native-untagged has them"));
	if (row->n_cvlans && port->vlan_mode != VLAN_DOT1Q_TUNNEL)
		db_row_error(&port->error, xstrdup("cvlans: only a port of vlan_mode dot1q-tunnel has them"));
}

static enum multicast_router read_multicast_router(const char *word, const char *type)
{
	if (!word) // a guest is believed only if somebody says so
		return strcmp(type, "vhost-user") ? MULTICAST_ROUTER_AUTO : MULTICAST_ROUTER_NEVER;
	return !strcmp(word, "always") ? MULTICAST_ROUTER_ALWAYS : !strcmp(word, "never") ? MULTICAST_ROUTER_NEVER : MULTICAST_ROUTER_AUTO;
}

static void read_port(const struct weirrec_port *row, const struct ovsdb_idl *idl, struct config_port *port)
{
	port->row = db_row_id(&row->header_.uuid);
	port->name = xstrdup(row->name);
	port->error = db_check_name(row->name);
	port->type = xstrdup(row->type ? row->type : "vhost-user");
	port->options = db_read_map(&row->options);
	port->other_config = db_read_map(&row->other_config);
	port->external_ids = db_read_map(&row->external_ids);
	port->enabled = row->n_enabled ? row->enabled[0] : true;
	port->isolated = row->isolated;
	port->multicast_router = read_multicast_router(row->multicast_router, port->type);
	port->mtu = (uint16_t)db_optional_int("mtu_request", row->mtu_request, row->n_mtu_request, 0, 68, 9216, &port->error);
	port->mac_limit = (uint32_t)db_optional_int("mac_limit", row->mac_limit, row->n_mac_limit, 0, 0, 1 << 20, &port->error);
	db_row_error(&port->error, db_check_map("Port", "options", &port->options, port->type, NULL));
	db_row_error(&port->error, db_check_map("Port", "other_config", &port->other_config, NULL, NULL));
	if (!strcmp(port->type, "dpdk") && !config_map_get(&port->options, "devargs", NULL))
		db_row_error(&port->error, xstrdup("options: a port of type dpdk needs devargs, the device's name for DPDK"));
	read_vlans(row, idl, port);

	port->addresses = xcalloc(row->n_addresses + 1, sizeof *port->addresses);
	for (size_t i = 0; i < row->n_addresses; i++)
		read_address(row->addresses[i], port);

	struct config_map storm = db_read_map(&row->storm_control);
	db_row_error(&port->error, db_check_map("Port", "storm_control", &storm, NULL, NULL));
	port->storm_broadcast = read_rate(&storm, "broadcast", "broadcast-burst", &port->error);
	port->storm_multicast = read_rate(&storm, "multicast", "multicast-burst", &port->error);
	port->storm_unknown = read_rate(&storm, "unknown-unicast", "unknown-unicast-burst", &port->error);
	config_map_free(&storm);
}

static void read_fdb(const struct weirrec_fdb *row, struct config_fdb *fdb)
{
	fdb->row = db_row_id(&row->header_.uuid);
	if (row->network)
		fdb->network = db_row_id(&row->network->header_.uuid);
	if (row->port)
		fdb->port = db_row_id(&row->port->header_.uuid);
	if (!db_parse_mac(row->mac, strlen(row->mac), fdb->mac))
		db_row_error(&fdb->error, xasprintf("mac: \"%s\" is no Ethernet address", row->mac));
	else if (fdb->mac[0] & 1 || !memcmp(fdb->mac, (uint8_t[6]){0}, 6))
		db_row_error(&fdb->error, xasprintf("mac: %s isn't the Ethernet address of one station", row->mac));
	// A port of another switch isn't in the replica, so that row->port is NULL; here there is none at all.
	if (!weirrec_fdb_get_port(row, OVSDB_TYPE_UUID)->n && !row->tunnel_ip)
		db_row_error(&fdb->error, xstrdup("port: the port is gone, or was never set; set it or delete this entry"));
}

static void read_flow(const struct weirrec_flow *row, struct config_flow *flow)
{
	flow->row = db_row_id(&row->header_.uuid);
	flow->has_network = weirrec_flow_get_network(row, OVSDB_TYPE_UUID)->n > 0;
	if (row->network)
		flow->network = db_row_id(&row->network->header_.uuid);
	flow->priority = (uint16_t)db_optional_int("priority", row->priority, row->n_priority, DEFAULT_PRIORITY, 0, 65535, &flow->error);
	flow->match = xstrdup(row->match);
	flow->actions = xstrdup(row->actions);
	flow->enabled = row->n_enabled ? row->enabled[0] : true;
}

static void read_class(const struct weirrec_class *row, struct config_class *c)
{
	c->row = db_row_id(&row->header_.uuid);
	c->name = xstrdup(row->name);
	c->error = db_check_name(row->name);
}

static void read_export(const struct weirrec_flow_export *row, const struct ovsdb_idl *idl, struct config_export *x)
{
	const struct ovsdb_datum *networks = weirrec_flow_export_get_networks(row, OVSDB_TYPE_UUID);
	struct config_map map = db_read_map(&row->other_config);

	x->row = db_row_id(&row->header_.uuid);
	x->name = xstrdup(row->name);
	x->error = db_check_name(row->name);
	x->targets = xcalloc(row->n_targets + 1, sizeof *x->targets);
	for (size_t i = 0; i < row->n_targets; i++)
		x->targets[x->n_targets++] = xstrdup(row->targets[i]);
	x->networks = xcalloc(networks->n + 1, sizeof *x->networks);
	for (size_t i = 0; i < networks->n; i++) {
		const struct weirrec_network *net = weirrec_network_get_for_uuid(idl, &networks->keys[i].uuid);
		if (net && db_row_exists(&net->header_))
			x->networks[i] = db_row_id(&networks->keys[i].uuid);
	}
	x->n_networks = networks->n;
	x->sampling = (uint32_t)db_optional_int("sampling", row->sampling, row->n_sampling, 1, 1, 1000000000, &x->error);
	x->active_timeout_s = (uint32_t)db_optional_int("active_timeout", row->active_timeout, row->n_active_timeout, DEFAULT_ACTIVE_TIMEOUT_S, 1, 86400,
						     &x->error);
	x->domain = (uint32_t)db_optional_int("domain", row->domain, row->n_domain, 1, 1, UINT32_MAX, &x->error);
	x->enabled = row->n_enabled ? row->enabled[0] : true;
	db_row_error(&x->error, db_check_map("Flow_Export", "other_config", &map, NULL, NULL));
	x->template_interval_s = (uint32_t)config_map_uint(&map, "template-interval", DEFAULT_TEMPLATE_INTERVAL_S, 1, 86400, NULL);
	x->enterprise = (uint32_t)config_map_uint(&map, "enterprise", DEFAULT_ENTERPRISE, 1, UINT32_MAX, NULL);
	x->line_rate = (uint32_t)config_map_uint(&map, "line-rate", DEFAULT_LINE_RATE, 1, 1000000, NULL);
	config_map_free(&map);
}

// Ports that aren't there (yet) are left out: they have no packets.
static struct row_id *read_ports(struct weirrec_port *const *ports, size_t n, size_t *n_ids)
{
	struct row_id *ids = xcalloc(n + 1, sizeof *ids);

	for (size_t i = 0; i < n; i++)
		ids[(*n_ids)++] = db_row_id(&ports[i]->header_.uuid);
	return ids;
}

static void read_mirror(const struct weirrec_mirror *row, struct config_mirror *m)
{
	size_t outputs = 0;

	m->row = db_row_id(&row->header_.uuid);
	m->name = xstrdup(row->name);
	m->error = db_check_name(row->name);
	m->has_network = weirrec_mirror_get_network(row, OVSDB_TYPE_UUID)->n > 0;
	if (row->network)
		m->network = db_row_id(&row->network->header_.uuid);
	m->select_all = row->select_all;
	m->src = read_ports(row->select_src_port, row->n_select_src_port, &m->n_src);
	m->dst = read_ports(row->select_dst_port, row->n_select_dst_port, &m->n_dst);
	m->vlans = xcalloc(row->n_select_vlan + 1, sizeof *m->vlans);
	for (size_t i = 0; i < row->n_select_vlan; i++) {
		if (row->select_vlan[i] < 0 || row->select_vlan[i] > 4095)
			db_row_error(&m->error, xasprintf("select_vlan: a VLAN is from 0 to 4095, not %lld", (long long)row->select_vlan[i]));
		else
			m->vlans[m->n_vlans++] = (uint16_t)row->select_vlan[i];
	}
	m->has_output = weirrec_mirror_get_output_port(row, OVSDB_TYPE_UUID)->n > 0;
	if (row->output_port)
		m->output = db_row_id(&row->output_port->header_.uuid);
	m->output_vlan = (uint16_t)db_optional_int("output_vlan", row->output_vlan, row->n_output_vlan, 0, 1, 4094, &m->error);
	m->snaplen = (uint16_t)db_optional_int("snaplen", row->snaplen, row->n_snaplen, 0, 64, 65535, &m->error);
	outputs = m->has_output + (row->n_output_vlan > 0) + (row->output_address && *row->output_address);
	if (row->output_address && *row->output_address)
		m->has_address = db_parse_station_ip(row->output_address, &m->address);
	if (row->output_address && *row->output_address && !m->has_address)
		db_row_error(&m->error, xasprintf("output_address: \"%s\" isn't the IP address of an analyser", row->output_address));
	m->session = (uint16_t)db_optional_int("output_session", row->output_session, row->n_output_session, 1, 0, 1023, &m->error);
	if (!outputs)
		db_row_error(&m->error, xstrdup("output_port: nobody gets the copies: set output_port, output_vlan or output_address"));
	if (outputs > 1)
		db_row_error(&m->error, xstrdup("output_vlan: copies go to a port, into a VLAN or to an address, not to several of these"));
	if (!m->select_all && !weirrec_mirror_get_select_src_port(row, OVSDB_TYPE_UUID)->n && !weirrec_mirror_get_select_dst_port(row, OVSDB_TYPE_UUID)->n)
		db_row_error(&m->error, xstrdup("select_all: nothing is selected: set select_src_port, select_dst_port or select_all"));
}

static int network_compare(const void *a_, const void *b_)
{
	const struct config_network *a = a_, *b = b_;
	int cmp = strcmp(a->name, b->name);

	return cmp ? cmp : memcmp(&a->row, &b->row, sizeof a->row);
}

static int port_compare(const void *a_, const void *b_)
{
	const struct config_port *a = a_, *b = b_;
	int cmp = strcmp(a->name, b->name);

	return cmp ? cmp : memcmp(&a->row, &b->row, sizeof a->row);
}

static int fdb_compare(const void *a, const void *b)
{
	return memcmp(&((const struct config_fdb *)a)->row, &((const struct config_fdb *)b)->row, sizeof(struct row_id));
}

static int flow_compare(const void *a, const void *b)
{
	return memcmp(&((const struct config_flow *)a)->row, &((const struct config_flow *)b)->row, sizeof(struct row_id));
}

static int class_compare(const void *a_, const void *b_)
{
	const struct config_class *a = a_, *b = b_;
	int cmp = strcmp(a->name, b->name);

	return cmp ? cmp : memcmp(&a->row, &b->row, sizeof a->row);
}

// One of this host's own and one of every host may have the same name.
static void sort_classes(struct config *c)
{
	qsort(c->classes, c->n_classes, sizeof *c->classes, class_compare);
	for (size_t i = 1; i < c->n_classes; i++)
		if (!strcmp(c->classes[i].name, c->classes[i - 1].name))
			db_row_error(&c->classes[i].error, xasprintf("name: there is another class %s for this switch; give one of them another name", c->classes[i].name));
}

static int export_compare(const void *a, const void *b)
{
	return memcmp(&((const struct config_export *)a)->row, &((const struct config_export *)b)->row, sizeof(struct row_id));
}

static int mirror_compare(const void *a, const void *b)
{
	return memcmp(&((const struct config_mirror *)a)->row, &((const struct config_mirror *)b)->row, sizeof(struct row_id));
}

struct config_port *db_add_port(struct config *c, const struct row_id *row, const char *name, const char *type, enum port_kind kind)
{
	c->ports = xrealloc(c->ports, (c->n_ports + 1) * sizeof *c->ports);
	struct config_port *port = &c->ports[c->n_ports++];
	*port = (struct config_port){.row = *row, .name = xstrdup(name), .type = xstrdup(type), .kind = kind, .enabled = true};
	return port;
}

const struct config_port *db_port_named(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->n_ports; i++)
		if (!strcmp(c->ports[i].name, name))
			return &c->ports[i];
	return NULL;
}

// Rows come in the order of a hash table; sorted, the same database makes the same config.
static void sort(struct config *c)
{
	qsort(c->networks, c->n_networks, sizeof *c->networks, network_compare);
	qsort(c->ports, c->n_ports, sizeof *c->ports, port_compare);
	qsort(c->fdb, c->n_fdb, sizeof *c->fdb, fdb_compare);
	qsort(c->flows, c->n_flows, sizeof *c->flows, flow_compare);
	sort_classes(c);
	qsort(c->mirrors, c->n_mirrors, sizeof *c->mirrors, mirror_compare);
	qsort(c->exports, c->n_exports, sizeof *c->exports, export_compare);
}

struct config *db_read(struct db *db)
{
	const struct weirrec_weir *root = weirrec_weir_first(db->idl);
	struct config *c = xzalloc(sizeof *c);
	const struct weirrec_network *net;
	const struct weirrec_port *port;
	const struct weirrec_fdb *fdb;
	const struct weirrec_flow *flow;
	const struct weirrec_class *class;
	const struct weirrec_mirror *mirror;
	const struct weirrec_flow_export *export;
	char *host_error = NULL;
	size_t n = 0;

	c->next_cfg = root->next_cfg;
	c->other_config = read_settings(root, db_host_row(db), &host_error);

	WEIRREC_NETWORK_FOR_EACH (net, db->idl)
		n++;
	c->networks = xcalloc(n + 1, sizeof *c->networks);
	WEIRREC_NETWORK_FOR_EACH (net, db->idl)
		read_network(net, &c->networks[c->n_networks++]);

	n = 0;
	WEIRREC_PORT_FOR_EACH (port, db->idl)
		n++;
	c->ports = xcalloc(n + 1, sizeof *c->ports);
	WEIRREC_PORT_FOR_EACH (port, db->idl)
		// A server without conditional monitoring sends the ports of other switches too.
		if (!port->host[0] || !strcmp(port->host, db->host))
			read_port(port, db->idl, &c->ports[c->n_ports++]);

	n = 0;
	WEIRREC_FDB_FOR_EACH (fdb, db->idl)
		n++;
	c->fdb = xcalloc(n + 1, sizeof *c->fdb);
	WEIRREC_FDB_FOR_EACH (fdb, db->idl) {
		read_fdb(fdb, &c->fdb[c->n_fdb]);
		if (!db_read_remote_mac(fdb, &c->fdb[c->n_fdb], c))
			c->n_fdb++;
	}

	n = 0;
	WEIRREC_FLOW_FOR_EACH (flow, db->idl)
		n++;
	c->flows = xcalloc(n + 1, sizeof *c->flows);
	WEIRREC_FLOW_FOR_EACH (flow, db->idl)
		if (!flow->host[0] || !strcmp(flow->host, db->host))
			read_flow(flow, &c->flows[c->n_flows++]);

	n = 0;
	WEIRREC_CLASS_FOR_EACH (class, db->idl)
		n++;
	c->classes = xcalloc(n + 1, sizeof *c->classes);
	WEIRREC_CLASS_FOR_EACH (class, db->idl)
		if (!class->host[0] || !strcmp(class->host, db->host))
			read_class(class, &c->classes[c->n_classes++]);

	n = 0;
	WEIRREC_MIRROR_FOR_EACH (mirror, db->idl)
		n++;
	c->mirrors = xcalloc(n + 1, sizeof *c->mirrors);
	WEIRREC_MIRROR_FOR_EACH (mirror, db->idl)
		if (!mirror->host[0] || !strcmp(mirror->host, db->host))
			read_mirror(mirror, &c->mirrors[c->n_mirrors++]);

	n = 0;
	WEIRREC_FLOW_EXPORT_FOR_EACH (export, db->idl)
		n++;
	c->exports = xcalloc(n + 1, sizeof *c->exports);
	WEIRREC_FLOW_EXPORT_FOR_EACH (export, db->idl)
		if (!export->host[0] || !strcmp(export->host, db->host))
			read_export(export, db->idl, &c->exports[c->n_exports++]);

	// These come last: their rows name others, and some of them are ports too.
	db_read_routers(db, c);
	sort(c);
	db_read_tunnels(db, c, &host_error);
	db_host_error(db, host_error);
	free(host_error);
	qsort(c->ports, c->n_ports, sizeof *c->ports, port_compare);
	log_line('d', "db", "generation %lld: %zu networks, %zu ports, %zu static addresses, %zu rules, %zu routers, %zu routes, %zu tunnels",
		 (long long)c->next_cfg, c->n_networks, c->n_ports, c->n_fdb, c->n_flows, c->n_routers, c->n_routes, c->n_remotes);
	return c;
}
