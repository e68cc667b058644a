// endpoint: what this switch tells the others of itself, by table Endpoint of a shared database: where its tunnels end, and which stations are at its ports, so that
// nobody floods to find them.
#ifndef VSWITCH_ENDPOINT_H
#define VSWITCH_ENDPOINT_H

#include "config.h"
#include "db.h"

// Once the config is applied.
void endpoint_publish(const struct config *, struct db *);

#endif
