// station: which station of a network has an IP address, as far as the switch knows.
//
// Today that is what the addresses of rows of table Port say. Whoever learns more (routers, ARP and ND) adds it here, so that
// all who ask hear of it. Main thread.
#ifndef VSWITCH_STATION_H
#define VSWITCH_STATION_H

#include "config.h"

struct station {
	uint16_t network, port;
	uint8_t mac[6];
	struct config_ip ip;
};

void station_reconcile(const struct config *);
// Who has the address (network 0: in any; *several, if not NULL: more than one has), and: an address of that family that a station at the port has (mac NULL: any station). NULL: not known.
const struct station *station_find(uint16_t network, bool v6, const uint8_t *ip, bool *several);
const struct station *station_at(uint16_t network, uint16_t port, bool v6, const uint8_t *mac);

#endif
