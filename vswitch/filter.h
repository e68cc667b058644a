// filter: filter expressions of tcpdump, for whole frames with their tags.
#ifndef VSWITCH_FILTER_H
#define VSWITCH_FILTER_H

#include <stdbool.h>
#include <pcap/pcap.h>
#include <rte_mbuf.h>

#define FILTER_HEAD 2048 // bytes of a packet that a filter sees, if they are in several buffers

// Main thread. 0, or -EINVAL and *error (sentence.h). pcap_freecode() at the end.
int filter_compile(struct bpf_program *, const char *expression, char **error);

// Any thread.
static inline bool filter_match(const struct bpf_program *f, const struct rte_mbuf *m)
{
	uint8_t head[FILTER_HEAD];
	uint32_t n = m->data_len;
	const uint8_t *bytes = rte_pktmbuf_mtod(m, const uint8_t *);

	if (m->nb_segs > 1) {
		n = m->pkt_len < FILTER_HEAD ? m->pkt_len : FILTER_HEAD;
		bytes = rte_pktmbuf_read(m, 0, n, head);
	}
	return bpf_filter(f->bf_insns, bytes, m->pkt_len, n) != 0;
}

#endif
