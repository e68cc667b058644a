// top: what weirctl top shows, of one moment; weirctl makes rates of two of them. JSON only.
#include "clock.h"
#include "load.h"
#include "thread.h"
#include "verbs.h"

#include <stdlib.h>
#include <rte_cycles.h>

// "INDEX:COUNT" of each bucket that is in use, as histogram.h numbers them.
static void add_latency(struct listing *l, const struct histogram *h)
{
	struct buf b = {0};

	buf_add(&b, "%s", "");
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		if (h->bucket[i])
			buf_add(&b, "%s%u:%llu", b.len ? " " : "", i, (unsigned long long)h->bucket[i]);
	listing_str(l, b.text);
	listing_uint(l, h->max);
	free(b.text);
}

static void add_port(struct port *p, void *arg)
{
	static const enum count counts[] = {COUNT_RX, COUNT_RX_BYTES, COUNT_TX, COUNT_TX_BYTES, COUNT_DROPPED, COUNT_TX_DROPPED, COUNT_RESOLVED};
	struct port_queues q = load_queues(p);
	struct port_load load = {0};
	struct counts c = {0};
	struct listing *l = arg;

	port_counts(p, &c);
	load_port(p, &load);
	listing_row(l);
	listing_str(l, p->name);
	for (unsigned i = 0; i < sizeof counts / sizeof counts[0]; i++)
		listing_uint(l, c.c[counts[i]]);
	listing_uint(l, load.rx_cycles + load.tx_cycles);
	listing_uint(l, q.misses + q.backlog);
	add_latency(l, &load.latency);
}

static void add_worker(const struct thread_view *v, void *arg)
{
	struct port_load load = {0};
	struct listing *l = arg;

	load_worker(v->id, &load);
	listing_row(l);
	listing_uint(l, v->id);
	listing_int(l, v->core);
	listing_uint(l, v->stats.packets);
	listing_uint(l, v->stats.busy_cycles);
	listing_uint(l, v->stats.idle_cycles);
	listing_uint(l, thread_worker(v->id)->tally.resolved);
	listing_uint(l, v->flows.flows);
	add_latency(l, &load.latency);
}

static void sample(struct control_request *r, int argc, const char *argv[], void *aux)
{
	static const char *const of_port[] = {"port",       "rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "dropped",
					      "tx_dropped", "resolved",   "cycles",   "waiting",    "latency",  "latency_max_ns"};
	static const char *const of_worker[] = {"worker",   "core",  "packets", "busy_cycles",   "idle_cycles",
						"resolved", "flows", "latency", "latency_max_ns"};
	struct listing *ports = listing_new(), *workers = listing_new();
	struct buf b = {0};

	for (size_t i = 0; i < sizeof of_port / sizeof of_port[0]; i++)
		listing_column(ports, of_port[i], of_port[i]);
	for (size_t i = 0; i < sizeof of_worker / sizeof of_worker[0]; i++)
		listing_column(workers, of_worker[i], of_worker[i]);
	uint64_t now = clock_ns();
	port_each(add_port, ports);
	thread_view_each(add_worker, workers);
	char *p = listing_render(ports, true), *w = listing_render(workers, true);
	buf_add(&b, "{\"time_ns\": %llu, \"cycles_per_second\": %llu, \"ports\": %s, \"workers\": %s}\n", (unsigned long long)now,
		(unsigned long long)rte_get_tsc_hz(), p ? p : "[]", w ? w : "[]");
	if (b.text && p && w)
		control_reply(r, b.text);
	else
		control_reply_error(r, "out of memory");
	free(p);
	free(w);
	free(b.text);
	listing_free(ports);
	listing_free(workers);
}

void top_init(void)
{
	control_register("top/sample", "[--json]", 0, 1, sample, NULL);
}
