// reassembly: fragments of IPv4 (RFC 791 section 3.2) and IPv6 (RFC 8200 section 4.5) put together, where the switch itself is meant: a router's address, or an
// end point of tunnels. Any thread.
//
// Bounded: REASSEMBLY_MAX packets of a kind at a time, of one ingress port REASSEMBLY_PORT_MAX with REASSEMBLY_PORT_PIECES fragments in all, beyond which the oldest
// packet makes room, as what is new is more likely to become whole; REASSEMBLY_PIECES fragments of each; and 30 seconds (60 of IPv6, RFC 8200).
// A fragment that overlaps another ends the packet (RFC 5722; for IPv4 alike), one that is there twice is ignored; so does one that ends within a TCP header
// (RFC 3128), or that the rules of its family forbid. Identifications of IPv4 come round in no time (RFC 4963): after REASSEMBLY_DISTANCE other packets of the
// port a fragment is of a new packet, and not of the one that still waits.
#ifndef OFPROTO_REASSEMBLY_H
#define OFPROTO_REASSEMBLY_H

#include "pkt.h"

#define REASSEMBLY_MAX 256
#define REASSEMBLY_PORT_MAX 128
#define REASSEMBLY_PORT_PIECES 512
#define REASSEMBLY_PIECES 48
#define REASSEMBLY_DISTANCE 1024

// What they are for. Kinds have nothing to do with each other.
enum reassembly_kind {
	REASSEMBLY_ROUTER, // fragments are with the main thread
	REASSEMBLY_TUNNEL, // ... with workers, whichever gets the last one
	REASSEMBLY_KINDS
};

enum reassembly_end {
	REASSEMBLY_MERGED,  // its bytes are in the whole packet
	REASSEMBLY_BAD,     // it overlaps, or breaks the rules
	REASSEMBLY_FULL,    // it made room for newer ones, or there is no buffer
	REASSEMBLY_TIMEOUT, // the others didn't come in time
};
// Where fragments end: takes one. `first`: of those that timed out the one at offset 0.
typedef void reassembly_fn(void *arg, struct rte_mbuf *, enum reassembly_end, bool first);

// Takes a fragment, parsed. Returns the whole packet, in a new buffer in place of one of its fragments and parsed, or NULL: it waits, or has
// ended. ECN of the whole packet: RFC 3168 section 5.3.
struct rte_mbuf *reassembly_add(enum reassembly_kind, struct rte_mbuf *m, uint64_t now, reassembly_fn *end, void *arg);
// About every 100 ms. `now`: nanoseconds.
void reassembly_tick(enum reassembly_kind, uint64_t now, reassembly_fn *end, void *arg);
// All that wait end, as timed out.
void reassembly_flush(enum reassembly_kind, reassembly_fn *end, void *arg);
// How many packets wait for fragments.
unsigned reassembly_waiting(void);

#endif
