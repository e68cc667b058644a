#include "station.h"

#include <assert.h>
#include <rte_arp.h>

unsigned station_count(const struct mix *m, unsigned side)
{
	if (m->kind == MIX_ROUTE)
		return m->macs;
	return m->kind == MIX_VXLAN && side == 1;
}

static void station_mac(uint8_t mac[6], const struct mix *m, unsigned side, unsigned index)
{
	if (m->kind == MIX_VXLAN)
		frame_vtep_mac(mac);
	else
		frame_mac(mac, side, index);
}

// ---- ARP

static void arp_request(uint8_t *to, const struct mix *m, unsigned side, unsigned index)
{
	struct rte_ether_hdr *eth = (struct rte_ether_hdr *)(void *)to;
	struct rte_arp_hdr *arp = (struct rte_arp_hdr *)(void *)(to + 14);

	memset(&eth->dst_addr, 0xff, 6);
	station_mac(eth->src_addr.addr_bytes, m, side, index);
	eth->ether_type = rte_cpu_to_be_16(RTE_ETHER_TYPE_ARP);
	arp->arp_hardware = rte_cpu_to_be_16(RTE_ARP_HRD_ETHER);
	arp->arp_protocol = rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4);
	arp->arp_hlen = 6;
	arp->arp_plen = 4;
	arp->arp_opcode = rte_cpu_to_be_16(RTE_ARP_OP_REQUEST);
	arp->arp_data.arp_sha = eth->src_addr;
	arp->arp_data.arp_sip = rte_cpu_to_be_32(frame_station_ip(side, index));
	arp->arp_data.arp_tip = rte_cpu_to_be_32(frame_switch_ip(side));
}

static bool is_arp(const uint8_t *frame, uint32_t len, uint16_t opcode)
{
	const struct rte_ether_hdr *eth = (const void *)frame;
	const struct rte_arp_hdr *arp = (const void *)(frame + 14);

	return len >= 42 && eth->ether_type == rte_cpu_to_be_16(RTE_ETHER_TYPE_ARP) &&
	       arp->arp_opcode == rte_cpu_to_be_16(opcode);
}

static bool arp_answer(uint8_t *frame, uint32_t len, const struct mix *m, unsigned side)
{
	struct rte_ether_hdr *eth = (struct rte_ether_hdr *)(void *)frame;
	struct rte_arp_ipv4 *a = &((struct rte_arp_hdr *)(void *)(frame + 14))->arp_data;
	uint32_t index = rte_be_to_cpu_32(a->arp_tip) - frame_station_ip(side, 0);
	rte_be32_t wanted = a->arp_tip;

	if (!is_arp(frame, len, RTE_ARP_OP_REQUEST) || index >= station_count(m, side) || a->arp_sip == a->arp_tip)
		return false;
	a->arp_tha = a->arp_sha;
	a->arp_tip = a->arp_sip;
	a->arp_sip = wanted;
	station_mac(a->arp_sha.addr_bytes, m, side, index);
	eth->dst_addr = a->arp_tha;
	eth->src_addr = a->arp_sha;
	((struct rte_arp_hdr *)(void *)(frame + 14))->arp_opcode = rte_cpu_to_be_16(RTE_ARP_OP_REPLY);
	return true;
}

// ---- neighbour discovery (RFC 4861): a solicitation or advertisement with one option, that of an address

enum {
	ND_SOLICIT = 135,
	ND_ADVERTISE = 136,
	ND_TARGET = 14 + 40 + 8,
	ND_OPTION = ND_TARGET + 16,
	ND_LEN = ND_OPTION + 8,
};
static_assert(ND_LEN == STATION_ASK, "it is longer than ARP");

static void nd_write(uint8_t *to, uint8_t type, const uint8_t dst[16], const uint8_t src[16], const uint8_t target[16])
{
	struct rte_ether_hdr *eth = (struct rte_ether_hdr *)(void *)to;
	struct rte_ipv6_hdr *ip = (struct rte_ipv6_hdr *)(void *)(to + 14);
	uint8_t *icmp = to + 54;

	eth->ether_type = rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV6);
	memset(ip, 0, ND_LEN - 14);
	ip->vtc_flow = rte_cpu_to_be_32(6u << 28);
	ip->payload_len = rte_cpu_to_be_16(ND_LEN - 54);
	ip->proto = 58;
	ip->hop_limits = 255;
	memcpy(ip->src_addr, src, 16);
	memcpy(ip->dst_addr, dst, 16);
	icmp[0] = type;
	icmp[4] = type == ND_ADVERTISE ? 0x60 : 0; // solicited, overrides
	memcpy(to + ND_TARGET, target, 16);
	to[ND_OPTION] = type == ND_ADVERTISE ? 2 : 1; // the address of: the target, the source
	to[ND_OPTION + 1] = 1;
	memcpy(to + ND_OPTION + 2, &eth->src_addr, 6);
	uint16_t sum = rte_ipv6_udptcp_cksum(ip, icmp);
	memcpy(icmp + 2, &sum, 2);
}

static void nd_request(uint8_t *to, const struct mix *m, unsigned side, unsigned index)
{
	uint8_t group[16] = {0xff, 2, [11] = 1, 0xff}, src[16], target[16];

	frame_ip(src, true, frame_station_ip(side, index));
	frame_ip(target, true, frame_switch_ip(side));
	memcpy(group + 13, target + 13, 3); // RFC 4291 section 2.7.1
	memcpy(to, (const uint8_t[]){0x33, 0x33, 0xff, group[13], group[14], group[15]}, 6);
	station_mac(to + 6, m, side, index);
	nd_write(to, ND_SOLICIT, group, src, target);
}

static bool is_nd(const uint8_t *frame, uint32_t len, uint8_t type)
{
	const struct rte_ether_hdr *eth = (const void *)frame;

	return len >= ND_OPTION && eth->ether_type == rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV6) && frame[20] == 58 &&
	       frame[54] == type;
}

// What is asked without an address is whether somebody else has it.
static bool nd_answer(uint8_t *frame, uint32_t len, const struct mix *m, unsigned side)
{
	static const uint8_t nobody[16];
	uint8_t asker[16], target[16], first[16];
	uint32_t index;

	if (len < ND_LEN || !is_nd(frame, len, ND_SOLICIT) || !memcmp(frame + 22, nobody, 16))
		return false;
	memcpy(target, frame + ND_TARGET, 16);
	frame_ip(first, true, frame_station_ip(side, 0));
	index = ((target[13] & 15u) << 16 | (uint32_t)target[14] << 8 | target[15]) - 1;
	if (memcmp(target, first, 13) || index >= station_count(m, side))
		return false;
	memcpy(asker, frame + 22, 16);
	memcpy(frame, frame + 6, 6);
	station_mac(frame + 6, m, side, index);
	nd_write(frame, ND_ADVERTISE, asker, target, target);
	return true;
}

// ----

// The link of tunnels is that of the outer packets.
static bool speaks_nd(const struct mix *m)
{
	return m->kind == MIX_VXLAN ? m->under6 : m->v6;
}

unsigned station_request(uint8_t to[STATION_ASK], const struct mix *m, unsigned side, unsigned index)
{
	memset(to, 0, STATION_ASK);
	if (speaks_nd(m)) {
		nd_request(to, m, side, index);
		return ND_LEN;
	}
	arp_request(to, m, side, index);
	return 60;
}

unsigned station_answer(uint8_t *frame, uint32_t len, const struct mix *m, unsigned side)
{
	if (speaks_nd(m))
		return nd_answer(frame, len, m, side) ? ND_LEN : 0;
	return arp_answer(frame, len, m, side) ? len : 0;
}

bool station_replied(const uint8_t *frame, uint32_t len, const struct mix *m, unsigned side)
{
	const struct rte_arp_ipv4 *a = &((const struct rte_arp_hdr *)(const void *)(frame + 14))->arp_data;
	uint8_t own[16];

	if (!station_count(m, side))
		return false;
	if (!speaks_nd(m))
		return is_arp(frame, len, RTE_ARP_OP_REPLY) && a->arp_sip == rte_cpu_to_be_32(frame_switch_ip(side));
	frame_ip(own, true, frame_switch_ip(side));
	return is_nd(frame, len, ND_ADVERTISE) && !memcmp(frame + ND_TARGET, own, 16);
}

static bool same_mac(const struct rte_ether_addr *got, void (*wanted)(uint8_t *, unsigned, uint32_t), unsigned side,
		     uint32_t index)
{
	uint8_t mac[6];

	wanted(mac, side, index);
	return !memcmp(got, mac, 6);
}

static void switch_mac(uint8_t *mac, unsigned side, uint32_t index)
{
	frame_switch_mac(mac, side);
}

static void vtep_mac(uint8_t *mac, unsigned side, uint32_t index)
{
	frame_vtep_mac(mac);
}

static const char *check_ip(const uint8_t *ip, bool v6, unsigned ttl, uint32_t len)
{
	if (v6) {
		if (ip[0] >> 4 != 6 || (ip[4] << 8 | ip[5]) + 40u != len)
			return "the length of the IPv6 packet";
		return ip[7] == ttl ? NULL : "the hop limit";
	}
	if (ip[0] != 0x45 || (ip[2] << 8 | ip[3]) != (int)len)
		return "the length of the IPv4 packet";
	if (ip[8] != ttl)
		return "the TTL";
	if (rte_raw_cksum(ip, 20) != 0xffff)
		return "the IPv4 checksum";
	return NULL;
}

static const char *check_routed(const uint8_t *frame, uint32_t len, const struct mix *m, unsigned side)
{
	const struct rte_ether_hdr *eth = (const void *)frame;
	const uint8_t *ip = frame + mix_link(m);
	uint32_t to = frame_number(ip + (m->v6 ? 24 : 16), m->v6);

	if (to >> 27 != frame_region(side) >> 27)
		return "the side";
	if (!same_mac(&eth->src_addr, switch_mac, side, 0))
		return "the source MAC";
	if (!same_mac(&eth->dst_addr, frame_mac, side, frame_route_gateway(m, side, to)))
		return "the gateway's MAC";
	return check_ip(ip, m->v6, FRAME_TTL - 1, len - mix_link(m));
}

static uint16_t udp_sum(const uint8_t *ip, bool v6, const struct rte_udp_hdr *udp, uint32_t len)
{
	uint32_t sum = rte_raw_cksum(udp, len);

	sum += v6 ? rte_ipv6_phdr_cksum((const void *)ip, 0) : rte_ipv4_phdr_cksum((const void *)ip, 0);
	return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

static const char *check_outer(const uint8_t *frame, uint32_t len, bool v6)
{
	const struct rte_ether_hdr *eth = (const void *)frame;
	const uint8_t *ip = frame + 14;
	const struct rte_udp_hdr *udp = (const void *)(ip + frame_ip_header(v6));
	const uint8_t *vxlan = (const uint8_t *)(udp + 1);
	uint32_t udp_len = len - 14 - frame_ip_header(v6);
	uint8_t pair[32];

	if (!same_mac(&eth->src_addr, switch_mac, 1, 0) || !same_mac(&eth->dst_addr, vtep_mac, 1, 0))
		return "the outer MACs";
	unsigned n = frame_ip(pair, v6, frame_switch_ip(1));
	n += frame_ip(pair + n, v6, FRAME_VTEP_IP);
	if (memcmp(ip + (v6 ? 8 : 12), pair, n))
		return "the outer addresses";
	if (ip[v6 ? 6 : 9] != 17 || udp->dst_port != rte_cpu_to_be_16(FRAME_VXLAN_PORT) ||
	    rte_be_to_cpu_16(udp->dgram_len) != udp_len)
		return "the outer UDP header";
	if (udp->dgram_cksum && udp_sum(ip, v6, udp, udp_len) != 0xffff)
		return "the outer UDP checksum";
	if (vxlan[0] != 0x08 || (vxlan[4] << 16 | vxlan[5] << 8 | vxlan[6]) != FRAME_VNI)
		return "the VXLAN header";
	return check_ip(ip, v6, FRAME_TTL, len - 14);
}

const char *station_check(const uint8_t *frame, uint32_t len, const struct mix *m, unsigned side)
{
	if (m->kind == MIX_ROUTE)
		return check_routed(frame, len, m, side);
	if (mix_outer(m, side)) {
		const char *wrong = check_outer(frame, len, m->under6);

		if (wrong)
			return wrong;
	}
	frame += mix_outer(m, side) + mix_link(m);
	len -= mix_outer(m, side) + mix_link(m);
	return check_ip(frame, m->v6, FRAME_TTL, len);
}
