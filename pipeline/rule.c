// rule: the operator's rules (table Flow): what they say goes before what the forwarding database says.
#include "rule_table.h"
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

#define MAX_WORK (1 << 16) // rules that have work per packet, at most

struct record {
	uint32_t row;   // 0: none matches
	uint32_t rules; // of how many
	uint32_t mark, class_row;
};

static struct rule_table *tables[MAX_NETWORKS]; // RCU; [0]: rules of every network
static struct rule *work[MAX_WORK];             // RCU; [0]: never used
static uint32_t work_high = 1, work_free;       // handles that were never used, and a list of those that are free again
static uint32_t work_next[MAX_WORK];

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
		const struct rule *ru = rcu_read(work[pkt_actions(p[i]) % MAX_WORK]);

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

static uint32_t work_take(void)
{
	uint32_t h = work_free;

	if (h)
		work_free = work_next[h];
	else if (work_high < MAX_WORK)
		h = work_high++;
	return h;
}

// After a grace period: packets may have been decided with it until then.
static void rule_free(void *arg)
{
	struct rule *ru = arg;

	if (!ru)
		return;
	if (ru->work) {
		rcu_publish(work[ru->work], NULL);
		work_next[ru->work] = work_free;
		work_free = ru->work;
	}
	actions_free(&ru->actions);
	free(ru->match_text);
	free(ru->actions_text);
	free(ru->error);
	free(ru);
}

struct named {
	const char *name;
	uint16_t id;
};

struct names {
	struct named *port;
	size_t n;
};

static int compare_names(const void *a, const void *b)
{
	return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

// 0: there is no such port.
static uint16_t port_id(const struct names *names, const char *name)
{
	struct named key = {.name = name}, *found = names->n ? bsearch(&key, names->port, names->n, sizeof key, compare_names) : NULL;

	return found ? found->id : 0;
}

static void set_port(const struct names *names, const char *word, const char *name, uint16_t *id, char **error)
{
	*id = port_id(names, name);
	if (!*id)
		sentence_set(error, "%s%s: there is no port %s yet", word, name, name);
}

static void find_names(struct rule *ru, const struct names *names)
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
static bool same_names(const struct rule *ru, const struct names *names)
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
		rcu_publish(work[ru->work], ru);
	else
		sentence_set(&ru->error, "the switch takes %d rules at most that set fields or send copies", MAX_WORK - 1);
}

static struct rule *rule_make(const struct config_flow *cf, uint16_t network, const struct names *names)
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

static bool is_unchanged(const struct rule *ru, const struct config_flow *cf, uint16_t network, const struct names *names)
{
	bool active = cf->enabled && (network || !cf->has_network);

	// A row with an error is looked at again: what it lacked may be there by now.
	return !ru->error && !cf->error && ru->active == active && ru->network == network && ru->priority == cf->priority &&
	       !strcmp(ru->match_text, cf->match) && !strcmp(ru->actions_text, cf->actions) && same_names(ru, names);
}

static uint16_t network_id(const struct config *c, const struct row_id *id)
{
	for (size_t i = 0; i < c->n_networks; i++)
		if (row_id_equal(&c->networks[i].row, id))
			return c->networks[i].error ? 0 : c->networks[i].id;
	return 0;
}

static int names_make(const struct config *want, struct names *names)
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

// A rule that stays is the same object. What is new is not seen by any worker yet.
static int rule_prepare(struct config *want)
{
	struct names names = {0};
	int rc = class_table_set(want);

	rc = rc ? rc : names_make(want, &names);
	next = rc ? NULL : calloc(want->n_flows + 1, sizeof *next);
	n_next = 0;
	if (!next) {
		free(names.port);
		return -ENOMEM;
	}
	memset(fields_of, 0, sizeof fields_of);
	for (size_t i = 0; i < want->n_flows; i++) {
		struct config_flow *cf = &want->flows[i];
		uint16_t network = cf->has_network ? network_id(want, &cf->network) : 0;
		struct rule *old = old_rule(&cf->row);
		struct rule *ru = old && is_unchanged(old, cf, network, &names) ? old : rule_make(cf, network, &names);

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
	free(names.port);
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
	fn(arg, NULL, used, MAX_WORK - 1);
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
