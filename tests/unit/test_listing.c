// The table printer: what people see, and JSON that a parser takes whatever the strings hold.
#include "listing.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

static void expect(const struct listing *l, bool json, const char *want)
{
	char *got = listing_render(l, json);

	assert_string_equal(got, want);
	free(got);
}

static void expect_record(const struct listing *l, bool json, const char *want)
{
	char *got = listing_render_record(l, json);

	assert_string_equal(got, want);
	free(got);
}

static json_t *parse(const struct listing *l)
{
	char *text = listing_render(l, true);
	json_error_t error;
	json_t *json = json_loads(text, 0, &error);

	if (!json)
		fail_msg("%s: %s", error.text, text);
	free(text);
	return json;
}

static struct listing *fdb(void)
{
	struct listing *l = listing_new();

	listing_column(l, "mac", "MAC");
	listing_column(l, "age", "AGE");
	listing_column(l, "port", "PORT");
	listing_row(l);
	listing_str(l, "52:54:00:00:00:01");
	listing_uint(l, 7);
	listing_str(l, "vm1");
	listing_row(l);
	listing_str(l, "52:54:00:00:00:02");
	listing_uint(l, 1234);
	listing_str(l, "a-longer-name");
	return l;
}

static void table_pads_columns(void **state)
{
	struct listing *l = fdb();

	expect(l, false,
	       "MAC                 AGE  PORT\n"
	       "52:54:00:00:00:01     7  vm1\n"
	       "52:54:00:00:00:02  1234  a-longer-name\n");
	assert_int_equal(listing_rows(l), 2);
	listing_free(l);
}

static void json_has_an_object_per_row(void **state)
{
	struct listing *l = fdb();

	expect(l, true,
	       "[{\"mac\": \"52:54:00:00:00:01\", \"age\": 7, \"port\": \"vm1\"},\n"
	       " {\"mac\": \"52:54:00:00:00:02\", \"age\": 1234, \"port\": \"a-longer-name\"}]\n");
	listing_free(l);
}

static void empty_listing(void **state)
{
	struct listing *l = listing_new();

	listing_column(l, "name", "NAME");
	expect(l, false, "NAME\n");
	expect(l, true, "[]\n");
	expect_record(l, false, "");
	expect_record(l, true, "null\n");
	assert_int_equal(listing_rows(l), 0);
	listing_free(l);
	listing_free(NULL);
}

static void every_kind_of_cell(void **state)
{
	static const char *const nets[] = {"blue", "red"};
	struct listing *l = listing_new();

	listing_column(l, "s", "S");
	listing_column(l, "f", "F");
	listing_column(l, "r", "R");
	listing_column(l, "b", "B");
	listing_column(l, "n", "N");
	listing_column(l, "l", "L");
	listing_column(l, "rest", "REST");
	listing_row(l);
	listing_str(l, NULL);
	listing_fmt(l, "%d/%s", 3, "x");
	listing_real(l, 2.0 / 3, 2);
	listing_bool(l, true);
	listing_none(l);
	listing_list(l, nets, 2);
	listing_row(l);
	listing_str(l, "");
	listing_fmt(l, "y");
	listing_real(l, 10.1, 1);
	listing_bool(l, false);
	listing_uint(l, 5);
	listing_list(l, NULL, 0);
	listing_bool(l, true);

	expect(l, false,
	       "S  F       R  B    N  L          REST\n"
	       "-  3/x  0.67  yes  -  blue, red  -\n"
	       "-  y    10.1  no   5  -          yes\n");
	expect(l, true,
	       "[{\"s\": null, \"f\": \"3/x\", \"r\": 0.67, \"b\": true, \"n\": null, \"l\": [\"blue\", \"red\"], \"rest\": "
	       "null},\n"
	       " {\"s\": \"\", \"f\": \"y\", \"r\": 10.1, \"b\": false, \"n\": 5, \"l\": [], \"rest\": true}]\n");
	expect_record(l, false,
		      "S:    -\n"
		      "F:    3/x\n"
		      "R:    0.67\n"
		      "B:    yes\n"
		      "N:    -\n"
		      "L:    blue, red\n"
		      "REST: -\n");
	listing_free(l);
}

static void record_json_is_one_object(void **state)
{
	struct listing *l = listing_new();

	listing_column(l, "workers", "Workers");
	listing_row(l);
	listing_uint(l, 2);
	expect_record(l, true, "{\"workers\": 2}\n");
	listing_free(l);
}

static void numbers_at_their_limits(void **state)
{
	struct listing *l = listing_new();

	listing_column(l, "max", "MAX");
	listing_column(l, "int", "INT");
	listing_column(l, "nan", "NAN");
	listing_column(l, "inf", "INF");
	listing_column(l, "big", "BIG");
	listing_row(l);
	listing_uint(l, UINT64_MAX);
	listing_uint(l, INT64_MAX);
	listing_real(l, NAN, 2);
	listing_real(l, -INFINITY, 2);
	listing_real(l, 1.7e308, 99);

	char *text = listing_render(l, true);
	assert_non_null(strstr(text, "\"max\": 18446744073709551615,"));
	free(text);

	// Jansson's integers are signed, and end at 2^63 - 1.
	json_error_t error;
	text = listing_render(l, true);
	json_t *json = json_loads(text, JSON_DECODE_INT_AS_REAL, &error);
	assert_non_null(json);
	json_t *row = json_array_get(json, 0);
	free(text);
	assert_true(json_real_value(json_object_get(row, "max")) > 1.8e19);
	assert_true(json_real_value(json_object_get(row, "int")) == (double)INT64_MAX);
	assert_true(json_is_null(json_object_get(row, "nan")));
	assert_true(json_is_null(json_object_get(row, "inf")));
	assert_true(json_real_value(json_object_get(row, "big")) > 1.6e308);
	json_decref(json);
	listing_free(l);
}

// A name comes from an operator or a guest: it breaks neither the lines, nor the terminal, nor the JSON.
static void hostile_strings(void **state)
{
	static const char *const list[] = {"\"", "\xc3(", "\n"};
	struct listing *l = listing_new();

	listing_column(l, "a", "A");
	listing_column(l, "b", "B");
	listing_column(l, "c", "C");
	listing_row(l);
	listing_str(l, "x\ny\tz\x1b[31m\x7f\xc2\x9b");
	listing_str(l, "bad\xff\xc0\xaf\xed\xa0\x80\xf4\x90\x80\x80 cut\xe2\x82");
	listing_list(l, list, 3);

	char *text = listing_render(l, false);
	char *line = strchr(text, '\n') + 1;
	assert_non_null(strstr(line, "x\\ny\\tz\\x1b[31m\\x7f\\x9b"));
	assert_ptr_equal(strchr(line, '\n'), text + strlen(text) - 1);
	assert_null(strchr(text, '\x1b'));
	free(text);

	json_t *json = parse(l);
	json_t *row = json_array_get(json, 0);
	assert_string_equal(json_string_value(json_object_get(row, "a")), "x\ny\tz\x1b[31m\x7f\xc2\x9b");
	const char *b = json_string_value(json_object_get(row, "b"));
	assert_memory_equal(b, "bad\xef\xbf\xbd\xef\xbf\xbd", 9);
	assert_string_equal(b + strlen(b) - 6, "\xef\xbf\xbd\xef\xbf\xbd");
	assert_int_equal(json_array_size(json_object_get(row, "c")), 3);
	json_decref(json);
	listing_free(l);
}

// A cell whose JSON has a shape of its own: a map, a signed number.
static void json_as_given(void **state)
{
	struct listing *l = listing_new();

	listing_column(l, "options", "OPTIONS");
	listing_row(l);
	listing_json(l, "path=/run/\x1b", "{\"path\": \"/run\"}");
	expect(l, false, "OPTIONS\npath=/run/\\x1b\n");
	expect(l, true, "[{\"options\": {\"path\": \"/run\"}}]\n");
	listing_free(l);
}

// Columns line up by characters, not by bytes.
static void utf8_width(void **state)
{
	struct listing *l = listing_new();

	listing_column(l, "name", "NAME");
	listing_column(l, "x", "X");
	listing_row(l);
	listing_str(l, "gr\xc3\xbcn");
	listing_str(l, "1");
	listing_row(l);
	listing_str(l, "blau!");
	listing_str(l, "2");
	expect(l, false,
	       "NAME   X\n"
	       "gr\xc3\xbcn   1\n"
	       "blau!  2\n");
	listing_free(l);
}

static void many_rows(void **state)
{
	struct listing *l = listing_new();

	listing_column(l, "i", "I");
	listing_column(l, "s", "S");
	for (unsigned i = 0; i < 5000; i++) {
		listing_row(l);
		listing_uint(l, i);
		if (i % 2)
			listing_fmt(l, "row %u", i);
	}
	json_t *json = parse(l);
	assert_int_equal(json_array_size(json), 5000);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(json, 4999), "i")), 4999);
	assert_true(json_is_null(json_object_get(json_array_get(json, 4998), "s")));
	json_decref(json);
	listing_free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table_pads_columns),
		cmocka_unit_test(json_has_an_object_per_row),
		cmocka_unit_test(empty_listing),
		cmocka_unit_test(every_kind_of_cell),
		cmocka_unit_test(record_json_is_one_object),
		cmocka_unit_test(numbers_at_their_limits),
		cmocka_unit_test(hostile_strings),
		cmocka_unit_test(json_as_given),
		cmocka_unit_test(utf8_width),
		cmocka_unit_test(many_rows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
