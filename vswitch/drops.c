// drops: which packets were dropped, for which reason, because of which row, and what the last of them looked like.
#include "ledger.h"
#include "verbs.h"
#include "clock.h"
#include "control.h"
#include "describe.h"
#include "port.h"
#include "reason.h"
#include "row.h"
#include "sentence.h"
#include "thread.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define RATE_S 5            // rates are those of so many seconds
#define DETAILED 10         // rows of which all packets kept are shown; of more, the newest
#define DETAILED_JSON 100
#define FOLLOWERS 8
#define ABANDONED_MS 10000  // a reader that did not come for this long is gone

// What the tables were, a second apart, the newest first.
static struct {
	uint64_t time;
	struct drops *table;
} past[RATE_S];

// Which drops somebody wants to see.
struct filter {
	bool any_port;
	uint16_t port;
	bool reason[MAX_REASONS];
	bool hex, json, below, sums;
	bool words; // of packets only what can be said in words: no bytes of them
};

// Somebody who watches.
struct follower {
	unsigned id;
	struct filter filter;
	struct drops *seen;
	long long read_ms;
};
static struct follower follower[FOLLOWERS];
static unsigned last_id;

// ---- what there is

// The tables of all workers as one. NULL: no memory.
static struct drops *gather(bool kept)
{
	static struct drop_entry entry[DROP_ENTRIES]; // one main thread
	struct drops *all = drop_create();

	for (unsigned id = 0; all && id <= MAX_WORKERS; id++) {
		const struct drops *d = thread_drops(id);

		if (d)
			drop_add(all, entry, drop_read(d, entry, kept));
	}
	return all;
}

static uint64_t before(const struct drops *table, const struct drop_entry *e)
{
	const struct drop_entry *was = table ? drop_find(table, e->port, e->reason, e->row) : NULL;

	return was ? was->packets : 0;
}

// Packets a second.
static double rate_of(const struct drop_entry *e, uint64_t now)
{
	unsigned i = RATE_S;

	while (i && !past[i - 1].table)
		i--;
	if (!i || now <= past[i - 1].time)
		return 0;
	uint64_t was = before(past[i - 1].table, e);
	return e->packets > was ? (double)(e->packets - was) * 1e9 / (double)(now - past[i - 1].time) : 0;
}

// What a port has dropped that is gone is among the switch's own drops by now, and has to be here too.
static void fold_gone(struct drops *table)
{
	static struct drop_entry entry[DROP_ENTRIES];
	unsigned n = table ? drop_read(table, entry, false) : 0;

	for (unsigned i = 0; i < n; i++)
		if (!port_get(entry[i].port))
			drop_fold(table, entry[i].port);
}

void drops_tick(uint64_t now)
{
	drop_destroy(past[RATE_S - 1].table);
	memmove(&past[1], &past[0], (RATE_S - 1) * sizeof past[0]);
	past[0].time = now;
	past[0].table = gather(false);
	for (unsigned i = 0; i < FOLLOWERS; i++)
		if (follower[i].seen && loop_msec() - follower[i].read_ms > ABANDONED_MS) {
			drop_destroy(follower[i].seen);
			follower[i].seen = NULL;
		}
}

// ---- words

static const char *port_name(uint16_t id)
{
	const struct port *p = port_get(id);

	return p ? p->name : "?";
}

// The newest but `n` of the entry's packets, NULL: there are no more.
static const struct drop_packet *nth_last(const struct drop_entry *e, unsigned n)
{
	const struct drop_packet *p = n < DROP_KEPT ? &e->kept[(e->next + 2 * DROP_KEPT - 1 - n) % DROP_KEPT] : NULL;

	return p && p->time ? p : NULL;
}

// Seconds since 1970 of a time of the workers' clock.
static double wall_time(uint64_t time)
{
	struct timespec wall;

	clock_gettime(CLOCK_REALTIME, &wall);
	return (double)wall.tv_sec + (double)wall.tv_nsec / 1e9 - ((double)clock_ns() - (double)time) / 1e9;
}

static void add_packet(struct buf *b, const struct drop_packet *p, const struct filter *f)
{
	if (!f->hex && describe(b, p->data, p->have, p->len))
		return;
	if (f->words)
		buf_add(b, "(words can't say it)");
	else
		describe_bytes(b, p->data, p->have);
}

static json_t *row_json(uint32_t row)
{
	const struct row_info *r = row_get(row);
	char id[ROW_ID_STRLEN + 1];

	if (row == DROP_OTHERS)
		return json_string("several");
	if (!r)
		return json_null();
	row_id_format(&r->id, id);
	return json_pack("{s:s, s:s, s:s}", "table", r->table, "name", r->name, "uuid", id);
}

static json_t *packet_json(const struct drop_packet *p)
{
	struct buf words = {0}, bytes = {0};
	bool known = describe(&words, p->data, p->have, p->len);

	describe_bytes(&bytes, p->data, p->have);
	json_t *o = json_pack("{s:f, s:i, s:s?, s:s}", "time", wall_time(p->time), "bytes", (int)p->len, "packet", known ? words.text : NULL, "hex",
			      bytes.text ? bytes.text : "");
	free(words.text);
	free(bytes.text);
	return o;
}

// Takes over `json`.
static void list_json(struct listing *l, const char *text, json_t *json)
{
	char *dump = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);

	listing_json(l, text, dump ? dump : "null");
	free(dump);
	json_decref(json);
}

static void add_row(struct buf *b, uint32_t row)
{
	const struct row_info *r = row_get(row);

	if (row == DROP_OTHERS)
		buf_add(b, "(several)");
	else if (r)
		buf_add(b, "%s %s", r->table, r->name);
}

// ---- drops

static int by_packets(const void *a_, const void *b_)
{
	const struct drop_entry *a = *(const struct drop_entry *const *)a_, *b = *(const struct drop_entry *const *)b_;

	if (a->packets != b->packets)
		return a->packets < b->packets ? 1 : -1;
	if (a->port != b->port)
		return a->port < b->port ? -1 : 1;
	return a->reason != b->reason ? a->reason - b->reason : a->row < b->row ? -1 : a->row > b->row;
}

static bool wanted(const struct filter *f, const struct drop_entry *e)
{
	return e->packets && (f->any_port || f->port == e->port) && f->reason[e->reason % MAX_REASONS];
}

static void list_entry(struct listing *l, const struct drop_entry *e, uint64_t now, bool json, unsigned limit)
{
	const struct reason *reason = reason_get(e->reason);
	struct buf row = {0};

	add_row(&row, e->row);
	listing_row(l);
	listing_str(l, port_name(e->port));
	listing_fmt(l, "%s.%s", reason->module, reason->name);
	listing_uint(l, e->packets);
	listing_real(l, rate_of(e, now), 1);
	list_json(l, row.text ? row.text : "-", row_json(e->row));
	listing_str(l, reason->text);
	free(row.text);
	if (!json)
		return;
	json_t *last = json_array();
	for (unsigned i = 0; i < limit && nth_last(e, i); i++)
		json_array_append_new(last, packet_json(nth_last(e, i)));
	list_json(l, "", last);
}

static void list_packets(struct listing *l, const struct drop_entry *e, uint64_t now, unsigned limit, const struct filter *f)
{
	for (unsigned i = 0; i < limit && nth_last(e, i); i++) {
		const struct drop_packet *p = nth_last(e, i);
		struct buf words = {0};

		add_packet(&words, p, f);
		listing_row(l);
		listing_str(l, port_name(e->port));
		listing_fmt(l, "%s.%s", reason_get(e->reason)->module, reason_get(e->reason)->name);
		listing_real(l, now > p->time ? (double)(now - p->time) / 1e9 : 0, 1);
		listing_uint(l, p->len);
		listing_str(l, words.text);
		free(words.text);
	}
}

// Those that the filter wants, most first.
static unsigned choose(const struct filter *f, const struct drop_entry *entry, unsigned n, const struct drop_entry **chosen)
{
	unsigned k = 0;

	for (unsigned i = 0; i < n; i++)
		if (wanted(f, &entry[i]))
			chosen[k++] = &entry[i];
	qsort(chosen, k, sizeof *chosen, by_packets);
	return k;
}

static char *render(const struct filter *f, const struct drop_entry *const *e, unsigned n)
{
	struct listing *sums = listing_new(), *last = listing_new();
	uint64_t now = clock_ns();
	struct buf b = {0};

	listing_column(sums, "port", "PORT");
	listing_column(sums, "reason", "REASON");
	listing_column(sums, "packets", "PACKETS");
	listing_column(sums, "rate", "RATE(/s)");
	listing_column(sums, "row", "BECAUSE OF");
	listing_column(sums, "text", "WHY");
	if (f->json && !f->sums)
		listing_column(sums, "last", "LAST");
	listing_column(last, "port", "PORT");
	listing_column(last, "reason", "REASON");
	listing_column(last, "ago", "AGO(s)");
	listing_column(last, "bytes", "BYTES");
	listing_column(last, "packet", f->hex ? "ITS FIRST BYTES" : "PACKET");
	for (unsigned i = 0; i < n; i++) {
		unsigned limit = n > (f->json ? DETAILED_JSON : DETAILED) ? 1 : DROP_KEPT;

		list_entry(sums, e[i], now, f->json && !f->sums, limit);
		if (!f->json && !f->sums)
			list_packets(last, e[i], now, limit, f);
	}
	char *first = listing_render(sums, f->json), *second = f->json ? NULL : listing_render(last, false);
	buf_add(&b, "%s", first ? first : "");
	if (second && listing_rows(last))
		buf_add(&b, "\nThe last of them:\n%s", second);
	free(first);
	free(second);
	listing_free(sums);
	listing_free(last);
	return b.text;
}

// "rule" or "rule.DROP".
static bool choose_reason(struct filter *f, const char *name)
{
	const char *dot = name ? strchr(name, '.') : NULL;
	bool any = false;

	for (uint16_t i = 1; i < reason_count(); i++) {
		const struct reason *r = reason_get(i);
		bool of_module = !name || (strlen(r->module) == (dot ? (size_t)(dot - name) : strlen(name)) && !strncmp(name, r->module, strlen(r->module)));

		f->reason[i] = of_module && (!dot || !strcasecmp(dot + 1, r->name));
		any |= f->reason[i];
	}
	return any;
}

static bool read_filter(struct filter *f, int argc, const char *argv[], char **error)
{
	f->json = verbs_take_json(&argc, argv);
	f->hex = verbs_take_flag(&argc, argv, "hex");
	f->sums = verbs_take_flag(&argc, argv, "sums");
	f->words = verbs_take_flag(&argc, argv, "words");
	f->sums |= f->words && f->json;
	f->below = verbs_take_flag(&argc, argv, "below");
	const char *port = verbs_take_option(&argc, argv, "port", error), *reason = verbs_take_option(&argc, argv, "reason", error);
	const struct port *p = !port ? NULL : strcmp(port, port_get(0)->name) ? port_find(port) : port_get(0);
	f->any_port = !port;
	f->port = p ? p->id : 0;
	if (argc > 1)
		sentence_set(error, "drops doesn't know \"%s\": it takes --port, --reason, --hex, --words, --sums, --below and --follow", argv[1]);
	if (port && !p)
		sentence_set(error, "there is no port %s", port);
	if (!choose_reason(f, reason))
		sentence_set(error, "there is no reason %s: weir-reasons(7) has them all, such as rule.DROP, or rule for all of a stage", reason);
	if (f->below && reason)
		sentence_set(error, "what is lost below the switch has no reason of its own: leave --reason out");
	return !*error;
}

static void drops_verb(struct control_request *r, int argc, const char *argv[], void *aux)
{
	static struct drop_entry entry[DROP_ENTRIES];
	static const struct drop_entry *chosen[DROP_ENTRIES];
	struct filter f = {0};
	char *error = NULL;

	if (!read_filter(&f, argc, argv, &error)) {
		verbs_refuse(r, "%s", error);
		free(error);
		return;
	}
	if (f.below) {
		verbs_reply(r, below_listing(f.any_port ? NULL : port_get(f.port), false), f.json);
		return;
	}
	for (unsigned i = 0; i < RATE_S; i++)
		fold_gone(past[i].table);
	struct drops *all = gather(true);
	unsigned n = all ? choose(&f, entry, drop_read(all, entry, true), chosen) : 0;
	char *text = render(&f, chosen, n);
	drop_destroy(all);
	if (text)
		control_reply(r, text);
	else
		control_reply_error(r, "out of memory");
	free(text);
}

// ---- drops as they happen

static void follow_start(struct control_request *r, int argc, const char *argv[], void *aux)
{
	struct follower *new = NULL;
	struct filter f = {0};
	char *error = NULL, text[16];

	for (unsigned i = 0; i < FOLLOWERS && !new; i++)
		new = follower[i].seen ? NULL : &follower[i];
	if (!new)
		sentence_set(&error, "%d others follow drops already: end one of them", FOLLOWERS);
	struct drops *seen = read_filter(&f, argc, argv, &error) ? gather(true) : NULL;

	if (f.below)
		sentence_set(&error, "--below and --follow don't go together");
	if (error) {
		drop_destroy(seen);
		seen = NULL;
	}
	if (!seen) {
		verbs_refuse(r, "%s", error ? error : "out of memory");
		free(error);
		return;
	}
	*new = (struct follower){.id = ++last_id, .filter = f, .seen = seen, .read_ms = loop_msec()};
	snprintf(text, sizeof text, "%u\n", new->id);
	control_reply(r, text);
}

static struct follower *by_id(const char *text)
{
	for (unsigned i = 0; i < FOLLOWERS; i++)
		if (follower[i].seen && follower[i].id == strtoul(text, NULL, 10))
			return &follower[i];
	return NULL;
}

// A packet that was lost since the last look.
struct news {
	const struct drop_entry *e;
	const struct drop_packet *p;
	uint64_t more; // others of its entry that were not kept, told with the last one
};

static int by_time(const void *a_, const void *b_)
{
	const struct news *a = a_, *b = b_;

	return a->p->time < b->p->time ? -1 : a->p->time > b->p->time;
}

// Returns how many there are; at most DROP_KEPT.
static unsigned news_of(const struct drop_entry *e, const struct drops *seen, struct news *news)
{
	const struct drop_entry *was = drop_find(seen, e->port, e->reason, e->row);
	const struct drop_packet *last = was ? nth_last(was, 0) : NULL;
	uint64_t fresh = e->packets - (was ? was->packets : 0);
	unsigned n = 0;

	for (const struct drop_packet *p; n < fresh && (p = nth_last(e, n)) && (!last || p->time > last->time); n++)
		news[n] = (struct news){.e = e, .p = p};
	// None is newer where many came in one burst: the newest stands for all.
	if (fresh && !n && nth_last(e, 0))
		news[n++] = (struct news){.e = e, .p = nth_last(e, 0)};
	if (n)
		news[0].more = fresh > n ? fresh - n : 0;
	return n;
}

static void show_text(struct buf *b, const struct news *w, const struct filter *f)
{
	double time = wall_time(w->p->time);
	time_t s = (time_t)time;
	struct buf row = {0};
	struct tm tm;
	char when[32];

	localtime_r(&s, &tm);
	strftime(when, sizeof when, "%H:%M:%S", &tm);
	add_row(&row, w->e->row);
	buf_add(b, "%s.%06u %s %s.%s", when, (unsigned)((time - (double)s) * 1e6), port_name(w->e->port), reason_get(w->e->reason)->module,
		reason_get(w->e->reason)->name);
	if (row.text)
		buf_add(b, " (%s)", row.text);
	buf_add(b, " %u bytes: ", w->p->len);
	add_packet(b, w->p, f);
	if (w->more)
		buf_add(b, " and %llu more", (unsigned long long)w->more);
	buf_add(b, "\n");
	free(row.text);
}

static void show_json(struct buf *b, const struct news *w)
{
	const struct reason *reason = reason_get(w->e->reason);
	char name[96];

	snprintf(name, sizeof name, "%s.%s", reason->module, reason->name);
	json_t *o = packet_json(w->p);
	json_object_set_new(o, "port", json_string(port_name(w->e->port)));
	json_object_set_new(o, "reason", json_string(name));
	json_object_set_new(o, "row", row_json(w->e->row));
	json_object_set_new(o, "more", json_integer((json_int_t)w->more));
	char *dump = json_dumps(o, JSON_COMPACT);
	buf_add(b, "%s\n", dump ? dump : "{}");
	free(dump);
	json_decref(o);
}

static void follow_read(struct control_request *r, int argc, const char *argv[], void *aux)
{
	static struct drop_entry entry[DROP_ENTRIES];
	static struct news news[DROP_ENTRIES * DROP_KEPT];
	struct follower *f = by_id(argv[1]);
	struct buf b = {0};
	unsigned n, k = 0;

	if (!f) {
		control_reply(r, "end\n");
		return;
	}
	f->read_ms = loop_msec();
	fold_gone(f->seen);
	struct drops *all = gather(true);
	n = all ? drop_read(all, entry, true) : 0;
	for (unsigned i = 0; i < n; i++)
		if (wanted(&f->filter, &entry[i]))
			k += news_of(&entry[i], f->seen, &news[k]);
	qsort(news, k, sizeof *news, by_time);
	for (unsigned i = 0; i < k; i++)
		if (f->filter.json)
			show_json(&b, &news[i]);
		else
			show_text(&b, &news[i], &f->filter);
	if (all) {
		drop_destroy(f->seen);
		f->seen = all;
	}
	control_reply(r, b.text ? b.text : "");
	free(b.text);
}

static void follow_stop(struct control_request *r, int argc, const char *argv[], void *aux)
{
	struct follower *f = by_id(argv[1]);

	if (f) {
		drop_destroy(f->seen);
		f->seen = NULL;
	}
	control_reply(r, "");
}

void drops_init(void)
{
	control_register("drops", "[--json] [--port PORT] [--reason REASON] [--hex | --words | --sums] [--below]", 0, 9, drops_verb, NULL);
	control_register("drops/start", "[--json] [--port PORT] [--reason REASON] [--hex | --words]", 0, 8, follow_start, NULL);
	control_register("drops/read", "ID", 1, 1, follow_read, NULL);
	control_register("drops/stop", "ID", 1, 1, follow_stop, NULL);
}

void drops_end(void)
{
	for (unsigned i = 0; i < RATE_S; i++)
		drop_destroy(past[i].table);
	for (unsigned i = 0; i < FOLLOWERS; i++)
		drop_destroy(follower[i].seen);
	memset(past, 0, sizeof past);
	memset(follower, 0, sizeof follower);
}
