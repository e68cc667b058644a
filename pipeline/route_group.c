// route_group: next hops of routes, shared by all routes of a router that have the same.
#include "key.h"
#include "route_private.h"
#include "rcu.h"
#include "table_stat.h"

#include <stdlib.h>

bool (*route_hop_watch)(uint16_t port, const struct config_ip *gateway, bool on);

static struct group **groups; // by id; NULL: free
static uint32_t n_groups, groups_room, used_groups;
static uint32_t *free_ids, n_free;
static struct group **buckets;
static uint32_t n_buckets; // a power of two
static uint32_t n_dead;    // hops

static uint64_t hop_seed(const struct route_hop *h)
{
	uint64_t w[2];

	memcpy(w, h->gateway.b, sizeof w);
	uint64_t s = key_mum(w[0] ^ key_secret[0], w[1] ^ key_secret[1]);
	// A port that was found by address may change and is the same next hop.
	return key_mum(s ^ key_secret[2],
		       (uint64_t)(h->by_address ? 0 : h->port) << 2 ^ (uint64_t)h->has_gateway << 1 ^ key_secret[3]);
}

// Of what the configuration says, not of what was found out since.
static uint64_t content_hash(uint16_t router, const struct route_hop *hop, uint16_t n)
{
	uint64_t h = router;

	for (uint16_t i = 0; i < n; i++)
		h = key_mum(h ^ hop_seed(&hop[i]), hop[i].weight ^ key_secret[4]);
	return h;
}

static bool same_hop(const struct route_hop *a, const struct route_hop *b)
{
	return a->weight == b->weight && a->has_gateway == b->has_gateway && a->by_address == b->by_address &&
	       (a->by_address || a->port == b->port) &&
	       (!a->has_gateway ||
		(a->gateway.v6 == b->gateway.v6 && !memcmp(a->gateway.b, b->gateway.b, a->gateway.v6 ? 16 : 4)));
}

static bool same_hops(const struct hops *have, const struct route_hop *hop, uint16_t n)
{
	if (have->n != n)
		return false;
	for (uint16_t i = 0; i < n; i++)
		if (!same_hop(&have->each[i].hop, &hop[i]))
			return false;
	return true;
}

static size_t hops_size(uint16_t n)
{
	return sizeof(struct hops) + n * sizeof(((struct hops *)0)->each[0]);
}

static void finish(struct hops *h)
{
	h->alike = true;
	h->usable = 0;
	for (uint16_t i = 0; i < h->n; i++) {
		h->usable += h->each[i].hop.port != 0;
		h->alike &= h->each[i].hop.weight == h->each[0].hop.weight;
	}
}

uint16_t route_gateway_port(const struct router *r, const struct config_ip *gateway)
{
	const struct table *t = route_table_in(r->tables, 0);
	uint8_t len = gateway->v6 ? 128 : 32;

	while (t) {
		const struct route *route = lpm_find(&t->lpm[gateway->v6], gateway->v6, gateway->b, len, &len);

		for (const struct route *at = route; at; at = at->next)
			if (at->source == ROUTE_CONNECTED && at->type == ROUTE_UNICAST)
				return at->group->hops->each[0].hop.port;
		if (!route || !len)
			break;
		len--;
	}
	return 0;
}

static bool watch(const struct route_hop *h, bool on)
{
	return route_hop_watch && h->port && h->has_gateway && route_hop_watch(h->port, &h->gateway, on);
}

static void count_dead(const struct hops *h, int sign)
{
	for (uint16_t i = 0; i < h->n; i++)
		n_dead += (uint32_t)(h->each[i].hop.dead ? sign : 0);
}

// ---- interning

static bool grow(void)
{
	if (n_groups == groups_room) {
		uint32_t room = groups_room ? groups_room * 2 : 256;
		struct group **more = realloc(groups, room * sizeof *groups);

		if (!more)
			return false;
		groups = more;
		uint32_t *ids = realloc(free_ids, room * sizeof *free_ids);
		if (!ids)
			return false;
		free_ids = ids;
		groups_room = room;
	}
	if (used_groups < n_buckets)
		return true;
	uint32_t room = n_buckets ? n_buckets * 2 : 256;
	struct group **b = calloc(room, sizeof *b);
	if (!b)
		return n_buckets > 0; // longer chains
	free(buckets);
	buckets = b;
	n_buckets = room;
	for (uint32_t i = 0; i < n_groups; i++)
		if (groups[i]) {
			struct group **at = &buckets[groups[i]->hash & (n_buckets - 1)];

			groups[i]->chain = *at;
			*at = groups[i];
		}
	return true;
}

static struct group *group_new(struct router *r, const struct route_hop *hop, uint16_t n, uint64_t hash)
{
	struct group *g = grow() ? calloc(1, sizeof *g) : NULL;
	struct hops *h = g ? calloc(1, hops_size(n)) : NULL;

	if (!h) {
		free(g);
		return NULL;
	}
	*g = (struct group){.hops = h, .id = n_free ? free_ids[--n_free] : n_groups++, .hash = hash, .owner = r};
	h->n = n;
	for (uint16_t i = 0; i < n; i++) {
		struct route_hop *mine = &h->each[i].hop;

		*mine = hop[i];
		if (mine->by_address) {
			g->by_address = true;
			mine->port = route_gateway_port(r, &mine->gateway);
		}
		mine->dead = watch(mine, true);
		h->each[i].seed = hop_seed(mine);
	}
	finish(h);
	count_dead(h, 1);
	groups[g->id] = g;
	struct group **at = &buckets[hash & (n_buckets - 1)];
	g->chain = *at;
	*at = g;
	used_groups++;
	__atomic_store_n(&r->several, r->several + (n > 1), __ATOMIC_RELAXED);
	return g;
}

struct group *group_get(struct router *r, const struct route_hop *hop, uint16_t n)
{
	uint64_t hash = content_hash(r->id, hop, n);
	struct group *g = n_buckets ? buckets[hash & (n_buckets - 1)] : NULL;

	while (g && (g->hash != hash || g->owner != r || !same_hops(g->hops, hop, n)))
		g = g->chain;
	if (!g)
		g = group_new(r, hop, n, hash);
	if (g)
		g->refs++;
	return g;
}

void group_put(struct group *g)
{
	if (!g || --g->refs)
		return;
	struct group **at = &buckets[g->hash & (n_buckets - 1)];

	while (*at != g)
		at = &(*at)->chain;
	*at = g->chain;
	groups[g->id] = NULL;
	free_ids[n_free++] = g->id;
	used_groups--;
	count_dead(g->hops, -1);
	for (uint16_t i = 0; i < g->hops->n; i++)
		watch(&g->hops->each[i].hop, false);
	if (g->hops->n > 1)
		__atomic_store_n(&g->owner->several, g->owner->several - 1, __ATOMIC_RELAXED);
	lpm_retire(g->hops);
	lpm_retire(g);
}

// ---- what is found out about next hops

// The hop as it is now; false: no change.
typedef bool change_fn(struct route_hop *, void *arg);

static bool change(struct group *g, change_fn *fn, void *arg)
{
	struct hops *old = g->hops, *new;
	bool changed = false;

	for (uint16_t i = 0; i < old->n && !changed; i++) {
		struct route_hop h = old->each[i].hop;

		changed = fn(&h, arg);
	}
	new = changed ? malloc(hops_size(old->n)) : NULL;
	if (!new)
		return false; // it stays as it was
	memcpy(new, old, hops_size(old->n));
	for (uint16_t i = 0; i < new->n; i++) {
		struct route_hop *h = &new->each[i].hop;

		if (!fn(h, arg) || h->port == old->each[i].hop.port)
			continue;
		h->dead = watch(h, true);
		watch(&old->each[i].hop, false);
	}
	finish(new);
	count_dead(old, -1);
	count_dead(new, 1);
	rcu_publish(g->hops, new);
	lpm_retire(old);
	route_note(route_id_group(g->id));
	return true;
}

static bool resolve_hop(struct route_hop *h, void *arg)
{
	uint16_t port = h->by_address ? route_gateway_port(arg, &h->gateway) : h->port;
	bool changed = port != h->port;

	h->port = port;
	return changed;
}

void groups_resolve(struct router *r)
{
	for (uint32_t i = 0; i < n_groups; i++)
		if (groups[i] && groups[i]->owner == r && groups[i]->by_address)
			change(groups[i], resolve_hop, r);
}

struct death {
	uint16_t port;
	const struct config_ip *gateway;
	bool dead;
};

static bool die(struct route_hop *h, void *arg)
{
	const struct death *d = arg;

	if (h->port != d->port || h->dead == d->dead)
		return false;
	if (d->gateway &&
	    (!h->has_gateway || h->gateway.v6 != d->gateway->v6 || memcmp(h->gateway.b, d->gateway->b, h->gateway.v6 ? 16 : 4)))
		return false;
	h->dead = d->dead;
	return true;
}

bool route_hop_dead(uint16_t port, const struct config_ip *gateway, bool dead)
{
	struct death d = {port, gateway, dead};
	bool changed = false;

	for (uint32_t i = 0; (dead || n_dead) && i < n_groups; i++)
		changed |= groups[i] && change(groups[i], die, &d);
	route_commit();
	return changed;
}

uint32_t groups_count(void)
{
	return used_groups;
}

void groups_fini(void)
{
	free(groups);
	free(free_ids);
	free(buckets);
	groups = NULL;
	free_ids = NULL;
	buckets = NULL;
	n_groups = groups_room = used_groups = n_free = n_buckets = n_dead = 0;
}
