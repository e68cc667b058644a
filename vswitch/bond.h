// bond: uplinks that work as one. A port of type "bond" has no device of its own: its members, which are ports of kernel interfaces, DPDK devices and TAPs, have them.
// What members receive is the bond's; what the bond sends leaves by the members that `sending` names. Of their own, members have what is said on a link (link.h).
//
// Main thread, but for what is marked.
#ifndef VSWITCH_BOND_H
#define VSWITCH_BOND_H

#include "config.h"
#include "lacp.h"
#include "port.h"

#include <rte_mbuf.h>

#define BOND_MEMBERS LACP_PORTS

enum bond_mode {
	BOND_ACTIVE_BACKUP,
	BOND_BALANCE,
	BOND_LACP,
};

enum bond_hash {
	BOND_L2,  // Ethernet addresses
	BOND_L23, // and those of IP
	BOND_L34, // addresses of IP and ports
};

struct bond_count {
	uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes;
};

struct bond_member {
	struct port_dev *device; // RCU; NULL: it isn't open
	uint16_t port;           // 0: the place is free
	bool up;
	uint64_t up_since;       // nanoseconds
	uint64_t losses;         // times that its link went
};

// The device of a bond's port.
struct bond {
	struct bond *next;
	uint16_t port;
	char name[64];
	enum bond_mode mode;
	enum bond_hash hash;
	char primary[64];          // active-backup: the member that is preferred; "": the one that is at work
	uint64_t updelay_ns;
	bool fallback;             // 802.3ad: without a partner anywhere one member is used
	char lacp_system[24];      // "": one made of the host's name
	uint16_t lacp_priority;
	bool lacp_active, lacp_fast;
	char members[1024];        // as the options have them
	char missing[64];          // a member that isn't there; "": none
	uint32_t sending;          // members, a bit each, by which packets leave; workers read it
	uint32_t receiving;        // members that packets are taken from
	unsigned caps;             // OFFLOAD_* that all members have
	struct bond_member member[BOND_MEMBERS];
	struct bond_count count[MAX_WORKERS][BOND_MEMBERS]; // written by the worker
	struct lacp lacp;
	uint64_t looked;           // at its links, when
	uint64_t changes;          // of `sending`
	uint8_t (*announce)[8];    // addresses behind us that the peer is still to be told: MAC and VLAN
	unsigned n_announce, announced;
};

extern const struct port_ops port_ops_bond;

// `host`: whose name identifies this switch to its neighbours.
void bond_init(const char *host);
// Of reconcile, once ports have ids: what members want of their own (networks, addresses) is put aside, and rx queues of ports that join or leave a bond are taken.
void bond_prepare(struct config *);
// The device of a port is about to go.
void bond_forget(const struct port *);
// Links, timers, announcements. Returns whether something changed that ports report.
bool bond_run(uint64_t now);
void bond_changed(void); // look at all links in the next bond_run()
// Whether there is more to say at once.
bool bond_busy(void);
// A frame of slow protocols.
void bond_receive(uint16_t port, const uint8_t *frame, uint32_t len, uint64_t now);
struct bond *bond_of(const struct port *, unsigned *place); // NULL: it is no member of an open bond
void bond_count_sum(const struct bond *, unsigned place, struct bond_count *);
void bond_verbs_init(void);
// An address that is a device port's own on its link: made of the names of host and port.
void bond_mac(const char *port, uint8_t mac[6]);

// port_bond.c: bonds whose port is open.
extern struct bond *bonds;
// A worker: what it took from the member.
static inline void bond_received(struct bond *b, unsigned place, unsigned worker, struct rte_mbuf **m, unsigned n)
{
	struct bond_count *c = &b->count[worker][place];
	uint64_t bytes = 0;

	for (unsigned i = 0; i < n; i++)
		bytes += m[i]->pkt_len;
	__atomic_store_n(&c->rx_packets, c->rx_packets + n, __ATOMIC_RELAXED);
	__atomic_store_n(&c->rx_bytes, c->rx_bytes + bytes, __ATOMIC_RELAXED);
}

#endif
