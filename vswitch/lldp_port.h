// lldp_port: LLDP on the switch's ports: which of them speak and listen (other_config:lldp), and who is heard there.
//
// Main thread.
#ifndef VSWITCH_LLDP_PORT_H
#define VSWITCH_LLDP_PORT_H

#include "config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void lldp_port_init(const char *host);
void lldp_port_reconcile(const struct config *);
void lldp_port_receive(uint16_t port, const uint8_t *frame, size_t len, uint64_t now);
// Returns whether neighbours came or went.
bool lldp_port_run(uint64_t now);
// "SYSTEM PORT" of the first neighbour; NULL: none is known.
const char *lldp_port_neighbour(uint16_t port, char text[96]);
// Says on all ports that nothing holds any more.
void lldp_port_close(void);

#endif
