// explain: a packet from its description, what would happen to it, and to the packet that answers it.
//
// Main thread.
#ifndef VSWITCH_EXPLAIN_H
#define VSWITCH_EXPLAIN_H

#include "assume.h"
#include "buf.h"
#include "dry.h"

struct explanation {
	struct assumed assumed; // what the description left out
	uint8_t *frame;
	unsigned len;
	struct dry_run run;
};

struct explain_request {
	const struct port *port; // by which the packet comes in
	const char *text;        // as compose() takes it
	bool csum;               // see struct dry_packet
	uint16_t mss;
};

// 0, or a negative errno and *error (malloc'ed sentence; NULL: out of memory).
int explain_packet(const struct explain_request *, struct dry_overlay *, struct explanation *, char **error);
// What would happen to the answer of the station that the packet reaches. -ENOENT: there is no answer, *error is the clause
// that says why.
int explain_answer(const struct explanation *to, struct dry_overlay *, struct explanation *, char **error);
void explain_free(struct explanation *);

#endif
