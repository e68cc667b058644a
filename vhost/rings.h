// rings: the places in a port's packed rings, kept where they survive the process.
//
// A split ring has the device's place in guest memory (the used index). A packed ring has not: virtio 1.2 section 2.8 leaves
// index and wrap counter to each side's own memory, and a front-end whose back-end has died gives the place at which its driver
// started. So a worker writes the place into a file that it has mapped, before and after each burst. A burst can be cut at any
// instruction. Therefore what it is about to take is written down first: how long each chain is and what its descriptors said
// before the library wrote over them. With that the descriptors' flags tell how far the burst came.
//
// The file is a port's own, in the run directory, and stays when the process ends. Versioned: another layout starts afresh.
#ifndef VHOST_RINGS_H
#define VHOST_RINGS_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vring_packed_desc;

#define RINGS_CHAINS 512 // of one burst at most; one packet takes at most 256 descriptors (BUF_VECTOR_MAX of the library)

// A place in a ring: index, and the wrap counter in bit 15, as in the event suppression structure (section 2.8.14).
typedef uint16_t ring_place;

// One buffer, as the driver made it available.
struct ring_chain {
	uint32_t len;   // of its first descriptor
	uint16_t id;    // of its last one
	uint16_t count : 15; // descriptors
	uint16_t shared : 1; // the packet goes on in the next buffer
};
static_assert(sizeof(struct ring_chain) == 8, "part of the file's layout");

enum ring_state {
	RING_UNKNOWN,
	RING_REST,  // the device is at `place`
	RING_BURST, // it was there when it began with `chains`
};

struct ring_record {
	uint64_t word;                // place, head, chains, state; one store publishes them together: ring_word()
	uint64_t device, file, where; // which ring: the file of the memory and the offset of the descriptors in it
	uint16_t size;
	bool in_order;
	struct ring_chain chain[RINGS_CHAINS];
};

// `head` is the place of the last buffer that was used, as its first descriptor can't be available any more: that tells a ring
// that a driver has filled since it was reset. With VIRTIO_F_IN_ORDER it is the first one of the last burst, the only one that the
// device writes. It is `place` itself if nothing has been used.
static inline uint64_t ring_word(enum ring_state state, ring_place place, ring_place head, uint16_t chains)
{
	return (uint64_t)state << 48 | (uint64_t)chains << 32 | (uint32_t)head << 16 | place;
}

static inline ring_place ring_advance(ring_place at, uint16_t by, uint16_t size)
{
	uint32_t index = (at & 0x7fffU) + by, wrap = at & 0x8000U;

	if (index >= size) {
		index -= size;
		wrap ^= 0x8000U;
	}
	return (ring_place)(index | wrap);
}

// ring_walk.c: what the descriptors say; no library, no locks.

// Writes down the chains that are available from `at` on and returns how many; *packets is how many packets they serve: one each,
// up to n, or with `need` as many chains for each of n packets as hold its need[i] bytes. No more than RINGS_CHAINS.
unsigned int ring_scan(const struct vring_packed_desc *, uint16_t size, ring_place at, struct ring_chain *, const uint32_t *need,
		       unsigned int n, unsigned int *packets);
// Whether a device may be at `at`: what follows is available up to the driver's place and from there on older than that. `head`
// as in the record. `marked`: each used buffer bears a mark, as all do but those of a transmit ring in order.
bool ring_fits(const struct vring_packed_desc *, uint16_t size, ring_place at, ring_place head, bool marked);
// The place of the last buffer used by a burst that went from the record's place to `end`.
ring_place ring_head(const struct ring_record *, bool receive, ring_place end);
// Where the device was when its process ended, and `head`. Finishes what a burst left half written, so
// that the driver goes on too. `receive`: the guest's receive ring. 0, or -EINVAL: it can't be told from this record.
int ring_resume(struct vring_packed_desc *, const struct ring_record *, bool receive, ring_place *at, ring_place *head);
// Without a record: 0, or -EINVAL if the descriptors leave more than one answer. Not for VIRTIO_F_IN_ORDER.
int ring_find(const struct vring_packed_desc *, uint16_t size, ring_place *at);

#endif
