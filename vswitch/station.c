// station: see station.h.
#include "station.h"

#include <stdlib.h>
#include <string.h>

static struct station *table;
static size_t n_table;

static uint16_t network_of(const struct config *c, const struct config_port *cp)
{
	for (size_t i = 0; i < c->n_networks; i++)
		if (row_id_equal(&c->networks[i].row, &cp->network))
			return c->networks[i].id;
	return 0;
}

void station_reconcile(const struct config *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n_ports; i++)
		for (size_t a = 0; a < c->ports[i].n_addresses; a++)
			n += c->ports[i].addresses[a].n_ips;
	free(table);
	table = calloc(n + 1, sizeof *table);
	n_table = 0;
	for (size_t i = 0; table && i < c->n_ports; i++) {
		const struct config_port *cp = &c->ports[i];
		uint16_t network = cp->n_addresses && !cp->error ? network_of(c, cp) : 0;

		for (size_t a = 0; network && a < cp->n_addresses; a++) {
			const struct config_address *at = &cp->addresses[a];

			for (size_t k = 0; k < at->n_ips; k++) {
				struct station *to = &table[n_table++];

				*to = (struct station){.network = network, .port = cp->id, .ip = at->ip[k]};
				memcpy(to->mac, at->mac, 6);
			}
		}
	}
}

const struct station *station_find(uint16_t network, bool v6, const uint8_t *ip, bool *several)
{
	const struct station *found = NULL;

	if (several)
		*several = false;
	for (size_t i = 0; i < n_table; i++) {
		const struct station *n = &table[i];

		if ((network && n->network != network) || n->ip.v6 != v6 || memcmp(n->ip.b, ip, v6 ? 16 : 4))
			continue;
		if (several && found)
			*several = true;
		found = found ? found : n;
	}
	return found;
}

const struct station *station_at(uint16_t network, uint16_t port, bool v6, const uint8_t *mac)
{
	for (size_t i = 0; i < n_table; i++)
		if (table[i].network == network && table[i].port == port && table[i].ip.v6 == v6 &&
		    (!mac || !memcmp(table[i].mac, mac, 6)))
			return &table[i];
	return NULL;
}
