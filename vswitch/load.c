// load: see load.h.
#include "load.h"
#include "clock.h"
#include "egress.h"
#include "fdb.h"
#include "stage.h"
#include "thread.h"
#include "verbs.h"

#include <string.h>
#include <rte_cycles.h>
#include <rte_mempool.h>

struct column {
	const char *key, *heading;
};

static struct listing *new_listing(const struct column *c, size_t n)
{
	struct listing *l = listing_new();

	for (size_t i = 0; i < n; i++)
		listing_column(l, c[i].key, c[i].heading);
	return l;
}

#define NEW_LISTING(columns) new_listing(columns, sizeof(columns) / sizeof *(columns))

// ---- sums

void load_port(const struct port *p, struct port_load *sum)
{
	load_read(&p->retired_load, sum);
	for (unsigned i = 0; i < MAX_WORKERS; i++) {
		const struct worker *w = thread_worker(i);
		const struct port_worker *pw = p->id ? p->pw[i] : w ? w->port[0] : NULL;

		if (pw)
			load_read(&pw->load, sum);
	}
}

struct worker_sum {
	unsigned worker;
	struct port_load *sum;
};

static void add_port(struct port *p, void *arg)
{
	const struct worker_sum *s = arg;

	if (p->pw[s->worker])
		load_read(&p->pw[s->worker]->load, s->sum);
}

void load_worker(unsigned worker, struct port_load *sum)
{
	struct worker_sum arg = {worker, sum};
	const struct worker *w = thread_worker(worker);

	if (!w)
		return;
	load_read(&w->port[0]->load, sum);
	port_each(add_port, &arg);
}

struct port_queues load_queues(const struct port *p)
{
	struct port_queues q = {0};

	for (unsigned i = 0; i < MAX_WORKERS; i++) {
		if (!p->pw[i])
			continue;
		q.misses += __atomic_load_n(&p->pw[i]->miss_n, __ATOMIC_RELAXED);
		q.backlog += egress_backlog(p->pw[i]);
	}
	return q;
}

// Memory that the switch has for the port, bytes.
struct port_memory {
	uint32_t flows, fdb; // cached flows of it, addresses learned on it
	uint64_t bytes;      // of these, of its queues, and of the packets in them
};

static struct port_memory memory_of(const struct port *p)
{
	struct port_queues q = load_queues(p);
	struct port_memory m = {.fdb = fdb_port_count(p->id)};
	size_t buffer = 0;

	for (unsigned i = 0; i < MAX_WORKERS; i++) {
		const struct worker *w = thread_worker(i);

		if (!w || !p->pw[i])
			continue;
		m.flows += flow_table_port_flows(w->flows, p->id);
		m.bytes += sizeof(struct lane);
		buffer = w->pool->header_size + w->pool->elt_size + w->pool->trailer_size;
	}
	m.bytes += m.flows * (sizeof(struct flow) + sizeof(struct flow_key) + sizeof(struct flow_cold)) + m.fdb * sizeof(struct fdb_entry) +
		   (q.misses + q.backlog) * buffer + sizeof *p;
	return m;
}

// ---- ports

static void add_us(struct listing *l, const struct port_load *s, bool any, double q)
{
	if (any)
		listing_real(l, (double)histogram_quantile(&s->latency, q) / 1e3, 1);
	else
		listing_none(l);
}

static void latency_row(struct port *p, void *arg)
{
	struct port_load s = {0};
	struct listing *l = arg;
	struct port_queues q = load_queues(p);

	load_port(p, &s);
	uint64_t n = histogram_count(&s.latency);
	listing_row(l);
	listing_str(l, p->name);
	listing_uint(l, n);
	if (n)
		listing_real(l, (double)s.latency.sum / (double)n / 1e3, 1);
	else
		listing_none(l);
	add_us(l, &s, n, 0.5);
	add_us(l, &s, n, 0.9);
	add_us(l, &s, n, 0.99);
	add_us(l, &s, n, 0.999);
	add_us(l, &s, n, 1);
	listing_uint(l, q.backlog);
	listing_uint(l, q.misses);
}

// The port that the verb names: false: there is none, and that was said.
static bool port_argument(struct control_request *r, int argc, const char *argv[], struct port **p)
{
	*p = argc > 1 ? port_find(argv[1]) : NULL;
	if (argc > 1 && !*p)
		verbs_refuse(r, "there is no port %s", argv[1]);
	return argc == 1 || *p;
}

static void port_latency(struct control_request *r, int argc, const char *argv[], void *aux)
{
	static const struct column columns[] = {
		{"port", "PORT"},      {"packets", "PACKETS"}, {"mean_us", "MEAN(us)"},  {"p50_us", "P50(us)"},  {"p90_us", "P90(us)"},
		{"p99_us", "P99(us)"}, {"p999_us", "P99.9(us)"}, {"max_us", "MAX(us)"}, {"backlog", "BACKLOG"}, {"misses", "MISSES"},
	};
	bool json = verbs_take_json(&argc, argv);
	struct port *p;

	if (!port_argument(r, argc, argv, &p))
		return;
	struct listing *l = NEW_LISTING(columns);
	if (p)
		latency_row(p, l);
	else
		port_each(latency_row, l);
	verbs_reply(r, l, json);
}

struct bill {
	struct listing *l;
	double cycles, resolve_cycles; // of all ports
};

static void bill_sum(struct port *p, void *arg)
{
	struct bill *b = arg;
	struct port_load s = {0};

	load_port(p, &s);
	b->cycles += (double)(s.rx_cycles + s.tx_cycles);
	b->resolve_cycles += (double)s.resolve_cycles;
}

static void bill_row(struct port *p, void *arg)
{
	struct bill *b = arg;
	struct listing *l = b->l;
	struct port_memory m = memory_of(p);
	struct port_load s = {0};
	struct counts c = {0};

	load_port(p, &s);
	port_counts(p, &c);
	double cycles = (double)(s.rx_cycles + s.tx_cycles);
	uint64_t packets = c.c[COUNT_RX] + c.c[COUNT_TX];
	listing_row(l);
	listing_str(l, p->name);
	listing_real(l, b->cycles > 0 ? 100 * cycles / b->cycles : 0, 1);
	listing_uint(l, s.rx_cycles + s.tx_cycles);
	listing_real(l, cycles / (double)rte_get_tsc_hz(), 3);
	if (packets)
		listing_real(l, cycles / (double)packets, 1);
	else
		listing_none(l);
	listing_uint(l, packets);
	listing_uint(l, c.c[COUNT_RX_BYTES] + c.c[COUNT_TX_BYTES]);
	listing_uint(l, c.c[COUNT_RESOLVED]);
	listing_real(l, b->resolve_cycles > 0 ? 100 * (double)s.resolve_cycles / b->resolve_cycles : 0, 1);
	listing_uint(l, m.flows);
	listing_uint(l, m.fdb);
	listing_uint(l, m.bytes / 1024);
}

static void port_cost(struct control_request *r, int argc, const char *argv[], void *aux)
{
	static const struct column columns[] = {
		{"port", "PORT"},
		{"share_percent", "SHARE(%)"},
		{"cycles", "CYCLES"},
		{"seconds", "SECONDS"},
		{"cycles_per_packet", "CYCLES/PKT"},
		{"packets", "PACKETS"},
		{"bytes", "BYTES"},
		{"resolved", "RESOLVED"},
		{"resolver_share_percent", "OF RESOLVER(%)"},
		{"flows", "FLOWS"},
		{"addresses", "ADDRESSES"},
		{"memory_kb", "MEMORY(KiB)"},
	};
	bool json = verbs_take_json(&argc, argv);
	struct port *p;

	if (!port_argument(r, argc, argv, &p))
		return;
	struct bill b = {.l = NEW_LISTING(columns)};
	port_each(bill_sum, &b);
	if (p)
		bill_row(p, &b);
	else
		port_each(bill_row, &b);
	verbs_reply(r, b.l, json);
}

// ---- workers

static void list_worker(const struct thread_view *v, void *arg)
{
	struct listing *l = arg;
	const struct thread_stats *s = &v->stats;
	double busy = (double)s->busy_cycles, all = busy + (double)s->idle_cycles;
	struct port_load load = {0};

	load_worker(v->id, &load);
	listing_row(l);
	listing_uint(l, v->id);
	if (v->core >= 0)
		listing_uint(l, (uint64_t)v->core);
	else
		listing_none(l);
	listing_uint(l, v->n_rxqs);
	listing_uint(l, s->packets);
	listing_real(l, all > 0 ? 100 * busy / all : 0, 2);
	if (s->packets)
		listing_real(l, busy / (double)s->packets, 1);
	else
		listing_none(l);
	uint64_t bursts = 0;
	for (int i = 1; i < BURST_SIZES; i++)
		bursts += s->bursts[i];
	if (bursts)
		listing_real(l, (double)s->packets / (double)bursts, 1);
	else
		listing_none(l);
	bool any = histogram_count(&load.latency);
	add_us(l, &load, any, 0.5);
	add_us(l, &load, any, 0.99);
	const struct worker *w = thread_worker(v->id);
	uint64_t resolved = w ? w->tally.resolved : 0;
	listing_uint(l, resolved);
	if (resolved)
		listing_real(l, (double)clock_cycles_to_ns(load.resolve_cycles) / (double)resolved / 1e3, 1);
	else
		listing_none(l);
	listing_uint(l, s->iterations);
	listing_uint(l, s->pauses);
	listing_uint(l, s->blocks);
	listing_real(l, (double)s->blocked_ns / 1e9, 1);
	if (s->wakeups) {
		listing_real(l, (double)s->wakeup_ns_sum / (double)s->wakeups / 1e3, 1);
		listing_real(l, (double)s->wakeup_ns_max / 1e3, 1);
	} else {
		listing_none(l);
		listing_none(l);
	}
	listing_real(l, (double)v->longest_ns / 1e3, 1);
	listing_real(l, (double)v->longest_away_ns / 1e3, 1);
	listing_real(l, (double)v->own_ns / 1e3, 1);
	listing_real(l, (double)v->own_asleep_ns / 1e3, 1);
	listing_uint(l, v->flows.flows);
	listing_uint(l, v->flows.limit);
}

static void worker_list(struct control_request *r, int argc, const char *argv[], void *aux)
{
	static const struct column columns[] = {
		{"worker", "WORKER"},
		{"core", "CORE"},
		{"queues", "QUEUES"},
		{"packets", "PACKETS"},
		{"busy_percent", "BUSY(%)"},
		{"cycles_per_packet", "CYCLES/PKT"},
		{"packets_per_burst", "PKTS/BURST"},
		{"p50_us", "P50(us)"},
		{"p99_us", "P99(us)"},
		{"resolved", "RESOLVED"},
		{"resolve_us", "EACH(us)"},
		{"iterations", "ROUNDS"},
		{"pauses", "PAUSES"},
		{"blocks", "SLEEPS"},
		{"blocked_s", "ASLEEP(s)"},
		{"wakeup_us", "WAKE-UP(us)"},
		{"wakeup_max_us", "MAX(us)"},
		{"longest_us", "LONGEST(us)"},
		{"longest_away_us", "AWAY(us)"},
		{"own_us", "OWN(us)"},
		{"own_asleep_us", "WAITED(us)"},
		{"flows", "FLOWS"},
		{"flow_limit", "LIMIT"},
	};
	bool json = verbs_take_json(&argc, argv);
	struct listing *l = NEW_LISTING(columns);

	thread_view_each(list_worker, l);
	verbs_reply(r, l, json);
}

static void list_queue(unsigned worker, const struct rxq *q, double share, void *arg)
{
	const struct port *p = port_get(q->member);
	struct listing *l = arg;

	listing_row(l);
	listing_str(l, p ? p->name : "?");
	listing_uint(l, q->queue);
	listing_uint(l, worker);
	listing_uint(l, __atomic_load_n(&q->stats->packets, __ATOMIC_RELAXED));
	listing_uint(l, __atomic_load_n(&q->stats->bursts, __ATOMIC_RELAXED));
	listing_real(l, 100 * share, 2);
}

static void worker_queues(struct control_request *r, int argc, const char *argv[], void *aux)
{
	static const struct column columns[] = {{"port", "PORT"},       {"queue", "QUEUE"},   {"worker", "WORKER"},
						{"packets", "PACKETS"}, {"bursts", "BURSTS"}, {"load_percent", "LOAD(%)"}};
	bool json = verbs_take_json(&argc, argv);
	struct listing *l = NEW_LISTING(columns);

	thread_list_queues(list_queue, l);
	verbs_reply(r, l, json);
}

static uint64_t cycles_of(const struct cycles *c, unsigned part)
{
	return __atomic_load_n(&c->part[part].cycles, __ATOMIC_RELAXED);
}

static void list_cycles(const struct thread_view *v, void *arg)
{
	const struct worker *w = thread_worker(v->id);
	struct listing *l = arg;
	double all = 0, hz = (double)rte_get_tsc_hz();

	for (unsigned i = 0; i < CYCLES_N; i++)
		all += (double)cycles_of(&w->cycles, i);
	uint64_t received = __atomic_load_n(&w->cycles.part[CYCLES_RX].packets, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < CYCLES_STAGES + stage_count(); i++) {
		double cycles = (double)cycles_of(&w->cycles, i);
		uint64_t packets = __atomic_load_n(&w->cycles.part[i].packets, __ATOMIC_RELAXED);
		const struct stage *s = i < CYCLES_STAGES ? NULL : stage_get((uint8_t)(i - CYCLES_STAGES));

		if (s && !s->run)
			continue;
		listing_row(l);
		listing_uint(l, v->id);
		listing_fmt(l, s ? "stage %s" : "%s", s ? s->name : cycles_desc[i].name);
		listing_uint(l, packets);
		if (packets)
			listing_real(l, cycles / (double)packets, 1);
		else
			listing_none(l);
		if (packets)
			listing_real(l, cycles / (double)packets / hz * 1e9, 1);
		else
			listing_none(l);
		if (received)
			listing_real(l, cycles / (double)received, 1);
		else
			listing_none(l);
		listing_real(l, all > 0 ? 100 * cycles / all : 0, 1);
		listing_str(l, s ? "its work on packets" : cycles_desc[i].text);
	}
}

static void worker_cycles(struct control_request *r, int argc, const char *argv[], void *aux)
{
	static const struct column columns[] = {
		{"worker", "WORKER"},
		{"part", "PART"},
		{"packets", "PACKETS"},
		{"cycles_each", "CYCLES EACH"},
		{"ns_each", "NS EACH"},
		{"cycles_per_received", "PER RECEIVED"},
		{"share_percent", "SHARE(%)"},
		{"text", "WHAT"},
	};
	bool json = verbs_take_json(&argc, argv);
	struct listing *l = NEW_LISTING(columns);

	thread_view_each(list_cycles, l);
	verbs_reply(r, l, json);
}

void load_verbs_init(void)
{
	control_register("port/latency", "[--json] [PORT]", 0, 2, port_latency, NULL);
	control_register("port/cost", "[--json] [PORT]", 0, 2, port_cost, NULL);
	control_register("worker/list", "[--json]", 0, 1, worker_list, NULL);
	control_register("worker/queues", "[--json]", 0, 1, worker_queues, NULL);
	control_register("worker/cycles", "[--json]", 0, 1, worker_cycles, NULL);
}
