// test_mark: a rule marks packets (pipeline/rule.c), and policies of routers choose their way by it (pipeline/route_find.c).
#include "lab.h"
#include "actions.h"
#include "compose.h"
#include "neighbour_table.h"

#include <errno.h>

#define MAC_BLUE "02:00:00:00:10:01"
#define FROM_A "dl_src=02:00:00:00:00:0a,dl_dst=" MAC_BLUE
#define V4 FROM_A ",udp,nw_src=10.1.0.10,nw_dst=10.9.0.1,nw_ttl=64"
#define V6 FROM_A ",udp6,ipv6_src=fd01::10,ipv6_dst=fd09::1,nw_ttl=64"

static struct config_network *blue, *red;
static struct config_router *r1;
static struct config_port *a, *b, *c;

static struct config_flow *rule(const char *match, const char *actions)
{
	struct config_flow *f = &lab.config->flows[lab.config->n_flows++];

	*f = (struct config_flow){.row = {{0xf1, (uint8_t)lab.config->n_flows}}, .match = strdup(match), .actions = strdup(actions), .enabled = true};
	return f;
}

static void change(struct config_flow *f, const char *actions)
{
	free(f->actions);
	f->actions = strdup(actions);
	lab_apply();
	assert_null(f->error);
}

static struct config_route_policy *policy(const struct config_router *r, uint32_t value, uint32_t mask, uint32_t table)
{
	struct config_route_policy *p = &lab.config->policies[lab.config->n_policies++];

	*p = (struct config_route_policy){.row = {{0xa1, (uint8_t)lab.config->n_policies}},
					  .router = r->row,
					  .priority = (uint32_t)lab.config->n_policies,
					  .dscp = -1,
					  .type = ROUTE_UNICAST,
					  .mark = {value, mask},
					  .table = table};
	return p;
}

// a - blue - r1 - red - b and c, which are next hops: b of the main table, c of table 100.
static int setup(void **state)
{
	lab_setup();
	lab.config->flows = calloc(16, sizeof *lab.config->flows);
	lab.config->policies = calloc(16, sizeof *lab.config->policies);
	blue = lab_network("blue", 10);
	red = lab_network("red", 20);
	a = lab_port("a", VLAN_ACCESS, blue);
	lab_address(a, "02:00:00:00:00:0a");
	lab_ip(a, "10.1.0.10");
	b = lab_port("b", VLAN_ACCESS, red);
	lab_address(b, "02:00:00:00:00:0b");
	lab_ip(b, "10.2.0.11");
	lab_ip(b, "fd02::11");
	c = lab_port("c", VLAN_ACCESS, red);
	lab_address(c, "02:00:00:00:00:0c");
	lab_ip(c, "10.2.0.12");
	lab_ip(c, "fd02::12");
	r1 = lab_router("r1");
	lab_router_port("r1-blue", r1, blue, MAC_BLUE, "10.1.0.1/24", "fd01::1/64", NULL);
	lab_router_port("r1-red", r1, red, "02:00:00:00:20:01", "10.2.0.1/24", "fd02::1/64", NULL);
	lab_route(r1, "10.9.0.0/16", ROUTE_UNICAST, "10.2.0.11", NULL);
	lab_route(r1, "fd09::/16", ROUTE_UNICAST, "fd02::11", NULL);
	lab_route(r1, "10.9.0.0/16", ROUTE_UNICAST, "10.2.0.12", NULL)->table = 100;
	lab_route(r1, "fd09::/16", ROUTE_UNICAST, "fd02::12", NULL)->table = 100;
	lab_apply();
	lab_pass_ms(10000); // duplicate address detection, and announcements
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

// Both families, as a first packet and as a later one.
static void expect_by(const struct config_port *port)
{
	for (int i = 0; i < 2; i++) {
		lab_expect_ports(a->id, V4, port->id, 0);
		lab_expect_ports(a->id, V6, port->id, 0);
	}
	lab_reject_trace("DEFECT");
	lab_reject_trace("differs");
}

static void chooses(void **state)
{
	struct config_route_policy *p = policy(r1, 0x10, UINT32_MAX, 100);

	lab_apply();
	expect_by(b);
	lab_reject_trace("mark");
	struct config_flow *f = rule("udp", "set_field:0x10->pkt_mark");
	struct config_flow *six = rule("udp6", "set_field:16->pkt_mark,normal");
	lab_apply();
	assert_null(f->error);
	expect_by(c);
	lab_expect_trace("rule       priority 0, udp6: set_field:16->pkt_mark,normal; mark 0x10\n");
	lab_expect_trace("to fd09::1, mark 0x10, /16 of table 100 is unicast by r1-red via fd02::12");
	lab_expect_trace("decided by Flow f102");
	lab_expect_trace("decided by Route_Policy 1");
	// Another mark, then none, then the first one again: cached flows follow.
	change(f, "set_field:0x11->pkt_mark");
	change(six, "set_field:0x11->pkt_mark");
	expect_by(b);
	lab_expect_trace("; mark 0x11");
	change(f, "normal");
	change(six, "normal");
	expect_by(b);
	lab_reject_trace("mark");
	change(f, "set_field:0x10->pkt_mark");
	change(six, "set_field:0x10->pkt_mark");
	expect_by(c);
	// The policy asks for another one, then for the packets that have none.
	p->mark.value = 0x20;
	lab_apply();
	expect_by(b);
	p->mark.value = 0;
	lab_apply();
	expect_by(b);
	lab.config->n_flows = 0;
	lab_apply();
	expect_by(c);
	free(f->match);
	free(f->actions);
	free(six->match);
	free(six->actions);
}

static void masks(void **state)
{
	struct config_flow *f = rule("any", "set_field:0x1234->pkt_mark");
	struct config_route_policy *p = policy(r1, 0x30, 0xf0, 100);

	lab_apply();
	expect_by(c);
	change(f, "set_field:0x30/0x3f->pkt_mark,set_field:0xff00/0xff00->pkt_mark,mod_dl_src:02:00:00:00:00:99");
	expect_by(c);
	lab_expect_trace("; mark 0xff30");
	change(f, "set_field:0x30->pkt_mark,set_field:0x40/0x40->pkt_mark");
	expect_by(b);
	lab_expect_trace("; mark 0x70");
	p->mark = (struct pkt_mark){0x80000000, 0x80000000};
	change(f, "set_field:0xffffffff->pkt_mark,set_field:0/0x7fffffff->pkt_mark,normal");
	expect_by(c);
	lab_expect_trace("; mark 0x80000000");
	// Without a mask a policy doesn't ask.
	p->mark = (struct pkt_mark){0, 0};
	change(f, "normal");
	expect_by(c);
}

// Of two rules the one that decides marks; what an output is for leaves the mark behind.
static void whose(void **state)
{
	struct config_flow *f = rule("udp,nw_dst=10.9.0.0/16", "set_field:0x10->pkt_mark"), *low = rule("any", "set_field:0x20->pkt_mark");

	policy(r1, 0x10, UINT32_MAX, 100);
	f->priority = 10;
	lab_apply();
	lab_expect_ports(a->id, V4, c->id, 0);
	lab_expect_ports(a->id, V6, b->id, 0);
	f->enabled = false;
	lab_apply();
	lab_expect_ports(a->id, V4, b->id, 0);
	lab_expect_trace("; mark 0x20");
	change(low, "set_field:0x10->pkt_mark,output:r1-blue");
	lab_expect_ports(a->id, V4, c->id, 0);
	change(low, "set_field:0x10->pkt_mark,drop");
	lab_expect_drop(a->id, V4, "rule.DROP");
	change(low, "normal,set_field:0x10->pkt_mark,output:a");
	lab_expect_ports(a->id, V4, b->id, 0);
}

// A packet that waits for its neighbour waits for that of its mark.
static void held(void **state)
{
	static const struct config_ip ip = {.b = {10, 2, 0, 77}};

	lab_route(r1, "10.9.0.0/16", ROUTE_UNICAST, "10.2.0.77", NULL)->table = 200;
	lab_route(r1, "10.9.0.0/16", ROUTE_BLACKHOLE)->table = 300;
	policy(r1, 0x200, UINT32_MAX, 200);
	policy(r1, 0, UINT32_MAX, 300); // where it would go without its mark
	rule("udp,tp_dst=7", "set_field:0x200->pkt_mark,mirror:b");
	lab_apply();
	lab_expect_drop(a->id, V4, "router.BLACKHOLE");
	lab_send(a->id, V4 ",tp_dst=7");
	assert_int_equal(lab_count(a->id, COUNT_QUEUED), 1);
	lab_forget_sent();
	neighbour_seen(red->id, &ip, (const uint8_t[]){2, 0, 0, 0, 0, 0x0c}, NEIGHBOUR_SOLICITED | NEIGHBOUR_OVERRIDE, lab.w.now);
	lab_flush();
	assert_int_equal(lab_count(a->id, COUNT_QUEUED), 0);
	const struct lab_sent *s = lab_sent_to(c->id);
	assert_non_null(s);
	assert_memory_equal(s->bytes, "\x02\x00\x00\x00\x00\x0c\x02\x00\x00\x00\x20\x01", 12);
	assert_non_null(lab_sent_to(b->id)); // the mirror's, once it was decided
}

// Who is told of a better next hop would take it for packets without the mark as well.
static void no_redirect(void **state)
{
	struct config_port *d = lab_port("d", VLAN_ACCESS, blue);

	lab_address(d, "02:00:00:00:00:0d");
	lab_ip(d, "10.1.0.254");
	lab_route(r1, "10.9.0.0/16", ROUTE_UNICAST, "10.1.0.254", NULL)->table = 200;
	policy(r1, 0x200, UINT32_MAX, 200);
	rule("udp,tp_dst=7", "set_field:0x200->pkt_mark");
	lab_apply();
	lab_expect_ports(a->id, V4 ",tp_dst=7", d->id, 0);
	lab_route(r1, "10.9.0.2/32", ROUTE_UNICAST, "10.1.0.254", NULL);
	lab_apply();
	lab_send(a->id, FROM_A ",udp,nw_src=10.1.0.10,nw_dst=10.9.0.2,nw_ttl=64");
	assert_non_null(lab_sent_to(a->id)); // as ever
	assert_non_null(lab_sent_to(d->id));
}

// r1 and r2, one behind the other: the second one asks for the mark too.
static void routers(void **state)
{
	struct config_network *link = lab_network("link", 30), *far = lab_network("far", 40);
	struct config_router *r2 = lab_router("r2");
	struct config_port *d = lab_port("d", VLAN_ACCESS, far);

	lab_address(d, "02:00:00:00:00:0d");
	lab_ip(d, "10.4.0.13");
	lab_ip(d, "10.4.0.14");
	lab_router_port("r1-link", r1, link, "02:00:00:00:30:01", "10.3.0.1/24", NULL);
	lab_router_port("r2-link", r2, link, "02:00:00:00:30:02", "10.3.0.2/24", NULL);
	lab_router_port("r2-far", r2, far, "02:00:00:00:40:02", "10.4.0.1/24", NULL);
	lab_route(r1, "10.8.0.0/16", ROUTE_UNICAST, "10.3.0.2", NULL);
	lab_route(r2, "10.8.0.0/16", ROUTE_UNREACHABLE);
	lab_route(r2, "10.8.0.0/16", ROUTE_UNICAST, "10.4.0.13", NULL)->table = 100;
	policy(r2, 0x10, 0xff, 100);
	rule("udp,tp_dst=7", "set_field:0x10->pkt_mark");
	lab_apply();
	lab_pass_ms(10000);
	lab_expect_ports(a->id, FROM_A ",udp,nw_src=10.1.0.10,nw_dst=10.8.0.1,nw_ttl=64,tp_dst=7", d->id, 0);
	lab_expect_trace("mark 0x10, /16 of table 100");
	lab_send(a->id, FROM_A ",udp,nw_src=10.1.0.10,nw_dst=10.8.0.1,nw_ttl=64,tp_dst=8");
	lab_expect_trace("/16 is unreachable");
	assert_null(lab_sent_to(d->id));
}

static void words(void **state)
{
	static const struct {
		const char *text;
		uint32_t value, mask; // mask 0: it can't be
	} rows[] = {
		{"0", 0, UINT32_MAX},
		{"16", 16, UINT32_MAX},
		{"010", 10, UINT32_MAX},
		{"0XfF", 255, UINT32_MAX},
		{"4294967295", UINT32_MAX, UINT32_MAX},
		{"0x10/0xf0", 0x10, 0xf0},
		{"0/1", 0, 1},
		{"", 0, 0},
		{"/", 0, 0},
		{"1/", 0, 0},
		{"/1", 0, 0},
		{"0x", 0, 0},
		{"0x/1", 0, 0},
		{"-1", 0, 0},
		{"+1", 0, 0},
		{" 1", 0, 0},
		{"1 ", 0, 0},
		{"0x-1", 0, 0},
		{"4294967296", 0, 0},
		{"99999999999999999999999999", 0, 0},
		{"1/4294967296", 0, 0},
		{"1/2/3", 0, 0},
		{"0x10/0x0f", 0, 0},
		{"1/0", 0, 0},
		{"0/0", 0, 0},
		{"gold", 0, 0},
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct pkt_mark m = {0};
		char *error = NULL;
		int rc = mark_read(rows[i].text, "mark", &m, &error);

		if (rc != (rows[i].mask ? 0 : -EINVAL) || !rc == (error != NULL) || (!rc && (m.value != rows[i].value || m.mask != rows[i].mask)))
			fail_msg("%s: %d, 0x%x/0x%x, %s", rows[i].text, rc, m.value, m.mask, error ? error : "no error");
		if (error && strncmp(error, "mark: ", 6))
			fail_msg("%s: %s", rows[i].text, error);
		free(error);
	}
}

// Rules that can't be say why; they can't ask for a mark, and no packet comes with one.
static void refused(void **state)
{
	static const char *const bad[][3] = {
		{"any", "set_field:x->pkt_mark", "set_field:x->pkt_mark: a mark is a number of 32 bits"},
		{"any", "set_field:0x100/0xff->pkt_mark,normal", "the mark has bits that its mask leaves out"},
		{"any", "set_field:1/0->pkt_mark", "the mask 0 leaves nothing"},
		{"any", "normal,set_field:1->pkt_mark", "set_field: no output comes behind it"},
		{"any", "output:b,set_field:1->pkt_mark", "set_field: no output comes behind it"},
		{"pkt_mark=1", "normal", "pkt_mark can't be matched: there is one table of rules"},
		{"pkt_mark=1/1", "normal", "pkt_mark can't be matched"},
	};
	uint8_t frame[COMPOSE_MAX];
	char *error = NULL;

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct config_flow *f = rule(bad[i][0], bad[i][1]);

		lab_apply();
		if (!f->error || !strstr(f->error, bad[i][2]))
			fail_msg("%s %s: %s", bad[i][0], bad[i][1], f->error ? f->error : "no error");
	}
	expect_by(b);
	assert_true(compose("udp,pkt_mark=1", &(struct compose_defaults){{2}, {2}}, frame, &error) < 0);
	assert_non_null(strstr(error, "packets come without a mark"));
	free(error);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words),
		cmocka_unit_test_setup_teardown(chooses, setup, teardown),
		cmocka_unit_test_setup_teardown(masks, setup, teardown),
		cmocka_unit_test_setup_teardown(whose, setup, teardown),
		cmocka_unit_test_setup_teardown(held, setup, teardown),
		cmocka_unit_test_setup_teardown(no_redirect, setup, teardown),
		cmocka_unit_test_setup_teardown(routers, setup, teardown),
		cmocka_unit_test_setup_teardown(refused, setup, teardown),
	};
	lab_eal();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
