// table_stat: how full the switch's tables are. Whoever creates a table registers it; metrics show all that are registered.
//
//     static void fill_each(table_fill_fn *fn, void *arg) { fn(arg, NULL, rte_hash_count(hash), FDB_SIZE); }
//     static struct table_stat stat = {.name = "fdb", .help = "addresses, learned and static", .each = fill_each};
//     table_stat_register(&stat);   // weir_fdb_entries, weir_fdb_entries_limit, weir_table_fill_ratio{table="fdb"}
//
// Main thread.
#ifndef OFPROTO_TABLE_STAT_H
#define OFPROTO_TABLE_STAT_H

#include <stdint.h>

// `of`: which of several, such as the network's name; NULL: there is one. `limit` 0: there is none.
typedef void table_fill_fn(void *arg, const char *of, uint64_t entries, uint64_t limit);

struct table_stat {
	const char *name;  // lower case and _; part of the metrics' names
	const char *help;  // a clause
	const char *label; // what `of` is, such as "network"; NULL: there is one
	void (*each)(table_fill_fn *, void *arg);
	struct table_stat *next;
};

// Registering once more changes nothing. It stays the caller's and is static, or lives until it is unregistered.
void table_stat_register(struct table_stat *);
void table_stat_unregister(struct table_stat *);
// By name.
const struct table_stat *table_stat_first(void);

#endif
