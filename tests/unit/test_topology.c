// topology: wanted ports and networks become what the workers see; only what changed is published, and only that makes flows stale.
#include "lab.h"

static struct config_network *blue, *red;

static int setup(void **state)
{
	lab_setup();
	blue = lab_network("blue", 10);
	red = lab_network("red", 20);
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

static void nothing_changes_nothing(void **state)
{
	struct config_port *a = lab_port("a", VLAN_ACCESS, blue), *t = lab_port("t", VLAN_TRUNK, NULL);

	lab_static(blue, a, "02:00:00:00:00:01");
	a->storm_broadcast = (struct config_rate){100, 10};
	lab_apply();
	const struct lport *pa = lport_get(a->id), *pt = lport_get(t->id);
	const struct network *n = network_get(blue->id);
	uint32_t epoch = gen_epoch;
	for (int i = 0; i < 3; i++)
		lab_apply();
	assert_int_equal(gen_epoch, epoch);
	assert_ptr_equal(lport_get(a->id), pa);
	assert_ptr_equal(lport_get(t->id), pt);
	assert_ptr_equal(network_get(blue->id), n);
}

static void bumps_are_narrow(void **state)
{
	struct config_port *a = lab_port("a", VLAN_ACCESS, blue), *b = lab_port("b", VLAN_ACCESS, blue);

	lab_apply();
	uint32_t ga = gen_read(gen_slot(GEN_PORT, a->id)), gb = gen_read(gen_slot(GEN_PORT, b->id)), gn = gen_read(gen_slot(GEN_NETWORK, blue->id)),
		 gr = gen_read(gen_slot(GEN_NETWORK, red->id)), gc = gen_read(gen_slot(GEN_CONFIG, 0));
	a->mtu = 1400;
	lab_apply();
	assert_int_equal(gen_read(gen_slot(GEN_PORT, a->id)), ga + 1);
	lab_port("c", VLAN_ACCESS, blue); // who is flooded to is no matter of decisions
	lab_apply();
	assert_int_equal(gen_read(gen_slot(GEN_NETWORK, blue->id)), gn);
	blue->learning = false;
	lab_apply();
	assert_int_equal(gen_read(gen_slot(GEN_NETWORK, blue->id)), gn + 1);
	assert_int_equal(gen_read(gen_slot(GEN_PORT, a->id)), ga + 1);
	assert_int_equal(gen_read(gen_slot(GEN_PORT, b->id)), gb);
	assert_int_equal(gen_read(gen_slot(GEN_NETWORK, red->id)), gr);
	assert_int_equal(gen_read(gen_slot(GEN_CONFIG, 0)), gc);
}

static void each_setting_is_seen(void **state)
{
	struct config_port *a = lab_port("a", VLAN_NATIVE_UNTAGGED, blue);

	lab_apply();
	const struct lport *lp = lport_get(a->id);
	assert_string_equal(lp->name, "a");
	assert_int_equal(lp->native, blue->id);
	assert_int_equal(lp->mtu, 1500);
	assert_int_equal(lp->untagged.network, blue->id);
	assert_int_equal(lp->vlans[20].network, red->id);
	assert_int_equal(lp->vlans[30].network, 0);
#define CHANGE(what, check)                                                                                                                \
	do {                                                                                                                               \
		uint32_t epoch_ = gen_epoch;                                                                                               \
		what;                                                                                                                      \
		lab_apply();                                                                                                               \
		lp = lport_get(a->id);                                                                                                     \
		assert_true(check);                                                                                                        \
		assert_int_not_equal(gen_epoch, epoch_);                                                                                   \
	} while (0)
	CHANGE(a->enabled = false, !lp->enabled);
	CHANGE(a->isolated = true, lp->isolated);
	CHANGE(a->mtu = 9000, lp->mtu == 9000);
	CHANGE(a->network = red->row, lp->native == red->id);
	CHANGE(lab_trunk(a, blue), lp->vlans[10].network == blue->id && lp->vlans[20].network == 0);
	CHANGE(blue->vlan = 11, lp->vlans[11].network == blue->id && !lp->vlans[10].network);
	CHANGE(a->vlan_mode = VLAN_ACCESS, !lp->vlans);
	CHANGE((free(a->name), a->name = strdup("renamed")), !strcmp(lp->name, "renamed"));
	CHANGE(red->mtu = 1300; a->mtu = 0, lp->mtu == 1300);
	CHANGE(a->vlan_mode = VLAN_DOT1Q_TUNNEL; a->cvlans = calloc(1, 2); a->cvlans[0] = 65; a->n_cvlans = 1, lp->cvlans[1] == 2);
	CHANGE(a->cvlans[0] = 66, lp->cvlans[1] == 4);
	CHANGE(lab_remove_port(a), !lp);
}

static void members(void **state)
{
	struct config_port *a = lab_port("a", VLAN_ACCESS, blue), *t = lab_port("t", VLAN_TRUNK, NULL), *r = lab_port("r", VLAN_ACCESS, red);
	struct config_network *bare = lab_network("bare", 0);

	lab_apply();
	assert_int_equal(network_get(blue->id)->n_targets, 2);
	assert_int_equal(network_get(red->id)->n_targets, 2);
	assert_int_equal(network_get(bare->id)->n_targets, 0); // a network without a tag is on no trunk
	a->enabled = false;
	lab_apply();
	assert_int_equal(network_get(blue->id)->n_targets, 1);
	assert_int_equal(network_get(blue->id)->target[0].port, t->id);
	r->isolated = true;
	lab_apply();
	assert_true(network_get(red->id)->target[1].isolated);
	lab_remove_network(red);
	lab_apply();
	assert_null(network_get(2));
	assert_int_equal(lport_get(t->id)->vlans[20].network, 0);
	assert_non_null(r->error);
}

static void errors_say_what_to_do(void **state)
{
	struct config_network *twin = lab_network("twin", 10), *bare = lab_network("bare", 0);
	struct config_port *t = lab_port("t", VLAN_TRUNK, NULL), *a = lab_port("a", VLAN_ACCESS, NULL), *nt = lab_port("nt", VLAN_NATIVE_TAGGED, bare),
			   *ok = lab_port("ok", VLAN_ACCESS, blue), *later = lab_port("later", VLAN_ACCESS, blue);

	lab_trunk(nt, blue);
	later->network = (struct row_id){{9, 9}};
	lab_apply();
	assert_string_equal(t->error, "networks blue and twin both have VLAN 10: name the port's networks in trunks");
	assert_null(lport_get(t->id));
	assert_string_equal(a->error, "the port has no network yet: set its network");
	assert_string_equal(nt->error, "network bare has no VLAN, so it can't leave the port tagged");
	assert_non_null(later->error);
	assert_null(ok->error); // and hurts nobody else
	assert_non_null(lport_get(ok->id));
	lab_trunk(t, twin);
	lab_apply();
	assert_null(t->error);
	assert_int_equal(lport_get(t->id)->vlans[10].network, twin->id);
}

static void a_network_with_an_error_keeps_out(void **state)
{
	struct config_port *a = lab_port("a", VLAN_ACCESS, blue);

	lab_apply();
	assert_non_null(network_get(blue->id));
	free(blue->error);
	blue->error = strdup("VLAN 5000 is none");
	assert_int_equal(stages_reconcile(lab.config), 0);
	assert_null(network_get(blue->id));
	lab_expect_drop(a->id, "udp", "vlan.NO_NETWORK");
}

// As many as there may be.
static void many_ports(void **state)
{
	char name[16];

	for (int i = 0; i < 500; i++) {
		snprintf(name, sizeof name, "p%d", i);
		lab_port(name, i % 4 ? VLAN_ACCESS : VLAN_TRUNK, i % 4 ? (i % 2 ? blue : red) : NULL);
	}
	lab.config->ports[499].id = MAX_PORTS - 1;
	lab_apply();
	assert_int_equal(network_get(blue->id)->n_targets, 375);
	lab_expect_drop(MAX_PORTS - 1, "udp,dl_src=03:00:00:00:00:00", "vlan.GROUP_SOURCE");
	lab.traced = false;
	lab_send(MAX_PORTS - 1, "arp");
	assert_int_equal(lab.n_sent, 374);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(nothing_changes_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(bumps_are_narrow, setup, teardown),
		cmocka_unit_test_setup_teardown(each_setting_is_seen, setup, teardown),
		cmocka_unit_test_setup_teardown(members, setup, teardown),
		cmocka_unit_test_setup_teardown(errors_say_what_to_do, setup, teardown),
		cmocka_unit_test_setup_teardown(a_network_with_an_error_keeps_out, setup, teardown),
		cmocka_unit_test_setup_teardown(many_ports, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
