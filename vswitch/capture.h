// capture: copies of packets, on their way to a reader as pcapng.
//
// capture.c (main thread) starts and ends captures; capture_point.c (workers) copies packets into a ring of their own each; capture_thread.c, a thread for
// each capture, makes pcapng of them and writes it to a socket that weirctl has connected to. What finds no room in a ring is lost and counted, and
// forwarded all the same: nobody waits for a reader.
//
//     weirctl                    main thread                     thread of the capture
//     capture/start         ->   makes it, answers "ID SOCKET"
//     connects to SOCKET                                    ->   accepts, makes rings: CAPTURE_READY
//                                gives it to the workers    ->   CAPTURE_RUNS: writes
//     shuts its side down                                   ->   (or N packets, N seconds, the reader is gone): CAPTURE_ENDING
//                                takes it from the workers  ->   CAPTURE_ENDED: writes the rest and statistics, closes
//     reads the end              frees it                   <-   CAPTURE_DONE
#ifndef VSWITCH_CAPTURE_H
#define VSWITCH_CAPTURE_H

#include "worker.h"

// Main thread.
void capture_init(const char *rundir, void (*ring_main)(void));
// Takes captures a step further. Returns whether there are any.
bool capture_run(void);
// Ports have come, gone or changed their names.
void capture_ports_changed(void);
// Ends all of them and waits for that, some seconds at most if readers are stuck.
void capture_stop_all(void);

// Workers with WATCH(CAPTURE_TX) on: a batch of n <= TX_BATCH packets is about to be given to the device of `port`; then: it took the first `taken`
// of them.
void capture_tx(struct worker *, uint16_t port, struct rte_mbuf *const *, unsigned n);
void capture_taken(struct worker *, unsigned taken);

#endif
