// egress: see egress.h.
#include "egress.h"
#include "capture.h"
#include "clock.h"
#include "offload.h"
#include "topology.h"
#include "trace.h"
#include "parse.h"
#include "tunnel.h"

#include <rte_branch_prediction.h>
#include <rte_cycles.h>
#include <rte_malloc.h>

#define lane_of(pw_) ((struct lane *)(void *)(pw_))
static_assert(offsetof(struct lane, pw) == 0, "a lane begins with its port_worker");

struct lane *lane_create(uint16_t port, struct port_dev *device, int socket)
{
	struct lane *l = rte_zmalloc_socket("lane", sizeof *l, RTE_CACHE_LINE_SIZE, socket);

	if (l) {
		l->pw.id = port;
		l->pw.device = device;
		load_init(&l->pw.load);
	}
	return l;
}

void lane_free(struct lane *l)
{
	rte_free(l);
}

// Jump consistent hash (Lamping and Veach, 2014): when the guest adds or removes queues, as few flows as possible change theirs.
static unsigned jump_hash(uint64_t key, unsigned n)
{
	int64_t b = -1, j = 0;

	while (j < (int64_t)n) {
		b = j;
		key = key * 2862933555777941757ULL + 1;
		j = (int64_t)((double)(b + 1) * ((double)(1LL << 31) / (double)((key >> 33) + 1)));
	}
	return (unsigned)b;
}

static unsigned pick_queue(const struct port_dev *d, struct rte_mbuf *m, uint32_t queues)
{
	if (likely(!(queues & (queues - 1))))
		return (unsigned)__builtin_ctz(queues);
	if (d->ops->pick)
		return d->ops->pick(d->dev, m, queues);
	unsigned nth = jump_hash(parse_flow_hash(m), (unsigned)__builtin_popcount(queues));
	while (nth--)
		queues &= queues - 1;
	return (unsigned)__builtin_ctz(queues);
}

static void put_aside(struct worker *w, struct lane *l, struct rte_mbuf *m)
{
	if (l->n == EGRESS_QUEUE || l->segments + m->nb_segs > EGRESS_SEGMENTS) {
		w->tally.full++;
		w->tally.full_port = l->pw.id;
		w->tally.full_tx = true;
		worker_drop_tx(w, &l->pw, m, TX_REASON(QUEUE_FULL));
		return;
	}
	l->pkt[(l->head + l->n++) % EGRESS_QUEUE] = m;
	l->segments += m->nb_segs;
	worker_queued(w, m, 1);
}

// Hands n <= TX_BATCH packets to one queue of the device and counts what it took. Returns how many.
static unsigned hand_over(struct worker *w, struct port_worker *pw, unsigned queue, struct rte_mbuf **m, unsigned n)
{
	const struct port_dev *d = rcu_read(pw->device);
	bool captured = INSTRUMENTS && unlikely(w->watch & WATCH(CAPTURE_TX));
	struct {
		struct trace *trace;
		uint32_t len;
		uint16_t origin;
	} note[TX_BATCH];

	if (unlikely(captured))
		capture_tx(w, pw->id, m, n);
	if (!d->ops->tx_keeps) {
		unsigned taken = d->ops->tx(d->dev, (uint16_t)queue, w->id, m, (uint16_t)n);

		if (unlikely(captured))
			capture_taken(w, taken);
		worker_sent(w, pw, m, taken);
		return taken;
	}
	for (unsigned i = 0; i < n; i++) {
		note[i].trace = pkt_of(m[i])->trace;
		note[i].len = m[i]->pkt_len;
		note[i].origin = pkt_of(m[i])->origin;
	}
	unsigned taken = d->ops->tx(d->dev, (uint16_t)queue, w->id, m, (uint16_t)n);
	if (unlikely(captured))
		capture_taken(w, taken);
	for (unsigned i = 0; i < taken; i++)
		worker_sent_as(w, pw, note[i].origin, note[i].len, note[i].trace);
	return taken;
}

// A flush that is measured, see cycles.h.
struct measured {
	uint64_t start;
	unsigned rows;
	struct load_row row[TX_BATCH]; // with the time stamp of their burst first
};

static __rte_noinline void measure_start(struct measured *f, struct port_worker *pw, struct rte_mbuf **m, unsigned n)
{
	pw->load.flushes_left = FLUSH_EVERY;
	f->rows = 0;
	for (unsigned i = 0, first; i < n;) {
		uint64_t tsc = pkt_of(m[i])->rx_tsc;

		for (first = i++; i < n && pkt_of(m[i])->rx_tsc == tsc; i++)
			;
		f->row[f->rows++] = (struct load_row){.ns = tsc, .packets = i - first};
	}
	f->start = rte_rdtsc();
}

// The device took the first ones.
static __rte_noinline void measure_end(struct measured *f, struct port_worker *pw, unsigned taken)
{
	uint64_t now = rte_rdtsc();

	for (unsigned i = 0; i < f->rows; i++) {
		struct load_row *row = &f->row[i];

		row->ns = clock_cycles_to_ns(now - row->ns);
		row->packets = RTE_MIN(row->packets, taken);
		taken -= row->packets;
	}
	load_sent(&pw->load, now - f->start, f->row, f->rows);
}

static inline bool measure_due(struct port_worker *pw)
{
	return INSTRUMENTS && unlikely(!--pw->load.flushes_left);
}

static unsigned transmit(struct worker *w, struct port_worker *pw, unsigned queue, struct rte_mbuf **m, unsigned n)
{
	bool due = measure_due(pw);
	struct measured f;

	if (unlikely(due))
		measure_start(&f, pw, m, n);
	unsigned taken = hand_over(w, pw, queue, m, n);
	if (unlikely(due))
		measure_end(&f, pw, taken);
	else if (INSTRUMENTS)
		pw->load.sent_since += taken;
	return taken;
}

// Packets that the device can take as they are.
static void send(struct worker *w, struct lane *l, struct rte_mbuf **m, unsigned n, uint32_t queues)
{
	if (unlikely(l->n)) { // what came before them still waits
		for (unsigned i = 0; i < n; i++)
			put_aside(w, l, m[i]);
		return;
	}
	if (likely(!(queues & (queues - 1)))) {
		for (unsigned i = transmit(w, &l->pw, (unsigned)__builtin_ctz(queues), m, n); i < n; i++)
			put_aside(w, l, m[i]);
		return;
	}
	const struct port_dev *d = rcu_read(l->pw.device);
	unsigned queue[TX_BATCH];
	uint32_t used = 0;
	for (unsigned i = 0; i < n; i++) {
		queue[i] = pick_queue(d, m[i], queues);
		used |= 1u << queue[i];
	}
	for (; used; used &= used - 1) {
		unsigned q = (unsigned)__builtin_ctz(used), k = 0;
		struct rte_mbuf *mine[TX_BATCH];

		for (unsigned i = 0; i < n; i++)
			if (queue[i] == q)
				mine[k++] = m[i];
		for (unsigned i = transmit(w, &l->pw, q, mine, k); i < k; i++)
			put_aside(w, l, mine[i]);
	}
}

// Packets on their way to the device, in order.
struct outgoing {
	struct worker *w;
	struct lane *l;
	uint32_t queues;
	unsigned caps;
	unsigned n;
	struct rte_mbuf *m[TX_BATCH];
};

static void out_flush(struct outgoing *o)
{
	if (o->n)
		send(o->w, o->l, o->m, o->n, o->queues);
	o->n = 0;
}

static void out_add(struct outgoing *o, struct rte_mbuf *m)
{
	o->m[o->n++] = m;
	if (o->n == TX_BATCH)
		out_flush(o);
}

// A packet that still asks for its checksum: the vhost library writes the sum of the pseudo-header into it, which must not be the one of
// another copy of a flood.
static void out_own(struct outgoing *o, struct rte_mbuf *m)
{
	struct rte_mbuf *own = m;

	if (m->ol_flags & RTE_MBUF_F_TX_L4_MASK)
		own = pkt_own_headers(m, (uint16_t)(m->l2_len + m->l3_len + m->l4_len), o->w->pool);
	if (likely(own))
		out_add(o, own);
	else
		worker_drop_tx(o->w, &o->l->pw, m, TX_REASON(NO_MEMORY));
}

// One mbuf and a finished checksum, as far as the device lacks them.
static void out_finish(struct outgoing *o, struct rte_mbuf *m)
{
	struct pkt *p = pkt_of(m);

	if ((m->ol_flags & RTE_MBUF_F_TX_L4_MASK) && !(o->caps & OFFLOAD_CSUM)) {
		struct rte_mbuf *own = pkt_own_headers(m, (uint16_t)(m->l2_len + m->l3_len + p->l4_len), o->w->pool);

		if (!own || offload_checksum(own)) {
			worker_drop_tx(o->w, &o->l->pw, own ? own : m, own ? TX_REASON(OFFLOAD) : TX_REASON(NO_MEMORY));
			return;
		}
		m = own;
	}
	if (m->nb_segs > 1 && !(o->caps & OFFLOAD_MULTISEG)) {
		struct rte_mbuf *one = offload_linear(m, o->w->pool);

		if (!one) {
			worker_drop_tx(o->w, &o->l->pw, m, m->pkt_len > PKT_BUF_SIZE ? TX_REASON(OFFLOAD) : TX_REASON(NO_MEMORY));
			return;
		}
		rte_pktmbuf_free(m); // replaced, not lost
		m = one;
	}
	out_add(o, m);
}

static void out_segments(struct outgoing *o, struct rte_mbuf *m)
{
	struct pkt *p = pkt_of(m);
	unsigned n = offload_segments(m);

	if (!n) {
		worker_drop_tx(o->w, &o->l->pw, m, TX_REASON(OFFLOAD));
		return;
	}
	worker_count(o->w, p->origin, COUNT_SEGMENTS, n - 1);
	for (unsigned i = 0; i < n; i++) {
		struct rte_mbuf *s = offload_segment(m, i, o->w->pool);

		if (s)
			out_finish(o, s); // it came with a reference of its own to the trace
		else
			worker_lose(o->w, m, TX_REASON(NO_MEMORY), 0);
	}
	trace_unref(p->trace);
	rte_pktmbuf_free(m); // its segments stand for it
}

// A whole batch of which every packet is one buffer that nobody shares, all of one origin and none traced: what most batches are.
static void send_same(struct worker *w, struct lane *l, const struct port_dev *d, unsigned queue, unsigned n, uint32_t bytes)
{
	struct port_worker *pw = &l->pw;
	bool due = measure_due(pw);
	struct measured f;

	if (unlikely(due))
		measure_start(&f, pw, pw->tx, n);
	unsigned taken = d->ops->tx(d->dev, (uint16_t)queue, w->id, pw->tx, (uint16_t)n);
	if (unlikely(due))
		measure_end(&f, pw, taken);
	else if (INSTRUMENTS)
		pw->load.sent_since += taken;
	if (likely(taken == n)) {
		worker_sent_same(w, pw, pw->tx_origin, bytes, pw->tx, n);
		return;
	}
	worker_sent(w, pw, pw->tx, taken);
	for (unsigned i = taken; i < n; i++)
		put_aside(w, l, pw->tx[i]);
}

// The batch of a tunnel's port goes on to the underlay's.
static bool into_tunnel(struct worker *w, struct port_worker *pw)
{
	if (INSTRUMENTS && unlikely(w->watch & WATCH(CAPTURE_TX)) && lport_get(pw->id) && lport_get(pw->id)->kind == PORT_TUNNEL) {
		capture_tx(w, pw->id, pw->tx, pw->tx_n);
		capture_taken(w, pw->tx_n);
	}
	return tunnel_send(w, pw);
}

// Completes checksums where they are, in packets of one buffer that nobody shares: what the underlay gets from tunnels, mostly. Returns the flags that are left.
static __rte_noinline uint64_t complete_checksums(struct rte_mbuf **m, unsigned n)
{
	uint64_t left = 0;

	for (unsigned i = 0; i < n; i++) {
		if (likely(RTE_MBUF_DIRECT(m[i]) && rte_mbuf_refcnt_read(m[i]) == 1 && !(m[i]->ol_flags & RTE_MBUF_F_TX_TCP_SEG)))
			offload_checksum(m[i]); // one that can't be keeps its flag, and goes the long way
		left |= m[i]->ol_flags;
	}
	return left;
}

void egress_flush(struct worker *w, struct port_worker *pw)
{
	struct lane *l = lane_of(pw);
	const struct port_dev *d = rcu_read(pw->device);
	unsigned n = pw->tx_n, same = pw->tx_same;
	uint32_t bytes = pw->tx_bytes;

	uint32_t queues = d ? d->ops->tx_queues(d->dev) : 0;
	if (unlikely(!queues) && into_tunnel(w, pw))
		return;
	pw->tx_n = pw->tx_same = 0;
	pw->tx_bytes = 0;
	if (unlikely(!queues)) {
		for (unsigned i = 0; i < n; i++)
			worker_drop_tx(w, pw, pw->tx[i], TX_REASON(DISCONNECTED));
		egress_drain(w, pw, TX_REASON(DISCONNECTED));
		return;
	}
	uint64_t asks = 0;
	unsigned buffers = 0;
	for (unsigned i = 0; i < n; i++) {
		asks |= pw->tx[i]->ol_flags;
		buffers |= pw->tx[i]->nb_segs;
	}
	if (unlikely(asks & RTE_MBUF_F_TX_L4_MASK) && buffers == 1 && !(d->ops->caps(d->dev) & OFFLOAD_CSUM))
		asks = complete_checksums(pw->tx, n);
	if (likely(buffers == 1 && !(asks & (RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_L4_MASK)))) {
		if (likely(same == n && !l->n && !(queues & (queues - 1)) && !d->ops->tx_keeps && !(asks & (RTE_MBUF_F_EXTERNAL | RTE_MBUF_F_INDIRECT)) &&
			   !(INSTRUMENTS && (w->watch & WATCH(CAPTURE_TX)))))
			send_same(w, l, d, (unsigned)__builtin_ctz(queues), n, bytes);
		else
			send(w, l, pw->tx, n, queues);
		return;
	}
	struct outgoing o = {.w = w, .l = l, .queues = queues, .caps = d->ops->caps(d->dev)};
	for (unsigned i = 0; i < n; i++) {
		struct rte_mbuf *m = pw->tx[i];

		if (likely(offload_ok(m, o.caps)))
			out_own(&o, m);
		else if ((m->ol_flags & RTE_MBUF_F_TX_TCP_SEG) && !offload_ok_tso(m, o.caps))
			out_segments(&o, m);
		else
			out_finish(&o, m);
	}
	out_flush(&o);
}

unsigned egress_retry(struct worker *w, struct port_worker *pw)
{
	struct lane *l = lane_of(pw);
	const struct port_dev *d = rcu_read(pw->device);
	uint32_t queues = d ? d->ops->tx_queues(d->dev) : 0, stuck = 0;
	uint64_t patience = rte_get_tsc_hz() / 1000 * EGRESS_PATIENCE_MS, now = rte_rdtsc();
	unsigned n = l->n, kept = 0;

	if (!queues) {
		egress_drain(w, pw, TX_REASON(DISCONNECTED));
		return 0;
	}
	struct rte_mbuf *keep[EGRESS_QUEUE];
	for (unsigned i = 0; i < n; i++) {
		struct rte_mbuf *m = l->pkt[(l->head + i) % EGRESS_QUEUE];
		unsigned q = pick_queue(d, m, queues), segments = m->nb_segs;

		if (!(stuck & 1u << q)) {
			uint16_t origin = pkt_of(m)->origin; // afterwards it may be the device's
			uint64_t rx_tsc = pkt_of(m)->rx_tsc;

			if (hand_over(w, pw, q, &m, 1)) {
				worker_count(w, origin, COUNT_QUEUED, (uint64_t)-1);
				w->tally.backlog--;
				if (INSTRUMENTS)
					histogram_add(&pw->load.latency, clock_cycles_to_ns(now - rx_tsc), 1);
				l->segments -= segments;
				continue;
			}
			stuck |= 1u << q;
		}
		if (now - pkt_of(m)->rx_tsc > patience) {
			worker_queued(w, m, -1);
			worker_drop_tx(w, pw, m, d->ops->guest ? TX_REASON(NO_BUFFERS) : TX_REASON(DEVICE));
			l->segments -= segments;
			continue;
		}
		keep[kept++] = m;
	}
	l->head = 0;
	l->n = (uint16_t)kept;
	for (unsigned i = 0; i < kept; i++)
		l->pkt[i] = keep[i];
	return kept;
}

void egress_drain(struct worker *w, struct port_worker *pw, uint16_t reason)
{
	struct lane *l = lane_of(pw);

	while (l->n) {
		struct rte_mbuf *m = l->pkt[l->head];

		l->head = (l->head + 1) % EGRESS_QUEUE;
		l->n--;
		worker_queued(w, m, -1);
		worker_drop_tx(w, pw, m, reason);
	}
	l->segments = 0;
}

bool egress_waiting(const struct port_worker *pw)
{
	return ((const struct lane *)(const void *)pw)->n > 0;
}

unsigned egress_backlog(const struct port_worker *pw)
{
	return __atomic_load_n(&((const struct lane *)(const void *)pw)->n, __ATOMIC_RELAXED);
}
