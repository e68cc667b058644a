// tunnel_fragment: packets of tunnels that came in fragments, on the workers. Fragments of one packet may come on different workers, as devices spread them by what
// only the first one has: whoever gets the last one has the whole packet. See tunnel.h.
#include "offload.h"
#include "parse.h"
#include "punt.h"
#include "reassembly.h"
#include "topology.h"
#include "trace.h"
#include "tunnel.h"
#include "worker.h"

#include <rte_ip.h>

static void ended(void *arg, struct rte_mbuf *m, enum reassembly_end how, bool first)
{
	struct worker *w = arg;

	punt_release(w, m);
	if (how == REASSEMBLY_MERGED)
		worker_merge(w, m);
	else
		worker_drop(w, m, how == REASSEMBLY_TIMEOUT ? TUNNEL_REASON(FRAGMENT_TIMEOUT) : TUNNEL_REASON(FRAGMENT));
}

static void trace_this(const struct rte_mbuf *m, uint8_t kind)
{
	const struct pkt *p = pkt_of((struct rte_mbuf *)(uintptr_t)m);
	struct core_record r = {.kind = kind, .port = p->in_port, .len = m->pkt_len};

	if (p->trace)
		trace_put(p->trace, TRACE_CORE, &r, sizeof r);
}

// Reads its headers. 0, or the reason to drop it for.
static uint16_t read_headers(struct worker *w, struct rte_mbuf **m)
{
	struct flow_key key;

	if (parse(*m, &key)) {
		struct rte_mbuf *own = pkt_own_headers(*m, PARSE_HEADERS_MAX, w->pool);

		if (!own)
			return TX_REASON(NO_MEMORY);
		*m = own;
		if (parse(own, &key))
			return TUNNEL_REASON(FRAGMENT); // headers longer than any real ones
	}
	const struct pkt *p = pkt_of(*m);
	const uint8_t *ip = pkt_data(p) + p->l3_ofs;
	if (p->drop)
		return p->drop;
	return p->ethertype == 0x0800 && rte_raw_cksum(ip, (ip[0] & 15u) * 4) != 0xffff ? TUNNEL_REASON(CHECKSUM) : 0;
}

struct rte_mbuf *tunnel_collect(struct worker *w, const struct tunnel_table *t, const struct lport *lp, struct rte_mbuf *m, uint16_t network, uint64_t tsc, struct trace **trace)
{
	struct pkt *p = pkt_of(m);

	*p = (struct pkt){.rx_tsc = tsc, .trace = *trace};
	p->in_port = p->origin = lp->id;
	uint16_t reason = read_headers(w, &m);
	p = pkt_of(m);
	p->network = network;
	trace_this(m, CORE_FRAGMENT);
	if (!reason && !t->end[p->ethertype == 0x86dd].collects)
		reason = TUNNEL_REASON(FRAGMENT);
	if (reason) {
		worker_drop(w, m, reason);
		return NULL;
	}
	punt_hold(w, m);
	struct rte_mbuf *whole = reassembly_add(REASSEMBLY_TUNNEL, m, w->now, ended, w);
	if (!whole)
		return NULL;
	punt_release(w, whole);
	pkt_of(whole)->drop = 0; // what parse() has against it is seen by tunnel_open()
	trace_this(whole, CORE_WHOLE);
	*trace = pkt_of(whole)->trace;
	return whole;
}

static void late(void *arg, struct rte_mbuf *m, enum reassembly_end how, bool first)
{
	punt_drop(m, TUNNEL_REASON(FRAGMENT_TIMEOUT), 0);
}

void tunnel_fragment_tick(uint64_t now)
{
	reassembly_tick(REASSEMBLY_TUNNEL, now, late, NULL);
}
