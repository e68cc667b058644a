// lab: a switch in a test's hand: a worker whose clock is moved by the test, ports whose egress is a list, a config built by hand.
//
//     lab_setup();
//     struct config_network *blue = lab_network("blue", 10);
//     uint16_t a = lab_port("a", VLAN_ACCESS, blue)->id, b = lab_port("b", VLAN_TRUNK, NULL)->id;
//     lab_apply();
//     lab_send(a, "arp,dl_src=02:00:00:00:00:01");
//     assert_int_equal(lab.sent[0].port, b);
//     lab_teardown();
//
// lab_teardown() fails the test unless every packet of every port is accounted for and every buffer is back in the pool. It also notes which
// drop reasons were provoked; test_reasons fails for those that no test provokes.
#ifndef TESTS_UNIT_LAB_H
#define TESTS_UNIT_LAB_H

#include "config.h"
#include "forward.h"
#include "parse.h"
#include "stage.h"
#include "worker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LAB_FRAME 65600 // bytes of a frame that the helpers take at most

struct lab_sent {
	uint16_t port, origin;
	uint32_t len;
	uint8_t *bytes;
	uint64_t ol_flags, tx_offload;
};

struct lab {
	struct worker w;
	struct config *config;
	struct lab_sent *sent; // in the order they left
	unsigned n_sent, sent_room;
	bool keep;             // copy what is sent into `sent`; false: count only
	bool traced;           // mark every packet received
	bool (*wants_trace)(struct rte_mbuf *); // of these, NULL: all
	bool beyond_ok;        // a stage of the test reads beyond its profile, on purpose
	char *trace;           // lines of the last trace that was finished
	unsigned traces;       // how many were
	unsigned open_traces;
	uint64_t total_sent;
};

extern struct lab lab;

// What one process needs once.
void lab_eal(void);
// An empty switch with the stages of the pipeline, or with others.
void lab_setup(void);
void lab_setup_stages(struct stage *const *list, unsigned n);
void lab_teardown(void);
// Fails unless every packet is accounted for.
void lab_check(void);

// Rows of the config, with defaults; they stay where they are until the end of the test. `vlan` 0: none.
struct config_network *lab_network(const char *name, uint16_t vlan);
struct config_port *lab_port(const char *name, enum vlan_mode, const struct config_network *);
void lab_trunk(struct config_port *, const struct config_network *);
void lab_address(struct config_port *, const char *mac);
struct config_fdb *lab_static(const struct config_network *, const struct config_port *, const char *mac);
// The last address of the port has this IP too.
void lab_ip(struct config_port *, const char *ip);
struct config_router *lab_router(const char *name);
// A router port and its logical port. The list of prefixes "10.0.0.1/24" ends with NULL.
struct config_router_port *lab_router_port(const char *name, const struct config_router *, const struct config_network *, const char *mac, ...);
// `via`: next hops "10.0.0.1" (weight behind a *), NULL at the end. Of another type: none.
struct config_route *lab_route(const struct config_router *, const char *prefix, enum route_type, ...);
void lab_remove_network(struct config_network *);
void lab_remove_port(struct config_port *);
// Reconciles, makes and takes away the worker's ports as the daemon does.
void lab_apply(void);

void lab_advance_ms(uint64_t);
void lab_pass_ms(unsigned ms); // a multiple of 100: timers run at every step, what they send is seen
void lab_tick(void); // stages_tick() and a round of the flow table's sweep

// A buffer with the bytes; over several mbufs when they are many, or cut at `cut` (0: not).
struct rte_mbuf *lab_mbuf(const void *frame, uint32_t len, uint32_t cut);
// Puts an outer tag in front of what the frame has. Returns the new length.
uint32_t lab_tag(uint8_t *frame, uint32_t len, uint16_t tpid, uint16_t tci);
uint32_t lab_compose(uint8_t *frame, const char *text);
// One burst of one packet, flushed and published; `sent` begins anew.
void lab_send_mbuf(uint16_t port, struct rte_mbuf *);
void lab_send_frame(uint16_t port, const void *frame, uint32_t len);
void lab_send(uint16_t port, const char *text); // text: as compose() takes it
void lab_burst(uint16_t port, struct rte_mbuf **, unsigned n);
void lab_flush(void); // what waits for egress, and the counters
void lab_forget_sent(void);
const struct lab_sent *lab_sent_to(uint16_t port); // the first one, NULL: none

// What forward_explain() says of the packet: its trace, to be freed. `overlay`, `n`: may be NULL.
char *lab_explain(uint16_t port, struct rte_mbuf *, struct effect *overlay, uint8_t *n);
// From now on the worker has a pool of so few buffers for its copies; -1: the large one again.
void lab_few_buffers(int n);

uint64_t lab_count(uint16_t port, enum count);
uint64_t lab_drops(uint16_t port, const char *reason); // "vlan.DISABLED"
uint64_t lab_all_drops(uint16_t port);
uint32_t lab_flows(void);
// The one flow of the port; fails if there are more or none.
struct flow_view lab_flow(uint16_t port);

// Sends and asserts what comes of it: the counter, the trace line, and that nothing else happened.
void lab_expect_drop_frame(uint16_t port, const void *frame, uint32_t len, const char *reason);
void lab_expect_drop(uint16_t port, const char *text, const char *reason);
// ... that exactly the ports of the list, which ends with 0, get it.
void lab_expect_ports(uint16_t port, const char *text, ...);
void lab_expect_trace(const char *part);
void lab_reject_trace(const char *part);
uint16_t lab_reason(const char *name);

#endif
