// answer: what a station answers to each kind of packet, read back field by field, and what nobody answers.
#include "lab.h"
#include "answer.h"
#include "compose.h"
#include "parse.h"

static const uint8_t station[6] = {2, 0, 0, 0, 0, 7};

static struct rte_mbuf *parsed(const uint8_t *frame, unsigned len, struct flow_key *k)
{
	struct rte_mbuf *m = lab_mbuf(frame, len, 0);

	memset(pkt_of(m), 0, sizeof(struct pkt));
	assert_int_equal(parse(m, k), 0);
	assert_int_equal(pkt_of(m)->drop, 0);
	return m;
}

static const struct {
	const char *text;
	const char *answer; // the same as this description
} rows[] = {
	{"tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tcp_src=1000,tcp_dst=443",
	 "tcp,nw_src=10.0.0.2,nw_dst=10.0.0.1,tcp_src=443,tcp_dst=1000,tcp_flags=syn|ack"},
	{"tcp6,ipv6_src=fd00::1,ipv6_dst=fd00::2,tcp_dst=443,tcp_flags=ack",
	 "tcp6,ipv6_src=fd00::2,ipv6_dst=fd00::1,tcp_src=443,tcp_dst=49152,tcp_flags=ack"},
	{"tcp,tcp_flags=fin|ack", "tcp,nw_src=192.0.2.2,nw_dst=192.0.2.1,tp_src=9,tp_dst=49152,tcp_flags=fin|ack"},
	{"udp,tp_src=7,tp_dst=53,packet_len=777", "udp,nw_src=192.0.2.2,nw_dst=192.0.2.1,tp_src=53,tp_dst=7,packet_len=777"},
	{"sctp,tp_src=7,tp_dst=53", "sctp,nw_src=192.0.2.2,nw_dst=192.0.2.1,tp_src=53,tp_dst=7"},
	{"icmp,nw_src=10.0.0.1,nw_dst=10.0.0.2,packet_len=500",
	 "icmp,nw_src=10.0.0.2,nw_dst=10.0.0.1,icmp_type=0,packet_len=500"},
	{"icmp6,ipv6_src=fd00::1,ipv6_dst=fd00::2,packet_len=300",
	 "icmp6,ipv6_src=fd00::2,ipv6_dst=fd00::1,icmpv6_type=129,packet_len=300"},
	{"ip,nw_proto=47", "ip,nw_proto=47,nw_src=192.0.2.2,nw_dst=192.0.2.1"},
};

static void swapped(void **state)
{
	lab_setup();
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		static const struct compose_defaults back = {.dl_src = {2, 0, 0, 0, 0, 2}, .dl_dst = {2, 0, 0, 0, 0, 1}};
		uint8_t frame[COMPOSE_MAX], got[COMPOSE_MAX], want[COMPOSE_MAX];
		char *error;
		uint32_t len = lab_compose(frame, rows[i].text);
		int n = answer(frame, len, station, got, &error);

		assert_int_equal(n, compose(rows[i].answer, &back, want, &error));
		if (memcmp(got, want, (size_t)n))
			fail_msg("the answer to %s is not %s", rows[i].text, rows[i].answer);
		// With tags of any kind: they stay.
		uint32_t tagged = lab_tag(frame, len, 0x8100, 5);
		tagged = lab_tag(frame, tagged, 0x88a8, 0x6007);
		assert_int_equal(answer(frame, tagged, station, got, &error), n + 8);
		assert_memory_equal(got + 12, frame + 12, 8);
		assert_memory_equal(got, want, 12);
		assert_memory_equal(got + 20, want + 12, (size_t)n - 12);
	}
	lab_teardown();
}

static void address_resolution(void **state)
{
	uint8_t frame[COMPOSE_MAX], got[COMPOSE_MAX], ip[16], want[16] = {0xfd, [15] = 2};
	char *error;
	bool v6;

	uint32_t len = lab_compose(frame, "arp,arp_spa=10.0.0.1,arp_tpa=10.0.0.2");
	assert_true(answer_from(frame, len, &v6, ip));
	assert_false(v6);
	assert_memory_equal(ip, "\x0a\0\0\2", 4);
	assert_int_equal(answer(frame, len, station, got, &error), 60);
	assert_memory_equal(got, "\2\0\0\0\0\1\2\0\0\0\0\7\x08\6\0\1\x08\0\6\4\0\2\2\0\0\0\0\7\x0a\0\0\2\2\0\0\0\0\1\x0a\0\0\1",
			    42);

	lab_setup();
	struct flow_key k;
	len = lab_compose(frame, "icmp6,icmpv6_type=135,ipv6_src=fd00::1,nd_target=fd00::2,nd_sll=02:00:00:00:00:01");
	assert_memory_equal(frame, "\x33\x33\xff\0\0\2", 6);
	assert_true(answer_from(frame, len, &v6, ip));
	assert_true(v6);
	assert_memory_equal(ip, want, 16);
	struct rte_mbuf *m = parsed(got, (unsigned)answer(frame, len, station, got, &error), &k);
	assert_int_equal(pkt_of(m)->class, CLASS_ND);
	assert_int_equal(k.sport, rte_cpu_to_be_16(136));
	assert_memory_equal(k.v6.src, want, 16);
	assert_memory_equal(k.src, station, 6);
	assert_memory_equal(got + pkt_of(m)->l4_ofs + 8, want, 16);
	assert_memory_equal(got + pkt_of(m)->l4_ofs + 24, "\2\1\2\0\0\0\0\7", 8);
	rte_pktmbuf_free(m);
	lab_teardown();
}

static void of_no_known_protocol(void **state)
{
	uint8_t frame[COMPOSE_MAX], got[COMPOSE_MAX], ip[16];
	char *error;
	bool v6;
	uint32_t len = lab_compose(frame, "dl_type=0x88b5,packet_len=90");

	assert_false(answer_from(frame, len, &v6, ip));
	assert_int_equal(answer(frame, len, station, got, &error), 90);
	assert_memory_equal(got, frame + 6, 6);
	assert_memory_equal(got + 6, frame, 6);
	assert_memory_equal(got + 12, frame + 12, 78);
}

static void nobody_answers(void **state)
{
	static const char *const none[][2] = {
		{"arp,arp_op=2", "is an answer itself"},
		{"icmp,icmp_type=0", "nobody answers ICMP of type 0"},
		{"icmp6,icmpv6_type=136", "nobody answers ICMPv6 of type 136"},
		{"tcp,tcp_flags=rst", "reset"},
		{"udp,nw_frag=first", "fragment"},
		{"udp,nw_frag=later", "fragment"},
		{"udp,nw_dst=239.1.2.3", "group"},
		{"udp6,ipv6_dst=ff02::fb", "group"},
		{"dl_dst=ff:ff:ff:ff:ff:ff", "group"},
		{"00112233", "malformed"},
	};
	for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
		uint8_t frame[COMPOSE_MAX], got[COMPOSE_MAX];
		char *error;

		assert_true(answer(frame, lab_compose(frame, none[i][0]), station, got, &error) < 0);
		assert_non_null(error);
		if (!strstr(error, none[i][1]))
			fail_msg("%s: %s", none[i][0], error);
		free(error);
	}
}

// Whatever arrives: no byte is read that isn't there (each frame is in memory of its own size), and an answer is a sound packet.
static void any_bytes(void **state)
{
	static const char *const seeds[] = {"arp", "icmp6,icmpv6_type=135", "tcp", "udp6", "sctp", "icmp", "ip,nw_proto=47", "udp,dl_vlan=5", "dl_type=0x88b5"};
	uint64_t dice = 88172645463325252ULL;
	unsigned answers = 0;

	for (unsigned n = 0; n < 50000; n++) {
		uint8_t frame[COMPOSE_MAX], got[COMPOSE_MAX], ip[16];
		uint32_t len = lab_compose(frame, seeds[n % (sizeof seeds / sizeof seeds[0])]);
		struct parsed_frame v;
		char *error;
		bool v6;

		dice ^= dice << 13, dice ^= dice >> 7, dice ^= dice << 17; // xorshift, Marsaglia 2003
		for (unsigned k = 0; k < dice % 4; k++)
			frame[(dice >> (8 * k)) % len] ^= (uint8_t)(dice >> (20 + k));
		if (dice >> 40 & 1)
			len = (uint32_t)(dice >> 32) % (len + 1);
		uint8_t *exact = malloc(len ? len : 1);
		memcpy(exact, frame, len);
		answer_from(exact, len, &v6, ip);
		int rc = answer(exact, len, station, got, &error);
		free(exact);
		if (rc < 0) {
			assert_non_null(error);
			free(error);
			continue;
		}
		assert_int_equal(parse_frame(got, (unsigned)rc, (unsigned)rc, 1, &v), 0);
		answers++;
	}
	assert_in_range(answers, 5000, 45000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(swapped),
		cmocka_unit_test(address_resolution),
		cmocka_unit_test(of_no_known_protocol),
		cmocka_unit_test(nobody_answers),
		cmocka_unit_test(any_bytes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
