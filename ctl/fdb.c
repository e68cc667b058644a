// fdb: static entries of the forwarding database. What is learned is the switch's: "fdb list" and "fdb flush" ask it.
#include "nouns.h"

#include "address.h"
#include "column.h"

#include <stdlib.h>
#include <string.h>

// Network and MAC as they are given. The MAC in the one spelling that the database has.
static int read_key(struct context *ctx, const struct weirrec_network **network, char mac[MAC_STRLEN + 1])
{
	const char *const *arg = ctx->given->args;
	uint8_t bytes[6];

	*network = network_find(ctx->idl, arg[0]);
	if (!*network)
		return fail(ctx, "there is no network %s", arg[0]);
	char *problem = mac_problem(arg[1]);
	if (problem) {
		fail(ctx, "%s", problem);
		free(problem);
		return -1;
	}
	mac_parse(arg[1], bytes);
	mac_format(bytes, mac);
	return 0;
}

static const struct weirrec_fdb *find(const struct ovsdb_idl *idl, const struct weirrec_network *network, const char *mac)
{
	const struct weirrec_fdb *fdb;

	// Other clients may write capitals.
	WEIRREC_FDB_FOR_EACH (fdb, idl)
		if (fdb->network == network && !strcasecmp(fdb->mac, mac))
			return fdb;
	return NULL;
}

int fdb_add_run(struct context *ctx)
{
	const char *const *arg = ctx->given->args;
	const struct weirrec_network *network;
	const struct weirrec_port *port;
	char mac[MAC_STRLEN + 1];

	const char *tunnel = given_option(ctx->given, "tunnel");

	if (read_key(ctx, &network, mac))
		return -1;
	if ((ctx->given->n_args == 3) == (tunnel != NULL))
		return fail(ctx, "%s: where is it? Say a port, or --tunnel IP", mac);
	if (tunnel)
		port = NULL;
	else if (port_find(ctx, arg[2], &port))
		return -1;
	else if (!port)
		return fail(ctx, "there is no port %s", arg[2]);
	const struct weirrec_fdb *fdb = find(ctx->idl, network, mac);
	if (fdb && !given_option(ctx->given, "may-exist"))
		return fail(ctx, "%s is in network %s already, at port %s", mac, arg[0], fdb->port ? fdb->port->name : "-");
	if (!fdb) {
		fdb = weirrec_fdb_insert(ctx->txn);
		weirrec_fdb_set_network(fdb, network);
		weirrec_fdb_set_mac(fdb, mac);
	}
	if (fdb->port != port)
		weirrec_fdb_set_port(fdb, port);
	weirrec_fdb_set_tunnel_ip(fdb, tunnel);
	concern(port ? port->host : NULL);
	touch(&fdb->header_);
	return 0;
}

int fdb_del_run(struct context *ctx)
{
	const struct weirrec_network *network;
	char mac[MAC_STRLEN + 1];
	bool if_exists = given_option(ctx->given, "if-exists");

	if (if_exists && !network_find(ctx->idl, ctx->given->args[0]))
		return 0;
	if (read_key(ctx, &network, mac))
		return -1;
	const struct weirrec_fdb *fdb = find(ctx->idl, network, mac);
	if (!fdb)
		return if_exists ? 0 : fail(ctx, "network %s has no static entry %s", ctx->given->args[0], mac);
	concern(fdb->port ? fdb->port->host : NULL);
	weirrec_fdb_delete(fdb);
	return 0;
}
