// parse: reads a frame once and fills its struct pkt and its whole (unmasked) key.
#ifndef OFPROTO_PARSE_H
#define OFPROTO_PARSE_H

#include "key.h"
#include "pkt.h"
#include "reason.h"

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

// A hash of addresses and ports that is the same for all packets of a connection's direction, fragments of one datagram included.
uint32_t parse_flow_hash(struct rte_mbuf *m);

const char *traffic_class_name(enum traffic_class);

#endif
