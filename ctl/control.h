// control: asking the running switch, on its control socket.
#ifndef CTL_CONTROL_H
#define CTL_CONTROL_H

#include "command.h"

// Sends the command as it was given and prints the answer. Returns the exit status. If the switch answers with an error, its
// first line is the sentence that the process ends with (status 1), and what follows is printed as an answer would be.
int control_run(const struct given *);

// One call of `method`. True: *text is the answer. False: *text is the switch's refusal. Ends the process with a
// sentence if there is no switch, or no answer within --timeout. The caller frees *text.
bool control_call(const char *method, int argc, const char *const argv[], char **text);

// When this becomes readable, a call that hangs is given up.
void control_interrupted_by(int fd);

// trace.c: a descriptor that is readable when the user wants an end. Blocked signals don't tear a call to the switch apart.
int end_signals(void);
// The answer comes as long as the user (or --count) wants. `noun`: the switch's NOUN/start, NOUN/read, NOUN/stop.
int follow_run(const struct given *, const char *noun);
// explain.c: takes a packet out of a capture file first, if it is in one.
int explain_run(const struct given *);
// support.c: asks all of them, and more.
int support_run(const struct given *);

// capture.c: packets to a file or pipe, until the user, or an option, wants an end.
int capture_run(const struct given *);

// route_load.c: a file of routes, with progress.
int route_load_run(const struct given *);

// top.c: what ports and workers do right now, on the screen or in batches.
int top_run(const struct given *);

#endif
