// device: the callbacks of the vhost library: connections, devices and queues that come and go.
//
// Which thread: all run on the library's event thread, except new_connection in client mode (the connector's thread) and
// destroy_device while vhost_close() unregisters (the main thread). vring_state_changed, features_changed and the message
// handlers run under the library's queue locks, on which a worker may be spinning: they wait for nobody.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "port.h"

static struct vhost_port *by_vid[RTE_MAX_VHOST_DEVICE];

static struct vhost_port *port_of(int vid)
{
	return vid < 0 || vid >= RTE_MAX_VHOST_DEVICE ? NULL : __atomic_load_n(&by_vid[vid], __ATOMIC_ACQUIRE);
}

static struct vhost_port *port_at(const char *path)
{
	struct vhost_port *p;

	pthread_mutex_lock(&vhost_ports_lock);
	TAILQ_FOREACH(p, &vhost_ports, next)
	{
		if (!strcmp(p->config.path, path))
			break;
	}
	pthread_mutex_unlock(&vhost_ports_lock);
	return p;
}

static void talk_reset(struct vhost_port *p)
{
	struct negotiation *t = &p->talk;
	struct negotiation before = *t;

	memset(t, 0, sizeof(*t));
	t->progress = vhost_clock_ns();
	t->before = before.failed ? before.failed : before.ran ? 0 : before.before;
	t->before_bits = before.refused ? before.refused : before.ran ? 0 : before.before_bits;
	t->short_lived = before.short_lived;
}

// Called for every message before the library handles it. Requests that exchange memory are checked, and shut out the workers'
// look at packed rings first. It answers GET_QUEUE_NUM itself, as the library would always say 128.
static enum rte_vhost_msg_result message_before(int vid, void *buffer)
{
	struct vhost_port *p = port_of(vid);
	struct message *m = buffer;

	if (!p)
		return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
	vhost_sigbus_handling(p);
	if (vhost_guard_check(p, m) < 0) {
		pthread_mutex_lock(&p->lock);
		p->talk.failed = m->request;
		pthread_mutex_unlock(&p->lock);
		vhost_sigbus_handling(NULL);
		return RTE_VHOST_MSG_RESULT_ERR;
	}
	// Before the library knows of it: a worker that asks for the frame must not ask for too little.
	if (m->request == REQ_SEND_RARP)
		__atomic_store_n(&p->rarp, true, __ATOMIC_RELEASE);
	if (m->request == REQ_SET_MEM_TABLE) {
		if (vhost_memory_check(m) < 0) {
			pthread_mutex_lock(&p->lock);
			p->talk.failed = REQ_SET_MEM_TABLE;
			pthread_mutex_unlock(&p->lock);
			vhost_sigbus_handling(NULL);
			return RTE_VHOST_MSG_RESULT_ERR;
		}
		pthread_mutex_lock(&p->mem_lock);
		__atomic_store_n(&p->mem_seq, p->mem_seq | 1, __ATOMIC_RELEASE);
		pthread_mutex_unlock(&p->mem_lock);
	}
	pthread_mutex_lock(&p->lock);
	// The library doesn't tell of failures: a message that never reached message_after() has failed.
	if (p->talk.pending)
		p->talk.failed = p->talk.pending;
	p->talk.pending = m->request;
	p->talk.asked = vhost_clock_ns();
	if (m->request == REQ_SET_FEATURES)
		p->talk.refused = m->payload.u64 & ~p->offered;
	pthread_mutex_unlock(&p->lock);
	if (m->request != REQ_GET_QUEUE_NUM)
		return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
	vhost_message_drop_fds(m);
	m->payload.u64 = p->config.queues;
	m->length = sizeof(m->payload.u64);
	return RTE_VHOST_MSG_RESULT_REPLY;
}

// A worker that sleeps on the kick would not see the RARP frame that the library wants to inject on its next poll.
static void wake(struct vhost_port *p)
{
	if (__atomic_load_n(&p->kick_on, __ATOMIC_RELAXED) & 1)
		eventfd_write(p->kick[0], 1);
}

static enum rte_vhost_msg_result message_after(int vid, void *buffer)
{
	struct vhost_port *p = port_of(vid);
	struct message *m = buffer;
	bool progress;

	if (!p)
		return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
	// destroy_device was for this message, not for the connection's end.
	__atomic_store_n(&p->ending, false, __ATOMIC_RELEASE);
	vhost_sigbus_handling(NULL);
	if (m->request == REQ_SET_MEM_TABLE)
		vhost_sigbus_note(p, vid);
	if (m->request == REQ_SET_MEM_TABLE)
		__atomic_store_n(&p->mem_seq, (p->mem_seq | 1) + 1, __ATOMIC_RELEASE);
	pthread_mutex_lock(&p->lock);
	p->talk.pending = 0;
	if (p->talk.failed == m->request)
		p->talk.failed = 0;
	progress = m->request < 64 && !(p->talk.done >> m->request & 1);
	if (m->request < 64)
		p->talk.done |= 1ULL << m->request;
	// The driver has stopped: what it had set up is to be set up again.
	if (m->request == REQ_GET_VRING_BASE || m->request == REQ_RESET_OWNER)
		p->talk.done &= ~(1ULL << REQ_SET_FEATURES | 1ULL << REQ_SET_MEM_TABLE | 1ULL << REQ_SET_VRING_ADDR |
				  1ULL << REQ_SET_VRING_KICK | 1ULL << REQ_SET_VRING_ENABLE);
	if (progress)
		p->talk.progress = vhost_clock_ns();
	pthread_mutex_unlock(&p->lock);
	if (m->request == REQ_SEND_RARP)
		wake(p);
	// QEMU stops a ring in this way, and gives the place back when the ring starts again.
	if (m->request == REQ_GET_VRING_BASE)
		vhost_rings_forget(p, (uint32_t)m->payload.u64);
	if (progress)
		vhost_port_changed(p);
	return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
}

static const struct rte_vhost_user_extern_ops message_ops = {
	.pre_msg_handle = message_before,
	.post_msg_handle = message_after,
};

static int new_connection(int vid)
{
	char path[PATH_MAX];
	struct vhost_port *p;
	bool taken;

	if (rte_vhost_get_ifname(vid, path, sizeof(path)) < 0 || !(p = port_at(path)))
		return -1;
	pthread_mutex_lock(&p->lock);
	taken = !p->connected;
	if (taken) {
		p->restored = p->lost = 0;
		vhost_guard_begin(p);
		talk_reset(p);
		p->connected = true;
		p->conn_vid = vid;
		p->connects++;
	} else {
		p->refused++;
	}
	pthread_mutex_unlock(&p->lock);
	// One socket is one guest: the second front-end of a listening socket is sent away.
	if (!taken)
		return -1;
	// One thread reads the messages of all front-ends, and waits for the rest of one that has begun.
	p->conn_fd = vhost_socket_connection(path);
	__atomic_store_n(&by_vid[vid], p, __ATOMIC_RELEASE);
	rte_vhost_extern_callback_register(vid, &message_ops, NULL);
	vhost_port_changed(p);
	return 0;
}

// No library call in here: while the main thread unregisters, it comes here with the library's mutexes held.
static void disconnected(struct vhost_port *p)
{
	pthread_mutex_lock(&p->lock);
	if (p->conn_vid >= 0)
		__atomic_store_n(&by_vid[p->conn_vid], NULL, __ATOMIC_RELEASE);
	if (p->talk.pending)
		p->talk.failed = p->talk.pending;
	if (p->talk.ran)
		p->talk.short_lived = 0;
	else
		p->talk.short_lived++;
	p->connected = false;
	p->conn_vid = p->conn_fd = -1;
	pthread_mutex_unlock(&p->lock);
	vhost_sigbus_forget(p);
}

static void destroy_connection(int vid)
{
	struct vhost_port *p = port_of(vid);

	if (!p)
		return;
	disconnected(p);
	vhost_connect_ended(p);
	vhost_port_changed(p);
}

void vhost_device_forget(struct vhost_port *p)
{
	if (p->connected)
		disconnected(p);
}

static int new_device(int vid)
{
	struct vhost_port *p = port_of(vid);
	uint64_t features = 0;

	if (!p || rte_vhost_get_negotiated_features(vid, &features) < 0)
		return -1;
	pthread_mutex_lock(&p->dev_lock);
	for (unsigned int q = 0; q < VHOST_MAX_QUEUES; q++) {
		p->rxq[q] = (struct rx_queue){0};
		p->tx_state[q] = TX_UNTRIED;
	}
	pthread_mutex_lock(&p->lock);
	p->running = true;
	p->talk.ran = true;
	p->numa_node = rte_vhost_get_numa_node(vid);
	if (rte_vhost_get_mtu(vid, &p->guest_mtu) < 0)
		p->guest_mtu = 0;
	pthread_mutex_unlock(&p->lock);
	__atomic_store_n(&p->features, features, __ATOMIC_RELAXED);
	__atomic_store_n(&p->vid, vid, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&p->dev_lock);
	vhost_port_changed(p);
	return 0;
}

// The library frees the device, or unmaps its memory, as soon as this returns.
static void destroy_device(int vid)
{
	struct vhost_port *p = port_of(vid);
	bool was_packed;

	if (!p)
		return;
	was_packed = vhost_features(p) >> VIRTIO_F_RING_PACKED & 1;
	vhost_connect_ending(p);
	pthread_mutex_lock(&p->dev_lock);
	__atomic_store_n(&p->vid, -1, __ATOMIC_RELEASE);
	__atomic_store_n(&p->features, 0, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&p->dev_lock);
	pthread_mutex_lock(&p->lock);
	p->running = false;
	pthread_mutex_unlock(&p->lock);
	vhost_port_changed(p);
	// In vhost_close() the library's registration mutex is held. The event thread waits for it with the queue locks of
	// another port held (SET_FEATURES), and a worker may spin on those: waiting for workers then would never end. It isn't
	// needed, as the caller has taken the port away from them.
	if (!__atomic_load_n(&p->closing, __ATOMIC_ACQUIRE) && p->hooks.quiesce)
		p->hooks.quiesce(p->hooks.arg);
	if (!was_packed)
		vhost_queue_settle(p, vid);
}

// Keeps a duplicate of the kick descriptor under a number of the port's own that stays valid, whatever it refers to: the
// library closes its own at any time.
static void keep_kick(struct vhost_port *p, int vid, uint16_t q)
{
	struct rte_vhost_vring ring;
	bool got = false;

	if (rte_vhost_get_vhost_vring(vid, 2 * q + 1, &ring) == 0 && ring.kickfd >= 0) {
		pthread_mutex_lock(&p->lock);
		if (p->kick[q] < 0)
			p->kick[q] = fcntl(ring.kickfd, F_DUPFD_CLOEXEC, 0);
		got = p->kick[q] >= 0 && (p->kick[q] == ring.kickfd || dup3(ring.kickfd, p->kick[q], O_CLOEXEC) >= 0);
		pthread_mutex_unlock(&p->lock);
	}
	if (got)
		__atomic_fetch_or(&p->kick_on, 1U << q, __ATOMIC_RELEASE);
	else
		__atomic_fetch_and(&p->kick_on, ~(1U << q), __ATOMIC_RELEASE);
}

static int vring_state_changed(int vid, uint16_t ring, int enable)
{
	struct vhost_port *p = port_of(vid);
	uint16_t q = ring / 2;
	uint64_t features = 0;
	uint32_t *on;

	if (!p || q >= p->config.queues)
		return 0;
	on = ring & 1 ? &p->rx_on : &p->tx_on;
	if (enable && rte_vhost_get_negotiated_features(vid, &features) == 0)
		vhost_rings_restore(p, vid, ring, features);
	if (enable && (ring & 1)) {
		keep_kick(p, vid, q);
		__atomic_store_n(&p->rxq[q].quiet, 0, __ATOMIC_RELAXED);
	}
	// A ring whose place is lost is left alone: whatever is written to it confuses its driver.
	if (enable && !(p->lost >> ring & 1))
		__atomic_fetch_or(on, 1U << q, __ATOMIC_RELEASE);
	else
		__atomic_fetch_and(on, ~(1U << q), __ATOMIC_RELEASE);
	vhost_port_changed(p);
	return 0;
}

// Live migration switches VHOST_F_LOG_ALL on and off while the device runs.
static int features_changed(int vid, uint64_t features)
{
	struct vhost_port *p = port_of(vid);

	if (!p)
		return 0;
	if (__atomic_load_n(&p->vid, __ATOMIC_RELAXED) >= 0)
		__atomic_store_n(&p->features, features, __ATOMIC_RELAXED);
	vhost_port_changed(p);
	return 0;
}

const struct rte_vhost_device_ops vhost_device_ops = {
	.new_connection = new_connection,
	.destroy_connection = destroy_connection,
	.new_device = new_device,
	.destroy_device = destroy_device,
	.vring_state_changed = vring_state_changed,
	.features_changed = features_changed,
};
