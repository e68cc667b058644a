// flow_record: see flow_record.h.
#include "flow_record.h"
#include "buf.h"
#include "listing.h"
#include "parse.h"
#include "reason.h"
#include "row.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TYPE_IPV4 = 0x0800, TYPE_ARP = 0x0806, TYPE_IPV6 = 0x86dd };

static uint32_t fields_of_ip(const struct flow_key *k, uint32_t known, bool six)
{
	uint32_t f = 0;
	bool icmp = known & KEY_BIT(NW_PROTO) && k->proto == (six ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
	bool ports = known & KEY_BIT(NW_PROTO) && k->class != CLASS_FRAG_LATER &&
		     (k->proto == IPPROTO_TCP || k->proto == IPPROTO_UDP || k->proto == IPPROTO_SCTP);

	if (known & KEY_BIT(NW_PROTO))
		f |= RECORD_PROTO;
	if (known & KEY_BIT(NW_TOS))
		f |= RECORD_TOS;
	if (known & KEY_BIT(NW_SRC))
		f |= six ? RECORD_V6_SRC : RECORD_V4_SRC;
	if (known & KEY_BIT(NW_DST))
		f |= six ? RECORD_V6_DST : RECORD_V4_DST;
	if (ports && known & KEY_BIT(TP_SRC))
		f |= RECORD_TP_SRC;
	if (ports && known & KEY_BIT(TP_DST))
		f |= RECORD_TP_DST;
	// Type and code are one element.
	if (icmp && k->class != CLASS_FRAG_LATER && known & KEY_BIT(TP_SRC) && known & KEY_BIT(TP_DST))
		f |= six ? RECORD_ICMP6 : RECORD_ICMP4;
	return f;
}

static uint32_t fields_of(const struct flow_key *k)
{
	uint32_t known = profile_get(k->profile)->fields, f = 0;

	if (k->vlan)
		f |= RECORD_VLAN;
	if (known & KEY_BIT(CVLAN) && k->cvlan)
		f |= RECORD_CVLAN;
	switch (ntohs(k->ethertype)) {
	case TYPE_IPV4:
		return f | fields_of_ip(k, known, false);
	case TYPE_IPV6:
		return f | fields_of_ip(k, known, true);
	case TYPE_ARP:
		if (known & KEY_BIT(NW_PROTO))
			f |= RECORD_ARP_OP;
		if (known & KEY_BIT(NW_SRC))
			f |= RECORD_V4_SRC;
		if (known & KEY_BIT(NW_DST))
			f |= RECORD_V4_DST;
		return f;
	default:
		return f;
	}
}

void flow_record_fill(struct flow_record *r, const struct flow_end *e)
{
	*r = (struct flow_record){.kind = RECORD_FLOW, .why = e->why, .key = e->key, .n_rows = e->n_prov};
	r->fields = fields_of(&e->key);
	memcpy(r->row, e->prov_row, sizeof r->row);
	switch ((enum out_kind)e->decision.out_kind) {
	case OUT_PORT:
		r->verdict = RECORD_FORWARDED;
		r->fields |= RECORD_OUT_PORT;
		r->out = e->decision.out;
		break;
	case OUT_FLOOD:
	case OUT_GROUP:
		r->verdict = RECORD_FLOODED;
		break;
	case OUT_PUNT: // by the switch itself: to no port
		r->verdict = RECORD_FORWARDED;
		break;
	case OUT_NONE:
	case OUT_DROP:
		r->verdict = RECORD_DROPPED;
		r->fields |= RECORD_DROP;
		r->drop = e->decision.out;
		r->rule = e->rule;
		break;
	}
}

const char *flow_record_reason(const struct flow_record *r, char text[64])
{
	const struct reason *reason = r->fields & RECORD_DROP ? reason_get(r->drop) : NULL;

	if (!reason)
		return NULL;
	snprintf(text, 64, "%s.%s", reason->module, reason->name);
	return text;
}

// ---- JSON

static void add_time(struct listing *l, const char *key, uint64_t ms)
{
	time_t s = (time_t)(ms / 1000);
	struct tm tm;
	char text[40];

	gmtime_r(&s, &tm);
	size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + n, sizeof text - n, ".%03uZ", (unsigned)(ms % 1000)); // RFC 3339
	listing_column(l, key, key);
	listing_str(l, text);
}

static void add_str(struct listing *l, const char *key, const char *s)
{
	listing_column(l, key, key);
	listing_str(l, s);
}

static void add_uint(struct listing *l, const char *key, uint64_t u)
{
	listing_column(l, key, key);
	listing_uint(l, u);
}

static void add_mac(struct listing *l, const char *key, const uint8_t m[6])
{
	listing_column(l, key, key);
	listing_fmt(l, "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
}

static void add_address(struct listing *l, const char *key, int family, const void *address)
{
	char text[INET6_ADDRSTRLEN];

	add_str(l, key, inet_ntop(family, address, text, sizeof text));
}

static void add_rows(struct listing *l, const struct flow_record *r)
{
	char text[FLOW_PROV][160];
	const char *names[FLOW_PROV];
	size_t n = 0;

	for (unsigned i = 0; i < r->n_rows && i < FLOW_PROV; i++) {
		const struct row_info *row = row_get(r->row[i]);

		if (!row)
			continue;
		snprintf(text[n], sizeof text[n], "%s:%s", row->table, row->name);
		names[n] = text[n];
		n++;
	}
	listing_column(l, "because", "because");
	listing_list(l, names, n);
}

// Keys are those of `cache list` and names of fields those of rules.
static void add_packet(struct listing *l, const struct flow_record *r)
{
	const struct flow_key *k = &r->key;
	bool arp = ntohs(k->ethertype) == TYPE_ARP;

	add_mac(l, "dl_src", k->src);
	add_mac(l, "dl_dst", k->dst);
	listing_column(l, "dl_type", "dl_type");
	listing_fmt(l, "0x%04x", ntohs(k->ethertype));
	if (r->fields & RECORD_VLAN)
		add_uint(l, "dl_vlan", k->vlan & 0xfff);
	if (r->fields & RECORD_CVLAN)
		add_uint(l, "cvlan", k->cvlan & 0xfff);
	if (k->class != CLASS_PLAIN)
		add_str(l, "class", traffic_class_name(k->class));
	if (r->fields & RECORD_ARP_OP)
		add_uint(l, "arp_op", k->proto);
	if (r->fields & RECORD_PROTO)
		add_uint(l, "nw_proto", k->proto);
	if (r->fields & RECORD_TOS)
		add_uint(l, "nw_tos", k->tos);
	if (r->fields & RECORD_V4_SRC)
		add_address(l, arp ? "arp_spa" : "nw_src", AF_INET, &k->v4.src);
	if (r->fields & RECORD_V4_DST)
		add_address(l, arp ? "arp_tpa" : "nw_dst", AF_INET, &k->v4.dst);
	if (r->fields & RECORD_V6_SRC)
		add_address(l, "ipv6_src", AF_INET6, k->v6.src);
	if (r->fields & RECORD_V6_DST)
		add_address(l, "ipv6_dst", AF_INET6, k->v6.dst);
	if (r->fields & RECORD_TP_SRC)
		add_uint(l, "tp_src", ntohs(k->sport));
	if (r->fields & RECORD_TP_DST)
		add_uint(l, "tp_dst", ntohs(k->dport));
	if (r->fields & (RECORD_ICMP4 | RECORD_ICMP6)) {
		add_uint(l, "icmp_type", ntohs(k->sport));
		add_uint(l, "icmp_code", ntohs(k->dport));
	}
}

static void add_nat(struct listing *l, const struct flow_record *r)
{
	if (r->fields & RECORD_NAT_V4_SRC)
		add_address(l, "nat_src", AF_INET, r->nat.src);
	if (r->fields & RECORD_NAT_V4_DST)
		add_address(l, "nat_dst", AF_INET, r->nat.dst);
	if (r->fields & RECORD_NAT_V6_SRC)
		add_address(l, "nat_src", AF_INET6, r->nat.src);
	if (r->fields & RECORD_NAT_V6_DST)
		add_address(l, "nat_dst", AF_INET6, r->nat.dst);
	if (r->fields & RECORD_NAT_TP_SRC)
		add_uint(l, "nat_tp_src", ntohs(r->nat.sport));
	if (r->fields & RECORD_NAT_TP_DST)
		add_uint(l, "nat_tp_dst", ntohs(r->nat.dport));
}

static const char *why_text(enum flow_end_why why)
{
	switch (why) {
	case FLOW_END_IDLE:
		return "idle";
	case FLOW_END_ACTIVE:
		return "active";
	case FLOW_END_FORCED:
		return "forced";
	case FLOW_END_RESOURCES:
		return "resources";
	}
	return NULL;
}

char *flow_record_json(const struct flow_record *r)
{
	static const char *const verdicts[] = {[RECORD_FORWARDED] = "forwarded", [RECORD_FLOODED] = "flooded", [RECORD_DROPPED] = "dropped"};
	struct listing *l = listing_new();
	char reason[64];

	// A list of one row whose columns are those that there are: a column is named before its cell.
	listing_row(l);
	add_str(l, "kind", r->kind == RECORD_CONNECTION ? "connection" : "flow");
	add_time(l, "start", r->start_ms);
	add_time(l, "end", r->end_ms);
	add_str(l, "ended", why_text(r->why));
	add_str(l, "network", r->network_name);
	add_str(l, "in_port", r->in_name);
	add_str(l, "verdict", verdicts[r->verdict]);
	if (r->fields & RECORD_OUT_PORT)
		add_str(l, "out_port", r->out_name);
	if (r->fields & RECORD_DROP)
		add_str(l, "reason", flow_record_reason(r, reason));
	add_packet(l, r);
	add_nat(l, r);
	add_uint(l, "packets", r->packets);
	add_uint(l, "bytes", r->bytes);
	add_rows(l, r);
	char *text = listing_render_record(l, true);
	listing_free(l);
	return text;
}
