// mtu: what the stage has for others.
#ifndef PIPELINE_MTU_H
#define PIPELINE_MTU_H

#include "pkt.h"

struct worker;

// Largest layer 3 that may leave by port p->out: the port's MTU and, of routed packets, that of the network that they are routed into. 0: the port is gone.
uint16_t mtu_limit(const struct pkt *, bool routed);
// The network that the packet came in from.
uint16_t mtu_ingress_network(const struct pkt *);
// What was decided to go on is an answer now, that leaves where the packet came from, with nothing left to be done with it.
void mtu_turn_back(struct pkt *, uint16_t network);
// For stage `router`, before it changes the headers of a packet, which are its own: one that is too large for p->out and may not be fragmented becomes the
// answer that says so, on its way back, with nothing left to be done with it, or is dropped. True: that happened. False: it can be routed.
bool mtu_answer(struct worker *, struct pkt *);

#endif
