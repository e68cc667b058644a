// stack: see stack.h.
#include "stack.h"
#include "punt.h"
#include "stage.h"
#include "thread_private.h"

static void (*ring_main)(void);
static bool rung; // the main thread was woken and has not come yet

static void ring(void)
{
	if (!__atomic_exchange_n(&rung, true, __ATOMIC_SEQ_CST))
		ring_main();
}

static bool deliver(struct rte_mbuf *m, unsigned worker)
{
	struct thread *t = worker < MAX_WORKERS ? threads[worker] : NULL;

	for (unsigned i = 0; !t && i < MAX_WORKERS; i++)
		t = threads[i];
	if (!t)
		return false;
	punt_queue(&t->w, m);
	__atomic_thread_fence(__ATOMIC_SEQ_CST); // against block(), which says that it sleeps and then looks
	if (__atomic_load_n(&t->asleep, __ATOMIC_RELAXED))
		thread_wake(t);
	return true;
}

static struct rte_mempool *pool(void)
{
	return thread_pool(-1);
}

void stack_init(void (*ring_fn)(void))
{
	ring_main = ring_fn;
	punt_ring = ring;
	punt_deliver = deliver;
	punt_set_pool(pool);
}

void stack_run(void)
{
	__atomic_store_n(&rung, false, __ATOMIC_SEQ_CST);
	punt_poll();
}

static void serve(struct worker *w, void *arg)
{
	punt_serve(w);
	worker_flush(w);
}

void stack_stop(void)
{
	stack_run();
	stages_release();
	thread_call(serve, NULL);
}
