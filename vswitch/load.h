// load: what ports and workers cost, and how long packets take (cycles.h), summed up and shown: verbs port latency, port cost, worker list,
// worker queues, worker cycles, top.
//
// Main thread.
#ifndef VSWITCH_LOAD_H
#define VSWITCH_LOAD_H

#include "port.h"

// Adds what all workers have of the port, and those that are gone had. port_get(0): of ports that are gone.
void load_port(const struct port *, struct port_load *sum);
// Adds what the worker has of all ports, and of those that are gone.
void load_worker(unsigned worker, struct port_load *sum);

// Packets of the port that wait now, on all workers.
struct port_queues {
	uint32_t misses;  // received by it, to be resolved
	uint32_t backlog; // to be taken by its device
};
struct port_queues load_queues(const struct port *);

// Registers the verbs.
void load_verbs_init(void);
// Of top.c.
void top_init(void);

#endif
