// meter: see meter.h.
#include "meter.h"

#include <string.h>

void meter_set(struct meter *m, uint32_t pps, uint32_t burst)
{
	memset(m, 0, sizeof *m);
	if (!pps)
		return;
	if (!burst)
		burst = pps / 10 > 1 ? pps / 10 : 1; // a tenth of a second
	m->interval = 1000000000ULL / pps;
	if (!m->interval)
		m->interval = 1;
	m->burst = m->interval * burst;
	m->chunk = burst / 16 < 1 ? 1 : burst / 16 > 64 ? 64 : burst / 16;
}

bool meter_take(struct meter *m, unsigned worker, uint64_t now)
{
	if (!m->interval)
		return true;
	if (m->loan[worker]) {
		m->loan[worker]--;
		return true;
	}
	uint64_t at = __atomic_load_n(&m->arrival, __ATOMIC_RELAXED), next;
	uint32_t n = m->chunk;
	do {
		uint64_t base = at > now ? at : now; // unused time is worth one burst, which the check below grants

		next = base + n * m->interval;
		if (next > now + m->burst) {
			n = 1; // near the limit: one by one
			next = base + m->interval;
			if (next > now + m->burst)
				return false;
		}
	} while (!__atomic_compare_exchange_n(&m->arrival, &at, next, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	m->loan[worker] = (uint16_t)(n - 1);
	return true;
}

bool meter_would(const struct meter *m, unsigned worker, uint64_t now)
{
	uint64_t at = __atomic_load_n(&m->arrival, __ATOMIC_RELAXED);

	return !m->interval || m->loan[worker] || (at > now ? at : now) + m->interval <= now + m->burst;
}
