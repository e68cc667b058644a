// mss: lowers the maximum segment size that TCP tells its peer (RFC 9293 section 3.7.1) to what fits where the packet comes from and where it goes, so that
// connections through a tunnel or a smaller network need no path MTU discovery. Only SYN packets have the option; they are a traffic class of their own.
#include "mtu.h"
#include "parse.h"
#include "stage.h"

extern struct stage stage_mss;

enum {
	ETH_IPV4 = 0x0800,
	TCP = 20,
	CHECKSUM = 16,
	OPTION_END = 0,
	OPTION_NOP = 1,
	OPTION_MSS = 2,
};

struct record {
	uint16_t was, now; // now 0: there is no such option
};

static unsigned least(unsigned a, unsigned b)
{
	return b && b < a ? b : a;
}

// Layer 3 that fits through both ends.
static unsigned mtu_between(const struct pkt *p)
{
	const struct lport *in = lport_get(p->in_port);
	const struct network *from = network_get(mtu_ingress_network(p));

	return least(least(in ? in->mtu : 0xffff, mtu_limit(p, p->network != mtu_ingress_network(p))), from ? from->mtu : 0);
}

static uint16_t mss_resolve(struct resolve *r)
{
	struct flow *f = r->flow;
	const struct lport *out = f->out_kind == OUT_PORT ? lport_get(f->out) : NULL;
	const struct network *net = f->adj ? r->net : NULL; // that it is routed into; decisions depend on it by then
	unsigned to = out ? net && net->mtu < out->mtu ? net->mtu : out->mtu : 0;

	// Between equals each end says what fits by itself, if it knows.
	if (r->pkt->class != CLASS_TCP_SYN || (to == r->in->mtu && r->in->kind != PORT_TUNNEL && !(r->net && r->net->overlay)))
		f->stages &= ~(1ULL << stage_mss.index);
	return 0;
}

// Where the option's value is; NULL: there is none. `tcp`: len bytes of header.
static uint8_t *find(uint8_t *tcp, unsigned len)
{
	for (unsigned at = TCP; at < len && tcp[at] != OPTION_END;) {
		if (tcp[at] == OPTION_NOP) {
			at++;
			continue;
		}
		if (at + 2 > len || tcp[at + 1] < 2 || tcp[at + 1] > len - at)
			return NULL;
		if (tcp[at] == OPTION_MSS)
			return tcp[at + 1] == 4 ? tcp + at + 2 : NULL;
		at += tcp[at + 1];
	}
	return NULL;
}

// The header's checksum is right after the two bytes at `at` have become `value` (RFC 1624, equation 3); one that is partial covers addresses only.
static void set(struct rte_mbuf *m, uint8_t *tcp, uint8_t *at, uint16_t value)
{
	uint16_t was = (uint16_t)(at[0] << 8 | at[1]), now = value;

	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
	if (m->ol_flags & RTE_MBUF_F_TX_L4_MASK)
		return;
	if ((at - tcp) % 2) {
		was = rte_bswap16(was);
		now = rte_bswap16(now);
	}
	uint32_t sum = (uint16_t)~(tcp[CHECKSUM] << 8 | tcp[CHECKSUM + 1]) + (uint32_t)(uint16_t)~was + now;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (uint16_t)~(sum + (sum >> 16));
	tcp[CHECKSUM] = (uint8_t)(sum >> 8);
	tcp[CHECKSUM + 1] = (uint8_t)sum;
}

static void mss_run(struct worker *w, struct pkt **p, uint16_t n)
{
	for (unsigned i = 0; i < n; i++) {
		struct rte_mbuf *m = pkt_mbuf(p[i]);
		unsigned headers = p[i]->ethertype == ETH_IPV4 ? 20 + TCP : 40 + TCP, mtu = mtu_between(p[i]);
		unsigned fits = mtu > headers + PARSE_MIN_SEGMENT ? mtu - headers : PARSE_MIN_SEGMENT;
		struct record r = {0, 0};

		if (p[i]->class != CLASS_TCP_SYN || p[i]->flags & FLOW_COPY || !p[i]->l4_len || p[i]->l4_ofs + p[i]->l4_len > m->data_len)
			continue;
		uint8_t *tcp = rte_pktmbuf_mtod_offset(m, uint8_t *, p[i]->l4_ofs), *at = find(tcp, p[i]->l4_len);
		if (at) {
			r.was = r.now = (uint16_t)(at[0] << 8 | at[1]);
			if (r.was > fits)
				set(m, tcp, at, r.now = (uint16_t)fits);
		}
		if (unlikely(p[i]->trace))
			trace_put(p[i]->trace, stage_mss.index, &r, sizeof r);
	}
}

static void mss_format(struct buf *b, const void *record, uint16_t size)
{
	const struct record *r = record;

	if (!r->now)
		buf_add(b, "the SYN says no segment size");
	else if (r->now == r->was)
		buf_add(b, "segments of %u bytes fit", r->was);
	else
		buf_add(b, "segments of %u bytes would not fit: %u", r->was, r->now);
}

// It has no reasons to drop for, which STAGE() wants.
struct stage stage_mss = {.name = "mss", .resolve = mss_resolve, .run = mss_run, .format = mss_format, .egress = true, .writes = true};
