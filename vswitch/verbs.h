// verbs: what the control socket answers.
#ifndef VSWITCH_VERBS_H
#define VSWITCH_VERBS_H

#include "buf.h"
#include "control.h"
#include "db.h"
#include "listing.h"

#include <stdbool.h>

// Registers the verbs of the core and of every stage. Main thread, once.
void verbs_init(void);
// Of cache.c.
void cache_init(void);
// Of ledger.c. `db`: for health; it may become unreachable, not go.
void ledger_init(struct db *);
void ledger_run(long long now_ms); // keeps what the counters were, once a second
void ledger_end(void);
// Of explain.c and tracer.c.
int explain_init(void);
void why_init(void);
void tracer_init(void);
// Of log_verbs.c.
void log_verbs_init(void);
// Gives away traces that are finished; closes tracers that nobody reads any more.
void tracer_run(long long now_ms);
void tracer_stop_all(void);

// Takes --NAME out of the arguments. Returns whether it was there.
bool verbs_take_flag(int *argc, const char *argv[], const char *name);
bool verbs_take_json(int *argc, const char *argv[]); // --json
// Value of --NAME VALUE, taken out of the arguments; NULL: not there, or nothing behind it (then *error is set).
const char *verbs_take_option(int *argc, const char *argv[], const char *name, char **error);
// Answers with the listing, and frees it.
void verbs_reply(struct control_request *, struct listing *, bool json);
// Answers with a sentence made by printf rules.
void verbs_refuse(struct control_request *, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
