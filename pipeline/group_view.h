// group_view: who gets packets for a multicast group, as workers look it up. The main thread publishes it from group_table.c.
//
// Generations: GEN_GROUP of group_generation(), one for a group and one for what is the network's.
#ifndef PIPELINE_GROUP_VIEW_H
#define PIPELINE_GROUP_VIEW_H

#include "config.h"
#include "rcu.h"
#include "sizes.h"

// A network with snooping.
struct group_network {
	uint8_t unregistered; // enum group_unregistered
	bool settled[2];      // somebody asks, and has been answered: IPv4, IPv6
	bool asks;            // the switch asks its own ports, so queries out of tunnels are for itself alone
	uint16_t router;      // that forwards between its networks, 0: none does
	uint16_t lport;       // its port in this network
	uint16_t routers[2];  // ports with multicast routers
	uint16_t reports[2];  // where reports go
	uint64_t guarded[MAX_PORTS / 64]; // ports where no multicast router may be
	uint16_t up[2];       // unregistered groups: who gets them here, and upstream; 0: nobody upstream
};

extern struct group_network *group_networks[MAX_NETWORKS];

// Workers. NULL: no snooping.
static inline const struct group_network *group_network_get(uint16_t network)
{
	return rcu_read(group_networks[network & (MAX_NETWORKS - 1)]);
}

// Networks between which a router forwards know groups together: one list of targets serves all of them. Groups that stay on their link are a network's own.
#define GROUP_OF_ROUTER 0x8000
uint16_t group_domain(uint16_t network, uint16_t router, const struct config_ip *group);

// False: nobody has asked for the group. *list: an id of targets.h, 0: nobody.
bool group_view_find(uint16_t domain, const struct config_ip *group, const uint8_t source[16], uint16_t *list);
// Id for GEN_GROUP: of a group in a domain, or, group NULL, of what is a network's.
uint64_t group_generation(uint16_t domain, const struct config_ip *group);

#endif
