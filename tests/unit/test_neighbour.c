// neighbour: the state machine of RFC 4861 event by event, packets that wait, limits, what is believed and what is answered.
#include "lab.h"
#include "adjacency.h"
#include "fdb.h"
#include "neighbour_private.h"
#include "neighbour_wire.h"
#include "notice.h"
#include "punt.h"
#include "station_table.h"
#include "station_talk.h"

#include <stdio.h>
#include <arpa/inet.h>
#include <pthread.h>
#include <time.h>
#include <jansson.h>

#define MAC_BLUE "02:00:00:00:10:01"
#define MAC_RED "02:00:00:00:20:01"
#define FROM_A "dl_src=02:00:00:00:00:0a,dl_dst=" MAC_BLUE
#define TO_RED(ip) FROM_A ",udp,nw_src=10.1.0.10,nw_dst=" ip

static const uint8_t mac_b[6] = {2, 0, 0, 0, 0, 0x0b}, mac_c[6] = {2, 0, 0, 0, 0, 0x0c}, mac_red[6] = {2, 0, 0, 0, 0x20, 1};
static struct config_network *blue, *red;
static struct config_port *a, *a2, *b, *c;
static struct config_router *r1;
static struct config_router_port *on_red;

// a (10.1.0.10), a2 - blue - r1 - red - b, c
static int setup(void **state)
{
	lab_setup();
	blue = lab_network("blue", 10);
	red = lab_network("red", 20);
	a = lab_port("a", VLAN_ACCESS, blue);
	lab_address(a, "02:00:00:00:00:0a");
	lab_ip(a, "10.1.0.10");
	a2 = lab_port("a2", VLAN_ACCESS, blue);
	b = lab_port("b", VLAN_ACCESS, red);
	c = lab_port("c", VLAN_ACCESS, red);
	r1 = lab_router("r1");
	lab_router_port("r1-blue", r1, blue, MAC_BLUE, "10.1.0.1/24", "fd01::1/64", "fe80::1/64", NULL);
	on_red = lab_router_port("r1-red", r1, red, MAC_RED, "10.2.0.1/16", "fd02::1/64", "fe80::2/64", NULL);
	lab_apply();
	lab_pass_ms(10000);
	lab_forget_sent();
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

static struct config_ip ip_of(const char *text)
{
	struct config_ip ip = {.v6 = strchr(text, ':') != NULL};

	assert_int_equal(inet_pton(ip.v6 ? AF_INET6 : AF_INET, text, ip.b), 1);
	return ip;
}

static enum neighbour_state state_of(const struct config_ip *ip)
{
	const struct neighbour_entry *e = neighbour_get(on_red->id, ip);

	return e ? e->state : NEIGHBOUR_NONE;
}

static void say(const struct config_ip *ip, const uint8_t *mac, unsigned what)
{
	neighbour_seen(red->id, ip, mac, what, lab.w.now);
	lab_flush();
}

#define ANSWER (NEIGHBOUR_SOLICITED | NEIGHBOUR_OVERRIDE)

// ---- the state machine

static void use(const struct config_ip *ip)
{
	uint8_t mac[6];
	uint16_t adj;

	assert_int_equal(neighbour_find(NULL, on_red->id, ip->v6, ip->b, mac, &adj), 1);
	neighbour_used(adj, lab.w.now_ms / 1000);
}

static void tick(void)
{
	neighbour_tick(lab.w.now);
	lab_flush();
}

// Brings the neighbour into a state, with mac_b where it has one.
static void bring(const struct config_ip *ip, enum neighbour_state to)
{
	if (to == NEIGHBOUR_NONE)
		return;
	neighbour_want(on_red->id, ip);
	assert_int_equal(state_of(ip), NEIGHBOUR_INCOMPLETE);
	if (to == NEIGHBOUR_FAILED)
		lab_pass_ms(NEIGHBOUR_RETRANS_MS * NEIGHBOUR_MULTICAST_SOLICIT + 100);
	else if (to == NEIGHBOUR_REACHABLE)
		say(ip, mac_b, ANSWER);
	else if (to != NEIGHBOUR_INCOMPLETE)
		say(ip, mac_b, NEIGHBOUR_ASKED);
	if (to == NEIGHBOUR_DELAY || to == NEIGHBOUR_PROBE) {
		use(ip);
		tick();
	}
	if (to == NEIGHBOUR_PROBE)
		lab_pass_ms(NEIGHBOUR_DELAY_MS + 100);
	lab_flush();
	assert_int_equal(state_of(ip), to);
}

enum what {
	SAYS,     // with `flags` and `mac`
	TIMEOUT,  // its timer ends, once
	TIMEOUTS, // as often as it takes
	SEND,     // a packet uses it
};

#define SO ANSWER
#define S NEIGHBOUR_SOLICITED
#define O NEIGHBOUR_OVERRIDE
#define NS NEIGHBOUR_ASKED
enum mac {
	NO_MAC,
	SAME,
	OTHER
};
#define IN NEIGHBOUR_INCOMPLETE
#define RE NEIGHBOUR_REACHABLE
#define ST NEIGHBOUR_STALE
#define DE NEIGHBOUR_DELAY
#define PR NEIGHBOUR_PROBE
#define FA NEIGHBOUR_FAILED
#define NO NEIGHBOUR_NONE

// RFC 4861 appendix C. INCOMPLETE and FAILED have no address yet, so that any is another one.
static const struct row {
	enum neighbour_state from;
	enum what what;
	unsigned flags;
	enum mac mac;
	enum neighbour_state to;
	bool changes;       // its address is the other one afterwards
	unsigned questions; // that are asked, at most
} table[] = {
	{NO, SEND, 0, 0, IN, false, 1},
	{IN, TIMEOUT, 0, 0, IN, false, 1},
	{IN, TIMEOUTS, 0, 0, FA, false, 2},
	{IN, SAYS, SO, OTHER, RE, true, 0},
	{IN, SAYS, S, OTHER, RE, true, 0},
	{IN, SAYS, 0, OTHER, ST, true, 0},
	{IN, SAYS, O, OTHER, ST, true, 0},
	{IN, SAYS, SO, NO_MAC, IN, false, 0},
	{IN, SAYS, NS, OTHER, ST, true, 0},
	// An NA, solicited, without override.
	{RE, SAYS, S, SAME, RE, false, 0},
	{RE, SAYS, S, NO_MAC, RE, false, 0},
	{RE, SAYS, S, OTHER, ST, false, 0},
	{ST, SAYS, S, SAME, RE, false, 0},
	{ST, SAYS, S, NO_MAC, RE, false, 0},
	{ST, SAYS, S, OTHER, ST, false, 0},
	{DE, SAYS, S, SAME, RE, false, 0},
	{DE, SAYS, S, OTHER, DE, false, 0},
	{PR, SAYS, S, SAME, RE, false, 0},
	{PR, SAYS, S, NO_MAC, RE, false, 0},
	{PR, SAYS, S, OTHER, PR, false, 0},
	// Solicited, with override.
	{RE, SAYS, SO, SAME, RE, false, 0},
	{RE, SAYS, SO, OTHER, RE, true, 0},
	{ST, SAYS, SO, SAME, RE, false, 0},
	{ST, SAYS, SO, OTHER, RE, true, 0},
	{DE, SAYS, SO, OTHER, RE, true, 0},
	{PR, SAYS, SO, SAME, RE, false, 0},
	{PR, SAYS, SO, OTHER, RE, true, 0},
	// Unsolicited, without override.
	{RE, SAYS, 0, SAME, RE, false, 0},
	{ST, SAYS, 0, SAME, ST, false, 0},
	{DE, SAYS, 0, SAME, DE, false, 0},
	{PR, SAYS, 0, SAME, PR, false, 0},
	{RE, SAYS, 0, OTHER, ST, false, 0},
	{ST, SAYS, 0, OTHER, ST, false, 0},
	{DE, SAYS, 0, OTHER, DE, false, 0},
	{PR, SAYS, 0, OTHER, PR, false, 0},
	// Unsolicited, with override.
	{RE, SAYS, O, SAME, RE, false, 0},
	{ST, SAYS, O, SAME, ST, false, 0},
	{DE, SAYS, O, SAME, DE, false, 0},
	{PR, SAYS, O, SAME, PR, false, 0},
	{RE, SAYS, O, OTHER, ST, true, 0},
	{ST, SAYS, O, OTHER, ST, true, 0},
	{DE, SAYS, O, OTHER, ST, true, 0},
	{PR, SAYS, O, OTHER, ST, true, 0},
	// Timers, and packets.
	{RE, TIMEOUTS, 0, 0, ST, false, 0},
	{ST, SEND, 0, 0, DE, false, 0},
	{DE, TIMEOUT, 0, 0, PR, false, 1},
	{PR, TIMEOUT, 0, 0, PR, false, 1},
	{PR, TIMEOUTS, 0, 0, IN, false, 3},
	// Nothing that is said makes an entry, but a question for us.
	{NO, SAYS, SO, OTHER, NO, false, 0},
	{NO, SAYS, O, OTHER, NO, false, 0},
	{NO, SAYS, 0, OTHER, NO, false, 0},
	{NO, SAYS, NS, OTHER, ST, true, 0},
	{RE, SAYS, NS, OTHER, ST, true, 0},
	{RE, SAYS, NS, SAME, RE, false, 0},
	{ST, SAYS, NS, OTHER, ST, true, 0},
	{ST, SAYS, NS, SAME, ST, false, 0},
	{DE, SAYS, NS, OTHER, ST, true, 0},
	{DE, SAYS, NS, SAME, DE, false, 0},
	{PR, SAYS, NS, OTHER, ST, true, 0},
	{PR, SAYS, NS, SAME, PR, false, 0},
	// One that didn't answer is there as soon as it speaks.
	{FA, SAYS, SO, OTHER, RE, true, 0},
	{FA, SAYS, O, OTHER, ST, true, 0},
	{FA, SAYS, NS, OTHER, ST, true, 0},
	{FA, SAYS, SO, NO_MAC, FA, false, 0},
	{FA, TIMEOUTS, 0, 0, NO, false, 0},
};
#undef S
#undef O

// Questions to b, of those that were sent since the list was emptied.
static unsigned questions(bool v6)
{
	unsigned n = 0;

	for (unsigned i = 0; i < lab.n_sent; i++) {
		const uint8_t *d = lab.sent[i].bytes;

		n += lab.sent[i].port == b->id && (v6 ? d[12] == 0x86 && d[54] == 135 : d[12] == 8 && d[13] == 6 && d[21] == 1);
	}
	return n;
}

static void one_row(const struct row *r, const struct config_ip *ip)
{
	uint8_t mac[6] = {0};
	uint16_t adj;

	bring(ip, r->from);
	lab_forget_sent();
	switch (r->what) {
	case SAYS:
		say(ip, r->mac == NO_MAC ? NULL : r->mac == SAME ? mac_b : mac_c, r->flags);
		break;
	case TIMEOUT:
		lab_pass_ms(r->from == DE ? NEIGHBOUR_DELAY_MS + 100 : NEIGHBOUR_RETRANS_MS + 100);
		break;
	case TIMEOUTS:
		for (unsigned i = 0; i < 500 && state_of(ip) == r->from; i++)
			lab_pass_ms(100);
		break;
	case SEND:
		if (r->from == NO)
			neighbour_want(on_red->id, ip);
		else
			use(ip);
		tick();
	}
	if (state_of(ip) != r->to || questions(ip->v6) != r->questions)
		fail_msg("row %u: state %s, not %s, %u questions, not %u", (unsigned)(r - table),
			 neighbour_state_name(state_of(ip)), neighbour_state_name(r->to), questions(ip->v6), r->questions);
	int found = neighbour_find(NULL, on_red->id, ip->v6, ip->b, mac, &adj);
	assert_int_equal(found, r->to == FA ? -1 : r->to == NO || r->to == IN ? 0 : 1);
	if (found > 0) {
		assert_memory_equal(mac, r->changes ? mac_c : mac_b, 6);
		assert_memory_equal(adjacency_get(adj)->src, mac_red, 6);
		assert_int_equal(adjacency_get(adj)->network, red->id);
	}
	neighbour_flush(0);
	rcu_poll();
	assert_int_equal(adjacency_count(), 1); // the static one
}

static void appendix_c(void **state)
{
	struct config_ip v4 = ip_of("10.2.0.20"), v6 = ip_of("fd02::20");

	lab.traced = false;
	for (unsigned i = 0; i < RTE_DIM(table); i++) {
		one_row(&table[i], &v4);
		one_row(&table[i], &v6);
	}
}

// REACHABLE lasts between half and one and a half of its time, another one each time.
static void reachable_time_varies(void **state)
{
	unsigned least = UINT32_MAX, most = 0;

	lab.traced = lab.keep = false;
	for (unsigned i = 0; i < 40; i++) {
		struct config_ip ip = ip_of("10.2.1.0");
		unsigned ms = 0;

		ip.b[3] = (uint8_t)i;
		bring(&ip, NEIGHBOUR_REACHABLE);
		for (; state_of(&ip) == NEIGHBOUR_REACHABLE; ms += 500)
			lab_pass_ms(500);
		least = ms < least ? ms : least;
		most = ms > most ? ms : most;
	}
	assert_true(least >= NEIGHBOUR_REACHABLE_MS / 2 && most <= NEIGHBOUR_REACHABLE_MS * 3 / 2 + 1000);
	assert_true(most - least > NEIGHBOUR_REACHABLE_MS / 4);
}

// ---- packets

static const uint8_t *first_to(uint16_t port)
{
	const struct lab_sent *s = lab_sent_to(port);

	assert_non_null(s);
	return s->bytes;
}

#define REPLY_B                                                                                                                \
	"dl_src=02:00:00:00:00:0b,dl_dst=" MAC_RED                                                                             \
	",arp,arp_op=2,arp_sha=02:00:00:00:00:0b,arp_spa=10.2.0.20,arp_tha=" MAC_RED ",arp_tpa=10.2.0.1"

static void resolves_ipv4(void **state)
{
	static const uint8_t asks[60] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0,  0, 0, 0x20, 1, 8, 6, 0, 1, 8, 0,  6, 4, 0,
					 1,    2,    0,    0,    0,    0x20, 1, 10, 2, 0, 1,    0, 0, 0, 0, 0, 0, 10, 2, 0, 20};

	lab.traced = false;
	lab_send(a->id, TO_RED("10.2.0.20"));
	lab_send(a->id, TO_RED("10.2.0.20") ",tp_src=5");
	assert_int_equal(lab_count(a->id, COUNT_QUEUED), 2);
	lab_forget_sent();
	lab_pass_ms(1100); // it is asked once more
	assert_memory_equal(first_to(b->id), asks, sizeof asks);
	assert_non_null(lab_sent_to(c->id));
	lab.traced = true;
	lab_send(b->id, REPLY_B);
	lab_expect_trace("neighbour  tells a router of 10.2.0.20\n");
	assert_int_equal(lab_count(b->id, COUNT_CONSUMED), 1);
	assert_int_equal(lab.n_sent, 2); // both go on, in order
	assert_int_equal(lab.sent[0].port, b->id);
	assert_memory_equal(lab.sent[0].bytes, mac_b, 6);
	assert_memory_equal(lab.sent[0].bytes + 6, mac_red, 6);
	assert_int_equal(lab.sent[1].bytes[34] << 8 | lab.sent[1].bytes[35], 5);
	assert_int_equal(lab_count(a->id, COUNT_QUEUED), 0);
	struct config_ip ip = ip_of("10.2.0.20");
	assert_int_equal(state_of(&ip), NEIGHBOUR_REACHABLE);
}

// A neighbour advertisement of b's.
static uint32_t na(uint8_t *f, const char *target, const uint8_t mac[6], const char *to, uint8_t flags)
{
	struct config_ip t = ip_of(target), d = ip_of(to);
	uint8_t all[6] = {0x33, 0x33, 0, 0, 0, 1};
	uint16_t len = neighbour_announce(f, mac, mac, &t, false, d.b[0] == 0xff ? all : mac_red, &d);
	uint32_t sum = 0;

	f[58] = flags;
	f[56] = f[57] = 0;
	for (unsigned i = 22; i < len; i += 2)
		sum += (uint32_t)(f[i] << 8 | f[i + 1]);
	sum += 58 + 32;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	f[56] = (uint8_t)(~sum >> 8);
	f[57] = (uint8_t)~sum;
	return len;
}

static void resolves_ipv6(void **state)
{
	uint8_t f[NEIGHBOUR_FRAME];

	lab.traced = false;
	lab_send(a->id, FROM_A ",udp6,ipv6_src=fd01::10,ipv6_dst=fd02::20");
	const uint8_t *d = first_to(b->id);
	assert_memory_equal(d, "\x33\x33\xff\x00\x00\x20", 6); // the solicited-node group of fd02::20
	assert_int_equal(d[21], 255);
	assert_memory_equal(d + 22, ip_of("fd02::1").b, 16);
	assert_memory_equal(d + 38, ip_of("ff02::1:ff00:20").b, 16);
	assert_int_equal(d[54], 135);
	assert_memory_equal(d + 62, ip_of("fd02::20").b, 16);
	assert_memory_equal(d + 78, "\x01\x01\x02\x00\x00\x00\x20\x01", 8);
	uint32_t len = na(f, "fd02::20", mac_b, "fd02::1", 0x60);
	lab.traced = true;
	lab_send_frame(b->id, f, len);
	lab_expect_trace("neighbour  tells a router of fd02::20\n");
	assert_int_equal(lab.n_sent, 1);
	assert_memory_equal(lab.sent[0].bytes, mac_b, 6);
	// A link-local neighbour is asked by the link-local address.
	struct config_ip ll = ip_of("fe80::20");
	lab_forget_sent();
	neighbour_want(on_red->id, &ll);
	lab_flush();
	assert_memory_equal(first_to(b->id) + 22, ip_of("fe80::2").b, 16);
	// With a wrong checksum, or from beyond the link, it is nothing (RFC 4861 7.1.2).
	len = na(f, "fe80::20", mac_b, "fd02::1", 0x60);
	f[57] ^= 1;
	lab_send_frame(b->id, f, len);
	len = na(f, "fe80::20", mac_b, "fd02::1", 0x60);
	f[21] = 254;
	lab_send_frame(b->id, f, len);
	assert_int_equal(state_of(&ll), NEIGHBOUR_INCOMPLETE);
}

static void nobody_answers(void **state)
{
	struct config_ip ip = ip_of("10.2.0.20");
	unsigned asked = 0, errors = 0;

	lab_send(a->id, TO_RED("10.2.0.20"));
	asked += questions(false);
	for (unsigned i = 0; i < 40; i++) {
		lab_forget_sent();
		lab_pass_ms(100);
		asked += questions(false);
		errors += lab_sent_to(a->id) != NULL;
	}
	assert_int_equal(asked, NEIGHBOUR_MULTICAST_SOLICIT);
	assert_int_equal(errors, 1);
	assert_int_equal(lab_drops(a->id, "router.NO_NEIGHBOUR"), 1);
	assert_int_equal(state_of(&ip), NEIGHBOUR_FAILED);
	lab_send(a->id, TO_RED("10.2.0.20"));
	lab_expect_trace("the next hop doesn't answer: host unreachable");
	assert_int_equal(lab_drops(a->id, "router.NO_NEIGHBOUR"), 2);
	lab_pass_ms(3000);
	assert_int_equal(state_of(&ip), NEIGHBOUR_NONE);
	lab_send(a->id, TO_RED("10.2.0.20")); // and is asked for anew
	assert_int_equal(state_of(&ip), NEIGHBOUR_INCOMPLETE);
}

static uint64_t resolved(void)
{
	return lab_count(a->id, COUNT_RESOLVED);
}

// A flow's packets keep its neighbour probed, and its answers keep the flow as it is.
static void flows_in_use_are_probed(void **state)
{
	struct config_ip ip = ip_of("10.2.0.20");
	unsigned probes = 0;

	lab.traced = false;
	bring(&ip, NEIGHBOUR_REACHABLE);
	lab_send(b->id, REPLY_B); // its MAC is known
	lab_send(a->id, TO_RED("10.2.0.20"));
	uint64_t before = resolved();
	for (unsigned i = 0; i < 1200; i++) {
		lab_send(a->id, TO_RED("10.2.0.20"));
		lab_forget_sent();
		lab_pass_ms(100);
		const struct lab_sent *s = lab_sent_to(b->id);
		if (s && s->bytes[13] == 6) { // to it alone
			assert_memory_equal(s->bytes, mac_b, 6);
			probes++;
			lab_send(b->id, REPLY_B);
		}
	}
	assert_true(probes >= 2 && probes <= 8);
	assert_int_equal(resolved(), before);
	// Without packets there are no probes.
	probes = 0;
	for (unsigned i = 0; i < 1200; i++) {
		lab_forget_sent();
		lab_pass_ms(100);
		probes += questions(false);
	}
	assert_true(probes <= 1);
	assert_int_equal(state_of(&ip), NEIGHBOUR_STALE);
}

// It moves to another MAC, or dies: its flows hear of it, those of others don't.
static void only_its_own_flows_change(void **state)
{
	struct config_ip one = ip_of("10.2.0.20"), two = ip_of("10.2.0.21");

	lab.traced = false;
	bring(&one, NEIGHBOUR_REACHABLE);
	bring(&two, NEIGHBOUR_REACHABLE);
	lab_send(a->id, TO_RED("10.2.0.20"));
	lab_send(a->id, TO_RED("10.2.0.21"));
	uint64_t before = resolved();
	say(&one, mac_c, NEIGHBOUR_OVERRIDE);
	lab_send(a->id, TO_RED("10.2.0.21"));
	assert_int_equal(resolved(), before);
	lab_send(a->id, TO_RED("10.2.0.20"));
	assert_int_equal(resolved(), before + 1);
	assert_memory_equal(lab.sent[0].bytes, mac_c, 6);
	// It stops answering while it is in use: it is asked for as if it was new, and known to be in doubt.
	for (unsigned i = 0; i < 150 && !neighbour_is_dead(on_red->id, false, one.b); i++) {
		lab_send(a->id, TO_RED("10.2.0.20"));
		lab_pass_ms(100);
	}
	assert_true(neighbour_is_dead(on_red->id, false, one.b));
	assert_int_equal(state_of(&one), NEIGHBOUR_INCOMPLETE);
	assert_false(neighbour_is_dead(on_red->id, false, two.b));
}

static void static_ones(void **state)
{
	struct config_ip ip = ip_of("10.2.0.30");
	uint8_t mac[6];
	uint16_t adj;

	lab_address(c, "02:00:00:00:00:0c");
	lab_ip(c, "10.2.0.30");
	lab_apply();
	assert_int_equal(state_of(&ip), NEIGHBOUR_STATIC);
	say(&ip, mac_b, ANSWER);
	say(&ip, mac_b, NEIGHBOUR_ASKED);
	assert_int_equal(neighbour_find(NULL, on_red->id, false, ip.b, mac, &adj), 1);
	assert_memory_equal(mac, mac_c, 6);
	lab_pass_ms(60000);
	neighbour_flush(0);
	assert_int_equal(state_of(&ip), NEIGHBOUR_STATIC);
	lab_send(a->id, TO_RED("10.2.0.30"));
	assert_memory_equal(first_to(c->id), mac_c, 6);
	c->n_addresses = 0;
	free(c->addresses[0].ip);
	lab_apply();
	assert_int_equal(state_of(&ip), NEIGHBOUR_NONE);
}

// ---- limits

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void send_to(unsigned host)
{
	char text[160];

	snprintf(text, sizeof text, TO_RED("10.2.%u.%u"), host >> 8, host & 255);
	lab_send(a->id, text);
}

static void waiting_packets_are_bounded(void **state)
{
	lab.traced = lab.keep = false;
	for (unsigned i = 0; i < NEIGHBOUR_WAITING_MAX + 1; i++)
		send_to(20);
	assert_int_equal(lab_drops(a->id, "neighbour.WAITING_FULL"), 1);
	assert_int_equal(lab_count(a->id, COUNT_QUEUED), NEIGHBOUR_WAITING_MAX);
	for (unsigned i = NEIGHBOUR_WAITING_MAX; i < NEIGHBOUR_WAITING_PORT_MAX + 3; i++)
		send_to(21 + i / 4);
	assert_int_equal(lab_drops(a->id, "neighbour.PORT_FULL"), 3);
	assert_int_equal(lab_count(a->id, COUNT_QUEUED), NEIGHBOUR_WAITING_PORT_MAX);
	assert_true(neighbour_flush(0) > 0);
	lab_flush();
	assert_int_equal(lab_drops(a->id, "neighbour.FLUSHED"), NEIGHBOUR_WAITING_PORT_MAX);
	assert_int_equal(lab_count(a->id, COUNT_QUEUED), 0);
}

// Somebody sweeps a /16: what is known stays, what is asked for is bounded, and who is asked for first gives way.
static void sweep(void **state)
{
	struct config_ip known = ip_of("10.2.0.20");

	lab.traced = lab.keep = false;
	bring(&known, NEIGHBOUR_REACHABLE);
	for (unsigned i = 256; i < 65536; i++) {
		send_to(i);
		if (i % 64 == 0)
			lab_pass_ms(100); // 640 a second
		const struct own_port *p = neighbour_own(on_red->id);
		assert_true(p->count[CLASS_OF_INCOMPLETE] <= NEIGHBOUR_INCOMPLETE_MAX);
		if (i % 4096 == 0) {
			say(&known, mac_b, ANSWER);
			send_to(20);
		}
	}
	assert_int_equal(state_of(&known), NEIGHBOUR_REACHABLE);
	assert_true(neighbour_count() < 4096);
	assert_true(lab_drops(a->id, "neighbour.GIVEN_UP") > 1000);
	assert_true(lab_drops(a->id, "neighbour.RATE") == 0);
	for (unsigned i = 0; i < 2 * NEIGHBOUR_ASK_RATE; i++) // all at once
		send_to(1000 + i);
	assert_true(lab_drops(a->id, "neighbour.RATE") > 0);
	lab_pass_ms(10000);
	assert_int_equal(neighbour_count(), 2);
}

// As many as there may be of one router port, all reachable: there is no room for another, and none goes.
static void full_table(void **state)
{
	double start = seconds(), worst = 0;

	lab.traced = lab.keep = false;
	for (unsigned i = 0; i < NEIGHBOUR_PORT_MAX; i++) {
		struct config_ip ip = {.b = {10, 2, (uint8_t)(i >> 8), (uint8_t)i}};

		neighbour_want(on_red->id, &ip);
		say(&ip, mac_b, ANSWER);
		rcu_poll();
	}
	assert_int_equal(neighbour_own(on_red->id)->n, NEIGHBOUR_PORT_MAX);
	print_message("%u neighbours, asked for and answered: %.2f us each\n", NEIGHBOUR_PORT_MAX, (seconds() - start) * 1e6 / NEIGHBOUR_PORT_MAX);
	send_to(65000);
	assert_int_equal(lab_drops(a->id, "neighbour.TABLE_FULL"), 1);
	// Once they are stale the oldest makes room.
	for (unsigned ms = 0; ms < NEIGHBOUR_REACHABLE_MS * 3 / 2 + 1000; ms += 100) {
		lab_advance_ms(100);
		start = seconds();
		neighbour_tick(lab.w.now);
		worst = seconds() - start > worst ? seconds() - start : worst;
	}
	print_message("a tick of them: %.0f us at most\n", worst * 1e6);
	assert_int_equal(neighbour_own(on_red->id)->count[CLASS_OF_STALE], NEIGHBOUR_PORT_MAX);
	send_to(65000);
	struct config_ip ip = ip_of("10.2.253.232");
	assert_int_equal(state_of(&ip), NEIGHBOUR_INCOMPLETE);
	assert_int_equal(neighbour_own(on_red->id)->n, NEIGHBOUR_PORT_MAX);
}

// Questions to us under false names: nobody goes for them who is in use.
static void false_names(void **state)
{
	struct config_ip known = ip_of("10.2.0.20");

	lab.traced = lab.keep = false;
	bring(&known, NEIGHBOUR_REACHABLE);
	for (unsigned i = 0; i < 3 * NEIGHBOUR_PORT_MAX; i++) {
		struct config_ip ip = {.b = {10, 3, (uint8_t)(i >> 8), (uint8_t)i}};

		say(&ip, mac_c, NEIGHBOUR_ASKED);
		rcu_poll();
	}
	assert_int_equal(state_of(&known), NEIGHBOUR_REACHABLE);
	assert_true(neighbour_own(on_red->id)->n <= NEIGHBOUR_PORT_MAX);
}

// ---- answers

#define ASK_RED "dl_src=02:00:00:00:00:0b,arp,arp_op=1,arp_sha=02:00:00:00:00:0b,arp_spa=10.2.0.20,arp_tpa="

static void answers_for_the_router(void **state)
{
	uint8_t f[NEIGHBOUR_FRAME];
	struct config_ip own = ip_of("fd02::1"), from = ip_of("fd02::20");

	lab_send(b->id, ASK_RED "10.2.0.1");
	lab_expect_trace("neighbour  10.2.0.1 is a router's: answered, " MAC_RED "\n");
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab.sent[0].port, b->id);
	assert_memory_equal(lab.sent[0].bytes,
			    "\x02\x00\x00\x00\x00\x0b\x02\x00\x00\x00\x20\x01\x08\x06\x00\x01\x08\x00\x06\x04\x00\x02\x02\x00"
			    "\x00\x00\x20\x01\x0a\x02\x00\x01",
			    32);
	assert_int_equal(lab_count(b->id, COUNT_CONSUMED), 1);
	assert_int_equal(lab_count(b->id, COUNT_GENERATED), 1);
	lab_pass_ms(100);
	struct config_ip who = ip_of("10.2.0.20");
	assert_int_equal(state_of(&who), NEIGHBOUR_STALE); // who asks is there
	// An NS; then one of duplicate address detection.
	uint16_t len = neighbour_ask(f, mac_b, &from, &own, NULL);
	lab_send_frame(b->id, f, len);
	lab_expect_trace("neighbour  fd02::1 is a router's: answered, " MAC_RED "\n");
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab.sent[0].bytes[54], 136);
	assert_int_equal(lab.sent[0].bytes[58] & 0xe0, 0xe0); // router, solicited, override
	lab_pass_ms(100);
	assert_int_equal(state_of(&from), NEIGHBOUR_STALE);
	len = neighbour_ask(f, mac_b, NULL, &own, NULL);
	lab_send_frame(b->id, f, len);
	assert_int_equal(lab.n_sent, 1);
	assert_memory_equal(lab.sent[0].bytes + 38, ip_of("ff02::1").b, 16);
	// Others are asked as ever.
	lab_send(b->id, ASK_RED "10.2.0.21");
	lab_reject_trace("  neighbour  ");
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab.sent[0].port, c->id);
	// To a router's MAC, but for nobody.
	lab_expect_drop(b->id,
			"dl_src=02:00:00:00:00:0b,dl_dst=" MAC_RED
			",arp,arp_op=1,arp_sha=02:00:00:00:00:0b,arp_spa=10.2.0.20,arp_tpa=10.9.9.9",
			"router.NOT_IP");
}

#define ASK_BLUE "arp,arp_op=1,dl_src=02:00:00:00:00:0c,arp_sha=02:00:00:00:00:0c,arp_spa=10.1.0.12,arp_tpa="

// Stations that are known are answered for, and nothing is flooded.
static void proxy(void **state)
{
	uint8_t f[NEIGHBOUR_FRAME];

	lab_expect_ports(a2->id, ASK_BLUE "10.1.0.10", a->id, 0);
	blue->arp_proxy = true;
	lab_apply();
	lab_send(a2->id, ASK_BLUE "10.1.0.10");
	lab_expect_trace("neighbour  10.1.0.10 is on a: answered for it, 02:00:00:00:00:0a\n");
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab.sent[0].port, a2->id);
	lab_expect_ports(a2->id, ASK_BLUE "10.1.0.11", a->id, 0); // not known
	lab_expect_trace("nobody is known to have 10.1.0.11");
	// c's own address was in what it asked: a gets it without a's question reaching c.
	lab_pass_ms(100);
	lab_send(a->id, "arp,arp_op=1,dl_src=02:00:00:00:00:0a,arp_sha=02:00:00:00:00:0a,arp_spa=10.1.0.10,arp_tpa=10.1.0.12");
	lab_expect_trace("neighbour  10.1.0.12 is on a2: answered for it, 02:00:00:00:00:0c\n");
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab.sent[0].port, a->id);
	// Duplicate address detection: of an address that the operator gave to a; of one that c may have left; of a's own; and
	// an announcement.
	lab_send(a2->id, "arp,arp_op=1,dl_src=02:00:00:00:00:0c,arp_sha=02:00:00:00:00:0c,arp_spa=0.0.0.0,arp_tpa=10.1.0.10");
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab.sent[0].port, a2->id);
	lab_expect_ports(a->id,
			 "arp,arp_op=1,dl_src=02:00:00:00:00:0a,arp_sha=02:00:00:00:00:0a,arp_spa=0.0.0.0,arp_tpa=10.1.0.12",
			 a2->id, 0);
	lab_expect_ports(a->id,
			 "arp,arp_op=1,dl_src=02:00:00:00:00:0a,arp_sha=02:00:00:00:00:0a,arp_spa=0.0.0.0,arp_tpa=10.1.0.10",
			 a2->id, 0);
	lab_expect_ports(a->id,
			 "arp,arp_op=1,dl_src=02:00:00:00:00:0a,arp_sha=02:00:00:00:00:0a,arp_spa=10.1.0.10,arp_tpa=10.1.0.10",
			 a2->id, 0);
	// IPv6: c solicits, and so is known.
	struct config_ip c6 = ip_of("fd01::c"), a6 = ip_of("fd01::a");
	static const uint8_t mac_a[6] = {2, 0, 0, 0, 0, 0x0a};
	lab_send_frame(a2->id, f, neighbour_ask(f, mac_c, &c6, &a6, NULL));
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab.sent[0].port, a->id);
	lab_pass_ms(100);
	lab_send_frame(a->id, f, neighbour_ask(f, mac_a, &a6, &c6, NULL));
	lab_expect_trace("neighbour  fd01::c is on a2: answered for it, 02:00:00:00:00:0c\n");
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab.sent[0].bytes[58] & 0xe0, 0x60); // no router
	// Ports that may not speak with each other don't hear of each other either.
	a->isolated = a2->isolated = true;
	lab_apply();
	lab_send(a2->id, ASK_BLUE "10.1.0.10");
	assert_int_equal(lab_count(a2->id, COUNT_GENERATED), 2);
	a->isolated = a2->isolated = false;
	lab_apply();
	// A MAC that isn't heard of any more is looked for by flooding.
	lab_pass_ms(310000);
	lab_expect_ports(a->id,
			 "arp,arp_op=1,dl_src=02:00:00:00:00:0a,arp_sha=02:00:00:00:00:0a,arp_spa=10.1.0.10,arp_tpa=10.1.0.12",
			 a2->id, 0);
}

// ---- addresses of our own

static unsigned frames_of(uint16_t port, bool arp, const char *bytes, unsigned at, unsigned n)
{
	unsigned found = 0;

	for (unsigned i = 0; i < lab.n_sent; i++) {
		const struct lab_sent *s = &lab.sent[i];

		found += s->port == port && s->bytes[12] == (arp ? 0x08 : 0x86) && s->len >= at + n &&
			 !memcmp(s->bytes + at, bytes, n);
	}
	return found;
}

static void announces(void **state)
{
	struct config_network *green = lab_network("green", 30);
	struct config_port *g = lab_port("g", VLAN_ACCESS, green);

	struct config_router_port *rp =
		lab_router_port("r1-green", r1, green, "02:00:00:00:30:01", "10.3.0.1/24", "fd03::1/64", NULL);
	lab_apply();
	lab_forget_sent();
	lab_pass_ms(10000);
	assert_int_equal(frames_of(g->id, true, "\0\0\0\0\0\0\0\0\0\0\x0a\x03\0\1", 28, 14), 3);     // probes
	assert_int_equal(frames_of(g->id, true, "\x0a\x03\0\1\0\0\0\0\0\0\x0a\x03\0\1", 28, 14), 2); // announcements
	assert_int_equal(frames_of(g->id, false, "\x87", 54, 1), 1);
	assert_int_equal(frames_of(g->id, false, "\x88", 54, 1), 2);
	lab_forget_sent();
	lab_pass_ms(10000);
	assert_int_equal(lab.n_sent, 0);
	// Another MAC: everybody hears of it at once.
	rp->mac[5] = 9;
	lab_apply();
	lab_forget_sent();
	lab_pass_ms(100);
	assert_int_equal(frames_of(g->id, true, "\x0a\x03\0\1\0\0\0\0\0\0\x0a\x03\0\1", 28, 14), 1);
	assert_int_equal(frames_of(g->id, true, "\0\0\0\0", 28, 4), 0);
}

static unsigned told;
static char last_told[512];

static void sink(char level, const char *module, const struct log_field *fields, const char *sentence)
{
	told++;
	snprintf(last_told, sizeof last_told, "%s: %s", module, sentence);
}

static void duplicates(void **state)
{
	struct config_network *green = lab_network("green", 30);
	struct config_port *g = lab_port("g", VLAN_ACCESS, green), *h = lab_port("h", VLAN_ACCESS, green);
	uint8_t ip[4] = {10, 3, 0, 1};

	struct config_router_port *rp =
		lab_router_port("r1-green", r1, green, "02:00:00:00:30:01", "10.3.0.1/24", "fd03::1/64", NULL);
	lab_apply();
	told = 0;
	notice_sink = sink;
	lab_pass_ms(1000);
	lab_send(g->id, "arp,arp_op=2,dl_src=02:00:00:00:00:77,dl_dst=02:00:00:00:30:01,arp_sha=02:00:00:00:00:77,arp_spa=10.3."
			"0.1,arp_tha=02:00:00:00:30:01,arp_tpa=0.0.0.0");
	assert_true(neighbour_is_duplicate(NULL, rp->id, false, ip));
	assert_int_equal(told, 1);
	assert_string_equal(last_told, "neighbour: 10.3.0.1 of router port r1-green is claimed by 02:00:00:00:00:77 on port g: "
				       "it is not used while that is so");
	lab_expect_ports(h->id,
			 "arp,arp_op=1,dl_src=02:00:00:00:00:78,arp_sha=02:00:00:00:00:78,arp_spa=10.3.0.8,arp_tpa=10.3.0.1",
			 g->id, 0);
	lab_expect_drop(h->id, "dl_src=02:00:00:00:00:78,dl_dst=02:00:00:00:30:01,icmp,icmp_type=8,nw_src=10.3.0.8,nw_dst=10.3.0.1", "router.NOT_SERVED");
	// Of IPv6: its advertisement is for all.
	uint8_t f[NEIGHBOUR_FRAME];
	lab_send_frame(g->id, f, na(f, "fd03::1", mac_c, "ff02::1", 0x20));
	lab_pass_ms(100);
	assert_true(neighbour_is_duplicate(NULL, rp->id, true, ip_of("fd03::1").b));
	// It is tried again each minute, and taken once nobody objects.
	lab_pass_ms(50000);
	assert_true(neighbour_is_duplicate(NULL, rp->id, false, ip));
	lab_pass_ms(20000);
	assert_false(neighbour_is_duplicate(NULL, rp->id, false, ip));
	lab_send(h->id, "arp,arp_op=1,dl_src=02:00:00:00:00:78,arp_sha=02:00:00:00:00:78,arp_spa=10.3.0.8,arp_tpa=10.3.0.1");
	lab_expect_trace("10.3.0.1 is a router's: answered");
	// Who claims it later is in the wrong: it is told, and defended, at most every ten seconds.
	told = 0;
	lab_pass_ms(10000);
	for (unsigned i = 0; i < 5; i++) {
		lab_send(g->id,
			 "arp,arp_op=1,dl_src=02:00:00:00:00:77,arp_sha=02:00:00:00:00:77,arp_spa=10.3.0.1,arp_tpa=10.3.0.1");
		lab_forget_sent();
		lab_pass_ms(200);
		assert_int_equal(frames_of(h->id, true, "\x0a\x03\0\1\0\0\0\0\0\0\x0a\x03\0\1", 28, 14), i == 0);
	}
	assert_int_equal(told, 1);
	assert_non_null(strstr(last_told, "the router keeps it"));
	assert_false(neighbour_is_duplicate(NULL, rp->id, false, ip));
	// Another switch of the same router has the same MAC.
	lab_pass_ms(20000);
	lab_send(g->id, "arp,arp_op=1,dl_src=02:00:00:00:30:01,arp_sha=02:00:00:00:30:01,arp_spa=10.3.0.1,arp_tpa=10.3.0.1");
	lab_pass_ms(100);
	assert_int_equal(told, 1);
	notice_sink = NULL;
}

// Two that probe for one address at the same moment: neither has it.
static void probed_at_once(void **state)
{
	struct config_network *green = lab_network("green", 30);
	struct config_port *g = lab_port("g", VLAN_ACCESS, green);
	uint8_t ip[4] = {10, 3, 0, 1};

	struct config_router_port *rp = lab_router_port("r1-green", r1, green, "02:00:00:00:30:01", "10.3.0.1/24", NULL);
	lab_apply();
	lab_pass_ms(500);
	lab_send(g->id, "arp,arp_op=1,dl_src=02:00:00:00:00:77,arp_sha=02:00:00:00:00:77,arp_spa=0.0.0.0,arp_tpa=10.3.0.1");
	lab_pass_ms(100);
	assert_true(neighbour_is_duplicate(NULL, rp->id, false, ip));
	lab_remove_port(g);
}

// ---- stations

static void stations(void **state)
{
	struct config_ip ip = ip_of("10.1.0.12"), given = ip_of("10.1.0.10");
	struct station s;
	bool several;

	assert_false(station_lookup(blue->id, &ip, &s));
	lab_send(a2->id, ASK_BLUE "10.1.0.99");
	lab_pass_ms(100);
	assert_true(station_lookup(blue->id, &ip, &s));
	assert_int_equal(s.port, a2->id);
	assert_memory_equal(s.mac, mac_c, 6);
	assert_false(s.is_static);
	assert_false(station_is_news(blue->id, &ip, mac_c, a2->id, false, lab.w.now_ms / 1000));
	// It moves; what the operator says doesn't.
	lab_send(a->id, "arp,arp_op=1,dl_src=02:00:00:00:00:0b,arp_sha=02:00:00:00:00:0b,arp_spa=10.1.0.12,arp_tpa=10.1.0.12");
	lab_send(a2->id, "arp,arp_op=1,dl_src=02:00:00:00:00:0b,arp_sha=02:00:00:00:00:0b,arp_spa=10.1.0.10,arp_tpa=10.1.0.10");
	lab_pass_ms(100);
	assert_true(station_lookup(blue->id, &ip, &s));
	assert_int_equal(s.port, a->id);
	assert_true(station_lookup(blue->id, &given, &s));
	assert_true(s.is_static);
	assert_int_equal(s.port, a->id);
	// What explain and why ask.
	assert_int_equal(station_find(0, false, ip.b, &several)->port, a->id);
	assert_false(several);
	assert_null(station_find(red->id, false, ip.b, NULL));
	assert_memory_equal(station_of(blue->id, a->id, false, NULL)->ip.b, given.b, 4);
	assert_memory_equal(station_of(blue->id, a->id, false, mac_b)->ip.b, ip.b, 4);
	// One on another host is where its MAC is.
	struct config_ip far = ip_of("10.1.0.200");
	struct config_remote_mac rm = {.network = blue->row, .mac = {2, 0, 0, 0, 0, 0x99}, .ips = &far, .n_ips = 1};
	lab.config->remote_macs = &rm;
	lab.config->n_remote_macs = 1;
	station_configure(lab.config);
	assert_true(fdb_set_static(fdb_key(blue->id, rm.mac), a2->id, 0));
	assert_true(station_lookup(blue->id, &far, &s) && s.is_static);
	assert_int_equal(s.port, a2->id);
	lab.config->remote_macs = NULL;
	lab.config->n_remote_macs = 0;
	station_configure(lab.config);
	assert_false(station_lookup(blue->id, &far, &s));
	fdb_remove(fdb_key(blue->id, rm.mac));
	// A router says so.
	uint8_t f[NEIGHBOUR_FRAME];
	struct config_ip six = ip_of("fd01::77");
	lab_send_frame(a2->id, f, neighbour_announce(f, mac_c, mac_c, &six, true, NULL, NULL));
	lab_pass_ms(100);
	assert_true(station_lookup(blue->id, &six, &s) && s.router);
	// They age, and a port has a limit.
	lab_pass_ms(700000);
	assert_false(station_lookup(blue->id, &ip, &s));
	assert_true(station_lookup(blue->id, &given, &s));
	for (unsigned i = 0; i < STATION_PORT_MAX + 100; i++) {
		struct config_ip more = {.b = {10, 9, (uint8_t)(i >> 8), (uint8_t)i}};

		station_seen(blue->id, &more, mac_c, a2->id, false, lab.w.now_ms / 1000);
	}
	unsigned n = station_flush(blue->id);
	assert_int_equal(n, STATION_PORT_MAX);
	// What is to be kept changes with an address that comes or moves, not with one that is heard again.
	uint32_t version = station_version();
	station_seen(blue->id, &ip, mac_c, a2->id, false, lab.w.now_ms / 1000);
	assert_int_not_equal(station_version(), version);
	version = station_version();
	station_seen(blue->id, &ip, mac_c, a2->id, false, lab.w.now_ms / 1000 + 60);
	assert_int_equal(station_version(), version);
	// A port that leaves takes what was learned along.
	station_seen(blue->id, &ip, mac_c, a2->id, false, lab.w.now_ms / 1000);
	lab_remove_port(a2);
	lab_apply();
	assert_false(station_lookup(blue->id, &ip, &s));
}

static bool all_up(uint16_t port)
{
	return true;
}

static bool none_up(uint16_t port)
{
	return false;
}

// A port that comes back is told where those are whom its stations talk with, and they are told of them.
static void comes_back(void **state)
{
	struct config_port *t = lab_port("t", VLAN_TRUNK, NULL);
	uint8_t f[NEIGHBOUR_FRAME];
	struct config_ip c6 = ip_of("fd01::c"), a6 = ip_of("fd01::a");
	static const uint8_t mac_a[6] = {2, 0, 0, 0, 0, 0x0a};

	lab_apply();
	lab_send(t->id, "dl_vlan=10," ASK_BLUE "10.1.0.10"); // c talks with a,
	lab_send(t->id, "dl_vlan=10," ASK_BLUE "10.1.0.1");  // and with the router
	lab_pass_ms(200);
	assert_non_null(station_talk_of(t->id, 1));
	assert_non_null(station_talk_of(a->id, 0));
	lab_forget_sent();
	station_welcome(t->id, all_up);
	lab_flush();
	assert_int_equal(lab.n_sent, 3);
	assert_int_equal(lab.sent[0].port, t->id);
	assert_memory_equal(lab.sent[0].bytes, "\x02\0\0\0\0\x0c\x02\0\0\0\0\x0a\x81\0\0\x0a\x08\x06\0\1\x08\0\6\4\0\2\x02\0\0\0\0\x0a\x0a\1\0\x0a\x02\0\0\0\0\x0c\x0a\1\0\x0c", 46);
	assert_memory_equal(lab.sent[1].bytes + 6, "\2\0\0\0\x10\1", 6);
	assert_int_equal(lab.sent[2].port, a->id);
	assert_memory_equal(lab.sent[2].bytes, "\x02\0\0\0\0\x0a\x02\0\0\0\0\x0c\x08\x06\0\1\x08\0\6\4\0\2\x02\0\0\0\0\x0c\x0a\1\0\x0c\x02\0\0\0\0\x0a\x0a\1\0\x0a", 42);
	lab_forget_sent();
	assert_int_equal(station_welcome(t->id, none_up), 2); // a isn't back yet
	lab_flush();
	assert_int_equal(lab.n_sent, 2);
	assert_int_equal(station_welcome(t->id, NULL), 2); // once more
	lab_flush();
	assert_int_equal(lab.n_sent, 4);
	// IPv6: c asked, a answers.
	lab_send_frame(a2->id, f, neighbour_ask(f, mac_c, &c6, &a6, NULL));
	lab_send_frame(a->id, f, neighbour_announce(f, mac_a, mac_a, &a6, false, mac_c, &c6));
	lab_pass_ms(200);
	lab_forget_sent();
	station_welcome(a2->id, none_up);
	lab_flush();
	assert_int_equal(lab.n_sent, 1);
	assert_memory_equal(lab.sent[0].bytes, "\x02\0\0\0\0\x0c\x02\0\0\0\0\x0a\x86\xdd", 14);
	assert_int_equal(lab.sent[0].bytes[54], 136);
	// No more than so many pairs; and nothing is left of a port that goes.
	for (unsigned i = 0; i < 3 * STATION_TALKS; i++)
		station_talk(a2->id, &(struct station_talk){.network = blue->id, .mine = c6, .theirs = {.b = {10, 1, 2, (uint8_t)i}}});
	assert_null(station_talk_of(a2->id, STATION_TALKS));
	lab_remove_port(a2);
	lab_apply();
	assert_null(station_talk_of(a2->id, 0));
}

// ---- the rest

static char *whole_list(page_fn *list, int argc, const char *argv[], bool json, char **error)
{
	struct buf all = {0};
	struct page p = {0};
	bool end = false;

	page_begin(&p);
	while (!end) {
		char *part = page_next(&p, list, argc, argv, json, &end, error);

		if (!part) {
			free(all.text);
			return NULL;
		}
		buf_add(&all, "%s", part);
		free(part);
	}
	return all.text;
}

static char *verb(const char *name, const char *arg, bool json)
{
	const struct stage_verb *v = stage_find("neighbour")->verbs;
	const char *argv[] = {name, arg};
	char *error = NULL, *text;

	while (strcmp(v->name, name))
		v++;
	if (!v->list)
		text = v->run(arg ? 2 : 1, argv, json, &error);
	else
		text = whole_list(v->list, arg ? 2 : 1, argv, json, &error);
	return text ? text : error;
}

static void verbs(void **state)
{
	static const char *const lists[] = {"neighbour/list", "neighbour/own", "neighbour/stations"};
	struct config_ip ip = ip_of("10.2.0.20");

	bring(&ip, NEIGHBOUR_REACHABLE);
	send_to(30);
	char *text = verb("neighbour/list", "r1-red", false);
	assert_non_null(strstr(text, "10.2.0.20"));
	assert_non_null(strstr(text, "reachable"));
	assert_non_null(strstr(text, "incomplete"));
	free(text);
	text = verb("neighbour/own", NULL, false);
	assert_non_null(strstr(text, "fd02::1"));
	free(text);
	text = verb("neighbour/stations", "blue", false);
	assert_non_null(strstr(text, "10.1.0.10"));
	free(text);
	for (unsigned i = 0; i < RTE_DIM(lists); i++) {
		text = verb(lists[i], NULL, true);
		json_t *j = json_loads(text, 0, NULL);
		assert_true(json_is_array(j) && json_array_size(j) > 0);
		json_decref(j);
		free(text);
		text = verb(lists[i], "nobody", false);
		assert_non_null(strstr(text, "there is no"));
		free(text);
		text = verb(lists[i], "-x", false);
		assert_non_null(strstr(text, "takes a name at most"));
		free(text);
	}
	text = verb("neighbour/flush", "r1-red", false);
	assert_string_equal(text, "2 neighbours flushed\n");
	free(text);
	lab_flush();
	text = verb("neighbour/flush", NULL, true);
	assert_string_equal(text, "{\"flushed\": 0}\n");
	free(text);
	text = verb("neighbour/flush", "nobody", true);
	assert_string_equal(text, "there is no router port nobody in use");
	free(text);
}

// Bytes that somebody made up: nothing breaks, every packet is accounted for.
static void rubbish(void **state)
{
	static const char *const seeds[] = {ASK_RED "10.2.0.1", REPLY_B, ASK_RED "10.2.0.99"};
	struct config_ip own = ip_of("fd02::1"), from = ip_of("fd02::20");
	unsigned seed = 7;

	lab.traced = lab.keep = false;
	red->arp_proxy = true;
	lab_apply();
	for (unsigned i = 0; i < 60000; i++) {
		uint8_t f[LAB_FRAME];
		uint32_t len = i % 5 < 3    ? lab_compose(f, seeds[i % 5])
			       : i % 5 == 3 ? neighbour_ask(f, mac_b, &from, &own, NULL)
					    : na(f, "fd02::20", mac_b, "fd02::1", 0x60);

		for (unsigned k = 0; k < 1 + i % 4; k++)
			f[(unsigned)rand_r(&seed) % len] = (uint8_t)rand_r(&seed);
		if (i % 7 == 0)
			len = 14 + (unsigned)rand_r(&seed) % (len - 14);
		lab_send_mbuf(i % 2 ? b->id : c->id, lab_mbuf(f, len, i % 3 ? 0 : 1 + (unsigned)rand_r(&seed) % len));
		if (i % 100 == 0)
			lab_pass_ms(100);
	}
	neighbour_flush(0);
	lab_flush();
}

static bool stop;

// A worker that looks up while neighbours come, change and go.
static void *reader(void *arg)
{
	unsigned seed = 3;

	rcu_worker_start(5);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		struct config_ip ip = {.b = {10, 2, 1, (uint8_t)rand_r(&seed)}};
		uint8_t mac[6];
		uint16_t adj;

		if (neighbour_find(NULL, on_red->id, false, ip.b, mac, &adj) > 0) {
			if (mac[5] != ip.b[3] || mac[0] != 2) // another one's
				abort();
			neighbour_used(adj, 7);
		}
		rcu_quiescent(5);
	}
	rcu_worker_stop(5);
	return NULL;
}

static void races(void **state)
{
	unsigned seed = 4;
	pthread_t t;

	stop = false;
	lab.traced = lab.keep = false;
	assert_int_equal(pthread_create(&t, NULL, reader, NULL), 0);
	for (unsigned i = 0; i < 100000; i++) {
		struct config_ip ip = {.b = {10, 2, 1, (uint8_t)rand_r(&seed)}};
		uint8_t mac[6] = {2, 0, 0, 0, (uint8_t)rand_r(&seed), ip.b[3]};
		struct neighbour_entry *e = neighbour_get(on_red->id, &ip);

		if (e && i % 3 == 0)
			neighbour_delete(e, 0);
		else
			neighbour_seen(red->id, &ip, mac, NEIGHBOUR_ASKED, lab.w.now);
		if (i % 64 == 0) {
			tick();
			rcu_poll();
		}
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(appendix_c, setup, teardown),
		cmocka_unit_test_setup_teardown(reachable_time_varies, setup, teardown),
		cmocka_unit_test_setup_teardown(resolves_ipv4, setup, teardown),
		cmocka_unit_test_setup_teardown(resolves_ipv6, setup, teardown),
		cmocka_unit_test_setup_teardown(nobody_answers, setup, teardown),
		cmocka_unit_test_setup_teardown(flows_in_use_are_probed, setup, teardown),
		cmocka_unit_test_setup_teardown(only_its_own_flows_change, setup, teardown),
		cmocka_unit_test_setup_teardown(static_ones, setup, teardown),
		cmocka_unit_test_setup_teardown(waiting_packets_are_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(sweep, setup, teardown),
		cmocka_unit_test_setup_teardown(full_table, setup, teardown),
		cmocka_unit_test_setup_teardown(false_names, setup, teardown),
		cmocka_unit_test_setup_teardown(answers_for_the_router, setup, teardown),
		cmocka_unit_test_setup_teardown(proxy, setup, teardown),
		cmocka_unit_test_setup_teardown(announces, setup, teardown),
		cmocka_unit_test_setup_teardown(duplicates, setup, teardown),
		cmocka_unit_test_setup_teardown(probed_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(stations, setup, teardown),
		cmocka_unit_test_setup_teardown(comes_back, setup, teardown),
		cmocka_unit_test_setup_teardown(verbs, setup, teardown),
		cmocka_unit_test_setup_teardown(rubbish, setup, teardown),
		cmocka_unit_test_setup_teardown(races, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
