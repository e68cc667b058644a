// station_table: which station of a network has an IP address, as far as the switch knows: from Port.addresses, and from what
// ARP and neighbour discovery packets say that come through.
//
// One table for all networks, keyed by (network, IP). Workers look up without locks; the main thread writes.
#ifndef PIPELINE_STATION_TABLE_H
#define PIPELINE_STATION_TABLE_H

#include "config.h"

#define STATION_MAX 65536     // addresses
#define STATION_PORT_MAX 8192 // learned on one port
#define STATION_AGE_S 300     // a learned one goes after this, if its MAC isn't heard of either
#define STATION_AGE_MAX_S 1800
#define STATION_NEWS_S 30 // it is told at most so often that it is still there

struct station {
	uint16_t network, port;
	uint8_t mac[6];
	bool is_static, router; // router: it says that it is one
	struct config_ip ip;
	uint32_t seen; // seconds of the workers' clock
};

int station_init(void);
void station_fini(void);

// Any thread that is an RCU reader, or the main thread. False: not known.
bool station_lookup(uint16_t network, const struct config_ip *, struct station *);
// Whether station_seen() would change something.
bool station_is_news(uint16_t network, const struct config_ip *, const uint8_t mac[6], uint16_t port, bool router,
		     uint32_t now_s);

// Main thread.
void station_seen(uint16_t network, const struct config_ip *, const uint8_t mac[6], uint16_t port, bool router, uint32_t now_s);
int station_configure(const struct config *);
void station_age(uint32_t now_s, unsigned budget);
// Goes up when an address comes or moves.
uint32_t station_version(void);
uint32_t station_high(void);
bool station_at(uint32_t index, struct station *);
// Learned ones of a network, or of all (0). Returns how many went.
unsigned station_flush(uint16_t network);
// Who has the address (network 0: in any; *several, if not NULL: more than one has), and: an address of that family that a
// station at the port has (mac NULL: any station). NULL: not known. Valid until the next call.
const struct station *station_find(uint16_t network, bool v6, const uint8_t *ip, bool *several);
const struct station *station_of(uint16_t network, uint16_t port, bool v6, const uint8_t *mac);

#endif
