// column: rows and their columns as people write and read them: names instead of UUIDs, "a, b" and "k=v" instead of OVSDB's
// JSON.
#ifndef CTL_COLUMN_H
#define CTL_COLUMN_H

#include "database.h"

// Name of a row: its name column, "NETWORK MAC" of an FDB entry, else the UUID. Freed by the caller.
char *row_name(const struct ovsdb_idl_row *);
// The row as a sentence's subject: "port vm1". Freed by the caller.
char *row_title(const struct ovsdb_idl_row *);
// What its error column says, or NULL. Freed by the caller.
char *row_error(const struct ovsdb_idl_row *);

const struct ovsdb_idl_column *column_find(const struct ovsdb_idl_table_class *, const char *name);

enum column_op {
	COLUMN_SET,    // =
	COLUMN_ADD,    // +=
	COLUMN_REMOVE, // -=
};

// Sets COLUMN, or a key of a map column ("options:path"), from text. References are written as names; an empty value
// clears the column or removes the key. 0, or -1 after fail().
int column_set(struct context *, const struct ovsdb_idl_row *, const char *column, enum column_op, const char *value);
// One argument COLUMN[:KEY]=VALUE (or += or -=).
int column_set_arg(struct context *, const struct ovsdb_idl_row *, const char *arg);
// All options of the command that have a column, then the arguments from `first` on.
int column_set_given(struct context *, const struct ovsdb_idl_row *, int first);

// A cell of the datum.
void column_cell(struct listing *, const struct ovsdb_idl *, const struct ovsdb_datum *, const struct ovsdb_type *);

// The rows as a table of the columns named in `columns` (comma separated) or, if it was given, in --columns; sorted by name.
// `keep` picks rows (with host_of() as its argument); NULL: all.
int rows_list(struct context *, const struct ovsdb_idl_table_class *, const char *columns,
	      bool (*keep)(const struct ovsdb_idl_row *, const char *host));
// One row with all its columns, empty ones left out unless the format is JSON.
int row_show(struct context *, const struct ovsdb_idl_row *);

#endif
