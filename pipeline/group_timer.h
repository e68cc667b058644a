// group_timer: a heap of timers, the next one first.
#ifndef PIPELINE_GROUP_TIMER_H
#define PIPELINE_GROUP_TIMER_H

#include "group_private.h"

// due 0 or UINT64_MAX: none. False: no memory, and it isn't set.
bool timer_set(struct timer *, uint64_t due);
void timer_clear(struct timer *);
struct timer *timer_next(void); // NULL: there is none
void timer_fini(void);

#endif
