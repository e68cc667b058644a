// dbdump: the switch's database client and control socket without a switch, for tests/functional/test_db.py.
//
//   dbdump REMOTE HOST [CONTROL-SOCKET]
//
// Prints a JSON object a line: {"config": ...} for each config, {"problem": ...} when it changes, {"sigterm": true} before it
// ends by that signal. What it reads from standard input, a line each:
//
//   apply on|off             whether it reports the errors of each config and says that it is applied (on at first)
//   port NAME up|down ERROR|- [KEY=VALUE...]    link, error and status of a port
//   stats NAME KEY=NUMBER...                    statistics of a port
//   network NAME ERROR|-
//   host KEY=VALUE...                           status of the host
//   publish IP|- STATION...                     what this switch tells the others; "_" in a station is a space
//   interval MS
#include "control.h"
#include "db.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	MAX_PAIRS = 64
};

static struct config *last; // of which the commands know the names
static bool apply = true;
static int signal_pipe[2];
static int input; // standard input under another number: the poll loop can't wait for descriptor 0

static void put(json_t *object)
{
	json_dumpf(object, stdout, JSON_COMPACT | JSON_SORT_KEYS);
	putchar('\n');
	fflush(stdout);
	json_decref(object);
}

static json_t *map_json(const struct config_map *map)
{
	json_t *o = json_object();

	for (size_t i = 0; i < map->n; i++)
		json_object_set_new(o, map->pair[i].key, json_string(map->pair[i].value));
	return o;
}

static json_t *row_json(const struct row_id *row)
{
	char text[ROW_ID_STRLEN + 1];

	if (row_id_is_zero(row))
		return json_null();
	row_id_format(row, text);
	return json_string(text);
}

static json_t *text_json(const char *s)
{
	return s ? json_string(s) : json_null();
}

static json_t *mac_json(const uint8_t *m)
{
	return json_sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
}

static json_t *ip_json(const struct config_ip *ip)
{
	char text[INET6_ADDRSTRLEN];

	return json_string(inet_ntop(ip->v6 ? AF_INET6 : AF_INET, ip->b, text, sizeof text));
}

static json_t *network_json(const struct config_network *n)
{
	json_t *flood_to = json_array();

	for (size_t i = 0; i < n->n_flood_to; i++)
		json_array_append_new(flood_to, ip_json(&n->flood_to[i]));
	return json_pack("{ss so sb so so ss si si si sb sb sb si si si si si so}", "tunnel", n->tunnel, "flood_to", flood_to, "arp_proxy", n->arp_proxy, "multicast",
			 map_json(&n->multicast), "row", row_json(&n->row), "name", n->name, "vlan",
			 n->vlan, "vni", (int)n->vni, "mtu", n->mtu, "learning", n->learning, "flood_unknown", n->flood_unknown,
			 "forward_bpdu", n->forward_bpdu, "ageing", (int)n->ageing_s, "mac_limit", (int)n->mac_limit,
			 "flap_threshold", (int)n->flap_threshold, "flap_window", (int)n->flap_window_s, "flap_hold",
			 (int)n->flap_hold_s, "error", text_json(n->error));
}

static json_t *rate_json(const struct config_rate *r)
{
	return json_pack("[I,I]", (json_int_t)r->pps, (json_int_t)r->burst);
}

// "MAC IP...", as in the row.
static json_t *address_json(const struct config_address *a)
{
	json_t *mac = mac_json(a->mac);
	char text[512];
	size_t n = (size_t)snprintf(text, sizeof text, "%s", json_string_value(mac));

	json_decref(mac);
	for (size_t i = 0; i < a->n_ips && n < sizeof text - INET6_ADDRSTRLEN - 1; i++) {
		text[n++] = ' ';
		inet_ntop(a->ip[i].v6 ? AF_INET6 : AF_INET, a->ip[i].b, text + n, INET6_ADDRSTRLEN);
		n += strlen(text + n);
	}
	return json_string(text);
}

static json_t *port_json(const struct config_port *p)
{
	static const char *const modes[] = {"access", "trunk", "native-tagged", "native-untagged", "dot1q-tunnel", "network-id"}, *const routers[] = {"auto", "never", "always"};
	json_t *trunks = json_array(), *cvlans = json_array(), *addresses = json_array();

	for (size_t i = 0; i < p->n_trunks; i++)
		json_array_append_new(trunks, row_json(&p->trunks[i]));
	for (size_t i = 0; i < p->n_cvlans; i++)
		json_array_append_new(cvlans, json_integer(p->cvlans[i]));
	for (size_t i = 0; i < p->n_addresses; i++)
		json_array_append_new(addresses, address_json(&p->addresses[i]));
	return json_pack("{so ss ss so so so sb so ss so so so si sb ss si so so so so}", "row", row_json(&p->row), "name",
			 p->name, "type", p->type, "options", map_json(&p->options), "other_config", map_json(&p->other_config),
			 "external_ids", map_json(&p->external_ids), "enabled", p->enabled, "network", row_json(&p->network),
			 "vlan_mode", modes[p->vlan_mode], "trunks", trunks, "cvlans", cvlans, "addresses", addresses, "mtu",
			 p->mtu, "isolated", p->isolated, "multicast_router", routers[p->multicast_router], "mac_limit", (int)p->mac_limit, "storm_broadcast",
			 rate_json(&p->storm_broadcast), "storm_multicast", rate_json(&p->storm_multicast), "storm_unknown",
			 rate_json(&p->storm_unknown), "error", text_json(p->error));
}

static json_t *prefix_json(const struct config_prefix *p)
{
	char text[INET6_ADDRSTRLEN];

	return json_sprintf("%s/%u", inet_ntop(p->ip.v6 ? AF_INET6 : AF_INET, p->ip.b, text, sizeof text), p->len);
}

static json_t *rows_json(const struct row_id *row, size_t n)
{
	json_t *rows = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(rows, row_json(&row[i]));
	return rows;
}

static json_t *router_port_json(const struct config_router_port *p)
{
	json_t *addresses = json_array();

	for (size_t i = 0; i < p->n_addresses; i++)
		json_array_append_new(addresses, prefix_json(&p->addresses[i]));
	return json_pack("{so ss so so so so sb so so so}", "row", row_json(&p->row), "name", p->name, "router", row_json(&p->router), "network",
			 row_json(&p->network), "mac", mac_json(p->mac), "addresses", addresses, "enabled", p->enabled, "ra", map_json(&p->ra),
			 "other_config", map_json(&p->other_config), "error", text_json(p->error ? p->error : p->complaint));
}

static const char *const route_types[] = {"none", "unicast", "local", "blackhole", "unreachable", "prohibit"};

static json_t *route_json(const struct config_route *r)
{
	json_t *hops = json_array();

	for (size_t i = 0; i < r->n_hops; i++)
		json_array_append_new(hops, json_pack("{so so si}", "gateway", r->hops[i].has_gateway ? ip_json(&r->hops[i].gateway) : json_null(), "port",
						      row_json(&r->hops[i].port), "weight", r->hops[i].weight));
	return json_pack("{so so sI so ss sI so so}", "row", row_json(&r->row), "router", row_json(&r->router), "table", (json_int_t)r->table, "prefix",
			 prefix_json(&r->prefix), "type", route_types[r->type], "metric", (json_int_t)r->metric, "hops", hops, "error", text_json(r->error));
}

static json_t *policy_json(const struct config_route_policy *p)
{
	return json_pack("{so so sI so so so si sI sI ss sI so}", "row", row_json(&p->row), "router", row_json(&p->router), "priority", (json_int_t)p->priority, "src",
			 p->has_src ? prefix_json(&p->src) : json_null(), "dst", p->has_dst ? prefix_json(&p->dst) : json_null(), "port", row_json(&p->port),
			 "dscp", p->dscp, "mark", (json_int_t)p->mark.value, "mask", (json_int_t)p->mark.mask, "type", route_types[p->type], "table", (json_int_t)p->table, "error", text_json(p->error));
}

static json_t *routing_json(const struct config *c)
{
	json_t *routers = json_array(), *ports = json_array(), *routes = json_array(), *policies = json_array();

	for (size_t i = 0; i < c->n_routers; i++)
		json_array_append_new(routers, json_pack("{so ss sb so so}", "row", row_json(&c->routers[i].row), "name", c->routers[i].name, "enabled",
							 c->routers[i].enabled, "other_config", map_json(&c->routers[i].other_config), "error",
							 text_json(c->routers[i].error)));
	for (size_t i = 0; i < c->n_router_ports; i++)
		json_array_append_new(ports, router_port_json(&c->router_ports[i]));
	for (size_t i = 0; i < c->n_routes; i++)
		json_array_append_new(routes, route_json(&c->routes[i]));
	for (size_t i = 0; i < c->n_policies; i++)
		json_array_append_new(policies, policy_json(&c->policies[i]));
	return json_pack("{so so so so}", "routers", routers, "router_ports", ports, "routes", routes, "policies", policies);
}

static json_t *tunnels_json(const struct config *c)
{
	json_t *own = json_array(), *remotes = json_array(), *macs = json_array();

	for (size_t i = 0; i < c->n_tunnel_ips; i++)
		json_array_append_new(own, ip_json(&c->tunnel_ips[i]));
	for (size_t i = 0; i < c->n_remotes; i++)
		json_array_append_new(remotes, json_pack("{so ss so so}", "ip", ip_json(&c->remotes[i].ip), "name", c->remotes[i].name, "host",
							 row_json(&c->remotes[i].host), "networks",
							 rows_json(c->remotes[i].networks, c->remotes[i].n_networks)));
	for (size_t i = 0; i < c->n_remote_macs; i++) {
		const struct config_remote_mac *m = &c->remote_macs[i];
		json_t *ips = json_array();

		for (size_t k = 0; k < m->n_ips; k++)
			json_array_append_new(ips, ip_json(&m->ips[k]));
		json_array_append_new(macs, json_pack("{so so so so so}", "network", row_json(&m->network), "mac", mac_json(m->mac), "ip", ip_json(&m->ip),
						      "ips", ips, "row", row_json(&m->row)));
	}
	return json_pack("{so so so}", "tunnel_ips", own, "remotes", remotes, "remote_macs", macs);
}

static json_t *config_json(const struct config *c)
{
	json_t *networks = json_array(), *ports = json_array(), *fdb = json_array();

	for (size_t i = 0; i < c->n_networks; i++)
		json_array_append_new(networks, network_json(&c->networks[i]));
	for (size_t i = 0; i < c->n_ports; i++)
		json_array_append_new(ports, port_json(&c->ports[i]));
	for (size_t i = 0; i < c->n_fdb; i++)
		json_array_append_new(fdb, json_pack("{so so so so so}", "row", row_json(&c->fdb[i].row), "network",
						     row_json(&c->fdb[i].network), "port", row_json(&c->fdb[i].port), "mac",
						     mac_json(c->fdb[i].mac), "error", text_json(c->fdb[i].error)));
	json_t *all = json_pack("{sI so so so so}", "next_cfg", (json_int_t)c->next_cfg, "other_config", map_json(&c->other_config),
			 "networks", networks, "ports", ports, "fdb", fdb);
	json_object_update_new(all, routing_json(c));
	json_object_update_new(all, tunnels_json(c));
	return all;
}

static void report_port(struct db *db, const struct config_port *p, uint16_t number)
{
	db_error(db, DB_PORT, &p->row, p->error);
	db_status(db, DB_PORT, &p->row, NULL, 0);
	db_port_link(db, &p->row, false);
	db_port_number(db, &p->row, number, p->mtu ? p->mtu : 1500);
}

static void report(struct db *db, const struct config *c)
{
	for (size_t i = 0; i < c->n_networks; i++)
		db_error(db, DB_NETWORK, &c->networks[i].row, c->networks[i].error);
	for (size_t i = 0; i < c->n_ports; i++) {
		if (c->ports[i].kind == PORT_DEVICE)
			report_port(db, &c->ports[i], (uint16_t)(i + 1));
	}
	for (size_t i = 0; i < c->n_fdb; i++)
		db_error(db, DB_FDB, &c->fdb[i].row, c->fdb[i].error);
	for (size_t i = 0; i < c->n_routers; i++)
		db_error(db, DB_ROUTER, &c->routers[i].row, c->routers[i].error);
	for (size_t i = 0; i < c->n_router_ports; i++) {
		const struct config_router_port *p = &c->router_ports[i];
		db_error(db, DB_ROUTER_PORT, &p->row, p->error ? p->error : p->complaint);
	}
	for (size_t i = 0; i < c->n_routes; i++)
		db_error(db, DB_ROUTE, &c->routes[i].row, c->routes[i].error);
	for (size_t i = 0; i < c->n_policies; i++)
		db_error(db, DB_ROUTE_POLICY, &c->policies[i].row, c->policies[i].error);
	db_applied(db, c->next_cfg);
}

// ---- commands

static const struct row_id *port_row(const char *name)
{
	for (size_t i = 0; last && name && i < last->n_ports; i++)
		if (!strcmp(last->ports[i].name, name))
			return &last->ports[i].row;
	fprintf(stderr, "dbdump: no port %s\n", name ? name : "");
	exit(1);
}

static const struct row_id *network_row(const char *name)
{
	for (size_t i = 0; last && name && i < last->n_networks; i++)
		if (!strcmp(last->networks[i].name, name))
			return &last->networks[i].row;
	fprintf(stderr, "dbdump: no network %s\n", name ? name : "");
	exit(1);
}

static size_t read_pairs(char **words, struct db_kv kv[MAX_PAIRS])
{
	size_t n = 0;

	for (char *word; n < MAX_PAIRS && (word = strtok_r(NULL, " \n", words));) {
		char *equals = strchr(word, '=');
		if (!equals)
			continue;
		*equals = '\0';
		kv[n].key = word;
		kv[n++].value = equals + 1;
	}
	return n;
}

static const char *dash_null(const char *word)
{
	return word && strcmp(word, "-") ? word : NULL;
}

static void publish(struct db *db, char **words)
{
	const char *ip = dash_null(strtok_r(NULL, " \n", words)), *station[MAX_PAIRS];
	size_t n = 0;

	for (char *word; n < MAX_PAIRS && (word = strtok_r(NULL, " \n", words)); station[n++] = word)
		for (char *s = word; *s; s++)
			*s = *s == '_' ? ' ' : *s;
	db_publish(db, &ip, ip != NULL, station, n);
}

static void run_command(struct db *db, char *line)
{
	char *words, *verb = strtok_r(line, " \n", &words);
	struct db_kv kv[MAX_PAIRS];
	struct db_stat stats[MAX_PAIRS];

	if (!verb)
		return;
	if (!strcmp(verb, "apply")) {
		apply = !strcmp(strtok_r(NULL, " \n", &words), "on");
		if (apply && last)
			report(db, last);
	} else if (!strcmp(verb, "port")) {
		const struct row_id *row = port_row(strtok_r(NULL, " \n", &words));
		bool up = !strcmp(strtok_r(NULL, " \n", &words), "up");
		const char *error = dash_null(strtok_r(NULL, " \n", &words));
		size_t n = read_pairs(&words, kv);
		db_error(db, DB_PORT, row, error);
		db_status(db, DB_PORT, row, kv, n);
		db_port_link(db, row, up);
	} else if (!strcmp(verb, "stats")) {
		const struct row_id *row = port_row(strtok_r(NULL, " \n", &words));
		size_t n = read_pairs(&words, kv);
		for (size_t i = 0; i < n; i++)
			stats[i] = (struct db_stat){kv[i].key, atoll(kv[i].value)};
		db_stats(db, DB_PORT, row, stats, n);
	} else if (!strcmp(verb, "network")) {
		const struct row_id *row = network_row(strtok_r(NULL, " \n", &words));
		db_error(db, DB_NETWORK, row, dash_null(strtok_r(NULL, " \n", &words)));
	} else if (!strcmp(verb, "host")) {
		db_status(db, DB_HOST, NULL, kv, read_pairs(&words, kv));
	} else if (!strcmp(verb, "publish")) {
		publish(db, &words);
	} else if (!strcmp(verb, "interval")) {
		db_set_stats_interval(db, (unsigned)atoi(strtok_r(NULL, " \n", &words)));
	}
}

// False at the end of the input.
static bool run_input(struct db *db)
{
	static char buf[65536];
	static size_t len;
	ssize_t n = read(input, buf + len, sizeof buf - 1 - len);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (!n)
		return false;
	len += (size_t)n;
	buf[len] = '\0';
	for (char *end; (end = memchr(buf, '\n', len));) {
		*end = '\0';
		run_command(db, buf);
		len -= (size_t)(end + 1 - buf);
		memmove(buf, end + 1, len + 1);
	}
	return true;
}

// ---- the control socket

static struct control_request *waiting;

static void echo(struct control_request *r, int argc, const char *argv[], void *aux)
{
	control_reply(r, argc > 1 ? argv[1] : "");
}

static void fail(struct control_request *r, int argc, const char *argv[], void *aux)
{
	control_reply_error(r, "it fails, as asked");
}

static void later(struct control_request *r, int argc, const char *argv[], void *aux)
{
	waiting = r;
}

static void waits(struct control_request *r, int argc, const char *argv[], void *aux)
{
	control_reply(r, waiting ? "yes" : "no");
}

static void now(struct control_request *r, int argc, const char *argv[], void *aux)
{
	if (waiting)
		control_reply(waiting, "late");
	waiting = NULL;
	control_reply(r, "done");
}

static void log_test(struct control_request *r, int argc, const char *argv[], void *aux)
{
	log_line(argv[1][0], argv[2], "%s", argv[3]);
	control_reply(r, NULL);
}

static void on_sigterm(int sig)
{
	ssize_t n = write(signal_pipe[1], "", 1);

	(void)n;
}

int main(int argc, char *argv[])
{
	char *error, *problem = NULL, byte;
	bool first = true;

	if (argc < 3) {
		fprintf(stderr, "usage: dbdump REMOTE HOST [CONTROL-SOCKET]\n");
		return 2;
	}
	if (pipe2(signal_pipe, O_NONBLOCK | O_CLOEXEC))
		return 1;
	log_open(NULL, true, false);
	if (getenv("DBDUMP_CERTIFICATES")) { // a folder
		char name[3][4096];
		snprintf(name[0], sizeof name[0], "%s/key.pem", getenv("DBDUMP_CERTIFICATES"));
		snprintf(name[1], sizeof name[1], "%s/cert.pem", getenv("DBDUMP_CERTIFICATES"));
		snprintf(name[2], sizeof name[2], "%s/ca.pem", getenv("DBDUMP_CERTIFICATES"));
		db_set_ssl(name[0], name[1], name[2]);
	}
	struct db *db = db_open(argv[1], argv[2]);
	if (argc > 3) {
		control_register("echo", "[TEXT]", 0, 1, echo, NULL);
		control_register("fail", "", 0, 0, fail, NULL);
		control_register("later", "", 0, 0, later, NULL);
		control_register("waits", "", 0, 0, waits, NULL);
		control_register("now", "", 0, 0, now, NULL);
		control_register("log", "LEVEL MODULE TEXT", 3, 3, log_test, NULL);
		if (control_open(argv[3], &error)) {
			fprintf(stderr, "%s\n", error);
			return 1;
		}
	}
	// After the library's own initialisation, which must not have left its handlers: this one is only seen if it asks
	// first.
	struct sigaction old;
	sigaction(SIGTERM, NULL, &old);
	if (old.sa_handler != SIG_DFL)
		put(json_pack("{sb}", "foreign_handler", 1));
	signal(SIGTERM, on_sigterm);
	input = fcntl(0, F_DUPFD_CLOEXEC, 3);
	fcntl(input, F_SETFL, fcntl(input, F_GETFL) | O_NONBLOCK);

	while (run_input(db)) {
		struct config *config = db_run(db);
		if (config && config->routes_kept) { // it keeps none: all of them once more
			config_free(config);
			db_again(db);
			config = db_run(db);
		}
		const char *p = db_problem(db);

		control_run();
		if (first || !!p != !!problem || (p && strcmp(p, problem))) {
			free(problem);
			problem = p ? strdup(p) : NULL;
			put(json_pack("{so}", "problem", text_json(problem)));
			first = false;
		}
		if (config) {
			put(json_pack("{so}", "config", config_json(config)));
			config_free(last);
			last = config;
			if (apply)
				report(db, config);
		}
		if (read(signal_pipe[0], &byte, 1) == 1) {
			put(json_pack("{sb}", "sigterm", 1));
			break;
		}
		db_wait(db);
		control_wait();
		loop_wait_fd(input);
		loop_wait_fd(signal_pipe[0]);
		loop_block();
	}
	control_close();
	if (waiting)
		control_reply(waiting, "too late");
	db_close(db);
	config_free(last);
	free(problem);
	return 0;
}
