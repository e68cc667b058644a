// rule_make: see rule_make.h.
#include "rule_make.h"
#include "class_table.h"
#include "rcu.h"
#include "row.h"
#include "sentence.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct rule *rule_work[RULE_WORK_MAX];
static uint32_t work_high = 1, work_free; // handles that were never used, and a list of those that are free again
static uint32_t work_next[RULE_WORK_MAX];

struct named {
	const char *name;
	uint16_t id;
};

static uint32_t work_take(void)
{
	uint32_t h = work_free;

	if (h)
		work_free = work_next[h];
	else if (work_high < RULE_WORK_MAX)
		h = work_high++;
	return h;
}

void rule_free(void *arg)
{
	struct rule *ru = arg;

	if (!ru)
		return;
	if (ru->work) {
		rcu_publish(rule_work[ru->work], NULL);
		work_next[ru->work] = work_free;
		work_free = ru->work;
	}
	actions_free(&ru->actions);
	free(ru->match_text);
	free(ru->actions_text);
	free(ru->error);
	free(ru);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

// 0: there is no such port.
static uint16_t port_id(const struct rule_names *names, const char *name)
{
	struct named key = {.name = name}, *found = names->n ? bsearch(&key, names->port, names->n, sizeof key, compare_names) : NULL;

	return found ? found->id : 0;
}

static void set_port(const struct rule_names *names, const char *word, const char *name, uint16_t *id, char **error)
{
	*id = port_id(names, name);
	if (!*id)
		sentence_set(error, "%s%s: there is no port %s yet", word, name, name);
}

static void find_names(struct rule *ru, const struct rule_names *names)
{
	struct actions *a = &ru->actions;
	uint16_t in;

	if (ru->match.in_port[0]) {
		set_port(names, "in_port=", ru->match.in_port, &in, &ru->error);
		match_in_port(&ru->match, in);
	}
	if (a->to == ACTIONS_PORT)
		set_port(names, "output:", a->name, &a->port, &ru->error);
	for (unsigned i = 0; i < a->n_copies; i++)
		set_port(names, a->copy[i].tag == TAG_AS_RECEIVED ? "mirror:" : "output:", a->copy[i].name, &a->copy[i].port, &ru->error);
	ru->class_row = a->class[0] ? class_table_find(a->class) : 0;
	if (a->class[0] && !ru->class_row)
		sentence_set(&ru->error, "class:%s: there is no class %s yet", a->class, a->class);
}

// Whether the ports and the class that the rule names are the ones that they were.
static bool same_names(const struct rule *ru, const struct rule_names *names)
{
	const struct actions *a = &ru->actions;
	bool same = !ru->match.in_port[0] || ru->match.value.port == port_id(names, ru->match.in_port);

	same &= a->to != ACTIONS_PORT || a->port == port_id(names, a->name);
	for (unsigned i = 0; i < a->n_copies; i++)
		same &= a->copy[i].port == port_id(names, a->copy[i].name);
	return same && (!a->class[0] || ru->class_row == class_table_find(a->class));
}

static void give_work(struct rule *ru)
{
	if (!ru->actions.n_sets && !ru->actions.n_copies)
		return;
	ru->work = work_take();
	if (ru->work)
		rcu_publish(rule_work[ru->work], ru);
	else
		sentence_set(&ru->error, "the switch takes %d rules at most that set fields or send copies", RULE_WORK_MAX - 1);
}

struct rule *rule_make(const struct config_flow *cf, uint16_t network, const struct rule_names *names)
{
	struct rule *ru = calloc(1, sizeof *ru);
	char name[ROW_ID_STRLEN + 1];

	if (!ru)
		return NULL;
	row_id_format(&cf->row, name);
	name[8] = '\0'; // as much as people need to find it in a list
	ru->id = cf->row;
	ru->row = row_intern("Flow", &cf->row, name);
	ru->priority = cf->priority;
	ru->network = network;
	ru->match_text = strdup(cf->match);
	ru->actions_text = strdup(cf->actions);
	ru->error = cf->error ? strdup(cf->error) : NULL;
	if (!ru->match_text || !ru->actions_text) {
		rule_free(ru);
		return NULL;
	}
	if (!ru->error && !match_parse(cf->match, &ru->match, &ru->error) && !actions_parse(cf->actions, &ru->match, &ru->actions, &ru->error))
		find_names(ru, names);
	ru->active = cf->enabled && (network || !cf->has_network);
	if (!ru->error && ru->active)
		give_work(ru);
	ru->active &= !ru->error;
	return ru;
}

bool rule_is_unchanged(const struct rule *ru, const struct config_flow *cf, uint16_t network, const struct rule_names *names)
{
	bool active = cf->enabled && (network || !cf->has_network);

	// A row with an error is looked at again: what it lacked may be there by now.
	return !ru->error && !cf->error && ru->active == active && ru->network == network && ru->priority == cf->priority &&
	       !strcmp(ru->match_text, cf->match) && !strcmp(ru->actions_text, cf->actions) && same_names(ru, names);
}

int rule_names_make(const struct config *want, struct rule_names *names)
{
	names->port = calloc(want->n_ports + 1, sizeof *names->port);
	if (!names->port)
		return -ENOMEM;
	for (size_t i = 0; i < want->n_ports; i++)
		if (want->ports[i].id)
			names->port[names->n++] = (struct named){want->ports[i].name, want->ports[i].id};
	qsort(names->port, names->n, sizeof *names->port, compare_names);
	return 0;
}

void rule_names_free(struct rule_names *names)
{
	free(names->port);
}
