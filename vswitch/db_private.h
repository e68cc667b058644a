// db_private: what the files of the database client share. Each of them includes openvswitch.h first.
#ifndef VSWITCH_DB_PRIVATE_H
#define VSWITCH_DB_PRIVATE_H

#include "weir-idl.h"
#include "openvswitch/hmap.h"

#include "config.h"
#include "db.h"

struct smap;

// What the switch writes back into one row. A value is kept after it has been sent: it has to be sent again if the
// server forgets it (ephemeral columns don't survive the server's restart).
enum written {
	WRITTEN_ERROR = 1 << 0,
	WRITTEN_LINK = 1 << 1,
	WRITTEN_STATUS = 1 << 2,
	WRITTEN_NUMBER = 1 << 3,
	WRITTEN_CFG = 1 << 4,
	WRITTEN_STATS = 1 << 5, // the only one that waits for the statistics interval
	WRITTEN_ENDPOINT = 1 << 6,
};

struct db_writer {
	struct hmap rows;          // struct written_row, by UUID
	struct ovsdb_idl_txn *txn; // in flight, or NULL
	long long next_fast;       // earliest time for the next transaction that isn't urgent, monotonic ms
	long long next_stats;      // when statistics are due
	long long retry_at;        // after a failure
	unsigned retry_ms;         // its back-off; 0: the last transaction was in order
	unsigned interval_ms;
	unsigned pending;  // enum written: what is marked in any row
	bool host_missing; // this switch has no row in table Host yet
	char **tunnel_ips, **stations; // of its row in table Endpoint, if that has been said
	size_t n_tunnel_ips, n_stations;
};

struct db {
	struct ovsdb_idl *idl;
	char *remote;
	char *host;
	bool synced;         // the replica is that of the present connection
	unsigned lost_seqno; // change number of the replica when the connection was lost
	unsigned read_seqno; // change number that the last config was made of
	bool read_once;      // a config has been made ...
	bool routes_changed; // rows of Route, or what they refer to, since one was made with them
	struct uuid root;    // ... of the database with this root row
	char *problem;
	struct db_writer writer;
	struct config_router_port *good; // router ports as they were when their rows were in order, sorted by row
	size_t n_good;
};

static inline struct row_id db_row_id(const struct uuid *u)
{
	struct row_id id;

	for (int i = 0; i < 16; i++)
		id.b[i] = (uint8_t)(u->parts[i / 4] >> (24 - 8 * (i % 4)));
	return id;
}

// A row that was deleted but is still referred to stays in the replica without columns.
static inline bool db_row_exists(const struct ovsdb_idl_row *row)
{
	return row && row->old_datum;
}

const struct weirrec_host *db_host_row(const struct db *);

// db_read.c
struct config *db_read(struct db *);
// The first thing that is wrong with a row is the one that its error names. Takes `text`.
void db_row_error(char **error, char *text);
// An optional integer column. The server enforces the schema's range; a server with another schema doesn't.
int64_t db_optional_int(const char *column, const int64_t *, size_t n, int64_t fallback, int64_t lo, int64_t hi, char **error);
struct config_map db_read_map(const struct smap *);
// The same, without values that weir.xml doesn't allow.
struct config_map db_checked_map(const char *table, const char *column, const struct smap *, char **error);
// A port that isn't a row of table Port.
struct config_port *db_add_port(struct config *, const struct row_id *, const char *name, const char *type, enum port_kind);
const struct config_port *db_port_named(const struct config *, const char *name);

// db_read_router.c
void db_read_routers(struct db *, struct config *);
void db_forget_good(struct db *);

// db_read_tunnel.c. Networks are sorted by name, router ports are read. `error`: of this switch's row in table Host.
void db_read_tunnels(struct db *, struct config *, char **error);
// An entry that is behind a tunnel is added to config.remote_macs, unless it has an error; true: it was.
bool db_read_remote_mac(const struct weirrec_fdb *, struct config_fdb *, struct config *);

// db_write.c
void db_writer_open(struct db_writer *);
void db_writer_close(struct db_writer *);
// Ends the transaction in flight, if it has ended. Comes after ovsdb_idl_run() and before anything is read.
void db_writer_finish(struct db *);
// Sends what is due.
void db_writer_send(struct db *);
void db_writer_wait(struct db *);
// Everything is to be compared with the database again.
void db_writer_resync(struct db_writer *);
// Forgets rows that are gone from the database.
void db_writer_forget(struct db *);
void db_host_error(struct db *, const char *error);

// db_check.c
// Checks the values of a map column of which weir.xml has a table: NULL, or one malloc'ed sentence about the first one that is
// wrong and, if `bad` isn't NULL, its index in the map. `type`: of the port, for Port.options, else NULL.
char *db_check_map(const char *table, const char *column, const struct config_map *, const char *type, size_t *bad);
// The same for values that aren't in a map.
bool db_parse_mac(const char *, size_t len, uint8_t mac[6]);
bool db_parse_ip(const char *, size_t len, struct config_ip *);
bool db_parse_station_ip(const char *, struct config_ip *);
// It can be the address of one station of a network.
bool db_ip_of_station(const struct config_ip *);
// "10.0.0.0/8"; an address alone has all its bits.
bool db_parse_prefix(const char *, size_t len, struct config_prefix *);
char *db_check_name(const char *);

#endif
