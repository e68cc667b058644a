// flow: a resolved decision, and the table that a worker keeps them in.
//
// One table per worker, used by that worker alone; the main thread may read it for listings (flow_table_read()). All memory is reserved as
// address space at the start and committed as it is used, so that the table grows without copying: records are stable, and the hash
// directory grows by linear hashing (Litwin 1980), one bucket at a time.
#ifndef OFPROTO_FLOW_H
#define OFPROTO_FLOW_H

#include "key.h"
#include "pkt.h"
#include "sizes.h"

#include <stdbool.h>

#define FLOW_DEPS 16 // generation slots that a flow may depend on
#define FLOW_PROV 8  // rows that a flow may name

// What the packets of a flow need, one cache line.
struct flow {
	uint64_t stages;    // stages that have work per packet, by index
	uint64_t packets;
	uint64_t bytes;
	uint32_t epoch;     // global epoch in which the decision was known to be right
	uint32_t used_ms;   // worker's time of its last packet, milliseconds
	union {
		struct decision decision;
		struct {
			DECISION
		};
	};
	uint32_t aux;       // the FDB entry of the source; ~0: none
	uint32_t refreshed_ms; // when its stages last heard that it is in use
	uint16_t mtu;       // FLOW_DIRECT: a packet up to this size needs nothing but to be sent
	uint16_t adj;       // adjacency by which its packets are routed (adjacency.h); 0: they are not
	uint32_t rule;      // row (row.h) whose counters its packets are credited to; 0: none
	uint32_t actions;   // what stage `rule` has to do for its packets, see pkt_actions()
};
static_assert(sizeof(struct flow) == 64, "the hot part of a flow is one cache line");

#define FLOW_BUM_BROADCAST 0x1 // which storm limit its packets count for
#define FLOW_BUM_MULTICAST 0x2
#define FLOW_BUM_UNKNOWN 0x4
#define FLOW_BUM (FLOW_BUM_BROADCAST | FLOW_BUM_MULTICAST | FLOW_BUM_UNKNOWN)
#define FLOW_LEARN 0x10        // the source address is to be learned, if it isn't yet
#define FLOW_DIRECT 0x20       // to one port, as it is: no stage has work on it but to hold it against `mtu`
#define FLOW_REDIRECT 0x100   // it leaves by the network that it came from: its sender could have asked the next hop itself
#define FLOW_HOPS 0xc0        // routers of this switch that it passes beyond the first one
#define FLOW_HOPS_SHIFT 6
#define FLOW_FRAGMENT 0x4000   // of a packet, not of a flow: it leaves in fragments (frag.h) of pkt.seg_len bytes at most; stage mtu says so
#define FLOW_COPY 0x2000       // of a packet: it is a copy that a rule or a mirror wanted, which nobody answers
#define FLOW_HOP 0x40          // OUT_GROUP: into other networks too
#define FLOW_UNCACHED 0x8      // a decision for one packet: no room in the table, or it read beyond its profile

// What is looked at when something changes or somebody asks.
struct flow_cold {
	uint32_t version;              // odd while the worker changes the record; first, so that the rest can be cleared at once
	uint32_t dep_gen[FLOW_DEPS];
	uint16_t dep_slot[FLOW_DEPS];
	uint8_t n_deps;
	uint8_t n_prov;
	uint8_t key_len;
	uint8_t in_use;
	uint32_t hash;
	uint32_t prev, next;           // list of its ingress port, ~0: end
	uint32_t created_ms;
	uint32_t serial;               // of this table's flows: tells a record from the next one in its place
	uint16_t port;
	uint32_t class_row;            // class of traffic that its packets are credited to as well; 0: none, as always where no rule decides
	uint64_t credited_packets;     // of its counters, what was credited to rules before the present decision
	uint64_t credited_bytes;
	uint8_t prov_stage[FLOW_PROV]; // which stage the row decided
	uint32_t prov_row[FLOW_PROV];  // handles of row.h
};

struct flow_table;

struct flow_table_config {
	uint32_t limit;   // flows at most, 1024..2^24
	uint32_t idle_ms; // a flow without packets goes after this
};

struct flow_table *flow_table_create(const struct flow_table_config *);
void flow_table_destroy(struct flow_table *); // no worker uses it any more
void flow_table_configure(struct flow_table *, const struct flow_table_config *); // its worker
// How many ports share the table: half of the limit is divided into reserved shares, the other half is for whoever comes; a port alone may
// have it all.
void flow_table_set_ports(struct flow_table *, unsigned ports);

// `len[i]` bytes of key count (KEY_LEN_*); hash as key_hash(). out[i]: the flow or NULL.
void flow_table_lookup(struct flow_table *, const struct flow_key *keys, const uint8_t *len, const uint64_t *hash, unsigned n,
		       struct flow **out);
// A record for `key`, not there yet, zeroed but for its key and list. When the port is over its share and the common half is used up, an old flow of the
// port itself goes first; NULL: no room for this port (it is over its share and nothing of it is old).
struct flow *flow_table_insert(struct flow_table *, const struct flow_key *, unsigned len, uint64_t hash, uint32_t now_ms);
void flow_table_remove(struct flow_table *, struct flow *);
// A worker's spare moments: looks at some records and removes idle ones. A full round takes about a second of calls a millisecond apart.
void flow_table_sweep(struct flow_table *, uint32_t now_ms);
// Removes every flow of a port that is gone.
void flow_table_drop_port(struct flow_table *, uint16_t port);

// Makes `decision` with its dependencies and provenance the record's; its counters and place stay.
void flow_decide(struct flow_table *, struct flow *record, const struct flow *decision, const struct flow_cold *);
struct flow_cold *flow_cold(struct flow_table *, const struct flow *);
const struct flow_key *flow_key(struct flow_table *, const struct flow *);
uint32_t flow_index(struct flow_table *, const struct flow *);

// Counters of the rows that decided. A flow credits its packets to the row of its decision, and to its class, when it is decided anew or goes; what flows have not
// credited yet is added when somebody asks.
#define FLOW_CREDITS (1u << 22) // rows that can have counters
struct flow_credit {
	uint64_t packets, bytes;
};
// The table's worker: packets that no cached flow counted.
void flow_credit(struct flow_table *, uint32_t rule, uint64_t packets, uint64_t bytes);
// Main thread: adds to sum[] what all tables, also those that are no more, have for rows below `n`. A flow that is decided anew meanwhile may be
// missing, never counted twice.
void flow_credits_sum(struct flow_credit *sum, uint32_t n);

struct flow_table_stats {
	uint32_t flows, limit, buckets;
	uint64_t inserts, evictions, expiries, refusals;
};
// Any thread; each figure is right, not their sum.
void flow_table_stats(const struct flow_table *, struct flow_table_stats *);
uint32_t flow_table_port_flows(const struct flow_table *, uint16_t port);
// Main thread, while the worker goes on: record `index` as it is, consistent. false: not in use. Iterate index from 0 to flow_table_high().
struct flow_view {
	struct flow flow;
	struct flow_key key;
	struct flow_cold cold;
};
bool flow_table_read(const struct flow_table *, uint32_t index, struct flow_view *);
uint32_t flow_table_high(const struct flow_table *);
// The next flow from *index on, which is moved behind it, that packets with these fields (value, where mask has bits) may belong to: a field that its profile
// leaves out counts as equal. False: there is none. Main thread, while the worker goes on.
bool flow_table_match(const struct flow_table *, const struct flow_key *value, const struct flow_key *mask, uint32_t *index, struct flow_view *);
// A hint at the price of one cache line: the ingress port of record `index` < flow_table_high(), or of the flow that was there before.
uint16_t flow_table_port(const struct flow_table *, uint32_t index);

// ---- flows that end, for who exports them
//
// The worker puts what is known of a flow into a ring when the flow goes, or when its decision changes and it had packets. It never waits: what the
// ring has no room for is counted as lost. With no ring set, that is one test per flow that goes, and none per packet.

// Why a flow ended: the values of flowEndReason, RFC 5102 section 5.11.3.
enum flow_end_why {
	FLOW_END_IDLE = 1,
	FLOW_END_ACTIVE = 2,    // it goes on: a report in between
	FLOW_END_FORCED = 4,    // another decision, its port is gone, the switch ends
	FLOW_END_RESOURCES = 5, // it made room for another
};

struct flow_end {
	struct flow_key key;
	struct decision decision;
	uint32_t rule;
	uint64_t packets, bytes; // since the flow began
	uint32_t created_ms, used_ms;
	uint32_t index, serial, hash;
	uint32_t prov_row[FLOW_PROV];
	uint8_t n_prov;
	uint8_t why;             // enum flow_end_why
	uint8_t goes_on;         // with another decision
};

#define FLOW_ENDS 16384 // a power of two

// One writer, the worker; one reader, the main thread.
struct flow_ends {
	// Set before the ring is, or changed with relaxed stores.
	uint32_t sample;                      // flows that flow_sampled() is false for are left out
	uint64_t networks[MAX_NETWORKS / 64]; // by id: flows of others are left out; 0: of no network
	uint64_t head __attribute__((aligned(64))); // the writer's
	uint64_t lost, lost_packets, lost_bytes;
	uint64_t tail __attribute__((aligned(64))); // the reader's
	struct flow_end ring[FLOW_ENDS] __attribute__((aligned(64)));
};

// One of `sample` flows, by its hash: what one of 10 takes is among what one of 5 takes.
static inline bool flow_sampled(uint32_t hash, uint32_t sample)
{
	return sample <= 1 || (uint64_t)hash * sample >> 32 == 0;
}

// Main thread. NULL: none any more; the ring may be freed after a grace period.
void flow_table_watch(struct flow_table *, struct flow_ends *);
// What a record that flow_table_read() gave would leave behind if it ended now.
void flow_end_of(const struct flow_view *, uint32_t index, struct flow_end *);
// The oldest one, taken out. False: there is none.
bool flow_ends_take(struct flow_ends *, struct flow_end *);
bool flow_ends_waiting(const struct flow_ends *); // whether there is one
// Main thread: called with a table whose worker is gone, before its flows go.
extern void (*flow_table_ends)(struct flow_table *);

#endif
