// route_table: preference, next hops, policies, rows, generations; route tables without packets.
#include "lab.h"
#include "key.h"
#include "lpm.h"
#include "rcu.h"
#include "route_line.h"
#include "route_table.h"
#include "stage.h"

#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <time.h>

#define R 5 // a router's id

static struct config_prefix prefix(const char *text)
{
	struct config_prefix p = {0};
	char ip[64];
	unsigned len;

	assert_int_equal(sscanf(text, "%63[^/]/%u", ip, &len), 2);
	p.ip.v6 = strchr(ip, ':') != NULL;
	assert_int_equal(inet_pton(p.ip.v6 ? AF_INET6 : AF_INET, ip, p.ip.b), 1);
	p.len = (uint8_t)len;
	return p;
}

static struct config_ip addr(const char *text)
{
	char with[80];

	snprintf(with, sizeof with, "%s/0", text);
	return prefix(with).ip;
}

static struct route_hop via(const char *gateway, uint16_t weight)
{
	return (struct route_hop){.weight = weight, .has_gateway = true, .by_address = true, .gateway = addr(gateway)};
}

static int set(const char *p, enum route_source source, uint32_t metric, const struct route_hop *hop, uint16_t n)
{
	int rc = route_set(R, 0,
			   &(struct route_spec){.prefix = prefix(p),
						.source = source,
						.type = n ? ROUTE_UNICAST : ROUTE_BLACKHOLE,
						.metric = metric,
						.hop = hop,
						.n_hops = n});

	route_commit();
	return rc;
}

static bool unset(const char *p, enum route_source source, uint32_t metric)
{
	bool there = route_remove(R, 0, &(struct route_spec){.prefix = prefix(p), .source = source, .metric = metric});

	route_commit();
	return there;
}

static struct route_result found;

static enum route_type find_hashed(const char *dst, uint64_t hash)
{
	struct config_ip d = addr(dst), s = addr(d.v6 ? "2001:db8:ffff::1" : "192.0.2.1");

	return route_find(NULL, R, 0, d.v6, s.b, d.b, 0, 0, hash, &found);
}

// The gateway's last byte, 0: on the link; -type if it isn't unicast.
static int find(const char *dst)
{
	if (find_hashed(dst, 1) != ROUTE_UNICAST)
		return -(int)found.type;
	return found.hop->has_gateway ? found.hop->gateway.b[found.hop->gateway.v6 ? 15 : 3] : 0;
}

static void connect_port(uint16_t port, const char *p, bool add)
{
	struct config_prefix c = prefix(p);

	route_connected(R, port, &c, port, add);
}

static int setup(void **state)
{
	lab_eal();
	key_init();
	assert_int_equal(route_init(), 0);
	connect_port(11, "10.0.0.1/24", true);
	connect_port(11, "2001:db8::1/64", true);
	connect_port(12, "10.0.1.1/24", true);
	connect_port(11, "fe80::1/64", true);
	return 0;
}

static int teardown(void **state)
{
	route_fini();
	assert_int_equal(route_total(), 0);
	return 0;
}

static void connected(void **state)
{
	assert_int_equal(find("10.0.0.77"), 0);
	assert_int_equal(found.hop->port, 11);
	assert_int_equal(found.len, 24);
	assert_int_equal(found.row, 11);
	assert_int_equal(find("10.0.1.77"), 0);
	assert_int_equal(found.hop->port, 12);
	assert_int_equal(find("10.0.0.1"), -ROUTE_LOCAL);
	assert_int_equal(found.hop->port, 11);
	assert_int_equal(find("10.0.0.255"), -ROUTE_BLACKHOLE);
	assert_int_equal(find("10.0.2.1"), -ROUTE_NONE);
	assert_int_equal(find("2001:db8::2"), 0);
	assert_int_equal(find("2001:db8::1"), -ROUTE_LOCAL);
	assert_int_equal(find("fe80::1"), -ROUTE_NONE); // a matter of the link
	// Two ports with the same prefix: when one goes, the other one stays.
	connect_port(13, "10.0.0.9/24", true);
	assert_int_equal(find("10.0.0.77"), 0);
	assert_int_equal(found.hop->port, 11);
	connect_port(11, "10.0.0.1/24", false);
	assert_int_equal(find("10.0.0.77"), 0);
	assert_int_equal(found.hop->port, 13);
	assert_int_equal(find("10.0.0.1"), 0); // nobody's address any more
	connect_port(13, "10.0.0.9/24", false);
	assert_int_equal(find("10.0.0.77"), -ROUTE_NONE);
	// A host's prefix, and a link of two.
	connect_port(14, "192.0.2.1/32", true);
	connect_port(14, "192.0.2.4/31", true);
	assert_int_equal(find("192.0.2.1"), -ROUTE_LOCAL);
	assert_int_equal(find("192.0.2.5"), 0);
}

static void metrics(void **state)
{
	set("10.9.0.0/16", ROUTE_FILE, 20, (struct route_hop[]){via("10.0.0.20", 1)}, 1);
	assert_int_equal(find("10.9.1.1"), 20);
	set("10.9.0.0/16", ROUTE_KERNEL, 10, (struct route_hop[]){via("10.0.0.10", 1)}, 1);
	assert_int_equal(find("10.9.1.1"), 10);
	set("10.9.0.0/16", ROUTE_FILE, 30, (struct route_hop[]){via("10.0.0.30", 1)}, 1);
	set("10.9.0.0/16", ROUTE_FILE, 10, (struct route_hop[]){via("10.0.0.11", 1)}, 1); // as good: the source decides
	assert_int_equal(find("10.9.1.1"), 11);
	assert_int_equal(found.metric, 10);
	assert_int_equal(found.source, ROUTE_FILE);
	assert_true(unset("10.9.0.0/16", ROUTE_FILE, 10));
	assert_false(unset("10.9.0.0/16", ROUTE_FILE, 10));
	assert_int_equal(find("10.9.1.1"), 10);
	assert_true(unset("10.9.0.0/16", ROUTE_FILE, 20)); // in the midst of the list
	assert_true(unset("10.9.0.0/16", ROUTE_KERNEL, 10));
	assert_int_equal(find("10.9.1.1"), 30);
	set("10.9.0.0/16", ROUTE_FILE, 30, NULL, 0); // replaced
	assert_int_equal(find("10.9.1.1"), -ROUTE_BLACKHOLE);
	assert_int_equal(route_count(R, 0, ROUTE_FILE), 1);
	unset("10.9.0.0/16", ROUTE_FILE, 30);
	assert_int_equal(find("10.9.1.1"), -ROUTE_NONE);
	// Bits beyond the length don't count.
	set("10.9.77.88/16", ROUTE_FILE, 0, (struct route_hop[]){via("10.0.0.5", 1)}, 1);
	assert_int_equal(find("10.9.1.1"), 5);
	assert_true(unset("10.9.0.0/16", ROUTE_FILE, 0));
	// A default route.
	set("0.0.0.0/0", ROUTE_FILE, 0, (struct route_hop[]){via("10.0.0.6", 1)}, 1);
	set("::/0", ROUTE_FILE, 0, (struct route_hop[]){via("2001:db8::7", 1)}, 1);
	assert_int_equal(find("203.0.113.1"), 6);
	assert_int_equal(find("2a00::1"), 7);
}

static void gateways_without_a_port(void **state)
{
	set("0.0.0.0/0", ROUTE_FILE, 0, (struct route_hop[]){via("10.0.0.6", 1)}, 1);
	set("10.9.0.0/16", ROUTE_FILE, 0, (struct route_hop[]){via("10.0.7.9", 1)}, 1);
	// No port is near 10.0.7.9: the route counts as not there.
	assert_int_equal(find("10.9.1.1"), 6);
	connect_port(17, "10.0.7.1/24", true);
	assert_int_equal(find("10.9.1.1"), 9);
	assert_int_equal(found.hop->port, 17);
	// The longer prefix wins, and gives it back.
	connect_port(18, "10.0.7.8/30", true);
	assert_int_equal(find("10.9.1.1"), 9);
	assert_int_equal(found.hop->port, 18);
	connect_port(18, "10.0.7.8/30", false);
	assert_int_equal(find("10.9.1.1"), 9);
	assert_int_equal(found.hop->port, 17);
	connect_port(17, "10.0.7.1/24", false);
	assert_int_equal(find("10.9.1.1"), 6);
}

#define FLOWS 40000

// Which hop each of many flows takes.
static void choices(uint8_t hop[FLOWS])
{
	uint64_t hash = 88172645463325252ULL;

	for (unsigned i = 0; i < FLOWS; i++) {
		hash = hash * 6364136223846793005ULL + 1442695040888963407ULL;
		assert_int_equal(find_hashed("10.9.1.1", hash), ROUTE_UNICAST);
		hop[i] = found.hop->gateway.b[3];
	}
}

static void assert_share(const uint8_t *hop, uint8_t which, double share)
{
	unsigned n = 0;

	for (unsigned i = 0; i < FLOWS; i++)
		n += hop[i] == which;
	// Five standard deviations of the largest binomial there is.
	assert_true(fabs((double)n - share * FLOWS) < 5 * sqrt(FLOWS / 4.0));
}

// Flows that don't go where they went; all of them go to, or came from, `which`.
static unsigned moved(const uint8_t *a, const uint8_t *b, uint8_t which)
{
	unsigned n = 0;

	for (unsigned i = 0; i < FLOWS; i++)
		if (a[i] != b[i]) {
			assert_true(a[i] == which || b[i] == which);
			n++;
		}
	return n;
}

static void next_hops(void **state)
{
	static uint8_t two[FLOWS], three[FLOWS], weighted[FLOWS], dead[FLOWS], again[FLOWS];
	struct route_hop h[] = {via("10.0.0.1", 1), via("10.0.1.2", 1), via("10.0.0.3", 1)};

	h[0] = via("10.0.0.101", 1);
	assert_false(route_reads_ports(R));
	set("10.9.0.0/16", ROUTE_FILE, 0, h, 2);
	assert_true(route_reads_ports(R));
	choices(two);
	assert_share(two, 101, 0.5);
	assert_share(two, 2, 0.5);
	assert_int_equal(found.n_hops, 2);
	// A third one takes its share from both, and nothing moves between these.
	set("10.9.0.0/16", ROUTE_FILE, 0, h, 3);
	choices(three);
	assert_share(three, 101, 1 / 3.0);
	assert_share(three, 3, 1 / 3.0);
	unsigned n = moved(two, three, 3);
	assert_true(n > FLOWS / 3.0 * 0.95 && n < FLOWS / 3.0 * 1.05);
	// Its weight grows from 1 to 2: it only gains.
	h[2].weight = 2;
	set("10.9.0.0/16", ROUTE_FILE, 0, h, 3);
	choices(weighted);
	assert_share(weighted, 101, 0.25);
	assert_share(weighted, 2, 0.25);
	assert_share(weighted, 3, 0.5);
	n = moved(three, weighted, 3);
	assert_true(n > FLOWS / 6.0 * 0.9 && n < FLOWS / 6.0 * 1.1);
	// It dies: its flows are shared by the others, who keep theirs.
	struct config_ip gone = addr("10.0.0.3");
	route_hop_dead(11, &gone, true);
	choices(dead);
	assert_share(dead, 3, 0);
	assert_share(dead, 101, 0.5);
	assert_int_equal(moved(weighted, dead, 3) > 0, true);
	route_hop_dead(11, &gone, false);
	choices(again);
	assert_memory_equal(again, weighted, FLOWS);
	// The port of two of them goes.
	connect_port(11, "10.0.0.1/24", false);
	choices(dead);
	assert_share(dead, 2, 1);
	connect_port(11, "10.0.0.1/24", true);
	choices(again);
	assert_memory_equal(again, weighted, FLOWS);
	unset("10.9.0.0/16", ROUTE_FILE, 0);
	assert_false(route_reads_ports(R));
}

static void dead_hops(void **state)
{
	struct config_ip gone = addr("10.0.0.10");

	set("10.9.0.0/16", ROUTE_FILE, 10, (struct route_hop[]){via("10.0.0.10", 1)}, 1);
	route_hop_dead(11, &gone, true);
	assert_int_equal(find("10.9.1.1"), 10); // there is no other: the neighbour table says what comes of it
	assert_true(found.hop->dead);
	set("10.9.0.0/16", ROUTE_FILE, 20, (struct route_hop[]){via("10.0.0.20", 1)}, 1);
	assert_int_equal(find("10.9.1.1"), 20);
	route_hop_dead(11, &gone, false);
	assert_int_equal(find("10.9.1.1"), 10);
	route_hop_dead(11, NULL, true); // all of the port
	assert_int_equal(find("10.9.1.1"), 10);
	set("10.9.0.0/16", ROUTE_FILE, 30, (struct route_hop[]){via("10.0.1.30", 1)}, 1);
	assert_int_equal(find("10.9.1.1"), 30);
	route_hop_dead(11, NULL, false);
	assert_int_equal(find("10.9.1.1"), 10);
}

static int watched[256]; // by the gateway's last byte

static bool watch(uint16_t port, const struct config_ip *gateway, bool on)
{
	assert_int_equal(port, 11);
	watched[gateway->b[3]] += on ? 1 : -1;
	return gateway->b[3] == 20;
}

// Somebody is told which gateways are in use, by which port, and says which are dead.
static void next_hops_are_watched(void **state)
{
	struct route_hop both[] = {via("10.0.0.10", 1), via("10.0.0.20", 1)};

	memset(watched, 0, sizeof watched);
	route_hop_watch = watch;
	set("10.9.0.0/16", ROUTE_FILE, 0, both, 2);
	set("10.10.0.0/16", ROUTE_FILE, 0, both, 2); // the same group
	assert_int_equal(watched[10], 1);
	assert_int_equal(watched[20], 1);
	for (uint64_t i = 0; i < 32; i++) {
		find_hashed("10.9.1.1", i * 0x9e3779b97f4a7c15ULL);
		assert_int_equal(found.hop->gateway.b[3], 10);
	}
	set("10.11.0.0/16", ROUTE_FILE, 0, (struct route_hop[]){via("10.0.0.10", 2)}, 1);
	assert_int_equal(watched[10], 2);
	connect_port(11, "10.0.0.1/24", false); // none is behind any port now
	assert_int_equal(watched[10], 0);
	assert_int_equal(watched[20], 0);
	connect_port(11, "10.0.0.1/24", true);
	assert_int_equal(watched[10], 2);
	unset("10.9.0.0/16", ROUTE_FILE, 0);
	unset("10.11.0.0/16", ROUTE_FILE, 0);
	assert_int_equal(watched[10], 1);
	unset("10.10.0.0/16", ROUTE_FILE, 0);
	assert_int_equal(watched[10], 0);
	assert_int_equal(watched[20], 0);
	route_hop_watch = NULL;
}

// ---- generations

static uint32_t seen[GEN_SLOTS];

static unsigned bumped(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < GEN_SLOTS; i++) {
		n += gen_slots[i] != seen[i];
		seen[i] = gen_slots[i];
	}
	return n;
}

// Whether a decision for dst would be stale after `change`.
static bool stales(const char *dst, void (*change)(void))
{
	static struct flow f;
	static struct flow_cold cold;
	struct resolve r = {.flow = &f, .cold = &cold};
	struct config_ip d = addr(dst);
	struct route_result out;

	memset(&cold, 0, sizeof cold);
	memset(&f, 0, sizeof f);
	route_find(&r, R, 0, d.v6, d.b, d.b, 0, 0, 1, &out);
	assert_true(cold.n_deps <= 4);
	change();
	for (unsigned i = 0; i < cold.n_deps; i++)
		if (cold.dep_gen[i] != gen_read(cold.dep_slot[i]))
			return true;
	return false;
}

static bool flip;

static void flap(const char *p)
{
	struct route_hop h = strchr(p, ':') ? via("2001:db8::9", 1) : via("10.0.0.9", 1);

	flip = !flip;
	set(p, ROUTE_FILE, 0, &h, flip);
}

static void change_long(void)
{
	flap("10.9.8.0/24");
}

static void change_short(void)
{
	flap("10.0.0.0/8");
}

static void change_v6_long(void)
{
	flap("2001:db8:1:2::/64");
}

static void change_v6_mid(void)
{
	flap("2001:db8::/40");
}

static void change_v6_short(void)
{
	flap("2001::/16");
}

static void change_nothing(void)
{
	struct route_hop h = via("10.0.0.9", 1);

	set("10.9.8.0/24", ROUTE_FILE, 0, &h, 1);
	set("10.9.8.0/24", ROUTE_FILE, 0, &h, 1);
	bumped();
	set("10.9.8.0/24", ROUTE_FILE, 0, &h, 1);
	assert_int_equal(bumped(), 0);
}

static void change_death(void)
{
	static bool dead;
	struct config_ip ip = addr("10.0.0.66");

	route_hop_dead(11, &ip, dead = !dead);
}

static void generations(void **state)
{
	assert_true(stales("10.9.1.1", change_long));
	assert_false(stales("10.10.1.1", change_long)); // another stripe, but for one chance in 8,192
	assert_false(stales("2001:db8:1::1", change_long));
	assert_true(stales("10.10.1.1", change_short));
	assert_true(stales("172.16.0.1", change_short)); // of the router and family
	assert_false(stales("2001:db8:1::1", change_short));
	assert_true(stales("2001:db8:1::1", change_v6_long));
	assert_false(stales("2001:db8:2::1", change_v6_long));
	assert_true(stales("2001:db8:2::1", change_v6_mid));
	assert_false(stales("2001:db9::1", change_v6_mid));
	assert_true(stales("2001:db9::1", change_v6_short));
	assert_false(stales("10.9.1.1", change_v6_short));
	change_nothing();
	set("172.20.0.0/16", ROUTE_FILE, 0, (struct route_hop[]){via("10.0.0.66", 1)}, 1);
	assert_true(stales("172.20.1.1", change_death));
	assert_false(stales("172.21.1.1", change_death));
}

static void a_batch_bumps_once(void **state)
{
	struct route_hop h = via("10.0.0.9", 1);
	struct route_spec s = {
		.prefix = prefix("10.20.0.0/24"), .source = ROUTE_FILE, .type = ROUTE_UNICAST, .hop = &h, .n_hops = 1};
	uint32_t epoch = gen_epoch;

	bumped();
	for (unsigned i = 0; i < 256; i++) {
		s.prefix.ip.b[2] = (uint8_t)i;
		assert_int_equal(route_set(R, 0, &s), 0);
	}
	assert_int_equal(bumped(), 0);
	route_commit();
	assert_int_equal(bumped(), 1);
	assert_int_equal(gen_epoch, epoch + 1);
	route_commit();
	assert_int_equal(gen_epoch, epoch + 1);
}

// ---- tables, sweeping, walking

static bool count_route(void *arg, const struct route_view *v)
{
	unsigned *n = arg;

	if (!*n && v->first)
		return false;
	*n -= v->first;
	return true;
}

static void sweep(void **state)
{
	struct route_hop h = via("10.0.0.9", 1);
	struct route_spec s = {.source = ROUTE_KERNEL, .type = ROUTE_UNICAST, .hop = &h, .n_hops = 1, .mark = 1};
	uint32_t base = route_total();

	for (unsigned i = 0; i < 1000; i++) {
		s.prefix = prefix(i & 1 ? "2001:db8:7::/48" : "10.50.0.0/24");
		s.prefix.ip.b[3] = i & 1 ? (uint8_t)(i >> 8) : 0;
		s.prefix.ip.b[2] = (uint8_t)(i >> 1);
		s.prefix.ip.b[1] ^= (uint8_t)(i >> 9 << 4);
		s.mark = i % 3 ? 1 : 2;
		s.source = i % 5 ? ROUTE_KERNEL : ROUTE_FILE;
		assert_int_equal(route_set(R, 77, &s), 0);
	}
	assert_int_equal(route_total() - base, 1000);
	uint32_t number = 0;
	assert_true(route_next_table(R, &number));
	assert_int_equal(number++, 0);
	assert_true(route_next_table(R, &number));
	assert_int_equal(number++, 77);
	assert_false(route_next_table(R, &number));
	unsigned n, seen_all = 0;
	struct route_at at = {0};
	do {
		n = 37;
		bool more = route_walk(R, 77, &at, count_route, &n);
		seen_all += 37 - n;
		if (!more)
			break;
	} while (true);
	assert_int_equal(seen_all, 1000);
	at = (struct route_at){0};
	unsigned calls = 1;
	while (route_sweep(R, 77, ROUTE_KERNEL, 2, &at, 50))
		calls++;
	assert_true(calls >= 20);
	assert_int_equal(route_count(R, 77, ROUTE_FILE), 200);
	assert_int_equal(route_count(R, 77, ROUTE_KERNEL), 267); // of a third, what isn't a file's
	at = (struct route_at){0};
	assert_false(route_sweep(R, 78, ROUTE_KERNEL, 2, &at, 50));
	assert_false(route_sweep(9, 78, ROUTE_KERNEL, 2, &at, 50));
}

// ---- rows

static struct config conf;
static struct config_router router = {.id = R, .name = (char *)(uintptr_t) "red", .row = {{1}}};
static struct config_router_port rport = {.id = 11, .name = (char *)(uintptr_t) "red-a", .row = {{2}}, .router = {{1}}};

static void rows(void **state)
{
	struct config_next_hop hop = {.has_gateway = true, .gateway = addr("10.0.0.9"), .weight = 1};
	struct config_route route[3] = {
		{.row = {{10}},
		 .router = router.row,
		 .prefix = prefix("10.9.0.0/16"),
		 .type = ROUTE_UNICAST,
		 .metric = 5,
		 .hops = &hop,
		 .n_hops = 1},
		{.row = {{11}}, .router = router.row, .prefix = prefix("10.8.0.0/16"), .type = ROUTE_PROHIBIT},
		{.row = {{12}}, .router = router.row, .prefix = prefix("10.7.0.0/16"), .type = ROUTE_UNICAST},
	};

	conf = (struct config){.routers = &router,
			       .n_routers = 1,
			       .router_ports = &rport,
			       .n_router_ports = 1,
			       .routes = route,
			       .n_routes = 3};
	route_routers(&conf);
	setup(NULL); // that was another router of the same id
	assert_int_equal(route_reconcile(&conf), 0);
	assert_null(route[0].error);
	assert_non_null(strstr(route[2].error, "no next hop"));
	assert_int_equal(find("10.9.1.1"), 9);
	assert_int_equal(find("10.8.1.1"), -ROUTE_PROHIBIT);
	assert_string_equal(row_get(found.row)->name, "10.8.0.0/16");
	// Again: nothing changes.
	bumped();
	assert_int_equal(route_reconcile(&conf), 0);
	assert_int_equal(bumped(), 0);
	// Goes bad: stays what it was, and says why.
	hop.gateway = addr("2001:db8::9");
	route_reconcile(&conf);
	assert_non_null(strstr(route[0].error, "family"));
	assert_int_equal(find("10.9.1.1"), 9);
	free(route[0].error);
	route[0].error = NULL;
	// Another metric and prefix: the old one goes.
	hop.gateway = addr("10.0.0.10");
	route[0].metric = 6;
	route_reconcile(&conf);
	assert_int_equal(find("10.9.1.1"), 10);
	assert_int_equal(found.metric, 6);
	route[0].prefix = prefix("10.19.0.0/16");
	route_reconcile(&conf);
	assert_int_equal(find("10.9.1.1"), -ROUTE_NONE);
	assert_int_equal(find("10.19.1.1"), 10);
	// A gateway that no port is near, and a port of another router.
	hop.gateway = addr("172.31.0.1");
	route_reconcile(&conf);
	assert_non_null(strstr(route[0].error, "no port of router red"));
	free(route[0].error);
	route[0].error = NULL;
	hop.has_port = true;
	hop.port = rport.row;
	rport.router.b[0] = 9;
	route_reconcile(&conf);
	assert_non_null(strstr(route[0].error, "is not one of router red"));
	free(route[0].error);
	route[0].error = NULL;
	rport.router.b[0] = 1;
	hop.gateway = addr("10.0.0.12");
	// The row goes.
	conf.n_routes = 0;
	route_reconcile(&conf);
	assert_int_equal(find("10.19.1.1"), -ROUTE_NONE);
	assert_int_equal(find("10.0.0.5"), 0);
	// The router goes, with all that it has.
	conf.n_routers = 0;
	route_routers(&conf);
	assert_int_equal(find("10.0.0.5"), -ROUTE_NONE);
	assert_int_equal(route_total(), 0);
	free(route[2].error);
}

static int find_from(const char *src, const char *dst, uint16_t port, uint8_t tos)
{
	struct config_ip s = addr(src), d = addr(dst);

	if (route_find(NULL, R, port, d.v6, s.b, d.b, tos, 0, 1, &found) != ROUTE_UNICAST)
		return -(int)found.type;
	return found.hop->gateway.b[3];
}

static void policies(void **state)
{
	struct config_next_hop hop[] = {{.has_gateway = true, .gateway = addr("10.0.0.9")},
					{.has_gateway = true, .gateway = addr("10.0.0.77")}};
	struct config_route route[] = {
		{.row = {{10}},
		 .router = router.row,
		 .prefix = prefix("0.0.0.0/0"),
		 .type = ROUTE_UNICAST,
		 .hops = &hop[0],
		 .n_hops = 1},
		{.row = {{11}},
		 .router = router.row,
		 .table = 77,
		 .prefix = prefix("10.0.0.0/8"),
		 .type = ROUTE_UNICAST,
		 .hops = &hop[1],
		 .n_hops = 1},
	};
	struct config_route_policy policy[] = {
		{.row = {{20}},
		 .router = router.row,
		 .priority = 30,
		 .has_src = true,
		 .src = prefix("192.0.2.0/24"),
		 .dscp = -1,
		 .type = ROUTE_UNICAST,
		 .table = 77},
		{.row = {{21}},
		 .router = router.row,
		 .priority = 10,
		 .has_port = true,
		 .port = rport.row,
		 .has_dst = true,
		 .dst = prefix("10.6.0.0/16"),
		 .dscp = -1,
		 .type = ROUTE_PROHIBIT},
		{.row = {{22}}, .router = router.row, .priority = 20, .dscp = 46, .type = ROUTE_BLACKHOLE},
		{.row = {{23}},
		 .router = router.row,
		 .priority = 5,
		 .has_src = true,
		 .has_dst = true,
		 .src = prefix("::/0"),
		 .dst = prefix("0.0.0.0/0"),
		 .dscp = -1},
	};

	conf = (struct config){.routers = &router,
			       .n_routers = 1,
			       .router_ports = &rport,
			       .n_router_ports = 1,
			       .routes = route,
			       .n_routes = 2};
	route_routers(&conf);
	setup(NULL);
	route_reconcile(&conf);
	assert_false(route_reads_policy(R));
	assert_int_equal(find_from("192.0.2.1", "10.5.0.1", 11, 0), 9);
	conf.policies = policy;
	conf.n_policies = 4;
	assert_int_equal(route_reconcile(&conf), 0);
	assert_true(route_reads_policy(R));
	assert_non_null(strstr(policy[3].error, "families"));
	assert_int_equal(find_from("192.0.2.1", "10.5.0.1", 11, 0), 77);
	assert_int_equal(found.table, 77);
	assert_string_equal(row_get(found.policy)->name, "30");
	assert_int_equal(find_from("192.0.3.1", "10.5.0.1", 11, 0), 9);
	assert_int_equal(found.policy, 0);
	assert_int_equal(find_from("192.0.2.1", "203.0.113.1", 11, 0), 9); // the table has no route for it
	assert_int_equal(find_from("192.0.2.1", "10.6.0.1", 11, 0), -ROUTE_PROHIBIT);
	assert_string_equal(row_get(found.row)->table, "Route_Policy");
	assert_int_equal(find_from("192.0.2.1", "10.6.0.1", 12, 0), 77);
	assert_int_equal(find_from("192.0.2.1", "10.5.0.1", 11, 46 << 2 | 1), -ROUTE_BLACKHOLE);
	bumped();
	route_reconcile(&conf);
	assert_int_equal(bumped(), 0);
	conf.n_policies = 0;
	route_reconcile(&conf);
	assert_int_equal(bumped(), 2);
	assert_false(route_reads_policy(R));
	free(policy[3].error);
}

static uint64_t ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static void ten_thousand_rows(void **state)
{
	enum {
		N = 10000
	};
	struct config_route *route = calloc(N, sizeof *route);
	struct config_next_hop *hop = calloc(N, sizeof *hop);

	for (unsigned i = 0; i < N; i++) {
		hop[i] = (struct config_next_hop){.has_gateway = true, .gateway = addr("10.0.0.9")};
		hop[i].gateway.b[3] = (uint8_t)(2 + i % 100);
		route[i] = (struct config_route){.row = {{99, (uint8_t)(i >> 8), (uint8_t)i}},
						 .router = router.row,
						 .prefix = prefix("172.0.0.0/32"),
						 .type = ROUTE_UNICAST,
						 .hops = &hop[i],
						 .n_hops = 1};
		route[i].prefix.ip.b[2] = (uint8_t)(i >> 8);
		route[i].prefix.ip.b[3] = (uint8_t)i;
	}
	conf = (struct config){.routers = &router,
			       .n_routers = 1,
			       .router_ports = &rport,
			       .n_router_ports = 1,
			       .routes = route,
			       .n_routes = N};
	route_routers(&conf);
	setup(NULL);
	uint64_t start = ns();
	assert_int_equal(route_reconcile(&conf), 0);
	uint64_t first = ns();
	bumped();
	assert_int_equal(route_reconcile(&conf), 0);
	print_message("%d rows: applied in %.1f ms, again unchanged in %.1f ms\n", N, (double)(first - start) / 1e6,
		      (double)(ns() - first) / 1e6);
	assert_int_equal(bumped(), 0);
	assert_int_equal(route_count(R, 0, ROUTE_CONFIG), N);
	// They are what they were, and are not read again, unless what they depend on changes.
	conf.n_routes = 0;
	conf.routes_kept = true;
	assert_int_equal(route_reconcile(&conf), 0);
	assert_int_equal(route_count(R, 0, ROUTE_CONFIG), N);
	assert_false(route_rows_wanted());
	conf.routers[0].id++;
	assert_int_equal(route_reconcile(&conf), 0);
	assert_true(route_rows_wanted());
	conf.routers[0].id--;
	conf.routes_kept = false;
	conf.n_routes = 1;
	route_reconcile(&conf);
	assert_false(route_rows_wanted());
	assert_int_equal(route_count(R, 0, ROUTE_CONFIG), 1);
	free(route[0].error); // the router was away, and its gateway's prefix with it
	free(route);
	free(hop);
}

static void rubbish(void **state)
{
	struct route_hop many[ROUTE_HOPS_MAX + 1] = {0};
	struct route_spec s = {.prefix = prefix("10.0.0.0/8"),
			       .source = ROUTE_FILE,
			       .type = ROUTE_UNICAST,
			       .hop = many,
			       .n_hops = ROUTE_HOPS_MAX + 1};

	assert_int_equal(route_set(R, 0, &s), -ENOSPC);
	assert_int_equal(route_set(0, 0, &s), -ENOMEM);
	assert_int_equal(route_set(MAX_ROUTERS, 0, &s), -ENOMEM);
	assert_false(route_remove(MAX_ROUTERS, 0, &s));
	s.n_hops = 0;
	s.type = ROUTE_UNREACHABLE;
	for (unsigned i = 0; i < ROUTE_TABLES_MAX + 10; i++)
		assert_int_equal(route_set(R, i * 1000, &s), i < ROUTE_TABLES_MAX ? 0 : -ENOSPC);
	assert_int_equal(route_find(NULL, 0, 0, false, (uint8_t[16]){0}, (uint8_t[16]){0}, 0, 0, 0, &found), ROUTE_NONE);
	assert_int_equal(route_find(NULL, 9, 0, true, (uint8_t[16]){0}, (uint8_t[16]){0}, 0, 0, 0, &found), ROUTE_NONE);
}

// ---- lines

static uint16_t named(void *arg, const char *name)
{
	return !strcmp(name, "red-a") ? 11 : 0;
}

static struct route_line line;
static char *said;

static enum route_line_is parse_line(const char *text)
{
	free(said);
	return route_line_parse(&line, text, named, NULL, &said);
}

static void assert_bad(const char *text, const char *why)
{
	assert_int_equal(parse_line(text), ROUTE_LINE_BAD);
	assert_non_null(strstr(said, why));
}

static void lines(void **state)
{
	assert_int_equal(parse_line("10.0.0.0/8 via 10.1.0.1 dev eth0 proto bird src 10.1.0.9 metric 10 onlink"),
			 ROUTE_LINE_ROUTE);
	assert_int_equal(line.spec.type, ROUTE_UNICAST);
	assert_int_equal(line.spec.prefix.len, 8);
	assert_int_equal(line.spec.metric, 10);
	assert_int_equal(line.spec.n_hops, 1);
	assert_int_equal(line.spec.hop[0].gateway.b[3], 1);
	assert_true(line.spec.hop[0].by_address);
	assert_int_equal(parse_line("10.1.2.3 dev red-a"), ROUTE_LINE_ROUTE);
	assert_int_equal(line.spec.prefix.len, 32);
	assert_int_equal(line.spec.hop[0].port, 11);
	assert_false(line.spec.hop[0].has_gateway);
	assert_int_equal(
		parse_line("default via fe80::1 dev red-a proto ra metric 1024 expires 1790sec hoplimit 64 pref medium"),
		ROUTE_LINE_ROUTE);
	assert_true(line.spec.prefix.ip.v6);
	assert_int_equal(line.spec.prefix.len, 0);
	assert_int_equal(line.spec.hop[0].port, 11);
	assert_int_equal(parse_line("blackhole 192.0.2.0/24\n"), ROUTE_LINE_ROUTE);
	assert_int_equal(line.spec.type, ROUTE_BLACKHOLE);
	assert_int_equal(parse_line("unreachable default dev lo metric 4294967295 error -101 pref medium"), ROUTE_LINE_ROUTE);
	assert_int_equal(line.spec.n_hops, 0);
	assert_int_equal(parse_line("prohibit 2001:db8::/32"), ROUTE_LINE_ROUTE);
	// Several next hops, as lines of their own and in one.
	assert_int_equal(parse_line("2001:db8:2::/48 metric 5"), ROUTE_LINE_ROUTE);
	assert_int_equal(parse_line("\tnexthop via 2001:db8::1 dev eth0 weight 1 "), ROUTE_LINE_NEXT_HOP);
	assert_int_equal(parse_line("\tnexthop via 2001:db8::2 dev eth0 weight 3 "), ROUTE_LINE_NEXT_HOP);
	assert_int_equal(line.spec.n_hops, 2);
	assert_int_equal(line.spec.hop[1].weight, 3);
	assert_int_equal(line.spec.metric, 5);
	assert_int_equal(parse_line("default proto static metric 20 \\\tnexthop via 10.0.0.1 dev e weight 1 \\\tnexthop via "
				    "10.0.0.2 weight 2 "),
			 ROUTE_LINE_ROUTE);
	assert_int_equal(line.spec.n_hops, 2);
	assert_false(line.spec.prefix.ip.v6);
	assert_int_equal(parse_line("default"), ROUTE_LINE_ROUTE);
	assert_int_equal(parse_line(" nexthop via 2001:db8::1"), ROUTE_LINE_NEXT_HOP);
	assert_true(line.spec.prefix.ip.v6);
	assert_int_equal(parse_line(""), ROUTE_LINE_EMPTY);
	assert_int_equal(parse_line("  \t\n"), ROUTE_LINE_EMPTY);
	assert_int_equal(parse_line("# routes"), ROUTE_LINE_EMPTY);
	assert_bad("10.0.0.0/33 via 10.0.0.1", "no prefix");
	assert_bad("10.0.0/8 via 10.0.0.1", "no prefix");
	assert_bad("10.0.0.0/8 via 10.0.0.256", "no address");
	assert_bad("10.0.0.0/8 via", "nothing comes behind");
	assert_bad("10.0.0.0/8 via inet6", "no address");
	assert_bad("10.0.0.0/8 via 2001:db8::1", "family");
	assert_bad("10.0.0.0/8 via 10.0.0.1 metric ten", "no metric");
	assert_bad("10.0.0.0/8 via 10.0.0.1 metric 4294967296", "no metric");
	assert_bad("10.0.0.0/8 via 10.0.0.1 weight 0", "weight");
	assert_bad("10.0.0.0/8 via 10.0.0.1 wieght 1", "not understood");
	assert_bad("10.0.0.0/8 dev eth7", "no router port eth7");
	assert_bad("default via fe80::1", "link-local");
	assert_bad("10.0.0.0/8 via 10.0.0.1 table 7", "--table");
	assert_bad("blackhole", "missing");
	free(said);
	said = NULL;
}

static void lines_of_rubbish(void **state)
{
	static const char *const words[] = {
		"via",
		"default",
		"10.0.0.0/8",
		"nexthop",
		"dev",
		"red-a",
		"weight",
		"256",
		"::/0",
		"fe80::1",
		"blackhole",
		"\\",
		"\t",
		"metric",
		"1",
		"#",
		"/",
		"0.0.0.0/",
		"\xff\xfe",
		"inet6",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
	uint64_t r = 1;
	char text[2000];

	for (unsigned i = 0; i < 200000; i++) {
		size_t n = 0;
		text[0] = '\0';
		do {
			r = r * 6364136223846793005ULL + 1442695040888963407ULL;
			n += (size_t)snprintf(text + n, sizeof text - n, "%s%s",
					      words[(r >> 33) % (sizeof words / sizeof words[0])], r >> 60 ? " " : "");
		} while (r >> 40 & 7 && n < 1500);
		if (parse_line(text) == ROUTE_LINE_BAD)
			assert_non_null(said);
		assert_true(line.spec.n_hops <= ROUTE_HOPS_MAX);
	}
	free(said);
	said = NULL;
}

// Tables come with their first route and go with their last one: only those that are in use count.
static void tables_come_and_go(void **state)
{
	struct route_spec s = {.prefix = prefix("10.9.0.0/16"), .source = ROUTE_FILE, .type = ROUTE_BLACKHOLE};
	uint32_t number = 0, tables = 0;

	for (uint32_t t = 1; t <= 3 * ROUTE_TABLES_MAX; t++) {
		assert_int_equal(route_set(R, t, &s), 0);
		assert_int_equal(route_count(R, t, ROUTE_FILE), 1);
		assert_true(route_remove(R, t, &s));
		route_commit();
		rcu_poll();
	}
	for (uint32_t t = 1; t < ROUTE_TABLES_MAX; t++) // the main one is in use
		assert_int_equal(route_set(R, 1000 + t, &s), 0);
	assert_int_equal(route_set(R, 5000, &s), -ENOSPC);
	while (route_next_table(R, &number) && tables < 2 * ROUTE_TABLES_MAX) {
		tables++;
		number++;
	}
	assert_int_equal(tables, ROUTE_TABLES_MAX);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(connected),
		TEST(metrics),
		TEST(gateways_without_a_port),
		TEST(next_hops),
		TEST(dead_hops),
		TEST(next_hops_are_watched),
		TEST(tables_come_and_go),
		TEST(generations),
		TEST(a_batch_bumps_once),
		TEST(sweep),
		TEST(rows),
		TEST(policies),
		TEST(ten_thousand_rows),
		TEST(rubbish),
		TEST(lines),
		TEST(lines_of_rubbish),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
