// rewrite: another value in a field of a packet, with every checksum that covers it.
//
// Checksums are adjusted by the difference (RFC 1624), so that one which was wrong stays wrong. That of TCP or UDP may be partial (offload.h): then it
// is the sum of the pseudo-header, which only addresses change. A packet that will be cut into segments has its headers rewritten once.
#ifndef OFPROTO_REWRITE_H
#define OFPROTO_REWRITE_H

#include "field.h"
#include "pkt.h"

// Bytes from the transport header on that a rewrite may touch.
#define REWRITE_L4 20

// Does them in order. The headers up to REWRITE_L4 bytes of the transport header are the packet's own (pkt_own_headers()). A field that the packet
// doesn't have, such as the port of a later fragment, stays away.
void rewrite_apply(struct rte_mbuf *m, const struct rewrite *, unsigned n);

#endif
