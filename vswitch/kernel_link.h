// kernel_link: what the kernel counts of a network interface.
#ifndef VSWITCH_KERNEL_LINK_H
#define VSWITCH_KERNEL_LINK_H

#include <stdbool.h>
#include <stdint.h>

// Frames that the kernel dropped, which came in by the interface and which were to leave by it (struct rtnl_link_stats64). 0, or a negative errno and
// nothing is set: the interface isn't in this network namespace. Main thread.
int kernel_link_dropped(unsigned index, uint64_t *rx, uint64_t *tx);

// A descriptor that becomes readable when an interface of this network namespace goes up or down; < 0: a negative errno. Non-blocking.
int kernel_link_watch(void);
// Takes what has come. Returns whether something has, or may have been lost.
bool kernel_link_news(int fd);

#endif
