// compose: see compose.h.
#include "compose.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
	MIN_FRAME = 60, // IEEE 802.3 clause 4.2.3.3, without the frame check sequence
	ETH_IPV4 = 0x0800,
	ETH_ARP = 0x0806,
	ETH_VLAN = 0x8100,
	ETH_IPV6 = 0x86dd,
	ETH_QINQ = 0x88a8,
	ETH_LLC = 0x05ff, // match syntax: a frame of IEEE 802.2, whose type field is a length
	IP_ICMP = 1,
	IP_TCP = 6,
	IP_UDP = 17,
	IP_FRAGMENT = 44,
	IP_ICMPV6 = 58,
	IP_SCTP = 132,
	LATER_OFFSET = 1480, // bytes before a later fragment: what a first one on Ethernet holds
};

// What the packet is, so that a field can say what it is a field of.
enum {
	IS_IPV4 = 1 << 0,
	IS_IPV6 = 1 << 1,
	IS_ARP = 1 << 2,
	IS_TCP = 1 << 3,
	IS_UDP = 1 << 4,
	IS_SCTP = 1 << 5,
	IS_ICMP = 1 << 6,
	IS_ICMPV6 = 1 << 7,
	IS_IP = IS_IPV4 | IS_IPV6,
	IS_ANY = ~0,
};

enum kind {
	NUMBER,
	MAC,
	IPV4,
	IPV6,
	FLAGS,
	FRAG,
};

enum id {
	DL_SRC,
	DL_DST,
	DL_TYPE,
	DL_VLAN,
	DL_VLAN_PCP,
	NW_SRC,
	NW_DST,
	IPV6_SRC,
	IPV6_DST,
	NW_PROTO,
	NW_TTL,
	NW_TOS,
	NW_FRAG,
	TP_SRC, // ICMP: type
	TP_DST, // ICMP: code
	TCP_FLAGS,
	ARP_SHA,
	ARP_THA,
	PACKET_LEN,
	ID_N
};

// Names that set the same thing have the same id. `of`: what the packet must be, one of them; `lacks` says so in words.
struct field {
	const char *name;
	enum id id;
	enum kind kind;
	uint32_t lo, hi;
	unsigned of;
	const char *lacks;
};

#define NEEDS_IPV4 (IS_IPV4 | IS_ARP), "ip or arp"
#define NEEDS_PORTS (IS_TCP | IS_UDP | IS_SCTP | IS_ICMP | IS_ICMPV6), "a protocol with ports"

static const struct field fields[] = {
	{"dl_src", DL_SRC, MAC, 0, 0, IS_ANY, ""},
	{"eth_src", DL_SRC, MAC, 0, 0, IS_ANY, ""},
	{"dl_dst", DL_DST, MAC, 0, 0, IS_ANY, ""},
	{"eth_dst", DL_DST, MAC, 0, 0, IS_ANY, ""},
	{"dl_type", DL_TYPE, NUMBER, ETH_LLC, 0xffff, IS_ANY, ""},
	{"eth_type", DL_TYPE, NUMBER, ETH_LLC, 0xffff, IS_ANY, ""},
	{"dl_vlan", DL_VLAN, NUMBER, 0, 4095, IS_ANY, ""},
	{"vlan_vid", DL_VLAN, NUMBER, 0, 4095, IS_ANY, ""},
	{"dl_vlan_pcp", DL_VLAN_PCP, NUMBER, 0, 7, IS_ANY, ""},
	{"vlan_pcp", DL_VLAN_PCP, NUMBER, 0, 7, IS_ANY, ""},
	{"nw_src", NW_SRC, IPV4, 0, 0, NEEDS_IPV4},
	{"ip_src", NW_SRC, IPV4, 0, 0, NEEDS_IPV4},
	{"arp_spa", NW_SRC, IPV4, 0, 0, IS_ARP, "arp"},
	{"nw_dst", NW_DST, IPV4, 0, 0, NEEDS_IPV4},
	{"ip_dst", NW_DST, IPV4, 0, 0, NEEDS_IPV4},
	{"arp_tpa", NW_DST, IPV4, 0, 0, IS_ARP, "arp"},
	{"ipv6_src", IPV6_SRC, IPV6, 0, 0, IS_IPV6, "ipv6"},
	{"ipv6_dst", IPV6_DST, IPV6, 0, 0, IS_IPV6, "ipv6"},
	{"nw_proto", NW_PROTO, NUMBER, 0, 255, IS_IP | IS_ARP, "ip, ipv6 or arp"},
	{"ip_proto", NW_PROTO, NUMBER, 0, 255, IS_IP, "ip or ipv6"},
	{"arp_op", NW_PROTO, NUMBER, 1, 255, IS_ARP, "arp"},
	{"nw_ttl", NW_TTL, NUMBER, 0, 255, IS_IP, "ip or ipv6"},
	{"nw_tos", NW_TOS, NUMBER, 0, 255, IS_IP, "ip or ipv6"},
	{"nw_frag", NW_FRAG, FRAG, 0, 0, IS_IP, "ip or ipv6"},
	{"ip_frag", NW_FRAG, FRAG, 0, 0, IS_IP, "ip or ipv6"},
	{"tp_src", TP_SRC, NUMBER, 0, 65535, NEEDS_PORTS},
	{"tcp_src", TP_SRC, NUMBER, 0, 65535, IS_TCP, "tcp"},
	{"udp_src", TP_SRC, NUMBER, 0, 65535, IS_UDP, "udp"},
	{"sctp_src", TP_SRC, NUMBER, 0, 65535, IS_SCTP, "sctp"},
	{"icmp_type", TP_SRC, NUMBER, 0, 255, IS_ICMP, "icmp"},
	{"icmpv6_type", TP_SRC, NUMBER, 0, 255, IS_ICMPV6, "icmp6"},
	{"tp_dst", TP_DST, NUMBER, 0, 65535, NEEDS_PORTS},
	{"tcp_dst", TP_DST, NUMBER, 0, 65535, IS_TCP, "tcp"},
	{"udp_dst", TP_DST, NUMBER, 0, 65535, IS_UDP, "udp"},
	{"sctp_dst", TP_DST, NUMBER, 0, 65535, IS_SCTP, "sctp"},
	{"icmp_code", TP_DST, NUMBER, 0, 255, IS_ICMP, "icmp"},
	{"icmpv6_code", TP_DST, NUMBER, 0, 255, IS_ICMPV6, "icmp6"},
	{"tcp_flags", TCP_FLAGS, FLAGS, 0, 0xfff, IS_TCP, "tcp"},
	{"arp_sha", ARP_SHA, MAC, 0, 0, IS_ARP, "arp"},
	{"arp_tha", ARP_THA, MAC, 0, 0, IS_ARP, "arp"},
	{"packet_len", PACKET_LEN, NUMBER, 14, COMPOSE_MAX, IS_ANY, ""},
};

static const struct {
	const char *name;
	uint16_t type;
	int16_t proto; // -1: any
} words[] = {
	{"ip", ETH_IPV4, -1},	     {"ipv6", ETH_IPV6, -1},	     {"arp", ETH_ARP, -1},
	{"tcp", ETH_IPV4, IP_TCP},   {"udp", ETH_IPV4, IP_UDP},	     {"sctp", ETH_IPV4, IP_SCTP},   {"icmp", ETH_IPV4, IP_ICMP},
	{"tcp6", ETH_IPV6, IP_TCP},  {"udp6", ETH_IPV6, IP_UDP},     {"sctp6", ETH_IPV6, IP_SCTP},  {"icmp6", ETH_IPV6, IP_ICMPV6},
};

// RFC 9293, RFC 3168, RFC 3540: bit by bit.
static const char *const flag_names[] = {"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns"};
static const char *const frag_names[] = {"no", "first", "later"};
enum {
	FRAG_NO,
	FRAG_FIRST,
	FRAG_LATER,
};

union value {
	uint32_t n;
	uint8_t b[16]; // an address, network order
};

struct description {
	union value v[ID_N];
	const struct field *given[ID_N]; // the name it was given by, NULL: left out
};

// The frame as it grows. What does not fit is counted but not written.
struct frame {
	uint8_t *b;
	uint32_t len;
};

static __attribute__((format(printf, 2, 3))) int refuse(char **error, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	if (vasprintf(error, fmt, args) < 0)
		*error = NULL;
	va_end(args);
	return -EINVAL;
}

// ---- reading the description

static bool read_number(const char *s, uint32_t *n)
{
	char *end;

	if (!isdigit((unsigned char)*s))
		return false;
	errno = 0;
	unsigned long v = strtoul(s, &end, 0);
	*n = (uint32_t)v;
	return !*end && !errno && v <= UINT32_MAX;
}

static bool read_mac(const char *s, uint8_t mac[6])
{
	for (int i = 0; i < 6; i++) {
		char *end;

		if (!isxdigit((unsigned char)*s))
			return false;
		unsigned long v = strtoul(s, &end, 16);
		if (end - s > 2 || v > 255 || *end != (i < 5 ? ':' : '\0'))
			return false;
		mac[i] = (uint8_t)v;
		s = end + 1;
	}
	return true;
}

static bool read_name(const char *s, size_t len, const char *const *names, unsigned n, uint32_t *index)
{
	for (*index = 0; *index < n; ++*index)
		if (strlen(names[*index]) == len && !strncasecmp(names[*index], s, len))
			return true;
	return false;
}

// syn|ack, or a number.
static bool read_flags(const char *s, uint32_t *flags)
{
	uint32_t bit;

	if (read_number(s, flags))
		return true;
	for (*flags = 0;; s++) {
		size_t len = strcspn(s, "|");

		if (!read_name(s, len, flag_names, sizeof flag_names / sizeof flag_names[0], &bit))
			return false;
		*flags |= 1u << bit;
		s += len;
		if (!*s)
			return true;
	}
}

static int read_value(const struct field *f, const char *s, union value *v, char **error)
{
	switch (f->kind) {
	case NUMBER:
		if (!read_number(s, &v->n) || v->n < f->lo || v->n > f->hi)
			return refuse(error, "%s=%s: a number from %u to %u is needed", f->name, s, f->lo, f->hi);
		return 0;
	case MAC:
		return read_mac(s, v->b) ? 0 : refuse(error, "%s=%s: an address like 52:54:00:00:00:01 is needed", f->name, s);
	case IPV4:
		return inet_pton(AF_INET, s, v->b) == 1 ? 0 : refuse(error, "%s=%s: an address like 192.0.2.1 is needed", f->name, s);
	case IPV6:
		return inet_pton(AF_INET6, s, v->b) == 1 ? 0 : refuse(error, "%s=%s: an address like 2001:db8::1 is needed", f->name, s);
	case FLAGS:
		if (!read_flags(s, &v->n) || v->n > f->hi)
			return refuse(error, "%s=%s: names like syn|ack are needed, of fin, syn, rst, psh, ack, urg, ece, cwr, ns", f->name, s);
		return 0;
	case FRAG:
		return read_name(s, strlen(s), frag_names, 3, &v->n) ? 0 :
								       refuse(error, "%s=%s: no, first or later is needed", f->name, s);
	}
	return -EINVAL;
}

static const struct field *field_find(const char *name)
{
	for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
		if (!strcasecmp(fields[i].name, name))
			return &fields[i];
	return NULL;
}

// Two words may say the same thing, but not different ones.
static int set(struct description *d, const struct field *f, const union value *v, const char *word, char **error)
{
	if (d->given[f->id] && memcmp(&d->v[f->id], v, sizeof *v))
		return refuse(error, "%s: another word gave the packet a different %s already", word, f->name);
	d->given[f->id] = f;
	d->v[f->id] = *v;
	return 0;
}

static int read_protocol(struct description *d, const char *word, char **error)
{
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
		if (strcasecmp(words[i].name, word))
			continue;
		int rc = set(d, field_find("dl_type"), &(union value){.n = words[i].type}, word, error);
		if (!rc && words[i].proto >= 0)
			rc = set(d, field_find("nw_proto"), &(union value){.n = (uint32_t)words[i].proto}, word, error);
		return rc;
	}
	return refuse(error, field_find(word) ? "%s needs a value: %s=..." : "%s: no such field or protocol", word, word);
}

static int read_word(struct description *d, char *word, char **error)
{
	char *value = strchr(word, '=');

	if (!value)
		return read_protocol(d, word, error);
	*value++ = '\0';
	const struct field *f = field_find(word);
	union value v = {0};
	if (!f)
		return refuse(error, "%s: no such field of a packet", word);
	int rc = read_value(f, value, &v, error);
	return rc ? rc : set(d, f, &v, word, error);
}

static int read_description(struct description *d, const char *text, char **error)
{
	char *copy = strdup(text), *save = NULL;
	int rc = 0, n = 0;

	if (!copy)
		return refuse(error, "there is no memory for the description");
	for (char *word = strtok_r(copy, ", \t\r\n", &save); word && !rc; word = strtok_r(NULL, ", \t\r\n", &save), n++)
		rc = read_word(d, word, error);
	if (!rc && !n)
		rc = refuse(error, "the packet's description is empty: write something like icmp,nw_dst=192.0.2.1");
	free(copy);
	return rc;
}

// ---- what the words mean together

static unsigned what(const struct description *d)
{
	uint32_t type = d->given[DL_TYPE] ? d->v[DL_TYPE].n : 0;
	unsigned is = type == ETH_IPV4 ? IS_IPV4 : type == ETH_IPV6 ? IS_IPV6 : type == ETH_ARP ? IS_ARP : 0;

	if (!(is & IS_IP) || !d->given[NW_PROTO])
		return is;
	switch (d->v[NW_PROTO].n) {
	case IP_TCP:
		return is | IS_TCP;
	case IP_UDP:
		return is | IS_UDP;
	case IP_SCTP:
		return is | IS_SCTP;
	case IP_ICMP:
		return is & IS_IPV4 ? is | IS_ICMP : is;
	case IP_ICMPV6:
		return is & IS_IPV6 ? is | IS_ICMPV6 : is;
	default:
		return is;
	}
}

static int check(const struct description *d, unsigned is, char **error)
{
	for (int i = 0; i < ID_N; i++) {
		const struct field *f = d->given[i];

		if (f && f->of != (unsigned)IS_ANY && !(f->of & is))
			return refuse(error, "%s needs %s", f->name, f->lacks);
		// tp_src and tp_dst are type and code of ICMP too.
		if (f && (i == TP_SRC || i == TP_DST) && (is & (IS_ICMP | IS_ICMPV6)) && d->v[i].n > 255)
			return refuse(error, "%s=%u: types and codes of ICMP end at 255", f->name, d->v[i].n);
	}
	if (d->given[DL_TYPE] && (d->v[DL_TYPE].n == ETH_VLAN || d->v[DL_TYPE].n == ETH_QINQ))
		return refuse(error, "dl_type=0x%04x is a tag: write dl_vlan, or the whole frame in hexadecimal digits", d->v[DL_TYPE].n);
	if (d->given[DL_TYPE] && d->v[DL_TYPE].n > ETH_LLC && d->v[DL_TYPE].n < 0x600)
		return refuse(error, "dl_type=0x%04x: types begin at 0x0600", d->v[DL_TYPE].n);
	if (d->given[NW_FRAG] && d->v[NW_FRAG].n == FRAG_LATER)
		for (int i = TP_SRC; i <= TCP_FLAGS; i++)
			if (d->given[i])
				return refuse(error, "%s: a later fragment has no transport header", d->given[i]->name);
	return 0;
}

static void default_to(struct description *d, enum id id, const union value *v)
{
	if (!d->given[id])
		d->v[id] = *v;
}

#define DEFAULT_NUMBER(d, id, number) default_to(d, id, &(union value){.n = (number)})
#define DEFAULT_BYTES(d, id, ...) default_to(d, id, &(union value){.b = {__VA_ARGS__}})

// A group has its address of layer 2 from that of layer 3; an ARP request asks everybody.
static void default_destination(struct description *d, unsigned is)
{
	const uint8_t *v4 = d->v[NW_DST].b, *v6 = d->v[IPV6_DST].b;

	if ((is & IS_IPV4) && (v4[0] & 0xf0) == 0xe0) // RFC 1112 section 6.4
		DEFAULT_BYTES(d, DL_DST, 0x01, 0x00, 0x5e, v4[1] & 0x7f, v4[2], v4[3]);
	else if ((is & IS_IPV6) && v6[0] == 0xff) // RFC 2464 section 7
		DEFAULT_BYTES(d, DL_DST, 0x33, 0x33, v6[12], v6[13], v6[14], v6[15]);
	else if (((is & IS_ARP) && d->v[NW_PROTO].n == 1) || ((is & IS_IPV4) && !memcmp(v4, "\xff\xff\xff\xff", 4)))
		DEFAULT_BYTES(d, DL_DST, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
}

static void add_defaults(struct description *d, unsigned is, const struct compose_defaults *known)
{
	union value src = {0}, dst = {0};

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
	default_destination(d, is);
	if (known) {
		memcpy(src.b, known->dl_src, 6);
		memcpy(dst.b, known->dl_dst, 6);
	}
	default_to(d, DL_SRC, &src);
	if (!d->given[DL_DST] && !memcmp(d->v[DL_DST].b, "\0\0\0\0\0\0", 6))
		d->v[DL_DST] = dst;
	default_to(d, ARP_SHA, &d->v[DL_SRC]);
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

static void put_ethernet(struct frame *f, const struct description *d)
{
	put(f, d->v[DL_DST].b, 6);
	put(f, d->v[DL_SRC].b, 6);
	if (d->given[DL_VLAN] || d->given[DL_VLAN_PCP]) {
		put16(f, ETH_VLAN);
		put16(f, d->v[DL_VLAN_PCP].n << 13 | d->v[DL_VLAN].n);
	}
	put16(f, d->given[DL_TYPE] ? d->v[DL_TYPE].n : 0x88b5); // IEEE 802: for local experiments
}

static void put_arp(struct frame *f, const struct description *d)
{
	put(f, "\0\1\x08\0\6\4", 6);
	put16(f, d->v[NW_PROTO].n);
	put(f, d->v[ARP_SHA].b, 6);
	put(f, d->v[NW_SRC].b, 4);
	put(f, d->v[ARP_THA].b, 6);
	put(f, d->v[NW_DST].b, 4);
}

static void put_ipv4(struct frame *f, const struct description *d)
{
	static const uint16_t frag[] = {[FRAG_NO] = 0x4000, [FRAG_FIRST] = 0x2000, [FRAG_LATER] = LATER_OFFSET / 8};
	uint8_t *h = put(f, NULL, 20);

	h[0] = 0x45;
	h[1] = (uint8_t)d->v[NW_TOS].n;
	set16(h + 6, frag[d->v[NW_FRAG].n]);
	h[8] = (uint8_t)d->v[NW_TTL].n;
	h[9] = (uint8_t)d->v[NW_PROTO].n;
	memcpy(h + 12, d->v[NW_SRC].b, 4);
	memcpy(h + 16, d->v[NW_DST].b, 4);
}

static void put_ipv6(struct frame *f, const struct description *d)
{
	uint8_t *h = put(f, NULL, 40), proto = (uint8_t)d->v[NW_PROTO].n;

	h[0] = (uint8_t)(0x60 | d->v[NW_TOS].n >> 4);
	h[1] = (uint8_t)(d->v[NW_TOS].n << 4);
	h[6] = d->v[NW_FRAG].n == FRAG_NO ? proto : IP_FRAGMENT;
	h[7] = (uint8_t)d->v[NW_TTL].n;
	memcpy(h + 8, d->v[IPV6_SRC].b, 16);
	memcpy(h + 24, d->v[IPV6_DST].b, 16);
	if (d->v[NW_FRAG].n == FRAG_NO)
		return;
	h = put(f, NULL, 8);
	h[0] = proto;
	set16(h + 2, d->v[NW_FRAG].n == FRAG_FIRST ? 1 : LATER_OFFSET);
}

static void put_transport(struct frame *f, const struct description *d, unsigned is)
{
	uint8_t *h;

	if (is & IS_TCP) {
		h = put(f, NULL, 20);
		h[12] = (uint8_t)(0x50 | (d->v[TCP_FLAGS].n >> 8 & 0xf));
		h[13] = (uint8_t)d->v[TCP_FLAGS].n;
		set16(h + 14, 0xffff); // window
	} else if (is & IS_UDP) {
		h = put(f, NULL, 8);
	} else if (is & IS_SCTP) {
		h = put(f, NULL, 12);
	} else if (is & (IS_ICMP | IS_ICMPV6)) {
		h = put(f, NULL, 8);
		h[0] = (uint8_t)d->v[TP_SRC].n;
		h[1] = (uint8_t)d->v[TP_DST].n;
		return;
	} else {
		return;
	}
	set16(h, d->v[TP_SRC].n);
	set16(h + 2, d->v[TP_DST].n);
}

// Lengths and checksums, once the frame is as long as it will be. l3, l4: offsets; `end`: of the IP packet.
static void finish(struct frame *f, const struct description *d, unsigned is, uint32_t l3, uint32_t l4, uint32_t end)
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
	if (d->v[NW_FRAG].n == FRAG_LATER)
		return;
	acc += n + d->v[NW_PROTO].n;
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

static int write_frame(struct frame *f, const struct description *d, unsigned is, char **error)
{
	bool first = (is & IS_IP) && d->v[NW_FRAG].n == FRAG_FIRST, llc = d->v[DL_TYPE].n == ETH_LLC;
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
	if ((is & IS_IP) && d->v[NW_FRAG].n != FRAG_LATER)
		put_transport(f, d, is);
	if ((is & IS_IP) && d->v[NW_FRAG].n != FRAG_NO && f->len == l4)
		put(f, NULL, 8); // a fragment has something in it
	while (first && (f->len - l4) % 8) // RFC 791 section 3.2
		put(f, NULL, 1);
	uint32_t want = d->given[PACKET_LEN] ? d->v[PACKET_LEN].n : f->len;
	if (want < f->len)
		return refuse(error, "packet_len=%u: the headers alone take %u bytes", want, f->len);
	if (first && (want - l4) % 8)
		return refuse(error, "packet_len=%u: a first fragment carries a multiple of 8 bytes, so %u would do", want, want - (want - l4) % 8);
	put(f, NULL, want - f->len);
	end = f->len;
	if (is & IS_IP)
		finish(f, d, is, l3, l4, end);
	if (llc && end - l2 > 1500)
		return refuse(error, "packet_len=%u: a frame of IEEE 802.2 ends at 1500 bytes behind its length", want);
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
			return refuse(error, "the frame is longer than %u bytes", COMPOSE_MAX);
		uint8_t v = (uint8_t)(isdigit(c) ? c - '0' : tolower(c) - 'a' + 10);
		frame[digits / 2] = digits & 1 ? (uint8_t)(frame[digits / 2] | v) : (uint8_t)(v << 4);
		digits++;
	}
	if (digits & 1)
		return refuse(error, "the frame has %u hexadecimal digits: half a byte is missing", digits);
	return (int)(digits / 2);
}

int compose(const char *text, const struct compose_defaults *known, uint8_t frame[COMPOSE_MAX], char **error)
{
	struct description d = {0};
	struct frame f = {.b = frame};

	*error = NULL;
	if (is_hexadecimal(text))
		return read_hexadecimal(text, frame, error);
	int rc = read_description(&d, text, error);
	if (rc)
		return rc;
	unsigned is = what(&d);
	rc = check(&d, is, error);
	if (rc)
		return rc;
	add_defaults(&d, is, known);
	return write_frame(&f, &d, is, error);
}
