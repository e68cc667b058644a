// parse: every class, every malformed frame, and no byte read that is not there.
#include "lab.h"
#include "compose.h"

#include <errno.h>

// A packet without a pool, whose bytes end where the heap block does: a read too far is seen by the address sanitizer.
struct loose {
	struct rte_mbuf m;
	struct pkt p;
};

static struct loose *loose(const void *frame, uint32_t have, uint32_t len)
{
	struct loose *l = aligned_alloc(64, sizeof *l);

	memset(l, 0, sizeof *l);
	l->m.buf_addr = malloc(have ? have : 1);
	memcpy(l->m.buf_addr, frame, have);
	l->m.data_len = (uint16_t)have;
	l->m.pkt_len = len;
	l->m.nb_segs = 1;
	l->p.in_port = 7;
	return l;
}

static void drop_loose(struct loose *l)
{
	free(l->m.buf_addr);
	free(l);
}

static uint32_t frame_of(uint8_t *frame, const char *text)
{
	static const struct compose_defaults d = {.dl_src = {2, 0, 0, 0, 0, 1}, .dl_dst = {2, 0, 0, 0, 0, 2}};
	char *error;
	int n = compose(text, &d, frame, &error);

	if (n < 0)
		fail_msg("%s: %s", text, error);
	return (uint32_t)n;
}

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

// ---- classes

static const struct {
	const char *text;
	enum traffic_class class;
} corpus[] = {
	{"dl_type=0x88b5", CLASS_PLAIN},
	{"dl_type=0x05ff", CLASS_PLAIN},
	{"ip", CLASS_PLAIN},
	{"ipv6", CLASS_PLAIN},
	{"ip,nw_proto=47", CLASS_PLAIN},
	{"tcp,tcp_flags=ack", CLASS_PLAIN},
	{"tcp,tcp_flags=psh|ack,packet_len=1514", CLASS_PLAIN},
	{"tcp6,tcp_flags=ack,dl_vlan=5", CLASS_PLAIN},
	{"udp", CLASS_PLAIN},
	{"udp6,dl_vlan=5,dl_vlan_pcp=3", CLASS_PLAIN},
	{"sctp", CLASS_PLAIN},
	{"sctp6", CLASS_PLAIN},
	{"icmp", CLASS_PLAIN},
	{"icmp6", CLASS_PLAIN},
	{"ip,nw_proto=58,packet_len=64", CLASS_PLAIN},
	{"ipv6,nw_proto=1,packet_len=64", CLASS_PLAIN},
	{"arp", CLASS_ARP},
	{"arp,arp_op=2,dl_vlan=9", CLASS_ARP},
	{"icmp6,icmpv6_type=133", CLASS_ND},
	{"icmp6,icmpv6_type=134", CLASS_ND},
	{"icmp6,icmpv6_type=135", CLASS_ND},
	{"icmp6,icmpv6_type=136", CLASS_ND},
	{"icmp6,icmpv6_type=137", CLASS_ND},
	{"udp,udp_dst=67", CLASS_DHCP},
	{"udp,udp_dst=68", CLASS_DHCP},
	{"udp6,udp_dst=546", CLASS_DHCP},
	{"udp6,udp_dst=547", CLASS_DHCP},
	{"udp6,udp_dst=67", CLASS_PLAIN},
	{"udp,udp_src=67", CLASS_PLAIN},
	{"ip,nw_proto=2,packet_len=46", CLASS_GROUP_QUERY},
	{"icmp6,icmpv6_type=130", CLASS_GROUP_QUERY},
	{"icmp6,icmpv6_type=131", CLASS_GROUP},
	{"icmp6,icmpv6_type=132", CLASS_GROUP},
	{"icmp6,icmpv6_type=143", CLASS_GROUP},
	{"dl_type=0x88cc", CLASS_LINK},
	{"dl_type=0x8809", CLASS_LINK},
	{"dl_type=0x05ff,dl_dst=01:80:c2:00:00:00", CLASS_LINK},
	{"udp,dl_dst=01:80:c2:00:00:0f", CLASS_LINK},
	{"udp,dl_dst=01:80:c2:00:00:10", CLASS_PLAIN},
	{"icmp,icmp_type=3,icmp_code=4", CLASS_ICMP_ERROR},
	{"icmp,icmp_type=4", CLASS_ICMP_ERROR},
	{"icmp,icmp_type=5", CLASS_ICMP_ERROR},
	{"icmp,icmp_type=11", CLASS_ICMP_ERROR},
	{"icmp,icmp_type=12", CLASS_ICMP_ERROR},
	{"icmp6,icmpv6_type=1", CLASS_ICMP_ERROR},
	{"icmp6,icmpv6_type=2", CLASS_ICMP_ERROR},
	{"icmp6,icmpv6_type=127", CLASS_ICMP_ERROR},
	{"udp,nw_frag=first", CLASS_FRAG_FIRST},
	{"tcp6,nw_frag=first", CLASS_FRAG_FIRST},
	{"tcp,nw_frag=later", CLASS_FRAG_LATER},
	{"udp6,nw_frag=later", CLASS_FRAG_LATER},
	{"tcp,tcp_flags=syn", CLASS_TCP_SYN},
	{"tcp6,tcp_flags=syn|ack", CLASS_TCP_SYN},
	{"tcp,tcp_flags=fin|ack", CLASS_TCP_FIN_RST},
	{"tcp6,tcp_flags=rst", CLASS_TCP_FIN_RST},
	{"tcp,tcp_flags=syn|rst", CLASS_TCP_FIN_RST},
	{"udp,nw_ttl=1", CLASS_TTL},
	{"udp6,nw_ttl=0", CLASS_TTL},
	{"tcp,tcp_flags=syn,nw_ttl=1", CLASS_TCP_SYN},
};
#define CORPUS (sizeof corpus / sizeof corpus[0])

static void classes(void **state)
{
	uint8_t frame[COMPOSE_MAX];

	for (size_t i = 0; i < CORPUS; i++) {
		uint32_t len = frame_of(frame, corpus[i].text);
		struct loose *l = loose(frame, len, len);
		struct flow_key k;

		assert_int_equal(parse(&l->m, &k), 0);
		if (l->p.drop || l->p.class != corpus[i].class || k.class != l->p.class)
			fail_msg("%s: class %s, drop %u", corpus[i].text, traffic_class_name(l->p.class), l->p.drop);
		assert_int_equal(k.port, 7);
		assert_memory_equal(k.dst, frame, 6);
		assert_memory_equal(k.src, frame + 6, 6);
		drop_loose(l);
	}
	for (int c = 0; c < CLASS_N; c++) {
		bool there = c == CLASS_OPTIONS; // by hand, below

		for (size_t i = 0; i < CORPUS; i++)
			there |= corpus[i].class == (enum traffic_class)c;
		assert_true(there);
		assert_string_not_equal(traffic_class_name((enum traffic_class)c), "?");
	}
	assert_string_equal(traffic_class_name(CLASS_N), "?");
}

static void fields(void **state)
{
	uint8_t frame[COMPOSE_MAX];
	struct flow_key k;
	uint32_t len = frame_of(frame, "tcp,dl_vlan=0x123,dl_vlan_pcp=5,nw_src=10.1.2.3,nw_dst=10.4.5.6,tcp_src=1000,tcp_dst=2000,nw_tos=0xbb,packet_len=200");
	struct loose *l = loose(frame, len, len);

	assert_int_equal(parse(&l->m, &k), 0);
	assert_int_equal(l->p.n_tags, 1);
	assert_int_equal(l->p.tci, 0xa123);
	assert_int_equal(l->p.l3_ofs, 18);
	assert_int_equal(l->p.l4_ofs, 38);
	assert_int_equal(l->p.l4_len, 20);
	assert_int_equal(l->p.l3_len, 182);
	assert_int_equal(l->p.seg_len, 182);
	assert_int_equal(k.vlan, 0x1123);
	assert_int_equal(k.cvlan, 0);
	assert_int_equal(k.tos, 0xb8); // ECN is no part of it
	assert_int_equal(k.proto, 6);
	assert_int_equal(rte_be_to_cpu_16(k.sport), 1000);
	assert_int_equal(rte_be_to_cpu_16(k.dport), 2000);
	assert_int_equal(rte_be_to_cpu_32(k.v4.src), 0x0a010203);
	assert_int_equal(rte_be_to_cpu_32(k.v4.dst), 0x0a040506);
	drop_loose(l);

	len = frame_of(frame, "udp6,ipv6_src=2001:db8::7,ipv6_dst=2001:db8::8,udp_src=53,udp_dst=1024,nw_tos=0x2e");
	len = lab_tag(frame, len, 0x8100, 7);
	len = lab_tag(frame, len, 0x88a8, 0x6fff);
	l = loose(frame, len, len);
	assert_int_equal(parse(&l->m, &k), 0);
	assert_int_equal(l->p.n_tags, 2);
	assert_int_equal(l->p.tci, 0x6fff);
	assert_int_equal(k.vlan, 0x1fff);
	assert_int_equal(k.cvlan, 0x1007);
	assert_int_equal(l->p.l3_ofs, 22);
	assert_int_equal(l->p.l4_ofs, 62);
	assert_int_equal(k.tos, 0x2c);
	assert_memory_equal(k.v6.src, frame + 30, 32);
	drop_loose(l);

	// A third tag is payload.
	len = lab_tag(frame, len, 0x8100, 9);
	l = loose(frame, len, len);
	assert_int_equal(parse(&l->m, &k), 0);
	assert_int_equal(l->p.n_tags, 2);
	assert_int_equal(l->p.ethertype, 0x8100);
	assert_int_equal(l->p.l3_ofs, 0);
	drop_loose(l);

	len = frame_of(frame, "arp,arp_op=2,arp_spa=10.0.0.1,arp_tpa=10.0.0.2");
	l = loose(frame, len, len);
	assert_int_equal(parse(&l->m, &k), 0);
	assert_int_equal(k.proto, 2);
	assert_int_equal(rte_be_to_cpu_32(k.v4.src), 0x0a000001);
	assert_int_equal(rte_be_to_cpu_32(k.v4.dst), 0x0a000002);
	assert_int_equal(l->p.l3_ofs, 0);
	drop_loose(l);

	len = frame_of(frame, "icmp,icmp_type=3,icmp_code=4");
	l = loose(frame, len, len);
	assert_int_equal(parse(&l->m, &k), 0);
	assert_int_equal(rte_be_to_cpu_16(k.sport), 3);
	assert_int_equal(rte_be_to_cpu_16(k.dport), 4);
	// What Ethernet pads to its minimum is no part of layer 3.
	assert_int_equal(l->p.l3_len, 28);
	drop_loose(l);
}

// ---- frames cut short

// Lengths at which the headers of the frame are whole.
static void cut_everywhere(const uint8_t *frame, uint32_t len, const char *what)
{
	for (uint32_t n = 0; n <= len; n++) {
		struct loose *l = loose(frame, n, n);
		struct flow_key k;

		assert_int_equal(parse(&l->m, &k), 0); // what isn't in the frame at all is no reason to ask again
		if (n < 14 && l->p.drop != lab_reason("parse.RUNT"))
			fail_msg("%s: %u bytes are no runt", what, n);
		if (n == len && l->p.drop)
			fail_msg("%s: dropped whole", what);
		drop_loose(l);

		// The same bytes, with the rest in a second mbuf.
		l = loose(frame, n, len);
		int rc = parse(&l->m, &k);
		if (rc != 0 && rc != -EAGAIN)
			fail_msg("%s: %d at %u", what, rc, n);
		if (rc == 0 && l->p.drop)
			fail_msg("%s: dropped at %u, though the rest is there", what, n);
		if (n < 14)
			assert_int_equal(rc, -EAGAIN);
		if (rc == -EAGAIN) { // as it came: the next attempt finds nothing of this one
			assert_int_equal(l->p.n_tags, 0);
			assert_int_equal(l->p.class, CLASS_PLAIN);
			assert_int_equal(l->p.l4_ofs, 0);
		}
		drop_loose(l);
	}
}

static void cut_short(void **state)
{
	uint8_t frame[COMPOSE_MAX];

	for (size_t i = 0; i < CORPUS; i++) {
		uint32_t len = frame_of(frame, corpus[i].text);

		cut_everywhere(frame, len, corpus[i].text);
		len = lab_tag(frame, len, 0x8100, 5);
		len = lab_tag(frame, len, 0x88a8, 6);
		if (corpus[i].class != CLASS_LINK)
			cut_everywhere(frame, len, corpus[i].text);
	}
}

// Random bytes behind a plausible beginning: nothing is asserted but that it ends, in bounds.
static void noise(void **state)
{
	uint8_t frame[COMPOSE_MAX];

	srand(1);
	for (int round = 0; round < 20000; round++) {
		uint32_t len = frame_of(frame, corpus[(unsigned)rand() % CORPUS].text), n = (uint32_t)rand() % (len + 1);
		struct flow_key k;

		for (int i = rand() % 8; i >= 0; i--)
			frame[12 + (uint32_t)rand() % (len - 12)] = (uint8_t)rand();
		struct loose *l = loose(frame, n, rand() % 2 ? len : n);
		if (rand() % 2) {
			l->m.ol_flags = RTE_MBUF_F_RX_L4_CKSUM_NONE | (rand() % 2 ? RTE_MBUF_F_RX_LRO : 0);
			l->m.tso_segsz = (uint16_t)rand();
		}
		if (!parse(&l->m, &k) && !l->p.drop)
			parse_flow_hash(&l->m);
		drop_loose(l);
	}
}

// The usual packet has a short way of its own; a tag sends it the long way. Both must say the same.
static void short_and_long_way(void **state)
{
	uint8_t frame[COMPOSE_MAX];
	unsigned agreed = 0;

	srand(2);
	for (int round = 0; round < 40000; round++) {
		const char *text = corpus[(unsigned)rand() % CORPUS].text;
		struct flow_key k[2];
		uint32_t len;

		if (strstr(text, "dl_vlan"))
			continue;
		len = frame_of(frame, text);
		for (int i = rand() % 4; i > 0; i--)
			frame[14 + (uint32_t)rand() % (len - 14)] = (uint8_t)(rand() % 2 ? rand() : 1 << rand() % 8);
		if (rand() % 8 == 0)
			len = 14 + (uint32_t)rand() % (len - 13);
		struct loose *a = loose(frame, len, len);
		len = lab_tag(frame, len, 0x8100, 5);
		struct loose *b = loose(frame, len, len);
		if (rand() % 4 == 0) {
			a->m.ol_flags = b->m.ol_flags = RTE_MBUF_F_RX_L4_CKSUM_NONE | (rand() % 2 ? RTE_MBUF_F_RX_LRO : 0);
			a->m.tso_segsz = b->m.tso_segsz = (uint16_t)(40 + rand() % 100);
		}
		assert_int_equal(parse(&a->m, &k[0]), 0);
		assert_int_equal(parse(&b->m, &k[1]), 0);
		assert_int_equal(a->p.drop, b->p.drop);
		if (!a->p.drop) {
			assert_int_equal(b->p.n_tags, 1);
			b->p.n_tags = 0;
			b->p.tci = 0;
			b->p.l3_ofs -= b->p.l3_ofs ? 4 : 0;
			b->p.l4_ofs -= b->p.l4_ofs ? 4 : 0;
			k[1].vlan = 0;
			assert_memory_equal(&a->p, &b->p, sizeof a->p);
			assert_memory_equal(&k[0], &k[1], sizeof k[0]);
			assert_int_equal(a->m.ol_flags, b->m.ol_flags);
			b->m.l2_len -= b->m.l2_len ? 4 : 0;
			assert_int_equal(a->m.tx_offload, b->m.tx_offload);
			agreed++;
		}
		drop_loose(a);
		drop_loose(b);
	}
	assert_true(agreed > 10000);
}

// ---- malformed

static const struct {
	const char *text;
	uint16_t at;
	uint8_t value;
	uint32_t len; // 0: all
	const char *reason;
} malformed[] = {
	{"udp", 0, 2, 0, NULL},
	{"udp", 0, 2, 13, "parse.RUNT"},
	{"udp,dl_vlan=5", 0, 2, 17, "parse.VLAN"},
	{"udp,dl_vlan=5", 0, 2, 14, "parse.VLAN"},
	{"arp", 0, 2, 41, "parse.ARP"},
	{"arp", 15, 6, 0, "parse.ARP"},    // IEEE 802 hardware
	{"arp", 17, 1, 0, "parse.ARP"},    // not IPv4
	{"arp", 18, 8, 0, "parse.ARP"},    // length of hardware addresses
	{"arp", 19, 16, 0, "parse.ARP"},   // of protocol addresses
	{"udp", 14, 0x55, 0, "parse.IPV4_HEADER"},
	{"udp", 14, 0x44, 0, "parse.IPV4_HEADER"},
	{"udp", 14, 0x45, 33, "parse.IPV4_HEADER"},
	{"udp", 14, 0x4f, 60, "parse.IPV4_HEADER"}, // 60 bytes of header in a frame of 46
	{"udp", 17, 19, 0, "parse.IPV4_LENGTH"},
	{"udp", 17, 47, 0, "parse.IPV4_LENGTH"},
	{"udp", 16, 0xff, 0, "parse.IPV4_LENGTH"},
	{"udp6", 14, 0x50, 0, "parse.IPV6_HEADER"},
	{"udp6", 14, 0x60, 53, "parse.IPV6_HEADER"},
	{"udp6", 19, 9, 0, "parse.IPV6_LENGTH"},
	{"udp6", 18, 1, 0, "parse.IPV6_LENGTH"},
	{"ipv6,nw_proto=60", 0, 2, 0, "parse.IPV6_EXT"}, // a header announced that isn't there
	{"ipv6,nw_proto=0,packet_len=62", 55, 1, 0, "parse.IPV6_EXT"},
	{"ipv6,nw_proto=51,packet_len=62", 55, 1, 0, "parse.IPV6_EXT"},
	{"ipv6,nw_proto=44,packet_len=61", 0, 2, 0, "parse.IPV6_EXT"},
	{"tcp", 46, 0x40, 0, "parse.TCP"},
	{"tcp", 46, 0x60, 0, "parse.TCP"},
	{"tcp6", 66, 0xf0, 0, "parse.TCP"},
	{"tcp", 17, 39, 0, "parse.TCP"},
	{"udp", 39, 7, 0, "parse.UDP"},
	{"udp", 39, 9, 0, "parse.UDP"},
	{"udp", 17, 27, 0, "parse.UDP"},
	{"sctp", 17, 31, 0, "parse.SCTP"},
	{"icmp", 17, 27, 0, "parse.ICMP"},
	{"icmp6", 19, 3, 0, "parse.ICMP"},
};

static void malformed_frames(void **state)
{
	uint16_t in = lab_port("in", VLAN_ACCESS, lab_network("blue", 0))->id;
	struct config_port *out = lab_port("out", VLAN_ACCESS, NULL);
	uint8_t frame[COMPOSE_MAX];

	out->network = lab.config->ports[0].network;
	lab_apply();
	for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
		uint32_t len = frame_of(frame, malformed[i].text);

		frame[malformed[i].at] = malformed[i].value;
		len = malformed[i].len ? malformed[i].len : len;
		if (malformed[i].reason) {
			lab_expect_drop_frame(in, frame, len, malformed[i].reason);
			lab_expect_trace("from in, ");
		} else {
			lab_send_frame(in, frame, len);
			assert_int_equal(lab.n_sent, 1);
		}
	}
	assert_int_equal(lab_flows(), 1); // a malformed frame makes none
	lab_expect_drop_frame(in, frame, 0, "parse.RUNT");
}

// ---- IPv6 extension headers, IPv4 options

struct chain {
	uint8_t frame[COMPOSE_MAX];
	uint32_t len, next; // where the next header's number goes
};

static void chain_start(struct chain *c)
{
	c->len = frame_of(c->frame, "ipv6");
	c->len = 54;
	c->next = 20;
}

static void chain_add(struct chain *c, uint8_t type, uint32_t bytes)
{
	c->frame[c->next] = type;
	c->next = c->len;
	memset(c->frame + c->len, 0, bytes);
	c->frame[c->len + 1] = (uint8_t)(type == 51 ? bytes / 4 - 2 : type == 44 ? 0 : bytes / 8 - 1);
	c->len += bytes;
}

static void chain_end(struct chain *c, uint8_t proto)
{
	c->frame[c->next] = proto;
	memset(c->frame + c->len, 0, 20);
	c->frame[c->len + 12] = 0x50;
	c->frame[c->len + 13] = 0x10;
	if (proto == 17)
		c->frame[c->len + 5] = 20;
	c->len += 20;
	c->frame[18] = (uint8_t)((c->len - 54) >> 8);
	c->frame[19] = (uint8_t)(c->len - 54);
}

static struct pkt chain_parse(const struct chain *c, uint64_t ol_flags)
{
	struct loose *l = loose(c->frame, c->len, c->len);
	struct flow_key k;
	struct pkt p;

	l->m.ol_flags = ol_flags;
	l->m.tso_segsz = 1000;
	assert_int_equal(parse(&l->m, &k), 0);
	p = l->p;
	if (ol_flags && !p.drop) {
		assert_int_equal(l->m.l2_len, 14);
		assert_int_equal(l->m.l3_len, p.l4_ofs - 14);
	}
	drop_loose(l);
	return p;
}

static void extension_headers(void **state)
{
	static const uint8_t types[] = {60, 135, 139, 140, 51};
	struct chain c;
	struct pkt p;

	chain_start(&c);
	for (unsigned i = 0; i < sizeof types; i++)
		chain_add(&c, types[i], types[i] == 51 ? 12 : 8 * (i + 1));
	chain_end(&c, 6);
	p = chain_parse(&c, 0);
	assert_int_equal(p.drop, 0);
	assert_int_equal(p.class, CLASS_PLAIN);
	assert_int_equal(p.proto, 6);
	assert_int_equal(p.l4_ofs, c.len - 20);
	cut_everywhere(c.frame, c.len, "chain");

	for (int routing = 0; routing < 2; routing++) {
		chain_start(&c);
		chain_add(&c, routing ? 43 : 0, 24);
		chain_end(&c, 17);
		p = chain_parse(&c, 0);
		assert_int_equal(p.drop, 0);
		assert_int_equal(p.class, CLASS_OPTIONS);
		assert_int_equal(p.proto, 17);
	}

	// No next header.
	chain_start(&c);
	chain_add(&c, 60, 8);
	chain_end(&c, 59);
	p = chain_parse(&c, 0);
	assert_int_equal(p.drop, 0);
	assert_int_equal(p.proto, 59);

	// As many as there may be, and one more.
	for (unsigned n = 15; n <= 16; n++) {
		chain_start(&c);
		for (unsigned i = 0; i < n; i++)
			chain_add(&c, 60, 8);
		chain_end(&c, 6);
		assert_int_equal(chain_parse(&c, 0).drop, n == 16 ? lab_reason("parse.IPV6_EXT") : 0);
	}

	// A header that is longer than the packet, though the frame has the bytes.
	chain_start(&c);
	chain_add(&c, 60, 64);
	chain_end(&c, 6);
	c.frame[19] = 32;
	assert_int_equal(chain_parse(&c, 0).drop, lab_reason("parse.IPV6_EXT"));
}

static void fragments_of_ipv6(void **state)
{
	struct chain c;
	struct pkt p;

	// "Atomic" (RFC 6946): a fragment header, but whole.
	chain_start(&c);
	chain_add(&c, 44, 8);
	chain_end(&c, 6);
	p = chain_parse(&c, 0);
	assert_int_equal(p.class, CLASS_PLAIN);
	assert_int_equal(p.l4_ofs, 62);

	// What follows a later fragment's header is not a header.
	c.frame[56] = 1;
	c.frame[62] = 0xff;
	c.frame[54] = 60;
	p = chain_parse(&c, 0);
	assert_int_equal(p.drop, 0);
	assert_int_equal(p.class, CLASS_FRAG_LATER);
	assert_int_equal(p.l4_ofs, 0);
}

static void large_network_headers(void **state)
{
	struct chain c;
	uint64_t csum = RTE_MBUF_F_RX_L4_CKSUM_NONE;

	// The mbuf has nine bits for the length of the network header: 40 + 464 = 504 bytes fit.
	chain_start(&c);
	chain_add(&c, 60, 464);
	chain_end(&c, 6);
	assert_int_equal(chain_parse(&c, 0).drop, 0);
	assert_int_equal(chain_parse(&c, csum).drop, 0);
	chain_start(&c);
	chain_add(&c, 60, 472);
	chain_end(&c, 6);
	assert_int_equal(chain_parse(&c, 0).drop, 0);
	assert_int_equal(chain_parse(&c, csum).drop, lab_reason("parse.CSUM"));
	assert_int_equal(chain_parse(&c, csum | RTE_MBUF_F_RX_LRO).drop, lab_reason("parse.GSO"));
}

static void ipv4_options(void **state)
{
	uint8_t frame[COMPOSE_MAX];
	struct flow_key k;
	uint32_t len = frame_of(frame, "udp,packet_len=100");

	// The UDP header is eight bytes further on now, where the payload was.
	frame[14] = 0x47;
	frame[46] = 0;
	frame[47] = 58;
	struct loose *l = loose(frame, len, len);
	assert_int_equal(parse(&l->m, &k), 0);
	assert_int_equal(l->p.drop, 0);
	assert_int_equal(l->p.class, CLASS_OPTIONS);
	assert_int_equal(l->p.l4_ofs, 42);
	drop_loose(l);
	cut_everywhere(frame, len, "options");
}

// ---- several mbufs

static void headers_over_several_mbufs(void **state)
{
	struct config_network *net = lab_network("blue", 0);
	uint16_t in = lab_port("in", VLAN_ACCESS, net)->id, out = lab_port("out", VLAN_ACCESS, net)->id;
	uint8_t frame[COMPOSE_MAX];

	lab_apply();
	for (size_t i = 0; i < CORPUS; i++) {
		if (corpus[i].class == CLASS_LINK || strstr(corpus[i].text, "dl_vlan"))
			continue;
		uint32_t len = frame_of(frame, corpus[i].text);

		for (uint32_t cut = 1; cut < 80; cut += i < 8 ? 1 : 13) {
			lab_send_mbuf(in, lab_mbuf(frame, len, cut));
			assert_int_equal(lab.n_sent, 1);
			assert_int_equal(lab.sent[0].port, out);
			assert_int_equal(lab.sent[0].len, len);
			assert_memory_equal(lab.sent[0].bytes, frame, len);
		}
	}
	// Malformed ones too are found there.
	uint32_t len = frame_of(frame, "tcp");
	frame[46] = 0x40;
	uint64_t before = lab_drops(in, "parse.TCP");
	lab_send_mbuf(in, lab_mbuf(frame, len, 20));
	assert_int_equal(lab_drops(in, "parse.TCP"), before + 1);

	// Headers longer than anybody's, over several mbufs.
	struct chain c;
	chain_start(&c);
	chain_add(&c, 60, 600);
	chain_end(&c, 6);
	lab_send_mbuf(in, lab_mbuf(c.frame, c.len, 100));
	assert_int_equal(lab_drops(in, "parse.IPV6_EXT"), 1);
	lab_expect_trace("dropped (parse.IPV6_EXT)");
	// In one mbuf they are just packets.
	lab_send_frame(in, c.frame, c.len);
	assert_int_equal(lab.n_sent, 1);
}

// ---- offloads

struct ask {
	const char *text;
	uint64_t flags;
	uint16_t segsz;
	const char *reason; // NULL: fine
	uint64_t tx;
	uint32_t seg_len;
};

#define CSUM RTE_MBUF_F_RX_L4_CKSUM_NONE
#define LRO RTE_MBUF_F_RX_LRO

static const struct ask asks[] = {
	{"tcp,packet_len=1514", CSUM, 0, NULL, RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV4, 1500},
	{"udp6,packet_len=1514", CSUM, 0, NULL, RTE_MBUF_F_TX_UDP_CKSUM | RTE_MBUF_F_TX_IPV6, 1500},
	{"tcp,packet_len=9000", CSUM | LRO, 1000, NULL, RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV4, 1040},
	{"tcp6,packet_len=9000", LRO, 1000, NULL, RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV6, 1060},
	{"tcp,packet_len=9000", LRO, 48, NULL, RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV4, 88},
	{"tcp,packet_len=9000", LRO, 47, "parse.GSO", 0, 0},
	{"tcp,packet_len=9000", LRO, 1, "parse.GSO", 0, 0},
	{"tcp,packet_len=9000", LRO, 0, "parse.GSO", 0, 0},
	{"tcp,packet_len=500", LRO, 1448, NULL, RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV4, 486}, // fits in one
	{"udp,packet_len=9000", LRO, 1000, "parse.GSO", 0, 0},
	{"icmp,packet_len=9000", LRO, 1000, "parse.GSO", 0, 0},
	{"arp", LRO, 1000, "parse.GSO", 0, 0},
	{"arp", CSUM, 0, "parse.CSUM", 0, 0},
	{"icmp", CSUM, 0, "parse.CSUM", 0, 0},
	{"sctp", CSUM, 0, "parse.CSUM", 0, 0},
	{"tcp,nw_frag=first", CSUM, 0, "parse.CSUM", 0, 0},
	{"tcp,nw_frag=later", CSUM, 0, "parse.CSUM", 0, 0},
	{"udp6,nw_frag=later", CSUM, 0, "parse.CSUM", 0, 0},
	{"tcp,nw_frag=first,packet_len=4034", LRO, 1000, "parse.CSUM", 0, 0},
	{"udp", RTE_MBUF_F_RX_L4_CKSUM_GOOD, 0, NULL, 0, 46},
	{"udp", RTE_MBUF_F_RX_L4_CKSUM_BAD, 0, NULL, 0, 46},
};

static void offloads(void **state)
{
	struct config_network *net = lab_network("blue", 0);
	uint16_t in = lab_port("in", VLAN_ACCESS, net)->id;
	uint8_t frame[COMPOSE_MAX];

	net->mtu = 9216;
	lab_port("out", VLAN_ACCESS, net);
	lab_apply();
	for (size_t i = 0; i < sizeof asks / sizeof asks[0]; i++) {
		const struct ask *a = &asks[i];
		uint32_t len = frame_of(frame, a->text);
		struct loose *l = loose(frame, len, len);
		struct flow_key k;

		l->m.ol_flags = a->flags;
		l->m.tso_segsz = a->segsz;
		assert_int_equal(parse(&l->m, &k), 0);
		if (l->p.drop != (a->reason ? lab_reason(a->reason) : 0))
			fail_msg("%s, flags %lx, segments of %u: %s", a->text, a->flags, a->segsz, reason_get(l->p.drop)->name);
		if (!a->reason && a->tx) {
			assert_int_equal(l->m.ol_flags, a->tx);
			assert_int_equal(l->m.l2_len, l->p.l3_ofs);
			assert_int_equal(l->m.l3_len, l->p.l4_ofs - l->p.l3_ofs);
			assert_int_equal(l->m.l4_len, l->p.l4_len);
			assert_int_equal(l->m.tso_segsz, a->tx & RTE_MBUF_F_TX_TCP_SEG ? a->segsz : 0);
		}
		if (!a->reason)
			assert_int_equal(l->p.seg_len, a->seg_len);
		drop_loose(l);

		// Through the switch: the second time by the cached flow.
		for (int again = 0; again < 2; again++) {
			struct rte_mbuf *m = lab_mbuf(frame, len, 0);
			uint64_t before = a->reason ? lab_drops(in, a->reason) : 0;

			m->ol_flags = a->flags;
			m->tso_segsz = a->segsz;
			lab_send_mbuf(in, m);
			if (a->reason) {
				assert_int_equal(lab_drops(in, a->reason), before + 1);
			} else {
				assert_int_equal(lab.n_sent, 1);
				if (a->tx)
					assert_int_equal(lab.sent[0].ol_flags & ~RTE_MBUF_F_INDIRECT, a->tx);
			}
		}
	}
}

// More than the length field can say (BIG TCP), also when it has to wait for its flow and is parsed twice.
static void larger_than_64k(void **state)
{
	static uint8_t frame[LAB_FRAME];
	struct config_network *net = lab_network("blue", 0);
	uint16_t in = lab_port("in", VLAN_ACCESS, net)->id;

	lab_port("out", VLAN_ACCESS, net);
	lab_apply();
	for (int v6 = 0; v6 < 2; v6++) {
		frame_of(frame, v6 ? "tcp6,tcp_flags=ack" : "tcp,tcp_flags=ack");
		memset(frame + (v6 ? 18 : 16), 0, 2);
		for (int again = 0; again < 2; again++) {
			struct rte_mbuf *m = lab_mbuf(frame, sizeof frame, 0);

			m->ol_flags = LRO | CSUM;
			m->tso_segsz = 1400;
			lab_send_mbuf(in, m);
			assert_int_equal(lab.n_sent, 1);
			assert_true(lab.sent[0].ol_flags & RTE_MBUF_F_TX_TCP_SEG);
		}
		lab_send_frame(in, frame, sizeof frame);
		assert_int_equal(lab.n_sent, 0);
	}
	assert_int_equal(lab_drops(in, "parse.IPV4_LENGTH"), 1);
}

// ---- the hash

static uint32_t hash_of(const char *text, int poke, uint8_t value)
{
	uint8_t frame[COMPOSE_MAX];
	uint32_t len = frame_of(frame, text);
	struct flow_key k;

	if (poke)
		frame[poke] = value;
	struct loose *l = loose(frame, len, len);
	assert_int_equal(parse(&l->m, &k), 0);
	assert_int_equal(l->p.drop, 0);
	uint32_t h = parse_flow_hash(&l->m);
	assert_int_equal(parse_flow_hash(&l->m), h);
	assert_int_not_equal(h, 0);
	drop_loose(l);
	return h;
}

static void hash_is_that_of_the_connection(void **state)
{
	assert_int_equal(hash_of("tcp,tcp_flags=syn", 0, 0), hash_of("tcp,tcp_flags=ack,packet_len=900,nw_ttl=3", 0, 0));
	assert_int_not_equal(hash_of("tcp,tcp_src=1", 0, 0), hash_of("tcp,tcp_src=2", 0, 0));
	assert_int_not_equal(hash_of("tcp6,tcp_src=1", 0, 0), hash_of("tcp6,tcp_src=2", 0, 0));
	assert_int_not_equal(hash_of("udp,nw_src=10.0.0.1", 0, 0), hash_of("udp,nw_src=10.0.0.2", 0, 0));
	assert_int_not_equal(hash_of("sctp,sctp_src=1", 0, 0), hash_of("sctp,sctp_src=2", 0, 0));
	// Echo requests differ in their sequence number and checksum, and stay in order.
	assert_int_equal(hash_of("icmp", 0, 0), hash_of("icmp", 37, 99));
	assert_int_equal(hash_of("icmp6", 0, 0), hash_of("icmp6", 57, 99));
	// The fragments of a datagram, of which only the first has ports.
	assert_int_equal(hash_of("udp,nw_frag=first,udp_src=5", 0, 0), hash_of("udp,nw_frag=later", 0, 0));
	assert_int_equal(hash_of("udp6,nw_frag=first,udp_src=5", 0, 0), hash_of("udp6,nw_frag=later", 0, 0));
	assert_int_not_equal(hash_of("arp,dl_src=02:00:00:00:00:07", 0, 0), hash_of("arp,dl_src=02:00:00:00:00:08", 0, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(classes, setup, teardown),
		cmocka_unit_test_setup_teardown(fields, setup, teardown),
		cmocka_unit_test_setup_teardown(cut_short, setup, teardown),
		cmocka_unit_test_setup_teardown(noise, setup, teardown),
		cmocka_unit_test_setup_teardown(short_and_long_way, setup, teardown),
		cmocka_unit_test_setup_teardown(malformed_frames, setup, teardown),
		cmocka_unit_test_setup_teardown(extension_headers, setup, teardown),
		cmocka_unit_test_setup_teardown(fragments_of_ipv6, setup, teardown),
		cmocka_unit_test_setup_teardown(large_network_headers, setup, teardown),
		cmocka_unit_test_setup_teardown(ipv4_options, setup, teardown),
		cmocka_unit_test_setup_teardown(headers_over_several_mbufs, setup, teardown),
		cmocka_unit_test_setup_teardown(offloads, setup, teardown),
		cmocka_unit_test_setup_teardown(larger_than_64k, setup, teardown),
		cmocka_unit_test_setup_teardown(hash_is_that_of_the_connection, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
