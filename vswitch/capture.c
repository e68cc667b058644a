// capture: starts and ends captures. See capture.h.
#include "capture_private.h"
#include "clock.h"
#include "filter.h"
#include "port.h"
#include "sentence.h"
#include "stage.h"
#include "thread.h"
#include "verbs.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define RESULTS 16 // of captures that are over, for their readers to ask for
#define SNAPLEN_MAX 262144

struct result {
	unsigned id;
	uint64_t captured, lost;
	const char *why;
};

static struct capture *list[CAPTURES];
static struct captures *given; // what workers have
static struct result results[RESULTS];
static unsigned last_id;
static const char *run_folder;
static void (*ring)(void);

// Names of ports for the threads of captures.
static struct {
	pthread_mutex_t lock;
	uint32_t version;
	char name[MAX_PORTS][CAPTURE_NAME];
} ports = {.lock = PTHREAD_MUTEX_INITIALIZER, .version = 1};

// ---- names

static bool any(void)
{
	for (unsigned i = 0; i < CAPTURES; i++)
		if (list[i])
			return true;
	return false;
}

// A port that goes keeps its name here until another one gets its number: packets of it may still be in rings.
static void note_names(void)
{
	bool changed = false;

	for (unsigned i = 1; i < MAX_PORTS; i++) {
		const struct port *p = port_get((uint16_t)i);

		if (!p || !strcmp(ports.name[i], p->name))
			continue;
		pthread_mutex_lock(&ports.lock);
		snprintf(ports.name[i], CAPTURE_NAME, "%s", p->name);
		pthread_mutex_unlock(&ports.lock);
		changed = true;
	}
	if (changed)
		__atomic_store_n(&ports.version, ports.version + 1, __ATOMIC_RELEASE);
}

void capture_ports_changed(void)
{
	if (any())
		note_names();
}

bool capture_names(char (*names)[CAPTURE_NAME], uint32_t *version)
{
	uint32_t now = __atomic_load_n(&ports.version, __ATOMIC_ACQUIRE);

	if (now == *version)
		return false;
	*version = now;
	pthread_mutex_lock(&ports.lock);
	memcpy(names, ports.name, sizeof ports.name);
	pthread_mutex_unlock(&ports.lock);
	return true;
}

// ---- what workers have

static void set_captures(struct worker *w, void *arg)
{
	const struct captures *set = arg;

	w->captures = arg;
	w->capture = capture_packets;
	w->watch &= WATCH_TRACE;
	for (unsigned i = 0; set && i < set->n; i++)
		w->watch |= set->capture[i]->points * WATCH(0);
}

static bool runs(const struct capture *c)
{
	return c && capture_state(c) == CAPTURE_RUNS;
}

static void wake(struct capture *c)
{
	uint64_t one = 1;

	if (write(c->wake_fd, &one, sizeof one) < 0)
		return; // it can only be full, and then it is awake
}

static void quit(struct capture *c)
{
	__atomic_store_n(&c->quit, true, __ATOMIC_RELEASE);
	wake(c);
}

// A ring for each worker. False: there is no memory, and the capture ends.
static bool has_rings(struct capture *c)
{
	for (unsigned i = 0; i < MAX_WORKERS; i++) {
		if (!thread_worker(i) || c->ring[i])
			continue;
		// A worker that came later. Its first packets find pages that aren't there yet, and wait for the kernel.
		struct capture_ring *r = capture_ring_new(false);
		if (!r) {
			quit(c);
			return false;
		}
		__atomic_store_n(&c->ring[i], r, __ATOMIC_RELEASE);
	}
	return true;
}

// Gives the workers those captures that run, and no others; returns when all workers have done so.
static void give(void)
{
	struct captures *set = calloc(1, sizeof *set), *old = given;

	for (unsigned i = 0; set && i < CAPTURES; i++)
		if (runs(list[i]) && has_rings(list[i]))
			set->capture[set->n++] = list[i];
	if (set && !set->n) {
		free(set);
		set = NULL;
	}
	thread_call(set_captures, set);
	given = set;
	free(old);
}

// A worker that has started since.
static bool somebody_lacks_it(void)
{
	for (unsigned i = 0; given && i < MAX_WORKERS; i++) {
		const struct worker *w = thread_worker(i);

		if (w && __atomic_load_n(&w->captures, __ATOMIC_RELAXED) != given)
			return true;
	}
	return false;
}

// ---- steps

static void capture_free(struct capture *c)
{
	if (c->has_filter)
		pcap_freecode(&c->filter);
	for (unsigned i = 0; i < MAX_WORKERS; i++)
		capture_ring_free(c->ring[i]);
	if (c->listen_fd >= 0) {
		close(c->listen_fd);
		unlink(c->socket);
	}
	if (c->wake_fd >= 0)
		close(c->wake_fd);
	free(c->names);
	free(c->interface);
	free(c->filter_text);
	free(c->points_text);
	free(c->port_name);
	free(c);
}

static void step(struct capture **at)
{
	struct capture *c = *at;

	switch (capture_state(c)) {
	case CAPTURE_READY:
		capture_set_state(c, CAPTURE_RUNS);
		give();
		wake(c);
		break;
	case CAPTURE_ENDING:
		give(); // without it: it doesn't run any more
		capture_set_state(c, CAPTURE_ENDED);
		wake(c);
		break;
	case CAPTURE_DONE:
		pthread_join(c->thread, NULL);
		log_line('i', "capture", "capture %u is over: %s; %llu packets, %llu lost", c->id, c->why, (unsigned long long)c->captured,
			 (unsigned long long)c->lost);
		results[c->id % RESULTS] = (struct result){c->id, c->captured, c->lost, c->why};
		*at = NULL;
		capture_free(c);
		break;
	default:
		break;
	}
}

bool capture_run(void)
{
	for (unsigned i = 0; i < CAPTURES; i++)
		if (list[i])
			step(&list[i]);
	if (somebody_lacks_it())
		give();
	return any();
}

void capture_stop_all(void)
{
	struct timespec pause = {.tv_nsec = 1000000};

	for (unsigned i = 0; i < CAPTURES; i++)
		if (list[i])
			quit(list[i]);
	while (capture_run())
		nanosleep(&pause, NULL);
}

// ---- start

// "rx,tx,drop,stage:mtu".
static void read_points(struct capture *c, const char *text, char **error)
{
	static const char *const names[] = {[CAPTURE_RX] = "rx", [CAPTURE_TX] = "tx", [CAPTURE_DROP] = "drop"};
	char *copy = strdup(text), *save = NULL;

	for (char *word = copy ? strtok_r(copy, ",", &save) : NULL; word && !*error; word = strtok_r(NULL, ",", &save)) {
		unsigned known = 0;
		const struct stage *s = !strncmp(word, "stage:", 6) ? stage_find(word + 6) : NULL;

		for (unsigned i = 0; i < CAPTURE_STAGE; i++)
			if (!strcmp(word, names[i]))
				known = 1u << i;
		if (s && !s->run)
			sentence_set(error, "stage %s decides once for a flow and never sees its packets: capture at rx, tx or drop, or use trace", s->name);
		else if (s)
			c->stages |= 1ULL << s->index;
		else if (!strncmp(word, "stage:", 6))
			sentence_set(error, "there is no stage %s", word + 6);
		else if (!known)
			sentence_set(error, "--point is rx, tx, drop or stage:NAME, not \"%s\"", word);
		c->points |= s ? 1u << CAPTURE_STAGE : known;
	}
	free(copy);
}

static uint64_t read_number(const char *name, const char *text, uint64_t max, char **error)
{
	char *end;
	unsigned long long n = text ? strtoull(text, &end, 10) : 0;

	if (text && (*text < '0' || *text > '9' || *end || !n || n > max))
		sentence_set(error, "--%s wants a number from 1 to %llu, not \"%s\"", name, (unsigned long long)max, text);
	return n;
}

// The reader's way to it, for those who may use the control socket.
static void open_socket(struct capture *c, char **error)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int n = snprintf(c->socket, sizeof c->socket, "%s/capture.%u", run_folder, c->id);

	if (n < 0 || (size_t)n >= sizeof a.sun_path) {
		sentence_set(error, "the run directory's name is too long for a socket in it");
		return;
	}
	memcpy(a.sun_path, c->socket, (size_t)n);
	unlink(c->socket); // left over from a switch that was killed
	c->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	// The mode is that of the file from the first moment on.
	if (c->listen_fd < 0 || fchmod(c->listen_fd, 0600) || bind(c->listen_fd, (struct sockaddr *)&a, sizeof a) || listen(c->listen_fd, 1))
		sentence_set(error, "socket %s: %s", c->socket, strerror(errno));
}

static void core_taken(const struct thread_view *v, void *arg)
{
	if (v->core >= 0)
		CPU_CLR((unsigned)v->core, (cpu_set_t *)arg);
}

// Beside the workers, if there is room.
static int start_thread(struct capture *c)
{
	pthread_attr_t attr;
	cpu_set_t set;

	pthread_attr_init(&attr);
	if (!sched_getaffinity(0, sizeof set, &set)) {
		thread_view_each(core_taken, &set);
		if (CPU_COUNT(&set))
			pthread_attr_setaffinity_np(&attr, sizeof set, &set);
	}
	int rc = pthread_create(&c->thread, &attr, capture_thread, c);
	pthread_attr_destroy(&attr);
	return rc;
}

static uint64_t wall_offset(void)
{
	struct timespec wall;

	clock_gettime(CLOCK_REALTIME, &wall);
	return (uint64_t)wall.tv_sec * 1000000000ULL + (uint64_t)wall.tv_nsec - clock_ns();
}

static void read_options(struct capture *c, int *argc, const char *argv[], char **error)
{
	const char *port = verbs_take_option(argc, argv, "port", error), *filter = verbs_take_option(argc, argv, "filter", error);
	const struct port *p = port ? port_find(port) : NULL;
	struct buf points = {0};

	c->count = read_number("count", verbs_take_option(argc, argv, "count", error), UINT64_MAX, error);
	c->snaplen = (uint32_t)read_number("snaplen", verbs_take_option(argc, argv, "snaplen", error), SNAPLEN_MAX, error);
	c->seconds = read_number("seconds", verbs_take_option(argc, argv, "seconds", error), 1000000, error);
	if (!c->snaplen)
		c->snaplen = SNAPLEN_MAX;
	for (const char *word; !*error && (word = verbs_take_option(argc, argv, "point", error));) {
		read_points(c, word, error);
		buf_add(&points, "%s%s", points.len ? "," : "", word);
	}
	if (!c->points)
		read_points(c, "rx,tx", error);
	c->points_text = points.text ? points.text : strdup("rx,tx");
	if (*argc > 1)
		sentence_set(error, "capture doesn't know \"%s\": it takes --port, --point, --filter, --count, --snaplen and --seconds", argv[1]);
	if (port && !p)
		sentence_set(error, "there is no port %s", port);
	c->port = p ? p->id : 0;
	c->port_name = port ? strdup(port) : NULL;
	if (!*error && filter)
		c->has_filter = !filter_compile(&c->filter, filter, error);
	c->filter_text = filter ? strdup(filter) : NULL;
}

static struct capture *capture_new(int *argc, const char *argv[], char **error)
{
	struct capture *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->listen_fd = -1;
	c->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	c->names = calloc(MAX_PORTS, sizeof *c->names);
	c->ring_main = ring;
	c->wall_offset = wall_offset();
	for (unsigned i = 0; i < MAX_WORKERS; i++)
		if (thread_worker(i))
			c->workers |= 1ULL << i;
	read_options(c, argc, argv, error);
	c->id = ++last_id;
	if (!*error)
		open_socket(c, error);
	if (*error || c->wake_fd < 0 || !c->names || !c->points_text) {
		capture_free(c);
		return NULL;
	}
	return c;
}

static void capture_start(struct control_request *r, int argc, const char *argv[], void *aux)
{
	char *error = NULL, text[160];
	struct capture *c = NULL;
	unsigned at = 0;

	while (at < CAPTURES && list[at])
		at++;
	if (!INSTRUMENTS)
		sentence_set(&error, "this switch was built without instruments");
	else if (at == CAPTURES)
		sentence_set(&error, "%d captures are running already: end one of them first (weirctl capture list)", CAPTURES);
	else
		c = capture_new(&argc, argv, &error);
	if (c)
		note_names();
	if (c && start_thread(c)) {
		sentence_set(&error, "there is no thread to be had");
		capture_free(c);
		c = NULL;
	}
	if (!c) {
		verbs_refuse(r, "%s", error ? error : "out of memory");
		free(error);
		return;
	}
	list[at] = c;
	log_line('i', "capture", "capture %u: %s of %s, filter \"%s\"", c->id, c->points_text, c->port_name ? c->port_name : "all ports",
		 c->filter_text ? c->filter_text : "");
	snprintf(text, sizeof text, "%u\n%s\n", c->id, strrchr(c->socket, '/') + 1);
	control_reply(r, text);
}

// ---- questions

static void capture_result(struct control_request *r, int argc, const char *argv[], void *aux)
{
	unsigned id = (unsigned)strtoul(argv[1], NULL, 10);
	struct result found = {0};
	char text[160];

	for (unsigned i = 0; i < CAPTURES; i++)
		if (list[i] && list[i]->id == id)
			found = (struct result){id, __atomic_load_n(&list[i]->captured, __ATOMIC_RELAXED),
						__atomic_load_n(&list[i]->lost, __ATOMIC_RELAXED), list[i]->why};
	if (!found.id && id && results[id % RESULTS].id == id)
		found = results[id % RESULTS];
	if (!found.id) {
		verbs_refuse(r, "there is no capture %s", argv[1]);
		return;
	}
	snprintf(text, sizeof text, "%llu packets captured, %llu lost by the capture: %s\n", (unsigned long long)found.captured,
		 (unsigned long long)found.lost, found.why ? found.why : "it is running");
	control_reply(r, text);
}

static void capture_list(struct control_request *r, int argc, const char *argv[], void *aux)
{
	static const char *const columns[][2] = {{"capture", "CAPTURE"}, {"points", "POINTS"}, {"port", "PORT"}, {"filter", "FILTER"},
						 {"captured", "CAPTURED"}, {"lost", "LOST"}, {"bytes", "BYTES"}, {"running", "RUNNING"}};
	bool json = verbs_take_json(&argc, argv);
	struct listing *l = listing_new();

	for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
		listing_column(l, columns[i][0], columns[i][1]);
	for (unsigned i = 0; i < CAPTURES; i++) {
		const struct capture *c = list[i];

		if (!c)
			continue;
		listing_row(l);
		listing_uint(l, c->id);
		listing_str(l, c->points_text);
		listing_str(l, c->port_name);
		listing_str(l, c->filter_text);
		listing_uint(l, __atomic_load_n(&c->captured, __ATOMIC_RELAXED));
		listing_uint(l, __atomic_load_n(&c->lost, __ATOMIC_RELAXED));
		listing_uint(l, __atomic_load_n(&c->bytes, __ATOMIC_RELAXED));
		listing_bool(l, runs(c));
	}
	char *text = listing_render(l, json);
	listing_free(l);
	control_reply(r, text ? text : "");
	free(text);
}

void capture_init(const char *rundir, void (*ring_main)(void))
{
	run_folder = rundir;
	ring = ring_main;
	control_register("capture/start",
			 "[--port PORT] [--point rx|tx|drop|stage:NAME]... [--filter EXPRESSION] [--count N] [--snaplen N] [--seconds N]", 0, 64,
			 capture_start, NULL);
	control_register("capture/result", "ID", 1, 1, capture_result, NULL);
	control_register("capture/list", "[--json]", 0, 1, capture_list, NULL);
}
