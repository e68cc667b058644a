// station: what the generator does as the stations at its ports, beside sending: it says where they are, and looks closely at
// some of what comes back.
#ifndef TESTS_BENCH_STATION_H
#define TESTS_BENCH_STATION_H

#include "frames.h"

#define STATION_ASK 86 // bytes of a request or reply at most

// How many stations of the side the switch must find by ARP or neighbour discovery; 0: it needs nobody's address.
unsigned station_count(const struct mix *, unsigned side);
// Writes the request of a station for the switch's address, and returns its length.
unsigned station_request(uint8_t to[STATION_ASK], const struct mix *, unsigned side, unsigned index);
// Turns a request for the address of a station of the side into its reply, in place, and returns its length. 0: it is no such
// request.
unsigned station_answer(uint8_t *frame, uint32_t len, const struct mix *, unsigned side);
// Whether the frame is the switch's reply to a request.
bool station_replied(const uint8_t *frame, uint32_t len, const struct mix *, unsigned side);
// What is wrong with a frame of the mix that came out at the side: addresses, TTL, checksums, the tunnel's headers. NULL:
// nothing.
const char *station_check(const uint8_t *frame, uint32_t len, const struct mix *, unsigned side);

#endif
