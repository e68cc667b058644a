// station_talk: see station_talk.h.
#include "station_talk.h"
#include "key.h"
#include "neighbour_private.h"
#include "neighbour_wire.h"
#include "punt.h"
#include "station_table.h"
#include "topology.h"

#include <stdlib.h>
#include <string.h>

#define TOLD 1024 // questions that a worker remembers

struct talks {
	unsigned n, next; // next: which one makes room
	struct station_talk talk[STATION_TALKS];
};

static struct talks *ports[MAX_PORTS];
static uint32_t version;
static uint64_t told[MAX_WORKERS][TOLD]; // hashes; each worker its own

static uint64_t word(const uint8_t *b)
{
	uint64_t w;

	memcpy(&w, b, 8);
	return w;
}

bool station_talk_is_new(unsigned worker, uint16_t port, const struct config_ip *mine, const struct config_ip *theirs,
			 uint32_t now_s)
{
	uint64_t h = key_mum(word(mine->b) ^ key_secret[0], word(theirs->b) ^ key_secret[1]) ^
		     key_mum(word(mine->b + 8) ^ key_secret[2], word(theirs->b + 8) ^ key_secret[3]) ^
		     ((uint64_t)(now_s / 64) << 16 | port);
	uint64_t *at = &told[worker % MAX_WORKERS][h % TOLD];

	if (*at == h)
		return false;
	*at = h;
	return true;
}

static bool ip_equal(const struct config_ip *a, const struct config_ip *b)
{
	return a->v6 == b->v6 && !memcmp(a->b, b->b, a->v6 ? 16 : 4);
}

static void note(uint16_t port, const struct station_talk *t)
{
	struct talks *p = ports[port];

	if (!p)
		p = ports[port] = calloc(1, sizeof *p);
	if (!p)
		return;
	for (unsigned i = 0; i < p->n; i++)
		if (p->talk[i].network == t->network && ip_equal(&p->talk[i].mine, &t->mine) &&
		    ip_equal(&p->talk[i].theirs, &t->theirs))
			return;
	p->talk[p->next] = *t;
	p->next = (p->next + 1) % STATION_TALKS;
	p->n += p->n < STATION_TALKS;
	version++;
}

void station_talk(uint16_t port, const struct station_talk *t)
{
	struct station_talk back = {.network = t->network, .mine = t->theirs, .theirs = t->mine};
	struct station s;

	note(port & (MAX_PORTS - 1), t);
	if (station_lookup(t->network, &t->theirs, &s))
		note(s.port & (MAX_PORTS - 1), &back);
}

const struct station_talk *station_talk_of(uint16_t port, unsigned n)
{
	const struct talks *p = ports[port & (MAX_PORTS - 1)];

	return p && n < p->n ? &p->talk[n] : NULL;
}

uint32_t station_talk_version(void)
{
	return version;
}

// Where the address is: at a station, or at a router of this switch. False: not known.
static bool locate(uint16_t network, const struct config_ip *ip, struct station *s)
{
	if (station_lookup(network, ip, s))
		return true;
	for (const struct own_port *p = neighbour_own_in(network); p; p = p->next_in_network) {
		for (unsigned i = 0; i < p->n_addresses; i++) {
			if (!ip_equal(&p->address[i].prefix.ip, ip) || p->address[i].state == OWN_DUPLICATE ||
			    p->address[i].again)
				continue;
			*s = (struct station){.network = network, .port = p->id, .ip = *ip, .router = true};
			memcpy(s->mac, p->mac, 6);
			return true;
		}
	}
	return false;
}

// Tells the station `to` where `who` is, as a frame of who's that leaves by to's port.
static void tell(const struct station *to, const struct station *who)
{
	const struct lport *lp = lport_get(to->port);
	const struct network *net = network_get(to->network);
	uint8_t frame[NEIGHBOUR_FRAME], *data;

	if (!lp || !net || lp->kind != PORT_DEVICE || !lp->enabled)
		return;
	uint16_t tag = lport_tag(lp, net),
		 len = neighbour_announce(frame, who->mac, who->mac, &who->ip, who->router, to->mac, &to->ip);
	struct rte_mbuf *m = punt_new((uint16_t)(len + (tag ? 4 : 0)), &data);
	if (!m)
		return;
	memcpy(data, frame, 12);
	if (tag) {
		data[12] = 0x81;
		data[14] = (uint8_t)(tag >> 8);
		data[15] = (uint8_t)tag;
		data += 4;
	}
	memcpy(data + 12, frame + 12, len - 12u);
	punt_emit(m, to->port);
}

unsigned station_welcome(uint16_t port, bool (*is_up)(uint16_t port))
{
	const struct station_talk *t;
	struct station mine, theirs;
	unsigned n = 0;

	for (unsigned i = 0; (t = station_talk_of(port, i)); i++) {
		// Who moved meanwhile is told at the port where he is now.
		if (!station_lookup(t->network, &t->mine, &mine) || mine.port != port ||
		    !locate(t->network, &t->theirs, &theirs))
			continue;
		tell(&mine, &theirs);
		n++;
		if (is_up && theirs.port != port && is_up(theirs.port)) {
			tell(&theirs, &mine);
			n++;
		}
	}
	return n;
}

void station_talk_clean(void)
{
	for (uint16_t i = 1; i < MAX_PORTS; i++) {
		if (!ports[i] || lport_get(i))
			continue;
		free(ports[i]);
		ports[i] = NULL;
		version++;
	}
}

void station_talk_fini(void)
{
	for (unsigned i = 0; i < MAX_PORTS; i++) {
		free(ports[i]);
		ports[i] = NULL;
	}
	memset(told, 0, sizeof told);
}
