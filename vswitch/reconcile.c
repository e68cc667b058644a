// reconcile: see reconcile.h.
#include "reconcile.h"
#include "bond.h"
#include "buf.h"
#include "capture.h"
#include "control.h"
#include "endpoint.h"
#include "export.h"
#include "forward.h"
#include "link_mtu.h"
#include "lldp_port.h"
#include "metrics.h"
#include "neighbour_table.h"
#include "number.h"
#include "port.h"
#include "port_watch.h"
#include "route_load.h"
#include "route_table.h"
#include "sentence.h"
#include "stage.h"
#include "station_file.h"
#include "thread.h"
#include "uplink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <rte_version.h>

// A row and the sentence that it got, so that its next state can be written with it.
struct row_error {
	struct row_id row;
	char *text;
};

static struct row_error *errors;
static size_t n_errors;
static char *problem;
static struct config *current;

// Ports are sorted by name.
static int name_compare(const void *name, const void *port)
{
	return strcmp(name, ((const struct config_port *)port)->name);
}

// What is wrong with a router port is wrong with its port, and the other way round.
static void merge_error(const struct config *c, const char *name, const struct row_id *row, char **error)
{
	struct config_port *port = bsearch(name, c->ports, c->n_ports, sizeof *c->ports, name_compare);

	if (!port || !row_id_equal(&port->row, row))
		return;
	if (*error && !port->error)
		port->error = strdup(*error);
	else if (!*error && port->error)
		*error = strdup(port->error);
}

static void keep_errors(const struct config *c)
{
	for (size_t i = 0; i < c->n_router_ports; i++)
		merge_error(c, c->router_ports[i].name, &c->router_ports[i].row, &c->router_ports[i].error);

	for (size_t i = 0; i < n_errors; i++)
		free(errors[i].text);
	free(errors);
	n_errors = 0;
	errors = calloc(c->n_ports + 1, sizeof *errors);
	for (size_t i = 0; errors && i < c->n_ports; i++)
		if (c->ports[i].error)
			errors[n_errors++] = (struct row_error){c->ports[i].row, strdup(c->ports[i].error)};
}

const char *reconcile_port_error(const struct row_id *row)
{
	for (size_t i = 0; i < n_errors; i++)
		if (row_id_equal(&errors[i].row, row))
			return errors[i].text;
	return NULL;
}

const char *reconcile_problem(void)
{
	return problem ? problem : metrics_problem();
}

static void write_errors(const struct config *c, struct db *db)
{
#define WRITE(rows, table)                                                                                             \
	for (size_t i = 0; i < c->n_##rows; i++)                                                                       \
	db_error(db, table, &c->rows[i].row, c->rows[i].error)
	WRITE(networks, DB_NETWORK);
	WRITE(fdb, DB_FDB);
	WRITE(flows, DB_FLOW);
	WRITE(classes, DB_CLASS);
	WRITE(exports, DB_EXPORT);
	WRITE(mirrors, DB_MIRROR);
	WRITE(routers, DB_ROUTER);
	WRITE(routes, DB_ROUTE);
	WRITE(policies, DB_ROUTE_POLICY);
#undef WRITE
	for (size_t i = 0; i < c->n_router_ports; i++) {
		const struct config_router_port *rp = &c->router_ports[i];
		db_error(db, DB_ROUTER_PORT, &rp->row, rp->error ? rp->error : rp->complaint);
	}
	for (size_t i = 0; i < c->n_remote_macs; i++)
		if (!row_id_is_zero(&c->remote_macs[i].row))
			db_error(db, DB_FDB, &c->remote_macs[i].row, c->remote_macs[i].error);
	// Those of ports that there are come with their state.
	for (size_t i = 0; i < c->n_ports; i++) {
		const struct config_port *port = &c->ports[i];

		if (port->id || port->kind != PORT_DEVICE)
			continue;
		db_error(db, DB_PORT, &port->row, port->error);
		db_status(db, DB_PORT, &port->row, NULL, 0);
		db_port_link(db, &port->row, false);
	}
}

// Sets KEY:HOST, of which each switch has its own.
static void write_number(struct db *db, enum db_table table, const struct row_id *row, const char *what, uint16_t number)
{
	char *key = NULL, text[8];

	if (asprintf(&key, "%s:%s", what, db_host_name(db)) < 0)
		return;
	snprintf(text, sizeof text, "%u", number);
	db_status(db, table, row, &(struct db_kv){key, text}, 1);
	free(key);
}

static void write_router_port(struct db *db, const struct config_router_port *rp)
{
	static bool said[MAX_PORTS]; // that there is a duplicate: then it is said too that there is none any more
	struct buf addresses = {0}, duplicate = {0};
	char *key = NULL, *duplicate_key = NULL, number[8], mtu[8], mac[18], ip[INET6_ADDRSTRLEN];
	const struct lport *lp = lport_get(rp->id);
	const uint8_t *m = rp->mac;

	for (size_t i = 0; i < rp->n_addresses; i++) {
		const struct config_prefix *a = &rp->addresses[i];
		inet_ntop(a->ip.v6 ? AF_INET6 : AF_INET, a->ip.b, ip, sizeof ip);
		buf_add(&addresses, "%s%s/%u", i ? " " : "", ip, a->len);
	}
	snprintf(number, sizeof number, "%u", rp->id);
	snprintf(mtu, sizeof mtu, "%u", lp ? lp->mtu : 0);
	snprintf(mac, sizeof mac, "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
	if (asprintf(&key, "port_number:%s", db_host_name(db)) >= 0 && addresses.text) {
		struct db_kv kv[5] = {{"mac", mac}, {"addresses", addresses.text}, {key, number}};
		size_t n = 3;

		if (lp)
			kv[n++] = (struct db_kv){"mtu", mtu};
		neighbour_duplicates(rp->id, &duplicate);
		said[rp->id] |= duplicate.text != NULL;
		if (said[rp->id] && asprintf(&duplicate_key, "duplicate:%s", db_host_name(db)) >= 0)
			kv[n++] = (struct db_kv){duplicate_key, duplicate.text ? duplicate.text : ""};
		db_status(db, DB_ROUTER_PORT, &rp->row, kv, n);
	}
	free(key);
	free(duplicate_key);
	free(addresses.text);
	free(duplicate.text);
}

static void write_status(const struct config *c, struct db *db)
{
	char mtu[8];

	for (size_t i = 0; i < c->n_networks; i++) {
		const struct network *n = c->networks[i].id ? topology_networks[c->networks[i].id] : NULL;
		if (!n)
			continue;
		snprintf(mtu, sizeof mtu, "%u", n->mtu);
		db_status(db, DB_NETWORK, &c->networks[i].row, &(struct db_kv){"mtu", mtu}, 1);
	}
	for (size_t i = 0; i < c->n_routers; i++)
		if (c->routers[i].id)
			write_number(db, DB_ROUTER, &c->routers[i].row, "number", c->routers[i].id);
	for (size_t i = 0; i < c->n_router_ports; i++)
		if (c->router_ports[i].id && !c->router_ports[i].error)
			write_router_port(db, &c->router_ports[i]);
}

void reconcile(struct config *c, struct db *db)
{
	const char *bad = NULL;

	free(problem);
	problem = NULL;
	number_config(c);
	if (thread_reconcile(&c->other_config, &problem))
		log_line('e', "config", "%s", problem ? problem : "workers could not be started");
	else if (problem)
		log_line('w', "config", "%s", problem);
	db_set_stats_interval(db, (unsigned)config_map_uint(&c->other_config, "stats-interval", 5000, 100, 3600000, &bad));
	port_reconcile_begin(c);
	bond_prepare(c);
	link_mtu_limit(c);
	capture_ports_changed();
	int rc = stages_reconcile(c);
	if (rc)
		log_line('e', "config", "not all of the configuration could be applied: %s", strerror(-rc));
	station_file_load(); // before devices open: a guest that waits for its switch may be back before this is through
	route_load_reconcile(c);
	port_reconcile_end(c);
	metrics_reconcile(c);
	uplink_reconcile(c);
	thread_assign(false);
	export_reconcile(c);
	keep_errors(c);
	write_errors(c, db);
	write_status(c, db);
	endpoint_publish(c, db);
	int64_t generation = c->next_cfg;
	config_free(current);
	current = c;
	reconcile_report(db, false);
	if (!route_rows_wanted())
		db_applied(db, generation);
}

// ---- reports

static void report_state(struct port *p, struct db *db)
{
	struct db_kv kv[32];
	struct port_state s;
	size_t n = 0;
	const char *error = reconcile_port_error(&p->row);

	port_state(p, &s);
	port_watch(p, &s);
	if (s.problem[0])
		kv[n++] = (struct db_kv){"problem", s.problem};
	if (p->bond && port_get(p->bond))
		kv[n++] = (struct db_kv){"bond", port_get(p->bond)->name};
	char neighbour[96];
	if (lldp_port_neighbour(p->id, neighbour))
		kv[n++] = (struct db_kv){"neighbour", neighbour};
	for (unsigned i = 0; i < s.n_status; i++)
		kv[n++] = (struct db_kv){s.status[i].key, s.status[i].value};
	char unknown[LOSS_N * 24] = "";
	for (unsigned i = 0; i < LOSS_N; i++)
		if (s.loss[i] == LOSS_UNKNOWN)
			snprintf(unknown + strlen(unknown), sizeof unknown - strlen(unknown), "%s%s", unknown[0] ? ", " : "", port_loss_desc[i].key);
	if (unknown[0])
		kv[n++] = (struct db_kv){"unknown", unknown};
	db_error(db, DB_PORT, &p->row, error ? error : p->error);
	db_status(db, DB_PORT, &p->row, kv, n);
	db_port_link(db, &p->row, s.link_up);
	db_port_number(db, &p->row, p->id, port_mtu_now(p));
}

// Of a member of a bond: what is on the bond's ledger.
static size_t member_stats(const struct port *p, struct db_stat st[4])
{
	struct bond_count sum;
	unsigned place;
	const struct bond *b = bond_of(p, &place);

	if (!b)
		return 0;
	bond_count_sum(b, place, &sum);
	st[0] = (struct db_stat){"bond_rx_packets", (int64_t)sum.rx_packets};
	st[1] = (struct db_stat){"bond_rx_bytes", (int64_t)sum.rx_bytes};
	st[2] = (struct db_stat){"bond_tx_packets", (int64_t)sum.tx_packets};
	st[3] = (struct db_stat){"bond_tx_bytes", (int64_t)sum.tx_bytes};
	return 4;
}

static void report_stats(struct port *p, struct db *db)
{
	struct db_stat st[COUNT_N + MAX_REASONS + LOSS_N + 4];
	static char keys[MAX_REASONS][64]; // one main thread
	struct counts sum = {0};
	size_t n = 0;

	port_counts(p, &sum);
	port_watch_counts(p, sum.drop[forward_reason_base + flow_RESOLVE_QUEUE]);
	for (unsigned i = 0; i < COUNT_N; i++)
		st[n++] = (struct db_stat){count_desc[i].key, (int64_t)sum.c[i]};
	for (uint16_t r = 1; r < reason_count(); r++) {
		if (!sum.drop[r])
			continue;
		snprintf(keys[r], sizeof keys[r], "drop_%s_%s", reason_get(r)->module, reason_get(r)->name);
		for (char *c = keys[r]; *c; c++)
			*c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
		st[n++] = (struct db_stat){keys[r], (int64_t)sum.drop[r]};
	}
	struct port_state s;
	port_state(p, &s);
	for (unsigned i = 0; i < LOSS_N; i++)
		if (s.loss[i] < LOSS_UNKNOWN) // others are named in the port's status
			st[n++] = (struct db_stat){port_loss_desc[i].key, (int64_t)s.loss[i]};
	n += member_stats(p, st + n);
	db_stats(db, DB_PORT, &p->row, st, n);
}

struct report_arg {
	struct db *db;
	bool stats;
};

static void report_port(struct port *p, void *arg)
{
	struct report_arg *a = arg;

	const struct lport *lp = lport_get(p->id);

	if (lp && lp->kind != PORT_DEVICE)
		return;
	report_state(p, a->db);
	if (a->stats)
		report_stats(p, a->db);
}

static void sum_ports(struct port *p, void *arg)
{
	port_counts(p, arg);
}

static void report_host(struct db *db, bool stats)
{
	struct counts sum = {0};
	char workers[16], networks[16];
	unsigned n = 0;

	for (unsigned i = 1; i < MAX_NETWORKS; i++)
		n += topology_networks[i] != NULL;
	snprintf(workers, sizeof workers, "%u", thread_count());
	snprintf(networks, sizeof networks, "%u", n);
	struct db_kv kv[] = {
		{"version", WEIR_VERSION},
		{"dpdk_version", rte_version()},
		{"workers", workers},
		{"networks", networks},
		{"problem", reconcile_problem() ? reconcile_problem() : ""},
	};
	db_status(db, DB_HOST, NULL, kv, sizeof kv / sizeof kv[0] - !reconcile_problem());
	if (!stats)
		return;
	port_counts(port_get(0), &sum);
	port_each(sum_ports, &sum);
	struct db_stat st[COUNT_N + 1];
	for (unsigned i = 0; i < COUNT_N; i++)
		st[i] = (struct db_stat){count_desc[i].key, (int64_t)sum.c[i]};
	st[COUNT_N] = (struct db_stat){"missing", count_missing(&sum)};
	db_stats(db, DB_HOST, NULL, st, COUNT_N + 1);
}

static void report_row(void *db, const char *table, const struct row_id *row, uint64_t packets, uint64_t bytes)
{
	if (!strcmp(table, "Mirror"))
		db_mirror_stats(db, row, packets, bytes);
	else
		db_flow_stats(db, strcmp(table, "Class") ? DB_FLOW : DB_CLASS, row, packets, bytes);
}

// What has changed of their addresses since the config came.
static void report_router_ports(struct db *db)
{
	static uint32_t last;

	if (!current || neighbour_own_version() == last)
		return;
	last = neighbour_own_version();
	for (size_t i = 0; i < current->n_router_ports; i++)
		if (current->router_ports[i].id && !current->router_ports[i].error)
			write_router_port(db, &current->router_ports[i]);
}

void reconcile_report(struct db *db, bool stats)
{
	struct report_arg arg = {db, stats};

	if (stats) {
		stages_count(report_row, db);
		export_report(db);
	}
	port_each(report_port, &arg);
	report_router_ports(db);
	report_host(db, stats);
}
