// neighbour: ARP and neighbour discovery of the networks that routers are in, see neighbour_table.h.
#include "neighbour_private.h"

static const struct reason neighbour_reason_rows[] = {NEIGHBOUR_REASONS(REASON_ROW)};

static uint16_t neighbour_resolve(struct resolve *r)
{
	return 0;
}

static int reconcile(struct config *want)
{
	return neighbour_configure(want);
}

// What waits goes back before the workers do.
static void release(void)
{
	neighbour_flush(0);
}

STAGE(neighbour, .resolve = neighbour_resolve, .reconcile = reconcile, .release = release, .tick = neighbour_tick,
      .init = neighbour_init, .fini = neighbour_fini);
