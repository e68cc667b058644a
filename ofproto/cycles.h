// cycles: what packets cost, in cycles of the time stamp counter, and how long they take. Written by a worker, read by anybody:
// each figure is right by itself.
//
// Sampled, as a time stamp costs about as much as a third of a packet:
//
//     what                             when it is measured
//     parts of a worker's time         one burst in CYCLES_EVERY, and all that follows it in that round
//     latency, cycles of sending       one flush in FLUSH_EVERY of each egress port; it stands for the packets since the last
//     cycles of resolving              one turn in RESOLVE_EVERY of each ingress port; likewise
//     cycles of receiving              every burst
//
// Latency is from the moment when a packet's burst was taken to the moment when the egress device had it. Packets that waited
// in a queue of the egress port are measured one by one; what waits for a decision is sampled with the flush that it leaves in.
// So a port's histogram has, but for what was sent since the last sampled flush, as many values as packets left by it.
#ifndef OFPROTO_CYCLES_H
#define OFPROTO_CYCLES_H

#include "histogram.h"
#include "sizes.h"

#define CYCLES_EVERY 128
#define FLUSH_EVERY 16
#define RESOLVE_EVERY 8

// Parts of a worker's time that are not a stage's: id, name, text.
#define CYCLES_PARTS(X)                                                                                                        \
	X(RX, "receive", "polling, taking packets from devices")                                                               \
	X(PARSE, "parse", "parsing, finding the profile, making keys")                                                         \
	X(LOOKUP, "look-up", "looking flows up")                                                                               \
	X(SERVE, "serve", "giving packets the decisions of their flows")                                                       \
	X(RESOLVE, "resolve", "deciding the first packets of flows")                                                           \
	X(RUN, "run", "between stages: copies, tags, batches")                                                                 \
	X(EGRESS, "egress", "offloads, choosing queues, giving packets to devices")                                            \
	X(PUBLISH, "publish", "counters, ageing of flows")

enum cycles_part {
#define X(id, name, text) CYCLES_##id,
	CYCLES_PARTS(X)
#undef X
	CYCLES_STAGES, // + index of a stage: its run
	CYCLES_N = CYCLES_STAGES + MAX_STAGES
};

struct cycles_desc {
	const char *name, *text;
};
extern const struct cycles_desc cycles_desc[CYCLES_STAGES];

// Of a worker.
struct cycles {
	uint64_t last; // time stamp up to which everything is booked
	struct {
		uint64_t cycles, packets;
	} part[CYCLES_N];
};

// Books the time since the last one on a part. Only in a round that is measured: see worker_lap().
void cycles_book(struct cycles *, unsigned part, unsigned packets);

// Per (worker, port).
struct port_load {
	uint16_t flushes_left; // until a flush is measured
	uint16_t turns_left;   // until a turn of resolving is
	uint32_t sent_since;   // packets that left since the last flush that was
	uint32_t resolved_since;
	uint32_t spare;
	uint64_t rx_cycles;      // from taking its packets to having put them into batches, resolving and full batches included
	uint64_t resolve_cycles; // of these
	uint64_t tx_cycles;      // of sending to it: estimated from the flushes that were measured
	struct histogram latency; // nanoseconds; of packets of any origin that left by the port
};

// Its worker, once: what a port has when it comes.
void load_init(struct port_load *);
// The worker: adds what `from` has to `to`, as the port of `from` goes.
void load_fold(struct port_load *to, const struct port_load *from);
// Any thread: adds the figures to `sum`, which nobody else uses.
void load_read(const struct port_load *, struct port_load *sum);

// The worker: n packets were resolved in a turn that took so many cycles; 0: it wasn't measured.
void load_resolved(struct port_load *, unsigned n, uint64_t cycles);
// Packets of a flush that came in one burst, and so have one time.
struct load_row {
	uint64_t ns;
	uint32_t packets;
};
// The worker, of a flush that was measured: what left in it, `rows` of them, and how many cycles sending it took.
void load_sent(struct port_load *, uint64_t cycles, const struct load_row *, unsigned rows);

#endif
