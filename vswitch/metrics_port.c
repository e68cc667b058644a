// metrics_port: the metrics of ports, and their labels. See metrics_table.h for what there is.
#include "metrics_private.h"
#include "bond.h"
#include "clock.h"
#include "load.h"
#include "port.h"
#include "reconcile.h"
#include "topology.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LABELS_DEFAULT "vm-id,vm-uuid,vm-name,iface-id"
#define LABELS_MAX 16
// Bounds of latencies: powers of two nanoseconds, as those are where buckets of a histogram (histogram.h) end.
#define LATENCY_FIRST 12 // 4.096 us
#define LATENCY_LAST 27  // 134 ms
#define LATENCY_BOUNDS (LATENCY_LAST - LATENCY_FIRST + 1)

// The counter behind each row of PORT_METRICS, in its order.
#define METRIC_COUNT(id, ...) COUNT_##id,
static const enum count port_metrics[] = {PORT_METRICS(METRIC_COUNT)};
static_assert(sizeof port_metrics / sizeof port_metrics[0] == COUNT_N, "a counter of the ledger has no row in PORT_METRICS");

static char *port_info[MAX_PORTS]; // labels of weir_port_info, by port

// ---- what a port has

struct port_view {
	char labels[TOPOLOGY_NAME + 16];
	const char *info;
	uint16_t mtu, guest_mtu;
	bool up, problem;
	struct counts counts;
	uint64_t lost[LOSS_N];
	uint64_t rx_cycles, resolve_cycles, tx_cycles;
	uint64_t latency[LATENCY_BOUNDS + 1], latencies, latency_sum; // by bound, how many, nanoseconds
};

struct port_views {
	struct port_view *view;
	size_t n, room;
};

static void view_load(const struct port *p, struct port_view *v)
{
	static struct port_load sum; // one main thread; four kilobytes

	memset(&sum, 0, sizeof sum);
	load_port(p, &sum);
	v->rx_cycles = sum.rx_cycles;
	v->resolve_cycles = sum.resolve_cycles;
	v->tx_cycles = sum.tx_cycles;
	v->latency_sum = sum.latency.sum;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		if (!sum.latency.bucket[i])
			continue;
		unsigned bits = 64 - (unsigned)__builtin_clzll(histogram_high(i) | 1); // its values are below 2^bits
		unsigned at = bits <= LATENCY_FIRST ? 0 : bits > LATENCY_LAST ? LATENCY_BOUNDS : bits - LATENCY_FIRST;

		v->latency[at] += sum.latency.bucket[i];
		v->latencies += sum.latency.bucket[i];
	}
}

static void view_port(struct port *p, void *arg)
{
	struct port_views *all = arg;
	struct om_labels l = {.len = 0};
	static struct port_state s; // one main thread; three kilobytes

	if (all->n == all->room)
		return;
	struct port_view *v = &all->view[all->n++];
	om_label(&l, "port", p->name);
	if (l.len < sizeof v->labels)
		memcpy(v->labels, l.text, l.len + 1);
	port_counts(p, &v->counts);
	view_load(p, v);
	if (!p->id)
		return;
	v->info = port_info[p->id];
	v->mtu = port_mtu_now(p);
	port_state(p, &s);
	memcpy(v->lost, s.loss, sizeof v->lost);
	v->up = s.link_up;
	v->guest_mtu = s.guest_mtu;
	v->problem = !p->device || p->error || s.problem[0] || reconcile_port_error(&p->row);
}

static void write_port_states(struct om *o, const struct port_views *all)
{
	metrics_family(o, METRIC_PORT);
	for (size_t i = 0; i < all->n; i++)
		if (all->view[i].info)
			om_uint(o, all->view[i].info, 1);
	metrics_family(o, METRIC_PORT_UP);
	for (size_t i = 0; i < all->n; i++)
		if (all->view[i].info)
			om_uint(o, all->view[i].labels, all->view[i].up);
	metrics_family(o, METRIC_PORT_PROBLEM);
	for (size_t i = 0; i < all->n; i++)
		if (all->view[i].info)
			om_uint(o, all->view[i].labels, all->view[i].problem);
	metrics_family(o, METRIC_PORT_MTU);
	for (size_t i = 0; i < all->n; i++)
		if (all->view[i].info)
			om_uint(o, all->view[i].labels, all->view[i].mtu);
	metrics_family(o, METRIC_PORT_GUEST_MTU);
	for (size_t i = 0; i < all->n; i++)
		if (all->view[i].guest_mtu)
			om_uint(o, all->view[i].labels, all->view[i].guest_mtu);
}

static void write_bonds(struct om *o)
{
	static const struct {
		enum metric metric;
		size_t at; // of an uint64_t in struct bond_count
	} figures[] = {{METRIC_BOND_ACTIVE, 0},
		       {METRIC_BOND_RX, offsetof(struct bond_count, rx_packets)},
		       {METRIC_BOND_RX_BYTES, offsetof(struct bond_count, rx_bytes)},
		       {METRIC_BOND_TX, offsetof(struct bond_count, tx_packets)},
		       {METRIC_BOND_TX_BYTES, offsetof(struct bond_count, tx_bytes)}};

	for (size_t f = 0; f < sizeof figures / sizeof figures[0]; f++) {
		metrics_family(o, figures[f].metric);
		for (const struct bond *b = bonds; b; b = b->next)
			for (unsigned i = 0; i < BOND_MEMBERS; i++) {
				const struct port *p = b->member[i].port ? port_get(b->member[i].port) : NULL;
				struct om_labels l = {.len = 0};
				struct bond_count sum;
				uint64_t v;

				if (!p)
					continue;
				om_label(&l, "bond", b->name);
				om_label(&l, "port", p->name);
				bond_count_sum(b, i, &sum);
				memcpy(&v, (const char *)&sum + figures[f].at, sizeof v);
				om_uint(o, l.text, figures[f].metric == METRIC_BOND_ACTIVE ? b->sending >> i & 1 : v);
			}
	}
}

static void write_drops(struct om *o, const struct port_views *all)
{
	metrics_family(o, METRIC_PORT_DROPS);
	for (size_t i = 0; i < all->n; i++)
		for (uint16_t r = 1; r < reason_count(); r++) {
			const struct port_view *v = &all->view[i];
			char labels[sizeof v->labels + 80];

			if (!v->counts.drop[r])
				continue;
			snprintf(labels, sizeof labels, "%s,reason=\"%s.%s\"", v->labels, reason_get(r)->module,
				 reason_get(r)->name);
			om_uint(o, labels, v->counts.drop[r]);
		}
}

// What nobody can tell is unknown, not 0.
static void write_lost(struct om *o, const struct port_views *all, bool unknown)
{
	metrics_family(o, unknown ? METRIC_PORT_LOST_UNKNOWN : METRIC_PORT_LOST);
	for (size_t i = 0; i < all->n; i++)
		for (unsigned k = 0; k < LOSS_N; k++) {
			const struct port_view *v = &all->view[i];
			char labels[sizeof v->labels + 80];

			if (!v->info || v->lost[k] == LOSS_NONE || (v->lost[k] == LOSS_UNKNOWN) != unknown)
				continue;
			snprintf(labels, sizeof labels, "%s,reason=\"%s\"", v->labels, port_loss_desc[k].key);
			om_uint(o, labels, unknown ? 1 : v->lost[k]);
		}
}

static void write_load(struct om *o, const struct port_views *all)
{
	static const struct {
		enum metric metric;
		size_t at; // of an uint64_t in struct port_view
	} figures[] = {{METRIC_PORT_RX_TIME, offsetof(struct port_view, rx_cycles)},
		       {METRIC_PORT_RESOLVE_TIME, offsetof(struct port_view, resolve_cycles)},
		       {METRIC_PORT_TX_TIME, offsetof(struct port_view, tx_cycles)}};
	double bound[LATENCY_BOUNDS];

	for (size_t f = 0; INSTRUMENTS && f < sizeof figures / sizeof figures[0]; f++) {
		metrics_family(o, figures[f].metric);
		for (size_t i = 0; i < all->n; i++) {
			uint64_t cycles;

			memcpy(&cycles, (const char *)&all->view[i] + figures[f].at, sizeof cycles);
			om_seconds(o, all->view[i].labels, clock_cycles_to_ns(cycles));
		}
	}
	for (unsigned i = 0; i < LATENCY_BOUNDS; i++)
		bound[i] = (double)(1ULL << (LATENCY_FIRST + i)) / 1e9;
	metrics_family(o, METRIC_PORT_LATENCY);
	for (size_t i = 0; i < all->n; i++)
		if (all->view[i].latencies)
			om_histogram(o, all->view[i].labels, bound, all->view[i].latency, LATENCY_BOUNDS,
				     (double)all->view[i].latency_sum / 1e9);
}

static void write_ledger(struct om *o, const struct port_views *all)
{
	uint64_t missing = 0;

	metrics_family(o, METRIC_PORT_MISSING);
	for (size_t i = 0; i < all->n; i++) {
		int64_t m = count_missing(&all->view[i].counts);

		if (m)
			om_int(o, all->view[i].labels, m);
		missing += (uint64_t)(m < 0 ? -m : m);
	}
	metrics_family(o, METRIC_LEDGER);
	om_uint(o, "", missing);
}

void metrics_write_ports(struct om *o)
{
	size_t room = port_count() + 1;
	struct port_views all = {.view = calloc(room, sizeof *all.view), .room = room};

	if (!all.view) {
		o->failed = true;
		return;
	}
	port_each(view_port, &all);
	view_port(port_get(0), &all);
	write_port_states(o, &all);
	for (size_t m = 0; m < sizeof port_metrics / sizeof port_metrics[0]; m++) {
		metrics_family(o, (enum metric)(METRIC_N - COUNT_N + m));
		for (size_t i = 0; i < all.n; i++)
			om_uint(o, all.view[i].labels, all.view[i].counts.c[port_metrics[m]]);
	}
	write_bonds(o);
	write_drops(o, &all);
	write_lost(o, &all, false);
	write_lost(o, &all, true);
	write_load(o, &all);
	write_ledger(o, &all);
	free(all.view);
}

// ---- labels

// The keys of external_ids that become labels of a port, with the names of those.
struct label_keys {
	char key[LABELS_MAX][64], name[LABELS_MAX][64];
	unsigned n;
};

static void read_label_keys(const char *list, struct label_keys *k)
{
	static const char *const taken[] = {"port", "type", "network"};

	for (k->n = 0; *list && k->n < LABELS_MAX;) {
		size_t len = strcspn(list, ", ");
		char *name = k->name[k->n];
		bool free_name = len && len < sizeof k->key[0];

		if (free_name) {
			memcpy(k->key[k->n], list, len);
			k->key[k->n][len] = 0;
			om_label_name(k->key[k->n], name, sizeof k->name[0]);
			free_name = name[0];
		}
		for (size_t i = 0; free_name && i < sizeof taken / sizeof taken[0]; i++)
			free_name = strcmp(name, taken[i]);
		for (unsigned i = 0; free_name && i < k->n; i++) // the first of two that differ in - and _ only
			free_name = strcmp(name, k->name[i]);
		k->n += free_name;
		list += len;
		list += *list != 0;
	}
}

static char *info_of(const struct config_port *cp, const struct label_keys *keys)
{
	struct om_labels l = {.len = 0};
	const struct lport *lp = lport_get(cp->id);
	const struct network *net = lp ? network_get(lp->untagged.network) : NULL;

	om_label(&l, "port", cp->name);
	om_label(&l, "type", cp->type);
	if (net)
		om_label(&l, "network", net->name);
	for (unsigned i = 0; i < keys->n; i++) {
		const char *value = config_map_get(&cp->external_ids, keys->key[i], NULL);

		if (value && *value)
			om_label(&l, keys->name[i], value);
	}
	return strdup(l.text);
}

void metrics_forget_ports(void)
{
	for (unsigned i = 0; i < MAX_PORTS; i++) {
		free(port_info[i]);
		port_info[i] = NULL;
	}
}

void metrics_label_ports(const struct config *c)
{
	struct label_keys keys;

	read_label_keys(config_map_get(&c->other_config, "metrics-labels", LABELS_DEFAULT), &keys);
	metrics_forget_ports();
	for (size_t i = 0; i < c->n_ports; i++) {
		const struct config_port *cp = &c->ports[i];

		if (cp->id && !port_info[cp->id])
			port_info[cp->id] = info_of(cp, &keys);
	}
}
