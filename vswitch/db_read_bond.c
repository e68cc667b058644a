// db_read_bond: rows of Bond -> struct config: the bond itself, and the port that it is.
#include "openvswitch.h"

#include "db_private.h"

#include "smap.h"
#include "util.h"

#include <stdlib.h>
#include <string.h>

static struct config_port *port_of(struct config *c, const struct row_id *row)
{
	for (size_t i = 0; i < c->n_ports; i++)
		if (row_id_equal(&c->ports[i].row, row))
			return &c->ports[i];
	return NULL;
}

// Members of a bond are taken in the order of names. A port that is no device with a link, or is in another bond already, is
// left out.
static void read_members(const struct weirrec_bond *row, struct config *c, struct config_bond *b)
{
	b->members = xcalloc(row->n_members + 1, sizeof *b->members);
	for (size_t i = 0; i < row->n_members; i++) {
		struct row_id id = db_row_id(&row->members[i]->header_.uuid);
		struct config_port *port = port_of(c, &id);

		if (!port)
			continue; // of another switch
		if (!strcmp(port->type, "vhost-user") || !strcmp(port->type, "bond"))
			db_row_error(&b->error,
				     xasprintf("members: port %s is of type %s; uplinks are of type dpdk, kernel or tap",
					       port->name, port->type));
		else if (!row_id_is_zero(&port->bond))
			db_row_error(&b->error, xasprintf("members: port %s is a member of another bond", port->name));
		else
			b->members[b->n_members++] = id;
	}
	const char *primary = config_map_get(&b->other_config, "primary", NULL);
	bool found = !primary;
	for (size_t i = 0; i < b->n_members; i++) {
		struct config_port *port = port_of(c, &b->members[i]);
		found |= primary && !strcmp(port->name, primary);
		if (!b->error)
			port->bond = b->row;
	}
	if (!found)
		db_row_error(&b->error, xasprintf("other_config: primary: port %s is no member", primary));
}

static void read_bond(const struct db *db, const struct weirrec_bond *row, struct config *c, struct config_bond *b)
{
	const struct ovsdb_datum *trunks = weirrec_bond_get_trunks(row, OVSDB_TYPE_UUID);

	b->row = db_row_id(&row->header_.uuid);
	b->name = xstrdup(row->name);
	b->error = db_check_name(row->name);
	b->mode = xstrdup(row->mode ? row->mode : "active-backup");
	b->other_config = db_checked_map("Bond", "other_config", &row->other_config, &b->error);
	if (db_port_named(c, b->name)) {
		db_row_error(&b->error, xasprintf("name: a port of this switch has the name %s too", b->name));
		return;
	}
	read_members(row, c, b);

	struct config_port *port = db_add_port(c, &b->row, b->name, "bond", PORT_DEVICE);
	port->enabled = row->n_enabled ? row->enabled[0] : true;
	port->mtu = (uint16_t)db_optional_int("mtu_request", row->mtu_request, row->n_mtu_request, 0, 68, 9216, &b->error);
	port->vlan_mode = db_read_vlan_mode(row->vlan_mode, &b->error);
	if (row->network)
		port->network = db_row_id(&row->network->header_.uuid);
	// As in read_trunks(): a network that isn't there yet stays in the list.
	port->trunks = xcalloc(trunks->n + 1, sizeof *port->trunks);
	for (size_t i = 0; i < trunks->n; i++) {
		const struct weirrec_network *net = weirrec_network_get_for_uuid(db->idl, &trunks->keys[i].uuid);
		if (net && db_row_exists(&net->header_))
			port->trunks[i] = db_row_id(&trunks->keys[i].uuid);
	}
	port->n_trunks = trunks->n;
	if (row->vlan_mode && port->vlan_mode != VLAN_TRUNK && !weirrec_bond_get_network(row, OVSDB_TYPE_UUID)->n)
		db_row_error(&b->error, xasprintf("network: vlan_mode %s needs one", row->vlan_mode));
	if (port->n_trunks && (port->vlan_mode == VLAN_ACCESS || port->vlan_mode == VLAN_DOT1Q_TUNNEL))
		db_row_error(&b->error,
			     xstrdup("trunks: only a bond of vlan_mode trunk, native-tagged or native-untagged has them"));
	port->error = b->error ? xstrdup(b->error) : NULL;
}

static int row_compare(const void *a_, const void *b_)
{
	const struct weirrec_bond *a = *(const struct weirrec_bond *const *)a_, *b = *(const struct weirrec_bond *const *)b_;
	int cmp = strcmp(a->name, b->name);

	return cmp ? cmp : uuid_compare_3way(&a->header_.uuid, &b->header_.uuid);
}

void db_read_bonds(struct db *db, struct config *c)
{
	const struct weirrec_bond *row, **rows;
	size_t n = 0;

	WEIRREC_BOND_FOR_EACH(row, db->idl)
	n++;
	rows = xcalloc(n + 1, sizeof *rows);
	c->bonds = xcalloc(n + 1, sizeof *c->bonds);
	n = 0;
	WEIRREC_BOND_FOR_EACH(row, db->idl)
	if (!row->host[0] || !strcmp(row->host, db->host))
		rows[n++] = row;
	// Which of two bonds has a port that both name doesn't depend on the order in which rows come.
	qsort(rows, n, sizeof *rows, row_compare);
	for (size_t i = 0; i < n; i++)
		read_bond(db, rows[i], c, &c->bonds[c->n_bonds++]);
	free(rows);
}
