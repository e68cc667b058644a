// drop: the finer part of the ledger: dropped packets by (port, reason, row), and the headers of the last ones of each.
//
// One table per worker, which it alone writes, where packets die (worker.c). The main thread reads beside it: a figure is one store, what is kept of a
// packet is under a version of its entry, and entries move under a version of the table. How many packets a port lost for a reason is in count.h and
// complete; a table that is full adds what has no place to the row DROP_OTHERS, and what doesn't even find that is missing here only.
#ifndef OFPROTO_DROP_H
#define OFPROTO_DROP_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <rte_mbuf.h>

#define DROP_ENTRIES 4096       // of a table at most
#define DROP_ROWS_MAX 3072      // of these, those that name a row
#define DROP_KEPT 4             // packets kept of each entry
#define DROP_BYTES 96           // of each of them at most
#define DROP_OTHERS UINT32_MAX  // in place of a row: several, for which there was no room
#define DROP_OLD_MS 600000      // an entry that nothing was added to for so long may lose its row to make room

// What is kept of a packet.
struct drop_packet {
	uint64_t time;   // nanoseconds of the worker's clock
	uint64_t number; // it was that one of its entry, from 1
	uint32_t len;    // of the frame
	uint16_t have;   // bytes of it
	uint16_t spare;
	uint8_t data[DROP_BYTES];
};

struct drop_entry {
	uint64_t packets;
	uint16_t port;    // whose ledger the packets are on
	uint16_t reason;
	uint32_t row;     // handle of row.h, 0: no row caused it
	uint32_t version; // odd while `kept` changes
	uint32_t ms;      // worker's time of the last packet
	uint16_t budget;  // packets that may still be kept in this millisecond, so that a storm of drops costs little
	uint16_t next;    // place in kept[] of the next one
	uint32_t spare;
	struct drop_packet kept[DROP_KEPT]; // time 0: none
};
static_assert(sizeof(struct drop_entry) == 8 * 64, "whole cache lines");

struct drops;

// Main thread. Memory is touched as it is used. NULL: no memory.
struct drops *drop_create(void);
void drop_destroy(struct drops *);

// The table's worker: a packet, or a copy of it that never came to be, was lost.
void drop_note(struct drops *, uint16_t port, uint16_t reason, uint32_t row, const struct rte_mbuf *, uint64_t now, uint32_t now_ms);
// The table's worker: the port goes, its entries are added to those of port 0, without rows.
void drop_fold(struct drops *, uint16_t port);
// Who has both tables, and nobody reads them meanwhile: adds what `from` has to `to`.
void drop_merge(struct drops *to, const struct drops *from);

void drop_add(struct drops *to, const struct drop_entry *, unsigned n);
// NULL: there is none.
const struct drop_entry *drop_find(const struct drops *, uint16_t port, uint16_t reason, uint32_t row);

// Main thread, while the worker goes on: copies all entries and returns how many there are. `kept`: with the packets, else without.
unsigned drop_read(const struct drops *, struct drop_entry to[DROP_ENTRIES], bool kept);

#endif
