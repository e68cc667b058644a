// field: see field.h.
#include "field.h"
#include "compose.h"
#include "parse.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define NEEDS_IPV4 (IS_IPV4 | IS_ARP), "ip or arp"
#define NEEDS_IP IS_IP, "ip or ipv6"
#define NEEDS_PORTS (IS_TCP | IS_UDP | IS_SCTP | IS_ICMP | IS_ICMPV6), "a protocol with ports"
#define ALWAYS IS_ANY, ""
#define BOTH (FOR_PACKET | FOR_MATCH)
#define MASKED (BOTH | FOR_MASK)
#define SETTABLE (MASKED | FOR_SET)

static const struct field fields[] = {
	{"in_port", IN_PORT, FIELD_NAME, 0, 0, ALWAYS, FOR_MATCH},
	{"dl_src", DL_SRC, FIELD_MAC, 0, 0, ALWAYS, SETTABLE},
	{"eth_src", DL_SRC, FIELD_MAC, 0, 0, ALWAYS, SETTABLE},
	{"dl_dst", DL_DST, FIELD_MAC, 0, 0, ALWAYS, SETTABLE},
	{"eth_dst", DL_DST, FIELD_MAC, 0, 0, ALWAYS, SETTABLE},
	{"dl_type", DL_TYPE, FIELD_NUMBER, FIELD_ETH_LLC, 0xffff, ALWAYS, BOTH},
	{"eth_type", DL_TYPE, FIELD_NUMBER, FIELD_ETH_LLC, 0xffff, ALWAYS, BOTH},
	{"dl_vlan", DL_VLAN, FIELD_NUMBER, 0, 4095, ALWAYS, BOTH},
	{"vlan_vid", DL_VLAN, FIELD_NUMBER, 0, 4095, ALWAYS, BOTH},
	{"dl_vlan_pcp", DL_VLAN_PCP, FIELD_NUMBER, 0, 7, ALWAYS, FOR_PACKET},
	{"vlan_pcp", DL_VLAN_PCP, FIELD_NUMBER, 0, 7, ALWAYS, FOR_PACKET},
	{"vlan_tci", VLAN_TCI, FIELD_NUMBER, 0, 0x1fff, ALWAYS, FOR_MATCH | FOR_MASK},
	{"nw_src", NW_SRC, FIELD_IPV4, 0, 0, NEEDS_IPV4, SETTABLE},
	{"ip_src", NW_SRC, FIELD_IPV4, 0, 0, NEEDS_IPV4, SETTABLE},
	{"arp_spa", NW_SRC, FIELD_IPV4, 0, 0, IS_ARP, "arp", MASKED},
	{"nw_dst", NW_DST, FIELD_IPV4, 0, 0, NEEDS_IPV4, SETTABLE},
	{"ip_dst", NW_DST, FIELD_IPV4, 0, 0, NEEDS_IPV4, SETTABLE},
	{"arp_tpa", NW_DST, FIELD_IPV4, 0, 0, IS_ARP, "arp", MASKED},
	{"ipv6_src", IPV6_SRC, FIELD_IPV6, 0, 0, IS_IPV6, "ipv6", SETTABLE},
	{"ipv6_dst", IPV6_DST, FIELD_IPV6, 0, 0, IS_IPV6, "ipv6", SETTABLE},
	{"nw_proto", NW_PROTO, FIELD_NUMBER, 0, 255, IS_IP | IS_ARP, "ip, ipv6 or arp", BOTH},
	{"ip_proto", NW_PROTO, FIELD_NUMBER, 0, 255, NEEDS_IP, BOTH},
	{"arp_op", NW_PROTO, FIELD_NUMBER, 1, 255, IS_ARP, "arp", BOTH},
	{"nw_ttl", NW_TTL, FIELD_NUMBER, 0, 255, NEEDS_IP, FOR_PACKET},
	{"nw_tos", NW_TOS, FIELD_NUMBER, 0, 255, NEEDS_IP, BOTH | FOR_SET},
	{"ip_dscp", NW_TOS, FIELD_DSCP, 0, 63, NEEDS_IP, BOTH | FOR_SET},
	{"nw_frag", NW_FRAG, FIELD_FRAG, 0, 0, NEEDS_IP, FOR_PACKET},
	{"ip_frag", NW_FRAG, FIELD_FRAG, 0, 0, NEEDS_IP, FOR_PACKET},
	{"tp_src", TP_SRC, FIELD_NUMBER, 0, 65535, NEEDS_PORTS, SETTABLE},
	{"tcp_src", TP_SRC, FIELD_NUMBER, 0, 65535, IS_TCP, "tcp", SETTABLE},
	{"udp_src", TP_SRC, FIELD_NUMBER, 0, 65535, IS_UDP, "udp", SETTABLE},
	{"sctp_src", TP_SRC, FIELD_NUMBER, 0, 65535, IS_SCTP, "sctp", MASKED},
	{"icmp_type", TP_SRC, FIELD_NUMBER, 0, 255, IS_ICMP, "icmp", BOTH},
	{"icmpv6_type", TP_SRC, FIELD_NUMBER, 0, 255, IS_ICMPV6, "icmp6", BOTH},
	{"tp_dst", TP_DST, FIELD_NUMBER, 0, 65535, NEEDS_PORTS, SETTABLE},
	{"tcp_dst", TP_DST, FIELD_NUMBER, 0, 65535, IS_TCP, "tcp", SETTABLE},
	{"udp_dst", TP_DST, FIELD_NUMBER, 0, 65535, IS_UDP, "udp", SETTABLE},
	{"sctp_dst", TP_DST, FIELD_NUMBER, 0, 65535, IS_SCTP, "sctp", MASKED},
	{"icmp_code", TP_DST, FIELD_NUMBER, 0, 255, IS_ICMP, "icmp", BOTH},
	{"icmpv6_code", TP_DST, FIELD_NUMBER, 0, 255, IS_ICMPV6, "icmp6", BOTH},
	{"tcp_flags", TCP_FLAGS, FIELD_FLAGS, 0, 0xfff, IS_TCP, "tcp", FOR_PACKET},
	{"arp_sha", ARP_SHA, FIELD_MAC, 0, 0, IS_ARP, "arp", FOR_PACKET},
	{"arp_tha", ARP_THA, FIELD_MAC, 0, 0, IS_ARP, "arp", FOR_PACKET},
	{"nd_target", ND_TARGET, FIELD_IPV6, 0, 0, IS_ICMPV6, "icmp6", FOR_PACKET},
	{"nd_sll", ND_SLL, FIELD_MAC, 0, 0, IS_ICMPV6, "icmp6", FOR_PACKET},
	{"nd_tll", ND_TLL, FIELD_MAC, 0, 0, IS_ICMPV6, "icmp6", FOR_PACKET},
	{"packet_len", PACKET_LEN, FIELD_NUMBER, 14, COMPOSE_LEN_MAX, ALWAYS, FOR_PACKET},
	{"class", CLASS, FIELD_CLASS, 0, 0, ALWAYS, FOR_MATCH},
	{"pkt_mark", PKT_MARK, FIELD_NUMBER, 0, UINT32_MAX, ALWAYS, FOR_SET},
};

static const struct {
	const char *name;
	uint16_t type;
	int16_t proto; // -1: any
} words[] = {
	{"ip", FIELD_ETH_IPV4, -1},
	{"ipv6", FIELD_ETH_IPV6, -1},
	{"arp", FIELD_ETH_ARP, -1},
	{"tcp", FIELD_ETH_IPV4, FIELD_IP_TCP},
	{"udp", FIELD_ETH_IPV4, FIELD_IP_UDP},
	{"sctp", FIELD_ETH_IPV4, FIELD_IP_SCTP},
	{"icmp", FIELD_ETH_IPV4, FIELD_IP_ICMP},
	{"tcp6", FIELD_ETH_IPV6, FIELD_IP_TCP},
	{"udp6", FIELD_ETH_IPV6, FIELD_IP_UDP},
	{"sctp6", FIELD_ETH_IPV6, FIELD_IP_SCTP},
	{"icmp6", FIELD_ETH_IPV6, FIELD_IP_ICMPV6},
};

// RFC 9293, RFC 3168, RFC 3540: bit by bit.
static const char *const flag_names[] = {"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns"};
static const char *const frag_names[] = {"no", "first", "later"};

int field_refuse(char **error, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	if (vasprintf(error, fmt, args) < 0)
		*error = NULL;
	va_end(args);
	return -EINVAL;
}

const struct field *field_find(const char *name)
{
	for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
		if (!strcasecmp(fields[i].name, name))
			return &fields[i];
	return NULL;
}

// ---- values

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

static int read_class(const struct field *f, const char *s, uint32_t *n, char **error)
{
	char known[512] = "";

	for (*n = 0; *n < CLASS_N; ++*n)
		if (!strcasecmp(traffic_class_name((enum traffic_class)*n), s))
			return 0;
	for (unsigned c = 0, len = 0; c < CLASS_N && len < sizeof known; c++)
		len += (unsigned)snprintf(known + len, sizeof known - len, "%s%s", c ? ", " : "", traffic_class_name((enum traffic_class)c));
	return field_refuse(error, "%s=%s: one of these is needed: %s", f->name, s, known);
}

int field_read(const struct field *f, const char *s, union field_value *v, char **error)
{
	memset(v, 0, sizeof *v);
	switch (f->kind) {
	case FIELD_NUMBER:
	case FIELD_DSCP:
		if (!read_number(s, &v->n) || v->n < f->lo || v->n > f->hi)
			return field_refuse(error, "%s=%s: a number from %u to %u is needed", f->name, s, f->lo, f->hi);
		if (f->kind == FIELD_DSCP)
			v->n <<= 2;
		return 0;
	case FIELD_MAC:
		return read_mac(s, v->b) ? 0 : field_refuse(error, "%s=%s: an address like 52:54:00:00:00:01 is needed", f->name, s);
	case FIELD_IPV4:
		return inet_pton(AF_INET, s, v->b) == 1 ? 0 : field_refuse(error, "%s=%s: an address like 192.0.2.1 is needed", f->name, s);
	case FIELD_IPV6:
		return inet_pton(AF_INET6, s, v->b) == 1 ? 0
							 : field_refuse(error, "%s=%s: an address like 2001:db8::1 is needed", f->name, s);
	case FIELD_FLAGS:
		if (!read_flags(s, &v->n) || v->n > f->hi)
			return field_refuse(error, "%s=%s: names like syn|ack are needed, of fin, syn, rst, psh, ack, urg, ece, cwr, ns", f->name,
					    s);
		return 0;
	case FIELD_FRAG:
		return read_name(s, strlen(s), frag_names, 3, &v->n) ? 0 : field_refuse(error, "%s=%s: no, first or later is needed", f->name, s);
	case FIELD_CLASS:
		return read_class(f, s, &v->n, error);
	case FIELD_NAME:
		return *s && strlen(s) < FIELD_NAME_MAX ? 0 : field_refuse(error, "%s=%s: the name of a port is needed", f->name, s);
	}
	return -EINVAL;
}

static void mask_all(const struct field *f, union field_value *mask)
{
	static const unsigned bytes[] = {[FIELD_MAC] = 6, [FIELD_IPV4] = 4, [FIELD_IPV6] = 16};

	memset(mask, 0, sizeof *mask);
	if (f->kind == FIELD_MAC || f->kind == FIELD_IPV4 || f->kind == FIELD_IPV6)
		memset(mask->b, 0xff, bytes[f->kind]);
	else
		mask->n = UINT32_MAX;
}

// Behind the slash: a prefix length for addresses of IP, else a value of the field's own kind.
static int read_mask(const struct field *f, const char *word, const char *s, union field_value *mask, char **error)
{
	uint32_t bits, most = f->kind == FIELD_IPV4 ? 32 : 128;
	char *why = NULL;

	if ((f->kind == FIELD_IPV4 || f->kind == FIELD_IPV6) && read_number(s, &bits)) {
		if (bits > most)
			return field_refuse(error, "%s: the prefix has %u bits at most", word, most);
		memset(mask, 0, sizeof *mask);
		for (uint32_t i = 0; i < bits; i++)
			mask->b[i / 8] |= (uint8_t)(0x80 >> i % 8);
		return 0;
	}
	if (!field_read(f, s, mask, &why))
		return 0;
	free(why);
	return field_refuse(error, "%s: %s is no mask%s", word, s, most == 32 || f->kind == FIELD_IPV6 ? " and no prefix length" : "");
}

// ---- words

// Two words may say the same thing, but not different ones.
static int set(struct field_set *d, const struct field *f, const union field_value *v, const union field_value *mask, const char *word, char **error)
{
	if (d->given[f->id] && (memcmp(&d->value[f->id], v, sizeof *v) || memcmp(&d->mask[f->id], mask, sizeof *mask)))
		return field_refuse(error, "%s: another word gave the packet a different %s already", word, f->name);
	d->given[f->id] = f;
	d->value[f->id] = *v;
	d->mask[f->id] = *mask;
	return 0;
}

static int set_number(struct field_set *d, const char *name, uint32_t n, const char *word, char **error)
{
	const struct field *f = field_find(name);
	union field_value v = {.n = 0}, mask;

	v.n = n;
	mask_all(f, &mask);
	return set(d, f, &v, &mask, word, error);
}

void field_set_default(struct field_set *d, enum field_id id, const union field_value *v)
{
	if (d->given[id])
		return;
	for (size_t i = 0; i < sizeof fields / sizeof fields[0] && !d->given[id]; i++)
		if (fields[i].id == id)
			d->given[id] = &fields[i];
	d->value[id] = *v;
	mask_all(d->given[id], &d->mask[id]);
}

static int read_protocol(struct field_set *d, const char *word, char **error)
{
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
		if (strcasecmp(words[i].name, word))
			continue;
		int rc = set_number(d, "dl_type", words[i].type, word, error);
		if (!rc && words[i].proto >= 0)
			rc = set_number(d, "nw_proto", (uint32_t)words[i].proto, word, error);
		return rc;
	}
	return field_refuse(error, field_find(word) ? "%s needs a value: %s=..." : "%s: no such field or protocol", word, word);
}

// Why a field of packets can't be one of rules.
static const char *not_for_rules(enum field_id id)
{
	switch (id) {
	case DL_VLAN_PCP:
		return "flows don't keep the priorities of tags apart";
	case NW_FRAG:
		return "write class=first-fragment or class=later-fragment";
	case TCP_FLAGS:
		return "flows don't keep flags apart; class=tcp-syn and class=tcp-fin/rst can be matched";
	case NW_TTL:
		return "flows don't keep the TTL apart; class=ttl<=1 can be matched";
	case PKT_MARK:
		return "there is one table of rules, and none of them comes behind the one that marks a packet; policies of routers (table Route_Policy) ask for marks";
	default:
		return "flows don't keep it apart";
	}
}

static int read_field(struct field_set *d, char *word, char *value, unsigned use, char **error)
{
	const struct field *f = field_find(word);
	union field_value v, mask;

	if (f && f->id == PKT_MARK && use == FOR_PACKET)
		return field_refuse(error, "%s: packets come without a mark; a rule (table Flow) gives them one", word);
	if (!f || (use == FOR_PACKET && !(f->uses & use)))
		return field_refuse(error, "%s: no such field of a packet", word);
	if (!(f->uses & use))
		return field_refuse(error, "%s can't be matched: %s", word, not_for_rules(f->id));
	mask_all(f, &mask);
	char *slash = use == FOR_MATCH && f->kind != FIELD_CLASS ? strchr(value, '/') : NULL;
	if (slash) {
		char *copy = strdup(value);

		*slash = '\0';
		int rc = f->uses & FOR_MASK ? read_mask(f, word, slash + 1, &mask, error)
					    : field_refuse(error, "%s=%s: %s takes no mask", word, copy ? copy : value, word);
		free(copy);
		if (rc)
			return rc;
	}
	// How match syntax says that there is no tag.
	if (use == FOR_MATCH && f->id == DL_VLAN && !slash && (!strcasecmp(value, "0xffff") || !strcmp(value, "65535")))
		return set_number(d, "vlan_tci", 0, word, error);
	int rc = field_read(f, value, &v, error);
	if (rc)
		return rc;
	if (f->kind == FIELD_NAME)
		snprintf(d->in_port, sizeof d->in_port, "%s", value);
	return set(d, f, &v, &mask, word, error);
}

int field_set_read(struct field_set *d, const char *text, unsigned use, char **error)
{
	char *copy = strdup(text), *save = NULL;
	int rc = 0, n = 0;

	if (!copy)
		return field_refuse(error, "there is no memory for the description");
	for (char *word = strtok_r(copy, ", \t\r\n", &save); word && !rc; word = strtok_r(NULL, ", \t\r\n", &save), n++) {
		char *value = strchr(word, '=');

		if (value)
			*value++ = '\0';
		rc = value ? read_field(d, word, value, use, error) : read_protocol(d, word, error);
	}
	free(copy);
	return rc ? rc : n;
}

// ---- what the words mean together

unsigned field_set_is(const struct field_set *d)
{
	uint32_t type = d->given[DL_TYPE] ? d->value[DL_TYPE].n : 0;
	unsigned is = type == FIELD_ETH_IPV4 ? IS_IPV4 : type == FIELD_ETH_IPV6 ? IS_IPV6 : type == FIELD_ETH_ARP ? IS_ARP : 0;

	if (!(is & IS_IP) || !d->given[NW_PROTO])
		return is;
	switch (d->value[NW_PROTO].n) {
	case FIELD_IP_TCP:
		return is | IS_TCP;
	case FIELD_IP_UDP:
		return is | IS_UDP;
	case FIELD_IP_SCTP:
		return is | IS_SCTP;
	case FIELD_IP_ICMP:
		return is & IS_IPV4 ? is | IS_ICMP : is;
	case FIELD_IP_ICMPV6:
		return is & IS_IPV6 ? is | IS_ICMPV6 : is;
	default:
		return is;
	}
}

int field_set_check(const struct field_set *d, unsigned is, char **error)
{
	for (int i = 0; i < FIELD_ID_N; i++) {
		const struct field *f = d->given[i];

		if (f && f->of != (unsigned)IS_ANY && !(f->of & is))
			return field_refuse(error, "%s needs %s", f->name, f->lacks);
		// tp_src and tp_dst are type and code of ICMP too.
		if (f && (i == TP_SRC || i == TP_DST) && (is & (IS_ICMP | IS_ICMPV6)) && d->value[i].n > 255)
			return field_refuse(error, "%s=%u: types and codes of ICMP end at 255", f->name, d->value[i].n);
	}
	if (d->given[DL_TYPE] && d->value[DL_TYPE].n > FIELD_ETH_LLC && d->value[DL_TYPE].n < 0x600)
		return field_refuse(error, "dl_type=0x%04x: types begin at 0x0600", d->value[DL_TYPE].n);
	return 0;
}
