// route_table: routes of the routers, and the look-up that decides where a packet of theirs goes.
//
// A router has tables by number, 0 being its main one; each has prefixes of both families (lpm.h), and each prefix its routes
// in the order in which they are preferred: lowest metric first. Routes come from router ports, from the database, from a file,
// from the kernel; each source adds and removes its own.
//
// Reads: any worker. Writes: main thread.
//
// Generations (GEN_ROUTE): what a look-up found depends on the stripe of its destination, which is
// the first 16 bits of an IPv4 address, and the first 32 and the first 48 bits of an IPv6 address (a change bumps one of them,
// by the length of its prefix); on a slot of the router and family, which shorter prefixes and policies bump; and on its group
// of next hops.
#ifndef PIPELINE_ROUTE_TABLE_H
#define PIPELINE_ROUTE_TABLE_H

#include "config.h"
#include "page.h"
#include "sizes.h"

#include <stdbool.h>
#include <stdint.h>

struct resolve;

#define ROUTE_HOPS_MAX 64    // next hops of one route
#define ROUTE_TABLES_MAX 256 // tables of one router
#define ROUTE_MAX 8388608    // routes of all tables

struct route_hop {
	uint16_t port; // lport id of the router port; 0: none, which route_find() never gives
	uint16_t weight;
	bool has_gateway;
	bool dead;       // a neighbour that doesn't answer
	bool by_address; // its port is the one in whose connected prefix the gateway is
	struct config_ip gateway;
};

enum route_source {
	ROUTE_CONNECTED, // a router port's prefixes and addresses
	ROUTE_CONFIG,    // rows of the database
	ROUTE_FILE,
	ROUTE_KERNEL,
};
#define ROUTE_SOURCES 4

struct route_result {
	enum route_type type;
	uint8_t len; // bits of the prefix that matched
	uint8_t n_hops;
	uint32_t row;                // row.h; 0: none. Of a policy rule, if that decided
	const struct route_hop *hop; // the chosen one; valid until the worker's next quiescent point. Of a local address: the
				     // port that has it. Else NULL
	// For people.
	enum route_source source;
	uint32_t metric;
	uint32_t table;
	uint32_t policy; // row of the policy rule that chose the table; 0: none
};

// `mark`: of the packet (mark.h), for policies.
// Policy, table, longest prefix, next hop by weighted rendezvous hashing of `hash`, which matters only where
// route_reads_ports(). Addresses in network order. A hop that is dead is chosen only if the prefix has no other; a route none
// of whose hops has a port counts as not there. Registers the generations that it depends on before it looks. r NULL: for no
// decision (main thread). ROUTE_NONE: no route.
enum route_type route_find(struct resolve *r, uint16_t router, uint16_t in_port, bool v6, const uint8_t *src,
			   const uint8_t *dst, uint8_t tos, uint32_t mark, uint64_t hash, struct route_result *);
bool route_reads_ports(uint16_t router);  // some route of it has several next hops
bool route_reads_policy(uint16_t router); // source address, ingress or DSCP decide

// ---- configuration

int route_init(void);
void route_fini(void); // no worker runs any more
// First, before route_connected(): routers that are gone take all of their routes with them.
void route_routers(const struct config *);
// A router port's prefix: adds or removes the connected route and the route of the address itself (ROUTE_LOCAL), in the main
// table. Gateways without a port are looked up anew.
void route_connected(uint16_t router, uint16_t port, const struct config_prefix *, uint32_t row, bool add);
// Route and Route_Policy rows, after router ports are known. Rows that can't be get their `error`. 0 or a negative errno.
int route_reconcile(struct config *);
// The last config had routes_kept, but what they depend on is another one: the next one is to have them all.
bool route_rows_wanted(void);
// Housekeeping, a bounded piece of it.
void route_tick(uint64_t now);

// A neighbour stopped answering, or answers again; gateway NULL: all next hops of the port. Whether a route has it, and that is
// news.
bool route_hop_dead(uint16_t port, const struct config_ip *gateway, bool dead);
// Called when a next hop comes into a group, and when it goes. Whether it is dead. NULL: nobody knows.
extern bool (*route_hop_watch)(uint16_t port, const struct config_ip *gateway, bool on);

// ---- routes of other sources
//
// route_set() and route_remove() change tables at once, and note what became stale; route_commit() makes it known. So many
// changes cost one bump of each stripe: call it at the end of every batch, before returning to the main loop.

struct route_spec {
	struct config_prefix prefix; // bits beyond its length are ignored
	enum route_source source;
	enum route_type type;
	uint32_t metric;
	uint32_t row;  // tells routes of ROUTE_CONFIG and ROUTE_CONNECTED apart; 0: none
	uint16_t mark; // see route_sweep()
	uint16_t n_hops;
	const struct route_hop *hop; // by_address: port is found; else port is given. weight 1..256
};

// Adds the route, or replaces the one of the same prefix, source, row and metric. -ENOSPC: no room for more routes, tables or
// groups; -ENOMEM.
int route_set(uint16_t router, uint32_t table, const struct route_spec *);
// Removes it: prefix, source, row and metric count. Whether it was there.
bool route_remove(uint16_t router, uint32_t table, const struct route_spec *);
void route_commit(void);
// The same for long loads: what became stale is made known at most each 100 ms, at the latest by route_tick(), so that flows
// aren't decided anew for every slice of a load.
void route_commit_soon(uint64_t now);
// The next hops of the route with this prefix, source, row and metric. False: it isn't there.
bool route_get(uint16_t router, uint32_t table, const struct route_spec *, struct route_hop hop[ROUTE_HOPS_MAX], uint16_t *n);
// Removes routes of a source that don't have the mark, a piece at a time: up to `budget` prefixes are looked at. True: there is
// more.
struct route_at {
	bool v6, begun;
	uint8_t len;
	uint8_t ip[16];
};
bool route_sweep(uint16_t router, uint32_t table, enum route_source, uint16_t mark, struct route_at *, unsigned budget);
// Routes of a source in a table, and of all in all.
uint32_t route_count(uint16_t router, uint32_t table, enum route_source);
uint32_t route_total(void);

// ---- for people

// Visits prefixes in order (IPv4 first, by address, shorter ones first), from *at on, which is moved along. One call for each
// route of a prefix, the preferred one first. The visitor returns false, at the first route of a prefix, to stop before it.
// True: stopped, there is more.
struct route_view {
	struct route_spec spec;
	bool first; // of its prefix
	bool best;  // the one that is used
};
typedef bool route_visit_fn(void *arg, const struct route_view *);
bool route_walk(uint16_t router, uint32_t table, struct route_at *at, route_visit_fn *, void *arg);
// The next table's number of the router, from *number on; false: there is none.
bool route_next_table(uint16_t router, uint32_t *number);
const char *route_type_name(enum route_type);
const char *route_source_name(enum route_source);
uint16_t route_router_find(const char *name);   // id; 0: none
const char *route_router_name(uint16_t router); // NULL: none

#endif
