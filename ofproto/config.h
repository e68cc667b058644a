// config: the wanted state of the switch, as plain data.
//
// Built by vswitch/db.c from the database rows (or by a unit test by hand), handed to the reconcile functions, then
// freed. It holds no pointer into the database client. Everything in it belongs to the config and is freed by
// config_free(); a table that wants to keep a string copies it.
#ifndef OFPROTO_CONFIG_H
#define OFPROTO_CONFIG_H

#include "mark.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A database row's UUID, as 16 bytes. All zero: no row.
struct row_id {
	uint8_t b[16];
};

// Port.vlan_mode (IEEE 802.1Q; the words are those of Open_vSwitch's Port table).
enum vlan_mode {
	VLAN_ACCESS,          // untagged and priority-tagged frames of one network
	VLAN_TRUNK,           // tagged frames of the trunk's networks
	VLAN_NATIVE_TAGGED,   // a trunk; untagged frames come in to the native network, it leaves tagged
	VLAN_NATIVE_UNTAGGED, // a trunk; untagged frames come in to the native network, it leaves untagged
	VLAN_DOT1Q_TUNNEL,    // every frame belongs to the network, tags of the customer's are payload
	VLAN_NETWORK_ID,      // of tunnels: not a tag but the tunnel's header says which network; key.vlan is KEY_VLAN_NETWORK | network id
};

// A rate limit: `pps` packets a second with bursts of `burst` packets. pps 0: no limit.
struct config_rate {
	uint32_t pps;
	uint32_t burst;
};

struct config_pair {
	char *key;
	char *value;
};

// A map column, sorted by key.
struct config_map {
	struct config_pair *pair;
	size_t n;
};

struct config_network {
	struct row_id row;
	char *name;
	uint16_t id;             // dense, 1..MAX_NETWORKS-1, stable while the row exists; set by vswitch
	uint16_t vlan;           // tag of this network on trunks, 1..4094; 0: none
	uint32_t vni;            // VXLAN network identifier, 1..2^24-1; 0: none
	uint16_t mtu;            // bytes of layer 3, 68..9216
	bool learning;           // false: source addresses are not learned
	bool flood_unknown;      // false: unknown unicast is dropped, with a reason
	bool forward_bpdu;       // true: 01:80:c2:00:00:0x is forwarded as other multicast is
	uint32_t ageing_s;       // seconds until an idle learned address goes; 0: never
	uint32_t mac_limit;      // learned addresses of the network at most
	uint32_t flap_threshold; // moves of one address within flap_window_s that make it flap; 0: never
	uint32_t flap_window_s;
	uint32_t flap_hold_s;    // how long a flapping address stays on the port it has
	char *tunnel;            // "vxlan", "geneve", "gre": how frames of a network with a VNI travel
	struct config_ip *flood_to; // static end points that get what is flooded
	size_t n_flood_to;
	bool arp_proxy;          // answers ARP and ND for stations that are known, and floods neither
	struct config_map multicast;    // snooping: keys of weir-db(5)
	struct config_map other_config; // the rest
	char *error;             // NULL, or one sentence: the row can't be applied (reconcile may set it; malloc'ed)
};

struct config_ip {
	bool v6;
	uint8_t b[16]; // network order; IPv4: the first four
};

// An address with the length of its network's prefix, or a prefix itself.
struct config_prefix {
	struct config_ip ip;
	uint8_t len; // bits
};

// A station that is at the port, and its IP addresses.
struct config_address {
	uint8_t mac[6];
	struct config_ip *ip;
	size_t n_ips;
};

// What is behind a port.
enum port_kind {
	PORT_DEVICE, // a device: a guest, an uplink
	PORT_ROUTER, // a router port of this switch, which has no device; its row is that of Router_Port
	PORT_TUNNEL, // a tunnel to another switch: one for each remote end point, for all networks
};

// Whether multicast routers and queriers may be behind a port.
enum multicast_router {
	MULTICAST_ROUTER_AUTO,   // if one says so
	MULTICAST_ROUTER_NEVER,  // what says so is dropped
	MULTICAST_ROUTER_ALWAYS, // whatever is said
};

struct config_port {
	struct row_id row;
	char *name;
	enum port_kind kind;
	uint16_t id;              // dense, 1..MAX_PORTS-1, stable while the row exists; set by vswitch
	char *type;               // "vhost-user", "tap", "kernel", "dpdk"
	struct config_map options;
	struct config_map other_config;
	struct config_map external_ids;
	bool enabled;             // false: no packet passes, with a reason
	struct row_id network;    // access or native network; zero: none
	enum vlan_mode vlan_mode;
	struct row_id *trunks;    // networks of a trunk; n_trunks 0: every network that has a VLAN
	size_t n_trunks;
	uint16_t *cvlans;         // dot1q-tunnel: customer VLANs let in; n_cvlans 0: all
	size_t n_cvlans;
	struct config_address *addresses; // static addresses of the port in its access or native network
	size_t n_addresses;
	uint16_t mtu;             // mtu_request, bytes of layer 3; 0: that of the network
	bool isolated;            // no packet passes between two isolated ports
	enum multicast_router multicast_router;
	uint32_t mac_limit;       // learned addresses of the port at most; 0: no limit of its own
	struct config_rate storm_broadcast, storm_multicast, storm_unknown;
	struct row_id *unknown;   // of a tunnel: networks that have stations behind it which nobody told of: unknown destinations are flooded into it
	size_t n_unknown;
	bool underlay;            // it is in a network where tunnels end; set by the stage `tunnel`
	bool reserved;            // mirrors write to it, and nobody else; set by the stage `mirror`
	struct config_ip remote;  // PORT_TUNNEL: the other end point
	char *error;              // as in config_network
};

// A static FDB entry (table FDB).
struct config_fdb {
	struct row_id row;
	struct row_id network;
	struct row_id port;
	uint8_t mac[6];
	char *error;
};

// A rule that an operator added (table Flow).
struct config_flow {
	struct row_id row;
	uint16_t priority;
	bool has_network;      // else it is for every network
	struct row_id network; // zero: not there yet
	char *match, *actions; // match.h, actions.h
	bool enabled;
	char *error;
};

// A class of traffic, which rules put packets into (table Class). They are sorted by name, and no two without an error have the same one.
struct config_class {
	struct row_id row;
	char *name;
	char *error;
};

// Flow records for collectors (table Flow_Export).
struct config_export {
	struct row_id row;
	char *name;
	char **targets; // "udp:IP:PORT" and others, see export_target.h
	size_t n_targets;
	struct row_id *networks; // zero: not there yet; n_networks 0: all
	size_t n_networks;
	uint32_t sampling;          // one of so many flows
	uint32_t active_timeout_s;
	uint32_t domain;            // observation domain
	uint32_t template_interval_s;
	uint32_t enterprise;
	uint32_t line_rate;         // lines of JSON a second at most
	bool enabled;
	char *error;
};

// Copies for an analyser (table Mirror).
struct config_mirror {
	struct row_id row;
	char *name;
	bool has_network;      // else packets of every network
	struct row_id network; // zero: not there yet
	bool select_all;
	struct row_id *src, *dst; // ports
	size_t n_src, n_dst;
	uint16_t *vlans;       // n_vlans 0: all
	size_t n_vlans;
	bool has_output;       // to a port
	struct row_id output;  // zero: not there yet
	uint16_t output_vlan;  // 0: not into a VLAN
	bool has_address;      // to an analyser's IP address, as ERSPAN
	struct config_ip address;
	uint16_t session;      // of ERSPAN
	uint16_t snaplen;      // 0: all of a packet
	char *error;
};

// A routing domain (table Router).
struct config_router {
	struct row_id row;
	char *name;
	uint16_t id; // dense, 1..MAX_ROUTERS-1, stable while the row exists; set by vswitch
	bool enabled;
	struct config_map other_config;
	char *error;
};

// Where a router is in a network (table Router_Port). `config.ports` has a port of PORT_ROUTER for each, with the same row.
struct config_router_port {
	struct row_id row;
	char *name;
	uint16_t id;           // that of its port; set by vswitch; 0: it can't be
	uint16_t router_id;    // set by vswitch; 0: the router isn't there yet, or it can't be applied
	uint16_t network_id;   // the same of the network
	struct row_id router;  // zero: not there yet
	struct row_id network; // zero: not there yet
	uint8_t mac[6];
	struct config_prefix *addresses; // with a link-local IPv6 address made of the MAC, if none is given
	size_t n_addresses;
	bool enabled;
	struct config_map ra;           // router advertisements: keys of weir-db(5)
	struct config_map other_config;
	char *error;
	char *complaint; // the row went bad, and this is what it was: NULL, or what is wrong with it now
};

enum route_type {
	ROUTE_NONE,        // of look-ups: there is no route
	ROUTE_UNICAST,
	ROUTE_LOCAL,       // the address is the router's own
	ROUTE_BLACKHOLE,   // dropped without a word
	ROUTE_UNREACHABLE, // ICMP: net unreachable
	ROUTE_PROHIBIT,    // ICMP: administratively prohibited
};

struct config_next_hop {
	bool has_gateway;      // else destinations are on the link
	struct config_ip gateway;
	struct row_id port;    // Router_Port; zero with has_port false: the one whose prefix the gateway is in
	bool has_port;
	uint16_t weight;       // 1..256
};

// A route (table Route). They are sorted by router, table, family, prefix and metric, and no two are the same in all of these.
struct config_route {
	struct row_id row;
	struct row_id router;
	uint16_t router_id;    // set by vswitch; 0: as in config_router_port
	uint32_t table;        // 0: the router's main table
	struct config_prefix prefix;
	enum route_type type;
	uint32_t metric;       // the lowest one wins
	struct config_next_hop *hops; // of ROUTE_UNICAST
	size_t n_hops;
	char *error;
};

// Which table a packet is routed by (table Route_Policy). They are sorted by router and priority.
struct config_route_policy {
	struct row_id row;
	struct row_id router;
	uint16_t router_id;    // as in config_route
	uint32_t priority;     // the lowest one that matches wins
	bool has_src, has_dst, has_port;
	struct config_prefix src, dst;
	struct row_id port;    // ingress Router_Port
	int dscp;              // -1: any
	struct pkt_mark mark;      // 0/0: any
	enum route_type type;  // ROUTE_UNICAST: look up in `table`
	uint32_t table;
	char *error;
};

// The end point of another switch's tunnels: what it publishes, or a static one of a network or address. No two have the same address, and each has an
// address of a family that this switch has an end point of. `config.ports` has a port of PORT_TUNNEL for each.
struct config_remote {
	struct config_ip ip;
	struct row_id host;    // of table Endpoint; zero: static
	char *name;            // of the host, or the address
	struct row_id *networks; // that it has ports in; of a static one: those that flood to it
	size_t n_networks;
};

// A station behind a tunnel.
struct config_remote_mac {
	struct row_id network;
	uint8_t mac[6];
	struct config_ip ip;   // the end point
	struct config_ip *ips; // addresses of the station
	size_t n_ips;
	struct row_id row;     // of table FDB; zero: another switch has published it
	char *error;           // of that row
};

struct config {
	struct config_map other_config; // Weir.other_config overlaid with Host.other_config
	struct config_network *networks;
	size_t n_networks;
	struct config_port *ports;
	size_t n_ports;
	struct config_fdb *fdb;
	size_t n_fdb;
	struct config_flow *flows;
	size_t n_flows;
	struct config_class *classes;
	size_t n_classes;
	struct config_mirror *mirrors;
	size_t n_mirrors;
	struct config_export *exports;
	size_t n_exports;
	struct config_router *routers;
	size_t n_routers;
	struct config_router_port *router_ports;
	size_t n_router_ports;
	struct config_route *routes;
	size_t n_routes;
	bool routes_kept; // rows of routes, routers and router ports are what they were in the config before, and `routes` is empty
	struct config_route_policy *policies;
	size_t n_policies;
	struct config_ip *tunnel_ips; // local end points of tunnels, at most one of each family
	size_t n_tunnel_ips;
	struct config_remote *remotes;
	size_t n_remotes;
	struct config_remote_mac *remote_macs;
	size_t n_remote_macs;
	int64_t next_cfg;               // the generation that this config is
};

void config_free(struct config *);
// What is in them, not themselves.
void config_map_free(struct config_map *);
void config_router_port_clear(struct config_router_port *);
// Value of `key`, or `fallback` if the map has no such key.
const char *config_map_get(const struct config_map *, const char *key, const char *fallback);
// The same as a number in [lo, hi]; a value that is no such number gives `fallback` and, if `bad` is not NULL, sets *bad to the key.
uint64_t config_map_uint(const struct config_map *, const char *key, uint64_t fallback, uint64_t lo, uint64_t hi,
			 const char **bad);
bool config_map_bool(const struct config_map *, const char *key, bool fallback);
bool row_id_equal(const struct row_id *, const struct row_id *);
bool row_id_is_zero(const struct row_id *);
#define ROW_ID_STRLEN 36
// Writes the 36 characters of the UUID and a NUL.
void row_id_format(const struct row_id *, char out[ROW_ID_STRLEN + 1]);
bool row_id_parse(const char *, struct row_id *);

#endif
