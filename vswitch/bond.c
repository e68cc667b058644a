// bond: members, their links, and which of them is used. See bond.h.
#include "bond.h"
#include "clock.h"
#include "control.h"
#include "fdb.h"
#include "key.h"
#include "link.h"
#include "punt.h"
#include "thread.h"
#include "topology.h"

#include <stdlib.h>
#include <string.h>

#define ANNOUNCE_MAX 8192 // addresses told after a change
#define LOOK_NS 100000000 // how often links are looked at of which nobody tells
#define ANNOUNCE_PART 128 // in one turn of the main thread

static char host_name[256];
static bool changed = true;

void bond_init(const char *host)
{
	snprintf(host_name, sizeof host_name, "%s", host);
}

void bond_changed(void)
{
	changed = true;
}

// FNV-1a; locally administered.
void bond_mac(const char *port, uint8_t mac[6])
{
	uint64_t h = 0xcbf29ce484222325u;

	for (const char *s = host_name; *s; s++)
		h = (h ^ (uint8_t)*s) * 0x100000001b3u;
	h = (h ^ '/') * 0x100000001b3u;
	for (; *port; port++)
		h = (h ^ (uint8_t)*port) * 0x100000001b3u;
	h ^= h >> 40;
	for (unsigned i = 0; i < 6; i++)
		mac[i] = (uint8_t)(h >> 8 * i);
	mac[0] = (uint8_t)((mac[0] & 0xfc) | 2);
}

static struct bond *find(uint16_t port)
{
	struct bond *b = bonds;

	while (b && b->port != port)
		b = b->next;
	return b;
}

struct bond *bond_of(const struct port *p, unsigned *place)
{
	struct bond *b = p->bond ? find(p->bond) : NULL;

	for (unsigned i = 0; b && i < BOND_MEMBERS; i++)
		if (b->member[i].port == p->id) {
			*place = i;
			return b;
		}
	return NULL;
}

void bond_count_sum(const struct bond *b, unsigned place, struct bond_count *sum)
{
	*sum = (struct bond_count){0};
	for (unsigned w = 0; w < MAX_WORKERS; w++) {
		const struct bond_count *c = &b->count[w][place];

		sum->rx_packets += __atomic_load_n(&c->rx_packets, __ATOMIC_RELAXED);
		sum->rx_bytes += __atomic_load_n(&c->rx_bytes, __ATOMIC_RELAXED);
		sum->tx_packets += __atomic_load_n(&c->tx_packets, __ATOMIC_RELAXED);
		sum->tx_bytes += __atomic_load_n(&c->tx_bytes, __ATOMIC_RELAXED);
	}
}

// ---- wanted state

// The next name of a list with commas or spaces between.
static bool next_name(const char **list, char name[64])
{
	*list += strspn(*list, ", ");
	size_t n = strcspn(*list, ", ");
	snprintf(name, 64, "%.*s", (int)n, *list);
	*list += n;
	return n > 0;
}

static bool can_be_member(const char *type)
{
	return !strcmp(type, "kernel") || !strcmp(type, "dpdk") || !strcmp(type, "tap");
}

static struct config_port *find_config(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->n_ports; i++)
		if (!strcmp(c->ports[i].name, name) && c->ports[i].id && c->ports[i].type && can_be_member(c->ports[i].type))
			return &c->ports[i];
	return NULL;
}

// As a port of its own it is in no network.
static void put_aside(struct config_port *cp, uint16_t mtu)
{
	memset(&cp->network, 0, sizeof cp->network);
	cp->vlan_mode = VLAN_ACCESS;
	cp->n_trunks = cp->n_cvlans = 0;
	for (size_t a = 0; a < cp->n_addresses; a++)
		free(cp->addresses[a].ip);
	cp->n_addresses = 0;
	cp->mtu = mtu;
}

// A bond whose row went bad keeps the members that it has.
static void want_members(struct config *c, const struct config_port *cp, uint16_t *wanted)
{
	const char *list = config_map_get(&cp->options, "members", "");
	char name[64];

	if (cp->error) {
		for (uint16_t i = 1; i < MAX_PORTS; i++)
			if (port_get(i) && port_get(i)->bond == cp->id && !wanted[i])
				wanted[i] = cp->id;
		return;
	}
	for (unsigned n = 0; n < BOND_MEMBERS && next_name(&list, name); n++) {
		struct config_port *m = find_config(c, name);

		if (m && !wanted[m->id])
			wanted[m->id] = cp->id;
	}
}

void bond_prepare(struct config *c)
{
	static uint16_t wanted[MAX_PORTS]; // main thread

	memset(wanted, 0, sizeof wanted);
	for (size_t i = 0; i < c->n_ports; i++)
		if (c->ports[i].id && c->ports[i].type && !strcmp(c->ports[i].type, "bond"))
			want_members(c, &c->ports[i], wanted);
	for (size_t i = 0; i < c->n_ports; i++) {
		struct config_port *cp = &c->ports[i];
		struct port *p = cp->id ? port_get(cp->id) : NULL;

		if (!p)
			continue;
		for (size_t k = 0; wanted[cp->id] && k < c->n_ports; k++)
			if (c->ports[k].id == wanted[cp->id])
				put_aside(cp, port_mtu(c, &c->ports[k]));
		if (p->bond == wanted[cp->id])
			continue;
		thread_take_queues(p);
		p->bond = wanted[cp->id];
		changed = true;
	}
}

// ---- members

static void send_slow(void *arg, unsigned place, const uint8_t *frame, uint16_t len)
{
	struct bond *b = arg;
	uint8_t *data;
	struct rte_mbuf *m = b->member[place].device ? punt_new(len, &data) : NULL;

	if (!m)
		return; // it is said again
	memcpy(data, frame, len);
	punt_emit(m, b->member[place].port);
}

static void take_in(struct bond *b, unsigned place, const struct port *p)
{
	uint8_t mac[6];

	for (unsigned w = 0; w < MAX_WORKERS; w++)
		memset(&b->count[w][place], 0, sizeof b->count[w][place]);
	b->member[place] = (struct bond_member){.port = p->id};
	bond_mac(p->name, mac);
	lacp_add(&b->lacp, place, p->id, 255, mac);
}

static void let_go(struct bond *b, unsigned place)
{
	struct bond_member *m = &b->member[place];

	link_set(m->port, LINK_TAKE_SLOW | LINK_INACTIVE, false);
	lacp_remove(&b->lacp, place);
	__atomic_store_n(&b->sending, b->sending & ~(1u << place), __ATOMIC_RELAXED);
	rcu_publish(m->device, NULL);
	m->port = 0;
	m->up = false;
}

static void find_missing(struct bond *b)
{
	const char *list = b->members;
	char name[64];

	b->missing[0] = '\0';
	while (!b->missing[0] && next_name(&list, name)) {
		const struct port *p = port_find(name);
		unsigned place;

		if (!p || bond_of(p, &place) != b)
			snprintf(b->missing, sizeof b->missing, "%s", name);
	}
}

static struct bond *syncing;

static void join(struct port *p, void *arg)
{
	unsigned place;

	if (p->bond != syncing->port || bond_of(p, &place))
		return;
	for (place = 0; place < BOND_MEMBERS; place++)
		if (!syncing->member[place].port) {
			take_in(syncing, place, p);
			return;
		}
}

// Members as ports and devices are now.
static void sync(struct bond *b)
{
	uint8_t system[6];

	syncing = b;
	for (unsigned i = 0; i < BOND_MEMBERS; i++) {
		const struct port *p = b->member[i].port ? port_get(b->member[i].port) : NULL;

		if (b->member[i].port && (!p || p->bond != b->port))
			let_go(b, i);
	}
	port_each(join, NULL);
	b->lacp.send = send_slow;
	b->lacp.arg = b;
	if (!b->lacp_system[0])
		bond_mac("", system);
	else
		sscanf(b->lacp_system, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &system[0], &system[1], &system[2], &system[3], &system[4], &system[5]);
	lacp_configure(&b->lacp, b->lacp_priority, system, b->port, b->lacp_active, b->lacp_fast);
	find_missing(b);
}

void bond_forget(const struct port *p)
{
	unsigned place;
	struct bond *b = bond_of(p, &place);

	if (!b)
		return;
	__atomic_store_n(&b->sending, b->sending & ~(1u << place), __ATOMIC_RELAXED);
	rcu_publish(b->member[place].device, NULL);
	changed = true;
}

// Devices and links. A member whose device is open has its caps among the bond's.
static void look(struct bond *b, uint64_t now)
{
	unsigned caps = ~0u;

	for (unsigned i = 0; i < BOND_MEMBERS; i++) {
		struct bond_member *m = &b->member[i];
		const struct port *p = m->port ? port_get(m->port) : NULL;

		if (!p)
			continue;
		if (m->device != p->device)
			rcu_publish(m->device, p->device);
		if (p->device)
			caps &= p->device->ops->caps(p->device->dev);
		bool up = p->device && p->device->ops->link && p->device->ops->link(p->device->dev) > 0;
		if (up != m->up) {
			m->up = up;
			m->up_since = now;
			m->losses += !up;
		}
		if (b->mode == BOND_LACP)
			lacp_link(&b->lacp, i, up, now);
	}
	__atomic_store_n(&b->caps, caps == ~0u ? 0 : caps, __ATOMIC_RELAXED);
}

// ---- announcements

static bool carries(const struct lport *lp, const struct network *n)
{
	return lp->untagged.network == n->id || (lp->vlans && n->vlan && lp->vlans[n->vlan].network == n->id);
}

// What is behind us is now reached by another cable: the switch at its other end learns so from a frame of each address.
static void announce(struct bond *b)
{
	const struct lport *lp = lport_get(b->port);
	struct fdb_entry e;

	if (!b->announce)
		b->announce = calloc(ANNOUNCE_MAX, sizeof *b->announce);
	b->n_announce = b->announced = 0;
	for (uint32_t i = 0; lp && b->announce && i < fdb_high() && b->n_announce < ANNOUNCE_MAX; i++) {
		if (!fdb_at(i, &e) || e.port == b->port)
			continue;
		const struct network *n = network_get(e.network);
		const struct lport *at = lport_get(e.port);
		if (!n || !carries(lp, n) || !at || at->kind == PORT_TUNNEL)
			continue;
		uint16_t vlan = lport_tag(lp, n);
		memcpy(b->announce[b->n_announce], e.mac, 6);
		memcpy(b->announce[b->n_announce++] + 6, &vlan, 2);
	}
}

// RFC 903: a request to everybody that nobody answers, and that says no address of IP.
static void announce_part(struct bond *b)
{
	static const uint8_t rarp[] = {0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3};

	for (unsigned n = 0; n < ANNOUNCE_PART && b->announced < b->n_announce; n++) {
		const uint8_t *mac = b->announce[b->announced++];
		uint8_t *data;
		uint16_t vlan;
		struct rte_mbuf *m = punt_new(64, &data);

		if (!m)
			return;
		memcpy(&vlan, mac + 6, 2);
		memset(data, 0xff, 6);
		memcpy(data + 6, mac, 6);
		data += 12;
		if (vlan) {
			memcpy(data, (uint8_t[]){0x81, 0, (uint8_t)(vlan >> 8), (uint8_t)vlan}, 4);
			data += 4;
		}
		memcpy(data, rarp, sizeof rarp);
		memcpy(data + 10, mac, 6);
		memcpy(data + 20, mac, 6);
		punt_emit(m, b->port);
	}
}

bool bond_busy(void)
{
	for (const struct bond *b = bonds; b; b = b->next)
		if (b->announced < b->n_announce)
			return true;
	return false;
}

// ---- which members are used

static uint32_t usable(const struct bond *b, uint64_t now)
{
	uint32_t up = 0, patient = 0;

	for (unsigned i = 0; i < BOND_MEMBERS; i++) {
		const struct bond_member *m = &b->member[i];

		if (!m->port || !m->device || !m->up)
			continue;
		up |= 1u << i;
		if ((b->sending >> i & 1) || now - m->up_since >= b->updelay_ns)
			patient |= 1u << i;
	}
	return patient ? patient : up; // with nothing else there is nothing to wait for
}

static uint32_t one_of(const struct bond *b, uint32_t set)
{
	for (unsigned i = 0; i < BOND_MEMBERS; i++) {
		const struct port *p = set >> i & 1 ? port_get(b->member[i].port) : NULL;

		if (p && !strcmp(p->name, b->primary))
			return 1u << i;
	}
	return set & b->sending ? set & b->sending & -(set & b->sending) : set & -set;
}

static void choose(const struct bond *b, uint64_t now, uint32_t *sending, uint32_t *receiving)
{
	uint32_t set = usable(b, now);

	switch (b->mode) {
	case BOND_ACTIVE_BACKUP:
		*sending = *receiving = one_of(b, set);
		return;
	case BOND_BALANCE:
		*sending = set;
		*receiving = ~0u;
		return;
	case BOND_LACP:
		*sending = lacp_distributing(&b->lacp) & set;
		*receiving = lacp_collecting(&b->lacp);
		if (b->fallback && !lacp_has_partner(&b->lacp))
			*sending = *receiving = one_of(b, set);
		return;
	}
}

static void tell(const struct bond *b, uint32_t was)
{
	char names[256] = "";

	for (unsigned i = 0; i < BOND_MEMBERS; i++) {
		const struct port *p = b->sending >> i & 1 ? port_get(b->member[i].port) : NULL;

		if (p)
			snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", names[0] ? ", " : "", p->name);
	}
	if (names[0])
		log_event('i', "port", LOG_FIELDS({"port", b->name}, {"members", names}), "bond %s: sends by %s", b->name, names);
	else if (was)
		log_event('w', "port", LOG_FIELDS({"port", b->name}), "bond %s: no member is left to send by", b->name);
}

static bool use(struct bond *b, uint64_t now)
{
	uint32_t sending = 0, receiving = 0, was = b->sending;

	choose(b, now, &sending, &receiving);
	for (unsigned i = 0; i < BOND_MEMBERS; i++) {
		if (!b->member[i].port)
			continue;
		link_set(b->member[i].port, LINK_TAKE_SLOW, b->mode == BOND_LACP);
		link_set(b->member[i].port, LINK_INACTIVE, !(receiving >> i & 1));
	}
	b->receiving = receiving;
	if (sending == was)
		return false;
	__atomic_store_n(&b->sending, sending, __ATOMIC_RELAXED);
	b->changes++;
	tell(b, was);
	if (b->mode == BOND_ACTIVE_BACKUP && sending)
		announce(b);
	return true;
}

bool bond_run(uint64_t now)
{
	bool news = changed, due = changed;

	changed = false;
	for (struct bond *b = bonds; b; b = b->next) {
		if (due)
			sync(b);
		if (due || now - b->looked >= LOOK_NS) {
			b->looked = now;
			look(b, now);
		}
		if (b->mode == BOND_LACP)
			lacp_tick(&b->lacp, now);
		news |= use(b, now);
		announce_part(b);
	}
	return news;
}

void bond_receive(uint16_t port, const uint8_t *frame, uint32_t len, uint64_t now)
{
	const struct port *p = port_get(port);
	unsigned place;
	struct bond *b = p ? bond_of(p, &place) : NULL;

	if (b && b->mode == BOND_LACP)
		lacp_receive(&b->lacp, place, frame, len, now);
}
