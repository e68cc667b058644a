// respond: answers made in place, held against packets that the test builds from the RFCs' drawings with sums of its own, and by rubbish.
#include "lab.h"
#include "compose.h"
#include "offload.h"
#include "respond.h"

#include <arpa/inet.h>
#include <errno.h>

static const uint8_t MAC[6] = {0x02, 0xaa, 0, 0, 0, 0xfe};
static const struct config_ip SRC4 = {false, {10, 0, 0, 254}}, SRC6 = {true, {0xfd, [15] = 0xfe}};

static int setup(void **state)
{
	lab_setup();
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

// ---- a builder

struct out {
	uint8_t b[LAB_FRAME];
	uint32_t n;
};

static void add(struct out *o, const void *bytes, uint32_t n)
{
	memcpy(o->b + o->n, bytes, n);
	o->n += n;
}

static void add_hex(struct out *o, const char *hex)
{
	unsigned v;

	for (; *hex; hex += *hex == ' ' ? 1 : 2)
		if (*hex != ' ' && sscanf(hex, "%2x", &v) == 1)
			o->b[o->n++] = (uint8_t)v;
}

static uint32_t sum_up(const uint8_t *b, uint32_t n, uint64_t acc)
{
	for (uint32_t i = 0; i < n; i++)
		acc += i % 2 ? b[i] : (uint64_t)b[i] << 8;
	while (acc >> 16)
		acc = (acc & 0xffff) + (acc >> 16);
	return (uint32_t)acc;
}

static void put_sum(uint8_t *field, uint32_t sum)
{
	field[0] = (uint8_t)(~sum >> 8);
	field[1] = (uint8_t)~sum;
}

static uint32_t get16(const uint8_t *b)
{
	return (uint32_t)(b[0] << 8 | b[1]);
}

// Lengths and checksums of a frame whose ICMP or ICMPv6 message begins at `l4`.
static void finish(struct out *o, uint32_t l3, uint32_t l4)
{
	uint32_t len = o->n - l4;

	if (o->b[l3] >> 4 == 4) {
		o->b[l3 + 2] = (uint8_t)((o->n - l3) >> 8);
		o->b[l3 + 3] = (uint8_t)(o->n - l3);
		put_sum(o->b + l3 + 10, sum_up(o->b + l3, l4 - l3, 0));
		put_sum(o->b + l4 + 2, sum_up(o->b + l4, len, 0));
	} else {
		o->b[l3 + 4] = (uint8_t)((o->n - l3 - 40) >> 8);
		o->b[l3 + 5] = (uint8_t)(o->n - l3 - 40);
		put_sum(o->b + l4 + 2, sum_up(o->b + l4, len, sum_up(o->b + l3 + 8, 32, 58 + len)));
	}
}

// ---- a packet as a stage has it

static struct rte_mbuf *stage_packet(const uint8_t *frame, uint32_t len, uint32_t cut, uint64_t rx_flags, uint16_t segsz)
{
	struct rte_mbuf *m = lab_mbuf(frame, len, cut);
	struct flow_key key;

	m->ol_flags |= rx_flags;
	m->tso_segsz = segsz;
	memset(pkt_of(m), 0, sizeof *pkt_of(m));
	pkt_of(m)->in_port = pkt_of(m)->origin = 7;
	pkt_of(m)->out = 9;
	if (parse(m, &key) == -EAGAIN) {
		m = pkt_own_headers(m, PARSE_HEADERS_MAX, lab.w.pool);
		assert_non_null(m);
		assert_int_equal(parse(m, &key), 0);
	}
	if (!pkt_of(m)->drop)
		m = pkt_own_headers(m, pkt_of(m)->l4_ofs && pkt_of(m)->l4_ofs <= PARSE_HEADERS_MAX ? pkt_of(m)->l4_ofs + 64 : 128, lab.w.pool);
	return m;
}

static struct rte_mbuf *packet(const char *text, uint32_t cut)
{
	uint8_t frame[COMPOSE_MAX];

	return stage_packet(frame, lab_compose(frame, text), cut, 0, 0);
}

// What parse() makes of the bytes is what the packet says of itself; no offload.
static void check_parsed(struct rte_mbuf *m)
{
	uint8_t copy[LAB_FRAME];
	const uint8_t *bytes = rte_pktmbuf_read(m, 0, m->pkt_len, copy);
	struct rte_mbuf *fresh = lab_mbuf(bytes, m->pkt_len, 0);
	struct pkt *p = pkt_of(m), *q = pkt_of(fresh);
	struct flow_key key;

	rte_mbuf_sanity_check(m, 1);
	memset(q, 0, sizeof *q);
	assert_int_equal(parse(fresh, &key), 0);
	assert_int_equal(q->drop, 0);
	q->decision = p->decision;
	q->in_port = p->in_port;
	q->origin = p->origin;
	assert_memory_equal(p, q, sizeof *p);
	assert_int_equal(m->ol_flags & ~(RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL), 0);
	assert_int_equal(m->tx_offload, 0);
	assert_int_equal(p->in_port, 7);
	assert_int_equal(p->out, 9);
	rte_pktmbuf_free(fresh);
}

static void expect(struct rte_mbuf *m, const struct out *o)
{
	uint8_t copy[LAB_FRAME];
	const uint8_t *bytes = rte_pktmbuf_read(m, 0, m->pkt_len, copy);

	check_parsed(m);
	assert_int_equal(m->pkt_len, o->n);
	assert_memory_equal(bytes, o->b, o->n);
	rte_pktmbuf_free(m);
}

static void expect_text(struct rte_mbuf *m, const char *text)
{
	uint8_t frame[COMPOSE_MAX];
	struct out o = {.n = lab_compose(frame, text)};

	memcpy(o.b, frame, o.n);
	expect(m, &o);
}

// ---- ARP, neighbours, echo

static void arp(void **state)
{
	struct rte_mbuf *m = packet("arp,dl_vlan=5,arp_op=1,dl_src=02:00:00:00:00:01,dl_dst=ff:ff:ff:ff:ff:ff,arp_sha=02:00:00:00:00:01,arp_spa=10.0.0.1,arp_tpa=10.0.0.254", 0);

	assert_int_equal(respond_arp(m, MAC), 0);
	expect_text(m, "arp,dl_vlan=5,arp_op=2,dl_src=02:aa:00:00:00:fe,dl_dst=02:00:00:00:00:01,arp_sha=02:aa:00:00:00:fe,arp_spa=10.0.0.254,"
		       "arp_tha=02:00:00:00:00:01,arp_tpa=10.0.0.1");
	m = packet("arp,arp_op=2", 0);
	assert_int_equal(respond_arp(m, MAC), -EINVAL);
	assert_int_equal(respond_echo(m, MAC, NULL), -EINVAL);
	assert_int_equal(respond_neighbour(m, MAC, true), -EINVAL);
	assert_int_equal(respond_error(m, RESPOND_TTL, MAC, &SRC4, 0), -EINVAL);
	rte_pktmbuf_free(m);
}

#define NS "icmp6,icmpv6_type=135,dl_src=02:00:00:00:00:01,dl_dst=33:33:ff:00:00:fe,ipv6_dst=ff02::1:ff00:fe,nd_target=fd00::fe,nw_ttl=255"

static void advertisement(struct out *o, const char *front, const char *dst_ip, const char *flags, const char *target)
{
	uint32_t l3 = (uint32_t)strlen(front) / 2;

	add_hex(o, front);
	add_hex(o, "60000000 0000 3a ff");
	add_hex(o, target);
	add_hex(o, dst_ip);
	add_hex(o, "88000000");
	add_hex(o, flags);
	add_hex(o, target);
	add_hex(o, "0201 02aa000000fe");
	finish(o, l3, l3 + 40);
}

#define FD_FE "fd0000000000000000000000000000fe"
#define FD_1 "fd000000000000000000000000000001"
#define ALL_NODES "ff020000000000000000000000000001"

static void neighbour(void **state)
{
	struct out o = {.n = 0}, tagged = {.n = 0}, dad = {.n = 0};
	struct rte_mbuf *m = packet(NS ",ipv6_src=fd00::1,nd_sll=02:00:00:00:00:01", 0);

	advertisement(&o, "02000000000102aa000000fe86dd", FD_1, "e0000000", FD_FE);
	assert_int_equal(respond_neighbour(m, MAC, true), 0);
	expect(m, &o);
	// Without an option there is less room than the answer takes, and in several buffers.
	for (uint32_t cut = 0; cut <= 60; cut += 20) {
		tagged.n = 0;
		m = packet(NS ",ipv6_src=fd00::1,dl_vlan=7", cut);
		advertisement(&tagged, "02000000000102aa000000fe8100000786dd", FD_1, "60000000", FD_FE);
		assert_int_equal(respond_neighbour(m, MAC, false), 0);
		expect(m, &tagged);
	}
	m = packet(NS ",ipv6_src=::", 0);
	advertisement(&dad, "33330000000102aa000000fe86dd", ALL_NODES, "a0000000", FD_FE);
	assert_int_equal(respond_neighbour(m, MAC, true), 0);
	expect(m, &dad);
}

static void neighbour_wrong(void **state)
{
	static const char *const wrong[] = {
		NS ",ipv6_src=::,nd_sll=02:00:00:00:00:01", // RFC 4861 7.1.1: nobody has no link-layer address
		"icmp6,icmpv6_type=135,ipv6_src=::,ipv6_dst=ff02::1,nd_target=fd00::fe,nw_ttl=255",
		"icmp6,icmpv6_type=135,ipv6_src=fd00::1,nd_target=ff02::1,nw_ttl=255",
		"icmp6,icmpv6_type=135,ipv6_src=fd00::1,nd_target=fd00::fe,nw_ttl=254",
		"icmp6,icmpv6_type=136,ipv6_src=fd00::1,nd_target=fd00::fe,nw_ttl=255",
	};
	uint8_t frame[COMPOSE_MAX];

	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		struct rte_mbuf *m = packet(wrong[i], 0);

		assert_int_equal(respond_neighbour(m, MAC, true), -EINVAL);
		rte_pktmbuf_free(m);
	}
	uint32_t len = lab_compose(frame, NS ",ipv6_src=fd00::1,nd_sll=02:00:00:00:00:01");
	// Each byte of the message, wrong by itself: the checksum says so. An option without length is wrong with any checksum.
	for (uint32_t i = 54; i < len; i++) {
		frame[i] ^= 0x10;
		struct rte_mbuf *m = stage_packet(frame, len, 0, 0, 0);
		assert_int_equal(respond_neighbour(m, MAC, true), -EINVAL);
		rte_pktmbuf_free(m);
		frame[i] ^= 0x10;
	}
	struct out o = {.n = 0};
	add(&o, frame, len);
	o.b[79] = 0;
	o.b[56] = o.b[57] = 0;
	finish(&o, 14, 54);
	struct rte_mbuf *m = stage_packet(o.b, o.n, 0, 0, 0);
	assert_int_equal(respond_neighbour(m, MAC, true), -EINVAL);
	rte_pktmbuf_free(m);
}

static void echo(void **state)
{
	static const char *const sizes[] = {"60", "98", "99", "1514", "9014"};
	char ask[512], reply[512];

	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		for (uint32_t cut = 0; cut < 300; cut += 111) {
			snprintf(ask, sizeof ask, "icmp,icmp_type=8,dl_vlan=3,dl_src=02:00:00:00:00:01,dl_dst=02:aa:00:00:00:fe,nw_src=10.0.0.1,nw_dst=10.0.0.254,nw_ttl=3,packet_len=%s", sizes[i]);
			snprintf(reply, sizeof reply, "icmp,icmp_type=0,dl_vlan=3,dl_dst=02:00:00:00:00:01,dl_src=02:aa:00:00:00:fe,nw_dst=10.0.0.1,nw_src=10.0.0.254,nw_ttl=64,packet_len=%s", sizes[i]);
			struct rte_mbuf *m = packet(ask, cut);
			assert_int_equal(respond_echo(m, MAC, NULL), 0);
			expect_text(m, reply);
			snprintf(ask, sizeof ask, "icmp6,icmpv6_type=128,dl_src=02:00:00:00:00:01,dl_dst=33:33:00:00:00:01,ipv6_src=fd00::1,ipv6_dst=ff02::1,nw_ttl=1,packet_len=%s", i ? sizes[i] : "70");
			snprintf(reply, sizeof reply, "icmp6,icmpv6_type=129,dl_dst=02:00:00:00:00:01,dl_src=02:aa:00:00:00:fe,ipv6_dst=fd00::1,ipv6_src=fd00::fe,nw_ttl=64,packet_len=%s", i ? sizes[i] : "70");
			m = packet(ask, cut);
			assert_int_equal(respond_echo(m, MAC, NULL), -EPERM); // of a group
			assert_int_equal(respond_echo(m, MAC, &SRC4), -EINVAL);
			struct config_ip src = {true, {0xfd, [15] = 0xfe}};
			assert_int_equal(respond_echo(m, MAC, &src), 0);
			expect_text(m, reply);
		}
	}
}

static void echo_refused(void **state)
{
	static const struct {
		const char *text;
		int rc;
	} bad[] = {
		{"icmp,icmp_type=0", -EINVAL},
		{"icmp,icmp_type=8,icmp_code=1", -EINVAL},
		{"icmp,icmp_type=8,nw_frag=first", -EINVAL},
		{"ip,nw_proto=1,nw_frag=later", -EINVAL},
		{"icmp6,icmpv6_type=128,nw_frag=first", -EINVAL},
		{"icmp,icmp_type=8,nw_src=0.0.0.0", -EPERM},
		{"icmp,icmp_type=8,nw_src=127.0.0.1", -EPERM},
		{"icmp,icmp_type=8,nw_src=224.0.0.1", -EPERM},
		{"icmp,icmp_type=8,nw_dst=224.0.0.1", -EPERM},
		{"icmp6,icmpv6_type=128,ipv6_src=::", -EPERM},
		{"icmp6,icmpv6_type=128,ipv6_src=ff02::1", -EPERM},
		{"icmp,icmp_type=8,dl_src=03:00:00:00:00:01", -EINVAL},
		{"udp", -EINVAL},
		{"tcp6", -EINVAL},
	};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct rte_mbuf *m = packet(bad[i].text, 0);

		assert_int_equal(respond_echo(m, MAC, NULL), bad[i].rc);
		rte_pktmbuf_free(m);
	}
}

// Record route goes on, router alert stays away (and the header is shorter by it); a source route is not served.
static void echo_with_options(void **state)
{
	static const char eth[] = "02aa000000fe 020000000001 0800", back[] = "020000000001 02aa000000fe 0800", body[] = "0000 1234 0001 61626364656667";
	struct out ask = {.n = 0}, reply = {.n = 0}, src = {.n = 0};

	add_hex(&ask, eth);
	add_hex(&ask, "4800 0000 0007 0000 05 01 0000 0a000001 0a0000fe 94040000 07070400000000 00 0800");
	add_hex(&ask, body);
	finish(&ask, 14, 46);
	struct rte_mbuf *m = stage_packet(ask.b, ask.n, 0, 0, 0);
	assert_int_equal(respond_echo(m, MAC, NULL), 0);
	add_hex(&reply, back);
	add_hex(&reply, "4700 0000 0007 0000 40 01 0000 0a0000fe 0a000001 070708 0a0000fe 00 0000");
	add_hex(&reply, body);
	finish(&reply, 14, 42);
	expect(m, &reply);
	add_hex(&src, eth);
	add_hex(&src, "4700 0000 0007 0000 05 01 0000 0a000001 0a0000fe 83070401020304 00 0800");
	add_hex(&src, body);
	finish(&src, 14, 42);
	m = stage_packet(src.b, src.n, 0, 0, 0);
	assert_int_equal(respond_echo(m, MAC, NULL), -EPERM);
	rte_pktmbuf_free(m);
}

static void echo_with_extensions(void **state)
{
	static const char body[] = "1234 0001 6162636465";
	struct out ask = {.n = 0}, reply = {.n = 0};

	add_hex(&ask, "02aa000000fe 020000000001 86dd 6ab12345 0000 00 40" FD_1 FD_FE "3c00 050200000100 2b00 010400000000 3a02 0000 00000000" FD_FE "8000");
	uint32_t l4 = ask.n - 2;
	add_hex(&ask, "0000");
	add_hex(&ask, body);
	// A routing header that is used up; the sum is over 54 + 8 + 8 + 24.
	finish(&ask, 14, l4);
	assert_int_equal(l4, 94);
	struct rte_mbuf *m = stage_packet(ask.b, ask.n, 0, 0, 0);
	assert_int_equal(respond_echo(m, MAC, NULL), 0);
	add_hex(&reply, "020000000001 02aa000000fe 86dd 6a800000 0000 3a 40" FD_FE FD_1 "8100 0000");
	add_hex(&reply, body);
	finish(&reply, 14, 54);
	expect(m, &reply);
	ask.b[73] = 1; // a hop that is left
	m = stage_packet(ask.b, ask.n, 0, 0, 0);
	assert_int_equal(respond_echo(m, MAC, NULL), -EPERM);
	rte_pktmbuf_free(m);
}

// ---- errors

// The frame that an error about the frame must be.
static void error_about(struct out *o, const uint8_t *f, uint32_t l3, const char *icmp, uint32_t max)
{
	bool v4 = f[l3] >> 4 == 4;
	uint32_t bytes = v4 ? get16(f + l3 + 2) : 40 + get16(f + l3 + 4);

	o->n = 0;
	add(o, f + 6, 6);
	add(o, MAC, 6);
	add(o, f + 12, l3 - 12);
	if (v4) {
		add_hex(o, "45c0 0000");
		add(o, f + l3 + 4, 2);
		add_hex(o, "0000 40 01 0000");
		add(o, SRC4.b, 4);
		add(o, f + l3 + 12, 4);
		o->b[l3 + 1] = (uint8_t)(0xc0 | (f[l3 + 1] & 0x1c));
	} else {
		add_hex(o, "6c000000 0000 3a 40");
		add(o, SRC6.b, 16);
		add(o, f + l3 + 8, 16);
	}
	uint32_t l4 = o->n;
	add_hex(o, icmp);
	add(o, f + l3, bytes > max ? max : bytes);
	finish(o, l3, l4);
}

static void each_error(void **state)
{
	static const struct {
		enum respond_error e;
		uint32_t info;
		const char *v4, *v6;
	} rows[] = {
		{RESPOND_TTL, 0, "0b00 0000 00000000", "0300 0000 00000000"},
		{RESPOND_REASSEMBLY, 0, "0b01 0000 00000000", "0301 0000 00000000"},
		{RESPOND_NET_UNREACHABLE, 0, "0300 0000 00000000", "0100 0000 00000000"},
		{RESPOND_HOST_UNREACHABLE, 0, "0301 0000 00000000", "0103 0000 00000000"},
		{RESPOND_PROTO_UNREACHABLE, 6, "0302 0000 00000000", "0401 0000 00000006"},
		{RESPOND_PORT_UNREACHABLE, 0, "0303 0000 00000000", "0104 0000 00000000"},
		{RESPOND_PROHIBITED, 0, "030d 0000 00000000", "0101 0000 00000000"},
		{RESPOND_BEYOND_SCOPE, 0, "0300 0000 00000000", "0102 0000 00000000"},
		{RESPOND_TOO_BIG, 1400, "0304 0000 00000578", "0200 0000 00000578"},
		{RESPOND_TOO_BIG, 20, "0304 0000 00000044", "0200 0000 00000500"},
		{RESPOND_TOO_BIG, 70000, "0304 0000 0000ffff", "0200 0000 00011170"},
		{RESPOND_PARAMETER, 9, "0c00 0000 09000000", "0400 0000 00000009"},
	};
	static const char *const lens[] = {"60", "67", "590", "591", "1246", "1300", "3000"};
	char text[256];
	uint8_t frame[COMPOSE_MAX];
	struct out o;

	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		for (size_t k = 0; k < sizeof lens / sizeof lens[0]; k++) {
			for (int v6 = 0; v6 < 2; v6++) {
				snprintf(text, sizeof text, "udp%s,dl_vlan=9,nw_tos=40,packet_len=%s", v6 ? "6" : "", k || !v6 ? lens[k] : "66");
				uint32_t len = lab_compose(frame, text);
				struct rte_mbuf *m = stage_packet(frame, len, k % 2 ? 100 : 0, 0, 0);
				error_about(&o, frame, 18, v6 ? rows[i].v6 : rows[i].v4, v6 ? 1232 : 548);
				assert_int_equal(respond_error(m, rows[i].e, MAC, v6 ? &SRC4 : &SRC6, 0), -EINVAL);
				assert_int_equal(respond_error(m, rows[i].e, MAC, v6 ? &SRC6 : &SRC4, rows[i].info), 0);
				expect(m, &o);
			}
		}
	}
}

// An offloaded checksum is finished, and of what would be cut the first segment is quoted.
static void quotes_what_is_on_the_wire(void **state)
{
	uint8_t frame[COMPOSE_MAX];
	struct out o;

	for (int v6 = 0; v6 < 2; v6++) {
		for (int tso = 0; tso < 2; tso++) {
			const uint32_t l4 = v6 ? 54 : 34, segment = l4 - 14 + 20 + 700;
			uint32_t len = lab_compose(frame, v6 ? "tcp6,packet_len=4000,tcp_flags=ack" : "tcp,packet_len=4000,tcp_flags=ack");
			uint8_t whole[COMPOSE_MAX];
			memcpy(whole, frame, len);
			// The sum of the pseudo-header is what a guest leaves there.
			uint32_t pseudo = sum_up(frame + (v6 ? 22 : 26), v6 ? 32 : 8, 6 + len - l4);
			put_sum(frame + l4 + 16, ~pseudo & 0xffff);
			struct rte_mbuf *m = stage_packet(frame, len, 0, RTE_MBUF_F_RX_L4_CKSUM_NONE | (tso ? RTE_MBUF_F_RX_LRO : 0), tso ? 700 : 0);
			assert_true(m->ol_flags & RTE_MBUF_F_TX_L4_MASK);
			if (tso) {
				uint32_t n = segment - (v6 ? 40 : 0);

				whole[v6 ? 18 : 16] = (uint8_t)(n >> 8);
				whole[v6 ? 19 : 17] = (uint8_t)n;
				memset(whole + l4 + 16, 0, 2);
				if (!v6) {
					memset(whole + 24, 0, 2);
					put_sum(whole + 24, sum_up(whole + 14, 20, 0));
				}
				put_sum(whole + l4 + 16, sum_up(whole + l4, 720, sum_up(whole + (v6 ? 22 : 26), v6 ? 32 : 8, 6 + 720)));
			}
			error_about(&o, whole, 14, v6 ? "0200 0000 00000500" : "0304 0000 00000500", v6 ? 1232 : 548);
			assert_int_equal(respond_error(m, RESPOND_TOO_BIG, MAC, v6 ? &SRC6 : &SRC4, 1280), 0);
			expect(m, &o);
		}
	}
}

static void no_error_about(void **state)
{
	static const char *const never[] = {
		"icmp,icmp_type=3", "icmp,icmp_type=4", "icmp,icmp_type=5", "icmp,icmp_type=11", "icmp,icmp_type=12", "ip,nw_proto=1,nw_frag=later",
		"icmp,icmp_type=3,nw_frag=first",
		"udp,nw_frag=later", "udp,nw_dst=224.0.0.1", "udp,nw_dst=255.255.255.255", "udp,dl_dst=ff:ff:ff:ff:ff:ff", "udp,dl_dst=01:00:5e:00:00:01",
		"udp,nw_src=0.0.0.0", "udp,nw_src=0.1.2.3", "udp,nw_src=127.0.0.1", "udp,nw_src=239.1.1.1", "udp,nw_src=255.255.255.255", "udp,nw_src=241.0.0.1",
		"icmp6,icmpv6_type=1", "icmp6,icmpv6_type=2", "icmp6,icmpv6_type=3", "icmp6,icmpv6_type=4", "icmp6,icmpv6_type=127", "icmp6,icmpv6_type=137",
		"icmp6,icmpv6_type=2,nw_frag=first", "ipv6,nw_proto=58,nw_frag=later",
		"udp6,ipv6_src=::", "udp6,ipv6_src=::1", "udp6,ipv6_src=ff02::1", "arp", "dl_type=0x88b5", "udp,dl_src=03:00:00:00:00:01",
	};

	for (size_t i = 0; i < sizeof never / sizeof never[0]; i++) {
		struct rte_mbuf *m = packet(never[i], 0);
		bool v6 = pkt_of(m)->ethertype == 0x86dd, ip = v6 || pkt_of(m)->ethertype == 0x800;

		for (int e = RESPOND_TTL; e < RESPOND_ERRORS; e++) {
			int rc = respond_error(m, (enum respond_error)e, MAC, v6 ? &SRC6 : &SRC4, 0);

			assert_true(rc == -EPERM || (rc == -EINVAL && (!ip || pkt_data(pkt_of(m))[6] & 1)));
			assert_false(respond_error_allowed(m, (enum respond_error)e));
		}
		rte_pktmbuf_free(m);
	}
	// To groups: of IPv6 packet too big, and nothing else.
	for (int e = RESPOND_TTL; e < RESPOND_ERRORS; e++) {
		struct rte_mbuf *m = packet("udp6,dl_dst=33:33:00:00:00:01,ipv6_dst=ff0e::1", 0);

		assert_int_equal(respond_error(m, (enum respond_error)e, MAC, &SRC6, 1300), e == RESPOND_TOO_BIG ? 0 : -EPERM);
		rte_pktmbuf_free(m);
	}
	// A request may be the reason of an error, and so may a later fragment of IPv6.
	static const char *const fine[] = {"icmp,icmp_type=8", "icmp6,icmpv6_type=128", "udp6,nw_frag=later", "udp,nw_frag=first", "udp6,nw_frag=first", "tcp"};
	for (size_t i = 0; i < sizeof fine / sizeof fine[0]; i++) {
		struct rte_mbuf *m = packet(fine[i], 0);

		assert_int_equal(respond_error(m, RESPOND_TTL, MAC, pkt_of(m)->ethertype == 0x86dd ? &SRC6 : &SRC4, 0), 0);
		check_parsed(m);
		rte_pktmbuf_free(m);
	}
}

static void redirect(void **state)
{
	static const struct config_ip better4 = {false, {10, 0, 0, 9}}, better6 = {true, {0xfe, 0x80, [15] = 9}}, link = {true, {0xfe, 0x80, [15] = 0xfe}};
	static const uint8_t better_mac[6] = {2, 0, 0, 0, 0, 9};
	uint8_t frame[COMPOSE_MAX];
	struct out o;
	uint32_t len = lab_compose(frame, "udp,nw_src=10.0.0.1,nw_dst=10.1.0.1,packet_len=1000");
	struct rte_mbuf *m = stage_packet(frame, len, 0, 0, 0);

	error_about(&o, frame, 14, "0501 0000 0a000009", 548);
	assert_int_equal(respond_redirect(m, MAC, &SRC4, &better4, NULL), 0);
	expect(m, &o);
	for (int known = 0; known < 2; known++) {
		len = lab_compose(frame, "udp6,ipv6_src=fd00::1,ipv6_dst=fd01::1,packet_len=1501");
		m = stage_packet(frame, len, 0, 0, 0);
		uint32_t quote = known ? 1184 : 1192;
		o.n = 0;
		add(&o, frame + 6, 6);
		add(&o, MAC, 6);
		add_hex(&o, "86dd 6c000000 0000 3a ff");
		add(&o, link.b, 16);
		add(&o, frame + 22, 16);
		add_hex(&o, "8900 0000 00000000");
		add(&o, better6.b, 16);
		add(&o, frame + 38, 16);
		if (known)
			add_hex(&o, "0201 020000000009");
		uint8_t option[8] = {4, (uint8_t)(quote / 8 + 1)};
		add(&o, option, 8);
		add(&o, frame + 14, quote);
		assert_int_equal(o.n, 14 + 1280);
		finish(&o, 14, 54);
		assert_int_equal(respond_redirect(m, MAC, &link, &better6, known ? better_mac : NULL), 0);
		expect(m, &o);
	}
	m = packet("udp,nw_dst=224.0.0.1", 0);
	assert_int_equal(respond_redirect(m, MAC, &SRC4, &better4, NULL), -EPERM);
	assert_int_equal(respond_redirect(m, MAC, &SRC4, &better6, NULL), -EINVAL);
	rte_pktmbuf_free(m);
}

static void no_room(void **state)
{
	struct rte_mbuf *tight = packet("udp6", 0);

	// At the very start of its buffer.
	memmove(rte_pktmbuf_mtod(tight, uint8_t *) - rte_pktmbuf_headroom(tight), rte_pktmbuf_mtod(tight, uint8_t *), tight->data_len);
	tight->data_off = 0;
	assert_int_equal(respond_error(tight, RESPOND_TTL, MAC, &SRC6, 0), -ENOSPC);
	assert_int_equal(respond_redirect(tight, MAC, &SRC6, &SRC6, NULL), -ENOSPC);
	check_parsed(tight);
	rte_pktmbuf_free(tight);
}

// ---- limits

static void limits(void **state)
{
	uint16_t a = lab_port("a", VLAN_ACCESS, NULL)->id, b = lab_port("b", VLAN_ACCESS, NULL)->id;
	unsigned n = 0;

	lab_apply();
	while (respond_may(&lab.w, a, RESPOND_TTL))
		n++;
	assert_int_equal(n, RESPOND_ERRORS_PPS / 10);
	assert_false(respond_may(&lab.w, a, RESPOND_TOO_BIG));
	assert_true(respond_may(&lab.w, a, RESPOND_ANSWER)); // a purse of its own
	assert_true(respond_may(&lab.w, b, RESPOND_TTL));
	lab_advance_ms(7);
	for (n = 0; respond_may(&lab.w, a, RESPOND_TTL); n++)
		;
	assert_int_equal(n, 7);
	for (n = 0; respond_may(&lab.w, b, RESPOND_ANSWER); n++)
		;
	assert_int_equal(n, RESPOND_ANSWERS_PPS / 10);
	lab.w.dry = true;
	assert_true(respond_may(&lab.w, a, RESPOND_TTL)); // explain takes nothing
	lab.w.dry = false;
	assert_false(respond_may(&lab.w, a, RESPOND_TTL));
	lab_advance_ms(10000);
	respond_limits(1, 0);
	assert_true(respond_may(&lab.w, a, RESPOND_TTL));
	assert_false(respond_may(&lab.w, a, RESPOND_TTL));
	lab_advance_ms(1000);
	assert_true(respond_may(&lab.w, a, RESPOND_TTL));
	respond_limits(RESPOND_ERRORS_PPS, RESPOND_ANSWERS_PPS);
}

// ---- rubbish

static uint32_t seed = 12345;

static uint32_t any(uint32_t n)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % n;
}

// Whatever came of it: untouched, or a packet that is well-formed.
static void try_all(const uint8_t *frame, uint32_t len)
{
	static const struct config_ip ip[2] = {{false, {10, 0, 0, 9}}, {true, {0xfd, [15] = 9}}};
	uint8_t copy[LAB_FRAME];

	for (int what = 0; what < 6; what++) {
		bool partial = any(4) == 0;
		struct rte_mbuf *m = stage_packet(frame, len, any(3) ? 0 : 1 + any(len), partial ? RTE_MBUF_F_RX_L4_CKSUM_NONE | (any(2) ? RTE_MBUF_F_RX_LRO : 0) : 0,
						  partial ? (uint16_t)(48 + any(1500)) : 0);
		struct pkt before;
		int rc = 0;

		if (pkt_of(m)->drop) {
			rte_pktmbuf_free(m);
			continue;
		}
		before = *pkt_of(m);
		const struct config_ip *src = &ip[before.ethertype == 0x86dd];
		switch (what) {
		case 0:
			rc = respond_arp(m, MAC);
			break;
		case 1:
			rc = respond_neighbour(m, MAC, true);
			break;
		case 2:
			rc = respond_echo(m, MAC, any(2) ? src : NULL);
			break;
		case 3:
			rc = respond_redirect(m, MAC, src, src, any(2) ? MAC : NULL);
			break;
		default:
			rc = respond_error(m, (enum respond_error)any(RESPOND_ERRORS + 1), MAC, src, any(10000));
		}
		rte_mbuf_sanity_check(m, 1);
		if (rc) {
			const uint8_t *now = rte_pktmbuf_read(m, 0, len, copy);
			assert_int_equal(m->pkt_len, len);
			assert_memory_equal(now, frame, len);
			assert_memory_equal(pkt_of(m), &before, sizeof before);
		} else {
			check_parsed(m);
		}
		rte_pktmbuf_free(m);
	}
}

static void rubbish(void **state)
{
	static const char *const corpus[] = {
		NS ",ipv6_src=fd00::1,nd_sll=02:00:00:00:00:01", NS ",ipv6_src=::", "arp,arp_op=1", "icmp,icmp_type=8", "icmp6,icmpv6_type=128,packet_len=200",
		"udp,packet_len=1500", "tcp,packet_len=3000", "tcp6,packet_len=3000", "udp6,dl_vlan=4,packet_len=70", "udp,nw_frag=first", "udp6,nw_frag=later",
	};
	uint8_t frame[COMPOSE_MAX], bad[COMPOSE_MAX];

	for (int i = 0; i < 20000; i++) {
		uint32_t len = lab_compose(frame, corpus[any(sizeof corpus / sizeof corpus[0])]);

		memcpy(bad, frame, len);
		for (uint32_t n = any(5); n; n--)
			bad[any(2) ? any(len) : any(len < 80 ? len : 80)] = any(3) ? (uint8_t)any(256) : (uint8_t)(any(2) ? 0xff : 0);
		if (!any(4))
			len = 14 + any(len - 13);
		try_all(bad, len);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(arp, setup, teardown),
		cmocka_unit_test_setup_teardown(neighbour, setup, teardown),
		cmocka_unit_test_setup_teardown(neighbour_wrong, setup, teardown),
		cmocka_unit_test_setup_teardown(echo, setup, teardown),
		cmocka_unit_test_setup_teardown(echo_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(echo_with_options, setup, teardown),
		cmocka_unit_test_setup_teardown(echo_with_extensions, setup, teardown),
		cmocka_unit_test_setup_teardown(each_error, setup, teardown),
		cmocka_unit_test_setup_teardown(quotes_what_is_on_the_wire, setup, teardown),
		cmocka_unit_test_setup_teardown(no_error_about, setup, teardown),
		cmocka_unit_test_setup_teardown(redirect, setup, teardown),
		cmocka_unit_test_setup_teardown(no_room, setup, teardown),
		cmocka_unit_test_setup_teardown(limits, setup, teardown),
		cmocka_unit_test_setup_teardown(rubbish, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
