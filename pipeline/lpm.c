// lpm: see lpm.h.
#include "lpm.h"
#include "rcu.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <rte_branch_prediction.h>

#define STRIDE 6
#define DEPTH_MAX 22 // nodes on a path of 128 bits

// What a node has a place for, in this order.
enum kind {
	CHILD, // bit: the six bits that lead to it
	LEAF,  // prefixes that end with the six bits
	INNER, // prefixes of fewer bits, by place in a heap: 1 << bits | value. Place 1, no bits at all, is the root's only
};

// Immutable but for the places, which are replaced with a single store.
struct lpm_node {
	uint64_t map[3];
	void *place[];
};

struct address {
	uint64_t hi, lo;
};

static inline struct address address_of(bool v6, const uint8_t *ip)
{
	struct address a = {0};

	if (v6) {
		memcpy(&a, ip, 16);
		return (struct address){__builtin_bswap64(a.hi), __builtin_bswap64(a.lo)};
	}
	uint32_t v4;
	memcpy(&v4, ip, 4);
	a.hi = (uint64_t)__builtin_bswap32(v4) << 32;
	return a;
}

static inline unsigned take(struct address *a)
{
	unsigned index = (unsigned)(a->hi >> (64 - STRIDE));

	a->hi = a->hi << STRIDE | a->lo >> (64 - STRIDE);
	a->lo <<= STRIDE;
	return index;
}

static inline unsigned count(uint64_t map)
{
	return (unsigned)__builtin_popcountll(map);
}

static inline unsigned rank(const struct lpm_node *n, enum kind kind, unsigned bit)
{
	unsigned at = count(n->map[kind] & ((1ULL << bit) - 1));

	for (enum kind k = CHILD; k < kind; k++)
		at += count(n->map[k]);
	return at;
}

static inline bool has(const struct lpm_node *n, enum kind kind, unsigned bit)
{
	return n->map[kind] >> bit & 1;
}

static inline unsigned places(const struct lpm_node *n)
{
	return count(n->map[CHILD]) + count(n->map[LEAF]) + count(n->map[INNER]);
}

// ---- readers

// The heap places of the prefixes that six bits are in: of none to five bits.
#define ABOVE(i)                                                                                                               \
	(1ULL << 1 | 1ULL << (2 | (i) >> 5) | 1ULL << (4 | (i) >> 4) | 1ULL << (8 | (i) >> 3) | 1ULL << (16 | (i) >> 2) |      \
	 1ULL << (32 | (i) >> 1))
#define ABOVE8(i) ABOVE(i), ABOVE(i + 1), ABOVE(i + 2), ABOVE(i + 3), ABOVE(i + 4), ABOVE(i + 5), ABOVE(i + 6), ABOVE(i + 7)
static const uint64_t above[1 << STRIDE] = {ABOVE8(0),  ABOVE8(8),  ABOVE8(16), ABOVE8(24),
					    ABOVE8(32), ABOVE8(40), ABOVE8(48), ABOVE8(56)};

void *lpm_find(const struct lpm *t, bool v6, const uint8_t *ip, uint8_t max, uint8_t *len)
{
	const struct lpm_node *n = rcu_read(t->root), *found = NULL;
	struct address a = address_of(v6, ip);
	unsigned found_bit = 0, found_len = 0;
	enum kind found_kind = LEAF;

	for (unsigned depth = 0; n; depth += STRIDE) {
		unsigned index = take(&a);
		bool short_of = unlikely(max - depth < STRIDE);

		if (has(n, LEAF, index) && !short_of) {
			found = n;
			found_kind = LEAF;
			found_bit = index;
			found_len = depth + STRIDE;
		} else if (n->map[INNER]) {
			uint64_t match = n->map[INNER] & above[index];

			if (short_of)
				match &= (2ULL << ((2U << (max - depth)) - 1)) - 1; // places of up to so many bits
			if (match) {
				found = n;
				found_kind = INNER;
				found_bit = 63 - (unsigned)__builtin_clzll(match);
				found_len = depth + 31 - (unsigned)__builtin_clz(found_bit);
			}
		}
		if (!has(n, CHILD, index) || max - depth <= STRIDE)
			break;
		n = rcu_read(n->place[rank(n, CHILD, index)]);
	}
	if (!found)
		return NULL;
	void *value = rcu_read(found->place[rank(found, found_kind, found_bit)]);
	*len = (uint8_t)found_len;
	if (unlikely(!value)) // an empty place
		return found_len ? lpm_find(t, v6, ip, (uint8_t)(found_len - 1), len) : NULL;
	return value;
}

// ---- memory

#define BATCH 510

struct batch {
	unsigned n;
	void *p[BATCH];
};

static struct batch *batch;

static void free_batch(void *arg)
{
	struct batch *b = arg;

	for (unsigned i = 0; i < b->n; i++)
		free(b->p[i]);
	free(b);
}

void lpm_flush(void)
{
	struct batch *b = batch;

	batch = NULL;
	if (b)
		rcu_defer(free_batch, b);
}

void lpm_retire(void *p)
{
	if (!p)
		return;
	if (!batch && !(batch = calloc(1, sizeof *batch))) {
		rcu_free_later(p);
		return;
	}
	batch->p[batch->n++] = p;
	if (batch->n == BATCH)
		lpm_flush();
}

static size_t size_of(const struct lpm_node *n)
{
	return sizeof *n + places(n) * sizeof(void *);
}

static struct lpm_node *node_new(struct lpm *t, const uint64_t map[3])
{
	unsigned n = count(map[CHILD]) + count(map[LEAF]) + count(map[INNER]);
	struct lpm_node *node = malloc(sizeof *node + n * sizeof(void *));

	if (!node)
		return NULL;
	memcpy(node->map, map, sizeof node->map);
	t->nodes++;
	t->bytes += size_of(node);
	return node;
}

static void forget(struct lpm *t, const struct lpm_node *n)
{
	t->nodes--;
	t->bytes -= size_of(n);
}

// A copy of the node, which may be NULL, with one more place.
static struct lpm_node *copy_with(struct lpm *t, const struct lpm_node *old, enum kind kind, unsigned bit, void *value)
{
	uint64_t map[3] = {0};

	if (old)
		memcpy(map, old->map, sizeof map);
	map[kind] |= 1ULL << bit;
	struct lpm_node *n = node_new(t, map);
	if (!n)
		return NULL;
	unsigned at = rank(n, kind, bit), all = places(n);
	if (old) {
		memcpy(n->place, old->place, at * sizeof(void *));
		memcpy(&n->place[at + 1], &old->place[at], (all - at - 1) * sizeof(void *));
	}
	n->place[at] = value;
	return n;
}

static struct lpm_node *copy_without(struct lpm *t, const struct lpm_node *old, enum kind kind, unsigned bit)
{
	uint64_t map[3] = {old->map[0], old->map[1], old->map[2]};

	map[kind] &= ~(1ULL << bit);
	struct lpm_node *n = node_new(t, map);
	if (!n)
		return NULL;
	unsigned at = rank(old, kind, bit), all = places(n);
	memcpy(n->place, old->place, at * sizeof(void *));
	memcpy(&n->place[at], &old->place[at + 1], (all - at) * sizeof(void *));
	return n;
}

static void publish(struct lpm *t, void **at, struct lpm_node *n, struct lpm_node *old)
{
	rcu_publish(*at, (void *)n);
	if (!old)
		return;
	forget(t, old);
	lpm_retire(old);
}

// ---- changes

// Where a prefix is: in the node that the first `above` full strides lead to.
struct spot {
	unsigned above;
	unsigned index[DEPTH_MAX]; // the way there
	enum kind kind;
	unsigned bit;
};

static struct spot spot_of(bool v6, const uint8_t *ip, uint8_t len)
{
	struct address a = address_of(v6, ip);
	struct spot s = {.above = len ? (len - 1U) / STRIDE : 0};
	unsigned rest = len - s.above * STRIDE;

	for (unsigned i = 0; i < s.above; i++)
		s.index[i] = take(&a);
	unsigned last = take(&a);
	s.kind = rest == STRIDE ? LEAF : INNER;
	s.bit = rest == STRIDE ? last : 1U << rest | last >> (STRIDE - rest);
	return s;
}

// The place where the pointer to the node of depth `above` is, as deep as there are nodes; *depth says how deep that is. way[]:
// the places before it.
static void **descend(const struct lpm *t, const struct spot *s, unsigned *depth, void **way[DEPTH_MAX])
{
	void **at = (void **)(uintptr_t)&t->root;
	unsigned d = 0;

	for (;; d++) {
		struct lpm_node *n = *at;

		way[d] = at;
		if (!n || d == s->above || !has(n, CHILD, s->index[d]))
			break;
		at = &n->place[rank(n, CHILD, s->index[d])];
	}
	*depth = d;
	return at;
}

// The place of the value, NULL if the prefix isn't there.
static void **place_of(const struct lpm *t, const struct spot *s)
{
	void **way[DEPTH_MAX];
	unsigned depth;
	struct lpm_node *n = *descend(t, s, &depth, way);

	return n && depth == s->above && has(n, s->kind, s->bit) ? &n->place[rank(n, s->kind, s->bit)] : NULL;
}

void *lpm_get(const struct lpm *t, bool v6, const uint8_t *ip, uint8_t len)
{
	struct spot s = spot_of(v6, ip, len);
	void **place = place_of(t, &s);

	return place ? *place : NULL;
}

// Nodes that nobody has seen, one below the other.
static void chain_free(struct lpm *t, struct lpm_node *n)
{
	while (n) {
		struct lpm_node *down = n->map[CHILD] ? n->place[0] : NULL;

		forget(t, n);
		free(n);
		n = down;
	}
}

// The nodes from depth `from` + 1 down to the value, none of which anybody knows yet.
static struct lpm_node *chain(struct lpm *t, const struct spot *s, unsigned from, void *value)
{
	struct lpm_node *n = copy_with(t, NULL, s->kind, s->bit, value);

	for (unsigned d = s->above; n && d-- > from + 1;) {
		struct lpm_node *up = copy_with(t, NULL, CHILD, s->index[d], n);

		if (!up)
			chain_free(t, n);
		n = up;
	}
	return n;
}

int lpm_set(struct lpm *t, bool v6, const uint8_t *ip, uint8_t len, void *value, void **old)
{
	struct spot s = spot_of(v6, ip, len);
	void **way[DEPTH_MAX];
	unsigned depth;
	void **at = descend(t, &s, &depth, way);
	struct lpm_node *n = *at, *new;

	*old = NULL;
	if (n && depth == s.above && has(n, s.kind, s.bit)) {
		void **place = &n->place[rank(n, s.kind, s.bit)];

		*old = *place;
		rcu_publish(*place, value);
		t->prefixes += !*old;
		return 0;
	}
	if (depth == s.above) {
		new = copy_with(t, n, s.kind, s.bit, value);
	} else {
		struct lpm_node *child = chain(t, &s, depth, value);

		new = child ? copy_with(t, n, CHILD, s.index[depth], child) : NULL;
		if (!new)
			chain_free(t, child);
	}
	if (!new)
		return -ENOMEM;
	publish(t, at, new, n);
	t->prefixes++;
	return 0;
}

void *lpm_remove(struct lpm *t, bool v6, const uint8_t *ip, uint8_t len)
{
	struct spot s = spot_of(v6, ip, len);
	void **way[DEPTH_MAX];
	unsigned depth;
	struct lpm_node *n = *descend(t, &s, &depth, way);

	if (!n || depth != s.above || !has(n, s.kind, s.bit))
		return NULL;
	void **place = &n->place[rank(n, s.kind, s.bit)];
	void *value = *place;
	if (!value)
		return NULL;
	t->prefixes--;
	// The highest node that has something else stays, without what led here. What is below it goes with it.
	enum kind kind = s.kind;
	unsigned bit = s.bit, top = depth;
	while (places(*way[top]) == 1 && top) {
		top--;
		kind = CHILD;
		bit = s.index[top];
	}
	struct lpm_node *old = *way[top];
	struct lpm_node *new = places(old) == 1 ? NULL : copy_without(t, old, kind, bit);
	if (!new &&places(old) > 1) {
		rcu_publish(*place, NULL);
		return value;
	}
	struct lpm_node *below[DEPTH_MAX];
	for (unsigned d = top + 1; d <= depth; d++)
		below[d] = *way[d];
	publish(t, way[top], new, old);
	for (unsigned d = top + 1; d <= depth; d++) {
		forget(t, below[d]);
		lpm_retire(below[d]);
	}
	return value;
}

bool lpm_free_some(struct lpm *t, unsigned budget, void (*gone)(void *value))
{
	while (t->root && budget--) {
		void **at = (void **)&t->root;
		struct lpm_node *n = *at, *up = NULL;

		// Down the first children, whose places come first.
		while (n->map[CHILD]) {
			up = n;
			at = &n->place[0];
			n = *at;
		}
		for (unsigned i = 0; gone && i < places(n); i++)
			if (n->place[i])
				gone(n->place[i]);
		forget(t, n);
		free(n);
		if (!up) {
			t->root = NULL;
			break;
		}
		t->bytes -= sizeof(void *);
		up->map[CHILD] &= up->map[CHILD] - 1;
		memmove(up->place, up->place + 1, places(up) * sizeof(void *));
	}
	if (!t->root)
		*t = (struct lpm){0};
	return t->root;
}

// ---- in order

struct walk {
	struct lpm_at after;
	struct address from; // of `after`
	bool v6;
	lpm_visit_fn *fn;
	void *arg;
};

static void set_bits(uint8_t ip[16], unsigned depth, unsigned index)
{
	for (unsigned i = 0; i < STRIDE && depth + i < 128; i++) {
		uint8_t bit = (uint8_t)(0x80 >> (depth + i) % 8);

		if (index >> (STRIDE - 1 - i) & 1)
			ip[(depth + i) / 8] |= bit;
		else
			ip[(depth + i) / 8] &= (uint8_t)~bit;
	}
}

// The six-bit values at which something of the node begins.
static uint64_t beginnings(const struct lpm_node *n)
{
	uint64_t at = n->map[CHILD] | n->map[LEAF];

	for (uint64_t inner = n->map[INNER]; inner; inner &= inner - 1) {
		unsigned bit = (unsigned)__builtin_ctzll(inner), bits = 31 - (unsigned)__builtin_clz(bit);

		at |= 1ULL << ((bit - (1U << bits)) << (STRIDE - bits));
	}
	return at;
}

// What begins at `index`. `edge`: all bits before are those of `after`, so some of it may be behind us.
static bool visit(struct walk *w, const struct lpm_node *n, unsigned depth, unsigned index, uint8_t ip[16], bool edge)
{
	struct lpm_at at = {.begun = true};

	for (unsigned bits = depth ? 1 : 0; bits <= STRIDE; bits++) {
		enum kind kind = bits == STRIDE ? LEAF : INNER;
		unsigned bit = bits == STRIDE ? index : 1U << bits | index >> (STRIDE - bits);

		if (bits < STRIDE && index & ((1U << (STRIDE - bits)) - 1))
			continue;
		if (!has(n, kind, bit))
			continue;
		memcpy(at.ip, ip, 16);
		at.len = (uint8_t)(depth + bits);
		int order = edge ? memcmp(at.ip, w->after.ip, w->v6 ? 16 : 4) : 1;
		if (order < 0 || (order == 0 && at.len <= w->after.len))
			continue;
		void *value = n->place[rank(n, kind, bit)];
		if (value && !w->fn(w->arg, &at, value))
			return true;
	}
	return false;
}

static bool walk(struct walk *w, const struct lpm_node *n, unsigned depth, uint8_t ip[16], bool edge, struct address from)
{
	unsigned first = edge ? take(&from) : 0;

	for (uint64_t todo = beginnings(n) & ~((1ULL << first) - 1); todo; todo &= todo - 1) {
		unsigned index = (unsigned)__builtin_ctzll(todo);
		bool on_edge = edge && index == first;

		set_bits(ip, depth, index);
		if (visit(w, n, depth, index, ip, on_edge))
			return true;
		if (has(n, CHILD, index) && walk(w, n->place[rank(n, CHILD, index)], depth + STRIDE, ip, on_edge, from))
			return true;
	}
	set_bits(ip, depth, 0);
	return false;
}

bool lpm_walk(const struct lpm *t, bool v6, const struct lpm_at *after, lpm_visit_fn *fn, void *arg)
{
	struct walk w = {.after = *after, .v6 = v6, .fn = fn, .arg = arg};
	uint8_t ip[16] = {0};

	if (!t->root)
		return false;
	if (after->begun)
		w.from = address_of(v6, after->ip);
	return walk(&w, t->root, 0, ip, after->begun, w.from);
}
