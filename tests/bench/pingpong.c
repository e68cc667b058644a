// pingpong: how far two processors are from each other: the round trip of a cache line between two pinned threads.
//
//     pingpong CPU CPU [MILLISECONDS]
//
// Prints JSON: the median of batches in nanoseconds, the fastest batch, and how many there were. Interruptions fall into few
// batches.
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ROUNDS 64
#define BATCHES 65536

static struct {
	uint64_t value __attribute__((aligned(128)));
} ping, pong;
static bool stop __attribute__((aligned(128)));

static bool pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((unsigned)cpu, &set);
	return !sched_setaffinity(0, sizeof set, &set);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void *answer(void *cpu)
{
	uint64_t seen = 0, value;

	if (!pin(*(int *)cpu))
		exit(1);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		value = __atomic_load_n(&ping.value, __ATOMIC_ACQUIRE);
		if (value != seen) {
			__atomic_store_n(&pong.value, value, __ATOMIC_RELEASE);
			seen = value;
		}
	}
	return NULL;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char *argv[])
{
	static double batch[BATCHES];
	int cpu[2];
	pthread_t thread;
	unsigned n = 0;

	if (argc < 3) {
		fprintf(stderr, "usage: pingpong CPU CPU [MILLISECONDS]\n");
		return 2;
	}
	cpu[0] = atoi(argv[1]);
	cpu[1] = atoi(argv[2]);
	if (!pin(cpu[0]) || pthread_create(&thread, NULL, answer, &cpu[1])) {
		fprintf(stderr, "pingpong: no such processors\n");
		return 1;
	}
	uint64_t end = now_ns() + (uint64_t)(argc > 3 ? atoi(argv[3]) : 20) * 1000000, value = 0;
	for (uint64_t start = now_ns(); start < end && n < BATCHES; n++) {
		for (unsigned i = 0; i < ROUNDS; i++) {
			__atomic_store_n(&ping.value, ++value, __ATOMIC_RELEASE);
			while (__atomic_load_n(&pong.value, __ATOMIC_ACQUIRE) != value)
				;
		}
		uint64_t then = now_ns();
		batch[n] = (double)(then - start) / ROUNDS;
		start = then;
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	qsort(batch, n, sizeof *batch, by_value);
	printf("{\"ns\": %.1f, \"best_ns\": %.1f, \"batches\": %u}\n", batch[n / 4], batch[0], n);
	return 0;
}
