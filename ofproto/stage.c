// stage: the list, and what a resolving stage may ask for.
#include "stage.h"
#include "link.h"
#include "parse.h"
#include "punt.h"
#include "tunnel.h"

#include <errno.h>
#include <string.h>

static struct stage *stages[MAX_STAGES];
static unsigned n_stages;

int stages_init(struct stage *const *list, unsigned n)
{
	if (n > MAX_STAGES)
		return -E2BIG;
	parse_init();
	worker_init_reasons();
	punt_init();
	link_init();
	tunnel_init();
	n_stages = 0;
	for (unsigned i = 0; i < n; i++) {
		struct stage *s = list[i];

		s->index = (uint8_t)i;
		s->reason_base = reason_register(s->reasons, s->n_reasons);
		if (s->n_reasons && !s->reason_base)
			return -ENOSPC;
		stages[n_stages++] = s;
		int rc = s->init ? s->init() : 0;
		if (rc)
			return rc;
	}
	return 0;
}

void stages_fini(void)
{
	link_fini();
	while (n_stages) {
		struct stage *s = stages[--n_stages];

		if (s->fini)
			s->fini();
	}
}

struct stage *stage_get(uint8_t index)
{
	return stages[index];
}

unsigned stage_count(void)
{
	return n_stages;
}

struct stage *stage_find(const char *name)
{
	for (unsigned i = 0; i < n_stages; i++)
		if (!strcmp(stages[i]->name, name))
			return stages[i];
	return NULL;
}

static uint32_t fields_of(const struct config_network *net)
{
	uint32_t fields = 0;

	for (unsigned i = 0; i < n_stages; i++)
		if (stages[i]->fields)
			fields |= stages[i]->fields(net);
	return fields;
}

int stages_reconcile(struct config *want)
{
	int rc = 0;

	for (unsigned i = 0; i < n_stages && !rc; i++)
		rc = stages[i]->prepare ? stages[i]->prepare(want) : 0;
	if (!rc)
		rc = topology_reconcile(want, fields_of);
	for (unsigned i = 0; i < n_stages; i++) {
		int r = stages[i]->reconcile ? stages[i]->reconcile(want) : 0;

		if (r && !rc)
			rc = r;
	}
	return rc;
}

void stages_tick(uint64_t now)
{
	for (unsigned i = 0; i < n_stages; i++)
		if (stages[i]->tick)
			stages[i]->tick(now);
}

void stages_release(void)
{
	for (unsigned i = 0; i < n_stages; i++)
		if (stages[i]->release)
			stages[i]->release();
}

void stages_count(stage_count_fn *fn, void *arg)
{
	for (unsigned i = 0; i < n_stages; i++)
		if (stages[i]->count)
			stages[i]->count(fn, arg);
}

void resolve_depend(struct resolve *r, enum gen_kind kind, uint64_t id)
{
	uint16_t slot = gen_slot(kind, id);
	struct flow_cold *c = r->cold;

	for (unsigned i = 0; i < c->n_deps; i++)
		if (c->dep_slot[i] == slot)
			return;
	if (c->n_deps == FLOW_DEPS) { // Rather a decision for one packet than one that goes stale unseen.
		r->flow->flags |= FLOW_UNCACHED;
		return;
	}
	c->dep_slot[c->n_deps] = slot;
	c->dep_gen[c->n_deps++] = gen_read(slot);
}

void resolve_bump(struct resolve *r, enum gen_kind kind, uint64_t id)
{
	uint16_t slot = gen_slot(kind, id);
	uint32_t gen = gen_bump(slot);
	struct flow_cold *c = r->cold;

	for (unsigned i = 0; i < c->n_deps; i++)
		if (c->dep_slot[i] == slot && c->dep_gen[i] == gen - 1)
			c->dep_gen[i] = gen;
}

void resolve_because(struct resolve *r, uint32_t row)
{
	struct flow_cold *c = r->cold;

	if (!row || c->n_prov == FLOW_PROV)
		return;
	c->prov_stage[c->n_prov] = r->stage;
	c->prov_row[c->n_prov++] = row;
	r->because |= 1u << (c->n_prov - 1);
}

uint16_t resolve_drop(struct resolve *r, uint16_t reason, uint32_t row)
{
	const struct flow_cold *c = r->cold;
	bool named = false;

	for (unsigned i = 0; i < c->n_prov; i++)
		named |= c->prov_row[i] == row;
	if (!named)
		resolve_because(r, row);
	r->drop_row = row;
	return reason;
}

struct effect *resolve_effect(struct resolve *r)
{
	if (r->n_effects == EFFECTS_MAX)
		return NULL;
	struct effect *e = &r->effect[r->n_effects++];
	memset(e, 0, sizeof *e);
	e->stage = r->stage;
	return e;
}
