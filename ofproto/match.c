// match: see match.h.
#include "match.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <strings.h>

// Where a field is in the key. Numbers of two bytes are in network order but VLANs.
struct place {
	uint16_t ofs;
	uint8_t bytes;
	bool host_order;
	uint32_t bit; // KEY_BIT()
};

#define PLACE(member, host, id) {offsetof(struct flow_key, member), sizeof(((struct flow_key *)0)->member), host, KEY_BIT(id)}

static const struct place places[FIELD_ID_N] = {
	[DL_SRC] = PLACE(src, false, DL_SRC),
	[DL_DST] = PLACE(dst, false, DL_DST),
	[DL_TYPE] = PLACE(ethertype, false, DL_TYPE),
	[DL_VLAN] = PLACE(vlan, true, VLAN),
	[VLAN_TCI] = PLACE(vlan, true, VLAN),
	[NW_SRC] = PLACE(v4.src, false, NW_SRC),
	[NW_DST] = PLACE(v4.dst, false, NW_DST),
	[IPV6_SRC] = PLACE(v6.src, false, NW_SRC),
	[IPV6_DST] = PLACE(v6.dst, false, NW_DST),
	[NW_PROTO] = PLACE(proto, false, NW_PROTO),
	[NW_TOS] = PLACE(tos, false, NW_TOS),
	[TP_SRC] = PLACE(sport, false, TP_SRC),
	[TP_DST] = PLACE(dport, false, TP_DST),
	[CLASS] = PLACE(class, false, CLASS),
};

static void put(struct flow_key *k, const struct place *at, const struct field *f, const union field_value *v)
{
	uint8_t *to = (uint8_t *)k + at->ofs;
	uint16_t n16 = at->host_order ? (uint16_t)v->n : htons((uint16_t)v->n);

	if (f->kind == FIELD_MAC || f->kind == FIELD_IPV4 || f->kind == FIELD_IPV6)
		memcpy(to, v->b, at->bytes);
	else if (at->bytes == 2)
		memcpy(to, &n16, 2);
	else
		*to = (uint8_t)v->n;
}

static int check(const struct field_set *d, unsigned is, char **error)
{
	int rc = field_set_check(d, is, error);

	if (rc)
		return rc;
	if (d->given[DL_TYPE] && (d->value[DL_TYPE].n == FIELD_ETH_VLAN || d->value[DL_TYPE].n == FIELD_ETH_QINQ))
		return field_refuse(error, "dl_type=0x%04x is a tag: write dl_vlan or vlan_tci=0x1000/0x1000", d->value[DL_TYPE].n);
	if (d->given[NW_TOS] && (d->value[NW_TOS].n & 3))
		return field_refuse(error, "%s=%u: the two lowest bits are ECN's, which rules don't look at", d->given[NW_TOS]->name,
				    d->value[NW_TOS].n);
	if (d->given[DL_VLAN] && d->given[VLAN_TCI])
		return field_refuse(error, "%s and %s both speak of the tag: write one of them", d->given[DL_VLAN]->name, d->given[VLAN_TCI]->name);
	return 0;
}

static bool is_any(const char *text)
{
	while (isspace((unsigned char)*text))
		text++;
	return !*text || !strcasecmp(text, "any") || !strcasecmp(text, "all");
}

int match_parse(const char *text, struct match *m, char **error)
{
	struct field_set d = {0};

	memset(m, 0, sizeof *m);
	*error = NULL;
	int rc = is_any(text) ? 0 : field_set_read(&d, text, FOR_MATCH, error);
	if (rc < 0)
		return rc;
	m->is = field_set_is(&d);
	rc = check(&d, m->is, error);
	if (rc)
		return rc;
	for (int i = 0; i < FIELD_ID_N; i++) {
		const struct field *f = d.given[i];
		union field_value v = d.value[i], mask = d.mask[i];

		if (!f || i == IN_PORT)
			continue;
		if (i == DL_VLAN)
			v.n |= 0x1000;
		if (i == DL_VLAN || i == VLAN_TCI)
			mask.n &= 0x1fff;
		if (i == NW_TOS)
			mask.n &= 0xfc;
		put(&m->value, &places[i], f, &v);
		put(&m->mask, &places[i], f, &mask);
		m->fields |= places[i].bit;
	}
	if (d.given[IN_PORT]) {
		memcpy(m->in_port, d.in_port, sizeof m->in_port);
		m->fields |= KEY_BIT(IN_PORT);
	}
	key_word *v = (key_word *)(void *)&m->value;
	const key_word *mask = (const key_word *)(const void *)&m->mask;
	for (unsigned i = 0; i < sizeof m->value / sizeof *v; i++)
		v[i] &= mask[i];
	return 0;
}

void match_in_port(struct match *m, uint16_t port)
{
	m->value.port = port;
	m->mask.port = 0xffff;
}

bool match_equal(const struct match *a, const struct match *b)
{
	return !memcmp(&a->value, &b->value, sizeof a->value) && !memcmp(&a->mask, &b->mask, sizeof a->mask) && !strcmp(a->in_port, b->in_port);
}
