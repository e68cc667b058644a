// change: what a step of the packet path made of a packet: the fields of its headers that have other values than before. For
// traces.
#ifndef OFPROTO_CHANGE_H
#define OFPROTO_CHANGE_H

#include "buf.h"
#include "trace.h"

#define CHANGE_FIELDS(X)                                                                                                       \
	X(DL_DST, "dl_dst")                                                                                                    \
	X(DL_SRC, "dl_src")                                                                                                    \
	X(TAGS, "dl_vlan")                                                                                                     \
	X(NW_SRC, "nw_src")                                                                                                    \
	X(NW_DST, "nw_dst")                                                                                                    \
	X(IPV6_SRC, "ipv6_src")                                                                                                \
	X(IPV6_DST, "ipv6_dst")                                                                                                \
	X(NW_TOS, "nw_tos")                                                                                                    \
	X(NW_TTL, "nw_ttl")                                                                                                    \
	X(TP_SRC, "tp_src")                                                                                                    \
	X(TP_DST, "tp_dst")

enum change_field {
#define X(id, name) CHANGE_##id,
	CHANGE_FIELDS(X)
#undef X
	CHANGE_FIELD_N
};

// The fields of a packet, as they are in its bytes; what it doesn't have is all zero.
struct change_headers {
	uint32_t has; // bit i: it has field i
	uint8_t value[CHANGE_FIELD_N][16];
};

// `m`: parsed; what lies beyond its first buffer counts as not there.
void change_look(struct rte_mbuf *m, struct change_headers *);
// Adds a record of what is different now, if anything is.
void change_trace(struct trace *, const struct change_headers *before, struct rte_mbuf *now);
// "dl_dst 52:54:00:00:00:02 -> 52:54:00:00:00:03, tp_dst 53 -> 5353".
void change_format(struct buf *, const void *record, uint16_t size);

#endif
