// metrics_table: every metric of the switch, one row each; weir-metrics(7) is made from it. What tables register of their fill
// level (ofproto/table_stat.h) is not in it.
//
// A row: id, family, type, unit, labels, help. Names follow the conventions of Prometheus: base units, the unit at the end. The
// suffixes _total and _info are those of the types and not part of a family's name.
#ifndef VSWITCH_METRICS_TABLE_H
#define VSWITCH_METRICS_TABLE_H

#include "count.h"
#include "openmetrics.h"

// A counter of the ledger each, by its name in count.h; label port.
#define PORT_METRICS(X)                                                                                                        \
	X(RX, "weir_port_receive_packets", COUNTER, "packets", "port", "packets taken from the port")                          \
	X(RX_BYTES, "weir_port_receive_bytes", COUNTER, "bytes", "port", "bytes of the packets taken from the port")           \
	X(TX, "weir_port_transmit_packets", COUNTER, "packets", "port", "packets, of any origin, given to the port")           \
	X(TX_BYTES, "weir_port_transmit_bytes", COUNTER, "bytes", "port", "bytes of the packets given to the port")            \
	X(TX_DROPPED, "weir_port_transmit_dropped_packets", COUNTER, "packets", "port",                                        \
	  "packets, of any origin, dropped on their way out of the port")                                                      \
	X(DROPPED, "weir_port_dropped_packets", COUNTER, "packets", "port",                                                    \
	  "packets that the port received and the switch dropped, all reasons")                                                \
	X(SENT, "weir_port_sent_packets", COUNTER, "packets", "port",                                                          \
	  "packets that the port received, or copies of them, that left by some port")                                         \
	X(QUEUED, "weir_port_queued_packets", GAUGE, "packets", "port",                                                        \
	  "packets that the port received and that wait in the switch")                                                        \
	X(GENERATED, "weir_port_generated_packets", COUNTER, "packets", "port",                                                \
	  "packets that the switch made on the port's account")                                                                \
	X(COPIES, "weir_port_copied_packets", COUNTER, "packets", "port",                                                      \
	  "copies of the port's packets for further egress ports")                                                             \
	X(SEGMENTS, "weir_port_segmentation_packets", COUNTER, "packets", "port",                                              \
	  "packets more, after large ones of the port were cut")                                                               \
	X(CONSUMED, "weir_port_consumed_packets", COUNTER, "packets", "port",                                                  \
	  "packets of the port that the switch itself took")                                                                   \
	X(MERGED, "weir_port_merged_packets", COUNTER, "packets", "port", "packets of the port that became part of another")   \
	X(RESOLVED, "weir_resolver_packets", COUNTER, "packets", "port", "packets of the port that went through the resolver") \
	X(UNCACHED, "weir_resolver_uncached_packets", COUNTER, "packets", "port",                                              \
	  "packets of the port whose decision was not kept, as the port has its share of flows")                               \
	X(BEYOND_PROFILE, "weir_resolver_beyond_profile_packets", COUNTER, "packets", "port",                                  \
	  "decisions that read a field outside their profile: a defect")                                                       \
	X(CACHE_HIT, "weir_flow_hit_packets", COUNTER, "packets", "port", "packets of the port that a cached flow served")     \
	X(FDB_LEARNED, "weir_fdb_learned_addresses", COUNTER, "addresses", "port", "addresses learned on the port")            \
	X(FDB_MOVED, "weir_fdb_moved_addresses", COUNTER, "addresses", "port", "addresses that moved to the port")             \
	X(FDB_REFUSED, "weir_fdb_refused_addresses", COUNTER, "addresses", "port",                                             \
	  "addresses not learned on the port: a limit, a flapping address, no room")

#define METRICS(X)                                                                                                             \
	X(BUILD, "weir_build", INFO, "", "version, dpdk_version, instruments", "what runs")                                    \
	X(DATABASE, "weir_database_connected", GAUGE, "", "",                                                                  \
	  "1: the database answers and is in order; 0: the switch keeps what it has")                                          \
	X(CONFIGURATION, "weir_configuration_problem", GAUGE, "", "",                                                          \
	  "1: a setting in other_config can't be used; weirctl health says which")                                             \
	X(LEDGER, "weir_ledger_missing_packets", GAUGE, "packets", "",                                                         \
	  "packets that nobody accounts for, sum over all ports; more than 0 for longer than a moment is a defect")            \
	X(PORT, "weir_port", INFO, "", "port, type, network, and those that metrics-labels names",                             \
	  "what a port is; join it on(port)")                                                                                  \
	X(PORT_UP, "weir_port_up", GAUGE, "", "port", "1: the link is up, of a guest's port: its driver is ready")             \
	X(PORT_PROBLEM, "weir_port_problem", GAUGE, "", "port",                                                                \
	  "1: something keeps packets from passing; weirctl port list says what")                                              \
	X(PORT_MTU, "weir_port_mtu_bytes", GAUGE, "bytes", "port", "largest packet, layer 3")                                  \
	X(PORT_GUEST_MTU, "weir_port_guest_mtu_bytes", GAUGE, "bytes", "port",                                                 \
	  "MTU that the hypervisor told the guest; nothing if it told none")                                                  \
	X(BOND_ACTIVE, "weir_bond_member_active", GAUGE, "", "bond, port", "1: packets of the bond leave by this member")          \
	X(BOND_RX, "weir_bond_member_receive_packets", COUNTER, "packets", "bond, port", "packets of the bond that came by this member") \
	X(BOND_RX_BYTES, "weir_bond_member_receive_bytes", COUNTER, "bytes", "bond, port", "their bytes")                      \
	X(BOND_TX, "weir_bond_member_transmit_packets", COUNTER, "packets", "bond, port", "packets of the bond given to this member") \
	X(BOND_TX_BYTES, "weir_bond_member_transmit_bytes", COUNTER, "bytes", "bond, port", "their bytes")                     \
	X(PORT_DROPS, "weir_port_drops", COUNTER, "", "port, reason",                                                          \
	  "packets that the port received and the switch dropped, by reason; only reasons that occurred: weir-reasons(7)")     \
	X(PORT_LOST, "weir_port_lost_packets", COUNTER, "packets", "port, reason",                                             \
	  "packets lost below the switch, before they were its own or when they were no more; they are not in the ledger")     \
	X(PORT_LOST_UNKNOWN, "weir_port_lost_unknown", GAUGE, "", "port, reason",                                              \
	  "1: packets may be lost so, and nobody can tell how many")                                                           \
	X(PORT_RX_TIME, "weir_port_receive_seconds", COUNTER, "seconds", "port",                                               \
	  "workers' time for the packets that the port received, until they are put into batches; resolving included")         \
	X(PORT_RESOLVE_TIME, "weir_port_resolve_seconds", COUNTER, "seconds", "port",                                          \
	  "of that, the resolver's; from a sample")                                                                            \
	X(PORT_TX_TIME, "weir_port_transmit_seconds", COUNTER, "seconds", "port",                                              \
	  "workers' time for sending to the port; from a sample")                                                              \
	X(PORT_LATENCY, "weir_port_latency_seconds", HISTOGRAM, "seconds", "port",                                             \
	  "time from a worker taking a packet to the port's device having it; from a sample that stands for all packets; "     \
	  "bounds are powers of two "                                                                                          \
	  "from 4.096 us to 134 ms, and count what is below them; only ports that packets left by")                            \
	X(PORT_MISSING, "weir_port_missing_packets", GAUGE, "packets", "port",                                                 \
	  "packets of the port that nobody accounts for; negative: too many; only of ports where it isn't 0")                  \
	X(NEXT_HOPS, "weir_next_hops", GAUGE, "", "port, state",                                                               \
	  "next hops by the router port, of routes and tunnels: alive, or dead, which don't answer")                           \
	X(CONFLICTS, "weir_router_port_conflicts", COUNTER, "", "port",                                                        \
	  "packets in which somebody else claimed an address of the router port: weirctl neighbour own")                       \
	X(NEIGHBOUR_LOST, "weir_neighbour_lost_messages", COUNTER, "messages", "",                                             \
	  "ARP and neighbour discovery messages with news that were too many to be looked at")                                 \
	X(MULTICAST_REFUSED, "weir_multicast_refusals", COUNTER, "", "network, limit",                                         \
	  "reports of multicast groups that a limit refused: of the network, of a port, of sources")                           \
	X(WORKER, "weir_worker", INFO, "", "worker, core, numa_node", "where a worker runs; without core it isn't pinned")     \
	X(WORKER_BUSY, "weir_worker_busy_seconds", COUNTER, "seconds", "worker", "time in rounds that had packets")            \
	X(WORKER_IDLE, "weir_worker_idle_seconds", COUNTER, "seconds", "worker", "time in rounds without packets, and asleep") \
	X(WORKER_PACKETS, "weir_worker_receive_packets", COUNTER, "packets", "worker",                                         \
	  "packets that the worker took from its queues")                                                                      \
	X(WORKER_ROUNDS, "weir_worker_iterations", COUNTER, "", "worker", "rounds over the worker's queues")                   \
	X(WORKER_PAUSES, "weir_worker_pauses", COUNTER, "", "worker", "short sleeps")                                          \
	X(WORKER_SLEEPS, "weir_worker_sleeps", COUNTER, "", "worker", "waits for a notification")                              \
	X(WORKER_ASLEEP, "weir_worker_sleep_seconds", COUNTER, "seconds", "worker", "time in waits for a notification")        \
	X(WORKER_WAKEUPS, "weir_worker_wakeups", COUNTER, "", "worker", "wake-ups by the main thread that were timed")         \
	X(WORKER_WAKEUP, "weir_worker_wakeup_seconds", COUNTER, "seconds", "worker",                                           \
	  "time that those took, from the bell to the worker")                                                                 \
	X(WORKER_WAKEUP_MAX, "weir_worker_wakeup_max_seconds", GAUGE, "seconds", "worker", "the longest of them")              \
	X(WORKER_ROUND_MAX, "weir_worker_round_max_seconds", GAUGE, "seconds", "worker",                                       \
	  "its longest round: for so long it looked at none of its ports; begun anew by weirctl worker history clear")         \
	X(WORKER_ROUND_OWN, "weir_worker_round_own_max_seconds", GAUGE, "seconds", "worker",                                   \
	  "the longest one less the time in which the kernel had other things run on its core")                                \
	X(WORKER_BURST, "weir_worker_burst_packets", HISTOGRAM, "packets", "worker",                                           \
	  "packets that one look at a queue found, if any")                                                                    \
	X(WORKER_PART, "weir_worker_part_seconds", COUNTER, "seconds", "worker, part or stage",                                \
	  "time for a part of the work, or a stage, in bursts that were measured: one in 128")                                 \
	X(WORKER_PART_PACKETS, "weir_worker_part_packets", COUNTER, "packets", "worker, part or stage",                        \
	  "packets that it was for")                                                                                           \
	X(WORKER_SUSPICIOUS, "weir_worker_suspicious_rounds", COUNTER, "", "worker, reason",                                   \
	  "rounds that the flight recorder found suspicious: long, queue-full, resolver-storm; weirctl worker history")        \
	X(WORKER_QUEUES, "weir_worker_receive_queues", GAUGE, "", "worker", "receive queues that the worker serves")           \
	X(FLOW_INSERTS, "weir_flow_inserts", COUNTER, "", "worker", "flows added to the worker's table")                       \
	X(FLOW_EVICTIONS, "weir_flow_evictions", COUNTER, "", "worker",                                                        \
	  "flows replaced before their time, as their port had its share")                                                     \
	X(FLOW_EXPIRIES, "weir_flow_expiries", COUNTER, "", "worker", "flows removed after flow-idle-timeout")                 \
	X(FLOW_REFUSALS, "weir_flow_refusals", COUNTER, "", "worker", "flows that found no room")                              \
	X(CLASS, "weir_class_packets", COUNTER, "packets", "class", "packets that rules have put into a class of traffic")    \
	X(CLASS_BYTES, "weir_class_bytes", COUNTER, "bytes", "class", "their bytes, as they were received")                    \
	X(TABLE_FILL, "weir_table_fill_ratio", GAUGE, "ratio", "table, of",                                                    \
	  "share of a table's limit that is in use; of: which of several, a network, a worker")                                \
	X(RENDER, "weir_metrics_render_seconds", GAUGE, "seconds", "",                                                         \
	  "time that the main thread took for the answer before this one")                                                     \
	X(CPU, "process_cpu_seconds", COUNTER, "seconds", "", "processor time of the process, user and system")                \
	X(MEMORY, "process_resident_memory_bytes", GAUGE, "bytes", "", "resident memory of the process, without hugepages")    \
	X(START, "process_start_time_seconds", GAUGE, "seconds", "", "start of the process, seconds since 1970")               \
	X(MAX_FDS, "process_max_fds", GAUGE, "", "", "descriptors that the process may have")

#define METRIC_ID(id, ...) METRIC_##id,
#define METRIC_PORT_ID(id, ...) METRIC_OF_COUNT_##id,
#define METRIC_ROW(id, family, type, unit, labels, help) {{family, unit, help, OM_##type}, labels},

enum metric {
	METRICS(METRIC_ID) PORT_METRICS(METRIC_PORT_ID) METRIC_N
};

struct metric_row {
	struct om_family family;
	const char *labels; // names, for people
};

#endif
