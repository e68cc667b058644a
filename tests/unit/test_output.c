// output: the egress port of a known destination is there, and takes packets.
#include "lab.h"

static struct config_network *net;
static struct config_port *in, *out;

static int setup(void **state)
{
	lab_setup();
	net = lab_network("blue", 10);
	in = lab_port("in", VLAN_ACCESS, net);
	out = lab_port("out", VLAN_ACCESS, net);
	lab_apply();
	lab_send(out->id, "udp,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01");
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

static void known_destination(void **state)
{
	lab_expect_ports(in->id, "udp", out->id, 0);
	lab_expect_trace("output to out");
	assert_int_equal(lab_count(out->id, COUNT_TX), 1);
	assert_int_equal(lab_count(out->id, COUNT_TX_BYTES), 60);
	assert_int_equal(lab_count(in->id, COUNT_SENT), 1);
	// The flow names the port that it leaves by.
	struct flow_view v = lab_flow(in->id);
	const struct row_info *row = row_get(v.cold.prov_row[v.cold.n_prov - 1]);
	assert_string_equal(row->table, "Port");
	assert_string_equal(row->name, "out");
}

static void disabled(void **state)
{
	lab_expect_ports(in->id, "udp", out->id, 0);
	out->enabled = false;
	lab_apply();
	lab_expect_drop(in->id, "udp", "output.DISABLED");
	lab_expect_drop(in->id, "udp", "output.DISABLED");
	lab_expect_drop(in->id, "arp", "flow.NOBODY"); // a flood leaves it out
	out->enabled = true;
	lab_apply();
	lab_expect_ports(in->id, "udp", out->id, 0);
}

// Between the moment that a port goes and the one that its addresses are forgotten.
static void gone(void **state)
{
	lab_expect_ports(in->id, "udp", out->id, 0);
	lab_remove_port(out);
	assert_int_equal(topology_reconcile(lab.config, NULL), 0);
	lab_expect_drop(in->id, "udp", "output.GONE");
	lab_apply();
	lab_expect_drop(in->id, "udp", "flow.NOBODY");
}

// The worker has no such port yet, or any more.
static void no_port_of_the_worker(void **state)
{
	struct port_worker *pw = lab.w.port[out->id];

	lab.w.port[out->id] = NULL;
	lab_expect_drop(in->id, "udp", "tx.NO_PORT");
	lab.w.port[out->id] = pw;
	lab_expect_ports(in->id, "udp", out->id, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(known_destination, setup, teardown),
		cmocka_unit_test_setup_teardown(disabled, setup, teardown),
		cmocka_unit_test_setup_teardown(gone, setup, teardown),
		cmocka_unit_test_setup_teardown(no_port_of_the_worker, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
