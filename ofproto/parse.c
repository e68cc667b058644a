// parse: see parse.h.
#include "parse.h"

#include <errno.h>

uint16_t parse_reason_base;

#define DROP(p, name) ((p)->drop = (uint16_t)(parse_reason_base + parse_##name))

enum {
	ETH_VLAN = 0x8100,
	ETH_QINQ = 0x88a8,
	ETH_IPV4 = 0x0800,
	ETH_ARP = 0x0806,
	ETH_IPV6 = 0x86dd,
	ETH_SLOW = 0x8809, // IEEE 802.3 annex 57A: LACP
	ETH_LLDP = 0x88cc,
	ETH_LLC = 0x05ff,  // key for 802.2 frames, whose type field is a length
};

enum {
	IP_HOPOPTS = 0,
	IP_ICMP = 1,
	IP_IGMP = 2,
	IP_TCP = 6,
	IP_UDP = 17,
	IP_ROUTING = 43,
	IP_FRAGMENT = 44,
	IP_AH = 51,
	IP_ICMPV6 = 58,
	IP_NONE = 59,
	IP_DSTOPTS = 60,
	IP_SCTP = 132,
	IP_MOBILITY = 135,
	IP_HIP = 139,
	IP_SHIM6 = 140,
};

#define MAX_EXT 16     // extension headers; more is an attack on parsers
#define MAX_L3_LEN 511 // what an mbuf can say of the network header in its nine bits

struct cursor {
	const uint8_t *data;
	uint32_t have; // contiguous bytes
	uint32_t len;  // bytes of the frame
};

static inline uint16_t get16(const uint8_t *b)
{
	return (uint16_t)(b[0] << 8 | b[1]);
}

static const struct reason reason_rows[] = {PARSE_REASONS(REASON_ROW)};

void parse_init(void)
{
	parse_reason_base = reason_register(reason_rows, PARSE_REASON_N);
}

// Whether `n` bytes at `ofs` can be read: 1 yes, 0 the frame ends before, -EAGAIN they are in a later segment.
static inline int can_read(const struct cursor *c, uint32_t ofs, uint32_t n)
{
	if (likely(ofs + n <= c->have))
		return 1;
	return ofs + n <= c->len ? -EAGAIN : 0;
}

#define NEED(c, ofs, n, p, name)                                                                                       \
	do {                                                                                                           \
		int can_ = can_read(c, ofs, n);                                                                        \
		if (unlikely(can_ <= 0)) {                                                                             \
			if (can_ == 0)                                                                                 \
				DROP(p, name);                                                                         \
			return can_;                                                                                   \
		}                                                                                                      \
	} while (0)

static int parse_tcp(const struct cursor *c, struct pkt *p, struct flow_key *k, uint32_t left)
{
	uint32_t ofs = p->l4_ofs;

	if (unlikely(left < 20)) {
		DROP(p, TCP);
		return 0;
	}
	NEED(c, ofs, 20, p, TCP);
	const uint8_t *h = c->data + ofs;
	uint32_t len = (uint32_t)(h[12] >> 4) * 4;
	if (unlikely(len < 20 || (len > left && p->class != CLASS_FRAG_FIRST))) {
		DROP(p, TCP);
		return 0;
	}
	p->l4_len = (uint8_t)len;
	memcpy(&k->sport, h, 2);
	memcpy(&k->dport, h + 2, 2);
	if (p->class != CLASS_PLAIN)
		return 0;
	if (h[13] & 0x05) // FIN, RST
		p->class = CLASS_TCP_FIN_RST;
	else if (h[13] & 0x02)
		p->class = CLASS_TCP_SYN;
	return 0;
}

static int parse_udp(const struct cursor *c, struct pkt *p, struct flow_key *k, uint32_t left)
{
	uint32_t ofs = p->l4_ofs;

	if (unlikely(left < 8)) {
		DROP(p, UDP);
		return 0;
	}
	NEED(c, ofs, 8, p, UDP);
	const uint8_t *h = c->data + ofs;
	uint32_t len = get16(h + 4);
	if (unlikely((len < 8 || len > left) && p->class != CLASS_FRAG_FIRST)) {
		DROP(p, UDP);
		return 0;
	}
	p->l4_len = 8;
	memcpy(&k->sport, h, 2);
	memcpy(&k->dport, h + 2, 2);
	if (p->class != CLASS_PLAIN)
		return 0;
	uint16_t dport = get16(h + 2);
	if (unlikely(p->ethertype == ETH_IPV4 ? dport == 67 || dport == 68 : dport == 546 || dport == 547))
		p->class = CLASS_DHCP;
	return 0;
}

static int parse_icmp(const struct cursor *c, struct pkt *p, struct flow_key *k, uint32_t left)
{
	uint32_t ofs = p->l4_ofs, min = p->proto == IP_ICMP ? 8 : 4;

	if (unlikely(left < min)) {
		DROP(p, ICMP);
		return 0;
	}
	NEED(c, ofs, 4, p, ICMP);
	uint8_t type = c->data[ofs], code = c->data[ofs + 1];
	p->l4_len = (uint8_t)min;
	k->sport = rte_cpu_to_be_16(type);
	k->dport = rte_cpu_to_be_16(code);
	if (p->class != CLASS_PLAIN)
		return 0;
	if (p->proto == IP_ICMP) {
		if (type == 3 || type == 4 || type == 5 || type == 11 || type == 12)
			p->class = CLASS_ICMP_ERROR;
	} else if (type < 128) {
		p->class = CLASS_ICMP_ERROR;
	} else if (type >= 133 && type <= 137) {
		p->class = CLASS_ND;
	} else if (type == 131 || type == 132 || type == 143) {
		p->class = CLASS_GROUP;
	} else if (type == 130) {
		p->class = CLASS_GROUP_QUERY;
	}
	return 0;
}

// Reports and leaves go another way than queries and what nobody knows (RFC 4541 section 2.1.1). A message without a first byte is nobody's.
static int parse_igmp(const struct cursor *c, struct pkt *p, uint32_t left)
{
	int can = left ? can_read(c, p->l4_ofs, 1) : 0;

	if (can < 0)
		return can;
	uint8_t type = can ? c->data[p->l4_ofs] : 0;
	if (p->class == CLASS_PLAIN)
		p->class = type == 0x12 || type == 0x16 || type == 0x17 || type == 0x22 ? CLASS_GROUP : CLASS_GROUP_QUERY;
	return 0;
}

// Transport header at p->l4_ofs; `left`: bytes of the IP packet from there.
static int parse_l4(const struct cursor *c, struct pkt *p, struct flow_key *k, uint32_t left)
{
	switch (p->proto) {
	case IP_TCP:
		return parse_tcp(c, p, k, left);
	case IP_UDP:
		return parse_udp(c, p, k, left);
	case IP_ICMP:
	case IP_ICMPV6: // either is the other family's unknown protocol
		return (p->proto == IP_ICMP) == (p->ethertype == ETH_IPV4) ? parse_icmp(c, p, k, left) : 0;
	case IP_SCTP:
		if (left < 12) {
			DROP(p, SCTP);
			return 0;
		}
		NEED(c, p->l4_ofs, 12, p, SCTP);
		memcpy(&k->sport, c->data + p->l4_ofs, 2);
		memcpy(&k->dport, c->data + p->l4_ofs + 2, 2);
		p->l4_len = 12;
		return 0;
	case IP_IGMP:
		return parse_igmp(c, p, left);
	default:
		return 0;
	}
}

static int parse_ipv4(const struct cursor *c, struct pkt *p, struct flow_key *k, bool gso)
{
	uint32_t ofs = p->l3_ofs;

	NEED(c, ofs, 20, p, IPV4_HEADER);
	const uint8_t *h = c->data + ofs;
	uint32_t hdr = (uint32_t)(h[0] & 15) * 4, total = get16(h + 2);
	if (unlikely(h[0] >> 4 != 4 || hdr < 20)) {
		DROP(p, IPV4_HEADER);
		return 0;
	}
	NEED(c, ofs, hdr, p, IPV4_HEADER);
	if (unlikely(total == 0 && gso && c->len - ofs > 0xffff))
		total = 0xffff; // BIG TCP has no room for its length; what follows needs only "large"
	if (unlikely(total < hdr || total > c->len - ofs)) {
		DROP(p, IPV4_LENGTH);
		return 0;
	}
	p->l3_len = (uint16_t)total;
	p->proto = h[9];
	k->proto = h[9];
	k->tos = h[1] & 0xfc;
	memcpy(&k->v4.src, h + 12, 8);
	uint16_t frag = get16(h + 6);
	if (unlikely(frag & 0x1fff)) { // RFC 791: fragment offset; there is no transport header here
		p->class = CLASS_FRAG_LATER;
		return 0;
	}
	if (unlikely(frag & 0x2000))
		p->class = CLASS_FRAG_FIRST;
	p->l4_ofs = (uint16_t)(ofs + hdr);
	int rc = parse_l4(c, p, k, total - hdr);
	if (unlikely(rc || p->drop))
		return rc;
	if (p->class == CLASS_PLAIN) {
		if (unlikely(hdr > 20))
			p->class = CLASS_OPTIONS;
		else if (unlikely(h[8] <= 1))
			p->class = CLASS_TTL;
	}
	return 0;
}

// Walks the extension headers (RFC 8200 section 4) from `next` at *at. Sets p->proto, p->class; *at: where the upper layer begins.
static int parse_ipv6_ext(const struct cursor *c, struct pkt *p, uint32_t *at, uint32_t end, uint8_t next, bool *options)
{
	uint32_t ofs = *at;

	for (int i = 0; i < MAX_EXT; i++) {
		uint32_t len;

		switch (next) {
		case IP_HOPOPTS:
		case IP_ROUTING:
			*options = true;
			// fallthrough
		case IP_DSTOPTS:
		case IP_MOBILITY:
		case IP_HIP:
		case IP_SHIM6:
			NEED(c, ofs, 8, p, IPV6_EXT);
			len = (uint32_t)(c->data[ofs + 1] + 1) * 8;
			break;
		case IP_AH: // RFC 4302: in units of 4 bytes, less 2
			NEED(c, ofs, 8, p, IPV6_EXT);
			len = (uint32_t)(c->data[ofs + 1] + 2) * 4;
			break;
		case IP_FRAGMENT:
			NEED(c, ofs, 8, p, IPV6_EXT);
			len = 8;
			if (get16(c->data + ofs + 2) & 0xfff8)
				p->class = CLASS_FRAG_LATER;
			else if (c->data[ofs + 3] & 1)
				p->class = CLASS_FRAG_FIRST;
			break;
		default:
			p->proto = next;
			*at = ofs;
			return 0;
		}
		if (ofs + len > end) {
			DROP(p, IPV6_EXT);
			return 0;
		}
		next = c->data[ofs];
		ofs += len;
		if (p->class == CLASS_FRAG_LATER) { // what follows is the middle of something
			p->proto = next;
			*at = 0;
			return 0;
		}
	}
	DROP(p, IPV6_EXT);
	return 0;
}

static int parse_ipv6(const struct cursor *c, struct pkt *p, struct flow_key *k, bool gso)
{
	uint32_t ofs = p->l3_ofs;

	NEED(c, ofs, 40, p, IPV6_HEADER);
	const uint8_t *h = c->data + ofs;
	uint32_t payload = get16(h + 4);
	if (unlikely(h[0] >> 4 != 6)) {
		DROP(p, IPV6_HEADER);
		return 0;
	}
	if (unlikely(payload == 0 && (gso || h[6] == IP_HOPOPTS))) // RFC 2675 jumbogram, BIG TCP
		payload = c->len - ofs - 40;
	if (unlikely(payload > c->len - ofs - 40)) {
		DROP(p, IPV6_LENGTH);
		return 0;
	}
	p->l3_len = (uint16_t)(payload + 40 > 0xffff ? 0xffff : payload + 40);
	k->tos = (uint8_t)((h[0] << 4 | h[1] >> 4) & 0xfc);
	memcpy(&k->v6, h + 8, 32);
	uint32_t at = ofs + 40;
	bool options = false;
	int rc = parse_ipv6_ext(c, p, &at, ofs + 40 + payload, h[6], &options);
	if (unlikely(rc || p->drop))
		return rc;
	k->proto = p->proto;
	if (at) {
		p->l4_ofs = (uint16_t)at;
		rc = parse_l4(c, p, k, ofs + 40 + payload - at);
		if (unlikely(rc || p->drop))
			return rc;
	}
	if (p->class == CLASS_PLAIN) {
		if (unlikely(options))
			p->class = CLASS_OPTIONS;
		else if (unlikely(h[7] <= 1))
			p->class = CLASS_TTL;
	}
	return 0;
}

static int parse_arp(const struct cursor *c, struct pkt *p, struct flow_key *k)
{
	static const uint8_t ethernet_ipv4[6] = {0, 1, 8, 0, 6, 4};
	uint32_t ofs = p->l3_ofs;

	p->l3_ofs = 0; // not IP
	NEED(c, ofs, 28, p, ARP);
	const uint8_t *h = c->data + ofs;
	if (unlikely(memcmp(h, ethernet_ipv4, 6))) {
		DROP(p, ARP);
		return 0;
	}
	p->class = CLASS_ARP;
	k->proto = h[7];
	memcpy(&k->v4.src, h + 14, 4);
	memcpy(&k->v4.dst, h + 24, 4);
	return 0;
}

// The library and devices say what the packet needs in RX flags; egress wants it in TX flags with header lengths.
void parse_offload(struct rte_mbuf *m, struct pkt *p)
{
	uint64_t rx = m->ol_flags;
	bool tcp = p->proto == IP_TCP && p->l4_ofs, udp = p->proto == IP_UDP && p->l4_ofs;
	uint16_t segsz = m->tso_segsz;

	m->ol_flags &= ~(uint64_t)(RTE_MBUF_F_RX_L4_CKSUM_MASK | RTE_MBUF_F_RX_IP_CKSUM_MASK | RTE_MBUF_F_RX_LRO);
	m->tx_offload = 0;
	if (p->class == CLASS_FRAG_LATER || p->class == CLASS_FRAG_FIRST) {
		DROP(p, CSUM);
		return;
	}
	if ((!tcp && !udp) || p->l4_ofs - p->l3_ofs > MAX_L3_LEN) {
		// The vhost library leaves SCTP to us too; its checksum is a CRC that no guest here is offered.
		p->drop = (uint16_t)(parse_reason_base + (rx & RTE_MBUF_F_RX_LRO ? parse_GSO : parse_CSUM));
		return;
	}
	m->l2_len = p->l3_ofs;
	m->l3_len = (uint64_t)(p->l4_ofs - p->l3_ofs);
	m->l4_len = p->l4_len;
	m->ol_flags |= p->ethertype == ETH_IPV4 ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6;
	m->ol_flags |= tcp ? RTE_MBUF_F_TX_TCP_CKSUM : RTE_MBUF_F_TX_UDP_CKSUM;
	if (!(rx & RTE_MBUF_F_RX_LRO))
		return;
	uint32_t headers = m->l3_len + m->l4_len;
	if (!tcp || segsz < PARSE_MIN_SEGMENT) {
		DROP(p, GSO);
		return;
	}
	if (m->pkt_len - m->l2_len <= headers + segsz)
		return; // one segment: nothing to cut
	m->tso_segsz = segsz;
	m->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
	p->seg_len = headers + segsz;
}

int parse(struct rte_mbuf *m, struct flow_key *k)
{
	struct pkt *p = pkt_of(m);
	struct cursor c = {rte_pktmbuf_mtod(m, const uint8_t *), m->data_len, m->pkt_len};
	bool offload = parse_wants_offload(m);
	bool gso = m->ol_flags & (RTE_MBUF_F_RX_LRO | RTE_MBUF_F_TX_TCP_SEG); // TX: parsed before, it waited to be resolved

	memset(k, 0, sizeof *k);
	k->port = p->in_port;
	NEED(&c, 0, 14, p, RUNT);
	memcpy(k->dst, c.data, 12); // destination and source
	uint32_t ofs = 12;
	uint16_t type = get16(c.data + ofs);
	uint8_t n_tags = 0; // not in p yet: if the next tag is in a later segment, all of this is done again
	while (unlikely((type == ETH_VLAN || type == ETH_QINQ) && n_tags < 2)) {
		NEED(&c, ofs, 6, p, VLAN);
		uint16_t tci = get16(c.data + ofs + 2), vlan = (uint16_t)(0x1000 | (tci & 0xfff));
		if (n_tags++ == 0) {
			p->tci = tci;
			k->vlan = vlan;
		} else {
			k->cvlan = vlan;
		}
		ofs += 4;
		type = get16(c.data + ofs);
	}
	ofs += 2;
	p->n_tags = n_tags;
	p->ethertype = type < 0x600 ? ETH_LLC : type;
	k->ethertype = rte_cpu_to_be_16(p->ethertype);
	p->l3_ofs = (uint8_t)ofs;
	p->l3_len = (uint16_t)(m->pkt_len - ofs > 0xffff ? 0xffff : m->pkt_len - ofs);
	p->seg_len = m->pkt_len - ofs;
	if (unlikely(m->ol_flags & RTE_MBUF_F_TX_TCP_SEG))
		p->seg_len = (uint32_t)(m->l3_len + m->l4_len + m->tso_segsz);
	int rc = 0;
	if (likely(type == ETH_IPV4))
		rc = parse_ipv4(&c, p, k, gso);
	else if (type == ETH_IPV6)
		rc = parse_ipv6(&c, p, k, gso);
	else if (type == ETH_ARP)
		rc = parse_arp(&c, p, k);
	else
		p->l3_ofs = 0;
	if (unlikely(rc)) {
		p->n_tags = 0; // as it came: the caller tries again
		p->class = CLASS_PLAIN;
		p->l4_ofs = 0;
		return rc;
	}
	static const uint8_t reserved[5] = {0x01, 0x80, 0xc2, 0, 0};
	if (unlikely((!memcmp(k->dst, reserved, 5) && k->dst[5] < 0x10) || type == ETH_LLDP || type == ETH_SLOW))
		p->class = CLASS_LINK;
	k->class = p->class;
	if (unlikely(offload && !p->drop))
		parse_offload(m, p);
	return 0;
}

int parse_frame(const uint8_t *frame, unsigned have, unsigned len, uint16_t port, struct parsed_frame *v)
{
	memset(v, 0, sizeof *v);
	v->m.buf_addr = (void *)(uintptr_t)frame; // it is only read
	v->m.data_len = have > UINT16_MAX ? UINT16_MAX : (uint16_t)have;
	v->m.pkt_len = len;
	v->m.nb_segs = 1;
	v->m.priv_size = sizeof v->pkt;
	v->pkt.in_port = port;
	return parse(&v->m, &v->key) || v->pkt.drop ? -EINVAL : 0;
}

uint32_t parse_flow_hash(struct rte_mbuf *m)
{
	struct pkt *p = pkt_of(m);

	if (p->hash)
		return p->hash;
	const uint8_t *data = rte_pktmbuf_mtod(m, const uint8_t *);
	bool fragment = p->class == CLASS_FRAG_FIRST || p->class == CLASS_FRAG_LATER;
	bool ports = !fragment && p->l4_len && (p->proto == IP_TCP || p->proto == IP_UDP || p->proto == IP_SCTP);
	// A later fragment doesn't show which protocol comes behind destination options in the first one.
	struct flow_key k = {.proto = fragment ? 0 : p->proto};
	if (p->l3_ofs && p->ethertype == ETH_IPV4 && m->data_len >= p->l3_ofs + 20)
		memcpy(&k.v4, data + p->l3_ofs + 12, 8);
	else if (p->l3_ofs && p->ethertype == ETH_IPV6 && m->data_len >= p->l3_ofs + 40)
		memcpy(&k.v6, data + p->l3_ofs + 8, 32);
	else if (m->data_len >= 12)
		memcpy(k.dst, data, 12);
	if (ports && m->data_len >= p->l4_ofs + 4)
		memcpy(&k.sport, data + p->l4_ofs, 4);
	p->hash = (uint32_t)(key_hash(&k, KEY_LEN_V6) >> 32) | 1;
	return p->hash;
}

const char *traffic_class_name(enum traffic_class c)
{
	static const char *const names[CLASS_N] = {
		[CLASS_PLAIN] = "plain",
		[CLASS_ARP] = "arp",
		[CLASS_ND] = "nd",
		[CLASS_DHCP] = "dhcp",
		[CLASS_GROUP] = "igmp/mld",
		[CLASS_GROUP_QUERY] = "igmp/mld-query",
		[CLASS_LINK] = "lacp/lldp",
		[CLASS_ICMP_ERROR] = "icmp-error",
		[CLASS_FRAG_FIRST] = "first-fragment",
		[CLASS_FRAG_LATER] = "later-fragment",
		[CLASS_TCP_SYN] = "tcp-syn",
		[CLASS_TCP_FIN_RST] = "tcp-fin/rst",
		[CLASS_TTL] = "ttl<=1",
		[CLASS_OPTIONS] = "ip-options",
	};
	return c < CLASS_N ? names[c] : "?";
}
