// router: what is for a router's address is routed, answered or dropped, IPv4 and IPv6; and once it is a cached flow, on the direct way.
#include "lab.h"
#include "adjacency.h"
#include "neighbour_table.h"
#include "router_table.h"

#include <stdio.h>
#include <arpa/inet.h>

#define MAC_BLUE "02:00:00:00:10:01"
#define MAC_RED "02:00:00:00:20:01"
#define TO_BLUE "dl_dst=" MAC_BLUE
#define FROM_A "dl_src=02:00:00:00:00:0a," TO_BLUE

static struct config_network *blue, *red;
static struct config_router *r1;
static struct config_router_port *on_blue, *on_red;
static struct config_port *a, *b, *t;

// a (10.1.0.10, fd01::10) - blue - r1 - red - b (10.2.0.10, fd02::10); t: a trunk of both.
static int setup(void **state)
{
	lab_setup();
	blue = lab_network("blue", 10);
	red = lab_network("red", 20);
	a = lab_port("a", VLAN_ACCESS, blue);
	lab_address(a, "02:00:00:00:00:0a");
	lab_ip(a, "10.1.0.10");
	lab_ip(a, "fd01::10");
	b = lab_port("b", VLAN_ACCESS, red);
	lab_address(b, "02:00:00:00:00:0b");
	lab_ip(b, "10.2.0.10");
	lab_ip(b, "10.2.0.254");
	lab_ip(b, "fd02::10");
	t = lab_port("t", VLAN_TRUNK, NULL);
	r1 = lab_router("r1");
	on_blue = lab_router_port("r1-blue", r1, blue, MAC_BLUE, "10.1.0.1/24", "fd01::1/64", "fe80::1/64", NULL);
	on_red = lab_router_port("r1-red", r1, red, MAC_RED, "10.2.0.1/24", "fd02::1/64", "fe80::2/64", NULL);
	lab_apply();
	lab_pass_ms(10000); // duplicate address detection, and announcements
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

static const uint8_t *sent(void)
{
	assert_int_equal(lab.n_sent, 1);
	return lab.sent[0].bytes;
}

// The frame that left, from the router to b.
static void check_routed(const uint8_t *d, bool v6, uint8_t ttl)
{
	static const uint8_t macs[12] = {2, 0, 0, 0, 0, 0x0b, 2, 0, 0, 0, 0x20, 1};

	assert_memory_equal(d, macs, 12);
	assert_int_equal(d[14 + (v6 ? 7 : 8)], ttl);
	if (!v6)
		assert_true(adjacency_sum_right(d + 14));
}

static void from_network_to_network(void **state)
{
	for (int traced = 1; traced >= 0; traced--) {
		lab.traced = traced;
		for (int i = 0; i < 3; i++) {
			lab_send(a->id, FROM_A ",udp,nw_src=10.1.0.10,nw_dst=10.2.0.10,nw_ttl=64");
			check_routed(sent(), false, 63);
			assert_int_equal(lab.sent[0].port, b->id);
			lab_send(a->id, FROM_A ",tcp6,ipv6_src=fd01::10,ipv6_dst=fd02::10,nw_ttl=9");
			check_routed(sent(), true, 8);
		}
		if (traced) {
			lab_send(a->id, FROM_A ",udp,nw_src=10.1.0.10,nw_dst=10.2.0.10,nw_ttl=64");
			lab_expect_trace("router     r1 at r1-blue: to 10.2.0.10, /24 is unicast by r1-red, neighbour 02:00:00:00:00:0b\n");
			lab_expect_trace("output to b");
			lab_expect_trace("change     dl_dst " MAC_BLUE " -> 02:00:00:00:00:0b, dl_src 02:00:00:00:00:0a -> " MAC_RED ", nw_ttl 64 -> 63\n");
		}
	}
	// The direct way, on a flow that says so.
	struct flow_view v;
	unsigned direct = 0;
	for (uint32_t i = 0; i < flow_table_high(lab.w.flows); i++)
		direct += flow_table_read(lab.w.flows, i, &v) && v.key.port == a->id && v.flow.adj && v.flow.flags & FLOW_DIRECT;
	assert_int_equal(direct, 2);
	// Tags follow the network that the packet goes into.
	lab.traced = true;
	lab_send(t->id, "dl_vlan=10,dl_src=02:00:00:00:00:0c," TO_BLUE ",udp,nw_src=10.1.0.12,nw_dst=10.2.0.10,nw_ttl=64");
	check_routed(sent(), false, 63);
}

static void pings(void **state)
{
	static const uint8_t back[12] = {2, 0, 0, 0, 0, 0x0a, 2, 0, 0, 0, 0x10, 1};

	lab_send(a->id, FROM_A ",icmp,icmp_type=8,nw_src=10.1.0.10,nw_dst=10.1.0.1,nw_ttl=1");
	lab_expect_trace("answer the ping");
	assert_int_equal(lab.sent[0].port, a->id);
	assert_memory_equal(sent(), back, 12);
	assert_int_equal(lab.sent[0].bytes[34], 0);
	lab_send(a->id, FROM_A ",icmp,icmp_type=8,nw_src=10.1.0.10,nw_dst=10.2.0.1"); // the far side of the router
	assert_int_equal(sent()[34], 0);
	lab_send(a->id, FROM_A ",icmp6,icmpv6_type=128,ipv6_src=fd01::10,ipv6_dst=fd02::1");
	assert_int_equal(sent()[54], 129);
	lab_send(a->id, FROM_A ",icmp6,icmpv6_type=128,ipv6_src=fe80::10,ipv6_dst=fe80::1");
	assert_int_equal(sent()[54], 129);
	lab_send(t->id, "dl_vlan=10,dl_src=02:00:00:00:00:0c," TO_BLUE ",icmp,icmp_type=8,nw_src=10.1.0.12,nw_dst=10.1.0.1");
	assert_int_equal(lab.sent[0].port, t->id);
	assert_int_equal(sent()[15], 10);
	assert_int_equal(sent()[38], 0);
	assert_int_equal(lab_count(a->id, COUNT_CONSUMED), 4);
	assert_int_equal(lab_count(a->id, COUNT_GENERATED), 4);
	lab_expect_drop(a->id, FROM_A ",icmp,icmp_type=13,nw_src=10.1.0.10,nw_dst=10.1.0.1", "router.NOT_SERVED");
}

static void expect_error(const char *text, const char *reason, unsigned at, uint8_t type, uint8_t code)
{
	uint64_t before = lab_drops(a->id, reason);

	lab_send(a->id, text);
	if (lab.n_sent != 1 || lab.sent[0].port != a->id || lab.sent[0].bytes[at] != type || lab.sent[0].bytes[at + 1] != code)
		fail_msg("%s: %u sent, type %u code %u\n%s", text, lab.n_sent, lab.n_sent ? lab.sent[0].bytes[at] : 0,
			 lab.n_sent ? lab.sent[0].bytes[at + 1] : 0, lab.trace);
	assert_int_equal(lab_drops(a->id, reason), before + 1);
}

#define V4 FROM_A ",udp,nw_src=10.1.0.10,nw_dst="
#define V6 FROM_A ",udp6,ipv6_src=fd01::10,ipv6_dst="

static void errors(void **state)
{
	lab_route(r1, "10.9.0.0/16", ROUTE_UNREACHABLE);
	lab_route(r1, "10.8.0.0/16", ROUTE_PROHIBIT);
	lab_route(r1, "fd08::/16", ROUTE_PROHIBIT);
	lab_route(r1, "10.7.0.0/16", ROUTE_BLACKHOLE);
	lab_apply();
	expect_error(V4 "10.2.0.10,nw_ttl=1", "router.TTL", 34, 11, 0);
	lab_expect_trace("TTL is used up: time exceeded");
	expect_error(V6 "fd02::10,nw_ttl=1", "router.TTL", 54, 3, 0);
	expect_error(V4 "10.99.0.1", "router.NO_ROUTE", 34, 3, 0);
	expect_error(V6 "fd99::1", "router.NO_ROUTE", 54, 1, 0);
	expect_error(V4 "10.9.0.1", "router.UNREACHABLE", 34, 3, 1);
	expect_error(V4 "10.8.0.1", "router.PROHIBITED", 34, 3, 13);
	expect_error(V6 "fd08::1", "router.PROHIBITED", 54, 1, 1);
	expect_error(V4 "10.1.0.1", "router.NOT_SERVED", 34, 3, 3);
	expect_error(FROM_A ",ip,nw_proto=89,nw_src=10.1.0.10,nw_dst=10.1.0.1", "router.NOT_SERVED", 34, 3, 2);
	expect_error(FROM_A ",udp6,ipv6_src=fe80::10,ipv6_dst=fd02::10", "router.LINK_LOCAL", 54, 1, 2);
	lab_expect_drop(a->id, V4 "10.7.0.1", "router.BLACKHOLE");
	// From the address of the network that the packet came from.
	lab_send(a->id, V4 "10.99.0.1");
	assert_memory_equal(lab.sent[0].bytes + 26, "\x0a\x01\x00\x01\x0a\x01\x00\x0a", 8);
	// Of what was for an address of its own: that address, also if it is of the other network.
	lab_send(a->id, V4 "10.2.0.1");
	assert_memory_equal(lab.sent[0].bytes + 26, "\x0a\x02\x00\x01\x0a\x01\x00\x0a\x03\x03", 10);
}

static void not_routed(void **state)
{
	static const char *const martians[] = {V4 "127.0.0.1", V4 "0.1.2.3", V4 "240.0.0.1", V4 "224.0.0.5", V6 "::1", V6 "ff0e::1",
					       FROM_A ",udp,nw_src=127.0.0.1,nw_dst=10.2.0.10", FROM_A ",udp,nw_src=224.0.0.1,nw_dst=10.2.0.10",
					       FROM_A ",udp6,ipv6_src=::1,ipv6_dst=fd02::10"};

	for (unsigned i = 0; i < sizeof martians / sizeof martians[0]; i++)
		lab_expect_drop(a->id, martians[i], "router.MARTIAN");
	lab_expect_drop(a->id, V4 "169.254.1.1", "router.LINK_LOCAL");
	lab_expect_drop(a->id, V6 "fe80::99", "router.LINK_LOCAL");
	lab_expect_drop(a->id, V4 "10.2.0.255", "router.DIRECTED_BROADCAST");
	lab_expect_drop(a->id, FROM_A ",dl_type=0x1234", "router.NOT_IP");

	uint8_t frame[LAB_FRAME];
	uint32_t len = lab_compose(frame, FROM_A ",ip,nw_proto=89,nw_src=10.1.0.10,nw_dst=10.2.0.10,packet_len=100");
	memmove(frame + 46, frame + 34, len - 46); // a loose source route
	frame[14] = 0x48;
	memcpy(frame + 34, "\x83\x0b\x04\x0a\x02\x00\x63\x0a\x02\x00\x64\x00", 12);
	lab_expect_drop_frame(a->id, frame, len, "router.SOURCE_ROUTE");
	len = lab_compose(frame, V4 "10.2.0.10");
	frame[24] ^= 0xff;
	lab_expect_drop_frame(a->id, frame, len, "flow.CHECKSUM");
}

// The neighbour is asked for, the packet waits, and goes on when the answer is there. Another one doesn't answer.
static void neighbours(void **state)
{
	lab_send(a->id, V4 "10.2.0.77,nw_ttl=64");
	assert_int_equal(lab_count(a->id, COUNT_QUEUED), 1);
	const struct lab_sent *ask = lab_sent_to(b->id);
	assert_non_null(ask);
	assert_memory_equal(ask->bytes + 12, "\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01\x02\x00\x00\x00\x20\x01\x0a\x02\x00\x01", 20);
	static const struct config_ip ip = {.b = {10, 2, 0, 77}};
	lab_forget_sent();
	neighbour_seen(red->id, &ip, (const uint8_t[]){2, 0, 0, 0, 0, 0x77}, NEIGHBOUR_SOLICITED | NEIGHBOUR_OVERRIDE, lab.w.now);
	lab_flush();
	assert_int_equal(lab_count(a->id, COUNT_QUEUED), 0);
	const struct lab_sent *s = lab_sent_to(b->id);
	assert_non_null(s);
	assert_memory_equal(s->bytes, "\x02\x00\x00\x00\x00\x77\x02\x00\x00\x00\x20\x01", 12);
	lab_send(a->id, V4 "10.2.0.78");
	lab_forget_sent();
	lab_pass_ms(5000);
	assert_int_equal(lab_drops(a->id, "router.NO_NEIGHBOUR"), 1);
	const uint8_t *error = NULL;
	for (unsigned i = 0; i < lab.n_sent; i++)
		if (lab.sent[i].port == a->id && lab.sent[i].bytes[12] == 8 && !lab.sent[i].bytes[13])
			error = lab.sent[i].bytes + 34;
	assert_non_null(error);
	assert_int_equal(error[0] << 8 | error[1], 3 << 8 | 1); // host unreachable
}

// r1 - link - r2 - far: two routers of one switch are passed in one decision.
static void router_behind_router(void **state)
{
	struct config_network *link = lab_network("link", 30), *far = lab_network("far", 40);
	struct config_router *r2 = lab_router("r2");
	struct config_port *c = lab_port("c", VLAN_ACCESS, far);

	lab_address(c, "02:00:00:00:00:0c");
	lab_ip(c, "10.4.0.10");
	lab_router_port("r1-link", r1, link, "02:00:00:00:30:01", "10.3.0.1/24", NULL);
	lab_router_port("r2-link", r2, link, "02:00:00:00:30:02", "10.3.0.2/24", NULL);
	lab_router_port("r2-far", r2, far, "02:00:00:00:40:02", "10.4.0.1/24", NULL);
	lab_route(r1, "10.4.0.0/16", ROUTE_UNICAST, "10.3.0.2", NULL);
	lab_route(r1, "10.5.0.0/16", ROUTE_UNICAST, "10.3.0.2", NULL);
	lab_route(r2, "10.5.0.0/16", ROUTE_UNICAST, "10.3.0.1", NULL);
	lab_apply();
	lab_send(a->id, V4 "10.4.0.10,nw_ttl=64");
	assert_memory_equal(sent(), "\x02\x00\x00\x00\x00\x0c\x02\x00\x00\x00\x40\x02", 12);
	assert_int_equal(lab.sent[0].bytes[22], 62);
	assert_true(adjacency_sum_right(lab.sent[0].bytes + 14));
	lab_send(a->id, V4 "10.4.0.10,nw_ttl=2"); // r2 says so, with its address there
	assert_int_equal(lab_drops(a->id, "router.TTL"), 1);
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab.sent[0].port, a->id);
	assert_memory_equal(sent(), "\x02\x00\x00\x00\x00\x0a\x02\x00\x00\x00\x10\x01", 12);
	assert_memory_equal(sent() + 26, "\x0a\x03\x00\x02\x0a\x01\x00\x0a\x0b\x00", 10);
	lab_expect_drop(a->id, V4 "10.5.0.1", "router.LOOP");
}

// What the second router looks at counts for flows that come by the first one: ports for its next hops, the DSCP for its policies.
static void what_the_second_router_reads(void **state)
{
	struct config_network *link = lab_network("link", 30), *far = lab_network("far", 40);
	struct config_router *r2 = lab_router("r2");
	struct config_port *c = lab_port("c", VLAN_ACCESS, far), *d = lab_port("d", VLAN_ACCESS, far);
	struct config_route *route;
	unsigned by_c = 0, by_d = 0;
	char text[200];

	lab_address(c, "02:00:00:00:00:0c");
	lab_ip(c, "10.4.0.10");
	lab_address(d, "02:00:00:00:00:0d");
	lab_ip(d, "10.4.0.11");
	lab_router_port("r1-link", r1, link, "02:00:00:00:30:01", "10.3.0.1/24", NULL);
	lab_router_port("r2-link", r2, link, "02:00:00:00:30:02", "10.3.0.2/24", NULL);
	lab_router_port("r2-far", r2, far, "02:00:00:00:40:02", "10.4.0.1/24", NULL);
	lab_route(r1, "10.0.0.0/8", ROUTE_UNICAST, "10.3.0.2", NULL);
	lab_route(r2, "10.6.0.0/16", ROUTE_UNICAST, "10.4.0.10", "10.4.0.11", NULL);
	lab_route(r2, "10.7.0.0/16", ROUTE_UNICAST, "10.4.0.10", NULL);
	route = lab_route(r2, "10.7.0.0/16", ROUTE_UNICAST, "10.4.0.11", NULL);
	route->table = 9;
	lab.config->policies = calloc(1, sizeof *lab.config->policies);
	lab.config->n_policies = 1;
	lab.config->policies[0] = (struct config_route_policy){.row = {.b = {77}}, .router = r2->row, .dscp = 46, .type = ROUTE_UNICAST, .table = 9};
	lab_apply();
	lab.traced = false;
	for (unsigned i = 0; i < 64; i++) {
		snprintf(text, sizeof text, V4 "10.6.0.1,tp_src=%u,nw_ttl=9", 1000 + i);
		lab_send(a->id, text);
		by_c += lab_sent_to(c->id) != NULL;
		by_d += lab_sent_to(d->id) != NULL;
	}
	assert_int_equal(by_c + by_d, 64);
	assert_true(by_c > 16 && by_d > 16);
	for (unsigned i = 0; i < 4; i++) {
		snprintf(text, sizeof text, V4 "10.7.0.1,nw_ttl=9,nw_tos=%u", i % 2 ? 46 << 2 : 0);
		lab_send(a->id, text);
		assert_non_null(lab_sent_to(i % 2 ? d->id : c->id));
	}
}

// The next hop is in the sender's own network: its packet goes there, and it is told, once a second.
static void redirects(void **state)
{
	struct config_port *c = lab_port("c", VLAN_ACCESS, blue);

	lab_address(c, "02:00:00:00:00:0c");
	lab_ip(c, "10.1.0.254");
	lab_ip(c, "fd01::254");
	lab_route(r1, "10.6.0.0/16", ROUTE_UNICAST, "10.1.0.254", NULL);
	lab_route(r1, "fd06::/16", ROUTE_UNICAST, "fd01::254", NULL);
	lab_apply();
	for (int i = 0; i < 4; i++) {
		const char *text = i < 2 ? V4 "10.6.0.1,nw_ttl=64" : V6 "fd06::1,nw_ttl=64";
		unsigned at = i < 2 ? 34 : 54;

		lab_send(a->id, text);
		const struct lab_sent *on = lab_sent_to(c->id), *told = lab_sent_to(a->id);
		assert_non_null(on);
		assert_memory_equal(on->bytes, "\x02\x00\x00\x00\x00\x0c\x02\x00\x00\x00\x10\x01", 12);
		assert_int_equal(told != NULL, i % 2 == 0);
		if (told)
			assert_int_equal(told->bytes[at], i < 2 ? 5 : 137);
		if (told && i < 2)
			assert_memory_equal(told->bytes + 38, "\x0a\x01\x00\xfe", 4);
		if (i == 1)
			lab_advance_ms(1000);
	}
	assert_int_equal(lab_count(a->id, COUNT_COPIES), 2);
}

// An IPv4 packet left by the port, whatever else did.
static bool sent_on_to(uint16_t port)
{
	for (unsigned i = 0; i < lab.n_sent; i++)
		if (lab.sent[i].port == port && lab.sent[i].bytes[12] == 8 && !lab.sent[i].bytes[13])
			return true;
	return false;
}

// Two next hops share the flows; when the link of the one goes down, all go to the other at once, and back.
static void next_hop_dies(void **state)
{
	struct config_port *c = lab_port("c", VLAN_ACCESS, red);
	unsigned by_b = 0, by_c = 0;
	char text[160];

	lab_address(c, "02:00:00:00:00:0c");
	lab_ip(c, "10.2.0.253");
	lab_route(r1, "10.6.0.0/16", ROUTE_UNICAST, "10.2.0.254", "10.2.0.253", NULL);
	lab_apply();
	for (unsigned round = 0; round < 4; round++) {
		by_b = by_c = 0;
		if (round == 1)
			router_link(c->id, false);
		if (round == 2) { // it is asked, and says so
			router_link(c->id, true);
			lab_pass_ms(200);
			assert_non_null(lab_sent_to(c->id));
			neighbour_seen(red->id, &(struct config_ip){.b = {10, 2, 0, 253}}, (uint8_t[]){2, 0, 0, 0, 0, 0x0c}, NEIGHBOUR_SOLICITED, lab.w.now);
		}
		if (round == 3) {
			c->enabled = false;
			lab_apply();
		}
		for (unsigned i = 0; i < 64; i++) {
			snprintf(text, sizeof text, V4 "10.6.0.1,tp_src=%u,nw_ttl=9", 1000 + i);
			lab_send(a->id, text);
			by_b += sent_on_to(b->id);
			by_c += sent_on_to(c->id);
		}
		assert_int_equal(by_b + by_c, 64);
		assert_true(round % 2 ? by_b == 64 : by_b > 16 && by_c > 16);
	}
	lab_expect_trace("one of 2 next hops");
	assert_int_equal(lab_drops(a->id, "output.DISABLED"), 0);
}

static void wrong_rows(void **state)
{
	struct config_router_port *mac = lab_router_port("x", r1, blue, MAC_BLUE, "10.3.0.1/24", NULL);
	struct config_router_port *prefix = lab_router_port("y", r1, red, "02:00:00:00:20:02", "10.1.0.5/25", NULL);

	lab_apply();
	assert_string_equal(mac->error, "mac: router port r1-blue has the same address in the same network");
	assert_string_equal(prefix->error, "addresses: 10.1.0.5/25 overlaps a prefix of router port r1-blue");
	from_network_to_network(state); // nothing else is hurt
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(from_network_to_network, setup, teardown),
		cmocka_unit_test_setup_teardown(pings, setup, teardown),
		cmocka_unit_test_setup_teardown(errors, setup, teardown),
		cmocka_unit_test_setup_teardown(not_routed, setup, teardown),
		cmocka_unit_test_setup_teardown(neighbours, setup, teardown),
		cmocka_unit_test_setup_teardown(router_behind_router, setup, teardown),
		cmocka_unit_test_setup_teardown(what_the_second_router_reads, setup, teardown),
		cmocka_unit_test_setup_teardown(redirects, setup, teardown),
		cmocka_unit_test_setup_teardown(next_hop_dies, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong_rows, setup, teardown),
	};
	lab_eal();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
