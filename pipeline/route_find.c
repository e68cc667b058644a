// route_find: the look-up. See route_table.h.
#include "key.h"
#include "rcu.h"
#include "route_private.h"
#include "stage.h"

#include <math.h>
#include <rte_branch_prediction.h>

static inline void depend(struct resolve *r, uint64_t id)
{
	if (r)
		resolve_depend(r, GEN_ROUTE, id);
}

static bool covers(const struct config_prefix *p, bool v6, const uint8_t *ip)
{
	unsigned bytes = p->len / 8, bits = p->len % 8;

	if (p->ip.v6 != v6 || memcmp(p->ip.b, ip, bytes))
		return false;
	return !bits || !((p->ip.b[bytes] ^ ip[bytes]) & 0xff << (8 - bits) & 0xff);
}

// The hop with the highest score wins (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998): a hop
// that comes or goes moves only what it wins or had won. With weights the score is -w / ln(u), by which a hop's share is its
// weight's (Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005). For equal weights that is the order of u
// itself.
static const struct route_hop *choose(const struct hops *h, uint64_t hash, bool dead_too)
{
	const struct route_hop *best = NULL;
	uint64_t best_u = 0;
	double best_score = 0;

	for (uint16_t i = 0; i < h->n; i++) {
		const struct route_hop *hop = &h->each[i].hop;

		if (!hop->port || (hop->dead && !dead_too))
			continue;
		if (h->n == 1)
			return hop;
		uint64_t u = key_mum(hash ^ h->each[i].seed, key_secret[5] ^ h->each[i].seed);
		double score = h->alike ? 0 : -hop->weight / log(((double)(u >> 11) + 0.5) * 0x1p-53);
		if (!best || (h->alike ? u > best_u : score > best_score)) {
			best = hop;
			best_u = u;
			best_score = score;
		}
	}
	return best;
}

static bool take(const struct route *at, const struct hops *h, const struct route_hop *hop, struct route_result *out)
{
	out->type = at->type;
	out->row = at->row;
	out->source = at->source;
	out->metric = at->metric;
	out->n_hops = h ? (uint8_t)h->n : 0;
	out->hop = hop;
	return true;
}

// The first route of the prefix that can be used.
static bool prefer(struct resolve *r, const struct route *first, uint64_t hash, struct route_result *out)
{
	const struct hops *last_hops = NULL;
	const struct route_hop *last_hop = NULL;
	const struct route *last = NULL;

	for (const struct route *at = first; at; at = rcu_read(at->next)) {
		if (!at->group)
			return take(at, NULL, NULL, out);
		depend(r, route_id_group(at->group->id));
		const struct hops *h = rcu_read(at->group->hops);
		if (!h->usable)
			continue;
		const struct route_hop *hop = choose(h, hash, false);
		if (hop)
			return take(at, h, hop, out);
		if (!last) { // All of its hops are dead. Perhaps there is a worse route; else it is up to the neighbour table
			     // to say so.
			last = at;
			last_hops = h;
			last_hop = choose(h, hash, true);
		}
	}
	return last && take(last, last_hops, last_hop, out);
}

static bool find_in(struct resolve *r, const struct router *router, uint32_t number, bool v6, const uint8_t *dst, uint64_t hash,
		    struct route_result *out)
{
	if (v6) {
		depend(r, route_id_stripe(router->id, number, dst, 48));
		depend(r, route_id_stripe(router->id, number, dst, 32));
	} else {
		depend(r, route_id_stripe(router->id, number, dst, 16));
	}
	const struct table *t = route_table_in(rcu_read(router->tables), number);
	uint8_t len = v6 ? 128 : 32;

	out->table = number;
	while (t) {
		const struct route *first = lpm_find(&t->lpm[v6], v6, dst, len, &len);

		if (!first)
			return false;
		out->len = len;
		if (likely(prefer(r, first, hash, out)))
			return true;
		if (!len--)
			return false;
	}
	return false;
}

static bool applies(const struct policy *p, uint16_t in_port, bool v6, const uint8_t *src, const uint8_t *dst, uint8_t tos, uint32_t mark)
{
	return (!p->has_port || (p->port && p->port == in_port)) && (!p->has_src || (src && covers(&p->src, v6, src))) &&
	       (!p->has_dst || covers(&p->dst, v6, dst)) && (p->dscp < 0 || p->dscp == tos >> 2) && mark_matches(&p->mark, mark);
}

enum route_type route_find(struct resolve *r, uint16_t id, uint16_t in_port, bool v6, const uint8_t *src, const uint8_t *dst,
			   uint8_t tos, uint32_t mark, uint64_t hash, struct route_result *out)
{
	*out = (struct route_result){.type = ROUTE_NONE};
	depend(r, route_id_router(id, v6));
	const struct router *router = rcu_read(route_routers_[id & (MAX_ROUTERS - 1)]);
	if (!router)
		return ROUTE_NONE;
	const struct policies *all = rcu_read(router->policies);
	for (uint32_t i = 0; all && i < all->n; i++) {
		const struct policy *p = &all->policy[i];

		if (!applies(p, in_port, v6, src, dst, tos, mark))
			continue;
		out->policy = p->row;
		if (p->type != ROUTE_UNICAST) {
			out->row = p->row;
			return out->type = p->type;
		}
		if (find_in(r, router, p->table, v6, dst, hash, out))
			return out->type;
		// A table without a route for it: the next rule.
		*out = (struct route_result){.type = ROUTE_NONE};
	}
	if (!find_in(r, router, 0, v6, dst, hash, out))
		*out = (struct route_result){.type = ROUTE_NONE};
	return out->type;
}

bool route_reads_ports(uint16_t id)
{
	const struct router *r = rcu_read(route_routers_[id & (MAX_ROUTERS - 1)]);

	return r && __atomic_load_n(&r->several, __ATOMIC_RELAXED);
}

bool route_reads_policy(uint16_t id)
{
	const struct router *r = rcu_read(route_routers_[id & (MAX_ROUTERS - 1)]);
	const struct policies *p = r ? rcu_read(r->policies) : NULL;

	return p && p->reads;
}
