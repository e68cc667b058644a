// group_verbs: what is shown of multicast groups.
#ifndef PIPELINE_GROUP_VERBS_H
#define PIPELINE_GROUP_VERBS_H

#include "stage.h"

extern const struct stage_verb group_verbs[];
void group_verbs_init(void);
void group_verbs_fini(void);

#endif
