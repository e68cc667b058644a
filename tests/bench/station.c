#include "station.h"

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

void station_request(uint8_t to[STATION_ARP], const struct mix *m, unsigned side, unsigned index)
{
	struct rte_ether_hdr *eth = (struct rte_ether_hdr *)(void *)to;
	struct rte_arp_hdr *arp = (struct rte_arp_hdr *)(void *)(to + 14);

	memset(to, 0, STATION_ARP);
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

bool station_answer(uint8_t *frame, uint32_t len, const struct mix *m, unsigned side)
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

bool station_replied(const uint8_t *frame, uint32_t len, const struct mix *m, unsigned side)
{
	const struct rte_arp_ipv4 *a = &((const struct rte_arp_hdr *)(const void *)(frame + 14))->arp_data;

	return station_count(m, side) && is_arp(frame, len, RTE_ARP_OP_REPLY) &&
	       a->arp_sip == rte_cpu_to_be_32(frame_switch_ip(side));
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

static const char *check_ip(const struct rte_ipv4_hdr *ip, unsigned ttl, uint32_t len)
{
	if (ip->version_ihl != 0x45 || rte_be_to_cpu_16(ip->total_length) != len)
		return "the length of the IPv4 packet";
	if (ip->time_to_live != ttl)
		return "the TTL";
	if (rte_raw_cksum(ip, sizeof *ip) != 0xffff)
		return "the IPv4 checksum";
	return NULL;
}

static const char *check_routed(const uint8_t *frame, uint32_t len, const struct mix *m, unsigned side)
{
	const struct rte_ether_hdr *eth = (const void *)frame;
	const struct rte_ipv4_hdr *ip = (const void *)(frame + 14);
	uint32_t to = rte_be_to_cpu_32(ip->dst_addr);

	if (to >> 27 != frame_region(side) >> 27)
		return "the side";
	if (!same_mac(&eth->src_addr, switch_mac, side, 0))
		return "the source MAC";
	if (!same_mac(&eth->dst_addr, frame_mac, side, frame_route_gateway(m, side, to)))
		return "the gateway's MAC";
	return check_ip(ip, FRAME_TTL - 1, len - 14);
}

static const char *check_outer(const uint8_t *frame, uint32_t len)
{
	const struct rte_ether_hdr *eth = (const void *)frame;
	const struct rte_ipv4_hdr *ip = (const void *)(frame + 14);
	const struct rte_udp_hdr *udp = (const void *)(frame + 34);
	const uint8_t *vxlan = frame + 42;

	if (!same_mac(&eth->src_addr, switch_mac, 1, 0) || !same_mac(&eth->dst_addr, vtep_mac, 1, 0))
		return "the outer MACs";
	if (ip->src_addr != rte_cpu_to_be_32(frame_switch_ip(1)) || ip->dst_addr != rte_cpu_to_be_32(FRAME_VTEP_IP))
		return "the outer addresses";
	if (ip->next_proto_id != 17 || udp->dst_port != rte_cpu_to_be_16(FRAME_VXLAN_PORT) ||
	    rte_be_to_cpu_16(udp->dgram_len) != len - 34)
		return "the outer UDP header";
	uint32_t sum = (uint32_t)rte_raw_cksum(udp, len - 34) + rte_ipv4_phdr_cksum(ip, 0);

	if (udp->dgram_cksum && (sum & 0xffff) + (sum >> 16) != 0xffff)
		return "the outer UDP checksum";
	if (vxlan[0] != 0x08 || (vxlan[4] << 16 | vxlan[5] << 8 | vxlan[6]) != FRAME_VNI)
		return "the VXLAN header";
	return check_ip(ip, FRAME_TTL, len - 14);
}

const char *station_check(const uint8_t *frame, uint32_t len, const struct mix *m, unsigned side)
{
	if (m->kind == MIX_ROUTE)
		return check_routed(frame, len, m, side);
	if (mix_outer(m, side)) {
		const char *wrong = check_outer(frame, len);

		if (wrong)
			return wrong;
	}
	frame += mix_outer(m, side);
	len -= mix_outer(m, side);
	return check_ip((const void *)(frame + 14), FRAME_TTL, len - 14);
}
