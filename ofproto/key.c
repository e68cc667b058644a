// key: the secret and the profiles.
#include "key.h"
#include "sizes.h"

#include <stdbool.h>
#include <stdlib.h>
#include <sys/random.h>

uint64_t key_secret[6];
struct profile profiles[MAX_PROFILES];
static unsigned n_profiles;

static void mask_of(uint32_t fields, struct flow_key *mask)
{
	memset(mask, 0, sizeof *mask);
	mask->profile = 0xffff;
#define X(id, name, member, base)                                                                                      \
	if (fields & KEY_BIT(id))                                                                                      \
		MASK_##member(mask);
#define MASK_port(m) memset(&(m)->port, 0xff, sizeof(m)->port)
#define MASK_vlan(m) memset(&(m)->vlan, 0xff, sizeof(m)->vlan)
#define MASK_ethertype(m) memset(&(m)->ethertype, 0xff, sizeof(m)->ethertype)
#define MASK_dst(m) memset((m)->dst, 0xff, sizeof(m)->dst)
#define MASK_src(m) memset((m)->src, 0xff, sizeof(m)->src)
#define MASK_class(m) memset(&(m)->class, 0xff, sizeof(m)->class)
#define MASK_cvlan(m) memset(&(m)->cvlan, 0xff, sizeof(m)->cvlan)
#define MASK_proto(m) memset(&(m)->proto, 0xff, sizeof(m)->proto)
#define MASK_sport(m) memset(&(m)->sport, 0xff, sizeof(m)->sport)
#define MASK_dport(m) memset(&(m)->dport, 0xff, sizeof(m)->dport)
#define MASK_tos(m) memset(&(m)->tos, 0xff, sizeof(m)->tos)
	// The address of an IPv4 packet and the first half of an IPv6 one share bytes: each of the two fields covers both families.
#define MASK_ip_src(m) memset(&(m)->v6.src, 0xff, sizeof(m)->v6.src)
#define MASK_ip_dst(m) (memset(&(m)->v4.dst, 0xff, sizeof(m)->v4.dst), memset(&(m)->v6.dst, 0xff, sizeof(m)->v6.dst))
	KEY_FIELDS(X)
#undef X
}

void key_init(void)
{
	if (key_secret[0])
		return;
	uint8_t *at = (uint8_t *)key_secret;
	for (size_t have = 0; have < sizeof key_secret;) {
		ssize_t n = getrandom(at + have, sizeof key_secret - have, 0);

		if (n > 0)
			have += (size_t)n;
	}
	for (int i = 0; i < 6; i++)
		key_secret[i] |= 1; // an even factor would lose bits
	profile_intern(KEY_BASE);
}

uint16_t profile_intern(uint32_t fields)
{
	fields |= KEY_BASE;
	for (unsigned i = 0; i < n_profiles; i++)
		if (profiles[i].fields == fields)
			return (uint16_t)i;
	if (n_profiles == MAX_PROFILES)
		return 0;
	// Workers see a profile's id only after it was published with a port's table, which is after this.
	mask_of(fields, &profiles[n_profiles].mask);
	bool l2 = !(fields & ~(uint32_t)(KEY_BASE | KEY_BIT(CVLAN) | KEY_BIT(NW_PROTO)));
	profiles[n_profiles].len = l2 ? KEY_LEN_L2 : KEY_LEN_V4;
	profiles[n_profiles].len_ipv6 = l2 ? KEY_LEN_L2 : KEY_LEN_V6;
	profiles[n_profiles].fields = fields;
	return (uint16_t)n_profiles++;
}

const char *key_field_name(enum key_field f)
{
	static const char *const names[] = {
#define X(id, name, member, base) name,
		KEY_FIELDS(X)
#undef X
	};
	return f < KEY_FIELD_N ? names[f] : "?";
}
