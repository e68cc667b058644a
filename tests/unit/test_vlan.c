// vlan: every mode of ingress against every kind of frame and every mode of egress, byte by byte (IEEE 802.1Q).
#include "lab.h"
#include "compose.h"

enum { A, B }; // networks: VLAN 10, VLAN 20

static struct config_network *net[2];

static int setup(void **state)
{
	lab_setup();
	net[A] = lab_network("blue", 10);
	net[B] = lab_network("red", 20);
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

static const enum vlan_mode modes[] = {VLAN_ACCESS, VLAN_TRUNK, VLAN_NATIVE_TAGGED, VLAN_NATIVE_UNTAGGED, VLAN_DOT1Q_TUNNEL};
#define N_MODES 5

enum tags {
	UNTAGGED,
	PRIORITY,  // VLAN 0, priority 5
	OWN,       // VLAN 10, priority 5
	OTHER,     // VLAN 20
	STRANGE,   // VLAN 30, of no network
	OWN_TWICE, // VLAN 10 around VLAN 99
	N_TAGS,
};

static uint32_t make(uint8_t *frame, enum tags tags)
{
	uint32_t len = lab_compose(frame, "udp,packet_len=100");

	switch (tags) {
	case PRIORITY:
		return lab_tag(frame, len, 0x8100, 0xa000);
	case OWN:
		return lab_tag(frame, len, 0x8100, 0xb00a);
	case OTHER:
		return lab_tag(frame, len, 0x8100, 20);
	case STRANGE:
		return lab_tag(frame, len, 0x8100, 30);
	case OWN_TWICE:
		len = lab_tag(frame, len, 0x8100, 99);
		return lab_tag(frame, len, 0x8100, 0xb00a);
	default:
		return len;
	}
}

// What the standard says of the way in: the network, and whether the outer tag is used up. -1 and a reason: it does not come in.
struct way_in {
	int network;
	bool consumed;
	const char *reason;
};

static struct way_in way_in(enum vlan_mode mode, enum tags tags)
{
	bool trunk = mode == VLAN_TRUNK || mode == VLAN_NATIVE_TAGGED || mode == VLAN_NATIVE_UNTAGGED;

	if (mode == VLAN_DOT1Q_TUNNEL)
		return (struct way_in){A, false, NULL};
	if (tags == UNTAGGED || tags == PRIORITY) {
		if (mode == VLAN_TRUNK)
			return (struct way_in){-1, false, "vlan.NO_NETWORK"};
		return (struct way_in){A, tags == PRIORITY, NULL};
	}
	if (!trunk || tags == STRANGE)
		return (struct way_in){-1, false, "vlan.NOT_ALLOWED"};
	return (struct way_in){tags == OTHER ? B : A, true, NULL};
}

// The frame as it should leave: from the frame that came in, not by the switch's own functions.
static uint32_t expected(uint8_t *to, const uint8_t *frame, uint32_t len, bool tagged, struct way_in in, enum vlan_mode in_mode, enum vlan_mode out)
{
	uint16_t tci = tagged ? (uint16_t)(frame[14] << 8 | frame[15]) : 0, vid = in.network == A ? 10 : 20;
	bool out_tag = out == VLAN_TRUNK || out == VLAN_NATIVE_TAGGED || (out == VLAN_NATIVE_UNTAGGED && in.network == B);

	memcpy(to, frame, len);
	if (in.consumed) {
		memmove(to + 12, to + 16, len - 16);
		len -= 4;
	}
	if (!out_tag)
		return len;
	return lab_tag(to, len, in_mode == VLAN_DOT1Q_TUNNEL && tagged ? 0x88a8 : 0x8100, (uint16_t)((tci & 0xf000) | vid));
}

static bool member(enum vlan_mode out, int network)
{
	return network == A || out == VLAN_TRUNK || out == VLAN_NATIVE_TAGGED || out == VLAN_NATIVE_UNTAGGED;
}

static void check(uint16_t from, uint16_t to, enum vlan_mode in_mode, enum vlan_mode out_mode, enum tags tags, bool flood)
{
	uint8_t frame[256], want[256];
	uint32_t len = make(frame, tags);
	struct way_in in = way_in(in_mode, tags);

	if (in.network < 0) {
		lab_expect_drop_frame(from, frame, len, in.reason);
		return;
	}
	if (!member(out_mode, in.network)) {
		lab_expect_drop_frame(from, frame, len, "flow.NOBODY");
		return;
	}
	lab_send_frame(from, frame, len);
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab.sent[0].port, to);
	uint32_t n = expected(want, frame, len, tags != UNTAGGED, in, in_mode, out_mode);
	assert_int_equal(lab.sent[0].len, n);
	assert_memory_equal(lab.sent[0].bytes, want, n);
	lab_expect_trace(flood ? "flooded to every other port" : "output to out");
	lab_expect_trace("out by out");
	lab_reject_trace("DEFECT");
}

static void matrix(void **state)
{
	struct config_port *in = lab_port("in", VLAN_ACCESS, net[A]), *out = lab_port("out", VLAN_ACCESS, net[A]);

	for (unsigned i = 0; i < N_MODES; i++) {
		for (unsigned o = 0; o < N_MODES; o++) {
			in->vlan_mode = modes[i];
			out->vlan_mode = modes[o];
			in->network = modes[i] == VLAN_TRUNK ? (struct row_id){{0}} : net[A]->row;
			out->network = modes[o] == VLAN_TRUNK ? (struct row_id){{0}} : net[A]->row;
			out->n_addresses = 0;
			lab_apply();
			assert_null(in->error);
			assert_null(out->error);
			for (enum tags t = 0; t < N_TAGS; t++)
				for (int again = 0; again < 2; again++) // resolved, then by the cached flow
					check(in->id, out->id, modes[i], modes[o], t, true);
		}
	}
}

// The same to a known destination, whose rewrite is in the flow.
static void matrix_of_known_destination(void **state)
{
	struct config_port *in = lab_port("in", VLAN_ACCESS, net[A]), *out = lab_port("out", VLAN_ACCESS, net[A]);

	lab_apply();
	for (unsigned i = 0; i < N_MODES; i++) {
		for (unsigned o = 0; o < N_MODES; o++) {
			in->vlan_mode = modes[i];
			out->vlan_mode = modes[o];
			in->network = modes[i] == VLAN_TRUNK ? (struct row_id){{0}} : net[A]->row;
			out->network = modes[o] == VLAN_TRUNK ? (struct row_id){{0}} : net[A]->row;
			lab.config->n_fdb = 0;
			lab_static(net[A], out, "02:00:00:00:00:02");
			if (member(modes[o], B))
				lab_static(net[B], out, "02:00:00:00:00:02");
			lab_apply();
			for (enum tags t = 0; t < N_TAGS; t++)
				for (int again = 0; again < 2; again++)
					check(in->id, out->id, modes[i], modes[o], t, false);
		}
	}
}

// Clones of one packet leave by ports that want different tags: each has its own, and the payload is everybody's.
static void flood_to_every_mode(void **state)
{
	uint16_t from = lab_port("from", VLAN_NATIVE_UNTAGGED, net[A])->id, to[N_MODES];
	static const char *const names[N_MODES] = {"access", "trunk", "native-tagged", "native-untagged", "tunnel"};
	uint8_t frame[256], want[256];

	for (unsigned i = 0; i < N_MODES; i++)
		to[i] = lab_port(names[i], modes[i], modes[i] == VLAN_TRUNK ? NULL : net[A])->id;
	lab_apply();
	for (enum tags t = UNTAGGED; t <= OWN; t++) {
		uint32_t len = make(frame, t);
		struct way_in in = way_in(VLAN_NATIVE_UNTAGGED, t);

		for (int again = 0; again < 2; again++) {
			lab_send_frame(from, frame, len);
			assert_int_equal(lab.n_sent, N_MODES);
			for (unsigned i = 0; i < N_MODES; i++) {
				const struct lab_sent *s = lab_sent_to(to[i]);
				uint32_t n = expected(want, frame, len, t != UNTAGGED, in, VLAN_NATIVE_UNTAGGED, modes[i]);

				assert_non_null(s);
				assert_int_equal(s->len, n);
				assert_memory_equal(s->bytes, want, n);
			}
			lab_expect_trace("a copy for tunnel");
		}
	}
	assert_int_equal(lab_count(from, COUNT_COPIES), 6 * (N_MODES - 1));
}

// As above, and large: the payload is in further mbufs, which the copies share.
static void flood_of_a_large_frame(void **state)
{
	static uint8_t frame[9000], want[9100];
	struct config_port *from = lab_port("from", VLAN_ACCESS, net[A]), *p[3];

	net[A]->mtu = 9216;
	p[0] = lab_port("access", VLAN_ACCESS, net[A]);
	p[1] = lab_port("trunk", VLAN_TRUNK, NULL);
	p[2] = lab_port("trunk2", VLAN_TRUNK, NULL);
	lab_apply();
	uint32_t len = lab_compose(frame, "udp,packet_len=9000");
	for (uint32_t i = 60; i < len; i++)
		frame[i] = (uint8_t)(i * 7);
	for (uint32_t cut = 100; cut < 2048; cut += 900) {
		lab_send_mbuf(from->id, lab_mbuf(frame, len, cut));
		assert_int_equal(lab.n_sent, 3);
		for (int i = 0; i < 3; i++) {
			const struct lab_sent *s = lab_sent_to(p[i]->id);

			memcpy(want, frame, len);
			uint32_t n = i ? lab_tag(want, len, 0x8100, 10) : len;
			assert_int_equal(s->len, n);
			assert_memory_equal(s->bytes, want, n);
		}
	}
}

// Headers that fill a buffer: the copies' tags go in front all the same.
static void flood_of_long_headers(void **state)
{
	struct config_port *from = lab_port("from", VLAN_ACCESS, net[A]), *t1 = lab_port("t1", VLAN_TRUNK, NULL), *t2 = lab_port("t2", VLAN_TRUNK, NULL);
	uint8_t frame[COMPOSE_MAX], want[COMPOSE_MAX];
	uint32_t len = lab_compose(frame, "ipv6,nw_proto=99,packet_len=3000");

	net[A]->mtu = 9000;
	lab_apply();
	frame[20] = 60; // destination options of 1960 bytes, then TCP
	frame[54] = 6;
	frame[55] = 1960 / 8 - 1;
	frame[54 + 1960 + 12] = 0x50;
	lab_send_frame(from->id, frame, len);
	assert_int_equal(lab.n_sent, 2);
	memcpy(want, frame, len);
	assert_int_equal(lab_tag(want, len, 0x8100, 10), len + 4);
	for (int i = 0; i < 2; i++) {
		const struct lab_sent *s = lab_sent_to(i ? t1->id : t2->id);

		assert_int_equal(s->len, len + 4);
		assert_memory_equal(s->bytes, want, len + 4);
	}
}

static void qinq_ethertype_is_a_choice(void **state)
{
	struct config_port *in = lab_port("in", VLAN_DOT1Q_TUNNEL, net[A]), *out = lab_port("out", VLAN_TRUNK, NULL);
	uint8_t frame[256], want[256];

	in->other_config.pair = calloc(1, sizeof *in->other_config.pair);
	in->other_config.pair[0] = (struct config_pair){strdup("qinq-ethtype"), strdup("802.1q")};
	in->other_config.n = 1;
	lab_apply();
	uint32_t len = make(frame, STRANGE);
	lab_send_frame(in->id, frame, len);
	memcpy(want, frame, len);
	assert_int_equal(lab.sent[0].len, lab_tag(want, len, 0x8100, 10));
	assert_memory_equal(lab.sent[0].bytes, want, len + 4);
	assert_int_equal(lab.sent[0].port, out->id);
}

static void customer_vlans(void **state)
{
	struct config_port *in = lab_port("in", VLAN_DOT1Q_TUNNEL, net[A]);
	uint16_t out = lab_port("out", VLAN_ACCESS, net[A])->id;
	uint8_t frame[256];

	in->cvlans = calloc(2, sizeof *in->cvlans);
	in->cvlans[0] = 30;
	in->cvlans[1] = 4094;
	in->n_cvlans = 2;
	lab_apply();
	lab_expect_drop_frame(in->id, frame, make(frame, OTHER), "vlan.CUSTOMER");
	lab_expect_drop_frame(in->id, frame, make(frame, UNTAGGED), "vlan.CUSTOMER");
	lab_send_frame(in->id, frame, make(frame, STRANGE));
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab.sent[0].port, out);
	lab_expect_ports(in->id, "udp,dl_vlan=4094", out, 0);
	in->cvlans[0] = 20;
	lab_apply();
	lab_expect_drop_frame(in->id, frame, make(frame, STRANGE), "vlan.CUSTOMER");
}

static void addresses_that_no_frame_has(void **state)
{
	uint16_t in = lab_port("in", VLAN_ACCESS, net[A])->id, out = lab_port("out", VLAN_ACCESS, net[A])->id;

	lab_apply();
	lab_expect_drop(in, "udp,dl_src=03:00:00:00:00:01", "vlan.GROUP_SOURCE");
	lab_expect_drop(in, "udp,dl_src=ff:ff:ff:ff:ff:ff", "vlan.GROUP_SOURCE");
	lab_expect_drop(in, "udp,dl_src=00:00:00:00:00:00", "vlan.ZERO_SOURCE");
	lab_expect_drop(in, "dl_type=0x88cc,dl_dst=01:80:c2:00:00:0e", "vlan.RESERVED");
	lab_expect_drop(in, "dl_type=0x05ff,dl_dst=01:80:c2:00:00:00", "vlan.RESERVED");
	lab_expect_drop(in, "dl_type=0x88cc,dl_dst=01:80:c2:00:00:0f", "vlan.RESERVED");
	lab_expect_ports(in, "dl_type=0x88cc,dl_dst=01:80:c2:00:00:10", out, 0);
	net[A]->forward_bpdu = true;
	lab_apply();
	lab_expect_ports(in, "dl_type=0x05ff,dl_dst=01:80:c2:00:00:00", out, 0);
}

static void disabled_ports(void **state)
{
	struct config_port *in = lab_port("in", VLAN_ACCESS, net[A]), *out = lab_port("out", VLAN_ACCESS, net[A]);

	lab_apply();
	lab_expect_ports(in->id, "udp", out->id, 0);
	in->enabled = false;
	lab_apply();
	lab_expect_drop(in->id, "udp", "vlan.DISABLED");
	in->enabled = true;
	lab_apply();
	lab_expect_ports(in->id, "udp", out->id, 0);
}

static void ports_without_a_network(void **state)
{
	struct config_port *in = lab_port("in", VLAN_ACCESS, NULL);

	lab_port("out", VLAN_ACCESS, net[A]);
	lab_apply();
	assert_non_null(strstr(in->error, "no network"));
	lab_expect_drop(in->id, "udp", "vlan.NO_NETWORK");
	lab_expect_drop(in->id, "udp,dl_vlan=10", "vlan.NOT_ALLOWED");
	in->network = net[A]->row;
	lab_apply();
	assert_null(in->error);
	lab_send(in->id, "udp");
	assert_int_equal(lab.n_sent, 1);
}

static void trunks_of_chosen_networks(void **state)
{
	struct config_port *in = lab_port("in", VLAN_TRUNK, NULL), *out = lab_port("out", VLAN_TRUNK, NULL);
	uint8_t frame[256];

	lab_trunk(in, net[A]);
	lab_apply();
	lab_expect_ports(in->id, "udp,dl_vlan=10", out->id, 0);
	lab_expect_drop_frame(in->id, frame, make(frame, OTHER), "vlan.NOT_ALLOWED");
	lab_trunk(in, net[B]);
	lab_apply();
	lab_expect_ports(in->id, "udp,dl_vlan=20", out->id, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(matrix, setup, teardown),
		cmocka_unit_test_setup_teardown(matrix_of_known_destination, setup, teardown),
		cmocka_unit_test_setup_teardown(flood_to_every_mode, setup, teardown),
		cmocka_unit_test_setup_teardown(flood_of_a_large_frame, setup, teardown),
		cmocka_unit_test_setup_teardown(flood_of_long_headers, setup, teardown),
		cmocka_unit_test_setup_teardown(qinq_ethertype_is_a_choice, setup, teardown),
		cmocka_unit_test_setup_teardown(customer_vlans, setup, teardown),
		cmocka_unit_test_setup_teardown(addresses_that_no_frame_has, setup, teardown),
		cmocka_unit_test_setup_teardown(disabled_ports, setup, teardown),
		cmocka_unit_test_setup_teardown(ports_without_a_network, setup, teardown),
		cmocka_unit_test_setup_teardown(trunks_of_chosen_networks, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
