// adjacency: what routing does to a packet's headers: addresses of the next link, and hops taken from its TTL.
//
// Main thread makes and frees them; workers read by index. An index that a flow has may be used again only after every flow that has it is stale and a
// grace period has passed.
#ifndef OFPROTO_ADJACENCY_H
#define OFPROTO_ADJACENCY_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <rte_branch_prediction.h>
#include <rte_byteorder.h>

// Index 0: none. From ADJACENCY_ACTIONS on an index is none of a table, but what stage `router` does with the packet instead of sending it on.
#define MAX_ADJACENCIES 65536
#define ADJACENCY_ACTIONS 0xff00

struct adjacency {
	uint8_t dst[6], src[6]; // first, as in a frame
	uint16_t network;       // that the packet goes into
	uint8_t used;
	uint8_t spare;
};
static_assert(sizeof(struct adjacency) == 16, "four in a cache line");

extern struct adjacency adjacencies[MAX_ADJACENCIES]; // touched as it is used

static inline const struct adjacency *adjacency_get(uint32_t index)
{
	return &adjacencies[index & (MAX_ADJACENCIES - 1)];
}

// Main thread. The index of a new one; 0: there are too many.
uint16_t adjacency_new(const struct adjacency *);
// After the generations that flows with it depend on were bumped: it is used again after a grace period. 0: nothing.
void adjacency_release(uint16_t index);
uint32_t adjacency_count(void);

// Whether the checksum of an IPv4 header of 20 bytes is right (RFC 1071): the sum of its words is a multiple of 0xffff, and as 2^16 leaves 1, so is that of words
// of twice the size, in whichever byte order. The compiler makes a multiplication of it.
static inline bool adjacency_sum_right(const uint8_t *ip)
{
	uint32_t w[5];

	memcpy(w, ip, sizeof w);
	return ((uint64_t)w[0] + w[1] + w[2] + w[3] + w[4]) % 0xffff == 0;
}

// TTL, protocol and checksum of an IPv4 header, as one word, with a TTL less by one: 0xffff takes one from the lower half and gives it to the upper one, whose sum
// grows by 0x0100 in network order (RFC 1624, equation 3).
static inline uint32_t adjacency_hop(uint32_t word)
{
	uint64_t s = (uint64_t)word + 0xffff;

	return (uint32_t)(s + (s >> 32 << 16));
}
static_assert(RTE_BYTE_ORDER == RTE_LITTLE_ENDIAN, "adjacency_hop() counts on it");

// Takes one from TTL or hop limit, which is larger than 1, and gives the frame its new addresses. `d`: the frame, its own up to the IP header's end; l3: where
// that header begins. False: the IPv4 header's checksum is wrong (RFC 1812 section 5.2.2); untouched.
static inline bool adjacency_apply(uint8_t *d, unsigned l3, const struct adjacency *a)
{
	uint8_t *ip = d + l3;

	if (likely(ip[0] >> 4 == 4)) {
		uint32_t word;

		if (likely(ip[0] == 0x45) && unlikely(!adjacency_sum_right(ip)))
			return false;
		memcpy(&word, ip + 8, 4);
		word = adjacency_hop(word);
		memcpy(ip + 8, &word, 4);
	} else {
		ip[7]--;
	}
	memcpy(d, a, 12);
	return true;
}

#endif
