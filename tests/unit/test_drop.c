// drop: packets lost by (port, reason, row): bounded, readable beside the worker, and each kind of row is named.
#include "lab.h"
#include "drop.h"
#include "row.h"

#include <pthread.h>
#include <sched.h>

static struct drops *drops;
static struct rte_mbuf *m;
static struct drop_entry entry[DROP_ENTRIES];

static int setup(void **state)
{
	lab_eal();
	drops = drop_create();
	m = lab_mbuf("0123456789abcdefghijklmnopqrstuvwxyz", 36, 0);
	return drops ? 0 : -1;
}

static int teardown(void **state)
{
	drop_destroy(drops);
	rte_pktmbuf_free(m);
	return 0;
}

static const struct drop_entry *entry_of(uint16_t port, uint16_t reason, uint32_t row)
{
	unsigned n = drop_read(drops, entry, true);

	for (unsigned i = 0; i < n; i++)
		if (entry[i].port == port && entry[i].reason == reason && entry[i].row == row)
			return &entry[i];
	return NULL;
}

static uint64_t packets_of(uint16_t port, uint16_t reason, uint32_t row)
{
	const struct drop_entry *e = entry_of(port, reason, row);

	return e ? e->packets : 0;
}

static uint64_t all_packets(void)
{
	unsigned n = drop_read(drops, entry, false);
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += entry[i].packets;
	return sum;
}

static void note(uint16_t port, uint16_t reason, uint32_t row, uint32_t ms)
{
	drop_note(drops, port, reason, row, m, ms * 1000000ULL, ms);
}

static void by_port_reason_and_row(void **state)
{
	for (unsigned i = 0; i < 10; i++) {
		note(1, 2, 3, 1 + i);
		note(1, 2, 4, 1 + i);
		note(1, 3, 3, 1 + i);
		note(2, 2, 3, 1 + i);
		note(2, 2, 3, 1 + i);
	}
	assert_int_equal(packets_of(1, 2, 3), 10);
	assert_int_equal(packets_of(1, 2, 4), 10);
	assert_int_equal(packets_of(1, 3, 3), 10);
	assert_int_equal(packets_of(2, 2, 3), 20);
	assert_int_equal(packets_of(2, 2, 0), 0);
	assert_int_equal(drop_read(drops, entry, false), 4);
}

static void packets_kept(void **state)
{
	static uint8_t bytes[4000];
	struct rte_mbuf *large = lab_mbuf(bytes, sizeof bytes, 1000);

	note(1, 2, 3, 7);
	const struct drop_entry *e = entry_of(1, 2, 3);
	assert_int_equal(e->kept[0].time, 7000000);
	assert_int_equal(e->kept[0].number, 1);
	assert_int_equal(e->kept[0].len, 36);
	assert_int_equal(e->kept[0].have, 36);
	assert_memory_equal(e->kept[0].data, "0123456789abcdefghijklmnopqrstuvwxyz", 36);
	assert_int_equal(e->kept[1].time, 0);
	// The last ones, one a millisecond.
	for (uint32_t ms = 8; ms < 30; ms++)
		note(1, 2, 3, ms);
	e = entry_of(1, 2, 3);
	for (unsigned i = 0; i < DROP_KEPT; i++)
		assert_int_equal(e->kept[(e->next + i) % DROP_KEPT].time, (30 - DROP_KEPT + i) * 1000000);
	// A storm within a millisecond: a few of it.
	for (unsigned i = 0; i < 10000; i++)
		drop_note(drops, 1, 2, 3, large, 50000000, 50);
	e = entry_of(1, 2, 3);
	for (unsigned i = 0; i < DROP_KEPT; i++) {
		assert_int_equal(e->kept[i].time, 50000000);
		assert_int_equal(e->kept[i].len, 4000);
		assert_int_equal(e->kept[i].have, DROP_BYTES);
		assert_in_range(e->kept[i].number, 24, 23 + DROP_KEPT);
	}
	assert_int_equal(e->packets, 10023);
	rte_pktmbuf_free(large);
}

// However many rows there are, every packet is counted somewhere, and the newest rows find room when old ones had no packets for long.
static void bounded(void **state)
{
	uint64_t n = 0;

	for (uint32_t row = 1; row < 10000; row++, n++)
		note((uint16_t)(row % 7), 2, row, 1);
	assert_int_equal(all_packets(), n);
	assert_in_range(drop_read(drops, entry, false), DROP_ROWS_MAX, DROP_ROWS_MAX + 7);
	assert_int_equal(packets_of(3, 2, 3), 1);
	assert_int_equal(packets_of(9999 % 7, 2, 9999), 0);
	assert_true(packets_of(3, 2, DROP_OTHERS) > 500);
	// What has its place keeps it.
	note(3, 2, 3, 2);
	assert_int_equal(packets_of(3, 2, 3), 2);
	// Without rows there is room for more.
	for (uint16_t port = 10; port < 2000; port++, n++)
		note(port, 3, 0, 2);
	assert_in_range(drop_read(drops, entry, false), DROP_ENTRIES, DROP_ENTRIES);
	note(3, 2, 3, DROP_OLD_MS);
	note(4000, 5, 9999, DROP_OLD_MS + 1000);
	assert_int_equal(packets_of(4000, 5, 9999), 1);
	assert_int_equal(packets_of(3, 2, 3), 3);
	assert_int_equal(packets_of(3, 2, 10), 0);
	assert_true(packets_of(3, 2, 0) > 400);
	assert_true(drop_read(drops, entry, false) < 1200);
}

static void port_goes(void **state)
{
	note(0, 2, 0, 1);
	note(1, 2, 3, 2);
	note(1, 2, 4, 4);
	note(1, 5, 3, 5);
	note(2, 2, 3, 6);
	note(1, 2, 3, 7);
	drop_fold(drops, 1);
	assert_int_equal(packets_of(0, 2, 0), 4);
	assert_int_equal(packets_of(0, 5, 0), 1);
	assert_int_equal(packets_of(2, 2, 3), 1);
	assert_int_equal(drop_read(drops, entry, false), 3);
	// The last packets of all, in order.
	const struct drop_entry *e = entry_of(0, 2, 0);
	static const uint64_t ms[DROP_KEPT] = {1, 2, 4, 7};
	for (unsigned i = 0; i < DROP_KEPT; i++)
		assert_int_equal(e->kept[(e->next + i) % DROP_KEPT].time, ms[i] * 1000000);
	note(1, 2, 3, 8); // another port of that number
	assert_int_equal(packets_of(1, 2, 3), 1);
	drop_fold(drops, 77);
	drop_fold(drops, 0);
	assert_int_equal(all_packets(), 7);
}

static void worker_goes(void **state)
{
	struct drops *kept = drops, *other = drop_create();

	note(1, 2, 3, 1);
	drops = other;
	note(1, 2, 3, 2);
	note(4, 2, 3, 3);
	drops = kept;
	drop_merge(drops, other);
	drop_destroy(other);
	assert_int_equal(packets_of(1, 2, 3), 2);
	assert_int_equal(packets_of(4, 2, 3), 1);
	const struct drop_entry *e = entry_of(1, 2, 3);
	assert_int_equal(e->kept[(e->next + DROP_KEPT - 1) % DROP_KEPT].time, 2000000);
	assert_int_equal(e->kept[(e->next + DROP_KEPT - 2) % DROP_KEPT].time, 1000000);
	note(1, 2, 3, 3);
	assert_int_equal(packets_of(1, 2, 3), 3);
}

static bool stop;

// Sums never go back, and what is kept belongs together, while entries come, move and become one.
static void *reader(void *arg)
{
	static struct drop_entry mine[DROP_ENTRIES];
	unsigned *reads = arg;
	uint64_t last = 0;

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		unsigned n = drop_read(drops, mine, true);
		uint64_t sum = 0;

		for (unsigned i = 0; i < n; i++) {
			sum += mine[i].packets;
			for (unsigned k = 0; k < DROP_KEPT; k++) {
				const struct drop_packet *p = &mine[i].kept[k];

				if (p->time && (p->len != 36 || p->have != 36 || memcmp(p->data, "0123456789abcdefghijklmnopqrstuvwxyz", 36)))
					abort();
			}
		}
		if (sum < last)
			abort();
		last = sum;
		__atomic_add_fetch(reads, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void a_reader_beside_it(void **state)
{
	unsigned reads = 0;
	uint32_t n = 0;
	pthread_t thread;

	stop = false;
	assert_int_equal(pthread_create(&thread, NULL, reader, &reads), 0);
	for (; __atomic_load_n(&reads, __ATOMIC_RELAXED) < 500; n++) {
		note((uint16_t)(1 + n % 5), (uint16_t)(1 + n % 3), n % 97, n);
		if (n % 256 == 0) {
			drop_fold(drops, (uint16_t)(1 + n / 256 % 5));
			sched_yield();
		}
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	assert_int_equal(all_packets(), n);
}

// ---- which row

static const char *row_of(uint16_t port, const char *reason)
{
	static char text[128];
	unsigned n = drop_read(lab.w.drops, entry, false);
	uint16_t id = lab_reason(reason);

	for (unsigned i = 0; i < n; i++)
		if (entry[i].port == port && entry[i].reason == id) {
			const struct row_info *r = row_get(entry[i].row);

			snprintf(text, sizeof text, "%s %s", r ? r->table : "no", r ? r->name : "row");
			return text;
		}
	return "not dropped";
}

static void expect_row(uint16_t port, const char *packet, const char *reason, const char *row)
{
	// The first packet is decided, the second one is served by the cached flow.
	for (int i = 0; i < 2; i++) {
		lab_expect_drop(port, packet, reason);
		assert_string_equal(row_of(port, reason), row);
	}
}

static void rows_named(void **state)
{
	lab_setup();
	struct config_network *blue = lab_network("blue", 10);
	struct config_port *a = lab_port("a", VLAN_ACCESS, blue), *b = lab_port("b", VLAN_ACCESS, blue), *c = lab_port("c", VLAN_TRUNK, NULL);
	lab_address(b, "02:00:00:00:00:0b");
	lab_address(c, "02:00:00:00:00:0c");
	a->storm_broadcast = (struct config_rate){.pps = 1, .burst = 1};
	lab_apply();
	expect_row(a->id, "udp,dl_vlan=5,dl_dst=02:00:00:00:00:0b", "vlan.NOT_ALLOWED", "Port a");
	expect_row(a->id, "udp,dl_src=01:00:00:00:00:01,dl_dst=02:00:00:00:00:0b", "vlan.GROUP_SOURCE", "no row");
	expect_row(a->id, "dl_type=0x88b5,dl_dst=01:80:c2:00:00:0e", "vlan.RESERVED", "Network blue");
	expect_row(b->id, "udp,dl_dst=02:00:00:00:00:0b", "fdb.SAME_PORT", "Port b");
	// The MTU is that of the network, then the port's own; a packet that is flooded is held against it too.
	expect_row(a->id, "udp,dl_dst=02:00:00:00:00:0b,packet_len=2000", "mtu.TOO_LARGE", "Network blue");
	b->mtu = 1400;
	lab_apply();
	lab_forget_sent();
	lab_send(a->id, "udp,dl_dst=02:00:00:00:00:0b,packet_len=2000");
	assert_int_equal(lab_drops(a->id, "mtu.TOO_LARGE"), 3);
	unsigned n = drop_read(lab.w.drops, entry, false), named = 0;
	for (unsigned i = 0; i < n; i++)
		named += entry[i].reason == lab_reason("mtu.TOO_LARGE") && row_get(entry[i].row) && !strcmp(row_get(entry[i].row)->name, "b");
	assert_int_equal(named, 1);
	lab_send(a->id, "arp");
	expect_row(a->id, "arp", "storm.BROADCAST", "Port a");
	blue->flood_unknown = false;
	lab_apply();
	expect_row(a->id, "udp,dl_dst=02:00:00:00:00:99", "fdb.UNKNOWN", "Network blue");
	a->isolated = b->isolated = true;
	lab_apply();
	expect_row(a->id, "udp,dl_dst=02:00:00:00:00:0b", "isolation.ISOLATED", "Port b");
	a->isolated = b->enabled = false;
	lab_apply();
	expect_row(a->id, "udp,dl_dst=02:00:00:00:00:0b", "output.DISABLED", "Port b");
	expect_row(b->id, "udp,dl_dst=02:00:00:00:00:0c", "vlan.DISABLED", "Port b");
	// On the way out, the egress port.
	struct rte_mbuf *lost = lab_mbuf("0123456789abcdef", 16, 0);
	memset(pkt_of(lost), 0, sizeof(struct pkt));
	pkt_of(lost)->origin = c->id;
	worker_count(&lab.w, c->id, COUNT_RX, 1);
	worker_drop_tx(&lab.w, lab.w.port[a->id], lost, lab_reason("tx.CLOSED"));
	assert_string_equal(row_of(c->id, "tx.CLOSED"), "Port a");
	lab_teardown();
}

static void rules_named(void **state)
{
	lab_setup();
	struct config_network *blue = lab_network("blue", 10);
	uint16_t a = lab_port("a", VLAN_ACCESS, blue)->id;
	lab_port("b", VLAN_ACCESS, blue)->enabled = false;
	static struct row_id ids[3] = {{{0xaa, 1}}, {{0xbb, 2}}, {{0xcc, 3}}};
	static const char *const match[] = {"tcp", "udp", "icmp"}, *const actions[] = {"drop", "output:a", "mirror:b,drop"};

	lab.config->flows = calloc(3, sizeof *lab.config->flows);
	for (int i = 0; i < 3; i++)
		lab.config->flows[lab.config->n_flows++] = (struct config_flow){
			.row = ids[i], .priority = 1, .enabled = true, .match = strdup(match[i]), .actions = strdup(actions[i])};
	lab_apply();
	expect_row(a, "tcp", "rule.DROP", "Flow aa010000");
	expect_row(a, "udp", "rule.SAME_PORT", "Flow bb020000");
	lab_send(a, "icmp");
	assert_string_equal(row_of(a, "rule.COPY"), "Flow cc030000");
	lab_teardown();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(by_port_reason_and_row, setup, teardown),
		cmocka_unit_test_setup_teardown(packets_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(port_goes, setup, teardown),
		cmocka_unit_test_setup_teardown(worker_goes, setup, teardown),
		cmocka_unit_test_setup_teardown(a_reader_beside_it, setup, teardown),
		cmocka_unit_test(rows_named),
		cmocka_unit_test(rules_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
