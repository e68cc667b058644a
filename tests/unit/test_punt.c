// punt: packets to the main thread and back: each ending, the bounds, and new packets.
#include "lab.h"
#include "adjacency.h"
#include "punt.h"

#define TEST_REASONS(X) X(own, NO, "the test says so")
STAGE_REASONS(own, TEST_REASONS);

enum { DO_CONSUME, DO_DROP, DO_RESUME, DO_RUN, DO_HOLD, DO_COPY, DO_ROUTE, DO_END };

static struct config_port *a, *b;
static uint8_t what; // that the stage decides for
static uint16_t arg_seen;
static unsigned seen, held;
static struct rte_mbuf *holds[2 * PUNT_PORT_MAX];

static uint16_t own_resolve(struct resolve *r)
{
	if (what == DO_ROUTE) {
		r->flow->adj = 9;
		r->flow->stages &= ~(1ULL << r->stage);
		return 0;
	}
	r->flow->flags |= FLOW_UNCACHED;
	r->flow->stages &= what == DO_COPY ? ~0ULL : ~(1ULL << r->stage);
	if (what == DO_END)
		return 0;
	if (what != DO_COPY)
		resolve_punt(r, what, 77);
	return 0;
}

static void own_run(struct worker *w, struct pkt **p, uint16_t n)
{
	for (unsigned i = 0; i < n; i++)
		punt_copy(w, p[i], stage_own.index, DO_CONSUME, 5);
}

static void send_on(struct worker *w, struct rte_mbuf *m, uint16_t arg)
{
	pkt_of(m)->out = arg;
	worker_tx(w, &m, 1);
}

static void own_punted(struct rte_mbuf *m, uint8_t kind, uint16_t arg)
{
	seen++;
	arg_seen = arg;
	switch (kind) {
	case DO_CONSUME:
		punt_consume(m);
		break;
	case DO_DROP:
		punt_drop(m, STAGE_REASON(own, NO), 0);
		break;
	case DO_RESUME:
		what = DO_END;
		punt_resume(m);
		break;
	case DO_RUN:
		punt_run(m, send_on, b->id);
		break;
	default:
		holds[held++] = m;
	}
}

static void own_release(void)
{
	while (held)
		punt_drop(holds[--held], PUNT_REASON(CLOSED), 0);
}

STAGE(own, .resolve = own_resolve, .run = own_run, .punted = own_punted, .release = own_release);

static int setup(void **state)
{
	struct stage *list[64];
	unsigned n = 0;

	for (unsigned i = 0; i < stage_list_n; i++) {
		list[n++] = stage_list[i];
		if (!strcmp(stage_list[i]->name, "fdb"))
			list[n++] = &stage_own;
	}
	lab_setup_stages(list, n);
	struct config_network *net = lab_network("blue", 10);
	a = lab_port("a", VLAN_ACCESS, net);
	b = lab_port("b", VLAN_ACCESS, net);
	lab_apply();
	seen = held = 0;
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

static void endings(void **state)
{
	what = DO_CONSUME;
	lab_expect_ports(a->id, "udp", 0);
	lab_expect_trace("own        to the switch's own stack, for own\n");
	lab_expect_trace("own        the switch itself takes it\n");
	assert_int_equal(lab_count(a->id, COUNT_CONSUMED), 1);
	assert_int_equal(arg_seen, 77);
	what = DO_DROP;
	lab_expect_drop(a->id, "udp", "own.NO");
	what = DO_RESUME;
	lab_expect_ports(a->id, "udp", b->id, 0);
	what = DO_RUN;
	lab_expect_ports(a->id, "udp", b->id, 0);
	assert_int_equal(seen, 4);
	assert_int_equal(lab_count(a->id, COUNT_QUEUED), 0);
}

static void copies(void **state)
{
	what = DO_COPY;
	lab_expect_ports(a->id, "udp", b->id, 0);
	assert_int_equal(lab_count(a->id, COUNT_COPIES), 1);
	assert_int_equal(lab_count(a->id, COUNT_CONSUMED), 1);
	assert_int_equal(arg_seen, 5);
	lab_few_buffers(0); // the copy is lost, which is counted, and the packet goes on
	lab_send(a->id, "udp");
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab_drops(a->id, "punt.QUEUE_FULL"), 1);
	lab_few_buffers(-1);
}

static void bounds(void **state)
{
	what = DO_HOLD;
	for (unsigned i = 0; i < PUNT_PORT_MAX; i++)
		lab_send(a->id, "udp");
	assert_int_equal(held, PUNT_PORT_MAX);
	assert_int_equal(lab_count(a->id, COUNT_QUEUED), PUNT_PORT_MAX);
	lab_expect_drop(a->id, "udp", "punt.QUEUE_FULL");
	lab_send(b->id, "udp,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01"); // another port has room of its own
	assert_int_equal(held, PUNT_PORT_MAX + 1);
	stages_release();
	lab_flush();
	assert_int_equal(lab_drops(a->id, "punt.CLOSED"), PUNT_PORT_MAX);
	lab_send(a->id, "udp");
	assert_int_equal(held, 1);
}

static void new_packets(void **state)
{
	uint8_t frame[LAB_FRAME], *data;
	uint32_t len = lab_compose(frame, "udp,dl_src=02:00:00:00:00:01");
	struct rte_mbuf *m = punt_new((uint16_t)len, &data);

	what = DO_END;
	memcpy(data, frame, len);
	lab_forget_sent();
	punt_send(m, a->id);
	lab_flush();
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab.sent[0].port, b->id);
	assert_int_equal(lab_count(a->id, COUNT_GENERATED), 1);
	assert_int_equal(lab_count(a->id, COUNT_RX), 0);
	m = punt_new((uint16_t)len, &data);
	memcpy(data, frame, len);
	lab_forget_sent();
	punt_emit(m, a->id);
	lab_flush();
	assert_int_equal(lab.sent[0].port, a->id);
	m = punt_new((uint16_t)len, &data); // to a port that is not there
	punt_send(m, 4000);
	lab_flush();
	assert_null(punt_new(PKT_BUF_SIZE + 1, &data));
}

// A packet that a cached flow routes is changed on the shortest way; its IPv4 header is looked at there.
static void routed(void **state)
{
	uint8_t frame[LAB_FRAME];
	uint32_t len = lab_compose(frame, "udp,nw_ttl=64");

	what = DO_END;
	lab_send(b->id, "udp,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01"); // so that it isn't flooded
	what = DO_ROUTE;
	lab.traced = false;
	adjacencies[9] = (struct adjacency){.dst = {2, 9, 9, 9, 9, 1}, .src = {2, 9, 9, 9, 9, 2}};
	for (unsigned i = 0; i < 3; i++) {
		lab_send_frame(a->id, frame, len);
		assert_int_equal(lab.n_sent, 1);
	}
	assert_memory_equal(lab.sent[0].bytes, &adjacencies[9], 12);
	assert_int_equal(lab.sent[0].bytes[22], 63);
	assert_true(adjacency_sum_right(lab.sent[0].bytes + 14));
	frame[24] ^= 1;
	lab_send_frame(a->id, frame, len);
	assert_int_equal(lab_drops(a->id, "flow.CHECKSUM"), 1);
	len = lab_compose(frame, "udp6,nw_ttl=64");
	lab_send_frame(a->id, frame, len);
	lab_send_frame(a->id, frame, len);
	assert_int_equal(lab.sent[0].bytes[21], 63);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(endings, setup, teardown),
		cmocka_unit_test_setup_teardown(copies, setup, teardown),
		cmocka_unit_test_setup_teardown(bounds, setup, teardown),
		cmocka_unit_test_setup_teardown(new_packets, setup, teardown),
		cmocka_unit_test_setup_teardown(routed, setup, teardown),
	};
	lab_eal();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
