// dry: one packet through the real stages and the real egress of its ports, on a worker that changes nothing: no address is
// learned, no counter moves, and what would be given to a device ends in a list.
//
// Main thread.
#ifndef VSWITCH_DRY_H
#define VSWITCH_DRY_H

#include "compose.h"
#include "stage.h"

// A packet that would leave.
struct dry_out {
	uint16_t port;
	uint16_t queue;
	bool csum;    // its checksum is left to the device or guest: it holds the sum of the pseudo-header
	uint16_t mss; // it is left to them to cut it into segments of so many bytes, 0: no
	uint32_t len;
	uint8_t *bytes;
};

// A packet, or a copy of one, that would be dropped.
struct dry_drop {
	uint16_t port; // on the way out of which, 0: before that was known
	uint16_t reason;
};

struct dry_run {
	struct trace *trace;
	uint16_t in_port;
	uint32_t len;
	bool answered;            // the switch itself answers it, by the port that it came from: that is what leaves
	uint16_t answer_reason;   // for which reason the packet ends then; 0: it was for the switch
	bool waits;               // it goes to the switch's own stack, and perhaps on from there
	uint16_t adj;             // by which it is routed, adjacency.h; 0: it isn't
	uint32_t mark;            // that a rule gave it, mark.h
	struct decision decision; // as it was resolved; OUT_NONE: it was malformed
	struct dry_out *out;
	unsigned n_out, room_out;
	struct dry_drop *drop;
	unsigned n_drop, room_drop;
};

// What decisions before this one would have changed.
struct dry_overlay {
	struct effect effect[EFFECTS_MAX];
	uint8_t n;
};

struct dry_packet {
	uint16_t port; // by which it comes in
	const uint8_t *frame;
	unsigned len;
	bool csum;    // the guest leaves its checksum to the switch
	uint16_t mss; // and it is to be cut into segments of so many bytes; 0: no
};

int dry_init(void);
// 0, or -ENOMEM. The overlay is read, and gets the packet's own effects.
int dry_send(const struct dry_packet *, struct dry_overlay *, struct dry_run *);
void dry_free(struct dry_run *);
// Whether it is the packet itself, and no copy that a rule or a mirror made of it; the first such, NULL: it doesn't leave.
bool dry_is_packet(const struct dry_run *, const struct dry_out *);
const struct dry_out *dry_first(const struct dry_run *);
// By how many ports it would leave.
unsigned dry_ports(const struct dry_run *);
// For which reason the packet itself would be dropped; 0: it would not.
uint16_t dry_reason(const struct dry_run *);

#endif
