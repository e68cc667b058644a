// Two machines of ours against each other through a pipe that loses, and against rubbish.
#include "lacp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SECOND 1000000000ULL
#define PIPE 256
#define ALL 0xffu

struct side {
	struct lacp l;
	struct side *other;
	unsigned to[LACP_PORTS];  // port of the other side that each is cabled to
	struct {
		unsigned port;
		uint16_t len;
		uint8_t bytes[LACP_FRAME];
	} pipe[PIPE];                 // what it has said
	unsigned n, said[LACP_PORTS];
};

static struct side a, b;
static uint64_t now;
static unsigned lose; // one frame in so many; 0: none

static void say(void *arg, unsigned port, const uint8_t *frame, uint16_t len)
{
	struct side *s = arg;

	assert_true(len <= LACP_FRAME && s->n < PIPE);
	s->said[port]++;
	if (lose && rand() % (int)lose == 0)
		return;
	s->pipe[s->n].port = port;
	s->pipe[s->n].len = len;
	memcpy(s->pipe[s->n++].bytes, frame, len);
}

static bool deliver(struct side *s)
{
	bool any = s->n > 0;

	for (unsigned i = 0; i < s->n; i++)
		assert_int_equal(lacp_receive(&s->other->l, s->to[s->pipe[i].port], s->pipe[i].bytes, s->pipe[i].len, now), 0);
	s->n = 0;
	return any;
}

static void pass(double seconds)
{
	for (uint64_t end = now + (uint64_t)(seconds * SECOND); now < end; now += SECOND / 10) {
		lacp_tick(&a.l, now);
		lacp_tick(&b.l, now);
		while ((int)deliver(&a) | (int)deliver(&b))
			;
	}
}

static void init(struct side *s, struct side *other, uint8_t system, bool active, bool fast)
{
	memset(s, 0, sizeof *s);
	s->other = other;
	s->l.send = say;
	s->l.arg = s;
	lacp_configure(&s->l, 32768, (uint8_t[]){2, 0, 0, 0, 0, system}, 7, active, fast);
}

static void cable(unsigned at_a, unsigned at_b)
{
	lacp_add(&a.l, at_a, (uint16_t)(at_a + 1), 255, (uint8_t[]){2, 0, 0, 0, 1, (uint8_t)at_a});
	lacp_add(&b.l, at_b, (uint16_t)(at_b + 101), 255, (uint8_t[]){2, 0, 0, 0, 2, (uint8_t)at_b});
	a.to[at_a] = at_b;
	b.to[at_b] = at_a;
	lacp_link(&a.l, at_a, true, now);
	lacp_link(&b.l, at_b, true, now);
}

static void two_sides(bool a_active, bool b_active, bool fast)
{
	now = 1000 * SECOND;
	lose = 0;
	init(&a, &b, 1, a_active, fast);
	init(&b, &a, 2, b_active, fast);
}

static void carries(uint32_t at_a, uint32_t at_b)
{
	assert_int_equal(lacp_collecting(&a.l), at_a);
	assert_int_equal(lacp_distributing(&a.l), at_a);
	assert_int_equal(lacp_collecting(&b.l), at_b);
	assert_int_equal(lacp_distributing(&b.l), at_b);
}

static void forget_said(void)
{
	memset(a.said, 0, sizeof a.said);
	memset(b.said, 0, sizeof b.said);
}

static void comes_up(void **state)
{
	two_sides(true, true, false);
	cable(0, 1);
	cable(1, 0);
	cable(5, 5);
	pass(1);
	carries(0, 0);
	pass(3);
	carries(0x23, 0x23);
	// Once in 30 seconds suffices then.
	forget_said();
	pass(90);
	assert_int_equal(a.said[0], 3);
	assert_int_equal(a.l.port[0].bad, 0);
	assert_memory_equal(a.l.port[0].partner.system, b.l.system, 6);
	assert_int_equal(a.l.port[0].partner.port, 102);
}

static void rates_and_modes(void **state)
{
	two_sides(true, false, true);
	cable(0, 0);
	pass(4);
	carries(1, 1);
	forget_said();
	pass(30);
	assert_in_range(a.said[0], 29, 31);
	assert_in_range(b.said[0], 29, 31);
	// Two that wait for the other to speak never meet.
	two_sides(false, false, true);
	cable(0, 0);
	pass(20);
	carries(0, 0);
	assert_int_equal(a.said[0] + b.said[0], 0);
}

static void link_goes(void **state)
{
	two_sides(true, true, true);
	for (unsigned i = 0; i < 3; i++)
		cable(i, i);
	pass(4);
	carries(7, 7);
	// Of a link that is seen to go down both learn at once.
	lacp_link(&a.l, 1, false, now);
	assert_int_equal(lacp_distributing(&a.l), 5);
	assert_int_equal(lacp_collecting(&a.l), 5);
	lacp_link(&b.l, 1, false, now);
	carries(5, 5);
	lacp_link(&a.l, 1, true, now);
	lacp_link(&b.l, 1, true, now);
	pass(4);
	carries(7, 7);
	// One that loses everything and stays up: after three seconds.
	lose = 1;
	pass(2);
	carries(7, 7);
	pass(2);
	assert_int_equal(lacp_distributing(&a.l), 0);
	assert_true(a.l.port[0].receive == LACP_RX_EXPIRED && a.l.port[0].expired == 1);
	assert_true(lacp_has_partner(&a.l));
	pass(3);
	assert_true(a.l.port[0].receive == LACP_RX_DEFAULTED && !lacp_has_partner(&a.l));
	lose = 0;
	pass(5);
	carries(7, 7);
}

static void one_way(void **state)
{
	two_sides(true, true, true);
	cable(0, 0);
	pass(4);
	carries(1, 1);
	// a hears nothing any more; b hears so from a and stops too.
	for (unsigned i = 0; i < 80; i++, now += SECOND / 10) {
		lacp_tick(&a.l, now);
		lacp_tick(&b.l, now);
		b.n = 0;
		deliver(&a);
	}
	carries(0, 0);
}

static void lossy(void **state)
{
	two_sides(true, true, true);
	lose = 3;
	srand(1);
	for (unsigned i = 0; i < 4; i++)
		cable(i, 3 - i);
	pass(30);
	unsigned up = 0;
	for (unsigned i = 0; i < 600; i++) {
		pass(0.5);
		up += lacp_distributing(&a.l) != 0;
	}
	assert_true(up > 590); // of four links, one with three losses in a row now and then
	lose = 0;
	pass(6);
	carries(15, 15);
}

static void partners(void **state)
{
	two_sides(true, true, true);
	for (unsigned i = 0; i < 3; i++)
		cable(i, i);
	pass(4);
	carries(7, 7);
	// The other side's key changes: agreed on anew.
	lacp_configure(&b.l, 32768, b.l.system, 9, true, true);
	pass(0.1);
	assert_int_equal(lacp_distributing(&a.l), 0);
	pass(4);
	carries(7, 7);
	assert_int_equal(a.l.port[0].partner.key, 9);
	// Our system too.
	lacp_configure(&a.l, 100, (uint8_t[]){2, 9, 9, 9, 9, 9}, 8, true, true);
	pass(4);
	carries(7, 7);
	assert_int_equal(b.l.port[0].partner.system_priority, 100);
}

// An LACPDU of a system of its own.
static void frame_of(uint8_t frame[LACP_FRAME], uint8_t system, uint16_t key, uint16_t port, uint8_t state, const struct lacp_info *of_us)
{
	static const uint8_t head[] = {1, 0x80, 0xc2, 0, 0, 2, 2, 0, 0, 0, 9, 9, 0x88, 0x09, 1, 1, 1, 20, 0x80, 0, 2, 0, 0, 0, 0};

	memset(frame, 0, LACP_FRAME);
	memcpy(frame, head, sizeof head);
	frame[25] = system;
	frame[27] = (uint8_t)key;
	frame[29] = 255;
	frame[31] = (uint8_t)port;
	frame[32] = state;
	frame[36] = 2;
	frame[37] = 20;
	frame[38] = (uint8_t)(of_us->system_priority >> 8);
	memcpy(frame + 40, of_us->system, 6);
	frame[47] = (uint8_t)of_us->key;
	frame[49] = (uint8_t)of_us->port_priority;
	frame[51] = (uint8_t)of_us->port;
	frame[52] = of_us->state;
}

// Ports of one bond at different partners: those of the largest group are used, and what is at work stays if there is no better.
static void several_partners(void **state)
{
	static const uint8_t up = LACP_ACTIVE | LACP_SHORT | LACP_AGGREGATION | LACP_SYNC | LACP_COLLECTING | LACP_DISTRIBUTING;
	static const struct {
		uint8_t system[4]; // of the partners of four ports; 0: none
		uint8_t key[4];
		uint8_t state[4];
		uint32_t used;
	} rows[] = {
		{{9, 0, 0, 0}, {1, 0, 0, 0}, {up, 0, 0, 0}, 1},
		{{9, 8, 0, 0}, {1, 1, 0, 0}, {up, up, 0, 0}, 1}, // 8 is the better system, but 9 is at work
		{{9, 8, 8, 0}, {1, 1, 1, 0}, {up, up, up, 0}, 6},
		{{9, 8, 8, 9}, {1, 1, 1, 1}, {up, up, up, up}, 6},
		{{8, 8, 8, 8}, {1, 1, 2, 2}, {up, up, up, up}, 12}, // keys tell aggregations apart; what has no partner of its own yet is first
		{{8, 8, 8, 8}, {1, 2, 2, 2}, {up, up, up, up & ~LACP_AGGREGATION}, 6},
		{{8, 8, 8, 1}, {1, 2, 2, 7}, {up, up, up, up}, 6}, // the last one is we ourselves
	};
	uint8_t frame[LACP_FRAME];

	two_sides(true, true, true);
	for (unsigned i = 0; i < 4; i++)
		cable(i, i);
	for (unsigned r = 0; r < sizeof rows / sizeof rows[0]; r++) {
		for (unsigned t = 0; t < 100; t++, now += SECOND / 10) {
			for (unsigned i = 0; i < 4; i++) {
				if (!rows[r].system[i])
					continue;
				frame_of(frame, rows[r].system[i], rows[r].key[i], (uint16_t)i, rows[r].state[i], &a.l.port[i].actor);
				assert_int_equal(lacp_receive(&a.l, i, frame, sizeof frame, now), 0);
			}
			lacp_tick(&a.l, now);
			a.n = 0;
		}
		if (r == 4) // which of the two stays is a matter of what was at work before
			assert_true(lacp_distributing(&a.l) == 3 || lacp_distributing(&a.l) == 12);
		else
			assert_int_equal(lacp_distributing(&a.l), rows[r].used);
	}
}

static void limits(void **state)
{
	uint8_t frame[LACP_FRAME];

	two_sides(true, true, true);
	cable(0, 0);
	pass(4);
	forget_said();
	// One who never has a right picture of us is told three times a second, and no more.
	for (unsigned i = 0; i < 1000; i++, now += SECOND / 100) {
		frame_of(frame, 2, 7, (uint16_t)(i & 1), LACP_ACTIVE, &a.l.port[0].partner);
		lacp_receive(&a.l, 0, frame, sizeof frame, now);
		a.n = 0;
	}
	assert_in_range(a.said[0], 10, 33);
}

static void markers(void **state)
{
	uint8_t frame[LACP_FRAME] = {1, 0x80, 0xc2, 0, 0, 2, 2, 0, 0, 0, 9, 9, 0x88, 0x09, 2, 1, 1, 16, 0, 101, 2, 0, 0, 0, 0, 2, 1, 2, 3, 4};

	two_sides(true, true, true);
	cable(0, 0);
	pass(4);
	lacp_tick(&a.l, now); // nothing else is to be said now
	a.n = 0;
	assert_int_equal(lacp_receive(&a.l, 0, frame, sizeof frame, now), 0);
	assert_int_equal(a.n, 1);
	assert_int_equal(a.pipe[0].bytes[16], 2);
	assert_memory_equal(a.pipe[0].bytes + 17, frame + 17, 15);
	assert_memory_equal(a.pipe[0].bytes + 6, a.l.port[0].mac, 6);
	for (unsigned i = 0; i < 20; i++)
		lacp_receive(&a.l, 0, frame, sizeof frame, now);
	assert_int_equal(a.l.port[0].markers, 5);
	assert_int_equal(a.l.port[0].markers_ignored, 16);
	a.n = 0;
	frame[16] = 2; // a response
	assert_int_equal(lacp_receive(&a.l, 0, frame, sizeof frame, now), 0);
	frame[16] = 3;
	assert_true(lacp_receive(&a.l, 0, frame, sizeof frame, now) < 0);
	frame[16] = 1;
	frame[17] = 15;
	assert_true(lacp_receive(&a.l, 0, frame, sizeof frame, now) < 0);
	assert_true(lacp_receive(&a.l, 0, frame, 20, now) < 0);
	assert_int_equal(a.n, 0);
}

static void rubbish(void **state)
{
	uint8_t right[LACP_FRAME];

	two_sides(true, true, true);
	cable(0, 0);
	cable(1, 1);
	pass(4);
	carries(3, 3);
	frame_of(right, 2, 7, 101, 0x3f, &a.l.port[0].actor);
	for (uint32_t len = 0; len < 56; len++) { // cut
		uint8_t *exact = malloc(len ? len : 1);

		memcpy(exact, right, len);
		assert_true(lacp_receive(&a.l, 0, exact, len, now) < 0);
		free(exact);
	}
	static const uint8_t matters[] = {12, 13, 14, 16, 17, 36, 37};
	for (unsigned i = 0; i < sizeof matters; i++) {
		uint8_t bad[LACP_FRAME];

		memcpy(bad, right, sizeof bad);
		bad[matters[i]] ^= 0x40;
		assert_true(lacp_receive(&a.l, 0, bad, sizeof bad, now) < 0);
	}
	right[15] = 0;
	assert_true(lacp_receive(&a.l, 0, right, sizeof right, now) < 0);
	right[15] = 9; // a later version is read as far as we know it
	assert_int_equal(lacp_receive(&a.l, 0, right, sizeof right, now), 0);
	right[20] |= 1; // a group for a system
	assert_true(lacp_receive(&a.l, 0, right, sizeof right, now) < 0);
	assert_int_equal(a.l.port[0].bad, 56 + sizeof matters + 2);
	carries(3, 3);
	// Anything at all: nothing breaks, and the links come back when it is over.
	srand(2);
	for (unsigned i = 0; i < 200000; i++) {
		uint8_t any[LACP_FRAME];
		uint32_t len = (uint32_t)rand() % (LACP_FRAME + 1);

		for (unsigned k = 0; k < sizeof any; k++)
			any[k] = (uint8_t)rand();
		if (i & 1) {
			memcpy(any, right, 18);
			any[14] = (uint8_t)(1 + (i >> 1 & 1));
			any[15] = 1;
			any[36] = 2;
			any[37] = 20;
		}
		lacp_receive(&a.l, (unsigned)rand() % LACP_PORTS, any, len, now);
		now += SECOND / 1000;
		a.n = b.n = 0;
	}
	pass(8);
	carries(3, 3);
}

static void names(void **state)
{
	char text[96];

	assert_string_equal(lacp_state_text(0x3d, text), "active,aggregation,sync,collecting,distributing");
	assert_string_equal(lacp_state_text(0, text), "");
	assert_int_equal(strlen(lacp_state_text(ALL, text)), strlen("active,short,aggregation,sync,collecting,distributing,defaulted,expired"));
	assert_string_equal(lacp_mux_name(LACP_MUX_DISTRIBUTING), "distributing");
	assert_string_equal(lacp_receive_name(LACP_RX_CURRENT), "current");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(comes_up), cmocka_unit_test(rates_and_modes), cmocka_unit_test(link_goes), cmocka_unit_test(one_way), cmocka_unit_test(lossy),
		cmocka_unit_test(partners), cmocka_unit_test(several_partners), cmocka_unit_test(limits), cmocka_unit_test(markers), cmocka_unit_test(rubbish),
		cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
