// route_show: what people and listings see of the route tables.
#include "route_private.h"

struct visit {
	struct route_at *at;
	route_visit_fn *fn;
	void *arg;
};

static bool visit_one(void *arg, const struct lpm_at *at, void *value)
{
	struct visit *v = arg;
	struct route_hop hop[ROUTE_HOPS_MAX];
	bool best = false;

	for (const struct route *r = value; r; r = r->next) {
		const struct hops *h = r->group ? r->group->hops : NULL;
		struct route_view view = {
			.spec = {.prefix = {.ip.v6 = v->at->v6, .len = at->len},
				 .source = r->source,
				 .type = r->type,
				 .metric = r->metric,
				 .row = r->row,
				 .mark = r->mark,
				 .n_hops = h ? h->n : 0,
				 .hop = hop},
			.first = r == value,
			.best = !best && (!h || h->usable),
		};

		memcpy(view.spec.prefix.ip.b, at->ip, 16);
		for (uint16_t i = 0; h && i < h->n; i++)
			hop[i] = h->each[i].hop;
		best |= view.best;
		if (!v->fn(v->arg, &view))
			return false;
	}
	v->at->begun = true;
	v->at->len = at->len;
	memcpy(v->at->ip, at->ip, 16);
	return true;
}

bool route_walk_table(const struct table *t, struct route_at *at, lpm_visit_fn *fn, void *arg)
{
	for (; t; *at = (struct route_at){.v6 = true}) {
		struct lpm_at from = {.begun = at->begun, .len = at->len};

		memcpy(from.ip, at->ip, 16);
		if (lpm_walk(&t->lpm[at->v6], at->v6, &from, fn, arg))
			return true;
		if (at->v6)
			break;
	}
	return false;
}

bool route_walk(uint16_t router, uint32_t table, struct route_at *at, route_visit_fn *fn, void *arg)
{
	const struct router *r = route_routers_[router & (MAX_ROUTERS - 1)];
	struct visit v = {at, fn, arg};

	return r && route_walk_table(route_table_in(r->tables, table), at, visit_one, &v);
}

bool route_get(uint16_t router, uint32_t table, const struct route_spec *spec, struct route_hop hop[ROUTE_HOPS_MAX],
	       uint16_t *n)
{
	struct config_prefix p = prefix_masked(spec->prefix);
	const struct router *r = route_routers_[router & (MAX_ROUTERS - 1)];
	const struct table *t = r ? route_table_in(r->tables, table) : NULL;
	const struct route *at = t ? lpm_get(&t->lpm[p.ip.v6], p.ip.v6, p.ip.b, p.len) : NULL;

	while (at && (at->source != spec->source || at->row != spec->row || at->metric != spec->metric))
		at = at->next;
	if (!at)
		return false;
	const struct hops *h = at->group ? at->group->hops : NULL;
	*n = h ? h->n : 0;
	for (uint16_t i = 0; i < *n; i++)
		hop[i] = h->each[i].hop;
	return true;
}

bool route_next_table(uint16_t router, uint32_t *number)
{
	const struct router *r = route_routers_[router & (MAX_ROUTERS - 1)];

	for (uint32_t i = 0; r && r->tables && i < r->tables->n; i++)
		if (r->tables->table[i]->number >= *number) {
			*number = r->tables->table[i]->number;
			return true;
		}
	return false;
}

const char *route_type_name(enum route_type type)
{
	static const char *const names[] = {"none", "unicast", "local", "blackhole", "unreachable", "prohibit"};

	return (unsigned)type < sizeof names / sizeof names[0] ? names[type] : "?";
}

const char *route_source_name(enum route_source source)
{
	static const char *const names[] = {"connected", "static", "file", "kernel"};

	return (unsigned)source < sizeof names / sizeof names[0] ? names[source] : "?";
}

uint16_t route_router_find(const char *name)
{
	for (uint16_t id = 1; id < MAX_ROUTERS; id++)
		if (route_routers_[id] && !strcmp(route_routers_[id]->name, name))
			return id;
	return 0;
}

const char *route_router_name(uint16_t router)
{
	const struct router *r = route_routers_[router & (MAX_ROUTERS - 1)];

	return r ? r->name : NULL;
}
