// test_class: classes of traffic: which packets rules put into one, and that each is counted there once (pipeline/class_table.c, ofproto/flow.c).
#include "lab.h"
#include "actions.h"
#include "class_table.h"

#include <errno.h>

#define A "dl_src=02:00:00:00:00:0a"
#define TO_B ",dl_dst=02:00:00:00:00:0b"

static struct config_network *blue;
static uint16_t a, b, c;

static struct config_flow *rule(const char *match, const char *actions)
{
	struct config_flow *f = &lab.config->flows[lab.config->n_flows++];

	*f = (struct config_flow){.row = {{0xf1, (uint8_t)lab.config->n_flows}}, .match = strdup(match), .actions = strdup(actions), .enabled = true};
	return f;
}

static struct config_class *class(const char *name)
{
	struct config_class *cc = &lab.config->classes[lab.config->n_classes++];
	static uint8_t rows;

	*cc = (struct config_class){.row = {{0xc1, ++rows}}, .name = strdup(name)};
	return cc;
}

static void apply(void)
{
	for (size_t i = 0; i < lab.config->n_flows; i++) {
		free(lab.config->flows[i].error);
		lab.config->flows[i].error = NULL;
	}
	lab_apply();
}

static void change(struct config_flow *f, const char *actions)
{
	free(f->actions);
	f->actions = strdup(actions);
	apply();
	assert_null(f->error);
}

static int setup(void **state)
{
	lab_setup();
	lab.config->flows = calloc(16, sizeof *lab.config->flows);
	lab.config->classes = calloc(16, sizeof *lab.config->classes);
	blue = lab_network("blue", 10);
	a = lab_port("a", VLAN_ACCESS, blue)->id;
	b = lab_port("b", VLAN_ACCESS, blue)->id;
	c = lab_port("c", VLAN_ACCESS, blue)->id;
	apply();
	lab_send(b, "arp,dl_src=02:00:00:00:00:0b");
	lab_send(a, "arp," A);
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

struct counted {
	const struct row_id *row;
	uint64_t packets, bytes;
	unsigned n;
};

static void count_one(void *arg, const char *table, const struct row_id *row, uint64_t packets, uint64_t bytes)
{
	struct counted *n = arg;

	if (!row_id_equal(row, n->row))
		return;
	assert_string_equal(table, "Class");
	n->packets = packets;
	n->bytes = bytes;
	n->n++;
}

static void expect(const struct config_class *cc, uint64_t packets, uint64_t bytes)
{
	struct counted n = {.row = &cc->row};

	stages_count(count_one, &n);
	if (n.n != 1 || n.packets != packets || n.bytes != bytes)
		fail_msg("%s: %u rows, %lu packets, %lu bytes, not %lu and %lu", cc->name, n.n, (unsigned long)n.packets, (unsigned long)n.bytes,
			 (unsigned long)packets, (unsigned long)bytes);
}

// Two rules of one class, one of another; the packets go where they would go.
static void sums(void **state)
{
	struct config_class *gold = class("gold"), *best = class("best");

	rule("udp", "class:gold")->priority = 5;
	rule("tcp,tp_dst=80", "class:gold,output:c")->priority = 5;
	rule("any", "class:best")->priority = 1;
	apply();
	for (int i = 0; i < 3; i++)
		lab_expect_ports(a, "udp," A TO_B, b, 0);
	lab_expect_trace("rule       priority 5, udp: class:gold; class gold\n");
	lab_expect_trace("decided by Class gold");
	lab_reject_trace("DEFECT");
	lab_reject_trace("differs");
	lab_expect_ports(a, "tcp,tp_dst=80,packet_len=100," A TO_B, c, 0);
	lab_expect_ports(a, "tcp,tp_dst=81," A TO_B, b, 0);
	expect(gold, 4, 280);
	expect(best, 1, 60);
	lab.traced = false;
	for (int i = 0; i < 100; i++)
		lab_send(a, "udp," A TO_B);
	expect(gold, 104, 6280);
	// Flows that go leave theirs.
	lab_advance_ms(100000);
	for (int i = 0; i < 5000; i++)
		lab_tick();
	assert_int_equal(lab_flows(), 0);
	expect(gold, 104, 6280);
	lab.traced = true;
}

// However many copies are made of it, a packet is counted once; what no flow is kept for is counted as well.
static void once(void **state)
{
	struct config_class *gold = class("gold");
	struct config_router *r1 = lab_router("r1");

	lab_router_port("r1-blue", r1, blue, "02:00:00:00:10:01", "10.1.0.1/24", NULL);
	struct config_flow *f = rule("ip,dl_src=02:00:00:00:00:0a", "mirror:c,class:gold,output:c,output:b");
	apply();
	assert_null(f->error);
	lab_expect_ports(a, "udp," A TO_B, b, c, c, 0);
	lab_expect_ports(a, "udp," A TO_B, b, c, c, 0);
	expect(gold, 2, 120);
	change(f, "class:gold,flood");
	lab_expect_ports(a, "udp," A TO_B, b, c, 0);
	expect(gold, 3, 180);
	change(f, "class:gold");
	for (int i = 0; i < 5; i++)
		lab_send(a, "icmp,icmp_type=8,nw_src=10.1.0.2,nw_dst=10.1.0.1," A ",dl_dst=02:00:00:00:10:01");
	lab_expect_trace("answer the ping");
	expect(gold, 8, 480);
}

// What was counted stays with the class that it was counted in.
static void changes(void **state)
{
	struct config_class *gold = class("gold"), *iron = class("iron");
	struct config_flow *f = rule("udp", "class:gold");

	apply();
	for (int i = 0; i < 3; i++)
		lab_expect_ports(a, "udp," A TO_B, b, 0);
	change(f, "class:iron");
	expect(gold, 3, 180);
	expect(iron, 0, 0);
	for (int i = 0; i < 2; i++)
		lab_expect_ports(a, "udp," A TO_B, b, 0);
	lab_expect_trace("; class iron");
	expect(gold, 3, 180);
	expect(iron, 2, 120);
	change(f, "normal");
	lab_expect_ports(a, "udp," A TO_B, b, 0);
	lab_reject_trace("; class");
	expect(iron, 2, 120);
	change(f, "class:gold");
	lab_expect_ports(a, "udp," A TO_B, b, 0);
	expect(gold, 4, 240);
	f->enabled = false;
	apply();
	lab_expect_ports(a, "udp," A TO_B, b, 0);
	expect(gold, 4, 240);
	lab.config->n_flows--;
	free(f->match);
	free(f->actions);
	apply();
	lab_expect_ports(a, "udp," A TO_B, b, 0);
	expect(gold, 4, 240);
	expect(iron, 2, 120);
	// The worker goes, and its table with it.
	rule("udp", "class:gold");
	apply();
	lab_expect_ports(a, "udp," A TO_B, b, 0);
	flow_table_destroy(lab.w.flows);
	lab.w.flows = flow_table_create(&(struct flow_table_config){.limit = 4096, .idle_ms = 10000});
	expect(gold, 5, 300);
	lab_expect_ports(a, "udp," A TO_B, b, 0);
	expect(gold, 6, 360);
}

// A rule waits for its class, and is back when that is.
static void waits(void **state)
{
	struct config_flow *f = rule("udp", "class:gold,output:c"), *other = rule("tcp", "output:c");

	apply();
	assert_string_equal(f->error, "class:gold: there is no class gold yet");
	assert_null(other->error);
	lab_expect_ports(a, "udp," A TO_B, b, 0);
	lab_expect_ports(a, "tcp," A TO_B, c, 0);
	struct config_class *gold = class("gold");
	apply();
	assert_null(f->error);
	lab_expect_ports(a, "udp," A TO_B, c, 0);
	expect(gold, 1, 60);
	// Another name, and back: the row is the same, and so are its counters.
	free(gold->name);
	gold->name = strdup("silver");
	apply();
	assert_non_null(f->error);
	lab_expect_ports(a, "udp," A TO_B, b, 0);
	expect(gold, 1, 60);
	free(gold->name);
	gold->name = strdup("gold");
	apply();
	assert_null(f->error);
	lab_expect_ports(a, "udp," A TO_B, c, 0);
	expect(gold, 2, 120);
	// A row with an error is no class. Then another row has the name.
	gold->error = strdup("x");
	apply();
	assert_non_null(f->error);
	assert_int_equal(class_table_find("gold"), 0);
	struct config_class *next = class("gold");
	apply();
	assert_null(f->error);
	lab_expect_ports(a, "udp," A TO_B, c, 0);
	expect(next, 1, 60);
	free(gold->error);
	gold->error = NULL;
	free(gold->name);
	gold->name = strdup("old");
	apply();
	expect(gold, 2, 120);
}

static void refused(void **state)
{
	static const char *const bad[][2] = {
		{"class", "class needs a value: class:..."},
		{"class:", "class:: the name of a class is needed"},
		{"class:x23456789012345678901234567890123456789012345678901234567890123456789", "the name of a class is needed"},
		{"class:gold,class:gold", "class:gold: another word has put the packet into class gold already"},
		{"class:gold,drop", "class:gold: what is dropped is in no class"},
		{"drop,class:gold", "class:gold: what is dropped is in no class"},
		{"normal,class:gold", "class: no output comes behind it"},
		{"output:b,class:gold", "class: no output comes behind it"},
		{"class:gold:x", "class:gold:x: there is no class gold:x yet"},
	};

	class("gold");
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct config_flow *f = rule("any", bad[i][0]);

		apply();
		if (!f->error || !strstr(f->error, bad[i][1]))
			fail_msg("%s: %s", bad[i][0], f->error ? f->error : "no error");
	}
	lab_expect_ports(a, "udp," A TO_B, b, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(sums, setup, teardown),   cmocka_unit_test_setup_teardown(once, setup, teardown),
		cmocka_unit_test_setup_teardown(changes, setup, teardown), cmocka_unit_test_setup_teardown(waits, setup, teardown),
		cmocka_unit_test_setup_teardown(refused, setup, teardown),
	};
	lab_eal();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
