// clock: see clock.h.
#include "clock.h"

uint64_t clock_base_tsc, clock_mult;

void clock_init(void)
{
	clock_base_tsc = rte_rdtsc();
	clock_mult = (uint64_t)(((unsigned __int128)1000000000ULL << 32) / rte_get_tsc_hz());
}
