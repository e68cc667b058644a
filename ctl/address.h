// address: Ethernet and IP addresses as they are typed.
#ifndef CTL_ADDRESS_H
#define CTL_ADDRESS_H

#include <stdint.h>

#define MAC_STRLEN 17

// Reads xx:xx:xx:xx:xx:xx and nothing else. 0 or -EINVAL.
int mac_parse(const char *, uint8_t mac[6]);
void mac_format(const uint8_t mac[6], char out[MAC_STRLEN + 1]);
// Why no interface can have this address, one sentence, or NULL. Freed by the caller.
char *mac_problem(const char *);
// The same of "MAC [IP]...".
char *address_problem(const char *);

#endif
