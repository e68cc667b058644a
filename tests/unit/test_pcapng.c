// pcapng: blocks as the draft has them, byte for byte; no memory is no broken block.
#include "pcapng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint32_t word(const struct pcapng *p, size_t at)
{
	uint32_t v;

	assert_true(at + 4 <= p->len);
	memcpy(&v, p->data + at, 4);
	return v;
}

// The value of an option of the block at `at` whose options begin at `first`, or NULL.
static const uint8_t *option(const struct pcapng *p, size_t at, size_t first, uint16_t code, uint16_t *len)
{
	size_t end = at + word(p, at + 4) - 4;

	for (size_t i = at + first; i < end;) {
		uint16_t head[2];

		memcpy(head, p->data + i, 4);
		if (head[0] == code) {
			*len = head[1];
			return p->data + i + 4;
		}
		if (!head[0])
			return NULL;
		i += 4 + ((head[1] + 3u) & ~3u);
	}
	return NULL;
}

static void check_block(const struct pcapng *p, size_t at, uint32_t type)
{
	uint32_t len = word(p, at + 4);

	assert_int_equal(word(p, at), type);
	assert_int_equal(len % 4, 0);
	assert_int_equal(word(p, at + len - 4), len);
}

static void blocks(void **state)
{
	struct pcapng p = {0};
	struct pcapng_packet k = {.interface = 1, .len = 1500, .caplen = 5, .ns = 0x123456789abcdef0, .outbound = true, .lost = 7, .data = "hello", .comment = "why"};
	uint16_t len;

	pcapng_section(&p, "Linux", "test");
	check_block(&p, 0, 0x0a0d0d0a);
	assert_int_equal(word(&p, 8), 0x1a2b3c4d);
	assert_int_equal(word(&p, 12), 1); // version 1.0
	assert_memory_equal(option(&p, 0, 24, 4, &len), "test", 4);

	size_t at = p.len;
	pcapng_interface(&p, "vm1", "tcp port 80", 96);
	check_block(&p, at, 1);
	assert_int_equal(word(&p, at + 8), 1); // Ethernet
	assert_int_equal(word(&p, at + 12), 96);
	assert_memory_equal(option(&p, at, 16, 2, &len), "vm1", 3);
	assert_int_equal(len, 3);
	assert_int_equal(*option(&p, at, 16, 9, &len), 9);
	assert_memory_equal(option(&p, at, 16, 11, &len), "\0tcp port 80", 12);

	at = p.len;
	pcapng_packet(&p, &k);
	check_block(&p, at, 6);
	assert_int_equal(word(&p, at + 8), 1);
	assert_int_equal(word(&p, at + 12), 0x12345678);
	assert_int_equal(word(&p, at + 16), 0x9abcdef0);
	assert_int_equal(word(&p, at + 20), 5);
	assert_int_equal(word(&p, at + 24), 1500);
	assert_memory_equal(p.data + at + 28, "hello\0\0\0", 8);
	assert_int_equal(*option(&p, at, 36, 2, &len), 2);
	assert_int_equal(*option(&p, at, 36, 4, &len), 7);
	assert_int_equal(len, 8);
	assert_memory_equal(option(&p, at, 36, 1, &len), "why", 3);

	at = p.len;
	k = (struct pcapng_packet){.data = ""};
	pcapng_packet(&p, &k);
	check_block(&p, at, 6);
	assert_int_equal(*option(&p, at, 28, 2, &len), 1);
	assert_null(option(&p, at, 28, 4, &len));
	assert_null(option(&p, at, 28, 1, &len));

	at = p.len;
	pcapng_statistics(&p, 1, 5, (uint64_t)6 << 32, 100, 3);
	check_block(&p, at, 5);
	assert_int_equal(word(&p, at + 12), 6);
	assert_int_equal(*option(&p, at, 20, 4, &len), 100);
	assert_int_equal(*option(&p, at, 20, 5, &len), 3);
	assert_false(p.failed);
	free(p.data);
}

// Texts of whatever length, packets of every size: blocks follow one another.
static void sizes(void **state)
{
	struct pcapng p = {0};
	char text[4001];
	static uint8_t data[70000];
	unsigned n = 0;

	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	pcapng_section(&p, text, text);
	pcapng_interface(&p, text, text, 0);
	for (uint32_t i = 0; i < sizeof data; i = i * 2 + 1) {
		struct pcapng_packet k = {.len = i, .caplen = i, .data = data, .comment = text + sizeof text - 1 - i % 9};

		pcapng_packet(&p, &k);
	}
	for (size_t at = 0; at < p.len; at += word(&p, at + 4), n++)
		assert_int_equal(word(&p, at + word(&p, at + 4) - 4), word(&p, at + 4));
	assert_int_equal(n, 2 + 17);
	free(p.data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(blocks), cmocka_unit_test(sizes)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
