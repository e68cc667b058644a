// isolation: nothing passes between two isolated ports. A flood leaves them out by itself (forward.c); this is for known destinations.
#include "stage.h"

#define ISOLATION_REASONS(X) X(isolation, ISOLATED, "both the ingress and the egress port are isolated")

STAGE_REASONS(isolation, ISOLATION_REASONS);

struct record {
	uint16_t in, out;
	bool in_isolated, out_isolated;
};

static uint16_t isolation_resolve(struct resolve *r)
{
	const struct lport *out = NULL;

	if (r->flow->out_kind != OUT_PORT || r->flow->adj) // what is routed, or answered by the router, doesn't pass between them
		return 0;
	if (r->in->isolated) {
		resolve_depend(r, GEN_PORT, r->flow->out);
		out = lport_get(r->flow->out);
	}
	struct record rec = {.in = r->in->id, .out = r->flow->out, .in_isolated = r->in->isolated, .out_isolated = out && out->isolated};
	resolve_record(r, &rec, sizeof rec);
	if (!rec.out_isolated)
		return 0;
	resolve_because(r, r->in->row);
	resolve_because(r, out->row);
	return resolve_drop(r, STAGE_REASON(isolation, ISOLATED), out->row);
}

static void isolation_format(struct buf *b, const void *record, uint16_t size)
{
	const struct record *r = record;
	const struct lport *in = lport_get(r->in), *out = lport_get(r->out);
	const char *from = in ? in->name : "?", *to = out ? out->name : "?";

	if (r->out_isolated)
		buf_add(b, "both %s and %s are isolated", from, to);
	else if (r->in_isolated)
		buf_add(b, "%s is isolated, %s is not", from, to);
	else
		buf_add(b, "%s is not isolated", from);
}

STAGE(isolation, .resolve = isolation_resolve, .format = isolation_format);
