// metrics_http: answers GET /metrics, on threads of its own (libmicrohttpd's). The main thread only makes the text, when one is
// wanted, and never waits for a client.
//
// What a client can take is bounded: so many connections at a time, each for one request, silent and in all for so many
// seconds; a text is made at most every FRESH_MS, however often it is asked for.
//
// Main thread, all functions.
#ifndef VSWITCH_METRICS_HTTP_H
#define VSWITCH_METRICS_HTTP_H

#include "openmetrics.h"

#include <stdbool.h>

#define METRICS_HTTP_CONNECTIONS 16 // of one server; further clients wait
#define METRICS_HTTP_PER_ADDRESS 8  // of those, from one IP address
#define METRICS_HTTP_SILENT_S 5     // a client that neither sends nor takes anything
#define METRICS_HTTP_WHOLE_S 10     // a connection in all
#define METRICS_HTTP_BACKLOG 128    // clients that wait for a connection
#define METRICS_HTTP_FRESH_MS 100   // a text this old is good for others who ask

struct metrics_http;

// `wake`: called by a server's thread when metrics_http_wants() has become true.
void metrics_http_init(void (*wake)(void));
// A server on a UNIX socket of mode 0660; one that is there is replaced. NULL, and a sentence.
struct metrics_http *metrics_http_unix(const char *path, char **error);
// On an address such as 127.0.0.1:9477 or [::1]:9477.
struct metrics_http *metrics_http_tcp(const char *address, char **error);
// NULL: nothing. Who waits for an answer gets 503.
void metrics_http_close(struct metrics_http *);
void metrics_http_fini(void);

// Whether somebody waits for this text.
bool metrics_http_wants(enum om_format);
// The text, which becomes the module's; NULL: there is none, who waits is told so.
void metrics_http_answer(enum om_format, char *text, size_t len);
// Ends connections that have had their time. Cheap; at least every few seconds.
void metrics_http_tick(void);

#endif
