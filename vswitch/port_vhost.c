// port_vhost: ports of type vhost-user.
#include "offload.h"
#include "port.h"
#include "sentence.h"
#include "vhost.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_ROOM 512

// `path` is where the socket's path is written if it isn't given, `rings` where that of the file for packed rings is.
static int read_options(const struct port_open *o, struct vhost_config *c, char *path, char *rings, size_t room, char **error)
{
	const struct config_map *m = &o->config->options;
	const char *bad = NULL, *mode = config_map_get(m, "mode", "client"), *bits = config_map_get(m, "permissions", NULL);
	int n = snprintf(path, room, "%s/%s.sock", o->rundir, o->config->name);

	*c = (struct vhost_config){
		.name = o->config->name,
		.path = config_map_get(m, "path", path),
		.server = !strcmp(mode, "server"),
		.owner = config_map_get(m, "owner", NULL),
		.group = config_map_get(m, "group", NULL),
		.queues = (uint16_t)config_map_uint(m, "queues", 1, 1, VHOST_MAX_QUEUES, &bad),
		.packed = config_map_bool(m, "packed", false),
		.csum = config_map_bool(m, "csum", true),
		.tso = config_map_bool(m, "tso", true),
	};
	if (bad)
		return sentence_fail(-EINVAL, error, "options: %s must be a number from 1 to %d", bad, VHOST_MAX_QUEUES);
	if (strcmp(mode, "client") && strcmp(mode, "server"))
		return sentence_fail(-EINVAL, error, "options: mode must be client or server, not \"%s\"", mode);
	if (n < 0 || (size_t)n >= room || strlen(c->path) >= 108)
		return sentence_fail(-EINVAL, error, "options: path is longer than the 107 bytes that a Unix socket may have");
	if (c->path[0] != '/')
		return sentence_fail(-EINVAL, error, "options: path must be absolute, not \"%s\"", c->path);
	if (bits) {
		char *end;
		unsigned long v = strtoul(bits, &end, 8);

		if (*end || !*bits || v > 0777)
			return sentence_fail(-EINVAL, error, "options: permissions must be octal, such as 660, not \"%s\"", bits);
		c->mode = (mode_t)v;
	}
	if (!c->csum)
		c->tso = false;
	if (c->packed) {
		snprintf(rings, room, "%s/rings", o->rundir);
		if (mkdir(rings, 0700) && errno != EEXIST)
			return sentence_fail(-EIO, error, "%s, which keeps the places in packed rings, can't be made: %s", rings, strerror(errno));
		if (vhost_rings_path(o->rundir, c->name, rings, room))
			return sentence_fail(-EIO, error, "the name is too long for a file in %s/rings", o->rundir);
		c->rings = rings;
	}
	return 0;
}

static int open_port(const struct port_open *o, void **dev, char **error)
{
	struct vhost_hooks hooks = {.changed = o->changed, .quiesce = o->quiesce, .arg = o->arg};
	struct vhost_config c;
	char path[PATH_ROOM], rings[PATH_ROOM];
	int rc = read_options(o, &c, path, rings, sizeof path, error);

	return rc ? rc : vhost_open(&c, &hooks, (struct vhost_port **)dev, error);
}

static int reconfigure_port(void *dev, const struct port_open *o, char **error)
{
	struct vhost_config c;
	char path[PATH_ROOM], rings[PATH_ROOM];
	int rc = read_options(o, &c, path, rings, sizeof path, error);

	return rc ? rc : vhost_reconfigure(dev, &c, error);
}

static void close_port(void *dev)
{
	vhost_close(dev);
}

static void forget_port(const char *rundir, const char *name)
{
	char path[PATH_ROOM];

	if (!vhost_rings_path(rundir, name, path, sizeof path))
		unlink(path);
}

static __attribute__((format(printf, 3, 4))) void add(struct port_state *s, const char *key, const char *fmt, ...)
{
	va_list args;

	if (s->n_status == sizeof s->status / sizeof s->status[0])
		return;
	snprintf(s->status[s->n_status].key, sizeof s->status[0].key, "%s", key);
	va_start(args, fmt);
	vsnprintf(s->status[s->n_status++].value, sizeof s->status[0].value, fmt, args);
	va_end(args);
}

static void state_of(void *dev, struct port_state *s)
{
	struct vhost_status v;

	vhost_status(dev, &v);
	s->link_up = v.running;
	s->numa_node = v.numa_node;
	snprintf(s->problem, sizeof s->problem, "%s", v.problem);
	s->loss[LOSS_RX_BAD] = v.rx_bad_unknown ? LOSS_UNKNOWN : v.rx_bad + v.rx_errors;
	add(s, "connected", "%s", v.connected ? "true" : "false");
	add(s, "driver", "%s", v.running ? v.virtio_net_legacy ? "legacy" : "ready" : "not ready");
	add(s, "features", "0x%llx", (unsigned long long)v.features);
	add(s, "packed", "%s", v.features & 1ULL << VIRTIO_F_RING_PACKED ? "true" : "false");
	add(s, "rx_queues", "%u", v.rx_queues);
	add(s, "tx_queues", "%u", v.tx_queues);
	add(s, "numa_node", "%d", v.numa_node);
	add(s, "connects", "%u", v.connects);
	if (v.refused)
		add(s, "refused", "%u", v.refused);
	if (v.mtu)
		add(s, "guest_mtu", "%u", v.mtu);
	s->guest_mtu = v.mtu;
}

static int room(void *dev, uint16_t q)
{
	return vhost_tx_room(dev, q);
}

static int rx_fd(void *dev, uint16_t q)
{
	return vhost_rx_fd(dev, q);
}

static uint32_t rx_queues(void *dev)
{
	return vhost_rx_enabled(dev);
}

static uint32_t tx_queues(void *dev)
{
	return vhost_tx_enabled(dev);
}

static unsigned caps(void *dev)
{
	uint64_t f = vhost_features(dev);
	unsigned c = OFFLOAD_MULTISEG;

	if (f & 1ULL << VIRTIO_NET_F_GUEST_CSUM)
		c |= OFFLOAD_CSUM;
	if (f & 1ULL << VIRTIO_NET_F_GUEST_TSO4)
		c |= OFFLOAD_TSO4;
	if (f & 1ULL << VIRTIO_NET_F_GUEST_TSO6)
		c |= OFFLOAD_TSO6;
	return c;
}

static uint16_t rx(void *dev, uint16_t q, struct rte_mempool *pool, struct rte_mbuf **m, uint16_t n)
{
	return vhost_rx(dev, q, pool, m, n);
}

static uint16_t tx(void *dev, uint16_t q, unsigned worker, struct rte_mbuf **m, uint16_t n)
{
	return vhost_tx(dev, q, m, n);
}

static int rx_arm(void *dev, uint16_t q, bool on)
{
	return vhost_rx_arm(dev, q, on);
}

const struct port_ops port_ops_vhost = {
	.type = "vhost-user",
	.open = open_port,
	.reconfigure = reconfigure_port,
	.close = close_port,
	.forget = forget_port,
	.state = state_of,
	.room = room,
	.rx_fd = rx_fd,
	.rx_queues = rx_queues,
	.tx_queues = tx_queues,
	.caps = caps,
	.rx = rx,
	.tx = tx,
	.rx_arm = rx_arm,
	.guest = true,
};
