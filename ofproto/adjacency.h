// adjacency: what routing does to a packet's headers: addresses of the next link, and hops taken from its TTL.
//
// Main thread makes and frees them; workers read by index. An index that a flow has may be reused only after every flow that has it is stale and a grace
// period has passed.
#ifndef OFPROTO_ADJACENCY_H
#define OFPROTO_ADJACENCY_H

#include <assert.h>
#include <stdint.h>

#define MAX_ADJACENCIES 65536 // index 0: none

struct adjacency {
	uint8_t dst[6], src[6]; // first, as in a frame
	uint16_t network;       // that the packet goes into
	uint8_t hops;           // that are taken from TTL or hop limit
	uint8_t used;
};
static_assert(sizeof(struct adjacency) == 16, "four in a cache line");

extern struct adjacency *adjacencies; // [MAX_ADJACENCIES], reserved address space, touched as it is used

static inline const struct adjacency *adjacency_get(uint32_t index)
{
	return &adjacencies[index & (MAX_ADJACENCIES - 1)];
}

#endif
