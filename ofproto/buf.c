// buf: see buf.h.
#include "buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void buf_add(struct buf *b, const char *fmt, ...)
{
	for (;;) {
		va_list args;
		size_t room = b->room - b->len;

		va_start(args, fmt);
		int n = vsnprintf(b->text ? b->text + b->len : NULL, room, fmt, args);
		va_end(args);
		if (n < 0)
			return;
		if ((size_t)n < room) {
			b->len += (size_t)n;
			return;
		}
		size_t want = (b->len + (size_t)n + 1) * 2;
		char *text = realloc(b->text, want);
		if (!text)
			return; // what is there stays
		b->text = text;
		b->room = want;
	}
}

void buf_add_mac(struct buf *b, const uint8_t m[6])
{
	buf_add(b, "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
}
