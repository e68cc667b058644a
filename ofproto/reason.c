// reason: see reason.h.
#include "reason.h"
#include "sizes.h"

#include <string.h>
#include <strings.h>

static const struct reason *reasons[MAX_REASONS];
static uint16_t n_reasons = 1;

uint16_t reason_register(const struct reason *set, size_t n)
{
	if (!n)
		return 0;
	uint16_t known = reason_find(set->module, set->name);
	if (known) // The same table once more, from a test that starts the pipeline again.
		return known;
	if (n_reasons + n > MAX_REASONS)
		return 0;
	uint16_t base = n_reasons;

	for (size_t i = 0; i < n; i++)
		reasons[n_reasons++] = &set[i];
	return base;
}

const struct reason *reason_get(uint16_t id)
{
	static const struct reason none = {"none", "NONE", "not dropped"};

	return id && id < n_reasons ? reasons[id] : &none;
}

uint16_t reason_count(void)
{
	return n_reasons;
}

uint16_t reason_find(const char *module, const char *name)
{
	for (uint16_t i = 1; i < n_reasons; i++)
		if (!strcmp(reasons[i]->module, module) && !strcasecmp(reasons[i]->name, name))
			return i;
	return 0;
}
