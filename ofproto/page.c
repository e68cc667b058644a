// page: see page.h.
#include "page.h"
#include "sentence.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void page_begin(struct page *p)
{
	*p = (struct page){.limit = UINT64_MAX};
}

bool page_look(struct page *p)
{
	return listing_rows(p->l) < PAGE_ROWS && listing_rows(p->l) < p->limit && p->looks++ < PAGE_LOOKS;
}

char *page_next(struct page *p, page_fn *fn, int argc, const char *argv[], bool json, bool *end, char **error)
{
	p->l = listing_new();
	p->looks = 0;
	int rc = fn(p, argc, argv, error);
	char *text = NULL;
	if (rc >= 0 && p->shape.n && p->shape.n != listing_columns(p->l)) {
		sentence_set(error, "this is the place in another list");
		rc = -1;
	}
	if (rc >= 0) {
		p->limit -= listing_rows(p->l);
		*end = !rc || !p->limit;
		text = listing_render_part(p->l, json, &p->shape, *end);
	}
	listing_free(p->l);
	p->l = NULL;
	return text;
}

// Numbers in hexadecimal with dots between: place, limit, rows so far, and the width of each column, twice, plus 1 if it is to the right.
void page_cursor(const struct page *p, char text[PAGE_CURSOR])
{
	int n = snprintf(text, PAGE_CURSOR, "%" PRIx64 ".%" PRIx64 ".%" PRIx64 ".%" PRIx64 ".%" PRIx64, p->at[0], p->at[1], p->at[2], p->limit, p->shape.rows);

	for (unsigned i = 0; i < p->shape.n; i++)
		n += snprintf(text + n, (size_t)(PAGE_CURSOR - n), ".%x", p->shape.wide[i] * 2u + p->shape.right[i]);
}

bool page_resume(struct page *p, const char *text)
{
	uint64_t *const head[] = {&p->at[0], &p->at[1], &p->at[2], &p->limit, &p->shape.rows};

	page_begin(p);
	for (size_t i = 0;; i++) {
		char *end;
		size_t digits = strspn(text, "0123456789abcdef");
		uint64_t v = strtoull(text, &end, 16);

		if (!digits || digits > 16 || end != text + digits)
			return false;
		if (i < sizeof head / sizeof head[0]) {
			*head[i] = v;
		} else {
			if (p->shape.n == LISTING_COLUMNS || v / 2 > LISTING_WIDE)
				return false;
			p->shape.right[p->shape.n] = v & 1;
			p->shape.wide[p->shape.n++] = (uint16_t)(v / 2);
		}
		if (!*end)
			return i + 1 >= sizeof head / sizeof head[0] && p->limit;
		if (*end != '.')
			return false;
		text = end + 1;
	}
}
