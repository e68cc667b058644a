// vlan: admits a frame to its network by port, tag and source address (IEEE 802.1Q clauses 6.9 and 8.6).
#include "stage.h"

#include <string.h>

#define VLAN_REASONS(X)                                                                                                \
	X(vlan, DISABLED, "the ingress port is disabled")                                                              \
	X(vlan, NO_NETWORK, "the ingress port has no network for untagged frames")                                     \
	X(vlan, NOT_ALLOWED, "the frame has a VLAN tag that the ingress port does not take")                           \
	X(vlan, CUSTOMER, "the frame's customer VLAN is not among the port's cvlans")                                  \
	X(vlan, GROUP_SOURCE, "the source address is a group address")                                                 \
	X(vlan, ZERO_SOURCE, "the source address is all zero")                                                         \
	X(vlan, RESERVED, "the destination is reserved for the link itself (01:80:c2:00:00:0x)")

STAGE_REASONS(vlan, VLAN_REASONS);

struct record {
	uint16_t port;
	uint16_t network;
	uint16_t vlan;
	uint8_t mode;
};

static uint16_t judge(struct resolve *r)
{
	const struct lport *in = r->in;
	uint16_t vlan = *resolve_field(r, VLAN, vlan);
	const uint8_t *src = *resolve_field(r, DL_SRC, src), *dst = *resolve_field(r, DL_DST, dst);
	static const uint8_t reserved[5] = {0x01, 0x80, 0xc2, 0, 0}, zero[6];

	resolve_because(r, in->row);
	if (!in->enabled)
		return resolve_drop(r, STAGE_REASON(vlan, DISABLED), in->row);
	if (!r->pkt->network)
		return resolve_drop(r, (vlan & 0xfff) && in->mode != VLAN_DOT1Q_TUNNEL ? STAGE_REASON(vlan, NOT_ALLOWED) : STAGE_REASON(vlan, NO_NETWORK),
				    in->row);
	resolve_depend(r, GEN_NETWORK, r->pkt->network);
	r->net = network_get(r->pkt->network);
	if (!r->net)
		return resolve_drop(r, STAGE_REASON(vlan, NO_NETWORK), in->row);
	resolve_because(r, r->net->row);
	if (in->cvlans && !(in->cvlans[(vlan & 0xfff) / 64] >> (vlan & 0xfff) % 64 & 1))
		return resolve_drop(r, STAGE_REASON(vlan, CUSTOMER), in->row);
	if (src[0] & 1)
		return STAGE_REASON(vlan, GROUP_SOURCE);
	if (!memcmp(src, zero, 6))
		return STAGE_REASON(vlan, ZERO_SOURCE);
	if (!memcmp(dst, reserved, 5) && dst[5] < 0x10 && !r->net->forward_bpdu)
		return resolve_drop(r, STAGE_REASON(vlan, RESERVED), r->net->row);
	return 0;
}

static uint16_t vlan_resolve(struct resolve *r)
{
	uint16_t reason = judge(r); // the dependency on the port is there before any stage
	struct record rec = {.port = r->in->id, .network = r->pkt->network, .vlan = *resolve_field(r, VLAN, vlan), .mode = r->in->mode};

	resolve_record(r, &rec, sizeof rec);
	return reason;
}

static void vlan_format(struct buf *b, const void *record, uint16_t size)
{
	static const char *const modes[] = {
		[VLAN_ACCESS] = "access",
		[VLAN_TRUNK] = "trunk",
		[VLAN_NATIVE_TAGGED] = "native-tagged",
		[VLAN_NATIVE_UNTAGGED] = "native-untagged",
		[VLAN_DOT1Q_TUNNEL] = "dot1q-tunnel",
		[VLAN_NETWORK_ID] = "tunnel",
	};
	const struct record *r = record;
	const struct lport *lp = lport_get(r->port);
	const struct network *net = network_get(r->network);

	buf_add(b, "port %s (%s), ", lp ? lp->name : "?", modes[r->mode]);
	if (r->mode == VLAN_NETWORK_ID)
		buf_add(b, "by its tunnel header: ");
	else if (r->vlan)
		buf_add(b, "VLAN %u: ", r->vlan & 0xfff);
	else
		buf_add(b, "untagged: ");
	if (net)
		buf_add(b, "network %s", net->name);
	else
		buf_add(b, "no network");
}

STAGE(vlan, .resolve = vlan_resolve, .format = vlan_format);
