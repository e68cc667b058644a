// group_proxy: the switch says to others what is wanted here (RFC 4605): there it is a host, of IGMP and MLD (RFC 3376 section
// 5).
//
// A router asks upstream for what is wanted in its other networks. And into tunnels the switch says what is wanted at its own
// ports, in place of the stations: those who hear it needn't know them, and who leaves last is known at once. Networks of one
// router say the same in all their tunnels, as each switch routes for its own ports.
//
// Main thread.
#ifndef PIPELINE_GROUP_PROXY_H
#define PIPELINE_GROUP_PROXY_H

#include "group_private.h"

// Memberships of the group have changed in the network.
void group_proxy_changed(const struct snoop *, const struct config_ip *group, uint64_t now);
// Networks of routers, which of them is upstream, or who has tunnels, have changed.
void group_proxy_refresh(uint64_t now);
// Somebody asks, at that port.
void group_proxy_asked(const struct snoop *, uint16_t port, const struct group_message *query, uint64_t now);
// There is a new tunnel: it is told all.
void group_proxy_tell(uint16_t network, uint16_t port, uint64_t now);
void group_proxy_tick(uint64_t now);
void group_proxy_fini(void);

// How reports leave: by that port, 0: by all.
extern void (*group_send_report)(uint16_t network, uint16_t port, uint8_t version, const struct group_record *);

// For people: the next group that is asked for, from *at on; false: there is none.
struct group_proxied {
	uint16_t network; // of several the first
	bool tunnels;     // by tunnels; else upstream
	struct config_ip group;
	bool exclude;
	uint32_t n_sources;
	const uint8_t (*source)[16];
};
bool group_proxy_next(uint32_t *at, struct group_proxied *);

#endif
