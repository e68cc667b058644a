// gen: generations. A table change bumps the slot (stripe) that it falls into; a flow remembers the slots that it depends on with
// the generations it saw before it looked anything up. One global epoch counts all bumps, so that a flow whose epoch is the
// current one needs no look at its slots.
//
// Writers, any thread: change the table, then gen_bump(). Readers: gen_read() first, then look up.
#ifndef OFPROTO_GEN_H
#define OFPROTO_GEN_H

#include <stdint.h>

#define GEN_SLOTS 8192 // a power of two

enum gen_kind {
	GEN_CONFIG,  // slot 0: everything depends on it
	GEN_FDB,     // id: network << 48 | MAC
	GEN_NETWORK, // id: network id
	GEN_PORT,    // id: port id
	GEN_ROUTE,   // id: route_table.h
	GEN_NEIGHBOUR, // id: neighbour_table.h
	GEN_GROUP,   // id: multicast groups, network << 32 | a hash of the group
};

extern uint32_t gen_slots[GEN_SLOTS];
extern uint32_t gen_epoch;

static inline uint16_t gen_slot(enum gen_kind kind, uint64_t id)
{
	if (kind == GEN_CONFIG)
		return 0;
	// Fibonacci hashing (Knuth, TAOCP 3, 6.4). Ids end below bit 60: a port never shares the slot of the network next in number.
	uint64_t h = (id | (uint64_t)kind << 61) * 0x9e3779b97f4a7c15ULL;
	uint16_t slot = (uint16_t)(h >> 51);

	return slot ? slot : 1;
}

static inline uint32_t gen_read(uint16_t slot)
{
	return __atomic_load_n(&gen_slots[slot], __ATOMIC_ACQUIRE);
}

static inline uint32_t gen_read_epoch(void)
{
	return __atomic_load_n(&gen_epoch, __ATOMIC_ACQUIRE);
}

// Returns the slot's new generation.
uint32_t gen_bump(uint16_t slot);
// Bumps the slots whose bits are set, and the epoch once: after a batch of changes.
void gen_bump_many(const uint64_t slots[GEN_SLOTS / 64]);

#endif
