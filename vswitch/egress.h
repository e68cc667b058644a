// egress: from a worker's batch for a port to its device: offloads that the device lacks, choice of the queue, and a bounded queue for what a
// device doesn't take at once.
#ifndef VSWITCH_EGRESS_H
#define VSWITCH_EGRESS_H

#include "port.h"
#include "worker.h"

#define EGRESS_QUEUE 512      // packets that wait for one port on one worker
#define EGRESS_SEGMENTS 2048  // mbufs of those packets
#define EGRESS_PATIENCE_MS 100 // how long a packet waits before the guest is held to have no buffers

// A port_worker with its queue. Made by lane_create() on the main thread; all else is its worker's.
struct lane {
	struct port_worker pw;
	uint16_t head, n;
	uint32_t segments;
	struct rte_mbuf *pkt[EGRESS_QUEUE];
};

struct lane *lane_create(uint16_t port, struct port_dev *, int socket); // device NULL: not open
void lane_free(struct lane *);

// worker.flush
void egress_flush(struct worker *, struct port_worker *);
// Tries again what waits. Returns how many still do.
unsigned egress_retry(struct worker *, struct port_worker *);
// Drops what waits.
void egress_drain(struct worker *, struct port_worker *, uint16_t reason);
bool egress_waiting(const struct port_worker *);
// Any thread: how many packets wait.
unsigned egress_backlog(const struct port_worker *);

#endif
