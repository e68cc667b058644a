// group_querier: see group_querier.h.
#include "group_querier.h"
#include "group_member.h"
#include "group_proxy.h"
#include "group_timer.h"

#include <stdlib.h>
#include <string.h>

void (*group_send)(uint16_t network, uint16_t port, const struct group_query *);

bool group_is_querier(const struct snoop *s, bool v6)
{
	return s->policy.querier && !s->asker[v6].until;
}

// The switch is always the one who asks behind a tunnel: no querier there heeds what its stations say.
bool group_may_ask(const struct snoop *s, bool v6, uint16_t port)
{
	return group_is_querier(s, v6) || (s->policy.querier && group_is_tunnel(s, port));
}

// ---- ports with multicast routers

static void arm(struct snoop *s)
{
	uint64_t due = UINT64_MAX;

	for (unsigned v6 = 0; v6 < 2; v6++) {
		const struct asker *a = &s->asker[v6];
		uint64_t at[] = {a->until, group_is_querier(s, v6) ? a->general_due : 0, a->settled ? 0 : a->settled_at};

		for (unsigned i = 0; i < 3; i++)
			due = at[i] && at[i] < due ? at[i] : due;
		for (unsigned i = 0; i < a->n_routers; i++)
			for (unsigned b = 1; b < 5; b++)
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

		for (unsigned b = 1; b < 5; b++) {
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

void querier_begin(struct snoop *s, bool v6, uint64_t now)
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

// RFC 3376 section 6.6.2: the lower address asks. One of 0.0.0.0 claims nothing (RFC 4541 section 2.1.1). Who is behind a tunnel asks there.
static bool gives_way(const struct snoop *s, uint16_t port, const struct group_message *q)
{
	const struct config_ip *own = &s->policy.own[q->v6];

	if (!s->policy.querier)
		return true;
	if (group_is_tunnel(s, port))
		return false;
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

void querier_heard_query(struct snoop *s, uint16_t port, const struct group_message *q, uint64_t now)
{
	struct asker *a = &s->asker[q->v6];
	bool gives = gives_way(s, port, q), known;
	struct snoop_port *p = group_port(s, port);

	s->count.queries++;
	if (q->version < 3) // RFC 3376 section 8.12
		*(p->is.tunnel ? &p->old_until[q->v6] : &a->old_until[q->version]) = now + a->robustness * a->interval_s * SECOND + q->response_ms * MS;
	group_proxy_asked(s, port, q, now);
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

void querier_heard_hello(struct snoop *s, uint16_t port, const struct group_message *h, uint64_t now)
{
	s->count.hellos++;
	unsigned why = h->pim ? 2 : 4;
	bool new = learn_router(s, h->v6, port, why, &h->src, h->hold_s == UINT32_MAX ? UINT64_MAX : now + h->hold_s * SECOND);
	if (!h->hold_s)
		expire_routers(&s->asker[h->v6], now);
	if (new || !h->hold_s)
		group_view_network(s);
	arm(s);
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

void querier_run(struct snoop *s, uint64_t now)
{
	bool changed = false;

	for (unsigned v6 = 0; v6 < 2; v6++) {
		struct asker *a = &s->asker[v6];

		if (a->until && a->until <= now) {
			a->until = 0;
			if (s->policy.querier) {
				querier_begin(s, v6, now);
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

void querier_set_static(struct snoop *s)
{
	static const struct config_ip none;

	for (unsigned v6 = 0; v6 < 2; v6++) {
		struct asker *a = &s->asker[v6];

		for (unsigned i = 0; i < a->n_routers; i++)
			a->router[i].why &= (uint8_t)~ROUTER_STATIC;
		for (unsigned i = 0; i < s->policy.n_routers; i++)
			if (group_port(s, s->policy.router_port[i]))
				learn_router(s, v6, s->policy.router_port[i], 0, &none, UINT64_MAX);
		for (unsigned i = 0; i < s->n_ports; i++)
			if (s->port[i].is.router)
				learn_router(s, v6, s->port[i].is.port, 0, &none, UINT64_MAX);
		expire_routers(a, 0);
	}
}
