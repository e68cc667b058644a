// mirror: copies of what ports receive, for analysers (table Mirror). It is the first stage, so that also what is dropped later has been copied; what a
// mirrored port receives is to be seen, whether the switch lets it in or not. mirror_egress has what leaves.
#include "mirror_table.h"
#include "actions.h"

#define MIRROR_REASONS(X)                                                                                              \
	X(mirror, RESERVED, "a mirror writes to the ingress port, which takes no packets therefore")                   \
	X(mirror, NO_PORT, "a copy of a mirror: its output port is gone or disabled")

STAGE_REASONS(mirror, MIRROR_REASONS);

struct record {
	uint32_t row;
};

uint16_t mirror_reason_no_port(void)
{
	return STAGE_REASON(mirror, NO_PORT);
}

static uint16_t mirror_resolve(struct resolve *r)
{
	// A change of mirrors makes every decision stale.
	const struct mirror_port *mp = rcu_read(mirror_ports[r->in->id]);
	uint64_t bit = 1ULL << stage_mirror.index;

	r->flow->stages &= ~bit;
	if (!mp)
		return 0;
	if (mp->reserved_by) {
		resolve_because(r, mp->reserved_by);
		return STAGE_REASON(mirror, RESERVED);
	}
	for (unsigned i = 0; i < mp->n_src && r->in->enabled; i++) {
		struct record rec = {.row = mp->mirror[i]->spec.row};

		if (!mirror_selects_src(mp->mirror[i], r->in->id, r->pkt->network))
			continue;
		r->flow->stages |= bit;
		resolve_because(r, rec.row);
		resolve_record(r, &rec, sizeof rec);
	}
	return 0;
}

static void mirror_run(struct worker *w, struct pkt **p, uint16_t n)
{
	for (unsigned i = 0; i < n; i++) {
		const struct mirror_port *mp = rcu_read(mirror_ports[p[i]->in_port]);

		for (unsigned k = 0; mp && k < mp->n_src; k++)
			if (mirror_selects_src(mp->mirror[k], p[i]->in_port, p[i]->network))
				mirror_copy(w, p[i], mp->mirror[k], TAG_AS_RECEIVED);
	}
}

static void mirror_format(struct buf *b, const void *record, uint16_t size)
{
	const struct record *r = record;
	const struct row_info *row = row_get(r->row);

	buf_add(b, "%s copies what comes in", row ? row->name : "?");
}

STAGE(mirror, .resolve = mirror_resolve, .run = mirror_run, .format = mirror_format, .prepare = mirror_prepare, .reconcile = mirror_reconcile,
      .count = mirror_count, .fini = mirror_fini);
