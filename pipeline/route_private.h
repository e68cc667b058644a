// route_private: what the files of the route tables share.
#ifndef PIPELINE_ROUTE_PRIVATE_H
#define PIPELINE_ROUTE_PRIVATE_H

#include "gen.h"
#include "lpm.h"
#include "route_table.h"

#include <string.h>

// Next hops, immutable once published.
struct hops {
	uint16_t n;
	uint16_t usable; // that have a port
	bool alike;      // equal weights
	struct {
		struct route_hop hop;
		uint64_t seed; // of the hop's own content, so that its score doesn't change with its neighbours
	} each[];
};

// The next hops of all routes of a router that have the same. Main thread, but for `hops` and `id`.
struct group {
	struct hops *hops;
	uint32_t id; // index in groups[]
	uint32_t refs;
	uint64_t hash;
	struct group *chain; // of the same hash bucket
	struct router *owner;
	bool by_address; // one of them is found by its gateway's address
};

// One route. The list of a prefix is in the order of preference; readers may be in it while it changes.
struct route {
	struct route *next;
	struct group *group; // NULL: of a type without next hops
	uint32_t metric;
	uint32_t row;
	uint16_t mark;
	uint8_t type, source;
};

struct table {
	uint32_t number;
	struct lpm lpm[2]; // by family: v6
	uint32_t count[ROUTE_SOURCES];
};

struct tables {
	uint32_t n;
	struct table *table[]; // by number
};

struct policy {
	uint32_t priority;
	uint32_t row;
	uint32_t table;
	enum route_type type;
	struct config_prefix src, dst;
	bool has_src, has_dst, has_port;
	uint16_t port;
	int dscp;
	struct pkt_mark mark; // 0/0: any
};

struct policies {
	uint32_t n;
	bool reads; // what a profile without policies doesn't have
	struct policy policy[];
};

struct router {
	uint16_t id;
	struct row_id row;
	char name[64];
	struct tables *tables;
	struct policies *policies;
	uint32_t several; // groups of several next hops
	struct router *dying;
	bool unseen; // a grace period has passed since it was taken away
};

extern struct router *route_routers_[MAX_ROUTERS];

static inline struct table *route_table_in(const struct tables *all, uint32_t number)
{
	for (uint32_t i = 0; all && i < all->n; i++)
		if (all->table[i]->number == number)
			return all->table[i];
	return NULL;
}

// ---- generations

static inline uint64_t route_mix(uint16_t router, uint32_t table, uint64_t bits, unsigned class)
{
	uint64_t h = (bits ^ (uint64_t)router << 52 ^ (uint64_t) class << 50) * 0x9e3779b97f4a7c15ULL;

	h = (h ^ h >> 29 ^ table) * 0xbf58476d1ce4e5b9ULL;
	return (h ^ h >> 32) & ((1ULL << 58) - 1);
}

static inline uint64_t route_id_router(uint16_t router, bool v6)
{
	return (uint64_t)router << 1 | v6;
}

static inline uint64_t route_id_group(uint32_t group)
{
	return 2ULL << 58 | group;
}

// `bits`: 16 (IPv4), 32 or 48 (IPv6).
static inline uint64_t route_id_stripe(uint16_t router, uint32_t table, const uint8_t *ip, unsigned bits)
{
	uint64_t b = 0;

	for (unsigned i = 0; i < bits / 8; i++)
		b = b << 8 | ip[i];
	return 1ULL << 58 | route_mix(router, table, b, bits / 16);
}

// Main thread: bumped by the next route_commit().
void route_note(uint64_t id);

// ---- route_group.c: main thread

// The router's group of these next hops, one reference more. NULL: no memory.
struct group *group_get(struct router *, const struct route_hop *, uint16_t n);
void group_put(struct group *);
// Router ports have changed: gateways that name no port are looked up anew.
void groups_resolve(struct router *);
// The router port in whose connected prefix the gateway is; 0: none.
uint16_t route_gateway_port(const struct router *, const struct config_ip *);
void groups_fini(void);
uint32_t groups_count(void);

// ---- route_show.c

// Both families' prefixes from *at on, which the visitor moves along.
bool route_walk_table(const struct table *, struct route_at *, lpm_visit_fn *, void *arg);

// ---- route_table.c

struct router *route_router_get(uint16_t id); // made if it isn't there; NULL: no memory
// Policies of the router from now on; takes them.
void route_set_policies(struct router *, struct policies *);
static inline struct config_prefix prefix_masked(struct config_prefix p)
{
	unsigned bytes = p.ip.v6 ? 16 : 4;

	for (unsigned i = 0; i < 16; i++)
		if (i >= bytes || i * 8 >= p.len)
			p.ip.b[i] = 0;
		else if (p.len < i * 8 + 8)
			p.ip.b[i] &= (uint8_t)(0xff << (i * 8 + 8 - p.len));
	return p;
}

// route_config.c
void route_config_fini(void);

#endif
