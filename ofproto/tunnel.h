// tunnel: frames of networks with a VNI between switches: VXLAN (RFC 7348), GENEVE (RFC 8926), GRE with a key (RFC 2784, RFC 2890; the key is the VNI).
//
// A tunnel is a logical port (PORT_TUNNEL), one for each remote end point, for all networks. What comes out of it has the network that its VNI says.
//
// Receive: forward_burst() on a port of an underlay network calls tunnel_receive(). Packets of tunnels end there, counted as consumed on the port's ledger; the
// frames in them come in on the tunnel's port, and are counted as received on its ledger.
// Send: worker.flush gives the batch of a tunnel's port to tunnel_send(), which puts headers in front and the packets into the batch of the underlay's port.
//
// Tables are the main thread's (pipeline/tunnel_table.c), published for workers.
#ifndef OFPROTO_TUNNEL_H
#define OFPROTO_TUNNEL_H

#include "config.h"
#include "pkt.h"
#include "rcu.h"
#include "reason.h"
#include "sizes.h"

struct lport;
struct worker;
struct port_worker;

#define TUNNEL_REASONS(X)                                                                                              \
	X(tunnel, FRAGMENT, "fragments of the tunnel's packet overlap, break rules, are too many, or aren't put together (reassembly)") \
	X(tunnel, FRAGMENT_TIMEOUT, "it is a fragment of a tunnel's packet, and others did not come in time")           \
	X(tunnel, CHECKSUM, "the checksum of the tunnel's IP, UDP or GRE header is wrong")                              \
	X(tunnel, HEADER, "the tunnel header is cut short, or its flags or version are not those of its format")       \
	X(tunnel, CRITICAL, "the GENEVE header has an option that must be understood, or is a control packet")         \
	X(tunnel, UNKNOWN_REMOTE, "it came from an address that is no end point of a tunnel of this switch")           \
	X(tunnel, UNKNOWN_VNI, "no network with its VNI and format is behind the tunnel")                              \
	X(tunnel, INNER, "the frame in the tunnel's packet is cut short")                                              \
	X(tunnel, INNER_VLAN, "the frame in the tunnel has a VLAN tag, which its network doesn't allow (inner-vlan)")   \
	X(tunnel, CONGESTION, "the underlay marked congestion on a packet whose sender takes no such marks (RFC 6040)") \
	X(tunnel, NO_VNI, "the packet's network has no VNI")                                                           \
	X(tunnel, NO_NEXT_HOP, "there is no way to the tunnel's remote end point: no route, or its next hop doesn't answer (yet)")

enum {
	TUNNEL_REASONS(REASON_ENUM) TUNNEL_REASON_N
};
extern uint16_t tunnel_reason_base;
#define TUNNEL_REASON(name) ((uint16_t)(tunnel_reason_base + tunnel_##name))

void tunnel_init(void); // registers the reasons

enum tunnel_format {
	TUNNEL_VXLAN,
	TUNNEL_GENEVE,
	TUNNEL_GRE,
	TUNNEL_FORMATS,
	// Not for networks: copies of mirrors, type II (draft-foschiano-erspan-03). They are only sent.
	TUNNEL_ERSPAN = TUNNEL_FORMATS,
	TUNNEL_HEADERS
};

struct tunnel_desc {
	const char *name;   // as in Network.tunnel
	uint8_t proto;      // IP protocol
	uint16_t port;      // UDP; 0: none
	uint8_t len;        // of the tunnel header as it is sent
};
extern const struct tunnel_desc tunnel_desc[TUNNEL_HEADERS];

int tunnel_format_find(const char *name); // TUNNEL_FORMATS: there is no such format
// Bytes of layer 3 of the underlay that are no layer 3 of the inner frame.
unsigned tunnel_overhead(enum tunnel_format, bool v6);

// ---- tables

#define TUNNEL_NO_NETWORK 0xffff

// A local end point: an address of a router port in an underlay network.
struct tunnel_end {
	uint16_t network; // TUNNEL_NO_NETWORK: there is none
	uint8_t mac[6];
	uint8_t ip[16];   // IPv4: the first four
	bool collects;    // puts fragments together
	uint16_t router;
};

// How frames of a network travel, by its id.
struct tunnel_network {
	uint32_t key; // tunnel_key()
	bool used;    // else not at all
	bool tags;    // frames may have VLAN tags of their own
};

static inline uint32_t tunnel_key(enum tunnel_format f, uint32_t vni)
{
	return (uint32_t)f << 24 | vni;
}

// Immutable once published. Hashes have open addressing; an entry with port or network 0 is free.
struct tunnel_table {
	struct tunnel_end end[2]; // IPv4, IPv6
	struct tunnel_network network[MAX_NETWORKS];
	uint32_t vni_mask, remote_mask; // places less one
	struct tunnel_vni {
		uint32_t key;
		uint16_t network;
	} *vni;
	struct tunnel_remote {
		uint8_t ip[16]; // IPv4: the first four, and zero
		uint16_t v6;
		uint16_t port;  // the tunnel's
	} *remote;
	unsigned n_ports;
	uint16_t *port; // of all tunnels
};

extern struct tunnel_table *tunnel_table; // RCU; NULL: no tunnels

#define TUNNEL_ROOM 80 // of a header: Ethernet, a tag, IPv6, UDP, tunnel

// What goes in front of frames of one format to one remote. `bytes`: right-aligned.
struct tunnel_header {
	uint16_t out;       // port of the underlay; 0: there is no way
	uint8_t len;        // bytes in use
	uint8_t l3, l4;     // offsets of the IP and of the next header from its first byte
	bool v6;
	bool udp;
	bool checksum;      // of UDP
	bool inherits;      // DSCP of the inner packet
	bool df;            // or IPv6: no identification
	uint16_t network;   // underlay
	uint16_t limit;     // bytes of layer 3 that the path takes: larger packets leave in fragments; 0: there are none
	uint16_t sum;       // of the IPv4 header without length, identification, DSCP and ECN
	uint16_t pseudo;    // of the pseudo-header without its length
	uint8_t bytes[TUNNEL_ROOM];
};

// The way to a remote end point, by the tunnel's port. Immutable once published.
struct tunnel_way {
	struct tunnel_header header[TUNNEL_HEADERS];
};

extern struct tunnel_way *tunnel_ways[MAX_PORTS]; // RCU; NULL: none

// Places of the hashes.
static inline uint32_t tunnel_hash_vni(uint32_t key)
{
	return (uint32_t)(key * 0x9e3779b97f4a7c15ULL >> 32);
}

static inline uint32_t tunnel_hash_remote(const uint8_t ip[16])
{
	uint64_t a, b;

	memcpy(&a, ip, 8);
	memcpy(&b, ip + 8, 8);
	return (uint32_t)((a ^ b * 0xff51afd7ed558ccdULL) * 0x9e3779b97f4a7c15ULL >> 32);
}

uint16_t tunnel_find_network(const struct tunnel_table *, uint32_t key);        // 0: unknown
uint16_t tunnel_find_remote(const struct tunnel_table *, bool v6, const uint8_t *ip); // 0: unknown

// ---- one packet

// What tunnel_open() found.
struct tunnel_packet {
	uint32_t key;       // tunnel_key()
	uint32_t len;       // of the inner frame
	uint16_t ofs;       // where it begins
	uint8_t tos;        // of the outer header
	bool v6;
	const uint8_t *src; // the outer source address, in the packet
};

#define TUNNEL_OURS 0        // *found is filled
#define TUNNEL_OTHER 0xffff  // an ordinary packet
#define TUNNEL_PIECE 0xfffd  // a fragment of a packet from a remote end point
#define TUNNEL_SPLIT 0xfffe  // its headers are not in one piece: pull them together

// Looks at a packet that came in on a port of the underlay. TUNNEL_*, or the reason to drop it for.
uint16_t tunnel_open(const struct tunnel_table *, const struct lport *, const struct rte_mbuf *, struct tunnel_packet *found);
// ECN of the inner header when the outer one had `tos` (RFC 6040 section 4.2): 0 to 3, or -1: drop.
int tunnel_ecn(unsigned inner, unsigned outer);

struct tunnel_spec {
	enum tunnel_format format;
	bool v6;
	uint8_t dst_mac[6], src_mac[6];
	uint16_t vlan;          // tag of the underlay, 0: none
	const uint8_t *src, *dst; // addresses
	uint16_t out, network;
	uint8_t ttl;
	int dscp;               // -1: that of the inner packet
	bool df;                // IPv4
	bool checksum;          // of UDP
	uint16_t limit;         // see struct tunnel_header
};
void tunnel_make_header(struct tunnel_header *, const struct tunnel_spec *);

// ---- bursts

// Takes the packets of tunnels out of a burst that came in on `lp`, and has the frames in them forwarded. Returns how many are left in m[], in order. `traced`: bits
// of those with a trace in t[], moved along.
unsigned tunnel_receive(struct worker *, const struct lport *lp, struct rte_mbuf **m, unsigned n, uint64_t tsc, uint32_t *traced, struct trace **t);
// What stage `mirror` sets while there are mirrors: copies of a packet of a tunnel as it is on the link of the underlay's port `port`. *p says of its headers what parse()
// does. `inner`: network of the frame in it, if it leaves; 0: it came in. p NULL: only says whether a mirror may want it.
typedef bool tunnel_mirror_fn(struct worker *, struct pkt *p, uint16_t port, uint16_t inner);
extern tunnel_mirror_fn *tunnel_mirror;

// A worker has a TUNNEL_PIECE. Returns the whole packet, whose trace is in *trace then, or NULL: it waits for the others, or is dropped. What waits is looked at by
// tunnel_fragment_tick(), on the main thread, each 100 ms.
struct rte_mbuf *tunnel_collect(struct worker *, const struct tunnel_table *, const struct lport *, struct rte_mbuf *, uint16_t network, uint64_t tsc, struct trace **trace);
void tunnel_fragment_tick(uint64_t now);

// For explain: one packet, whose trace is set. Returns the port by which it comes in: lp->id, if it is of no tunnel; 0: it was dropped.
uint16_t tunnel_unwrap(struct worker *, const struct lport *lp, struct rte_mbuf **m);
// Resolves what waits of tunnels, which have no queue that is polled. Returns how many still have something.
unsigned tunnel_misses(struct worker *);
// Where a mirror's copies go.
struct tunnel_span {
	uint16_t session;   // 10 bits
	uint32_t *sequence; // of the session's packets, over all workers
};
// A copy, whose headers are its own and which is in nobody's batch, leaves through the tunnel of lport `tunnel`. `cut`: it isn't the whole packet. What the
// underlay's MTU leaves no room for is cut off.
void tunnel_span(struct worker *, uint16_t tunnel, struct rte_mbuf *, const struct tunnel_span *, bool cut);
// Sends the batch of a tunnel's port. False: it is no tunnel's; untouched.
bool tunnel_send(struct worker *, struct port_worker *);

#endif
