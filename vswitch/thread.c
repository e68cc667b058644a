// thread: the workers' loop. See thread.h.
#include "thread_private.h"
#include "bond.h"
#include "clock.h"
#include "control.h"
#include "egress.h"
#include "forward.h"
#include "link.h"
#include "probe.h"
#include "punt.h"
#include "table_stat.h"
#include "tunnel.h"

#include <errno.h>
#include <numa.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <rte_branch_prediction.h>
#include <rte_cycles.h>
#include <rte_lcore.h>
#include <rte_pause.h>

struct thread *threads[MAX_WORKERS];

#define SPIN_ROUNDS 256        // empty rounds before the first pause
#define FIRST_PAUSE_US 10
#define LAST_PAUSE_US 80       // then the worker waits for notifications, if its queues have them
#define BLOCK_MS 1000          // without flows, at most
#define BLOCK_FLOWS_MS 50      // while flows have to be aged
#define BUDGET_ALONE 64        // resolves that a port gets in its turn when no other has packets
#define BUDGET_SHARED 16

// ---- one round

static void note_waiting(struct thread *t, struct port_worker *pw)
{
	if (!egress_waiting(pw) || t->is_waiting[pw->id])
		return;
	t->is_waiting[pw->id] = true;
	t->waiting[t->n_waiting++] = pw->id;
}

static void flush(struct worker *w, struct port_worker *pw)
{
	unsigned n = pw->tx_n;

	worker_lap(w, CYCLES_RUN, 0);
	egress_flush(w, pw);
	worker_lap(w, CYCLES_EGRESS, n);
	note_waiting(w->owner, pw);
}

static void retry_waiting(struct thread *t)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < t->n_waiting; i++) {
		struct port_worker *pw = worker_port(&t->w, t->waiting[i]);

		if (pw && egress_retry(&t->w, pw))
			t->waiting[kept++] = t->waiting[i];
		else
			t->is_waiting[t->waiting[i]] = false;
	}
	t->n_waiting = kept;
}

static unsigned burst_size_class(unsigned n)
{
	return n ? 32 - (unsigned)__builtin_clz(n) : 0; // 0, 1, 2-3, 4-7, 8-15, 16-31, 32
}

// One burst in CYCLES_EVERY, and what follows in its round, is measured part by part.
static __rte_noinline void measure_round(struct thread *t, uint64_t since)
{
	t->bursts_left = CYCLES_EVERY;
	t->w.cycles.last = since;
	t->w.timed = true;
}

static __rte_noinline void end_measurement(struct thread *t)
{
	worker_lap(&t->w, CYCLES_PUBLISH, 0);
	t->w.timed = false;
}

// Resolves what waits of a port that has no new packets.
static __rte_noinline unsigned resolve_waiting(struct thread *t, struct port_worker *pw, uint64_t start)
{
	unsigned left = forward_misses(&t->w, pw->id);

	__atomic_store_n(&pw->load.rx_cycles, pw->load.rx_cycles + rte_rdtsc() - start, __ATOMIC_RELAXED);
	return left > 0;
}

// What a link itself is told. Returns how many packets are left.
static __rte_noinline uint16_t take_links(struct thread *t, const struct rxq *q, struct rte_mbuf **m, uint16_t n)
{
	if (q->bond)
		bond_received(q->bond, q->place, t->w.id, m, n);
	return link_flags_of(q->member) ? link_take(&t->w, q->member, m, n) : n;
}

// Polls every queue once. Returns how many had packets, new ones or some that wait to be resolved.
static unsigned poll_queues(struct thread *t, const struct rxq_list *list)
{
	unsigned active = 0;

	for (unsigned i = 0; list && i < list->n; i++) {
		const struct rxq *q = &list->rxq[i];
		struct rte_mbuf *m[BURST];
		struct port_worker *pw = worker_port(&t->w, q->port);
		uint64_t start = rte_rdtsc();

		if (unlikely(t->w.tally.misses) && q->device->ops->guest && forward_hold(&t->w, q->port)) {
			resolve_waiting(t, pw, start);
			active++;
			continue;
		}
		uint16_t n = q->device->ops->rx(q->device->dev, q->queue, t->w.pool, m, BURST);

		if (!n) {
			if (unlikely(pw && pw->miss_n))
				active += resolve_waiting(t, pw, start);
			continue;
		}
		if (INSTRUMENTS && unlikely(!--t->bursts_left))
			measure_round(t, start);
		worker_lap(&t->w, CYCLES_RX, n);
		t->w.now = clock_ns_at(start);
		t->w.now_ms = (uint32_t)(t->w.now / 1000000);
		if (unlikely(q->bond || link_flags_of(q->member)))
			n = take_links(t, q, m, n);
		if (likely(n))
			forward_burst(&t->w, q->port, m, n);
		active++;
		t->stats.packets += n;
		t->stats.bursts[burst_size_class(n)]++;
		uint64_t cycles = rte_rdtsc() - start;
		__atomic_store_n(&q->stats->cycles, q->stats->cycles + cycles, __ATOMIC_RELAXED);
		if (INSTRUMENTS && likely(pw))
			__atomic_store_n(&pw->load.rx_cycles, pw->load.rx_cycles + cycles, __ATOMIC_RELAXED);
		__atomic_store_n(&q->stats->packets, q->stats->packets + n, __ATOMIC_RELAXED);
		__atomic_store_n(&q->stats->bursts, q->stats->bursts + 1, __ATOMIC_RELAXED);
	}
	if (unlikely(t->w.tally.misses))
		active += tunnel_misses(&t->w);
	t->w.resolve_budget = active > 1 ? BUDGET_SHARED : BUDGET_ALONE;
	return active;
}

static void sweep(struct thread *t)
{
	int32_t since = (int32_t)(t->w.now_ms - t->swept_ms);

	if (since <= 0) // time stamp counters of processors may differ a little
		return;
	t->swept_ms = t->w.now_ms;
	for (int32_t i = 0; i < (since > 64 ? 64 : since); i++)
		flow_table_sweep(t->w.flows, t->w.now_ms);
}

static void serve_call(struct thread *t)
{
	struct call *c = __atomic_load_n(&t->call, __ATOMIC_ACQUIRE);

	if (likely(!c))
		return;
	uint64_t start = rte_rdtsc();
	c->fn(&t->w, c->arg);
	worker_publish(&t->w);
	t->call_cycles = rte_rdtsc() - start;
	__atomic_store_n(&t->call, NULL, __ATOMIC_RELEASE);
	sem_post(&c->done);
}

static void note_wakeup(struct thread *t)
{
	uint64_t rang = __atomic_exchange_n(&t->probe_tsc, 0, __ATOMIC_ACQ_REL);

	if (!rang)
		return;
	uint64_t ns = clock_cycles_to_ns(rte_rdtsc() - rang);
	t->stats.wakeups++;
	t->stats.wakeup_ns_sum += ns;
	t->stats.wakeup_ns_last = ns;
	if (ns > t->stats.wakeup_ns_max)
		t->stats.wakeup_ns_max = ns;
}

// ---- sleep

// Asks every queue for a notification. Returns 1: all are armed; 0: packets are there already; -1: some can't be armed.
static int arm_all(const struct rxq_list *list, unsigned *armed)
{
	int all = 1;

	*armed = 0;
	for (unsigned i = 0; list && i < list->n; i++) {
		const struct rxq *q = &list->rxq[i];
		int rc = q->device->ops->rx_arm(q->device->dev, q->queue, true);

		*armed = i + 1;
		if (rc > 0)
			return 0;
		if (rc < 0 && (q->device->ops->rx_queues(q->device->dev) >> q->queue & 1))
			all = -1;
	}
	return all;
}

static void disarm(const struct rxq_list *list, unsigned armed)
{
	for (unsigned i = 0; i < armed; i++)
		list->rxq[i].device->ops->rx_arm(list->rxq[i].device->dev, list->rxq[i].queue, false);
}

static void pause_us(struct thread *t, unsigned us)
{
	struct timespec ts = {.tv_nsec = (long)us * 1000};

	t->stats.pauses++;
	PROBE(worker_sleep, t->w.id, "pause", us);
	uint64_t start = PROBE_ON(worker_wake) ? rte_rdtsc() : 0;
	rcu_offline(t->w.id);
	nanosleep(&ts, NULL);
	rcu_online(t->w.id);
	if (start)
		PROBE(worker_wake, t->w.id, "pause", clock_cycles_to_ns(rte_rdtsc() - start));
}

static void block(struct thread *t)
{
	const struct rxq_list *list = rcu_read(t->list);
	struct epoll_event events[16];
	struct flow_table_stats flows;
	unsigned armed;

	__atomic_store_n(&t->asleep, 1, __ATOMIC_SEQ_CST);
	int can = arm_all(list, &armed);
	if (can > 0 && !__atomic_load_n(&t->call, __ATOMIC_ACQUIRE) && !__atomic_load_n(&t->w.inject, __ATOMIC_RELAXED) && !__atomic_load_n(&t->stop, __ATOMIC_ACQUIRE)) {
		flow_table_stats(t->w.flows, &flows);
		int limit = flows.flows ? BLOCK_FLOWS_MS : BLOCK_MS;
		PROBE(worker_sleep, t->w.id, "wait", limit * 1000);
		uint64_t start = rte_rdtsc();
		rcu_offline(t->w.id);
		int n = epoll_wait(t->epoll_fd, events, 16, limit);
		rcu_online(t->w.id);
		uint64_t asleep = clock_cycles_to_ns(rte_rdtsc() - start);
		t->stats.blocks++;
		t->stats.blocked_ns += asleep;
		PROBE(worker_wake, t->w.id, "wait", asleep);
		for (int i = 0; i < n; i++)
			if (events[i].data.fd == t->wake_fd) {
				uint64_t count;

				if (read(t->wake_fd, &count, sizeof count) > 0)
					note_wakeup(t);
			}
		if (n > 0)
			t->pause_us = 0;
	}
	__atomic_store_n(&t->asleep, 0, __ATOMIC_SEQ_CST);
	// The list may be another by now; disarming a queue that somebody else polls costs that one a round of arming, no more.
	list = rcu_read(t->list);
	disarm(list, list && armed < list->n ? armed : list ? list->n : 0);
	if (can < 0)
		pause_us(t, t->sleep_max_us);
}

static void rest(struct thread *t)
{
	if (t->busy_poll || ++t->idle_rounds < SPIN_ROUNDS) {
		rte_pause();
		return;
	}
	if (t->n_waiting || t->w.n_tx_dirty) { // a guest may take what waits any moment
		pause_us(t, FIRST_PAUSE_US);
		return;
	}
	if (t->pause_us < LAST_PAUSE_US) {
		t->pause_us = t->pause_us ? t->pause_us * 2 : FIRST_PAUSE_US;
		pause_us(t, t->pause_us < t->sleep_max_us ? t->pause_us : t->sleep_max_us);
		return;
	}
	block(t);
}

// ---- the flight recorder

// How often the kernel has taken the core away lately: asked once a second, and when it is to be told.
static __rte_noinline uint16_t count_preemptions(struct thread *t)
{
	struct rusage u;

	if (getrusage(RUSAGE_THREAD, &u))
		return 0;
	long n = u.ru_nivcsw - t->preemptions;
	t->preemptions = u.ru_nivcsw;
	t->preemptions_ns = t->w.now;
	return (uint16_t)(n < UINT16_MAX ? n : UINT16_MAX);
}

// What the figures were before a round.
struct before {
	uint64_t start, packets;
	struct tally tally;
};

static inline void record_round(struct thread *t, const struct before *b, uint64_t now, uint64_t end)
{
	struct recorder *r = t->recorder;
	struct round *to = recorder_begin(r);
	const struct tally *tally = &t->w.tally;
	uint64_t full = tally->full - b->tally.full;

	to->start_ns = now;
	to->busy_ns = clock_cycles_to_ns(end - b->start);
	to->packets = (uint32_t)(t->stats.packets - b->packets);
	to->resolved = (uint32_t)(tally->resolved - b->tally.resolved);
	to->dropped = (uint32_t)(tally->dropped - b->tally.dropped);
	to->misses = tally->misses;
	to->backlog = tally->backlog;
	if (unlikely(full)) {
		to->full = (uint16_t)(full < UINT16_MAX ? full : UINT16_MAX);
		to->full_port = tally->full_port;
		to->full_tx = tally->full_tx;
	}
	if (unlikely(t->call_cycles)) {
		to->call_us = (uint32_t)(clock_cycles_to_ns(t->call_cycles) / 1000) + 1;
		t->call_cycles = 0;
	}
	bool is_long = r->limit.round_ns && to->busy_ns > r->limit.round_ns;
	if (unlikely(is_long || to->busy_ns > t->pause.own_ns || pause_is_clear(&t->pause)))
		to->away_us = (uint32_t)(pause_measure(&t->pause, b->start, end) / 1000);
	else if (unlikely(end - t->pause.looked_tsc > t->look_cycles))
		pause_look(&t->pause, end);
	if (unlikely(now - t->preemptions_ns > 1000000000 || is_long))
		to->preempted = count_preemptions(t);
	recorder_end(r);
}

static void *run(void *arg)
{
	struct thread *t = arg;
	char name[16];

	snprintf(name, sizeof name, "weir-worker%u", t->w.id % 1000u);
	pthread_setname_np(pthread_self(), name);
	prctl(PR_SET_TIMERSLACK, 1000UL); // nanoseconds: the default of 50 us would be longer than the pauses
	if (rte_thread_register())
		log_event('w', "worker", LOG_FIELDS({"worker", LOG_NUMBER(t->w.id)}), "worker %u has no place among DPDK's threads: its packet buffers are not cached", t->w.id);
	pause_start(&t->pause);
	rcu_worker_start(t->w.id);
	while (!__atomic_load_n(&t->stop, __ATOMIC_ACQUIRE)) {
		uint64_t start = rte_rdtsc(), now = clock_ns_at(start);
		struct before before = {.start = start, .packets = t->stats.packets, .tally = t->w.tally};

		t->w.now = now;
		t->w.now_ms = (uint32_t)(t->w.now / 1000000);
		serve_call(t);
		unsigned n = poll_queues(t, rcu_read(t->list));
		n += punt_serve(&t->w);
		worker_flush(&t->w);
		if (unlikely(t->n_waiting))
			retry_waiting(t);
		if (t->w.n_dirty)
			worker_publish(&t->w);
		rcu_quiescent(t->w.id);
		sweep(t);
		if (__atomic_load_n(&t->probe_tsc, __ATOMIC_RELAXED))
			note_wakeup(t);
		if (INSTRUMENTS && unlikely(t->w.timed))
			end_measurement(t);
		t->stats.iterations++;
		uint64_t end = rte_rdtsc();
		if (INSTRUMENTS)
			record_round(t, &before, now, end);
		if (n) {
			t->idle_rounds = 0;
			t->pause_us = 0;
			t->stats.busy_cycles += end - start;
		} else {
			t->stats.bursts[0]++;
			rest(t);
			uint64_t rested = rte_rdtsc();
			t->stats.idle_cycles += rested - start;
			if (INSTRUMENTS) {
				recorder_slept(t->recorder, clock_cycles_to_ns(rested - end));
				t->pause.slept_tsc += rested - end;
			}
		}
	}
	rcu_worker_stop(t->w.id);
	pause_stop(&t->pause);
	rte_thread_unregister();
	return NULL;
}

// ---- the main thread's side

void thread_wake(struct thread *t)
{
	uint64_t one = 1;

	if (write(t->wake_fd, &one, sizeof one) < 0)
		return; // it can only be full, and then it rings already
}

void thread_wake_all(void)
{
	for (unsigned i = 0; i < MAX_WORKERS; i++)
		if (threads[i])
			thread_wake(threads[i]);
}

void thread_probe_wakeup(void)
{
	for (unsigned i = 0; i < MAX_WORKERS; i++) {
		struct thread *t = threads[i];

		if (!t || !__atomic_load_n(&t->asleep, __ATOMIC_SEQ_CST))
			continue; // the probe is of sleepers
		__atomic_store_n(&t->probe_tsc, rte_rdtsc(), __ATOMIC_RELEASE);
		thread_wake(t);
	}
}

void thread_call_one(struct thread *t, void (*fn)(struct worker *, void *), void *arg)
{
	struct call c = {.fn = fn, .arg = arg};

	sem_init(&c.done, 0, 0);
	__atomic_store_n(&t->call, &c, __ATOMIC_SEQ_CST);
	thread_wake(t);
	while (sem_wait(&c.done) && errno == EINTR)
		;
	sem_destroy(&c.done);
}

void thread_call(void (*fn)(struct worker *, void *), void *arg)
{
	for (unsigned i = 0; i < MAX_WORKERS; i++)
		if (threads[i])
			thread_call_one(threads[i], fn, arg);
}

struct worker *thread_worker(unsigned id)
{
	return id < MAX_WORKERS && threads[id] ? &threads[id]->w : NULL;
}

struct recorder *thread_recorder(unsigned id)
{
	return id < MAX_WORKERS && threads[id] ? threads[id]->recorder : NULL;
}

struct pause *thread_pause(unsigned id)
{
	return id < MAX_WORKERS && threads[id] ? &threads[id]->pause : NULL;
}

unsigned thread_count(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < MAX_WORKERS; i++)
		n += threads[i] != NULL;
	return n;
}

void thread_view_each(void (*fn)(const struct thread_view *, void *), void *arg)
{
	for (unsigned i = 0; i < MAX_WORKERS; i++) {
		const struct thread *t = threads[i];

		if (!t)
			continue;
		struct thread_view v = {.id = i, .core = t->core, .numa_node = t->numa_node, .stats = t->stats};
		if (!pause_is_clear(&t->pause)) {
			v.longest_ns = t->pause.longest_ns;
			v.longest_away_ns = t->pause.longest_away_ns;
			v.own_ns = t->pause.own_ns;
			v.own_asleep_ns = t->pause.own_asleep_ns;
		}
		flow_table_stats(t->w.flows, &v.flows);
		v.n_rxqs = t->list ? t->list->n : 0;
		fn(&v, arg);
	}
}

void thread_rewire(void)
{
	for (unsigned i = 0; i < MAX_WORKERS; i++) {
		struct thread *t = threads[i];

		for (unsigned k = 0; t && t->list && k < t->list->n; k++) {
			const struct rxq *q = &t->list->rxq[k];
			int fd = q->device->ops->rx_fd(q->device->dev, q->queue);
			// Edge-triggered: the descriptor is the guest's kick, which nobody reads.
			struct epoll_event e = {.events = EPOLLIN | EPOLLET, .data.fd = -1};

			if (fd >= 0 && epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, fd, &e) && errno == EEXIST)
				epoll_ctl(t->epoll_fd, EPOLL_CTL_MOD, fd, &e);
		}
		if (t)
			thread_wake(t);
	}
}

static void thread_free(struct thread *t)
{
	if (t->wake_fd >= 0)
		close(t->wake_fd);
	if (t->epoll_fd >= 0)
		close(t->epoll_fd);
	flow_table_destroy(t->w.flows);
	drop_destroy(t->w.drops);
	recorder_free(t->recorder);
	free(t->list);
	lane_free((struct lane *)(void *)t->w.port[0]);
	free(t);
}

static void flow_fill(table_fill_fn *fn, void *arg)
{
	for (unsigned i = 0; i < MAX_WORKERS; i++) {
		struct flow_table_stats s;
		char id[12];

		if (!threads[i])
			continue;
		flow_table_stats(threads[i]->w.flows, &s);
		snprintf(id, sizeof id, "%u", i);
		fn(arg, id, s.flows, s.limit);
	}
}

static struct table_stat flow_stat = {.name = "flow", .help = "cached flows of a worker", .label = "worker", .each = flow_fill};

struct thread *thread_start(unsigned id, int core, const struct flow_table_config *flows)
{
	struct thread *t = aligned_alloc(64, (sizeof *t + 63) & ~(size_t)63);

	if (!t)
		return NULL;
	memset(t, 0, sizeof *t);
	t->core = core;
	t->numa_node = core >= 0 && numa_available() >= 0 ? numa_node_of_cpu(core) : -1;
	t->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	t->sleep_max_us = 500;
	t->look_cycles = rte_get_tsc_hz() / 1000;
	t->w.id = (uint16_t)id;
	t->w.owner = t;
	t->w.flush = flush;
	t->w.miss_limit = 256;
	t->w.resolve_budget = BUDGET_ALONE;
	t->w.pool = thread_pool(t->numa_node);
	t->w.flows = flow_table_create(flows);
	t->w.drops = drop_create();
	t->recorder = recorder_new();
	t->bursts_left = 1;
	t->w.port[0] = (struct port_worker *)(void *)lane_create(0, NULL, SOCKET_ID_ANY);
	struct epoll_event e = {.events = EPOLLIN, .data.fd = t->wake_fd};
	if (t->wake_fd < 0 || t->epoll_fd < 0 || !t->w.pool || !t->w.flows || !t->w.drops || !t->recorder || !t->w.port[0] ||
	    epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, t->wake_fd, &e)) {
		thread_free(t);
		return NULL;
	}
	pthread_attr_t attr;
	pthread_attr_init(&attr);
	if (core >= 0) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET((unsigned)core, &set);
		pthread_attr_setaffinity_np(&attr, sizeof set, &set);
	}
	int rc = pthread_create(&t->pthread, &attr, run, t);
	pthread_attr_destroy(&attr);
	if (rc) {
		thread_free(t);
		return NULL;
	}
	threads[id] = t;
	table_stat_register(&flow_stat);
	log_event('i', "worker", LOG_FIELDS({"worker", LOG_NUMBER(id)}, {"core", LOG_NUMBER(core)}), "worker %u runs", id);
	return t;
}

// Its queues and ports were taken away before.
void thread_stop(struct thread *t)
{
	threads[t->w.id] = NULL;
	__atomic_store_n(&t->stop, true, __ATOMIC_SEQ_CST);
	thread_wake(t);
	pthread_join(t->pthread, NULL);
	log_event('i', "worker", LOG_FIELDS({"worker", LOG_NUMBER(t->w.id)}, {"core", LOG_NUMBER(t->core)}), "worker %u has ended", t->w.id);
	thread_free(t);
}
