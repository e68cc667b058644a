// buf: a text that grows. Zero-initialise; free(b.text) at the end. One thread.
#ifndef OFPROTO_BUF_H
#define OFPROTO_BUF_H

#include <stddef.h>
#include <stdint.h>

struct buf {
	char *text; // NUL-terminated; NULL while empty
	size_t len, room;
};

void buf_add(struct buf *, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_add_mac(struct buf *, const uint8_t mac[6]);

#endif
