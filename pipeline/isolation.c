// isolation: nothing passes between two isolated ports. A flood leaves them out by itself (forward.c); this is for known destinations.
#include "stage.h"

#define ISOLATION_REASONS(X) X(isolation, ISOLATED, "both the ingress and the egress port are isolated")

STAGE_REASONS(isolation, ISOLATION_REASONS);

static uint16_t isolation_resolve(struct resolve *r)
{
	if (r->flow->out_kind != OUT_PORT || !r->in->isolated)
		return 0;
	resolve_depend(r, GEN_PORT, r->flow->out);
	const struct lport *out = lport_get(r->flow->out);
	if (!out || !out->isolated)
		return 0;
	resolve_because(r, r->in->row);
	resolve_because(r, out->row);
	return resolve_drop(r, STAGE_REASON(isolation, ISOLATED), out->row);
}

STAGE(isolation, .resolve = isolation_resolve);
