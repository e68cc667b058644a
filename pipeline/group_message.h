// group_message: IGMP (RFC 1112, 2236, 3376) and MLD (RFC 2710, 3810) read into one form, and written.
//
// Versions are IGMP's: MLDv1 counts as 2, MLDv2 as 3.
#ifndef PIPELINE_GROUP_MESSAGE_H
#define PIPELINE_GROUP_MESSAGE_H

#include "config.h"

#include <stdbool.h>
#include <stdint.h>

#define GROUP_MESSAGE_MAX 9216 // bytes of IP; what is longer is taken for malformed

enum group_message_kind {
	GROUP_REPORT, // and leaves
	GROUP_QUERY,
	GROUP_HELLO,  // of a PIM router (RFC 7761 section 4.9.2), or of any (RFC 4286)
	GROUP_OTHER,  // nothing that anybody here knows
};

// RFC 3376 section 4.2.12, RFC 3810 section 5.2.12
enum group_record_type {
	GROUP_IS_IN = 1,
	GROUP_IS_EX,
	GROUP_TO_IN,
	GROUP_TO_EX,
	GROUP_ALLOW,
	GROUP_BLOCK,
};

struct group_record {
	enum group_record_type type;
	struct config_ip group;
	uint16_t n_sources;
	const uint8_t *source; // addresses of 4 or 16 bytes each
};

struct group_message {
	enum group_message_kind kind;
	bool v6;
	uint8_t version;
	struct config_ip src;
	// of a query
	struct config_ip group;   // zero: a general query
	uint32_t response_ms;
	uint32_t interval_s;      // 0: not said
	uint8_t robustness;       // 0: not said
	bool suppress;            // routers leave their timers as they are
	uint16_t n_sources;
	const uint8_t *source;
	// of a hello
	bool pim;
	uint32_t hold_s;          // UINT32_MAX: for ever, 0: it says goodbye
	// of a report: what group_next_record() still has to read
	struct group_record first; // of a report of old versions, the only one
	uint16_t n_records;
	const uint8_t *at, *end;
};

// Reads an IP packet whose IGMP, ICMPv6 or PIM message begins `l4_ofs` bytes from its start. It is checked whole: checksums, lengths, what source and hop
// limit have to be. 0, or -EBADMSG. What is read points into the packet.
int group_message_read(struct group_message *, const uint8_t *ip, uint32_t len, bool v6, uint32_t l4_ofs);
bool group_next_record(struct group_message *, struct group_record *);

// Frames. `frame` has room for GROUP_FRAME_MAX bytes; returns the length.
#define GROUP_FRAME_MAX 1514
#define GROUP_SOURCES_MAX(v6) ((v6) ? 80 : 320) // sources that go into one message
struct group_query {
	uint8_t mac[6];          // from this address
	struct config_ip src, group; // group zero: a general query
	uint8_t version, robustness;
	bool suppress;
	uint32_t response_ms, interval_s;
	uint16_t n_sources;
	const uint8_t *source;
};
uint32_t group_write_query(uint8_t *frame, const struct group_query *);
// A report of one record. Version 1 and 2 have no records: TO_IN is a leave there, all else a report.
uint32_t group_write_report(uint8_t *frame, const uint8_t mac[6], const struct config_ip *src, uint8_t version, const struct group_record *);

static inline uint32_t group_address_len(bool v6)
{
	return v6 ? 16 : 4;
}

bool group_ip_is_group(const struct config_ip *);
bool group_ip_is_zero(const struct config_ip *);
// A group that never leaves its link: nobody asks for those of IPv4 (RFC 4541 section 2.1.2), and no router forwards either.
bool group_ip_is_link(const struct config_ip *);
// Its Ethernet address (RFC 1112 section 6.4, RFC 2464 section 7).
void group_mac(const struct config_ip *group, uint8_t mac[6]);

#endif
