// why_checks: what is asked of packets that don't arrive, see why.h.
#include "why.h"
#include "adjacency.h"
#include "cache.h"
#include "clock.h"
#include "drop.h"
#include "fdb.h"
#include "station_table.h"
#include "reconcile.h"
#include "thread.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#define RECENT_NS 10000000000ULL // an answer that was lost for a decision so long ago: it may be decided otherwise by now

static const char *name_of(uint16_t port)
{
	const struct port *p = port_get(port);

	return p ? p->name : "that is gone";
}

// ---- ports

static enum why_state look_at_port(const struct port *p, struct buf *b)
{
	const char *error = reconcile_port_error(&p->row);
	const struct lport *lp = lport_get(p->id);
	struct port_state s;

	memset(&s, 0, sizeof s);
	if (p->device)
		p->device->ops->state(p->device->dev, &s);
	buf_add(b, "port %s: ", p->name);
	if (error || p->error)
		buf_add(b, "%s", error ? error : p->error);
	else if (!lp)
		buf_add(b, "it is not configured yet");
	else if (!lp->enabled)
		buf_add(b, "it is disabled");
	else if (s.problem[0])
		buf_add(b, "%s", s.problem);
	else if (!p->device || !s.link_up)
		buf_add(b, "its link is down");
	else if (p->device->ops->room && p->device->ops->room(p->device->dev, 0) == 0)
		buf_add(b, p->device->ops->guest ? "its guest has no receive buffers posted at this moment"
						 : "its device takes no packets");
	else
		return WHY_OK;
	return WHY_PROBLEM;
}

static enum why_state check_ingress(const struct why *y, struct buf *b)
{
	struct counts c = {0};
	enum why_state s = look_at_port(y->in, b);

	if (s != WHY_OK)
		return s;
	port_counts(y->in, &c);
	if (!c.c[COUNT_RX]) {
		buf_add(b, "its link is up, but no packet has come in by it yet");
		return WHY_UNKNOWN;
	}
	buf_add(b, "link up, %llu packets received", (unsigned long long)c.c[COUNT_RX]);
	return WHY_OK;
}

static enum why_state check_egress(const struct why *y, struct buf *b)
{
	struct counts c = {0};

	if (!y->out) {
		unsigned n = dry_ports(&y->e.run);

		if (!n)
			buf_add(b, "the packet doesn't get as far as a port");
		else
			buf_add(b, "it is sent to %u ports, as it is not known which is the right one", n);
		return WHY_UNKNOWN;
	}
	enum why_state s = look_at_port(y->out, b);
	if (s != WHY_OK)
		return s;
	port_counts(y->out, &c);
	buf_add(b, "link up, %llu packets sent", (unsigned long long)c.c[COUNT_TX]);
	if (c.c[COUNT_TX_DROPPED])
		buf_add(b, ", %llu dropped on the way out, ever", (unsigned long long)c.c[COUNT_TX_DROPPED]);
	return WHY_OK;
}

// ---- flows

static bool is_stale(const struct flow_view *v)
{
	for (unsigned i = 0; i < v->cold.n_deps; i++)
		if (gen_read(v->cold.dep_slot[i]) != v->cold.dep_gen[i])
			return true;
	return false;
}

static enum why_state check_flow(const struct why *y, struct buf *b)
{
	struct flow_view v, last;
	uint32_t now_ms = (uint32_t)(clock_ns() / 1000000);
	unsigned n = 0, worker = 0;

	for (unsigned id = 0; y->is_sound && id < MAX_WORKERS; id++) {
		const struct worker *w = thread_worker(id);
		uint32_t at = 0;

		while (w && flow_table_match(w->flows, &y->value, &y->mask, &at, &v)) {
			// A flow of all that one station sends to another tells nothing, if it is not known who the other is.
			if (y->e.assumed.guessed_dst && !(profile_get(v.key.profile)->fields & KEY_BIT(NW_DST)))
				continue;
			if (!n++ || (int32_t)(v.flow.used_ms - last.flow.used_ms) > 0) {
				last = v;
				worker = id;
			}
		}
	}
	if (!n) {
		buf_add(b, "no cached flow: no such packet was seen of late");
		return WHY_UNKNOWN;
	}
	int32_t idle = (int32_t)(now_ms - last.flow.used_ms);
	if (n > 1)
		buf_add(b, "%u cached flows; the last one: ", n);
	buf_add(b, "worker %u, %llu packets, idle for %.1f s, ", worker, (unsigned long long)last.flow.packets,
		idle > 0 ? idle / 1000.0 : 0);
	cache_format_actions(b, &last.flow);
	if (last.cold.n_prov) {
		struct buf rows = {0};

		cache_format_because(&rows, &last.cold);
		buf_add(b, ", decided by %s", rows.text ? rows.text : "?");
		free(rows.text);
	}
	if (is_stale(&last)) {
		buf_add(b, "; what it depends on has changed: its next packet is decided anew");
		return WHY_UNKNOWN;
	}
	return last.flow.out_kind == OUT_DROP ? WHY_PROBLEM : WHY_OK;
}

struct decided {
	uint32_t row[2]; // the last ones that were named before the decision
};

static void keep_row(void *arg, const struct core_record *c)
{
	struct decided *d = arg;

	if (c->kind != CORE_BECAUSE || c->row == d->row[0])
		return;
	d->row[1] = d->row[0];
	d->row[0] = c->row;
}

static enum why_state check_decision(const struct why *y, struct buf *b)
{
	const struct dry_run *r = &y->e.run;
	const struct network *net = network_get(r->decision.network);
	struct decided d = {{0}};

	if (r->decision.out_kind == OUT_NONE) {
		buf_add(b, "dropped as malformed: %s", r->n_drop ? reason_get(r->drop[0].reason)->text : "?");
		return WHY_PROBLEM;
	}
	trace_each_core(r->trace, keep_row, &d);
	if (r->decision.out_kind == OUT_DROP)
		buf_add(b, "dropped (%s.%s): %s", reason_get(r->decision.out)->module, reason_get(r->decision.out)->name,
			reason_get(r->decision.out)->text);
	else if (r->waits)
		buf_add(b, "it waits for its next hop");
	else if (r->answered)
		buf_add(b, "the switch itself answers, out by %s", name_of(r->decision.out));
	else if (r->decision.out_kind == OUT_PUNT)
		buf_add(b, "the switch itself takes it");
	else if (r->decision.out_kind == OUT_PORT)
		buf_add(b, "out by %s", name_of(r->decision.out));
	else if (r->decision.out_kind == OUT_GROUP)
		buf_add(b, "to who asked for its group, %u ports", dry_ports(r));
	else
		buf_add(b, "flooded in network %s, to %u ports", net ? net->name : "?", dry_ports(r));
	if (r->mark)
		buf_add(b, "; mark 0x%x", r->mark);
	for (int i = 1; i >= 0; i--) {
		const struct row_info *row = row_get(d.row[i]);

		if (row)
			buf_add(b, "%s%s %s", d.row[1] && !i ? ", " : "; decided by ", row->table, row->name);
	}
	return r->decision.out_kind == OUT_DROP ? WHY_PROBLEM : WHY_OK;
}

// ---- addresses

static enum why_state check_destination(const struct why *y, struct buf *b)
{
	const struct network *net = network_get(y->e.run.decision.network);
	// Of what is routed, where the next hop is.
	const uint8_t *dst = y->e.run.adj ? adjacency_get(y->e.run.adj)->dst : y->e.frame;
	struct fdb_entry at;

	if (!net || y->e.len < 14) {
		buf_add(b, "the packet is in no network, so there is nowhere to look");
		return WHY_UNKNOWN;
	}
	if (dst[0] & 1) {
		buf_add(b, y->e.assumed.guessed_dst
				   ? "it is not known who has the destination's address, so it goes to everybody"
				   : "it is for a group");
		return y->e.assumed.guessed_dst ? WHY_PROBLEM : WHY_OK;
	}
	buf_add_mac(b, dst);
	if (!fdb_lookup(fdb_key(net->id, dst), &at)) {
		buf_add(b, " is not known in network %s: it has sent nothing for a while, or is elsewhere; %s", net->name,
			net->flood_unknown ? "packets for it are flooded" : "packets for it are dropped");
		return net->flood_unknown ? WHY_UNKNOWN : WHY_PROBLEM;
	}
	if (at.is_static)
		buf_add(b, " is static at port %s", name_of(at.port));
	else
		buf_add(b, " was learned at port %s, seen %u s ago", name_of(at.port),
			(uint32_t)(clock_ns() / 1000000000) - at.seen);
	if (at.held)
		buf_add(b, ", and flaps");
	return at.held || (at.port == y->in->id && !y->e.run.adj) ? WHY_PROBLEM : WHY_OK;
}

static enum why_state check_neighbour(const struct why *y, struct buf *b)
{
	bool v6 = y->f.pkt.ethertype == FIELD_ETH_IPV6;
	const void *ip = v6 ? (const void *)y->f.key.v6.dst : (const void *)&y->f.key.v4.dst;
	const struct station *n = NULL;
	char text[INET6_ADDRSTRLEN];

	if (!y->is_sound || (!y->f.pkt.l3_ofs && y->f.pkt.ethertype != FIELD_ETH_ARP)) {
		buf_add(b, "the packet has no IP address");
		return WHY_UNKNOWN;
	}
	if (y->e.run.waits) {
		buf_add(b, "the next hop isn't known yet: it is asked for when a packet comes");
		return WHY_UNKNOWN;
	}
	if (y->e.run.adj) {
		buf_add(b, "the next hop is ");
		buf_add_mac(b, adjacency_get(y->e.run.adj)->dst);
		return WHY_OK;
	}
	if (y->e.run.answered) {
		uint16_t reason = y->e.run.answer_reason;
		bool failed = reason && !strcmp(reason_get(reason)->name, "NO_NEIGHBOUR");

		buf_add(b, failed ? "the next hop was asked for, and doesn't answer" : "none is needed: the switch itself answers");
		return failed ? WHY_PROBLEM : WHY_OK;
	}
	n = station_find(y->e.run.decision.network, v6, ip, NULL);
	if (!n) {
		buf_add(b, "not known: no port has %s in its addresses, and nobody was heard to have it",
			inet_ntop(v6 ? AF_INET6 : AF_INET, ip, text, sizeof text));
		return WHY_UNKNOWN;
	}
	buf_add(b, "%s is ", inet_ntop(v6 ? AF_INET6 : AF_INET, ip, text, sizeof text));
	buf_add_mac(b, n->mac);
	buf_add(b, n->is_static ? " at port %s, which has it in its addresses" : " at port %s, as was heard there", name_of(n->port));
	if ((y->e.frame[0] & 1) || !memcmp(n->mac, y->e.frame, 6))
		return WHY_OK;
	buf_add(b, "; the packet is for another Ethernet address");
	return WHY_PROBLEM;
}

// ---- sizes

static enum why_state check_mtu(const struct why *y, struct buf *b)
{
	const struct lport *in = lport_get(y->in->id), *out = y->out ? lport_get(y->out->id) : NULL;
	struct counts c = {0};
	uint64_t lost = 0;

	if (!in || !out) {
		buf_add(b, "not known which port it leaves by");
		return WHY_UNKNOWN;
	}
	port_counts(y->in, &c);
	uint16_t reason = reason_find("mtu", "TOO_LARGE");
	lost = reason ? c.drop[reason] : 0;
	struct port_state s;
	port_state(port_get(y->in->id), &s);
	uint16_t sends = s.guest_mtu ? s.guest_mtu : in->mtu;
	if (sends <= out->mtu) {
		buf_add(b, "%u bytes on port %s, %u on port %s: what the one may send, the other takes", sends, in->name,
			out->mtu, out->name);
		return WHY_OK;
	}
	buf_add(b, "port %s takes %u bytes, port %s may send %u%s: larger packets are dropped (mtu.TOO_LARGE)", out->name,
		out->mtu, in->name, sends, s.guest_mtu ? ", as its hypervisor told the guest" : "");
	if (lost)
		buf_add(b, ", %llu of port %s so far", (unsigned long long)lost, in->name);
	return WHY_PROBLEM;
}

// ---- what was lost

static bool is_like(const struct drop_packet *p, const struct flow_key *value, const struct flow_key *mask, uint16_t port)
{
	const key_word *a, *b = (const key_word *)(const void *)value, *m = (const key_word *)(const void *)mask;
	struct parsed_frame f;

	if (!p->time || parse_frame(p->data, p->have, p->len, port, &f))
		return false;
	a = (const key_word *)(const void *)&f.key;
	for (unsigned i = 0; i < sizeof f.key / sizeof *a; i++)
		if ((a[i] ^ b[i]) & m[i])
			return false;
	return true;
}

struct lost {
	uint64_t packets;      // of the ports, reasons and rows that packets like this one were lost by
	uint64_t last;         // when, nanoseconds; 0: none was
	uint16_t reason, port; // of the last
	uint32_t row;
};

// Packets like these that were lost, as far as they are remembered. `port`: whose, 0: of any.
static void look_for_lost(const struct flow_key *value, const struct flow_key *mask, uint16_t port, struct lost *l)
{
	struct drop_entry *entries = calloc(DROP_ENTRIES, sizeof *entries);

	memset(l, 0, sizeof *l);
	for (unsigned id = 0; entries && id <= MAX_WORKERS; id++) {
		const struct drops *d = thread_drops(id);
		unsigned n = d ? drop_read(d, entries, true) : 0;

		for (const struct drop_entry *e = entries; e < entries + n; e++) {
			bool like = false;

			for (unsigned i = 0; i < DROP_KEPT && (!port || e->port == port); i++) {
				if (!is_like(&e->kept[i], value, mask, e->port))
					continue;
				like = true;
				if (e->kept[i].time > l->last) {
					l->last = e->kept[i].time;
					l->reason = e->reason;
					l->port = e->port;
					l->row = e->row;
				}
			}
			l->packets += like ? e->packets : 0;
		}
	}
	free(entries);
}

static void say_lost(const struct lost *l, struct buf *b)
{
	const struct reason *r = reason_get(l->reason);
	const struct row_info *row = row_get(l->row);
	int64_t ago = (int64_t)(clock_ns() - l->last);

	buf_add(b, "lost %.1f s ago (%s.%s): %s", ago > 0 ? (double)ago / 1e9 : 0, r->module, r->name, r->text);
	if (row)
		buf_add(b, ", by %s %s", row->table, row->name);
	buf_add(b, "; %llu packet%s of port %s went that way", (unsigned long long)l->packets, l->packets == 1 ? "" : "s",
		name_of(l->port));
}

// Whether packets are dropped for the reason by a decision, which would be another one now, and not one by one.
static bool is_decided(uint16_t reason)
{
	const char *module = reason_get(reason)->module;
	const struct stage *s = stage_find(module);

	return s && (!s->run || !strcmp(module, "rule"));
}

static enum why_state check_drops(const struct why *y, struct buf *b)
{
	struct counts c = {0};
	struct lost l = {0};

	if (y->is_sound)
		look_for_lost(&y->value, &y->mask, y->in->id, &l);
	port_counts(y->in, &c);
	if (!l.last) {
		if (c.c[COUNT_DROPPED])
			buf_add(b,
				"port %s has lost %llu packets, but none like this is among those that are remembered (weirctl "
				"drops)",
				y->in->name, (unsigned long long)c.c[COUNT_DROPPED]);
		else
			buf_add(b, "port %s has lost nothing", y->in->name);
		return WHY_OK;
	}
	buf_add(b, "one like it was ");
	say_lost(&l, b);
	if (!is_decided(l.reason) || y->e.run.decision.out_kind == OUT_DROP)
		return WHY_PROBLEM;
	buf_add(b, "; it would pass now");
	return WHY_OK;
}

// ---- the answer

bool why_comes_back(const struct why *y)
{
	for (unsigned i = 0; !y->answered && i < y->back.run.n_out; i++)
		if (y->back.run.out[i].port == y->in->id && dry_is_packet(&y->back.run, &y->back.run.out[i]))
			return true;
	return false;
}

// Answers that were lost, wherever they came in: they may have had another tag or Ethernet address than they should.
static bool look_for_answers(const struct why *y, struct lost *l)
{
	struct flow_key mask = {.ethertype = 0xffff, .proto = 0xff};
	bool v6 = y->f.pkt.ethertype == FIELD_ETH_IPV6,
	     ports = y->f.key.proto == FIELD_IP_TCP || y->f.key.proto == FIELD_IP_UDP;
	struct parsed_frame back;

	if (!y->is_sound || !y->f.pkt.l3_ofs || y->answered || parse_frame(y->back.frame, y->back.len, y->back.len, 0, &back))
		return false;
	if (v6)
		memset(&mask.v6, 0xff, sizeof mask.v6);
	else
		mask.v4.src = mask.v4.dst = UINT32_MAX;
	mask.sport = ports ? y->mask.dport : 0;
	mask.dport = ports ? y->mask.sport : 0;
	look_for_lost(&back.key, &mask, 0, l);
	return l->last && (!is_decided(l->reason) || clock_ns() - l->last < RECENT_NS);
}

static enum why_state check_answer(const struct why *y, struct buf *b)
{
	struct lost l;

	if (y->e.run.answered) {
		buf_add(b, "the switch itself gives one");
		return WHY_OK;
	}
	if (y->e.run.waits) {
		buf_add(b, "not known before the packet has arrived");
		return WHY_UNKNOWN;
	}
	if (y->answered) {
		buf_add(b, "no answer: %s", y->no_answer ? y->no_answer : "out of memory");
		return dry_first(&y->e.run) ? WHY_UNKNOWN : WHY_PROBLEM;
	}
	const struct dry_out *out = dry_first(&y->back.run);
	uint16_t reason = dry_reason(&y->back.run);
	const char *from = y->back.assumed.port->name;
	if (look_for_answers(y, &l)) {
		buf_add(b, "one like the answer was ");
		say_lost(&l, b);
		return WHY_PROBLEM;
	}
	if (why_comes_back(y)) {
		buf_add(b, "%sthe answer from port %s comes out by %s",
			y->e.assumed.guessed_dst ? "if who is meant is there, " : "", from, y->in->name);
		return y->e.assumed.guessed_dst ? WHY_UNKNOWN : WHY_OK;
	}
	if (reason)
		buf_add(b, "the answer from port %s is dropped (%s.%s): %s", from, reason_get(reason)->module,
			reason_get(reason)->name, reason_get(reason)->text);
	else
		buf_add(b, "the answer from port %s leaves by port %s, not by %s", from, out ? name_of(out->port) : "?",
			y->in->name);
	return WHY_PROBLEM;
}

// What is asked, in the order in which a packet meets it.
const struct why_check why_checks[WHY_CHECKS] = {
	{"ingress", "is the port healthy that it comes in by?", check_ingress},
	{"flow", "is there a cached flow, and what decided it?", check_flow},
	{"decision", "what would become of it now?", check_decision},
	{"destination", "is it known where the destination is?", check_destination},
	{"neighbour", "is the neighbour resolved?", check_neighbour},
	{"egress", "is the port healthy that it leaves by?", check_egress},
	{"mtu", "do the largest packets fit?", check_mtu},
	{"drops", "what was dropped of it, and where?", check_drops},
	{"answer", "would the answer come back?", check_answer},
};
