// offload: checksums and segments, held against an addition of the whole packet by the test's own hand (RFC 1071, RFC 9293).
#include "lab.h"
#include "compose.h"
#include "offload.h"

#include <errno.h>

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

static uint32_t get(const uint8_t *b, int n)
{
	uint32_t v = 0;

	while (n--)
		v = v << 8 | *b++;
	return v;
}

static uint16_t ones_sum(const uint8_t *b, uint32_t n, uint64_t acc)
{
	for (uint32_t i = 0; i < n; i++)
		acc += i % 2 ? b[i] : (uint64_t)b[i] << 8;
	while (acc >> 16)
		acc = (acc & 0xffff) + (acc >> 16);
	return (uint16_t)acc;
}

struct layout {
	bool v4;
	uint32_t l3, l4, end; // offsets; end of the IP packet
	uint8_t proto;
};

static struct layout layout_of(const uint8_t *f, uint32_t ext)
{
	struct layout l = {.l3 = 14};

	if (get(f + 12, 2) == 0x8100)
		l.l3 = 18;
	l.v4 = f[l.l3] >> 4 == 4;
	l.l4 = l.l3 + (l.v4 ? (f[l.l3] & 15) * 4u : 40 + ext);
	l.end = l.l3 + (l.v4 ? get(f + l.l3 + 2, 2) : 40 + get(f + l.l3 + 4, 2));
	l.proto = l.v4 ? f[l.l3 + 9] : ext ? f[l.l3 + 40] : f[l.l3 + 6];
	return l;
}

static uint16_t pseudo_sum(const uint8_t *f, const struct layout *l)
{
	return ones_sum(f + l->l3 + (l->v4 ? 12 : 8), l->v4 ? 8 : 32, l->proto + (uint64_t)(l->end - l->l4));
}

static void assert_checksums(const uint8_t *f, uint32_t ext)
{
	struct layout l = layout_of(f, ext);

	if (l.v4)
		assert_int_equal(ones_sum(f + l.l3, l.l4 - l.l3, 0), 0xffff);
	assert_int_equal(ones_sum(f + l.l4, l.end - l.l4, pseudo_sum(f, &l)), 0xffff);
}

// What a guest hands over: the frame with only the pseudo-header's sum in its checksum field.
static struct rte_mbuf *partial(uint8_t *f, uint32_t len, uint32_t ext, uint32_t cut, uint64_t more, uint16_t segsz)
{
	struct layout l = layout_of(f, ext);
	uint32_t at = l.l4 + (l.proto == 6 ? 16 : 6);
	uint16_t sum = pseudo_sum(f, &l);
	struct flow_key k;

	f[at] = (uint8_t)(sum >> 8);
	f[at + 1] = (uint8_t)sum;
	struct rte_mbuf *m = lab_mbuf(f, len, cut);
	memset(pkt_of(m), 0, sizeof(struct pkt));
	m->ol_flags = RTE_MBUF_F_RX_L4_CKSUM_NONE | more;
	m->tso_segsz = segsz;
	assert_int_equal(parse(m, &k), 0);
	assert_int_equal(pkt_of(m)->drop, 0);
	return m;
}

static uint32_t bytes_of(struct rte_mbuf *m, uint8_t *to)
{
	uint32_t n = 0;

	for (const struct rte_mbuf *s = m; s; s = s->next) {
		memcpy(to + n, rte_pktmbuf_mtod(s, const void *), s->data_len);
		n += s->data_len;
	}
	assert_int_equal(n, m->pkt_len);
	rte_mbuf_sanity_check(m, 1);
	return n;
}

static void fill(uint8_t *f, uint32_t from, uint32_t to)
{
	for (; from < to; from++)
		f[from] = (uint8_t)rand();
}

static void checksums(void **state)
{
	static const char *const texts[] = {"tcp,packet_len=", "udp,packet_len=", "tcp6,packet_len=", "udp6,packet_len=", "tcp,dl_vlan=5,packet_len="};

	for (unsigned i = 0; i < 5; i++) {
		for (uint32_t len = 78; len < 3000; len += 61) {
			for (uint32_t cut = 0; cut < 3; cut++) {
				uint8_t f[COMPOSE_MAX], got[COMPOSE_MAX];
				char text[64];

				snprintf(text, sizeof text, "%s%u", texts[i], len);
				lab_compose(f, text);
				struct layout l = layout_of(f, 0);
				fill(f, l.l4 + (l.proto == 6 ? 20 : 8), len);
				struct rte_mbuf *m = partial(f, len, 0, cut ? 90 + cut * 7 : 0, 0, 0);
				assert_true(m->ol_flags & RTE_MBUF_F_TX_L4_MASK);
				assert_int_equal(offload_checksum(m), 0);
				assert_int_equal(m->ol_flags, 0);
				assert_int_equal(bytes_of(m, got), len);
				assert_checksums(got, 0);
				assert_int_equal(offload_checksum(m), 0); // nothing left to do
				rte_pktmbuf_free(m);
			}
		}
	}
}

// A sum of zero is sent as all ones in UDP (RFC 768), and padding behind the packet is no part of it.
static void checksum_of_zero_and_padding(void **state)
{
	uint8_t f[COMPOSE_MAX], got[COMPOSE_MAX];

	lab_compose(f, "udp");
	struct layout l = layout_of(f, 0);
	l.end = l.l4 + 10;
	f[17] = 30;
	f[39] = 10;
	uint16_t rest = (uint16_t)~ones_sum(f + l.l4, 6, pseudo_sum(f, &l));
	f[42] = (uint8_t)(rest >> 8);
	f[43] = (uint8_t)rest;
	fill(f, 44, 60);
	struct rte_mbuf *m = partial(f, 60, 0, 0, 0, 0);
	assert_int_equal(offload_checksum(m), 0);
	bytes_of(m, got);
	assert_int_equal(get(got + 40, 2), 0xffff);
	rte_pktmbuf_free(m);
}

static void lies(void **state)
{
	uint8_t f[COMPOSE_MAX];
	uint32_t len = lab_compose(f, "tcp,packet_len=200");
	struct rte_mbuf *m = partial(f, len, 0, 0, 0, 0);
	uint64_t flags = m->ol_flags;

	m->l3_len = 170;
	assert_int_equal(offload_checksum(m), -EINVAL);
	m->l3_len = 511;
	assert_int_equal(offload_checksum(m), -EINVAL);
	m->l3_len = 16;
	assert_int_equal(offload_checksum(m), -EINVAL);
	m->l3_len = 20;
	m->l2_len = 100;
	assert_int_equal(offload_checksum(m), -EINVAL);
	m->l2_len = 14;
	m->ol_flags = (flags & ~RTE_MBUF_F_TX_L4_MASK) | RTE_MBUF_F_TX_SCTP_CKSUM;
	assert_int_equal(offload_checksum(m), -EINVAL);
	m->ol_flags = (flags & ~RTE_MBUF_F_TX_IPV4) | RTE_MBUF_F_TX_IPV6;
	assert_int_equal(offload_checksum(m), -EINVAL);

	// Nor can such be cut.
	m->ol_flags = flags | RTE_MBUF_F_TX_TCP_SEG;
	m->tso_segsz = 0;
	assert_int_equal(offload_segments(m), 0);
	m->tso_segsz = 50;
	m->l4_len = 16;
	assert_int_equal(offload_segments(m), 0);
	m->l4_len = 255;
	assert_int_equal(offload_segments(m), 0);
	m->l4_len = 20;
	m->l3_len = 511;
	assert_int_equal(offload_segments(m), 0);
	assert_null(offload_segment(m, 0, m->pool));
	m->l3_len = 20;
	assert_int_equal(offload_segments(m), 3);
	assert_null(offload_segment(m, 3, m->pool));
	m->ol_flags = flags;
	assert_int_equal(offload_segments(m), 1);
	rte_pktmbuf_free(m);
}

// Cuts, puts together again, and looks at every header on the way.
static void cut_one(uint8_t *f, uint32_t len, uint32_t ext, uint32_t cut, uint16_t segsz)
{
	static uint8_t got[LAB_FRAME], whole[LAB_FRAME];
	struct layout l = layout_of(f, ext);
	uint32_t tcp_len = (f[l.l4 + 12] >> 4) * 4u, at = l.l4 + tcp_len, seq = get(f + l.l4 + 4, 4), id = get(f + l.l3 + 4, 2);
	struct rte_mbuf *m = partial(f, len, ext, cut, RTE_MBUF_F_RX_LRO, segsz);
	unsigned n = offload_segments(m);

	assert_int_equal(n, l.end - at <= segsz ? 1 : (l.end - at + segsz - 1) / segsz);
	assert_int_equal(n > 1, !!(m->ol_flags & RTE_MBUF_F_TX_TCP_SEG));
	memcpy(whole, f, len);
	for (unsigned i = 0; n > 1 && i < n; i++) {
		struct rte_mbuf *s = offload_segment(m, i, m->pool);

		assert_non_null(s);
		assert_true(s->ol_flags & RTE_MBUF_F_TX_TCP_CKSUM);
		assert_false(s->ol_flags & RTE_MBUF_F_TX_TCP_SEG);
		assert_int_equal(pkt_of(s)->seg_len, s->pkt_len - s->l2_len);
		assert_int_equal(pkt_of(s)->l3_len, s->pkt_len - s->l2_len);
		assert_int_equal(pkt_of(s)->l4_ofs, l.l4);
		assert_true(s->pkt_len <= at + segsz);
		assert_int_equal(offload_checksum(s), 0);
		uint32_t bytes = bytes_of(s, got);
		struct layout ls = layout_of(got, ext);
		assert_int_equal(ls.end, bytes);
		assert_checksums(got, ext);
		assert_memory_equal(got, whole, l.l3);
		assert_int_equal(get(got + l.l4 + 4, 4), seq + i * segsz);
		if (l.v4)
			assert_int_equal(get(got + l.l3 + 4, 2), (id + i) & 0xffff);
		uint8_t flags = f[l.l4 + 13];
		if (i + 1 < n)
			flags &= (uint8_t)~0x09;
		if (i)
			flags &= (uint8_t)~0x80;
		assert_int_equal(got[l.l4 + 13], flags);
		assert_memory_equal(got + at, whole + at + i * segsz, bytes - at);
		assert_memory_equal(got + l.l4 + 20, whole + l.l4 + 20, tcp_len - 20); // options
		rte_pktmbuf_free(s);
	}
	// The packet itself is as it was.
	assert_int_equal(bytes_of(m, got), len);
	assert_memory_equal(got, whole, len);
	rte_pktmbuf_free(m);
}

static void segments(void **state)
{
	static const char *const texts[] = {"tcp,tcp_flags=0xd9,packet_len=", "tcp6,tcp_flags=0xd9,packet_len=", "tcp,dl_vlan=9,tcp_flags=0x10,packet_len="};
	static const uint16_t sizes[] = {48, 536, 1448, 1460, 8960};

	for (unsigned i = 0; i < 3; i++) {
		for (unsigned s = 0; s < 5; s++) {
			for (uint32_t len = 1000; len <= 9216; len += 1027) {
				for (uint32_t cut = 0; cut < 3; cut++) {
					uint8_t f[COMPOSE_MAX];
					char text[64];

					snprintf(text, sizeof text, "%s%u", texts[i], len);
					lab_compose(f, text);
					struct layout l = layout_of(f, 0);
					fill(f, l.l4 + 4, l.l4 + 12);
					fill(f, l.l4 + 20, len);
					f[l.l3 + 4] = l.v4 ? 0xff : f[l.l3 + 4]; // the identification wraps
					f[l.l3 + 5] = l.v4 ? 0xfe : f[l.l3 + 5];
					f[l.l4 + 12] = (uint8_t)(cut == 1 ? 0x80 : 0x50); // with 12 bytes of options
					cut_one(f, len, 0, cut ? 100 + cut * 333 : 0, sizes[s]);
				}
			}
		}
	}
}

// With padding behind the packet, extension headers before TCP, sizes around a whole number of segments.
static void corners(void **state)
{
	static uint8_t f[LAB_FRAME];

	for (uint32_t len = 54 + 2 * 1000 - 2; len <= 54 + 2 * 1000 + 2; len++) {
		char text[64];

		snprintf(text, sizeof text, "tcp,tcp_flags=0x18,packet_len=%u", len);
		lab_compose(f, text);
		cut_one(f, len, 0, 0, 1000);
	}
	lab_compose(f, "tcp,packet_len=3000");
	fill(f, 3000, 3010);
	cut_one(f, 3010, 0, 0, 1000);

	// A destination options header: eight bytes more.
	lab_compose(f, "tcp6,packet_len=3000");
	memmove(f + 62, f + 54, 3000 - 54);
	memset(f + 54, 0, 8);
	f[20] = 60;
	f[54] = 6;
	f[18] = (uint8_t)((3008 - 54) >> 8);
	f[19] = (uint8_t)(3008 - 54);
	cut_one(f, 3008, 8, 0, 1000);

	// 64 KB, in 2 KB buffers, into segments of several buffers.
	lab_compose(f, "tcp,tcp_flags=0x18,packet_len=9000");
	fill(f, 54, 65535 + 14);
	f[16] = f[17] = 0xff;
	cut_one(f, 65535 + 14, 0, 0, 1448);
	cut_one(f, 65535 + 14, 0, 0, 9000);
	cut_one(f, 65535 + 14, 0, 777, 65000);
}

static void a_trace_is_shared_by_the_segments(void **state)
{
	uint8_t f[COMPOSE_MAX];
	uint32_t len = lab_compose(f, "tcp,packet_len=3000");
	struct rte_mbuf *m = partial(f, len, 0, 0, RTE_MBUF_F_RX_LRO, 1000);
	struct trace t = {.refs = 1};

	pkt_of(m)->trace = &t;
	struct rte_mbuf *s = offload_segment(m, 1, m->pool);
	assert_ptr_equal(pkt_of(s)->trace, &t);
	assert_int_equal(t.refs, 2);
	rte_pktmbuf_free(s);
	rte_pktmbuf_free(m);
}

static void linear(void **state)
{
	uint8_t f[COMPOSE_MAX], got[COMPOSE_MAX];
	uint32_t len = lab_compose(f, "tcp,packet_len=1500");

	fill(f, 54, len);
	struct rte_mbuf *m = partial(f, len, 0, 100, RTE_MBUF_F_RX_LRO, 1000);
	struct rte_mbuf *s = offload_linear(m, m->pool);
	assert_int_equal(s->nb_segs, 1);
	assert_int_equal(bytes_of(s, got), len);
	assert_memory_equal(got, f, len);
	assert_int_equal(s->ol_flags, m->ol_flags);
	assert_int_equal(s->tx_offload, m->tx_offload);
	assert_memory_equal(pkt_of(s), pkt_of(m), sizeof(struct pkt));
	rte_pktmbuf_free(s);
	rte_pktmbuf_free(m);

	len = lab_compose(f, "udp,packet_len=2048");
	m = lab_mbuf(f, len, 1000);
	s = offload_linear(m, m->pool);
	assert_non_null(s);
	rte_pktmbuf_free(s);
	rte_pktmbuf_free(m);
	len = lab_compose(f, "udp,packet_len=2049");
	m = lab_mbuf(f, len, 0);
	assert_null(offload_linear(m, m->pool)); // larger than a buffer
	rte_pktmbuf_free(m);
}

static void without_buffers(void **state)
{
	uint8_t f[COMPOSE_MAX];
	uint32_t len = lab_compose(f, "tcp,packet_len=9000");
	struct rte_mbuf *m = partial(f, len, 0, 0, RTE_MBUF_F_RX_LRO, 5000);

	lab_few_buffers(0);
	assert_null(offload_segment(m, 0, lab.w.pool));
	assert_null(offload_linear(m, lab.w.pool));
	lab_few_buffers(2); // three are needed
	assert_null(offload_segment(m, 0, lab.w.pool));
	lab_few_buffers(3);
	struct rte_mbuf *s = offload_segment(m, 0, lab.w.pool);
	assert_non_null(s);
	rte_pktmbuf_free(s);
	rte_pktmbuf_free(m);
}

static void what_an_egress_can_do(void **state)
{
	struct rte_mbuf m = {.nb_segs = 1};

	assert_true(offload_ok(&m, 0));
	m.nb_segs = 2;
	assert_false(offload_ok(&m, OFFLOAD_ALL & ~OFFLOAD_MULTISEG));
	assert_true(offload_ok(&m, OFFLOAD_MULTISEG));
	m.ol_flags = RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV4;
	assert_false(offload_ok(&m, OFFLOAD_MULTISEG));
	assert_true(offload_ok(&m, OFFLOAD_MULTISEG | OFFLOAD_CSUM));
	m.ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
	assert_false(offload_ok(&m, OFFLOAD_MULTISEG | OFFLOAD_CSUM | OFFLOAD_TSO6));
	assert_true(offload_ok(&m, OFFLOAD_MULTISEG | OFFLOAD_CSUM | OFFLOAD_TSO4));
	assert_false(offload_ok(&m, OFFLOAD_MULTISEG | OFFLOAD_TSO4));
	m.ol_flags = RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV6;
	assert_true(offload_ok(&m, OFFLOAD_MULTISEG | OFFLOAD_CSUM | OFFLOAD_TSO6));
	assert_false(offload_ok(&m, OFFLOAD_MULTISEG | OFFLOAD_CSUM | OFFLOAD_TSO4));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(checksums, setup, teardown),
		cmocka_unit_test_setup_teardown(checksum_of_zero_and_padding, setup, teardown),
		cmocka_unit_test_setup_teardown(lies, setup, teardown),
		cmocka_unit_test_setup_teardown(segments, setup, teardown),
		cmocka_unit_test_setup_teardown(corners, setup, teardown),
		cmocka_unit_test_setup_teardown(a_trace_is_shared_by_the_segments, setup, teardown),
		cmocka_unit_test_setup_teardown(linear, setup, teardown),
		cmocka_unit_test_setup_teardown(without_buffers, setup, teardown),
		cmocka_unit_test_setup_teardown(what_an_egress_can_do, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
