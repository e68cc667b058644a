// tunnel: the formats, and one packet of a tunnel. See tunnel.h.
#include "tunnel.h"
#include "offload.h"
#include "topology.h"

#include <string.h>
#include <rte_branch_prediction.h>
#include <rte_byteorder.h>

#define BE16(x) RTE_STATIC_BSWAP16((uint16_t)(x))

enum {
	PROTO_UDP = 17,
	PROTO_FRAGMENT = 44,
	PROTO_GRE = 47,
	ETH_TEB = 0x6558, // transparent Ethernet bridging, RFC 1701
	ETH_ERSPAN = 0x88be, // type I and II
	VXLAN_PORT = 4789,
	GENEVE_PORT = 6081,
	VXLAN_I = 0x08,
	GENEVE_CONTROL = 0x80, // of the second byte
	GENEVE_CRITICAL = 0x40,
	GRE_CHECKSUM = 0x80, // of the first byte
	GRE_KEY = 0x20,
	GRE_SEQUENCE = 0x10,
	GRE_RESERVED = 0x4f, // routing and what RFC 2784 section 2.3 wants a receiver to refuse
};

const struct tunnel_desc tunnel_desc[TUNNEL_HEADERS] = {
	[TUNNEL_VXLAN] = {"vxlan", PROTO_UDP, VXLAN_PORT, 8},
	[TUNNEL_GENEVE] = {"geneve", PROTO_UDP, GENEVE_PORT, 8},
	[TUNNEL_GRE] = {"gre", PROTO_GRE, 0, 8},
	[TUNNEL_ERSPAN] = {"erspan", PROTO_GRE, 0, 16},
};

uint16_t tunnel_reason_base;
struct tunnel_table *tunnel_table;
struct tunnel_way *tunnel_ways[MAX_PORTS];

static const struct reason reason_rows[] = {TUNNEL_REASONS(REASON_ROW)};

void tunnel_init(void)
{
	tunnel_reason_base = reason_register(reason_rows, TUNNEL_REASON_N);
}

int tunnel_format_find(const char *name)
{
	int f = 0;

	while (f < TUNNEL_FORMATS && strcmp(tunnel_desc[f].name, name))
		f++;
	return f;
}

static unsigned l4_header(enum tunnel_format f)
{
	return tunnel_desc[f].proto == PROTO_UDP ? 8 : 0;
}

unsigned tunnel_overhead(enum tunnel_format f, bool v6)
{
	return (v6 ? 40 : 20) + l4_header(f) + tunnel_desc[f].len + 14;
}

uint16_t tunnel_find_network(const struct tunnel_table *t, uint32_t key)
{
	for (uint32_t at = tunnel_hash_vni(key);; at++) {
		const struct tunnel_vni *v = &t->vni[at & t->vni_mask];

		if (!v->network || v->key == key)
			return v->network;
	}
}

uint16_t tunnel_find_remote(const struct tunnel_table *t, bool v6, const uint8_t *ip)
{
	uint8_t whole[16] = {0};

	memcpy(whole, ip, v6 ? 16 : 4);
	for (uint32_t at = tunnel_hash_remote(whole);; at++) {
		const struct tunnel_remote *r = &t->remote[at & t->remote_mask];

		if (!r->port || (r->v6 == v6 && !memcmp(r->ip, whole, 16)))
			return r->port;
	}
}

// ---- receive

static inline uint16_t get16(const uint8_t *b)
{
	return (uint16_t)(b[0] << 8 | b[1]);
}

static inline uint16_t load16(const uint8_t *b)
{
	uint16_t v;

	memcpy(&v, b, 2);
	return v;
}

static inline uint32_t load32(const uint8_t *b)
{
	uint32_t v;

	memcpy(&v, b, 4);
	return v;
}

static inline uint64_t load64(const uint8_t *b)
{
	uint64_t v;

	memcpy(&v, b, 8);
	return v;
}

static inline uint16_t fold(uint64_t sum)
{
	sum = (sum >> 32) + (sum & 0xffffffff);
	sum = (sum >> 16) + (sum & 0xffff);
	sum = (sum >> 16) + (sum & 0xffff);
	return (uint16_t)((sum >> 16) + (sum & 0xffff));
}

// Of `len` bytes, a multiple of four, at most 64; not folded.
static inline uint64_t sum_words(const uint8_t *b, unsigned len)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < len; i += 4)
		sum += load32(b + i);
	return sum;
}

// Whether `len` bytes at `ofs` sum up with what is in `pseudo`; RFC 1071.
static bool sums_up(const struct rte_mbuf *m, uint32_t ofs, uint32_t len, uint64_t pseudo)
{
	return fold(pseudo + offload_sum(m, ofs, len)) == 0xffff;
}

// The outer packet while it is looked at.
struct outer {
	const struct rte_mbuf *m;
	const uint8_t *d; // its first segment
	uint32_t have;    // bytes of that
	uint32_t l3, at;  // offsets: IP header, what is behind it
	uint32_t end;     // of the IP packet
	uint8_t proto;
	bool v6;
};

// `n` bytes at o->at can be read, or return.
#define NEED(o, n)                                                                                                     \
	do {                                                                                                           \
		if (unlikely((o)->at + (n) > (o)->end))                                                                \
			return TUNNEL_REASON(HEADER);                                                                  \
		if (unlikely((o)->at + (n) > (o)->have))                                                               \
			return TUNNEL_SPLIT;                                                                           \
	} while (0)

static uint64_t pseudo_header(const struct outer *o, uint32_t len)
{
	const uint8_t *ip = o->d + o->l3;

	return sum_words(ip + (o->v6 ? 8 : 12), o->v6 ? 32 : 8) + rte_cpu_to_be_16((uint16_t)len) + rte_cpu_to_be_16(o->proto);
}

// The UDP header; o->at goes behind it, o->end to its end.
static inline uint16_t open_udp(struct outer *o)
{
	const uint8_t *udp = o->d + o->at;
	uint32_t len = get16(udp + 4);

	if (unlikely(len < 8 || o->at + len > o->end))
		return TUNNEL_REASON(HEADER);
	uint64_t rx = o->m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;
	// Zero: there is none, with IPv6 too (RFC 6935). A guest that leaves it to its device (NONE, see parse_offload()) has it right.
	if (unlikely(load16(udp + 6)) && rx != RTE_MBUF_F_RX_L4_CKSUM_GOOD && rx != RTE_MBUF_F_RX_L4_CKSUM_NONE &&
	    !sums_up(o->m, o->at, len, pseudo_header(o, len)))
		return TUNNEL_REASON(CHECKSUM);
	o->end = o->at + len;
	o->at += 8;
	return 0;
}

static uint16_t open_geneve(struct outer *o, uint32_t *vni)
{
	const uint8_t *h = o->d + o->at;
	uint32_t options = (h[0] & 0x3fu) * 4;

	if (h[0] >> 6 || get16(h + 2) != ETH_TEB) // version, protocol
		return TUNNEL_REASON(HEADER);
	if (h[1] & (GENEVE_CONTROL | GENEVE_CRITICAL)) // RFC 8926 section 3.4: who doesn't know such an option must drop the packet
		return TUNNEL_REASON(CRITICAL);
	*vni = (uint32_t)h[4] << 16 | get16(h + 5);
	NEED(o, 8 + options);
	o->at += 8 + options;
	return 0;
}

static uint16_t open_gre(struct outer *o, uint32_t *vni)
{
	const uint8_t *h = o->d + o->at;
	unsigned len = 4;

	if ((h[0] & GRE_RESERVED) || h[1] || get16(h + 2) != ETH_TEB || !(h[0] & GRE_KEY))
		return TUNNEL_REASON(HEADER);
	unsigned key = h[0] & GRE_CHECKSUM ? 8 : 4;
	len = key + 4 + (h[0] & GRE_SEQUENCE ? 4 : 0);
	NEED(o, len);
	if ((h[0] & GRE_CHECKSUM) && !sums_up(o->m, o->at, o->end - o->at, 0)) // RFC 2784 section 2.1
		return TUNNEL_REASON(CHECKSUM);
	if (h[key]) // larger than any VNI
		return TUNNEL_REASON(UNKNOWN_VNI);
	*vni = (uint32_t)h[key + 1] << 16 | get16(h + key + 2);
	o->at += len;
	return 0;
}

// A fragment: ours if tunnels of the remote end point are. Which packet of it that is, the first one alone would say.
static uint16_t piece(const struct tunnel_table *t, const struct outer *o, const struct tunnel_packet *f)
{
	return (o->proto == PROTO_UDP || o->proto == PROTO_GRE) && tunnel_find_remote(t, o->v6, f->src) ? TUNNEL_PIECE : TUNNEL_OTHER;
}

static inline bool is_for(const struct tunnel_end *e, uint16_t network, const uint8_t *d)
{
	return e->network == network && load32(d) == load32(e->mac) && load16(d + 4) == load16(e->mac + 4);
}

// The IPv4 header. Anything that isn't quite right is left to whoever parses ordinary packets.
static inline uint16_t open_ipv4(const struct tunnel_table *t, uint16_t network, struct outer *o, struct tunnel_packet *f)
{
	const struct tunnel_end *e = &t->end[0];
	const uint8_t *ip = o->d + o->l3;

	if (unlikely(o->l3 + 20 > o->have))
		return o->have < o->m->pkt_len ? TUNNEL_SPLIT : TUNNEL_OTHER;
	if (load32(ip + 16) != load32(e->ip) || !is_for(e, network, o->d))
		return TUNNEL_OTHER;
	uint32_t len = (ip[0] & 15u) * 4, total = get16(ip + 2);
	uint16_t frag = load16(ip + 6);
	o->proto = ip[9];
	if (unlikely(ip[0] >> 4 != 4 || len < 20 || total < len || total > o->m->pkt_len - o->l3))
		return TUNNEL_OTHER;
	o->at = o->l3 + len;
	o->end = o->l3 + total;
	if (unlikely(o->at > o->have))
		return TUNNEL_SPLIT;
	f->src = ip + 12;
	f->tos = ip[1];
	return unlikely(frag & BE16(0x3fff)) ? piece(t, o, f) : 0;
}

// The same of IPv6. Extension headers: of a fragment only.
static inline uint16_t open_ipv6(const struct tunnel_table *t, uint16_t network, struct outer *o, struct tunnel_packet *f)
{
	const struct tunnel_end *e = &t->end[1];
	const uint8_t *ip = o->d + o->l3;

	if (unlikely(o->l3 + 48 > o->have))
		return o->have < o->m->pkt_len ? TUNNEL_SPLIT : TUNNEL_OTHER;
	if (load64(ip + 24) != load64(e->ip) || load64(ip + 32) != load64(e->ip + 8) || !is_for(e, network, o->d))
		return TUNNEL_OTHER;
	uint32_t payload = get16(ip + 4);
	o->proto = ip[6];
	o->at = o->l3 + 40;
	o->v6 = true;
	if (unlikely(ip[0] >> 4 != 6 || payload > o->m->pkt_len - o->at))
		return TUNNEL_OTHER;
	o->end = o->at + payload;
	f->src = ip + 8;
	f->tos = (uint8_t)(ip[0] << 4 | ip[1] >> 4);
	if (likely(o->proto != PROTO_FRAGMENT))
		return 0;
	o->proto = ip[40];
	return payload < 8 ? TUNNEL_OTHER : piece(t, o, f);
}

uint16_t tunnel_open(const struct tunnel_table *t, const struct lport *lp, const struct rte_mbuf *m, struct tunnel_packet *f)
{
	struct outer o = {.m = m, .d = rte_pktmbuf_mtod(m, const uint8_t *), .have = m->data_len, .l3 = 14};
	uint16_t network = lp->untagged.network, verdict;
	enum tunnel_format format = TUNNEL_VXLAN;
	uint32_t vni = 0;

	if (unlikely(o.have < 18))
		return o.have < m->pkt_len ? TUNNEL_SPLIT : TUNNEL_OTHER;
	uint16_t type = load16(o.d + 12);
	if (unlikely(type == BE16(0x8100) || type == BE16(0x88a8))) {
		network = lport_classify(lp, (uint16_t)(0x1000 | (get16(o.d + 14) & 0xfff))).network;
		type = load16(o.d + 16);
		o.l3 = 18;
	}
	if (likely(type == BE16(0x0800)))
		verdict = open_ipv4(t, network, &o, f);
	else if (type == BE16(0x86dd))
		verdict = open_ipv6(t, network, &o, f);
	else
		return TUNNEL_OTHER;
	if (verdict)
		return verdict;
	if (unlikely(o.at + 8 > o.end))
		return TUNNEL_OTHER;
	if (likely(o.proto == PROTO_UDP)) {
		NEED(&o, 8);
		uint16_t port = load16(o.d + o.at + 2);

		if (port == BE16(GENEVE_PORT))
			format = TUNNEL_GENEVE;
		else if (unlikely(port != BE16(VXLAN_PORT)))
			return TUNNEL_OTHER;
	} else if (o.proto == PROTO_GRE) {
		format = TUNNEL_GRE;
	} else {
		return TUNNEL_OTHER;
	}
	if (unlikely(m->ol_flags & RTE_MBUF_F_RX_LRO))
		return TUNNEL_OTHER;
	if (likely(!o.v6) && unlikely(fold(sum_words(o.d + o.l3, o.at - o.l3)) != 0xffff))
		return TUNNEL_REASON(CHECKSUM);
	if (likely(format != TUNNEL_GRE) && unlikely(verdict = open_udp(&o)))
		return verdict;
	NEED(&o, 8);
	if (likely(format == TUNNEL_VXLAN)) {
		if (unlikely(!(o.d[o.at] & VXLAN_I))) // RFC 7348 section 5; the other bits are ignored
			return TUNNEL_REASON(HEADER);
		vni = rte_be_to_cpu_32(load32(o.d + o.at + 4)) >> 8;
		o.at += 8;
	} else if (unlikely(verdict = format == TUNNEL_GENEVE ? open_geneve(&o, &vni) : open_gre(&o, &vni))) {
		return verdict;
	}
	if (unlikely(o.at + 14 > o.end))
		return TUNNEL_REASON(INNER);
	f->key = tunnel_key(format, vni);
	f->ofs = (uint16_t)o.at;
	f->len = o.end - o.at;
	f->v6 = o.v6;
	return TUNNEL_OURS;
}

// RFC 6040 figure 4. Combinations that it calls currently unused are forwarded as it says.
int tunnel_ecn(unsigned inner, unsigned outer)
{
	enum { NOT_ECT, ECT_1, ECT_0, CE };
	static const int8_t table[4][4] = {
		//              not-ECT  ECT(1)   ECT(0)   CE, outer
		[NOT_ECT] = {NOT_ECT, NOT_ECT, NOT_ECT, -1},
		[ECT_1] = {ECT_1, ECT_1, ECT_1, CE},
		[ECT_0] = {ECT_0, ECT_1, ECT_0, CE},
		[CE] = {CE, CE, CE, CE},
	};
	return table[inner & 3][outer & 3];
}

// ---- send

static void put16(uint8_t *b, unsigned v)
{
	b[0] = (uint8_t)(v >> 8);
	b[1] = (uint8_t)v;
}

// Behind the IP header. The last four bytes are the VNI's, or of ERSPAN the index, which has no meaning of its own.
static unsigned make_upper(uint8_t *b, enum tunnel_format f)
{
	unsigned at = l4_header(f);

	if (at)
		put16(b + 2, tunnel_desc[f].port);
	if (f == TUNNEL_VXLAN)
		b[at] = VXLAN_I;
	if (f == TUNNEL_GENEVE)
		put16(b + at + 2, ETH_TEB);
	if (f == TUNNEL_GRE) {
		b[at] = GRE_KEY;
		put16(b + at + 2, ETH_TEB);
	}
	if (f == TUNNEL_ERSPAN) { // with a sequence number; version 1 is type II
		b[0] = GRE_SEQUENCE;
		put16(b + 2, ETH_ERSPAN);
		b[8] = 0x10;
	}
	return at + tunnel_desc[f].len;
}

void tunnel_make_header(struct tunnel_header *h, const struct tunnel_spec *s)
{
	uint8_t b[TUNNEL_ROOM] = {0};
	unsigned at = 12;
	uint8_t tos = s->dscp < 0 ? 0 : (uint8_t)(s->dscp << 2);

	memset(h, 0, sizeof *h);
	memcpy(b, s->dst_mac, 6);
	memcpy(b + 6, s->src_mac, 6);
	if (s->vlan) {
		put16(b + at, 0x8100);
		put16(b + at + 2, s->vlan);
		at += 4;
	}
	put16(b + at, s->v6 ? 0x86dd : 0x0800);
	h->l3 = (uint8_t)(at + 2);
	uint8_t *ip = b + h->l3;
	if (s->v6) {
		put16(ip, 0x6000u | (unsigned)tos << 4);
		ip[6] = tunnel_desc[s->format].proto;
		ip[7] = s->ttl;
		memcpy(ip + 8, s->src, 16);
		memcpy(ip + 24, s->dst, 16);
		h->l4 = (uint8_t)(h->l3 + 40);
	} else {
		ip[0] = 0x45;
		put16(ip + 6, s->df ? 0x4000 : 0);
		ip[8] = s->ttl;
		ip[9] = tunnel_desc[s->format].proto;
		memcpy(ip + 12, s->src, 4);
		memcpy(ip + 16, s->dst, 4);
		h->l4 = (uint8_t)(h->l3 + 20);
		h->sum = fold(sum_words(ip, 20));
		ip[1] = tos;
	}
	h->len = (uint8_t)(h->l4 + make_upper(b + h->l4, s->format));
	memcpy(h->bytes + TUNNEL_ROOM - h->len, b, h->len);
	h->pseudo = fold(sum_words(ip + (s->v6 ? 8 : 12), s->v6 ? 32 : 8) + BE16(PROTO_UDP));
	h->out = s->out;
	h->network = s->network;
	h->limit = s->limit;
	h->v6 = s->v6;
	h->df = s->df || s->v6;
	h->udp = tunnel_desc[s->format].port != 0;
	h->checksum = s->checksum && h->udp;
	h->inherits = s->dscp < 0;
}
