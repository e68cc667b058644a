// route_load: has the switch read a file of routes, and shows how far it is. The switch reads, as the routes are its own and
// not the database's.
#include "openvswitch.h"

#include "control.h"

#include "util.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ASK_MS 100

static void first_line(char *text)
{
	text[strcspn(text, "\n")] = '\0';
}

// How far it is, on one line of a terminal, or a line for each tenth.
static void show(unsigned percent, uint64_t routes)
{
	static unsigned tenth;

	if (settings.json)
		return;
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r%3u %%  %" PRIu64 " routes", percent, routes);
	else if (percent / 10 > tenth)
		fprintf(stderr, "%u %%  %" PRIu64 " routes\n", (tenth = percent / 10) * 10, routes);
}

// The lines that could not be, as a JSON array of strings.
static void print_json(uint64_t routes, uint64_t bad, uint64_t ms, char *lines)
{
	char *save = NULL, *line = strtok_r(lines, "\n", &save);

	printf("{\"routes\": %" PRIu64 ", \"left_out\": %" PRIu64 ", \"milliseconds\": %" PRIu64 ", \"problems\": [", routes,
	       bad, ms);
	for (bool first = true; line; line = strtok_r(NULL, "\n", &save), first = false) {
		printf("%s\"", first ? "" : ", ");
		for (const char *c = line; *c; c++)
			if (*c == '"' || *c == '\\')
				printf("\\%c", *c);
			else if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f)
				putchar('?'); // what isn't text in a line that isn't one
			else
				putchar(*c);
		putchar('"');
	}
	printf("]}\n");
}

static int finish(char *text)
{
	uint64_t routes = 0, bad = 0, ms = 0;
	char *lines = text + strcspn(text, "\n");

	if (*lines)
		*lines++ = '\0';
	if (sscanf(text, "end %" SCNu64 " %" SCNu64 " %" SCNu64, &routes, &bad, &ms) != 3)
		die("the switch at %s answers nonsense", settings.ctl);
	if (!settings.json && isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[K");
	if (settings.json) {
		print_json(routes, bad, ms, lines);
		return bad ? EXIT_FAILURE : EXIT_SUCCESS;
	}
	fputs(lines, stderr);
	printf("%" PRIu64 " routes in %.1f s\n", routes, (double)ms / 1000);
	if (bad)
		fprintf(stderr, "weirctl: %" PRIu64 " %s left out; all others are in use\n", bad,
			bad == 1 ? "line was" : "lines were");
	return bad ? EXIT_FAILURE : EXIT_SUCCESS;
}

int route_load_run(const struct given *g)
{
	char path[PATH_MAX], *id, *text;
	const char *router = NULL, *table = "0", *file = NULL;

	for (int i = 0; i < g->n_args; i++) {
		const char *next = i + 1 < g->n_args ? g->args[i + 1] : NULL;

		if ((!strcmp(g->args[i], "--router") || !strcmp(g->args[i], "--table")) && !next)
			die("route load: %s wants a value", g->args[i]);
		if (!strcmp(g->args[i], "--router"))
			router = g->args[++i];
		else if (!strcmp(g->args[i], "--table"))
			table = g->args[++i];
		else if (file)
			die("route load: one file is wanted, not also %s", g->args[i]);
		else
			file = g->args[i];
	}
	if (!file)
		die("route load: which file?");
	if (!router)
		die("route load: which router is to have the routes? --router NAME");
	if (!realpath(file, path))
		die("%s: %s", file, ovs_strerror(errno));
	const char *const argv[] = {path, "--router", router, "--table", table};
	bool started = control_call("route/load", 5, argv, &id);
	first_line(id);
	if (!started)
		die("%s", id);
	const char *const one[] = {id};
	for (;;) {
		unsigned percent;
		uint64_t routes;

		if (!control_call("route/loading", 1, one, &text)) {
			first_line(text);
			die("%s", text);
		}
		if (!strncmp(text, "end ", 4))
			break;
		if (sscanf(text, "%u %" SCNu64, &percent, &routes) == 2)
			show(percent, routes);
		free(text);
		poll(NULL, 0, ASK_MS);
	}
	int status = finish(text);
	free(text);
	free(id);
	return status;
}
