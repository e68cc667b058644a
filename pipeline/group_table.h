// group_table: which ports of a network want which multicast groups from which sources, and where multicast routers are.
//
// A port is to its network what an interface is to a router: for each group it has a filter mode, source lists and timers as RFC 3376 section 6 and RFC 3810
// section 7 say, IGMP and MLD alike, with the compatibility modes of RFC 3376 section 7.3.2 and RFC 3810 section 8.3.2. The switch is a querier (RFC 3376
// section 6.6.2, RFC 3810 section 7.6.2) or keeps quiet for another one, and then goes by what that one asks.
//
// Main thread, all of it. What workers read is in group_view.h. `now`: nanoseconds.
#ifndef PIPELINE_GROUP_TABLE_H
#define PIPELINE_GROUP_TABLE_H

#include "group_message.h"

#define GROUP_STATIC_ROUTERS 32

enum group_unregistered { // what becomes of packets for groups that nobody asked for
	GROUP_FLOOD,
	GROUP_DROP,
	GROUP_ROUTERS, // to ports with multicast routers only
};

struct group_policy {
	bool querier;      // the switch asks, if nobody with a better claim does
	bool fast_leave;   // one host at each port: who leaves is gone at once
	uint8_t unregistered;
	uint8_t robustness;
	uint8_t version[2]; // of own queries: IGMP, MLD (as IGMP's)
	uint32_t interval_s, response_ms, last_member_ms;
	uint32_t max_groups, max_port_groups, max_sources; // max_sources: of one port in one group
	uint16_t n_routers;
	uint16_t router_port[GROUP_STATIC_ROUTERS];
	struct config_ip own[2]; // source of own queries: IPv4, IPv6; they decide the election
	uint8_t mac[6];
	// Forwarding between the networks of a router: 0: none. `lport`: its port here.
	uint16_t router, lport;
	bool upstream;           // the router's memberships are asked for here (RFC 4605)
};

// A port of a network.
struct group_port {
	uint16_t port;
	bool tunnel;
	bool guarded; // no multicast router is there, whatever is said
	bool router;  // one is there, whatever is said
	bool speaks;  // a tunnel to another switch of the database, which speaks for all stations there (group_proxy.h)
};

// Why reports, or reports and packets, are sent to a port.
#define ROUTER_STATIC 0x1
#define ROUTER_QUERY 0x2 // a querier with an address
#define ROUTER_HELLO 0x4 // PIM
#define ROUTER_PROXY 0x8 // a querier without one, which is a switch (RFC 4541 section 2.1.1): it gets reports only
#define ROUTER_ANNOUNCED 0x10 // RFC 4286

struct group_counters {
	uint64_t reports, leaves, queries, hellos, sent_queries;
	uint64_t refused_groups;  // the network's limit
	uint64_t refused_port;    // a port's
	uint64_t refused_sources; // too many sources of one port in one group: it gets packets of all sources
};

// Of a network with snooping, else NULL.
const struct group_counters *group_counters(uint16_t network);
int group_table_init(void);
void group_table_fini(void);

// What the network wants; NULL: no snooping. `port`: its ports, in order.
int group_configure(uint16_t network, const struct group_policy *, const struct group_port *port, unsigned n_ports, uint64_t now);
// A valid message that came in on a port of the network.
void group_heard(uint16_t network, uint16_t port, const struct group_message *, uint64_t now);
void group_tick(uint64_t now);

// How queries leave. `port`: to one of the network's ports; 0: to all.
extern void (*group_send)(uint16_t network, uint16_t port, const struct group_query *);

#endif
