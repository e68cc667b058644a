// metrics: what the switch counts, as OpenMetrics text: over HTTP, and as the verb "metrics" of the control socket.
//
// Collected and written by the main thread, when somebody asks; neither workers nor HTTP clients are waited for.
#ifndef VSWITCH_METRICS_H
#define VSWITCH_METRICS_H

#include "config.h"
#include "db.h"
#include "openmetrics.h"

// Registers the verb and opens <rundir>/metrics.sock. `wake`: rings the main thread; any thread calls it.
void metrics_init(struct db *, const char *rundir, void (*wake)(void));
// After ports have their numbers: the labels of ports, and where to listen.
void metrics_reconcile(const struct config *);
// Answers who waits; looks after connections and the address to listen on. Called with every turn of the main loop.
void metrics_run(long long now_ms);
void metrics_close(void);
// Why nobody can get metrics where they are wanted: a sentence, or NULL. Belongs to the module.
const char *metrics_problem(void);
// The whole text; the caller frees it. NULL: out of memory.
char *metrics_render(enum om_format, size_t *len);

#endif
