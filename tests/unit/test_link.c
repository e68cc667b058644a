// What is said on a link is taken off it, before it is anybody's packet.
#include "lab.h"
#include "link.h"

static uint16_t member;
static unsigned rang;

static void ring(void)
{
	rang++;
}

static int setup(void **state)
{
	lab_setup();
	member = lab_port("m0", VLAN_ACCESS, lab_network("blue", 0))->id;
	lab_apply();
	rang = 0;
	link_ring = ring;
	return 0;
}

static int teardown(void **state)
{
	lab_check();
	lab_teardown();
	return 0;
}

// `kind`: 's' LACP, 'm' a marker, 'o' another slow protocol, 'l' LLDP, '8' an address of the link and another type, '-' a packet.
static struct rte_mbuf *make(char kind, uint32_t len)
{
	static uint8_t frame[4096];
	uint16_t type = kind == 'l' ? LINK_LLDP_TYPE : kind == '8' ? 0x888e : kind == '-' ? 0x88b5 : LINK_SLOW_TYPE;

	memset(frame, 0, sizeof frame);
	memcpy(frame, kind == '-' ? "\x52\x54\0\0\0\1" : "\x01\x80\xc2\0\0\2", 6);
	frame[12] = (uint8_t)(type >> 8);
	frame[13] = (uint8_t)type;
	frame[14] = kind == 's' ? 1 : kind == 'm' ? 2 : kind == 'o' ? 10 : 0;
	return lab_mbuf(frame, len, 0);
}

static void takes(uint8_t flags, const char *kinds, const char *left, unsigned taken, unsigned dropped)
{
	struct rte_mbuf *m[BURST], *got;
	uint16_t n = 0, port = 0;
	uint64_t rx = lab_count(member, COUNT_RX), consumed = lab_count(member, COUNT_CONSUMED), drops = lab_all_drops(member);

	link_set(member, 0xff, false);
	link_set(member, flags, true);
	for (; kinds[n]; n++)
		m[n] = make(kinds[n], 64);
	uint16_t k = link_take(&lab.w, member, m, n);
	lab_flush();
	assert_int_equal(k, strlen(left));
	rte_pktmbuf_free_bulk(m, k);
	assert_int_equal(lab_count(member, COUNT_RX) - rx, taken + dropped);
	assert_int_equal(lab_count(member, COUNT_CONSUMED) - consumed, taken);
	assert_int_equal(lab_all_drops(member) - drops, dropped);
	for (unsigned i = 0; i < taken; i++) {
		got = link_next(&port);
		assert_non_null(got);
		assert_int_equal(port, member);
		rte_pktmbuf_free(got);
	}
	assert_null(link_next(&port));
}

static void what_is_taken(void **state)
{
	takes(LINK_TAKE_SLOW, "s-l8mo-", "-l8o-", 2, 0);
	assert_int_equal(rang, 2);
	takes(LINK_TAKE_LLDP, "s-l8mo-", "s-8mo-", 1, 0);
	takes(LINK_TAKE_LLDP | LINK_TAKE_SLOW, "s-l8mo-", "-8o-", 3, 0);
	takes(0, "s-l8mo-", "s-l8mo-", 0, 0);
	takes(LINK_INACTIVE, "s-l", "", 0, 3);
	takes(LINK_INACTIVE | LINK_TAKE_SLOW, "s-l-", "", 1, 3);
	assert_int_equal(lab_drops(member, "link.INACTIVE"), 6);
}

static void limits(void **state)
{
	struct rte_mbuf *m;
	uint16_t port;

	link_set(member, LINK_TAKE_SLOW | LINK_TAKE_LLDP, true);
	for (unsigned i = 0; i < LINK_WAITING + 3; i++) {
		m = make(i & 1 ? 's' : 'l', 124);
		assert_int_equal(link_take(&lab.w, member, &m, 1), 0);
	}
	lab_flush();
	assert_int_equal(lab_drops(member, "link.QUEUE_FULL"), 3);
	while ((m = link_next(&port)))
		rte_pktmbuf_free(m);
	m = make('l', LINK_FRAME_MAX + 1);
	assert_int_equal(link_take(&lab.w, member, &m, 1), 0);
	m = make('s', 15); // the shortest that can be told
	assert_int_equal(link_take(&lab.w, member, &m, 1), 0);
	lab_flush();
	assert_int_equal(lab_drops(member, "link.BAD"), 1);
	m = make('s', 14);
	assert_int_equal(link_take(&lab.w, member, &m, 1), 1);
	rte_pktmbuf_free(m);
	// What nobody has fetched goes with the switch.
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_taken, setup, teardown),
		cmocka_unit_test_setup_teardown(limits, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
