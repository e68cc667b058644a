// lpm: held to a model that looks at every prefix; what readers see while prefixes come and go; memory.
#include "lab.h"
#include "lpm.h"
#include "rcu.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

struct prefix {
	uint8_t ip[16];
	uint8_t len;
	bool there;
	uintptr_t value;
};

static uint64_t random_state;

static uint64_t rnd(void)
{
	random_state = random_state * 6364136223846793005ULL + 1442695040888963407ULL;
	return random_state >> 33 ^ random_state >> 11;
}

static bool covers(const struct prefix *p, const uint8_t *ip)
{
	for (unsigned i = 0; i < p->len; i++)
		if ((p->ip[i / 8] ^ ip[i / 8]) & 0x80 >> i % 8)
			return false;
	return true;
}

static void cut(struct prefix *p)
{
	for (unsigned i = p->len; i < 128; i++)
		p->ip[i / 8] &= (uint8_t) ~(0x80 >> i % 8);
}

// Addresses from a small part of the space, so that prefixes are in one another and share nodes.
static void any_ip(uint8_t ip[16], bool v6)
{
	static const uint8_t few[] = {0, 1, 0x80, 0xff, 0xfe, 0x7f};

	memset(ip, 0, 16);
	for (unsigned i = 0; i < (v6 ? 16 : 4); i++)
		ip[i] = rnd() % 3 ? few[rnd() % sizeof few] : (uint8_t)rnd();
}

static bool same_prefix(const struct prefix *a, const struct prefix *b)
{
	return a->len == b->len && !memcmp(a->ip, b->ip, 16);
}

static void look(const struct lpm *t, bool v6, const struct prefix *all, unsigned n, const uint8_t *ip)
{
	const struct prefix *best = NULL;
	uint8_t max = rnd() % 4 ? (v6 ? 128 : 32) : (uint8_t)(rnd() % (v6 ? 129 : 33)), len = 255;

	for (unsigned i = 0; i < n; i++)
		if (all[i].there && all[i].len <= max && covers(&all[i], ip) && (!best || all[i].len > best->len))
			best = &all[i];
	uintptr_t found = (uintptr_t)lpm_find(t, v6, ip, max, &len);
	assert_int_equal(found, best ? best->value : 0);
	if (best)
		assert_int_equal(len, best->len);
}

struct order {
	const struct prefix *all;
	unsigned n, seen, stop;
	struct lpm_at last;
	bool v6;
};

static bool in_order(void *arg, const struct lpm_at *at, void *value)
{
	struct order *o = arg;

	if (!o->stop--)
		return false;
	if (o->last.begun) {
		int c = memcmp(o->last.ip, at->ip, 16);
		assert_true(c < 0 || (c == 0 && o->last.len < at->len));
	}
	o->last = *at;
	o->seen++;
	for (unsigned i = 0; i < o->n; i++)
		if (o->all[i].there && o->all[i].len == at->len && !memcmp(o->all[i].ip, at->ip, 16)) {
			assert_int_equal((uintptr_t)value, o->all[i].value);
			return true;
		}
	fail();
	return true;
}

static void against_model(bool v6, unsigned n, unsigned steps)
{
	struct prefix *all = calloc(n, sizeof *all);
	struct lpm t = {0};
	unsigned there = 0;
	uint8_t ip[16];

	for (unsigned i = 0; i < n; i++)
		do {
			any_ip(all[i].ip, v6);
			all[i].len = (uint8_t)(rnd() % (v6 ? 129 : 33));
			cut(&all[i]);
			all[i].value = i + 1;
			for (unsigned k = 0; k < i && all[i].value; k++)
				if (same_prefix(&all[k], &all[i]))
					all[i].value = 0;
		} while (!all[i].value);
	for (unsigned s = 0; s < steps; s++) {
		struct prefix *p = &all[rnd() % n];
		void *old;

		if (rnd() % (s < steps / 2 ? 3 : 2)) {
			p->value = rnd() % 1000000 + 1;
			assert_int_equal(lpm_set(&t, v6, p->ip, p->len, (void *)p->value, &old), 0);
			assert_int_equal(old != NULL, p->there);
			there += !p->there;
			p->there = true;
		} else {
			uintptr_t was = (uintptr_t)lpm_remove(&t, v6, p->ip, p->len);
			assert_int_equal(was, p->there ? p->value : 0);
			there -= p->there;
			p->there = false;
		}
		assert_int_equal(t.prefixes, there);
		assert_int_equal((uintptr_t)lpm_get(&t, v6, p->ip, p->len), p->there ? p->value : 0);
		for (unsigned k = 0; k < 4; k++) {
			any_ip(ip, v6);
			look(&t, v6, all, n, ip);
			look(&t, v6, all, n, all[rnd() % n].ip);
		}
		if (s % 500 == 0) {
			// All of them, in order, with stops on the way.
			struct order o = {.all = all, .n = n, .v6 = v6};
			for (bool more = true; more;) {
				struct lpm_at from = o.last;
				o.stop = (unsigned)(rnd() % 40 + 1);
				more = lpm_walk(&t, v6, &from, in_order, &o);
			}
			assert_int_equal(o.seen, there);
			lpm_flush();
			rcu_poll();
		}
	}
	for (unsigned i = 0; i < n; i++)
		lpm_remove(&t, v6, all[i].ip, all[i].len);
	// Nothing stays behind.
	assert_null(t.root);
	assert_int_equal(t.prefixes, 0);
	assert_int_equal(t.nodes, 0);
	assert_int_equal(t.bytes, 0);
	lpm_flush();
	free(all);
}

static void model_v4(void **state)
{
	against_model(false, 30, 3000);
	against_model(false, 400, 20000);
}

static void model_v6(void **state)
{
	against_model(true, 30, 3000);
	against_model(true, 400, 20000);
}

static void edges(void **state)
{
	struct lpm t = {0};
	uint8_t zero[16] = {0}, ones[16], len;
	void *old;

	memset(ones, 0xff, sizeof ones);
	for (int v6 = 0; v6 < 2; v6++) {
		uint8_t full = v6 ? 128 : 32;

		assert_null(lpm_find(&t, v6, ones, full, &len));
		assert_null(lpm_remove(&t, v6, ones, full));
		lpm_set(&t, v6, zero, 0, (void *)1, &old);
		lpm_set(&t, v6, ones, full, (void *)2, &old);
		lpm_set(&t, v6, zero, full, (void *)3, &old);
		assert_int_equal((uintptr_t)lpm_find(&t, v6, ones, full, &len), 2);
		assert_int_equal(len, full);
		assert_int_equal((uintptr_t)lpm_find(&t, v6, zero, full, &len), 3);
		assert_int_equal((uintptr_t)lpm_find(&t, v6, zero, (uint8_t)(full - 1), &len), 1);
		assert_int_equal(len, 0);
		lpm_remove(&t, v6, zero, 0);
		assert_null(lpm_find(&t, v6, zero, (uint8_t)(full - 1), &len));
		while (lpm_free_some(&t, 1, NULL))
			;
		assert_int_equal(t.bytes, 0);
	}
	lpm_flush();
}

// ---- readers race with the writer

#define READERS 2

static struct race {
	struct lpm t;
	bool v6, stop;
	uint64_t looked, missed, wrong;
	unsigned online;
} race;

// Addresses of 10.1.0.0/16, or of 2001:db8::/32, that longer prefixes come and go over.
static void race_ip(uint8_t ip[16], uint64_t r)
{
	memset(ip, 0, 16);
	if (race.v6) {
		memcpy(ip, (uint8_t[]){0x20, 1, 0xd, 0xb8}, 4);
		memcpy(ip + 4, &r, 8);
		ip[4] &= 3; // few
		ip[5] &= 3;
	} else {
		memcpy(ip, (uint8_t[]){10, 1, (uint8_t)(r & 7), (uint8_t)(r >> 8)}, 4);
	}
}

static void *reader(void *arg)
{
	unsigned id = (unsigned)(uintptr_t)arg;
	uint64_t r = id * 77777 + 1, looked = 0, missed = 0, wrong = 0;
	uint8_t ip[16], len;

	rcu_worker_start(id);
	__atomic_add_fetch(&race.online, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&race.stop, __ATOMIC_ACQUIRE)) {
		for (unsigned i = 0; i < 64; i++) {
			r = r * 6364136223846793005ULL + 1442695040888963407ULL;
			race_ip(ip, r >> 20);
			// Values are allocated: what was freed too early is found by the sanitizer. They hold their prefix'
			// length.
			uint8_t *value = lpm_find(&race.t, race.v6, ip, race.v6 ? 128 : 32, &len);
			missed += !value;
			wrong += value && *value != len;
		}
		looked += 64;
		rcu_quiescent(id);
	}
	rcu_worker_stop(id);
	__atomic_add_fetch(&race.looked, looked, __ATOMIC_RELAXED);
	__atomic_add_fetch(&race.missed, missed, __ATOMIC_RELAXED);
	__atomic_add_fetch(&race.wrong, wrong, __ATOMIC_RELAXED);
	return NULL;
}

static void race_set(const uint8_t *ip, uint8_t len)
{
	uint8_t *value = malloc(1);
	void *old;

	assert_non_null(value);
	*value = len;
	assert_int_equal(lpm_set(&race.t, race.v6, ip, len, value, &old), 0);
	lpm_retire(old);
}

static void race_family(bool v6)
{
	pthread_t thread[READERS];
	uint8_t ip[16];
	uint8_t fixed = v6 ? 32 : 16;

	memset(&race, 0, sizeof race);
	race.v6 = v6;
	race_ip(ip, 0);
	race_set(ip, fixed);
	for (uintptr_t i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, reader, (void *)i), 0);
	while (__atomic_load_n(&race.online, __ATOMIC_ACQUIRE) < READERS)
		sched_yield();
	for (unsigned i = 0; i < 200000; i++) {
		race_ip(ip, rnd());
		uint8_t len = (uint8_t)(fixed + 1 + rnd() % ((v6 ? 128 : 32) - fixed));
		// A long prefix under the fixed one comes and goes, now and then the fixed one's value changes.
		race_set(ip, len);
		if (rnd() % 2) {
			race_ip(ip, rnd());
			for (uint8_t l = fixed + 1; l <= (v6 ? 128 : 32); l++)
				lpm_retire(lpm_remove(&race.t, v6, ip, l));
		}
		if (i % 7 == 0)
			race_set(ip, fixed);
		if (i % 64 == 0) {
			lpm_flush();
			rcu_poll();
		}
	}
	__atomic_store_n(&race.stop, true, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < READERS; i++)
		pthread_join(thread[i], NULL);
	assert_true(race.looked > 0);
	assert_int_equal(race.missed, 0);
	assert_int_equal(race.wrong, 0);
	while (lpm_free_some(&race.t, 100, free))
		;
	assert_int_equal(race.t.bytes, 0);
	lpm_flush();
	while (rcu_poll())
		;
}

static void races_v4(void **state)
{
	race_family(false);
}

static void races_v6(void **state)
{
	race_family(true);
}

// ---- what it takes: printed, not asserted

static uint64_t ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static void figures(bool v6, unsigned n)
{
	struct lpm t = {0};
	uint8_t(*ip)[16] = calloc(n, 16), len;
	uint8_t *lens = malloc(n);
	uint64_t sum = 0;
	void *old;

	for (unsigned i = 0; i < n; i++) {
		uint64_t r = rnd() << 32 ^ rnd();
		memcpy(ip[i], &r, 8);
		if (v6)
			memcpy(ip[i], (uint8_t[]){0x20, 1, (uint8_t)(r % 8)}, 3);
		lens[i] = v6 ? (rnd() % 2 ? 48 : 32 + rnd() % 17) : (rnd() % 10 < 6 ? 24 : 16 + rnd() % 9);
	}
	uint64_t start = ns();
	for (unsigned i = 0; i < n; i++)
		lpm_set(&t, v6, ip[i], lens[i], (void *)1, &old);
	uint64_t set = ns();
	for (unsigned i = 0; i < 1000000; i++)
		sum += (uintptr_t)lpm_find(&t, v6, ip[(i * 2654435761u) % n], v6 ? 128 : 32, &len);
	uint64_t found = ns();
	print_message("%s, %u prefixes: %.1f MB, %.0f ns to add, %.0f ns to look up\n", v6 ? "IPv6" : "IPv4",
		      (unsigned)t.prefixes, (double)t.bytes / 1e6, (double)(set - start) / n, (double)(found - set) / 1e6);
	assert_int_equal(sum, 1000000);
	for (unsigned i = 0; i < n; i++)
		lpm_remove(&t, v6, ip[i], lens[i]);
	assert_int_equal(t.bytes, 0);
	lpm_flush();
	free(ip);
	free(lens);
}

static void measured(void **state)
{
	figures(false, 10);
	figures(false, 1000000);
	figures(true, 10);
	figures(true, 1000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(model_v4), cmocka_unit_test(model_v6), cmocka_unit_test(edges),
		cmocka_unit_test(races_v4), cmocka_unit_test(races_v6), cmocka_unit_test(measured),
	};

	lab_eal();
	random_state = 20041;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
