// drop: see drop.h.
#include "drop.h"
#include "key.h"

#include <stdlib.h>
#include <string.h>
#include <rte_branch_prediction.h>
#include <rte_pause.h>

#define SLOTS 8192 // of the directory: half full at most
#define SWEEP_MS 1000

struct drops {
	uint32_t version; // odd while entries move
	uint32_t n;
	struct drop_entry *last; // where packets were added last: drops come in rows
	uint32_t swept_ms;
	uint16_t slot[SLOTS]; // index of an entry, plus 1
	struct drop_entry entry[DROP_ENTRIES];
};

struct drops *drop_create(void)
{
	return calloc(1, sizeof(struct drops)); // so large that it comes from the kernel, untouched
}

void drop_destroy(struct drops *d)
{
	free(d);
}

static inline bool is_of(const struct drop_entry *e, uint16_t port, uint16_t reason, uint32_t row)
{
	return e->port == port && e->reason == reason && e->row == row;
}

// The place in the directory where the entry is, or would be.
static uint16_t *place(const struct drops *d, uint16_t port, uint16_t reason, uint32_t row)
{
	uint64_t h = ((uint64_t)port << 48 | (uint64_t)reason << 32 | row) * 0x9e3779b97f4a7c15ULL;
	unsigned at = (unsigned)(h >> 51);

	static_assert(SLOTS == 1 << (64 - 51), "the hash gives a place");
	while (d->slot[at] && !is_of(&d->entry[d->slot[at] - 1], port, reason, row))
		at = (at + 1) % SLOTS;
	return (uint16_t *)(uintptr_t)&d->slot[at]; // as much the caller's to write as the table is
}

// ---- entries move: seldom

static void adopt(struct drop_entry *to, const struct drop_packet *p)
{
	if (!p->time)
		return;
	to->kept[to->next] = *p;
	to->next = (to->next + 1) % DROP_KEPT;
}

// What is left of the newest packets of both, in order.
static void merge(struct drop_entry *to, const struct drop_entry *from)
{
	struct drop_entry both = {0};
	unsigned a = to->next, b = from->next;

	for (unsigned i = 0, k = 0; i < DROP_KEPT || k < DROP_KEPT;) {
		const struct drop_packet *x = &to->kept[(a + i) % DROP_KEPT], *y = &from->kept[(b + k) % DROP_KEPT];

		if (k == DROP_KEPT || (i < DROP_KEPT && x->time <= y->time)) {
			adopt(&both, x);
			i++;
		} else {
			adopt(&both, y);
			k++;
		}
	}
	memcpy(to->kept, both.kept, sizeof to->kept);
	to->next = both.next;
	to->packets += from->packets;
	if ((int32_t)(from->ms - to->ms) > 0)
		to->ms = from->ms;
}

// Makes the directory anew; entries that are the same by now become one. An entry only ever moves down.
static void rebuild(struct drops *d)
{
	uint32_t n = d->n;

	d->last = NULL;
	d->n = 0;
	memset(d->slot, 0, sizeof d->slot);
	for (uint32_t i = 0; i < n; i++) {
		struct drop_entry *e = &d->entry[i];
		uint16_t *at = place(d, e->port, e->reason, e->row);

		if (*at) {
			merge(&d->entry[*at - 1], e);
			continue;
		}
		if (d->n != i)
			d->entry[d->n] = *e;
		*at = (uint16_t)++d->n;
	}
}

static void begin(struct drops *d)
{
	__atomic_store_n(&d->version, d->version + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

static void end(struct drops *d)
{
	__atomic_store_n(&d->version, d->version + 1, __ATOMIC_RELEASE);
}

void drop_fold(struct drops *d, uint16_t port)
{
	bool any = false;

	for (uint32_t i = 0; i < d->n && !any; i++)
		any = d->entry[i].port == port;
	if (!any || !port)
		return;
	begin(d);
	for (uint32_t i = 0; i < d->n; i++)
		if (d->entry[i].port == port) {
			d->entry[i].port = 0;
			d->entry[i].row = 0;
		}
	rebuild(d);
	end(d);
}

// Entries that are old lose their rows.
static void make_room(struct drops *d, uint32_t now_ms)
{
	bool any = false;

	if (now_ms - d->swept_ms < SWEEP_MS)
		return;
	d->swept_ms = now_ms;
	begin(d);
	for (uint32_t i = 0; i < d->n; i++)
		if (d->entry[i].row && now_ms - d->entry[i].ms > DROP_OLD_MS) {
			d->entry[i].row = 0;
			any = true;
		}
	if (any)
		rebuild(d);
	end(d);
}

// ---- the worker

static struct drop_entry *insert(struct drops *d, uint16_t *at, uint16_t port, uint16_t reason, uint32_t row)
{
	struct drop_entry *e = &d->entry[d->n];

	memset(e, 0, sizeof *e); // it may have been moved away
	e->port = port;
	e->reason = reason;
	e->row = row;
	*at = (uint16_t)(d->n + 1);
	__atomic_store_n(&d->n, d->n + 1, __ATOMIC_RELEASE);
	return e;
}

// NULL: there is no room.
static __rte_noinline struct drop_entry *find(struct drops *d, uint16_t port, uint16_t reason, uint32_t row, uint32_t now_ms)
{
	uint16_t *at = place(d, port, reason, row);

	if (*at)
		return &d->entry[*at - 1];
	if (unlikely(row && d->n >= DROP_ROWS_MAX)) {
		make_room(d, now_ms);
		if (d->n >= DROP_ROWS_MAX)
			row = DROP_OTHERS;
		at = place(d, port, reason, row);
		if (*at)
			return &d->entry[*at - 1];
	}
	return d->n < DROP_ENTRIES ? insert(d, at, port, reason, row) : NULL;
}

static void keep(struct drop_entry *e, const struct rte_mbuf *m, uint64_t now)
{
	struct drop_packet *p = &e->kept[e->next];

	__atomic_store_n(&e->version, e->version + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	e->next = (e->next + 1) % DROP_KEPT;
	p->time = now;
	p->number = e->packets;
	p->len = m->pkt_len;
	p->have = m->data_len < DROP_BYTES ? m->data_len : DROP_BYTES;
	memcpy(p->data, rte_pktmbuf_mtod(m, const void *), p->have);
	__atomic_store_n(&e->version, e->version + 1, __ATOMIC_RELEASE);
}

void drop_note(struct drops *d, uint16_t port, uint16_t reason, uint32_t row, const struct rte_mbuf *m, uint64_t now, uint32_t now_ms)
{
	struct drop_entry *e = d->last;

	if (unlikely(!e || !is_of(e, port, reason, row))) {
		e = find(d, port, reason, row, now_ms);
		if (unlikely(!e))
			return;
		d->last = e;
	}
	__atomic_store_n(&e->packets, e->packets + 1, __ATOMIC_RELAXED);
	if (e->ms != now_ms) {
		e->ms = now_ms;
		e->budget = DROP_KEPT;
	}
	if (e->budget) {
		e->budget--;
		keep(e, m, now);
	}
}

void drop_add(struct drops *to, const struct drop_entry *e, unsigned n)
{
	for (; n--; e++) {
		struct drop_entry *mine = find(to, e->port, e->reason, e->row, to->swept_ms);

		if (mine)
			merge(mine, e);
	}
	to->last = NULL;
}

void drop_merge(struct drops *to, const struct drops *from)
{
	drop_add(to, from->entry, from->n);
}

const struct drop_entry *drop_find(const struct drops *d, uint16_t port, uint16_t reason, uint32_t row)
{
	const uint16_t *at = place(d, port, reason, row);

	return *at ? &d->entry[*at - 1] : NULL;
}

// ---- readers

static void read_entry(const struct drop_entry *e, struct drop_entry *to, bool kept)
{
	uint32_t before;

	to->port = e->port;
	to->reason = e->reason;
	to->row = e->row;
	to->ms = e->ms;
	to->packets = __atomic_load_n(&e->packets, __ATOMIC_RELAXED);
	to->next = 0;
	if (!kept) {
		for (unsigned i = 0; i < DROP_KEPT; i++)
			to->kept[i].time = 0;
		return;
	}
	do {
		while ((before = __atomic_load_n(&e->version, __ATOMIC_ACQUIRE)) & 1)
			rte_pause();
		memcpy(to->kept, e->kept, sizeof to->kept);
		to->next = e->next;
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while (__atomic_load_n(&e->version, __ATOMIC_RELAXED) != before);
}

unsigned drop_read(const struct drops *d, struct drop_entry to[DROP_ENTRIES], bool kept)
{
	uint32_t before, n;

	do {
		while ((before = __atomic_load_n(&d->version, __ATOMIC_ACQUIRE)) & 1)
			rte_pause();
		n = __atomic_load_n(&d->n, __ATOMIC_ACQUIRE);
		for (uint32_t i = 0; i < n; i++)
			read_entry(&d->entry[i], &to[i], kept);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while (__atomic_load_n(&d->version, __ATOMIC_RELAXED) != before);
	return n;
}
