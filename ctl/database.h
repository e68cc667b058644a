// database: the commands of one command line as one transaction, and the wait until the switches have applied it.
//
// Files that include this header see the types of Open vSwitch's library.
#ifndef CTL_DATABASE_H
#define CTL_DATABASE_H

#include "openvswitch.h"

#include "command.h"

#include "ovsdb-idl-provider.h"
#include "openvswitch/dynamic-string.h"
#include "weir-idl.h"

struct listing;

// One command while its transaction is made. A command may run more than once, if the database changes under it.
struct context {
	const struct given *given;
	struct ovsdb_idl *idl;
	struct ovsdb_idl_txn *txn;
	const struct weirrec_weir *root;
	struct ovsdb_symbol_table *symtab; // names of new rows, for the generic commands
	struct ds output;                  // printed when the transaction is in the database
	char *error;
	bool try_again; // what the command waits for isn't there yet
	void *generic;  // generic.c's
};

// Sets the sentence and returns -1. The transaction is given up.
int fail(struct context *, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// The transaction changes this row: its `error` is told afterwards.
void touch(const struct ovsdb_idl_row *);
// The host that --host names for this command, or NULL.
const char *host_of(const struct context *);
// The switch that has to apply the change; NULL or "": all.
void concern(const char *host);

// Runs the commands. Returns the exit status.
int database_run(const struct given *, size_t n);
// Prints the names of the rows of a table, one a line, for completion. Says nothing if there is no database.
void database_names(const char *noun);

// Renders into ctx->output as --format says.
void output_table(struct context *, const struct listing *);
void output_record(struct context *, const struct listing *);

// generic.c: commands of db-ctl-base.
void generic_init(void);
void *generic_parse(const struct given *); // exits with a sentence if they are wrong
void generic_prerequisites(void *, struct ovsdb_idl *);
int generic_run(struct context *);
void generic_committed(struct context *); // output that depends on what the database says
void generic_reset(void *);

// init and what stands in for it: the root row, made if it isn't there.
int init_run(struct context *);

#endif
