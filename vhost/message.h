// message: a vhost-user message as the library hands it to message handlers: the message (QEMU's docs/interop/vhost-user.rst), in room
// for the largest one, and the descriptors that came with it. DPDK 22.11 keeps this layout for external handlers.
#ifndef VHOST_MESSAGE_H
#define VHOST_MESSAGE_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define MESSAGE_FDS 8 // VHOST_MEMORY_MAX_NREGIONS of the library: regions of a memory table, descriptors of a message

// Requests that are looked at ("Front-end message types").
enum {
	REQ_GET_FEATURES = 1,
	REQ_SET_FEATURES = 2,
	REQ_SET_OWNER = 3,
	REQ_RESET_OWNER = 4,
	REQ_SET_MEM_TABLE = 5,
	REQ_SET_LOG_BASE = 6,
	REQ_SET_LOG_FD = 7,
	REQ_SET_VRING_NUM = 8,
	REQ_SET_VRING_ADDR = 9,
	REQ_SET_VRING_BASE = 10,
	REQ_GET_VRING_BASE = 11,
	REQ_SET_VRING_KICK = 12,
	REQ_SET_VRING_CALL = 13,
	REQ_SET_VRING_ERR = 14,
	REQ_GET_PROTOCOL_FEATURES = 15,
	REQ_SET_PROTOCOL_FEATURES = 16,
	REQ_GET_QUEUE_NUM = 17,
	REQ_SET_VRING_ENABLE = 18,
	REQ_SEND_RARP = 19,
	REQ_NET_SET_MTU = 20,
	REQ_SET_BACKEND_REQ_FD = 21,
	REQ_SET_STATUS = 39,
	REQ_GET_STATUS = 40,
};

struct message_region {
	uint64_t guest_address, size, user_address, offset;
} __attribute__((packed));

struct message {
	uint32_t request, flags, length;
	union {
		uint64_t u64;
		struct {
			uint32_t ring, number;
		} __attribute__((packed)) state;
		struct {
			uint32_t ring, flags;
			uint64_t descriptors, used, available, log;
		} __attribute__((packed)) address;
		struct {
			uint64_t size, offset;
		} __attribute__((packed)) log;
		struct {
			uint32_t count, padding;
			struct message_region regions[MESSAGE_FDS];
		} __attribute__((packed)) table;
		uint8_t room[632];
	} payload;
	int fds[MESSAGE_FDS];
	int n_fds;
} __attribute__((packed));

static_assert(offsetof(struct message, fds) == 644, "as in DPDK 22.11");

#endif
