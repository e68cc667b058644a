// cache: the verbs of cached flows, see cache.h.
#include "cache.h"
#include "clock.h"
#include "pages.h"
#include "parse.h"
#include "port.h"
#include "row.h"
#include "sentence.h"
#include "stage.h"
#include "targets.h"
#include "thread.h"
#include "verbs.h"
#include "vlan.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

static void format_key(struct buf *b, const struct flow_key *k, const struct profile *pr)
{
	uint16_t type = ntohs(k->ethertype);

	buf_add(b, "dl_src=");
	buf_add_mac(b, k->src);
	buf_add(b, ",dl_dst=");
	buf_add_mac(b, k->dst);
	if (k->vlan)
		buf_add(b, ",dl_vlan=%u", k->vlan & 0xfff);
	buf_add(b, ",dl_type=0x%04x", type);
	if (pr->fields & KEY_BIT(NW_PROTO))
		buf_add(b, ",nw_proto=%u", k->proto);
	for (int i = 0; i < 2; i++) {
		char text[INET6_ADDRSTRLEN];
		bool six = type == 0x86dd;
		const void *at = six ? (i ? (const void *)k->v6.dst : (const void *)k->v6.src) : i ? (const void *)&k->v4.dst : (const void *)&k->v4.src;

		if (pr->fields & (i ? KEY_BIT(NW_DST) : KEY_BIT(NW_SRC)))
			buf_add(b, ",%s_%s=%s", six ? "ipv6" : "nw", i ? "dst" : "src", inet_ntop(six ? AF_INET6 : AF_INET, at, text, sizeof text));
	}
	if (pr->fields & KEY_BIT(TP_SRC))
		buf_add(b, ",tp_src=%u", ntohs(k->sport));
	if (pr->fields & KEY_BIT(TP_DST))
		buf_add(b, ",tp_dst=%u", ntohs(k->dport));
	if (k->class)
		buf_add(b, ",class=%s", traffic_class_name(k->class));
}

// Of a flood: see VLAN_OP_GIVEN.
static void format_given(struct buf *b, int tag)
{
	if (tag & (TAG_PUSHED | TAG_REPLACES))
		buf_add(b, "push_vlan:0x%04x,", tag & TAG_8021AD ? 0x88a8 : 0x8100);
	else if (!tag)
		buf_add(b, "strip_vlan,");
	if (tag & 0xfff)
		buf_add(b, "set_vlan:%d,", tag & 0xfff);
	if (tag & TAG_PCP)
		buf_add(b, "set_vlan_pcp:%d,", tag >> TAG_PCP_SHIFT & 7);
}

static const char *port_name(uint16_t id)
{
	const struct port *p = port_get(id);

	return p ? p->name : "?";
}

void cache_format_actions(struct buf *b, const struct flow *f)
{
	const struct network *net = network_get(f->network);

	const struct row_info *rule = f->actions ? row_get(f->rule) : NULL;

	if (rule) // fields that it sets, copies that it sends
		buf_add(b, "rule:%s,", rule->name);
	switch ((enum out_kind)f->out_kind) {
	case OUT_PORT:
		if (f->vlan_op == VLAN_OP_POP)
			buf_add(b, "strip_vlan,");
		else if (f->vlan_op == VLAN_OP_PUSH)
			buf_add(b, "push_vlan:0x%04x,set_vlan:%u,", f->qinq, f->vlan_tci & 0xfff);
		else if (f->vlan_op == VLAN_OP_SET)
			buf_add(b, "set_vlan:%u,", f->vlan_tci & 0xfff);
		if (f->vlan_op != VLAN_OP_NONE && (f->vlan_tci & TAG_PCP))
			buf_add(b, "set_vlan_pcp:%u,", f->vlan_tci >> TAG_PCP_SHIFT);
		buf_add(b, "output:%s", port_name(f->out));
		break;
	case OUT_FLOOD:
		if (f->vlan_op == VLAN_OP_GIVEN)
			format_given(b, f->vlan_tci | f->qinq << 16);
		buf_add(b, "flood:%s", net ? net->name : "?");
		break;
	case OUT_GROUP: {
		const struct target_list *l = targets_get(f->out);

		for (unsigned i = 0; l && i < l->n; i++)
			buf_add(b, "%soutput:%s", i ? "," : "", port_name(l->to[i].port));
		break;
	}
	case OUT_PUNT:
		buf_add(b, "own:%s", stage_get((uint8_t)(f->out >> 8))->name);
		break;
	case OUT_DROP:
		buf_add(b, "drop(%s.%s)", reason_get(f->out)->module, reason_get(f->out)->name);
		break;
	default:
		buf_add(b, "none");
	}
}

void cache_format_because(struct buf *b, const struct flow_cold *c)
{
	for (unsigned i = 0; i < c->n_prov; i++) {
		const struct row_info *r = row_get(c->prov_row[i]);

		for (unsigned k = 0; k < i && r; k++)
			if (c->prov_row[k] == c->prov_row[i]) // of an earlier stage, too
				r = NULL;
		if (r)
			buf_add(b, "%s%s:%s", b->len ? "," : "", r->table, r->name);
	}
}

static void list_flow(struct listing *l, unsigned worker, uint32_t index, const struct flow_view *v, uint32_t now_ms)
{
	struct buf key = {0}, actions = {0}, because = {0};
	const struct network *net = network_get(v->flow.network);
	uint32_t idle = now_ms - v->flow.used_ms;

	format_key(&key, &v->key, profile_get(v->key.profile));
	cache_format_actions(&actions, &v->flow);
	cache_format_because(&because, &v->cold);
	listing_row(l);
	listing_uint(l, worker);
	listing_uint(l, index);
	listing_str(l, port_name(v->key.port));
	listing_str(l, net ? net->name : NULL);
	listing_str(l, key.text);
	listing_str(l, actions.text);
	listing_uint(l, v->flow.packets);
	listing_uint(l, v->flow.bytes);
	listing_real(l, (int32_t)idle > 0 ? idle / 1000.0 : 0, 1);
	listing_str(l, because.text);
	free(key.text);
	free(actions.text);
	free(because.text);
}

// The network with this name; 0: there is none.
static uint16_t network_find(const char *name)
{
	for (uint16_t id = 1; id < MAX_NETWORKS; id++) {
		const struct network *net = network_get(id);

		if (net && !strcmp(net->name, name))
			return id;
	}
	return 0;
}

// What a list is wanted of; 0: all.
struct filter {
	uint16_t port, network;
};

static int parse_filter(int argc, const char *argv[], struct filter *f, char **error)
{
	const char *port = verbs_take_option(&argc, argv, "port", error), *network = verbs_take_option(&argc, argv, "network", error);
	const struct port *p = port ? port_find(port) : NULL;

	*f = (struct filter){.port = p ? p->id : 0, .network = network ? network_find(network) : 0};
	if (*error)
		return -1;
	if (argc > 1)
		sentence_set(error, "cache list takes --port PORT, --network NETWORK and --limit N");
	else if (port && !p)
		sentence_set(error, "there is no port %s", port);
	else if (network && !f->network)
		sentence_set(error, "there is no network %s", network);
	return *error ? -1 : 0;
}

static int cache_list(struct page *p, int argc, const char *argv[], char **error)
{
	static const char *const columns[][2] = {
		{"worker", "WORKER"}, {"flow", "FLOW"},   {"port", "PORT"},       {"network", "NETWORK"}, {"match", "MATCH"}, {"actions", "ACTIONS"},
		{"packets", "PACKETS"}, {"bytes", "BYTES"}, {"idle", "IDLE(s)"}, {"because", "DECIDED BY"},
	};
	uint64_t *id = &p->at[0], *i = &p->at[1]; // worker, flow
	uint32_t now_ms = (uint32_t)(clock_ns() / 1000000);
	struct filter f;

	if (parse_filter(argc, argv, &f, error))
		return -1;
	for (size_t c = 0; c < sizeof columns / sizeof columns[0]; c++)
		listing_column(p->l, columns[c][0], columns[c][1]);
	for (; *id < MAX_WORKERS; ++*id, *i = 0) {
		const struct worker *w = thread_worker((unsigned)*id);

		for (; w && *i < flow_table_high(w->flows); ++*i) {
			struct flow_view v;

			if (!page_look(p))
				return 1;
			if (f.port && flow_table_port(w->flows, (uint32_t)*i) != f.port)
				continue; // without the rest of it
			if (flow_table_read(w->flows, (uint32_t)*i, &v) && (!f.port || v.key.port == f.port) && (!f.network || v.flow.network == f.network))
				list_flow(p->l, (unsigned)*id, (uint32_t)*i, &v, now_ms);
		}
	}
	return 0;
}

static void cache_flush(struct control_request *r, int argc, const char *argv[], void *aux)
{
	bool json = verbs_take_json(&argc, argv);

	gen_bump(gen_slot(GEN_CONFIG, 0));
	control_reply(r, json ? "{\"flushed\": true}\n" : "every flow is resolved again with its next packet\n");
}

void cache_init(void)
{
	pages_register("cache/list", "[--json] [--port PORT] [--network NETWORK] [--limit N]", cache_list);
	control_register("cache/flush", "[--json]", 0, 1, cache_flush, NULL);
}
