// neighbour_table: which MAC an IP address has on the link of a router port: the state machine of RFC 4861 section 7.3, for ARP
// and neighbour discovery alike, and the packets that wait for an answer.
//
// Keyed by (router port, IP). Workers look up without locks. Entries, timers, what is asked and what is believed are the main
// thread's, whose time is that of the last neighbour_tick(). The stage `neighbour` tells the table what ARP and ND packets say,
// answers those that ask for a router's address, and takes the answers to its own: none of them is left to a later stage.
//
// What is believed: an answer to a question of ours makes an entry reachable; a question for one of our addresses makes one
// that is stale; what is merely claimed changes only entries that are there (RFC 826; RFC 4861 7.2.5 and appendix C). An
// address of Port.addresses is never anybody else's.
#ifndef PIPELINE_NEIGHBOUR_TABLE_H
#define PIPELINE_NEIGHBOUR_TABLE_H

#include "config.h"
#include "listing.h"
#include "page.h"

struct buf;
struct resolve;
struct rte_mbuf;

// RFC 4861 section 10, and what is ours.
#define NEIGHBOUR_REACHABLE_MS 30000 // times 0.5 to 1.5, drawn anew for each entry
#define NEIGHBOUR_RETRANS_MS 1000
#define NEIGHBOUR_DELAY_MS 5000
#define NEIGHBOUR_MULTICAST_SOLICIT 3
#define NEIGHBOUR_UNICAST_SOLICIT 3
#define NEIGHBOUR_FAILED_MS 3000    // so long packets to one that didn't answer are refused without asking again
#define NEIGHBOUR_STALE_MS 14400000 // a stale entry that nobody uses goes after four hours

// Next hops of routes are asked more often, see neighbour_watch().
#define NEIGHBOUR_PROBE_MS 1000       // after so long without an answer, and at a quarter of it while there is none
#define NEIGHBOUR_PROBE_MIN_MS 100
#define NEIGHBOUR_PROBE_MAX_MS 60000
#define NEIGHBOUR_PROBE_BACK_MS 4000  // at most, between two questions to one that has failed
#define NEIGHBOUR_PROBE_RATE 2000     // of all together, in a second: of very many each is asked less often

#define NEIGHBOUR_MAX 49152            // entries
#define NEIGHBOUR_PORT_MAX 16384       // of one router port
#define NEIGHBOUR_INCOMPLETE_MAX 512   // of one router port, that have not answered yet: the oldest one makes room
#define NEIGHBOUR_WAITING_MAX 32       // packets that wait for one neighbour: the oldest one makes room
#define NEIGHBOUR_WAITING_PORT_MAX 256 // packets of one ingress port that wait
#define NEIGHBOUR_ASK_RATE 1000        // new neighbours that packets of one ingress port may ask for in a second, and at once

enum neighbour_state {
	NEIGHBOUR_NONE,
	NEIGHBOUR_INCOMPLETE,
	NEIGHBOUR_REACHABLE,
	NEIGHBOUR_STALE,
	NEIGHBOUR_DELAY,
	NEIGHBOUR_PROBE,
	NEIGHBOUR_FAILED,
	NEIGHBOUR_STATIC, // of Port.addresses
};

// What a packet says of an address, see RFC 4861 appendix C. ARP: an answer to us is SOLICITED and OVERRIDE, a question for an
// address of ours ASKED, everything else OVERRIDE.
#define NEIGHBOUR_SOLICITED 0x1
#define NEIGHBOUR_OVERRIDE 0x2
#define NEIGHBOUR_ASKED 0x4 // it asked us, and so is there: NS, RS

// ---- workers, and the main thread with r NULL

// 1: *adj is its adjacency and mac its address; 0: it is not known yet (neighbour_hold()); -1: it doesn't answer. The decision
// depends on it.
int neighbour_find(struct resolve *r, uint16_t port, bool v6, const uint8_t *ip, uint8_t mac[6], uint16_t *adj);
// A flow that is fresh sends by the adjacency: it is in use, and so is probed.
void neighbour_used(uint16_t adj, uint32_t now_s);
// The address of the router port turned out to be somebody else's, and must not be used. The decision depends on it.
bool neighbour_is_duplicate(struct resolve *r, uint16_t port, bool v6, const uint8_t *ip);

// ---- main thread

// A punted packet waits for the neighbour, which is asked for. It ends by punt_resume() when that is known, by
// neighbour_failed() if it doesn't answer, or dropped.
void neighbour_hold(uint16_t port, const struct config_ip *, struct rte_mbuf *);
// It was in use, stopped answering, and has not been heard of since: a next hop to leave, if there are others.
// neighbour_changed() is told when that changes, if it is watched.
bool neighbour_is_dead(uint16_t port, bool v6, const uint8_t *ip);
// Asks for it if it isn't known, as a packet would; and one that is known counts as used. For who wants it without a packet.
void neighbour_want(uint16_t port, const struct config_ip *);
// It is a next hop: it is asked for before a packet needs it, and then every NEIGHBOUR_PROBE_MS (or what the router port's
// `next-hop-probe-ms` says) whether it is still there. After three questions without an answer it is dead: packets that have no
// other way still go to it, while it is asked on as RFC 4861 has it; and when that gave it up too, with pauses that grow up to
// NEIGHBOUR_PROBE_BACK_MS. One of Port.addresses too. Calls are counted: as many with `on` false end it. Whether it is dead.
bool neighbour_watch(uint16_t port, const struct config_ip *, bool on);
bool neighbour_is_watched(uint16_t port, const struct config_ip *);
// What it is behind went away, or came back: it counts as dead at once, and is asked; or is believed again, unless it is going to be asked anyway.
void neighbour_doubt(uint16_t port, const struct config_ip *, bool doubt);
// Something came back: those that are dead are asked at once.
void neighbour_watch_hurry(void);
// A packet in the network said it of an address that is none of a router's. `mac` NULL: without one.
void neighbour_seen(uint16_t network, const struct config_ip *, const uint8_t *mac, unsigned what, uint64_t now);
// Workers: whether that might change something. `asked`: it asks us.
bool neighbour_is_news(uint16_t network, const struct config_ip *, const uint8_t mac[6], bool asked);
void neighbour_tick(uint64_t now);
// Router ports, their addresses, and static neighbours as they are wanted.
int neighbour_configure(const struct config *);
// Addresses of the router port that somebody else has: "10.0.0.1 (52:54:00:00:00:01 on port vm1)", with commas. The version goes up when that changes.
void neighbour_duplicates(uint16_t port, struct buf *);
uint32_t neighbour_own_version(void);
// Of one router port, or of all (0), but static ones. Returns how many went.
unsigned neighbour_flush(uint16_t port);
int neighbour_init(void);
void neighbour_fini(void);
// What to do with a packet whose neighbour doesn't answer. NULL: punt_resume(), and the decision finds it failed.
extern void (*neighbour_failed)(struct rte_mbuf *, uint16_t port);
// Called when a neighbour's adjacency or state for workers has changed. NULL: nobody wants to know.
extern void (*neighbour_changed)(uint16_t port, const struct config_ip *);

// By router port, of MAX_PORTS.
struct neighbour_port_figures {
	bool is_router_port;
	uint32_t next_hops, dead_next_hops;
	uint64_t conflicts; // of its addresses
};
void neighbour_figures(struct neighbour_port_figures *);

struct neighbour_view {
	uint16_t port;
	struct config_ip ip;
	uint8_t mac[6];
	bool has_mac;
	enum neighbour_state state;
	uint64_t changed; // nanoseconds: since when it is in the state
	uint32_t used_s;  // 0: never
	bool watched, dead;
	unsigned waiting, probes;
	uint16_t adj;
};
uint32_t neighbour_high(void);
bool neighbour_at(uint32_t index, struct neighbour_view *);
const char *neighbour_state_name(enum neighbour_state);

#endif
