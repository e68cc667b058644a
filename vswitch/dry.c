// dry: see dry.h.
#include "dry.h"
#include "adjacency.h"
#include "clock.h"
#include "egress.h"
#include "forward.h"
#include "port.h"
#include "thread.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TRACE_ROOM_DRY (1 << 20) // a flood to a thousand ports is explained whole

static struct worker *dry;
static struct lane *lane;   // lent to the port whose packet is at hand
static struct dry_run *run; // the packet on its way
static const struct port_ops *ops;

// ---- egress: the real one, but for the device

static void keep_out(struct rte_mbuf *m, uint16_t queue)
{
	if (run->n_out == run->room_out) {
		unsigned room = run->room_out ? 2 * run->room_out : 4;
		struct dry_out *more = realloc(run->out, room * sizeof *more);

		if (!more)
			return;
		run->out = more;
		run->room_out = room;
	}
	struct dry_out *o = &run->out[run->n_out];
	*o = (struct dry_out){
		.port = lane->pw.id,
		.queue = queue,
		.csum = (m->ol_flags & RTE_MBUF_F_TX_L4_MASK) != 0,
		.mss = m->ol_flags & RTE_MBUF_F_TX_TCP_SEG ? m->tso_segsz : 0,
		.len = m->pkt_len,
		.bytes = malloc(m->pkt_len ? m->pkt_len : 1),
	};
	if (!o->bytes)
		return;
	const void *bytes = rte_pktmbuf_read(m, 0, m->pkt_len, o->bytes);
	if (bytes && bytes != o->bytes)
		memcpy(o->bytes, bytes, m->pkt_len);
	run->n_out++;
}

// In place of the device's own: takes all, if the device would take one.
static uint16_t take(void *dev, uint16_t queue, unsigned worker, struct rte_mbuf **m, uint16_t n)
{
	if (ops->room && ops->room(dev, queue) == 0)
		return 0;
	for (uint16_t i = 0; i < n; i++)
		keep_out(m[i], queue);
	return n;
}

static void send_dry(struct worker *w, struct rte_mbuf *m)
{
	const struct port *p = port_get(pkt_of(m)->out);
	struct port_ops as_dry;
	struct port_dev device;

	if (!p || !p->id) {
		worker_drop(w, m, TX_REASON(NO_PORT));
		return;
	}
	lane->pw.id = p->id;
	lane->pw.device = NULL;
	if (p->device) {
		ops = p->device->ops;
		as_dry = *ops;
		as_dry.tx = take;
		as_dry.tx_keeps = false;
		device = (struct port_dev){&as_dry, p->device->dev};
		lane->pw.device = &device;
	}
	lane->pw.tx[0] = m;
	lane->pw.tx_n = 1;
	egress_flush(w, &lane->pw);
	// What the device doesn't take at once waits for a while, and is dropped if that doesn't help.
	if (p->device)
		egress_drain(w, &lane->pw, p->device->ops->guest ? TX_REASON(NO_BUFFERS) : TX_REASON(DEVICE));
	lane->pw.device = NULL;
}

static void no_flush(struct worker *w, struct port_worker *pw)
{
}

// ---- packets

// A frame in a chain of buffers. NULL: none to be had.
static struct rte_mbuf *to_mbuf(const uint8_t *frame, unsigned len, struct rte_mempool *pool)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(pool), *last = m;

	for (unsigned at = 0; m && at < len;) {
		unsigned n = len - at < PKT_BUF_SIZE ? len - at : PKT_BUF_SIZE;

		if (at) {
			struct rte_mbuf *more = rte_pktmbuf_alloc(pool);

			if (!more) {
				rte_pktmbuf_free(m);
				return NULL;
			}
			last->next = more;
			last = more;
			m->nb_segs++;
		}
		memcpy(rte_pktmbuf_mtod(last, void *), frame + at, n);
		last->data_len = (uint16_t)n;
		at += n;
	}
	if (m)
		m->pkt_len = len;
	return m;
}

static void trace_done(struct trace *t, void *arg)
{
}

static struct trace *new_trace(uint16_t port)
{
	struct trace *t = calloc(1, sizeof *t);

	if (!t)
		return NULL;
	*t = (struct trace){.done = trace_done,
			    .refs = 1,
			    .in_port = port,
			    .start = rte_rdtsc(),
			    .more = malloc(TRACE_ROOM_DRY),
			    .room = TRACE_ROOM_DRY};
	return t;
}

static void keep_core(void *arg, const struct core_record *c)
{
	struct dry_run *r = arg;

	if (c->kind == CORE_DECIDED) {
		r->decision = (struct decision){.out = c->out_kind == OUT_DROP ? c->reason : c->port,
						.out_kind = c->out_kind,
						.network = c->network,
						.vlan_op = c->vlan_op,
						.vlan_tci = c->vlan_tci};
		r->mark = c->mark;
		r->adj = c->adj < ADJACENCY_ACTIONS && c->out_kind != OUT_PUNT ? c->adj : 0;
		return;
	}
	if (c->kind == CORE_ANSWERED) {
		r->answered = true;
		r->answer_reason = c->reason;
	}
	r->waits |= c->kind == CORE_PUNTED;
	if (c->kind != CORE_DROPPED)
		return;
	if (r->n_drop == r->room_drop) {
		unsigned room = r->room_drop ? 2 * r->room_drop : 4;
		struct dry_drop *more = realloc(r->drop, room * sizeof *more);

		if (!more)
			return;
		r->drop = more;
		r->room_drop = room;
	}
	r->drop[r->n_drop++] = (struct dry_drop){c->port, c->reason};
}

int dry_send(const struct dry_packet *p, struct dry_overlay *overlay, struct dry_run *r)
{
	memset(r, 0, sizeof *r);
	r->in_port = p->port;
	r->len = p->len;
	r->trace = new_trace(p->port);
	dry->pool = thread_pool(-1);
	dry->now = clock_ns();
	dry->now_ms = (uint32_t)(dry->now / 1000000);
	struct rte_mbuf *m = dry->pool && r->trace && r->trace->more ? to_mbuf(p->frame, p->len, dry->pool) : NULL;
	if (!m) {
		dry_free(r);
		return -ENOMEM;
	}
	memset(pkt_of(m), 0, sizeof(struct pkt));
	pkt_of(m)->trace = r->trace;
	pkt_of(m)->rx_tsc = r->trace->start;
	// As the vhost library says what the guest asks for.
	if (p->csum || p->mss)
		m->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_NONE;
	if (p->mss) {
		m->ol_flags |= RTE_MBUF_F_RX_LRO;
		m->tso_segsz = p->mss;
	}
	run = r;
	forward_explain(dry, p->port, m, overlay->effect, &overlay->n);
	worker_publish(dry);
	run = NULL;
	trace_each_core(r->trace, keep_core, r);
	return 0;
}

void dry_free(struct dry_run *r)
{
	for (unsigned i = 0; i < r->n_out; i++)
		free(r->out[i].bytes);
	free(r->out);
	free(r->drop);
	if (r->trace)
		free(r->trace->more);
	free(r->trace);
	memset(r, 0, sizeof *r);
}

bool dry_is_packet(const struct dry_run *r, const struct dry_out *o)
{
	const struct lport *lp = lport_get(o->port);

	switch ((enum out_kind)r->decision.out_kind) {
	case OUT_PORT:
		lp = lport_get(r->decision.out);
		return o->port == r->decision.out || (lp && lp->kind == PORT_TUNNEL); // which sends by the underlay's port
	case OUT_FLOOD:
	case OUT_GROUP:
		return lp && !lp->reserved;
	default:
		return false;
	}
}

const struct dry_out *dry_first(const struct dry_run *r)
{
	for (unsigned i = 0; i < r->n_out; i++)
		if (dry_is_packet(r, &r->out[i]))
			return &r->out[i];
	return NULL;
}

unsigned dry_ports(const struct dry_run *r)
{
	bool seen[MAX_PORTS] = {false};
	unsigned n = 0;

	for (unsigned i = 0; i < r->n_out; i++) {
		if (!dry_is_packet(r, &r->out[i]))
			continue;
		n += !seen[r->out[i].port];
		seen[r->out[i].port] = true;
	}
	return n;
}

uint16_t dry_reason(const struct dry_run *r)
{
	if (r->decision.out_kind == OUT_DROP)
		return r->decision.out;
	if (r->answered)
		return r->answer_reason;
	if (dry_first(r))
		return 0;
	for (unsigned i = 0; i < r->n_drop; i++)
		if (r->decision.out_kind != OUT_PORT || r->drop[i].port == r->decision.out)
			return r->drop[i].reason;
	return r->n_drop ? r->drop[r->n_drop - 1].reason : 0;
}

int dry_init(void)
{
	dry = calloc(1, sizeof *dry);
	lane = lane_create(0, NULL, SOCKET_ID_ANY);
	if (!dry || !lane)
		return -ENOMEM;
	dry->id = MAX_WORKERS - 1; // only names a place in meters, which a dry worker doesn't take
	dry->dry = true;
	dry->send_dry = send_dry;
	dry->flush = no_flush;
	dry->port[0] = (struct port_worker *)(void *)lane_create(0, NULL, SOCKET_ID_ANY);
	return dry->port[0] ? 0 : -ENOMEM;
}
