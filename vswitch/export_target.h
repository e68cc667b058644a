// export_target: where flow records go: udp:IP:PORT and tcp:IP:PORT get IPFIX, file:PATH and unix:PATH lines of JSON.
//
// Nothing here ever waits. What can't be taken at once is lost and counted: a UDP socket whose buffer is full, a stream whose reader is slow
// beyond TARGET_BUFFER, a connection that isn't there. A file that was renamed or removed is opened again within a second, as logrotate likes
// it; writing to it is as fast as its disk's cache.
//
// Main thread.
#ifndef VSWITCH_EXPORT_TARGET_H
#define VSWITCH_EXPORT_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TARGET_BUFFER (1 << 20)

struct target {
	char *text;           // as in the database
	bool json;            // else IPFIX
	bool began;           // a connection was just made: it has to be told everything anew. The user takes it back
	uint32_t missed;      // IPFIX records sent before its connection was made; the user's
	uint64_t records, messages, bytes; // handed over
	uint64_t lost;        // records that were not
	const struct target_kind *kind;
	int fd;               // -1: none
	bool connecting;
	int error;            // errno of what went wrong last, 0: all is well
	long long retry_ms;   // when to try again
	char *buffer;         // of a stream or file
	size_t used;
};

// Whether the text is a target; if not, *error is a sentence (malloc'ed).
bool target_check(const char *text, char **error);
struct target *target_open(const char *text); // a text that target_check() has passed; NULL: no memory
void target_close(struct target *);
// One message, or lines, with `records` records. They are sent or counted as lost. Returns whether they were sent.
bool target_send(struct target *, const void *data, size_t len, unsigned records);
// About every 100 ms: connections, what waits in buffers, files that were renamed.
void target_run(struct target *, long long now_ms);
// "ok", or what is wrong.
const char *target_state(const struct target *);

#endif
