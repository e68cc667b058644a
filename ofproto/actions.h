// actions: what a rule does with the packets that match it, in the action syntax of ovs-ofctl(8) as far as it fits a switch whose packets belong to networks.
#ifndef OFPROTO_ACTIONS_H
#define OFPROTO_ACTIONS_H

#include "match.h"

#define ACTIONS_SETS 16
#define ACTIONS_COPIES 32

// The tag with which a packet leaves, where it isn't 0 (none) or a VLAN id.
enum {
	TAG_OF_PORT = -1,     // that of its network, as the egress port has it
	TAG_AS_RECEIVED = -2, // what it came with, untouched
};

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
	int16_t tag;
	uint8_t n_sets;
};

struct actions {
	enum actions_to to;        // what becomes of the packet itself
	char name[FIELD_NAME_MAX]; // of its port, ACTIONS_PORT
	uint16_t port;             // set by who knows the ports
	int16_t tag;
	uint8_t n_sets;            // of the packet itself
	uint8_t n_copies;
	struct rewrite *set;       // all sets, in the order of the list
	struct actions_copy *copy;
};

// `text`: separated by commas
//     drop                        nothing else but mirrors may stand beside it
//     output:PORT                 several: a copy for each
//     in_port, normal, flood      at most one of them
//     set_field:VALUE->FIELD      for what comes behind it; also mod_dl_src:, mod_dl_dst:, mod_nw_src:, mod_nw_dst:, mod_nw_tos:, mod_tp_src:, mod_tp_dst:
//     mod_vlan_vid:N, strip_vlan  the tag with which it leaves
//     mirror:PORT                 a copy as it was received, tag and all
// Sets alone, and mirrors alone, go on as if `normal` were written. `match` says which fields there are to be set. 0, or -EINVAL and *error (malloc'ed, one
// sentence that names the word which is wrong).
int actions_parse(const char *text, const struct match *, struct actions *, char **error);
void actions_free(struct actions *);

#endif
