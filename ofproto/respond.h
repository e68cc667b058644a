// respond: a packet is turned into its answer, in place: no packet comes or goes, so the ledger holds by itself. The answer leaves by the port that the
// packet came in on, to the MAC that it came from, with the tags that it came with.
//
// For all of them: the packet is parsed, its headers are its own and contiguous up to 64 bytes of the transport header (stage.writes, or
// pkt_own_headers()). Ethernet addresses are swapped (`mac` becomes the source); struct pkt is left as parse() would have made it, its decision untouched;
// no offload is asked for. 0, or a negative errno, the packet being as it was: -EINVAL: it is nothing that is answered so, or malformed; -EPERM: rules
// forbid an answer; -ENOSPC: no room for one. Any thread that owns the packet.
#ifndef OFPROTO_RESPOND_H
#define OFPROTO_RESPOND_H

#include "config.h"
#include "pkt.h"

struct worker;

// ARP request to reply (RFC 826): the address that was asked for is at `mac`.
int respond_arp(struct rte_mbuf *, const uint8_t mac[6]);
// Neighbour solicitation to advertisement (RFC 4861 7.2.4): the target is at `mac`. What is wrong by RFC 4861 7.1.1 is -EINVAL. One without a source
// address, of duplicate address detection (RFC 4862), is answered to all nodes. `router`: the target is a router's.
int respond_neighbour(struct rte_mbuf *, const uint8_t mac[6], bool router);
// Echo request to reply, ICMP (RFC 1122 3.2.2.6) and ICMPv6 (RFC 4443 4.2). `src`: the address that answers; NULL: the one that was pinged, which is then no
// group's. Recorded routes go on being recorded, other options and extension headers stay away; what was routed by its source is not answered (RFC 7126), nor
// are fragments.
int respond_echo(struct rte_mbuf *, const uint8_t mac[6], const struct config_ip *src);

enum respond_error {
	RESPOND_ANSWER,           // no error: for respond_may()
	RESPOND_TTL,              // time exceeded in transit
	RESPOND_REASSEMBLY,       // time exceeded in reassembly; the packet is the first fragment
	RESPOND_NET_UNREACHABLE,  // no route
	RESPOND_HOST_UNREACHABLE, // no neighbour
	RESPOND_PROTO_UNREACHABLE,
	RESPOND_PORT_UNREACHABLE,
	RESPOND_PROHIBITED,
	RESPOND_BEYOND_SCOPE,     // a link-local source that would have to leave its link; IPv4 knows only that there is no route
	RESPOND_TOO_BIG,          // info: MTU of the next hop (RFC 1191: at least 68; RFC 8200: at least 1280)
	RESPOND_PARAMETER,        // info: bytes of layer 3 before the one that is wrong
	RESPOND_ERRORS
};

// ICMP or ICMPv6 error from `src`, of the packet's family. -EPERM where RFC 1812 4.3.2.7 or RFC 4443 2.4 forbid one. Quotes the packet as it would be on the
// wire, with a checksum that is whole and, of one that would be cut, as the first segment; up to 576 bytes in all (RFC 1812 4.3.2.3), 1280 of IPv6.
int respond_error(struct rte_mbuf *, enum respond_error, const uint8_t mac[6], const struct config_ip *src, uint32_t info);
// Whether respond_error() would do it. The packet may be shared.
bool respond_error_allowed(const struct rte_mbuf *, enum respond_error);
// Redirect: `target` is the better first hop (RFC 1122 3.2.2.2), or the destination itself (RFC 4861 4.5, where `src` is link-local). `target_mac`: of IPv6
// only; NULL: not known.
int respond_redirect(struct rte_mbuf *, const uint8_t mac[6], const struct config_ip *src, const struct config_ip *target, const uint8_t target_mac[6]);

// How an answer is counted, on the ledger of the packet's origin: it is generated, and the packet itself ends, dropped for `reason` because of `row`
// (worker_drop_for()), or, reason 0, consumed. Says so in its trace.
void respond_count(struct worker *, struct rte_mbuf *, uint16_t reason, uint32_t row);

// The limits, for each worker and ingress port: takes a token, if there is one; a dry worker doesn't. To be asked last, as what is asked counts.
bool respond_may(struct worker *, uint16_t port, enum respond_error);
// Main thread. Errors and answers a second; a tenth of them at once.
void respond_limits(uint32_t errors, uint32_t answers);
#define RESPOND_ERRORS_PPS 1000
#define RESPOND_ANSWERS_PPS 100000

#endif
