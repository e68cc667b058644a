// mark: a number of 32 bits that a rule gives a packet on its way through the switch. No byte of the packet has it: it is a matter of the decision, which later stages may
// look at.
#ifndef OFPROTO_MARK_H
#define OFPROTO_MARK_H

#include <stdbool.h>
#include <stdint.h>

struct pkt_mark {
	uint32_t value, mask; // value has no bit outside of mask
};

// VALUE or VALUE/MASK, each decimal or 0x...: 0, or -EINVAL and *error (malloc'ed, one sentence that begins with `what`).
int mark_read(const char *text, const char *what, struct pkt_mark *, char **error);

static inline bool mark_matches(const struct pkt_mark *m, uint32_t mark)
{
	return (mark & m->mask) == m->value;
}

// What becomes of `mark` when it is set.
static inline uint32_t mark_set(const struct pkt_mark *m, uint32_t mark)
{
	return (mark & ~m->mask) | m->value;
}

#endif
