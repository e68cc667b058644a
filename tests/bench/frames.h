// frames: the packets of the bench: what a generator sends in each direction, flow by flow.
//
// A mix has `flows` flows, half of them each way: conversation i goes from an address of side 0 to one of side 1 and back. With
// `macs` addresses a side, few of them make many 5-tuples between the same two stations; as many as the root of the
// conversations make every one of them a pair of its own. The payload begins with a mark, by which the generator knows its
// packets when they come back.
//
// MIX_ROUTE: both sides are gateways of a router, `macs` of them each; every conversation is between two addresses of its own
// behind them, spread over `routes` prefixes. MIX_VXLAN: side 0 has the stations of a network, side 1 is an uplink behind which
// another end point of tunnels has the others: what it sends and receives is in VXLAN.
//
// Addresses are numbers of 32 bits here, whatever their family: frame_ip() makes those of IPv6 of them.
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
#define FRAME_MIN 60           // without the checksum of the wire
#define FRAME_MAX 1514
#define FRAME_TSO_MAX 65226 // what Linux sends at once with an MTU of 1,500

enum mix_random {
	MIX_FIXED, // the flows again and again
	MIX_PAIRS, // each packet is from and to any of the addresses
	MIX_SOURCE // each packet is from an address that nobody has seen
};

enum mix_kind {
	MIX_L2,
	MIX_ROUTE,
	MIX_VXLAN
};

struct mix {
	enum mix_kind kind;
	bool v6;     // what the stations send is IPv6
	bool under6; // the tunnel is in IPv6
	bool tagged; // 802.1Q, on the link of the stations
	uint32_t flows;
	uint32_t macs;
	uint32_t bytes;  // of a frame without what a tunnel adds
	uint32_t routes; // of both sides together
	uint32_t tso;    // not 0: TCP, to be cut into segments of that many bytes by whoever can't take it whole
	enum mix_random random;
};

struct frame_mark {
	rte_be32_t magic;
	rte_be32_t conversation;
	uint8_t side; // that it was sent from
	uint8_t spare[7];
} __attribute__((packed)); // behind the UDP header there is no alignment

#define FRAME_TTL 64
#define FRAME_VLAN 100

// Sets the kind by its name. False: there is none of that name.
static inline bool mix_set_kind(struct mix *m, const char *name)
{
	static const struct {
		const char *name;
		enum mix_kind kind;
		bool v6, under6;
	} known[] = {{"l2", MIX_L2, false, false},       {"l2v6", MIX_L2, true, false},
		     {"route", MIX_ROUTE, false, false}, {"route6", MIX_ROUTE, true, false},
		     {"vxlan", MIX_VXLAN, false, false}, {"vxlan6", MIX_VXLAN, false, true}};

	for (unsigned i = 0; i < sizeof known / sizeof *known; i++) {
		if (!strcmp(known[i].name, name)) {
			m->kind = known[i].kind;
			m->v6 = known[i].v6;
			m->under6 = known[i].under6;
			return true;
		}
	}
	return false;
}

static inline unsigned frame_ip_header(bool v6)
{
	return v6 ? 40 : 20;
}

// What a frame of the side has around it: Ethernet, IP, UDP, VXLAN.
static inline unsigned mix_outer(const struct mix *m, unsigned side)
{
	return m->kind == MIX_VXLAN && side ? 14 + frame_ip_header(m->under6) + 8 + 8 : 0;
}

// Bytes in front of the IP header of a station's frame.
static inline unsigned mix_link(const struct mix *m)
{
	return m->tagged ? 18 : 14;
}

static inline uint32_t mix_bytes(const struct mix *m, unsigned side)
{
	return m->bytes + mix_outer(m, side);
}

// Bytes in front of the mark.
static inline unsigned mix_headers(const struct mix *m, unsigned side)
{
	return mix_outer(m, side) + mix_link(m) + frame_ip_header(m->v6) + (m->tso ? 20 : 8);
}

// The smallest frame that has room for the mark.
static inline uint32_t mix_least(const struct mix *m)
{
	uint32_t least = mix_headers(m, 0) + (uint32_t)sizeof(struct frame_mark);

	return least > FRAME_MIN ? least : FRAME_MIN;
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

// ---- addresses

// Of the stations on a link, or of the gateways.
static inline uint32_t frame_station_ip(unsigned side, uint32_t index)
{
	return (10u << 24) + ((side + 1) << 20) + index + 1;
}

// Bits of the prefix that the stations of a side are in.
static inline unsigned frame_link_len(bool v6)
{
	return v6 ? 64 : 12;
}

// Writes an address as it is in a packet, and returns its length. Of IPv6: fd00:0:0:LINK::STATION of stations,
// 2a00:IPIP:IPIP::1 of what is behind gateways.
static inline unsigned frame_ip(uint8_t to[16], bool v6, uint32_t ip)
{
	rte_be32_t word = rte_cpu_to_be_32(ip);

	if (!v6) {
		memcpy(to, &word, 4);
		return 4;
	}
	memset(to, 0, 16);
	if (ip >> 24 == 10) {
		to[0] = 0xfd;
		to[7] = (uint8_t)(ip >> 20 & 15);
		to[13] = (uint8_t)(ip >> 16 & 15);
		memcpy(to + 14, (uint8_t *)&word + 2, 2);
	} else {
		to[0] = 0x2a;
		memcpy(to + 2, &word, 4);
		to[15] = 1;
	}
	return 16;
}

// The number of an address that is behind gateways.
static inline uint32_t frame_number(const uint8_t *ip, bool v6)
{
	rte_be32_t word;

	memcpy(&word, ip + (v6 ? 2 : 0), 4);
	return rte_be_to_cpu_32(word);
}

// Of the switch itself on that link: its router's, or its end point of tunnels.
static inline uint32_t frame_switch_ip(unsigned side)
{
	return frame_station_ip(side, 0xffffd);
}

static inline void frame_switch_mac(uint8_t mac[6], unsigned side)
{
	frame_mac(mac, 0xfe, side);
}

// The other end point of the tunnels, on the link of side 1, and its MAC.
#define FRAME_VTEP_IP frame_station_ip(1, 0)
#define FRAME_VNI 4711
#define FRAME_VXLAN_PORT 4789

static inline void frame_vtep_mac(uint8_t mac[6])
{
	frame_mac(mac, 0xfd, 1);
}

// ---- routes: each side has 2^27 addresses, divided evenly among its prefixes

struct frame_route {
	uint32_t prefix;
	uint8_t len;      // of the number: see frame_prefix()
	uint32_t gateway; // station of the side
};

static inline uint32_t mix_side_routes(const struct mix *m)
{
	return m->routes > 3 ? m->routes / 2 : 2;
}

// Bits of an address below those that say which of the side's prefixes it is in.
static inline unsigned mix_route_shift(const struct mix *m)
{
	uint32_t n = mix_side_routes(m);
	unsigned bits = 0;

	while (1u << bits < n)
		bits++;
	return 27 - bits;
}

static inline uint32_t frame_region(unsigned side)
{
	return (side ? 48u : 40u) << 24;
}

// Route k of a side. One in eight is longer than the others, as is seen from addresses in the first quarter only, which are the
// only ones that are used; one in 64 is the aggregate of those before it, by another gateway: the longest must win.
static inline struct frame_route frame_route(const struct mix *m, unsigned side, uint32_t k)
{
	unsigned shift = mix_route_shift(m);
	struct frame_route r = {
		.prefix = frame_region(side) + (k << shift),
		.len = (uint8_t)(32 - shift),
		.gateway = (uint32_t)(((uint64_t)k * 5 + k / 8) % m->macs),
	};

	if (k % 64 == 63) {
		r.prefix -= 63u << shift;
		r.len = (uint8_t)(r.len - 6);
	} else if (k % 8 == 7) {
		r.len = (uint8_t)(r.len + 2);
	}
	return r;
}

// Writes the prefix of a route, and returns the length that it has in its family.
static inline unsigned frame_prefix(uint8_t to[16], bool v6, const struct frame_route *r)
{
	if (frame_ip(to, v6, r->prefix) == 16)
		to[15] = 0;
	return v6 ? r->len + 16u : r->len;
}

// An address that route k of the side leads to.
static inline uint32_t frame_route_ip(const struct mix *m, unsigned side, uint32_t k, uint32_t host)
{
	unsigned shift = mix_route_shift(m);

	return frame_region(side) + (k << shift) + 1 + host % ((1u << (shift - 2)) - 2);
}

// The gateway behind which an address is.
static inline uint32_t frame_route_gateway(const struct mix *m, unsigned side, uint32_t ip)
{
	return frame_route(m, side, (ip - frame_region(side)) >> mix_route_shift(m)).gateway;
}

static inline void frame_route_addresses(const struct mix *m, uint32_t conversation, uint32_t ip[2])
{
	uint32_t n = mix_side_routes(m);

	for (unsigned side = 0; side < 2; side++) // 7919 is prime: the prefixes are not used in their order
		ip[side] = frame_route_ip(m, side, (uint32_t)((uint64_t)conversation * 7919 % n), conversation / n);
}

// ---- frames

// Addresses of an IP header, and its checksum.
static inline void frame_address_ip(uint8_t *to, bool v6, uint32_t src, uint32_t dst)
{
	struct rte_ipv4_hdr *h = (struct rte_ipv4_hdr *)(void *)to;
	uint8_t *at = to + (v6 ? 8 : 12);

	at += frame_ip(at, v6, src);
	frame_ip(at, v6, dst);
	if (v6)
		return;
	h->hdr_checksum = 0;
	h->hdr_checksum = rte_ipv4_cksum(h);
}

// Addresses of a frame to a router, from the gateway that has the source behind it.
static inline void frame_address_route(uint8_t *frame, const struct mix *m, unsigned side, const uint32_t ip[2])
{
	struct rte_ether_hdr *eth = (struct rte_ether_hdr *)(void *)frame;

	frame_mac(eth->src_addr.addr_bytes, side, frame_route_gateway(m, side, ip[side]));
	frame_switch_mac(eth->dst_addr.addr_bytes, side);
	frame_address_ip(frame + mix_link(m), m->v6, ip[side], ip[!side]);
}

// An IP header in front of `length` bytes.
static inline void frame_build_ip(uint8_t *to, bool v6, uint8_t proto, uint32_t length, uint32_t src, uint32_t dst)
{
	struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(void *)to;
	struct rte_ipv6_hdr *ip6 = (struct rte_ipv6_hdr *)(void *)to;

	if (v6) {
		ip6->vtc_flow = rte_cpu_to_be_32(6u << 28);
		ip6->payload_len = rte_cpu_to_be_16((uint16_t)length);
		ip6->proto = proto;
		ip6->hop_limits = FRAME_TTL;
	} else {
		ip->version_ihl = 0x45;
		ip->total_length = rte_cpu_to_be_16((uint16_t)(length + 20));
		ip->time_to_live = FRAME_TTL;
		ip->next_proto_id = proto;
	}
	frame_address_ip(to, v6, src, dst);
}

// The checksum of a UDP datagram behind an IPv6 header, which must have one (RFC 8200 section 8.1).
static inline void frame_sum_udp(uint8_t *ip)
{
	struct rte_udp_hdr *udp = (struct rte_udp_hdr *)(void *)(ip + 40);

	udp->dgram_cksum = rte_ipv6_udptcp_cksum((const struct rte_ipv6_hdr *)(const void *)ip, udp);
}

// What a tunnel's other end puts around a frame; the source port is that of the flow (RFC 7348, section 5).
static inline void frame_build_outer(uint8_t *to, const struct mix *m, uint32_t conversation)
{
	struct rte_ether_hdr *eth = (struct rte_ether_hdr *)(void *)to;
	struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(void *)(to + 14);
	struct rte_udp_hdr *udp = (struct rte_udp_hdr *)(void *)(to + 14 + frame_ip_header(m->under6));
	uint8_t *vxlan = (uint8_t *)(udp + 1);

	frame_vtep_mac(eth->src_addr.addr_bytes);
	frame_switch_mac(eth->dst_addr.addr_bytes, 1);
	eth->ether_type = rte_cpu_to_be_16(m->under6 ? RTE_ETHER_TYPE_IPV6 : RTE_ETHER_TYPE_IPV4);
	if (!m->under6)
		ip->fragment_offset = rte_cpu_to_be_16(RTE_IPV4_HDR_DF_FLAG);
	frame_build_ip(to + 14, m->under6, 17, m->bytes + 16, FRAME_VTEP_IP, frame_switch_ip(1));
	udp->src_port = rte_cpu_to_be_16((uint16_t)(49152 + (conversation * 0x9e3779b1u >> 18)));
	udp->dst_port = rte_cpu_to_be_16(FRAME_VXLAN_PORT);
	udp->dgram_len = rte_cpu_to_be_16((uint16_t)(m->bytes + 16));
	vxlan[0] = 0x08; // the VNI is there
	vxlan[4] = FRAME_VNI >> 16;
	vxlan[5] = FRAME_VNI >> 8 & 255;
	vxlan[6] = FRAME_VNI & 255;
}

// Writes the Ethernet header of a station's frame, with its tag.
static inline void frame_build_link(uint8_t *to, const struct mix *m, unsigned side, const uint32_t station[2])
{
	rte_be16_t *type = (rte_be16_t *)(void *)(to + 12);

	frame_mac(to, !side, station[!side]);
	frame_mac(to + 6, side, station[side]);
	if (m->tagged) {
		*type++ = rte_cpu_to_be_16(RTE_ETHER_TYPE_VLAN);
		*type++ = rte_cpu_to_be_16((uint16_t)(FRAME_VLAN + (m->kind == MIX_ROUTE ? side : 0)));
	}
	*type = rte_cpu_to_be_16(m->v6 ? RTE_ETHER_TYPE_IPV6 : RTE_ETHER_TYPE_IPV4);
}

// Writes the frame, mix_bytes() long, that `side` sends in a conversation.
static inline void frame_build(uint8_t *to, const struct mix *m, uint32_t conversation, unsigned side)
{
	uint32_t station[2] = {conversation % m->macs, conversation / m->macs % m->macs}, pair[2];
	// The port says which of the connections between two stations it is.
	uint16_t port[2] = {(uint16_t)(1024 + conversation % 60000), (uint16_t)(5000 + conversation / 60000)};
	uint32_t length = m->bytes - mix_link(m) - frame_ip_header(m->v6);
	uint8_t *outer = to, *l3 = to + mix_outer(m, side) + mix_link(m);

	memset(to, 0, mix_bytes(m, side));
	if (mix_outer(m, side))
		frame_build_outer(to, m, conversation);
	to += mix_outer(m, side);

	struct rte_udp_hdr *udp = (struct rte_udp_hdr *)(void *)(l3 + frame_ip_header(m->v6));
	struct rte_tcp_hdr *tcp = (struct rte_tcp_hdr *)(void *)udp;
	struct frame_mark *mark = (struct frame_mark *)(void *)(outer + mix_headers(m, side));

	frame_build_link(to, m, side, station);
	frame_build_ip(l3, m->v6, m->tso ? 6 : 17, length, frame_station_ip(side, station[side]),
		       frame_station_ip(!side, station[!side]));
	if (m->kind == MIX_ROUTE) {
		frame_route_addresses(m, conversation, pair);
		frame_address_route(to, m, side, pair);
	}
	udp->src_port = rte_cpu_to_be_16(port[side]);
	udp->dst_port = rte_cpu_to_be_16(port[!side]);
	if (m->tso) { // the ports are where UDP has them
		tcp->data_off = 5 << 4;
		tcp->tcp_flags = RTE_TCP_ACK_FLAG;
	} else {
		udp->dgram_len = rte_cpu_to_be_16((uint16_t)length);
	}
	mark->magic = rte_cpu_to_be_32(FRAME_MARK);
	mark->conversation = rte_cpu_to_be_32(conversation);
	mark->side = (uint8_t)side;
	if (m->v6)
		frame_sum_udp(l3);
	if (outer != to && m->under6)
		frame_sum_udp(outer + 14);
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

// Gives the frame other addresses, as the mix asks; no switch on the way looks at the checksum of UDP.
static inline void frame_vary(uint8_t *frame, const struct mix *m, unsigned side, uint64_t *state)
{
	uint64_t r = frame_random(state);

	if (m->kind == MIX_ROUTE) { // from and to any address of any prefix
		uint32_t n = mix_side_routes(m), ip[2];

		for (unsigned i = 0; i < 2; i++) {
			uint32_t half = (uint32_t)(i ? r >> 32 : r);

			ip[i] = frame_route_ip(m, i, (uint32_t)(((uint64_t)half * n) >> 32), half & 0xffff);
		}
		frame_address_route(frame, m, side, ip);
	} else if (m->random == MIX_PAIRS) {
		frame_mac(frame, !side, (uint32_t)(((r & 0xffffffff) * m->macs) >> 32));
		frame_mac(frame + 6, side, (uint32_t)(((r >> 32) * m->macs) >> 32));
	} else {
		memcpy(frame + 8, &r, 4);
	}
}

#endif
