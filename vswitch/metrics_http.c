// metrics_http: see metrics_http.h.
#include "metrics_http.h"
#include "control.h"
#include "sentence.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <microhttpd.h>

#define SERVERS 2 // a UNIX socket and TCP

// A connection, from its start to its end.
struct client {
	struct metrics_http *server; // NULL: free
	struct MHD_Connection *connection;
	int fd;
	long long since;
	bool waits; // suspended, until there is a text in `format`
	bool asked; // it has waited already
	enum om_format format;
};

struct metrics_http {
	struct MHD_Daemon *daemon; // NULL: free
	bool closing;
	char path[sizeof((struct sockaddr_un){0}.sun_path)]; // of its socket; "": TCP
};

static void (*wake_main)(void);
static struct metrics_http servers[SERVERS];
static struct MHD_Response *index_page, *not_found, *not_allowed, *unavailable;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // of all that follows; taken before locks of the library
static struct client clients[SERVERS * METRICS_HTTP_CONNECTIONS];
static unsigned n_clients;
static struct MHD_Response *texts[OM_FORMATS];
static long long text_ms[OM_FORMATS];
static bool wanted[OM_FORMATS];

static long long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

// ---- the servers' threads

static void connected(void *server, struct MHD_Connection *c, void **context, enum MHD_ConnectionNotificationCode code)
{
	pthread_mutex_lock(&lock);
	if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
		struct client *cl = *context;

		if (cl) {
			memset(cl, 0, sizeof *cl); // before its descriptor is closed, so that metrics_http_tick() never means
						   // another's
			n_clients--;
		}
		*context = NULL;
	} else {
		struct client *cl = clients;

		while (cl < clients + sizeof clients / sizeof clients[0] && cl->server)
			cl++;
		*context = NULL;
		if (cl < clients + sizeof clients / sizeof clients[0]) {
			*cl = (struct client){.server = server,
					      .connection = c,
					      .fd = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd,
					      .since = now_ms()};
			n_clients++;
			*context = cl;
		}
	}
	pthread_mutex_unlock(&lock);
}

static enum MHD_Result answer_metrics(struct MHD_Connection *c, struct client *cl)
{
	bool ring = false;
	enum MHD_Result rc = MHD_YES;

	pthread_mutex_lock(&lock);
	cl->format = om_negotiate(MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT));
	if (cl->server->closing) {
		rc = MHD_queue_response(c, MHD_HTTP_SERVICE_UNAVAILABLE, unavailable);
	} else if (!cl->asked && (!texts[cl->format] || now_ms() - text_ms[cl->format] >= METRICS_HTTP_FRESH_MS)) {
		MHD_suspend_connection(c);
		cl->waits = cl->asked = true;
		ring = !wanted[cl->format];
		__atomic_store_n(&wanted[cl->format], true, __ATOMIC_RELEASE);
	} else if (texts[cl->format]) {
		rc = MHD_queue_response(c, MHD_HTTP_OK, texts[cl->format]);
	} else {
		rc = MHD_queue_response(c, MHD_HTTP_SERVICE_UNAVAILABLE, unavailable);
	}
	pthread_mutex_unlock(&lock);
	if (ring)
		wake_main();
	return rc;
}

static enum MHD_Result handle(void *server, struct MHD_Connection *c, const char *url, const char *method, const char *version,
			      const char *upload, size_t *upload_size, void **state)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct client *cl = info ? info->socket_context : NULL;

	if (strcmp(method, MHD_HTTP_METHOD_GET) && strcmp(method, MHD_HTTP_METHOD_HEAD))
		return MHD_queue_response(c, MHD_HTTP_METHOD_NOT_ALLOWED, not_allowed);
	if (!strcmp(url, "/"))
		return MHD_queue_response(c, MHD_HTTP_OK, index_page);
	if (strcmp(url, "/metrics"))
		return MHD_queue_response(c, MHD_HTTP_NOT_FOUND, not_found);
	return cl ? answer_metrics(c, cl) : MHD_queue_response(c, MHD_HTTP_SERVICE_UNAVAILABLE, unavailable);
}

static __attribute__((format(printf, 2, 0))) void log_library(void *arg, const char *fmt, va_list args)
{
	char text[256];

	vsnprintf(text, sizeof text, fmt, args);
	text[strcspn(text, "\n")] = 0;
	log_line('d', "metrics", "%s", text);
}

// ---- the main thread

static struct MHD_Response *page(const char *text)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);

	if (r) {
		MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain; charset=utf-8");
		MHD_add_response_header(r, MHD_HTTP_HEADER_CONNECTION, "close");
	}
	return r;
}

void metrics_http_init(void (*wake)(void))
{
	wake_main = wake;
	index_page = page("weir-vswitchd: the metrics are at /metrics\n");
	not_found = page("There are metrics at /metrics, and nothing else.\n");
	not_allowed = page("Metrics can be read with GET, and nothing else.\n");
	unavailable = page("The switch has no metrics at the moment.\n");
	if (not_allowed)
		MHD_add_response_header(not_allowed, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
}

static struct metrics_http *serve(int fd, const char *path, char **error)
{
	struct metrics_http *s = servers;

	while (s < servers + SERVERS && s->daemon)
		s++;
	if (s == servers + SERVERS || !index_page || !not_found || !not_allowed || !unavailable) {
		close(fd);
		sentence_set(error, "metrics: out of memory");
		return NULL;
	}
	memset(s, 0, sizeof *s);
	snprintf(s->path, sizeof s->path, "%s", path);
	s->daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL,
				     NULL, handle, s, MHD_OPTION_EXTERNAL_LOGGER, log_library, NULL, MHD_OPTION_LISTEN_SOCKET,
				     fd, MHD_OPTION_NOTIFY_CONNECTION, connected, s, MHD_OPTION_CONNECTION_LIMIT,
				     METRICS_HTTP_CONNECTIONS, MHD_OPTION_PER_IP_CONNECTION_LIMIT, METRICS_HTTP_PER_ADDRESS,
				     MHD_OPTION_CONNECTION_TIMEOUT, METRICS_HTTP_SILENT_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
				     (size_t)16384, MHD_OPTION_END);
	if (!s->daemon)
		sentence_set(error, "metrics: the HTTP server could not be started");
	return s->daemon ? s : NULL;
}

struct metrics_http *metrics_http_unix(const char *path, char **error)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof a.sun_path) {
		sentence_set(error, "metrics socket %s: the path is longer than the %zu bytes that a socket's can have", path,
			     sizeof a.sun_path - 1);
		return NULL;
	}
	memcpy(a.sun_path, path, strlen(path));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	unlink(path); // the run directory is this process' alone
	// Nobody can connect before it listens, and then it has its mode.
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) || chmod(path, 0660) || listen(fd, METRICS_HTTP_BACKLOG)) {
		sentence_set(error, "metrics socket %s: %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	return serve(fd, path, error);
}

// "127.0.0.1:9477", "[::1]:9477".
static struct addrinfo *parse(const char *address)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE},
			*found = NULL;
	char host[80];
	const char *colon = strrchr(address, ':');
	size_t n = colon ? (size_t)(colon - address) : 0;

	if (!n || n >= sizeof host)
		return NULL;
	bool brackets = n > 2 && address[0] == '[' && address[n - 1] == ']';
	snprintf(host, sizeof host, "%.*s", (int)(brackets ? n - 2 : n), address + brackets);
	hints.ai_family = brackets ? AF_INET6 : AF_INET;
	return getaddrinfo(host, colon + 1, &hints, &found) ? NULL : found;
}

struct metrics_http *metrics_http_tcp(const char *address, char **error)
{
	struct addrinfo *a = parse(address);
	int one = 1;

	if (!a) {
		sentence_set(error, "metrics-listen: \"%s\" is no address and port such as 127.0.0.1:9477 or [::1]:9477",
			     address);
		return NULL;
	}
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) || bind(fd, a->ai_addr, a->ai_addrlen) ||
	    listen(fd, METRICS_HTTP_BACKLOG)) {
		sentence_set(error, "metrics-listen: nobody gets metrics at %s: %s", address, strerror(errno));
		if (fd >= 0)
			close(fd);
		freeaddrinfo(a);
		return NULL;
	}
	freeaddrinfo(a);
	return serve(fd, "", error);
}

// Lets those go on who wait for `format` (-1: any) of `server` (NULL: any). A suspended connection doesn't end by itself, so it
// is still there when the lock isn't held any more.
static void resume(int format, const struct metrics_http *server)
{
	struct MHD_Connection *list[sizeof clients / sizeof clients[0]];
	unsigned n = 0;

	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < sizeof clients / sizeof clients[0]; i++) {
		struct client *cl = &clients[i];

		if (!cl->waits || (format >= 0 && cl->format != (enum om_format)format) || (server && cl->server != server))
			continue;
		cl->waits = false;
		list[n++] = cl->connection;
	}
	pthread_mutex_unlock(&lock);
	for (unsigned i = 0; i < n; i++)
		MHD_resume_connection(list[i]);
}

void metrics_http_close(struct metrics_http *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&lock);
	s->closing = true;
	pthread_mutex_unlock(&lock);
	resume(-1, s);
	MHD_stop_daemon(s->daemon);
	if (s->path[0])
		unlink(s->path);
	s->daemon = NULL;
}

void metrics_http_fini(void)
{
	for (unsigned f = 0; f < OM_FORMATS; f++)
		if (texts[f])
			MHD_destroy_response(texts[f]);
	memset(texts, 0, sizeof texts);
	MHD_destroy_response(index_page);
	MHD_destroy_response(not_found);
	MHD_destroy_response(not_allowed);
	MHD_destroy_response(unavailable);
}

bool metrics_http_wants(enum om_format f)
{
	return __atomic_load_n(&wanted[f], __ATOMIC_ACQUIRE);
}

void metrics_http_answer(enum om_format f, char *text, size_t len)
{
	struct MHD_Response *r = text ? MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE) : NULL, *old;

	if (r) {
		MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, om_content_type(f));
		MHD_add_response_header(r, MHD_HTTP_HEADER_CONNECTION, "close");
	} else {
		free(text);
	}
	pthread_mutex_lock(&lock);
	old = texts[f];
	texts[f] = r;
	text_ms[f] = now_ms();
	__atomic_store_n(&wanted[f], false, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&lock);
	if (old)
		MHD_destroy_response(old); // who is still being sent it keeps it
	resume((int)f, NULL);
}

void metrics_http_tick(void)
{
	if (!__atomic_load_n(&n_clients, __ATOMIC_RELAXED))
		return;
	long long now = now_ms();
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < sizeof clients / sizeof clients[0]; i++)
		if (clients[i].server && now - clients[i].since > METRICS_HTTP_WHOLE_S * 1000)
			shutdown(clients[i].fd, SHUT_RDWR); // its server notices
	pthread_mutex_unlock(&lock);
}
