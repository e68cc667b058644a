// neighbour_event: see neighbour_event.h.
#include "neighbour_event.h"
#include "worker.h"

#include <string.h>

// One writer, the worker; one reader, the main thread.
static struct ring {
	uint32_t head __attribute__((aligned(64))); // the writer's
	uint64_t lost;
	uint32_t tail __attribute__((aligned(64))); // the reader's
	struct neighbour_event event[NEIGHBOUR_EVENTS];
	struct {
		uint32_t tenth; // of a second
		uint32_t n;
	} told[MAX_PORTS];
} rings[MAX_WORKERS]; // their pages are the kernel's until they are written to

static bool may_tell(struct ring *r, uint16_t port, uint32_t now_ms)
{
	if (r->told[port].tenth != now_ms / 100) {
		r->told[port].tenth = now_ms / 100;
		r->told[port].n = 0;
	}
	return r->told[port].n++ < NEIGHBOUR_EVENTS_PORT;
}

void neighbour_event(struct worker *w, const struct neighbour_event *e)
{
	struct ring *r = &rings[w->id % MAX_WORKERS];
	uint32_t head = r->head;

	if (!may_tell(r, e->port & (MAX_PORTS - 1), w->now_ms) ||
	    head - __atomic_load_n(&r->tail, __ATOMIC_ACQUIRE) == NEIGHBOUR_EVENTS) {
		__atomic_store_n(&r->lost, r->lost + 1, __ATOMIC_RELAXED);
		return;
	}
	r->event[head % NEIGHBOUR_EVENTS] = *e;
	__atomic_store_n(&r->head, head + 1, __ATOMIC_RELEASE);
}

void neighbour_events(void (*fn)(const struct neighbour_event *))
{
	for (unsigned i = 0; i < MAX_WORKERS; i++) {
		struct ring *r = &rings[i];
		uint32_t head = __atomic_load_n(&r->head, __ATOMIC_ACQUIRE);

		while (r->tail != head) {
			fn(&r->event[r->tail % NEIGHBOUR_EVENTS]);
			__atomic_store_n(&r->tail, r->tail + 1, __ATOMIC_RELEASE);
		}
	}
}

void neighbour_events_forget(void)
{
	for (unsigned i = 0; i < MAX_WORKERS; i++)
		if (rings[i].head)
			memset(&rings[i], 0, sizeof rings[i]);
}

uint64_t neighbour_events_lost(void)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < MAX_WORKERS; i++)
		n += __atomic_load_n(&rings[i].lost, __ATOMIC_RELAXED);
	return n;
}
