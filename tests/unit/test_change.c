// change: the fields that a trace says were changed are those that were, with both values.
#include "lab.h"
#include "change.h"
#include "compose.h"
#include "rewrite.h"

static struct rte_mbuf *packet(const char *text)
{
	uint8_t frame[COMPOSE_MAX];
	struct rte_mbuf *m = lab_mbuf(frame, lab_compose(frame, text), 0);
	struct flow_key k;

	memset(pkt_of(m), 0, sizeof(struct pkt));
	assert_int_equal(parse(m, &k), 0);
	return m;
}

static void expect(const struct change_headers *before, struct rte_mbuf *m, const char *want)
{
	struct trace t = {.refs = 1};
	struct buf b = {0};

	change_trace(&t, before, m);
	trace_format(&t, &b, false, 0);
	if (!want && b.text)
		fail_msg("nothing has changed, but: %s", b.text);
	if (want && (!b.text || strcmp(b.text, want)))
		fail_msg("not \"%s\" but: %s", want, b.text ? b.text : "nothing");
	free(b.text);
}

static void fields(void **state)
{
	static const struct {
		const char *text, *want;
		struct rewrite set[3];
		unsigned n;
	} rows[] = {
		{"tcp", NULL, {{DL_DST, {.b = {2, 0, 0, 0, 0, 2}}}}, 1}, // to what it was
		{"tcp",
		 "  change     dl_dst 02:00:00:00:00:02 -> 02:00:00:00:00:09, nw_dst 192.0.2.2 -> 10.0.0.1, tp_dst 9 -> 80\n",
		 {{NW_DST, {.b = {10, 0, 0, 1}}}, {TP_DST, {.n = 80}}, {DL_DST, {.b = {2, 0, 0, 0, 0, 9}}}},
		 3},
		{"udp6",
		 "  change     dl_src 02:00:00:00:00:01 -> 02:00:00:00:00:08, ipv6_src 2001:db8::1 -> fd00::1, tp_src 49152 -> "
		 "7\n",
		 {{IPV6_SRC, {.b = {0xfd, [15] = 1}}}, {TP_SRC, {.n = 7}}, {DL_SRC, {.b = {2, 0, 0, 0, 0, 8}}}},
		 3},
		{"icmp,nw_tos=1",
		 "  change     nw_src 192.0.2.1 -> 10.0.0.1, nw_tos 0x01 -> 0xb9\n",
		 {{NW_TOS, {.n = 0xb8}}, {NW_SRC, {.b = {10, 0, 0, 1}}}},
		 2},
		{"tcp6",
		 "  change     ipv6_dst 2001:db8::2 -> fd00::1, nw_tos 0x00 -> 0x20\n",
		 {{NW_TOS, {.n = 0x20}}, {IPV6_DST, {.b = {0xfd, [15] = 1}}}},
		 2},
	};
	lab_setup();
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct rte_mbuf *m = packet(rows[i].text);
		struct change_headers before;

		change_look(m, &before);
		rewrite_apply(m, rows[i].set, rows[i].n);
		expect(&before, m, rows[i].want);
		rte_pktmbuf_free(m);
	}
	lab_teardown();
}

static void tags(void **state)
{
	static const struct {
		const char *text, *want;
		uint8_t op;
		uint16_t tci, type;
	} rows[] = {
		{"udp", "  change     dl_vlan none -> 10\n", VLAN_OP_PUSH, 10, 0x8100},
		{"udp", "  change     dl_vlan none -> 802.1ad 10 (priority 3)\n", VLAN_OP_PUSH, 0x600a, 0x88a8},
		{"udp,dl_vlan=5", "  change     dl_vlan 5 -> 802.1ad 10+5\n", VLAN_OP_PUSH, 10, 0x88a8},
		{"udp,dl_vlan=5", "  change     dl_vlan 5 -> 6\n", VLAN_OP_SET, 6, 0},
		{"arp,dl_vlan=5,dl_vlan_pcp=1", "  change     dl_vlan 5 (priority 1) -> none\n", VLAN_OP_POP, 0, 0},
	};
	lab_setup();
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct rte_mbuf *m = packet(rows[i].text);
		struct change_headers before;

		change_look(m, &before);
		pkt_of(m)->vlan_op = rows[i].op;
		pkt_of(m)->vlan_tci = rows[i].tci;
		pkt_of(m)->qinq = rows[i].type;
		assert_int_equal(pkt_apply_vlan(m), 0);
		expect(&before, m, rows[i].want);
		rte_pktmbuf_free(m);
	}
	lab_teardown();
}

// Headers that aren't all there are compared as far as they are.
static void cut_short(void **state)
{
	uint8_t frame[COMPOSE_MAX];
	uint32_t len = lab_compose(frame, "tcp,dl_vlan=7");

	lab_setup();
	for (uint32_t have = 1; have < len; have++) {
		struct change_headers before;
		struct rte_mbuf *m = lab_mbuf(frame, have, 0);
		struct flow_key k;

		memset(pkt_of(m), 0, sizeof(struct pkt));
		parse(m, &k);
		change_look(m, &before);
		expect(&before, m, NULL);
		rte_pktmbuf_free(m);
	}
	lab_teardown();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields),
		cmocka_unit_test(tags),
		cmocka_unit_test(cut_short),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
