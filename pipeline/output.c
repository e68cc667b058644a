// output: what the egress port wants of the frame: is it there, and with which tag does the frame leave.
#include "stage.h"
#include "vlan.h"

#define OUTPUT_REASONS(X)                                                                                              \
	X(output, GONE, "the port that the destination is known on is gone")                                           \
	X(output, DISABLED, "the egress port is disabled")

STAGE_REASONS(output, OUTPUT_REASONS);

static uint16_t output_resolve(struct resolve *r)
{
	struct flow *f = r->flow;

	if (f->out_kind == OUT_FLOOD && r->tag != TAG_OF_PORT) {
		f->vlan_op = VLAN_OP_GIVEN;
		f->vlan_tci = (uint16_t)r->tag;
	}
	if (f->out_kind != OUT_PORT)
		return 0; // a flood decides for each of its copies
	resolve_depend(r, GEN_PORT, f->out);
	const struct lport *out = lport_get(f->out);
	if (!out)
		return STAGE_REASON(output, GONE);
	resolve_because(r, out->row);
	if (!out->enabled)
		return resolve_drop(r, STAGE_REASON(output, DISABLED), out->row);
	struct vlan_change c = vlan_between(r->in, out, r->net, r->pkt->n_tags > 0, r->tag);
	f->vlan_op = c.op;
	f->vlan_tci = c.vid;
	f->qinq = c.qinq;
	return 0;
}

STAGE(output, .resolve = output_resolve, .egress = true);
