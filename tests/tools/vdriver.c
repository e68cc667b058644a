// vdriver: the driver of a virtio-net device with packed rings and QEMU's manners, for tests of a back-end's restart.
//
//     vdriver SOCKET [size=N] [rxsize=N] [chain=N] [mrg=0|1] [in_order=0|1] [packet=MAX] [window=N] [mtu=N]
//
// It listens on SOCKET. Its rings live on while the back-end is away; when a back-end connects again it is told, as QEMU does, that
// the rings begin where they began when the driver started. One thread sends numbered packets as fast as the ring and a window
// allow and expects each back, in order; another one speaks vhost-user. Packets are spread over chains of up to N descriptors,
// receive buffers too; with window=0 it sends none. mtu=N is what the guest is told, as by QEMU's host_mtu=N. Buffer ids are used last in, first out, as Linux does.
//
// Lines on stdin are commands, each is answered by one line:
//
//     count     ok {json: sent, received, lost, doubled, damaged, connects, laps, bad}; bad: used entries that make no sense
//     reset     as a guest that reboots: rings are zeroed and begin again
//     pause     send no more (packets on their way still come back); go: send again
//     quit
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MEMORY (16U << 20)
#define BASE UINT64_C(0x100000000) // where the guest's memory is in the front-end
#define PART 192                   // bytes of one receive descriptor
#define ROOM 2048                  // of a send buffer
#define CHAIN_MAX 8
#define HEADER sizeof(struct virtio_net_hdr_mrg_rxbuf)
#define AVAIL (1U << VRING_PACKED_DESC_F_AVAIL)
#define USED (1U << VRING_PACKED_DESC_F_USED)

struct buffer {
	uint16_t count; // descriptors in use; 0: free
	uint64_t order; // when it was made available
};

struct ring {
	struct vring_packed_desc *desc;
	struct vring_packed_desc_event *driver, *device;
	uint8_t *room; // a slice of `slice` bytes for each buffer
	uint32_t slice;
	uint16_t size, next, next_used, free_n;
	uint16_t busy; // descriptors that the device has
	bool wrap, used_wrap;
	uint64_t posted, taken; // buffers made available, buffers taken back
	struct buffer *buffer;
	uint16_t *free_id;
	int kick, call;
};

struct frame {
	uint8_t dst[6], src[6];
	uint16_t ethertype, length;
	uint64_t number;
	uint8_t fill[];
} __attribute__((packed));

static struct ring rings[2]; // receive, transmit
static uint8_t *memory;
static int memory_fd;
static unsigned int chain_max = 3, packet_max = 600, window = 48, mtu;
static bool mergeable = true, in_order;
static uint64_t sent, last, received, lost, doubled, damaged, bad, connects, laps;
static bool stop, paused, connected;
static uint16_t missing; // receive buffers of the packet that is being put together
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // of rings, against reset

static void fail(const char *text)
{
	printf("error %s: %s\n", text, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * UINT64_C(1000000000) + t.tv_nsec;
}

static uint32_t dice(void)
{
	static uint64_t x = 88172645463325252ULL;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x >> 16;
}

static uint64_t guest_address(const void *at)
{
	return (uint64_t)((const uint8_t *)at - memory);
}

static void ring_reset(struct ring *r)
{
	memset(r->desc, 0, r->size * sizeof(*r->desc));
	memset(r->driver, 0, sizeof(*r->driver));
	memset(r->device, 0, sizeof(*r->device));
	r->next = r->next_used = r->busy = 0;
	r->wrap = r->used_wrap = true;
	r->posted = r->taken = 0;
	r->free_n = r->size;
	for (uint16_t i = 0; i < r->size; i++) {
		r->buffer[i].count = 0;
		r->free_id[i] = r->size - 1 - i;
	}
}

static uint16_t free_descriptors(const struct ring *r)
{
	return r->size - r->busy;
}

// Makes a buffer available as `count` descriptors with these lengths. The first one's flags are written last.
static void post(struct ring *r, uint16_t id, const uint32_t *length, uint16_t count, uint16_t flags)
{
	uint16_t head = r->next, head_flags = 0;
	uint8_t *at = r->room + (size_t)id * r->slice;

	for (uint16_t i = 0; i < count; i++) {
		struct vring_packed_desc *d = &r->desc[r->next];
		uint16_t f = flags | (i + 1 < count ? VRING_DESC_F_NEXT : 0) | (r->wrap ? AVAIL : USED);

		d->addr = guest_address(at);
		d->len = length[i];
		d->id = id;
		at += length[i];
		if (i)
			d->flags = f;
		else
			head_flags = f;
		if (++r->next == r->size) {
			r->next = 0;
			r->wrap = !r->wrap;
			laps++;
		}
	}
	r->busy += count;
	r->buffer[id] = (struct buffer){count, r->posted++};
	__atomic_store_n(&r->desc[head].flags, head_flags, __ATOMIC_RELEASE);
}

static void kick(struct ring *r)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (r->device->flags != 1 && r->kick >= 0) // 1: disabled
		eventfd_write(r->kick, 1);
}

// Takes back one used buffer: its id and what was written. False: there is none.
static bool take(struct ring *r, uint16_t *id, uint32_t *length)
{
	struct vring_packed_desc *d = &r->desc[r->next_used];
	uint16_t flags = __atomic_load_n(&d->flags, __ATOMIC_ACQUIRE);
	uint16_t count;

	if (!(flags & AVAIL) != !(flags & USED) || !(flags & USED) != !r->used_wrap)
		return false;
	*id = d->id;
	*length = d->len;
	if (*id >= r->size || !r->buffer[*id].count) {
		bad++;
		return false;
	}
	count = r->buffer[*id].count;
	if (in_order && r == &rings[1]) {
		// One entry stands for all buffers up to it.
		uint64_t until = r->buffer[*id].order;

		count = 0;
		for (uint16_t i = 0; i < r->size; i++) {
			if (i != *id && r->buffer[i].count && r->buffer[i].order < until) {
				count += r->buffer[i].count;
				r->buffer[i].count = 0;
				r->free_id[r->free_n++] = i;
				r->taken++;
			}
		}
		count += r->buffer[*id].count;
	}
	r->buffer[*id].count = 0;
	r->free_id[r->free_n++] = *id;
	r->taken++;
	r->busy -= count;
	r->next_used += count;
	if (r->next_used >= r->size) {
		r->next_used -= r->size;
		r->used_wrap = !r->used_wrap;
	}
	return true;
}

static unsigned int post_receive(void)
{
	struct ring *r = &rings[0];
	uint16_t room = free_descriptors(r);
	unsigned int n = 0;

	while (room >= chain_max && r->free_n) {
		uint32_t length[CHAIN_MAX];
		uint16_t count = mergeable ? 1 + dice() % chain_max : chain_max;

		for (uint16_t i = 0; i < count; i++)
			length[i] = mergeable ? PART : 12 + ROOM / chain_max;
		post(r, r->free_id[--r->free_n], length, count, VRING_DESC_F_WRITE);
		room -= count;
		n++;
	}
	return n;
}

static void make(struct frame *f, uint64_t number, uint16_t length)
{
	memset(f->dst, 2, 6);
	memset(f->src, 4, 6);
	f->ethertype = 0xb588; // 0x88b5
	f->length = length;
	f->number = number;
	memset(f->fill, (uint8_t)number, length - sizeof(*f));
}

static unsigned int transmit(void)
{
	struct ring *r = &rings[1];
	uint16_t room = free_descriptors(r);
	unsigned int n = 0;

	while (room >= chain_max && r->free_n && sent - last < window) {
		uint16_t id = r->free_id[--r->free_n], count = 1 + dice() % chain_max;
		uint32_t length = 60 + dice() % (packet_max - 59), total = length + HEADER, part[CHAIN_MAX];
		uint8_t *at = r->room + (size_t)id * r->slice;

		memset(at, 0, HEADER);
		make((struct frame *)(at + HEADER), ++sent, length);
		for (uint16_t i = 0; i + 1 < count; i++) {
			part[i] = i ? 8 : HEADER + 20;
			total -= part[i];
		}
		part[count - 1] = total;
		post(r, id, part, count, 0);
		room -= count;
		n++;
	}
	return n;
}

static void look_at(const uint8_t *bytes, uint32_t length)
{
	const struct frame *f = (const struct frame *)bytes;
	bool right = length >= 60 && f->length == length && f->ethertype == 0xb588;

	for (uint32_t i = 0; right && i < length - sizeof(*f); i++)
		right = f->fill[i] == (uint8_t)f->number;
	if (!right) {
		damaged++;
		return;
	}
	received++;
	if (f->number <= last) {
		doubled++;
		return;
	}
	lost += f->number - last - 1;
	last = f->number;
}

static unsigned int receive(void)
{
	static uint8_t bytes[65536];
	static uint32_t have;
	uint32_t length;
	uint16_t id;
	unsigned int n = 0;

	while (take(&rings[0], &id, &length)) {
		const uint8_t *at = rings[0].room + (size_t)id * rings[0].slice;
		struct virtio_net_hdr_mrg_rxbuf header;

		n++;
		if (!missing) {
			memcpy(&header, at, sizeof(header));
			missing = mergeable ? header.num_buffers : 1;
			have = 0;
			if (missing < 1 || missing > 64 || length < HEADER) {
				damaged++;
				missing = 0;
				continue;
			}
		}
		if (length > rings[0].slice || have + length > sizeof(bytes)) {
			bad++;
			missing = 0;
			continue;
		}
		memcpy(bytes + have, at, length);
		have += length;
		if (!--missing)
			look_at(bytes + HEADER, have - HEADER);
	}
	return n;
}

static void *drive(void *arg)
{
	uint64_t moved = now_ns();
	uint32_t length;
	uint16_t id;

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		unsigned int n = 0;

		pthread_mutex_lock(&lock);
		while (take(&rings[1], &id, &length))
			n++;
		n += receive();
		if (post_receive())
			kick(&rings[0]);
		if (!__atomic_load_n(&paused, __ATOMIC_ACQUIRE) && transmit())
			kick(&rings[1]);
		// What was lost at the end of a burst would close the window for ever.
		if (n || paused || !__atomic_load_n(&connected, __ATOMIC_ACQUIRE)) {
			moved = now_ns();
		} else if (sent - last >= window &&
			   now_ns() > moved + 300000000) {
			lost += sent - last;
			last = sent;
			moved = now_ns();
		}
		pthread_mutex_unlock(&lock);
		if (!n && now_ns() > moved + 100000) {
			const struct timespec nap = {.tv_nsec = 20000};

			nanosleep(&nap, NULL);
		}
	}
	return NULL;
}

// ---- the protocol (QEMU's docs/interop/vhost-user.rst)

static int peer = -1;

static void tell(uint32_t request, const void *payload, uint32_t size, int fd)
{
	uint32_t header[3] = {request, 1, size};
	struct iovec parts[2] = {{header, sizeof(header)}, {(void *)(uintptr_t)payload, size}};
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct msghdr m = {.msg_iov = parts, .msg_iovlen = 2};

	if (fd >= 0) {
		m.msg_control = control;
		m.msg_controllen = sizeof(control);
		CMSG_FIRSTHDR(&m)->cmsg_level = SOL_SOCKET;
		CMSG_FIRSTHDR(&m)->cmsg_type = SCM_RIGHTS;
		CMSG_FIRSTHDR(&m)->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &fd, sizeof(fd));
	}
	if (sendmsg(peer, &m, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
		fail("sendmsg");
}

static void tell_number(uint32_t request, uint64_t number, int fd)
{
	tell(request, &number, sizeof(number), fd);
}

static void introduce(void)
{
	struct {
		uint32_t count, padding;
		uint64_t guest, size, user, offset;
	} table = {1, 0, 0, MEMORY, BASE, 0};

	tell(3, NULL, 0, -1); // SET_OWNER
	if (mtu) {
		tell_number(16, 1 << 4, -1); // SET_PROTOCOL_FEATURES: NET_MTU
		tell_number(20, mtu, -1);    // NET_SET_MTU
	}
	tell_number(2, (mtu ? 1ULL << 30 | 1ULL << VIRTIO_NET_F_MTU : 0) | 1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_F_RING_PACKED | (uint64_t)mergeable << VIRTIO_NET_F_MRG_RXBUF |
			       (uint64_t)in_order << 35, -1);
	tell(5, &table, sizeof(table), memory_fd);
	for (uint32_t i = 0; i < 2; i++) {
		struct ring *r = &rings[i];
		struct {
			uint32_t ring, flags;
			uint64_t descriptors, device, driver, log;
		} address = {i, 0, BASE + guest_address(r->desc), BASE + guest_address(r->device), BASE + guest_address(r->driver), 0};
		uint32_t size[2] = {i, r->size}, place[2] = {i, 0x80008000};

		tell(8, size, sizeof(size), -1);
		tell(10, place, sizeof(place), -1);
		tell(9, &address, sizeof(address), -1);
		tell_number(13, i, r->call);
		tell_number(12, i, r->kick);
	}
	// With protocol features rings start disabled.
	for (uint32_t i = 0; mtu && i < 2; i++) {
		uint32_t enable[2] = {i, 1};

		tell(18, enable, sizeof(enable), -1);
	}
	connects++;
	__atomic_store_n(&connected, true, __ATOMIC_RELEASE);
}

static void command(const char *line)
{
	if (!strcmp(line, "count")) {
		pthread_mutex_lock(&lock);
		printf("ok {\"sent\": %" PRIu64 ", \"received\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"doubled\": %" PRIu64
		       ", \"damaged\": %" PRIu64 ", \"connects\": %" PRIu64 ", \"laps\": %" PRIu64 ", \"bad\": %" PRIu64
		       ", \"connected\": %s}\n",
		       sent, received, lost, doubled, damaged, connects, laps, bad, connected ? "true" : "false");
		pthread_mutex_unlock(&lock);
		return;
	}
	if (!strcmp(line, "reset")) {
		pthread_mutex_lock(&lock);
		ring_reset(&rings[0]);
		ring_reset(&rings[1]);
		last = sent;
		missing = 0;
		pthread_mutex_unlock(&lock);
	} else if (!strcmp(line, "pause") || !strcmp(line, "go")) {
		__atomic_store_n(&paused, line[0] == 'p', __ATOMIC_RELEASE);
	} else {
		printf("error no such command\n");
		return;
	}
	printf("ok\n");
}

static void serve(int listener)
{
	struct pollfd fds[3] = {{STDIN_FILENO, POLLIN, 0}, {listener, POLLIN, 0}, {-1, POLLIN, 0}};
	char line[256];

	for (;;) {
		fds[2].fd = peer;
		poll(fds, 3, -1);
		if (fds[0].revents) {
			if (!fgets(line, sizeof(line), stdin) || !strcmp(line, "quit\n"))
				return;
			line[strcspn(line, "\n")] = '\0';
			command(line);
		}
		if (peer >= 0 && fds[2].revents && recv(peer, line, sizeof(line), MSG_DONTWAIT) <= 0) {
			close(peer);
			peer = -1;
			__atomic_store_n(&connected, false, __ATOMIC_RELEASE);
		}
		if (fds[1].revents && peer < 0) {
			peer = accept(listener, NULL, NULL);
			if (peer >= 0)
				introduce();
		}
	}
}

static uint8_t *carve(size_t size)
{
	static size_t at;
	uint8_t *part = memory + at;

	at += (size + 4095) & ~(size_t)4095;
	if (at > MEMORY)
		fail("rings and buffers are too large");
	return part;
}

static void ring_make(struct ring *r, uint16_t size, uint32_t slice)
{
	r->size = size;
	r->slice = slice;
	r->desc = (void *)carve(size * sizeof(*r->desc));
	r->driver = (void *)carve(sizeof(*r->driver));
	r->device = (void *)carve(sizeof(*r->device));
	r->room = carve((size_t)size * slice);
	r->buffer = calloc(size, sizeof(*r->buffer));
	r->free_id = calloc(size, sizeof(*r->free_id));
	r->kick = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	r->call = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (!r->buffer || !r->free_id || r->kick < 0 || r->call < 0)
		fail("no memory or descriptors");
	ring_reset(r);
}

int main(int argc, char **argv)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	unsigned int size = 64, rx_size = 256, number;
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	pthread_t thread;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 2; i < argc; i++) {
		if (sscanf(argv[i], "size=%u", &size) == 1 || sscanf(argv[i], "rxsize=%u", &rx_size) == 1 ||
		    sscanf(argv[i], "chain=%u", &chain_max) == 1 || sscanf(argv[i], "packet=%u", &packet_max) == 1 ||
		    sscanf(argv[i], "window=%u", &window) == 1 || sscanf(argv[i], "mtu=%u", &mtu) == 1)
			continue;
		if (sscanf(argv[i], "mrg=%u", &number) == 1)
			mergeable = number;
		else if (sscanf(argv[i], "in_order=%u", &number) == 1)
			in_order = number;
	}
	if (argc < 2 || !chain_max || chain_max > CHAIN_MAX || packet_max < 60 || packet_max > ROOM - HEADER)
		fail("usage: see vdriver.c");
	memory_fd = memfd_create("vdriver", MFD_CLOEXEC);
	if (memory_fd < 0 || ftruncate(memory_fd, MEMORY) < 0 ||
	    (memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0)) == MAP_FAILED)
		fail("memory");
	ring_make(&rings[0], rx_size, ROOM + 12 * CHAIN_MAX);
	ring_make(&rings[1], size, ROOM);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", argv[1]);
	unlink(argv[1]);
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 4) < 0)
		fail(argv[1]);
	if (pthread_create(&thread, NULL, drive, NULL))
		fail("thread");
	printf("ok ready\n");
	serve(listener);
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	unlink(argv[1]);
	return 0;
}
