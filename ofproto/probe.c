// probe: the semaphores of the probes. See probe.h.
#include "probe.h"

#if INSTRUMENTS
#define PROBE_DEFINE(name, what, args) volatile unsigned short weir_##name##_semaphore __attribute__((section(".probes")));
PROBES(PROBE_DEFINE)
#endif
