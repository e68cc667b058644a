// port: the switch's ports: what is behind them, and what workers use of it.
//
// Main thread, but for the functions of struct port_ops that are marked.
#ifndef VSWITCH_PORT_H
#define VSWITCH_PORT_H

#include "config.h"
#include "sizes.h"
#include "worker.h"

#include <stdbool.h>

#define PORT_QUEUES 16 // rx queues of one port at most

struct rte_mempool;

// Packets that were lost below the switch, before they were its own or when they were no more: they are not in the ledger. Id, key in statistics, text.
#define PORT_LOSSES(X)                                                                                                 \
	X(RX_FULL, "below_rx_full", "the device had no free receive descriptor for them: the switch was too slow")     \
	X(RX_ERRORS, "below_rx_errors", "the device received them damaged")                                            \
	X(RX_BUFFERS, "below_rx_buffers", "there was no packet buffer for them when they were received")               \
	X(RX_BAD, "below_rx_bad", "the vhost library discards them: the guest's driver described them wrongly")        \
	X(RX_KERNEL, "below_rx_kernel", "the kernel had no room for them on their way to the switch")                  \
	X(TX_ERRORS, "below_tx_errors", "the device took them and could not send them")                                \
	X(TX_KERNEL, "below_tx_kernel", "the kernel behind the interface had no room for them, or nobody who wanted them")
enum port_loss {
#define X(id, key, text) LOSS_##id,
	PORT_LOSSES(X)
#undef X
	LOSS_N
};
#define LOSS_NONE UINT64_MAX          // the device can't lose packets so
#define LOSS_UNKNOWN (UINT64_MAX - 1) // nobody can tell
struct port_loss_desc {
	const char *key, *text;
};
extern const struct port_loss_desc port_loss_desc[LOSS_N];

// What a device says of itself.
struct port_state {
	bool link_up;
	int numa_node;          // -1: not known
	uint16_t mtu;           // of the device; 0: not known
	uint16_t guest_mtu;     // that the guest behind it was told at its start; 0: none, or not known
	char problem[256];      // why no traffic passes; "": all is well
	struct {
		char key[32];
		char value[96];
	} status[24];
	unsigned n_status;
	uint64_t loss[LOSS_N];  // since the device is open; what it doesn't set is LOSS_NONE
};

struct port_open {
	const struct config_port *config;
	const char *rundir;
	uint16_t mtu;                      // that the port should have
	bool only_mtu;                     // reconfigure: nothing else has changed
	unsigned n_workers;                // threads that will send
	struct rte_mempool *pool;          // for devices that fill their rings themselves
	void (*changed)(void *arg);        // state or queues changed; any thread
	void (*quiesce)(void *arg);        // wait for the workers; not on a worker
	void *arg;
};

// A kind of device.
struct port_ops {
	const char *type;
	int (*open)(const struct port_open *, void **dev, char **error);
	// The config or MTU changed. 0: done; -ENOTSUP: close and open again.
	int (*reconfigure)(void *dev, const struct port_open *, char **error);
	void (*close)(void *dev);
	// The port's row is gone for good: what the device kept on disk goes too. May be NULL.
	void (*forget)(const char *rundir, const char *name);
	void (*state)(void *dev, struct port_state *);
	int (*room)(void *dev, uint16_t q);  // would queue q take a packet now: 1, 0, < 0 not known. May be NULL: not known
	int (*link)(void *dev);              // 1: up. NULL: the device can't be a member of a bond
	int (*rx_fd)(void *dev, uint16_t q); // becomes readable when packets come after rx_arm(); -1: there is none
	// Workers from here on.
	uint32_t (*rx_queues)(void *dev); // bit q: queue q can be polled
	uint32_t (*tx_queues)(void *dev);
	unsigned (*caps)(void *dev);      // OFFLOAD_*
	uint16_t (*rx)(void *dev, uint16_t q, struct rte_mempool *, struct rte_mbuf **, uint16_t n);
	// Returns how many it took, the first ones. `worker`: the sender's id.
	uint16_t (*tx)(void *dev, uint16_t q, unsigned worker, struct rte_mbuf **, uint16_t n);
	// Which of `queues`, of which there are several, the packet goes to. May be NULL: by a hash of its addresses and ports.
	unsigned (*pick)(void *dev, struct rte_mbuf *, uint32_t queues);
	// 1: packets are waiting; 0: armed; < 0: can't be armed, poll.
	int (*rx_arm)(void *dev, uint16_t q, bool on);
	bool guest;    // there is a guest behind it, who posts receive buffers
	bool tx_keeps; // packets that were taken are the device's; else they stay the caller's
};

extern const struct port_ops port_ops_vhost, port_ops_tap, port_ops_kernel, port_ops_dpdk, port_ops_bond, port_ops_router, port_ops_tunnel;

// An open device, as workers know it. Lives until every worker has let go of it.
struct port_dev {
	const struct port_ops *ops;
	void *dev;
};

// What was told of a port last: port_watch.c.
struct port_watch {
	bool seen, up, connected;
	uint8_t welcomes; // how often its stations are still to be told whom they talk with
	unsigned long connects, refused;
	uint64_t undecided;
	char problem[256];
};

struct port {
	uint16_t id;
	struct row_id row;
	char *name;
	char *affinity;      // other_config:rxq-affinity, NULL: none
	char *signature;     // of the configuration that the device was opened with
	char *error;         // why its device isn't open; NULL: it is
	struct port_dev *device; // NULL: not open; RCU for those who got it through port_worker.device or struct rxq
	uint16_t bond;       // the port whose packets its device's are, as it is a member of that; 0: its own
	bool changed;        // since the last look; set by any thread
	bool seen;           // by the reconcile that is at work
	uint16_t mtu;
	uint16_t link_mtu;   // of the kernel interface when the config was applied; 0: not known, or none
	struct config_port config; // name, type and options of the last config, for another try
	long long retry_ms;  // when to try to open it again
	struct port_worker *pw[MAX_WORKERS];
	struct counts retired; // of workers that are gone
	struct port_watch watch;
	uint64_t lost[LOSS_N]; // by devices that it had before
	struct port_load retired_load;
};

// The port with this id or name, or NULL. Port 0 is always there: the switch's own account.
struct port *port_get(uint16_t id);
struct port *port_find(const char *name);
// Calls fn for each port, by id.
void port_each(void (*fn)(struct port *, void *), void *);
unsigned port_count(void);

// Reconcile, first part: numbers the config's ports and takes the queues of ports that it doesn't have any more from the workers.
void port_reconcile_begin(struct config *);
// Second part, after stages_reconcile(): closes the devices of ports that are gone, opens and changes others. Sets errors.
void port_reconcile_end(struct config *);
// Opens again what could not be opened. Returns whether something changed that the assignment of queues depends on.
bool port_run(long long now_ms);
// When port_run() has something to do next, milliseconds of the monotonic clock; LLONG_MAX: nothing.
long long port_next(void);
// `changed`: something happened on a port; any thread.
void port_init(const char *rundir, void (*changed)(void));
void port_close_all(void);

// The MTU that the port's device is to have.
uint16_t port_mtu(const struct config *, const struct config_port *);
// The MTU in force on the port, bytes of layer 3: what a guest behind it is to have.
uint16_t port_mtu_now(const struct port *);
// What its device says, with the losses of those before it; a problem too, if none is open.
void port_state(struct port *, struct port_state *);
// Sums the counters of all workers.
void port_counts(const struct port *, struct counts *sum);

#endif
