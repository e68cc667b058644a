// storm: limits of what a port makes the switch flood, with a clock moved by hand.
#include "lab.h"

static struct config_network *net;
static struct config_port *in;
static uint16_t out;

static int setup(void **state)
{
	lab_setup();
	net = lab_network("blue", 10);
	in = lab_port("in", VLAN_ACCESS, net);
	out = lab_port("out", VLAN_ACCESS, net)->id;
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

#define BROADCAST "arp"
#define MULTICAST "udp,nw_dst=239.1.1.1"
#define UNKNOWN "udp,dl_dst=02:00:00:00:00:99"

static unsigned passed(const char *text, unsigned n)
{
	uint64_t before = lab.total_sent;

	for (unsigned i = 0; i < n; i++)
		lab_send(in->id, text);
	return (unsigned)(lab.total_sent - before);
}

static void one_kind(struct config_rate *rate, const char *text, const char *reason, const char *words)
{
	char line[96];

	*rate = (struct config_rate){.pps = 100, .burst = 10};
	lab_apply();
	assert_int_equal(passed(text, 10), 10);
	snprintf(line, sizeof line, "%s, limit 100 packets/s: passes", words);
	lab_expect_trace(line);
	for (int i = 0; i < 3; i++)
		lab_expect_drop(in->id, text, reason);
	snprintf(line, sizeof line, "%s, limit 100 packets/s: over the limit", words);
	lab_expect_trace(line);
	// A packet each 10 ms from here on.
	lab_advance_ms(10);
	assert_int_equal(passed(text, 5), 1);
	for (unsigned ms = 0; ms < 1000; ms++) {
		lab_advance_ms(1);
		passed(text, 1);
	}
	assert_in_range(lab.total_sent, 10 + 1 + 99, 10 + 1 + 101);
	// However long nothing came, no more than the burst at once.
	lab_advance_ms(3600 * 1000);
	assert_int_equal(passed(text, 50), 10);
	// A limit that goes, goes at once.
	*rate = (struct config_rate){0};
	lab_apply();
	assert_int_equal(passed(text, 50), 50);
}

static void broadcast(void **state)
{
	one_kind(&in->storm_broadcast, BROADCAST, "storm.BROADCAST", "broadcast");
}

static void multicast(void **state)
{
	one_kind(&in->storm_multicast, MULTICAST, "storm.MULTICAST", "multicast");
}

static void unknown_unicast(void **state)
{
	one_kind(&in->storm_unknown, UNKNOWN, "storm.UNKNOWN", "unknown unicast");
}

static void kinds_have_limits_of_their_own(void **state)
{
	in->storm_broadcast = (struct config_rate){.pps = 10, .burst = 1};
	in->storm_unknown = (struct config_rate){.pps = 10, .burst = 2};
	lab_apply();
	assert_int_equal(passed(BROADCAST, 5), 1);
	assert_int_equal(passed(MULTICAST, 5), 5);
	lab_reject_trace("limit");
	assert_int_equal(passed(UNKNOWN, 5), 2);
	assert_int_equal(lab_drops(in->id, "storm.BROADCAST"), 4);
	assert_int_equal(lab_drops(in->id, "storm.UNKNOWN"), 3);
	// What the destination is known of isn't limited, and costs nothing per packet.
	lab_send(out, "udp,dl_src=02:00:00:00:00:99");
	assert_int_equal(passed(UNKNOWN, 50), 50);
	lab_reject_trace("storm");
	// Another port has none.
	lab_expect_ports(out, BROADCAST, in->id, 0);
}

static void changed_while_flows_are_cached(void **state)
{
	lab_apply();
	assert_int_equal(passed(BROADCAST, 20), 20);
	in->storm_broadcast = (struct config_rate){.pps = 100, .burst = 3};
	lab_apply();
	assert_int_equal(passed(BROADCAST, 20), 3);
	// Another change of the port leaves the meter where it is.
	in->mtu = 1400;
	lab_apply();
	assert_int_equal(passed(BROADCAST, 20), 0);
	in->storm_broadcast.burst = 5;
	lab_apply();
	assert_int_equal(passed(BROADCAST, 20), 5);
}

static void a_burst_is_made_up_if_none_is_given(void **state)
{
	in->storm_broadcast = (struct config_rate){.pps = 1000};
	lab_apply();
	assert_int_equal(passed(BROADCAST, 300), 100); // a tenth of a second
	in->storm_broadcast = (struct config_rate){.pps = 1};
	lab_apply();
	assert_int_equal(passed(BROADCAST, 10), 1);
}

static void unknown_that_is_not_flooded_takes_nothing(void **state)
{
	in->storm_unknown = (struct config_rate){.pps = 10, .burst = 2};
	net->flood_unknown = false;
	lab_apply();
	for (int i = 0; i < 10; i++)
		lab_expect_drop(in->id, UNKNOWN, "fdb.UNKNOWN");
	net->flood_unknown = true;
	lab_apply();
	assert_int_equal(passed(UNKNOWN, 10), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(broadcast, setup, teardown),
		cmocka_unit_test_setup_teardown(multicast, setup, teardown),
		cmocka_unit_test_setup_teardown(unknown_unicast, setup, teardown),
		cmocka_unit_test_setup_teardown(kinds_have_limits_of_their_own, setup, teardown),
		cmocka_unit_test_setup_teardown(changed_while_flows_are_cached, setup, teardown),
		cmocka_unit_test_setup_teardown(a_burst_is_made_up_if_none_is_given, setup, teardown),
		cmocka_unit_test_setup_teardown(unknown_that_is_not_flooded_takes_nothing, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
