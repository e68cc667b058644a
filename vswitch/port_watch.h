// port_watch: tells the log and the probes what has changed about a port. Main thread.
#ifndef VSWITCH_PORT_WATCH_H
#define VSWITCH_PORT_WATCH_H

#include "port.h"

// What its device says now.
void port_watch(struct port *, const struct port_state *);
// Tells guests that are back once more; every 100 ms.
void port_watch_tick(void);
// How many of its packets were dropped so far because they could not be decided in time.
void port_watch_counts(struct port *, uint64_t undecided);

#endif
