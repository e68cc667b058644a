// compose: a packet from its description, for explain and for tests.
#ifndef OFPROTO_COMPOSE_H
#define OFPROTO_COMPOSE_H

#include "field.h"

#include <stddef.h>
#include <stdint.h>

#define COMPOSE_MAX 65600      // bytes of a frame at most, in hexadecimal digits
#define COMPOSE_LEN_MAX 9216   // ... by packet_len=

// What the caller knows for fields that the description leaves out.
struct compose_defaults {
	uint8_t dl_src[6];
	uint8_t dl_dst[6];
	// If not NULL: may set fields that were not given (field_set_default()) before those of RFCs and the above are. `is`: what the packet is.
	void (*fill)(void *arg, struct field_set *, unsigned is);
	void *arg;
};

// `text`: match syntax of ovs-fields(7) as far as a packet can be made of it, fields separated by commas: protocol words (ip, ipv6, arp, tcp, udp, sctp,
// icmp, tcp6, udp6, sctp6, icmp6) and field=value (dl_src, dl_dst, dl_type, dl_vlan, dl_vlan_pcp, nw_src, nw_dst, ipv6_src, ipv6_dst, nw_proto, nw_ttl, nw_tos,
// nw_frag=no|first|later, tp_src, tp_dst, tcp_src, tcp_dst, udp_src, udp_dst, tcp_flags=syn|ack|..., icmp_type, icmp_code, icmpv6_type, icmpv6_code,
// arp_op, arp_spa, arp_tpa, arp_sha, arp_tha, nd_target, nd_sll, nd_tll) and packet_len=bytes of the frame; or the frame itself as hexadecimal digits (spaces and colons are skipped).
// Checksums and lengths are right. Returns the length and writes the frame, or -EINVAL and *error (malloc'ed, one sentence that names the
// word that is wrong).
int compose(const char *text, const struct compose_defaults *, uint8_t frame[COMPOSE_MAX], char **error);

#endif
