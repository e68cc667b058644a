// control: the client's side of Open vSwitch's unixctl, JSON-RPC 1.0 over a UNIX socket.
#include "openvswitch.h"

#include "control.h"

#include "jsonrpc.h"
#include "openvswitch/json.h"
#include "openvswitch/poll-loop.h"
#include "stream.h"
#include "timeval.h"
#include "unixctl.h"
#include "util.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct jsonrpc *connection;
static int interrupt_fd = -1;

void control_interrupted_by(int fd)
{
	interrupt_fd = fd;
}

// Ctrl-C while the switch hangs. A call that goes well is given the time to do so.
static void give_up_if_interrupted(long long started)
{
	struct pollfd p = {.fd = interrupt_fd, .events = POLLIN};

	if (interrupt_fd < 0)
		return;
	if (time_msec() < started + 1000) {
		poll_timer_wait_until(started + 1000);
		return;
	}
	if (poll(&p, 1, 0) > 0)
		die("the switch at %s does not answer", settings.ctl);
	poll_fd_wait(interrupt_fd, POLLIN);
}

static _Noreturn void die_no_switch(int error)
{
	if (error == EACCES || error == EPERM)
		die("no permission to talk to the switch at %s", settings.ctl);
	die("no switch answers at %s (is weir-vswitchd running?)", settings.ctl);
}

static void open_connection(void)
{
	if (connection)
		return;
	char *path = abs_file_name(NULL, settings.ctl);
	int error = unixctl_client_create(path ? path : settings.ctl, &connection);
	free(path);
	if (error)
		die_no_switch(error);
}

static struct jsonrpc_msg *request(const char *method, int argc, const char *const argv[])
{
	struct json *params = json_array_create_empty();

	for (int i = 0; i < argc; i++)
		json_array_add(params, json_string_create(argv[i]));
	return jsonrpc_create_request(method, params, NULL);
}

bool control_call(const char *method, int argc, const char *const argv[], char **text)
{
	long long started = time_msec();
	long long deadline = settings.timeout ? started + settings.timeout * 1000LL : LLONG_MAX;
	struct jsonrpc_msg *reply = NULL;
	int error;

	open_connection();
	error = jsonrpc_send(connection, request(method, argc, argv));
	while (!error) {
		jsonrpc_run(connection);
		error = jsonrpc_recv(connection, &reply);
		if (error != EAGAIN)
			break;
		if (time_msec() >= deadline)
			die("the switch at %s does not answer within %u s", settings.ctl, settings.timeout);
		error = 0;
		give_up_if_interrupted(started);
		jsonrpc_wait(connection);
		jsonrpc_recv_wait(connection);
		poll_timer_wait_until(deadline);
		poll_block();
	}
	if (error == EOF || error == ECONNRESET || error == EPIPE)
		die("the switch at %s hung up (did weir-vswitchd just end?)", settings.ctl);
	if (error)
		die("the switch at %s answers nonsense: %s", settings.ctl, ovs_retval_to_string(error));

	bool good = reply->type == JSONRPC_REPLY;
	const struct json *json = good ? reply->result : reply->error;
	if (!json || json->type != JSON_STRING)
		die("the switch at %s answers nonsense", settings.ctl);
	*text = xstrdup(json_string(json));
	jsonrpc_msg_destroy(reply);
	return good;
}

// What list-commands says: "The available commands are:" and a line "  NAME   USAGE" for each.
static char **commands_of_switch(void)
{
	char **list = xcalloc(1, sizeof(*list));
	char *text, *save = NULL;
	size_t n = 0;

	if (!control_call("list-commands", 0, NULL, &text))
		text[0] = '\0';
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (line[0] != ' ')
			continue;
		line += strspn(line, " ");
		list = xrealloc(list, (n + 2) * sizeof(*list));
		list[n++] = xmemdup0(line, strcspn(line, " "));
		list[n] = NULL;
	}
	free(text);
	return list;
}

static bool listed(char *const *list, const char *name)
{
	for (; *list; list++)
		if (!strcmp(*list, name))
			return true;
	return false;
}

static _Noreturn void die_unknown(const struct given *g, char *const *list)
{
	const char *near = nearest_noun(g->noun);

	if (!near) {
		// The nouns of the switch: the words before "/".
		const char **nouns = xcalloc(1, sizeof(*nouns));
		size_t n = 0;
		for (; list && *list; list++) {
			nouns = xrealloc(nouns, (n + 2) * sizeof(*nouns));
			nouns[n++] = xmemdup0(*list, strcspn(*list, "/"));
			nouns[n] = NULL;
		}
		near = nearest(g->noun, nouns);
	}
	if (g->verb && has_verbs(g->noun))
		die_verb(g->noun, g->verb);
	if (near && !strcmp(near, g->noun))
		die("neither weirctl nor the switch knows '%s %s' (weirctl %s --help shows what there is)", g->noun,
		    g->verb ? g->verb : "", g->noun);
	if (near)
		die("there is no '%s'; did you mean %s?", g->noun, near);
	die("there is no '%s' (weirctl --help shows what there is)", g->noun);
}

static bool switch_is_there(void)
{
	return !access(settings.ctl, F_OK);
}

// A command that the table doesn't have: "noun/verb" of the switch, or "noun" with the verb as its first argument,
// so that a newer switch, or vlog/list and its like, can be asked as well.
static char *find_method(const struct given *g, bool *verb_is_argument)
{
	char *name = g->verb ? xasprintf("%s/%s", g->noun, g->verb) : xstrdup(g->noun);

	*verb_is_argument = false;
	// With a mistyped noun it is no help to hear that there is no switch.
	if (!switch_is_there())
		die_unknown(g, NULL);
	char **list = commands_of_switch();
	if (!listed(list, name) && g->verb) {
		free(name);
		name = xstrdup(g->noun);
		*verb_is_argument = true;
	}
	if (!listed(list, name))
		die_unknown(g, list);
	for (size_t i = 0; list[i]; i++)
		free(list[i]);
	free(list);
	return name;
}

// Prints an answer. A refusal ends the process.
static void print(bool good, char *text)
{
	const char *body = text;

	if (!good) {
		// What follows the sentence is the answer all the same: a ledger that doesn't balance is still to be seen.
		char *end = text + strcspn(text, "\n");
		body = *end ? end + 1 : end;
		*end = '\0';
	}
	fputs(body, stdout);
	if (body[0] && body[strlen(body) - 1] != '\n')
		putchar('\n');
	if (!good)
		die("%s", text);
}

// A long list comes in parts, each printed as it comes: put behind each other they are the list.
static void print_pages(const char *method, int argc, const char **argv)
{
	char *cursor = xstrdup("start");

	while (*cursor) {
		char *text;

		argv[argc] = "--page";
		argv[argc + 1] = cursor;
		if (!control_call(method, argc + 2, argv, &text))
			print(false, text);
		size_t line = strcspn(text, "\n");
		bool more = !strncmp(text, "next ", 5);
		if (!text[line] || (!more && (line != 3 || strncmp(text, "end", 3))))
			die("the switch at %s answers nonsense", settings.ctl);
		fputs(text + line + 1, stdout);
		if (fflush(stdout)) // nobody reads it any more: "cache list | head"
			exit(EXIT_FAILURE);
		free(cursor);
		cursor = more ? xmemdup0(text + 5, line - 5) : xstrdup("");
		free(text);
	}
	free(cursor);
}

int control_run(const struct given *g)
{
	const struct command *c = g->command;
	const char **argv = xcalloc((size_t)g->n_args + 4, sizeof(*argv));
	bool verb_is_argument = false;
	char *method, *text;
	int argc = 0;

	if (c->control)
		method = xstrdup(c->control);
	else if (!c->noun[0])
		method = find_method(g, &verb_is_argument);
	else
		method = c->verb ? xasprintf("%s/%s", c->noun, c->verb) : xstrdup(c->noun);
	if (settings.json && !c->control)
		argv[argc++] = "--json";
	if (verb_is_argument)
		argv[argc++] = g->verb;
	for (int i = 0; i < g->n_args; i++)
		argv[argc++] = g->args[i];

	if (c->pages) {
		print_pages(method, argc, argv);
	} else {
		bool good = control_call(method, argc, argv, &text);

		print(good, text);
		free(text);
	}
	free(method);
	free(argv);
	jsonrpc_close(connection);
	connection = NULL;
	return EXIT_SUCCESS;
}
