// station_file: keeps who talks with whom (station_talk.h) in <rundir>/stations over a restart, and tells guests that come
// back.
//
// Main thread.
#ifndef VSWITCH_STATION_FILE_H
#define VSWITCH_STATION_FILE_H

#include <stdbool.h>
#include <stdint.h>

void station_file_init(const char *rundir);
// What was kept, as soon as networks and ports are known: reconcile() does it, once.
void station_file_load(void);
// Writes it anew if it has changed, every few seconds. `end`: now.
void station_file_run(int64_t now_ms, bool end);

#endif
