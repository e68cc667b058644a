// group_view: see group_view.h.
#include "group_view.h"
#include "gen.h"
#include "group_private.h"
#include "key.h"
#include "table_stat.h"
#include "targets.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS 16384
#define VIEW_SOURCES 4096 // of one group that are told apart

struct view_source {
	uint8_t ip[16];
	uint16_t list;
};

struct view {
	struct view *next;
	uint16_t domain;
	uint16_t any; // of a source that is not among these
	uint32_t n;
	struct config_ip ip;
	struct view_source source[]; // by address
};

struct group_network *group_networks[MAX_NETWORKS];
static struct view *bucket[BUCKETS]; // RCU

uint16_t group_domain(uint16_t network, uint16_t router, const struct config_ip *group)
{
	return router && !group_ip_is_link(group) ? GROUP_OF_ROUTER | router : network;
}

static uint64_t hash_of(uint16_t domain, const struct config_ip *ip)
{
	uint64_t a, b;

	memcpy(&a, ip->b, 8);
	memcpy(&b, ip->b + 8, 8);
	return key_mum(a ^ key_secret[2] ^ domain, b ^ key_secret[3]);
}

uint64_t group_generation(uint16_t domain, const struct config_ip *group)
{
	return (uint64_t)domain << 32 | (group ? hash_of(domain, group) & 0xffffffff : 0);
}

// ---- workers

static bool same_group(const struct view *v, uint16_t domain, const struct config_ip *ip)
{
	return v->domain == domain && v->ip.v6 == ip->v6 && !memcmp(v->ip.b, ip->b, 16);
}

bool group_view_find(uint16_t domain, const struct config_ip *ip, const uint8_t source[16], uint16_t *list)
{
	const struct view *v = rcu_read(bucket[hash_of(domain, ip) % BUCKETS]);

	while (v && !same_group(v, domain, ip))
		v = rcu_read(v->next);
	if (!v)
		return false;
	*list = v->any;
	for (uint32_t low = 0, high = v->n; low < high;) {
		uint32_t mid = (low + high) / 2;
		int c = memcmp(v->source[mid].ip, source, 16);

		if (!c) {
			*list = v->source[mid].list;
			break;
		}
		if (c < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return true;
}

// ---- lists in the making

static struct target *put_to;
static unsigned n_put, put_room;

static void put(uint16_t network, uint16_t port, uint16_t why, const uint8_t *src)
{
	if (n_put == put_room) {
		unsigned more = put_room ? 2 * put_room : 256;
		struct target *grown = realloc(put_to, more * sizeof *grown);

		if (!grown)
			return;
		put_to = grown;
		put_room = more;
	}
	struct target *t = &put_to[n_put++];
	memset(t, 0, sizeof *t);
	t->network = network;
	t->port = port;
	t->why = why;
	if (src)
		memcpy(t->src, src, 6);
}

static int by_place(const void *a, const void *b)
{
	const struct target *x = a, *y = b;

	return x->network != y->network ? x->network - y->network : x->port - y->port;
}

static uint16_t made(void)
{
	unsigned n = 0;

	if (!n_put)
		return 0;
	qsort(put_to, n_put, sizeof *put_to, by_place);
	for (unsigned i = 0; i < n_put; i++) {
		if (n && !by_place(&put_to[n - 1], &put_to[i]))
			put_to[n - 1].why |= put_to[i].why;
		else
			put_to[n++] = put_to[i];
	}
	n_put = 0;
	return targets_intern(put_to, n);
}

#define ROUTER_REAL (ROUTER_STATIC | ROUTER_QUERY | ROUTER_HELLO | ROUTER_ANNOUNCED)

// Packets of other networks: who has the same router behind the tunnel forwards them to its own ports (architecture.md,
// Routing); for who has none this one does.
static uint16_t behind(const struct snoop *s, bool v6, uint16_t port, const uint8_t *src)
{
	if (!src || !group_is_tunnel(s, port))
		return 0;
	return group_port(s, port)->same_router[v6] ? TARGET_LOCAL : TARGET_FIRST;
}

static void put_routers(const struct snoop *s, bool v6, uint8_t which, uint16_t why, const uint8_t *src)
{
	for (unsigned i = 0; i < s->asker[v6].n_routers; i++)
		if (s->asker[v6].router[i].why & which)
			put(s->network, s->asker[v6].router[i].port, why | behind(s, v6, s->asker[v6].router[i].port, src),
			    src);
}

static bool put_members(const struct snoop *s, const struct group *g, uint16_t why, const uint8_t *source, const uint8_t *src)
{
	unsigned before = n_put;

	for (const struct member *m = g ? g->members : NULL; m; m = m->next)
		if (group_wants(m, source))
			put(g->network, m->port, why | behind(s, g->ip.v6, m->port, src), src);
	return n_put > before;
}

// A multicast router is at a port of this switch.
static bool has_router(const struct snoop *s, bool v6)
{
	for (unsigned i = 0; i < s->asker[v6].n_routers; i++)
		if (s->asker[v6].router[i].why & ROUTER_REAL && !group_is_tunnel(s, s->asker[v6].router[i].port))
			return true;
	return false;
}

// Who gets a packet of the source. Multicast routers of a network get those that are in it; what comes from others is in it if
// somebody there asked for it, or if it is upstream (RFC 4605 section 4.3). Each switch of a router forwards to its own ports;
// into an upstream network with a router the first one does, for all members there.
static uint16_t list_for(uint16_t domain, const struct config_ip *ip, const uint8_t *source)
{
	for (const struct snoop *s = group_first_in(domain, ip); s; s = group_next_in(domain, s)) {
		const uint8_t *src = domain & GROUP_OF_ROUTER ? s->policy.mac : NULL;
		bool up = src && s->policy.upstream;
		uint16_t first = up && has_router(s, ip->v6) ? TARGET_FIRST : 0;
		bool members = put_members(s, group_find(s->network, ip), TARGET_MEMBER | first, source, src);

		put_routers(s, ip->v6, ROUTER_REAL,
			    TARGET_ROUTER | (up                ? TARGET_UPSTREAM | TARGET_FIRST
					     : src && !members ? TARGET_LOCAL
							       : 0),
			    src);
	}
	return made();
}

// ---- views

static int by_address(const void *a, const void *b)
{
	return memcmp(a, b, 16);
}

// Sources that somebody says something of. Returns how many; *any: somebody is in the group.
static uint32_t gather(uint16_t domain, const struct config_ip *ip, uint8_t (**list)[16], bool *any)
{
	static uint8_t found[4 * VIEW_SOURCES][16];
	uint32_t n = 0, k = 0;

	*any = false;
	for (const struct snoop *s = group_first_in(domain, ip); s; s = group_next_in(domain, s)) {
		struct group *g = group_find(s->network, ip);

		for (const struct member *m = g ? g->members : NULL; m; m = m->next) {
			*any = true;
			for (uint32_t i = 0; i < m->n_sources && n < 4 * VIEW_SOURCES; i++)
				memcpy(found[n++], m->source[i].ip, 16);
		}
	}
	qsort(found, n, 16, by_address);
	for (uint32_t i = 0; i < n && k < VIEW_SOURCES; i++)
		if (!k || memcmp(found[k - 1], found[i], 16))
			memmove(found[k++], found[i], 16);
	*list = found;
	return k;
}

static bool same_lists(const struct view *a, const struct view *b)
{
	return a->n == b->n && a->any == b->any && !memcmp(a->source, b->source, a->n * sizeof a->source[0]);
}

static void view_release(const struct view *v)
{
	targets_release(v->any);
	for (uint32_t i = 0; i < v->n; i++)
		targets_release(v->source[i].list);
}

// Puts `new` (NULL: nothing) in the place of *at, which is the group's old view or where a new one goes.
static void replace(struct view **at, struct view *new, uint16_t domain, const struct config_ip *ip)
{
	struct view *old = *at;

	if (new)
		new->next = old ? old->next : NULL;
	rcu_publish(*at, new ? new : old->next);
	gen_bump(gen_slot(GEN_GROUP, group_generation(domain, ip)));
	if (old) {
		view_release(old);
		rcu_free_later(old);
	}
}

static void build(uint16_t domain, const struct config_ip *ip)
{
	struct view **at = &bucket[hash_of(domain, ip) % BUCKETS];
	uint8_t(*source)[16];
	bool any;
	uint32_t n = gather(domain, ip, &source, &any);

	while (*at && !same_group(*at, domain, ip))
		at = &(*at)->next;
	if (!any) {
		if (*at)
			replace(at, NULL, domain, ip);
		return;
	}
	struct view *v = calloc(1, sizeof *v + n * sizeof v->source[0]);
	if (!v)
		return;
	v->domain = domain;
	v->ip = *ip;
	v->any = list_for(domain, ip, NULL);
	for (uint32_t i = 0; i < n; i++) {
		struct view_source vs = {.list = list_for(domain, ip, source[i])};

		memcpy(vs.ip, source[i], 16);
		if (vs.list == v->any) // as any other
			targets_release(vs.list);
		else
			v->source[v->n++] = vs;
	}
	if (*at && same_lists(*at, v)) {
		view_release(v);
		free(v);
		return;
	}
	replace(at, v, domain, ip);
}

void group_view_group(const struct snoop *s, const struct config_ip *ip)
{
	build(group_domain(s->network, s->policy.router, ip), ip);
}

void group_view_domain(uint16_t domain)
{
	for (unsigned i = 0; i < BUCKETS; i++) {
		for (struct view *v = bucket[i], *next; v; v = next) {
			struct config_ip ip = v->ip;

			next = v->next;
			if (v->domain == domain)
				build(domain, &ip);
		}
	}
}

// ---- networks

// Not to other switches: they hear from this one what its stations want (group_proxy.h). 0: to nobody, or, as long as
// memberships aren't known, to all.
static uint16_t list_of_reports(const struct snoop *s, bool v6)
{
	const struct asker *a = &s->asker[v6];

	if (!a->settled && s->n_tunnels)
		for (unsigned i = 0; i < s->n_ports; i++)
			if (!s->port[i].is.tunnel)
				put(s->network, s->port[i].is.port, 0, NULL);
	for (unsigned i = 0; a->settled && i < a->n_routers; i++)
		if (!group_is_tunnel(s, a->router[i].port))
			put(s->network, a->router[i].port, TARGET_ROUTER, NULL);
	return made();
}

static uint16_t list_of_routers(const struct snoop *s, bool v6)
{
	put_routers(s, v6, ROUTER_REAL, TARGET_ROUTER, NULL);
	return made();
}

static uint16_t list_up(const struct snoop *s, bool v6)
{
	for (const struct snoop *o = group_first_of(s->policy.router); o; o = o->router_next)
		if (o != s && o->policy.upstream && !s->policy.upstream)
			put_routers(o, v6, ROUTER_REAL, TARGET_UPSTREAM | TARGET_FIRST, o->policy.mac);
	if (!n_put)
		return 0;
	if (s->policy.unregistered == GROUP_FLOOD)
		for (unsigned i = 0; i < s->n_ports; i++)
			put(s->network, s->port[i].is.port, 0, NULL);
	else if (s->policy.unregistered == GROUP_ROUTERS)
		put_routers(s, v6, ROUTER_REAL, TARGET_ROUTER, NULL);
	return made();
}

static void network_release(struct group_network *gn)
{
	for (unsigned v6 = 0; gn && v6 < 2; v6++) {
		targets_release(gn->routers[v6]);
		targets_release(gn->reports[v6]);
		targets_release(gn->up[v6]);
	}
}

static void publish_network(const struct snoop *s)
{
	struct group_network *gn = calloc(1, sizeof *gn), *old = group_networks[s->network];

	if (!gn)
		return;
	gn->unregistered = s->policy.unregistered;
	gn->router = s->policy.router;
	gn->lport = s->policy.lport;
	gn->asks = s->policy.querier;
	for (unsigned i = 0; i < s->n_ports; i++)
		if (s->port[i].is.guarded)
			gn->guarded[s->port[i].is.port / 64] |= 1ULL << s->port[i].is.port % 64;
	for (unsigned v6 = 0; v6 < 2; v6++) {
		gn->settled[v6] = s->asker[v6].settled;
		gn->routers[v6] = list_of_routers(s, v6);
		gn->reports[v6] = list_of_reports(s, v6);
		gn->up[v6] = list_up(s, v6);
	}
	if (old && !memcmp(old, gn, sizeof *gn)) {
		network_release(gn);
		free(gn);
		return;
	}
	rcu_publish(group_networks[s->network], gn);
	gen_bump(gen_slot(GEN_GROUP, group_generation(s->network, NULL)));
	network_release(old);
	rcu_free_later(old);
}

void group_view_network(const struct snoop *s)
{
	publish_network(s);
	if (s->policy.upstream)
		for (const struct snoop *o = group_first_of(s->policy.router); o; o = o->router_next)
			publish_network(o);
	for (uint32_t i = 0; i < group_slots; i++)
		if (group_slot[i] && group_slot[i]->network == s->network)
			group_view_group(s, &group_slot[i]->ip);
}

void group_view_remove(uint16_t network)
{
	struct group_network *old = group_networks[network];

	group_view_domain(network);
	rcu_publish(group_networks[network], NULL);
	gen_bump(gen_slot(GEN_GROUP, group_generation(network, NULL)));
	network_release(old);
	rcu_free_later(old);
}

void group_view_fini(void)
{
	free(put_to);
	put_to = NULL;
	put_room = 0;
}
