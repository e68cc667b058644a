#include "column.h"

#include "address.h"
#include "listing.h"
#include "openvswitch/json.h"
#include "openvswitch/shash.h"
#include "ovsdb-data.h"
#include "ovsdb-error.h"
#include "unicode.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

// What the switch writes; setting it by hand would only confuse. `table` NULL: in any.
static const struct {
	const char *table, *column;
} written_by_switch[] = {
	{NULL, "cur_cfg"}, {NULL, "next_cfg"},      {NULL, "status"}, {NULL, "statistics"},
	{NULL, "error"},   {"Port", "port_number"}, {"Port", "mtu"},  {"Port", "link_state"},
	{"Host", "endpoint"},
};

const struct ovsdb_idl_column *column_find(const struct ovsdb_idl_table_class *table, const char *name)
{
	for (size_t i = 0; i < table->n_columns; i++)
		if (!strcmp(table->columns[i].name, name))
			return &table->columns[i];
	return NULL;
}

static const struct ovsdb_idl_table_class *table_find(const char *name)
{
	for (size_t i = 0; i < WEIRREC_N_TABLES; i++)
		if (!strcmp(weirrec_table_classes[i].name, name))
			return &weirrec_table_classes[i];
	return NULL;
}

static const struct ovsdb_datum *read_column(const struct ovsdb_idl_row *row, const char *name)
{
	const struct ovsdb_idl_column *column = column_find(row->table->class_, name);

	return column ? ovsdb_idl_read(row, column) : NULL;
}

static char *route_name(const struct weirrec_route *r)
{
	struct ds s = DS_EMPTY_INITIALIZER;

	ds_put_format(&s, "%s %s", r->router ? r->router->name : "?", r->prefix);
	if (r->n_table)
		ds_put_format(&s, " table %" PRId64, r->table[0]);
	if (r->n_metric)
		ds_put_format(&s, " metric %" PRId64, r->metric[0]);
	return ds_steal_cstr(&s);
}

static char *policy_name(const struct weirrec_route_policy *p)
{
	return xasprintf("%s %" PRId64, p->router ? p->router->name : "?", p->n_priority ? p->priority[0] : 32768);
}

char *row_name(const struct ovsdb_idl_row *row)
{
	const struct ovsdb_datum *name = read_column(row, "name");

	if (name && name->n)
		return xstrdup(json_string(name->keys[0].s));
	if (row->table->class_ == &weirrec_table_classes[WEIRREC_TABLE_FDB]) {
		const struct weirrec_fdb *fdb = weirrec_fdb_get_for_uuid(row->table->idl, &row->uuid);
		if (fdb)
			return xasprintf("%s %s", fdb->network ? fdb->network->name : "?", fdb->mac);
	}
	if (row->table->class_ == &weirrec_table_classes[WEIRREC_TABLE_ROUTE])
		return route_name(weirrec_route_get_for_uuid(row->table->idl, &row->uuid));
	if (row->table->class_ == &weirrec_table_classes[WEIRREC_TABLE_ROUTE_POLICY])
		return policy_name(weirrec_route_policy_get_for_uuid(row->table->idl, &row->uuid));
	return xasprintf(UUID_FMT, UUID_ARGS(&row->uuid));
}

char *row_title(const struct ovsdb_idl_row *row)
{
	char *name = row_name(row);
	char *table = xstrdup(row->table->class_->name);

	if (strcmp(table, "FDB"))
		for (char *s = table; *s; s++)
			*s = *s == '_' ? ' ' : (char)tolower((unsigned char)*s);
	char *title = xasprintf("%s %s", table, name);
	free(table);
	free(name);
	return title;
}

char *row_error(const struct ovsdb_idl_row *row)
{
	const struct ovsdb_datum *error = read_column(row, "error");

	return error && error->n && json_string(error->keys[0].s)[0] ? xstrdup(json_string(error->keys[0].s)) : NULL;
}

// --- reading a datum

// A reference as the name of its row.
static char *atom_name(const struct ovsdb_idl *idl, const union ovsdb_atom *atom, const struct ovsdb_base_type *type)
{
	if (ovsdb_base_type_is_ref(type)) {
		const struct ovsdb_idl_table_class *table = table_find(type->uuid.refTableName);
		const struct ovsdb_idl_row *row = table ? ovsdb_idl_get_row_for_uuid(idl, table, &atom->uuid) : NULL;
		if (row)
			return row_name(row);
	}
	if (type->type == OVSDB_TYPE_STRING)
		return xstrdup(json_string(atom->s));
	struct ds s = DS_EMPTY_INITIALIZER;
	ovsdb_atom_to_bare(atom, type->type, &s);
	return ds_steal_cstr(&s);
}

static struct json *atom_json(const struct ovsdb_idl *idl, const union ovsdb_atom *atom, const struct ovsdb_base_type *type)
{
	switch (type->type) {
	case OVSDB_TYPE_INTEGER:
		return json_integer_create(atom->integer);
	case OVSDB_TYPE_REAL:
		return json_real_create(atom->real);
	case OVSDB_TYPE_BOOLEAN:
		return json_boolean_create(atom->boolean);
	default:
		return json_string_create_nocopy(atom_name(idl, atom, type));
	}
}

// OVSDB's own JSON (["map", [[k, v]...]]) is for its protocol; programs are given objects and arrays.
static struct json *datum_json(const struct ovsdb_idl *idl, const struct ovsdb_datum *d, const struct ovsdb_type *type)
{
	struct json *json;

	if (ovsdb_type_is_map(type)) {
		json = json_object_create();
		for (size_t i = 0; i < d->n; i++)
			json_object_put_nocopy(json, atom_name(idl, &d->keys[i], &type->key),
					       atom_json(idl, &d->values[i], &type->value));
		return json;
	}
	if (type->n_max > 1) {
		json = json_array_create_empty();
		for (size_t i = 0; i < d->n; i++)
			json_array_add(json, atom_json(idl, &d->keys[i], &type->key));
		return json;
	}
	return d->n ? atom_json(idl, &d->keys[0], &type->key) : json_null_create();
}

static char *datum_text(const struct ovsdb_idl *idl, const struct ovsdb_datum *d, const struct ovsdb_type *type)
{
	struct ds s = DS_EMPTY_INITIALIZER;

	ds_put_cstr(&s, "");
	for (size_t i = 0; i < d->n; i++) {
		char *key = atom_name(idl, &d->keys[i], &type->key);
		ds_put_format(&s, "%s%s", i ? ", " : "", key);
		free(key);
		if (ovsdb_type_is_map(type)) {
			char *value = atom_name(idl, &d->values[i], &type->value);
			ds_put_format(&s, "=%s", value);
			free(value);
		}
	}
	return ds_steal_cstr(&s);
}

static int compare_names(const void *a, const void *b)
{
	return strverscmp(*(char *const *)a, *(char *const *)b);
}

// The database has references in the order of their UUIDs, which says nothing.
static void references_cell(struct listing *l, const struct ovsdb_idl *idl, const struct ovsdb_datum *d,
			    const struct ovsdb_type *type)
{
	char **name = xcalloc(d->n + 1, sizeof(*name));

	for (size_t i = 0; i < d->n; i++)
		name[i] = atom_name(idl, &d->keys[i], &type->key);
	qsort(name, d->n, sizeof(*name), compare_names);
	listing_list(l, (const char *const *)name, d->n);
	for (size_t i = 0; i < d->n; i++)
		free(name[i]);
	free(name);
}

void column_cell(struct listing *l, const struct ovsdb_idl *idl, const struct ovsdb_datum *d, const struct ovsdb_type *type)
{
	bool single = !ovsdb_type_is_map(type) && type->n_max == 1;

	if (single && !d->n) {
		listing_none(l);
	} else if (single && type->key.type == OVSDB_TYPE_BOOLEAN) {
		listing_bool(l, d->keys[0].boolean);
	} else if (single && type->key.type == OVSDB_TYPE_INTEGER && d->keys[0].integer >= 0) {
		listing_uint(l, (uint64_t)d->keys[0].integer);
	} else if (!single && !ovsdb_type_is_map(type) && ovsdb_base_type_is_ref(&type->key)) {
		references_cell(l, idl, d, type);
	} else {
		char *text = datum_text(idl, d, type);
		struct json *json = datum_json(idl, d, type);
		char *s = json_to_string(json, JSSF_SORT);
		listing_json(l, text, s);
		free(s);
		json_destroy(json);
		free(text);
	}
}

// --- writing a datum

// What stands before the last `left` elements of an enumeration.
static const char *joint(size_t left)
{
	return left > 1 ? ", " : left ? " or " : "";
}

static char *range_sentence(const struct ovsdb_base_type *type)
{
	if (type->enum_) {
		struct ds s = DS_EMPTY_INITIALIZER;
		for (size_t i = 0; i < type->enum_->n; i++)
			ds_put_format(&s, "%s%s", json_string(type->enum_->keys[i].s), joint(type->enum_->n - i - 1));
		return ds_steal_cstr(&s);
	}
	switch (type->type) {
	case OVSDB_TYPE_INTEGER:
		if (type->integer.min > INT64_MIN || type->integer.max < INT64_MAX)
			return xasprintf("a number from %" PRId64 " to %" PRId64, type->integer.min, type->integer.max);
		return xstrdup("a whole number");
	case OVSDB_TYPE_REAL:
		return xstrdup("a number");
	case OVSDB_TYPE_BOOLEAN:
		return xstrdup("true or false");
	case OVSDB_TYPE_UUID:
		return xstrdup("a row's UUID");
	default:
		return xstrdup("text");
	}
}

static bool parse_boolean(const char *s, bool *value)
{
	static const char *const yes[] = {"true", "yes", "on"}, *const no[] = {"false", "no", "off"};

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		if (!strcmp(s, yes[i]) || !strcmp(s, no[i])) {
			*value = !strcmp(s, yes[i]);
			return true;
		}
	}
	return false;
}

// A row of `table` by its name (or UUID); of several of that name, the one of --host.
static const struct ovsdb_idl_row *resolve(const struct ovsdb_idl *idl, const struct ovsdb_idl_table_class *table,
					   const char *name)
{
	const struct ovsdb_idl_row *found = NULL;
	struct uuid uuid;

	for (const struct ovsdb_idl_row *row = ovsdb_idl_first_row(idl, table); row; row = ovsdb_idl_next_row(row)) {
		char *s = row_name(row);
		if (!strcmp(s, name))
			found = row;
		free(s);
	}
	if (!found && uuid_from_string(&uuid, name))
		found = ovsdb_idl_get_row_for_uuid(idl, table, &uuid);
	return found;
}

// `what` is the subject of the sentence if the text isn't of that type. The atom is the caller's to destroy.
static int parse_atom(struct context *ctx, const char *what, const struct ovsdb_base_type *type, const char *text,
		      union ovsdb_atom *atom)
{
	char *error = NULL;

	if (ovsdb_base_type_is_ref(type)) {
		const struct ovsdb_idl_table_class *table = table_find(type->uuid.refTableName);
		const struct ovsdb_idl_row *row = table ? resolve(ctx->idl, table, text) : NULL;
		if (!row) {
			char *kind = xstrdup(type->uuid.refTableName);
			for (char *s = kind; *s; s++)
				*s = *s == '_' ? ' ' : (char)tolower((unsigned char)*s);
			// "port vm1: network" without the column, which the sentence names anyway.
			const char *colon = strrchr(what, ':');
			fail(ctx, "%.*s: there is no %s %s", colon ? (int)(colon - what) : 0, what, kind, text);
			free(kind);
			return -1;
		}
		atom->uuid = row->uuid;
		return 0;
	}
	if (type->type == OVSDB_TYPE_STRING) {
		// As it is: the library's parser would want quotes around all but words.
		char *invalid = utf8_validate(text, NULL);
		free(invalid);
		if (invalid)
			return fail(ctx, "%s is not UTF-8 text", what);
		atom->s = json_string_create(text);
	} else if (type->type == OVSDB_TYPE_BOOLEAN) {
		if (!parse_boolean(text, &atom->boolean))
			return fail(ctx, "%s must be true or false, not '%s'", what, text);
	} else {
		error = ovsdb_atom_from_string(atom, NULL, type, text, ctx->symtab);
	}
	if (!error) {
		struct ovsdb_error *e = ovsdb_atom_check_constraints(atom, type);
		if (!e)
			return 0;
		ovsdb_error_destroy(e);
		ovsdb_atom_destroy(atom, type->type);
	}
	free(error);
	char *range = range_sentence(type);
	fail(ctx, "%s must be %s, not '%s'", what, range, text);
	free(range);
	return -1;
}

// Splits at commas: a set's elements. Spaces around them go.
static int parse_set(struct context *ctx, const char *what, const struct ovsdb_type *type, const char *text,
		     struct ovsdb_datum *d)
{
	char *copy = xstrdup(text);
	char *save = NULL;
	int status = 0;

	for (char *s = strtok_r(copy, ",", &save); s && !status; s = strtok_r(NULL, ",", &save)) {
		union ovsdb_atom atom;
		s += strspn(s, " ");
		for (size_t n = strlen(s); n && s[n - 1] == ' ';)
			s[--n] = '\0';
		if (!*s)
			continue;
		status = parse_atom(ctx, what, &type->key, s, &atom);
		if (!status) {
			ovsdb_datum_add_unsafe(d, &atom, NULL, type, NULL);
			ovsdb_atom_destroy(&atom, type->key.type);
		}
	}
	free(copy);
	ovsdb_datum_sort_unique(d, type);
	return status;
}

static int parse_map(struct context *ctx, const char *what, const struct ovsdb_type *type, const char *text,
		     struct ovsdb_datum *d)
{
	char *copy = xstrdup(text);
	char *save = NULL;
	int status = 0;

	for (char *s = strtok_r(copy, ",", &save); s && !status; s = strtok_r(NULL, ",", &save)) {
		union ovsdb_atom key, value;
		s += strspn(s, " ");
		char *equals = strchr(s, '=');
		if (!equals) {
			status = fail(ctx, "%s must be KEY=VALUE,..., not '%s'", what, text);
			break;
		}
		*equals = '\0';
		status = parse_atom(ctx, what, &type->key, s, &key);
		if (status)
			break;
		status = parse_atom(ctx, what, &type->value, equals + 1, &value);
		if (!status) {
			ovsdb_datum_add_unsafe(d, &key, &value, type, NULL);
			ovsdb_atom_destroy(&value, type->value.type);
		}
		ovsdb_atom_destroy(&key, type->key.type);
	}
	free(copy);
	ovsdb_datum_sort_unique(d, type);
	return status;
}

// One key of a map column; an empty value removes it.
static int set_key(struct context *ctx, const struct ovsdb_idl_row *row, const struct ovsdb_idl_column *column,
		   const char *what, const char *key_text, const char *text)
{
	const struct ovsdb_type *type = &column->type;
	struct ovsdb_datum d;
	union ovsdb_atom key, value;
	unsigned at;

	if (!ovsdb_type_is_map(type))
		return fail(ctx, "%s: column %s has no keys", what, column->name);
	if (!key_text[0])
		return fail(ctx, "%s needs a key", what);
	if (parse_atom(ctx, what, &type->key, key_text, &key))
		return -1;
	if (text[0] && parse_atom(ctx, what, &type->value, text, &value)) {
		ovsdb_atom_destroy(&key, type->key.type);
		return -1;
	}
	ovsdb_datum_clone(&d, ovsdb_idl_read(row, column));
	ovsdb_datum_unshare(&d, type);
	if (ovsdb_datum_find_key(&d, &key, type->key.type, &at))
		ovsdb_datum_remove_unsafe(&d, at, type);
	if (text[0]) {
		ovsdb_datum_add_unsafe(&d, &key, &value, type, NULL);
		ovsdb_atom_destroy(&value, type->value.type);
	}
	ovsdb_atom_destroy(&key, type->key.type);
	ovsdb_datum_sort_unique(&d, type);
	ovsdb_idl_txn_verify(row, column);
	ovsdb_idl_txn_write(row, column, &d);
	return 0;
}

static int set_whole(struct context *ctx, const struct ovsdb_idl_row *row, const struct ovsdb_idl_column *column,
		     const char *what, enum column_op op, const char *text)
{
	const struct ovsdb_type *type = &column->type;
	const struct ovsdb_datum *old = ovsdb_idl_read(row, column);
	struct ovsdb_datum d, all;
	int status = 0;

	if (op != COLUMN_SET && type->n_max == 1)
		return fail(ctx, "%s holds one value: use %s=VALUE", what, column->name);
	ovsdb_datum_init_empty(&d);
	if (ovsdb_type_is_map(type)) {
		status = parse_map(ctx, what, type, text, &d);
	} else if (type->n_max > 1) {
		status = parse_set(ctx, what, type, text, &d);
	} else if (text[0] || type->n_min) {
		union ovsdb_atom atom;
		status = parse_atom(ctx, what, &type->key, text, &atom);
		if (!status) {
			ovsdb_datum_add_unsafe(&d, &atom, NULL, type, NULL);
			ovsdb_atom_destroy(&atom, type->key.type);
		}
	}
	if (!status && op != COLUMN_SET) {
		ovsdb_datum_clone(&all, old);
		ovsdb_datum_unshare(&all, type);
		if (op == COLUMN_ADD)
			ovsdb_datum_union(&all, &d, type);
		else
			ovsdb_datum_subtract(&all, type, &d, type);
		ovsdb_datum_swap(&all, &d);
		ovsdb_datum_destroy(&all, type);
		ovsdb_idl_txn_verify(row, column);
	}
	if (!status && d.n > type->n_max)
		status = fail(ctx, "%s holds at most %u values", what, type->n_max);
	if (status)
		ovsdb_datum_destroy(&d, type);
	else
		ovsdb_idl_txn_write(row, column, &d);
	return status;
}

// "external-id" and "option" for external_ids and options, as people say it, and dashes for underscores.
static char *canonical(const char *column)
{
	char *name = xstrdup(!strcmp(column, "option")                                          ? "options"
			     : !strcmp(column, "external-id") || !strcmp(column, "external_id") ? "external_ids"
												: column);

	for (char *s = name; *s; s++)
		if (*s == '-')
			*s = '_';
	return name;
}

static int check_column(struct context *ctx, const char *title, const struct ovsdb_idl_table_class *table, const char *name)
{
	if (!column_find(table, name)) {
		const char **known = xcalloc(table->n_columns + 1, sizeof(*known));
		for (size_t i = 0; i < table->n_columns; i++)
			known[i] = table->columns[i].name;
		const char *near = nearest(name, known);
		free(known);
		if (near)
			return fail(ctx, "%s: there is no column %s; did you mean %s?", title, name, near);
		return fail(ctx, "%s: there is no column %s (weirctl --columns lists them)", title, name);
	}
	if (!strcmp(name, "name"))
		return fail(ctx, "%s: a name stays as it is; delete it and add another", title);
	for (size_t i = 0; i < ARRAY_SIZE(written_by_switch); i++)
		if (!strcmp(name, written_by_switch[i].column) &&
		    (!written_by_switch[i].table || !strcmp(table->name, written_by_switch[i].table)))
			return fail(ctx, "%s: the switch itself writes %s", title, name);
	return 0;
}

// The schema takes any text here; nonsense is refused before it is in the database.
static int check_addresses(struct context *ctx, const char *what, const char *text)
{
	char *copy = xstrdup(text);
	char *save = NULL;
	int status = 0;

	for (char *s = strtok_r(copy, ",", &save); s && !status; s = strtok_r(NULL, ",", &save)) {
		char *problem = address_problem(s + strspn(s, " "));
		if (problem)
			status = fail(ctx, "%s: %s", what, problem);
		free(problem);
	}
	free(copy);
	return status;
}

int column_set(struct context *ctx, const struct ovsdb_idl_row *row, const char *column_text, enum column_op op,
	       const char *value)
{
	const struct ovsdb_idl_table_class *table = row->table->class_;
	size_t n = strcspn(column_text, ":");
	char *word = xmemdup0(column_text, n);
	char *name = canonical(word);
	char *title = row_title(row);
	char *what = xasprintf("%s: %s%s", title, name, column_text + n);
	int status = check_column(ctx, title, table, name);

	if (!status) {
		const struct ovsdb_idl_column *column = column_find(table, name);
		if (column_text[n])
			status = set_key(ctx, row, column, what, column_text + n + 1, value);
		else if (!strcmp(name, "addresses") && !strcmp(table->name, "Port") && op != COLUMN_REMOVE && check_addresses(ctx, what, value))
			status = -1;
		else
			status = set_whole(ctx, row, column, what, op, value);
	}
	free(what);
	free(title);
	free(name);
	free(word);
	return status;
}

int column_set_arg(struct context *ctx, const struct ovsdb_idl_row *row, const char *arg)
{
	const char *equals = strchr(arg, '=');
	enum column_op op = COLUMN_SET;

	if (!equals || equals == arg) {
		char *title = row_title(row);
		fail(ctx, "%s: '%s' is not COLUMN=VALUE", title, arg);
		free(title);
		return -1;
	}
	size_t n = (size_t)(equals - arg);
	if (arg[n - 1] == '+' || arg[n - 1] == '-') {
		op = arg[n - 1] == '+' ? COLUMN_ADD : COLUMN_REMOVE;
		n--;
	}
	char *column = xmemdup0(arg, n);
	int status = column_set(ctx, row, column, op, equals + 1);
	free(column);
	return status;
}

int column_set_given(struct context *ctx, const struct ovsdb_idl_row *row, int first)
{
	const struct given *g = ctx->given;

	for (size_t i = 0; i < g->n_options; i++) {
		const struct option_desc *o = g->options[i].desc;
		enum column_op op = COLUMN_SET;
		if (!o->column)
			continue;
		// The second one adds to what the first one set.
		for (size_t k = 0; k < i; k++)
			if (g->options[k].desc == o)
				op = COLUMN_ADD;
		if (column_set(ctx, row, o->column, op, o->arg ? g->options[i].value : o->value))
			return -1;
	}
	for (int i = first; i < g->n_args; i++)
		if (column_set_arg(ctx, row, g->args[i]))
			return -1;
	return 0;
}
