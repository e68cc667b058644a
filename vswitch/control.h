// control: the switch's control socket. It speaks the JSON-RPC of Open vSwitch's unixctl, so that `ovs-appctl -t SOCKET` works too.
//
// Main thread. This header shows no type of the Open vSwitch library: control.c is the only file that knows it.
#ifndef VSWITCH_CONTROL_H
#define VSWITCH_CONTROL_H

#include "log.h"

#include <stdbool.h>

struct control_request; // one call that waits for its answer

// argv[0] is the command's name. The handler answers with control_reply() or control_reply_error(), now or later.
typedef void control_handler(struct control_request *, int argc, const char *argv[], void *aux);

// 0, or a negative errno and *error (malloc'ed sentence).
int control_open(const char *path, char **error);
void control_close(void);
void control_run(void);
void control_wait(void);
void control_register(const char *name, const char *usage, int min_args, int max_args, control_handler *, void *aux);
// The text is copied. Each request is answered exactly once.
void control_reply(struct control_request *, const char *text);
void control_reply_error(struct control_request *, const char *sentence);

// The poll loop of the main thread.
void loop_wait_until(long long msec);  // monotonic milliseconds
void loop_wait_fd(int fd);             // until readable
void loop_block(void);
long long loop_msec(void);             // monotonic milliseconds now

#endif
