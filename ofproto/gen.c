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
