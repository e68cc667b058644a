// route_table: routers' tables, and how they change. See route_table.h.
#include "rcu.h"
#include "route_private.h"
#include "table_stat.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define SOON_NS 100000000ULL
#define FREE_NODES 20000 // of routers that are gone, freed in one tick

struct router *route_routers_[MAX_ROUTERS];
static struct router *dying; // taken away; their memory goes in pieces
static uint32_t total;       // routes
static uint64_t pending[GEN_SLOTS / 64];
static bool any_pending;
static uint64_t committed;

// ---- generations

void route_note(uint64_t id)
{
	uint16_t slot = gen_slot(GEN_ROUTE, id);

	pending[slot / 64] |= 1ULL << slot % 64;
	any_pending = true;
}

void route_commit(void)
{
	lpm_flush();
	if (!any_pending)
		return;
	gen_bump_many(pending);
	memset(pending, 0, sizeof pending);
	any_pending = false;
}

void route_commit_soon(uint64_t now)
{
	lpm_flush();
	if (now - committed < SOON_NS)
		return;
	committed = now;
	route_commit();
}

static void note_change(const struct router *r, uint32_t table, const struct config_prefix *p)
{
	unsigned bits = p->ip.v6 ? (p->len >= 48 ? 48 : 32) : 16;

	route_note(p->len >= bits ? route_id_stripe(r->id, table, p->ip.b, bits) : route_id_router(r->id, p->ip.v6));
}

static void note_router(uint16_t id)
{
	route_note(route_id_router(id, false));
	route_note(route_id_router(id, true));
}

// ---- routers and tables

struct router *route_router_get(uint16_t id)
{
	if (!id || id >= MAX_ROUTERS)
		return NULL;
	if (route_routers_[id])
		return route_routers_[id];
	struct router *r = calloc(1, sizeof *r);
	if (!r)
		return NULL;
	r->id = id;
	rcu_publish(route_routers_[id], r);
	note_router(id);
	return r;
}

// A grace period has passed: nobody is in the router's tables any more.
static void unseen(void *arg)
{
	((struct router *)arg)->unseen = true;
}

static bool is_empty(const struct table *t)
{
	uint32_t n = 0;

	for (unsigned s = 0; s < ROUTE_SOURCES; s++)
		n += t->count[s];
	return !n;
}

// Tables whose routes have all gone make room for others: they go as those of a router that has gone.
static void drop_empty_tables(struct router *r)
{
	struct tables *old = r->tables, *new = malloc(sizeof *new + old->n * sizeof new->table[0]);
	struct tables *empty = malloc(sizeof *empty + old->n * sizeof empty->table[0]);
	struct router *grave = calloc(1, sizeof *grave);

	if (!new || !empty || !grave) {
		free(new);
		free(empty);
		free(grave);
		return;
	}
	new->n = empty->n = 0;
	for (uint32_t i = 0; i < old->n; i++) {
		struct tables *to = old->table[i]->number && is_empty(old->table[i]) ? empty : new;

		to->table[to->n++] = old->table[i];
	}
	rcu_publish(r->tables, new);
	lpm_retire(old);
	grave->tables = empty;
	grave->dying = dying;
	dying = grave;
	rcu_defer(unseen, grave);
}

static struct table *table_get(struct router *r, uint32_t number)
{
	struct table *t = route_table_in(r->tables, number);

	if (!t && r->tables && r->tables->n >= ROUTE_TABLES_MAX)
		drop_empty_tables(r);
	struct tables *old = r->tables;
	uint32_t n = old ? old->n : 0;
	if (t || n >= ROUTE_TABLES_MAX)
		return t;
	struct tables *new = malloc(sizeof *new + (n + 1) * sizeof new->table[0]);
	t = calloc(1, sizeof *t);
	if (!new || !t) {
		free(new);
		free(t);
		return NULL;
	}
	t->number = number;
	uint32_t at = 0;
	for (uint32_t i = 0; i < n; i++) {
		at += old->table[i]->number < number;
		new->table[i + (old->table[i]->number > number)] = old->table[i];
	}
	new->table[at] = t;
	new->n = n + 1;
	rcu_publish(r->tables, new);
	lpm_retire(old);
	return t;
}

static void free_list(void *value)
{
	struct route *next;

	for (struct route *at = value; at; at = next) {
		next = at->next;
		group_put(at->group);
		free(at);
	}
}

static void router_drop(struct router *r)
{
	rcu_publish(route_routers_[r->id], (struct router *)NULL);
	note_router(r->id);
	for (uint32_t i = 0; r->tables && i < r->tables->n; i++)
		for (unsigned s = 0; s < ROUTE_SOURCES; s++)
			total -= r->tables->table[i]->count[s];
	r->dying = dying;
	dying = r;
	rcu_defer(unseen, r);
}

// A piece of a router that is gone. True: there is more.
static bool router_free(struct router *r, unsigned budget)
{
	for (uint32_t i = 0; r->tables && i < r->tables->n; i++)
		for (unsigned v6 = 0; v6 < 2; v6++)
			if (lpm_free_some(&r->tables->table[i]->lpm[v6], budget, free_list))
				return true;
	for (uint32_t i = 0; r->tables && i < r->tables->n; i++)
		free(r->tables->table[i]);
	free(r->tables);
	free(r->policies);
	free(r);
	return false;
}

static void free_dying(void)
{
	for (struct router **at = &dying; *at;) {
		struct router *r = *at, *next = r->dying;

		if (!r->unseen) {
			at = &r->dying;
			continue;
		}
		if (router_free(r, FREE_NODES))
			return;
		*at = next;
	}
}

void route_set_policies(struct router *r, struct policies *p)
{
	struct policies *old = r->policies;
	size_t size = p ? sizeof *p + p->n * sizeof p->policy[0] : 0;

	if (old && p && old->n == p->n && !memcmp(old, p, size)) {
		free(p);
		return;
	}
	if (!old && !p)
		return;
	rcu_publish(r->policies, p);
	lpm_retire(old);
	note_router(r->id);
}

void route_routers(const struct config *want)
{
	for (uint16_t id = 1; id < MAX_ROUTERS; id++) {
		struct router *r = route_routers_[id];
		const struct config_router *c = NULL;

		for (size_t i = 0; r && i < want->n_routers && !c; i++)
			if (want->routers[i].id == id)
				c = &want->routers[i];
		if (r && (!c || !row_id_equal(&c->row, &r->row)))
			router_drop(r);
	}
	for (size_t i = 0; i < want->n_routers; i++) {
		const struct config_router *c = &want->routers[i];
		struct router *r = c->id ? route_router_get(c->id) : NULL;

		if (!r)
			continue;
		r->row = c->row;
		snprintf(r->name, sizeof r->name, "%s", c->name ? c->name : "");
	}
	route_commit();
}

// ---- routes

static bool before(const struct route *a, const struct route *b)
{
	if (a->metric != b->metric)
		return a->metric < b->metric;
	return a->source != b->source ? a->source < b->source : a->row < b->row;
}

static bool is_same(const struct route *a, const struct route *b)
{
	return a->source == b->source && a->row == b->row && a->metric == b->metric;
}

// Makes `new` the one behind `prev`, or the prefix' first. What comes after it in the list is its `next`.
static int link_route(struct table *t, const struct config_prefix *p, struct route *prev, struct route *new)
{
	void *old;

	if (prev) {
		rcu_publish(prev->next, new);
		return 0;
	}
	if (new)
		return lpm_set(&t->lpm[p->ip.v6], p->ip.v6, p->ip.b, p->len, new, &old);
	lpm_remove(&t->lpm[p->ip.v6], p->ip.v6, p->ip.b, p->len);
	return 0;
}

static void retire_route(struct route *r)
{
	group_put(r->group);
	lpm_retire(r);
}

int route_set(uint16_t router, uint32_t table, const struct route_spec *spec)
{
	struct config_prefix p = prefix_masked(spec->prefix);
	struct router *r = route_router_get(router);
	struct table *t = r ? table_get(r, table) : NULL;
	struct route what = {.metric = spec->metric,
			     .row = spec->row,
			     .mark = spec->mark,
			     .type = (uint8_t)spec->type,
			     .source = (uint8_t)spec->source};

	if (!t)
		return r && r->tables && r->tables->n >= ROUTE_TABLES_MAX ? -ENOSPC : -ENOMEM;
	if (spec->n_hops > ROUTE_HOPS_MAX)
		return -ENOSPC;
	if (spec->n_hops && !(what.group = group_get(r, spec->hop, spec->n_hops)))
		return -ENOMEM;
	struct route *prev = NULL, *at = lpm_get(&t->lpm[p.ip.v6], p.ip.v6, p.ip.b, p.len);
	for (; at && before(at, &what); at = at->next)
		prev = at;
	bool replaces = at && is_same(at, &what);
	if (replaces && at->type == what.type && at->group == what.group) {
		at->mark = what.mark;
		group_put(what.group);
		return 0;
	}
	struct route *new = replaces || total < ROUTE_MAX ? malloc(sizeof *new) : NULL;
	what.next = replaces ? at->next : at;
	if (new)
		*new = what;
	int rc = new ? link_route(t, &p, prev, new) : total < ROUTE_MAX ? -ENOMEM : -ENOSPC;
	if (rc) {
		free(new);
		group_put(what.group);
		return rc;
	}
	if (replaces) {
		retire_route(at);
	} else {
		t->count[what.source]++;
		total++;
	}
	note_change(r, table, &p);
	return 0;
}

static void remove_from(struct router *r, struct table *t, const struct config_prefix *p, struct route *prev, struct route *at)
{
	link_route(t, p, prev, at->next);
	t->count[at->source]--;
	total--;
	note_change(r, t->number, p);
	retire_route(at);
}

bool route_remove(uint16_t router, uint32_t table, const struct route_spec *spec)
{
	struct config_prefix p = prefix_masked(spec->prefix);
	struct router *r = router < MAX_ROUTERS ? route_routers_[router] : NULL;
	struct table *t = r ? route_table_in(r->tables, table) : NULL;
	struct route what = {.metric = spec->metric, .row = spec->row, .source = (uint8_t)spec->source}, *prev = NULL;

	for (struct route *at = t ? lpm_get(&t->lpm[p.ip.v6], p.ip.v6, p.ip.b, p.len) : NULL; at; prev = at, at = at->next)
		if (is_same(at, &what)) {
			remove_from(r, t, &p, prev, at);
			return true;
		}
	return false;
}

struct sweep {
	struct router *r;
	struct table *t;
	enum route_source source;
	uint16_t mark;
	unsigned budget;
	struct route_at *at;
};

static bool sweep_one(void *arg, const struct lpm_at *at, void *value)
{
	struct sweep *s = arg;
	struct config_prefix p = {.ip.v6 = s->at->v6, .len = at->len};
	struct route *prev = NULL, *next;

	if (!s->budget)
		return false;
	s->budget--;
	memcpy(p.ip.b, at->ip, 16);
	for (struct route *r = value; r; r = next) {
		next = r->next;
		if (r->source == s->source && r->mark != s->mark)
			remove_from(s->r, s->t, &p, prev, r);
		else
			prev = r;
	}
	s->at->begun = true;
	s->at->len = at->len;
	memcpy(s->at->ip, at->ip, 16);
	return true;
}

bool route_sweep(uint16_t router, uint32_t table, enum route_source source, uint16_t mark, struct route_at *at, unsigned budget)
{
	struct sweep s = {
		.r = route_routers_[router & (MAX_ROUTERS - 1)], .source = source, .mark = mark, .budget = budget, .at = at};

	s.t = s.r ? route_table_in(s.r->tables, table) : NULL;
	return s.t && route_walk_table(s.t, at, sweep_one, &s);
}

uint32_t route_count(uint16_t router, uint32_t table, enum route_source source)
{
	const struct router *r = route_routers_[router & (MAX_ROUTERS - 1)];
	const struct table *t = r ? route_table_in(r->tables, table) : NULL;

	return t ? t->count[source] : 0;
}

uint32_t route_total(void)
{
	return total;
}

// ---- router ports

static void set_or_remove(uint16_t router, const struct route_spec *s, bool add)
{
	if (add)
		route_set(router, 0, s);
	else
		route_remove(router, 0, s);
}

void route_connected(uint16_t router, uint16_t port, const struct config_prefix *p, uint32_t row, bool add)
{
	struct route_hop hop = {.port = port, .weight = 1};
	struct route_spec s = {
		.prefix = *p, .source = ROUTE_CONNECTED, .type = ROUTE_UNICAST, .row = row, .n_hops = 1, .hop = &hop};
	uint8_t full = p->ip.v6 ? 128 : 32;
	struct router *r = route_router_get(router);

	// Link-local addresses are a matter of their link, not of any table.
	if (!r || (p->ip.v6 && p->ip.b[0] == 0xfe && (p->ip.b[1] & 0xc0) == 0x80))
		return;
	if (p->len < full)
		set_or_remove(router, &s, add);
	s.type = ROUTE_LOCAL;
	s.prefix.len = full;
	set_or_remove(router, &s, add);
	// A packet for all hosts of a network that comes from elsewhere isn't forwarded (RFC 2644).
	if (!p->ip.v6 && p->len < 31) {
		s.type = ROUTE_BLACKHOLE;
		s.n_hops = 0;
		for (unsigned i = p->len; i < 32; i++)
			s.prefix.ip.b[i / 8] |= (uint8_t)(0x80 >> i % 8);
		set_or_remove(router, &s, add);
	}
	groups_resolve(r);
	route_commit();
}

// ---- life

static void fill_routes(table_fill_fn *fn, void *arg)
{
	fn(arg, NULL, total, ROUTE_MAX);
}

static void fill_groups(table_fill_fn *fn, void *arg)
{
	fn(arg, NULL, groups_count(), 0);
}

static struct table_stat stat_routes = {.name = "route", .help = "routes of all routers and tables", .each = fill_routes};
static struct table_stat stat_groups = {
	.name = "route_next_hops", .help = "different sets of next hops that routes have", .each = fill_groups};

int route_init(void)
{
	table_stat_register(&stat_routes);
	table_stat_register(&stat_groups);
	return 0;
}

void route_tick(uint64_t now)
{
	free_dying();
	committed = now;
	route_commit();
}

void route_fini(void)
{
	table_stat_unregister(&stat_routes);
	table_stat_unregister(&stat_groups);
	route_config_fini();
	for (unsigned id = 1; id < MAX_ROUTERS; id++)
		if (route_routers_[id])
			router_drop(route_routers_[id]);
	while (dying) {
		struct router *r = dying;

		rcu_synchronize();
		while (rcu_poll() && !r->unseen)
			rcu_synchronize();
		dying = r->dying;
		while (router_free(r, FREE_NODES))
			;
	}
	route_commit();
	rcu_poll();
	groups_fini();
	committed = 0;
}
