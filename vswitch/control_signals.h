// control_signals: keeps Open vSwitch's library from taking the process's signals.
//
// Its poll loop installs handlers for SIGTERM, SIGINT, SIGHUP, SIGALRM and SIGSEGV wherever these have the default action, and
// ends the process in them. The switch ends by itself: every entry to the library calls this first. SIGPIPE is
// ignored, unless the process handles it.
#ifndef VSWITCH_CONTROL_SIGNALS_H
#define VSWITCH_CONTROL_SIGNALS_H

// Main thread; idempotent.
void control_keep_signals(void);

#endif
