// neighbour_own: router ports as the neighbour table knows them: their addresses, whether somebody else has one of them, what
// is announced and asked.
//
// An address that comes is probed as RFC 5227 2.1 and RFC 4862 5.4 ask for, but it is used meanwhile, as RFC 4429 has it: the
// gateway of a network must not be silent for seconds after each restart. If somebody else turns out to have it, it is not used
// any more, the port's status says so, and it is probed again each minute. Afterwards whoever claims it is in the wrong: that
// is told, counted, and answered by an announcement (RFC 5227 2.4 b), at most every ten seconds. Switches that are parts of one
// router have one MAC, and are no conflict.
#include "neighbour_private.h"
#include "neighbour_wire.h"
#include "notice.h"
#include "punt.h"
#include "rcu.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PROBES 3            // RFC 5227 PROBE_NUM; of RFC 4862 one
#define PROBE_MS 1000ULL    // RFC 5227 PROBE_MIN, RFC 4862 RetransTimer
#define ANNOUNCEMENTS 2     // RFC 5227 ANNOUNCE_NUM
#define ANNOUNCE_MS 2000ULL // RFC 5227 ANNOUNCE_INTERVAL
#define DEFEND_MS 10000ULL  // RFC 5227 DEFEND_INTERVAL
#define AGAIN_MS 60000ULL   // until a duplicate is probed once more

static struct own_port *ports[MAX_PORTS];
static struct own_port *in_network[MAX_NETWORKS];
static struct own_seen *seen[MAX_NETWORKS]; // RCU
static uint32_t version;
static uint16_t network_of[MAX_PORTS];      // workers read
static bool busy;                           // some address has something to do

struct own_port *neighbour_own(uint16_t port)
{
	return ports[port & (MAX_PORTS - 1)];
}

struct own_port *neighbour_own_in(uint16_t network)
{
	return in_network[network & (MAX_NETWORKS - 1)];
}

const struct own_seen *neighbour_own_seen(uint16_t network)
{
	return rcu_read(seen[network & (MAX_NETWORKS - 1)]);
}

static bool ip_equal(const struct config_ip *a, const struct config_ip *b)
{
	return a->v6 == b->v6 && !memcmp(a->b, b->b, a->v6 ? 16 : 4);
}

bool neighbour_own_has(uint16_t network, const struct config_ip *ip)
{
	for (const struct own_port *p = neighbour_own_in(network); p; p = p->next_in_network)
		for (unsigned i = 0; i < p->n_addresses; i++)
			if (ip_equal(&p->address[i].prefix.ip, ip))
				return true;
	return false;
}

bool neighbour_is_duplicate(struct resolve *r, uint16_t port, bool v6, const uint8_t *ip)
{
	if (r)
		resolve_depend(r, GEN_PORT, port);
	const struct own_seen *s = neighbour_own_seen(__atomic_load_n(&network_of[port & (MAX_PORTS - 1)], __ATOMIC_RELAXED));
	for (unsigned i = 0; s && i < s->n; i++)
		if (s->address[i].duplicate && s->address[i].port == port && s->address[i].ip.v6 == v6 &&
		    !memcmp(s->address[i].ip.b, ip, v6 ? 16 : 4))
			return true;
	return false;
}

static bool is_usable(const struct own_address *a)
{
	return a->state != OWN_DUPLICATE && !a->again;
}

void neighbour_duplicates(uint16_t port, struct buf *b)
{
	const struct own_port *p = neighbour_own(port);
	const char *comma = "";

	for (unsigned i = 0; p && i < p->n_addresses; i++) {
		const struct own_address *a = &p->address[i];
		char ip[INET6_ADDRSTRLEN];

		if (is_usable(a))
			continue;
		inet_ntop(a->prefix.ip.v6 ? AF_INET6 : AF_INET, a->prefix.ip.b, ip, sizeof ip);
		buf_add(b, "%s%s (", comma, ip);
		buf_add_mac(b, a->other);
		buf_add(b, " on port %s)", lport_name(a->other_port));
		comma = ", ";
	}
}

uint32_t neighbour_own_version(void)
{
	return version;
}

// What workers see of a network's router ports.
static void publish(uint16_t network)
{
	struct own_seen *new = NULL, *old = seen[network];
	unsigned n = 0, n_ports = 0;

	for (const struct own_port *p = in_network[network]; p; p = p->next_in_network) {
		n += p->n_addresses;
		n_ports++;
	}
	size_t head = sizeof *new + n_ports * sizeof new->port[0];
	head = (head + 7) & ~(size_t)7;
	if (n_ports)
		new = calloc(1, head + n * sizeof *new->address);
	if (n_ports && !new)
		return; // what was, stays
	if (new)
		new->address = (void *)((char *)new + head);
	for (const struct own_port *p = in_network[network]; new &&p; p = p->next_in_network) {
		new->port[new->n_ports].id = p->id;
		memcpy(new->port[new->n_ports++].mac, p->mac, 6);
		for (unsigned i = 0; i < p->n_addresses; i++) {
			new->address[new->n].ip = p->address[i].prefix.ip;
			new->address[new->n].port = p->id;
			new->address[new->n].duplicate = !is_usable(&p->address[i]);
			memcpy(new->address[new->n++].mac, p->mac, 6);
		}
	}
	version++;
	rcu_publish(seen[network], new);
	rcu_free_later(old);
	for (const struct own_port *p = in_network[network]; p; p = p->next_in_network)
		gen_bump(gen_slot(GEN_PORT, p->id));
}

// ---- what is sent

static void send_frame(const struct own_port *p, const uint8_t *frame, uint16_t len)
{
	uint8_t *data;
	struct rte_mbuf *m = punt_new(len, &data);

	if (!m)
		return; // as if it had been lost on the link: the timer asks again
	memcpy(data, frame, len);
	punt_send(m, p->id);
}

static bool in_prefix(const struct config_prefix *p, const struct config_ip *ip)
{
	unsigned bytes = p->len / 8, rest = p->len % 8;

	return p->ip.v6 == ip->v6 && !memcmp(p->ip.b, ip->b, bytes) &&
	       (!rest || !((p->ip.b[bytes] ^ ip->b[bytes]) >> (8 - rest)));
}

static bool is_link_local(const struct config_ip *ip)
{
	return ip->v6 && ip->b[0] == 0xfe && (ip->b[1] & 0xc0) == 0x80;
}

// Our address to ask with: of the target's prefix; IPv6: the link-local one for lack of another (RFC 4861 7.2.2). NULL: there
// is none.
static const struct config_ip *source_for(const struct own_port *p, const struct config_ip *target)
{
	const struct config_ip *found = NULL;

	for (unsigned i = 0; i < p->n_addresses; i++) {
		const struct own_address *a = &p->address[i];

		if (a->prefix.ip.v6 != target->v6 || !is_usable(a))
			continue;
		if (in_prefix(&a->prefix, target))
			return &a->prefix.ip;
		if (!found || is_link_local(&a->prefix.ip))
			found = &a->prefix.ip;
	}
	return found;
}

void neighbour_solicit(const struct neighbour_entry *e, const uint8_t *to)
{
	const struct own_port *p = ports[e->key.port];
	struct config_ip target = neighbour_ip(e);
	uint8_t frame[NEIGHBOUR_FRAME];

	send_frame(p, frame, neighbour_ask(frame, p->mac, source_for(p, &target), &target, to));
}

static void announce(const struct own_port *p, const struct own_address *a)
{
	uint8_t frame[NEIGHBOUR_FRAME];

	send_frame(p, frame, neighbour_announce(frame, p->mac, p->mac, &a->prefix.ip, true, NULL, NULL));
}

// ---- addresses of ours

static void address_due(struct own_port *p, struct own_address *a, uint64_t now)
{
	bool v6 = a->prefix.ip.v6;
	uint8_t frame[NEIGHBOUR_FRAME];

	switch (a->state) {
	case OWN_DUPLICATE:
		a->again = true;
		a->state = OWN_PROBING;
		a->sent = 0;
		/* fall through */
	case OWN_PROBING:
		if (a->sent < (v6 ? 1 : PROBES)) {
			a->sent++;
			send_frame(p, frame, neighbour_ask(frame, p->mac, NULL, &a->prefix.ip, NULL));
			a->next = now + PROBE_MS * MS;
			break;
		}
		a->state = OWN_ANNOUNCING;
		a->sent = 0;
		if (a->again) {
			a->again = false;
			publish(p->network);
		}
		/* fall through */
	case OWN_ANNOUNCING:
		announce(p, a);
		a->next = now + ANNOUNCE_MS * MS;
		if (++a->sent < ANNOUNCEMENTS)
			break;
		a->state = OWN_SETTLED;
		break;
	case OWN_SETTLED:
		break;
	}
}

void neighbour_own_tick(uint64_t now)
{
	bool more = false;

	if (!busy)
		return;
	for (unsigned i = 1; i < MAX_PORTS; i++) {
		struct own_port *p = ports[i];

		for (unsigned k = 0; p && k < p->n_addresses; k++) {
			struct own_address *a = &p->address[k];

			if (a->state != OWN_SETTLED && now >= a->next)
				address_due(p, a, now);
			more |= a->state != OWN_SETTLED;
		}
	}
	busy = more;
}

static void tell(const struct own_port *p, const struct own_address *a, const char *what)
{
	char ip[INET6_ADDRSTRLEN], mac[18];

	inet_ntop(a->prefix.ip.v6 ? AF_INET6 : AF_INET, a->prefix.ip.b, ip, sizeof ip);
	snprintf(mac, sizeof mac, "%02x:%02x:%02x:%02x:%02x:%02x", a->other[0], a->other[1], a->other[2], a->other[3],
		 a->other[4], a->other[5]);
	notice('w', "neighbour",
	       (const struct log_field[]){
		       {"ip", ip}, {"mac", mac}, {"port", lport_name(a->other_port)}, {"router_port", p->name}, {NULL, NULL}},
	       "%s of router port %s is claimed by %s on port %s: %s", ip, p->name, mac, lport_name(a->other_port), what);
}

static void claimed(struct own_port *p, struct own_address *a, const uint8_t mac[6], uint16_t port, bool probe, uint64_t now)
{
	// Who only asks whether it is free is told by the answer; but two that ask at once are in conflict (RFC 5227 2.1.1, RFC
	// 4862 5.4.3).
	if (probe && a->state != OWN_PROBING)
		return;
	memcpy(a->other, mac, 6);
	a->other_port = port;
	a->conflicts++;
	if (a->state == OWN_PROBING || a->state == OWN_DUPLICATE) {
		bool was = !is_usable(a);

		a->state = OWN_DUPLICATE;
		a->again = false;
		a->next = now + AGAIN_MS * MS;
		busy = true;
		if (was)
			return;
		publish(p->network);
		tell(p, a, "it is not used while that is so");
		return;
	}
	if (a->told && now - a->told < DEFEND_MS * MS)
		return;
	a->told = now;
	announce(p, a);
	tell(p, a, "the router keeps it; look for a guest with a wrong address");
}

bool neighbour_own_claimed(uint16_t network, const struct config_ip *ip, const uint8_t mac[6], uint16_t port, bool probe,
			   uint64_t now)
{
	bool ours = false;

	for (struct own_port *p = neighbour_own_in(network); p; p = p->next_in_network) {
		for (unsigned i = 0; i < p->n_addresses; i++) {
			if (!ip_equal(&p->address[i].prefix.ip, ip))
				continue;
			if (memcmp(p->mac, mac, 6))
				claimed(p, &p->address[i], mac, port, probe, now);
			ours |= !probe && is_usable(&p->address[i]);
		}
	}
	return ours;
}

// ---- configuration

static uint16_t network_id(const struct config *c, const struct row_id *row)
{
	for (size_t i = 0; i < c->n_networks; i++)
		if (row_id_equal(&c->networks[i].row, row))
			return c->networks[i].error ? 0 : c->networks[i].id;
	return 0;
}

static void unlink_port(struct own_port *p)
{
	struct own_port **at = &in_network[p->network];

	while (*at && *at != p)
		at = &(*at)->next_in_network;
	if (*at)
		*at = p->next_in_network;
	publish(p->network);
}

static void delete_entries(uint16_t port)
{
	for (uint32_t i = 0; i < neighbour_high(); i++)
		if (neighbour_entries[i].state != NEIGHBOUR_NONE && neighbour_entries[i].key.port == port)
			neighbour_delete(&neighbour_entries[i], STAGE_REASON(neighbour, FLUSHED));
}

static void remove_port(uint16_t id)
{
	struct own_port *p = ports[id];

	delete_entries(id);
	__atomic_store_n(&network_of[id], 0, __ATOMIC_RELAXED);
	unlink_port(p);
	ports[id] = NULL;
	free(p->address);
	free(p->name);
	free(p);
}

static struct own_port *new_port(const struct config_router_port *c, uint16_t network)
{
	struct own_port *p = calloc(1, sizeof *p);

	if (!p)
		return NULL;
	p->id = c->id;
	p->network = network;
	p->row = row_intern("Router_Port", &c->row, c->name);
	p->name = strdup(c->name);
	memcpy(p->mac, c->mac, 6);
	for (unsigned i = 0; i < CLASSES; i++)
		p->first[i] = p->last[i] = NONE;
	ports[c->id] = p;
	p->next_in_network = in_network[network];
	in_network[network] = p;
	__atomic_store_n(&network_of[c->id], network, __ATOMIC_RELAXED);
	return p;
}

static const struct own_address *had(const struct own_port *p, const struct config_ip *ip)
{
	for (unsigned i = 0; i < p->n_addresses; i++)
		if (ip_equal(&p->address[i].prefix.ip, ip))
			return &p->address[i];
	return NULL;
}

// `moved`: its MAC is another one, of which everybody hears at once.
static void set_addresses(struct own_port *p, const struct config_router_port *c, bool moved)
{
	struct own_address *new = calloc(c->n_addresses + 1, sizeof *new);

	if (!new)
		return;
	for (size_t i = 0; i < c->n_addresses; i++) {
		const struct own_address *old = had(p, &c->addresses[i].ip);

		new[i] = old ? *old : (struct own_address){.state = OWN_PROBING, .next = neighbour_clock};
		new[i].prefix = c->addresses[i];
		if (old && moved && is_usable(old)) {
			new[i].state = OWN_ANNOUNCING;
			new[i].sent = 0;
			new[i].next = neighbour_clock;
		}
	}
	free(p->address);
	p->address = new;
	p->n_addresses = (unsigned)c->n_addresses;
	busy = true;
	publish(p->network);
}

static bool same_addresses(const struct own_port *p, const struct config_router_port *c)
{
	if (p->n_addresses != c->n_addresses)
		return false;
	for (unsigned i = 0; i < p->n_addresses; i++)
		if (!ip_equal(&p->address[i].prefix.ip, &c->addresses[i].ip) || p->address[i].prefix.len != c->addresses[i].len)
			return false;
	return true;
}

// Other values than these were refused where the row was read.
static void set_probes(struct own_port *p, const struct config_map *map)
{
	uint32_t ms = (uint32_t)config_map_uint(map, "next-hop-probe-ms", NEIGHBOUR_PROBE_MS, 0, NEIGHBOUR_PROBE_MAX_MS, NULL);

	if (ms && ms < NEIGHBOUR_PROBE_MIN_MS)
		ms = NEIGHBOUR_PROBE_MIN_MS;
	if (ms == p->probe_ms)
		return;
	p->probe_ms = ms;
	neighbour_watch_rearm(p->id);
}

static void configure_port(const struct config_router_port *c, uint16_t network)
{
	struct own_port *p = ports[c->id];

	if (p && p->network != network) {
		remove_port(c->id);
		p = NULL;
	}
	bool moved = p && memcmp(p->mac, c->mac, 6), same = p && !moved && same_addresses(p, c);
	if (!p)
		p = new_port(c, network);
	if (!p)
		return;
	set_probes(p, &c->other_config);
	if (same)
		return;
	if (moved) { // adjacencies have the old one
		delete_entries(c->id);
		memcpy(p->mac, c->mac, 6);
	}
	set_addresses(p, c, moved);
}

static void set_statics(uint16_t network, const struct config_ip *ip, size_t n, const uint8_t mac[6], bool elsewhere, bool *kept)
{
	for (struct own_port *p = neighbour_own_in(network); p; p = p->next_in_network) {
		for (size_t i = 0; i < n; i++) {
			if (had(p, &ip[i]))
				continue;
			neighbour_set_static(p, &ip[i], mac, elsewhere);
			const struct neighbour_entry *e = neighbour_get(p->id, &ip[i]);
			if (e)
				kept[neighbour_index(e)] = true;
		}
	}
}

static int statics(const struct config *want)
{
	bool *kept = calloc(NEIGHBOUR_MAX, sizeof *kept);

	if (!kept)
		return -ENOMEM;
	for (size_t i = 0; i < want->n_ports; i++) {
		const struct config_port *cp = &want->ports[i];

		for (size_t a = 0; !cp->error && a < cp->n_addresses; a++)
			set_statics(network_id(want, &cp->network), cp->addresses[a].ip, cp->addresses[a].n_ips,
				    cp->addresses[a].mac, false, kept);
	}
	const struct config_remote_mac *last = NULL; // they come in rows of one network
	uint16_t network = 0;
	for (size_t i = 0; i < want->n_remote_macs; i++) {
		const struct config_remote_mac *rm = &want->remote_macs[i];

		if (rm->error || !rm->n_ips)
			continue;
		if (!last || !row_id_equal(&last->network, &rm->network))
			network = network_id(want, &rm->network);
		last = rm;
		set_statics(network, rm->ips, rm->n_ips, rm->mac, true, kept);
	}
	for (uint32_t i = 0; i < neighbour_high(); i++)
		if (neighbour_entries[i].state == NEIGHBOUR_STATIC && !kept[i])
			neighbour_delete(&neighbour_entries[i], STAGE_REASON(neighbour, FLUSHED));
	free(kept);
	return 0;
}

int neighbour_configure(const struct config *want)
{
	bool *wanted = calloc(MAX_PORTS, sizeof *wanted);

	if (!wanted)
		return -ENOMEM;
	for (size_t i = 0; i < want->n_router_ports; i++) {
		const struct config_router_port *c = &want->router_ports[i];
		uint16_t network = c->error || !c->enabled ? 0 : network_id(want, &c->network);

		if (!c->id || !network)
			continue;
		wanted[c->id & (MAX_PORTS - 1)] = true;
		configure_port(c, network);
	}
	for (uint16_t i = 1; i < MAX_PORTS; i++)
		if (ports[i] && !wanted[i])
			remove_port(i);
	free(wanted);
	return statics(want);
}

void neighbour_own_fini(void)
{
	for (uint16_t i = 1; i < MAX_PORTS; i++)
		if (ports[i])
			remove_port(i);
	busy = false;
}
