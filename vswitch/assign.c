// assign: which workers there are, and which rx queue is whose. See thread.h.
#include "bond.h"
#include "clock.h"
#include "control.h"
#include "egress.h"
#include "forward.h"
#include "punt.h"
#include "sentence.h"
#include "table_stat.h"
#include "thread_private.h"
#include "vhost.h"

#include <errno.h>
#include <numa.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <rte_errno.h>
#include <rte_lcore.h>

#define REBALANCE_GAIN 0.75 // queues are moved if the busiest worker gets below this share of what it has

// A queue and whose it is.
struct placed {
	struct rxq rxq;
	struct rxq_stats stats; // its address is in rxq.stats: a placed queue doesn't move in memory
	int worker;             // -1: nobody's
	int pinned;             // by rxq-affinity; -1: no
	int numa_node;
	uint64_t seen_cycles;   // at the last rebalance
	double load;            // cycles a second since then
	bool alive;
	struct placed *next;
};

static struct placed *queues;
static uint64_t load_tsc; // when loads were measured
static struct rte_mempool *pools[RTE_MAX_NUMA_NODES];
static unsigned pool_size = 16384;
static struct flow_table_config flow_config = {.limit = 1 << 20, .idle_ms = 10000};

// ---- pools

static void pool_fill(table_fill_fn *fn, void *arg)
{
	for (int i = 0; i < RTE_MAX_NUMA_NODES; i++) {
		char node[12];

		snprintf(node, sizeof node, "%d", i);
		if (pools[i])
			fn(arg, node, rte_mempool_in_use_count(pools[i]), pools[i]->size);
	}
}

static struct table_stat pool_stat = {
	.name = "packet_buffer", .help = "packet buffers in use, also those in the rings of devices", .label = "numa_node", .each = pool_fill};

struct rte_mempool *thread_pool(int node)
{
	char name[32];

	if (node < 0 || node >= RTE_MAX_NUMA_NODES)
		node = 0;
	if (pools[node])
		return pools[node];
	snprintf(name, sizeof name, "packets%d", node);
	pools[node] = pkt_pool_create(name, pool_size, rte_eal_has_hugepages() ? node : SOCKET_ID_ANY);
	if (!pools[node])
		log_line('e', "worker", "no memory for %u packet buffers on NUMA node %d (%s): lower other_config:mbufs or give the switch more memory",
			 pool_size, node, rte_strerror(rte_errno));
	table_stat_register(&pool_stat);
	return pools[node];
}

// ---- lists

static void publish(struct thread *t)
{
	unsigned n = 0;

	for (struct placed *q = queues; q; q = q->next)
		n += q->alive && q->worker == t->w.id;
	struct rxq_list *list = calloc(1, sizeof *list + n * sizeof list->rxq[0]), *old = t->list;
	if (!list)
		return; // it goes on with what it has
	for (struct placed *q = queues; q; q = q->next)
		if (q->alive && q->worker == t->w.id)
			list->rxq[list->n++] = q->rxq;
	if (old && old->n == list->n && !memcmp(old->rxq, list->rxq, n * sizeof list->rxq[0])) {
		free(list);
		return;
	}
	rcu_publish(t->list, list);
	rcu_free_later(old);
	thread_wake(t);
}

static void publish_all(void)
{
	for (unsigned i = 0; i < MAX_WORKERS; i++)
		if (threads[i])
			publish(threads[i]);
}

// The placed queues of a port that is gone are freed when no list names them any more.
static void forget_dead(void)
{
	for (struct placed **at = &queues; *at;) {
		struct placed *q = *at;

		if (q->alive) {
			at = &q->next;
			continue;
		}
		*at = q->next;
		rcu_free_later(q);
	}
}

static struct placed *find(const struct port *p, uint16_t queue)
{
	for (struct placed *q = queues; q; q = q->next)
		if (q->alive && q->rxq.member == p->id && q->rxq.queue == queue && q->rxq.device == p->device)
			return q;
	return NULL;
}

// "0:1,1:2": queue 0 to worker 1, queue 1 to worker 2.
static int affinity(const char *text, uint16_t queue)
{
	while (text && *text) {
		unsigned q, w;
		int used = 0;

		if (sscanf(text, " %u : %u%n", &q, &w, &used) < 2)
			return -1;
		if (q == queue)
			return (int)w;
		text += used;
		text += strspn(text, ", ");
	}
	return -1;
}

static void want_queues(struct port *p, void *arg)
{
	const struct port_dev *d = p->device;

	if (!d)
		return;
	uint32_t enabled = d->ops->rx_queues(d->dev);
	struct port_state state;
	memset(&state, 0, sizeof state);
	d->ops->state(d->dev, &state);
	for (uint16_t i = 0; i < PORT_QUEUES; i++) {
		struct placed *q = find(p, i);

		if (!(enabled >> i & 1)) {
			if (q)
				q->alive = false;
			continue;
		}
		if (!q) {
			q = calloc(1, sizeof *q);
			if (!q)
				continue;
			*q = (struct placed){
				.rxq = {.device = p->device, .port = p->id, .member = p->id, .queue = i}, .worker = -1, .alive = true, .next = queues};
			q->rxq.stats = &q->stats;
			queues = q;
		}
		unsigned place = 0;
		q->rxq.port = p->bond ? p->bond : p->id; // see bond_prepare(): nobody polls it while this changes
		q->rxq.bond = bond_of(p, &place);
		q->rxq.place = (uint16_t)place;
		q->pinned = affinity(p->affinity, i);
		q->numa_node = state.numa_node;
	}
}

static double load_of(int worker)
{
	double load = 0;

	for (const struct placed *q = queues; q; q = q->next)
		if (q->alive && q->worker == worker)
			load += q->load + 1; // a queue without load still is one
	return load;
}

// The worker that has least to do, one on the queue's NUMA node if there is one.
static int least_loaded(const struct placed *q)
{
	int best = -1;
	double best_load = 0;
	bool best_near = false;

	for (unsigned i = 0; i < MAX_WORKERS; i++) {
		if (!threads[i])
			continue;
		double load = load_of((int)i);
		bool near = q->numa_node < 0 || threads[i]->numa_node < 0 || threads[i]->numa_node == q->numa_node;

		if (best < 0 || near > best_near || (near == best_near && load < best_load)) {
			best = (int)i;
			best_load = load;
			best_near = near;
		}
	}
	return best;
}

static void measure_loads(void)
{
	uint64_t now = rte_rdtsc();
	double seconds = (double)clock_cycles_to_ns(now - load_tsc) / 1e9;

	if (seconds < 0.01)
		return;
	load_tsc = now;
	for (struct placed *q = queues; q; q = q->next) {
		uint64_t cycles = __atomic_load_n(&q->stats.cycles, __ATOMIC_RELAXED);

		q->load = (double)(cycles - q->seen_cycles) / seconds;
		q->seen_cycles = cycles;
	}
}

static int heavier(const void *a, const void *b)
{
	double x = (*(struct placed *const *)a)->load, y = (*(struct placed *const *)b)->load;

	return x < y ? 1 : x > y ? -1 : 0;
}

static double busiest(void)
{
	double most = 0;

	for (unsigned i = 0; i < MAX_WORKERS; i++)
		if (threads[i] && load_of((int)i) > most)
			most = load_of((int)i);
	return most;
}

// Heaviest first, each to the worker that has least. Kept only if the busiest worker gains enough by it.
static void rebalance(void)
{
	unsigned n = 0;

	for (struct placed *q = queues; q; q = q->next)
		n += q->alive;
	struct placed **sorted = calloc(n + 1, sizeof(struct placed *));
	int *before = calloc(n + 1, sizeof *before);
	if (!sorted || !before || n < 2)
		goto out;
	n = 0;
	for (struct placed *q = queues; q; q = q->next)
		if (q->alive)
			sorted[n++] = q;
	qsort(sorted, n, sizeof(struct placed *), heavier);
	double was = busiest();
	for (unsigned i = 0; i < n; i++) {
		before[i] = sorted[i]->worker;
		sorted[i]->worker = sorted[i]->pinned >= 0 && thread_worker((unsigned)sorted[i]->pinned) ? sorted[i]->pinned : -1;
	}
	for (unsigned i = 0; i < n; i++)
		if (sorted[i]->worker < 0)
			sorted[i]->worker = least_loaded(sorted[i]);
	if (busiest() > was * REBALANCE_GAIN)
		for (unsigned i = 0; i < n; i++)
			sorted[i]->worker = before[i];
out:
	free(sorted);
	free(before);
}

// What the port's queues left behind on a worker that polls them no more: nothing else would come by to resolve it.
static void finish_misses(struct worker *w, void *arg)
{
	const uint16_t *port = arg;

	while (forward_misses(w, *port))
		;
	worker_flush(w);
}

void thread_assign(bool balance)
{
	port_each(want_queues, NULL);
	measure_loads();
	int *old = NULL;
	unsigned n = 0, i = 0;
	for (struct placed *q = queues; q; q = q->next)
		n++;
	old = calloc(n + 1, sizeof *old);
	if (!old)
		return;
	for (struct placed *q = queues; q; q = q->next)
		old[i++] = q->worker;
	for (struct placed *q = queues; q; q = q->next) {
		if (q->worker >= 0 && !thread_worker((unsigned)q->worker))
			q->worker = -1;
		if (q->pinned >= 0 && thread_worker((unsigned)q->pinned))
			q->worker = q->pinned;
	}
	for (struct placed *q = queues; q; q = q->next)
		if (q->alive && q->worker < 0)
			q->worker = least_loaded(q);
	if (balance)
		rebalance();
	// A queue that changes hands is let go by the one before the other takes it, so that its packets stay in order.
	bool moves = false;
	int *new = calloc(n + 1, sizeof *new);
	i = 0;
	for (struct placed *q = queues; new && q; q = q->next, i++) {
		new[i] = q->worker;
		if (old[i] >= 0 && old[i] != q->worker)
			q->worker = -1;
		moves |= old[i] >= 0 && (!q->alive || q->worker < 0);
	}
	if (moves) {
		publish_all();
		rcu_synchronize();
	}
	i = 0;
	for (struct placed *q = queues; moves && new && q; q = q->next, i++)
		if (old[i] >= 0 && thread_worker((unsigned)old[i]) && (!q->alive || q->worker < 0))
			thread_call_one(threads[old[i]], finish_misses, &q->rxq.port);
	i = 0;
	for (struct placed *q = queues; new && q; q = q->next, i++)
		q->worker = new[i];
	publish_all();
	forget_dead();
	thread_rewire();
	free(old);
	free(new);
}

void thread_list_queues(void (*fn)(unsigned worker, const struct rxq *, double share, void *), void *arg)
{
	double hz = (double)rte_get_tsc_hz();

	for (const struct placed *q = queues; q; q = q->next)
		if (q->alive && q->worker >= 0)
			fn((unsigned)q->worker, &q->rxq, q->load / hz, arg);
}

void thread_take_queues(struct port *p)
{
	for (struct placed *q = queues; q; q = q->next)
		if (q->rxq.port == p->id || q->rxq.member == p->id)
			q->alive = false;
	publish_all();
	rcu_synchronize();
	thread_call(finish_misses, p->bond ? &p->bond : &p->id);
	forget_dead();
}

// ---- ports

static void attach_one(struct worker *w, void *arg)
{
	struct port *p = arg;

	rcu_publish(w->port[p->id], p->pw[w->id]);
}

static void count_ports(struct worker *w, void *arg)
{
	flow_table_set_ports(w->flows, port_count());
}

int thread_attach(struct port *p)
{
	for (unsigned i = 0; i < MAX_WORKERS; i++) {
		if (!threads[i] || p->pw[i])
			continue;
		p->pw[i] = (struct port_worker *)(void *)lane_create(p->id, p->device, SOCKET_ID_ANY);
		if (!p->pw[i])
			return -ENOMEM;
		thread_call_one(threads[i], attach_one, p);
		thread_call_one(threads[i], count_ports, NULL);
	}
	return 0;
}

// On the worker: everything of the port that waits is dropped, its counters go on under the switch's own.
static void detach_one(struct worker *w, void *arg)
{
	struct port *p = arg;
	struct port_worker *pw = p->pw[w->id];

	if (!pw)
		return;
	forward_drain(w, p->id);
	worker_flush(w);
	egress_drain(w, pw, TX_REASON(CLOSED));
	worker_publish(w);
	flow_table_drop_port(w->flows, p->id);
	rcu_publish(w->port[p->id], NULL);
	count_fold(&w->port[0]->counts, &pw->counts);
	drop_fold(w->drops, p->id);
	load_fold(&w->port[0]->load, &pw->load);
	count_ports(w, NULL);
}

static void free_lane(void *arg)
{
	lane_free(arg);
}

static struct drops *retired_drops; // of workers that ended; NULL: none did

const struct drops *thread_drops(unsigned id)
{
	return id == MAX_WORKERS ? retired_drops : id < MAX_WORKERS && threads[id] ? threads[id]->w.drops : NULL;
}

void thread_detach(struct port *p)
{
	thread_call(detach_one, p);
	if (retired_drops)
		drop_fold(retired_drops, p->id);
	for (unsigned i = 0; i < MAX_WORKERS; i++) {
		if (p->pw[i])
			rcu_defer(free_lane, p->pw[i]);
		p->pw[i] = NULL;
	}
}

// ---- the set of workers

struct leave_arg {
	unsigned worker;
};

static void leave_port(struct port *p, void *arg)
{
	unsigned id = ((struct leave_arg *)arg)->worker;

	if (!p->pw[id])
		return;
	count_read(&p->pw[id]->counts, &p->retired);
	load_read(&p->pw[id]->load, &p->retired_load);
	rcu_defer(free_lane, p->pw[id]);
	p->pw[id] = NULL;
}

// On the worker that ends: what waits is dropped, so that its ports' ledgers are closed.
static void drain_all(struct worker *w, void *arg)
{
	punt_serve(w);
	for (unsigned i = 1; i < MAX_PORTS; i++) {
		struct port_worker *pw = worker_port(w, (uint16_t)i);

		if (!pw)
			continue;
		forward_drain(w, (uint16_t)i);
		worker_flush(w);
		egress_drain(w, pw, TX_REASON(CLOSED));
	}
}

static void stop(unsigned id)
{
	struct leave_arg arg = {id};

	for (struct placed *q = queues; q; q = q->next)
		if (q->worker == (int)id)
			q->worker = -1;
	publish(threads[id]);
	rcu_synchronize();
	thread_call_one(threads[id], drain_all, NULL);
	count_read(&threads[id]->w.port[0]->counts, &port_get(0)->retired);
	if (!retired_drops)
		retired_drops = drop_create();
	if (retired_drops)
		drop_merge(retired_drops, threads[id]->w.drops);
	load_read(&threads[id]->w.port[0]->load, &port_get(0)->retired_load);
	thread_stop(threads[id]);
	port_each(leave_port, &arg);
}

void thread_stop_all(void)
{
	for (unsigned i = 0; i < MAX_WORKERS; i++)
		if (threads[i])
			stop(i);
}

static void join_port(struct port *p, void *arg)
{
	if (p->id && thread_attach(p))
		log_event('e', "worker", LOG_FIELDS({"port", p->name}), "port %s: no memory to attach it to a new worker", p->name);
}

// "1-3,5" to a set; false: not a list of CPUs that this process may run on.
static bool parse_cores(const char *text, cpu_set_t *set)
{
	cpu_set_t allowed;

	CPU_ZERO(set);
	sched_getaffinity(0, sizeof allowed, &allowed);
	while (*text) {
		unsigned from, to;
		int used = 0;

		if (sscanf(text, " %u%n", &from, &used) < 1)
			return false;
		text += used;
		to = from;
		if (*text == '-') {
			if (sscanf(text + 1, "%u%n", &to, &used) < 1)
				return false;
			text += 1 + used;
		}
		text += strspn(text, " ,");
		if (to < from || to >= CPU_SETSIZE)
			return false;
		for (unsigned c = from; c <= to; c++) {
			if (!CPU_ISSET(c, &allowed))
				return false;
			CPU_SET(c, set);
		}
	}
	return CPU_COUNT(set) > 0 && CPU_COUNT(set) <= MAX_WORKERS;
}

static void default_cores(cpu_set_t *set)
{
	cpu_set_t allowed;

	CPU_ZERO(set);
	sched_getaffinity(0, sizeof allowed, &allowed);
	for (int c = CPU_SETSIZE - 1; c >= 0; c--)
		if (CPU_ISSET(c, &allowed)) {
			CPU_SET(c, set);
			return;
		}
}

static void configure_flows(struct worker *w, void *arg)
{
	flow_table_configure(w->flows, arg);
	count_ports(w, NULL);
}

int thread_reconcile(const struct config_map *other, char **problem)
{
	const char *cores = config_map_get(other, "worker-cores", NULL), *bad = NULL;
	cpu_set_t want;

	if (!cores) {
		default_cores(&want);
	} else if (!parse_cores(cores, &want)) {
		sentence_set(problem, "other_config: worker-cores must be a list of CPUs that the switch may use, such as 1-3,5, not \"%s\"", cores);
		if (thread_count())
			return 0; // it goes on with those it has
		default_cores(&want);
	}
	pool_size = (unsigned)config_map_uint(other, "mbufs", pool_size, 1024, 1 << 22, &bad);
	struct flow_table_config flows = {
		.limit = (uint32_t)config_map_uint(other, "flow-limit", 1 << 20, 1024, 1 << 24, &bad),
		.idle_ms = (uint32_t)config_map_uint(other, "flow-idle-timeout", 10, 1, 86400, &bad) * 1000,
	};
	unsigned sleep_us = (unsigned)config_map_uint(other, "sleep-max-us", 500, 10, 100000, &bad);
	unsigned misses = (unsigned)config_map_uint(other, "resolve-queue", 256, 32, MISS_MAX, &bad);
	struct recorder_limits history = {
		.round_ns = config_map_uint(other, "history-round-us", 10000, 0, 10000000, &bad) * 1000,
		.full = (uint32_t)config_map_uint(other, "history-queue-full", 1, 0, 1000000, &bad),
		.storm_resolves = (uint32_t)config_map_uint(other, "history-resolves", 5000, 0, 10000000, &bad),
	};
	bool busy = !strcmp(config_map_get(other, "poll", "adaptive"), "busy");
	if (bad)
		sentence_set(problem, "other_config: %s is out of its range or not a number", bad);
	flow_config = flows;
	for (unsigned i = 0; i < MAX_WORKERS; i++)
		if (threads[i] && (threads[i]->core < 0 || !CPU_ISSET((unsigned)threads[i]->core, &want)))
			stop(i);
	for (unsigned i = 0; i < MAX_WORKERS; i++)
		if (threads[i])
			CPU_CLR((unsigned)threads[i]->core, &want);
	for (unsigned c = 0; c < CPU_SETSIZE; c++) {
		unsigned id = 0;

		if (!CPU_ISSET(c, &want))
			continue;
		while (id < MAX_WORKERS && threads[id])
			id++;
		if (id == MAX_WORKERS || !thread_start(id, (int)c, &flows)) {
			sentence_set(problem, "no worker could be started: %s", "out of memory");
			return -ENOMEM;
		}
		port_each(join_port, NULL);
	}
	for (unsigned i = 0; i < MAX_WORKERS; i++) {
		if (!threads[i])
			continue;
		threads[i]->busy_poll = busy;
		threads[i]->sleep_max_us = sleep_us;
		threads[i]->w.miss_limit = (uint16_t)misses;
		recorder_limit(threads[i]->recorder, &history);
	}
	thread_call(configure_flows, &flow_config);
	vhost_share_pool(thread_count());
	return 0;
}
