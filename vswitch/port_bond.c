// port_bond: the device of a bond's port: picks the member that a packet leaves by. See bond.h.
#include "bond.h"
#include "egress.h"
#include "field.h"
#include "key.h"
#include "parse.h"
#include "sentence.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bond *bonds;

static bool is_mac(const char *s)
{
	unsigned b[6];
	int end = 0;

	return sscanf(s, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) == 6 && !s[end] && !(b[0] & 1);
}

static int read_options(struct bond *b, const struct port_open *o, char **error)
{
	const struct config_map *m = &o->config->options;
	const char *mode = config_map_get(m, "bond-mode", "active-backup"), *hash = config_map_get(m, "bond-hash", "l3+l4"), *bad = NULL;
	const char *system = config_map_get(m, "lacp-system", "");
	uint64_t updelay = config_map_uint(m, "bond-updelay", 0, 0, 600000, &bad), priority = config_map_uint(m, "lacp-system-priority", 32768, 1, 65535, &bad);

	if (*system && !is_mac(system))
		return sentence_fail(-EINVAL, error, "options: lacp-system must be an Ethernet address of a station, such as 02:00:00:00:00:01, not \"%s\"", system);
	if (bad)
		return sentence_fail(-EINVAL, error, "options: %s is not right: see weir-db(5)", bad);
	b->mode = !strcmp(mode, "802.3ad") ? BOND_LACP : !strcmp(mode, "balance") ? BOND_BALANCE : BOND_ACTIVE_BACKUP;
	b->hash = !strcmp(hash, "l2") ? BOND_L2 : !strcmp(hash, "l2+l3") ? BOND_L23 : BOND_L34;
	b->updelay_ns = updelay * 1000000;
	b->lacp_priority = (uint16_t)priority;
	b->lacp_active = strcmp(config_map_get(m, "lacp", "active"), "passive") != 0;
	b->lacp_fast = !strcmp(config_map_get(m, "lacp-time", "slow"), "fast");
	b->fallback = config_map_bool(m, "lacp-fallback", false);
	snprintf(b->primary, sizeof b->primary, "%s", config_map_get(m, "bond-primary", ""));
	snprintf(b->members, sizeof b->members, "%s", config_map_get(m, "members", ""));
	snprintf(b->lacp_system, sizeof b->lacp_system, "%s", system);
	snprintf(b->name, sizeof b->name, "%s", o->config->name);
	return 0;
}

static int open_bond(const struct port_open *o, void **dev, char **error)
{
	struct bond *b = calloc(1, sizeof *b);

	if (!b)
		return sentence_fail(-ENOMEM, error, "out of memory");
	int rc = read_options(b, o, error);
	if (rc) {
		free(b);
		return rc;
	}
	b->port = o->config->id;
	b->next = bonds;
	bonds = b;
	bond_changed();
	*dev = b;
	return 0;
}

// Nothing is closed and opened again: members come and go by bond_run().
static int reconfigure(void *dev, const struct port_open *o, char **error)
{
	bond_changed();
	return read_options(dev, o, error);
}

static void close_bond(void *dev)
{
	struct bond *b = dev;

	for (struct bond **at = &bonds; *at; at = &(*at)->next)
		if (*at == b) {
			*at = b->next;
			break;
		}
	free(b->announce);
	free(b);
	bond_changed();
}

static void __attribute__((format(printf, 3, 4))) status(struct port_state *s, const char *key, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	snprintf(s->status[s->n_status].key, sizeof s->status[0].key, "%s", key);
	vsnprintf(s->status[s->n_status++].value, sizeof s->status[0].value, fmt, args);
	va_end(args);
}

static void list_members(const struct bond *b, uint32_t which, char *text, size_t room)
{
	text[0] = '\0';
	for (unsigned i = 0; i < BOND_MEMBERS; i++) {
		const struct port *p = b->member[i].port && (which >> i & 1) ? port_get(b->member[i].port) : NULL;

		if (p)
			snprintf(text + strlen(text), room - strlen(text), "%s%s", text[0] ? " " : "", p->name);
	}
}

static void state_of(void *dev, struct port_state *s)
{
	static const char *const modes[] = {"active-backup", "balance", "802.3ad"};
	const struct bond *b = dev;
	char text[96];

	s->numa_node = -1;
	s->link_up = b->sending != 0;
	list_members(b, ~0u, text, sizeof text);
	if (b->missing[0])
		snprintf(s->problem, sizeof s->problem, "member %s: there is no such port, or it can't be a member: members are ports of type kernel, dpdk or tap", b->missing);
	else if (!text[0])
		snprintf(s->problem, sizeof s->problem, "it has no members: name them in options:members");
	else if (!b->sending)
		snprintf(s->problem, sizeof s->problem, b->mode == BOND_LACP ? "no member is up and has agreed with a partner by LACP" : "no member is up");
	status(s, "mode", "%s", modes[b->mode]);
	status(s, "members", "%s", text);
	list_members(b, b->sending, text, sizeof text);
	status(s, "sending", "%s", text);
	status(s, "changes", "%lu", (unsigned long)b->changes);
}

static int room(void *dev, uint16_t q)
{
	const struct bond *b = dev;
	const struct port_dev *d = q < BOND_MEMBERS ? b->member[q].device : NULL;

	return d && d->ops->room ? d->ops->room(d->dev, 0) : -1;
}

static int rx_fd(void *dev, uint16_t q)
{
	return -1;
}

static uint32_t rx_queues(void *dev)
{
	return 0;
}

// A queue is a member's place.
static uint32_t tx_queues(void *dev)
{
	return __atomic_load_n(&((struct bond *)dev)->sending, __ATOMIC_RELAXED);
}

static unsigned caps(void *dev)
{
	return __atomic_load_n(&((struct bond *)dev)->caps, __ATOMIC_RELAXED);
}

static uint32_t mix(uint32_t h)
{
	h ^= h >> 16;
	h *= 0x85ebca6bu;
	h ^= h >> 13;
	h *= 0xc2b2ae35u;
	return h ^ h >> 16;
}

static uint32_t hash_of(const struct bond *b, struct rte_mbuf *m)
{
	const struct pkt *p = pkt_of(m);
	struct flow_key k = {0};

	if (b->hash == BOND_L34)
		return parse_flow_hash(m);
	const uint8_t *data = rte_pktmbuf_mtod(m, const uint8_t *);
	if (m->data_len >= 12)
		memcpy(k.dst, data, 12);
	if (b->hash == BOND_L23 && p->l3_ofs && p->ethertype == FIELD_ETH_IPV4 && m->data_len >= p->l3_ofs + 20)
		memcpy(&k.v4, data + p->l3_ofs + 12, 8);
	else if (b->hash == BOND_L23 && p->l3_ofs && p->ethertype == FIELD_ETH_IPV6 && m->data_len >= p->l3_ofs + 40)
		memcpy(&k.v6, data + p->l3_ofs + 8, 32);
	return (uint32_t)(key_hash(&k, KEY_LEN_V6) >> 32);
}

// Rendezvous hashing: of a member that goes only the flows move, and of one that comes only its share.
static unsigned pick(void *dev, struct rte_mbuf *m, uint32_t queues)
{
	uint32_t h = hash_of(dev, m), most = 0;
	unsigned best = (unsigned)__builtin_ctz(queues);

	for (; queues; queues &= queues - 1) {
		unsigned q = (unsigned)__builtin_ctz(queues);
		uint32_t weight = mix(h ^ (q + 1) * 0x9e3779b9u);

		if (weight >= most) {
			most = weight;
			best = q;
		}
	}
	return best;
}

static uint16_t rx(void *dev, uint16_t q, struct rte_mempool *pool, struct rte_mbuf **m, uint16_t n)
{
	return 0;
}

static uint16_t tx(void *dev, uint16_t q, unsigned worker, struct rte_mbuf **m, uint16_t n)
{
	struct bond *b = dev;
	const struct port_dev *d = q < BOND_MEMBERS ? rcu_read(b->member[q].device) : NULL;
	uint32_t queues = d ? d->ops->tx_queues(d->dev) : 0, len[TX_BATCH];
	uint64_t bytes = 0;

	if (!queues)
		return 0; // the sender tries again, by another one
	if (n > TX_BATCH)
		n = TX_BATCH;
	for (uint16_t i = 0; i < n; i++)
		len[i] = m[i]->pkt_len; // afterwards they are the device's
	uint16_t taken = d->ops->tx(d->dev, (uint16_t)__builtin_ctz(queues), worker, m, n);
	if (!d->ops->tx_keeps)
		rte_pktmbuf_free_bulk(m, taken);
	for (uint16_t i = 0; i < taken; i++)
		bytes += len[i];
	struct bond_count *c = &b->count[worker % MAX_WORKERS][q];
	__atomic_store_n(&c->tx_packets, c->tx_packets + taken, __ATOMIC_RELAXED);
	__atomic_store_n(&c->tx_bytes, c->tx_bytes + bytes, __ATOMIC_RELAXED);
	return taken;
}

static int rx_arm(void *dev, uint16_t q, bool on)
{
	return -ENOTSUP;
}

const struct port_ops port_ops_bond = {
	.type = "bond",
	.open = open_bond,
	.reconfigure = reconfigure,
	.close = close_bond,
	.state = state_of,
	.room = room,
	.rx_fd = rx_fd,
	.rx_queues = rx_queues,
	.tx_queues = tx_queues,
	.caps = caps,
	.rx = rx,
	.tx = tx,
	.rx_arm = rx_arm,
	.pick = pick,
	.tx_keeps = true,
};
