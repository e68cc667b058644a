// thread: the worker threads: which cores, which rx queues, when they sleep.
//
// Main thread, but for what a struct thread's own thread does.
#ifndef VSWITCH_THREAD_H
#define VSWITCH_THREAD_H

#include "config.h"
#include "port.h"
#include "worker.h"

#define BURST_SIZES 7 // histogram of burst sizes: 0, 1, 2-3, 4-7, 8-15, 16-31, 32

struct rxq_stats {
	uint64_t packets, bursts, cycles; // written by the worker that has the queue
};

// One rx queue in the hands of one worker.
struct rxq {
	struct port_dev *device;
	uint16_t port;   // whose packets they are: that of the device, or the bond that it is a member of
	uint16_t member; // that of the device
	uint16_t queue;
	uint16_t place;  // of the member in `bond`
	struct bond *bond; // NULL: none, or none that is open
	struct rxq_stats *stats;
};

// What a worker polls; immutable once published.
struct rxq_list {
	unsigned n;
	struct rxq rxq[];
};

// Written by the worker, read by anybody: each figure is right by itself.
struct thread_stats {
	uint64_t iterations;
	uint64_t busy_cycles;  // in iterations that had packets
	uint64_t idle_cycles;  // in others, and asleep
	uint64_t packets;
	uint64_t bursts[BURST_SIZES];
	uint64_t pauses;       // short sleeps
	uint64_t blocks;       // waits for a notification
	uint64_t blocked_ns;
	uint64_t wakeups;      // measured by the probe: main thread to worker
	uint64_t wakeup_ns_sum, wakeup_ns_max, wakeup_ns_last;
};

struct thread;

struct thread_view {
	unsigned id;
	int core; // -1: not pinned
	int numa_node;
	struct thread_stats stats;
	uint64_t longest_ns, longest_away_ns, own_ns, own_asleep_ns; // see pause.h
	struct flow_table_stats flows;
	unsigned n_rxqs;
};

// Makes the workers what other_config wants: worker-cores, poll, sleep-max-us, flow-limit, flow-idle-timeout, resolve-queue,
// history-*. Sentences about keys that
// can't be used go to *problem (malloc'ed).
int thread_reconcile(const struct config_map *other_config, char **problem);
void thread_stop_all(void);
unsigned thread_count(void);
void thread_view_each(void (*fn)(const struct thread_view *, void *), void *);
struct worker *thread_worker(unsigned id); // NULL: no such worker
struct recorder *thread_recorder(unsigned id); // its flight recorder, NULL: no such worker
struct pause *thread_pause(unsigned id);       // its longest rounds, NULL: no such worker
struct rte_mempool *thread_pool(int numa_node);
// What worker `id` has dropped, `id` MAX_WORKERS: what workers that ended had. NULL: there is none.
const struct drops *thread_drops(unsigned id);

// Gives the rx queues of all open ports to the workers, by load and rxq-affinity. Moves as few as it can.
void thread_assign(bool rebalance);
void thread_list_queues(void (*fn)(unsigned worker, const struct rxq *, double share, void *), void *);
// Takes all queues of the port away from the workers, and waits until none uses them.
void thread_take_queues(struct port *);
// Attaches the port to every worker, or detaches it: what waits is dropped, counters go to port 0.
int thread_attach(struct port *);
void thread_detach(struct port *);
// Runs fn on each worker's thread, one after the other, and waits for it.
void thread_call(void (*fn)(struct worker *, void *), void *);
// Wakes workers up, and measures how long that takes.
void thread_probe_wakeup(void);
void thread_wake_all(void);
// Watches the notification descriptors of all queues anew.
void thread_rewire(void);

#endif
