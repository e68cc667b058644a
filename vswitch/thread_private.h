// thread_private: what thread.c (the workers' loop) and assign.c (who polls what) share.
#ifndef VSWITCH_THREAD_PRIVATE_H
#define VSWITCH_THREAD_PRIVATE_H

#include "pause.h"
#include "recorder.h"
#include "thread.h"

#include <pthread.h>
#include <semaphore.h>

struct call {
	void (*fn)(struct worker *, void *);
	void *arg;
	sem_t done;
};

struct thread {
	struct worker w;
	pthread_t pthread;
	int core;
	int numa_node;
	int wake_fd;          // eventfd
	int epoll_fd;
	bool stop;
	bool busy_poll;
	unsigned sleep_max_us;
	struct rxq_list *list; // RCU
	struct call *call;     // one at a time
	uint64_t probe_tsc;    // when the main thread rang the bell, 0: it did not
	uint64_t asleep;       // it waits in epoll
	struct thread_stats stats;
	// The thread's own.
	uint32_t swept_ms;
	uint64_t idle_rounds;
	unsigned pause_us;
	unsigned n_waiting;    // ports with packets in their egress queue
	uint16_t waiting[MAX_PORTS];
	bool is_waiting[MAX_PORTS];
	// For the instruments.
	struct recorder *recorder;
	struct pause pause;
	uint64_t look_cycles;  // between two looks of `pause`
	uint32_t bursts_left;  // until one is measured, part by part
	uint64_t call_cycles;  // of a call served in this round
	long preemptions;      // of the thread, as of preemptions_ns
	uint64_t preemptions_ns;
};

extern struct thread *threads[MAX_WORKERS];

void thread_wake(struct thread *);
// `core`: -1: not pinned. NULL: no memory, or no thread to be had.
struct thread *thread_start(unsigned id, int core, const struct flow_table_config *);
void thread_stop(struct thread *);
void thread_call_one(struct thread *, void (*fn)(struct worker *, void *), void *arg);

#endif
