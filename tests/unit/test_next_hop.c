// next hops: those that die without a word are found out by questions, on the clock of the test, and left; those that answer
// again are used again.
#include "lab.h"
#include "neighbour_private.h"
#include "neighbour_wire.h"
#include "route_table.h"
#include "router_table.h"

#include <arpa/inet.h>
#include <stdio.h>

#define MAC_BLUE "02:00:00:00:10:01"
#define V4 "dl_src=02:00:00:00:00:0a,dl_dst=" MAC_BLUE ",udp,nw_src=10.1.0.10,nw_ttl=9,nw_dst="
#define V6 "dl_src=02:00:00:00:00:0a,dl_dst=" MAC_BLUE ",udp6,ipv6_src=fd01::10,nw_ttl=9,ipv6_dst="
#define DEAD_MS 2100 // with the default interval: 1000, three times 250, and each on the next 100 ms of the wheel
#define BACK_MS 4100

// A station that answers questions for addresses that end with `last`, while it lives.
static struct station_ {
	struct config_port *port;
	uint8_t mac[6];
	uint8_t last;
	bool lives;
	unsigned asked;
} b, c;
static struct config_network *blue, *red;
static struct config_router *r1;
static struct config_router_port *on_red;
static struct config_port *a;

static bool is_question(const uint8_t *d, uint32_t len, struct config_ip *for_whom)
{
	if (len >= 42 && d[12] == 8 && d[13] == 6 && d[21] == 1) {
		*for_whom = (struct config_ip){.v6 = false};
		memcpy(for_whom->b, d + 38, 4);
		return memcmp(d + 28, d + 38, 4) != 0; // no announcement
	}
	if (len < 78 || d[12] != 0x86 || d[20] != 58 || d[54] != 135)
		return false;
	*for_whom = (struct config_ip){.v6 = true};
	memcpy(for_whom->b, d + 62, 16);
	return true;
}

static void answer(struct station_ *s, const struct config_ip *ip)
{
	struct config_ip router = {.v6 = ip->v6, .b = {10, 2, 0, 1}};
	uint8_t f[NEIGHBOUR_FRAME];

	if (ip->v6)
		inet_pton(AF_INET6, "fd02::1", router.b);
	uint16_t len = neighbour_announce(f, s->mac, s->mac, ip, false, on_red->mac, &router);
	if (ip->v6) { // solicited: another flag, and so another sum (RFC 1624)
		uint32_t sum = (uint32_t)(f[56] << 8 | f[57]) + 0xffff - 0x4000;

		sum = (sum & 0xffff) + (sum >> 16);
		f[58] |= 0x40;
		f[56] = (uint8_t)(sum >> 8);
		f[57] = (uint8_t)sum;
	}
	lab_send_frame(s->port->id, f, len);
}

static void stations_hear(void)
{
	struct {
		struct station_ *s;
		struct config_ip ip;
	} heard[64];
	unsigned n = 0;

	for (unsigned i = 0; i < lab.n_sent; i++) {
		struct station_ *s = lab.sent[i].port == b.port->id ? &b : lab.sent[i].port == c.port->id ? &c : NULL;
		struct config_ip ip;

		if (!s || !is_question(lab.sent[i].bytes, lab.sent[i].len, &ip) || ip.b[ip.v6 ? 15 : 3] != s->last)
			continue;
		s->asked++;
		if (s->lives && n < 64) {
			heard[n].s = s;
			heard[n++].ip = ip;
		}
	}
	lab_forget_sent();
	for (unsigned i = 0; i < n; i++)
		answer(heard[i].s, &heard[i].ip);
}

static void pass_ms(unsigned ms)
{
	for (; ms; ms -= 100) {
		lab_advance_ms(100);
		lab_forget_sent();
		stages_tick(lab.w.now);
		lab_flush();
		stations_hear();
		stages_tick(lab.w.now); // what they said
		lab_flush();
		rcu_poll();
	}
	lab_forget_sent();
}

// a (10.1.0.10) - blue - r1 - red - b (10.2.0.254, fd02::fe), c (10.2.0.253, fd02::fd)
static int setup(void **state)
{
	lab_setup();
	blue = lab_network("blue", 10);
	red = lab_network("red", 20);
	a = lab_port("a", VLAN_ACCESS, blue);
	lab_address(a, "02:00:00:00:00:0a");
	lab_ip(a, "10.1.0.10");
	b = (struct station_){lab_port("b", VLAN_ACCESS, red), {2, 0, 0, 0, 0, 0x0b}, 254, .lives = true};
	c = (struct station_){lab_port("c", VLAN_ACCESS, red), {2, 0, 0, 0, 0, 0x0c}, 253, .lives = true};
	r1 = lab_router("r1");
	lab_router_port("r1-blue", r1, blue, MAC_BLUE, "10.1.0.1/24", "fd01::1/64", "fe80::1/64", NULL);
	on_red = lab_router_port("r1-red", r1, red, "02:00:00:00:20:01", "10.2.0.1/16", "fd02::1/64", "fe80::2/64", NULL);
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

static void ready(void)
{
	lab_apply();
	pass_ms(10000);
}

// How many of 32 flows go to each.
static void flows(bool v6, unsigned *by_b, unsigned *by_c)
{
	char text[200];

	*by_b = *by_c = 0;
	for (unsigned i = 0; i < 32; i++) {
		snprintf(text, sizeof text, "%s,tp_src=%u", v6 ? V6 "fd07::7" : V4 "10.7.0.7", 1000 + i);
		lab_send(a->id, text);
		const struct lab_sent *to_b = lab_sent_to(b.port->id), *to_c = lab_sent_to(c.port->id);
		*by_b += to_b && !memcmp(to_b->bytes, b.mac, 6);
		*by_c += to_c && !memcmp(to_c->bytes, c.mac, 6);
	}
}

static void expect_flows(bool v6, bool with_b, bool with_c)
{
	unsigned by_b, by_c;

	flows(v6, &by_b, &by_c);
	assert_int_equal(by_b + by_c, 32);
	assert_int_equal(by_b > 0, with_b);
	assert_int_equal(by_c > 0, with_c);
}

// Milliseconds of the clock until all flows go as they should; `limit` and no more.
static unsigned until(bool v6, bool with_b, bool with_c, unsigned limit)
{
	for (unsigned ms = 0;; ms += 100) {
		unsigned by_b, by_c;

		flows(v6, &by_b, &by_c);
		assert_int_equal(by_b + by_c, 32); // nothing is held, nothing is refused
		if ((by_b > 0) == with_b && (by_c > 0) == with_c)
			return ms;
		assert_true(ms < limit);
		pass_ms(100);
	}
}

static void one_of_several(void **state)
{
	lab_route(r1, "10.7.0.0/16", ROUTE_UNICAST, "10.2.0.254", "10.2.0.253", NULL);
	lab_route(r1, "fd07::/16", ROUTE_UNICAST, "fd02::fe", "fd02::fd", NULL);
	lab.traced = false;
	ready();
	for (int v6 = 0; v6 < 2; v6++) {
		pass_ms(BACK_MS);
		expect_flows(v6, true, true);
		c.lives = false;
		unsigned left = until(v6, true, false, DEAD_MS);
		assert_true(left >= 600); // not at the first question that is lost
		pass_ms(20000);
		expect_flows(v6, true, false);
		c.lives = true;
		unsigned back = until(v6, true, true, BACK_MS);
		print_message("IPv%d: left after %u ms, back after %u ms\n", v6 ? 6 : 4, left, back);
	}
	lab.traced = true;
	lab_send(a->id, V4 "10.7.0.7,tp_src=1000");
	lab_expect_trace("one of 2 next hops");
	assert_int_equal(lab_all_drops(a->id), 0);
}

static void the_next_metric(void **state)
{
	struct config_route *first = lab_route(r1, "10.7.0.0/16", ROUTE_UNICAST, "10.2.0.253", NULL);
	struct config_route *second = lab_route(r1, "10.7.0.0/16", ROUTE_UNICAST, "10.2.0.254", NULL);

	first->metric = 10;
	second->metric = 20;
	ready();
	lab.traced = false;
	expect_flows(false, false, true);
	assert_true(b.asked > 5); // it is known before it is needed
	c.lives = false;
	until(false, true, false, DEAD_MS);
	b.lives = false;
	pass_ms(1000); // both are silent, but nobody knows better yet
	expect_flows(false, true, false);
	b.lives = true;
	pass_ms(1500);
	c.lives = true;
	until(false, false, true, BACK_MS);
}

// There is no other: it is used while RFC 4861 says that it may be there.
static void the_only_one(void **state)
{
	lab_route(r1, "10.7.0.0/16", ROUTE_UNICAST, "10.2.0.253", NULL);
	ready();
	c.lives = false;
	pass_ms(DEAD_MS);
	lab_send(a->id, V4 "10.7.0.7");
	lab_expect_trace("via 10.2.0.253, neighbour 02:00:00:00:00:0c");
	pass_ms(6500);
	lab_send(a->id, V4 "10.7.0.7");
	lab_expect_trace("the next hop doesn't answer: host unreachable");
	assert_int_equal(lab_drops(a->id, "router.NO_NEIGHBOUR"), 1);
	c.asked = 0;
	pass_ms(24000); // once in three to four seconds
	assert_in_range(c.asked, 6, 8);
	c.lives = true;
	pass_ms(BACK_MS);
	lab_send(a->id, V4 "10.7.0.7");
	lab_expect_trace("via 10.2.0.253, neighbour 02:00:00:00:00:0c");
}

// NULL: the default.
static void set_probe_ms(const char *text)
{
	struct config_map *map = &on_red->other_config;

	if (!map->pair) {
		map->pair = calloc(1, sizeof *map->pair);
		map->pair[0].key = strdup("next-hop-probe-ms");
	}
	free(map->pair[0].value);
	map->pair[0].value = strdup(text ? text : "1000");
	map->n = 1;
	lab_apply();
}

static void intervals(void **state)
{
	lab_route(r1, "10.7.0.0/16", ROUTE_UNICAST, "10.2.0.254", "10.2.0.253", NULL);
	lab.traced = false;
	ready();
	set_probe_ms("200");
	c.asked = 0;
	pass_ms(10000);
	assert_in_range(c.asked, 33, 100);
	c.lives = false;
	until(false, true, false, 700);
	c.lives = true;
	until(false, true, true, BACK_MS);
	// 0: as every neighbour. It is asked when it was used and has been taken for granted for 15 to 45 seconds.
	set_probe_ms("0");
	pass_ms(1000);
	c.asked = 0;
	pass_ms(14000);
	assert_int_equal(c.asked, 0);
	c.lives = false;
	assert_true(until(false, true, false, 56000) > 5000);
	pass_ms(60000);
	c.lives = true; // though nobody sends to it
	until(false, true, true, BACK_MS);
	set_probe_ms(NULL);
	c.lives = false;
	until(false, true, false, DEAD_MS);
}

// Hosts that are no next hops are asked when they are used, as ever; next hops of routes that go are no longer asked.
static void mere_neighbours(void **state)
{
	struct config_ip ip = {.b = {10, 2, 0, 253}};
	struct config_route *route = lab_route(r1, "10.7.0.0/16", ROUTE_UNICAST, "10.2.0.254", NULL);

	ready();
	neighbour_want(on_red->id, &ip);
	lab_flush();
	stations_hear();
	stages_tick(lab.w.now);
	assert_int_equal(neighbour_get(on_red->id, &ip)->state, NEIGHBOUR_REACHABLE);
	c.asked = b.asked = 0;
	pass_ms(14000);
	assert_int_equal(c.asked, 0);
	assert_in_range(b.asked, 11, 20);
	assert_false(neighbour_is_watched(on_red->id, &ip));
	route->type = ROUTE_BLACKHOLE;
	route->n_hops = 0;
	lab_apply();
	pass_ms(2000);
	b.asked = 0;
	pass_ms(10000);
	assert_int_equal(b.asked, 0);
}

// What the operator says of a station tells where it is, not that it lives.
static void of_given_addresses(void **state)
{
	lab_address(c.port, "02:00:00:00:00:0c");
	lab_ip(c.port, "10.2.0.253");
	lab_route(r1, "10.7.0.0/16", ROUTE_UNICAST, "10.2.0.254", "10.2.0.253", NULL);
	lab.traced = false;
	ready();
	expect_flows(false, true, true);
	c.lives = false;
	until(false, true, false, DEAD_MS);
	pass_ms(30000);
	c.lives = true;
	until(false, true, true, BACK_MS);
	c.lives = false;
	until(false, true, false, DEAD_MS);
	set_probe_ms("0"); // nobody asks it any more
	until(false, true, true, 200);
}

// Another router of the switch is passed without asking.
static void routers_of_the_switch(void **state)
{
	struct config_router *r2 = lab_router("r2");

	lab_route(r1, "10.7.0.0/16", ROUTE_UNICAST, "10.2.0.9", NULL);
	lab_route(r2, "10.7.0.0/16", ROUTE_UNICAST, "10.2.0.254", NULL);
	ready();
	pass_ms(10000);
	lab_send(a->id, V4 "10.7.0.7"); // nobody has it yet
	lab_expect_trace("the next hop doesn't answer");
	lab_router_port("r2-red", r2, red, "02:00:00:00:20:02", "10.2.0.9/16", NULL);
	lab_apply();
	pass_ms(10000);
	lab_send(a->id, V4 "10.7.0.7");
	lab_expect_trace("neighbour 02:00:00:00:00:0b");
	assert_null(neighbour_get(on_red->id, &(struct config_ip){.b = {10, 2, 0, 9}}));
}

// Many of them are asked in turn, and leave room for what packets ask for.
static void many(void **state)
{
	struct config_ip ip = {.b = {10, 2}};
	unsigned n = 12000, most = 0, asked = 0, dead = 0;

	lab.traced = false;
	lab_apply();
	pass_ms(10000);
	for (unsigned i = 0; i < n; i++) {
		ip.b[2] = (uint8_t)(1 + i / 200);
		ip.b[3] = (uint8_t)(i % 200);
		neighbour_watch(on_red->id, &ip, true);
	}
	for (unsigned s = 0; s < 120; s++) { // all of them are silent
		unsigned now = 0;

		for (unsigned i = 0; i < 10; i++) {
			struct config_ip whom;

			lab_forget_sent();
			lab_advance_ms(100);
			stages_tick(lab.w.now);
			lab_flush();
			rcu_poll();
			for (unsigned k = 0; k < lab.n_sent; k++)
				now += lab.sent[k].port == b.port->id && is_question(lab.sent[k].bytes, lab.sent[k].len, &whom);
		}
		most = now > most ? now : most;
		asked += now;
	}
	for (uint32_t i = 0; i < neighbour_high(); i++)
		dead += neighbour_entries[i].state == NEIGHBOUR_FAILED;
	print_message("%u next hops, none of which is there: %u questions a second at most, %u in the mean, %u have failed\n",
		      n, most, asked / 120, dead);
	assert_true(most < 3000);
	assert_true(neighbour_own(on_red->id)->n <= NEIGHBOUR_PORT_MAX / 2);
	for (unsigned i = 0; i < n; i++) {
		ip.b[2] = (uint8_t)(1 + i / 200);
		ip.b[3] = (uint8_t)(i % 200);
		neighbour_watch(on_red->id, &ip, false);
	}
	pass_ms(20000);
	assert_int_equal(neighbour_own(on_red->id)->n, 0);
}

static void watches_are_counted(void **state)
{
	struct config_ip ip = {.b = {10, 2, 9, 9}};

	lab_apply();
	for (unsigned i = 0; i < 3; i++)
		neighbour_watch(on_red->id, &ip, true);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(neighbour_is_watched(on_red->id, &ip));
		neighbour_watch(on_red->id, &ip, false);
	}
	assert_false(neighbour_is_watched(on_red->id, &ip));
	neighbour_watch(on_red->id, &ip, false); // one too many
	assert_false(neighbour_is_watched(on_red->id, &ip));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(one_of_several, setup, teardown),
		cmocka_unit_test_setup_teardown(the_next_metric, setup, teardown),
		cmocka_unit_test_setup_teardown(the_only_one, setup, teardown),
		cmocka_unit_test_setup_teardown(intervals, setup, teardown),
		cmocka_unit_test_setup_teardown(mere_neighbours, setup, teardown),
		cmocka_unit_test_setup_teardown(of_given_addresses, setup, teardown),
		cmocka_unit_test_setup_teardown(routers_of_the_switch, setup, teardown),
		cmocka_unit_test_setup_teardown(many, setup, teardown),
		cmocka_unit_test_setup_teardown(watches_are_counted, setup, teardown),
	};
	lab_eal();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
