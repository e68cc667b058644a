// station_table: see station_table.h.
#include "station_table.h"
#include "fdb.h"
#include "key.h"
#include "rcu.h"
#include "table_stat.h"
#include "topology.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <rte_hash.h>
#include <rte_rcu_qsbr.h>

struct station_key {
	uint16_t network;
	uint8_t v6, zero;
	uint8_t ip[16];
};
static_assert(sizeof(struct station_key) == 20, "it is hashed by words");

// The value of an entry, replaced as a whole.
struct value {
	uint8_t mac[6];
	uint16_t port;
};
static_assert(sizeof(struct value) == sizeof(void *), "a value is stored in place of a pointer");

// What changes on its own, by the entry's index.
struct side {
	uint32_t seen;
	bool is_static, router;
	bool wanted; // main thread, while it configures
};

static struct rte_hash *hash;
static struct side *side;
static uint32_t port_count[MAX_PORTS]; // learned ones
static uint32_t cursor;
static uint32_t version;

static uint32_t hash_key(const void *key, uint32_t len, uint32_t init)
{
	uint64_t a, b;
	uint32_t c;

	memcpy(&c, key, 4);
	memcpy(&a, (const uint8_t *)key + 4, 8);
	memcpy(&b, (const uint8_t *)key + 12, 8);
	return (uint32_t)key_mum(key_mum(a ^ key_secret[0], b ^ key_secret[1]) ^ c, key_secret[2]);
}

static struct station_key key_of(uint16_t network, const struct config_ip *ip)
{
	struct station_key k = {.network = network, .v6 = ip->v6};

	memcpy(k.ip, ip->b, ip->v6 ? 16 : 4);
	return k;
}

static void *from_value(struct value v)
{
	void *p;

	memcpy(&p, &v, sizeof p);
	return p;
}

static struct value to_value(void *p)
{
	struct value v;

	memcpy(&v, &p, sizeof v);
	return v;
}

static void fill(struct station *s, const struct station_key *k, struct value v, int32_t at)
{
	*s = (struct station){
		.network = k->network,
		.port = v.port,
		.ip.v6 = k->v6,
		.is_static = __atomic_load_n(&side[at].is_static, __ATOMIC_RELAXED),
		.router = __atomic_load_n(&side[at].router, __ATOMIC_RELAXED),
		.seen = __atomic_load_n(&side[at].seen, __ATOMIC_RELAXED),
	};
	memcpy(s->mac, v.mac, 6);
	memcpy(s->ip.b, k->ip, 16);
	// One on another host is behind the tunnel that its MAC is behind.
	struct fdb_entry e;
	if (!v.port && fdb_lookup(fdb_key(k->network, v.mac), &e))
		s->port = e.port;
}

bool station_lookup(uint16_t network, const struct config_ip *ip, struct station *s)
{
	struct station_key k = key_of(network, ip);
	void *data;
	int32_t at = hash ? rte_hash_lookup_data(hash, &k, &data) : -1;

	if (at < 0)
		return false;
	fill(s, &k, to_value(data), at);
	return true;
}

bool station_is_news(uint16_t network, const struct config_ip *ip, const uint8_t mac[6], uint16_t port, bool router,
		     uint32_t now_s)
{
	struct station s;

	if (!station_lookup(network, ip, &s))
		return true;
	if (router && !s.router && !memcmp(s.mac, mac, 6))
		return true;
	return !s.is_static && (s.port != port || memcmp(s.mac, mac, 6) || now_s - s.seen >= STATION_NEWS_S);
}

// ---- main thread

static void forget(const struct station_key *k, struct value v, int32_t at)
{
	rte_hash_del_key(hash, k);
	if (!side[at].is_static)
		port_count[v.port & (MAX_PORTS - 1)]--;
}

// Makes or changes the entry. Its index; negative: there is no room.
static int32_t put(const struct station_key *k, struct value v)
{
	version++;
	if (rte_hash_add_key_data(hash, k, from_value(v)))
		return -1;
	return rte_hash_lookup(hash, k);
}

void station_seen(uint16_t network, const struct config_ip *ip, const uint8_t mac[6], uint16_t port, bool router,
		  uint32_t now_s)
{
	struct station_key k = key_of(network, ip);
	struct value v = {.port = port};
	void *data;
	int32_t at = rte_hash_lookup_data(hash, &k, &data);

	memcpy(v.mac, mac, 6);
	if (at >= 0) {
		struct value old = to_value(data);
		bool same = !memcmp(old.mac, mac, 6);

		if (same && router)
			__atomic_store_n(&side[at].router, true, __ATOMIC_RELAXED);
		if (side[at].is_static)
			return;
		__atomic_store_n(&side[at].seen, now_s, __ATOMIC_RELAXED);
		if (same && old.port == port)
			return;
		if (!same)
			__atomic_store_n(&side[at].router, router, __ATOMIC_RELAXED);
		port_count[old.port & (MAX_PORTS - 1)]--;
		port_count[port & (MAX_PORTS - 1)]++;
		put(&k, v);
		return;
	}
	if (port_count[port & (MAX_PORTS - 1)] >= STATION_PORT_MAX)
		return;
	at = put(&k, v);
	if (at < 0)
		return;
	side[at] = (struct side){.seen = now_s, .router = router};
	port_count[port & (MAX_PORTS - 1)]++;
}

static void set_static(uint16_t network, uint16_t port, const uint8_t mac[6], const struct config_ip *ip)
{
	struct station_key k = key_of(network, ip);
	struct value v = {.port = port};
	struct station old;

	memcpy(v.mac, mac, 6);
	bool had = station_lookup(network, ip, &old);
	if (had && !old.is_static)
		port_count[old.port & (MAX_PORTS - 1)]--;
	int32_t at = had && (!port || old.port == port) && !memcmp(old.mac, mac, 6) ? rte_hash_lookup(hash, &k) : put(&k, v);
	if (at >= 0)
		side[at] = (struct side){.is_static = true, .router = had && old.router, .wanted = true};
}

static uint16_t network_id(const struct config *c, const struct row_id *row)
{
	for (size_t i = 0; i < c->n_networks; i++)
		if (row_id_equal(&c->networks[i].row, row))
			return c->networks[i].id;
	return 0;
}

static bool is_member(uint16_t port, uint16_t network)
{
	const struct lport *lp = lport_get(port);
	const struct network *net = network_get(network);

	return lp && net &&
	       (lp->untagged.network == network ||
		(lp->vlans && lp->vlans[lp->kind == PORT_TUNNEL ? network : net->vlan].network == network));
}

// Removes what `which` says. Returns how many.
static unsigned remove_if(bool (*which)(const struct station *, int32_t at, const void *arg), const void *arg)
{
	uint32_t next = 0;
	unsigned n = 0;
	const void *k;
	void *data;
	int32_t at;

	while ((at = rte_hash_iterate(hash, &k, &data, &next)) >= 0) {
		struct station_key key;
		struct station s;

		memcpy(&key, k, sizeof key);
		fill(&s, &key, to_value(data), at);
		if (which(&s, at, arg)) {
			forget(&key, to_value(data), at);
			n++;
		}
	}
	return n;
}

static bool is_unwanted(const struct station *s, int32_t at, const void *arg)
{
	return s->is_static ? !side[at].wanted : !is_member(s->port, s->network);
}

int station_configure(const struct config *c)
{
	for (uint32_t i = 0; i <= (uint32_t)rte_hash_max_key_id(hash); i++)
		side[i].wanted = false;
	for (size_t i = 0; i < c->n_ports; i++) {
		const struct config_port *cp = &c->ports[i];
		uint16_t network = cp->n_addresses && !cp->error ? network_id(c, &cp->network) : 0;

		for (size_t a = 0; network && a < cp->n_addresses; a++)
			for (size_t k = 0; k < cp->addresses[a].n_ips; k++)
				set_static(network, cp->id, cp->addresses[a].mac, &cp->addresses[a].ip[k]);
	}
	const struct config_remote_mac *last = NULL; // they come in rows of one network
	uint16_t network = 0;
	for (size_t i = 0; i < c->n_remote_macs; i++) {
		const struct config_remote_mac *rm = &c->remote_macs[i];

		if (rm->error || !rm->n_ips)
			continue;
		if (!last || !row_id_equal(&last->network, &rm->network))
			network = network_id(c, &rm->network);
		last = rm;
		for (size_t k = 0; network && k < rm->n_ips; k++)
			set_static(network, 0, rm->mac, &rm->ips[k]);
	}
	remove_if(is_unwanted, NULL);
	return 0;
}

static bool is_old(const struct station_key *k, struct value v, int32_t at, uint32_t now_s)
{
	uint32_t age = now_s - side[at].seen;
	struct fdb_entry e;

	if (side[at].is_static || age < STATION_AGE_S || (int32_t)age < 0)
		return false;
	// Where the switch answers for it, its ARP may not be heard for long, but its packets are.
	return age >= STATION_AGE_MAX_S || !fdb_lookup(fdb_key(k->network, v.mac), &e) || e.port != v.port;
}

void station_age(uint32_t now_s, unsigned budget)
{
	const void *k;
	void *data;

	while (budget--) {
		int32_t at = rte_hash_iterate(hash, &k, &data, &cursor);
		struct station_key key;

		if (at < 0) {
			cursor = 0;
			return;
		}
		memcpy(&key, k, sizeof key);
		if (is_old(&key, to_value(data), at, now_s))
			forget(&key, to_value(data), at);
	}
}

static bool is_to_flush(const struct station *s, int32_t at, const void *arg)
{
	uint16_t network = *(const uint16_t *)arg;

	return !s->is_static && (!network || s->network == network);
}

unsigned station_flush(uint16_t network)
{
	return remove_if(is_to_flush, &network);
}

uint32_t station_version(void)
{
	return version;
}

uint32_t station_high(void)
{
	return (uint32_t)rte_hash_max_key_id(hash) + 1;
}

bool station_at(uint32_t index, struct station *s)
{
	struct station_key key;
	void *k, *data;

	if (index >= station_high() || rte_hash_get_key_with_position(hash, (int32_t)index, &k))
		return false;
	memcpy(&key, k, sizeof key);
	// A key that has just been moved out of this place is in another one.
	if (rte_hash_lookup_data(hash, &key, &data) != (int32_t)index)
		return false;
	fill(s, &key, to_value(data), (int32_t)index);
	return true;
}

const struct station *station_find(uint16_t network, bool v6, const uint8_t *b, bool *several)
{
	static struct station found, other;
	struct config_ip ip = {.v6 = v6};
	unsigned n = 0;

	memcpy(ip.b, b, v6 ? 16 : 4);
	for (uint16_t i = network ? network : 1; i < (network ? network + 1 : MAX_NETWORKS); i++)
		if (station_lookup(i, &ip, n ? &other : &found))
			n++;
	if (several)
		*several = n > 1;
	return n ? &found : NULL;
}

const struct station *station_of(uint16_t network, uint16_t port, bool v6, const uint8_t *mac)
{
	static struct station found;
	bool any = false;

	for (uint32_t i = 0; i < station_high(); i++) {
		struct station s;

		if (!station_at(i, &s) || s.network != network || s.port != port || s.ip.v6 != v6 ||
		    (mac && memcmp(s.mac, mac, 6)))
			continue;
		if (any && (found.is_static || !s.is_static)) // what the operator says comes first
			continue;
		found = s;
		any = true;
	}
	return any ? &found : NULL;
}

// ---- set up

static void fill_each(table_fill_fn *fn, void *arg)
{
	fn(arg, NULL, (uint64_t)rte_hash_count(hash), STATION_MAX);
}

static struct table_stat fill_stat = {
	.name = "station", .help = "IP addresses of stations, configured and learned", .each = fill_each};

int station_init(void)
{
	key_init(); // the secret of the hash
	struct rte_hash_parameters params = {
		.name = "station",
		.entries = STATION_MAX,
		.key_len = sizeof(struct station_key),
		.hash_func = hash_key,
		.socket_id = SOCKET_ID_ANY,
		.extra_flag = RTE_HASH_EXTRA_FLAGS_RW_CONCURRENCY_LF | RTE_HASH_EXTRA_FLAGS_EXT_TABLE,
	};
	struct rte_hash_rcu_config rcu = {.v = rcu_variable(), .mode = RTE_HASH_QSBR_MODE_DQ};

	hash = rte_hash_create(&params);
	if (!hash || rte_hash_rcu_qsbr_add(hash, &rcu)) {
		station_fini();
		return -ENOMEM;
	}
	side = calloc((size_t)rte_hash_max_key_id(hash) + 1, sizeof *side);
	if (!side) {
		station_fini();
		return -ENOMEM;
	}
	memset(port_count, 0, sizeof port_count);
	cursor = 0;
	table_stat_register(&fill_stat);
	return 0;
}

void station_fini(void)
{
	table_stat_unregister(&fill_stat);
	rte_hash_free(hash);
	hash = NULL;
	free(side);
	side = NULL;
}
