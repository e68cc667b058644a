// key: what a flow is known by. The whole key is built once a packet by parse(); the profile of the ingress masks it, so that a network
// on which nothing looks at addresses has one flow for all connections between two MACs.
#ifndef OFPROTO_KEY_H
#define OFPROTO_KEY_H

#include <assert.h>
#include <stdint.h>
#include <string.h>

// Key fields: name in match syntax (that of ovs-fields(7)), member, whether every profile has it.
#define KEY_FIELDS(X)                                                                                                  \
	X(IN_PORT, "in_port", port, 1)                                                                                 \
	X(VLAN, "vlan_tci", vlan, 1)                                                                                   \
	X(DL_TYPE, "dl_type", ethertype, 1)                                                                            \
	X(DL_DST, "dl_dst", dst, 1)                                                                                    \
	X(DL_SRC, "dl_src", src, 1)                                                                                    \
	X(CLASS, "class", class, 1)                                                                                    \
	X(CVLAN, "cvlan_tci", cvlan, 0)                                                                                \
	X(NW_PROTO, "nw_proto", proto, 0)                                                                              \
	X(TP_SRC, "tp_src", sport, 0)                                                                                  \
	X(TP_DST, "tp_dst", dport, 0)                                                                                  \
	X(NW_TOS, "nw_tos", tos, 0)                                                                                    \
	X(NW_SRC, "nw_src", ip_src, 0)                                                                                 \
	X(NW_DST, "nw_dst", ip_dst, 0)

enum key_field {
#define X(id, name, member, base) KEY_##id,
	KEY_FIELDS(X)
#undef X
	KEY_FIELD_N
};
#define KEY_BIT(id) (1u << KEY_##id)
// Fields that every profile has.
#define KEY_BASE                                                                                                       \
	(KEY_BIT(IN_PORT) | KEY_BIT(VLAN) | KEY_BIT(DL_TYPE) | KEY_BIT(DL_DST) | KEY_BIT(DL_SRC) | KEY_BIT(CLASS))

#define KEY_VLAN_NETWORK 0x2000

// All in network order but port, profile, vlan and cvlan. IPv4 and ARP addresses are in the first four bytes of ip_src and, packed
// close so that a key of IPv4 is 40 bytes, right behind it: see key_v4.
struct flow_key {
	uint16_t port;      // ingress port
	uint16_t profile;
	uint16_t vlan;      // outer tag: 0x1000 | VLAN id; 0: untagged; out of a tunnel: KEY_VLAN_NETWORK | network id
	uint16_t ethertype; // behind the tags; 0x05ff: IEEE 802.2 frame
	uint8_t dst[6];
	uint8_t src[6];
	uint8_t class;
	uint8_t proto;      // IP protocol; ARP: operation
	uint16_t cvlan;     // inner tag, as vlan
	// 24 bytes: the key of plain L2
	uint16_t sport;     // ICMP: type
	uint16_t dport;     // ICMP: code
	uint8_t tos;        // IPv4 TOS or IPv6 traffic class, without ECN
	uint8_t zero[3];
	union {
		struct {
			uint32_t src, dst;
		} v4; // 40 bytes: the key of IPv4
		struct {
			uint8_t src[16], dst[16];
		} v6; // 64 bytes: the key of IPv6
	};
} __attribute__((aligned(8))); // it is read by words
static_assert(sizeof(struct flow_key) == 64, "a key is one cache line");

#define KEY_LEN_L2 24
#define KEY_LEN_V4 40
#define KEY_LEN_V6 64

// A profile: the fields that may decide for packets of one (ingress port, VLAN). Interned: equal masks are one profile.
struct profile {
	struct flow_key mask;
	uint32_t fields;  // KEY_BIT()s
	uint8_t len;      // bytes of the key that count for packets other than IPv6
	uint8_t len_ipv6;
};

// A key is hashed, masked and compared by words.
typedef uint64_t __attribute__((may_alias)) key_word;

extern uint64_t key_secret[6];

static inline uint64_t key_mum(uint64_t a, uint64_t b)
{
	unsigned __int128 r = (unsigned __int128)a * b;

	return (uint64_t)r ^ (uint64_t)(r >> 64);
}

// `len` is one of KEY_LEN_*. A folded multiplication (as in wyhash) with a secret per process: not linear, so that nobody who doesn't know
// the secret can choose addresses that collide.
static inline uint64_t key_hash(const struct flow_key *k, unsigned len)
{
	const key_word *w = (const key_word *)(const void *)k;
	uint64_t h = key_mum(w[0] ^ key_secret[0], w[1] ^ key_secret[1]) ^ key_mum(w[2] ^ key_secret[2], key_secret[3]);

	if (len > KEY_LEN_L2)
		h = key_mum(w[3] ^ key_secret[4], w[4] ^ h);
	if (len > KEY_LEN_V4)
		h = key_mum(w[5] ^ key_secret[1], w[6] ^ h) ^ key_mum(w[7] ^ key_secret[2], key_secret[0]);
	return key_mum(h ^ key_secret[5], key_secret[4]);
}

static inline int key_equal(const struct flow_key *a, const struct flow_key *b, unsigned len)
{
	const key_word *x = (const key_word *)(const void *)a, *y = (const key_word *)(const void *)b;
	uint64_t d = (x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]);

	if (len > KEY_LEN_L2)
		d |= (x[3] ^ y[3]) | (x[4] ^ y[4]);
	if (len > KEY_LEN_V4)
		d |= (x[5] ^ y[5]) | (x[6] ^ y[6]) | (x[7] ^ y[7]);
	return d == 0;
}

// Bytes of the key that count for a packet of `ethertype` (network order) under the profile.
static inline unsigned key_len(const struct profile *pr, uint16_t ethertype)
{
	return ethertype == 0xdd86 /* IPv6 */ ? pr->len_ipv6 : pr->len;
}

static inline void key_mask(struct flow_key *to, const struct flow_key *k, const struct profile *pr, unsigned len)
{
	key_word *t = (key_word *)(void *)to;
	const key_word *w = (const key_word *)(const void *)k, *m = (const key_word *)(const void *)&pr->mask;

	t[0] = w[0] & m[0];
	t[1] = w[1] & m[1];
	t[2] = w[2] & m[2];
	for (unsigned i = 3; i < len / 8; i++)
		t[i] = w[i] & m[i];
}

// Fills the secret from the kernel's random source. Once, before the first table is made.
void key_init(void);
// Main thread: id of the profile with these fields (KEY_BASE is added), made if there is none; 0, the plain L2 profile, if all ids are taken:
// packets whose resolve reads more are then not cached, but never decided wrong.
uint16_t profile_intern(uint32_t fields);
// `id`: of profile_intern(). Any thread that got the id by a published table.
extern struct profile profiles[];
static inline const struct profile *profile_get(uint16_t id)
{
	return &profiles[id];
}
const char *key_field_name(enum key_field);

#endif
