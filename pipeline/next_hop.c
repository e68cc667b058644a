// next_hop: see next_hop.h.
#include "next_hop.h"
#include "fdb.h"
#include "neighbour_table.h"
#include "notice.h"
#include "route_table.h"
#include "router_table.h"
#include "topology.h"

#include <arpa/inet.h>
#include <string.h>

static bool usable[MAX_PORTS]; // ports of devices

static bool is_routers(uint16_t port, const struct config_ip *ip)
{
	const struct router_port *out = router_port_get(port), *rp = NULL;

	while (out && (rp = router_port_in(out->network, rp)))
		if (router_port_has(rp, ip->v6, ip->b))
			return true;
	return false;
}

static void set_dead(uint16_t port, const struct config_ip *ip, bool dead)
{
	char text[INET6_ADDRSTRLEN];

	if (!route_hop_dead(port, ip, dead))
		return;
	inet_ntop(ip->v6 ? AF_INET6 : AF_INET, ip->b, text, sizeof text);
	notice(dead ? 'w' : 'i', "neighbour",
	       (const struct log_field[]){{"ip", text}, {"router_port", lport_name(port)}, {NULL, NULL}},
	       dead ? "next hop %s of router port %s doesn't answer, and is left where there is another one"
		    : "next hop %s of router port %s is there again",
	       text, lport_name(port));
}

// Next hops that don't answer are left; they are back when they do. Nobody else's neighbours are looked for in the groups.
static void changed(uint16_t port, const struct config_ip *ip)
{
	uint8_t mac[6];
	uint16_t adj;

	if (!neighbour_is_watched(port, ip))
		return;
	if (neighbour_is_dead(port, ip->v6, ip->b))
		set_dead(port, ip, true);
	else if (is_routers(port, ip) || neighbour_find(NULL, port, ip->v6, ip->b, mac, &adj) > 0)
		set_dead(port, ip, false);
}

void router_link(uint16_t lport, bool up)
{
	for (uint32_t i = 0; i < neighbour_high(); i++) {
		struct neighbour_view v;
		struct fdb_entry e;

		if (!neighbour_at(i, &v) || !v.has_mac || !v.watched)
			continue;
		const struct router_port *rp = router_port_get(v.port);
		if (rp && fdb_lookup(fdb_key(rp->network, v.mac), &e) && e.port == lport)
			neighbour_doubt(v.port, &v.ip, !up);
	}
	if (up)
		neighbour_watch_hurry();
}

void next_hop_ports(const struct config *want)
{
	bool now[MAX_PORTS] = {false};

	for (size_t i = 0; i < want->n_ports; i++)
		if (want->ports[i].kind == PORT_DEVICE)
			now[want->ports[i].id] = want->ports[i].error ? usable[want->ports[i].id] : want->ports[i].enabled;
	for (uint16_t i = 1; i < MAX_PORTS; i++)
		if (now[i] != usable[i])
			router_link(i, now[i]);
	memcpy(usable, now, sizeof usable);
}

void next_hop_init(void)
{
	memset(usable, 0, sizeof usable);
	neighbour_changed = changed;
	route_hop_watch = neighbour_watch;
}
