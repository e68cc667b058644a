// lacp: see lacp.h. Clauses are those of IEEE 802.1AX-2014.
#include "lacp.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define SECOND 1000000000ULL
#define FAST_PERIODIC SECOND          // 6.4.4
#define SLOW_PERIODIC (30 * SECOND)
#define SHORT_TIMEOUT (3 * SECOND)
#define LONG_TIMEOUT (90 * SECOND)
#define AGGREGATE_WAIT (2 * SECOND)
#define TX_LIMIT 3                    // 6.4.16: LACPDUs in a second
#define MARKER_LIMIT 5                // 6.5.4.2.1

enum {
	SUBTYPE_LACP = 1,
	SUBTYPE_MARKER = 2,
	TLV_ACTOR = 1,
	TLV_PARTNER = 2,
	TLV_COLLECTOR = 3,
	TLV_MARKER = 1,
	TLV_MARKER_RESPONSE = 2,
	INFO_LEN = 20,
	COLLECTOR_LEN = 16,
	MARKER_LEN = 16,
	AT_ACTOR = 16, // behind Ethernet header, subtype and version
	AT_PARTNER = AT_ACTOR + INFO_LEN,
	AT_COLLECTOR = AT_PARTNER + INFO_LEN,
	FRAME_MIN = AT_COLLECTOR, // what is read of an LACPDU
	AT_MARKER = 16,
};

static const uint8_t slow_address[6] = {0x01, 0x80, 0xc2, 0x00, 0x00, 0x02};

// ---- frames

static void put16(uint8_t *to, uint16_t v)
{
	to[0] = (uint8_t)(v >> 8);
	to[1] = (uint8_t)v;
}

static uint16_t get16(const uint8_t *from)
{
	return (uint16_t)(from[0] << 8 | from[1]);
}

static void put_info(uint8_t *to, uint8_t type, const struct lacp_info *i)
{
	to[0] = type;
	to[1] = INFO_LEN;
	put16(to + 2, i->system_priority);
	memcpy(to + 4, i->system, 6);
	put16(to + 10, i->key);
	put16(to + 12, i->port_priority);
	put16(to + 14, i->port);
	to[16] = i->state;
}

static struct lacp_info get_info(const uint8_t *from)
{
	struct lacp_info i = {
		.system_priority = get16(from + 2),
		.key = get16(from + 10),
		.port_priority = get16(from + 12),
		.port = get16(from + 14),
		.state = from[16],
	};

	memcpy(i.system, from + 4, 6);
	return i;
}

static void put_header(uint8_t *frame, const struct lacp_port *p, uint8_t subtype)
{
	memcpy(frame, slow_address, 6);
	memcpy(frame + 6, p->mac, 6);
	put16(frame + 12, 0x8809);
	frame[14] = subtype;
	frame[15] = 1;
}

static void send_pdu(struct lacp *l, unsigned port)
{
	struct lacp_port *p = &l->port[port];
	uint8_t frame[LACP_FRAME] = {0};

	put_header(frame, p, SUBTYPE_LACP);
	put_info(frame + AT_ACTOR, TLV_ACTOR, &p->actor);
	put_info(frame + AT_PARTNER, TLV_PARTNER, &p->partner);
	frame[AT_COLLECTOR] = TLV_COLLECTOR;
	frame[AT_COLLECTOR + 1] = COLLECTOR_LEN;
	p->tx++;
	l->send(l->arg, port, frame, sizeof frame);
}

// ---- facts about a port

static bool same_port(const struct lacp_info *a, const struct lacp_info *b)
{
	return a->system_priority == b->system_priority && !memcmp(a->system, b->system, 6) && a->key == b->key && a->port_priority == b->port_priority &&
	       a->port == b->port;
}

static void set_state(struct lacp_port *p, uint8_t bits, bool on)
{
	p->actor.state = (uint8_t)(on ? p->actor.state | bits : p->actor.state & ~bits);
}

static void record_default(struct lacp_port *p)
{
	// Nobody is known, but who comes hears of it within a second.
	p->partner = (struct lacp_info){.state = LACP_SHORT};
	set_state(p, LACP_DEFAULTED, true);
}

// 6.4.8, "NTT": has the partner another picture of us than is right?
static bool misunderstood(const struct lacp_port *p, const struct lacp_info *of_us)
{
	const uint8_t seen = LACP_ACTIVE | LACP_SHORT | LACP_SYNC | LACP_AGGREGATION;

	return !same_port(of_us, &p->actor) || (of_us->state & seen) != (p->actor.state & seen);
}

// 6.4.9, recordPDU: is the partner in sync with what it says of us?
static bool in_sync(const struct lacp_port *p, const struct lacp_info *of_it, const struct lacp_info *of_us)
{
	bool individual = !(of_it->state & LACP_AGGREGATION);
	bool agreed = individual || (same_port(of_us, &p->actor) && ((of_us->state ^ p->actor.state) & LACP_AGGREGATION) == 0);
	bool kept_up = (of_it->state & LACP_ACTIVE) || ((p->actor.state & LACP_ACTIVE) && (of_us->state & LACP_ACTIVE));

	return (of_it->state & LACP_SYNC) && agreed && kept_up;
}

// ---- receive machine, 6.4.12

static void expire(struct lacp_port *p, uint64_t now)
{
	p->receive = LACP_RX_EXPIRED;
	p->partner.state = (uint8_t)((p->partner.state & ~LACP_SYNC) | LACP_SHORT);
	p->current_while = now + SHORT_TIMEOUT;
	set_state(p, LACP_EXPIRED, true);
}

static void disable(struct lacp_port *p)
{
	p->receive = LACP_PORT_DISABLED;
	p->partner.state &= (uint8_t)~LACP_SYNC;
	p->selected = p->ntt = false;
	set_state(p, LACP_EXPIRED, false);
	record_default(p);
}

static void run_receive(struct lacp_port *p, uint64_t now)
{
	if (!p->up) {
		if (p->receive != LACP_PORT_DISABLED)
			disable(p);
		return;
	}
	switch (p->receive) {
	case LACP_PORT_DISABLED:
		expire(p, now);
		break;
	case LACP_RX_CURRENT:
		if (now < p->current_while)
			break;
		p->expired++;
		expire(p, now);
		break;
	case LACP_RX_EXPIRED:
		if (now < p->current_while)
			break;
		p->receive = LACP_RX_DEFAULTED;
		p->selected = false; // update_Default_Selected
		record_default(p);
		set_state(p, LACP_EXPIRED, false);
		break;
	case LACP_RX_DEFAULTED:
		break;
	}
}

static void receive_pdu(struct lacp *l, struct lacp_port *p, const uint8_t *frame, uint64_t now)
{
	struct lacp_info of_it = get_info(frame + AT_ACTOR), of_us = get_info(frame + AT_PARTNER);

	p->rx++;
	if (!same_port(&of_it, &p->partner) || ((of_it.state ^ p->partner.state) & LACP_AGGREGATION))
		p->selected = false; // update_Selected
	p->ntt |= misunderstood(p, &of_us);
	bool sync = in_sync(p, &of_it, &of_us);
	p->partner = of_it;
	if (!sync)
		p->partner.state &= (uint8_t)~LACP_SYNC;
	set_state(p, LACP_DEFAULTED | LACP_EXPIRED, false);
	p->receive = LACP_RX_CURRENT;
	p->current_while = now + (l->fast ? SHORT_TIMEOUT : LONG_TIMEOUT);
}

// ---- selection, 6.4.14

static bool has_partner(const struct lacp_port *p)
{
	return p->used && p->up && !(p->actor.state & LACP_DEFAULTED) && p->receive != LACP_PORT_DISABLED;
}

// Do the two ports lead to the same aggregation of the same system?
static bool together(const struct lacp_port *a, const struct lacp_port *b)
{
	return a == b || ((a->partner.state & b->partner.state & LACP_AGGREGATION) && a->partner.system_priority == b->partner.system_priority &&
			  !memcmp(a->partner.system, b->partner.system, 6) && a->partner.key == b->partner.key);
}

// A cable from the bond into itself is no link to anywhere.
static bool loops(const struct lacp *l, const struct lacp_port *p)
{
	return !memcmp(p->partner.system, l->system, 6) && p->partner.key == l->key;
}

static unsigned size_of_group(const struct lacp *l, const struct lacp_port *of)
{
	unsigned n = 0;

	for (unsigned i = 0; i < LACP_PORTS; i++)
		n += has_partner(&l->port[i]) && !loops(l, &l->port[i]) && together(&l->port[i], of);
	return n;
}

static int compare_partners(const struct lacp_info *a, const struct lacp_info *b)
{
	int d = (int)a->system_priority - b->system_priority;

	if (!d)
		d = memcmp(a->system, b->system, 6);
	return d ? d : (int)a->key - b->key;
}

// Of ports with several partners those of the largest group carry the bond's packets: of equal ones that which does already, then that of the better system.
static const struct lacp_port *best_group(const struct lacp *l)
{
	const struct lacp_port *best = NULL;
	unsigned most = 0;

	for (unsigned i = 0; i < LACP_PORTS; i++) {
		const struct lacp_port *p = &l->port[i];

		if (!has_partner(p) || loops(l, p))
			continue;
		unsigned n = size_of_group(l, p);
		bool better = !best || n > most;
		if (best && n == most && !together(p, best))
			better = p->selected != best->selected ? p->selected : compare_partners(&p->partner, &best->partner) < 0;
		if (better) {
			best = p;
			most = n;
		}
	}
	return best;
}

static void select_ports(struct lacp *l)
{
	const struct lacp_port *best = best_group(l);

	for (unsigned i = 0; i < LACP_PORTS; i++) {
		struct lacp_port *p = &l->port[i];

		if (!p->used)
			continue;
		bool selected = best && has_partner(p) && !loops(l, p) && together(p, best);
		// What was selected for another partner goes through DETACHED first: see update_Selected.
		if (selected && !p->selected && p->mux != LACP_DETACHED)
			continue;
		p->selected = selected;
	}
}

// ---- mux machine, independent control, 6.4.15

static void enter(struct lacp_port *p, enum lacp_mux mux, uint64_t now)
{
	p->mux = mux;
	p->waiting = mux == LACP_WAITING;
	p->wait_while = now + AGGREGATE_WAIT;
	uint8_t before = p->actor.state;
	set_state(p, LACP_SYNC, mux >= LACP_ATTACHED);
	set_state(p, LACP_COLLECTING, mux >= LACP_MUX_COLLECTING);
	set_state(p, LACP_DISTRIBUTING, mux == LACP_MUX_DISTRIBUTING);
	p->ntt |= before != p->actor.state;
}

static bool step(struct lacp_port *p, uint64_t now)
{
	bool sync = p->selected && (p->partner.state & LACP_SYNC), both = sync && (p->partner.state & LACP_COLLECTING);
	enum lacp_mux next = p->mux;

	switch (p->mux) {
	case LACP_DETACHED:
		next = p->selected ? LACP_WAITING : p->mux;
		break;
	case LACP_WAITING:
		next = !p->selected ? LACP_DETACHED : now >= p->wait_while ? LACP_ATTACHED : p->mux;
		break;
	case LACP_ATTACHED:
		next = !p->selected ? LACP_DETACHED : sync ? LACP_MUX_COLLECTING : p->mux;
		break;
	case LACP_MUX_COLLECTING:
		next = !sync ? LACP_ATTACHED : both ? LACP_MUX_DISTRIBUTING : p->mux;
		break;
	case LACP_MUX_DISTRIBUTING:
		next = both ? p->mux : LACP_MUX_COLLECTING;
		break;
	}
	if (next == p->mux)
		return false;
	enter(p, next, now);
	return true;
}

// ---- transmission, 6.4.13 and 6.4.16

static void run_periodic(const struct lacp *l, struct lacp_port *p, uint64_t now)
{
	bool slow = !(p->partner.state & LACP_SHORT);

	if (!l->active && !(p->partner.state & LACP_ACTIVE)) {
		p->periodic = 0;
		return;
	}
	if (!p->periodic || (p->told_slowly && !slow) || now >= p->periodic) {
		p->ntt |= p->periodic || l->active;
		p->periodic = now + (slow ? SLOW_PERIODIC : FAST_PERIODIC);
		p->told_slowly = slow;
	}
}

static void run_transmit(struct lacp *l, unsigned port, uint64_t now)
{
	struct lacp_port *p = &l->port[port];

	if (now - p->second >= SECOND) {
		p->second = now;
		p->sent = p->marked = 0;
	}
	if (!p->ntt || !p->periodic || p->sent >= TX_LIMIT)
		return;
	p->ntt = false;
	p->sent++;
	send_pdu(l, port);
}

// Until nothing changes any more: what one port is selected for may depend on another.
static void run(struct lacp *l, uint64_t now)
{
	for (unsigned i = 0; i < LACP_PORTS; i++)
		if (l->port[i].used)
			run_receive(&l->port[i], now);
	bool moved = true;
	for (unsigned round = 0; moved && round < 4 * LACP_PORTS; round++) {
		moved = false;
		select_ports(l);
		for (unsigned i = 0; i < LACP_PORTS; i++)
			moved |= l->port[i].used && step(&l->port[i], now);
	}
	for (unsigned i = 0; i < LACP_PORTS; i++) {
		if (!l->port[i].used || !l->port[i].up)
			continue;
		run_periodic(l, &l->port[i], now);
		run_transmit(l, i, now);
	}
}

// ---- from outside

static void set_actor(const struct lacp *l, struct lacp_port *p)
{
	p->actor.system_priority = l->system_priority;
	memcpy(p->actor.system, l->system, 6);
	p->actor.key = l->key;
	set_state(p, LACP_ACTIVE, l->active);
	set_state(p, LACP_SHORT, l->fast);
	set_state(p, LACP_AGGREGATION, true);
}

void lacp_configure(struct lacp *l, uint16_t system_priority, const uint8_t system[6], uint16_t key, bool active, bool fast)
{
	l->system_priority = system_priority;
	memcpy(l->system, system, 6);
	l->key = key;
	l->active = active;
	l->fast = fast;
	for (unsigned i = 0; i < LACP_PORTS; i++) {
		struct lacp_port *p = &l->port[i];
		struct lacp_info was = p->actor;

		if (!p->used)
			continue;
		set_actor(l, p);
		if (!same_port(&was, &p->actor))
			p->selected = false;
		p->ntt |= !same_port(&was, &p->actor) || was.state != p->actor.state;
	}
}

void lacp_add(struct lacp *l, unsigned port, uint16_t number, uint16_t priority, const uint8_t mac[6])
{
	struct lacp_port *p = &l->port[port];

	*p = (struct lacp_port){.used = true, .actor = {.port_priority = priority, .port = number}};
	memcpy(p->mac, mac, 6);
	set_actor(l, p);
	record_default(p);
}

void lacp_remove(struct lacp *l, unsigned port)
{
	l->port[port] = (struct lacp_port){.used = false};
}

void lacp_link(struct lacp *l, unsigned port, bool up, uint64_t now)
{
	if (!l->port[port].used || l->port[port].up == up)
		return;
	l->port[port].up = up;
	l->port[port].periodic = 0;
	run(l, now);
}

// 6.5.4.2: sent back as it came, with the type of a response.
static int answer_marker(struct lacp *l, unsigned port, const uint8_t *frame, uint32_t len, uint64_t now)
{
	struct lacp_port *p = &l->port[port];
	uint8_t answer[LACP_FRAME] = {0};

	if (len < AT_MARKER + MARKER_LEN || frame[AT_MARKER + 1] != MARKER_LEN)
		return -EINVAL;
	if (frame[AT_MARKER] != TLV_MARKER) // responses are for those who sent markers, which we don't
		return frame[AT_MARKER] == TLV_MARKER_RESPONSE ? 0 : -EINVAL;
	if (now - p->second >= SECOND) {
		p->second = now;
		p->sent = p->marked = 0;
	}
	if (p->marked >= MARKER_LIMIT) {
		p->markers_ignored++;
		return 0;
	}
	p->marked++;
	p->markers++;
	memcpy(answer, frame, len < sizeof answer ? len : sizeof answer);
	put_header(answer, p, SUBTYPE_MARKER);
	answer[AT_MARKER] = TLV_MARKER_RESPONSE;
	l->send(l->arg, port, answer, sizeof answer);
	return 0;
}

// Whatever the version, TLVs of version 1 come first (6.4.2.3).
static bool sane(const uint8_t *frame, uint32_t len)
{
	return len >= FRAME_MIN && frame[15] >= 1 && frame[AT_ACTOR] == TLV_ACTOR && frame[AT_ACTOR + 1] == INFO_LEN && frame[AT_PARTNER] == TLV_PARTNER &&
	       frame[AT_PARTNER + 1] == INFO_LEN && !(frame[AT_ACTOR + 4] & 1);
}

int lacp_receive(struct lacp *l, unsigned port, const uint8_t *frame, uint32_t len, uint64_t now)
{
	struct lacp_port *p = &l->port[port];
	int rc = 0;

	if (!p->used)
		return 0;
	if (len < 16 || get16(frame + 12) != 0x8809)
		rc = -EINVAL;
	else if (frame[14] == SUBTYPE_MARKER)
		rc = answer_marker(l, port, frame, len, now);
	else if (frame[14] != SUBTYPE_LACP || !sane(frame, len))
		rc = -EINVAL;
	else if (p->up)
		receive_pdu(l, p, frame, now);
	p->bad += rc != 0;
	if (!rc)
		run(l, now);
	return rc;
}

void lacp_tick(struct lacp *l, uint64_t now)
{
	run(l, now);
}

uint32_t lacp_collecting(const struct lacp *l)
{
	uint32_t set = 0;

	for (unsigned i = 0; i < LACP_PORTS; i++)
		set |= (uint32_t)(l->port[i].used && l->port[i].mux >= LACP_MUX_COLLECTING) << i;
	return set;
}

uint32_t lacp_distributing(const struct lacp *l)
{
	uint32_t set = 0;

	for (unsigned i = 0; i < LACP_PORTS; i++)
		set |= (uint32_t)(l->port[i].used && l->port[i].mux == LACP_MUX_DISTRIBUTING) << i;
	return set;
}

bool lacp_has_partner(const struct lacp *l)
{
	for (unsigned i = 0; i < LACP_PORTS; i++)
		if (has_partner(&l->port[i]))
			return true;
	return false;
}

// ---- names

const char *lacp_state_text(uint8_t state, char text[96])
{
	static const char *const names[8] = {"active", "short", "aggregation", "sync", "collecting", "distributing", "defaulted", "expired"};
	size_t at = 0;

	text[0] = '\0';
	for (unsigned i = 0; i < 8; i++)
		if (state >> i & 1)
			at += (size_t)snprintf(text + at, 96 - at, "%s%s", at ? "," : "", names[i]);
	return text;
}

const char *lacp_mux_name(enum lacp_mux mux)
{
	static const char *const names[] = {"detached", "waiting", "attached", "collecting", "distributing"};

	return names[mux];
}

const char *lacp_receive_name(enum lacp_receive receive)
{
	static const char *const names[] = {"disabled", "expired", "defaulted", "current"};

	return names[receive];
}
