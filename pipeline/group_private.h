// group_private: the state of group_table.c, as group_view.c publishes and group_verbs.c shows it. Main thread.
#ifndef PIPELINE_GROUP_PRIVATE_H
#define PIPELINE_GROUP_PRIVATE_H

#include "group_table.h"
#include "group_view.h"
#include "sizes.h"

struct timer {
	uint64_t due;
	uint32_t at;  // place in the heap, 0: not in it
	bool network; // a network's; else a member's
};

struct source {
	uint8_t ip[16];
	uint64_t until;     // 0: of a member in EXCLUDE mode: not wanted from here
	uint8_t asked_left; // group-and-source-specific queries to be sent
};

// A port in a group.
struct member {
	struct timer timer;
	struct group *group;
	struct member *next;
	uint16_t port;
	bool exclude;             // filter mode
	uint8_t asked_left;       // group-specific queries to be sent
	uint32_t n_sources, room;
	uint64_t until;           // group timer, of EXCLUDE mode
	uint64_t old_until[3];    // [1], [2]: hosts with that version are there
	uint64_t ask_due;         // 0: no query is to be sent
	struct source *source;    // sorted by address
};

struct group {
	uint16_t network;
	bool dirty;
	uint32_t slot;            // its place in group_slot[]
	struct config_ip ip;
	struct member *members;   // by port
	struct group *next;       // of its bucket
	struct group *dirty_next;
};

struct router_port {
	uint16_t port;
	uint8_t why;              // ROUTER_*
	uint64_t until[5];        // by bit of `why`; static: not used
	struct config_ip ip;      // who asked or said hello last
};

// A port of a network, and what is known of who is behind a tunnel: IPv4, IPv6.
struct snoop_port {
	struct group_port is;
	bool same_router[2];   // a switch with the router that this one has there, which routes for its own ports
	uint64_t old_until[2]; // somebody there asks by an old version
};

struct port_use {
	uint32_t groups;
	uint64_t refused;
};

struct asker {
	struct config_ip ip;      // of the other querier
	uint16_t port;
	uint64_t until;           // 0: there is none
	uint64_t old_until[3];    // [1], [2]: a querier of that version is there (RFC 3376 section 7.2.1)
	uint64_t general_due;     // own general query
	uint64_t settled_at;      // when memberships will be known
	uint8_t startup_left;
	bool settled;             // they are
	uint8_t robustness;       // of whoever is querier
	uint32_t interval_s;
	unsigned n_routers, room;
	struct router_port *router;
};

// A network with snooping.
struct snoop {
	struct timer timer;
	uint16_t network;
	uint32_t n_groups;
	struct group_policy policy;
	struct asker asker[2];    // IGMP, MLD
	struct group_counters count;
	unsigned n_ports, n_tunnels;
	struct snoop_port *port;
	struct port_use *use[MAX_PORTS / 64];
	struct snoop *router_next; // of the networks of its router
};

extern struct snoop *group_snoop[MAX_NETWORKS];
extern struct group **group_slot; // [group_slots], NULL: free
extern uint32_t group_slots;
extern uint64_t group_now; // of the last call

struct group *group_find(uint16_t network, const struct config_ip *);
bool group_wants(const struct member *, const uint8_t *source); // source NULL: of one that the member says nothing of
bool group_is_querier(const struct snoop *, bool v6);
bool group_may_ask(const struct snoop *, bool v6, uint16_t port); // when somebody there has left
struct snoop *group_first_of(uint16_t router); // the networks of a router, linked by router_next
struct snoop_port *group_port(const struct snoop *, uint16_t port); // NULL: it is none of the network's
bool group_is_tunnel(const struct snoop *, uint16_t port);
// Networks that know a group together (group_domain()), one after the other.
struct snoop *group_first_in(uint16_t domain, const struct config_ip *group);
static inline struct snoop *group_next_in(uint16_t domain, const struct snoop *s)
{
	return domain & GROUP_OF_ROUTER ? s->router_next : NULL;
}

// group_view.c: called when something changed.
void group_view_group(const struct snoop *, const struct config_ip *);
void group_view_network(const struct snoop *); // who its routers are, whether memberships are known
void group_view_domain(uint16_t domain);           // all groups of a domain of group_view.h, after networks joined or left it
void group_view_remove(uint16_t network);
void group_view_fini(void);

#endif
