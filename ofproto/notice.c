// notice: see notice.h.
#include "notice.h"

#include <stdarg.h>
#include <stdio.h>

void (*notice_sink)(char level, const char *module, const struct log_field *, const char *sentence);

void notice(char level, const char *module, const struct log_field *fields, const char *fmt, ...)
{
	char sentence[512];
	va_list args;

	if (!notice_sink)
		return;
	va_start(args, fmt);
	vsnprintf(sentence, sizeof sentence, fmt, args);
	va_end(args);
	notice_sink(level, module, fields, sentence);
}
