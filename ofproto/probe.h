// probe: static tracepoints (USDT) of the switch, provider `weir`: what bpftrace, SystemTap and GDB attach to. Scripts: packaging/bpftrace/.
//
//     PROBE(drop, lp->name, reason->module, reason->name, m->pkt_len, w->id);
//
// A probe that nobody looks at costs a load and a test of its semaphore, which the kernel raises when somebody attaches; the arguments are not
// computed then. They are integers, and pointers to text that is valid while the probe fires. Any thread.
#ifndef OFPROTO_PROBE_H
#define OFPROTO_PROBE_H

#include <rte_branch_prediction.h>

// name, what happens, its arguments from arg0 on
#define PROBES(X)                                                                                                      \
	X(drop, "a packet is dropped", "ingress port (text); module of the reason (text); name of the reason (text); bytes; worker")                   \
	X(resolve, "a first or stale packet was decided", "ingress port (text); nanoseconds; decision: port, flood or drop (text); worker")            \
	X(flow_new, "a flow is put into a worker's cache", "ingress port (text); flows of the worker")                 \
	X(flow_end, "a flow goes", "ingress port (text); why: idle, evicted, replaced or port (text); packets; bytes; milliseconds that it was in use") \
	X(port_state, "a port comes up or goes down, or says something else of why", "port (text); 1: up, 0: down; problem or nothing (text)")           \
	X(worker_sleep, "a worker goes to sleep", "worker; how: pause or wait (text); microseconds at most")           \
	X(worker_wake, "a worker is awake again", "worker; how it slept: pause or wait (text); nanoseconds asleep")

#if INSTRUMENTS

#define _SDT_HAS_SEMAPHORES 1
#define SDT_USE_VARIADIC 1
#include <sys/sdt.h>

#define PROBE_SEMAPHORE(name, what, args) extern volatile unsigned short weir_##name##_semaphore;
PROBES(PROBE_SEMAPHORE)

#define PROBE_ON(name) unlikely(weir_##name##_semaphore)
#define PROBE(name, ...)                                                                                               \
	do {                                                                                                           \
		if (PROBE_ON(name))                                                                                    \
			STAP_PROBEV(weir, name, __VA_ARGS__);                                                          \
	} while (0)

#else

static inline void probe_nothing(int n, ...)
{
}

#define PROBE_ON(name) 0
#define PROBE(name, ...)                                                                                               \
	do {                                                                                                           \
		if (0)                                                                                                 \
			probe_nothing(0, __VA_ARGS__);                                                                 \
	} while (0)

#endif
#endif
