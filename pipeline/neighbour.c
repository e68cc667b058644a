// neighbour: looks at every ARP and neighbour discovery packet: learns who has which address, answers for the routers of the
// network and, where the network wants it, for stations that are known, and takes the answers to what routers asked.
//
// Its work is per packet, as what such a packet asks for is in no flow's key. Stages behind it may decide what they like: of a
// packet that it answers or takes none of them sees anything.
#include "fdb.h"
#include "forward.h"
#include "neighbour_event.h"
#include "neighbour_private.h"
#include "neighbour_wire.h"
#include "punt.h"
#include "respond.h"
#include "station_table.h"
#include "station_talk.h"

#include <arpa/inet.h>
#include <string.h>

static const struct reason neighbour_reason_rows[] = {NEIGHBOUR_REASONS(REASON_ROW)};

static bool proxies[MAX_NETWORKS]; // networks that want answers for known stations; the main thread writes

enum outcome {
	PASSES,   // nothing that the switch answers
	UNKNOWN,  // a question for a station that isn't known
	ANSWERED, // for a router's address
	PROXIED,  // for a station's
	TAKEN,    // it is for a router
};

struct record {
	uint8_t outcome;
	uint8_t mac[6];
	struct config_ip ip;
	uint16_t port;
};

static uint16_t neighbour_resolve(struct resolve *r)
{
	uint8_t class = r->key->class;

	// What a rule sends elsewhere is the operator's; what a router sends itself goes out as it is.
	if ((class != CLASS_ARP && class != CLASS_ND) || r->flow->out_kind != OUT_NONE || r->in->kind == PORT_ROUTER)
		r->flow->stages &= ~(1ULL << stage_neighbour.index);
	return 0;
}

// The router port's MAC, of the network, that has the address; NULL: it is none of ours to answer for.
static const uint8_t *own_mac(const struct own_seen *own, const struct config_ip *ip)
{
	for (unsigned i = 0; own && i < own->n; i++)
		if (own->address[i].ip.v6 == ip->v6 && !own->address[i].duplicate &&
		    !memcmp(own->address[i].ip.b, ip->b, ip->v6 ? 16 : 4))
			return own->address[i].mac;
	return NULL;
}

static bool is_own_mac(const struct own_seen *own, const uint8_t mac[6])
{
	for (unsigned i = 0; own && i < own->n_ports; i++)
		if (!memcmp(own->port[i].mac, mac, 6))
			return true;
	return false;
}

static bool is_own_ip(const struct own_seen *own, const struct config_ip *ip)
{
	for (unsigned i = 0; own && i < own->n; i++)
		if (own->address[i].ip.v6 == ip->v6 && !memcmp(own->address[i].ip.b, ip->b, ip->v6 ? 16 : 4))
			return true;
	return false;
}

// Tells the main thread what the packet says, if it is news.
static void tell(struct worker *w, const struct pkt *p, const struct own_seen *own, const struct neighbour_message *m)
{
	const struct config_ip *who = m->v6 && m->kind == MESSAGE_ANSWER ? &m->target : &m->sender;
	bool asks_us = m->kind == MESSAGE_ASK && is_own_ip(own, &m->target);
	bool news = false;

	if (w->dry || (m->v6 && m->kind != MESSAGE_ANSWER && !m->probe && !m->has_mac))
		return;
	if (m->probe) {
		news = asks_us;
		who = &m->target;
	} else if (own && is_own_ip(own, who)) {
		news = !is_own_mac(own, m->mac);
	} else if (m->has_mac) {
		news = station_is_news(p->network, who, m->mac, p->in_port, m->router, (uint32_t)(w->now / 1000000000ULL)) ||
		       (own && neighbour_is_news(p->network, who, m->mac, asks_us));
	}
	struct neighbour_event e = {
		.network = p->network, .port = p->in_port, .ip = *who, .probe = m->probe, .router = m->router, .tells = news};
	// Who asks wants to talk, and who answers is talked to.
	e.with = m->kind == MESSAGE_ASK ? m->target : m->to;
	e.talks = !m->probe && (m->kind == MESSAGE_ASK || (m->kind == MESSAGE_ANSWER && e.with.b[0] != 0xff)) &&
		  memcmp(who->b, e.with.b, 16) &&
		  station_talk_is_new(w->id, p->in_port, who, &e.with, (uint32_t)(w->now / 1000000000ULL));
	if (!news && !e.talks)
		return;
	memcpy(e.mac, m->has_mac ? m->mac : m->eth_src, 6);
	e.what = asks_us || m->kind == MESSAGE_SOLICIT ? NEIGHBOUR_ASKED : m->override || !m->v6 ? NEIGHBOUR_OVERRIDE : 0;
	neighbour_event(w, &e);
}

// Whether the switch may answer for the station that the packet asks for: *s is known, elsewhere, and was heard of.
static bool may_answer_for(const struct pkt *p, const struct neighbour_message *m, struct station *s)
{
	const struct lport *in = lport_get(p->in_port), *out;
	struct fdb_entry e;

	if (!station_lookup(p->network, &m->target, s) || !memcmp(s->mac, m->eth_src, 6) ||
	    (m->has_mac && !memcmp(s->mac, m->mac, 6)))
		return false; // nobody hears from the switch that he has the address himself
	// Whether somebody still has an address that another one would like to have only he can say, unless the operator gave
	// it to him (RFC 5227 2.1.1, RFC 4862 5.4.3). A gratuitous request asks for nothing.
	if ((m->probe && !s->is_static) || (!m->probe && !m->v6 && !memcmp(m->sender.b, m->target.b, 4)))
		return false;
	out = lport_get(s->port);
	return in && out && s->port != p->in_port && out->enabled && !(in->isolated && out->isolated) &&
	       fdb_lookup(fdb_key(p->network, s->mac), &e) && e.port == s->port;
}

// In place, back to where it came from: the question ends here, and its answer is new.
static bool answer(struct worker *w, struct pkt *p, const struct neighbour_message *m, const uint8_t mac[6], bool router)
{
	struct rte_mbuf *mbuf = pkt_mbuf(p);

	if (m->v6 ? respond_neighbour(mbuf, mac, router) : respond_arp(mbuf, mac))
		return false;
	respond_count(w, mbuf, 0, 0);
	forward_return(p);
	return true;
}

// For the main thread, and no stage behind this one.
static void take(struct pkt *p)
{
	p->stages = 0;
	p->out_kind = OUT_PUNT;
	p->out = (uint16_t)(stage_neighbour.index << 8);
}

static enum outcome one(struct worker *w, struct pkt *p, struct neighbour_message *m, struct record *rec)
{
	const struct own_seen *own = neighbour_own_seen(p->network);
	struct station s;

	tell(w, p, own, m);
	if (m->kind == MESSAGE_ANSWER && is_own_mac(own, m->eth_dst)) {
		rec->ip = m->v6 ? m->target : m->sender;
		take(p);
		return TAKEN;
	}
	if (m->kind != MESSAGE_ASK)
		return PASSES;
	rec->ip = m->target;
	const uint8_t *mac = own_mac(own, &m->target);
	if (mac) {
		memcpy(rec->mac, mac, 6);
		return memcmp(mac, m->eth_src, 6) && answer(w, p, m, mac, true) ? ANSWERED : PASSES;
	}
	if (!proxies[p->network])
		return PASSES;
	if (!may_answer_for(p, m, &s))
		return UNKNOWN;
	memcpy(rec->mac, s.mac, 6);
	rec->port = s.port;
	return answer(w, p, m, s.mac, s.router) ? PROXIED : PASSES;
}

static void neighbour_run(struct worker *w, struct pkt **p, uint16_t n)
{
	for (unsigned i = 0; i < n; i++) {
		struct neighbour_message m;
		struct record rec = {0};

		if (!neighbour_message(p[i], &m))
			continue;
		struct trace *t = p[i]->trace;
		rec.outcome = (uint8_t)one(w, p[i], &m, &rec);
		if (unlikely(t) && rec.outcome != PASSES)
			trace_put(t, stage_neighbour.index, &rec, sizeof rec);
	}
}

static void neighbour_format(struct buf *b, const void *record, uint16_t size)
{
	const struct record *r = record;
	char ip[INET6_ADDRSTRLEN];

	inet_ntop(r->ip.v6 ? AF_INET6 : AF_INET, r->ip.b, ip, sizeof ip);
	switch ((enum outcome)r->outcome) {
	case ANSWERED:
		buf_add(b, "%s is a router's: answered, ", ip);
		break;
	case PROXIED:
		buf_add(b, "%s is on %s: answered for it, ", ip, lport_name(r->port));
		break;
	case TAKEN:
		buf_add(b, "tells a router of %s", ip);
		return;
	case UNKNOWN:
		buf_add(b, "nobody is known to have %s, or to be asked only by the switch", ip);
		return;
	case PASSES:
		return;
	}
	buf_add_mac(b, r->mac);
}

// ---- main thread

static uint64_t clock_now;

// An answer to a router.
static void neighbour_punted(struct rte_mbuf *mbuf, uint8_t kind, uint16_t arg)
{
	const struct pkt *p = pkt_of(mbuf);
	struct neighbour_message m;

	if (neighbour_message(p, &m) && m.kind == MESSAGE_ANSWER) {
		const struct config_ip *ip = m.v6 ? &m.target : &m.sender;
		unsigned what =
			(m.v6 && !m.solicited ? 0 : NEIGHBOUR_SOLICITED) | (!m.v6 || m.override ? NEIGHBOUR_OVERRIDE : 0);

		if (!m.has_mac || !neighbour_own_claimed(p->network, ip, m.mac, p->in_port, false, clock_now))
			neighbour_seen(p->network, ip, m.has_mac ? m.mac : NULL, what, clock_now);
	}
	punt_consume(mbuf);
}

static void heard(const struct neighbour_event *e)
{
	if (e->probe) {
		neighbour_own_claimed(e->network, &e->ip, e->mac, e->port, true, clock_now);
		return;
	}
	if (!lport_get(e->port) || !network_get(e->network))
		return;
	if (e->tells && neighbour_own_claimed(e->network, &e->ip, e->mac, e->port, false, clock_now))
		return;
	if (e->talks)
		station_talk(e->port, &(struct station_talk){.network = e->network, .mine = e->ip, .theirs = e->with});
	if (!e->tells)
		return;
	station_seen(e->network, &e->ip, e->mac, e->port, e->router, (uint32_t)(clock_now / 1000000000ULL));
	neighbour_seen(e->network, &e->ip, e->mac, e->what, clock_now);
}

static void tick(uint64_t now)
{
	clock_now = now;
	neighbour_events(heard);
	neighbour_tick(now);
	station_age((uint32_t)(now / 1000000000ULL), STATION_MAX / 64);
}

static int reconcile(struct config *want)
{
	for (size_t i = 0; i < want->n_networks; i++)
		if (want->networks[i].id)
			proxies[want->networks[i].id] = !want->networks[i].error && want->networks[i].arp_proxy;
	int rc = station_configure(want);
	station_talk_clean();
	return rc ? rc : neighbour_configure(want);
}

// What waits goes back before the workers do.
static void release(void)
{
	neighbour_flush(0);
}

static int init(void)
{
	int rc = station_init();

	return rc ? rc : neighbour_init();
}

static void fini(void)
{
	neighbour_fini();
	station_talk_fini();
	station_fini();
	memset(proxies, 0, sizeof proxies);
	neighbour_events_forget();
}

STAGE(neighbour, .resolve = neighbour_resolve, .run = neighbour_run, .writes = true, .format = neighbour_format,
      .punted = neighbour_punted, .reconcile = reconcile, .release = release, .tick = tick, .init = init, .fini = fini,
      .verbs = neighbour_verbs);
