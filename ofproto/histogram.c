// histogram: see histogram.h.
#include "histogram.h"

uint64_t histogram_low(unsigned index)
{
	if (index < 2 * HISTOGRAM_STEPS)
		return index;
	unsigned shift = (index >> HISTOGRAM_STEP_BITS) - 1;
	return (uint64_t)(HISTOGRAM_STEPS + (index & (HISTOGRAM_STEPS - 1))) << shift;
}

uint64_t histogram_high(unsigned index)
{
	return index + 1 < HISTOGRAM_BUCKETS ? histogram_low(index + 1) - 1 : UINT64_MAX;
}

void histogram_merge(struct histogram *to, const struct histogram *from)
{
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		to->bucket[i] += __atomic_load_n(&from->bucket[i], __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	to->sum += __atomic_load_n(&from->sum, __ATOMIC_RELAXED);
	uint64_t max = __atomic_load_n(&from->max, __ATOMIC_RELAXED);
	if (max > to->max)
		to->max = max;
}

void histogram_since(struct histogram *now, const struct histogram *before)
{
	unsigned last = 0;

	// Of a port that was folded into another account meanwhile there may be less than before.
	now->sum = now->sum > before->sum ? now->sum - before->sum : 0;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		now->bucket[i] = now->bucket[i] > before->bucket[i] ? now->bucket[i] - before->bucket[i] : 0;
		if (now->bucket[i])
			last = i;
	}
	if (!now->bucket[last])
		now->max = 0;
	else if (histogram_index(now->max) != last)
		now->max = histogram_high(last);
}

uint64_t histogram_count(const struct histogram *h)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		n += h->bucket[i];
	return n;
}

uint64_t histogram_quantile(const struct histogram *h, double q)
{
	uint64_t count = histogram_count(h), below = 0;
	// Of 1,000 values the 990th is p99.
	double wanted = q * (double)count;
	uint64_t rank = wanted < (double)count ? (uint64_t)wanted : count;

	rank += rank < count && (double)rank < wanted;
	rank += !rank;

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		below += h->bucket[i];
		if (below >= rank) {
			uint64_t high = histogram_high(i);

			return high < h->max ? high : h->max;
		}
	}
	return 0;
}

uint64_t histogram_at_most(const struct histogram *h, uint64_t limit)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS && histogram_high(i) <= limit; i++)
		n += h->bucket[i];
	return n;
}
