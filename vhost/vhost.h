// vhost: a vhost-user backend port on the DPDK vhost library (QEMU's docs/interop/vhost-user.rst, virtio 1.2 section 5.1).
//
// One struct vhost_port is one socket and at most one guest device behind it. Threads:
//   main     vhost_open(), vhost_close(), vhost_status(), vhost_queues(): the switch's main thread only
//   worker   vhost_rx(), vhost_tx(), vhost_rx_arm(): any worker that holds the port through the switch's RCU
//   library  the callbacks of the DPDK vhost library; they never wait for workers while they hold a queue lock
// A worker may call the worker functions at any time between vhost_open() and vhost_close(): they return 0 packets while no
// guest device is there. destroy_device unpublishes the device, calls hooks->quiesce(), which returns when every worker
// has passed a quiescent point, and only then lets the library free it.
#ifndef VHOST_VHOST_H
#define VHOST_VHOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct rte_mbuf;
struct rte_mempool;
struct vhost_port;

#define VHOST_MAX_QUEUES 16 // queue pairs of one port at most

struct vhost_config {
	const char *name;    // of the port, for messages
	const char *path;    // of the socket, absolute
	bool server;         // true: Weir listens on path; false: Weir connects to QEMU's listening socket
	const char *owner;   // server: user and group of the socket, NULL: leave
	const char *group;
	mode_t mode;         // server: permission bits of the socket, 0: leave
	uint16_t queues;     // queue pairs offered at most, 1..VHOST_MAX_QUEUES
	bool packed;         // offer VIRTIO_F_RING_PACKED
	const char *rings;   // packed: file that keeps the places in the rings over a restart, see vhost_rings_path(); NULL: none
	bool csum;           // offer checksum offloads
	bool tso;            // offer TSO (needs csum)
};

struct vhost_hooks {
	void (*changed)(void *arg); // something that vhost_status() or vhost_queues() shows has changed; any thread; never blocks
	void (*quiesce)(void *arg); // wait until every worker has passed a quiescent point; library threads. Must not need the
				    // main thread, which may be waiting for the library in vhost_close()
	void *arg;
};

// What a port says of itself.
struct vhost_status {
	bool connected;         // a front-end is connected
	bool running;           // the guest's driver is ready and its memory is mapped
	bool virtio_net_legacy; // VIRTIO_F_VERSION_1 not negotiated
	uint64_t features;      // negotiated virtio features
	uint16_t rx_queues;     // guest -> switch queues that are enabled
	uint16_t tx_queues;     // switch -> guest
	int numa_node;          // of the guest's memory; -1: not known
	uint32_t connects;      // times that a front-end connected
	uint32_t refused;       // front-ends that were sent away, as another one has the socket
	uint16_t mtu;           // that the front-end tells the guest (VHOST_USER_NET_SET_MTU; QEMU's host_mtu=); 0: none, or its driver doesn't
				// ask (VIRTIO_NET_F_MTU). The protocol has no way to tell the front-end one from here
	uint64_t rx_errors;     // packets that the checks of vhost_rx() dropped
	uint64_t rx_bad;        // chains of descriptors that the library discarded, without a word, since vhost_open()
	bool rx_bad_unknown;    // there may be more: with packed rings it can't be told
	char problem[256];      // why no traffic passes, one sentence; "" if all is well. One of: not connected, guest driver
				// not ready, memory not shared, no receive buffers posted, socket permission, features refused
};

// 0, or a negative errno and *error (malloc'ed, one sentence without the port's name).
int vhost_open(const struct vhost_config *, const struct vhost_hooks *, struct vhost_port **, char **error);
// Changes what can be changed without reconnecting (name, owner, group, mode).
// -ENOTSUP: close and open again.
int vhost_reconfigure(struct vhost_port *, const struct vhost_config *, char **error);
// The caller has taken the port away from the workers and has waited for them. Disconnects the guest.
void vhost_close(struct vhost_port *);
void vhost_status(struct vhost_port *, struct vhost_status *);

// Path of the file that keeps the places in a port's packed rings: "<folder>/rings/<port>". The folder is the caller's to make and
// the file the caller's to remove, when the port is gone for good. 0 or -ENAMETOOLONG.
int vhost_rings_path(const char *folder, const char *port, char *path, size_t size);

// Bit q is set when guest -> switch queue q (of pair q) is enabled. Any thread.
uint32_t vhost_rx_enabled(const struct vhost_port *);
uint32_t vhost_tx_enabled(const struct vhost_port *);
// Negotiated virtio feature bits; 0 while not running. Any thread, cheap (one load).
uint64_t vhost_features(const struct vhost_port *);

// Takes up to n packets that the guest sent on queue pair `q`. ol_flags are RX flags as RTE_VHOST_USER_NET_COMPLIANT_OL_FLAGS
// gives them: RTE_MBUF_F_RX_L4_CKSUM_NONE (partial checksum), RTE_MBUF_F_RX_LRO with tso_segsz; no header lengths.
uint16_t vhost_rx(struct vhost_port *, uint16_t q, struct rte_mempool *, struct rte_mbuf **, uint16_t n);
// It asks the library for no more packets than it has buffers for, so that none is lost for want of them: of a pool that so many workers share.
void vhost_share_pool(unsigned int workers); // main thread
// Gives up to n packets to the guest on queue pair `q`; returns how many it took, always the first ones. Packets stay the caller's:
// the caller frees what was taken too. Several workers may call it for one queue at once (the library's queue lock).
uint16_t vhost_tx(struct vhost_port *, uint16_t q, struct rte_mbuf **, uint16_t n);
// Whether the guest has posted receive buffers on queue pair `q`: 1, 0, or -errno: that can't be told now. Main thread.
int vhost_tx_room(struct vhost_port *, uint16_t q);
// Guest notifications (kicks) of guest -> switch queue q on or off. Returns 1 if packets are waiting (checked after switching
// on; kicks are off again then), 0 if not and the worker may wait, -errno if the queue can't be armed: -ENODEV there is no
// device or the queue is off, so nothing to wait for until hooks->changed(); -EAGAIN the guest's memory is just being
// exchanged, poll on; -ENOTSUP the front-end gave no descriptor to kick, poll for ever. Takes old kicks off the descriptor.
int vhost_rx_arm(struct vhost_port *, uint16_t q, bool on);
// File descriptor that becomes readable on a kick, or -1. Main thread. The number is the port's until vhost_close(), but what
// it refers to is exchanged when the guest's driver starts again: dup() it to wait on it, and do so again after every
// hooks->changed().
int vhost_rx_fd(struct vhost_port *, uint16_t q);

#endif
