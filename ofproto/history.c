// history: see history.h.
#include "history.h"

#include <stdlib.h>
#include <string.h>

#define COUNTERS (COUNT_N + MAX_REASONS)
static_assert(COUNTERS <= 256 && MAX_PORTS <= 4096, "a record has 8 and 12 bits for them");

// Port, counter and what was added to it: 12, 8 and 44 bits. What is more than fits takes several.
typedef uint64_t record;
#define DELTA_BITS 44
#define DELTA_MAX ((1LL << (DELTA_BITS - 1)) - 1)

struct snap {
	uint64_t time; // what was added until then, since the one before
	size_t n;
	record *rec; // by port
};

struct list {
	struct snap *snap; // from the oldest on
	unsigned n, room;
};

struct history {
	uint64_t start; // of the oldest snap
	struct list coarse, fine;
	uint64_t coarse_from; // of the newest coarse one
	struct counts *last[MAX_PORTS];
	uint64_t now;
	record *scratch; // of the moment that is at work
	size_t n, room;
	bool failed;
	size_t total; // records
};

static record make(uint16_t port, unsigned counter, int64_t delta)
{
	return (uint64_t)port << 52 | (uint64_t)counter << DELTA_BITS | ((uint64_t)delta & ((1ULL << DELTA_BITS) - 1));
}

static uint16_t port_of(record r)
{
	return (uint16_t)(r >> 52);
}

static unsigned counter_of(record r)
{
	return (unsigned)(r >> DELTA_BITS & 0xff);
}

static int64_t delta_of(record r)
{
	return (int64_t)(r << (64 - DELTA_BITS)) >> (64 - DELTA_BITS);
}

struct history *history_create(uint64_t now)
{
	struct history *h = calloc(1, sizeof *h);

	if (!h)
		return NULL;
	h->start = h->coarse_from = now;
	h->fine.room = HISTORY_FINE;
	h->coarse.room = HISTORY_COARSE;
	h->fine.snap = calloc(HISTORY_FINE + 1, sizeof *h->fine.snap);
	h->coarse.snap = calloc(HISTORY_COARSE + 1, sizeof *h->coarse.snap);
	if (!h->fine.snap || !h->coarse.snap) {
		history_destroy(h);
		return NULL;
	}
	return h;
}

static void clear(struct list *l)
{
	for (unsigned i = 0; i < l->n; i++)
		free(l->snap[i].rec);
	free(l->snap);
}

void history_destroy(struct history *h)
{
	if (!h)
		return;
	clear(&h->fine);
	clear(&h->coarse);
	for (unsigned i = 0; i < MAX_PORTS; i++)
		free(h->last[i]);
	free(h->scratch);
	free(h);
}

size_t history_size(const struct history *h)
{
	return h->total * sizeof(record);
}

// ---- a moment

static uint64_t *counter(struct counts *c, unsigned i)
{
	return i < COUNT_N ? &c->c[i] : &c->drop[i - COUNT_N];
}

static bool put(struct history *h, record r)
{
	if (h->n == h->room) {
		size_t room = h->room ? 2 * h->room : 1024;
		record *more = realloc(h->scratch, room * sizeof *more);

		if (!more)
			return false;
		h->scratch = more;
		h->room = room;
	}
	h->scratch[h->n++] = r;
	return true;
}

void history_begin(struct history *h, uint64_t now)
{
	h->n = 0;
	h->now = now;
	h->failed = false;
}

void history_add(struct history *h, uint16_t port, const struct counts *now)
{
	struct counts *last = h->last[port];

	if (!last)
		last = h->last[port] = calloc(1, sizeof *last);
	if (!last) {
		h->failed = true;
		return;
	}
	for (unsigned i = 0; i < COUNTERS; i++) {
		int64_t delta = (int64_t)(*counter((struct counts *)(uintptr_t)now, i) - *counter(last, i));

		while (delta) {
			int64_t part = delta > DELTA_MAX ? DELTA_MAX : delta < -DELTA_MAX ? -DELTA_MAX : delta;

			h->failed |= !put(h, make(port, i, part));
			*counter(last, i) += (uint64_t)part;
			delta -= part;
		}
	}
}

static struct snap take_first(struct list *l)
{
	struct snap s = l->snap[0];

	memmove(&l->snap[0], &l->snap[1], --l->n * sizeof l->snap[0]);
	return s;
}

static void forget_oldest(struct history *h)
{
	struct snap s = take_first(h->coarse.n ? &h->coarse : &h->fine);

	h->start = s.time;
	h->total -= s.n;
	free(s.rec);
}

// What both say of the same counter becomes one record, if it fits.
static bool merge(struct history *h, struct snap *to, const struct snap *from)
{
	record *rec = malloc((to->n + from->n + 1) * sizeof *rec);
	size_t n = 0, a = 0, b = 0;

	if (!rec)
		return false;
	while (a < to->n || b < from->n) {
		uint64_t x = a < to->n ? to->rec[a] >> DELTA_BITS : UINT64_MAX, y = b < from->n ? from->rec[b] >> DELTA_BITS : UINT64_MAX;

		if (x == y && llabs(delta_of(to->rec[a]) + delta_of(from->rec[b])) <= DELTA_MAX) {
			int64_t sum = delta_of(to->rec[a]) + delta_of(from->rec[b]);

			if (sum)
				rec[n++] = make(port_of(to->rec[a]), counter_of(to->rec[a]), sum);
			a++;
			b++;
		} else if (x <= y) {
			rec[n++] = to->rec[a++];
		} else {
			rec[n++] = from->rec[b++];
		}
	}
	h->total -= to->n + from->n - n;
	free(to->rec);
	record *less = realloc(rec, (n + 1) * sizeof *rec);
	to->rec = less ? less : rec;
	to->n = n;
	to->time = from->time;
	return true;
}

// The oldest fine one becomes part of a coarse one.
static void coarsen(struct history *h)
{
	struct snap s = take_first(&h->fine);
	struct list *c = &h->coarse;

	if (c->n && s.time - h->coarse_from <= HISTORY_COARSE_NS && merge(h, &c->snap[c->n - 1], &s)) {
		free(s.rec);
		return;
	}
	h->coarse_from = c->n ? c->snap[c->n - 1].time : h->start;
	if (c->n == c->room)
		forget_oldest(h);
	c->snap[c->n++] = s;
}

void history_end(struct history *h)
{
	struct snap s = {.time = h->now, .n = h->n};

	s.rec = h->failed ? NULL : malloc((s.n + 1) * sizeof *s.rec);
	if (!s.rec) { // what was added is in `last` already: it begins anew
		while (h->coarse.n + h->fine.n)
			forget_oldest(h);
		h->start = h->now;
		return;
	}
	if (s.n)
		memcpy(s.rec, h->scratch, s.n * sizeof *s.rec);
	h->total += s.n;
	if (h->fine.n == h->fine.room)
		coarsen(h);
	h->fine.snap[h->fine.n++] = s;
	while (history_size(h) > HISTORY_MAX && h->coarse.n + h->fine.n > 1)
		forget_oldest(h);
}

// ---- ports that go

// The first record of the port, or of one behind it.
static size_t lower_bound(const struct snap *s, unsigned port)
{
	size_t lo = 0, hi = s->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (port_of(s->rec[mid]) < port)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

// Its records go to the front, where those of port 0 are. That two of these may be of one counter does no harm.
static void relabel(struct snap *s, uint16_t port)
{
	size_t from = lower_bound(s, port), n = lower_bound(s, port + 1U) - from;
	record moved[64];

	while (n) {
		size_t k = n < 64 ? n : 64;

		for (size_t i = 0; i < k; i++)
			moved[i] = make(0, counter_of(s->rec[from + i]), delta_of(s->rec[from + i]));
		memmove(&s->rec[k], &s->rec[0], from * sizeof *moved);
		memcpy(&s->rec[0], moved, k * sizeof *moved);
		from += k;
		n -= k;
	}
}

void history_gone(struct history *h, uint16_t port)
{
	struct counts *gone = h->last[port];

	if (!gone || !port)
		return;
	for (unsigned i = 0; i < h->fine.n; i++)
		relabel(&h->fine.snap[i], port);
	for (unsigned i = 0; i < h->coarse.n; i++)
		relabel(&h->coarse.snap[i], port);
	if (!h->last[0])
		h->last[0] = calloc(1, sizeof *gone);
	for (unsigned i = 0; h->last[0] && i < COUNTERS; i++)
		*counter(h->last[0], i) += *counter(gone, i);
	free(gone);
	h->last[port] = NULL;
}

bool history_knows(const struct history *h, uint16_t port)
{
	return h->last[port] != NULL;
}

// ---- intervals

static void nearer(uint64_t *best, uint64_t time, uint64_t from)
{
	uint64_t a = *best > from ? *best - from : from - *best, b = time > from ? time - from : from - time;

	if (b < a)
		*best = time;
}

uint64_t history_nearest(const struct history *h, uint64_t from)
{
	uint64_t best = h->start;

	for (unsigned i = 0; i < h->coarse.n; i++)
		nearer(&best, h->coarse.snap[i].time, from);
	for (unsigned i = 0; i < h->fine.n; i++)
		nearer(&best, h->fine.snap[i].time, from);
	return best;
}

static void add_list(const struct list *l, uint64_t moment, struct counts *now[MAX_PORTS])
{
	for (unsigned i = 0; i < l->n; i++)
		for (size_t k = 0; l->snap[i].time > moment && k < l->snap[i].n; k++) {
			record r = l->snap[i].rec[k];

			if (now[port_of(r)])
				*counter(now[port_of(r)], counter_of(r)) += (uint64_t)delta_of(r);
		}
}

void history_since(const struct history *h, uint64_t moment, struct counts *now[MAX_PORTS])
{
	for (unsigned p = 0; p < MAX_PORTS; p++)
		for (unsigned i = 0; now[p] && h->last[p] && i < COUNTERS; i++)
			*counter(now[p], i) -= *counter(h->last[p], i);
	add_list(&h->coarse, moment, now);
	add_list(&h->fine, moment, now);
}
