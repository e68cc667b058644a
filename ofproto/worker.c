// worker: packets' ends, and the counters on the way there.
#include "worker.h"
#include "probe.h"
#include "topology.h"
#include "trace.h"

#include <string.h>
#include <rte_branch_prediction.h>

uint16_t tx_reason_base;

static const struct reason reason_rows[] = {TX_REASONS(REASON_ROW)};

void worker_init_reasons(void)
{
	tx_reason_base = reason_register(reason_rows, TX_REASON_N);
}

// The port's counters, put on the list of those to publish; port 0 is always there.
static struct port_worker *touch(struct worker *w, uint16_t id)
{
	struct port_worker *pw = worker_port(w, id);

	if (unlikely(!pw)) {
		pw = worker_port(w, 0);
		if (!pw)
			return NULL;
	}
	if (!pw->count_dirty) {
		pw->count_dirty = true;
		w->dirty[w->n_dirty++] = pw->id;
	}
	return pw;
}

void worker_count(struct worker *w, uint16_t id, enum count what, uint64_t n)
{
	struct port_worker *pw = touch(w, id);

	if (likely(pw))
		count_add(&pw->counts, what, n);
}

static void trace_end(struct trace *t, uint8_t kind, uint16_t port, uint16_t reason)
{
	struct core_record r = {.kind = kind, .port = port, .reason = reason};

	trace_put(t, TRACE_CORE, &r, sizeof r);
	trace_unref(t);
}

static __rte_noinline void probe_drop(struct worker *w, const struct rte_mbuf *m, uint16_t origin, uint16_t reason)
{
	PROBE(drop, lport_name(origin), reason_get(reason)->module, reason_get(reason)->name, m->pkt_len, w->id);
}

// On the ledger of the packet's origin, by reason and by row.
static void count_lost(struct worker *w, const struct rte_mbuf *m, uint16_t origin, uint16_t reason, uint32_t row)
{
	struct port_worker *pw = touch(w, origin);

	w->tally.dropped++;
	if (likely(pw))
		count_drop(&pw->counts, reason);
	if (likely(pw && w->drops))
		drop_note(w->drops, pw->id, reason, row, m, w->now, w->now_ms);
	if (PROBE_ON(drop) && !w->dry)
		probe_drop(w, m, origin, reason);
}

// `toward`: the port that it was to leave by, 0: not known.
static inline void end_packet(struct worker *w, struct rte_mbuf *m, uint16_t reason, uint32_t row, uint16_t toward)
{
	struct pkt *p = pkt_of(m);

	count_lost(w, m, p->origin, reason, row);
	if (INSTRUMENTS && unlikely(w->watch & WATCH(CAPTURE_DROP)))
		w->capture(w, CAPTURE_DROP, toward, &m, 1, reason, row);
	if (unlikely(p->trace))
		trace_end(p->trace, CORE_DROPPED, p->out, reason);
	rte_pktmbuf_free(m);
}

void worker_drop_for(struct worker *w, struct rte_mbuf *m, uint16_t reason, uint32_t row)
{
	const struct pkt *p = pkt_of(m);

	end_packet(w, m, reason, row, p->out_kind == OUT_PORT ? p->out : 0);
}

void worker_consume(struct worker *w, struct rte_mbuf *m)
{
	struct pkt *p = pkt_of(m);

	worker_count(w, p->origin, COUNT_CONSUMED, 1);
	if (unlikely(p->trace))
		trace_end(p->trace, CORE_CONSUMED, p->in_port, 0);
	rte_pktmbuf_free(m);
}

void worker_merge(struct worker *w, struct rte_mbuf *m)
{
	struct pkt *p = pkt_of(m);

	worker_count(w, p->origin, COUNT_MERGED, 1);
	if (unlikely(p->trace))
		trace_end(p->trace, CORE_MERGED, p->in_port, 0);
	rte_pktmbuf_free(m);
}

void worker_lose(struct worker *w, const struct rte_mbuf *of, uint16_t reason, uint32_t row)
{
	count_lost(w, of, ((const struct pkt *)rte_mbuf_to_priv((struct rte_mbuf *)(uintptr_t)of))->origin, reason, row);
}

void worker_drop_tx(struct worker *w, struct port_worker *out, struct rte_mbuf *m, uint16_t reason)
{
	const struct lport *lp = out ? lport_get(out->id) : NULL;

	if (out)
		worker_count(w, out->id, COUNT_TX_DROPPED, 1);
	end_packet(w, m, reason, lp ? lp->row : 0, out ? out->id : 0);
}

void worker_sent_as(struct worker *w, struct port_worker *out, uint16_t from, uint32_t bytes, struct trace *trace)
{
	struct port_worker *origin = touch(w, from), *egress = touch(w, out->id);

	if (likely(origin))
		count_add(&origin->counts, COUNT_SENT, 1);
	if (likely(egress)) {
		count_add(&egress->counts, COUNT_TX, 1);
		count_add(&egress->counts, COUNT_TX_BYTES, bytes);
	}
	if (unlikely(trace))
		trace_end(trace, CORE_SENT, out->id, 0);
}

// Packets of one buffer that nobody shares, as most are, go back to their pool together; rte_pktmbuf_free_bulk() does the same for all kinds,
// in twice the instructions.
struct plain {
	struct rte_mempool *pool;
	unsigned n;
	void *m[TX_BATCH];
};

static void plain_flush(struct plain *f)
{
	if (f->n)
		rte_mempool_put_bulk(f->pool, f->m, f->n);
	f->n = 0;
}

static inline void plain_add(struct plain *f, struct rte_mbuf *m)
{
	if (unlikely(!RTE_MBUF_DIRECT(m) || m->next || rte_mbuf_refcnt_read(m) != 1)) {
		rte_pktmbuf_free(m);
		return;
	}
	if (unlikely(f->pool != m->pool || f->n == TX_BATCH)) {
		plain_flush(f);
		f->pool = m->pool;
	}
	f->m[f->n++] = m;
}

void worker_sent(struct worker *w, struct port_worker *out, struct rte_mbuf **m, unsigned n)
{
	struct plain back;
	uint64_t bytes = 0;
	unsigned row = 0;
	uint16_t from = 0;

	back.pool = NULL;
	back.n = 0;
	for (unsigned i = 0; i < n; i++) {
		struct pkt *p = pkt_of(m[i]);

		if (unlikely(p->trace))
			trace_end(p->trace, CORE_SENT, out->id, 0);
		// Packets of one origin come in rows: one count for each row.
		if (unlikely(p->origin != from && row)) {
			worker_count(w, from, COUNT_SENT, row);
			row = 0;
		}
		from = p->origin;
		row++;
		bytes += m[i]->pkt_len;
		plain_add(&back, m[i]);
	}
	if (row)
		worker_count(w, from, COUNT_SENT, row);
	plain_flush(&back);
	worker_count(w, out->id, COUNT_TX, n);
	worker_count(w, out->id, COUNT_TX_BYTES, bytes);
}

void worker_sent_same(struct worker *w, struct port_worker *out, uint16_t origin, uint32_t bytes, struct rte_mbuf **m, unsigned n)
{
	for (unsigned i = 0, row; i < n; i += row) {
		struct rte_mempool *pool = m[i]->pool;

		for (row = 1; i + row < n && m[i + row]->pool == pool; row++)
			;
		rte_mempool_put_bulk(pool, (void **)&m[i], row);
	}
	worker_count(w, origin, COUNT_SENT, n);
	worker_count(w, out->id, COUNT_TX, n);
	worker_count(w, out->id, COUNT_TX_BYTES, bytes);
}

// Of a dry worker: what would become of the packet at its egress port.
static void tx_dry(struct worker *w, struct rte_mbuf *m)
{
	struct pkt *p = pkt_of(m);

	if (w->send_dry) {
		w->send_dry(w, m);
		return;
	}
	if (p->trace)
		trace_end(p->trace, CORE_SENT, p->out, 0);
	rte_pktmbuf_free(m);
}

void worker_tx(struct worker *w, struct rte_mbuf **m, unsigned n)
{
	struct port_worker *pw = NULL;
	uint16_t last = 0;

	for (unsigned i = 0; i < n; i++) {
		uint16_t out = pkt_of(m[i])->out;

		if (unlikely(w->dry)) {
			tx_dry(w, m[i]);
			continue;
		}
		if (!pw || out != last) {
			pw = worker_port(w, out);
			last = out;
		}
		if (unlikely(!pw)) {
			worker_drop(w, m[i], TX_REASON(NO_PORT));
			continue;
		}
		if (!pw->tx_dirty) {
			pw->tx_dirty = true;
			w->tx_dirty[w->n_tx_dirty++] = pw->id;
		}
		pw->tx[pw->tx_n++] = m[i];
		if (unlikely(pw->tx_n == TX_BATCH))
			w->flush(w, pw);
	}
}

void worker_flush(struct worker *w)
{
	for (unsigned i = 0; i < w->n_tx_dirty; i++) {
		struct port_worker *pw = worker_port(w, w->tx_dirty[i]);

		if (!pw)
			continue; // it was taken away empty: see port_worker's removal
		pw->tx_dirty = false;
		if (pw->tx_n)
			w->flush(w, pw);
	}
	w->n_tx_dirty = 0;
}

void worker_publish(struct worker *w)
{
	for (unsigned i = 0; i < w->n_dirty; i++) {
		struct port_worker *pw = worker_port(w, w->dirty[i]);

		if (!pw)
			continue;
		pw->count_dirty = false;
		count_publish(&pw->counts);
	}
	w->n_dirty = 0;
}

void worker_queued(struct worker *w, struct rte_mbuf *m, int n)
{
	struct pkt *p = pkt_of(m);

	worker_count(w, p->origin, COUNT_QUEUED, (uint64_t)(int64_t)n);
	w->tally.backlog += (uint32_t)n;
	if (unlikely(p->trace) && n > 0) {
		struct core_record r = {.kind = CORE_QUEUED, .port = p->out};

		trace_put(p->trace, TRACE_CORE, &r, sizeof r);
	}
}
