// network: the verbs of layer 2 networks.
#include "nouns.h"

#include "column.h"
#include "listing.h"

#include <ctype.h>
#include <string.h>

#define NETWORK (&weirrec_table_classes[WEIRREC_TABLE_NETWORK])

const struct weirrec_network *network_find(const struct ovsdb_idl *idl, const char *name)
{
	const struct weirrec_network *network;

	WEIRREC_NETWORK_FOR_EACH (network, idl)
		if (!strcmp(network->name, name))
			return network;
	return NULL;
}

int name_check(struct context *ctx, const char *noun, const char *name)
{
	size_t n = strlen(name);
	bool good = n >= 1 && n <= 63 && isalnum((unsigned char)name[0]);

	for (const char *s = name; *s; s++)
		good &= isalnum((unsigned char)*s) || strchr("._-", *s);
	if (!good)
		return fail(ctx, "'%s' can't be the name of a %s: 1 to 63 letters, digits and ._-, first a letter or digit",
			    name, noun);
	return 0;
}

int network_add_run(struct context *ctx)
{
	const char *name = ctx->given->args[0];
	const struct weirrec_network *network = network_find(ctx->idl, name);

	if (network && !given_option(ctx->given, "may-exist"))
		return fail(ctx, "there is a network %s already", name);
	if (!network) {
		if (name_check(ctx, "network", name))
			return -1;
		network = weirrec_network_insert(ctx->txn);
		weirrec_network_set_name(network, name);
	}
	if (column_set_given(ctx, &network->header_, 1))
		return -1;
	concern(host_of(ctx));
	touch(&network->header_);
	return 0;
}

int network_set_run(struct context *ctx)
{
	const char *name = ctx->given->args[0];
	const struct weirrec_network *network = network_find(ctx->idl, name);

	if (!network)
		return fail(ctx, "there is no network %s", name);
	if (!ctx->given->n_options && ctx->given->n_args < 2)
		return fail(ctx, "network %s: what should be set? COLUMN=VALUE, or an option of network add", name);
	if (column_set_given(ctx, &network->header_, 1))
		return -1;
	concern(host_of(ctx));
	touch(&network->header_);
	return 0;
}

static bool has_trunk(const struct weirrec_port *port, const struct weirrec_network *network)
{
	for (size_t i = 0; i < port->n_trunks; i++)
		if (port->trunks[i] == network)
			return true;
	return false;
}

// Says which port keeps the network, always the same of several.
static int check_unused(struct context *ctx, const struct weirrec_network *network)
{
	const struct weirrec_port *port, *in = NULL, *on_trunk = NULL;

	WEIRREC_PORT_FOR_EACH (port, ctx->idl) {
		if (port->network == network && (!in || strverscmp(port->name, in->name) < 0))
			in = port;
		if (has_trunk(port, network) && (!on_trunk || strverscmp(port->name, on_trunk->name) < 0))
			on_trunk = port;
	}
	if (in)
		return fail(ctx, "network %s still has port %s; delete it first, or move it (port set %s network=...)",
			    network->name, in->name, in->name);
	if (on_trunk)
		return fail(ctx, "network %s is still on the trunk of port %s (port set %s trunks-=%s)", network->name,
			    on_trunk->name, on_trunk->name, network->name);
	const struct weirrec_router_port *router_port;
	WEIRREC_ROUTER_PORT_FOR_EACH (router_port, ctx->idl)
		if (router_port->network == network)
			return fail(ctx, "network %s still has router port %s; delete it first (router-port del %s)", network->name, router_port->name,
				    router_port->name);
	const struct weirrec_flow_export *export;
	WEIRREC_FLOW_EXPORT_FOR_EACH (export, ctx->idl)
		for (size_t i = 0; i < export->n_networks; i++)
			if (export->networks[i] == network)
				return fail(ctx, "network %s is still exported by %s (export del %s)", network->name, export->name, export->name);
	return 0;
}

int network_del_run(struct context *ctx)
{
	const char *name = ctx->given->args[0];
	const struct weirrec_network *network = network_find(ctx->idl, name);
	const struct weirrec_fdb *fdb;
	const struct weirrec_flow *flow;
	const struct weirrec_mirror *mirror;

	if (!network && given_option(ctx->given, "if-exists"))
		return 0;
	if (!network)
		return fail(ctx, "there is no network %s", name);
	if (check_unused(ctx, network))
		return -1;
	// Static entries and rules are nothing without their network, and would keep it.
	WEIRREC_FDB_FOR_EACH_SAFE (fdb, ctx->idl)
		if (fdb->network == network)
			weirrec_fdb_delete(fdb);
	WEIRREC_FLOW_FOR_EACH_SAFE (flow, ctx->idl)
		if (flow->network == network)
			weirrec_flow_delete(flow);
	WEIRREC_MIRROR_FOR_EACH_SAFE (mirror, ctx->idl)
		if (mirror->network == network)
			weirrec_mirror_delete(mirror);
	weirrec_network_delete(network);
	concern(host_of(ctx));
	return 0;
}

int network_list_run(struct context *ctx)
{
	return rows_list(ctx, NETWORK, "name,vlan,vni,mtu,learning,ageing,mac_limit,unknown_unicast,problem", NULL);
}

int network_show_run(struct context *ctx)
{
	const struct weirrec_network *network = network_find(ctx->idl, ctx->given->args[0]);

	if (!network)
		return fail(ctx, "there is no network %s", ctx->given->args[0]);
	return row_show(ctx, &network->header_);
}
