// trace: see trace.h.
#include "trace.h"
#include "change.h"
#include "key.h"
#include "parse.h"
#include "reason.h"
#include "row.h"
#include "stage.h"
#include "targets.h"
#include "tunnel.h"

#include <stdio.h>
#include <string.h>
#include <rte_cycles.h>

struct head {
	uint8_t stage;
	uint8_t ticks_high; // since the start: some minutes, as packets wait in queues
	uint16_t size;
	uint32_t ticks;
};

static void stamp(const struct trace *t, struct head *h)
{
	uint64_t ticks = rte_rdtsc() - t->start;

	h->ticks = (uint32_t)ticks;
	h->ticks_high = (uint8_t)(ticks >> 32);
}

static uint8_t *room_of(struct trace *t)
{
	return t->more ? t->more : t->data;
}

void trace_put(struct trace *t, uint8_t stage, const void *record, uint16_t size)
{
	struct head h = {.stage = stage, .size = size};
	uint32_t takes = (uint32_t)((sizeof h + size + 7) & ~7u);
	uint8_t *to = room_of(t);

	if (t->used + takes > (t->more ? t->room : TRACE_ROOM)) {
		t->lost++;
		return;
	}
	stamp(t, &h);
	memcpy(to + t->used, &h, sizeof h);
	memcpy(to + t->used + sizeof h, record, size);
	t->last = t->used;
	t->used += takes;
}

void trace_stamp(struct trace *t)
{
	struct head h;

	memcpy(&h, room_of(t) + t->last, sizeof h);
	stamp(t, &h);
	memcpy(room_of(t) + t->last, &h, sizeof h);
}

void trace_unref(struct trace *t)
{
	if (t && --t->refs == 0)
		t->done(t, t->arg);
}

static void format_received(const struct core_record *r, struct buf *b)
{
	buf_add(b, "from %s, %u bytes, ", lport_name(r->port), r->len);
	buf_add_mac(b, r->src);
	buf_add(b, " > ");
	buf_add_mac(b, r->dst);
	if (r->n_tags)
		buf_add(b, ", VLAN %u", r->vlan & 0xfff);
	buf_add(b, ", type 0x%04x", r->ethertype);
	if (r->proto)
		buf_add(b, ", protocol %u", r->proto);
	buf_add(b, ", class %s", traffic_class_name(r->class));
}

static void format_stages(uint64_t stages, struct buf *b)
{
	if (!stages) {
		buf_add(b, "; nothing left to do per packet");
		return;
	}
	buf_add(b, "; per packet:");
	for (unsigned i = 0; i < stage_count(); i++)
		if (stages & 1ULL << i)
			buf_add(b, " %s", stage_get((uint8_t)i)->name);
}

static void format_decided(const struct core_record *r, struct buf *b)
{
	const struct network *net = network_get(r->network);

	switch ((enum out_kind)r->out_kind) {
	case OUT_PORT:
		buf_add(b, "output to %s", lport_name(r->port));
		if (r->vlan_op == VLAN_OP_POP)
			buf_add(b, ", outer tag taken off");
		else if (r->vlan_op == VLAN_OP_PUSH)
			buf_add(b, ", tagged with VLAN %u", r->vlan_tci & 0xfff);
		else if (r->vlan_op == VLAN_OP_SET)
			buf_add(b, ", VLAN set to %u", r->vlan_tci & 0xfff);
		break;
	case OUT_FLOOD:
		buf_add(b, "flooded to every other port of network %s", net ? net->name : "that is gone");
		break;
	case OUT_GROUP: {
		const struct target_list *l = targets_get(r->port);

		buf_add(b, "to the %u ports of its group", l ? l->n : 0);
		break;
	}
	case OUT_PUNT:
		buf_add(b, "for the switch itself");
		break;
	case OUT_DROP:
		buf_add(b, "drop: %s", reason_get(r->reason)->text);
		return;
	default:
		buf_add(b, "no output");
		return;
	}
	format_stages(r->stages, b);
}

static void format_row(uint32_t handle, struct buf *b)
{
	const struct row_info *row = row_get(handle);
	char id[ROW_ID_STRLEN + 1];

	if (!row)
		return;
	row_id_format(&row->id, id);
	buf_add(b, "decided by %s %s, row %s", row->table, row->name, id);
}

static void format_core(const struct core_record *r, struct buf *b)
{
	switch ((enum core_record_kind)r->kind) {
	case CORE_RECEIVED:
		format_received(r, b);
		break;
	case CORE_HIT:
		buf_add(b, "cached flow %u: ", r->flow);
		format_decided(r, b);
		break;
	case CORE_MISS:
		buf_add(b, "no cached flow, resolving");
		break;
	case CORE_WAIT:
		buf_add(b, "waits to be resolved: the port's budget of this round is used up");
		break;
	case CORE_DECIDED:
		format_decided(r, b);
		break;
	case CORE_COPY:
		buf_add(b, "a copy for %s", lport_name(r->port));
		break;
	case CORE_FURTHER:
		buf_add(b, "a copy for %s, as a rule wants", lport_name(r->port));
		break;
	case CORE_MIRROR:
		buf_add(b, "a copy for %s, as a mirror wants", lport_name(r->port));
		break;
	case CORE_SENT:
		buf_add(b, "out by %s", lport_name(r->port));
		break;
	case CORE_DROPPED:
		buf_add(b, "dropped (%s.%s): %s", reason_get(r->reason)->module, reason_get(r->reason)->name, reason_get(r->reason)->text);
		break;
	case CORE_QUEUED:
		buf_add(b, "waits in the queue of %s", lport_name(r->port));
		break;
	case CORE_BECAUSE:
		format_row(r->row, b);
		break;
	case CORE_DIFFERS:
		buf_add(b, "DEFECT: a fresh decision differs from the cached one: ");
		format_decided(r, b);
		break;
	case CORE_ANSWERED:
		if (r->reason)
			buf_add(b, "dropped (%s.%s): %s; its sender is told", reason_get(r->reason)->module, reason_get(r->reason)->name,
				reason_get(r->reason)->text);
		else
			buf_add(b, "the switch itself answers it");
		break;
	case CORE_CONSUMED:
		buf_add(b, "the switch itself takes it");
		break;
	case CORE_TUNNEL_IN:
		buf_add(b, "%s, %u bytes: %s packet, VNI %u", lport_name(r->port), r->len, tunnel_desc[r->proto % TUNNEL_FORMATS].name, r->flow);
		if (r->out_kind)
			buf_add(b, ": its frame comes in by %s, network %s", lport_name(r->reason),
				network_get(r->network) ? network_get(r->network)->name : "?");
		break;
	case CORE_TUNNEL_OUT:
		buf_add(b, "%s packet, %s %u, %u bytes, by %s", tunnel_desc[r->proto % TUNNEL_HEADERS].name, r->proto == TUNNEL_ERSPAN ? "session" : "VNI", r->flow, r->len, lport_name(r->port));
		if (r->adj)
			buf_add(b, ", in fragments, as the path takes %u", r->adj);
		break;
	case CORE_PUNTED:
		buf_add(b, "to the switch's own stack, for %s", r->port < stage_count() ? stage_get((uint8_t)r->port)->name : "?");
		break;
	case CORE_FRAGMENT:
		buf_add(b, "%s, %u bytes: a fragment of a packet for a tunnel's end point, which waits for the others", lport_name(r->port), r->len);
		break;
	case CORE_MERGED:
		buf_add(b, "became part of the packet that it is a fragment of");
		break;
	case CORE_WHOLE:
		buf_add(b, "%s, %u bytes: the whole packet, put together from its fragments", lport_name(r->port), r->len);
		break;
	case CORE_CHANGED: // has a record of its own
		break;
	}
}

static const char *core_name(const struct core_record *r)
{
	static const char *const names[] = {
		[CORE_RECEIVED] = "rx",     [CORE_HIT] = "flow",  [CORE_MISS] = "flow",    [CORE_WAIT] = "flow",  [CORE_DECIDED] = "decision",
		[CORE_COPY] = "flood",      [CORE_SENT] = "tx",   [CORE_DROPPED] = "drop", [CORE_QUEUED] = "tx",  [CORE_DIFFERS] = "flow",
		[CORE_BECAUSE] = "row",     [CORE_FURTHER] = "copy",  [CORE_CHANGED] = "change", [CORE_MIRROR] = "copy",
		[CORE_CONSUMED] = "own",    [CORE_ANSWERED] = "answer",    [CORE_PUNTED] = "own",
		[CORE_TUNNEL_IN] = "tunnel", [CORE_TUNNEL_OUT] = "tunnel", [CORE_FRAGMENT] = "tunnel", [CORE_MERGED] = "tunnel", [CORE_WHOLE] = "tunnel",
	};
	return r->kind < sizeof names / sizeof names[0] ? names[r->kind] : "?";
}

#define RECORD_MAX 1024 // bytes of a record

// Copies the record at *at to where it is aligned, and moves on. False: there is none left.
static bool next_record(const struct trace *t, uint32_t *at, struct head *h, uint64_t record[RECORD_MAX / 8])
{
	const uint8_t *from = t->more ? t->more : t->data;

	if (*at + sizeof *h > t->used)
		return false;
	memcpy(h, from + *at, sizeof *h);
	memcpy(record, from + *at + sizeof *h, h->size < RECORD_MAX ? h->size : RECORD_MAX);
	*at += (uint32_t)((sizeof *h + h->size + 7) & ~7u);
	return true;
}

typedef void visit(void *arg, const char *name, const char *text, uint64_t ns, uint64_t took);

static void walk(const struct trace *t, uint64_t hz, visit *fn, void *arg)
{
	uint64_t before = 0, record[RECORD_MAX / 8];
	struct head h;

	for (uint32_t at = 0; next_record(t, &at, &h, record);) {
		struct buf b = {0};
		const char *name = "?";

		if (h.stage == TRACE_CORE) {
			const struct core_record *r = (const void *)record;

			name = core_name(r);
			if (r->kind == CORE_CHANGED)
				change_format(&b, record, h.size);
			else
				format_core(r, &b);
		} else if (h.stage < stage_count()) {
			const struct stage *s = stage_get(h.stage);

			name = s->name;
			if (s->format)
				s->format(&b, record, h.size);
		}
		uint64_t ns = hz ? (uint64_t)((double)(h.ticks | (uint64_t)h.ticks_high << 32) * 1e9 / (double)hz) : 0;
		fn(arg, name, b.text ? b.text : "", ns, ns - before);
		before = ns;
		free(b.text);
	}
}

void trace_each_core(const struct trace *t, void (*fn)(void *arg, const struct core_record *), void *arg)
{
	struct head h;
	uint64_t record[RECORD_MAX / 8];

	for (uint32_t at = 0; next_record(t, &at, &h, record);)
		if (h.stage == TRACE_CORE && ((const struct core_record *)(const void *)record)->kind != CORE_CHANGED)
			fn(arg, (const void *)record);
}

struct text_arg {
	struct buf *b;
	bool times;
};

static void visit_text(void *arg, const char *name, const char *text, uint64_t ns, uint64_t took)
{
	struct text_arg *a = arg;
	char more[24];

	snprintf(more, sizeof more, "+%lu", (unsigned long)took);
	if (a->times)
		buf_add(a->b, "  %8lu ns %8s ns  %-10s %s\n", (unsigned long)ns, more, name, text);
	else
		buf_add(a->b, "  %-10s %s\n", name, text);
}

void trace_format(const struct trace *t, struct buf *b, bool times, uint64_t tsc_hz)
{
	struct text_arg a = {b, times};

	walk(t, tsc_hz, visit_text, &a);
	if (t->lost)
		buf_add(b, "  (%u more records did not fit)\n", t->lost);
}

static void visit_json(void *arg, const char *name, const char *text, uint64_t ns, uint64_t took)
{
	json_array_append_new(arg, json_pack("{s:s, s:s, s:I, s:I}", "stage", name, "text", text, "ns", (json_int_t)ns, "took_ns", (json_int_t)took));
}

json_t *trace_json(const struct trace *t, uint64_t tsc_hz)
{
	json_t *a = json_array();

	walk(t, tsc_hz, visit_json, a);
	return a;
}
