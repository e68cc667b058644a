// reassembly: fragments in any order, and what must not be put together; through a router too, whose large pings come back in fragments.
#include "lab.h"
#include "compose.h"
#include "frag.h"
#include "offload.h"
#include "reassembly.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <rte_ip.h>

#define SECOND 1000000000ULL

static unsigned ended[REASSEMBLY_TIMEOUT + 1], firsts;

static int setup(void **state)
{
	memset(ended, 0, sizeof ended);
	firsts = 0;
	lab_setup();
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

static void end(void *arg, struct rte_mbuf *m, enum reassembly_end how, bool first)
{
	ended[how]++;
	firsts += first && how == REASSEMBLY_TIMEOUT;
	rte_pktmbuf_free(m);
}

static uint32_t seed = 99;

static uint32_t any(uint32_t n)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % n;
}

static struct rte_mbuf *parsed(const uint8_t *frame, uint32_t len)
{
	struct rte_mbuf *m = lab_mbuf(frame, len, 0);
	struct flow_key key;

	memset(pkt_of(m), 0, sizeof *pkt_of(m));
	pkt_of(m)->in_port = 7;
	if (parse(m, &key) == -EAGAIN)
		fail();
	return m;
}

// A whole packet, without DF, of identification `id`.
static struct rte_mbuf *packet(bool v6, unsigned bytes, uint8_t id)
{
	uint8_t f[COMPOSE_MAX];
	char text[128];

	snprintf(text, sizeof text, "%s,packet_len=%u", v6 ? "icmp6,icmpv6_type=128,ipv6_src=fd00::1,ipv6_dst=fd00::2" : "icmp,icmp_type=8,nw_src=10.0.0.1,nw_dst=10.0.0.2", bytes);
	uint32_t len = lab_compose(f, text);
	for (uint32_t i = v6 ? 62 : 42; i < len; i++)
		f[i] = (uint8_t)(i * 7 + i / 256);
	if (v6) {
		f[59] = id;
	} else {
		uint16_t sum;

		f[19] = id;
		f[20] = f[21] = f[24] = f[25] = 0;
		sum = (uint16_t)~rte_raw_cksum(f + 14, 20);
		memcpy(f + 24, &sum, 2);
	}
	return parsed(f, len);
}

static unsigned cut(struct rte_mbuf *m, uint16_t mtu, struct rte_mbuf **piece)
{
	unsigned n = frag_count(m, mtu);

	assert_in_range(n, 2, REASSEMBLY_PIECES);
	for (unsigned i = 0; i < n; i++) {
		uint8_t copy[LAB_FRAME];
		struct rte_mbuf *f = frag_piece(m, i, mtu, lab.w.pool);

		assert_non_null(f);
		struct pkt said = *pkt_of(f);
		piece[i] = parsed(rte_pktmbuf_read(f, 0, f->pkt_len, copy), f->pkt_len);
		assert_int_equal(pkt_of(piece[i])->drop, 0);
		assert_memory_equal(pkt_of(piece[i]), &said, sizeof said); // frag_piece() says what parse() does
		rte_pktmbuf_free(f);
	}
	return n;
}

static void expect_same(struct rte_mbuf *whole, struct rte_mbuf *m)
{
	uint8_t a[LAB_FRAME], b[LAB_FRAME];
	struct pkt p = *pkt_of(whole);
	struct flow_key key;

	assert_int_equal(whole->pkt_len, m->pkt_len);
	assert_memory_equal(rte_pktmbuf_read(whole, 0, m->pkt_len, a), rte_pktmbuf_read(m, 0, m->pkt_len, b), m->pkt_len);
	assert_memory_equal(&p, pkt_of(m), sizeof p);
	assert_int_equal(parse(whole, &key), 0);
	assert_int_equal(pkt_of(whole)->drop, 0);
}

static void any_order(void **state)
{
	for (int round = 0; round < 400; round++) {
		struct rte_mbuf *m = packet(round % 2, 200 + any(8000), (uint8_t)round), *piece[REASSEMBLY_PIECES], *whole = NULL;
		unsigned n = cut(m, (uint16_t)(68 + (m->pkt_len > 2000 ? 500 : 60) + any(80)), piece), merged = ended[REASSEMBLY_MERGED];

		for (unsigned i = n; i > 1; i--) {
			unsigned k = any(i);
			struct rte_mbuf *t = piece[i - 1];

			piece[i - 1] = piece[k];
			piece[k] = t;
		}
		for (unsigned i = 0; i < n; i++) {
			assert_null(whole);
			whole = reassembly_add(REASSEMBLY_TUNNEL, piece[i], SECOND, end, NULL);
		}
		assert_non_null(whole);
		expect_same(whole, m);
		assert_int_equal(ended[REASSEMBLY_MERGED], merged + n - 1);
		assert_int_equal(reassembly_waiting(), 0);
		rte_pktmbuf_free(whole);
		rte_pktmbuf_free(m);
	}
	assert_int_equal(ended[REASSEMBLY_BAD] + ended[REASSEMBLY_FULL] + ended[REASSEMBLY_TIMEOUT], 0);
}

static void shift(struct rte_mbuf *f, bool v6, int by)
{
	uint8_t *at = rte_pktmbuf_mtod_offset(f, uint8_t *, v6 ? 56 : 20);
	unsigned v = (unsigned)(at[0] << 8 | at[1]) + (unsigned)(by / (v6 ? 1 : 8));

	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}

static void wrong_ones(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct rte_mbuf *m = packet(v6, 3000, 5), *piece[REASSEMBLY_PIECES];
		unsigned n = cut(m, 600, piece);

		// The same twice is ignored; one that overlaps takes all with it (RFC 5722).
		memset(ended, 0, sizeof ended);
		uint8_t copy[LAB_FRAME];
		assert_null(reassembly_add(REASSEMBLY_TUNNEL, piece[1], SECOND, end, NULL));
		assert_null(reassembly_add(REASSEMBLY_TUNNEL, parsed(rte_pktmbuf_mtod(piece[1], void *), piece[1]->pkt_len), SECOND, end, NULL));
		assert_int_equal(ended[REASSEMBLY_BAD], 1);
		shift(piece[2], v6, -8);
		assert_null(reassembly_add(REASSEMBLY_TUNNEL, piece[2], SECOND, end, NULL));
		assert_int_equal(ended[REASSEMBLY_BAD], 3);
		assert_int_equal(reassembly_waiting(), 0);
		// Two ends, and something beyond the end.
		const uint8_t *last = rte_pktmbuf_read(piece[n - 1], 0, piece[n - 1]->pkt_len, copy);
		struct rte_mbuf *twin = parsed(last, piece[n - 1]->pkt_len);
		assert_null(reassembly_add(REASSEMBLY_TUNNEL, piece[n - 1], SECOND, end, NULL));
		shift(twin, v6, 800);
		assert_null(reassembly_add(REASSEMBLY_TUNNEL, twin, SECOND, end, NULL));
		assert_int_equal(ended[REASSEMBLY_BAD], 5);
		// Not a multiple of eight.
		shift(piece[3], v6, 0);
		pkt_of(piece[3])->l3_len -= 3;
		assert_null(reassembly_add(REASSEMBLY_TUNNEL, piece[3], SECOND, end, NULL));
		assert_int_equal(ended[REASSEMBLY_BAD], 6);
		for (unsigned i = 4; i + 1 < n; i++)
			rte_pktmbuf_free(piece[i]);
		rte_pktmbuf_free(piece[0]);
		assert_int_equal(reassembly_waiting(), 0);
		assert_null(reassembly_add(REASSEMBLY_TUNNEL, m, SECOND, end, NULL)); // no fragment
	}
	// Ping of death: beyond 65,535 bytes. A second fragment within the TCP header (RFC 3128).
	struct rte_mbuf *m = packet(false, 3000, 6), *piece[REASSEMBLY_PIECES];
	unsigned n = cut(m, 600, piece);
	memset(ended, 0, sizeof ended);
	shift(piece[n - 1], false, 65528 - 8 * ((rte_pktmbuf_mtod(piece[n - 1], uint8_t *)[20] & 0x1f) << 8 | rte_pktmbuf_mtod(piece[n - 1], uint8_t *)[21]));
	assert_null(reassembly_add(REASSEMBLY_TUNNEL, piece[n - 1], SECOND, end, NULL));
	pkt_of(piece[1])->proto = 6;
	shift(piece[1], false, 8 - 8 * ((rte_pktmbuf_mtod(piece[1], uint8_t *)[20] & 0x1f) << 8 | rte_pktmbuf_mtod(piece[1], uint8_t *)[21]));
	assert_null(reassembly_add(REASSEMBLY_TUNNEL, piece[1], SECOND, end, NULL));
	assert_int_equal(ended[REASSEMBLY_BAD], 2);
	for (unsigned i = 0; i + 1 < n; i++)
		if (i != 1)
			rte_pktmbuf_free(piece[i]);
	rte_pktmbuf_free(m);
}

static void limits_and_time(void **state)
{
	struct rte_mbuf *m = packet(false, 3000, 7), *six = packet(true, 3000, 7), *piece[REASSEMBLY_PIECES];

	// The first of many packets, of one port.
	for (unsigned i = 0; i < REASSEMBLY_PORT_MAX + 5; i++) {
		struct rte_mbuf *f = frag_piece(m, 0, 600, lab.w.pool);

		rte_pktmbuf_mtod(f, uint8_t *)[19] = (uint8_t)i;
		assert_null(reassembly_add(REASSEMBLY_TUNNEL, f, SECOND, end, NULL));
	}
	assert_int_equal(ended[REASSEMBLY_FULL], 5); // the oldest ones made room
	assert_int_equal(reassembly_waiting(), REASSEMBLY_PORT_MAX);
	reassembly_tick(REASSEMBLY_ROUTER, 100 * SECOND, end, NULL); // not theirs
	for (unsigned p = 8; reassembly_waiting() < REASSEMBLY_MAX; p++) { // of others
		for (unsigned i = 0; i < REASSEMBLY_PORT_MAX; i++) {
			struct rte_mbuf *f = frag_piece(six, 1, 600, lab.w.pool);

			pkt_of(f)->in_port = (uint16_t)p;
			rte_pktmbuf_mtod(f, uint8_t *)[61] ^= (uint8_t)i;
			assert_null(reassembly_add(REASSEMBLY_TUNNEL, f, SECOND, end, NULL));
		}
	}
	struct rte_mbuf *f = frag_piece(six, 1, 600, lab.w.pool);
	pkt_of(f)->in_port = 99; // which has nothing that could make room: the oldest of all does
	assert_null(reassembly_add(REASSEMBLY_TUNNEL, f, SECOND, end, NULL));
	assert_int_equal(ended[REASSEMBLY_FULL], 6);
	reassembly_tick(REASSEMBLY_TUNNEL, 30 * SECOND, end, NULL);
	assert_int_equal(ended[REASSEMBLY_TIMEOUT], 0);
	reassembly_tick(REASSEMBLY_TUNNEL, 31 * SECOND, end, NULL);
	assert_int_equal(ended[REASSEMBLY_TIMEOUT], REASSEMBLY_PORT_MAX - 1);
	assert_int_equal(firsts, REASSEMBLY_PORT_MAX - 1);
	reassembly_tick(REASSEMBLY_TUNNEL, 61 * SECOND, end, NULL);
	assert_int_equal(ended[REASSEMBLY_TIMEOUT], REASSEMBLY_MAX);
	assert_int_equal(firsts, REASSEMBLY_PORT_MAX - 1);
	assert_int_equal(reassembly_waiting(), 0);
	// More pieces than it takes; no buffer for the whole.
	struct rte_mbuf *large = packet(false, 3000, 8);
	for (unsigned i = 0; i <= REASSEMBLY_PIECES; i++)
		assert_null(reassembly_add(REASSEMBLY_TUNNEL, frag_piece(large, i, 68, lab.w.pool), SECOND, end, NULL));
	assert_int_equal(ended[REASSEMBLY_BAD], REASSEMBLY_PIECES + 1);
	unsigned n = cut(m, 600, piece);
	for (unsigned i = 0; i + 1 < n; i++)
		assert_null(reassembly_add(REASSEMBLY_TUNNEL, piece[i], SECOND, end, NULL));
	struct rte_mbuf *hoard[8191];
	unsigned full = ended[REASSEMBLY_FULL], n_hoard = 0;
	while ((hoard[n_hoard] = rte_pktmbuf_alloc(m->pool)))
		n_hoard++;
	assert_null(reassembly_add(REASSEMBLY_TUNNEL, piece[n - 1], SECOND, end, NULL));
	assert_int_equal(ended[REASSEMBLY_FULL], full + n);
	rte_pktmbuf_free_bulk(hoard, n_hoard);
	assert_int_equal(reassembly_waiting(), 0);
	rte_pktmbuf_free(large);
	rte_pktmbuf_free(six);
	rte_pktmbuf_free(m);
}

// What waited longest makes room, and what is whole by then goes through.
static void makes_room(void **state)
{
	struct rte_mbuf *m = packet(false, 3000, 0);
	unsigned n = frag_count(m, 600);

	for (unsigned i = 0; i < 3 * REASSEMBLY_PORT_MAX; i++) { // each without its last fragment
		for (unsigned k = 0; k + 1 < n; k++) {
			struct rte_mbuf *f = frag_piece(m, k, 600, lab.w.pool);

			rte_pktmbuf_mtod(f, uint8_t *)[18] = (uint8_t)(i >> 8);
			rte_pktmbuf_mtod(f, uint8_t *)[19] = (uint8_t)i;
			assert_null(reassembly_add(REASSEMBLY_TUNNEL, f, SECOND, end, NULL));
		}
		assert_in_range(reassembly_waiting(), 1, REASSEMBLY_PORT_PIECES / (n - 1));
	}
	// All fragments but those that made room are there.
	assert_int_equal(ended[REASSEMBLY_FULL], 3 * REASSEMBLY_PORT_MAX * (n - 1) - reassembly_waiting() * (n - 1));
	struct rte_mbuf *whole = NULL, *other = packet(false, 3000, 1);
	rte_pktmbuf_mtod(other, uint8_t *)[18] = 0x7f;
	for (unsigned k = 0; k < n; k++) {
		assert_null(whole);
		whole = reassembly_add(REASSEMBLY_TUNNEL, frag_piece(other, k, 600, lab.w.pool), SECOND, end, NULL);
	}
	assert_non_null(whole);
	assert_int_equal(whole->pkt_len, 3000);
	rte_pktmbuf_free(whole);
	rte_pktmbuf_free(other);
	rte_pktmbuf_free(m);
	reassembly_flush(REASSEMBLY_TUNNEL, end, NULL);
	assert_int_equal(reassembly_waiting(), 0);
}

// RFC 4963: the identification comes round, and what still waits is no part of the new packet.
static void comes_round(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct rte_mbuf *m = packet(v6, 1000, 200), *other = packet(v6, 1000, 201);

		assert_null(reassembly_add(REASSEMBLY_TUNNEL, frag_piece(m, 0, 600, lab.w.pool), SECOND, end, NULL));
		for (unsigned i = 0; i <= REASSEMBLY_DISTANCE; i++) {
			assert_null(reassembly_add(REASSEMBLY_TUNNEL, frag_piece(other, 0, 600, lab.w.pool), SECOND, end, NULL));
			rte_pktmbuf_free(reassembly_add(REASSEMBLY_TUNNEL, frag_piece(other, 1, 600, lab.w.pool), SECOND, end, NULL));
		}
		memset(ended, 0, sizeof ended);
		struct rte_mbuf *whole = reassembly_add(REASSEMBLY_TUNNEL, frag_piece(m, 1, 600, lab.w.pool), SECOND, end, NULL);
		assert_int_equal(!whole, !v6);
		assert_int_equal(ended[REASSEMBLY_TIMEOUT], !v6);
		rte_pktmbuf_free(whole);
		rte_pktmbuf_free(m);
		rte_pktmbuf_free(other);
		reassembly_flush(REASSEMBLY_TUNNEL, end, NULL);
	}
}

static unsigned ecn_of(struct rte_mbuf *m, bool v6, int set)
{
	uint8_t *ip = rte_pktmbuf_mtod_offset(m, uint8_t *, 14);
	int by = v6 ? 4 : 0;

	if (set >= 0)
		ip[1] = (uint8_t)((ip[1] & ~(3 << by)) | set << by);
	return ip[1] >> by & 3;
}

// RFC 3168 section 5.3.
static void congestion(void **state)
{
	static const struct {
		int fragment[3], whole; // whole -1: none
	} each[] = {{{0, 0, 0}, 0}, {{2, 2, 2}, 2}, {{2, 3, 2}, 3}, {{3, 3, 3}, 3}, {{1, 1, 3}, 3}, {{0, 3, 0}, -1}, {{3, 0, 3}, -1}, {{2, 1, 2}, 2}, {{3, 2, 1}, 3}};

	for (unsigned i = 0; i < sizeof each / sizeof each[0] * 2; i++) {
		struct rte_mbuf *m = packet(i % 2, 1500, 1), *piece[REASSEMBLY_PIECES], *whole = NULL;

		memset(ended, 0, sizeof ended);
		assert_int_equal(cut(m, 600, piece), 3);
		for (unsigned k = 0; k < 3; k++)
			ecn_of(piece[k], i % 2, each[i / 2].fragment[k]);
		for (unsigned k = 0; k < 3; k++)
			whole = reassembly_add(REASSEMBLY_TUNNEL, piece[(k + i) % 3], SECOND, end, NULL);
		assert_int_equal(!whole, each[i / 2].whole < 0);
		assert_int_equal(ended[REASSEMBLY_BAD], whole ? 0 : 3);
		if (whole) {
			assert_int_equal(ecn_of(whole, i % 2, -1), each[i / 2].whole);
			if (i % 2 == 0)
				assert_int_equal(rte_raw_cksum(rte_pktmbuf_mtod_offset(whole, void *, 14), 20), 0xffff);
		}
		rte_pktmbuf_free(whole);
		rte_pktmbuf_free(m);
	}
}

// A fragment that is the whole packet has nothing to do with others of its identification (RFC 6946); kinds have nothing to do with each other.
static void apart(void **state)
{
	struct rte_mbuf *m = packet(true, 1000, 3), *small = packet(true, 600, 3);
	uint8_t f[LAB_FRAME];

	assert_null(reassembly_add(REASSEMBLY_TUNNEL, frag_piece(m, 0, 600, lab.w.pool), SECOND, end, NULL));
	memcpy(f, rte_pktmbuf_mtod(small, uint8_t *), 600);
	memmove(f + 62, f + 54, 546);
	memset(f + 54, 0, 8);
	f[54] = f[20];
	f[20] = 44;
	f[18] = (600 + 8 - 54) >> 8;
	f[19] = (600 + 8 - 54) & 255;
	struct rte_mbuf *whole = reassembly_add(REASSEMBLY_TUNNEL, parsed(f, 608), SECOND, end, NULL);
	assert_non_null(whole);
	expect_same(whole, small);
	rte_pktmbuf_free(whole);
	assert_int_equal(reassembly_waiting(), 1);
	assert_null(reassembly_add(REASSEMBLY_ROUTER, frag_piece(m, 1, 600, lab.w.pool), SECOND, end, NULL));
	assert_int_equal(reassembly_waiting(), 2);
	whole = reassembly_add(REASSEMBLY_TUNNEL, frag_piece(m, 1, 600, lab.w.pool), SECOND, end, NULL);
	assert_non_null(whole);
	rte_pktmbuf_free(whole);
	reassembly_flush(REASSEMBLY_ROUTER, end, NULL);
	assert_int_equal(reassembly_waiting(), 0);
	rte_pktmbuf_free(m);
	rte_pktmbuf_free(small);
}

// Workers that have fragments of the same packets: each packet is whole on one of them.
#define RACERS 4
#define RACES 3000
static struct rte_mbuf *shuffled[RACES * 3];
static unsigned next_shuffled, wholes, lost;

static void end_race(void *arg, struct rte_mbuf *m, enum reassembly_end how, bool first)
{
	if (how != REASSEMBLY_MERGED)
		__atomic_fetch_add(&lost, 1, __ATOMIC_RELAXED);
	rte_pktmbuf_free(m);
}

static void *race(void *arg)
{
	for (unsigned i; (i = __atomic_fetch_add(&next_shuffled, 1, __ATOMIC_RELAXED)) < RACES * 3;) {
		struct rte_mbuf *whole = reassembly_add(REASSEMBLY_TUNNEL, shuffled[i], SECOND, end_race, NULL);

		if (whole && whole->pkt_len == 1500)
			__atomic_fetch_add(&wholes, 1, __ATOMIC_RELAXED);
		rte_pktmbuf_free(whole);
	}
	return NULL;
}

static void races(void **state)
{
	pthread_t thread[RACERS];
	unsigned made = 0, all = 0;

	wholes = lost = 0;
	while (made < RACES) {
		unsigned batch = made + 1000 < RACES ? 1000 : RACES - made; // what the pool has room for
		next_shuffled = RACES * 3 - 3 * batch;
		for (unsigned i = 0; i < batch; i++) {
			struct rte_mbuf *m = packet(i % 2, 1500, (uint8_t)i);
			uint8_t *id = rte_pktmbuf_mtod_offset(m, uint8_t *, 18);

			if (i % 2 == 0)
				*id = (uint8_t)(i >> 8);
			for (unsigned k = 0; k < 3; k++) {
				struct rte_mbuf *f = frag_piece(m, k, 600, lab.w.pool);

				if (i % 2)
					rte_pktmbuf_mtod(f, uint8_t *)[60] = (uint8_t)(i >> 8);
				shuffled[next_shuffled + 3 * i + k] = f;
			}
			rte_pktmbuf_free(m);
		}
		for (unsigned i = next_shuffled; i + 7 < RACES * 3; i++) { // not far
			unsigned k = i + any(7);
			struct rte_mbuf *t = shuffled[i];

			shuffled[i] = shuffled[k];
			shuffled[k] = t;
		}
		for (unsigned i = 0; i < RACERS; i++)
			assert_int_equal(pthread_create(&thread[i], NULL, race, NULL), 0);
		for (unsigned i = 0; i < RACERS; i++)
			pthread_join(thread[i], NULL);
		made += batch;
		all += batch;
		// One that a thread was stopped with for long may have made room, or missed its others.
		unsigned left = reassembly_waiting();
		reassembly_flush(REASSEMBLY_TUNNEL, end_race, NULL);
		assert_true(wholes + left + lost >= all);
	}
	assert_true(wholes > 0);
	if (!lost)
		assert_int_equal(wholes, RACES);
}

static void rubbish(void **state)
{
	for (int i = 0; i < 30000; i++) {
		struct rte_mbuf *m = packet(i % 2, 300 + any(300), (uint8_t)any(3));
		struct rte_mbuf *f = frag_piece(m, any(2), 200, lab.w.pool);
		uint8_t copy[LAB_FRAME];

		rte_pktmbuf_free(m);
		if (!f)
			continue;
		memcpy(copy, rte_pktmbuf_mtod(f, uint8_t *), f->pkt_len);
		for (unsigned k = any(4); k; k--)
			copy[14 + any(60)] = (uint8_t)any(256);
		m = parsed(copy, f->pkt_len);
		rte_pktmbuf_free(f);
		if (pkt_of(m)->drop) {
			rte_pktmbuf_free(m);
			continue;
		}
		struct rte_mbuf *whole = reassembly_add(REASSEMBLY_TUNNEL, m, SECOND, end, NULL);
		if (whole) {
			rte_mbuf_sanity_check(whole, 1);
			rte_pktmbuf_free(whole);
		}
		if (i % 1000 == 0)
			reassembly_tick(REASSEMBLY_TUNNEL, 100 * SECOND, end, NULL);
	}
	reassembly_flush(REASSEMBLY_TUNNEL, end, NULL);
}

// ---- through a router

static struct config_port *a;
static struct config_router_port *rp;

static void start_router(void)
{
	struct config_network *blue = lab_network("blue", 10);

	a = lab_port("a", VLAN_ACCESS, blue);
	rp = lab_router_port("r-blue", lab_router("r"), blue, "02:00:00:00:10:01", "10.0.0.2/24", "fd00::2/64", "fe80::1/64", NULL);
	lab_apply();
	for (int i = 0; i < 100; i++) { // duplicate address detection, and announcements
		lab_advance_ms(100);
		lab_tick();
		lab_flush();
	}
}

static void send_pieces(bool v6, unsigned bytes, unsigned without)
{
	struct rte_mbuf *m = packet(v6, bytes, 9), *piece[REASSEMBLY_PIECES];
	unsigned n = cut(m, 1500, piece);

	rte_pktmbuf_free(m);
	lab_forget_sent();
	for (unsigned i = 0; i < n; i++) {
		memcpy(rte_pktmbuf_mtod(piece[i], uint8_t *), "\x02\0\0\0\x10\x01\x02\0\0\0\0\x0a", 12);
		if (i == without)
			rte_pktmbuf_free(piece[i]);
		else
			lab_burst(a->id, &piece[i], 1);
	}
	lab_flush();
}

static void large_pings(void **state)
{
	start_router();
	for (int v6 = 0; v6 < 2; v6++) {
		for (int round = 0; round < 3; round++) {
			uint64_t segments = lab_count(a->id, COUNT_SEGMENTS);
			struct rte_mbuf *whole = NULL;

			send_pieces(v6, 4014, ~0u);
			assert_int_equal(lab.n_sent, 3);
			assert_int_equal(lab_count(a->id, COUNT_SEGMENTS), segments + 2);
			for (unsigned i = 0; i < lab.n_sent; i++) {
				assert_int_equal(lab.sent[i].port, a->id);
				assert_memory_equal(lab.sent[i].bytes, "\x02\0\0\0\0\x0a\x02\0\0\0\x10\x01", 12);
				assert_true(lab.sent[i].len <= 1514);
				whole = reassembly_add(REASSEMBLY_TUNNEL, parsed(lab.sent[i].bytes, lab.sent[i].len), SECOND, end, NULL);
			}
			assert_non_null(whole);
			assert_int_equal(whole->pkt_len, 4014);
			assert_int_equal(rte_pktmbuf_mtod(whole, uint8_t *)[v6 ? 54 : 34], v6 ? 129 : 0);
			rte_pktmbuf_free(whole);
		}
	}
	// One is missing: the sender is told when time is up, if the first one came.
	lab.traced = false;
	send_pieces(false, 4014, 1);
	assert_int_equal(lab.n_sent, 0);
	for (int i = 0; i < 310; i++) {
		lab_advance_ms(100);
		stages_tick(lab.w.now);
		lab_flush();
	}
	const struct lab_sent *s = lab_sent_to(a->id);
	assert_non_null(s);
	assert_memory_equal(s->bytes + 34, "\x0b\x01", 2);
	assert_int_equal(lab_drops(a->id, "router.FRAGMENT_TIMEOUT"), 2);
	send_pieces(true, 4014, 0);
	for (int i = 0; i < 610; i++) {
		lab_advance_ms(100);
		stages_tick(lab.w.now);
		lab_flush();
	}
	assert_int_equal(lab_drops(a->id, "router.FRAGMENT_TIMEOUT"), 4);
	// Switched off, and overlapping.
	send_pieces(false, 2000, ~0u);
	struct rte_mbuf *m = packet(false, 3000, 77), *piece[REASSEMBLY_PIECES];
	unsigned n = cut(m, 1000, piece);
	shift(piece[1], false, 8);
	for (unsigned i = 0; i < n; i++) {
		memcpy(rte_pktmbuf_mtod(piece[i], uint8_t *), "\x02\0\0\0\x10\x01\x02\0\0\0\0\x0a", 12);
		uint8_t *ip = rte_pktmbuf_mtod_offset(piece[i], uint8_t *, 14);
		ip[10] = ip[11] = 0;
		uint16_t sum = (uint16_t)~rte_raw_cksum(ip, 20);
		memcpy(ip + 10, &sum, 2);
		lab_burst(a->id, &piece[i], 1);
	}
	rte_pktmbuf_free(m);
	lab_flush();
	assert_true(lab_drops(a->id, "router.FRAGMENT") >= 2);
	uint64_t drops = lab_drops(a->id, "router.FRAGMENT");
	rp->other_config.pair = calloc(1, sizeof *rp->other_config.pair);
	rp->other_config.pair[0] = (struct config_pair){strdup("reassembly"), strdup("false")};
	rp->other_config.n = 1;
	lab_apply();
	lab.traced = true;
	send_pieces(false, 2000, ~0u);
	assert_int_equal(lab.n_sent, 0);
	assert_int_equal(lab_drops(a->id, "router.FRAGMENT"), drops + 2);
	lab_expect_trace("dropped (router.FRAGMENT)");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(any_order, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong_ones, setup, teardown),
		cmocka_unit_test_setup_teardown(limits_and_time, setup, teardown),
		cmocka_unit_test_setup_teardown(makes_room, setup, teardown),
		cmocka_unit_test_setup_teardown(comes_round, setup, teardown),
		cmocka_unit_test_setup_teardown(congestion, setup, teardown),
		cmocka_unit_test_setup_teardown(apart, setup, teardown),
		cmocka_unit_test_setup_teardown(races, setup, teardown),
		cmocka_unit_test_setup_teardown(rubbish, setup, teardown),
		cmocka_unit_test_setup_teardown(large_pings, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
