// reconcile: makes the switch what the configuration says, and reports back.
#ifndef VSWITCH_RECONCILE_H
#define VSWITCH_RECONCILE_H

#include "config.h"
#include "db.h"

// Main thread. Takes over the config. A restart is a reconcile from empty.
void reconcile(struct config *, struct db *);
// Writes back states, and with `stats` statistics too.
void reconcile_report(struct db *, bool stats);
// Why a port that is configured passes no traffic, or NULL. Belongs to the module.
const char *reconcile_port_error(const struct row_id *);
// A sentence about other_config, or NULL.
const char *reconcile_problem(void);

#endif
