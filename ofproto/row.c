// row: see row.h.
#include "row.h"
#include "table_stat.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Held by the main thread while it changes `rows` or a name, and by others while they read.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct row_info *rows;
static uint32_t n_rows, room;

// Rows of the three tables change rarely and are interned once per reconcile, so a hash over the id is all it takes.
static uint32_t *index_of;
static uint32_t index_room;

static uint32_t slot_of(const struct row_id *id)
{
	uint64_t h;

	memcpy(&h, id->b, sizeof h);
	return (uint32_t)(h * 0x9e3779b97f4a7c15ULL >> 32) & (index_room - 1);
}

static void index_put(uint32_t handle)
{
	uint32_t at = slot_of(&rows[handle - 1].id);

	while (index_of[at])
		at = (at + 1) & (index_room - 1);
	index_of[at] = handle;
}

static void fill_each(table_fill_fn *fn, void *arg)
{
	fn(arg, NULL, n_rows, 0);
}

static struct table_stat fill_stat = {.name = "row", .help = "database rows that packets were ever counted or decided by", .each = fill_each};

static bool grow(void)
{
	if (n_rows < room)
		return true;
	table_stat_register(&fill_stat);
	uint32_t want = room ? room * 2 : 256;
	pthread_mutex_lock(&lock);
	struct row_info *more = realloc(rows, want * sizeof *rows);
	rows = more ? more : rows;
	pthread_mutex_unlock(&lock);
	if (!more)
		return false;
	room = want;
	uint32_t *index = calloc(want * 2, sizeof *index);
	if (!index)
		return false;
	free(index_of);
	index_of = index;
	index_room = want * 2;
	for (uint32_t i = 1; i <= n_rows; i++)
		index_put(i);
	return true;
}

uint32_t row_intern(const char *table, const struct row_id *id, const char *name)
{
	if (index_room)
		for (uint32_t at = slot_of(id); index_of[at]; at = (at + 1) & (index_room - 1)) {
			struct row_info *r = &rows[index_of[at] - 1];

			if (!row_id_equal(&r->id, id) || strcmp(r->table, table))
				continue;
			if (strcmp(r->name, name)) {
				char *copy = strdup(name);
				if (copy) {
					pthread_mutex_lock(&lock);
					free((char *)r->name);
					r->name = copy;
					pthread_mutex_unlock(&lock);
				}
			}
			return index_of[at];
		}
	char *copy = strdup(name);
	if (!copy || !grow()) {
		free(copy);
		return 0;
	}
	pthread_mutex_lock(&lock);
	rows[n_rows] = (struct row_info){.table = table, .name = copy, .id = *id};
	n_rows++;
	pthread_mutex_unlock(&lock);
	index_put(n_rows);
	return n_rows;
}

const struct row_info *row_get(uint32_t handle)
{
	return handle && handle <= n_rows ? &rows[handle - 1] : NULL;
}

bool row_describe(uint32_t handle, char *text, size_t n)
{
	pthread_mutex_lock(&lock);
	const struct row_info *r = row_get(handle);
	if (r)
		snprintf(text, n, "%s %s", r->table, r->name);
	pthread_mutex_unlock(&lock);
	return r != NULL;
}
