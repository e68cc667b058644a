// host, config: the switches of the database, and the settings of all or of one of them (--host).
#include "nouns.h"

#include "column.h"
#include "listing.h"
#include "smap.h"

#include <stdlib.h>
#include <string.h>

#define HOST (&weirrec_table_classes[WEIRREC_TABLE_HOST])

static int find_or_fail(struct context *ctx, const char *name, const struct weirrec_host **host)
{
	WEIRREC_HOST_FOR_EACH (*host, ctx->idl)
		if (!strcmp((*host)->name, name))
			return 0;
	return fail(ctx, "there is no host %s", name);
}

int host_list_run(struct context *ctx)
{
	return rows_list(ctx, HOST, "name,cur_cfg,tunnel_ips,problem", NULL);
}

int host_show_run(struct context *ctx)
{
	const struct weirrec_host *host;

	if (find_or_fail(ctx, ctx->given->args[0], &host))
		return -1;
	return row_show(ctx, &host->header_);
}

int host_set_run(struct context *ctx)
{
	const char *name = ctx->given->args[0];
	const struct weirrec_host *host;

	if (find_or_fail(ctx, name, &host))
		return -1;
	if (!ctx->given->n_options && ctx->given->n_args < 2)
		return fail(ctx, "host %s: what should be set? COLUMN=VALUE, or --tunnel-ips", name);
	if (column_set_given(ctx, &host->header_, 1))
		return -1;
	concern(name);
	touch(&host->header_);
	return 0;
}

int host_del_run(struct context *ctx)
{
	const char *name = ctx->given->args[0];
	const struct weirrec_host *host;
	const struct weirrec_port *port;

	WEIRREC_PORT_FOR_EACH (port, ctx->idl)
		if (!strcmp(port->host, name))
			return fail(ctx, "host %s still has port %s; delete it first (port del %s --host %s)", name, port->name,
				    port->name, name);
	const struct weirrec_router_port *router_port;
	WEIRREC_ROUTER_PORT_FOR_EACH (router_port, ctx->idl)
		if (!strcmp(router_port->host, name))
			return fail(ctx, "host %s still has router port %s; delete it first (router-port del %s)", name, router_port->name, router_port->name);
	if (find_or_fail(ctx, name, &host)) {
		if (!given_option(ctx->given, "if-exists"))
			return -1;
		free(ctx->error);
		ctx->error = NULL;
		return 0;
	}
	// Nobody is waited for: the host that goes can't answer, and the others don't care.
	weirrec_host_delete(host);
	return 0;
}

// The row whose other_config is meant.
static int config_row(struct context *ctx, const struct ovsdb_idl_row **row)
{
	const struct weirrec_host *host;

	*row = ctx->root ? &ctx->root->header_ : NULL;
	if (!host_of(ctx))
		return 0;
	if (find_or_fail(ctx, host_of(ctx), &host))
		return -1;
	*row = &host->header_;
	return 0;
}

static int change(struct context *ctx, bool remove)
{
	const struct ovsdb_idl_row *row;

	if (config_row(ctx, &row))
		return -1;
	for (int i = 0; i < ctx->given->n_args; i++) {
		const char *arg = ctx->given->args[i];
		const char *equals = strchr(arg, '=');
		if (!remove && (!equals || equals == arg))
			return fail(ctx, "'%s' is not KEY=VALUE", arg);
		char *key = xmemdup0(arg, remove ? strlen(arg) : (size_t)(equals - arg));
		char *column = xasprintf("other_config:%s", key);
		int status = column_set(ctx, row, column, COLUMN_SET, remove ? "" : equals + 1);
		free(column);
		free(key);
		if (status)
			return -1;
	}
	const struct weirrec_host *host;
	// Each host says in its own row what it thinks of a setting.
	WEIRREC_HOST_FOR_EACH (host, ctx->idl)
		if (!host_of(ctx) || !strcmp(host->name, host_of(ctx)))
			touch(&host->header_);
	concern(host_of(ctx));
	return 0;
}

int config_set_run(struct context *ctx)
{
	return change(ctx, false);
}

int config_del_run(struct context *ctx)
{
	return change(ctx, true);
}

static const struct smap *settings_of(const struct ovsdb_idl_row *row)
{
	const struct weirrec_host *host = weirrec_host_get_for_uuid(row->table->idl, &row->uuid);
	const struct weirrec_weir *root = weirrec_weir_get_for_uuid(row->table->idl, &row->uuid);

	return host ? &host->other_config : &root->other_config;
}

int config_get_run(struct context *ctx)
{
	const char *key = ctx->given->args[0];
	const struct ovsdb_idl_row *row;

	if (config_row(ctx, &row))
		return -1;
	const char *value = row ? smap_get(settings_of(row), key) : NULL;
	if (!value)
		return fail(ctx, "%s is not set", key);
	struct listing *l = listing_new();
	listing_column(l, "key", "KEY");
	listing_column(l, "value", "VALUE");
	listing_row(l);
	listing_str(l, key);
	listing_str(l, value);
	if (settings.json)
		output_record(ctx, l);
	else
		ds_put_format(&ctx->output, "%s\n", value);
	listing_free(l);
	return 0;
}

int config_list_run(struct context *ctx)
{
	const struct ovsdb_idl_row *row;

	if (config_row(ctx, &row))
		return -1;
	struct listing *l = listing_new();
	listing_column(l, "key", "KEY");
	listing_column(l, "value", "VALUE");
	if (row) {
		const struct smap_node **nodes = smap_sort(settings_of(row));
		for (size_t i = 0; i < smap_count(settings_of(row)); i++) {
			listing_row(l);
			listing_str(l, nodes[i]->key);
			listing_str(l, nodes[i]->value);
		}
		free(nodes);
	}
	output_table(ctx, l);
	listing_free(l);
	return 0;
}
