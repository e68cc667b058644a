// answer: the packet that a station would answer a packet with, for explain: addresses and ports swapped; ARP and neighbour
// solicitations, echo requests, TCP's SYN answered as RFC 826, 4861, 792, 4443 and 9293 say.
#ifndef OFPROTO_ANSWER_H
#define OFPROTO_ANSWER_H

#include "compose.h"

// `frame`: as it arrives at the station. `mac`: the station's address, used when the frame is for a group. Returns the length
// and writes the answer, with the tags of the frame, or -EINVAL and *error (malloc'ed: one clause that completes "no answer:
// ...").
int answer(const uint8_t *frame, unsigned len, const uint8_t mac[6], uint8_t out[COMPOSE_MAX], char **error);
// The IP address that the answer comes from: whom the packet is for, or whom it asks for. False: the packet is for no IP
// address.
bool answer_from(const uint8_t *frame, unsigned len, bool *v6, uint8_t ip[16]);

#endif
