// tunnel_mtu: see tunnel_mtu.h.
#include "tunnel_mtu.h"
#include "notice.h"
#include "offload.h"
#include "topology.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <rte_ip.h>

enum {
	IP4 = 20,
	IP6 = 40,
	ICMP = 8,
	UDP = 8,
	UNREACHABLE = 3, // ICMP
	TOO_BIG = 2,     // ICMPv6
	FRAGMENT = 44,
	SPREAD = 0xc000, // UDP source ports of tunnels are from here on
	QUOTE_MAX = 60 + UDP + 8,
};

#define SECOND 1000000000ULL
#define APPLY_NS SECOND // not more often, whatever comes

// By the tunnel's port.
static struct path {
	struct config_ip remote;
	uint16_t mtu; // 0: nothing is known
	uint64_t until;
} paths[MAX_PORTS];
static unsigned n_known;
static uint64_t clock_now, applied_ns;
static bool stale, enabled = true;

static unsigned get16(const uint8_t *b)
{
	return (unsigned)(b[0] << 8 | b[1]);
}

bool tunnel_mtu_concerns(uint16_t router, bool v6, const uint8_t *dst, uint8_t type)
{
	const struct tunnel_table *t = rcu_read(tunnel_table);
	const struct tunnel_end *e = t ? &t->end[v6] : NULL;

	return e && e->network != TUNNEL_NO_NETWORK && e->router == router && type == (v6 ? TOO_BIG : UNREACHABLE) && !memcmp(e->ip, dst, v6 ? 16 : 4);
}

// ---- what an error says

// The packet that it is about, as far as it is quoted.
struct quote {
	bool v6;
	uint8_t b[QUOTE_MAX];
	unsigned n;     // bytes that are there
	unsigned total; // bytes that it had, layer 3
	unsigned l4;
	uint8_t proto;
	const uint8_t *src, *dst;
};

// The error itself: its checksums, its type. *mtu: what it says.
static bool read_error(struct rte_mbuf *m, bool v6, unsigned *mtu)
{
	const struct pkt *p = pkt_of(m);
	const uint8_t *d = pkt_data(p), *ip = d + p->l3_ofs;

	if (!p->l3_ofs || !p->l4_ofs || m->pkt_len < (uint32_t)p->l3_ofs + p->l3_len || m->data_len < p->l4_ofs + ICMP || p->l3_len < p->l4_ofs - p->l3_ofs + ICMP)
		return false;
	const uint8_t *icmp = d + p->l4_ofs;
	uint32_t len = (uint32_t)p->l3_ofs + p->l3_len - p->l4_ofs, sum = offload_sum(m, p->l4_ofs, len);
	if (v6) {
		uint8_t pseudo[8] = {0, 0, (uint8_t)(len >> 8), (uint8_t)len, 0, 0, 0, IPPROTO_ICMPV6};

		sum += (uint32_t)rte_raw_cksum(pseudo, 8) + rte_raw_cksum(ip + 8, 32);
		*mtu = get16(icmp + 4) ? 0xffff : get16(icmp + 6);
	} else {
		if (icmp[1] != 4 || rte_raw_cksum(ip, (ip[0] & 15u) * 4) != 0xffff)
			return false;
		*mtu = get16(icmp + 6);
	}
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

static bool read_quote(const struct rte_mbuf *m, bool v6, struct quote *q)
{
	const struct pkt *p = pkt_of((struct rte_mbuf *)(uintptr_t)m);
	unsigned at = p->l4_ofs + ICMP, end = (unsigned)p->l3_ofs + p->l3_len;
	uint8_t copy[QUOTE_MAX];

	*q = (struct quote){.v6 = v6, .n = RTE_MIN(end - at, (unsigned)QUOTE_MAX)};
	const uint8_t *b = rte_pktmbuf_read(m, at, q->n, copy);
	if (!b || q->n < (v6 ? IP6 : IP4))
		return false;
	memcpy(q->b, b, q->n);
	b = q->b;
	if (v6) {
		q->l4 = IP6;
		q->total = IP6 + get16(b + 4);
		q->proto = b[6];
		if (q->proto == FRAGMENT && q->n >= IP6 + 8 && !(get16(b + 42) & 0xfff8)) {
			q->proto = b[40];
			q->l4 += 8;
		}
	} else {
		q->l4 = (b[0] & 15u) * 4;
		q->total = get16(b + 2);
		q->proto = b[9];
		if (q->l4 < IP4 || get16(b + 6) & 0x1fff)
			return false;
	}
	q->src = b + (v6 ? 8 : 12);
	q->dst = b + (v6 ? 24 : 16);
	return b[0] >> 4 == (v6 ? 6 : 4) && q->n >= q->l4 + UDP; // RFC 792: eight bytes of it at least
}

// Whether a tunnel header stands where one of ours would.
static bool is_tunnels(const struct tunnel_table *t, const struct quote *q)
{
	const uint8_t *l4 = q->b + q->l4, *h = l4 + UDP;
	bool whole = q->n >= q->l4 + UDP + 8;

	if (q->proto == IPPROTO_GRE) // a key, or ERSPAN's sequence number
		return get16(l4) == 0x1000 || (get16(l4) == 0x2000 && !l4[4] && tunnel_find_network(t, tunnel_key(TUNNEL_GRE, (uint32_t)l4[5] << 16 | get16(l4 + 6))));
	for (enum tunnel_format f = TUNNEL_VXLAN; f <= TUNNEL_GENEVE; f++)
		if (q->proto == IPPROTO_UDP && get16(l4) >= SPREAD && get16(l4 + 2) == tunnel_desc[f].port)
			return !whole || tunnel_find_network(t, tunnel_key(f, (uint32_t)h[4] << 16 | get16(h + 5)));
	return false;
}

// Of routers that don't say (RFC 1191 section 5): the next one of section 7.1 below.
static unsigned guess(unsigned total)
{
	static const uint16_t plateau[] = {8166, 4352, 2002, 1492, 1006};

	for (unsigned i = 0; i < sizeof plateau / sizeof plateau[0]; i++)
		if (plateau[i] < total)
			return plateau[i];
	return TUNNEL_MTU_MIN4;
}

static void say(const struct path *p, uint16_t port, const char *sentence)
{
	char ip[INET6_ADDRSTRLEN] = "", mtu[8];
	const struct log_field fields[] = {{"port", lport_name(port)}, {"remote", ip}, {"mtu", mtu}, {NULL, NULL}};

	inet_ntop(p->remote.v6 ? AF_INET6 : AF_INET, p->remote.b, ip, sizeof ip);
	snprintf(mtu, sizeof mtu, "%u", p->mtu);
	notice('i', "tunnel", fields, "%s", sentence);
}

bool tunnel_mtu_learn(struct rte_mbuf *m)
{
	const struct tunnel_table *t = tunnel_table;
	bool v6 = pkt_of(m)->ethertype == 0x86dd;
	struct quote q;
	unsigned mtu;

	if (!enabled || !t || !read_error(m, v6, &mtu) || !read_quote(m, v6, &q) || memcmp(q.src, t->end[v6].ip, v6 ? 16 : 4) || !is_tunnels(t, &q))
		return false;
	uint16_t port = tunnel_find_remote(t, v6, q.dst);
	mtu = mtu || v6 ? mtu : guess(q.total);
	if (!port || mtu >= q.total)
		return false;
	mtu = RTE_MAX(mtu, (unsigned)(v6 ? TUNNEL_MTU_MIN6 : TUNNEL_MTU_MIN4));
	struct path *p = &paths[port];
	if (p->mtu && mtu > p->mtu)
		return true; // of a packet that left before
	bool news = p->mtu != mtu;
	n_known += !p->mtu;
	p->remote = (struct config_ip){.v6 = v6};
	memcpy(p->remote.b, q.dst, v6 ? 16 : 4);
	p->mtu = (uint16_t)mtu;
	p->until = clock_now + TUNNEL_MTU_S * SECOND;
	stale |= news;
	if (news)
		say(p, port, "a router on the way to the tunnel's other end takes smaller packets only");
	return true;
}

// ---- what follows

uint16_t tunnel_mtu_path(const struct config_ip *remote, unsigned *seconds)
{
	for (unsigned i = 0; n_known && i < MAX_PORTS; i++) {
		const struct path *p = &paths[i];

		if (!p->mtu || p->remote.v6 != remote->v6 || memcmp(p->remote.b, remote->b, remote->v6 ? 16 : 4))
			continue;
		if (seconds)
			*seconds = (unsigned)(p->until > clock_now ? (p->until - clock_now) / SECOND : 0);
		return p->mtu;
	}
	return 0;
}

uint16_t tunnel_mtu_inner(const struct config_ip *remote, unsigned mtu, unsigned overhead)
{
	unsigned path = tunnel_mtu_path(remote, NULL), room = path > overhead + TUNNEL_MTU_INNER ? path - overhead : TUNNEL_MTU_INNER;

	return (uint16_t)(path && room < mtu ? room : mtu);
}

static void forget(struct path *p)
{
	p->mtu = 0;
	n_known--;
	stale = true;
}

bool tunnel_mtu_stale(void)
{
	return stale && (!applied_ns || clock_now - applied_ns >= APPLY_NS);
}

void tunnel_mtu_prepare(const struct config *c)
{
	enabled = config_map_bool(&c->other_config, "tunnel-path-mtu", true);
	for (unsigned i = 0; n_known && !enabled && i < MAX_PORTS; i++)
		if (paths[i].mtu)
			forget(&paths[i]);
}

void tunnel_mtu_reconcile(const struct tunnel_table *t)
{
	for (unsigned i = 0; n_known && i < MAX_PORTS; i++)
		if (paths[i].mtu && tunnel_find_remote(t, paths[i].remote.v6, paths[i].remote.b) != i)
			forget(&paths[i]);
	stale = false;
	applied_ns = clock_now;
}

void tunnel_mtu_tick(uint64_t now)
{
	clock_now = now;
	for (unsigned i = 0; n_known && i < MAX_PORTS; i++) {
		struct path *p = &paths[i];

		if (!p->mtu || now < p->until)
			continue;
		say(p, (uint16_t)i, "the path to the tunnel's other end is tried with large packets again");
		forget(p);
	}
}

void tunnel_mtu_fini(void)
{
	memset(paths, 0, sizeof paths);
	n_known = 0;
	stale = false;
}
