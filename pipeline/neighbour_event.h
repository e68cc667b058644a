// neighbour_event: what ARP and neighbour discovery packets say, on its way from the workers to the main thread. A ring for
// each worker; what has no room, or comes from a port that has told too much in this tenth of a second, is not told: it will be
// said again.
#ifndef PIPELINE_NEIGHBOUR_EVENT_H
#define PIPELINE_NEIGHBOUR_EVENT_H

#include "config.h"

struct worker;

#define NEIGHBOUR_EVENTS 1024     // of a worker, a power of two
#define NEIGHBOUR_EVENTS_PORT 128 // of a port on a worker, in a tenth of a second

struct neighbour_event {
	uint16_t network, port;
	uint8_t mac[6];
	uint8_t what; // NEIGHBOUR_ASKED and the like
	bool probe;   // somebody asks whether the address is free
	bool router;
	bool tells; // `mac` is that of `ip`; else only the question below is news
	bool talks; // `ip` wants to talk with `with`
	struct config_ip ip, with;
};

void neighbour_event(struct worker *, const struct neighbour_event *);
// Main thread.
void neighbour_events(void (*fn)(const struct neighbour_event *));
void neighbour_events_forget(void);
uint64_t neighbour_events_lost(void);

#endif
