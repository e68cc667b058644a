// The JSON is written here, not by Jansson: it takes forty lines, cells keep the digits that people see, and a program that also
// links libopenvswitch.a, which has functions of the same names as Jansson's, need not care.
#include "listing.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cell {
	char *text; // as the table shows it; NULL: unknown
	char *json;
	bool number;
};

struct column {
	char *key;
	char *heading;
};

struct listing {
	struct column *column;
	size_t n_columns;
	struct cell *cell; // row by row, n_columns each
	size_t n_cells;    // those given so far
	size_t cap_cells;
	size_t n_rows;
};

// The text under construction. Out of memory ends the process: a listing is small, and no caller could do without it.
struct out {
	char *s;
	size_t len;
	size_t cap;
};

static void *grow(void *p, size_t size)
{
	p = realloc(p, size);
	if (!p)
		abort();
	return p;
}

static char *dup(const char *s)
{
	size_t n = strlen(s) + 1;

	return memcpy(grow(NULL, n), s, n);
}

static void out_bytes(struct out *o, const char *s, size_t n)
{
	if (o->len + n + 1 > o->cap) {
		o->cap = (o->len + n + 1) * 2;
		o->s = grow(o->s, o->cap);
	}
	memcpy(o->s + o->len, s, n);
	o->len += n;
	o->s[o->len] = '\0';
}

static void out_str(struct out *o, const char *s)
{
	out_bytes(o, s, strlen(s));
}

static void out_spaces(struct out *o, size_t n)
{
	while (n--)
		out_bytes(o, " ", 1);
}

// Length of the UTF-8 sequence that starts at `s`, 0 if there is none (RFC 3629: no overlong forms, no surrogates).
static size_t utf8_sequence(const unsigned char *s)
{
	static const struct {
		uint32_t least;
		unsigned char mask, lead;
	} form[] = {{0, 0x80, 0}, {0x80, 0xe0, 0xc0}, {0x800, 0xf0, 0xe0}, {0x10000, 0xf8, 0xf0}};

	for (size_t n = 1; n <= 4; n++) {
		if ((s[0] & form[n - 1].mask) != form[n - 1].lead)
			continue;
		uint32_t c = s[0] & (unsigned char)~form[n - 1].mask;
		for (size_t i = 1; i < n; i++) {
			if ((s[i] & 0xc0) != 0x80)
				return 0;
			c = c << 6 | (s[i] & 0x3f);
		}
		bool surrogate = c >= 0xd800 && c <= 0xdfff;
		return c >= form[n - 1].least && c <= 0x10ffff && !surrogate ? n : 0;
	}
	return 0;
}

// Strings come from guests and operators. What isn't UTF-8 would make the JSON invalid: each such byte becomes U+FFFD.
static char *make_utf8(const char *s)
{
	struct out o = {0};

	out_str(&o, "");
	while (*s) {
		size_t n = utf8_sequence((const unsigned char *)s);
		if (n)
			out_bytes(&o, s, n);
		else
			out_str(&o, "\xef\xbf\xbd");
		s += n ? n : 1;
	}
	return o.s;
}

// A control character would break the table's lines, or do as it likes with the terminal: shown as an escape.
static char *make_printable(const char *s)
{
	struct out o = {0};

	out_str(&o, "");
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;
		bool c1 = c == 0xc2 && ((unsigned char)s[1] & 0xe0) == 0x80; // U+0080 to U+009F
		char esc[8];

		if (c == '\n') {
			out_str(&o, "\\n");
		} else if (c == '\t') {
			out_str(&o, "\\t");
		} else if (c < 0x20 || c == 0x7f || c1) {
			snprintf(esc, sizeof(esc), "\\x%02x", c1 ? (unsigned char)*++s : c);
			out_str(&o, esc);
		} else {
			out_bytes(&o, s, 1);
		}
	}
	return o.s;
}

// A JSON string (RFC 8259 section 7) of what make_utf8() has made.
static void out_json_string(struct out *o, const char *s)
{
	out_str(o, "\"");
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;
		char esc[8];

		if (c == '"' || c == '\\') {
			snprintf(esc, sizeof(esc), "\\%c", c);
			out_str(o, esc);
		} else if (c == '\n') {
			out_str(o, "\\n");
		} else if (c < 0x20 || c == 0x7f) {
			snprintf(esc, sizeof(esc), "\\u%04x", c);
			out_str(o, esc);
		} else {
			out_bytes(o, s, 1);
		}
	}
	out_str(o, "\"");
}

// Characters, not bytes. East Asian wide characters count one: names here rarely have any.
static size_t width(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

struct listing *listing_new(void)
{
	struct listing *l = grow(NULL, sizeof(*l));

	*l = (struct listing){0};
	return l;
}

void listing_free(struct listing *l)
{
	if (!l)
		return;
	for (size_t i = 0; i < l->n_cells; i++) {
		free(l->cell[i].text);
		free(l->cell[i].json);
	}
	for (size_t i = 0; i < l->n_columns; i++) {
		free(l->column[i].key);
		free(l->column[i].heading);
	}
	free(l->cell);
	free(l->column);
	free(l);
}

void listing_column(struct listing *l, const char *key, const char *heading)
{
	assert(l->n_rows < 2 && l->n_cells == l->n_rows * l->n_columns && l->n_columns < LISTING_COLUMNS);
	l->column = grow(l->column, (l->n_columns + 1) * sizeof(*l->column));
	l->column[l->n_columns++] = (struct column){dup(key), dup(heading)};
}

// Takes `text` (NULL: unknown) and `json`.
static void add_cell(struct listing *l, char *text, char *json, bool number)
{
	assert(l->n_cells < l->n_rows * l->n_columns);
	if (l->n_cells == l->cap_cells) {
		l->cap_cells = l->cap_cells ? l->cap_cells * 2 : 64;
		l->cell = grow(l->cell, l->cap_cells * sizeof(*l->cell));
	}
	l->cell[l->n_cells++] = (struct cell){text, json, number};
}

void listing_row(struct listing *l)
{
	// A row may end early; what is left of it is unknown.
	while (l->n_cells < l->n_rows * l->n_columns)
		listing_none(l);
	l->n_rows++;
}

void listing_none(struct listing *l)
{
	add_cell(l, NULL, dup("null"), false);
}

void listing_str(struct listing *l, const char *s)
{
	if (!s) {
		listing_none(l);
		return;
	}
	char *utf8 = make_utf8(s);
	struct out json = {0};
	out_json_string(&json, utf8);
	add_cell(l, make_printable(utf8), json.s, false);
	free(utf8);
}

void listing_fmt(struct listing *l, const char *fmt, ...)
{
	va_list ap;
	char *s;

	va_start(ap, fmt);
	if (vasprintf(&s, fmt, ap) < 0)
		abort();
	va_end(ap);
	listing_str(l, s);
	free(s);
}

void listing_uint(struct listing *l, uint64_t u)
{
	char s[24];

	snprintf(s, sizeof(s), "%llu", (unsigned long long)u);
	add_cell(l, dup(s), dup(s), true);
}

void listing_int(struct listing *l, int64_t i)
{
	char s[24];

	snprintf(s, sizeof(s), "%lld", (long long)i);
	add_cell(l, dup(s), dup(s), true);
}

void listing_real(struct listing *l, double real, int decimals)
{
	char s[352]; // DBL_MAX has 309 digits before the point

	if (decimals < 0)
		decimals = 0;
	if (decimals > 17)
		decimals = 17;
	snprintf(s, sizeof(s), "%.*f", decimals, real);
	// JSON has neither infinity nor NaN. The program is told the same digits that a person sees.
	if (real - real != 0)
		listing_none(l);
	else
		add_cell(l, dup(s), dup(s), true);
}

void listing_bool(struct listing *l, bool flag)
{
	add_cell(l, dup(flag ? "yes" : "no"), dup(flag ? "true" : "false"), false);
}

void listing_list(struct listing *l, const char *const *s, size_t n)
{
	struct out text = {0};
	struct out json = {0};

	out_str(&text, "");
	out_str(&json, "[");
	for (size_t i = 0; i < n; i++) {
		char *utf8 = make_utf8(s[i]);
		char *printable = make_printable(utf8);
		out_str(&text, i ? ", " : "");
		out_str(&text, printable);
		out_str(&json, i ? ", " : "");
		out_json_string(&json, utf8);
		free(printable);
		free(utf8);
	}
	out_str(&json, "]");
	add_cell(l, text.s, json.s, false);
}

void listing_json(struct listing *l, const char *s, const char *json)
{
	char *utf8 = make_utf8(s);

	add_cell(l, make_printable(utf8), dup(json), false);
	free(utf8);
}

size_t listing_rows(const struct listing *l)
{
	return l->n_rows;
}

size_t listing_columns(const struct listing *l)
{
	return l->n_columns;
}

static const struct cell *cell_at(const struct listing *l, size_t row, size_t column)
{
	static char null[] = "null";
	static const struct cell none = {.json = null};
	size_t i = row * l->n_columns + column;

	return i < l->n_cells ? &l->cell[i] : &none;
}

// An empty cell would shift the columns for who reads them with awk.
static const char *cell_text(const struct cell *c)
{
	return c->text && c->text[0] ? c->text : "-";
}

static void out_row_json(struct out *o, const struct listing *l, size_t row)
{
	out_str(o, "{");
	for (size_t i = 0; i < l->n_columns; i++) {
		out_str(o, i ? ", " : "");
		out_json_string(o, l->column[i].key);
		out_str(o, ": ");
		out_str(o, cell_at(l, row, i)->json);
	}
	out_str(o, "}");
}

// One line for each row: as readable with grep as with a JSON parser.
static void render_json(struct out *o, const struct listing *l, struct listing_shape *shape, bool last)
{
	if (!shape->n)
		out_str(o, "[");
	for (size_t row = 0; row < l->n_rows; row++) {
		out_str(o, shape->rows + row ? ",\n " : "");
		out_row_json(o, l, row);
	}
	if (last)
		out_str(o, "]\n");
}

static void out_padded(struct out *o, const char *s, size_t to, bool right, bool last)
{
	size_t is = width(s), pad = to > is ? to - is : 0;

	if (right)
		out_spaces(o, pad);
	out_str(o, s);
	if (!last)
		out_spaces(o, (right ? 0 : pad) + 2);
}

static void render_table(struct out *o, const struct listing *l, struct listing_shape *shape)
{
	bool first = !shape->n;

	for (size_t i = 0; i < l->n_columns; i++) {
		size_t wide = first ? width(l->column[i].heading) : shape->wide[i];

		for (size_t row = 0; row < l->n_rows; row++) {
			const struct cell *c = cell_at(l, row, i);
			size_t w = width(cell_text(c));
			wide = w > wide ? w : wide;
			shape->right[i] |= c->number;
		}
		shape->wide[i] = (uint16_t)(wide < LISTING_WIDE ? wide : LISTING_WIDE);
	}
	for (size_t i = 0; first && i < l->n_columns; i++)
		out_padded(o, l->column[i].heading, shape->wide[i], shape->right[i], i + 1 == l->n_columns);
	out_str(o, first ? "\n" : "");
	for (size_t row = 0; row < l->n_rows; row++) {
		for (size_t i = 0; i < l->n_columns; i++) {
			const struct cell *c = cell_at(l, row, i);
			// What is unknown follows the numbers of its column.
			out_padded(o, cell_text(c), shape->wide[i], c->number || (!c->text && shape->right[i]), i + 1 == l->n_columns);
		}
		out_str(o, "\n");
	}
}

char *listing_render_part(const struct listing *l, bool json, struct listing_shape *shape, bool last)
{
	struct out o = {0};

	assert(l->n_columns <= LISTING_COLUMNS && (!shape->n || shape->n == l->n_columns));
	out_str(&o, "");
	if (!l->n_rows && !last)
		return o.s; // nothing to see yet, nor to know of widths
	if (json)
		render_json(&o, l, shape, last);
	else
		render_table(&o, l, shape);
	shape->n = (unsigned)l->n_columns;
	shape->rows += l->n_rows;
	return o.s;
}

char *listing_render(const struct listing *l, bool json)
{
	struct listing_shape shape = {0};

	return listing_render_part(l, json, &shape, true);
}

char *listing_render_record(const struct listing *l, bool json)
{
	struct out o = {0};
	size_t wide = 0;

	out_str(&o, "");
	if (json) {
		if (l->n_rows)
			out_row_json(&o, l, 0);
		else
			out_str(&o, "null");
		out_str(&o, "\n");
		return o.s;
	}
	for (size_t i = 0; i < l->n_columns; i++) {
		size_t w = width(l->column[i].heading);
		wide = w > wide ? w : wide;
	}
	for (size_t i = 0; l->n_rows && i < l->n_columns; i++) {
		out_str(&o, l->column[i].heading);
		out_str(&o, ":");
		out_spaces(&o, wide - width(l->column[i].heading) + 1);
		out_str(&o, cell_text(cell_at(l, 0, i)));
		out_str(&o, "\n");
	}
	return o.s;
}
