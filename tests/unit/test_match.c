// test_match: what the words of a rule mean: matches, actions, and fields that are set in packets.
#include "lab.h"
#include "actions.h"
#include "compose.h"
#include "offload.h"
#include "rewrite.h"

#include <arpa/inet.h>
#include <rte_ip.h>
#include <errno.h>
#include <stdio.h>

static const struct compose_defaults defaults = {{0x52, 0x54, 0, 0, 0, 1}, {0x52, 0x54, 0, 0, 0, 2}};

// The whole key of a packet, as a rule sees it.
static void key_of(const char *text, struct flow_key *k)
{
	uint8_t frame[COMPOSE_MAX];
	char *error;
	int len = compose(text, &defaults, frame, &error);

	if (len < 0)
		fail_msg("%s: %s", text, error);
	struct rte_mbuf *m = lab_mbuf(frame, (uint32_t)len, 0);
	memset(pkt_of(m), 0, sizeof *pkt_of(m));
	pkt_of(m)->in_port = 7;
	assert_int_equal(parse(m, k), 0);
	assert_int_equal(pkt_of(m)->drop, 0);
	rte_pktmbuf_free(m);
}

static bool matches(const struct match *m, const struct flow_key *k)
{
	const uint8_t *v = (const uint8_t *)&m->value, *mask = (const uint8_t *)&m->mask, *b = (const uint8_t *)k;

	for (unsigned i = 0; i < sizeof *k; i++)
		if ((b[i] & mask[i]) != v[i])
			return false;
	return true;
}

// Every kind of field: a packet that it matches and one that it doesn't.
static void fields(void **state)
{
	static const struct {
		const char *match, *packet, *other;
		uint32_t fields;
	} rows[] = {
		{"dl_src=52:54:00:00:00:09", "udp,dl_src=52:54:00:00:00:09", "udp", KEY_BIT(DL_SRC)},
		{"eth_dst=01:00:00:00:00:00/01:00:00:00:00:00", "udp,dl_dst=01:00:5e:00:00:01", "udp", KEY_BIT(DL_DST)},
		{"dl_type=0x88b5", "dl_type=0x88b5", "udp", KEY_BIT(DL_TYPE)},
		{"dl_vlan=5", "udp,dl_vlan=5", "udp,dl_vlan=4", KEY_BIT(VLAN)},
		{"dl_vlan=0", "udp,dl_vlan=0,dl_vlan_pcp=3", "udp", KEY_BIT(VLAN)},
		{"dl_vlan=0xffff", "udp", "udp,dl_vlan=0", KEY_BIT(VLAN)},
		{"vlan_tci=0x1000/0x1000", "udp,dl_vlan=9", "udp", KEY_BIT(VLAN)},
		{"vlan_tci=0", "udp", "udp,dl_vlan=1", KEY_BIT(VLAN)},
		{"arp", "arp", "udp", KEY_BIT(DL_TYPE)},
		{"arp,arp_op=2", "arp,arp_op=2", "arp", KEY_BIT(DL_TYPE) | KEY_BIT(NW_PROTO)},
		{"arp,arp_spa=10.0.0.0/8", "arp,arp_spa=10.9.8.7", "arp", KEY_BIT(DL_TYPE) | KEY_BIT(NW_SRC)},
		{"arp,arp_tpa=10.0.0.1", "arp,arp_tpa=10.0.0.1", "arp,arp_tpa=10.0.0.2", KEY_BIT(DL_TYPE) | KEY_BIT(NW_DST)},
		{"ip,nw_src=10.1.0.0/16", "udp,nw_src=10.1.255.1", "udp,nw_src=10.2.0.1", KEY_BIT(DL_TYPE) | KEY_BIT(NW_SRC)},
		{"ip,nw_src=10.0.0.1/255.0.0.255", "udp,nw_src=10.7.7.1", "udp,nw_src=10.7.7.2", KEY_BIT(DL_TYPE) | KEY_BIT(NW_SRC)},
		{"ip,ip_dst=192.0.2.2/32", "udp", "udp,nw_dst=192.0.2.3", KEY_BIT(DL_TYPE) | KEY_BIT(NW_DST)},
		{"ip,nw_dst=192.0.2.2/0", "udp,nw_dst=1.1.1.1", "udp6", KEY_BIT(DL_TYPE) | KEY_BIT(NW_DST)},
		{"ipv6,ipv6_src=2001:db8::/33", "udp6", "udp6,ipv6_src=2001:db8:8000::1", KEY_BIT(DL_TYPE) | KEY_BIT(NW_SRC)},
		{"ipv6,ipv6_dst=::2/::ff", "udp6", "udp6,ipv6_dst=2001:db8::3", KEY_BIT(DL_TYPE) | KEY_BIT(NW_DST)},
		{"ip,nw_proto=47", "ip,nw_proto=47", "ip", KEY_BIT(DL_TYPE) | KEY_BIT(NW_PROTO)},
		{"ip,nw_tos=0xb8", "udp,nw_tos=0xba", "udp", KEY_BIT(DL_TYPE) | KEY_BIT(NW_TOS)},
		{"ipv6,ip_dscp=46", "udp6,nw_tos=0xb8", "udp6", KEY_BIT(DL_TYPE) | KEY_BIT(NW_TOS)},
		{"tcp,tp_dst=80", "tcp,tp_dst=80", "udp,tp_dst=80", KEY_BIT(DL_TYPE) | KEY_BIT(NW_PROTO) | KEY_BIT(TP_DST)},
		{"udp6,udp_src=0x1000/0xf000", "udp6,udp_src=8191", "udp6,udp_src=8192", KEY_BIT(DL_TYPE) | KEY_BIT(NW_PROTO) | KEY_BIT(TP_SRC)},
		{"sctp,sctp_dst=9", "sctp", "sctp,sctp_dst=8", KEY_BIT(DL_TYPE) | KEY_BIT(NW_PROTO) | KEY_BIT(TP_DST)},
		{"icmp,icmp_type=8,icmp_code=0", "icmp", "icmp,icmp_type=0", KEY_BIT(DL_TYPE) | KEY_BIT(NW_PROTO) | KEY_BIT(TP_SRC) | KEY_BIT(TP_DST)},
		{"icmp6,icmpv6_type=135", "icmp6,icmpv6_type=135", "icmp6", KEY_BIT(DL_TYPE) | KEY_BIT(NW_PROTO) | KEY_BIT(TP_SRC)},
		{"class=tcp-fin/rst", "tcp,tcp_flags=fin", "tcp", KEY_BIT(CLASS)},
		{"class=tcp-syn", "tcp", "tcp,tcp_flags=ack", KEY_BIT(CLASS)},
		{"class=later-fragment", "udp,nw_frag=later", "udp", KEY_BIT(CLASS)},
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct flow_key yes, no;
		struct match m;
		char *error;

		if (match_parse(rows[i].match, &m, &error))
			fail_msg("%s: %s", rows[i].match, error);
		key_of(rows[i].packet, &yes);
		key_of(rows[i].other, &no);
		if (!matches(&m, &yes))
			fail_msg("%s doesn't match %s", rows[i].match, rows[i].packet);
		if (matches(&m, &no))
			fail_msg("%s matches %s", rows[i].match, rows[i].other);
		if (m.fields != rows[i].fields)
			fail_msg("%s reads fields %x, not %x", rows[i].match, m.fields, rows[i].fields);
	}
}

static void everything(void **state)
{
	static const char *const words[] = {"", "any", " all", "ANY"};
	struct flow_key k;
	struct match m, n;
	char *error;

	key_of("udp", &k);
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
		assert_int_equal(match_parse(words[i], &m, &error), 0);
		assert_true(matches(&m, &k) && !m.fields);
	}
	assert_int_equal(match_parse("in_port=vm1", &m, &error), 0);
	assert_string_equal(m.in_port, "vm1");
	assert_int_equal(m.fields, KEY_BIT(IN_PORT));
	assert_int_equal(match_parse("in_port=vm2", &n, &error), 0);
	assert_false(match_equal(&m, &n));
	match_in_port(&m, 8);
	assert_false(matches(&m, &k));
	match_in_port(&m, 7);
	assert_true(matches(&m, &k));
	// The same in other words.
	assert_int_equal(match_parse("tcp,tp_dst=80,nw_dst=10.1.2.3/8", &m, &error), 0);
	assert_int_equal(match_parse("dl_type=0x0800 nw_proto=6 ip_dst=10.0.0.0/255.0.0.0 tcp_dst=0x50", &n, &error), 0);
	assert_true(match_equal(&m, &n));
}

static void match_errors(void **state)
{
	static const char *const rows[][2] = {
		{"tpc", "tpc: no such field or protocol"},
		{"tcp,tp_dst", "tp_dst needs a value"},
		{"tcp,dst=5", "dst: no such field of a packet"},
		{"tp_dst=80", "tp_dst needs a protocol with ports"},
		{"nw_src=10.0.0.1", "nw_src needs ip or arp"},
		{"ip,ipv6_src=::1", "ipv6_src needs ipv6"},
		{"tcp,tp_dst=65536", "tp_dst=65536: a number from 0 to 65535"},
		{"ip,nw_src=10.0.0.0/33", "nw_src: the prefix has 32 bits at most"},
		{"ip,nw_src=10.0.0.0/x", "nw_src: x is no mask and no prefix length"},
		{"ipv6,ipv6_src=::/129", "ipv6_src: the prefix has 128 bits at most"},
		{"dl_src=02:00:00:00:00:01/8", "dl_src: 8 is no mask"},
		{"dl_type=0x0800/0xff00", "dl_type=0x0800/0xff00: dl_type takes no mask"},
		{"dl_type=0x8100", "is a tag"},
		{"dl_vlan=5,vlan_tci=0x1005", "both speak of the tag"},
		{"dl_vlan_pcp=3", "dl_vlan_pcp can't be matched: flows don't keep the priorities"},
		{"tcp,tcp_flags=syn", "class=tcp-syn"},
		{"ip,nw_frag=later", "class=later-fragment"},
		{"ip,nw_ttl=1", "class=ttl<=1"},
		{"arp,arp_sha=02:00:00:00:00:01", "arp_sha can't be matched"},
		{"ip,nw_tos=5", "nw_tos=5: the two lowest bits"},
		{"class=tcp", "class=tcp: one of these is needed: plain, arp"},
		{"in_port=", "in_port=: the name of a port"},
		{"tcp,udp", "udp: another word"},
		{"ip,nw_src=10.0.0.0/8,ip_src=10.0.0.0/9", "ip_src: another word"},
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct match m;
		char *error;

		assert_int_equal(match_parse(rows[i][0], &m, &error), -EINVAL);
		if (!error || !strstr(error, rows[i][1]))
			fail_msg("%s: %s", rows[i][0], error);
		free(error);
	}
}

static struct actions read_actions(const char *match, const char *text)
{
	struct actions a;
	struct match m;
	char *error;

	assert_int_equal(match_parse(match, &m, &error), 0);
	if (actions_parse(text, &m, &a, &error))
		fail_msg("%s: %s", text, error);
	return a;
}

static void lists(void **state)
{
	struct actions a = read_actions("any", "drop");

	assert_true(a.to == ACTIONS_DROP && !a.n_copies && !a.n_sets);
	actions_free(&a);

	a = read_actions("any", "output:a");
	assert_true(a.to == ACTIONS_PORT && !a.n_copies && a.tag == TAG_OF_PORT);
	assert_string_equal(a.name, "a");
	actions_free(&a);

	// The last one is the packet; each has the sets and the tag before it.
	a = read_actions("tcp", "output:a,set_field:10.0.0.9->nw_dst,mod_vlan_vid:7,output:b,mod_tp_dst:81,strip_vlan,output:c");
	assert_true(a.to == ACTIONS_PORT && a.n_copies == 2 && a.n_sets == 2 && a.tag == 0);
	assert_string_equal(a.name, "c");
	assert_string_equal(a.copy[0].name, "a");
	assert_true(a.copy[0].n_sets == 0 && a.copy[0].tag == TAG_OF_PORT);
	assert_string_equal(a.copy[1].name, "b");
	assert_true(a.copy[1].n_sets == 1 && a.copy[1].tag == 7);
	assert_true(a.set[0].field == NW_DST && a.set[1].field == TP_DST && a.set[1].value.n == 81);
	actions_free(&a);

	// Tags, as ovs-actions(7) has them.
	static const struct {
		const char *text;
		int tag;
	} tags[] = {
		{"set_field:7->vlan_vid", 7},
		{"set_field:4103->vlan_vid", 7},
		{"mod_vlan_pcp:5", TAG_PORT_VID | TAG_PCP | 5 << 13},
		{"set_field:5->vlan_pcp,mod_vlan_vid:9", TAG_PCP | 5 << 13 | 9},
		{"mod_vlan_vid:9,mod_vlan_pcp:5,set_vlan_pcp:2", TAG_PCP | 2 << 13 | 9},
		{"strip_vlan,mod_vlan_pcp:1", TAG_GIVEN | TAG_PCP | 1 << 13},
		{"push_vlan:0x8100", TAG_GIVEN | TAG_PUSHED | TAG_PCP},
		{"push_vlan:0x88a8,mod_vlan_vid:9,mod_vlan_pcp:7", TAG_GIVEN | TAG_PUSHED | TAG_8021AD | TAG_PCP | 7 << 13 | 9},
		{"strip_vlan,push_vlan:0x88a8,mod_vlan_vid:9", TAG_GIVEN | TAG_REPLACES | TAG_8021AD | TAG_PCP | 9},
		{"push_vlan:0x8100,strip_vlan", TAG_OF_PORT},
		{"mod_vlan_pcp:5,strip_vlan", 0},
	};
	for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++) {
		a = read_actions("any", tags[i].text);
		assert_int_equal(a.tag, tags[i].tag);
		actions_free(&a);
	}

	a = read_actions("any", "normal,output:mon");
	assert_true(a.to == ACTIONS_NORMAL && a.n_copies == 1 && a.copy[0].tag == TAG_OF_PORT);
	actions_free(&a);

	// What says nothing of where to goes on.
	a = read_actions("any", "mod_dl_dst:02:00:00:00:00:09");
	assert_true(a.to == ACTIONS_NORMAL && a.n_sets == 1);
	actions_free(&a);
	a = read_actions("any", "mirror:mon");
	assert_true(a.to == ACTIONS_NORMAL && a.n_copies == 1 && a.copy[0].tag == TAG_AS_RECEIVED);
	actions_free(&a);
	a = read_actions("any", "mirror:mon,drop");
	assert_true(a.to == ACTIONS_DROP && a.n_copies == 1);
	actions_free(&a);
	a = read_actions("any", "output:a,mirror:mon");
	assert_true(a.to == ACTIONS_PORT && a.n_copies == 1);
	assert_string_equal(a.name, "a");
	assert_string_equal(a.copy[0].name, "mon");
	actions_free(&a);
	a = read_actions("any", "FLOOD");
	assert_int_equal(a.to, ACTIONS_FLOOD);
	actions_free(&a);
	a = read_actions("any", "in_port");
	assert_int_equal(a.to, ACTIONS_IN_PORT);
	actions_free(&a);
}

static void action_errors(void **state)
{
	static const char *const rows[][3] = {
		{"any", "", "there are no actions"},
		{"any", "dorp", "dorp: no such action"},
		{"any", "drop,normal", "normal: another word says already"},
		{"any", "drop,output:a", "drop: the packet can't go to a as well"},
		{"any", "output", "output needs a value"},
		{"any", "output:", "output:: the name of a port"},
		{"any", "drop:5", "drop:5: it takes no value"},
		{"any", "normal,flood", "flood: another word"},
		{"any", "set_field:5", "it is written set_field:VALUE->FIELD"},
		{"any", "set_field:->dl_src", "it is written"},
		{"any", "set_field:5->foo", "no such field"},
		{"any", "set_field:5->nw_ttl", "nw_ttl can't be set"},
		{"any", "set_field:10.0.0.1->nw_dst,normal", "the match must say that the packets are ip"},
		{"arp", "set_field:10.0.0.1->nw_dst,normal", "the match must say that the packets are ip"},
		{"ip", "set_field:80->tp_dst,normal", "the match must say that the packets are a protocol with ports"},
		{"icmp", "set_field:80->tp_dst,normal", "ports can be set in tcp and udp only"},
		{"sctp", "set_field:80->tp_dst,normal", "ports can be set in tcp and udp only"},
		{"udp", "set_field:80->tcp_dst,normal", "the match must say that the packets are tcp"},
		{"ip", "set_field:10.0.0.0/8->nw_dst", "without a mask"},
		{"ip", "mod_nw_tos:3", "ECN"},
		{"ip", "mod_nw_dst:10.0.0", "an address like"},
		{"any", "set_field:0->vlan_vid", "a VLAN from 1 to 4094"},
		{"any", "set_field:4096->vlan_vid,normal", "a VLAN from 1 to 4094"},
		{"any", "set_field:4101->dl_vlan,normal", "a VLAN from 1 to 4094"},
		{"any", "mod_vlan_vid:0,normal", "a VLAN from 1 to 4094"},
		{"any", "mod_vlan_vid:4095,normal", "a VLAN from 1 to 4094"},
		{"any", "mod_vlan_vid:x,normal", "a VLAN from 1 to 4094"},
		{"any", "mod_vlan_pcp:8,normal", "mod_vlan_pcp:8: a priority from 0 to 7"},
		{"any", "set_field:x->vlan_pcp,normal", "a priority from 0 to 7"},
		{"any", "mod_vlan_pcp", "mod_vlan_pcp needs a value"},
		{"any", "push_vlan:0x0800", "push_vlan:0x0800: the Ethertype of a tag"},
		{"any", "push_vlan:x", "the Ethertype of a tag"},
		{"any", "mod_vlan_vid:5,push_vlan:0x8100,normal", "one tag is pushed"},
		{"any", "push_vlan:0x8100,push_vlan:0x8100,normal", "one tag is pushed"},
		{"any", "normal,push_vlan:0x8100", "push_vlan: no output comes behind it"},
		{"any", "class:gold,drop", "class:gold: what is dropped"},
		{"any", "normal,mod_vlan_vid:5", "mod_vlan_vid: no output comes behind it"},
		{"any", "output:a,mod_dl_src:02:00:00:00:00:01", "set_field: no output comes behind it"},
		{"any", "resubmit:1", "there is one table"},
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct actions a;
		struct match m;
		char *error;

		assert_int_equal(match_parse(rows[i][0], &m, &error), 0);
		assert_int_equal(actions_parse(rows[i][1], &m, &a, &error), -EINVAL);
		if (!error || !strstr(error, rows[i][2]))
			fail_msg("%s: %s", rows[i][1], error);
		free(error);
	}
}

// ---- fields that are set, held against a packet that was made with the new value

static struct rte_mbuf *packet(const char *text)
{
	uint8_t frame[COMPOSE_MAX];
	char *error;
	struct flow_key k;
	int len = compose(text, &defaults, frame, &error);

	if (len < 0)
		fail_msg("%s: %s", text, error);
	struct rte_mbuf *m = lab_mbuf(frame, (uint32_t)len, 0);
	memset(pkt_of(m), 0, sizeof *pkt_of(m));
	assert_int_equal(parse(m, &k), 0);
	return m;
}

static void expect_same(const char *before, const char *actions, struct rte_mbuf *got, struct rte_mbuf *want)
{
	const uint8_t *a = rte_pktmbuf_mtod(got, const uint8_t *), *b = rte_pktmbuf_mtod(want, const uint8_t *);

	assert_int_equal(got->data_len, want->data_len);
	for (unsigned i = 0; i < got->data_len; i++)
		if (a[i] != b[i])
			fail_msg("%s, %s: byte %u is %02x, not %02x", before, actions, i, a[i], b[i]);
}

static void rewrites(void **state)
{
	static const struct {
		const char *match, *before, *actions, *after;
	} rows[] = {
		{"any", "udp", "mod_dl_src:02:00:00:00:00:09", "udp,dl_src=02:00:00:00:00:09"},
		{"any", "arp", "mod_dl_dst:02:00:00:00:00:09", "arp,dl_dst=02:00:00:00:00:09"},
		{"ip", "tcp,packet_len=101", "mod_nw_src:203.0.113.77", "tcp,packet_len=101,nw_src=203.0.113.77"},
		{"ip", "tcp,dl_vlan=5,packet_len=101", "mod_nw_dst:203.0.113.77", "tcp,dl_vlan=5,packet_len=101,nw_dst=203.0.113.77"},
		{"ip", "udp,packet_len=77", "mod_nw_dst:255.254.253.252", "udp,packet_len=77,nw_dst=255.254.253.252,dl_dst=52:54:00:00:00:02"},
		{"ip", "icmp", "mod_nw_dst:10.0.0.1", "icmp,nw_dst=10.0.0.1"},
		{"ip", "sctp", "mod_nw_dst:10.0.0.1", "sctp,nw_dst=10.0.0.1"},
		{"ip", "ip,nw_proto=47", "mod_nw_dst:10.0.0.1", "ip,nw_proto=47,nw_dst=10.0.0.1"},
		{"ipv6", "tcp6", "set_field:fd00::1->ipv6_src", "tcp6,ipv6_src=fd00::1"},
		{"ipv6", "udp6,packet_len=99", "set_field:fd00::ffff:1->ipv6_dst", "udp6,packet_len=99,ipv6_dst=fd00::ffff:1"},
		{"ipv6", "icmp6", "set_field:fd00::1->ipv6_dst", "icmp6,ipv6_dst=fd00::1"},
		{"tcp", "tcp", "mod_tp_dst:65535", "tcp,tp_dst=65535"},
		{"tcp", "tcp", "set_field:1->tcp_src", "tcp,tp_src=1"},
		{"udp6", "udp6", "mod_tp_dst:0", "udp6,tp_dst=0"},
		{"ip", "udp,nw_tos=3", "mod_nw_tos:0xb8", "udp,nw_tos=0xbb"},
		{"ipv6", "tcp6,nw_tos=1", "set_field:46->ip_dscp", "tcp6,nw_tos=0xb9"},
		{"tcp", "tcp", "mod_nw_src:1.2.3.4,mod_nw_dst:5.6.7.8,mod_tp_src:9,mod_tp_dst:10,mod_nw_tos:4",
		 "tcp,nw_src=1.2.3.4,nw_dst=5.6.7.8,tp_src=9,tp_dst=10,nw_tos=4"},
		// What isn't there stays away.
		{"udp", "udp,nw_frag=later", "mod_tp_dst:7", "udp,nw_frag=later"},
		{"udp", "udp,nw_frag=later", "mod_nw_dst:10.0.0.1", "udp,nw_frag=later,nw_dst=10.0.0.1"},
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct actions a = read_actions(rows[i].match, rows[i].actions);
		struct rte_mbuf *m = packet(rows[i].before), *want = packet(rows[i].after);

		rewrite_apply(m, a.set, a.n_sets);
		expect_same(rows[i].before, rows[i].actions, m, want);
		actions_free(&a);
		rte_pktmbuf_free(m);
		rte_pktmbuf_free(want);
	}
}

// 100,000 sets of random addresses and ports, one after the other on one packet: the checksum stays right, or what it was.
static void many_rewrites(void **state)
{
	static const char *const kinds[] = {"tcp,packet_len=333", "udp,packet_len=120", "tcp6,packet_len=334", "udp6,packet_len=121"};

	for (size_t kind = 0; kind < 4; kind++) {
		struct rte_mbuf *m = packet(kinds[kind]);
		bool v6 = kind >= 2, tcp = kind % 2 == 0;
		struct pkt *p = pkt_of(m);

		srandom(1);
		for (int i = 0; i < 25000; i++) {
			struct rewrite r = {.field = i % 4 == 0 ? TP_SRC : i % 4 == 1 ? TP_DST : i % 2 ? (v6 ? IPV6_SRC : NW_SRC) : v6 ? IPV6_DST : NW_DST};

			if (i % 4 < 2)
				r.value.n = (uint32_t)random() & 0xffff;
			else
				for (int b = 0; b < 16; b++)
					r.value.b[b] = (uint8_t)(i % 16 == 7 ? 0xff : random());
			rewrite_apply(m, &r, 1);
			if (i % 100)
				continue;
			uint16_t sum = 0;
			const uint8_t *ip = rte_pktmbuf_mtod_offset(m, const uint8_t *, p->l3_ofs);
			// The sum over everything, the checksum included, is all ones.
			assert_int_equal(rte_raw_cksum_mbuf(m, p->l4_ofs, m->pkt_len - p->l4_ofs, &sum), 0);
			uint32_t acc = sum + (uint32_t)rte_raw_cksum(ip + (v6 ? 8 : 12), v6 ? 32 : 8) + htons((uint16_t)(m->pkt_len - p->l4_ofs)) +
				       htons(tcp ? 6 : 17);
			while (acc >> 16)
				acc = (acc & 0xffff) + (acc >> 16);
			assert_int_equal(acc, 0xffff);
			if (!v6)
				assert_int_equal(rte_raw_cksum(ip, 20), 0xffff);
		}
		rte_pktmbuf_free(m);
	}
}

// A guest that leaves the checksum to others: what they complete is right.
static void partial(void **state)
{
	static const char *const rows[][3] = {
		{"tcp,packet_len=200", "mod_nw_dst:10.1.1.1,mod_tp_dst:81", "tcp,packet_len=200,nw_dst=10.1.1.1,tp_dst=81"},
		{"udp,packet_len=201", "mod_nw_src:10.1.1.1,mod_tp_src:81", "udp,packet_len=201,nw_src=10.1.1.1,tp_src=81"},
		{"tcp6,packet_len=200", "set_field:fd00::9->ipv6_dst,mod_tp_dst:81", "tcp6,packet_len=200,ipv6_dst=fd00::9,tp_dst=81"},
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		char match[8];

		snprintf(match, sizeof match, "%.*s", (int)strcspn(rows[i][0], ","), rows[i][0]);
		struct actions a = read_actions(match, rows[i][1]);
		struct rte_mbuf *m = packet(rows[i][0]), *want = packet(rows[i][2]);
		struct pkt *p = pkt_of(m);
		bool v6 = p->ethertype == 0x86dd, tcp = p->proto == 6;
		uint8_t *ip = rte_pktmbuf_mtod_offset(m, uint8_t *, p->l3_ofs);
		uint16_t len = (uint16_t)(m->pkt_len - p->l4_ofs);
		uint32_t acc = (uint32_t)rte_raw_cksum(ip + (v6 ? 8 : 12), v6 ? 32 : 8) + htons(len) + htons(p->proto);

		while (acc >> 16)
			acc = (acc & 0xffff) + (acc >> 16);
		uint16_t sum = (uint16_t)acc;
		memcpy(ip + (p->l4_ofs - p->l3_ofs) + (tcp ? 16 : 6), &sum, 2);
		m->l2_len = p->l3_ofs;
		m->l3_len = (uint64_t)(p->l4_ofs - p->l3_ofs);
		m->l4_len = p->l4_len;
		m->ol_flags |= (v6 ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4) | (tcp ? RTE_MBUF_F_TX_TCP_CKSUM : RTE_MBUF_F_TX_UDP_CKSUM);
		rewrite_apply(m, a.set, a.n_sets);
		assert_int_equal(offload_checksum(m), 0);
		expect_same(rows[i][0], rows[i][1], m, want);
		actions_free(&a);
		rte_pktmbuf_free(m);
		rte_pktmbuf_free(want);
	}
}

// UDP of IPv4 without a checksum has none afterwards.
static void no_checksum(void **state)
{
	struct actions a = read_actions("udp", "mod_nw_dst:10.1.1.1,mod_tp_dst:81");
	struct rte_mbuf *m = packet("udp");
	uint8_t *field = rte_pktmbuf_mtod_offset(m, uint8_t *, pkt_of(m)->l4_ofs + 6);

	memset(field, 0, 2);
	rewrite_apply(m, a.set, a.n_sets);
	assert_true(!field[0] && !field[1]);
	actions_free(&a);
	rte_pktmbuf_free(m);
}

static int eal(void **state)
{
	lab_eal();
	lab_setup();
	return 0;
}

static int end(void **state)
{
	lab_teardown();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields),	cmocka_unit_test(everything), cmocka_unit_test(match_errors),  cmocka_unit_test(lists),
		cmocka_unit_test(action_errors), cmocka_unit_test(rewrites),   cmocka_unit_test(many_rewrites), cmocka_unit_test(partial),
		cmocka_unit_test(no_checksum),
	};
	return cmocka_run_group_tests(tests, eal, end);
}
