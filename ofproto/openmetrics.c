// openmetrics: see openmetrics.h.
#include "openmetrics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

// ---- text

static bool reserve(struct om *o, size_t more)
{
	if (o->failed)
		return false;
	if (o->room - o->len > more)
		return true;
	size_t room = (o->len + more + 1) * 2;
	char *text = realloc(o->text, room);
	if (!text) {
		o->failed = true;
		return false;
	}
	o->text = text;
	o->room = room;
	return true;
}

static void add(struct om *o, const char *text, size_t n)
{
	if (!reserve(o, n))
		return;
	memcpy(o->text + o->len, text, n);
	o->len += n;
}

static void add_str(struct om *o, const char *text)
{
	add(o, text, strlen(text));
}

static void add_uint(struct om *o, uint64_t v)
{
	char digits[20];
	size_t at = sizeof digits;

	do
		digits[--at] = (char)('0' + v % 10);
	while (v /= 10);
	add(o, digits + at, sizeof digits - at);
}

static void add_real(struct om *o, double v)
{
	char text[40];

	if (isnan(v))
		snprintf(text, sizeof text, "NaN");
	else if (isinf(v))
		snprintf(text, sizeof text, "%cInf", v < 0 ? '-' : '+');
	else
		snprintf(text, sizeof text, "%.15g", v);
	add_str(o, text);
}

// A bound of a histogram. It is part of a series' name, so each format has one form: that of OpenMetrics always has a point or
// an exponent.
static void add_bound(struct om *o, double v)
{
	size_t from = o->len;

	add_real(o, v);
	if (o->format == OM_OPENMETRICS && !o->failed && isfinite(v) && !memchr(o->text + from, '.', o->len - from) &&
	    !memchr(o->text + from, 'e', o->len - from))
		add_str(o, ".0");
}

// ---- families

void om_family(struct om *o, const struct om_family *f)
{
	o->family = *f;
	o->said = false;
}

static const char *suffix_of(enum om_type type)
{
	return type == OM_COUNTER ? "_total" : type == OM_INFO ? "_info" : "";
}

static void say_line(struct om *o, const char *what, const char *text)
{
	add_str(o, "# ");
	add_str(o, what);
	add_str(o, " ");
	add_str(o, o->family.name);
	if (o->format == OM_TEXT)
		add_str(o, suffix_of(o->family.type));
	add_str(o, " ");
	for (; *text; text++)
		if (*text == '\\')
			add_str(o, "\\\\");
		else if (*text == '\n')
			add_str(o, "\\n");
		else
			add(o, text, 1);
	add_str(o, "\n");
}

static void say_family(struct om *o)
{
	static const char *const types[] = {
		[OM_COUNTER] = "counter", [OM_GAUGE] = "gauge", [OM_INFO] = "info", [OM_HISTOGRAM] = "histogram"};
	const struct om_family *f = &o->family;

	if (o->said)
		return;
	o->said = true;
	say_line(o, "HELP", f->help);
	say_line(o, "TYPE", o->format == OM_TEXT && f->type == OM_INFO ? "gauge" : types[f->type]);
	if (o->format == OM_OPENMETRICS && f->unit[0])
		say_line(o, "UNIT", f->unit);
}

static void start(struct om *o, const char *suffix, const char *labels)
{
	say_family(o);
	add_str(o, o->family.name);
	add_str(o, suffix);
	if (labels[0]) {
		add_str(o, "{");
		add_str(o, labels);
		add_str(o, "}");
	}
	add_str(o, " ");
}

void om_uint(struct om *o, const char *labels, uint64_t v)
{
	start(o, suffix_of(o->family.type), labels);
	add_uint(o, v);
	add_str(o, "\n");
}

void om_int(struct om *o, const char *labels, int64_t v)
{
	start(o, suffix_of(o->family.type), labels);
	if (v < 0)
		add_str(o, "-");
	add_uint(o, v < 0 ? -(uint64_t)v : (uint64_t)v);
	add_str(o, "\n");
}

void om_real(struct om *o, const char *labels, double v)
{
	start(o, suffix_of(o->family.type), labels);
	add_real(o, v);
	add_str(o, "\n");
}

void om_seconds(struct om *o, const char *labels, uint64_t ns)
{
	char text[40];

	start(o, suffix_of(o->family.type), labels);
	snprintf(text, sizeof text, "%llu.%09llu\n", (unsigned long long)(ns / 1000000000),
		 (unsigned long long)(ns % 1000000000));
	add_str(o, text);
}

void om_histogram(struct om *o, const char *labels, const double *bound, const uint64_t *count, unsigned n, double sum)
{
	uint64_t total = 0;

	say_family(o);
	for (unsigned i = 0; i <= n; i++) {
		total += count[i];
		add_str(o, o->family.name);
		add_str(o, "_bucket{");
		add_str(o, labels);
		add_str(o, labels[0] ? ",le=\"" : "le=\"");
		add_bound(o, i < n ? bound[i] : (double)INFINITY);
		add_str(o, "\"} ");
		add_uint(o, total);
		add_str(o, "\n");
	}
	start(o, "_sum", labels);
	add_real(o, sum);
	add_str(o, "\n");
	start(o, "_count", labels);
	add_uint(o, total);
	add_str(o, "\n");
}

char *om_end(struct om *o, size_t *len)
{
	if (o->format == OM_OPENMETRICS)
		add_str(o, "# EOF\n");
	if (reserve(o, 0))
		o->text[o->len] = 0;
	char *text = o->text;
	*len = o->len;
	if (o->failed) {
		free(text);
		text = NULL;
		*len = 0;
	}
	*o = (struct om){.format = o->format};
	return text;
}

// ---- labels

// Length of the UTF-8 character at `s` (RFC 3629 section 4), 0: there is none.
static size_t character(const unsigned char *s)
{
	if (s[0] < 0x80)
		return 1;
	size_t n = s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;

	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
	    (s[0] == 0xf4 && s[1] > 0x8f))
		return 0; // too long a form, a surrogate, beyond the last one
	return n;
}

static size_t escape(char *to, const char *value)
{
	const unsigned char *s = (const unsigned char *)value;
	size_t len = 0, used = 0;

	while (*s) {
		size_t n = character(s);

		if (used + (n ? n : 1) > OM_VALUE)
			break;
		used += n ? n : 1;
		if (*s == '\\' || *s == '"' || *s == '\n') {
			to[len++] = '\\';
			to[len++] = *s == '\n' ? 'n' : (char)*s;
		} else if (!n || *s < 0x20 || *s == 0x7f) {
			to[len++] = '?';
		} else {
			memcpy(to + len, s, n);
			len += n;
		}
		s += n ? n : 1;
	}
	return len;
}

void om_label(struct om_labels *l, const char *name, const char *value)
{
	char text[2 * OM_VALUE];
	size_t n = escape(text, value), name_len = strlen(name);

	if (l->len + name_len + n + sizeof ",=\"\"" > sizeof l->text)
		return;
	if (l->len)
		l->text[l->len++] = ',';
	memcpy(l->text + l->len, name, name_len);
	l->len += name_len;
	memcpy(l->text + l->len, "=\"", 2);
	l->len += 2;
	memcpy(l->text + l->len, text, n);
	l->len += n;
	memcpy(l->text + l->len, "\"", 2);
	l->len++;
}

void om_label_name(const char *from, char *name, size_t size)
{
	size_t n = 0;

	while (*from == '_')
		from++;
	if (*from >= '0' && *from <= '9' && size > 1)
		name[n++] = '_';
	for (; *from && n + 1 < size; from++) {
		char c = *from;

		name[n++] = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ? c : '_';
	}
	name[n] = 0;
}

// ---- HTTP

// A word of the header, without spaces around it.
static bool word_is(const char *s, size_t n, const char *word)
{
	while (n && (*s == ' ' || *s == '\t'))
		s++, n--;
	while (n && (s[n - 1] == ' ' || s[n - 1] == '\t'))
		n--;
	return n == strlen(word) && !strncasecmp(s, word, n);
}

struct range {
	double q;
	bool version; // one of OpenMetrics that is spoken here, or none is asked for
};

// Parameters of a media range, from behind its type to the next comma.
static struct range parameters(const char *s, size_t n)
{
	struct range r = {.q = 1, .version = true};

	while (n) {
		size_t len = 0;

		while (len < n && s[len] != ';')
			len++;
		const char *equals = memchr(s, '=', len);
		if (equals) {
			size_t key = (size_t)(equals - s), value = len - key - 1;
			char number[8] = "";

			if (word_is(s, key, "q")) {
				memcpy(number, equals + 1, value < sizeof number ? value : sizeof number - 1);
				r.q = strtod(number, NULL);
				if (!(r.q >= 0 && r.q <= 1))
					r.q = 0;
			} else if (word_is(s, key, "version")) {
				r.version = word_is(equals + 1, value, "1.0.0") || word_is(equals + 1, value, "0.0.1");
			}
		}
		s += len < n ? len + 1 : len;
		n -= len < n ? len + 1 : len;
	}
	return r;
}

enum om_format om_negotiate(const char *accept)
{
	double open = 0, text = 0;

	while (accept && *accept) {
		size_t len = strcspn(accept, ","), type = strcspn(accept, ",;");
		struct range r = parameters(accept + type, len - type);

		if (word_is(accept, type, "application/openmetrics-text") && r.version && r.q > open)
			open = r.q;
		else if (word_is(accept, type, "text/plain") && r.q > text)
			text = r.q;
		accept += len;
		accept += *accept == ',';
	}
	// Who doesn't ask for OpenMetrics may be a person with a browser.
	return open > 0 && open >= text ? OM_OPENMETRICS : OM_TEXT;
}

const char *om_content_type(enum om_format f)
{
	return f == OM_OPENMETRICS ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
				   : "text/plain; version=0.0.4; charset=utf-8";
}
