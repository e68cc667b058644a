// route_load: routes that don't come from the database: of files (weirctl route load) and of the kernel's routing tables
// (other_config:netlink-table of a router), both in slices of the main thread's time.
//
// Main thread.
#ifndef VSWITCH_ROUTE_LOAD_H
#define VSWITCH_ROUTE_LOAD_H

#include "config.h"
#include "listing.h"

// Registers the verbs route/load, route/loading, route/sources, route/show, route/lookup.
void route_load_init(void);
// A slice of what is to be done, and when to come again.
void route_load_run(void);
void route_load_wait(void);
// Which routers follow the kernel. After the routers are made.
void route_load_reconcile(struct config *);
void route_load_stop(void);

// ---- between its files

#define ROUTE_SLICE_NS 2000000ULL

// Routes of a load carry a mark of its own, so that those of the one before it are told from them.
uint16_t route_new_mark(void);

// route_kernel.c
void route_kernel_run(uint64_t until_ns);
void route_kernel_wait(void);
void route_kernel_reconcile(struct config *);
void route_kernel_stop(void);
void route_kernel_list(struct listing *); // rows of route/sources

// route_verbs.c
void route_verbs_init(void);
// A new row of route/sources.
void route_source_row(struct listing *, const char *router, uint32_t table, const char *from, const char *state,
		      unsigned percent, uint64_t routes, uint64_t left_out, const char *note);
// --router and --table of a verb's arguments, taken out. False: *error is set.
bool route_take_table(int *argc, const char *argv[], uint16_t *router, uint32_t *table, bool *has_table, char **error);

#endif
