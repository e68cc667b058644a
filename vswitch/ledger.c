// ledger: the verbs of the ledger: does every packet have its place, which were dropped and why.
#include "ledger.h"
#include "verbs.h"
#include "clock.h"
#include "history.h"
#include "port.h"
#include "reconcile.h"
#include "sentence.h"
#include "stage.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK_MS 1000

static struct db *database;
static struct history *history;
static long long next_ms;

// ---- history

static void note_port(struct port *p, void *arg)
{
	struct counts s = {0};

	port_counts(p, &s);
	history_add(history, p->id, &s);
}

// Ports that went since the last look.
static void note_gone(void)
{
	for (unsigned i = 1; i < MAX_PORTS; i++)
		if (history && history_knows(history, (uint16_t)i) && !port_get((uint16_t)i))
			history_gone(history, (uint16_t)i);
}

void ledger_run(long long now_ms)
{
	uint64_t now = clock_ns();

	if (now_ms < next_ms)
		return;
	next_ms = now_ms + TICK_MS;
	note_gone();
	drops_tick(now);
	if (!history)
		return;
	history_begin(history, now);
	note_port(port_get(0), NULL);
	port_each(note_port, NULL);
	history_end(history);
}

// "10s", "5m", "1h" or seconds. 0: it is none of these.
static double read_time(const char *text)
{
	char *end;
	double t = strtod(text, &end), unit = !*end || !strcmp(end, "s") ? 1 : !strcmp(end, "m") ? 60 : !strcmp(end, "h") ? 3600 : 0;

	return end != text && isfinite(t) && t > 0 ? t * unit : 0;
}

// ---- health

struct ledger {
	struct listing *l;
	struct counts total;
	int64_t missing; // sum of absolute values
};

static void ledger_row(struct ledger *g, const char *name, const struct counts *s)
{
	static const enum count columns[] = {COUNT_RX, COUNT_GENERATED, COUNT_COPIES, COUNT_SEGMENTS, COUNT_SENT, COUNT_QUEUED, COUNT_CONSUMED,
					     COUNT_MERGED, COUNT_DROPPED};
	int64_t missing = count_missing(s);

	listing_row(g->l);
	listing_str(g->l, name);
	for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
		listing_int(g->l, (int64_t)s->c[columns[i]]); // of an interval: what waits may have become less
	listing_int(g->l, missing);
	g->missing += missing < 0 ? -missing : missing;
}

static void read_port(struct port *p, void *arg)
{
	struct counts **of = arg;

	of[p->id] = calloc(1, sizeof *of[p->id]);
	if (of[p->id])
		port_counts(p, of[p->id]);
}

static void ledger_port(struct ledger *g, const struct port *p, const struct counts *s)
{
	if (!p || !s)
		return;
	ledger_row(g, p->name, s);
	for (unsigned i = 0; i < COUNT_N; i++)
		g->total.c[i] += s->c[i];
	for (unsigned i = 0; i < MAX_REASONS; i++)
		g->total.drop[i] += s->drop[i];
}

// `since`: a moment of the history; 0: the start.
static void ledger_fill(struct ledger *g, uint64_t since)
{
	static const char *const columns[][2] = {
		{"port", "PORT"},     {"rx_packets", "RECEIVED"}, {"generated", "GENERATED"}, {"copies", "COPIES"}, {"segments_added", "SEGMENTS"},
		{"sent", "SENT"},     {"queued", "QUEUED"},       {"consumed", "CONSUMED"},   {"merged", "MERGED"}, {"dropped", "DROPPED"},
		{"missing", "MISSING"},
	};

	static struct counts *of[MAX_PORTS]; // one main thread

	g->l = listing_new();
	for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
		listing_column(g->l, columns[i][0], columns[i][1]);
	port_each(read_port, of);
	read_port(port_get(0), of);
	if (since)
		history_since(history, since, of);
	for (unsigned i = 1; i <= MAX_PORTS; i++) // the switch itself last
		ledger_port(g, port_get((uint16_t)(i % MAX_PORTS)), of[i % MAX_PORTS]);
	for (unsigned i = 0; i < MAX_PORTS; i++) {
		free(of[i]);
		of[i] = NULL;
	}
	ledger_row(g, "total", &g->total);
}

static struct listing *drops_listing(const struct counts *total)
{
	struct listing *l = listing_new();
	uint16_t order[MAX_REASONS], n = 0;

	listing_column(l, "reason", "REASON");
	listing_column(l, "packets", "PACKETS");
	listing_column(l, "text", "WHY");
	for (uint16_t r = 1; r < reason_count(); r++)
		if (total->drop[r]) {
			uint16_t at = n++;

			for (; at && total->drop[order[at - 1]] < total->drop[r]; at--)
				order[at] = order[at - 1];
			order[at] = r;
		}
	for (uint16_t i = 0; i < n; i++) {
		const struct reason *reason = reason_get(order[i]);

		listing_row(l);
		listing_fmt(l, "%s.%s", reason->module, reason->name);
		listing_uint(l, total->drop[order[i]]);
		listing_str(l, reason->text);
	}
	return l;
}

static void add_problem(struct listing *l, const char *what, const char *text)
{
	listing_row(l);
	listing_str(l, what);
	listing_str(l, text);
}

static void port_problem(struct port *p, void *arg)
{
	struct port_state s;
	char name[80];
	const char *error = reconcile_port_error(&p->row);

	port_state(p, &s);
	if (!p->device) // its error says it
		s.problem[0] = '\0';
	snprintf(name, sizeof name, "port %s", p->name);
	if (error || p->error)
		add_problem(arg, name, error ? error : p->error);
	else if (s.problem[0])
		add_problem(arg, name, s.problem);
}

static void health(struct control_request *r, int argc, const char *argv[], void *aux)
{
	bool json = verbs_take_json(&argc, argv);
	char *error = NULL;
	const char *ago = verbs_take_option(&argc, argv, "since", &error);
	double asked = ago ? read_time(ago) : 0;
	uint64_t now = clock_ns(), since = 0;
	struct ledger g = {0};

	if (ago && !asked)
		sentence_set(&error, "--since wants a time, such as 10s, 5m or 1h, not \"%s\"", ago);
	if (ago && !history)
		sentence_set(&error, "there was no memory to keep what the counters were");
	if (argc > 1)
		sentence_set(&error, "health doesn't know \"%s\": it takes --since TIME", argv[1]);
	if (error) {
		verbs_refuse(r, "%s", error);
		free(error);
		return;
	}
	note_gone();
	if (ago)
		since = history_nearest(history, asked * 1e9 < (double)now ? now - (uint64_t)(asked * 1e9) : 0);
	ledger_fill(&g, since);
	struct listing *drops = drops_listing(&g.total), *problems = listing_new(), *below = below_listing(NULL, true);
	listing_column(problems, "what", "WHAT");
	listing_column(problems, "problem", "PROBLEM");
	if (db_problem(database))
		add_problem(problems, "database", db_problem(database));
	if (reconcile_problem())
		add_problem(problems, "configuration", reconcile_problem());
	port_each(port_problem, problems);
	if (g.total.c[COUNT_BEYOND_PROFILE])
		add_problem(problems, "flow cache", "decisions read fields outside their profile: a defect, please report it");
	char *ledger = listing_render(g.l, json), *lost = listing_render(drops, json), *wrong = listing_render(problems, json),
	     *beneath = listing_render(below, json);
	struct buf b = {0};
	if (g.missing)
		buf_add(&b, "the ledger doesn't balance: %lld packets are not accounted for\n", (long long)g.missing);
	double taken = since ? (double)(now - since) / 1e9 : 0;
	if (json && since)
		buf_add(&b, "{\"seconds\": %.3f, ", taken);
	else if (since)
		buf_add(&b, "The last %.1f s, of which the counters are known; asked for: %s.\n", taken, ago);
	if (json)
		buf_add(&b, "%s\"conserved\": %s, \"ledger\": %s, \"drops\": %s, \"below\": %s, \"problems\": %s}\n", since ? "" : "{", g.missing ? "false" : "true", ledger, lost, beneath, wrong);
	else
		buf_add(&b, "Ledger: received + generated + copies + segments = sent + queued + consumed + merged + dropped: %s\n\n%s\nDropped:\n%s\n%s%s%s%s%s",
			g.missing ? "PACKETS ARE MISSING" : "holds", ledger, listing_rows(drops) ? lost : "  nothing\n",
			listing_rows(below) ? "Lost below the switch, since the ports are there:\n" : "", listing_rows(below) ? beneath : "",
			listing_rows(below) ? "\n" : "",
			listing_rows(problems) ? "Problems:\n" : "No problems.\n", listing_rows(problems) ? wrong : "");
	if (g.missing)
		control_reply_error(r, b.text ? b.text : "out of memory");
	else
		control_reply(r, b.text ? b.text : "");
	free(b.text);
	free(ledger);
	free(lost);
	free(wrong);
	free(beneath);
	listing_free(g.l);
	listing_free(drops);
	listing_free(problems);
	listing_free(below);
}

void ledger_init(struct db *db)
{
	database = db;
	history = history_create(clock_ns());
	control_register("health", "[--json] [--since TIME]", 0, 3, health, NULL);
	drops_init();
}

void ledger_end(void)
{
	drops_end();
	history_destroy(history);
	history = NULL;
}
