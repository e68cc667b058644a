// assume: see assume.h.
#include "assume.h"
#include "router_table.h"
#include "fdb.h"
#include "station_table.h"
#include "topology.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void assume_say(struct assumed *a, const char *fmt, ...)
{
	va_list args;

	if (a->n == ASSUME_MAX)
		return;
	va_start(args, fmt);
	vsnprintf(a->said[a->n++], ASSUME_LEN, fmt, args);
	va_end(args);
}

static void say_mac(struct assumed *a, const char *field, const uint8_t *m, const char *why)
{
	assume_say(a, "%s=%02x:%02x:%02x:%02x:%02x:%02x: %s", field, m[0], m[1], m[2], m[3], m[4], m[5], why);
}

static const char *name_of(uint16_t port)
{
	const struct port *p = port_get(port);

	return p ? p->name : "that is gone";
}

// ---- who is where

struct search {
	uint16_t network, port; // `port`: at it, or with `others` not at it
	bool others;
	unsigned n;
	bool is_static;
	uint8_t mac[6];
	uint16_t at;
};

static void look(const struct fdb_entry *e, struct search *s)
{
	if (e->network != s->network || (e->port == s->port) == s->others)
		return;
	// Several at a port: one that the configuration names before one that was learned.
	if (!s->n || (e->is_static && !s->is_static)) {
		memcpy(s->mac, e->mac, 6);
		s->is_static = e->is_static;
		s->at = e->port;
	}
	s->n++;
}

static void look_all(struct search *s)
{
	struct fdb_entry e;

	for (uint32_t i = 0; i < fdb_high(); i++)
		if (fdb_at(i, &e))
			look(&e, s);
}

enum assume_station assume_station(uint16_t network, uint16_t port, uint8_t mac[6])
{
	struct search s = {.network = network, .port = port};

	if (network)
		look_all(&s);
	if (s.n) {
		memcpy(mac, s.mac, 6);
		return s.is_static ? STATION_STATIC : STATION_LEARNED;
	}
	memcpy(mac, (uint8_t[]){0x02, 0, 0, 0, (uint8_t)(port >> 8), (uint8_t)port}, 6);
	return STATION_MADE_UP;
}

// ---- fields

static void default_source_ip(struct assumed *a, struct field_set *d, unsigned is)
{
	bool v6 = is & IS_IPV6;
	enum field_id id = v6 ? IPV6_SRC : NW_SRC;
	const struct station *n = station_of(a->network, a->port->id, v6, d->given[DL_SRC] ? d->value[DL_SRC].b : NULL);
	union field_value v = {0};
	char text[INET6_ADDRSTRLEN];

	if (d->given[id])
		return;
	if (!n) { // RFC 5737, RFC 3849: compose() takes them
		assume_say(a, "%s: one of the addresses for documentation, as none of port %.63s is known",
			   v6 ? "ipv6_src=2001:db8::1" : "nw_src=192.0.2.1", a->port->name);
		return;
	}
	memcpy(v.b, n->ip.b, v6 ? 16 : 4);
	field_set_default(d, id, &v);
	assume_say(a, "%s=%s: an address of port %s", v6 ? "ipv6_src" : "nw_src",
		   inet_ntop(v6 ? AF_INET6 : AF_INET, v.b, text, sizeof text), a->port->name);
}

static void default_source(struct assumed *a, struct field_set *d, unsigned is)
{
	static const char *const whys[] = {
		[STATION_STATIC] = "a static address of the port",
		[STATION_LEARNED] = "learned on the port",
		[STATION_MADE_UP] = "made up, as no address is known on the port",
	};
	bool v6 = is & IS_IPV6;
	enum field_id ip = v6 ? IPV6_SRC : NW_SRC;
	const struct station *n = d->given[ip] ? station_find(a->network, v6, d->value[ip].b, NULL) : NULL;
	union field_value v = {0};

	if (d->given[DL_SRC])
		return;
	if (n && n->port == a->port->id) {
		memcpy(v.b, n->mac, 6);
		say_mac(a, "dl_src", v.b, "the station at the port that has the source address");
	} else {
		enum assume_station which = assume_station(a->network, a->port->id, v.b);

		a->guessed_src = which == STATION_MADE_UP;
		say_mac(a, "dl_src", v.b, whys[which]);
	}
	field_set_default(d, DL_SRC, &v);
}

// Who is asked, everybody or a group: compose() knows.
static bool is_for_many(const struct field_set *d, unsigned is)
{
	if (is & IS_IPV4)
		return d->given[NW_DST] && (d->value[NW_DST].b[0] >= 224);
	if ((is & IS_ICMPV6) && d->given[TP_SRC] && d->value[TP_SRC].n == 135)
		return d->given[ND_TARGET] && !d->given[IPV6_DST];
	if (is & IS_IPV6)
		return d->given[IPV6_DST] && d->value[IPV6_DST].b[0] == 0xff;
	return (is & IS_ARP) && (!d->given[NW_PROTO] || d->value[NW_PROTO].n == 1);
}

// Whom a station would send it to, if that is a router of this switch.
static const struct router_port *router_for(uint16_t network, bool v6, const uint8_t *ip, bool *own)
{
	const struct router_port *rp = NULL, *any = NULL;

	while ((rp = router_port_in(network, rp))) {
		*own = router_port_has(rp, v6, ip);
		if (*own)
			return rp;
		if (router_port_prefix(rp, v6, ip))
			return NULL;
		any = any ? any : rp;
	}
	*own = false;
	return ip_is_link_local(v6, ip) ? NULL : any;
}

static void default_destination(struct assumed *a, struct field_set *d, unsigned is)
{
	bool v6 = is & IS_IPV6;
	enum field_id ip = v6 ? IPV6_DST : NW_DST;
	const struct station *n = d->given[ip] ? station_find(a->network, v6, d->value[ip].b, NULL) : NULL;
	struct search s = {.network = a->network, .port = a->port->id, .others = true};
	union field_value v = {0};
	const struct router_port *rp;
	char why[ASSUME_LEN];
	bool own;

	if (d->given[DL_DST] || is_for_many(d, is))
		return;
	if (a->network)
		look_all(&s);
	if (n) {
		memcpy(v.b, n->mac, 6);
		snprintf(why, sizeof why, "has that address, at port %.63s", name_of(n->port));
	} else if (a->network && d->given[ip] && (rp = router_for(a->network, v6, d->value[ip].b, &own))) {
		memcpy(v.b, rp->mac, 6);
		snprintf(why, sizeof why, own ? "router port %.63s, which has that address" : "router port %.63s, as the address is in no prefix of the network",
			 name_of(rp->id));
	} else if (s.n == 1) {
		memcpy(v.b, s.mac, 6);
		snprintf(why, sizeof why, "the only address that is known at another port of the network, %.63s",
			 name_of(s.at));
	} else {
		memset(v.b, 0xff, 6);
		a->guessed_dst = true;
		snprintf(why, sizeof why, "everybody, as %s",
			 !a->network    ? "the packet is in no network"
			 : d->given[ip] ? "it is not known who has that address"
					: "no destination is given");
	}
	field_set_default(d, DL_DST, &v);
	say_mac(a, "dl_dst", v.b, why);
}

void assume_fill(void *arg, struct field_set *d, unsigned is)
{
	struct assumed *a = arg;
	const struct lport *lp = lport_get(a->port->id);
	uint16_t vlan = d->given[DL_VLAN] ? (uint16_t)(0x1000 | d->value[DL_VLAN].n) : 0;

	a->network = lp ? lport_classify(lp, vlan).network : 0;
	if (is & (IS_IP | IS_ARP))
		default_source_ip(a, d, is);
	default_source(a, d, is);
	default_destination(a, d, is);
}
