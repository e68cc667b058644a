// group_view: who gets packets for a multicast group, as workers look it up. The main thread publishes it from group_table.c.
//
// Generations: GEN_GROUP of group_generation(), one for a group and one for what is the network's.
#ifndef PIPELINE_GROUP_VIEW_H
#define PIPELINE_GROUP_VIEW_H

#include "config.h"
#include "rcu.h"
#include "sizes.h"

// Ids of targets.h; 0: nobody.
struct group_lists {
	uint16_t local;  // in the packet's network
	uint16_t routed; // the same, and in the other networks of its router; 0: as `local`
};

// A network with snooping.
struct group_network {
	uint8_t unregistered; // enum group_unregistered
	bool settled[2];      // somebody asks, and has been answered: IPv4, IPv6
	uint16_t router;      // that forwards between its networks, 0: none does
	uint16_t lport;       // its port in this network
	uint16_t routers[2];  // ports with multicast routers
	uint16_t reports[2];  // where reports go
	uint16_t up[2];       // unregistered groups: who gets them here, and upstream; 0: nobody upstream
};

extern struct group_network *group_networks[MAX_NETWORKS];

// Workers. NULL: no snooping.
static inline const struct group_network *group_network_get(uint16_t network)
{
	return rcu_read(group_networks[network & (MAX_NETWORKS - 1)]);
}

// False: nobody has asked for the group.
bool group_view_find(uint16_t network, const struct config_ip *group, const uint8_t source[16], struct group_lists *);
// Id for GEN_GROUP. group NULL: of the network.
uint64_t group_generation(uint16_t network, const struct config_ip *group);

#endif
