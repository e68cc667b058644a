// count: the ledger. What is published belongs together, for a reader in another thread too.
#include "lab.h"

#include <pthread.h>
#include <sched.h>

static struct port_counts *counts;

static int setup(void **state)
{
	counts = aligned_alloc(64, (sizeof *counts + 63) & ~63UL);
	memset(counts, 0, sizeof *counts);
	return 0;
}

static int teardown(void **state)
{
	free(counts);
	return 0;
}

static void published_in_one(void **state)
{
	struct counts c = {0};

	count_add(counts, COUNT_RX, 3);
	count_add(counts, COUNT_SENT, 1);
	count_drop(counts, 5);
	count_drop(counts, MAX_REASONS - 1);
	count_read(counts, &c);
	assert_int_equal(c.c[COUNT_RX], 0);
	count_publish(counts);
	count_read(counts, &c);
	assert_int_equal(c.c[COUNT_RX], 3);
	assert_int_equal(c.c[COUNT_DROPPED], 2);
	assert_int_equal(c.drop[5], 1);
	assert_int_equal(c.drop[MAX_REASONS - 1], 1);
	assert_int_equal(count_missing(&c), 0);
	count_publish(counts);
	count_read(counts, &c); // adds
	assert_int_equal(c.c[COUNT_RX], 6);
	// A queue goes up and down.
	count_add(counts, COUNT_QUEUED, 2);
	count_publish(counts);
	count_add(counts, COUNT_QUEUED, (uint64_t)-2);
	count_publish(counts);
	memset(&c, 0, sizeof c);
	count_read(counts, &c);
	assert_int_equal(c.c[COUNT_QUEUED], 0);
}

// Every term has its side.
static void conservation(void **state)
{
	static const enum count in[] = {COUNT_RX, COUNT_GENERATED, COUNT_COPIES, COUNT_SEGMENTS};
	static const enum count out[] = {COUNT_SENT, COUNT_QUEUED, COUNT_CONSUMED, COUNT_MERGED};

	for (int i = 0; i < 4; i++) {
		struct counts c = {0};

		c.c[in[i]] = 3;
		assert_int_equal(count_missing(&c), 3);
		c.c[out[i]] = 2;
		assert_int_equal(count_missing(&c), 1);
		c.drop[7 * i + 1] = 2;
		assert_int_equal(count_missing(&c), -1);
	}
	for (int i = 0; i < COUNT_N; i++) {
		assert_non_null(count_desc[i].key);
		assert_non_null(count_desc[i].text);
	}
}

static bool stop;

static void *reader(void *arg)
{
	unsigned *reads = arg;

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		struct counts c = {0};

		count_read(counts, &c);
		if (count_missing(&c))
			abort();
		__atomic_add_fetch(reads, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void a_reader_beside_it(void **state)
{
	unsigned reads = 0, n = 0;
	pthread_t thread;

	stop = false;
	assert_int_equal(pthread_create(&thread, NULL, reader, &reads), 0);
	for (; __atomic_load_n(&reads, __ATOMIC_RELAXED) < 3000; n++) {
		count_add(counts, COUNT_RX, 3);
		count_add(counts, COUNT_SENT, 2);
		count_drop(counts, (uint16_t)(1 + n % (MAX_REASONS - 1)));
		count_publish(counts);
		if (n % 64 == 0)
			sched_yield();
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	struct counts c = {0};
	count_read(counts, &c);
	assert_int_equal(c.c[COUNT_RX], 3 * n);
}

// Packets whose port is gone are on the ledger of the switch itself, and traces end once.
static void origins(void **state)
{
	lab_setup();
	struct config_network *net = lab_network("blue", 0);
	struct config_port *a = lab_port("a", VLAN_ACCESS, net), *b = lab_port("b", VLAN_ACCESS, net);
	lab_apply();
	struct rte_mbuf *m = lab_mbuf("0123456789abcdef", 16, 0);
	memset(pkt_of(m), 0, sizeof(struct pkt));
	pkt_of(m)->origin = 77;
	worker_count(&lab.w, 77, COUNT_RX, 1);
	worker_drop(&lab.w, m, lab_reason("tx.CLOSED"));
	m = lab_mbuf("0123456789abcdef", 16, 0);
	memset(pkt_of(m), 0, sizeof(struct pkt));
	pkt_of(m)->origin = a->id;
	worker_count(&lab.w, a->id, COUNT_COPIES, 1);
	worker_lose(&lab.w, m, lab_reason("flow.NO_MEMORY"), 0);
	worker_count(&lab.w, a->id, COUNT_RX, 1);
	worker_queued(&lab.w, m, 1);
	worker_publish(&lab.w);
	assert_int_equal(lab_count(a->id, COUNT_QUEUED), 1);
	worker_queued(&lab.w, m, -1);
	worker_drop_tx(&lab.w, lab.w.port[b->id], m, lab_reason("tx.NO_PORT"));
	worker_publish(&lab.w);
	assert_int_equal(lab_count(0, COUNT_DROPPED), 1);
	assert_int_equal(lab_drops(0, "tx.CLOSED"), 1);
	assert_int_equal(lab_drops(a->id, "flow.NO_MEMORY"), 1);
	assert_int_equal(lab_drops(a->id, "tx.NO_PORT"), 1);
	assert_int_equal(lab_count(b->id, COUNT_TX_DROPPED), 1);
	lab_teardown();
}

// A batch that is full leaves at once.
static void batches(void **state)
{
	lab_setup();
	struct config_network *net = lab_network("blue", 0);
	struct config_port *a = lab_port("a", VLAN_ACCESS, net);
	lab_port("b", VLAN_ACCESS, net);
	lab_apply();
	lab_send(a->id, "udp");
	lab_forget_sent();
	for (int i = 0; i < 5; i++) {
		uint8_t frame[64] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5};
		struct rte_mbuf *m[BURST];

		for (int k = 0; k < BURST; k++)
			m[k] = lab_mbuf(frame, 64, 0);
		forward_burst(&lab.w, a->id, m, BURST);
	}
	assert_int_equal(lab.n_sent, 5 * BURST / TX_BATCH * TX_BATCH);
	lab_flush();
	assert_int_equal(lab.n_sent, 5 * BURST);
	lab_teardown();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(published_in_one, setup, teardown),
		cmocka_unit_test_setup_teardown(conservation, setup, teardown),
		cmocka_unit_test_setup_teardown(a_reader_beside_it, setup, teardown),
		cmocka_unit_test(origins),
		cmocka_unit_test(batches),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
