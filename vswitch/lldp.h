// lldp: the link layer discovery protocol (IEEE 802.1AB-2016): what is said on a link, and who is heard there.
//
// It knows no devices and no clock: frames and `now` (nanoseconds) are arguments. One thread.
#ifndef VSWITCH_LLDP_H
#define VSWITCH_LLDP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LLDP_FRAME_MAX 1514
#define LLDP_NEIGHBOURS 8  // of a port; who comes when all places are taken is counted and not kept
#define LLDP_TTL 120       // seconds that what we say holds (9.2.5.22: 4 times 30, and one)
#define LLDP_INTERVAL 30
#define LLDP_FAST 4        // times in a row, a second apart, that a new neighbour is told

// What we say (8.5).
struct lldp_local {
	uint8_t chassis[6]; // an Ethernet address
	uint8_t mac[6];     // that the frame comes from
	const char *port, *description, *system_name, *system_description;
	uint16_t capabilities; // LLDP_*; all of them are enabled
	bool has_address, v6;  // management address
	uint8_t address[16];
	uint16_t ttl;          // 0: nothing of it holds any more
};

#define LLDP_BRIDGE 0x04
#define LLDP_ROUTER 0x10

// Who is heard. Texts are printable, whatever came.
struct lldp_neighbour {
	bool used;
	uint64_t until;   // when it goes if nothing more is heard
	uint8_t id[512];  // both ids as they came, by which it is known again
	uint16_t id_len;
	char chassis[128], port[128], description[256], system_name[256], system_description[256], address[64];
	uint16_t capabilities, enabled;
	uint16_t vlan;    // port VLAN id (IEEE 802.1Q annex D), 0: not said
	uint16_t mtu;     // largest frame (IEEE 802.3), 0: not said
};

#define LLDP_COUNTS(X)                                                                                                 \
	X(rx, "frames received")                                                                                       \
	X(tx, "frames sent")                                                                                           \
	X(bad, "frames that make no sense")                                                                            \
	X(unknown, "TLVs that were left out")                                                                          \
	X(too_many, "frames of neighbours that there was no room for")                                                 \
	X(aged, "neighbours that were not heard of in time")

// One port.
struct lldp {
	struct lldp_neighbour neighbour[LLDP_NEIGHBOURS];
	uint64_t next;    // when it speaks again; 0: at once
	unsigned fast;    // times that it still speaks after a second
#define X(name, text) uint64_t name;
	LLDP_COUNTS(X)
#undef X
};

// Returns the length of the frame.
size_t lldp_encode(const struct lldp_local *, uint8_t frame[LLDP_FRAME_MAX]);
// Whether it is time to speak; the next time is set then.
bool lldp_due(struct lldp *, uint64_t now);
// 0, or -EINVAL: the frame makes no sense and changes nothing. *news: somebody came, went or says something else.
int lldp_receive(struct lldp *, const uint8_t *frame, size_t len, uint64_t now, bool *news);
// Neighbours that are over. Returns whether there were any.
bool lldp_age(struct lldp *, uint64_t now);
// "bridge, router"; returns `text`.
const char *lldp_capabilities(uint16_t, char text[128]);

#endif
