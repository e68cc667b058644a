// capture_point: what workers do for captures: packets that match are copied into the worker's ring. See capture.h.
#include "capture_private.h"
#include "filter.h"
#include "stage.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <rte_branch_prediction.h>
#include <rte_cycles.h>

#define MASK (CAPTURE_RING - 1)

struct capture_ring *capture_ring_new(bool populate)
{
	struct capture_ring *r = aligned_alloc(64, (sizeof *r + 63) & ~(size_t)63);

	if (!r)
		return NULL;
	memset(r, 0, sizeof *r);
	// Pages are there before a worker writes to them, unless it came late.
	r->data = mmap(NULL, CAPTURE_RING, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | (populate ? MAP_POPULATE : 0), -1, 0);
	if (r->data == MAP_FAILED) {
		free(r);
		return NULL;
	}
	r->room_until = CAPTURE_RING;
	return r;
}

void capture_ring_free(struct capture_ring *r)
{
	if (r)
		munmap(r->data, CAPTURE_RING);
	free(r);
}

// Room for `size` bytes in one piece, or NULL. Looks at the thread's side only when it seems full.
static struct capture_record *ring_room(struct capture_ring *r, uint32_t size)
{
	uint32_t at = (uint32_t)(r->at & MASK), to_end = CAPTURE_RING - at;
	uint32_t need = size > to_end ? to_end + size : size;

	if (unlikely(r->at + need > r->room_until)) {
		r->room_until = __atomic_load_n(&r->tail, __ATOMIC_ACQUIRE) + CAPTURE_RING;
		if (r->at + need > r->room_until)
			return NULL;
	}
	if (unlikely(size > to_end)) {
		struct capture_record *skip = (struct capture_record *)(void *)(r->data + at);

		skip->size = to_end;
		skip->point = CAPTURE_SKIP;
		r->at += to_end;
		at = 0;
	}
	r->at += size;
	return (struct capture_record *)(void *)(r->data + at);
}

static void publish(struct capture_ring *r)
{
	__atomic_store_n(&r->head, r->at, __ATOMIC_RELEASE);
}

// What a record says of its packet beside its bytes.
struct about {
	uint64_t tsc;
	uint32_t row;
	uint16_t port, other, reason;
	uint8_t point, stage;
	bool outbound;
};

static void put(struct capture_ring *r, const struct capture *c, const struct about *a, const struct rte_mbuf *m)
{
	uint32_t caplen = m->pkt_len < c->snaplen ? m->pkt_len : c->snaplen;
	struct capture_record *k = ring_room(r, (uint32_t)((sizeof *k + caplen + 7) & ~7ul));
	uint32_t *lost = &r->lost[a->port & (MAX_PORTS - 1)];

	if (unlikely(!k)) {
		__atomic_store_n(lost, *lost + 1, __ATOMIC_RELAXED);
		return;
	}
	*k = (struct capture_record){
		.size = (uint32_t)((sizeof *k + caplen + 7) & ~7ul),
		.port = a->port,
		.point = a->point,
		.outbound = a->outbound,
		.len = m->pkt_len,
		.caplen = caplen,
		.tsc = a->tsc,
		.lost = *lost,
		.reason = a->reason,
		.other = a->other,
		.row = a->row,
		.stage = a->stage,
	};
	if (unlikely(*lost))
		__atomic_store_n(lost, 0, __ATOMIC_RELAXED);
	const void *bytes = rte_pktmbuf_read(m, 0, caplen, k->data);
	if (bytes != k->data)
		memcpy(k->data, bytes, caplen);
}

static void offer(struct capture_ring *r, const struct capture *c, const struct about *a, const struct rte_mbuf *m)
{
	if (c->port && c->port != a->port && (a->point == CAPTURE_TX || c->port != a->other))
		return;
	if (c->has_filter && !filter_match(&c->filter, m))
		return;
	put(r, c, a, m);
}

static struct about describe(enum capture_point point, uint16_t port, struct rte_mbuf *m, uint16_t what, uint64_t tsc)
{
	struct about a = {.tsc = tsc, .point = (uint8_t)point};
	const struct pkt *p = pkt_of(m);

	switch (point) {
	case CAPTURE_RX: // nothing is known of it yet
		a.port = port;
		break;
	case CAPTURE_TX:
		a.port = port;
		a.outbound = true;
		a.other = p->in_port;
		break;
	case CAPTURE_DROP:
		a.port = p->in_port;
		a.other = port;
		a.reason = what;
		break;
	default:
		a.outbound = stage_get((uint8_t)what)->egress;
		a.port = a.outbound ? p->out : p->in_port;
		a.other = a.outbound ? p->in_port : 0;
		a.reason = p->drop;
		a.stage = (uint8_t)what;
	}
	return a;
}

static bool wants(const struct capture *c, enum capture_point point, uint16_t what)
{
	return (c->points >> point & 1) && (point != CAPTURE_STAGE || (c->stages >> what & 1));
}

void capture_packets(struct worker *w, enum capture_point point, uint16_t port, struct rte_mbuf *const *m, unsigned n, uint16_t what,
		     uint32_t row)
{
	const struct captures *set = w->captures;
	uint64_t tsc = rte_rdtsc();

	for (unsigned i = 0; i < set->n; i++) {
		const struct capture *c = set->capture[i];

		if (!wants(c, point, what))
			continue;
		for (unsigned k = 0; k < n; k++) {
			struct about a = describe(point, port, m[k], what, tsc);

			a.row = row;
			offer(c->ring[w->id], c, &a, m[k]);
		}
		publish(c->ring[w->id]);
	}
}

// What the device doesn't take is tried again later, and must not be captured twice.
void capture_tx(struct worker *w, uint16_t port, struct rte_mbuf *const *m, unsigned n)
{
	const struct captures *set = w->captures;
	uint64_t tsc = rte_rdtsc();

	for (unsigned i = 0; i < set->n; i++) {
		const struct capture *c = set->capture[i];
		struct capture_ring *r = c->ring[w->id];

		r->marks = 0;
		r->tx_port = port & (MAX_PORTS - 1);
		if (!wants(c, CAPTURE_TX, 0) || n > TX_BATCH)
			continue;
		r->tx_lost = r->lost[r->tx_port];
		for (unsigned k = 0; k < n; k++) {
			struct about a = describe(CAPTURE_TX, port, m[k], 0, tsc);

			offer(r, c, &a, m[k]);
			r->mark[k].at = r->at;
			r->mark[k].lost = r->lost[r->tx_port];
		}
		r->marks = n;
	}
}

void capture_taken(struct worker *w, unsigned taken)
{
	const struct captures *set = w->captures;

	for (unsigned i = 0; i < set->n; i++) {
		struct capture_ring *r = set->capture[i]->ring[w->id];

		if (!r->marks)
			continue;
		if (taken < r->marks) {
			uint32_t lost = taken ? r->mark[taken - 1].lost : r->tx_lost;

			r->at = taken ? r->mark[taken - 1].at : r->head;
			__atomic_store_n(&r->lost[r->tx_port], lost, __ATOMIC_RELAXED);
		}
		r->marks = 0;
		publish(r);
	}
}
