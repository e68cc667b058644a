// port_eth: ports on a DPDK device: a kernel interface, any device by devargs.
#include "control.h"
#include "offload.h"
#include "port.h"
#include "sentence.h"

#include <dirent.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <rte_branch_prediction.h>
#include <rte_bus_vdev.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_spinlock.h>

#define RING_SIZE 512
#define JUMBO_MTU 1900    // beyond this a kernel ring's frame of 2,048 bytes is too small
#define JUMBO_ROOM 9344
#define JUMBO_BUFFERS 1024

static bool in_use[RTE_MAX_ETHPORTS]; // main thread

struct eth {
	char name[IFNAMSIZ];  // of the kernel interface; "": none
	uint16_t id;
	uint16_t n_rxq, n_txq;
	unsigned caps;
	bool rx_interrupts;   // queues have a descriptor to wait for
	bool rss;             // the device spreads what it receives over its queues
	bool strips;          // it may take the outer VLAN tag off
	uint16_t mtu;
	struct rte_mempool *jumbo;
	struct rte_device *device;
	const char *driver;
	int packet_fds[PORT_QUEUES]; // the driver's sockets, of AF_PACKET; 0: no more
	uint64_t kernel_drops;
	rte_spinlock_t tx_lock[PORT_QUEUES]; // more workers than queues may share one
};

static struct rte_mempool *rx_pool(struct eth *e, const struct port_open *o, char **error)
{
	char name[RTE_MEMPOOL_NAMESIZE];

	if (!e->name[0] || o->mtu <= JUMBO_MTU)
		return o->pool;
	snprintf(name, sizeof name, "jumbo%u", e->id);
	e->jumbo = rte_pktmbuf_pool_create(name, JUMBO_BUFFERS, 0, sizeof(struct pkt), RTE_PKTMBUF_HEADROOM + JUMBO_ROOM, SOCKET_ID_ANY);
	if (!e->jumbo)
		sentence_fail(-ENOMEM, error, "no memory for %d buffers of %d bytes: lower the MTU", JUMBO_BUFFERS, JUMBO_ROOM);
	return e->jumbo;
}

static int configure(struct eth *e, const struct port_open *o, struct rte_eth_dev_info *info, char **error)
{
	struct rte_eth_conf conf = {.intr_conf.rxq = 1};
	uint64_t want = RTE_ETH_TX_OFFLOAD_MULTI_SEGS | RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_TSO;

	conf.txmode.offloads = info->tx_offload_capa & want;
	if (!e->name[0]) // virtio passes partial checksums on to those who agree to it; other devices check, and nobody asks what they found
		conf.rxmode.offloads = info->rx_offload_capa & (RTE_ETH_RX_OFFLOAD_TCP_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM);
	if (e->strips && !(info->rx_offload_capa & RTE_ETH_RX_OFFLOAD_VLAN_STRIP))
		return sentence_fail(-EINVAL, error, "options: vlan-strip: the device can't do it");
	if (e->strips)
		conf.rxmode.offloads |= RTE_ETH_RX_OFFLOAD_VLAN_STRIP;
	if (e->n_rxq > 1 && info->flow_type_rss_offloads && !e->name[0]) {
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rx_adv_conf.rss_conf.rss_hf = info->flow_type_rss_offloads & (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP);
	}
	int rc = rte_eth_dev_configure(e->id, e->n_rxq, e->n_txq, &conf);
	e->rx_interrupts = rc == 0;
	e->rss = conf.rxmode.mq_mode == RTE_ETH_MQ_RX_RSS;
	if (rc) {
		conf.intr_conf.rxq = 0;
		rc = rte_eth_dev_configure(e->id, e->n_rxq, e->n_txq, &conf);
	}
	if (rc)
		return sentence_fail(rc, error, "the device takes no %u receive and %u transmit queues: %s", e->n_rxq, e->n_txq, strerror(-rc));
	uint64_t tx = conf.txmode.offloads;
	if (tx & RTE_ETH_TX_OFFLOAD_MULTI_SEGS)
		e->caps |= OFFLOAD_MULTISEG;
	if ((tx & RTE_ETH_TX_OFFLOAD_TCP_CKSUM) && (tx & RTE_ETH_TX_OFFLOAD_UDP_CKSUM))
		e->caps |= OFFLOAD_CSUM;
	if (tx & RTE_ETH_TX_OFFLOAD_TCP_TSO)
		e->caps |= OFFLOAD_TSO4 | OFFLOAD_TSO6;
	return 0;
}

static int set_up(struct eth *e, const struct port_open *o, char **error)
{
	struct rte_eth_dev_info info;
	struct rte_mempool *pool = rx_pool(e, o, error);
	int rc = pool ? rte_eth_dev_info_get(e->id, &info) : -ENOMEM;

	if (rc)
		return *error ? rc : sentence_fail(rc, error, "the device tells nothing of itself: %s", strerror(-rc));
	if (e->n_rxq > info.max_rx_queues)
		return sentence_fail(-EINVAL, error, "the device has %u receive queues, not %u: lower options:queues", info.max_rx_queues, e->n_rxq);
	if (e->n_txq > info.max_tx_queues)
		e->n_txq = info.max_tx_queues;
	rc = configure(e, o, &info, error);
	if (rc)
		return rc;
	uint16_t rx_size = RING_SIZE, tx_size = RING_SIZE;
	rte_eth_dev_adjust_nb_rx_tx_desc(e->id, &rx_size, &tx_size);
	for (uint16_t q = 0; q < e->n_rxq && !rc; q++)
		rc = rte_eth_rx_queue_setup(e->id, q, rx_size, SOCKET_ID_ANY, NULL, pool);
	for (uint16_t q = 0; q < e->n_txq && !rc; q++)
		rc = rte_eth_tx_queue_setup(e->id, q, tx_size, SOCKET_ID_ANY, NULL);
	if (rc)
		return sentence_fail(rc, error, "a queue of the device can't be set up: %s", strerror(-rc));
	if (!e->name[0]) { // of kernel interfaces the kernel's MTU counts
		rc = rte_eth_dev_set_mtu(e->id, o->mtu);
		if (rc && rc != -ENOTSUP)
			return sentence_fail(rc, error, "the device takes no MTU of %u: %s", o->mtu, strerror(-rc));
	}
	rc = rte_eth_dev_start(e->id);
	if (rc)
		return sentence_fail(rc, error, "the device can't be started: %s", strerror(-rc));
	rte_eth_promiscuous_enable(e->id);
	e->mtu = o->mtu;
	return 0;
}

static void close_eth(void *dev)
{
	struct eth *e = dev;

	if (e->id != RTE_MAX_ETHPORTS) {
		in_use[e->id] = false;
		rte_eth_dev_stop(e->id);
		rte_eth_dev_close(e->id);
	}
	if (e->device)
		rte_dev_remove(e->device);
	rte_mempool_free(e->jumbo);
	free(e);
}

static uint16_t find_by_name(const char *devargs)
{
	char name[64];
	uint16_t id;

	snprintf(name, sizeof name, "%.*s", (int)strcspn(devargs, ","), devargs);
	return rte_eth_dev_get_port_by_name(name, &id) ? RTE_MAX_ETHPORTS : id;
}

// The Ethernet device that `devargs` made: by its name, or, for devargs that name it in another way, by what they match.
static uint16_t find_device(const char *devargs)
{
	struct rte_dev_iterator it;
	uint16_t id = find_by_name(devargs);

	if (id != RTE_MAX_ETHPORTS)
		return id;
	RTE_ETH_FOREACH_MATCHING_DEV(id, devargs, &it) {
		rte_eth_iterator_cleanup(&it);
		return id;
	}
	return RTE_MAX_ETHPORTS;
}

// Probes `devargs` and sets the device up. Takes over `e`.
static int open_device(struct eth *e, const char *devargs, const struct port_open *o, void **dev, char **error)
{
	struct rte_eth_dev_info info;

	e->id = RTE_MAX_ETHPORTS;
	for (unsigned q = 0; q < PORT_QUEUES; q++)
		rte_spinlock_init(&e->tx_lock[q]);
	if (!e->n_txq)
		e->n_txq = e->n_rxq > o->n_workers ? e->n_rxq : (uint16_t)o->n_workers;
	if (e->n_txq < 1)
		e->n_txq = 1;
	if (e->n_txq > PORT_QUEUES)
		e->n_txq = PORT_QUEUES;
	if (rte_eth_dev_count_avail() == RTE_MAX_ETHPORTS) {
		close_eth(e);
		return sentence_fail(-ENOSPC, error, "this DPDK takes %d devices, and all are in use", RTE_MAX_ETHPORTS);
	}
	// A PCI device that was bound to vfio before the start is there already.
	uint16_t id = find_by_name(devargs);
	int rc = id == RTE_MAX_ETHPORTS ? rte_dev_probe(devargs) : 0;
	if (rc) {
		close_eth(e);
		return sentence_fail(rc, error, "DPDK can't open %s: %s", devargs, strerror(-rc));
	}
	id = find_device(devargs);
	if (id == RTE_MAX_ETHPORTS || rte_eth_dev_info_get(id, &info)) {
		close_eth(e);
		return sentence_fail(-ENODEV, error, "DPDK opened %s, but it is no network device", devargs);
	}
	if (in_use[id]) { // probing a device again succeeds
		close_eth(e);
		return sentence_fail(-EBUSY, error, "another port has the device %s", devargs);
	}
	in_use[id] = true;
	e->id = id;
	e->device = info.device;
	e->driver = info.driver_name;
	rc = set_up(e, o, error);
	if (rc) {
		close_eth(e);
		return rc;
	}
	*dev = e;
	return 0;
}

static struct eth *eth_new(const struct port_open *o, char **error)
{
	struct eth *e = calloc(1, sizeof *e);
	const char *bad = NULL;

	if (!e) {
		sentence_fail(-ENOMEM, error, "out of memory");
		return NULL;
	}
	e->n_rxq = (uint16_t)config_map_uint(&o->config->options, "queues", 1, 1, PORT_QUEUES, &bad);
	if (bad) {
		sentence_fail(-EINVAL, error, "options: queues must be a number from 1 to %d", PORT_QUEUES);
		free(e);
		return NULL;
	}
	return e;
}

// The name of a kernel interface goes into devargs, so it must be one.
static int interface_name(struct eth *e, const struct port_open *o, char **error)
{
	const char *name = config_map_get(&o->config->options, "iface", o->config->name);

	if (!*name || strlen(name) >= IFNAMSIZ || strpbrk(name, "/,= \t\n"))
		return sentence_fail(-EINVAL, error, "options: iface \"%s\" is no name of a network interface (1 to %d characters)", name, IFNAMSIZ - 1);
	snprintf(e->name, sizeof e->name, "%s", name);
	return 0;
}

// The driver keeps its sockets to itself. Those of AF_PACKET are found among the process' descriptors, by the interface that they are bound to.
static void find_packet_sockets(struct eth *e)
{
	unsigned index = if_nametoindex(e->name), n = 0;
	DIR *d = opendir("/proc/self/fd");

	for (struct dirent *f; d && n < PORT_QUEUES && (f = readdir(d));) {
		struct sockaddr_ll a = {0};
		socklen_t len = sizeof a;
		int fd = atoi(f->d_name);

		if (fd > 2 && !getsockname(fd, (struct sockaddr *)(void *)&a, &len) && a.sll_family == AF_PACKET && (unsigned)a.sll_ifindex == index)
			e->packet_fds[n++] = fd;
	}
	if (d)
		closedir(d);
}

// Frames that the kernel had for the switch and no room to put them.
static uint64_t kernel_drops(struct eth *e)
{
	if (!e->packet_fds[0])
		return LOSS_UNKNOWN;
	for (unsigned i = 0; i < PORT_QUEUES && e->packet_fds[i]; i++) {
		struct tpacket_stats now = {0};
		socklen_t len = sizeof now;

		// Since it was asked last.
		if (!getsockopt(e->packet_fds[i], SOL_PACKET, PACKET_STATISTICS, &now, &len))
			e->kernel_drops += now.tp_drops;
	}
	return e->kernel_drops;
}

// The driver binds its sockets to the interface when their rings are there already: until then they take packets of every interface.
static void discard_received(const struct eth *e)
{
	struct rte_mbuf *m[BURST];

	for (uint16_t q = 0; q < e->n_rxq; q++)
		for (unsigned i = 0; i < RING_SIZE / BURST; i++)
			rte_pktmbuf_free_bulk(m, rte_eth_rx_burst(e->id, q, m, BURST));
}

static int open_kernel(const struct port_open *o, void **dev, char **error)
{
	struct eth *e = eth_new(o, error);
	const char *driver = config_map_get(&o->config->options, "driver", "af_packet");
	bool jumbo = o->mtu > JUMBO_MTU;
	char devargs[256];

	if (!e)
		return -EINVAL;
	if (interface_name(e, o, error)) {
		free(e);
		return -EINVAL;
	}
	if (!if_nametoindex(e->name)) {
		int rc = sentence_fail(-ENODEV, error, "there is no network interface %s", e->name);

		free(e);
		return rc;
	}
	if (!strcmp(driver, "af_packet")) {
		snprintf(devargs, sizeof devargs, "net_af_packet%u,iface=%s,qpairs=%u,blocksz=%u,framesz=%u,framecnt=%u", o->config->id, e->name,
			 e->n_rxq, jumbo ? 36864 : 4096, jumbo ? 9216 : 2048, 512);
	} else if (!strcmp(driver, "af_xdp") && jumbo) {
		int rc = sentence_fail(-EINVAL, error, "driver af_xdp takes an MTU of %d at most, not %u: lower it, or use af_packet", JUMBO_MTU, o->mtu);

		free(e);
		return rc;
	} else if (!strcmp(driver, "af_xdp")) {
		snprintf(devargs, sizeof devargs, "net_af_xdp%u,iface=%s,queue_count=%u", o->config->id, e->name, e->n_rxq);
	} else {
		int rc = sentence_fail(-EINVAL, error, "options: driver must be af_packet or af_xdp, not \"%s\"", driver);

		free(e);
		return rc;
	}
	e->n_txq = e->n_rxq;
	int rc = open_device(e, devargs, o, dev, error);
	if (!rc && !strcmp(driver, "af_packet")) {
		discard_received(e);
		find_packet_sockets(e);
		kernel_drops(e);
		e->kernel_drops = 0; // of when it took packets of every interface
	}
	return rc;
}

static int open_dpdk(const struct port_open *o, void **dev, char **error)
{
	const struct config_map *options = &o->config->options;
	const char *devargs = config_map_get(options, "devargs", NULL), *bad = NULL;
	struct eth *e;

	if (!devargs || !*devargs)
		return sentence_fail(-EINVAL, error, "options: devargs is missing: say which device, such as 0000:03:00.0 or net_ring0");
	e = eth_new(o, error);
	if (!e)
		return -EINVAL;
	e->strips = config_map_bool(options, "vlan-strip", false);
	e->n_txq = (uint16_t)config_map_uint(options, "tx-queues", 0, 1, PORT_QUEUES, &bad);
	if (bad) {
		free(e);
		return sentence_fail(-EINVAL, error, "options: %s is not right: see weir-db(5)", bad);
	}
	return open_device(e, devargs, o, dev, error);
}

// Another MTU leaves the device as it is where it can.
static int reconfigure_eth(void *dev, const struct port_open *o, char **error)
{
	struct eth *e = dev;

	if (!o->only_mtu || !e->name[0] || (e->mtu > JUMBO_MTU) != (o->mtu > JUMBO_MTU))
		return -ENOTSUP;
	e->mtu = o->mtu;
	return 0;
}

// What the kernel says of the interface: 1 up, 0 down, -1 it is not in this network namespace (any more).
static int kernel_link(const char *name)
{
	struct ifreq r = {0};
	int s = socket(AF_INET, SOCK_DGRAM, 0), up = -1;

	snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
	if (s >= 0) {
		if (!ioctl(s, SIOCGIFFLAGS, &r))
			up = (r.ifr_flags & IFF_UP) && (r.ifr_flags & IFF_RUNNING);
		close(s);
	}
	return up;
}

static void __attribute__((format(printf, 3, 4))) status(struct port_state *s, const char *key, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	snprintf(s->status[s->n_status].key, sizeof s->status[0].key, "%s", key);
	vsnprintf(s->status[s->n_status++].value, sizeof s->status[0].value, fmt, args);
	va_end(args);
}

static void state_of(void *dev, struct port_state *s)
{
	struct eth *e = dev;
	struct rte_eth_link link = {0};
	struct rte_eth_stats stats = {0};

	s->numa_node = rte_eth_dev_socket_id(e->id);
	s->mtu = e->mtu;
	if (e->name[0]) {
		int up = kernel_link(e->name);

		s->link_up = up > 0;
		if (!up)
			snprintf(s->problem, sizeof s->problem, "the interface %s is down or has no carrier", e->name);
		if (up < 0)
			snprintf(s->problem, sizeof s->problem, "the interface %s is gone", e->name);
	} else {
		rte_eth_link_get_nowait(e->id, &link);
		s->link_up = link.link_status;
		if (!link.link_status)
			snprintf(s->problem, sizeof s->problem, "the device has no link");
		status(s, "link_speed", "%s", rte_eth_link_speed_to_str(link.link_speed));
		status(s, "driver", "%s", e->driver ? e->driver : "?");
		status(s, "rx_queues", "%u", e->n_rxq);
		status(s, "tx_queues", "%u", e->n_txq);
		status(s, "rss", "%s", e->rss ? "on" : "off");
	}
	if (!rte_eth_stats_get(e->id, &stats)) {
		s->loss[LOSS_RX_FULL] = e->packet_fds[0] ? LOSS_NONE : stats.imissed; // of AF_PACKET the kernel counts them
		s->loss[LOSS_RX_ERRORS] = stats.ierrors;
		s->loss[LOSS_RX_BUFFERS] = stats.rx_nombuf;
		s->loss[LOSS_TX_ERRORS] = stats.oerrors;
	} else {
		s->loss[LOSS_RX_FULL] = s->loss[LOSS_TX_ERRORS] = LOSS_UNKNOWN;
	}
	if (e->name[0])
		s->loss[LOSS_RX_KERNEL] = kernel_drops(e);
}

static int link_of(void *dev)
{
	const struct eth *e = dev;
	struct rte_eth_link link = {0};

	if (e->name[0])
		return kernel_link(e->name) > 0;
	rte_eth_link_get_nowait(e->id, &link);
	return link.link_status;
}

static int rx_fd(void *dev, uint16_t q)
{
	struct eth *e = dev;

	return e->rx_interrupts ? rte_eth_dev_rx_intr_ctl_q_get_fd(e->id, q) : -1;
}

static uint32_t rx_queues(void *dev)
{
	return (1u << ((struct eth *)dev)->n_rxq) - 1;
}

// One for the choice of a queue; which hardware queue it is depends on the sender.
static uint32_t tx_queues(void *dev)
{
	return 1;
}

static unsigned caps(void *dev)
{
	return ((struct eth *)dev)->caps;
}

// The pipeline wants packets as they were on the wire.
static void put_tag_back(struct rte_mbuf **m)
{
	// A packet that has no room for its tag, which no driver makes, must not go on as one without: it dies as one that is too short.
	if (rte_vlan_insert(m))
		(*m)->pkt_len = (*m)->data_len = 0;
	(*m)->ol_flags &= ~(uint64_t)(RTE_MBUF_F_RX_VLAN | RTE_MBUF_F_RX_VLAN_STRIPPED);
}

static uint16_t rx(void *dev, uint16_t q, struct rte_mempool *pool, struct rte_mbuf **m, uint16_t n)
{
	const struct eth *e = dev;
	uint16_t got = rte_eth_rx_burst(e->id, q, m, n);

	for (uint16_t i = 0; unlikely(e->strips) && i < got; i++)
		if (m[i]->ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED)
			put_tag_back(&m[i]);
	return got;
}

static uint16_t tx(void *dev, uint16_t queue, unsigned worker, struct rte_mbuf **m, uint16_t n)
{
	struct eth *e = dev;
	uint16_t q = (uint16_t)(worker % e->n_txq);

	rte_spinlock_lock(&e->tx_lock[q]);
	uint16_t sent = rte_eth_tx_burst(e->id, q, m, n);
	rte_spinlock_unlock(&e->tx_lock[q]);
	return sent;
}

static int rx_arm(void *dev, uint16_t q, bool on)
{
	struct eth *e = dev;

	if (!e->rx_interrupts)
		return -ENOTSUP;
	return on ? rte_eth_dev_rx_intr_enable(e->id, q) : rte_eth_dev_rx_intr_disable(e->id, q);
}

#define ETH_OPS(name, kind)                                                                                            \
	const struct port_ops name = {                                                                                 \
		.type = kind,                                                                                          \
		.reconfigure = reconfigure_eth,                                                                        \
		.close = close_eth,                                                                                    \
		.state = state_of,                                                                                     \
		.link = link_of,                                                                                       \
		.rx_fd = rx_fd,                                                                                        \
		.rx_queues = rx_queues,                                                                                \
		.tx_queues = tx_queues,                                                                                \
		.caps = caps,                                                                                          \
		.rx = rx,                                                                                              \
		.tx = tx,                                                                                              \
		.rx_arm = rx_arm,                                                                                      \
		.tx_keeps = true,

ETH_OPS(port_ops_kernel, "kernel") .open = open_kernel};
ETH_OPS(port_ops_dpdk, "dpdk") .open = open_dpdk};
