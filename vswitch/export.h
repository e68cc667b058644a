// export: flow records (table Flow_Export): taken from the workers' tables, given to collectors and files.
//
// A flow that ends leaves a record in a ring of its worker (flow.h), which the main thread empties every EXPORT_MS; flows that last are
// found by walking the tables, a little each time, so that a table is walked through several times per active time-out. What a record
// counts is what was not in records before: a mark per row and flow says how far those went. Marks are touched for flows that outlive the
// active time-out only.
//
// 16,384 flows of a worker may end between two looks; what comes faster is lost, and counted.
//
// Main thread.
#ifndef VSWITCH_EXPORT_H
#define VSWITCH_EXPORT_H

#include "config.h"
#include "db.h"

#define EXPORT_MS 20

void export_init(void); // verbs
// Rows that can't be get their error.
void export_reconcile(struct config *);
// A bounded piece of work.
void export_run(long long now_ms);
// When it is due next; LLONG_MAX: never.
long long export_next(void);
// Statistics, into the database.
void export_report(struct db *);
// Reports all flows that there are, as the switch ends.
void export_stop(void);
void export_close(void);

#endif
