// recorder: a worker's flight recorder: its last rounds, and the rounds before one that was suspicious.
//
// A worker has two rings of RECORDER_ROUNDS. It writes one; when a round is suspicious, that ring stays as it is, the
// suspicious round last, and the worker goes on with the other. It stays until recorder_thaw(); what is suspicious meanwhile is
// counted and marked in the other ring.
//
// Rounds that had nothing to do are one record, so that a quiet hour leaves the last busy minute where it is.
#ifndef OFPROTO_RECORDER_H
#define OFPROTO_RECORDER_H

#include "buf.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#define RECORDER_ROUNDS 1024
#define STORM_NS 100000000 // a storm is so many resolved packets within this time

enum suspicion {
	SUSPICION_NONE,
	SUSPICION_LONG,  // a round took longer than round_ns
	SUSPICION_FULL,  // packets were dropped because a queue of the switch was full
	SUSPICION_STORM, // more packets were resolved than storm_resolves
	SUSPICION_N
};

// One round of a worker, or several one after the other that found nothing to do.
struct round {
	uint64_t start_ns; // the worker's clock
	uint64_t busy_ns;  // from its start until all was done; of several their sum
	uint64_t slept_ns; // then
	uint32_t rounds;   // how many
	uint32_t packets;  // received
	uint32_t resolved;
	uint32_t dropped;
	uint32_t misses;  // packets that waited to be resolved when it ended
	uint32_t backlog; // packets that waited for their egress device when it ended
	uint32_t call_us; // of busy_ns, what the main thread had the worker do
	uint32_t away_us; // SUSPICION_LONG: of busy_ns, when the worker was ready to go on and had no processor
	union {
		struct {
			uint16_t full;      // of the dropped ones, those for which a queue was full
			uint16_t full_port; // the last port whose queue was
		};
		uint32_t storm; // SUSPICION_STORM: resolved within STORM_NS
	};
	uint16_t preempted; // SUSPICION_LONG: how often the kernel took the core away, within the last second or so
	uint8_t why;        // enum suspicion
	uint8_t full_tx;    // the queue was that of the egress port; else that of packets of unknown flows
};
static_assert(sizeof(struct round) == 64, "a record is a cache line");

struct recorder_limits { // 0: never suspicious
	uint64_t round_ns;
	uint32_t full;           // packets dropped at full queues in one round
	uint32_t storm_resolves; // resolved packets in STORM_NS
};

struct recorder_ring {
	uint64_t n; // records ever; the last ones are there
	struct round round[RECORDER_ROUNDS];
};

struct recorder {
	struct recorder_limits limit;     // written by the main thread
	uint64_t suspicious[SUSPICION_N]; // how many rounds were
	int8_t frozen; // ring that stays as it is, -1: none. The worker sets it if it is -1, the main thread sets it to -1
	uint8_t live;  // ring that the worker writes
	uint64_t storm_since_ns; // the worker's
	uint32_t storm_n;
	struct recorder_ring ring[2];
};

// NULL: no memory.
struct recorder *recorder_new(void);
void recorder_free(struct recorder *);

// The worker: where the round that begins is to be written down; zeroed.
struct round *recorder_begin(struct recorder *);
// It is written down. Judges it; the record is the reader's then.
enum suspicion recorder_end(struct recorder *);
// How long the worker slept after it.
void recorder_slept(struct recorder *, uint64_t ns);

// The main thread.
void recorder_limit(struct recorder *, const struct recorder_limits *);
void recorder_thaw(struct recorder *);
// Copies the last `max` records, oldest first, of the frozen ring or of the other. Returns how many. The last one may still
// change as it is copied.
unsigned recorder_read(const struct recorder *, bool frozen, struct round *, unsigned max);
// Why the round is suspicious, in a sentence; nothing if it isn't. `port`: name of full_port.
void recorder_sentence(struct buf *, const struct round *, const struct recorder_limits *, const char *port);

#endif
