// neighbour_wire: ARP (RFC 826) and neighbour discovery (RFC 4861) as they are on the wire.
#ifndef PIPELINE_NEIGHBOUR_WIRE_H
#define PIPELINE_NEIGHBOUR_WIRE_H

#include "config.h"
#include "pkt.h"

enum neighbour_message_kind {
	MESSAGE_NONE,    // not well-formed, or of no interest
	MESSAGE_ASK,     // ARP request, NS
	MESSAGE_ANSWER,  // ARP reply, NA
	MESSAGE_ROUTER,  // RA
	MESSAGE_SOLICIT, // RS
};

struct neighbour_message {
	enum neighbour_message_kind kind;
	bool v6;
	bool probe; // of duplicate address detection: the sender has no address yet (RFC 5227 2.1.1, RFC 4862 5.4)
	bool solicited, override, router; // flags of an NA
	bool has_mac;                     // there is an address of the link layer in it
	uint8_t eth_src[6], eth_dst[6];
	uint8_t mac[6];          // of whom it speaks: ARP: the sender; NS, RS, RA: the source's; NA: the target's
	struct config_ip sender; // ARP: the sender's; ND: the source of the packet; of a probe: none
	struct config_ip target; // ASK, ANSWER of ND; ARP: the target's
	struct config_ip to;     // of an ANSWER: whom it is for; of ARP the same as `target`; a group if for all
};

// Any thread. The packet as parse() left it, its headers contiguous. False: it is none, or breaks the rules of RFC 4861
// section 7.1 and 6.1, or of RFC 826: addresses that nobody can have.
bool neighbour_message(const struct pkt *, struct neighbour_message *);

// Bytes of frames that the functions below make at most.
#define NEIGHBOUR_FRAME 86
// Who has `target`? `to`: whom it asks, NULL: all (of the solicited-node group). `source`: our address; NULL: a probe of
// duplicate address detection. Returns the length.
uint16_t neighbour_ask(uint8_t *frame, const uint8_t mac[6], const struct config_ip *source, const struct config_ip *target,
		       const uint8_t *to);
// `ip` is at `mac`, unasked: a gratuitous ARP request (RFC 5227 2.3), an unsolicited NA (RFC 4861 7.2.6). `to`: MAC of whom it
// is told; NULL: all. ARP to one station is a reply for `to_ip`.
uint16_t neighbour_announce(uint8_t *frame, const uint8_t src[6], const uint8_t mac[6], const struct config_ip *ip, bool router,
			    const uint8_t *to, const struct config_ip *to_ip);

#endif
