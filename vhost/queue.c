// queue: what workers do with a port: take packets, give packets, wait for a kick.
//
// The vhost library calls a queue by its vring: 2q is the guest's receive ring (switch -> guest), 2q + 1 its transmit ring.
#include <errno.h>
#include <linux/virtio_net.h>
#include <sys/uio.h>

#include <rte_atomic.h>
#include <rte_branch_prediction.h>
#include <rte_mbuf.h>

#include "port.h"

#define LIBRARY_BURST 32 // rte_vhost_enqueue_burst() takes no more at once (MAX_PKT_BURST of the library)

// The largest IP packet with an Ethernet header and two VLAN tags, and some room.
#define FRAME_MAX (65535 + 64)
#define PACKET_BUFFERS (FRAME_MAX / RTE_MBUF_DEFAULT_DATAROOM + 1)
#define RESERVE 64U // buffers for what others take in the meantime

// On packed rings the library serves four receive buffers at once if it is given four packets, and doesn't look what they are: of a
// chain or an indirect table it takes a descriptor for the buffer, and one shorter than the header passes for one without end, so
// that it writes past the guest's memory (virtio_dev_rx_sync_batch_check() of DPDK 22.11). It is never given four.
#define PACKED_BURST 3

uint32_t vhost_rx_enabled(const struct vhost_port *p)
{
	return __atomic_load_n(&p->vid, __ATOMIC_ACQUIRE) < 0 ? 0 : __atomic_load_n(&p->rx_on, __ATOMIC_RELAXED);
}

uint32_t vhost_tx_enabled(const struct vhost_port *p)
{
	return __atomic_load_n(&p->vid, __ATOMIC_ACQUIRE) < 0 ? 0 : __atomic_load_n(&p->tx_on, __ATOMIC_RELAXED);
}

uint64_t vhost_features(const struct vhost_port *p)
{
	return __atomic_load_n(&p->features, __ATOMIC_RELAXED);
}

// The library discards a chain that it can't make a packet of, one in a burst at most, and doesn't say so. On a split ring its index tells: it is
// further than packets came. A look each 256 bursts is enough, as it can't have come round since; and one before the worker sleeps.
#define LOOK_BURSTS 256

static void look(struct vhost_port *p, int vid, uint16_t q, bool first)
{
	struct rx_queue *k = &p->rxq[q];
	uint16_t base, used;

	if (rte_vhost_get_vring_base(vid, 2 * q + 1, &base, &used) < 0)
		return;
	int16_t lost = (int16_t)(base - k->base - k->taken); // negative: a RARP frame, which the library makes
	if (!first && lost > 0)
		__atomic_store_n(&p->rx_bad[q], p->rx_bad[q] + (uint16_t)lost, __ATOMIC_RELAXED);
	k->base = base;
	k->taken = 0;
}

// A ring starts with kicks on: the guest would trap to the host for packets that a polling worker finds anyway.
static __rte_noinline void silence(struct vhost_port *p, int vid, uint16_t q)
{
	__atomic_store_n(&p->rxq[q].quiet, 1, __ATOMIC_RELAXED);
	look(p, vid, q, true);
	rte_vhost_enable_guest_notification(vid, 2 * q + 1, 0);
}

void vhost_queue_settle(struct vhost_port *p, int vid)
{
	for (uint16_t q = 0; q < VHOST_MAX_QUEUES; q++)
		if (__atomic_load_n(&p->rxq[q].quiet, __ATOMIC_RELAXED))
			look(p, vid, q, false);
}

// The pool's buffers are shared by so many workers, as far as it is strict: that more than four are in the midst of bursts of the largest packets while
// the pool is nearly empty is not reckoned with, as it would cost all of them the size of their bursts long before.
#define SHARERS_MAX 4U
static unsigned int sharers = 1;

void vhost_share_pool(unsigned int workers)
{
	__atomic_store_n(&sharers, !workers ? 1 : RTE_MIN(workers, SHARERS_MAX), __ATOMIC_RELAXED);
}

// The library discards a packet in the midst of which the pool runs out. So no more packets are asked for than there are buffers, each as
// large as packets can be; what a guest has beyond that waits in its ring.
static inline uint16_t affordable(const struct rte_mempool *pool, uint16_t n)
{
	unsigned int room = rte_mempool_ops_get_count(pool) / __atomic_load_n(&sharers, __ATOMIC_RELAXED);

	if (likely(room >= RESERVE + n * PACKET_BUFFERS))
		return n;
	n = room > RESERVE ? (room - RESERVE) / PACKET_BUFFERS : 0;
	return n < 2 ? 0 : n; // never 1: see take_noted()
}

static inline bool packed(const struct vhost_port *p)
{
	return __atomic_load_n(&p->features, __ATOMIC_RELAXED) >> VIRTIO_F_RING_PACKED & 1;
}

// A packed ring's burst, with its place written down before and after.
static uint16_t take_noted(struct vhost_port *p, int vid, uint16_t q, struct rte_mempool *pool, struct rte_mbuf **packets,
			   uint16_t n)
{
	const uint16_t ring = 2 * q + 1;
	bool rarp = unlikely(!q && __atomic_load_n(&p->rarp, __ATOMIC_RELAXED)) &&
		    __atomic_exchange_n(&p->rarp, false, __ATOMIC_ACQUIRE);
	unsigned int found = vhost_rings_begin(p, vid, ring, NULL, n);
	uint16_t got;

	if (!found && !rarp)
		return 0;
	// Never 1: the library puts the RARP frame first, and with room for no more it uses a packet that isn't there.
	found = RTE_MAX(found + rarp, 2U);
	got = rte_vhost_dequeue_burst(vid, ring, pool, packets, RTE_MIN(found, n));
	vhost_rings_end(p, vid, ring);
	return got;
}

static uint16_t give_packed(int vid, uint16_t ring, struct rte_mbuf **packets, uint16_t n)
{
	uint16_t done = 0, ask, taken;

	do {
		ask = RTE_MIN(n - done, PACKED_BURST);
		taken = rte_vhost_enqueue_burst(vid, ring, packets + done, ask);
		done += taken;
	} while (taken == ask && done < n);
	return done;
}

static uint16_t give_noted(struct vhost_port *p, int vid, uint16_t q, struct rte_mbuf **packets, uint16_t n)
{
	const bool mergeable = __atomic_load_n(&p->features, __ATOMIC_RELAXED) >> VIRTIO_NET_F_MRG_RXBUF & 1;
	uint32_t need[LIBRARY_BURST];
	unsigned int room;
	uint16_t taken = 0;

	// Without mergeable buffers a packet takes one, whether it fits or not.
	for (uint16_t i = 0; mergeable && i < n; i++)
		need[i] = packets[i]->pkt_len + sizeof(struct virtio_net_hdr_mrg_rxbuf);
	rte_spinlock_lock(&p->tx_lock[q]);
	room = vhost_rings_begin(p, vid, 2 * q, mergeable ? need : NULL, n);
	if (room) {
		taken = give_packed(vid, 2 * q, packets, room);
		vhost_rings_end(p, vid, 2 * q);
	}
	rte_spinlock_unlock(&p->tx_lock[q]);
	return taken;
}

// A guest that strings descriptors together beyond what any packet can be: the library copies what there is, until the pool of
// all ports is empty. Such a guest is sent away.
static __rte_noinline uint16_t drop_oversized(struct vhost_port *p, struct rte_mbuf **packets, uint16_t n)
{
	uint16_t kept = 0;

	for (uint16_t i = 0; i < n; i++) {
		if (packets[i]->pkt_len <= FRAME_MAX) {
			packets[kept++] = packets[i];
			continue;
		}
		rte_pktmbuf_free(packets[i]);
		p->rx_errors++;
	}
	__atomic_store_n(&p->oversized, true, __ATOMIC_RELEASE);
	vhost_connect_wake();
	return kept;
}

uint16_t vhost_rx(struct vhost_port *p, uint16_t q, struct rte_mempool *pool, struct rte_mbuf **packets, uint16_t n)
{
	int vid = __atomic_load_n(&p->vid, __ATOMIC_ACQUIRE);
	const bool is_packed = packed(p);
	uint16_t got;

	if (unlikely(vid < 0 || !(__atomic_load_n(&p->rx_on, __ATOMIC_RELAXED) >> q & 1)))
		return 0;
	if (unlikely(!__atomic_load_n(&p->rxq[q].quiet, __ATOMIC_RELAXED)))
		silence(p, vid, q);
	n = affordable(pool, n);
	if (unlikely(!n))
		return 0;
	got = p->rings && is_packed ? take_noted(p, vid, q, pool, packets, n)
				    : rte_vhost_dequeue_burst(vid, 2 * q + 1, pool, packets, n);
	p->rxq[q].taken += got;
	if (unlikely(++p->rxq[q].looks % LOOK_BURSTS == 0) && !is_packed)
		look(p, vid, q, false);
	for (uint16_t i = 0; i < got; i++) {
		if (unlikely(packets[i]->pkt_len > FRAME_MAX))
			return drop_oversized(p, packets, got);
	}
	if (unlikely(got && !p->rxq[q].seen))
		__atomic_store_n(&p->rxq[q].seen, 1, __ATOMIC_RELAXED);
	return got;
}

uint16_t vhost_tx(struct vhost_port *p, uint16_t q, struct rte_mbuf **packets, uint16_t n)
{
	int vid = __atomic_load_n(&p->vid, __ATOMIC_ACQUIRE);
	const bool is_packed = packed(p);
	uint16_t done = 0;
	uint8_t state;

	if (unlikely(vid < 0 || !n || !(__atomic_load_n(&p->tx_on, __ATOMIC_RELAXED) >> q & 1)))
		return 0;
	do {
		uint16_t ask = RTE_MIN(n - done, LIBRARY_BURST);
		uint16_t taken = !is_packed ? rte_vhost_enqueue_burst(vid, 2 * q, packets + done, ask)
				 : p->rings ? give_noted(p, vid, q, packets + done, ask)
					    : give_packed(vid, 2 * q, packets + done, ask);

		done += taken;
		if (taken < ask)
			break;
	} while (done < n);
	// Several workers may come here: the byte is written on a change only, so its line stays shared while all is well.
	state = done ? TX_TAKES : TX_STUCK;
	if (unlikely(__atomic_load_n(&p->tx_state[q], __ATOMIC_RELAXED) != state))
		__atomic_store_n(&p->tx_state[q], state, __ATOMIC_RELAXED);
	return done;
}

// Packed ring: whether the next descriptor is available (virtio 1.2 section 2.8.1), which the library's own counting functions
// don't tell. The descriptor is guest memory, and the library exchanges the memory table of a running device without asking
// anybody but its own queue locks. So the look is taken under mem_lock, which device.c takes before an exchange begins, and
// only if no exchange began since the library gave the address. The other ways in which memory goes away wait for workers.
static int packed_waiting(struct vhost_port *p, int vid, uint16_t ring)
{
	uint32_t seq = __atomic_load_n(&p->mem_seq, __ATOMIC_ACQUIRE);
	struct rte_vhost_power_monitor_cond next;
	int waiting = -EAGAIN;

	if (seq & 1)
		return -EAGAIN;
	if (rte_vhost_get_monitor_addr(vid, ring, &next) < 0)
		return -ENODEV;
	pthread_mutex_lock(&p->mem_lock);
	if (p->mem_seq == seq)
		waiting = (*(volatile uint16_t *)next.addr & next.mask) == next.val;
	pthread_mutex_unlock(&p->mem_lock);
	return waiting;
}

// 1 if the ring has descriptors that the switch hasn't used, 0 if not, -errno if that can't be told now. The caller is a worker
// between two quiescent points, or holds dev_lock.
int vhost_queue_waiting(struct vhost_port *p, int vid, uint16_t ring)
{
	if (__atomic_load_n(&p->features, __ATOMIC_RELAXED) & (1ULL << VIRTIO_F_RING_PACKED))
		return packed_waiting(p, vid, ring);
	// The monitor address is of no use for a split ring: it compares modulo the ring's size, so a full ring looks empty.
	return ring & 1 ? rte_vhost_rx_queue_count(vid, ring) != 0 : rte_vhost_avail_entries(vid, ring) != 0;
}

// Takes old kicks off the descriptor, as the worker's wait would return at once for them. The descriptor came from the
// front-end and may be anything, so nothing here may block.
static void drain(struct vhost_port *p, uint16_t q)
{
	uint64_t count = 0, kicks;
	struct iovec to = {&count, sizeof(count)};

	while (preadv2(p->kick[q], &to, 1, -1, RWF_NOWAIT) < 0 && errno == EINTR)
		;
	if (count && !p->rxq[q].seen) {
		kicks = p->rxq[q].kicks + count;
		__atomic_store_n(&p->rxq[q].kicks, RTE_MIN(kicks, (uint64_t)UINT16_MAX), __ATOMIC_RELAXED);
	}
}

int vhost_rx_arm(struct vhost_port *p, uint16_t q, bool on)
{
	int vid = __atomic_load_n(&p->vid, __ATOMIC_ACQUIRE);
	int waiting;

	if (vid < 0 || !(__atomic_load_n(&p->rx_on, __ATOMIC_RELAXED) >> q & 1))
		return -ENODEV;
	if (!on)
		return rte_vhost_enable_guest_notification(vid, 2 * q + 1, 0) < 0 ? -EAGAIN : 0;
	if (!(__atomic_load_n(&p->kick_on, __ATOMIC_RELAXED) >> q & 1))
		return -ENOTSUP;
	drain(p, q);
	if (!packed(p))
		look(p, vid, q, !__atomic_load_n(&p->rxq[q].quiet, __ATOMIC_RELAXED));
	__atomic_store_n(&p->rxq[q].quiet, 1, __ATOMIC_RELAXED);
	if (rte_vhost_enable_guest_notification(vid, 2 * q + 1, 1) < 0)
		return -EAGAIN;
	// The guest adds, then reads whether to kick; the switch says that it wants kicks, then looks for what was added: each
	// needs its store to be seen before its load (virtio 1.2 sections 2.7.13.4 and 2.8.21.3.1).
	rte_smp_mb();
	waiting = vhost_queue_waiting(p, vid, 2 * q + 1);
	if (unlikely(waiting > 0 && __atomic_load_n(&p->rx_stuck, __ATOMIC_RELAXED) >> q & 1))
		waiting = 0; // it would be waiting for ever
	if (waiting)
		rte_vhost_enable_guest_notification(vid, 2 * q + 1, 0);
	return waiting;
}

int vhost_rx_fd(struct vhost_port *p, uint16_t q)
{
	int fd = -1;

	if (q >= VHOST_MAX_QUEUES)
		return -1;
	pthread_mutex_lock(&p->lock);
	if (__atomic_load_n(&p->kick_on, __ATOMIC_RELAXED) >> q & 1)
		fd = p->kick[q];
	pthread_mutex_unlock(&p->lock);
	return fd;
}
