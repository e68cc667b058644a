// pages: verbs of the control socket whose lists may be long (page.h).
//
//     NAME [--json] [--limit N] [--page start|CURSOR] ...
//
// With --page the answer is one part of the list, behind a line "next CURSOR", or "end" with the last part: weirctl reads long lists this way, so
// that the first rows are there at once. Without --page, as ovs-appctl asks, the answer is the whole list; it is made in pieces between which the
// main thread does its other work, and is refused if it is longer than PAGES_WHOLE rows, as the text of one answer is sent in one go.
//
// Main thread.
#ifndef VSWITCH_PAGES_H
#define VSWITCH_PAGES_H

#include "page.h"

#define PAGES_WHOLE 20000

// Registers a verb. `list` gets what is left of the arguments.
void pages_register(const char *name, const char *usage, page_fn *list);
// Goes on with answers that are being made.
void pages_run(void);
void pages_wait(void);
// Gives them up.
void pages_stop(void);

#endif
