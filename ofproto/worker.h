// worker: what the packet path knows of the thread that runs it. vswitch/ makes real ones, explain a dry one, unit tests their own.
#ifndef OFPROTO_WORKER_H
#define OFPROTO_WORKER_H

#include "count.h"
#include "drop.h"
#include "cycles.h"
#include "flow.h"
#include "sizes.h"
#include "pkt.h"
#include "rcu.h"
#include "reason.h"

#include <rte_branch_prediction.h>

#define TX_BATCH 64   // packets that wait for one egress port before they are flushed
#define MISS_MAX 1024 // bound of the queue of misses of one port; what is used is worker.miss_limit
#define MISS_GUARDS 256

struct tracer;
struct captures;

// Where a capture takes packets.
enum capture_point {
	CAPTURE_RX,    // as they came
	CAPTURE_TX,    // as they are given to the device
	CAPTURE_DROP,  // where they end, as they are then
	CAPTURE_STAGE, // behind the run of a stage
	CAPTURE_POINTS
};

// Instruments that are on: worker.watch.
#define WATCH_TRACE 0x1u
#define WATCH(point) (0x2u << (point))

// One port as one worker sees it. Made and freed by the main thread, published through worker.port[].
struct port_worker {
	uint16_t id;
	bool count_dirty; // it is in worker.dirty[]
	bool tx_dirty;    // it is in worker.tx_dirty[]
	uint16_t tx_n;
	// How many of them came as one plain buffer from port tx_origin, took the direct way and are not traced, and the bytes of these.
	uint16_t tx_same, tx_origin;
	uint32_t tx_bytes;
	struct rte_mbuf *tx[TX_BATCH];
	// Packets whose flow is not known yet, in order. `guard` counts those of each hash class, so that a packet whose flow became known while
	// an older packet of it still waits here joins the queue instead of overtaking.
	uint16_t miss_head, miss_n;
	uint32_t redirected_ms; // when a sender behind it was told of a better next hop last
	uint16_t punted; // packets of the port that are with the main thread
	uint32_t full_ms, full_last_ms; // since when forward_hold() has found it full now and then, and when the last time
	uint16_t guard[MISS_GUARDS];
	struct rte_mbuf *miss[MISS_MAX];
	struct port_counts counts;
	void *device; // of vswitch/
	struct port_load load; // behind `device`, which a flush reads too
	uint64_t respond_at[2]; // of the limits of respond.h: errors, answers
};

// Running figures of a worker, for its flight recorder: what a round did is the difference.
struct tally {
	uint64_t resolved, dropped;
	uint64_t full;      // dropped because a queue of the switch was full
	uint16_t full_port; // the last one
	bool full_tx;       // it was the queue of the egress port, not that of misses
	uint32_t misses;    // packets in queues of misses now
	uint32_t backlog;   // packets that wait for an egress device now
};

struct worker {
	uint64_t now;      // nanoseconds, monotonic; moved by the worker once a burst, by tests by hand
	uint32_t now_ms;
	uint32_t epoch;    // gen_epoch as of the beginning of the burst
	uint16_t id;
	bool dry;          // explain: nothing it does changes the switch
	bool timed;        // this round is measured, part by part: see worker_lap()
	uint32_t watch;    // which instruments are on, so that it takes one test; set on the worker's thread between two bursts
	uint16_t miss_limit;
	uint16_t resolve_budget; // resolves that one port gets in its turn
	struct flow_table *flows;
	struct rte_mempool *pool;
	struct drops *drops; // NULL: of a dry worker
	struct port_worker *port[MAX_PORTS]; // RCU
	uint16_t n_dirty;
	uint16_t dirty[MAX_PORTS];
	uint16_t n_tx_dirty;
	uint16_t tx_dirty[2 * MAX_PORTS]; // a port may be flushed and filled again, by a tunnel behind it
	// Sends what pw->tx holds and sets tx_n, tx_same and tx_bytes to 0: each packet goes to worker_sent(), worker_drop() or a queue of the port's own.
	void (*flush)(struct worker *, struct port_worker *);
	// Of a dry worker: takes a packet that would leave by port p->out now; it goes to worker_sent(), worker_drop() or their like.
	void (*send_dry)(struct worker *, struct rte_mbuf *);
	// While `tracer` is set: which of n <= BURST packets that port `port` received are to be traced, a bit each; the traces of those go to t[].
	uint32_t (*mark)(struct worker *, struct tracer *, uint16_t port, struct rte_mbuf **, unsigned n, struct trace **t);
	struct tracer *tracer; // RCU, NULL: no trace is on
	// While one of WATCH() is on: copies of n packets at this point for those who capture. `port`: rx: where they came in; drop: where the packet was to
	// leave, 0: not known. `what`: drop: the reason; stage: its index. `row`: drop: as worker_drop_for() has it. At tx egress captures by itself.
	void (*capture)(struct worker *, enum capture_point, uint16_t port, struct rte_mbuf *const *, unsigned n, uint16_t what, uint32_t row);
	struct rte_mbuf *inject; // packets from the main thread, linked through pkt.stages, the last one first; any thread
	uint32_t punted;         // packets that are with the main thread
	struct captures *captures;
	void *owner;           // of vswitch/
	struct tally tally;
	struct cycles cycles;
};

// All of these: the worker's thread (or, where no worker has it, the main thread).

static inline struct port_worker *worker_port(struct worker *w, uint16_t id)
{
	return rcu_read(w->port[id & (MAX_PORTS - 1)]);
}

// What was done since the last lap was `part` (enum cycles_part), with so many packets.
static inline void worker_lap(struct worker *w, unsigned part, unsigned packets)
{
	if (INSTRUMENTS && unlikely(w->timed))
		cycles_book(&w->cycles, part, packets);
}

// Counts on the ledger of port `id`; a port that is gone is counted on port 0, the switch's own.
void worker_count(struct worker *, uint16_t id, enum count, uint64_t n);
// The one way for a packet to die: counts it on its origin, finishes its trace, frees it. `row`: handle of the database row that caused it, 0: of none.
void worker_drop_for(struct worker *, struct rte_mbuf *, uint16_t reason, uint32_t row);
static inline void worker_drop(struct worker *w, struct rte_mbuf *m, uint16_t reason)
{
	worker_drop_for(w, m, reason, 0);
}
// A packet that never came to be (a copy without a buffer), of this one: counts it as dropped on the ledger of its origin.
void worker_lose(struct worker *, const struct rte_mbuf *of, uint16_t reason, uint32_t row);
// As worker_drop_for(), on the way out of port `out`, because of whose row it is.
void worker_drop_tx(struct worker *, struct port_worker *out, struct rte_mbuf *, uint16_t reason);
// The packets left by port `out`: counts them, finishes their traces, frees them.
void worker_sent(struct worker *, struct port_worker *out, struct rte_mbuf **, unsigned n);
// The same for n packets of one buffer each that nobody shares, all of one origin, none of them traced.
void worker_sent_same(struct worker *, struct port_worker *out, uint16_t origin, uint32_t bytes, struct rte_mbuf **, unsigned n);
// The same for a packet that is the device's by now: what was noted of it before.
void worker_sent_as(struct worker *, struct port_worker *out, uint16_t origin, uint32_t bytes, struct trace *);
// Puts the packets into the batches of their egress ports, p->out.
void worker_tx(struct worker *, struct rte_mbuf **, unsigned n);
void worker_flush(struct worker *);   // all batches
void worker_publish(struct worker *); // all counters
// The packet ends here, as the switch itself has had it: counted as consumed.
void worker_consume(struct worker *, struct rte_mbuf *);
// The packet's bytes are in another one: counted as merged.
void worker_merge(struct worker *, struct rte_mbuf *);
// A packet enters (+1) or leaves (-1) a queue of the switch.
void worker_queued(struct worker *, struct rte_mbuf *, int n);

#define TX_REASONS(X)                                                                                                  \
	X(tx, NO_PORT, "the egress port is gone")                                                                      \
	X(tx, DISCONNECTED, "nothing is connected to the egress port, or its guest's driver is not ready")             \
	X(tx, NO_BUFFERS, "the guest behind the egress port posts no receive buffers, or too few")                     \
	X(tx, QUEUE_FULL, "the queue of the egress port is full")                                                      \
	X(tx, NO_MEMORY, "the switch ran out of packet buffers")                                                       \
	X(tx, DEVICE, "the egress device refused the packet")                                                          \
	X(tx, OFFLOAD, "the packet asks for an offload that neither the egress nor the switch can do for it")          \
	X(tx, CLOSED, "the port was closed while the packet waited")

enum {
	TX_REASONS(REASON_ENUM) TX_REASON_N
};
extern uint16_t tx_reason_base;
#define TX_REASON(name) ((uint16_t)(tx_reason_base + tx_##name))

void worker_init_reasons(void);

#endif
