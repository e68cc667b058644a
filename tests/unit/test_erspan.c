// Copies of mirrors that leave as ERSPAN type II (draft-foschiano-erspan-03).
#include "lab.h"
#include "compose.h"
#include "tunnel.h"

static const uint8_t own4[16] = {192, 0, 2, 1}, analyser4[16] = {192, 0, 2, 99}, own6[16] = {0xfd, [15] = 1}, analyser6[16] = {0xfd, [15] = 0x99};
static struct config_network *blue;
static struct config_port *a, *b, *up, *to;
static struct config_mirror *mirror;
static bool v6;

static void set_way(void)
{
	struct tunnel_way *way = calloc(1, sizeof *way), *old = tunnel_ways[to->id];
	struct tunnel_spec s = {.format = TUNNEL_ERSPAN, .v6 = v6, .src = v6 ? own6 : own4, .dst = v6 ? analyser6 : analyser4, .out = up->id, .network = 1,
				.ttl = 64, .dscp = 0, .df = true, .dst_mac = {2, 0, 0, 0, 0, 0x99}, .src_mac = {2, 0, 0, 0, 0, 1}};

	tunnel_make_header(&way->header[TUNNEL_ERSPAN], &s);
	rcu_publish(tunnel_ways[to->id], way);
	rcu_free_later(old);
}

static void start(bool is_v6)
{
	lab_setup();
	v6 = is_v6;
	struct config_network *under = lab_network("under", 0);
	blue = lab_network("blue", 10);
	a = lab_port("a", VLAN_TRUNK, NULL);
	lab_trunk(a, blue);
	b = lab_port("b", VLAN_TRUNK, NULL);
	lab_trunk(b, blue);
	up = lab_port("up", VLAN_ACCESS, under);
	to = lab_port("to", VLAN_NETWORK_ID, NULL);
	to->kind = PORT_TUNNEL;
	to->remote.v6 = v6;
	memcpy(to->remote.b, v6 ? analyser6 : analyser4, 16);
	lab_static(blue, b, "02:00:00:00:00:0b");
	lab.config->n_router_ports = 1;
	struct config_router_port *rp = lab.config->router_ports;
	rp->name = strdup("under-1");
	rp->network = under->row;
	rp->addresses = calloc(1, sizeof *rp->addresses);
	rp->n_addresses = 1;
	rp->addresses[0].ip.v6 = v6;
	memcpy(rp->addresses[0].ip.b, v6 ? own6 : own4, 16);
	lab.config->tunnel_ips = calloc(1, sizeof *lab.config->tunnel_ips);
	lab.config->n_tunnel_ips = 1;
	lab.config->tunnel_ips[0] = rp->addresses[0].ip;
	lab.config->mirrors = mirror = calloc(1, sizeof *mirror);
	lab.config->n_mirrors = 1;
	mirror->name = strdup("span");
	mirror->row.b[0] = 0x77;
	mirror->has_address = true;
	mirror->address = to->remote;
	mirror->session = 0x2a5;
	mirror->src = calloc(1, sizeof *mirror->src);
	mirror->src[0] = a->row;
	mirror->n_src = 1;
	lab_apply();
	assert_null(mirror->error);
	set_way();
}

static int setup4(void **state)
{
	start(false);
	return 0;
}

static int setup6(void **state)
{
	start(true);
	return 0;
}

static int teardown(void **state)
{
	lab_check();
	free(tunnel_ways[to->id]);
	tunnel_ways[to->id] = NULL;
	lab_teardown();
	return 0;
}

static const uint8_t *be32(const uint8_t *p, uint32_t *v)
{
	*v = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
	return p + 4;
}

// What left by the underlay is `frame`, its first n bytes, with this sequence number and word of VLAN, priority, En, T and session.
static void is_copy(const struct lab_sent *s, const uint8_t *frame, uint32_t n, uint32_t sequence, uint32_t word)
{
	unsigned ip = v6 ? 40 : 20;
	const uint8_t *p = s->bytes;
	uint32_t v;

	assert_int_equal(s->len, 14 + ip + 16 + n);
	assert_memory_equal(p, "\2\0\0\0\0\x99\2\0\0\0\0\1", 12);
	assert_int_equal(p[14 + (v6 ? 6 : 9)], 47);
	if (v6) {
		assert_int_equal(p[14 + 4] << 8 | p[14 + 5], 16 + n);
		assert_memory_equal(p + 14 + 24, analyser6, 16);
	} else {
		assert_int_equal(p[14 + 2] << 8 | p[14 + 3], 36 + n);
		assert_memory_equal(p + 14 + 16, analyser4, 4);
		uint32_t sum = 0;
		for (unsigned i = 0; i < 20; i += 2)
			sum += (uint32_t)(p[14 + i] << 8 | p[15 + i]);
		assert_int_equal((sum & 0xffff) + (sum >> 16), 0xffff);
	}
	p = be32(p + 14 + ip, &v);
	assert_int_equal(v, 0x100088be);
	p = be32(p, &v);
	assert_int_equal(v, sequence);
	p = be32(p, &v);
	assert_int_equal(v, word);
	p = be32(p, &v);
	assert_int_equal(v, 0);
	assert_memory_equal(p, frame, n);
}

static void copies(void **state)
{
	uint8_t frame[LAB_FRAME];
	uint32_t len = lab_compose(frame, "udp,dl_vlan=10,dl_vlan_pcp=5,dl_dst=02:00:00:00:00:0b");

	for (uint32_t i = 0; i < 3; i++) {
		lab_send_frame(a->id, frame, len);
		assert_int_equal(lab.n_sent, 2);
		is_copy(lab_sent_to(up->id), frame, len, i, 0x1000u << 16 | 10u << 16 | 5u << 13 | 3u << 11 | 0x2a5);
		lab_expect_trace("a copy for to, as a mirror wants");
		lab_expect_trace("erspan packet, session 677");
	}
	assert_int_equal(lab_count(a->id, COUNT_COPIES), 3);
	assert_int_equal(lab_count(to->id, COUNT_TX), 3);
	// What isn't let in is copied, too: here what has no tag.
	len = lab_compose(frame, "udp,dl_dst=02:00:00:00:00:0b");
	lab_send_frame(a->id, frame, len);
	assert_int_equal(lab.n_sent, 1);
	is_copy(&lab.sent[0], frame, len, 3, 0x10000000u | 0x2a5);
	// Not all of it: so it says.
	mirror->snaplen = 64;
	lab_apply();
	set_way();
	len = lab_compose(frame, "udp,dl_vlan=10,packet_len=200,dl_dst=02:00:00:00:00:0b");
	lab_send_frame(a->id, frame, len);
	is_copy(lab_sent_to(up->id), frame, 64, 4, 0x1000u << 16 | 10u << 16 | 3u << 11 | 4u << 8 | 0x2a5);
	// What the underlay has no room for is cut too: its MTU is 1500.
	mirror->snaplen = 0;
	lab_apply();
	set_way();
	len = lab_compose(frame, "udp,dl_vlan=10,packet_len=1518,dl_dst=02:00:00:00:00:0b");
	lab_send_frame(a->id, frame, len);
	assert_true(lab_sent_to(up->id)->len - 14 <= 1500);
	is_copy(lab_sent_to(up->id), frame, v6 ? 1444 : 1464, 5, 0x1000u << 16 | 10u << 16 | 3u << 11 | 4u << 8 | 0x2a5);
}

static void no_way(void **state)
{
	uint8_t frame[LAB_FRAME];
	uint32_t len = lab_compose(frame, "udp,dl_vlan=10,dl_dst=02:00:00:00:00:0b");

	rcu_free_later(tunnel_ways[to->id]);
	rcu_publish(tunnel_ways[to->id], NULL);
	lab_send_frame(a->id, frame, len);
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab_drops(a->id, "tunnel.NO_NEXT_HOP"), 1);
	// Few buffers: the copy is lost, the packet isn't.
	set_way();
	lab_few_buffers(0);
	lab_send_frame(a->id, frame, len);
	lab_few_buffers(-1);
	assert_int_equal(lab.n_sent, 1);
	// An address that nothing is sent from.
	lab.config->n_tunnel_ips = 0;
	mirror->snaplen = 70;
	to->kind = PORT_DEVICE;
	lab_apply();
	assert_non_null(mirror->error);
	assert_non_null(strstr(mirror->error, "tunnel_ips"));
	to->kind = PORT_TUNNEL;
	lab.config->n_tunnel_ips = 1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(copies, setup4, teardown),
		cmocka_unit_test_setup_teardown(copies, setup6, teardown),
		cmocka_unit_test_setup_teardown(no_way, setup4, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
