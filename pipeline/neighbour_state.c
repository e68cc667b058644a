// neighbour_state: the state machine of RFC 4861 section 7.3 and appendix C, see neighbour_table.h, and the packets that wait.
#include "neighbour_private.h"
#include "punt.h"

#include <stdlib.h>
#include <string.h>

void (*neighbour_failed)(struct rte_mbuf *, uint16_t port);

static uint16_t waiting_of[MAX_PORTS]; // packets that wait, by ingress port

// Questions that packets of an ingress port may still cause.
static struct {
	uint64_t at; // nanoseconds
	uint32_t tokens;
} asks[MAX_PORTS];

static bool may_ask(uint16_t port)
{
	if (neighbour_clock < asks[port].at)
		asks[port].at = 0;
	uint64_t more = (neighbour_clock - asks[port].at) * NEIGHBOUR_ASK_RATE / 1000000000ULL;

	if (!asks[port].at || more >= NEIGHBOUR_ASK_RATE) {
		asks[port].tokens = NEIGHBOUR_ASK_RATE;
		asks[port].at = neighbour_clock;
	} else if (more) {
		asks[port].tokens += (uint32_t)more;
		asks[port].tokens = asks[port].tokens < NEIGHBOUR_ASK_RATE ? asks[port].tokens : NEIGHBOUR_ASK_RATE;
		asks[port].at = neighbour_clock;
	}
	if (!asks[port].tokens)
		return false;
	asks[port].tokens--;
	return true;
}

// ---- packets that wait

static struct rte_mbuf *take(struct neighbour_entry *e)
{
	struct rte_mbuf *m = e->waiting[e->first_waiting];

	e->first_waiting = (uint16_t)((e->first_waiting + 1) % NEIGHBOUR_WAITING_MAX);
	e->n_waiting--;
	waiting_of[pkt_of(m)->in_port & (MAX_PORTS - 1)]--;
	return m;
}

void neighbour_release(struct neighbour_entry *e)
{
	while (e->n_waiting) {
		struct rte_mbuf *m = take(e);

		if (e->state == NEIGHBOUR_FAILED && neighbour_failed)
			neighbour_failed(m, e->key.port);
		else
			punt_resume(m);
	}
	free(e->waiting);
	e->waiting = NULL;
}

void neighbour_drop_waiting(struct neighbour_entry *e, uint16_t reason)
{
	const struct own_port *p = neighbour_own(e->key.port);

	while (e->n_waiting)
		punt_drop(take(e), reason, p ? p->row : 0);
}

static void wait_for(struct neighbour_entry *e, struct rte_mbuf *m, uint32_t row)
{
	uint16_t in = pkt_of(m)->in_port & (MAX_PORTS - 1);

	if (waiting_of[in] >= NEIGHBOUR_WAITING_PORT_MAX) {
		punt_drop(m, STAGE_REASON(neighbour, PORT_FULL), row);
		return;
	}
	if (!e->waiting)
		e->waiting = calloc(NEIGHBOUR_WAITING_MAX, sizeof *e->waiting);
	if (!e->waiting) {
		punt_drop(m, STAGE_REASON(neighbour, TABLE_FULL), row);
		return;
	}
	if (e->n_waiting == NEIGHBOUR_WAITING_MAX)
		punt_drop(take(e), STAGE_REASON(neighbour, WAITING_FULL), row);
	e->waiting[(e->first_waiting + e->n_waiting++) % NEIGHBOUR_WAITING_MAX] = m;
	waiting_of[in]++;
}

// ---- events

// Half of ReachableTime to one and a half of it (RFC 4861 6.3.4), so that entries of one moment don't all end in one.
static uint64_t reachable_ms(void)
{
	return NEIGHBOUR_REACHABLE_MS / 2 + (uint64_t)random() % NEIGHBOUR_REACHABLE_MS;
}

// How long it is taken for granted in the state that it has, or comes into, when nothing is heard. A next hop is asked soon, but
// those of one moment are not all asked in one.
static uint64_t lasts_ms(const struct neighbour_entry *e, enum neighbour_state s)
{
	uint32_t every = neighbour_watch_ms(e);

	if (s == NEIGHBOUR_STALE)
		return every ? 1 : NEIGHBOUR_STALE_MS;
	if (every)
		return every - (uint64_t)random() % (every / 8);
	return s == NEIGHBOUR_STATIC ? 0 : reachable_ms();
}

static void to_reachable(struct neighbour_entry *e, const uint8_t *mac)
{
	neighbour_set(e, NEIGHBOUR_REACHABLE, mac, lasts_ms(e, NEIGHBOUR_REACHABLE));
	neighbour_release(e);
}

static void to_stale(struct neighbour_entry *e, const uint8_t *mac)
{
	neighbour_set(e, NEIGHBOUR_STALE, mac, lasts_ms(e, NEIGHBOUR_STALE));
	neighbour_release(e);
}

// A next hop that is not yet known to be dead is asked in quick succession.
static uint64_t retrans_ms(const struct neighbour_entry *e)
{
	uint32_t every = neighbour_watch_ms(e);
	bool quick = every && !e->suspect && e->state != NEIGHBOUR_INCOMPLETE;

	return quick && every / 4 < NEIGHBOUR_RETRANS_MS ? every / 4 : NEIGHBOUR_RETRANS_MS;
}

static void ask(struct neighbour_entry *e)
{
	e->probes++;
	neighbour_solicit(e, e->state == NEIGHBOUR_PROBE || e->state == NEIGHBOUR_STATIC ? e->mac : NULL);
	neighbour_timer(e, retrans_ms(e));
}

static void to_probe(struct neighbour_entry *e)
{
	neighbour_set(e, NEIGHBOUR_PROBE, NULL, 0);
	ask(e);
}

// A next hop that doesn't answer is asked again and again, ever more seldom.
static void ask_on(struct neighbour_entry *e)
{
	uint64_t ms = NEIGHBOUR_RETRANS_MS << (e->probes < 8 ? e->probes : 8), every = neighbour_watch_ms(e);

	e->probes += e->probes < 8;
	neighbour_solicit(e, e->state == NEIGHBOUR_STATIC ? e->mac : NULL);
	ms = ms < NEIGHBOUR_PROBE_BACK_MS ? ms : NEIGHBOUR_PROBE_BACK_MS;
	ms = ms > every ? ms : every;
	neighbour_timer(e, ms - (uint64_t)random() % (ms / 4)); // those that failed together are not asked together
}

// RFC 4861 leaves it to packets to ask one that has failed again; those of next hops have other ways, and come no more.
static void failed_long_enough(struct neighbour_entry *e)
{
	if (e->watched)
		ask_on(e);
	else
		neighbour_delete(e, STAGE_REASON(neighbour, FLUSHED));
}

// The operator says where it is, but not that it lives.
static void ask_static(struct neighbour_entry *e)
{
	if (!neighbour_watch_ms(e)) {
		neighbour_suspect(e, false);
		e->probes = 0;
	} else if (e->suspect) {
		ask_on(e);
	} else if (e->probes < NEIGHBOUR_UNICAST_SOLICIT) {
		ask(e);
	} else {
		neighbour_suspect(e, true);
		e->probes = 0;
		ask_on(e);
	}
}

// Asked often enough, without an answer.
static void silent(struct neighbour_entry *e)
{
	bool quick = neighbour_watch_ms(e) && !e->suspect;

	neighbour_suspect(e, true);
	if (quick) {
		e->probes = 0;
		ask(e);
		return;
	}
	// Section 7.3.3 forgets it, and the next packet asks everybody, as its MAC may be another one by now. It was in use a
	// moment ago, so the next packet is taken for granted; whoever has another next hop was told to leave it.
	neighbour_set(e, NEIGHBOUR_INCOMPLETE, NULL, 0);
	ask(e);
}

static void to_incomplete(struct neighbour_entry *e)
{
	neighbour_set(e, NEIGHBOUR_INCOMPLETE, NULL, 0);
	ask(e);
}

static void timer_ended(struct neighbour_entry *e)
{
	switch ((enum neighbour_state)e->state) {
	case NEIGHBOUR_INCOMPLETE:
		if (e->probes < NEIGHBOUR_MULTICAST_SOLICIT) {
			ask(e);
			break;
		}
		neighbour_set(e, NEIGHBOUR_FAILED, NULL, e->watched ? NEIGHBOUR_RETRANS_MS : NEIGHBOUR_FAILED_MS);
		neighbour_release(e);
		break;
	case NEIGHBOUR_REACHABLE:
		if (neighbour_watch_ms(e))
			to_probe(e);
		else
			neighbour_set(e, NEIGHBOUR_STALE, NULL, NEIGHBOUR_STALE_MS);
		break;
	case NEIGHBOUR_DELAY:
		to_probe(e);
		break;
	case NEIGHBOUR_PROBE:
		if (e->probes < NEIGHBOUR_UNICAST_SOLICIT)
			ask(e);
		else
			silent(e);
		break;
	case NEIGHBOUR_STALE:
		if (neighbour_watch_ms(e))
			to_probe(e);
		else // unused for hours
			neighbour_delete(e, STAGE_REASON(neighbour, FLUSHED));
		break;
	case NEIGHBOUR_FAILED:
		failed_long_enough(e);
		break;
	case NEIGHBOUR_STATIC:
		ask_static(e);
		break;
	case NEIGHBOUR_NONE:
		break;
	}
}

static void is_used(struct neighbour_entry *e)
{
	if (neighbour_watch_ms(e))
		to_probe(e);
	else
		neighbour_set(e, NEIGHBOUR_DELAY, NULL, NEIGHBOUR_DELAY_MS);
}

void neighbour_rearm(struct neighbour_entry *e)
{
	if (e->state == NEIGHBOUR_REACHABLE || e->state == NEIGHBOUR_STALE || (e->state == NEIGHBOUR_STATIC && !e->suspect))
		neighbour_timer(e, lasts_ms(e, e->state));
	else if (e->state == NEIGHBOUR_STATIC)
		neighbour_timer(e, 1);
}

// An NA, or what of ARP is like one: RFC 4861 7.2.5. `mac` NULL: it has no address.
static void advertised(struct neighbour_entry *e, const uint8_t *mac, unsigned what)
{
	bool unresolved = e->state == NEIGHBOUR_INCOMPLETE || e->state == NEIGHBOUR_FAILED;
	bool other = mac && memcmp(mac, e->mac, 6);

	if (unresolved) {
		if (mac && what & NEIGHBOUR_SOLICITED)
			to_reachable(e, mac);
		else if (mac)
			to_stale(e, mac);
		return;
	}
	if (other && !(what & NEIGHBOUR_OVERRIDE)) {
		if (e->state == NEIGHBOUR_REACHABLE)
			to_stale(e, NULL);
		return;
	}
	if (what & NEIGHBOUR_SOLICITED)
		to_reachable(e, mac);
	else if (other)
		to_stale(e, mac);
}

static void static_answered(struct neighbour_entry *e)
{
	e->probes = 0;
	neighbour_timer(e, lasts_ms(e, NEIGHBOUR_STATIC));
	neighbour_suspect(e, false);
}

static void seen(struct own_port *p, const struct config_ip *ip, const uint8_t *mac, unsigned what)
{
	struct neighbour_entry *e = neighbour_get(p->id, ip);

	if (e && e->state == NEIGHBOUR_STATIC) {
		if (what & NEIGHBOUR_SOLICITED && mac && !memcmp(mac, e->mac, 6))
			static_answered(e);
		return;
	}
	if (e && !(what & NEIGHBOUR_ASKED)) {
		advertised(e, mac, what);
		return;
	}
	if (!(what & NEIGHBOUR_ASKED) || !mac)
		return;
	if (!e)
		e = neighbour_new(p, ip);
	if (e && (!e->adj || memcmp(e->mac, mac, 6)))
		to_stale(e, mac);
}

void neighbour_seen(uint16_t network, const struct config_ip *ip, const uint8_t *mac, unsigned what, uint64_t now)
{
	neighbour_clock = now > neighbour_clock ? now : neighbour_clock;
	for (struct own_port *p = neighbour_own_in(network); p; p = p->next_in_network)
		seen(p, ip, mac, what);
}

// ---- packets to send

// The entry that a question is asked with; NULL: *reason says why there is none.
static struct neighbour_entry *begin(struct own_port *p, const struct config_ip *ip, uint16_t *reason)
{
	if (p->count[CLASS_OF_INCOMPLETE] >= NEIGHBOUR_INCOMPLETE_MAX)
		neighbour_delete(&neighbour_entries[p->first[CLASS_OF_INCOMPLETE]], STAGE_REASON(neighbour, GIVEN_UP));
	struct neighbour_entry *e = neighbour_new(p, ip);
	if (e)
		to_incomplete(e);
	else
		*reason = STAGE_REASON(neighbour, TABLE_FULL);
	return e;
}

void neighbour_hold(uint16_t port, const struct config_ip *ip, struct rte_mbuf *m)
{
	struct own_port *p = neighbour_own(port);
	struct neighbour_entry *e = p ? neighbour_get(port, ip) : NULL;
	uint16_t reason = STAGE_REASON(neighbour, FLUSHED);

	if (p && !e) {
		if (may_ask(pkt_of(m)->in_port & (MAX_PORTS - 1)))
			e = begin(p, ip, &reason);
		else
			reason = STAGE_REASON(neighbour, RATE);
	}
	if (!e) {
		punt_drop(m, reason, p ? p->row : 0);
		return;
	}
	// What was answered meanwhile is decided anew.
	if (e->state == NEIGHBOUR_INCOMPLETE)
		wait_for(e, m, p->row);
	else if (e->state == NEIGHBOUR_FAILED && neighbour_failed)
		neighbour_failed(m, port);
	else
		punt_resume(m);
}

void neighbour_want(uint16_t port, const struct config_ip *ip)
{
	struct own_port *p = neighbour_own(port);
	struct neighbour_entry *e = p ? neighbour_get(port, ip) : NULL;
	uint16_t reason;

	if (p && !e)
		begin(p, ip, &reason);
	else if (e && e->adj)
		neighbour_used(e->adj, (uint32_t)(neighbour_clock / 1000000000ULL));
}

void neighbour_doubt(uint16_t port, const struct config_ip *ip, bool doubt)
{
	struct neighbour_entry *e = neighbour_get(port, ip);

	if (!e || !e->adj || !e->watched)
		return;
	if (!doubt) {
		if (!neighbour_watch_ms(e))
			neighbour_suspect(e, false);
		return;
	}
	if (e->state != NEIGHBOUR_STATIC)
		neighbour_set(e, NEIGHBOUR_PROBE, NULL, 0);
	neighbour_suspect(e, true);
	e->probes = 0;
	ask(e);
}

void neighbour_set_static(struct own_port *p, const struct config_ip *ip, const uint8_t mac[6], bool elsewhere)
{
	struct neighbour_entry *e = neighbour_get(p->id, ip);

	if (!e)
		e = neighbour_new(p, ip);
	if (!e || (e->state == NEIGHBOUR_STATIC && !memcmp(e->mac, mac, 6) && e->elsewhere == elsewhere))
		return;
	e->elsewhere = elsewhere;
	neighbour_set(e, NEIGHBOUR_STATIC, mac, lasts_ms(e, NEIGHBOUR_STATIC));
	neighbour_release(e);
}

void neighbour_tick(uint64_t now)
{
	neighbour_clock = now > neighbour_clock ? now : neighbour_clock;
	neighbour_each_used(is_used);
	neighbour_timers(neighbour_clock, timer_ended);
	neighbour_watch_tick(neighbour_clock);
	neighbour_own_tick(neighbour_clock);
}

unsigned neighbour_flush(uint16_t port)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < neighbour_high(); i++) {
		struct neighbour_entry *e = &neighbour_entries[i];

		if (e->state == NEIGHBOUR_NONE || e->state == NEIGHBOUR_STATIC || (port && e->key.port != port))
			continue;
		neighbour_delete(e, STAGE_REASON(neighbour, FLUSHED));
		n++;
	}
	return n;
}
