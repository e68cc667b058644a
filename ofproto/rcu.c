// rcu: see rcu.h.
#include "rcu.h"
#include "sizes.h"

#include <errno.h>
#include <rte_common.h>
#include <rte_malloc.h>
#include <rte_rcu_qsbr.h>

struct deferred {
	struct deferred *next;
	uint64_t token;
	void (*fn)(void *);
	void *arg;
};

static struct rte_rcu_qsbr *qsbr;
static struct deferred *first, **last = &first;
static unsigned waiting;

int rcu_init(void)
{
	size_t size = rte_rcu_qsbr_get_memsize(MAX_WORKERS);

	qsbr = rte_zmalloc("rcu", size, RTE_CACHE_LINE_SIZE);
	if (!qsbr)
		return -ENOMEM;
	return rte_rcu_qsbr_init(qsbr, MAX_WORKERS) ? -EINVAL : 0;
}

void rcu_fini(void)
{
	while (waiting)
		rcu_poll();
	rte_free(qsbr);
	qsbr = NULL;
}

struct rte_rcu_qsbr *rcu_variable(void)
{
	return qsbr;
}

void rcu_worker_start(unsigned worker)
{
	rte_rcu_qsbr_thread_register(qsbr, worker);
	rte_rcu_qsbr_thread_online(qsbr, worker);
}

void rcu_worker_stop(unsigned worker)
{
	rte_rcu_qsbr_thread_offline(qsbr, worker);
	rte_rcu_qsbr_thread_unregister(qsbr, worker);
}

void rcu_quiescent(unsigned worker)
{
	rte_rcu_qsbr_quiescent(qsbr, worker);
}

void rcu_offline(unsigned worker)
{
	rte_rcu_qsbr_thread_offline(qsbr, worker);
}

void rcu_online(unsigned worker)
{
	rte_rcu_qsbr_thread_online(qsbr, worker);
}

void rcu_synchronize(void)
{
	if (qsbr)
		rte_rcu_qsbr_synchronize(qsbr, RTE_QSBR_THRID_INVALID);
}

void rcu_defer(void (*fn)(void *), void *arg)
{
	struct deferred *d = malloc(sizeof *d);

	if (!d) { // Without memory for the note there is still the slow way.
		rcu_synchronize();
		fn(arg);
		return;
	}
	*d = (struct deferred){.token = qsbr ? rte_rcu_qsbr_start(qsbr) : 0, .fn = fn, .arg = arg};
	*last = d;
	last = &d->next;
	waiting++;
}

unsigned rcu_poll(void)
{
	while (first && (!qsbr || rte_rcu_qsbr_check(qsbr, first->token, false) == 1)) {
		struct deferred *d = first;

		first = d->next;
		if (!first)
			last = &first;
		waiting--;
		d->fn(d->arg);
		free(d);
	}
	return waiting;
}
