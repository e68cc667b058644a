// link: see link.h.
#include "link.h"
#include "parse.h"
#include "worker.h"

#include <stdlib.h>
#include <string.h>
#include <rte_ring.h>

uint8_t link_flags[MAX_PORTS];
void (*link_ring)(void);

static const struct reason reason_rows[] = {LINK_REASONS(REASON_ROW)};
static uint16_t reason_base;
static struct rte_ring *taken;

#define REASON(name) ((uint16_t)(reason_base + link_##name))

void link_init(void)
{
	ssize_t size = rte_ring_get_memsize(LINK_WAITING * 2);

	reason_base = reason_register(reason_rows, LINK_REASON_N);
	taken = aligned_alloc(64, ((size_t)size + 63) & ~(size_t)63);
	if (taken && rte_ring_init(taken, "link", LINK_WAITING * 2, RING_F_SC_DEQ)) {
		free(taken);
		taken = NULL;
	}
}

void link_fini(void)
{
	uint16_t port;

	for (struct rte_mbuf *m; (m = link_next(&port));)
		rte_pktmbuf_free(m);
	free(taken);
	taken = NULL;
	memset(link_flags, 0, sizeof link_flags);
}

void link_set(uint16_t port, uint8_t which, bool on)
{
	uint8_t flags = link_flags_of(port);

	__atomic_store_n(&link_flags[port & (MAX_PORTS - 1)], (uint8_t)(on ? flags | which : flags & ~which), __ATOMIC_RELAXED);
}

struct rte_mbuf *link_next(uint16_t *port)
{
	void *m;

	if (!taken || rte_ring_dequeue(taken, &m))
		return NULL;
	*port = pkt_of(m)->in_port;
	return m;
}

// Which of LINK_TAKE_* the frame is; 0: none. Both protocols go untagged to addresses of IEEE 802.1Q table 8-1.
static uint8_t kind_of(const struct rte_mbuf *m)
{
	static const uint8_t reserved[5] = {0x01, 0x80, 0xc2, 0x00, 0x00};
	const uint8_t *data = rte_pktmbuf_mtod(m, const uint8_t *);

	if (m->data_len < 15 || memcmp(data, reserved, sizeof reserved))
		return 0;
	switch (data[12] << 8 | data[13]) {
	case LINK_SLOW_TYPE: // subtypes 1 and 2 are LACP and its markers
		return data[14] == 1 || data[14] == 2 ? LINK_TAKE_SLOW : 0;
	case LINK_LLDP_TYPE:
		return LINK_TAKE_LLDP;
	default:
		return 0;
	}
}

static void book(struct worker *w, uint16_t port, struct rte_mbuf *m)
{
	struct pkt *p = pkt_of(m);

	memset(p, 0, sizeof *p);
	p->in_port = p->origin = port;
	worker_count(w, port, COUNT_RX, 1);
	worker_count(w, port, COUNT_RX_BYTES, m->pkt_len);
	if (INSTRUMENTS && unlikely(w->watch & WATCH(CAPTURE_RX)))
		w->capture(w, CAPTURE_RX, port, &m, 1, 0, 0);
}

static void hand_up(struct worker *w, uint16_t port, struct rte_mbuf *m)
{
	if (m->pkt_len > LINK_FRAME_MAX || m->nb_segs > 1) {
		worker_drop(w, m, REASON(BAD));
		return;
	}
	if (!taken || rte_ring_count(taken) >= LINK_WAITING || rte_ring_enqueue(taken, m)) {
		worker_drop(w, m, REASON(QUEUE_FULL));
		return;
	}
	worker_count(w, port, COUNT_CONSUMED, 1);
	if (link_ring)
		link_ring();
}

uint16_t link_take(struct worker *w, uint16_t port, struct rte_mbuf **m, uint16_t n)
{
	uint8_t flags = link_flags_of(port);
	uint16_t left = 0;

	for (uint16_t i = 0; i < n; i++) {
		bool take = kind_of(m[i]) & flags;

		if (!take && !(flags & LINK_INACTIVE)) {
			m[left++] = m[i];
			continue;
		}
		book(w, port, m[i]);
		if (take)
			hand_up(w, port, m[i]);
		else
			worker_drop(w, m[i], REASON(INACTIVE));
	}
	return left;
}
