// link: what is said on a link and not through it: LACP, its markers (IEEE 802.3 slow protocols) and LLDP (IEEE 802.1AB), which concern the device that they come from
// and not the logical port that it may be a member of. Workers take such frames off before anything else, the main thread speaks these protocols.
#ifndef OFPROTO_LINK_H
#define OFPROTO_LINK_H

#include "reason.h"
#include "sizes.h"

#include <stdbool.h>
#include <stdint.h>
#include <rte_mbuf.h>

struct worker;

#define LINK_SLOW_TYPE 0x8809
#define LINK_LLDP_TYPE 0x88cc
#define LINK_FRAME_MAX 1518
#define LINK_WAITING 256 // frames that wait for the main thread at most

#define LINK_REASONS(X)                                                                                                \
	X(link, INACTIVE, "its bond takes nothing from this member now: it stands by, or LACP has not got so far")      \
	X(link, QUEUE_FULL, "too many frames of LACP or LLDP come at once")                                             \
	X(link, BAD, "a frame of LACP or LLDP is too long")

enum {
	LINK_REASONS(REASON_ENUM) LINK_REASON_N
};

// What there is to look at on a device's port before its packets are the lport's. A byte each, set by the main thread.
#define LINK_TAKE_SLOW 0x1
#define LINK_TAKE_LLDP 0x2
#define LINK_INACTIVE 0x4 // all else is dropped
extern uint8_t link_flags[MAX_PORTS];
static inline uint8_t link_flags_of(uint16_t port)
{
	return __atomic_load_n(&link_flags[port & (MAX_PORTS - 1)], __ATOMIC_RELAXED);
}
void link_set(uint16_t port, uint8_t which, bool on); // main thread

void link_init(void);
void link_fini(void);

// A worker: takes out of m[] what isn't to go on, and books it on the ledger of `port`. Returns how many are left, the first ones.
uint16_t link_take(struct worker *, uint16_t port, struct rte_mbuf **m, uint16_t n);

// Main thread: the next frame that was taken, *port: where. To be freed. NULL: none.
struct rte_mbuf *link_next(uint16_t *port);
// Set by vswitch/: something was taken; any worker.
extern void (*link_ring)(void);

#endif
