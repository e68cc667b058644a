// trace: what happened to one packet, as records that are formatted only when somebody reads them.
//
// A trace is filled by the thread that has the packet; copies of the packet share it. The tracer that it came from gets it back when the last
// of them is sent or dropped.
#ifndef OFPROTO_TRACE_H
#define OFPROTO_TRACE_H

#include "buf.h"
#include "pkt.h"

#include <jansson.h>

#define TRACE_ROOM 4032

struct trace {
	void (*done)(struct trace *, void *arg); // called once, by the thread that finished the last packet
	void *arg;
	uint16_t refs;
	uint16_t in_port;
	uint32_t used;
	uint32_t lost;   // records that did not fit
	uint32_t last;   // where the last record is
	uint64_t start;  // time stamp counter, when the packet's burst was taken
	uint64_t wall;   // nanoseconds of the worker's clock
	uint8_t *more;   // where records go if TRACE_ROOM may not do; NULL: data
	uint32_t room;   // of `more`
	uint8_t data[TRACE_ROOM];
};

// Records of the core itself; a stage's records carry its index.
enum trace_step {
	TRACE_CORE = 0xff,
};

enum core_record_kind {
	CORE_RECEIVED, // ingress port, length, what parse() found
	CORE_HIT,      // a cached flow serves it
	CORE_MISS,     // no flow, or a stale one
	CORE_WAIT,     // put into the queue of misses
	CORE_DECIDED,  // what resolve decided
	CORE_COPY,     // a copy for a further port
	CORE_SENT,
	CORE_DROPPED,
	CORE_QUEUED,
	CORE_BECAUSE,  // a row that decided something in the stage before it
	CORE_FURTHER,  // a copy that a rule sends to a further port
	CORE_MIRROR,   // a copy that a mirror sends
	CORE_DIFFERS,  // the cached flow and a fresh decision are not the same: a defect
	CORE_ANSWERED, // the packet ends, for `reason` if that is not 0, and an answer to it goes on in its place
	CORE_CONSUMED, // the switch itself took it
	CORE_PUNTED,   // on its way to the switch's own stack
	CORE_TUNNEL_IN,  // the frame in a tunnel's packet goes on
	CORE_TUNNEL_OUT, // a tunnel header was put in front
	CORE_FRAGMENT, // of a tunnel's packet; waits for the others
	CORE_MERGED,   // a fragment that became part of the whole packet
	CORE_WHOLE,    // the whole packet: what follows is about it
	CORE_CHANGED,  // fields that the step before it changed, see change.h
};

struct core_record {
	uint8_t kind;
	uint8_t out_kind;
	uint8_t class;
	uint8_t n_tags;
	uint8_t vlan_op;
	uint8_t proto;
	uint16_t port;
	uint16_t reason;
	uint16_t network;
	uint16_t ethertype;
	uint16_t vlan;      // outer tag
	uint16_t vlan_tci;
	uint16_t adj;       // see flow.adj; of a tunnel: bytes of layer 3 that the path takes, 0: enough
	uint32_t len;
	uint32_t flow;
	uint32_t row;
	uint64_t stages;
	uint8_t dst[6], src[6];
	uint32_t mark;      // with CORE_DECIDED
};

// Adds a record; `stage`: a stage's index or TRACE_CORE.
void trace_put(struct trace *, uint8_t stage, const void *record, uint16_t size);
// What the last record tells of ends now and not when it was put.
void trace_stamp(struct trace *);
static inline void trace_ref(struct trace *t)
{
	if (t)
		t->refs++;
}
// One packet of the trace is finished.
void trace_unref(struct trace *);

// Main thread: one line per record, "stage: text"; times: with nanoseconds since the packet's burst was taken, and since the line before. As every
// stage leaves a record when it is done, the second is the time that the packet spent in it; behind a record of a queue, in the queue.
void trace_format(const struct trace *, struct buf *, bool times, uint64_t tsc_hz);
// The same as an array of {"stage":, "text":, "ns":, "took_ns":}.
json_t *trace_json(const struct trace *, uint64_t tsc_hz);
// The core's own records, without CORE_CHANGED, in order.
void trace_each_core(const struct trace *, void (*fn)(void *arg, const struct core_record *), void *arg);

#endif
