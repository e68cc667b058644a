// output: what the egress port wants of the frame: is it there, and with which tag does the frame leave.
#include "stage.h"
#include "vlan.h"

#define OUTPUT_REASONS(X)                                                                                              \
	X(output, GONE, "the port that the destination is known on is gone")                                           \
	X(output, DISABLED, "the egress port is disabled")

STAGE_REASONS(output, OUTPUT_REASONS);

struct record {
	uint16_t port;
	bool gone, disabled;
	uint8_t vlan_op;
	uint16_t vid;
};

static void say(struct resolve *r, const struct lport *out)
{
	const struct flow *f = r->flow;
	struct record rec = {.port = f->out, .gone = !out, .disabled = out && !out->enabled, .vlan_op = f->vlan_op, .vid = f->vlan_tci & 0xfff};

	resolve_record(r, &rec, sizeof rec);
}

static uint16_t output_resolve(struct resolve *r)
{
	struct flow *f = r->flow;

	if ((f->out_kind == OUT_FLOOD || f->out_kind == OUT_GROUP) && r->tag != TAG_OF_PORT) {
		f->vlan_op = VLAN_OP_GIVEN;
		f->vlan_tci = (uint16_t)r->tag;
		f->qinq = (uint16_t)(r->tag >> 16);
	}
	if (f->out_kind != OUT_PORT)
		return 0; // a flood decides for each of its copies
	resolve_depend(r, GEN_PORT, f->out);
	const struct lport *out = lport_get(f->out);
	if (!out) {
		say(r, NULL);
		return STAGE_REASON(output, GONE);
	}
	resolve_because(r, out->row);
	if (!out->enabled) {
		say(r, out);
		return resolve_drop(r, STAGE_REASON(output, DISABLED), out->row);
	}
	struct vlan_change c = vlan_between(r->in, out, r->net, r->pkt->n_tags > 0, r->tag);
	f->vlan_op = c.op;
	f->vlan_tci = c.tci;
	f->qinq = c.qinq;
	say(r, out);
	return 0;
}

static void output_format(struct buf *b, const void *record, uint16_t size)
{
	const struct record *r = record;
	const struct lport *out = lport_get(r->port);

	if (r->gone) {
		buf_add(b, "there is no such port any more");
		return;
	}
	buf_add(b, "port %s ", out ? out->name : "?");
	if (r->disabled)
		buf_add(b, "is disabled");
	else if (r->vlan_op == VLAN_OP_POP)
		buf_add(b, "takes it without its outer tag");
	else if (r->vlan_op == VLAN_OP_PUSH || r->vlan_op == VLAN_OP_SET)
		buf_add(b, "takes it with VLAN %u", r->vid);
	else
		buf_add(b, "takes it with the tags that it has");
}

STAGE(output, .resolve = output_resolve, .format = output_format, .egress = true);
