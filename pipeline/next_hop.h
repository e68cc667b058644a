// next_hop: whether next hops of routes can be used: what is known of links, of ports and of neighbours, told to the routes'
// groups.
#ifndef PIPELINE_NEXT_HOP_H
#define PIPELINE_NEXT_HOP_H

#include "config.h"

// Main thread, all of it.
void next_hop_init(void);
// Ports that go or are disabled take next hops along: before `fdb` forgets what is behind them.
void next_hop_ports(const struct config *want);

#endif
