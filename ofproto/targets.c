// targets: see targets.h.
#include "targets.h"
#include "key.h"
#include "table_stat.h"

#include <string.h>

#define BUCKETS 4096

struct target_list *target_lists[MAX_TARGET_LISTS];

static uint16_t bucket[BUCKETS];       // ids, chained by `next`
static uint16_t spare[MAX_TARGET_LISTS]; // ids that were used and are free again
static uint32_t n_spare, high, count;

static void fill_each(table_fill_fn *fn, void *arg)
{
	fn(arg, NULL, count, MAX_TARGET_LISTS - 1);
}

static struct table_stat fill_stat = {.name = "target_list", .help = "different lists of ports that groups have", .each = fill_each};

static uint32_t hash_of(const struct target *to, unsigned n)
{
	uint64_t h = n;

	for (unsigned i = 0; i < n; i++) {
		uint64_t mac = 0;

		memcpy(&mac, to[i].src, 6);
		h = key_mum(h ^ ((uint64_t)to[i].network << 16 | to[i].port) ^ key_secret[0], mac ^ key_secret[1]);
	}
	return (uint32_t)h;
}

uint16_t targets_intern(const struct target *to, unsigned n)
{
	uint32_t hash = hash_of(to, n);
	uint16_t *head = &bucket[hash % BUCKETS];

	table_stat_register(&fill_stat);
	for (uint32_t id = *head; id; id = target_lists[id]->next) {
		struct target_list *l = target_lists[id];

		if (l->hash == hash && l->n == n && !memcmp(l->to, to, n * sizeof *to)) {
			l->refs++;
			return l->id;
		}
	}
	if (n > UINT16_MAX || (!n_spare && high == MAX_TARGET_LISTS - 1))
		return 0;
	struct target_list *l = calloc(1, sizeof *l + n * sizeof *to);
	if (!l)
		return 0;
	l->id = n_spare ? spare[--n_spare] : (uint16_t)++high;
	l->n = (uint16_t)n;
	l->refs = 1;
	l->hash = hash;
	l->next = *head;
	memcpy(l->to, to, n * sizeof *to);
	*head = l->id;
	rcu_publish(target_lists[l->id], l);
	count++;
	return l->id;
}

// No worker has it any more: a burst that began after the release saw its flows stale.
static void gone(void *arg)
{
	struct target_list *l = arg;

	rcu_publish(target_lists[l->id], NULL);
	spare[n_spare++] = l->id;
	free(l);
}

void targets_release(uint16_t id)
{
	struct target_list *l = target_lists[id];

	if (!id || --l->refs)
		return;
	uint16_t *head = &bucket[l->hash % BUCKETS];
	if (*head == id) {
		*head = (uint16_t)l->next;
	} else {
		struct target_list *before = target_lists[*head];

		while (before->next != id)
			before = target_lists[before->next];
		before->next = l->next;
	}
	count--;
	rcu_defer(gone, l);
}
