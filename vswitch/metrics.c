// metrics: collects and writes them. See metrics.h, and metrics_table.h for what there is.
#include "metrics.h"
#include "clock.h"
#include "load.h"
#include "metrics_http.h"
#include "metrics_table.h"
#include "port.h"
#include "recorder.h"
#include "reconcile.h"
#include "sentence.h"
#include "stage.h"
#include "table_stat.h"
#include "thread.h"
#include "topology.h"
#include "verbs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <rte_version.h>

#define LABELS_DEFAULT "vm-id,vm-uuid,vm-name,iface-id"
#define LABELS_MAX 16
#define ADDRESS 80
#define RETRY_MS 1000
// Bounds of latencies: powers of two nanoseconds, as those are where buckets of a histogram (histogram.h) end.
#define LATENCY_FIRST 12 // 4.096 us
#define LATENCY_LAST 27  // 134 ms
#define LATENCY_BOUNDS (LATENCY_LAST - LATENCY_FIRST + 1)

static const struct metric_row rows[METRIC_N] = {METRICS(METRIC_ROW) PORT_METRICS(METRIC_ROW)};
// The counter behind each row of PORT_METRICS, in its order.
#define METRIC_COUNT(id, ...) COUNT_##id,
static const enum count port_metrics[] = {PORT_METRICS(METRIC_COUNT)};
static_assert(sizeof port_metrics / sizeof port_metrics[0] == COUNT_N, "a counter of the ledger has no row in PORT_METRICS");

static struct db *database;
static uint64_t started; // seconds since 1970
static uint64_t render_ns;
static char *port_info[MAX_PORTS]; // labels of weir_port_info, by port
static struct metrics_http *unix_server, *tcp_server;
static char address[ADDRESS]; // metrics-listen; "": not over TCP
static char *unix_problem, *tcp_problem;
static long long retry_ms;

static void family(struct om *o, enum metric m)
{
	om_family(o, &rows[m].family);
}

// ---- ports

struct port_view {
	char labels[TOPOLOGY_NAME + 16];
	const char *info;
	uint16_t mtu;
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
	const struct lport *lp = lport_get(p->id);
	v->info = port_info[p->id];
	v->mtu = lp ? lp->mtu : p->mtu;
	port_state(p, &s);
	memcpy(v->lost, s.loss, sizeof v->lost);
	v->up = s.link_up;
	v->problem = !p->device || p->error || s.problem[0] || reconcile_port_error(&p->row);
}

static void write_port_states(struct om *o, const struct port_views *all)
{
	family(o, METRIC_PORT);
	for (size_t i = 0; i < all->n; i++)
		if (all->view[i].info)
			om_uint(o, all->view[i].info, 1);
	family(o, METRIC_PORT_UP);
	for (size_t i = 0; i < all->n; i++)
		if (all->view[i].info)
			om_uint(o, all->view[i].labels, all->view[i].up);
	family(o, METRIC_PORT_PROBLEM);
	for (size_t i = 0; i < all->n; i++)
		if (all->view[i].info)
			om_uint(o, all->view[i].labels, all->view[i].problem);
	family(o, METRIC_PORT_MTU);
	for (size_t i = 0; i < all->n; i++)
		if (all->view[i].info)
			om_uint(o, all->view[i].labels, all->view[i].mtu);
}

static void write_drops(struct om *o, const struct port_views *all)
{
	family(o, METRIC_PORT_DROPS);
	for (size_t i = 0; i < all->n; i++)
		for (uint16_t r = 1; r < reason_count(); r++) {
			const struct port_view *v = &all->view[i];
			char labels[sizeof v->labels + 80];

			if (!v->counts.drop[r])
				continue;
			snprintf(labels, sizeof labels, "%s,reason=\"%s.%s\"", v->labels, reason_get(r)->module, reason_get(r)->name);
			om_uint(o, labels, v->counts.drop[r]);
		}
}

// What nobody can tell is unknown, not 0.
static void write_lost(struct om *o, const struct port_views *all, bool unknown)
{
	family(o, unknown ? METRIC_PORT_LOST_UNKNOWN : METRIC_PORT_LOST);
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
		family(o, figures[f].metric);
		for (size_t i = 0; i < all->n; i++) {
			uint64_t cycles;

			memcpy(&cycles, (const char *)&all->view[i] + figures[f].at, sizeof cycles);
			om_seconds(o, all->view[i].labels, clock_cycles_to_ns(cycles));
		}
	}
	for (unsigned i = 0; i < LATENCY_BOUNDS; i++)
		bound[i] = (double)(1ULL << (LATENCY_FIRST + i)) / 1e9;
	family(o, METRIC_PORT_LATENCY);
	for (size_t i = 0; i < all->n; i++)
		if (all->view[i].latencies)
			om_histogram(o, all->view[i].labels, bound, all->view[i].latency, LATENCY_BOUNDS, (double)all->view[i].latency_sum / 1e9);
}

static void write_ledger(struct om *o, const struct port_views *all)
{
	uint64_t missing = 0;

	family(o, METRIC_PORT_MISSING);
	for (size_t i = 0; i < all->n; i++) {
		int64_t m = count_missing(&all->view[i].counts);

		if (m)
			om_int(o, all->view[i].labels, m);
		missing += (uint64_t)(m < 0 ? -m : m);
	}
	family(o, METRIC_LEDGER);
	om_uint(o, "", missing);
}

static void write_ports(struct om *o)
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
		family(o, (enum metric)(METRIC_N - COUNT_N + m));
		for (size_t i = 0; i < all.n; i++)
			om_uint(o, all.view[i].labels, all.view[i].counts.c[port_metrics[m]]);
	}
	write_drops(o, &all);
	write_lost(o, &all, false);
	write_lost(o, &all, true);
	write_load(o, &all);
	write_ledger(o, &all);
	free(all.view);
}

// ---- workers

struct worker_views {
	struct thread_view view[MAX_WORKERS];
	struct om_labels labels[MAX_WORKERS];
	unsigned n;
};

static void view_worker(const struct thread_view *v, void *arg)
{
	struct worker_views *all = arg;
	char id[12];

	snprintf(id, sizeof id, "%u", v->id);
	all->view[all->n] = *v;
	om_label(&all->labels[all->n++], "worker", id);
}

static void write_worker_infos(struct om *o, const struct worker_views *all)
{
	family(o, METRIC_WORKER);
	for (unsigned i = 0; i < all->n; i++) {
		struct om_labels l = all->labels[i];
		char number[12];

		snprintf(number, sizeof number, "%d", all->view[i].core);
		if (all->view[i].core >= 0)
			om_label(&l, "core", number);
		snprintf(number, sizeof number, "%d", all->view[i].numa_node);
		if (all->view[i].numa_node >= 0)
			om_label(&l, "numa_node", number);
		om_uint(o, l.text, 1);
	}
}

static void write_bursts(struct om *o, const struct worker_views *all)
{
	static const double bound[BURST_SIZES - 1] = {1, 3, 7, 15, 31, 32};

	family(o, METRIC_WORKER_BURST);
	for (unsigned i = 0; i < all->n; i++) {
		const struct thread_stats *s = &all->view[i].stats;
		uint64_t count[BURST_SIZES] = {0}; // without those that found nothing; none is above the last bound

		memcpy(count, s->bursts + 1, sizeof count - sizeof count[0]);
		om_histogram(o, all->labels[i].text, bound, count, BURST_SIZES - 1, (double)s->packets);
	}
}

// What parts of the work cost, of the bursts that were measured; only parts that occurred.
static void write_parts(struct om *o, const struct worker_views *all, bool packets)
{
	family(o, packets ? METRIC_WORKER_PART_PACKETS : METRIC_WORKER_PART);
	for (unsigned i = 0; i < all->n; i++) {
		const struct worker *w = thread_worker(all->view[i].id);

		for (unsigned part = 0; w && part < CYCLES_STAGES + stage_count(); part++) {
			struct om_labels l = all->labels[i];
			uint64_t n = __atomic_load_n(&w->cycles.part[part].packets, __ATOMIC_RELAXED);
			uint64_t cycles = __atomic_load_n(&w->cycles.part[part].cycles, __ATOMIC_RELAXED);

			if (!cycles)
				continue;
			om_label(&l, part < CYCLES_STAGES ? "part" : "stage",
				 part < CYCLES_STAGES ? cycles_desc[part].name : stage_get((uint8_t)(part - CYCLES_STAGES))->name);
			if (packets)
				om_uint(o, l.text, n);
			else
				om_seconds(o, l.text, clock_cycles_to_ns(cycles));
		}
	}
}

static void write_suspicions(struct om *o, const struct worker_views *all)
{
	static const char *const why[SUSPICION_N] = {[SUSPICION_LONG] = "long", [SUSPICION_FULL] = "queue-full", [SUSPICION_STORM] = "resolver-storm"};

	family(o, METRIC_WORKER_SUSPICIOUS);
	for (unsigned i = 0; i < all->n; i++) {
		const struct recorder *r = thread_recorder(all->view[i].id);

		for (unsigned s = SUSPICION_NONE + 1; r && s < SUSPICION_N; s++) {
			struct om_labels l = all->labels[i];

			om_label(&l, "reason", why[s]);
			om_uint(o, l.text, __atomic_load_n(&r->suspicious[s], __ATOMIC_RELAXED));
		}
	}
}

static void write_workers(struct om *o)
{
	static struct worker_views all; // one main thread
	enum kind { NUMBER, CYCLES, NANOSECONDS };
	static const struct {
		enum metric metric;
		enum kind kind;
		size_t at; // of an uint64_t in struct thread_view
	} figures[] = {
		{METRIC_WORKER_BUSY, CYCLES, offsetof(struct thread_view, stats.busy_cycles)},
		{METRIC_WORKER_IDLE, CYCLES, offsetof(struct thread_view, stats.idle_cycles)},
		{METRIC_WORKER_PACKETS, NUMBER, offsetof(struct thread_view, stats.packets)},
		{METRIC_WORKER_ROUNDS, NUMBER, offsetof(struct thread_view, stats.iterations)},
		{METRIC_WORKER_PAUSES, NUMBER, offsetof(struct thread_view, stats.pauses)},
		{METRIC_WORKER_SLEEPS, NUMBER, offsetof(struct thread_view, stats.blocks)},
		{METRIC_WORKER_ASLEEP, NANOSECONDS, offsetof(struct thread_view, stats.blocked_ns)},
		{METRIC_WORKER_WAKEUPS, NUMBER, offsetof(struct thread_view, stats.wakeups)},
		{METRIC_WORKER_WAKEUP, NANOSECONDS, offsetof(struct thread_view, stats.wakeup_ns_sum)},
		{METRIC_WORKER_WAKEUP_MAX, NANOSECONDS, offsetof(struct thread_view, stats.wakeup_ns_max)},
		{METRIC_FLOW_INSERTS, NUMBER, offsetof(struct thread_view, flows.inserts)},
		{METRIC_FLOW_EVICTIONS, NUMBER, offsetof(struct thread_view, flows.evictions)},
		{METRIC_FLOW_EXPIRIES, NUMBER, offsetof(struct thread_view, flows.expiries)},
		{METRIC_FLOW_REFUSALS, NUMBER, offsetof(struct thread_view, flows.refusals)},
	};

	memset(&all, 0, sizeof all);
	thread_view_each(view_worker, &all);
	write_worker_infos(o, &all);
	for (size_t f = 0; f < sizeof figures / sizeof figures[0]; f++) {
		family(o, figures[f].metric);
		for (unsigned i = 0; i < all.n; i++) {
			uint64_t v;

			memcpy(&v, (const char *)&all.view[i] + figures[f].at, sizeof v);
			if (figures[f].kind == NUMBER)
				om_uint(o, all.labels[i].text, v);
			else
				om_seconds(o, all.labels[i].text, figures[f].kind == CYCLES ? clock_cycles_to_ns(v) : v);
		}
	}
	write_bursts(o, &all);
	write_parts(o, &all, false);
	write_parts(o, &all, true);
	if (INSTRUMENTS)
		write_suspicions(o, &all);
	family(o, METRIC_WORKER_QUEUES);
	for (unsigned i = 0; i < all.n; i++)
		om_uint(o, all.labels[i].text, all.view[i].n_rxqs);
}

// ---- tables

struct fill {
	struct om *o;
	const struct table_stat *stat;
	enum { ENTRIES, LIMIT, RATIO } what;
};

static void write_fill_one(void *arg, const char *of, uint64_t entries, uint64_t limit)
{
	struct fill *f = arg;
	struct om_labels l = {.len = 0};

	if (f->what != ENTRIES && !limit)
		return;
	if (f->what == RATIO)
		om_label(&l, "table", f->stat->name);
	if (of)
		om_label(&l, f->what == RATIO ? "of" : f->stat->label, of);
	if (f->what == RATIO)
		om_real(f->o, l.text, (double)entries / (double)limit);
	else
		om_uint(f->o, l.text, f->what == ENTRIES ? entries : limit);
}

static void write_tables(struct om *o)
{
	char name[96], help[256];
	struct fill f = {.o = o};

	for (f.stat = table_stat_first(); f.stat; f.stat = f.stat->next)
		for (f.what = ENTRIES; f.what <= LIMIT; f.what++) {
			snprintf(name, sizeof name, "weir_%s_entries%s", f.stat->name, f.what == LIMIT ? "_limit" : "");
			snprintf(help, sizeof help, "%s%s", f.stat->help, f.what == LIMIT ? ": at most" : "");
			om_family(o, &(struct om_family){name, "", help, OM_GAUGE});
			f.stat->each(write_fill_one, &f);
		}
	family(o, METRIC_TABLE_FILL);
	f.what = RATIO;
	for (f.stat = table_stat_first(); f.stat; f.stat = f.stat->next)
		f.stat->each(write_fill_one, &f);
}

// ---- the switch

static void write_switch(struct om *o)
{
	struct om_labels l = {.len = 0};

	om_label(&l, "version", WEIR_VERSION);
	om_label(&l, "dpdk_version", rte_version());
	om_label(&l, "instruments", INSTRUMENTS ? "true" : "false");
	family(o, METRIC_BUILD);
	om_uint(o, l.text, 1);
	family(o, METRIC_DATABASE);
	om_uint(o, "", !db_problem(database));
	family(o, METRIC_CONFIGURATION);
	om_uint(o, "", reconcile_problem() != NULL);
	family(o, METRIC_RENDER);
	om_seconds(o, "", render_ns);
}

static void write_process(struct om *o)
{
	unsigned long long total = 0, resident = 0;
	struct rusage usage;
	struct rlimit fds;
	FILE *f = fopen("/proc/self/statm", "r");

	if (f) {
		if (fscanf(f, "%llu %llu", &total, &resident) != 2)
			resident = 0;
		fclose(f);
	}
	if (!getrusage(RUSAGE_SELF, &usage)) {
		uint64_t us = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 + (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);

		family(o, METRIC_CPU);
		om_seconds(o, "", us * 1000);
	}
	if (resident) {
		family(o, METRIC_MEMORY);
		om_uint(o, "", resident * (uint64_t)sysconf(_SC_PAGESIZE));
	}
	family(o, METRIC_START);
	om_uint(o, "", started);
	if (!getrlimit(RLIMIT_NOFILE, &fds)) {
		family(o, METRIC_MAX_FDS);
		om_uint(o, "", fds.rlim_cur);
	}
}

char *metrics_render(enum om_format format, size_t *len)
{
	struct om o = {.format = format};
	uint64_t from = clock_ns();

	write_switch(&o);
	write_ports(&o);
	write_workers(&o);
	write_tables(&o);
	write_process(&o);
	char *text = om_end(&o, len);
	render_ns = clock_ns() - from;
	return text;
}

static void verb(struct control_request *r, int argc, const char *argv[], void *aux)
{
	enum om_format format = argc < 2 || !strcmp(argv[1], "openmetrics") ? OM_OPENMETRICS : OM_TEXT;
	size_t len;

	if (argc > 1 && strcmp(argv[1], "openmetrics") && strcmp(argv[1], "text")) {
		verbs_refuse(r, "metrics are to be had as openmetrics or as text, not as \"%s\"", argv[1]);
		return;
	}
	char *text = metrics_render(format, &len);
	if (text)
		control_reply(r, text);
	else
		control_reply_error(r, "out of memory");
	free(text);
}

// ---- configuration

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

static void forget_ports(void)
{
	for (unsigned i = 0; i < MAX_PORTS; i++) {
		free(port_info[i]);
		port_info[i] = NULL;
	}
}

static void listen_again(void)
{
	char *error = NULL;

	tcp_server = metrics_http_tcp(address, &error);
	if (error && (!tcp_problem || strcmp(error, tcp_problem)))
		log_line('w', "metrics", "%s", error);
	else if (!error)
		log_line('i', "metrics", "http://%s/metrics is open", address);
	free(tcp_problem);
	tcp_problem = error;
}

void metrics_reconcile(const struct config *c)
{
	const char *where = config_map_get(&c->other_config, "metrics-listen", "");
	struct label_keys keys;

	read_label_keys(config_map_get(&c->other_config, "metrics-labels", LABELS_DEFAULT), &keys);
	forget_ports();
	for (size_t i = 0; i < c->n_ports; i++) {
		const struct config_port *cp = &c->ports[i];

		if (cp->id && !port_info[cp->id])
			port_info[cp->id] = info_of(cp, &keys);
	}
	if (!strcmp(where, address))
		return;
	metrics_http_close(tcp_server);
	tcp_server = NULL;
	free(tcp_problem);
	tcp_problem = NULL;
	snprintf(address, sizeof address, "%s", where);
	if (address[0])
		listen_again();
}

// ---- the main loop's calls

void metrics_init(struct db *db, const char *rundir, void (*wake)(void))
{
	char path[256];

	database = db;
	started = (uint64_t)time(NULL);
	control_register("metrics", "[openmetrics|text]", 0, 1, verb, NULL);
	metrics_http_init(wake);
	if (snprintf(path, sizeof path, "%s/metrics.sock", rundir) >= (int)sizeof path)
		sentence_set(&unix_problem, "the run directory's name is too long for a socket in it: there are no metrics over HTTP");
	else
		unix_server = metrics_http_unix(path, &unix_problem);
	if (unix_problem)
		log_line('w', "metrics", "%s", unix_problem);
}

void metrics_run(long long now_ms)
{
	for (enum om_format f = 0; f < OM_FORMATS; f++) {
		if (!metrics_http_wants(f))
			continue;
		size_t len;
		char *text = metrics_render(f, &len);
		metrics_http_answer(f, text, len);
	}
	metrics_http_tick();
	if (address[0] && !tcp_server && now_ms >= retry_ms) {
		retry_ms = now_ms + RETRY_MS;
		listen_again();
	}
}

void metrics_close(void)
{
	metrics_http_close(tcp_server);
	metrics_http_close(unix_server);
	metrics_http_fini();
	forget_ports();
	free(tcp_problem);
	free(unix_problem);
}

const char *metrics_problem(void)
{
	return tcp_problem ? tcp_problem : unix_problem;
}
