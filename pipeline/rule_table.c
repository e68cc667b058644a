// rule_table: see rule_table.h.
#include "rule_table.h"

#include <stdlib.h>
#include <string.h>

// Rules of one mask. A value has one rule, the best of those that have it: the others can never match.
struct tuple {
	struct flow_key mask;
	unsigned len; // bytes of the key that the mask looks at, KEY_LEN_*
	uint32_t room; // of slot, a power of two and at least twice the rules
	const struct rule *best;
	const struct rule **slot;
};

struct rule_table {
	size_t n, n_tuples;
	uint32_t fields;
	const struct rule **rule; // as they were given
	struct tuple *tuple;
};

bool rule_is_better(const struct rule *a, const struct rule *b)
{
	if (a->priority != b->priority)
		return a->priority > b->priority;
	return memcmp(&a->id, &b->id, sizeof a->id) < 0;
}

static int compare(const void *a_, const void *b_)
{
	const struct rule *a = *(const struct rule *const *)a_, *b = *(const struct rule *const *)b_;
	int cmp = memcmp(&a->match.mask, &b->match.mask, sizeof a->match.mask);

	if (!cmp)
		cmp = memcmp(&a->match.value, &b->match.value, sizeof a->match.value);
	return cmp ? cmp : rule_is_better(a, b) ? -1 : 1;
}

static int compare_tuples(const void *a_, const void *b_)
{
	const struct tuple *a = a_, *b = b_;

	return rule_is_better(a->best, b->best) ? -1 : 1;
}

static bool same_mask(const struct rule *a, const struct rule *b)
{
	return !memcmp(&a->match.mask, &b->match.mask, sizeof a->match.mask);
}

static unsigned len_of(const struct flow_key *mask)
{
	static const struct flow_key none;
	const uint8_t *b = (const uint8_t *)mask, *zero = (const uint8_t *)&none;

	if (memcmp(b + KEY_LEN_V4, zero, KEY_LEN_V6 - KEY_LEN_V4))
		return KEY_LEN_V6;
	return memcmp(b + KEY_LEN_L2, zero, KEY_LEN_V4 - KEY_LEN_L2) ? KEY_LEN_V4 : KEY_LEN_L2;
}

// `rules`: all of one mask, equal values together, the best first.
static bool fill(struct tuple *t, const struct rule **rules, size_t n)
{
	t->mask = rules[0]->match.mask;
	t->len = len_of(&t->mask);
	for (t->room = 2; t->room < 2 * n; t->room *= 2)
		;
	t->slot = calloc(t->room, sizeof(const struct rule *));
	if (!t->slot)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!t->best || rule_is_better(rules[i], t->best))
			t->best = rules[i];
		if (i && key_equal(&rules[i]->match.value, &rules[i - 1]->match.value, KEY_LEN_V6))
			continue;
		uint32_t at = (uint32_t)key_hash(&rules[i]->match.value, t->len) & (t->room - 1);
		while (t->slot[at])
			at = (at + 1) & (t->room - 1);
		t->slot[at] = rules[i];
	}
	return true;
}

struct rule_table *rule_table_make(const struct rule *const *rules, size_t n)
{
	struct rule_table *t = calloc(1, sizeof *t);
	const struct rule **sorted = calloc(n, sizeof *sorted);
	size_t tuples = 0;

	if (t)
		t->rule = calloc(n, sizeof *t->rule);
	if (!t || !sorted || !t->rule)
		goto no_memory;
	memcpy(t->rule, rules, n * sizeof *t->rule);
	memcpy(sorted, rules, n * sizeof *sorted);
	t->n = n;
	qsort(sorted, n, sizeof *sorted, compare);
	for (size_t i = 0; i < n; i++) {
		t->fields |= sorted[i]->match.fields;
		tuples += !i || !same_mask(sorted[i], sorted[i - 1]);
	}
	t->tuple = calloc(tuples, sizeof *t->tuple);
	if (!t->tuple)
		goto no_memory;
	for (size_t i = 0, end; i < n; i = end) {
		for (end = i + 1; end < n && same_mask(sorted[i], sorted[end]); end++)
			;
		if (!fill(&t->tuple[t->n_tuples++], sorted + i, end - i))
			goto no_memory;
	}
	qsort(t->tuple, t->n_tuples, sizeof *t->tuple, compare_tuples);
	free(sorted);
	return t;
no_memory:
	free(sorted);
	rule_table_free(t);
	return NULL;
}

void rule_table_free(void *table)
{
	struct rule_table *t = table;

	if (!t)
		return;
	for (size_t i = 0; i < t->n_tuples; i++)
		free(t->tuple[i].slot);
	free(t->tuple);
	free(t->rule);
	free(t);
}

bool rule_table_is_of(const struct rule_table *t, const struct rule *const *rules, size_t n)
{
	return t->n == n && !memcmp(t->rule, rules, n * sizeof *rules);
}

uint32_t rule_table_fields(const struct rule_table *t)
{
	return t->fields;
}

size_t rule_table_size(const struct rule_table *t)
{
	return t->n;
}

static const struct rule *tuple_find(const struct tuple *t, const struct flow_key *k)
{
	struct flow_key masked;
	key_word *to = (key_word *)(void *)&masked;
	const key_word *w = (const key_word *)(const void *)k, *m = (const key_word *)(const void *)&t->mask;

	for (unsigned i = 0; i < t->len / 8; i++)
		to[i] = w[i] & m[i];
	for (uint32_t at = (uint32_t)key_hash(&masked, t->len) & (t->room - 1); t->slot[at]; at = (at + 1) & (t->room - 1))
		if (key_equal(&t->slot[at]->match.value, &masked, t->len))
			return t->slot[at];
	return NULL;
}

const struct rule *rule_table_lookup(const struct rule_table *t, const struct flow_key *k, const struct rule *best)
{
	for (size_t i = 0; i < t->n_tuples; i++) {
		if (best && !rule_is_better(t->tuple[i].best, best))
			break;
		const struct rule *found = tuple_find(&t->tuple[i], k);
		if (found && (!best || rule_is_better(found, best)))
			best = found;
	}
	return best;
}
