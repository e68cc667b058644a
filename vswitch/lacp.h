// lacp: the link aggregation control protocol of one bond (IEEE 802.1AX-2008 clause 5.4; 802.1AX-2014 clause 6.4): receive, periodic transmission, selection and mux
// machines, and the responder of the marker protocol (5.5, 6.5).
//
// It knows no devices and no clock: frames and `now` (nanoseconds) are arguments, what it says goes to lacp.send. One thread.
#ifndef VSWITCH_LACP_H
#define VSWITCH_LACP_H

#include <stdbool.h>
#include <stdint.h>

#define LACP_PORTS 8
#define LACP_FRAME 124 // bytes of an LACPDU with its Ethernet header

// Bits of lacp_info.state.
#define LACP_ACTIVE 0x01
#define LACP_SHORT 0x02 // short timeout: it wants to hear every second
#define LACP_AGGREGATION 0x04
#define LACP_SYNC 0x08
#define LACP_COLLECTING 0x10
#define LACP_DISTRIBUTING 0x20
#define LACP_DEFAULTED 0x40
#define LACP_EXPIRED 0x80

struct lacp_info {
	uint16_t system_priority;
	uint8_t system[6];
	uint16_t key;
	uint16_t port_priority;
	uint16_t port;
	uint8_t state;
};

enum lacp_receive {
	LACP_PORT_DISABLED,
	LACP_RX_EXPIRED,
	LACP_RX_DEFAULTED,
	LACP_RX_CURRENT,
};

enum lacp_mux {
	LACP_DETACHED,
	LACP_WAITING,
	LACP_ATTACHED,
	LACP_MUX_COLLECTING,
	LACP_MUX_DISTRIBUTING,
};

#define LACP_COUNTS(X)                                                                                                 \
	X(rx, "LACPDUs received")                                                                                      \
	X(tx, "LACPDUs sent")                                                                                          \
	X(bad, "frames that are no right LACPDU or marker")                                                            \
	X(markers, "markers answered")                                                                                 \
	X(markers_ignored, "markers beyond those that are answered")                                                   \
	X(expired, "times that the partner was not heard of in time")

struct lacp_port {
	bool used, up;
	uint8_t mac[6];     // that its frames come from
	struct lacp_info actor, partner;
	enum lacp_receive receive;
	enum lacp_mux mux;
	bool selected, ntt;
	bool waiting;       // wait_while runs
	uint64_t current_while, wait_while, periodic; // when they run out
	bool told_slowly;   // at which of its two rates `periodic` was set
	uint64_t second;    // of these
	unsigned sent, marked; // LACPDUs and markers sent in this second
#define X(name, text) uint64_t name;
	LACP_COUNTS(X)
#undef X
};

struct lacp {
	uint16_t system_priority, key;
	uint8_t system[6];
	bool active, fast;
	struct lacp_port port[LACP_PORTS];
	void (*send)(void *arg, unsigned port, const uint8_t *frame, uint16_t len);
	void *arg;
};

// System, key and rates may be changed at any time; what was agreed on before is agreed on again if need be.
void lacp_configure(struct lacp *, uint16_t system_priority, const uint8_t system[6], uint16_t key, bool active, bool fast);
void lacp_add(struct lacp *, unsigned port, uint16_t number, uint16_t priority, const uint8_t mac[6]);
void lacp_remove(struct lacp *, unsigned port);
// Its link is up or down.
void lacp_link(struct lacp *, unsigned port, bool up, uint64_t now);
// A frame of slow protocols, Ethernet header and all. 0, or -EINVAL: it is none that makes sense, and changes nothing.
int lacp_receive(struct lacp *, unsigned port, const uint8_t *frame, uint32_t len, uint64_t now);
// Some times a second: whatever time does.
void lacp_tick(struct lacp *, uint64_t now);
// Ports, a bit each, that packets are taken from, and that they are sent by.
uint32_t lacp_collecting(const struct lacp *);
uint32_t lacp_distributing(const struct lacp *);
// Whether a partner is known on any port.
bool lacp_has_partner(const struct lacp *);
// "active,short,aggregation,..." of a state; returns `text`.
const char *lacp_state_text(uint8_t state, char text[96]);
const char *lacp_mux_name(enum lacp_mux);
const char *lacp_receive_name(enum lacp_receive);

#endif
