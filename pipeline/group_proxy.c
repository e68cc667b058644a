// group_proxy: see group_proxy.h.
#include "group_proxy.h"
#include "group_member.h"
#include "key.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS 1024

// What was last said of a group.
struct proxied {
	struct proxied *next;
	uint16_t router;
	bool exclude;
	uint8_t left; // state-change reports to be sent yet (RFC 3376 section 5.1)
	bool answer;  // a query is to be answered
	uint64_t due; // of the next one, 0: none
	uint64_t answer_at;
	struct config_ip ip;
	uint32_t n;
	uint8_t (*source)[16];
};

void (*group_send_report)(uint16_t network, uint8_t version, const struct group_record *);

static struct proxied *bucket[BUCKETS];

static struct proxied **place_of(uint16_t router, const struct config_ip *ip)
{
	uint64_t a, b;

	memcpy(&a, ip->b, 8);
	memcpy(&b, ip->b + 8, 8);
	struct proxied **at = &bucket[key_mum(a ^ key_secret[1] ^ router, b ^ key_secret[2]) % BUCKETS];
	while (*at && ((*at)->router != router || (*at)->ip.v6 != ip->v6 || memcmp((*at)->ip.b, ip->b, 16)))
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

static bool is_wanted(uint16_t router, const struct config_ip *ip, const uint8_t *source)
{
	for (const struct snoop *s = group_first_of(router); s; s = s->router_next) {
		struct group *g = s->policy.upstream ? NULL : group_find(s->network, ip);

		for (const struct member *m = g ? g->members : NULL; m; m = m->next)
			if (group_wants(m, source))
				return true;
	}
	return false;
}

static int by_address(const void *a, const void *b)
{
	return memcmp(a, b, 16);
}

// RFC 4605 section 4.1: one membership of all downstream ones. More sources than one report has room for: all.
static void merge(uint16_t router, const struct config_ip *ip, bool *exclude, uint8_t (*out)[16], uint32_t *n)
{
	static uint8_t all[8192][16];
	uint32_t k = 0;

	*exclude = is_wanted(router, ip, NULL);
	*n = 0;
	for (const struct snoop *s = group_first_of(router); s; s = s->router_next) {
		struct group *g = s->policy.upstream ? NULL : group_find(s->network, ip);

		for (const struct member *m = g ? g->members : NULL; m; m = m->next)
			for (uint32_t i = 0; i < m->n_sources && k < 8192; i++)
				memcpy(all[k++], m->source[i].ip, 16);
	}
	qsort(all, k, 16, by_address);
	for (uint32_t i = 0; i < k; i++) {
		if ((i && !memcmp(all[i - 1], all[i], 16)) || is_wanted(router, ip, all[i]) == *exclude)
			continue;
		if (*n == GROUP_SOURCES_MAX(ip->v6)) {
			*exclude = true;
			*n = 0;
			return;
		}
		memcpy(out[(*n)++], all[i], 16);
	}
}

static void send(struct proxied *p, bool change)
{
	const struct snoop *up = upstream_of(p->router);
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

	if (!up || !group_send_report)
		return;
	// RFC 3376 section 7.2.1: an old querier takes reports of its version. These know no sources: a group is wanted or it isn't.
	const uint64_t *old = up->asker[p->ip.v6].old_until;
	uint8_t version = old[1] > group_now ? 1 : old[2] > group_now ? 2 : 3;
	if (version < 3 && (p->exclude || p->n))
		r.type = GROUP_IS_EX;
	if (version == 1 && r.type != GROUP_IS_EX)
		return;
	for (uint32_t i = 0; i < p->n; i++)
		memcpy(list + i * alen, p->source[i], alen);
	group_send_report(up->network, version, &r);
}

static void forget(struct proxied **at)
{
	struct proxied *p = *at;

	*at = p->next;
	free(p->source);
	free(p);
}

void group_proxy_changed(uint16_t router, const struct config_ip *ip, uint64_t now)
{
	static uint8_t source[GROUP_SOURCES_MAX(false)][16];
	struct snoop *up = upstream_of(router);
	struct proxied **at = place_of(router, ip), *p = *at;
	bool exclude = false;
	uint32_t n = 0;

	if (!router || group_ip_is_link(ip))
		return;
	if (up)
		merge(router, ip, &exclude, source, &n);
	if (!up) {
		if (p)
			forget(at);
		return;
	}
	if (!p && !exclude && !n)
		return;
	if (p && p->exclude == exclude && p->n == n && !memcmp(p->source, source, n * 16))
		return;
	uint8_t(*copy)[16] = malloc((n + 1) * sizeof *copy);
	if (!p && copy) {
		p = calloc(1, sizeof *p);
		if (p) {
			p->router = router;
			p->ip = *ip;
			*at = p;
		}
	}
	if (!p || !copy) {
		free(copy);
		return;
	}
	memcpy(copy, source, n * 16);
	free(p->source);
	p->source = copy;
	p->n = n;
	p->exclude = exclude;
	p->left = up->asker[ip->v6].robustness;
	p->due = now;
}

void group_proxy_refresh(uint16_t router, uint64_t now)
{
	for (unsigned i = 0; router && i < BUCKETS; i++) {
		for (struct proxied *p = bucket[i], *next; p; p = next) {
			struct config_ip ip = p->ip;

			next = p->next;
			if (p->router == router)
				group_proxy_changed(router, &ip, now);
		}
	}
	for (uint32_t i = 0; router && i < group_slots; i++) {
		struct group *g = group_slot[i];

		if (g && group_snoop[g->network] && group_snoop[g->network]->policy.router == router)
			group_proxy_changed(router, &g->ip, now);
	}
}

void group_proxy_asked(const struct snoop *up, const struct group_message *q, uint64_t now)
{
	uint16_t router = up->policy.router;

	for (unsigned i = 0; i < BUCKETS; i++) {
		for (struct proxied *p = bucket[i]; p; p = p->next) {
			if (p->router != router || p->ip.v6 != q->v6 || (!p->exclude && !p->n))
				continue;
			if (!group_ip_is_zero(&q->group) && memcmp(q->group.b, p->ip.b, 16))
				continue;
			// RFC 3376 section 5.2: at some time before the asker gives up.
			uint64_t at = now + (q->response_ms ? key_mum(now ^ i, key_secret[0]) % (q->response_ms * MS * 3 / 4 + 1) : 0);
			if (!p->answer || at < p->answer_at)
				p->answer_at = at;
			p->answer = true;
		}
	}
}

void group_proxy_tick(uint64_t now)
{
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
		const struct snoop *up;

		for (unsigned k = *at % 256; k && p; k--)
			p = p->next;
		if (!p) {
			*at |= 255;
			continue;
		}
		up = upstream_of(p->router);
		if (!up)
			continue;
		*out = (struct group_proxied){up->network, p->ip, p->exclude, p->n, (const uint8_t(*)[16])p->source};
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
}
