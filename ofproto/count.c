// count: see count.h.
#include "count.h"

#include <rte_pause.h>

const struct count_desc count_desc[COUNT_N] = {
#define X(id, key, text) [COUNT_##id] = {key, text},
	COUNTS(X)
#undef X
};

void count_publish(struct port_counts *pc)
{
	uint32_t version = pc->version;

	__atomic_store_n(&pc->version, version + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	for (unsigned i = 0; i < COUNT_N; i++) {
		__atomic_store_n(&pc->counts.c[i], pc->counts.c[i] + pc->local[i], __ATOMIC_RELAXED);
		pc->local[i] = 0;
	}
	for (unsigned w = 0; w < MAX_REASONS / 64; w++) {
		for (uint64_t bits = pc->local_drop_bits[w]; bits; bits &= bits - 1) {
			unsigned r = w * 64 + (unsigned)__builtin_ctzll(bits);

			__atomic_store_n(&pc->counts.drop[r], pc->counts.drop[r] + pc->local_drop[r], __ATOMIC_RELAXED);
			pc->local_drop[r] = 0;
		}
		pc->local_drop_bits[w] = 0;
	}
	__atomic_store_n(&pc->version, version + 2, __ATOMIC_RELEASE);
}

void count_fold(struct port_counts *to, const struct port_counts *from)
{
	uint32_t version = to->version;

	__atomic_store_n(&to->version, version + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	for (unsigned i = 0; i < COUNT_N; i++)
		__atomic_store_n(&to->counts.c[i], to->counts.c[i] + from->counts.c[i], __ATOMIC_RELAXED);
	for (unsigned i = 0; i < MAX_REASONS; i++)
		__atomic_store_n(&to->counts.drop[i], to->counts.drop[i] + from->counts.drop[i], __ATOMIC_RELAXED);
	__atomic_store_n(&to->version, version + 2, __ATOMIC_RELEASE);
}

void count_read(const struct port_counts *pc, struct counts *sum)
{
	struct counts copy;
	uint32_t before;

	do {
		while ((before = __atomic_load_n(&pc->version, __ATOMIC_ACQUIRE)) & 1)
			rte_pause();
		for (unsigned i = 0; i < COUNT_N; i++)
			copy.c[i] = __atomic_load_n(&pc->counts.c[i], __ATOMIC_RELAXED);
		for (unsigned i = 0; i < MAX_REASONS; i++)
			copy.drop[i] = __atomic_load_n(&pc->counts.drop[i], __ATOMIC_RELAXED);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while (__atomic_load_n(&pc->version, __ATOMIC_RELAXED) != before);
	for (unsigned i = 0; i < COUNT_N; i++)
		sum->c[i] += copy.c[i];
	for (unsigned i = 0; i < MAX_REASONS; i++)
		sum->drop[i] += copy.drop[i];
}

int64_t count_missing(const struct counts *s)
{
	uint64_t in = s->c[COUNT_RX] + s->c[COUNT_GENERATED] + s->c[COUNT_COPIES] + s->c[COUNT_SEGMENTS];
	uint64_t out = s->c[COUNT_SENT] + s->c[COUNT_QUEUED] + s->c[COUNT_CONSUMED] + s->c[COUNT_MERGED];

	for (unsigned i = 1; i < MAX_REASONS; i++)
		out += s->drop[i];
	return (int64_t)(in - out);
}
