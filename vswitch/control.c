// control: the control socket and the main thread's poll loop, on Open vSwitch's unixctl and poll-loop.
#include "openvswitch.h"

#include "control.h"
#include "control_signals.h"

#include "openvswitch/list.h"
#include "openvswitch/poll-loop.h"
#include "timeval.h"
#include "unixctl.h"
#include "util.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

// ---- the control socket

struct control_request {
	struct ovs_list node;
	struct unixctl_conn *conn; // NULL: the socket has been closed meanwhile
};

struct command {
	control_handler *handler;
	void *aux;
};

static struct unixctl_server *server;
static struct ovs_list requests = OVS_LIST_INITIALIZER(&requests);

// The process that listens at `path`, 0 if none does. A socket that nobody listens at is left over, and is replaced.
static pid_t listener(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct ucred peer = {0};
	socklen_t len = sizeof peer;
	pid_t pid = 0;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return 0;
	ovs_strlcpy(addr.sun_path, path, sizeof addr.sun_path);
	if (!connect(fd, (struct sockaddr *)&addr, sizeof addr) || errno == EAGAIN)
		pid = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) || peer.pid <= 0 ? 1 : peer.pid;
	close(fd);
	return pid;
}

// What stands in the way of a socket at `path`: 0, or a negative errno and a sentence.
static int check_path(const char *path, char **error)
{
	char *dir = dir_name(path);
	pid_t pid;
	int err = 0;

	if (path[0] != '/') {
		err = -EINVAL;
		*error = xasprintf("control socket %s: the path must be absolute", path);
	} else if (strlen(path) >= sizeof((struct sockaddr_un){0}).sun_path) {
		err = -ENAMETOOLONG;
		*error = xasprintf("control socket %s: the path is longer than the %zu bytes that a socket's can have", path,
				   sizeof((struct sockaddr_un){0}).sun_path - 1);
	} else if (access(dir, W_OK | X_OK)) {
		err = -errno;
		*error = xasprintf("control socket %s: directory %s: %s", path, dir, ovs_strerror(errno));
	} else if ((pid = listener(path))) {
		err = -EADDRINUSE;
		*error = xasprintf("control socket %s is held by process %ld; stop it, or choose another run directory", path,
				   (long)pid);
	}
	free(dir);
	return err;
}

int control_open(const char *path, char **error)
{
	int err;

	control_keep_signals();
	if ((err = check_path(path, error)))
		return err;
	err = unixctl_server_create(path, &server);
	if (err)
		*error = xasprintf("control socket %s: %s", path, ovs_strerror(err));
	return -err;
}

void control_close(void)
{
	struct control_request *r;

	LIST_FOR_EACH (r, node, &requests)
		r->conn = NULL;
	unixctl_server_destroy(server);
	server = NULL;
}

void control_run(void)
{
	if (server)
		unixctl_server_run(server);
}

void control_wait(void)
{
	if (server)
		unixctl_server_wait(server);
}

static void dispatch(struct unixctl_conn *conn, int argc, const char *argv[], void *command_)
{
	const struct command *command = command_;
	struct control_request *r = xmalloc(sizeof *r);

	r->conn = conn;
	ovs_list_push_back(&requests, &r->node);
	// unixctl frees the words that it has counted; a handler may take some out of its own list.
	const char **words = xmemdup(argv, (size_t)(argc + 1) * sizeof *words);
	command->handler(r, argc, words, command->aux);
	free(words);
}

void control_register(const char *name, const char *usage, int min_args, int max_args, control_handler *handler, void *aux)
{
	// Commands stay registered as long as the process lives.
	struct command *command = xmalloc(sizeof *command);

	command->handler = handler;
	command->aux = aux;
	unixctl_command_register(name, usage, min_args, max_args, dispatch, command);
}

static struct unixctl_conn *take(struct control_request *r)
{
	struct unixctl_conn *conn = r->conn;

	ovs_list_remove(&r->node);
	free(r);
	return conn;
}

void control_reply(struct control_request *r, const char *text)
{
	struct unixctl_conn *conn = take(r);

	if (conn)
		unixctl_command_reply(conn, text);
}

void control_reply_error(struct control_request *r, const char *sentence)
{
	struct unixctl_conn *conn = take(r);

	if (conn)
		unixctl_command_reply_error(conn, sentence);
}

// ---- the poll loop

void loop_wait_until(long long msec)
{
	poll_timer_wait_until(msec);
}

void loop_wait_fd(int fd)
{
	// poll-loop takes 0 for "no descriptor" and ends the process.
	ovs_assert(fd > 0);
	poll_fd_wait(fd, POLLIN);
}

void loop_block(void)
{
	control_keep_signals();
	poll_block();
}

long long loop_msec(void)
{
	return time_msec();
}
