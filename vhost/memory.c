// memory: looks at the memory that a front-end shares before the library takes it.
//
// The library unmaps a device's memory before it maps what is to replace it. If that fails, the rings of a running device point
// at nothing, and the next poll of a worker ends the switch. So what could fail is tried here first, and refused. Memory beyond
// the end of its file would do the same at its first use.
#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "port.h"

static int try_region(const struct message_region *r, int fd)
{
	struct stat info;
	uint64_t end;
	void *at;

	if (__builtin_add_overflow(r->guest_address, r->size, &end) || __builtin_add_overflow(r->user_address, r->size, &end) ||
	    __builtin_add_overflow(r->offset, r->size, &end) || !r->size || end > INT64_MAX || fstat(fd, &info) < 0)
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
int vhost_memory_check(struct message *m)
{
	uint32_t n = m->payload.table.count;
	int status = 0;

	// The library refuses these itself before it unmaps anything.
	if (n > MESSAGE_FDS || m->n_fds != (int)n)
		return 0;
	for (uint32_t i = 0; i < n && !status; i++)
		status = try_region(&m->payload.table.regions[i], m->fds[i]);
	if (status)
		vhost_message_drop_fds(m);
	return status;
}
