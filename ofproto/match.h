// match: which packets a rule is for, in match syntax (ovs-fields(7)) as far as flows keep packets apart.
#ifndef OFPROTO_MATCH_H
#define OFPROTO_MATCH_H

#include "field.h"
#include "key.h"

struct match {
	struct flow_key value, mask; // value has no bit outside of mask
	uint32_t fields;             // KEY_BIT()s of what the mask looks at
	unsigned is;                 // what a packet that matches is: IS_*
	char in_port[FIELD_NAME_MAX]; // name of the ingress port, "": any. Who knows the ports calls match_in_port().
};

// `text`: fields and protocol words separated by commas (field.h), or nothing, "any" or "all" for every packet. Addresses and ports take masks:
// dl_dst=01:00:00:00:00:00/01:00:00:00:00:00, nw_src=10.0.0.0/8 or /255.0.0.0, ipv6_dst=2001:db8::/32, tp_dst=0x1000/0xf000;
// vlan_tci=0x1000/0x1000: any tag. 0, or -EINVAL and *error (malloc'ed, one sentence that names the word which is wrong).
int match_parse(const char *text, struct match *, char **error);
void match_in_port(struct match *, uint16_t port);
// Whether they are for the same packets.
bool match_equal(const struct match *, const struct match *);

#endif
