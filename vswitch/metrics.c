// metrics: collects and writes them. See metrics.h, and metrics_table.h for what there is.
#include "metrics.h"
#include "class_table.h"
#include "clock.h"
#include "group_table.h"
#include "metrics_http.h"
#include "metrics_private.h"
#include "neighbour_event.h"
#include "neighbour_table.h"
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

#define ADDRESS 80
#define RETRY_MS 1000

static const struct metric_row rows[METRIC_N] = {METRICS(METRIC_ROW) PORT_METRICS(METRIC_ROW)};
static struct db *database;
static uint64_t started; // seconds since 1970
static uint64_t render_ns;
static struct metrics_http *unix_server, *tcp_server;
static char address[ADDRESS]; // metrics-listen; "": not over TCP
static char *unix_problem, *tcp_problem;
static long long retry_ms;

void metrics_family(struct om *o, enum metric m)
{
	om_family(o, &rows[m].family);
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
	metrics_family(o, METRIC_WORKER);
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

	metrics_family(o, METRIC_WORKER_BURST);
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
	metrics_family(o, packets ? METRIC_WORKER_PART_PACKETS : METRIC_WORKER_PART);
	for (unsigned i = 0; i < all->n; i++) {
		const struct worker *w = thread_worker(all->view[i].id);

		for (unsigned part = 0; w && part < CYCLES_STAGES + stage_count(); part++) {
			struct om_labels l = all->labels[i];
			uint64_t n = __atomic_load_n(&w->cycles.part[part].packets, __ATOMIC_RELAXED);
			uint64_t cycles = __atomic_load_n(&w->cycles.part[part].cycles, __ATOMIC_RELAXED);

			if (!cycles)
				continue;
			om_label(&l, part < CYCLES_STAGES ? "part" : "stage",
				 part < CYCLES_STAGES ? cycles_desc[part].name
						      : stage_get((uint8_t)(part - CYCLES_STAGES))->name);
			if (packets)
				om_uint(o, l.text, n);
			else
				om_seconds(o, l.text, clock_cycles_to_ns(cycles));
		}
	}
}

static void write_suspicions(struct om *o, const struct worker_views *all)
{
	static const char *const why[SUSPICION_N] = {
		[SUSPICION_LONG] = "long", [SUSPICION_FULL] = "queue-full", [SUSPICION_STORM] = "resolver-storm"};

	metrics_family(o, METRIC_WORKER_SUSPICIOUS);
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
	enum kind {
		NUMBER,
		CYCLES,
		NANOSECONDS
	};
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
		{METRIC_WORKER_ROUND_MAX, NANOSECONDS, offsetof(struct thread_view, longest_ns)},
		{METRIC_WORKER_ROUND_OWN, NANOSECONDS, offsetof(struct thread_view, own_ns)},
		{METRIC_FLOW_INSERTS, NUMBER, offsetof(struct thread_view, flows.inserts)},
		{METRIC_FLOW_EVICTIONS, NUMBER, offsetof(struct thread_view, flows.evictions)},
		{METRIC_FLOW_EXPIRIES, NUMBER, offsetof(struct thread_view, flows.expiries)},
		{METRIC_FLOW_REFUSALS, NUMBER, offsetof(struct thread_view, flows.refusals)},
	};

	memset(&all, 0, sizeof all);
	thread_view_each(view_worker, &all);
	write_worker_infos(o, &all);
	for (size_t f = 0; f < sizeof figures / sizeof figures[0]; f++) {
		metrics_family(o, figures[f].metric);
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
	metrics_family(o, METRIC_WORKER_QUEUES);
	for (unsigned i = 0; i < all.n; i++)
		om_uint(o, all.labels[i].text, all.view[i].n_rxqs);
}

// ---- tables

struct fill {
	struct om *o;
	const struct table_stat *stat;
	enum {
		ENTRIES,
		LIMIT,
		RATIO
	} what;
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
	metrics_family(o, METRIC_TABLE_FILL);
	f.what = RATIO;
	for (f.stat = table_stat_first(); f.stat; f.stat = f.stat->next)
		f.stat->each(write_fill_one, &f);
}

// ---- routers and groups

static void write_next_hops(struct om *o, const struct neighbour_port_figures *of)
{
	metrics_family(o, METRIC_NEXT_HOPS);
	for (uint16_t i = 1; i < MAX_PORTS; i++)
		for (unsigned dead = 0; dead < 2 && of[i].is_router_port; dead++) {
			struct om_labels l = {.len = 0};

			om_label(&l, "port", lport_name(i));
			om_label(&l, "state", dead ? "dead" : "alive");
			om_uint(o, l.text, dead ? of[i].dead_next_hops : of[i].next_hops - of[i].dead_next_hops);
		}
}

static void write_routers(struct om *o)
{
	static struct neighbour_port_figures of[MAX_PORTS]; // one main thread

	neighbour_figures(of);
	write_next_hops(o, of);
	metrics_family(o, METRIC_CONFLICTS);
	for (uint16_t i = 1; i < MAX_PORTS; i++) {
		struct om_labels l = {.len = 0};

		om_label(&l, "port", lport_name(i));
		if (of[i].is_router_port)
			om_uint(o, l.text, of[i].conflicts);
	}
	metrics_family(o, METRIC_NEIGHBOUR_LOST);
	om_uint(o, "", neighbour_events_lost());
}

static void write_groups(struct om *o)
{
	static const char *const limits[] = {"network", "port", "sources"};

	metrics_family(o, METRIC_MULTICAST_REFUSED);
	for (uint16_t i = 1; i < MAX_NETWORKS; i++) {
		const struct group_counters *c = group_counters(i);
		const struct network *net = network_get(i);

		for (unsigned k = 0; c && net && k < 3; k++) {
			struct om_labels l = {.len = 0};

			om_label(&l, "network", net->name);
			om_label(&l, "limit", limits[k]);
			om_uint(o, l.text, k == 0 ? c->refused_groups : k == 1 ? c->refused_port : c->refused_sources);
		}
	}
}

// ---- the switch

static void write_switch(struct om *o)
{
	struct om_labels l = {.len = 0};

	om_label(&l, "version", WEIR_VERSION);
	om_label(&l, "dpdk_version", rte_version());
	om_label(&l, "instruments", INSTRUMENTS ? "true" : "false");
	metrics_family(o, METRIC_BUILD);
	om_uint(o, l.text, 1);
	metrics_family(o, METRIC_DATABASE);
	om_uint(o, "", !db_problem(database));
	metrics_family(o, METRIC_CONFIGURATION);
	om_uint(o, "", reconcile_problem() != NULL);
	metrics_family(o, METRIC_RENDER);
	om_seconds(o, "", render_ns);
}

static void ignore(void *arg, const char *table, const struct row_id *row, uint64_t packets, uint64_t bytes)
{
}

static void write_classes(struct om *o)
{
	struct class_view c;

	if (!class_table_at(0, &c))
		return;
	stages_count(ignore, NULL); // brings them up to date
	for (int bytes = 0; bytes < 2; bytes++) {
		metrics_family(o, bytes ? METRIC_CLASS_BYTES : METRIC_CLASS);
		for (size_t i = 0; class_table_at(i, &c); i++) {
			struct om_labels l = {0};

			om_label(&l, "class", c.name);
			om_uint(o, l.text, bytes ? c.bytes : c.packets);
		}
	}
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
		uint64_t us = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
			      (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);

		metrics_family(o, METRIC_CPU);
		om_seconds(o, "", us * 1000);
	}
	if (resident) {
		metrics_family(o, METRIC_MEMORY);
		om_uint(o, "", resident * (uint64_t)sysconf(_SC_PAGESIZE));
	}
	metrics_family(o, METRIC_START);
	om_uint(o, "", started);
	if (!getrlimit(RLIMIT_NOFILE, &fds)) {
		metrics_family(o, METRIC_MAX_FDS);
		om_uint(o, "", fds.rlim_cur);
	}
}

char *metrics_render(enum om_format format, size_t *len)
{
	struct om o = {.format = format};
	uint64_t from = clock_ns();

	write_switch(&o);
	metrics_write_ports(&o);
	write_workers(&o);
	write_routers(&o);
	write_groups(&o);
	write_tables(&o);
	write_classes(&o);
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

	metrics_label_ports(c);
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
		sentence_set(&unix_problem,
			     "the run directory's name is too long for a socket in it: there are no metrics over HTTP");
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
	metrics_forget_ports();
	free(tcp_problem);
	free(unix_problem);
}

const char *metrics_problem(void)
{
	return tcp_problem ? tcp_problem : unix_problem;
}
