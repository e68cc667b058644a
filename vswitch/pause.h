// pause: how long the longest round of a worker was, and whose doing that was.
//
// A worker that isn't running looks at none of its ports, so the longest round is the longest pause that the switch made in anybody's
// traffic. Part of it may be the kernel's, which had something else run on the worker's core. What is left is the worker's own: it computed,
// or it waited (page faults, locks of the kernel).
//
// The kernel is asked only of rounds that may be the longest, or that are suspicious; and each millisecond where things stand, as what it says
// is a sum since the thread began. So the parts of a round are right to a millisecond.
#ifndef VSWITCH_PAUSE_H
#define VSWITCH_PAUSE_H

#include <stdbool.h>
#include <stdint.h>

struct pause {
	// Written by the worker, read by anybody.
	uint64_t longest_ns;      // a round, from its start until all was done
	uint64_t longest_away_ns; // of that round, when the worker was ready to go on and had no processor
	uint64_t own_ns;          // the longest round less what it was away
	uint64_t own_asleep_ns;   // of that, when it waited for something else than a processor
	uint32_t cleared;         // as `clear` was when these began
	uint32_t clear;           // counted up by the main thread: begin anew
	// The worker's own.
	int schedstat;
	uint32_t looks;
	uint64_t looked_tsc;            // when it was looked last
	uint64_t slept_tsc;             // asleep since
	uint64_t cpu_ns;                // the thread's time on a processor then
	uint64_t waited_ns;             // its time without one, then or some milliseconds before
};

// The worker's thread.
void pause_start(struct pause *);
void pause_stop(struct pause *);
// A round that took so long, and may have a place here or is suspicious. Returns how much of it the worker was away.
uint64_t pause_measure(struct pause *, uint64_t start_tsc, uint64_t end_tsc);
// Where things stand: see above.
void pause_look(struct pause *, uint64_t tsc);

// Any thread.
void pause_clear(struct pause *);
static inline bool pause_is_clear(const struct pause *p)
{
	return __atomic_load_n(&p->cleared, __ATOMIC_ACQUIRE) != __atomic_load_n(&p->clear, __ATOMIC_RELAXED);
}

#endif
