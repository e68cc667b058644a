// db_read_tunnel: this switch's end points of tunnels, those of others, and the stations behind them -> struct config.
#include "openvswitch.h"

#include "db_private.h"

#include "smap.h"
#include "util.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A network that somebody at an address is to get frames of.
struct want {
	struct config_ip ip;
	struct row_id host; // of table Endpoint; zero: an operator said so
	const char *name;
	struct row_id network;
	bool unknown; // it has stations there that nobody told of
};

struct wants {
	struct want *want;
	size_t n, room;
};

static bool ip_equal(const struct config_ip *a, const struct config_ip *b)
{
	return a->v6 == b->v6 && !memcmp(a->b, b->b, sizeof a->b);
}

static bool has_family(const struct config *c, bool v6)
{
	for (size_t i = 0; i < c->n_tunnel_ips; i++)
		if (c->tunnel_ips[i].v6 == v6)
			return true;
	return false;
}

static bool is_own(const struct config *c, const struct config_ip *ip)
{
	for (size_t i = 0; i < c->n_tunnel_ips; i++)
		if (ip_equal(&c->tunnel_ips[i], ip))
			return true;
	return false;
}

static bool is_router_port(const struct config *c, const struct config_ip *ip)
{
	for (size_t i = 0; i < c->n_router_ports; i++)
		for (size_t k = 0; k < c->router_ports[i].n_addresses; k++)
			if (ip_equal(&c->router_ports[i].addresses[k].ip, ip))
				return true;
	return false;
}

static void read_tunnel_ips(const struct weirrec_host *host, struct config *c, char **error)
{
	c->tunnel_ips = xcalloc(3, sizeof *c->tunnel_ips);
	for (size_t i = 0; host && i < host->n_tunnel_ips; i++) {
		struct config_ip ip;

		if (!db_parse_station_ip(host->tunnel_ips[i], &ip))
			db_row_error(error,
				     xasprintf("tunnel_ips: \"%s\" isn't an IP address of this switch", host->tunnel_ips[i]));
		else if (has_family(c, ip.v6))
			db_row_error(error, xasprintf("tunnel_ips: there is one of IPv%d already, so %s isn't used",
						      ip.v6 ? 6 : 4, host->tunnel_ips[i]));
		else if (!is_router_port(c, &ip))
			db_row_error(error, xasprintf("tunnel_ips: %s is no address of a router port of this switch",
						      host->tunnel_ips[i]));
		else
			c->tunnel_ips[c->n_tunnel_ips++] = ip;
	}
}

static void add_want(struct wants *w, struct want want)
{
	if (w->n == w->room)
		w->want = x2nrealloc(w->want, &w->room, sizeof *w->want);
	w->want[w->n++] = want;
}

static int name_compare(const void *name, const void *net)
{
	return strcmp(name, ((const struct config_network *)net)->name);
}

static const struct config_network *find_network(const struct config *c, const char *name)
{
	return bsearch(name, c->networks, c->n_networks, sizeof *c->networks, name_compare);
}

// "NETWORK [MAC [IP...]]". It is the other switch's word, not an operator's: what this one doesn't understand it passes over.
static void read_station(const char *text, const struct want *from, struct config *c, struct wants *w)
{
	char *copy = xstrdup(text), *rest = copy, *word = strsep(&rest, " ");
	const struct config_network *net = find_network(c, word);
	struct config_remote_mac mac = {.ip = from->ip};

	if (!net || !net->vni)
		goto out;
	struct want want = *from;
	word = strsep(&rest, " ");
	want.network = mac.network = net->row;
	want.unknown = !word;
	if (w->n && row_id_equal(&w->want[w->n - 1].network, &net->row) &&
	    row_id_equal(&w->want[w->n - 1].host, &from->host))
		w->want[w->n - 1].unknown |= want.unknown;
	else
		add_want(w, want);
	if (!word || !db_parse_mac(word, strlen(word), mac.mac) || mac.mac[0] & 1)
		goto out;
	while ((word = strsep(&rest, " "))) {
		mac.ips = xrealloc(mac.ips, (mac.n_ips + 1) * sizeof *mac.ips);
		if (db_parse_station_ip(word, &mac.ips[mac.n_ips]))
			mac.n_ips++;
	}
	c->remote_macs = xrealloc(c->remote_macs, (c->n_remote_macs + 1) * sizeof *c->remote_macs);
	c->remote_macs[c->n_remote_macs++] = mac;
out:
	free(copy);
}

// The end point of another switch that this one can reach: IPv4 if both have it.
static bool choose_ip(const struct config *c, const struct weirrec_endpoint *row, struct config_ip *ip)
{
	for (int v6 = 0; v6 < 2; v6++)
		for (size_t i = 0; i < row->n_tunnel_ips; i++)
			if (db_parse_station_ip(row->tunnel_ips[i], ip) && ip->v6 == v6 && has_family(c, v6) && !is_own(c, ip))
				return true;
	return false;
}

static void read_endpoint(const struct weirrec_endpoint *row, struct config *c, struct wants *w)
{
	struct want from = {.host = db_row_id(&row->header_.uuid), .name = row->host};

	if (choose_ip(c, row, &from.ip))
		for (size_t i = 0; i < row->n_stations; i++)
			read_station(row->stations[i], &from, c, w);
}

static int want_compare(const void *a_, const void *b_)
{
	const struct want *a = a_, *b = b_;
	int cmp = (int)a->ip.v6 - b->ip.v6;

	cmp = cmp ? cmp : memcmp(a->ip.b, b->ip.b, sizeof a->ip.b);
	cmp = cmp ? cmp : -memcmp(&a->host, &b->host, sizeof a->host); // a host's name, if there is one
	return cmp ? cmp : memcmp(&a->network, &b->network, sizeof a->network);
}

// The port of a tunnel is no row of the database: its row is the address, as IPv6 writes it (RFC 4291 section 2.5.5.2).
static struct row_id tunnel_row(const struct config_ip *ip)
{
	struct row_id row = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}};

	memcpy(&row.b[ip->v6 ? 0 : 12], ip->b, ip->v6 ? 16 : 4);
	return row;
}

static void add_remote(struct config *c, const struct want *want, size_t n)
{
	struct config_remote *remote = &c->remotes[c->n_remotes++];
	char ip[INET6_ADDRSTRLEN];

	inet_ntop(want->ip.v6 ? AF_INET6 : AF_INET, want->ip.b, ip, sizeof ip);
	*remote = (struct config_remote){.ip = want->ip, .host = want->host, .name = xstrdup(want->name ? want->name : ip)};
	remote->networks = xcalloc(n + 1, sizeof *remote->networks);
	for (size_t i = 0; i < n; i++) {
		bool twice = row_id_is_zero(&want[i].network);
		for (size_t k = 0; k < remote->n_networks && !twice; k++)
			twice = row_id_equal(&remote->networks[k], &want[i].network);
		if (!twice)
			remote->networks[remote->n_networks++] = want[i].network;
	}
	// No row of table Port has a name with a colon.
	char *name = xasprintf("tunnel:%s", ip);
	struct row_id row = tunnel_row(&want->ip);
	struct config_port *port = db_add_port(c, &row, name, "tunnel", PORT_TUNNEL);
	free(name);
	port->remote = want->ip;
	port->vlan_mode = VLAN_NETWORK_ID;
	port->n_trunks = remote->n_networks;
	port->trunks = xmemdup(remote->networks, (remote->n_networks + 1) * sizeof *remote->networks);
	port->unknown = xcalloc(n + 1, sizeof *port->unknown);
	for (size_t i = 0; i < n; i++)
		if (want[i].unknown)
			port->unknown[port->n_unknown++] = want[i].network;
}

bool db_read_remote_mac(const struct weirrec_fdb *row, struct config_fdb *fdb, struct config *c)
{
	struct config_remote_mac mac = {.network = fdb->network, .row = fdb->row};

	if (!row->tunnel_ip)
		return false;
	if (weirrec_fdb_get_port(row, OVSDB_TYPE_UUID)->n)
		db_row_error(&fdb->error, xstrdup("tunnel_ip: an address is at a port or behind a tunnel, not both"));
	if (!db_parse_station_ip(row->tunnel_ip, &mac.ip))
		db_row_error(&fdb->error, xasprintf("tunnel_ip: \"%s\" isn't the IP address of one end point", row->tunnel_ip));
	if (row->network && !row->network->n_vni)
		db_row_error(&fdb->error,
			     xasprintf("tunnel_ip: tunnels carry a network by its vni, which network %s doesn't have",
				       row->network->name));
	if (fdb->error)
		return false;
	memcpy(mac.mac, fdb->mac, 6);
	c->remote_macs = xrealloc(c->remote_macs, (c->n_remote_macs + 1) * sizeof *c->remote_macs);
	c->remote_macs[c->n_remote_macs++] = mac;
	*fdb = (struct config_fdb){.error = NULL};
	return true;
}

void db_read_tunnels(struct db *db, struct config *c, char **error)
{
	const struct weirrec_endpoint *row;
	struct wants w = {.want = NULL};
	size_t n_static = c->n_remote_macs;

	read_tunnel_ips(db_host_row(db), c, error);
	WEIRREC_ENDPOINT_FOR_EACH(row, db->idl)
	if (strcmp(row->host, db->host) != 0)
		read_endpoint(row, c, &w);
	for (size_t i = 0; i < c->n_networks; i++)
		for (size_t k = 0; k < c->networks[i].n_flood_to; k++)
			add_want(&w, (struct want){
					     .ip = c->networks[i].flood_to[k], .network = c->networks[i].row, .unknown = true});
	for (size_t i = 0; i < c->n_mirrors; i++)
		if (c->mirrors[i].has_address && !c->mirrors[i].error)
			add_want(&w, (struct want){.ip = c->mirrors[i].address}); // of no network
	for (size_t i = 0; i < n_static; i++)
		add_want(&w, (struct want){.ip = c->remote_macs[i].ip, .network = c->remote_macs[i].network});
	if (w.n)
		qsort(w.want, w.n, sizeof *w.want, want_compare);
	c->remotes = xcalloc(w.n + 1, sizeof *c->remotes);
	for (size_t i = 0, n; i < w.n; i += n) {
		for (n = 1; i + n < w.n && ip_equal(&w.want[i + n].ip, &w.want[i].ip);)
			n++;
		if (has_family(c, w.want[i].ip.v6) && !is_own(c, &w.want[i].ip))
			add_remote(c, &w.want[i], n);
	}
	free(w.want);
}
