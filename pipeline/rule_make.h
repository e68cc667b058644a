// rule_make: rows of table Flow as rules: what they say, and the ports and the class that they name.
//
// Main thread, but for rule_work.
#ifndef PIPELINE_RULE_MAKE_H
#define PIPELINE_RULE_MAKE_H

#include "rule_table.h"

#define RULE_WORK_MAX (1 << 16) // rules that have work per packet, at most
extern struct rule *rule_work[RULE_WORK_MAX]; // RCU; by rule.work; [0]: never used

// Ports by their names.
struct rule_names {
	struct named *port;
	size_t n;
};

int rule_names_make(const struct config *, struct rule_names *); // 0 or -ENOMEM
void rule_names_free(struct rule_names *);

// `network`: id; 0: of the row's network, if it has one, there is none yet. NULL: no memory. A rule that can't be says so in its `error`.
struct rule *rule_make(const struct config_flow *, uint16_t network, const struct rule_names *);
// Whether the row would make the same rule again.
bool rule_is_unchanged(const struct rule *, const struct config_flow *, uint16_t network, const struct rule_names *);
// After a grace period: packets may have been decided with it until then.
void rule_free(void *rule);

#endif
