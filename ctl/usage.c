// usage: help texts, made from the table of commands.
#include "command.h"

#include "openvswitch.h"
#include "util.h"
#include "weir-idl.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *usage_line(const struct command *c)
{
	char *name = command_name(c);
	char *line = xasprintf("weirctl %s%s%s%s", name, c->options[0] ? " [OPTION]..." : "", c->args[0] ? " " : "", c->args);

	free(name);
	return line;
}

static const struct {
	enum command_kind kind;
	const char *title;
} sections[] = {
	{DATABASE, "Configuration"},
	{CONTROL, "The running switch"},
	{GENERIC, "The database, any table"},
};

static void print_options(const struct option_desc *o)
{
	for (; o->name; o++) {
		char *left = xasprintf("--%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
		printf("  %-26s %s%s\n", left, o->help, o->many ? " (any number)" : "");
		free(left);
	}
}

static void print_command(const struct command *c)
{
	char *name = command_name(c);

	printf("  %s%s%s\n      %s\n", name, c->args[0] ? " " : "", c->args, c->help);
	free(name);
}

void usage_all(void)
{
	printf("weirctl: configure the virtual switch Weir, and ask it\n"
	       "usage: weirctl [OPTION]... NOUN [VERB] [ARGUMENT]... [-- NOUN ...]\n"
	       "Commands with -- between them are one transaction.\n");
	for (size_t i = 0; i < ARRAY_SIZE(sections); i++) {
		printf("\n%s:\n", sections[i].title);
		for (const struct command *c = commands; c->noun; c++)
			if (c->kind == sections[i].kind)
				print_command(c);
	}
	printf("\nOptions:\n");
	print_options(global_options);
	printf("\nweirctl NOUN VERB --help shows the options of a command; weirctl(8) explains them all.\n"
	       "Environment: WEIR_DB, WEIR_CTL, WEIR_RUNDIR (default /run/weir).\n");
}

void usage_noun(const char *noun)
{
	for (const struct command *c = commands; c->noun; c++)
		if (!strcmp(c->noun, noun))
			print_command(c);
}

void usage_command(const struct command *c)
{
	char *line = usage_line(c);

	printf("usage: %s\n  %s\n", line, c->help);
	for (size_t k = 0; k < ARRAY_SIZE(c->options) && c->options[k]; k++)
		print_options(c->options[k]);
	free(line);
}

// NOUN, VERB, arguments and options with tabs between; what the options of CONTROL commands are is in their arguments.
void usage_for_completion(void)
{
	for (const struct command *c = commands; c->noun; c++) {
		printf("%s\t%s\t%s\t", c->noun, c->verb ? c->verb : "", c->args);
		for (size_t k = 0; k < ARRAY_SIZE(c->options) && c->options[k]; k++)
			for (const struct option_desc *o = c->options[k]; o->name; o++)
				printf("--%s%s ", o->name, o->arg ? "=" : "");
		putchar('\n');
	}
	for (const struct option_desc *o = global_options; o->name; o++)
		printf("\t\t\t--%s%s\n", o->name, o->arg ? "=" : "");
}

// A help text as a sentence.
static void mdoc_sentence(const char *help, const char *more)
{
	size_t n = strlen(help);

	printf("%c%s%s%s\n", toupper((unsigned char)help[0]), help + 1, more, n && help[n - 1] == '.' ? "" : ".");
}

static void mdoc_options(const struct option_desc *o)
{
	for (; o->name; o++) {
		printf(".It Fl -%s", o->name);
		if (o->arg)
			printf(" Ar %s", o->arg);
		putchar('\n');
		mdoc_sentence(o->help, o->many ? " (any number)" : "");
		if (o->column)
			printf("Sets\n.Li %s%s%s .\n", o->column, o->value ? "=" : "", o->value ? o->value : "");
	}
}

// The first command that has these options; the others refer to it.
static const struct command *first_with(const struct option_desc *options)
{
	for (const struct command *c = commands; c->noun; c++)
		for (size_t k = 0; k < ARRAY_SIZE(c->options); k++)
			if (c->options[k] == options)
				return c;
	return NULL;
}

static void mdoc_command(const struct command *c)
{
	char *name = command_name(c);

	printf(".It Cm %s%s%s\n", name, c->args[0] ? " Ar " : "", c->args);
	mdoc_sentence(c->help, "");
	free(name);
	if (!c->options[0])
		return;
	if (c->kind == DATABASE && c->options[0][0].column && first_with(c->options[0]) != c) {
		name = command_name(first_with(c->options[0]));
		printf("It has the options of\n.Cm %s\nthat set columns.\n", name);
		free(name);
		return;
	}
	printf(".Bl -tag -width Ds -compact\n");
	for (size_t k = 0; k < ARRAY_SIZE(c->options) && c->options[k]; k++)
		mdoc_options(c->options[k]);
	printf(".El\n");
}

void usage_mdoc(void)
{
	printf(".Ss Options\n.Bl -tag -width Ds\n");
	mdoc_options(global_options);
	printf(".El\n");
	for (size_t i = 0; i < ARRAY_SIZE(sections); i++) {
		printf(".Ss %s\n.Bl -tag -width Ds\n", sections[i].title);
		for (const struct command *c = commands; c->noun; c++)
			if (c->kind == sections[i].kind)
				mdoc_command(c);
		printf(".El\n");
	}
}

void usage_columns(void)
{
	for (size_t t = 0; t < WEIRREC_N_TABLES; t++)
		for (size_t i = 0; i < weirrec_table_classes[t].n_columns; i++)
			printf("%s\t%s\n", weirrec_table_classes[t].name, weirrec_table_classes[t].columns[i].name);
}
