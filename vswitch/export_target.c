// export_target: see export_target.h.
#include "export_target.h"
#include "sentence.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define RETRY_MS 1000
#define SEND_BUFFER (4 << 20)

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct sockaddr_un un;
};

struct target_kind {
	const char *prefix;
	bool json;
	int type; // of socket; 0: a file
};

static const struct target_kind kinds[] = {
	{"udp:", false, SOCK_DGRAM},
	{"tcp:", false, SOCK_STREAM},
	{"file:", true, 0},
	{"unix:", true, SOCK_STREAM},
};

static const struct target_kind *kind_of(const char *text)
{
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
		if (!strncmp(text, kinds[i].prefix, strlen(kinds[i].prefix)))
			return &kinds[i];
	return NULL;
}

// IP:PORT or [IPv6]:PORT. Returns the length of the address, 0 if it is none.
static socklen_t parse_ip(const char *text, union address *a)
{
	char host[INET6_ADDRSTRLEN];
	const char *colon = strrchr(text, ':');
	bool six = text[0] == '[';
	size_t digits = colon ? strspn(colon + 1, "0123456789") : 0;
	unsigned long port = digits ? strtoul(colon + 1, NULL, 10) : 0;

	if (!colon || !digits || digits > 5 || colon[1 + digits] || !port || port > 65535)
		return 0;
	size_t n = (size_t)(colon - text);
	if (six && (n < 3 || text[n - 1] != ']'))
		return 0;
	n -= six ? 2 : 0;
	if (n >= sizeof host)
		return 0;
	memcpy(host, text + six, n);
	host[n] = '\0';
	memset(a, 0, sizeof *a);
	if (six) {
		a->v6.sin6_family = AF_INET6;
		a->v6.sin6_port = htons((uint16_t)port);
		return inet_pton(AF_INET6, host, &a->v6.sin6_addr) == 1 ? sizeof a->v6 : 0;
	}
	a->v4.sin_family = AF_INET;
	a->v4.sin_port = htons((uint16_t)port);
	return inet_pton(AF_INET, host, &a->v4.sin_addr) == 1 ? sizeof a->v4 : 0;
}

// The address of a socket; 0: it is none.
static socklen_t parse(const char *text, const struct target_kind *k, union address *a)
{
	const char *rest = text + strlen(k->prefix);

	if (k->type && !k->json)
		return parse_ip(rest, a);
	if (rest[0] != '/' || (k->type && strlen(rest) >= sizeof a->un.sun_path))
		return 0;
	memset(a, 0, sizeof *a);
	a->un.sun_family = AF_UNIX;
	if (k->type)
		memcpy(a->un.sun_path, rest, strlen(rest));
	return sizeof a->un;
}

bool target_check(const char *text, char **error)
{
	const struct target_kind *k = kind_of(text);
	union address a;

	if (k && parse(text, k, &a))
		return true;
	sentence_set(error, "targets: \"%s\" isn't udp:IP:PORT, tcp:IP:PORT (IPv6: [IP]), file:/PATH or unix:/PATH", text);
	return false;
}

static void drop_connection(struct target *t, int error)
{
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
	t->connecting = false;
	t->used = 0;
	t->error = error;
}

static int open_file(const struct target *t)
{
	// O_NONBLOCK: a FIFO without a reader is an error, not an endless wait.
	int fd = open(t->text + strlen(t->kind->prefix), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0640);

	return fd < 0 ? -errno : fd;
}

static int open_socket(const struct target *t, bool *connecting)
{
	union address a;
	socklen_t len = parse(t->text, t->kind, &a);
	int fd = socket(a.any.sa_family, t->kind->type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), size = SEND_BUFFER;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size); // what the system allows of it
	*connecting = connect(fd, &a.any, len) != 0;
	if (!*connecting || errno == EINPROGRESS)
		return fd;
	int error = errno;
	close(fd);
	return -error;
}

static void try_open(struct target *t, long long now_ms)
{
	bool connecting = false;
	int fd = t->kind->type ? open_socket(t, &connecting) : open_file(t);

	t->retry_ms = now_ms + RETRY_MS;
	if (fd < 0) {
		t->error = -fd;
		return;
	}
	t->fd = fd;
	t->connecting = connecting;
	t->began = !connecting;
	t->error = connecting ? EINPROGRESS : 0;
}

struct target *target_open(const char *text)
{
	struct target *t = calloc(1, sizeof *t);

	if (!t)
		return NULL;
	t->kind = kind_of(text);
	t->json = t->kind->json;
	t->text = strdup(text);
	t->fd = -1;
	t->buffer = t->kind->type == SOCK_DGRAM ? NULL : malloc(TARGET_BUFFER);
	if (!t->text || (!t->buffer && t->kind->type != SOCK_DGRAM)) {
		target_close(t);
		return NULL;
	}
	return t;
}

static void flush(struct target *t)
{
	size_t done = 0;

	while (t->fd >= 0 && !t->connecting && done < t->used) {
		ssize_t n = t->kind->type ? send(t->fd, t->buffer + done, t->used - done, MSG_NOSIGNAL | MSG_DONTWAIT)
					  : write(t->fd, t->buffer + done, t->used - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN) {
			drop_connection(t, errno);
			return;
		}
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	if (done) {
		memmove(t->buffer, t->buffer + done, t->used - done);
		t->used -= done;
	}
}

void target_close(struct target *t)
{
	if (!t)
		return;
	flush(t);
	drop_connection(t, 0);
	free(t->buffer);
	free(t->text);
	free(t);
}

static bool send_datagram(struct target *t, const void *data, size_t len)
{
	for (int tries = 0; tries < 2; tries++) {
		if (send(t->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len) {
			if (!tries)
				t->error = 0;
			return true;
		}
		t->error = errno;
		// What is told here is of the datagram before: nobody listened. This one was not tried.
		if (errno != ECONNREFUSED)
			return false;
	}
	return false;
}

static bool put_in_buffer(struct target *t, const void *data, size_t len)
{
	if (t->used + len > TARGET_BUFFER)
		flush(t);
	if (t->fd < 0 || t->used + len > TARGET_BUFFER)
		return false;
	memcpy(t->buffer + t->used, data, len);
	t->used += len;
	return true;
}

bool target_send(struct target *t, const void *data, size_t len, unsigned records)
{
	bool sent = t->fd >= 0 && !t->connecting && (t->buffer ? put_in_buffer(t, data, len) : send_datagram(t, data, len));

	if (sent) {
		t->records += records;
		t->messages++;
		t->bytes += len;
	} else {
		t->lost += records;
	}
	return sent;
}

static void look_at_connection(struct target *t)
{
	union address a;
	socklen_t len = sizeof a, size = sizeof(int);
	int error = 0;

	getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &error, &size);
	if (error) {
		drop_connection(t, error);
	} else if (!getpeername(t->fd, &a.any, &len)) {
		t->connecting = false;
		t->began = true;
		t->error = 0;
	}
}

// A reader that has hung up; it has nothing to say otherwise.
static void look_for_end(struct target *t)
{
	char rubbish[256];
	ssize_t n = recv(t->fd, rubbish, sizeof rubbish, MSG_DONTWAIT);

	if (!n || (n < 0 && errno != EAGAIN && errno != EINTR))
		drop_connection(t, n ? errno : ECONNRESET);
}

static void look_at_file(struct target *t, long long now_ms)
{
	struct stat here, there;

	if (now_ms < t->retry_ms)
		return;
	t->retry_ms = now_ms + RETRY_MS;
	if (!fstat(t->fd, &here) && !stat(t->text + strlen(t->kind->prefix), &there) && here.st_ino == there.st_ino && here.st_dev == there.st_dev)
		return;
	drop_connection(t, 0);
	try_open(t, now_ms);
}

void target_run(struct target *t, long long now_ms)
{
	if (t->fd < 0 && now_ms >= t->retry_ms)
		try_open(t, now_ms);
	if (t->fd < 0)
		return;
	if (t->connecting)
		look_at_connection(t);
	if (t->kind->type != SOCK_DGRAM)
		flush(t);
	if (t->fd >= 0 && !t->connecting && t->kind->type == SOCK_STREAM)
		look_for_end(t);
	if (t->fd >= 0 && !t->kind->type)
		look_at_file(t, now_ms);
}

const char *target_state(const struct target *t)
{
	if (!t->error)
		return t->fd >= 0 ? "ok" : "not open yet";
	return strerror(t->error);
}
