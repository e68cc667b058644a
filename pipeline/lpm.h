// lpm: longest prefix match, one table for IPv4 and IPv6, that workers read without locks while the main thread changes it.
//
// A trie with a stride of six bits whose nodes hold bitmaps (Eatherton, Varghese and Dittia, "Tree bitmap", 2004): a node knows
// the prefixes that end in it and the children that it has, and has room for just those. To add or remove is to publish a copy
// of one node; the pointer of a child or a value is replaced in place. A reader sees each change whole: a prefix that covers an
// address before and after a change is found throughout.
//
// Memory that readers may still look at is freed after a grace period, in batches.
#ifndef PIPELINE_LPM_H
#define PIPELINE_LPM_H

#include <stdbool.h>
#include <stdint.h>

struct lpm_node;

// Zero-initialise.
struct lpm {
	struct lpm_node *root;
	uint64_t prefixes, nodes, bytes;
};

// ---- readers: any worker, and the main thread

// The value of the longest prefix of up to `max` bits that `ip` is in; NULL: none. An IPv4 address has four bytes.
void *lpm_find(const struct lpm *, bool v6, const uint8_t *ip, uint8_t max, uint8_t *len);

// ---- main thread

// Exactly this prefix's value. Bits behind its length don't count, here as below.
void *lpm_get(const struct lpm *, bool v6, const uint8_t *ip, uint8_t len);
// Sets the value, which isn't NULL. *old: what was there. 0 or -ENOMEM.
int lpm_set(struct lpm *, bool v6, const uint8_t *ip, uint8_t len, void *value, void **old);
// What was there, NULL: nothing. Never fails for want of memory: a node whose smaller copy can't be made keeps an empty place.
void *lpm_remove(struct lpm *, bool v6, const uint8_t *ip, uint8_t len);
// Frees p after a grace period, with what lpm's own changes leave behind.
void lpm_retire(void *p);
// Hands over what waits. Call it after a batch of changes.
void lpm_flush(void);
// Takes the table away at once; readers may be in it. Frees up to `budget` nodes of it, and calls `gone` for each value in
// them. True: there is more. The caller has waited for a grace period after it made the table unreachable.
bool lpm_free_some(struct lpm *, unsigned budget, void (*gone)(void *value));

// Visits prefixes in the order of their addresses, shorter ones first, behind (ip, len); begun false: from the first one on.
// The visitor may change the value of, or remove, the prefix that it is called for. It returns false to stop; then true is
// returned.
struct lpm_at {
	bool begun;
	uint8_t len;
	uint8_t ip[16];
};
typedef bool lpm_visit_fn(void *arg, const struct lpm_at *, void *value);
bool lpm_walk(const struct lpm *, bool v6, const struct lpm_at *after, lpm_visit_fn *, void *arg);

#endif
