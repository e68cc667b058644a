// cache: cached flows in words.
//
// Main thread.
#ifndef VSWITCH_CACHE_H
#define VSWITCH_CACHE_H

#include "buf.h"
#include "flow.h"

// "output:vm2", and the rows that decided, "Port:vm1,Network:blue".
void cache_format_actions(struct buf *, const struct flow *);
void cache_format_because(struct buf *, const struct flow_cold *);

#endif
