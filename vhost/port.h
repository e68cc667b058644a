// port: what the files of vhost/ share: the port itself and who may touch which part of it.
//
// Locks, outermost first. None of them is held while workers are waited for.
//   dev_lock   main and library threads: while it is held a published device stays. May be held while the library is called,
//              so no callback that the library makes under its queue locks may take it.
//   conn_lock  of the connector (connect.c): the state of connecting.
//   lock       leaf: strings and negotiation progress. Never held while the library is called.
//   mem_lock   leaf, of the workers' look at a packed ring: see queue.c.
//   tx_lock    one per packed receive ring, of the workers that send to it. The library's queue locks are taken under it, so no
//              callback of the library may take it.
#ifndef VHOST_PORT_H
#define VHOST_PORT_H

#include <pthread.h>
#include <stdalign.h>
#include <sys/queue.h>

#include <rte_common.h>
#include <rte_spinlock.h>
#include <rte_vhost.h>

#include "message.h"
#include "rings.h"
#include "vhost.h"

// What a front-end has said of a ring since it stopped it.
struct guard_ring {
	uint32_t size, base; // 0: not said
	bool placed, started;
};

struct guard {
	uint64_t features;
	struct guard_ring ring[2 * VHOST_MAX_QUEUES];
};

// How far the front-end got with this connection, and why the one before it ended.
struct negotiation {
	uint64_t done;        // bit per request that succeeded since the connection or since the driver stopped
	uint32_t pending;     // request being handled, 0: none
	uint32_t failed;      // last request that failed, 0: none
	uint64_t asked;       // ns, when the front-end made the pending request
	uint64_t refused;     // feature bits that the front-end wanted and that are not offered
	uint64_t progress;    // ns, when the last request succeeded
	bool ran;             // the device ran once during this connection
	uint32_t before;      // request at which the connection before failed
	uint64_t before_bits; // the refused features of the connection before
	uint32_t short_lived; // connections in a row that the front-end closed before its driver ever ran
};

struct rx_queue {
	uint8_t quiet;  // kicks were switched off since the ring started; written by its worker, cleared by library threads
	uint8_t seen;   // a packet was taken since the device started
	uint16_t kicks; // taken off the descriptor since the device started; stays at its maximum
	uint16_t base;  // split ring: where the library was when it was looked at last, its worker's
	uint16_t taken; // packets since then
	uint16_t looks; // bursts since the ring started
};

// How the guest's receive ring has taken the last burst.
enum tx_state {
	TX_UNTRIED,
	TX_TAKES,
	TX_STUCK
};

struct vhost_port {
	// Read by workers for every burst, written when a device comes or goes.
	alignas(RTE_CACHE_LINE_SIZE) int vid; // published last and unpublished first; -1: no device
	uint32_t rx_on;                       // rings that the front-end has enabled, a bit per queue pair
	uint32_t tx_on;
	uint32_t kick_on;  // guest -> switch queues that have a kick descriptor
	uint64_t features; // negotiated; 0: no device
	struct rx_queue rxq[VHOST_MAX_QUEUES];

	// enum tx_state; written by workers when a guest's receive ring becomes full or has room again, which is rare.
	alignas(RTE_CACHE_LINE_SIZE) uint8_t tx_state[VHOST_MAX_QUEUES];
	uint64_t rx_errors;
	uint64_t rx_bad[VHOST_MAX_QUEUES]; // chains that the library took and gave no packet for; the queue's worker
	bool was_packed; // a device ran with packed rings: what the library discards there can't be told

	alignas(RTE_CACHE_LINE_SIZE) pthread_mutex_t mem_lock;
	uint32_t mem_seq; // odd while the memory table is being exchanged, or is gone after a failed exchange
	rte_spinlock_t tx_lock[VHOST_MAX_QUEUES];
	struct rings_file *rings; // places in packed rings, NULL: not kept
	bool rarp;                // the library is asked to inject a frame into queue 0

	uint32_t restored; // rings that have been given their place since they started; library threads
	uint32_t lost;     // of these, the ones whose place can't be told

	struct vhost_config config; // strings are the port's own
	struct vhost_hooks hooks;
	uint64_t offered; // features
	bool closing;     // vhost_close() has begun: the caller has already waited for the workers
	pthread_mutex_t dev_lock;

	pthread_mutex_t lock;
	bool connected;
	int conn_vid; // of the connection, whether its device runs or not
	bool running;
	int numa_node;
	uint16_t guest_mtu;
	uint32_t connects;
	uint32_t refused; // front-ends that were sent away
	struct negotiation talk;
	uint64_t rx_since[VHOST_MAX_QUEUES]; // ns, main thread: since when a transmit ring has not moved although it holds something; 0: it has
	uint16_t rx_place[VHOST_MAX_QUEUES];
	uint32_t rx_stuck;          // of these, the ones that seem to hold what can't be used; main thread, read by workers
	uint64_t stuck_since;       // ns, main thread: since when a receive ring has been seen full; 0: it isn't
	int kick[VHOST_MAX_QUEUES]; // duplicates of the kick descriptors; a number once given is kept until vhost_close()

	char fault[160];    // what the front-end or the guest did that cost it its connection; "": nothing
	uint64_t fault_at;  // ns
	bool oversized;     // a packet was larger than packets can be; set by workers, taken by the connector
	bool cut_short;     // memory was not there; set by the signal handler, taken by the connector
	struct guard guard; // the library's threads
	int conn_fd;        // of the connection, where it was found; -1: not. It may have been closed since

	bool registered; // with the library; main thread in server mode, otherwise the connector while it is busy with the port
	bool ending;     // the library may be taking the connection down
	uint64_t gone_at; // ns: when the library told that the last connection has ended

	// The connector's, under conn_lock.
	bool down;            // no connection, the connector is to make one
	bool attempting;      // the connector is busy with this port
	int conn_errno;       // reason why the last attempt failed; 0: it didn't
	int watch;            // inotify watch of the socket's folder, -1: none
	uint64_t retry_at;    // ns
	uint64_t retry_step;  // ns
	uint64_t quick_until; // ns: until then retry quickly, as something has happened at the socket
	TAILQ_ENTRY(vhost_port) client;

	TAILQ_ENTRY(vhost_port) next;
};

TAILQ_HEAD(port_list, vhost_port);

// port.c
extern struct port_list vhost_ports;     // open ports
extern pthread_mutex_t vhost_ports_lock; // of the list; only a port's `lock` is taken under it
uint64_t vhost_clock_ns(void);
char *vhost_sentence(const char *format, ...) __attribute__((format(printf, 1, 2)));
int vhost_port_register(struct vhost_port *); // with the library, not started: 0 or -errno
void vhost_port_unregister(struct vhost_port *);
void vhost_port_changed(struct vhost_port *);
// Notes why the connection can't go on; shown for a while. Any thread but a signal handler.
void vhost_port_fault(struct vhost_port *, const char *format, ...) __attribute__((format(printf, 2, 3)));

// device.c: callbacks of the library.
extern const struct rte_vhost_device_ops vhost_device_ops;
void vhost_device_forget(struct vhost_port *); // the library has dropped the connection without saying so (unregister)

// memory.c
int vhost_memory_check(struct message *);

// guard.c: 0, or -EINVAL if the library must not see the request; its descriptors are closed then and the fault is noted.
int vhost_guard_check(struct vhost_port *, struct message *);
void vhost_guard_begin(struct vhost_port *); // of a connection
void vhost_message_drop_fds(struct message *);

// sigbus.c
int vhost_sigbus_start(void);
void vhost_sigbus_note(struct vhost_port *, int vid); // the memory that is mapped now
void vhost_sigbus_forget(struct vhost_port *);
void vhost_sigbus_handling(struct vhost_port *); // the request of which port this thread handles; NULL: of none

// rings.c
int vhost_rings_open(struct vhost_port *, char **error);
void vhost_rings_close(struct vhost_port *);
void vhost_rings_restore(struct vhost_port *, int vid, uint16_t ring, uint64_t features);
void vhost_rings_forget(struct vhost_port *, uint16_t ring);
// A worker's burst of at most n packets. begin writes down what the burst may use and returns for how many packets that is,
// 0: for none, or the ring can't be used now. need: bytes of each packet, NULL: each takes one buffer. end notes where the
// burst came to; it must follow a begin that gave more than 0, and may follow any.
unsigned int vhost_rings_begin(struct vhost_port *, int vid, uint16_t ring, const uint32_t *need, unsigned int n);
void vhost_rings_end(struct vhost_port *, int vid, uint16_t ring);

// queue.c
void vhost_queue_settle(struct vhost_port *, int vid); // the device goes, and no worker has it any more: what was discarded since the last look
int vhost_queue_waiting(struct vhost_port *, int vid, uint16_t ring);

// connect.c
int vhost_connect_start(char **error); // starts the connector's thread, once
void vhost_connect_add(struct vhost_port *);
void vhost_connect_remove(struct vhost_port *); // returns when the connector is not busy with the port and never will be
void vhost_connect_ending(struct vhost_port *); // the library may be taking the connection down
void vhost_connect_ended(struct vhost_port *);  // the connection has ended
void vhost_connect_wake(void); // look for ports whose memory was cut short; also from a signal handler
// barrier.c
int vhost_barrier_start(void); // once, before the first registration: 0 or -errno
void vhost_barrier(void);      // not on a library thread, and no lock held that its callbacks take
void vhost_connect_settle(struct vhost_port *); // wait until the library has finished with the connection that ended

// socket.c
int vhost_socket_check_path(const char *path, char **error);
int vhost_socket_clear_stale(const char *path, char **error);
int vhost_socket_set_access(const struct vhost_config *, char **error);
// Descriptor of the connection that was made last at this path, or -1.
int vhost_socket_connection(const char *path);
// Ends the connection, as if the front-end had.
void vhost_socket_hang_up(const char *path, int fd);
void vhost_socket_describe_access(const char *path, char *buffer, size_t size);

#endif
