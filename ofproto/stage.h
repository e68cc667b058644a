// stage: the contract of the pipeline. A stage is one file in pipeline/ and one line in the list of pipeline/meson.build, which is also
// the order they resolve and run in.
//
//     #define MTU_REASONS(X) X(mtu, TOO_LARGE, "the packet is larger than the MTU of its egress port")
//     STAGE_REASONS(mtu, MTU_REASONS);
//     ...
//     STAGE(mtu, .resolve = mtu_resolve, .run = mtu_run, .egress = true);
//
// Threads: resolve, run, commit, refresh on a worker; all else on the main thread.
#ifndef OFPROTO_STAGE_H
#define OFPROTO_STAGE_H

#include "buf.h"
#include "config.h"
#include "gen.h"
#include "listing.h"
#include "page.h"
#include "reason.h"
#include "row.h"
#include "topology.h"
#include "trace.h"
#include "worker.h"

#define EFFECTS_MAX 8

// What a decision wants changed. `commit` of the stage applies it for real packets; explain keeps it as an overlay for the reply.
struct effect {
	uint8_t stage;
	uint8_t kind;
	uint16_t port;
	uint16_t network;
	uint32_t index;
	uint64_t value;
};

// A decision in the making.
struct resolve {
	struct worker *w;
	struct pkt *pkt;
	const struct flow_key *key;   // whole; read through resolve_field()
	struct flow *flow;            // what is being decided
	struct flow_cold *cold;       // its dependencies and provenance
	const struct lport *in;
	const struct network *net;    // NULL until the vlan stage has found it
	uint32_t fields;              // KEY_BIT()s that were read
	uint8_t stage;                // the stage that is at work
	uint8_t because;              // bit i: prov_row[i] was named by the stage that is at work
	uint32_t drop_row;            // the row that caused the drop, 0: none
	uint8_t n_effects;
	struct effect effect[EFFECTS_MAX];
	const struct effect *overlay; // effects of an explained packet before this one
	uint8_t n_overlay;
	struct trace *trace;
	// What a rule makes of the packet before later stages look at it.
	const uint8_t *dst; // destination address by which it is forwarded; NULL: its own
	uint32_t mark;      // mark.h; 0 until a rule sets it
	int tag;            // with which it leaves, see vlan_between()
	uint64_t direct;    // stages whose work on the packet the direct way (FLOW_DIRECT) does by itself, a bit each
	bool keeps_bit;     // the stage drops the packet, and has work on it all the same: a copy for a mirror
};

typedef void stage_count_fn(void *arg, const char *table, const struct row_id *, uint64_t packets, uint64_t bytes);

struct stage_verb {
	const char *name;  // "fdb/list"
	const char *usage; // "[NETWORK]"
	const char *help;
	// Returns the answer (malloc'ed), or NULL with *error set to a sentence (malloc'ed). `json`: it was asked for with --json, already taken out.
	char *(*run)(int argc, const char *argv[], bool json, char **error);
	page_fn *list; // instead of `run`, of a list that may be long: it is asked for in pages, and --json and --limit are taken out of argv
};

struct stage {
	const char *name;
	const struct reason *reasons;
	uint16_t n_reasons;
	uint16_t reason_base; // set at start-up
	uint8_t index;        // set at start-up; its bit in flow.stages
	bool egress;          // runs once for every copy, when pkt->out is known, instead of once per packet
	bool writes;          // run changes headers: those of its packets are their own, up to 64 bytes of the transport header
	bool replaces;        // run may put another packet into its array, in the place of the same one: from pkt_own_headers()
	// Looks at the wanted state before anything is published, so that `fields` knows it. Rows that can't be get their `error`.
	int (*prepare)(struct config *want);
	// Fields beyond KEY_BASE that resolve may read for packets of the network. NULL: none.
	uint32_t (*fields)(const struct config_network *);
	// Writes this stage's part of the decision. Returns 0, or the reason to drop for: by resolve_drop(), if a row caused it. Changes nothing but *r.
	uint16_t (*resolve)(struct resolve *r);
	// Work per packet, for packets whose flow has the stage's bit. Drops by pkt_drop() or changes the packet; never frees.
	void (*run)(struct worker *, struct pkt **, uint16_t n);
	void (*commit)(struct worker *, struct resolve *, const struct effect *);
	// A flow that is fresh had a packet; called about once a second and flow.
	void (*refresh)(struct worker *, const struct flow *);
	// Main thread: a packet that the stage had punted (punt.h), which has to be given back.
	void (*punted)(struct rte_mbuf *, uint8_t kind, uint16_t arg);
	// Main thread: the switch ends, and packets that the stage holds are to be given back now.
	void (*release)(void);
	void (*format)(struct buf *, const void *record, uint16_t size);
	// Wanted state to tables; a row that can't be gets its `error`. 0 or a negative errno.
	int (*reconcile)(struct config *want);
	// Housekeeping, about every 100 ms. `now`: nanoseconds, the workers' clock.
	void (*tick)(uint64_t now);
	// Counters of database rows.
	void (*count)(stage_count_fn *fn, void *arg);
	int (*init)(void);
	void (*fini)(void);
	const struct stage_verb *verbs; // ends with a NULL name
};

// At the head of the file: the stage's reasons, so that its functions can use STAGE_REASON(acl, DENY).
#define STAGE_REASONS(name_, REASONS)                                                                                  \
	extern struct stage stage_##name_;                                                                             \
	enum { REASONS(REASON_ENUM) name_##_REASON_N };                                                                \
	static const struct reason name_##_reason_rows[] = {REASONS(REASON_ROW)}
// At its end: the stage.
#define STAGE(name_, ...)                                                                                              \
	struct stage stage_##name_ = {                                                                                 \
		.name = #name_, .reasons = name_##_reason_rows, .n_reasons = name_##_REASON_N, __VA_ARGS__}
#define STAGE_REASON(name_, REASON) ((uint16_t)(stage_##name_.reason_base + name_##_##REASON))

// Reads a field of the packet for a decision, and records that it was read.
#define resolve_field(r, ID, member) ((r)->fields |= KEY_BIT(ID), &(r)->key->member)

// The decision depends on this slot: call it before the look-up.
void resolve_depend(struct resolve *, enum gen_kind, uint64_t id);
// Bumps a slot from a commit: the decision that wanted it stays fresh, if nothing else changed the slot meanwhile.
void resolve_bump(struct resolve *, enum gen_kind, uint64_t id);
// The row decided something in the stage that is at work.
void resolve_because(struct resolve *, uint32_t row);
// return resolve_drop(r, STAGE_REASON(acl, DENY), row): the stage drops, because of this row, by which such drops are counted; 0: no row is to blame.
uint16_t resolve_drop(struct resolve *, uint16_t reason, uint32_t row);
// NULL if there are too many.
struct effect *resolve_effect(struct resolve *);
static inline void resolve_record(struct resolve *r, const void *record, uint16_t size)
{
	if (r->trace)
		trace_put(r->trace, r->stage, record, size);
}

// The pipeline's list, made from pipeline/meson.build.
extern struct stage *const stage_list[];
extern const unsigned stage_list_n;

// Registers reasons, numbers the stages, calls init. Main thread, once (tests: any number of times, with stages_fini() between).
int stages_init(struct stage *const *list, unsigned n);
void stages_fini(void);
struct stage *stage_get(uint8_t index);
unsigned stage_count(void);
struct stage *stage_find(const char *name);
// topology_reconcile() and then every stage's.
int stages_reconcile(struct config *);
void stages_tick(uint64_t now);
void stages_release(void);
void stages_count(stage_count_fn *fn, void *arg);

#endif
