// pause: see pause.h.
#include "pause.h"
#include "clock.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <rte_cycles.h>

#define WAITED_EVERY 16 // looks

static uint64_t on_processor(void)
{
	struct timespec t;

	return clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) ? 0 : (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

// Time for which the thread was ready to run and something else ran: the second figure of schedstat. UINT64_MAX: the kernel doesn't say.
static uint64_t waited(const struct pause *p)
{
	char text[96], *at;
	ssize_t n = p->schedstat < 0 ? -1 : pread(p->schedstat, text, sizeof text - 1, 0);

	if (n <= 0)
		return UINT64_MAX;
	text[n] = '\0';
	strtoull(text, &at, 10);
	return strtoull(at, NULL, 10);
}

void pause_look(struct pause *p, uint64_t tsc)
{
	p->looked_tsc = tsc;
	p->slept_tsc = 0;
	p->cpu_ns = on_processor();
	if (p->looks++ % WAITED_EVERY == 0)
		p->waited_ns = waited(p);
}

void pause_start(struct pause *p)
{
	p->schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	p->looks = 0;
	pause_look(p, rte_rdtsc());
}

void pause_stop(struct pause *p)
{
	if (p->schedstat >= 0)
		close(p->schedstat);
	p->schedstat = -1;
}

static uint64_t less(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static void publish(uint64_t *to, uint64_t value)
{
	__atomic_store_n(to, value, __ATOMIC_RELAXED);
}

uint64_t pause_measure(struct pause *p, uint64_t start_tsc, uint64_t end_tsc)
{
	uint64_t cpu = p->cpu_ns, waited_before = p->waited_ns, round = clock_cycles_to_ns(end_tsc - start_tsc);
	// What ran since the last look and before this round is none of its time.
	uint64_t before = clock_cycles_to_ns(less(less(start_tsc, p->looked_tsc), p->slept_tsc));
	uint32_t clear = __atomic_load_n(&p->clear, __ATOMIC_RELAXED);

	p->looks = 0; // so that both are looked at
	pause_look(p, end_tsc);
	uint64_t ran = less(less(p->cpu_ns, cpu), before), away = less(round, ran);
	// Of the time off the processor, what it only waited for its turn.
	if (p->waited_ns != UINT64_MAX && waited_before != UINT64_MAX && away > p->waited_ns - waited_before)
		away = p->waited_ns - waited_before;
	if (p->cleared != clear) {
		publish(&p->longest_ns, 0);
		publish(&p->own_ns, 0);
		__atomic_store_n(&p->cleared, clear, __ATOMIC_RELEASE);
	}
	if (round > p->longest_ns) {
		publish(&p->longest_ns, round);
		publish(&p->longest_away_ns, away);
	}
	if (round - away > p->own_ns) {
		publish(&p->own_ns, round - away);
		publish(&p->own_asleep_ns, less(round - away, ran));
	}
	return away;
}

void pause_clear(struct pause *p)
{
	__atomic_store_n(&p->clear, p->clear + 1, __ATOMIC_RELAXED);
}
