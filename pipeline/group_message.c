// group_message: see group_message.h.
#include "group_message.h"

#include <errno.h>
#include <string.h>
#include <rte_ether.h>
#include <rte_ip.h>

enum {
	IGMP_QUERY = 0x11,
	IGMP_V1_REPORT = 0x12,
	IGMP_V2_REPORT = 0x16,
	IGMP_LEAVE = 0x17,
	IGMP_V3_REPORT = 0x22,
	MLD_QUERY = 130,
	MLD_REPORT = 131,
	MLD_DONE = 132,
	MLD_V2_REPORT = 143,
	IGMP_ROUTER = 0x30, // Multicast Router Advertisement
	IGMP_ROUTER_ENDS = 0x32,
	MLD_ROUTER = 151,
	MLD_ROUTER_ENDS = 153,
	PROTO_IGMP = 2,
	PROTO_ICMPV6 = 58,
	PROTO_PIM = 103,
};

static uint16_t get16(const uint8_t *b)
{
	return (uint16_t)(b[0] << 8 | b[1]);
}

static void put16(uint8_t *b, uint32_t v)
{
	b[0] = (uint8_t)(v >> 8);
	b[1] = (uint8_t)v;
}

static struct config_ip get_ip(const uint8_t *b, bool v6)
{
	struct config_ip ip = {.v6 = v6};

	memcpy(ip.b, b, group_address_len(v6));
	return ip;
}

bool group_ip_is_group(const struct config_ip *ip)
{
	return ip->v6 ? ip->b[0] == 0xff : ip->b[0] >> 4 == 14;
}

bool group_ip_is_zero(const struct config_ip *ip)
{
	static const uint8_t zero[16];

	return !memcmp(ip->b, zero, group_address_len(ip->v6));
}

bool group_ip_is_link(const struct config_ip *ip)
{
	if (ip->v6) // RFC 4291 section 2.7: reserved, interface-local, link-local
		return ip->b[0] == 0xff && (ip->b[1] & 15) <= 2;
	return ip->b[0] == 224 && !ip->b[1] && !ip->b[2];
}

void group_mac(const struct config_ip *group, uint8_t mac[6])
{
	if (group->v6) {
		mac[0] = mac[1] = 0x33;
		memcpy(mac + 2, group->b + 12, 4);
		return;
	}
	mac[0] = 0x01;
	mac[1] = 0x00;
	mac[2] = 0x5e;
	mac[3] = group->b[1] & 0x7f;
	mac[4] = group->b[2];
	mac[5] = group->b[3];
}

// ---- times in floating point (RFC 3376 sections 4.1.1 and 4.1.7, RFC 3810 sections 5.1.3 and 5.1.9)

// `bits` of mantissa below 3 of exponent below a one.
static uint32_t from_code(uint32_t code, unsigned bits)
{
	uint32_t top = 8u << bits;

	if (code < top)
		return code;
	return ((code & ((1u << bits) - 1)) | 1u << bits) << ((code >> bits & 7) + 3);
}

// The largest that is no more than v.
static uint32_t to_code(uint32_t v, unsigned bits)
{
	uint32_t top = 8u << bits, exp = 0;

	if (v < top)
		return v;
	while (exp < 7 && v >> (exp + 3) >= 2u << bits)
		exp++;
	uint32_t mant = v >> (exp + 3);
	if (mant >= 2u << bits)
		mant = (2u << bits) - 1;
	return top | exp << bits | (mant & ((1u << bits) - 1));
}

// ---- reading

static uint16_t sum_v6(const uint8_t *ip, const uint8_t *l4, uint32_t len, uint8_t proto)
{
	uint32_t sum = rte_raw_cksum(ip + 8, 32);

	sum += rte_raw_cksum(l4, len) + (uint32_t)rte_cpu_to_be_16(proto) + (uint32_t)rte_cpu_to_be_16((uint16_t)len);
	sum = (sum >> 16) + (sum & 0xffff);
	return (uint16_t)((sum >> 16) + (sum & 0xffff));
}

static int read_query(struct group_message *m, const uint8_t *b, uint32_t len)
{
	uint32_t alen = group_address_len(m->v6), fixed = m->v6 ? 24 : 8, v3 = fixed + 4;
	uint32_t code = m->v6 ? get16(b + 4) : b[1];

	m->kind = GROUP_QUERY;
	m->group = get_ip(b + fixed - alen, m->v6);
	if (!group_ip_is_zero(&m->group) && !group_ip_is_group(&m->group))
		return -EBADMSG;
	if (len < v3) { // RFC 3376 section 7.1, RFC 3810 section 8.1
		if (len != fixed)
			return -EBADMSG;
		m->version = m->v6 || code ? 2 : 1;
		m->response_ms = m->v6 ? code : code ? code * 100 : 10000;
		return 0;
	}
	m->version = 3;
	m->response_ms = m->v6 ? from_code(code, 12) : from_code(code, 4) * 100;
	m->suppress = b[fixed] & 8;
	m->robustness = b[fixed] & 7;
	m->interval_s = from_code(b[fixed + 1], 4);
	m->n_sources = get16(b + fixed + 2);
	m->source = b + v3;
	return m->n_sources * alen > len - v3 ? -EBADMSG : 0;
}

static int read_old_report(struct group_message *m, const uint8_t *b, uint8_t version, bool leave)
{
	m->kind = GROUP_REPORT;
	m->version = version;
	m->first = (struct group_record){.type = leave ? GROUP_TO_IN : GROUP_IS_EX, .group = get_ip(b + (m->v6 ? 8 : 4), m->v6)};
	m->n_records = 1;
	return group_ip_is_group(&m->first.group) ? 0 : -EBADMSG;
}

// Bytes of the record at b, 0: it doesn't end before `end`.
static uint32_t record_len(const uint8_t *b, const uint8_t *end, bool v6)
{
	uint32_t head = 4 + group_address_len(v6), left = (uint32_t)(end - b);

	if (left < head)
		return 0;
	uint32_t len = head + get16(b + 2) * group_address_len(v6) + b[1] * 4u;
	return len > left ? 0 : len;
}

static int read_report(struct group_message *m, const uint8_t *b, uint32_t len)
{
	const uint8_t *at = b + 8;

	m->kind = GROUP_REPORT;
	m->version = 3;
	m->n_records = get16(b + 6);
	m->at = at;
	m->end = b + len;
	for (unsigned i = 0; i < m->n_records; i++) {
		uint32_t n = record_len(at, m->end, m->v6);

		if (!n)
			return -EBADMSG;
		at += n;
	}
	return 0;
}

bool group_next_record(struct group_message *m, struct group_record *r)
{
	if (!m->n_records)
		return false;
	m->n_records--;
	if (m->version < 3) {
		*r = m->first;
		return true;
	}
	*r = (struct group_record){
		.type = m->at[0],
		.group = get_ip(m->at + 4, m->v6),
		.n_sources = get16(m->at + 2),
		.source = m->at + 4 + group_address_len(m->v6),
	};
	m->at += record_len(m->at, m->end, m->v6);
	return true;
}

// RFC 4286 section 4: to all snoopers; how long it holds is section 3.1.5's.
static int read_router(struct group_message *m, const uint8_t *ip, const uint8_t *b, uint32_t len, bool ends)
{
	static const uint8_t snoopers4[4] = {224, 0, 0, 106}, snoopers6[16] = {0xff, 2, [15] = 0x6a};

	if (memcmp(ip + (m->v6 ? 24 : 16), m->v6 ? snoopers6 : snoopers4, group_address_len(m->v6)) || (!ends && len < 8))
		return -EBADMSG;
	m->kind = GROUP_HELLO;
	m->hold_s = ends ? 0 : 3u * b[1];
	return 0;
}

static int read_igmp(struct group_message *m, const uint8_t *ip, const uint8_t *b, uint32_t len)
{
	if (len < 4 || (len < 8 && (b[0] < IGMP_ROUTER || b[0] > IGMP_ROUTER_ENDS)) || rte_raw_cksum(b, len) != 0xffff)
		return -EBADMSG;
	switch (b[0]) {
	case IGMP_QUERY:
		return read_query(m, b, len);
	case IGMP_V1_REPORT:
		return read_old_report(m, b, 1, false);
	case IGMP_V2_REPORT:
		return read_old_report(m, b, 2, false);
	case IGMP_LEAVE:
		return read_old_report(m, b, 2, true);
	case IGMP_V3_REPORT:
		return read_report(m, b, len);
	case IGMP_ROUTER:
	case IGMP_ROUTER_ENDS:
		return read_router(m, ip, b, len, b[0] == IGMP_ROUTER_ENDS);
	default:
		return 0;
	}
}

static int read_mld(struct group_message *m, const uint8_t *ip, const uint8_t *b, uint32_t len)
{
	bool link_local = m->src.b[0] == 0xfe && (m->src.b[1] & 0xc0) == 0x80;
	bool query = len && b[0] == MLD_QUERY;

	// RFC 3810 sections 5.1.14, 5.2.13 and 6.2
	if (len < 4 || sum_v6(ip, b, len, PROTO_ICMPV6) != 0xffff || ip[7] != 1 || !(link_local || (!query && group_ip_is_zero(&m->src))))
		return -EBADMSG;
	if (b[0] >= MLD_ROUTER && b[0] <= MLD_ROUTER_ENDS)
		return b[0] == MLD_ROUTER + 1 ? 0 : read_router(m, ip, b, len, b[0] == MLD_ROUTER_ENDS);
	if (len < 24 && (b[0] != MLD_V2_REPORT || len < 8))
		return -EBADMSG;
	switch (b[0]) {
	case MLD_QUERY:
		return read_query(m, b, len);
	case MLD_REPORT:
		return read_old_report(m, b, 2, false);
	case MLD_DONE:
		return read_old_report(m, b, 2, true);
	case MLD_V2_REPORT:
		return read_report(m, b, len);
	default:
		return 0;
	}
}

// RFC 7761 section 4.9.2: options of two bytes of type and two of length.
static int read_pim(struct group_message *m, const uint8_t *ip, const uint8_t *b, uint32_t len)
{
	if (len < 4 || b[0] >> 4 != 2 || (m->v6 ? sum_v6(ip, b, len, PROTO_PIM) : rte_raw_cksum(b, len)) != 0xffff)
		return -EBADMSG;
	if ((b[0] & 15) != 0)
		return 0;
	m->kind = GROUP_HELLO;
	m->pim = true;
	m->hold_s = 105;
	for (uint32_t at = 4; at + 4 <= len; at += 4u + get16(b + at + 2)) {
		if (get16(b + at) != 1 || get16(b + at + 2) != 2 || at + 6 > len)
			continue;
		uint32_t s = get16(b + at + 4);
		m->hold_s = s == 0xffff ? UINT32_MAX : s;
	}
	return 0;
}

int group_message_read(struct group_message *m, const uint8_t *ip, uint32_t len, bool v6, uint32_t l4_ofs)
{
	memset(m, 0, sizeof *m);
	m->kind = GROUP_OTHER;
	m->v6 = v6;
	if (l4_ofs < (v6 ? 40u : 20u) || l4_ofs > len)
		return -EBADMSG;
	const uint8_t *b = ip + l4_ofs;
	if (v6) {
		m->src = get_ip(ip + 8, true);
		return ip[6] == PROTO_PIM ? read_pim(m, ip, b, len - l4_ofs) : read_mld(m, ip, b, len - l4_ofs);
	}
	if ((ip[0] & 15u) * 4 > len || rte_raw_cksum(ip, (ip[0] & 15u) * 4) != 0xffff)
		return -EBADMSG;
	m->src = get_ip(ip + 12, false);
	return ip[9] == PROTO_PIM ? read_pim(m, ip, b, len - l4_ofs) : read_igmp(m, ip, b, len - l4_ofs);
}

// ---- writing

// Ethernet and IP in front of `len` bytes at the place that this returns; all with Router Alert (RFC 2113, RFC 2711) and one hop.
static uint8_t *start(uint8_t *f, const uint8_t mac[6], const struct config_ip *src, const struct config_ip *dst, uint32_t len)
{
	group_mac(dst, f);
	memcpy(f + 6, mac, 6);
	uint8_t *ip = f + 14;
	if (dst->v6) {
		static const uint8_t alert[8] = {PROTO_ICMPV6, 0, 5, 2, 0, 0, 1, 0};

		put16(f + 12, RTE_ETHER_TYPE_IPV6);
		memset(ip, 0, 40);
		ip[0] = 0x60;
		put16(ip + 4, len + 8);
		ip[7] = 1;
		memcpy(ip + 8, src->b, 16);
		memcpy(ip + 24, dst->b, 16);
		memcpy(ip + 40, alert, 8);
		return ip + 48;
	}
	static const uint8_t head[10] = {0x46, 0xc0, 0, 0, 0, 0, 0, 0, 1, PROTO_IGMP}, alert[4] = {0x94, 4, 0, 0};
	put16(f + 12, RTE_ETHER_TYPE_IPV4);
	memcpy(ip, head, 10);
	put16(ip + 2, len + 24);
	put16(ip + 10, 0);
	memcpy(ip + 12, src->b, 4);
	memcpy(ip + 16, dst->b, 4);
	memcpy(ip + 20, alert, 4);
	uint16_t sum = (uint16_t)~rte_raw_cksum(ip, 24);
	memcpy(ip + 10, &sum, 2);
	return ip + 24;
}

static uint32_t finish(uint8_t *f, uint8_t *b, uint32_t len, bool v6)
{
	memset(b + 2, 0, 2);
	uint16_t sum = (uint16_t) ~(v6 ? sum_v6(f + 14, b, len, PROTO_ICMPV6) : rte_raw_cksum(b, len));
	memcpy(b + 2, &sum, 2);
	return (uint32_t)(b - f) + len;
}

uint32_t group_write_query(uint8_t *f, const struct group_query *q)
{
	bool v6 = q->group.v6, general = group_ip_is_zero(&q->group);
	static const struct config_ip all4 = {.b = {224, 0, 0, 1}}, all6 = {.v6 = true, .b = {0xff, 2, [15] = 1}};
	uint32_t alen = group_address_len(v6), fixed = v6 ? 24 : 8;
	uint32_t n = q->n_sources > GROUP_SOURCES_MAX(v6) ? GROUP_SOURCES_MAX(v6) : q->n_sources;
	uint32_t len = q->version < 3 ? fixed : fixed + 4 + n * alen;
	uint8_t *b = start(f, q->mac, &q->src, general ? (v6 ? &all6 : &all4) : &q->group, len);

	memset(b, 0, fixed + 4);
	b[0] = v6 ? MLD_QUERY : IGMP_QUERY;
	if (v6)
		put16(b + 4, q->version < 3 ? (q->response_ms > 0xffff ? 0xffff : q->response_ms) : to_code(q->response_ms, 12));
	else if (q->version > 1)
		b[1] = (uint8_t)(q->version < 3 ? (q->response_ms / 100 > 255 ? 255 : q->response_ms / 100) : to_code(q->response_ms / 100, 4));
	memcpy(b + fixed - alen, q->group.b, alen);
	if (q->version >= 3) {
		b[fixed] = (uint8_t)((q->suppress ? 8 : 0) | (q->robustness > 7 ? 0 : q->robustness));
		b[fixed + 1] = (uint8_t)to_code(q->interval_s, 4);
		put16(b + fixed + 2, n);
		if (n)
			memcpy(b + fixed + 4, q->source, n * alen);
	}
	return finish(f, b, len, v6);
}

uint32_t group_write_report(uint8_t *f, const uint8_t mac[6], const struct config_ip *src, uint8_t version, const struct group_record *r)
{
	bool v6 = r->group.v6, leave = r->type == GROUP_TO_IN;
	static const struct config_ip routers4 = {.b = {224, 0, 0, 2}}, routers6 = {.v6 = true, .b = {0xff, 2, [15] = 2}};
	static const struct config_ip v3_4 = {.b = {224, 0, 0, 22}}, v3_6 = {.v6 = true, .b = {0xff, 2, [15] = 0x16}};
	uint32_t alen = group_address_len(v6), n = r->n_sources > GROUP_SOURCES_MAX(v6) ? GROUP_SOURCES_MAX(v6) : r->n_sources;

	if (version < 3) {
		uint32_t len = v6 ? 24 : 8;
		uint8_t *b = start(f, mac, src, leave ? (v6 ? &routers6 : &routers4) : &r->group, len);

		memset(b, 0, len);
		b[0] = v6 ? (leave ? MLD_DONE : MLD_REPORT) : leave ? IGMP_LEAVE : version == 1 ? IGMP_V1_REPORT : IGMP_V2_REPORT;
		memcpy(b + len - alen, r->group.b, alen);
		return finish(f, b, len, v6);
	}
	uint32_t len = 8 + 4 + alen + n * alen;
	uint8_t *b = start(f, mac, src, v6 ? &v3_6 : &v3_4, len);
	memset(b, 0, 12);
	b[0] = v6 ? MLD_V2_REPORT : IGMP_V3_REPORT;
	put16(b + 6, 1);
	b[8] = (uint8_t)r->type;
	put16(b + 10, n);
	memcpy(b + 12, r->group.b, alen);
	if (n)
		memcpy(b + 12 + alen, r->source, n * alen);
	return finish(f, b, len, v6);
}
