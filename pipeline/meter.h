// meter: a packet rate limit that workers share (the generic cell rate algorithm, ITU-T I.371).
//
// The shared state is one time stamp. A worker borrows a chunk of packets at a time, so that there is no atomic operation per packet.
#ifndef PIPELINE_METER_H
#define PIPELINE_METER_H

#include "sizes.h"

#include <stdbool.h>
#include <stdint.h>

struct meter {
	uint64_t interval;     // nanoseconds a packet; 0: no limit
	uint64_t burst;        // nanoseconds of packets that may come at once
	uint32_t chunk;        // packets that a worker borrows
	uint64_t arrival;      // theoretical arrival time, nanoseconds; shared
	uint16_t loan[MAX_WORKERS];
};

void meter_set(struct meter *, uint32_t pps, uint32_t burst_packets);
// Whether a packet may pass at `now` (nanoseconds, the worker's clock).
bool meter_take(struct meter *, unsigned worker, uint64_t now);
// The same without taking.
bool meter_would(const struct meter *, unsigned worker, uint64_t now);

#endif
