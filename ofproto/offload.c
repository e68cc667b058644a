// offload: see offload.h.
#include "offload.h"
#include "trace.h"

#include <errno.h>
#include <string.h>
#include <rte_ip.h>
#include <rte_udp.h>

// Of the TCP header (RFC 9293 section 3.1).
enum {
	TCP_SEQ = 4,
	TCP_FLAGS = 13,
	TCP_CHECKSUM = 16,
	UDP_CHECKSUM = 6,
	TCP_FIN = 0x01,
	TCP_PSH = 0x08,
	TCP_CWR = 0x80,
};

#define HEADERS_MAX 1024 // l2_len, l3_len and l4_len of an mbuf can't say more

static uint16_t get16(const uint8_t *b)
{
	return (uint16_t)(b[0] << 8 | b[1]);
}

static void put16(uint8_t *b, uint16_t v)
{
	b[0] = (uint8_t)(v >> 8);
	b[1] = (uint8_t)v;
}

// Bytes of layer 3 as the IP header has them, without the frame's padding. 0: they don't fit the frame or the header lengths.
static uint32_t l3_bytes(const struct rte_mbuf *m)
{
	uint8_t copy[40];
	bool v4 = m->ol_flags & RTE_MBUF_F_TX_IPV4;
	uint32_t fixed = v4 ? 20 : 40, len;
	const uint8_t *ip = rte_pktmbuf_read(m, m->l2_len, fixed, copy);

	if (!ip || m->l3_len < fixed || ip[0] >> 4 != (v4 ? 4 : 6))
		return 0;
	len = v4 ? get16(ip + 2) : get16(ip + 4) + 40u;
	if (len == (v4 ? 0 : 40)) { // more than the field can say: RFC 2675, and what Linux does for large packets of IPv4
		if (!v4 && ip[6] == 0)
			return 0; // the jumbo payload option would have to be taken out of every segment
		len = m->pkt_len - m->l2_len;
	}
	return len > m->pkt_len - m->l2_len || len < (uint32_t)m->l3_len ? 0 : len;
}

// Not rte_raw_cksum_mbuf(): in DPDK 22.11 it loses the carries of a segment that begins at an odd offset.
uint16_t offload_sum(const struct rte_mbuf *m, uint32_t ofs, uint32_t len)
{
	uint32_t sum = 0;

	if (likely(ofs + len <= m->data_len))
		return rte_raw_cksum(rte_pktmbuf_mtod_offset(m, const uint8_t *, ofs), len);
	for (; ofs >= m->data_len; m = m->next)
		ofs -= m->data_len;
	for (bool odd = false; len; m = m->next, ofs = 0) {
		uint32_t n = m->data_len - ofs < len ? m->data_len - ofs : len;
		uint16_t part = rte_raw_cksum(rte_pktmbuf_mtod_offset(m, const uint8_t *, ofs), n);

		sum += odd ? rte_bswap16(part) : part;
		odd ^= n & 1;
		len -= n;
	}
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

int offload_checksum(struct rte_mbuf *m)
{
	uint64_t l4 = m->ol_flags & RTE_MBUF_F_TX_L4_MASK;
	uint32_t ofs = m->l2_len + (uint32_t)m->l3_len, header = l4 == RTE_MBUF_F_TX_UDP_CKSUM ? 8 : 20;

	if (!l4)
		return 0;
	if ((l4 != RTE_MBUF_F_TX_TCP_CKSUM && l4 != RTE_MBUF_F_TX_UDP_CKSUM) || m->data_len < ofs + header)
		return -EINVAL;
	uint32_t bytes = l3_bytes(m);
	if (bytes < m->l3_len + header)
		return -EINVAL;
	// The sum runs over the field itself too, which is how the pseudo-header comes in.
	uint16_t sum = (uint16_t)~offload_sum(m, ofs, bytes - (uint32_t)m->l3_len);
	if (l4 == RTE_MBUF_F_TX_UDP_CKSUM && !sum)
		sum = 0xffff; // RFC 768: 0 means that there is none
	memcpy(rte_pktmbuf_mtod_offset(m, uint8_t *, ofs + (header == 8 ? UDP_CHECKSUM : TCP_CHECKSUM)), &sum, 2);
	m->ol_flags &= ~(uint64_t)(RTE_MBUF_F_TX_L4_MASK | RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IPV6);
	m->tx_offload = 0;
	return 0;
}

// What a packet is cut into.
struct cut {
	uint32_t headers; // bytes of all headers
	uint32_t payload; // bytes of TCP payload
	unsigned n;       // segments, 0: it can't be
};

static struct cut cut_of(const struct rte_mbuf *m)
{
	struct cut c = {.headers = m->l2_len + (uint32_t)m->l3_len + m->l4_len};
	uint32_t l3 = l3_bytes(m);

	if (!m->tso_segsz || m->l4_len < 20 || l3 < c.headers - m->l2_len)
		return c;
	c.payload = l3 - (c.headers - m->l2_len);
	c.n = c.payload ? (c.payload + m->tso_segsz - 1) / m->tso_segsz : 1;
	return c;
}

unsigned offload_segments(const struct rte_mbuf *m)
{
	return m->ol_flags & RTE_MBUF_F_TX_TCP_SEG ? cut_of(m).n : 1;
}

bool offload_append(struct rte_mbuf *to, const struct rte_mbuf *from, uint32_t ofs, uint32_t len, struct rte_mempool *pool)
{
	struct rte_mbuf *last = rte_pktmbuf_lastseg(to);

	for (; from && ofs >= from->data_len; from = from->next)
		ofs -= from->data_len;
	while (len) {
		if (!from)
			return false;
		uint32_t n = from->data_len - ofs, room = rte_pktmbuf_tailroom(last);

		if (!room) {
			struct rte_mbuf *more = rte_pktmbuf_alloc(pool);

			if (!more)
				return false;
			more->data_off = 0; // nothing is ever put in front of it
			last->next = more;
			last = more;
			to->nb_segs++;
			continue;
		}
		n = n < len ? n : len;
		n = n < room ? n : room;
		memcpy(rte_pktmbuf_mtod_offset(last, uint8_t *, last->data_len), rte_pktmbuf_mtod_offset(from, const uint8_t *, ofs), n);
		last->data_len = (uint16_t)(last->data_len + n);
		to->pkt_len += n;
		len -= n;
		ofs += n;
		if (ofs == from->data_len) {
			from = from->next;
			ofs = 0;
		}
	}
	return true;
}

static void fix_ip(uint8_t *ip, const struct rte_mbuf *m, unsigned i, uint32_t bytes)
{
	if (m->ol_flags & RTE_MBUF_F_TX_IPV4) {
		put16(ip + 2, (uint16_t)bytes);
		put16(ip + 4, (uint16_t)(get16(ip + 4) + i));
		memset(ip + 10, 0, 2);
		uint16_t sum = (uint16_t)~rte_raw_cksum(ip, m->l3_len);
		memcpy(ip + 10, &sum, 2);
	} else {
		put16(ip + 4, (uint16_t)(bytes - 40));
	}
}

static void fix_tcp(uint8_t *tcp, const struct rte_mbuf *m, const struct cut *c, unsigned i, uint32_t payload)
{
	uint32_t seq = (uint32_t)get16(tcp + TCP_SEQ) << 16 | get16(tcp + TCP_SEQ + 2), old = m->l4_len + c->payload;

	seq += i * m->tso_segsz;
	put16(tcp + TCP_SEQ, (uint16_t)(seq >> 16));
	put16(tcp + TCP_SEQ + 2, (uint16_t)seq);
	if (i + 1 < c->n)
		tcp[TCP_FLAGS] &= (uint8_t)~(TCP_FIN | TCP_PSH);
	if (i)
		tcp[TCP_FLAGS] &= (uint8_t)~TCP_CWR;
	// Only the length differs in the pseudo-header (RFC 1624); source routes and routing headers, whose last hop is in the sum, stay in it.
	uint32_t sum = get16(tcp + TCP_CHECKSUM) + (uint32_t)(uint16_t)~(old >> 16) + (uint16_t)~old + m->l4_len + payload;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	put16(tcp + TCP_CHECKSUM, (uint16_t)sum);
}

struct rte_mbuf *offload_segment(const struct rte_mbuf *m, unsigned i, struct rte_mempool *pool)
{
	struct cut c = cut_of(m);
	struct rte_mbuf *s = i < c.n && c.headers <= HEADERS_MAX ? rte_pktmbuf_alloc(pool) : NULL;

	if (!s)
		return NULL;
	uint32_t from = i * m->tso_segsz, payload = c.payload - from < m->tso_segsz ? c.payload - from : m->tso_segsz;
	if (!offload_append(s, m, 0, c.headers, pool) || !offload_append(s, m, c.headers + from, payload, pool)) {
		rte_pktmbuf_free(s);
		return NULL;
	}
	uint32_t bytes = c.headers - m->l2_len + payload;
	uint8_t *ip = rte_pktmbuf_mtod_offset(s, uint8_t *, m->l2_len);
	fix_ip(ip, m, i, bytes);
	fix_tcp(ip + m->l3_len, m, &c, i, payload);
	pkt_copy_metadata(s, m);
	s->ol_flags &= ~(uint64_t)RTE_MBUF_F_TX_TCP_SEG;
	s->tso_segsz = 0;
	struct pkt *p = pkt_of(s);
	p->l3_len = (uint16_t)bytes;
	p->seg_len = bytes;
	trace_ref(p->trace);
	return s;
}

int offload_keep_first(struct rte_mbuf *m)
{
	struct cut c = cut_of(m);
	struct pkt *p = pkt_of(m);

	if (!(m->ol_flags & RTE_MBUF_F_TX_TCP_SEG) || c.n < 2 || c.headers > m->data_len)
		return -EINVAL;
	uint32_t bytes = c.headers - m->l2_len + m->tso_segsz;
	uint64_t flags = m->ol_flags & ~(uint64_t)RTE_MBUF_F_TX_TCP_SEG;
	uint8_t *ip = rte_pktmbuf_mtod_offset(m, uint8_t *, m->l2_len);
	fix_ip(ip, m, 0, bytes);
	fix_tcp(ip + m->l3_len, m, &c, 0, m->tso_segsz);
	pkt_truncate(m, m->l2_len + bytes);
	m->ol_flags = flags;
	m->tso_segsz = 0;
	p->l3_len = (uint16_t)bytes;
	p->seg_len = bytes;
	return 0;
}

struct rte_mbuf *offload_linear(const struct rte_mbuf *m, struct rte_mempool *pool)
{
	struct rte_mbuf *s = m->pkt_len <= PKT_BUF_SIZE ? rte_pktmbuf_alloc(pool) : NULL;

	if (!s)
		return NULL;
	if (!offload_append(s, m, 0, m->pkt_len, pool)) {
		rte_pktmbuf_free(s);
		return NULL;
	}
	pkt_copy_metadata(s, m);
	return s;
}
