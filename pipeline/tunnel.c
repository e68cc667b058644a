// tunnel: tunnels to other switches. It decides nothing: frames come in and go out by the tunnels' ports as by any others (ofproto/tunnel.h); this has their tables
// on the main thread, and shows them.
#include "tunnel.h"
#include "stage.h"
#include "tunnel_mtu.h"
#include "tunnel_table.h"

#include <arpa/inet.h>
#include <string.h>

static const char *ip_text(const struct config_ip *ip, char text[INET6_ADDRSTRLEN])
{
	return inet_ntop(ip->v6 ? AF_INET6 : AF_INET, ip->b, text, INET6_ADDRSTRLEN);
}

// Names of the networks that go through the tunnel.
static void add_networks(struct listing *l, uint16_t port)
{
	const struct lport *lp = lport_get(port);
	struct buf b = {0};

	for (unsigned i = 1; lp && lp->vlans && i < MAX_NETWORKS; i++)
		if (lp->vlans[i].network && network_get((uint16_t)i))
			buf_add(&b, "%s%s", b.len ? "," : "", network_get((uint16_t)i)->name);
	listing_str(l, b.text);
	free(b.text);
}

static void list_one(struct listing *l, const struct tunnel_view *v)
{
	const struct network *under = v->underlay ? network_get(v->underlay) : NULL;
	bool has_mac = v->state == TUNNEL_UP || v->state == TUNNEL_NO_PORT;
	char text[INET6_ADDRSTRLEN];
	uint64_t rx, tx;
	unsigned seconds;
	uint16_t path = tunnel_mtu_path(&v->remote, &seconds);

	listing_row(l);
	listing_str(l, lport_name(v->port));
	listing_str(l, ip_text(&v->remote, text));
	listing_str(l, v->host[0] ? v->host : NULL);
	listing_str(l, tunnel_state_text(v->state));
	listing_str(l, v->state == TUNNEL_NO_END ? NULL : ip_text(&v->local, text));
	listing_str(l, v->has_hop ? ip_text(&v->hop, text) : NULL);
	if (has_mac)
		listing_fmt(l, "%02x:%02x:%02x:%02x:%02x:%02x", v->mac[0], v->mac[1], v->mac[2], v->mac[3], v->mac[4], v->mac[5]);
	else
		listing_none(l);
	listing_str(l, v->out ? lport_name(v->out) : NULL);
	listing_str(l, under ? under->name : NULL);
	listing_uint(l, v->mtu);
	if (path) {
		listing_uint(l, path);
		listing_uint(l, seconds);
	} else {
		listing_none(l);
		listing_none(l);
	}
	if (tunnel_counts) {
		tunnel_counts(v->port, &rx, &tx);
		listing_uint(l, rx);
		listing_uint(l, tx);
	} else {
		listing_none(l);
		listing_none(l);
	}
	add_networks(l, v->port);
}

static int verb_list(struct page *p, int argc, const char *argv[], char **error)
{
	struct tunnel_view v;

	listing_column(p->l, "port", "PORT");
	listing_column(p->l, "remote", "REMOTE");
	listing_column(p->l, "host", "HOST");
	listing_column(p->l, "state", "STATE");
	listing_column(p->l, "local", "LOCAL");
	listing_column(p->l, "next_hop", "NEXT HOP");
	listing_column(p->l, "mac", "MAC");
	listing_column(p->l, "underlay_port", "OUT");
	listing_column(p->l, "underlay", "UNDERLAY");
	listing_column(p->l, "mtu", "MTU");
	listing_column(p->l, "path_mtu", "PATH MTU");
	listing_column(p->l, "path_mtu_seconds", "FOR");
	listing_column(p->l, "rx_packets", "RX");
	listing_column(p->l, "tx_packets", "TX");
	listing_column(p->l, "networks", "NETWORKS");
	for (;;) {
		uint64_t next = p->at[0];

		if (!tunnel_table_at(&next, &v))
			return 0;
		if (!page_look(p))
			return 1;
		p->at[0] = next;
		list_one(p->l, &v);
	}
}

struct record {
	uint16_t port, network;
};

// What goes out by a tunnel's port; whether there is a way is seen packet by packet.
static uint16_t tunnel_resolve(struct resolve *r)
{
	const struct lport *out = r->trace && r->flow->out_kind == OUT_PORT ? lport_get(r->flow->out) : NULL;
	struct record rec = {.network = r->pkt->network};

	if (!out || out->kind != PORT_TUNNEL)
		return 0;
	rec.port = out->id;
	resolve_record(r, &rec, sizeof rec);
	return 0;
}

static void tunnel_format(struct buf *b, const void *record, uint16_t size)
{
	const struct record *r = record;
	const struct tunnel_network *tn = tunnel_table ? &tunnel_table->network[r->network & (MAX_NETWORKS - 1)] : NULL;
	char text[INET6_ADDRSTRLEN];
	struct tunnel_view v;

	buf_add(b, "by tunnel %s", lport_name(r->port));
	if (tn && tn->used)
		buf_add(b, ", %s, VNI %u", tunnel_desc[tn->key >> 24].name, tn->key & 0xffffff);
	for (uint64_t at = 0; tunnel_table_at(&at, &v);)
		if (v.port == r->port)
			buf_add(b, ", to %s: %s", ip_text(&v.remote, text), tunnel_state_text(v.state));
}

static const struct stage_verb tunnel_verbs[] = {
	{"tunnel/list", "[--limit N]", "tunnels to other switches: where they end, and the way there", NULL, verb_list},
	{0},
};

static int tunnel_reconcile(struct config *want)
{
	return tunnel_table_reconcile(want);
}

static void tunnel_tick(uint64_t now)
{
	tunnel_fragment_tick(now);
	tunnel_table_tick(now);
}

static void tunnel_release(void)
{
	tunnel_fragment_tick(UINT64_MAX);
}

struct stage stage_tunnel = {
	.name = "tunnel",
	.resolve = tunnel_resolve,
	.format = tunnel_format,
	.prepare = tunnel_table_prepare,
	.reconcile = tunnel_reconcile,
	.release = tunnel_release,
	.tick = tunnel_tick,
	.fini = tunnel_table_fini,
	.verbs = tunnel_verbs,
};
