// answer: see answer.h. The answer is written as a description for compose(), which knows lengths and checksums.
#include "answer.h"
#include "buf.h"
#include "parse.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	ARP_REQUEST = 1,
	ECHO_REQUEST = 8,
	ECHO_REQUEST_V6 = 128,
	ND_SOLICIT = 135,
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_FLAGS_OFS = 13,
	ND_TARGET_OFS = 8,
};

static void add_ip(struct buf *b, const char *field, bool v6, const void *ip)
{
	char text[INET6_ADDRSTRLEN];

	buf_add(b, ",%s=%s", field, inet_ntop(v6 ? AF_INET6 : AF_INET, ip, text, sizeof text));
}

static void add_mac(struct buf *b, const char *field, const uint8_t *mac)
{
	buf_add(b, ",%s=", field);
	buf_add_mac(b, mac);
}

static bool is_group(const struct parsed_frame *v)
{
	uint8_t four = *(const uint8_t *)&v->key.v4.dst;

	return v->pkt.ethertype == FIELD_ETH_IPV6 ? v->key.v6.dst[0] == 0xff : four >= 224;
}

static int describe_arp(const struct parsed_frame *v, const uint8_t *mac, struct buf *b, char **error)
{
	if (v->key.proto != ARP_REQUEST)
		return field_refuse(error, "an ARP reply is an answer itself");
	buf_add(b, "arp,arp_op=2");
	add_mac(b, "arp_sha", mac);
	add_ip(b, "arp_spa", false, &v->key.v4.dst);
	add_mac(b, "arp_tha", v->key.src);
	add_ip(b, "arp_tpa", false, &v->key.v4.src);
	return 0;
}

static int describe_icmp(const struct parsed_frame *v, const uint8_t *frame, unsigned len, const uint8_t *mac, struct buf *b,
			 char **error)
{
	bool v6 = v->pkt.ethertype == FIELD_ETH_IPV6;
	unsigned type = ntohs(v->key.sport);

	if (type == (v6 ? ECHO_REQUEST_V6 : ECHO_REQUEST)) {
		buf_add(b, v6 ? "icmp6,icmpv6_type=129" : "icmp,icmp_type=0");
		return 0;
	}
	if (!v6 || type != ND_SOLICIT || v->pkt.l4_ofs + ND_TARGET_OFS + 16u > len)
		return field_refuse(error, "nobody answers %s of type %u", v6 ? "ICMPv6" : "ICMP", type);
	buf_add(b, "icmp6,icmpv6_type=136");
	add_ip(b, "nd_target", true, frame + v->pkt.l4_ofs + ND_TARGET_OFS);
	add_ip(b, "ipv6_src", true, frame + v->pkt.l4_ofs + ND_TARGET_OFS);
	add_mac(b, "nd_tll", mac);
	return 0;
}

static int describe_ip(const struct parsed_frame *v, const uint8_t *frame, unsigned len, const uint8_t *mac, struct buf *b,
		       char **error)
{
	static const char *const words[] = {[FIELD_IP_TCP] = "tcp", [FIELD_IP_UDP] = "udp", [FIELD_IP_SCTP] = "sctp"};
	const struct pkt *p = &v->pkt;
	bool v6 = p->ethertype == FIELD_ETH_IPV6,
	     ports = p->l4_len && p->proto < sizeof words / sizeof words[0] && words[p->proto];
	bool icmp = p->l4_len && p->proto == (v6 ? FIELD_IP_ICMPV6 : FIELD_IP_ICMP);
	unsigned flags = ports && p->proto == FIELD_IP_TCP ? frame[p->l4_ofs + TCP_FLAGS_OFS] : 0;

	if (p->class == CLASS_FRAG_FIRST || p->class == CLASS_FRAG_LATER)
		return field_refuse(error, "a fragment alone is not answered");
	if (is_group(v) && p->class != CLASS_ND)
		return field_refuse(error, "it is for a group, of which nobody in particular answers");
	if (flags & TCP_RST)
		return field_refuse(error, "a reset of TCP is not answered");
	if (ports)
		buf_add(b, "%s%s,tp_src=%u,tp_dst=%u", words[p->proto], v6 ? "6" : "", ntohs(v->key.dport),
			ntohs(v->key.sport));
	else if (icmp && describe_icmp(v, frame, len, mac, b, error))
		return -EINVAL;
	else if (!icmp)
		buf_add(b, "%s,nw_proto=%u", v6 ? "ipv6" : "ip", p->proto);
	if (flags)
		buf_add(b, ",tcp_flags=%s", flags & TCP_SYN ? "syn|ack" : flags & TCP_FIN ? "fin|ack" : "ack");
	if (p->class != CLASS_ND)
		add_ip(b, v6 ? "ipv6_src" : "nw_src", v6, v6 ? (const void *)v->key.v6.dst : (const void *)&v->key.v4.dst);
	add_ip(b, v6 ? "ipv6_dst" : "nw_dst", v6, v6 ? (const void *)v->key.v6.src : (const void *)&v->key.v4.src);
	// Echoes and datagrams are answered by as much as was asked.
	unsigned whole = len - 4u * p->n_tags;
	if ((icmp && p->class != CLASS_ND) || (ports && p->proto == FIELD_IP_UDP))
		buf_add(b, ",packet_len=%u", whole < 60 ? 60 : whole > COMPOSE_LEN_MAX ? COMPOSE_LEN_MAX : whole);
	return 0;
}

// Of a protocol that the switch doesn't know: the same once more, in the other direction.
static int turn_round(const uint8_t *frame, unsigned len, const uint8_t *mac, uint8_t *out, char **error)
{
	if (frame[0] & 1)
		return field_refuse(error, "it is for a group, of which nobody in particular answers");
	memcpy(out, frame + 6, 6);
	memcpy(out + 6, mac, 6);
	memcpy(out + 12, frame + 12, len - 12);
	return (int)len;
}

int answer(const uint8_t *frame, unsigned len, const uint8_t station[6], uint8_t out[COMPOSE_MAX], char **error)
{
	struct buf b = {0};
	struct parsed_frame v;
	int rc;

	*error = NULL;
	if (len > COMPOSE_MAX - 64 || parse_frame(frame, len, len, 0, &v))
		return field_refuse(error, "it is malformed");
	const uint8_t *mac = frame[0] & 1 ? station : frame;
	if (v.pkt.ethertype == FIELD_ETH_ARP)
		rc = describe_arp(&v, mac, &b, error);
	else if (v.pkt.l3_ofs)
		rc = describe_ip(&v, frame, len, mac, &b, error);
	else
		return turn_round(frame, len, mac, out, error);
	if (!rc) {
		add_mac(&b, "dl_src", mac);
		add_mac(&b, "dl_dst", v.key.src);
		rc = b.text ? compose(b.text, NULL, out, error) : -ENOMEM;
	}
	free(b.text);
	if (rc < 0)
		return rc;
	// The tags of the frame, as they are.
	unsigned tags = 4u * v.pkt.n_tags;
	memmove(out + 12 + tags, out + 12, (size_t)rc - 12);
	memcpy(out + 12, frame + 12, tags);
	return rc + (int)tags;
}

bool answer_from(const uint8_t *frame, unsigned len, bool *v6, uint8_t ip[16])
{
	struct parsed_frame v;

	if (parse_frame(frame, len, len, 0, &v) || (!v.pkt.l3_ofs && v.pkt.ethertype != FIELD_ETH_ARP))
		return false;
	*v6 = v.pkt.ethertype == FIELD_ETH_IPV6;
	if (*v6 && v.pkt.class == CLASS_ND && ntohs(v.key.sport) == ND_SOLICIT && v.pkt.l4_ofs + ND_TARGET_OFS + 16u <= len)
		memcpy(ip, frame + v.pkt.l4_ofs + ND_TARGET_OFS, 16);
	else
		memcpy(ip, *v6 ? (const void *)v.key.v6.dst : (const void *)&v.key.v4.dst, *v6 ? 16 : 4);
	return true;
}
