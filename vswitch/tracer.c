// tracer: follows real packets. Workers mark packets of their bursts and fill traces; this side collects and prints them.
//
// A full set of traces loses traces, never packets, and says how many.
#include "verbs.h"
#include "clock.h"
#include "filter.h"
#include "port.h"
#include "sampler.h"
#include "sentence.h"
#include "stage.h"
#include "thread.h"

#include <errno.h>
#include <limits.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <rte_ring.h>

#define TRACES 256
#define READ_AT_ONCE 64
#define ABANDONED_MS 10000 // a reader that did not come for this long is gone
#define SAMPLE_MAX 1000000000u

// What a worker has of its own of it.
struct seat {
	struct sampler sampler;
	uint64_t lost; // packets that were wanted when no trace was free
} __rte_cache_aligned;

struct tracer {
	unsigned id;
	uint16_t port;          // 0: all
	bool has_filter;
	struct bpf_program filter;
	bool json;
	uint64_t limit;         // packets to trace at most
	uint64_t given;         // how often a trace was given to the workers: never more than `limit` times
	bool all_given;         // what finds no trace now is beyond the limit, and not lost
	uint64_t shown;
	uint64_t lost_told;     // of the sum of what was lost
	long long read_ms;
	struct rte_ring *spare; // traces that can be used
	struct rte_ring *done;  // those that are finished
	unsigned kept;          // those that are not given any more
	struct tracer *next;    // of those that are ending
	struct seat seat[MAX_WORKERS];
	struct trace trace[TRACES];
};

static struct tracer *active, *ending;
static unsigned last_id;
static uint64_t wall_offset; // from the workers' clock to the wall clock

// ---- on workers

static void finished(struct trace *t, void *arg)
{
	struct tracer *tr = arg;

	rte_ring_enqueue(tr->done, t); // there is room for all
}

static struct trace *begin(struct worker *w, struct tracer *tr, uint16_t port)
{
	uint64_t *lost = &tr->seat[w->id].lost;
	void *spare;

	if (rte_ring_dequeue(tr->spare, &spare)) {
		if (!__atomic_load_n(&tr->all_given, __ATOMIC_RELAXED))
			__atomic_store_n(lost, *lost + 1, __ATOMIC_RELAXED);
		return NULL;
	}
	struct trace *t = spare;
	t->done = finished;
	t->arg = tr;
	t->refs = 1;
	t->used = t->lost = 0;
	t->in_port = port;
	t->wall = w->now;
	return t;
}

// Of the packets that the sampler picks, those that match are traced.
static uint32_t mark(struct worker *w, struct tracer *tr, uint16_t port, struct rte_mbuf **m, unsigned n, struct trace **t)
{
	uint32_t traced = 0;

	if (tr->port && tr->port != port)
		return 0;
	for (uint32_t left = sampler_pick(&tr->seat[w->id].sampler, n); left; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctz(left);

		if (tr->has_filter && !filter_match(&tr->filter, m[i]))
			continue;
		t[i] = begin(w, tr, port);
		traced |= t[i] ? 1u << i : 0;
	}
	return traced;
}

static void set_tracer(struct worker *w, void *arg)
{
	w->mark = mark;
	rcu_publish(w->tracer, arg);
	w->watch = arg ? w->watch | WATCH_TRACE : w->watch & ~WATCH_TRACE;
}

// ---- on the main thread

static struct rte_ring *ring_new(const char *name)
{
	struct rte_ring *r = aligned_alloc(RTE_CACHE_LINE_SIZE, (size_t)rte_ring_get_memsize(TRACES * 2));

	if (r && rte_ring_init(r, name, TRACES * 2, 0)) {
		free(r);
		return NULL;
	}
	return r;
}

static void tracer_free(struct tracer *t)
{
	if (t->has_filter)
		pcap_freecode(&t->filter);
	free(t->spare);
	free(t->done);
	free(t);
}

static void stop(void)
{
	if (!active)
		return;
	thread_call(set_tracer, NULL);
	log_event('d', "trace", LOG_FIELDS({"trace", LOG_NUMBER(active->id)}, {"shown", LOG_NUMBER(active->shown)}), "trace %u ends", active->id);
	active->next = ending;
	ending = active;
	active = NULL;
}

void tracer_run(long long now_ms)
{
	if (active && now_ms - active->read_ms > ABANDONED_MS) {
		log_event('i', "trace", LOG_FIELDS({"trace", LOG_NUMBER(active->id)}), "trace %u is ended: nobody has read it for %d s", active->id,
			  ABANDONED_MS / 1000);
		stop();
	}
	for (unsigned i = 0; active && i < MAX_WORKERS; i++) { // workers that came later
		const struct worker *w = thread_worker(i);

		if (w && w->tracer != active)
			thread_call(set_tracer, active);
	}
	// Packets may carry a trace for as long as they wait in a queue.
	for (struct tracer **at = &ending; *at;) {
		struct tracer *t = *at;

		if (rte_ring_count(t->spare) + rte_ring_count(t->done) + t->kept < TRACES) {
			at = &t->next;
			continue;
		}
		*at = t->next;
		tracer_free(t);
	}
}

void tracer_stop_all(void)
{
	stop();
}

// To the workers, unless they have had as many as were asked for.
static void give(struct tracer *t, struct trace *trace)
{
	if (t->given == t->limit) {
		t->kept++;
		return;
	}
	if (++t->given == t->limit)
		__atomic_store_n(&t->all_given, true, __ATOMIC_RELAXED);
	rte_ring_enqueue(t->spare, trace);
}

static struct tracer *tracer_new(const char *port, const char *filter, const char *count, const char *sample, char **error)
{
	struct tracer *t = aligned_alloc(alignof(struct tracer), sizeof *t);
	const struct port *p = port ? port_find(port) : NULL;
	unsigned long every = 1;
	char *end = NULL;

	if (!t)
		return NULL;
	memset(t, 0, sizeof *t);
	t->limit = count ? strtoull(count, &end, 10) : UINT64_MAX;
	if (count && (*end || !t->limit))
		sentence_set(error, "--count wants a number of packets, not \"%s\"", count);
	if (sample) {
		every = strtoul(strncmp(sample, "1/", 2) ? sample : sample + 2, &end, 10);
		if (*end || !every || every > SAMPLE_MAX)
			sentence_set(error, "--sample wants 1/N, with N from 1 to %u, not \"%s\"", SAMPLE_MAX, sample);
	}
	if (port && !p)
		sentence_set(error, "there is no port %s", port);
	t->port = p ? p->id : 0;
	if (!*error && filter)
		t->has_filter = !filter_compile(&t->filter, filter, error);
	t->spare = ring_new("spare");
	t->done = ring_new("done");
	if (*error || !t->spare || !t->done) {
		tracer_free(t);
		return NULL;
	}
	for (unsigned i = 0; i < MAX_WORKERS; i++)
		sampler_start(&t->seat[i].sampler, (uint32_t)every, rte_rdtsc() + i);
	for (unsigned i = 0; i < TRACES; i++)
		give(t, &t->trace[i]);
	return t;
}

static void trace_start(struct control_request *r, int argc, const char *argv[], void *aux)
{
	bool json = verbs_take_json(&argc, argv);
	char *error = NULL;
	const char *port = verbs_take_option(&argc, argv, "port", &error), *filter = verbs_take_option(&argc, argv, "filter", &error);
	const char *count = verbs_take_option(&argc, argv, "count", &error), *sample = verbs_take_option(&argc, argv, "sample", &error);
	char text[32];

	if (argc > 1)
		sentence_set(&error, "trace doesn't know \"%s\": it takes --port, --filter, --count and --sample", argv[1]);
	if (active)
		sentence_set(&error, "a trace is running already: end it first, or wait %d s if its reader is gone", ABANDONED_MS / 1000);
	struct tracer *t = error ? NULL : tracer_new(port, filter, count, sample, &error);
	if (!t) {
		verbs_refuse(r, "%s", error ? error : "out of memory");
		free(error);
		return;
	}
	struct timespec wall;
	clock_gettime(CLOCK_REALTIME, &wall);
	wall_offset = (uint64_t)wall.tv_sec * 1000000000ULL + (uint64_t)wall.tv_nsec - clock_ns();
	t->id = ++last_id;
	t->json = json;
	t->read_ms = loop_msec();
	active = t;
	thread_call(set_tracer, t);
	log_event('d', "trace", LOG_FIELDS({"trace", LOG_NUMBER(t->id)}, {"port", port}, {"filter", filter}, {"count", count}, {"sample", sample}),
		  "trace %u begins", t->id);
	snprintf(text, sizeof text, "%u\n", t->id);
	control_reply(r, text);
}

static void show(struct tracer *tr, const struct trace *t, struct buf *b)
{
	const struct port *p = port_get(t->in_port);
	uint64_t wall = t->wall + wall_offset;
	time_t s = (time_t)(wall / 1000000000ULL);
	struct tm tm;
	char when[32];

	localtime_r(&s, &tm);
	strftime(when, sizeof when, "%H:%M:%S", &tm);
	tr->shown++;
	if (tr->json) {
		json_t *o = json_pack("{s:I, s:f, s:s, s:o}", "packet", (json_int_t)tr->shown, "time", (double)wall / 1e9, "port", p ? p->name : "?",
				      "steps", trace_json(t, rte_get_tsc_hz()));
		char *dump = json_dumps(o, JSON_COMPACT);

		buf_add(b, "%s\n", dump ? dump : "{}");
		free(dump);
		json_decref(o);
		return;
	}
	buf_add(b, "packet %llu at %s.%06llu on %s:\n", (unsigned long long)tr->shown, when, (unsigned long long)(wall % 1000000000ULL / 1000),
		p ? p->name : "?");
	trace_format(t, b, true, rte_get_tsc_hz());
}

static struct tracer *by_id(const char *text)
{
	return active && active->id == strtoul(text, NULL, 10) ? active : NULL;
}

static void trace_read(struct control_request *r, int argc, const char *argv[], void *aux)
{
	struct tracer *t = by_id(argv[1]);
	struct buf b = {0};
	void *trace;

	if (!t) {
		control_reply(r, "end\n");
		return;
	}
	t->read_ms = loop_msec();
	for (unsigned i = 0; i < READ_AT_ONCE && !rte_ring_dequeue(t->done, &trace); i++) {
		show(t, trace, &b);
		give(t, trace);
	}
	uint64_t lost = 0;
	for (unsigned i = 0; i < MAX_WORKERS; i++)
		lost += __atomic_load_n(&t->seat[i].lost, __ATOMIC_RELAXED);
	lost -= t->lost_told;
	t->lost_told += lost;
	if (lost)
		buf_add(&b, t->json ? "{\"lost\": %llu}\n" : "(%llu packets more matched, but came faster than they could be traced)\n",
			(unsigned long long)lost);
	if (!b.len && t->shown == t->limit) {
		stop();
		buf_add(&b, "end\n");
	}
	control_reply(r, b.text ? b.text : "");
	free(b.text);
}

static void trace_stop(struct control_request *r, int argc, const char *argv[], void *aux)
{
	if (by_id(argv[1]))
		stop();
	control_reply(r, "");
}

void tracer_init(void)
{
	control_register("trace/start", "[--json] [--port PORT] [--filter EXPRESSION] [--count N] [--sample 1/N]", 0, 16, trace_start, NULL);
	control_register("trace/read", "ID", 1, 1, trace_read, NULL);
	control_register("trace/stop", "ID", 1, 1, trace_stop, NULL);
}
