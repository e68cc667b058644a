// number: dense numbers of rows, 1 to max - 1, which they keep as long as they exist. Main thread.
#ifndef VSWITCH_NUMBER_H
#define VSWITCH_NUMBER_H

#include "config.h"

struct numbering {
	struct row_id *row; // by number; max of them
	unsigned max;
	uint16_t last;
	const char *what; // "networks"
};

// Of one row: its number is set, or the sentence why there is none.
struct numbered {
	const struct row_id *row;
	uint16_t *id;
	char **error;
};

// Rows that were here before keep their numbers, also with an error; those that are gone lose them. 0 or -errno.
int number_rows(struct numbering *, const struct numbered *, size_t n);

// All numbers of a config: networks, routers, and where these are referred to.
void number_config(struct config *);

#endif
