// sentence: see sentence.h.
#include "sentence.h"

#include <stdarg.h>
#include <stdio.h>

static void set(char **error, const char *fmt, va_list args)
{
	if (!*error && vasprintf(error, fmt, args) < 0)
		*error = NULL;
}

void sentence_set(char **error, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	set(error, fmt, args);
	va_end(args);
}

int sentence_fail(int rc, char **error, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	set(error, fmt, args);
	va_end(args);
	return rc;
}
