// neighbour_watch: neighbours that are next hops of routes or of tunnels, see neighbour_watch() in neighbour_table.h. Here:
// which they are, that each has an entry, and how often it is asked. What is asked when, and what follows, is the state
// machine's (neighbour_state.c).
#include "key.h"
#include "neighbour_private.h"

#include <stdlib.h>
#include <string.h>

#define WALK_MS 100ULL // every place is looked at once in ten of these
#define WALK_ASKS 100  // that have no entry yet and get one, in one of these

struct watch {
	struct neighbour_key key;
	uint32_t refs; // 0: the place is free
	uint32_t next; // of its bucket, or free
};

static struct watch *watches;
static uint32_t high, room; // places that were ever used, places
static uint32_t n, first_free = NONE;
static uint32_t *buckets; // of `room`, a power of two
static uint32_t walk_at;
static uint64_t walked; // nanoseconds

static uint32_t *bucket(const struct neighbour_key *k)
{
	uint64_t w[3] = {0};

	memcpy(w, k, sizeof *k);
	return &buckets[key_mum(key_mum(w[0] ^ key_secret[0], w[1] ^ key_secret[1]) ^ w[2], key_secret[2]) & (room - 1)];
}

static struct watch *find(const struct neighbour_key *k)
{
	for (uint32_t at = room ? *bucket(k) : NONE; at != NONE; at = watches[at].next)
		if (!memcmp(&watches[at].key, k, sizeof *k))
			return &watches[at];
	return NULL;
}

bool neighbour_has_watch(const struct neighbour_key *k)
{
	return find(k) != NULL;
}

bool neighbour_is_watched(uint16_t port, const struct config_ip *ip)
{
	struct neighbour_key k = neighbour_key(port, ip->v6, ip->b);

	return find(&k) != NULL;
}

uint32_t neighbour_watch_ms(const struct neighbour_entry *e)
{
	const struct own_port *p = e->watched && !e->elsewhere ? neighbour_own(e->key.port) : NULL;
	uint32_t least = (uint32_t)(n * 1000ULL / NEIGHBOUR_PROBE_RATE);

	return !p || !p->probe_ms ? 0 : p->probe_ms > least ? p->probe_ms : least;
}

static bool grow(void)
{
	uint32_t more = room ? room * 2 : 64;
	struct watch *w = realloc(watches, more * sizeof *w);

	if (!w)
		return false;
	watches = w;
	uint32_t *b = realloc(buckets, more * sizeof *b);
	if (!b)
		return false;
	buckets = b;
	room = more;
	memset(buckets, 0xff, room * sizeof *b); // NONE
	for (uint32_t i = 0; i < high; i++) {    // none is free: else there was no need to grow
		uint32_t *at = bucket(&watches[i].key);

		watches[i].next = *at;
		*at = i;
	}
	return true;
}

static struct watch *add(const struct neighbour_key *k)
{
	if (first_free == NONE && high == room && !grow())
		return NULL;
	uint32_t at = first_free != NONE ? first_free : high++, *b = bucket(k);
	if (at == first_free)
		first_free = watches[at].next;
	watches[at] = (struct watch){.key = *k, .next = *b};
	*b = at;
	n++;
	return &watches[at];
}

static void drop(struct watch *w)
{
	uint32_t *at = bucket(&w->key);

	while (&watches[*at] != w)
		at = &watches[*at].next;
	*at = w->next;
	w->next = first_free;
	first_free = (uint32_t)(w - watches);
	n--;
}

bool neighbour_watch(uint16_t port, const struct config_ip *ip, bool on)
{
	struct neighbour_key k = neighbour_key(port, ip->v6, ip->b);
	struct neighbour_entry *e = neighbour_get(port, ip);
	struct watch *w = find(&k);

	if (!w && on)
		w = add(&k);
	if (!w) // no memory: as if it was no next hop
		return false;
	w->refs += on ? 1 : UINT32_MAX;
	if (!w->refs)
		drop(w);
	if (e && e->watched != (w->refs > 0)) {
		e->watched = w->refs > 0;
		neighbour_rearm(e);
	}
	return neighbour_is_dead(port, ip->v6, ip->b);
}

static struct config_ip ip_of(const struct watch *w)
{
	struct config_ip ip = {.v6 = w->key.v6};

	memcpy(ip.b, w->key.ip, 16);
	return ip;
}

static struct neighbour_entry *entry_of(const struct watch *w)
{
	struct config_ip ip = ip_of(w);

	return w->refs ? neighbour_get(w->key.port, &ip) : NULL;
}

void neighbour_watch_rearm(uint16_t port)
{
	for (uint32_t i = 0; i < high; i++) {
		struct neighbour_entry *e = watches[i].key.port == port ? entry_of(&watches[i]) : NULL;

		if (e)
			neighbour_rearm(e);
	}
}

void neighbour_watch_hurry(void)
{
	for (uint32_t i = 0; i < high; i++) {
		struct neighbour_entry *e = entry_of(&watches[i]);

		if (e && (e->state == NEIGHBOUR_FAILED || (e->state == NEIGHBOUR_STATIC && e->suspect))) {
			e->probes = 0;
			neighbour_timer(e, 1);
		}
	}
}

// So that a next hop is known before there are packets for it, and one that is dead is asked for when there are none any more.
// Half of everything is left to what packets ask for. True: it is asked for now.
static bool look(const struct watch *w)
{
	const struct own_port *p = w->refs ? neighbour_own(w->key.port) : NULL;
	struct config_ip ip = ip_of(w);

	if (!p)
		return false;
	struct neighbour_entry *e = neighbour_get(p->id, &ip);
	if (neighbour_own_has(p->network, &ip)) { // a router's of this switch, which is passed without asking
		if (e && e->state != NEIGHBOUR_STATIC)
			neighbour_delete(e, STAGE_REASON(neighbour, FLUSHED));
		return false;
	}
	if (e || p->count[CLASS_OF_INCOMPLETE] >= NEIGHBOUR_INCOMPLETE_MAX / 2 || p->n >= NEIGHBOUR_PORT_MAX / 2 ||
	    neighbour_count() >= NEIGHBOUR_MAX / 2)
		return false;
	neighbour_want(p->id, &ip);
	return true;
}

void neighbour_watch_tick(uint64_t now)
{
	unsigned asks = 0;

	if (now - walked < WALK_MS * MS)
		return;
	walked = now;
	for (uint32_t i = 0; i < high / 10 + 1 && asks < WALK_ASKS && high; i++) {
		walk_at = walk_at + 1 < high ? walk_at + 1 : 0;
		asks += look(&watches[walk_at]);
	}
}

void neighbour_figures(struct neighbour_port_figures *of)
{
	for (uint16_t i = 0; i < MAX_PORTS; i++) {
		const struct own_port *p = neighbour_own(i);

		of[i] = (struct neighbour_port_figures){.is_router_port = p != NULL};
		for (unsigned k = 0; p && k < p->n_addresses; k++)
			of[i].conflicts += p->address[k].conflicts;
	}
	for (uint32_t i = 0; i < high; i++) {
		const struct neighbour_key *k = &watches[i].key;

		if (!watches[i].refs)
			continue;
		of[k->port].next_hops++;
		of[k->port].dead_next_hops += neighbour_is_dead(k->port, k->v6, k->ip);
	}
}

void neighbour_watch_fini(void)
{
	free(watches);
	free(buckets);
	watches = NULL;
	buckets = NULL;
	high = room = n = walk_at = 0;
	first_free = NONE;
	walked = 0;
}
