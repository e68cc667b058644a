// why: packets like one that is described, and what the switch knows of them, a row for each check.
//
// Main thread.
#ifndef VSWITCH_WHY_H
#define VSWITCH_WHY_H

#include "explain.h"
#include "parse.h"

enum why_state {
	WHY_OK,
	WHY_PROBLEM,
	WHY_UNKNOWN,
};

struct why {
	const struct port *in;
	const char *text; // of the packet
	struct dry_overlay overlay;
	struct explanation e;
	struct parsed_frame f;
	bool is_sound;               // f is what the packet is
	struct flow_key value, mask; // which packets are like it
	const struct port
		*out; // the one port that it leaves by, or would but for the state of that port; NULL: none, or several
	struct explanation back; // of the answer
	int answered;            // 0: there is one
	char *no_answer;         // why there is none
};

// Adds what is known to the text: one clause.
struct why_check {
	const char *name, *question;
	enum why_state (*run)(const struct why *, struct buf *);
};

#define WHY_CHECKS 9
extern const struct why_check why_checks[WHY_CHECKS];

// Whether the answer would leave by the port that the packet came in by.
bool why_comes_back(const struct why *);

#endif
