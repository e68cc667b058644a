// flow: rules of table Flow. What they have matched is the switch's to say: "flow list" asks it.
#include "nouns.h"

#include "actions.h"
#include "column.h"
#include "openvswitch/shash.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_PRIORITY 32768

// A rule as it was given.
struct wanted {
	const struct weirrec_network *network; // NULL: every one
	char *match, *actions;                 // actions NULL: not given
	int64_t priority;                      // -1: not given
	struct match parsed;
};

static void wanted_free(struct wanted *w)
{
	free(w->match);
	free(w->actions);
}

// Where "actions=" begins in the one argument of ovs-ofctl, or NULL.
static char *find_actions(char *text)
{
	for (char *at = strcasestr(text, "actions="); at; at = strcasestr(at + 1, "actions="))
		if (at == text || strchr(", \t", at[-1]))
			return at;
	return NULL;
}

static int set_priority(struct context *ctx, struct wanted *w, const char *text)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (!isdigit((unsigned char)*text) || *end || n > 65535)
		return fail(ctx, "flow: priority must be a number from 0 to 65535, not '%s'", text);
	if (w->priority >= 0 && w->priority != n)
		return fail(ctx, "flow: priorities %lld and %ld: which of them?", (long long)w->priority, n);
	w->priority = n;
	return 0;
}

// Takes "priority=N" out of a match.
static int take_priority(struct context *ctx, struct wanted *w)
{
	struct ds rest = DS_EMPTY_INITIALIZER;
	char *save = NULL;
	int status = 0;

	ds_put_cstr(&rest, "");
	for (char *word = strtok_r(w->match, ", \t", &save); word && !status; word = strtok_r(NULL, ", \t", &save)) {
		if (!strncasecmp(word, "priority=", 9))
			status = set_priority(ctx, w, word + 9);
		else
			ds_put_format(&rest, "%s%s", rest.length ? "," : "", word);
	}
	free(w->match);
	w->match = ds_steal_cstr(&rest);
	return status;
}

static int parse(struct context *ctx, struct wanted *w, const char *first, const char *second)
{
	const char *priority = given_option(ctx->given, "priority"), *network = given_option(ctx->given, "network");
	char *error = NULL;

	*w = (struct wanted){.match = xstrdup(first), .actions = second ? xstrdup(second) : NULL, .priority = -1};
	char *at = find_actions(w->match);
	if (second && !strncasecmp(second, "actions=", 8))
		memmove(w->actions, w->actions + 8, strlen(w->actions + 8) + 1);
	if (at && !second) {
		w->actions = xstrdup(at + strlen("actions="));
		*at = '\0';
	}
	if (network && !(w->network = network_find(ctx->idl, network)))
		return fail(ctx, "there is no network %s", network);
	if ((priority && set_priority(ctx, w, priority)) || take_priority(ctx, w))
		return -1;
	if (match_parse(w->match, &w->parsed, &error)) {
		fail(ctx, "flow: %s", error ? error : "out of memory");
		free(error);
		return -1;
	}
	return 0;
}

// The match of a row; NULL: it is none. Rows are compared with each new rule, so that each text is read once.
static const struct match *match_of(const char *text)
{
	static struct shash known = SHASH_INITIALIZER(&known);
	struct shash_node *node = shash_find(&known, text);

	if (!node) {
		struct match *m = xmalloc(sizeof *m);
		char *error;

		if (match_parse(text, m, &error)) {
			free(error);
			free(m);
			m = NULL;
		}
		node = shash_add(&known, text, m);
	}
	return node->data;
}

static int64_t priority_of(const struct weirrec_flow *flow)
{
	return flow->n_priority ? flow->priority[0] : DEFAULT_PRIORITY;
}

static bool of_host(const struct context *ctx, const struct weirrec_flow *flow)
{
	return !host_of(ctx) || !strcmp(flow->host, host_of(ctx));
}

static bool same_match(const struct weirrec_flow *flow, const struct wanted *w)
{
	const struct match *m = match_of(flow->match);

	return m && match_equal(m, &w->parsed);
}

static const struct weirrec_flow *find_same(const struct context *ctx, const struct wanted *w)
{
	const char *host = host_of(ctx);
	const struct weirrec_flow *flow;

	WEIRREC_FLOW_FOR_EACH (flow, ctx->idl)
		if (flow->network == w->network && priority_of(flow) == w->priority && !strcmp(flow->host, host ? host : "") && same_match(flow, w))
			return flow;
	return NULL;
}

static int check_actions(struct context *ctx, const struct wanted *w)
{
	struct actions a;
	char *error;

	if (!w->actions)
		return fail(ctx, "flow: what happens to these packets? Say MATCH ACTIONS, or MATCH,actions=ACTIONS");
	if (!actions_parse(w->actions, &w->parsed, &a, &error)) {
		actions_free(&a);
		return 0;
	}
	fail(ctx, "flow: %s", error ? error : "out of memory");
	free(error);
	return -1;
}

static int add(struct context *ctx, struct wanted *w)
{
	if (w->priority < 0)
		w->priority = DEFAULT_PRIORITY;
	if (check_actions(ctx, w))
		return -1;
	const struct weirrec_flow *flow = find_same(ctx, w);
	if (flow && !given_option(ctx->given, "may-exist"))
		return fail(ctx, "flow: there is a rule of this priority and match already, " UUID_FMT ": %s",
			    UUID_ARGS(&flow->header_.uuid), flow->actions);
	if (!flow) {
		flow = weirrec_flow_insert(ctx->txn);
		weirrec_flow_set_host(flow, host_of(ctx) ? host_of(ctx) : "");
		weirrec_flow_set_match(flow, w->match);
		if (w->network)
			weirrec_flow_set_network(flow, w->network);
		if (w->priority != DEFAULT_PRIORITY)
			weirrec_flow_set_priority(flow, &w->priority, 1);
	}
	weirrec_flow_set_actions(flow, w->actions);
	concern(flow->host);
	touch(&flow->header_);
	return 0;
}

int flow_add_run(struct context *ctx)
{
	struct wanted w;
	int status = parse(ctx, &w, ctx->given->args[0], ctx->given->n_args > 1 ? ctx->given->args[1] : NULL);

	if (!status)
		status = add(ctx, &w);
	wanted_free(&w);
	return status;
}

// A row's UUID or the beginning of it, as lists show it.
static bool is_uuid(const char *text)
{
	size_t n = strspn(text, "0123456789abcdefABCDEF-");

	return n >= 8 && !text[n];
}

static bool has_uuid(const struct weirrec_flow *flow, const char *text)
{
	char uuid[UUID_LEN + 1];

	snprintf(uuid, sizeof uuid, UUID_FMT, UUID_ARGS(&flow->header_.uuid));
	return !strncasecmp(uuid, text, strlen(text));
}

int flow_del_run(struct context *ctx)
{
	const char *which = ctx->given->args[0];
	bool all = !strcmp(which, "all"), uuid = is_uuid(which);
	const struct weirrec_flow *flow;
	struct wanted w;
	unsigned n = 0;
	// "all" and a row's UUID leave the match open.
	int status = parse(ctx, &w, uuid ? "all" : which, NULL);

	if (!status && w.actions)
		status = fail(ctx, "flow: a rule is deleted by its match and priority; leave the actions out");
	if (!status)
		WEIRREC_FLOW_FOR_EACH_SAFE (flow, ctx->idl) {
			if (!of_host(ctx, flow) || (given_option(ctx->given, "network") && flow->network != w.network) ||
			    (w.priority >= 0 && w.priority != priority_of(flow)))
				continue;
			if (uuid ? !has_uuid(flow, which) : !all && !same_match(flow, &w))
				continue;
			concern(flow->host);
			weirrec_flow_delete(flow);
			n++;
		}
	wanted_free(&w);
	if (status)
		return status;
	if (!n && !all && !given_option(ctx->given, "if-exists"))
		return fail(ctx, "flow: there is no rule %s (weirctl flow list shows them)", which);
	return 0;
}
