// neighbour_list: what weirctl shows of neighbours, of routers' own addresses, and of stations.
#include "neighbour_private.h"
#include "sentence.h"
#include "station_table.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void ip_cell(struct listing *l, const struct config_ip *ip)
{
	char text[INET6_ADDRSTRLEN];

	listing_str(l, inet_ntop(ip->v6 ? AF_INET6 : AF_INET, ip->b, text, sizeof text));
}

static void mac_cell(struct listing *l, const uint8_t mac[6])
{
	listing_fmt(l, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
}

// *id: of the router port of that name, 0 for none given.
static bool own_of(const char *name, uint16_t *id, char **error)
{
	*id = 0;
	if (!name)
		return true;
	for (uint16_t i = 1; i < MAX_PORTS; i++) {
		const struct own_port *p = neighbour_own(i);

		if (p && !strcmp(p->name, name)) {
			*id = i;
			return true;
		}
	}
	sentence_set(error, "there is no router port %s in use", name);
	return false;
}

static bool network_of(const char *name, uint16_t *id, char **error)
{
	*id = 0;
	if (!name)
		return true;
	for (uint16_t i = 1; i < MAX_NETWORKS; i++) {
		const struct network *net = network_get(i);

		if (net && !strcmp(net->name, name)) {
			*id = i;
			return true;
		}
	}
	sentence_set(error, "there is no network %s", name);
	return false;
}

static bool at_most_one(int argc, const char *argv[], const char *what, char **error)
{
	if (argc <= 2 && (argc < 2 || argv[1][0] != '-'))
		return true;
	sentence_set(error, "%s takes a name at most", what);
	return false;
}

static void list_one(struct listing *l, const struct neighbour_view *v)
{
	const struct own_port *p = neighbour_own(v->port);
	uint32_t now_s = (uint32_t)(neighbour_clock / 1000000000ULL);

	listing_row(l);
	listing_str(l, p ? p->name : NULL);
	ip_cell(l, &v->ip);
	if (v->has_mac)
		mac_cell(l, v->mac);
	else
		listing_none(l);
	listing_str(l, neighbour_state_name(v->state));
	listing_uint(l, (neighbour_clock - v->changed) / 1000000000ULL);
	if (v->used_s)
		listing_uint(l, now_s > v->used_s ? now_s - v->used_s : 0);
	else
		listing_none(l);
	listing_uint(l, v->waiting);
	listing_uint(l, v->probes);
	if (v->watched)
		listing_str(l, v->dead ? "dead" : "yes");
	else
		listing_none(l);
}

static int verb_list(struct page *page, int argc, const char *argv[], char **error)
{
	struct neighbour_view v;
	uint16_t port;

	if (!at_most_one(argc, argv, "neighbour list", error) || !own_of(argc > 1 ? argv[1] : NULL, &port, error))
		return -1;
	listing_column(page->l, "router_port", "ROUTER PORT");
	listing_column(page->l, "ip", "IP");
	listing_column(page->l, "mac", "MAC");
	listing_column(page->l, "state", "STATE");
	listing_column(page->l, "age", "AGE(s)");
	listing_column(page->l, "used", "USED(s)");
	listing_column(page->l, "waiting", "WAITING");
	listing_column(page->l, "probes", "PROBES");
	listing_column(page->l, "next_hop", "NEXT HOP");
	for (uint64_t *at = &page->at[0]; *at < neighbour_high(); ++*at) {
		if (!page_look(page))
			return 1;
		if (neighbour_at((uint32_t)*at, &v) && (!port || v.port == port))
			list_one(page->l, &v);
	}
	return 0;
}

static char *verb_flush(int argc, const char *argv[], bool json, char **error)
{
	uint16_t port;
	char *text;

	if (!at_most_one(argc, argv, "neighbour flush", error) || !own_of(argc > 1 ? argv[1] : NULL, &port, error))
		return NULL;
	unsigned n = neighbour_flush(port);
	if (asprintf(&text, json ? "{\"flushed\": %u}\n" : "%u neighbours flushed\n", n) < 0)
		return NULL;
	return text;
}

static void list_own(struct listing *l, const struct own_port *p, const struct own_address *a)
{
	static const char *const names[] = {[OWN_PROBING] = "probing",
					    [OWN_ANNOUNCING] = "in use",
					    [OWN_SETTLED] = "in use",
					    [OWN_DUPLICATE] = "duplicate"};

	listing_row(l);
	listing_str(l, p->name);
	ip_cell(l, &a->prefix.ip);
	listing_str(l, a->again ? "duplicate" : names[a->state]);
	listing_uint(l, a->conflicts);
	if (a->conflicts) {
		mac_cell(l, a->other);
		listing_str(l, lport_name(a->other_port));
	} else {
		listing_none(l);
		listing_none(l);
	}
}

static int verb_own(struct page *page, int argc, const char *argv[], char **error)
{
	uint16_t port;

	if (!at_most_one(argc, argv, "neighbour own", error) || !own_of(argc > 1 ? argv[1] : NULL, &port, error))
		return -1;
	listing_column(page->l, "router_port", "ROUTER PORT");
	listing_column(page->l, "ip", "IP");
	listing_column(page->l, "state", "STATE");
	listing_column(page->l, "conflicts", "CONFLICTS");
	listing_column(page->l, "claimed_by", "CLAIMED BY");
	listing_column(page->l, "claimed_on", "ON PORT");
	for (uint64_t *at = &page->at[0]; *at < MAX_PORTS; ++*at) {
		const struct own_port *p = neighbour_own((uint16_t)*at);

		if (!page_look(page))
			return 1;
		for (unsigned i = 0; p && i < p->n_addresses && (!port || p->id == port); i++)
			list_own(page->l, p, &p->address[i]);
	}
	return 0;
}

static int verb_stations(struct page *page, int argc, const char *argv[], char **error)
{
	uint32_t now_s = (uint32_t)(neighbour_clock / 1000000000ULL);
	struct station s;
	uint16_t network;

	if (!at_most_one(argc, argv, "neighbour stations", error) || !network_of(argc > 1 ? argv[1] : NULL, &network, error))
		return -1;
	listing_column(page->l, "network", "NETWORK");
	listing_column(page->l, "ip", "IP");
	listing_column(page->l, "mac", "MAC");
	listing_column(page->l, "port", "PORT");
	listing_column(page->l, "type", "TYPE");
	listing_column(page->l, "router", "ROUTER");
	listing_column(page->l, "age", "AGE(s)");
	for (uint64_t *at = &page->at[0]; *at < station_high(); ++*at) {
		if (!page_look(page))
			return 1;
		if (!station_at((uint32_t)*at, &s) || (network && s.network != network))
			continue;
		const struct network *net = network_get(s.network);
		listing_row(page->l);
		listing_str(page->l, net ? net->name : NULL);
		ip_cell(page->l, &s.ip);
		mac_cell(page->l, s.mac);
		listing_str(page->l, lport_name(s.port));
		listing_str(page->l, s.is_static ? "static" : "learned");
		listing_bool(page->l, s.router);
		if (s.is_static)
			listing_none(page->l);
		else
			listing_uint(page->l, (int32_t)(now_s - s.seen) > 0 ? now_s - s.seen : 0);
	}
	return 0;
}

const struct stage_verb neighbour_verbs[] = {
	{"neighbour/list", "[--limit N] [ROUTER_PORT]", "neighbours of router ports, and how far they are known", NULL,
	 verb_list},
	{"neighbour/flush", "[ROUTER_PORT]", "forget neighbours of router ports; packets that wait for them are dropped",
	 verb_flush},
	{"neighbour/own", "[--limit N] [ROUTER_PORT]", "addresses of router ports, and who else claims them", NULL, verb_own},
	{"neighbour/stations", "[--limit N] [NETWORK]",
	 "IP addresses of stations, from Port.addresses and from ARP and neighbour discovery", NULL, verb_stations},
	{0},
};
