// reason: why a packet was dropped. Every module has its reasons in an X-macro:
//
//     #define ACL_REASONS(X) X(acl, DENY, "a rule of the security group denies it")
//
// and registers them at start-up, which gives them consecutive numbers from a base. REASON_ENUM makes the offsets, REASON_ROW the table.
#ifndef OFPROTO_REASON_H
#define OFPROTO_REASON_H

#include <stddef.h>
#include <stdint.h>

struct reason {
	const char *module; // "acl"
	const char *name;   // "DENY"
	const char *text;   // one clause that completes "dropped: ..."
};

#define REASON_ENUM(module, name, text) module##_##name,
#define REASON_ROW(module, name, text) {#module, #name, text},

// Main thread, at start-up. Returns the base, > 0; 0 if MAX_REASONS are used up.
uint16_t reason_register(const struct reason *, size_t n);
// `id` in 1..reason_count()-1.
const struct reason *reason_get(uint16_t id);
uint16_t reason_count(void);
// 0 if there is none.
uint16_t reason_find(const char *module, const char *name);

#endif
