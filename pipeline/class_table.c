// class_table: see class_table.h.
#include "class_table.h"
#include "row.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct class {
	struct row_id id;
	uint32_t row;
	char *name;
	uint64_t packets, bytes;
};

static struct class *classes; // by name
static size_t n_classes;

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct class *)a)->name, ((const struct class *)b)->name);
}

static void release(struct class *c, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(c[i].name);
	free(c);
}

// What a class has counted stays, whatever it is called.
static void keep_counts(struct class *c)
{
	for (size_t i = 0; i < n_classes; i++)
		if (classes[i].row == c->row) {
			c->packets = classes[i].packets;
			c->bytes = classes[i].bytes;
		}
}

int class_table_set(const struct config *want)
{
	struct class *now = calloc(want->n_classes + 1, sizeof *now);
	size_t n = 0;

	if (!now)
		return -ENOMEM;
	for (size_t i = 0; i < want->n_classes; i++) {
		const struct config_class *cc = &want->classes[i];

		if (cc->error)
			continue;
		now[n] = (struct class){.id = cc->row, .row = row_intern("Class", &cc->row, cc->name), .name = strdup(cc->name)};
		if (!now[n].name) {
			release(now, n);
			return -ENOMEM;
		}
		keep_counts(&now[n++]);
	}
	qsort(now, n, sizeof *now, by_name);
	release(classes, n_classes);
	classes = now;
	n_classes = n;
	return 0;
}

void class_table_fini(void)
{
	release(classes, n_classes);
	classes = NULL;
	n_classes = 0;
}

uint32_t class_table_find(const char *name)
{
	struct class key = {.name = (char *)(uintptr_t)name};
	const struct class *found = n_classes ? bsearch(&key, classes, n_classes, sizeof key, by_name) : NULL;

	return found ? found->row : 0;
}

uint32_t class_table_end(void)
{
	uint32_t end = 0;

	for (size_t i = 0; i < n_classes; i++)
		end = classes[i].row >= end ? classes[i].row + 1 : end;
	return end;
}

void class_table_count(const struct flow_credit *sum)
{
	for (size_t i = 0; i < n_classes; i++) {
		const struct flow_credit *s = &sum[classes[i].row];

		classes[i].packets = s->packets > classes[i].packets ? s->packets : classes[i].packets;
		classes[i].bytes = s->bytes > classes[i].bytes ? s->bytes : classes[i].bytes;
	}
}

bool class_table_at(size_t i, struct class_view *v)
{
	if (i >= n_classes)
		return false;
	*v = (struct class_view){classes[i].name, &classes[i].id, classes[i].row, classes[i].packets, classes[i].bytes};
	return true;
}
