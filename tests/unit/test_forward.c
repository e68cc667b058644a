// forward: hits, misses, stale flows, order, queues, floods, and that explain says what happens then.
#include "lab.h"
#include "compose.h"

#include <stdio.h>
#include <time.h>

static struct config_network *net;
static struct config_port *a, *b;

static int setup(void **state)
{
	lab_setup();
	net = lab_network("blue", 10);
	a = lab_port("a", VLAN_ACCESS, net);
	b = lab_port("b", VLAN_ACCESS, net);
	lab_apply();
	return 0;
}

static int setup_nothing(void **state)
{
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

static struct rte_mbuf *packet(const char *text)
{
	uint8_t frame[COMPOSE_MAX];

	return lab_mbuf(frame, lab_compose(frame, text), 0);
}

// Packet number `n` of host `src` to host `dst`.
static struct rte_mbuf *numbered(unsigned src, unsigned dst, uint32_t n)
{
	uint8_t frame[64] = {2, 0, 0, 0, (uint8_t)(dst >> 8), (uint8_t)dst, 2, 0, 0, 0, (uint8_t)(src >> 8), (uint8_t)src, 0x88, 0xb5};

	memcpy(frame + 14, &n, 4);
	return lab_mbuf(frame, sizeof frame, 0);
}

static uint32_t number_of(const struct lab_sent *s)
{
	uint32_t n;

	memcpy(&n, s->bytes + 14, 4);
	return n;
}

static unsigned occurrences(const char *text, const char *what)
{
	unsigned n = 0;

	for (const char *at = text; (at = strstr(at, what)); at += strlen(what))
		n++;
	return n;
}

// ---- hits and misses

static void hit_miss_stale(void **state)
{
	lab_expect_ports(a->id, "udp", b->id, 0);
	lab_expect_trace("no cached flow, resolving");
	assert_int_equal(lab_count(a->id, COUNT_RESOLVED), 1);
	assert_int_equal(lab_count(a->id, COUNT_CACHE_HIT), 0);
	for (int i = 0; i < 10; i++)
		lab_expect_ports(a->id, "udp", b->id, 0);
	lab_expect_trace("cached flow");
	assert_int_equal(lab_count(a->id, COUNT_RESOLVED), 1);
	assert_int_equal(lab_count(a->id, COUNT_CACHE_HIT), 10);
	assert_int_equal(lab_flows(), 1);
	struct flow_view v = lab_flow(a->id);
	assert_int_equal(v.flow.packets, 11);
	assert_int_equal(v.flow.bytes, 11 * 60);
	// Another destination port is the same flow of a plain L2 network, another class isn't.
	lab_send(a->id, "udp,udp_dst=5");
	assert_int_equal(lab_flows(), 1);
	lab_send(a->id, "udp,nw_ttl=1");
	assert_int_equal(lab_flows(), 2);
	// A change of the network makes them stale; what doesn't concern them does not.
	net->flood_unknown = false;
	lab_apply();
	lab_expect_drop(a->id, "udp", "fdb.UNKNOWN");
	lab_expect_trace("no cached flow, resolving");
	assert_int_equal(lab_flows(), 2);
	uint64_t resolved = lab_count(a->id, COUNT_RESOLVED);
	lab_network("red", 20);
	lab_apply();
	lab_expect_drop(a->id, "udp", "fdb.UNKNOWN");
	assert_int_equal(lab_count(a->id, COUNT_RESOLVED), resolved);
	assert_int_equal(lab_count(a->id, COUNT_UNCACHED), 0);
}

static void others_changes_leave_a_flow_fresh(void **state)
{
	lab_send(b->id, "udp,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01");
	lab_send(a->id, "udp");
	lab_send(a->id, "udp");
	uint64_t resolved = lab_count(a->id, COUNT_RESOLVED);
	// A host that moves about, many times.
	net->flap_threshold = 0;
	lab_apply();
	lab_send(a->id, "udp");
	struct config_port *c = lab_port("c", VLAN_ACCESS, net), *d = lab_port("d", VLAN_ACCESS, net);
	lab_apply();
	uint32_t epoch = gen_epoch;
	for (int i = 0; i < 100; i++) {
		lab_send(i & 1 ? c->id : d->id, "arp,dl_src=02:00:00:00:77:77");
		lab_expect_ports(a->id, "udp", b->id, 0);
	}
	assert_true(gen_epoch - epoch >= 99);
	assert_int_equal(lab_count(a->id, COUNT_RESOLVED), resolved);
}

static void change_of_a_port_between_packets(void **state)
{
	struct config_network *red = lab_network("red", 20);
	struct config_port *c = lab_port("c", VLAN_ACCESS, red);

	lab_apply();
	lab_expect_ports(a->id, "udp", b->id, 0);
	a->network = red->row;
	lab_apply();
	lab_expect_ports(a->id, "udp", c->id, 0);
	b->network = red->row;
	lab_apply();
	lab_expect_ports(a->id, "udp", b->id, c->id, 0); // members are read when it floods
	a->vlan_mode = VLAN_TRUNK;
	lab_apply();
	lab_expect_drop(a->id, "udp", "vlan.NO_NETWORK");
}

static void unknown_ports(void **state)
{
	uint64_t before = lab_drops(0, "flow.PORT_GONE");
	struct rte_mbuf *m = packet("udp");

	lab_send_mbuf(99, m);
	assert_int_equal(lab_drops(0, "flow.PORT_GONE"), before + 1);
	assert_int_equal(lab_count(0, COUNT_RX), 1);
	lab_expect_trace("dropped (flow.PORT_GONE)");
}

// ---- order and the queue of misses

static void budget_leaves_the_rest_waiting(void **state)
{
	struct rte_mbuf *m[BURST];

	lab.w.resolve_budget = 1;
	for (unsigned i = 0; i < 8; i++)
		m[i] = numbered(i, 100, i);
	lab_burst(a->id, m, 8);
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab_count(a->id, COUNT_QUEUED), 7);
	for (unsigned i = 1; i < 8; i++) {
		assert_int_equal(forward_misses(&lab.w, a->id), 7 - i);
		lab_flush();
		assert_int_equal(lab_count(a->id, COUNT_QUEUED), 7 - i);
		assert_int_equal(lab.n_sent, 1 + i);
		assert_int_equal(number_of(&lab.sent[i]), i);
	}
	lab_expect_trace("waits to be resolved");
	assert_int_equal(forward_misses(&lab.w, a->id), 0);
	assert_int_equal(forward_misses(&lab.w, 99), 0);
	assert_int_equal(lab_count(a->id, COUNT_RESOLVED), 8);
}

// Its flow is known by now, but an older packet of it still waits.
static void no_overtaking(void **state)
{
	struct rte_mbuf *m[BURST];

	lab.w.resolve_budget = 1;
	m[0] = numbered(1, 100, 0);
	m[1] = numbered(2, 100, 1);
	m[2] = numbered(3, 100, 2);
	m[3] = numbered(1, 100, 3); // waits for its elder, which is resolved, and then for 2 and 3, which are not
	lab_burst(a->id, m, 4);
	assert_int_equal(lab.n_sent, 1);
	lab.keep = true;
	m[0] = numbered(1, 100, 4);
	forward_burst(&lab.w, a->id, m, 1);
	lab_flush();
	assert_int_equal(lab.n_sent, 2);
	assert_int_equal(number_of(&lab.sent[1]), 1);
	while (forward_misses(&lab.w, a->id))
		;
	lab_flush();
	uint32_t last = 0;
	for (unsigned i = 0; i < lab.n_sent; i++) {
		if (lab.sent[i].bytes[11] == 1) {
			assert_true(number_of(&lab.sent[i]) >= last);
			last = number_of(&lab.sent[i]);
		}
	}
	assert_int_equal(last, 4);
	assert_int_equal(lab.n_sent, 5);
}

static unsigned seed_of_run(void)
{
	const char *given = getenv("UNIT_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL) ^ (unsigned)clock();

	print_message("UNIT_SEED=%u\n", seed);
	return seed;
}

static bool every_third(struct rte_mbuf *m)
{
	return !(*rte_pktmbuf_mtod_offset(m, uint8_t *, 14) % 3);
}

// Traced and other packets of one flow that only needs to be sent.
static void a_trace_changes_no_order(void **state)
{
	struct rte_mbuf *m[BURST];

	lab_send(b->id, "udp,dl_src=02:00:00:00:00:64,dl_dst=02:00:00:00:00:01");
	lab.wants_trace = every_third;
	for (int round = 0; round < 3; round++) {
		for (unsigned i = 0; i < BURST; i++)
			m[i] = numbered(1, 100, i);
		lab_burst(a->id, m, BURST);
		assert_int_equal(lab.n_sent, BURST);
		for (unsigned i = 0; i < BURST; i++)
			assert_int_equal(number_of(&lab.sent[i]), i);
	}
	lab_reject_trace("DEFECT");
	assert_int_equal(lab.traces, 1 + 3 * 11);
}

// A batch that begins in the middle of a burst, as the one before it, of packets of other ports, became full.
static void a_batch_begins_within_a_burst(void **state)
{
	struct config_port *c = lab_port("c", VLAN_ACCESS, net), *d = lab_port("d", VLAN_ACCESS, net);
	static const char *const from[] = {"udp,dl_src=02:00:00:00:00:0a,dl_dst=02:00:00:00:00:64", "udp,dl_src=02:00:00:00:00:0c,dl_dst=02:00:00:00:00:64",
					   "udp,dl_src=02:00:00:00:00:0d,dl_dst=02:00:00:00:00:64"};
	uint16_t ports[] = {a->id, c->id, d->id};
	struct rte_mbuf *m[BURST];

	lab_apply();
	lab.traced = false;
	lab_send(b->id, "udp,dl_src=02:00:00:00:00:64,dl_dst=02:00:00:00:00:01");
	for (unsigned round = 0; round < 3; round++) {
		lab_forget_sent();
		for (unsigned p = 0; p < 3; p++) {
			unsigned n = p ? BURST : 20;

			for (unsigned i = 0; i < n; i++)
				m[i] = packet(from[p]);
			forward_burst(&lab.w, ports[p], m, n);
		}
		lab_flush();
		assert_int_equal(lab.n_sent, 20 + 2 * BURST);
		lab_check();
	}
	for (unsigned p = 0; p < 3; p++)
		assert_int_equal(lab_count(ports[p], COUNT_SENT), lab_count(ports[p], COUNT_RX) + lab_count(ports[p], COUNT_COPIES));
}

static bool some(struct rte_mbuf *m)
{
	return rand() % 5 == 0;
}

// Frames that take the short way unless they are traced, in flows that are sent directly and others: whichever way each of them takes, the order of a
// flow is kept, and all of them find the same flow.
static void traced_and_others_keep_their_order(void **state)
{
	enum { FLOWS = 6, ROUNDS = 400 };
	static uint32_t next[FLOWS], seen[FLOWS];
	struct config_port *t = lab_port("t", VLAN_TRUNK, NULL);
	unsigned seed = seed_of_run();
	uint8_t frame[COMPOSE_MAX];
	uint64_t resolved = 0;
	char text[128];

	lab_apply();
	memset(next, 0, sizeof next);
	memset(seen, 0, sizeof seen);
	srand(seed);
	lab_send(b->id, "udp,dl_src=02:00:00:00:00:64,dl_dst=02:00:00:00:00:01");
	lab_send(t->id, "udp,dl_vlan=10,dl_src=02:00:00:00:00:65,dl_dst=02:00:00:00:00:01");
	lab.wants_trace = some;
	for (int round = 0; round < ROUNDS; round++) {
		struct rte_mbuf *m[BURST];
		unsigned n = 1 + (unsigned)rand() % BURST;

		for (unsigned i = 0; i < n; i++) {
			uint8_t flow = (uint8_t)(rand() % FLOWS);

			snprintf(text, sizeof text, "udp,dl_src=02:00:00:00:01:%02x,dl_dst=02:00:00:00:00:%02x,packet_len=100", flow, flow % 2 ? 0x65 : 0x64);
			uint32_t len = lab_compose(frame, text);
			++next[flow];
			memcpy(frame + 60, &next[flow], 4);
			m[i] = lab_mbuf(frame, len, 0);
		}
		lab_burst(a->id, m, n);
		assert_int_equal(lab.n_sent, n);
		for (unsigned i = 0; i < n; i++) {
			uint8_t flow = lab.sent[i].bytes[11];
			uint32_t number;

			memcpy(&number, lab.sent[i].bytes + (flow % 2 ? 64 : 60), 4);
			if (number != ++seen[flow])
				fail_msg("seed %u: packet %u of flow %u left where %u was due", seed, number, flow, seen[flow]);
		}
		lab_reject_trace("DEFECT");
		if (round == 50)
			resolved = lab_count(a->id, COUNT_RESOLVED);
	}
	assert_int_equal(lab_count(a->id, COUNT_RESOLVED), resolved);
	assert_in_range(lab.traces, ROUNDS, 6 * ROUNDS);
}

// Whatever the budget, whatever goes stale meanwhile: the packets of one flow leave in the order they came.
static void order_is_kept(void **state)
{
	enum { HOSTS = 40, ROUNDS = 3000 };
	static uint32_t next[HOSTS][HOSTS], seen[HOSTS][HOSTS];
	unsigned seed = seed_of_run();

	memset(next, 0, sizeof next);
	memset(seen, 0, sizeof seen);
	lab.traced = false;
	lab.w.miss_limit = 1024;
	srand(seed);
	for (int round = 0; round < ROUNDS; round++) {
		struct rte_mbuf *m[BURST];
		unsigned n = 1 + (unsigned)rand() % 8;

		lab.w.resolve_budget = (uint16_t)(1 + rand() % 12);
		for (unsigned i = 0; i < n; i++) {
			unsigned src = (unsigned)rand() % 4, dst = 10 + (unsigned)rand() % (HOSTS - 10);

			m[i] = numbered(src, dst, ++next[src][dst]);
		}
		lab_burst(a->id, m, n);
		if (rand() % 4 == 0) { // a destination is learned, its flows go stale
			m[0] = numbered(10 + (unsigned)rand() % (HOSTS - 10), 200, 0);
			forward_burst(&lab.w, b->id, m, 1);
			forward_misses(&lab.w, b->id);
		}
		if (rand() % 3 == 0)
			forward_misses(&lab.w, a->id);
		if (rand() % 50 == 0) {
			lab_advance_ms((uint64_t)rand() % 400000);
			lab_tick();
		}
		lab_flush();
		for (unsigned i = 0; i < lab.n_sent; i++) {
			const struct lab_sent *s = &lab.sent[i];

			if (s->port != b->id)
				continue;
			uint32_t number = number_of(s);
			if (number <= seen[s->bytes[11]][s->bytes[5]])
				fail_msg("seed %u: packet %u from %u to %u overtook", seed, number, s->bytes[11], s->bytes[5]);
			seen[s->bytes[11]][s->bytes[5]] = number;
		}
	}
	while (forward_misses(&lab.w, a->id))
		;
}

// Whether packets wait that share the hash class of the flow of host `src`: then its own wait too.
static bool class_waits(uint16_t port, uint8_t src)
{
	struct flow_view v;

	for (uint32_t i = 0; i < flow_table_high(lab.w.flows); i++)
		if (flow_table_read(lab.w.flows, i, &v) && v.key.port == port && v.key.src[5] == src)
			return lab.w.port[port]->guard[key_hash(&v.key, v.cold.key_len) % MISS_GUARDS] != 0;
	fail();
	return false;
}

static void the_queue_has_a_bound(void **state)
{
	struct rte_mbuf *m[BURST];

	lab.w.resolve_budget = 2;
	lab.w.miss_limit = 8;
	for (unsigned i = 0; i < BURST; i++)
		m[i] = numbered(i, 100, i);
	lab_burst(a->id, m, BURST);
	assert_int_equal(lab_drops(a->id, "flow.RESOLVE_QUEUE"), BURST - 8);
	assert_int_equal(lab.n_sent, 2);
	assert_int_equal(lab_count(a->id, COUNT_QUEUED), 6);
	lab.w.resolve_budget = 0;
	for (unsigned i = 0; i < 2; i++)
		lab_send_mbuf(a->id, numbered(50 + i, 100, 0));
	lab_expect_drop(a->id, "udp", "flow.RESOLVE_QUEUE");
	lab.w.resolve_budget = 2;
	// The other port's are not the worse for it.
	lab_expect_ports(b->id, "udp,dl_src=02:00:00:00:00:55,dl_dst=02:00:00:00:00:66", a->id, 0);
	// Flows that are known pass by those that wait.
	m[0] = numbered(0, 100, 7);
	bool waits = class_waits(a->id, 0);
	lab_burst(a->id, m, 1);
	assert_int_equal(number_of(&lab.sent[0]) == 7, !waits);
	// As many as there may be at all.
	lab.w.miss_limit = MISS_MAX;
	lab.w.resolve_budget = 1;
	lab.traced = false;
	for (unsigned i = 0; i < MISS_MAX + 200; i += BURST) {
		for (unsigned k = 0; k < BURST; k++)
			m[k] = numbered(1000 + i + k, 100, 0);
		lab_burst(a->id, m, BURST);
	}
	assert_in_range(lab_count(a->id, COUNT_QUEUED), MISS_MAX - BURST, MISS_MAX);
	while (forward_misses(&lab.w, a->id))
		;
}

// A guest's port that is full of misses is left alone until there is room again, but not for ever.
static void a_guest_waits_for_its_flows(void **state)
{
	struct rte_mbuf *m[BURST];
	unsigned sent = 0, bursts = 0;

	lab.traced = false;
	lab.w.resolve_budget = 16;
	lab.w.miss_limit = 2 * BURST;
	assert_false(forward_hold(&lab.w, a->id));
	assert_false(forward_hold(&lab.w, 99)); // no such port
	for (unsigned turn = 0; turn < 200; turn++) {
		if (forward_hold(&lab.w, a->id)) {
			forward_misses(&lab.w, a->id);
			continue;
		}
		for (unsigned i = 0; i < BURST; i++)
			m[i] = numbered(sent + i, 1000 + turn, 0);
		lab_burst(a->id, m, BURST);
		sent += BURST;
		bursts++;
	}
	while (forward_misses(&lab.w, a->id))
		;
	worker_publish(&lab.w);
	assert_in_range(bursts, 90, 110); // 32 packets come with each, 16 are resolved in a turn
	assert_int_equal(lab.w.tally.misses, 0);
	assert_int_equal(lab_drops(a->id, "flow.RESOLVE_QUEUE"), 0);
	assert_int_equal(lab_count(a->id, COUNT_RESOLVED), sent);
	// It never gets empty.
	lab.w.resolve_budget = 0;
	for (unsigned n = 0; n < 2; n++) {
		for (unsigned i = 0; i < BURST; i++)
			m[i] = numbered(sent + i, 10 + n, 0);
		lab_burst(a->id, m, BURST);
	}
	assert_int_equal(lab.w.tally.misses, 2 * BURST);
	assert_true(forward_hold(&lab.w, a->id));
	for (unsigned n = 0; n < 9; n++) {
		lab_advance_ms(50);
		assert_true(forward_hold(&lab.w, a->id));
	}
	lab_advance_ms(50);
	assert_false(forward_hold(&lab.w, a->id));
	lab_burst(a->id, (struct rte_mbuf *[]){numbered(7, 20, 0)}, 1);
	assert_int_equal(lab_drops(a->id, "flow.RESOLVE_QUEUE"), 1);
	// When there was room for a while, it has all its patience again.
	forward_drain(&lab.w, a->id);
	assert_int_equal(lab.w.tally.misses, 0);
	lab_advance_ms(200);
	for (unsigned n = 0; n < 2; n++) {
		for (unsigned i = 0; i < BURST; i++)
			m[i] = numbered(sent + i, 20 + n, 0);
		lab_burst(a->id, m, BURST);
	}
	assert_true(forward_hold(&lab.w, a->id));
	forward_drain(&lab.w, a->id);
}

static void a_port_goes_while_its_packets_wait(void **state)
{
	struct rte_mbuf *m[BURST];

	lab.w.resolve_budget = 1;
	for (unsigned i = 0; i < 8; i++)
		m[i] = numbered(i, 100, i);
	lab_burst(a->id, m, 8);
	// The worker hears of the change first.
	uint16_t id = a->id;
	lab_remove_port(a);
	assert_int_equal(topology_reconcile(lab.config, NULL), 0);
	assert_int_equal(forward_misses(&lab.w, id), 0);
	lab_flush();
	assert_int_equal(lab_drops(id, "flow.PORT_GONE"), 7);
	lab_expect_trace("dropped (flow.PORT_GONE)");
	struct rte_mbuf *late = numbered(1, 100, 9);
	lab_burst(id, &late, 1);
	assert_int_equal(lab_drops(id, "flow.PORT_GONE"), 8);
	lab_apply();

	for (unsigned i = 0; i < 8; i++)
		m[i] = numbered(i, 100, i);
	lab_port("a2", VLAN_ACCESS, net);
	lab_apply();
	lab_burst(b->id, m, 8);
	lab_remove_port(b); // with 7 in its queue, and its copies in the batch of the other
	lab_apply();
}

static void a_network_goes_while_packets_wait(void **state)
{
	struct rte_mbuf *m[BURST];

	lab.w.resolve_budget = 1;
	for (unsigned i = 0; i < 8; i++)
		m[i] = numbered(i, 100, i);
	lab_burst(a->id, m, 8);
	lab_remove_network(net);
	lab_apply();
	lab.w.resolve_budget = 64;
	assert_int_equal(forward_misses(&lab.w, a->id), 0);
	lab_flush();
	assert_int_equal(lab_drops(a->id, "vlan.NO_NETWORK"), 7);
	assert_non_null(a->error);
}

// ---- floods

static void copies_are_counted_and_whole(void **state)
{
	enum { PORTS = 100 };
	static struct config_port *p[PORTS];
	char name[16];
	uint8_t frame[COMPOSE_MAX];

	for (unsigned i = 0; i < PORTS; i++) {
		snprintf(name, sizeof name, "p%u", i);
		p[i] = lab_port(name, i % 3 ? VLAN_ACCESS : VLAN_NATIVE_TAGGED, net);
	}
	lab_apply();
	uint32_t len = lab_compose(frame, "udp,packet_len=1400,dl_dst=ff:ff:ff:ff:ff:ff");
	lab_send_frame(a->id, frame, len);
	assert_int_equal(lab.n_sent, PORTS + 1);
	assert_int_equal(lab_count(a->id, COUNT_COPIES), PORTS);
	assert_int_equal(lab_count(a->id, COUNT_SENT), PORTS + 1);
	for (unsigned i = 0; i < PORTS; i++) {
		const struct lab_sent *s = lab_sent_to(p[i]->id);
		uint32_t tag = i % 3 ? 0 : 4;

		assert_non_null(s);
		assert_int_equal(s->len, len + tag);
		assert_memory_equal(s->bytes, frame, 12);
		assert_memory_equal(s->bytes + 12 + tag, frame + 12, len - 12);
		assert_int_equal(s->origin, a->id);
	}
	// A burst of floods, in order at every port.
	struct rte_mbuf *m[BURST];
	for (unsigned i = 0; i < BURST; i++)
		m[i] = numbered(1, 100, i);
	lab_burst(a->id, m, BURST);
	assert_int_equal(lab.n_sent, BURST * (PORTS + 1));
	uint32_t next[MAX_PORTS] = {0};
	for (unsigned i = 0; i < lab.n_sent; i++) {
		uint32_t n;
		memcpy(&n, lab.sent[i].bytes + (lab.sent[i].len == 68 ? 18 : 14), 4);
		assert_int_equal(n, next[lab.sent[i].port]++);
	}
}

static void out_of_buffers(void **state)
{
	char name[16];

	for (unsigned i = 0; i < 10; i++) {
		snprintf(name, sizeof name, "p%u", i);
		lab_port(name, VLAN_NATIVE_TAGGED, net);
	}
	lab_apply();
	lab_few_buffers(4); // 10 clones are wanted for 11 ports
	lab_send(a->id, "arp");
	// Four clones are made; none of the tagged copies finds a buffer for headers of its own.
	assert_int_equal(lab_count(a->id, COUNT_COPIES), 10);
	assert_int_equal(lab_drops(a->id, "flow.NO_MEMORY"), 11 - lab.n_sent);
	assert_in_range(lab.n_sent, 1, 5);
	lab_expect_trace("dropped (flow.NO_MEMORY): the switch ran out of packet buffers");
	assert_int_equal(occurrences(lab.trace, "dropped (flow.NO_MEMORY)"), 11 - lab.n_sent);
	lab_few_buffers(0);
	lab_send(b->id, "arp");
	assert_int_equal(lab.n_sent, 1); // the packet itself
	assert_int_equal(lab_drops(b->id, "flow.NO_MEMORY"), 10);
	// Headers over several mbufs can't be pulled together.
	uint8_t frame[COMPOSE_MAX];
	uint32_t len = lab_compose(frame, "udp");
	lab_send_mbuf(b->id, lab_mbuf(frame, len, 20));
	assert_int_equal(lab.n_sent, 0);
	lab_few_buffers(-1);
	lab_send(b->id, "arp");
	assert_int_equal(lab.n_sent, 11);
}

// ---- stages of the test's own


extern struct stage stage_vlan, stage_fdb, stage_output, stage_mtu;

static void nobody_decides(void **state)
{
	struct stage *const list[] = {&stage_vlan, &stage_mtu};

	lab_setup_stages(list, 2);
	net = lab_network("blue", 10);
	a = lab_port("a", VLAN_ACCESS, net);
	lab_apply();
	lab_expect_drop(a->id, "udp", "flow.NO_OUTPUT");
}

static struct network *hidden;

static void hide_network(struct worker *w, struct pkt **p, uint16_t n)
{
	hidden = topology_networks[p[0]->network];
	rcu_publish(topology_networks[p[0]->network], NULL);
}

// Between the decision and the flood.
static void a_network_goes_under_way(void **state)
{
	static struct stage hide = {.name = "hide", .run = hide_network};
	struct stage *const list[] = {&stage_vlan, &stage_fdb, &hide};

	lab_setup_stages(list, 3);
	net = lab_network("blue", 10);
	a = lab_port("a", VLAN_ACCESS, net);
	b = lab_port("b", VLAN_ACCESS, net);
	lab_apply();
	lab_expect_drop(a->id, "udp", "flow.NETWORK_GONE");
	rcu_publish(topology_networks[net->id], hidden);
}

static unsigned ingress_runs, egress_runs, refreshes, effects;
static uint16_t drop_next;

static void spy_ingress(struct worker *w, struct pkt **p, uint16_t n)
{
	assert_in_range(n, 1, BURST);
	ingress_runs += n;
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(p[i]->drop, 0);
		if (drop_next) {
			pkt_drop(p[i], drop_next, 0);
			drop_next = 0;
		}
	}
}

static void spy_egress(struct worker *w, struct pkt **p, uint16_t n)
{
	assert_in_range(n, 1, BURST);
	egress_runs += n;
	for (unsigned i = 0; i < n; i++)
		assert_int_not_equal(p[i]->out, 0);
}

static void spy_refresh(struct worker *w, const struct flow *f)
{
	refreshes++;
}

static uint16_t spy_resolve(struct resolve *r)
{
	while (resolve_effect(r))
		;
	assert_int_equal(r->n_effects, EFFECTS_MAX);
	if (r->key->dst[5] == 9) // more than a flow can depend on
		for (uint64_t i = 0; i < 20; i++)
			resolve_depend(r, GEN_FDB, i * 0x10001);
	for (int i = 0; i < 20; i++)
		resolve_because(r, r->in->row);
	if (r->key->dst[5] == 8)
		r->flow->stages &= ~(1ULL << r->stage); // nothing to do
	return 0;
}

static void spy_commit(struct worker *w, struct resolve *r, const struct effect *e)
{
	effects++;
}

static void stages_get_what_is_theirs(void **state)
{
	static struct stage in = {.name = "in", .run = spy_ingress, .resolve = spy_resolve, .refresh = spy_refresh, .commit = spy_commit};
	static struct stage out = {.name = "out", .run = spy_egress, .egress = true};
	struct stage *const list[] = {&stage_vlan, &stage_fdb, &in, &stage_output, &out, &stage_mtu};
	struct rte_mbuf *m[BURST];

	lab_setup_stages(list, 6);
	net = lab_network("blue", 10);
	a = lab_port("a", VLAN_ACCESS, net);
	b = lab_port("b", VLAN_ACCESS, net);
	lab_port("c", VLAN_ACCESS, net);
	lab_apply();
	ingress_runs = egress_runs = refreshes = effects = 0;
	lab_expect_ports(a->id, "udp", b->id, 3, 0);
	assert_int_equal(ingress_runs, 1); // once for each packet
	assert_int_equal(egress_runs, 2);  // once for each copy
	assert_int_equal(effects, EFFECTS_MAX - 1); // one of the eight is the fdb's
	lab_expect_trace("per packet: in out mtu");
	// A drop ends it; the others of the burst go on.
	drop_next = lab_reason("mtu.TOO_LARGE");
	for (unsigned i = 0; i < 4; i++)
		m[i] = packet("udp");
	lab_burst(a->id, m, 4);
	assert_int_equal(ingress_runs, 5);
	assert_int_equal(egress_runs, 8);
	assert_int_equal(lab.n_sent, 6);
	// The refresh comes once a second, while there are packets.
	for (int i = 0; i < 50; i++) {
		lab_send(a->id, "udp");
		lab_advance_ms(100);
	}
	assert_in_range(refreshes, 4, 5);
	// A stage without work is not called.
	unsigned before = ingress_runs;
	lab_send(a->id, "udp,dl_dst=02:00:00:00:00:08");
	assert_int_equal(ingress_runs, before);
	lab_expect_trace("per packet: out mtu");
	// Too many dependencies: right, and not cached.
	uint64_t uncached = lab_count(a->id, COUNT_UNCACHED);
	for (int i = 0; i < 3; i++)
		lab_expect_ports(a->id, "udp,dl_dst=02:00:00:00:00:09", b->id, 3, 0);
	assert_int_equal(lab_count(a->id, COUNT_UNCACHED), uncached + 3);
	assert_int_equal(lab_count(a->id, COUNT_BEYOND_PROFILE), 0);
}

// ---- the cache under attack

static void random_addresses(void **state)
{
	struct flow_table_config fc = {.limit = 1024, .idle_ms = 10000};
	struct rte_mbuf *m[BURST];
	enum { ATTACK = 20000 };
	uint64_t sent = 0;

	flow_table_configure(lab.w.flows, &fc);
	net->mac_limit = 100;
	lab_apply(); // of two ports each has a share of 256
	lab.w.miss_limit = MISS_MAX;
	lab.traced = lab.keep = false;
	lab_send(b->id, "udp,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01");
	uint64_t before = lab_count(b->id, COUNT_RESOLVED), total = lab.total_sent;
	srand(3);
	for (unsigned i = 0; i < ATTACK; i += BURST) {
		for (unsigned k = 0; k < BURST; k++)
			m[k] = numbered((unsigned)rand(), (unsigned)rand(), 0);
		lab_burst(a->id, m, BURST);
		if (i % 512 == 0)
			lab_send(b->id, "udp,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01");
		lab_advance_ms(1);
	}
	sent = lab_count(a->id, COUNT_SENT) + lab_all_drops(a->id);
	assert_int_equal(sent, lab_count(a->id, COUNT_RX));
	assert_true(lab_all_drops(a->id) < 100); // a random destination may be one that was learned here
	assert_true(lab.total_sent - total > ATTACK - 100);
	assert_true(lab_count(a->id, COUNT_UNCACHED) > 1000);
	assert_in_range(lab_flows(), 700, 1024);
	assert_in_range(lab_count(b->id, COUNT_RESOLVED), before, before + 1); // B's flow was left alone
	assert_true(lab_count(a->id, COUNT_FDB_REFUSED) > ATTACK / 2);
}

// ---- traces

static void a_wrong_flow_is_seen_by_a_trace(void **state)
{
	lab_send(b->id, "udp,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01");
	lab_expect_ports(a->id, "udp", b->id, 0);
	struct flow_view v = lab_flow(a->id);
	struct flow *f = NULL;
	uint64_t hash = key_hash(&v.key, v.cold.key_len);
	uint8_t len = v.cold.key_len;
	flow_table_lookup(lab.w.flows, &v.key, &len, &hash, 1, &f);
	f->vlan_op = VLAN_OP_PUSH;
	lab_send(a->id, "udp");
	lab_expect_trace("DEFECT: a fresh decision differs from the cached one: output to b");
	f->vlan_op = VLAN_OP_NONE;
	lab_expect_ports(a->id, "udp", b->id, 0);
}

// ---- explain

static void explain_changes_nothing(void **state)
{
	uint32_t epoch = gen_epoch;
	char *text = lab_explain(a->id, packet("udp"), NULL, NULL);

	assert_non_null(strstr(text, "is new, learned on a"));
	assert_non_null(strstr(text, "out by b"));
	free(text);
	assert_int_equal(lab_flows(), 0);
	assert_int_equal(gen_epoch, epoch);
	assert_int_equal(lab_count(a->id, COUNT_RX), 0);
	assert_int_equal(lab_count(0, COUNT_RX), 0);
	lab_expect_ports(a->id, "udp", b->id, 0);
	lab_expect_trace("is new, learned on a");
	text = lab_explain(99, packet("udp"), NULL, NULL);
	assert_non_null(strstr(text, "dropped (flow.PORT_GONE)"));
	free(text);
	text = lab_explain(a->id, lab_mbuf("abc", 3, 0), NULL, NULL);
	assert_non_null(strstr(text, "dropped (parse.RUNT)"));
	free(text);
}

// The reply is decided as if the request had been sent.
static void explain_a_reply(void **state)
{
	struct effect overlay[EFFECTS_MAX];
	uint8_t n = 0;

	lab_port("c", VLAN_ACCESS, net);
	lab_apply();
	char *text = lab_explain(a->id, packet("udp"), overlay, &n);
	assert_non_null(strstr(text, "out by c"));
	free(text);
	assert_int_equal(n, 1);
	text = lab_explain(b->id, packet("udp,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01"), overlay, &n);
	assert_non_null(strstr(text, "output to a"));
	assert_null(strstr(text, "out by c"));
	free(text);
	text = lab_explain(b->id, packet("udp,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01"), NULL, NULL);
	assert_non_null(strstr(text, "out by c"));
	free(text);
}

#define N_PORTS 9
#define N_NETS 3

static struct config_network *nets[N_NETS];
static struct config_port *ports[N_PORTS];

static void random_switch(void)
{
	static const char *const names[] = {"p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8"};

	nets[0] = lab_network("n0", 10);
	nets[1] = lab_network("n1", 20);
	nets[2] = lab_network("n2", 0);
	for (unsigned i = 0; i < N_PORTS; i++) {
		enum vlan_mode mode = (enum vlan_mode)(i % 5);

		ports[i] = lab_port(names[i], mode, mode == VLAN_TRUNK ? NULL : nets[i % 2]);
	}
	ports[5]->network = nets[2]->row;
}

static void shake(void)
{
	for (unsigned i = 0; i < N_NETS; i++) {
		nets[i]->flood_unknown = rand() % 4 != 0;
		nets[i]->learning = rand() % 4 != 0;
		nets[i]->forward_bpdu = rand() % 2;
		nets[i]->mac_limit = (uint32_t)(rand() % 3 ? 8192 : rand() % 5);
		nets[i]->flap_threshold = (uint32_t)rand() % 4;
	}
	for (unsigned i = 0; i < N_PORTS; i++) {
		ports[i]->enabled = rand() % 12 != 0;
		ports[i]->isolated = rand() % 3 == 0;
		ports[i]->mtu = (uint16_t)(rand() % 3 ? 0 : 1000 + rand() % 1000);
		ports[i]->mac_limit = (uint32_t)(rand() % 3 ? 0 : rand() % 5);
		ports[i]->storm_broadcast = (struct config_rate){(uint32_t)rand() % 2 * 50, 3};
		ports[i]->storm_unknown = (struct config_rate){(uint32_t)rand() % 2 * 50, 3};
	}
	lab.config->n_fdb = 0;
	lab_static(nets[0], ports[rand() % N_PORTS], "02:00:00:00:00:04");
	lab_apply();
}

static uint32_t random_frame(uint8_t *frame)
{
	static const char *const texts[] = {
		"udp", "tcp", "icmp", "arp", "udp6", "tcp6,nw_frag=first", "udp6,nw_frag=later", "icmp6", "sctp", "dl_type=0x88cc", "dl_type=0x05ff",
		"udp,packet_len=1200", "tcp,packet_len=1514", "udp6,packet_len=1400", "ip,nw_proto=47", "icmp6,icmpv6_type=135", "udp,nw_ttl=1",
	};
	uint32_t len = lab_compose(frame, texts[(unsigned)rand() % (sizeof texts / sizeof texts[0])]);

	for (int i = 0; i < 12; i += 6) {
		memset(frame + i, rand() % 10 == 0 ? 0xff : 0, 6);
		frame[i] |= (uint8_t)(rand() % 20 ? 2 : rand());
		frame[i + 5] = (uint8_t)(rand() % 6);
	}
	if (rand() % 30 == 0)
		memcpy(frame, "\x01\x80\xc2\0\0", 5);
	for (int tags = rand() % 8; tags >= 6; tags--)
		len = lab_tag(frame, len, rand() % 2 ? 0x8100 : 0x88a8, (uint16_t)rand());
	if (rand() % 2)
		len = lab_tag(frame, len, 0x8100, (uint16_t)((rand() & 0xf000) | (rand() % 8 == 0 ? rand() % 4096 : rand() % 3 * 10)));
	if (rand() % 8 == 0)
		frame[12 + (uint32_t)rand() % (len - 12)] = (uint8_t)rand();
	return rand() % 10 == 0 ? (uint32_t)rand() % (len + 1) : len;
}

// The frame as the port should send it, from what came in and the configuration alone (IEEE 802.1Q clause 6.9).
static uint32_t model(uint8_t *to, const uint8_t *frame, uint32_t len, const struct config_port *in, const struct config_port *out)
{
	bool tagged = len >= 18 && ((frame[12] == 0x81 && !frame[13]) || (frame[12] == 0x88 && frame[13] == 0xa8));
	uint16_t tci = tagged ? (uint16_t)(frame[14] << 8 | frame[15]) : 0, vid = tci & 0xfff;
	bool consumed = tagged && in->vlan_mode != VLAN_DOT1Q_TUNNEL;
	struct row_id id = consumed && vid ? nets[vid == 20]->row : in->network;
	const struct config_network *n = row_id_equal(&id, &nets[0]->row) ? nets[0] : row_id_equal(&id, &nets[1]->row) ? nets[1] : nets[2];
	bool out_tag = out->vlan_mode == VLAN_TRUNK || out->vlan_mode == VLAN_NATIVE_TAGGED ||
		       (out->vlan_mode == VLAN_NATIVE_UNTAGGED && !row_id_equal(&out->network, &n->row));
	uint16_t tpid = 0x8100;

	memcpy(to, frame, len);
	if (consumed && out_tag) {
		tpid = (uint16_t)(frame[12] << 8 | frame[13]);
	} else if (tagged && !consumed) {
		tpid = 0x88a8;
	}
	if (consumed) {
		memmove(to + 12, to + 16, len - 16);
		len -= 4;
	}
	return out_tag ? lab_tag(to, len, tpid, (uint16_t)((tci & 0xf000) | n->vlan)) : len;
}

// cmocka cuts long messages.
static void differs(unsigned seed, int round, const char *what, const char *how, const char *said)
{
	fprintf(stderr, "explained:\n%shappened:\n%s", said, lab.trace);
	fail_msg("seed %u round %d: %s %s", seed, round, what, how);
}

static void compare(unsigned seed, int round, const struct config_port *in, const uint8_t *frame, uint32_t len, const char *said,
		    const struct counts *before)
{
	struct counts now = {0};
	uint8_t want[COMPOSE_MAX + 4];
	char line[64];

	count_read(&lab.w.port[in->id]->counts, &now);
	for (unsigned i = 0; i < N_PORTS; i++) {
		unsigned got = 0;

		for (unsigned k = 0; k < lab.n_sent; k++) {
			if (lab.sent[k].port != ports[i]->id)
				continue;
			got++;
			if (ports[i] == in && strstr(said, "the sender is told")) // by an answer, which test_mtu looks at
				continue;
			uint32_t n = model(want, frame, len, in, ports[i]);
			if (n != lab.sent[k].len || memcmp(want, lab.sent[k].bytes, n))
				differs(seed, round, ports[i]->name, "other bytes", said);
		}
		snprintf(line, sizeof line, "out by %s\n", ports[i]->name);
		if (occurrences(said, line) != got)
			differs(seed, round, line, "not as often", said);
	}
	for (uint16_t r = 1; r < reason_count(); r++) {
		snprintf(line, sizeof line, "dropped (%s.%s)", reason_get(r)->module, reason_get(r)->name);
		if (occurrences(said, line) != now.drop[r] - before->drop[r])
			differs(seed, round, line, "not as often", said);
	}
	lab_reject_trace("DEFECT");
}

// Whatever comes in: explain says what happens, then it happens.
static void explain_predicts(void **state)
{
	unsigned seed = seed_of_run();
	const char *rounds = getenv("UNIT_ROUNDS");

	lab_setup();
	random_switch();
	srand(seed);
	for (int round = 0, last = rounds ? atoi(rounds) : 20000; round < last; round++) {
		const struct config_port *in;
		struct rte_mbuf *m[2];
		uint8_t frame[COMPOSE_MAX];

		if (round % 200 == 0)
			shake();
		in = ports[rand() % N_PORTS];
		uint32_t len = random_frame(frame), cut = rand() % 4 ? 0 : 20 + (uint32_t)rand() % 100;
		uint64_t flags = rand() % 8 ? 0 : rand() % 2 ? RTE_MBUF_F_RX_L4_CKSUM_NONE : RTE_MBUF_F_RX_LRO | RTE_MBUF_F_RX_L4_CKSUM_NONE;
		uint16_t segsz = (uint16_t)(40 + rand() % 1400);
		for (int i = 0; i < 2; i++) {
			m[i] = lab_mbuf(frame, len, cut);
			m[i]->ol_flags = flags;
			m[i]->tso_segsz = segsz;
		}
		char *said = lab_explain(in->id, m[0], NULL, NULL);
		struct counts before = {0};
		count_read(&lab.w.port[in->id]->counts, &before);
		lab.traced = rand() % 2; // a packet that nobody traces may take a shorter way
		lab_send_mbuf(in->id, m[1]);
		compare(seed, round, in, frame, len, said, &before);
		free(said);
		lab_advance_ms((uint64_t)rand() % 30);
		if (rand() % 500 == 0) {
			lab_advance_ms((uint64_t)rand() % 400000);
			lab_tick();
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(hit_miss_stale, setup, teardown),
		cmocka_unit_test_setup_teardown(others_changes_leave_a_flow_fresh, setup, teardown),
		cmocka_unit_test_setup_teardown(change_of_a_port_between_packets, setup, teardown),
		cmocka_unit_test_setup_teardown(unknown_ports, setup, teardown),
		cmocka_unit_test_setup_teardown(budget_leaves_the_rest_waiting, setup, teardown),
		cmocka_unit_test_setup_teardown(no_overtaking, setup, teardown),
		cmocka_unit_test_setup_teardown(a_trace_changes_no_order, setup, teardown),
		cmocka_unit_test_setup_teardown(a_batch_begins_within_a_burst, setup, teardown),
		cmocka_unit_test_setup_teardown(traced_and_others_keep_their_order, setup, teardown),
		cmocka_unit_test_setup_teardown(order_is_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(the_queue_has_a_bound, setup, teardown),
		cmocka_unit_test_setup_teardown(a_guest_waits_for_its_flows, setup, teardown),
		cmocka_unit_test_setup_teardown(a_port_goes_while_its_packets_wait, setup, teardown),
		cmocka_unit_test_setup_teardown(a_network_goes_while_packets_wait, setup, teardown),
		cmocka_unit_test_setup_teardown(copies_are_counted_and_whole, setup, teardown),
		cmocka_unit_test_setup_teardown(out_of_buffers, setup, teardown),
		cmocka_unit_test_setup_teardown(nobody_decides, setup_nothing, teardown),
		cmocka_unit_test_setup_teardown(a_network_goes_under_way, setup_nothing, teardown),
		cmocka_unit_test_setup_teardown(stages_get_what_is_theirs, setup_nothing, teardown),
		cmocka_unit_test_setup_teardown(random_addresses, setup, teardown),
		cmocka_unit_test_setup_teardown(a_wrong_flow_is_seen_by_a_trace, setup, teardown),
		cmocka_unit_test_setup_teardown(explain_changes_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(explain_a_reply, setup, teardown),
		cmocka_unit_test_setup_teardown(explain_predicts, setup_nothing, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
