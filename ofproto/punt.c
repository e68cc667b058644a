// punt: see punt.h.
#include "punt.h"
#include "forward.h"
#include "stage.h"
#include "trace.h"

#include <string.h>
#include <rte_branch_prediction.h>
#include <rte_cycles.h>

uint16_t punt_reason_base;
void (*punt_ring)(void);
bool (*punt_deliver)(struct rte_mbuf *, unsigned worker);

static const struct reason reason_rows[] = {PUNT_REASONS(REASON_ROW)};

// What a worker is to do with a packet that comes back.
enum punt_op {
	OP_NONE,
	OP_CONSUME,
	OP_DROP,   // pkt.drop, pkt.drop_row
	OP_RESUME,
	OP_RUN,    // the function is in pkt.rx_tsc
	OP_SEND,   // new, comes in on in_port
	OP_EMIT,   // new, leaves by pkt.out
};
#define OP_HELD 0x80 // besides: it was not punted, but held by workers

// Packets on their way, the last one first (Treiber 1986): whoever takes them takes all, so that no packet is seen twice. They are linked through pkt.stages.
static struct rte_mbuf *punted;

static void push(struct rte_mbuf **to, struct rte_mbuf *m)
{
	struct rte_mbuf *head = __atomic_load_n(to, __ATOMIC_RELAXED);

	do
		pkt_of(m)->stages = (uintptr_t)head;
	while (!__atomic_compare_exchange_n(to, &head, m, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
}

static struct rte_mbuf *next_of(struct rte_mbuf *m)
{
	return (struct rte_mbuf *)(uintptr_t)pkt_of(m)->stages;
}

// All of them, the first one first.
static struct rte_mbuf *take(struct rte_mbuf **from)
{
	struct rte_mbuf *m = __atomic_exchange_n(from, NULL, __ATOMIC_ACQUIRE), *first = NULL;

	while (m) {
		struct rte_mbuf *next = next_of(m);

		pkt_of(m)->stages = (uintptr_t)first;
		first = m;
		m = next;
	}
	return first;
}

void punt_init(void)
{
	punt_reason_base = reason_register(reason_rows, PUNT_REASON_N);
}

void punt_fini(void)
{
	for (struct rte_mbuf *m = take(&punted), *next; m; m = next) {
		next = next_of(m);
		rte_pktmbuf_free(m);
	}
}

// ---- workers

void resolve_punt(struct resolve *r, uint8_t kind, uint16_t arg)
{
	r->flow->out_kind = OUT_PUNT;
	r->flow->out = (uint16_t)(r->stage << 8 | kind);
	r->flow->adj = arg;
}

void resolve_consume(struct resolve *r)
{
	resolve_punt(r, PUNT_CONSUME, 0);
}

// Whether another packet of the port may go; it is counted then.
static bool admit(struct worker *w, const struct pkt *p)
{
	struct port_worker *pw = worker_port(w, p->in_port);

	if (w->punted >= PUNT_MAX || (pw && pw->punted >= PUNT_PORT_MAX))
		return false;
	w->punted++;
	if (pw)
		pw->punted++;
	worker_count(w, p->origin, COUNT_QUEUED, 1);
	return true;
}

static void hand_up(struct worker *w, struct rte_mbuf *m)
{
	m->port = w->id;
	push(&punted, m);
	if (punt_ring)
		punt_ring();
}

void punt_give(struct worker *w, struct rte_mbuf *m)
{
	struct pkt *p = pkt_of(m);
	uint8_t stage = (uint8_t)(p->out >> 8), kind = (uint8_t)p->out;

	if (kind == PUNT_CONSUME) {
		worker_consume(w, m);
		return;
	}
	if (unlikely(p->trace)) {
		struct core_record r = {.kind = CORE_PUNTED, .port = stage};

		trace_put(p->trace, TRACE_CORE, &r, sizeof r);
	}
	if (w->dry)
		worker_consume(w, m);
	else if (likely(admit(w, p)))
		hand_up(w, m);
	else
		worker_drop(w, m, PUNT_REASON(QUEUE_FULL));
}

// The copy has bytes of its own, as the packet's may be changed in the next moment.
void punt_copy(struct worker *w, const struct pkt *p, uint8_t stage, uint8_t kind, uint16_t arg)
{
	const struct rte_mbuf *m = pkt_mbuf(p);

	if (w->dry)
		return;
	worker_count(w, p->origin, COUNT_COPIES, 1);
	struct rte_mbuf *c = rte_pktmbuf_copy(m, w->pool, 0, UINT32_MAX);
	if (unlikely(!c || !admit(w, p))) {
		rte_pktmbuf_free(c);
		worker_lose(w, m, PUNT_REASON(QUEUE_FULL), 0);
		return;
	}
	pkt_copy_metadata(c, m);
	pkt_of(c)->trace = NULL;
	pkt_of(c)->out = (uint16_t)(stage << 8 | kind);
	c->hash.fdir.hi = arg;
	hand_up(w, c);
}

// A packet that was queued isn't any more. Another worker may have counted it out.
static void readmit(struct worker *w, const struct pkt *p)
{
	struct port_worker *pw = worker_port(w, p->in_port);

	w->punted -= w->punted > 0;
	if (pw)
		pw->punted -= pw->punted > 0;
	worker_count(w, p->origin, COUNT_QUEUED, (uint64_t)-1);
}

void punt_hold(struct worker *w, struct rte_mbuf *m)
{
	pkt_of(m)->punt_op = OP_HELD;
	m->port = w->id;
	worker_count(w, pkt_of(m)->origin, COUNT_QUEUED, 1);
}

void punt_release(struct worker *w, struct rte_mbuf *m)
{
	pkt_of(m)->punt_op = OP_NONE;
	worker_count(w, pkt_of(m)->origin, COUNT_QUEUED, (uint64_t)-1);
}

static void serve(struct worker *w, struct rte_mbuf *m)
{
	struct pkt *p = pkt_of(m);
	uint8_t op = p->punt_op & ~OP_HELD;
	punt_fn *fn = op == OP_RUN ? (punt_fn *)(uintptr_t)p->rx_tsc : NULL;

	p->stages = 0;
	p->rx_tsc = rte_rdtsc();
	if (p->punt_op & OP_HELD)
		punt_release(w, m);
	else if (op != OP_SEND && op != OP_EMIT)
		readmit(w, p);
	p->punt_op = OP_NONE;
	switch ((enum punt_op)op) {
	case OP_CONSUME:
		worker_consume(w, m);
		break;
	case OP_DROP:
		worker_drop_for(w, m, p->drop, p->drop_row);
		break;
	case OP_RUN:
		fn(w, m, (uint16_t)m->hash.fdir.hi);
		break;
	case OP_SEND:
		worker_count(w, p->origin, COUNT_GENERATED, 1);
		forward_again(w, m);
		break;
	case OP_EMIT:
		worker_count(w, p->origin, COUNT_GENERATED, 1);
		worker_tx(w, &m, 1);
		break;
	case OP_RESUME:
	case OP_NONE:
		forward_again(w, m);
		break;
	}
}

unsigned punt_serve(struct worker *w)
{
	unsigned n = 0;

	if (likely(!__atomic_load_n(&w->inject, __ATOMIC_RELAXED)))
		return 0;
	for (struct rte_mbuf *m = take(&w->inject), *next; m; m = next, n++) {
		next = next_of(m);
		serve(w, m);
	}
	return n;
}

// ---- main thread

void punt_poll(void)
{
	if (!__atomic_load_n(&punted, __ATOMIC_RELAXED))
		return;
	for (struct rte_mbuf *m = take(&punted), *next; m; m = next) {
		next = next_of(m);
		struct stage *s = stage_get((uint8_t)(pkt_of(m)->out >> 8));

		pkt_of(m)->stages = 0;
		if (s->punted)
			s->punted(m, (uint8_t)pkt_of(m)->out, (uint16_t)m->hash.fdir.hi);
		else
			punt_consume(m);
	}
}

void punt_queue(struct worker *w, struct rte_mbuf *m)
{
	push(&w->inject, m);
}

static void give_back(struct rte_mbuf *m, enum punt_op op)
{
	pkt_of(m)->punt_op = (uint8_t)((pkt_of(m)->punt_op & OP_HELD) | op);
	if (!punt_deliver || !punt_deliver(m, m->port))
		rte_pktmbuf_free(m); // no worker is left, and no ledger
}

void punt_consume(struct rte_mbuf *m)
{
	give_back(m, OP_CONSUME);
}

void punt_drop(struct rte_mbuf *m, uint16_t reason, uint32_t row)
{
	pkt_drop(pkt_of(m), reason, row);
	give_back(m, OP_DROP);
}

void punt_resume(struct rte_mbuf *m)
{
	give_back(m, OP_RESUME);
}

void punt_run(struct rte_mbuf *m, punt_fn *fn, uint16_t arg)
{
	pkt_of(m)->rx_tsc = (uintptr_t)fn;
	m->hash.fdir.hi = arg;
	give_back(m, OP_RUN);
}

static struct rte_mempool *(*pool_of)(void);

void punt_set_pool(struct rte_mempool *(*fn)(void))
{
	pool_of = fn;
}

struct rte_mbuf *punt_new(uint16_t len, uint8_t **data)
{
	struct rte_mempool *pool = pool_of ? pool_of() : NULL;
	struct rte_mbuf *m = pool && len <= PKT_BUF_SIZE ? rte_pktmbuf_alloc(pool) : NULL;

	if (!m)
		return NULL;
	*data = (uint8_t *)rte_pktmbuf_append(m, len);
	memset(*data, 0, len);
	memset(pkt_of(m), 0, sizeof(struct pkt));
	m->port = 0;
	return m;
}

void punt_send(struct rte_mbuf *m, uint16_t port)
{
	pkt_of(m)->in_port = pkt_of(m)->origin = port;
	give_back(m, OP_SEND);
}

void punt_emit(struct rte_mbuf *m, uint16_t port)
{
	struct pkt *p = pkt_of(m);

	p->out_kind = OUT_PORT;
	p->out = port;
	p->seg_len = m->pkt_len > 14 ? m->pkt_len - 14 : 0;
	give_back(m, OP_EMIT);
}
