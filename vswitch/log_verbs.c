// log_verbs: what the control socket knows of the log.
#include "listing.h"
#include "log.h"
#include "sentence.h"
#include "verbs.h"

#include <stdlib.h>
#include <string.h>

static void list_module(const struct log_module_view *v, void *arg)
{
	struct listing *l = arg;

	listing_row(l);
	listing_str(l, v->name);
	listing_str(l, v->level);
	listing_uint(l, v->lines);
	listing_uint(l, v->left_out);
	listing_str(l, v->help);
}

static void log_list(struct control_request *r, int argc, const char *argv[], void *aux)
{
	bool json = verbs_take_json(&argc, argv);
	struct listing *l = listing_new();

	listing_column(l, "module", "MODULE");
	listing_column(l, "level", "LEVEL");
	listing_column(l, "lines", "LINES");
	listing_column(l, "left_out", "LEFT OUT");
	listing_column(l, "text", "WHAT OF");
	log_each_module(list_module, l);
	char *text = listing_render(l, json);
	listing_free(l);
	control_reply(r, text ? text : "");
	free(text);
}

// "MODULE LEVEL", or "MODULE:LEVEL" as one word.
static void log_set(struct control_request *r, int argc, const char *argv[], void *aux)
{
	bool json = verbs_take_json(&argc, argv);
	char *module = argc > 1 ? strdup(argv[1]) : NULL, *colon = module ? strchr(module, ':') : NULL, *error = NULL;
	const char *level = argc > 2 ? argv[2] : NULL;

	if (argc == 2 && colon) {
		*colon = 0;
		level = colon + 1;
	}
	if (!module || !level) {
		verbs_refuse(r, "log set wants a module and a level, such as port debug");
	} else if (!log_set_level(module, level, &error)) {
		verbs_refuse(r, "%s", error);
	} else {
		log_event('i', "control", LOG_FIELDS({"changed", module}, {"to", level}),
			  "lines of module %s are written from level %s on", module, level);
		control_reply(r, json ? "{}\n" : "");
	}
	free(module);
	free(error);
}

static void log_reopen_verb(struct control_request *r, int argc, const char *argv[], void *aux)
{
	bool json = verbs_take_json(&argc, argv);
	int error = log_reopen();

	if (error)
		verbs_refuse(r, "the log can't be opened anew: %s", strerror(error));
	else
		control_reply(r, json ? "{}\n" : "");
}

static void write_notice(char level, const char *module, const struct log_field *fields, const char *sentence)
{
	log_event(level, module, fields, "%s", sentence);
}

void log_verbs_init(void)
{
	notice_sink = write_notice;
	control_register("log/list", "[--json]", 0, 1, log_list, NULL);
	control_register("log/set", "[--json] MODULE LEVEL", 1, 3, log_set, NULL);
	control_register("log/reopen", "[--json]", 0, 1, log_reopen_verb, NULL);
}
