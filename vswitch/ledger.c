// ledger: the verbs of the ledger: does every packet have its place, which were dropped and why.
#include "verbs.h"
#include "port.h"
#include "reconcile.h"
#include "stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct db *database;

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
		listing_uint(g->l, s->c[columns[i]]);
	listing_int(g->l, missing);
	g->missing += missing < 0 ? -missing : missing;
}

static void ledger_port(struct port *p, void *arg)
{
	struct ledger *g = arg;
	struct counts s = {0};

	port_counts(p, &s);
	ledger_row(g, p->name, &s);
	for (unsigned i = 0; i < COUNT_N; i++)
		g->total.c[i] += s.c[i];
	for (unsigned i = 0; i < MAX_REASONS; i++)
		g->total.drop[i] += s.drop[i];
}

static void ledger_fill(struct ledger *g)
{
	static const char *const columns[][2] = {
		{"port", "PORT"},     {"rx_packets", "RECEIVED"}, {"generated", "GENERATED"}, {"copies", "COPIES"}, {"segments_added", "SEGMENTS"},
		{"sent", "SENT"},     {"queued", "QUEUED"},       {"consumed", "CONSUMED"},   {"merged", "MERGED"}, {"dropped", "DROPPED"},
		{"missing", "MISSING"},
	};

	g->l = listing_new();
	for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
		listing_column(g->l, columns[i][0], columns[i][1]);
	port_each(ledger_port, g);
	ledger_port(port_get(0), g);
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

struct problems {
	struct listing *l;
};

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

	memset(&s, 0, sizeof s);
	if (p->device)
		p->device->ops->state(p->device->dev, &s);
	snprintf(name, sizeof name, "port %s", p->name);
	if (error || p->error)
		add_problem(arg, name, error ? error : p->error);
	else if (s.problem[0])
		add_problem(arg, name, s.problem);
}

static void health(struct control_request *r, int argc, const char *argv[], void *aux)
{
	bool json = verbs_take_json(&argc, argv);
	struct ledger g = {0};

	ledger_fill(&g);
	struct listing *drops = drops_listing(&g.total), *problems = listing_new();
	listing_column(problems, "what", "WHAT");
	listing_column(problems, "problem", "PROBLEM");
	if (db_problem(database))
		add_problem(problems, "database", db_problem(database));
	if (reconcile_problem())
		add_problem(problems, "configuration", reconcile_problem());
	port_each(port_problem, problems);
	if (g.total.c[COUNT_BEYOND_PROFILE])
		add_problem(problems, "flow cache", "decisions read fields outside their profile: a defect, please report it");
	char *ledger = listing_render(g.l, json), *lost = listing_render(drops, json), *wrong = listing_render(problems, json);
	struct buf b = {0};
	if (g.missing)
		buf_add(&b, "the ledger doesn't balance: %lld packets are not accounted for\n", (long long)g.missing);
	if (json)
		buf_add(&b, "{\"conserved\": %s, \"ledger\": %s, \"drops\": %s, \"problems\": %s}\n", g.missing ? "false" : "true", ledger, lost, wrong);
	else
		buf_add(&b, "Ledger: received + generated + copies + segments = sent + queued + consumed + merged + dropped: %s\n\n%s\nDropped:\n%s\n%s%s",
			g.missing ? "PACKETS ARE MISSING" : "holds", ledger, listing_rows(drops) ? lost : "  nothing\n", 
			listing_rows(problems) ? "Problems:\n" : "No problems.\n", listing_rows(problems) ? wrong : "");
	if (g.missing)
		control_reply_error(r, b.text ? b.text : "out of memory");
	else
		control_reply(r, b.text ? b.text : "");
	free(b.text);
	free(ledger);
	free(lost);
	free(wrong);
	listing_free(g.l);
	listing_free(drops);
	listing_free(problems);
}

static void drops_of(struct port *p, void *arg)
{
	struct listing *l = arg;
	struct counts s = {0};

	port_counts(p, &s);
	for (uint16_t i = 1; i < reason_count(); i++) {
		if (!s.drop[i])
			continue;
		listing_row(l);
		listing_str(l, p->name);
		listing_fmt(l, "%s.%s", reason_get(i)->module, reason_get(i)->name);
		listing_uint(l, s.drop[i]);
		listing_str(l, reason_get(i)->text);
	}
}

static void drops(struct control_request *r, int argc, const char *argv[], void *aux)
{
	bool json = verbs_take_json(&argc, argv);
	struct listing *l = listing_new();

	listing_column(l, "port", "PORT");
	listing_column(l, "reason", "REASON");
	listing_column(l, "packets", "PACKETS");
	listing_column(l, "text", "WHY");
	port_each(drops_of, l);
	drops_of(port_get(0), l);
	verbs_reply(r, l, json);
}

void ledger_init(struct db *db)
{
	database = db;
	control_register("health", "[--json]", 0, 1, health, NULL);
	control_register("drops", "[--json]", 0, 1, drops, NULL);
}
