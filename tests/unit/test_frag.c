// frag: packets cut into fragments, put together again by the test's own hand (RFC 791).
#include "lab.h"
#include "compose.h"
#include "frag.h"
#include "offload.h"

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

static uint32_t get16(const uint8_t *b)
{
	return (uint32_t)(b[0] << 8 | b[1]);
}

static bool header_is_right(const uint8_t *ip)
{
	uint32_t sum = 0;

	for (unsigned i = 0; i < (ip[0] & 15u) * 4; i += 2)
		sum += get16(ip + i);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

static void put_sum(uint8_t *ip)
{
	uint32_t sum = 0;

	memset(ip + 10, 0, 2);
	for (unsigned i = 0; i < (ip[0] & 15u) * 4; i += 2)
		sum += get16(ip + i);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	ip[10] = (uint8_t)(~sum >> 8);
	ip[11] = (uint8_t)~sum;
}

// A packet that may be cut, of `len` bytes of layer 3 with `options` bytes of them.
static struct rte_mbuf *packet(const char *text, unsigned flags, uint32_t cut)
{
	uint8_t frame[COMPOSE_MAX];
	uint32_t len = lab_compose(frame, text);
	unsigned l3 = frame[12] == 0x81 ? 18 : 14;
	struct flow_key key;

	frame[l3 + 6] = (uint8_t)(flags >> 8);
	frame[l3 + 7] = (uint8_t)flags;
	put_sum(frame + l3);
	struct rte_mbuf *m = lab_mbuf(frame, len, cut);
	memset(pkt_of(m), 0, sizeof *pkt_of(m));
	pkt_of(m)->in_port = 7;
	if (parse(m, &key))
		fail();
	return m;
}

// The pieces cover the packet, without gaps and overlaps, none larger than the MTU, and say what parse() makes of them.
static void check(struct rte_mbuf *m, uint16_t mtu)
{
	uint8_t copy[LAB_FRAME], got[LAB_FRAME], part[LAB_FRAME];
	struct pkt *p = pkt_of(m);
	const uint8_t *d = rte_pktmbuf_read(m, 0, m->pkt_len, copy), *ip = d + p->l3_ofs;
	unsigned header = (ip[0] & 15u) * 4, payload = p->l3_len - header, n = frag_count(m, mtu), at = 0;

	assert_true(n > 1);
	for (unsigned i = 0; i < n; i++) {
		struct rte_mbuf *f = frag_piece(m, i, mtu, lab.w.pool);
		struct flow_key key;

		assert_non_null(f);
		rte_mbuf_sanity_check(f, 1);
		const uint8_t *fd = rte_pktmbuf_read(f, 0, f->pkt_len, part), *fip = fd + p->l3_ofs;
		unsigned fh = (fip[0] & 15u) * 4, total = get16(fip + 2);
		assert_memory_equal(fd, d, p->l3_ofs);
		assert_true(total <= mtu);
		assert_int_equal(f->pkt_len, p->l3_ofs + total);
		assert_true(header_is_right(fip));
		assert_memory_equal(fip + 4, ip + 4, 2);
		assert_memory_equal(fip + 8, ip + 8, 2);
		assert_memory_equal(fip + 12, ip + 12, 8);
		assert_int_equal((get16(fip + 6) & 0x1fff) * 8, (get16(ip + 6) & 0x1fff) * 8 + at);
		assert_int_equal(get16(fip + 6) & 0x2000, i + 1 < n ? 0x2000 : get16(ip + 6) & 0x2000);
		assert_int_equal(get16(fip + 6) & 0xc000, 0);
		if (i + 1 < n)
			assert_int_equal((total - fh) % 8, 0);
		if (i + 1 < n)
			assert_true(total + 8 > mtu); // no smaller than need be
		memcpy(got + at, fip + fh, total - fh);
		at += total - fh;
		struct pkt said = *pkt_of(f);
		memset(pkt_of(f), 0, sizeof said);
		pkt_of(f)->in_port = 7;
		assert_int_equal(parse(f, &key), 0);
		assert_memory_equal(&said, pkt_of(f), sizeof said);
		rte_pktmbuf_free(f);
	}
	assert_null(frag_piece(m, n, mtu, lab.w.pool));
	assert_int_equal(at, payload);
	assert_memory_equal(got, ip + header, payload);
}

static void all_sizes(void **state)
{
	static const char *const lens[] = {"1515", "1516", "2014", "4014", "9014"};
	char text[64];

	for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
		for (uint16_t mtu = 68; mtu < 1500; mtu += 59) {
			snprintf(text, sizeof text, "udp,packet_len=%s", lens[i]);
			struct rte_mbuf *m = packet(text, 0, i % 2 ? 700 : 0);
			check(m, mtu);
			rte_pktmbuf_free(m);
			snprintf(text, sizeof text, "tcp,dl_vlan=3,packet_len=%s", lens[i]);
			m = packet(text, 0, 0);
			check(m, mtu);
			rte_pktmbuf_free(m);
		}
	}
}

static void fragments_again(void **state)
{
	static const unsigned flags[] = {0x2000, 0x2000 | 185, 185};

	for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
		struct rte_mbuf *m = packet("udp,packet_len=1514", flags[i], 0);
		check(m, 1000);
		rte_pktmbuf_free(m);
	}
	// Beyond what an offset can say.
	struct rte_mbuf *m = packet("udp,packet_len=1514", 8100, 0);
	assert_int_equal(frag_count(m, 1000), 0);
	assert_null(frag_piece(m, 0, 1000, lab.w.pool));
	rte_pktmbuf_free(m);
}

static void not_these(void **state)
{
	struct rte_mbuf *m = packet("udp,packet_len=1514", 0x4000, 0);

	assert_int_equal(frag_count(m, 1000), 0);
	assert_int_equal(frag_count(m, 1500), 1);
	assert_null(frag_piece(m, 0, 1500, lab.w.pool));
	rte_pktmbuf_free(m);
	m = packet("udp,packet_len=1514", 0, 0);
	assert_int_equal(frag_count(m, 27), 0);
	lab_few_buffers(0);
	assert_null(frag_piece(m, 0, 1000, lab.w.pool));
	lab_few_buffers(-1);
	rte_pktmbuf_free(m);
}

// Security is copied, record route is not (RFC 791 section 3.1); an option that lies about its length ends them.
static void options(void **state)
{
	static const uint8_t with[] = {0x82, 4, 1, 2, 7, 7, 4, 0, 0, 0, 0, 1, 0x88, 4, 9, 9, 0x94, 40, 0, 0};
	uint8_t frame[COMPOSE_MAX];
	uint32_t len = lab_compose(frame, "udp,packet_len=1000");
	struct flow_key key;

	memmove(frame + 34 + sizeof with, frame + 34, len - 34);
	memcpy(frame + 34, with, sizeof with);
	frame[14] = 0x4a;
	frame[16] = (uint8_t)((len - 14 + sizeof with) >> 8);
	frame[17] = (uint8_t)(len - 14 + sizeof with);
	frame[20] = frame[21] = 0;
	put_sum(frame + 14);
	struct rte_mbuf *m = lab_mbuf(frame, len + sizeof with, 0);
	memset(pkt_of(m), 0, sizeof *pkt_of(m));
	pkt_of(m)->in_port = 7;
	assert_int_equal(parse(m, &key), 0);
	check(m, 500);
	struct rte_mbuf *first = frag_piece(m, 0, 500, lab.w.pool), *next = frag_piece(m, 1, 500, lab.w.pool);
	assert_memory_equal(rte_pktmbuf_mtod(first, uint8_t *) + 34, with, sizeof with);
	assert_int_equal(rte_pktmbuf_mtod(next, uint8_t *)[14], 0x47);
	assert_memory_equal(rte_pktmbuf_mtod(next, uint8_t *) + 34, with, 4);
	assert_memory_equal(rte_pktmbuf_mtod(next, uint8_t *) + 38, with + 12, 4);
	rte_pktmbuf_free(first);
	rte_pktmbuf_free(next);
	rte_pktmbuf_free(m);
}

static void rubbish(void **state)
{
	uint8_t frame[COMPOSE_MAX];
	uint32_t seed = 7;

	for (int i = 0; i < 20000; i++) {
		uint32_t len = lab_compose(frame, i % 2 ? "udp,packet_len=1514" : "icmp,packet_len=700");
		struct flow_key key;

		frame[20] = 0;
		for (int k = 0; k < 4; k++) {
			seed = seed * 1664525 + 1013904223;
			frame[14 + (seed >> 8) % 60] = (uint8_t)(seed >> 24);
		}
		frame[14] = (uint8_t)(0x45 + (seed >> 20) % 11);
		struct rte_mbuf *m = lab_mbuf(frame, len, i % 3 ? 0 : 100);
		memset(pkt_of(m), 0, sizeof *pkt_of(m));
		pkt_of(m)->in_port = 7;
		uint16_t mtu = (uint16_t)(68 + (seed >> 7) % 1400);
		if (!parse(m, &key) && !pkt_of(m)->drop && frag_count(m, mtu) > 1 && !(frame[20] & 0x80))
			check(m, mtu);
		rte_pktmbuf_free(m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(all_sizes, setup, teardown),
		cmocka_unit_test_setup_teardown(fragments_again, setup, teardown),
		cmocka_unit_test_setup_teardown(not_these, setup, teardown),
		cmocka_unit_test_setup_teardown(options, setup, teardown),
		cmocka_unit_test_setup_teardown(rubbish, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
