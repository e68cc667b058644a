// The short ways through the packet path, parse_common() and prepare_common() and those of IPv6, say what the long way says.
#include "lab.h"
#include "compose.h"

static const char *const corpus[] = {
	"tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=1000,tp_dst=80",
	"tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=1000,tp_dst=80,tcp_flags=ack",
	"udp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=1000,tp_dst=53,packet_len=200",
	"udp,nw_src=0.0.0.0,nw_dst=255.255.255.255,tp_src=68,tp_dst=67",
	"icmp,nw_src=10.0.0.1,nw_dst=10.0.0.2",
	"tcp6,ipv6_src=fd00::1,ipv6_dst=fd00::2,tp_src=1000,tp_dst=80",
	"tcp6,ipv6_src=fd00::1,ipv6_dst=fd00::2,tp_src=1000,tp_dst=80,tcp_flags=ack,packet_len=200",
	"udp6,ipv6_src=fd00::1,ipv6_dst=fd00::2,tp_src=1000,tp_dst=53",
	"udp6,ipv6_src=fe80::1,ipv6_dst=ff02::1:2,tp_src=546,tp_dst=547",
	"icmp6,ipv6_src=fd00::1,ipv6_dst=fd00::2,icmpv6_type=128",
	"arp,arp_op=1,arp_spa=10.0.0.1,arp_tpa=10.0.0.2",
};
#define CORPUS (sizeof corpus / sizeof corpus[0])

// A frame of the corpus with some bytes behind the addresses changed, perhaps cut.
static uint32_t mutant(uint8_t *frame)
{
	uint32_t len = lab_compose(frame, corpus[(unsigned)rand() % CORPUS]);

	for (int i = rand() % 4; i > 0; i--)
		frame[12 + (uint32_t)rand() % (len - 12)] = (uint8_t)(rand() % 2 ? rand() : 1 << rand() % 8);
	return rand() % 8 ? len : 14 + (uint32_t)rand() % (len - 13);
}

static void same_packet(void **state)
{
	static uint8_t frame[LAB_FRAME];
	unsigned shortcuts[2] = {0};

	lab_setup();
	srand(1);
	for (int round = 0; round < 50000; round++) {
		uint32_t len = mutant(frame);
		struct rte_mbuf *m = lab_mbuf(frame, len, 0);
		struct pkt one, before, *p = pkt_of(m);
		struct flow_key k;

		memset(p, 0, sizeof *p);
		p->in_port = p->origin = 1;
		before = one = *p;
		int class = parse_common(rte_pktmbuf_mtod(m, uint8_t *), m->data_len, m->pkt_len, &one), v6 = class < 0;
		if (v6)
			class = parse_common6(rte_pktmbuf_mtod(m, uint8_t *), m->data_len, m->pkt_len, &one);
		assert_int_equal(parse(m, &k), 0);
		if (class >= 0) {
			assert_int_equal(p->drop, 0);
			assert_int_equal(class, k.class);
			assert_memory_equal(&one, p, sizeof one);
			shortcuts[v6]++;
		} else {
			assert_memory_equal(&one, &before, sizeof one);
		}
		rte_pktmbuf_free(m);
	}
	assert_in_range(shortcuts[0], 5000, 20000);
	assert_in_range(shortcuts[1], 5000, 20000);
	lab_teardown();
}

// A stage that decides by the whole 5-tuple and the TOS, so that all words of the key count.
static uint32_t nosy_fields(const struct config_network *net)
{
	return KEY_BIT(NW_SRC) | KEY_BIT(NW_DST) | KEY_BIT(TP_SRC) | KEY_BIT(TP_DST) | KEY_BIT(NW_PROTO) | KEY_BIT(NW_TOS);
}

static uint16_t nosy_resolve(struct resolve *r)
{
	(void)resolve_field(r, NW_SRC, v4);
	(void)resolve_field(r, TP_SRC, sport);
	(void)resolve_field(r, NW_PROTO, proto);
	(void)resolve_field(r, NW_TOS, tos);
	return 0;
}

static struct stage stage_nosy = {.name = "nosy", .fields = nosy_fields, .resolve = nosy_resolve};

// The long way makes a flow (misses are always prepared the long way), the short way has to find it.
static void same_key(bool nosy)
{
	static uint8_t frame[LAB_FRAME];
	struct stage *list[MAX_STAGES];
	unsigned n = 0;

	for (; n < stage_list_n; n++)
		list[n] = stage_list[n];
	if (nosy)
		list[n++] = &stage_nosy;
	lab_setup_stages(list, n);
	struct config_network *blue = lab_network("blue", 0);
	uint16_t a = lab_port("a", VLAN_ACCESS, blue)->id;
	lab_port("b", VLAN_ACCESS, blue);
	lab_apply();
	srand(2);
	for (int round = 0; round < 5000; round++) {
		uint32_t len = mutant(frame);

		lab_send_frame(a, frame, len);
		uint64_t drops = lab_all_drops(a), resolved = lab_count(a, COUNT_RESOLVED), hits = lab_count(a, COUNT_CACHE_HIT);
		lab_send_frame(a, frame, len);
		assert_int_equal(lab_count(a, COUNT_RESOLVED), resolved);
		assert_int_equal(lab_count(a, COUNT_CACHE_HIT) + (lab_all_drops(a) - drops), hits + 1);
	}
	assert_int_equal(lab_count(a, COUNT_UNCACHED), 0);
	lab_teardown();
}

static void same_key_of_addresses(void **state)
{
	same_key(false);
}

static void same_key_of_connections(void **state)
{
	same_key(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_packet),
		cmocka_unit_test(same_key_of_addresses),
		cmocka_unit_test(same_key_of_connections),
	};

	lab_eal();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
