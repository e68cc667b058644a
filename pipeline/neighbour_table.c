// neighbour_table: see neighbour_table.h. Here: entries, what workers see of them, lists, timers.
#include "adjacency.h"
#include "neighbour_private.h"
#include "rcu.h"
#include "table_stat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <rte_hash.h>
#include <rte_rcu_qsbr.h>

#define NEIGHBOUR_SPARE 64 // places that are kept free, for new ones while a grace period passes
#define WHEEL 1024         // slots, a power of two
#define WHEEL_MS 100ULL

enum {
	SEEN_UNKNOWN,
	SEEN_USABLE,
	SEEN_FAILED
}; // verdicts of neighbour_entry.seen_as

struct neighbour_entry *neighbour_entries;
uint64_t neighbour_clock;
void (*neighbour_changed)(uint16_t port, const struct config_ip *);

static struct rte_hash *hash;
static uint32_t *free_places; // stack
static uint32_t n_free, high, n_entries;
static uint32_t wheel[WHEEL]; // first entry of each slot
static uint32_t wheel_at;     // the last slot that was served, in WHEEL_MS

// By adjacency.
static uint32_t used_at[MAX_ADJACENCIES];       // seconds; workers write
static uint8_t wants_use[MAX_ADJACENCIES];      // its neighbour is stale, and use of it is news
static uint64_t was_used[MAX_ADJACENCIES / 64]; // bits: it was
static uint32_t entry_of[MAX_ADJACENCIES];

static uint32_t hash_key(const void *key, uint32_t len, uint32_t init)
{
	uint64_t a, b;
	uint32_t c;

	memcpy(&c, key, 4);
	memcpy(&a, (const uint8_t *)key + 4, 8);
	memcpy(&b, (const uint8_t *)key + 12, 8);
	return (uint32_t)key_mum(key_mum(a ^ key_secret[0], b ^ key_secret[1]) ^ c, key_secret[2]);
}
static_assert(sizeof(struct neighbour_key) == 20, "it is hashed by words");

struct neighbour_key neighbour_key(uint16_t port, bool v6, const uint8_t *ip)
{
	struct neighbour_key k = {.port = port, .v6 = v6};

	memcpy(k.ip, ip, v6 ? 16 : 4);
	return k;
}

// The slot of what depends on the neighbour; any number below bit 60 that is the same each time.
static uint64_t generation(const struct neighbour_key *k)
{
	return ((uint64_t)hash_key(k, sizeof *k, 0) << 16 | k->port) & ((1ULL << 60) - 1);
}

// ---- workers

static int32_t find(const struct neighbour_key *k)
{
	void *data;

	return hash && rte_hash_lookup_data(hash, k, &data) >= 0 ? (int32_t)(uintptr_t)data : -1;
}

int neighbour_find(struct resolve *r, uint16_t port, bool v6, const uint8_t *ip, uint8_t mac[6], uint16_t *adj)
{
	struct neighbour_key k = neighbour_key(port, v6, ip);

	if (r)
		resolve_depend(r, GEN_NEIGHBOUR, generation(&k));
	int32_t at = find(&k);
	uint32_t seen = at < 0 ? 0 : __atomic_load_n(&neighbour_entries[at].seen_as, __ATOMIC_ACQUIRE);
	if (seen >> 16 != SEEN_USABLE)
		return seen >> 16 == SEEN_FAILED ? -1 : 0;
	*adj = (uint16_t)seen;
	memcpy(mac, adjacency_get(*adj)->dst, 6);
	// The first packet counts as well as those that find a cached flow.
	if (r && !r->w->dry)
		neighbour_used(*adj, (uint32_t)(r->w->now / 1000000000ULL));
	return 1;
}

bool neighbour_is_dead(uint16_t port, bool v6, const uint8_t *ip)
{
	struct neighbour_key k = neighbour_key(port, v6, ip);
	int32_t at = find(&k);

	return at >= 0 && (__atomic_load_n(&neighbour_entries[at].seen_as, __ATOMIC_ACQUIRE) >> 16 == SEEN_FAILED ||
			   __atomic_load_n(&neighbour_entries[at].suspect, __ATOMIC_RELAXED));
}

void neighbour_used(uint16_t adj, uint32_t now_s)
{
	if (__atomic_load_n(&used_at[adj], __ATOMIC_RELAXED) != now_s)
		__atomic_store_n(&used_at[adj], now_s, __ATOMIC_RELAXED);
	// Once for each time that a neighbour becomes stale.
	if (unlikely(__atomic_load_n(&wants_use[adj], __ATOMIC_RELAXED))) {
		__atomic_store_n(&wants_use[adj], 0, __ATOMIC_RELAXED);
		__atomic_fetch_or(&was_used[adj / 64], 1ULL << adj % 64, __ATOMIC_RELAXED);
	}
}

bool neighbour_is_news(uint16_t network, const struct config_ip *ip, const uint8_t mac[6], bool asked)
{
	const struct own_seen *own = neighbour_own_seen(network);

	for (unsigned i = 0; own && i < own->n_ports; i++) {
		struct neighbour_key k = neighbour_key(own->port[i].id, ip->v6, ip->b);
		int32_t at = find(&k);

		if (at < 0) {
			if (asked)
				return true;
			continue;
		}
		uint32_t seen = __atomic_load_n(&neighbour_entries[at].seen_as, __ATOMIC_ACQUIRE);
		if (seen >> 16 != SEEN_USABLE || memcmp(adjacency_get((uint16_t)seen)->dst, mac, 6))
			return true;
	}
	return false;
}

// ---- lists and timers

uint32_t neighbour_index(const struct neighbour_entry *e)
{
	return (uint32_t)(e - neighbour_entries);
}

struct config_ip neighbour_ip(const struct neighbour_entry *e)
{
	struct config_ip ip = {.v6 = e->key.v6};

	memcpy(ip.b, e->key.ip, 16);
	return ip;
}

static void list_remove(struct own_port *p, struct neighbour_entry *e)
{
	if (!p)
		return;
	*(e->prev == NONE ? &p->first[e->class] : &neighbour_entries[e->prev].next) = e->next;
	*(e->next == NONE ? &p->last[e->class] : &neighbour_entries[e->next].prev) = e->prev;
	p->count[e->class]--;
}

static void list_append(struct own_port *p, struct neighbour_entry *e)
{
	e->next = NONE;
	e->prev = p->last[e->class];
	*(e->prev == NONE ? &p->first[e->class] : &neighbour_entries[e->prev].next) = neighbour_index(e);
	p->last[e->class] = neighbour_index(e);
	p->count[e->class]++;
}

static void wheel_remove(struct neighbour_entry *e)
{
	if (!e->due)
		return;
	*(e->wheel_prev == NONE ? &wheel[e->due % WHEEL] : &neighbour_entries[e->wheel_prev].wheel_next) = e->wheel_next;
	if (e->wheel_next != NONE)
		neighbour_entries[e->wheel_next].wheel_prev = e->wheel_prev;
	e->due = 0;
}

static void wheel_add(struct neighbour_entry *e, uint32_t due)
{
	e->due = due;
	e->wheel_prev = NONE;
	e->wheel_next = wheel[due % WHEEL];
	if (e->wheel_next != NONE)
		neighbour_entries[e->wheel_next].wheel_prev = neighbour_index(e);
	wheel[due % WHEEL] = neighbour_index(e);
}

void neighbour_timer(struct neighbour_entry *e, uint64_t ms)
{
	wheel_remove(e);
	if (!ms)
		return;
	uint32_t due = (uint32_t)((neighbour_clock / MS + ms + WHEEL_MS - 1) / WHEEL_MS);
	wheel_add(e, due > wheel_at ? due : wheel_at + 1);
}

void neighbour_timers(uint64_t now, void (*ended)(struct neighbour_entry *))
{
	uint32_t to = (uint32_t)(now / MS / WHEEL_MS), from = wheel_at;

	if (to <= from)
		return;
	if (to - from > WHEEL) // every slot once is all of them
		from = to - WHEEL;
	wheel_at = to;
	for (uint32_t slot = from + 1; slot != to + 1; slot++) {
		for (uint32_t at = wheel[slot % WHEEL], next; at != NONE; at = next) {
			struct neighbour_entry *e = &neighbour_entries[at];

			next = e->wheel_next;
			if (e->due > to)
				continue;
			wheel_remove(e);
			ended(e);
			// That may have taken the next one away too.
			if (next != NONE &&
			    (!neighbour_entries[next].due || neighbour_entries[next].due % WHEEL != slot % WHEEL))
				next = wheel[slot % WHEEL];
		}
	}
}

void neighbour_each_used(void (*used)(struct neighbour_entry *))
{
	for (unsigned i = 0; i < MAX_ADJACENCIES / 64; i++) {
		if (likely(!__atomic_load_n(&was_used[i], __ATOMIC_RELAXED)))
			continue;
		for (uint64_t bits = __atomic_exchange_n(&was_used[i], 0, __ATOMIC_RELAXED); bits; bits &= bits - 1) {
			uint32_t adj = i * 64 + (uint32_t)__builtin_ctzll(bits);
			struct neighbour_entry *e = &neighbour_entries[entry_of[adj]];

			if (e->adj == adj && e->state == NEIGHBOUR_STALE)
				used(e);
		}
	}
}

uint32_t neighbour_used_s(const struct neighbour_entry *e)
{
	return e->adj ? __atomic_load_n(&used_at[e->adj], __ATOMIC_RELAXED) : 0;
}

// ---- entries

struct neighbour_entry *neighbour_get(uint16_t port, const struct config_ip *ip)
{
	struct neighbour_key k = neighbour_key(port, ip->v6, ip->b);
	int32_t at = find(&k);

	return at < 0 ? NULL : &neighbour_entries[at];
}

// Of those that can go, the oldest: none that is reachable, or asked for because flows use it.
static bool make_room(struct own_port *p)
{
	static const enum neighbour_class order[] = {CLASS_OF_FAILED, CLASS_OF_STALE, CLASS_OF_INCOMPLETE};

	for (unsigned i = 0; p && i < RTE_DIM(order); i++) {
		if (p->first[order[i]] == NONE)
			continue;
		neighbour_delete(&neighbour_entries[p->first[order[i]]], STAGE_REASON(neighbour, GIVEN_UP));
		return true;
	}
	return false;
}

// The router port that most could go of.
static struct own_port *fattest(void)
{
	struct own_port *most = NULL;
	uint32_t n = 0;

	for (uint16_t i = 1; i < MAX_PORTS; i++) {
		struct own_port *p = neighbour_own(i);
		uint32_t can = p ? p->n - p->count[CLASS_OF_LIVE] - p->count[CLASS_OF_STATIC] : 0;

		if (can > n) {
			n = can;
			most = p;
		}
	}
	return most;
}

struct neighbour_entry *neighbour_new(struct own_port *p, const struct config_ip *ip)
{
	struct neighbour_key k = neighbour_key(p->id, ip->v6, ip->b);

	if (p->n >= NEIGHBOUR_PORT_MAX && !make_room(p))
		return NULL;
	// A place that has just been left is used again after a grace period, so that there is none for the very next one.
	if (n_entries >= NEIGHBOUR_MAX - NEIGHBOUR_SPARE)
		make_room(fattest());
	if (!n_free && high == NEIGHBOUR_MAX)
		return NULL;
	uint32_t at = n_free ? free_places[--n_free] : high++;
	struct neighbour_entry *e = &neighbour_entries[at];
	*e = (struct neighbour_entry){.key = k, .class = CLASSES, .watched = neighbour_has_watch(&k)};
	if (rte_hash_add_key_data(hash, &k, (void *)(uintptr_t)at)) {
		free_places[n_free++] = at;
		return NULL;
	}
	p->n++;
	n_entries++;
	return e;
}

static enum neighbour_class class_of(enum neighbour_state s)
{
	switch (s) {
	case NEIGHBOUR_INCOMPLETE:
		return CLASS_OF_INCOMPLETE;
	case NEIGHBOUR_STALE:
		return CLASS_OF_STALE;
	case NEIGHBOUR_FAILED:
		return CLASS_OF_FAILED;
	case NEIGHBOUR_STATIC:
		return CLASS_OF_STATIC;
	default:
		return CLASS_OF_LIVE;
	}
}

static void tell_changed(const struct neighbour_entry *e)
{
	struct config_ip ip = neighbour_ip(e);

	if (neighbour_changed)
		neighbour_changed(e->key.port, &ip);
}

void neighbour_suspect(struct neighbour_entry *e, bool suspect)
{
	if (e->suspect == suspect)
		return;
	__atomic_store_n(&e->suspect, suspect, __ATOMIC_RELAXED);
	tell_changed(e);
}

// What workers are to see. Flows that saw something else are stale, and only then goes what they had.
static void publish(struct neighbour_entry *e, uint16_t old_adj)
{
	uint32_t verdict = e->state == NEIGHBOUR_INCOMPLETE          ? SEEN_UNKNOWN
			   : e->state == NEIGHBOUR_FAILED || !e->adj ? SEEN_FAILED
								     : SEEN_USABLE;
	uint32_t seen = verdict << 16 | (verdict == SEEN_USABLE ? e->adj : 0);

	__atomic_store_n(&wants_use[e->adj], e->state == NEIGHBOUR_STALE, __ATOMIC_RELAXED);
	if (seen != e->seen_as) {
		__atomic_store_n(&e->seen_as, seen, __ATOMIC_RELEASE);
		gen_bump(gen_slot(GEN_NEIGHBOUR, generation(&e->key)));
		tell_changed(e);
	}
	adjacency_release(old_adj);
}

void neighbour_set(struct neighbour_entry *e, enum neighbour_state state, const uint8_t *mac, uint64_t ms)
{
	struct own_port *p = neighbour_own(e->key.port);
	uint16_t old = 0;

	if (mac && (!e->adj || memcmp(mac, e->mac, 6))) {
		struct adjacency a = {.network = p->network};

		old = e->adj;
		memcpy(e->mac, mac, 6);
		memcpy(a.dst, mac, 6);
		memcpy(a.src, p->mac, 6);
		e->adj = adjacency_new(&a); // 0: there are too many, and the neighbour can't be used
		entry_of[e->adj] = neighbour_index(e);
		__atomic_store_n(&used_at[e->adj], old ? used_at[old] : 0, __ATOMIC_RELAXED);
	} else if (state == NEIGHBOUR_INCOMPLETE || state == NEIGHBOUR_FAILED) {
		old = e->adj;
		e->adj = 0;
	}
	if (e->state != state) {
		enum neighbour_class c = class_of(state);

		e->probes = 0;
		e->changed = neighbour_clock;
		if (e->class != CLASSES)
			list_remove(p, e);
		e->class = (uint8_t)c;
		list_append(p, e);
	}
	e->state = (uint8_t)state;
	bool answers = e->suspect && state != NEIGHBOUR_INCOMPLETE && state != NEIGHBOUR_FAILED;
	if (state != NEIGHBOUR_INCOMPLETE)
		__atomic_store_n(&e->suspect, 0, __ATOMIC_RELAXED);
	uint32_t seen = e->seen_as;
	publish(e, old);
	if (answers && seen == e->seen_as)
		tell_changed(e);
	neighbour_timer(e, ms);
}

static void give_back(void *arg)
{
	free_places[n_free++] = (uint32_t)(uintptr_t)arg;
}

void neighbour_delete(struct neighbour_entry *e, uint16_t reason)
{
	struct own_port *p = neighbour_own(e->key.port);
	bool known = e->seen_as != 0;

	wheel_remove(e);
	if (e->class != CLASSES)
		list_remove(p, e);
	rte_hash_del_key(hash, &e->key);
	gen_bump(gen_slot(GEN_NEIGHBOUR, generation(&e->key)));
	adjacency_release(e->adj);
	e->adj = 0;
	e->state = NEIGHBOUR_NONE;
	if (p)
		p->n--;
	n_entries--;
	neighbour_drop_waiting(e, reason);
	free(e->waiting);
	e->waiting = NULL;
	rcu_defer(give_back, (void *)(uintptr_t)neighbour_index(e));
	if (known)
		tell_changed(e);
}

uint32_t neighbour_count(void)
{
	return n_entries;
}

uint32_t neighbour_high(void)
{
	return high;
}

bool neighbour_at(uint32_t index, struct neighbour_view *v)
{
	const struct neighbour_entry *e = index < high ? &neighbour_entries[index] : NULL;

	if (!e || e->state == NEIGHBOUR_NONE)
		return false;
	*v = (struct neighbour_view){.port = e->key.port,
				     .ip = neighbour_ip(e),
				     .has_mac = e->adj != 0,
				     .state = e->state,
				     .changed = e->changed,
				     .used_s = neighbour_used_s(e),
				     .watched = e->watched,
				     .dead = e->suspect || e->state == NEIGHBOUR_FAILED,
				     .waiting = e->n_waiting,
				     .probes = e->probes,
				     .adj = e->adj};
	memcpy(v->mac, e->mac, 6);
	return true;
}

const char *neighbour_state_name(enum neighbour_state s)
{
	static const char *const names[] = {"none", "incomplete", "reachable", "stale", "delay", "probe", "failed", "static"};

	return s < RTE_DIM(names) ? names[s] : "?";
}

// ---- set up

static void fill_each(table_fill_fn *fn, void *arg)
{
	fn(arg, NULL, n_entries, NEIGHBOUR_MAX);
}

static struct table_stat fill_stat = {.name = "neighbour", .help = "neighbours of router ports", .each = fill_each};

int neighbour_init(void)
{
	key_init(); // the secret of the hash
	struct rte_hash_parameters params = {
		.name = "neighbour",
		.entries = NEIGHBOUR_MAX,
		.key_len = sizeof(struct neighbour_key),
		.hash_func = hash_key,
		.socket_id = SOCKET_ID_ANY,
		.extra_flag = RTE_HASH_EXTRA_FLAGS_RW_CONCURRENCY_LF | RTE_HASH_EXTRA_FLAGS_EXT_TABLE,
	};
	struct rte_hash_rcu_config rcu = {.v = rcu_variable(), .mode = RTE_HASH_QSBR_MODE_DQ};

	hash = rte_hash_create(&params);
	neighbour_entries = calloc(NEIGHBOUR_MAX, sizeof *neighbour_entries);
	free_places = calloc(NEIGHBOUR_MAX, sizeof *free_places);
	if (!hash || !neighbour_entries || !free_places || rte_hash_rcu_qsbr_add(hash, &rcu)) {
		neighbour_fini();
		return -ENOMEM;
	}
	n_free = high = n_entries = wheel_at = 0;
	neighbour_clock = 0;
	memset(wheel, 0xff, sizeof wheel);
	table_stat_register(&fill_stat);
	return 0;
}

void neighbour_fini(void)
{
	table_stat_unregister(&fill_stat);
	for (uint32_t i = 0; i < high; i++)
		if (neighbour_entries[i].state != NEIGHBOUR_NONE)
			neighbour_delete(&neighbour_entries[i], STAGE_REASON(neighbour, FLUSHED));
	neighbour_own_fini();
	neighbour_watch_fini();
	while (rcu_poll())
		; // places are given back
	high = 0;
	rte_hash_free(hash);
	hash = NULL;
	free(neighbour_entries);
	neighbour_entries = NULL;
	free(free_places);
	free_places = NULL;
}
