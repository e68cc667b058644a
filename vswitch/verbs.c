// verbs: counters of ports. See verbs.h.
#include "verbs.h"
#include "export.h"
#include "pages.h"
#include "port.h"
#include "sentence.h"
#include "stage.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool verbs_take_flag(int *argc, const char *argv[], const char *name)
{
	for (int i = 1; i < *argc; i++)
		if (!strncmp(argv[i], "--", 2) && !strcmp(argv[i] + 2, name)) {
			memmove(&argv[i], &argv[i + 1], (size_t)(*argc - i - 1) * sizeof *argv);
			--*argc;
			return true;
		}
	return false;
}

bool verbs_take_json(int *argc, const char *argv[])
{
	return verbs_take_flag(argc, argv, "json");
}

const char *verbs_take_option(int *argc, const char *argv[], const char *name, char **error)
{
	for (int i = 1; i < *argc; i++) {
		if (strncmp(argv[i], "--", 2) || strcmp(argv[i] + 2, name))
			continue;
		if (i + 1 == *argc) {
			sentence_set(error, "--%s wants a value", name);
			--*argc;
			return NULL;
		}
		const char *value = argv[i + 1];
		memmove(&argv[i], &argv[i + 2], (size_t)(*argc - i - 2) * sizeof *argv);
		*argc -= 2;
		return value;
	}
	return NULL;
}

void verbs_refuse(struct control_request *r, const char *fmt, ...)
{
	char *text;
	va_list args;

	va_start(args, fmt);
	int n = vasprintf(&text, fmt, args);
	va_end(args);
	control_reply_error(r, n < 0 ? "out of memory" : text);
	if (n >= 0)
		free(text);
}

void verbs_reply(struct control_request *r, struct listing *l, bool json)
{
	char *text = listing_render(l, json);

	listing_free(l);
	if (text)
		control_reply(r, text);
	else
		control_reply_error(r, "out of memory");
	free(text);
}

// ---- ports

static int port_stats(struct page *p, int argc, const char *argv[], char **error)
{
	const struct port *only = argc > 1 ? port_find(argv[1]) : NULL;

	if (argc > 1 && !only) {
		sentence_set(error, "there is no port %s", argv[1]);
		return -1;
	}
	listing_column(p->l, "port", "PORT");
	for (unsigned i = 0; i < COUNT_N; i++)
		listing_column(p->l, count_desc[i].key, count_desc[i].key);
	for (uint64_t *id = &p->at[0]; *id < MAX_PORTS; ++*id) {
		const struct port *port = *id ? port_get((uint16_t)*id) : NULL;
		struct counts s = {0};

		if (!port || (only && port != only))
			continue;
		if (!page_look(p))
			return 1;
		port_counts(port, &s);
		listing_row(p->l);
		listing_str(p->l, port->name);
		for (unsigned i = 0; i < COUNT_N; i++)
			listing_uint(p->l, s.c[i]);
	}
	return 0;
}

static void version(struct control_request *r, int argc, const char *argv[], void *aux)
{
	bool json = verbs_take_json(&argc, argv);

	control_reply(r, json ? "{\"version\": \"" WEIR_VERSION "\"}\n" : "weir-vswitchd " WEIR_VERSION "\n");
}

static void run_stage_verb(struct control_request *r, int argc, const char *argv[], void *aux)
{
	const struct stage_verb *v = aux;
	bool json = verbs_take_json(&argc, argv);
	char *error = NULL, *text = v->run(argc, argv, json, &error);

	if (text)
		control_reply(r, text);
	else
		control_reply_error(r, error ? error : "out of memory");
	free(text);
	free(error);
}

void verbs_init(void)
{
	static const struct {
		const char *name, *usage;
		int max;
		control_handler *run;
	} core[] = {
		{"version", "[--json]", 1, version},
	};

	for (size_t i = 0; i < sizeof core / sizeof core[0]; i++)
		if (strcmp(core[i].name, "version")) // the library answers that one
			control_register(core[i].name, core[i].usage, 0, core[i].max, core[i].run, NULL);
		else
			control_register("weir/version", core[i].usage, 0, core[i].max, core[i].run, NULL);
	for (unsigned i = 0; i < stage_count(); i++)
		for (const struct stage_verb *v = stage_get((uint8_t)i)->verbs; v && v->name; v++)
			if (v->list)
				pages_register(v->name, v->usage, v->list);
			else
				control_register(v->name, v->usage, 0, 16, run_stage_verb, (void *)(uintptr_t)v);
	pages_register("port/stats", "[--json] [--limit N] [PORT]", port_stats);
	cache_init();
	export_init();
}
