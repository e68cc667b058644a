// openmetrics: writes metrics in the OpenMetrics text format 1.0.0 and in Prometheus' older text format 0.0.4, and tells which
// one a scraper wants.
//
//     struct om o = {.format = OM_OPENMETRICS};
//     om_family(&o, &(struct om_family){"weir_port_receive_bytes", "bytes", "bytes of packets taken from the port",
//     OM_COUNTER}); om_uint(&o, port.text, bytes);       // weir_port_receive_bytes_total{port="vm1"} 1234 char *text =
//     om_end(&o, &len);       // the caller frees it
//
// The two formats differ in the lines about a family (in OpenMetrics they name it without _total, and there is one with its
// unit), in the form of bounds (1.0 and 1) and at the end (# EOF). One thread.
#ifndef OFPROTO_OPENMETRICS_H
#define OFPROTO_OPENMETRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum om_format {
	OM_OPENMETRICS,
	OM_TEXT,
	OM_FORMATS
};

enum om_type {
	OM_COUNTER, // samples get _total
	OM_GAUGE,
	OM_INFO,      // samples get _info, their value is 1
	OM_HISTOGRAM, // om_histogram()
};

struct om_family {
	const char *name; // without the suffix of its samples
	const char *unit; // seconds, bytes, ratio, packets...: the last word of the name; "": none
	const char *help;
	enum om_type type;
};

struct om {
	enum om_format format;
	struct om_family family;
	bool said;   // the lines about the family are written; they are with its first sample
	bool failed; // out of memory
	char *text;
	size_t len, room;
};

// The samples that follow are of this family, which no earlier one was of. Without samples nothing is written of it.
void om_family(struct om *, const struct om_family *);
// `labels`: the text of om_label()s; "": none.
void om_uint(struct om *, const char *labels, uint64_t);
void om_int(struct om *, const char *labels, int64_t);
void om_real(struct om *, const char *labels, double);
void om_seconds(struct om *, const char *labels, uint64_t nanoseconds); // exact
// count[i] of n: values up to bound[i], and above bound[i - 1]; count[n]: values above all bounds.
void om_histogram(struct om *, const char *labels, const double *bound, const uint64_t *count, unsigned n, double sum);
// The text, NUL-terminated; NULL: out of memory. *o is as new.
char *om_end(struct om *o, size_t *len);

#define OM_VALUE 128 // bytes of a label's value at most; the rest is cut off

struct om_labels {
	char text[1024]; // port="vm1",reason="fdb.UNKNOWN"
	size_t len;
};

// Adds a label. Its value is escaped, and what is no UTF-8 or can't be printed becomes "?". Without room for all of it nothing
// is added.
void om_label(struct om_labels *, const char *name, const char *value);
// Makes a label's name of any text: letters, digits and _, none that is reserved (__). At most size - 1 bytes.
void om_label_name(const char *from, char *name, size_t size);

// By the value of the header Accept (RFC 9110 section 12.5.1); NULL: there was none.
enum om_format om_negotiate(const char *accept);
// The value of the header Content-Type.
const char *om_content_type(enum om_format);

#endif
