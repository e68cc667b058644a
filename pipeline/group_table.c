// group_table: see group_table.h. What a record does to a member is in group_member.c, who asks in group_querier.c.
#include "group_member.h"
#include "group_proxy.h"
#include "group_querier.h"
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

static struct group **bucket;
static struct group *dirty;            // groups whose members changed
static struct snoop *by_router[MAX_ROUTERS];

const struct group_counters *group_counters(uint16_t network)
{
	const struct snoop *s = network < MAX_NETWORKS ? group_snoop[network] : NULL;

	return s ? &s->count : NULL;
}

int group_table_init(void)
{
	bucket = calloc(BUCKETS, sizeof(struct group *));
	return bucket ? 0 : -ENOMEM;
}

struct snoop *group_first_of(uint16_t router)
{
	return router ? by_router[router & (MAX_ROUTERS - 1)] : NULL;
}

struct snoop *group_first_in(uint16_t domain, const struct config_ip *group)
{
	if (domain & GROUP_OF_ROUTER)
		return group_first_of(domain & ~GROUP_OF_ROUTER);
	struct snoop *s = group_snoop[domain];
	// Of a network that a router took up, what it had for itself is nothing any more.
	return s && group_domain(domain, s->policy.router, group) == domain ? s : NULL;
}

struct snoop_port *group_port(const struct snoop *s, uint16_t port)
{
	for (unsigned low = 0, high = s->n_ports; low < high;) {
		unsigned mid = (low + high) / 2;

		if (s->port[mid].is.port == port)
			return &s->port[mid];
		if (s->port[mid].is.port < port)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

bool group_is_tunnel(const struct snoop *s, uint16_t port)
{
	const struct snoop_port *p = s->n_tunnels ? group_port(s, port) : NULL;

	return p && p->is.tunnel;
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
		group_proxy_changed(s, &g->ip, group_now);
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

// Who speaks from a tunnel with the address of this switch's own router is another part of it.
static void note_same_router(struct snoop *s, uint16_t port, const struct group_message *m)
{
	struct snoop_port *p = group_port(s, port);

	if (!p->is.tunnel || !s->policy.router || p->same_router[m->v6] || group_ip_is_zero(&m->src) || memcmp(m->src.b, s->policy.own[m->v6].b, 16))
		return;
	p->same_router[m->v6] = true;
	group_view_network(s);
}

void group_heard(uint16_t network, uint16_t port, const struct group_message *m, uint64_t now)
{
	struct snoop *s = group_snoop[network & (MAX_NETWORKS - 1)];

	group_now = now;
	if (!s || !group_port(s, port))
		return;
	note_same_router(s, port, m);
	switch (m->kind) {
	case GROUP_REPORT:
		heard_report(s, port, m, now);
		break;
	case GROUP_QUERY:
		querier_heard_query(s, port, m, now);
		break;
	case GROUP_HELLO:
		querier_heard_hello(s, port, m, now);
		break;
	case GROUP_OTHER:
		break;
	}
	flush();
}

// ---- time

void group_tick(uint64_t now)
{
	struct timer *t;

	group_now = now;
	while ((t = timer_next()) && t->due <= now) {
		timer_clear(t);
		if (t->network) {
			querier_run((struct snoop *)t, now);
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
			if (all || !group_port(s, m->port))
				group_member_gone(m);
		}
	}
	for (unsigned v6 = 0; v6 < 2; v6++) {
		struct asker *a = &s->asker[v6];

		for (unsigned i = 0; i < a->n_routers;) {
			if (!all && group_port(s, a->router[i].port)) {
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
	group_proxy_refresh(group_now);
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

static bool set_ports(struct snoop *s, const struct group_port *port, unsigned n, bool *more)
{
	struct snoop_port *fresh = calloc(n + 1, sizeof *fresh);

	*more = false;
	if (!fresh)
		return false;
	s->n_tunnels = 0;
	for (unsigned i = 0; i < n; i++) {
		const struct snoop_port *old = group_port(s, port[i].port);

		*more |= !old;
		if (old)
			fresh[i] = *old;
		fresh[i].is = port[i];
		s->n_tunnels += port[i].tunnel;
		if (!old && port[i].tunnel)
			group_proxy_tell(s->network, port[i].port, group_now);
	}
	free(s->port);
	s->port = fresh;
	s->n_ports = n;
	return true;
}

// Who has the same router shows anew.
static void forget_same_router(struct snoop *s)
{
	for (unsigned i = 0; i < s->n_ports; i++)
		memset(s->port[i].same_router, 0, sizeof s->port[i].same_router);
}

int group_configure(uint16_t network, const struct group_policy *p, const struct group_port *port, unsigned n_ports, uint64_t now)
{
	struct snoop *s = group_snoop[network];
	bool new = !s, more = false, spoke = s && s->n_tunnels;

	group_now = now;
	if (!p) {
		if (s)
			snoop_free(s);
		return 0;
	}
	if (!s)
		s = calloc(1, sizeof *s);
	if (s)
		s->network = network;
	if (!s || !set_ports(s, port, n_ports, &more)) {
		if (new)
			free(s);
		return -ENOMEM;
	}
	struct group_policy old = s->policy;
	unlink_router(s);
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
				querier_begin(s, v6, now);
			a->robustness = p->robustness;
			a->interval_s = p->interval_s;
			if (more || memcmp(&old.own[v6], &p->own[v6], sizeof p->own[v6]))
				a->general_due = now; // who is new is asked
		}
	}
	if (old.router != p->router || memcmp(old.own, p->own, sizeof p->own))
		forget_same_router(s);
	querier_set_static(s);
	forget_ports(s, false);
	flush();
	group_view_network(s);
	if (old.router != p->router)
		router_changed(old.router);
	if (old.router && !p->router)
		group_view_network(s);
	if (old.router != p->router || old.upstream != p->upstream || memcmp(old.mac, p->mac, 6))
		router_changed(p->router);
	if (old.router != p->router || spoke != (s->n_tunnels > 0))
		group_proxy_refresh(now);
	querier_run(s, now);
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
