// fdb_table: see fdb.h.
#include "fdb.h"
#include "key.h"
#include "rcu.h"
#include "table_stat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <rte_hash.h>
#include <rte_rcu_qsbr.h>
#include <rte_spinlock.h>

// The value of an entry, replaced as a whole.
struct value {
	uint16_t port;
	uint8_t is_static;
	uint8_t zero;
	uint32_t row;
};
static_assert(sizeof(struct value) == sizeof(void *), "a value is stored in place of a pointer");

// What changes on its own, by the entry's index.
struct side {
	uint32_t seen;
	uint32_t window;  // seconds: start of the window that `moves` counts
	uint32_t held_to; // seconds; 0: not held
	uint32_t moves;
	uint32_t told;    // the value of held_to that was told of last; main thread
};

static struct rte_hash *hash;
static struct side *side;
static rte_spinlock_t lock = RTE_SPINLOCK_INITIALIZER;
static struct fdb_policy policy[MAX_NETWORKS];
static uint32_t port_limit[MAX_PORTS];
static uint32_t network_count[MAX_NETWORKS], port_count[MAX_PORTS]; // learned entries; under the lock
static uint32_t cursor;

static uint32_t hash_key(const void *key, uint32_t len, uint32_t init)
{
	// Learning an address per packet is bounded by limits, but addresses that a guest chose to collide must not make one bucket long.
	uint64_t k;

	memcpy(&k, key, sizeof k);
	return (uint32_t)key_mum(k ^ key_secret[0], key_secret[1]);
}

static void fill_each(table_fill_fn *fn, void *arg)
{
	fn(arg, NULL, (uint64_t)rte_hash_count(hash), FDB_SIZE);
}

static struct table_stat fill_stat = {.name = "fdb", .help = "addresses, learned and static", .each = fill_each};

int fdb_init(void)
{
	key_init(); // the secret of the hash
	struct rte_hash_parameters params = {
		.name = "fdb",
		.entries = FDB_SIZE,
		.key_len = sizeof(uint64_t),
		.hash_func = hash_key,
		.socket_id = SOCKET_ID_ANY,
		.extra_flag = RTE_HASH_EXTRA_FLAGS_RW_CONCURRENCY_LF | RTE_HASH_EXTRA_FLAGS_EXT_TABLE,
	};

	hash = rte_hash_create(&params);
	if (!hash)
		return -ENOMEM;
	struct rte_hash_rcu_config rcu = {.v = rcu_variable(), .mode = RTE_HASH_QSBR_MODE_DQ};
	if (rte_hash_rcu_qsbr_add(hash, &rcu)) {
		fdb_fini();
		return -EINVAL;
	}
	side = calloc((size_t)rte_hash_max_key_id(hash) + 1, sizeof *side);
	if (!side) {
		fdb_fini();
		return -ENOMEM;
	}
	memset(network_count, 0, sizeof network_count);
	memset(port_count, 0, sizeof port_count);
	memset(policy, 0, sizeof policy);
	memset(port_limit, 0, sizeof port_limit);
	cursor = 0;
	table_stat_register(&fill_stat);
	return 0;
}

void fdb_fini(void)
{
	table_stat_unregister(&fill_stat);
	rte_hash_free(hash);
	hash = NULL;
	free(side);
	side = NULL;
}

static inline struct value to_value(void *p)
{
	struct value v;

	memcpy(&v, &p, sizeof v);
	return v;
}

static inline void *from_value(struct value v)
{
	void *p;

	memcpy(&p, &v, sizeof p);
	return p;
}

static void fill(struct fdb_entry *e, uint64_t key, struct value v, uint32_t index)
{
	const struct side *s = &side[index];

	*e = (struct fdb_entry){
		.network = (uint16_t)(key >> 48),
		.port = v.port,
		.mac = {(uint8_t)(key >> 40), (uint8_t)(key >> 32), (uint8_t)(key >> 24), (uint8_t)(key >> 16), (uint8_t)(key >> 8), (uint8_t)key},
		.is_static = v.is_static,
		.row = v.row,
		.index = index,
		.seen = __atomic_load_n(&s->seen, __ATOMIC_RELAXED),
		.moves = __atomic_load_n(&s->moves, __ATOMIC_RELAXED),
		.held = __atomic_load_n(&s->held_to, __ATOMIC_RELAXED) != 0,
	};
}

bool fdb_lookup(uint64_t key, struct fdb_entry *e)
{
	void *data;
	int32_t index = rte_hash_lookup_data(hash, &key, &data);

	if (index < 0) {
		e->index = FDB_NONE;
		return false;
	}
	fill(e, key, to_value(data), (uint32_t)index);
	return true;
}

// A known address on another port. Decides, and counts towards flapping.
static enum fdb_result move(uint64_t key, struct value v, uint32_t index, uint16_t port, uint32_t now_s)
{
	struct side *s = &side[index];
	const struct fdb_policy *p = &policy[key >> 48];

	if (s->held_to) {
		if ((int32_t)(now_s - s->held_to) < 0)
			return FDB_HELD;
		__atomic_store_n(&s->held_to, 0, __ATOMIC_RELAXED);
		s->moves = 0;
	}
	if (now_s - s->window >= p->flap_window_s) {
		s->window = now_s;
		s->moves = 0;
	}
	if (p->flap_threshold && s->moves >= p->flap_threshold) {
		__atomic_store_n(&s->held_to, now_s + p->flap_hold_s ? now_s + p->flap_hold_s : 1, __ATOMIC_RELAXED);
		return FDB_HELD;
	}
	if (port_limit[port] && port_count[port] >= port_limit[port])
		return FDB_LIMIT;
	s->moves++;
	port_count[v.port]--;
	port_count[port]++;
	v.port = port;
	rte_hash_add_key_data(hash, &key, from_value(v));
	return FDB_MOVED;
}

static enum fdb_result learn(uint64_t key, uint16_t port, uint32_t now_s, uint32_t *index)
{
	void *data;
	int32_t at = rte_hash_lookup_data(hash, &key, &data);
	uint16_t network = (uint16_t)(key >> 48);

	if (at >= 0) {
		struct value v = to_value(data);

		*index = (uint32_t)at;
		if (v.is_static)
			return FDB_STATIC;
		if (v.port != port) {
			enum fdb_result r = move(key, v, *index, port, now_s);

			if (r == FDB_MOVED)
				fdb_touch(*index, now_s);
			return r;
		}
		fdb_touch(*index, now_s);
		return FDB_KNOWN;
	}
	if (network_count[network] >= policy[network].limit || (port_limit[port] && port_count[port] >= port_limit[port]))
		return FDB_LIMIT;
	struct value v = {.port = port};
	if (rte_hash_add_key_data(hash, &key, from_value(v)))
		return FDB_FULL;
	at = rte_hash_lookup(hash, &key);
	*index = (uint32_t)at;
	side[at] = (struct side){.seen = now_s, .window = now_s};
	network_count[network]++;
	port_count[port]++;
	return FDB_LEARNED;
}

enum fdb_result fdb_learn(uint64_t key, uint16_t port, uint32_t now_s, bool *changed, uint32_t *index)
{
	*changed = false;
	*index = FDB_NONE;
	if (!rte_spinlock_trylock(&lock))
		return FDB_BUSY;
	enum fdb_result r = learn(key, port, now_s, index);
	rte_spinlock_unlock(&lock);
	*changed = r == FDB_LEARNED || r == FDB_MOVED;
	return r;
}

void fdb_touch(uint32_t index, uint32_t now_s)
{
	// Once a second per flow at most, so the line is not fought over.
	if (__atomic_load_n(&side[index].seen, __ATOMIC_RELAXED) != now_s)
		__atomic_store_n(&side[index].seen, now_s, __ATOMIC_RELAXED);
}

void fdb_set_policy(uint16_t network, const struct fdb_policy *p)
{
	rte_spinlock_lock(&lock);
	policy[network] = *p;
	rte_spinlock_unlock(&lock);
}

void fdb_set_port_limit(uint16_t port, uint32_t limit)
{
	__atomic_store_n(&port_limit[port], limit, __ATOMIC_RELAXED);
}

static void forget(uint64_t key, struct value v)
{
	rte_hash_del_key(hash, &key);
	if (!v.is_static) {
		network_count[key >> 48]--;
		port_count[v.port]--;
	}
}

bool fdb_set_static(uint64_t key, uint16_t port, uint32_t row)
{
	struct value v = {.port = port, .is_static = 1, .row = row};
	void *data;

	rte_spinlock_lock(&lock);
	int32_t at = rte_hash_lookup_data(hash, &key, &data);
	if (at >= 0 && !to_value(data).is_static) { // the learned entry becomes static
		network_count[key >> 48]--;
		port_count[to_value(data).port]--;
	}
	bool ok = rte_hash_add_key_data(hash, &key, from_value(v)) == 0;
	if (ok)
		side[rte_hash_lookup(hash, &key)] = (struct side){0};
	rte_spinlock_unlock(&lock);
	return ok;
}

bool fdb_remove(uint64_t key)
{
	void *data;

	rte_spinlock_lock(&lock);
	bool there = rte_hash_lookup_data(hash, &key, &data) >= 0;
	if (there)
		forget(key, to_value(data));
	rte_spinlock_unlock(&lock);
	return there;
}

static void tell_held(uint64_t key, struct value v, uint32_t at, void (*held)(const struct fdb_entry *))
{
	uint32_t to = __atomic_load_n(&side[at].held_to, __ATOMIC_RELAXED);
	struct fdb_entry e;

	if (likely(!to || to == side[at].told))
		return;
	side[at].told = to;
	fill(&e, key, v, at);
	held(&e);
}

void fdb_age(uint32_t now_s, unsigned budget, void (*removed)(uint64_t key), void (*held)(const struct fdb_entry *))
{
	const void *k;
	void *data;

	while (budget--) {
		int32_t at = rte_hash_iterate(hash, &k, &data, &cursor);

		if (at < 0) {
			cursor = 0;
			return;
		}
		uint64_t key;
		memcpy(&key, k, sizeof key);
		tell_held(key, to_value(data), (uint32_t)at, held);
		uint32_t ageing = policy[key >> 48].ageing_s;
		if (to_value(data).is_static || !ageing)
			continue;
		if ((int32_t)(now_s - __atomic_load_n(&side[at].seen, __ATOMIC_RELAXED) - ageing) < 0)
			continue;
		if (fdb_remove(key))
			removed(key);
	}
}

unsigned fdb_remove_if(bool (*which)(const struct fdb_entry *, void *arg), void *arg, void (*removed)(uint64_t key))
{
	uint32_t next = 0;
	unsigned n = 0;
	const void *k;
	void *data;
	int32_t at;

	while ((at = rte_hash_iterate(hash, &k, &data, &next)) >= 0) {
		struct fdb_entry e;
		uint64_t key;

		memcpy(&key, k, sizeof key);
		fill(&e, key, to_value(data), (uint32_t)at);
		if (which(&e, arg) && fdb_remove(key)) {
			removed(key);
			n++;
		}
	}
	return n;
}

uint32_t fdb_high(void)
{
	return (uint32_t)rte_hash_max_key_id(hash) + 1;
}

bool fdb_at(uint32_t index, struct fdb_entry *e)
{
	uint64_t key;
	void *k, *data;

	if (index >= fdb_high() || rte_hash_get_key_with_position(hash, (int32_t)index, &k))
		return false;
	memcpy(&key, k, sizeof key);
	// A key that has just been moved out of this place is in another one.
	if (rte_hash_lookup_data(hash, &key, &data) != (int32_t)index)
		return false;
	fill(e, key, to_value(data), index);
	return true;
}

uint32_t fdb_limit(uint16_t network)
{
	return policy[network].limit;
}

uint32_t fdb_count(uint16_t network)
{
	return __atomic_load_n(&network_count[network], __ATOMIC_RELAXED);
}

uint32_t fdb_port_count(uint16_t port)
{
	return __atomic_load_n(&port_count[port], __ATOMIC_RELAXED);
}
