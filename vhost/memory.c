// memory: looks at the memory that a front-end shares before the library takes it.
//
// The library unmaps a device's memory before it maps what is to replace it. If that fails, the rings of a running device point
// at nothing, and the next poll of a worker ends the switch. So what could fail is tried here first, and refused. Memory beyond
// the end of its file would do the same at its first use.
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "port.h"

#define REGIONS 8 // VHOST_MEMORY_MAX_NREGIONS of the library

struct region {
	uint64_t guest_address, size, user_address, offset;
} __attribute__((packed));

// What the library hands to message handlers: the message (QEMU's docs/interop/vhost-user.rst, "Memory regions description"),
// in room for the largest one, and the descriptors that came with it. DPDK 22.11 keeps this layout for external handlers.
struct context {
	uint32_t request, flags, length;
	union {
		struct {
			uint32_t count, padding;
			struct region regions[REGIONS];
		} __attribute__((packed)) table;
		uint8_t room[632];
	} payload;
	int fds[REGIONS];
	int n_fds;
} __attribute__((packed));

static_assert(offsetof(struct context, fds) == 644, "as in DPDK 22.11");

static int try_region(const struct region *r, int fd)
{
	struct stat info;
	uint64_t end;
	void *at;

	if (__builtin_add_overflow(r->offset, r->size, &end) || !r->size || end > INT64_MAX || fstat(fd, &info) < 0)
		return -EINVAL;
	if (S_ISREG(info.st_mode) && end > (uint64_t)info.st_size)
		return -ERANGE;
	end = RTE_ALIGN_CEIL(end, (uint64_t)info.st_blksize);
	at = mmap(NULL, end, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return -errno;
	munmap(at, end);
	return 0;
}

// Message SET_MEM_TABLE: 0, or -errno if the library must not see it; its descriptors are closed then.
int vhost_memory_check(void *message)
{
	struct context *c = message;
	uint32_t n = c->payload.table.count;
	int status = 0;

	// The library refuses these itself before it unmaps anything.
	if (n > REGIONS || c->n_fds != (int)n)
		return 0;
	for (uint32_t i = 0; i < n && !status; i++)
		status = try_region(&c->payload.table.regions[i], c->fds[i]);
	for (uint32_t i = 0; i < n && status; i++) {
		close(c->fds[i]);
		c->fds[i] = -1;
	}
	return status;
}
