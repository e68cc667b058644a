// rule_table: the operator's rules of one network as they are looked up: the rule of highest priority that matches a packet.
//
// Rules of one mask are one hash (tuple space search; Srinivasan, Suri and Varghese 1999). Masks are tried in the order of their best rules, so that a look-up ends when
// no better rule can come. It is done for the first packet of a flow only.
#ifndef PIPELINE_RULE_TABLE_H
#define PIPELINE_RULE_TABLE_H

#include "actions.h"
#include "config.h"

// A row of table Flow. Immutable while it is in a table.
struct rule {
	struct row_id id;
	uint32_t row;      // handle
	uint32_t class_row; // handle of its class of traffic; 0: none
	uint32_t work;     // handle of what is left to do per packet; 0: nothing
	uint16_t priority;
	uint16_t network;  // 0: every one
	bool active;       // it is in a table; else `error` says why it is not, or it is disabled or its network isn't there yet
	struct match match;
	struct actions actions;
	char *match_text, *actions_text;
	char *error;
	uint64_t packets, bytes; // as shown last; main thread
};

struct rule_table;

// Main thread. `rules` are in the table until it is freed; NULL: no memory.
struct rule_table *rule_table_make(const struct rule *const *rules, size_t n);
void rule_table_free(void *table);
// Whether the table has these rules, in this order.
bool rule_table_is_of(const struct rule_table *, const struct rule *const *rules, size_t n);
// KEY_BIT()s that its rules look at.
uint32_t rule_table_fields(const struct rule_table *);
size_t rule_table_size(const struct rule_table *);
// The best rule for the packet with this whole key, or `best` (may be NULL) if none is better.
const struct rule *rule_table_lookup(const struct rule_table *, const struct flow_key *, const struct rule *best);
// Higher priority; of two that have the same, the one whose row comes first.
bool rule_is_better(const struct rule *, const struct rule *than);

#endif
