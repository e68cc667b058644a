// group_table: see group_table.h. What a record does to a member is in group_member.c.
#include "group_member.h"
#include "group_proxy.h"
#include "group_timer.h"
#include "group_view.h"
#include "key.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 16384

struct snoop *group_snoop[MAX_NETWORKS];
struct group **group_slot;
uint32_t group_slots;
uint64_t group_now;
void (*group_send)(uint16_t network, uint16_t port, const struct group_query *);

static struct group **bucket;
static struct group *dirty;            // groups whose members changed
static struct snoop *by_router[MAX_ROUTERS];

int group_table_init(void)
{
	bucket = calloc(BUCKETS, sizeof(struct group *));
	return bucket ? 0 : -ENOMEM;
}

struct snoop *group_first_of(uint16_t router)
{
	return router ? by_router[router & (MAX_ROUTERS - 1)] : NULL;
}

bool group_is_querier(const struct snoop *s, bool v6)
{
	return s->policy.querier && !s->asker[v6].until;
}

// ---- groups

static struct group **bucket_of(uint16_t network, const struct config_ip *ip)
{
	uint64_t a, b;

	memcpy(&a, ip->b, 8);
	memcpy(&b, ip->b + 8, 8);
	return &bucket[key_mum(a ^ key_secret[0] ^ network, b ^ key_secret[1]) % BUCKETS];
}

struct group *group_find(uint16_t network, const struct config_ip *ip)
{
	struct group *g = *bucket_of(network, ip);

	while (g && (g->network != network || g->ip.v6 != ip->v6 || memcmp(g->ip.b, ip->b, 16)))
		g = g->next;
	return g;
}

void group_mark(struct group *g)
{
	if (g->dirty)
		return;
	g->dirty = true;
	g->dirty_next = dirty;
	dirty = g;
}

static bool take_slot(struct group *g)
{
	uint32_t i = 0;
	static uint32_t from; // where a place was free last

	for (; i < group_slots && group_slot[(from + i) % group_slots]; i++)
		;
	if (i == group_slots) {
		uint32_t more = group_slots ? 2 * group_slots : 1024;
		struct group **grown = realloc(group_slot, more * sizeof *grown);

		if (!grown)
			return false;
		memset(grown + group_slots, 0, (more - group_slots) * sizeof *grown);
		group_slot = grown;
		from = group_slots;
		group_slots = more;
	} else {
		from = (from + i) % group_slots;
	}
	g->slot = from;
	group_slot[from] = g;
	return true;
}

static struct group *group_add(struct snoop *s, const struct config_ip *ip)
{
	struct group *g = calloc(1, sizeof *g), **at = bucket_of(s->network, ip);

	if (!g || !take_slot(g)) {
		free(g);
		return NULL;
	}
	g->network = s->network;
	g->ip = *ip;
	g->next = *at;
	*at = g;
	s->n_groups++;
	return g;
}

static void group_free(struct snoop *s, struct group *g)
{
	struct group **at = bucket_of(g->network, &g->ip);

	while (*at != g)
		at = &(*at)->next;
	*at = g->next;
	group_slot[g->slot] = NULL;
	s->n_groups--;
	free(g);
}

// Publishes what changed.
static void flush(void)
{
	while (dirty) {
		struct group *g = dirty;
		struct snoop *s = group_snoop[g->network];

		dirty = g->dirty_next;
		g->dirty = false;
		group_view_group(s, &g->ip);
		group_proxy_changed(s->policy.router, &g->ip, group_now);
		if (!g->members)
			group_free(s, g);
	}
}

static struct port_use *use_of(struct snoop *s, uint16_t port)
{
	struct port_use **chunk = &s->use[port / 64];

	if (!*chunk)
		*chunk = calloc(64, sizeof **chunk);
	return *chunk ? &(*chunk)[port % 64] : NULL;
}

void group_member_gone(struct member *m)
{
	struct group *g = m->group;
	struct member **at = &g->members;
	struct port_use *use = use_of(group_snoop[g->network], m->port);

	while (*at != m)
		at = &(*at)->next;
	*at = m->next;
	if (use)
		use->groups--;
	timer_clear(&m->timer);
	group_mark(g);
	free(m->source);
	free(m);
}

// The port's place in the group, made if there is none and limits allow.
static struct member *member_of(struct snoop *s, uint16_t port, const struct config_ip *ip, bool make)
{
	struct group *g = group_find(s->network, ip);
	struct member **at = g ? &g->members : NULL;

	while (at && *at && (*at)->port < port)
		at = &(*at)->next;
	if (at && *at && (*at)->port == port)
		return *at;
	struct port_use *use = make ? use_of(s, port) : NULL;
	if (!use)
		return NULL;
	if (use->groups >= s->policy.max_port_groups) {
		use->refused++;
		s->count.refused_port++;
		return NULL;
	}
	if (!g && s->n_groups >= s->policy.max_groups) {
		use->refused++;
		s->count.refused_groups++;
		return NULL;
	}
	struct member *m = calloc(1, sizeof *m);
	if (!g && m) {
		g = group_add(s, ip);
		at = g ? &g->members : NULL;
	}
	if (!g || !m) {
		free(m);
		return NULL;
	}
	m->group = g;
	m->port = port;
	m->next = *at;
	*at = m;
	use->groups++;
	group_mark(g);
	return m;
}

// ---- what is heard

// Groups that go to everybody whatever is said of them (RFC 4541 sections 2.1.2 and 3).
static bool is_for_all(const struct config_ip *ip)
{
	static const uint8_t all_nodes[16] = {0xff, 2, [15] = 1};

	return ip->v6 ? (ip->b[1] & 15) < 2 || !memcmp(ip->b, all_nodes, 16) : group_ip_is_link(ip);
}

static bool may_begin(const struct group_record *r)
{
	return r->type == GROUP_IS_EX || r->type == GROUP_TO_EX || (r->type != GROUP_BLOCK && r->n_sources);
}

static void heard_report(struct snoop *s, uint16_t port, const struct group_message *message, uint64_t now)
{
	struct group_message msg = *message;
	struct group_record r;
	bool leave = msg.version < 3 && msg.first.type == GROUP_TO_IN;

	*(leave ? &s->count.leaves : &s->count.reports) += 1;
	while (group_next_record(&msg, &r)) {
		if (!group_ip_is_group(&r.group) || is_for_all(&r.group) || r.type < GROUP_IS_IN || r.type > GROUP_BLOCK)
			continue;
		struct member *m = member_of(s, port, &r.group, may_begin(&r));
		if (!m)
			continue;
		if (msg.version < 3 && !leave)
			m->old_until[msg.version] = now + group_membership_ns(s, msg.v6);
		member_record(s, m, &r, now);
		member_run(s, m, now);
	}
}

static void arm(struct snoop *s)
{
	uint64_t due = UINT64_MAX;

	for (unsigned v6 = 0; v6 < 2; v6++) {
		const struct asker *a = &s->asker[v6];
		uint64_t at[] = {a->until, group_is_querier(s, v6) ? a->general_due : 0, a->settled ? 0 : a->settled_at};

		for (unsigned i = 0; i < 3; i++)
			due = at[i] && at[i] < due ? at[i] : due;
		for (unsigned i = 0; i < a->n_routers; i++)
			for (unsigned b = 1; b < 4; b++)
				if (a->router[i].why & 1u << b && a->router[i].until[b] < due)
					due = a->router[i].until[b];
	}
	timer_set(&s->timer, due);
}

static struct router_port *router_at(struct asker *a, uint16_t port, bool make)
{
	for (unsigned i = 0; i < a->n_routers; i++)
		if (a->router[i].port == port)
			return &a->router[i];
	if (!make)
		return NULL;
	if (a->n_routers == a->room) {
		struct router_port *grown = realloc(a->router, (a->room + 8) * sizeof *grown);

		if (!grown)
			return NULL;
		a->router = grown;
		a->room += 8;
	}
	a->router[a->n_routers] = (struct router_port){.port = port};
	return &a->router[a->n_routers++];
}

// `why`: the number of a bit of ROUTER_*. True: it wasn't known.
static bool learn_router(struct snoop *s, bool v6, uint16_t port, unsigned why, const struct config_ip *ip, uint64_t until)
{
	struct router_port *r = router_at(&s->asker[v6], port, true);

	if (!r)
		return false;
	bool new = !(r->why & 1u << why);
	r->why |= (uint8_t)(1u << why);
	r->until[why] = until;
	r->ip = *ip;
	return new;
}

// True: a port is no router's any more.
static bool expire_routers(struct asker *a, uint64_t now)
{
	bool changed = false;

	for (unsigned i = 0; i < a->n_routers;) {
		struct router_port *r = &a->router[i];

		for (unsigned b = 1; b < 4; b++) {
			if (!(r->why & 1u << b) || r->until[b] > now)
				continue;
			r->why &= (uint8_t)~(1u << b);
			changed = true;
		}
		if (r->why)
			i++;
		else
			*r = a->router[--a->n_routers];
	}
	return changed;
}

static void become_querier(struct snoop *s, bool v6, uint64_t now)
{
	struct asker *a = &s->asker[v6];

	a->until = 0;
	a->robustness = s->policy.robustness;
	a->interval_s = s->policy.interval_s;
	a->general_due = now;
	a->startup_left = a->robustness;
	if (!a->settled)
		a->settled_at = now + s->policy.response_ms * MS + SECOND;
}

// RFC 3376 section 6.6.2: the lower address asks. One of 0.0.0.0 claims nothing (RFC 4541 section 2.1.1).
static bool gives_way(const struct snoop *s, const struct group_message *q)
{
	const struct config_ip *own = &s->policy.own[q->v6];

	if (!s->policy.querier)
		return true;
	return !group_ip_is_zero(&q->src) && (group_ip_is_zero(own) || memcmp(q->src.b, own->b, group_address_len(q->v6)) < 0);
}

// What another querier asks lowers timers as if it had been asked here (RFC 3376 section 6.6.1).
static void follow_query(struct snoop *s, const struct group_message *q, uint64_t now)
{
	struct group *g = group_find(s->network, &q->group);
	uint64_t left = q->response_ms * MS * s->asker[q->v6].robustness;
	uint32_t alen = group_address_len(q->v6);

	for (struct member *m = g ? g->members : NULL, *next; m; m = next) {
		next = m->next;
		if (!q->n_sources && m->exclude && m->until > now + left)
			m->until = now + left;
		for (unsigned i = 0; i < q->n_sources; i++)
			member_lower_source(m, q->source + i * alen, now + left);
		member_run(s, m, now);
	}
}

static void heard_query(struct snoop *s, uint16_t port, const struct group_message *q, uint64_t now)
{
	struct asker *a = &s->asker[q->v6];
	bool gives = gives_way(s, q), known;

	s->count.queries++;
	if (q->version < 3) // RFC 3376 section 8.12
		a->old_until[q->version] = now + a->robustness * a->interval_s * SECOND + q->response_ms * MS;
	if (s->policy.upstream)
		group_proxy_asked(s, q, now);
	if (gives) {
		if (q->version == 3 && q->robustness)
			a->robustness = q->robustness;
		if (q->version == 3 && q->interval_s)
			a->interval_s = q->interval_s;
		// RFC 3376 section 8.5
		a->until = now + a->robustness * a->interval_s * SECOND + s->policy.response_ms * MS / 2;
		a->ip = q->src;
		a->port = port;
		if (!a->settled && !a->settled_at && group_ip_is_zero(&q->group))
			a->settled_at = now + q->response_ms * MS + SECOND;
	}
	uint64_t until = now + a->robustness * a->interval_s * SECOND + s->policy.response_ms * MS / 2;
	// One with the switch's own address is another switch with the same router.
	bool proxy = group_ip_is_zero(&q->src) || !memcmp(q->src.b, s->policy.own[q->v6].b, 16);
	known = learn_router(s, q->v6, port, proxy ? 3 : 1, &q->src, until);
	if (known)
		group_view_network(s);
	if (gives && !group_ip_is_zero(&q->group) && !q->suppress)
		follow_query(s, q, now);
	arm(s);
}

static void heard_hello(struct snoop *s, uint16_t port, const struct group_message *h, uint64_t now)
{
	s->count.hellos++;
	bool new = learn_router(s, h->v6, port, 2, &h->src, h->hold_s == UINT32_MAX ? UINT64_MAX : now + h->hold_s * SECOND);
	if (!h->hold_s) // it says goodbye
		expire_routers(&s->asker[h->v6], now);
	if (new || !h->hold_s)
		group_view_network(s);
	arm(s);
}

void group_heard(uint16_t network, uint16_t port, const struct group_message *m, uint64_t now)
{
	struct snoop *s = group_snoop[network & (MAX_NETWORKS - 1)];

	group_now = now;
	if (!s || !group_has_port(s, port))
		return;
	switch (m->kind) {
	case GROUP_REPORT:
		heard_report(s, port, m, now);
		break;
	case GROUP_QUERY:
		heard_query(s, port, m, now);
		break;
	case GROUP_HELLO:
		heard_hello(s, port, m, now);
		break;
	case GROUP_OTHER:
		break;
	}
	flush();
}

// ---- time

static void ask_all(struct snoop *s, bool v6, uint64_t now)
{
	struct asker *a = &s->asker[v6];
	struct group_query q = {
		.group = {.v6 = v6},
		.src = s->policy.own[v6],
		.version = s->policy.version[v6],
		.robustness = a->robustness,
		.interval_s = a->interval_s,
		.response_ms = s->policy.response_ms,
	};

	memcpy(q.mac, s->policy.mac, 6);
	s->count.sent_queries++;
	if (group_send)
		group_send(s->network, 0, &q);
	a->startup_left -= a->startup_left > 0;
	a->general_due = now + a->interval_s * SECOND / (a->startup_left ? 4 : 1); // RFC 3376 section 8.6
}

static void snoop_run(struct snoop *s, uint64_t now)
{
	bool changed = false;

	for (unsigned v6 = 0; v6 < 2; v6++) {
		struct asker *a = &s->asker[v6];

		if (a->until && a->until <= now) {
			a->until = 0;
			if (s->policy.querier) {
				become_querier(s, v6, now);
			} else { // nobody asks any more, so memberships would end by themselves
				changed |= a->settled;
				a->settled = false;
				a->settled_at = 0;
			}
		}
		if (group_is_querier(s, v6) && a->general_due <= now)
			ask_all(s, v6, now);
		if (!a->settled && a->settled_at && a->settled_at <= now)
			changed = a->settled = true;
		changed |= expire_routers(a, now);
	}
	if (changed)
		group_view_network(s);
	arm(s);
}

void group_tick(uint64_t now)
{
	struct timer *t;

	group_now = now;
	while ((t = timer_next()) && t->due <= now) {
		timer_clear(t);
		if (t->network) {
			snoop_run((struct snoop *)t, now);
		} else {
			struct member *m = (struct member *)t;

			member_run(group_snoop[m->group->network], m, now);
		}
	}
	flush();
	group_proxy_tick(now);
}

// ---- what is wanted

static void forget_ports(struct snoop *s, bool all)
{
	bool changed = false;

	for (uint32_t i = 0; i < group_slots; i++) {
		struct group *g = group_slot[i];

		if (!g || g->network != s->network)
			continue;
		for (struct member *m = g->members, *next; m; m = next) {
			next = m->next;
			if (all || !group_has_port(s, m->port))
				group_member_gone(m);
		}
	}
	for (unsigned v6 = 0; v6 < 2; v6++) {
		struct asker *a = &s->asker[v6];

		for (unsigned i = 0; i < a->n_routers;) {
			if (!all && group_has_port(s, a->router[i].port)) {
				i++;
				continue;
			}
			a->router[i] = a->router[--a->n_routers];
			changed = true;
		}
	}
	if (changed && !all)
		group_view_network(s);
}

static void unlink_router(struct snoop *s)
{
	if (!s->policy.router)
		return;
	struct snoop **at = &by_router[s->policy.router & (MAX_ROUTERS - 1)];
	while (*at != s)
		at = &(*at)->router_next;
	*at = s->router_next;
}

static void link_router(struct snoop *s)
{
	if (!s->policy.router)
		return;
	struct snoop **at = &by_router[s->policy.router & (MAX_ROUTERS - 1)];
	s->router_next = *at;
	*at = s;
}

// Which networks the router has, or which of them is upstream.
static void router_changed(uint16_t router)
{
	if (!router)
		return;
	group_view_domain(GROUP_OF_ROUTER | router);
	for (struct snoop *s = group_first_of(router); s; s = s->router_next) {
		group_view_network(s);
		group_view_domain(s->network);
	}
	group_proxy_refresh(router, group_now);
}

static void snoop_free(struct snoop *s)
{
	uint16_t router = s->policy.router;

	forget_ports(s, true);
	flush();
	unlink_router(s);
	s->policy.router = 0;
	group_view_remove(s->network);
	timer_clear(&s->timer);
	group_snoop[s->network] = NULL;
	router_changed(router);
	for (unsigned i = 0; i < MAX_PORTS / 64; i++)
		free(s->use[i]);
	free(s->asker[0].router);
	free(s->asker[1].router);
	free(s->port);
	free(s);
}

static bool set_ports(struct snoop *s, const uint16_t *port, unsigned n, bool *more)
{
	uint16_t *copy = malloc((n + 1) * sizeof *copy);

	*more = false;
	if (!copy)
		return false;
	memcpy(copy, port, n * sizeof *copy);
	for (unsigned i = 0; i < n && !*more; i++)
		*more = !group_has_port(s, port[i]);
	free(s->port);
	s->port = copy;
	s->n_ports = n;
	return true;
}

static void set_static(struct snoop *s)
{
	static const struct config_ip none;

	for (unsigned v6 = 0; v6 < 2; v6++) {
		struct asker *a = &s->asker[v6];

		for (unsigned i = 0; i < a->n_routers; i++)
			a->router[i].why &= (uint8_t)~ROUTER_STATIC;
		for (unsigned i = 0; i < s->policy.n_routers; i++)
			if (group_has_port(s, s->policy.router_port[i]))
				learn_router(s, v6, s->policy.router_port[i], 0, &none, UINT64_MAX);
		expire_routers(a, 0);
	}
}

int group_configure(uint16_t network, const struct group_policy *p, const uint16_t *port, unsigned n_ports, uint64_t now)
{
	struct snoop *s = group_snoop[network];
	bool new = !s, more = false;

	group_now = now;
	if (!p) {
		if (s)
			snoop_free(s);
		return 0;
	}
	if (!s)
		s = calloc(1, sizeof *s);
	if (!s || !set_ports(s, port, n_ports, &more)) {
		if (new)
			free(s);
		return -ENOMEM;
	}
	struct group_policy old = s->policy;
	unlink_router(s);
	s->network = network;
	s->timer.network = true;
	s->policy = *p;
	group_snoop[network] = s;
	link_router(s);
	for (unsigned v6 = 0; v6 < 2; v6++) {
		struct asker *a = &s->asker[v6];

		if (new || (p->querier && !old.querier)) {
			a->robustness = p->robustness;
			a->interval_s = p->interval_s;
		}
		if (!p->querier && !a->until)
			a->settled = false, a->settled_at = 0;
		if (group_is_querier(s, v6)) {
			if (new || !old.querier)
				become_querier(s, v6, now);
			a->robustness = p->robustness;
			a->interval_s = p->interval_s;
			if (more || memcmp(&old.own[v6], &p->own[v6], sizeof p->own[v6]))
				a->general_due = now; // who is new is asked
		}
	}
	set_static(s);
	forget_ports(s, false);
	flush();
	group_view_network(s);
	if (old.router != p->router)
		router_changed(old.router);
	if (old.router && !p->router)
		group_view_network(s);
	if (old.router != p->router || old.upstream != p->upstream || memcmp(old.mac, p->mac, 6))
		router_changed(p->router);
	snoop_run(s, now);
	return 0;
}

void group_table_fini(void)
{
	for (unsigned i = 0; i < MAX_NETWORKS; i++)
		if (group_snoop[i])
			snoop_free(group_snoop[i]);
	group_proxy_fini();
	group_view_fini();
	timer_fini();
	free(bucket);
	free(group_slot);
	bucket = NULL;
	group_slot = NULL;
	group_slots = 0;
	memset(by_router, 0, sizeof by_router);
}
