// routes: what the route tables take, by themselves: memory, time to add and to change, to look up while another thread
// changes; beside rte_fib and rte_fib6.
//
//     build/tests/bench/routes [LOOKUPS]     with a number of look-ups: these only, for callgrind
//     --toggle-collect=bench_lookups
#include "key.h"
#include "lpm.h"
#include "rcu.h"
#include "route_table.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <rte_eal.h>
#include <rte_fib.h>
#include <rte_fib6.h>
#include <rte_memory.h>

#define ROUTES 1000000
#define ROUTER 1

static uint8_t (*prefix_ip)[16];
static uint8_t *prefix_len;
static uint8_t (*ask)[16]; // addresses in them
static uint64_t state = 1;
static unsigned lookups = 4000000;

static uint64_t rnd(void)
{
	state = state * 6364136223846793005ULL + 1442695040888963407ULL;
	return state >> 33 ^ state >> 7;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); // other programs' time isn't ours
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double rss_mb(void)
{
	long pages = 0, skip;
	FILE *f = fopen("/proc/self/statm", "r");

	if (f && fscanf(f, "%ld %ld", &skip, &pages) != 2)
		pages = 0;
	if (f)
		fclose(f);
	return (double)pages * (double)sysconf(_SC_PAGESIZE) / 1e6;
}

// Lengths as in a table of the Internet.
static void make(bool v6, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		uint64_t r[2] = {rnd() ^ rnd() << 29, rnd() ^ rnd() << 31};

		memset(prefix_ip[i], 0, 16);
		memcpy(prefix_ip[i], r, v6 ? 16 : 4);
		prefix_len[i] = v6               ? (rnd() % 2 ? 48 : (uint8_t)(32 + rnd() % 17))
				: rnd() % 10 < 6 ? 24
						 : (uint8_t)(16 + rnd() % 9);
		if (v6)
			prefix_ip[i][0] = (uint8_t)(0x20 | (prefix_ip[i][0] & 0x0f));
		memcpy(ask[i], prefix_ip[i], 16);
		for (unsigned b = prefix_len[i]; b < 128; b++)
			prefix_ip[i][b / 8] &= (uint8_t) ~(0x80 >> b % 8);
	}
}

static void set(unsigned i, bool v6, unsigned gateway)
{
	struct route_hop hop = {.weight = 1, .has_gateway = true, .by_address = true, .gateway.v6 = v6};
	struct route_spec s = {.prefix = {.ip.v6 = v6, .len = prefix_len[i]},
			       .source = ROUTE_FILE,
			       .type = ROUTE_UNICAST,
			       .n_hops = 1,
			       .hop = &hop};

	memcpy(s.prefix.ip.b, prefix_ip[i], 16);
	if (v6)
		memcpy(hop.gateway.b, (uint8_t[16]){0xfd, [15] = (uint8_t)(2 + gateway % 100)}, 16);
	else
		memcpy(hop.gateway.b, (uint8_t[4]){10, 0, 0, (uint8_t)(2 + gateway % 100)}, 4);
	if (route_set(ROUTER, 0, &s))
		exit(1);
}

uint64_t bench_lookups(bool v6, unsigned n, unsigned times);
__attribute__((noinline)) uint64_t bench_lookups(bool v6, unsigned n, unsigned times)
{
	struct route_result found;
	uint64_t sum = 0;

	for (unsigned i = 0; i < times; i++) {
		const uint8_t *ip = ask[(uint32_t)(i * 2654435761U) % n];

		sum += route_find(NULL, ROUTER, 0, v6, NULL, ip, 0, 0, i, &found);
	}
	return sum;
}

// ---- changes while another thread looks up

static struct {
	bool v6, stop;
	uint64_t looked, missed;
	double took;
} reader;

static void *look(void *arg)
{
	double begin = now();

	rcu_worker_start(1);
	while (!__atomic_load_n(&reader.stop, __ATOMIC_ACQUIRE)) {
		for (unsigned i = 0; i < 64; i++) {
			struct route_result found;

			reader.missed += route_find(NULL, ROUTER, 0, reader.v6, NULL,
						    ask[reader.looked++ * 2654435761U % ROUTES], 0, 0, i, &found) != ROUTE_UNICAST;
		}
		rcu_quiescent(1);
	}
	rcu_worker_stop(1);
	reader.took = now() - begin;
	return NULL;
}

static void changes(bool v6)
{
	pthread_t thread;

	memset(&reader, 0, sizeof reader);
	reader.v6 = v6;
	pthread_create(&thread, NULL, look, NULL);
	double begin = now();
	for (unsigned i = 0; i < ROUTES; i++) {
		set((unsigned)(i * 2654435761ULL % ROUTES), v6, i + 7);
		if (i % 1000 == 999) {
			route_commit();
			rcu_poll();
		}
	}
	double took = now() - begin;
	__atomic_store_n(&reader.stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	printf("  %.0f changes a second, in batches of 1,000; meanwhile another thread looked up in %.0f ns each, %lu of %lu "
	       "in vain\n",
	       ROUTES / took, reader.took * 1e9 / (double)reader.looked, (unsigned long)reader.missed,
	       (unsigned long)reader.looked);
}

static void family(bool v6, unsigned n, bool only)
{
	struct config_prefix p = {.ip = {.v6 = v6, .b = {v6 ? 0xfd : 10, [3] = !v6}}, .len = v6 ? 64 : 24};

	make(v6, n);
	route_connected(ROUTER, 11, &p, 0, true);
	double rss = rss_mb(), begin = now();
	for (unsigned i = 0; i < n; i++) {
		set(i, v6, i);
		if (i % 1000 == 999) {
			route_commit();
			rcu_poll();
		}
	}
	route_commit();
	rcu_poll();
	double added = now();
	bench_lookups(v6, n, 1000);
	double looked = now();
	bench_lookups(v6, n, lookups);
	printf("%s, %u routes: %.0f ns to add, %.0f MB more, look-up %.0f ns\n", v6 ? "IPv6" : "IPv4", n,
	       (added - begin) * 1e9 / n, rss_mb() - rss, (now() - looked) * 1e9 / lookups);
	if (!only && n == ROUTES)
		changes(v6);
	for (unsigned i = 0; i < n; i++) {
		struct route_spec s = {.prefix = {.ip.v6 = v6, .len = prefix_len[i]}, .source = ROUTE_FILE};

		memcpy(s.prefix.ip.b, prefix_ip[i], 16);
		route_remove(ROUTER, 0, &s);
	}
	route_commit();
	rcu_poll();
}

static void fib4(void)
{
	struct rte_fib_conf c = {.type = RTE_FIB_DIR24_8,
				 .default_nh = 0,
				 .max_routes = ROUTES * 2,
				 .dir24_8 = {.nh_sz = RTE_FIB_DIR24_8_4B, .num_tbl8 = 1 << 15}};
	double rss = rss_mb(), begin = now();
	struct rte_fib *fib = rte_fib_create("bench", SOCKET_ID_ANY, &c);
	uint64_t hop, sum = 0;

	make(false, ROUTES);
	if (!fib) {
		printf("rte_fib: not made\n");
		return;
	}
	for (unsigned i = 0; i < ROUTES; i++) {
		uint32_t ip;

		memcpy(&ip, prefix_ip[i], 4);
		rte_fib_add(fib, __builtin_bswap32(ip), prefix_len[i], 1 + i % 100);
	}
	double added = now();
	for (unsigned i = 0; i < lookups; i++) {
		uint32_t ip;

		memcpy(&ip, ask[(uint32_t)(i * 2654435761U) % ROUTES], 4);
		ip = __builtin_bswap32(ip);
		rte_fib_lookup_bulk(fib, &ip, &hop, 1);
		sum += hop;
	}
	printf("rte_fib, %d routes: %.0f ns to add, %.0f MB more, look-up %.0f ns (%lu)\n", ROUTES,
	       (added - begin) * 1e9 / ROUTES, rss_mb() - rss, (now() - added) * 1e9 / lookups, (unsigned long)sum % 10);
	rte_fib_free(fib);
}

static void fib6(void)
{
	struct rte_fib6_conf c = {.type = RTE_FIB6_TRIE,
				  .default_nh = 0,
				  .max_routes = ROUTES * 2,
				  .trie = {.nh_sz = RTE_FIB6_TRIE_4B, .num_tbl8 = 1 << 20}};
	double rss = rss_mb(), begin = now();
	struct rte_fib6 *fib = rte_fib6_create("bench6", SOCKET_ID_ANY, &c);
	uint64_t hop, sum = 0;
	unsigned failed = 0;

	make(true, ROUTES);
	if (!fib) {
		printf("rte_fib6: not made\n");
		return;
	}
	for (unsigned i = 0; i < ROUTES; i++)
		failed += rte_fib6_add(fib, prefix_ip[i], prefix_len[i], 1 + i % 100) != 0;
	double added = now();
	for (unsigned i = 0; i < lookups; i++) {
		rte_fib6_lookup_bulk(fib, &ask[(uint32_t)(i * 2654435761U) % ROUTES], &hop, 1);
		sum += hop;
	}
	printf("rte_fib6, %d routes, of which %u could not be: %.0f ns to add, %.0f MB more, look-up %.0f ns (%lu)\n", ROUTES,
	       failed, (added - begin) * 1e9 / ROUTES, rss_mb() - rss, (now() - added) * 1e9 / lookups,
	       (unsigned long)sum % 10);
	rte_fib6_free(fib);
}

int main(int argc, char *argv[])
{
	const char *eal[] = {"routes", "--no-huge", "--no-pci", "--no-shconf", "-m", "4096", "-l", "0", "--log-level=error"};
	bool only = argc > 1;

	if (only && !(lookups = (unsigned)strtoul(argv[1], NULL, 10)))
		return 1;
	if (rte_eal_init(sizeof eal / sizeof eal[0], (char **)(uintptr_t)eal) < 0)
		return 1;
	key_init();
	if (rcu_init() || route_init())
		return 1;
	prefix_ip = calloc(ROUTES, 16);
	prefix_len = calloc(ROUTES, 1);
	ask = calloc(ROUTES, 16);
	if (!prefix_ip || !prefix_len || !ask)
		return 1;
	for (int v6 = 0; v6 < 2; v6++) {
		family(v6, 10, only);
		family(v6, ROUTES, only);
	}
	if (!only) {
		fib4();
		fib6();
	}
	route_fini();
	return 0;
}
