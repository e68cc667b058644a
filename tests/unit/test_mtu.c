// mtu: every packet against its egress port; a large one by the segments that will be cut from it.
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
	lab_apply();
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

static void the_frame_less_header_and_tags(void **state)
{
	lab_expect_ports(in->id, "udp,packet_len=1514", out->id, 0);
	lab_expect_trace("1500 bytes against MTU 1500 of out: fits");
	lab_expect_drop(in->id, "udp,packet_len=1515", "mtu.TOO_LARGE");
	lab_expect_trace("1501 bytes against MTU 1500 of out: too large");
	lab_expect_ports(in->id, "udp,dl_vlan=10,packet_len=1518", out->id, 0);
	lab_expect_drop(in->id, "udp,dl_vlan=10,packet_len=1519", "mtu.TOO_LARGE");
	lab_expect_drop(in->id, "dl_type=0x88b5,packet_len=1515", "mtu.TOO_LARGE");
	// By a cached flow, and to a known destination.
	lab_send(out->id, "udp,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01");
	for (int again = 0; again < 2; again++) {
		lab_expect_ports(in->id, "udp,packet_len=1514", out->id, 0);
		lab_expect_drop(in->id, "udp,packet_len=1515", "mtu.TOO_LARGE");
	}
}

static void each_copy_against_its_own(void **state)
{
	struct config_port *large = lab_port("large", VLAN_ACCESS, net), *small = lab_port("small", VLAN_TRUNK, NULL);

	large->mtu = 9000;
	small->mtu = 1000;
	lab_apply();
	lab_expect_ports(in->id, "udp,packet_len=1014", out->id, large->id, small->id, 0);
	uint64_t before = lab_drops(in->id, "mtu.TOO_LARGE");
	lab_send(in->id, "udp,packet_len=1514");
	assert_int_equal(lab.n_sent, 2);
	assert_null(lab_sent_to(small->id));
	lab_send(in->id, "udp,packet_len=4014");
	assert_int_equal(lab.n_sent, 1);
	assert_non_null(lab_sent_to(large->id));
	assert_int_equal(lab_drops(in->id, "mtu.TOO_LARGE"), before + 3);
}

static void changes_at_once(void **state)
{
	lab_expect_drop(in->id, "udp,packet_len=2014", "mtu.TOO_LARGE");
	net->mtu = 9000;
	lab_apply();
	lab_expect_ports(in->id, "udp,packet_len=2014", out->id, 0);
	out->mtu = 1400;
	lab_apply();
	lab_expect_drop(in->id, "udp,packet_len=1415", "mtu.TOO_LARGE");
}

static void send_large(const char *text, uint16_t segsz)
{
	uint8_t frame[COMPOSE_MAX];
	struct rte_mbuf *m = lab_mbuf(frame, lab_compose(frame, text), 0);

	m->ol_flags = RTE_MBUF_F_RX_LRO | RTE_MBUF_F_RX_L4_CKSUM_NONE;
	m->tso_segsz = segsz;
	lab_send_mbuf(in->id, m);
}

static void segments_count_not_the_large_packet(void **state)
{
	for (int again = 0; again < 2; again++) {
		send_large("tcp,packet_len=9000", 1460);
		assert_int_equal(lab.n_sent, 1);
		lab_expect_trace("1500 bytes against MTU 1500 of out: fits");
		send_large("tcp,packet_len=9000", 1461);
		assert_int_equal(lab.n_sent, 0);
		lab_expect_trace("1501 bytes against MTU 1500 of out: too large");
		lab_expect_trace("dropped (mtu.TOO_LARGE)");
		send_large("tcp6,packet_len=9000", 1440);
		assert_int_equal(lab.n_sent, 1);
		send_large("tcp6,packet_len=9000", 1441);
		assert_int_equal(lab.n_sent, 0);
		send_large("tcp,dl_vlan=10,packet_len=9000", 1460);
		assert_int_equal(lab.n_sent, 1);
	}
	assert_int_equal(lab_drops(in->id, "mtu.TOO_LARGE"), 4);
	// Said to be large, but one segment: the segment's size is no excuse.
	send_large("tcp,packet_len=1515", 1461);
	assert_int_equal(lab.n_sent, 0);
	send_large("tcp,packet_len=2014", 5000);
	assert_int_equal(lab.n_sent, 0);
}

static void trunks_take_what_their_largest_network_does(void **state)
{
	struct config_network *jumbo = lab_network("jumbo", 20);
	struct config_port *t = lab_port("t", VLAN_TRUNK, NULL), *from = lab_port("from", VLAN_ACCESS, jumbo);

	lab_trunk(in, net);
	jumbo->mtu = 9000;
	lab_apply();
	lab_expect_ports(from->id, "udp,packet_len=9014", t->id, 0);
	lab_expect_drop(from->id, "udp,packet_len=9015", "mtu.TOO_LARGE");
}

#define KNOWN "dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02"

// A frame that may be fragmented.
static uint32_t without_df(uint8_t *frame, const char *text)
{
	uint32_t len = lab_compose(frame, text), sum = 0;
	uint8_t *ip = frame + (frame[12] == 0x81 ? 18 : 14);

	ip[6] &= 0xbf;
	memset(ip + 10, 0, 2);
	for (int i = 0; i < 20; i += 2)
		sum += (uint32_t)(ip[i] << 8 | ip[i + 1]);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~(sum + (sum >> 16));
	ip[10] = (uint8_t)(sum >> 8);
	ip[11] = (uint8_t)sum;
	return len;
}

// Whose sender can't know: it is told, as if by the destination, with the MTU there is.
static void tells_who_cannot_know(void **state)
{
	out->mtu = 1300;
	lab_apply();
	lab_send(out->id, "udp,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01");
	for (int v6 = 0; v6 < 2; v6++) {
		const char *text = v6 ? "udp6," KNOWN ",ipv6_src=fd00::1,ipv6_dst=fd00::2,packet_len=1315" :
					"udp," KNOWN ",nw_src=10.0.0.1,nw_dst=10.0.0.2,packet_len=1315";
		uint64_t drops = lab_drops(in->id, "mtu.TOO_LARGE"), made = lab_count(in->id, COUNT_GENERATED);

		for (int again = 0; again < 3; again++) {
			lab_send(in->id, text);
			lab_expect_trace("1301 bytes against MTU 1300 of out: too large, and the sender is told");
			lab_expect_trace("dropped (mtu.TOO_LARGE)");
			lab_expect_trace("out by in");
			assert_int_equal(lab.n_sent, 1);
			const struct lab_sent *s = lab_sent_to(in->id);
			assert_non_null(s);
			assert_memory_equal(s->bytes, "\x02\0\0\0\0\x01\x02\0\0\0\0\x02", 12);
			const uint8_t *icmp = s->bytes + (v6 ? 54 : 34), *quoted = icmp + 8;
			assert_int_equal(s->len, v6 ? 14 + 1280 : 14 + 576);
			assert_memory_equal(icmp, v6 ? "\x02\0" : "\x03\x04", 2);
			assert_int_equal(icmp[6] << 8 | icmp[7], 1300);
			assert_memory_equal(s->bytes + (v6 ? 22 : 26), quoted + (v6 ? 24 : 16), v6 ? 16 : 4);
			assert_memory_equal(s->bytes + (v6 ? 38 : 30), quoted + (v6 ? 8 : 12), v6 ? 16 : 4);
		}
		assert_int_equal(lab_drops(in->id, "mtu.TOO_LARGE"), drops + 3);
		assert_int_equal(lab_count(in->id, COUNT_GENERATED), made + 3);
	}
	// By the tag that it came with.
	lab_send(in->id, "udp," KNOWN ",dl_vlan=10,packet_len=1319");
	assert_int_equal(lab.n_sent, 1);
	assert_memory_equal(lab.sent[0].bytes + 12, "\x81\0\0\x0a\x08\0\x45", 7);
	// Large TCP packets too, by the segments that they would make.
	send_large("tcp," KNOWN ",packet_len=9000", 1260);
	assert_int_equal(lab.sent[0].port, out->id);
	send_large("tcp," KNOWN ",packet_len=9000", 1261);
	assert_int_equal(lab.sent[0].port, in->id);
	assert_int_equal(lab.sent[0].len, 590);
	assert_int_equal(lab.sent[0].bytes[42 + 2] << 8 | lab.sent[0].bytes[42 + 3], 1301);
}

// In a network with a VNI stations may have been set up for the MTU that it would have without.
static void tells_in_overlays(void **state)
{
	lab_send(out->id, "udp,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01");
	lab_expect_drop(in->id, "udp," KNOWN ",packet_len=1515", "mtu.TOO_LARGE");
	net->vni = 7;
	lab_apply();
	lab_send(in->id, "udp," KNOWN ",packet_len=1515");
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab.sent[0].port, in->id);
}

static void tells_nobody_else(void **state)
{
	uint8_t frame[COMPOSE_MAX];

	out->mtu = 1300;
	lab_apply();
	lab_send(out->id, "udp,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01");
	// What may be fragmented by a router is no bridge's business; ICMP errors, other protocols, floods.
	uint32_t len = without_df(frame, "udp," KNOWN ",packet_len=1315");
	lab_expect_drop_frame(in->id, frame, len, "mtu.TOO_LARGE");
	lab_expect_drop(in->id, "icmp,icmp_type=3," KNOWN ",packet_len=1400", "mtu.TOO_LARGE");
	lab_expect_drop(in->id, "dl_type=0x88b5," KNOWN ",packet_len=1400", "mtu.TOO_LARGE");
	lab_expect_drop(in->id, "udp,dl_dst=ff:ff:ff:ff:ff:ff,packet_len=1400", "mtu.TOO_LARGE");
	lab_expect_drop(in->id, "udp,dl_dst=02:00:00:00:00:77,packet_len=1400", "mtu.TOO_LARGE");
	// And not without end.
	unsigned told = 0;
	for (int i = 0; i < 1000; i++) {
		lab_send(in->id, "udp," KNOWN ",packet_len=1400");
		told += lab.n_sent;
	}
	assert_int_equal(told, 100);
	lab_expect_drop(in->id, "udp," KNOWN ",packet_len=1400", "mtu.TOO_LARGE");
	lab_few_buffers(0); // it has its own headers already, and needs none
	lab_advance_ms(1000);
	lab_send(in->id, "udp," KNOWN ",packet_len=1400");
	assert_int_equal(lab.n_sent, 1);
	lab_few_buffers(-1);
}

#define ROUTED "dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:10:01,nw_src=10.1.0.10,nw_dst=10.2.0.10"
#define ROUTED6 "dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:10:01,ipv6_src=fd01::10,ipv6_dst=fd02::10"

static void start_router(void)
{
	struct config_network *red = lab_network("red", 20);
	struct config_router *r = lab_router("r");

	red->mtu = 1300;
	out->network = red->row;
	lab_address(out, "02:00:00:00:00:02");
	lab_ip(out, "10.2.0.10");
	lab_ip(out, "fd02::10");
	lab_router_port("r-blue", r, net, "02:00:00:00:10:01", "10.1.0.1/24", "fd01::1/64", NULL);
	lab_router_port("r-red", r, red, "02:00:00:00:20:01", "10.2.0.1/24", "fd02::1/64", NULL);
	lab_apply();
	for (int i = 0; i < 100; i++) { // duplicate address detection, and announcements
		lab_advance_ms(100);
		lab_tick();
		lab_flush();
	}
}

// Into a network whose MTU is smaller.
static void fragments(void **state)
{
	uint8_t frame[COMPOSE_MAX];

	start_router();
	for (int again = 0; again < 2; again++) {
		uint32_t len = without_df(frame, "udp,dl_vlan=10," ROUTED ",packet_len=1518");
		uint64_t segments = lab_count(in->id, COUNT_SEGMENTS);
		lab_send_frame(in->id, frame, len);
		lab_expect_trace("1500 bytes against MTU 1300 of out: too large, it leaves in fragments");
		assert_int_equal(lab.n_sent, 2);
		assert_int_equal(lab.sent[0].len, 14 + 1300 - 1300 % 8 + 4);
		assert_int_equal(lab.sent[1].len, 14 + 20 + 1480 - 1280);
		assert_int_equal(lab_count(in->id, COUNT_SEGMENTS), segments + 1);
		lab_few_buffers(1);
		lab_send_frame(in->id, frame, len);
		assert_int_equal(lab.n_sent, 1);
		assert_int_equal(lab_drops(in->id, "flow.NO_MEMORY"), again + 1);
		lab_few_buffers(0);
		lab_few_buffers(-1);
	}
	// A partial checksum is finished first, as it covers all fragments.
	uint32_t len = without_df(frame, "udp," ROUTED ",packet_len=1514"), sum = 17 + 1480;
	for (int i = 26; i < 34; i += 2)
		sum += (uint32_t)(frame[i] << 8 | frame[i + 1]);
	uint8_t whole[2] = {frame[40], frame[41]};
	sum = (sum & 0xffff) + (sum >> 16);
	frame[40] = (uint8_t)(sum >> 8);
	frame[41] = (uint8_t)sum;
	struct rte_mbuf *m = lab_mbuf(frame, len, 0);
	m->ol_flags = RTE_MBUF_F_RX_L4_CKSUM_NONE;
	lab_send_mbuf(in->id, m);
	assert_int_equal(lab.n_sent, 2);
	assert_memory_equal(lab.sent[0].bytes + 40, whole, 2);
	assert_int_equal(lab.sent[0].ol_flags, 0);
	// TCP that will be cut is cut smaller, if it may be; else its sender is told.
	len = without_df(frame, "tcp," ROUTED ",packet_len=9000");
	m = lab_mbuf(frame, len, 0);
	m->ol_flags = RTE_MBUF_F_RX_LRO | RTE_MBUF_F_RX_L4_CKSUM_NONE;
	m->tso_segsz = 1460;
	lab_send_mbuf(in->id, m);
	lab_expect_trace("1500 bytes against MTU 1300 of out: too large, it is cut into smaller segments");
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab.sent[0].tx_offload >> 24 & 0xffff, 1260);
	send_large("tcp," ROUTED ",packet_len=9000", 1460);
	assert_int_equal(lab.sent[0].port, in->id);
}

// What may not be fragmented is answered by the router, before anything is changed.
static void router_tells(void **state)
{
	start_router();
	for (int traced = 1; traced >= 0; traced--) {
		lab.traced = traced;
		lab_send(in->id, "udp," ROUTED ",nw_ttl=9,packet_len=1315");
		assert_int_equal(lab.n_sent, 1);
		assert_int_equal(lab.sent[0].port, in->id);
		assert_memory_equal(lab.sent[0].bytes, "\x02\0\0\0\0\x01\x02\0\0\0\x10\x01\x08\0\x45\xc0", 16);
		assert_memory_equal(lab.sent[0].bytes + 26, "\x0a\x01\0\x01\x0a\x01\0\x0a\x03\x04", 10);
		assert_memory_equal(lab.sent[0].bytes + 38, "\0\0\x05\x14\x45\0\x05\x15", 8);
		assert_int_equal(lab.sent[0].bytes[50], 9); // the TTL that it came with
		lab_send(in->id, "udp6," ROUTED6 ",packet_len=1315");
		assert_int_equal(lab.sent[0].port, in->id);
		assert_memory_equal(lab.sent[0].bytes + 54, "\x02\0", 2);
		assert_memory_equal(lab.sent[0].bytes + 58, "\0\0\x05\x14", 4);
		lab_send(in->id, "udp," ROUTED ",packet_len=1314");
		assert_int_equal(lab.sent[0].port, out->id);
		send_large("tcp," ROUTED ",packet_len=9000", 1261);
		assert_int_equal(lab.sent[0].port, in->id);
		send_large("tcp," ROUTED ",packet_len=9000", 1260);
		assert_int_equal(lab.sent[0].port, out->id);
	}
	lab.traced = true;
	lab_send(in->id, "udp," ROUTED ",packet_len=1315");
	lab_expect_trace("1301 bytes against MTU 1300 of out: too large, and the sender is told");
	lab_expect_trace("dropped (mtu.TOO_LARGE)");
	assert_int_equal(lab_drops(in->id, "mtu.TOO_LARGE"), 7);
	lab_expect_drop(in->id, "icmp,icmp_type=3," ROUTED ",packet_len=1400", "mtu.TOO_LARGE");
	for (int i = 0; i < 200; i++)
		lab_send(in->id, "udp," ROUTED ",packet_len=1315");
	lab_expect_drop(in->id, "udp," ROUTED ",packet_len=1400", "mtu.TOO_LARGE"); // over the limit of answers
	lab_expect_trace("too large");
	// The limit is a setting.
	lab.config->other_config.pair = calloc(1, sizeof *lab.config->other_config.pair);
	lab.config->other_config.pair[0] = (struct config_pair){strdup("icmp-error-limit"), strdup("1")};
	lab.config->other_config.n = 1;
	lab_apply();
	lab_advance_ms(10000);
	unsigned told = 0;
	for (int i = 0; i < 10; i++) {
		lab_send(in->id, "udp," ROUTED ",packet_len=1315");
		told += lab.n_sent;
	}
	assert_int_equal(told, 1);
}


int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_frame_less_header_and_tags, setup, teardown),
		cmocka_unit_test_setup_teardown(each_copy_against_its_own, setup, teardown),
		cmocka_unit_test_setup_teardown(changes_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(segments_count_not_the_large_packet, setup, teardown),
		cmocka_unit_test_setup_teardown(trunks_take_what_their_largest_network_does, setup, teardown),
		cmocka_unit_test_setup_teardown(tells_who_cannot_know, setup, teardown),
		cmocka_unit_test_setup_teardown(tells_in_overlays, setup, teardown),
		cmocka_unit_test_setup_teardown(tells_nobody_else, setup, teardown),
		cmocka_unit_test_setup_teardown(fragments, setup, teardown),
		cmocka_unit_test_setup_teardown(router_tells, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
