// parse: reads a frame once and fills its struct pkt and its whole (unmasked) key.
#ifndef OFPROTO_PARSE_H
#define OFPROTO_PARSE_H

#include "key.h"
#include "pkt.h"
#include "reason.h"

#include <stddef.h>
#include <string.h>
#include <rte_branch_prediction.h>
#include <rte_byteorder.h>

// Ethernet (IEEE 802.3), up to two tags (802.1Q, 802.1ad), ARP (RFC 826), IPv4 (RFC 791), IPv6 and its extension headers (RFC 8200), TCP (RFC 9293),
// UDP (RFC 768), SCTP (RFC 9260), ICMP (RFC 792, RFC 4443).
#define PARSE_REASONS(X)                                                                                               \
	X(parse, RUNT, "the frame is shorter than an Ethernet header")                                                 \
	X(parse, VLAN, "the frame ends within a VLAN tag")                                                             \
	X(parse, ARP, "the ARP packet is cut short or not for Ethernet and IPv4")                                      \
	X(parse, IPV4_HEADER, "the IPv4 header is cut short, has a wrong version or a wrong header length")            \
	X(parse, IPV4_LENGTH, "the IPv4 total length is smaller than its header or larger than the frame")             \
	X(parse, IPV6_HEADER, "the IPv6 header is cut short or has a wrong version")                                   \
	X(parse, IPV6_LENGTH, "the IPv6 payload length is larger than the frame")                                      \
	X(parse, IPV6_EXT, "an IPv6 extension header is cut short, or there are too many of them")                     \
	X(parse, TCP, "the TCP header is cut short or has a wrong data offset")                                        \
	X(parse, UDP, "the UDP header is cut short or has a wrong length")                                             \
	X(parse, SCTP, "the SCTP header is cut short")                                                                 \
	X(parse, ICMP, "the ICMP header is cut short")                                                                 \
	X(parse, GSO, "what the guest says of its large packet is wrong: not TCP, or segments below 48 bytes")         \
	X(parse, CSUM, "the guest asks for a checksum where the packet has no place for one")

enum {
	PARSE_REASONS(REASON_ENUM) PARSE_REASON_N
};
extern uint16_t parse_reason_base;

void parse_init(void);

// The smallest segment that a guest may ask for (Linux: TCP_MIN_SND_MSS): smaller ones multiply packets.
#define PARSE_MIN_SEGMENT 48
// Headers that parse() may have to read at most.
#define PARSE_HEADERS_MAX 512

// `m` with its struct pkt zeroed but for in_port and origin. Sets p->drop on malformed input. Returns 0, or -EAGAIN if headers lie beyond
// the first segment: pull them together (pkt_own_headers(m, PARSE_HEADERS_MAX)) and call again. Turns the RX offload flags of a device or the
// vhost library into TX flags and header lengths. Any thread.
int parse(struct rte_mbuf *m, struct flow_key *key);

// A frame of `len` bytes, of which the first `have` are known, that is in no buffer of the switch: for who wants to know what parse() makes of it.
// 0, or -EINVAL: it is malformed, or too little of it is known.
struct parsed_frame {
	struct rte_mbuf m;
	struct pkt pkt; // where the private area of `m` is
	struct flow_key key;
};
static_assert(offsetof(struct parsed_frame, pkt) == sizeof(struct rte_mbuf), "struct pkt is behind the mbuf");
int parse_frame(const uint8_t *frame, unsigned have, unsigned len, uint16_t port, struct parsed_frame *);

// The offload part of parse(): RX flags of the device or the library to TX flags. `p`: parsed. Sets p->drop if they can't be.
void parse_offload(struct rte_mbuf *m, struct pkt *p);
static inline bool parse_wants_offload(const struct rte_mbuf *m)
{
	return (m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_NONE || (m->ol_flags & RTE_MBUF_F_RX_LRO);
}

// The short way through parse(), for what most packets are: untagged IPv4 without options, no fragment, TTL > 1, well-formed TCP or UDP that is not DHCP,
// headers in one piece. `d`: the frame, `have` contiguous bytes of its `len`; *p: as for parse(). Fills *p as parse() does, and returns the traffic
// class; -1: take the long way, *p is as it was. The key's part is the caller's, who has the words at hand: see forward.c.
// A unit test holds both ways to the same answers; fastpath shows what this one saves.
static inline int parse_common(const uint8_t *d, uint32_t have, uint32_t len, struct pkt *p)
{
	uint32_t word;
	uint16_t frag, start;

	if (unlikely(have < 54))
		return -1;
	memcpy(&word, d + 12, 4);
	memcpy(&frag, d + 20, 2);
	memcpy(&start, d, 2);
	uint32_t total = (uint32_t)(d[16] << 8 | d[17]);
	if (unlikely((word & RTE_STATIC_BSWAP32(0xffffff00)) != RTE_STATIC_BSWAP32(0x08004500) || total > len - 14 ||
		     (frag & RTE_STATIC_BSWAP16(0x3fff)) || d[22] <= 1 || start == RTE_STATIC_BSWAP16(0x0180)))
		return -1;
	uint8_t proto = d[23], l4_len = 8, class = CLASS_PLAIN;
	if (proto == 17) {
		uint32_t l4 = (uint32_t)(d[38] << 8 | d[39]);
		uint16_t dport;

		memcpy(&dport, d + 36, 2);
		if (unlikely(l4 < 8 || l4 + 20 > total || dport == RTE_STATIC_BSWAP16(67) || dport == RTE_STATIC_BSWAP16(68)))
			return -1;
	} else if (likely(proto == 6)) {
		uint32_t l4 = (uint32_t)(d[46] >> 4) * 4;

		if (unlikely(l4 < 20 || l4 + 20 > total))
			return -1;
		l4_len = (uint8_t)l4;
		if (unlikely(d[47] & 0x07))
			class = d[47] & 0x05 ? CLASS_TCP_FIN_RST : CLASS_TCP_SYN;
	} else {
		return -1;
	}
	p->ethertype = 0x0800;
	p->class = class;
	p->l3_ofs = 14;
	p->proto = proto;
	p->l4_ofs = 34;
	p->l4_len = l4_len;
	p->l3_len = (uint16_t)total;
	p->seg_len = len - 14;
	return class;
}

// The same for untagged IPv6: no extension headers, hop limit > 1, well-formed TCP or UDP that is not DHCP, no jumbogram.
static inline int parse_common6(const uint8_t *d, uint32_t have, uint32_t len, struct pkt *p)
{
	uint16_t type, start;

	if (unlikely(have < 62))
		return -1;
	memcpy(&type, d + 12, 2);
	memcpy(&start, d, 2);
	uint32_t payload = (uint32_t)(d[18] << 8 | d[19]);
	// No length at all, of a jumbogram, is too large as well.
	if (unlikely(type != RTE_STATIC_BSWAP16(0x86dd) || d[14] >> 4 != 6 || payload - 1 >= 0xffff - 40 || payload > len - 54 || d[21] <= 1 ||
		     start == RTE_STATIC_BSWAP16(0x0180)))
		return -1;
	uint8_t proto = d[20], l4_len = 8, class = CLASS_PLAIN;
	if (proto == 17) {
		uint32_t l4 = (uint32_t)(d[58] << 8 | d[59]);
		uint16_t dport;

		memcpy(&dport, d + 56, 2);
		if (unlikely(l4 < 8 || l4 > payload || dport == RTE_STATIC_BSWAP16(546) || dport == RTE_STATIC_BSWAP16(547)))
			return -1;
	} else if (likely(proto == 6)) {
		uint32_t l4 = have < 74 ? 0 : (uint32_t)(d[66] >> 4) * 4;

		if (unlikely(l4 < 20 || l4 > payload))
			return -1;
		l4_len = (uint8_t)l4;
		if (unlikely(d[67] & 0x07))
			class = d[67] & 0x05 ? CLASS_TCP_FIN_RST : CLASS_TCP_SYN;
	} else {
		return -1;
	}
	p->ethertype = 0x86dd;
	p->class = class;
	p->l3_ofs = 14;
	p->proto = proto;
	p->l4_ofs = 54;
	p->l4_len = l4_len;
	p->l3_len = (uint16_t)(payload + 40);
	p->seg_len = len - 14;
	return class;
}

// A hash of addresses and ports that is the same for all packets of a connection's direction, fragments of one datagram included.
uint32_t parse_flow_hash(struct rte_mbuf *m);

const char *traffic_class_name(enum traffic_class);

#endif
