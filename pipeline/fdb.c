// fdb: learns the source address, looks the destination up, and says where the frame goes.
#include "fdb.h"
#include "sentence.h"
#include "notice.h"
#include "stage.h"
#include "table_stat.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FDB_REASONS(X)                                                                                                 \
	X(fdb, SAME_PORT, "the destination is on the ingress port itself")                                             \
	X(fdb, UNKNOWN, "the destination is not known and the network does not flood to find it")

STAGE_REASONS(fdb, FDB_REASONS);

enum effect_kind {
	EFFECT_LEARN, // port, value: key
	EFFECT_SEEN,  // index of the entry
};

struct record {
	uint8_t src[6], dst[6];
	uint8_t src_known, src_static, src_held, src_learns;
	uint8_t dst_known, dst_static, dst_group, dst_floods, dst_unasked;
	uint16_t network;
	uint16_t src_port, dst_port, in_port;
	uint32_t src_row, dst_row;
	uint32_t dst_age;
};

static uint64_t clock_now; // nanoseconds of the last tick, for ages in listings

static uint32_t seconds(const struct worker *w)
{
	return (uint32_t)(w->now / 1000000000ULL);
}

// The table as this decision sees it: explained packets before it have "learned" into the overlay.
static bool look_up(const struct resolve *r, uint64_t key, struct fdb_entry *e)
{
	bool known = fdb_lookup(key, e);

	if (known && e->is_static)
		return true;
	for (unsigned i = 0; i < r->n_overlay; i++) {
		const struct effect *o = &r->overlay[i];

		if (o->stage == stage_fdb.index && o->kind == EFFECT_LEARN && o->value == key) {
			if (!known)
				*e = (struct fdb_entry){.index = FDB_NONE};
			e->port = o->port;
			return true;
		}
	}
	return known;
}

static void source(struct resolve *r, uint64_t key, struct record *rec)
{
	struct fdb_entry e;

	resolve_depend(r, GEN_FDB, key);
	rec->src_known = look_up(r, key, &e);
	if (rec->src_known) {
		rec->src_port = e.port;
		rec->src_static = e.is_static;
		rec->src_held = e.held;
		rec->src_row = e.row;
		if (e.is_static)
			resolve_because(r, e.row);
	}
	if (!r->net->learning || (rec->src_known && rec->src_static))
		return;
	r->flow->flags |= FLOW_LEARN;
	struct effect *f = resolve_effect(r);
	if (rec->src_known && e.port == r->in->id) {
		r->flow->aux = e.index;
		// Packets that come too rarely for a cached flow, or find no room in the table, never refresh one.
		if (f) {
			f->kind = EFFECT_SEEN;
			f->index = e.index;
		}
		return;
	}
	if (!f)
		return;
	f->kind = EFFECT_LEARN;
	f->port = r->in->id;
	f->network = r->net->id;
	f->value = key;
	rec->src_learns = 1;
}

static uint16_t destination(struct resolve *r, const uint8_t *dst, struct record *rec)
{
	struct flow *f = r->flow;
	struct fdb_entry e;

	if (dst[0] & 1) {
		static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

		rec->dst_group = 1;
		f->out_kind = OUT_FLOOD;
		f->out = r->net->id;
		f->flags |= memcmp(dst, broadcast, 6) ? FLOW_BUM_MULTICAST : FLOW_BUM_BROADCAST;
		return 0;
	}
	uint64_t key = fdb_key(r->net->id, dst);
	resolve_depend(r, GEN_FDB, key);
	rec->dst_known = look_up(r, key, &e);
	if (!rec->dst_known) {
		rec->dst_floods = r->net->flood_unknown;
		f->flags |= FLOW_BUM_UNKNOWN;
		if (!r->net->flood_unknown)
			return resolve_drop(r, STAGE_REASON(fdb, UNKNOWN), r->net->row);
		f->out_kind = OUT_FLOOD;
		f->out = r->net->id;
		return 0;
	}
	rec->dst_static = e.is_static;
	rec->dst_port = e.port;
	rec->dst_row = e.row;
	rec->dst_age = seconds(r->w) - e.seen;
	if (e.is_static)
		resolve_because(r, e.row);
	if (e.port == r->in->id && !r->flow->adj) // routed packets may turn back on a link (RFC 1812 section 5.2.7.2)
		return resolve_drop(r, STAGE_REASON(fdb, SAME_PORT), e.is_static ? e.row : 0);
	f->out_kind = OUT_PORT;
	f->out = e.port;
	return 0;
}

uint16_t fdb_send(struct resolve *r, const uint8_t mac[6])
{
	struct record rec;

	return destination(r, mac, &rec);
}

static uint16_t fdb_resolve(struct resolve *r)
{
	const uint8_t *src = *resolve_field(r, DL_SRC, src), *dst = r->dst ? r->dst : *resolve_field(r, DL_DST, dst);
	struct record rec = {.network = r->net->id, .in_port = r->in->id};

	memcpy(rec.src, src, 6);
	memcpy(rec.dst, dst, 6);
	source(r, fdb_key(r->net->id, src), &rec);
	// Where it goes may be decided already, by a rule; where it comes from is learned all the same.
	rec.dst_unasked = r->flow->out_kind != OUT_NONE;
	uint16_t reason = rec.dst_unasked ? 0 : destination(r, dst, &rec);
	resolve_record(r, &rec, sizeof rec);
	return reason;
}

// Counts what came of it.
static void learned(struct worker *w, uint16_t port, enum fdb_result result)
{
	switch (result) {
	case FDB_LEARNED:
		worker_count(w, port, COUNT_FDB_LEARNED, 1);
		break;
	case FDB_MOVED:
		worker_count(w, port, COUNT_FDB_MOVED, 1);
		break;
	case FDB_HELD:
	case FDB_LIMIT:
	case FDB_FULL:
		worker_count(w, port, COUNT_FDB_REFUSED, 1);
		break;
	default:
		break;
	}
}

static void fdb_commit(struct worker *w, struct resolve *r, const struct effect *e)
{
	bool changed;
	uint32_t index;

	if (e->kind == EFFECT_SEEN) {
		fdb_touch(e->index, seconds(w));
		return;
	}
	enum fdb_result result = fdb_learn(e->value, e->port, seconds(w), &changed, &index);

	learned(w, e->port, result);
	if (changed || result == FDB_KNOWN)
		r->flow->aux = index;
	if (!changed)
		return;
	if (memcmp(r->key->src, r->key->dst, 6))
		resolve_bump(r, GEN_FDB, e->value);
	else // the destination was looked up before its address was learned: stale at once
		gen_bump(gen_slot(GEN_FDB, e->value));
}

static void fdb_refresh(struct worker *w, const struct flow *f)
{
	if (!(f->flags & FLOW_LEARN))
		return;
	if (f->aux != UINT32_MAX) { // the flow is fresh, so the entry is still that of its source
		fdb_touch(f->aux, seconds(w));
		return;
	}
	// It could not be learned when the flow was made: a limit, a hold, somebody else was writing.
	const struct flow_key *k = flow_key(w->flows, f);
	const struct lport *in = lport_get(k->port);
	if (!in)
		return;
	uint64_t key = fdb_key(lport_classify(in, k->vlan).network, k->src); // that it came from: it may be routed
	bool changed;
	uint32_t index;
	learned(w, k->port, fdb_learn(key, k->port, seconds(w), &changed, &index));
	if (changed)
		gen_bump(gen_slot(GEN_FDB, key));
}

static const char *port_name(uint16_t id)
{
	const struct lport *lp = lport_get(id);

	return lp ? lp->name : "a port that is gone";
}

static void fdb_format(struct buf *b, const void *record, uint16_t size)
{
	const struct record *r = record;
	const struct network *net = network_get(r->network);

	buf_add(b, "network %s: source ", net ? net->name : "?");
	buf_add_mac(b, r->src);
	if (r->src_static)
		buf_add(b, " is static on %s%s", port_name(r->src_port), r->src_port != r->in_port ? " (seen elsewhere, not learned)" : "");
	else if (!r->src_known)
		buf_add(b, r->src_learns ? " is new, learned on %s" : " is not learned", port_name(r->in_port));
	else if (r->src_port == r->in_port)
		buf_add(b, " is known on %s", port_name(r->src_port));
	else
		buf_add(b, " was on %s, %s", port_name(r->src_port), r->src_held ? "held there because it flaps" : r->src_learns ? "moves" : "stays there");
	if (r->dst_unasked) {
		buf_add(b, "; the destination is not asked for");
		return;
	}
	buf_add(b, "; destination ");
	buf_add_mac(b, r->dst);
	if (r->dst_group)
		buf_add(b, " is a group: flood");
	else if (!r->dst_known)
		buf_add(b, " is unknown: %s", r->dst_floods ? "flood" : "not flooded here");
	else if (r->dst_static)
		buf_add(b, " is static on %s", port_name(r->dst_port));
	else
		buf_add(b, " was learned on %s, seen %u s ago", port_name(r->dst_port), r->dst_age);
}

// ---- configuration and housekeeping

static void removed(uint64_t key)
{
	gen_bump(gen_slot(GEN_FDB, key));
}

static void say_held(const struct fdb_entry *e)
{
	const struct network *net = network_get(e->network);
	struct buf mac = {0};

	buf_add_mac(&mac, e->mac);
	notice('w', "fdb", (const struct log_field[]){{"mac", mac.text}, {"network", net ? net->name : NULL}, {"port", lport_name(e->port)}, {NULL, NULL}},
	       "address %s moves to and fro between ports: it is held on %s for now; look for a loop, or for two guests with one address", mac.text,
	       lport_name(e->port));
	free(mac.text);
}

// The static entries that are wanted: an open-addressed set of keys, none of which is 0.
struct wanted {
	uint64_t *key;
	size_t mask; // places less one, a power of two less one
};

static uint64_t *place_of(const struct wanted *want, uint64_t key)
{
	size_t at = (size_t)(key * 0x9e3779b97f4a7c15ULL >> 20);

	while (want->key[at & want->mask] && want->key[at & want->mask] != key)
		at++;
	return &want->key[at & want->mask];
}

static bool is_member(uint16_t port, uint16_t network)
{
	const struct lport *lp = lport_get(port);
	const struct network *net = network_get(network);

	return lp && net && (lp->untagged.network == network || (lp->vlans && lp->vlans[lp->mode == VLAN_NETWORK_ID ? network : net->vlan].network == network));
}

static bool is_unwanted(const struct fdb_entry *e, void *arg)
{
	const struct wanted *want = arg;

	if (!is_member(e->port, e->network))
		return true;
	uint64_t key = fdb_key(e->network, e->mac);
	return e->is_static && !*place_of(want, key);
}

// An address is static in one place; the second row that wants it gets the sentence.
static void set_static(struct wanted *want, uint64_t key, uint16_t port, uint32_t row, char **error)
{
	struct fdb_entry e;

	uint64_t *place = place_of(want, key);
	if (*place) {
		fdb_lookup(key, &e);
		const struct row_info *other = row_get(e.row);
		if (e.row != row)
			sentence_set(error, "the address %02x:%02x:%02x:%02x:%02x:%02x is already static on port %s by %s %s", e.mac[0], e.mac[1], e.mac[2],
				     e.mac[3], e.mac[4], e.mac[5], port_name(e.port), other ? other->table : "?", other ? other->name : "?");
		return;
	}
	*place = key;
	if (fdb_lookup(key, &e) && e.is_static && e.port == port && e.row == row)
		return;
	if (!fdb_set_static(key, port, row)) {
		sentence_set(error, "the forwarding database is full (%u entries)", FDB_SIZE);
		return;
	}
	removed(key); // its flows go by the new entry
}

static struct config_port *port_of(struct config *c, const struct row_id *id)
{
	for (size_t i = 0; i < c->n_ports; i++)
		if (row_id_equal(&c->ports[i].row, id))
			return &c->ports[i];
	return NULL;
}

static struct config_network *network_of(struct config *c, const struct row_id *id)
{
	for (size_t i = 0; i < c->n_networks; i++)
		if (row_id_equal(&c->networks[i].row, id))
			return &c->networks[i];
	return NULL;
}

static void static_entries(struct config *want, struct wanted *w)
{
	for (size_t i = 0; i < want->n_ports; i++) {
		struct config_port *cp = &want->ports[i];
		const struct config_network *cn = network_of(want, &cp->network);

		for (size_t a = 0; !cp->error && cn && cn->id && a < cp->n_addresses; a++)
			if (is_member(cp->id, cn->id))
				set_static(w, fdb_key(cn->id, cp->addresses[a].mac), cp->id, row_intern("Port", &cp->row, cp->name), &cp->error);
	}
	for (size_t i = 0; i < want->n_router_ports; i++) {
		struct config_router_port *rp = &want->router_ports[i];
		const struct config_network *cn = network_of(want, &rp->network);

		if (!rp->error && rp->id && rp->enabled && cn && is_member(rp->id, cn->id))
			set_static(w, fdb_key(cn->id, rp->mac), rp->id, row_intern("Router_Port", &rp->row, rp->name), &rp->error);
	}
	for (size_t i = 0; i < want->n_fdb; i++) {
		struct config_fdb *f = &want->fdb[i];
		const struct config_port *cp = port_of(want, &f->port);
		const struct config_network *cn = network_of(want, &f->network);
		char name[32];

		if (f->error)
			continue;
		if (!cp || !cn)
			continue; // not yet
		if (!is_member(cp->id, cn->id)) {
			sentence_set(&f->error, "port %s is not in network %s", cp->name, cn->name);
			continue;
		}
		snprintf(name, sizeof name, "%02x:%02x:%02x:%02x:%02x:%02x", f->mac[0], f->mac[1], f->mac[2], f->mac[3], f->mac[4], f->mac[5]);
		set_static(w, fdb_key(cn->id, f->mac), cp->id, row_intern("FDB", &f->row, name), &f->error);
	}
}

static const struct config_port *tunnel_to(const struct config *c, const struct config_ip *ip)
{
	for (size_t i = 0; i < c->n_ports; i++) {
		const struct config_port *cp = &c->ports[i];

		if (cp->kind == PORT_TUNNEL && cp->remote.v6 == ip->v6 && !memcmp(cp->remote.b, ip->b, ip->v6 ? 16 : 4))
			return cp;
	}
	return NULL;
}

// Stations behind tunnels: `told`: what other switches say of theirs, else what an operator said in table FDB. A station at a port of this switch is here, whatever
// they say: they may not know yet.
static void remote_entries(struct config *want, struct wanted *w, bool told)
{
	const struct config_remote_mac *last = NULL; // they come in rows of one end point, and of one network
	const struct config_network *cn = NULL;
	const struct config_port *cp = NULL;

	for (size_t i = 0; i < want->n_remote_macs; i++) {
		struct config_remote_mac *rm = &want->remote_macs[i];
		char *passed_over = NULL, name[32];

		if (row_id_is_zero(&rm->row) != told)
			continue;
		if (!last || memcmp(&last->ip, &rm->ip, sizeof rm->ip))
			cp = tunnel_to(want, &rm->ip);
		if (!last || !row_id_equal(&last->network, &rm->network))
			cn = network_of(want, &rm->network);
		last = rm;
		if (rm->error || !cp || !cn || !is_member(cp->id, cn->id))
			continue;
		snprintf(name, sizeof name, "%02x:%02x:%02x:%02x:%02x:%02x", rm->mac[0], rm->mac[1], rm->mac[2], rm->mac[3], rm->mac[4], rm->mac[5]);
		uint32_t row = told ? row_intern("Tunnel", &cp->row, cp->name) : row_intern("FDB", &rm->row, name);
		set_static(w, fdb_key(cn->id, rm->mac), cp->id, row, told ? &passed_over : &rm->error);
		free(passed_over);
	}
}

static int fdb_reconcile(struct config *want)
{
	size_t n = want->n_fdb + want->n_router_ports + want->n_remote_macs;

	for (size_t i = 0; i < want->n_networks; i++) {
		const struct config_network *cn = &want->networks[i];
		struct fdb_policy p = {cn->ageing_s, cn->mac_limit, cn->flap_threshold, cn->flap_window_s, cn->flap_hold_s};

		if (cn->id)
			fdb_set_policy(cn->id, &p);
	}
	for (size_t i = 0; i < want->n_ports; i++) {
		if (want->ports[i].id)
			fdb_set_port_limit(want->ports[i].id, want->ports[i].mac_limit);
		n += want->ports[i].n_addresses;
	}
	struct wanted w = {.mask = 63};
	while (w.mask < 2 * n)
		w.mask = w.mask << 1 | 1;
	w.key = calloc(w.mask + 1, sizeof *w.key);
	if (!w.key)
		return -ENOMEM;
	static_entries(want, &w);
	remote_entries(want, &w, false);
	remote_entries(want, &w, true);
	fdb_remove_if(is_unwanted, &w, removed);
	free(w.key);
	return 0;
}

static void fdb_tick(uint64_t now)
{
	clock_now = now;
	// The whole table within about ten ticks.
	fdb_age((uint32_t)(now / 1000000000ULL), FDB_SIZE / 8, removed, say_held);
}

// ---- verbs

static void list_one(struct listing *l, const struct fdb_entry *e)
{
	const struct network *net = network_get(e->network);
	uint32_t now_s = (uint32_t)(clock_now / 1000000000ULL);

	listing_row(l);
	listing_str(l, net ? net->name : NULL);
	listing_fmt(l, "%02x:%02x:%02x:%02x:%02x:%02x", e->mac[0], e->mac[1], e->mac[2], e->mac[3], e->mac[4], e->mac[5]);
	listing_str(l, port_name(e->port));
	listing_str(l, e->is_static ? "static" : e->held ? "flapping" : "learned");
	if (e->is_static)
		listing_none(l);
	else
		listing_uint(l, (int32_t)(now_s - e->seen) > 0 ? now_s - e->seen : 0);
	listing_uint(l, e->moves);
}

static bool network_known(const char *name, char **error)
{
	for (unsigned i = 1; name && i < MAX_NETWORKS; i++) {
		const struct network *net = network_get((uint16_t)i);

		if (net && !strcmp(net->name, name))
			return true;
	}
	if (name)
		sentence_set(error, "there is no network %s", name);
	return !name;
}

// What a list is wanted of: [--port PORT] [--mac MAC] [NETWORK]. NULL: all.
struct filter {
	const char *network, *port, *mac;
};

static bool port_known(const char *name, char **error)
{
	for (unsigned i = 1; name && i < MAX_PORTS; i++) {
		const struct lport *lp = lport_get((uint16_t)i);

		if (lp && !strcmp(lp->name, name))
			return true;
	}
	if (name)
		sentence_set(error, "there is no port %s", name);
	return !name;
}

static bool parse_filter(int argc, const char *argv[], struct filter *f, char **error)
{
	*f = (struct filter){0};
	for (int i = 1; i < argc; i++) {
		const char **option = !strcmp(argv[i], "--port") ? &f->port : !strcmp(argv[i], "--mac") ? &f->mac : NULL;

		if (option && i + 1 == argc)
			sentence_set(error, "%s wants a value", argv[i]);
		else if (option)
			*option = argv[++i];
		else if (f->network || argv[i][0] == '-')
			sentence_set(error, "fdb list takes --port PORT, --mac MAC, --limit N and a network");
		else
			f->network = argv[i];
	}
	return !*error && network_known(f->network, error) && port_known(f->port, error);
}

static bool is_wanted(const struct fdb_entry *e, const struct filter *f)
{
	const struct network *net = network_get(e->network);
	char mac[18];

	if ((f->network && (!net || strcmp(net->name, f->network))) || (f->port && strcmp(port_name(e->port), f->port)))
		return false;
	snprintf(mac, sizeof mac, "%02x:%02x:%02x:%02x:%02x:%02x", e->mac[0], e->mac[1], e->mac[2], e->mac[3], e->mac[4], e->mac[5]);
	return !f->mac || !strncasecmp(mac, f->mac, strlen(f->mac));
}

static int verb_list(struct page *p, int argc, const char *argv[], char **error)
{
	struct fdb_entry e;
	struct filter f;

	if (!parse_filter(argc, argv, &f, error))
		return -1;
	listing_column(p->l, "network", "NETWORK");
	listing_column(p->l, "mac", "MAC");
	listing_column(p->l, "port", "PORT");
	listing_column(p->l, "type", "TYPE");
	listing_column(p->l, "age", "AGE(s)");
	listing_column(p->l, "moves", "MOVES");
	for (uint64_t *at = &p->at[0]; *at < fdb_high(); ++*at) {
		if (!page_look(p))
			return 1;
		if (fdb_at((uint32_t)*at, &e) && is_wanted(&e, &f))
			list_one(p->l, &e);
	}
	return 0;
}

static bool is_to_flush(const struct fdb_entry *e, void *arg)
{
	const char *name = arg;
	const struct network *net = network_get(e->network);

	return !e->is_static && (!name || (net && !strcmp(net->name, name)));
}

static char *verb_flush(int argc, const char *argv[], bool json, char **error)
{
	char *text;

	if (!network_known(argc > 1 ? argv[1] : NULL, error))
		return NULL;
	unsigned n = fdb_remove_if(is_to_flush, (void *)(uintptr_t)(argc > 1 ? argv[1] : NULL), removed);
	if (asprintf(&text, json ? "{\"flushed\": %u}\n" : "%u learned addresses flushed\n", n) < 0)
		return NULL;
	return text;
}

// ---- set up

static void network_fill(table_fill_fn *fn, void *arg)
{
	for (uint16_t i = 1; i < MAX_NETWORKS; i++)
		if (network_get(i))
			fn(arg, network_get(i)->name, fdb_count(i), fdb_limit(i));
}

static struct table_stat network_stat = {
	.name = "fdb_network", .help = "learned addresses of a network", .label = "network", .each = network_fill};

static int stage_init(void)
{
	table_stat_register(&network_stat);
	return fdb_init();
}

static void stage_fini(void)
{
	table_stat_unregister(&network_stat);
	fdb_fini();
}

static const struct stage_verb fdb_verbs[] = {
	{"fdb/list", "[--port PORT] [--mac MAC] [--limit N] [NETWORK]", "addresses, learned and static", NULL, verb_list},
	{"fdb/flush", "[NETWORK]", "forget learned addresses", verb_flush},
	{0},
};

STAGE(fdb, .resolve = fdb_resolve, .commit = fdb_commit, .refresh = fdb_refresh, .format = fdb_format, .reconcile = fdb_reconcile,
      .tick = fdb_tick, .init = stage_init, .fini = stage_fini, .verbs = fdb_verbs);
