// kernel_link: what the kernel counts of a network interface.
#ifndef VSWITCH_KERNEL_LINK_H
#define VSWITCH_KERNEL_LINK_H

#include <stdint.h>

// Frames that the kernel dropped, which came in by the interface and which were to leave by it (struct rtnl_link_stats64). 0, or a negative errno and
// nothing is set: the interface isn't in this network namespace. Main thread.
int kernel_link_dropped(unsigned index, uint64_t *rx, uint64_t *tx);

#endif
