// recorder: see recorder.h.
#include "recorder.h"

#include <stdlib.h>
#include <string.h>

struct recorder *recorder_new(void)
{
	struct recorder *r = calloc(1, sizeof *r); // large: memory is touched as it is used

	if (r)
		r->frozen = -1;
	return r;
}

void recorder_free(struct recorder *r)
{
	free(r);
}

static struct round *record(struct recorder_ring *g, uint64_t n)
{
	return &g->round[n % RECORDER_ROUNDS];
}

struct round *recorder_begin(struct recorder *r)
{
	struct recorder_ring *g = &r->ring[r->live];
	struct round *to = record(g, g->n);

	memset(to, 0, sizeof *to);
	to->rounds = 1;
	return to;
}

static uint8_t judge(struct recorder *r, struct round *round)
{
	uint64_t longest = __atomic_load_n(&r->limit.round_ns, __ATOMIC_RELAXED);
	uint32_t full = __atomic_load_n(&r->limit.full, __ATOMIC_RELAXED),
		 storm = __atomic_load_n(&r->limit.storm_resolves, __ATOMIC_RELAXED);
	uint8_t why = SUSPICION_NONE;

	if (round->resolved) {
		if (round->start_ns - r->storm_since_ns > STORM_NS) {
			r->storm_since_ns = round->start_ns;
			r->storm_n = 0;
		}
		r->storm_n += round->resolved;
	}
	if (longest && round->busy_ns > longest)
		why = SUSPICION_LONG;
	else if (full && round->full >= full)
		why = SUSPICION_FULL;
	else if (storm && r->storm_n > storm) {
		why = SUSPICION_STORM;
		round->storm = r->storm_n;
		r->storm_n = 0; // the next one is another
	}
	return why;
}

static bool idle(const struct round *a)
{
	return !a->packets && !a->resolved && !a->dropped && !a->call_us && !a->why;
}

// Into the record before it. A round of which only the queues are as they were changes nothing.
static bool merge(struct recorder_ring *g, const struct round *now)
{
	struct round *last = record(g, g->n - 1);

	if (!g->n || !idle(now) || !idle(last) || last->misses != now->misses || last->backlog != now->backlog)
		return false;
	__atomic_store_n(&last->rounds, last->rounds + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&last->busy_ns, last->busy_ns + now->busy_ns, __ATOMIC_RELAXED);
	return true;
}

enum suspicion recorder_end(struct recorder *r)
{
	struct recorder_ring *g = &r->ring[r->live];
	struct round *now = record(g, g->n);

	now->why = judge(r, now);
	if (merge(g, now))
		return SUSPICION_NONE;
	__atomic_store_n(&g->n, g->n + 1, __ATOMIC_RELEASE);
	if (!now->why)
		return SUSPICION_NONE;
	__atomic_store_n(&r->suspicious[now->why], r->suspicious[now->why] + 1, __ATOMIC_RELAXED);
	if (__atomic_load_n(&r->frozen, __ATOMIC_ACQUIRE) < 0) {
		uint8_t other = !r->live;

		__atomic_store_n(&r->ring[other].n, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&r->frozen, (int8_t)r->live, __ATOMIC_RELEASE);
		__atomic_store_n(&r->live, other, __ATOMIC_RELEASE);
	}
	return now->why;
}

void recorder_slept(struct recorder *r, uint64_t ns)
{
	struct recorder_ring *g = &r->ring[r->live];

	if (g->n) {
		struct round *last = record(g, g->n - 1);

		__atomic_store_n(&last->slept_ns, last->slept_ns + ns, __ATOMIC_RELAXED);
	}
}

void recorder_limit(struct recorder *r, const struct recorder_limits *l)
{
	__atomic_store_n(&r->limit.round_ns, l->round_ns, __ATOMIC_RELAXED);
	__atomic_store_n(&r->limit.full, l->full, __ATOMIC_RELAXED);
	__atomic_store_n(&r->limit.storm_resolves, l->storm_resolves, __ATOMIC_RELAXED);
}

void recorder_thaw(struct recorder *r)
{
	__atomic_store_n(&r->frozen, -1, __ATOMIC_RELEASE);
}

unsigned recorder_read(const struct recorder *r, bool frozen, struct round *to, unsigned max)
{
	int8_t which =
		frozen ? __atomic_load_n(&r->frozen, __ATOMIC_ACQUIRE) : (int8_t)__atomic_load_n(&r->live, __ATOMIC_ACQUIRE);

	if (which < 0)
		return 0;
	const struct recorder_ring *g = &r->ring[which];
	uint64_t n = __atomic_load_n(&g->n, __ATOMIC_ACQUIRE), want = max < RECORDER_ROUNDS ? max : RECORDER_ROUNDS;
	uint64_t first = n > want ? n - want : 0;

	for (uint64_t i = first; i < n; i++)
		to[i - first] = g->round[i % RECORDER_ROUNDS];
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	// What the worker has overwritten meanwhile, and what it may be overwriting now, is not what was asked for.
	uint64_t now = __atomic_load_n(&g->n, __ATOMIC_RELAXED),
		 gone = now + 1 > RECORDER_ROUNDS ? now + 1 - RECORDER_ROUNDS : 0;
	if (!frozen && gone > first) {
		unsigned lost = (unsigned)(gone < n ? gone - first : n - first);

		memmove(to, to + lost, (size_t)(n - first - lost) * sizeof *to);
		first += lost;
	}
	return (unsigned)(n - first);
}

void recorder_sentence(struct buf *b, const struct round *r, const struct recorder_limits *l, const char *port)
{
	switch ((enum suspicion)r->why) {
	case SUSPICION_LONG:
		buf_add(b, "the round took %.1f ms (limit %.1f)", (double)r->busy_ns / 1e6, (double)l->round_ns / 1e6);
		if ((uint64_t)r->call_us * 2000 > r->busy_ns)
			buf_add(b, ": the main thread had the worker do something for %.1f ms", r->call_us / 1e3);
		else if ((uint64_t)r->away_us * 2000 > r->busy_ns)
			buf_add(b, ": the kernel gave its core to others for %.1f ms of it, %u times within the last second; keep them off it",
				r->away_us / 1e3, r->preempted);
		else if (r->resolved)
			buf_add(b, " for %u packets, %u of them first packets of flows", r->packets, r->resolved);
		else
			buf_add(b, " for %u packets", r->packets);
		break;
	case SUSPICION_FULL:
		buf_add(b, "%u packets were dropped: the queue of port %s was full, %s", r->full, port,
			r->full_tx ? "as it takes packets too slowly" : "as its new flows come faster than they are resolved");
		break;
	case SUSPICION_STORM:
		buf_add(b, "%u packets were resolved within %d ms: many new flows (a scan?), or flows that keep becoming stale",
			r->storm, STORM_NS / 1000000);
		break;
	case SUSPICION_NONE:
	case SUSPICION_N:
		break;
	}
}
