// uplink: what the main thread does for links: frames that workers took off them (link.h), bonds, LLDP, and the kernel's word of interfaces that go up and down.
#ifndef VSWITCH_UPLINK_H
#define VSWITCH_UPLINK_H

#include "config.h"

#include <stdbool.h>
#include <stdint.h>

// `ring` wakes the main thread up; any thread calls it.
void uplink_init(const char *host, void (*ring)(void));
// Returns whether something changed that ports report, or that the assignment of queues depends on.
bool uplink_run(uint64_t now);
// Once ports and their devices are as wanted.
void uplink_reconcile(const struct config *);
void uplink_wait(void);
void uplink_close(void);

#endif
