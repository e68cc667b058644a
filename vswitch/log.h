// log: one line for one event, for an operator to read and for a program to take apart.
//
//     log_event('w', "port", LOG_FIELDS({"port", name}, {"packets", LOG_NUMBER(n)}), "port %s: %s", name, why);
//
// As text: time, level, module, the sentence, then the fields:
//     2026-11-20T14:00:41.283Z WARN port: port vm1: nothing is connected port=vm1 packets=12
// As JSON (--log-format json), an object a line: {"time": ..., "level": "warning", "module": "port", "event": SENTENCE, "port": "vm1", ...}.
//
// Each place in the code that logs has a limit, LOG_BURST lines at once and LOG_RATE a second later on; what is beyond it is counted, and a line says how
// many were left out, and which was the last. Any thread but a worker between packets: nothing logs from the packet path.
#ifndef VSWITCH_LOG_H
#define VSWITCH_LOG_H

#include "notice.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

// The modules. Another name works too; one that is here is listed from the start.
#define LOG_MODULES(X)                                                                                                 \
	X(main, "start and end of the switch, signals, memory")                                                        \
	X(config, "what of the configuration can't be applied")                                                        \
	X(db, "the database: connected, away, back")                                                                   \
	X(port, "ports: open, up, down, guests that connect and leave, front-ends that are refused")                   \
	X(worker, "workers and their cores, packets that they can't decide fast enough")                               \
	X(fdb, "addresses that flap")                                                                                  \
	X(neighbour, "addresses of router ports that somebody else claims")                                            \
	X(tunnel, "what the paths of tunnels take")                                                                     \
	X(route, "routes of files and of the kernel's tables")                                                         \
	X(trace, "traces that begin and end")                                                                          \
	X(control, "the control socket, and levels of the log that it changes")                                        \
	X(capture, "captures of packets")                                                                              \
	X(metrics, "the socket that metrics are read from")                                                            \
	X(dpdk, "what DPDK says")

#define LOG_BURST 50
#define LOG_RATE 5 // a second

// One place that logs. Zero-initialized.
struct log_site {
	uint64_t tokens, at_ms; // thousandths of lines that it may write, as of then
	uint64_t since_ms;      // when the first line was left out
	uint32_t left_out;
	bool known;
	char level;
	char *module, *last;    // of what was left out last
	struct log_site *next;
};

// The file may be NULL: only to standard error then, if that. Main thread, first of all.
void log_open(const char *file, bool to_stderr, bool json);
// Opens the file anew, after it was renamed. 0 or a positive errno.
int log_reopen(void);
// Main thread, now and then: says what was left out. `all`: at the end, whatever the limit.
void log_run(bool all);

// level: 'e' error, 'w' warning, 'i' info, 'd' debug. fields: LOG_FIELDS() or NULL.
#define log_event(level, module, fields, ...)                                                                          \
	do {                                                                                                           \
		static struct log_site log_site_;                                                                      \
		log_write(&log_site_, level, module, fields, __VA_ARGS__);                                             \
	} while (0)
#define log_line(level, module, ...) log_event(level, module, NULL, __VA_ARGS__)
#define LOG_FIELDS(...) ((const struct log_field[]){__VA_ARGS__, {NULL, NULL}})
#define LOG_NUMBER(n) log_number((char[24]){0}, (long long)(n))

void log_write(struct log_site *, char level, const char *module, const struct log_field *fields, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
static inline const char *log_number(char room[24], long long n)
{
	snprintf(room, 24, "%lld", n);
	return room;
}

// Main thread. "all" is every module, those that come later included. Levels: off, error, warning, info, debug, or as vlog has them. False: *error is
// a sentence (malloc'ed).
bool log_set_level(const char *module, const char *level, char **error);
struct log_module_view {
	const char *name, *level, *help;
	uint64_t lines, left_out;
};
void log_each_module(void (*fn)(const struct log_module_view *, void *arg), void *arg);

#endif
