// config: helpers on the wanted state.
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void config_map_free(struct config_map *map)
{
	for (size_t i = 0; i < map->n; i++) {
		free(map->pair[i].key);
		free(map->pair[i].value);
	}
	free(map->pair);
	*map = (struct config_map){.n = 0};
}

void config_router_port_clear(struct config_router_port *p)
{
	free(p->name);
	free(p->addresses);
	config_map_free(&p->ra);
	config_map_free(&p->other_config);
	free(p->error);
	free(p->complaint);
}

static void routing_free(struct config *c)
{
	for (size_t i = 0; i < c->n_routers; i++) {
		free(c->routers[i].name);
		config_map_free(&c->routers[i].other_config);
		free(c->routers[i].error);
	}
	free(c->routers);
	for (size_t i = 0; i < c->n_router_ports; i++)
		config_router_port_clear(&c->router_ports[i]);
	free(c->router_ports);
	for (size_t i = 0; i < c->n_routes; i++) {
		free(c->routes[i].hops);
		free(c->routes[i].error);
	}
	free(c->routes);
	for (size_t i = 0; i < c->n_policies; i++)
		free(c->policies[i].error);
	free(c->policies);
}

void config_free(struct config *c)
{
	if (!c)
		return;
	config_map_free(&c->other_config);
	for (size_t i = 0; i < c->n_networks; i++) {
		free(c->networks[i].name);
		free(c->networks[i].tunnel);
		free(c->networks[i].flood_to);
		config_map_free(&c->networks[i].multicast);
		config_map_free(&c->networks[i].other_config);
		free(c->networks[i].error);
	}
	free(c->networks);
	for (size_t i = 0; i < c->n_ports; i++) {
		struct config_port *p = &c->ports[i];

		free(p->name);
		free(p->type);
		config_map_free(&p->options);
		config_map_free(&p->other_config);
		config_map_free(&p->external_ids);
		free(p->trunks);
		free(p->cvlans);
		free(p->unknown);
		for (size_t a = 0; a < p->n_addresses; a++)
			free(p->addresses[a].ip);
		free(p->addresses);
		free(p->error);
	}
	free(c->ports);
	for (size_t i = 0; i < c->n_fdb; i++)
		free(c->fdb[i].error);
	free(c->fdb);
	for (size_t i = 0; i < c->n_flows; i++) {
		free(c->flows[i].match);
		free(c->flows[i].actions);
		free(c->flows[i].error);
	}
	free(c->flows);
	for (size_t i = 0; i < c->n_classes; i++) {
		free(c->classes[i].name);
		free(c->classes[i].error);
	}
	free(c->classes);
	for (size_t i = 0; i < c->n_mirrors; i++) {
		free(c->mirrors[i].name);
		free(c->mirrors[i].src);
		free(c->mirrors[i].dst);
		free(c->mirrors[i].vlans);
		free(c->mirrors[i].error);
	}
	free(c->mirrors);
	for (size_t i = 0; i < c->n_exports; i++) {
		struct config_export *e = &c->exports[i];

		for (size_t k = 0; k < e->n_targets; k++)
			free(e->targets[k]);
		free(e->targets);
		free(e->networks);
		free(e->name);
		free(e->error);
	}
	free(c->exports);
	routing_free(c);
	free(c->tunnel_ips);
	for (size_t i = 0; i < c->n_remotes; i++) {
		free(c->remotes[i].name);
		free(c->remotes[i].networks);
	}
	free(c->remotes);
	for (size_t i = 0; i < c->n_remote_macs; i++) {
		free(c->remote_macs[i].ips);
		free(c->remote_macs[i].error);
	}
	free(c->remote_macs);
	free(c);
}

const char *config_map_get(const struct config_map *map, const char *key, const char *fallback)
{
	for (size_t i = 0; i < map->n; i++)
		if (!strcmp(map->pair[i].key, key))
			return map->pair[i].value;
	return fallback;
}

uint64_t config_map_uint(const struct config_map *map, const char *key, uint64_t fallback, uint64_t lo, uint64_t hi,
			 const char **bad)
{
	const char *s = config_map_get(map, key, NULL);
	if (!s)
		return fallback;
	char *end;
	uint64_t v = strtoull(s, &end, 10);
	if (*s < '0' || *s > '9' || *end || v < lo || v > hi) {
		if (bad)
			*bad = key;
		return fallback;
	}
	return v;
}

bool config_map_bool(const struct config_map *map, const char *key, bool fallback)
{
	const char *s = config_map_get(map, key, NULL);

	return s ? !strcmp(s, "true") : fallback;
}

bool row_id_equal(const struct row_id *a, const struct row_id *b)
{
	return !memcmp(a, b, sizeof *a);
}

bool row_id_is_zero(const struct row_id *r)
{
	static const struct row_id zero;

	return row_id_equal(r, &zero);
}

void row_id_format(const struct row_id *r, char out[ROW_ID_STRLEN + 1])
{
	const uint8_t *b = r->b;

	snprintf(out, ROW_ID_STRLEN + 1, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
		 b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool row_id_parse(const char *s, struct row_id *r)
{
	if (strlen(s) != ROW_ID_STRLEN)
		return false;
	for (size_t i = 0, at = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10) {
			if (s[at++] != '-')
				return false;
		}
		int hi = hex_digit(s[at]), lo = hex_digit(s[at + 1]);
		if (hi < 0 || lo < 0)
			return false;
		r->b[i] = (uint8_t)(hi << 4 | lo);
		at += 2;
	}
	return true;
}
