// rcu: nothing is freed while a worker may still look at it, and nobody waits who doesn't ask to.
#include "lab.h"

#include <pthread.h>
#include <sched.h>

static int freed;

static void count_free(void *arg)
{
	freed += *(int *)arg;
}

static int setup(void **state)
{
	lab_eal();
	freed = 0;
	return 0;
}

static void without_workers(void **state)
{
	int one = 1;

	rcu_defer(count_free, &one);
	assert_int_equal(freed, 0); // never at once: the caller may not have unpublished all of it
	assert_int_equal(rcu_poll(), 0);
	assert_int_equal(freed, 1);
	rcu_synchronize();
	rcu_free_later(NULL);
	assert_int_equal(rcu_poll(), 0);
}

// Workers are driven from here: a worker is what its id says, whatever thread it is.
static void a_grace_period(void **state)
{
	int one = 1;

	rcu_worker_start(3);
	rcu_worker_start(4);
	rcu_defer(count_free, &one);
	assert_int_equal(rcu_poll(), 1);
	rcu_quiescent(3);
	assert_int_equal(rcu_poll(), 1);
	rcu_quiescent(3);
	assert_int_equal(rcu_poll(), 1);
	rcu_quiescent(4);
	assert_int_equal(rcu_poll(), 0);
	assert_int_equal(freed, 1);
	// A sleeping worker holds up nobody.
	rcu_offline(4);
	rcu_defer(count_free, &one);
	assert_int_equal(rcu_poll(), 1);
	rcu_quiescent(3);
	assert_int_equal(rcu_poll(), 0);
	rcu_online(4);
	// In the order they came.
	rcu_defer(count_free, &one);
	rcu_quiescent(3);
	rcu_quiescent(4);
	rcu_defer(count_free, &one);
	assert_int_equal(rcu_poll(), 1);
	assert_int_equal(freed, 3);
	rcu_quiescent(3);
	rcu_worker_stop(4); // one that stops, too
	assert_int_equal(rcu_poll(), 0);
	assert_int_equal(freed, 4);
	rcu_worker_stop(3);
}

struct thing {
	uint64_t a, b;
};

static struct thing *published;
static bool stop;

static void *worker(void *arg)
{
	unsigned id = *(unsigned *)arg;

	rcu_worker_start(id);
	for (unsigned i = 0; !__atomic_load_n(&stop, __ATOMIC_ACQUIRE); i++) {
		const struct thing *t = rcu_read(published);

		if (t->a != ~t->b)
			abort();
		rcu_quiescent(id);
		if (i % 1000 == 0) { // as a worker that goes to sleep
			rcu_offline(id);
			sched_yield();
			rcu_online(id);
		}
	}
	rcu_worker_stop(id);
	return NULL;
}

static void unpublish(void *arg)
{
	struct thing *t = arg;

	t->a = t->b = 0; // what a worker would abort on
	free(t);
}

static struct thing *make(uint64_t n)
{
	struct thing *t = malloc(sizeof *t);

	*t = (struct thing){n, ~n};
	return t;
}

static void real_workers(void **state)
{
	unsigned ids[2] = {10, 63};
	pthread_t thread[2];

	stop = false;
	published = make(0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, worker, &ids[i]), 0);
	for (uint64_t n = 1; n < 20000; n++) {
		struct thing *old = published;

		rcu_publish(published, make(n));
		rcu_defer(unpublish, old);
		rcu_poll();
		if (n % 1000 == 0) {
			old = published;
			rcu_publish(published, make(n));
			rcu_synchronize();
			unpublish(old);
		}
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(rcu_poll(), 0);
	free(published);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(without_workers, setup),
		cmocka_unit_test_setup(a_grace_period, setup),
		cmocka_unit_test_setup(real_workers, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
