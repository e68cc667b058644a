// cycles: what ports and parts of the packet path cost, and how long packets take.
#include "lab.h"

#include <rte_cycles.h>

// Each packet that was sent is in the histogram once, with the time of one that was measured.
static void sampled_latency(void **state)
{
	struct port_load l = {0}, sum = {0};
	struct load_row row[] = {{500, 3}, {100, 1}}, none[] = {{500, 0}};

	load_init(&l);
	assert_int_equal(l.flushes_left, 1);
	// The flush stands for itself only.
	load_sent(&l, 400, row, 2);
	load_read(&l, &sum);
	assert_int_equal(histogram_count(&sum.latency), 4);
	assert_int_equal(sum.latency.bucket[histogram_index(500)], 3);
	assert_int_equal(sum.latency.bucket[histogram_index(100)], 1);
	assert_int_equal(sum.latency.sum, 1600);
	assert_int_equal(sum.tx_cycles, 400);
	// For itself and six before it: 7.5 of 10, and the rest.
	l.sent_since = 6;
	load_sent(&l, 400, row, 2);
	memset(&sum, 0, sizeof sum);
	load_read(&l, &sum);
	assert_int_equal(histogram_count(&sum.latency), 14);
	assert_int_equal(sum.latency.bucket[histogram_index(500)], 3 + 7);
	assert_int_equal(sum.tx_cycles, 400 + 1000);
	assert_int_equal(l.sent_since, 0);
	// The device took none of them: the next one stands for those before.
	l.sent_since = 6;
	load_sent(&l, 400, none, 1);
	assert_int_equal(l.sent_since, 6);
}

static void sampled_resolving(void **state)
{
	struct port_load l = {0};

	load_resolved(&l, 10, 0);
	load_resolved(&l, 0, 0);
	assert_int_equal(l.resolve_cycles, 0);
	load_resolved(&l, 5, 5000);
	assert_int_equal(l.resolve_cycles, 15000);
	load_resolved(&l, 5, 5000);
	assert_int_equal(l.resolve_cycles, 20000);
}

// A port that goes leaves what it cost to the switch's own account.
static void folded(void **state)
{
	struct port_load a = {.rx_cycles = 1, .resolve_cycles = 2, .tx_cycles = 3},
			 b = {.rx_cycles = 10, .resolve_cycles = 20, .tx_cycles = 30};

	histogram_add(&a.latency, 5, 2);
	histogram_add(&b.latency, 6, 1);
	load_fold(&b, &a);
	assert_int_equal(b.rx_cycles, 11);
	assert_int_equal(b.resolve_cycles, 22);
	assert_int_equal(b.tx_cycles, 33);
	assert_int_equal(histogram_count(&b.latency), 3);
	assert_int_equal(b.latency.max, 6);
}

// In a round that is measured every part has its packets; in others nothing is booked.
static void parts_of_a_round(void **state)
{
	if (!INSTRUMENTS)
		skip();
	lab_setup();
	struct config_network *net = lab_network("blue", 0);
	struct config_port *a = lab_port("a", VLAN_ACCESS, net), *b = lab_port("b", VLAN_ACCESS, net);
	lab_apply();
	lab_send(a->id, "udp,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02");
	lab_send(b->id, "udp,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01");
	const struct cycles *c = &lab.w.cycles;
	for (unsigned i = 0; i < CYCLES_N; i++)
		assert_int_equal(c->part[i].cycles + c->part[i].packets, 0);
	lab.w.timed = true;
	lab.w.cycles.last = rte_rdtsc();
	// A first packet, as the flood before it made a flow that is stale now, and one of a flow.
	lab_send(a->id, "udp,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02");
	assert_int_equal(c->part[CYCLES_PARSE].packets, 1);
	assert_int_equal(c->part[CYCLES_LOOKUP].packets, 1);
	assert_int_equal(c->part[CYCLES_RESOLVE].packets, 1);
	assert_int_equal(c->part[CYCLES_RUN].packets, 1);
	uint8_t mtu = stage_find("mtu")->index;
	assert_int_equal(c->part[CYCLES_STAGES + mtu].packets, 1);
	assert_true(c->part[CYCLES_STAGES + mtu].cycles > 0);
	lab_send(a->id, "udp,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02");
	assert_int_equal(c->part[CYCLES_PARSE].packets, 2);
	assert_int_equal(c->part[CYCLES_SERVE].packets, 2);
	assert_int_equal(c->part[CYCLES_RESOLVE].packets, 1);
	uint64_t sum = 0;
	for (unsigned i = 0; i < CYCLES_N; i++)
		sum += c->part[i].cycles;
	assert_true(c->part[CYCLES_RESOLVE].cycles > 0 && sum > c->part[CYCLES_RESOLVE].cycles);
	lab.w.timed = false;
	lab_send(a->id, "udp,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02");
	assert_int_equal(c->part[CYCLES_PARSE].packets, 2);
	lab_teardown();
}

// What the flight recorder is told: packets that wait, packets that were resolved, dropped, and dropped because a queue was
// full.
static void tallied(void **state)
{
	lab_setup();
	struct config_network *net = lab_network("blue", 0);
	struct config_port *a = lab_port("a", VLAN_ACCESS, net);
	lab_port("b", VLAN_ACCESS, net);
	lab_apply();
	lab.w.miss_limit = 8;
	lab.w.resolve_budget = 3;
	struct rte_mbuf *m[BURST];
	for (unsigned i = 0; i < 12; i++) {
		uint8_t frame[64] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, (uint8_t)i, 0x88, 0xb5};

		m[i] = lab_mbuf(frame, sizeof frame, 0);
	}
	forward_burst(&lab.w, a->id, m, 12);
	assert_int_equal(lab.w.tally.full, 4);
	assert_int_equal(lab.w.tally.full_port, a->id);
	assert_false(lab.w.tally.full_tx);
	assert_int_equal(lab.w.tally.dropped, 4);
	assert_int_equal(lab.w.tally.resolved, 3);
	assert_int_equal(lab.w.tally.misses, 5);
	while (forward_misses(&lab.w, a->id))
		;
	assert_int_equal(lab.w.tally.misses, 0);
	assert_int_equal(lab.w.tally.resolved, 8);
	lab_flush();
	assert_int_equal(lab_drops(a->id, "flow.RESOLVE_QUEUE"), 4);
	assert_int_equal(lab.w.tally.backlog, 0);
	lab_teardown();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sampled_latency),  cmocka_unit_test(sampled_resolving), cmocka_unit_test(folded),
		cmocka_unit_test(parts_of_a_round), cmocka_unit_test(tallied),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
