// vlan: what happens to the outer tag between two ports (IEEE 802.1Q).
#ifndef OFPROTO_VLAN_H
#define OFPROTO_VLAN_H

#include "actions.h"
#include "pkt.h"
#include "topology.h"

struct vlan_change {
	uint8_t op;    // enum vlan_op
	uint16_t tci;  // of push and set: see vlan_tci in pkt.h
	uint16_t qinq; // ethertype of a tag that is pushed; of one that is set 0: as it is
};

// `tagged`: the frame came in with an outer tag. `tag`: TAG_OF_PORT, or what a rule says in its place.
static inline struct vlan_change vlan_between(const struct lport *in, const struct lport *out, const struct network *net, bool tagged, int tag)
{
	struct vlan_change c = {.op = VLAN_OP_NONE};

	if (tag == TAG_AS_RECEIVED)
		return c;
	bool consumed = tagged && in->mode != VLAN_DOT1Q_TUNNEL && in->mode != VLAN_NETWORK_ID; // else the tag is the customer's, and payload
	int bits = tag > 0 ? tag : 0;
	uint16_t want = tag_asks_port(tag) ? lport_tag(out, net) : (uint16_t)(bits & 0xfff);
	bool has = want || (bits & TAG_GIVEN);
	c.tci = (uint16_t)(want | (bits & 0xf000));
	if (consumed && !(bits & TAG_PUSHED))
		c.op = has ? VLAN_OP_SET : VLAN_OP_POP;
	else if (has)
		c.op = VLAN_OP_PUSH;
	if (bits & (TAG_PUSHED | TAG_REPLACES))
		c.qinq = bits & TAG_8021AD ? 0x88a8 : 0x8100;
	else if (c.op == VLAN_OP_PUSH)
		c.qinq = tagged ? in->qinq : 0x8100;
	return c;
}

// What is to be done to a packet, as a tag that does the same to a copy of it.
static inline int vlan_as_tag(const struct pkt *p)
{
	int type = p->qinq == 0x88a8 ? TAG_8021AD : 0;

	switch ((enum vlan_op)p->vlan_op) {
	case VLAN_OP_PUSH:
		return TAG_GIVEN | TAG_PUSHED | type | p->vlan_tci;
	case VLAN_OP_SET:
		return TAG_GIVEN | (p->qinq ? TAG_REPLACES | type : 0) | p->vlan_tci;
	case VLAN_OP_POP:
		return 0;
	default:
		return TAG_AS_RECEIVED;
	}
}

#endif
