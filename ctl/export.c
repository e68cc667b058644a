// export: rows of table Flow_Export. Where records go, and how many, is the switch's to say: "export list" asks it.
#include "nouns.h"

#include "column.h"

#include <string.h>

static const struct weirrec_flow_export *find(struct context *ctx, const char *name)
{
	const struct weirrec_flow_export *row;
	const char *host = host_of(ctx) ? host_of(ctx) : "";

	WEIRREC_FLOW_EXPORT_FOR_EACH (row, ctx->idl)
		if (!strcmp(row->name, name) && !strcmp(row->host, host))
			return row;
	return NULL;
}

int export_add_run(struct context *ctx)
{
	const char *name = ctx->given->args[0];
	const struct weirrec_flow_export *row = find(ctx, name);

	if (row && !given_option(ctx->given, "may-exist"))
		return fail(ctx, "there is an export %s already", name);
	if (!row) {
		if (name_check(ctx, "flow export", name))
			return -1;
		row = weirrec_flow_export_insert(ctx->txn);
		weirrec_flow_export_set_name(row, name);
		weirrec_flow_export_set_host(row, host_of(ctx) ? host_of(ctx) : "");
	}
	if (column_set_given(ctx, &row->header_, 1))
		return -1;
	if (!row->n_targets)
		return fail(ctx, "export %s: where to? Say --target udp:IP:PORT, tcp:IP:PORT, file:/PATH or unix:/PATH", name);
	concern(row->host);
	touch(&row->header_);
	return 0;
}

int export_del_run(struct context *ctx)
{
	const char *name = ctx->given->args[0];
	const struct weirrec_flow_export *row = find(ctx, name);

	if (!row && given_option(ctx->given, "if-exists"))
		return 0;
	if (!row)
		return fail(ctx, "there is no export %s", name);
	concern(row->host);
	weirrec_flow_export_delete(row);
	return 0;
}
