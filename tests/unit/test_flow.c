// flow: the table of a worker: growth, removal, shares of the ports, expiry, and a reader beside it.
#include "lab.h"
#include "flow.h"

#include <pthread.h>

#define MILLION 1000000u

static struct flow_table *table;

static void create(uint32_t limit, unsigned ports)
{
	struct flow_table_config c = {.limit = limit, .idle_ms = 10000};

	key_init();
	table = flow_table_create(&c);
	assert_non_null(table);
	flow_table_set_ports(table, ports);
}

static int teardown(void **state)
{
	flow_table_destroy(table);
	table = NULL;
	return 0;
}

// Key number n of a port, and a number that is not a multiple of it.
static struct flow_key key_of(uint16_t port, uint32_t n)
{
	struct flow_key k = {.port = port, .ethertype = 8};
	uint64_t mixed = (uint64_t)n * 0x9e3779b97f4a7c15ULL;

	memcpy(k.dst, &mixed, 6);
	memcpy(k.src, &n, 4);
	return k;
}

static struct flow *insert(uint16_t port, uint32_t n, uint32_t now_ms)
{
	struct flow_key k = key_of(port, n);

	return flow_table_insert(table, &k, KEY_LEN_L2, key_hash(&k, KEY_LEN_L2), now_ms);
}

static struct flow *lookup(uint16_t port, uint32_t n)
{
	struct flow_key k = key_of(port, n);
	uint64_t hash = key_hash(&k, KEY_LEN_L2);
	uint8_t len = KEY_LEN_L2;
	struct flow *f;

	flow_table_lookup(table, &k, &len, &hash, 1, &f);
	return f;
}

static uint32_t flows(void)
{
	struct flow_table_stats s;

	flow_table_stats(table, &s);
	return s.flows;
}

// All keys from..to-1, in bursts; each found or not as `there` says.
static void look_all_up(uint32_t from, uint32_t to, bool (*there)(uint32_t))
{
	for (uint32_t at = from; at < to;) {
		struct flow_key keys[BURST];
		uint64_t hash[BURST];
		uint8_t len[BURST];
		struct flow *f[BURST];
		unsigned n = 0;

		for (; n < BURST && at + n < to; n++) {
			keys[n] = key_of(1, at + n);
			hash[n] = key_hash(&keys[n], KEY_LEN_L2);
			len[n] = KEY_LEN_L2;
		}
		flow_table_lookup(table, keys, len, hash, n, f);
		for (unsigned i = 0; i < n; i++) {
			if (!f[i] == there(at + i))
				fail_msg("flow %u of %u is %s", at + i, to, f[i] ? "there" : "not there");
			if (f[i])
				assert_memory_equal(flow_key(table, f[i]), &keys[i], KEY_LEN_L2);
		}
		at += n;
	}
}

static bool always(uint32_t n)
{
	return true;
}

static bool odd(uint32_t n)
{
	return n & 1;
}

static bool never(uint32_t n)
{
	return false;
}

static void grows_to_a_million(void **state)
{
	struct flow_table_stats s;
	struct flow *first;

	create(MILLION, 1);
	first = insert(1, 0, 0);
	first->packets = 77;
	for (uint32_t n = 1; n < MILLION; n++) {
		assert_non_null(insert(1, n, 0));
		if ((n & (n - 1)) == 0) // every power of two
			look_all_up(0, n + 1, always);
	}
	look_all_up(0, MILLION, always);
	look_all_up(MILLION, MILLION + 1000, never);
	assert_ptr_equal(lookup(1, 0), first); // a record stays where it is
	assert_int_equal(first->packets, 77);
	flow_table_stats(table, &s);
	assert_int_equal(s.flows, MILLION);
	assert_int_equal(s.inserts, MILLION);
	assert_in_range(s.buckets, MILLION / 7, MILLION / 5);
	assert_int_equal(flow_table_port_flows(table, 1), MILLION);

	for (uint32_t n = 0; n < MILLION; n += 2)
		flow_table_remove(table, lookup(1, n));
	look_all_up(0, MILLION, odd);
	assert_int_equal(flows(), MILLION / 2);
	for (uint32_t n = 0; n < MILLION; n += 2)
		assert_non_null(insert(1, n, 0));
	look_all_up(0, MILLION, always);
	assert_int_equal(flow_table_high(table), MILLION); // records are used again
	flow_table_drop_port(table, 1);
	assert_int_equal(flows(), 0);
	assert_int_equal(flow_table_port_flows(table, 1), 0);
	look_all_up(0, 1000, never);
	assert_non_null(insert(1, 5, 0));
	assert_int_equal(flow_table_high(table), MILLION);
}

// A hash of a few bits, as an attacker would have it: long chains of overflow buckets, which split and go.
static void against_a_model(void **state)
{
	enum { KEYS = 20000 };
	static struct flow *model[KEYS];
	static const uint64_t masks[] = {~0ULL, 0xffff0000000003ffULL, 0x000f0000000000ffULL, 0x3fULL, 0};

	for (size_t i = 0; i < sizeof masks / sizeof masks[0]; i++) {
		unsigned keys = masks[i] ? KEYS : 500, n = 0;

		create(MILLION, 1);
		memset(model, 0, sizeof model);
		srand(7);
		for (int op = 0; op < 120000; op++) {
			uint32_t key = (uint32_t)rand() % keys;
			struct flow_key k = key_of(1, key);
			uint64_t hash = key_hash(&k, KEY_LEN_L2) & masks[i];
			uint8_t len = KEY_LEN_L2;
			struct flow *f;

			flow_table_lookup(table, &k, &len, &hash, 1, &f);
			assert_ptr_equal(f, model[key]);
			if (f && (rand() % 3 == 0 || op > 100000)) {
				flow_table_remove(table, f);
				model[key] = NULL;
				n--;
			} else if (!f && op <= 100000) {
				model[key] = flow_table_insert(table, &k, len, hash, 0);
				assert_non_null(model[key]);
				n++;
			}
			assert_int_equal(flows(), n);
		}
		flow_table_destroy(table);
	}
	table = NULL;
}

static void keys_of_all_lengths(void **state)
{
	struct flow_key v6 = key_of(1, 1), v4 = key_of(1, 1);
	uint64_t hash[2];
	struct flow *f[2];
	uint8_t len[2] = {KEY_LEN_V6, KEY_LEN_V4};

	create(1024, 1);
	v6.ethertype = 0xdd86;
	v6.v6.dst[15] = 1;
	v4.v4.dst = 1;
	hash[0] = key_hash(&v6, KEY_LEN_V6);
	hash[1] = key_hash(&v4, KEY_LEN_V4);
	f[0] = flow_table_insert(table, &v6, KEY_LEN_V6, hash[0], 0);
	f[1] = flow_table_insert(table, &v4, KEY_LEN_V4, hash[1], 0);
	assert_ptr_not_equal(f[0], f[1]);
	struct flow_key keys[2] = {v6, v4};
	struct flow *found[2];
	flow_table_lookup(table, keys, len, hash, 2, found);
	assert_ptr_equal(found[0], f[0]);
	assert_ptr_equal(found[1], f[1]);
	// Found by the hash, but another key.
	keys[0].v6.dst[15] = 2;
	keys[1].v4.dst = 2;
	flow_table_lookup(table, keys, len, hash, 2, found);
	assert_null(found[0]);
	assert_null(found[1]);
}

// A port that floods the table takes the half that is for everybody, and nobody's share.
static void a_flood_takes_nobodys_share(void **state)
{
	uint32_t n = 0;

	create(1024, 4); // shares of 128, 512 for whoever comes
	while (insert(1, n, 1000))
		assert_true(++n < 2000);
	assert_int_equal(n, 128 + 512);
	for (uint16_t port = 2; port <= 4; port++) {
		for (uint32_t i = 0; i < 128; i++)
			assert_non_null(insert(port, i, 1000));
		assert_null(insert(port, 128, 1000));
	}
	assert_int_equal(flows(), 1024);
	struct flow_table_stats s;
	flow_table_stats(table, &s);
	assert_int_equal(s.refusals, 4);
	// Its own old flows make room for its new ones, and only they do.
	for (uint32_t i = 0; i < 5000; i++)
		assert_non_null(insert(1, 10000 + i, 2000 + i));
	assert_int_equal(flow_table_port_flows(table, 1), 640);
	for (uint16_t port = 2; port <= 4; port++)
		for (uint32_t i = 0; i < 128; i++)
			assert_non_null(lookup(port, i));
	// What it gives back others may have.
	flow_table_drop_port(table, 1);
	for (uint32_t i = 128; i < 640; i++)
		assert_non_null(insert(2, i, 1050));
	assert_null(insert(2, 640, 1050));
	assert_non_null(insert(1, 0, 2000));
}

static void flows_in_use_are_not_evicted(void **state)
{
	create(1024, 1);
	for (uint32_t i = 0; i < 1024; i++)
		insert(1, i, 0);
	assert_null(insert(1, 5000, 50)); // nothing is old yet
	for (uint32_t i = 0; i < 1024; i++)
		if (i % 4 == 0)
			lookup(1, i)->used_ms = 1000;
	for (uint32_t i = 0; i < 600; i++)
		assert_non_null(insert(1, 6000 + i, 1000));
	for (uint32_t i = 0; i < 1024; i += 4)
		assert_non_null(lookup(1, i));
	assert_int_equal(flows(), 1024);
	struct flow_table_stats s;
	flow_table_stats(table, &s);
	assert_int_equal(s.evictions, 600);
}

static void ports_come_and_go(void **state)
{
	uint32_t n = 0;

	create(2048, 1);
	while (insert(1, n, 0))
		n++;
	assert_int_equal(n, 2048); // alone it may have all of it
	flow_table_set_ports(table, 2);
	for (uint32_t i = 0; i < 512; i++)
		assert_non_null(insert(2, i, 0));
	assert_int_equal(flows(), 2048); // the limit holds: the port that had all made room
	assert_int_equal(flow_table_port_flows(table, 1), 2048 - 512);
	assert_null(insert(2, 512, 0));
	// Over everything: it makes room before it gets any.
	assert_null(insert(1, n, 0));
	assert_non_null(insert(1, n, 1000));
	assert_int_equal(flow_table_port_flows(table, 1), 2048 - 512);
	flow_table_drop_port(table, 1);
	assert_non_null(insert(2, 512, 0));
	flow_table_set_ports(table, 1);
	for (uint32_t i = 513; i < 2048; i++)
		assert_non_null(insert(2, i, 0));
}

static void the_limit_can_change(void **state)
{
	struct flow_table_config c = {.limit = 4096, .idle_ms = 500};

	create(1024, 1);
	for (uint32_t i = 0; i < 1024; i++)
		insert(1, i, 0);
	assert_null(insert(1, 1024, 0));
	flow_table_configure(table, &c);
	flow_table_set_ports(table, 1);
	for (uint32_t i = 1024; i < 4096; i++)
		assert_non_null(insert(1, i, 0));
	assert_null(insert(1, 4096, 0));
	c.limit = 2048;
	flow_table_configure(table, &c);
	flow_table_set_ports(table, 1);
	assert_null(insert(1, 4096, 0)); // no more than before; it shrinks with age
	for (int i = 0; i < 1100; i++)
		flow_table_sweep(table, 499);
	assert_int_equal(flows(), 4096);
	for (int i = 0; i < 1100; i++)
		flow_table_sweep(table, 500);
	assert_int_equal(flows(), 0);
	c.limit = 1;
	flow_table_configure(table, &c);
	flow_table_set_ports(table, 1);
	for (uint32_t i = 0; i < 1024; i++)
		assert_non_null(insert(1, i, 0)); // there is a least
	c.limit = UINT32_MAX;
	flow_table_configure(table, &c);
	flow_table_set_ports(table, 1);
	struct flow_table_stats s;
	flow_table_stats(table, &s);
	assert_int_equal(s.limit, 1 << 24); // and a most
}

static void expires(void **state)
{
	create(1 << 16, 1);
	for (uint32_t i = 0; i < 10000; i++)
		insert(1, i, i); // used at i ms
	uint32_t now = 15000;
	for (int i = 0; i < 1030; i++)
		flow_table_sweep(table, now);
	look_all_up(0, 5001, never);
	look_all_up(5001, 10000, always);
	struct flow_table_stats s;
	flow_table_stats(table, &s);
	assert_int_equal(s.expiries, 5001);
	assert_int_equal(s.flows, 4999);
	// The clock's milliseconds wrap after 49 days.
	struct flow *f = lookup(1, 9999);
	f->used_ms = UINT32_MAX - 100;
	for (int i = 0; i < 1030; i++)
		flow_table_sweep(table, 5000);
	assert_ptr_equal(lookup(1, 9999), f);
	for (int i = 0; i < 1030; i++)
		flow_table_sweep(table, 9899);
	assert_null(lookup(1, 9999));
}

static void decisions(void **state)
{
	struct flow_cold from = {.n_deps = 2, .dep_slot = {3, 4}, .dep_gen = {5, 6}, .n_prov = 1, .prov_row = {9}, .prov_stage = {2}};
	struct flow decision = {.out_kind = OUT_PORT, .out = 7, .epoch = 11, .aux = 13};
	struct flow_view v;
	struct flow *f;

	create(1024, 1);
	f = insert(1, 1, 100);
	assert_int_equal(f->aux, UINT32_MAX);
	f->packets = 5;
	f->bytes = 500;
	f->used_ms = 200;
	flow_decide(table, f, &decision, &from);
	assert_int_equal(f->packets, 5);
	assert_int_equal(f->bytes, 500);
	assert_int_equal(f->used_ms, 200);
	assert_int_equal(f->out, 7);
	assert_true(flow_table_read(table, flow_index(table, f), &v));
	assert_int_equal(v.flow.out, 7);
	assert_int_equal(v.cold.n_deps, 2);
	assert_int_equal(v.cold.dep_gen[1], 6);
	assert_int_equal(v.cold.prov_row[0], 9);
	assert_int_equal(v.cold.created_ms, 100);
	assert_int_equal(v.cold.port, 1);
	assert_int_equal(v.key.port, 1);
	flow_table_remove(table, f);
	assert_false(flow_table_read(table, 0, &v));
	assert_false(flow_table_read(table, 1, &v));
	// A record that is used again has nothing of its last flow.
	f = insert(1, 2, 300);
	assert_int_equal(f->packets, 0);
	assert_int_equal(f->out, 0);
	assert_true(flow_table_read(table, flow_index(table, f), &v));
	assert_int_equal(v.cold.n_deps, 0);
	assert_int_equal(v.cold.created_ms, 300);
}

static unsigned matching(const struct flow_key *value, const struct flow_key *mask, uint32_t *last)
{
	struct flow_view v;
	uint32_t at = 0;
	unsigned n = 0;

	while (flow_table_match(table, value, mask, &at, &v)) {
		*last = (uint32_t)v.flow.packets;
		n++;
	}
	return n;
}

// Who asks says some fields; flows of a profile that doesn't look at one of them are for every value of it.
static void found_by_some_fields(void **state)
{
	uint16_t fine = profile_intern(KEY_BIT(NW_PROTO) | KEY_BIT(TP_DST));
	struct flow_key value = {.port = 3, .ethertype = 8}, mask = {.port = 0xffff, .ethertype = 0xffff};
	uint32_t last;

	create(4096, 4);
	for (uint16_t i = 0; i < 40; i++) {
		struct flow_key k = {.port = (uint16_t)(1 + i % 4), .ethertype = 8, .profile = i < 20 ? fine : 0, .proto = i < 20 ? 6 : 0, .dport = i < 20 ? i : 0, .src = {(uint8_t)i}};
		unsigned len = key_len(profile_get(k.profile), k.ethertype);

		flow_table_insert(table, &k, len, key_hash(&k, len), 1)->packets = i;
	}
	assert_int_equal(matching(&value, &mask, &last), 10);
	value.dport = 6;
	mask.dport = 0xffff;
	assert_int_equal(matching(&value, &mask, &last), 1 + 5); // the one, and those that are not kept apart by it
	value.proto = 17;
	mask.proto = 0xff;
	assert_int_equal(matching(&value, &mask, &last), 5);
	value.src[0] = 22;
	mask.src[0] = 0xff;
	assert_int_equal(matching(&value, &mask, &last), 1);
	assert_int_equal(last, 22);
	value.port = 9;
	assert_int_equal(matching(&value, &mask, &last), 0);
}

static bool stop;

struct reader {
	unsigned seen, torn;
};

// What is read belongs together: the worker writes the key's number into every part of the decision.
static void *reader(void *arg)
{
	struct reader *r = arg;

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		for (uint32_t i = 0; i < flow_table_high(table); i++) {
			struct flow_view v;
			uint32_t n;

			if (!flow_table_read(table, i, &v) || !v.flow.actions)
				continue;
			memcpy(&n, v.key.src, 4);
			r->seen++;
			r->torn += v.flow.actions != n || v.flow.aux != n || v.cold.dep_gen[7] != n || v.cold.prov_row[0] != n;
		}
	}
	return NULL;
}

static void read_while_it_changes(void **state)
{
	struct reader r = {0};
	pthread_t thread;

	create(1024, 1);
	stop = false;
	assert_int_equal(pthread_create(&thread, NULL, reader, &r), 0);
	for (uint32_t n = 1; n < 3000 || (__atomic_load_n(&r.seen, __ATOMIC_RELAXED) < 10000 && n < 100000000); n++) {
		struct flow *f = insert(1, n, n * 200);
		struct flow decision = {.actions = n, .aux = n};
		struct flow_cold from = {0};

		for (int i = 0; i < FLOW_DEPS; i++)
			from.dep_gen[i] = n;
		for (int i = 0; i < FLOW_PROV; i++)
			from.prov_row[i] = n;
		flow_decide(table, f, &decision, &from);
		if (n > 8)
			flow_table_remove(table, lookup(1, n - 8));
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	assert_true(r.seen > 0);
	assert_int_equal(r.torn, 0);
}

// ---- flows that end

static struct flow_ends ends;

static void watch(uint32_t sample)
{
	memset(&ends, 0, sizeof ends);
	ends.sample = sample;
	memset(ends.networks, 0xff, sizeof ends.networks);
	flow_table_watch(table, &ends);
}

static void used(struct flow *f, uint64_t packets, uint32_t now_ms)
{
	f->packets += packets;
	f->bytes += packets * 100;
	f->used_ms = now_ms;
}

// Each way for a flow to end leaves what is known of it, once; one without a packet leaves nothing.
static void ends_are_noted(void **state)
{
	struct flow_cold cold = {.n_prov = 1, .prov_row = {77}};
	struct flow decision = {.out_kind = OUT_PORT, .out = 9, .network = 5}, again = decision;
	struct flow_end e;

	create(1024, 1);
	watch(1);
	struct flow *f = insert(1, 1, 1000);
	flow_decide(table, f, &decision, &cold);
	used(f, 3, 1500);
	insert(1, 2, 1000);
	again.flags = FLOW_LEARN; // no other fate
	flow_decide(table, f, &again, &cold);
	assert_false(flow_ends_waiting(&ends));
	decision.out = 10;
	flow_decide(table, f, &decision, &cold);
	assert_true(flow_ends_take(&ends, &e));
	assert_int_equal(e.decision.out, 9);
	assert_int_equal(e.packets, 3);
	assert_int_equal(e.bytes, 300);
	assert_int_equal(e.why, FLOW_END_FORCED);
	assert_true(e.goes_on);
	assert_int_equal(e.n_prov, 1);
	assert_int_equal(e.prov_row[0], 77);
	uint32_t serial = e.serial;
	used(f, 2, 2000);
	for (uint32_t ms = 11000; ms < 14000; ms++)
		flow_table_sweep(table, ms);
	assert_int_equal(flows(), 0);
	assert_true(flow_ends_take(&ends, &e));
	assert_int_equal(e.decision.out, 10);
	assert_int_equal(e.packets, 5);
	assert_int_equal(e.created_ms, 1000);
	assert_int_equal(e.used_ms, 2000);
	assert_int_equal(e.why, FLOW_END_IDLE);
	assert_int_equal(e.serial, serial);
	assert_false(e.goes_on);
	assert_false(flow_ends_take(&ends, &e));
	// Another flow in the same place is told from it.
	f = insert(1, 3, 20000);
	used(f, 1, 20000);
	flow_table_drop_port(table, 1);
	assert_true(flow_ends_take(&ends, &e));
	assert_int_not_equal(e.serial, serial);
	assert_int_equal(e.why, FLOW_END_FORCED);
	flow_table_watch(table, NULL);
	used(insert(1, 4, 20000), 1, 20000);
	flow_table_drop_port(table, 1);
	assert_false(flow_ends_waiting(&ends));
}

static void making_room_is_an_end(void **state)
{
	struct flow_end e;
	unsigned n = 0;

	create(1024, 1);
	watch(1);
	for (uint32_t i = 0; i < 2000; i++)
		used(insert(1, i, i), 1, i); // older ones are old enough by then
	while (flow_ends_take(&ends, &e)) {
		assert_int_equal(e.why, FLOW_END_RESOURCES);
		n++;
	}
	assert_int_equal(n, 2000 - flows());
	assert_true(n >= 900);
}

// A full ring loses records, and knows how many packets they were of.
static void full_ring(void **state)
{
	struct flow_end e;
	unsigned n = 0;

	create(FLOW_ENDS * 2, 1);
	watch(1);
	for (uint32_t i = 0; i < FLOW_ENDS + 10; i++)
		used(insert(1, i, 0), 2, 0);
	flow_table_drop_port(table, 1);
	assert_int_equal(ends.lost, 10);
	assert_int_equal(ends.lost_packets, 20);
	assert_int_equal(ends.lost_bytes, 2000);
	while (flow_ends_take(&ends, &e))
		n++;
	assert_int_equal(n, FLOW_ENDS);
}

// One of N, by hash: those of one of 20 are among those of one of 10; and only of the networks that are wanted.
static void samples(void **state)
{
	struct flow_end e;
	unsigned n = 0;

	create(FLOW_ENDS, 1);
	watch(10);
	ends.networks[0] &= ~(1ULL << 7);
	for (uint32_t i = 0; i < FLOW_ENDS; i++) {
		struct flow *f = insert(1, i, 0);

		f->network = i % 2 ? 7 : 8;
		used(f, 1, 0);
	}
	flow_table_drop_port(table, 1);
	for (; flow_ends_take(&ends, &e); n++) {
		assert_int_equal(e.decision.network, 8);
		assert_true(flow_sampled(e.hash, 10));
		assert_true(flow_sampled(e.hash, 5) && flow_sampled(e.hash, 1));
	}
	// 819 on average, with a deviation of 27.
	assert_in_range(n, 600, 1040);
	assert_int_equal(ends.lost, 0);
}

// Time that goes back by a millisecond, as on another processor, makes no flow old.
static void time_goes_back(void **state)
{
	create(1024, 1);
	for (uint32_t i = 0; i < 100; i++)
		insert(1, i, 5000);
	for (int i = 0; i < 1000; i++)
		flow_table_sweep(table, 4999);
	assert_int_equal(flows(), 100);
	for (int i = 0; i < 1000; i++)
		flow_table_sweep(table, 15000);
	assert_int_equal(flows(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(grows_to_a_million, teardown),
		cmocka_unit_test_teardown(against_a_model, teardown),
		cmocka_unit_test_teardown(keys_of_all_lengths, teardown),
		cmocka_unit_test_teardown(a_flood_takes_nobodys_share, teardown),
		cmocka_unit_test_teardown(flows_in_use_are_not_evicted, teardown),
		cmocka_unit_test_teardown(ports_come_and_go, teardown),
		cmocka_unit_test_teardown(the_limit_can_change, teardown),
		cmocka_unit_test_teardown(expires, teardown),
		cmocka_unit_test_teardown(decisions, teardown),
		cmocka_unit_test_teardown(found_by_some_fields, teardown),
		cmocka_unit_test_teardown(read_while_it_changes, teardown),
		cmocka_unit_test_teardown(ends_are_noted, teardown),
		cmocka_unit_test_teardown(making_room_is_an_end, teardown),
		cmocka_unit_test_teardown(full_ring, teardown),
		cmocka_unit_test_teardown(samples, teardown),
		cmocka_unit_test_teardown(time_goes_back, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
