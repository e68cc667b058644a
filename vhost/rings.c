// rings: the file of a port's places in its packed rings, and what workers and the library's callbacks do with it. See rings.h.
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "port.h"

#define MAGIC "weirring"
#define VERSION 1
#define RINGS (2 * VHOST_MAX_QUEUES)

struct rings_file {
	char magic[8];
	uint32_t version, size;
	alignas(RTE_CACHE_LINE_SIZE) struct ring_record ring[RINGS];
};

int vhost_rings_open(struct vhost_port *p, char **error)
{
	const char *path = p->config.rings;
	struct rings_file *f;
	int fd;

	if (!path || !p->config.packed)
		return 0;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || ftruncate(fd, sizeof(*f)) < 0 ||
	    (f = mmap(NULL, sizeof(*f), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) == MAP_FAILED) {
		*error = vhost_sentence("%s, which keeps the places in packed rings, can't be used: %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return -EIO;
	}
	close(fd);
	if (memcmp(f->magic, MAGIC, sizeof(f->magic)) || f->version != VERSION || f->size != sizeof(*f)) {
		for (unsigned int i = 0; i < RINGS; i++)
			f->ring[i].word = 0;
		f->version = VERSION;
		f->size = sizeof(*f);
		memcpy(f->magic, MAGIC, sizeof(f->magic));
	}
	p->rings = f;
	return 0;
}

void vhost_rings_close(struct vhost_port *p)
{
	if (p->rings)
		munmap(p->rings, sizeof(*p->rings));
	p->rings = NULL;
}

int vhost_rings_path(const char *folder, const char *port, char *path, size_t size)
{
	int n = snprintf(path, size, "%s/rings/", folder);

	for (; *port && n >= 0 && (size_t)n + 4 < size; port++) {
		// Names of ports may hold what names of files can't.
		if (isalnum((unsigned char)*port) || strchr("_-:+", *port))
			path[n++] = *port;
		else
			n += snprintf(path + n, size - n, "%%%02x", (unsigned char)*port);
	}
	if (n < 0 || (size_t)n + 4 >= size)
		return -ENAMETOOLONG;
	path[n] = '\0';
	return 0;
}

// Which ring it is: a guest's memory has its own file, and the ring its place in it.
static void identify(int vid, const void *at, struct ring_record *r)
{
	struct rte_vhost_memory *memory = NULL;
	struct stat info;

	r->device = r->file = r->where = 0;
	if (rte_vhost_get_mem_table(vid, &memory) < 0 || !memory)
		return;
	for (uint32_t i = 0; i < memory->nregions; i++) {
		const struct rte_vhost_mem_region *m = &memory->regions[i];
		uint64_t offset = (uint64_t)(uintptr_t)at - (uint64_t)(uintptr_t)m->mmap_addr;

		if (offset < m->mmap_size && fstat(m->fd, &info) == 0) {
			r->device = info.st_dev;
			r->file = info.st_ino;
			r->where = offset;
		}
	}
	free(memory);
}

static bool same_ring(const struct ring_record *a, const struct ring_record *b)
{
	return a->device == b->device && a->file == b->file && a->where == b->where && a->size == b->size;
}

// Where the device goes on: the record if it is of this ring and agrees with the descriptors; else what the front-end says, if
// that agrees; else what the descriptors alone say.
static int find_place(struct vring_packed_desc *desc, struct ring_record *r, const struct ring_record *now, bool receive,
		      ring_place given, ring_place *at, ring_place *head)
{
	const bool marked = !now->in_order || receive;
	const bool known = r->word >> 48 != RING_UNKNOWN && same_ring(r, now);

	if (known && ring_resume(desc, r, receive, at, head) == 0 && ring_fits(desc, now->size, *at, *head, marked))
		return 0;
	*at = *head = given;
	if (ring_fits(desc, now->size, given, given, marked))
		return 0;
	if (now->in_order || ring_find(desc, now->size, at) < 0)
		return -EINVAL;
	*head = *at;
	return 0;
}

// A ring has become ready, and no worker has seen it yet. Library threads, under the library's queue locks.
void vhost_rings_restore(struct vhost_port *p, int vid, uint16_t ring, uint64_t features)
{
	uint16_t given, used;
	ring_place at, head;
	struct rte_vhost_vring v;
	struct ring_record now, *r;

	if (!(features >> VIRTIO_F_RING_PACKED & 1) || p->restored >> ring & 1)
		return;
	if (rte_vhost_get_vhost_vring(vid, ring, &v) < 0 || !v.desc_packed ||
	    rte_vhost_get_vring_base(vid, ring, &given, &used) < 0)
		return;
	p->restored |= 1U << ring;
	p->lost &= ~(1U << ring);
	if (!p->rings)
		return;
	r = &p->rings->ring[ring];
	identify(vid, v.desc_packed, &now);
	now.size = v.size;
	now.in_order = features >> VIRTIO_F_IN_ORDER & 1;
	if (find_place(v.desc_packed, r, &now, !(ring & 1), given, &at, &head) < 0) {
		p->lost |= 1U << ring;
		at = head = given;
	}
	if (at != given || at != used)
		rte_vhost_set_vring_base(vid, ring, at, at);
	__atomic_store_n(&r->word, 0, __ATOMIC_RELEASE);
	r->device = now.device;
	r->file = now.file;
	r->where = now.where;
	r->size = now.size;
	r->in_order = now.in_order;
	// What isn't right isn't written down: the next start may still find out.
	if (!(p->lost >> ring & 1))
		__atomic_store_n(&r->word, ring_word(RING_REST, at, head, 0), __ATOMIC_RELEASE);
}

// The front-end has been told the place, or has dropped the ring: it is its own to know from now on. No worker has the ring.
void vhost_rings_forget(struct vhost_port *p, uint16_t ring)
{
	if (ring >= RINGS)
		return;
	p->restored &= ~(1U << ring);
	p->lost &= ~(1U << ring);
	if (p->rings)
		__atomic_store_n(&p->rings->ring[ring].word, 0, __ATOMIC_RELEASE);
}

// Writes down what a burst may take. The caller is a worker, and the only one at this ring.
unsigned int vhost_rings_begin(struct vhost_port *p, int vid, uint16_t ring, const uint32_t *need, unsigned int n)
{
	uint32_t seq = __atomic_load_n(&p->mem_seq, __ATOMIC_ACQUIRE);
	struct ring_record *r = &p->rings->ring[ring];
	unsigned int chains = 0, packets = 0;
	struct rte_vhost_vring v;
	uint64_t word = r->word;

	if (word >> 48 != RING_REST || seq & 1)
		return 0;
	// The memory table is exchanged without asking workers, but not while mem_lock is held: see queue.c.
	pthread_mutex_lock(&p->mem_lock);
	if (p->mem_seq == seq && rte_vhost_get_vhost_vring(vid, ring, &v) == 0 && v.desc_packed && v.size == r->size)
		chains = ring_scan(v.desc_packed, v.size, (ring_place)word, r->chain, need, n, &packets);
	pthread_mutex_unlock(&p->mem_lock);
	if (chains)
		__atomic_store_n(&r->word, ring_word(RING_BURST, (ring_place)word, (ring_place)(word >> 16), chains),
				 __ATOMIC_RELEASE);
	return packets;
}

void vhost_rings_end(struct vhost_port *p, int vid, uint16_t ring)
{
	struct ring_record *r = &p->rings->ring[ring];
	uint16_t at, used;

	if (r->word >> 48 == RING_UNKNOWN)
		return;
	if (rte_vhost_get_vring_base(vid, ring, &at, &used) < 0)
		return;
	__atomic_store_n(&r->word, ring_word(RING_REST, used, ring_head(r, !(ring & 1), used), 0), __ATOMIC_RELEASE);
}
