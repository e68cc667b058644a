// command: the command line. Options may stand anywhere, global ones too; "--" starts the next command.
#include "command.h"

#include "openvswitch.h"
#include "openvswitch/vlog.h"
#include "util.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct settings settings = {.timeout = 30};

struct line {
	char **token;
	int n;
};

// What the command line asks for instead of running commands.
static bool help_wanted;
// Where --host goes: before the first noun it is for all commands, else for its own.
static const char **host = &settings.host;

void (*before_dying)(void);

void die(const char *fmt, ...)
{
	va_list ap;

	if (before_dying)
		before_dying();
	fflush(stdout);
	fputs("weirctl: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(EXIT_FAILURE);
}

char *command_name(const struct command *c)
{
	return c->verb ? xasprintf("%s %s", c->noun, c->verb) : xstrdup(c->noun);
}

char *given_name(const struct given *g)
{
	return g->verb ? xasprintf("%s %s", g->noun, g->verb) : xstrdup(g->noun);
}

const char *given_option(const struct given *g, const char *name)
{
	for (size_t i = 0; i < g->n_options; i++)
		if (!strcmp(g->options[i].desc->name, name))
			return g->options[i].value ? g->options[i].value : "";
	return NULL;
}

// Levenshtein's distance, a swap of neighbours counts as one.
static unsigned distance(const char *a, const char *b)
{
	enum {
		MAX = 32
	};
	unsigned d[MAX + 1][MAX + 1];
	size_t na = strlen(a), nb = strlen(b);

	if (na > MAX || nb > MAX)
		return MAX;
	for (size_t i = 0; i <= na; i++) {
		for (size_t j = 0; j <= nb; j++) {
			if (!i || !j) {
				d[i][j] = (unsigned)(i + j);
				continue;
			}
			unsigned best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
			best = MIN(best, d[i - 1][j] + 1);
			best = MIN(best, d[i][j - 1] + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				best = MIN(best, d[i - 2][j - 2] + 1);
			d[i][j] = best;
		}
	}
	return d[na][nb];
}

const char *nearest(const char *word, const char *const *known)
{
	const char *found = NULL;
	unsigned best = (unsigned)strlen(word) / 3 + 1;

	for (; *known; known++) {
		bool starts = word[0] && word[1] && !strncmp(*known, word, strlen(word));
		unsigned d = starts ? 1 : distance(word, *known);
		// The first of several: the table has the common ones first.
		if (d < best || (d == best && !found)) {
			best = d;
			found = *known;
		}
	}
	return found;
}

// The words of the table as a list for nearest(): nouns, or the verbs of one noun. Freed by the caller.
static const char **words(const char *noun)
{
	size_t n = 0;

	for (const struct command *c = commands; c->noun; c++)
		n++;
	const char **list = xcalloc(n + 1, sizeof(*list));
	n = 0;
	for (const struct command *c = commands; c->noun; c++) {
		if (!noun)
			list[n++] = c->noun;
		else if (!strcmp(c->noun, noun) && c->verb)
			list[n++] = c->verb;
	}
	return list;
}

const char *nearest_noun(const char *word)
{
	const char **list = words(NULL);
	const char *found = nearest(word, list);

	free(list);
	return found;
}

static unsigned parse_seconds(const char *s)
{
	unsigned value;

	if (!str_to_uint(s, 10, &value) || value > 1000000)
		die("--timeout needs a number of seconds (0: no limit), not '%s'", s);
	return value;
}

static void apply_global(const struct option_desc *o, const char *value)
{
	if (!strcmp(o->name, "db")) {
		free(settings.db);
		settings.db = xstrdup(value);
	} else if (!strcmp(o->name, "ctl")) {
		free(settings.ctl);
		settings.ctl = xstrdup(value);
	} else if (!strcmp(o->name, "private-key")) {
		settings.private_key = value;
	} else if (!strcmp(o->name, "certificate")) {
		settings.certificate = value;
	} else if (!strcmp(o->name, "ca-cert")) {
		settings.ca_cert = value;
	} else if (!strcmp(o->name, "host")) {
		*host = value;
	} else if (!strcmp(o->name, "format")) {
		if (strcmp(value, "table") && strcmp(value, "json"))
			die("--format is table or json, not '%s'", value);
		settings.json = !strcmp(value, "json");
	} else if (!strcmp(o->name, "timeout")) {
		settings.timeout = parse_seconds(value);
	} else if (!strcmp(o->name, "no-wait")) {
		settings.no_wait = true;
	} else if (!strcmp(o->name, "verbose")) {
		vlog_set_verbosity(NULL);
	} else if (!strcmp(o->name, "help")) {
		help_wanted = true;
	} else if (!strcmp(o->name, "names")) {
		settings.names = value;
	} else if (!strcmp(o->name, "version")) {
		puts("weirctl (Weir) " WEIR_VERSION);
		exit(EXIT_SUCCESS);
	} else if (!strcmp(o->name, "commands")) {
		usage_for_completion();
		exit(EXIT_SUCCESS);
	} else if (!strcmp(o->name, "columns")) {
		usage_columns();
		exit(EXIT_SUCCESS);
	}
}

// If token i of the line is the option, sets *value (NULL if it has none) and returns how many tokens it takes, else 0.
static int match_option(const struct line *line, int i, const struct option_desc *o, const char **value)
{
	const char *token = line->token[i];
	size_t n = strlen(o->name);

	*value = NULL;
	if (strncmp(token, "--", 2) || strncmp(token + 2, o->name, n) || (token[2 + n] && token[2 + n] != '='))
		return 0;
	if (!o->arg) {
		if (token[2 + n])
			die("--%s takes no value", o->name);
		return 1;
	}
	if (token[2 + n]) {
		*value = token + 2 + n + 1;
		return 1;
	}
	if (i + 1 >= line->n)
		die("--%s needs a value: --%s %s", o->name, o->name, o->arg);
	*value = line->token[i + 1];
	return 2;
}

// Options that stand for a command count before the noun only: after it, --columns and its like are somebody else's.
static bool instead_of_command(const struct option_desc *o)
{
	return !strcmp(o->name, "names") || !strcmp(o->name, "version") || !strcmp(o->name, "commands") ||
	       !strcmp(o->name, "columns");
}

// Global options, and the three that have a short form.
static int take_global(const struct line *line, int i, bool before_noun)
{
	static const struct {
		const char *letter, *name;
	} shorts[] = {{"-f", "format"}, {"-h", "help"}, {"-v", "verbose"}};
	const char *token = line->token[i];
	const char *value;

	for (const struct option_desc *o = global_options; o->name; o++) {
		if (!before_noun && instead_of_command(o))
			continue;
		int n = match_option(line, i, o, &value);
		for (size_t k = 0; !n && k < ARRAY_SIZE(shorts); k++) {
			if (strcmp(shorts[k].name, o->name) || strncmp(token, shorts[k].letter, 2))
				continue;
			if (!token[2]) {
				n = o->arg ? 2 : 1;
				if (i + n > line->n)
					die("%s needs a value: %s %s", token, token, o->arg);
				value = o->arg ? line->token[i + 1] : NULL;
			} else if (o->arg) {
				n = 1;
				value = token + 2;
			}
		}
		if (n) {
			apply_global(o, value);
			return n;
		}
	}
	return 0;
}

static void add_option(struct given *g, const struct option_desc *o, const char *value)
{
	for (size_t i = 0; i < g->n_options && !o->many; i++)
		if (g->options[i].desc == o)
			die("--%s is said twice", o->name);
	g->options = xrealloc(g->options, (g->n_options + 1) * sizeof(*g->options));
	g->options[g->n_options++] = (struct given_option){o, value};
}

static int take_option(struct given *g, const struct line *line, int i)
{
	for (size_t k = 0; k < ARRAY_SIZE(g->command->options) && g->command->options[k]; k++) {
		for (const struct option_desc *o = g->command->options[k]; o->name; o++) {
			const char *value;
			int n = match_option(line, i, o, &value);
			if (n) {
				add_option(g, o, value);
				return n;
			}
		}
	}
	return 0;
}

static _Noreturn void die_unknown_option(const struct given *g, const char *token)
{
	char *name = given_name(g);
	char *word = xstrdup(token + 2);
	const char *known[64];
	size_t n = 0;

	word[strcspn(word, "=")] = '\0';
	for (size_t k = 0; k < ARRAY_SIZE(g->command->options) && g->command->options[k]; k++)
		for (const struct option_desc *o = g->command->options[k]; o->name && n < 60; o++)
			known[n++] = o->name;
	known[n] = NULL;
	const char *near = nearest(word, known);
	if (near)
		die("%s has no option --%s; did you mean --%s?", name, word, near);
	die("%s has no option --%s (weirctl %s --help shows what it has)", name, word, name);
}

// Index of the first token at or after i that is no global option; those before it are applied.
static int skip_globals(const struct line *line, int i, bool before_noun)
{
	int n;

	while (i < line->n && (n = take_global(line, i, before_noun)) > 0)
		i += n;
	return i;
}

static const struct command *find(const char *noun, const char *verb)
{
	for (const struct command *c = commands; c->noun; c++)
		if (!strcmp(c->noun, noun) && (verb ? c->verb && !strcmp(c->verb, verb) : !c->verb))
			return c;
	return NULL;
}

bool has_verbs(const char *noun)
{
	for (const struct command *c = commands; c->noun; c++)
		if (!strcmp(c->noun, noun) && c->verb)
			return true;
	return false;
}

void die_verb(const char *noun, const char *word)
{
	const char **list = words(noun);
	char *all = xstrdup("");

	for (size_t i = 0; list[i]; i++) {
		char *longer = xasprintf("%s%s%s", all, i ? ", " : "", list[i]);
		free(all);
		all = longer;
	}
	if (!word)
		die("%s needs a verb: %s", noun, all);
	const char *near = nearest(word, list);
	if (near)
		die("%s has no verb '%s'; did you mean %s %s?", noun, word, noun, near);
	die("%s has no verb '%s', but: %s", noun, word, all);
}

// "set KEY=VALUE" is short for "config set"; "set TABLE RECORD COLUMN=VALUE" is the generic command.
static bool is_short_config(const char *noun, const char *next)
{
	return !strcmp(noun, "set") && next && strchr(next, '=');
}

// Finds the command that noun and verb name. Returns how many words they took.
static int find_command(struct given *g, const char *noun, const char *next)
{
	g->noun = noun;
	if (is_short_config(noun, next)) {
		g->command = find("config", "set");
		return 1;
	}
	g->command = next ? find(noun, next) : NULL;
	if (g->command) {
		g->verb = next;
		return 2;
	}
	g->command = find(noun, NULL);
	if (g->command)
		return 1;
	if (has_verbs(noun)) {
		if (help_wanted && !next) {
			usage_noun(noun);
			exit(EXIT_SUCCESS);
		}
		// The switch may know more verbs of it than this table.
		const struct command *any = commands;
		while (strcmp(any->noun, noun) || any->kind != CONTROL) {
			if (!(++any)->noun)
				die_verb(noun, next);
		}
		if (!next)
			die_verb(noun, NULL);
	}
	// A noun that only the switch knows, or nobody: control.c finds out.
	static const struct command elsewhere = {.noun = "", .args = "", .max_args = ANY_NUMBER, .kind = CONTROL};
	g->command = &elsewhere;
	if (next)
		g->verb = next;
	return next ? 2 : 1;
}

static void check_args(const struct given *g)
{
	const struct command *c = g->command;

	if (g->n_args >= c->min_args && g->n_args <= c->max_args)
		return;
	char *line = usage_line(c);
	char *name = given_name(g);
	if (g->n_args < c->min_args)
		die("%s needs more: %s", name, line);
	die("%s: '%s' is too much: %s", name, g->args[c->max_args], line);
}

static struct given parse_one(struct line *line)
{
	struct given g = {0};
	int early[16];
	size_t n_early = 0;
	int i = 0;

	// Flags of the command may stand before its noun, as in ovs-vsctl: they are looked at when the noun is known.
	for (;;) {
		i = skip_globals(line, i, true);
		if (i >= line->n || strncmp(line->token[i], "--", 2))
			break;
		if (n_early == ARRAY_SIZE(early))
			die("too many options before the noun");
		early[n_early++] = i++;
	}
	if (i >= line->n) {
		if (help_wanted)
			return g;
		die("what should be done? weirctl --help shows the commands");
	}
	if (line->token[i][0] == '-')
		die("there is no option %s (weirctl --help shows those that are)", line->token[i]);
	int noun = i;
	host = &g.host;
	int verb = skip_globals(line, noun + 1, false);
	const char *next = verb < line->n && line->token[verb][0] != '-' ? line->token[verb] : NULL;
	// A late --help counts for "weirctl port --help" as well.
	for (int k = verb; k < line->n; k++)
		if (!strcmp(line->token[k], "--help") || !strcmp(line->token[k], "-h"))
			help_wanted = true;
	i = find_command(&g, line->token[noun], next) == 2 ? verb + 1 : noun + 1;

	for (size_t k = 0; k < n_early; k++) {
		struct line flag = {&line->token[early[k]], 1};
		if (g.command->kind == CONTROL || !take_option(&g, &flag, 0))
			die_unknown_option(&g, line->token[early[k]]);
	}
	g.args = xcalloc((size_t)line->n + 1, sizeof(*g.args));
	while (i < line->n) {
		int n = 0;
		if (g.command->kind != CONTROL && !strncmp(line->token[i], "--", 2))
			n = take_option(&g, line, i);
		if (!n)
			n = take_global(line, i, false);
		if (n) {
			i += n;
		} else if (g.command->kind != CONTROL && !strncmp(line->token[i], "--", 2)) {
			die_unknown_option(&g, line->token[i]);
		} else {
			g.args[g.n_args++] = line->token[i++];
		}
	}
	if (!help_wanted)
		check_args(&g);
	return g;
}

struct given *command_parse(int argc, char *argv[], size_t *n)
{
	struct given *list = NULL;

	*n = 0;
	for (int start = 1, i = 1; i <= argc; i++) {
		if (i < argc && strcmp(argv[i], "--"))
			continue;
		struct line line = {argv + start, i - start};
		start = i + 1;
		// "weirctl --db X -- port add ..." starts with an empty one, and a "--" too many hurts nobody.
		if (!line.n && argc > 1)
			continue;
		int past = skip_globals(&line, 0, true);
		if (past == line.n && argc > 1 && !help_wanted && i < argc)
			continue;
		if (settings.names)
			return NULL;
		line.token += past;
		line.n -= past;
		struct given g = parse_one(&line);
		if (help_wanted) {
			if (g.command && g.command->noun[0])
				usage_command(g.command);
			else
				usage_all();
			exit(EXIT_SUCCESS);
		}
		list = xrealloc(list, (*n + 1) * sizeof(*list));
		list[(*n)++] = g;
	}
	if (!*n)
		die("what should be done? weirctl --help shows the commands");
	return list;
}
