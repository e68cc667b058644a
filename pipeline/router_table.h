// router_table: router ports as workers and the main thread see them: which router, which network, which addresses.
//
// Published for workers, who may keep what they got until their next quiescent point; a decision that used one depends on GEN_PORT of its id. Main thread writes.
#ifndef PIPELINE_ROUTER_TABLE_H
#define PIPELINE_ROUTER_TABLE_H

#include "config.h"
#include "rcu.h"
#include "sizes.h"

struct router_port {
	uint16_t id;      // of its logical port
	uint16_t router;
	uint16_t network;
	uint16_t next;    // next router port of the network, by id; 0: none
	uint8_t mac[6];
	bool ports;       // a route of its router has several next hops: they are chosen by transport ports too
	bool redirects;   // tells stations of better next hops in their own network
	bool reassembles; // fragments that are for the router itself
	bool policy;      // a policy rule of its router looks at more than the destination
	uint16_t n_addresses;
	uint32_t row;
	uint32_t router_row;
	struct config_prefix address[];
};

extern struct router_port *router_ports[MAX_PORTS];
extern uint16_t router_first[MAX_NETWORKS]; // first router port of the network, 0: none

// NULL: the port is no router port.
static inline const struct router_port *router_port_get(uint16_t lport)
{
	return rcu_read(router_ports[lport & (MAX_PORTS - 1)]);
}

// Router ports of a network, one after the other: the one behind `after`; NULL: the first one. NULL: there is none.
const struct router_port *router_port_in(uint16_t network, const struct router_port *after);
// The router port of the network with this MAC, or NULL.
const struct router_port *router_port_with(uint16_t network, const uint8_t mac[6]);
// The address that the port speaks with to a station: the one whose prefix `near` is in, else the first one; a link-local address to link-local ones. NULL: it has none
// of the family.
const struct config_prefix *router_port_address(const struct router_port *, bool v6, const uint8_t *near);
bool router_port_has(const struct router_port *, bool v6, const uint8_t *ip);
// In whose prefix the address is, NULL: none.
const struct config_prefix *router_port_prefix(const struct router_port *, bool v6, const uint8_t *ip);

static inline bool ip_is_link_local(bool v6, const uint8_t *ip) // RFC 3927, RFC 4291 section 2.5.6
{
	return v6 ? ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80 : ip[0] == 169 && ip[1] == 254;
}
// Whether the first `len` bits are the same.
bool ip_in_prefix(const uint8_t *ip, const uint8_t *prefix, unsigned len);

// Before the topology is published: gives router ports the ids of their logical ports, and errors to those that can't be.
int router_table_prepare(struct config *);
// Whether a network has router ports in the config that was prepared last, and what their routers read beyond addresses.
unsigned router_table_wants(const struct config_network *);
#define ROUTER_WANTS_ADDRESSES 0x1
#define ROUTER_WANTS_PORTS 0x2
#define ROUTER_WANTS_POLICY 0x4
// Routes came, by other ways than the database, that read more than the profiles of their networks have: the config is to be applied once more.
bool router_table_stale(void);
// Publishes router ports, and their prefixes as connected routes.
int router_table_reconcile(struct config *);
void router_table_fini(void);
// Main thread: the link of a device's port went down, or is up again. Next hops behind it are left at once, before their neighbours are found not to answer.
void router_link(uint16_t lport, bool up);
bool router_any(void); // whether there is any router port

#endif
