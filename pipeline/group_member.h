// group_member: one port in one group: filter mode, sources and their timers, and what is asked when somebody may have left.
#ifndef PIPELINE_GROUP_MEMBER_H
#define PIPELINE_GROUP_MEMBER_H

#include "group_private.h"

#define SECOND 1000000000ULL
#define MS 1000000ULL

// RFC 3376 section 8.4: how long a membership lasts without another report.
uint64_t group_membership_ns(const struct snoop *, bool v6);
// A record of a report (RFC 3376 sections 6.4, 7.3.2).
void member_record(struct snoop *, struct member *, const struct group_record *, uint64_t now);
// What is due: timers that ran out (section 6.5), queries. The member may be gone then.
void member_run(struct snoop *, struct member *, uint64_t now);
// The timer of a source that runs is no longer than `until`.
void member_lower_source(struct member *, const uint8_t *ip, uint64_t until);

// group_table.c, for the others
void group_mark(struct group *); // its members changed
void group_member_gone(struct member *);

#endif
