// adjacency: see adjacency.h.
#include "adjacency.h"
#include "rcu.h"

struct adjacency adjacencies[MAX_ADJACENCIES]; // its pages are the kernel's until they are written to

static uint16_t next_free[ADJACENCY_ACTIONS];
static uint16_t first_free; // 0: none
static uint32_t high = 1;   // none from here on was ever used
static uint32_t count;

uint16_t adjacency_new(const struct adjacency *a)
{
	uint16_t index = first_free;

	if (index)
		first_free = next_free[index];
	else if (high < ADJACENCY_ACTIONS)
		index = (uint16_t)high++;
	else
		return 0;
	adjacencies[index] = *a;
	adjacencies[index].used = 1;
	count++;
	return index;
}

static void give_back(void *arg)
{
	uint16_t index = (uint16_t)(uintptr_t)arg;

	next_free[index] = first_free;
	first_free = index;
}

void adjacency_release(uint16_t index)
{
	if (!index)
		return;
	// Its bytes stay as they are: a worker that still has it writes what it would have written a moment before.
	adjacencies[index].used = 0;
	count--;
	rcu_defer(give_back, (void *)(uintptr_t)index);
}

uint32_t adjacency_count(void)
{
	return count;
}
