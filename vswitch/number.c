// number: see number.h.
#include "number.h"
#include "sentence.h"
#include "sizes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// Numbers go round, so that a new row never looks like one that just went.
static uint16_t new_number(struct numbering *nb)
{
	for (unsigned n = 0; n < nb->max; n++) {
		nb->last = nb->last + 1u < nb->max ? (uint16_t)(nb->last + 1) : 1;
		if (row_id_is_zero(&nb->row[nb->last]))
			return nb->last;
	}
	return 0;
}

int number_rows(struct numbering *nb, const struct numbered *item, size_t n)
{
	static const struct row_id none;
	bool *seen = calloc(nb->max, sizeof *seen);

	if (!seen)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		*item[i].id = 0;
		for (unsigned id = 1; id < nb->max && !*item[i].id; id++)
			if (row_id_equal(&nb->row[id], item[i].row))
				*item[i].id = (uint16_t)id;
		seen[*item[i].id] = true;
	}
	for (unsigned id = 1; id < nb->max; id++)
		if (!seen[id])
			nb->row[id] = none;
	for (size_t i = 0; i < n; i++) {
		if (*item[i].id || *item[i].error)
			continue;
		*item[i].id = new_number(nb);
		if (*item[i].id)
			nb->row[*item[i].id] = *item[i].row;
		else
			sentence_set(item[i].error, "the switch takes %u %s at most", nb->max - 1, nb->what);
	}
	free(seen);
	return 0;
}

static struct row_id network_rows[MAX_NETWORKS], router_rows[MAX_ROUTERS];
static struct numbering networks = {.row = network_rows, .max = MAX_NETWORKS, .what = "networks"};
static struct numbering routers = {.row = router_rows, .max = MAX_ROUTERS, .what = "routers"};

static uint16_t find_number(const struct numbering *nb, const struct row_id *row)
{
	for (unsigned id = 1; id < nb->max && !row_id_is_zero(row); id++)
		if (row_id_equal(&nb->row[id], row))
			return (uint16_t)id;
	return 0;
}

// Rows that are sorted by router ask for the same one again and again.
static uint16_t router_number(const struct row_id *row)
{
	static uint16_t last;

	if (!last || !row_id_equal(&router_rows[last], row))
		last = find_number(&routers, row);
	return last;
}

void number_config(struct config *c)
{
	size_t n = c->n_networks > c->n_routers ? c->n_networks : c->n_routers;
	struct numbered *item = calloc(n + 1, sizeof *item);

	if (!item)
		return;
	for (size_t i = 0; i < c->n_networks; i++)
		item[i] = (struct numbered){&c->networks[i].row, &c->networks[i].id, &c->networks[i].error};
	number_rows(&networks, item, c->n_networks);
	for (size_t i = 0; i < c->n_routers; i++)
		item[i] = (struct numbered){&c->routers[i].row, &c->routers[i].id, &c->routers[i].error};
	number_rows(&routers, item, c->n_routers);
	free(item);
	for (size_t i = 0; i < c->n_router_ports; i++) {
		c->router_ports[i].router_id = router_number(&c->router_ports[i].router);
		c->router_ports[i].network_id = find_number(&networks, &c->router_ports[i].network);
	}
	for (size_t i = 0; i < c->n_routes; i++)
		c->routes[i].router_id = router_number(&c->routes[i].router);
	for (size_t i = 0; i < c->n_policies; i++)
		c->policies[i].router_id = router_number(&c->policies[i].router);
}
