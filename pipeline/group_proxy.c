// group_proxy: see group_proxy.h.
#include "group_proxy.h"
#include "group_member.h"
#include "key.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS 1024

// To whom something is said: upstream of a router; else, of a domain (group_view.h), by its tunnels.
#define UPSTREAM 0x10000u

// What was last said of a group.
struct proxied {
	struct proxied *next;
	uint32_t scope;
	bool exclude;
	uint8_t left; // state-change reports to be sent yet (RFC 3376 section 5.1)
	bool answer;  // a query is to be answered
	uint64_t due; // of the next one, 0: none
	uint64_t answer_at;
	struct config_ip ip;
	uint32_t n;
	uint8_t (*source)[16];
};

// A tunnel that is told what is wanted here, some reports each tick.
struct told {
	uint16_t network, port;
	bool v6;
	uint32_t from; // bucket
	uint64_t at;
	struct config_ip group; // zero: all
};

#define TOLD_MAX 8192
#define TOLD_AT_ONCE 64 // reports

void (*group_send_report)(uint16_t network, uint16_t port, uint8_t version, const struct group_record *);

static struct proxied *bucket[BUCKETS];
static struct told *told;
static uint32_t n_told, told_room;

static struct proxied **place_of(uint32_t scope, const struct config_ip *ip)
{
	uint64_t a, b;

	memcpy(&a, ip->b, 8);
	memcpy(&b, ip->b + 8, 8);
	struct proxied **at = &bucket[key_mum(a ^ key_secret[1] ^ scope, b ^ key_secret[2]) % BUCKETS];
	while (*at && ((*at)->scope != scope || (*at)->ip.v6 != ip->v6 || memcmp((*at)->ip.b, ip->b, 16)))
		at = &(*at)->next;
	return at;
}

static struct snoop *upstream_of(uint16_t router)
{
	struct snoop *s = group_first_of(router);

	while (s && !s->policy.upstream)
		s = s->router_next;
	return s;
}

// The networks whose members count.
static const struct snoop *first_of(uint32_t scope, const struct config_ip *ip)
{
	return scope & UPSTREAM ? group_first_of((uint16_t)scope) : group_first_in((uint16_t)scope, ip);
}

static const struct snoop *next_of(uint32_t scope, const struct snoop *s)
{
	return scope & UPSTREAM ? s->router_next : group_next_in((uint16_t)scope, s);
}

// Upstream nothing is said of who is there already; in tunnels nothing of who is in others.
static const struct member *next_member(uint32_t scope, const struct snoop *s, const struct member *m)
{
	if (scope & UPSTREAM)
		return s->policy.upstream ? NULL : m;
	while (m && group_is_tunnel(s, m->port))
		m = m->next;
	return m;
}

static const struct member *first_member(uint32_t scope, const struct snoop *s, const struct config_ip *ip)
{
	const struct group *g = group_find(s->network, ip);

	return next_member(scope, s, g ? g->members : NULL);
}

// There is somebody to say it to.
static bool has_listener(uint32_t scope, const struct config_ip *ip)
{
	if (scope & UPSTREAM)
		return upstream_of((uint16_t)scope) != NULL;
	for (const struct snoop *s = first_of(scope, ip); s; s = next_of(scope, s))
		if (s->n_tunnels)
			return true;
	return false;
}

static bool is_wanted(uint32_t scope, const struct config_ip *ip, const uint8_t *source)
{
	for (const struct snoop *s = first_of(scope, ip); s; s = next_of(scope, s))
		for (const struct member *m = first_member(scope, s, ip); m; m = next_member(scope, s, m->next))
			if (group_wants(m, source))
				return true;
	return false;
}

static int by_address(const void *a, const void *b)
{
	return memcmp(a, b, 16);
}

// RFC 4605 section 4.1: one membership of all downstream ones. More sources than one report has room for: all.
static void merge(uint32_t scope, const struct config_ip *ip, bool *exclude, uint8_t (*out)[16], uint32_t *n)
{
	static uint8_t all[8192][16];
	uint32_t k = 0;

	*exclude = is_wanted(scope, ip, NULL);
	*n = 0;
	for (const struct snoop *s = first_of(scope, ip); s; s = next_of(scope, s))
		for (const struct member *m = first_member(scope, s, ip); m; m = next_member(scope, s, m->next))
			for (uint32_t i = 0; i < m->n_sources && k < 8192; i++)
				memcpy(all[k++], m->source[i].ip, 16);
	qsort(all, k, 16, by_address);
	for (uint32_t i = 0; i < k; i++) {
		if ((i && !memcmp(all[i - 1], all[i], 16)) || is_wanted(scope, ip, all[i]) == *exclude)
			continue;
		if (*n == GROUP_SOURCES_MAX(ip->v6)) {
			*exclude = true;
			*n = 0;
			return;
		}
		memcpy(out[(*n)++], all[i], 16);
	}
}

static void send_to(const struct proxied *p, uint16_t network, uint16_t port, uint8_t version, bool change)
{
	uint8_t list[GROUP_FRAME_MAX];
	uint32_t alen = group_address_len(p->ip.v6);
	struct group_record r = {
		.type = change       ? (p->exclude ? GROUP_TO_EX : GROUP_TO_IN)
			: p->exclude ? GROUP_IS_EX
				     : GROUP_IS_IN,
		.group = p->ip,
		.n_sources = (uint16_t)p->n,
		.source = list,
	};

	if (!group_send_report)
		return;
	// RFC 3376 section 7.2.1: an old querier takes reports of its version. These know no sources: a group is wanted or it
	// isn't.
	if (version < 3 && (p->exclude || p->n))
		r.type = GROUP_IS_EX;
	if (version == 1 && r.type != GROUP_IS_EX)
		return;
	for (uint32_t i = 0; i < p->n; i++)
		memcpy(list + i * alen, p->source[i], alen);
	group_send_report(network, port, version, &r);
}

static uint8_t version_of(const struct snoop_port *to, bool v6)
{
	return to->old_until[v6] > group_now ? 2 : 3;
}

static void send(const struct proxied *p, bool change)
{
	const struct snoop *up = p->scope & UPSTREAM ? upstream_of((uint16_t)p->scope) : NULL;

	if (up) {
		const uint64_t *old = up->asker[p->ip.v6].old_until;

		send_to(p, up->network, 0, old[1] > group_now ? 1 : old[2] > group_now ? 2 : 3, change);
	}
	for (const struct snoop *s = up ? NULL : first_of(p->scope, &p->ip); s; s = next_of(p->scope, s))
		for (unsigned i = 0; s->n_tunnels && i < s->n_ports; i++)
			if (s->port[i].is.tunnel)
				send_to(p, s->network, s->port[i].is.port, version_of(&s->port[i], p->ip.v6), change);
}

static void forget(struct proxied **at)
{
	struct proxied *p = *at;

	*at = p->next;
	free(p->source);
	free(p);
}

// False: no memory.
static bool put(struct proxied **at, uint32_t scope, const struct config_ip *ip)
{
	struct proxied *p = calloc(1, sizeof *p);

	if (!p)
		return false;
	p->scope = scope;
	p->ip = *ip;
	*at = p;
	return true;
}

static void update(uint32_t scope, const struct config_ip *ip, uint64_t now)
{
	static uint8_t source[GROUP_SOURCES_MAX(false)][16];
	struct proxied **at = place_of(scope, ip), *p = *at;
	bool exclude = false, listens = has_listener(scope, ip);
	uint32_t n = 0;

	if (listens)
		merge(scope, ip, &exclude, source, &n);
	if (!listens) {
		if (p)
			forget(at);
		return;
	}
	if (!p && !exclude && !n)
		return;
	if (p && p->exclude == exclude && p->n == n && !memcmp(p->source, source, n * 16))
		return;
	uint8_t(*copy)[16] = malloc((n + 1) * sizeof *copy);
	if (!copy || (!p && !put(at, scope, ip))) {
		free(copy);
		return;
	}
	p = *at;
	memcpy(copy, source, n * 16);
	free(p->source);
	p->source = copy;
	p->n = n;
	p->exclude = exclude;
	p->left = scope & UPSTREAM ? upstream_of((uint16_t)scope)->asker[ip->v6].robustness
				   : first_of(scope, ip)->policy.robustness;
	p->due = now;
}

void group_proxy_changed(const struct snoop *s, const struct config_ip *ip, uint64_t now)
{
	if (s->policy.router && !group_ip_is_link(ip))
		update(UPSTREAM | s->policy.router, ip, now);
	update(group_domain(s->network, s->policy.router, ip), ip, now);
}

void group_proxy_refresh(uint64_t now)
{
	for (unsigned i = 0; i < BUCKETS; i++) {
		for (struct proxied *p = bucket[i], *next; p; p = next) {
			struct config_ip ip = p->ip;

			next = p->next;
			update(p->scope, &ip, now);
		}
	}
	for (uint32_t i = 0; i < group_slots; i++)
		if (group_slot[i] && group_snoop[group_slot[i]->network])
			group_proxy_changed(group_snoop[group_slot[i]->network], &group_slot[i]->ip, now);
}

// ---- answers

// RFC 3376 section 5.2: at some time before the asker gives up.
static uint64_t answer_at(const struct group_message *q, uint64_t now, uint32_t salt)
{
	return now + (q->response_ms ? key_mum(now ^ salt, key_secret[0]) % (q->response_ms * MS * 3 / 4 + 1) : 0);
}

static void tell(uint16_t network, uint16_t port, const struct config_ip *group, uint64_t at)
{
	for (uint32_t i = 0; i < n_told; i++) {
		struct told *t = &told[i];

		if (t->network != network || t->port != port || t->v6 != group->v6)
			continue;
		if (memcmp(&t->group, group, sizeof *group)) // two questions: all of it
			t->group = (struct config_ip){.v6 = group->v6};
		t->at = at < t->at ? at : t->at;
		t->from = 0;
		return;
	}
	if (n_told == TOLD_MAX)
		return;
	if (n_told == told_room) {
		struct told *grown = realloc(told, (told_room + 64) * sizeof *grown);

		if (!grown)
			return;
		told = grown;
		told_room += 64;
	}
	told[n_told++] = (struct told){.network = network, .port = port, .v6 = group->v6, .at = at, .group = *group};
}

void group_proxy_tell(uint16_t network, uint16_t port, uint64_t now)
{
	for (unsigned v6 = 0; v6 < 2; v6++)
		tell(network, port, &(struct config_ip){.v6 = v6}, now);
}

// True: that was all.
static bool tell_some(struct told *t)
{
	const struct snoop *s = group_snoop[t->network];
	const struct snoop_port *to = s ? group_port(s, t->port) : NULL;
	unsigned n = 0;

	for (; to && t->from < BUCKETS && n < TOLD_AT_ONCE; t->from++) {
		for (const struct proxied *p = bucket[t->from]; p; p = p->next) {
			if (p->ip.v6 != t->v6 || (!p->exclude && !p->n) ||
			    p->scope != group_domain(t->network, s->policy.router, &p->ip))
				continue;
			if (!group_ip_is_zero(&t->group) && memcmp(t->group.b, p->ip.b, 16))
				continue;
			send_to(p, t->network, t->port, version_of(to, t->v6), false);
			n++;
		}
	}
	return !to || t->from == BUCKETS;
}

// Where the switch itself doesn't ask, one question is for all.
static void asked_at_tunnel(const struct snoop *s, uint16_t port, const struct group_message *q, uint64_t now)
{
	for (unsigned i = 0; i < s->n_ports; i++)
		if (s->port[i].is.tunnel && (s->port[i].is.port == port || !s->policy.querier))
			tell(s->network, s->port[i].is.port, &q->group, answer_at(q, now, i));
}

void group_proxy_asked(const struct snoop *s, uint16_t port, const struct group_message *q, uint64_t now)
{
	uint32_t scope = UPSTREAM | s->policy.router;

	if (s->n_tunnels)
		asked_at_tunnel(s, port, q, now);
	for (unsigned i = 0; s->policy.upstream && i < BUCKETS; i++) {
		for (struct proxied *p = bucket[i]; p; p = p->next) {
			if (p->scope != scope || p->ip.v6 != q->v6 || (!p->exclude && !p->n))
				continue;
			if (!group_ip_is_zero(&q->group) && memcmp(q->group.b, p->ip.b, 16))
				continue;
			uint64_t at = answer_at(q, now, i);
			if (!p->answer || at < p->answer_at)
				p->answer_at = at;
			p->answer = true;
		}
	}
}

void group_proxy_tick(uint64_t now)
{
	for (uint32_t i = 0; i < n_told;) {
		if (told[i].at <= now && tell_some(&told[i]))
			told[i] = told[--n_told];
		else
			i++;
	}
	for (unsigned i = 0; i < BUCKETS; i++) {
		for (struct proxied **at = &bucket[i]; *at;) {
			struct proxied *p = *at;

			if (p->due && p->due <= now) {
				send(p, true);
				p->left -= p->left > 0;
				p->due = p->left ? now + SECOND : 0; // RFC 3376 section 8.11
			}
			if (p->answer && p->answer_at <= now) {
				p->answer = false;
				send(p, false);
			}
			if (!p->due && !p->exclude && !p->n)
				forget(at);
			else
				at = &p->next;
		}
	}
}

bool group_proxy_next(uint32_t *at, struct group_proxied *out)
{
	for (; *at < BUCKETS * 256u; ++*at) {
		const struct proxied *p = bucket[*at / 256];
		const struct snoop *s;

		for (unsigned k = *at % 256; k && p; k--)
			p = p->next;
		if (!p) {
			*at |= 255;
			continue;
		}
		s = p->scope & UPSTREAM ? upstream_of((uint16_t)p->scope) : first_of(p->scope, &p->ip);
		if (!s)
			continue;
		*out = (struct group_proxied){s->network, !(p->scope & UPSTREAM),         p->ip, p->exclude,
					      p->n,       (const uint8_t(*)[16])p->source};
		++*at;
		return true;
	}
	return false;
}

void group_proxy_fini(void)
{
	for (unsigned i = 0; i < BUCKETS; i++)
		while (bucket[i])
			forget(&bucket[i]);
	free(told);
	told = NULL;
	n_told = told_room = 0;
}
