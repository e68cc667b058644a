// Packed rings, cut off: a driver and a device that writes as the vhost library does, stopped before any of its stores, and resumed.
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <linux/virtio_ring.h>

#include <cmocka.h>

#include "rings.h"

#define AVAIL (1U << VRING_PACKED_DESC_F_AVAIL)
#define USED (1U << VRING_PACKED_DESC_F_USED)
#define SIZE_MAX_RING 64
#define ROUNDS 4000

enum mode {
	TRANSMIT,  // the guest's transmit ring, each chain marked
	IN_ORDER,  // one entry for a burst
	RECEIVE,   // packets over several buffers
};

struct driver {
	struct vring_packed_desc ring[SIZE_MAX_RING];
	ring_place next, taken;
	uint16_t size, busy;
	unsigned int chain_max;
	uint16_t count[SIZE_MAX_RING]; // descriptors of buffer id, 0: free
	uint16_t free_id[SIZE_MAX_RING], free_n;
	uint16_t order[SIZE_MAX_RING], order_n; // ids that the device has, oldest first
	uint64_t back;
};

static struct driver d;
static struct ring_record record;
static enum mode mode;
static int stores; // before the device is cut; < 0: never
static jmp_buf cut;
static bool finished; // the burst that was cut had been done
static ring_place device; // the library's own memory, which is lost

static void store(void)
{
	if (stores >= 0 && stores-- == 0)
		longjmp(cut, 1);
}

static void driver_start(uint16_t size, unsigned int chain_max)
{
	memset(&d, 0, sizeof(d));
	d.size = size;
	d.chain_max = chain_max;
	d.next = d.taken = 0x8000;
	for (uint16_t i = 0; i < size; i++)
		d.free_id[d.free_n++] = size - 1 - i;
	device = 0x8000;
}

static void driver_post(void)
{
	while (d.size - d.busy >= (int)d.chain_max && rand() % 8) {
		uint16_t id = d.free_id[--d.free_n], count = 1 + rand() % d.chain_max;

		for (uint16_t i = 0; i < count; i++) {
			struct vring_packed_desc *v = &d.ring[d.next & 0x7fff];

			v->id = id;
			v->len = 100 + id;
			v->flags = (i + 1 < count ? VRING_DESC_F_NEXT : 0) | (d.next & 0x8000 ? AVAIL : USED) |
				   (mode == RECEIVE ? VRING_DESC_F_WRITE : 0);
			d.next = ring_advance(d.next, 1, d.size);
		}
		d.count[id] = count;
		d.busy += count;
		d.order[d.order_n++] = id;
	}
}

// Takes back what was used. Everything must come back once and in order.
static void driver_take(void)
{
	for (;;) {
		struct vring_packed_desc *v = &d.ring[d.taken & 0x7fff];
		bool a = v->flags & AVAIL, u = v->flags & USED;
		uint16_t id;

		if (a != u || u != !!(d.taken & 0x8000))
			return;
		assert_true(d.order_n > 0);
		do {
			id = d.order[0];
			assert_true(mode == IN_ORDER || id == v->id);
			d.taken = ring_advance(d.taken, d.count[id], d.size);
			d.busy -= d.count[id];
			d.count[id] = 0;
			d.free_id[d.free_n++] = id;
			memmove(d.order, d.order + 1, --d.order_n * sizeof(d.order[0]));
			d.back++;
		} while (id != v->id && d.order_n);
		assert_int_equal(id, v->id);
	}
}

static void mark(ring_place at, uint16_t flags)
{
	store();
	d.ring[at & 0x7fff].flags = flags | (at & 0x8000 ? AVAIL | USED : 0);
}

static void name(ring_place at, uint16_t id, uint32_t len)
{
	store();
	d.ring[at & 0x7fff].id = id;
	store();
	d.ring[at & 0x7fff].len = len;
}

// The order of the stores is that of vhost_shadow_dequeue_*() and vhost_flush_dequeue_shadow_packed() of DPDK 22.11.
static ring_place dequeue(unsigned int n)
{
	ring_place at = device;

	for (unsigned int i = 0; i < n; i++) {
		const struct ring_chain *c = &record.chain[i];

		if (i && mode == TRANSMIT) {
			name(at, c->id, 0);
			mark(at, 0);
		}
		at = ring_advance(at, c->count, d.size);
	}
	store();
	d.ring[device & 0x7fff].id = record.chain[mode == IN_ORDER ? n - 1 : 0].id;
	mark(device, 0);
	return at;
}

// The order of the stores is that of vhost_flush_enqueue_shadow_packed(), which runs between packets.
static ring_place enqueue(unsigned int n)
{
	ring_place at = device, from;

	for (unsigned int first = 0, last; first < n; first = last) {
		for (last = first; last < n && (last < first + 4 || record.chain[last - 1].shared); last++)
			;
		from = at;
		for (unsigned int i = first; i < last; i++) {
			name(at, record.chain[i].id, 7);
			at = ring_advance(at, record.chain[i].count, d.size);
		}
		at = from;
		for (unsigned int i = first; i < last; i++) {
			if (i > first)
				mark(at, VRING_DESC_F_WRITE);
			at = ring_advance(at, record.chain[i].count, d.size);
		}
		mark(from, VRING_DESC_F_WRITE);
	}
	return at;
}

// One burst as vhost_rings_begin(), the library and vhost_rings_end() make it.
static bool burst(void)
{
	const ring_place place = (ring_place)record.word, head = (ring_place)(record.word >> 16);
	uint32_t need[32];
	unsigned int packets, chains, n = 1 + rand() % 32;
	ring_place end;

	for (unsigned int i = 0; i < 32; i++)
		need[i] = 1 + rand() % 400;
	assert_int_equal(place, device);
	finished = false;
	chains = ring_scan(d.ring, d.size, place, record.chain, mode == RECEIVE ? need : NULL, n, &packets);
	if (!chains)
		return false;
	store();
	record.word = ring_word(RING_BURST, place, head, chains);
	end = mode == RECEIVE ? enqueue(chains) : dequeue(chains);
	finished = true;
	store();
	record.word = ring_word(RING_REST, end, ring_head(&record, mode == RECEIVE, end), 0);
	device = end;
	return true;
}

static void begin_record(void)
{
	memset(&record, 0, sizeof(record));
	record.size = d.size;
	record.in_order = mode == IN_ORDER;
	record.word = ring_word(RING_REST, device, device, 0);
}

static void cut_and_resume(void)
{
	ring_place at, head;

	if (setjmp(cut) == 0) {
		stores = rand() % 90;
		for (int i = 0; i < 20; i++) {
			driver_post();
			burst();
			driver_take();
		}
		stores = -1;
	}
	stores = -1;
	device = 0xffff;
	// The driver goes on while nobody serves it. A burst in order that was done and not noted leaves no trace of its length
	// when the driver comes round to its first descriptor: this window is of one store.
	driver_take();
	if (!(mode == IN_ORDER && finished))
		driver_post();
	assert_int_equal(ring_resume(d.ring, &record, mode == RECEIVE, &at, &head), 0);
	assert_true(ring_fits(d.ring, d.size, at, head, mode != IN_ORDER));
	device = at;
	record.word = ring_word(RING_REST, at, head, 0);
	for (int i = 0; i < 10; i++) {
		driver_take();
		driver_post();
		burst();
	}
	while (burst() || d.order_n) {
		uint64_t back = d.back;

		driver_take();
		assert_true(d.back > back || d.order_n == 0 || mode == RECEIVE);
		if (mode == RECEIVE && d.back == back)
			break; // what is left doesn't hold the next packet
	}
}

static void run(enum mode m)
{
	static const uint16_t sizes[] = {64, 61, 16};

	mode = m;
	for (unsigned int s = 0; s < 3; s++) {
		for (unsigned int chain = 1; chain <= 4; chain++) {
			driver_start(sizes[s], chain);
			begin_record();
			for (int i = 0; i < ROUNDS; i++)
				cut_and_resume();
			assert_true(d.back > ROUNDS);
		}
	}
}

static void test_transmit(void **state)
{
	run(TRANSMIT);
}

static void test_in_order(void **state)
{
	run(IN_ORDER);
}

static void test_receive(void **state)
{
	run(RECEIVE);
}

// A guest that was reset and has filled its rings anew: the record doesn't fit, unless the last chain went across the ring's end:
// then the new descriptors may look like the rest of it and the ones after.
static void test_reset_and_filled(void **state)
{
	for (int i = 0; i < 3 * ROUNDS; i++) {
		ring_place at, head;

		mode = i & 1 ? TRANSMIT : RECEIVE;
		driver_start(16 + rand() % 48, 1 + rand() % 4);
		begin_record();
		for (int k = rand() % 50; k >= 0 || d.back == 0; k--) {
			driver_post();
			burst();
			driver_take();
		}
		at = device;
		head = (ring_place)(record.word >> 16);
		driver_start(d.size, d.chain_max);
		for (int k = rand() % 20; k > 0; k--)
			driver_post();
		if (at != 0x8000 && !((at ^ head) & 0x8000))
			assert_false(ring_fits(d.ring, d.size, at, head, mode != IN_ORDER));
		assert_true(ring_fits(d.ring, d.size, 0x8000, 0x8000, mode != IN_ORDER));
	}
}

// A guest that was reset: zeroed rings, with or without new buffers in them, fit no place but their beginning.
static void test_reset(void **state)
{
	for (mode = TRANSMIT; mode <= RECEIVE; mode++) {
		driver_start(32, 1);
		for (int posted = 0; posted < 2; posted++) {
			for (ring_place at = 1; at < 32; at++) {
				assert_false(ring_fits(d.ring, 32, at | 0x8000, (at - 1) | 0x8000, mode != IN_ORDER));
				assert_false(ring_fits(d.ring, 32, at, at - 1, mode != IN_ORDER));
			}
			assert_false(ring_fits(d.ring, 32, 0, 31 | 0x8000, mode != IN_ORDER));
			assert_true(ring_fits(d.ring, 32, 0x8000, 0x8000, mode != IN_ORDER));
			while (d.size - d.busy >= 1)
				driver_post();
		}
	}
	assert_false(ring_fits(d.ring, 32, 32, 32, mode != IN_ORDER));
	assert_false(ring_fits(d.ring, 32, 0x8000, 40, mode != IN_ORDER));
}

// Without a record: the right answer or none.
static void test_find(void **state)
{
	unsigned int found = 0, tried = 0;
	ring_place at;

	mode = TRANSMIT;
	for (unsigned int chain = 1; chain <= 3; chain++) {
		driver_start(32, chain);
		begin_record();
		for (int i = 0; i < ROUNDS; i++) {
			driver_post();
			burst();
			if (rand() % 2)
				driver_take();
			tried++;
			if (ring_find(d.ring, 32, &at) == 0) {
				found++;
				assert_int_equal(at, device);
			}
		}
	}
	assert_true(found * 2 > tried);
}

// Chains without an end, of a driver that lies, end where the ring does.
static void test_loop(void **state)
{
	struct ring_chain chain[RINGS_CHAINS];
	unsigned int packets;

	driver_start(32, 1);
	for (int i = 0; i < 32; i++)
		d.ring[i].flags = AVAIL | VRING_DESC_F_NEXT;
	assert_int_equal(ring_scan(d.ring, 32, 0x8000, chain, NULL, 32, &packets), 1);
	assert_int_equal(chain[0].count, 32);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_transmit), cmocka_unit_test(test_in_order), cmocka_unit_test(test_receive),
		cmocka_unit_test(test_reset_and_filled),
		cmocka_unit_test(test_reset),    cmocka_unit_test(test_find),     cmocka_unit_test(test_loop),
	};

	srand(1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
