// export: see export.h.
#include "export.h"
#include "clock.h"
#include "control.h"
#include "export_target.h"
#include "flow_record.h"
#include "ipfix.h"
#include "pages.h"
#include "port.h"
#include "rcu.h"
#include "sentence.h"
#include "thread.h"
#include "topology.h"
#include "verbs.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum {
	MAX_EXPORTS = 16,
	MAX_TARGETS = 8,
	SLICE_ENDS = 500,     // records taken from rings in one go
	SLICE_LOOKS = 4096,   // flows looked at in one go
	WALKS = 4,            // times that the tables are walked through per active time-out
	HOUSEKEEPING_MS = 100,
	MARKS = 1 << 24,      // flows of a table at most, flow.c
};

// How far a flow was reported. Of another flow with this index, if the serial isn't its own.
struct mark {
	uint32_t serial;   // 0: nothing was reported
	uint32_t until_ms; // its last packet then
	uint64_t packets, bytes;
};

// What is lost is counted in records, and in the packets and bytes of these.
struct loss {
	uint64_t records, packets, bytes;
};

struct exporter {
	struct config_export config; // a copy: name, numbers
	uint64_t networks[MAX_NETWORKS / 64];
	struct target *target[MAX_TARGETS];
	unsigned n_targets;
	bool wants_ipfix, wants_json;
	struct ipfix ipfix;
	uint64_t pending_packets, pending_bytes; // of the records in the message that is being made
	struct mark *mark[MAX_WORKERS];
	unsigned worker;         // where the walk is
	uint32_t at;
	long long told_ms;       // when templates and options were sent
	bool tell_interfaces;
	uint64_t records;
	struct loss lost;
	long long line_second;   // the second that `lines` counts
	uint32_t lines;
};

static struct exporter *exporters[MAX_EXPORTS];
static unsigned n_exporters;
static struct {
	struct flow_table *table;
	struct flow_ends *ends;
} watch[MAX_WORKERS];
static struct loss gone; // of rings that are no more
static char port_name[MAX_PORTS][TOPOLOGY_NAME], network_name[MAX_NETWORKS][TOPOLOGY_NAME]; // also of those that have just gone
static uint16_t port_network[MAX_PORTS];
static long long next_ms = LLONG_MAX, housekeeping_ms;
static uint64_t wall_ms;  // time of day ...
static uint32_t clock_ms; // ... at this time of the workers' clock

static void look_at_clocks(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	wall_ms = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
	clock_ms = (uint32_t)(clock_ns() / 1000000);
}

static uint64_t time_of(uint32_t ms)
{
	return wall_ms - (uint64_t)(int64_t)(int32_t)(clock_ms - ms);
}

// ---- from records to targets

static void send_message(void *arg, uint8_t *message, size_t len, unsigned records)
{
	struct exporter *x = arg;
	bool lost = false;

	for (unsigned i = 0; i < x->n_targets; i++) {
		struct target *t = x->target[i];

		if (t->json)
			continue;
		ipfix_renumber(message, t->missed);
		lost |= !target_send(t, message, len, records);
		ipfix_renumber(message, 0u - t->missed);
	}
	if (lost) {
		x->lost.records += records;
		x->lost.packets += x->pending_packets;
		x->lost.bytes += x->pending_bytes;
	}
	x->pending_packets = x->pending_bytes = 0;
}

static void send_line(struct exporter *x, const struct flow_record *r)
{
	bool lost = false;

	if (x->line_second != (long long)(wall_ms / 1000)) {
		x->line_second = (long long)(wall_ms / 1000);
		x->lines = 0;
	}
	char *line = x->lines++ < x->config.line_rate ? flow_record_json(r) : NULL;
	for (unsigned i = 0; i < x->n_targets; i++) {
		struct target *t = x->target[i];

		if (!t->json)
			continue;
		if (line)
			lost |= !target_send(t, line, strlen(line), 1);
		else
			t->lost++;
		lost |= !line;
	}
	free(line);
	if (lost) {
		x->lost.records++;
		x->lost.packets += r->packets;
		x->lost.bytes += r->bytes;
	}
}

static void send_record(struct exporter *x, const struct flow_record *r)
{
	x->records++;
	if (x->wants_ipfix) {
		if (ipfix_record(&x->ipfix, r)) {
			x->pending_packets += r->packets;
			x->pending_bytes += r->bytes;
		} else {
			x->lost.records++;
			x->lost.packets += r->packets;
			x->lost.bytes += r->bytes;
		}
	}
	if (x->wants_json)
		send_line(x, r);
}

// ---- from flows to records

static bool wanted(const struct exporter *x, const struct flow_end *e)
{
	uint16_t network = e->decision.network & (MAX_NETWORKS - 1);

	return x->networks[network / 64] >> network % 64 & 1 && flow_sampled(e->hash, x->config.sampling);
}

// What of the flow was not in a record yet becomes one.
static void report(struct exporter *x, unsigned worker, const struct flow_end *e)
{
	struct mark *m = &x->mark[worker][e->index];
	struct mark before = {0};
	struct flow_record r;

	if (m->serial == e->serial)
		before = *m;
	if (e->goes_on)
		*m = (struct mark){e->serial, e->used_ms, e->packets, e->bytes};
	else if (m->serial)
		m->serial = 0;
	if (e->packets == before.packets)
		return;
	flow_record_fill(&r, e);
	r.packets = e->packets - before.packets;
	r.bytes = e->bytes - before.bytes;
	r.start_ms = time_of(before.serial ? before.until_ms : e->created_ms);
	r.end_ms = time_of(e->used_ms);
	r.in_name = port_name[e->key.port & (MAX_PORTS - 1)];
	r.out_name = r.fields & RECORD_OUT_PORT ? port_name[r.out & (MAX_PORTS - 1)] : NULL;
	r.network_name = e->decision.network ? network_name[e->decision.network & (MAX_NETWORKS - 1)] : NULL;
	send_record(x, &r);
}

static void report_to_all(unsigned worker, const struct flow_end *e)
{
	for (unsigned i = 0; i < n_exporters; i++)
		if (exporters[i]->mark[worker] && wanted(exporters[i], e))
			report(exporters[i], worker, e);
}

// Takes what a worker's ring holds. Returns how many records may still be taken.
static unsigned take_ends_of(unsigned id, unsigned budget)
{
	struct flow_end e;

	while (watch[id].ends && budget && flow_ends_take(watch[id].ends, &e)) {
		report_to_all(id, &e);
		budget--;
	}
	return budget;
}

static unsigned take_ends(unsigned budget)
{
	static unsigned first; // another one each time: none is left behind by busier ones

	first = (first + 1) % MAX_WORKERS;
	for (unsigned i = 0; i < MAX_WORKERS; i++)
		budget = take_ends_of((first + i) % MAX_WORKERS, budget);
	return budget;
}

static void look_at_flow(struct exporter *x, unsigned id, const struct flow_table *flows, uint32_t i)
{
	struct flow_view v;
	struct flow_end e;

	if (!x->mark[id] || !flow_table_read(flows, i, &v))
		return;
	const struct mark *m = &x->mark[id][i];
	bool known = m->serial == v.cold.serial;
	// The mark is of a flow whose end is still in the ring, or was lost. Wait until that is empty.
	if (m->serial && !known && flow_ends_waiting(watch[id].ends))
		return;
	int32_t lasts = (int32_t)(clock_ms - (known ? m->until_ms : v.cold.created_ms));
	if (v.flow.packets == (known ? m->packets : 0) || lasts < (int32_t)x->config.active_timeout_s * 1000)
		return;
	flow_end_of(&v, i, &e);
	if (wanted(x, &e))
		report(x, id, &e);
}

static uint64_t flows_of_all(void)
{
	uint64_t n = 0;

	for (unsigned id = 0; id < MAX_WORKERS; id++)
		n += watch[id].table ? flow_table_high(watch[id].table) : 0;
	return n;
}

// Goes on with the walk, as far as is due in EXPORT_MS.
static void walk(struct exporter *x, uint64_t flows)
{
	uint64_t looks = flows * EXPORT_MS * WALKS / (x->config.active_timeout_s * 1000) + 16;

	for (looks = looks < SLICE_LOOKS ? looks : SLICE_LOOKS; looks; looks--) {
		unsigned tried = 0;

		while (!watch[x->worker].table || x->at >= flow_table_high(watch[x->worker].table)) {
			x->worker = (x->worker + 1) % MAX_WORKERS;
			x->at = 0;
			if (++tried > MAX_WORKERS)
				return;
		}
		look_at_flow(x, x->worker, watch[x->worker].table, x->at++);
	}
}

// ---- rings

static uint64_t read_counter(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static struct loss lost_in(const struct flow_ends *ends)
{
	return (struct loss){read_counter(&ends->lost), read_counter(&ends->lost_packets), read_counter(&ends->lost_bytes)};
}

static void add_loss(struct loss *to, struct loss l)
{
	to->records += l.records;
	to->packets += l.packets;
	to->bytes += l.bytes;
}

static struct loss lost_in_rings(void)
{
	struct loss sum = gone;

	for (unsigned id = 0; id < MAX_WORKERS; id++)
		if (watch[id].ends)
			add_loss(&sum, lost_in(watch[id].ends));
	return sum;
}

static void free_ring(void *ends)
{
	munmap(ends, sizeof(struct flow_ends));
}

// What rings take: all that any row wants.
static void set_filter(struct flow_ends *ends)
{
	uint32_t sample = UINT32_MAX;

	for (unsigned i = 0; i < n_exporters; i++)
		sample = exporters[i]->config.sampling < sample ? exporters[i]->config.sampling : sample;
	for (unsigned k = 0; k < MAX_NETWORKS / 64; k++) {
		uint64_t any = 0;

		for (unsigned i = 0; i < n_exporters; i++)
			any |= exporters[i]->networks[k];
		__atomic_store_n(&ends->networks[k], any, __ATOMIC_RELAXED);
	}
	__atomic_store_n(&ends->sample, sample, __ATOMIC_RELAXED);
}

static void *reserve(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

// Every worker's table has a ring, and every row marks for it; workers come and go.
static void watch_workers(void)
{
	for (unsigned id = 0; id < MAX_WORKERS; id++) {
		struct worker *w = thread_worker(id);
		bool ready = w != NULL;

		if (!w)
			continue;
		for (unsigned i = 0; i < n_exporters; i++) {
			if (!exporters[i]->mark[id])
				exporters[i]->mark[id] = reserve(MARKS * sizeof(struct mark));
			ready &= exporters[i]->mark[id] != NULL;
		}
		if (watch[id].ends || !ready)
			continue;
		struct flow_ends *ends = reserve(sizeof *ends);
		if (!ends)
			continue;
		set_filter(ends);
		watch[id].table = w->flows;
		watch[id].ends = ends;
		flow_table_watch(w->flows, ends);
	}
}

static void unwatch(unsigned id)
{
	if (!watch[id].ends)
		return;
	flow_table_watch(watch[id].table, NULL);
	add_loss(&gone, lost_in(watch[id].ends));
	rcu_defer(free_ring, watch[id].ends);
	watch[id].table = NULL;
	watch[id].ends = NULL;
}

// All flows of a table as they are now.
static void report_table(unsigned id)
{
	for (uint32_t i = 0; i < flow_table_high(watch[id].table); i++) {
		struct flow_view v;
		struct flow_end e;

		if (!flow_table_read(watch[id].table, i, &v) || !v.flow.packets)
			continue;
		flow_end_of(&v, i, &e);
		e.why = FLOW_END_FORCED;
		report_to_all(id, &e);
	}
}

// The worker of a table is no more: its flows end with it.
static void table_ends(struct flow_table *t)
{
	look_at_clocks();
	for (unsigned id = 0; id < MAX_WORKERS; id++) {
		if (watch[id].table != t)
			continue;
		take_ends_of(id, UINT_MAX);
		report_table(id);
		unwatch(id);
		for (unsigned i = 0; i < n_exporters; i++) {
			if (exporters[i]->mark[id])
				munmap(exporters[i]->mark[id], MARKS * sizeof(struct mark));
			exporters[i]->mark[id] = NULL;
		}
	}
}

// ---- rows

static void exporter_free(struct exporter *x)
{
	if (!x)
		return;
	if (x->wants_ipfix)
		ipfix_flush(&x->ipfix);
	for (unsigned i = 0; i < x->n_targets; i++)
		target_close(x->target[i]);
	for (unsigned id = 0; id < MAX_WORKERS; id++)
		if (x->mark[id])
			munmap(x->mark[id], MARKS * sizeof(struct mark));
	free(x->config.name);
	free(x);
}

static bool open_targets(struct exporter *x, const struct config_export *want)
{
	for (size_t i = 0; i < want->n_targets; i++) {
		struct target *t = target_open(want->targets[i]);

		if (!t)
			return false;
		x->target[x->n_targets++] = t;
		x->wants_json |= t->json;
		x->wants_ipfix |= !t->json;
	}
	return true;
}

static struct exporter *exporter_make(const struct config_export *want)
{
	struct exporter *x = calloc(1, sizeof *x);

	if (!x)
		return NULL;
	x->config = *want;
	x->config.targets = NULL;
	x->config.networks = NULL;
	x->config.error = NULL;
	x->config.name = strdup(want->name);
	if (!x->config.name || !open_targets(x, want)) {
		exporter_free(x);
		return NULL;
	}
	ipfix_init(&x->ipfix, want->domain, want->enterprise, send_message, x);
	x->told_ms = LLONG_MIN / 2;
	return x;
}

static bool same_targets(const struct exporter *x, const struct config_export *want)
{
	if (x->n_targets != want->n_targets)
		return false;
	for (size_t i = 0; i < want->n_targets; i++)
		if (strcmp(x->target[i]->text, want->targets[i]))
			return false;
	return true;
}

// The exporter of a row that is as before goes on, counters and all.
static struct exporter *take_same(struct exporter **old, unsigned n, const struct config_export *want)
{
	for (unsigned i = 0; i < n; i++) {
		struct exporter *x = old[i];

		if (!x || !row_id_equal(&x->config.row, &want->row) || strcmp(x->config.name, want->name) || x->config.sampling != want->sampling ||
		    x->config.active_timeout_s != want->active_timeout_s || x->config.domain != want->domain ||
		    x->config.template_interval_s != want->template_interval_s || x->config.enterprise != want->enterprise ||
		    x->config.line_rate != want->line_rate || !same_targets(x, want))
			continue;
		old[i] = NULL;
		return x;
	}
	return NULL;
}

static void set_networks(struct exporter *x, const struct config_export *want, const struct config *c)
{
	memset(x->networks, want->n_networks ? 0 : 0xff, sizeof x->networks);
	for (size_t i = 0; i < want->n_networks; i++)
		for (size_t k = 0; k < c->n_networks; k++)
			if (row_id_equal(&want->networks[i], &c->networks[k].row) && c->networks[k].id)
				x->networks[c->networks[k].id / 64] |= 1ULL << c->networks[k].id % 64;
}

static void check(struct config_export *want, unsigned n)
{
	if (!INSTRUMENTS)
		sentence_set(&want->error, "this switch was built without instruments");
	if (!want->n_targets)
		sentence_set(&want->error, "targets: there is none");
	for (size_t i = 0; i < want->n_targets && !want->error; i++)
		target_check(want->targets[i], &want->error);
	if (want->n_targets > MAX_TARGETS)
		sentence_set(&want->error, "targets: a row has %d at most", MAX_TARGETS);
	if (n == MAX_EXPORTS)
		sentence_set(&want->error, "a switch has %d rows of flow export at most", MAX_EXPORTS);
}

static void note_names(const struct config *c)
{
	for (size_t i = 0; i < c->n_networks; i++)
		if (c->networks[i].id)
			snprintf(network_name[c->networks[i].id], TOPOLOGY_NAME, "%s", c->networks[i].name);
	for (size_t i = 0; i < c->n_ports; i++) {
		const struct config_port *p = &c->ports[i];

		if (!p->id)
			continue;
		snprintf(port_name[p->id], TOPOLOGY_NAME, "%s", p->name);
		port_network[p->id] = 0;
		for (size_t k = 0; k < c->n_networks; k++)
			if (row_id_equal(&p->network, &c->networks[k].row))
				port_network[p->id] = c->networks[k].id;
	}
}

void export_reconcile(struct config *c)
{
	struct exporter *old[MAX_EXPORTS];
	unsigned n_old = n_exporters;

	flow_table_ends = table_ends;
	look_at_clocks();
	memcpy(old, exporters, sizeof old);
	take_ends(SLICE_ENDS); // what ended before is told under the names and rows from before
	n_exporters = 0;
	note_names(c);
	for (size_t i = 0; i < c->n_exports; i++) {
		struct config_export *want = &c->exports[i];

		if (!want->enabled)
			continue;
		check(want, n_exporters);
		struct exporter *x = want->error ? NULL : take_same(old, n_old, want);
		if (!x && !want->error && !(x = exporter_make(want)))
			sentence_set(&want->error, "out of memory");
		if (!x)
			continue;
		set_networks(x, want, c);
		x->tell_interfaces = true;
		exporters[n_exporters++] = x;
	}
	for (unsigned i = 0; i < n_old; i++)
		exporter_free(old[i]);
	for (unsigned id = 0; id < MAX_WORKERS; id++)
		if (!n_exporters)
			unwatch(id);
		else if (watch[id].ends)
			set_filter(watch[id].ends);
	if (n_exporters)
		watch_workers();
	next_ms = n_exporters ? 0 : LLONG_MAX;
}

// ---- time

static void tell_interface(struct port *p, void *arg)
{
	struct exporter *x = arg;

	ipfix_interface(&x->ipfix, p->id, p->name, port_network[p->id] ? network_name[port_network[p->id]] : NULL);
}

// Templates and options, where it is time for them.
static void tell(struct exporter *x, long long now_ms)
{
	bool all = now_ms - x->told_ms >= x->config.template_interval_s * 1000LL;

	// A connection that has just been made knows nothing yet. What is in the message so far isn't for it.
	for (unsigned i = 0; i < x->n_targets; i++) {
		struct target *t = x->target[i];

		if (t->json || !t->began)
			continue;
		if (!all)
			ipfix_flush(&x->ipfix);
		all = true;
		t->began = false;
		t->missed = x->ipfix.sequence;
	}
	if (all) {
		struct loss l = lost_in_rings();

		x->told_ms = now_ms;
		ipfix_tell(&x->ipfix);
		ipfix_own_elements(&x->ipfix);
		if (x->config.sampling > 1)
			ipfix_sampling(&x->ipfix, x->config.sampling);
		add_loss(&l, x->lost);
		ipfix_not_sent(&x->ipfix, l.records, l.packets, l.bytes);
	}
	if (all || x->tell_interfaces)
		port_each(tell_interface, x);
	x->tell_interfaces = false;
}

static void keep_house(struct exporter *x, long long now_ms)
{
	for (unsigned i = 0; i < x->n_targets; i++)
		target_run(x->target[i], now_ms);
	if (x->wants_ipfix) {
		tell(x, now_ms);
		ipfix_flush(&x->ipfix);
	}
}

void export_run(long long now_ms)
{
	if (now_ms < next_ms)
		return;
	look_at_clocks();
	for (unsigned i = 0; i < n_exporters; i++)
		exporters[i]->ipfix.export_s = (uint32_t)(wall_ms / 1000);
	if (now_ms >= housekeeping_ms) {
		housekeeping_ms = now_ms + HOUSEKEEPING_MS;
		watch_workers();
		for (unsigned i = 0; i < n_exporters; i++)
			keep_house(exporters[i], now_ms);
	}
	bool done = take_ends(SLICE_ENDS) > 0;
	uint64_t flows = flows_of_all();
	for (unsigned i = 0; i < n_exporters && done; i++)
		walk(exporters[i], flows);
	next_ms = done ? now_ms + EXPORT_MS : now_ms;
}

long long export_next(void)
{
	return next_ms;
}

void export_stop(void)
{
	look_at_clocks();
	take_ends(FLOW_ENDS); // workers go on meanwhile: not for as long as there are some
	for (unsigned id = 0; id < MAX_WORKERS; id++)
		if (watch[id].table)
			report_table(id);
	for (unsigned i = 0; i < n_exporters; i++)
		keep_house(exporters[i], loop_msec());
}

void export_close(void)
{
	for (unsigned i = 0; i < n_exporters; i++)
		exporter_free(exporters[i]);
	n_exporters = 0;
	next_ms = LLONG_MAX;
}

// ---- what is told of it

void export_report(struct db *db)
{
	struct loss rings = lost_in_rings();

	for (unsigned i = 0; i < n_exporters; i++) {
		const struct exporter *x = exporters[i];
		uint64_t messages = 0, bytes = 0, lost = 0;

		for (unsigned k = 0; k < x->n_targets; k++) {
			messages += x->target[k]->json ? 0 : x->target[k]->messages;
			bytes += x->target[k]->bytes;
			lost += x->target[k]->lost;
		}
		struct db_stat stat[] = {
			{"records", (int64_t)x->records},        {"records_lost", (int64_t)lost},   {"flows_lost", (int64_t)rings.records},
			{"packets_lost", (int64_t)rings.packets}, {"messages", (int64_t)messages}, {"bytes", (int64_t)bytes},
		};
		db_stats(db, DB_EXPORT, &x->config.row, stat, sizeof stat / sizeof stat[0]);
	}
}

// A row for each target; a row of the database that isn't applied is in `weirctl list Flow_Export`.
static int list(struct page *p, int argc, const char *argv[], char **error)
{
	static const char *const columns[][2] = {
		{"name", "NAME"},     {"target", "TARGET"}, {"state", "STATE"}, {"records", "RECORDS"}, {"messages", "MESSAGES"},
		{"bytes", "BYTES"},   {"lost", "LOST"},     {"flows_lost", "FLOWS-LOST"},
	};
	struct loss rings = lost_in_rings();

	for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
		listing_column(p->l, columns[i][0], columns[i][1]);
	for (uint64_t *i = &p->at[0], *k = &p->at[1]; *i < n_exporters; ++*i, *k = 0) {
		const struct exporter *x = exporters[*i];

		for (; *k < x->n_targets; ++*k) {
			const struct target *t = x->target[*k];

			if (!page_look(p))
				return 1;
			listing_row(p->l);
			listing_str(p->l, x->config.name);
			listing_str(p->l, t->text);
			listing_str(p->l, target_state(t));
			listing_uint(p->l, t->records);
			listing_uint(p->l, t->messages);
			listing_uint(p->l, t->bytes);
			listing_uint(p->l, t->lost);
			listing_uint(p->l, rings.records);
		}
	}
	return 0;
}

void export_init(void)
{
	pages_register("export/list", "[--json]", list);
}
