// ipfix: flow records as IPFIX messages (RFC 7011), with the information elements of IANA's registry (RFC 7012). Bytes only: who sends them
// is the caller's business.
//
// An encoder of our own, not libfixbuf's (LGPL): the records here are a closed set of fields, for which that library is some three thousand lines
// of generality and GLib in the daemon; its exporter opens and writes sockets by itself and blocks on them, which the main thread mustn't; and
// its templates are fixed at the start, while here each combination of fields gets one when it first comes.
//
// One struct is one observation domain's stream. Main thread.
#ifndef OFPROTO_IPFIX_H
#define OFPROTO_IPFIX_H

#include "flow_record.h"

#define IPFIX_MESSAGE 1400   // bytes at most, so that no datagram is cut (RFC 7011 section 10.3.3)
#define IPFIX_TEMPLATES 64   // combinations of fields at most; what would need more is refused
#define IPFIX_ENTERPRISE 32473 // whose elements the switch's own ones are by default: the number for examples (RFC 5612)

// The switch's own elements; all strings.
#define IPFIX_OWN_ELEMENTS(X)                                                                                          \
	X(1, REASON, "weirDropReason")   /* why packets are dropped: "rule.DROP", see weir-reasons(7) */               \
	X(2, ROW, "weirDropRow")         /* the database row that did it: "Flow:NAME"; empty: none did */              \
	X(3, NETWORK, "weirNetworkName") /* the network that the packets belong to */

struct ipfix {
	uint32_t domain;
	uint32_t enterprise;
	// Called with each finished message, its sequence number set as if nobody had ever missed one; the buffer is used again.
	void (*send)(void *arg, uint8_t *message, size_t len, unsigned records);
	void *arg;
	uint32_t export_s;   // time of the messages, seconds since 1970; moved by the caller
	uint32_t sequence;   // data records in the messages sent so far
	unsigned n_templates;
	uint32_t fields[IPFIX_TEMPLATES]; // RECORD_* of each template
	uint64_t told;       // templates that collectors have heard of since the last ipfix_tell()
	uint32_t told_options;
	size_t len, set;     // of the message that is being made: its length, where its last set begins; 0: there is none
	uint16_t set_id;
	unsigned records;
	uint8_t message[IPFIX_MESSAGE];
};

void ipfix_init(struct ipfix *, uint32_t domain, uint32_t enterprise, void (*send)(void *, uint8_t *, size_t, unsigned), void *arg);
// False: there is no template for it, and no room for one more.
bool ipfix_record(struct ipfix *, const struct flow_record *);
// Options: what ids and numbers in records mean. `description` of an interface: its network; NULL: none.
void ipfix_interface(struct ipfix *, uint32_t id, const char *name, const char *description);
void ipfix_sampling(struct ipfix *, uint32_t one_of);
void ipfix_not_sent(struct ipfix *, uint64_t flows, uint64_t packets, uint64_t bytes);
void ipfix_own_elements(struct ipfix *); // RFC 5610
// The templates are sent once more, each before its next use: on UDP nobody knows whether they arrived (RFC 7011 section 8.4).
void ipfix_tell(struct ipfix *);
// Sends what has been put together.
void ipfix_flush(struct ipfix *);
// Sets the sequence number of a finished message, for a collector that has missed the first `missed` records.
void ipfix_renumber(uint8_t *message, uint32_t missed);

#endif
