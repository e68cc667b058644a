// neighbour_private: what the files of the neighbour table share: neighbour_table.c (entries, look-ups, timers),
// neighbour_state.c (the state machine), neighbour_watch.c (which of them are next hops), neighbour_own.c (router ports, their
// addresses, what is sent), neighbour_list.c (verbs), neighbour.c (the stage).
#ifndef PIPELINE_NEIGHBOUR_PRIVATE_H
#define PIPELINE_NEIGHBOUR_PRIVATE_H

#include "neighbour_table.h"
#include "stage.h"

#define NEIGHBOUR_REASONS(X)                                                                                                   \
	X(neighbour, WAITING_FULL, "too many packets wait for the same neighbour: the oldest one made room")                   \
	X(neighbour, PORT_FULL, "too many packets of its ingress port wait for neighbours")                                    \
	X(neighbour, RATE, "packets of its ingress port ask for too many unknown neighbours a second")                         \
	X(neighbour, GIVEN_UP, "too many neighbours are being asked for: the oldest question was given up")                    \
	X(neighbour, TABLE_FULL, "the table of neighbours is full")                                                            \
	X(neighbour, FLUSHED, "the neighbour that it waited for was flushed, or its router port changed")

// STAGE_REASONS() in two parts: this one, and the rows, which are in neighbour.c.
extern struct stage stage_neighbour;
enum {
	NEIGHBOUR_REASONS(REASON_ENUM) neighbour_REASON_N
};

#define NONE UINT32_MAX // no entry
#define MS 1000000ULL   // nanoseconds

// What an entry may be sacrificed as: in the order of these.
enum neighbour_class {
	CLASS_OF_FAILED,
	CLASS_OF_INCOMPLETE,
	CLASS_OF_STALE,
	CLASS_OF_LIVE,
	CLASS_OF_STATIC,
	CLASSES
};

struct neighbour_key {
	uint16_t port;
	uint8_t v6, zero;
	uint8_t ip[16]; // IPv4: the first four, zeros behind
};

struct neighbour_entry {
	struct neighbour_key key;
	uint32_t seen_as; // what workers see: verdict << 16 | adjacency
	uint16_t adj;     // 0: none
	uint8_t state;    // enum neighbour_state; NEIGHBOUR_NONE: the place is free
	uint8_t class;
	uint8_t mac[6];
	uint8_t probes; // questions asked since it is in its state
	uint32_t due;   // when its timer ends, in WHEEL_MS; 0: it has none
	uint32_t wheel_prev, wheel_next;
	uint32_t prev, next; // of its port and class, the oldest first
	uint64_t changed;    // nanoseconds: when it came into its state
	uint16_t n_waiting, first_waiting;
	uint8_t suspect;           // it was usable and stopped answering
	bool watched;              // neighbour_watch()
	bool elsewhere;            // static, of another host, whose router hears its answers: it isn't asked
	struct rte_mbuf **waiting; // [NEIGHBOUR_WAITING_MAX], a ring; NULL: none ever did
};

enum own_state {
	OWN_PROBING, // used meanwhile, see neighbour_own.c
	OWN_ANNOUNCING,
	OWN_SETTLED,
	OWN_DUPLICATE, // somebody else's
};

struct own_address {
	struct config_prefix prefix;
	enum own_state state;
	uint8_t sent;  // probes or announcements, in its state
	bool again;    // probed once more, after it was a duplicate: not used until that is over
	uint64_t next; // when something is to be done
	uint64_t told; // when a conflict was told and defended last
	uint64_t conflicts;
	uint8_t other[6]; // who claims it too
	uint16_t other_port;
};

// A router port as the table knows it.
struct own_port {
	uint16_t id, network;
	uint8_t mac[6];
	uint32_t row;
	uint32_t probe_ms; // how often next hops are asked; 0: when RFC 4861 says so
	char *name;
	struct own_address *address;
	unsigned n_addresses;
	uint32_t n; // entries
	uint32_t count[CLASSES];
	uint32_t first[CLASSES], last[CLASSES];
	struct own_port *next_in_network;
};

// The addresses of router ports of one network, as workers see them.
struct own_seen {
	unsigned n, n_ports;
	struct {
		struct config_ip ip;
		uint16_t port;
		bool duplicate;
		uint8_t mac[6];
	} * address; // of `n`
	struct {
		uint16_t id;
		uint8_t mac[6];
	} port[]; // of `n_ports`
};

// ---- neighbour_table.c
extern struct neighbour_entry *neighbour_entries;
extern uint64_t neighbour_clock; // nanoseconds, of the last tick

uint32_t neighbour_index(const struct neighbour_entry *);
struct neighbour_key neighbour_key(uint16_t port, bool v6, const uint8_t *ip);
struct config_ip neighbour_ip(const struct neighbour_entry *);
struct neighbour_entry *neighbour_get(uint16_t port, const struct config_ip *); // NULL: none
// NULL: no room. In state NONE yet: its first neighbour_set() has to follow.
struct neighbour_entry *neighbour_new(struct own_port *, const struct config_ip *);
// Its state, and its MAC if `mac` is not NULL; workers see both at once. Its timer ends after `ms`; 0: none.
void neighbour_set(struct neighbour_entry *, enum neighbour_state, const uint8_t *mac, uint64_t ms);
void neighbour_timer(struct neighbour_entry *, uint64_t ms);
// It stopped answering, or answers, while workers go on to see the same of it.
void neighbour_suspect(struct neighbour_entry *, bool);
// Its packets are dropped for `reason`.
void neighbour_delete(struct neighbour_entry *, uint16_t reason);
// Calls for each whose timer has ended by `now`.
void neighbour_timers(uint64_t now, void (*ended)(struct neighbour_entry *));
// Calls for each whose adjacency was used though it is stale.
void neighbour_each_used(void (*used)(struct neighbour_entry *));
uint32_t neighbour_used_s(const struct neighbour_entry *);
uint32_t neighbour_count(void);

// ---- neighbour_state.c
// Packets that wait go on their way, or end.
void neighbour_release(struct neighbour_entry *);
void neighbour_drop_waiting(struct neighbour_entry *, uint16_t reason);
void neighbour_set_static(struct own_port *, const struct config_ip *, const uint8_t mac[6], bool elsewhere);
// It is watched from now on, or in other intervals, or not any more.
void neighbour_rearm(struct neighbour_entry *);

// ---- neighbour_watch.c
bool neighbour_has_watch(const struct neighbour_key *);
// How often it is asked whether it is there; 0: when RFC 4861 says so.
uint32_t neighbour_watch_ms(const struct neighbour_entry *);
void neighbour_watch_tick(uint64_t now);
void neighbour_watch_rearm(uint16_t port); // its probe_ms has changed
void neighbour_watch_fini(void);

// ---- neighbour_list.c
extern const struct stage_verb neighbour_verbs[];

// ---- neighbour_own.c
struct own_port *neighbour_own(uint16_t port);
struct own_port *neighbour_own_in(uint16_t network); // the first one, then next_in_network
void neighbour_own_tick(uint64_t now);
bool neighbour_own_has(uint16_t network, const struct config_ip *); // a router port there does
// A packet says that somebody at `mac` has, or wants, the address. True: it is one of ours.
bool neighbour_own_claimed(uint16_t network, const struct config_ip *, const uint8_t mac[6], uint16_t port, bool probe,
			   uint64_t now);
// Asks for the entry's address: its own MAC, or everybody.
void neighbour_solicit(const struct neighbour_entry *, const uint8_t *to);
// RCU; NULL: no router has a port there.
const struct own_seen *neighbour_own_seen(uint16_t network);
void neighbour_own_fini(void);

#endif
