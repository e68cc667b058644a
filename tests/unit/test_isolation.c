// isolation: nothing between two isolated ports, everything else as before.
#include "lab.h"

static struct config_port *a, *b, *c;

static int setup(void **state)
{
	lab_setup();
	struct config_network *net = lab_network("blue", 10);
	a = lab_port("a", VLAN_ACCESS, net);
	b = lab_port("b", VLAN_ACCESS, net);
	c = lab_port("c", VLAN_TRUNK, NULL);
	a->isolated = b->isolated = true;
	lab_apply();
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

#define TO_B "udp,dl_src=02:00:00:00:00:0a,dl_dst=02:00:00:00:00:0b"
#define TO_C "udp,dl_src=02:00:00:00:00:0a,dl_dst=02:00:00:00:00:0c"

static void floods_leave_them_out(void **state)
{
	lab_expect_ports(a->id, "arp", c->id, 0);
	lab_expect_ports(a->id, "arp", c->id, 0);
	lab_expect_ports(b->id, "arp", c->id, 0);
	lab_expect_ports(c->id, "arp,dl_vlan=10", a->id, b->id, 0);
}

static void known_destinations(void **state)
{
	lab_send(b->id, "arp,dl_src=02:00:00:00:00:0b");
	lab_send(c->id, "arp,dl_src=02:00:00:00:00:0c,dl_vlan=10");
	lab_expect_drop(a->id, TO_B, "isolation.ISOLATED");
	lab_expect_drop(a->id, TO_B, "isolation.ISOLATED");
	lab_expect_trace("cached flow");
	lab_expect_ports(a->id, TO_C, c->id, 0);
	lab_expect_ports(c->id, "udp,dl_src=02:00:00:00:00:0c,dl_dst=02:00:00:00:00:0b,dl_vlan=10", b->id, 0);
	// The flow names both ports.
	struct flow_view v = {0};
	unsigned named = 0;
	for (uint32_t i = 0; i < flow_table_high(lab.w.flows); i++)
		if (flow_table_read(lab.w.flows, i, &v) && v.flow.out_kind == OUT_DROP)
			break;
	assert_int_equal(v.flow.out, lab_reason("isolation.ISOLATED"));
	for (unsigned i = 0; i < v.cold.n_prov; i++)
		named += v.cold.prov_stage[i] == stage_find("isolation")->index;
	assert_int_equal(named, 2);
}

static void either_end_may_change(void **state)
{
	lab_send(b->id, "arp,dl_src=02:00:00:00:00:0b");
	lab_expect_drop(a->id, TO_B, "isolation.ISOLATED");
	b->isolated = false;
	lab_apply();
	lab_expect_ports(a->id, TO_B, b->id, 0);
	lab_expect_ports(a->id, "arp", b->id, c->id, 0);
	b->isolated = true;
	lab_apply();
	lab_expect_drop(a->id, TO_B, "isolation.ISOLATED");
	a->isolated = false;
	lab_apply();
	lab_expect_ports(a->id, TO_B, b->id, 0);
}

static void nobody_left(void **state)
{
	c->enabled = false;
	lab_apply();
	lab_expect_drop(a->id, "arp", "flow.NOBODY");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(floods_leave_them_out, setup, teardown),
		cmocka_unit_test_setup_teardown(known_destinations, setup, teardown),
		cmocka_unit_test_setup_teardown(either_end_may_change, setup, teardown),
		cmocka_unit_test_setup_teardown(nobody_left, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
