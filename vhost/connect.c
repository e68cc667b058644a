// connect: makes the connections of client mode: one thread for all ports.
//
// The library's own reconnection tries once a second. Here a watch on the folder of each socket tells when a socket appears,
// and a short retry bridges the time between bind() and listen(). The library can't retry on a registration either: after a
// failed attempt it keeps the number of a closed descriptor. So an attempt is register, start and, if that fails, unregister.
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <rte_lcore.h>

#include "port.h"

#define MS UINT64_C(1000000)
#define QUICK_FOR (3000 * MS) // how long an event at the socket is followed by quick retries
#define STEP_MIN MS           // first pause of the quick retries
#define STEP_QUICK (20 * MS)  // longest pause of the quick retries
#define STEP_EACH (10 * MS)   // slow retries: this much for each port that waits, so that a hundred a second are made
#define STEP_SLOW (2000 * MS) // longest pause
#define FAULT_PAUSE (500 * MS) // before a front-end is called again that had to be sent away
#define SETTLE (5 * MS)       // before the first attempt after a connection's end
#define WATCH_FOR (IN_CREATE | IN_MOVED_TO | IN_ATTRIB | IN_ONLYDIR)

static pthread_mutex_t conn_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t conn_idle = PTHREAD_COND_INITIALIZER;
static struct port_list clients = TAILQ_HEAD_INITIALIZER(clients); // under conn_lock
static unsigned int waiting;                                       // clients that have no connection
static int watcher = -1, waker = -1;                               // inotify, eventfd

static void folder_of(const char *path, char *folder, size_t size)
{
	snprintf(folder, size, "%s", path);
	*strrchr(folder, '/') = '\0';
	if (!folder[0])
		snprintf(folder, size, "/");
}

static void wake_up(void)
{
	eventfd_write(waker, 1);
}

// Something has happened at the socket: try now and, as it may have been bind() whose listen() is still to come, soon again.
static void quicken(struct vhost_port *p, uint64_t now)
{
	p->retry_at = RTE_MAX(now, __atomic_load_n(&p->gone_at, __ATOMIC_RELAXED) + SETTLE);
	p->retry_step = STEP_MIN;
	p->quick_until = now + QUICK_FOR;
}

static void take_event(const struct inotify_event *event, uint64_t now)
{
	struct vhost_port *p;

	TAILQ_FOREACH(p, &clients, client)
	{
		if (event->mask & IN_Q_OVERFLOW) {
			quicken(p, now);
		} else if (p->watch != event->wd) {
			continue;
		} else if (event->mask & IN_IGNORED) {
			// The folder is gone: a new one of that name is found by the slow retry, which also watches it.
			p->watch = -1;
			p->retry_at = now;
		} else if (event->len && !strcmp(strrchr(p->config.path, '/') + 1, event->name)) {
			quicken(p, now);
		}
	}
}

static void read_events(uint64_t now)
{
	alignas(struct inotify_event) char buffer[4096];
	ssize_t size;

	while ((size = read(watcher, buffer, sizeof(buffer))) > 0) {
		for (char *at = buffer; at < buffer + size;) {
			const struct inotify_event *event = (const void *)at;

			take_event(event, now);
			at += sizeof(*event) + event->len;
		}
	}
}

// 0, or the reason why there is no connection, as a positive errno.
static int attempt(struct vhost_port *p)
{
	struct stat info;
	uint32_t connects;
	int status;

	// Asked first because the library logs each connect() that fails.
	if (stat(p->config.path, &info) < 0)
		return errno;
	if (!S_ISSOCK(info.st_mode))
		return ENOTSOCK;
	status = vhost_port_register(p);
	if (status < 0)
		return -status;
	pthread_mutex_lock(&p->lock);
	connects = p->connects;
	pthread_mutex_unlock(&p->lock);
	errno = 0;
	status = rte_vhost_driver_start(p->config.path) < 0 ? errno ? errno : ECONNREFUSED : 0;
	pthread_mutex_lock(&p->lock);
	// The library also says that all is well when it had no room for the connection.
	if (!status && connects == p->connects)
		status = ENOSPC;
	pthread_mutex_unlock(&p->lock);
	if (status)
		vhost_port_unregister(p);
	return status;
}

// When to try again after a failure. A missing file needs no polling, its folder is watched; a file on which nobody listens may
// be one whose owner will listen later, without an event.
static void postpone(struct vhost_port *p, int reason, uint64_t now)
{
	p->retry_at = now + p->retry_step;
	if (now < p->quick_until && reason != ENOENT)
		p->retry_step = RTE_MIN(2 * p->retry_step, STEP_QUICK);
	else if (reason == ENOENT && p->watch >= 0)
		p->retry_step = STEP_SLOW;
	else
		p->retry_step = waiting > STEP_SLOW / STEP_EACH ? STEP_SLOW : STEP_EACH * RTE_MAX(waiting, 5U);
}

// Called and left with conn_lock held; not held while the library is called.
static void try_port(struct vhost_port *p)
{
	char folder[PATH_MAX];
	bool told;
	int reason;

	if (p->watch < 0) {
		folder_of(p->config.path, folder, sizeof(folder));
		p->watch = inotify_add_watch(watcher, folder, WATCH_FOR);
	}
	p->attempting = true;
	p->down = false; // before the attempt, as the connection may end before it returns
	pthread_mutex_unlock(&conn_lock);
	vhost_port_unregister(p); // what the connection before has left
	reason = attempt(p);
	pthread_mutex_lock(&conn_lock);
	p->attempting = false;
	told = p->conn_errno == reason;
	__atomic_store_n(&p->conn_errno, reason, __ATOMIC_RELAXED);
	if (reason) {
		p->down = true;
		postpone(p, reason, vhost_clock_ns());
	}
	pthread_cond_broadcast(&conn_idle);
	if (!told)
		vhost_port_changed(p);
}

// The port that is due, or NULL and in *when the time at which one will be. Counts those that wait.
static struct vhost_port *due(uint64_t now, uint64_t *when)
{
	struct vhost_port *p, *found = NULL;

	*when = UINT64_MAX;
	waiting = 0;
	TAILQ_FOREACH(p, &clients, client)
	{
		if (!p->down)
			continue;
		waiting++;
		if (p->retry_at <= now && (!found || p->retry_at < found->retry_at))
			found = p;
		*when = RTE_MIN(*when, p->retry_at);
	}
	return found;
}

void vhost_connect_wake(void)
{
	const uint64_t one = 1;

	if (waker >= 0 && write(waker, &one, sizeof(one)) < 0)
		return; // it can only be full, and then the connector is awake
}

// Disconnects the ports in which workers have found a fault.
static void end_faulty(void)
{
	struct vhost_port *p;

	pthread_mutex_lock(&vhost_ports_lock);
	TAILQ_FOREACH(p, &vhost_ports, next)
	{
		if (__atomic_exchange_n(&p->cut_short, false, __ATOMIC_ACQ_REL))
			vhost_port_fault(p, "memory of the guest is not there: the front-end cut its file short, or the host ran "
					    "out of pages");
		else if (__atomic_exchange_n(&p->oversized, false, __ATOMIC_ACQ_REL))
			vhost_port_fault(p, "the guest sent a packet that is larger than packets can be");
		else
			continue;
		vhost_socket_hang_up(p->config.path, p->conn_fd);
	}
	pthread_mutex_unlock(&vhost_ports_lock);
}

static void *run(void *arg)
{
	struct pollfd fds[2] = {{.fd = watcher, .events = POLLIN}, {.fd = waker, .events = POLLIN}};
	uint64_t now, when, count;
	struct vhost_port *p;
	int timeout;

	for (;;) {
		end_faulty();
		pthread_mutex_lock(&conn_lock);
		for (;;) {
			now = vhost_clock_ns();
			read_events(now);
			p = due(now, &when);
			if (!p)
				break;
			try_port(p);
		}
		pthread_mutex_unlock(&conn_lock);
		timeout = when == UINT64_MAX ? -1 : (int)((when - now) / MS) + 1;
		poll(fds, RTE_DIM(fds), timeout);
		if (fds[1].revents && read(waker, &count, sizeof(count)) < 0)
			continue;
	}
	return NULL;
}

int vhost_connect_start(char **error)
{
	static bool started;
	pthread_t thread;
	int status;

	if (started)
		return 0;
	if (vhost_barrier_start() < 0) {
		*error = vhost_sentence("the vhost library can't listen in the run directory");
		return -EIO;
	}
	watcher = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	waker = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	status = watcher < 0 || waker < 0 ? errno : rte_ctrl_thread_create(&thread, "vhost-connect", NULL, run, NULL);
	if (status) {
		status = abs(status);
		*error = vhost_sentence(
			"sockets can't be watched: %s; look at the limits of open files and of inotify instances",
			strerror(status));
		close(watcher);
		close(waker);
		return -status;
	}
	started = true;
	return 0;
}

void vhost_connect_add(struct vhost_port *p)
{
	pthread_mutex_lock(&conn_lock);
	p->down = true;
	quicken(p, vhost_clock_ns());
	TAILQ_INSERT_TAIL(&clients, p, client);
	pthread_mutex_unlock(&conn_lock);
	wake_up();
}

void vhost_connect_remove(struct vhost_port *p)
{
	struct vhost_port *other;

	pthread_mutex_lock(&conn_lock);
	while (p->attempting)
		pthread_cond_wait(&conn_idle, &conn_lock);
	TAILQ_REMOVE(&clients, p, client);
	TAILQ_FOREACH(other, &clients, client)
	{
		if (other->watch == p->watch)
			break;
	}
	if (!other && p->watch >= 0)
		inotify_rm_watch(watcher, p->watch);
	pthread_mutex_unlock(&conn_lock);
}

void vhost_connect_ending(struct vhost_port *p)
{
	__atomic_store_n(&p->ending, true, __ATOMIC_RELEASE);
}

void vhost_connect_ended(struct vhost_port *p)
{
	uint64_t now = vhost_clock_ns(), pause = SETTLE;
	uint32_t doublings = RTE_MIN(p->talk.short_lived, 7U);

	__atomic_store_n(&p->gone_at, now, __ATOMIC_RELAXED);
	__atomic_store_n(&p->ending, false, __ATOMIC_RELEASE);
	if (p->config.server)
		return;
	if (p->fault[0] && now < p->fault_at + FAULT_PAUSE)
		pause = FAULT_PAUSE;
	// A front-end that leaves again and again before its driver ran would be called all the time.
	if (doublings)
		pause = RTE_MAX(pause, STEP_QUICK << (doublings - 1));
	pthread_mutex_lock(&conn_lock);
	p->down = true;
	quicken(p, now);
	p->retry_at = now + pause;
	pthread_mutex_unlock(&conn_lock);
	wake_up();
}

// The library tells of a connection's end before it has forgotten it: to unregister in between takes it, or another one that has got its
// number, down twice.
void vhost_connect_settle(struct vhost_port *p)
{
	const struct timespec nap = {.tv_nsec = 200000};

	while (__atomic_load_n(&p->ending, __ATOMIC_ACQUIRE))
		nanosleep(&nap, NULL);
	if (__atomic_exchange_n(&p->gone_at, 0, __ATOMIC_ACQ_REL))
		vhost_barrier();
}
