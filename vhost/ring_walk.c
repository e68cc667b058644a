// ring_walk: what the descriptors of a packed ring say of the places of driver and device (virtio 1.2 section 2.8).
//
// A descriptor is available in a lap if its flag AVAIL is the lap's wrap counter and USED is not, and used if both are. The driver
// writes every descriptor of a chain, the device only the first one when it is done with the chain: the others look available
// until the driver comes round again. That is why flags alone don't tell where the device is.
#include <errno.h>
#include <linux/virtio_ring.h>
#include <rte_atomic.h>
#include <rte_common.h>

#include "rings.h"

#define AVAIL (1U << VRING_PACKED_DESC_F_AVAIL)
#define USED (1U << VRING_PACKED_DESC_F_USED)
#define TRIES 8 // a driver that adds descriptors meanwhile makes a walk look wrong

static inline uint16_t flags_at(const struct vring_packed_desc *ring, ring_place at)
{
	return __atomic_load_n(&ring[at & 0x7fff].flags, __ATOMIC_ACQUIRE);
}

static inline bool posted(uint16_t flags, ring_place at)
{
	return !(flags & AVAIL) == !(at & 0x8000);
}

static inline bool available(uint16_t flags, ring_place at)
{
	return posted(flags, at) && !(flags & USED) != !(at & 0x8000);
}

// Reads one chain, of at most `left` descriptors; *bytes is what it holds.
static inline uint16_t read_chain(const struct vring_packed_desc *ring, uint16_t size, ring_place at, uint16_t left,
				  struct ring_chain *c, uint64_t *bytes)
{
	uint16_t count = 0, flags;

	c->len = ring[at & 0x7fff].len;
	*bytes = 0;
	do {
		const struct vring_packed_desc *d = &ring[at & 0x7fff];

		flags = __atomic_load_n(&d->flags, __ATOMIC_RELAXED);
		*bytes += d->len;
		c->id = d->id;
		at = ring_advance(at, 1, size);
	} while (++count < RTE_MIN(left, 0x7fff) && flags & VRING_DESC_F_NEXT);
	c->count = count;
	return count;
}

unsigned int ring_scan(const struct vring_packed_desc *ring, uint16_t size, ring_place at, struct ring_chain *chain,
		       const uint32_t *need, unsigned int n, unsigned int *packets)
{
	unsigned int found = 0, served = 0, kept = 0;
	uint16_t left = size, count;
	uint64_t bytes, have = 0;

	while (served < n && left && found < RINGS_CHAINS && available(flags_at(ring, at), at)) {
		count = read_chain(ring, size, at, left, &chain[found++], &bytes);
		at = ring_advance(at, count, size);
		left -= count;
		have += bytes;
		chain[found - 1].shared = need && have < need[served];
		if (!chain[found - 1].shared) {
			served++;
			kept = found;
			have = 0;
		}
	}
	*packets = served;
	return kept;
}

static bool fits_once(const struct vring_packed_desc *ring, uint16_t size, ring_place at, bool marked)
{
	bool rest = true; // this may be the rest of a chain whose beginning was used
	uint16_t left = size, flags;

	for (; left && available(flags_at(ring, at), at); left--)
		at = ring_advance(at, 1, size);
	for (; left; left--) {
		flags = flags_at(ring, at);
		if (posted(flags, at))
			return false;
		// Of the lap before, all of which has been used: what looks available is the rest of a chain, and has one end.
		if (marked && available(flags, at ^ 0x8000)) {
			if (!rest)
				return false;
			rest = flags & VRING_DESC_F_NEXT;
		} else {
			rest = true;
		}
		at = ring_advance(at, 1, size);
	}
	return true;
}

bool ring_fits(const struct vring_packed_desc *ring, uint16_t size, ring_place at, ring_place head, bool marked)
{
	if ((at & 0x7fff) >= size || (head & 0x7fff) >= size)
		return false;
	if (head != at && available(flags_at(ring, head), head))
		return false;
	for (unsigned int i = 0; i < TRIES; i++) {
		if (fits_once(ring, size, at, marked))
			return true;
	}
	return false;
}

// Writes what the library would have written next: the chain at `at` is used.
static void finish(struct vring_packed_desc *ring, ring_place at, uint16_t id, bool receive)
{
	struct vring_packed_desc *d = &ring[at & 0x7fff];
	uint16_t flags = at & 0x8000 ? AVAIL | USED : 0;

	if (receive && d->len)
		flags |= VRING_DESC_F_WRITE;
	if (!receive)
		d->len = 0;
	d->id = id;
	__atomic_store_n(&d->flags, flags, __ATOMIC_RELEASE);
}

// How many chains of the burst were used. The library writes the flags of a burst's first descriptor last, and of any others
// before, so all up to the last one that was written are done.
static unsigned int chains_used(const struct vring_packed_desc *ring, const struct ring_record *r, ring_place at, unsigned int n,
				bool receive)
{
	unsigned int used = 0;

	// In order, one descriptor stands for all up to the one whose id it bears (section 2.8.4).
	if (r->in_order && !receive) {
		if (available(flags_at(ring, at), at))
			return 0;
		for (unsigned int i = 0; i < n && posted(flags_at(ring, at), at); i++) {
			if (r->chain[i].id == ring[at & 0x7fff].id)
				return i + 1;
		}
		return n;
	}
	for (unsigned int i = 0; i < n; i++) {
		if (!available(flags_at(ring, at), at))
			used = i + 1;
		at = ring_advance(at, r->chain[i].count, r->size);
	}
	return used;
}

ring_place ring_head(const struct ring_record *r, bool receive, ring_place end)
{
	const unsigned int n = RTE_MIN(r->word >> 32 & 0xffff, (uint64_t)RINGS_CHAINS);
	const ring_place began = (ring_place)r->word;
	ring_place at = began, next;

	if (end == began)
		return (ring_place)(r->word >> 16);
	for (unsigned int i = 0; i < n && (!r->in_order || receive); i++) {
		next = ring_advance(at, r->chain[i].count, r->size);
		if (next == end)
			return at;
		at = next;
	}
	return began;
}

// Whether the chains that are still available are the ones of the record, before anything is written to them: a guest that was reset
// has others there.
static bool same_chains(const struct vring_packed_desc *ring, const struct ring_record *r, ring_place at, unsigned int n, bool receive)
{
	for (unsigned int i = 0; i < n; i++) {
		const struct ring_chain *c = &r->chain[i];

		if (!c->count || c->count > r->size)
			return false;
		// In order the library writes the id of a burst's end into its beginning.
		bool other_id = r->in_order && !receive && !i && c->count == 1;
		if (available(flags_at(ring, at), at) && !other_id &&
		    ring[ring_advance(at, c->count - 1, r->size) & 0x7fff].id != c->id)
			return false;
		at = ring_advance(at, c->count, r->size);
	}
	return true;
}

int ring_resume(struct vring_packed_desc *ring, const struct ring_record *r, bool receive, ring_place *place, ring_place *head)
{
	const uint64_t word = r->word;
	const enum ring_state state = word >> 48;
	unsigned int n = word >> 32 & 0xffff, used;
	ring_place at = (ring_place)word;

	*place = at;
	*head = (ring_place)(word >> 16);
	if (state == RING_REST)
		return 0;
	if (state != RING_BURST || n > RINGS_CHAINS || (at & 0x7fff) >= r->size || !same_chains(ring, r, at, n, receive))
		return -EINVAL;
	used = chains_used(ring, r, at, n, receive);
	// A packet that was given in part is given in whole: all of it was in place before the first flag.
	while (used && used < n && r->chain[used - 1].shared)
		used++;
	for (unsigned int i = 0; i < n; i++) {
		const struct ring_chain *c = &r->chain[i];

		if (available(flags_at(ring, at), at)) {
			if (i >= used) {
				// Length and id are written before the flags.
				ring[at & 0x7fff].len = c->len;
				ring[ring_advance(at, c->count - 1, r->size) & 0x7fff].id = c->id;
			} else if (!r->in_order || receive) {
				finish(ring, at, c->id, receive);
			}
		}
		at = ring_advance(at, c->count, r->size);
		if (i + 1 == used)
			*place = at;
	}
	*head = ring_head(r, receive, *place);
	return 0;
}

// Where the driver will write next.
static bool find_driver(const struct vring_packed_desc *ring, uint16_t size, ring_place *at)
{
	const uint16_t lap = flags_at(ring, 0) & AVAIL;
	uint16_t i = 0, edge;

	while (i < size && (flags_at(ring, i) & AVAIL) == lap)
		i++;
	edge = i;
	while (i < size && (flags_at(ring, i) & AVAIL) != lap)
		i++;
	*at = edge == size ? (lap ? 0 : 0x8000) : (ring_place)(edge | (lap ? 0x8000 : 0));
	return i == size;
}

static ring_place one_back(ring_place at, uint16_t size)
{
	return at & 0x7fff ? (ring_place)(at - 1) : (ring_place)((size - 1) | (~at & 0x8000));
}

int ring_find(const struct vring_packed_desc *ring, uint16_t size, ring_place *place)
{
	ring_place driver, at, before, last;
	uint16_t left = size;

	for (unsigned int i = 0; !find_driver(ring, size, &driver); i++) {
		if (i == TRIES)
			return -EINVAL;
	}
	at = driver;
	for (before = one_back(at, size); left && available(flags_at(ring, before), before); left--) {
		at = before;
		before = one_back(at, size);
	}
	*place = at;
	if (at == driver)
		return 0;
	if (!left) // a full ring: of a driver that has just started, or made of the rests of chains
		return -EINVAL;
	// The first of these may be the rest of the chain that begins at `before`. Then the last descriptor of that rest bears
	// the chain's id, which the device has written at `before`.
	last = at;
	while (flags_at(ring, last) & VRING_DESC_F_NEXT && last != driver)
		last = ring_advance(last, 1, size);
	if (last == driver || ring[last & 0x7fff].id == ring[before & 0x7fff].id)
		return -EINVAL;
	return 0;
}
