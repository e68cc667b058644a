// mirror: the verbs of table Mirror.
#include "nouns.h"

#include "column.h"
#include "listing.h"

#include <string.h>

#define MIRROR (&weirrec_table_classes[WEIRREC_TABLE_MIRROR])

// The mirror of this name on the host that is meant; of no host: the only one.
static int find(struct context *ctx, const char *name, const struct weirrec_mirror **found)
{
	const struct weirrec_mirror *m;

	*found = NULL;
	WEIRREC_MIRROR_FOR_EACH (m, ctx->idl) {
		if (strcmp(m->name, name) || (host_of(ctx) && strcmp(m->host, host_of(ctx))))
			continue;
		if (*found)
			return fail(ctx, "there are mirrors %s on several hosts: say which with --host", name);
		*found = m;
	}
	return 0;
}

int mirror_add_run(struct context *ctx)
{
	const char *name = ctx->given->args[0], *host = host_of(ctx);
	const struct weirrec_mirror *m;

	if (find(ctx, name, &m))
		return -1;
	if (m && !given_option(ctx->given, "may-exist"))
		return fail(ctx, "there is a mirror %s already", name);
	if (!m) {
		if (name_check(ctx, "mirror", name))
			return -1;
		m = weirrec_mirror_insert(ctx->txn);
		weirrec_mirror_set_name(m, name);
		weirrec_mirror_set_host(m, host ? host : "");
	}
	if (column_set_given(ctx, &m->header_, 1))
		return -1;
	concern(m->host);
	touch(&m->header_);
	return 0;
}

int mirror_set_run(struct context *ctx)
{
	const char *name = ctx->given->args[0];
	const struct weirrec_mirror *m;

	if (find(ctx, name, &m))
		return -1;
	if (!m)
		return fail(ctx, "there is no mirror %s", name);
	if (!ctx->given->n_options && ctx->given->n_args < 2)
		return fail(ctx, "mirror %s: what should be set? COLUMN=VALUE, or an option of mirror add", name);
	if (column_set_given(ctx, &m->header_, 1))
		return -1;
	concern(m->host);
	touch(&m->header_);
	return 0;
}

int mirror_del_run(struct context *ctx)
{
	const struct weirrec_mirror *m;

	if (find(ctx, ctx->given->args[0], &m))
		return -1;
	if (!m)
		return given_option(ctx->given, "if-exists") ? 0 : fail(ctx, "there is no mirror %s", ctx->given->args[0]);
	concern(m->host);
	weirrec_mirror_delete(m);
	return 0;
}

static bool of_host(const struct ovsdb_idl_row *row, const char *host)
{
	const struct weirrec_mirror *m = CONTAINER_OF(row, struct weirrec_mirror, header_);

	return !host || !m->host[0] || !strcmp(m->host, host);
}

int mirror_list_run(struct context *ctx)
{
	return rows_list(ctx, MIRROR, "name,network,select_all,select_src_port,select_dst_port,select_vlan,output_port,output_vlan,output_address,snaplen,statistics,problem",
			 of_host);
}
