// describe: what compose() made is described so that compose() makes it again; what words can't say is not described.
#include "lab.h"
#include "buf.h"
#include "compose.h"
#include "describe.h"

#include <stdio.h>
#include <rte_random.h>

static unsigned describe_to(char *text, size_t room, const uint8_t *frame, unsigned have, unsigned len)
{
	struct buf b = {0};
	bool known;

	buf_add(&b, "so: ");
	known = describe(&b, frame, have, len);
	assert_memory_equal(b.text, "so: ", 4);
	assert_true(known || b.len == 4);
	snprintf(text, room, "%s", b.text + 4);
	free(b.text);
	return known;
}

static void round_trip(void **state)
{
	static const char *const packets[] = {
		"tcp,dl_src=52:54:00:00:00:01,dl_dst=52:54:00:00:00:02,nw_src=10.0.0.1,nw_dst=10.0.0.7,tp_src=40000,tp_dst=443",
		"tcp,nw_tos=184,nw_ttl=3,tcp_flags=syn|ack,packet_len=1514",
		"tcp6,ipv6_src=fd00::1,ipv6_dst=fd00::2,tp_dst=22,tcp_flags=fin|ack|ns",
		"udp,nw_dst=239.1.1.1,tp_src=5353,tp_dst=5353",
		"udp,packet_len=60",
		"udp6,nw_tos=3,packet_len=9000",
		"sctp,tp_src=1,tp_dst=2",
		"sctp6",
		"icmp,nw_dst=192.0.2.9",
		"icmp,icmp_type=3,icmp_code=4",
		"icmp6,icmpv6_type=135",
		"ip,nw_proto=47,nw_ttl=255",
		"ipv6,nw_proto=132",
		"udp,nw_frag=first",
		"udp,nw_frag=later",
		"arp,arp_op=2,arp_spa=10.0.0.1,arp_tpa=10.0.0.2,arp_sha=52:54:00:00:00:01,arp_tha=52:54:00:00:00:02",
		"arp,dl_vlan=10",
		"tcp,dl_vlan=4095,dl_vlan_pcp=7",
		"udp,dl_vlan=0,dl_vlan_pcp=5",
		"dl_type=0x88b5,packet_len=100",
		"dl_type=0x05ff,packet_len=64",
		"dl_type=0x88cc",
	};
	uint8_t frame[COMPOSE_MAX], again[COMPOSE_MAX];
	char text[512], *error = NULL;

	for (size_t i = 0; i < sizeof packets / sizeof packets[0]; i++) {
		int len = compose(packets[i], NULL, frame, &error);

		assert_true(len > 0);
		// A few bytes of it are all that is kept.
		if (!describe_to(text, sizeof text, frame, len < 96 ? (unsigned)len : 96, (unsigned)len))
			fail_msg("%s is not described", packets[i]);
		int n = compose(text, NULL, again, &error);
		if (n != len || memcmp(frame, again, (size_t)len))
			fail_msg("%s became %s (%s)", packets[i], text, n < 0 ? error : "another packet");
	}
}

static void in_words(void **state)
{
	uint8_t frame[COMPOSE_MAX];
	char text[512];
	uint32_t len = lab_compose(frame, "tcp,dl_src=52:54:00:00:00:01,dl_dst=52:54:00:00:00:02,nw_src=10.0.0.1,nw_dst=10.0.0.7,tp_src=40000,tp_dst=443,"
					  "packet_len=1514");

	assert_true(describe_to(text, sizeof text, frame, 96, len));
	assert_string_equal(text, "tcp,dl_src=52:54:00:00:00:01,dl_dst=52:54:00:00:00:02,nw_src=10.0.0.1,nw_dst=10.0.0.7,nw_ttl=64,tp_src=40000,tp_dst=443,"
				  "tcp_flags=syn,packet_len=1514");
	struct buf b = {0};
	describe_bytes(&b, frame, 4);
	assert_string_equal(b.text, "52540000");
	free(b.text);
}

static void not_in_words(void **state)
{
	uint8_t frame[COMPOSE_MAX];
	char text[512];
	uint32_t len = lab_compose(frame, "tcp,nw_src=10.0.0.1");

	// Less than the headers.
	for (unsigned have = 0; have < 54; have++)
		assert_false(describe_to(text, sizeof text, frame, have, len));
	assert_true(describe_to(text, sizeof text, frame, 54, len));
	frame[14] = 0x46; // options
	assert_false(describe_to(text, sizeof text, frame, len, len));
	frame[14] = 0x45;
	frame[16] = 0xff; // longer than the frame
	assert_false(describe_to(text, sizeof text, frame, len, len));
	len = lab_compose(frame, "udp,dl_vlan=3");
	len = lab_tag(frame, len, 0x88a8, 5); // two tags
	assert_false(describe_to(text, sizeof text, frame, len, len));
	assert_false(describe_to(text, sizeof text, frame, 96, COMPOSE_MAX + 1));
}

// Whatever the bytes are, what comes out are words that compose() knows.
static void any_bytes(void **state)
{
	static const char *const from[] = {"tcp", "udp6", "arp", "icmp", "icmp6", "sctp", "ip", "dl_type=0x88b5", "tcp,dl_vlan=7", "udp,nw_frag=first"};
	uint8_t frame[COMPOSE_MAX], again[COMPOSE_MAX];
	unsigned described = 0;
	char text[512], *error = NULL;

	for (unsigned i = 0; i < 100000; i++) {
		uint32_t len = lab_compose(frame, from[i % (sizeof from / sizeof from[0])]);

		for (unsigned k = 0; k < i % 3; k++)
			frame[rte_rand_max(len)] = (uint8_t)rte_rand();
		unsigned have = (unsigned)rte_rand_max(len + 1);
		if (!describe_to(text, sizeof text, frame, have, len))
			continue;
		described++;
		if (compose(text, NULL, again, &error) < 0)
			fail_msg("%s: %s", text, error);
	}
	assert_true(described > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(in_words),
		cmocka_unit_test(not_in_words),
		cmocka_unit_test(any_bytes),
	};
	lab_eal();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
