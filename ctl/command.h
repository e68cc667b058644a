// command: what weirctl can do, and one such command as the user gave it.
//
// The table of commands (commands.c) is the only place that lists them: parsing, --help, --commands (bash completion) and the
// manual page are made from it.
#ifndef CTL_COMMAND_H
#define CTL_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

struct context;
struct given;

// What the global options and the environment say. Read-only once main() has parsed the command line.
struct settings {
	char *db;                                        // OVSDB remotes, comma separated
	char *ctl;                                       // path of the control socket
	const char *private_key, *certificate, *ca_cert; // files, for ssl: remotes; NULL: not said
	const char *host;                                // --host before the first noun; NULL: not said
	const char *names;                               // noun of which only the names are wanted; NULL: none
	bool json;
	bool no_wait;
	unsigned timeout; // seconds; 0: for ever
};
extern struct settings settings;

// An option of one command, or one of weirctl's own.
struct option_desc {
	const char *name; // without the dashes
	const char *arg;  // name of its value in help texts; NULL: it has none
	const char *help;
	const char *column; // COLUMN[:KEY] of the command's row that it sets; NULL: the command looks at it itself
	const char *value;  // without `arg`: what it sets the column to
	bool many;          // may be given several times
};

enum command_kind {
	DATABASE, // part of the transaction
	GENERIC,  // the same, done by Open vSwitch's db-ctl-base
	CONTROL,  // asks the running switch on its control socket
};

#define ANY_NUMBER 1000000 // of arguments

struct command {
	const char *noun;
	const char *verb; // NULL: the noun is all there is
	const char *args; // for help texts; "" if there are none
	int min_args;
	int max_args;
	enum command_kind kind;
	const struct option_desc *options[3]; // arrays that end with .name NULL
	int (*run)(struct context *);         // 0, or -1 after fail(). CONTROL: NULL for "send it as it is"
	const char *control;                  // CONTROL: the switch's command, if not "noun/verb"; no --json is sent then
	int (*ask)(const struct given *);     // CONTROL: does it and gives the exit status; NULL: control_run()
	bool pages;                           // CONTROL: a list that may be long, which the switch gives in parts
	bool bundle;                          // CONTROL: its answer goes into the support bundle; it wants no arguments
	const char *bundle_option;            // but this one, there; of commands without a verb
	bool writes;                          // may change the database
	bool statistics;                      // reads the statistics columns, which are not fetched otherwise
	const char *help;
};

extern const struct command commands[]; // ends with .noun NULL
extern const struct option_desc global_options[];

struct given_option {
	const struct option_desc *desc;
	const char *value; // NULL if it has none
};

// A command as the user gave it. Strings are argv's own.
struct given {
	const struct command *command;
	const char *noun; // the words as they were given, for messages and for commands that only the switch knows
	const char *verb;
	const char *host; // --host of this command; NULL: what settings.host says
	const char **args;
	int n_args;
	struct given_option *options;
	size_t n_options;
};

// Splits the command line at "--", takes the global options out (into `settings`). Exits with a sentence if it is wrong.
// If --help or its like was said, does that and exits; *n is 0 if only settings.names was.
struct given *command_parse(int argc, char *argv[], size_t *n);
// Value of the option, "" if it was given and has none, NULL if it wasn't given.
const char *given_option(const struct given *, const char *name);
// "port add" of a command.
char *command_name(const struct command *);
char *given_name(const struct given *);
// The known word that is nearest to a mistyped one, or NULL. `known` ends with NULL.
const char *nearest(const char *word, const char *const *known);
const char *nearest_noun(const char *word);
bool has_verbs(const char *noun);
// Says that the noun has no such verb (NULL: that it needs one) and which it has, and ends the process.
_Noreturn void die_verb(const char *noun, const char *word);

// Prints the sentence and ends the process with status 1.
// Called before it, to give the terminal back; NULL: nothing.
extern void (*before_dying)(void);
_Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

// usage.c
void usage_all(void);
void usage_noun(const char *noun);
void usage_command(const struct command *);
void usage_for_completion(void); // --commands
void usage_mdoc(void);           // --commands=mdoc: for the manual page
void usage_columns(void);        // --columns
char *usage_line(const struct command *);

#endif
