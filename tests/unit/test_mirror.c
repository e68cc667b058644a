// mirror, mirror_egress: which packets are copied, as what, where to, and that mirrors' ports take nothing else.
#include "lab.h"
#include "compose.h"

#include <stdio.h>

static struct config_network *blue, *red;
static struct config_port *a, *b, *t, *probe;
static struct config_mirror *mirror;

#define TO_B "udp,dl_dst=02:00:00:00:00:0b"
#define UNKNOWN "udp,dl_dst=02:00:00:00:00:99"

static int setup(void **state)
{
	lab_setup();
	blue = lab_network("blue", 10);
	red = lab_network("red", 20);
	a = lab_port("a", VLAN_ACCESS, blue);
	b = lab_port("b", VLAN_ACCESS, blue);
	t = lab_port("t", VLAN_TRUNK, NULL);
	lab_trunk(t, blue);
	probe = lab_port("probe", VLAN_ACCESS, blue);
	lab_static(blue, b, "02:00:00:00:00:0b");
	lab_static(blue, t, "02:00:00:00:00:0d");
	lab.config->mirrors = calloc(4, sizeof *lab.config->mirrors);
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

static void select_port(struct row_id **list, size_t *n, const struct config_port *p)
{
	*list = realloc(*list, (*n + 1) * sizeof **list);
	(*list)[(*n)++] = p->row;
}

static struct config_mirror *add(const char *name)
{
	struct config_mirror *m = &lab.config->mirrors[lab.config->n_mirrors++];

	m->name = strdup(name);
	m->row.b[0] = 0x77;
	m->row.b[1] = (uint8_t)lab.config->n_mirrors;
	m->has_output = true;
	m->output = probe->row;
	return m;
}

// Of a's packets, or those for b.
static void one_mirror(bool src, bool dst)
{
	mirror = add("span");
	if (src)
		select_port(&mirror->src, &mirror->n_src, a);
	if (dst)
		select_port(&mirror->dst, &mirror->n_dst, b);
	lab_apply();
	assert_null(mirror->error);
}

struct sum {
	uint64_t packets, bytes;
};

static void add_up(void *arg, const char *table, const struct row_id *id, uint64_t packets, uint64_t bytes)
{
	struct sum *s = arg;

	if (strcmp(table, "Mirror"))
		return;
	s->packets += packets;
	s->bytes += bytes;
}

static struct sum counted(void)
{
	struct sum s = {0};

	stages_count(add_up, &s);
	return s;
}

static void what_comes_in(void **state)
{
	uint8_t frame[COMPOSE_MAX];
	uint32_t len = lab_compose(frame, TO_B);

	one_mirror(true, false);
	for (int i = 0; i < 3; i++) { // the second one by a cached flow
		lab_expect_ports(a->id, TO_B, b->id, probe->id, 0);
		lab_expect_trace("span copies what comes in");
		lab_expect_trace("a copy for probe, as a mirror wants");
		assert_int_equal(lab_sent_to(probe->id)->len, len);
		assert_memory_equal(lab_sent_to(probe->id)->bytes, frame, len);
	}
	assert_int_equal(lab_count(a->id, COUNT_COPIES), 3);
	assert_int_equal(counted().packets, 3);
	assert_int_equal(counted().bytes, 3 * len);
	// A flood is copied once, and doesn't go to the mirror's port by itself.
	lab_expect_ports(a->id, UNKNOWN, b->id, t->id, probe->id, 0);
	lab_expect_ports(b->id, UNKNOWN, a->id, t->id, 0);
}

static void as_it_came(void **state)
{
	uint8_t frame[COMPOSE_MAX];
	uint32_t len = lab_tag(frame, lab_compose(frame, TO_B), 0x8100, 0x600a);

	mirror = add("span");
	select_port(&mirror->src, &mirror->n_src, t);
	lab_apply();
	lab_send_frame(t->id, frame, len);
	assert_int_equal(lab.n_sent, 2);
	assert_int_equal(lab_sent_to(b->id)->len, len - 4);
	assert_int_equal(lab_sent_to(probe->id)->len, len);
	assert_memory_equal(lab_sent_to(probe->id)->bytes, frame, len);
}

static void what_is_dropped_later(void **state)
{
	uint8_t frame[COMPOSE_MAX];
	uint32_t len;

	one_mirror(true, false);
	blue->flood_unknown = false;
	lab_apply();
	lab_send(a->id, UNKNOWN);
	assert_int_equal(lab_drops(a->id, "fdb.UNKNOWN"), 1);
	assert_non_null(lab_sent_to(probe->id));
	// Of no network at all.
	len = lab_tag(frame, lab_compose(frame, TO_B), 0x8100, 77);
	for (int i = 0; i < 2; i++) {
		lab_send_frame(a->id, frame, len);
		assert_int_equal(lab.n_sent, 1);
		assert_memory_equal(lab_sent_to(probe->id)->bytes, frame, len);
	}
	assert_int_equal(lab_drops(a->id, "vlan.NOT_ALLOWED"), 2);
	// A port that is disabled has no packets.
	a->enabled = false;
	lab_apply();
	lab_expect_drop(a->id, TO_B, "vlan.DISABLED");
}

static void what_leaves(void **state)
{
	uint8_t frame[COMPOSE_MAX];
	uint32_t len = lab_compose(frame, "udp,dl_dst=02:00:00:00:00:0d");

	one_mirror(false, true);
	for (int i = 0; i < 2; i++) {
		lab_expect_ports(a->id, TO_B, b->id, probe->id, 0);
		lab_expect_trace("span copies what leaves");
	}
	lab_expect_ports(a->id, UNKNOWN, b->id, t->id, probe->id, 0);
	lab_expect_ports(b->id, UNKNOWN, a->id, t->id, 0);
	// As it leaves: with the trunk's tag.
	select_port(&mirror->dst, &mirror->n_dst, t);
	lab_apply();
	lab_send_frame(a->id, frame, len);
	len = lab_tag(frame, len, 0x8100, 10);
	assert_int_equal(lab_sent_to(probe->id)->len, len);
	assert_memory_equal(lab_sent_to(probe->id)->bytes, frame, len);
	assert_memory_equal(lab_sent_to(t->id)->bytes, frame, len);
	// ... and without the one that it came with.
	len = lab_tag(frame, lab_compose(frame, TO_B), 0x8100, 10);
	lab_send_frame(t->id, frame, len);
	assert_int_equal(lab_sent_to(probe->id)->len, len - 4);
	// A flood is copied for each selected port.
	lab_send(a->id, UNKNOWN);
	assert_int_equal(lab.n_sent, 4);
	// What is too large for the port doesn't leave.
	b->mtu = 100;
	lab_apply();
	uint8_t large[1514] = {2, 0, 0, 0, 0, 0x0b, 2, 0, 0, 0, 0, 0x0a, 0x88, 0xb5};
	lab_expect_drop_frame(a->id, large, sizeof large, "mtu.TOO_LARGE");
}

static void both_once(void **state)
{
	one_mirror(true, true);
	lab_expect_ports(a->id, TO_B, b->id, probe->id, 0);
	lab_expect_ports(a->id, UNKNOWN, b->id, t->id, probe->id, 0);
	uint8_t frame[COMPOSE_MAX];
	lab_send_frame(t->id, frame, lab_tag(frame, lab_compose(frame, TO_B), 0x8100, 10));
	assert_int_equal(lab.n_sent, 2); // it didn't come by a, but leaves by b
	// Two mirrors are two copies.
	struct config_mirror *more = add("more");
	more->select_all = true;
	lab_apply();
	lab_send(a->id, TO_B);
	assert_int_equal(lab.n_sent, 3);
	assert_int_equal(lab_sent_to(b->id)->port, b->id);
}

static void reserved_port(void **state)
{
	lab_static(blue, probe, "02:00:00:00:00:0c");
	lab_apply();
	lab_expect_ports(a->id, "udp,dl_dst=02:00:00:00:00:0c", probe->id, 0);
	mirror = add("span");
	mirror->select_all = true;
	lab_apply();
	lab_expect_drop(probe->id, TO_B, "mirror.RESERVED");
	lab_expect_trace("decided by Mirror span");
	lab_send(a->id, "udp,dl_dst=02:00:00:00:00:0c");
	assert_int_equal(lab.n_sent, 1); // the copy
	assert_int_equal(lab_drops(a->id, "mirror_egress.RESERVED"), 1);
	// All is as it was when the mirror is gone.
	lab.config->n_mirrors = 0;
	free(mirror->name);
	memset(mirror, 0, sizeof *mirror);
	lab_apply();
	lab_expect_ports(a->id, "udp,dl_dst=02:00:00:00:00:0c", probe->id, 0);
	lab_send(a->id, TO_B);
	lab_expect_ports(probe->id, UNKNOWN, a->id, b->id, t->id, 0);
}

static void costs_nothing_when_off(void **state)
{
	lab_apply();
	lab_send(a->id, TO_B);
	assert_true(lab_flow(a->id).flow.flags & FLOW_DIRECT);
	one_mirror(false, true);
	lab_send(a->id, TO_B);
	assert_false(lab_flow(a->id).flow.flags & FLOW_DIRECT);
	lab.config->n_mirrors = 0;
	lab_apply();
	lab_send(a->id, TO_B);
	assert_true(lab_flow(a->id).flow.flags & FLOW_DIRECT);
	lab.config->n_mirrors = 1;
}

static void only_some_networks(void **state)
{
	struct config_port *r = lab_port("r", VLAN_ACCESS, red), *s = lab_port("s", VLAN_ACCESS, red);

	mirror = add("span");
	mirror->select_all = true;
	mirror->has_network = true;
	mirror->network = red->row;
	lab_apply();
	lab_expect_ports(a->id, TO_B, b->id, 0);
	lab_expect_ports(r->id, UNKNOWN, s->id, probe->id, 0);
	mirror->has_network = false;
	mirror->vlans = calloc(1, sizeof *mirror->vlans);
	mirror->vlans[mirror->n_vlans++] = 10;
	lab_apply();
	lab_expect_ports(a->id, TO_B, b->id, probe->id, 0);
	lab_expect_ports(r->id, UNKNOWN, s->id, 0);
}

static void into_a_vlan(void **state)
{
	uint8_t frame[COMPOSE_MAX];
	uint32_t len;
	struct config_port *r = lab_port("r", VLAN_ACCESS, red), *u = lab_port("u", VLAN_TRUNK, NULL);

	mirror = add("rspan");
	mirror->has_output = false;
	mirror->output_vlan = 20;
	mirror->select_all = true;
	lab_trunk(u, red);
	lab_apply();
	assert_null(mirror->error);
	len = lab_tag(frame, lab_compose(frame, TO_B), 0x8100, 0x600a);
	lab_send_frame(t->id, frame, len);
	assert_int_equal(lab.n_sent, 3);
	assert_int_equal(lab_sent_to(r->id)->len, len - 4);
	frame[15] = 20; // another tag, the same priority
	assert_int_equal(lab_sent_to(u->id)->len, len);
	assert_memory_equal(lab_sent_to(u->id)->bytes, frame, len);
	// What is in that network isn't copied into it once more.
	lab_send_frame(u->id, frame, len);
	assert_int_equal(lab.n_sent, 1);
	assert_non_null(lab_sent_to(r->id));
}

static void output_is_gone(void **state)
{
	one_mirror(true, false);
	probe->enabled = false;
	lab_apply();
	lab_send(a->id, TO_B);
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab_drops(a->id, "mirror.NO_PORT"), 1);
	lab_expect_trace("dropped (mirror.NO_PORT)");
	lab_remove_port(probe);
	lab_apply();
	assert_string_equal(mirror->error, "output_port: the port is not there yet, or not on this switch");
	lab_expect_ports(a->id, TO_B, b->id, 0);
}

static void short_copies(void **state)
{
	uint8_t large[1400] = {2, 0, 0, 0, 0, 0x0b, 2, 0, 0, 0, 0, 0x0a, 0x88, 0xb5};

	one_mirror(true, false);
	mirror->snaplen = 100;
	probe->mtu = 100;
	lab_apply();
	for (uint32_t cut = 0; cut < 300; cut += 43) {
		lab_send_mbuf(a->id, lab_mbuf(large, sizeof large, cut));
		assert_int_equal(lab.n_sent, 2);
		assert_int_equal(lab_sent_to(b->id)->len, sizeof large);
		assert_int_equal(lab_sent_to(probe->id)->len, 100);
		assert_memory_equal(lab_sent_to(probe->id)->bytes, large, 100);
	}
	// Too large for the probe's port without.
	mirror->snaplen = 0;
	lab_apply();
	lab_send_frame(a->id, large, sizeof large);
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab_drops(a->id, "mtu.TOO_LARGE"), 1);
}

static void no_buffers(void **state)
{
	one_mirror(true, false);
	lab_few_buffers(0);
	lab_send(a->id, TO_B);
	assert_int_equal(lab_drops(a->id, "flow.NO_MEMORY"), 1);
	assert_int_equal(lab.n_sent, 1);
}

static void explained(void **state)
{
	uint8_t frame[COMPOSE_MAX];
	uint32_t len = lab_compose(frame, TO_B);

	one_mirror(true, true);
	char *text = lab_explain(a->id, lab_mbuf(frame, len, 0), NULL, NULL);
	assert_non_null(strstr(text, "span copies what comes in"));
	assert_non_null(strstr(text, "a copy for probe, as a mirror wants"));
	assert_int_equal(counted().packets, 0);
	free(text);
}

static void rows_that_cannot_be(void **state)
{
	static const struct row_id nowhere = {{9}};

	mirror = add("bad");
	select_port(&mirror->src, &mirror->n_src, probe);
	lab_apply();
	assert_string_equal(mirror->error, "output_port: port probe can't be mirrored to itself");
	lab_expect_ports(probe->id, TO_B, b->id, 0);
	free(mirror->error);
	mirror->error = NULL;
	mirror->has_network = true;
	mirror->network = nowhere;
	lab_apply();
	assert_string_equal(mirror->error, "network: it is not there yet");
	free(mirror->error);
	mirror->error = NULL;
	mirror->has_network = mirror->has_output = false;
	mirror->output_vlan = 99;
	lab_apply();
	assert_string_equal(mirror->error, "output_vlan: there is no network with VLAN 99 yet");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_comes_in, setup, teardown),
		cmocka_unit_test_setup_teardown(as_it_came, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_dropped_later, setup, teardown),
		cmocka_unit_test_setup_teardown(what_leaves, setup, teardown),
		cmocka_unit_test_setup_teardown(both_once, setup, teardown),
		cmocka_unit_test_setup_teardown(reserved_port, setup, teardown),
		cmocka_unit_test_setup_teardown(costs_nothing_when_off, setup, teardown),
		cmocka_unit_test_setup_teardown(only_some_networks, setup, teardown),
		cmocka_unit_test_setup_teardown(into_a_vlan, setup, teardown),
		cmocka_unit_test_setup_teardown(output_is_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(short_copies, setup, teardown),
		cmocka_unit_test_setup_teardown(no_buffers, setup, teardown),
		cmocka_unit_test_setup_teardown(explained, setup, teardown),
		cmocka_unit_test_setup_teardown(rows_that_cannot_be, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
