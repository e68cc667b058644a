// group_config: what networks want of multicast, and how the switch's own queries and reports leave.
#ifndef PIPELINE_GROUP_CONFIG_H
#define PIPELINE_GROUP_CONFIG_H

#include "config.h"

void group_config_init(void);
int group_reconcile(struct config *, uint64_t now);

#endif
