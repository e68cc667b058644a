// pause: whose doing it is that a round was long.
#include "clock.h"
#include "pause.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>
#include <cmocka.h>

#define MS 1000000ULL

uint64_t clock_base_tsc, clock_mult;

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void compute(uint64_t ns)
{
	for (uint64_t end = cpu_ns() + ns; cpu_ns() < end;)
		;
}

// As a worker does each millisecond.
static uint64_t begin(struct pause *p)
{
	uint64_t now = rte_rdtsc();

	pause_look(p, now);
	return now;
}

static void sleep_ns(uint64_t ns)
{
	nanosleep(&(struct timespec){.tv_nsec = (long)ns}, NULL);
}

// What it computes is its own.
static void computes(void **state)
{
	struct pause p = {0};

	pause_start(&p);
	compute(3 * MS); // a round before it
	uint64_t start = begin(&p);
	compute(20 * MS);
	uint64_t end = rte_rdtsc(), round = clock_cycles_to_ns(end - start), away = pause_measure(&p, start, end);
	assert_true(round - away >= 16 * MS);
	assert_int_equal(p.own_ns, round - away);
	assert_true(p.own_asleep_ns < 4 * MS);
	assert_int_equal(p.longest_ns, round);
	assert_int_equal(p.longest_away_ns, away);
	// A shorter one changes nothing.
	start = begin(&p);
	compute(2 * MS);
	uint64_t own = p.own_ns;
	pause_measure(&p, start, rte_rdtsc());
	assert_int_equal(p.own_ns, own);
	pause_clear(&p);
	assert_true(pause_is_clear(&p));
	start = begin(&p);
	compute(2 * MS);
	pause_measure(&p, start, rte_rdtsc());
	assert_false(pause_is_clear(&p));
	assert_true(p.own_ns >= 1 * MS && p.own_ns < own);
	pause_stop(&p);
}

// What it waits for is its own, too: it could have gone on, had it not asked for that.
static void waits(void **state)
{
	struct pause p = {0};

	pause_start(&p);
	uint64_t start = rte_rdtsc();
	sleep_ns(30 * MS);
	uint64_t end = rte_rdtsc(), away = pause_measure(&p, start, end);
	// Once it had waited, it may have had to wait for its turn.
	assert_true(clock_cycles_to_ns(end - start) - away >= 29 * MS);
	assert_true(p.own_ns >= 29 * MS && p.own_asleep_ns >= 28 * MS && p.own_asleep_ns <= p.own_ns);
	// Sleep between rounds is nobody's round.
	pause_clear(&p);
	uint64_t slept = begin(&p);
	sleep_ns(10 * MS);
	start = rte_rdtsc();
	p.slept_tsc += start - slept;
	compute(2 * MS);
	end = rte_rdtsc();
	away = pause_measure(&p, start, end);
	assert_true(clock_cycles_to_ns(end - start) - away >= 1 * MS);
	pause_stop(&p);
}

static bool done;

static void *burn(void *arg)
{
	while (!__atomic_load_n(&done, __ATOMIC_RELAXED))
		;
	return NULL;
}

// Another thread has its processor for a part of the round.
static void is_sent_away(void **state)
{
	struct pause p = {0};
	cpu_set_t all, one;
	pthread_t other;

	pause_start(&p);
	if (p.schedstat < 0)
		skip(); // a kernel that doesn't say
	sched_getaffinity(0, sizeof all, &all);
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	sched_setaffinity(0, sizeof one, &one);
	assert_int_equal(pthread_create(&other, NULL, burn, NULL), 0); // on the same one
	uint64_t start = begin(&p), cpu = cpu_ns();
	compute(100 * MS);
	uint64_t end = rte_rdtsc(), away = pause_measure(&p, start, end), round = clock_cycles_to_ns(end - start);
	uint64_t own = cpu_ns() - cpu;
	__atomic_store_n(&done, true, __ATOMIC_RELAXED);
	pthread_join(other, NULL);
	sched_setaffinity(0, sizeof all, &all);
	assert_true(away > 0 && round - away >= own - 2 * MS);
	assert_true(p.own_ns < round);
	pause_stop(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(computes),
		cmocka_unit_test(waits),
		cmocka_unit_test(is_sent_away),
	};

	// By the clock that every processor has.
	struct timespec a, b;
	clock_gettime(CLOCK_MONOTONIC, &a);
	uint64_t from = rte_rdtsc();
	sleep_ns(50 * MS);
	clock_gettime(CLOCK_MONOTONIC, &b);
	uint64_t ns = (uint64_t)(b.tv_sec - a.tv_sec) * 1000000000 + (uint64_t)(b.tv_nsec - a.tv_nsec);
	clock_mult = (uint64_t)(((unsigned __int128)ns << 32) / (rte_rdtsc() - from));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
