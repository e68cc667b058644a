// history: what the counters were, against a model that keeps everything.
#include "lab.h"
#include "history.h"

#include <rte_random.h>

#define S 1000000000ULL

static struct history *h;
static struct counts *now[MAX_PORTS]; // of the ports that are there
static uint64_t time_ns;

static int setup(void **state)
{
	time_ns = 1000 * S;
	h = history_create(time_ns);
	now[0] = calloc(1, sizeof *now[0]);
	return h && now[0] ? 0 : -1;
}

static int teardown(void **state)
{
	history_destroy(h);
	for (unsigned i = 0; i < MAX_PORTS; i++) {
		free(now[i]);
		now[i] = NULL;
	}
	return 0;
}

static void add_port(uint16_t id)
{
	now[id] = calloc(1, sizeof *now[id]);
}

// As the switch does it: the figures go to port 0.
static void remove_port(uint16_t id)
{
	for (unsigned i = 0; i < COUNT_N; i++)
		now[0]->c[i] += now[id]->c[i];
	for (unsigned i = 0; i < MAX_REASONS; i++)
		now[0]->drop[i] += now[id]->drop[i];
	free(now[id]);
	now[id] = NULL;
	history_gone(h, id);
}

static void moment(uint64_t after)
{
	time_ns += after;
	history_begin(h, time_ns);
	for (unsigned i = 0; i < MAX_PORTS; i++)
		if (now[i])
			history_add(h, (uint16_t)i, now[i]);
	history_end(h);
}

static struct counts since(uint64_t from, uint16_t port)
{
	struct counts *of[MAX_PORTS] = {NULL}, c = *now[port];

	of[port] = &c;
	history_since(h, history_nearest(h, from), of);
	return c;
}

static void intervals(void **state)
{
	add_port(3);
	for (unsigned i = 1; i <= 30; i++) {
		now[3]->c[COUNT_RX] += i;
		now[3]->drop[7] += 2;
		now[3]->c[COUNT_QUEUED] = i % 2;
		moment(S);
	}
	now[3]->c[COUNT_RX] += 1000; // since the last moment
	assert_int_equal(since(time_ns - 10 * S, 3).c[COUNT_RX], 1000 + 30 + 29 + 28 + 27 + 26 + 25 + 24 + 23 + 22 + 21);
	assert_int_equal(since(time_ns - 10 * S, 3).drop[7], 20);
	assert_int_equal(since(time_ns - 10 * S, 0).c[COUNT_RX], 0);
	assert_int_equal((int64_t)since(time_ns - 29 * S, 3).c[COUNT_QUEUED], -1);
	assert_int_equal(since(time_ns, 3).c[COUNT_RX], 1000);
	// Longer than there is: since the start.
	assert_int_equal(history_nearest(h, 0), 1000 * S);
	assert_int_equal(since(0, 3).c[COUNT_RX], 1000 + 30 * 31 / 2);
	// Which moment it is.
	assert_int_equal(history_nearest(h, time_ns - 5 * S - S / 4), time_ns - 5 * S);
	assert_int_equal(history_nearest(h, time_ns + S), time_ns);
}

// Seconds for a minute, then minutes for an hour.
static void coarser(void **state)
{
	add_port(3);
	for (unsigned i = 1; i <= 2 * 3600; i++) {
		now[3]->c[COUNT_RX] += 1;
		now[3]->c[COUNT_RX_BYTES] += 1ULL << 50; // more than a record holds
		moment(S);
	}
	for (unsigned s = 1; s < 60; s++) {
		assert_int_equal(history_nearest(h, time_ns - s * S), time_ns - s * S);
		assert_int_equal(since(time_ns - s * S, 3).c[COUNT_RX], s);
		assert_int_equal(since(time_ns - s * S, 3).c[COUNT_RX_BYTES], (uint64_t)s << 50);
	}
	for (unsigned m = 2; m < 59; m++) {
		uint64_t from = history_nearest(h, time_ns - m * 60 * S);

		assert_in_range(from, time_ns - m * 60 * S - 31 * S, time_ns - m * 60 * S + 31 * S);
		assert_int_equal(since(time_ns - m * 60 * S, 3).c[COUNT_RX], (time_ns - from) / S);
	}
	uint64_t oldest = history_nearest(h, 0);
	assert_in_range(time_ns - oldest, 3600 * S, 3700 * S);
	assert_int_equal(since(0, 3).c[COUNT_RX], (time_ns - oldest) / S);
}

// What a port did that is gone was done by the switch, at the time when it was done.
static void ports_go(void **state)
{
	add_port(3);
	add_port(5);
	for (unsigned i = 1; i <= 100; i++) {
		now[0]->c[COUNT_RX] += 100;
		now[3]->c[COUNT_RX] += 1;
		now[5]->c[COUNT_RX] += 10;
		moment(S);
	}
	assert_true(history_knows(h, 3));
	now[3]->c[COUNT_RX] += 1000;
	remove_port(3);
	assert_false(history_knows(h, 3));
	assert_int_equal(since(time_ns - 10 * S, 0).c[COUNT_RX], 10 * 101 + 1000);
	assert_int_equal(since(time_ns - 10 * S, 5).c[COUNT_RX], 10 * 10);
	assert_int_equal(since(0, 0).c[COUNT_RX], 100 * 101 + 1000);
	moment(S);
	add_port(3); // another one of that number
	now[3]->c[COUNT_RX] = 7;
	moment(S);
	assert_int_equal(since(0, 3).c[COUNT_RX], 7);
	assert_int_equal(since(time_ns - 12 * S, 0).c[COUNT_RX], 10 * 101 + 1000);
	remove_port(3);
	remove_port(5);
	moment(S);
	assert_int_equal(since(0, 0).c[COUNT_RX], 100 * 111 + 1000 + 7);
	assert_int_equal(since(time_ns - 13 * S, 0).c[COUNT_RX], 10 * 111 + 1000 + 7);
}

// Anything, at any pace, with ports that come and go: the same as what was written down.
static void against_a_model(void **state)
{
	enum { N = 600 };
	static uint64_t when[N], all[N];
	unsigned n = 0;

	for (; n < N; n++) {
		uint16_t id = (uint16_t)(1 + rte_rand_max(20));

		if (!now[id])
			add_port(id);
		else if (rte_rand_max(10) == 0)
			remove_port(id);
		for (unsigned i = 0; i < MAX_PORTS; i++)
			for (unsigned k = 0; now[i] && k < 3; k++)
				now[i]->drop[rte_rand_max(MAX_REASONS)] += rte_rand_max(1000);
		moment(1 + rte_rand_max(3 * S));
		when[n] = time_ns;
		for (unsigned i = 0; i < MAX_PORTS; i++)
			for (unsigned k = 0; now[i] && k < MAX_REASONS; k++)
				all[n] += now[i]->drop[k];
	}
	for (unsigned k = 0; k < N; k++) {
		uint64_t from = history_nearest(h, when[k]), sum = 0;
		unsigned at = 0;

		while (at < N && when[at] != from)
			at++;
		for (unsigned i = 0; i < MAX_PORTS; i++)
			for (unsigned r = 0; now[i] && r < MAX_REASONS; r++)
				sum += since(from, (uint16_t)i).drop[r];
		if (at < N)
			assert_int_equal(sum, all[N - 1] - all[at]);
		k += 20;
	}
}

static void bounded(void **state)
{
	for (uint16_t i = 1; i < 1000; i++)
		add_port(i);
	for (unsigned n = 0; n < 400; n++) {
		for (unsigned i = 0; i < 1000; i++)
			for (unsigned k = 0; k < 10; k++)
				now[i]->c[k]++;
		moment(S);
	}
	// Ten counters of a thousand ports: a minute of seconds, and some minutes.
	assert_in_range(history_size(h), 60 * 80000, 68 * 80000);
	for (unsigned n = 0; n < 400; n++) {
		for (unsigned i = 0; i < 1000; i++) {
			for (unsigned k = 0; k < COUNT_N; k++)
				now[i]->c[k]++;
			for (unsigned k = 0; k < MAX_REASONS; k++)
				now[i]->drop[k]++;
		}
		moment(S);
	}
	assert_in_range(history_size(h), HISTORY_MAX / 2, HISTORY_MAX);
	assert_int_equal(since(time_ns - 5 * S, 77).drop[3], 5);
	uint64_t oldest = history_nearest(h, 0);
	assert_int_equal(since(oldest, 77).drop[3], (time_ns - oldest) / S);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(intervals, setup, teardown),
		cmocka_unit_test_setup_teardown(coarser, setup, teardown),
		cmocka_unit_test_setup_teardown(ports_go, setup, teardown),
		cmocka_unit_test_setup_teardown(against_a_model, setup, teardown),
		cmocka_unit_test_setup_teardown(bounded, setup, teardown),
	};
	lab_eal();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
