// route_line: see route_line.h.
#include "route_line.h"
#include "sentence.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORD 64
// ip -oneline writes \ where a line of a route ends.
#define SPACE " \t\r\n\\"

// The next word, NULL at the end. One that is too long is cut, and is no word that is known.
static const char *word(const char **at, char out[WORD])
{
	const char *begin = *at + strspn(*at, SPACE);
	size_t n = strcspn(begin, SPACE);

	*at = begin + n;
	if (!n)
		return NULL;
	snprintf(out, WORD, "%.*s", (int)(n < WORD ? n : WORD), begin);
	return out;
}

enum route_line_is route_line_kind(const char *text)
{
	const char *at = text + strspn(text, SPACE);

	if (!*at || *at == '#')
		return ROUTE_LINE_EMPTY;
	return at != text && !strncmp(at, "nexthop", 7) && strchr(SPACE, at[7]) ? ROUTE_LINE_NEXT_HOP : ROUTE_LINE_ROUTE;
}

static bool read_number(const char *text, uint32_t lo, uint32_t hi, uint32_t *out)
{
	char *end;
	size_t digits = text ? strspn(text, "0123456789") : 0;

	if (!digits || digits > 10 || text[digits])
		return false;
	unsigned long v = strtoul(text, &end, 10);
	*out = (uint32_t)v;
	return v >= lo && v <= hi;
}

static bool read_ip(const char *text, struct config_ip *ip)
{
	*ip = (struct config_ip){0};
	if (!text)
		return false;
	ip->v6 = strchr(text, ':') != NULL;
	return inet_pton(ip->v6 ? AF_INET6 : AF_INET, text, ip->b) == 1;
}

// *family: it says of which family it is, which "default" doesn't.
static bool read_prefix(char *text, struct config_prefix *p, bool *family)
{
	char *slash = strchr(text, '/');
	uint32_t len;

	*p = (struct config_prefix){0};
	*family = strcmp(text, "default") && strcmp(text, "all");
	if (!*family)
		return true;
	if (slash)
		*slash = '\0';
	bool ok = read_ip(text, &p->ip);
	uint32_t full = p->ip.v6 ? 128 : 32;
	len = full;
	ok = ok && (!slash || read_number(slash + 1, 0, full, &len));
	p->len = (uint8_t)len;
	if (slash)
		*slash = '/';
	return ok;
}

static bool is_one_of(const char *w, const char *const *list)
{
	for (; *list; list++)
		if (!strcmp(w, *list))
			return true;
	return false;
}

// Words that say nothing to us, alone and with a value.
static const char *const flags[] = {"onlink",     "pervasive", "linkdown",       "dead",       "offload", "trap",
				    "rt_offload", "rt_trap",   "offload_failed", "unresolved", NULL};
static const char *const values[] = {"proto",    "protocol", "scope",    "src",        "pref",   "expires",  "mtu",
				     "advmss",   "hoplimit", "window",   "rtt",        "rttvar", "rto_min",  "cwnd",
				     "initcwnd", "initrwnd", "ssthresh", "realm",      "realms", "features", "quickack",
				     "congctl",  "nhid",     "error",    "reordering", NULL};

struct parser {
	struct route_line *l;
	uint16_t (*port)(void *arg, const char *name);
	void *arg;
	bool family; // is known
	char **error;
};

static bool end_hop(struct parser *p, struct route_hop *h, const char *device)
{
	struct route_line *l = p->l;

	if (l->spec.type != ROUTE_UNICAST || (!h->has_gateway && !device))
		return true;
	if (device)
		h->port = p->port(p->arg, device);
	if (!h->has_gateway && !h->port)
		sentence_set(p->error, "there is no router port %s, and no gateway is given", device);
	else if (h->has_gateway && !h->port && h->gateway.v6 && h->gateway.b[0] == 0xfe && (h->gateway.b[1] & 0xc0) == 0x80)
		sentence_set(p->error, "the gateway is link-local: dev must name the router port that it is at");
	else if (h->has_gateway && p->family && h->gateway.v6 != l->spec.prefix.ip.v6)
		sentence_set(p->error, "the gateway is not of the prefix' family");
	else if (l->spec.n_hops == ROUTE_HOPS_MAX)
		sentence_set(p->error, "more than %d next hops", ROUTE_HOPS_MAX);
	if (*p->error)
		return false;
	if (!p->family && h->has_gateway)
		l->spec.prefix.ip.v6 = h->gateway.v6;
	p->family |= h->has_gateway;
	h->by_address = !h->port;
	l->hop[l->spec.n_hops++] = *h;
	return true;
}

// Everything behind the prefix.
static bool read_rest(struct parser *p, const char *at)
{
	struct route_hop h = {.weight = 1};
	char w[WORD], value[WORD], device[WORD] = "";
	uint32_t n;

	while (word(&at, w)) {
		if (is_one_of(w, flags))
			continue;
		if (!strcmp(w, "nexthop")) {
			if (!end_hop(p, &h, device[0] ? device : NULL))
				return false;
			h = (struct route_hop){.weight = 1};
			device[0] = '\0';
			continue;
		}
		const char *v = word(&at, value);
		if (!v)
			sentence_set(p->error, "nothing comes behind \"%s\"", w);
		else if (!strcmp(w, "via")) {
			if (!strcmp(v, "inet6") || !strcmp(v, "inet"))
				v = word(&at, value);
			h.has_gateway = true;
			if (!read_ip(v, &h.gateway))
				sentence_set(p->error, "\"%s\" is no address", v ? v : "");
		} else if (!strcmp(w, "dev")) {
			snprintf(device, sizeof device, "%s", v);
		} else if (!strcmp(w, "metric") || !strcmp(w, "priority") || !strcmp(w, "preference")) {
			if (!read_number(v, 0, UINT32_MAX, &p->l->spec.metric))
				sentence_set(p->error, "\"%s\" is no metric", v);
		} else if (!strcmp(w, "weight")) {
			if (!read_number(v, 1, 256, &n))
				sentence_set(p->error, "a weight is from 1 to 256, not \"%s\"", v);
			else
				h.weight = (uint16_t)n;
		} else if (!strcmp(w, "table")) {
			sentence_set(p->error, "the table is chosen with --table");
		} else if (!is_one_of(w, values)) {
			sentence_set(p->error, "\"%s\" is not understood", w);
		}
		if (*p->error)
			return false;
	}
	return end_hop(p, &h, device[0] ? device : NULL);
}

static enum route_type read_type(const char *w)
{
	static const struct {
		const char *word;
		enum route_type type;
	} types[] = {{"unicast", ROUTE_UNICAST},
		     {"blackhole", ROUTE_BLACKHOLE},
		     {"unreachable", ROUTE_UNREACHABLE},
		     {"prohibit", ROUTE_PROHIBIT}};

	for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
		if (!strcmp(w, types[i].word))
			return types[i].type;
	return ROUTE_NONE;
}

static bool read_route(struct parser *p, const char *at)
{
	struct route_spec *s = &p->l->spec;
	char w[WORD];

	word(&at, w);
	enum route_type type = read_type(w);
	s->type = type ? type : ROUTE_UNICAST;
	if (type && !word(&at, w))
		sentence_set(p->error, "a prefix is missing");
	else if (!read_prefix(w, &s->prefix, &p->family))
		sentence_set(p->error, "\"%s\" is no prefix", w);
	if (*p->error || !read_rest(p, at))
		return false;
	if (s->type != ROUTE_UNICAST)
		s->n_hops = 0;
	return true;
}

enum route_line_is route_line_parse(struct route_line *l, const char *text, uint16_t (*port)(void *arg, const char *name),
				    void *arg, char **error)
{
	struct parser p = {l, port, arg, true, error};
	enum route_line_is kind = route_line_kind(text);

	*error = NULL;
	if (kind == ROUTE_LINE_EMPTY)
		return kind;
	if (kind == ROUTE_LINE_ROUTE) {
		*l = (struct route_line){0};
		l->spec.hop = l->hop;
		return read_route(&p, text) ? kind : ROUTE_LINE_BAD;
	}
	// A default route's first next hop says of which family it is.
	p.family = l->spec.prefix.len || l->spec.n_hops || l->spec.prefix.ip.v6;
	return read_rest(&p, text) ? kind : ROUTE_LINE_BAD;
}
