// trace: what happens to packets, as it happens (trace, drops --follow). The switch collects; this side fetches, and ends it on Ctrl-C.
#include "openvswitch.h"

#include "control.h"

#include "openvswitch/poll-loop.h"
#include "timeval.h"
#include "util.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>

#define READ_INTERVAL_MS 100

int end_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	// "trace | head" ends by a failing write, so that the switch is told.
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

static bool wanted_to_end(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, READ_INTERVAL_MS) > 0;
}

// Prints an answer. False: it was the last one, or nobody reads it any more.
static bool print(const char *text)
{
	bool last = !strncmp(text, "end", 3) && (!text[3] || text[3] == '\n');

	if (last)
		text += text[3] ? 4 : 3;
	fputs(text, stdout);
	if (text[0] && text[strlen(text) - 1] != '\n')
		putchar('\n');
	return !fflush(stdout) && !last;
}

int follow_run(const struct given *g, const char *noun)
{
	char *start = xasprintf("%s/start", noun), *read = xasprintf("%s/read", noun), *stop = xasprintf("%s/stop", noun);
	const char **argv = xcalloc((size_t)g->n_args + 2, sizeof(*argv));
	char *id, *text;
	int argc = 0;
	int fd = end_signals();

	control_interrupted_by(fd);
	if (settings.json)
		argv[argc++] = "--json";
	for (int i = 0; i < g->n_args; i++)
		if (strcmp(g->args[i], "--follow"))
			argv[argc++] = g->args[i];
	bool started = control_call(start, argc, argv, &id);
	char *rest = id + strcspn(id, "\n");
	if (*rest)
		*rest++ = '\0';
	if (!started)
		die("%s", id);

	// What is left of the first answer is packets already.
	bool more = print(rest);
	const char *const one[] = {id};
	while (more && !wanted_to_end(fd)) {
		// The switch forgets a trace when it ends: then there is nothing to stop.
		if (!control_call(read, 1, one, &text)) {
			text[strcspn(text, "\n")] = '\0';
			die("%s", text);
		}
		bool last = !strncmp(text, "end", 3) && (!text[3] || text[3] == '\n');
		more = print(text);
		free(text);
		if (last)
			goto out;
	}
	if (control_call(stop, 1, one, &text))
		print(text);
	free(text);
out:
	free(id);
	free(argv);
	free(start);
	free(read);
	free(stop);
	return ferror(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
}
