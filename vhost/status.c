// status: says of a port what it is and, in words, why no traffic passes.
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "port.h"

#define SECOND UINT64_C(1000000000)
#define ANSWERED (SECOND / 10) // a request that is not done by then has failed: the library doesn't say so
#define NOT_SHARED "memory not shared: the front-end %s; start it with a memory backend that has share=on"
#define FAULT_SHOWN (10 * SECOND) // of a device that runs again
#define STUCK (3 * SECOND) // longer than a worker may be held up by other programs, as a rule
#define FLEETING 3 // connections in a row that end before the driver ran are no accident any more

struct feature {
	unsigned int bit;
	const char *name;
};

// virtio 1.2 sections 5.1.3 and 6; names as there, without VIRTIO_NET_F_ and VIRTIO_F_.
static const struct feature features[] = {
	{0, "CSUM"},         {1, "GUEST_CSUM"}, {2, "CTRL_GUEST_OFFLOADS"}, {3, "MTU"},         {5, "MAC"},
	{7, "GUEST_TSO4"},   {8, "GUEST_TSO6"}, {9, "GUEST_ECN"},           {10, "GUEST_UFO"},  {11, "HOST_TSO4"},
	{12, "HOST_TSO6"},   {13, "HOST_ECN"},  {14, "HOST_UFO"},           {15, "MRG_RXBUF"},  {16, "STATUS"},
	{17, "CTRL_VQ"},     {22, "MQ"},        {28, "INDIRECT_DESC"},      {29, "EVENT_IDX"},  {33, "ACCESS_PLATFORM"},
	{34, "RING_PACKED"}, {35, "IN_ORDER"},  {54, "GUEST_USO4"},         {55, "GUEST_USO6"}, {56, "HOST_USO"},
	{57, "HASH_REPORT"}, {60, "RSS"},
};

static void name_features(uint64_t bits, char *buffer, size_t size)
{
	size_t at = 0;

	buffer[0] = '\0';
	for (unsigned int i = 0; i < RTE_DIM(features) && at < size; i++) {
		if (bits >> features[i].bit & 1)
			at += snprintf(buffer + at, size - at, "%s%s", at ? ", " : "", features[i].name);
	}
	if (!at)
		snprintf(buffer, size, "bits 0x%lx", bits);
}

static void say_refused(uint64_t bits, char *buffer, size_t size)
{
	char names[100];

	name_features(bits, names, sizeof(names));
	snprintf(buffer, size,
		 "features refused: the front-end wants %s, which this port does not offer; switch it on for the port, or off "
		 "in the front-end",
		 names);
}

static void say_fault(const struct vhost_port *p, char *buffer, size_t size)
{
	snprintf(buffer, size, "disconnected: %s; look at what runs behind %.40s", p->fault, p->config.path);
}

static void say_disconnected(struct vhost_port *p, char *buffer, size_t size)
{
	int reason = __atomic_load_n(&p->conn_errno, __ATOMIC_RELAXED);
	const struct negotiation *t = &p->talk;
	const char *path = p->config.path;
	char access[120];

	if (p->fault[0]) {
		say_fault(p, buffer, size);
	} else if (t->refused || t->before_bits) {
		say_refused(t->refused ? t->refused : t->before_bits, buffer, size);
	} else if (t->failed == REQ_SET_MEM_TABLE || t->before == REQ_SET_MEM_TABLE) {
		snprintf(buffer, size, NOT_SHARED, "offered memory that can't be mapped");
	} else if (t->short_lived >= FLEETING && !reason) {
		snprintf(buffer, size,
			 "features refused: the front-end at %s left %u times before its driver started; does it want features "
			 "or more than %u "
			 "queue pairs?",
			 path, t->short_lived, p->config.queues);
	} else if (p->config.server) {
		snprintf(buffer, size, "not connected: no front-end has connected to %s", path);
	} else if (reason == EACCES || reason == EPERM) {
		vhost_socket_describe_access(path, access, sizeof(access));
		snprintf(buffer, size, "permission denied: %s %s; give the switch's user write access", path, access);
	} else if (reason == ENOENT || reason == ENOTDIR) {
		snprintf(buffer, size, "not connected: %s does not exist; is the VM started?", path);
	} else if (reason == ECONNREFUSED) {
		snprintf(buffer, size, "not connected: nobody listens on %s; it may be left over from a process that ended",
			 path);
	} else if (reason == ENOTSOCK) {
		snprintf(buffer, size, "not connected: %s is not a socket", path);
	} else if (reason == ENOSPC) {
		snprintf(
			buffer, size,
			"not connected: the vhost library has no room for one more connection; remove another vhost-user port");
	} else if (reason) {
		snprintf(buffer, size, "not connected: %s: %s", path, strerror(reason));
	} else {
		snprintf(buffer, size, "not connected: connecting to %s", path);
	}
}

// Connected, but the device isn't there: which step is missing? A front-end that was refused connects again and again, so until
// it gets further than that the reason of the refusal stays.
static void say_unready(const struct negotiation *t, uint64_t now, char *buffer, size_t size)
{
	const uint32_t failed = t->pending && now > t->asked + ANSWERED ? t->pending : t->failed;
	const uint64_t done = t->done;

	if (t->refused)
		say_refused(t->refused, buffer, size);
	else if (failed == REQ_SET_MEM_TABLE)
		snprintf(buffer, size, NOT_SHARED, "offered memory that can't be mapped");
	else if (!(done >> REQ_SET_FEATURES & 1) && t->before_bits)
		say_refused(t->before_bits, buffer, size);
	else if (!(done >> REQ_SET_FEATURES & 1) && t->before == REQ_SET_MEM_TABLE)
		snprintf(buffer, size, NOT_SHARED, "offered memory that can't be mapped");
	else if (!(done >> REQ_SET_FEATURES & 1))
		snprintf(buffer, size,
			 "guest driver not ready: it has not started; is the guest still booting, or without virtio-net?");
	else if (!(done >> REQ_SET_MEM_TABLE & 1) && now > t->progress + SECOND)
		snprintf(buffer, size, NOT_SHARED, "has not shared the guest's memory");
	else if (!(done >> REQ_SET_MEM_TABLE & 1))
		snprintf(buffer, size, "guest driver not ready: features are agreed, the memory is not shared yet");
	else if (failed)
		snprintf(buffer, size, "guest driver not ready: request %u of the front-end failed", failed);
	else if (!(done >> REQ_SET_VRING_KICK & 1))
		snprintf(buffer, size, "guest driver not ready: its queues are not set up yet");
	else if (!(done >> REQ_SET_VRING_ENABLE & 1))
		snprintf(buffer, size, "guest driver not ready: its queues are not enabled yet");
	else
		snprintf(buffer, size,
			 "guest driver not ready: one of its first two queues is not enabled, or the driver has not said that "
			 "it is ready");
}

// Kicks that nobody has taken off the descriptor yet. Reading it would take them from a worker that waits.
static unsigned int kicks_pending(int fd)
{
	char path[40], line[80];
	unsigned int count = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "re");
	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file) && sscanf(line, "eventfd-count: %x", &count) != 1)
		;
	fclose(file);
	return count;
}

// A guest that kicks although its rings never hold anything writes to memory that is not what was mapped. QEMU kicks once by
// itself when the driver starts.
static bool kicks_nothing(struct vhost_port *p)
{
	uint32_t on = vhost_rx_enabled(p) & __atomic_load_n(&p->kick_on, __ATOMIC_RELAXED);
	bool found = false;

	for (unsigned int q = 0; q < VHOST_MAX_QUEUES; q++) {
		if (!(on >> q & 1))
			continue;
		if (__atomic_load_n(&p->rxq[q].seen, __ATOMIC_RELAXED) ||
		    __atomic_load_n(&p->tx_state[q], __ATOMIC_RELAXED) == TX_TAKES)
			return false;
		if (vhost_queue_waiting(p, p->vid, 2 * q) == 0 && vhost_queue_waiting(p, p->vid, 2 * q + 1) == 0 &&
		    __atomic_load_n(&p->rxq[q].kicks, __ATOMIC_RELAXED) + kicks_pending(p->kick[q]) > 1)
			found = true;
	}
	return found;
}

int vhost_tx_room(struct vhost_port *p, uint16_t q)
{
	int room = -ENODEV;

	pthread_mutex_lock(&p->dev_lock);
	if (vhost_tx_enabled(p) >> q & 1)
		room = vhost_queue_waiting(p, p->vid, 2 * q);
	pthread_mutex_unlock(&p->dev_lock);
	return room;
}

static bool no_buffers(struct vhost_port *p, uint64_t now)
{
	uint32_t on = vhost_tx_enabled(p);

	for (unsigned int q = 0; q < VHOST_MAX_QUEUES; q++) {
		if (!(on >> q & 1) || __atomic_load_n(&p->tx_state[q], __ATOMIC_RELAXED) != TX_STUCK ||
		    vhost_queue_waiting(p, p->vid, 2 * q) != 0)
			continue;
		if (!p->stuck_since)
			p->stuck_since = now;
		return now >= p->stuck_since + SECOND;
	}
	p->stuck_since = 0;
	return false;
}

// A transmit ring that holds something and doesn't move: the library stops at a descriptor that it can't use and tries it again
// for ever. Returns the queue, or -1.
static int stuck_queue(struct vhost_port *p, uint64_t now)
{
	uint32_t on = vhost_rx_enabled(p), stuck = 0;
	uint16_t at = 0, used;

	for (unsigned int q = 0; q < VHOST_MAX_QUEUES; q++) {
		if (!(on >> q & 1) || rte_vhost_get_vring_base(p->vid, 2 * q + 1, &at, &used) < 0 || at != p->rx_place[q] ||
		    vhost_queue_waiting(p, p->vid, 2 * q + 1) != 1) {
			p->rx_since[q] = 0;
			p->rx_place[q] = at;
		} else if (!p->rx_since[q]) {
			p->rx_since[q] = now;
		} else if (now > p->rx_since[q] + STUCK) {
			stuck |= 1U << q;
		}
	}
	__atomic_store_n(&p->rx_stuck, stuck, __ATOMIC_RELAXED);
	return stuck ? __builtin_ctz(stuck) : -1;
}

// Called with dev_lock held, so the device stays while the library is asked.
static void say_running(struct vhost_port *p, uint64_t now, char *buffer, size_t size)
{
	uint32_t lost = __atomic_load_n(&p->lost, __ATOMIC_RELAXED);
	unsigned int ring = lost ? (unsigned int)__builtin_ctz(lost) : 0;
	int stuck = stuck_queue(p, now);

	if (lost)
		snprintf(buffer, size,
			 "place in a packed ring lost: where the %s ring of queue pair %u was before the switch restarted can't be "
			 "told%s; restart the guest's network driver",
			 ring & 1 ? "transmit" : "receive", ring / 2,
			 p->rings ? "" : ", as there is no file to keep it");
	else if (!vhost_rx_enabled(p) || !vhost_tx_enabled(p))
		snprintf(buffer, size, "guest driver not ready: it has disabled its %s queues",
			 vhost_rx_enabled(p)   ? "receive"
			 : vhost_tx_enabled(p) ? "transmit"
					       : "");
	else if (stuck >= 0)
		snprintf(buffer, size,
			 "transmit queue %d stands still: the guest put a descriptor there that can't be used, with a wrong address, "
			 "length or chain; restart its network driver", stuck);
	else if (kicks_nothing(p))
		snprintf(buffer, size, NOT_SHARED, "mapped a private copy of the guest's memory");
	else if (no_buffers(p, now))
		snprintf(buffer, size,
			 "no receive buffers posted: the guest takes no packets; is its interface up and its system alive?");
}

void vhost_status(struct vhost_port *p, struct vhost_status *s)
{
	uint64_t now = vhost_clock_ns();

	memset(s, 0, sizeof(*s));
	pthread_mutex_lock(&p->dev_lock);
	pthread_mutex_lock(&p->lock);
	s->connected = p->connected;
	s->running = p->running;
	s->connects = p->connects;
	s->refused = p->refused;
	s->mtu = p->running ? p->guest_mtu : 0;
	s->numa_node = p->running ? p->numa_node : -1;
	s->rx_errors = p->rx_errors;
	for (unsigned int q = 0; q < VHOST_MAX_QUEUES; q++)
		s->rx_bad += __atomic_load_n(&p->rx_bad[q], __ATOMIC_RELAXED);
	p->was_packed |= vhost_features(p) >> VIRTIO_F_RING_PACKED & 1;
	s->rx_bad_unknown = p->was_packed;
	if (p->fault[0] && now > p->fault_at + FAULT_SHOWN && p->running)
		p->fault[0] = '\0';
	if (!p->connected)
		say_disconnected(p, s->problem, sizeof(s->problem));
	else if (p->fault[0])
		say_fault(p, s->problem, sizeof(s->problem));
	else if (!p->running)
		say_unready(&p->talk, now, s->problem, sizeof(s->problem));
	pthread_mutex_unlock(&p->lock);
	if (__atomic_load_n(&p->vid, __ATOMIC_ACQUIRE) >= 0) {
		s->features = vhost_features(p);
		s->virtio_net_legacy = !(s->features >> VIRTIO_F_VERSION_1 & 1);
		s->rx_queues = __builtin_popcount(vhost_rx_enabled(p));
		s->tx_queues = __builtin_popcount(vhost_tx_enabled(p));
		if (!s->problem[0])
			say_running(p, now, s->problem, sizeof(s->problem));
	} else {
		p->stuck_since = 0;
	}
	pthread_mutex_unlock(&p->dev_lock);
}
