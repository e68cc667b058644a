// lldp: see lldp.h. Clauses are those of IEEE 802.1AB-2016.
#include "lldp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SECOND 1000000000ULL

enum {
	TLV_END,
	TLV_CHASSIS,
	TLV_PORT,
	TLV_TTL,
	TLV_PORT_DESCRIPTION,
	TLV_SYSTEM_NAME,
	TLV_SYSTEM_DESCRIPTION,
	TLV_CAPABILITIES,
	TLV_ADDRESS,
	TLV_ORGANIZATION = 127,
	// Subtypes of ids, 8.5.2.2 and 8.5.3.2.
	CHASSIS_MAC = 4,
	CHASSIS_ADDRESS = 5,
	PORT_MAC = 3,
	PORT_ADDRESS = 4,
	PORT_INTERFACE = 5,
	FAMILY_IPV4 = 1, // RFC 3232
	FAMILY_IPV6 = 2,
};

// ---- what we say

static uint8_t *put(uint8_t *to, unsigned type, const void *first, size_t n_first, const void *rest, size_t n)
{
	if (n > 511 - n_first)
		n = 511 - n_first;
	size_t len = n_first + n;
	to[0] = (uint8_t)(type << 1 | len >> 8);
	to[1] = (uint8_t)len;
	memcpy(to + 2, first, n_first);
	memcpy(to + 2 + n_first, rest, n);
	return to + 2 + len;
}

static uint8_t *put_text(uint8_t *to, unsigned type, const char *text)
{
	size_t n = strlen(text);

	return n ? put(to, type, "", 0, text, n > 255 ? 255 : n) : to;
}

static uint8_t *put_address(uint8_t *to, const struct lldp_local *l)
{
	uint8_t b[2 + 16 + 6], n = l->v6 ? 16 : 4;

	b[0] = (uint8_t)(n + 1);
	b[1] = l->v6 ? FAMILY_IPV6 : FAMILY_IPV4;
	memcpy(b + 2, l->address, n);
	memset(b + 2 + n, 0, 6); // interface number unknown (8.5.9.5 has 1 for that), no OID
	b[2 + n] = 1;
	return put(to, TLV_ADDRESS, "", 0, b, 2u + n + 6u);
}

size_t lldp_encode(const struct lldp_local *l, uint8_t frame[LLDP_FRAME_MAX])
{
	static const uint8_t head[] = {0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e};
	uint8_t *to = frame + 14, ttl[2] = {(uint8_t)(l->ttl >> 8), (uint8_t)l->ttl};

	memcpy(frame, head, sizeof head);
	memcpy(frame + 6, l->mac, 6);
	frame[12] = 0x88;
	frame[13] = 0xcc;
	size_t n = strlen(l->port);
	to = put(to, TLV_CHASSIS, (uint8_t[]){CHASSIS_MAC}, 1, l->chassis, 6);
	to = put(to, TLV_PORT, (uint8_t[]){PORT_INTERFACE}, 1, l->port, n > 255 ? 255 : n);
	to = put(to, TLV_TTL, "", 0, ttl, 2);
	if (l->ttl) { // 9.1.2.2: nothing else, if nothing holds any more
		uint8_t caps[4] = {(uint8_t)(l->capabilities >> 8), (uint8_t)l->capabilities, (uint8_t)(l->capabilities >> 8), (uint8_t)l->capabilities};

		to = put_text(to, TLV_PORT_DESCRIPTION, l->description);
		to = put_text(to, TLV_SYSTEM_NAME, l->system_name);
		to = put_text(to, TLV_SYSTEM_DESCRIPTION, l->system_description);
		to = put(to, TLV_CAPABILITIES, "", 0, caps, 4);
		if (l->has_address)
			to = put_address(to, l);
	}
	to = put(to, TLV_END, "", 0, "", 0);
	while (to < frame + 60)
		*to++ = 0;
	return (size_t)(to - frame);
}

bool lldp_due(struct lldp *p, uint64_t now)
{
	if (p->next && now < p->next)
		return false;
	p->next = now + (p->fast ? SECOND : LLDP_INTERVAL * SECOND);
	p->fast -= p->fast > 0;
	p->tx++;
	return true;
}

// ---- who is heard

struct tlv {
	unsigned type;
	const uint8_t *value;
	size_t len;
};

// The next one; false: there is none that is whole.
static bool next_tlv(const uint8_t **at, const uint8_t *end, struct tlv *t)
{
	if (end - *at < 2)
		return false;
	t->type = (*at)[0] >> 1;
	t->len = (size_t)((*at)[0] & 1) << 8 | (*at)[1];
	t->value = *at + 2;
	if ((size_t)(end - t->value) < t->len)
		return false;
	*at = t->value + t->len;
	return true;
}

static void text_of(char *to, size_t room, const uint8_t *value, size_t len)
{
	size_t n = 0;

	for (; n < len && n + 1 < room && value[n]; n++)
		to[n] = (char)(value[n] >= ' ' && value[n] < 0x7f ? value[n] : '?');
	to[n] = '\0';
}

static void hex_of(char *to, size_t room, const uint8_t *value, size_t len, const char *between)
{
	size_t at = 0;

	to[0] = '\0';
	for (size_t i = 0; i < len && at + 4 < room; i++)
		at += (size_t)snprintf(to + at, room - at, "%s%02x", i ? between : "", value[i]);
}

// Family and address.
static bool address_of(char *to, size_t room, const uint8_t *value, size_t len)
{
	int family = len == 5 && value[0] == FAMILY_IPV4 ? AF_INET : len == 17 && value[0] == FAMILY_IPV6 ? AF_INET6 : 0;

	return family && inet_ntop(family, value + 1, to, (socklen_t)room);
}

static void id_of(char *to, size_t room, const struct tlv *t, unsigned mac, unsigned address)
{
	const uint8_t *value = t->value + 1;
	size_t len = t->len - 1;

	if (t->value[0] == mac && len == 6)
		hex_of(to, room, value, len, ":");
	else if (t->value[0] != address)
		text_of(to, room, value, len);
	else if (!address_of(to, room, value, len))
		hex_of(to, room, value, len, "");
}

static void read_organization(struct lldp *p, struct lldp_neighbour *n, const struct tlv *t)
{
	if (t->len >= 6 && !memcmp(t->value, "\x00\x80\xc2\x01", 4))
		n->vlan = (uint16_t)((t->value[4] << 8 | t->value[5]) & 0xfff);
	else if (t->len >= 6 && !memcmp(t->value, "\x00\x12\x0f\x04", 4))
		n->mtu = (uint16_t)(t->value[4] << 8 | t->value[5]);
	else
		p->unknown++;
}

static void read_optional(struct lldp *p, struct lldp_neighbour *n, const struct tlv *t)
{
	switch (t->type) {
	case TLV_PORT_DESCRIPTION:
		text_of(n->description, sizeof n->description, t->value, t->len);
		return;
	case TLV_SYSTEM_NAME:
		text_of(n->system_name, sizeof n->system_name, t->value, t->len);
		return;
	case TLV_SYSTEM_DESCRIPTION:
		text_of(n->system_description, sizeof n->system_description, t->value, t->len);
		return;
	case TLV_CAPABILITIES:
		if (t->len < 4)
			break;
		n->capabilities = (uint16_t)(t->value[0] << 8 | t->value[1]);
		n->enabled = (uint16_t)(t->value[2] << 8 | t->value[3]);
		return;
	case TLV_ADDRESS:
		if (n->address[0]) // the first one
			return;
		if (t->len >= 2 && t->value[0] >= 1 && t->value[0] < t->len && address_of(n->address, sizeof n->address, t->value + 1, t->value[0]))
			return;
		break;
	case TLV_ORGANIZATION:
		read_organization(p, n, t);
		return;
	default:
		break;
	}
	p->unknown++;
}

// 9.2.7.7.2: chassis id, port id and TTL come first, in this order, and once each; all else is optional, and what of it makes no sense is left out.
static int read_frame(struct lldp *p, const uint8_t *frame, size_t len, struct lldp_neighbour *n, uint16_t *ttl)
{
	const uint8_t *at = frame + 14, *end = frame + len;
	struct tlv chassis, port, t;

	memset(n, 0, sizeof *n);
	if (len < 14 || frame[12] != 0x88 || frame[13] != 0xcc)
		return -EINVAL;
	if (!next_tlv(&at, end, &chassis) || chassis.type != TLV_CHASSIS || chassis.len < 2 || chassis.len > 256)
		return -EINVAL;
	if (!next_tlv(&at, end, &port) || port.type != TLV_PORT || port.len < 2 || port.len > 256)
		return -EINVAL;
	if (!next_tlv(&at, end, &t) || t.type != TLV_TTL || t.len < 2)
		return -EINVAL;
	*ttl = (uint16_t)(t.value[0] << 8 | t.value[1]);
	memcpy(n->id, chassis.value, chassis.len);
	memcpy(n->id + chassis.len, port.value, port.len);
	n->id_len = (uint16_t)(chassis.len + port.len);
	id_of(n->chassis, sizeof n->chassis, &chassis, CHASSIS_MAC, CHASSIS_ADDRESS);
	id_of(n->port, sizeof n->port, &port, PORT_MAC, PORT_ADDRESS);
	while (at < end) {
		if (!next_tlv(&at, end, &t) || (t.type >= TLV_CHASSIS && t.type <= TLV_TTL))
			return -EINVAL;
		if (t.type == TLV_END)
			break;
		read_optional(p, n, &t);
	}
	return 0;
}

static struct lldp_neighbour *find(struct lldp *p, const struct lldp_neighbour *n)
{
	for (unsigned i = 0; i < LLDP_NEIGHBOURS; i++)
		if (p->neighbour[i].used && p->neighbour[i].id_len == n->id_len && !memcmp(p->neighbour[i].id, n->id, n->id_len))
			return &p->neighbour[i];
	return NULL;
}

static struct lldp_neighbour *place(struct lldp *p)
{
	for (unsigned i = 0; i < LLDP_NEIGHBOURS; i++)
		if (!p->neighbour[i].used)
			return &p->neighbour[i];
	return NULL;
}

int lldp_receive(struct lldp *p, const uint8_t *frame, size_t len, uint64_t now, bool *news)
{
	struct lldp_neighbour n;
	uint16_t ttl;

	*news = false;
	if (read_frame(p, frame, len, &n, &ttl)) {
		p->bad++;
		return -EINVAL;
	}
	p->rx++;
	struct lldp_neighbour *known = find(p, &n);
	if (!ttl) {
		*news = known != NULL;
		if (known)
			known->used = false;
		return 0;
	}
	struct lldp_neighbour *to = known ? known : place(p);
	if (!to) {
		p->too_many++;
		return 0;
	}
	n.used = true;
	n.until = now + ttl * SECOND;
	*news = !known || strcmp(known->system_name, n.system_name) || strcmp(known->description, n.description);
	*to = n;
	if (!known) { // 9.2.5.19
		p->fast = LLDP_FAST;
		if (p->next > now + SECOND)
			p->next = now + SECOND;
	}
	return 0;
}

bool lldp_age(struct lldp *p, uint64_t now)
{
	bool any = false;

	for (unsigned i = 0; i < LLDP_NEIGHBOURS; i++) {
		if (!p->neighbour[i].used || now < p->neighbour[i].until)
			continue;
		p->neighbour[i].used = false;
		p->aged++;
		any = true;
	}
	return any;
}

const char *lldp_capabilities(uint16_t caps, char text[128])
{
	static const char *const names[] = {"other", "repeater", "bridge", "wlan", "router", "telephone", "docsis", "station", "c-vlan", "s-vlan", "two-port"};
	size_t at = 0;

	text[0] = '\0';
	for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
		if (caps >> i & 1)
			at += (size_t)snprintf(text + at, 128 - at, "%s%s", at ? ", " : "", names[i]);
	return text;
}
