// group_member: see group_member.h.
#include "group_member.h"
#include "group_timer.h"

#include <stdlib.h>
#include <string.h>

uint64_t group_membership_ns(const struct snoop *s, bool v6)
{
	return s->asker[v6].robustness * s->asker[v6].interval_s * SECOND + s->policy.response_ms * MS;
}

static uint64_t last_member_ns(const struct snoop *s, bool v6)
{
	return s->asker[v6].robustness * s->policy.last_member_ms * MS;
}

// ---- sources

// Its place; *there: it is in it.
static uint32_t place_of(const struct member *m, const uint8_t ip[16], bool *there)
{
	uint32_t low = 0, high = m->n_sources;

	*there = false;
	while (low < high) {
		uint32_t mid = (low + high) / 2;
		int c = memcmp(m->source[mid].ip, ip, 16);

		if (!c) {
			*there = true;
			return mid;
		}
		if (c < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static struct source *find(const struct member *m, const uint8_t ip[16])
{
	bool there;
	uint32_t i = place_of(m, ip, &there);

	return there ? &m->source[i] : NULL;
}

// NULL: there are too many.
static struct source *add(struct snoop *s, struct member *m, const uint8_t ip[16], uint64_t until)
{
	bool there;
	uint32_t i = place_of(m, ip, &there);

	if (there) {
		struct source *old = &m->source[i];

		if (!old->until != !until)
			group_mark(m->group);
		old->until = until;
		return old;
	}
	if (m->n_sources >= s->policy.max_sources)
		return NULL;
	if (m->n_sources == m->room) {
		uint32_t more = m->room ? 2 * m->room : 4;
		struct source *grown = realloc(m->source, more * sizeof *grown);

		if (!grown)
			return NULL;
		m->source = grown;
		m->room = more;
	}
	memmove(&m->source[i + 1], &m->source[i], (m->n_sources - i) * sizeof *m->source);
	m->source[i] = (struct source){.until = until};
	memcpy(m->source[i].ip, ip, 16);
	m->n_sources++;
	group_mark(m->group);
	return &m->source[i];
}

static void remove_source(struct member *m, uint32_t i)
{
	m->n_sources--;
	memmove(&m->source[i], &m->source[i + 1], (m->n_sources - i) * sizeof *m->source);
	group_mark(m->group);
}

void member_lower_source(struct member *m, const uint8_t *ip, uint64_t until)
{
	uint8_t whole[16] = {0};

	memcpy(whole, ip, group_address_len(m->group->ip.v6));
	struct source *src = find(m, whole);
	if (src && src->until > until)
		src->until = until;
}

bool group_wants(const struct member *m, const uint8_t *source)
{
	const struct source *s = source ? find(m, source) : NULL;

	return s ? s->until != 0 : m->exclude;
}

// ---- a record

// The record's sources, whole and with what became of them.
struct list {
	const struct group_record *r;
	uint32_t alen;
};

static void nth(const struct list *l, unsigned i, uint8_t ip[16])
{
	memset(ip, 0, 16);
	memcpy(ip, l->r->source + i * l->alen, l->alen);
}

static bool lists(const struct list *l, const uint8_t ip[16])
{
	for (unsigned i = 0; i < l->r->n_sources; i++)
		if (!memcmp(l->r->source + i * l->alen, ip, l->alen))
			return true;
	return false;
}

// Nobody else can be behind the port who wants it.
static bool leaves_at_once(const struct snoop *s, uint16_t port)
{
	const struct snoop_port *p = group_port(s, port);

	return p->is.tunnel ? p->is.speaks : s->policy.fast_leave;
}

// The port may want the source no more. Who has left for sure is gone at once; else it is asked, by whoever is querier.
static void doubt(struct snoop *s, struct member *m, struct source *src, uint64_t now)
{
	bool v6 = m->group->ip.v6;
	uint64_t until = now + last_member_ns(s, v6);

	if (leaves_at_once(s, m->port)) {
		src->until = now;
		return;
	}
	if (!group_may_ask(s, v6, m->port))
		return;
	if (src->until > until)
		src->until = until;
	src->asked_left = s->asker[v6].robustness;
	m->ask_due = now;
}

static void doubt_group(struct snoop *s, struct member *m, uint64_t now)
{
	bool v6 = m->group->ip.v6;
	uint64_t until = now + last_member_ns(s, v6);

	if (leaves_at_once(s, m->port)) {
		m->until = now;
		return;
	}
	if (!group_may_ask(s, v6, m->port))
		return;
	if (m->until > until)
		m->until = until;
	m->asked_left = s->asker[v6].robustness;
	m->ask_due = now;
}

// It gets packets of every source.
static void all_sources(struct member *m, uint64_t until)
{
	m->exclude = true;
	m->until = until;
	m->n_sources = 0;
	group_mark(m->group);
}

static void want(struct snoop *s, struct member *m, const struct list *l, uint64_t until)
{
	uint8_t ip[16];

	for (unsigned i = 0; i < l->r->n_sources; i++) {
		nth(l, i, ip);
		if (add(s, m, ip, until) || m->exclude)
			continue;
		s->count.refused_sources++;
		all_sources(m, until);
		return;
	}
}

// INCLUDE or EXCLUDE to EXCLUDE: sources that the record leaves out go, new ones get `until` (0: they are not wanted).
static void exclude(struct snoop *s, struct member *m, const struct list *l, uint64_t until)
{
	uint8_t ip[16];

	for (uint32_t i = m->n_sources; i-- > 0;)
		if (!lists(l, m->source[i].ip))
			remove_source(m, i);
	for (unsigned i = 0; i < l->r->n_sources; i++) {
		nth(l, i, ip);
		if (!find(m, ip))
			add(s, m, ip, until);
	}
}

static void doubt_listed(struct snoop *s, struct member *m, const struct list *l, bool listed, uint64_t now)
{
	for (uint32_t i = 0; i < m->n_sources; i++)
		if (m->source[i].until && lists(l, m->source[i].ip) == listed)
			doubt(s, m, &m->source[i], now);
}

static void record_include(struct snoop *s, struct member *m, const struct list *l, uint64_t now)
{
	uint64_t gmi = now + group_membership_ns(s, m->group->ip.v6);

	switch (l->r->type) {
	case GROUP_TO_IN:
		doubt_listed(s, m, l, false, now);
		want(s, m, l, gmi);
		break;
	case GROUP_IS_IN:
	case GROUP_ALLOW:
		want(s, m, l, gmi);
		break;
	case GROUP_BLOCK:
		doubt_listed(s, m, l, true, now);
		break;
	case GROUP_IS_EX:
	case GROUP_TO_EX:
		m->exclude = true;
		m->until = gmi;
		group_mark(m->group);
		exclude(s, m, l, 0);
		if (l->r->type == GROUP_TO_EX)
			doubt_listed(s, m, l, true, now);
		break;
	}
}

static void record_exclude(struct snoop *s, struct member *m, const struct list *l, uint64_t now)
{
	uint64_t gmi = now + group_membership_ns(s, m->group->ip.v6);
	uint8_t ip[16];

	switch (l->r->type) {
	case GROUP_TO_IN:
		doubt_listed(s, m, l, false, now);
		want(s, m, l, gmi);
		doubt_group(s, m, now);
		break;
	case GROUP_IS_IN:
	case GROUP_ALLOW:
		want(s, m, l, gmi);
		break;
	case GROUP_BLOCK:
		for (unsigned i = 0; i < l->r->n_sources; i++) {
			nth(l, i, ip);
			if (!find(m, ip))
				add(s, m, ip, m->until);
		}
		doubt_listed(s, m, l, true, now);
		break;
	case GROUP_IS_EX:
		exclude(s, m, l, gmi);
		m->until = gmi;
		break;
	case GROUP_TO_EX:
		exclude(s, m, l, m->until);
		doubt_listed(s, m, l, true, now);
		m->until = gmi;
		break;
	}
}

// RFC 3376 section 7.3.2: hosts of old versions don't say what they don't want, and a report of one hides those of others.
static bool translate(const struct member *m, struct group_record *r, uint64_t now)
{
	bool v1 = m->old_until[1] > now, v2 = m->old_until[2] > now;

	if (!v1 && !v2)
		return true;
	if (r->type == GROUP_TO_EX)
		r->n_sources = 0;
	return r->type != GROUP_BLOCK && !(v1 && r->type == GROUP_TO_IN);
}

void member_record(struct snoop *s, struct member *m, const struct group_record *record, uint64_t now)
{
	struct group_record r = *record;
	struct list l = {&r, group_address_len(r.group.v6)};

	if (!translate(m, &r, now))
		return;
	if (m->exclude)
		record_exclude(s, m, &l, now);
	else
		record_include(s, m, &l, now);
}

// ---- time

static void expire(struct member *m, uint64_t now)
{
	for (uint32_t i = m->n_sources; i-- > 0;) {
		struct source *src = &m->source[i];

		if (!src->until || src->until > now)
			continue;
		if (m->exclude) {
			src->until = 0;
			src->asked_left = 0;
			group_mark(m->group);
		} else {
			remove_source(m, i);
		}
	}
	if (!m->exclude || m->until > now)
		return;
	m->exclude = false;
	group_mark(m->group);
	for (uint32_t i = m->n_sources; i-- > 0;)
		if (!m->source[i].until)
			remove_source(m, i);
}

static void send(struct snoop *s, struct member *m, const uint8_t *source, unsigned n, bool suppress)
{
	bool v6 = m->group->ip.v6;
	struct group_query q = {
		.group = m->group->ip,
		.src = s->policy.own[v6],
		.version = s->policy.version[v6],
		.robustness = s->asker[v6].robustness,
		.interval_s = s->asker[v6].interval_s,
		.response_ms = s->policy.last_member_ms,
		.suppress = suppress,
		.n_sources = (uint16_t)n,
		.source = source,
	};

	memcpy(q.mac, s->policy.mac, 6);
	s->count.sent_queries++;
	if (group_send)
		group_send(s->network, m->port, &q);
}

// RFC 3376 section 6.6.3.2: sources whose timers have been raised again since are asked for with the S flag.
static void ask_sources(struct snoop *s, struct member *m, bool suppress, uint64_t now)
{
	bool v6 = m->group->ip.v6;
	uint64_t limit = now + last_member_ns(s, v6);
	uint32_t alen = group_address_len(v6), n = 0;
	uint8_t list[GROUP_FRAME_MAX];

	for (uint32_t i = 0; i < m->n_sources && n < GROUP_SOURCES_MAX(v6); i++) {
		struct source *src = &m->source[i];

		if (!src->asked_left || (src->until > limit) != suppress)
			continue;
		src->asked_left--;
		memcpy(list + n++ * alen, src->ip, alen);
	}
	if (n)
		send(s, m, list, n, suppress);
}

static void ask(struct snoop *s, struct member *m, uint64_t now)
{
	bool v6 = m->group->ip.v6, more = false;

	m->ask_due = 0;
	if (!group_may_ask(s, v6, m->port))
		return;
	if (m->asked_left) {
		m->asked_left--;
		send(s, m, NULL, 0, m->until > now + last_member_ns(s, v6));
	}
	if (s->policy.version[v6] >= 3) {
		ask_sources(s, m, true, now);
		ask_sources(s, m, false, now);
	}
	for (uint32_t i = 0; i < m->n_sources; i++)
		more |= m->source[i].asked_left != 0;
	if (more || m->asked_left)
		m->ask_due = now + s->policy.last_member_ms * MS;
}

void member_run(struct snoop *s, struct member *m, uint64_t now)
{
	expire(m, now);
	if (!m->exclude && !m->n_sources) {
		group_member_gone(m);
		return;
	}
	if (m->ask_due && m->ask_due <= now)
		ask(s, m, now);
	uint64_t due = m->exclude ? m->until : UINT64_MAX;
	if (m->ask_due && m->ask_due < due)
		due = m->ask_due;
	for (uint32_t i = 0; i < m->n_sources; i++)
		if (m->source[i].until && m->source[i].until < due)
			due = m->source[i].until;
	timer_set(&m->timer, due);
}
