// ledger: what ledger.c (health, history) and drops.c (drops) share. Main thread.
#ifndef VSWITCH_LEDGER_H
#define VSWITCH_LEDGER_H

#include "listing.h"
#include "port.h"

void drops_init(void);
void drops_tick(uint64_t now); // once a second; nanoseconds
void drops_end(void);

// What was lost below the switch; `only`: NULL for all ports, `lost`: only what is known to be lost.
struct listing *below_listing(const struct port *only, bool lost);

#endif
