// config, row, gen, buf, reason: the small things that all else is made of.
#include "lab.h"

static void maps(void **state)
{
	struct config_pair pairs[] = {{(char[]){"a"}, (char[]){"5"}}, {(char[]){"b"}, (char[]){"true"}}, {(char[]){"c"}, (char[]){"x"}},
				      {(char[]){"neg"}, (char[]){"-1"}}, {(char[]){"big"}, (char[]){"99999999999999999999"}}, {(char[]){"tail"}, (char[]){"7s"}},
				      {(char[]){"empty"}, (char[]){""}}};
	struct config_map m = {pairs, 7};
	const char *bad = NULL;

	assert_string_equal(config_map_get(&m, "a", "z"), "5");
	assert_string_equal(config_map_get(&m, "q", "z"), "z");
	assert_int_equal(config_map_uint(&m, "a", 9, 1, 10, &bad), 5);
	assert_int_equal(config_map_uint(&m, "q", 9, 1, 10, &bad), 9);
	assert_null(bad);
	assert_int_equal(config_map_uint(&m, "a", 9, 6, 10, NULL), 9);
	static const char *const wrong[] = {"c", "neg", "big", "tail", "empty"};
	for (int i = 0; i < 5; i++) {
		bad = NULL;
		assert_int_equal(config_map_uint(&m, wrong[i], 9, 0, 1000, &bad), 9);
		assert_string_equal(bad, wrong[i]);
	}
	assert_true(config_map_bool(&m, "b", false));
	assert_false(config_map_bool(&m, "c", true));
	assert_true(config_map_bool(&m, "q", true));
	config_free(NULL);
}

static void row_ids(void **state)
{
	struct row_id r, again;
	char text[ROW_ID_STRLEN + 1];

	assert_true(row_id_parse("01234567-89ab-CDEF-0123-456789abcdef", &r));
	row_id_format(&r, text);
	assert_string_equal(text, "01234567-89ab-cdef-0123-456789abcdef");
	assert_true(row_id_parse(text, &again));
	assert_true(row_id_equal(&r, &again));
	assert_false(row_id_is_zero(&r));
	assert_true(row_id_is_zero(&(struct row_id){{0}}));
	assert_false(row_id_parse("01234567-89ab-cdef-0123-456789abcde", &r));
	assert_false(row_id_parse("01234567-89ab-cdef-0123-456789abcdeg", &r));
	assert_false(row_id_parse("01234567-89ab-cdef-01234-56789abcdef", &r));
	assert_false(row_id_parse("", &r));
}

static void row_handles(void **state)
{
	struct row_id id = {{1}};
	uint32_t first = row_intern("Port", &id, "vm1"), n = 0;

	assert_int_not_equal(first, 0);
	assert_int_equal(row_intern("Port", &id, "vm1"), first);
	assert_int_not_equal(row_intern("Network", &id, "vm1"), first);
	assert_string_equal(row_get(first)->name, "vm1");
	assert_string_equal(row_get(first)->table, "Port");
	assert_int_equal(row_intern("Port", &id, "renamed"), first);
	assert_string_equal(row_get(first)->name, "renamed");
	assert_null(row_get(0));
	assert_null(row_get(UINT32_MAX));
	// Thousands, which make the table grow; no handle changes its meaning.
	for (uint32_t i = 0; i < 5000; i++) {
		struct row_id many = {{2}};

		memcpy(many.b + 1, &i, 4);
		uint32_t h = row_intern("ACL", &many, "rule");
		assert_int_not_equal(h, n);
		n = h;
		assert_true(row_id_equal(&row_get(h)->id, &many));
	}
	assert_string_equal(row_get(first)->name, "renamed");
	for (uint32_t i = 0; i < 5000; i++) {
		struct row_id many = {{2}};

		memcpy(many.b + 1, &i, 4);
		assert_true(row_id_equal(&row_get(row_intern("ACL", &many, "rule"))->id, &many));
	}
}

static void generations(void **state)
{
	uint16_t slot = gen_slot(GEN_FDB, 0x00010200000000aaULL);
	uint32_t gen = gen_read(slot), epoch = gen_read_epoch();

	assert_int_equal(gen_bump(slot), gen + 1);
	assert_int_equal(gen_read(slot), gen + 1);
	assert_int_equal(gen_read_epoch(), epoch + 1);
	assert_int_equal(gen_slot(GEN_CONFIG, 77), 0);
	// Neighbours have slots of their own, of one kind and across kinds; nothing has that of the configuration.
	static uint8_t used[GEN_SLOTS];
	unsigned shared = 0;
	memset(used, 0, sizeof used);
	for (uint64_t i = 1; i < 300; i++) {
		shared += used[gen_slot(GEN_PORT, i)]++ != 0;
		shared += used[gen_slot(GEN_NETWORK, i)]++ != 0;
		shared += used[gen_slot(GEN_FDB, 1ULL << 48 | 0x020000000000 | i)]++ != 0;
	}
	assert_int_equal(used[0], 0);
	assert_true(shared < 900 * 900 / GEN_SLOTS);
}

static void text_grows(void **state)
{
	struct buf b = {0};

	buf_add(&b, "%s", "");
	assert_string_equal(b.text, "");
	for (int i = 0; i < 1000; i++)
		buf_add(&b, "%d,", i % 10);
	assert_int_equal(b.len, 2000);
	assert_int_equal(strlen(b.text), 2000);
	buf_add_mac(&b, (const uint8_t[]){0, 1, 2, 0xfd, 0xfe, 0xff});
	assert_string_equal(b.text + 2000, "00:01:02:fd:fe:ff");
	free(b.text);
}

static void reasons(void **state)
{
	static const struct reason rows[] = {{"mine", "ONE", "the first"}, {"mine", "TWO", "the second"}};
	static struct reason many[MAX_REASONS];

	uint16_t base = reason_register(rows, 2);
	assert_true(base > 0);
	assert_int_equal(reason_register(rows, 2), base); // once more is no more
	assert_int_equal(reason_find("mine", "two"), base + 1);
	assert_int_equal(reason_find("mine", "three"), 0);
	assert_string_equal(reason_get(base)->text, "the first");
	assert_string_equal(reason_get(0)->name, "NONE");
	assert_string_equal(reason_get(60000)->name, "NONE");
	for (unsigned i = 0; i < MAX_REASONS; i++)
		many[i] = (struct reason){"many", "X", "x"};
	assert_int_equal(reason_register(many, MAX_REASONS), 0); // they don't fit, and nothing of them is there
	assert_int_equal(reason_find("many", "X"), 0);
	assert_int_equal(reason_register(NULL, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(maps),	       cmocka_unit_test(row_ids),    cmocka_unit_test(row_handles),
		cmocka_unit_test(generations), cmocka_unit_test(text_grows), cmocka_unit_test(reasons),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
