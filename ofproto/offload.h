// offload: checksums and segmentation in software, where an egress can't do what the packet asks for.
//
// A packet asks with TX flags and header lengths, as parse() has set them: RTE_MBUF_F_TX_TCP_CKSUM or UDP_CKSUM (the checksum field holds the sum of the
// pseudo-header, as virtio 1.2 section 5.1.6.2 has it), RTE_MBUF_F_TX_TCP_SEG with tso_segsz.
#ifndef OFPROTO_OFFLOAD_H
#define OFPROTO_OFFLOAD_H

#include "pkt.h"

// What an egress can do.
#define OFFLOAD_CSUM 0x1     // TCP and UDP checksums
#define OFFLOAD_TSO4 0x2     // TCP segmentation, IPv4
#define OFFLOAD_TSO6 0x4
#define OFFLOAD_MULTISEG 0x8 // takes packets of several mbufs
#define OFFLOAD_ALL 0xf

// Whether the egress can cut the packet.
static inline bool offload_ok_tso(const struct rte_mbuf *m, unsigned caps)
{
	return caps & (m->ol_flags & RTE_MBUF_F_TX_IPV4 ? OFFLOAD_TSO4 : OFFLOAD_TSO6) && caps & OFFLOAD_CSUM;
}

// Whether the packet can go to an egress with these capabilities as it is.
static inline bool offload_ok(const struct rte_mbuf *m, unsigned caps)
{
	uint64_t f = m->ol_flags;

	if (m->nb_segs > 1 && !(caps & OFFLOAD_MULTISEG))
		return false;
	if (!(f & (RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_L4_MASK)))
		return true;
	if (f & RTE_MBUF_F_TX_TCP_SEG)
		return offload_ok_tso(m, caps);
	return (caps & OFFLOAD_CSUM) != 0;
}

// Completes the checksum in the packet and takes its flags away. The headers must be the packet's own (pkt_own_headers()). 0, or -EINVAL: the
// header lengths don't fit the packet.
int offload_checksum(struct rte_mbuf *m);
// Ones' complement sum of `len` bytes at `ofs`, which are there.
uint16_t offload_sum(const struct rte_mbuf *m, uint32_t ofs, uint32_t len);
// Copies `len` bytes at `ofs` of the packet `from` behind what the packet `to` has, with further buffers as they are needed. False: no buffer, or `from` has less.
bool offload_append(struct rte_mbuf *to, const struct rte_mbuf *from, uint32_t ofs, uint32_t len, struct rte_mempool *);
// Cuts off all but the first of the segments that the packet would be cut into, in place: it asks for its checksum and nothing more. The headers are the
// packet's own. 0, or -EINVAL: it can't be cut; untouched.
int offload_keep_first(struct rte_mbuf *m);
// Number of segments that the packet will be cut into; 1: it fits. 0: it can't be cut (header lengths don't fit the packet).
unsigned offload_segments(const struct rte_mbuf *m);
// Segment number `i` (0..offload_segments()-1) of the packet, IPv4 or IPv6: a new packet from the pool with a copy of its part of the payload (RFC 9293; IPv4
// identification counted up; sequence numbers; FIN and PSH only on the last, CWR only on the first segment, RFC 3168), struct pkt copied, lengths right. It
// still asks for its checksum (pseudo-header sum in place), which offload_checksum() or the egress completes. NULL: no buffer. `m` is not changed; a trace
// that it has is shared by one more packet.
struct rte_mbuf *offload_segment(const struct rte_mbuf *m, unsigned i, struct rte_mempool *);
// A packet of one mbuf with the same bytes and struct pkt, from the pool; NULL: no buffer, or it is larger than PKT_BUF_SIZE. `m` is not changed;
// the new packet takes its place, trace included.
struct rte_mbuf *offload_linear(const struct rte_mbuf *m, struct rte_mempool *);

#endif
