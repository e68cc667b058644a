// db_write: what the switch writes back into the database.
//
// The wanted values are kept per row; a transaction sends those that are marked. There is one transaction at a time, and each
// is idempotent: one whose outcome is unknown is sent again. Rows that other switches may write as well (networks, static
// addresses, ports of no host) are written only when the own value changes, so that two switches don't overwrite each other for
// ever.
#include "openvswitch.h"

#include "control.h"
#include "db_private.h"

#include "openvswitch/poll-loop.h"
#include "smap.h"
#include "timeval.h"
#include "unicode.h"
#include "util.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum {
	DEFAULT_INTERVAL_MS = 5000,
	// Between two transactions that nobody waits for: a link that flaps doesn't load the server.
	GAP_MS = 20,
	RETRY_MIN_MS = 20,
	RETRY_MAX_MS = 5000,
};
#define WRITTEN_FAST ((unsigned)~WRITTEN_STATS)

struct written_row {
	struct hmap_node node;
	struct uuid uuid; // zero: the row of this switch in table Host, which may not exist yet
	enum db_table table;
	unsigned set;   // enum written: values that there are
	unsigned dirty; // to be sent
	unsigned sent;  // in the transaction in flight

	char *error;
	bool link_up;
	struct smap status;
	int64_t port_number, mtu, cur_cfg;
	char **stat_keys;
	int64_t *stat_values;
	size_t n_stats;
};

void db_writer_open(struct db_writer *w)
{
	hmap_init(&w->rows);
	w->interval_ms = DEFAULT_INTERVAL_MS;
}

static void clear_stats(struct written_row *r)
{
	for (size_t i = 0; i < r->n_stats; i++)
		free(r->stat_keys[i]);
	free(r->stat_keys);
	free(r->stat_values);
	r->stat_keys = NULL;
	r->stat_values = NULL;
	r->n_stats = 0;
}

static void row_destroy(struct db_writer *w, struct written_row *r)
{
	hmap_remove(&w->rows, &r->node);
	clear_stats(r);
	smap_destroy(&r->status);
	free(r->error);
	free(r);
}

static void free_strings(char ***s, size_t *n)
{
	for (size_t i = 0; i < *n; i++)
		free((*s)[i]);
	free(*s);
	*s = NULL;
	*n = 0;
}

void db_writer_close(struct db_writer *w)
{
	struct written_row *r;

	if (w->txn)
		ovsdb_idl_txn_destroy(w->txn);
	HMAP_FOR_EACH_SAFE (r, node, &w->rows)
		row_destroy(w, r);
	hmap_destroy(&w->rows);
	free_strings(&w->tunnel_ips, &w->n_tunnel_ips);
	free_strings(&w->stations, &w->n_stations);
}

static struct uuid uuid_of(const struct row_id *id)
{
	struct uuid u = {{0}};

	for (int i = 0; i < 16; i++)
		u.parts[i / 4] |= (uint32_t)id->b[i] << (24 - 8 * (i % 4));
	return u;
}

static struct written_row *row_of(struct db *db, enum db_table table, const struct row_id *id)
{
	struct db_writer *w = &db->writer;
	struct uuid uuid = id ? uuid_of(id) : (struct uuid){{0}};
	struct written_row *r;

	HMAP_FOR_EACH_WITH_HASH (r, node, uuid_hash(&uuid), &w->rows)
		if (r->table == table && uuid_equals(&r->uuid, &uuid))
			return r;
	r = xzalloc(sizeof *r);
	r->uuid = uuid;
	r->table = table;
	smap_init(&r->status);
	hmap_insert(&w->rows, &r->node, uuid_hash(&uuid));
	return r;
}

static void mark(struct db *db, struct written_row *r, unsigned what)
{
	r->set |= what;
	r->dirty |= what;
	db->writer.pending |= what;
}

// ---- the values

// JSON is UTF-8: one byte that isn't, in the name of some device, would make the server refuse the whole transaction.
static char *clean(const char *s)
{
	char *copy = xstrdup(s);
	char *invalid = utf8_validate(copy, NULL);

	for (size_t i = 0; invalid && copy[i]; i++)
		if (copy[i] & 0x80)
			copy[i] = '?';
	free(invalid);
	return copy;
}

static void want_error(struct db *db, struct written_row *r, const char *error)
{
	char *copy = error && *error ? clean(error) : NULL;

	if ((r->set & WRITTEN_ERROR) && nullable_string_is_equal(r->error, copy)) {
		free(copy);
		return;
	}
	free(r->error);
	r->error = copy;
	mark(db, r, WRITTEN_ERROR);
}

static void want_status(struct db *db, struct written_row *r, const struct db_kv *kv, size_t n)
{
	struct smap status = SMAP_INITIALIZER(&status);

	for (size_t i = 0; i < n; i++) {
		char *value = clean(kv[i].value);
		smap_replace(&status, kv[i].key, value);
		free(value);
	}
	if ((r->set & WRITTEN_STATUS) && smap_equal(&r->status, &status)) {
		smap_destroy(&status);
		return;
	}
	smap_destroy(&r->status);
	smap_clone(&r->status, &status);
	smap_destroy(&status);
	mark(db, r, WRITTEN_STATUS);
}

static void want_stats(struct db *db, struct written_row *r, const struct db_stat *stat, size_t n)
{
	bool same = (r->set & WRITTEN_STATS) && r->n_stats == n;

	for (size_t i = 0; same && i < n; i++)
		same = r->stat_values[i] == stat[i].value && !strcmp(r->stat_keys[i], stat[i].key);
	if (same)
		return;
	clear_stats(r);
	r->stat_keys = xcalloc(n + 1, sizeof *r->stat_keys);
	r->stat_values = xcalloc(n + 1, sizeof *r->stat_values);
	for (size_t i = 0; i < n; i++) {
		r->stat_keys[i] = xstrdup(stat[i].key);
		r->stat_values[i] = stat[i].value;
	}
	r->n_stats = n;
	mark(db, r, WRITTEN_STATS);
}

void db_error(struct db *db, enum db_table table, const struct row_id *id, const char *error)
{
	want_error(db, row_of(db, table, id), error);
}

void db_status(struct db *db, enum db_table table, const struct row_id *id, const struct db_kv *kv, size_t n)
{
	want_status(db, row_of(db, table, id), kv, n);
}

void db_stats(struct db *db, enum db_table table, const struct row_id *id, const struct db_stat *stat, size_t n)
{
	want_stats(db, row_of(db, table, id), stat, n);
}

void db_port_link(struct db *db, const struct row_id *id, bool link_up)
{
	struct written_row *r = row_of(db, DB_PORT, id);

	if ((r->set & WRITTEN_LINK) && r->link_up == link_up)
		return;
	r->link_up = link_up;
	mark(db, r, WRITTEN_LINK);
}

void db_port_number(struct db *db, const struct row_id *id, uint16_t number, uint16_t mtu)
{
	struct written_row *r = row_of(db, DB_PORT, id);

	if ((r->set & WRITTEN_NUMBER) && r->port_number == number && r->mtu == mtu)
		return;
	r->port_number = number;
	r->mtu = mtu;
	mark(db, r, WRITTEN_NUMBER);
}

void db_flow_stats(struct db *db, enum db_table table, const struct row_id *id, uint64_t packets, uint64_t bytes)
{
	struct db_stat stat[] = {{"n_bytes", (int64_t)bytes}, {"n_packets", (int64_t)packets}};

	db_stats(db, table, id, stat, ARRAY_SIZE(stat));
}

void db_mirror_stats(struct db *db, const struct row_id *id, uint64_t packets, uint64_t bytes)
{
	struct db_stat stat[] = {{"tx_bytes", (int64_t)bytes}, {"tx_packets", (int64_t)packets}};

	db_stats(db, DB_MIRROR, id, stat, ARRAY_SIZE(stat));
}

static bool strings_differ(char *const *a, size_t n_a, const char *const *b, size_t n_b)
{
	bool differ = n_a != n_b;

	for (size_t i = 0; !differ && i < n_a; i++)
		differ = strcmp(a[i], b[i]) != 0;
	return differ;
}

static void copy_strings(char ***to, size_t *n_to, const char *const *s, size_t n)
{
	free_strings(to, n_to);
	*to = xcalloc(n + 1, sizeof **to);
	for (size_t i = 0; i < n; i++)
		(*to)[(*n_to)++] = xstrdup(s[i]);
}

void db_publish(struct db *db, const char *const *tunnel_ips, size_t n_tunnel_ips, const char *const *stations, size_t n_stations)
{
	struct db_writer *w = &db->writer;
	struct written_row *r = row_of(db, DB_HOST, NULL);

	if ((r->set & WRITTEN_ENDPOINT) && !strings_differ(w->tunnel_ips, w->n_tunnel_ips, tunnel_ips, n_tunnel_ips) &&
	    !strings_differ(w->stations, w->n_stations, stations, n_stations))
		return;
	copy_strings(&w->tunnel_ips, &w->n_tunnel_ips, tunnel_ips, n_tunnel_ips);
	copy_strings(&w->stations, &w->n_stations, stations, n_stations);
	mark(db, r, WRITTEN_ENDPOINT);
}

void db_host_error(struct db *db, const char *error)
{
	db_error(db, DB_HOST, NULL, error);
}

void db_applied(struct db *db, int64_t next_cfg)
{
	struct written_row *r = row_of(db, DB_HOST, NULL);

	if ((r->set & WRITTEN_CFG) && r->cur_cfg == next_cfg)
		return;
	r->cur_cfg = next_cfg;
	mark(db, r, WRITTEN_CFG);
}

void db_set_stats_interval(struct db *db, unsigned interval_ms)
{
	struct db_writer *w = &db->writer;

	// A shorter interval counts from the last update on.
	w->next_stats += (long long)interval_ms - w->interval_ms;
	w->interval_ms = interval_ms;
}

// ---- the transaction

void db_writer_resync(struct db_writer *w)
{
	struct written_row *r;

	HMAP_FOR_EACH (r, node, &w->rows) {
		r->dirty |= r->set;
		w->pending |= r->set;
	}
	w->next_stats = 0;
}

// What there is to write in a row of each table.
static const struct writable {
	const struct ovsdb_idl_table_class *class;
	const struct ovsdb_idl_column *error, *status, *statistics;
	bool shared; // several switches write its status: each sets its own keys
} writable[DB_TABLES] = {
	[DB_HOST] = {&weirrec_table_host, &weirrec_host_columns[WEIRREC_HOST_COL_ERROR], .status = &weirrec_host_columns[WEIRREC_HOST_COL_STATUS], .statistics = &weirrec_host_columns[WEIRREC_HOST_COL_STATISTICS]},
	[DB_NETWORK] = {&weirrec_table_network, &weirrec_network_columns[WEIRREC_NETWORK_COL_ERROR], .status = &weirrec_network_columns[WEIRREC_NETWORK_COL_STATUS], .shared = true},
	[DB_PORT] = {&weirrec_table_port, &weirrec_port_columns[WEIRREC_PORT_COL_ERROR], .status = &weirrec_port_columns[WEIRREC_PORT_COL_STATUS], .statistics = &weirrec_port_columns[WEIRREC_PORT_COL_STATISTICS]},
	[DB_FDB] = {&weirrec_table_fdb, &weirrec_fdb_columns[WEIRREC_FDB_COL_ERROR]},
	[DB_FLOW] = {&weirrec_table_flow, &weirrec_flow_columns[WEIRREC_FLOW_COL_ERROR], .statistics = &weirrec_flow_columns[WEIRREC_FLOW_COL_STATISTICS]},
	[DB_CLASS] = {&weirrec_table_class, &weirrec_class_columns[WEIRREC_CLASS_COL_ERROR], .statistics = &weirrec_class_columns[WEIRREC_CLASS_COL_STATISTICS]},
	[DB_MIRROR] = {&weirrec_table_mirror, &weirrec_mirror_columns[WEIRREC_MIRROR_COL_ERROR], .statistics = &weirrec_mirror_columns[WEIRREC_MIRROR_COL_STATISTICS]},
	[DB_EXPORT] = {&weirrec_table_flow_export, &weirrec_flow_export_columns[WEIRREC_FLOW_EXPORT_COL_ERROR], .statistics = &weirrec_flow_export_columns[WEIRREC_FLOW_EXPORT_COL_STATISTICS]},
	[DB_ROUTER] = {&weirrec_table_router, &weirrec_router_columns[WEIRREC_ROUTER_COL_ERROR], .status = &weirrec_router_columns[WEIRREC_ROUTER_COL_STATUS], .shared = true},
	[DB_ROUTER_PORT] = {&weirrec_table_router_port, &weirrec_router_port_columns[WEIRREC_ROUTER_PORT_COL_ERROR], .status = &weirrec_router_port_columns[WEIRREC_ROUTER_PORT_COL_STATUS], .shared = true},
	[DB_ROUTE] = {&weirrec_table_route, &weirrec_route_columns[WEIRREC_ROUTE_COL_ERROR]},
	[DB_ROUTE_POLICY] = {&weirrec_table_route_policy, &weirrec_route_policy_columns[WEIRREC_ROUTE_POLICY_COL_ERROR]},
};

static const struct ovsdb_idl_row *find_row(const struct db *db, const struct written_row *r)
{
	const struct ovsdb_idl_row *row = ovsdb_idl_get_row_for_uuid(db->idl, writable[r->table].class, &r->uuid);

	return db_row_exists(row) ? row : NULL;
}

void db_writer_forget(struct db *db)
{
	struct db_writer *w = &db->writer;
	struct written_row *r;

	HMAP_FOR_EACH_SAFE (r, node, &w->rows)
		if (r->table != DB_HOST && !find_row(db, r))
			row_destroy(w, r);
	if (!db_host_row(db)) {
		// Nothing may have been written yet. Then this makes the row itself due.
		w->host_missing = true;
		r = row_of(db, DB_HOST, NULL);
		mark(db, r, r->set);
	}
}

static void write_error(const struct ovsdb_idl_row *row, const struct ovsdb_idl_column *column, const char *error)
{
	struct ovsdb_datum datum;

	ovsdb_datum_init_empty(&datum);
	if (error) {
		datum.n = 1;
		datum.keys = xmalloc(sizeof *datum.keys);
		datum.keys[0].s = ovsdb_atom_string_create(error);
	}
	ovsdb_idl_txn_write(row, column, &datum);
}

static void write_status(const struct ovsdb_idl_row *row, const struct ovsdb_idl_column *column, const struct smap *status)
{
	struct ovsdb_datum datum;

	if (smap_is_empty(status))
		ovsdb_datum_init_empty(&datum);
	else
		ovsdb_datum_from_smap(&datum, status);
	ovsdb_idl_txn_write(row, column, &datum);
}

// Keys of other switches stay.
static void write_own_status(const struct ovsdb_idl_row *row, const struct written_row *r)
{
	struct smap_node *node;

	SMAP_FOR_EACH (node, &r->status) {
		if (r->table == DB_NETWORK)
			weirrec_network_update_status_setkey(CONTAINER_OF(row, struct weirrec_network, header_), node->key, node->value);
		else if (r->table == DB_ROUTER)
			weirrec_router_update_status_setkey(CONTAINER_OF(row, struct weirrec_router, header_), node->key, node->value);
		else
			weirrec_router_port_update_status_setkey(CONTAINER_OF(row, struct weirrec_router_port, header_), node->key, node->value);
	}
}

static void write_stats(const struct ovsdb_idl_row *row, const struct ovsdb_idl_column *column, const struct written_row *r)
{
	struct ovsdb_datum datum;

	ovsdb_datum_init_empty(&datum);
	datum.n = r->n_stats;
	datum.keys = xcalloc(r->n_stats + 1, sizeof *datum.keys);
	datum.values = xcalloc(r->n_stats + 1, sizeof *datum.values);
	for (size_t i = 0; i < r->n_stats; i++) {
		datum.keys[i].s = ovsdb_atom_string_create(r->stat_keys[i]);
		datum.values[i].integer = r->stat_values[i];
	}
	ovsdb_datum_sort_unique(&datum, &column->type);
	ovsdb_idl_txn_write(row, column, &datum);
}

// Port number, MTU and link. 0: it has none.
static void write_link(const struct ovsdb_idl_row *row, const struct written_row *r, unsigned what)
{
	const struct weirrec_port *port = CONTAINER_OF(row, struct weirrec_port, header_);

	if (what & WRITTEN_LINK)
		weirrec_port_set_link_state(port, r->link_up ? "up" : "down");
	if (what & WRITTEN_NUMBER) {
		weirrec_port_set_port_number(port, &r->port_number, r->port_number != 0);
		weirrec_port_set_mtu(port, &r->mtu, r->mtu != 0);
	}
}

// The row goes when nothing refers to it any more.
static void write_endpoint(struct db *db, const struct weirrec_host *host)
{
	const struct db_writer *w = &db->writer;
	const struct weirrec_endpoint *row = NULL, *any;

	WEIRREC_ENDPOINT_FOR_EACH (any, db->idl)
		if (!strcmp(any->host, db->host))
			row = any;
	if (!w->n_tunnel_ips) {
		weirrec_host_set_endpoint(host, NULL);
		return;
	}
	if (!row) {
		row = weirrec_endpoint_insert(db->writer.txn);
		weirrec_endpoint_set_host(row, db->host);
	}
	weirrec_endpoint_set_tunnel_ips(row, (const char **)w->tunnel_ips, w->n_tunnel_ips);
	weirrec_endpoint_set_stations(row, (const char **)w->stations, w->n_stations);
	weirrec_host_set_endpoint(host, row);
}

static const struct ovsdb_idl_row *write_host(struct db *db, const struct written_row *r, unsigned *what)
{
	const struct weirrec_host *row = db_host_row(db);

	if (!row) {
		row = weirrec_host_insert(db->writer.txn);
		weirrec_host_set_name(row, db->host);
		*what = r->set;
	}
	if (*what & WRITTEN_ENDPOINT)
		write_endpoint(db, row);
	if (*what & WRITTEN_CFG) {
		const struct weirrec_weir *root = weirrec_weir_first(db->idl);
		weirrec_host_set_cur_cfg(row, r->cur_cfg);
		if (root->cur_cfg < r->cur_cfg)
			weirrec_weir_set_cur_cfg(root, r->cur_cfg);
	}
	return &row->header_;
}

static void write_row(struct db *db, struct written_row *r, unsigned what)
{
	const struct writable *to = &writable[r->table];
	const struct ovsdb_idl_row *row = r->table == DB_HOST ? write_host(db, r, &what) : find_row(db, r);

	if (!row) {
		r->dirty = 0; // deleted since; forgotten when the next config is made
	} else {
		if (what & WRITTEN_ERROR)
			write_error(row, to->error, r->error);
		if ((what & WRITTEN_STATUS) && to->shared)
			write_own_status(row, r);
		else if (what & WRITTEN_STATUS)
			write_status(row, to->status, &r->status);
		if (what & WRITTEN_STATS)
			write_stats(row, to->statistics, r);
		if (r->table == DB_PORT)
			write_link(row, r, what);
	}
	r->sent = what & r->dirty;
	r->dirty &= ~what;
}

// Compares the rows that only this switch writes with the database: another client may have changed them.
static void mark_own_rows(struct db *db)
{
	struct written_row *r;

	HMAP_FOR_EACH (r, node, &db->writer.rows) {
		const struct ovsdb_idl_row *row = r->table == DB_PORT ? find_row(db, r) : NULL;
		bool own = r->table == DB_HOST || (row && CONTAINER_OF(row, struct weirrec_port, header_)->host[0]);
		if (own)
			r->dirty |= r->set;
	}
}

static void start(struct db *db, unsigned mask, long long now)
{
	struct db_writer *w = &db->writer;
	struct written_row *r;

	w->txn = ovsdb_idl_txn_create(db->idl);
	if (mask & WRITTEN_STATS) {
		w->next_stats = now + w->interval_ms;
		mark_own_rows(db);
	}
	w->next_fast = now + GAP_MS;
	w->pending = 0;
	HMAP_FOR_EACH (r, node, &w->rows) {
		if ((r->dirty & mask) || (r->table == DB_HOST && w->host_missing))
			write_row(db, r, mask & r->dirty);
		w->pending |= r->dirty;
	}
	w->host_missing = false;
}

static void failed(struct db *db, enum ovsdb_idl_txn_status status)
{
	struct db_writer *w = &db->writer;
	struct written_row *r;

	HMAP_FOR_EACH (r, node, &w->rows) {
		r->dirty |= r->sent;
		w->pending |= r->dirty;
		r->sent = 0;
	}
	w->host_missing = !db_host_row(db);
	w->retry_ms = MIN(MAX(2 * w->retry_ms, RETRY_MIN_MS), RETRY_MAX_MS);
	w->retry_at = time_msec() + w->retry_ms;
	// The back-off is what bounds these lines.
	if (status == TXN_ERROR)
		log_line('w', "db", "database %s refuses what the switch reports: %s; retrying", db->remote,
			 ovsdb_idl_txn_get_error(w->txn));
}

void db_writer_finish(struct db *db)
{
	struct db_writer *w = &db->writer;
	enum ovsdb_idl_txn_status status;
	struct written_row *r;

	if (!w->txn)
		return;
	status = ovsdb_idl_txn_commit(w->txn);
	if (status == TXN_INCOMPLETE)
		return;
	if (status == TXN_SUCCESS || status == TXN_UNCHANGED) {
		HMAP_FOR_EACH (r, node, &w->rows)
			r->sent = 0;
		w->retry_ms = 0;
		w->retry_at = 0;
	} else {
		failed(db, status);
	}
	ovsdb_idl_txn_destroy(w->txn);
	w->txn = NULL;
}

// When the next transaction may start; LLONG_MAX: there is nothing to send.
static long long due(const struct db_writer *w)
{
	long long at = LLONG_MAX;

	// Only what a client waits for goes at once; a link that flaps would send an error and a state at every turn.
	if ((w->pending & WRITTEN_CFG) || w->host_missing)
		at = 0;
	else if (w->pending & WRITTEN_FAST)
		at = w->next_fast;
	else if (!hmap_is_empty(&w->rows))
		at = w->next_stats;
	return MAX(at, w->retry_at);
}

void db_writer_send(struct db *db)
{
	struct db_writer *w = &db->writer;
	long long now = time_msec();

	if (w->txn || now < due(w))
		return;
	start(db, now >= w->next_stats ? ~0u : WRITTEN_FAST, now);
	db_writer_finish(db);
}

void db_writer_wait(struct db *db)
{
	struct db_writer *w = &db->writer;
	long long at = due(w);

	if (w->txn)
		ovsdb_idl_txn_wait(w->txn);
	else if (at != LLONG_MAX)
		poll_timer_wait_until(at);
}
