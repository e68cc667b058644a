// Lists in parts: together they are the list, each is bounded, and what the reader hands back may be rubbish.
#include "page.h"
#include "sentence.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

static uint64_t things, every; // how many there are, and which of them are rows

static int list(struct page *p, int argc, const char *argv[], char **error)
{
	if (argc > 1) {
		sentence_set(error, "no %s", argv[1]);
		return -1;
	}
	listing_column(p->l, "n", "N");
	listing_column(p->l, "name", "NAME");
	for (; p->at[0] < things; p->at[0]++) {
		if (!page_look(p))
			return 1;
		if (p->at[0] % every)
			continue;
		listing_row(p->l);
		listing_uint(p->l, p->at[0]);
		if (p->at[0] == 2)
			listing_none(p->l);
		else
			listing_fmt(p->l, "thing%" PRIu64, p->at[0]);
	}
	return 0;
}

// The whole list as a reader gets it, who knows nothing but cursors.
static char *read_all(bool json, uint64_t limit, unsigned *pages)
{
	char cursor[PAGE_CURSOR] = "", *error = NULL, *all = calloc(1, 1);
	bool end = false;

	for (*pages = 0; !end; ++*pages) {
		struct page p;
		const char *argv[] = {"x", NULL};

		if (*pages)
			assert_true(page_resume(&p, cursor));
		else
			page_begin(&p);
		if (!*pages && limit)
			p.limit = limit;
		uint64_t before = p.shape.rows;
		char *part = page_next(&p, list, 1, argv, json, &end, &error);
		assert_non_null(part);
		assert_in_range(p.shape.rows - before, 0, PAGE_ROWS);
		assert_true(p.looks <= PAGE_LOOKS + 1);
		page_cursor(&p, cursor);
		assert_true(strlen(cursor) < PAGE_CURSOR);
		all = realloc(all, strlen(all) + strlen(part) + 1);
		strcat(all, part);
		free(part);
	}
	return all;
}

static size_t rows_of(const char *text)
{
	json_error_t error;
	json_t *json = json_loads(text, 0, &error);
	uint64_t last = 0;

	if (!json)
		fail_msg("%s: %.200s", error.text, text);
	size_t n = json_array_size(json);
	for (size_t i = 0; i < n; i++) {
		uint64_t at = (uint64_t)json_integer_value(json_object_get(json_array_get(json, i), "n"));

		assert_int_equal(at, i ? last + every : 0);
		last = at;
	}
	json_decref(json);
	return n;
}

static void json_is_one_array(void **state)
{
	static const struct {
		uint64_t things, every, limit, rows;
		unsigned pages;
	} cases[] = {
		{0, 1, 0, 0, 1},
		{1, 1, 0, 1, 1},
		{PAGE_ROWS, 1, 0, PAGE_ROWS, 1},
		{PAGE_ROWS + 1, 1, 0, PAGE_ROWS + 1, 2},
		{10 * PAGE_ROWS + 5, 1, 0, 10 * PAGE_ROWS + 5, 11},
		{10 * PAGE_ROWS, 1, 7, 7, 1},
		{10 * PAGE_ROWS, 1, PAGE_ROWS + 7, PAGE_ROWS + 7, 2},
		{10 * PAGE_ROWS, 1, PAGE_ROWS, PAGE_ROWS, 1},
		// Rows are rare: pages without any come between.
		{5 * PAGE_LOOKS, 2 * PAGE_LOOKS, 0, 3, 5},
		{5 * PAGE_LOOKS, 2 * PAGE_LOOKS, 2, 2, 3},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		unsigned pages;

		things = cases[i].things;
		every = cases[i].every;
		char *text = read_all(true, cases[i].limit, &pages);
		assert_int_equal(rows_of(text), cases[i].rows);
		assert_int_equal(pages, cases[i].pages);
		free(text);
	}
}

static void table_has_one_heading(void **state)
{
	unsigned pages, lines = 0;

	things = 4 * PAGE_ROWS + 1;
	every = 1;
	char *text = read_all(false, 0, &pages), *save = NULL, first[64];
	assert_int_equal(pages, 5);
	// The first part is as wide as its rows, later ones as theirs where those are wider; nothing gets narrower.
	assert_memory_equal(text, "  N  NAME\n  0  thing0\n  1  thing1\n  2  -\n", 41);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save), lines++) {
		if (!lines)
			continue;
		snprintf(first, sizeof first, "%*u  ", lines <= PAGE_ROWS * 4 ? 3 : 4, lines - 1);
		assert_memory_equal(line, first, strlen(first));
	}
	assert_int_equal(lines, things + 1);
	free(text);
}

static void empty_table(void **state)
{
	unsigned pages;

	things = 0;
	every = 1;
	char *text = read_all(false, 0, &pages);
	assert_string_equal(text, "N  NAME\n");
	free(text);
}

static void refusal(void **state)
{
	struct page p;
	const char *argv[] = {"x", "such", NULL};
	char *error = NULL;
	bool end;

	page_begin(&p);
	assert_null(page_next(&p, list, 2, argv, true, &end, &error));
	assert_string_equal(error, "no such");
	free(error);
}

static void rubbish(void **state)
{
	static const char *const bad[] = {"", "x", "0", "0.0", "0.0.1", "0.0.1.0", "0.0.0.0.0", "0.0.0.1.0.", "0.0.0.1.0..3", "0.0.0.1.0.-3", "0.0.0.1.0. 3", "0x1.0.0.1.0",
					  "0.0.0.1.0.ffff", "00000000000000000.0.0.1.0", "0.0.0.1.0\n", "0.0.0.1.0.4 "};
	struct page p;
	char text[1024] = "0.0.0.1.0";

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_false(page_resume(&p, bad[i]));
	assert_true(page_resume(&p, text));
	for (unsigned i = 0; i < LISTING_COLUMNS; i++)
		strcat(text, ".7d0");
	assert_true(page_resume(&p, text));
	strcat(text, ".1");
	assert_false(page_resume(&p, text));
}

// A cursor of another list has another number of columns.
static void cursor_of_another_list(void **state)
{
	struct page p;
	const char *argv[] = {"x", NULL};
	char *error = NULL;
	bool end;

	things = 10;
	every = 1;
	assert_true(page_resume(&p, "0.0.0.10.1.4.4.4"));
	assert_null(page_next(&p, list, 1, argv, false, &end, &error));
	assert_non_null(strstr(error, "another list"));
	free(error);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(json_is_one_array), cmocka_unit_test(table_has_one_heading), cmocka_unit_test(empty_table),
		cmocka_unit_test(refusal),           cmocka_unit_test(rubbish),               cmocka_unit_test(cursor_of_another_list),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
