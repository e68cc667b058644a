// multicast: who gets what for a group, and what IGMP and MLD do to it, with a clock moved by hand.
#include "group_message.h"
#include "lab.h"
#include "punt.h"

#include <arpa/inet.h>
#include <stdio.h>

static struct config_network *blue;
static struct config_port *port[6]; // a, b, c, d, router, trunk
static uint16_t a, b, c, d, router, trunk;
static const uint8_t mac[6] = {2, 0, 0, 0, 0, 0x77};

static void set(struct config_map *m, const char *key, const char *value)
{
	for (size_t i = 0; i < m->n; i++) {
		if (strcmp(m->pair[i].key, key))
			continue;
		free(m->pair[i].value);
		m->pair[i].value = strdup(value);
		return;
	}
	size_t at = 0;
	while (at < m->n && strcmp(m->pair[at].key, key) < 0)
		at++;
	m->pair = realloc(m->pair, (m->n + 1) * sizeof *m->pair);
	memmove(&m->pair[at + 1], &m->pair[at], (m->n - at) * sizeof *m->pair);
	m->pair[at] = (struct config_pair){strdup(key), strdup(value)};
	m->n++;
}

// The clock, as the main thread's ticks have it.
static void pass_ms(uint64_t ms)
{
	for (uint64_t step; ms > 100; ms -= step) {
		step = ms > 10000 ? 1000 : 100;
		lab_advance_ms(step);
		stage_find("multicast")->tick(lab.w.now);
	}
	lab_advance_ms(ms);
	lab_tick();
	lab_flush();
}

static int setup(void **state)
{
	static const char *const names[] = {"a", "b", "c", "d", "router"};

	lab_setup();
	blue = lab_network("blue", 10);
	for (unsigned i = 0; i < 5; i++)
		port[i] = lab_port(names[i], VLAN_ACCESS, blue);
	port[5] = lab_port("trunk", VLAN_TRUNK, NULL);
	a = port[0]->id;
	b = port[1]->id;
	c = port[2]->id;
	d = port[3]->id;
	router = port[4]->id;
	trunk = port[5]->id;
	set(&blue->multicast, "snooping", "true");
	lab_tick();
	lab_apply();
	lab_flush();
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

static void settle(void)
{
	pass_ms(11500);
	lab_forget_sent();
}

static struct config_ip ip(const char *text)
{
	struct config_ip x = {.v6 = strchr(text, ':') != NULL};

	assert_int_equal(inet_pton(x.v6 ? AF_INET6 : AF_INET, text, x.b), 1);
	return x;
}

// ---- hosts and routers

// A record whose sources are a list with commas.
static void report(uint16_t from, uint8_t version, enum group_record_type type, const char *group, const char *sources)
{
	struct group_record r = {.type = type, .group = ip(group)};
	struct config_ip src = ip(r.group.v6 ? "fe80::77" : "10.0.0.77");
	uint8_t list[1024], frame[GROUP_FRAME_MAX + 4];
	char text[1024], *save = NULL;

	snprintf(text, sizeof text, "%s", sources ? sources : "");
	for (char *w = strtok_r(text, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
		struct config_ip s = ip(w);

		memcpy(list + r.n_sources++ * group_address_len(s.v6), s.b, group_address_len(s.v6));
	}
	r.source = list;
	uint32_t len = group_write_report(frame, mac, &src, version, &r);
	if (from == trunk)
		len = lab_tag(frame, len, 0x8100, 10);
	lab_send_frame(from, frame, len);
}

static void join(uint16_t from, const char *group)
{
	report(from, 3, GROUP_TO_EX, group, NULL);
}

static void leave(uint16_t from, const char *group)
{
	report(from, 3, GROUP_TO_IN, group, NULL);
}

static void query(uint16_t from, const char *src, const char *group, uint32_t response_ms, uint8_t version)
{
	struct group_query q = {.src = ip(src), .version = version, .robustness = 2, .interval_s = 125, .response_ms = response_ms};
	uint8_t frame[GROUP_FRAME_MAX];

	memcpy(q.mac, mac, 6);
	q.group = group ? ip(group) : (struct config_ip){.v6 = q.src.v6};
	lab_send_frame(from, frame, group_write_query(frame, &q));
}

#define DATA4 "udp,dl_src=02:00:00:00:00:10,nw_src=10.0.0.10,nw_dst=239.1.1.1"
#define DATA6 "udp6,dl_src=02:00:00:00:00:10,ipv6_src=fd00::10,ipv6_dst=ff05::1:1"

// Queries that were sent to the port since the last lab_forget_sent().
static unsigned queries_to(uint16_t to)
{
	unsigned n = 0;

	for (unsigned i = 0; i < lab.n_sent; i++) {
		const uint8_t *f = lab.sent[i].bytes;

		if (lab.sent[i].port != to)
			continue;
		unsigned l2 = f[12] == 0x81 ? 18 : 14;
		bool v6 = f[l2 - 2] == 0x86;
		struct group_message m;
		assert_int_equal(group_message_read(&m, f + l2, lab.sent[i].len - l2, v6, v6 ? 48 : 24), 0);
		n += m.kind == GROUP_QUERY;
	}
	return n;
}

// ---- tests

static void off_by_default(void **state)
{
	set(&blue->multicast, "snooping", "false");
	lab_apply();
	lab_flush();
	lab_expect_ports(a, DATA4, b, c, d, router, trunk, 0);
	lab_reject_trace("multicast:");
	report(b, 3, GROUP_TO_EX, "239.1.1.1", NULL);
	assert_int_equal(lab.n_sent, 5);
	lab_expect_ports(a, DATA4, b, c, d, router, trunk, 0);
}

static void both_families(void (*fn)(const char *data, const char *group))
{
	settle();
	fn(DATA4, "239.1.1.1");
	fn(DATA6, "ff05::1:1");
}

static void members_only(const char *data, const char *group)
{
	lab_expect_ports(a, data, b, c, d, router, trunk, 0);
	lab_expect_trace("nobody asked for it: flood");
	join(b, group);
	lab_expect_trace("no router is to know, the switch does");
	assert_int_equal(lab.n_sent, 0);
	lab_expect_ports(a, data, b, 0);
	lab_expect_trace("wanted by b");
	join(trunk, group);
	lab_expect_ports(a, data, b, trunk, 0);
	lab_expect_trace("wanted by b, trunk");
	// The one who sends is in the group too.
	join(a, group);
	lab_expect_ports(a, data, b, trunk, 0);
	leave(b, group);
	lab_expect_ports(a, data, b, trunk, 0); // until it is sure that nobody else is there
	pass_ms(2100);
	lab_expect_ports(a, data, trunk, 0);
}

static void test_members_only(void **state)
{
	both_families(members_only);
}

static void only_itself(void **state)
{
	settle();
	join(a, "239.1.1.1");
	lab_expect_drop(a, DATA4, "flow.NOBODY");
}

static void sources(const char *data, const char *group)
{
	const char *wanted = strchr(group, ':') ? "fd00::10" : "10.0.0.10", *other = strchr(group, ':') ? "fd00::99" : "10.0.0.99";

	report(b, 3, GROUP_ALLOW, group, wanted);
	report(c, 3, GROUP_ALLOW, group, other);
	lab_expect_ports(a, data, b, 0);
	report(d, 3, GROUP_IS_EX, group, wanted); // all but this one
	lab_expect_ports(a, data, b, 0);
	report(d, 3, GROUP_TO_EX, group, other);
	lab_expect_ports(a, data, b, d, 0);
	report(b, 3, GROUP_BLOCK, group, wanted);
	lab_expect_ports(a, data, b, d, 0);
	pass_ms(2100);
	lab_expect_ports(a, data, d, 0);
	report(d, 3, GROUP_TO_IN, group, other);
	pass_ms(2100);
	lab_expect_drop(a, data, "multicast.NOT_WANTED");
	lab_expect_trace("wanted by nobody");
}

static void test_sources(void **state)
{
	both_families(sources);
}

static void everybodys_groups(void **state)
{
	settle();
	set(&blue->multicast, "unregistered", "drop");
	lab_apply();
	lab_flush();
	lab_expect_ports(a, "udp,nw_dst=224.0.0.251", b, c, d, router, trunk, 0);
	lab_expect_trace("group 224.0.0.251 is everybody's");
	lab_expect_ports(a, "udp6,ipv6_dst=ff02::1", b, c, d, router, trunk, 0);
	// Link-local groups of IPv6: by who asked, and if nobody did to all.
	lab_expect_ports(a, "udp6,ipv6_dst=ff02::fb", b, c, d, router, trunk, 0);
	join(b, "ff02::fb");
	lab_expect_ports(a, "udp6,ipv6_dst=ff02::fb", b, 0);
	lab_expect_drop(a, DATA4, "multicast.UNREGISTERED");
	lab_expect_drop(a, DATA6, "multicast.UNREGISTERED");
	lab_expect_trace("nobody asked for it, and it is not flooded here");
	// What is no IP is no matter of this.
	lab_expect_ports(a, "dl_type=0x88b5,dl_dst=01:00:5e:01:01:01", b, c, d, router, trunk, 0);
	lab_expect_ports(a, "arp", b, c, d, router, trunk, 0);
	lab_expect_ports(a, "udp,nw_dst=10.0.0.3,dl_dst=03:00:00:00:00:01", b, c, d, router, trunk, 0);
}

static void router_ports(void **state)
{
	settle();
	set(&blue->multicast, "unregistered", "router-ports");
	lab_apply();
	lab_flush();
	lab_expect_drop(a, DATA4, "multicast.UNREGISTERED");
	query(router, "10.0.0.1", NULL, 10000, 3);
	lab_expect_trace("asks who is in a group: everybody hears it");
	assert_int_equal(lab.n_sent, 5);
	lab_expect_ports(a, DATA4, router, 0);
	lab_expect_trace("nobody asked for it: to router (a router's)");
	lab_expect_drop(a, DATA6, "multicast.UNREGISTERED"); // it has shown itself by IPv4 only
	join(b, "239.1.1.1");
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab.sent[0].port, router);
	lab_expect_trace("says which groups somebody wants: router (a router's)");
	lab_expect_ports(a, DATA4, b, router, 0);
	lab_expect_ports(router, DATA4, b, 0);
	// It stays one for as long as it asks.
	pass_ms(254 * 1000);
	lab_expect_ports(a, DATA4, b, router, 0);
	pass_ms(2 * 1000);
	lab_expect_ports(a, DATA4, b, 0);
	// Static ones.
	set(&blue->multicast, "router-ports", "c trunk");
	lab_apply();
	lab_flush();
	lab_expect_ports(a, DATA4, b, c, trunk, 0);
	set(&blue->multicast, "router-ports", "");
	lab_apply();
	lab_flush();
	lab_expect_ports(a, DATA4, b, 0);
}

static uint16_t sum16(const uint8_t *p, uint32_t n, uint32_t s)
{
	for (uint32_t i = 0; i < n; i += 2)
		s += (uint32_t)(p[i] << 8 | (i + 1 < n ? p[i + 1] : 0));
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return (uint16_t)~s;
}

// A PIM hello of IPv4 with a hold time.
static uint32_t hello(uint8_t *f, uint16_t hold)
{
	static const uint8_t head[] = {1, 0, 0x5e, 0, 0, 13, 2, 0, 0, 0, 0, 0x66, 8, 0, 0x45, 0, 0, 30, 0, 0, 0, 0, 1, 103, 0, 0, 10, 0, 0, 2, 224, 0, 0, 13};
	uint8_t pim[10] = {0x20, 0, 0, 0, 0, 1, 0, 2, (uint8_t)(hold >> 8), (uint8_t)hold};

	memcpy(f, head, sizeof head);
	uint16_t s = sum16(f + 14, 20, 0);
	f[24] = (uint8_t)(s >> 8);
	f[25] = (uint8_t)s;
	s = sum16(pim, 10, 0);
	pim[2] = (uint8_t)(s >> 8);
	pim[3] = (uint8_t)s;
	memcpy(f + 34, pim, 10);
	return 44;
}

static void pim(void **state)
{
	uint8_t f[64];

	settle();
	lab_send_frame(c, f, hello(f, 30));
	assert_int_equal(lab.n_sent, 5);
	join(b, "239.1.1.1");
	assert_int_equal(lab.sent[0].port, c);
	lab_expect_ports(a, DATA4, b, c, 0);
	pass_ms(31 * 1000);
	lab_expect_ports(a, DATA4, b, 0);
	lab_send_frame(c, f, hello(f, 0xffff));
	pass_ms(200 * 1000);
	join(b, "239.1.1.1");
	lab_expect_ports(a, DATA4, b, c, 0);
	lab_send_frame(c, f, hello(f, 0)); // goodbye
	lab_expect_ports(a, DATA4, b, 0);
}

// Of RFC 4286.
static uint32_t announce_type(uint8_t *f, bool v6, uint8_t type, unsigned n, uint8_t interval)
{
	static const uint8_t head4[] = {1, 0, 0x5e, 0, 0, 106, 2, 0, 0, 0, 0, 0x66, 8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 1, 2, 0, 0, 10, 0, 0, 2, 224, 0, 0, 106};
	static const uint8_t head6[54] = {0x33, 0x33, 0, 0, 0, 0x6a, 2, 0, 0, 0, 0, 0x66, 0x86, 0xdd, 0x60, [19] = 8, 58, 1, 0xfe, 0x80, [37] = 9, 0xff, 2, [53] = 0x6a};
	uint8_t msg[8] = {type, interval, 0, 0, 0, 125, 0, 2};
	unsigned l3 = v6 ? 54 : 34;

	memcpy(f, v6 ? head6 : head4, l3);
	if (v6) {
		f[19] = (uint8_t)n;
	} else {
		f[17] = (uint8_t)(20 + n);
		uint16_t s = sum16(f + 14, 20, 0);
		f[24] = (uint8_t)(s >> 8);
		f[25] = (uint8_t)s;
	}
	uint8_t pseudo[8] = {0, 0, 0, (uint8_t)n, 0, 0, 0, 58}, all[64];
	memcpy(all, f + 22, 32);
	memcpy(all + 32, pseudo, 8);
	memcpy(all + 40, msg, n);
	uint16_t s = v6 ? sum16(all, 40 + n, 0) : sum16(msg, n, 0);
	msg[2] = (uint8_t)(s >> 8);
	msg[3] = (uint8_t)s;
	memcpy(f + l3, msg, n);
	return l3 + n;
}

// An advertisement, or what ends it.
static uint32_t announce(uint8_t *f, bool v6, bool ends, uint8_t interval)
{
	return announce_type(f, v6, (uint8_t)((v6 ? 151 : 0x30) + 2 * ends), ends ? 4 : 8, interval);
}

static void announced(void **state)
{
	uint8_t f[128];

	settle();
	for (unsigned v6 = 0; v6 < 2; v6++) {
		const char *data = v6 ? DATA6 : DATA4, *group = v6 ? "ff05::1:1" : "239.1.1.1";

		lab_send_frame(c, f, announce(f, v6, false, 20));
		assert_int_equal(lab.n_sent, 5);
		lab_expect_trace("is everybody's: flood");
		join(b, group);
		lab_expect_ports(a, data, b, c, 0);
		lab_expect_trace("c (a router's)");
		pass_ms(61 * 1000); // three of its intervals
		lab_expect_ports(a, data, b, 0);
		lab_send_frame(c, f, announce(f, v6, false, 180));
		pass_ms(70 * 1000);
		lab_expect_ports(a, data, b, c, 0);
		lab_send_frame(c, f, announce(f, v6, true, 0));
		lab_expect_ports(a, data, b, 0);
		// Somebody asks who is a router: nobody's concern here.
		uint32_t len = announce_type(f, v6, v6 ? 152 : 0x31, 4, 0);
		lab_send_frame(c, f, len);
		lab_expect_ports(a, data, b, 0);
	}
}

// Ports where no router may be: what says so is dropped, and what hosts say isn't.
static void guarded(void **state)
{
	uint8_t f[GROUP_FRAME_MAX];
	struct group_query q = {.mac = {2, 0, 0, 0, 0, 0x77}, .src = ip("10.0.0.1"), .version = 3, .robustness = 2, .interval_s = 125, .response_ms = 10000};

	settle();
	port[4]->multicast_router = MULTICAST_ROUTER_NEVER;
	lab_apply();
	lab_flush();
	lab_expect_drop_frame(router, f, group_write_query(f, &q), "multicast.ROUTER_GUARD");
	lab_expect_trace("by multicast_router none may be at this port");
	q.src = ip("fe80::1");
	q.group.v6 = true;
	lab_expect_drop_frame(router, f, group_write_query(f, &q), "multicast.ROUTER_GUARD");
	lab_expect_drop_frame(router, f, hello(f, 30), "multicast.ROUTER_GUARD");
	lab_expect_drop(router, "udp6,ipv6_src=fe80::99,ipv6_dst=ff02::d", "multicast.ROUTER_GUARD");
	lab_expect_drop_frame(router, f, announce(f, false, false, 20), "multicast.ROUTER_GUARD");
	lab_expect_drop_frame(router, f, announce(f, true, false, 20), "multicast.ROUTER_GUARD");
	join(router, "239.1.1.1");
	join(b, "ff05::1:1");
	lab_expect_ports(a, DATA4, router, 0);
	lab_expect_ports(a, DATA6, b, 0);
	lab_expect_ports(router, "udp,nw_dst=224.0.0.251", a, b, c, d, trunk, 0);
	// Others are believed.
	lab_send_frame(c, f, hello(f, 30));
	assert_int_equal(lab.n_sent, 5);
	// Named as a router's port in the network, it is one.
	set(&blue->multicast, "router-ports", "router");
	lab_apply();
	lab_flush();
	lab_expect_ports(a, DATA6, b, router, 0);
	lab_send_frame(router, f, hello(f, 30));
	assert_int_equal(lab.n_sent, 5);
	set(&blue->multicast, "router-ports", "");
	lab_apply();
	lab_flush();
	lab_expect_drop_frame(router, f, hello(f, 30), "multicast.ROUTER_GUARD");
	// Always one.
	port[3]->multicast_router = MULTICAST_ROUTER_ALWAYS;
	lab_apply();
	lab_flush();
	lab_expect_ports(a, DATA6, b, d, 0);
	lab_expect_trace("d (a router's)");
	port[3]->multicast_router = MULTICAST_ROUTER_AUTO;
	lab_apply();
	lab_flush();
	lab_expect_ports(a, DATA6, b, 0);
}

static void election(void **state)
{
	settle();
	set(&blue->multicast, "querier-address", "10.0.0.5");
	lab_apply();
	lab_flush();
	lab_forget_sent();
	pass_ms(126 * 1000);
	assert_true(queries_to(b) >= 2); // one of each family
	lab_forget_sent();
	query(router, "10.0.0.9", NULL, 10000, 3); // higher: it is to give way
	lab_forget_sent();
	pass_ms(126 * 1000);
	assert_int_equal(queries_to(b), 2);
	query(router, "10.0.0.1", NULL, 10000, 3); // lower
	lab_forget_sent();
	pass_ms(126 * 1000);
	assert_int_equal(queries_to(b), 1); // of IPv6
	// A leave is the other one's matter, who asks.
	join(b, "239.1.1.1");
	lab_forget_sent();
	leave(b, "239.1.1.1");
	pass_ms(5000);
	assert_int_equal(queries_to(b), 0);
	lab_expect_ports(a, DATA4, b, router, 0);
	query(router, "10.0.0.1", "239.1.1.1", 1000, 3);
	pass_ms(2100);
	lab_expect_ports(a, DATA4, b, c, d, router, trunk, 0);
	lab_expect_trace("nobody asked for it: flood");
	// It falls silent: 2 * 125 + 10 / 2 seconds.
	lab_forget_sent();
	pass_ms(260 * 1000);
	assert_true(queries_to(b) > 3);
}

static void no_querier(void **state)
{
	set(&blue->multicast, "querier", "false");
	lab_apply();
	lab_flush();
	settle();
	join(b, "239.1.1.1");
	lab_expect_trace("flooded, as nobody has asked in the network yet");
	lab_expect_ports(a, DATA4, b, c, d, router, trunk, 0);
	lab_expect_trace("it is not known yet who wants it: flood");
	query(c, "0.0.0.0", NULL, 1000, 2); // another switch
	lab_expect_ports(a, DATA4, b, c, d, router, trunk, 0);
	pass_ms(2100);
	lab_expect_ports(a, DATA4, b, 0); // it is no router
	join(d, "239.1.1.1");
	assert_int_equal(lab.sent[0].port, c); // but gets reports
	pass_ms(261 * 1000);
	lab_expect_ports(a, DATA4, b, c, d, router, trunk, 0);
}

static void restart_floods_first(void **state)
{
	join(b, "239.1.1.1");
	lab_expect_ports(a, DATA4, b, c, d, router, trunk, 0);
	pass_ms(11500);
	lab_expect_ports(a, DATA4, b, 0);
}

static void own_queries(void **state)
{
	// At once, and tagged where the port wants it.
	lab_forget_sent();
	set(&blue->multicast, "query-interval", "20");
	lab_apply();
	pass_ms(200);
	settle();
	pass_ms(60 * 1000);
	for (unsigned i = 0; i < 6; i++)
		assert_in_range(queries_to(port[i]->id), 4, 8);
	const struct lab_sent *s = lab_sent_to(trunk);
	assert_int_equal(s->bytes[12], 0x81);
	assert_int_equal(s->bytes[15], 10);
	lab_forget_sent();
	join(b, "239.1.1.1");
	leave(b, "239.1.1.1");
	pass_ms(900);
	assert_int_equal(queries_to(b), 1); // last-member query, to this port alone
	assert_int_equal(queries_to(c), 0);
	pass_ms(300);
	assert_int_equal(queries_to(b), 2);
	// Somebody else is there.
	report(b, 3, GROUP_IS_EX, "239.1.1.1", NULL);
	pass_ms(3000);
	lab_expect_ports(a, DATA4, b, 0);
}

static void expiry(void **state)
{
	settle();
	join(b, "239.1.1.1");
	join(b, "ff05::1:1");
	report(c, 3, GROUP_ALLOW, "239.1.1.1", "10.0.0.10");
	pass_ms(259 * 1000);
	lab_expect_ports(a, DATA4, b, c, 0);
	pass_ms(2 * 1000);
	lab_expect_ports(a, DATA4, b, c, d, router, trunk, 0);
	lab_expect_ports(a, DATA6, b, c, d, router, trunk, 0);
}

static void fast_leave(void **state)
{
	settle();
	set(&blue->multicast, "fast-leave", "true");
	lab_apply();
	lab_flush();
	join(b, "239.1.1.1");
	join(c, "239.1.1.1");
	leave(b, "239.1.1.1");
	lab_expect_ports(a, DATA4, c, 0);
	report(c, 2, GROUP_IS_EX, "239.1.1.1", NULL);
	report(c, 2, GROUP_TO_IN, "239.1.1.1", NULL);
	report(d, 3, GROUP_ALLOW, "239.1.1.1", "10.0.0.10,10.0.0.11");
	lab_expect_ports(a, DATA4, d, 0);
	report(d, 3, GROUP_BLOCK, "239.1.1.1", "10.0.0.10");
	lab_expect_drop(a, DATA4, "multicast.NOT_WANTED");
}

static void old_versions(void **state)
{
	settle();
	for (uint8_t v = 1; v < 3; v++) {
		report(b, v, GROUP_IS_EX, "239.1.1.1", NULL);
		lab_expect_ports(a, DATA4, b, 0);
		// RFC 3376 section 7.3.2: sources that a newer host doesn't want may be what the older one does.
		report(b, 3, GROUP_TO_EX, "239.1.1.1", "10.0.0.10");
		report(b, 3, GROUP_BLOCK, "239.1.1.1", "10.0.0.10");
		pass_ms(2100);
		lab_expect_ports(a, DATA4, b, 0);
		report(b, 2, GROUP_TO_IN, "239.1.1.1", NULL);
		pass_ms(2100);
		if (v == 1) { // nobody leaves with version 1 about
			lab_expect_ports(a, DATA4, b, 0);
			pass_ms(261 * 1000);
		}
		lab_expect_ports(a, DATA4, b, c, d, router, trunk, 0);
	}
	report(b, 2, GROUP_IS_EX, "ff05::1:1", NULL);
	lab_expect_ports(a, DATA6, b, 0);
	report(b, 2, GROUP_TO_IN, "ff05::1:1", NULL);
	pass_ms(2100);
	lab_expect_ports(a, DATA6, b, c, d, router, trunk, 0);
}

static void limits(void **state)
{
	char group[32];

	settle();
	set(&blue->multicast, "group-limit", "20");
	set(&blue->multicast, "port-group-limit", "15");
	set(&blue->multicast, "source-limit", "2");
	lab_apply();
	lab_flush();
	for (unsigned i = 0; i < 30; i++) {
		snprintf(group, sizeof group, "239.2.0.%u", i);
		join(b, group);
		snprintf(group, sizeof group, "239.3.0.%u", i);
		join(c, group);
	}
	lab_expect_ports(a, "udp,nw_dst=239.2.0.3", b, 0);
	lab_expect_ports(a, "udp,nw_dst=239.2.0.16", b, c, d, router, trunk, 0);
	lab_expect_ports(a, "udp,nw_dst=239.3.0.11", b, c, d, router, trunk, 0);
	// More sources than are told apart: all of them.
	report(d, 3, GROUP_ALLOW, "239.2.0.3", "10.0.0.1,10.0.0.2,10.0.0.3");
	lab_expect_ports(a, "udp,nw_src=10.0.0.99,nw_dst=239.2.0.3", b, d, 0);
}

static void a_join_concerns_its_flows_only(void **state)
{
	settle();
	join(b, "239.1.1.1");
	lab_expect_ports(a, DATA4, b, 0);
	lab.traced = false;
	lab_send(a, DATA4);
	uint64_t before = lab_count(a, COUNT_RESOLVED);
	join(c, "239.1.1.2");
	join(c, "ff05::2");
	lab_send(a, DATA4);
	assert_int_equal(lab_count(a, COUNT_RESOLVED), before);
	join(c, "239.1.1.1");
	lab_send(a, DATA4);
	assert_int_equal(lab_count(a, COUNT_RESOLVED), before + 1);
	report(c, 3, GROUP_IS_EX, "239.1.1.1", NULL); // as before
	lab_send(a, DATA4);
	assert_int_equal(lab_count(a, COUNT_RESOLVED), before + 1);
}

static void ports_come_and_go(void **state)
{
	settle();
	join(b, "239.1.1.1");
	join(c, "239.1.1.1");
	query(c, "10.0.0.1", NULL, 10000, 3);
	lab_remove_port(port[2]);
	lab_apply();
	lab_flush();
	lab_expect_ports(a, DATA4, b, 0);
	lab_forget_sent();
	port[2] = lab_port("c2", VLAN_ACCESS, blue);
	lab_apply();
	pass_ms(200);
	assert_true(queries_to(port[2]->id) >= 1);
	set(&blue->multicast, "snooping", "false");
	lab_apply();
	lab_flush();
	lab_expect_ports(a, DATA4, b, d, router, trunk, port[2]->id, 0);
	lab_remove_network(blue);
	lab_apply();
}

static void isolated(void **state)
{
	port[0]->isolated = port[1]->isolated = true;
	lab_apply();
	lab_flush();
	settle();
	join(b, "239.1.1.1");
	join(c, "239.1.1.1");
	lab_expect_ports(a, DATA4, c, 0);
}

static void errors(void **state)
{
	set(&blue->multicast, "router-ports", "nowhere");
	lab_apply();
	assert_string_equal(blue->error, "multicast: router-ports names nowhere, and there is no such port");
	set(&blue->multicast, "router-ports", "");
	set(&blue->multicast, "querier-address", "fd00::1");
	lab_apply();
	assert_string_equal(blue->error, "multicast: querier-address fd00::1 is not link-local, and hosts heed no other queries");
	set(&blue->multicast, "querier-address", "1.2.3");
	lab_apply();
	assert_string_equal(blue->error, "multicast: querier-address 1.2.3 is no IP address");
	set(&blue->multicast, "querier-address", "");
	set(&blue->multicast, "robustness", "9");
	lab_apply();
	assert_string_equal(blue->error, "multicast: robustness is a number from 1 to 7");
	set(&blue->multicast, "robustness", "2");
	lab_apply();
	assert_null(blue->error);
	lab_flush();
}

static uint32_t a_report(uint8_t *frame, bool v6)
{
	struct group_record r = {.type = GROUP_TO_EX, .group = ip(v6 ? "ff05::1:1" : "239.1.1.1")};
	struct config_ip src = ip(v6 ? "fe80::77" : "10.0.0.77");

	return group_write_report(frame, mac, &src, 3, &r);
}

static void malformed(void **state)
{
	uint8_t f[GROUP_FRAME_MAX];

	settle();
	for (unsigned v6 = 0; v6 < 2; v6++) {
		uint32_t len = a_report(f, v6);

		f[len - 1] ^= 1; // checksum
		lab_expect_drop_frame(b, f, len, "multicast.MALFORMED");
		lab_expect_ports(a, v6 ? DATA6 : DATA4, b, c, d, router, trunk, 0);
	}
	uint32_t len = a_report(f, true);
	f[21] = 64; // hop limit
	lab_expect_drop_frame(b, f, len, "multicast.MALFORMED");
}

// Rubbish of every kind that a host can send: nothing crashes, and every packet is accounted for.
static void rubbish(void **state)
{
	uint8_t f[GROUP_FRAME_MAX];

	settle();
	srand(1);
	lab.traced = false;
	for (unsigned i = 0; i < 30000; i++) {
		bool v6 = rand() & 1;
		struct group_record r = {.type = (enum group_record_type)(rand() % 8), .group = ip(v6 ? "ff05::1:1" : "239.1.1.1")};
		struct group_query q = {.src = ip(v6 ? "fe80::1" : "10.0.0.1"), .group = ip(v6 ? "ff05::1:1" : "239.1.1.1"), .version = (uint8_t)(1 + rand() % 3)};
		struct config_ip src = ip(v6 ? "fe80::77" : "10.0.0.77");
		uint8_t list[16 * 40];
		for (unsigned k = 0; k < sizeof list; k++)
			list[k] = (uint8_t)rand();
		r.n_sources = q.n_sources = (uint16_t)(rand() % 40);
		r.source = q.source = list;
		r.group.b[v6 ? 15 : 3] = (uint8_t)(rand() % 8);
		uint32_t len = rand() & 1 ? group_write_report(f, mac, &src, (uint8_t)(1 + rand() % 3), &r) : group_write_query(f, &q);
		uint32_t l4 = v6 ? 62 : 38;
		for (unsigned k = (unsigned)rand() % 4; k > 0; k--)
			f[l4 + 1 + (unsigned)rand() % (len - l4 - 1)] = (uint8_t)rand();
		if (rand() % 4) { // with a checksum that is right
			f[l4 + 2] = f[l4 + 3] = 0;
			uint16_t s = sum16(f + l4, len - l4, v6 ? (uint32_t)(uint16_t)~sum16(f + 22, 32, 58 + len - l4) : 0);
			f[l4 + 2] = (uint8_t)(s >> 8);
			f[l4 + 3] = (uint8_t)s;
		}
		lab_send_mbuf((uint16_t)(1 + rand() % 6), lab_mbuf(f, len, rand() % 8 ? 0 : 1 + (uint32_t)rand() % (len - 1)));
		if (i % 64 == 0)
			pass_ms((uint64_t)(rand() % 3000));
		if (i % 128 == 0)
			lab_forget_sent();
	}
}

// ---- a router

static struct config_router *r1;
static uint16_t red_a, red_b, green_a;
static struct config_network *red, *green;

#define MAC_RED "02:00:00:00:20:01"

// blue, red and green with a router between them; in green is what is upstream.
static void with_router(bool upstream)
{
	red = lab_network("red", 20);
	green = lab_network("green", 30);
	red_a = lab_port("red_a", VLAN_ACCESS, red)->id;
	red_b = lab_port("red_b", VLAN_ACCESS, red)->id;
	green_a = lab_port("green_a", VLAN_ACCESS, green)->id;
	set(&red->multicast, "snooping", "true");
	set(&green->multicast, "snooping", "true");
	r1 = lab_router("r1");
	set(&r1->other_config, "multicast", "true");
	if (upstream)
		set(&r1->other_config, "multicast-upstream", "r1-green");
	lab_router_port("r1-blue", r1, blue, "02:00:00:00:10:01", "10.0.0.1/24", "fd00::1/64", "fe80::1/64", NULL);
	lab_router_port("r1-red", r1, red, MAC_RED, "10.2.0.1/24", "fd02::1/64", "fe80::2/64", NULL);
	lab_router_port("r1-green", r1, green, "02:00:00:00:30:01", "10.3.0.1/24", "fd03::1/64", "fe80::3/64", NULL);
	lab_apply();
	settle();
}

static void routed(const char *data, const char *group)
{
	char text[256];
	bool v6 = strchr(group, ':');

	lab_expect_ports(a, data, b, c, d, router, trunk, 0); // nobody asked at all
	join(red_a, group);
	snprintf(text, sizeof text, "%s,nw_ttl=9", data);
	lab_expect_ports(a, text, red_a, 0);
	lab_expect_trace("wanted by red_a in red");
	const uint8_t *f = lab.sent[0].bytes;
	assert_memory_equal(f + 6, "\x02\0\0\0\x20\x01", 6);
	assert_int_equal(v6 ? f[21] : f[22], 8);
	if (!v6)
		assert_int_equal(sum16(f + 14, 20, 0), 0);
	join(b, group);
	lab_expect_ports(a, text, b, red_a, 0);
	for (unsigned i = 0; i < 2; i++) // the copy in its own network is as it came
		if (lab.sent[i].port == b)
			assert_int_equal(v6 ? lab.sent[i].bytes[21] : lab.sent[i].bytes[22], 9);
	// A trunk gets a copy for each of its networks.
	join(trunk, group);
	lab_expect_ports(a, text, b, trunk, red_a, 0);
	// One hop left: not beyond the network.
	snprintf(text, sizeof text, "%s,nw_ttl=1", data);
	lab_expect_ports(a, text, b, trunk, 0);
	lab_expect_trace("not routed, as its TTL is used up");
	// From the wrong side.
	lab_expect_ports(red_b, data, red_a, 0);
	lab_expect_trace("not routed, as its source is behind r1-blue");
	leave(red_a, group);
	pass_ms(2100);
	lab_expect_ports(a, data, b, trunk, 0);
	// Sources.
	report(red_a, 3, GROUP_ALLOW, group, v6 ? "fd00::99" : "10.0.0.99");
	lab_expect_ports(a, data, b, trunk, 0);
	report(red_a, 3, GROUP_ALLOW, group, v6 ? "fd00::10" : "10.0.0.10");
	lab_expect_ports(a, data, b, trunk, red_a, 0);
}

static void test_routed(void **state)
{
	with_router(false);
	settle();
	routed(DATA4, "239.1.1.1");
	routed(DATA6, "ff05::1:1");
	// Without a word of the router's, no more.
	set(&r1->other_config, "multicast", "false");
	lab_apply();
	lab_flush();
	lab_expect_ports(a, DATA4, b, trunk, 0);
	join(c, "239.1.1.1");
	set(&r1->other_config, "multicast", "true");
	lab_apply();
	lab_flush();
	lab_expect_ports(a, DATA4, b, c, trunk, red_a, 0);
	leave(c, "239.1.1.1");
	join(d, "239.1.1.1");
	pass_ms(2100);
	set(&r1->other_config, "multicast", "false");
	lab_apply();
	lab_flush();
	lab_expect_ports(a, DATA4, b, d, trunk, 0);
	leave(d, "239.1.1.1");
	pass_ms(2100);
	// Link-local groups stay.
	set(&r1->other_config, "multicast", "true");
	lab_apply();
	lab_flush();
	join(red_a, "ff02::99");
	lab_expect_ports(a, "udp6,ipv6_src=fd00::10,ipv6_dst=ff02::99", b, c, d, router, trunk, 0);
	lab_expect_ports(a, "udp,nw_src=169.254.0.10,nw_dst=239.1.1.1", b, trunk, 0);
}

// Another switch with the same router asks with the same address: it gets reports, and no packet that nobody there asked for.
static void same_router_elsewhere(void **state)
{
	with_router(false);
	query(c, "10.0.0.1", NULL, 10000, 3);
	query(c, "fe80::1", NULL, 10000, 3);
	lab_forget_sent();
	join(b, "239.1.1.1");
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab.sent[0].port, c);
	lab_expect_ports(a, DATA4, b, 0);
	join(c, "239.1.1.1");
	lab_expect_ports(a, DATA4, b, c, 0);
}

static unsigned sum_reports(uint16_t to, struct group_record *last, uint8_t *version)
{
	unsigned n = 0;

	for (unsigned i = 0; i < lab.n_sent; i++) {
		const struct lab_sent *s = &lab.sent[i];
		bool v6 = s->bytes[12] == 0x86;
		struct group_message m;

		if (s->port != to || group_message_read(&m, s->bytes + 14, s->len - 14, v6, v6 ? 48 : 24) || m.kind != GROUP_REPORT)
			continue;
		*version = m.version;
		while (group_next_record(&m, last))
			n++;
	}
	return n;
}

static void proxy(void **state)
{
	struct group_record r;
	uint8_t version;

	with_router(true);
	query(green_a, "10.3.0.99", NULL, 1000, 3);
	query(green_a, "fe80::99", NULL, 1000, 3);
	pass_ms(2000);
	lab_forget_sent();
	join(b, "239.1.1.1");
	pass_ms(200);
	assert_int_equal(sum_reports(green_a, &r, &version), 1);
	assert_int_equal(version, 3);
	assert_int_equal(r.type, GROUP_TO_EX);
	assert_int_equal(r.n_sources, 0);
	pass_ms(2000); // twice, as one may be lost
	assert_int_equal(sum_reports(green_a, &r, &version), 2);
	lab_forget_sent();
	join(red_a, "239.1.1.1"); // nothing new upstream
	report(red_a, 3, GROUP_ALLOW, "ff35::1", "fd03::5");
	pass_ms(2000);
	assert_int_equal(sum_reports(green_a, &r, &version), 2);
	assert_int_equal(r.type, GROUP_TO_IN);
	assert_int_equal(r.n_sources, 1);
	// What comes from there is forwarded to who asked; what comes from the others goes there.
	lab_expect_ports(green_a, "udp,nw_src=10.3.0.5,nw_dst=239.1.1.1", b, red_a, 0);
	lab_expect_ports(green_a, "udp6,ipv6_src=fd03::5,ipv6_dst=ff35::1", red_a, 0);
	lab_expect_ports(a, DATA4, b, red_a, green_a, 0);
	lab_expect_trace("green_a (upstream) in green");
	lab_expect_ports(a, "udp,nw_src=10.0.0.10,nw_dst=239.9.9.9", b, c, d, router, trunk, green_a, 0);
	lab_expect_trace("nobody asked for it: to ");
	// It is asked, and answers.
	lab_forget_sent();
	query(green_a, "10.3.0.99", NULL, 1000, 3);
	pass_ms(1100);
	assert_int_equal(sum_reports(green_a, &r, &version), 1);
	assert_int_equal(r.type, GROUP_IS_EX);
	// An old querier.
	lab_forget_sent();
	query(green_a, "10.3.0.99", NULL, 1000, 2);
	pass_ms(1100);
	assert_int_equal(sum_reports(green_a, &r, &version), 1);
	assert_int_equal(version, 2);
	lab_forget_sent();
	leave(b, "239.1.1.1");
	leave(red_a, "239.1.1.1");
	pass_ms(3000);
	assert_in_range(sum_reports(green_a, &r, &version), 1, 2);
	assert_int_equal(r.type, GROUP_TO_IN);
	assert_int_equal(version, 2);
	// The router goes.
	set(&r1->other_config, "multicast-upstream", "");
	lab_apply();
	lab_flush();
	set(&r1->other_config, "multicast", "false");
	set(&red->multicast, "snooping", "false");
	lab_apply();
	lab_flush();
}

// The floating point of times.
static void codes(void **state)
{
	uint8_t f[GROUP_FRAME_MAX];

	for (unsigned v6 = 0; v6 < 2; v6++) {
		for (uint32_t s = 1; s < 3174; s += 7) {
			struct group_query q = {.src = ip(v6 ? "fe80::1" : "10.0.0.1"), .group = {.v6 = v6}, .version = 3, .interval_s = s, .response_ms = s * 1000, .robustness = 2};
			struct group_message m;
			uint32_t len = group_write_query(f, &q);

			assert_int_equal(group_message_read(&m, f + 14, len - 14, v6, v6 ? 48 : 24), 0);
			assert_in_range(m.interval_s, s - s / 16, s);
			assert_in_range(m.response_ms, s * 1000 - s * 1000 / 16, s * 1000);
			assert_int_equal(m.robustness, 2);
			assert_int_equal(m.version, 3);
			assert_true(group_ip_is_zero(&m.group));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(off_by_default, setup, teardown),
		cmocka_unit_test_setup_teardown(test_members_only, setup, teardown),
		cmocka_unit_test_setup_teardown(only_itself, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sources, setup, teardown),
		cmocka_unit_test_setup_teardown(everybodys_groups, setup, teardown),
		cmocka_unit_test_setup_teardown(router_ports, setup, teardown),
		cmocka_unit_test_setup_teardown(pim, setup, teardown),
		cmocka_unit_test_setup_teardown(announced, setup, teardown),
		cmocka_unit_test_setup_teardown(guarded, setup, teardown),
		cmocka_unit_test_setup_teardown(election, setup, teardown),
		cmocka_unit_test_setup_teardown(no_querier, setup, teardown),
		cmocka_unit_test_setup_teardown(restart_floods_first, setup, teardown),
		cmocka_unit_test_setup_teardown(own_queries, setup, teardown),
		cmocka_unit_test_setup_teardown(expiry, setup, teardown),
		cmocka_unit_test_setup_teardown(fast_leave, setup, teardown),
		cmocka_unit_test_setup_teardown(old_versions, setup, teardown),
		cmocka_unit_test_setup_teardown(limits, setup, teardown),
		cmocka_unit_test_setup_teardown(a_join_concerns_its_flows_only, setup, teardown),
		cmocka_unit_test_setup_teardown(ports_come_and_go, setup, teardown),
		cmocka_unit_test_setup_teardown(isolated, setup, teardown),
		cmocka_unit_test_setup_teardown(errors, setup, teardown),
		cmocka_unit_test_setup_teardown(malformed, setup, teardown),
		cmocka_unit_test_setup_teardown(rubbish, setup, teardown),
		cmocka_unit_test_setup_teardown(test_routed, setup, teardown),
		cmocka_unit_test_setup_teardown(same_router_elsewhere, setup, teardown),
		cmocka_unit_test_setup_teardown(proxy, setup, teardown),
		cmocka_unit_test_setup_teardown(codes, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
