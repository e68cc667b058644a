// guard: refuses requests that the library would stumble over.
//
// The library takes a front-end at its word in more than one place: it changes the size of a ring that a worker is at, starts a ring
// that has no size, follows an index beyond the ring, looks up an IOTLB that isn't there. A front-end that keeps to the protocol
// does none of this. What is refused here costs the front-end its connection, unless it had asked for an answer.
//
// Two things can't be refused here. A message whose ring index is beyond all rings is dropped by the library before handlers are
// called, and descriptors that came with it stay open (vhost_user_check_and_alloc_queue_pair() in DPDK 22.11). And an eventfd is
// shared with the front-end, which may make it blocking again after it was checked.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "message.h"
#include "port.h"

#define PACKED (1ULL << VIRTIO_F_RING_PACKED)
#define NO_FD 0x100 // of messages with a descriptor: there is none
#define RING_MAX 32768
#define FIXED 0x80000000U // bytes of the payload are known, unlike those of a table

// Requests that are let through, and the least that they must bring. Others, such as those for an IOMMU, in-flight descriptors
// and post-copy, are for features that are never offered.
static const uint32_t known[] = {
	[REQ_GET_FEATURES] = FIXED | 0,
	[REQ_SET_FEATURES] = FIXED | 8,
	[REQ_SET_OWNER] = FIXED | 0,
	[REQ_RESET_OWNER] = FIXED | 0,
	[REQ_SET_MEM_TABLE] = FIXED | 8,
	[REQ_SET_LOG_BASE] = FIXED | 16,
	[REQ_SET_LOG_FD] = FIXED | 0,
	[REQ_SET_VRING_NUM] = FIXED | 8,
	[REQ_SET_VRING_ADDR] = FIXED | 40,
	[REQ_SET_VRING_BASE] = FIXED | 8,
	[REQ_GET_VRING_BASE] = FIXED | 8,
	[REQ_SET_VRING_KICK] = FIXED | 8,
	[REQ_SET_VRING_CALL] = FIXED | 8,
	[REQ_SET_VRING_ERR] = FIXED | 8,
	[REQ_GET_PROTOCOL_FEATURES] = FIXED | 0,
	[REQ_SET_PROTOCOL_FEATURES] = FIXED | 8,
	[REQ_GET_QUEUE_NUM] = FIXED | 0,
	[REQ_SET_VRING_ENABLE] = FIXED | 8,
	[REQ_SEND_RARP] = FIXED | 8,
	[REQ_NET_SET_MTU] = FIXED | 8,
	[REQ_SET_BACKEND_REQ_FD] = FIXED | 0,
	[REQ_SET_STATUS] = FIXED | 8,
	[REQ_GET_STATUS] = FIXED | 0,
};

static bool is_eventfd(int fd)
{
	char path[40], target[32];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return false;
	target[n] = '\0';
	return !strcmp(target, "anon_inode:[eventfd]");
}

static const char *check_size(struct guard_ring *r, uint32_t number, bool packed)
{
	if (r->started)
		return "changed the size of a ring that runs";
	if (!number || number > RING_MAX || (!packed && number & (number - 1)))
		return "wants a ring of a size that rings can't have";
	r->size = number;
	return NULL;
}

static const char *check_base(struct guard_ring *r, uint32_t number)
{
	if (r->started)
		return "changed the place in a ring that runs";
	r->base = number;
	return NULL;
}

static const char *check_address(struct guard_ring *r, const struct message *m, bool packed)
{
	uint64_t odd = (m->payload.address.descriptors & 15) | (m->payload.address.used & 3) |
		       (m->payload.address.available & (packed ? 3 : 1));

	if (odd)
		return "placed a ring at an address that is not aligned";
	r->placed = true;
	return NULL;
}

// The worker writes to the descriptor: a pipe that is full would hold it up, and so would a counter that is.
static const char *check_notifier(const struct message *m)
{
	int flags;

	if (m->payload.u64 & NO_FD || m->n_fds != 1)
		return NULL; // the library refuses a wrong number
	if (!is_eventfd(m->fds[0]))
		return "gave a descriptor that is no eventfd to notify it by";
	flags = fcntl(m->fds[0], F_GETFL);
	if (flags < 0 || fcntl(m->fds[0], F_SETFL, flags | O_NONBLOCK) < 0)
		return "gave an eventfd that can't be used";
	return NULL;
}

static const char *check_kick(struct guard_ring *r, const struct message *m, bool packed)
{
	if (!r->size || !r->placed)
		return "started a ring before it gave its size and place";
	if (packed ? (r->base & 0x7fff) >= r->size : r->size & (r->size - 1))
		return "started a ring at a place beyond its end";
	r->started = true;
	return check_notifier(m);
}

static const char *check_log(const struct message *m)
{
	struct stat info;

	// The library maps the log from the offset on and then adds the offset again.
	if (m->n_fds != 1 || m->payload.log.offset || !m->payload.log.size || fstat(m->fds[0], &info) < 0 ||
	    m->payload.log.size > (uint64_t)info.st_size)
		return "gave a log of dirty pages that is not as long as it says";
	return NULL;
}

static void forget_rings(struct vhost_port *p)
{
	memset(p->guard.ring, 0, sizeof(p->guard.ring));
}

static const char *check_ring(struct vhost_port *p, const struct message *m, uint32_t ring)
{
	bool packed = p->guard.features & PACKED;
	struct guard_ring *r;

	if (ring >= 2U * p->config.queues)
		return "named a ring that this port does not have";
	r = &p->guard.ring[ring];
	switch (m->request) {
	case REQ_SET_VRING_NUM:
		return check_size(r, m->payload.state.number, packed);
	case REQ_SET_VRING_BASE:
		return check_base(r, m->payload.state.number);
	case REQ_SET_VRING_ADDR:
		return check_address(r, m, packed);
	case REQ_SET_VRING_KICK:
		return check_kick(r, m, packed);
	case REQ_SET_VRING_CALL:
		return check_notifier(m);
	case REQ_GET_VRING_BASE:
		memset(r, 0, sizeof(*r));
		break;
	}
	return NULL;
}

static const char *check(struct vhost_port *p, const struct message *m)
{
	if (m->request >= RTE_DIM(known) || !known[m->request])
		return "made a request that nothing was offered for";
	if (m->length < (known[m->request] & ~FIXED))
		return "sent a request that is cut short";
	switch (m->request) {
	case REQ_SET_FEATURES:
		// Memory for a ring is laid out when its size comes, and differs with the kind of ring.
		if ((m->payload.u64 ^ p->guard.features) & PACKED && __atomic_load_n(&p->vid, __ATOMIC_RELAXED) < 0)
			forget_rings(p);
		if (__atomic_load_n(&p->vid, __ATOMIC_RELAXED) < 0 && !(m->payload.u64 & ~p->offered))
			p->guard.features = m->payload.u64;
		return NULL;
	case REQ_RESET_OWNER:
		forget_rings(p);
		return NULL;
	case REQ_SET_MEM_TABLE:
		if (m->payload.table.count <= MESSAGE_FDS &&
		    m->length < 8 + m->payload.table.count * sizeof(struct message_region))
			return "sent a memory table that is cut short";
		return NULL;
	case REQ_SET_LOG_BASE:
		return check_log(m);
	case REQ_SET_VRING_NUM:
	case REQ_SET_VRING_ADDR:
	case REQ_SET_VRING_BASE:
	case REQ_GET_VRING_BASE:
	case REQ_SET_VRING_ENABLE:
		return check_ring(p, m, m->payload.state.ring);
	case REQ_SET_VRING_KICK:
	case REQ_SET_VRING_CALL:
	case REQ_SET_VRING_ERR:
		return check_ring(p, m, m->payload.u64 & 0xff);
	}
	return NULL;
}

void vhost_message_drop_fds(struct message *m)
{
	for (int i = 0; i < MESSAGE_FDS; i++) {
		if (m->fds[i] >= 0)
			close(m->fds[i]);
		m->fds[i] = -1;
	}
	m->n_fds = 0;
}

int vhost_guard_check(struct vhost_port *p, struct message *m)
{
	const char *what = check(p, m);

	if (!what)
		return 0;
	vhost_port_fault(p, "the front-end %s (request %u)", what, m->request);
	vhost_message_drop_fds(m);
	return -EINVAL;
}

void vhost_guard_begin(struct vhost_port *p)
{
	memset(&p->guard, 0, sizeof(p->guard));
}
