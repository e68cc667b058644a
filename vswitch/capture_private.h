// capture_private: what the files of captures share. See capture.h.
#ifndef VSWITCH_CAPTURE_PRIVATE_H
#define VSWITCH_CAPTURE_PRIVATE_H

#include "capture.h"
#include "pcapng.h"
#include "sizes.h"
#include "worker.h"

#include <pcap/pcap.h>
#include <pthread.h>

#define CAPTURES 4                 // at once
#define CAPTURE_RING (32u << 20)   // bytes of one worker's ring, a power of two
#define CAPTURE_NAME 64
#define CAPTURE_SKIP 0xff      // capture_record.point: filling at the end of the ring

// One packet in a ring. `size` bytes, a multiple of 8, never across the ring's end.
struct capture_record {
	uint32_t size;
	uint16_t port;   // its interface
	uint8_t point;   // enum capture_point, or CAPTURE_SKIP: nothing but these 8 bytes counts
	uint8_t outbound;
	uint32_t len;
	uint32_t caplen;
	uint64_t tsc;
	uint32_t lost;   // packets of that port that were lost since its last record here
	uint16_t reason; // of a drop, 0: alive
	uint16_t other;  // the port at its other end, 0: not known
	uint32_t row;    // that a drop was because of, 0: none
	uint8_t stage;
	uint8_t spare[3];
	uint8_t data[];
};
static_assert(sizeof(struct capture_record) == 40, "the header of a record");

struct capture_ring {
	// The worker's.
	uint64_t head __attribute__((aligned(64))); // what it has published
	uint64_t at;                                // what it has written
	uint64_t room_until;                        // up to where it may write, as far as it has looked
	uint32_t lost[MAX_PORTS];                   // not told by a record yet
	// A batch that the device has not taken yet: how things stand behind each of its packets, and before.
	struct {
		uint64_t at;
		uint32_t lost;
	} mark[TX_BATCH];
	unsigned marks;
	uint32_t tx_lost;
	uint16_t tx_port;
	// The thread's.
	uint64_t tail __attribute__((aligned(64)));
	uint8_t *data;
};

enum capture_state {
	CAPTURE_WAITS,
	CAPTURE_READY,
	CAPTURE_RUNS,
	CAPTURE_ENDING,
	CAPTURE_ENDED,
	CAPTURE_DONE
};

struct capture_interface {
	char name[CAPTURE_NAME];
	uint64_t captured, lost;
};

struct capture {
	unsigned id;
	int state;           // enum capture_state, read and written atomically
	bool quit;           // the switch ends
	// What is wanted; never changes.
	unsigned points;     // bit: enum capture_point
	uint64_t stages;     // bit: index of a stage
	uint16_t port;       // 0: all
	bool has_filter;
	struct bpf_program filter;
	char *filter_text;
	char *points_text;
	char *port_name;
	uint64_t count;      // 0: no limit
	uint32_t snaplen;
	uint64_t seconds;    // 0: no limit
	uint64_t wall_offset; // from the workers' clock to nanoseconds since 1970

	struct capture_ring *ring[MAX_WORKERS]; // by worker; published when it is made
	uint64_t workers;                       // bit: there was this worker when it started

	// The thread's.
	pthread_t thread;
	int listen_fd, wake_fd;
	char socket[108];
	void (*ring_main)(void);
	uint32_t names_seen;
	char (*names)[CAPTURE_NAME];      // [MAX_PORTS]
	uint32_t interface_of[MAX_PORTS]; // index + 1 of the port's present name; 0: none yet
	struct capture_interface *interface;
	uint32_t n_interfaces;
	uint64_t start_ns;
	// Read by anybody.
	uint64_t captured, lost, bytes;
	const char *why; // how it ended; a literal, NULL: it has not
};

// What workers have, immutable.
struct captures {
	unsigned n;
	struct capture *capture[CAPTURES];
};

// capture.c
// Any thread: copies the names of all ports, if they are others than those of *version. Returns whether it did.
bool capture_names(char (*names)[CAPTURE_NAME], uint32_t *version);

// capture_point.c, workers.
struct capture_ring *capture_ring_new(bool populate); // any thread; NULL: no memory
void capture_ring_free(struct capture_ring *);
void capture_packets(struct worker *, enum capture_point, uint16_t port, struct rte_mbuf *const *, unsigned n, uint16_t what, uint32_t row);

// capture_thread.c
void *capture_thread(void *capture);
static inline int capture_state(const struct capture *c)
{
	return __atomic_load_n(&c->state, __ATOMIC_ACQUIRE);
}
static inline void capture_set_state(struct capture *c, enum capture_state s)
{
	__atomic_store_n(&c->state, s, __ATOMIC_RELEASE);
}

#endif
