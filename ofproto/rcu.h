// rcu: quiescent-state based reclamation for the tables that workers read (rte_rcu_qsbr; McKenney and Slingwine 1998).
//
// Readers are the workers, with their ids. Writers fill first and publish last with rcu_publish(); they unpublish, then hand the old
// object to rcu_free_later(), which frees it once every worker has passed a quiescent point. Nobody but rcu_synchronize() waits.
#ifndef OFPROTO_RCU_H
#define OFPROTO_RCU_H

#include <stdint.h>
#include <stdlib.h>

#define rcu_publish(slot, ptr) __atomic_store_n(&(slot), (ptr), __ATOMIC_RELEASE)
#define rcu_read(slot) __atomic_load_n(&(slot), __ATOMIC_ACQUIRE)

struct rte_rcu_qsbr;

int rcu_init(void);
void rcu_fini(void); // frees everything that waits; no worker runs any more
struct rte_rcu_qsbr *rcu_variable(void);

// Worker threads.
void rcu_worker_start(unsigned worker);
void rcu_worker_stop(unsigned worker);
void rcu_quiescent(unsigned worker);
void rcu_offline(unsigned worker);
void rcu_online(unsigned worker);

// Any thread but a worker's: returns when every worker has passed a quiescent point.
void rcu_synchronize(void);
// Main thread: fn(arg) runs in a later rcu_poll().
void rcu_defer(void (*fn)(void *), void *arg);
static inline void rcu_free_later(void *p)
{
	if (p)
		rcu_defer(free, p);
}
// Main thread: runs what is due. Returns how many are still waiting.
unsigned rcu_poll(void);

#endif
