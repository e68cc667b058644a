// decide: how the packet path comes to a decision: every stage's resolve, effects, the flow. See forward_private.h.
#include "forward_private.h"
#include "probe.h"
#include "punt.h"

#include <string.h>
#include <rte_branch_prediction.h>
#include <rte_cycles.h>

// The rows that the stage named, behind its own line.
static void trace_because(struct resolve *r)
{
	for (unsigned i = 0; i < r->cold->n_prov; i++) {
		struct core_record rec = {.kind = CORE_BECAUSE, .row = r->cold->prov_row[i]};

		if (r->because & 1u << i)
			trace_put(r->trace, TRACE_CORE, &rec, sizeof rec);
	}
	r->because = 0;
}

void resolve_run(struct resolve *r)
{
	struct flow *f = r->flow;

	f->stages = forward_ingress | forward_egress;
	f->aux = UINT32_MAX;
	resolve_depend(r, GEN_CONFIG, 0);
	// The port once more, now that its generation is noted: the one that the key was made with may have been replaced meanwhile.
	resolve_depend(r, GEN_PORT, r->pkt->in_port);
	r->in = lport_get(r->pkt->in_port);
	if (unlikely(!r->in)) {
		f->stages = 0;
		f->out_kind = OUT_DROP;
		f->out = FLOW_REASON(PORT_GONE);
		f->drop_row = 0;
		return;
	}
	r->pkt->network = lport_classify(r->in, r->key->vlan).network;
	for (unsigned i = 0; i < stage_count(); i++) {
		struct stage *s = stage_get((uint8_t)i);

		r->stage = (uint8_t)i;
		if (!s->run)
			f->stages &= ~(1ULL << i);
		uint16_t said = r->trace ? r->trace->used : 0;
		uint16_t reason = s->resolve ? s->resolve(r) : 0;
		if (unlikely(r->trace)) {
			if (r->trace->used != said)
				trace_stamp(r->trace);
			trace_because(r);
		}
		if (reason) {
			f->out_kind = OUT_DROP;
			f->out = reason;
			// What ran before still does: a meter counts what is dropped later.
			f->stages &= (r->keeps_bit ? 2ULL << i : 1ULL << i) - 1;
			break;
		}
	}
	if (f->out_kind == OUT_NONE) {
		f->out_kind = OUT_DROP;
		f->out = FLOW_REASON(NO_OUTPUT);
	}
	if (f->out_kind == OUT_DROP) {
		f->vlan_op = VLAN_OP_NONE;
		f->drop_row = r->drop_row;
	}
	if (f->out_kind == OUT_PUNT && (f->out & 0xff) != PUNT_CONSUME) {
		f->stages = 0; // it may come back, and is decided anew then
		f->actions = r->mark;
	}
	f->network = r->pkt->network;
	if (r->trace)
		forward_trace_decision(r->trace, CORE_DECIDED, f, 0, r->mark);
}

void resolve_start(struct resolve *r, struct worker *w, struct rte_mbuf *m, const struct flow_key *key, struct flow *f,
			  struct flow_cold *c)
{
	memset(f, 0, sizeof *f);
	c->n_deps = c->n_prov = 0;
	c->class_row = 0;
	*r = (struct resolve){.w = w, .pkt = pkt_of(m), .key = key, .flow = f, .cold = c, .tag = TAG_OF_PORT};
	f->epoch = gen_read_epoch(); // before anything is looked up
}

// Effects that bumped a generation which this very decision depends on leave it fresh.
static void commit(struct resolve *r)
{
	for (unsigned i = 0; i < r->n_effects; i++) {
		struct stage *s = stage_get(r->effect[i].stage);

		if (s->commit)
			s->commit(r->w, r, &r->effect[i]);
	}
}

// Moves the decision into the table: into `old` if there is one, else into a new record. Returns the record, or `f` if it isn't cached.
static struct flow *keep(struct resolve *r, const struct lookup *l, struct flow *old)
{
	struct worker *w = r->w;
	struct flow *f = r->flow;
	uint32_t beyond = r->fields & ~profile_get(l->key.profile)->fields;

	if (unlikely(beyond))
		worker_count(w, r->pkt->in_port, COUNT_BEYOND_PROFILE, 1);
	if (unlikely(beyond || (f->flags & FLOW_UNCACHED))) {
		worker_count(w, r->pkt->in_port, COUNT_UNCACHED, 1);
		if (old)
			flow_table_remove(w->flows, old);
		f->flags |= FLOW_UNCACHED;
		return f;
	}
	struct flow *record = old ? old : flow_table_insert(w->flows, &l->key, l->len, l->hash, w->now_ms);
	if (unlikely(!record)) {
		worker_count(w, r->pkt->in_port, COUNT_UNCACHED, 1);
		f->flags |= FLOW_UNCACHED;
		return f;
	}
	flow_decide(w->flows, record, f, r->cold);
	return record;
}

static __rte_noinline void probe_resolve(const struct resolve *r, uint64_t ticks)
{
	static const char *const kinds[] = {[OUT_NONE] = "none", [OUT_PORT] = "port", [OUT_FLOOD] = "flood", [OUT_DROP] = "drop", [OUT_PUNT] = "punt", [OUT_GROUP] = "group"};
	uint64_t ns = (uint64_t)((double)ticks * 1e9 / (double)rte_get_tsc_hz());

	PROBE(resolve, lport_name(r->pkt->in_port), ns, kinds[r->flow->out_kind % RTE_DIM(kinds)], r->w->id);
}

struct flow *forward_resolve(struct worker *w, struct rte_mbuf *m, struct lookup *l, struct flow *old, struct flow *scratch)
{
	struct flow_cold cold;
	struct resolve r;
	uint64_t start = PROBE_ON(resolve) ? rte_rdtsc() : 0;

	resolve_start(&r, w, m, &l->whole, scratch, &cold);
	r.trace = pkt_of(m)->trace;
	if (unlikely(r.trace))
		forward_trace(r.trace, CORE_MISS, 0);
	resolve_run(&r);
	commit(&r);
	worker_count(w, pkt_of(m)->in_port, COUNT_RESOLVED, 1);
	w->tally.resolved++;
	struct flow *f = keep(&r, l, old);
	if (f == scratch && f->rule) { // no flow will credit it
		flow_credit(w->flows, f->rule, 1, m->pkt_len);
		if (cold.class_row)
			flow_credit(w->flows, cold.class_row, 1, m->pkt_len);
	}
	if (start)
		probe_resolve(&r, rte_rdtsc() - start);
	return f;
}

// A traced packet that a cached flow serves: shows how the decision came about, by making it once more, and holds both to each other.
void forward_trace_hit(struct worker *w, struct rte_mbuf *m, const struct flow_key *whole, struct flow *f)
{
	struct pkt *p = pkt_of(m);
	struct flow again;
	struct flow_cold cold;
	struct resolve r;

	forward_trace_decision(p->trace, CORE_HIT, f, flow_index(w->flows, f), 0);
	resolve_start(&r, w, m, whole, &again, &cold);
	r.trace = p->trace;
	resolve_run(&r);
	if ((again.out_kind != f->out_kind || again.out != f->out || again.vlan_op != f->vlan_op || again.stages != f->stages ||
	     again.rule != f->rule || again.adj != f->adj || again.actions != f->actions) &&
	    gen_read_epoch() == w->epoch)
		forward_trace_decision(p->trace, CORE_DIFFERS, &again, 0, 0);
}
