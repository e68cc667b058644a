// fdb: the forwarding database, which port an address of a network was last seen on (IEEE 802.1Q clause 8.8).
//
// One table for all networks, keyed by (network, MAC). Look-ups take no lock. Learning, from any worker, takes a lock that nobody holds
// for long, and gives up if it is taken: the flow's next refresh learns it then.
#ifndef PIPELINE_FDB_H
#define PIPELINE_FDB_H

#include "sizes.h"

#include <assert.h>

#include <stdbool.h>
#include <stdint.h>

#define FDB_SIZE (1 << 17) // entries at most
#define FDB_NONE UINT32_MAX

struct fdb_entry {
	uint16_t network;
	uint16_t port;
	uint8_t mac[6];
	bool is_static;
	bool held;        // it flaps: moves are refused for now
	uint32_t row;     // of a static entry
	uint32_t index;   // FDB_NONE: not there
	uint32_t seen;    // seconds of the worker's clock
	uint32_t moves;   // within the present window
};

enum fdb_result {
	FDB_KNOWN,    // it was there, on this port
	FDB_LEARNED,
	FDB_MOVED,
	FDB_STATIC,   // a static entry has it, perhaps on another port: nothing is learned
	FDB_HELD,     // it flaps
	FDB_LIMIT,    // the limit of its network or port
	FDB_FULL,     // FDB_SIZE
	FDB_BUSY,     // somebody else writes at the moment
};

struct fdb_policy {
	uint32_t ageing_s; // 0: never
	uint32_t limit;
	uint32_t flap_threshold, flap_window_s, flap_hold_s;
};

int fdb_init(void);
void fdb_fini(void);
static inline uint64_t fdb_key(uint16_t network, const uint8_t mac[6])
{
	return (uint64_t)network << 48 | (uint64_t)mac[0] << 40 | (uint64_t)mac[1] << 32 | (uint64_t)mac[2] << 24 | (uint64_t)mac[3] << 16 |
	       (uint64_t)mac[4] << 8 | mac[5];
}
// Any thread that is an RCU reader, or the main thread. False: not there.
bool fdb_lookup(uint64_t key, struct fdb_entry *);
// Any worker. *changed: the address is now on another port than before (or on one at all), so flows of it are stale. *index: its entry.
enum fdb_result fdb_learn(uint64_t key, uint16_t port, uint32_t now_s, bool *changed, uint32_t *index);
// Any worker: the entry's address was seen. `index` of an entry that is known to be there.
void fdb_touch(uint32_t index, uint32_t now_s);

// Main thread, all of these. `removed(key)` is called for every address that goes.
void fdb_set_policy(uint16_t network, const struct fdb_policy *);
void fdb_set_port_limit(uint16_t port, uint32_t limit); // 0: none
// False: no room.
bool fdb_set_static(uint64_t key, uint16_t port, uint32_t row);
bool fdb_remove(uint64_t key);
// Looks at up to `budget` entries from where the last call stopped, removes aged ones. held(): once for each time that an address is held.
void fdb_age(uint32_t now_s, unsigned budget, void (*removed)(uint64_t key), void (*held)(const struct fdb_entry *));
// Removes what `which` says. Returns how many.
unsigned fdb_remove_if(bool (*which)(const struct fdb_entry *, void *arg), void *arg, void (*removed)(uint64_t key));
// The entry of this index; an entry keeps its index. False: there is none, or index is fdb_high() or more.
bool fdb_at(uint32_t index, struct fdb_entry *);
uint32_t fdb_high(void);
uint32_t fdb_count(uint16_t network); // learned ones
uint32_t fdb_limit(uint16_t network); // of those, its policy's
uint32_t fdb_port_count(uint16_t port); // the same of a port

struct resolve;
// Of a stage behind `fdb`: the packet goes to `mac` in network r->net, as if that were its destination. 0, or the reason to drop it for.
uint16_t fdb_send(struct resolve *, const uint8_t mac[6]);

#endif
