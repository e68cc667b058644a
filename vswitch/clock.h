// clock: the monotonic clock of workers and main thread, read from the time stamp counter.
#ifndef VSWITCH_CLOCK_H
#define VSWITCH_CLOCK_H

#include <stdint.h>
#include <rte_cycles.h>

// Set once by clock_init(), before any worker.
extern uint64_t clock_base_tsc, clock_mult;

void clock_init(void);

// Nanoseconds for a time stamp. Starts near a second, so that "long ago" is never before zero.
static inline uint64_t clock_ns_at(uint64_t tsc)
{
	return 1000000000ULL + (uint64_t)((unsigned __int128)(tsc - clock_base_tsc) * clock_mult >> 32);
}

static inline uint64_t clock_ns(void)
{
	return clock_ns_at(rte_rdtsc());
}

static inline uint64_t clock_cycles_to_ns(uint64_t cycles)
{
	return (uint64_t)((unsigned __int128)cycles * clock_mult >> 32);
}

#endif
