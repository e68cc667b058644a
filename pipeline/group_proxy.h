// group_proxy: a router asks upstream for what is wanted in its other networks (RFC 4605): there it is a host, of IGMP and MLD (RFC 3376 section 5).
//
// Main thread.
#ifndef PIPELINE_GROUP_PROXY_H
#define PIPELINE_GROUP_PROXY_H

#include "group_private.h"

// Memberships of the group have changed in one of the router's networks.
void group_proxy_changed(uint16_t router, const struct config_ip *group, uint64_t now);
// The router's networks, or which of them is upstream, have changed.
void group_proxy_refresh(uint16_t router, uint64_t now);
// Somebody asks upstream.
void group_proxy_asked(const struct snoop *up, const struct group_message *query, uint64_t now);
void group_proxy_tick(uint64_t now);
void group_proxy_fini(void);

// How reports leave.
extern void (*group_send_report)(uint16_t network, uint8_t version, const struct group_record *);

// For people: the next group that is asked for upstream, from *at on; false: there is none.
struct group_proxied {
	uint16_t network;
	struct config_ip group;
	bool exclude;
	uint32_t n_sources;
	const uint8_t (*source)[16];
};
bool group_proxy_next(uint32_t *at, struct group_proxied *);

#endif
