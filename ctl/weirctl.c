// weirctl: the command line of the virtual switch.
#include "database.h"

#include "control.h"
#include "fatal-signal.h"
#include "openvswitch/vlog.h"
#include "util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void defaults(void)
{
	const char *rundir = getenv("WEIR_RUNDIR");
	const char *db = getenv("WEIR_DB");
	const char *ctl = getenv("WEIR_CTL");

	if (!rundir || !rundir[0])
		rundir = "/run/weir";
	settings.db = db && db[0] ? xstrdup(db) : xasprintf("unix:%s/db.sock", rundir);
	settings.ctl = ctl && ctl[0] ? xstrdup(ctl) : xasprintf("%s/weir-vswitchd.ctl", rundir);
}

static bool follows(const struct given *g)
{
	for (int i = 0; i < g->n_args; i++)
		if (!strcmp(g->args[i], "--follow"))
			return !strcmp(g->noun, "drops");
	return false;
}

static int run(const struct given *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (list[i].command->kind != CONTROL)
			continue;
		// What the switch answers is no part of a transaction.
		if (n > 1) {
			char *name = given_name(&list[i]);
			die("'%s' asks the running switch: it can't be one of several commands", name);
		}
		if (list[i].command->ask)
			return list[i].command->ask(&list[i]);
		const char *control = list[i].command->control;
		if (control && !strcmp(control, "trace/start"))
			return follow_run(&list[i], "trace");
		if (control && !strcmp(control, "capture/start"))
			return capture_run(&list[i]);
		if (control && !strcmp(control, "top/sample"))
			return top_run(&list[i]);
		if (control && !strcmp(control, "support-bundle"))
			return support_run(&list[i]);
		return follows(&list[i]) ? follow_run(&list[i], "drops") : control_run(&list[i]);
	}
	generic_init();
	return database_run(list, n);
}

int main(int argc, char *argv[])
{
	size_t n;

	set_program_name("weirctl");
	fatal_ignore_sigpipe();
	// What goes wrong is told in one sentence, not by the library's log.
	vlog_set_levels(NULL, VLF_ANY_DESTINATION, VLL_OFF);
	defaults();

	if (argc == 2 && !strcmp(argv[1], "--commands=mdoc")) {
		usage_mdoc();
		return EXIT_SUCCESS;
	}
	struct given *list = command_parse(argc, argv, &n);
	int status = EXIT_SUCCESS;
	if (settings.names)
		database_names(settings.names);
	else
		status = run(list, n);
	for (size_t i = 0; i < n; i++) {
		free(list[i].args);
		free(list[i].options);
	}
	free(list);
	free(settings.db);
	free(settings.ctl);
	if (fflush(stdout) || ferror(stdout))
		return EXIT_FAILURE;
	return status;
}
