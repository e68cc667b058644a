// The tables of tunnels: the way to a remote end point by routes, neighbours and the FDB; MTU; stations that others tell of; what goes takes its entries along.
#include "lab.h"
#include "fdb.h"
#include "neighbour_table.h"
#include "tunnel.h"
#include "tunnel_mtu.h"
#include "tunnel_table.h"

#include <arpa/inet.h>
#include <stdio.h>

#define ROUTER_MAC "02:00:00:00:10:01"
#define HOP_MAC "02:00:00:00:10:02"
#define GATEWAY_MAC "02:00:00:00:10:fe"

static struct config_network *under, *blue;
static struct config_router *r1;
static struct config_port *vm, *up, *far;
static struct config_remote_mac macs[4];

static struct config_ip ip(const char *text)
{
	struct config_ip a = {.v6 = strchr(text, ':') != NULL};

	assert_int_equal(inet_pton(a.v6 ? AF_INET6 : AF_INET, text, a.b), 1);
	return a;
}

static struct config_port *tunnel(const char *name, const char *remote)
{
	struct config_port *p = lab_port(name, VLAN_NETWORK_ID, NULL);

	p->kind = PORT_TUNNEL;
	p->remote = ip(remote);
	lab_trunk(p, blue);
	lab.config->remotes = realloc(lab.config->remotes, (lab.config->n_remotes + 1) * sizeof *lab.config->remotes);
	lab.config->remotes[lab.config->n_remotes++] = (struct config_remote){.ip = p->remote, .name = strdup(name)};
	return p;
}

static int setup(void **state)
{
	lab_setup();
	under = lab_network("under", 7);
	blue = lab_network("blue", 0);
	blue->vni = 5000;
	blue->tunnel = strdup("vxlan");
	vm = lab_port("vm", VLAN_ACCESS, blue);
	up = lab_port("up", VLAN_ACCESS, under);
	r1 = lab_router("r1");
	lab_router_port("r1-under", r1, under, ROUTER_MAC, "192.0.2.1/24", "fd00::1/64", "fe80::1/64", NULL);
	lab.config->tunnel_ips = calloc(2, sizeof *lab.config->tunnel_ips);
	lab.config->tunnel_ips[0] = ip("192.0.2.1");
	lab.config->tunnel_ips[1] = ip("fd00::1");
	lab.config->n_tunnel_ips = 2;
	return 0;
}

static int teardown(void **state)
{
	lab.config->remote_macs = NULL; // this test's own
	lab.config->n_remote_macs = 0;
	lab_teardown();
	return 0;
}

static struct tunnel_view view_of(uint16_t port)
{
	struct tunnel_view v;

	for (uint64_t at = 0; tunnel_table_at(&at, &v);)
		if (v.port == port)
			return v;
	fail_msg("no tunnel on port %u", port);
	return v;
}

static void send_blue(void)
{
	lab_send(vm->id, "udp,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:09,nw_src=10.0.0.1,nw_dst=10.0.0.9");
}

// The solicitation that went out, if one did.
static bool asked_for(const char *address)
{
	struct config_ip a = ip(address);

	for (unsigned i = 0; i < lab.n_sent; i++) {
		const struct lab_sent *s = &lab.sent[i];

		if (s->port == up->id && (a.v6 ? s->len >= 78 && !memcmp(s->bytes + 62, a.b, 16) : s->len >= 42 && s->bytes[13] == 6 && !memcmp(s->bytes + 38, a.b, 4)))
			return true;
	}
	return false;
}

static void finds_its_way(void **state)
{
	far = tunnel("far", "192.0.2.9");
	lab_static(blue, far, "02:00:00:00:00:09");
	lab_apply();
	assert_int_equal(view_of(far->id).state, TUNNEL_NO_NEIGHBOR);
	send_blue();
	assert_int_equal(lab_drops(vm->id, "tunnel.NO_NEXT_HOP"), 1);
	lab_expect_trace("next hop not known yet");
	lab_forget_sent();
	lab_pass_ms(2000);
	assert_true(asked_for("192.0.2.9"));
	lab_send(up->id, "arp,arp_op=2,dl_src=" HOP_MAC ",dl_dst=" ROUTER_MAC ",arp_spa=192.0.2.9,arp_tpa=192.0.2.1,arp_sha=" HOP_MAC ",arp_tha=" ROUTER_MAC);
	lab_pass_ms(200);
	struct tunnel_view v = view_of(far->id);
	assert_int_equal(v.state, TUNNEL_UP);
	assert_int_equal(v.out, up->id);
	assert_int_equal(v.underlay, under->id);
	send_blue();
	assert_int_equal(lab.n_sent, 1);
	assert_memory_equal(lab.sent[0].bytes, "\x02\0\0\0\x10\x02\x02\0\0\0\x10\x01\x08\0", 14);
	lab_expect_trace("by tunnel far, vxlan, VNI 5000, to 192.0.2.9: up");
	// It is kept in use: asked again by itself, as long as it answers.
	lab_forget_sent();
	bool again = false;
	for (unsigned i = 0; i < 100 && !again; i++) {
		lab_forget_sent();
		lab_pass_ms(1000);
		again = asked_for("192.0.2.9");
	}
	assert_true(again);
	// It moves to another station.
	lab_send(up->id, "arp,arp_op=2,dl_src=" GATEWAY_MAC ",dl_dst=" ROUTER_MAC ",arp_spa=192.0.2.9,arp_tpa=192.0.2.1,arp_sha=" GATEWAY_MAC ",arp_tha=" ROUTER_MAC);
	lab_pass_ms(200);
	send_blue();
	assert_int_equal(lab.n_sent, 1);
	assert_memory_equal(lab.sent[0].bytes, "\x02\0\0\0\x10\xfe", 6);
	// It is silent.
	lab_pass_ms(120000);
	assert_int_equal(view_of(far->id).state == TUNNEL_UP, 0);
	lab_forget_sent();
	uint64_t before = lab_drops(vm->id, "tunnel.NO_NEXT_HOP");
	send_blue();
	assert_int_equal(lab_drops(vm->id, "tunnel.NO_NEXT_HOP"), before + 1);
}

static void by_a_gateway(void **state)
{
	far = tunnel("far", "198.51.100.7");
	lab_static(blue, far, "02:00:00:00:00:09");
	lab_apply();
	lab_pass_ms(1000);
	assert_int_equal(view_of(far->id).state, TUNNEL_NO_ROUTE);
	lab_route(r1, "0.0.0.0/0", ROUTE_UNICAST, "192.0.2.254", NULL);
	lab_apply();
	lab_forget_sent();
	lab_pass_ms(2000);
	assert_true(asked_for("192.0.2.254"));
	lab_send(up->id, "arp,arp_op=2,dl_src=" GATEWAY_MAC ",dl_dst=" ROUTER_MAC ",arp_spa=192.0.2.254,arp_tpa=192.0.2.1,arp_sha=" GATEWAY_MAC ",arp_tha=" ROUTER_MAC);
	lab_pass_ms(200);
	send_blue();
	assert_int_equal(lab.n_sent, 1);
	assert_memory_equal(lab.sent[0].bytes, "\x02\0\0\0\x10\xfe", 6);
	assert_memory_equal(lab.sent[0].bytes + 30, "\xc6\x33\x64\x07", 4);
}

// The underlay is a tagged network of a trunk, IPv6.
static void tagged_ipv6(void **state)
{
	up->vlan_mode = VLAN_TRUNK;
	up->network = (struct row_id){{0}};
	far = tunnel("far", "fd00::9");
	lab_static(blue, far, "02:00:00:00:00:09");
	lab_apply();
	uint8_t frame[LAB_FRAME];
	uint32_t len = lab_compose(frame, "icmp6,dl_src=" HOP_MAC ",dl_dst=" ROUTER_MAC ",ipv6_src=fd00::9,ipv6_dst=fd00::1,nw_ttl=255,icmpv6_type=136,nd_target=fd00::9,nd_tll=" HOP_MAC);
	frame[14 + 40 + 4] = 0x60; // solicited, override: as an answer
	frame[14 + 40 + 2] = frame[14 + 40 + 3] = 0;
	uint32_t sum = 58 + (len - 54);
	for (unsigned i = 22; i < len; i += 2)
		sum += (uint32_t)(frame[i] << 8 | frame[i + 1]);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	frame[56] = (uint8_t)(~sum >> 8);
	frame[57] = (uint8_t)~sum;
	len = lab_tag(frame, len, 0x8100, 7);
	lab_pass_ms(1000);
	lab_send_frame(up->id, frame, len);
	lab_pass_ms(200);
	assert_int_equal(view_of(far->id).state, TUNNEL_UP);
	send_blue();
	assert_int_equal(lab.n_sent, 1);
	assert_memory_equal(lab.sent[0].bytes + 12, "\x81\0\0\x07\x86\xdd", 6);
	assert_true(lab.sent[0].ol_flags & RTE_MBUF_F_TX_UDP_CKSUM);
	// What the other end sends, back to the same host.
	uint8_t back[LAB_FRAME];
	memcpy(back, lab.sent[0].bytes, lab.sent[0].len);
	len = lab.sent[0].len;
	memcpy(back, lab.sent[0].bytes + 6, 6);
	memcpy(back + 6, lab.sent[0].bytes, 6);
	memcpy(back + 18 + 8, lab.sent[0].bytes + 18 + 24, 16);
	memcpy(back + 18 + 24, lab.sent[0].bytes + 18 + 8, 16);
	memset(back + 18 + 40 + 6, 0, 2); // RFC 6935
	memcpy(back + 74, "\x02\0\0\0\0\x01\x02\0\0\0\0\x09", 12);
	lab_send_frame(up->id, back, len);
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab.sent[0].port, vm->id);
	assert_int_equal(lab.sent[0].len, len - 74);
}

static void mtus(void **state)
{
	under->mtu = 1500;
	far = tunnel("far", "192.0.2.9");
	struct config_port *six = tunnel("six", "fd00::9");
	lab_apply();
	assert_int_equal(lport_get(far->id)->mtu, 1450);
	assert_int_equal(lport_get(six->id)->mtu, 1430);
	assert_int_equal(network_get(blue->id)->mtu, 1430);
	assert_int_equal(lport_get(vm->id)->mtu, 1430);
	assert_int_equal(network_get(under->id)->mtu, 1500);
	under->mtu = 9000;
	blue->mtu = 1500;
	lab_apply();
	assert_int_equal(network_get(blue->id)->mtu, 1500);
	assert_int_equal(lport_get(far->id)->mtu, 8950);
	// An uplink that takes less than its network says.
	free(up->type);
	up->type = strdup("kernel");
	up->mtu = 1400;
	lab_apply();
	assert_int_equal(lport_get(far->id)->mtu, 1350);
	assert_int_equal(network_get(blue->id)->mtu, 1330);
	free(blue->tunnel);
	blue->tunnel = strdup("gre");
	lab_apply();
	assert_int_equal(lport_get(far->id)->mtu, 1358);
}

// ---- path MTU

// An ICMP error of `by` for the end point: about a packet of `total` bytes that it sent.
struct error {
	uint8_t b[256];
	unsigned len, l4, quote, inner; // offsets: ICMP, the packet in it, what is behind its IP header
	bool v6;
};

static void put16(uint8_t *b, unsigned v)
{
	b[0] = (uint8_t)(v >> 8);
	b[1] = (uint8_t)v;
}

static unsigned sum16(unsigned sum, const uint8_t *b, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		sum += i & 1 ? b[i] : (unsigned)b[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static void sum_up(struct error *e)
{
	uint8_t *ip = e->b + 14;
	unsigned len = e->len - e->l4;

	put16(e->b + e->l4 + 2, 0);
	if (e->v6) {
		put16(e->b + e->l4 + 2, ~sum16(sum16(58 + len, ip + 8, 32), e->b + e->l4, len) & 0xffff);
	} else {
		put16(ip + 10, 0);
		put16(ip + 10, ~sum16(0, ip, 20) & 0xffff);
		put16(e->b + e->l4 + 2, ~sum16(0, e->b + e->l4, len) & 0xffff);
	}
}

static void too_big(struct error *e, const char *remote, unsigned total, unsigned mtu)
{
	struct config_ip far_ip = ip(remote), own = ip(far_ip.v6 ? "fd00::1" : "192.0.2.1"), by = ip(far_ip.v6 ? "fd00::fe" : "192.0.2.254");
	static const uint8_t mac[12] = {2, 0, 0, 0, 0x10, 1, 2, 0, 0, 0, 0x10, 0xfe};
	bool v6 = far_ip.v6;
	unsigned ip_len = v6 ? 40 : 20;

	memset(e, 0, sizeof *e);
	e->v6 = v6;
	e->l4 = 14 + ip_len;
	e->quote = e->l4 + 8;
	e->inner = e->quote + ip_len;
	e->len = e->inner + 16 + 20;
	memcpy(e->b, mac, 12);
	put16(e->b + 12, v6 ? 0x86dd : 0x0800);
	for (unsigned i = 0; i < 2; i++) { // the error's header, and that of the packet
		uint8_t *h = e->b + (i ? e->quote : 14);
		const uint8_t *src = i ? own.b : by.b, *dst = i ? far_ip.b : own.b;
		unsigned size = i ? total : e->len - 14;

		h[0] = v6 ? 0x60 : 0x45;
		if (v6) {
			put16(h + 4, size - 40);
			h[6] = i ? 17 : 58;
			h[7] = 60;
			memcpy(h + 8, src, 16);
			memcpy(h + 24, dst, 16);
		} else {
			put16(h + 2, size);
			h[8] = 60;
			h[9] = i ? 17 : 1;
			memcpy(h + 12, src, 4);
			memcpy(h + 16, dst, 4);
		}
	}
	e->b[e->l4] = v6 ? 2 : 3;
	e->b[e->l4 + 1] = v6 ? 0 : 4;
	put16(e->b + e->l4 + 6, mtu);
	uint8_t *udp = e->b + e->inner;
	put16(udp, 0xc123);
	put16(udp + 2, 4789);
	put16(udp + 4, total - ip_len);
	udp[8] = 8;
	put16(udp + 12, 5000 >> 8);
	udp[14] = 5000 & 255;
	sum_up(e);
}

// It is believed, and the config applied as the daemon does; or not.
static void believed(const struct error *e, bool yes)
{
	uint64_t consumed = lab_count(up->id, COUNT_CONSUMED), drops = lab_drops(up->id, "router.NOT_SERVED");

	lab_send_frame(up->id, e->b, e->len);
	lab_pass_ms(1100);
	if (lab_count(up->id, COUNT_CONSUMED) != consumed + yes || lab_drops(up->id, "router.NOT_SERVED") != drops + !yes)
		fail_msg("believed, or not:\n%s", lab.trace);
	lab_expect_trace("an error, which may say what the path of a tunnel takes");
	if (tunnel_mtu_stale())
		lab_apply();
	assert_false(tunnel_mtu_stale());
}

static void start_far(const char *remote)
{
	far = tunnel("far", remote);
	lab_static(blue, far, "02:00:00:00:00:09");
	under->mtu = 1600;
	lab_apply();
	lab_pass_ms(2000);
}

static void path_mtu(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		const char *remote = v6 ? "fd00::9" : "192.0.2.9";
		unsigned overhead = v6 ? 70 : 50, floor = v6 ? 1280 : 576, seconds;
		struct config_ip a = ip(remote);
		struct error e;

		if (v6) {
			teardown(state);
			setup(state);
		}
		start_far(remote);
		assert_int_equal(lport_get(far->id)->mtu, 1600 - overhead);
		too_big(&e, remote, 1600, 1500);
		believed(&e, true);
		assert_int_equal(tunnel_mtu_path(&a, &seconds), 1500);
		assert_in_range(seconds, 590, 600);
		assert_int_equal(lport_get(far->id)->mtu, 1500 - overhead);
		assert_int_equal(network_get(blue->id)->mtu, 1500); // guests aren't told
		// What is larger than that can't be about what left since; the same again makes it last.
		lab_pass_ms(300000);
		too_big(&e, remote, 1600, 1550);
		believed(&e, true);
		assert_int_equal(tunnel_mtu_path(&a, &seconds), 1500);
		assert_in_range(seconds, 1, 300);
		too_big(&e, remote, 1600, 1500);
		believed(&e, true);
		tunnel_mtu_path(&a, &seconds);
		assert_in_range(seconds, 590, 600);
		// Another router behind.
		too_big(&e, remote, 1500, 1400);
		believed(&e, true);
		assert_int_equal(lport_get(far->id)->mtu, 1400 - overhead);
		// No less than 1,280 inside; the rest is fragments.
		too_big(&e, remote, 1400, 1300);
		believed(&e, true);
		assert_int_equal(lport_get(far->id)->mtu, 1280);
		assert_int_equal(tunnel_mtu_path(&a, NULL), 1300);
		too_big(&e, remote, 1300, 68);
		believed(&e, true);
		assert_int_equal(tunnel_mtu_path(&a, NULL), floor);
		assert_int_equal(lport_get(far->id)->mtu, 1280);
		// It is forgotten.
		lab_pass_ms(601000);
		assert_int_equal(tunnel_mtu_path(&a, NULL), 0);
		assert_true(tunnel_mtu_stale());
		lab_apply();
		assert_int_equal(lport_get(far->id)->mtu, 1600 - overhead);
		// Switched off.
		too_big(&e, remote, 1600, 1500);
		believed(&e, true);
		static char key[] = "tunnel-path-mtu", value[] = "false";
		static struct config_pair off = {key, value};
		lab.config->other_config.pair = &off;
		lab.config->other_config.n = 1;
		lab_apply();
		assert_int_equal(lport_get(far->id)->mtu, 1600 - overhead);
		believed(&e, false);
		lab.config->other_config.pair = NULL;
		lab.config->other_config.n = 0;
		lab_apply();
		believed(&e, true);
		// The remote end point goes, and what is known of it.
		lab_remove_port(far);
		far->kind = PORT_DEVICE;
		far->error = NULL;
		lab_apply();
		assert_int_equal(tunnel_mtu_path(&a, NULL), 0);
	}
}

// A router that doesn't say what it takes (RFC 1191 section 5).
static void path_mtu_guessed(void **state)
{
	static const unsigned each[][2] = {{1600, 1492}, {1492, 1006}, {1006, 576}};
	struct config_ip a = ip("192.0.2.9");
	struct error e;

	start_far("192.0.2.9");
	for (unsigned i = 0; i < 3; i++) {
		too_big(&e, "192.0.2.9", each[i][0], 0);
		believed(&e, true);
		assert_int_equal(tunnel_mtu_path(&a, NULL), each[i][1]);
	}
}

static void not_believed(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		const char *remote = v6 ? "fd00::9" : "192.0.2.9";
		struct config_ip a = ip(remote);
		struct error e;

		if (v6) {
			teardown(state);
			setup(state);
		}
		start_far(remote);
		for (unsigned i = 0; i < 9; i++) {
			too_big(&e, remote, 1600, 1500);
			switch (i) {
			case 0: e.b[e.quote + (v6 ? 39 : 19)]++; break;  // another remote
			case 1: e.b[e.quote + (v6 ? 23 : 15)]++; break;  // not from here
			case 2: put16(e.b + e.inner + 2, 53); break;     // no tunnel's
			case 3: put16(e.b + e.inner, 53); break;
			case 4: e.b[e.inner + 14]++; break;              // of no network
			case 5: too_big(&e, remote, 1400, 1500); break;  // it would have fitted
			case 6: e.b[e.quote + (v6 ? 6 : 9)] = 6; break;
			case 7: e.b[e.quote] = 0x55; break;
			case 8: e.b[e.l4 + 3] ^= 1; break;               // its checksum
			}
			if (i < 8)
				sum_up(&e);
			else
				sum_up(&e), e.b[e.l4 + 3] ^= 1;
			believed(&e, false);
			assert_int_equal(tunnel_mtu_path(&a, NULL), 0);
		}
		// As little as RFC 792 has quoted is enough; less isn't. GRE has its key there.
		for (int gre = 0; gre < 2; gre++) {
			for (unsigned n = 8; n + 1; n--) {
				too_big(&e, remote, 1600, 1500 - (unsigned)gre);
				e.len = e.inner + n;
				if (v6)
					put16(e.b + 18, e.len - 54);
				else
					put16(e.b + 16, e.len - 14);
				if (gre) {
					e.b[e.quote + (v6 ? 6 : 9)] = 47;
					memcpy(e.b + e.inner, "\x20\0\x65\x58\0\0\x13\x88", 8);
				}
				sum_up(&e);
				believed(&e, n == 8 && !gre); // no network is in GRE
			}
		}
	}
}

// Any bytes.
static void path_mtu_rubbish(void **state)
{
	uint32_t seed = 5;

	start_far("192.0.2.9");
	lab.traced = false;
	for (unsigned i = 0; i < 20000; i++) {
		struct error e;

		too_big(&e, i % 2 ? "fd00::9" : "192.0.2.9", 1600, 1500);
		for (unsigned k = 0; k < 2; k++) {
			seed = seed * 1664525 + 1013904223;
			e.b[14 + (seed >> 8) % (e.len - 14)] = (uint8_t)(seed >> 24);
		}
		if (i % 3)
			sum_up(&e);
		if (i % 5 == 0)
			e.len -= (seed >> 10) % 60;
		lab_send_mbuf(up->id, lab_mbuf(e.b, e.len, i % 7 ? 0 : 40 + i % 50));
		if (i % 64 == 0)
			lab_pass_ms(100);
	}
}

// Through a path that takes less than a packet of 1,280 bytes with its headers: fragments, that can be put together.
static void leaves_in_fragments(void **state)
{
	struct error e;

	far = tunnel("far", "192.0.2.9");
	lab_static(blue, far, "02:00:00:00:00:09");
	under->mtu = 1600;
	lab_apply();
	lab_pass_ms(1000);
	lab_send(up->id, "arp,arp_op=2,dl_src=" HOP_MAC ",dl_dst=" ROUTER_MAC ",arp_spa=192.0.2.9,arp_tpa=192.0.2.1,arp_sha=" HOP_MAC ",arp_tha=" ROUTER_MAC);
	lab_pass_ms(200);
	too_big(&e, "192.0.2.9", 1600, 600);
	believed(&e, true);
	lab_pass_ms(1100);
	lab_forget_sent();
	uint64_t segments = lab_count(vm->id, COUNT_SEGMENTS);
	lab_send(vm->id, "udp,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:09,nw_src=10.0.0.1,nw_dst=10.0.0.9,packet_len=1294");
	assert_int_equal(lab.n_sent, 3);
	assert_int_equal(lab_count(vm->id, COUNT_SEGMENTS), segments + 2);
	lab_expect_trace("in fragments, as the path takes 600");
	unsigned bytes = 0;
	for (unsigned i = 0; i < 3; i++) {
		const uint8_t *l3 = lab.sent[i].bytes + 14;

		assert_true(lab.sent[i].len <= 614);
		assert_int_equal(sum16(0, l3, 20), 0xffff);
		assert_memory_equal(l3 + 4, lab.sent[0].bytes + 18, 2); // identification
		assert_int_equal((l3[6] << 8 | l3[7]) & 0x1fff, bytes / 8);
		assert_int_equal(!!(l3[6] & 0x20), i < 2);
		assert_int_equal(l3[6] & 0x40, 0);
		bytes += lab.sent[i].len - 34;
	}
	assert_int_equal(bytes, 8 + 8 + 1294);
	// What fits is one packet.
	lab_forget_sent();
	send_blue();
	assert_int_equal(lab.n_sent, 1);
	// Without buffers the pieces are counted as lost.
	lab.traced = false;
	for (int n = 0; n < 6; n++) {
		lab_forget_sent();
		lab_few_buffers(n);
		lab_send(vm->id, "udp,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:09,nw_src=10.0.0.1,nw_dst=10.0.0.9,packet_len=1294");
		lab_few_buffers(-1);
		assert_true(lab.n_sent <= 3);
	}
	assert_true(lab_drops(vm->id, "tx.NO_MEMORY") > 0);
}

static void stations(void **state)
{
	struct fdb_entry e;

	far = tunnel("far", "192.0.2.9");
	struct config_port *other = tunnel("other", "192.0.2.10");
	lab_address(vm, "02:00:00:00:00:01");
	macs[0] = (struct config_remote_mac){.network = blue->row, .mac = {2, 0, 0, 0, 0, 9}, .ip = far->remote};
	macs[1] = (struct config_remote_mac){.network = blue->row, .mac = {2, 0, 0, 0, 0, 10}, .ip = other->remote};
	macs[2] = (struct config_remote_mac){.network = blue->row, .mac = {2, 0, 0, 0, 0, 1}, .ip = other->remote}; // is here
	macs[3] = (struct config_remote_mac){.network = blue->row, .mac = {2, 0, 0, 0, 0, 9}, .ip = other->remote, .row = {{9}}}; // an operator knows better
	lab.config->remote_macs = macs;
	lab.config->n_remote_macs = 4;
	lab_apply();
	for (unsigned i = 0; i < 4; i++)
		assert_null(macs[i].error);
	assert_true(fdb_lookup(fdb_key(blue->id, macs[0].mac), &e) && e.is_static && e.port == other->id);
	assert_true(fdb_lookup(fdb_key(blue->id, macs[1].mac), &e) && e.is_static && e.port == other->id);
	assert_true(fdb_lookup(fdb_key(blue->id, macs[2].mac), &e) && e.is_static && e.port == vm->id);
	lab.config->n_remote_macs = 3;
	lab_apply();
	assert_true(fdb_lookup(fdb_key(blue->id, macs[0].mac), &e) && e.port == far->id);
	// The tunnel goes, and takes its entries along.
	lab_remove_port(far);
	far->kind = PORT_DEVICE;
	far->error = NULL;
	lab.config->n_remote_macs = 0;
	lab_apply();
	assert_false(fdb_lookup(fdb_key(blue->id, macs[0].mac), &e));
	assert_false(fdb_lookup(fdb_key(blue->id, macs[1].mac), &e));
}

static void same_vni_twice(void **state)
{
	struct config_network *red = lab_network("red", 0);

	red->vni = 5000;
	red->tunnel = strdup("vxlan");
	far = tunnel("far", "192.0.2.9");
	lab_apply();
	assert_string_equal(red->error, "network blue has VNI 5000 too, and the same kind of tunnel");
	free(red->tunnel);
	red->tunnel = strdup("geneve");
	lab_apply();
	assert_null(red->error);
}

static void lists(void **state)
{
	struct stage *s = stage_find("tunnel");
	struct page p = {.l = NULL};
	char *error = NULL;
	bool end;
	const char *argv[] = {"tunnel/list"};

	far = tunnel("far", "192.0.2.9");
	lab_apply();
	assert_non_null(s);
	page_begin(&p);
	char *text = page_next(&p, s->verbs[0].list, 1, argv, true, &end, &error);
	assert_non_null(text);
	assert_true(end);
	assert_non_null(strstr(text, "\"remote\": \"192.0.2.9\""));
	assert_non_null(strstr(text, "\"networks\": \"blue\""));
	assert_non_null(strstr(text, "\"mtu\": 1450"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(finds_its_way), T(by_a_gateway), T(tagged_ipv6), T(mtus), T(path_mtu), T(path_mtu_guessed), T(not_believed), T(path_mtu_rubbish), T(leaves_in_fragments), T(stations), T(same_vni_twice), T(lists),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
