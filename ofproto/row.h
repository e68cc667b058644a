// row: handles of database rows, so that a flow can name the rows that decided it in four bytes and never holds a pointer into tables.
//
// Main thread writes and reads; workers only copy handles. A handle stays valid while the process lives: one that was given out never means
// another row.
#ifndef OFPROTO_ROW_H
#define OFPROTO_ROW_H

#include "config.h"

// Handle of a row, made if it is new; > 0. `table`: a literal. `name`: what people call it.
uint32_t row_intern(const char *table, const struct row_id *, const char *name);
struct row_info {
	const char *table;
	const char *name;
	struct row_id id;
};
// NULL: no such handle.
const struct row_info *row_get(uint32_t handle);
// Any thread: "Flow 1a2b3c4d". False: no such handle; untouched.
bool row_describe(uint32_t handle, char *text, size_t n);

#endif
