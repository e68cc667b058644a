// flight: the workers' flight recorders (recorder.h), as verbs show them: worker history, worker history clear.
//
// Main thread.
#ifndef VSWITCH_FLIGHT_H
#define VSWITCH_FLIGHT_H

void flight_init(void);
// Logs what froze since the last call, one line each.
void flight_watch(void);

#endif
