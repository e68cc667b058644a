// group_config: see group_config.h.
#include "group_config.h"
#include "group_proxy.h"
#include "key.h"
#include "punt.h"
#include "sentence.h"
#include "topology.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <arpa/inet.h>

// ---- frames of the switch's own

// An outer tag behind the addresses.
static uint32_t tag(uint8_t *frame, uint32_t len, uint16_t vid)
{
	memmove(frame + 16, frame + 12, len - 12);
	frame[12] = 0x81;
	frame[13] = 0;
	frame[14] = (uint8_t)(vid >> 8);
	frame[15] = (uint8_t)vid;
	return len + 4;
}

static void emit(const struct network *net, uint16_t port, const uint8_t *frame, uint32_t len)
{
	const struct lport *lp = lport_get(port);
	uint8_t *data, tagged[GROUP_FRAME_MAX + 4];

	if (!lp || !lp->enabled)
		return;
	memcpy(tagged, frame, len);
	if (lport_tag(lp, net))
		len = tag(tagged, len, lport_tag(lp, net));
	struct rte_mbuf *m = punt_new((uint16_t)len, &data);
	if (!m)
		return;
	memcpy(data, tagged, len);
	pkt_of(m)->network = net->id; // of which a tunnel wants to know the VNI
	punt_emit(m, port);
}

// To all by the router's port, which makes it a packet like any other; without one, and to one port, by itself.
static void send_frame(uint16_t network, uint16_t port, const uint8_t *frame, uint32_t len)
{
	const struct snoop *s = group_snoop[network];
	const struct network *net = network_get(network);
	uint8_t *data;

	if (!net || !s)
		return;
	if (port) {
		emit(net, port, frame, len);
		return;
	}
	if (!s->policy.lport) {
		for (unsigned i = 0; i < s->n_ports; i++)
			emit(net, s->port[i].is.port, frame, len);
		return;
	}
	struct rte_mbuf *m = punt_new((uint16_t)len, &data);
	if (!m)
		return;
	memcpy(data, frame, len);
	punt_send(m, s->policy.lport);
}

static void send_query(uint16_t network, uint16_t port, const struct group_query *q)
{
	uint8_t frame[GROUP_FRAME_MAX];

	send_frame(network, port, frame, group_write_query(frame, q));
}

static void send_report(uint16_t network, uint16_t port, uint8_t version, const struct group_record *r)
{
	const struct snoop *s = group_snoop[network];
	uint8_t frame[GROUP_FRAME_MAX];

	if (s)
		send_frame(network, port, frame,
			   group_write_report(frame, s->policy.mac, &s->policy.own[r->group.v6], version, r));
}

// ---- what is wanted

// Of a switch without a router port in the network: locally administered, and of this process.
static void own_mac(uint16_t network, uint8_t mac[6])
{
	uint64_t h = key_mum(key_secret[4] ^ network, key_secret[5]);

	memcpy(mac, &h, 6);
	mac[0] = (uint8_t)((mac[0] & 0xfc) | 2);
}

// RFC 4291 appendix A.
static void link_local(const uint8_t mac[6], struct config_ip *ip)
{
	*ip = (struct config_ip){.v6 = true,
				 .b = {0xfe, 0x80, [8] = mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]}};
}

static const struct config_router *router_of(const struct config *c, const struct row_id *id)
{
	for (size_t i = 0; i < c->n_routers; i++)
		if (row_id_equal(&c->routers[i].row, id))
			return &c->routers[i];
	return NULL;
}

// The router that forwards multicast between the network and others.
static void set_router(const struct config *c, const struct config_router_port *rp, struct group_policy *p)
{
	const struct config_router *r = router_of(c, &rp->router);

	if (!r || r->error || !r->enabled || !config_map_bool(&r->other_config, "multicast", false))
		return;
	p->router = r->id;
	p->upstream = !strcmp(config_map_get(&r->other_config, "multicast-upstream", ""), rp->name);
}

// Its first router port speaks for the network.
static void set_source(const struct config *c, const struct config_network *cn, struct group_policy *p)
{
	const uint8_t shared[6] = {2, 'W', 'e', (uint8_t)(cn->vni >> 16), (uint8_t)(cn->vni >> 8), (uint8_t)cn->vni};

	own_mac(cn->id, p->mac);
	// Switches of a network with tunnels ask by one address, so that none takes another one for a router that is to get
	// everything.
	link_local(cn->vni ? shared : p->mac, &p->own[1]);
	for (size_t i = 0; i < c->n_router_ports; i++) {
		const struct config_router_port *rp = &c->router_ports[i];

		if (rp->error || !rp->enabled || !rp->id || !row_id_equal(&rp->network, &cn->row))
			continue;
		p->lport = rp->id;
		memcpy(p->mac, rp->mac, 6);
		link_local(p->mac, &p->own[1]);
		for (size_t a = rp->n_addresses; a-- > 0;) {
			const struct config_ip *ip = &rp->addresses[a].ip;

			if (!ip->v6 || (ip->b[0] == 0xfe && (ip->b[1] & 0xc0) == 0x80))
				p->own[ip->v6] = *ip;
		}
		set_router(c, rp, p);
		return;
	}
}

// "10.0.0.1 fe80::1"
static void set_querier_addresses(struct config_network *cn, struct group_policy *p)
{
	char text[128], *save = NULL;

	snprintf(text, sizeof text, "%s", config_map_get(&cn->multicast, "querier-address", ""));
	for (char *word = strtok_r(text, " ,", &save); word; word = strtok_r(NULL, " ,", &save)) {
		struct config_ip ip = {.v6 = strchr(word, ':') != NULL};

		if (inet_pton(ip.v6 ? AF_INET6 : AF_INET, word, ip.b) != 1)
			sentence_set(&cn->error, "multicast: querier-address %s is no IP address", word);
		else if (ip.v6 && (ip.b[0] != 0xfe || (ip.b[1] & 0xc0) != 0x80))
			sentence_set(&cn->error,
				     "multicast: querier-address %s is not link-local, and hosts heed no other queries", word);
		else
			p->own[ip.v6] = ip;
	}
}

static void set_router_ports(const struct config *c, struct config_network *cn, struct group_policy *p)
{
	char *text = strdup(config_map_get(&cn->multicast, "router-ports", "")), *save = NULL;

	for (char *word = text ? strtok_r(text, " ,", &save) : NULL; word; word = strtok_r(NULL, " ,", &save)) {
		uint16_t id = 0;

		for (size_t i = 0; i < c->n_ports && !id; i++)
			if (c->ports[i].kind != PORT_ROUTER && !strcmp(c->ports[i].name, word))
				id = c->ports[i].id;
		if (!id)
			sentence_set(&cn->error, "multicast: router-ports names %s, and there is no such port", word);
		else if (p->n_routers == GROUP_STATIC_ROUTERS)
			sentence_set(&cn->error, "multicast: router-ports takes %u ports at most", GROUP_STATIC_ROUTERS);
		else
			p->router_port[p->n_routers++] = id;
	}
	free(text);
}

static uint32_t number(struct config_network *cn, const char *key, uint32_t fallback, uint32_t low, uint32_t high)
{
	const char *bad = NULL;
	uint32_t n = (uint32_t)config_map_uint(&cn->multicast, key, fallback, low, high, &bad);

	if (bad)
		sentence_set(&cn->error, "multicast: %s is a number from %u to %u", key, low, high);
	return n;
}

static void set_policy(const struct config *c, struct config_network *cn, struct group_policy *p)
{
	const struct config_map *m = &cn->multicast;
	const char *unregistered = config_map_get(m, "unregistered", "flood");
	uint32_t version = number(cn, "version", 2, 1, 2);

	*p = (struct group_policy){
		.querier = config_map_bool(m, "querier", true),
		.fast_leave = config_map_bool(m, "fast-leave", false),
		.unregistered = !strcmp(unregistered, "drop")           ? GROUP_DROP
				: !strcmp(unregistered, "router-ports") ? GROUP_ROUTERS
									: GROUP_FLOOD,
		.robustness = (uint8_t)number(cn, "robustness", 2, 1, 7),
		.version = {(uint8_t)(version + 1), (uint8_t)(version + 1)},
		.interval_s = number(cn, "query-interval", 125, 1, 18000),
		.response_ms = number(cn, "response-interval", 10, 1, 3174) * 1000,
		.last_member_ms = number(cn, "last-member-interval", 1000, 100, 25500),
		.max_groups = number(cn, "group-limit", 4096, 1, 65536),
		.max_port_groups = number(cn, "port-group-limit", 512, 1, 65536),
		.max_sources = number(cn, "source-limit", 64, 1, 1024),
		.own = {{.v6 = false}, {.v6 = true}},
	};
	set_source(c, cn, p);
	set_querier_addresses(cn, p);
	set_router_ports(c, cn, p);
}

// Of ports, by id: who is behind them.
static struct behind {
	bool speaks;
	enum multicast_router router;
} behind[MAX_PORTS];

static bool is_named(const struct group_policy *p, uint16_t port)
{
	for (unsigned i = 0; i < p->n_routers; i++)
		if (p->router_port[i] == port)
			return true;
	return false;
}

static int configure(const struct config *c, struct config_network *cn, uint64_t now)
{
	static struct group_port port[MAX_PORTS];
	const struct network *net = network_get(cn->id);
	struct group_policy p;
	unsigned n = 0;

	if (!net)
		return 0;
	set_policy(c, cn, &p);
	for (uint32_t i = 0; i < net->n_targets; i++) {
		const struct flood_target *t = &net->target[i];
		const struct behind *b = &behind[t->port];

		port[n++] = (struct group_port){
			.port = t->port,
			.tunnel = t->tunnel,
			.speaks = b->speaks,
			.guarded = b->router == MULTICAST_ROUTER_NEVER && !is_named(&p, t->port),
			.router = b->router == MULTICAST_ROUTER_ALWAYS,
		};
	}
	return group_configure(cn->id, &p, port, n, now);
}

static void find_behind(const struct config *c)
{
	memset(behind, 0, sizeof behind);
	for (size_t i = 0; i < c->n_ports; i++) {
		behind[c->ports[i].id].router = c->ports[i].multicast_router;
		for (size_t k = 0; c->ports[i].kind == PORT_TUNNEL && k < c->n_remotes; k++)
			if (c->remotes[k].ip.v6 == c->ports[i].remote.v6 &&
			    !memcmp(c->remotes[k].ip.b, c->ports[i].remote.b, 16))
				behind[c->ports[i].id].speaks =
					!row_id_is_zero(&c->remotes[k].host); // another switch of the database
	}
}

int group_reconcile(struct config *want, uint64_t now)
{
	bool wanted[MAX_NETWORKS] = {false};
	int rc = 0;

	find_behind(want);

	for (size_t i = 0; i < want->n_networks; i++) {
		struct config_network *cn = &want->networks[i];

		if (!cn->id || !config_map_bool(&cn->multicast, "snooping", false))
			continue;
		wanted[cn->id] = true;
		if (!cn->error) // a row that went bad leaves its network as it was
			rc = configure(want, cn, now) ? -ENOMEM : rc;
	}
	for (uint16_t i = 1; i < MAX_NETWORKS; i++)
		if (group_snoop[i] && (!wanted[i] || !network_get(i)))
			group_configure(i, NULL, NULL, 0, now);
	return rc;
}

void group_config_init(void)
{
	group_send = send_query;
	group_send_report = send_report;
}
