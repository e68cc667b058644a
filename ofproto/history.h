// history: what the counters of every port were: each second of the last minute, each minute of the last hour, so that the ledger can be shown of an
// interval.
//
// Kept is what changed, in eight bytes for a counter of a port and a moment: with 1,000 busy ports about 10 MB, and never more than HISTORY_MAX.
// Main thread.
#ifndef OFPROTO_HISTORY_H
#define OFPROTO_HISTORY_H

#include "count.h"

#include <stddef.h>

#define HISTORY_FINE 60                       // moments a second apart
#define HISTORY_COARSE 60                     // and older ones,
#define HISTORY_COARSE_NS 60000000000ULL      // so far apart
#define HISTORY_MAX (32u << 20)               // bytes; the oldest go

struct history;

// `now`: when all counters were 0; nanoseconds. NULL: no memory.
struct history *history_create(uint64_t now);
void history_destroy(struct history *);

// A moment: history_begin(), history_add() for every port in the order of their ids, from 0, history_end(). If there is no memory, the history begins anew.
void history_begin(struct history *, uint64_t now);
void history_add(struct history *, uint16_t port, const struct counts *);
void history_end(struct history *);
// The port is gone and its figures are among those of port 0 now. Before anything else is said of either.
void history_gone(struct history *, uint16_t port);
bool history_knows(const struct history *, uint16_t port);

// The moment kept that is nearest to `from`.
uint64_t history_nearest(const struct history *, uint64_t from);
// Makes of now[port], what the counters are, what has been added since that moment. NULL: not asked for.
void history_since(const struct history *, uint64_t moment, struct counts *now[MAX_PORTS]);

size_t history_size(const struct history *); // bytes

#endif
