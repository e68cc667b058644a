// test_rule: the operator's rules: which one decides, what it does, what it counts, and that profiles follow (pipeline/rule.c).
#include "lab.h"
#include "actions.h"
#include "parse.h"
#include "rule_table.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <rte_ip.h>

#define A "dl_src=02:00:00:00:00:0a"
#define TO_B ",dl_dst=02:00:00:00:00:0b"

static struct config_network *blue;
static uint16_t a, b, c;

static struct config_flow *rule(uint16_t priority, const char *match, const char *actions)
{
	struct config_flow *f = &lab.config->flows[lab.config->n_flows++];
	static uint32_t rows;

	*f = (struct config_flow){.priority = priority, .match = strdup(match), .actions = strdup(actions), .enabled = true, .has_network = true};
	rows++;
	memcpy(f->row.b, (uint8_t[]){0xf1, (uint8_t)(rows >> 16), (uint8_t)(rows >> 8), (uint8_t)rows}, 4);
	f->network = blue->row;
	return f;
}

static void apply(void)
{
	for (size_t i = 0; i < lab.config->n_flows; i++) {
		free(lab.config->flows[i].error);
		lab.config->flows[i].error = NULL;
	}
	lab_apply();
}

static void no_rules(void)
{
	while (lab.config->n_flows) {
		struct config_flow *f = &lab.config->flows[--lab.config->n_flows];

		free(f->match);
		free(f->actions);
		free(f->error);
	}
}

static void setup_rooms(size_t rooms)
{
	lab_setup();
	lab.config->flows = calloc(rooms, sizeof *lab.config->flows);
	blue = lab_network("blue", 10);
	a = lab_port("a", VLAN_ACCESS, blue)->id;
	b = lab_port("b", VLAN_ACCESS, blue)->id;
	c = lab_port("c", VLAN_ACCESS, blue)->id;
	apply();
	lab_send(b, "arp,dl_src=02:00:00:00:00:0b");
	lab_send(c, "arp,dl_src=02:00:00:00:00:0c");
	lab_send(a, "arp," A);
}

static int setup(void **state)
{
	setup_rooms(64);
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

struct counted {
	uint64_t packets, bytes;
	const struct row_id *row;
};

static void count_one(void *arg, const char *table, const struct row_id *row, uint64_t packets, uint64_t bytes)
{
	struct counted *n = arg;

	assert_string_equal(table, "Flow");
	if (row_id_equal(row, n->row)) {
		n->packets = packets;
		n->bytes = bytes;
	}
}

static struct counted counted(const struct config_flow *f)
{
	struct counted n = {.row = &f->row};

	stages_count(count_one, &n);
	return n;
}

static void expect_error(const struct config_flow *f, const char *part)
{
	if (!f->error || !strstr(f->error, part))
		fail_msg("the error is %s, without \"%s\"", f->error ? f->error : "none", part);
}

// ---- which rule

static void none(void **state)
{
	lab_expect_ports(a, "udp," A TO_B, b, 0);
	lab_reject_trace("rule ");
	assert_int_equal(profile_get(lab_flow(b).key.profile)->fields, KEY_BASE);
	struct config_flow *f = rule(5, "tcp,tp_dst=80", "drop");
	apply();
	lab_expect_ports(a, "udp," A TO_B, b, 0);
	lab_expect_trace("rule       none of 1 rules matches");
	assert_int_equal(counted(f).packets, 0);
}

static void drop(void **state)
{
	struct config_flow *f = rule(5, "tcp,tp_dst=80", "drop");

	apply();
	assert_null(f->error);
	lab_expect_drop(a, "tcp,tp_dst=80," A TO_B, "rule.DROP");
	lab_expect_trace("rule       priority 5, tcp,tp_dst=80: drop");
	lab_expect_trace("decided by Flow f1");
	lab_expect_ports(a, "tcp,tp_dst=81," A TO_B, b, 0);
	lab_expect_drop(a, "tcp,tp_dst=80," A TO_B, "rule.DROP"); // from the cache
	assert_int_equal(counted(f).packets, 2);
	assert_int_equal(counted(f).bytes, 120);
	// What is dropped is not learned.
	lab_expect_drop(c, "tcp,tp_dst=80,dl_src=02:00:00:00:00:99" TO_B, "rule.DROP");
	lab_expect_ports(a, "tcp,tp_dst=81," A ",dl_dst=02:00:00:00:00:99", b, c, 0);
	lab_reject_trace("DEFECT");
}

static void priorities(void **state)
{
	struct config_flow *low = rule(5, "ip", "drop"), *high = rule(10, "ip,nw_dst=10.0.0.0/8", "normal"), *top = rule(20, "tcp,tp_dst=22", "output:c");

	apply();
	lab_expect_drop(a, "udp,nw_dst=11.0.0.1," A TO_B, "rule.DROP");
	lab_expect_ports(a, "udp,nw_dst=10.0.0.1," A TO_B, b, 0);
	lab_expect_ports(a, "tcp,tp_dst=22,nw_dst=10.0.0.1," A TO_B, c, 0);
	lab_expect_trace("output to c");
	lab_expect_ports(a, "arp," A TO_B, b, 0);
	assert_int_equal(counted(low).packets, 1);
	assert_int_equal(counted(high).packets, 1);
	assert_int_equal(counted(top).packets, 1);
	// Of two that have the same the one whose row comes first decides, whatever order they come in.
	no_rules();
	struct config_flow *first = rule(7, "udp", "drop"), *second = rule(7, "ip", "normal");
	apply();
	lab_expect_drop(a, "udp," A TO_B, "rule.DROP");
	struct row_id id = first->row;
	first->row = second->row;
	second->row = id;
	apply();
	lab_expect_ports(a, "udp," A TO_B, b, 0);
	// The same match twice: the better one.
	no_rules();
	rule(7, "udp", "drop");
	rule(8, "udp", "normal");
	apply();
	lab_expect_ports(a, "udp," A TO_B, b, 0);
}

static void families(void **state)
{
	rule(5, "ipv6,ipv6_dst=fd00::/16", "drop");
	rule(5, "udp6,udp_dst=53", "output:c");
	rule(5, "icmp,icmp_type=8", "drop");
	rule(5, "arp,arp_tpa=10.0.0.9", "drop");
	apply();
	lab_expect_drop(a, "tcp6,ipv6_dst=fd00::5," A TO_B, "rule.DROP");
	lab_expect_ports(a, "tcp6,ipv6_dst=fe80::5," A TO_B, b, 0);
	lab_expect_ports(a, "udp6,udp_dst=53," A TO_B, c, 0);
	lab_expect_drop(a, "icmp," A TO_B, "rule.DROP");
	lab_expect_ports(a, "icmp,icmp_type=0," A TO_B, b, 0);
	lab_expect_drop(a, "arp,arp_tpa=10.0.0.9," A TO_B, "rule.DROP");
	lab_expect_ports(a, "arp,arp_tpa=10.0.0.8," A TO_B, b, 0);
}

static void ports_and_networks(void **state)
{
	struct config_network *red = lab_network("red", 20);
	uint16_t d = lab_port("d", VLAN_ACCESS, red)->id, e = lab_port("e", VLAN_ACCESS, red)->id;
	struct config_flow *f = rule(5, "in_port=a,udp", "drop"), *every = rule(4, "class=tcp-syn", "drop");

	every->has_network = false;
	apply();
	lab_expect_drop(a, "udp," A TO_B, "rule.DROP");
	lab_expect_ports(c, "udp,dl_src=02:00:00:00:00:0c" TO_B, b, 0);
	lab_expect_ports(d, "udp," A ",dl_dst=ff:ff:ff:ff:ff:ff", e, 0);
	lab_expect_drop(d, "tcp," A ",dl_dst=ff:ff:ff:ff:ff:ff", "rule.DROP");
	lab_expect_drop(a, "tcp," A TO_B, "rule.DROP");
	assert_int_equal(counted(every).packets, 2);
	assert_int_equal(counted(f).packets, 1);
	// A network that isn't there yet: not yet, and for no other network.
	struct config_flow *later = rule(9, "any", "drop");
	memset(&later->network, 0, sizeof later->network);
	apply();
	assert_null(later->error);
	lab_expect_ports(c, "udp,dl_src=02:00:00:00:00:0c" TO_B, b, 0);
}

static void bad_rows(void **state)
{
	struct config_flow *bad = rule(50, "tpc", "drop"), *worse = rule(50, "tcp", "dorp"), *nowhere = rule(50, "udp", "output:z"),
			   *mirror = rule(50, "udp", "mirror:z,normal"), *from = rule(50, "in_port=z", "drop"), *good = rule(1, "udp", "drop");

	apply();
	expect_error(bad, "tpc: no such field or protocol");
	expect_error(worse, "dorp: no such action");
	expect_error(nowhere, "output:z: there is no port z yet");
	expect_error(mirror, "mirror:z: there is no port z yet");
	expect_error(from, "in_port=z: there is no port z yet");
	assert_null(good->error);
	lab_expect_drop(a, "udp," A TO_B, "rule.DROP");
	// The port appears.
	uint16_t z = lab_port("z", VLAN_ACCESS, blue)->id;
	apply();
	assert_null(nowhere->error);
	assert_null(from->error);
	lab_expect_ports(a, "udp," A TO_B, z, 0);
	lab_expect_drop(z, "arp,dl_src=02:00:00:00:00:0f", "rule.DROP");
	// It goes: so do its rules.
	lab_remove_port(&lab.config->ports[lab.config->n_ports - 1]);
	apply();
	expect_error(nowhere, "there is no port z yet");
	lab_expect_drop(a, "udp," A TO_B, "rule.DROP");
	good->enabled = false;
	apply();
	lab_expect_ports(a, "udp," A TO_B, b, 0);
}

// ---- where to

static void outputs(void **state)
{
	struct config_flow *f = rule(5, "udp", "output:c");

	apply();
	lab_expect_ports(a, "udp," A TO_B, c, 0);
	// The source is learned all the same.
	lab_expect_ports(a, "udp,dl_src=02:00:00:00:00:55" TO_B, c, 0);
	lab_expect_trace("is new, learned on a; the destination is not asked for");
	lab_expect_ports(b, "tcp,dl_src=02:00:00:00:00:0b,dl_dst=02:00:00:00:00:55", a, 0);
	lab_expect_drop(c, "udp,dl_src=02:00:00:00:00:0c" TO_B, "rule.SAME_PORT");
	free(f->actions);
	f->actions = strdup("output:b,output:c");
	apply();
	lab_expect_ports(a, "udp," A ",dl_dst=02:00:00:00:00:77", b, c, 0);
	lab_expect_trace("copy       a copy for b, as a rule wants");
	assert_int_equal(lab_count(a, COUNT_COPIES), 1 + 1); // the ARP at the start was flooded
	free(f->actions);
	f->actions = strdup("flood");
	apply();
	lab_expect_ports(a, "udp," A TO_B, b, c, 0);
	free(f->actions);
	f->actions = strdup("in_port");
	apply();
	lab_expect_ports(a, "udp," A TO_B, a, 0);
	free(f->actions);
	f->actions = strdup("normal,output:c");
	apply();
	lab_expect_ports(a, "udp," A TO_B, b, c, 0);
	assert_true(counted(f).packets >= 6);
}

static void copies(void **state)
{
	struct config_port *mon = lab_port("mon", VLAN_TRUNK, NULL);
	struct config_flow *f = rule(5, "udp", "mirror:mon,drop");

	apply();
	// A copy of what is dropped.
	lab_send(a, "udp," A TO_B);
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab.sent[0].port, mon->id);
	assert_int_equal(lab_drops(a, "rule.DROP"), 1);
	lab_expect_trace("drop: a rule of table Flow drops it");
	assert_int_equal(counted(f).packets, 1);
	// As it was received, though it leaves with other fields, and its own port is a trunk.
	free(f->actions);
	f->actions = strdup("mod_nw_dst:10.9.9.9,mirror:mon,output:c");
	apply();
	lab_send(a, "udp," A TO_B);
	assert_int_equal(lab.n_sent, 2);
	const struct lab_sent *copy = lab_sent_to(mon->id), *out = lab_sent_to(c);
	assert_non_null(copy);
	assert_non_null(out);
	assert_int_equal(copy->len, 60);
	assert_memory_equal(copy->bytes + 30, "\xc0\0\2\2", 4);
	assert_memory_equal(out->bytes + 30, "\x0a\x09\x09\x09", 4);
	// The port is disabled, isolated from the ingress port, gone from the worker's view.
	mon->enabled = false;
	apply();
	lab_send(a, "udp," A TO_B);
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab_drops(a, "rule.COPY"), 1);
	lab_expect_trace("drop       dropped (rule.COPY): a copy that a rule");
	mon->enabled = mon->isolated = true;
	lab.config->ports[0].isolated = true;
	apply();
	lab_send(a, "udp," A TO_B);
	assert_int_equal(lab_drops(a, "rule.COPY"), 2);
	lab.config->ports[0].isolated = false;
	// Larger than the port takes.
	mon->isolated = false;
	mon->mtu = 100;
	apply();
	lab_send(a, "udp,packet_len=1000," A TO_B);
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab_drops(a, "mtu.TOO_LARGE"), 1);
}

// A copy without a buffer is a copy that is lost; so is a packet that can't have headers of its own.
static void no_buffers(void **state)
{
	rule(5, "udp", "mod_nw_dst:10.9.9.9,output:b,output:c");
	apply();
	lab_send(a, "udp," A TO_B); // the flow is there
	lab_few_buffers(0);
	lab_send(a, "udp," A TO_B);
	assert_int_equal(lab_drops(a, "flow.NO_MEMORY"), 1);
	assert_int_equal(lab.n_sent, 1);
	lab_few_buffers(1); // a clone, but no headers
	lab_send(a, "udp," A TO_B);
	assert_int_equal(lab_drops(a, "flow.NO_MEMORY"), 2);
	lab_few_buffers(-1);
	uint8_t frame[128];
	uint32_t len = lab_compose(frame, "udp," A TO_B);
	struct rte_mbuf *m = lab_mbuf(frame, len, 50);
	lab_few_buffers(0);
	lab_send_mbuf(a, m);
	assert_int_equal(lab_drops(a, "flow.NO_MEMORY"), 3);
	assert_int_equal(lab.n_sent, 0);
	lab_few_buffers(-1);
}

// ---- what is changed

static void check_sums(const struct lab_sent *s)
{
	const uint8_t *ip = s->bytes + 14;
	bool v6 = ip[0] >> 4 == 6;
	unsigned hdr = v6 ? 40 : 20, len = v6 ? (unsigned)(ip[4] << 8 | ip[5]) : (unsigned)(ip[2] << 8 | ip[3]) - 20;
	uint32_t acc = (uint32_t)rte_raw_cksum(ip + (v6 ? 8 : 12), v6 ? 32 : 8) + rte_raw_cksum(ip + hdr, len) + htons((uint16_t)len) +
		       htons(v6 ? ip[6] : ip[9]);

	while (acc >> 16)
		acc = (acc & 0xffff) + (acc >> 16);
	assert_int_equal(acc, 0xffff);
	if (!v6)
		assert_int_equal(rte_raw_cksum(ip, 20), 0xffff);
}

static void sets(void **state)
{
	rule(5, "tcp", "mod_nw_dst:10.1.2.3,mod_tp_dst:8080,mod_dl_dst:02:00:00:00:00:0c");
	rule(5, "udp6", "set_field:fd00::7->ipv6_src,mod_tp_src:7,output:b,set_field:fd00::8->ipv6_dst,output:c");
	apply();
	// The new address is the one that is looked up.
	lab_expect_ports(a, "tcp,packet_len=200," A TO_B, c, 0);
	const struct lab_sent *s = &lab.sent[0];
	assert_memory_equal(s->bytes, "\2\0\0\0\0\x0c", 6);
	assert_memory_equal(s->bytes + 30, "\x0a\1\2\3", 4);
	assert_int_equal(s->bytes[36] << 8 | s->bytes[37], 8080);
	check_sums(s);
	lab_expect_trace("per packet: rule");
	// Each output has what comes before it.
	lab_expect_ports(a, "udp6,packet_len=300," A TO_B, b, c, 0);
	for (unsigned i = 0; i < 2; i++) {
		s = lab_sent_to(i ? c : b);
		assert_int_equal(s->bytes[22], 0xfd);
		assert_int_equal(s->bytes[37], 7);
		assert_int_equal(s->bytes[53], i ? 8 : 2);
		check_sums(s);
	}
	// Over several buffers, and from the cache.
	uint8_t frame[400];
	uint32_t len = lab_compose(frame, "tcp,packet_len=300," A TO_B);
	for (uint32_t cut = 1; cut < 100; cut += 7) {
		lab_forget_sent();
		lab_send_mbuf(a, lab_mbuf(frame, len, cut));
		assert_int_equal(lab.n_sent, 1);
		assert_int_equal(lab.sent[0].len, 300);
		assert_memory_equal(lab.sent[0].bytes + 30, "\x0a\1\2\3", 4);
		check_sums(&lab.sent[0]);
	}
}

// A large packet that will be cut: its headers are changed once, and what it asks for stays right.
static void large(void **state)
{
	static uint8_t frame[9000];
	rule(5, "tcp6", "set_field:fd00::77->ipv6_dst,mod_tp_dst:8080");
	rule(5, "tcp", "mod_nw_dst:10.1.2.3,mod_tp_dst:8080");
	apply();
	for (int v6 = 0; v6 < 2; v6++) {
		uint32_t len = lab_compose(frame, v6 ? "tcp6,tcp_flags=ack,packet_len=8000," A TO_B : "tcp,tcp_flags=ack,packet_len=8000," A TO_B);
		unsigned l4 = v6 ? 54 : 34;
		// The guest leaves the sum of the pseudo-header there.
		uint32_t acc = (uint32_t)rte_raw_cksum(frame + (v6 ? 22 : 26), v6 ? 32 : 8) + htons((uint16_t)(len - l4)) + htons(6);
		while (acc >> 16)
			acc = (acc & 0xffff) + (acc >> 16);
		memcpy(frame + l4 + 16, &(uint16_t){(uint16_t)acc}, 2);
		struct rte_mbuf *m = lab_mbuf(frame, len, 0);
		m->ol_flags = RTE_MBUF_F_RX_LRO | RTE_MBUF_F_RX_L4_CKSUM_NONE;
		m->tso_segsz = 1000;
		lab_forget_sent();
		lab_send_mbuf(a, m);
		assert_int_equal(lab.n_sent, 1);
		const struct lab_sent *s = &lab.sent[0];
		assert_true(s->ol_flags & RTE_MBUF_F_TX_TCP_SEG);
		assert_int_equal(s->len, len);
		assert_int_equal(s->bytes[l4 + 2] << 8 | s->bytes[l4 + 3], 8080);
		acc = (uint32_t)rte_raw_cksum(s->bytes + (v6 ? 22 : 26), v6 ? 32 : 8) + htons((uint16_t)(len - l4)) + htons(6);
		while (acc >> 16)
			acc = (acc & 0xffff) + (acc >> 16);
		assert_memory_equal(s->bytes + l4 + 16, &(uint16_t){(uint16_t)acc}, 2);
		if (!v6)
			assert_int_equal(rte_raw_cksum(s->bytes + 14, 20), 0xffff);
	}
}

// `sent`: Ethertypes and tags of the one packet that leaves.
static void acts(struct config_flow *f, const char *actions, uint16_t from, const uint8_t *frame, uint32_t len, const char *sent, size_t n)
{
	free(f->actions);
	f->actions = strdup(actions);
	apply();
	lab_send_frame(from, frame, len);
	assert_int_equal(lab.n_sent, 1);
	assert_memory_equal(lab.sent[0].bytes + 12, sent, n);
}

// `tagged`: of VLAN 10, priority 5, from port t.
static void push_and_priority(struct config_flow *f, uint16_t t, const uint8_t *tagged, uint32_t len)
{
	uint8_t plain[128];
	uint32_t n = lab_compose(plain, "udp," A TO_B);

	// One more tag, in front of what it came with; of its own priority.
	acts(f, "push_vlan:0x88a8,mod_vlan_vid:99,output:b", t, tagged, len, "\x88\xa8\0\x63\x81\0\xa0\x0a\x08\0", 10);
	acts(f, "push_vlan:0x8100,mod_vlan_vid:99,mod_vlan_pcp:3,output:b", t, tagged, len, "\x81\0\x60\x63\x81\0\xa0\x0a\x08\0", 10);
	acts(f, "push_vlan:0x8100,output:b", a, plain, n, "\x81\0\0\0\x08\0", 6);
	lab_expect_trace("tagged with VLAN 0");
	acts(f, "push_vlan:0x8100,strip_vlan,output:b", t, tagged, len, "\x08\0", 2);
	acts(f, "strip_vlan,push_vlan:0x88a8,set_field:99->vlan_vid,output:b", t, tagged, len, "\x88\xa8\0\x63\x08\0", 6);
	// The priority of the tag that it leaves with, if it does with one.
	acts(f, "mod_vlan_pcp:2,output:t", a, plain, n, "\x81\0\x40\x0a\x08\0", 6);
	acts(f, "mod_vlan_pcp:2,output:b", t, tagged, len, "\x08\0", 2);
	acts(f, "mod_vlan_vid:20,set_field:2->vlan_pcp,output:b", t, tagged, len, "\x81\0\x40\x14\x08\0", 6);
	acts(f, "strip_vlan,mod_vlan_pcp:2,output:b", t, tagged, len, "\x81\0\x40\0\x08\0", 6);
	// A flood.
	free(f->actions);
	f->actions = strdup("push_vlan:0x88a8,mod_vlan_vid:99,mod_vlan_pcp:1,flood");
	apply();
	lab_send_frame(t, tagged, len);
	assert_int_equal(lab.n_sent, 3);
	for (unsigned i = 0; i < 3; i++)
		assert_memory_equal(lab.sent[i].bytes + 12, "\x88\xa8\x20\x63\x81\0\xa0\x0a\x08\0", 10);
}

static void tags(void **state)
{
	struct config_port *t = lab_port("t", VLAN_TRUNK, NULL);
	struct config_flow *f = rule(5, "udp", "mod_vlan_vid:77,output:t");
	uint8_t frame[128];
	uint32_t len = lab_compose(frame, "udp," A TO_B);

	apply();
	lab_expect_ports(a, "udp," A TO_B, t->id, 0);
	assert_memory_equal(lab.sent[0].bytes + 12, "\x81\0\0\x4d\x08\0", 6);
	lab_expect_trace("tagged with VLAN 77");
	// A tag that it came with becomes that one.
	len = lab_tag(frame, len, 0x8100, 10 | 5 << 13);
	lab_send_frame(t->id, frame, len);
	assert_int_equal(lab_drops(t->id, "rule.SAME_PORT"), 1);
	free(f->actions);
	f->actions = strdup("mod_vlan_vid:77,output:b");
	apply();
	lab_send_frame(t->id, frame, len);
	assert_int_equal(lab.n_sent, 1);
	assert_memory_equal(lab.sent[0].bytes + 12, "\x81\0\xa0\x4d\x08\0", 6);
	free(f->actions);
	f->actions = strdup("strip_vlan,output:t");
	apply();
	lab_expect_ports(a, "udp," A TO_B, t->id, 0);
	assert_memory_equal(lab.sent[0].bytes + 12, "\x08\0", 2);
	push_and_priority(f, t->id, frame, len);
	// A flood: every copy.
	free(f->actions);
	f->actions = strdup("mod_vlan_vid:78,flood");
	apply();
	lab_expect_ports(a, "udp," A TO_B, b, c, t->id, 0);
	for (unsigned i = 0; i < 3; i++)
		assert_memory_equal(lab.sent[i].bytes + 12, "\x81\0\0\x4e\x08\0", 6);
}

// ---- profiles and counters

static void profiles_follow(void **state)
{
	struct config_network *red = lab_network("red", 20);
	uint16_t d = lab_port("d", VLAN_ACCESS, red)->id;
	lab_port("e", VLAN_ACCESS, red);
	apply();
	lab_send(d, "udp," A TO_B);
	uint32_t gen = gen_read(gen_slot(GEN_NETWORK, red->id));
	rule(5, "ip,nw_dst=10.0.0.1", "drop");
	apply();
	lab_send(a, "udp," A TO_B);
	lab_send(a, "udp,nw_dst=10.0.0.7," A TO_B);
	lab_send(a, "udp,nw_dst=10.0.0.7,tp_dst=99," A TO_B);
	// Two flows: by address, not by port.
	uint32_t n = 0;
	for (uint32_t i = 0; i < flow_table_high(lab.w.flows); i++) {
		struct flow_view v;

		if (flow_table_read(lab.w.flows, i, &v) && v.key.port == a && ntohs(v.key.ethertype) == 0x0800) {
			n++;
			assert_int_equal(profile_get(v.key.profile)->fields, KEY_BASE | KEY_BIT(NW_DST));
		}
	}
	assert_int_equal(n, 2);
	// The other network is left alone.
	assert_int_equal(gen_read(gen_slot(GEN_NETWORK, red->id)), gen);
	assert_int_equal(profile_get(lab_flow(d).key.profile)->fields, KEY_BASE);
	// And back.
	no_rules();
	apply();
	flow_table_drop_port(lab.w.flows, a);
	lab_send(a, "udp," A TO_B);
	lab_send(a, "udp,nw_dst=10.0.0.7," A TO_B);
	assert_int_equal(profile_get(lab_flow(a).key.profile)->fields, KEY_BASE);
}

static void counters(void **state)
{
	struct config_flow *f = rule(5, "udp", "drop"), *g = rule(4, "udp", "normal");

	apply();
	for (int i = 0; i < 100; i++)
		lab_send(a, "udp," A TO_B);
	assert_int_equal(counted(f).packets, 100);
	assert_int_equal(counted(f).bytes, 6000);
	// Credited before it is decided anew.
	f->enabled = false;
	apply();
	lab_send(a, "udp," A TO_B);
	assert_int_equal(counted(g).packets, 1);
	f->enabled = true;
	apply();
	lab_send(a, "udp," A TO_B);
	assert_int_equal(counted(f).packets, 101);
	assert_int_equal(counted(g).packets, 1);
	// The flow goes, what it counted stays.
	flow_table_drop_port(lab.w.flows, a);
	assert_int_equal(counted(f).packets, 101);
	// What no cached flow counts.
	for (int i = 0; i < 5; i++) {
		lab_send(a, "udp," A TO_B);
		flow_table_drop_port(lab.w.flows, a);
	}
	assert_int_equal(counted(f).packets, 106);
	// Another match of the same row counts on.
	free(f->match);
	f->match = strdup("tcp");
	apply();
	lab_send(a, "tcp," A TO_B);
	assert_int_equal(counted(f).packets, 107);
	// A worker goes, with its table and a flow in it.
	struct flow_table_config fc = {.limit = 1024, .idle_ms = 1000};
	flow_table_destroy(lab.w.flows);
	lab.w.flows = flow_table_create(&fc);
	assert_int_equal(counted(f).packets, 107);
	lab_send(a, "tcp," A TO_B);
	assert_int_equal(counted(f).packets, 108);
	// What explain says does not count.
	uint8_t frame[128];
	uint32_t len = lab_compose(frame, "tcp," A TO_B);
	char *text = lab_explain(a, lab_mbuf(frame, len, 0), NULL, NULL);
	assert_non_null(strstr(text, "(rule.DROP)"));
	free(text);
	assert_int_equal(counted(f).packets, 108);
}

// Explain says what happens, copies and sets included.
static void explained(void **state)
{
	static const char *const packets[] = {"udp,dl_vlan=0," A TO_B, "udp," A TO_B, "tcp," A TO_B, "arp," A TO_B};

	rule(5, "udp", "mirror:c,mod_nw_dst:10.0.0.9,normal");
	rule(5, "tcp", "mirror:c,drop");
	apply();
	for (size_t i = 0; i < sizeof packets / sizeof packets[0]; i++) {
		uint8_t frame[128];
		uint32_t len = lab_compose(frame, packets[i]);
		char *text = lab_explain(a, lab_mbuf(frame, len, 0), NULL, NULL), *save = NULL;

		lab_send_frame(a, frame, len);
		// Every line that isn't of the cache is in the trace too.
		for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
			if (!strstr(lab.trace, line))
				fail_msg("%s: explain says\n%s\nthe trace\n%s", packets[i], line, lab.trace);
		free(text);
	}
}

// ---- many

static void reference(void **state)
{
	enum { N = 400 };
	struct rule *list = calloc(N, sizeof *list);
	const struct rule **rules = calloc(N, sizeof *rules);
	char *error;

	srandom(7);
	for (int i = 0; i < N; i++) {
		char text[128];

		snprintf(text, sizeof text, random() % 2 ? "ip,nw_dst=10.%ld.%ld.0/%ld" : random() % 2 ? "udp,nw_src=10.%ld.%ld.0/%ld,tp_dst=5" : "ipv6,ipv6_dst=20%02ld:%ld::/%ld",
			 random() % 4, random() % 4, 8 + random() % 24);
		list[i].priority = (uint16_t)(random() % 20);
		list[i].id.b[0] = (uint8_t)i;
		list[i].id.b[1] = (uint8_t)(i >> 8);
		assert_int_equal(match_parse(text, &list[i].match, &error), 0);
		rules[i] = &list[i];
	}
	struct rule_table *t = rule_table_make(rules, N);
	assert_true(rule_table_is_of(t, rules, N) && rule_table_size(t) == N);
	unsigned found = 0;
	for (int n = 0; n < 20000; n++) {
		struct flow_key k = {.ethertype = htons(n % 3 ? 0x0800 : 0x86dd), .proto = n % 2 ? 17 : 6, .dport = htons(n % 5 ? 5 : 6)};
		const struct rule *best = NULL;

		if (n % 3) {
			k.v4.src = htonl((uint32_t)(10u << 24 | random() % 4 << 16 | random() % 4 << 8 | random() % 256));
			k.v4.dst = htonl((uint32_t)(10u << 24 | random() % 4 << 16 | random() % 4 << 8 | random() % 256));
		} else {
			k.v6.dst[0] = 0x20;
			k.v6.dst[1] = (uint8_t)(random() % 4);
			k.v6.dst[3] = (uint8_t)(random() % 4);
		}
		for (int i = 0; i < N; i++) {
			const uint8_t *v = (const uint8_t *)&list[i].match.value, *m = (const uint8_t *)&list[i].match.mask, *p = (const uint8_t *)&k;
			bool same = true;

			for (unsigned j = 0; j < sizeof k && same; j++)
				same = (p[j] & m[j]) == v[j];
			if (same && (!best || rule_is_better(&list[i], best)))
				best = &list[i];
		}
		assert_ptr_equal(rule_table_lookup(t, &k, NULL), best);
		found += best != NULL;
	}
	assert_true(found > 5000);
	rule_table_free(t);
	free(list);
	free(rules);
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

// A look-up among 10,000 rules, nanoseconds: of few masks, and of as many masks as there are rules, which is the worst case.
static double look_up(unsigned masks)
{
	enum { N = 10000, KEYS = 20000 };
	struct rule *list = calloc(N, sizeof *list);
	const struct rule **rules = calloc(N, sizeof *rules);
	static const struct rule *volatile sink;

	for (unsigned i = 0; i < N; i++) {
		struct match *m = &list[i].match;

		m->mask.ethertype = 0xffff;
		m->mask.v4.src = htonl(0xffffff00 | (i % masks) % 256);
		m->mask.v4.dst = htonl(0xffffff00 | (i % masks) / 256);
		m->value = (struct flow_key){.ethertype = htons(0x0800), .v4 = {htonl(10u << 24 | i << 8) & m->mask.v4.src, htonl(11u << 24) & m->mask.v4.dst}};
		list[i].id.b[0] = (uint8_t)(i >> 8);
		list[i].id.b[1] = (uint8_t)i;
		list[i].priority = (uint16_t)(i % 1000);
		rules[i] = &list[i];
	}
	struct rule_table *t = rule_table_make(rules, N);
	double start = seconds();
	for (unsigned i = 0; i < KEYS; i++) {
		// Half of them match nothing, so that every mask is tried.
		struct flow_key k = {.ethertype = htons(0x0800), .v4 = {htonl(10u << 24 | (i % 20000) << 8), htonl(11u << 24)}};

		sink = rule_table_lookup(t, &k, NULL);
	}
	double ns = 1e9 * (seconds() - start) / KEYS;
	(void)sink;
	rule_table_free(t);
	free(list);
	free(rules);
	return ns;
}

// 10,000 rules: what they cost to apply, to apply again, and per first packet of a flow.
static void ten_thousand(void **state)
{
	enum { N = 10000 };

	lab_teardown();
	setup_rooms(N + 1);
	lab.traced = lab.keep = false;
	for (int i = 0; i < N; i++) {
		char text[128];

		// 29 masks.
		snprintf(text, sizeof text, "tcp,nw_dst=10.%d.%d.0/%d,tp_dst=%d", i >> 8, i & 255, 4 + i % 29, i);
		rule((uint16_t)(i % 1000), text, i % 2 ? "drop" : "output:c");
	}
	double t0 = seconds();
	apply();
	double t1 = seconds();
	apply();
	double t2 = seconds();
	for (int i = 0; i < N; i++)
		assert_null(lab.config->flows[i].error);
	struct config_flow *one = &lab.config->flows[4321];
	lab_send(a, "tcp,nw_dst=10.16.225.7,tp_dst=4321," A TO_B);
	assert_int_equal(lab_drops(a, "rule.DROP"), 1);
	assert_int_equal(counted(one).packets, 1);
	double t3 = seconds();
	for (int i = 0; i < 20000; i++) {
		char text[128];

		snprintf(text, sizeof text, "tcp,nw_dst=10.%d.%d.9,tp_dst=%d," A TO_B, i & 63, i & 255, i);
		lab_send(a, text);
	}
	double t4 = seconds();
	printf("%d rules: applied in %.1f ms, again unchanged in %.1f ms; a first packet, composed and sent, %.1f us\n", N, 1e3 * (t1 - t0), 1e3 * (t2 - t1),
	       1e6 * (t4 - t3) / 20000);
	printf("a look-up: %.0f ns with 4 masks, %.0f with 32, %.0f with 10,000\n", look_up(4), look_up(32), look_up(10000));
	assert_true(t2 - t1 < 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		TEST(none),	  TEST(drop),	 TEST(priorities), TEST(families), TEST(ports_and_networks),
		TEST(bad_rows),	  TEST(outputs), TEST(copies),	   TEST(no_buffers), TEST(sets),
		TEST(large),	  TEST(tags),	 TEST(profiles_follow), TEST(counters), TEST(explained), TEST(reference),
		TEST(ten_thousand),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
