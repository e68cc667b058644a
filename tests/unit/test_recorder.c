// recorder: a worker's flight recorder, on a clock moved by hand.
#include "recorder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct recorder *rec;
static struct recorder_limits limits;
static uint64_t now_ns;
static struct round rounds[RECORDER_ROUNDS];

static int setup(void **state)
{
	rec = recorder_new();
	assert_non_null(rec);
	limits = (struct recorder_limits){.round_ns = 10000000, .full = 1, .storm_resolves = 500};
	recorder_limit(rec, &limits);
	now_ns = 1000000000;
	return 0;
}

static int teardown(void **state)
{
	recorder_free(rec);
	return 0;
}

// A round of 1 us with what the caller says.
static enum suspicion note(struct round what)
{
	struct round *r = recorder_begin(rec);

	what.rounds = 1;
	what.start_ns = now_ns;
	if (!what.busy_ns)
		what.busy_ns = 1000;
	now_ns += what.busy_ns;
	*r = what;
	return recorder_end(rec);
}

static void idle(unsigned n)
{
	while (n--) {
		note((struct round){0});
		recorder_slept(rec, 500000);
		now_ns += 500000;
	}
}

static unsigned read_all(bool frozen)
{
	return recorder_read(rec, frozen, rounds, RECORDER_ROUNDS);
}

static void expect_sentence(const struct round *r, const char *text)
{
	struct buf b = {0};

	recorder_sentence(&b, r, &limits, "vm1");
	if (text)
		assert_string_equal(b.text, text);
	else
		assert_null(b.text);
	free(b.text);
}

static void in_order(void **state)
{
	assert_int_equal(read_all(false), 0);
	assert_int_equal(read_all(true), 0);
	for (unsigned i = 1; i <= 20; i++)
		note((struct round){.packets = i});
	assert_int_equal(read_all(false), 20);
	assert_int_equal(rounds[0].packets, 1);
	assert_int_equal(rounds[19].packets, 20);
	assert_int_equal(rounds[19].start_ns - rounds[18].start_ns, 1000);
	// The last three.
	assert_int_equal(recorder_read(rec, false, rounds, 3), 3);
	assert_int_equal(rounds[0].packets, 18);
	// More than there is room for: the oldest go, and the place that the next one is written to.
	for (unsigned i = 21; i <= 3000; i++)
		note((struct round){.packets = i});
	assert_int_equal(read_all(false), RECORDER_ROUNDS - 1);
	assert_int_equal(rounds[0].packets, 3000 - RECORDER_ROUNDS + 2);
	assert_int_equal(rounds[RECORDER_ROUNDS - 2].packets, 3000);
	expect_sentence(&rounds[0], NULL);
}

// An hour without packets is one record.
static void idle_rounds_are_one(void **state)
{
	note((struct round){.packets = 7});
	recorder_slept(rec, 5);
	idle(5000);
	note((struct round){.packets = 8});
	idle(1);
	assert_int_equal(read_all(false), 4);
	assert_int_equal(rounds[0].packets, 7);
	assert_int_equal(rounds[0].slept_ns, 5);
	assert_int_equal(rounds[1].rounds, 5000);
	assert_int_equal(rounds[1].busy_ns, 5000 * 1000);
	assert_int_equal(rounds[1].slept_ns, 5000ULL * 500000);
	assert_int_equal(rounds[2].packets, 8);
	assert_int_equal(rounds[3].rounds, 1);
	// That packets wait, and how many, is worth a record, once.
	note((struct round){.backlog = 5});
	note((struct round){.backlog = 5});
	note((struct round){.backlog = 4});
	note((struct round){.misses = 1, .backlog = 4});
	// So is a drop without a packet received, and a call.
	note((struct round){.misses = 1, .backlog = 4, .dropped = 1});
	note((struct round){.misses = 1, .backlog = 4, .dropped = 1});
	note((struct round){.misses = 1, .backlog = 4, .call_us = 1});
	assert_int_equal(read_all(false), 10);
	assert_int_equal(rounds[4].rounds, 2);
}

static void too_long(void **state)
{
	note((struct round){.packets = 1});
	assert_int_equal(note((struct round){.packets = 32, .busy_ns = 10000000}), SUSPICION_NONE);
	idle(2);
	assert_int_equal(note((struct round){.busy_ns = 12300000, .preempted = 3, .away_us = 9000}), SUSPICION_LONG);
	note((struct round){.packets = 5});
	assert_int_equal(read_all(true), 4);
	assert_int_equal(rounds[3].why, SUSPICION_LONG);
	expect_sentence(
		&rounds[3],
		"the round took 12.3 ms (limit 10.0): the kernel gave its core to others for 9.0 ms of it, 3 times within the last "
		"second; keep them off it");
	rounds[3].call_us = 12000;
	expect_sentence(&rounds[3],
			"the round took 12.3 ms (limit 10.0): the main thread had the worker do something for 12.0 ms");
	rounds[3].call_us = 0;
	rounds[3].away_us = 6000; // less than half: others were not what made it long
	rounds[3].packets = 64;
	expect_sentence(&rounds[3], "the round took 12.3 ms (limit 10.0) for 64 packets");
	rounds[3].resolved = 60;
	expect_sentence(&rounds[3], "the round took 12.3 ms (limit 10.0) for 64 packets, 60 of them first packets of flows");
	// The worker goes on in the other ring.
	assert_int_equal(read_all(false), 1);
	assert_int_equal(rounds[0].packets, 5);
}

static void full_queue(void **state)
{
	limits.full = 10;
	recorder_limit(rec, &limits);
	assert_int_equal(note((struct round){.packets = 32, .dropped = 9, .full = 9, .full_port = 4}), SUSPICION_NONE);
	assert_int_equal(note((struct round){.packets = 32, .dropped = 11, .full = 10, .full_port = 4}), SUSPICION_FULL);
	assert_int_equal(read_all(true), 2);
	assert_int_equal(rounds[1].full_port, 4);
	expect_sentence(
		&rounds[1],
		"10 packets were dropped: the queue of port vm1 was full, as its new flows come faster than they are resolved");
	rounds[1].full_tx = 1;
	expect_sentence(&rounds[1], "10 packets were dropped: the queue of port vm1 was full, as it takes packets too slowly");
}

static void storm(void **state)
{
	// 500 within 100 ms are none, however they are spread.
	for (unsigned i = 0; i < 50; i++) {
		assert_int_equal(note((struct round){.packets = 32, .resolved = 10}), SUSPICION_NONE);
		now_ns += 1000000;
	}
	now_ns += STORM_NS;
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(note((struct round){.packets = 32, .resolved = 25}), SUSPICION_NONE);
	assert_int_equal(note((struct round){.packets = 32, .resolved = 25}), SUSPICION_STORM);
	assert_int_equal(read_all(true), 71);
	assert_int_equal(rounds[70].storm, 525);
	expect_sentence(&rounds[70],
			"525 packets were resolved within 100 ms: many new flows (a scan?), or flows that keep becoming stale");
	// The next one is another.
	assert_int_equal(note((struct round){.packets = 32, .resolved = 25}), SUSPICION_NONE);
}

static void frozen_until_cleared(void **state)
{
	note((struct round){.packets = 1});
	note((struct round){.packets = 2, .full = 1});
	// A second one is counted and marked, but the first one's ring stays.
	note((struct round){.packets = 3});
	note((struct round){.packets = 4, .full = 1});
	note((struct round){.packets = 5});
	assert_int_equal(rec->suspicious[SUSPICION_FULL], 2);
	assert_int_equal(read_all(true), 2);
	assert_int_equal(rounds[1].packets, 2);
	assert_int_equal(read_all(false), 3);
	assert_int_equal(rounds[1].why, SUSPICION_FULL);
	recorder_thaw(rec);
	assert_int_equal(read_all(true), 0);
	note((struct round){.packets = 6, .full = 1});
	assert_int_equal(read_all(true), 4);
	assert_int_equal(rounds[0].packets, 3);
	assert_int_equal(rounds[3].packets, 6);
	assert_int_equal(read_all(false), 0);
	// A full ring keeps all of its records when it is frozen.
	recorder_thaw(rec);
	for (unsigned i = 0; i < 2 * RECORDER_ROUNDS; i++)
		note((struct round){.packets = 1 + i});
	note((struct round){.packets = 9, .full = 1});
	assert_int_equal(read_all(true), RECORDER_ROUNDS);
	assert_int_equal(rounds[RECORDER_ROUNDS - 1].packets, 9);
	assert_int_equal(rounds[0].packets, RECORDER_ROUNDS + 2);
}

static void no_limits(void **state)
{
	recorder_limit(rec, &(struct recorder_limits){0});
	assert_int_equal(note((struct round){.busy_ns = 1ULL << 40, .resolved = 1u << 30, .full = 65535}), SUSPICION_NONE);
	assert_int_equal(read_all(true), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(idle_rounds_are_one, setup, teardown),
		cmocka_unit_test_setup_teardown(too_long, setup, teardown),
		cmocka_unit_test_setup_teardown(full_queue, setup, teardown),
		cmocka_unit_test_setup_teardown(storm, setup, teardown),
		cmocka_unit_test_setup_teardown(frozen_until_cleared, setup, teardown),
		cmocka_unit_test_setup_teardown(no_limits, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
