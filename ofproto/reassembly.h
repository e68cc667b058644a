// reassembly: fragments of IPv4 (RFC 791 section 3.2) and IPv6 (RFC 8200 section 4.5) put together, where the switch itself is meant. Main thread.
//
// Bounded: REASSEMBLY_MAX packets at a time, REASSEMBLY_PORT_MAX of an ingress port, REASSEMBLY_PIECES fragments of each, and 30 seconds (60 of IPv6, RFC 8200).
// A fragment that overlaps another ends the packet (RFC 5722; for IPv4 alike), one that is there twice is ignored; so does one that ends within a TCP header
// (RFC 3128), or that the rules of its family forbid.
#ifndef OFPROTO_REASSEMBLY_H
#define OFPROTO_REASSEMBLY_H

#include "pkt.h"

#define REASSEMBLY_MAX 256
#define REASSEMBLY_PORT_MAX 32
#define REASSEMBLY_PIECES 48

enum reassembly_end {
	REASSEMBLY_MERGED,  // its bytes are in the whole packet
	REASSEMBLY_BAD,     // it overlaps, or breaks the rules
	REASSEMBLY_FULL,    // a limit is reached, or there is no buffer
	REASSEMBLY_TIMEOUT, // the others didn't come in time
};
// Where fragments end: takes one. `first`: of those that timed out the one at offset 0.
typedef void reassembly_fn(struct rte_mbuf *, enum reassembly_end, bool first);

// Takes a fragment (traffic class of fragments). Returns the whole packet, in a new buffer in place of one of its fragments and parsed, or NULL: it waits, or has ended.
struct rte_mbuf *reassembly_add(struct rte_mbuf *m, uint64_t now, reassembly_fn *end);
// About every 100 ms. `now`: nanoseconds.
void reassembly_tick(uint64_t now, reassembly_fn *end);
// All that wait end, as timed out.
void reassembly_flush(reassembly_fn *end);
// How many packets wait for fragments.
unsigned reassembly_waiting(void);

#endif
