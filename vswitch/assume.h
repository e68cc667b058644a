// assume: what the description of a packet leaves out, as its author will have meant it: who sends on the port, who has the
// destination's address. What was assumed is said.
//
// Main thread.
#ifndef VSWITCH_ASSUME_H
#define VSWITCH_ASSUME_H

#include "compose.h"
#include "port.h"

#define ASSUME_MAX 8
#define ASSUME_LEN 160

struct assumed {
	const struct port *port; // by which the packet comes in
	uint16_t network;        // that it is in, 0: none
	bool guessed_src, guessed_dst; // the Ethernet address is nobody's that is known
	unsigned n;
	char said[ASSUME_MAX][ASSUME_LEN]; // "dl_dst=52:54:00:00:00:02: learned on port vm2"
};

void assume_say(struct assumed *, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
// For compose_defaults.fill, with a struct assumed.
void assume_fill(void *assumed, struct field_set *, unsigned is);
// The address of a station at the port: static, else learned, else one made up. Returns which.
enum assume_station {
	STATION_STATIC,
	STATION_LEARNED,
	STATION_MADE_UP,
};
enum assume_station assume_station(uint16_t network, uint16_t port, uint8_t mac[6]);

#endif
