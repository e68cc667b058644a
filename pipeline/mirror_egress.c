// mirror_egress: copies of what leaves by ports, for analysers (table Mirror), and keeps everything else off the ports that mirrors write to.
#include "mirror_table.h"
#include "actions.h"
#include "vlan.h"

#define MIRROR_EGRESS_REASONS(X) X(mirror_egress, RESERVED, "a mirror writes to the egress port, which gets nothing else therefore")

STAGE_REASONS(mirror_egress, MIRROR_EGRESS_REASONS);

struct record {
	uint32_t row;
};

// A mirror that copied the packet when it came in doesn't do so again.
static bool selects(const struct mirror *m, uint16_t in, uint16_t network)
{
	return mirror_bit(m->spec.networks, network) && !mirror_selects_src(m, in, network);
}

static uint16_t mirror_egress_resolve(struct resolve *r)
{
	uint64_t bit = 1ULL << stage_mirror_egress.index;
	bool wanted = false;

	// Which ports a flood goes to is known when it is done.
	if (r->flow->out_kind != OUT_PORT) {
		if (!__atomic_load_n(&mirror_any_dst, __ATOMIC_ACQUIRE))
			r->flow->stages &= ~bit;
		return 0;
	}
	const struct mirror_port *mp = rcu_read(mirror_ports[r->flow->out]);
	if (mp && mp->reserved_by) {
		resolve_because(r, mp->reserved_by);
		return STAGE_REASON(mirror_egress, RESERVED);
	}
	for (unsigned i = 0; mp && i < mp->n_dst; i++) {
		struct record rec = {.row = mp->mirror[mp->n_src + i]->spec.row};

		if (!selects(mp->mirror[mp->n_src + i], r->in->id, r->pkt->network))
			continue;
		wanted = true;
		resolve_because(r, rec.row);
		resolve_record(r, &rec, sizeof rec);
	}
	if (!wanted)
		r->flow->stages &= ~bit;
	return 0;
}

static void mirror_egress_run(struct worker *w, struct pkt **p, uint16_t n)
{
	for (unsigned i = 0; i < n; i++) {
		const struct mirror_port *mp = rcu_read(mirror_ports[p[i]->out & (MAX_PORTS - 1)]);
		const struct lport *out = mp && mp->n_dst ? lport_get(p[i]->out) : NULL;

		// The next stage drops what is too large: that doesn't leave.
		if (!out || p[i]->seg_len > out->mtu)
			continue;
		for (unsigned k = 0; k < mp->n_dst; k++)
			if (selects(mp->mirror[mp->n_src + k], p[i]->in_port, p[i]->network))
				mirror_copy(w, p[i], mp->mirror[mp->n_src + k], vlan_as_tag(p[i]));
	}
}

static void mirror_egress_format(struct buf *b, const void *record, uint16_t size)
{
	const struct record *r = record;
	const struct row_info *row = row_get(r->row);

	buf_add(b, "%s copies what leaves", row ? row->name : "?");
}

STAGE(mirror_egress, .resolve = mirror_egress_resolve, .run = mirror_egress_run, .format = mirror_egress_format, .egress = true);
