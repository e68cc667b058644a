// tunnel_table: the tunnels as the main thread has them: end points, networks, and the way to each remote end point. Workers see what it publishes by
// ofproto/tunnel.h.
//
// Local end points are addresses of router ports (Host.tunnel_ips). The way to a remote one is what a packet of that router to it would take: its route, the next
// hop's neighbour entry, and the port of the underlay on which that address is known. It is looked up anew when anything that workers decide by has
// changed, and once a second, which also keeps the neighbour in use.
#ifndef PIPELINE_TUNNEL_TABLE_H
#define PIPELINE_TUNNEL_TABLE_H

#include "config.h"

// Why there is no way, or that there is one.
enum tunnel_state {
	TUNNEL_UP,
	TUNNEL_NO_END,      // no local end point of its family works
	TUNNEL_NO_ROUTE,    // the router has none that leads out of one of its ports
	TUNNEL_NO_NEIGHBOR, // the next hop's Ethernet address isn't known (yet)
	TUNNEL_DEAD,        // the next hop doesn't answer
	TUNNEL_NO_PORT,     // it isn't known on which port of the underlay the next hop is
};

// A tunnel.
struct tunnel_view {
	uint16_t port; // its logical port
	struct config_ip remote, local;
	char host[64]; // name of the switch there; "": not known
	enum tunnel_state state;
	bool has_hop;
	struct config_ip hop;
	uint8_t mac[6];    // of the next hop, valid from TUNNEL_NO_PORT on, and TUNNEL_UP
	uint16_t underlay; // network
	uint16_t out;      // port of the underlay
	uint16_t mtu;
};

// Before the topology is published: which ports are of the underlay, the MTU of tunnels.
int tunnel_table_prepare(struct config *);
int tunnel_table_reconcile(const struct config *);
// `now`: nanoseconds.
void tunnel_table_tick(uint64_t now);
void tunnel_table_fini(void);
// The tunnel of number *at or behind it, which is moved behind it. False: there is none.
bool tunnel_table_at(uint64_t *at, struct tunnel_view *);
// What vswitch/ sets: packets that came and went by a tunnel's port. NULL: not known.
extern void (*tunnel_counts)(uint16_t port, uint64_t *rx, uint64_t *tx);
const char *tunnel_state_text(enum tunnel_state);

#endif
