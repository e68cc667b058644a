// forward_private: what the files of the packet path share: forward.c (bursts, misses), decide.c (decisions), run.c (stages, copies, egress).
#ifndef OFPROTO_FORWARD_PRIVATE_H
#define OFPROTO_FORWARD_PRIVATE_H

#include "forward.h"

#define FLOW_REASON(name) ((uint16_t)(forward_reason_base + flow_##name))

extern uint64_t forward_ingress, forward_egress; // stages of either kind
extern uint64_t forward_egress_runs;             // those that run on copies

// One packet on its way to a decision.
struct lookup {
	struct flow_key whole; // as parsed
	struct flow_key key;   // masked by its profile
	uint64_t hash;
	uint8_t len;
};

// decide.c: makes the decision for a packet and keeps it in the table, in the place of `old` if there is one. Returns the flow, or `scratch` if it is
// not cached.
struct flow *forward_resolve(struct worker *, struct rte_mbuf *, struct lookup *, struct flow *old, struct flow *scratch);
// A traced packet that a cached flow serves: shows how the decision came about, by making it once more, and holds both to each other.
void forward_trace_hit(struct worker *, struct rte_mbuf *, const struct flow_key *whole, struct flow *);
// In two steps, for explain.
void resolve_start(struct resolve *, struct worker *, struct rte_mbuf *, const struct flow_key *, struct flow *, struct flow_cold *);
void resolve_run(struct resolve *);

// run.c: packets with their decisions, n <= BURST, in order: their stages, copies, egress batches.
void forward_run(struct worker *, struct rte_mbuf **, unsigned n);

void forward_trace_decision(struct trace *, uint8_t kind, const struct flow *, uint32_t index, uint32_t mark);
void forward_trace(struct trace *, uint8_t kind, uint16_t port);
void forward_trace_lost(struct trace *, uint16_t port);

#endif
