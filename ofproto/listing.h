// listing: what a verb shows, rendered as a table for people or as JSON for programs. The one printer of daemon and weirctl.
//
//     struct listing *l = listing_new();
//     listing_column(l, "mac", "MAC");            // JSON key, heading
//     listing_column(l, "age", "AGE");
//     listing_row(l);
//     listing_str(l, "52:54:00:00:00:01");        // cells from left to right
//     listing_uint(l, 12);
//     char *text = listing_render(l, json);       // the caller frees it
//     listing_free(l);
//
// As JSON a listing is an array with an object for each row: {"mac": "52:54:00:00:00:01", "age": 12}. A thread of its own each.
#ifndef OFPROTO_LISTING_H
#define OFPROTO_LISTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct listing;

struct listing *listing_new(void);
void listing_free(struct listing *);
void listing_column(struct listing *, const char *key, const char *heading); // before the rows, or, in a list of one row, before its cell
void listing_row(struct listing *);
void listing_str(struct listing *, const char *);           // NULL: listing_none()
void listing_fmt(struct listing *, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void listing_uint(struct listing *, uint64_t);              // right-aligned; a number in JSON
void listing_int(struct listing *, int64_t);                // the same, signed
void listing_real(struct listing *, double, int decimals);
void listing_bool(struct listing *, bool);                  // yes/no; true/false in JSON
void listing_none(struct listing *);                        // "-"; null in JSON: unknown or not there
void listing_list(struct listing *, const char *const *, size_t n); // "a, b"; an array of strings in JSON
// Anything else: `text` for people, `json`, one valid JSON value, for programs.
void listing_json(struct listing *, const char *text, const char *json);
// A table: headings, columns padded to their widest cell, two spaces between. JSON: as above, ending in a newline.
char *listing_render(const struct listing *, bool json);
size_t listing_rows(const struct listing *);
size_t listing_columns(const struct listing *);

// A long list in parts (page.h), which put together are one table or one JSON array. What the parts have in common: zero before the first one.
#define LISTING_COLUMNS 64 // of a list in parts, at most
#define LISTING_WIDE 1000  // characters that a cell is made wider for, at most
struct listing_shape {
	uint64_t rows; // in the parts before
	unsigned n;    // columns; 0: nothing was shown yet
	uint16_t wide[LISTING_COLUMNS];
	bool right[LISTING_COLUMNS];
};
// The next part. A column is as wide as its widest cell so far, so that later parts may be wider than earlier ones, never narrower. `last`: the
// list ends with it.
char *listing_render_part(const struct listing *, bool json, struct listing_shape *, bool last);
// Renders one row as "Key: value" lines (JSON: a single object); for listings with one row.
char *listing_render_record(const struct listing *, bool json);

#endif
