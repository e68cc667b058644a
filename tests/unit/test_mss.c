// mss: what a SYN may say of segments that it takes (RFC 9293 section 3.7.1).
#include "lab.h"
#include "compose.h"

static struct config_network *net;
static struct config_port *in, *out;

static int setup(void **state)
{
	lab_setup();
	net = lab_network("blue", 10);
	in = lab_port("in", VLAN_NATIVE_UNTAGGED, net);
	out = lab_port("out", VLAN_ACCESS, net);
	out->mtu = 1300;
	lab_apply();
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

static uint32_t sum_up(const uint8_t *b, uint32_t n, uint32_t sum)
{
	for (uint32_t i = 0; i < n; i++)
		sum += i % 2 ? b[i] : (uint32_t)b[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

// Of the whole segment with its pseudo-header: 0xffff if the checksum is right.
static uint32_t tcp_sum(const uint8_t *f, uint32_t len, uint32_t l3)
{
	bool v6 = f[l3] >> 4 == 6;
	uint32_t l4 = l3 + (v6 ? 40 : 20);

	return sum_up(f + l4, len - l4, sum_up(f + l3 + (v6 ? 8 : 12), v6 ? 32 : 8, 6 + len - l4));
}

// A SYN with these options (a multiple of four bytes), its checksum right.
static uint32_t syn(uint8_t *f, const char *text, const uint8_t *options, uint32_t n)
{
	uint32_t len = lab_compose(f, text), l3 = f[12] == 0x81 ? 18 : 14;
	bool v6 = f[l3] >> 4 == 6;
	uint32_t l4 = l3 + (v6 ? 40 : 20), total;

	memcpy(f + l4 + 20, options, n);
	len = l4 + 20 + n;
	f[l4 + 12] = (uint8_t)((20 + n) / 4 << 4);
	total = len - l3 - (v6 ? 40 : 0);
	f[l3 + (v6 ? 4 : 2)] = (uint8_t)(total >> 8);
	f[l3 + (v6 ? 5 : 3)] = (uint8_t)total;
	if (!v6) {
		memset(f + l3 + 10, 0, 2);
		uint32_t sum = ~sum_up(f + l3, 20, 0);
		f[l3 + 10] = (uint8_t)(sum >> 8);
		f[l3 + 11] = (uint8_t)sum;
	}
	memset(f + l4 + 16, 0, 2);
	uint32_t sum = ~tcp_sum(f, len, l3);
	f[l4 + 16] = (uint8_t)(sum >> 8);
	f[l4 + 17] = (uint8_t)sum;
	return len;
}

#define SYN "tcp,tcp_flags=syn,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02"
#define SYN6 "tcp6,tcp_flags=syn,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02"
#define BACK "tcp,tcp_flags=syn|ack,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01"

// Sends it and says what became of it: the MSS at offset `at` of the options.
static unsigned through(const struct config_port *from, const char *text, const uint8_t *options, uint32_t n, uint32_t at)
{
	uint8_t f[COMPOSE_MAX];
	uint32_t len = syn(f, text, options, n);

	lab_send_frame(from->id, f, len);
	assert_int_equal(lab.n_sent, 1);
	const uint8_t *b = lab.sent[0].bytes;
	uint32_t l3 = b[12] == 0x81 ? 18 : 14, tcp = l3 + (b[l3] >> 4 == 6 ? 40 : 20);
	assert_int_equal(tcp_sum(b, lab.sent[0].len, l3), 0xffff);
	return (unsigned)(b[tcp + 20 + at] << 8 | b[tcp + 21 + at]);
}

static void both_ways(void **state)
{
	static const uint8_t mss[] = {2, 4, 0x05, 0xb4}, small[] = {2, 4, 0x02, 0x18}, odd[] = {1, 2, 4, 0x05, 0xb4, 1, 1, 0}, late[] = {4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 3, 3, 7, 2, 4, 0xff, 0xff, 0};

	lab_send(out->id, "udp,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01");
	lab_send(in->id, "udp,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02");
	for (int again = 0; again < 2; again++) {
		assert_int_equal(through(in, SYN, mss, 4, 2), 1260);
		lab_expect_trace("segments of 1460 bytes would not fit: 1260");
		assert_int_equal(through(in, SYN6, mss, 4, 2), 1240);
		assert_int_equal(through(in, SYN, odd, 8, 3), 1260);
		assert_int_equal(through(in, SYN, late, 20, 17), 1260);
		assert_int_equal(through(in, SYN, small, 4, 2), 536);
		lab_expect_trace("segments of 536 bytes fit");
		lab_reject_trace("DEFECT");
	}
	// Either end may be the smaller one.
	in->mtu = 1000;
	lab_apply();
	assert_int_equal(through(out, BACK, mss, 4, 2), 960);
	assert_int_equal(through(in, SYN, mss, 4, 2), 960);
	in->mtu = 80; // there is a least that TCP can work with
	lab_apply();
	assert_int_equal(through(out, BACK, mss, 4, 2), 48);
}

// To equal MTUs, and what is no SYN, nothing is done; nor where options make no sense.
static void leaves_alone(void **state)
{
	static const uint8_t mss[] = {2, 4, 0x05, 0xb4};
	static const uint8_t bad[][8] = {
		{2, 3, 5, 0xb4, 1, 1, 1, 0}, {2, 0, 5, 0xb4, 0}, {3, 40, 2, 4, 5, 0xb4}, {0, 2, 4, 5, 0xb4}, {1, 1, 1, 1, 1, 1, 1, 2}, {1, 1, 1, 1, 1, 1, 2, 4}, {1, 1, 1, 1, 1, 2, 4, 5}, {8, 1, 2, 4, 5, 0xb4},
	};
	uint8_t f[COMPOSE_MAX];

	lab_send(out->id, "udp,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01");
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		uint32_t len = syn(f, SYN, bad[i], 8);

		lab_send_frame(in->id, f, len);
		assert_int_equal(lab.n_sent, 1);
		assert_memory_equal(lab.sent[0].bytes, f, len);
		lab_expect_trace("the SYN says no segment size");
	}
	assert_int_equal(through(in, "tcp,tcp_flags=ack,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02", mss, 4, 2), 1460);
	lab_reject_trace("segments of");
	out->mtu = 1500;
	lab_apply();
	assert_int_equal(through(in, SYN, mss, 4, 2), 1460);
	lab_reject_trace("segments of");
}

// A partial checksum, of which options are no part.
static void partial(void **state)
{
	static const uint8_t mss[] = {2, 4, 0x05, 0xb4};
	uint8_t f[COMPOSE_MAX];
	uint32_t len = syn(f, SYN, mss, 4);

	lab_send(out->id, "udp,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01");
	f[50] = 0x12;
	f[51] = 0x34;
	struct rte_mbuf *m = lab_mbuf(f, len, 0);
	m->ol_flags = RTE_MBUF_F_RX_L4_CKSUM_NONE;
	lab_send_mbuf(in->id, m);
	assert_int_equal(lab.n_sent, 1);
	assert_memory_equal(lab.sent[0].bytes + 50, "\x12\x34", 2);
	assert_memory_equal(lab.sent[0].bytes + 56, "\x04\xec", 2);
}

// Shared with a copy: only who leaves by the small port is changed.
static void floods(void **state)
{
	static const uint8_t mss[] = {2, 4, 0x05, 0xb4};
	struct config_port *third = lab_port("third", VLAN_ACCESS, net);
	uint8_t f[COMPOSE_MAX];

	lab_apply();
	uint32_t len = syn(f, "tcp,tcp_flags=syn,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:99", mss, 4);
	lab_send_frame(in->id, f, len);
	assert_int_equal(lab.n_sent, 2);
	assert_memory_equal(lab_sent_to(out->id)->bytes + 56, "\x04\xec", 2);
	assert_memory_equal(lab_sent_to(third->id)->bytes + 56, "\x05\xb4", 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(both_ways, setup, teardown),
		cmocka_unit_test_setup_teardown(leaves_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(partial, setup, teardown),
		cmocka_unit_test_setup_teardown(floods, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
