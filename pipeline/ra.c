// ra: router advertisements of the router ports that have them switched on (RFC 4861 section 6.2, RFC 4191, RFC 8106): by themselves, and in reply to
// solicitations, which workers copy to the main thread.
//
// Who asks and says from where is answered alone, at the next tick; where many ask at once, or somebody without an address, all nodes are told, no more than every three
// seconds. Behind `router`, which takes no port whose row has an error: a setting of advertisements that can't be is none to it. The last word of a port that stops is that it is no default router any more.
#include "ra.h"
#include "neighbour_wire.h"
#include "punt.h"
#include "respond.h"
#include "router_table.h"
#include "sentence.h"
#include "stage.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SECOND 1000000000ULL
#define INITIAL 3                        // RFC 4861 section 10
#define INITIAL_INTERVAL (16 * SECOND)
#define MIN_DELAY (3 * SECOND)           // between two to all nodes
#define MAX_DELAY (SECOND / 2)           // before a reply
#define WAITING 16                       // who is answered alone at one tick

extern struct stage stage_ra;

struct waiting {
	uint8_t mac[6], ip[16];
};

struct advertiser {
	struct ra ra;
	uint16_t network;
	bool says_mtu;      // that of the network
	uint32_t min_s, max_s;
	uint64_t next;      // when all nodes are told; 0: at once
	uint64_t last;      // when they were
	uint8_t initial;    // how many are still sent soon after each other
	uint8_t n_waiting;
	struct waiting waiting[WAITING];
};

static struct advertiser *advertisers[MAX_PORTS]; // by router port; the main thread's
static uint16_t wanted[MAX_NETWORKS];             // how many of a network; workers read
static uint64_t random_state = 0x9e3779b97f4a7c15ULL;

// In [0, n). Not secret, only different from what others on the link do.
static uint64_t any(uint64_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return n ? random_state % n : 0;
}

// ---- workers

static uint16_t ra_resolve(struct resolve *r)
{
	if (r->key->class != CLASS_ND || r->in->kind == PORT_ROUTER || !r->net || !__atomic_load_n(&wanted[r->net->id], __ATOMIC_RELAXED))
		r->flow->stages &= ~(1ULL << stage_ra.index);
	return 0;
}

static void ra_run(struct worker *w, struct pkt **p, uint16_t n)
{
	for (unsigned i = 0; i < n; i++) {
		const struct rte_mbuf *m = pkt_mbuf(p[i]);

		if (!p[i]->l4_ofs || m->data_len <= p[i]->l4_ofs || pkt_data(p[i])[p[i]->l4_ofs] != 133 || !respond_may(w, p[i]->in_port, RESPOND_TTL))
			continue;
		punt_copy(w, p[i], stage_ra.index, 0, 0);
		if (unlikely(p[i]->trace))
			trace_put(p[i]->trace, stage_ra.index, &p[i]->network, sizeof p[i]->network);
	}
}

static void ra_format(struct buf *b, const void *record, uint16_t size)
{
	const struct network *net = network_get(*(const uint16_t *)record);

	buf_add(b, "a solicitation: the routers of %s will advertise themselves", net ? net->name : "?");
}

// ---- main thread

static void send_one(uint16_t port, const struct advertiser *a, const struct waiting *to)
{
	uint8_t frame[RA_FRAME], *data;
	const struct network *net = network_get(a->network);
	struct ra ra = a->ra;

	if (a->says_mtu)
		ra.mtu = net ? net->mtu : 0;
	if (ra.mtu && ra.mtu < 1280)
		ra.mtu = 0; // IPv6 has no such links: hosts would refuse it (RFC 4861 section 6.3.4)
	unsigned len = ra_make(frame, &ra, to ? to->mac : NULL, to ? to->ip : NULL);
	struct rte_mbuf *m = len ? punt_new((uint16_t)len, &data) : NULL;
	if (!m)
		return;
	memcpy(data, frame, len);
	punt_send(m, port);
}

// Soon, but not sooner than the rules allow.
static void hurry(struct advertiser *a, uint64_t now)
{
	uint64_t at = now + any(MAX_DELAY);

	if (a->last && at < a->last + MIN_DELAY)
		at = a->last + MIN_DELAY;
	if (a->next > at)
		a->next = at;
}

static void tick_one(uint16_t port, struct advertiser *a, uint64_t now)
{
	for (unsigned i = 0; i < a->n_waiting; i++)
		send_one(port, a, &a->waiting[i]);
	a->n_waiting = 0;
	if (now < a->next)
		return;
	send_one(port, a, NULL);
	a->last = now;
	uint64_t interval = a->min_s * SECOND + any((a->max_s - a->min_s) * SECOND + 1);
	if (a->initial && --a->initial && interval > INITIAL_INTERVAL)
		interval = INITIAL_INTERVAL;
	a->next = now + interval;
}

static uint64_t clock_now;

static void ra_tick(uint64_t now)
{
	clock_now = now;
	random_state += now;
	for (unsigned i = 1; i < MAX_PORTS; i++)
		if (advertisers[i] && router_port_get((uint16_t)i))
			tick_one((uint16_t)i, advertisers[i], now);
}

// A router solicitation; sections 6.1.1 and 6.2.6.
static void ra_punted(struct rte_mbuf *mbuf, uint8_t kind, uint16_t arg)
{
	static const uint8_t nobody[16];
	const struct pkt *p = pkt_of(mbuf);
	struct neighbour_message m;
	bool is = neighbour_message(p, &m) && m.kind == MESSAGE_SOLICIT;

	for (const struct router_port *rp = NULL; is && (rp = router_port_in(p->network, rp));) {
		struct advertiser *a = advertisers[rp->id];

		if (!a)
			continue;
		if (!memcmp(m.sender.b, nobody, 16) || a->n_waiting == WAITING) {
			hurry(a, clock_now);
			continue;
		}
		struct waiting *to = &a->waiting[a->n_waiting++];
		memcpy(to->mac, m.eth_src, 6);
		memcpy(to->ip, m.sender.b, 16);
	}
	punt_consume(mbuf);
}

static bool same_prefix(const struct config_prefix *a, const struct config_prefix *b)
{
	return a->len == b->len && ip_in_prefix(a->ip.b, b->ip.b, a->len);
}

static void read_addresses(struct config_router_port *cr, struct ra *ra)
{
	for (size_t i = 0; i < cr->n_addresses; i++) {
		const struct config_prefix *p = &cr->addresses[i];
		bool known = !p->ip.v6 || ip_is_link_local(true, p->ip.b);

		for (unsigned k = 0; k < ra->n_prefixes && !known; k++)
			known = same_prefix(&ra->prefix[k], p);
		if (!known && ra->n_prefixes == RA_PREFIXES)
			sentence_set(&cr->error, "ra: one advertisement has room for %u prefixes, the others are not announced", RA_PREFIXES);
		else if (!known)
			ra->prefix[ra->n_prefixes++] = *p;
	}
}

// Words of the text, one after the other. False: there is none any more.
static bool word(const char **text, char *to, size_t room)
{
	*text += strspn(*text, " ,\t");
	size_t n = strcspn(*text, " ,\t");

	if (!n)
		return false;
	size_t copied = n < room ? n : room - 1;
	memcpy(to, *text, copied);
	to[copied] = '\0';
	*text += n;
	return true;
}

static void read_dns(struct config_router_port *cr, struct ra *ra)
{
	const char *servers = config_map_get(&cr->ra, "rdnss", ""), *domains = config_map_get(&cr->ra, "dnssl", "");
	char one[256];

	while (word(&servers, one, sizeof one)) {
		if (ra->n_servers == RA_SERVERS)
			sentence_set(&cr->error, "ra: rdnss: one advertisement has room for %u name servers", RA_SERVERS);
		else if (inet_pton(AF_INET6, one, ra->server[ra->n_servers]) != 1)
			sentence_set(&cr->error, "ra: rdnss: %s is no IPv6 address", one);
		else
			ra->n_servers++;
	}
	while (word(&domains, one, sizeof one)) {
		int rc = ra_add_domain(ra, one);

		if (rc == -EINVAL)
			sentence_set(&cr->error, "ra: dnssl: %s is no domain name", one);
		else if (rc)
			sentence_set(&cr->error, "ra: dnssl: the domains are longer than %u bytes together", RA_SEARCH);
	}
}

static uint32_t number(const struct config_router_port *cr, const char *key, uint64_t fallback, uint64_t lo, uint64_t hi)
{
	return (uint32_t)config_map_uint(&cr->ra, key, fallback, lo, hi, NULL);
}

// What the row says; what can't be gets a sentence, and the next best.
static void read_row(struct config_router_port *cr, struct advertiser *a)
{
	struct ra *ra = &a->ra;
	const char *preference = config_map_get(&cr->ra, "preference", "medium"), *mtu = config_map_get(&cr->ra, "mtu", NULL);

	memset(a, 0, sizeof *a);
	a->max_s = number(cr, "max-interval", 600, 4, 1800);
	uint32_t most = a->max_s * 3 / 4 > 3 ? a->max_s * 3 / 4 : 3, third = a->max_s / 3 > 3 ? a->max_s / 3 : 3;
	a->min_s = number(cr, "min-interval", third, 3, 1350);
	if (a->min_s > most) { // RFC 4861 section 6.2.1
		sentence_set(&cr->error, "ra: min-interval %u is more than three quarters of max-interval %u: %u is used", a->min_s, a->max_s, most);
		a->min_s = most;
	}
	ra->lifetime_s = (uint16_t)number(cr, "lifetime", 3 * a->max_s, 0, 9000);
	if (ra->lifetime_s && ra->lifetime_s < a->max_s) {
		sentence_set(&cr->error, "ra: lifetime %u is less than max-interval %u, which is used: guests would lose the router between two advertisements", ra->lifetime_s,
			     a->max_s);
		ra->lifetime_s = (uint16_t)a->max_s;
	}
	ra->hop_limit = (uint8_t)number(cr, "hop-limit", 64, 0, 255);
	ra->flags = (uint8_t)((config_map_bool(&cr->ra, "managed", false) ? RA_MANAGED : 0) | (config_map_bool(&cr->ra, "other", false) ? RA_OTHER : 0));
	if (ra->lifetime_s) // RFC 4191 section 2.2: else it has to be medium
		ra->flags |= !strcmp(preference, "high") ? RA_HIGH : !strcmp(preference, "low") ? RA_LOW : 0;
	ra->reachable_ms = number(cr, "reachable-time", 0, 0, 3600000);
	ra->retrans_ms = number(cr, "retrans-timer", 0, 0, UINT32_MAX);
	a->says_mtu = !mtu;
	ra->mtu = (uint16_t)number(cr, "mtu", 0, 0, 9216);
	ra->prefix_flags = (uint8_t)((config_map_bool(&cr->ra, "on-link", true) ? RA_PREFIX_ON_LINK : 0) |
				     (config_map_bool(&cr->ra, "autonomous", true) ? RA_PREFIX_AUTONOMOUS : 0));
	ra->valid_s = number(cr, "valid-lifetime", 2592000, 0, UINT32_MAX);
	ra->preferred_s = number(cr, "preferred-lifetime", 604800, 0, UINT32_MAX);
	ra->dns_s = number(cr, "dns-lifetime", 3 * a->max_s, 0, UINT32_MAX);
	read_addresses(cr, ra);
	read_dns(cr, ra);
}

// The last word.
static void resign(uint16_t port)
{
	struct advertiser *a = advertisers[port];

	a->ra.lifetime_s = 0;
	a->ra.flags &= (uint8_t)~RA_LOW;
	send_one(port, a, NULL);
	free(a);
	advertisers[port] = NULL;
}

static bool wants(const struct config_router_port *cr)
{
	return cr->enabled && !cr->error && config_map_bool(&cr->ra, "send", false);
}

static uint16_t port_of(const struct config *c, const struct row_id *row)
{
	for (size_t i = 0; i < c->n_ports; i++)
		if (c->ports[i].kind == PORT_ROUTER && row_id_equal(&c->ports[i].row, row))
			return c->ports[i].id;
	return 0;
}

static void resign_others(const bool *stays)
{
	for (unsigned i = 1; i < MAX_PORTS; i++)
		if (advertisers[i] && !stays[i])
			resign((uint16_t)i);
}

// Before the topology is published: ports that stop say so while they are there.
static int ra_prepare(struct config *want)
{
	bool stays[MAX_PORTS] = {false};

	for (size_t i = 0; i < want->n_router_ports; i++)
		if (wants(&want->router_ports[i]))
			stays[port_of(want, &want->router_ports[i].row)] = true;
	resign_others(stays);
	return 0;
}

// False: it can't be.
static bool apply(struct config_router_port *cr, uint16_t network)
{
	const struct config_prefix *src = NULL;
	struct advertiser fresh, *a = advertisers[cr->id];

	for (size_t i = 0; i < cr->n_addresses && !src; i++)
		if (cr->addresses[i].ip.v6 && ip_is_link_local(true, cr->addresses[i].ip.b))
			src = &cr->addresses[i];
	if (!src) {
		sentence_set(&cr->error, "ra: the port has no link-local IPv6 address to advertise itself from");
		return false;
	}
	read_row(cr, &fresh);
	fresh.network = network;
	memcpy(fresh.ra.mac, cr->mac, 6);
	memcpy(fresh.ra.src, src->ip.b, 16);
	if (a && !memcmp(&a->ra, &fresh.ra, sizeof fresh.ra) && a->network == fresh.network && a->says_mtu == fresh.says_mtu && a->min_s == fresh.min_s &&
	    a->max_s == fresh.max_s)
		return true;
	if (!a)
		a = advertisers[cr->id] = malloc(sizeof *a);
	else
		fresh.last = a->last;
	if (!a)
		return false;
	*a = fresh;
	a->initial = INITIAL; // RFC 4861 section 6.2.4: also when something changes
	a->next = a->last && clock_now < a->last + MIN_DELAY ? a->last + MIN_DELAY : 0;
	return true;
}

static uint16_t network_of(const struct config *c, const struct row_id *row)
{
	for (size_t i = 0; i < c->n_networks; i++)
		if (row_id_equal(&c->networks[i].row, row))
			return c->networks[i].id;
	return 0;
}

static int ra_reconcile(struct config *want)
{
	uint16_t now[MAX_NETWORKS] = {0};
	bool stays[MAX_PORTS] = {false};

	for (size_t i = 0; i < want->n_router_ports; i++) {
		struct config_router_port *cr = &want->router_ports[i];
		uint16_t network = wants(cr) && cr->id ? network_of(want, &cr->network) : 0;

		if (!network || !apply(cr, network))
			continue;
		stays[cr->id] = true;
		now[network]++;
	}
	resign_others(stays);
	for (unsigned i = 0; i < MAX_NETWORKS; i++) {
		if (now[i] == wanted[i])
			continue;
		__atomic_store_n(&wanted[i], now[i], __ATOMIC_RELAXED);
		gen_bump(gen_slot(GEN_NETWORK, i));
	}
	return 0;
}

static void ra_fini(void)
{
	for (unsigned i = 1; i < MAX_PORTS; i++) {
		free(advertisers[i]);
		advertisers[i] = NULL;
	}
	memset(wanted, 0, sizeof wanted);
}

// It drops nothing.
struct stage stage_ra = {
	.name = "ra",
	.resolve = ra_resolve,
	.run = ra_run,
	.format = ra_format,
	.punted = ra_punted,
	.prepare = ra_prepare,
	.reconcile = ra_reconcile,
	.tick = ra_tick,
	.fini = ra_fini,
};
