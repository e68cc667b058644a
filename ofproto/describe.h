// describe: a packet in the words that compose() takes, so that what was lost can be asked about again.
#ifndef OFPROTO_DESCRIBE_H
#define OFPROTO_DESCRIBE_H

#include "buf.h"

#include <stdbool.h>

// Appends the description of a frame of `len` bytes, whose first `have` are known: "tcp,dl_src=...,tp_dst=443,packet_len=1514". compose() makes a packet of
// it that is decided as this one was; payload, TCP options and checksums are not kept. False: words can't say it (two tags, IP options or extension
// headers, anything malformed); nothing is appended then, and describe_bytes() is for it. Any thread.
bool describe(struct buf *, const uint8_t *frame, unsigned have, unsigned len);
// The bytes as hexadecimal digits, which compose() takes as well.
void describe_bytes(struct buf *, const uint8_t *frame, unsigned have);

#endif
