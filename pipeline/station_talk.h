// station_talk: who of the stations talks with whom, as far as ARP and neighbour solicitations show it, so that a guest that
// loses its link for a moment (a restart of the switch, or of its front-end) needn't ask anew: Linux forgets its neighbours
// with the link, asks while the link is away, and asks again only a second later. What it is told unasked resolves what it
// waits for, and nothing else (RFC 4861 7.2.5).
//
// Main thread but for station_talk_is_new().
#ifndef PIPELINE_STATION_TALK_H
#define PIPELINE_STATION_TALK_H

#include "config.h"

#define STATION_TALKS 64 // of a port; the oldest one makes room

struct station_talk {
	uint16_t network;
	struct config_ip mine, theirs;
};

// Workers: whether this question wasn't told lately.
bool station_talk_is_new(unsigned worker, uint16_t port, const struct config_ip *mine, const struct config_ip *theirs,
			 uint32_t now_s);
// A station at the port wants to talk with `theirs`. Noted for both.
void station_talk(uint16_t port, const struct station_talk *);
// The n-th one of the port, NULL: there are fewer.
const struct station_talk *station_talk_of(uint16_t port, unsigned n);
// The port is back: tells its stations whom they talk with, and those whom they talk with of them. `is_up`: ports that take
// packets now.
//
// A guest gets packets before it has noticed that its link is back: what it answers then is lost to it, the question for a
// neighbour that goes before the answer included. So its stations are told again, a few times (`is_up` NULL). Returns how often
// somebody was told.
unsigned station_welcome(uint16_t port, bool (*is_up)(uint16_t port));
// Goes up when there is something new to keep.
uint32_t station_talk_version(void);
// Of ports that are gone.
void station_talk_clean(void);
void station_talk_fini(void);

#endif
