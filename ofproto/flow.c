// flow: see flow.h.
#include "flow.h"
#include "probe.h"
#include "rcu.h"
#include "topology.h"

#include <stdlib.h>
#include <emmintrin.h>
#include <sys/mman.h>
#include <rte_branch_prediction.h>
#include <rte_prefetch.h>

#define NONE UINT32_MAX
#define SLOTS 10           // flows in a bucket
#define SPLIT_LOAD 6       // average flows a bucket at which the directory grows
#define FIRST_BUCKETS 1024 // a power of two
#define EVICT_TRIES 8
#define EVICT_IDLE_MS 100  // a flow is old enough to make room if it had no packet for this long

// A bucket is one cache line: 16 bits of the hash and the record of each flow, and a bucket more when those are full.
struct bucket {
	uint16_t tag[SLOTS];
	uint32_t index[SLOTS];
	uint32_t more; // overflow bucket, 0: none
};
static_assert(sizeof(struct bucket) == 64, "a bucket is one cache line");

struct record {
	struct flow flow;
	struct flow_key key;
};

struct port_flows {
	uint32_t first, last;
	uint32_t n;
};

struct flow_table {
	struct record *record;
	struct flow_cold *cold;
	struct bucket *bucket;   // directory, n_buckets of them in use
	struct bucket *overflow; // [0] is never used
	uint32_t n_buckets;
	uint32_t mask;           // of the current doubling: smallest 2^k - 1 >= n_buckets - 1
	uint32_t overflow_high, overflow_free;
	uint32_t overflow_limit;
	uint32_t reserved_limit; // records and buckets that address space is reserved for
	uint32_t limit;
	uint32_t idle_ms;
	uint32_t high;           // records ever used
	uint32_t free;           // list of free records through cold.next
	uint32_t n;
	uint32_t share;          // flows that every port may have whatever the others do
	uint32_t common;         // flows beyond the shares, of all ports together, at most
	uint32_t over;           // flows beyond the shares now
	uint32_t hand;           // of the sweep
	uint64_t inserts, evictions, expiries, refusals;
	struct flow_credit *credit; // by row, touched as it is used
	uint32_t credit_high;       // highest row that was credited
	struct flow_table *next;    // of all tables
	struct flow_ends *ends;     // RCU, NULL: nobody wants to know
	struct port_flows port[MAX_PORTS];
};

static struct flow_table *tables; // main thread
static struct flow_credit *gone;  // credits of tables that are no more
static uint32_t n_gone;

#define FLOWS_MAX (1u << 24)

static void *reserve(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void release(void *p, size_t size)
{
	if (p)
		munmap(p, size);
}

static size_t overflow_size(uint32_t limit)
{
	return (size_t)(limit / SPLIT_LOAD + 64) * sizeof(struct bucket);
}

static size_t bucket_size(uint32_t limit)
{
	return (size_t)(limit / SPLIT_LOAD + FIRST_BUCKETS + 1) * sizeof(struct bucket);
}

// ---- credits

void flow_credit(struct flow_table *t, uint32_t rule, uint64_t packets, uint64_t bytes)
{
	if (unlikely(rule >= FLOW_CREDITS))
		return;
	if (rule > t->credit_high)
		t->credit_high = rule;
	__atomic_store_n(&t->credit[rule].packets, t->credit[rule].packets + packets, __ATOMIC_RELAXED);
	__atomic_store_n(&t->credit[rule].bytes, t->credit[rule].bytes + bytes, __ATOMIC_RELAXED);
}

// What the flow has counted since its decision was made.
static void credit_flow(struct flow_table *t, uint32_t i)
{
	const struct flow *f = &t->record[i].flow;
	const struct flow_cold *c = &t->cold[i];

	if (likely(!f->rule))
		return;
	flow_credit(t, f->rule, f->packets - c->credited_packets, f->bytes - c->credited_bytes);
	if (c->class_row)
		flow_credit(t, c->class_row, f->packets - c->credited_packets, f->bytes - c->credited_bytes);
}

static void add_credit(struct flow_credit *sum, const struct flow_credit *c)
{
	sum->packets += __atomic_load_n(&c->packets, __ATOMIC_RELAXED);
	sum->bytes += __atomic_load_n(&c->bytes, __ATOMIC_RELAXED);
}

static void add_uncredited(struct flow_credit *sum, const struct flow_view *v)
{
	sum->packets += v->flow.packets - v->cold.credited_packets;
	sum->bytes += v->flow.bytes - v->cold.credited_bytes;
}

// What was credited first and flows second: what moves from the second to the first in between is missing then, not counted twice.
static void sum_table(const struct flow_table *t, struct flow_credit *sum, uint32_t n)
{
	for (uint32_t i = 1; i < n && i < FLOW_CREDITS; i++)
		add_credit(&sum[i], &t->credit[i]);
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	for (uint32_t i = 0, high = flow_table_high(t); i < high; i++) {
		struct flow_view v;

		// Few flows are of rules: most cost a look at one cache line.
		if (!__atomic_load_n(&t->record[i].flow.rule, __ATOMIC_RELAXED) || !flow_table_read(t, i, &v) || !v.flow.rule)
			continue;
		if (v.flow.rule < n)
			add_uncredited(&sum[v.flow.rule], &v);
		if (v.cold.class_row && v.cold.class_row < n)
			add_uncredited(&sum[v.cold.class_row], &v);
	}
}

void flow_credits_sum(struct flow_credit *sum, uint32_t n)
{
	for (uint32_t i = 0; i < n && i < n_gone; i++)
		add_credit(&sum[i], &gone[i]);
	for (const struct flow_table *t = tables; t; t = t->next)
		sum_table(t, sum, n);
}

static uint32_t high_row(uint32_t row, uint32_t n)
{
	return row >= n && row < FLOW_CREDITS ? row + 1 : n;
}

// The worker of the table is no more; what was counted stays.
static void keep_credits(const struct flow_table *t)
{
	uint32_t n = n_gone;

	if (!t->credit || !t->record || !t->cold)
		return;
	if (t->credit_high >= n && t->credit_high)
		n = t->credit_high + 1;
	for (uint32_t i = 0; i < flow_table_high(t); i++)
		if (t->record[i].flow.rule) {
			n = high_row(t->record[i].flow.rule, n);
			n = high_row(t->cold[i].class_row, n);
		}
	if (n <= 1)
		return;
	struct flow_credit *more = n > n_gone ? realloc(gone, n * sizeof *gone) : gone;
	if (!more)
		return;
	memset(more + n_gone, 0, (n - n_gone) * sizeof *more);
	gone = more;
	n_gone = n;
	sum_table(t, gone, n);
}

struct flow_table *flow_table_create(const struct flow_table_config *config)
{
	struct flow_table *t = reserve(sizeof *t);
	uint32_t limit = config->limit < 1024 ? 1024 : config->limit > FLOWS_MAX ? FLOWS_MAX : config->limit;

	if (!t)
		return NULL;
	t->reserved_limit = FLOWS_MAX; // address space costs nothing, so the limit can be raised while the worker runs
	t->record = reserve((size_t)t->reserved_limit * sizeof *t->record);
	t->cold = reserve((size_t)t->reserved_limit * sizeof *t->cold);
	t->bucket = reserve(bucket_size(t->reserved_limit));
	t->overflow = reserve(overflow_size(t->reserved_limit));
	t->credit = reserve(FLOW_CREDITS * sizeof *t->credit);
	t->next = tables;
	tables = t;
	if (!t->record || !t->cold || !t->bucket || !t->overflow || !t->credit) {
		flow_table_destroy(t);
		return NULL;
	}
	t->limit = limit;
	t->idle_ms = config->idle_ms;
	t->n_buckets = FIRST_BUCKETS;
	t->mask = FIRST_BUCKETS - 1;
	t->overflow_high = 1;
	t->overflow_limit = (uint32_t)(overflow_size(t->reserved_limit) / sizeof(struct bucket));
	t->free = NONE;
	for (unsigned i = 0; i < MAX_PORTS; i++)
		t->port[i].first = t->port[i].last = NONE;
	flow_table_set_ports(t, 1);
	return t;
}

void flow_table_destroy(struct flow_table *t)
{
	if (!t)
		return;
	keep_credits(t);
	if (flow_table_ends && t->record && t->cold)
		flow_table_ends(t);
	struct flow_table **at = &tables;
	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	release(t->credit, FLOW_CREDITS * sizeof *t->credit);
	release(t->record, (size_t)t->reserved_limit * sizeof *t->record);
	release(t->cold, (size_t)t->reserved_limit * sizeof *t->cold);
	release(t->bucket, bucket_size(t->reserved_limit));
	release(t->overflow, overflow_size(t->reserved_limit));
	munmap(t, sizeof *t);
}

void flow_table_configure(struct flow_table *t, const struct flow_table_config *config)
{
	t->limit = config->limit < 1024 ? 1024 : config->limit > FLOWS_MAX ? FLOWS_MAX : config->limit;
	t->idle_ms = config->idle_ms;
}

// Called after every change of limit or ports.
void flow_table_set_ports(struct flow_table *t, unsigned ports)
{
	if (ports < 1)
		ports = 1;
	t->common = t->limit / 2;
	t->share = ports == 1 ? t->limit : t->common / ports;
	t->over = 0;
	for (unsigned i = 0; i < MAX_PORTS; i++)
		t->over += t->port[i].n > t->share ? t->port[i].n - t->share : 0;
}

static inline uint32_t bucket_index(const struct flow_table *t, uint32_t hash)
{
	uint32_t b = hash & t->mask;

	return b < t->n_buckets ? b : b & (t->mask >> 1);
}

static inline uint16_t tag_of(uint64_t hash)
{
	return (uint16_t)(hash >> 48) | 1; // never 0: an empty slot
}

// Bit i is set if slot i has the tag. Two overlapping vectors of eight make the ten: a third of the instructions of a loop.
static inline uint32_t bucket_match(const struct bucket *b, uint16_t tag)
{
	__m128i want = _mm_set1_epi16((short)tag), zero = _mm_setzero_si128();
	__m128i low = _mm_cmpeq_epi16(_mm_loadu_si128((const void *)b->tag), want);
	__m128i high = _mm_cmpeq_epi16(_mm_loadu_si128((const void *)(b->tag + 2)), want);

	return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(low, zero)) | (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(high, zero)) << 2;
}

static struct flow *find(struct flow_table *t, const struct bucket *b, const struct flow_key *key, unsigned len, uint16_t tag)
{
	for (;;) {
		for (uint32_t hits = bucket_match(b, tag); hits; hits &= hits - 1) {
			struct record *r = &t->record[b->index[__builtin_ctz(hits)]];

			if (likely(key_equal(&r->key, key, len)))
				return &r->flow;
		}
		if (likely(!b->more))
			return NULL;
		b = &t->overflow[b->more];
	}
}

void flow_table_lookup(struct flow_table *t, const struct flow_key *keys, const uint8_t *len, const uint64_t *hash, unsigned n,
		       struct flow **out)
{
	const struct bucket *b[BURST];
	struct record *first[BURST];

	for (unsigned i = 0; i < n; i++) {
		b[i] = &t->bucket[bucket_index(t, (uint32_t)hash[i])];
		rte_prefetch0(b[i]);
	}
	for (unsigned i = 0; i < n; i++) {
		uint32_t hits = bucket_match(b[i], tag_of(hash[i]));

		first[i] = NULL;
		if (likely(hits)) {
			first[i] = &t->record[b[i]->index[__builtin_ctz(hits)]];
			rte_prefetch0(&first[i]->key);
			rte_prefetch0(&first[i]->flow);
		}
	}
	for (unsigned i = 0; i < n; i++)
		out[i] = likely(first[i] && key_equal(&first[i]->key, &keys[i], len[i])) ? &first[i]->flow
											  : find(t, b[i], &keys[i], len[i], tag_of(hash[i]));
}

static struct bucket *overflow_get(struct flow_table *t, uint32_t *index)
{
	if (t->overflow_free) {
		*index = t->overflow_free;
		t->overflow_free = t->overflow[*index].more;
	} else if (t->overflow_high < t->overflow_limit) {
		*index = t->overflow_high++;
	} else {
		return NULL;
	}
	struct bucket *b = &t->overflow[*index];
	memset(b, 0, sizeof *b);
	return b;
}

static bool bucket_put(struct flow_table *t, struct bucket *b, uint16_t tag, uint32_t index)
{
	for (;;) {
		for (unsigned i = 0; i < SLOTS; i++) {
			if (!b->tag[i]) {
				b->index[i] = index;
				b->tag[i] = tag;
				return true;
			}
		}
		if (!b->more) {
			uint32_t more;

			if (!overflow_get(t, &more))
				return false;
			b->more = more;
		}
		b = &t->overflow[b->more];
	}
}

static void bucket_take(struct flow_table *t, struct bucket *b, uint32_t index)
{
	struct bucket *before = NULL;

	for (;; before = b, b = &t->overflow[b->more]) {
		bool used = false, done = false;

		for (unsigned i = 0; i < SLOTS; i++) {
			if (b->tag[i] && b->index[i] == index) {
				b->tag[i] = 0;
				done = true;
			}
			used |= b->tag[i] != 0;
		}
		if (done && !used && before) { // An empty overflow bucket goes back.
			uint32_t at = before->more;

			before->more = b->more;
			b->more = t->overflow_free;
			t->overflow_free = at;
		}
		if (done || !b->more)
			return;
	}
}

// One step of linear hashing: the bucket whose turn it is shares its flows with a new one.
static void split(struct flow_table *t)
{
	uint32_t new = t->n_buckets;

	if ((size_t)(new + 1) * sizeof(struct bucket) > bucket_size(t->reserved_limit))
		return;
	if (new > t->mask)
		t->mask = t->mask << 1 | 1;
	uint32_t old = new & (t->mask >> 1);
	struct bucket chain = t->bucket[old], *b = &chain;
	memset(&t->bucket[old], 0, sizeof(struct bucket));
	memset(&t->bucket[new], 0, sizeof(struct bucket));
	t->n_buckets++;
	uint32_t more;
	for (;;) {
		for (unsigned i = 0; i < SLOTS; i++)
			if (b->tag[i])
				// It can't fail: the two hold what one held, and the chain's overflow buckets come free as we go.
				bucket_put(t, &t->bucket[bucket_index(t, t->cold[b->index[i]].hash)], b->tag[i], b->index[i]);
		more = b->more;
		if (!more)
			break;
		chain = t->overflow[more];
		t->overflow[more].more = t->overflow_free;
		t->overflow_free = more;
		b = &chain;
	}
}

static void list_add(struct flow_table *t, uint32_t i, uint16_t port)
{
	struct port_flows *l = &t->port[port];
	struct flow_cold *c = &t->cold[i];

	c->port = port;
	c->next = NONE;
	c->prev = l->last;
	if (l->last == NONE)
		l->first = i;
	else
		t->cold[l->last].next = i;
	l->last = i;
	__atomic_store_n(&l->n, l->n + 1, __ATOMIC_RELAXED);
	t->over += l->n > t->share;
}

static void list_del(struct flow_table *t, uint32_t i)
{
	struct flow_cold *c = &t->cold[i];
	struct port_flows *l = &t->port[c->port];

	if (c->prev == NONE)
		l->first = c->next;
	else
		t->cold[c->prev].next = c->next;
	if (c->next == NONE)
		l->last = c->prev;
	else
		t->cold[c->next].prev = c->prev;
	t->over -= l->n > t->share;
	__atomic_store_n(&l->n, l->n - 1, __ATOMIC_RELAXED);
}

static void change_begin(struct flow_cold *c)
{
	__atomic_store_n(&c->version, c->version + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

static void change_end(struct flow_cold *c)
{
	__atomic_store_n(&c->version, c->version + 1, __ATOMIC_RELEASE);
}

static __rte_noinline void probe_end(const struct flow_table *t, uint32_t i, const char *why)
{
	const struct flow *f = &t->record[i].flow;

	PROBE(flow_end, lport_name(t->cold[i].port), why, f->packets, f->bytes, f->used_ms - t->cold[i].created_ms);
}

// ---- flows that end

void (*flow_table_ends)(struct flow_table *);

static void describe_end(struct flow_end *e, uint32_t i, const struct flow_key *k, const struct flow *f, const struct flow_cold *c)
{
	e->key = *k;
	e->decision = f->decision;
	e->rule = f->rule;
	e->packets = f->packets;
	e->bytes = f->bytes;
	e->created_ms = c->created_ms;
	e->used_ms = f->used_ms;
	e->index = i;
	e->serial = c->serial;
	e->hash = c->hash;
	e->n_prov = c->n_prov;
	memcpy(e->prov_row, c->prov_row, sizeof e->prov_row);
}

void flow_end_of(const struct flow_view *v, uint32_t i, struct flow_end *e)
{
	describe_end(e, i, &v->key, &v->flow, &v->cold);
	e->why = FLOW_END_ACTIVE;
	e->goes_on = true;
}

static void lose_end(struct flow_ends *ends, const struct flow *f)
{
	__atomic_store_n(&ends->lost, ends->lost + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&ends->lost_packets, ends->lost_packets + f->packets, __ATOMIC_RELAXED);
	__atomic_store_n(&ends->lost_bytes, ends->lost_bytes + f->bytes, __ATOMIC_RELAXED);
}

static __attribute__((noinline)) void note_end(struct flow_table *t, struct flow_ends *ends, uint32_t i, enum flow_end_why why, bool goes_on)
{
	const struct flow *f = &t->record[i].flow;
	uint16_t network = f->network & (MAX_NETWORKS - 1);

	if (!f->packets || !flow_sampled(t->cold[i].hash, __atomic_load_n(&ends->sample, __ATOMIC_RELAXED)) ||
	    !(__atomic_load_n(&ends->networks[network / 64], __ATOMIC_RELAXED) >> network % 64 & 1))
		return;
	if (ends->head - __atomic_load_n(&ends->tail, __ATOMIC_ACQUIRE) >= FLOW_ENDS) {
		lose_end(ends, f);
		return;
	}
	struct flow_end *e = &ends->ring[ends->head & (FLOW_ENDS - 1)];
	describe_end(e, i, &t->record[i].key, f, &t->cold[i]);
	e->why = (uint8_t)why;
	e->goes_on = goes_on;
	__atomic_store_n(&ends->head, ends->head + 1, __ATOMIC_RELEASE);
}

static inline void ended(struct flow_table *t, uint32_t i, enum flow_end_why why, bool goes_on)
{
	struct flow_ends *ends = INSTRUMENTS ? rcu_read(t->ends) : NULL;

	if (unlikely(ends))
		note_end(t, ends, i, why, goes_on);
}

void flow_table_watch(struct flow_table *t, struct flow_ends *ends)
{
	rcu_publish(t->ends, ends);
}

bool flow_ends_waiting(const struct flow_ends *ends)
{
	return ends->tail != __atomic_load_n(&ends->head, __ATOMIC_ACQUIRE);
}

bool flow_ends_take(struct flow_ends *ends, struct flow_end *e)
{
	if (!flow_ends_waiting(ends))
		return false;
	*e = ends->ring[ends->tail & (FLOW_ENDS - 1)];
	__atomic_store_n(&ends->tail, ends->tail + 1, __ATOMIC_RELEASE);
	return true;
}

// `word`: why, for the probe.
static void remove_index(struct flow_table *t, uint32_t i, enum flow_end_why why, const char *word)
{
	struct flow_cold *c = &t->cold[i];

	if (PROBE_ON(flow_end))
		probe_end(t, i, word);
	bucket_take(t, &t->bucket[bucket_index(t, c->hash)], i);
	list_del(t, i);
	change_begin(c);
	credit_flow(t, i);
	c->in_use = 0;
	c->next = t->free;
	change_end(c);
	ended(t, i, why, false); // last: who has taken it from the ring doesn't meet the flow in the table any more
	t->free = i;
	__atomic_store_n(&t->n, t->n - 1, __ATOMIC_RELAXED);
}

void flow_table_remove(struct flow_table *t, struct flow *f)
{
	remove_index(t, flow_index(t, f), FLOW_END_FORCED, "replaced");
}

// How long no packet came, in milliseconds. Where the time stamp counters of processors differ a little, `now` may be before the last packet.
static inline uint32_t idle_for(const struct flow *f, uint32_t now_ms)
{
	int32_t ms = (int32_t)(now_ms - f->used_ms);

	return ms > 0 ? (uint32_t)ms : 0;
}

// Second chance over the port's own flows, oldest first. Returns whether one went.
static bool evict(struct flow_table *t, uint16_t port, uint32_t now_ms)
{
	for (int tries = 0; tries < EVICT_TRIES; tries++) {
		uint32_t i = t->port[port].first;

		if (i == NONE)
			return false;
		if (idle_for(&t->record[i].flow, now_ms) >= EVICT_IDLE_MS) {
			remove_index(t, i, FLOW_END_RESOURCES, "evicted");
			t->evictions++;
			return true;
		}
		list_del(t, i);
		list_add(t, i, port);
	}
	return false;
}

// The table is full, by ports that had larger shares before others came, and this port is within its own: the largest makes room.
static void evict_largest(struct flow_table *t)
{
	unsigned largest = 0;

	for (unsigned i = 1; i < MAX_PORTS; i++)
		if (t->port[i].n > t->port[largest].n)
			largest = i;
	if (t->port[largest].first == NONE)
		return;
	remove_index(t, t->port[largest].first, FLOW_END_RESOURCES, "evicted");
	t->evictions++;
}

struct flow *flow_table_insert(struct flow_table *t, const struct flow_key *key, unsigned len, uint64_t hash, uint32_t now_ms)
{
	uint16_t port = key->port;
	struct port_flows *l = &t->port[port];

	if (unlikely(l->n >= t->share && (t->share == t->limit || t->over >= t->common))) {
		if (!evict(t, port, now_ms)) {
			t->refusals++;
			return NULL;
		}
	} else if (unlikely(t->n >= t->limit)) {
		evict_largest(t);
	}
	uint32_t i;
	if (t->free != NONE) {
		i = t->free;
		t->free = t->cold[i].next;
	} else {
		i = t->high;
		if (i >= t->reserved_limit)
			return NULL;
		__atomic_store_n(&t->high, i + 1, __ATOMIC_RELEASE);
	}
	if (unlikely(t->n / SPLIT_LOAD >= t->n_buckets))
		split(t);
	if (unlikely(!bucket_put(t, &t->bucket[bucket_index(t, (uint32_t)hash)], tag_of(hash), i))) {
		t->cold[i].next = t->free;
		t->free = i;
		t->refusals++;
		return NULL;
	}
	struct flow_cold *c = &t->cold[i];
	struct record *r = &t->record[i];
	change_begin(c);
	memset(&r->flow, 0, sizeof r->flow);
	memset(&r->key, 0, sizeof r->key);
	memcpy(&r->key, key, len);
	memset((uint8_t *)c + sizeof c->version, 0, sizeof *c - sizeof c->version);
	c->hash = (uint32_t)hash;
	c->key_len = (uint8_t)len;
	c->in_use = 1;
	c->created_ms = now_ms;
	c->serial = (uint32_t)t->inserts + 1 ? (uint32_t)t->inserts + 1 : 1;
	r->flow.used_ms = r->flow.refreshed_ms = now_ms;
	r->flow.aux = NONE;
	list_add(t, i, port);
	change_end(c);
	__atomic_store_n(&t->n, t->n + 1, __ATOMIC_RELAXED);
	t->inserts++;
	PROBE(flow_new, lport_name(port), t->n);
	return &r->flow;
}

void flow_table_sweep(struct flow_table *t, uint32_t now_ms)
{
	uint32_t todo = t->high / 1024 + 1;

	while (todo--) {
		if (t->hand >= t->high)
			t->hand = 0;
		if (t->hand >= t->high)
			return;
		uint32_t i = t->hand++;
		if (t->cold[i].in_use && idle_for(&t->record[i].flow, now_ms) >= t->idle_ms) {
			remove_index(t, i, FLOW_END_IDLE, "idle");
			t->expiries++;
		}
	}
}

void flow_table_drop_port(struct flow_table *t, uint16_t port)
{
	while (t->port[port].first != NONE)
		remove_index(t, t->port[port].first, FLOW_END_FORCED, "port");
}

// Whether the packets have the same fate. Flags say how it was come by.
static bool same_outcome(const struct flow *a, const struct flow *b)
{
	return a->out_kind == b->out_kind && a->out == b->out && a->vlan_op == b->vlan_op && a->vlan_tci == b->vlan_tci && a->qinq == b->qinq && a->network == b->network &&
	       a->rule == b->rule && a->actions == b->actions;
}

void flow_decide(struct flow_table *t, struct flow *record, const struct flow *decision, const struct flow_cold *from)
{
	struct flow_cold *c = flow_cold(t, record);
	struct flow old = *record;

	if (!same_outcome(&old, decision))
		ended(t, flow_index(t, record), FLOW_END_FORCED, true);
	change_begin(c);
	credit_flow(t, flow_index(t, record));
	c->credited_packets = old.packets;
	c->credited_bytes = old.bytes;
	*record = *decision;
	record->packets = old.packets;
	record->bytes = old.bytes;
	record->used_ms = old.used_ms;
	record->refreshed_ms = old.refreshed_ms;
	memcpy(c->dep_gen, from->dep_gen, sizeof c->dep_gen);
	memcpy(c->dep_slot, from->dep_slot, sizeof c->dep_slot);
	memcpy(c->prov_stage, from->prov_stage, sizeof c->prov_stage);
	memcpy(c->prov_row, from->prov_row, sizeof c->prov_row);
	c->n_deps = from->n_deps;
	c->n_prov = from->n_prov;
	c->class_row = from->class_row;
	change_end(c);
}

struct flow_cold *flow_cold(struct flow_table *t, const struct flow *f)
{
	return &t->cold[flow_index(t, f)];
}

const struct flow_key *flow_key(struct flow_table *t, const struct flow *f)
{
	return &t->record[flow_index(t, f)].key;
}

uint32_t flow_index(struct flow_table *t, const struct flow *f)
{
	return (uint32_t)((const struct record *)(const void *)f - t->record);
}

void flow_table_stats(const struct flow_table *t, struct flow_table_stats *s)
{
	*s = (struct flow_table_stats){
		.flows = __atomic_load_n(&t->n, __ATOMIC_RELAXED),
		.limit = t->limit,
		.buckets = t->n_buckets,
		.inserts = t->inserts,
		.evictions = t->evictions,
		.expiries = t->expiries,
		.refusals = t->refusals,
	};
}

uint32_t flow_table_port_flows(const struct flow_table *t, uint16_t port)
{
	return __atomic_load_n(&t->port[port].n, __ATOMIC_RELAXED);
}

uint32_t flow_table_high(const struct flow_table *t)
{
	return __atomic_load_n(&t->high, __ATOMIC_ACQUIRE);
}

uint16_t flow_table_port(const struct flow_table *t, uint32_t i)
{
	return __atomic_load_n(&t->record[i].key.port, __ATOMIC_RELAXED);
}

bool flow_table_read(const struct flow_table *t, uint32_t i, struct flow_view *v)
{
	if (i >= flow_table_high(t))
		return false;
	for (int tries = 0; tries < 1000; tries++) {
		uint32_t before = __atomic_load_n(&t->cold[i].version, __ATOMIC_ACQUIRE);

		if (before & 1)
			continue;
		v->flow = t->record[i].flow;
		v->key = t->record[i].key;
		v->cold = t->cold[i];
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (__atomic_load_n(&t->cold[i].version, __ATOMIC_RELAXED) == before)
			return v->cold.in_use;
	}
	return false;
}

static bool may_be_of(const struct flow_key *k, const struct flow_key *value, const struct flow_key *mask)
{
	const struct profile *pr = profile_get(k->profile);
	const key_word *a = (const key_word *)(const void *)k, *b = (const key_word *)(const void *)value, *m = (const key_word *)(const void *)mask,
		       *p = (const key_word *)(const void *)&pr->mask;

	for (unsigned i = 0; i < key_len(pr, k->ethertype) / 8; i++)
		if ((a[i] ^ b[i]) & m[i] & p[i])
			return false;
	return true;
}

bool flow_table_match(const struct flow_table *t, const struct flow_key *value, const struct flow_key *mask, uint32_t *index, struct flow_view *v)
{
	for (uint32_t high = flow_table_high(t); *index < high;) {
		uint32_t i = (*index)++;

		// A look at what may be changing just now keeps most of them from being read with care.
		if (may_be_of(&t->record[i].key, value, mask) && flow_table_read(t, i, v) && may_be_of(&v->key, value, mask))
			return true;
	}
	return false;
}
