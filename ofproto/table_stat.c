// table_stat: see table_stat.h.
#include "table_stat.h"

#include <stddef.h>
#include <string.h>

static struct table_stat *first;

void table_stat_register(struct table_stat *s)
{
	struct table_stat **at = &first;

	while (*at && *at != s && strcmp((*at)->name, s->name) < 0)
		at = &(*at)->next;
	if (*at == s)
		return;
	s->next = *at;
	*at = s;
}

void table_stat_unregister(struct table_stat *s)
{
	for (struct table_stat **at = &first; *at; at = &(*at)->next)
		if (*at == s) {
			*at = s->next;
			s->next = NULL;
			return;
		}
}

const struct table_stat *table_stat_first(void)
{
	return first;
}
