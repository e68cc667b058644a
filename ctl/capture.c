// capture: packets as pcapng, into a file or a pipe. The switch writes to a socket; this side connects to it and copies.
#include "openvswitch.h"

#include "control.h"

#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PORTION (1 << 20)
#define LAST_MS 5000 // after Ctrl-C the switch has this long to write the rest

// Takes "-w FILE" out of the arguments.
static const char *take_file(const struct given *g, const char **argv, int *argc)
{
	const char *file = NULL;

	for (int i = 0; i < g->n_args; i++) {
		if (strcmp(g->args[i], "-w")) {
			argv[(*argc)++] = g->args[i];
			continue;
		}
		if (++i == g->n_args)
			die("-w wants a file, or - for a pipe");
		file = g->args[i];
	}
	if (!file)
		die("capture: where to? -w FILE, or -w - for a pipe: weirctl capture -w - | tshark -r -");
	return file;
}

// `name`: of the socket, beside the control socket.
static int open_socket(const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char *dir = dir_name(settings.ctl);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int n = snprintf(a.sun_path, sizeof a.sun_path, "%s/%s", dir, name);

	if (n < 0 || (size_t)n >= sizeof a.sun_path)
		die("%s/%s is longer than the path of a socket can be", dir, name);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a))
		die("the switch's packets can't be read at %s: %s", a.sun_path, ovs_strerror(errno));
	free(dir);
	return fd;
}

// What was on the wire is nobody else's business.
static int open_file(const char *file)
{
	int fd = strcmp(file, "-") ? open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : STDOUT_FILENO;

	if (fd < 0)
		die("%s: %s", file, ovs_strerror(errno));
	return fd;
}

static bool write_all(int fd, const char *data, size_t n)
{
	while (n) {
		ssize_t done = write(fd, data, n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return false;
		data += done;
		n -= (size_t)done;
	}
	return true;
}

// Copies until the switch has ended the capture, which it is asked for by a signal. Returns 0, or the errno of what could not be written.
static int copy(int from, int to, int signals, const char *file)
{
	struct pollfd p[2] = {{.fd = from, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
	char *data = xmalloc(PORTION);
	bool told = false, ending = false;
	int error = 0;

	while (poll(p, 2, ending ? LAST_MS : -1)) {
		if (p[1].revents && !ending) {
			ending = true;
			p[1].fd = -1;
			shutdown(from, SHUT_WR);
		}
		if (!p[0].revents)
			continue;
		ssize_t n = read(from, data, PORTION);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		if (!told && strcmp(file, "-"))
			fprintf(stderr, "weirctl: capturing to %s; Ctrl-C ends it\n", file);
		told = true;
		if (!write_all(to, data, (size_t)n)) {
			error = errno;
			break;
		}
	}
	free(data);
	return error;
}

int capture_run(const struct given *g)
{
	const char **argv = xcalloc((size_t)g->n_args + 1, sizeof(*argv));
	int argc = 0, signals = end_signals();
	const char *file = take_file(g, argv, &argc);
	char *id, *text;

	if (!strcmp(file, "-") && isatty(STDOUT_FILENO))
		die("capture -w - writes a pcapng file, which is nothing for a terminal: weirctl capture -w - | tshark -r -");
	control_interrupted_by(signals);
	bool started = control_call("capture/start", argc, argv, &id);
	free(argv);
	char *name = id + strcspn(id, "\n");
	if (*name)
		*name++ = '\0';
	if (!started)
		die("%s", id);
	name[strcspn(name, "\n")] = '\0';
	int from = open_socket(name), to = open_file(file);
	int error = copy(from, to, signals, file);
	close(from);
	// A pipe whose reader has had enough is a way to end.
	if (error && error != EPIPE)
		die("%s: %s", file, ovs_strerror(error));
	if (to != STDOUT_FILENO && close(to))
		die("%s: %s", file, ovs_strerror(errno));
	const char *const one[] = {id};
	if (!error && control_call("capture/result", 1, one, &text)) {
		fprintf(stderr, "weirctl: %s", text);
		free(text);
	}
	free(id);
	return EXIT_SUCCESS;
}
