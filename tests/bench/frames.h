// frames: the packets of the bench: what a generator sends in each direction, flow by flow.
//
// A mix has `flows` flows, half of them each way: conversation i goes from an address of side 0 to one of side 1 and back. With
// `macs` addresses a side, few of them make many 5-tuples between the same two stations; as many as the root of the
// conversations make every one of them a pair of its own. The payload begins with a mark, by which the generator knows its
// packets when they come back.
#ifndef TESTS_BENCH_FRAMES_H
#define TESTS_BENCH_FRAMES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <rte_byteorder.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_tcp.h>
#include <rte_udp.h>

#define FRAME_MARK 0x57454952u // payload, network order
#define FRAME_MIN 60           // Ethernet, IPv4, UDP and the mark; without the checksum of the wire
#define FRAME_MAX 1514
#define FRAME_HEADERS 42 // of UDP
#define FRAME_TSO_HEADERS 54
#define FRAME_TSO_MAX 65226 // what Linux sends at once with an MTU of 1,500

enum mix_random {
	MIX_FIXED, // the flows again and again
	MIX_PAIRS, // each packet is from and to any of the addresses
	MIX_SOURCE // each packet is from an address that nobody has seen
};

struct mix {
	uint32_t flows;
	uint32_t macs;
	uint32_t bytes;
	uint32_t tso; // not 0: TCP, to be cut into segments of that many bytes by whoever can't take it whole
	enum mix_random random;
};

struct frame_mark {
	rte_be32_t magic;
	rte_be32_t conversation;
	uint8_t side; // that it was sent from
	uint8_t spare[7];
} __attribute__((packed)); // behind the UDP header there is no alignment

static inline unsigned mix_headers(const struct mix *m)
{
	return m->tso ? FRAME_TSO_HEADERS : FRAME_HEADERS;
}

static inline uint32_t mix_conversations(const struct mix *m)
{
	return m->flows > 1 ? m->flows / 2 : 1;
}

// The smallest number of addresses a side that makes every conversation a pair of its own.
static inline uint32_t mix_root(uint32_t conversations)
{
	uint32_t n = 1;

	while ((uint64_t)n * n < conversations)
		n++;
	return n;
}

// A step through the conversations that visits each once, in an order that is not the one in which the switch saw them first:
// records of the switch that lie behind one another are then not used one behind the other.
static inline uint32_t mix_stride(uint32_t conversations)
{
	uint32_t step = (uint32_t)(conversations * 0.618) | 1;

	for (;; step += 2) {
		uint32_t a = step, b = conversations;

		while (b) {
			uint32_t rest = a % b;

			a = b;
			b = rest;
		}
		if (a == 1)
			return step;
	}
}

static inline void frame_mac(uint8_t mac[6], unsigned side, uint32_t index)
{
	mac[0] = 0x02;
	mac[1] = 0xbe;
	mac[2] = (uint8_t)side;
	mac[3] = (uint8_t)(index >> 16);
	mac[4] = (uint8_t)(index >> 8);
	mac[5] = (uint8_t)index;
}

// Writes the frame, m->bytes long, that `side` sends in a conversation.
static inline void frame_build(uint8_t *to, const struct mix *m, uint32_t conversation, unsigned side)
{
	uint32_t station[2] = {conversation % m->macs, conversation / m->macs % m->macs};
	struct rte_ether_hdr *eth = (struct rte_ether_hdr *)(void *)to;
	struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(void *)(to + 14);
	struct rte_udp_hdr *udp = (struct rte_udp_hdr *)(void *)(to + 34);
	struct rte_tcp_hdr *tcp = (struct rte_tcp_hdr *)(void *)(to + 34);
	struct frame_mark *mark = (struct frame_mark *)(void *)(to + mix_headers(m));
	// The port says which of the connections between two stations it is.
	uint16_t port[2] = {(uint16_t)(1024 + conversation % 60000), (uint16_t)(5000 + conversation / 60000)};
	uint32_t length = m->bytes - 14;

	memset(to, 0, m->bytes);
	frame_mac(eth->src_addr.addr_bytes, side, station[side]);
	frame_mac(eth->dst_addr.addr_bytes, !side, station[!side]);
	eth->ether_type = rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4);
	ip->version_ihl = 0x45;
	ip->total_length = rte_cpu_to_be_16((uint16_t)length);
	ip->time_to_live = 64;
	ip->next_proto_id = m->tso ? 6 : 17;
	ip->src_addr = rte_cpu_to_be_32((10u << 24) + ((side + 1) << 20) + station[side] + 1);
	ip->dst_addr = rte_cpu_to_be_32((10u << 24) + ((!side + 1) << 20) + station[!side] + 1);
	ip->hdr_checksum = rte_ipv4_cksum(ip);
	udp->src_port = rte_cpu_to_be_16(port[side]);
	udp->dst_port = rte_cpu_to_be_16(port[!side]);
	if (m->tso) { // the ports are where UDP has them
		tcp->data_off = 5 << 4;
		tcp->tcp_flags = RTE_TCP_ACK_FLAG;
	} else {
		udp->dgram_len = rte_cpu_to_be_16((uint16_t)(length - 20));
	}
	mark->magic = rte_cpu_to_be_32(FRAME_MARK);
	mark->conversation = rte_cpu_to_be_32(conversation);
	mark->side = (uint8_t)side;
}

// xorshift64 (Marsaglia, 2003)
static inline uint64_t frame_random(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return *state = x;
}

// Gives the frame other addresses, as the mix asks.
static inline void frame_vary(uint8_t *frame, const struct mix *m, unsigned side, uint64_t *state)
{
	uint64_t r = frame_random(state);

	if (m->random == MIX_PAIRS) {
		frame_mac(frame, !side, (uint32_t)(((r & 0xffffffff) * m->macs) >> 32));
		frame_mac(frame + 6, side, (uint32_t)(((r >> 32) * m->macs) >> 32));
	} else {
		memcpy(frame + 8, &r, 4);
	}
}

#endif
