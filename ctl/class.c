// class: the verbs of table Class.
#include "nouns.h"

#include "column.h"

#include <string.h>

// The class of this name on the host that is meant; of no host: the only one.
static int find(struct context *ctx, const char *name, const struct weirrec_class **found)
{
	const struct weirrec_class *c;

	*found = NULL;
	WEIRREC_CLASS_FOR_EACH (c, ctx->idl) {
		if (strcmp(c->name, name) || (host_of(ctx) && strcmp(c->host, host_of(ctx))))
			continue;
		if (*found)
			return fail(ctx, "there are classes %s on several hosts: say which with --host", name);
		*found = c;
	}
	return 0;
}

static int find_or_fail(struct context *ctx, const struct weirrec_class **found)
{
	const char *name = ctx->given->args[0];

	if (find(ctx, name, found))
		return -1;
	return *found ? 0 : fail(ctx, "there is no class %s", name);
}

int class_add_run(struct context *ctx)
{
	const char *name = ctx->given->args[0], *host = host_of(ctx);
	const struct weirrec_class *c;

	if (find(ctx, name, &c))
		return -1;
	if (c && !given_option(ctx->given, "may-exist"))
		return fail(ctx, "there is a class %s already", name);
	if (!c) {
		if (name_check(ctx, "class", name))
			return -1;
		c = weirrec_class_insert(ctx->txn);
		weirrec_class_set_name(c, name);
		weirrec_class_set_host(c, host ? host : "");
	}
	if (column_set_given(ctx, &c->header_, 1))
		return -1;
	concern(c->host);
	touch(&c->header_);
	return 0;
}

int class_set_run(struct context *ctx)
{
	const struct weirrec_class *c;

	if (find_or_fail(ctx, &c))
		return -1;
	if (!ctx->given->n_options && ctx->given->n_args < 2)
		return fail(ctx, "class %s: what should be set? COLUMN=VALUE, or an option of class add", c->name);
	if (column_set_given(ctx, &c->header_, 1))
		return -1;
	concern(c->host);
	touch(&c->header_);
	return 0;
}

// Rules that name it stay, and wait for it.
int class_del_run(struct context *ctx)
{
	const struct weirrec_class *c;

	if (find(ctx, ctx->given->args[0], &c))
		return -1;
	if (!c)
		return given_option(ctx->given, "if-exists") ? 0 : fail(ctx, "there is no class %s", ctx->given->args[0]);
	concern(c->host);
	weirrec_class_delete(c);
	return 0;
}

int class_show_run(struct context *ctx)
{
	const struct weirrec_class *c;

	return find_or_fail(ctx, &c) ? -1 : row_show(ctx, &c->header_);
}
