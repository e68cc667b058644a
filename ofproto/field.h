// field: the fields of match syntax (ovs-fields(7)): their names, how their values are written, and what a packet must be to have them. One table for
// all who read the syntax: compose() makes a packet of it, match_parse() a rule, and set_field names fields of it.
#ifndef OFPROTO_FIELD_H
#define OFPROTO_FIELD_H

#include <stdbool.h>
#include <stdint.h>

// What a packet is.
enum {
	IS_IPV4 = 1 << 0,
	IS_IPV6 = 1 << 1,
	IS_ARP = 1 << 2,
	IS_TCP = 1 << 3,
	IS_UDP = 1 << 4,
	IS_SCTP = 1 << 5,
	IS_ICMP = 1 << 6,
	IS_ICMPV6 = 1 << 7,
	IS_IP = IS_IPV4 | IS_IPV6,
	IS_ANY = ~0,
};

enum {
	FIELD_ETH_LLC = 0x05ff, // match syntax: a frame of IEEE 802.2, whose type field is a length
	FIELD_ETH_IPV4 = 0x0800,
	FIELD_ETH_ARP = 0x0806,
	FIELD_ETH_VLAN = 0x8100,
	FIELD_ETH_IPV6 = 0x86dd,
	FIELD_ETH_QINQ = 0x88a8,
	FIELD_IP_ICMP = 1,
	FIELD_IP_TCP = 6,
	FIELD_IP_UDP = 17,
	FIELD_IP_ICMPV6 = 58,
	FIELD_IP_SCTP = 132,
};

enum field_kind {
	FIELD_NUMBER,
	FIELD_DSCP,  // a number whose value is that of the byte it is in: four times as large
	FIELD_MAC,
	FIELD_IPV4,
	FIELD_IPV6,
	FIELD_FLAGS, // of TCP
	FIELD_FRAG,  // enum field_frag
	FIELD_CLASS, // enum traffic_class
	FIELD_NAME,  // of a port
};

enum field_frag {
	FRAG_NO,
	FRAG_FIRST,
	FRAG_LATER,
};

// What is set or compared. Names that mean the same have the same id.
enum field_id {
	IN_PORT,
	DL_SRC,
	DL_DST,
	DL_TYPE,
	DL_VLAN,
	DL_VLAN_PCP,
	VLAN_TCI,
	NW_SRC,
	NW_DST,
	IPV6_SRC,
	IPV6_DST,
	NW_PROTO,
	NW_TTL,
	NW_TOS,
	NW_FRAG,
	TP_SRC, // ICMP: type
	TP_DST, // ICMP: code
	TCP_FLAGS,
	ARP_SHA,
	ARP_THA,
	ND_TARGET,
	ND_SLL,
	ND_TLL,
	PACKET_LEN,
	CLASS,
	PKT_MARK, // of the decision, none of a packet's own: mark.h
	FIELD_ID_N
};

// What a field may be used for.
enum {
	FOR_PACKET = 1 << 0, // to make a packet
	FOR_MATCH = 1 << 1,  // in the match of a rule
	FOR_MASK = 1 << 2,   // there with a mask, value/mask
	FOR_SET = 1 << 3,    // in the action set_field
};

#define FIELD_NAME_MAX 64

struct field {
	const char *name;
	enum field_id id;
	enum field_kind kind;
	uint32_t lo, hi;
	unsigned of;       // what the packet must be, one of these
	const char *lacks; // what it isn't, if it is none of them: "ip or arp"
	unsigned uses;
};

union field_value {
	uint32_t n;
	uint8_t b[16]; // an address, network order
};

// A field that is set, and to what.
struct rewrite {
	enum field_id field; // one with FOR_SET
	union field_value value;
};

// Fields as they were given.
struct field_set {
	union field_value value[FIELD_ID_N], mask[FIELD_ID_N]; // mask: all ones unless one was given
	const struct field *given[FIELD_ID_N];                 // the name it was given by, NULL: left out
	char in_port[FIELD_NAME_MAX];
};

// NULL: there is none. Names are known in any case.
const struct field *field_find(const char *name);
// Reads a value. All of these: 0, or -EINVAL with *error set to one sentence (malloc'ed) that names the word which is wrong.
int field_read(const struct field *, const char *text, union field_value *, char **error);
// Reads words separated by commas and spaces: field=value, with FOR_MATCH also field=value/mask, and protocol words (ip, ipv6, arp, tcp, udp, sctp, icmp, tcp6,
// udp6, sctp6, icmp6). `use`: FOR_PACKET or FOR_MATCH. Returns how many words there were.
int field_set_read(struct field_set *, const char *text, unsigned use, char **error);
// What a packet with these fields is.
unsigned field_set_is(const struct field_set *);
// Whether each field is one of such a packet.
int field_set_check(const struct field_set *, unsigned is, char **error);
// Gives the field a value, if it has none yet: as if the text had named it.
void field_set_default(struct field_set *, enum field_id, const union field_value *);
__attribute__((format(printf, 2, 3))) int field_refuse(char **error, const char *fmt, ...);

#endif
