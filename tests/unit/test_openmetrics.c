// The text format: families, escaping, histograms, negotiation; and that every metric's name follows the conventions.
#include "metrics_table.h"
#include "openmetrics.h"
#include "table_stat.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const struct om_family bytes = {"x_receive_bytes", "bytes", "bytes \\ of\nall", OM_COUNTER};
static const struct om_family level = {"x_level", "", "how full", OM_GAUGE};

static void expect(struct om *o, const char *text)
{
	size_t len;
	char *got = om_end(o, &len);

	assert_non_null(got);
	assert_string_equal(got, text);
	assert_int_equal(len, strlen(text));
	free(got);
}

static void test_families(void **state)
{
	struct om o = {.format = OM_OPENMETRICS};

	om_family(&o, &level); // without samples: nothing
	om_family(&o, &bytes);
	om_uint(&o, "port=\"a\"", UINT64_MAX);
	om_uint(&o, "", 0);
	expect(&o, "# HELP x_receive_bytes bytes \\\\ of\\nall\n# TYPE x_receive_bytes counter\n# UNIT x_receive_bytes bytes\n"
		   "x_receive_bytes_total{port=\"a\"} 18446744073709551615\nx_receive_bytes_total 0\n# EOF\n");

	o = (struct om){.format = OM_TEXT};
	om_family(&o, &bytes);
	om_uint(&o, "port=\"a\"", 7);
	om_family(&o, &level);
	om_real(&o, "", 0.25);
	expect(&o, "# HELP x_receive_bytes_total bytes \\\\ of\\nall\n# TYPE x_receive_bytes_total counter\n"
		   "x_receive_bytes_total{port=\"a\"} 7\n# HELP x_level how full\n# TYPE x_level gauge\nx_level 0.25\n");
}

static void test_info(void **state)
{
	static const struct om_family build = {"x_build", "", "what runs", OM_INFO};
	struct om o = {.format = OM_OPENMETRICS};

	om_family(&o, &build);
	om_uint(&o, "version=\"1\"", 1);
	expect(&o, "# HELP x_build what runs\n# TYPE x_build info\nx_build_info{version=\"1\"} 1\n# EOF\n");
	// The older format knows no such type.
	o = (struct om){.format = OM_TEXT};
	om_family(&o, &build);
	om_uint(&o, "version=\"1\"", 1);
	expect(&o, "# HELP x_build_info what runs\n# TYPE x_build_info gauge\nx_build_info{version=\"1\"} 1\n");
}

static void test_values(void **state)
{
	struct om o = {.format = OM_TEXT};

	om_family(&o, &level);
	om_int(&o, "", INT64_MIN);
	om_int(&o, "", -1);
	om_int(&o, "", 5);
	om_seconds(&o, "", 1234567890123456789ULL);
	om_seconds(&o, "", 42);
	om_real(&o, "", NAN);
	om_real(&o, "", -INFINITY);
	expect(&o, "# HELP x_level how full\n# TYPE x_level gauge\nx_level -9223372036854775808\nx_level -1\nx_level "
		   "5\nx_level 1234567890.123456789\n"
		   "x_level 0.000000042\nx_level NaN\nx_level -Inf\n");
}

static void test_histogram(void **state)
{
	static const struct om_family f = {"x_seconds", "seconds", "time", OM_HISTOGRAM};
	static const double bound[] = {0.000004096, 1, 2.5};
	static const uint64_t count[] = {3, 0, 2, 1};
	struct om o = {.format = OM_OPENMETRICS};

	om_family(&o, &f);
	om_histogram(&o, "port=\"a\"", bound, count, 3, 7.5);
	// Each bucket has what is in those before it; the last has all.
	expect(&o, "# HELP x_seconds time\n# TYPE x_seconds histogram\n# UNIT x_seconds seconds\n"
		   "x_seconds_bucket{port=\"a\",le=\"4.096e-06\"} 3\nx_seconds_bucket{port=\"a\",le=\"1.0\"} "
		   "3\nx_seconds_bucket{port=\"a\",le=\"2.5\"} 5\n"
		   "x_seconds_bucket{port=\"a\",le=\"+Inf\"} 6\nx_seconds_sum{port=\"a\"} 7.5\nx_seconds_count{port=\"a\"} "
		   "6\n# EOF\n");
	o = (struct om){.format = OM_TEXT};
	om_family(&o, &f);
	om_histogram(&o, "", bound + 1, count + 1, 1, 2);
	expect(&o, "# HELP x_seconds time\n# TYPE x_seconds histogram\nx_seconds_bucket{le=\"1\"} "
		   "0\nx_seconds_bucket{le=\"+Inf\"} 2\nx_seconds_sum 2\n"
		   "x_seconds_count 2\n");
}

static void test_labels(void **state)
{
	struct om_labels l = {.len = 0};
	char long_value[400];

	om_label(&l, "a", "plain");
	om_label(&l, "b", "back\\slash \"quote\" new\nline");
	om_label(&l, "c", "tab\there, \x7f");
	assert_string_equal(l.text, "a=\"plain\",b=\"back\\\\slash \\\"quote\\\" new\\nline\",c=\"tab?here, ?\"");
	// UTF-8 stays, what is none doesn't: a scraper would refuse the whole text.
	l.len = 0;
	om_label(&l, "d",
		 "Gr\xc3\xbc\xc3\x9f"
		 "e \xe2\x82\xac \xf0\x9f\x90\x9f");
	om_label(&l, "e", "\xff \xc3 \xc0\xaf \xed\xa0\x80 \xf4\x90\x80\x80 \xe2\x82");
	assert_string_equal(l.text, "d=\"Gr\xc3\xbc\xc3\x9f"
				    "e \xe2\x82\xac \xf0\x9f\x90\x9f\",e=\"? ? ?? ??? ???? ??\"");
	// Cut between characters.
	l.len = 0;
	memset(long_value, 'x', sizeof long_value);
	memcpy(long_value + OM_VALUE - 1, "\xc3\xbc", 3);
	om_label(&l, "f", long_value);
	assert_int_equal(l.len, strlen("f=\"\"") + OM_VALUE - 1);
	// What finds no room is left out as a whole.
	memset(long_value, '"', sizeof long_value);
	long_value[sizeof long_value - 1] = 0;
	for (int i = 0; i < 20; i++) {
		om_label(&l, "g", long_value);
		assert_true(l.len < sizeof l.text);
		assert_int_equal(l.text[l.len], 0);
		assert_int_equal(l.text[l.len - 1], '"');
	}
}

static void test_label_names(void **state)
{
	static const char *const names[][2] = {{"vm-id", "vm_id"},     {"iface-id", "iface_id"},
					       {"__name__", "name__"}, {"9lives", "_9lives"},
					       {"a b\"c", "a_b_c"},    {"___", ""},
					       {"\xc3\xbc", "__"},     {"", ""}};
	char name[64], small[4];

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		om_label_name(names[i][0], name, sizeof name);
		assert_string_equal(name, names[i][1]);
	}
	om_label_name("abcdef", small, sizeof small);
	assert_string_equal(small, "abc");
}

static void test_negotiation(void **state)
{
	static const struct {
		const char *accept;
		enum om_format format;
	} cases[] = {
		{NULL, OM_TEXT},
		{"", OM_TEXT},
		{"*/*", OM_TEXT},
		{"text/html,application/xhtml+xml,*/*;q=0.8", OM_TEXT},
		{"text/plain;version=0.0.4", OM_TEXT},
		{"application/openmetrics-text", OM_OPENMETRICS},
		{"application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/"
		 "plain;version=0.0.4;q=0.5,*/*;q=0.1",
		 OM_OPENMETRICS},
		{"application/OpenMetrics-Text ; version=1.0.0 ; charset=utf-8 ; q=0.6 , text/plain;q=0.5", OM_OPENMETRICS},
		{"application/openmetrics-text;version=1.0.0;q=0.3,text/plain;q=0.5", OM_TEXT},
		{"application/openmetrics-text;version=2.0.0,text/plain;q=0.1", OM_TEXT},
		{"application/openmetrics-text;q=0", OM_TEXT},
		{"application/openmetrics-text;q=nan", OM_TEXT},
		{"application/openmetrics-text;q=17", OM_TEXT},
		{"application/openmetrics-textual", OM_TEXT},
		{",,;;,=;q=,application/openmetrics-text;;q", OM_OPENMETRICS},
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		if (om_negotiate(cases[i].accept) != cases[i].format)
			fail_msg("%s", cases[i].accept);
}

// ---- the table of metrics

static const struct metric_row rows[METRIC_N] = {METRICS(METRIC_ROW) PORT_METRICS(METRIC_ROW)};

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n >= m && !strcmp(text + n - m, end);
}

static void test_conventions(void **state)
{
	static const char *const reserved[] = {"_total", "_created", "_bucket", "_count", "_sum", "_info"};

	for (unsigned i = 0; i < METRIC_N; i++) {
		const struct om_family *f = &rows[i].family;
		char unit[32];

		assert_true(!strncmp(f->name, "weir_", 5) || !strncmp(f->name, "process_", 8));
		assert_int_equal(f->name[strspn(f->name, "abcdefghijklmnopqrstuvwxyz_")], 0);
		assert_true(f->help[0] && f->help[strlen(f->help) - 1] != '.');
		snprintf(unit, sizeof unit, "_%s", f->unit);
		if (f->unit[0] && !ends_with(f->name, unit))
			fail_msg("%s doesn't end with its unit", f->name);
		if (f->type == OM_INFO && f->unit[0])
			fail_msg("%s: an info has no unit", f->name);
		for (size_t r = 0; r < sizeof reserved / sizeof reserved[0]; r++)
			if (ends_with(f->name, reserved[r]))
				fail_msg("%s ends with %s, which belongs to samples", f->name, reserved[r]);
		for (unsigned k = 0; k < i; k++)
			if (!strcmp(f->name, rows[k].family.name))
				fail_msg("%s is there twice", f->name);
	}
}

// ---- tables

static void none(table_fill_fn *fn, void *arg)
{
}

static void test_tables(void **state)
{
	struct table_stat b = {.name = "b", .each = none}, a = {.name = "a", .each = none}, c = {.name = "c", .each = none};

	table_stat_register(&b);
	table_stat_register(&c);
	table_stat_register(&a);
	table_stat_register(&b); // again
	assert_ptr_equal(table_stat_first(), &a);
	assert_ptr_equal(a.next, &b);
	assert_ptr_equal(b.next, &c);
	assert_null(c.next);
	table_stat_unregister(&b);
	table_stat_unregister(&b);
	assert_ptr_equal(a.next, &c);
	table_stat_unregister(&a);
	table_stat_unregister(&c);
	assert_null(table_stat_first());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_families),    cmocka_unit_test(test_info),        cmocka_unit_test(test_values),
		cmocka_unit_test(test_histogram),   cmocka_unit_test(test_labels),      cmocka_unit_test(test_label_names),
		cmocka_unit_test(test_negotiation), cmocka_unit_test(test_conventions), cmocka_unit_test(test_tables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
