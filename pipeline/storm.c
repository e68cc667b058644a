// storm: limits what a port may make the switch flood: broadcast, multicast, unknown unicast.
#include "meter.h"
#include "stage.h"

#include <errno.h>
#include <string.h>

#define STORM_REASONS(X)                                                                                               \
	X(storm, BROADCAST, "the ingress port's limit of broadcast packets is used up")                                \
	X(storm, MULTICAST, "the ingress port's limit of multicast packets is used up")                                \
	X(storm, UNKNOWN, "the ingress port's limit of packets to unknown destinations is used up")

STAGE_REASONS(storm, STORM_REASONS);

enum {
	LIMIT_BROADCAST,
	LIMIT_MULTICAST,
	LIMIT_UNKNOWN,
	LIMITS
};

struct limits {
	struct config_rate rate[LIMITS];
	struct meter meter[LIMITS];
};

static struct limits *limits[MAX_PORTS]; // RCU

struct record {
	uint8_t what;
	bool pass;
	uint32_t pps;
};

static int limit_of(uint16_t flags)
{
	return flags & FLOW_BUM_BROADCAST ? LIMIT_BROADCAST : flags & FLOW_BUM_MULTICAST ? LIMIT_MULTICAST : LIMIT_UNKNOWN;
}

static uint16_t storm_resolve(struct resolve *r)
{
	// The port's generation covers a change of its limits: reconcile bumps it.
	const struct limits *l = rcu_read(limits[r->in->id]);

	if (!(r->flow->flags & FLOW_BUM) || !l || !l->rate[limit_of(r->flow->flags)].pps)
		r->flow->stages &= ~(1ULL << stage_storm.index);
	return 0;
}

static void storm_run(struct worker *w, struct pkt **p, uint16_t n)
{
	for (unsigned i = 0; i < n; i++) {
		struct limits *l = rcu_read(limits[p[i]->in_port]);
		int what = limit_of(p[i]->flags);

		if (!l)
			continue;
		bool pass = w->dry ? meter_would(&l->meter[what], w->id, w->now) : meter_take(&l->meter[what], w->id, w->now);
		if (!pass) {
			const struct lport *in = lport_get(p[i]->in_port);

			pkt_drop(p[i], (uint16_t)(stage_storm.reason_base + what), in ? in->row : 0);
		}
		if (unlikely(p[i]->trace)) {
			struct record r = {.what = (uint8_t)what, .pass = pass, .pps = l->rate[what].pps};

			trace_put(p[i]->trace, stage_storm.index, &r, sizeof r);
		}
	}
}

static void storm_format(struct buf *b, const void *record, uint16_t size)
{
	static const char *const names[] = {"broadcast", "multicast", "unknown unicast"};
	const struct record *r = record;

	buf_add(b, "%s, limit %u packets/s: %s", names[r->what], r->pps, r->pass ? "passes" : "over the limit");
}

static int storm_reconcile(struct config *want)
{
	bool *seen = calloc(MAX_PORTS, sizeof *seen);

	if (!seen)
		return -ENOMEM;
	for (size_t i = 0; i < want->n_ports; i++) {
		const struct config_port *cp = &want->ports[i];
		struct config_rate rate[LIMITS] = {cp->storm_broadcast, cp->storm_multicast, cp->storm_unknown};
		struct limits *old = limits[cp->id], *new = NULL;

		if (cp->error || !cp->id || (!rate[0].pps && !rate[1].pps && !rate[2].pps))
			continue;
		seen[cp->id] = true;
		if (old && !memcmp(old->rate, rate, sizeof rate))
			continue;
		new = calloc(1, sizeof *new);
		if (!new)
			continue;
		memcpy(new->rate, rate, sizeof rate);
		for (int k = 0; k < LIMITS; k++)
			meter_set(&new->meter[k], rate[k].pps, rate[k].burst);
		rcu_publish(limits[cp->id], new);
		gen_bump(gen_slot(GEN_PORT, cp->id));
		rcu_free_later(old);
	}
	for (unsigned i = 1; i < MAX_PORTS; i++) {
		struct limits *old = limits[i];

		if (!old || seen[i])
			continue;
		rcu_publish(limits[i], NULL);
		gen_bump(gen_slot(GEN_PORT, i));
		rcu_free_later(old);
	}
	free(seen);
	return 0;
}

static void storm_fini(void)
{
	for (unsigned i = 1; i < MAX_PORTS; i++) {
		free(limits[i]);
		limits[i] = NULL;
	}
}

STAGE(storm, .resolve = storm_resolve, .run = storm_run, .format = storm_format, .reconcile = storm_reconcile, .fini = storm_fini);
