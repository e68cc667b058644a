// topology: the pipeline's view of ports and networks, published for the workers.
#ifndef OFPROTO_TOPOLOGY_H
#define OFPROTO_TOPOLOGY_H

#include "config.h"
#include "sizes.h"
#include "rcu.h"

#define TOPOLOGY_NAME 64

// What frames of a VLAN on a port belong to.
struct membership {
	uint16_t network; // 0: none
	uint16_t profile;
};

// A logical port, immutable once published.
struct lport {
	char name[TOPOLOGY_NAME];
	uint32_t row;
	uint32_t mtu_row; // where the MTU comes from: the port itself, or a network
	uint16_t id;
	uint16_t mtu;    // bytes of layer 3
	uint16_t native; // network of untagged frames, 0: none
	uint16_t qinq;   // ethertype of an outer tag that is pushed around a customer's, host order
	uint8_t mode;    // enum vlan_mode
	bool enabled;
	bool isolated;
	bool reserved; // mirrors write to it, and nobody else
	uint8_t kind;  // enum port_kind
	bool underlay; // tunnels of this switch end in its network
	struct membership untagged;
	struct membership *vlans; // [4096] of a trunk, by VLAN; of a tunnel, by network id; else NULL
	uint64_t *unknown;        // of a tunnel: bitmap of the networks, by id, whose unknown destinations are flooded into it
	uint64_t *cvlans;         // dot1q-tunnel: bitmap of 4096 customer VLANs let in, NULL: all
};

struct flood_target {
	uint16_t port;
	bool isolated;
	bool tunnel; // nothing is flooded from tunnel to tunnel
	bool told;   // all stations behind it are known
	bool zero;   // targets are compared as bytes
};

// An L2 domain, immutable once published.
struct network {
	char name[TOPOLOGY_NAME];
	uint32_t row;
	uint16_t id;
	uint16_t vlan;
	uint16_t mtu;
	bool overlay; // it has a VNI: its MTU may be less than its stations believe
	bool learning;
	bool flood_unknown;
	bool forward_bpdu;
	uint32_t n_targets;
	struct flood_target target[]; // the ports that are in it
};

extern struct lport *topology_ports[MAX_PORTS];
extern struct network *topology_networks[MAX_NETWORKS];

static inline const struct lport *lport_get(uint16_t id)
{
	return rcu_read(topology_ports[id & (MAX_PORTS - 1)]);
}

// For people; never NULL.
static inline const char *lport_name(uint16_t id)
{
	const struct lport *lp = lport_get(id);

	return lp ? lp->name : id ? "a port that is gone" : "the switch";
}

static inline const struct network *network_get(uint16_t id)
{
	return rcu_read(topology_networks[id & (MAX_NETWORKS - 1)]);
}

// Network and profile of frames with outer tag `vlan` (as in struct flow_key) on the port.
static inline struct membership lport_classify(const struct lport *lp, uint16_t vlan)
{
	if (!(vlan & 0xfff) || lp->mode == VLAN_DOT1Q_TUNNEL) // priority-tagged counts as untagged (802.1Q 6.9)
		return lp->untagged;
	return lp->vlans ? lp->vlans[vlan & 0xfff] : (struct membership){0, 0};
}

// Whether frames of the network leave the port with an outer tag: its VLAN id, or 0.
static inline uint16_t lport_tag(const struct lport *lp, const struct network *net)
{
	switch ((enum vlan_mode)lp->mode) {
	case VLAN_TRUNK:
	case VLAN_NATIVE_TAGGED:
		return net->vlan;
	case VLAN_NATIVE_UNTAGGED:
		return net->id == lp->native ? 0 : net->vlan;
	default:
		return 0;
	}
}

// Main thread. Publishes what has changed, and bumps the generations of what changed only. A port or network that can't be gets a
// sentence in the `error` of its config and keeps out. `fields_of` gives the fields that the stages may read on a network.
int topology_reconcile(struct config *, uint32_t (*fields_of)(const struct config_network *));
// Main thread, at the end.
void topology_clear(void);

#endif
