// respond: see respond.h.
#include "respond.h"
#include "offload.h"
#include "parse.h"
#include "trace.h"
#include "worker.h"

#include <errno.h>
#include <string.h>
#include <rte_ip.h>

enum {
	ETH_ARP = 0x0806,
	ARP_LEN = 28,
	ARP_OP = 6,
	ARP_SHA = 8,
	ARP_SPA = 14,
	ARP_THA = 18,
	ARP_TPA = 24,
};

enum {
	IP4 = 20, // bytes of a header without options
	IP6 = 40,
	ICMP = 8,
	PROTO_ICMP = 1,
	PROTO_ICMPV6 = 58,
	PROTO_ROUTING = 43,
	PROTO_FRAGMENT = 44,
	PROTO_AH = 51,
	HOPS = 64,
	HOPS_LINK = 255,       // of neighbour discovery (RFC 4861 section 4)
	TOS_CONTROL = 0xc0,    // precedence of ICMP errors (RFC 1812 4.3.2.5)
};

enum {
	ECHO_REPLY = 0,
	UNREACHABLE = 3,
	REDIRECT = 5,
	ECHO_REQUEST = 8,
	TIME_EXCEEDED = 11,
	PARAMETER = 12,
	UNREACHABLE_V6 = 1,
	TOO_BIG_V6 = 2,
	TIME_EXCEEDED_V6 = 3,
	PARAMETER_V6 = 4,
	ECHO_REQUEST_V6 = 128,
	ECHO_REPLY_V6 = 129,
	SOLICIT = 135,
	ADVERTISE = 136,
	REDIRECT_V6 = 137,
};

// Layer 3 of the whole error (RFC 1812 4.3.2.3, RFC 4443 2.4(c)).
#define ERROR_MAX 576
#define ERROR_MAX_V6 1280

static const struct {
	uint8_t type, code, type6, code6;
} errors[RESPOND_ERRORS] = {
	[RESPOND_TTL] = {TIME_EXCEEDED, 0, TIME_EXCEEDED_V6, 0},
	[RESPOND_REASSEMBLY] = {TIME_EXCEEDED, 1, TIME_EXCEEDED_V6, 1},
	[RESPOND_NET_UNREACHABLE] = {UNREACHABLE, 0, UNREACHABLE_V6, 0},
	[RESPOND_HOST_UNREACHABLE] = {UNREACHABLE, 1, UNREACHABLE_V6, 3},
	[RESPOND_PROTO_UNREACHABLE] = {UNREACHABLE, 2, PARAMETER_V6, 1},
	[RESPOND_PORT_UNREACHABLE] = {UNREACHABLE, 3, UNREACHABLE_V6, 4},
	[RESPOND_PROHIBITED] = {UNREACHABLE, 13, UNREACHABLE_V6, 1},
	[RESPOND_BEYOND_SCOPE] = {UNREACHABLE, 0, UNREACHABLE_V6, 2},
	[RESPOND_TOO_BIG] = {UNREACHABLE, 4, TOO_BIG_V6, 0},
	[RESPOND_PARAMETER] = {PARAMETER, 0, PARAMETER_V6, 0},
};

static void put16(uint8_t *b, uint32_t v)
{
	b[0] = (uint8_t)(v >> 8);
	b[1] = (uint8_t)v;
}

static void put32(uint8_t *b, uint32_t v)
{
	put16(b, v >> 16);
	put16(b + 2, v);
}

static uint8_t *data_of(struct rte_mbuf *m)
{
	return rte_pktmbuf_mtod(m, uint8_t *);
}

// A checksum field whose 16 bits are `was` now becomes what it is when the covered words `old` are `new` (RFC 1624); a wrong one stays wrong.
static void adjust(uint8_t *field, const uint8_t *old, const uint8_t *new, unsigned len)
{
	uint32_t sum = (uint16_t)~(field[0] << 8 | field[1]);

	for (unsigned i = 0; i < len; i += 2)
		sum += (uint16_t)~(old[i] << 8 | old[i + 1]) + (uint32_t)(new[i] << 8 | new[i + 1]);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	put16(field, (uint16_t)~sum);
}

static void finish_ip4(uint8_t *ip, unsigned header)
{
	memset(ip + 10, 0, 2);
	uint16_t sum = (uint16_t)~rte_raw_cksum(ip, header);
	memcpy(ip + 10, &sum, 2);
}

// The ICMP message of `len` bytes at `l4`, to the end of the packet.
static void finish_icmp(struct rte_mbuf *m, uint32_t l4, uint32_t len)
{
	uint8_t *field = data_of(m) + l4 + 2;

	memset(field, 0, 2);
	uint16_t sum = (uint16_t)~offload_sum(m, l4, len);
	memcpy(field, &sum, 2);
}

// `ip`: a header of IPv6 without extensions, addresses and all.
static void finish_icmp6(struct rte_mbuf *m, uint32_t l3, uint32_t len)
{
	uint8_t pseudo[IP6] = {0}, *field = data_of(m) + l3 + IP6 + 2;

	memcpy(pseudo, data_of(m) + l3 + 8, 32);
	put32(pseudo + 32, len);
	pseudo[39] = PROTO_ICMPV6;
	memset(field, 0, 2);
	uint32_t sum = (uint32_t)rte_raw_cksum(pseudo, sizeof pseudo) + offload_sum(m, l3 + IP6, len);
	uint16_t folded = (uint16_t)~((sum & 0xffff) + (sum >> 16));
	memcpy(field, &folded, 2);
}

static void swap_ethernet(uint8_t *d, const uint8_t mac[6])
{
	memcpy(d, d + 6, 6);
	memcpy(d + 6, mac, 6);
}

// The bytes are those of another packet now.
static void parse_again(struct rte_mbuf *m)
{
	struct pkt *p = pkt_of(m);
	struct flow_key key;

	m->ol_flags &= RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL;
	m->tx_offload = 0;
	p->class = CLASS_PLAIN;
	p->proto = p->l4_len = 0;
	p->l4_ofs = 0;
	p->hash = 0;
	parse(m, &key);
}

// The frame ends after `len` bytes, all that is to be in front of them being contiguous. False: no room, untouched.
static bool set_len(struct rte_mbuf *m, uint32_t len)
{
	if (m->pkt_len > len)
		pkt_truncate(m, len);
	return m->pkt_len == len || rte_pktmbuf_append(m, (uint16_t)(len - m->pkt_len));
}

static bool is_v6(const struct pkt *p)
{
	return p->ethertype == 0x86dd;
}

// Layer 3 is there, with a header of its family, and the frame comes from one station.
static bool has_ip(const struct rte_mbuf *m, const struct pkt *p)
{
	uint32_t fixed = p->ethertype == 0x0800 ? IP4 : is_v6(p) ? IP6 : 0;

	return p->l3_ofs && fixed && !p->drop && m->data_len >= p->l3_ofs + fixed && p->l3_len >= fixed && !(pkt_data(p)[6] & 1);
}

// An address that no single station has, or none that a packet may come from (RFC 1812 5.3.7, RFC 4443 2.4(e.6)).
static bool bad_source(bool v6, const uint8_t *ip)
{
	static const uint8_t zero[15];

	if (!v6)
		return ip[0] == 0 || ip[0] == 127 || ip[0] >= 224;
	return ip[0] == 0xff || (!memcmp(ip, zero, 15) && ip[15] <= 1);
}

static bool is_group(bool v6, const uint8_t *ip)
{
	return v6 ? ip[0] == 0xff : ip[0] >= 224;
}

int respond_arp(struct rte_mbuf *m, const uint8_t mac[6])
{
	struct pkt *p = pkt_of(m);
	uint32_t ofs = 14u + 4u * p->n_tags;
	uint8_t *d = data_of(m), *arp = d + ofs, asker[10];

	if (p->ethertype != ETH_ARP || p->drop || m->data_len < ofs + ARP_LEN || (d[6] & 1) || arp[ARP_OP] || arp[ARP_OP + 1] != 1)
		return -EINVAL;
	memcpy(asker, arp + ARP_SHA, 10);
	arp[ARP_OP + 1] = 2;
	memcpy(arp + ARP_SHA, mac, 6);
	memcpy(arp + ARP_SPA, arp + ARP_TPA, 4);
	memcpy(arp + ARP_THA, asker, 10);
	swap_ethernet(d, mac);
	parse_again(m);
	return 0;
}

// RFC 4861 section 7.1.1.
static bool valid_solicitation(struct rte_mbuf *m, const struct pkt *p)
{
	if (!has_ip(m, p) || !is_v6(p) || p->proto != PROTO_ICMPV6 || !p->l4_len || p->class == CLASS_FRAG_FIRST)
		return false;
	const uint8_t *ip = pkt_data(p) + p->l3_ofs, *icmp = pkt_data(p) + p->l4_ofs;
	uint32_t len = (uint32_t)p->l3_ofs + p->l3_len - p->l4_ofs;
	bool nobody = bad_source(true, ip + 8);
	static const uint8_t solicited[13] = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0xff};

	if (len < 24 || m->data_len < p->l4_ofs + 24 || icmp[0] != SOLICIT || icmp[1] || ip[7] != HOPS_LINK || icmp[8] == 0xff)
		return false;
	if (nobody && (ip[8] == 0xff || ip[23] || memcmp(ip + 24, solicited, 13)))
		return false;
	uint8_t pseudo[8] = {0, 0, (uint8_t)(len >> 8), (uint8_t)len, 0, 0, 0, PROTO_ICMPV6};
	uint32_t sum = (uint32_t)rte_raw_cksum(pseudo, 8) + rte_raw_cksum(ip + 8, 32) + offload_sum(m, p->l4_ofs, len);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	if (sum != 0xffff)
		return false;
	for (uint32_t at = 24; at < len;) {
		uint8_t copy[2];
		const uint8_t *o = len - at < 8 ? NULL : rte_pktmbuf_read(m, p->l4_ofs + at, 2, copy);

		if (!o || !o[1] || o[1] * 8u > len - at || (nobody && o[0] == 1))
			return false;
		at += o[1] * 8u;
	}
	return true;
}

int respond_neighbour(struct rte_mbuf *m, const uint8_t mac[6], bool router)
{
	static const uint8_t all_nodes[16] = {0xff, 0x02, [15] = 1}, all_nodes_mac[6] = {0x33, 0x33, 0, 0, 0, 1};
	enum { LEN = 32 }; // with the target's link-layer address
	struct pkt *p = pkt_of(m);
	uint8_t target[16], asker[16];

	if (!valid_solicitation(m, p) || m->data_len < RTE_MIN(m->pkt_len, (uint32_t)p->l3_ofs + IP6 + LEN))
		return -EINVAL;
	bool nobody = bad_source(true, pkt_data(p) + p->l3_ofs + 8);
	memcpy(target, pkt_data(p) + p->l4_ofs + 8, 16);
	memcpy(asker, nobody ? all_nodes : pkt_data(p) + p->l3_ofs + 8, 16);
	if (!set_len(m, p->l3_ofs + IP6 + LEN))
		return -ENOSPC;
	uint8_t *ip = data_of(m) + p->l3_ofs, *icmp = ip + IP6;
	put32(ip, 0x60000000);
	put16(ip + 4, LEN);
	ip[6] = PROTO_ICMPV6;
	ip[7] = HOPS_LINK;
	memcpy(ip + 8, target, 16);
	memcpy(ip + 24, asker, 16);
	memset(icmp, 0, LEN);
	icmp[0] = ADVERTISE;
	icmp[4] = (uint8_t)((router ? 0x80 : 0) | (nobody ? 0 : 0x40) | 0x20); // router, solicited, override
	memcpy(icmp + 8, target, 16);
	icmp[24] = 2; // target link-layer address
	icmp[25] = 1;
	memcpy(icmp + 26, mac, 6);
	finish_icmp6(m, p->l3_ofs, LEN);
	swap_ethernet(data_of(m), mac);
	if (nobody)
		memcpy(data_of(m), all_nodes_mac, 6);
	parse_again(m);
	return 0;
}

// Takes `n` bytes out in front of `keep`, which is an offset of the frame.
static void close_gap(struct rte_mbuf *m, uint32_t keep, uint32_t n)
{
	memmove(data_of(m) + n, data_of(m), keep - n);
	rte_pktmbuf_adj(m, (uint16_t)n);
}

// What of the options `from` (len bytes) goes back with an answer of `src`: a route that is recorded, with this hop (RFC 1122 3.2.2.6). Returns the bytes
// written, a multiple of four; -EPERM: routed by its source.
static int answer_options(const uint8_t *from, unsigned len, const uint8_t *src, uint8_t to[40])
{
	unsigned n = 0;

	for (unsigned at = 0; at < len && from[at];) {
		if (from[at] == 1) { // no operation
			at++;
			continue;
		}
		if (at + 2 > len || from[at + 1] < 2 || from[at + 1] > len - at)
			return -EINVAL;
		unsigned size = from[at + 1];
		if (from[at] == 131 || from[at] == 137) // loose, strict source route
			return -EPERM;
		if (from[at] == 7 && size >= 3 && !n) {
			memcpy(to, from + at, size);
			if (to[2] >= 4 && to[2] + 3u <= size) {
				memcpy(to + to[2] - 1, src, 4);
				to[2] = (uint8_t)(to[2] + 4);
			}
			for (n = size; n % 4;)
				to[n++] = 0;
		}
		at += size;
	}
	return (int)n;
}

static int echo4(struct rte_mbuf *m, struct pkt *p, const uint8_t *src)
{
	uint8_t *ip = data_of(m) + p->l3_ofs, *icmp = data_of(m) + p->l4_ofs, options[40] = {0}, new[2] = {ECHO_REPLY, 0}, old[2];
	unsigned header = (ip[0] & 15u) * 4;
	uint32_t l4_len = p->l3_len - header;
	int n = answer_options(ip + IP4, header - IP4, src, options);

	if (n < 0)
		return n;
	memcpy(old, icmp, 2);
	adjust(icmp + 2, old, new, 2);
	if (!icmp[2] && !icmp[3])
		put16(icmp + 2, 0xffff); // the same, and right for a message that is nothing but zeros
	memcpy(icmp, new, 2);
	memcpy(ip + 16, ip + 12, 4);
	memcpy(ip + 12, src, 4);
	memcpy(ip + IP4, options, (size_t)n);
	ip[0] = (uint8_t)(0x40 | (IP4 + n) / 4);
	ip[1] &= 0xfc;
	put16(ip + 2, IP4 + (uint32_t)n + l4_len);
	ip[8] = HOPS;
	finish_ip4(ip, IP4 + (unsigned)n);
	if (header > IP4 + (unsigned)n)
		close_gap(m, p->l4_ofs, header - IP4 - (unsigned)n);
	return 0;
}

// Whether it is still on its way through the routers of a routing header. Extension headers are contiguous, or parse() would have said so.
static bool on_its_way(const struct pkt *p)
{
	const uint8_t *d = pkt_data(p);
	uint8_t next = d[p->l3_ofs + 6];

	for (unsigned at = p->l3_ofs + (unsigned)IP6; at + 8 <= p->l4_ofs;) {
		const uint8_t *h = d + at;

		if (next == PROTO_ROUTING && h[3])
			return true;
		at += next == PROTO_FRAGMENT ? 8 : next == PROTO_AH ? (h[1] + 2u) * 4 : (h[1] + 1u) * 8;
		next = h[0];
	}
	return false;
}

static int echo6(struct rte_mbuf *m, struct pkt *p, const uint8_t *src)
{
	uint8_t *ip = data_of(m) + p->l3_ofs, *icmp = data_of(m) + p->l4_ofs, new[2] = {ECHO_REPLY_V6, 0}, old[2];
	uint32_t l4_len = (uint32_t)p->l3_ofs + p->l3_len - p->l4_ofs, gap = (uint32_t)p->l4_ofs - p->l3_ofs - IP6;

	if (on_its_way(p))
		return -EPERM;
	memcpy(old, icmp, 2);
	adjust(icmp + 2, old, new, 2);
	memcpy(icmp, new, 2);
	adjust(icmp + 2, ip + 24, src, 16);
	memcpy(ip + 24, ip + 8, 16);
	memcpy(ip + 8, src, 16);
	ip[1] &= 0xc0; // no congestion was met, and the flow label is the other side's
	memset(ip + 2, 0, 2);
	put16(ip + 4, l4_len);
	ip[6] = PROTO_ICMPV6;
	ip[7] = HOPS;
	if (gap)
		close_gap(m, p->l4_ofs, gap);
	return 0;
}

int respond_echo(struct rte_mbuf *m, const uint8_t mac[6], const struct config_ip *src)
{
	struct pkt *p = pkt_of(m);
	bool v6 = is_v6(p);

	if (!has_ip(m, p) || p->proto != (v6 ? PROTO_ICMPV6 : PROTO_ICMP) || !p->l4_len || p->class == CLASS_FRAG_FIRST || (src && src->v6 != v6))
		return -EINVAL;
	uint32_t end = (uint32_t)p->l3_ofs + p->l3_len;
	const uint8_t *ip = pkt_data(p) + p->l3_ofs, *icmp = pkt_data(p) + p->l4_ofs, *dst = ip + (v6 ? 24 : 16);
	if (icmp[0] != (v6 ? ECHO_REQUEST_V6 : ECHO_REQUEST) || icmp[1] || m->data_len < p->l4_ofs + 4u || end < p->l4_ofs + 8u)
		return -EINVAL;
	if (bad_source(v6, ip + (v6 ? 8 : 12)) || (!src && is_group(v6, dst)))
		return -EPERM;
	uint8_t from[16];
	memcpy(from, src ? src->b : dst, v6 ? 16 : 4);
	int rc = v6 ? echo6(m, p, from) : echo4(m, p, from);
	if (rc)
		return rc;
	// The padding of a short frame is behind the packet, whose end moved with its headers.
	uint32_t len = p->l3_ofs + (v6 ? IP6 + (uint32_t)(data_of(m)[p->l3_ofs + 4] << 8 | data_of(m)[p->l3_ofs + 5]) :
					 (uint32_t)(data_of(m)[p->l3_ofs + 2] << 8 | data_of(m)[p->l3_ofs + 3]));
	if (m->pkt_len > len)
		pkt_truncate(m, len);
	swap_ethernet(data_of(m), mac);
	parse_again(m);
	return 0;
}

static bool about_error(const struct pkt *p)
{
	bool v6 = is_v6(p);

	if (p->proto != (v6 ? PROTO_ICMPV6 : PROTO_ICMP))
		return false;
	if (!p->l4_ofs || !p->l4_len)
		return true; // a later fragment: of what is not known
	uint8_t type = pkt_data(p)[p->l4_ofs];
	if (v6)
		return type < 128 || type == REDIRECT_V6;
	return (type >= UNREACHABLE && type <= REDIRECT) || type == TIME_EXCEEDED || type == PARAMETER;
}

// RFC 1812 4.3.2.7; RFC 4443 2.4(e), by which a path's MTU is told to senders to groups too.
bool respond_error_allowed(const struct rte_mbuf *m, enum respond_error e)
{
	const struct pkt *p = pkt_of((struct rte_mbuf *)(uintptr_t)m);
	bool v6 = is_v6(p);

	if (!has_ip(m, p) || about_error(p))
		return false;
	const uint8_t *ip = pkt_data(p) + p->l3_ofs;
	if (bad_source(v6, ip + (v6 ? 8 : 12)) || (!v6 && p->class == CLASS_FRAG_LATER))
		return false;
	return (v6 && e == RESPOND_TOO_BIG) || (!(pkt_data(p)[0] & 1) && !is_group(v6, ip + (v6 ? 24 : 16)));
}

// What is quoted: the packet as it is on the wire, at most `max` bytes of it. Returns the bytes.
static uint32_t cut_quote(struct rte_mbuf *m, uint32_t max)
{
	struct pkt *p = pkt_of(m);

	if (m->ol_flags & RTE_MBUF_F_TX_TCP_SEG)
		offload_keep_first(m);
	offload_checksum(m); // one that can't be finished is quoted as it is
	uint32_t len = p->l3_len < max ? p->l3_len : max;
	if (m->pkt_len > p->l3_ofs + len)
		pkt_truncate(m, p->l3_ofs + len);
	return len;
}

// Makes room of `n` bytes behind Ethernet header and tags, and turns these round. There is headroom.
static uint8_t *make_room(struct rte_mbuf *m, uint32_t n, const uint8_t mac[6])
{
	uint8_t *d = (uint8_t *)rte_pktmbuf_prepend(m, (uint16_t)n);
	uint32_t front = pkt_of(m)->l3_ofs;

	memmove(d, d + n, front);
	swap_ethernet(d, mac);
	return d + front;
}

// Header of an ICMP message of `len` bytes about the packet whose header is at `quoted`.
static void put_ip4(uint8_t *ip, const uint8_t *quoted, uint32_t len, const uint8_t *src)
{
	ip[0] = 0x45;
	ip[1] = (uint8_t)((quoted[1] & 0x1c) | TOS_CONTROL);
	put16(ip + 2, IP4 + len);
	memcpy(ip + 4, quoted + 4, 2); // as unique as the other's
	put16(ip + 6, 0);
	ip[8] = HOPS;
	ip[9] = PROTO_ICMP;
	memcpy(ip + 12, src, 4);
	memcpy(ip + 16, quoted + 12, 4);
	finish_ip4(ip, IP4);
}

static void put_ip6(uint8_t *ip, const uint8_t *quoted, uint32_t len, const uint8_t *src, uint8_t hops)
{
	put32(ip, 0x60000000 | TOS_CONTROL << 20);
	put16(ip + 4, len);
	ip[6] = PROTO_ICMPV6;
	ip[7] = hops;
	memcpy(ip + 8, src, 16);
	memcpy(ip + 24, quoted + 8, 16);
}

int respond_error(struct rte_mbuf *m, enum respond_error e, const uint8_t mac[6], const struct config_ip *src, uint32_t info)
{
	struct pkt *p = pkt_of(m);
	bool v6 = is_v6(p);
	uint32_t front = (v6 ? IP6 : IP4) + ICMP;

	if (e <= RESPOND_ANSWER || e >= RESPOND_ERRORS || !has_ip(m, p) || src->v6 != v6)
		return -EINVAL;
	if (!respond_error_allowed(m, e))
		return -EPERM;
	if (rte_pktmbuf_headroom(m) < front)
		return -ENOSPC;
	uint32_t len = ICMP + cut_quote(m, (v6 ? ERROR_MAX_V6 : ERROR_MAX) - front);
	uint8_t *ip = make_room(m, front, mac), *icmp = ip + front - ICMP;
	memset(icmp, 0, ICMP);
	icmp[0] = v6 ? errors[e].type6 : errors[e].type;
	icmp[1] = v6 ? errors[e].code6 : errors[e].code;
	if (e == RESPOND_TOO_BIG && v6)
		put32(icmp + 4, info < 1280 ? 1280 : info);
	else if (e == RESPOND_TOO_BIG)
		put16(icmp + 6, info < 68 ? 68 : info > 0xffff ? 0xffff : info);
	else if (v6 && e == RESPOND_PROTO_UNREACHABLE)
		put32(icmp + 4, info);
	else if (e == RESPOND_PARAMETER && v6)
		put32(icmp + 4, info);
	else if (e == RESPOND_PARAMETER)
		icmp[4] = (uint8_t)info;
	if (v6) {
		put_ip6(ip, ip + front, len, src->b, HOPS);
		finish_icmp6(m, p->l3_ofs, len);
	} else {
		put_ip4(ip, ip + front, len, src->b);
		finish_icmp(m, p->l3_ofs + (uint32_t)IP4, len);
	}
	parse_again(m);
	return 0;
}

// RFC 4861 section 4.5: target, destination, and as options the target's link-layer address and the packet.
static void redirect6(struct rte_mbuf *m, const uint8_t mac[6], const struct config_ip *src, const struct config_ip *target, const uint8_t *target_mac)
{
	struct pkt *p = pkt_of(m);
	uint32_t message = 40 + (target_mac ? 8 : 0), front = IP6 + message + 8;
	uint32_t quote = cut_quote(m, ERROR_MAX_V6 - front) & ~7u; // options have multiples of eight bytes

	pkt_truncate(m, p->l3_ofs + quote);
	uint8_t *ip = make_room(m, front, mac), *icmp = ip + IP6, *option = icmp + message;
	memset(icmp, 0, front - IP6);
	icmp[0] = REDIRECT_V6;
	memcpy(icmp + 8, target->b, 16);
	memcpy(icmp + 24, ip + front + 24, 16);
	if (target_mac) {
		icmp[40] = 2;
		icmp[41] = 1;
		memcpy(icmp + 42, target_mac, 6);
	}
	option[0] = 4;
	option[1] = (uint8_t)(quote / 8 + 1);
	put_ip6(ip, ip + front, message + 8 + quote, src->b, HOPS_LINK);
	finish_icmp6(m, p->l3_ofs, message + 8 + quote);
}

int respond_redirect(struct rte_mbuf *m, const uint8_t mac[6], const struct config_ip *src, const struct config_ip *target, const uint8_t target_mac[6])
{
	struct pkt *p = pkt_of(m);
	bool v6 = is_v6(p);
	uint32_t front = v6 ? IP6 + 40 + 8 + 8 : IP4 + ICMP;

	if (!has_ip(m, p) || src->v6 != v6 || target->v6 != v6)
		return -EINVAL;
	if (!respond_error_allowed(m, RESPOND_NET_UNREACHABLE))
		return -EPERM;
	if (rte_pktmbuf_headroom(m) < front)
		return -ENOSPC;
	if (v6) {
		redirect6(m, mac, src, target, target_mac);
	} else {
		uint32_t len = ICMP + cut_quote(m, ERROR_MAX - front);
		uint8_t *ip = make_room(m, front, mac), *icmp = ip + IP4;

		memset(icmp, 0, ICMP);
		icmp[0] = REDIRECT;
		icmp[1] = 1; // for the host
		memcpy(icmp + 4, target->b, 4);
		put_ip4(ip, ip + front, len, src->b);
		finish_icmp(m, p->l3_ofs + (uint32_t)IP4, len);
	}
	parse_again(m);
	return 0;
}

void respond_count(struct worker *w, struct rte_mbuf *m, uint16_t reason, uint32_t row)
{
	struct pkt *p = pkt_of(m);
	struct core_record r = {.kind = CORE_ANSWERED, .port = p->out, .reason = reason};

	if (reason)
		worker_lose(w, m, reason, row);
	else
		worker_count(w, p->origin, COUNT_CONSUMED, 1);
	worker_count(w, p->origin, COUNT_GENERATED, 1);
	if (p->trace)
		trace_put(p->trace, TRACE_CORE, &r, sizeof r);
}

// ---- limits: the generic cell rate algorithm (ITU-T I.371), of one worker alone

static uint64_t interval[2] = {1000000000ULL / RESPOND_ERRORS_PPS, 1000000000ULL / RESPOND_ANSWERS_PPS}, burst[2] = {100000000, 100000000};

void respond_limits(uint32_t error_pps, uint32_t answer_pps)
{
	uint32_t pps[2] = {error_pps, answer_pps};

	for (int i = 0; i < 2; i++) {
		uint64_t each = 1000000000ULL / (pps[i] ? pps[i] : 1);

		__atomic_store_n(&burst[i], each > 100000000 ? each : 100000000, __ATOMIC_RELAXED);
		__atomic_store_n(&interval[i], each, __ATOMIC_RELAXED);
	}
}

bool respond_may(struct worker *w, uint16_t port, enum respond_error e)
{
	struct port_worker *pw = worker_port(w, port);
	int i = e == RESPOND_ANSWER;

	if (w->dry || !pw)
		return true;
	uint64_t at = pw->respond_at[i] > w->now ? pw->respond_at[i] : w->now;
	uint64_t next = at + __atomic_load_n(&interval[i], __ATOMIC_RELAXED);
	if (next > w->now + __atomic_load_n(&burst[i], __ATOMIC_RELAXED))
		return false;
	pw->respond_at[i] = next;
	return true;
}
