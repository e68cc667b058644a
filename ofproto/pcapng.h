// pcapng: blocks of a pcapng file (draft-ietf-opsawg-pcapng), put into a buffer. One section; times in nanoseconds since 1970; the byte order of the machine.
//
// DPDK's rte_pcapng is for packets of ethdevs: its interfaces are ethdevs, which a vhost-user port or a TAP of ours is not, and in 22.11 a packet has
// no comment.
#ifndef OFPROTO_PCAPNG_H
#define OFPROTO_PCAPNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Zero-initialise; free(p.data) at the end. One thread. A block that there is no memory for is left out whole, and `failed` says so.
struct pcapng {
	uint8_t *data;
	size_t len, room;
	bool failed;
};

struct pcapng_packet {
	uint32_t interface; // index: the n-th pcapng_interface()
	uint32_t len;       // on the wire
	uint32_t caplen;    // bytes that were kept, of `data`
	uint64_t ns;
	bool outbound;      // else inbound
	uint64_t lost;      // packets of the interface that were lost before this one
	const void *data;
	const char *comment; // NULL: none
};

// Section header block: must come first.
void pcapng_section(struct pcapng *, const char *os, const char *application);
// Interface description block.
void pcapng_interface(struct pcapng *, const char *name, const char *filter, uint32_t snaplen); // filter NULL: none
// Enhanced packet block.
void pcapng_packet(struct pcapng *, const struct pcapng_packet *);
// Interface statistics block: packets that matched, and those of them that were lost.
void pcapng_statistics(struct pcapng *, uint32_t interface, uint64_t start_ns, uint64_t end_ns, uint64_t matched, uint64_t lost);

#endif
