// mark: see mark.h.
#include "mark.h"
#include "sentence.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool read_number(const char *s, size_t len, uint32_t *n)
{
	char *end;

	if (!isdigit((unsigned char)*s))
		return false;
	errno = 0;
	unsigned long long v = strtoull(s, &end, s[0] == '0' && (s[1] == 'x' || s[1] == 'X') ? 16 : 10);
	*n = (uint32_t)v;
	return end == s + len && !errno && v <= UINT32_MAX;
}

int mark_read(const char *text, const char *what, struct pkt_mark *m, char **error)
{
	size_t len = strcspn(text, "/");

	m->mask = UINT32_MAX;
	if (!read_number(text, len, &m->value) || (text[len] && !read_number(text + len + 1, strlen(text + len + 1), &m->mask)))
		sentence_set(error, "%s: a mark is a number of 32 bits, such as 0x10, or one with a mask, 0x10/0xff", what);
	else if (!m->mask)
		sentence_set(error, "%s: the mask 0 leaves nothing of the mark", what);
	else if (m->value & ~m->mask)
		sentence_set(error, "%s: the mark has bits that its mask leaves out", what);
	else
		return 0;
	return -EINVAL;
}
