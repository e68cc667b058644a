// port_tap: ports on a TAP interface of the switch's own (tun(4)): a queue is a descriptor, a packet is a read or a write.
//
// DPDK's driver for TAPs is not used: it sends no frame of more than 1,522 bytes whatever the interface's MTU, and takes one of DPDK's 32
// devices for each.
#include "control.h"
#include "kernel_link.h"
#include "offload.h"
#include "port.h"
#include "sentence.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <net/if.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include <rte_spinlock.h>

#define SEGMENTS 32        // buffers of a packet that is sent at most
#define REST (64 * 1024)   // of a received frame, beyond its first buffer

struct queue {
	int fd;
	struct rte_mbuf *next; // allocated, and not filled yet
	uint64_t missed;       // frames that there were no buffers for
	rte_spinlock_t lock;   // of sending
	uint8_t *rest;
};

struct tap {
	char name[IFNAMSIZ];
	uint16_t mtu;
	uint16_t n;
	unsigned index; // of the interface
	struct queue queue[PORT_QUEUES];
};

static int ask_kernel(const char *name, unsigned long what, struct ifreq *r)
{
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc;

	snprintf(r->ifr_name, sizeof r->ifr_name, "%s", name);
	rc = s < 0 || ioctl(s, what, r) ? -errno : 0;
	if (s >= 0)
		close(s);
	return rc;
}

// A socket in the network namespace that the interface is in now, which may be a container's. A socket stays where it was made.
static int socket_there(const struct tap *t)
{
	int here = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), there = ioctl(t->queue[0].fd, TUNGETDEVNETNS), s = -1;

	if (there < 0 && errno != EPERM) { // before Linux 5.3 nobody can tell: here, as it was when it was made
		s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	} else if (there >= 0 && here >= 0 && !setns(there, CLONE_NEWNET)) {
		s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (setns(here, CLONE_NEWNET))
			abort(); // in somebody else's namespace there is nothing to be done any more
	}
	if (there >= 0)
		close(there);
	if (here >= 0)
		close(here);
	return s;
}

// The interface may also have got another name there.
static void set_mtu(const struct tap *t)
{
	struct ifreq r = {0};
	int s = socket_there(t), rc = -1;

	if (s >= 0 && !ioctl(t->queue[0].fd, TUNGETIFF, &r)) {
		r.ifr_mtu = t->mtu;
		rc = ioctl(s, SIOCSIFMTU, &r);
	}
	if (rc)
		log_line('w', "port", "%s: the kernel interface takes no MTU of %u: %s", t->name, t->mtu, strerror(errno));
	if (s >= 0)
		close(s);
}

static void close_tap(void *dev)
{
	struct tap *t = dev;

	for (uint16_t q = 0; q < t->n; q++) {
		if (t->queue[q].fd >= 0)
			close(t->queue[q].fd); // with the last one the interface goes
		rte_pktmbuf_free(t->queue[q].next);
		free(t->queue[q].rest);
	}
	free(t);
}

static int open_queue(struct tap *t, uint16_t q, char **error)
{
	struct ifreq r = {.ifr_flags = IFF_TAP | IFF_NO_PI};
	struct queue *k = &t->queue[q];

	if (t->n > 1)
		r.ifr_flags |= IFF_MULTI_QUEUE;
	snprintf(r.ifr_name, sizeof r.ifr_name, "%s", t->name);
	rte_spinlock_init(&k->lock);
	k->rest = malloc(REST);
	k->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (k->fd < 0 || !k->rest)
		return sentence_fail(-errno, error, "/dev/net/tun can't be opened: %s", strerror(errno));
	if (ioctl(k->fd, TUNSETIFF, &r))
		return sentence_fail(-errno, error, "the TAP interface %s can't be made: %s", t->name, strerror(errno));
	return 0;
}

static int open_tap(const struct port_open *o, void **dev, char **error)
{
	const char *name = config_map_get(&o->config->options, "iface", o->config->name), *bad = NULL;
	unsigned n = config_map_uint(&o->config->options, "queues", 1, 1, PORT_QUEUES, &bad);
	struct tap *t;

	if (bad)
		return sentence_fail(-EINVAL, error, "options: queues must be a number from 1 to %d", PORT_QUEUES);
	if (!*name || strlen(name) >= IFNAMSIZ || strpbrk(name, "/: \t\n%"))
		return sentence_fail(-EINVAL, error, "options: iface \"%s\" is no name of a network interface (1 to %d characters)", name,
				     IFNAMSIZ - 1);
	if (if_nametoindex(name))
		return sentence_fail(-EEXIST, error, "there is a network interface %s already: use options:iface for another name", name);
	t = calloc(1, sizeof *t);
	if (!t)
		return sentence_fail(-ENOMEM, error, "out of memory");
	snprintf(t->name, sizeof t->name, "%s", name);
	t->mtu = o->mtu;
	t->n = (uint16_t)n;
	for (unsigned q = 0; q < n; q++)
		t->queue[q].fd = -1;
	int rc = 0;
	for (uint16_t q = 0; q < n && !rc; q++)
		rc = open_queue(t, q, error);
	struct ifreq r = {0};
	if (!rc) {
		set_mtu(t);
		t->index = if_nametoindex(t->name);
		rc = ask_kernel(t->name, SIOCGIFFLAGS, &r);
		r.ifr_flags |= IFF_UP;
		if (!rc)
			rc = ask_kernel(t->name, SIOCSIFFLAGS, &r);
		if (rc)
			sentence_fail(rc, error, "the TAP interface %s can't be switched on: %s", t->name, strerror(-rc));
	}
	if (rc) {
		close_tap(t);
		return rc;
	}
	*dev = t;
	return 0;
}

// Another MTU leaves the interface as it is: one that is made anew has lost its addresses, and the container that it was given to.
static int reconfigure_tap(void *dev, const struct port_open *o, char **error)
{
	struct tap *t = dev;

	if (!o->only_mtu)
		return -ENOTSUP;
	t->mtu = o->mtu;
	set_mtu(t);
	return 0;
}

static void state_of(void *dev, struct port_state *s)
{
	const struct tap *t = dev;
	uint64_t missed = 0;
	struct ifreq r = {0};
	int rc = ask_kernel(t->name, SIOCGIFFLAGS, &r);

	s->numa_node = -1;
	s->mtu = t->mtu;
	s->link_up = rc || ((r.ifr_flags & IFF_UP) && (r.ifr_flags & IFF_RUNNING)); // in a container it can't be asked any more
	if (!s->link_up)
		snprintf(s->problem, sizeof s->problem, "the interface %s is down or has no carrier", t->name);
	for (uint16_t q = 0; q < t->n; q++)
		missed += __atomic_load_n(&t->queue[q].missed, __ATOMIC_RELAXED);
	s->loss[LOSS_RX_BUFFERS] = missed;
	s->loss[LOSS_RX_KERNEL] = s->loss[LOSS_TX_KERNEL] = LOSS_UNKNOWN; // in another network namespace
	kernel_link_dropped(t->index, &s->loss[LOSS_TX_KERNEL], &s->loss[LOSS_RX_KERNEL]);
}

// The kernel takes nothing on an interface that is down.
static int room(void *dev, uint16_t q)
{
	struct ifreq r = {0};

	if (ask_kernel(((const struct tap *)dev)->name, SIOCGIFFLAGS, &r))
		return -ENODEV;
	return (r.ifr_flags & IFF_UP) != 0;
}

static int link_of(void *dev)
{
	struct ifreq r = {0};

	return ask_kernel(((const struct tap *)dev)->name, SIOCGIFFLAGS, &r) || ((r.ifr_flags & IFF_UP) && (r.ifr_flags & IFF_RUNNING));
}

static int rx_fd(void *dev, uint16_t q)
{
	return ((struct tap *)dev)->queue[q].fd;
}

static uint32_t rx_queues(void *dev)
{
	return (1u << ((struct tap *)dev)->n) - 1;
}

// One for the choice of a queue; which descriptor it is depends on the sender.
static uint32_t tx_queues(void *dev)
{
	return 1;
}

static unsigned caps(void *dev)
{
	return OFFLOAD_MULTISEG;
}

// Puts what didn't fit the first buffer into more of them.
static bool add_rest(struct queue *k, struct rte_mbuf *m, uint32_t len, struct rte_mempool *pool)
{
	struct rte_mbuf *last = m;

	for (uint32_t at = 0; at < len;) {
		struct rte_mbuf *more = rte_pktmbuf_alloc(pool);
		uint32_t n;

		if (!more)
			return false;
		n = len - at < PKT_BUF_SIZE ? len - at : PKT_BUF_SIZE;
		memcpy(rte_pktmbuf_mtod(more, void *), k->rest + at, n);
		more->data_len = (uint16_t)n;
		last->next = more;
		last = more;
		m->nb_segs++;
		m->pkt_len += n;
		at += n;
	}
	return true;
}

static uint16_t rx(void *dev, uint16_t q, struct rte_mempool *pool, struct rte_mbuf **packets, uint16_t n)
{
	struct queue *k = &((struct tap *)dev)->queue[q];
	uint16_t got = 0;

	while (got < n) {
		struct rte_mbuf *m = k->next ? k->next : rte_pktmbuf_alloc(pool);

		if (!m)
			break; // frames wait in the kernel
		struct iovec to[2] = {{rte_pktmbuf_mtod(m, void *), PKT_BUF_SIZE}, {k->rest, REST}};
		ssize_t len = readv(k->fd, to, 2);
		if (len <= 0) {
			k->next = m;
			break;
		}
		k->next = NULL;
		m->data_len = (uint16_t)(len < PKT_BUF_SIZE ? len : PKT_BUF_SIZE);
		m->pkt_len = m->data_len;
		if (len > PKT_BUF_SIZE && !add_rest(k, m, (uint32_t)(len - PKT_BUF_SIZE), pool)) {
			__atomic_store_n(&k->missed, k->missed + 1, __ATOMIC_RELAXED);
			rte_pktmbuf_free(m);
			continue;
		}
		packets[got++] = m;
	}
	return got;
}

static uint16_t tx(void *dev, uint16_t queue, unsigned worker, struct rte_mbuf **m, uint16_t n)
{
	struct tap *t = dev;
	struct queue *k = &t->queue[worker % t->n];
	uint16_t sent = 0;

	rte_spinlock_lock(&k->lock);
	for (; sent < n; sent++) {
		struct iovec from[SEGMENTS];
		int count = 0;

		for (const struct rte_mbuf *s = m[sent]; s && count < SEGMENTS; s = s->next)
			from[count++] = (struct iovec){rte_pktmbuf_mtod(s, void *), s->data_len};
		if (m[sent]->nb_segs > SEGMENTS || writev(k->fd, from, count) < 0)
			break; // tried again, and counted as tx.DEVICE in the end
	}
	rte_spinlock_unlock(&k->lock);
	return sent;
}

// The descriptor is always armed; the kernel says again that it is readable with every frame.
static int rx_arm(void *dev, uint16_t q, bool on)
{
	return 0;
}

const struct port_ops port_ops_tap = {
	.type = "tap",
	.open = open_tap,
	.reconfigure = reconfigure_tap,
	.close = close_tap,
	.state = state_of,
	.room = room,
	.link = link_of,
	.rx_fd = rx_fd,
	.rx_queues = rx_queues,
	.tx_queues = tx_queues,
	.caps = caps,
	.rx = rx,
	.tx = tx,
	.rx_arm = rx_arm,
};
