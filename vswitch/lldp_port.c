// lldp_port: see lldp_port.h.
#include "lldp_port.h"
#include "bond.h"
#include "clock.h"
#include "control.h"
#include "link.h"
#include "listing.h"
#include "lldp.h"
#include "port.h"
#include "punt.h"
#include "verbs.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RX 1u
#define TX 2u

struct talker {
	unsigned mode;
	char description[128];
	struct lldp lldp;
};

static struct talker *talkers[MAX_PORTS];
static char host_name[256];
static struct lldp_local local = {.system_name = host_name, .system_description = "Weir " WEIR_VERSION, .ttl = LLDP_TTL};
static bool news;

static unsigned mode_of(const char *text)
{
	return !strcmp(text, "both") ? RX | TX : !strcmp(text, "rx") ? RX : !strcmp(text, "tx") ? TX : 0;
}

// ---- what is said

static void speak(uint16_t port, uint16_t ttl)
{
	struct port *p = port_get(port);
	uint8_t frame[LLDP_FRAME_MAX], *data;
	struct lldp_local l = local;

	l.port = p->name;
	l.description = talkers[port]->description;
	l.ttl = ttl;
	bond_mac(p->name, l.mac);
	size_t n = lldp_encode(&l, frame);
	struct rte_mbuf *m = punt_new((uint16_t)n, &data);
	if (!m)
		return; // it is said again
	memcpy(data, frame, n);
	punt_emit(m, port);
}

static bool is_up(const struct port *p)
{
	return p && p->device && p->device->ops->link && p->device->ops->link(p->device->dev) > 0;
}

// An address of the host by which it can be managed, if it isn't said which.
static void own_address(void)
{
	struct ifaddrs *all = NULL;

	local.has_address = false;
	if (getifaddrs(&all))
		return;
	for (const struct ifaddrs *a = all; a; a = a->ifa_next) {
		if (!a->ifa_addr || (a->ifa_flags & IFF_LOOPBACK) || !(a->ifa_flags & IFF_UP))
			continue;
		if (a->ifa_addr->sa_family == AF_INET) {
			memcpy(local.address, &((const struct sockaddr_in *)(const void *)a->ifa_addr)->sin_addr, 4);
			local.has_address = true;
			local.v6 = false;
			break;
		}
		const struct in6_addr *v6 = &((const struct sockaddr_in6 *)(const void *)a->ifa_addr)->sin6_addr;
		if (a->ifa_addr->sa_family == AF_INET6 && !IN6_IS_ADDR_LINKLOCAL(v6) && !local.has_address) {
			memcpy(local.address, v6, 16);
			local.has_address = local.v6 = true;
		}
	}
	freeifaddrs(all);
}

static void describe(const struct config *c)
{
	const char *address = config_map_get(&c->other_config, "lldp-management-address", "");

	bond_mac("", local.chassis);
	local.capabilities = LLDP_BRIDGE | (c->n_routers ? LLDP_ROUTER : 0);
	if (inet_pton(AF_INET, address, local.address) == 1 || inet_pton(AF_INET6, address, local.address) == 1) {
		local.has_address = true;
		local.v6 = strchr(address, ':') != NULL;
	} else {
		own_address();
	}
}

// ---- which ports

static void set_mode(uint16_t id, unsigned mode)
{
	struct talker *t = talkers[id];

	if (t && (t->mode & TX) && !(mode & TX) && is_up(port_get(id)))
		speak(id, 0);
	link_set(id, LINK_TAKE_LLDP, mode & RX);
	if (!mode) {
		free(t);
		talkers[id] = NULL;
		return;
	}
	if (!t)
		t = talkers[id] = calloc(1, sizeof *t);
	if (!t)
		return;
	if (!(mode & RX))
		memset(t->lldp.neighbour, 0, sizeof t->lldp.neighbour);
	t->mode = mode;
}

void lldp_port_reconcile(const struct config *c)
{
	static uint8_t wanted[MAX_PORTS], kept[MAX_PORTS];
	const char *all = config_map_get(&c->other_config, "lldp", "off");
	bool any = false;

	memset(wanted, 0, sizeof wanted);
	memset(kept, 0, sizeof kept);
	for (size_t i = 0; i < c->n_ports; i++) {
		const struct config_port *cp = &c->ports[i];
		bool uplink = cp->type && (!strcmp(cp->type, "kernel") || !strcmp(cp->type, "dpdk"));

		if (!cp->id)
			continue;
		kept[cp->id] = cp->error != NULL; // what went bad stays as it was
		if (uplink || (cp->type && !strcmp(cp->type, "tap")))
			wanted[cp->id] = (uint8_t)mode_of(config_map_get(&cp->other_config, "lldp", uplink ? all : "off"));
		any |= wanted[cp->id] & TX;
	}
	if (any)
		describe(c);
	for (uint16_t i = 1; i < MAX_PORTS; i++)
		if ((talkers[i] || wanted[i]) && !kept[i])
			set_mode(i, wanted[i]);
	for (size_t i = 0; i < c->n_ports; i++) {
		const struct config_port *cp = &c->ports[i];

		if (cp->id && talkers[cp->id])
			snprintf(talkers[cp->id]->description, sizeof talkers[cp->id]->description, "%s %s", cp->type,
				 config_map_get(&cp->options, "iface", config_map_get(&cp->options, "devargs", cp->name)));
	}
}

// ---- time and frames

void lldp_port_receive(uint16_t port, const uint8_t *frame, size_t len, uint64_t now)
{
	bool changed = false;

	if (port < MAX_PORTS && talkers[port] && (talkers[port]->mode & RX))
		lldp_receive(&talkers[port]->lldp, frame, len, now, &changed);
	news |= changed;
}

bool lldp_port_run(uint64_t now)
{
	static uint64_t next;
	bool any = news;

	news = false;
	if (now < next)
		return any;
	next = now + 500000000;
	for (uint16_t i = 1; i < MAX_PORTS; i++) {
		struct talker *t = talkers[i];

		if (!t)
			continue;
		any |= lldp_age(&t->lldp, now);
		if ((t->mode & TX) && is_up(port_get(i)) && lldp_due(&t->lldp, now))
			speak(i, LLDP_TTL);
	}
	return any;
}

const char *lldp_port_neighbour(uint16_t port, char text[96])
{
	const struct talker *t = port < MAX_PORTS ? talkers[port] : NULL;

	for (unsigned i = 0; t && i < LLDP_NEIGHBOURS; i++) {
		const struct lldp_neighbour *n = &t->lldp.neighbour[i];

		if (!n->used)
			continue;
		snprintf(text, 96, "%.47s %.47s", n->system_name[0] ? n->system_name : n->chassis, n->port);
		return text;
	}
	return NULL;
}

void lldp_port_close(void)
{
	for (uint16_t i = 1; i < MAX_PORTS; i++)
		if (talkers[i])
			set_mode(i, 0);
}

// ---- verbs

static void list_port(struct listing *l, const struct port *p, const struct lldp *lldp)
{
	uint64_t now = clock_ns();
	char text[128];

	for (unsigned i = 0; i < LLDP_NEIGHBOURS; i++) {
		const struct lldp_neighbour *n = &lldp->neighbour[i];

		if (!n->used)
			continue;
		listing_row(l);
		listing_str(l, p->name);
		listing_str(l, n->system_name);
		listing_str(l, n->chassis);
		listing_str(l, n->port);
		listing_str(l, n->description);
		listing_str(l, n->address[0] ? n->address : NULL);
		listing_str(l, lldp_capabilities(n->enabled, text));
		if (n->vlan)
			listing_uint(l, n->vlan);
		else
			listing_none(l);
		listing_uint(l, n->until > now ? (n->until - now) / 1000000000 : 0);
		listing_str(l, n->system_description);
	}
}

static void lldp_list(struct control_request *r, int argc, const char *argv[], void *aux)
{
	bool json = verbs_take_json(&argc, argv);
	struct listing *l = listing_new();

	listing_column(l, "port", "PORT");
	listing_column(l, "system", "SYSTEM");
	listing_column(l, "chassis", "CHASSIS");
	listing_column(l, "its_port", "ITS PORT");
	listing_column(l, "description", "DESCRIPTION");
	listing_column(l, "address", "ADDRESS");
	listing_column(l, "capabilities", "CAPABILITIES");
	listing_column(l, "vlan", "VLAN");
	listing_column(l, "ttl", "TTL");
	listing_column(l, "system_description", "SYSTEM DESCRIPTION");
	for (uint16_t i = 1; i < MAX_PORTS; i++)
		if (talkers[i] && port_get(i) && (argc < 2 || !strcmp(port_get(i)->name, argv[1])))
			list_port(l, port_get(i), &talkers[i]->lldp);
	verbs_reply(r, l, json);
}

static void lldp_stats(struct control_request *r, int argc, const char *argv[], void *aux)
{
	bool json = verbs_take_json(&argc, argv);
	struct listing *l = listing_new();

	listing_column(l, "port", "PORT");
	listing_column(l, "mode", "MODE");
#define X(name, text) listing_column(l, #name, #name);
	LLDP_COUNTS(X)
#undef X
	for (uint16_t i = 1; i < MAX_PORTS; i++) {
		const struct talker *t = talkers[i];

		if (!t || !port_get(i))
			continue;
		listing_row(l);
		listing_str(l, port_get(i)->name);
		listing_str(l, t->mode == (RX | TX) ? "both" : t->mode == RX ? "rx" : "tx");
#define X(name, text) listing_uint(l, t->lldp.name);
		LLDP_COUNTS(X)
#undef X
	}
	verbs_reply(r, l, json);
}

void lldp_port_init(const char *host)
{
	snprintf(host_name, sizeof host_name, "%s", host);
	control_register("lldp/list", "[--json] [PORT]", 0, 2, lldp_list, NULL);
	control_register("lldp/stats", "[--json]", 0, 1, lldp_stats, NULL);
}
