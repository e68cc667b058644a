// IPFIX messages byte by byte, and flow records from flows: what is not in a flow's key is in no record.
#include "ipfix.h"
#include "lab.h"
#include "row.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define EXAMPLE_TIME 1700000000

static uint8_t sent[64][IPFIX_MESSAGE];
static size_t length[64];
static unsigned records[64], n_sent;

static void keep(void *arg, uint8_t *m, size_t len, unsigned n)
{
	assert_true(n_sent < 64 && len <= IPFIX_MESSAGE);
	memcpy(sent[n_sent], m, len);
	length[n_sent] = len;
	records[n_sent++] = n;
}

static struct ipfix x;

static int setup(void **state)
{
	lab_setup();
	n_sent = 0;
	ipfix_init(&x, 7, IPFIX_ENTERPRISE, keep, NULL);
	x.export_s = EXAMPLE_TIME;
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

static unsigned be(const uint8_t *at, unsigned n)
{
	unsigned v = 0;

	while (n--)
		v = v << 8 | *at++;
	return v;
}

// A flow of plain layer 2, as its end leaves it.
static struct flow_end plain(void)
{
	struct flow_end e = {.key = {.port = 3, .ethertype = htons(0x0800), .dst = {2, 0, 0, 0, 0, 2}, .src = {2, 0, 0, 0, 0, 1}},
			     .decision = {.out_kind = OUT_PORT, .out = 4, .network = 1},
			     .why = FLOW_END_IDLE,
			     .packets = 5,
			     .bytes = 500};

	e.key.profile = profile_intern(0);
	return e;
}

static bool has_element(const uint8_t *template, unsigned element)
{
	const uint8_t *at = template + 4;

	for (unsigned n = be(template + 2, 2); n--; at += be(at, 2) & 0x8000 ? 8 : 4)
		if (be(at, 2) == element)
			return true;
	return false;
}

static void layer_2_has_no_addresses_of_ip(void **state)
{
	struct flow_end e = plain();
	struct flow_record r;

	// What is in the key beyond its profile is rubbish, not a value.
	e.key.v4.src = e.key.v4.dst = 0xffffffff;
	e.key.proto = IPPROTO_TCP;
	flow_record_fill(&r, &e);
	assert_int_equal(r.fields, RECORD_OUT_PORT);
	r.packets = 5;
	r.bytes = 500;
	r.start_ms = 1700000000123;
	r.end_ms = 1700000001456;
	r.in_name = "vm1";
	r.out_name = "vm2";
	r.network_name = "blue";
	char *json = flow_record_json(&r);
	assert_string_equal(json, "{\"kind\": \"flow\", \"start\": \"2023-11-14T22:13:20.123Z\", \"end\": \"2023-11-14T22:13:21.456Z\", \"ended\": \"idle\", "
				  "\"network\": \"blue\", \"in_port\": \"vm1\", \"verdict\": \"forwarded\", \"out_port\": \"vm2\", "
				  "\"dl_src\": \"02:00:00:00:00:01\", \"dl_dst\": \"02:00:00:00:00:02\", \"dl_type\": \"0x0800\", \"packets\": 5, "
				  "\"bytes\": 500, \"because\": []}\n");
	free(json);

	assert_true(ipfix_record(&x, &r));
	ipfix_flush(&x);
	assert_int_equal(n_sent, 1);
	const uint8_t *m = sent[0], *t = m + 20;
	assert_int_equal(be(m, 2), 10);
	assert_int_equal(be(m + 2, 2), length[0]);
	assert_int_equal(be(m + 4, 4), EXAMPLE_TIME);
	assert_int_equal(be(m + 8, 4), 0);
	assert_int_equal(be(m + 12, 4), 7);
	assert_int_equal(be(m + 16, 2), 2); // template set
	assert_true(has_element(t, 56) && has_element(t, 80) && has_element(t, 256) && has_element(t, 14));
	assert_false(has_element(t, 8) || has_element(t, 4) || has_element(t, 58) || has_element(t, 7) || has_element(t, 0x8001));
	const uint8_t *data = m + 16 + be(m + 18, 2);
	assert_int_equal(be(data, 2), be(t, 2)); // a data set of that template
	assert_int_equal(data + be(data + 2, 2) - m, length[0]);
	assert_int_equal(be(data + 4 + 16 + 4, 4), 500);
	assert_int_equal(be(data + 4 + 24 + 4, 4), 5);
	assert_int_equal(be(data + 4 + 32, 4), 3);
	assert_int_equal(data[4 + 36], 64);
	assert_int_equal(data[4 + 37], FLOW_END_IDLE);
}

// field of the profile, protocol, what is in the record
static void fields_follow_the_profile(void **state)
{
	static const struct {
		uint16_t type;
		uint8_t proto, class;
		uint32_t known, want;
	} cases[] = {
		{0x0800, IPPROTO_TCP, CLASS_PLAIN, KEY_BIT(NW_SRC), RECORD_V4_SRC},
		{0x0800, IPPROTO_TCP, CLASS_PLAIN, KEY_BIT(NW_PROTO) | KEY_BIT(TP_DST), RECORD_PROTO | RECORD_TP_DST},
		{0x0800, IPPROTO_TCP, CLASS_FRAG_LATER, KEY_BIT(NW_PROTO) | KEY_BIT(TP_DST), RECORD_PROTO},
		{0x0800, 47, CLASS_PLAIN, KEY_BIT(NW_PROTO) | KEY_BIT(TP_DST), RECORD_PROTO},
		{0x0800, IPPROTO_TCP, CLASS_PLAIN, KEY_BIT(TP_DST), 0}, // ports of what?
		{0x0800, IPPROTO_ICMP, CLASS_PLAIN, KEY_BIT(NW_PROTO) | KEY_BIT(TP_DST), RECORD_PROTO},
		{0x0800, IPPROTO_ICMP, CLASS_PLAIN, KEY_BIT(NW_PROTO) | KEY_BIT(TP_SRC) | KEY_BIT(TP_DST), RECORD_PROTO | RECORD_ICMP4},
		{0x86dd, IPPROTO_ICMPV6, CLASS_ND, KEY_BIT(NW_PROTO) | KEY_BIT(TP_SRC) | KEY_BIT(TP_DST), RECORD_PROTO | RECORD_ICMP6},
		{0x86dd, IPPROTO_UDP, CLASS_PLAIN, KEY_BIT(NW_SRC) | KEY_BIT(NW_DST) | KEY_BIT(NW_TOS), RECORD_V6_SRC | RECORD_V6_DST | RECORD_TOS},
		{0x0806, 1, CLASS_ARP, KEY_BIT(NW_PROTO) | KEY_BIT(NW_SRC) | KEY_BIT(TP_DST), RECORD_ARP_OP | RECORD_V4_SRC},
		{0x88b5, 0, CLASS_PLAIN, ~0u, 0},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct flow_end e = plain();
		struct flow_record r;

		e.key.profile = profile_intern(cases[i].known & ((1u << KEY_FIELD_N) - 1));
		e.key.ethertype = htons(cases[i].type);
		e.key.proto = cases[i].proto;
		e.key.class = cases[i].class;
		flow_record_fill(&r, &e);
		assert_int_equal(r.fields, cases[i].want | RECORD_OUT_PORT);
		assert_true(ipfix_record(&x, &r));
	}
}

static void verdicts(void **state)
{
	struct flow_end e = plain();
	struct row_id id = {{1}};
	struct flow_record r;
	char text[64];

	e.decision.out_kind = OUT_DROP;
	e.decision.out = reason_find("rule", "DROP");
	e.rule = row_intern("Flow", &id, "no-telnet");
	e.n_prov = 1;
	e.prov_row[0] = e.rule;
	flow_record_fill(&r, &e);
	assert_int_equal(r.verdict, RECORD_DROPPED);
	assert_string_equal(flow_record_reason(&r, text), "rule.DROP");
	char *json = flow_record_json(&r);
	assert_non_null(strstr(json, "\"verdict\": \"dropped\", \"reason\": \"rule.DROP\""));
	assert_non_null(strstr(json, "\"because\": [\"Flow:no-telnet\"]"));
	assert_null(strstr(json, "out_port"));
	free(json);
	assert_true(ipfix_record(&x, &r));
	ipfix_flush(&x);
	assert_non_null(memmem(sent[0], length[0], "\x09rule.DROP\x0e"
						   "Flow:no-telnet", 25));
	e.decision.out_kind = OUT_FLOOD;
	flow_record_fill(&r, &e);
	assert_int_equal(r.verdict, RECORD_FLOODED);
	assert_int_equal(r.fields, 0);
}

// Sequence numbers count data records; nothing is longer than a message; a template comes before its data, and again when it is asked for.
static void sequence_and_templates(void **state)
{
	struct flow_end e = plain();
	struct flow_record r;
	unsigned sum = 0, templates = 0;

	flow_record_fill(&r, &e);
	r.network_name = "a-network-with-a-long-name-that-takes-its-place-in-each-record-of-it";
	for (unsigned i = 0; i < 200; i++)
		assert_true(ipfix_record(&x, &r));
	ipfix_interface(&x, 3, "vm1", "blue");
	ipfix_sampling(&x, 10);
	ipfix_not_sent(&x, 1, 2, 3);
	ipfix_own_elements(&x);
	ipfix_flush(&x);
	ipfix_flush(&x); // nothing
	for (unsigned i = 0; i < n_sent; i++) {
		assert_int_equal(be(sent[i] + 8, 4), sum);
		assert_int_equal(be(sent[i] + 2, 2), length[i]);
		sum += records[i];
		for (size_t at = 16; at < length[i]; at += be(sent[i] + at + 2, 2))
			templates += be(sent[i] + at, 2) == 2;
	}
	assert_int_equal(sum, 200 + 1 + 1 + 1 + 3);
	assert_int_equal(templates, 1);
	unsigned before = n_sent;
	ipfix_tell(&x);
	assert_true(ipfix_record(&x, &r));
	ipfix_flush(&x);
	assert_int_equal(be(sent[before] + 16, 2), 2);
	ipfix_renumber(sent[before], 200);
	assert_int_equal(be(sent[before] + 8, 4), sum - 200);
	ipfix_renumber(sent[before], 0u - 200u);
	assert_int_equal(be(sent[before] + 8, 4), sum);
}

static void more_combinations_than_templates(void **state)
{
	struct flow_end e = plain();
	struct flow_record r;
	unsigned taken = 0;

	flow_record_fill(&r, &e);
	for (uint32_t f = 0; f < 2 * IPFIX_TEMPLATES; f++) {
		r.fields = f << RECORD_BIT_NAT_V4_SRC >> 1 << 1 | (f & 1);
		taken += ipfix_record(&x, &r);
		if (f % 4 == 0)
			ipfix_flush(&x), n_sent = 0;
	}
	assert_int_equal(taken, IPFIX_TEMPLATES);
}

// Every field at once, with the longest names: no message is too long.
static void the_longest_record(void **state)
{
	struct flow_end e = plain();
	struct flow_record r;
	char name[300];

	memset(name, 'x', sizeof name);
	name[299] = 0;
	flow_record_fill(&r, &e);
	r.fields = ~0u;
	r.drop = 1;
	r.network_name = name;
	for (int i = 0; i < 50; i++) {
		assert_true(ipfix_record(&x, &r));
		ipfix_interface(&x, 1, name, name);
	}
	ipfix_flush(&x);
	assert_true(n_sent > 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(layer_2_has_no_addresses_of_ip, setup, teardown),
		cmocka_unit_test_setup_teardown(fields_follow_the_profile, setup, teardown),
		cmocka_unit_test_setup_teardown(verdicts, setup, teardown),
		cmocka_unit_test_setup_teardown(sequence_and_templates, setup, teardown),
		cmocka_unit_test_setup_teardown(more_combinations_than_templates, setup, teardown),
		cmocka_unit_test_setup_teardown(the_longest_record, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
