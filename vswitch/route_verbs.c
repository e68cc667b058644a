// route_verbs: what routers have of routes, and which one an address takes.
#include "buf.h"
#include "control.h"
#include "pages.h"
#include "route_load.h"
#include "route_table.h"
#include "row.h"
#include "sentence.h"
#include "topology.h"
#include "verbs.h"

#include <arpa/inet.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool route_take_table(int *argc, const char *argv[], uint16_t *router, uint32_t *table, bool *has_table, char **error)
{
	const char *name = verbs_take_option(argc, argv, "router", error),
		   *number = verbs_take_option(argc, argv, "table", error);

	*router = name ? route_router_find(name) : 0;
	*table = 0;
	*has_table = number;
	if (!*error && name && !*router)
		sentence_set(error, "there is no router %s", name);
	if (!*error && number) {
		size_t digits = strspn(number, "0123456789");
		unsigned long long n = strtoull(number, NULL, 10);

		if (!digits || digits > 10 || number[digits] || n > UINT32_MAX)
			sentence_set(error, "--table wants the number of a table, 0 for the main one, not \"%s\"", number);
		*table = (uint32_t)n;
	}
	return !*error;
}

void route_source_row(struct listing *l, const char *router, uint32_t table, const char *from, const char *state,
		      unsigned percent, uint64_t routes, uint64_t left_out, const char *note)
{
	listing_row(l);
	listing_str(l, router);
	listing_uint(l, table);
	listing_str(l, from);
	listing_str(l, state);
	if (percent == UINT_MAX)
		listing_none(l);
	else
		listing_uint(l, percent);
	listing_uint(l, routes);
	listing_uint(l, left_out);
	listing_str(l, note[0] ? note : NULL);
}

static const char *ip_text(const struct config_ip *ip, char text[INET6_ADDRSTRLEN])
{
	return inet_ntop(ip->v6 ? AF_INET6 : AF_INET, ip->b, text, INET6_ADDRSTRLEN);
}

static void hop_text(const struct route_hop *h, unsigned n, char *out, size_t size)
{
	char ip[INET6_ADDRSTRLEN], weight[16] = "";

	if (n > 1)
		snprintf(weight, sizeof weight, " weight %u", h->weight);
	snprintf(out, size, "%s%s%s%s%s%s", h->has_gateway ? "via " : "", h->has_gateway ? ip_text(&h->gateway, ip) : "",
		 h->has_gateway ? " " : "", h->port ? "dev " : "no port", h->port ? lport_name(h->port) : "", weight);
	if (h->dead)
		snprintf(out + strlen(out), size - strlen(out), " dead");
}

static void list_hops(struct listing *l, const struct route_hop *hop, unsigned n)
{
	static char text[ROUTE_HOPS_MAX][160];
	const char *each[ROUTE_HOPS_MAX];

	for (unsigned i = 0; i < n; i++) {
		hop_text(&hop[i], n, text[i], sizeof text[i]);
		each[i] = text[i];
	}
	listing_list(l, each, n);
}

// ---- show

struct show {
	struct page *p;
	uint16_t router;
	uint32_t table;
};

static bool show_one(void *arg, const struct route_view *v)
{
	const struct show *s = arg;
	const struct row_info *row = row_get(v->spec.row);
	char ip[INET6_ADDRSTRLEN];

	if (v->first && !page_look(s->p))
		return false;
	listing_row(s->p->l);
	listing_str(s->p->l, route_router_name(s->router));
	listing_uint(s->p->l, s->table);
	listing_fmt(s->p->l, "%s/%u", ip_text(&v->spec.prefix.ip, ip), v->spec.prefix.len);
	listing_str(s->p->l, route_type_name(v->spec.type));
	list_hops(s->p->l, v->spec.hop, v->spec.n_hops);
	listing_uint(s->p->l, v->spec.metric);
	listing_str(s->p->l, route_source_name(v->spec.source));
	listing_bool(s->p->l, v->best);
	if (row)
		listing_fmt(s->p->l, "%s %s", row->table, row->name);
	else
		listing_none(s->p->l);
	return true;
}

// A cursor is the router's id, table and what route_at has: three numbers.
static void resume(const struct page *p, uint16_t *router, uint32_t *table, struct route_at *at)
{
	*router = (uint16_t)(p->at[0] >> 42 & (MAX_ROUTERS - 1));
	*table = (uint32_t)(p->at[0] >> 10);
	*at = (struct route_at){.v6 = p->at[0] & 1, .begun = p->at[0] >> 1 & 1, .len = (uint8_t)(p->at[0] >> 2)};
	memcpy(at->ip, &p->at[1], 16);
}

static void remember(struct page *p, uint16_t router, uint32_t table, const struct route_at *at)
{
	p->at[0] = (uint64_t)router << 42 | (uint64_t)table << 10 | (uint64_t)at->len << 2 | (uint64_t)at->begun << 1 | at->v6;
	memcpy(&p->at[1], at->ip, 16);
}

static int show(struct page *p, int argc, const char *argv[], char **error)
{
	static const char *const columns[][2] = {{"router", "ROUTER"}, {"table", "TABLE"},         {"prefix", "PREFIX"},
						 {"type", "TYPE"},     {"next_hops", "NEXT HOPS"}, {"metric", "METRIC"},
						 {"source", "SOURCE"}, {"used", "USED"},           {"row", "ROW"}};
	uint16_t only, router;
	uint32_t only_table, table;
	bool has_table;
	struct route_at at;

	if (!route_take_table(&argc, argv, &only, &only_table, &has_table, error))
		return -1;
	if (argc > 1) {
		sentence_set(error, "\"%s\" is not understood: --router NAME and --table N choose", argv[1]);
		return -1;
	}
	for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
		listing_column(p->l, columns[i][0], columns[i][1]);
	resume(p, &router, &table, &at);
	if (at.len > (at.v6 ? 128 : 32))
		return 0; // no cursor of ours
	for (; router < MAX_ROUTERS; router++, table = 0, at = (struct route_at){0}) {
		if (only && router != only)
			continue;
		for (uint32_t next = table; route_next_table(router, &next); table = ++next) {
			struct show s = {p, router, next};

			if (next != table)
				at = (struct route_at){0};
			if ((!has_table || next == only_table) && route_walk(router, next, &at, show_one, &s)) {
				remember(p, router, next, &at);
				return 1;
			}
			at = (struct route_at){0};
			if (next == UINT32_MAX)
				break;
		}
	}
	return 0;
}

// ---- lookup

static bool read_ip(const char *text, struct config_ip *ip)
{
	*ip = (struct config_ip){.v6 = strchr(text, ':') != NULL};
	return inet_pton(ip->v6 ? AF_INET6 : AF_INET, text, ip->b) == 1;
}

struct asked {
	uint16_t router, port;
	struct config_ip dst, src;
	bool has_src;
	uint8_t tos;
	struct pkt_mark mark;
};

static bool read_asked(int argc, const char *argv[], struct asked *a, char **error)
{
	*a = (struct asked){.router = route_router_find(argv[1])};
	if (!a->router)
		sentence_set(error, "there is no router %s", argv[1]);
	else if (!read_ip(argv[2], &a->dst))
		sentence_set(error, "\"%s\" is no address", argv[2]);
	for (int i = 3; i < argc && !*error; i += 2) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";

		if (!strcmp(argv[i], "from")) {
			a->has_src = true;
			if (!read_ip(value, &a->src))
				sentence_set(error, "\"%s\" is no address", value);
			else if (a->src.v6 != a->dst.v6)
				sentence_set(error, "the two addresses are of different families");
		} else if (!strcmp(argv[i], "in")) {
			for (uint16_t id = 1; id < MAX_PORTS && !a->port; id++)
				if (lport_get(id) && !strcmp(lport_name(id), value))
					a->port = id;
			if (!a->port)
				sentence_set(error, "there is no port \"%s\"", value);
		} else if (!strcmp(argv[i], "dscp")) {
			a->tos = (uint8_t)(strtoul(value, NULL, 10) << 2);
			if (!value[0] || value[strspn(value, "0123456789")] || strtoul(value, NULL, 10) > 63)
				sentence_set(error, "a DSCP is from 0 to 63, not \"%s\"", value);
		} else if (!strcmp(argv[i], "mark")) {
			if (strchr(value, '/'))
				sentence_set(error, "mark %s: a packet's mark has no mask", value);
			else
				mark_read(value, "mark", &a->mark, error);
		} else {
			sentence_set(error, "\"%s\" is not understood: from ADDRESS, in PORT, dscp N and mark N may follow the address",
				     argv[i]);
		}
	}
	return !*error;
}

static void row_cell(struct listing *l, uint32_t handle)
{
	const struct row_info *row = row_get(handle);

	if (row)
		listing_fmt(l, "%s %s", row->table, row->name);
	else
		listing_none(l);
}

// Why that is the answer, as a sentence.
static void reason(struct buf *b, const struct route_result *f)
{
	static const char *const by_source[] = {"a router port is in that network", "a row of table Route says so",
						"a file that was loaded says so", "the kernel's table says so"};

	if (f->type == ROUTE_NONE) {
		buf_add(b, "no route of the router's tables has this address in its prefix");
		return;
	}
	if (f->policy && f->policy == f->row) {
		buf_add(b, "a policy rule decides it without a table");
		return;
	}
	buf_add(b, "the longest prefix in table %u that has the address is of %u bits", f->table, f->len);
	if (f->type == ROUTE_LOCAL)
		buf_add(b, ", an address of router port %s", f->hop ? lport_name(f->hop->port) : "?");
	else
		buf_add(b, "; %s", by_source[f->source]);
	if (f->policy)
		buf_add(b, "; a policy rule chose the table");
	if (f->n_hops > 1)
		buf_add(b, "; this is one of %u next hops, which packets of other ports or addresses may not take", f->n_hops);
	if (f->hop && f->hop->dead)
		buf_add(b, "; the next hop doesn't answer, and there is no other");
}

static void verb_lookup(struct control_request *r, int argc, const char *argv[], void *aux)
{
	bool json = verbs_take_json(&argc, argv);
	struct route_result found;
	struct asked a;
	char *error = NULL, hop[160];
	struct buf why = {0};

	if (!read_asked(argc, argv, &a, &error)) {
		control_reply_error(r, error ? error : "out of memory");
		free(error);
		return;
	}
	route_find(NULL, a.router, a.port, a.dst.v6, a.has_src ? a.src.b : NULL, a.dst.b, a.tos, a.mark.value, 0, &found);
	struct config_prefix p = {.ip = a.dst, .len = found.len};
	for (unsigned i = found.len; i < 128; i++)
		p.ip.b[i / 8] &= (uint8_t) ~(0x80 >> i % 8);
	struct listing *l = listing_new();
	listing_column(l, "type", "Type");
	listing_row(l);
	listing_str(l, route_type_name(found.type));
	if (found.type != ROUTE_NONE && !(found.policy && found.policy == found.row)) {
		char ip[INET6_ADDRSTRLEN];

		listing_column(l, "table", "Table");
		listing_uint(l, found.table);
		listing_column(l, "prefix", "Prefix");
		listing_fmt(l, "%s/%u", ip_text(&p.ip, ip), p.len);
		listing_column(l, "next_hop", "Next hop");
		if (found.hop)
			hop_text(found.hop, found.n_hops, hop, sizeof hop);
		listing_str(l, found.hop ? hop : NULL);
		listing_column(l, "metric", "Metric");
		listing_uint(l, found.metric);
		listing_column(l, "source", "Source");
		listing_str(l, route_source_name(found.source));
	}
	listing_column(l, "row", "Row");
	row_cell(l, found.row);
	listing_column(l, "policy", "Policy");
	row_cell(l, found.policy);
	reason(&why, &found);
	listing_column(l, "why", "Why");
	listing_str(l, why.text);
	char *text = listing_render_record(l, json);
	listing_free(l);
	if (text)
		control_reply(r, text);
	else
		control_reply_error(r, "out of memory");
	free(text);
	free(why.text);
}

void route_verbs_init(void)
{
	pages_register("route/show", "[--router ROUTER] [--table N]", show);
	control_register("route/lookup", "ROUTER ADDRESS [from ADDRESS] [in PORT] [dscp N] [mark N] [--json]", 2, 11, verb_lookup, NULL);
}
