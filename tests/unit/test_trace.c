// trace: records that are formatted when they are read; shared by copies; bounded.
#include "lab.h"
#include "sampler.h"

#include <jansson.h>
#include <stdio.h>
#include <rte_cycles.h>

static struct config_port *a, *b;

static int setup(void **state)
{
	lab_setup();
	struct config_network *net = lab_network("blue", 10);
	a = lab_port("a", VLAN_ACCESS, net);
	b = lab_port("b", VLAN_TRUNK, NULL);
	lab_apply();
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

static void lines(void **state)
{
	lab_expect_ports(a->id, "tcp,nw_ttl=1,tcp_flags=ack", b->id, 0);
	lab_expect_trace("  rx         from a, 60 bytes, 02:00:00:00:00:01 > 02:00:00:00:00:02, type 0x0800, protocol 6, class ttl<=1\n");
	lab_expect_trace("  flow       no cached flow, resolving\n");
	lab_expect_trace("  vlan       port a (access), untagged: network blue\n");
	lab_expect_trace("  decision   flooded to every other port of network blue; per packet: mtu\n");
	lab_expect_trace("  flood      a copy for b\n");
	lab_expect_trace("  tx         out by b\n");
	lab_expect_ports(b->id, "udp6,dl_vlan=10,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01", a->id, 0);
	lab_expect_trace("VLAN 10, type 0x86dd");
	lab_expect_trace("  vlan       port b (trunk), VLAN 10: network blue\n");
	lab_expect_trace("output to a, outer tag taken off");
	lab_expect_ports(a->id, "udp", b->id, 0);
	lab_expect_trace("output to b, tagged with VLAN 10");
	lab_expect_ports(a->id, "udp", b->id, 0);
	lab_expect_trace("  flow       cached flow ");
	assert_int_equal(lab.traces, 4);
	// One line for each record, however it ends.
	lab_expect_drop_frame(a->id, "\2\0\0\0\0\2\2\0\0\0\0\1\x08\6", 14, "parse.ARP");
	assert_int_equal(lab.traces, 5);
	lab_expect_drop(a->id, "udp,dl_src=01:00:00:00:00:01", "vlan.GROUP_SOURCE");
	lab_expect_trace("  decision   drop: the source address is a group address\n");
}

static void the_tag_of_one_network_to_another_port(void **state)
{
	struct config_port *c = lab_port("c", VLAN_TRUNK, NULL);

	lab_apply();
	lab_send(c->id, "udp,dl_vlan=10,dl_src=02:00:00:00:00:03,dl_dst=02:00:00:00:00:01");
	lab_expect_ports(b->id, "udp,dl_vlan=10,dl_dst=02:00:00:00:00:03", c->id, 0);
	lab_expect_trace("output to c, VLAN set to 10");
}

static void copies_share_one(void **state)
{
	for (int i = 0; i < 8; i++) {
		char name[8];

		snprintf(name, sizeof name, "c%d", i);
		lab_port(name, VLAN_ACCESS, &lab.config->networks[0])->mtu = i % 2 ? 1500 : 1000;
	}
	lab_apply();
	lab_send(a->id, "udp,packet_len=1214");
	assert_int_equal(lab.n_sent, 5);
	assert_int_equal(lab.traces, 1); // finished once, with the last of them
	lab_expect_trace("out by c7");
	lab_expect_trace("1200 bytes against MTU 1000 of c0: too large");
	lab_expect_trace("dropped (mtu.TOO_LARGE)");
}

static unsigned finished;

static void done(struct trace *t, void *arg)
{
	assert_ptr_equal(arg, &finished);
	finished++;
}

static void references(void **state)
{
	struct trace t = {.done = done, .arg = &finished, .refs = 1};

	finished = 0;
	trace_ref(NULL);
	trace_unref(NULL);
	trace_ref(&t);
	trace_unref(&t);
	assert_int_equal(finished, 0);
	trace_unref(&t);
	assert_int_equal(finished, 1);
}

static void what_does_not_fit_is_counted(void **state)
{
	static struct trace t;
	struct core_record r = {.kind = CORE_MISS};
	struct buf text = {0};
	unsigned n = 0;

	memset(&t, 0, sizeof t);
	for (; !t.lost; n++)
		trace_put(&t, TRACE_CORE, &r, sizeof r);
	for (int i = 0; i < 9; i++)
		trace_put(&t, TRACE_CORE, &r, sizeof r);
	assert_int_equal(t.lost, 10);
	assert_true(t.used <= TRACE_ROOM);
	trace_format(&t, &text, false, 0);
	assert_non_null(strstr(text.text, "(10 more records did not fit)"));
	free(text.text);
	// A small one may still fit.
	json_t *j = trace_json(&t, 0);
	assert_int_equal(json_array_size(j), n - 1);
	json_decref(j);
}

static void keep_kind(void *arg, const struct core_record *r)
{
	unsigned *n = arg;

	assert_in_range(r->kind, CORE_MISS, CORE_DROPPED);
	n[r->kind]++;
}

// As much as its owner gives it room for; the core's records can be gone through.
static void more_room(void **state)
{
	struct trace t = {.more = malloc(1 << 16), .room = 1 << 16};
	struct core_record r = {.kind = CORE_MISS};
	unsigned n = 0, kinds[CORE_DIFFERS] = {0};

	for (; !t.lost; n++)
		trace_put(&t, TRACE_CORE, &r, sizeof r);
	assert_true(t.used > TRACE_ROOM && t.used <= 1 << 16 && (1 << 16) - t.used < 100);
	trace_each_core(&t, keep_kind, kinds);
	assert_int_equal(kinds[CORE_MISS], n - 1);
	t.used = 0;
	r.kind = CORE_DROPPED;
	trace_put(&t, TRACE_CORE, &r, sizeof r);
	trace_put(&t, 0, &r, 8); // a stage's
	r.kind = CORE_CHANGED;
	trace_put(&t, TRACE_CORE, &r, 4);
	trace_each_core(&t, keep_kind, kinds);
	assert_int_equal(kinds[CORE_DROPPED], 1);
	free(t.more);
}

static void as_json_and_with_times(void **state)
{
	static struct trace t;
	struct core_record r = {.kind = CORE_RECEIVED, .port = a->id, .len = 60, .ethertype = 0x800};
	struct buf text = {0};

	memset(&t, 0, sizeof t);
	t.start = rte_rdtsc();
	trace_put(&t, TRACE_CORE, &r, sizeof r);
	r = (struct core_record){.kind = CORE_SENT, .port = 4000};
	trace_put(&t, TRACE_CORE, &r, sizeof r);
	r = (struct core_record){.kind = CORE_DECIDED, .out_kind = OUT_NONE};
	trace_put(&t, TRACE_CORE, &r, sizeof r);
	r = (struct core_record){.kind = CORE_DECIDED, .out_kind = OUT_FLOOD, .network = 4000};
	trace_put(&t, TRACE_CORE, &r, sizeof r);
	r = (struct core_record){.kind = CORE_QUEUED, .port = 0};
	trace_put(&t, TRACE_CORE, &r, sizeof r);
	json_t *j = trace_json(&t, 1000000000);
	assert_int_equal(json_array_size(j), 5);
	assert_string_equal(json_string_value(json_object_get(json_array_get(j, 0), "stage")), "rx");
	assert_non_null(strstr(json_string_value(json_object_get(json_array_get(j, 0), "text")), "from a, 60 bytes"));
	assert_true(json_is_integer(json_object_get(json_array_get(j, 0), "ns")));
	assert_string_equal(json_string_value(json_object_get(json_array_get(j, 1), "text")), "out by a port that is gone");
	assert_string_equal(json_string_value(json_object_get(json_array_get(j, 2), "text")), "no output");
	assert_non_null(strstr(json_string_value(json_object_get(json_array_get(j, 3), "text")), "network that is gone"));
	assert_non_null(strstr(json_string_value(json_object_get(json_array_get(j, 4), "text")), "the switch"));
	json_decref(j);
	trace_format(&t, &text, true, 1000000000);
	assert_non_null(strstr(text.text, " ns  rx         from a"));
	free(text.text);
}

// ---- time

#define SPIN 500000 // ticks

static void spin(void)
{
	uint64_t from = rte_rdtsc();

	while (rte_rdtsc() - from < SPIN)
		;
}

static uint16_t slow_resolve(struct resolve *r)
{
	uint8_t nothing = 0;

	resolve_record(r, &nothing, sizeof nothing);
	spin(); // behind its record: what it takes is its own all the same
	return 0;
}

static void slow_run(struct worker *w, struct pkt **p, uint16_t n)
{
	for (unsigned i = 0; i < n; i++) {
		uint8_t nothing = 0;

		spin();
		if (p[i]->trace)
			trace_put(p[i]->trace, stage_find("slow")->index, &nothing, sizeof nothing);
	}
}

static void slow_format(struct buf *text, const void *record, uint16_t size)
{
	buf_add(text, "slow");
}

static struct stage stage_slow = {.name = "slow", .resolve = slow_resolve, .run = slow_run, .format = slow_format};

static json_t *timed;

static void keep_times(struct trace *t, void *arg)
{
	json_decref(timed);
	timed = trace_json(t, 1000000000); // a nanosecond a tick
}

static uint32_t mark_one(struct worker *w, struct tracer *tracer, uint16_t port, struct rte_mbuf **m, unsigned n, struct trace **t)
{
	static struct trace one;

	memset(&one, 0, sizeof one);
	one.done = keep_times;
	one.refs = 1;
	t[0] = &one;
	return 1;
}

static json_int_t took(size_t line)
{
	return json_integer_value(json_object_get(json_array_get(timed, line), "took_ns"));
}

// Index of the first line at or behind `from` of that stage with that text.
static size_t line_of(size_t from, const char *stage, const char *text)
{
	for (size_t i = from; i < json_array_size(timed); i++) {
		const json_t *l = json_array_get(timed, i);

		if (!strcmp(json_string_value(json_object_get(l, "stage")), stage) && strstr(json_string_value(json_object_get(l, "text")), text))
			return i;
	}
	fail_msg("no line %s %s", stage, text);
	return 0;
}

// Each line has the time that the packet spent in it, and together they are all of its time.
static void time_of_stages_and_queues(void **state)
{
	struct stage *list[MAX_STAGES];
	unsigned n = 0;
	json_int_t sum = 0, last = 0;

	for (; n < stage_list_n; n++)
		list[n] = stage_list[n];
	list[n++] = list[2]; // rule, which nobody needs here
	list[2] = &stage_slow;
	lab_setup_stages(list, n);
	struct config_network *net = lab_network("blue", 10);
	uint16_t in = lab_port("a", VLAN_ACCESS, net)->id;
	lab_port("b", VLAN_ACCESS, net);
	lab_apply();
	lab.w.mark = mark_one;
	lab.w.resolve_budget = 0;
	lab_send(in, "udp");
	spin(); // while it waits to be resolved
	lab.w.resolve_budget = 1;
	forward_misses(&lab.w, in);
	spin(); // and in the batch of its egress port
	lab_flush();
	assert_non_null(timed);
	size_t waited = line_of(0, "flow", "waits to be resolved"), missed = line_of(waited, "flow", "no cached flow");
	size_t resolved = line_of(missed, "slow", ""), run = line_of(resolved + 1, "slow", "");
	assert_true(took(missed) >= SPIN);
	assert_true(took(resolved) >= SPIN);
	assert_true(took(run) >= SPIN);
	assert_true(took(line_of(run, "tx", "out by b")) >= SPIN);
	for (size_t i = 0; i < json_array_size(timed); i++) {
		json_int_t at = json_integer_value(json_object_get(json_array_get(timed, i), "ns"));

		assert_true(at >= last);
		last = at;
		sum += took(i);
	}
	assert_int_equal(sum, last);
	json_decref(timed);
	timed = NULL;
	lab_teardown();
}

// Every stage of the pipeline can say what it found.
static void every_stage_speaks(void **state)
{
	for (unsigned i = 0; i < stage_list_n; i++) {
		if (!stage_list[i]->format)
			fail_msg("stage %s has no format", stage_list[i]->name);
	}
	lab_send(b->id, "udp,dl_vlan=10,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01");
	lab_expect_ports(a->id, "udp", b->id, 0);
	for (unsigned i = 0; i < stage_list_n; i++) {
		static const char *const speak[] = {"vlan", "fdb", "isolation", "output", "mtu"};
		char line[32];

		// The others have nothing to do for such a packet: there are neither rules nor limits, routers nor tunnels. Their own tests have some.
		snprintf(line, sizeof line, "  %-10s ", stage_list[i]->name);
		for (unsigned k = 0; k < RTE_DIM(speak); k++)
			if (!strcmp(stage_list[i]->name, speak[k]))
				lab_expect_trace(line);
	}
}

// ---- samples

static void samples(void **state)
{
	static const uint32_t every[] = {1, 2, 10, 1000};

	srand(1);
	for (unsigned i = 0; i < sizeof every / sizeof every[0]; i++) {
		struct sampler s;
		uint32_t packets = 0, picked = 0, gap = 0, longest = 0;

		sampler_start(&s, every[i], 42 + i);
		while (packets < 1000 * every[i]) {
			unsigned n = 1 + (unsigned)rand() % BURST;
			uint32_t bits = sampler_pick(&s, n);

			assert_int_equal((uint64_t)bits >> n, 0);
			for (unsigned k = 0; k < n; k++, gap++) {
				if (!(bits >> k & 1))
					continue;
				picked++;
				longest = gap > longest ? gap : longest;
				gap = 0;
			}
			packets += n;
		}
		assert_in_range(picked, 900 * packets / (1000 * every[i]), 1100 * packets / (1000 * every[i]));
		assert_in_range(longest, every[i] == 1 ? 1 : every[i] + every[i] / 2, 2 * every[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(lines, setup, teardown),
		cmocka_unit_test_setup_teardown(the_tag_of_one_network_to_another_port, setup, teardown),
		cmocka_unit_test_setup_teardown(copies_share_one, setup, teardown),
		cmocka_unit_test_setup_teardown(references, setup, teardown),
		cmocka_unit_test_setup_teardown(what_does_not_fit_is_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(more_room, setup, teardown),
		cmocka_unit_test_setup_teardown(as_json_and_with_times, setup, teardown),
		cmocka_unit_test(time_of_stages_and_queues),
		cmocka_unit_test_setup_teardown(every_stage_speaks, setup, teardown),
		cmocka_unit_test(samples),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
