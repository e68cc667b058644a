// vlan: what happens to the outer tag between two ports (IEEE 802.1Q).
#ifndef OFPROTO_VLAN_H
#define OFPROTO_VLAN_H

#include "actions.h"
#include "pkt.h"
#include "topology.h"

struct vlan_change {
	uint8_t op;    // enum vlan_op
	uint16_t vid;  // of push and set; priority and DEI are the packet's
	uint16_t qinq; // ethertype of a tag that is pushed
};

// `tagged`: the frame came in with an outer tag. `tag`: TAG_OF_PORT, or what a rule says in its place.
static inline struct vlan_change vlan_between(const struct lport *in, const struct lport *out, const struct network *net, bool tagged, int tag)
{
	bool consumed = tagged && in->mode != VLAN_DOT1Q_TUNNEL; // else the tag is the customer's, and payload
	uint16_t want = tag == TAG_OF_PORT ? lport_tag(out, net) : (uint16_t)tag;
	struct vlan_change c = {.op = VLAN_OP_NONE, .vid = want, .qinq = 0x8100};

	if (tag == TAG_AS_RECEIVED)
		return c;
	if (in->mode == VLAN_DOT1Q_TUNNEL && tagged)
		c.qinq = in->qinq;
	if (consumed && want)
		c.op = VLAN_OP_SET;
	else if (consumed)
		c.op = VLAN_OP_POP;
	else if (want)
		c.op = VLAN_OP_PUSH;
	return c;
}

#endif
