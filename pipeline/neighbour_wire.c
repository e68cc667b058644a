// neighbour_wire: see neighbour_wire.h.
#include "neighbour_wire.h"

#include <string.h>

static const uint8_t nobody_mac[6];
static const uint8_t nobody[16];
static const uint8_t all_macs[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

// A station's own: neither of a group nor empty.
static bool is_station_mac(const uint8_t mac[6])
{
	return !(mac[0] & 1) && memcmp(mac, nobody_mac, 6);
}

static bool is_station_ip(const struct config_ip *ip)
{
	if (ip->v6)
		return ip->b[0] != 0xff && memcmp(ip->b, nobody, 16);
	return ip->b[0] && ip->b[0] < 224 && ip->b[0] != 127; // RFC 1122 3.2.1.3
}

static struct config_ip ip_of(bool v6, const uint8_t *b)
{
	struct config_ip ip = {.v6 = v6};

	memcpy(ip.b, b, v6 ? 16 : 4);
	return ip;
}

static bool read_arp(const uint8_t *a, struct neighbour_message *m)
{
	unsigned op = (unsigned)(a[6] << 8 | a[7]);

	if (op != 1 && op != 2)
		return false;
	m->kind = op == 1 ? MESSAGE_ASK : MESSAGE_ANSWER;
	memcpy(m->mac, a + 8, 6);
	m->sender = ip_of(false, a + 14);
	m->target = m->to = ip_of(false, a + 24);
	m->override = true;
	m->has_mac = true;
	if (!is_station_mac(m->mac))
		return false;
	if (op == 1 && !memcmp(m->sender.b, nobody, 4)) {
		m->probe = true;
		return is_station_ip(&m->target);
	}
	return is_station_ip(&m->sender);
}

static uint16_t sum(const uint8_t *b, size_t n, uint32_t with)
{
	for (; n > 1; b += 2, n -= 2)
		with += (uint32_t)(b[0] << 8 | b[1]);
	if (n)
		with += (uint32_t)b[0] << 8;
	while (with >> 16)
		with = (with & 0xffff) + (with >> 16);
	return (uint16_t)with;
}

// Of an ICMPv6 message of `n` bytes, RFC 4443 section 2.3. 0xffff: its checksum is right.
static uint16_t icmp6_sum(const uint8_t *ip, const uint8_t *icmp, uint32_t n)
{
	return sum(icmp, n, sum(ip + 8, 32, n + 58));
}

// The option of link-layer address `type`. False: the options are malformed.
static bool read_options(const uint8_t *o, uint32_t n, uint8_t type, struct neighbour_message *m)
{
	while (n >= 8) {
		uint32_t len = o[1] * 8u;

		if (!len || len > n)
			return false;
		if (o[0] == type && len == 8 && !m->has_mac) {
			m->has_mac = true;
			memcpy(m->mac, o + 2, 6);
		}
		o += len;
		n -= len;
	}
	return n == 0 && (!m->has_mac || is_station_mac(m->mac));
}

static bool read_nd(const struct pkt *p, const uint8_t *ip, const uint8_t *icmp, uint32_t n, struct neighbour_message *m)
{
	static const struct {
		uint8_t head, option;
		enum neighbour_message_kind kind;
	} types[] = {{8, 1, MESSAGE_SOLICIT}, {16, 1, MESSAGE_ROUTER}, {24, 1, MESSAGE_ASK}, {24, 2, MESSAGE_ANSWER}};
	uint8_t type = icmp[0];

	if (type < 133 || type > 136 || icmp[1] || ip[7] != 255 || n < types[type - 133].head)
		return false;
	// A sum that the device is to finish isn't one yet.
	if (!(pkt_mbuf(p)->ol_flags & RTE_MBUF_F_TX_L4_MASK) && icmp6_sum(ip, icmp, n) != 0xffff)
		return false;
	m->kind = types[type - 133].kind;
	m->sender = ip_of(true, ip + 8);
	m->to = ip_of(true, ip + 24);
	if (!read_options(icmp + types[type - 133].head, n - types[type - 133].head, types[type - 133].option, m))
		return false;
	bool unspecified = !memcmp(m->sender.b, nobody, 16), to_group = ip[24] == 0xff;
	if (m->sender.b[0] == 0xff || (unspecified && (type == 134 || type == 136 || (m->has_mac && type != 136))))
		return false;
	m->router = type == 134 || (type == 136 && icmp[4] & 0x80);
	if (type < 135)
		return true;
	m->target = ip_of(true, icmp + 8);
	m->probe = type == 135 && unspecified;
	m->solicited = type == 136 && icmp[4] & 0x40;
	m->override = type == 136 && icmp[4] & 0x20;
	return is_station_ip(&m->target) && !(m->solicited && to_group) && (!m->probe || to_group);
}

bool neighbour_message(const struct pkt *p, struct neighbour_message *m)
{
	const struct rte_mbuf *mbuf = pkt_mbuf(p);
	const uint8_t *d = rte_pktmbuf_mtod(mbuf, const uint8_t *);
	uint32_t have = mbuf->data_len, arp = 14 + 4u * p->n_tags;

	memset(m, 0, sizeof *m);
	if (have < 14)
		return false;
	memcpy(m->eth_dst, d, 6);
	memcpy(m->eth_src, d + 6, 6);
	if (!is_station_mac(m->eth_src))
		return false;
	if (p->class == CLASS_ARP)
		return have >= arp + 28 && read_arp(d + arp, m);
	if (p->class != CLASS_ND || !p->l3_ofs || !p->l4_ofs)
		return false;
	// What isn't in one piece by now is longer than any of these is.
	uint32_t end = p->l3_ofs + (uint32_t)p->l3_len;
	m->v6 = true;
	return end <= have && p->l4_ofs + 8u <= end && read_nd(p, d + p->l3_ofs, d + p->l4_ofs, end - p->l4_ofs, m);
}

// ---- what is sent

static uint8_t *ethernet(uint8_t *f, const uint8_t *to, const uint8_t *from, uint16_t type)
{
	memcpy(f, to, 6);
	memcpy(f + 6, from, 6);
	f[12] = (uint8_t)(type >> 8);
	f[13] = (uint8_t)type;
	return f + 14;
}

// `sender` NULL: of no address.
static uint16_t arp(uint8_t *f, uint8_t op, const uint8_t *to, const uint8_t src[6], const uint8_t mac[6],
		    const uint8_t *sender, const uint8_t *to_mac, const uint8_t *target)
{
	static const uint8_t head[7] = {0, 1, 8, 0, 6, 4, 0};

	memset(f, 0, 60);
	uint8_t *a = ethernet(f, to, src, 0x0806);
	memcpy(a, head, sizeof head);
	a[7] = op;
	memcpy(a + 8, mac, 6);
	if (sender)
		memcpy(a + 14, sender, 4);
	if (to_mac)
		memcpy(a + 18, to_mac, 6);
	memcpy(a + 24, target, 4);
	return 60; // the shortest frame that there is
}

// `option`: type of the option with `mac`; 0: none. `target` NULL: none.
static uint16_t nd(uint8_t *f, uint8_t type, uint8_t flags, const uint8_t *to, const uint8_t src[6], const uint8_t *source,
		   const uint8_t *dest, const uint8_t *target, uint8_t option, const uint8_t mac[6])
{
	uint16_t n = (uint16_t)(24 + (option ? 8 : 0));

	memset(f, 0, NEIGHBOUR_FRAME);
	uint8_t *ip = ethernet(f, to, src, 0x86dd), *icmp = ip + 40;
	ip[0] = 0x60;
	ip[5] = (uint8_t)n;
	ip[6] = 58;
	ip[7] = 255;
	memcpy(ip + 8, source, 16);
	memcpy(ip + 24, dest, 16);
	icmp[0] = type;
	icmp[4] = flags;
	memcpy(icmp + 8, target, 16);
	if (option) {
		icmp[24] = option;
		icmp[25] = 1;
		memcpy(icmp + 26, mac, 6);
	}
	uint16_t check = (uint16_t)~icmp6_sum(ip, icmp, n);
	icmp[2] = (uint8_t)(check >> 8);
	icmp[3] = (uint8_t)check;
	return (uint16_t)(14 + 40 + n);
}

uint16_t neighbour_ask(uint8_t *f, const uint8_t mac[6], const struct config_ip *source, const struct config_ip *target,
		       const uint8_t *to)
{
	if (!target->v6)
		return arp(f, 1, to ? to : all_macs, mac, mac, source ? source->b : NULL, NULL, target->b);
	uint8_t group[16] = {0xff, 2, [11] = 1, [12] = 0xff}, group_mac[6] = {0x33, 0x33, 0xff};
	memcpy(group + 13, target->b + 13, 3);
	memcpy(group_mac + 3, target->b + 13, 3);
	return nd(f, 135, 0, to ? to : group_mac, mac, source ? source->b : nobody, to ? target->b : group, target->b,
		  source ? 1 : 0, mac);
}

uint16_t neighbour_announce(uint8_t *f, const uint8_t src[6], const uint8_t mac[6], const struct config_ip *ip, bool router,
			    const uint8_t *to, const struct config_ip *to_ip)
{
	static const uint8_t all_nodes[16] = {0xff, 2, [15] = 1}, all_nodes_mac[6] = {0x33, 0x33, 0, 0, 0, 1};

	if (!ip->v6)
		return to && to_ip ? arp(f, 2, to, src, mac, ip->b, to, to_ip->b)
				   : arp(f, 1, to ? to : all_macs, src, mac, ip->b, NULL, ip->b);
	return nd(f, 136, (uint8_t)((router ? 0x80 : 0) | 0x20), to ? to : all_nodes_mac, src, ip->b,
		  to && to_ip ? to_ip->b : all_nodes, ip->b, 2, mac);
}
