// adjacency: see adjacency.h.
#include "adjacency.h"

struct adjacency adjacencies[MAX_ADJACENCIES];
