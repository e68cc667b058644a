// ra: see ra.h.
#include "ra.h"

#include <errno.h>
#include <string.h>
#include <rte_ip.h>

enum {
	IP6 = 40,
	ICMPV6 = 58,
	ADVERTISEMENT = 134,
	OPTION_SOURCE = 1,
	OPTION_PREFIX = 3,
	OPTION_MTU = 5,
	OPTION_RDNSS = 25,
	OPTION_DNSSL = 31,
};

static uint8_t *put16(uint8_t *b, uint32_t v)
{
	b[0] = (uint8_t)(v >> 8);
	b[1] = (uint8_t)v;
	return b + 2;
}

static uint8_t *put32(uint8_t *b, uint32_t v)
{
	return put16(put16(b, v >> 16), v);
}

int ra_add_domain(struct ra *ra, const char *name)
{
	uint8_t encoded[256];
	unsigned n = 0;

	while (*name) {
		size_t len = strcspn(name, ".");

		if (!len || len > 63 || n + len + 2 > 255)
			return -EINVAL;
		encoded[n++] = (uint8_t)len;
		memcpy(encoded + n, name, len);
		n += (unsigned)len;
		name += len;
		name += *name == '.';
	}
	if (!n)
		return -EINVAL;
	encoded[n++] = 0;
	if (ra->search_len + n > RA_SEARCH)
		return -ENOSPC;
	memcpy(ra->search + ra->search_len, encoded, n);
	ra->search_len = (uint16_t)(ra->search_len + n);
	return 0;
}

static uint8_t *put_prefix(uint8_t *o, const struct ra *ra, const struct config_prefix *p)
{
	uint8_t flags = ra->prefix_flags & (p->len == 64 ? 0xff : (uint8_t)~RA_PREFIX_AUTONOMOUS);

	o[0] = OPTION_PREFIX;
	o[1] = 4;
	o[2] = p->len;
	o[3] = flags;
	put32(o + 4, ra->valid_s);
	put32(o + 8, ra->preferred_s < ra->valid_s ? ra->preferred_s : ra->valid_s);
	memcpy(o + 16, p->ip.b, p->len / 8);
	if (p->len % 8)
		o[16 + p->len / 8] = (uint8_t)(p->ip.b[p->len / 8] & (0xff00 >> p->len % 8));
	return o + 32;
}

static uint8_t *put_dns(uint8_t *o, const struct ra *ra)
{
	if (ra->n_servers) {
		o[0] = OPTION_RDNSS;
		o[1] = (uint8_t)(1 + 2 * ra->n_servers);
		put32(o + 4, ra->dns_s);
		memcpy(o + 8, ra->server, 16u * ra->n_servers);
		o += 8 + 16 * ra->n_servers;
	}
	if (ra->search_len) {
		unsigned padded = (ra->search_len + 7u) & ~7u;

		o[0] = OPTION_DNSSL;
		o[1] = (uint8_t)(1 + padded / 8);
		put32(o + 4, ra->dns_s);
		memcpy(o + 8, ra->search, ra->search_len);
		o += 8 + padded;
	}
	return o;
}

unsigned ra_make(uint8_t f[RA_FRAME], const struct ra *ra, const uint8_t to_mac[6], const uint8_t to_ip[16])
{
	static const uint8_t all_nodes[16] = {0xff, 0x02, [15] = 1}, all_nodes_mac[6] = {0x33, 0x33, 0, 0, 0, 1};
	unsigned most = 14 + IP6 + 16 + 8 + 8 + 32u * ra->n_prefixes + 8 + 16u * ra->n_servers + 8 + ra->search_len + 7;
	uint8_t *ip = f + 14, *icmp = ip + IP6, *o = icmp + 16;

	if (most > RA_FRAME)
		return 0;
	memset(f, 0, most);
	memcpy(f, to_mac ? to_mac : all_nodes_mac, 6);
	memcpy(f + 6, ra->mac, 6);
	put16(f + 12, 0x86dd);
	icmp[0] = ADVERTISEMENT;
	icmp[4] = ra->hop_limit;
	icmp[5] = ra->flags;
	put16(icmp + 6, ra->lifetime_s);
	put32(icmp + 8, ra->reachable_ms);
	put32(icmp + 12, ra->retrans_ms);
	o[0] = OPTION_SOURCE;
	o[1] = 1;
	memcpy(o + 2, ra->mac, 6);
	o += 8;
	if (ra->mtu) {
		o[0] = OPTION_MTU;
		o[1] = 1;
		put32(o + 4, ra->mtu);
		o += 8;
	}
	for (unsigned i = 0; i < ra->n_prefixes; i++)
		o = put_prefix(o, ra, &ra->prefix[i]);
	o = put_dns(o, ra);
	uint32_t len = (uint32_t)(o - icmp);
	put32(ip, 0x6c000000); // network control
	put16(ip + 4, len);
	ip[6] = ICMPV6;
	ip[7] = 255;
	memcpy(ip + 8, ra->src, 16);
	memcpy(ip + 24, to_ip ? to_ip : all_nodes, 16);
	uint16_t sum = rte_ipv6_udptcp_cksum((const void *)ip, icmp);
	memcpy(icmp + 2, &sum, 2);
	return 14 + IP6 + len;
}
