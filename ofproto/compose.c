// compose: see compose.h.
#include "compose.h"
#include "field.h"

#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

enum {
	MIN_FRAME = 60, // IEEE 802.3 clause 4.2.3.3, without the frame check sequence
	IP_FRAGMENT = 44,
	ND_SOLICIT = 135,
	ND_ADVERTISE = 136,
	LATER_OFFSET = 1480, // bytes before a later fragment: what a first one on Ethernet holds
};

// The frame as it grows. What does not fit is counted but not written.
struct frame {
	uint8_t *b;
	uint32_t len;
};

// ---- what the words mean together

// Neighbour solicitations and advertisements have a target: RFC 4861 sections 4.3 and 4.4.
static bool is_nd(const struct field_set *d)
{
	return (field_set_is(d) & IS_ICMPV6) && d->given[TP_SRC] && (d->value[TP_SRC].n == ND_SOLICIT || d->value[TP_SRC].n == ND_ADVERTISE);
}

static int check(const struct field_set *d, unsigned is, char **error)
{
	int rc = field_set_check(d, is, error);

	if (rc)
		return rc;
	if (d->given[DL_TYPE] && (d->value[DL_TYPE].n == FIELD_ETH_VLAN || d->value[DL_TYPE].n == FIELD_ETH_QINQ))
		return field_refuse(error, "dl_type=0x%04x is a tag: write dl_vlan, or the whole frame in hexadecimal digits",
				    d->value[DL_TYPE].n);
	if (d->given[NW_FRAG] && d->value[NW_FRAG].n == FRAG_LATER)
		for (int i = TP_SRC; i <= TCP_FLAGS; i++)
			if (d->given[i])
				return field_refuse(error, "%s: a later fragment has no transport header", d->given[i]->name);
	for (int i = ND_TARGET; i <= ND_TLL; i++)
		if (d->given[i] && !is_nd(d))
			return field_refuse(error, "%s needs icmpv6_type=135 or 136, a solicitation or advertisement of a neighbour", d->given[i]->name);
	return 0;
}

static void default_to(struct field_set *d, enum field_id id, const union field_value *v)
{
	if (!d->given[id])
		d->value[id] = *v;
}

#define DEFAULT_NUMBER(d, id, number) default_to(d, id, &(union field_value){.n = (number)})
#define DEFAULT_BYTES(d, id, ...) default_to(d, id, &(union field_value){.b = {__VA_ARGS__}})

// A group has its address of layer 2 from that of layer 3; an ARP request asks everybody.
static void default_destination(struct field_set *d, unsigned is)
{
	const uint8_t *v4 = d->value[NW_DST].b, *v6 = d->value[IPV6_DST].b;

	if ((is & IS_IPV4) && (v4[0] & 0xf0) == 0xe0) // RFC 1112 section 6.4
		DEFAULT_BYTES(d, DL_DST, 0x01, 0x00, 0x5e, v4[1] & 0x7f, v4[2], v4[3]);
	else if ((is & IS_IPV6) && v6[0] == 0xff) // RFC 2464 section 7
		DEFAULT_BYTES(d, DL_DST, 0x33, 0x33, v6[12], v6[13], v6[14], v6[15]);
	else if (((is & IS_ARP) && d->value[NW_PROTO].n == 1) || ((is & IS_IPV4) && !memcmp(v4, "\xff\xff\xff\xff", 4)))
		DEFAULT_BYTES(d, DL_DST, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
}

// RFC 4861: a solicitation goes to the group of its target (RFC 4291 section 2.7.1), and none has crossed a router.
static void default_nd(struct field_set *d)
{
	const uint8_t *t = d->value[ND_TARGET].b;

	if (d->value[TP_SRC].n >= 133 && d->value[TP_SRC].n <= 137)
		DEFAULT_NUMBER(d, NW_TTL, 255);
	if (!is_nd(d))
		return;
	if (!d->given[ND_TARGET])
		d->value[ND_TARGET] = d->value[IPV6_DST];
	else if (!d->given[IPV6_DST] && d->value[TP_SRC].n == ND_SOLICIT)
		DEFAULT_BYTES(d, IPV6_DST, 0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, t[13], t[14], t[15]);
}

static void add_defaults(struct field_set *d, unsigned is, const struct compose_defaults *known)
{
	union field_value src = {0}, dst = {0};

	if (known && known->fill)
		known->fill(known->arg, d, is);
	// Addresses for documentation: RFC 5737, RFC 3849.
	DEFAULT_BYTES(d, NW_SRC, 192, 0, 2, 1);
	DEFAULT_BYTES(d, NW_DST, 192, 0, 2, 2);
	DEFAULT_BYTES(d, IPV6_SRC, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);
	DEFAULT_BYTES(d, IPV6_DST, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2);
	DEFAULT_NUMBER(d, NW_PROTO, is & IS_ARP ? 1 : 253); // 253: for experiments, RFC 3692
	DEFAULT_NUMBER(d, NW_TTL, 64);
	if (is & IS_ICMP) // an echo request
		DEFAULT_NUMBER(d, TP_SRC, 8);
	else if (is & IS_ICMPV6)
		DEFAULT_NUMBER(d, TP_SRC, 128);
	else
		DEFAULT_NUMBER(d, TP_SRC, 49152);
	DEFAULT_NUMBER(d, TP_DST, is & (IS_ICMP | IS_ICMPV6) ? 0 : 9); // 9: discard, RFC 863
	DEFAULT_NUMBER(d, TCP_FLAGS, 0x02);			       // who asks about a connection asks about its first packet
	if (is & IS_ICMPV6)
		default_nd(d);
	default_destination(d, is);
	if (known) {
		memcpy(src.b, known->dl_src, 6);
		memcpy(dst.b, known->dl_dst, 6);
	}
	default_to(d, DL_SRC, &src);
	if (!d->given[DL_DST] && !memcmp(d->value[DL_DST].b, "\0\0\0\0\0\0", 6))
		d->value[DL_DST] = dst;
	default_to(d, ARP_SHA, &d->value[DL_SRC]);
}

// ---- writing the frame

static uint8_t *put(struct frame *f, const void *bytes, uint32_t n)
{
	uint8_t *at = f->b + f->len;

	if (bytes)
		memcpy(at, bytes, n);
	else
		memset(at, 0, n);
	f->len += n;
	return at;
}

static void set16(uint8_t *at, uint32_t v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}

static void put16(struct frame *f, uint32_t v)
{
	set16(put(f, NULL, 2), v);
}

// RFC 1071.
static uint32_t sum(const uint8_t *b, uint32_t n, uint32_t acc)
{
	for (uint32_t i = 0; i < n; i++)
		acc += i & 1 ? b[i] : (uint32_t)b[i] << 8;
	return acc;
}

static uint16_t folded(uint32_t acc)
{
	while (acc >> 16)
		acc = (acc & 0xffff) + (acc >> 16);
	return (uint16_t)~acc;
}

// CRC32c (RFC 9260 appendix A), bit by bit: there is one packet.
static uint32_t crc32c(const uint8_t *b, uint32_t n)
{
	uint32_t crc = ~0u;

	while (n--) {
		crc ^= *b++;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	return ~crc;
}

static void put_ethernet(struct frame *f, const struct field_set *d)
{
	put(f, d->value[DL_DST].b, 6);
	put(f, d->value[DL_SRC].b, 6);
	if (d->given[DL_VLAN] || d->given[DL_VLAN_PCP]) {
		put16(f, FIELD_ETH_VLAN);
		put16(f, d->value[DL_VLAN_PCP].n << 13 | d->value[DL_VLAN].n);
	}
	put16(f, d->given[DL_TYPE] ? d->value[DL_TYPE].n : 0x88b5); // IEEE 802: for local experiments
}

static void put_arp(struct frame *f, const struct field_set *d)
{
	put(f, "\0\1\x08\0\6\4", 6);
	put16(f, d->value[NW_PROTO].n);
	put(f, d->value[ARP_SHA].b, 6);
	put(f, d->value[NW_SRC].b, 4);
	put(f, d->value[ARP_THA].b, 6);
	put(f, d->value[NW_DST].b, 4);
}

static void put_ipv4(struct frame *f, const struct field_set *d)
{
	static const uint16_t frag[] = {[FRAG_NO] = 0x4000, [FRAG_FIRST] = 0x2000, [FRAG_LATER] = LATER_OFFSET / 8};
	uint8_t *h = put(f, NULL, 20);

	h[0] = 0x45;
	h[1] = (uint8_t)d->value[NW_TOS].n;
	set16(h + 6, frag[d->value[NW_FRAG].n]);
	h[8] = (uint8_t)d->value[NW_TTL].n;
	h[9] = (uint8_t)d->value[NW_PROTO].n;
	memcpy(h + 12, d->value[NW_SRC].b, 4);
	memcpy(h + 16, d->value[NW_DST].b, 4);
}

static void put_ipv6(struct frame *f, const struct field_set *d)
{
	uint8_t *h = put(f, NULL, 40), proto = (uint8_t)d->value[NW_PROTO].n;

	h[0] = (uint8_t)(0x60 | d->value[NW_TOS].n >> 4);
	h[1] = (uint8_t)(d->value[NW_TOS].n << 4);
	h[6] = d->value[NW_FRAG].n == FRAG_NO ? proto : IP_FRAGMENT;
	h[7] = (uint8_t)d->value[NW_TTL].n;
	memcpy(h + 8, d->value[IPV6_SRC].b, 16);
	memcpy(h + 24, d->value[IPV6_DST].b, 16);
	if (d->value[NW_FRAG].n == FRAG_NO)
		return;
	h = put(f, NULL, 8);
	h[0] = proto;
	set16(h + 2, d->value[NW_FRAG].n == FRAG_FIRST ? 1 : LATER_OFFSET);
}

static void put_nd(struct frame *f, const struct field_set *d, uint8_t *h)
{
	static const uint8_t kinds[] = {1, 2}; // options: source, target link-layer address

	if (h[0] == ND_ADVERTISE)
		h[4] = 0x60; // solicited, override
	put(f, d->value[ND_TARGET].b, 16);
	for (unsigned i = 0; i < 2; i++)
		if (d->given[ND_SLL + i]) {
			put(f, (uint8_t[]){kinds[i], 1}, 2);
			put(f, d->value[ND_SLL + i].b, 6);
		}
}

static void put_transport(struct frame *f, const struct field_set *d, unsigned is)
{
	uint8_t *h;

	if (is & IS_TCP) {
		h = put(f, NULL, 20);
		h[12] = (uint8_t)(0x50 | (d->value[TCP_FLAGS].n >> 8 & 0xf));
		h[13] = (uint8_t)d->value[TCP_FLAGS].n;
		set16(h + 14, 0xffff); // window
	} else if (is & IS_UDP) {
		h = put(f, NULL, 8);
	} else if (is & IS_SCTP) {
		h = put(f, NULL, 12);
	} else if (is & (IS_ICMP | IS_ICMPV6)) {
		h = put(f, NULL, 8);
		h[0] = (uint8_t)d->value[TP_SRC].n;
		h[1] = (uint8_t)d->value[TP_DST].n;
		if (is_nd(d))
			put_nd(f, d, h);
		return;
	} else {
		return;
	}
	set16(h, d->value[TP_SRC].n);
	set16(h + 2, d->value[TP_DST].n);
}

// Lengths and checksums, once the frame is as long as it will be. l3, l4: offsets; `end`: of the IP packet.
static void finish(struct frame *f, const struct field_set *d, unsigned is, uint32_t l3, uint32_t l4, uint32_t end)
{
	uint8_t *ip = f->b + l3, *h = f->b + l4;
	uint32_t n = end - l4;
	uint32_t acc = is & IS_IPV4 ? sum(ip + 12, 8, 0) : sum(ip + 8, 32, 0);

	if (is & IS_IPV4) {
		set16(ip + 2, end - l3);
		set16(ip + 10, folded(sum(ip, 20, 0)));
	} else {
		set16(ip + 4, end - l3 - 40);
	}
	if (d->value[NW_FRAG].n == FRAG_LATER)
		return;
	acc += n + d->value[NW_PROTO].n;
	if (is & IS_TCP) {
		set16(h + 16, folded(sum(h, n, acc)));
	} else if (is & IS_UDP) {
		set16(h + 4, n);
		uint16_t c = folded(sum(h, n, acc));
		set16(h + 6, c ? c : 0xffff);
	} else if (is & IS_ICMP) {
		set16(h + 2, folded(sum(h, n, 0)));
	} else if (is & IS_ICMPV6) {
		set16(h + 2, folded(sum(h, n, acc)));
	} else if (is & IS_SCTP) {
		uint32_t crc = crc32c(h, n); // little-endian on the wire
		memcpy(h + 8, &(uint32_t){htole32(crc)}, 4);
	}
}

static int write_frame(struct frame *f, const struct field_set *d, unsigned is, char **error)
{
	bool first = (is & IS_IP) && d->value[NW_FRAG].n == FRAG_FIRST, llc = d->value[DL_TYPE].n == FIELD_ETH_LLC;
	uint32_t l2, l3, l4, end;

	put_ethernet(f, d);
	l2 = l3 = f->len;
	if (is & IS_ARP)
		put_arp(f, d);
	else if (is & IS_IPV4)
		put_ipv4(f, d);
	else if (is & IS_IPV6)
		put_ipv6(f, d);
	else if (llc)
		put(f, "\x42\x42\x03", 3); // the bridge protocol's LLC header
	l4 = f->len;
	if ((is & IS_IP) && d->value[NW_FRAG].n != FRAG_LATER)
		put_transport(f, d, is);
	if ((is & IS_IP) && d->value[NW_FRAG].n != FRAG_NO && f->len == l4)
		put(f, NULL, 8); // a fragment has something in it
	while (first && (f->len - l4) % 8) // RFC 791 section 3.2
		put(f, NULL, 1);
	uint32_t want = d->given[PACKET_LEN] ? d->value[PACKET_LEN].n : f->len;
	if (want < f->len)
		return field_refuse(error, "packet_len=%u: the headers alone take %u bytes", want, f->len);
	if (first && (want - l4) % 8)
		return field_refuse(error, "packet_len=%u: a first fragment carries a multiple of 8 bytes, so %u would do", want, want - (want - l4) % 8);
	put(f, NULL, want - f->len);
	end = f->len;
	if (is & IS_IP)
		finish(f, d, is, l3, l4, end);
	if (llc && end - l2 > 1500)
		return field_refuse(error, "packet_len=%u: a frame of IEEE 802.2 ends at 1500 bytes behind its length", want);
	if (llc)
		set16(f->b + l2 - 2, end - l2);
	if (!d->given[PACKET_LEN] && f->len < MIN_FRAME)
		put(f, NULL, MIN_FRAME - f->len);
	return (int)f->len;
}

// ---- the frame itself

static bool is_hexadecimal(const char *text)
{
	bool any = false;

	for (; *text; text++) {
		if (isxdigit((unsigned char)*text))
			any = true;
		else if (*text != ':' && !isspace((unsigned char)*text))
			return false;
	}
	return any;
}

static int read_hexadecimal(const char *text, uint8_t frame[COMPOSE_MAX], char **error)
{
	unsigned digits = 0;

	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (!isxdigit(c))
			continue;
		if (digits == 2 * COMPOSE_MAX)
			return field_refuse(error, "the frame is longer than %u bytes", COMPOSE_MAX);
		uint8_t v = (uint8_t)(isdigit(c) ? c - '0' : tolower(c) - 'a' + 10);
		frame[digits / 2] = digits & 1 ? (uint8_t)(frame[digits / 2] | v) : (uint8_t)(v << 4);
		digits++;
	}
	if (digits & 1)
		return field_refuse(error, "the frame has %u hexadecimal digits: half a byte is missing", digits);
	return (int)(digits / 2);
}

int compose(const char *text, const struct compose_defaults *known, uint8_t frame[COMPOSE_MAX], char **error)
{
	struct field_set d = {0};
	struct frame f = {.b = frame};

	*error = NULL;
	if (is_hexadecimal(text))
		return read_hexadecimal(text, frame, error);
	int rc = field_set_read(&d, text, FOR_PACKET, error);
	if (rc < 0)
		return rc;
	if (!rc)
		return field_refuse(error, "the packet's description is empty: write something like icmp,nw_dst=192.0.2.1");
	unsigned is = field_set_is(&d);
	rc = check(&d, is, error);
	if (rc)
		return rc;
	add_defaults(&d, is, known);
	return write_frame(&f, &d, is, error);
}
