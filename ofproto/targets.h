// targets: lists of ports that packets for a group go to (OUT_GROUP). Equal lists are one, so that many groups with the same members need few.
//
// The main thread makes and releases them; workers read by id. Whoever releases one has made every flow that names it stale before; it can be read
// until a grace period has passed.
#ifndef OFPROTO_TARGETS_H
#define OFPROTO_TARGETS_H

#include "rcu.h"

#include <stdbool.h>
#include <stdint.h>

#define MAX_TARGET_LISTS 65536 // id 0: none

// Where a copy goes. Whoever makes lists zeroes them first: they are compared as bytes.
struct target {
	uint16_t port;
	uint16_t network; // that the copy leaves in
	uint8_t src[6];   // of a copy into another network than the packet's own: the address of the router port there, else of no meaning
	uint16_t why;     // TARGET_*: who it is that gets it
};

#define TARGET_MEMBER 0x1   // it asked for the group
#define TARGET_ROUTER 0x2   // a multicast router is there
#define TARGET_UPSTREAM 0x4 // the upstream network of a router that proxies
#define TARGET_LOCAL 0x8    // gets packets of its own network only, unless it is upstream
#define TARGET_FIRST 0x10   // gets packets of other networks only from the switch that they come to first: none that came out of a tunnel

struct target_list {
	uint16_t id;
	uint16_t n;
	uint32_t refs, hash, next; // the main thread's
	struct target to[];
};

// Whether it gets packets of other networks.
static inline bool target_routed(const struct target *t, bool from_tunnel)
{
	return (!(t->why & TARGET_LOCAL) || t->why & TARGET_UPSTREAM) && !(from_tunnel && t->why & TARGET_FIRST);
}

extern struct target_list *target_lists[MAX_TARGET_LISTS];

// NULL: there is none.
static inline const struct target_list *targets_get(uint16_t id)
{
	return rcu_read(target_lists[id]);
}

// Main thread. The list with these n > 0 targets, sorted by (network, port), with one reference more. 0: no id is free, or no memory.
uint16_t targets_intern(const struct target *, unsigned n);
void targets_release(uint16_t id); // 0: nothing

#endif
