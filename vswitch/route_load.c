// route_load: files of routes. See route_load.h.
#include "route_load.h"
#include "buf.h"
#include "clock.h"
#include "control.h"
#include "route_line.h"
#include "router_table.h"
#include "sentence.h"
#include "topology.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_LOADS 64 // that are remembered
#define CHUNK 262144 // bytes that are read at once; no line is longer
#define BAD_SHOWN 20 // lines that are named
#define SWEEP_PREFIXES 500

enum phase {
	READING,
	SWEEPING, // what an earlier load left
	DONE,
};

struct load {
	struct load *next;
	uint32_t id;
	uint16_t router;
	uint32_t table;
	char *path, *router_name;
	int fd;
	enum phase phase;
	uint64_t size, taken; // bytes
	char *chunk;
	size_t from, to; // what of it is not taken yet
	bool end, cut;   // of the file; the line before was longer than a chunk
	uint64_t line, pending_line;
	bool pending;
	struct route_line route;
	uint16_t mark;
	struct route_at at;
	uint64_t routes, bad, began, took;
	struct buf complaints;
};

static struct load *loads; // newest first
static uint32_t last_id;

uint16_t route_new_mark(void)
{
	static uint16_t mark;

	if (!++mark)
		mark++;
	return mark;
}

static void load_free(struct load *l)
{
	if (l->fd >= 0)
		close(l->fd);
	free(l->path);
	free(l->router_name);
	free(l->chunk);
	free(l->complaints.text);
	free(l);
}

static void complain(struct load *l, uint64_t line, const char *why)
{
	if (++l->bad <= BAD_SHOWN)
		buf_add(&l->complaints, "line %" PRIu64 ": %s\n", line, why);
}

static uint16_t named_port(void *arg, const char *name)
{
	const struct load *l = arg;

	for (uint16_t id = 1; id < MAX_PORTS; id++) {
		const struct router_port *p = router_port_get(id);

		if (p && p->router == l->router && !strcmp(lport_name(id), name))
			return id;
	}
	return 0;
}

// The route whose last line has been seen.
static void finish_route(struct load *l)
{
	struct route_spec *s = &l->route.spec;

	if (!l->pending)
		return;
	l->pending = false;
	if (s->type == ROUTE_UNICAST && !s->n_hops) {
		complain(l, l->pending_line, "the route has no next hop");
		return;
	}
	s->source = ROUTE_FILE;
	s->mark = l->mark;
	int rc = route_set(l->router, l->table, s);
	if (!rc)
		l->routes++;
	else
		complain(l, l->pending_line, rc == -ENOSPC ? "there is no room for more routes or tables" : "out of memory");
}

static void take_line(struct load *l, const char *text)
{
	enum route_line_is kind = route_line_kind(text);
	char *error;

	l->line++;
	if (l->cut) {
		complain(l, l->line, "the line is too long");
		return;
	}
	if (kind == ROUTE_LINE_EMPTY)
		return;
	if (kind == ROUTE_LINE_NEXT_HOP && !l->pending) {
		complain(l, l->line, "a next hop without a route before it");
		return;
	}
	if (kind == ROUTE_LINE_ROUTE)
		finish_route(l);
	kind = route_line_parse(&l->route, text, named_port, l, &error);
	if (kind == ROUTE_LINE_ROUTE) {
		l->pending = true;
		l->pending_line = l->line;
	} else if (kind == ROUTE_LINE_BAD) {
		complain(l, l->line, error ? error : "out of memory");
	}
	free(error);
}

static bool fill(struct load *l)
{
	memmove(l->chunk, l->chunk + l->from, l->to - l->from);
	l->to -= l->from;
	l->from = 0;
	ssize_t n = read(l->fd, l->chunk + l->to, CHUNK - l->to);
	if (n < 0)
		complain(l, l->line + 1, strerror(errno));
	if (n > 0)
		l->to += (size_t)n;
	return n > 0;
}

// One line, or a reading of the file. False: that was all.
static bool read_some(struct load *l)
{
	char *begin = l->chunk + l->from, *newline = memchr(begin, '\n', l->to - l->from);

	if (!newline && !l->end && l->to - l->from < CHUNK) {
		l->end = !fill(l);
		return true;
	}
	if (!newline && l->from == l->to)
		return false;
	char *stop = newline ? newline : l->chunk + l->to;
	bool whole = newline || l->end;
	*stop = '\0'; // there is room for one more behind the chunk
	if (memchr(begin, '\0', (size_t)(stop - begin)) && !l->cut) {
		l->line++;
		complain(l, l->line, "the line has a NUL in it: this is no text");
	} else if (whole) {
		take_line(l, begin);
	}
	l->cut = !whole;
	l->from = (size_t)(stop - l->chunk) + (newline != NULL);
	l->taken += (size_t)(stop - begin) + (newline != NULL);
	return true;
}

static void go_on(struct load *l, uint64_t until)
{
	for (unsigned i = 1; l->phase == READING; i++) {
		if (i % 16 == 0 && clock_ns() >= until)
			return;
		if (!route_router_name(l->router)) {
			complain(l, l->line, "the router is gone");
			l->phase = DONE;
		} else if (!read_some(l)) {
			finish_route(l);
			l->phase = SWEEPING;
		}
	}
	while (l->phase == SWEEPING && clock_ns() < until)
		if (!route_sweep(l->router, l->table, ROUTE_FILE, l->mark, &l->at, SWEEP_PREFIXES))
			l->phase = DONE;
	if (l->phase != DONE || l->fd < 0)
		return;
	close(l->fd);
	l->fd = -1;
	free(l->chunk);
	l->chunk = NULL;
	l->took = clock_ns() - l->began;
	route_commit();
}

static bool any_running(void)
{
	for (const struct load *l = loads; l; l = l->next)
		if (l->phase != DONE)
			return true;
	return false;
}

void route_load_run(void)
{
	uint64_t until = clock_ns() + ROUTE_SLICE_NS;
	bool running = any_running();

	for (struct load *l = loads; l; l = l->next)
		if (l->phase != DONE)
			go_on(l, until);
	route_kernel_run(running ? until + ROUTE_SLICE_NS : until);
	route_commit_soon(clock_ns());
}

void route_load_wait(void)
{
	if (any_running())
		loop_wait_until(loop_msec());
	route_kernel_wait();
}

void route_load_reconcile(struct config *c)
{
	route_kernel_reconcile(c);
}

// ---- verbs

static unsigned percent(const struct load *l)
{
	if (l->phase == DONE)
		return 100;
	unsigned p = l->size ? (unsigned)(l->taken * 99 / l->size) : 0;
	return p > 99 ? 99 : p;
}

static struct load *load_of(uint16_t router, uint32_t table)
{
	struct load *l = loads;

	while (l && (l->router != router || l->table != table))
		l = l->next;
	return l;
}

// What is older than what is remembered, and what this load replaces.
static void forget(uint16_t router, uint32_t table)
{
	unsigned n = 0;

	for (struct load **at = &loads; *at;) {
		struct load *l = *at;

		if (l->phase == DONE && ((l->router == router && l->table == table) || ++n >= MAX_LOADS)) {
			*at = l->next;
			load_free(l);
		} else {
			at = &l->next;
		}
	}
}

static struct load *begin(const char *path, uint16_t router, uint32_t table, char **error)
{
	struct stat st;
	struct load *l = load_of(router, table);

	if (l && l->phase != DONE) {
		sentence_set(error, "%s is being loaded into this table, %u %% of it: wait until it is done", l->path,
			     percent(l));
		return NULL;
	}
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st)) {
		sentence_set(error, "the switch can't read %s: %s", path, strerror(errno));
	} else if (!S_ISREG(st.st_mode)) {
		sentence_set(error, "%s is no ordinary file", path);
	} else {
		forget(router, table);
		l = calloc(1, sizeof *l);
		char *chunk = malloc(CHUNK + 1), *copy = strdup(path), *name = strdup(route_router_name(router));
		if (l && chunk && copy && name) {
			*l = (struct load){.next = loads,
					   .id = ++last_id,
					   .router = router,
					   .table = table,
					   .path = copy,
					   .router_name = name,
					   .fd = fd,
					   .size = (uint64_t)st.st_size,
					   .chunk = chunk,
					   .mark = route_new_mark(),
					   .began = clock_ns()};
			return loads = l;
		}
		free(l);
		free(chunk);
		free(copy);
		free(name);
		sentence_set(error, "out of memory");
	}
	if (fd >= 0)
		close(fd);
	return NULL;
}

static void verb_load(struct control_request *r, int argc, const char *argv[], void *aux)
{
	uint16_t router;
	uint32_t table;
	bool has_table;
	char *error = NULL, id[16];
	struct load *l = NULL;

	if (route_take_table(&argc, argv, &router, &table, &has_table, &error)) {
		if (!router)
			sentence_set(&error, "which router is to have the routes? Say --router NAME");
		else if (argc != 2)
			sentence_set(&error, "one file is wanted");
		else
			l = begin(argv[1], router, table, &error);
	}
	if (l) {
		snprintf(id, sizeof id, "%" PRIu32 "\n", l->id);
		control_reply(r, id);
	} else {
		control_reply_error(r, error ? error : "out of memory");
	}
	free(error);
}

// "PERCENT ROUTES", or "end ROUTES BAD MILLISECONDS" and the lines that are named.
static void verb_loading(struct control_request *r, int argc, const char *argv[], void *aux)
{
	const struct load *l = loads;
	struct buf b = {0};

	while (l && (strtoul(argv[1], NULL, 10) != l->id))
		l = l->next;
	if (!l) {
		verbs_refuse(r, "there is no load %s", argv[1]);
		return;
	}
	if (l->phase == DONE)
		buf_add(&b, "end %" PRIu64 " %" PRIu64 " %" PRIu64 "\n%s", l->routes, l->bad, l->took / 1000000,
			l->complaints.text ? l->complaints.text : "");
	else
		buf_add(&b, "%u %" PRIu64 "\n", percent(l), l->routes);
	control_reply(r, b.text ? b.text : "");
	free(b.text);
}

static void verb_sources(struct control_request *r, int argc, const char *argv[], void *aux)
{
	static const char *const phases[] = {[READING] = "loading", [SWEEPING] = "replacing", [DONE] = "loaded"};
	bool json = verbs_take_json(&argc, argv);
	struct listing *l = listing_new();

	listing_column(l, "router", "ROUTER");
	listing_column(l, "table", "TABLE");
	listing_column(l, "source", "SOURCE");
	listing_column(l, "state", "STATE");
	listing_column(l, "percent", "%");
	listing_column(l, "routes", "ROUTES");
	listing_column(l, "left_out", "LEFT OUT");
	listing_column(l, "note", "NOTE");
	for (const struct load *f = loads; f; f = f->next) {
		size_t first = f->complaints.text ? strcspn(f->complaints.text, "\n") : 0;
		char note[200];

		snprintf(note, sizeof note, "%.*s", (int)first, first ? f->complaints.text : "");
		route_source_row(l, f->router_name, f->table, f->path, phases[f->phase], percent(f), f->routes, f->bad, note);
	}
	route_kernel_list(l);
	verbs_reply(r, l, json);
}

void route_load_init(void)
{
	control_register("route/load", "FILE --router ROUTER [--table N]", 1, 5, verb_load, NULL);
	control_register("route/loading", "LOAD", 1, 1, verb_loading, NULL);
	control_register("route/sources", "[--json]", 0, 1, verb_sources, NULL);
	route_verbs_init();
}

void route_load_stop(void)
{
	route_kernel_stop();
	while (loads) {
		struct load *l = loads;

		loads = l->next;
		load_free(l);
	}
}
