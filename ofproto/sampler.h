// sampler: one of so many packets on the average, at random distances: no rhythm of the traffic hides from it, or is all that
// it sees (RFC 5475 section 5.2).
#ifndef OFPROTO_SAMPLER_H
#define OFPROTO_SAMPLER_H

#include "sizes.h"

#include <stdint.h>

// Used by one thread.
struct sampler {
	uint32_t every;
	uint32_t left; // packets to go before the next one that is picked
	uint64_t state;
};

// From 1 to 2 * every - 1, each as likely.
static inline uint32_t sampler_distance(struct sampler *s)
{
	s->state ^= s->state << 13; // Marsaglia's xorshift
	s->state ^= s->state >> 7;
	s->state ^= s->state << 17;
	return 1 + (uint32_t)((s->state >> 32) * (2 * (uint64_t)s->every - 1) >> 32);
}

// `every` > 0. `seed`: whatever is not the same each time.
static inline void sampler_start(struct sampler *s, uint32_t every, uint64_t seed)
{
	s->every = every;
	s->state = seed | 1;
	for (int i = 0; i < 8; i++) // away from a seed of few bits
		sampler_distance(s);
	s->left = sampler_distance(s) - 1;
}

// Which of the next n <= BURST packets are picked, a bit each. A burst without any costs a comparison.
static inline uint32_t sampler_pick(struct sampler *s, unsigned n)
{
	uint32_t picked = 0;

	while (s->left < n) {
		picked |= 1u << s->left;
		s->left += sampler_distance(s);
	}
	s->left -= n;
	return picked;
}

#endif
