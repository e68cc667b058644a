// change: see change.h.
#include "change.h"

#include <arpa/inet.h>
#include <string.h>

#define TAGS_MAX 3 // two that came and one that was pushed

struct change {
	uint8_t field;
	uint8_t had, has;
	uint8_t spare;
	uint8_t old[16], new[16];
};

struct record {
	uint8_t kind; // CORE_CHANGED, where struct core_record has it
	uint8_t n;
	uint8_t spare[2];
	struct change change[CHANGE_FIELD_N];
};

static void put(struct change_headers *h, enum change_field f, const void *bytes, size_t n)
{
	h->has |= 1u << f;
	memcpy(h->value[f], bytes, n);
}

// Tags as they are on the wire, one behind the other.
static void look_tags(const uint8_t *d, unsigned have, struct change_headers *h)
{
	unsigned n = 0;

	while (n < TAGS_MAX && 16 + 4 * n < have &&
	       (!memcmp(d + 12 + 4 * n, "\x81\x00", 2) || !memcmp(d + 12 + 4 * n, "\x88\xa8", 2)))
		n++;
	if (n)
		put(h, CHANGE_TAGS, d + 12, (size_t)4 * n);
}

static void look_ip(const uint8_t *ip, unsigned have, const struct pkt *p, struct change_headers *h)
{
	if (p->ethertype == 0x0800 && have >= 20) {
		put(h, CHANGE_NW_TOS, ip + 1, 1);
		put(h, CHANGE_NW_TTL, ip + 8, 1);
		put(h, CHANGE_NW_SRC, ip + 12, 4);
		put(h, CHANGE_NW_DST, ip + 16, 4);
	} else if (p->ethertype == 0x86dd && have >= 40) {
		uint8_t class = (uint8_t)(ip[0] << 4 | ip[1] >> 4);

		put(h, CHANGE_NW_TOS, &class, 1);
		put(h, CHANGE_NW_TTL, ip + 7, 1);
		put(h, CHANGE_IPV6_SRC, ip + 8, 16);
		put(h, CHANGE_IPV6_DST, ip + 24, 16);
	}
}

void change_look(struct rte_mbuf *m, struct change_headers *h)
{
	const struct pkt *p = pkt_of(m);
	const uint8_t *d = rte_pktmbuf_mtod(m, const uint8_t *);
	bool ports = p->l4_ofs && p->l4_len && (p->proto == 6 || p->proto == 17 || p->proto == 132);

	memset(h, 0, sizeof *h);
	if (m->data_len < 14)
		return;
	put(h, CHANGE_DL_DST, d, 6);
	put(h, CHANGE_DL_SRC, d + 6, 6);
	look_tags(d, m->data_len, h);
	if (p->l3_ofs && p->l3_ofs < m->data_len)
		look_ip(d + p->l3_ofs, m->data_len - p->l3_ofs, p, h);
	if (ports && p->l4_ofs + 4u <= m->data_len) {
		put(h, CHANGE_TP_SRC, d + p->l4_ofs, 2);
		put(h, CHANGE_TP_DST, d + p->l4_ofs + 2, 2);
	}
}

void change_trace(struct trace *t, const struct change_headers *before, struct rte_mbuf *m)
{
	struct record r = {.kind = CORE_CHANGED};
	struct change_headers now;

	change_look(m, &now);
	for (unsigned i = 0; i < CHANGE_FIELD_N; i++) {
		struct change *c = &r.change[r.n];

		if ((before->has >> i & 1) == (now.has >> i & 1) && !memcmp(before->value[i], now.value[i], 16))
			continue;
		c->field = (uint8_t)i;
		c->had = before->has >> i & 1;
		c->has = now.has >> i & 1;
		memcpy(c->old, before->value[i], 16);
		memcpy(c->new, now.value[i], 16);
		r.n++;
	}
	if (r.n)
		trace_put(t, TRACE_CORE, &r, (uint16_t)(offsetof(struct record, change) + r.n * sizeof r.change[0]));
}

static void format_tags(struct buf *b, const uint8_t *v)
{
	for (unsigned i = 0; i < TAGS_MAX && v[4 * i]; i++) {
		unsigned tci = (unsigned)(v[4 * i + 2] << 8 | v[4 * i + 3]);

		buf_add(b, "%s%s%u", i ? "+" : "", v[4 * i] == 0x88 ? "802.1ad " : "", tci & 0xfff);
		if (tci >> 13)
			buf_add(b, " (priority %u)", tci >> 13);
	}
}

static void format_value(struct buf *b, enum change_field f, bool there, const uint8_t *v)
{
	char text[INET6_ADDRSTRLEN];

	if (!there) {
		buf_add(b, "none");
		return;
	}
	switch (f) {
	case CHANGE_DL_DST:
	case CHANGE_DL_SRC:
		buf_add_mac(b, v);
		break;
	case CHANGE_TAGS:
		format_tags(b, v);
		break;
	case CHANGE_NW_SRC:
	case CHANGE_NW_DST:
		buf_add(b, "%s", inet_ntop(AF_INET, v, text, sizeof text));
		break;
	case CHANGE_IPV6_SRC:
	case CHANGE_IPV6_DST:
		buf_add(b, "%s", inet_ntop(AF_INET6, v, text, sizeof text));
		break;
	case CHANGE_NW_TOS:
		buf_add(b, "0x%02x", v[0]);
		break;
	case CHANGE_NW_TTL:
		buf_add(b, "%u", v[0]);
		break;
	case CHANGE_TP_SRC:
	case CHANGE_TP_DST:
		buf_add(b, "%u", (unsigned)(v[0] << 8 | v[1]));
		break;
	case CHANGE_FIELD_N:
		break;
	}
}

void change_format(struct buf *b, const void *record, uint16_t size)
{
	static const char *const names[] = {
#define X(id, name) [CHANGE_##id] = name,
		CHANGE_FIELDS(X)
#undef X
	};
	const struct record *r = record;

	for (unsigned i = 0; i < r->n && offsetof(struct record, change) + (i + 1) * sizeof r->change[0] <= size; i++) {
		const struct change *c = &r->change[i];

		if (c->field >= CHANGE_FIELD_N)
			continue;
		buf_add(b, "%s%s ", i ? ", " : "", names[c->field]);
		format_value(b, (enum change_field)c->field, c->had, c->old);
		buf_add(b, " -> ");
		format_value(b, (enum change_field)c->field, c->has, c->new);
	}
}
