// pkt: buffers, clones and tags.
#include "pkt.h"

#include <errno.h>
#include <string.h>
#include <rte_errno.h>

struct rte_mempool *pkt_pool_create(const char *name, unsigned n, int socket)
{
	unsigned cache = n >= 4096 ? 256 : n / 16;

	return rte_pktmbuf_pool_create(name, n, cache, sizeof(struct pkt), RTE_PKTMBUF_HEADROOM + PKT_BUF_SIZE, socket);
}

void pkt_copy_metadata(struct rte_mbuf *to, const struct rte_mbuf *from)
{
	to->port = from->port;
	to->ol_flags = (to->ol_flags & (RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL)) |
		       (from->ol_flags & ~(RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL));
	to->tx_offload = from->tx_offload;
	to->packet_type = from->packet_type;
	to->vlan_tci = from->vlan_tci; // pkt_arrival()
	to->hash = from->hash;
	*pkt_of(to) = *(const struct pkt *)rte_mbuf_to_priv((struct rte_mbuf *)(uintptr_t)from);
}

struct rte_mbuf *pkt_clone(struct rte_mbuf *m, struct rte_mempool *pool)
{
	struct rte_mbuf *c = rte_pktmbuf_clone(m, pool);

	if (c)
		*pkt_of(c) = *pkt_of(m);
	return c;
}

static bool is_own(struct rte_mbuf *m)
{
	return RTE_MBUF_DIRECT(m) && rte_mbuf_refcnt_read(m) == 1;
}

struct rte_mbuf *pkt_own_headers(struct rte_mbuf *m, uint16_t len, struct rte_mempool *pool)
{
	if (len > m->pkt_len)
		len = (uint16_t)m->pkt_len;
	if (is_own(m) && m->data_len >= len)
		return m;
	if (len > PKT_BUF_SIZE)
		return NULL;
	struct rte_mbuf *head = rte_pktmbuf_alloc(pool);
	if (!head)
		return NULL;
	const void *bytes = rte_pktmbuf_read(m, 0, len, rte_pktmbuf_mtod(head, void *));
	if (bytes != rte_pktmbuf_mtod(head, void *))
		memcpy(rte_pktmbuf_mtod(head, void *), bytes, len);
	head->data_len = len;
	head->pkt_len = m->pkt_len;
	pkt_copy_metadata(head, m);
	// Take the copied bytes off the front; segments that are used up go back.
	uint32_t left = len;
	struct rte_mbuf *rest = m;
	uint16_t segs = m->nb_segs;
	while (rest && left >= rest->data_len) {
		struct rte_mbuf *next = rest->next;

		left -= rest->data_len;
		rest->next = NULL;
		rest->nb_segs = 1;
		rte_pktmbuf_free_seg(rest);
		rest = next;
		segs--;
	}
	if (rest) {
		rest->data_off += (uint16_t)left;
		rest->data_len -= (uint16_t)left;
	}
	head->next = rest;
	head->nb_segs = (uint16_t)(segs + 1);
	return head;
}

void pkt_truncate(struct rte_mbuf *m, uint32_t len)
{
	struct pkt *p = pkt_of(m);
	uint32_t cut = m->pkt_len - len, left = len;
	struct rte_mbuf *s = m;
	uint16_t segs = 1;

	for (; left > s->data_len; s = s->next, segs++)
		left -= s->data_len;
	s->data_len = (uint16_t)left;
	rte_pktmbuf_free(s->next);
	s->next = NULL;
	m->nb_segs = segs;
	m->pkt_len = len;
	m->ol_flags &= ~RTE_MBUF_F_TX_OFFLOAD_MASK;
	p->l3_len = p->l3_len > cut ? (uint16_t)(p->l3_len - cut) : 0;
	p->seg_len = len > 14u + 4u * p->n_tags ? len - 14 - 4u * p->n_tags : 0;
}

int pkt_apply_vlan(struct rte_mbuf *m)
{
	struct pkt *p = pkt_of(m);
	uint8_t *data = rte_pktmbuf_mtod(m, uint8_t *);
	uint16_t be;

	switch (p->vlan_op) {
	case VLAN_OP_POP:
		memmove(data + 4, data, 12);
		rte_pktmbuf_adj(m, 4);
		p->l3_ofs -= p->l3_ofs ? 4 : 0;
		p->l4_ofs -= p->l4_ofs ? 4 : 0;
		p->n_tags--;
		if (m->l2_len)
			m->l2_len -= 4;
		break;
	case VLAN_OP_PUSH:
		if (!rte_pktmbuf_prepend(m, 4))
			return -ENOSPC;
		data = rte_pktmbuf_mtod(m, uint8_t *);
		memmove(data, data + 4, 12);
		be = rte_cpu_to_be_16(p->qinq);
		memcpy(data + 12, &be, 2);
		be = rte_cpu_to_be_16(p->vlan_tci);
		memcpy(data + 14, &be, 2);
		p->l3_ofs += p->l3_ofs ? 4 : 0;
		p->l4_ofs += p->l4_ofs ? 4 : 0;
		p->n_tags++;
		if (m->l2_len)
			m->l2_len += 4;
		break;
	case VLAN_OP_SET:
		be = rte_cpu_to_be_16(p->qinq);
		if (p->qinq)
			memcpy(data + 12, &be, 2);
		be = rte_cpu_to_be_16(p->vlan_tci);
		memcpy(data + 14, &be, 2);
		break;
	default:
		break;
	}
	p->vlan_op = VLAN_OP_NONE;
	return 0;
}
