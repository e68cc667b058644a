// link_mtu: the kernel sends nothing larger than an interface's MTU, and says so to nobody. So no port has a larger one than its kernel interface, and no bond
// a larger one than its members; what follows from a port's MTU (that of tunnels, and so of their networks and guests) follows from the interface's too. TAPs
// are the other way round: the switch gives them their MTU.
#ifndef VSWITCH_LINK_MTU_H
#define VSWITCH_LINK_MTU_H

#include <stdbool.h>

struct config;

// Lowers what the ports of the config ask for, after bond_prepare() and before anything is made of it.
void link_mtu_limit(struct config *);
// Whether an interface has another MTU than it had then: the config is to be applied again.
bool link_mtu_changed(void);

#endif
