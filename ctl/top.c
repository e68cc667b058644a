// top: what ports and workers do right now: two samples of the switch, and the rates between them.
#include "control.h"
#include "histogram.h"
#include "listing.h"
#include "screen.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FIRST_MS 300 // until there is something to see

// Keys that ports can be sorted by, largest first; by name in alphabetical order.
#define SORTS(X)                                                                                                       \
	X(PACKETS, 'p', "packets")                                                                                     \
	X(BYTES, 'b', "bytes")                                                                                         \
	X(DROPS, 'd', "drops")                                                                                         \
	X(CYCLES, 'c', "cycles")                                                                                       \
	X(LATENCY, 'l', "latency")                                                                                     \
	X(NAME, 'n', "name")

enum sort {
#define X(id, key, name) SORT_##id,
	SORTS(X)
#undef X
	SORT_N
};

static const struct {
	char key;
	const char *name;
} sorts[SORT_N] = {
#define X(id, key, name) [SORT_##id] = {key, name},
	SORTS(X)
#undef X
};

// Counters of a port, then of a worker: as the switch names them.
enum figure { RX, RX_BYTES, TX, TX_BYTES, DROPPED, TX_DROPPED, RESOLVED, CYCLES, IDLE, FIGURES };
static const char *const port_keys[FIGURES] = {"rx_packets", "rx_bytes",   "tx_packets", "tx_bytes", "dropped",
					       "tx_dropped", "resolved", "cycles",     NULL};
static const char *const worker_keys[FIGURES] = {"packets", NULL, NULL, NULL, NULL, NULL, "resolved", "busy_cycles", "idle_cycles"};

// A port or a worker at one moment; after since(), between two.
struct row {
	char *name;
	uint64_t figure[FIGURES];
	uint64_t now; // packets that wait, or a worker's flows
	int core;
	struct histogram latency;
	double p50, p99; // us
};

struct table {
	struct row *row;
	size_t n;
};

struct sample {
	uint64_t ns;
	double hz;
	struct table ports, workers;
};

struct options {
	bool batch;
	unsigned count;    // of batch; 0: for ever
	unsigned interval; // ms
	enum sort sort;
};

// ---- samples

static void read_latency(struct histogram *h, const char *text, uint64_t max)
{
	unsigned index;
	unsigned long long n;
	int used;

	h->max = max;
	while (text && sscanf(text, "%u:%llu%n", &index, &n, &used) == 2) {
		if (index < HISTOGRAM_BUCKETS)
			h->bucket[index] = n;
		text += used;
	}
}

static void read_table(struct table *t, const json_t *list, const char *name, const char *const *keys, const char *now)
{
	t->n = json_array_size(list);
	t->row = calloc(t->n + 1, sizeof *t->row);
	if (!t->row)
		die("out of memory");
	for (size_t i = 0; i < t->n; i++) {
		const json_t *o = json_array_get(list, i), *id = json_object_get(o, name);
		struct row *r = &t->row[i];

		if (json_is_string(id) ? (r->name = strdup(json_string_value(id))) == NULL
				       : asprintf(&r->name, "%lld", (long long)json_integer_value(id)) < 0)
			die("out of memory");
		for (int k = 0; k < FIGURES; k++)
			if (keys[k])
				r->figure[k] = (uint64_t)json_integer_value(json_object_get(o, keys[k]));
		r->now = (uint64_t)json_integer_value(json_object_get(o, now));
		r->core = (int)json_integer_value(json_object_get(o, "core"));
		read_latency(&r->latency, json_string_value(json_object_get(o, "latency")),
			     (uint64_t)json_integer_value(json_object_get(o, "latency_max_ns")));
	}
}

static struct sample *take_sample(void)
{
	struct sample *s = calloc(1, sizeof *s);
	json_error_t error;
	char *text;

	if (!s)
		die("out of memory");
	if (!control_call("top/sample", 0, NULL, &text))
		die("%.*s", (int)strcspn(text, "\n"), text);
	json_t *json = json_loads(text, 0, &error);
	if (!json_is_object(json))
		die("the switch at %s answers nonsense", settings.ctl);
	s->ns = (uint64_t)json_integer_value(json_object_get(json, "time_ns"));
	s->hz = (double)json_integer_value(json_object_get(json, "cycles_per_second"));
	read_table(&s->ports, json_object_get(json, "ports"), "port", port_keys, "waiting");
	read_table(&s->workers, json_object_get(json, "workers"), "worker", worker_keys, "flows");
	json_decref(json);
	free(text);
	return s;
}

static void free_table(struct table *t)
{
	for (size_t i = 0; i < t->n; i++)
		free(t->row[i].name);
	free(t->row);
}

static void free_sample(struct sample *s)
{
	if (!s)
		return;
	free_table(&s->ports);
	free_table(&s->workers);
	free(s);
}

// ---- rates

static int by_name(const void *a, const void *b)
{
	return strverscmp(((const struct row *)a)->name, ((const struct row *)b)->name);
}

static uint64_t minus(uint64_t now, uint64_t before)
{
	return now > before ? now - before : 0;
}

// What happened between two tables that are sorted by name. A row that is new has all of its own.
static struct table since(const struct table *now, const struct table *before)
{
	struct table t = {calloc(now->n + 1, sizeof(struct row)), now->n};

	if (!t.row)
		die("out of memory");
	for (size_t i = 0; i < t.n; i++) {
		struct row *r = &t.row[i];
		const struct row *b = before->n ? bsearch(&now->row[i], before->row, before->n, sizeof *b, by_name) : NULL;

		*r = now->row[i]; // the name stays the sample's
		if (b) {
			for (int k = 0; k < FIGURES; k++)
				r->figure[k] = minus(r->figure[k], b->figure[k]);
			histogram_since(&r->latency, &b->latency);
		}
		r->p50 = (double)histogram_quantile(&r->latency, 0.5) / 1e3;
		r->p99 = (double)histogram_quantile(&r->latency, 0.99) / 1e3;
	}
	return t;
}

static enum sort sorted_by;

static double sort_value(const struct row *r)
{
	switch (sorted_by) {
	case SORT_PACKETS:
		return (double)(r->figure[RX] + r->figure[TX]);
	case SORT_BYTES:
		return (double)(r->figure[RX_BYTES] + r->figure[TX_BYTES]);
	case SORT_DROPS:
		return (double)(r->figure[DROPPED] + r->figure[TX_DROPPED]);
	case SORT_CYCLES:
		return (double)r->figure[CYCLES];
	case SORT_LATENCY:
		return r->p99;
	default:
		return 0;
	}
}

static int by_sort(const void *a, const void *b)
{
	double x = sort_value(a), y = sort_value(b);

	return x < y ? 1 : x > y ? -1 : by_name(a, b);
}

struct column {
	const char *key, *heading;
};

static struct listing *start(const struct column *c, size_t n)
{
	struct listing *l = listing_new();

	for (size_t i = 0; i < n; i++)
		listing_column(l, c[i].key, c[i].heading);
	return l;
}

static void add_latency(struct listing *l, const struct row *r)
{
	if (histogram_count(&r->latency)) {
		listing_real(l, r->p50, 1);
		listing_real(l, r->p99, 1);
	} else {
		listing_none(l);
		listing_none(l);
	}
}

static struct listing *list_ports(const struct table *t, double seconds, double hz)
{
	static const struct column columns[] = {
		{"port", "PORT"},           {"rx_pps", "RX(pps)"},       {"tx_pps", "TX(pps)"},       {"rx_mbps", "RX(Mbit/s)"},
		{"tx_mbps", "TX(Mbit/s)"},  {"drops_ps", "DROPS(/s)"},   {"tx_drops_ps", "TX DROPS(/s)"}, {"resolves_ps", "NEW(/s)"},
		{"cpu_percent", "CPU(%)"},  {"p50_us", "P50(us)"},       {"p99_us", "P99(us)"},       {"waiting", "WAITING"},
	};
	struct listing *l = start(columns, sizeof columns / sizeof columns[0]);

	for (size_t i = 0; i < t->n; i++) {
		const struct row *r = &t->row[i];

		listing_row(l);
		listing_str(l, r->name);
		listing_real(l, (double)r->figure[RX] / seconds, 0);
		listing_real(l, (double)r->figure[TX] / seconds, 0);
		listing_real(l, (double)r->figure[RX_BYTES] * 8 / 1e6 / seconds, 2);
		listing_real(l, (double)r->figure[TX_BYTES] * 8 / 1e6 / seconds, 2);
		listing_real(l, (double)r->figure[DROPPED] / seconds, 0);
		listing_real(l, (double)r->figure[TX_DROPPED] / seconds, 0);
		listing_real(l, (double)r->figure[RESOLVED] / seconds, 0);
		listing_real(l, 100 * (double)r->figure[CYCLES] / hz / seconds, 1);
		add_latency(l, r);
		listing_uint(l, r->now);
	}
	return l;
}

static struct listing *list_workers(const struct table *t, double seconds)
{
	static const struct column columns[] = {
		{"worker", "WORKER"},       {"core", "CORE"},     {"busy_percent", "BUSY(%)"}, {"pps", "PACKETS(/s)"},
		{"resolves_ps", "NEW(/s)"}, {"flows", "FLOWS"},   {"p50_us", "P50(us)"},       {"p99_us", "P99(us)"},
	};
	struct listing *l = start(columns, sizeof columns / sizeof columns[0]);

	for (size_t i = 0; i < t->n; i++) {
		const struct row *r = &t->row[i];
		double all = (double)(r->figure[CYCLES] + r->figure[IDLE]);

		listing_row(l);
		listing_str(l, r->name);
		if (r->core >= 0)
			listing_uint(l, (uint64_t)r->core);
		else
			listing_none(l);
		listing_real(l, all > 0 ? 100 * (double)r->figure[CYCLES] / all : 0, 1);
		listing_real(l, (double)r->figure[RX] / seconds, 0);
		listing_real(l, (double)r->figure[RESOLVED] / seconds, 0);
		listing_uint(l, r->now);
		add_latency(l, r);
	}
	return l;
}

// ---- what is shown

struct view {
	char *head, *ports; // text
	char *json;
};

static void free_view(struct view *v)
{
	free(v->head);
	free(v->ports);
	free(v->json);
}

static struct view make_view(struct sample *now, const struct sample *before, const struct options *o)
{
	double seconds = (double)minus(now->ns, before->ns) / 1e9, sum[FIGURES] = {0};
	struct view v = {NULL, NULL, NULL};
	time_t at = time(NULL);
	char clock[16];
	struct tm tm;

	if (seconds < 1e-3)
		seconds = 1e-3;
	struct table ports = since(&now->ports, &before->ports), workers = since(&now->workers, &before->workers);
	for (size_t i = 0; i < ports.n; i++)
		for (int k = 0; k < FIGURES; k++)
			sum[k] += (double)ports.row[i].figure[k] / seconds;
	sorted_by = o->sort;
	qsort(ports.row, ports.n, sizeof *ports.row, by_sort);
	struct listing *pl = list_ports(&ports, seconds, now->hz > 0 ? now->hz : 1), *wl = list_workers(&workers, seconds);
	strftime(clock, sizeof clock, "%T", localtime_r(&at, &tm));
	bool json = settings.json && o->batch;
	char *p = listing_render(pl, json), *w = listing_render(wl, json);
	if (!p || !w)
		die("out of memory");
	int n;
	if (json) {
		n = asprintf(&v.json,
			     "{\"time\": \"%s\", \"seconds\": %.3f, \"total\": {\"rx_pps\": %.0f, \"tx_pps\": %.0f, \"rx_mbps\": %.2f, \"tx_mbps\": %.2f, "
			     "\"drops_ps\": %.0f, \"resolves_ps\": %.0f}, \"workers\": %s, \"ports\": %s}",
			     clock, seconds, sum[RX], sum[TX], sum[RX_BYTES] * 8 / 1e6, sum[TX_BYTES] * 8 / 1e6, sum[DROPPED], sum[RESOLVED], w, p);
		// The listings end their arrays with newlines: one line for one answer.
		for (char *s = v.json; n >= 0 && *s; s++)
			if (*s == '\n')
				*s = ' ';
		free(p);
	} else {
		n = asprintf(&v.head,
			     "weirctl top  %s  %zu ports, %zu workers, %.1f s, by %s%s\n"
			     "received %.0f pps %.1f Mbit/s, sent %.0f pps %.1f Mbit/s, dropped %.0f/s, new flows %.0f/s\n\n%s\n",
			     clock, ports.n, workers.n, seconds, sorts[o->sort].name,
			     o->batch ? "" : "   (p)ackets (b)ytes (d)rops (c)ycles (l)atency (n)ame (q)uit", sum[RX], sum[RX_BYTES] * 8 / 1e6, sum[TX],
			     sum[TX_BYTES] * 8 / 1e6, sum[DROPPED], sum[RESOLVED], w);
		v.ports = p;
	}
	if (n < 0)
		die("out of memory");
	free(w);
	listing_free(pl);
	listing_free(wl);
	free(ports.row);
	free(workers.row);
	return v;
}

static struct sample *sorted_sample(void)
{
	struct sample *s = take_sample();

	qsort(s->ports.row, s->ports.n, sizeof *s->ports.row, by_name);
	qsort(s->workers.row, s->workers.n, sizeof *s->workers.row, by_name);
	return s;
}

static long long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static int run_batch(const struct options *o)
{
	struct sample *before = sorted_sample();
	int fd = end_signals();

	for (unsigned i = 0; !o->count || i < o->count; i++) {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		if (poll(&p, 1, (int)o->interval) > 0)
			break;
		struct sample *now = sorted_sample();
		struct view v = make_view(now, before, o);
		if (settings.json)
			printf("%s\n", v.json);
		else
			printf("%s%s%s", i ? "\n" : "", v.head, v.ports);
		free_view(&v);
		free_sample(before);
		before = now;
		if (fflush(stdout))
			break;
	}
	free_sample(before);
	return ferror(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
}

// A key: false: it ends.
static bool take_key(int key, struct options *o, int *first, int page)
{
	for (unsigned i = 0; i < SORT_N; i++)
		if (key == sorts[i].key) {
			o->sort = (enum sort)i;
			*first = 0;
		}
	if (key == SCREEN_UP)
		--*first;
	else if (key == SCREEN_DOWN)
		++*first;
	else if (key == SCREEN_PAGE_UP)
		*first -= page;
	else if (key == SCREEN_PAGE_DOWN)
		*first += page;
	return key != 'q' && key != 'Q';
}

static int run_screen(struct options *o)
{
	struct sample *before = sorted_sample();
	int first = 0, page = 1;

	if (!screen_open())
		die("top needs a terminal; --batch prints what it would show");
	atexit(screen_close);
	before_dying = screen_close;
	screen_draw("weirctl top\n\nmeasuring", "", 0);
	bool more = take_key(screen_key(FIRST_MS), o, &first, page);
	struct sample *now = sorted_sample();
	while (more) {
		long long until = now_ms() + o->interval;

		// A key shows at once what there is.
		do {
			struct view v = make_view(now, before, o);
			int last = (int)now->ports.n - page;

			first = first > last ? last : first;
			first = first < 0 ? 0 : first;
			page = screen_draw(v.head, v.ports, first);
			free_view(&v);
			long long left = until - now_ms();
			int key = screen_key(left > 0 ? (int)left : 0);
			if (key == SCREEN_NOTHING)
				break;
			more = take_key(key, o, &first, page);
		} while (more);
		if (more) {
			free_sample(before);
			before = now;
			now = sorted_sample();
		}
	}
	screen_close();
	free_sample(before);
	free_sample(now);
	return EXIT_SUCCESS;
}

// ---- options

// Seconds, with a fraction perhaps.
static unsigned parse_interval(const char *text)
{
	char *end;
	double s = strtod(text, &end);

	if (*end || end == text || !(s >= 0.1 && s <= 3600))
		die("top: --interval is seconds from 0.1 to 3600, not '%s'", text);
	return (unsigned)(s * 1000);
}

static enum sort parse_sort(const char *text)
{
	for (unsigned i = 0; i < SORT_N; i++)
		if (!strcmp(text, sorts[i].name))
			return (enum sort)i;
	die("top: --sort is packets, bytes, drops, cycles, latency or name, not '%s'", text);
}

static unsigned parse_count(const char *text)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*end || *text < '0' || *text > '9' || n < 1 || n > 1000000000)
		die("top: -n is how many times, from 1 on, not '%s'", text);
	return (unsigned)n;
}

int top_run(const struct given *g)
{
	struct options o = {.interval = 1000, .sort = SORT_PACKETS};

	for (int i = 0; i < g->n_args; i++) {
		const char *a = g->args[i], *value = i + 1 < g->n_args ? g->args[i + 1] : NULL;

		if (!strcmp(a, "--batch")) {
			o.batch = true;
			continue;
		}
		if (strcmp(a, "-n") && strcmp(a, "--interval") && strcmp(a, "--sort"))
			die("top takes --batch, -n N, --interval SECONDS and --sort KEY, not '%s'", a);
		if (!value)
			die("top: %s wants a value", a);
		if (!strcmp(a, "-n"))
			o.count = parse_count(value);
		else if (!strcmp(a, "--interval"))
			o.interval = parse_interval(value);
		else
			o.sort = parse_sort(value);
		i++;
	}
	if (o.batch)
		return run_batch(&o);
	if (o.count || settings.json)
		die("top: -n and -f json go with --batch");
	return run_screen(&o);
}
