// gen: see gen.h.
#include "gen.h"

uint32_t gen_slots[GEN_SLOTS];
uint32_t gen_epoch;

uint32_t gen_bump(uint16_t slot)
{
	uint32_t gen = __atomic_add_fetch(&gen_slots[slot], 1, __ATOMIC_ACQ_REL);

	__atomic_add_fetch(&gen_epoch, 1, __ATOMIC_ACQ_REL);
	return gen;
}

void gen_bump_many(const uint64_t slots[GEN_SLOTS / 64])
{
	for (unsigned i = 0; i < GEN_SLOTS / 64; i++)
		for (uint64_t todo = slots[i]; todo; todo &= todo - 1)
			__atomic_add_fetch(&gen_slots[i * 64 + (unsigned)__builtin_ctzll(todo)], 1, __ATOMIC_ACQ_REL);
	__atomic_add_fetch(&gen_epoch, 1, __ATOMIC_ACQ_REL);
}
