// capture_thread: from the workers' rings to the reader, as pcapng. See capture.h.
#include "capture_private.h"
#include "clock.h"
#include "control.h"
#include "stage.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <rte_cycles.h>

#define CONNECT_MS 10000      // a reader that doesn't come within this doesn't come
#define STUCK_MS 10000        // one that takes nothing for this long, while there is something, is given up
#define LAST_MS 2000          // the same once the switch or the capture ends
#define IDLE_MS 5             // between two looks at empty rings
#define WRITE_AT_ONCE (256 << 10)
#define SOCKET_BUFFER (4 << 20)
#define COMMENT 512 // bytes of a packet's comment

// One thread's work.
struct drain {
	struct capture *c;
	int fd;
	struct pcapng out;
	size_t sent;         // of out
	uint64_t progress_ns; // when the reader took something, or there was nothing for it
	bool broken;         // the reader is gone
};

// ---- waiting

// Until the reader can be written to (`out`) or says something, the main thread rings, or the time is over.
static void wait_ms(struct drain *d, bool out, int ms)
{
	struct pollfd p[2] = {{.fd = d->c->wake_fd, .events = POLLIN}, {.fd = d->fd, .events = (short)(out ? POLLOUT | POLLIN : POLLIN)}};
	uint64_t rung;

	if (poll(p, d->fd >= 0 ? 2 : 1, ms) > 0 && (p[0].revents & POLLIN) && read(d->c->wake_fd, &rung, sizeof rung) < 0)
		return; // somebody else took it: there is only this thread
}

static bool quits(const struct capture *c)
{
	return __atomic_load_n(&c->quit, __ATOMIC_ACQUIRE);
}

// Tells the main thread, and waits for its answer. False: the switch ends before there was one.
static bool hand_over(struct drain *d, enum capture_state mine, enum capture_state theirs)
{
	capture_set_state(d->c, mine);
	d->c->ring_main();
	while (capture_state(d->c) < (int)theirs) {
		struct pollfd p = {.fd = d->c->wake_fd, .events = POLLIN};
		uint64_t rung;

		if (mine == CAPTURE_READY && quits(d->c))
			return false;
		if (poll(&p, 1, 1000) > 0 && read(p.fd, &rung, sizeof rung) < 0)
			continue;
	}
	return true;
}

static bool accept_reader(struct drain *d)
{
	struct capture *c = d->c;
	struct pollfd p[2] = {{.fd = c->listen_fd, .events = POLLIN}, {.fd = c->wake_fd, .events = POLLIN}};
	int size = SOCKET_BUFFER;

	if (poll(p, 2, CONNECT_MS) > 0 && (p[0].revents & POLLIN))
		d->fd = accept4(c->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	close(c->listen_fd);
	c->listen_fd = -1;
	unlink(c->socket);
	if (d->fd < 0)
		return false;
	// As much as there is to be had: root may have more than the limit.
	if (setsockopt(d->fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size))
		setsockopt(d->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	return true;
}

static bool make_rings(struct capture *c)
{
	for (unsigned i = 0; i < MAX_WORKERS; i++) {
		struct capture_ring *r = c->workers >> i & 1 ? capture_ring_new(true) : NULL;

		if (!r && (c->workers >> i & 1))
			return false;
		__atomic_store_n(&c->ring[i], r, __ATOMIC_RELEASE);
	}
	return true;
}

// ---- blocks

static uint64_t wall(const struct capture *c, uint64_t tsc)
{
	return clock_ns_at(tsc) + c->wall_offset;
}

// Index of the interface that stands for the port; it is described when it is met for the first time.
static uint32_t interface_of(struct drain *d, uint16_t port)
{
	struct capture *c = d->c;

	if (c->interface_of[port])
		return c->interface_of[port] - 1;
	struct capture_interface *more = realloc(c->interface, (c->n_interfaces + 1) * sizeof *more);
	if (!more) {
		d->out.failed = true;
		return 0;
	}
	c->interface = more;
	struct capture_interface *i = &more[c->n_interfaces];
	memset(i, 0, sizeof *i);
	memcpy(i->name, c->names[port], sizeof i->name);
	pcapng_interface(&d->out, i->name, c->has_filter ? c->filter_text : NULL, c->snaplen);
	c->interface_of[port] = ++c->n_interfaces;
	return c->n_interfaces - 1;
}

// Another port may have taken a number, or a port another name: that is another interface.
static void look_at_names(struct capture *c)
{
	if (!capture_names(c->names, &c->names_seen))
		return;
	for (unsigned i = 0; i < MAX_PORTS; i++)
		if (c->interface_of[i] && strcmp(c->names[i], c->interface[c->interface_of[i] - 1].name))
			c->interface_of[i] = 0;
}

static void __attribute__((format(printf, 2, 3))) say(char text[COMMENT], const char *fmt, ...)
{
	size_t n = strlen(text);
	va_list args;

	va_start(args, fmt);
	vsnprintf(text + n, COMMENT - n, fmt, args);
	va_end(args);
}

// What is told of a packet beside its bytes: what a stage made of it, why it died, where it came from or was to go.
static const char *comment_of(const struct capture *c, const struct capture_record *k, char text[COMMENT])
{
	const struct reason *why = k->reason ? reason_get(k->reason) : NULL;
	const char *other = k->other ? c->names[k->other & (MAX_PORTS - 1)] : "";

	char row[2 * CAPTURE_NAME];

	text[0] = '\0';
	if (k->point == CAPTURE_STAGE)
		say(text, "stage %s", stage_get(k->stage)->name);
	if (why)
		say(text, "%sdropped (%s.%s): %s", text[0] ? "; " : "", why->module, why->name, why->text);
	if (k->row && row_describe(k->row, row, sizeof row))
		say(text, "; by %s", row);
	if (*other)
		say(text, "%s%s %s", text[0] ? "; " : "", k->outbound ? "from" : "to", other);
	return text[0] ? text : NULL;
}

static void write_record(struct drain *d, const struct capture_record *k)
{
	struct capture *c = d->c;
	char text[COMMENT];
	uint32_t i = interface_of(d, k->port & (MAX_PORTS - 1));
	struct pcapng_packet p = {
		.interface = i,
		.len = k->len,
		.caplen = k->caplen,
		.ns = wall(c, k->tsc),
		.outbound = k->outbound,
		.lost = k->lost,
		.data = k->data,
		.comment = comment_of(c, k, text),
	};

	pcapng_packet(&d->out, &p);
	if (d->out.failed)
		return;
	c->interface[i].captured++;
	c->interface[i].lost += k->lost;
	__atomic_store_n(&c->captured, c->captured + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&c->lost, c->lost + k->lost, __ATOMIC_RELAXED);
}

static void write_head(struct drain *d)
{
	struct capture *c = d->c;
	struct utsname u;

	uname(&u);
	c->start_ns = wall(c, rte_rdtsc());
	pcapng_section(&d->out, u.sysname, "Weir " WEIR_VERSION);
	capture_names(c->names, &c->names_seen);
	for (unsigned i = 1; i < MAX_PORTS; i++)
		if (c->names[i][0] && (!c->port || c->port == i))
			interface_of(d, (uint16_t)i);
}

// No worker writes any more: what was lost behind the last packet of a port is told here.
static void write_statistics(struct drain *d)
{
	struct capture *c = d->c;
	uint64_t now = wall(c, rte_rdtsc());

	for (unsigned w = 0; w < MAX_WORKERS; w++)
		for (unsigned port = 0; c->ring[w] && port < MAX_PORTS; port++) {
			uint32_t lost = c->ring[w]->lost[port];

			if (!lost)
				continue;
			uint32_t i = interface_of(d, (uint16_t)port);
			if (d->out.failed)
				return;
			c->interface[i].lost += lost;
			__atomic_store_n(&c->lost, c->lost + lost, __ATOMIC_RELAXED);
		}
	for (uint32_t i = 0; i < c->n_interfaces; i++)
		pcapng_statistics(&d->out, i, c->start_ns, now, c->interface[i].captured + c->interface[i].lost, c->interface[i].lost);
}

// ---- rings

// What the rings had at one moment.
struct rings {
	unsigned n;
	struct {
		struct capture_ring *ring;
		uint64_t head, tail;
	} of[MAX_WORKERS];
};

static void look(const struct capture *c, struct rings *all)
{
	all->n = 0;
	for (unsigned i = 0; i < MAX_WORKERS; i++) {
		struct capture_ring *r = __atomic_load_n(&c->ring[i], __ATOMIC_ACQUIRE);

		if (!r)
			continue;
		all->of[all->n].ring = r;
		all->of[all->n].tail = r->tail;
		all->of[all->n++].head = __atomic_load_n(&r->head, __ATOMIC_ACQUIRE);
	}
}

// The oldest record, and whose it is; NULL: nothing left.
static const struct capture_record *oldest(struct rings *all, unsigned *from)
{
	const struct capture_record *best = NULL;

	for (unsigned i = 0; i < all->n; i++) {
		const struct capture_record *k = NULL;

		while (all->of[i].tail < all->of[i].head) {
			k = (const struct capture_record *)(const void *)(all->of[i].ring->data + (all->of[i].tail & (CAPTURE_RING - 1)));
			if (k->point != CAPTURE_SKIP)
				break;
			all->of[i].tail += k->size;
			k = NULL;
		}
		if (k && (!best || k->tsc < best->tsc)) {
			best = k;
			*from = i;
		}
	}
	return best;
}

static bool enough(const struct capture *c)
{
	return c->count && c->captured >= c->count;
}

// Makes blocks of what the rings have, up to a good portion. Returns how many packets.
static unsigned drain(struct drain *d)
{
	struct capture *c = d->c;
	const struct capture_record *k;
	unsigned n = 0, from = 0;
	struct rings all;

	look(c, &all);
	look_at_names(d->c);
	while (d->out.len < WRITE_AT_ONCE && !enough(c) && !d->out.failed && (k = oldest(&all, &from))) {
		write_record(d, k);
		all.of[from].tail += k->size;
		n++;
	}
	for (unsigned i = 0; i < all.n; i++)
		__atomic_store_n(&all.of[i].ring->tail, all.of[i].tail, __ATOMIC_RELEASE);
	return n;
}

// ---- the reader

// Gives the reader as much as it takes. False: some is left.
static bool flush(struct drain *d)
{
	while (d->sent < d->out.len && !d->broken) {
		ssize_t n = send(d->fd, d->out.data + d->sent, d->out.len - d->sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return false;
		if (n < 0) {
			d->broken = true;
			break;
		}
		d->sent += (size_t)n;
		__atomic_store_n(&d->c->bytes, d->c->bytes + (uint64_t)n, __ATOMIC_RELAXED);
		d->progress_ns = clock_ns();
	}
	d->sent = d->out.len = 0;
	return true;
}

// The reader has shut its side down: it wants the end. A reader that is gone altogether shows here too.
static bool wants_end(struct drain *d)
{
	char rubbish[64];
	ssize_t n = recv(d->fd, rubbish, sizeof rubbish, MSG_DONTWAIT);

	if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
		d->broken = true;
	return n == 0 || d->broken;
}

static bool stuck(const struct drain *d, unsigned ms)
{
	return clock_ns() - d->progress_ns > ms * 1000000ULL;
}

// Why it is over, or NULL.
static const char *over(struct drain *d, uint64_t deadline_ns)
{
	struct capture *c = d->c;

	if (quits(c))
		return "the switch ended it";
	if (d->out.failed)
		return "out of memory";
	if (enough(c))
		return "it has as many packets as were wanted";
	if (deadline_ns && clock_ns() >= deadline_ns)
		return "its time was over";
	if (wants_end(d))
		return d->broken ? "its reader is gone" : "its reader ended it";
	return NULL;
}

static void pump(struct drain *d)
{
	struct capture *c = d->c;
	uint64_t deadline = c->seconds ? clock_ns() + c->seconds * 1000000000ULL : 0;

	d->progress_ns = clock_ns();
	while (!(c->why = over(d, deadline))) {
		if (!flush(d)) {
			if (stuck(d, STUCK_MS)) {
				d->broken = true;
				c->why = "its reader took nothing for 10 s";
				return;
			}
			wait_ms(d, true, 100);
			continue;
		}
		if (!drain(d)) {
			d->progress_ns = clock_ns();
			if (!d->out.len)
				wait_ms(d, false, IDLE_MS);
		}
	}
}

// What is in the rings still, and statistics. A reader that is slow now gets what it takes in time.
static void finish(struct drain *d)
{
	uint64_t give_up = clock_ns() + LAST_MS * 1000000ULL;

	d->progress_ns = clock_ns();
	for (bool last = false; !d->broken && !stuck(d, LAST_MS) && !(quits(d->c) && clock_ns() > give_up);) {
		if (!flush(d)) {
			wait_ms(d, true, 100);
		} else if (last) {
			break;
		} else if (d->out.failed || !drain(d)) {
			write_statistics(d);
			last = true;
		}
	}
}

void *capture_thread(void *arg)
{
	struct drain d = {.c = arg, .fd = -1};
	struct capture *c = arg;

	pthread_setname_np(pthread_self(), "weir-capture");
	if (!accept_reader(&d))
		c->why = "nobody came to read it";
	else if (!make_rings(c))
		c->why = "out of memory";
	else if (!hand_over(&d, CAPTURE_READY, CAPTURE_RUNS))
		c->why = "the switch ended it";
	if (!c->why) {
		write_head(&d);
		pump(&d);
		hand_over(&d, CAPTURE_ENDING, CAPTURE_ENDED);
		finish(&d);
	}
	if (d.fd >= 0)
		close(d.fd);
	free(d.out.data);
	capture_set_state(c, CAPTURE_DONE);
	c->ring_main();
	return NULL;
}
