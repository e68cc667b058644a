// port: the verbs of ports.
#include "nouns.h"

#include "column.h"
#include "listing.h"
#include "svec.h"

#include <stdlib.h>
#include <string.h>

#define PORT (&weirrec_table_classes[WEIRREC_TABLE_PORT])

// A port's name is unique on its host only. Without --host, the name has to be enough.
int port_find(struct context *ctx, const char *name, const struct weirrec_port **found)
{
	const char *wanted = host_of(ctx);
	const struct weirrec_port *port;

	*found = NULL;
	WEIRREC_PORT_FOR_EACH (port, ctx->idl) {
		if (strcmp(port->name, name))
			continue;
		if (wanted && port->host[0] && strcmp(port->host, wanted))
			continue;
		// A port of this very host is meant before one of all hosts.
		if (*found && wanted && strcmp(port->host, (*found)->host)) {
			*found = port->host[0] ? port : *found;
			continue;
		}
		if (*found)
			return fail(ctx, "there are several ports %s, on %s and %s: say which with --host", name,
				    (*found)->host[0] ? (*found)->host : "every host",
				    port->host[0] ? port->host : "every host");
		*found = port;
	}
	return 0;
}

static int find_or_fail(struct context *ctx, const char *name, const struct weirrec_port **port)
{
	if (port_find(ctx, name, port))
		return -1;
	if (*port)
		return 0;
	if (host_of(ctx))
		return fail(ctx, "there is no port %s on host %s", name, host_of(ctx));
	return fail(ctx, "there is no port %s", name);
}

// The `host` of a new port. With one switch on the database its ports need no host; with several, one has to be said.
static int choose_host(struct context *ctx, const char *name, const char **host)
{
	const char *wanted = host_of(ctx);
	const struct weirrec_host *row;
	struct svec hosts = SVEC_EMPTY_INITIALIZER;
	int status = 0;

	*host = wanted ? wanted : "";
	WEIRREC_HOST_FOR_EACH (row, ctx->idl)
		svec_add(&hosts, row->name);
	svec_sort(&hosts);
	char *known = svec_join(&hosts, ", ", "");
	if (!wanted && hosts.n > 1)
		status = fail(ctx, "port %s: on which host? Say --host NAME, one of: %s", name, known);
	// Most likely a typing error; a host that is yet to come is told with --no-wait.
	else if (wanted && hosts.n && !svec_contains(&hosts, wanted) && !settings.no_wait)
		status = fail(ctx, "port %s: there is no host %s, but: %s (with --no-wait the port is kept for one to come)",
			      name, wanted, known);
	free(known);
	svec_destroy(&hosts);
	return status;
}

static bool is(const char *s, const char *word)
{
	return s && !strcmp(s, word);
}

// Whether a bond names it: then it needs no network of its own.
static bool is_member(const struct context *ctx, const struct weirrec_port *port)
{
	const struct weirrec_port *bond;

	WEIRREC_PORT_FOR_EACH (bond, ctx->idl) {
		const char *list = is(bond->type, "bond") ? smap_get_def(&bond->options, "members", "") : "";

		for (size_t n; *list; list += n) {
			list += strspn(list, ", ");
			n = strcspn(list, ", ");
			if (n && n == strlen(port->name) && !strncmp(list, port->name, n))
				return true;
		}
	}
	return false;
}

// What makes no sense together. The switch would say it too, but only when the row is in the database.
static int check(struct context *ctx, const struct weirrec_port *port)
{
	bool trunk = is(port->vlan_mode, "trunk");
	bool native = is(port->vlan_mode, "native-tagged") || is(port->vlan_mode, "native-untagged");

	if (!port->network && !trunk && !is_member(ctx, port))
		return fail(ctx,
			    "port %s: in which network? Say --network NAME (or --vlan-mode trunk for one without a native one)",
			    port->name);
	if (port->n_trunks && !trunk && !native)
		return fail(ctx, "port %s: --trunks goes with --vlan-mode trunk, native-tagged or native-untagged", port->name);
	if (port->n_cvlans && !is(port->vlan_mode, "dot1q-tunnel"))
		return fail(ctx, "port %s: cvlans goes with --vlan-mode dot1q-tunnel", port->name);
	if (is(port->vlan_mode, "native-tagged") && !port->network->n_vlan)
		return fail(ctx, "port %s: network %s has no VLAN to tag its frames with (network set %s vlan=N)", port->name,
			    port->network->name, port->network->name);
	for (size_t i = 0; i < port->n_trunks; i++)
		if (!port->trunks[i]->n_vlan)
			return fail(ctx, "port %s: network %s has no VLAN, so it can't be on a trunk (network set %s vlan=N)",
				    port->name, port->trunks[i]->name, port->trunks[i]->name);
	return 0;
}

static int set(struct context *ctx, const struct weirrec_port *port)
{
	if (column_set_given(ctx, &port->header_, 1) || check(ctx, port))
		return -1;
	concern(port->host);
	touch(&port->header_);
	return 0;
}

int port_add_run(struct context *ctx)
{
	const char *name = ctx->given->args[0];
	const struct weirrec_port *port;
	const char *host;

	if (port_find(ctx, name, &port))
		return -1;
	// A port of all hosts is in the way of one with the same name on any.
	if (port && !given_option(ctx->given, "may-exist"))
		return fail(ctx, "there is a port %s already%s%s", name, port->host[0] ? " on host " : "", port->host);
	if (!port) {
		if (name_check(ctx, "port", name) || choose_host(ctx, name, &host))
			return -1;
		port = weirrec_port_insert(ctx->txn);
		weirrec_port_set_name(port, name);
		weirrec_port_set_host(port, host);
	}
	return set(ctx, port);
}

int port_set_run(struct context *ctx)
{
	const char *name = ctx->given->args[0];
	const struct weirrec_port *port;

	if (find_or_fail(ctx, name, &port))
		return -1;
	if (!ctx->given->n_options && ctx->given->n_args < 2)
		return fail(ctx, "port %s: what should be set? COLUMN=VALUE, or an option of port add", name);
	// Both the switch that had it and the one that gets it.
	concern(port->host);
	return set(ctx, port);
}

int port_del_run(struct context *ctx)
{
	const char *name = ctx->given->args[0];
	const struct weirrec_port *port;
	const struct weirrec_fdb *fdb;

	if (given_option(ctx->given, "if-exists")) {
		if (port_find(ctx, name, &port))
			return -1;
		if (!port)
			return 0;
	} else if (find_or_fail(ctx, name, &port)) {
		return -1;
	}
	WEIRREC_FDB_FOR_EACH_SAFE (fdb, ctx->idl)
		if (fdb->port == port)
			weirrec_fdb_delete(fdb);
	concern(port->host);
	weirrec_port_delete(port);
	return 0;
}

static bool of_host(const struct ovsdb_idl_row *row, const char *host)
{
	const struct weirrec_port *port = weirrec_port_get_for_uuid(row->table->idl, &row->uuid);

	return !host || !port->host[0] || !strcmp(port->host, host);
}

int port_list_run(struct context *ctx)
{
	const struct weirrec_port *port;
	bool hosts = false, told = false;
	char columns[100];

	// A column is there if it says something: of several switches, of a hypervisor that told its guest an MTU.
	WEIRREC_PORT_FOR_EACH (port, ctx->idl) {
		hosts |= port->host[0] != '\0';
		told |= smap_get(&port->status, "guest_mtu") != NULL;
	}
	snprintf(columns, sizeof(columns), "name%s,type,network,vlan_mode,link_state,mtu%s,problem", hosts || settings.json ? ",host" : "",
		 told || settings.json ? ",status:guest_mtu" : "");
	return rows_list(ctx, PORT, columns, of_host);
}

int port_show_run(struct context *ctx)
{
	const struct weirrec_port *port;

	if (find_or_fail(ctx, ctx->given->args[0], &port))
		return -1;
	return row_show(ctx, &port->header_);
}

int port_mtu_run(struct context *ctx)
{
	const struct weirrec_port *port;

	if (find_or_fail(ctx, ctx->given->args[0], &port))
		return -1;
	if (!port->n_mtu)
		return fail(ctx, "port %s: no switch has said its MTU yet; is weir-vswitchd running%s%s?", port->name, port->host[0] ? " on " : "",
			    port->host);
	struct listing *l = listing_new();
	listing_column(l, "mtu", "mtu");
	listing_row(l);
	listing_uint(l, (uint64_t)port->mtu[0]);
	if (settings.json)
		output_record(ctx, l);
	else
		ds_put_format(&ctx->output, "%" PRId64 "\n", port->mtu[0]);
	listing_free(l);
	return 0;
}
