// punt: packets between the workers and the switch's own stack, which is on the main thread.
//
// A stage that wants a packet to go to the main thread decides for OUT_PUNT (resolve_punt()) or copies it there (punt_copy()). The stage's `punted`
// gets it on the main thread, and must give it back by exactly one of punt_consume(), punt_drop(), punt_resume() and punt_run(), now or later. Until then it is
// counted as queued on the ledger of its origin; what is given back is counted by a worker, so that counters keep one writer.
//
// Bounds: PUNT_PORT_MAX packets of one ingress port and PUNT_MAX of one worker are out at a time, those that wait for a neighbour included.
#ifndef OFPROTO_PUNT_H
#define OFPROTO_PUNT_H

#include "pkt.h"
#include "reason.h"

struct worker;
struct resolve;

// What is done with a packet on a worker.
typedef void punt_fn(struct worker *, struct rte_mbuf *, uint16_t arg);

#define PUNT_MAX 4096
#define PUNT_PORT_MAX 512

#define PUNT_REASONS(X)                                                                                                \
	X(punt, QUEUE_FULL, "too many packets of its port are with the switch's own stack, or wait for neighbours")     \
	X(punt, CLOSED, "the switch ended while the packet waited")

enum {
	PUNT_REASONS(REASON_ENUM) PUNT_REASON_N
};
extern uint16_t punt_reason_base;
#define PUNT_REASON(name) ((uint16_t)(punt_reason_base + punt_##name))

void punt_init(void);
// What is still on its way back is dropped. No worker runs any more.
void punt_fini(void);

// ---- workers

#define PUNT_CONSUME 0xff // a kind: see resolve_consume()

// Of a decision: the packet goes to `punted` of the stage that is at work, with `kind` and `arg`. Flows like it are cached as any other.
void resolve_punt(struct resolve *, uint8_t kind, uint16_t arg);
// A decision: the packet ends here, the switch itself has had what there is in it. It is counted as consumed.
void resolve_consume(struct resolve *);
// A packet whose decision is OUT_PUNT. Takes it.
void punt_give(struct worker *, struct rte_mbuf *);
// A copy of the packet, which goes on by itself. Nothing happens on a dry worker.
void punt_copy(struct worker *, const struct pkt *, uint8_t stage, uint8_t kind, uint16_t arg);
// A packet waits in a table of the workers, which has bounds of its own; it is counted as queued. punt_release(): a worker, not necessarily the same, has it
// back. The main thread may give it back instead, as if it had been punted.
void punt_hold(struct worker *, struct rte_mbuf *);
void punt_release(struct worker *, struct rte_mbuf *);
// Takes what the main thread gave this worker. Returns how many packets that were.
unsigned punt_serve(struct worker *);

// ---- main thread

// Gives what workers punted to the stages.
void punt_poll(void);
// How a packet is given back.
void punt_consume(struct rte_mbuf *);                             // it is done with
void punt_drop(struct rte_mbuf *, uint16_t reason, uint32_t row); // row: as for worker_drop_for()
void punt_resume(struct rte_mbuf *);                              // it is decided anew, as if it had just come in
// `fn` does something with the packet on a worker, which owns it then (as m) and has it off its queue: worker_drop(), forward_send() and the like.
void punt_run(struct rte_mbuf *, punt_fn *fn, uint16_t arg);
// Where new packets come from. Once, before punt_new().
void punt_set_pool(struct rte_mempool *(*)(void));
// A new packet of `len` bytes, in one piece, that the caller fills; NULL: no buffer. Then one of:
struct rte_mbuf *punt_new(uint16_t len, uint8_t **data);
// It comes into the switch on `port` (a router port, say), and is decided as any packet. On that port's ledger it is counted as generated.
void punt_send(struct rte_mbuf *, uint16_t port);
// It leaves by device port `port` as it is, past all stages: of protocols of the link, such as LLDP.
void punt_emit(struct rte_mbuf *, uint16_t port);

// What vswitch/ sets. `ring`: workers have punted something; any worker. `deliver`: hands a packet to some worker's punt_queue(); false: there is none.
// With neither set, what workers punt waits for punt_poll(), and what is given back is gone.
extern void (*punt_ring)(void);
extern bool (*punt_deliver)(struct rte_mbuf *, unsigned worker); // `worker`: who had it; any other will do
// Any thread: a worker gets the packet at its next punt_serve().
void punt_queue(struct worker *, struct rte_mbuf *);

#endif
