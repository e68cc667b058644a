// port: opening and closing of vhost-user ports, and their registration with the vhost library.
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <rte_errno.h>
#include <rte_log.h>

#include "port.h"

// The library polls 1,024 descriptors with one thread (MAX_FDS): a pipe of its own, one for each connection and one for each
// listening socket.
#define LIBRARY_DESCRIPTORS 1020

#define BIT(n) (1ULL << (n))
#define TSO_BITS                                                                                                               \
	(BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) | BIT(VIRTIO_NET_F_GUEST_TSO4) |                            \
	 BIT(VIRTIO_NET_F_GUEST_TSO6))
#define CSUM_BITS (BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM))
// Never offered. UFO: a UDP datagram in pieces that nobody else can send. ECN: the library drops that mark from a segmented
// packet, and CWR would be repeated in each segment (RFC 3168 section 6.1.2). GSO: the legacy bit that promises both.
#define NEVER_BITS                                                                                                             \
	(BIT(VIRTIO_NET_F_HOST_UFO) | BIT(VIRTIO_NET_F_GUEST_UFO) | BIT(VIRTIO_NET_F_HOST_ECN) | BIT(VIRTIO_NET_F_GUEST_ECN) | \
	 BIT(VIRTIO_NET_F_GSO))

struct port_list vhost_ports = TAILQ_HEAD_INITIALIZER(vhost_ports);
pthread_mutex_t vhost_ports_lock = PTHREAD_MUTEX_INITIALIZER;

uint64_t vhost_clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * UINT64_C(1000000000) + now.tv_nsec;
}

char *vhost_sentence(const char *format, ...)
{
	va_list args;
	char *text;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	va_end(args);
	return text;
}

void vhost_port_changed(struct vhost_port *p)
{
	if (p->hooks.changed)
		p->hooks.changed(p->hooks.arg);
}

void vhost_port_fault(struct vhost_port *p, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	pthread_mutex_lock(&p->lock);
	vsnprintf(p->fault, sizeof(p->fault), format, args);
	p->fault_at = vhost_clock_ns();
	pthread_mutex_unlock(&p->lock);
	va_end(args);
	vhost_port_changed(p);
}

static uint64_t bits_withheld(const struct vhost_config *config)
{
	uint64_t bits = NEVER_BITS;

	if (!config->csum)
		bits |= CSUM_BITS;
	if (!config->csum || !config->tso)
		bits |= TSO_BITS;
	if (!config->packed)
		bits |= BIT(VIRTIO_F_RING_PACKED);
	if (config->queues == 1)
		bits |= BIT(VIRTIO_NET_F_MQ);
	return bits;
}

int vhost_port_register(struct vhost_port *p)
{
	uint64_t flags = RTE_VHOST_USER_NET_COMPLIANT_OL_FLAGS;
	const char *path = p->config.path;

	if (!p->config.server)
		flags |= RTE_VHOST_USER_CLIENT | RTE_VHOST_USER_NO_RECONNECT;
	if (rte_vhost_driver_register(path, flags) < 0)
		return -ENOSPC;
	p->registered = true;
	if (rte_vhost_driver_disable_features(path, bits_withheld(&p->config)) < 0 ||
	    rte_vhost_driver_get_features(path, &p->offered) < 0 ||
	    rte_vhost_driver_callback_register(path, &vhost_device_ops) < 0) {
		vhost_port_unregister(p);
		return -EIO;
	}
	return 0;
}

void vhost_port_unregister(struct vhost_port *p)
{
	if (!p->registered)
		return;
	vhost_connect_settle(p);
	rte_vhost_driver_unregister(p->config.path);
	vhost_device_forget(p);
	p->registered = false;
}

static void free_port(struct vhost_port *p)
{
	for (unsigned int q = 0; q < VHOST_MAX_QUEUES; q++) {
		if (p->kick[q] >= 0)
			close(p->kick[q]);
	}
	pthread_mutex_destroy(&p->mem_lock);
	pthread_mutex_destroy(&p->dev_lock);
	pthread_mutex_destroy(&p->lock);
	free((char *)p->config.name);
	free((char *)p->config.path);
	free((char *)p->config.owner);
	free((char *)p->config.group);
	free((char *)p->config.rings);
	vhost_rings_close(p);
	free(p);
}

static char *copy(const char *text)
{
	return text ? strdup(text) : NULL;
}

static void copy_config(struct vhost_config *to, const struct vhost_config *from)
{
	*to = *from;
	to->name = copy(from->name);
	to->path = copy(from->path);
	to->owner = copy(from->owner);
	to->group = copy(from->group);
	to->rings = copy(from->rings);
}

static struct vhost_port *new_port(const struct vhost_config *config, const struct vhost_hooks *hooks)
{
	struct vhost_port *p = aligned_alloc(alignof(struct vhost_port), sizeof(*p));

	if (!p)
		return NULL;
	memset(p, 0, sizeof(*p));
	copy_config(&p->config, config);
	if (hooks)
		p->hooks = *hooks;
	p->vid = p->conn_vid = p->conn_fd = p->watch = p->numa_node = -1;
	for (unsigned int q = 0; q < VHOST_MAX_QUEUES; q++)
		p->kick[q] = -1;
	for (unsigned int q = 0; q < VHOST_MAX_QUEUES; q++)
		rte_spinlock_init(&p->tx_lock[q]);
	pthread_mutex_init(&p->mem_lock, NULL);
	pthread_mutex_init(&p->dev_lock, NULL);
	pthread_mutex_init(&p->lock, NULL);
	return p;
}

// Whether one more port goes in beside those that are open.
static int check_others(const struct vhost_config *config, char **error)
{
	unsigned int descriptors = config->server ? 2 : 1;
	struct vhost_port *p;

	TAILQ_FOREACH(p, &vhost_ports, next)
	{
		if (!strcmp(p->config.path, config->path)) {
			*error = vhost_sentence("%s is the socket of port %s already: give each port its own", config->path,
						p->config.name);
			return -EEXIST;
		}
		descriptors += p->config.server ? 2 : 1;
	}
	if (descriptors > LIBRARY_DESCRIPTORS) {
		*error = vhost_sentence("the vhost library serves %u connections and listening sockets at most: remove another "
					"vhost-user port%s",
					LIBRARY_DESCRIPTORS, config->server ? " or let QEMU listen" : "");
		return -ENOSPC;
	}
	return 0;
}

static int check(const struct vhost_config *config, char **error)
{
	int status = vhost_socket_check_path(config->path, error);

	if (status < 0)
		return status;
	if (config->queues < 1 || config->queues > VHOST_MAX_QUEUES) {
		*error = vhost_sentence("%u queue pairs can't be offered: choose 1 to %u", config->queues, VHOST_MAX_QUEUES);
		return -EINVAL;
	}
	return check_others(config, error);
}

static int listen_at(struct vhost_port *p, char **error)
{
	char folder[PATH_MAX];
	int status = vhost_socket_clear_stale(p->config.path, error);

	if (status < 0)
		return status;
	snprintf(folder, sizeof(folder), "%s", p->config.path);
	*(strrchr(folder, '/') + 1) = '\0';
	if (access(folder, W_OK | X_OK) < 0) {
		*error = vhost_sentence("no socket can be made in %s: %s", folder, strerror(errno));
		return -errno;
	}
	status = vhost_port_register(p);
	if (status < 0) {
		*error = vhost_sentence("the vhost library takes no more sockets: remove another vhost-user port");
		return status;
	}
	errno = 0;
	if (rte_vhost_driver_start(p->config.path) < 0) {
		status = errno ? -errno : -EIO;
		*error = vhost_sentence("can't listen on %s: %s", p->config.path, strerror(-status));
	} else {
		status = vhost_socket_set_access(&p->config, error);
	}
	if (status < 0)
		vhost_port_unregister(p);
	return status;
}

// The library tells of each message that it reads; what matters of it is in the port's status.
static void quieten(void)
{
	static bool done;

	if (!done)
		rte_log_set_level_pattern("lib.vhost.config", RTE_LOG_ERR);
	done = true;
}

int vhost_open(const struct vhost_config *config, const struct vhost_hooks *hooks, struct vhost_port **out, char **error)
{
	struct vhost_port *p;
	int status;

	*out = NULL;
	*error = NULL;
	status = check(config, error);
	if (status < 0)
		return status;
	quieten();
	status = vhost_connect_start(error);
	if (status < 0)
		return status;
	status = vhost_sigbus_start();
	if (status < 0)
		return status;
	p = new_port(config, hooks);
	if (!p)
		return -ENOMEM;
	status = vhost_rings_open(p, error);
	if (status < 0) {
		free_port(p);
		return status;
	}
	pthread_mutex_lock(&vhost_ports_lock);
	TAILQ_INSERT_TAIL(&vhost_ports, p, next);
	pthread_mutex_unlock(&vhost_ports_lock);
	if (!config->server) {
		vhost_connect_add(p);
	} else if ((status = listen_at(p, error)) < 0) {
		pthread_mutex_lock(&vhost_ports_lock);
		TAILQ_REMOVE(&vhost_ports, p, next);
		pthread_mutex_unlock(&vhost_ports_lock);
		free_port(p);
		return status;
	}
	*out = p;
	return 0;
}

static bool same(const char *a, const char *b)
{
	return a == b || (a && b && !strcmp(a, b));
}

int vhost_reconfigure(struct vhost_port *p, const struct vhost_config *config, char **error)
{
	const struct vhost_config *now = &p->config;
	struct vhost_config old = p->config;
	int status;

	*error = NULL;
	if (!same(now->path, config->path) || now->server != config->server || now->queues != config->queues ||
	    now->packed != config->packed || now->csum != config->csum || now->tso != config->tso)
		return -ENOTSUP;
	if (config->server && (status = vhost_socket_set_access(config, error)) < 0)
		return status;
	// The path stays where it is: other threads read it. Name, owner and group are the main thread's.
	p->config.name = copy(config->name);
	p->config.owner = copy(config->owner);
	p->config.group = copy(config->group);
	p->config.mode = config->mode;
	free((char *)old.name);
	free((char *)old.owner);
	free((char *)old.group);
	return 0;
}

void vhost_close(struct vhost_port *p)
{
	if (!p)
		return;
	if (!p->config.server)
		vhost_connect_remove(p);
	__atomic_store_n(&p->closing, true, __ATOMIC_RELEASE);
	vhost_port_unregister(p);
	pthread_mutex_lock(&vhost_ports_lock);
	TAILQ_REMOVE(&vhost_ports, p, next);
	pthread_mutex_unlock(&vhost_ports_lock);
	free_port(p);
}
