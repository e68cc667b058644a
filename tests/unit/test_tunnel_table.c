// The tables of tunnels: the way to a remote end point by routes, neighbours and the FDB; MTU; stations that others tell of; what goes takes its entries along.
#include "lab.h"
#include "fdb.h"
#include "neighbour_table.h"
#include "tunnel.h"
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

static void pass_ms(unsigned ms)
{
	for (; ms; ms -= 100) {
		lab_advance_ms(100);
		stages_tick(lab.w.now);
		lab_flush();
	}
}

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
	pass_ms(2000);
	assert_true(asked_for("192.0.2.9"));
	lab_send(up->id, "arp,arp_op=2,dl_src=" HOP_MAC ",dl_dst=" ROUTER_MAC ",arp_spa=192.0.2.9,arp_tpa=192.0.2.1,arp_sha=" HOP_MAC ",arp_tha=" ROUTER_MAC);
	pass_ms(200);
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
		pass_ms(1000);
		again = asked_for("192.0.2.9");
	}
	assert_true(again);
	// It moves to another station.
	lab_send(up->id, "arp,arp_op=2,dl_src=" GATEWAY_MAC ",dl_dst=" ROUTER_MAC ",arp_spa=192.0.2.9,arp_tpa=192.0.2.1,arp_sha=" GATEWAY_MAC ",arp_tha=" ROUTER_MAC);
	pass_ms(200);
	send_blue();
	assert_int_equal(lab.n_sent, 1);
	assert_memory_equal(lab.sent[0].bytes, "\x02\0\0\0\x10\xfe", 6);
	// It is silent.
	pass_ms(120000);
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
	pass_ms(1000);
	assert_int_equal(view_of(far->id).state, TUNNEL_NO_ROUTE);
	lab_route(r1, "0.0.0.0/0", ROUTE_UNICAST, "192.0.2.254", NULL);
	lab_apply();
	lab_forget_sent();
	pass_ms(2000);
	assert_true(asked_for("192.0.2.254"));
	lab_send(up->id, "arp,arp_op=2,dl_src=" GATEWAY_MAC ",dl_dst=" ROUTER_MAC ",arp_spa=192.0.2.254,arp_tpa=192.0.2.1,arp_sha=" GATEWAY_MAC ",arp_tha=" ROUTER_MAC);
	pass_ms(200);
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
	pass_ms(1000);
	lab_send_frame(up->id, frame, len);
	pass_ms(200);
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
		T(finds_its_way), T(by_a_gateway), T(tagged_ipv6), T(mtus), T(stations), T(same_vni_twice), T(lists),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
