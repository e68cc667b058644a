// route, route-policy: the verbs of routes that are rows of the database. What the switch makes of all routes is its own to
// say: route show, route lookup.
#include "nouns.h"

#include "column.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROUTE (&weirrec_table_classes[WEIRREC_TABLE_ROUTE])
#define POLICY (&weirrec_table_classes[WEIRREC_TABLE_ROUTE_POLICY])

#define DEFAULT_PRIORITY 32768
#define MAX_HOPS 64 // of the schema

struct hops {
	char *key[MAX_HOPS];
	int64_t weight[MAX_HOPS];
	bool via[MAX_HOPS], dev[MAX_HOPS]; // said
	size_t n;
};

static int number(struct context *ctx, const char *what, const char *text, int64_t lo, int64_t hi, int64_t *value)
{
	char *end;

	errno = 0;
	*value = strtoll(text, &end, 10);
	if (!isdigit((unsigned char)*text) || *end || errno || *value < lo || *value > hi)
		return fail(ctx, "%s must be a number from %" PRId64 " to %" PRId64 ", not '%s'", what, lo, hi, text);
	return 0;
}

static int find_router(struct context *ctx, const struct weirrec_router **router)
{
	*router = router_find(ctx->idl, ctx->given->args[0]);
	return *router ? 0 : fail(ctx, "there is no router %s", ctx->given->args[0]);
}

// --table and --metric; -1: not said.
static int read_key(struct context *ctx, int64_t *table, int64_t *metric)
{
	const char *t = given_option(ctx->given, "table"), *m = given_option(ctx->given, "metric");

	*table = *metric = -1;
	if ((t && number(ctx, "--table", t, 1, UINT32_MAX, table)) || (m && number(ctx, "--metric", m, 0, UINT32_MAX, metric)))
		return -1;
	return 0;
}

static int64_t or (const int64_t *v, size_t n, int64_t fallback)
{
	return n ? *v : fallback;
}

static bool is(const struct weirrec_route *r, const struct weirrec_router *router, const char *prefix, int64_t table)
{
	return r->router == router && !strcmp(r->prefix, prefix) && or (r->table, r->n_table, -1) == table;
}

static void hops_free(struct hops *h)
{
	for (size_t i = 0; i < h->n; i++)
		free(h->key[i]);
}

// The next hop that a word belongs to: a new one if the last has the like already.
static int take_word(struct context *ctx, struct hops *h, const char *word, const char *value)
{
	bool via = !strcmp(word, "via"), dev = !strcmp(word, "dev");
	size_t i = h->n - 1;

	if (!h->n || (via && (h->via[i] || h->dev[i])) || (dev && h->dev[i])) {
		if (!via && !dev)
			return fail(ctx, "route: weight is that of a next hop, so it comes behind one (via GATEWAY weight N)");
		if (h->n == MAX_HOPS)
			return fail(ctx, "route: %d next hops are possible", MAX_HOPS);
		i = h->n++;
		h->key[i] = xstrdup("");
		h->weight[i] = 1;
		h->via[i] = h->dev[i] = false;
	}
	if (!via && !dev)
		return number(ctx, "route: weight", value, 1, 256, &h->weight[i]);
	char *key = via ? xstrdup(value) : xasprintf("%s%%%s", h->key[i], value);
	free(h->key[i]);
	h->key[i] = key;
	h->via[i] |= via;
	h->dev[i] |= dev || strchr(value, '%');
	return 0;
}

// What is behind the prefix: a type, or next hops.
static int read_hops(struct context *ctx, const char **type, struct hops *h)
{
	static const char *const types[] = {"blackhole", "unreachable", "prohibit"};
	const struct given *g = ctx->given;

	*type = NULL;
	for (int i = 2; i < g->n_args; i++) {
		const char *word = g->args[i];
		bool known = !strcmp(word, "via") || !strcmp(word, "dev") || !strcmp(word, "weight");

		for (size_t k = 0; k < ARRAY_SIZE(types); k++)
			if (!strcmp(word, types[k]) && g->n_args == 3)
				*type = word;
		if (*type)
			return 0;
		if (!strcmp(word, "nexthop"))
			continue;
		if (!known)
			return fail(ctx,
				    "route: '%s' is none of via, dev and weight, nor is it blackhole, unreachable or prohibit "
				    "alone",
				    word);
		if (++i == g->n_args)
			return fail(ctx, "route: %s what?", word);
		if (take_word(ctx, h, word, g->args[i]))
			return -1;
	}
	for (size_t i = 0; i < h->n; i++)
		for (size_t k = 0; k < i; k++)
			if (!strcmp(h->key[i], h->key[k]))
				return fail(ctx, "route: next hop %s is there twice; give it a weight instead", h->key[i]);
	return 0;
}

int route_add_run(struct context *ctx)
{
	const char *prefix = ctx->given->args[1], *type;
	const struct weirrec_router *router;
	const struct weirrec_route *r, *route = NULL;
	struct hops h = {.n = 0};
	int64_t table, metric;

	if (find_router(ctx, &router) || read_key(ctx, &table, &metric))
		return -1;
	if (read_hops(ctx, &type, &h)) {
		hops_free(&h);
		return -1;
	}
	WEIRREC_ROUTE_FOR_EACH(r, ctx->idl)
	if (is(r, router, prefix, table) && or (r->metric, r->n_metric, 0) == MAX(metric, 0))
		route = r;
	if (route && !given_option(ctx->given, "may-exist")) {
		hops_free(&h);
		return fail(ctx, "router %s has a route %s already; --may-exist changes it, --metric adds another",
			    router->name, prefix);
	}
	if (!route) {
		route = weirrec_route_insert(ctx->txn);
		weirrec_route_set_router(route, router);
		weirrec_route_set_prefix(route, prefix);
		weirrec_route_set_table(route, &table, table >= 0);
		weirrec_route_set_metric(route, &metric, metric >= 0);
	}
	weirrec_route_set_type(route, type);
	weirrec_route_set_nexthops(route, (const char **)h.key, h.weight, h.n);
	hops_free(&h);
	concern(host_of(ctx));
	touch(&route->header_);
	return 0;
}

int route_del_run(struct context *ctx)
{
	const char *prefix = ctx->given->args[1];
	bool if_exists = given_option(ctx->given, "if-exists"), all = !strcmp(prefix, "all");
	const struct weirrec_router *router;
	const struct weirrec_route *r;
	int64_t table, metric;
	size_t n = 0;

	if (if_exists && !router_find(ctx->idl, ctx->given->args[0]))
		return 0;
	if (find_router(ctx, &router) || read_key(ctx, &table, &metric))
		return -1;
	WEIRREC_ROUTE_FOR_EACH_SAFE(r, ctx->idl)
	{
		bool same = all ? r->router == router && (table < 0 || or (r->table, r->n_table, -1) == table)
				: is(r, router, prefix, table);
		if (!same || (metric >= 0 && or (r->metric, r->n_metric, 0) != metric))
			continue;
		weirrec_route_delete(r);
		n++;
	}
	if (!n && !if_exists && !all)
		return fail(ctx, "router %s has no such route %s in the database (route list %s)", router->name, prefix,
			    router->name);
	concern(host_of(ctx));
	return 0;
}

// ---- lists

static const char *only; // name of the router of which rows are listed; NULL: of all

static bool keep_route(const struct ovsdb_idl_row *row, const char *host)
{
	const struct weirrec_route *r = weirrec_route_get_for_uuid(row->table->idl, &row->uuid);

	return !only || (r->router && !strcmp(r->router->name, only));
}

static bool keep_policy(const struct ovsdb_idl_row *row, const char *host)
{
	const struct weirrec_route_policy *p = weirrec_route_policy_get_for_uuid(row->table->idl, &row->uuid);

	return !only || (p->router && !strcmp(p->router->name, only));
}

static int read_only(struct context *ctx)
{
	const struct weirrec_router *router;

	only = ctx->given->n_args ? ctx->given->args[0] : NULL;
	return only ? find_router(ctx, &router) : 0;
}

int route_list_run(struct context *ctx)
{
	return read_only(ctx) ? -1 : rows_list(ctx, ROUTE, "router,table,prefix,type,metric,nexthops,problem", keep_route);
}

int policy_list_run(struct context *ctx)
{
	return read_only(ctx)
		       ? -1
		       : rows_list(ctx, POLICY, "router,priority,in_port,src,dst,dscp,mark,action,table,problem", keep_policy);
}

// ---- policies

int policy_add_run(struct context *ctx)
{
	const char *text = given_option(ctx->given, "priority");
	int64_t priority = DEFAULT_PRIORITY;
	const struct weirrec_router *router;
	const struct weirrec_route_policy *p;

	if (find_router(ctx, &router) || (text && number(ctx, "--priority", text, 0, UINT32_MAX, &priority)))
		return -1;
	WEIRREC_ROUTE_POLICY_FOR_EACH(p, ctx->idl)
	if (p->router == router && or (p->priority, p->n_priority, DEFAULT_PRIORITY) == priority)
		return fail(ctx, "router %s has a policy of priority %" PRId64 " already; say another --priority", router->name,
			    priority);
	p = weirrec_route_policy_insert(ctx->txn);
	weirrec_route_policy_set_router(p, router);
	if (text)
		weirrec_route_policy_set_priority(p, &priority, 1);
	if (column_set_given(ctx, &p->header_, 1))
		return -1;
	if (!p->n_table && (!p->action || !strcmp(p->action, "lookup")))
		return fail(ctx, "route-policy: what becomes of the packets? Say --table N, or --action blackhole, unreachable "
				 "or prohibit");
	concern(host_of(ctx));
	touch(&p->header_);
	return 0;
}

int policy_del_run(struct context *ctx)
{
	const char *which = ctx->given->args[1];
	bool if_exists = given_option(ctx->given, "if-exists"), all = !strcmp(which, "all");
	const struct weirrec_router *router;
	const struct weirrec_route_policy *p;
	int64_t priority = -1;
	size_t n = 0;

	if (if_exists && !router_find(ctx->idl, ctx->given->args[0]))
		return 0;
	if (find_router(ctx, &router) || (!all && number(ctx, "route-policy: PRIORITY", which, 0, UINT32_MAX, &priority)))
		return -1;
	WEIRREC_ROUTE_POLICY_FOR_EACH_SAFE(p, ctx->idl)
	{
		if (p->router != router || (!all && or (p->priority, p->n_priority, DEFAULT_PRIORITY) != priority))
			continue;
		weirrec_route_policy_delete(p);
		n++;
	}
	if (!n && !if_exists && !all)
		return fail(ctx, "router %s has no policy of priority %s", router->name, which);
	concern(host_of(ctx));
	return 0;
}
