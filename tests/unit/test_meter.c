// meter: the rate, the burst, and workers that share it.
#include "lab.h"
#include "meter.h"

#include <pthread.h>

#define SECOND 1000000000ULL

static void no_limit(void **state)
{
	struct meter m;

	meter_set(&m, 0, 5);
	for (int i = 0; i < 1000; i++) {
		assert_true(meter_would(&m, 0, 1));
		assert_true(meter_take(&m, 0, 1));
	}
}

static void burst_then_rate(void **state)
{
	static const struct {
		uint32_t pps, burst;
	} sets[] = {{1, 1}, {10, 1}, {10, 7}, {1000, 100}, {1000, 1000}, {1000000, 5000}};

	for (size_t s = 0; s < sizeof sets / sizeof sets[0]; s++) {
		uint64_t now = 5 * SECOND, got = 0, step = SECOND / sets[s].pps / 4;
		struct meter m;

		meter_set(&m, sets[s].pps, sets[s].burst);
		for (uint32_t i = 0; i < 2 * sets[s].burst; i++) {
			bool would = meter_would(&m, 3, now), did = meter_take(&m, 3, now);

			assert_int_equal(would, did);
			got += did;
		}
		assert_int_equal(got, sets[s].burst);
		// Asked four times as often as it allows, for as long as 200 packets take.
		got = 0;
		for (int i = 0; i < 800; i++) {
			now += step;
			got += meter_take(&m, 3, now);
		}
		assert_in_range(got, 199, 201);
	}
}

static void faster_than_the_clock(void **state)
{
	struct meter m;

	meter_set(&m, 4000000000u, 10); // less than a nanosecond a packet
	assert_true(meter_take(&m, 0, SECOND));
	meter_set(&m, 1, UINT32_MAX); // the largest burst of the slowest rate
	for (int i = 0; i < 1000; i++)
		assert_true(meter_take(&m, 0, SECOND));
}

static void asking_takes_nothing(void **state)
{
	struct meter m;

	meter_set(&m, 10, 1);
	for (int i = 0; i < 10; i++)
		assert_true(meter_would(&m, 0, SECOND));
	assert_true(meter_take(&m, 0, SECOND));
	assert_false(meter_would(&m, 0, SECOND));
	assert_false(meter_take(&m, 0, SECOND));
}

// Workers borrow in chunks, and what one has borrowed another can't have.
static void shared_in_turn(void **state)
{
	uint64_t now = SECOND, got = 0;
	struct meter m;

	meter_set(&m, 10000, 1000);
	for (int i = 0; i < 4000; i++)
		got += meter_take(&m, (unsigned)i % 4, now);
	assert_int_equal(got, 1000);
	got = 0;
	for (int i = 0; i < 40000; i++) {
		now += SECOND / 40000;
		got += meter_take(&m, (unsigned)i % 4, now);
	}
	assert_in_range(got, 9999, 10001);
}

struct taker {
	struct meter *m;
	unsigned worker;
	uint64_t got;
};

static void *taker(void *arg)
{
	struct taker *t = arg;

	for (int i = 0; i < 300000; i++)
		t->got += meter_take(t->m, t->worker, SECOND);
	return NULL;
}

static void shared_at_once(void **state)
{
	struct meter m;
	struct taker t[4];
	pthread_t thread[4];
	uint64_t got = 0;

	meter_set(&m, 100000, 500000);
	for (unsigned i = 0; i < 4; i++) {
		t[i] = (struct taker){&m, i, 0};
		assert_int_equal(pthread_create(&thread[i], NULL, taker, &t[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(thread[i], NULL);
		got += t[i].got;
	}
	// Never more than the burst; less by what workers had borrowed and not used when they were done.
	assert_in_range(got, 500000 - 4 * 64, 500000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_limit),	    cmocka_unit_test(burst_then_rate), cmocka_unit_test(faster_than_the_clock),
		cmocka_unit_test(asking_takes_nothing), cmocka_unit_test(shared_in_turn),  cmocka_unit_test(shared_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
