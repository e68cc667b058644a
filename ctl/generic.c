// generic: list, find, get, set, add, remove, clear, create, destroy, wait-until on any table, by Open vSwitch's db-ctl-base.
//
// A table that is new in the schema needs no change here: rows are named by their `name` column wherever there is one.
#include "database.h"

#include "column.h"
#include "db-ctl-base.h"
#include "listing.h"
#include "openvswitch/json.h"
#include "openvswitch/shash.h"
#include "ovsdb-data.h"
#include "ovsdb-error.h"
#include "table.h"

#include <stdlib.h>
#include <string.h>

static struct ctl_table_class classes[WEIRREC_N_TABLES];

void generic_init(void)
{
	for (size_t i = 0; i < WEIRREC_N_TABLES; i++)
		classes[i].row_ids[0].name_column = column_find(&weirrec_table_classes[i], "name");
	ctl_init__(&weirrec_idl_class, classes, NULL, NULL);
}

// db-ctl-base's parser takes options before the command's name only.
void *generic_parse(const struct given *g)
{
	size_t n = g->n_options + 1 + (size_t)g->n_args;
	char **argv = xcalloc(n + 1, sizeof(*argv));
	struct shash no_options = SHASH_INITIALIZER(&no_options);
	struct ctl_command *command;
	size_t n_commands;
	size_t k = 0;

	for (size_t i = 0; i < g->n_options; i++) {
		const struct given_option *o = &g->options[i];
		argv[k++] = o->value ? xasprintf("--%s=%s", o->desc->name, o->value) : xasprintf("--%s", o->desc->name);
	}
	argv[k++] = xstrdup(g->noun);
	for (int i = 0; i < g->n_args; i++)
		argv[k++] = xstrdup(g->args[i]);
	char *error = ctl_parse_commands((int)n, argv, &no_options, &command, &n_commands);
	if (error)
		die("%s", error);
	ds_init(&command->output);
	command->table = NULL;
	return command;
}

static void start(struct ctl_context *c, struct ctl_command *command, struct ovsdb_idl *idl, const struct context *ctx)
{
	memset(c, 0, sizeof(*c));
	ds_init(&c->output);
	ctl_context_init(c, command, idl, ctx ? ctx->txn : NULL, ctx ? ctx->symtab : NULL, NULL);
}

void generic_prerequisites(void *command, struct ovsdb_idl *idl)
{
	struct ctl_context c;

	start(&c, command, idl, NULL);
	if (c.argc)
		((struct ctl_command *)command)->syntax->prerequisites(&c);
	if (c.error)
		die("%s", c.error);
	ctl_context_done(&c, command);
}

// The row that the command has changed, so that its error is told; the row's host is waited for.
static void remember(const struct context *ctx, struct ctl_context *c)
{
	const struct ovsdb_idl_table_class *table = NULL;
	const struct ovsdb_idl_row *row = NULL;
	struct uuid uuid;

	for (size_t i = 0; i < WEIRREC_N_TABLES; i++)
		if (!strcasecmp(weirrec_table_classes[i].name, c->argv[1]))
			table = &weirrec_table_classes[i];
	if (table && !strcmp(c->argv[0], "create")) {
		if (uuid_from_string(&uuid, ds_cstr(&c->output)))
			row = ovsdb_idl_get_row_for_uuid(c->idl, table, &uuid);
	} else if (table && c->argc > 2 && strcmp(c->argv[0], "destroy")) {
		free(ctl_get_row(c, table, c->argv[2], false, &row));
	}
	if (!row) {
		concern(host_of(ctx));
		return;
	}
	touch(row);
	const struct weirrec_port *port = weirrec_port_get_for_uuid(c->idl, &row->uuid);
	const struct weirrec_host *host = weirrec_host_get_for_uuid(c->idl, &row->uuid);
	concern(port ? port->host : host ? host->name : host_of(ctx));
}

// The names of the columns: the table keeps them to itself, but not from its JSON.
static struct json *headings(const struct table *t)
{
	static const struct table_style style = {.format = TF_JSON, .cell_format = CF_JSON, .headings = true};
	struct ds s = DS_EMPTY_INITIALIZER;

	table_format(t, &style, &s);
	struct json *json = json_from_string(ds_cstr(&s));
	ds_destroy(&s);
	struct json *list = json_clone(shash_find_data(json_object(json), "headings"));
	json_destroy(json);
	return list;
}

static void cell(struct context *ctx, struct listing *l, const struct cell *c)
{
	struct ovsdb_datum datum;
	struct ovsdb_error *error = ovsdb_datum_from_json(&datum, c->type, c->json, NULL);

	if (error) {
		ovsdb_error_destroy(error);
		listing_none(l);
		return;
	}
	column_cell(l, ctx->idl, &datum, c->type);
	ovsdb_datum_destroy(&datum, c->type);
}

// For people a paragraph for each row, as the rows of most tables are too long for a line.
static void print_table(struct context *ctx, const struct table *t)
{
	struct json *names = headings(t);
	struct listing *all = listing_new();

	for (size_t k = 0; k < t->n_columns; k++)
		listing_column(all, json_string(json_array(names)->elems[k]), "");
	for (size_t row = 0; row < t->n_rows; row++) {
		struct listing *one = listing_new();
		for (size_t k = 0; k < t->n_columns; k++)
			listing_column(one, "", json_string(json_array(names)->elems[k]));
		listing_row(one);
		listing_row(all);
		for (size_t k = 0; k < t->n_columns; k++) {
			cell(ctx, one, &t->cells[row * t->n_columns + k]);
			cell(ctx, all, &t->cells[row * t->n_columns + k]);
		}
		if (!settings.json) {
			ds_put_cstr(&ctx->output, row ? "\n" : "");
			output_record(ctx, one);
		}
		listing_free(one);
	}
	if (settings.json)
		output_table(ctx, all);
	listing_free(all);
	json_destroy(names);
}

int generic_run(struct context *ctx)
{
	struct ctl_command *command = ctx->generic;
	struct ctl_context c;
	int status = 0;

	start(&c, command, ctx->idl, ctx);
	command->syntax->run(&c);
	if (c.error) {
		status = fail(ctx, "%s", c.error);
	} else {
		ctx->try_again = c.try_again;
		if (command->syntax->mode == RW && !c.try_again)
			remember(ctx, &c);
		if (c.table)
			print_table(ctx, c.table);
	}
	ctl_context_done(&c, command);
	return status;
}

void generic_committed(struct context *ctx)
{
	struct ctl_command *command = ctx->generic;
	struct ctl_context c;

	if (command->syntax->postprocess) {
		start(&c, command, ctx->idl, ctx);
		command->syntax->postprocess(&c);
		ctl_context_done(&c, command);
	}
	ds_put_cstr(&ctx->output, ds_cstr(&command->output));
}

void generic_reset(void *command_)
{
	struct ctl_command *command = command_;

	ds_clear(&command->output);
	if (command->table) {
		table_destroy(command->table);
		free(command->table);
		command->table = NULL;
	}
}
