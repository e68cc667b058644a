// flow_record: what is told of a flow, or of a part of its life, to who asked for flow records: IPFIX (ipfix.h), lines of JSON.
//
// Connections, when there are any, are told by the same record: their kind, their NAT addresses.
#ifndef OFPROTO_FLOW_RECORD_H
#define OFPROTO_FLOW_RECORD_H

#include "flow.h"

// What a record says beside what every record does. A field of the packet is there only if the flow's profile keeps flows with different values
// apart: a flow of plain layer 2 has no addresses of IP, not some that are 0.
#define RECORD_FIELDS(X)                                                                                               \
	X(OUT_PORT)                                                                                                    \
	X(DROP)                                                                                                        \
	X(VLAN)                                                                                                        \
	X(CVLAN)                                                                                                       \
	X(PROTO)                                                                                                       \
	X(ARP_OP)                                                                                                      \
	X(V4_SRC)                                                                                                      \
	X(V4_DST)                                                                                                      \
	X(V6_SRC)                                                                                                      \
	X(V6_DST)                                                                                                      \
	X(TP_SRC)                                                                                                      \
	X(TP_DST)                                                                                                      \
	X(ICMP4)                                                                                                       \
	X(ICMP6)                                                                                                       \
	X(TOS)                                                                                                         \
	X(NAT_V4_SRC)                                                                                                  \
	X(NAT_V4_DST)                                                                                                  \
	X(NAT_V6_SRC)                                                                                                  \
	X(NAT_V6_DST)                                                                                                  \
	X(NAT_TP_SRC)                                                                                                  \
	X(NAT_TP_DST)

enum {
#define X(name) RECORD_BIT_##name,
	RECORD_FIELDS(X)
#undef X
};
enum {
#define X(name) RECORD_##name = 1 << RECORD_BIT_##name,
	RECORD_FIELDS(X)
#undef X
};

enum record_kind {
	RECORD_FLOW,       // one direction
	RECORD_CONNECTION, // when there are connections
};

// What became of its packets; forwardingStatus of RFC 7270 is made from it.
enum record_verdict {
	RECORD_FORWARDED,
	RECORD_FLOODED,
	RECORD_DROPPED
};

// Where packets went that NAT has changed; network order.
struct record_nat {
	uint8_t src[16], dst[16]; // IPv4: the first four bytes
	uint16_t sport, dport;
};

struct flow_record {
	enum record_kind kind;
	enum record_verdict verdict;
	enum flow_end_why why;
	uint32_t fields;            // RECORD_*
	struct flow_key key;        // network order, as there
	uint64_t start_ms, end_ms;  // first and last packet, milliseconds since 1970
	uint64_t packets, bytes;    // in that time
	uint16_t out;               // egress port
	uint16_t drop;              // reason
	const char *in_name, *out_name, *network_name; // NULL: not known
	uint32_t row[FLOW_PROV];    // rows that decided
	uint8_t n_rows;
	uint32_t rule;              // the one that dropped it; 0: none did
	struct record_nat nat;
};

// All that follows from the flow itself; times, counters and names are the caller's.
void flow_record_fill(struct flow_record *, const struct flow_end *);
// "rule.DROP", or NULL.
const char *flow_record_reason(const struct flow_record *, char text[64]);
// One line of JSON, with its newline. The caller frees it.
char *flow_record_json(const struct flow_record *);

#endif
