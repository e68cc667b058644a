// key: profiles, masks and the hash; and that a stage which reads a field without saying so can't make a wrong flow.
#include "lab.h"

static void profiles_are_interned(void **state)
{
	key_init();
	uint16_t base = profile_intern(0);
	assert_int_equal(profile_intern(KEY_BASE), base);
	assert_int_equal(profile_get(base)->fields, KEY_BASE);
	uint16_t five = profile_intern(KEY_BIT(NW_SRC) | KEY_BIT(NW_DST));
	assert_int_not_equal(five, base);
	assert_int_equal(profile_intern(KEY_BIT(NW_DST) | KEY_BIT(NW_SRC) | KEY_BASE), five);
	assert_int_equal(profile_get(five)->fields, KEY_BASE | KEY_BIT(NW_SRC) | KEY_BIT(NW_DST));
	assert_string_equal(key_field_name(KEY_NW_DST), "nw_dst");
	assert_string_equal(key_field_name(KEY_FIELD_N), "?");
}

static void lengths(void **state)
{
	key_init();
	const struct profile *l2 = profile_get(profile_intern(0)), *l2_more = profile_get(profile_intern(KEY_BIT(CVLAN) | KEY_BIT(NW_PROTO))),
			     *ports = profile_get(profile_intern(KEY_BIT(TP_DST)));

	assert_int_equal(key_len(l2, 0xdd86), KEY_LEN_L2);
	assert_int_equal(key_len(l2_more, 0xdd86), KEY_LEN_L2);
	assert_int_equal(key_len(ports, 0xdd86), KEY_LEN_V6);
	assert_int_equal(key_len(ports, 0x0008), KEY_LEN_V4);
	assert_int_equal(key_len(ports, 0x0608), KEY_LEN_V4);
}

// One field after the other: a change of it counts if and only if the profile has it.
static void masks(void **state)
{
	static const struct {
		uint32_t bit;
		size_t at, size;
	} fields[] = {
#define AT(id, member) {KEY_BIT(id), offsetof(struct flow_key, member), sizeof((struct flow_key){0}.member)}
		AT(IN_PORT, port), AT(VLAN, vlan), AT(DL_TYPE, ethertype), AT(DL_DST, dst), AT(DL_SRC, src), AT(CLASS, class),
		AT(CVLAN, cvlan), AT(NW_PROTO, proto), AT(TP_SRC, sport), AT(TP_DST, dport), AT(NW_TOS, tos), AT(NW_SRC, v6.src), AT(NW_DST, v6.dst),
	};
	key_init();
	assert_int_equal(sizeof fields / sizeof fields[0], KEY_FIELD_N);
	for (uint32_t set = 0; set < 1u << KEY_FIELD_N; set += 61) { // a sample of all sets
		const struct profile *pr = profile_get(profile_intern(set));

		if (pr->fields != (set | KEY_BASE))
			continue; // no more profiles
		for (unsigned i = 0; i < KEY_FIELD_N; i++) {
			struct flow_key a = {.ethertype = 0xdd86}, b = a, ma, mb;
			unsigned len = key_len(pr, a.ethertype);

			((uint8_t *)&b)[fields[i].at + fields[i].size - 1] ^= 0x10;
			if (fields[i].bit == KEY_BIT(DL_TYPE))
				continue;
			key_mask(&ma, &a, pr, len);
			key_mask(&mb, &b, pr, len);
			assert_int_equal(key_equal(&ma, &mb, len), !(pr->fields & fields[i].bit));
			assert_int_equal(key_hash(&ma, len) == key_hash(&mb, len), !(pr->fields & fields[i].bit));
		}
	}
}

static void addresses_of_ipv4(void **state)
{
	key_init();
	const struct profile *src = profile_get(profile_intern(KEY_BIT(NW_SRC))), *dst = profile_get(profile_intern(KEY_BIT(NW_DST)));
	struct flow_key a = {.ethertype = 8, .v4 = {1, 2}}, other = {.ethertype = 8, .v4 = {1, 3}}, x, y;

	key_mask(&x, &a, dst, KEY_LEN_V4);
	key_mask(&y, &other, dst, KEY_LEN_V4);
	assert_false(key_equal(&x, &y, KEY_LEN_V4));
	other.v4.src = 7;
	other.v4.dst = 2;
	key_mask(&y, &other, dst, KEY_LEN_V4);
	assert_true(key_equal(&x, &y, KEY_LEN_V4));
	key_mask(&x, &a, src, KEY_LEN_V4);
	key_mask(&y, &other, src, KEY_LEN_V4);
	assert_false(key_equal(&x, &y, KEY_LEN_V4));
}

// Addresses that count up, as those of guests do, into buckets of a power of two: near to what chance gives.
static void hash_spreads(void **state)
{
	enum { KEYS = 1 << 16, BUCKETS = 1 << 13 };
	static uint16_t low[BUCKETS], tag[BUCKETS];
	static const int shift[] = {0, 8, 24, 40};

	key_init();
	for (unsigned s = 0; s < 4; s++) {
		unsigned most = 0, empty = 0, most_tag = 0;

		memset(low, 0, sizeof low);
		memset(tag, 0, sizeof tag);
		for (uint64_t i = 0; i < KEYS; i++) {
			struct flow_key k = {.port = 1, .ethertype = 8};
			uint64_t mac = i << shift[s];

			memcpy(k.src, &mac, 6);
			uint64_t h = key_hash(&k, KEY_LEN_L2);
			low[h % BUCKETS]++;
			tag[(h >> 48) % BUCKETS]++;
		}
		for (unsigned i = 0; i < BUCKETS; i++) {
			most = low[i] > most ? low[i] : most;
			most_tag = tag[i] > most_tag ? tag[i] : most_tag;
			empty += !low[i];
		}
		// On average 8; shift 40 leaves 256 different addresses only.
		if (shift[s] < 40) {
			assert_in_range(most, 16, 40);
			assert_in_range(most_tag, 16, 40);
			assert_true(empty < BUCKETS / 100);
		}
	}
}

// ---- what a profile means for flows

static bool declared;
static unsigned resolves;

static uint32_t reader_fields(const struct config_network *n)
{
	return declared ? KEY_BIT(NW_DST) : 0;
}

static uint16_t reader_resolve(struct resolve *r)
{
	const uint32_t *dst = resolve_field(r, NW_DST, v4.dst);

	resolves++;
	return *dst == htobe32(0x0a0000ff) ? lab_reason("flow.NO_OUTPUT") : 0; // a rule for one address
}

static struct stage reader = {.name = "reader", .resolve = reader_resolve, .fields = reader_fields};
extern struct stage stage_vlan, stage_fdb, stage_output, stage_mtu;
static uint16_t a, b;

static void setup(bool say)
{
	struct stage *const list[] = {&stage_vlan, &stage_fdb, &reader, &stage_output, &stage_mtu};

	declared = say;
	resolves = 0;
	lab_setup_stages(list, 5);
	struct config_network *net = lab_network("blue", 10);
	a = lab_port("a", VLAN_ACCESS, net)->id;
	b = lab_port("b", VLAN_TRUNK, NULL)->id;
	lab_apply();
	lab.traced = false; // a trace resolves once more
}

static void a_declared_field_makes_flows(void **state)
{
	setup(true);
	for (int again = 0; again < 3; again++) {
		lab_expect_ports(a, "udp,nw_dst=10.0.0.1", b, 0);
		lab_expect_ports(a, "udp,nw_dst=10.0.0.2", b, 0);
		lab_expect_drop(a, "udp,nw_dst=10.0.0.255", "flow.NO_OUTPUT");
		lab_expect_ports(a, "udp,nw_dst=10.0.0.2,nw_src=10.9.9.9,udp_dst=77", b, 0); // what isn't read makes none
		lab_expect_ports(b, "udp,nw_dst=10.0.0.1,dl_vlan=10,dl_dst=ff:ff:ff:ff:ff:ff", a, 0); // trunks have the network's profile too
		lab_expect_drop(b, "udp,nw_dst=10.0.0.255,dl_vlan=10,dl_dst=ff:ff:ff:ff:ff:ff", "flow.NO_OUTPUT");
	}
	assert_int_equal(flow_table_port_flows(lab.w.flows, a), 3);
	assert_int_equal(flow_table_port_flows(lab.w.flows, b), 2);
	assert_int_equal(lab_count(a, COUNT_UNCACHED), 0);
	assert_int_equal(lab_count(a, COUNT_BEYOND_PROFILE), 0);
	lab_teardown();
}

static void an_undeclared_one_is_seen_and_harmless(void **state)
{
	setup(false);
	lab.beyond_ok = true;
	for (int again = 0; again < 3; again++) {
		lab_expect_ports(a, "udp,nw_dst=10.0.0.1", b, 0);
		lab_expect_drop(a, "udp,nw_dst=10.0.0.255", "flow.NO_OUTPUT");
		lab_expect_ports(a, "udp,nw_dst=10.0.0.1", b, 0);
	}
	assert_int_equal(lab_flows(), 0);
	assert_int_equal(resolves, 9);
	assert_int_equal(lab_count(a, COUNT_BEYOND_PROFILE), 9);
	assert_int_equal(lab_count(a, COUNT_UNCACHED), 9);
	lab_teardown();
}

// A flow that was cached under the old profile doesn't serve packets of the new one.
static void a_profile_changes(void **state)
{
	setup(false);
	lab.beyond_ok = true;
	lab_expect_ports(a, "udp,nw_dst=10.0.0.1", b, 0);
	declared = true;
	lab.config->networks[0].mtu = 1400; // anything that makes it look again
	lab_apply();
	uint64_t beyond = lab_count(a, COUNT_BEYOND_PROFILE);
	for (int again = 0; again < 2; again++) {
		lab_expect_ports(a, "udp,nw_dst=10.0.0.1", b, 0);
		lab_expect_drop(a, "udp,nw_dst=10.0.0.255", "flow.NO_OUTPUT");
	}
	assert_int_equal(lab_count(a, COUNT_BEYOND_PROFILE), beyond);
	assert_int_equal(lab_flows(), 2);
	lab_teardown();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_declared_field_makes_flows), // before the profiles are used up
		cmocka_unit_test(an_undeclared_one_is_seen_and_harmless),
		cmocka_unit_test(a_profile_changes),
		cmocka_unit_test(profiles_are_interned),
		cmocka_unit_test(lengths),
		cmocka_unit_test(addresses_of_ipv4),
		cmocka_unit_test(masks),
		cmocka_unit_test(hash_spreads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
