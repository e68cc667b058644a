// fdb: learning, moving, flapping, limits, ageing, static entries; by packets, and by the table's own functions from several threads.
#include "lab.h"
#include "notice.h"
#include "fdb.h"

#include <pthread.h>
#include <sched.h>

static struct config_network *net;
static struct config_port *port[4];
static uint16_t a, b, c;

static int setup(void **state)
{
	lab_setup();
	net = lab_network("blue", 10);
	port[1] = lab_port("a", VLAN_ACCESS, net);
	port[2] = lab_port("b", VLAN_ACCESS, net);
	port[3] = lab_port("c", VLAN_ACCESS, net);
	a = port[1]->id;
	b = port[2]->id;
	c = port[3]->id;
	lab_apply();
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

// A and B are the hosts on ports a and b.
#define FROM_A "udp,dl_src=02:00:00:00:00:0a,dl_dst=02:00:00:00:00:0b"
#define FROM_B "udp,dl_src=02:00:00:00:00:0b,dl_dst=02:00:00:00:00:0a"
#define FROM_C "udp,dl_src=02:00:00:00:00:0c,dl_dst=02:00:00:00:00:0a"

static uint16_t port_of(uint8_t last)
{
	struct fdb_entry e;
	uint8_t mac[6] = {2, 0, 0, 0, 0, last};

	return fdb_lookup(fdb_key(net->id, mac), &e) ? e.port : 0;
}

static void learns(void **state)
{
	lab_expect_ports(a, FROM_A, b, c, 0);
	lab_expect_trace("02:00:00:00:00:0a is new, learned on a");
	lab_expect_trace("02:00:00:00:00:0b is unknown: flood");
	assert_int_equal(lab_count(a, COUNT_FDB_LEARNED), 1);
	assert_int_equal(port_of(0x0a), a);
	lab_expect_ports(b, FROM_B, a, 0);
	lab_expect_trace("02:00:00:00:00:0a was learned on a, seen 0 s ago");
	// What was flooded has a destination now.
	lab_expect_ports(a, FROM_A, b, 0);
	lab_expect_trace("no cached flow, resolving");
	lab_expect_trace("02:00:00:00:00:0a is known on a");
	lab_expect_ports(a, FROM_A, b, 0);
	lab_expect_trace("cached flow");
	assert_int_equal(fdb_count(net->id), 2);
	assert_int_equal(lab_count(a, COUNT_FDB_LEARNED), 1);
	lab_expect_drop(a, "udp,dl_src=02:00:00:00:00:aa,dl_dst=02:00:00:00:00:0a", "fdb.SAME_PORT");
	assert_int_equal(port_of(0xaa), a); // a drop is no reason not to learn
	lab_expect_drop(a, "udp,dl_src=02:00:00:00:00:0a,dl_dst=02:00:00:00:00:0a", "fdb.SAME_PORT");
}

// A frame to its own source address is flooded while that isn't known, and learns it at the same time.
static void to_itself(void **state)
{
	lab_expect_ports(a, "udp,dl_src=02:00:00:00:00:0a,dl_dst=02:00:00:00:00:0a", b, c, 0);
	lab_expect_drop(a, "udp,dl_src=02:00:00:00:00:0a,dl_dst=02:00:00:00:00:0a", "fdb.SAME_PORT");
	lab_expect_drop(a, "udp,dl_src=02:00:00:00:00:0a,dl_dst=02:00:00:00:00:0a", "fdb.SAME_PORT");
	lab_expect_trace("cached flow");
}

static void networks_know_nothing_of_each_other(void **state)
{
	struct config_network *red = lab_network("red", 20);
	struct config_port *trunk = lab_port("trunk", VLAN_TRUNK, NULL);
	uint16_t d = lab_port("d", VLAN_ACCESS, red)->id;

	lab_apply();
	lab_send(a, FROM_A);
	lab_send(d, FROM_A);
	assert_int_equal(fdb_count(net->id), 1);
	assert_int_equal(fdb_count(red->id), 1);
	assert_int_equal(port_of(0x0a), a);
	lab_expect_ports(trunk->id, FROM_B ",dl_vlan=20", d, 0);
	lab_expect_ports(trunk->id, FROM_B ",dl_vlan=10", a, 0);
}

static void groups_and_broadcast_flood(void **state)
{
	lab_expect_ports(a, "arp,arp_tpa=10.0.0.1", b, c, 0);
	lab_expect_trace("is a group: flood");
	lab_expect_ports(a, "udp,nw_dst=224.0.0.251", b, c, 0);
	lab_expect_ports(a, "udp6,ipv6_dst=ff02::1", b, c, 0);
}

static void moves(void **state)
{
	lab_send(a, FROM_A);
	lab_expect_ports(b, FROM_B, a, 0);
	lab_expect_ports(b, FROM_B, a, 0);
	lab_send(c, FROM_A);
	lab_expect_trace("02:00:00:00:00:0a was on a, moves");
	assert_int_equal(port_of(0x0a), c);
	assert_int_equal(lab_count(c, COUNT_FDB_MOVED), 1);
	lab_expect_ports(b, FROM_B, c, 0); // the cached flow is stale
	lab_send(a, FROM_A);
	assert_int_equal(port_of(0x0a), a);
	lab_expect_ports(b, FROM_B, a, 0);
}

// A cached flow of the old place learns its address anew when it is used again.
static void moves_back_through_a_cached_flow(void **state)
{
	lab_send(a, FROM_A);
	lab_send(a, FROM_A);
	lab_send(c, FROM_A);
	assert_int_equal(port_of(0x0a), c);
	lab_send(a, FROM_A);
	lab_expect_trace("was on c, moves");
	assert_int_equal(port_of(0x0a), a);
}

static unsigned notices;

static void note(char level, const char *module, const struct log_field *fields, const char *sentence)
{
	assert_int_equal(level, 'w');
	assert_string_equal(module, "fdb");
	assert_string_equal(fields[0].value, "02:00:00:00:00:0a");
	assert_string_equal(fields[1].value, "blue");
	assert_non_null(strstr(sentence, "address 02:00:00:00:00:0a moves to and fro between ports: it is held on "));
	notices++;
}

static void flapping_is_damped(void **state)
{
	notices = 0;
	notice_sink = note;
	lab_send(a, FROM_A);
	for (unsigned i = 0; i < net->flap_threshold; i++) {
		lab_send(i % 2 ? a : c, FROM_A);
		assert_int_equal(port_of(0x0a), i % 2 ? a : c);
		lab_advance_ms(100);
	}
	uint16_t held = port_of(0x0a), other = held == a ? c : a;
	lab_send(other, FROM_A);
	assert_int_equal(port_of(0x0a), held);
	assert_int_equal(lab_count(other, COUNT_FDB_REFUSED), 1);
	for (unsigned i = 0; i < 20; i++) // once, however long it lasts
		lab_tick();
	assert_int_equal(notices, 1);
	notice_sink = NULL;
	lab_advance_ms(net->flap_hold_s * 1000 - 2000);
	lab_send(other, FROM_A);
	lab_expect_trace("cached flow");
	assert_int_equal(port_of(0x0a), held);
	lab_send(other, "udp,dl_src=02:00:00:00:00:0a,dl_dst=02:00:00:00:00:77");
	lab_expect_trace("held there because it flaps");
	assert_int_equal(port_of(0x0a), held);
	// Its packets still go where they should, and others still find it.
	lab_expect_ports(b, FROM_B, held, 0);
	lab_advance_ms(4000);
	lab_send(other, FROM_A); // by the cached flow, whose refresh tries again
	assert_int_equal(port_of(0x0a), other);
	assert_int_equal(lab_count(other, COUNT_FDB_MOVED), net->flap_threshold / 2 + 1);
	lab_expect_ports(b, FROM_B, other, 0);
}

static void moves_of_another_day_do_not_flap(void **state)
{
	lab_send(a, FROM_A);
	for (unsigned i = 0; i < 20; i++) {
		lab_advance_ms(4000);
		lab_send(i % 2 ? a : c, FROM_A);
		assert_int_equal(port_of(0x0a), i % 2 ? a : c);
	}
	net->flap_threshold = 0; // never
	lab_apply();
	for (unsigned i = 0; i < 50; i++) {
		lab_send(i % 2 ? a : c, FROM_A);
		assert_int_equal(port_of(0x0a), i % 2 ? a : c);
	}
}

static void send_from(uint16_t in, unsigned host)
{
	char text[80];

	snprintf(text, sizeof text, "udp,dl_src=02:00:00:00:%02x:%02x,dl_dst=02:ff:00:00:00:01", host >> 8, host & 255);
	lab_send(in, text);
}

static void limit_of_the_network(void **state)
{
	net->mac_limit = 3;
	lab_apply();
	for (unsigned i = 1; i <= 5; i++)
		send_from(i % 2 ? a : b, i);
	assert_int_equal(fdb_count(net->id), 3);
	assert_int_equal(lab_count(a, COUNT_FDB_REFUSED), 1);
	assert_int_equal(lab_count(b, COUNT_FDB_REFUSED), 1);
	assert_int_equal(lab.n_sent, 2); // the packet passes all the same
	// Room again: the next packet of a cached flow gets it, a second later.
	lab_advance_ms(200 * 1000);
	for (unsigned i = 4; i <= 5; i++)
		send_from(i % 2 ? a : b, i);
	assert_int_equal(port_of(4), 0);
	lab_advance_ms(101 * 1000);
	lab_tick();
	assert_int_equal(fdb_count(net->id), 0);
	send_from(b, 4);
	assert_int_equal(port_of(4), b);
	net->mac_limit = 0;
	lab_apply();
	send_from(b, 6);
	assert_int_equal(port_of(6), 0);
	assert_int_equal(lab.n_sent, 2);
}

static void limit_of_the_port(void **state)
{
	port[1]->mac_limit = 2;
	lab_apply();
	for (unsigned i = 1; i <= 4; i++)
		send_from(a, i);
	for (unsigned i = 5; i <= 8; i++)
		send_from(b, i);
	assert_int_equal(fdb_count(net->id), 6);
	assert_int_equal(port_of(3), 0);
	assert_int_equal(lab_count(a, COUNT_FDB_REFUSED), 2);
	send_from(a, 5); // moving counts too
	assert_int_equal(port_of(5), b);
	send_from(c, 1); // and makes room
	assert_int_equal(port_of(1), c);
	send_from(a, 5);
	lab_advance_ms(1000);
	send_from(a, 5);
	assert_int_equal(port_of(5), a);
	port[1]->mac_limit = 0;
	lab_apply();
	lab_advance_ms(1000);
	send_from(a, 3);
	assert_int_equal(port_of(3), a);
}

static void ages(void **state)
{
	lab_send(a, FROM_A);
	lab_advance_ms(299 * 1000);
	lab_tick();
	assert_int_equal(port_of(0x0a), a);
	lab_advance_ms(1000);
	lab_tick();
	assert_int_equal(port_of(0x0a), 0);
	lab_expect_ports(b, FROM_B, a, c, 0);
}

static void ageing_makes_flows_stale(void **state)
{
	lab_send(a, FROM_A);
	for (int s = 0; s < 300; s += 6) { // being a destination keeps nobody alive
		lab_expect_ports(b, FROM_B, a, 0);
		lab_advance_ms(6000);
		lab_tick();
	}
	assert_int_equal(port_of(0x0a), 0);
	lab_expect_ports(b, FROM_B, a, c, 0);
}

// Traffic keeps its source alive: by a cached flow, by packets too rare to be cached, and by decisions that never are.
static void use_keeps_an_address(void **state)
{
	static const unsigned interval_ms[] = {500, 2000, 60 * 1000, 290 * 1000};

	for (unsigned k = 0; k < 4; k++) {
		for (uint64_t t = 0; t < 1000 * 1000; t += interval_ms[k]) {
			lab_send(a, FROM_A);
			lab_advance_ms(interval_ms[k]);
			if (t / 10000 != (t + interval_ms[k]) / 10000)
				lab_tick();
			if (port_of(0x0a) != a)
				fail_msg("a packet every %u ms: forgotten after %lu s", interval_ms[k], t / 1000);
		}
	}
	assert_int_equal(lab_count(a, COUNT_FDB_LEARNED), 1);
}

static void ageing_is_the_networks(void **state)
{
	struct config_network *fast = lab_network("fast", 20), *never = lab_network("never", 30);
	uint16_t d = lab_port("d", VLAN_ACCESS, fast)->id, e = lab_port("e", VLAN_ACCESS, never)->id;

	fast->ageing_s = 10;
	never->ageing_s = 0;
	lab_apply();
	lab_send(a, FROM_A);
	lab_send(d, FROM_A);
	lab_send(e, FROM_A);
	lab_advance_ms(10 * 1000);
	lab_tick();
	assert_int_equal(fdb_count(net->id), 1);
	assert_int_equal(fdb_count(fast->id), 0);
	lab_advance_ms(1000000);
	lab_tick();
	assert_int_equal(fdb_count(net->id), 0);
	assert_int_equal(fdb_count(never->id), 1);
}

static void static_entries(void **state)
{
	struct config_fdb *f = lab_static(net, port[1], "02:00:00:00:00:0a");
	struct fdb_entry e;

	lab_send(c, FROM_A); // learned first; then the row comes
	lab_expect_ports(b, FROM_B, c, 0);
	lab_apply();
	assert_null(f->error);
	assert_int_equal(fdb_count(net->id), 1); // B; static ones don't count towards the limit
	lab_expect_ports(b, FROM_B, a, 0);
	lab_expect_trace("02:00:00:00:00:0a is static on a");
	// Seen elsewhere: not learned, not moved.
	lab_send(c, FROM_A);
	lab_expect_trace("is static on a (seen elsewhere, not learned)");
	assert_int_equal(port_of(0x0a), a);
	assert_int_equal(lab_count(c, COUNT_FDB_REFUSED), 0);
	lab_advance_ms(1000 * 1000);
	lab_tick();
	assert_int_equal(port_of(0x0a), a);
	// The flow names the row that decided.
	lab_send(b, FROM_B);
	struct flow_view v = lab_flow(b);
	bool named = false;
	for (unsigned i = 0; i < v.cold.n_prov; i++) {
		const struct row_info *row = row_get(v.cold.prov_row[i]);
		named |= !strcmp(row->table, "FDB") && row_id_equal(&row->id, &f->row) && v.cold.prov_stage[i] == stage_find("fdb")->index;
	}
	assert_true(named);
	// To another port; then gone.
	f->port = port[3]->row;
	lab_apply();
	lab_expect_ports(b, FROM_B, c, 0);
	lab.config->n_fdb = 0;
	lab_apply();
	assert_false(fdb_lookup(fdb_key(net->id, (const uint8_t[]){2, 0, 0, 0, 0, 0x0a}), &e));
	lab_expect_ports(b, FROM_B, a, c, 0);
}

static void addresses_of_a_port(void **state)
{
	struct config_port *p = port[1];

	lab_address(p, "02:00:00:00:00:0a");
	lab_address(p, "02:00:00:00:00:0d");
	lab_apply();
	lab_expect_ports(b, FROM_B, a, 0);
	assert_int_equal(port_of(0x0d), a);
	p->n_addresses = 1;
	lab_apply();
	assert_int_equal(port_of(0x0d), 0);
	assert_int_equal(port_of(0x0a), a);
}

static void duplicates_are_errors(void **state)
{
	struct config_fdb *f;

	lab_address(port[1], "02:00:00:00:00:0a");
	lab_address(port[2], "02:00:00:00:00:0a");
	f = lab_static(net, port[3], "02:00:00:00:00:0a");
	lab_apply();
	assert_null(port[1]->error);
	assert_string_equal(port[2]->error, "the address 02:00:00:00:00:0a is already static on port a by Port a");
	assert_string_equal(f->error, "the address 02:00:00:00:00:0a is already static on port a by Port a");
	assert_int_equal(port_of(0x0a), a);
	// When the first one goes, the next has it.
	port[1]->n_addresses = 0;
	lab_apply();
	assert_null(port[2]->error);
	assert_non_null(f->error);
	assert_int_equal(port_of(0x0a), b);
	// The same row twice is no conflict.
	port[2]->n_addresses = 0;
	lab_address(port[3], "02:00:00:00:00:1a");
	lab_address(port[3], "02:00:00:00:00:1a");
	lab_apply();
	assert_null(port[3]->error);
	assert_null(f->error);
	assert_int_equal(port_of(0x0a), c);
}

static void static_entry_outside_of_its_network(void **state)
{
	struct config_network *red = lab_network("red", 20);
	struct config_fdb *f = lab_static(red, port[1], "02:00:00:00:00:0a");

	lab_apply();
	assert_string_equal(f->error, "port a is not in network red");
	// A row that isn't there yet means "not yet".
	f->port = (struct row_id){{1, 2, 3}};
	lab_apply();
	assert_null(f->error);
}

static void members_that_go_are_forgotten(void **state)
{
	struct config_network *red = lab_network("red", 20);

	lab_send(a, FROM_A);
	lab_send(b, FROM_B);
	lab_static(net, port[3], "02:00:00:00:00:0c");
	lab_apply();
	assert_int_equal(port_of(0x0c), c);
	port[1]->network = red->row;
	lab_apply();
	assert_int_equal(port_of(0x0a), 0);
	assert_int_equal(port_of(0x0b), b);
	lab_expect_ports(b, FROM_B, c, 0);
	lab_remove_port(port[3]);
	lab_apply();
	assert_int_equal(port_of(0x0c), 0);
	lab_expect_drop(b, FROM_B, "flow.NOBODY");
	lab_remove_network(net);
	lab_apply();
	assert_int_equal(fdb_count(1), 0);
}

static void no_learning(void **state)
{
	net->learning = false;
	lab_apply();
	lab_expect_ports(a, FROM_A, b, c, 0);
	lab_expect_trace("02:00:00:00:00:0a is not learned");
	assert_int_equal(port_of(0x0a), 0);
	lab_expect_ports(b, FROM_B, a, c, 0);
	net->learning = true;
	lab_apply();
	lab_send(a, FROM_A);
	assert_int_equal(port_of(0x0a), a);
}

static void no_flooding_of_unknown(void **state)
{
	net->flood_unknown = false;
	lab_apply();
	lab_expect_drop(a, FROM_A, "fdb.UNKNOWN");
	lab_expect_trace("is unknown: not flooded here");
	assert_int_equal(port_of(0x0a), a);
	lab_expect_ports(b, FROM_B, a, 0);
	lab_expect_ports(a, FROM_A, b, 0);
	lab_expect_ports(a, "arp", b, c, 0);
}

static char *verb(const char *name, const char *arg, bool json)
{
	const struct stage_verb *v = stage_find("fdb")->verbs;
	const char *argv[] = {name, arg};
	char *error = NULL;

	while (strcmp(v->name, name))
		v++;
	if (v->run) {
		char *text = v->run(arg ? 2 : 1, argv, json, &error);
		return text ? text : error;
	}
	struct page p;
	bool end;
	page_begin(&p);
	char *text = page_next(&p, v->list, arg ? 2 : 1, argv, json, &end, &error);
	// Places without an entry are many pages' worth of looking; the few rows here may be in any of them.
	while (text && !end) {
		char *part = page_next(&p, v->list, arg ? 2 : 1, argv, json, &end, &error);

		assert_non_null(part);
		text = realloc(text, strlen(text) + strlen(part) + 1);
		assert_non_null(text);
		strcat(text, part);
		free(part);
	}
	return text ? text : error;
}

static void verbs(void **state)
{
	struct config_network *red = lab_network("red", 20);
	uint16_t d = lab_port("d", VLAN_ACCESS, red)->id;
	char *text;

	lab_static(net, port[3], "02:00:00:00:00:0c");
	lab_apply();
	lab_send(a, FROM_A);
	lab_send(d, FROM_A);
	lab_advance_ms(7000);
	lab_tick();
	text = verb("fdb/list", "red", false);
	assert_string_equal(text, "NETWORK  MAC                PORT  TYPE     AGE(s)  MOVES\n"
				  "red      02:00:00:00:00:0a  d     learned       7      0\n");
	free(text);
	text = verb("fdb/list", NULL, true);
	assert_non_null(strstr(text, "\"mac\": \"02:00:00:00:00:0c\", \"port\": \"c\", \"type\": \"static\", \"age\": null"));
	free(text);
	text = verb("fdb/list", "green", false);
	assert_string_equal(text, "there is no network green");
	free(text);
	text = verb("fdb/flush", "red", false);
	assert_string_equal(text, "1 learned addresses flushed\n");
	free(text);
	assert_int_equal(fdb_count(red->id), 0);
	assert_int_equal(port_of(0x0a), a);
	text = verb("fdb/flush", "green", false);
	assert_string_equal(text, "there is no network green");
	free(text);
	text = verb("fdb/flush", NULL, true);
	assert_string_equal(text, "{\"flushed\": 1}\n");
	free(text);
	assert_int_equal(port_of(0x0c), c); // static ones stay
	lab_expect_ports(b, FROM_B, a, c, 0);
}

// ---- the table itself

static unsigned count_entries(void)
{
	struct fdb_entry e;
	unsigned n = 0;

	for (uint32_t i = 0; i < fdb_high(); i++)
		n += fdb_at(i, &e) && e.index == i;
	return n;
}

static void full_table(void **state)
{
	struct fdb_policy p = {.limit = UINT32_MAX};
	bool changed;
	uint32_t index;
	unsigned n = 0;

	fdb_set_policy(net->id, &p);
	for (uint64_t i = 0; i < FDB_SIZE + 1000; i++) {
		enum fdb_result r = fdb_learn((uint64_t)net->id << 48 | 0x020000000000 | i, a, 1, &changed, &index);

		assert_true(r == FDB_LEARNED || r == FDB_FULL);
		assert_int_equal(changed, r == FDB_LEARNED);
		n += r == FDB_LEARNED;
	}
	assert_true(n >= FDB_SIZE - 64 && n < FDB_SIZE + 1000);
	assert_int_equal(fdb_count(net->id), n);
	assert_int_equal(count_entries(), n);
	// No room for a static one either: its row says so.
	struct config_fdb *f = lab_static(net, port[1], "02:ff:00:00:00:01");
	lab_apply();
	assert_non_null(strstr(f->error, "full"));
	// A packet from one more host passes.
	lab_expect_ports(b, "udp,dl_src=02:ff:00:00:00:02,dl_dst=02:00:00:00:00:0a", a, 0);
	assert_int_equal(lab_count(b, COUNT_FDB_REFUSED), 1);
	// All go, and as many fit again.
	for (uint64_t i = 0; i < FDB_SIZE + 1000; i++)
		fdb_remove((uint64_t)net->id << 48 | 0x020000000000 | i);
	assert_int_equal(fdb_count(net->id), 0);
	fdb_set_policy(net->id, &p);
	for (uint64_t i = 0; i < 1000; i++)
		assert_int_equal(fdb_learn((uint64_t)net->id << 48 | 0x020000000000 | i, a, 1, &changed, &index), FDB_LEARNED);
}

#define HOSTS 256
#define ROUNDS 40000

static pthread_barrier_t start;
static unsigned finished;

struct learner {
	unsigned id;
	unsigned busy, learned, moved;
	uint16_t port;
};

// A worker that learns, looks up and touches the same few addresses as its neighbour, which moves them to another port.
static void *learner(void *arg)
{
	struct learner *l = arg;
	unsigned seed = l->id;

	rcu_worker_start(l->id);
	pthread_barrier_wait(&start);
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t key = (uint64_t)net->id << 48 | 0x020000000000 | (unsigned)rand_r(&seed) % HOSTS;
		struct fdb_entry e;
		bool changed;
		uint32_t index;

		if (fdb_lookup(key, &e)) {
			if (e.port != a && e.port != b)
				abort();
			fdb_touch(e.index, i);
		}
		switch (fdb_learn(key, l->port, i / 100, &changed, &index)) {
		case FDB_BUSY:
			l->busy++;
			break;
		case FDB_LEARNED:
			l->learned++;
			break;
		case FDB_MOVED:
			l->moved++;
			break;
		default:
			break;
		}
		if (i % 16 == 0) {
			rcu_quiescent(l->id);
			sched_yield(); // or each would be done in one turn of a busy machine
		}
	}
	rcu_worker_stop(l->id);
	__atomic_add_fetch(&finished, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void ignore_held(const struct fdb_entry *e)
{
}

static void ignore(uint64_t key)
{
}

static void several_threads(void **state)
{
	struct fdb_policy p = {.limit = HOSTS / 2, .ageing_s = 1};
	struct learner l[2] = {{.id = 1, .port = a}, {.id = 2, .port = b}};
	pthread_t t[2];
	unsigned n = 0, removed = 0;

	fdb_set_policy(net->id, &p);
	finished = 0;
	pthread_barrier_init(&start, NULL, 3);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, learner, &l[i]), 0);
	pthread_barrier_wait(&start);
	for (unsigned i = 0; __atomic_load_n(&finished, __ATOMIC_ACQUIRE) < 2; i++) {
		removed += fdb_remove((uint64_t)net->id << 48 | 0x020000000000 | i / 16 % HOSTS);
		if (i % 1000 == 0) {
			fdb_age(i / 100, 100, ignore, ignore_held);
			rcu_poll();
		}
	}
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	n = count_entries();
	assert_int_equal(fdb_count(net->id), n);
	assert_true(n <= HOSTS / 2);
	assert_true(l[0].learned + l[1].learned > 0);
	assert_true(l[0].moved + l[1].moved > 0);
	assert_true(removed <= l[0].learned + l[1].learned);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(learns, setup, teardown),
		cmocka_unit_test_setup_teardown(to_itself, setup, teardown),
		cmocka_unit_test_setup_teardown(networks_know_nothing_of_each_other, setup, teardown),
		cmocka_unit_test_setup_teardown(groups_and_broadcast_flood, setup, teardown),
		cmocka_unit_test_setup_teardown(moves, setup, teardown),
		cmocka_unit_test_setup_teardown(moves_back_through_a_cached_flow, setup, teardown),
		cmocka_unit_test_setup_teardown(flapping_is_damped, setup, teardown),
		cmocka_unit_test_setup_teardown(moves_of_another_day_do_not_flap, setup, teardown),
		cmocka_unit_test_setup_teardown(limit_of_the_network, setup, teardown),
		cmocka_unit_test_setup_teardown(limit_of_the_port, setup, teardown),
		cmocka_unit_test_setup_teardown(ages, setup, teardown),
		cmocka_unit_test_setup_teardown(ageing_makes_flows_stale, setup, teardown),
		cmocka_unit_test_setup_teardown(use_keeps_an_address, setup, teardown),
		cmocka_unit_test_setup_teardown(ageing_is_the_networks, setup, teardown),
		cmocka_unit_test_setup_teardown(static_entries, setup, teardown),
		cmocka_unit_test_setup_teardown(addresses_of_a_port, setup, teardown),
		cmocka_unit_test_setup_teardown(duplicates_are_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(static_entry_outside_of_its_network, setup, teardown),
		cmocka_unit_test_setup_teardown(members_that_go_are_forgotten, setup, teardown),
		cmocka_unit_test_setup_teardown(no_learning, setup, teardown),
		cmocka_unit_test_setup_teardown(no_flooding_of_unknown, setup, teardown),
		cmocka_unit_test_setup_teardown(verbs, setup, teardown),
		cmocka_unit_test_setup_teardown(full_table, setup, teardown),
		cmocka_unit_test_setup_teardown(several_threads, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
