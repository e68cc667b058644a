// frag: fragments of IPv4 (RFC 791 section 3.2, RFC 6864), made of packets that are too large for their egress; and of IPv6 (RFC 8200 section 4.5), which
// only the source of a packet may make: of answers of the switch itself, and of packets of tunnels.
#ifndef OFPROTO_FRAG_H
#define OFPROTO_FRAG_H

#include "pkt.h"

// How many fragments the packet makes that are no larger than `mtu` bytes of layer 3; 1: it fits; 0: it is no IP, must not be cut (DF), or can't be:
// of IPv6, if it has extension headers.
unsigned frag_count(const struct rte_mbuf *m, uint16_t mtu);
// Fragment number `i` (0..frag_count()-1): a new packet from the pool with a copy of its part, headers and struct pkt right, with a reference of its own to
// the packet's trace. Options are copied as they say (RFC 791 section 3.1). A fragment may be cut once more. `m` has its checksum finished and headers in one
// piece, and is not changed. NULL: no buffer.
struct rte_mbuf *frag_piece(const struct rte_mbuf *m, unsigned i, uint16_t mtu, struct rte_mempool *);

#endif
