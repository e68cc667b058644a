// db: the connection to the database, and when its contents may be applied.
#include "openvswitch.h"

#include "control.h"
#include "db.h"
#include "db_private.h"
#include "control_signals.h"

#include "stream-ssl.h"
#include "stream.h"
#include "util.h"

#include <stdlib.h>
#include <string.h>

// Columns that the switch itself writes: replicated, so that only differences are sent, but no reason to look at the
// configuration.
static const struct ovsdb_idl_column *const written_columns[] = {
	&weirrec_weir_columns[WEIRREC_WEIR_COL_CUR_CFG],     &weirrec_host_columns[WEIRREC_HOST_COL_CUR_CFG],
	&weirrec_host_columns[WEIRREC_HOST_COL_STATUS],      &weirrec_host_columns[WEIRREC_HOST_COL_STATISTICS],
	&weirrec_host_columns[WEIRREC_HOST_COL_ERROR],       &weirrec_network_columns[WEIRREC_NETWORK_COL_ERROR],
	&weirrec_port_columns[WEIRREC_PORT_COL_PORT_NUMBER], &weirrec_port_columns[WEIRREC_PORT_COL_MTU],
	&weirrec_port_columns[WEIRREC_PORT_COL_LINK_STATE],  &weirrec_port_columns[WEIRREC_PORT_COL_STATUS],
	&weirrec_port_columns[WEIRREC_PORT_COL_STATISTICS],  &weirrec_port_columns[WEIRREC_PORT_COL_ERROR],
	&weirrec_fdb_columns[WEIRREC_FDB_COL_ERROR],         &weirrec_flow_columns[WEIRREC_FLOW_COL_ERROR],
	&weirrec_flow_columns[WEIRREC_FLOW_COL_STATISTICS],
	&weirrec_class_columns[WEIRREC_CLASS_COL_ERROR],     &weirrec_class_columns[WEIRREC_CLASS_COL_STATISTICS],
	&weirrec_flow_export_columns[WEIRREC_FLOW_EXPORT_COL_ERROR],
	&weirrec_flow_export_columns[WEIRREC_FLOW_EXPORT_COL_STATISTICS],
	&weirrec_mirror_columns[WEIRREC_MIRROR_COL_ERROR],   &weirrec_mirror_columns[WEIRREC_MIRROR_COL_STATISTICS],
	&weirrec_host_columns[WEIRREC_HOST_COL_ENDPOINT],    &weirrec_network_columns[WEIRREC_NETWORK_COL_STATUS],
	&weirrec_router_columns[WEIRREC_ROUTER_COL_STATUS],  &weirrec_router_columns[WEIRREC_ROUTER_COL_ERROR],
	&weirrec_router_port_columns[WEIRREC_ROUTER_PORT_COL_STATUS],
	&weirrec_router_port_columns[WEIRREC_ROUTER_PORT_COL_ERROR],
	&weirrec_route_columns[WEIRREC_ROUTE_COL_ERROR],     &weirrec_route_policy_columns[WEIRREC_ROUTE_POLICY_COL_ERROR],
};

static const struct ovsdb_idl_column *const unused_columns[] = {
	&weirrec_weir_columns[WEIRREC_WEIR_COL_STATUS],
	&weirrec_weir_columns[WEIRREC_WEIR_COL_EXTERNAL_IDS],
	&weirrec_host_columns[WEIRREC_HOST_COL_EXTERNAL_IDS],
	&weirrec_network_columns[WEIRREC_NETWORK_COL_EXTERNAL_IDS],
	&weirrec_fdb_columns[WEIRREC_FDB_COL_EXTERNAL_IDS],
	&weirrec_flow_columns[WEIRREC_FLOW_COL_EXTERNAL_IDS],
	&weirrec_class_columns[WEIRREC_CLASS_COL_DESCRIPTION],
	&weirrec_class_columns[WEIRREC_CLASS_COL_EXTERNAL_IDS],
	&weirrec_mirror_columns[WEIRREC_MIRROR_COL_EXTERNAL_IDS],
	&weirrec_flow_export_columns[WEIRREC_FLOW_EXPORT_COL_EXTERNAL_IDS],
	&weirrec_router_columns[WEIRREC_ROUTER_COL_EXTERNAL_IDS],
	&weirrec_router_port_columns[WEIRREC_ROUTER_PORT_COL_EXTERNAL_IDS],
	&weirrec_route_columns[WEIRREC_ROUTE_COL_EXTERNAL_IDS],
	&weirrec_route_policy_columns[WEIRREC_ROUTE_POLICY_COL_EXTERNAL_IDS],
};

static bool is_in(const struct ovsdb_idl_column *const *list, size_t n, const struct ovsdb_idl_column *column)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == column)
			return true;
	return false;
}

// Rows of the table that change in what is read of them are told of by ..._track_get_first().
static void track(struct ovsdb_idl *idl, unsigned table)
{
	const struct ovsdb_idl_table_class *class = &weirrec_table_classes[table];

	for (size_t i = 0; i < class->n_columns; i++)
		if (!is_in(written_columns, ARRAY_SIZE(written_columns), &class->columns[i]) &&
		    !is_in(unused_columns, ARRAY_SIZE(unused_columns), &class->columns[i]))
			ovsdb_idl_track_add_column(idl, &class->columns[i]);
}

struct db *db_open(const char *remote, const char *host)
{
	struct db *db = xzalloc(sizeof *db);

	control_keep_signals();
	db->remote = xstrdup(remote);
	db->host = xstrdup(host);
	db_writer_open(&db->writer);

	// Remote unset while the conditions and columns are: the first monitor request has them all.
	db->idl = ovsdb_idl_create(NULL, &weirrec_idl_class, true, true);
	ovsdb_idl_set_leader_only(db->idl, false);
	for (size_t i = 0; i < ARRAY_SIZE(written_columns); i++)
		ovsdb_idl_omit_alert(db->idl, written_columns[i]);
	for (size_t i = 0; i < ARRAY_SIZE(unused_columns); i++)
		ovsdb_idl_omit(db->idl, unused_columns[i]);
	ovsdb_idl_set_write_changed_only_all(db->idl, true);
	db->routes_changed = true;
	track(db->idl, WEIRREC_TABLE_ROUTE);
	track(db->idl, WEIRREC_TABLE_ROUTER);
	track(db->idl, WEIRREC_TABLE_ROUTER_PORT);

	// Rows of this switch and of every switch. (Router ports of others tell which routes aren't for this one, and all end points are wanted.)
#define OWN_ROWS(table)                                                                                                \
	do {                                                                                                           \
		struct ovsdb_idl_condition own = OVSDB_IDL_CONDITION_INIT(&own);                                       \
		weirrec_##table##_add_clause_host(&own, OVSDB_F_EQ, "");                                               \
		weirrec_##table##_add_clause_host(&own, OVSDB_F_EQ, host);                                             \
		weirrec_##table##_set_condition(db->idl, &own);                                                        \
		ovsdb_idl_condition_destroy(&own);                                                                     \
	} while (0)
	OWN_ROWS(port);
	OWN_ROWS(flow);
	OWN_ROWS(class);
	OWN_ROWS(flow_export);
	OWN_ROWS(mirror);
	struct ovsdb_idl_condition hosts = OVSDB_IDL_CONDITION_INIT(&hosts);
	weirrec_host_add_clause_name(&hosts, OVSDB_F_EQ, host);
	weirrec_host_set_condition(db->idl, &hosts);
	ovsdb_idl_condition_destroy(&hosts);

	ovsdb_idl_set_remote(db->idl, remote, true);
	return db;
}

void db_set_ssl(const char *private_key, const char *certificate, const char *ca_certificate)
{
	control_keep_signals();
	stream_ssl_set_private_key_file(private_key);
	stream_ssl_set_certificate_file(certificate);
	stream_ssl_set_ca_cert_file(ca_certificate, false);
}

void db_close(struct db *db)
{
	if (!db)
		return;
	db_writer_close(&db->writer);
	db_forget_good(db);
	ovsdb_idl_destroy(db->idl);
	free(db->remote);
	free(db->host);
	free(db->problem);
	free(db);
}

const char *db_host_name(const struct db *db)
{
	return db->host;
}

const char *db_problem(const struct db *db)
{
	return db->problem;
}

const struct weirrec_host *db_host_row(const struct db *db)
{
	const struct weirrec_host *host;

	WEIRREC_HOST_FOR_EACH (host, db->idl)
		if (!strcmp(host->name, db->host))
			return host;
	return NULL;
}

static const char *missing_table(const struct db *db)
{
	for (size_t i = 0; i < weirrec_idl_class.n_tables; i++) {
		const struct ovsdb_idl_table_class *table = &weirrec_idl_class.tables[i];
		if (!ovsdb_idl_server_has_table(db->idl, table))
			return table->name;
	}
	return NULL;
}

static const struct ovsdb_idl_column *missing_column(const struct db *db, const char **table_name)
{
	for (size_t i = 0; i < weirrec_idl_class.n_tables; i++) {
		const struct ovsdb_idl_table_class *table = &weirrec_idl_class.tables[i];
		*table_name = table->name;
		for (size_t j = 0; j < table->n_columns; j++) {
			// The IDL knows of the server's columns only those that are monitored.
			bool unused = false;
			for (size_t k = 0; k < ARRAY_SIZE(unused_columns); k++)
				unused |= unused_columns[k] == &table->columns[j];
			if (!unused && !ovsdb_idl_server_has_column(db->idl, &table->columns[j]))
				return &table->columns[j];
		}
	}
	return NULL;
}

static char *connection_problem(const struct db *db)
{
	int error = ovsdb_idl_get_last_error(db->idl);
	const char *why = error ? ovs_retval_to_string(error) : "no answer yet";

	if (ovsdb_idl_is_connected(db->idl))
		return xasprintf("database %s: connected, but database \"Weir\" isn't there, or not ready yet; retrying",
				 db->remote);
	return xasprintf("database %s: not connected (%s); retrying", db->remote, why);
}

// What the server's schema lacks, or NULL. Malloc'ed. (A server of version 3.1 goes on telling its clients the schema from
// before "ovsdb-client convert", hence the restart.)
static char *schema_problem(const struct db *db)
{
	static const char way_out[] =
		"convert it to the schema of this version (ovsdb-client convert) and restart ovsdb-server";
	const char *table = missing_table(db);
	const struct ovsdb_idl_column *column;

	if (table)
		return xasprintf("database %s: its schema has no table %s; %s", db->remote, table, way_out);
	column = missing_column(db, &table);
	if (column)
		return xasprintf("database %s: its schema has no column %s in table %s; %s", db->remote, column->name, table,
				 way_out);
	return NULL;
}

// Why nothing may be applied now, or NULL. Malloc'ed.
static char *find_problem(struct db *db)
{
	const struct weirrec_weir *root;
	char *problem;

	if (!db->synced)
		return connection_problem(db);
	problem = schema_problem(db);
	if (problem)
		return problem;
	root = weirrec_weir_first(db->idl);
	if (!root)
		return xasprintf("database %s: table Weir has no row%s; weirctl init adds it", db->remote,
				 db->read_once ? ", though it had one before" : "");
	if (db->read_once && !uuid_equals(&root->header_.uuid, &db->root))
		return xasprintf(
			"database %s: this isn't the database that was applied before (its row in table Weir is " UUID_FMT
			", not " UUID_FMT "); restart the switch to apply it",
			db->remote, UUID_ARGS(&root->header_.uuid), UUID_ARGS(&db->root));
	return NULL;
}

static void set_problem(struct db *db, char *problem)
{
	if (!problem && db->problem)
		log_event('i', "db", LOG_FIELDS({"database", db->remote}), "database %s: in order", db->remote);
	else if (problem && (!db->problem || strcmp(problem, db->problem)))
		// The steps of connecting are the reconnect module's to log; here it is news only that a database was lost.
		log_event(db->synced || (db->read_once && !db->problem) ? 'w' : 'd', "db", LOG_FIELDS({"database", db->remote}), "%s", problem);
	free(db->problem);
	db->problem = problem;
}

// The replica keeps its contents when the connection is lost. It is that of the server again when the server has answered
// the monitor request, which always counts as a change.
static void track_connection(struct db *db)
{
	unsigned seqno = ovsdb_idl_get_seqno(db->idl);

	if (!ovsdb_idl_is_connected(db->idl)) {
		if (db->synced)
			db->lost_seqno = seqno;
		db->synced = false;
	} else if (!db->synced && seqno != db->lost_seqno) {
		db->synced = true;
		db_writer_resync(&db->writer);
	}
}

void db_again(struct db *db)
{
	if (!db->read_once)
		return;
	db->read_seqno = 0; // change numbers begin with 1
	db->routes_changed = true;
}

static void note_changes(struct db *db)
{
	db->routes_changed |= weirrec_route_track_get_first(db->idl) || weirrec_router_track_get_first(db->idl) ||
			      weirrec_router_port_track_get_first(db->idl);
	ovsdb_idl_track_clear(db->idl);
}

struct config *db_run(struct db *db)
{
	ovsdb_idl_run(db->idl);
	note_changes(db);
	track_connection(db);
	set_problem(db, find_problem(db));
	db_writer_finish(db);
	if (db->problem)
		return NULL;

	struct config *config = NULL;
	unsigned seqno = ovsdb_idl_get_seqno(db->idl);
	if (!db->read_once || seqno != db->read_seqno) {
		db->read_once = true;
		db->read_seqno = seqno;
		db->root = weirrec_weir_first(db->idl)->header_.uuid;
		config = db_read(db);
		db_writer_forget(db);
	}
	db_writer_send(db);
	return config;
}

void db_wait(struct db *db)
{
	ovsdb_idl_wait(db->idl);
	if (!db->problem)
		db_writer_wait(db);
}
