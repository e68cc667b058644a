// histogram: held to the exact quantiles of random values; merge, difference, and a reader beside the writer.
#include "histogram.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define N 20000

static uint64_t state;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static int seed(void **unused)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	state = (uint64_t)t.tv_nsec << 20 | 1;
	print_message("seed %llx\n", (unsigned long long)state);
	return 0;
}

// Every bucket begins where the one before it ends, and has the values that it says.
static void buckets(void **unused)
{
	assert_int_equal(histogram_low(0), 0);
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		uint64_t low = histogram_low(i), high = histogram_high(i);

		assert_int_equal(histogram_index(low), i);
		assert_int_equal(histogram_index(high), i);
		if (i + 1 < HISTOGRAM_BUCKETS) {
			assert_int_equal(histogram_low(i + 1), high + 1);
			assert_true((high - low) * HISTOGRAM_STEPS <= low);
		}
	}
	assert_int_equal(histogram_high(HISTOGRAM_BUCKETS - 1), UINT64_MAX);
	assert_int_equal(histogram_index((1ULL << HISTOGRAM_BITS) - 1), HISTOGRAM_BUCKETS - 1);
	assert_int_equal(histogram_index(1ULL << HISTOGRAM_BITS), HISTOGRAM_BUCKETS - 1);
	assert_int_equal(histogram_index(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

// Quantiles of values of all sizes, beside those of the sorted values.
static void quantiles(void **unused)
{
	static const double q[] = {0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 1};
	static uint64_t value[N];

	for (unsigned kind = 0; kind < 40; kind++) {
		struct histogram h = {0};
		uint64_t sum = 0;
		unsigned n = kind % 5 == 4 ? 1 + (unsigned)(next() % 20) : N;

		for (unsigned i = 0; i < n; i++) {
			value[i] = kind % 2 ? next() >> (29 + next() % 35) : next() % (kind * kind * kind + 10);
			histogram_add(&h, value[i], 1);
			sum += value[i];
		}
		qsort(value, n, sizeof value[0], by_value);
		assert_int_equal(histogram_count(&h), n);
		assert_int_equal(h.sum, sum);
		assert_int_equal(h.max, value[n - 1]);
		for (unsigned i = 0; i < sizeof q / sizeof q[0]; i++) {
			double rank = q[i] * n;
			uint64_t at = (uint64_t)rank + ((double)(uint64_t)rank < rank), exact = value[at ? at - 1 : 0];
			uint64_t said = histogram_quantile(&h, q[i]);

			assert_true(said >= exact);
			assert_true(said - exact <= exact / HISTOGRAM_STEPS);
			assert_true(said <= h.max);
		}
		for (unsigned bit = 0; bit < HISTOGRAM_BITS; bit += 3) {
			uint64_t limit = (1ULL << bit) - 1, below = 0;

			for (unsigned i = 0; i < n && value[i] <= limit; i++)
				below++;
			assert_int_equal(histogram_at_most(&h, limit), below);
		}
		assert_int_equal(histogram_at_most(&h, UINT64_MAX), n);
	}
}

static void empty(void **unused)
{
	struct histogram h = {0};

	assert_int_equal(histogram_count(&h), 0);
	assert_int_equal(histogram_quantile(&h, 0.5), 0);
	assert_int_equal(histogram_at_most(&h, UINT64_MAX), 0);
	histogram_add(&h, 0, 1);
	assert_int_equal(histogram_quantile(&h, 1), 0);
	assert_int_equal(histogram_count(&h), 1);
}

// Values that are beyond the last bucket's beginning: counted, and known by max.
static void huge(void **unused)
{
	struct histogram h = {0};

	histogram_add(&h, 1, 9);
	histogram_add(&h, 1ULL << 50, 1);
	assert_int_equal(histogram_quantile(&h, 0.9), 1);
	assert_int_equal(histogram_quantile(&h, 0.99), 1ULL << 50);
	assert_int_equal(h.sum, (1ULL << 50) + 9);
}

static void merged(void **unused)
{
	struct histogram a = {0}, b = {0}, both = {0}, sum = {0};

	for (unsigned i = 0; i < N; i++) {
		uint64_t v = next() >> (next() % 64), n = next() % 4;

		histogram_add(i % 3 ? &a : &b, v, n);
		histogram_add(&both, v, n);
	}
	histogram_merge(&sum, &a);
	histogram_merge(&sum, &b);
	assert_memory_equal(&sum, &both, sizeof sum);
}

static void interval(void **unused)
{
	struct histogram h = {0}, before = {0}, now = {0}, later = {0};

	histogram_add(&h, 1000000, 5);
	histogram_add(&h, 30, 7);
	histogram_merge(&before, &h);
	// Nothing since.
	histogram_merge(&now, &h);
	histogram_since(&now, &before);
	assert_int_equal(histogram_count(&now), 0);
	assert_int_equal(now.sum, 0);
	assert_int_equal(now.max, 0);
	// The largest of the interval isn't the largest ever.
	histogram_add(&h, 5000, 3);
	memset(&now, 0, sizeof now);
	histogram_merge(&now, &h);
	histogram_since(&now, &before);
	assert_int_equal(histogram_count(&now), 3);
	assert_int_equal(now.sum, 15000);
	assert_int_equal(now.max, histogram_high(histogram_index(5000)));
	assert_in_range(histogram_quantile(&now, 0.5), 5000, 5000 + 5000 / 16);
	// It is.
	histogram_add(&h, 7000000, 1);
	histogram_merge(&later, &h);
	histogram_since(&later, &before);
	assert_int_equal(later.max, 7000000);
	assert_int_equal(histogram_count(&later), 4);
}

static struct histogram shared;
static bool stop;

static void *reader(void *arg)
{
	uint64_t *reads = arg, last = 0;

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		struct histogram copy = {0};

		histogram_merge(&copy, &shared);
		uint64_t count = histogram_count(&copy);
		if (count < last)
			abort();
		last = count;
		// No copy has a bucket that its max doesn't know.
		for (unsigned i = histogram_index(copy.max) + 1; i < HISTOGRAM_BUCKETS; i++)
			if (copy.bucket[i])
				abort();
		__atomic_add_fetch(reads, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void a_reader_beside_it(void **unused)
{
	uint64_t reads = 0, n = 0;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, reader, &reads), 0);
	for (; __atomic_load_n(&reads, __ATOMIC_RELAXED) < 2000; n++) {
		histogram_add(&shared, n * n, 1);
		if (n % 64 == 0)
			sched_yield();
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	assert_int_equal(histogram_count(&shared), n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buckets),
		cmocka_unit_test(quantiles),
		cmocka_unit_test(empty),
		cmocka_unit_test(huge),
		cmocka_unit_test(merged),
		cmocka_unit_test(interval),
		cmocka_unit_test(a_reader_beside_it),
	};
	return cmocka_run_group_tests(tests, seed, NULL);
}
