// count: the ledger's counters. One struct per (worker, port), written by that worker alone: it counts into `local` and publishes
// once a batch, under a version, so that a reader gets figures that belong together.
//
// Conservation holds for each port as origin at any published moment:
//     rx + generated + copies + segments = sent + queued + consumed + merged + sum of drops
#ifndef OFPROTO_COUNT_H
#define OFPROTO_COUNT_H

#include "sizes.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

// id, key of JSON and statistics, text.
#define COUNTS(X)                                                                                                      \
	X(RX, "rx_packets", "packets taken from the port")                                                             \
	X(RX_BYTES, "rx_bytes", "their bytes")                                                                         \
	X(GENERATED, "generated", "packets that the switch made on the port's account")                                \
	X(COPIES, "copies", "copies of its packets for further egress ports")                                          \
	X(SEGMENTS, "segments_added", "packets more, after large ones were cut")                                       \
	X(SENT, "sent", "of its packets, those that left by some port")                                                \
	X(QUEUED, "queued", "of its packets, those waiting in the switch now")                                         \
	X(CONSUMED, "consumed", "packets that the switch itself took")                                                 \
	X(MERGED, "merged", "packets that became part of another")                                                     \
	X(DROPPED, "dropped", "of its packets, those dropped, all reasons")                                            \
	X(TX, "tx_packets", "packets, of any origin, given to the port")                                               \
	X(TX_BYTES, "tx_bytes", "their bytes")                                                                         \
	X(TX_DROPPED, "tx_dropped", "packets, of any origin, dropped on their way out of the port")                    \
	X(RESOLVED, "resolved", "packets of it that were resolved")                                                    \
	X(CACHE_HIT, "flow_hits", "packets of it that a cached flow served")                                           \
	X(UNCACHED, "uncached", "decisions for its packets that were not cached")                                      \
	X(BEYOND_PROFILE, "beyond_profile", "decisions that read a field outside the profile: a defect")               \
	X(FDB_LEARNED, "fdb_learned", "addresses learned on it")                                                       \
	X(FDB_MOVED, "fdb_moved", "addresses that moved to it")                                                        \
	X(FDB_REFUSED, "fdb_refused", "addresses not learned on it: a limit, a flapping address, no room")

enum count {
#define X(id, key, text) COUNT_##id,
	COUNTS(X)
#undef X
	COUNT_N
};

struct counts {
	uint64_t c[COUNT_N]; // QUEUED goes up and down
	uint64_t drop[MAX_REASONS];
};

struct count_desc {
	const char *key, *text;
};
extern const struct count_desc count_desc[COUNT_N];

// Per (worker, port).
struct port_counts {
	uint64_t local[COUNT_N];
	uint64_t local_drop_bits[MAX_REASONS / 64];
	uint32_t local_drop[MAX_REASONS];
	uint32_t version __attribute__((aligned(64))); // odd while published figures change
	struct counts counts;
};
static_assert(MAX_REASONS % 64 == 0, "a bit per reason");

// The worker that owns it.
static inline void count_add(struct port_counts *pc, enum count what, uint64_t n)
{
	pc->local[what] += n;
}

static inline void count_drop(struct port_counts *pc, uint16_t reason)
{
	pc->local[COUNT_DROPPED]++;
	pc->local_drop[reason]++;
	pc->local_drop_bits[reason / 64] |= 1ULL << reason % 64;
}

void count_publish(struct port_counts *);
// Adds what `from` has published to what `to` has, both of the same worker: the port of `from` goes.
void count_fold(struct port_counts *to, const struct port_counts *from);
// Any thread: adds what is published to `sum`, consistent in itself.
void count_read(const struct port_counts *, struct counts *sum);
// rx + generated + copies + segments - sent - queued - consumed - merged - drops: 0, or packets are missing (or too many, negative).
int64_t count_missing(const struct counts *);

#endif
