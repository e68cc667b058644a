// class_table: classes of traffic (table Class): names that rules put packets under (action class:NAME), and what came under each.
//
// A class says nothing of a packet's way or rate; it counts. Its counters are credited by flows as those of rules are (flow.h), so that it costs nothing per packet.
// All functions: main thread.
#ifndef PIPELINE_CLASS_TABLE_H
#define PIPELINE_CLASS_TABLE_H

#include "config.h"
#include "flow.h"

// The wanted rows take the place of those there were. 0 or -ENOMEM, and nothing has changed.
int class_table_set(const struct config *want);
void class_table_fini(void);
// Handle (row.h) of the class with this name; 0: there is none.
uint32_t class_table_find(const char *name);

// Handles below this one may be classes'.
uint32_t class_table_end(void);
// What flow_credits_sum() has found, up to class_table_end() at least.
void class_table_count(const struct flow_credit *sum);

struct class_view {
	const char *name;
	const struct row_id *id;
	uint32_t row;
	uint64_t packets, bytes; // as of the last class_table_count()
};
// By name, from 0 on. False: there are no more.
bool class_table_at(size_t i, struct class_view *);

#endif
