// sigbus: a guest's memory that is not there any more.
//
// Memory is a file of the front-end's, which may cut it short at any time, or use up the hugepages that it promised. The next access
// to it raises SIGBUS (mmap(2)), in a worker most likely. The handler puts an empty page there, so that the worker goes on, and
// tells the connector, which disconnects the port. A SIGBUS elsewhere ends the process as ever.
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "port.h"

#define RANGES 4096

// One mapping of a guest's memory. The handler reads it without locks: `start` is written last and cleared first.
struct range {
	uintptr_t start, end;
	size_t page;
	struct vhost_port *port;
};

static struct range ranges[RANGES];
static unsigned int used; // ranges[used..] have never been used
static pthread_mutex_t ranges_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction before;
// The port whose request this thread handles: the library may touch memory that it has mapped before we know of it.
static __thread struct vhost_port *handling;

static const struct range *find(uintptr_t at)
{
	for (unsigned int i = 0; i < __atomic_load_n(&used, __ATOMIC_ACQUIRE); i++) {
		uintptr_t start = __atomic_load_n(&ranges[i].start, __ATOMIC_ACQUIRE);

		if (start && at >= start && at < __atomic_load_n(&ranges[i].end, __ATOMIC_RELAXED))
			return &ranges[i];
	}
	return NULL;
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
	const uintptr_t at = (uintptr_t)info->si_addr;
	const struct range *r = info->si_code > 0 ? find(at) : NULL;
	struct vhost_port *p = r ? r->port : info->si_code > 0 ? handling : NULL;
	const size_t page = r ? r->page : 4096;
	const int kept = errno;

	if (p && mmap((void *)(at & ~(page - 1)), page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
			 MAP_FAILED) {
		__atomic_store_n(&p->cut_short, true, __ATOMIC_RELEASE);
		vhost_connect_wake();
		errno = kept;
		return;
	}
	// The access is made again, and ends the process or goes to the handler that was there before.
	sigaction(SIGBUS, &before, NULL);
}

int vhost_sigbus_start(void)
{
	struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	static bool done;

	if (!done && sigaction(SIGBUS, &action, &before) < 0)
		return -errno;
	done = true;
	return 0;
}

static void forget(const struct vhost_port *p)
{
	for (unsigned int i = 0; i < used; i++) {
		if (ranges[i].port == p) {
			__atomic_store_n(&ranges[i].start, 0, __ATOMIC_RELEASE);
			ranges[i].port = NULL;
		}
	}
}

static void note(struct vhost_port *p, const struct rte_vhost_mem_region *m)
{
	struct stat info;
	unsigned int i = 0;

	while (i < used && ranges[i].port)
		i++;
	if (i == RANGES || fstat(m->fd, &info) < 0)
		return;
	ranges[i].port = p;
	// Hugetlbfs gives the size of its pages as that of a block, and takes no smaller ones.
	ranges[i].page = m->mmap_size % (uint64_t)info.st_blksize ? 4096 : RTE_MAX((size_t)info.st_blksize, (size_t)4096);
	__atomic_store_n(&ranges[i].end, (uintptr_t)m->mmap_addr + m->mmap_size, __ATOMIC_RELAXED);
	__atomic_store_n(&ranges[i].start, (uintptr_t)m->mmap_addr, __ATOMIC_RELEASE);
	if (i == used)
		__atomic_store_n(&used, used + 1, __ATOMIC_RELEASE);
}

void vhost_sigbus_note(struct vhost_port *p, int vid)
{
	struct rte_vhost_memory *memory = NULL;

	pthread_mutex_lock(&ranges_lock);
	forget(p);
	if (rte_vhost_get_mem_table(vid, &memory) == 0 && memory) {
		for (uint32_t i = 0; i < memory->nregions; i++)
			note(p, &memory->regions[i]);
	}
	pthread_mutex_unlock(&ranges_lock);
	free(memory);
}

void vhost_sigbus_forget(struct vhost_port *p)
{
	pthread_mutex_lock(&ranges_lock);
	forget(p);
	pthread_mutex_unlock(&ranges_lock);
}

void vhost_sigbus_handling(struct vhost_port *p)
{
	handling = p;
}
