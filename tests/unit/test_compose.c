// compose: frames as another implementation makes them, every field read back, and errors that name the word that is wrong.
#include "lab.h"
#include "compose.h"

#include <errno.h>

static const struct compose_defaults defaults = {.dl_src = {2, 0, 0, 0, 0, 1}, .dl_dst = {2, 0, 0, 0, 0, 2}};

// Description, and the bytes that Scapy makes of the same packet.
static const struct {
	const char *text, *bytes;
} golden[] = {
	{"tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tcp_src=1000,tcp_dst=80,tcp_flags=syn|ece|cwr,nw_ttl=7,nw_tos=0x2e,packet_len=66",
	 "0200000000020200000000010800452e00340000400007065f940a0000010a00000203e80050000000000000000050c2ffff96dc0000000000000000"
	 "000000000000"},
	{"udp,nw_src=10.0.0.1,nw_dst=10.0.0.2,udp_src=53,udp_dst=54,packet_len=60",
	 "02000000000202000000000108004500002e00004000401126bd0a0000010a00000200350036001aeb4c000000000000000000000000000000000000"},
	{"udp6,ipv6_src=fe80::1,ipv6_dst=2001:db8::5,udp_src=1,udp_dst=2,dl_vlan=100,dl_vlan_pcp=5,packet_len=71",
	 "0200000000020200000000018100a06486dd60000000000d1140fe80000000000000000000000000000120010db80000000000000000000000050001"
	 "0002000dd3910000000000"},
	{"icmp,icmp_type=8,icmp_code=0,nw_src=10.0.0.1,nw_dst=10.0.0.2",
	 "02000000000202000000000108004500001c00004000400126df0a0000010a0000020800f7ff00000000000000000000000000000000000000000000"},
	{"icmp6,icmpv6_type=128,ipv6_src=fe80::1,ipv6_dst=fe80::2,nw_ttl=255",
	 "02000000000202000000000186dd6000000000083afffe800000000000000000000000000001fe800000000000000000000000000002800082b80000"
	 "0000"},
	{"sctp,nw_src=10.0.0.1,nw_dst=10.0.0.2,sctp_src=5,sctp_dst=6,packet_len=50",
	 "02000000000202000000000108004500002400004000408426540a0000010a00000200050006000000004074c51c00000000"},
	{"arp,arp_op=2,arp_sha=02:aa:00:00:00:01,arp_tha=02:bb:00:00:00:01,arp_spa=10.0.0.1,arp_tpa=10.0.0.2",
	 "0200000000020200000000010806000108000604000202aa000000010a00000102bb000000010a000002000000000000000000000000000000000000"},
	{"tcp6,nw_frag=first,ipv6_src=fe80::1,ipv6_dst=fe80::2,tcp_src=1,tcp_dst=2,tcp_flags=ack,packet_len=86",
	 "02000000000202000000000186dd6000000000202c40fe800000000000000000000000000001fe800000000000000000000000000002060000010000"
	 "00000001000200000000000000005010ffffb2c9000000000000"},
	{"udp,nw_frag=later,nw_src=10.0.0.1,nw_dst=10.0.0.2",
	 "02000000000202000000000108004500001c000000b9401166160a0000010a0000020000000000000000000000000000000000000000000000000000"},
};

static void golden_frames(void **state)
{
	for (size_t i = 0; i < sizeof golden / sizeof golden[0]; i++) {
		uint8_t got[COMPOSE_MAX], want[COMPOSE_MAX];
		char *error;
		int n = compose(golden[i].text, &defaults, got, &error), m = compose(golden[i].bytes, NULL, want, &error);

		if (n != m || memcmp(got, want, (size_t)n))
			for (int k = 0; k < n; k++)
				if (got[k] != want[k])
					fail_msg("%s: byte %d is %02x, not %02x", golden[i].text, k, got[k], want[k]);
		assert_int_equal(n, m);
	}
}

static uint32_t make(const char *text, uint8_t *frame)
{
	char *error;
	int n = compose(text, &defaults, frame, &error);

	if (n < 0)
		fail_msg("%s: %s", text, error);
	assert_null(error);
	return (uint32_t)n;
}

// Every word and what the packet then is, as the switch sees it.
static void read_back(void **state)
{
	static const struct {
		const char *text;
		uint16_t type;
		uint8_t proto;
		uint16_t sport, dport;
		uint32_t len;
	} rows[] = {
		{"ip", 0x0800, 253, 0, 0, 60},
		{"ipv6", 0x86dd, 253, 0, 0, 60},
		{"tcp", 0x0800, 6, 49152, 9, 60},
		{"tcp6", 0x86dd, 6, 49152, 9, 74},
		{"udp,tp_src=1,tp_dst=2", 0x0800, 17, 1, 2, 60},
		{"udp6,udp_src=1,udp_dst=2", 0x86dd, 17, 1, 2, 62},
		{"sctp6,sctp_src=3,sctp_dst=4", 0x86dd, 132, 3, 4, 66},
		{"icmp,tp_src=3,tp_dst=1", 0x0800, 1, 3, 1, 60},
		{"icmp6,icmpv6_type=135,icmpv6_code=0", 0x86dd, 58, 135, 0, 78},
		{"arp", 0x0806, 1, 0, 0, 60},
		{"arp,nw_proto=2", 0x0806, 2, 0, 0, 60},
		{"ip,nw_proto=47", 0x0800, 47, 0, 0, 60},
		{"nw_proto=6,dl_type=0x800", 0x0800, 6, 49152, 9, 60}, // in any order
		{"eth_type=0x86dd ip_proto=17 udp_dst=7", 0x86dd, 17, 49152, 7, 62},
		{"dl_type=0x88b5", 0x88b5, 0, 0, 0, 60},
		{"dl_src=02:00:00:00:00:09", 0x88b5, 0, 0, 0, 60},
		{"dl_type=0x05ff", 0x05ff, 0, 0, 0, 60},
		{"tcp,packet_len=9216", 0x0800, 6, 49152, 9, COMPOSE_LEN_MAX},
		{"packet_len=14", 0x88b5, 0, 0, 0, 14},
		{"TCP, tcp_flags=SYN|ACK", 0x0800, 6, 49152, 9, 60},
	};
	lab_setup();
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		uint8_t frame[COMPOSE_MAX];
		uint32_t len = make(rows[i].text, frame);
		struct rte_mbuf *m = lab_mbuf(frame, len, 0);
		struct flow_key k;

		memset(pkt_of(m), 0, sizeof(struct pkt));
		if (m->nb_segs == 1 || len > 2048)
			assert_int_equal(parse(m, &k), 0);
		if (pkt_of(m)->drop || rte_be_to_cpu_16(k.ethertype) != rows[i].type || k.proto != rows[i].proto ||
		    rte_be_to_cpu_16(k.sport) != rows[i].sport || rte_be_to_cpu_16(k.dport) != rows[i].dport || len != rows[i].len)
			fail_msg("%s: type %04x protocol %u ports %u %u length %u", rows[i].text, rte_be_to_cpu_16(k.ethertype), k.proto,
				 rte_be_to_cpu_16(k.sport), rte_be_to_cpu_16(k.dport), len);
		rte_pktmbuf_free(m);
	}
	lab_teardown();
}

static void destinations_of_groups(void **state)
{
	static const struct {
		const char *text;
		uint8_t dst[6];
	} rows[] = {
		{"udp,nw_dst=239.255.1.2", {0x01, 0x00, 0x5e, 0x7f, 0x01, 0x02}},
		{"udp6,ipv6_dst=ff02::1:ff00:7", {0x33, 0x33, 0xff, 0x00, 0x00, 0x07}},
		{"udp,nw_dst=255.255.255.255", {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
		{"arp", {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
		{"arp,arp_op=2", {2, 0, 0, 0, 0, 2}},
		{"udp,nw_dst=239.255.1.2,dl_dst=02:00:00:00:00:08", {2, 0, 0, 0, 0, 8}},
		{"udp", {2, 0, 0, 0, 0, 2}},
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		uint8_t frame[COMPOSE_MAX];

		make(rows[i].text, frame);
		assert_memory_equal(frame, rows[i].dst, 6);
		assert_memory_equal(frame + 6, defaults.dl_src, 6);
	}
}

static void details(void **state)
{
	uint8_t frame[COMPOSE_MAX];
	char *error;

	make("dl_vlan_pcp=6,udp", frame);
	assert_memory_equal(frame + 12, "\x81\x00\xc0\x00\x08\x00", 6);
	make("vlan_vid=4094,vlan_pcp=1,udp", frame);
	assert_memory_equal(frame + 12, "\x81\x00\x2f\xfe\x08\x00", 6);
	make("dl_type=0x05ff,packet_len=100", frame);
	assert_memory_equal(frame + 12, "\x00\x56\x42\x42\x03", 5);
	make("tcp,tcp_flags=0x1ff", frame);
	assert_int_equal(frame[46], 0x51);
	assert_int_equal(frame[47], 0xff);
	make("tcp,tcp_flags=ns|fin", frame);
	assert_int_equal(frame[46], 0x51);
	assert_int_equal(frame[47], 0x01);
	make("arp,dl_src=02:00:00:00:00:0c", frame); // the sender is who sends
	assert_int_equal(frame[27], 0x0c);
	make("udp,nw_frag=first", frame);
	assert_int_equal(frame[20], 0x20);
	assert_int_equal(frame[17] % 8, 4);
	make("ip,nw_proto=99,nw_frag=first", frame);
	assert_int_equal(frame[17], 28);
	// Nothing known of the addresses.
	assert_int_equal(compose("udp", NULL, frame, &error), 60);
	assert_memory_equal(frame, "\0\0\0\0\0\0\0\0\0\0\0\0", 12);
}

static void hexadecimal(void **state)
{
	uint8_t frame[COMPOSE_MAX];
	char *error, *text;

	assert_int_equal(compose("de ad:BE\nef", &defaults, frame, &error), 4);
	assert_memory_equal(frame, "\xde\xad\xbe\xef", 4);
	assert_int_equal(compose("0", &defaults, frame, &error), -EINVAL);
	assert_non_null(strstr(error, "1 hexadecimal digits"));
	free(error);
	text = malloc(2 * COMPOSE_MAX + 3);
	memset(text, 'a', 2 * COMPOSE_MAX + 2);
	text[2 * COMPOSE_MAX] = '\0';
	assert_int_equal(compose(text, &defaults, frame, &error), COMPOSE_MAX);
	text[2 * COMPOSE_MAX] = 'a';
	text[2 * COMPOSE_MAX + 2] = '\0';
	assert_int_equal(compose(text, &defaults, frame, &error), -EINVAL);
	assert_non_null(strstr(error, "longer than 65600"));
	free(error);
	free(text);
}

// What is wrong is named.
static void errors(void **state)
{
	static const char *const rows[][2] = {
		{"", "description is empty"},
		{" , ,", "description is empty"},
		{"tpc", "tpc: no such field or protocol"},
		{"tcp,nw_sr=1.2.3.4", "nw_sr: no such field"},
		{"tcp,nw_src", "nw_src needs a value"},
		{"tcp,nw_src=", "nw_src=: an address"},
		{"tcp,nw_src=1.2.3", "nw_src=1.2.3: an address"},
		{"tcp,nw_src=10.0.0.0/8", "nw_src=10.0.0.0/8"},
		{"tcp6,ipv6_src=10.0.0.1", "ipv6_src=10.0.0.1: an address"},
		{"tcp6,nw_src=10.0.0.1", "nw_src needs ip or arp"},
		{"tcp,ipv6_src=::1", "ipv6_src needs ipv6"},
		{"udp,dl_src=02:00:00:00:00", "dl_src=02:00:00:00:00"},
		{"udp,dl_src=02:00:00:00:00:001", "dl_src=02:00:00:00:00:001"},
		{"udp,dl_src=02:00:00:00:00:0g", "dl_src="},
		{"udp,dl_src=02:00:00:00:00:01:02", "dl_src="},
		{"udp,dl_src=-2:00:00:00:00:01", "dl_src="},
		{"udp,udp_src=65536", "udp_src=65536: a number from 0 to 65535"},
		{"udp,udp_src=-1", "udp_src=-1"},
		{"udp,udp_src=1x", "udp_src=1x"},
		{"udp,udp_src=99999999999999999999999", "udp_src="},
		{"udp,udp_src=4294967297", "udp_src="},
		{"udp,tcp_src=5", "tcp_src needs tcp"},
		{"ip,tp_src=5", "tp_src needs a protocol with ports"},
		{"tp_src=5", "tp_src needs"},
		{"icmp,tp_src=256", "tp_src=256"},
		{"icmp,icmpv6_type=1", "icmpv6_type needs icmp6"},
		{"ip,nw_proto=58,icmpv6_type=1", "icmpv6_type needs icmp6"},
		{"tcp,udp", "udp:"},
		{"tcp,nw_proto=17", "nw_proto: another word"},
		{"tcp,ipv6", "ipv6: another word"},
		{"udp,udp_src=1,tp_src=2", "tp_src: another word"},
		{"udp,dl_vlan=4096", "dl_vlan=4096"},
		{"udp,dl_vlan_pcp=8", "dl_vlan_pcp=8"},
		{"dl_type=0x8100", "dl_vlan"},
		{"dl_type=0x88a8", "dl_vlan"},
		{"dl_type=0x0600x", "dl_type=0x0600x"},
		{"dl_type=0x05fe", "dl_type=0x05fe"},
		{"tcp,tcp_flags=sin", "tcp_flags=sin"},
		{"tcp,tcp_flags=syn|", "tcp_flags=syn|"},
		{"tcp,tcp_flags=", "tcp_flags="},
		{"udp,nw_frag=yes", "nw_frag=yes"},
		{"arp,nw_frag=first", "nw_frag needs"},
		{"udp,nw_frag=later,udp_src=1", "udp_src: a later fragment"},
		{"tcp,nw_frag=later,tcp_flags=ack", "tcp_flags: a later fragment"},
		{"udp,packet_len=13", "packet_len=13"},
		{"udp,packet_len=41", "headers alone take 42"},
		{"udp,packet_len=9217", "packet_len=9217"},
		{"udp,nw_frag=first,packet_len=61", "so 58 would do"},
		{"dl_type=0x05ff,packet_len=1515", "packet_len=1515"},
		{"tcp,=5", "no such field"},
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		uint8_t frame[COMPOSE_MAX];
		char *error;

		assert_int_equal(compose(rows[i][0], &defaults, frame, &error), -EINVAL);
		if (!error || !strstr(error, rows[i][1]))
			fail_msg("%s: %s", rows[i][0], error);
		free(error);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_frames), cmocka_unit_test(read_back),   cmocka_unit_test(destinations_of_groups),
		cmocka_unit_test(details),	 cmocka_unit_test(hexadecimal), cmocka_unit_test(errors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
