// actions: what a rule does with the packets that match it, in the action syntax of ovs-ofctl(8) as far as it fits a switch whose packets belong to networks.
#ifndef OFPROTO_ACTIONS_H
#define OFPROTO_ACTIONS_H

#include "mark.h"
#include "match.h"

#define ACTIONS_SETS 16
#define ACTIONS_COPIES 32

// The tag with which a packet leaves: 0 (none), a VLAN id with what is behind the first two, or one of these.
enum {
	TAG_OF_PORT = -1,        // that of its network, as the egress port has it
	TAG_AS_RECEIVED = -2,    // what it came with, untouched
	TAG_PCP = 0x1000,        // the priority is in bits 13 to 15; without this bit it is that of the tag that the packet came with
	TAG_GIVEN = 0x10000,     // there is a tag, even if its VLAN id is 0
	TAG_PUSHED = 0x20000,    // in front of all tags that the packet came with
	TAG_REPLACES = 0x40000,  // in the place of the one that it came with, Ethertype and all
	TAG_8021AD = 0x80000,    // of the last two: the Ethertype is 0x88a8, else 0x8100
	TAG_PORT_VID = 0x100000, // with TAG_PCP: the VLAN id is that of TAG_OF_PORT, and there is none where that has none
};
#define TAG_PCP_SHIFT 13

static inline bool tag_asks_port(int tag)
{
	return tag == TAG_OF_PORT || (tag > 0 && (tag & TAG_PORT_VID));
}

enum actions_to {
	ACTIONS_NORMAL,  // where the FDB says
	ACTIONS_DROP,
	ACTIONS_PORT,
	ACTIONS_IN_PORT, // back to where it came from
	ACTIONS_FLOOD,   // to every other port of the network
};

// One copy for a further port, with the sets that come before it in the list.
struct actions_copy {
	char name[FIELD_NAME_MAX]; // of the port
	uint16_t port;             // its id; set by who knows the ports
	int32_t tag;
	uint8_t n_sets;
};

struct actions {
	enum actions_to to;        // what becomes of the packet itself
	char name[FIELD_NAME_MAX]; // of its port, ACTIONS_PORT
	uint16_t port;             // set by who knows the ports
	int32_t tag;
	uint8_t n_sets;            // of the packet itself
	uint8_t n_copies;
	char class[FIELD_NAME_MAX]; // name of the class of traffic that the packet itself is in; "": none
	struct pkt_mark mark;      // of the packet itself; mask 0: stays as it is
	struct rewrite *set;       // all sets, in the order of the list
	struct actions_copy *copy;
};

// `text`: separated by commas
//     drop                        nothing else but mirrors may stand beside it
//     output:PORT                 several: a copy for each
//     in_port, normal, flood      at most one of them
//     set_field:VALUE->FIELD      for what comes behind it; also mod_dl_src:, mod_dl_dst:, mod_nw_src:, mod_nw_dst:, mod_nw_tos:, mod_tp_src:, mod_tp_dst:
//     mod_vlan_vid:N, strip_vlan  the tag with which it leaves; set_field:N->vlan_vid is the first
//     mod_vlan_pcp:N              its priority; set_field:N->vlan_pcp is the same
//     push_vlan:ETHERTYPE         one more tag, 0 and of priority 0 until the words above say otherwise
//     set_field:M->pkt_mark       its mark, M or M/MASK: of the packet itself, copies have none
//     class:NAME                  its class of traffic: of the packet itself, unless it is dropped
//     mirror:PORT                 a copy as it was received, tag and all
// Sets alone, and mirrors alone, go on as if `normal` were written. `match` says which fields there are to be set. 0, or -EINVAL and *error (malloc'ed, one
// sentence that names the word which is wrong).
int actions_parse(const char *text, const struct match *, struct actions *, char **error);
void actions_free(struct actions *);

#endif
