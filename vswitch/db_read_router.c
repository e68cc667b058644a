// db_read_router: rows of Router, Router_Port, Route and Route_Policy -> struct config.
//
// Routers and their routes are those of all switches of the database; a router port may be one switch's. A next hop by a port
// of another switch is left out here without an error: it is in order there.
#include "openvswitch.h"

#include "db_private.h"

#include "smap.h"
#include "util.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

enum {
	DEFAULT_POLICY_PRIORITY = 32768, // weir.xml
};

// A router port of any switch.
struct place {
	struct config_router_port p;
	bool here;
};

struct reading {
	struct db *db;
	struct config *c;
	struct place *place; // sorted by router and name
	size_t n;
};

// ---- Router

static void read_router(const struct weirrec_router *row, struct config_router *r)
{
	r->row = db_row_id(&row->header_.uuid);
	r->name = xstrdup(row->name);
	r->error = db_check_name(row->name);
	r->enabled = row->n_enabled ? row->enabled[0] : true;
	r->other_config = db_checked_map("Router", "other_config", &row->other_config, &r->error);
}

// ---- Router_Port

// Locally administered and of one station (IEEE 802 clause 8.2.2), the same on every host.
static void derive_mac(const struct row_id *row, uint8_t mac[6])
{
	memcpy(mac, row->b, 6);
	for (int i = 6; i < 16; i++)
		mac[i % 6] ^= row->b[i];
	mac[0] = (uint8_t)((mac[0] & ~1) | 2);
}

static bool is_link_local(const struct config_ip *ip)
{
	return ip->v6 && ip->b[0] == 0xfe && (ip->b[1] & 0xc0) == 0x80;
}

// RFC 4291 section 2.5.6 and appendix A.
static struct config_prefix link_local(const uint8_t mac[6])
{
	struct config_prefix p = {.ip = {.v6 = true, .b = {0xfe, 0x80}}, .len = 64};

	memcpy(&p.ip.b[8], mac, 3);
	p.ip.b[8] ^= 2;
	p.ip.b[11] = 0xff;
	p.ip.b[12] = 0xfe;
	memcpy(&p.ip.b[13], &mac[3], 3);
	return p;
}

static bool bit_of(const struct config_ip *ip, unsigned i)
{
	return ip->b[i / 8] >> (7 - i % 8) & 1;
}

// The bits from `len` on are all `value`.
static bool tail_is(const struct config_prefix *p, bool value)
{
	for (unsigned i = p->len; i < (p->ip.v6 ? 128 : 32); i++)
		if (bit_of(&p->ip, i) != value)
			return false;
	return true;
}

static char *check_address(const char *text, struct config_prefix *p)
{
	if (!strchr(text, '/') || !db_parse_prefix(text, strlen(text), p) || !p->len)
		return xasprintf("addresses: \"%s\" isn't an IP address with the length of its prefix, such as 10.0.0.1/24 or "
				 "fd00::1/64",
				 text);
	if (!db_ip_of_station(&p->ip))
		return xasprintf("addresses: %s can't be the address of a router port", text);
	// RFC 3021: a link of two stations has no address of its own, and no broadcast address.
	if (!p->ip.v6 && p->len < 31 && (tail_is(p, false) || tail_is(p, true)))
		return xasprintf("addresses: %s is the address of the network itself, or its broadcast address", text);
	if (is_link_local(&p->ip) && p->len != 64)
		return xasprintf("addresses: %s: the prefix of a link-local address has 64 bits", text);
	return NULL;
}

static void read_addresses(const struct weirrec_router_port *row, struct config_router_port *p)
{
	bool local = false;

	p->addresses = xcalloc(row->n_addresses + 1, sizeof *p->addresses);
	for (size_t i = 0; i < row->n_addresses; i++) {
		struct config_prefix *a = &p->addresses[p->n_addresses];
		char *error = check_address(row->addresses[i], a);

		if (error) {
			db_row_error(&p->error, error);
			continue;
		}
		p->n_addresses++;
		local |= is_link_local(&a->ip);
	}
	if (!local)
		p->addresses[p->n_addresses++] = link_local(p->mac);
}

static void read_router_port(const struct reading *r, const struct weirrec_router_port *row, struct place *at)
{
	struct config_router_port *p = &at->p;

	at->here = !row->host[0] || !strcmp(row->host, r->db->host);
	p->row = db_row_id(&row->header_.uuid);
	p->name = xstrdup(row->name);
	p->error = db_check_name(row->name);
	if (row->router)
		p->router = db_row_id(&row->router->header_.uuid);
	if (row->network)
		p->network = db_row_id(&row->network->header_.uuid);
	p->enabled = row->n_enabled ? row->enabled[0] : true;
	derive_mac(&p->row, p->mac);
	if (row->mac && !db_parse_mac(row->mac, strlen(row->mac), p->mac)) {
		db_row_error(&p->error, xasprintf("mac: \"%s\" is no Ethernet address", row->mac));
		derive_mac(&p->row, p->mac);
	} else if (p->mac[0] & 1 || !memcmp(p->mac, (uint8_t[6]){0}, 6)) {
		db_row_error(&p->error, xasprintf("mac: %s isn't the Ethernet address of one station", row->mac));
		derive_mac(&p->row, p->mac);
	}
	read_addresses(row, p);
	p->ra = db_checked_map("Router_Port", "ra", &row->ra, &p->error);
	p->other_config = db_checked_map("Router_Port", "other_config", &row->other_config, &p->error);
}

static int place_compare(const void *a_, const void *b_)
{
	const struct place *a = a_, *b = b_;
	int cmp = memcmp(&a->p.router, &b->p.router, sizeof a->p.router);

	return cmp ? cmp : strcmp(a->p.name, b->p.name);
}

static struct config_map copy_map(const struct config_map *map)
{
	struct config_map copy = {.pair = xcalloc(map->n + 1, sizeof *copy.pair), .n = map->n};

	for (size_t i = 0; i < map->n; i++)
		copy.pair[i] = (struct config_pair){xstrdup(map->pair[i].key), xstrdup(map->pair[i].value)};
	return copy;
}

static struct config_router_port copy_port(const struct config_router_port *p)
{
	struct config_router_port copy = *p;

	copy.name = xstrdup(p->name);
	copy.addresses = xmemdup(p->addresses, p->n_addresses * sizeof *p->addresses); // one at least: a link-local one
	copy.ra = copy_map(&p->ra);
	copy.other_config = copy_map(&p->other_config);
	copy.error = copy.complaint = NULL;
	return copy;
}

static int row_compare(const void *a, const void *b)
{
	return memcmp(&((const struct config_router_port *)a)->row, &((const struct config_router_port *)b)->row, sizeof(struct row_id));
}

void db_forget_good(struct db *db)
{
	for (size_t i = 0; i < db->n_good; i++)
		config_router_port_clear(&db->good[i]);
	free(db->good);
	db->good = NULL;
	db->n_good = 0;
}

// A row that went bad leaves its port as it was: a slip of the pen doesn't take a network its gateway.
static void keep_good(struct reading *r)
{
	struct config_router_port *good = xcalloc(r->n + 1, sizeof *good);
	size_t n = 0;

	for (size_t i = 0; i < r->n; i++) {
		struct config_router_port *p = &r->place[i].p, *old = NULL;

		if (!r->place[i].here)
			continue;
		if (p->error && r->db->n_good)
			old = bsearch(p, r->db->good, r->db->n_good, sizeof *good, row_compare);
		if (old) {
			char *complaint = p->error;

			p->error = NULL;
			config_router_port_clear(p);
			*p = copy_port(old);
			p->complaint = complaint;
		}
		if (!p->error)
			good[n++] = copy_port(p);
	}
	db_forget_good(r->db);
	qsort(good, n, sizeof *good, row_compare);
	r->db->good = good;
	r->db->n_good = n;
}

// A port by which the router's packets come and go. With an error it is there too: then what is there already stays as it was.
static void add_port(struct config *c, struct config_router_port *p)
{
	if (db_port_named(c, p->name)) {
		db_row_error(&p->error, xasprintf("name: a port of this switch has the name %s too", p->name));
		return;
	}
	struct config_port *port = db_add_port(c, &p->row, p->name, "router", PORT_ROUTER);
	port->network = p->network;
	port->vlan_mode = VLAN_ACCESS;
	port->enabled = p->enabled;
	port->error = p->error ? xstrdup(p->error) : NULL;
}

// ---- Route

// Whether it was a port here, a port elsewhere, or none at all.
enum found {
	FOUND_NONE,
	FOUND_ELSEWHERE,
	FOUND_HERE,
};

// The first port of the router, as far as there is one.
static size_t first_place(const struct reading *r, const struct row_id *router)
{
	size_t lo = 0, hi = r->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		if (memcmp(&r->place[mid].p.router, router, sizeof *router) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool prefix_has(const struct config_prefix *p, const struct config_ip *ip)
{
	unsigned whole = p->len / 8, rest = p->len % 8;

	return p->ip.v6 == ip->v6 && !memcmp(p->ip.b, ip->b, whole) &&
	       (!rest || !((p->ip.b[whole] ^ ip->b[whole]) >> (8 - rest)));
}

// Whether the gateway is by a port of another switch: the port of the router with the longest prefix that it is in. In none: it
// may be one day.
static enum found find_by_gateway(const struct reading *r, const struct row_id *router, const struct config_ip *gateway)
{
	enum found found = FOUND_HERE;
	int longest = -1;

	for (size_t i = first_place(r, router); i < r->n && row_id_equal(&r->place[i].p.router, router); i++) {
		const struct place *at = &r->place[i];

		for (size_t k = 0; k < at->p.n_addresses; k++) {
			const struct config_prefix *p = &at->p.addresses[k];
			if (!prefix_has(p, gateway) || p->len <= longest)
				continue;
			longest = p->len;
			found = at->here ? FOUND_HERE : FOUND_ELSEWHERE;
		}
	}
	return found;
}

static enum found find_by_name(const struct reading *r, const struct row_id *router, const char *name,
			       struct config_next_hop *hop)
{
	struct place key = {.p = {.router = *router, .name = (char *)name}};
	const struct place *at = bsearch(&key, r->place, r->n, sizeof *r->place, place_compare);

	if (!at)
		return FOUND_NONE;
	hop->port = at->p.row;
	return at->here ? FOUND_HERE : FOUND_ELSEWHERE;
}

static char *read_hop(const struct reading *r, const struct weirrec_router *router, const struct row_id *id, const char *text,
		      struct config_next_hop *hop, enum found *found)
{
	const char *percent = strchr(text, '%');
	size_t len = percent ? (size_t)(percent - text) : strlen(text);

	*found = FOUND_NONE;
	hop->has_gateway = len > 0;
	hop->has_port = percent != NULL;
	if (hop->has_gateway && (!db_parse_ip(text, len, &hop->gateway) || !db_ip_of_station(&hop->gateway)))
		return xasprintf("nexthops: \"%.*s\" isn't the IP address of a gateway", (int)len, text);
	if (percent) {
		*found = find_by_name(r, id, percent + 1, hop);
		return *found ? NULL : xasprintf("nexthops: router %s has no port \"%s\"", router->name, percent + 1);
	}
	if (!hop->has_gateway)
		return xstrdup("nexthops: a next hop is empty; it is a gateway's address, or % and a router port");
	*found = find_by_gateway(r, id, &hop->gateway);
	return NULL;
}

// Next hops by ports of this switch. True: all of them are by ports of others.
static bool read_hops(const struct reading *r, const struct weirrec_route *row, struct config_route *to)
{
	bool elsewhere = false;

	to->hops = xcalloc(row->n_nexthops + 1, sizeof *to->hops);
	for (size_t i = 0; i < row->n_nexthops; i++) {
		struct config_next_hop *hop = &to->hops[to->n_hops];
		enum found found;

		*hop = (struct config_next_hop){.weight = (uint16_t)row->value_nexthops[i]};
		db_row_error(&to->error, read_hop(r, row->router, &to->router, row->key_nexthops[i], hop, &found));
		elsewhere |= found == FOUND_ELSEWHERE;
		to->n_hops += found == FOUND_HERE;
		if (row->value_nexthops[i] < 1 || row->value_nexthops[i] > 256)
			db_row_error(&to->error, xstrdup("nexthops: a weight is from 1 to 256"));
	}
	return elsewhere && !to->n_hops && !to->error;
}

// "default": that of the family of the gateways.
static bool read_default(const struct weirrec_route *row, struct config_prefix *p)
{
	*p = (struct config_prefix){.len = 0};
	for (size_t i = 0; i < row->n_nexthops; i++) {
		const char *hop = row->key_nexthops[i];
		if (*hop && *hop != '%') {
			p->ip.v6 = memchr(hop, ':', strcspn(hop, "%")) != NULL;
			return true;
		}
	}
	return false;
}

static void read_destination(const struct weirrec_route *row, struct config_route *to)
{
	if (!strcmp(row->prefix, "default")) {
		if (!read_default(row, &to->prefix))
			db_row_error(
				&to->error,
				xstrdup("prefix: there is no gateway that tells which default it is; write 0.0.0.0/0 or ::/0"));
	} else if (!db_parse_prefix(row->prefix, strlen(row->prefix), &to->prefix)) {
		db_row_error(&to->error,
			     xasprintf("prefix: \"%s\" is no prefix such as 10.0.0.0/8 or fd00::/8, nor default", row->prefix));
	} else if (!tail_is(&to->prefix, false)) {
		db_row_error(&to->error, xasprintf("prefix: %s has bits behind its %u", row->prefix, to->prefix.len));
	}
}

static enum route_type read_type(const char *column, const char *word, char **error)
{
	static const struct {
		const char *word;
		enum route_type type;
	} types[] = {{"unicast", ROUTE_UNICAST},
		     {"lookup", ROUTE_UNICAST},
		     {"blackhole", ROUTE_BLACKHOLE},
		     {"unreachable", ROUTE_UNREACHABLE},
		     {"prohibit", ROUTE_PROHIBIT}};

	for (size_t i = 0; word && i < ARRAY_SIZE(types); i++)
		if (!strcmp(types[i].word, word))
			return types[i].type;
	if (word)
		db_row_error(error, xasprintf("%s: there is no \"%s\"", column, word));
	return ROUTE_UNICAST;
}

// False: the route isn't for this switch.
static bool read_route(const struct reading *r, const struct weirrec_route *row, struct config_route *to)
{
	to->row = db_row_id(&row->header_.uuid);
	to->table = (uint32_t)db_optional_int("table", row->table, row->n_table, 0, 1, UINT32_MAX, &to->error);
	to->metric = (uint32_t)db_optional_int("metric", row->metric, row->n_metric, 0, 0, UINT32_MAX, &to->error);
	to->type = read_type("type", row->type, &to->error);
	read_destination(row, to);
	if (!row->router) // not there yet
		return true;
	to->router = db_row_id(&row->router->header_.uuid);
	if (to->type != ROUTE_UNICAST) {
		if (row->n_nexthops)
			db_row_error(&to->error, xasprintf("nexthops: a route of type %s has none", row->type));
		return true;
	}
	if (!row->n_nexthops)
		db_row_error(&to->error,
			     xstrdup("nexthops: there is none; blackhole, unreachable or prohibit in column type do without"));
	if (read_hops(r, row, to))
		return false;
	return true;
}

// Routes that are the same but for their row compare as equal.
static int route_order(const struct config_route *a, const struct config_route *b)
{
	int cmp = memcmp(&a->router, &b->router, sizeof a->router);

	cmp = cmp ? cmp : (a->table > b->table) - (a->table < b->table);
	cmp = cmp ? cmp : (int)a->prefix.ip.v6 - b->prefix.ip.v6;
	cmp = cmp ? cmp : memcmp(a->prefix.ip.b, b->prefix.ip.b, sizeof a->prefix.ip.b);
	cmp = cmp ? cmp : (int)a->prefix.len - b->prefix.len;
	return cmp ? cmp : (a->metric > b->metric) - (a->metric < b->metric);
}

static int route_compare(const void *a_, const void *b_)
{
	const struct config_route *a = a_, *b = b_;
	int cmp = route_order(a, b);

	// One with an error is behind the one without.
	cmp = cmp ? cmp : (a->error != NULL) - (b->error != NULL);
	return cmp ? cmp : memcmp(&a->row, &b->row, sizeof a->row);
}

static void read_routes(struct reading *r)
{
	const struct weirrec_route *row;
	struct config *c = r->c;
	size_t n = 0;

	WEIRREC_ROUTE_FOR_EACH(row, r->db->idl)
	n++;
	c->routes = xcalloc(n + 1, sizeof *c->routes);
	WEIRREC_ROUTE_FOR_EACH(row, r->db->idl)
	{
		struct config_route *to = &c->routes[c->n_routes];

		if (read_route(r, row, to)) {
			c->n_routes++;
		} else {
			free(to->hops);
			*to = (struct config_route){.hops = NULL};
		}
	}
	qsort(c->routes, c->n_routes, sizeof *c->routes, route_compare);
	for (size_t i = 1; i < c->n_routes; i++)
		if (!route_order(&c->routes[i - 1], &c->routes[i]))
			db_row_error(&c->routes[i].error, xasprintf("prefix: there is this route with metric %u already; give "
								    "this one another metric, or that one more next hops",
								    c->routes[i].metric));
}

// ---- Route_Policy

static bool read_match(const char *column, const char *text, struct config_prefix *p, char **error)
{
	if (!text || !*text)
		return false;
	if (!db_parse_prefix(text, strlen(text), p))
		db_row_error(error, xasprintf("%s: \"%s\" is no prefix such as 10.0.0.0/8 or fd00::/8", column, text));
	else if (!tail_is(p, false))
		db_row_error(error, xasprintf("%s: %s has bits behind its %u", column, text, p->len));
	return true;
}

static void read_policy(const struct weirrec_route_policy *row, struct config_route_policy *p)
{
	p->row = db_row_id(&row->header_.uuid);
	if (row->router)
		p->router = db_row_id(&row->router->header_.uuid);
	p->priority = (uint32_t)db_optional_int("priority", row->priority, row->n_priority, DEFAULT_POLICY_PRIORITY, 0,
						UINT32_MAX, &p->error);
	p->has_src = read_match("src", row->src, &p->src, &p->error);
	p->has_dst = read_match("dst", row->dst, &p->dst, &p->error);
	if (p->has_src && p->has_dst && p->src.ip.v6 != p->dst.ip.v6)
		db_row_error(&p->error, xstrdup("dst: it is of another family than src, so that no packet has both"));
	p->has_port = weirrec_route_policy_get_in_port(row, OVSDB_TYPE_UUID)->n > 0;
	if (row->in_port) {
		p->port = db_row_id(&row->in_port->header_.uuid);
		if (row->in_port->router != row->router)
			db_row_error(&p->error, xasprintf("in_port: %s is a port of another router", row->in_port->name));
	}
	p->dscp = (int)db_optional_int("dscp", row->dscp, row->n_dscp, -1, 0, 63, &p->error);
	if (row->mark && *row->mark)
		mark_read(row->mark, "mark", &p->mark, &p->error);
	p->type = read_type("action", row->action, &p->error);
	p->table = (uint32_t)db_optional_int("table", row->table, row->n_table, 0, 1, UINT32_MAX, &p->error);
	if (p->type != ROUTE_UNICAST && row->n_table)
		db_row_error(&p->error, xasprintf("table: action %s looks nothing up", row->action));
}

static int policy_compare(const void *a_, const void *b_)
{
	const struct config_route_policy *a = a_, *b = b_;
	int cmp = memcmp(&a->router, &b->router, sizeof a->router);

	cmp = cmp ? cmp : (a->priority > b->priority) - (a->priority < b->priority);
	return cmp ? cmp : memcmp(&a->row, &b->row, sizeof a->row);
}

static void read_policies(struct reading *r)
{
	const struct weirrec_route_policy *row;
	struct config *c = r->c;
	size_t n = 0;

	WEIRREC_ROUTE_POLICY_FOR_EACH(row, r->db->idl)
	n++;
	c->policies = xcalloc(n + 1, sizeof *c->policies);
	WEIRREC_ROUTE_POLICY_FOR_EACH(row, r->db->idl)
	read_policy(row, &c->policies[c->n_policies++]);
	qsort(c->policies, c->n_policies, sizeof *c->policies, policy_compare);
}

// ---- all of it

static int router_compare(const void *a, const void *b)
{
	return memcmp(&((const struct config_router *)a)->row, &((const struct config_router *)b)->row, sizeof(struct row_id));
}

// The ports of this switch are the config's; those of others have served to understand the routes.
static void keep_places(struct reading *r)
{
	struct config *c = r->c;

	c->router_ports = xcalloc(r->n + 1, sizeof *c->router_ports);
	for (size_t i = 0; i < r->n; i++) {
		if (r->place[i].here) {
			add_port(c, &r->place[i].p);
			c->router_ports[c->n_router_ports++] = r->place[i].p;
		} else {
			config_router_port_clear(&r->place[i].p);
		}
	}
	free(r->place);
}

void db_read_routers(struct db *db, struct config *c)
{
	struct reading r = {.db = db, .c = c};
	const struct weirrec_router *router;
	const struct weirrec_router_port *port;
	size_t n = 0;

	WEIRREC_ROUTER_FOR_EACH(router, db->idl)
	n++;
	c->routers = xcalloc(n + 1, sizeof *c->routers);
	WEIRREC_ROUTER_FOR_EACH(router, db->idl)
	read_router(router, &c->routers[c->n_routers++]);
	qsort(c->routers, c->n_routers, sizeof *c->routers, router_compare);

	n = 0;
	WEIRREC_ROUTER_PORT_FOR_EACH(port, db->idl)
	n++;
	r.place = xcalloc(n + 1, sizeof *r.place);
	WEIRREC_ROUTER_PORT_FOR_EACH(port, db->idl)
	read_router_port(&r, port, &r.place[r.n++]);
	keep_good(&r);
	qsort(r.place, r.n, sizeof *r.place, place_compare);
	c->routes_kept = !db->routes_changed;
	if (!c->routes_kept)
		read_routes(&r);
	db->routes_changed = false;
	read_policies(&r);
	keep_places(&r);
}
