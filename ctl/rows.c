// rows: what `list` and `show` print of a table's rows.
#include "column.h"

#include "listing.h"
#include "ovsdb-data.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

// Heading of a column: link_state is LINK-STATE.
static char *heading(const char *column)
{
	char *s = xstrdup(column);

	for (char *p = s; *p; p++)
		*p = *p == '_' ? '-' : (char)toupper((unsigned char)*p);
	return s;
}

// What an empty column means (weir-db(5), table vswitch/weir.xml; a test compares them). People are shown it in lists; programs
// are told that the column is empty.
static const struct {
	const char *table, *column, *text;
	unsigned number; // without `text`
} defaults[] = {
	{"Network", "mtu", NULL, 1500},          {"Network", "learning", "yes"},
	{"Network", "ageing", NULL, 300},        {"Network", "mac_limit", NULL, 8192},
	{"Network", "unknown_unicast", "flood"}, {"Port", "type", "vhost-user"},
	{"Port", "vlan_mode", "access"},         {"Port", "enabled", "yes"},
	{"Flow", "priority", NULL, 32768},       {"Flow", "enabled", "yes"},
	{"Flow_Export", "sampling", NULL, 1},    {"Flow_Export", "active_timeout", NULL, 60},
	{"Flow_Export", "domain", NULL, 1},      {"Flow_Export", "enabled", "yes"},
	{"Router", "enabled", "yes"},            {"Router_Port", "enabled", "yes"},
	{"Route", "type", "unicast"},            {"Route", "metric", NULL, 0},
	{"Route_Policy", "priority", NULL, 32768}, {"Route_Policy", "action", "lookup"},
	{"Network", "tunnel", "vxlan"},
};

static void list_cell(struct listing *l, const struct ovsdb_idl_row *row, const struct ovsdb_idl_column *column)
{
	const struct ovsdb_datum *d = ovsdb_idl_read(row, column);

	for (size_t i = 0; !d->n && !settings.json && i < ARRAY_SIZE(defaults); i++) {
		if (strcmp(defaults[i].table, row->table->class_->name) || strcmp(defaults[i].column, column->name))
			continue;
		if (defaults[i].text)
			listing_str(l, defaults[i].text);
		else
			listing_uint(l, defaults[i].number);
		return;
	}
	column_cell(l, row->table->idl, d, &column->type);
}

struct named_row {
	char *name;
	const struct ovsdb_idl_row *row;
};

// vm2 before vm10.
static int compare(const void *a_, const void *b_)
{
	const struct named_row *a = a_, *b = b_;

	return strverscmp(a->name, b->name);
}

static struct named_row *sorted(const struct context *ctx, const struct ovsdb_idl_table_class *table,
				bool (*keep)(const struct ovsdb_idl_row *, const char *host), size_t *n)
{
	struct named_row *list = NULL;
	size_t room = 0;

	*n = 0;
	for (const struct ovsdb_idl_row *row = ovsdb_idl_first_row(ctx->idl, table); row; row = ovsdb_idl_next_row(row)) {
		if (keep && !keep(row, host_of(ctx)))
			continue;
		if (*n == room)
			list = x2nrealloc(list, &room, sizeof(*list));
		list[(*n)++] = (struct named_row){row_name(row), row};
	}
	if (*n)
		qsort(list, *n, sizeof(*list), compare);
	return list;
}

// What is no column is a key of status: a number if it looks like one. The problem is the row's error, if it has one.
static void status_cell(struct listing *l, const struct ovsdb_idl_row *row, const char *key)
{
	char *error = strcmp(key, "problem") ? NULL : row_error(row);
	const struct ovsdb_idl_column *column = column_find(row->table->class_, "status");

	if (error) {
		listing_str(l, error);
		free(error);
		return;
	}
	if (column) {
		const struct ovsdb_datum *d = ovsdb_idl_read(row, column);
		for (size_t i = 0; i < d->n; i++) {
			const char *value = json_string(d->values[i].s);
			if (strcmp(json_string(d->keys[i].s), key) || !value[0])
				continue;
			if (strspn(value, "0123456789") == strlen(value) && strlen(value) < 19)
				listing_uint(l, strtoull(value, NULL, 10));
			else
				listing_str(l, value);
			return;
		}
	}
	listing_none(l);
}

struct shown {
	const struct ovsdb_idl_column *column; // NULL: a key of status
	const char *key;
};

static int add_columns(struct context *ctx, const struct ovsdb_idl_table_class *table, char *names, struct listing *l, struct shown **columns, size_t *n)
{
	char *save = NULL;
	size_t room = 0;

	*columns = NULL;
	*n = 0;
	for (char *name = strtok_r(names, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
		for (char *s = name; *s; s++)
			*s = *s == '-' ? '_' : (char)tolower((unsigned char)*s);
		const struct ovsdb_idl_column *column = column_find(table, name);
		const char *key = !strncmp(name, "status:", 7) && column_find(table, "status") ? name + 7 : name;
		if (!column && key == name && strcmp(name, "problem"))
			return fail(ctx, "table %s has no column %s (weirctl --columns lists them)", table->name, name);
		if (*n == LISTING_COLUMNS)
			return fail(ctx, "a list has %d columns at most", LISTING_COLUMNS);
		if (*n == room)
			*columns = x2nrealloc(*columns, &room, sizeof(**columns));
		(*columns)[(*n)++] = (struct shown){column, key};
		char *h = heading(key);
		listing_column(l, key, h);
		free(h);
	}
	return 0;
}

int rows_list(struct context *ctx, const struct ovsdb_idl_table_class *table, const char *columns_text,
	      bool (*keep)(const struct ovsdb_idl_row *, const char *host))
{
	const char *wanted = given_option(ctx->given, "columns");
	char *names = xstrdup(wanted ? wanted : columns_text);
	struct listing *l = listing_new();
	struct shown *columns;
	size_t n_columns, n;
	int status = add_columns(ctx, table, names, l, &columns, &n_columns);

	if (!status && !n_columns)
		status = fail(ctx, "--columns needs at least one column");
	if (!status) {
		struct named_row *list = sorted(ctx, table, keep, &n);
		for (size_t i = 0; i < n; i++) {
			listing_row(l);
			for (size_t k = 0; k < n_columns; k++) {
				if (columns[k].column)
					list_cell(l, list[i].row, columns[k].column);
				else
					status_cell(l, list[i].row, columns[k].key);
			}
			free(list[i].name);
		}
		free(list);
		output_table(ctx, l);
	}
	free(columns);
	listing_free(l);
	free(names);
	return status;
}

// Columns that every table has are last, name is first; the IDL's order is the alphabet's.
static int rank(const char *name)
{
	static const char *const last[] = {"status", "statistics", "error", "external_ids"};

	if (!strcmp(name, "name"))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(last); i++)
		if (!strcmp(name, last[i]))
			return 2 + (int)i;
	return 1;
}

static bool is_empty(const struct ovsdb_datum *d, const struct ovsdb_type *type)
{
	return !d->n || (ovsdb_type_is_scalar(type) && type->key.type == OVSDB_TYPE_STRING && !json_string(d->keys[0].s)[0]);
}

int row_show(struct context *ctx, const struct ovsdb_idl_row *row)
{
	const struct ovsdb_idl_table_class *table = row->table->class_;
	const struct ovsdb_idl_column **shown = xcalloc(table->n_columns, sizeof(*shown));
	struct listing *l = listing_new();
	size_t n = 0;

	for (int r = 0; r < 6; r++) {
		for (size_t i = 0; i < table->n_columns; i++) {
			const struct ovsdb_idl_column *column = &table->columns[i];
			// Empty columns are noise to people, and as good as promised to programs.
			if (rank(column->name) != r || (!settings.json && is_empty(ovsdb_idl_read(row, column), &column->type)))
				continue;
			listing_column(l, column->name, column->name);
			shown[n++] = column;
		}
	}
	listing_row(l);
	for (size_t i = 0; i < n; i++)
		column_cell(l, ctx->idl, ovsdb_idl_read(row, shown[i]), &shown[i]->type);
	output_record(ctx, l);
	listing_free(l);
	free(shown);
	return 0;
}
