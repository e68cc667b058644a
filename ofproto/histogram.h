// histogram: how often which value was seen, log-linear as HdrHistogram's (hdrhistogram.org): every power of two is cut into 16
// steps of one size.
//
// Values are whole numbers, of latencies nanoseconds. Below 32 each value has a bucket of its own. Above, a bucket spans at
// most 1/16 of its lowest value, so what is said of a value (histogram_quantile() and the bounds of buckets) is never below it,
// and at most 6.25 % above it. Values from 2^HISTOGRAM_BITS (34 s of nanoseconds) on are counted in the last bucket; `max` and
// `sum` have them as they are.
//
// One thread adds, any thread reads at the same time: each figure is right by itself. A reader takes a copy with
// histogram_merge(), and everything that it then asks of the copy follows from the same buckets; `sum` may lack, or have,
// values that were added meanwhile.
#ifndef OFPROTO_HISTOGRAM_H
#define OFPROTO_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEP_BITS 4 // 16 steps
#define HISTOGRAM_STEPS (1u << HISTOGRAM_STEP_BITS)
#define HISTOGRAM_BITS 35
#define HISTOGRAM_BUCKETS ((HISTOGRAM_BITS - HISTOGRAM_STEP_BITS + 1) * HISTOGRAM_STEPS)

// All zero: empty.
struct histogram {
	uint64_t sum; // of the values
	uint64_t max;
	uint64_t bucket[HISTOGRAM_BUCKETS];
};

// The bucket of a value.
static inline unsigned histogram_index(uint64_t value)
{
	if (value < HISTOGRAM_STEPS)
		return (unsigned)value;
	if (value >> HISTOGRAM_BITS)
		return HISTOGRAM_BUCKETS - 1;
	unsigned shift = 63 - HISTOGRAM_STEP_BITS - (unsigned)__builtin_clzll(value);
	return (shift << HISTOGRAM_STEP_BITS) + (unsigned)(value >> shift);
}

// The one writer: `n` times this value.
static inline void histogram_add(struct histogram *h, uint64_t value, uint64_t n)
{
	uint64_t *bucket = &h->bucket[histogram_index(value)];

	if (value > h->max) // first, so that no copy has a value above its max
		__atomic_store_n(&h->max, value, __ATOMIC_RELAXED);
	__atomic_store_n(&h->sum, h->sum + value * n, __ATOMIC_RELAXED);
	__atomic_store_n(bucket, *bucket + n, __ATOMIC_RELEASE);
}

// Lowest and highest value of a bucket.
uint64_t histogram_low(unsigned index);
uint64_t histogram_high(unsigned index);

// Adds what `from` has, which its writer may be adding to, to what `to` has, which nobody else uses.
void histogram_merge(struct histogram *to, const struct histogram *from);
// Of two copies of one histogram, `now` and one made before it: makes `now` what was added between them. The largest value of
// an interval is not known exactly: `max` becomes the highest value of the last bucket in use, or stays if the largest value
// ever is in that one.
void histogram_since(struct histogram *now, const struct histogram *before);

// Of copies:
uint64_t histogram_count(const struct histogram *);
// The smallest bound that the share q (0..1) of the values is not above: at least the exact quantile, at most 1/16 above it,
// and never above `max`. 0 if there are no values.
uint64_t histogram_quantile(const struct histogram *, double q);
// How many values are certainly not above `limit`: those of all buckets that end there or before. Exact if limit + 1 is where a
// bucket begins, as every power of two is.
uint64_t histogram_at_most(const struct histogram *, uint64_t limit);

#endif
