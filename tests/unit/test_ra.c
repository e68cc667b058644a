// ra: router advertisements, read by the test's own hand from RFC 4861, RFC 4191 and RFC 8106; when they are sent, and who is answered.
#include "lab.h"
#include "compose.h"
#include "punt.h"
#include "ra.h"

#include <arpa/inet.h>
#include <errno.h>

static struct config_network *blue, *red;
static struct config_port *a, *b;
static struct config_router_port *rp;

static void pass_ms(unsigned ms)
{
	lab_forget_sent();
	lab_pass_ms(ms);
}

static void ra_set(const char *key, const char *value)
{
	for (size_t i = 0; i < rp->ra.n; i++) {
		if (!strcmp(rp->ra.pair[i].key, key)) {
			free(rp->ra.pair[i].value);
			rp->ra.pair[i].value = strdup(value);
			return;
		}
	}
	rp->ra.pair = realloc(rp->ra.pair, (rp->ra.n + 1) * sizeof *rp->ra.pair);
	size_t at = rp->ra.n++;
	for (; at && strcmp(rp->ra.pair[at - 1].key, key) > 0; at--) // a map is sorted
		rp->ra.pair[at] = rp->ra.pair[at - 1];
	rp->ra.pair[at] = (struct config_pair){strdup(key), strdup(value)};
}

static int setup(void **state)
{
	lab_setup();
	blue = lab_network("blue", 10);
	red = lab_network("red", 20);
	a = lab_port("a", VLAN_ACCESS, blue);
	b = lab_port("b", VLAN_ACCESS, blue);
	struct config_router *r = lab_router("r");
	rp = lab_router_port("r-blue", r, blue, "02:00:00:00:10:01", "10.1.0.1/24", "fd01::1/64", "fd01::2/64", "fd05:1:2:3:4::1/70", "fe80::1/64", NULL);
	lab_router_port("r-red", r, red, "02:00:00:00:20:01", "fd02::1/64", "fe80::2/64", NULL);
	lab_apply();
	pass_ms(10000);
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

static uint32_t get(const uint8_t *from, int n)
{
	uint32_t v = 0;

	while (n--)
		v = v << 8 | *from++;
	return v;
}

static bool is_ra(const struct lab_sent *s)
{
	return s->len > 70 && s->bytes[12] == 0x86 && s->bytes[20] == 58 && s->bytes[54] == 134;
}

static void check_ra(const struct lab_sent *s)
{
	uint32_t len = get(s->bytes + 18, 2), sum = 58 + len;

	assert_int_equal(s->len, 54 + len);
	assert_int_equal(s->bytes[21], 255);
	for (uint32_t i = 0; i < 32 + len; i++)
		sum += i % 2 ? s->bytes[22 + i] : (uint32_t)s->bytes[22 + i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	assert_int_equal(sum, 0xffff);
	assert_memory_equal(s->bytes + 6, "\x02\0\0\0\x10\x01\x86\xdd", 8);
	assert_memory_equal(s->bytes + 22, "\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x01", 16);
}

// The advertisements that port a got since sent began anew; *last: the last one.
static unsigned heard(const struct lab_sent **last)
{
	unsigned n = 0;

	for (unsigned i = 0; i < lab.n_sent; i++) {
		if (lab.sent[i].port != a->id || !is_ra(&lab.sent[i]))
			continue;
		check_ra(&lab.sent[i]);
		n++;
		if (last)
			*last = &lab.sent[i];
	}
	return n;
}

// The option number `nth` of its type; NULL: there is none.
static const uint8_t *option(const struct lab_sent *s, uint8_t type, unsigned nth)
{
	for (uint32_t at = 70; at < s->len; at += s->bytes[at + 1] * 8u) {
		assert_true(s->bytes[at + 1] && at + s->bytes[at + 1] * 8u <= s->len);
		if (s->bytes[at] == type && !nth--)
			return s->bytes + at;
	}
	return NULL;
}

static void says_what_the_row_says(void **state)
{
	const struct lab_sent *s = NULL;

	pass_ms(2000);
	assert_int_equal(heard(NULL), 0); // it is off
	ra_set("send", "true");
	lab_apply();
	pass_ms(1000);
	assert_int_equal(heard(&s), 1);
	assert_memory_equal(s->bytes, "\x33\x33\0\0\0\x01", 6);
	assert_memory_equal(s->bytes + 38, "\xff\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\x01", 16);
	assert_memory_equal(s->bytes + 58, "\x40\0\x07\x08\0\0\0\0\0\0\0\0", 12); // 64 hops, no flags, 1,800 s
	assert_memory_equal(option(s, 1, 0), "\x01\x01\x02\0\0\0\x10\x01", 8);
	assert_int_equal(get(option(s, 5, 0) + 4, 4), 1500);
	const uint8_t *p = option(s, 3, 0);
	assert_memory_equal(p, "\x03\x04\x40\xc0\0\x27\x8d\0\0\x09\x3a\x80\0\0\0\0\xfd\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 32);
	p = option(s, 3, 1); // the other address is of the same prefix, link-local ones are none
	assert_memory_equal(p, "\x03\x04\x46\x80", 4);
	assert_memory_equal(p + 16, "\xfd\x05\0\x01\0\x02\0\x03\0\0\0\0\0\0\0\0", 16);
	assert_null(option(s, 3, 2));
	assert_null(option(s, 25, 0));
	assert_null(option(s, 31, 0));
	assert_int_equal(s->port, a->id);
	static const char *const rows[][2] = {
		{"managed", "true"}, {"other", "true"}, {"preference", "high"}, {"lifetime", "700"}, {"hop-limit", "9"}, {"reachable-time", "30000"}, {"retrans-timer", "1000"},
		{"on-link", "false"}, {"autonomous", "false"}, {"valid-lifetime", "100"}, {"preferred-lifetime", "200"}, {"mtu", "1400"},
		{"rdnss", "fd01::53 fd01::54"}, {"dnssl", "example.org a.b."}, {"dns-lifetime", "77"},
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		ra_set(rows[i][0], rows[i][1]);
	lab_apply();
	assert_null(rp->error);
	pass_ms(4000);
	assert_int_equal(heard(&s), 1);
	assert_memory_equal(s->bytes + 58, "\x09\xc8\x02\xbc\0\0\x75\x30\0\0\x03\xe8", 12);
	assert_int_equal(get(option(s, 5, 0) + 4, 4), 1400);
	assert_memory_equal(option(s, 3, 0), "\x03\x04\x40\0\0\0\0\x64\0\0\0\x64", 12); // preferred is no longer than valid
	p = option(s, 25, 0);
	assert_memory_equal(p, "\x19\x05\0\0\0\0\0\x4d", 8);
	assert_int_equal(p[23], 0x53);
	assert_int_equal(p[39], 0x54);
	p = option(s, 31, 0);
	assert_memory_equal(p, "\x1f\x04\0\0\0\0\0\x4d\x07" "example\x03org\0\x01" "a\x01" "b\0\0\0\0\0\0\0", 32);
	// The MTU in force, and none; low preference; no default router has medium preference.
	ra_set("mtu", "0");
	ra_set("preference", "low");
	lab_apply();
	pass_ms(4000);
	heard(&s);
	assert_null(option(s, 5, 0));
	assert_int_equal(s->bytes[59], 0xd8);
	ra_set("lifetime", "0");
	lab_apply();
	pass_ms(4000);
	heard(&s);
	assert_int_equal(s->bytes[59], 0xc0);
}

static void timing(void **state)
{
	const struct lab_sent *s = NULL;

	ra_set("send", "true");
	ra_set("max-interval", "100");
	ra_set("min-interval", "75");
	lab_apply();
	pass_ms(33000);
	assert_int_equal(heard(NULL), 3); // three soon after each other
	pass_ms(74000);
	assert_true(heard(NULL) <= 1);
	pass_ms(26100);
	unsigned n = 0;
	for (int i = 0; i < 10; i++) {
		pass_ms(100000);
		n += heard(NULL);
	}
	assert_in_range(n, 9, 14);
	lab_apply(); // nothing has changed: nothing is said
	pass_ms(1000);
	unsigned before = heard(NULL);
	assert_true(before <= 1);
	// The last word, of a port that stops and of one that is taken away.
	pass_ms(4000);
	ra_set("send", "false");
	lab_forget_sent();
	lab_apply();
	lab_flush();
	assert_int_equal(heard(&s), 1);
	assert_int_equal(get(s->bytes + 60, 2), 0);
	pass_ms(200000);
	assert_int_equal(heard(NULL), 0);
	ra_set("send", "true");
	lab_apply();
	pass_ms(1000);
	assert_int_equal(heard(NULL), 1);
}

#define RS "icmp6,icmpv6_type=133,icmpv6_code=0,dl_src=02:00:00:00:00:0a,dl_dst=33:33:00:00:00:02,ipv6_dst=ff02::2,nw_ttl=255"

static void solicitations(void **state)
{
	const struct lab_sent *s = NULL;
	uint64_t copies;

	ra_set("send", "true");
	lab_apply();
	pass_ms(40000);
	// Who has an address is answered alone, at once, as often as it asks.
	for (int i = 0; i < 3; i++) {
		copies = lab_count(a->id, COUNT_COPIES);
		lab_send(a->id, RS ",ipv6_src=fe80::a");
		lab_expect_trace("a solicitation: the routers of blue will advertise themselves");
		assert_int_equal(lab_count(a->id, COUNT_COPIES), copies + 1);
		assert_int_equal(lab_sent_to(b->id) != NULL, 1); // other routers may be there
		pass_ms(200);
		assert_int_equal(heard(&s), 1);
		assert_memory_equal(s->bytes, "\x02\0\0\0\0\x0a", 6);
		assert_memory_equal(s->bytes + 38, "\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x0a", 16);
		assert_null(lab_sent_to(b->id));
	}
	// Who has none is told with all others, no more often than every three seconds.
	unsigned n = 0;
	for (int i = 0; i < 60; i++) {
		lab_send(a->id, RS ",ipv6_src=::");
		pass_ms(100);
		unsigned now = heard(&s);
		n += now;
		if (now)
			assert_int_equal(s->bytes[0], 0x33);
	}
	assert_in_range(n, 2, 3);
	// Very many: a few alone, then all together.
	for (int i = 0; i < 200; i++)
		lab_send(a->id, RS ",ipv6_src=fe80::a");
	pass_ms(5000);
	assert_in_range(heard(NULL), 16, 18);
	// What is no solicitation by the rules of RFC 4861 6.1.1, or for a network without advertisements.
	pass_ms(20000);
	uint8_t f[COMPOSE_MAX];
	uint32_t len = lab_compose(f, RS ",ipv6_src=fe80::a");
	f[21] = 254;
	lab_send_frame(a->id, f, len);
	pass_ms(1000);
	assert_int_equal(heard(NULL), 0);
	len = lab_compose(f, RS ",ipv6_src=fe80::a");
	f[57] ^= 1;
	lab_send_frame(a->id, f, len);
	pass_ms(1000);
	assert_int_equal(heard(NULL), 0);
	ra_set("send", "false");
	lab_apply();
	pass_ms(1000);
	lab_send(a->id, RS ",ipv6_src=fe80::a");
	lab_reject_trace("a solicitation");
	pass_ms(1000);
	assert_int_equal(heard(NULL), 0);
}

static void what_cannot_be(void **state)
{
	static const struct {
		const char *key, *value, *says;
	} bad[] = {
		{"min-interval", "500", "ra: min-interval 500 is more than three quarters of max-interval 600: 450 is used"},
		{"lifetime", "10", "ra: lifetime 10 is less than max-interval 600, which is used: guests would lose the router between two advertisements"},
		{"rdnss", "10.0.0.1", "ra: rdnss: 10.0.0.1 is no IPv6 address"},
		{"rdnss", "fd::1 fd::2 fd::3 fd::4 fd::5 fd::6 fd::7 fd::8 fd::9", "ra: rdnss: one advertisement has room for 8 name servers"},
		{"dnssl", "a..b", "ra: dnssl: a..b is no domain name"},
		{"dnssl", "0123456789012345678901234567890123456789012345678901234567890123.org",
		 "ra: dnssl: 0123456789012345678901234567890123456789012345678901234567890123.org is no domain name"},
	};
	static const char *const back[] = {"200", "1800", "", "", "", ""};

	ra_set("send", "true");
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		ra_set(bad[i].key, bad[i].value);
		ra_set("hop-limit", i % 2 ? "7" : "8"); // something changes, so that it speaks
		lab_apply();
		assert_string_equal(rp->error, bad[i].says);
		pass_ms(5000);
		assert_true(heard(NULL) >= 1); // it speaks all the same
		ra_set(bad[i].key, back[i]);
	}
	struct ra full = {.n_prefixes = RA_PREFIXES, .n_servers = RA_SERVERS, .mtu = 1500};
	uint8_t frame[RA_FRAME];
	assert_int_equal(ra_add_domain(&full, "."), -EINVAL);
	assert_int_equal(ra_add_domain(&full, ""), -EINVAL);
	while (!ra_add_domain(&full, "abcdefghijklmnopqrstuvwxyz.example.org"))
		;
	assert_int_equal(ra_add_domain(&full, "abcdefghijklmnopqrstuvwxyz.example.org"), -ENOSPC);
	assert_true(ra_make(frame, &full, NULL, NULL) > 900); // all of it fits
	rp->n_addresses = 2; // no link-local one
	lab_apply();
	assert_string_equal(rp->error, "ra: the port has no link-local IPv6 address to advertise itself from");
	rp->n_addresses = 5;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(says_what_the_row_says, setup, teardown),
		cmocka_unit_test_setup_teardown(timing, setup, teardown),
		cmocka_unit_test_setup_teardown(solicitations, setup, teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
