// db: the switch's client of the database "Weir" (OVSDB, RFC 7047), on the OVSDB IDL of Open vSwitch.
//
// All functions: main thread. This header shows no type of the IDL: db.c is the only file that knows it.
#ifndef VSWITCH_DB_H
#define VSWITCH_DB_H

#include "config.h"

#include <stdbool.h>
#include <stdint.h>

struct db;

// `remote`: one or several (comma separated) OVSDB remotes, unix:/path, tcp:ip:port, ssl:...; `host`: name of this switch in
// table Host. Never fails: an unreachable database is retried with back-off.
struct db *db_open(const char *remote, const char *host);
void db_close(struct db *);
// This switch's name in table Host.
const char *db_host_name(const struct db *);
// Files (PEM) for remotes of kind ssl:, before db_open(): this switch's private key and certificate, and the certificate of the
// authority that the server's must come from.
void db_set_ssl(const char *private_key, const char *certificate, const char *ca_certificate);

// Runs the client. Returns a new config if the wanted state may have changed since the last call (the caller frees it with
// config_free()), else NULL. Rows that can't be read as configuration are in it with `error` set, so that they hurt nothing else.
// Never returns a config while the database is unreachable, empty, of another schema, or another database than the one that was
// applied before: the data path keeps what it has.
struct config *db_run(struct db *);
// The next db_run() returns the config again, although nothing has changed: it is to be applied once more.
void db_again(struct db *);
// Registers what db_run() waits for with the poll loop.
void db_wait(struct db *);

// Why nothing is applied at the moment, one sentence, or NULL if the database is connected and in order.
const char *db_problem(const struct db *);

// What the switch writes back. Values are copied. A call marks the row; db_run() sends what has changed in one transaction,
// at most every `interval_ms` for statistics, at once for error, link_state and cur_cfg.
struct db_kv {
	const char *key;
	const char *value;
};
struct db_stat {
	const char *key;
	int64_t value;
};
// Rows that are written. The first one is that of this switch in table Host, which is named by no row id.
enum db_table {
	DB_HOST,
	DB_NETWORK,
	DB_PORT,
	DB_FDB,
	DB_FLOW,
	DB_CLASS,
	DB_MIRROR,
	DB_EXPORT,
	DB_ROUTER,
	DB_ROUTER_PORT,
	DB_ROUTE,
	DB_ROUTE_POLICY,
	DB_TABLES
};
void db_error(struct db *, enum db_table, const struct row_id *, const char *error);
// Of rows that several switches write (DB_NETWORK, DB_ROUTER, DB_ROUTER_PORT) keys that aren't named stay as they are.
void db_status(struct db *, enum db_table, const struct row_id *, const struct db_kv *, size_t n);
void db_stats(struct db *, enum db_table, const struct row_id *, const struct db_stat *, size_t n);
// Of DB_FLOW and DB_CLASS.
void db_flow_stats(struct db *, enum db_table, const struct row_id *, uint64_t packets, uint64_t bytes);
void db_mirror_stats(struct db *, const struct row_id *, uint64_t packets, uint64_t bytes);
void db_port_link(struct db *, const struct row_id *, bool link_up);
void db_port_number(struct db *, const struct row_id *, uint16_t id, uint16_t mtu);
// What this switch tells the others (table Endpoint): its end points and "NETWORK [MAC [IP...]]". Nothing is written until it is called for the first
// time; no end point: nothing is told.
void db_publish(struct db *, const char *const *tunnel_ips, size_t n_tunnel_ips, const char *const *stations, size_t n_stations);
// The config of generation next_cfg is applied: sets Host.cur_cfg, together with all errors marked before.
void db_applied(struct db *, int64_t next_cfg);
void db_set_stats_interval(struct db *, unsigned interval_ms);

#endif
