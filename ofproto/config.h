// config: the wanted state of the switch, as plain data.
//
// Built by vswitch/db.c from the database rows (or by a unit test by hand), handed to the reconcile functions, then
// freed. It holds no pointer into the database client. Everything in it belongs to the config and is freed by
// config_free(); a table that wants to keep a string copies it.
#ifndef OFPROTO_CONFIG_H
#define OFPROTO_CONFIG_H

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
	char *error;             // NULL, or one sentence: the row can't be applied (reconcile may set it; malloc'ed)
};

struct config_ip {
	bool v6;
	uint8_t b[16]; // network order; IPv4: the first four
};

// A station that is at the port, and its IP addresses.
struct config_address {
	uint8_t mac[6];
	struct config_ip *ip;
	size_t n_ips;
};

struct config_port {
	struct row_id row;
	char *name;
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
	uint32_t mac_limit;       // learned addresses of the port at most; 0: no limit of its own
	struct config_rate storm_broadcast, storm_multicast, storm_unknown;
	bool reserved;            // mirrors write to it, and nobody else; set by the stage `mirror`
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
	uint16_t snaplen;      // 0: all of a packet
	char *error;
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
	struct config_mirror *mirrors;
	size_t n_mirrors;
	struct config_export *exports;
	size_t n_exports;
	int64_t next_cfg;               // the generation that this config is
};

void config_free(struct config *);
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
