// port_watch: tells the log and the probes what has changed about a port since the last look.
//
// What a port says of itself is looked at when its device calls and once a second; so what came and went in between is told by
// the counters only.
#include "port_watch.h"
#include "router_table.h"
#include "control.h"
#include "probe.h"
#include "station_talk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WELCOMES 5          // each 100 ms, as Linux announces itself five times
#define WELCOME_BUDGET 4096 // packets each 100 ms; who comes later in the table waits for the next time

static const char *status_of(const struct port_state *s, const char *key)
{
	for (unsigned i = 0; i < s->n_status; i++)
		if (!strcmp(s->status[i].key, key))
			return s->status[i].value;
	return NULL;
}

// What comes before the first colon says which kind of problem it is; steps of getting ready are no news each.
static bool same_kind(const char *a, const char *b)
{
	size_t n = strcspn(a, ":");

	return n == strcspn(b, ":") && !strncmp(a, b, n);
}

static void watch_front_end(const struct port *p, struct port_watch *was, const struct port_state *s)
{
	const char *connected = status_of(s, "connected"), *connects = status_of(s, "connects"),
		   *refused = status_of(s, "refused");
	bool is = connected && !strcmp(connected, "true");
	unsigned long n = connects ? strtoul(connects, NULL, 10) : 0, away = refused ? strtoul(refused, NULL, 10) : 0;

	if (!connected)
		return;
	if (was->connected && (!is || n != was->connects))
		log_event('i', "port", LOG_FIELDS({"port", p->name}), "port %s: the front-end has disconnected", p->name);
	if (is && (!was->connected || n != was->connects))
		log_event('i', "port", LOG_FIELDS({"port", p->name}, {"connects", connects}),
			  "port %s: a front-end has connected", p->name);
	if (away > was->refused)
		log_event('w', "port", LOG_FIELDS({"port", p->name}, {"refused", LOG_NUMBER(away - was->refused)}),
			  "port %s: another front-end wanted its socket, which is in use, and was sent away", p->name);
	was->connected = is;
	was->connects = n;
	was->refused = away;
}

static bool is_up(uint16_t id)
{
	const struct port *p = port_get(id);

	return p && p->watch.up;
}

void port_watch(struct port *p, const struct port_state *s)
{
	struct port_watch *was = &p->watch;
	bool news = !was->seen || was->up != s->link_up || !same_kind(was->problem, s->problem);
	unsigned long connects = was->connects;

	watch_front_end(p, was, s);
	if (news && s->link_up && s->problem[0])
		log_event('w', "port", LOG_FIELDS({"port", p->name}, {"state", "up"}), "port %s: up, but %s", p->name,
			  s->problem);
	else if (news && s->link_up)
		log_event('i', "port", LOG_FIELDS({"port", p->name}, {"state", "up"}), "port %s: up", p->name);
	else if (news)
		log_event(was->seen && was->up ? 'w' : 'i', "port", LOG_FIELDS({"port", p->name}, {"state", "down"}),
			  "port %s: down%s%s", p->name, s->problem[0] ? ": " : "", s->problem);
	if (news || strcmp(was->problem, s->problem))
		PROBE(port_state, p->name, (int)s->link_up, &s->problem[0]);
	if (was->seen && was->up != s->link_up)
		router_link(p->id, s->link_up);
	bool back = s->link_up && (!was->up || was->connects != connects) && p->device && p->device->ops->guest;
	was->seen = true;
	was->up = s->link_up;
	if (back) {
		station_welcome(p->id, is_up);
		was->welcomes = WELCOMES;
	}
	snprintf(was->problem, sizeof was->problem, "%s", s->problem);
}

void port_watch_tick(void)
{
	static uint16_t next = 1;

	for (unsigned looked = 0, told = 0; looked < MAX_PORTS && told < WELCOME_BUDGET; looked++) {
		struct port *p = port_get(next);

		next = next + 1 < MAX_PORTS ? next + 1 : 1;
		if (!p || !p->watch.welcomes)
			continue;
		p->watch.welcomes--;
		if (p->watch.up)
			told += station_welcome(p->id, NULL);
	}
}

void port_watch_counts(struct port *p, uint64_t undecided)
{
	struct port_watch *was = &p->watch;

	if (undecided > was->undecided)
		log_event('w', "worker", LOG_FIELDS({"port", p->name}, {"packets", LOG_NUMBER(undecided - was->undecided)}),
			  "port %s: packets were dropped because too many of unknown flows came at once; weirctl drops shows "
			  "which",
			  p->name);
	was->undecided = undecided;
}
