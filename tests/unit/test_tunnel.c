// Tunnels: formats against bytes made by hand, every reason, RFC 6040, bursts of several tunnels, large frames, rubbish. The way to the other end is given here; who
// finds it: test_tunnel_table.
#include "lab.h"
#include "frag.h"
#include "gen.h"
#include "offload.h"
#include "tunnel.h"

#include <stdio.h>

static uint16_t vm, other_vm, up, far, farther;
static struct config_network *blue, *red, *green;
static const uint8_t own_mac[6] = {2, 0xaa, 0, 0, 0, 1}, hop_mac[6] = {2, 0xaa, 0, 0, 0, 2};
static const uint8_t own4[4] = {192, 0, 2, 1}, far4[4] = {192, 0, 2, 2}, farther4[4] = {192, 0, 2, 3};
static const uint8_t own6[16] = {0xfd, 0, [15] = 1}, far6[16] = {0xfd, 0, [15] = 2};
static bool v6_far; // the end point of tunnel `far` is the IPv6 one

#define VXLAN_VNI 5000
#define GENEVE_VNI 6000
#define GRE_VNI 0x123456

static struct config_network *network(const char *name, uint32_t vni, const char *tunnel)
{
	struct config_network *n = lab_network(name, 0);

	n->vni = vni;
	n->tunnel = strdup(tunnel);
	return n;
}

static struct config_port *tunnel(const char *name, const uint8_t *ip, bool v6)
{
	struct config_port *p = lab_port(name, VLAN_NETWORK_ID, NULL);

	p->kind = PORT_TUNNEL;
	p->remote.v6 = v6;
	memcpy(p->remote.b, ip, v6 ? 16 : 4);
	lab_trunk(p, blue);
	lab_trunk(p, red);
	lab_trunk(p, green);
	return p;
}

static struct tunnel_spec spec_of(uint16_t port, bool v6)
{
	struct tunnel_spec s = {.v6 = v6, .src = v6 ? own6 : own4, .dst = port == farther ? farther4 : v6 ? far6 : far4, .out = up, .network = 1, .ttl = 64, .dscp = -1, .df = true};

	memcpy(s.dst_mac, hop_mac, 6);
	memcpy(s.src_mac, own_mac, 6);
	return s;
}

static void set_way(uint16_t port, struct tunnel_spec s)
{
	struct tunnel_way *way = calloc(1, sizeof *way), *old = tunnel_ways[port];

	for (unsigned f = 0; f < TUNNEL_FORMATS; f++) {
		s.format = (enum tunnel_format)f;
		tunnel_make_header(&way->header[f], &s);
	}
	rcu_publish(tunnel_ways[port], way);
	rcu_free_later(old);
}

// As stage `tunnel` does it with a router.
static void give_ends(void)
{
	struct tunnel_table *t = tunnel_table;

	for (unsigned f = 0; f < 2; f++) {
		t->end[f].network = 1;
		memcpy(t->end[f].mac, own_mac, 6);
		memcpy(t->end[f].ip, f ? own6 : own4, f ? 16 : 4);
		t->end[f].collects = true;
	}
	set_way(far, spec_of(far, v6_far));
	set_way(farther, spec_of(farther, false));
}

static void apply(void)
{
	lab_apply();
	give_ends();
}

static void start(bool v6)
{
	lab_setup();
	v6_far = v6;
	struct config_network *under = lab_network("under", 0);
	blue = network("blue", VXLAN_VNI, "vxlan");
	red = network("red", GENEVE_VNI, "geneve");
	green = network("green", GRE_VNI, "gre");
	vm = lab_port("vm", VLAN_ACCESS, blue)->id;
	other_vm = lab_port("other", VLAN_ACCESS, red)->id;
	up = lab_port("up", VLAN_ACCESS, under)->id;
	far = tunnel("far", v6 ? far6 : far4, v6)->id;
	farther = tunnel("farther", farther4, false)->id;
	struct config_router_port *rp = &lab.config->router_ports[lab.config->n_router_ports++];
	rp->name = strdup("under-1");
	rp->network = under->row;
	rp->addresses = calloc(2, sizeof *rp->addresses);
	rp->n_addresses = 2;
	lab.config->tunnel_ips = calloc(2, sizeof *lab.config->tunnel_ips);
	lab.config->n_tunnel_ips = 2;
	memcpy(rp->addresses[0].ip.b, own4, 4);
	rp->addresses[1].ip.v6 = true;
	memcpy(rp->addresses[1].ip.b, own6, 16);
	for (unsigned i = 0; i < 2; i++)
		lab.config->tunnel_ips[i] = rp->addresses[i].ip;
	apply();
}

static void end(void)
{
	v6_far = false;
	lab_teardown();
}

// ---- packets

static void put16(uint8_t *b, unsigned v)
{
	b[0] = (uint8_t)(v >> 8);
	b[1] = (uint8_t)v;
}

static unsigned get16(const uint8_t *b)
{
	return (unsigned)(b[0] << 8 | b[1]);
}

// Ones' complement sum, the plain way.
static unsigned sum16(unsigned sum, const uint8_t *b, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		sum += i & 1 ? b[i] : (unsigned)b[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static unsigned pseudo_sum(const uint8_t *ip, unsigned len)
{
	bool v6 = ip[0] >> 4 == 6;

	return sum16(17 + len, ip + (v6 ? 8 : 12), v6 ? 32 : 8);
}

struct outer {
	uint8_t b[4096];
	unsigned l3, l4, tunnel, inner, len; // offsets, and bytes of the frame
};

static uint8_t inner[1600];
static unsigned inner_len;

static void make_inner(const char *text)
{
	uint8_t frame[LAB_FRAME];

	inner_len = lab_compose(frame, text);
	memcpy(inner, frame, inner_len);
}

// What the other end sends.
static void wrap(struct outer *o, enum tunnel_format f, bool v6, const uint8_t *src, uint32_t vni, uint8_t tos)
{
	memset(o, 0, sizeof *o);
	memcpy(o->b, own_mac, 6);
	memcpy(o->b + 6, hop_mac, 6);
	put16(o->b + 12, v6 ? 0x86dd : 0x0800);
	o->l3 = 14;
	o->l4 = o->l3 + (v6 ? 40 : 20);
	o->tunnel = o->l4 + (f == TUNNEL_GRE ? 0 : 8);
	o->inner = o->tunnel + 8;
	o->len = o->inner + inner_len;
	memcpy(o->b + o->inner, inner, inner_len);
	uint8_t *ip = o->b + o->l3, *l4 = o->b + o->l4, *t = o->b + o->tunnel;
	if (v6) {
		put16(ip, 0x6000u | (unsigned)tos << 4);
		put16(ip + 4, o->len - o->l4);
		ip[6] = f == TUNNEL_GRE ? 47 : 17;
		ip[7] = 64;
		memcpy(ip + 8, src, 16);
		memcpy(ip + 24, own6, 16);
	} else {
		ip[0] = 0x45;
		ip[1] = tos;
		put16(ip + 2, o->len - o->l3);
		ip[8] = 64;
		ip[9] = f == TUNNEL_GRE ? 47 : 17;
		memcpy(ip + 12, src, 4);
		memcpy(ip + 16, own4, 4);
		put16(ip + 10, ~sum16(0, ip, 20) & 0xffff);
	}
	if (f != TUNNEL_GRE) {
		put16(l4, 55555);
		put16(l4 + 2, f == TUNNEL_VXLAN ? 4789 : 6081);
		put16(l4 + 4, o->len - o->l4);
	}
	switch (f) {
	case TUNNEL_VXLAN:
		t[0] = 0x08;
		put16(t + 4, vni >> 8);
		t[6] = (uint8_t)vni;
		break;
	case TUNNEL_GENEVE:
		put16(t + 2, 0x6558);
		put16(t + 4, vni >> 8);
		t[6] = (uint8_t)vni;
		break;
	default:
		t[0] = 0x20;
		put16(t + 2, 0x6558);
		put16(t + 4, vni >> 16);
		put16(t + 6, vni);
		break;
	}
}

static void fix_ip(struct outer *o)
{
	uint8_t *ip = o->b + o->l3;

	if (ip[0] >> 4 != 4)
		return;
	put16(ip + 10, 0);
	put16(ip + 10, ~sum16(0, ip, (ip[0] & 15u) * 4) & 0xffff);
}

static void vxlan(struct outer *o, uint8_t tos)
{
	wrap(o, TUNNEL_VXLAN, v6_far, v6_far ? far6 : far4, VXLAN_VNI, tos);
}

static void insert(struct outer *o, unsigned at, unsigned n)
{
	memmove(o->b + at + n, o->b + at, o->len - at);
	memset(o->b + at, 0, n);
	o->len += n;
	if (o->b[o->l3] >> 4 == 4)
		put16(o->b + o->l3 + 2, o->len - o->l3);
	else
		put16(o->b + o->l3 + 4, o->len - o->l3 - 40);
	if (o->tunnel != o->l4)
		put16(o->b + o->l4 + 4, o->len - o->l4);
	fix_ip(o);
}

static void refused(const struct outer *o, const char *reason)
{
	uint64_t consumed = lab_count(up, COUNT_CONSUMED);

	lab_expect_drop_frame(up, o->b, o->len, reason);
	lab_expect_trace("up, ");
	assert_int_equal(lab_count(up, COUNT_CONSUMED), consumed);
}

// The frame is let in: it goes to `to` as it was.
static void accepted(const struct outer *o, uint16_t to, uint16_t by)
{
	uint64_t rx = lab_count(by, COUNT_RX), consumed = lab_count(up, COUNT_CONSUMED), drops = lab_all_drops(up);

	lab_send_frame(up, o->b, o->len);
	if (lab.n_sent != 1 || lab.sent[0].port != to)
		fail_msg("not let in:\n%s", lab.trace);
	assert_int_equal(lab.sent[0].len, inner_len);
	assert_memory_equal(lab.sent[0].bytes, inner, inner_len);
	assert_int_equal(lab.sent[0].origin, by);
	assert_int_equal(lab_count(by, COUNT_RX), rx + 1);
	assert_int_equal(lab_count(up, COUNT_CONSUMED), consumed + 1);
	assert_int_equal(lab_all_drops(up), drops);
	lab_expect_trace(": its frame comes in by ");
	lab_reject_trace("DEFECT");
}

// ---- tests

static const char *to_vm = "udp,dl_src=02:00:00:00:00:09,dl_dst=02:00:00:00:00:01,nw_src=10.0.0.9,nw_dst=10.0.0.1,tp_src=7,tp_dst=8";
static const char *from_vm = "udp,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:09,nw_src=10.0.0.1,nw_dst=10.0.0.9,tp_src=8,tp_dst=7";

// The sender at `port` is known from now on.
static void know(uint16_t port, const char *text)
{
	lab_send(port, text);
	lab_forget_sent();
}

static void receives(void **state)
{
	static const struct {
		enum tunnel_format f;
		uint32_t vni;
	} each[] = {{TUNNEL_VXLAN, VXLAN_VNI}, {TUNNEL_GENEVE, GENEVE_VNI}, {TUNNEL_GRE, GRE_VNI}};
	struct outer o;

	for (int v6 = 0; v6 < 2; v6++) {
		start(v6);
		uint16_t third = lab_port("third", VLAN_ACCESS, green)->id;
		apply();
		for (unsigned i = 0; i < 3; i++) {
			uint16_t to = i == 0 ? vm : i == 1 ? other_vm : third;

			know(to, from_vm);
			make_inner(to_vm);
			wrap(&o, each[i].f, v6, v6 ? far6 : far4, each[i].vni, 0);
			accepted(&o, to, far);
			lab_expect_trace(tunnel_desc[each[i].f].name);
			// Answers go the same way: learned on the tunnel.
			lab_send(to, from_vm);
			assert_int_equal(lab.n_sent, 1);
			assert_int_equal(lab.sent[0].port, up);
		}
		end();
	}
}

// Bytes behind the IP packet, a tag of the underlay, headers in several buffers.
static void outer_odds(void **state)
{
	struct outer o;

	start(false);
	know(vm, from_vm);
	make_inner(to_vm);
	vxlan(&o, 0);
	o.len += 9;
	accepted(&o, vm, far);
	for (unsigned cut = 1; cut < o.len; cut += 7) {
		lab_forget_sent();
		lab_send_mbuf(up, lab_mbuf(o.b, o.len, cut));
		assert_int_equal(lab.n_sent, 1);
		assert_int_equal(lab.sent[0].len, inner_len);
		assert_memory_equal(lab.sent[0].bytes, inner, inner_len);
	}
	// IPv4 options of the outer header.
	vxlan(&o, 0);
	o.b[o.l3] = 0x46;
	o.l4 += 4, o.tunnel += 4;
	insert(&o, o.l3 + 20, 4);
	put16(o.b + o.l4 + 4, o.len - o.l4);
	fix_ip(&o);
	accepted(&o, vm, far);
	// GENEVE options that may be passed over.
	know(other_vm, from_vm);
	wrap(&o, TUNNEL_GENEVE, false, far4, GENEVE_VNI, 0);
	o.b[o.tunnel] = 3;
	insert(&o, o.inner, 12);
	accepted(&o, other_vm, far);
	o.b[o.tunnel] = 0x3f; // more than there is
	refused(&o, "tunnel.HEADER");
	end();
}

static void checksums(void **state)
{
	struct outer o;

	for (int v6 = 0; v6 < 2; v6++) {
		start(v6);
		know(vm, from_vm);
		make_inner(to_vm);
		vxlan(&o, 0);
		put16(o.b + o.l4 + 6, 0);
		unsigned sum = ~sum16(pseudo_sum(o.b + o.l3, o.len - o.l4), o.b + o.l4, o.len - o.l4) & 0xffff;
		put16(o.b + o.l4 + 6, sum);
		accepted(&o, vm, far);
		o.b[o.l4 + 7] ^= 1;
		refused(&o, "tunnel.CHECKSUM");
		// The device has looked, or is the one who would have summed.
		struct rte_mbuf *m = lab_mbuf(o.b, o.len, 0);
		m->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_NONE;
		lab_send_mbuf(up, m);
		assert_int_equal(lab.n_sent, 1);
		assert_int_equal(lab.sent[0].ol_flags & RTE_MBUF_F_TX_L4_MASK, 0);
		if (!v6) {
			vxlan(&o, 0);
			o.b[o.l3 + 10] ^= 1;
			refused(&o, "tunnel.CHECKSUM");
		}
		// GRE with a checksum and a sequence number.
		uint16_t third = lab_port("third", VLAN_ACCESS, green)->id;
		apply();
		know(third, from_vm);
		wrap(&o, TUNNEL_GRE, v6, v6 ? far6 : far4, GRE_VNI, 0);
		o.b[o.tunnel] = 0xb0;
		insert(&o, o.tunnel + 4, 4);
		insert(&o, o.tunnel + 12, 4);
		put16(o.b + o.tunnel + 4, ~sum16(0, o.b + o.tunnel, o.len - o.tunnel) & 0xffff);
		accepted(&o, third, far);
		o.b[o.tunnel + 4] ^= 1;
		refused(&o, "tunnel.CHECKSUM");
		end();
	}
}

static void refuses(void **state)
{
	struct outer o;

	for (int v6 = 0; v6 < 2; v6++) {
		start(v6);
		make_inner(to_vm);
		vxlan(&o, 0);
		o.b[o.tunnel] = 0;
		refused(&o, "tunnel.HEADER"); // no VNI
		vxlan(&o, 0);
		put16(o.b + o.l4 + 4, 9);
		refused(&o, "tunnel.HEADER"); // UDP's length
		vxlan(&o, 0);
		o.b[o.tunnel + 6]++;
		refused(&o, "tunnel.UNKNOWN_VNI");
		wrap(&o, TUNNEL_GENEVE, v6, v6 ? far6 : far4, VXLAN_VNI, 0); // another format's
		refused(&o, "tunnel.UNKNOWN_VNI");
		vxlan(&o, 0);
		o.b[o.l3 + (v6 ? 23 : 15)] = 99;
		fix_ip(&o);
		refused(&o, "tunnel.UNKNOWN_REMOTE");
		inner_len = 13;
		vxlan(&o, 0);
		refused(&o, "tunnel.INNER");
		make_inner(to_vm);
		wrap(&o, TUNNEL_GENEVE, v6, v6 ? far6 : far4, GENEVE_VNI, 0);
		o.b[o.tunnel + 1] = 0x40;
		refused(&o, "tunnel.CRITICAL");
		o.b[o.tunnel + 1] = 0x80;
		refused(&o, "tunnel.CRITICAL");
		o.b[o.tunnel + 1] = 0;
		o.b[o.tunnel] = 0x40;
		refused(&o, "tunnel.HEADER");
		wrap(&o, TUNNEL_GRE, v6, v6 ? far6 : far4, GRE_VNI, 0);
		o.b[o.tunnel] = 0;
		refused(&o, "tunnel.HEADER"); // no key
		o.b[o.tunnel] = 0x20;
		o.b[o.tunnel + 4] = 1;
		refused(&o, "tunnel.UNKNOWN_VNI"); // more than 24 bits
		inner_len = lab_tag(inner, inner_len, 0x8100, 7);
		vxlan(&o, 0);
		refused(&o, "tunnel.INNER_VLAN");
		end();
	}
}

// The outer packet in fragments of at most `mtu` bytes of layer 3. Returns how many.
static unsigned cut(const struct outer *o, uint16_t mtu, struct rte_mbuf **piece)
{
	struct rte_mbuf *m = lab_mbuf(o->b, o->len, 0);
	struct flow_key key;

	memset(pkt_of(m), 0, sizeof *pkt_of(m));
	assert_int_equal(parse(m, &key), 0);
	unsigned n = frag_count(m, mtu);
	assert_in_range(n, 2, 16);
	for (unsigned i = 0; i < n; i++) {
		struct rte_mbuf *f = frag_piece(m, i, mtu, lab.w.pool);
		uint8_t b[4096];

		assert_non_null(f);
		piece[i] = lab_mbuf(rte_pktmbuf_read(f, 0, f->pkt_len, b), f->pkt_len, 0);
		rte_pktmbuf_free(f);
	}
	rte_pktmbuf_free(m);
	return n;
}

static void send_cut(const struct outer *o, uint16_t mtu, unsigned from, int step, unsigned without)
{
	struct rte_mbuf *piece[16];
	unsigned n = cut(o, mtu, piece);

	lab_forget_sent();
	for (unsigned i = 0, k = from; i < n; i++, k = (k + (unsigned)step + n) % n) {
		if (k == without)
			rte_pktmbuf_free(piece[k]);
		else
			lab_burst(up, &piece[k], 1);
	}
	lab_flush();
}

static const char *large_to_vm = "udp,dl_src=02:00:00:00:00:09,dl_dst=02:00:00:00:00:01,nw_src=10.0.0.9,nw_dst=10.0.0.1,tp_src=7,tp_dst=8,packet_len=1400";

static void whole_again(const struct outer *o, uint16_t to, unsigned n)
{
	uint64_t merged = lab_count(up, COUNT_MERGED), consumed = lab_count(up, COUNT_CONSUMED), rx = lab_count(far, COUNT_RX);

	for (unsigned from = 0; from < n; from++) { // in some orders
		send_cut(o, 600, from, from % 2 ? 1 : -1, ~0u);
		if (lab.n_sent != 1 || lab.sent[0].port != to)
			fail_msg("not let in:\n%s", lab.trace);
		assert_int_equal(lab.sent[0].len, inner_len);
		assert_memory_equal(lab.sent[0].bytes, inner, inner_len);
		assert_int_equal(lab.sent[0].origin, far);
	}
	assert_int_equal(lab_count(up, COUNT_MERGED), merged + n * (n - 1));
	assert_int_equal(lab_count(up, COUNT_CONSUMED), consumed + n);
	assert_int_equal(lab_count(up, COUNT_QUEUED), 0);
	assert_int_equal(lab_count(far, COUNT_RX), rx + n);
	lab_reject_trace("DEFECT");
}

static bool is_last(struct rte_mbuf *m)
{
	return m->pkt_len < 500;
}

static void fragments(void **state)
{
	static const struct {
		enum tunnel_format f;
		uint32_t vni;
	} each[] = {{TUNNEL_VXLAN, VXLAN_VNI}, {TUNNEL_GENEVE, GENEVE_VNI}, {TUNNEL_GRE, GRE_VNI}};
	struct outer o;

	for (int v6 = 0; v6 < 2; v6++) {
		start(v6);
		uint16_t third = lab_port("third", VLAN_ACCESS, green)->id;
		apply();
		make_inner(large_to_vm);
		for (unsigned i = 0; i < 3; i++) {
			uint16_t to = i == 0 ? vm : i == 1 ? other_vm : third;

			know(to, from_vm);
			wrap(&o, each[i].f, v6, v6 ? far6 : far4, each[i].vni, 0);
			whole_again(&o, to, 3);
		}
		// All in one burst, with others between them; with and without traces.
		for (unsigned round = 0; round < 4; round++) {
			struct rte_mbuf *m[16];
			unsigned n = 1;

			lab.traced = round & 1;
			vxlan(&o, 0);
			m[0] = lab_mbuf(o.b, o.len, 0);
			n += cut(&o, 600, m + n);
			m[n++] = lab_mbuf(o.b, o.len, 0);
			lab_forget_sent();
			lab_burst(up, m, n);
			lab_flush();
			assert_int_equal(lab.n_sent, 3);
			for (unsigned i = 0; i < 3; i++)
				assert_memory_equal(lab.sent[i].bytes, inner, inner_len);
		}
		lab.traced = true;
		// A trace of the first fragment goes on with the packet.
		send_cut(&o, 600, 1, 1, ~0u);
		lab_expect_trace(" bytes: a fragment of a packet for a tunnel's end point, which waits for the others");
		lab_expect_trace("bytes: the whole packet, put together from its fragments");
		lab_expect_trace(": its frame comes in by far, network blue");
		lab_expect_trace("out by vm");
		lab.wants_trace = is_last;
		send_cut(&o, 600, 2, 1, ~0u);
		lab.wants_trace = NULL;
		lab_expect_trace("became part of the packet that it is a fragment of");
		end();
	}
}

// What is wrong with fragments, or with the packet that they make.
static void wrong_fragments(void **state)
{
	struct rte_mbuf *piece[16];
	struct outer o;

	for (int v6 = 0; v6 < 2; v6++) {
		start(v6);
		know(vm, from_vm);
		make_inner(large_to_vm);
		vxlan(&o, 0);
		unsigned last = 2;
		// One is missing.
		send_cut(&o, 600, 0, 1, last);
		assert_int_equal(lab.n_sent, 0);
		assert_int_equal(lab_count(up, COUNT_QUEUED), 2);
		for (unsigned i = 0; i < 60 && !lab_drops(up, "tunnel.FRAGMENT_TIMEOUT"); i++) {
			lab_advance_ms(1500);
			lab_tick();
			lab_flush();
		}
		assert_int_equal(lab_drops(up, "tunnel.FRAGMENT_TIMEOUT"), 2);
		lab_expect_trace("dropped (tunnel.FRAGMENT_TIMEOUT)");
		assert_int_equal(lab_count(up, COUNT_QUEUED), 0);
		know(vm, from_vm);
		// They overlap.
		unsigned n = cut(&o, 600, piece);
		uint8_t *at = rte_pktmbuf_mtod_offset(piece[1], uint8_t *, v6 ? 56 : 20);
		put16(at, get16(at) - (v6 ? 8 : 1));
		if (!v6) {
			uint8_t *ip = rte_pktmbuf_mtod_offset(piece[1], uint8_t *, 14);
			put16(ip + 10, 0);
			put16(ip + 10, ~sum16(0, ip, 20) & 0xffff);
		}
		for (unsigned i = 0; i < n; i++)
			lab_burst(up, &piece[i], 1);
		lab_flush();
		assert_int_equal(lab_drops(up, "tunnel.FRAGMENT"), 2);
		assert_int_equal(lab.n_sent, 0);
		lab_advance_ms(61000);
		lab_tick();
		lab_flush();
		know(vm, from_vm);
		// What is put together is judged as if it had come whole: UDP's checksum, congestion, whose packet it is.
		put16(o.b + o.l4 + 6, 0);
		put16(o.b + o.l4 + 6, ~sum16(pseudo_sum(o.b + o.l3, o.len - o.l4), o.b + o.l4, o.len - o.l4) & 0xffff);
		whole_again(&o, vm, 3);
		o.b[o.len - 1] ^= 1;
		send_cut(&o, 600, 0, 1, ~0u);
		assert_int_equal(lab_drops(up, "tunnel.CHECKSUM"), 1);
		lab_expect_trace("dropped (tunnel.CHECKSUM)");
		vxlan(&o, 3); // all marked: the frame in it takes no marks
		send_cut(&o, 600, 0, 1, ~0u);
		assert_int_equal(lab_drops(up, "tunnel.CONGESTION"), 1);
		wrap(&o, TUNNEL_VXLAN, v6, v6 ? far6 : far4, 77, 0);
		send_cut(&o, 600, 0, 1, ~0u);
		assert_int_equal(lab_drops(up, "tunnel.UNKNOWN_VNI"), 1);
		vxlan(&o, 0);
		put16(o.b + o.l4 + 2, 53); // no tunnel's: an ordinary packet, if a large one
		uint64_t consumed = lab_count(up, COUNT_CONSUMED), merged = lab_count(up, COUNT_MERGED);
		send_cut(&o, 600, 0, 1, ~0u);
		assert_int_equal(lab_count(up, COUNT_CONSUMED), consumed);
		assert_int_equal(lab_count(up, COUNT_MERGED), merged + 2);
		// From somebody else, they are nothing to collect.
		vxlan(&o, 0);
		o.b[o.l3 + (v6 ? 23 : 15)] = 99;
		fix_ip(&o);
		send_cut(&o, 600, 0, 1, ~0u);
		assert_int_equal(lab_count(up, COUNT_MERGED), merged + 2);
		// Not wanted.
		tunnel_table->end[v6].collects = false;
		vxlan(&o, 0);
		uint64_t drops = lab_drops(up, "tunnel.FRAGMENT");
		send_cut(&o, 600, 0, 1, ~0u);
		assert_int_equal(lab_drops(up, "tunnel.FRAGMENT"), drops + 3);
		lab_expect_trace("dropped (tunnel.FRAGMENT)");
		if (!v6) {
			cut(&o, 600, piece);
			rte_pktmbuf_mtod(piece[0], uint8_t *)[24] ^= 1;
			lab_burst(up, piece, 3);
			lab_flush();
			assert_int_equal(lab_drops(up, "tunnel.CHECKSUM"), 2);
		}
		end();
	}
}

// Without buffers, and with any bytes changed.
static void fragments_of_rubbish(void **state)
{
	uint32_t seed = 7;

	for (int v6 = 0; v6 < 2; v6++) {
		start(v6);
		lab.traced = false;
		know(vm, from_vm);
		make_inner(large_to_vm);
		for (unsigned round = 0; round < 3000; round++) {
			struct rte_mbuf *piece[16];
			struct outer o;

			vxlan(&o, 0);
			if (!v6)
				put16(o.b + o.l3 + 4, round);
			unsigned n = cut(&o, (uint16_t)(400 + round % 500), piece);
			for (unsigned i = 0; i < n; i++) {
				for (unsigned k = 0; k < 3; k++) {
					seed = seed * 1664525 + 1013904223;
					if (seed >> 30)
						rte_pktmbuf_mtod(piece[i], uint8_t *)[12 + (seed >> 8) % 60] = (uint8_t)(seed >> 16);
				}
				if (!v6 && round % 2) {
					uint8_t *ip = rte_pktmbuf_mtod_offset(piece[i], uint8_t *, 14);
					put16(ip + 10, 0);
					put16(ip + 10, ~sum16(0, ip, 20) & 0xffff);
				}
			}
			if (round % 100 == 50)
				lab_few_buffers((int)(round / 100 % 4));
			lab_burst(up, piece, n);
			lab_flush();
			lab_few_buffers(-1);
			if (round % 200 == 0) {
				lab_advance_ms(61000);
				lab_tick();
				lab_flush();
			}
			lab_forget_sent();
		}
		end();
	}
}

// Packets for others, or not of tunnels, are ordinary ones.
static void leaves_others_alone(void **state)
{
	struct outer o;

	start(false);
	make_inner(to_vm);
	for (unsigned i = 0; i < 6; i++) {
		vxlan(&o, 0);
		if (i == 0)
			o.b[5]++; // another station
		else if (i == 1)
			o.b[o.l3 + 19]++;
		else if (i == 2)
			put16(o.b + o.l4 + 2, 53);
		else if (i == 3)
			o.b[o.l3 + 9] = 6;
		else if (i == 4)
			o.b[o.l3 + 9] = 6, put16(o.b + o.l3 + 6, 0x2000); // a fragment of something else
		else
			put16(o.b + 12, 0x88b5);
		fix_ip(&o);
		uint64_t consumed = lab_count(up, COUNT_CONSUMED), rx = lab_count(far, COUNT_RX);
		lab_send_frame(up, o.b, o.len);
		assert_int_equal(lab_count(up, COUNT_CONSUMED), consumed);
		assert_int_equal(lab_count(far, COUNT_RX), rx);
		lab_reject_trace("tunnel");
	}
	// The same bytes on a port of another network.
	vxlan(&o, 0);
	lab_send_frame(vm, o.b, o.len);
	assert_int_equal(lab_count(far, COUNT_RX), 0);
	end();
}

// RFC 6040 figure 4, whole.
static void ecn_table(void **state)
{
	enum { N, E1, E0, CE };
	static const int want[4][4] = {
		{N, N, N, -1},
		{E1, E1, E1, CE},
		{E0, E1, E0, CE},
		{CE, CE, CE, CE},
	};
	struct outer o;

	for (unsigned i = 0; i < 4; i++)
		for (unsigned k = 0; k < 4; k++)
			assert_int_equal(tunnel_ecn(i, k), want[i][k]);
	for (int v6 = 0; v6 < 4; v6++) {
		start(v6 & 1);
		know(vm, from_vm);
		for (unsigned i = 0; i < 16; i++) {
			unsigned in = i & 3, out = i >> 2;
			char text[256];

			snprintf(text, sizeof text,
				 v6 & 2 ? "udp6,dl_src=02:00:00:00:00:09,dl_dst=02:00:00:00:00:01,ipv6_src=fd01::9,ipv6_dst=fd01::1,nw_tos=%u"
					: "udp,dl_src=02:00:00:00:00:09,dl_dst=02:00:00:00:00:01,nw_src=10.0.0.9,nw_dst=10.0.0.1,nw_tos=%u",
				 40 | in);
			make_inner(text);
			vxlan(&o, (uint8_t)(0x60 | out));
			if (want[in][out] < 0) {
				refused(&o, "tunnel.CONGESTION");
				continue;
			}
			if (v6 & 2) {
				inner[15] = (uint8_t)((inner[15] & 0xcf) | want[in][out] << 4);
			} else {
				inner[15] = (uint8_t)(40 | want[in][out]);
				put16(inner + 24, 0);
				put16(inner + 24, ~sum16(0, inner + 14, 20) & 0xffff);
			}
			accepted(&o, vm, far);
		}
		end();
	}
	// Not IP: there is nothing to mark.
	start(false);
	know(vm, from_vm);
	make_inner("dl_type=0x88b5,dl_src=02:00:00:00:00:09,dl_dst=02:00:00:00:00:01");
	vxlan(&o, 3);
	accepted(&o, vm, far);
	end();
}

static void check_outer(const struct lab_sent *s, enum tunnel_format f, bool v6, uint32_t vni, uint8_t tos)
{
	const uint8_t *b = s->bytes, *ip = b + 14, *l4 = ip + (v6 ? 40 : 20), *t = l4 + (f == TUNNEL_GRE ? 0 : 8);

	assert_int_equal(s->port, up);
	assert_memory_equal(b, hop_mac, 6);
	assert_memory_equal(b + 6, own_mac, 6);
	assert_int_equal(get16(b + 12), v6 ? 0x86dd : 0x0800);
	if (v6) {
		assert_int_equal(get16(ip) & 0xfff0, 0x6000 | tos << 4);
		assert_int_equal(get16(ip + 4), s->len - 54);
		assert_int_equal(ip[6], f == TUNNEL_GRE ? 47 : 17);
		assert_int_equal(ip[7], 64);
		assert_memory_equal(ip + 8, own6, 16);
		assert_memory_equal(ip + 24, far6, 16);
	} else {
		assert_int_equal(ip[0], 0x45);
		assert_int_equal(ip[1], tos);
		assert_int_equal(get16(ip + 2), s->len - 14);
		assert_int_equal(get16(ip + 6), 0x4000);
		assert_int_equal(ip[8], 64);
		assert_int_equal(ip[9], f == TUNNEL_GRE ? 47 : 17);
		assert_memory_equal(ip + 12, own4, 4);
		assert_memory_equal(ip + 16, far4, 4);
		assert_int_equal(sum16(0, ip, 20), 0xffff);
	}
	if (f != TUNNEL_GRE) {
		assert_in_range(get16(l4), 49152, 65535);
		assert_int_equal(get16(l4 + 2), f == TUNNEL_VXLAN ? 4789 : 6081);
		assert_int_equal(get16(l4 + 4), s->len - (unsigned)(l4 - b));
	}
	static const uint8_t begins[TUNNEL_FORMATS][4] = {{8, 0, 0, 0}, {0, 0, 0x65, 0x58}, {0x20, 0, 0x65, 0x58}};
	assert_memory_equal(t, begins[f], 4);
	uint32_t field = get16(t + 4) << 16 | get16(t + 6);
	assert_int_equal(field, f == TUNNEL_GRE ? vni : vni << 8);
	assert_int_equal(t + 8 - b + inner_len, s->len);
	assert_memory_equal(t + 8, inner, inner_len);
}

static void sends(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		start(v6);
		uint16_t third = lab_port("third", VLAN_ACCESS, green)->id;
		uint16_t from[] = {vm, other_vm, third};
		static const uint32_t vni[] = {VXLAN_VNI, GENEVE_VNI, GRE_VNI};
		lab_static(blue, &lab.config->ports[far - 1], "02:00:00:00:00:09");
		lab_static(red, &lab.config->ports[far - 1], "02:00:00:00:00:09");
		lab_static(green, &lab.config->ports[far - 1], "02:00:00:00:00:09");
		apply();
		for (unsigned f = 0; f < TUNNEL_FORMATS; f++) {
			// Traced, cached, and straight from the cache.
			for (unsigned i = 0; i < 3; i++) {
				char text[256];

				snprintf(text, sizeof text, "%s,nw_tos=%u", from_vm, 0x28 | i);
				make_inner(text);
				lab.traced = i < 2;
				lab_send(from[f], text);
				assert_int_equal(lab.n_sent, 1);
				check_outer(&lab.sent[0], (enum tunnel_format)f, v6, vni[f], (uint8_t)(0x28 | i));
				if (lab.traced) {
					lab_expect_trace("tunnel");
					lab_expect_trace("out by up");
					lab_reject_trace("DEFECT");
				}
			}
			lab.traced = true;
		}
		assert_int_equal(lab_count(far, COUNT_TX), 9);
		assert_int_equal(lab_count(up, COUNT_TX), 9);
		assert_int_equal(lab_count(vm, COUNT_SENT), 3);
		end();
	}
}

// The port that a flow's packets are sent from is its own, and flows differ.
static void spreads(void **state)
{
	unsigned ports[64];
	unsigned same = 0;

	start(false);
	lab_static(blue, &lab.config->ports[far - 1], "02:00:00:00:00:09");
	apply();
	for (unsigned i = 0; i < 64; i++) {
		for (unsigned again = 0; again < 2; again++) {
			char text[256];

			snprintf(text, sizeof text, i & 1 ? "udp,dl_dst=02:00:00:00:00:09,nw_src=10.0.0.1,nw_dst=10.0.0.9,tp_src=%u,tp_dst=7"
						     : "tcp6,dl_dst=02:00:00:00:00:09,ipv6_src=fd00::1,ipv6_dst=fd00::2,tp_src=%u,tp_dst=7", i);
			lab_send(vm, text);
			assert_int_equal(lab.n_sent, 1);
			unsigned port = get16(lab.sent[0].bytes + 34);
			assert_in_range(port, 49152, 65535);
			if (again)
				assert_int_equal(port, ports[i]);
			ports[i] = port;
		}
		for (unsigned k = 0; k < i; k++)
			same += ports[k] == ports[i];
	}
	assert_in_range(same, 0, 8);
	end();
}

static void settings(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		start(v6);
		lab_static(blue, &lab.config->ports[far - 1], "02:00:00:00:00:09");
		apply();
		struct tunnel_spec s = spec_of(far, v6);
		s.dscp = 10;
		s.df = false;
		s.checksum = true;
		s.vlan = 77;
		s.ttl = 9;
		set_way(far, s);
		char text[256];
		snprintf(text, sizeof text, "%s,nw_tos=3", from_vm);
		make_inner(text);
		for (unsigned i = 0; i < 2; i++) {
			lab_send(vm, text);
			assert_int_equal(lab.n_sent, 1);
			const uint8_t *b = lab.sent[0].bytes, *ip = b + 18, *udp = ip + (v6 ? 40 : 20);
			assert_int_equal(get16(b + 12), 0x8100);
			assert_int_equal(get16(b + 14), 77);
			if (v6) {
				assert_int_equal(get16(ip) >> 4 & 0xff, 10 << 2 | 3);
				assert_int_equal(ip[7], 9);
			} else {
				assert_int_equal(ip[1], 10 << 2 | 3);
				assert_int_equal(get16(ip + 6), 0);
				assert_int_not_equal(get16(ip + 4), 0); // RFC 6864
				assert_int_equal(ip[8], 9);
				assert_int_equal(sum16(0, ip, 20), 0xffff);
			}
			// It asks for its checksum; in the field is the sum of the pseudo-header.
			assert_int_equal(get16(udp + 6), pseudo_sum(ip, lab.sent[0].len - (unsigned)(udp - b)));
			assert_true(lab.sent[0].ol_flags & RTE_MBUF_F_TX_UDP_CKSUM);
			struct rte_mbuf *m = lab_mbuf(b, lab.sent[0].len, 0);
			m->ol_flags = lab.sent[0].ol_flags;
			m->tx_offload = lab.sent[0].tx_offload;
			assert_int_equal(offload_checksum(m), 0);
			const uint8_t *done = rte_pktmbuf_mtod_offset(m, const uint8_t *, udp - b);
			assert_int_equal(sum16(pseudo_sum(ip, lab.sent[0].len - (unsigned)(udp - b)), done, lab.sent[0].len - (unsigned)(udp - b)), 0xffff);
			rte_pktmbuf_free(m);
		}
		end();
	}
}

static void cannot_send(void **state)
{
	uint8_t frame[LAB_FRAME];

	start(false);
	lab_static(blue, &lab.config->ports[far - 1], "02:00:00:00:00:09");
	apply();
	set_way(far, (struct tunnel_spec){.src = own4, .dst = far4});
	lab_expect_drop(vm, from_vm, "tunnel.NO_NEXT_HOP");
	assert_int_equal(lab_count(far, COUNT_TX_DROPPED), 1);
	// A tag that is the customer's own.
	set_way(far, spec_of(far, false));
	struct config_port *customer = lab_port("customer", VLAN_DOT1Q_TUNNEL, blue);
	apply();
	uint32_t len = lab_tag(frame, lab_compose(frame, from_vm), 0x8100, 5);
	lab_expect_drop_frame(customer->id, frame, len, "tunnel.INNER_VLAN");
	// The network lets such tags through, both ways.
	blue->other_config.pair = calloc(1, sizeof *blue->other_config.pair);
	blue->other_config.pair[0] = (struct config_pair){strdup("inner-vlan"), strdup("true")};
	blue->other_config.n = 1;
	apply();
	lab_send_frame(customer->id, frame, len);
	assert_int_equal(lab.n_sent, 1);
	assert_memory_equal(lab.sent[0].bytes + 50, frame, len);
	struct outer o;
	make_inner("udp,dl_src=02:00:00:00:00:09,dl_dst=02:00:00:00:00:01");
	inner_len = lab_tag(inner, inner_len, 0x8100, 5);
	vxlan(&o, 0);
	accepted(&o, customer->id, far);
	// The network's VNI goes while its packets are under way.
	uint32_t was = lab.config->networks[1].vni;
	tunnel_table->network[blue->id].used = false;
	lab_expect_drop(vm, from_vm, "tunnel.NO_VNI");
	assert_int_equal(was, VXLAN_VNI);
	end();
}

// A broadcast goes to every tunnel, on headers of its own, and none from a tunnel to another. Unknown destinations go where stations are that nobody told of.
static void floods(void **state)
{
	struct outer o;

	start(false);
	lab.config->ports[farther - 1].unknown = calloc(1, sizeof(struct row_id));
	lab.config->ports[farther - 1].unknown[0] = blue->row;
	lab.config->ports[farther - 1].n_unknown = 1;
	uint16_t vm2 = lab_port("vm2", VLAN_ACCESS, blue)->id;
	apply();
	make_inner("arp,dl_src=02:00:00:00:00:01,dl_dst=ff:ff:ff:ff:ff:ff");
	lab_send(vm, "arp,dl_src=02:00:00:00:00:01,dl_dst=ff:ff:ff:ff:ff:ff");
	assert_int_equal(lab.n_sent, 3);
	unsigned packets = 0;
	for (unsigned i = 0; i < 3; i++) {
		if (lab.sent[i].port == vm2) {
			assert_memory_equal(lab.sent[i].bytes, inner, inner_len);
			continue;
		}
		packets++;
		assert_int_equal(lab.sent[i].len, inner_len + 50);
		assert_memory_equal(lab.sent[i].bytes + 50, inner, inner_len);
		assert_int_equal(sum16(0, lab.sent[i].bytes + 14, 20), 0xffff);
	}
	assert_int_equal(packets, 2);
	lab_send(vm, "udp,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:77");
	assert_int_equal(lab.n_sent, 2);
	assert_non_null(lab_sent_to(vm2));
	assert_memory_equal(lab_sent_to(up)->bytes + 30, farther4, 4);
	make_inner("arp,dl_src=02:00:00:00:00:09,dl_dst=ff:ff:ff:ff:ff:ff");
	vxlan(&o, 0);
	lab_send_frame(up, o.b, o.len);
	assert_int_equal(lab.n_sent, 2);
	assert_non_null(lab_sent_to(vm));
	assert_non_null(lab_sent_to(vm2));
	end();
}

// One burst with packets of two tunnels, two networks, ordinary ones and bad ones between them: each flow's order stays.
static void mixed_burst(void **state)
{
	struct rte_mbuf *m[BURST];
	struct outer o;

	for (unsigned traced = 0; traced < 3; traced++) {
		start(false);
		lab.traced = false;
		know(vm, from_vm);
		know(other_vm, from_vm);
		lab.traced = traced > 0;
		for (unsigned i = 0; i < BURST; i++) {
			char text[256];

			snprintf(text, sizeof text, "%s,nw_ttl=%u", to_vm, 10 + i);
			make_inner(text);
			if (i % 4 == 3)
				wrap(&o, TUNNEL_VXLAN, false, far4, i % 8 == 3 ? 1 : VXLAN_VNI, 0);
			else
				wrap(&o, i % 4 == 1 ? TUNNEL_GENEVE : TUNNEL_VXLAN, false, i % 4 == 2 ? farther4 : far4, i % 4 == 1 ? GENEVE_VNI : VXLAN_VNI, 0);
			if (i % 8 == 7)
				put16(o.b + o.l4 + 2, 53);
			m[i] = lab_mbuf(o.b, o.len, traced == 2 ? 40 : 0);
		}
		lab_burst(up, m, BURST);
		unsigned last[3] = {0}, n = 0;
		for (unsigned i = 0; i < lab.n_sent; i++) {
			unsigned k = lab.sent[i].port == other_vm ? 0 : lab.sent[i].origin == far ? 1 : 2;

			assert_true(lab.sent[i].port == vm || lab.sent[i].port == other_vm);
			assert_true(lab.sent[i].bytes[22] > last[k]);
			last[k] = lab.sent[i].bytes[22];
			n++;
		}
		assert_int_equal(n, 24);
		assert_int_equal(lab_drops(up, "tunnel.UNKNOWN_VNI"), 4);
		assert_int_equal(lab_count(up, COUNT_CONSUMED), 24);
		assert_int_equal(lab_count(far, COUNT_RX), 16);
		assert_int_equal(lab_count(farther, COUNT_RX), 8);
		assert_int_equal(lab_count(up, COUNT_RX), 32);
		end();
	}
}

// More new flows than a turn may resolve: they wait on the tunnel's port, which nobody polls.
static void waits_for_decisions(void **state)
{
	struct outer o;

	start(false);
	lab.traced = false;
	know(vm, from_vm);
	lab.w.resolve_budget = 2;
	struct rte_mbuf *m[BURST];
	for (unsigned i = 0; i < BURST; i++) {
		make_inner(to_vm);
		inner[11] = (uint8_t)(0x80 + i);
		vxlan(&o, 0);
		m[i] = lab_mbuf(o.b, o.len, 0);
	}
	lab_burst(up, m, BURST);
	assert_int_equal(lab_count(far, COUNT_QUEUED), BURST - 2);
	unsigned turns = 0;
	while (tunnel_misses(&lab.w))
		turns++;
	lab_flush();
	assert_int_equal(turns, 14);
	assert_int_equal(lab_count(far, COUNT_QUEUED), 0);
	assert_int_equal(lab.n_sent, BURST);
	end();
}

// A large TCP frame is cut before it goes in.
static void cuts_large_frames(void **state)
{
	static uint8_t frame[LAB_FRAME];

	for (int v6 = 0; v6 < 4; v6++) {
		start(v6 & 1);
		lab_static(blue, &lab.config->ports[far - 1], "02:00:00:00:00:09");
		apply();
		uint32_t len = lab_compose(frame, v6 & 2 ? "tcp6,dl_dst=02:00:00:00:00:09,ipv6_src=fd00::1,ipv6_dst=fd00::2,packet_len=9000"
							 : "tcp,dl_dst=02:00:00:00:00:09,nw_src=10.0.0.1,nw_dst=10.0.0.9,packet_len=9000");
		unsigned headers = v6 & 2 ? 74 : 54;
		const uint8_t *ip = frame + 14;
		// The sum of the pseudo-header, as a guest leaves it.
		unsigned l4 = len - (headers - 20), sum = sum16(6 + l4, ip + (v6 & 2 ? 8 : 12), v6 & 2 ? 32 : 8);
		put16(frame + headers - 4, sum);
		struct rte_mbuf *m = lab_mbuf(frame, len, 0);
		m->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_NONE | RTE_MBUF_F_RX_LRO;
		m->tso_segsz = 1300;
		lab_send_mbuf(vm, m);
		unsigned n = (len - headers + 1299) / 1300, at = 0, over = v6 & 1 ? 70 : 50;
		assert_int_equal(lab.n_sent, n);
		for (unsigned i = 0; i < n; i++) {
			const uint8_t *in = lab.sent[i].bytes + over, *inner_ip = in + 14;
			unsigned bytes = lab.sent[i].len - over;

			assert_memory_equal(in + headers, frame + headers + at, bytes - headers);
			at += bytes - headers;
			l4 = bytes - (headers - 20);
			assert_int_equal(sum16(sum16(6 + l4, inner_ip + (v6 & 2 ? 8 : 12), v6 & 2 ? 32 : 8), in + headers - 20, l4), 0xffff);
			assert_int_equal(get16(lab.sent[i].bytes + 34 + (v6 & 1 ? 20 : 0)), get16(lab.sent[0].bytes + 34 + (v6 & 1 ? 20 : 0)));
		}
		assert_int_equal(at, len - headers);
		assert_int_equal(lab_count(vm, COUNT_SEGMENTS), n - 1);
		end();
	}
}

static void without_buffers(void **state)
{
	start(false);
	lab_port("vm2", VLAN_ACCESS, blue);
	apply();
	lab.traced = false;
	for (int n = 0; n < 12; n++) {
		uint8_t frame[LAB_FRAME];
		uint32_t len = lab_compose(frame, "arp,dl_src=02:00:00:00:00:01,dl_dst=ff:ff:ff:ff:ff:ff");
		struct rte_mbuf *m = lab_mbuf(frame, len, 0);

		lab_few_buffers(n);
		lab_send_mbuf(vm, m);
		lab_few_buffers(-1);
		lab_check();
	}
	end();
}

// A mirror of the underlay's port gets packets as they are on the link, both ways.
static void mirrored(void **state)
{
	struct outer o;

	start(false);
	uint16_t probe = lab_port("probe", VLAN_ACCESS, blue)->id;
	lab_static(blue, &lab.config->ports[far - 1], "02:00:00:00:00:09");
	apply();
	know(vm, from_vm);
	lab.config->mirrors = calloc(1, sizeof *lab.config->mirrors);
	lab.config->n_mirrors = 1;
	struct config_mirror *cm = lab.config->mirrors;
	cm->name = strdup("span");
	cm->row = (struct row_id){{0x77}};
	cm->has_output = true;
	cm->output = lab.config->ports[probe - 1].row;
	cm->src = malloc(sizeof *cm->src);
	cm->dst = malloc(sizeof *cm->dst);
	*cm->src = *cm->dst = lab.config->ports[up - 1].row;
	cm->n_src = cm->n_dst = 1;
	apply();
	assert_null(cm->error);
	for (unsigned traced = 0; traced < 2; traced++) {
		lab.traced = traced;
		make_inner(to_vm);
		vxlan(&o, 3); // whose congestion would be marked in what both see, if it were the same buffer
		o.b[o.l3 + 1] = 2;
		fix_ip(&o);
		lab_send_frame(up, o.b, o.len);
		assert_int_equal(lab.n_sent, 2);
		assert_int_equal(lab_sent_to(probe)->len, o.len);
		assert_memory_equal(lab_sent_to(probe)->bytes, o.b, o.len);
		assert_memory_equal(lab_sent_to(vm)->bytes, inner, inner_len);
		make_inner(from_vm);
		lab_send(vm, from_vm);
		assert_int_equal(lab.n_sent, 2);
		assert_memory_equal(lab_sent_to(up)->bytes + 50, inner, inner_len);
		assert_int_equal(lab_sent_to(probe)->len, lab_sent_to(up)->len);
		assert_memory_equal(lab_sent_to(probe)->bytes, lab_sent_to(up)->bytes, lab_sent_to(up)->len);
	}
	assert_int_equal(lab_count(up, COUNT_COPIES), 2);
	assert_int_equal(lab_count(vm, COUNT_COPIES), 2);
	lab.config->n_mirrors = 0;
	apply();
	lab.traced = false;
	lab_send(vm, from_vm);
	assert_int_equal(lab.n_sent, 1);
	lab.config->n_mirrors = 1; // for who frees it
	end();
}

static void explains(void **state)
{
	struct outer o;

	start(false);
	know(vm, from_vm);
	make_inner(to_vm);
	vxlan(&o, 0);
	char *text = lab_explain(up, lab_mbuf(o.b, o.len, 0), NULL, NULL);
	assert_non_null(strstr(text, "VNI 5000: its frame comes in by far, network blue"));
	assert_non_null(strstr(text, "out by vm"));
	free(text);
	o.b[o.tunnel + 6]++;
	text = lab_explain(up, lab_mbuf(o.b, o.len, 0), NULL, NULL);
	assert_non_null(strstr(text, "tunnel.UNKNOWN_VNI"));
	free(text);
	assert_int_equal(lab_count(up, COUNT_CONSUMED), 0);
	end();
}

// What is held against the packet before it is judged as it would be alone.
static void same_behind_another(void **state)
{
	uint64_t x = 88172645463325252ULL;
	unsigned let_in = 0;
	struct outer o, good;

	start(false);
	lab.traced = false;
	tunnel_table->end[0].collects = false; // what becomes of a fragment depends on those before it
	know(vm, from_vm);
	make_inner(to_vm);
	vxlan(&good, 0);
	for (unsigned i = 0; i < 20000; i++) {
		struct rte_mbuf *m[2];

		vxlan(&o, 0);
		unsigned changes = i % 3;
		for (unsigned k = 0; k < changes; k++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			unsigned at = (unsigned)((x >> 20) % (o.inner + 2));
			o.b[at < o.inner ? at : at + 12] ^= (uint8_t)(1u << (x >> 40 & 7)); // not the inner addresses, which would be learned
		}
		if (i & 4)
			fix_ip(&o);
		if ((i & 0x38) == 8)
			o.len -= 1 + (unsigned)(x >> 50) % 3;
		if ((i & 0x38) == 16)
			o.len += 1 + (unsigned)(x >> 50) % 3;
		lab_send_mbuf(up, lab_mbuf(o.b, o.len, 0));
		uint64_t consumed = lab_count(up, COUNT_CONSUMED), drops = lab_all_drops(up), inner_drops = lab_all_drops(far);
		unsigned n = lab.n_sent, len = n ? lab.sent[0].len : 0;
		uint8_t bytes[1600];
		memcpy(bytes, n ? lab.sent[0].bytes : o.b, n ? len : 1);
		lab_send_mbuf(up, lab_mbuf(o.b, o.len, 0));
		consumed = lab_count(up, COUNT_CONSUMED) - consumed;
		drops = lab_all_drops(up) - drops;
		inner_drops = lab_all_drops(far) - inner_drops;
		m[0] = lab_mbuf(good.b, good.len, 0);
		m[1] = lab_mbuf(o.b, o.len, 0);
		uint64_t before[] = {lab_count(up, COUNT_CONSUMED), lab_all_drops(up), lab_all_drops(far)};
		lab_burst(up, m, 2);
		assert_int_equal(lab_count(up, COUNT_CONSUMED) - before[0], 1 + consumed);
		assert_int_equal(lab_all_drops(up) - before[1], drops);
		assert_int_equal(lab_all_drops(far) - before[2], inner_drops);
		if (consumed && n == 1 && lab.n_sent == 2) {
			assert_int_equal(lab.sent[1].len, len);
			assert_memory_equal(lab.sent[1].bytes, bytes, len);
			let_in++;
		}
	}
	assert_in_range(let_in, 2000, 20000);
	end();
}

// Nothing that comes may do harm.
static void rubbish(void **state)
{
	uint64_t x = 88172645463325252ULL;
	struct outer o;

	for (int v6 = 0; v6 < 2; v6++) {
		start(v6);
		lab.traced = lab.keep = false;
		for (unsigned i = 0; i < 60000; i++) {
			static const uint32_t vni[] = {VXLAN_VNI, GENEVE_VNI, GRE_VNI};
			enum tunnel_format f = (enum tunnel_format)(i % 3);

			make_inner(i & 8 ? to_vm : "arp,dl_dst=ff:ff:ff:ff:ff:ff,dl_src=02:00:00:00:00:09");
			wrap(&o, f, v6, v6 ? far6 : far4, vni[f], (uint8_t)i);
			unsigned changes = (unsigned)(x >> 60) % 5;
			for (unsigned k = 0; k <= changes; k++) {
				x ^= x << 13, x ^= x >> 7, x ^= x << 17;
				o.b[12 + (x >> 20) % (o.inner + 4)] = (uint8_t)(x >> 40);
			}
			if (x >> 50 & 1)
				fix_ip(&o);
			if ((x >> 51 & 3) == 0)
				o.len = 14 + (unsigned)(x >> 8) % (o.len - 13);
			lab_send_mbuf(up, lab_mbuf(o.b, o.len, (x >> 53 & 3) ? 0 : 1 + (unsigned)(x >> 30) % 90));
			if (i % 1000 == 0) {
				lab_advance_ms(61000); // fragments may be among it
				lab_tick();
				lab_flush();
				lab_check();
			}
		}
		end();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(receives),      cmocka_unit_test(outer_odds),          cmocka_unit_test(checksums),
		cmocka_unit_test(refuses),       cmocka_unit_test(fragments), cmocka_unit_test(wrong_fragments), cmocka_unit_test(fragments_of_rubbish),          cmocka_unit_test(leaves_others_alone),
		cmocka_unit_test(ecn_table),     cmocka_unit_test(sends),               cmocka_unit_test(spreads),
		cmocka_unit_test(settings),      cmocka_unit_test(cannot_send),         cmocka_unit_test(floods),
		cmocka_unit_test(mixed_burst),   cmocka_unit_test(waits_for_decisions), cmocka_unit_test(cuts_large_frames),
		cmocka_unit_test(without_buffers), cmocka_unit_test(mirrored), cmocka_unit_test(explains),          cmocka_unit_test(same_behind_another),
		cmocka_unit_test(rubbish),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
