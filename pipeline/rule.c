// rule: the operator's rules (table Flow): what they say goes before what the forwarding database says.
#include "rule_make.h"
#include "class_table.h"
#include "table_stat.h"
#include "forward.h"
#include "rewrite.h"
#include "sentence.h"
#include "stage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RULE_REASONS(X)                                                                                                \
	X(rule, DROP, "a rule of table Flow drops it")                                                                 \
	X(rule, SAME_PORT, "a rule of table Flow sends it to the port that it came from")                              \
	X(rule, COPY, "a copy that a rule of table Flow sends: its port is gone, disabled or isolated from the ingress port")

STAGE_REASONS(rule, RULE_REASONS);

struct record {
	uint32_t row;   // 0: none matches
	uint32_t rules; // of how many
	uint32_t mark, class_row;
};

static struct rule_table *tables[MAX_NETWORKS]; // RCU; [0]: rules of every network

// Rows as they are wanted, sorted by id. Main thread.
static struct rule **rules;
static size_t n_rules;
// The same of the config that is about to be applied.
static struct rule **next;
static size_t n_next;
static uint32_t fields_of[MAX_NETWORKS];

// ---- decisions

static void decide(struct resolve *r, const struct rule *ru)
{
	const struct actions *a = &ru->actions;
	struct flow *f = r->flow;

	resolve_because(r, ru->row);
	f->rule = ru->row;
	if (ru->work) {
		f->actions = ru->work;
		f->stages |= 1ULL << stage_rule.index;
	}
	if (ru->class_row) {
		resolve_because(r, ru->class_row);
		r->cold->class_row = ru->class_row;
	}
	r->tag = a->tag;
	r->mark = mark_set(&a->mark, r->mark);
	for (unsigned i = 0; i < a->n_sets; i++)
		if (a->set[i].field == DL_DST)
			r->dst = a->set[i].value.b;
}

static void flood(struct resolve *r)
{
	static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	const uint8_t *dst = r->dst ? r->dst : *resolve_field(r, DL_DST, dst);

	r->flow->out_kind = OUT_FLOOD;
	r->flow->out = r->net->id;
	// For storm control what is flooded to one station is what it always is: an unknown destination.
	r->flow->flags |= !(dst[0] & 1) ? FLOW_BUM_UNKNOWN : memcmp(dst, broadcast, 6) ? FLOW_BUM_MULTICAST : FLOW_BUM_BROADCAST;
}

static uint16_t go(struct resolve *r, const struct rule *ru)
{
	struct flow *f = r->flow;

	switch (ru->actions.to) {
	case ACTIONS_DROP:
		return resolve_drop(r, STAGE_REASON(rule, DROP), ru->row);
	case ACTIONS_PORT:
		if (ru->actions.port == r->in->id)
			return resolve_drop(r, STAGE_REASON(rule, SAME_PORT), ru->row);
		f->out_kind = OUT_PORT;
		f->out = ru->actions.port;
		return 0;
	case ACTIONS_IN_PORT:
		f->out_kind = OUT_PORT;
		f->out = r->in->id;
		return 0;
	case ACTIONS_FLOOD:
		flood(r);
		return 0;
	case ACTIONS_NORMAL:
		return 0;
	}
	return 0;
}

static uint16_t rule_resolve(struct resolve *r)
{
	r->flow->stages &= ~(1ULL << stage_rule.index);
	if (!r->net)
		return 0;
	// The network's generation, which the decision depends on already, covers its rules: reconcile bumps it.
	const struct rule_table *own = rcu_read(tables[r->net->id]), *all = rcu_read(tables[0]);
	if (!own && !all)
		return 0;
	uint32_t fields = (own ? rule_table_fields(own) : 0) | (all ? rule_table_fields(all) : 0);
	if (fields & ~profile_get(r->key->profile)->fields)
		// Profiles and rules are not published in one step; or there are no profiles left. The decision is right, for this packet.
		r->flow->flags |= FLOW_UNCACHED;
	else
		r->fields |= fields;
	const struct rule *best = own ? rule_table_lookup(own, r->key, NULL) : NULL;
	best = all ? rule_table_lookup(all, r->key, best) : best;
	struct record rec = {.row = best ? best->row : 0,
			     .rules = (uint32_t)((own ? rule_table_size(own) : 0) + (all ? rule_table_size(all) : 0))};
	if (best)
		decide(r, best);
	rec.mark = r->mark;
	rec.class_row = best ? best->class_row : 0;
	resolve_record(r, &rec, sizeof rec);
	if (!best)
		return 0;
	uint16_t reason = go(r, best);
	r->keeps_bit = reason && best->work; // copies are sent of what is dropped too
	return reason;
}

static void lose_copy(struct worker *w, struct pkt *p, const struct actions_copy *c, uint32_t row)
{
	worker_count(w, p->origin, COUNT_COPIES, 1);
	worker_lose(w, pkt_mbuf(p), STAGE_REASON(rule, COPY), row);
	if (p->trace) {
		struct core_record rec = {.kind = CORE_DROPPED, .port = c->port, .reason = STAGE_REASON(rule, COPY)};

		trace_put(p->trace, TRACE_CORE, &rec, sizeof rec);
	}
}

static void send_copies(struct worker *w, struct pkt *p, const struct rule *ru)
{
	const struct actions *a = &ru->actions;
	const struct lport *in = lport_get(p->in_port);

	for (unsigned i = 0; i < a->n_copies; i++) {
		const struct actions_copy *c = &a->copy[i];
		const struct lport *out = lport_get(c->port);

		if (c->port == p->in_port)
			continue;
		if (!out || !out->enabled || (out->isolated && in && in->isolated))
			lose_copy(w, p, c, ru->row);
		else
			forward_copy(w, p, out, c->tag, a->set, c->n_sets);
	}
}

static void rule_run(struct worker *w, struct pkt **p, uint16_t n)
{
	for (unsigned i = 0; i < n; i++) {
		const struct rule *ru = rcu_read(rule_work[pkt_actions(p[i]) % RULE_WORK_MAX]);

		if (!ru)
			continue;
		if (ru->actions.n_copies)
			send_copies(w, p[i], ru);
		rewrite_apply(pkt_mbuf(p[i]), ru->actions.set, ru->actions.n_sets);
	}
}

static const struct rule *rule_of(uint32_t row)
{
	for (size_t i = 0; i < n_rules; i++)
		if (rules[i]->row == row)
			return rules[i];
	return NULL;
}

static void rule_format(struct buf *b, const void *record, uint16_t size)
{
	const struct record *r = record;
	const struct rule *ru = rule_of(r->row);
	const struct row_info *class = row_get(r->class_row);

	if (!r->row) {
		buf_add(b, "none of %u rules matches", r->rules);
	} else if (ru) {
		buf_add(b, "priority %u, %s: %s", ru->priority, *ru->match_text ? ru->match_text : "any", ru->actions_text);
		if (r->mark)
			buf_add(b, "; mark 0x%x", r->mark);
		if (class)
			buf_add(b, "; class %s", class->name);
	} else {
		buf_add(b, "a rule that is gone");
	}
}

// ---- from rows to rules

static int compare_ids(const void *a, const void *b)
{
	return memcmp(&(*(struct rule *const *)a)->id, &(*(struct rule *const *)b)->id, sizeof(struct row_id));
}

static struct rule *old_rule(const struct row_id *id)
{
	size_t lo = 0, hi = n_rules;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		int cmp = memcmp(id, &rules[mid]->id, sizeof *id);

		if (!cmp)
			return rules[mid];
		*(cmp < 0 ? &hi : &lo) = cmp < 0 ? mid : mid + 1;
	}
	return NULL;
}

static uint16_t network_id(const struct config *c, const struct row_id *id)
{
	for (size_t i = 0; i < c->n_networks; i++)
		if (row_id_equal(&c->networks[i].row, id))
			return c->networks[i].error ? 0 : c->networks[i].id;
	return 0;
}

// A rule that stays is the same object. What is new is not seen by any worker yet.
static int rule_prepare(struct config *want)
{
	struct rule_names names = {0};
	int rc = class_table_set(want);

	rc = rc ? rc : rule_names_make(want, &names);
	next = rc ? NULL : calloc(want->n_flows + 1, sizeof *next);
	n_next = 0;
	if (!next) {
		rule_names_free(&names);
		return -ENOMEM;
	}
	memset(fields_of, 0, sizeof fields_of);
	for (size_t i = 0; i < want->n_flows; i++) {
		struct config_flow *cf = &want->flows[i];
		uint16_t network = cf->has_network ? network_id(want, &cf->network) : 0;
		struct rule *old = old_rule(&cf->row);
		struct rule *ru = old && rule_is_unchanged(old, cf, network, &names) ? old : rule_make(cf, network, &names);

		if (!ru) {
			sentence_set(&cf->error, "there is no memory for the rule");
			continue;
		}
		if (old && ru != old) {
			ru->packets = old->packets;
			ru->bytes = old->bytes;
		}
		if (ru->error)
			sentence_set(&cf->error, "%s", ru->error);
		if (ru->active)
			fields_of[network] |= ru->match.fields;
		next[n_next++] = ru;
	}
	qsort(next, n_next, sizeof *next, compare_ids);
	rule_names_free(&names);
	return 0;
}

static uint32_t rule_fields(const struct config_network *net)
{
	return net->id ? fields_of[0] | fields_of[net->id] : fields_of[0];
}

// ---- publishing

// By network, the best first; what is in no table last.
static int compare_for_tables(const void *a_, const void *b_)
{
	const struct rule *a = *(const struct rule *const *)a_, *b = *(const struct rule *const *)b_;

	if (a->active != b->active)
		return a->active ? -1 : 1;
	if (a->network != b->network)
		return a->network < b->network ? -1 : 1;
	return rule_is_better(a, b) ? -1 : 1;
}

// The rules of the network are others from now on.
static void bump(unsigned network)
{
	if (network) {
		gen_bump(gen_slot(GEN_NETWORK, network));
		return;
	}
	for (unsigned i = 1; i < MAX_NETWORKS; i++)
		if (topology_networks[i])
			gen_bump(gen_slot(GEN_NETWORK, i));
}

struct change {
	unsigned network;
	struct rule_table *table; // NULL: it has no rules any more
};

// Makes the tables of the networks whose rules change. Returns how many, or -ENOMEM.
static int make_changes(const struct rule *const *sorted, struct change *change)
{
	size_t at = 0;
	int n = 0;

	for (unsigned network = 0; network < MAX_NETWORKS; network++) {
		const struct rule_table *old = tables[network];
		size_t first = at, of;

		while (at < n_next && sorted[at]->active && sorted[at]->network == network)
			at++;
		of = at - first;
		if (of ? old && rule_table_is_of(old, sorted + first, of) : !old)
			continue;
		change[n] = (struct change){network, of ? rule_table_make(sorted + first, of) : NULL};
		if (of && !change[n].table) {
			while (n--)
				rule_table_free(change[n].table);
			return -ENOMEM;
		}
		n++;
	}
	return n;
}

static void publish(const struct change *c)
{
	struct rule_table *old = tables[c->network];

	rcu_publish(tables[c->network], c->table);
	bump(c->network);
	if (old)
		rcu_defer(rule_table_free, old);
}

// Those of `list` that aren't in `other`, both sorted by id, go.
static void retire(struct rule **list, size_t n, struct rule *const *other, size_t n_other)
{
	for (size_t i = 0, k = 0; i < n; i++) {
		while (k < n_other && memcmp(&other[k]->id, &list[i]->id, sizeof list[i]->id) < 0)
			k++;
		if (k == n_other || other[k] != list[i])
			rcu_defer(rule_free, list[i]);
	}
	free(list);
}

static int rule_reconcile(struct config *want)
{
	const struct rule **sorted = calloc(n_next + 1, sizeof *sorted);
	struct change *change = calloc(MAX_NETWORKS, sizeof *change);
	int n = -ENOMEM;

	if (!next)
		goto end; // there was no memory: what was there stays
	if (sorted && change) {
		memcpy(sorted, next, n_next * sizeof *sorted);
		qsort(sorted, n_next, sizeof *sorted, compare_for_tables);
		n = make_changes(sorted, change);
	}
	for (int i = 0; i < n; i++)
		publish(&change[i]);
	if (n < 0) {
		retire(next, n_next, rules, n_rules);
	} else {
		retire(rules, n_rules, next, n_next);
		rules = next;
		n_rules = n_next;
	}
	next = NULL;
	n_next = 0;
end:
	free(sorted);
	free(change);
	return n < 0 ? n : 0;
}

static void rule_fill(table_fill_fn *fn, void *arg)
{
	for (uint16_t i = 0; i < MAX_NETWORKS; i++)
		if (tables[i])
			fn(arg, i ? network_get(i) ? network_get(i)->name : "?" : "", rule_table_size(tables[i]), 0);
}

static void work_fill(table_fill_fn *fn, void *arg)
{
	uint64_t used = 0;

	for (size_t i = 0; i < n_rules; i++)
		used += rules[i]->work != 0;
	fn(arg, NULL, used, RULE_WORK_MAX - 1);
}

static struct table_stat rule_stat = {
	.name = "rule", .help = "rules of a network; without one: of every network", .label = "network", .each = rule_fill};
static struct table_stat work_stat = {.name = "rule_action", .help = "rules that set fields or send copies", .each = work_fill};

static int rule_init(void)
{
	table_stat_register(&rule_stat);
	table_stat_register(&work_stat);
	return 0;
}

static void rule_fini(void)
{
	table_stat_unregister(&rule_stat);
	table_stat_unregister(&work_stat);
	for (unsigned i = 0; i < MAX_NETWORKS; i++) {
		rule_table_free(tables[i]);
		tables[i] = NULL;
	}
	for (size_t i = 0; i < n_rules; i++)
		rule_free(rules[i]);
	free(rules);
	rules = NULL;
	n_rules = 0;
	memset(fields_of, 0, sizeof fields_of);
	class_table_fini();
}

// ---- counters and verbs

// Brings packets and bytes of all rules and classes up to date. They never go back: what a flow counts while it is decided anew may be missing from a sum.
static void count_rules(void)
{
	uint32_t n = class_table_end();

	for (size_t i = 0; i < n_rules; i++)
		n = rules[i]->row >= n ? rules[i]->row + 1 : n;
	struct flow_credit *sum = n ? calloc(n, sizeof *sum) : NULL;
	if (!sum)
		return;
	flow_credits_sum(sum, n);
	for (size_t i = 0; i < n_rules; i++) {
		const struct flow_credit *s = &sum[rules[i]->row];

		rules[i]->packets = s->packets > rules[i]->packets ? s->packets : rules[i]->packets;
		rules[i]->bytes = s->bytes > rules[i]->bytes ? s->bytes : rules[i]->bytes;
	}
	class_table_count(sum);
	free(sum);
}

static void rule_count(stage_count_fn *fn, void *arg)
{
	struct class_view c;

	count_rules();
	for (size_t i = 0; class_table_at(i, &c); i++)
		fn(arg, "Class", c.id, c.packets, c.bytes);
	for (size_t i = 0; i < n_rules; i++)
		fn(arg, "Flow", &rules[i]->id, rules[i]->packets, rules[i]->bytes);
}

static int compare_for_list(const void *a_, const void *b_)
{
	const struct rule *a = *(const struct rule *const *)a_, *b = *(const struct rule *const *)b_;

	return rule_is_better(a, b) ? -1 : 1;
}

static void list_one(struct listing *l, const struct rule *ru)
{
	const struct network *net = network_get(ru->network);
	char id[ROW_ID_STRLEN + 1];

	row_id_format(&ru->id, id);
	listing_row(l);
	listing_uint(l, ru->priority);
	listing_str(l, net ? net->name : NULL);
	listing_str(l, ru->match_text);
	listing_str(l, ru->actions_text);
	listing_uint(l, ru->packets);
	listing_uint(l, ru->bytes);
	listing_str(l, id);
	listing_str(l, ru->error ? ru->error : ru->active ? NULL : "disabled, or its network isn't there yet");
}

// Where the rule is from which the list goes on, which is the one behind what was last shown: that one's handle and place are known.
static size_t place_of(struct rule **sorted, const struct page *p)
{
	for (size_t i = 0; p->at[1] && i < n_rules; i++)
		if (sorted[i]->row == p->at[1])
			return i + 1;
	return p->at[0]; // it is gone, or nothing was shown yet
}

static int verb_list(struct page *p, int argc, const char *argv[], char **error)
{
	static const char *const columns[][2] = {{"priority", "PRIORITY"}, {"network", "NETWORK"}, {"match", "MATCH"}, {"actions", "ACTIONS"},
						 {"packets", "PACKETS"},   {"bytes", "BYTES"},     {"row", "ROW"},     {"problem", "PROBLEM"}};
	const char *name = argc == 3 && !strcmp(argv[1], "--network") ? argv[2] : NULL;
	int more = 0;

	if (argc > 1 && !name) {
		sentence_set(error, "flow list takes --network NETWORK and --limit N");
		return -1;
	}
	struct rule **sorted = calloc(n_rules + 1, sizeof *sorted);
	if (!sorted)
		return -1;
	if (!p->at[0])
		count_rules();
	if (n_rules)
		memcpy(sorted, rules, n_rules * sizeof *sorted);
	qsort(sorted, n_rules, sizeof *sorted, compare_for_list);
	for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
		listing_column(p->l, columns[i][0], columns[i][1]);
	for (size_t i = place_of(sorted, p); i < n_rules; i++) {
		const struct network *net = network_get(sorted[i]->network);

		if (!page_look(p)) {
			more = 1;
			break;
		}
		// Rules of every network are rules of this one.
		if (!name || !sorted[i]->network || (net && !strcmp(net->name, name)))
			list_one(p->l, sorted[i]);
		p->at[0] = i + 1;
		p->at[1] = sorted[i]->row;
	}
	free(sorted);
	return more;
}

static uint64_t rules_of(uint32_t class_row)
{
	uint64_t n = 0;

	for (size_t i = 0; i < n_rules; i++)
		n += rules[i]->active && rules[i]->class_row == class_row;
	return n;
}

static int verb_classes(struct page *p, int argc, const char *argv[], char **error)
{
	static const char *const columns[][2] = {{"name", "NAME"}, {"rules", "RULES"}, {"packets", "PACKETS"}, {"bytes", "BYTES"}};
	struct class_view c;

	if (argc > 1) {
		sentence_set(error, "class list takes --limit N");
		return -1;
	}
	if (!p->at[0])
		count_rules();
	for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
		listing_column(p->l, columns[i][0], columns[i][1]);
	for (; class_table_at(p->at[0], &c); p->at[0]++) {
		if (!page_look(p))
			return 1;
		listing_row(p->l);
		listing_str(p->l, c.name);
		listing_uint(p->l, rules_of(c.row));
		listing_uint(p->l, c.packets);
		listing_uint(p->l, c.bytes);
	}
	return 0;
}

static const struct stage_verb rule_verbs[] = {
	{"class/list", "[--limit N]", "classes of traffic, with what rules have put into them", NULL, verb_classes},
	{"flow/list", "[--network NETWORK] [--limit N]", "rules, with what they have matched", NULL, verb_list},
	{0},
};

STAGE(rule, .resolve = rule_resolve, .run = rule_run, .writes = true, .format = rule_format, .fields = rule_fields, .prepare = rule_prepare,
      .reconcile = rule_reconcile, .count = rule_count, .init = rule_init, .fini = rule_fini, .verbs = rule_verbs);
