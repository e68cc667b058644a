// group_querier: who asks in a network (RFC 3376 section 6.6.2), and at which of its ports multicast routers are.
#ifndef PIPELINE_GROUP_QUERIER_H
#define PIPELINE_GROUP_QUERIER_H

#include "group_private.h"

void querier_heard_query(struct snoop *, uint16_t port, const struct group_message *, uint64_t now);
void querier_heard_hello(struct snoop *, uint16_t port, const struct group_message *, uint64_t now);
// The switch begins to ask, unless it hears a better one.
void querier_begin(struct snoop *, bool v6, uint64_t now);
// What is due: own queries, what others have not renewed.
void querier_run(struct snoop *, uint64_t now);
// The policy's router ports.
void querier_set_static(struct snoop *);

#endif
