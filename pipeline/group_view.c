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
	struct group_lists lists;
};

struct view {
	struct view *next;
	uint16_t network;
	uint32_t n;
	struct config_ip ip;
	struct group_lists any;      // of a source that is not among these
	struct view_source source[]; // by address
};

struct group_network *group_networks[MAX_NETWORKS];
static struct view *bucket[BUCKETS]; // RCU
static uint32_t n_views;

static uint64_t hash_of(uint16_t network, const struct config_ip *ip)
{
	uint64_t a, b;

	memcpy(&a, ip->b, 8);
	memcpy(&b, ip->b + 8, 8);
	return key_mum(a ^ key_secret[2] ^ network, b ^ key_secret[3]);
}

uint64_t group_generation(uint16_t network, const struct config_ip *group)
{
	return (uint64_t)network << 32 | (group ? hash_of(network, group) & 0xffffffff : 0);
}

// ---- workers

static bool same_group(const struct view *v, uint16_t network, const struct config_ip *ip)
{
	return v->network == network && v->ip.v6 == ip->v6 && !memcmp(v->ip.b, ip->b, 16);
}

bool group_view_find(uint16_t network, const struct config_ip *ip, const uint8_t source[16], struct group_lists *l)
{
	const struct view *v = rcu_read(bucket[hash_of(network, ip) % BUCKETS]);

	while (v && !same_group(v, network, ip))
		v = rcu_read(v->next);
	if (!v)
		return false;
	*l = v->any;
	for (uint32_t low = 0, high = v->n; low < high;) {
		uint32_t mid = (low + high) / 2;
		int c = memcmp(v->source[mid].ip, source, 16);

		if (!c) {
			*l = v->source[mid].lists;
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

#define ROUTER_REAL (ROUTER_STATIC | ROUTER_QUERY | ROUTER_HELLO)

static void put_routers(const struct snoop *s, bool v6, uint8_t which, uint16_t why, const uint8_t *src)
{
	for (unsigned i = 0; i < s->asker[v6].n_routers; i++)
		if (s->asker[v6].router[i].why & which)
			put(s->network, s->asker[v6].router[i].port, why, src);
}

static bool put_members(const struct group *g, const uint8_t *source, const uint8_t *src)
{
	unsigned before = n_put;

	for (const struct member *m = g ? g->members : NULL; m; m = m->next)
		if (group_wants(m, source))
			put(g->network, m->port, TARGET_MEMBER, src);
	return n_put > before;
}

// What the router does with a packet that came in from s: who asked in its other networks, and multicast routers there.
static void put_others(const struct snoop *s, const struct config_ip *ip, const uint8_t *source)
{
	for (const struct snoop *o = group_first_of(s->policy.router); o; o = o->router_next) {
		if (o == s)
			continue;
		if (put_members(group_find(o->network, ip), source, o->policy.mac))
			put_routers(o, ip->v6, ROUTER_REAL, TARGET_ROUTER, o->policy.mac);
		else if (o->policy.upstream) // RFC 4605 section 4.3: what comes from downstream goes upstream
			put_routers(o, ip->v6, ROUTER_REAL, TARGET_UPSTREAM, o->policy.mac);
	}
}

static struct group_lists lists_for(const struct snoop *s, const struct config_ip *ip, const uint8_t *source)
{
	struct group *g = group_find(s->network, ip);
	struct group_lists l = {0, 0};

	put_members(g, source, NULL);
	put_routers(s, ip->v6, ROUTER_REAL, TARGET_ROUTER, NULL);
	l.local = made();
	if (!s->policy.router || group_ip_is_link(ip))
		return l;
	put_others(s, ip, source);
	if (!n_put)
		return l;
	put_members(g, source, NULL);
	put_routers(s, ip->v6, ROUTER_REAL, TARGET_ROUTER, NULL);
	l.routed = made();
	return l;
}

static void release(const struct group_lists *l)
{
	targets_release(l->local);
	targets_release(l->routed);
}

// ---- views

static int by_address(const void *a, const void *b)
{
	return memcmp(a, b, 16);
}

// Sources that somebody says something of, in the network and, if it is routed, in the router's others. Returns how many; *any: somebody is in the group.
static uint32_t gather(const struct snoop *s, const struct config_ip *ip, uint8_t (**list)[16], bool *any)
{
	static uint8_t found[4 * VIEW_SOURCES][16];
	uint32_t n = 0, k = 0;
	const struct snoop *o = s->policy.router && !group_ip_is_link(ip) ? group_first_of(s->policy.router) : s;

	*any = false;
	for (; o; o = s->policy.router ? o->router_next : NULL) {
		struct group *g = group_find(o->network, ip);

		for (const struct member *m = g ? g->members : NULL; m; m = m->next) {
			*any = true;
			for (uint32_t i = 0; i < m->n_sources && n < 4 * VIEW_SOURCES; i++)
				memcpy(found[n++], m->source[i].ip, 16);
		}
		if (o == s && group_ip_is_link(ip))
			break;
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
	return a->n == b->n && !memcmp(&a->any, &b->any, sizeof a->any) && !memcmp(a->source, b->source, a->n * sizeof a->source[0]);
}

static void view_release(const struct view *v)
{
	release(&v->any);
	for (uint32_t i = 0; i < v->n; i++)
		release(&v->source[i].lists);
}

// Puts `new` (NULL: nothing) in the place of `*at`.
static void replace(struct view **at, struct view *new, uint16_t network, const struct config_ip *ip)
{
	struct view *old = *at && same_group(*at, network, ip) ? *at : NULL;

	if (new)
		new->next = old ? old->next : *at;
	rcu_publish(*at, new ? new : old->next);
	n_views += !!new;
	n_views -= !!old;
	gen_bump(gen_slot(GEN_GROUP, group_generation(network, ip)));
	if (old) {
		view_release(old);
		rcu_free_later(old);
	}
}

static struct view **place_of(uint16_t network, const struct config_ip *ip)
{
	struct view **at = &bucket[hash_of(network, ip) % BUCKETS];

	while (*at && !same_group(*at, network, ip))
		at = &(*at)->next;
	return at;
}

static void build(const struct snoop *s, const struct config_ip *ip)
{
	struct view **at = place_of(s->network, ip), *old = *at;
	uint8_t(*source)[16];
	bool any;
	uint32_t n = gather(s, ip, &source, &any);

	if (!any) {
		if (old)
			replace(at, NULL, s->network, ip);
		return;
	}
	struct view *v = calloc(1, sizeof *v + n * sizeof v->source[0]);
	if (!v)
		return;
	v->network = s->network;
	v->ip = *ip;
	v->any = lists_for(s, ip, NULL);
	for (uint32_t i = 0; i < n; i++) {
		struct view_source vs = {.lists = lists_for(s, ip, source[i])};

		memcpy(vs.ip, source[i], 16);
		if (!memcmp(&vs.lists, &v->any, sizeof vs.lists)) // as any other
			release(&vs.lists);
		else
			v->source[v->n++] = vs;
	}
	if (old && same_lists(old, v)) {
		view_release(v);
		free(v);
		return;
	}
	if (!old)
		at = &bucket[hash_of(s->network, ip) % BUCKETS];
	replace(at, v, s->network, ip);
}

void group_view_group(const struct snoop *s, const struct config_ip *ip)
{
	build(s, ip);
	for (const struct snoop *o = group_first_of(s->policy.router); o; o = o->router_next)
		if (o != s)
			build(o, ip);
}

// ---- networks

static uint16_t list_of_reports(const struct snoop *s, bool v6)
{
	put_routers(s, v6, 0xff, TARGET_ROUTER, NULL);
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
			put_routers(o, v6, ROUTER_REAL, TARGET_UPSTREAM, o->policy.mac);
	if (!n_put)
		return 0;
	if (s->policy.unregistered == GROUP_FLOOD)
		for (unsigned i = 0; i < s->n_ports; i++)
			put(s->network, s->port[i], 0, NULL);
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

	for (unsigned i = 0; i < BUCKETS; i++) {
		for (struct view **at = &bucket[i]; *at;) {
			if ((*at)->network == network) {
				struct config_ip ip = (*at)->ip;

				replace(at, NULL, network, &ip);
			} else {
				at = &(*at)->next;
			}
		}
	}
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
