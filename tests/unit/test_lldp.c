// What we say is heard as it was meant, and rubbish does nothing.
#include "lldp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SECOND 1000000000ULL

static const struct lldp_local us = {
	.chassis = {2, 0, 0, 0, 0, 1},
	.mac = {2, 0, 0, 0, 0, 2},
	.port = "uplink1",
	.description = "to the rack's switch",
	.system_name = "host7",
	.system_description = "Weir",
	.capabilities = LLDP_BRIDGE | LLDP_ROUTER,
	.has_address = true,
	.address = {10, 0, 0, 7},
	.ttl = 120,
};

static void said_and_heard(void **state)
{
	struct lldp_local l = us;
	uint8_t frame[LLDP_FRAME_MAX];
	struct lldp p = {.next = 1};
	char text[128];
	bool news;
	size_t n = lldp_encode(&l, frame);

	assert_memory_equal(frame, "\x01\x80\xc2\0\0\x0e\2\0\0\0\0\2\x88\xcc\2\7\4\2\0\0\0\0\1\4\x08\5uplink1\6\2\0\x78", 36);
	assert_int_equal(lldp_receive(&p, frame, n, 1000 * SECOND, &news), 0);
	assert_true(news && p.rx == 1 && !p.unknown);
	const struct lldp_neighbour *h = &p.neighbour[0];
	assert_true(h->used && h->until == 1120 * SECOND);
	assert_string_equal(h->chassis, "02:00:00:00:00:01");
	assert_string_equal(h->port, "uplink1");
	assert_string_equal(h->description, "to the rack's switch");
	assert_string_equal(h->system_name, "host7");
	assert_string_equal(h->system_description, "Weir");
	assert_string_equal(h->address, "10.0.0.7");
	assert_string_equal(lldp_capabilities(h->enabled, text), "bridge, router");
	// Again: no news, but it lasts longer.
	assert_int_equal(lldp_receive(&p, frame, n, 1060 * SECOND, &news), 0);
	assert_true(!news && h->until == 1180 * SECOND && !p.neighbour[1].used);
	l.v6 = true;
	memcpy(l.address, "\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\7", 16);
	l.system_name = "host8";
	n = lldp_encode(&l, frame);
	assert_int_equal(lldp_receive(&p, frame, n, 1060 * SECOND, &news), 0);
	assert_true(news);
	assert_string_equal(h->address, "fd00::7");
	assert_false(lldp_age(&p, 1179 * SECOND));
	assert_true(lldp_age(&p, 1180 * SECOND));
	assert_true(!h->used && p.aged == 1);
	// One that says that it goes.
	lldp_receive(&p, frame, n, 1200 * SECOND, &news);
	l.ttl = 0;
	n = lldp_encode(&l, frame);
	assert_int_equal(n, 60);
	assert_int_equal(lldp_receive(&p, frame, n, 1200 * SECOND, &news), 0);
	assert_true(news && !h->used);
	lldp_receive(&p, frame, n, 1200 * SECOND, &news);
	assert_false(news);
}

static void when_it_speaks(void **state)
{
	struct lldp p = {0};
	uint8_t frame[LLDP_FRAME_MAX];
	unsigned said = 0;
	bool news;
	uint64_t now = 1000 * SECOND;

	for (; now < 1100 * SECOND; now += SECOND / 10)
		said += lldp_due(&p, now);
	assert_int_equal(said, 4);
	// Somebody new: it is told at once, and some times more.
	lldp_receive(&p, frame, lldp_encode(&us, frame), now, &news);
	said = 0;
	for (; now < 1110 * SECOND; now += SECOND / 10)
		said += lldp_due(&p, now);
	assert_in_range(said, LLDP_FAST, LLDP_FAST + 1);
	assert_int_equal(p.tx, 4 + said);
}

static void many(void **state)
{
	struct lldp_local l = us;
	uint8_t frame[LLDP_FRAME_MAX];
	struct lldp p = {0};
	bool news;

	for (unsigned i = 0; i < 20; i++) {
		l.chassis[5] = (uint8_t)i;
		assert_int_equal(lldp_receive(&p, frame, lldp_encode(&l, frame), SECOND, &news), 0);
		assert_true(news == (i < LLDP_NEIGHBOURS));
	}
	assert_int_equal(p.too_many, 20 - LLDP_NEIGHBOURS);
	// The longest that can be said fits.
	char longest[600];
	memset(longest, 'x', sizeof longest - 1);
	longest[sizeof longest - 1] = '\0';
	l.port = l.description = l.system_name = l.system_description = longest;
	assert_in_range(lldp_encode(&l, frame), 1000, LLDP_FRAME_MAX);
	p = (struct lldp){0};
	assert_int_equal(lldp_receive(&p, frame, lldp_encode(&l, frame), SECOND, &news), 0);
	assert_int_equal(strlen(p.neighbour[0].system_name), 255);
}

static int hear(struct lldp *p, const char *tlvs, size_t n)
{
	bool news;
	uint8_t *exact = malloc(14 + n);

	memcpy(exact, "\x01\x80\xc2\0\0\x0e\2\0\0\0\0\2\x88\xcc", 14);
	memcpy(exact + 14, tlvs, n);
	int rc = lldp_receive(p, exact, 14 + n, SECOND, &news);
	free(exact);
	return rc;
}

#define CHASSIS "\2\4\7abc"
#define PORT "\4\3\7pq"
#define TTL "\6\2\0\12"
#define HEAR(p, tlvs) hear(p, tlvs, sizeof(tlvs) - 1)

static void rubbish(void **state)
{
	struct lldp p = {0};

	assert_int_equal(HEAR(&p, CHASSIS PORT TTL "\0\0"), 0);
	assert_string_equal(p.neighbour[0].chassis, "abc");
	assert_int_equal(HEAR(&p, CHASSIS PORT TTL), 0); // without an end
	// Optional ones that make no sense are left out; what there is of texts is printable.
	assert_int_equal(HEAR(&p, CHASSIS PORT TTL "\x0a\4\x01\x7f\xffZ\x0e\3\0\4\0\x10\2\5\1\x10\1\x20\xfe\3\0\x80\xc2\x12\2hi\xfe\6\0\x80\xc2\1\0\7\xfe\6\0\x12\x0f\4\5\xee\0\0"), 0);
	assert_string_equal(p.neighbour[0].system_name, "???Z");
	assert_int_equal(p.neighbour[0].vlan, 7);
	assert_int_equal(p.neighbour[0].mtu, 1518);
	assert_int_equal(p.unknown, 5);
	static const struct {
		const char *tlvs;
		size_t n;
	} bad[] = {
#define BAD(s) {s, sizeof(s) - 1}
		BAD(""), BAD("\2"), BAD("\0\0"), BAD(CHASSIS), BAD(CHASSIS PORT), BAD(PORT CHASSIS TTL), BAD(CHASSIS TTL PORT), BAD(CHASSIS PORT "\6\1\0"), BAD(CHASSIS PORT TTL TTL),
		BAD(CHASSIS PORT TTL CHASSIS), BAD("\2\1\7" PORT TTL), BAD(CHASSIS "\4\1\7" TTL), BAD(CHASSIS PORT TTL "\x0a\xff" "abc"), BAD(CHASSIS PORT TTL "\x0a"), BAD("\3\xff" "abc"),
	};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_true(hear(&p, bad[i].tlvs, bad[i].n) < 0);
	assert_int_equal(p.bad, sizeof bad / sizeof bad[0]);
	assert_true(p.neighbour[0].used && !p.neighbour[1].used);
	// Anything.
	srand(4);
	for (unsigned i = 0; i < 200000; i++) {
		char any[300];
		size_t n = (size_t)rand() % sizeof any;

		for (size_t k = 0; k < sizeof any; k++)
			any[k] = (char)rand();
		if (i & 1)
			memcpy(any, CHASSIS PORT TTL, 15);
		hear(&p, any, n);
	}
	for (unsigned i = 0; i < LLDP_NEIGHBOURS; i++)
		for (const char *s = p.neighbour[i].system_name; *s; s++)
			assert_in_range(*s, ' ', '~');
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(said_and_heard), cmocka_unit_test(when_it_speaks), cmocka_unit_test(many), cmocka_unit_test(rubbish)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
