// ra: router advertisements as they are on the wire (RFC 4861 section 4.2; options of RFC 4861 4.6, RFC 8106).
#ifndef OFPROTO_RA_H
#define OFPROTO_RA_H

#include "config.h"

#define RA_PREFIXES 16
#define RA_SERVERS 8
#define RA_SEARCH 256      // bytes of encoded domains
#define RA_FRAME (14 + 1280) // of one advertisement at most: what every link takes

// What a router says of a network.
struct ra {
	uint8_t mac[6];
	uint8_t src[16];          // link-local
	uint8_t hop_limit;
	uint8_t flags;            // as in the message: RA_*
	uint16_t lifetime_s;
	uint32_t reachable_ms, retrans_ms;
	uint16_t mtu;             // 0: not said
	uint8_t n_prefixes, n_servers;
	uint8_t prefix_flags;     // as in the option: RA_PREFIX_*
	uint32_t valid_s, preferred_s, dns_s;
	struct config_prefix prefix[RA_PREFIXES];
	uint8_t server[RA_SERVERS][16];
	uint16_t search_len;
	uint8_t search[RA_SEARCH]; // names as in RFC 1035 section 3.1
};

#define RA_MANAGED 0x80
#define RA_OTHER 0x40
#define RA_HIGH 0x08 // RFC 4191 section 2.1
#define RA_LOW 0x18
#define RA_PREFIX_ON_LINK 0x80
#define RA_PREFIX_AUTONOMOUS 0x40 // of prefixes of 64 bits only

// Adds a domain to ra->search. 0; -EINVAL: it is no name; -ENOSPC: no room.
int ra_add_domain(struct ra *, const char *name);
// Writes the frame to a station, or with NULL to all nodes. Returns its length; 0: it would be larger than RA_FRAME.
unsigned ra_make(uint8_t frame[RA_FRAME], const struct ra *, const uint8_t to_mac[6], const uint8_t to_ip[16]);

#endif
