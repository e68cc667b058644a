// stack: carries packets between the workers and the switch's own stack (ofproto/punt.h). Main thread.
#ifndef VSWITCH_STACK_H
#define VSWITCH_STACK_H

// `ring`: wakes the main thread; any thread.
void stack_init(void (*ring)(void));
// Gives what workers punted to the stages.
void stack_run(void);
// The switch ends: what the stages hold goes back to the workers, which still run.
void stack_stop(void);

#endif
