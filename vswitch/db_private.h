// db_private: what the files of the database client share. Each of them includes openvswitch.h first.
#ifndef VSWITCH_DB_PRIVATE_H
#define VSWITCH_DB_PRIVATE_H

#include "weir-idl.h"
#include "openvswitch/hmap.h"

#include "config.h"

// What the switch writes back into one row. A value is kept after it has been sent: it has to be sent again if the
// server forgets it (ephemeral columns don't survive the server's restart).
enum written {
	WRITTEN_ERROR = 1 << 0,
	WRITTEN_LINK = 1 << 1,
	WRITTEN_STATUS = 1 << 2,
	WRITTEN_NUMBER = 1 << 3,
	WRITTEN_CFG = 1 << 4,
	WRITTEN_STATS = 1 << 5, // the only one that waits for the statistics interval
};

enum written_table {
	WRITTEN_HOST,
	WRITTEN_NETWORK,
	WRITTEN_PORT,
	WRITTEN_FDB,
	WRITTEN_FLOW,
	WRITTEN_MIRROR,
	WRITTEN_EXPORT
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
};

struct db {
	struct ovsdb_idl *idl;
	char *remote;
	char *host;
	bool synced;         // the replica is that of the present connection
	unsigned lost_seqno; // change number of the replica when the connection was lost
	unsigned read_seqno; // change number that the last config was made of
	bool read_once;      // a config has been made ...
	struct uuid root;    // ... of the database with this root row
	char *problem;
	struct db_writer writer;
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
char *db_check_name(const char *);

#endif
