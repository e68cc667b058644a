// group_verbs: see group_verbs.h.
#include "group_verbs.h"
#include "group_proxy.h"
#include "sentence.h"
#include "table_stat.h"

#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>

static void cell_ip(struct listing *l, bool v6, const uint8_t *ip)
{
	char text[INET6_ADDRSTRLEN];

	listing_str(l, inet_ntop(v6 ? AF_INET6 : AF_INET, ip, text, sizeof text));
}

static void cell_seconds(struct listing *l, uint64_t until)
{
	if (!until || until == UINT64_MAX)
		listing_none(l);
	else
		listing_uint(l, until > group_now ? (until - group_now + 999999999) / 1000000000 : 0);
}

// What a list is wanted of: [--port PORT] [NETWORK]. 0: all.
struct filter {
	uint16_t network, port;
};

static uint16_t network_named(const char *name, char **error)
{
	for (uint16_t i = 1; i < MAX_NETWORKS; i++)
		if (network_get(i) && !strcmp(network_get(i)->name, name))
			return i;
	sentence_set(error, "there is no network %s", name);
	return 0;
}

static uint16_t port_named(const char *name, char **error)
{
	for (uint16_t i = 1; i < MAX_PORTS; i++)
		if (lport_get(i) && !strcmp(lport_get(i)->name, name))
			return i;
	sentence_set(error, "there is no port %s", name);
	return 0;
}

static bool parse_filter(int argc, const char *argv[], struct filter *f, char **error)
{
	*f = (struct filter){0};
	for (int i = 1; i < argc && !*error; i++) {
		if (!strcmp(argv[i], "--port") && i + 1 < argc)
			f->port = port_named(argv[++i], error);
		else if (argv[i][0] == '-' || f->network)
			sentence_set(error, "%s takes --port PORT, --limit N and a network", argv[0]);
		else
			f->network = network_named(argv[i], error);
	}
	return !*error;
}

// ---- group/list: a row for each group and source; ports of one row want the same

static void list_row(struct listing *l, const struct group *g, const uint8_t *source, bool wants, const struct filter *f)
{
	const char *name[MAX_PORTS];
	uint64_t until = 0;
	size_t n = 0;
	bool mine = !f->port;

	for (const struct member *m = g->members; m; m = m->next) {
		const struct source *s = NULL;

		for (uint32_t i = 0; source && i < m->n_sources; i++)
			if (!memcmp(m->source[i].ip, source, 16))
				s = &m->source[i];
		if (source ? !s || (s->until != 0) != wants : !m->exclude)
			continue;
		uint64_t end = source && wants ? s->until : m->until;
		until = end > until ? end : until;
		mine |= m->port == f->port;
		name[n++] = lport_name(m->port);
	}
	if (!n || !mine)
		return;
	const struct network *net = network_get(g->network);
	listing_row(l);
	listing_str(l, net ? net->name : NULL);
	cell_ip(l, g->ip.v6, g->ip.b);
	if (source)
		cell_ip(l, g->ip.v6, source);
	else
		listing_str(l, "*");
	listing_str(l, wants ? "include" : "exclude");
	listing_list(l, name, n);
	cell_seconds(l, until);
}

static int by_address(const void *a, const void *b)
{
	return memcmp(a, b, 16);
}

static void list_group(struct listing *l, const struct group *g, const struct filter *f)
{
	uint32_t n = 0, k = 0;

	for (const struct member *m = g->members; m; m = m->next)
		n += m->n_sources;
	uint8_t(*source)[16] = malloc((n + 1) * sizeof *source);
	if (!source)
		return;
	for (const struct member *m = g->members; m; m = m->next)
		for (uint32_t i = 0; i < m->n_sources; i++)
			memcpy(source[k++], m->source[i].ip, 16);
	qsort(source, n, 16, by_address);
	list_row(l, g, NULL, false, f);
	for (uint32_t i = 0; i < n; i++) {
		if (i && !memcmp(source[i - 1], source[i], 16))
			continue;
		list_row(l, g, source[i], true, f);
		list_row(l, g, source[i], false, f);
	}
	free(source);
}

static int verb_list(struct page *p, int argc, const char *argv[], char **error)
{
	struct filter f;

	if (!parse_filter(argc, argv, &f, error))
		return -1;
	listing_column(p->l, "network", "NETWORK");
	listing_column(p->l, "group", "GROUP");
	listing_column(p->l, "source", "SOURCE");
	listing_column(p->l, "mode", "MODE");
	listing_column(p->l, "ports", "PORTS");
	listing_column(p->l, "expires", "EXPIRES(s)");
	for (uint64_t *at = &p->at[0]; *at < group_slots; ++*at) {
		const struct group *g = group_slot[*at];

		if (!page_look(p))
			return 1;
		if (g && (!f.network || f.network == g->network))
			list_group(p->l, g, &f);
	}
	return 0;
}

// ---- group/routers

static void list_router(struct listing *l, const struct snoop *s, bool v6, const struct router_port *r)
{
	static const char *const names[] = {"static", "query", "pim", "query-of-switch", "announcement"};
	const struct network *net = network_get(s->network);
	const char *why[5];
	uint64_t until = 0;
	size_t n = 0;

	for (unsigned b = 0; b < 5; b++) {
		if (!(r->why & 1u << b))
			continue;
		why[n++] = names[b];
		until = r->until[b] > until ? r->until[b] : until;
	}
	listing_row(l);
	listing_str(l, net ? net->name : NULL);
	listing_str(l, v6 ? "ipv6" : "ipv4");
	listing_str(l, lport_name(r->port));
	listing_list(l, why, n);
	if (group_ip_is_zero(&r->ip))
		listing_none(l);
	else
		cell_ip(l, v6, r->ip.b);
	cell_seconds(l, until);
}

static int verb_routers(struct page *p, int argc, const char *argv[], char **error)
{
	struct filter f;

	if (!parse_filter(argc, argv, &f, error))
		return -1;
	listing_column(p->l, "network", "NETWORK");
	listing_column(p->l, "family", "FAMILY");
	listing_column(p->l, "port", "PORT");
	listing_column(p->l, "why", "WHY");
	listing_column(p->l, "address", "ADDRESS");
	listing_column(p->l, "expires", "EXPIRES(s)");
	for (uint64_t *at = &p->at[0]; *at < MAX_NETWORKS; ++*at) {
		const struct snoop *s = group_snoop[*at];

		if (!page_look(p))
			return 1;
		for (unsigned v6 = 0; s && (!f.network || f.network == *at) && v6 < 2; v6++)
			for (unsigned i = 0; i < s->asker[v6].n_routers; i++)
				if (!f.port || f.port == s->asker[v6].router[i].port)
					list_router(p->l, s, v6, &s->asker[v6].router[i]);
	}
	return 0;
}

// ---- group/networks

static void cell_querier(struct listing *l, const struct snoop *s, bool v6)
{
	const struct asker *a = &s->asker[v6];

	if (a->until)
		cell_ip(l, v6, a->ip.b);
	else
		listing_str(l, s->policy.querier ? "this switch" : NULL);
}

static int verb_networks(struct page *p, int argc, const char *argv[], char **error)
{
	static const char *const policy[] = {[GROUP_FLOOD] = "flood", [GROUP_DROP] = "drop", [GROUP_ROUTERS] = "router-ports"};
	struct filter f;

	if (!parse_filter(argc, argv, &f, error))
		return -1;
	listing_column(p->l, "network", "NETWORK");
	listing_column(p->l, "unregistered", "UNREGISTERED");
	listing_column(p->l, "querier", "QUERIER");
	listing_column(p->l, "querier_ipv6", "QUERIER(IPv6)");
	listing_column(p->l, "settled", "SETTLED");
	listing_column(p->l, "groups", "GROUPS");
	listing_column(p->l, "limit", "LIMIT");
	listing_column(p->l, "reports", "REPORTS");
	listing_column(p->l, "leaves", "LEAVES");
	listing_column(p->l, "queries", "QUERIES");
	listing_column(p->l, "hellos", "HELLOS");
	listing_column(p->l, "queries_sent", "SENT");
	listing_column(p->l, "refused_network", "REFUSED(NETWORK)");
	listing_column(p->l, "refused_port", "REFUSED(PORT)");
	listing_column(p->l, "refused_sources", "REFUSED(SOURCES)");
	for (uint64_t *at = &p->at[0]; *at < MAX_NETWORKS; ++*at) {
		const struct snoop *s = group_snoop[*at];
		const struct network *net = network_get((uint16_t)*at);

		if (!page_look(p))
			return 1;
		if (!s || (f.network && f.network != *at))
			continue;
		const struct group_counters *c = &s->count;
		listing_row(p->l);
		listing_str(p->l, net ? net->name : NULL);
		listing_str(p->l, policy[s->policy.unregistered]);
		cell_querier(p->l, s, false);
		cell_querier(p->l, s, true);
		listing_bool(p->l, s->asker[0].settled && s->asker[1].settled);
		listing_uint(p->l, s->n_groups);
		listing_uint(p->l, s->policy.max_groups);
		const uint64_t *figure[] = {&c->reports,      &c->leaves,         &c->queries,      &c->hellos,
					    &c->sent_queries, &c->refused_groups, &c->refused_port, &c->refused_sources};
		for (unsigned i = 0; i < 8; i++)
			listing_uint(p->l, *figure[i]);
	}
	return 0;
}

// ---- group/ports

static int verb_ports(struct page *p, int argc, const char *argv[], char **error)
{
	struct filter f;

	if (!parse_filter(argc, argv, &f, error))
		return -1;
	listing_column(p->l, "network", "NETWORK");
	listing_column(p->l, "port", "PORT");
	listing_column(p->l, "groups", "GROUPS");
	listing_column(p->l, "limit", "LIMIT");
	listing_column(p->l, "refused", "REFUSED");
	listing_column(p->l, "router", "ROUTER");
	for (uint64_t *at = &p->at[0]; *at < (uint64_t)MAX_NETWORKS * MAX_PORTS; ++*at) {
		uint16_t network = (uint16_t)(*at / MAX_PORTS), port = (uint16_t)(*at % MAX_PORTS);
		const struct snoop *s = group_snoop[network];
		const struct network *net = network_get(network);

		if (!s || (f.network && f.network != network)) { // none of its ports
			*at += MAX_PORTS - 1 - port;
			continue;
		}
		const struct snoop_port *sp = group_port(s, port);
		const struct port_use *u = s->use[port / 64] ? &s->use[port / 64][port % 64] : NULL;
		if (!sp || (f.port && f.port != port))
			continue;
		if (!page_look(p))
			return 1;
		listing_row(p->l);
		listing_str(p->l, net ? net->name : NULL);
		listing_str(p->l, lport_name(port));
		listing_uint(p->l, u ? u->groups : 0);
		listing_uint(p->l, s->policy.max_port_groups);
		listing_uint(p->l, u ? u->refused : 0);
		listing_str(p->l, sp->is.guarded ? "never" : sp->is.router ? "always" : "auto");
	}
	return 0;
}

// ---- group/upstream

static int verb_upstream(struct page *p, int argc, const char *argv[], char **error)
{
	struct group_proxied g;
	struct filter f;

	if (!parse_filter(argc, argv, &f, error))
		return -1;
	listing_column(p->l, "network", "NETWORK");
	listing_column(p->l, "group", "GROUP");
	listing_column(p->l, "mode", "MODE");
	listing_column(p->l, "sources", "SOURCES");
	listing_column(p->l, "to", "TO");
	for (uint32_t at = (uint32_t)p->at[0]; group_proxy_next(&at, &g); p->at[0] = at) {
		char text[GROUP_SOURCES_MAX(false)][INET6_ADDRSTRLEN];
		const char *name[GROUP_SOURCES_MAX(false)];
		const struct network *net = network_get(g.network);

		if (!page_look(p))
			return 1;
		if (f.network && f.network != g.network)
			continue;
		for (uint32_t i = 0; i < g.n_sources; i++)
			name[i] = inet_ntop(g.group.v6 ? AF_INET6 : AF_INET, g.source[i], text[i], sizeof text[i]);
		listing_row(p->l);
		listing_str(p->l, net ? net->name : NULL);
		cell_ip(p->l, g.group.v6, g.group.b);
		listing_str(p->l, g.exclude ? "exclude" : "include");
		listing_list(p->l, name, g.n_sources);
		listing_str(p->l, g.tunnels ? "tunnels" : "upstream");
	}
	return 0;
}

// ---- set up

static void fill_each(table_fill_fn *fn, void *arg)
{
	for (uint16_t i = 1; i < MAX_NETWORKS; i++)
		if (group_snoop[i] && network_get(i))
			fn(arg, network_get(i)->name, group_snoop[i]->n_groups, group_snoop[i]->policy.max_groups);
}

static struct table_stat fill_stat = {
	.name = "multicast_group", .help = "multicast groups that somebody in the network asked for", .label = "network", .each = fill_each};

void group_verbs_init(void)
{
	table_stat_register(&fill_stat);
}

void group_verbs_fini(void)
{
	table_stat_unregister(&fill_stat);
}

#define FILTERS "[--port PORT] [--limit N] [NETWORK]"

const struct stage_verb group_verbs[] = {
	{"group/list", FILTERS, "multicast groups, who asked for them and from which sources", NULL, verb_list},
	{"group/routers", FILTERS, "ports with multicast routers", NULL, verb_routers},
	{"group/networks", FILTERS, "networks with snooping: queriers, limits, counters", NULL, verb_networks},
	{"group/upstream", "[--limit N] [NETWORK]", "what is asked for: upstream by routers, in tunnels by the switch", NULL, verb_upstream},
	{"group/ports", FILTERS, "groups of each port, what its limit refused, whether multicast routers may be there", NULL, verb_ports},
	{0},
};
