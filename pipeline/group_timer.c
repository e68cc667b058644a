// group_timer: see group_timer.h.
#include "group_timer.h"

#include <stdlib.h>

static struct timer **heap; // from 1 on
static uint32_t n, room;

static void put(uint32_t at, struct timer *t)
{
	heap[at] = t;
	t->at = at;
}

static void up(uint32_t at)
{
	struct timer *t = heap[at];

	for (; at > 1 && heap[at / 2]->due > t->due; at /= 2)
		put(at, heap[at / 2]);
	put(at, t);
}

static void down(uint32_t at)
{
	struct timer *t = heap[at];

	for (uint32_t child; (child = 2 * at) <= n; at = child) {
		if (child < n && heap[child + 1]->due < heap[child]->due)
			child++;
		if (heap[child]->due >= t->due)
			break;
		put(at, heap[child]);
	}
	put(at, t);
}

void timer_clear(struct timer *t)
{
	uint32_t at = t->at;

	if (!at)
		return;
	t->at = 0;
	struct timer *last = heap[n--];
	if (last == t)
		return;
	put(at, last);
	up(at);
	down(last->at);
}

bool timer_set(struct timer *t, uint64_t due)
{
	if (!due || due == UINT64_MAX) {
		timer_clear(t);
		return true;
	}
	t->due = due;
	if (t->at) {
		up(t->at);
		down(t->at);
		return true;
	}
	if (n + 1 >= room) {
		uint32_t more = room ? 2 * room : 256;
		struct timer **grown = realloc(heap, more * sizeof *grown);

		if (!grown)
			return false;
		heap = grown;
		room = more;
	}
	put(++n, t);
	up(n);
	return true;
}

struct timer *timer_next(void)
{
	return n ? heap[1] : NULL;
}

void timer_fini(void)
{
	free(heap);
	heap = NULL;
	n = room = 0;
}
