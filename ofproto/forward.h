// forward: the packet path of a worker: parse, one bulk look-up, resolve what is not known, run the stages, put into egress batches.
#ifndef OFPROTO_FORWARD_H
#define OFPROTO_FORWARD_H

#include "actions.h"
#include "stage.h"
#include "worker.h"

#define FORWARD_REASONS(X)                                                                                             \
	X(flow, RESOLVE_QUEUE, "too many packets of unknown flows wait on the ingress port")                           \
	X(flow, PORT_GONE, "the ingress port is gone or not configured yet")                                           \
	X(flow, NO_OUTPUT, "no stage decided where the packet goes")                                                   \
	X(flow, NETWORK_GONE, "the network was removed while the packet was under way")                                \
	X(flow, CHECKSUM, "the checksum of the IPv4 header is wrong")                                                   \
	X(flow, NOBODY, "there is no other port in the network to flood to")                                           \
	X(flow, NO_MEMORY, "the switch ran out of packet buffers for copies")

enum {
	FORWARD_REASONS(REASON_ENUM) FORWARD_REASON_N
};
extern uint16_t forward_reason_base;

// Main thread, at start-up, after stages_init().
void forward_init(void);
// What the worker took from port `port`, n <= BURST. The packets are the worker's from here on: when it returns they are in egress batches, in
// the port's queue of misses, or dropped. Sets what worker.now says as the time of all of them.
void forward_burst(struct worker *, uint16_t port, struct rte_mbuf **, unsigned n);
// Frames that came out of a tunnel with the network that its header said, at the time `tsc`. `traced`: bits of those with a trace in t[].
void forward_arrived(struct worker *, uint16_t port, uint16_t network, struct rte_mbuf **, unsigned n, uint64_t tsc, uint32_t traced, struct trace **t);
// A packet that the switch has had, or made: decided as if it had just come in on pkt_of(m)->in_port, which is counted elsewhere.
void forward_again(struct worker *, struct rte_mbuf *m);
// Resolves what waits in the port's queue, within the budget of one turn. Returns how many still wait.
unsigned forward_misses(struct worker *, uint16_t port);
// Whether a guest's port is to be left alone this time, because the queue of misses might not take what another burst adds: its packets wait in
// the guest's ring then, and the guest waits when that is full. Not for long on end: who sends nothing but unknown flows all the time loses packets
// instead, so that those of known flows come through.
bool forward_hold(struct worker *, uint16_t port);
// The port goes: drops what waits.
void forward_drain(struct worker *, uint16_t port);
// Of the run of an ingress stage that writes: a copy of the packet as it is now, with n fields set, leaves by port `out`, past the egress stages. `tag`: as
// vlan_between() takes it.
void forward_copy(struct worker *, struct pkt *, const struct lport *out, int tag, const struct rewrite *, unsigned n);
// Of the run of any stage: a copy as forward_copy()'s, but not more than `snaplen` bytes of it; 0: all.
void forward_mirror(struct worker *, struct pkt *, const struct lport *out, int tag, uint32_t snaplen);
// Of the run of an ingress stage that writes, which made an answer of the packet: it leaves by the port that it came in on, past the egress stages, and no
// ingress stage behind this one sees it.
void forward_return(struct pkt *);
// Of the run of an ingress stage: a packet of the switch's own, made of this one, which goes back to where this one came from. fn makes it, of a copy whose headers are its own, and returns 0; else
// there is none. It is counted as a copy. It passes no stages.
void forward_back(struct worker *, struct pkt *, int (*fn)(struct rte_mbuf *, void *arg), void *arg);
// The same through a tunnel, as ERSPAN (tunnel.h).
struct tunnel_span;
void forward_span(struct worker *, struct pkt *, const struct lport *tunnel, int tag, uint32_t snaplen, const struct tunnel_span *);
// Dry worker: decides and runs one packet whose trace is set, without a flow table. `overlay`: in: effects of packets before it, out: with this one's.
void forward_explain(struct worker *, uint16_t port, struct rte_mbuf *, struct effect *overlay, uint8_t *n_overlay);

#endif
