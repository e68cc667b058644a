// mtu: holds every packet against the MTU of its egress port. A large packet that will be cut (TSO) is judged by its segments.
#include "stage.h"

#define MTU_REASONS(X) X(mtu, TOO_LARGE, "the packet is larger than the MTU of its egress port")

STAGE_REASONS(mtu, MTU_REASONS);

struct record {
	uint16_t port;
	uint16_t mtu;
	uint32_t len;
};

// A flow to one port can hold its packets against the MTU by itself; those that fit then skip the run.
static uint16_t mtu_resolve(struct resolve *r)
{
	if (r->flow->out_kind != OUT_PORT)
		return 0;
	resolve_depend(r, GEN_PORT, r->flow->out);
	const struct lport *out = lport_get(r->flow->out);
	uint64_t others = r->flow->stages & ~(1ULL << stage_mtu.index) & ~r->direct;
	if (out && !others && r->flow->vlan_op == VLAN_OP_NONE) {
		r->flow->mtu = out->mtu;
		r->flow->flags |= FLOW_DIRECT;
	}
	return 0;
}

static void mtu_run(struct worker *w, struct pkt **p, uint16_t n)
{
	for (unsigned i = 0; i < n; i++) {
		const struct lport *out = lport_get(p[i]->out);

		if (unlikely(p[i]->trace && out)) {
			struct record r = {.port = out->id, .mtu = out->mtu, .len = p[i]->seg_len};

			trace_put(p[i]->trace, stage_mtu.index, &r, sizeof r);
		}
		if (unlikely(out && p[i]->seg_len > out->mtu))
			pkt_drop(p[i], STAGE_REASON(mtu, TOO_LARGE), out->mtu_row);
	}
}

static void mtu_format(struct buf *b, const void *record, uint16_t size)
{
	const struct record *r = record;
	const struct lport *lp = lport_get(r->port);

	buf_add(b, "%u bytes against MTU %u of %s: %s", r->len, r->mtu, lp ? lp->name : "?", r->len > r->mtu ? "too large" : "fits");
}

STAGE(mtu, .resolve = mtu_resolve, .run = mtu_run, .format = mtu_format, .egress = true);
