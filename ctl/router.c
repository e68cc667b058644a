// router: the verbs of routers and of their ports.
#include "nouns.h"

#include "column.h"

#include <string.h>

#define ROUTER (&weirrec_table_classes[WEIRREC_TABLE_ROUTER])
#define ROUTER_PORT (&weirrec_table_classes[WEIRREC_TABLE_ROUTER_PORT])

const struct weirrec_router *router_find(const struct ovsdb_idl *idl, const char *name)
{
	const struct weirrec_router *router;

	WEIRREC_ROUTER_FOR_EACH(router, idl)
	if (!strcmp(router->name, name))
		return router;
	return NULL;
}

const struct weirrec_router_port *router_port_find(const struct ovsdb_idl *idl, const char *name)
{
	const struct weirrec_router_port *port;

	WEIRREC_ROUTER_PORT_FOR_EACH(port, idl)
	if (!strcmp(port->name, name))
		return port;
	return NULL;
}

static int change_router(struct context *ctx, const struct weirrec_router *router)
{
	if (column_set_given(ctx, &router->header_, 1))
		return -1;
	concern(host_of(ctx));
	touch(&router->header_);
	return 0;
}

int router_add_run(struct context *ctx)
{
	const char *name = ctx->given->args[0];
	const struct weirrec_router *router = router_find(ctx->idl, name);

	if (router && !given_option(ctx->given, "may-exist"))
		return fail(ctx, "there is a router %s already", name);
	if (!router) {
		if (name_check(ctx, "router", name))
			return -1;
		router = weirrec_router_insert(ctx->txn);
		weirrec_router_set_name(router, name);
	}
	return change_router(ctx, router);
}

int router_set_run(struct context *ctx)
{
	const char *name = ctx->given->args[0];
	const struct weirrec_router *router = router_find(ctx->idl, name);

	if (!router)
		return fail(ctx, "there is no router %s", name);
	if (!ctx->given->n_options && ctx->given->n_args < 2)
		return fail(ctx, "router %s: what should be set? COLUMN=VALUE, or an option of router add", name);
	return change_router(ctx, router);
}

int router_del_run(struct context *ctx)
{
	const char *name = ctx->given->args[0];
	const struct weirrec_router *router = router_find(ctx->idl, name);
	const struct weirrec_router_port *port, *first = NULL;
	const struct weirrec_route *route;
	const struct weirrec_route_policy *policy;

	if (!router && given_option(ctx->given, "if-exists"))
		return 0;
	if (!router)
		return fail(ctx, "there is no router %s", name);
	WEIRREC_ROUTER_PORT_FOR_EACH(port, ctx->idl)
	if (port->router == router && (!first || strverscmp(port->name, first->name) < 0))
		first = port;
	if (first)
		return fail(ctx, "router %s still has port %s; delete it first (router-port del %s)", name, first->name,
			    first->name);
	// Routes and policies are nothing without their router, and would keep it.
	WEIRREC_ROUTE_FOR_EACH_SAFE(route, ctx->idl)
	if (route->router == router)
		weirrec_route_delete(route);
	WEIRREC_ROUTE_POLICY_FOR_EACH_SAFE(policy, ctx->idl)
	if (policy->router == router)
		weirrec_route_policy_delete(policy);
	weirrec_router_delete(router);
	concern(host_of(ctx));
	return 0;
}

int router_list_run(struct context *ctx)
{
	return rows_list(ctx, ROUTER, "name,enabled,other_config,problem", NULL);
}

int router_show_run(struct context *ctx)
{
	const struct weirrec_router *router = router_find(ctx->idl, ctx->given->args[0]);

	if (!router)
		return fail(ctx, "there is no router %s", ctx->given->args[0]);
	return row_show(ctx, &router->header_);
}

// ---- router ports

// Addresses are the arguments with a slash and no equals sign; they stand before the settings.
static int take_addresses(struct context *ctx, const struct weirrec_router_port *port, int *first)
{
	const struct given *g = ctx->given;
	struct ds all = DS_EMPTY_INITIALIZER;
	int status = 0;

	for (*first = 1; *first < g->n_args && !strchr(g->args[*first], '='); (*first)++) {
		const char *arg = g->args[*first];
		if (!strchr(arg, '/')) {
			ds_destroy(&all);
			return fail(ctx,
				    "router port %s: '%s' is no address with the length of its prefix, such as 10.0.0.1/24, "
				    "and no COLUMN=VALUE",
				    port->name, arg);
		}
		ds_put_format(&all, "%s%s", all.length ? "," : "", arg);
	}
	if (all.length)
		status = column_set(ctx, &port->header_, "addresses", COLUMN_SET, ds_cstr(&all));
	ds_destroy(&all);
	return status;
}

static int change_port(struct context *ctx, const struct weirrec_router_port *port)
{
	int first;

	if (take_addresses(ctx, port, &first) || column_set_given(ctx, &port->header_, first))
		return -1;
	if (!port->router)
		return fail(ctx, "router port %s: of which router? Say --router NAME", port->name);
	if (!port->network)
		return fail(ctx, "router port %s: in which network? Say --network NAME", port->name);
	concern(port->host);
	touch(&port->header_);
	return 0;
}

int router_port_add_run(struct context *ctx)
{
	const char *name = ctx->given->args[0];
	const struct weirrec_router_port *port = router_port_find(ctx->idl, name);

	if (port && !given_option(ctx->given, "may-exist"))
		return fail(ctx, "there is a router port %s already", name);
	if (!port) {
		if (name_check(ctx, "router port", name))
			return -1;
		port = weirrec_router_port_insert(ctx->txn);
		weirrec_router_port_set_name(port, name);
		weirrec_router_port_set_host(port, host_of(ctx) ? host_of(ctx) : "");
	}
	return change_port(ctx, port);
}

int router_port_set_run(struct context *ctx)
{
	const char *name = ctx->given->args[0];
	const struct weirrec_router_port *port = router_port_find(ctx->idl, name);

	if (!port)
		return fail(ctx, "there is no router port %s", name);
	if (!ctx->given->n_options && ctx->given->n_args < 2)
		return fail(ctx, "router port %s: what should be set? Addresses, COLUMN=VALUE, or an option of router-port add",
			    name);
	return change_port(ctx, port);
}

int router_port_del_run(struct context *ctx)
{
	const char *name = ctx->given->args[0];
	const struct weirrec_router_port *port = router_port_find(ctx->idl, name);
	const struct weirrec_route_policy *policy;

	if (!port && given_option(ctx->given, "if-exists"))
		return 0;
	if (!port)
		return fail(ctx, "there is no router port %s", name);
	WEIRREC_ROUTE_POLICY_FOR_EACH_SAFE(policy, ctx->idl)
	if (policy->in_port == port)
		weirrec_route_policy_delete(policy);
	concern(port->host);
	weirrec_router_port_delete(port);
	return 0;
}

int router_port_list_run(struct context *ctx)
{
	return rows_list(ctx, ROUTER_PORT, "name,host,router,network,mac,addresses,enabled,problem", NULL);
}

int router_port_show_run(struct context *ctx)
{
	const struct weirrec_router_port *port = router_port_find(ctx->idl, ctx->given->args[0]);

	if (!port)
		return fail(ctx, "there is no router port %s", ctx->given->args[0]);
	return row_show(ctx, &port->header_);
}
