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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_frame_less_header_and_tags, setup, teardown),
		cmocka_unit_test_setup_teardown(each_copy_against_its_own, setup, teardown),
		cmocka_unit_test_setup_teardown(changes_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(segments_count_not_the_large_packet, setup, teardown),
		cmocka_unit_test_setup_teardown(trunks_take_what_their_largest_network_does, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
