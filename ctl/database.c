// database: connect, run the commands, commit, wait for the switches, tell what they say. RFC 7047 and ovs-vsctl(8) are the
// model.
#include "database.h"

#include "column.h"
#include "listing.h"
#include "openvswitch/json.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/shash.h"
#include "ovsdb-data.h"
#include "stream-ssl.h"
#include "timeval.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct touched {
	const struct ovsdb_idl_table_class *table;
	struct uuid uuid;
};

// What the transaction is about. Started anew each time that it is run.
static struct {
	struct touched *row;
	size_t n_rows;
	char **host;
	size_t n_hosts;
	bool all_hosts;
} txn_about;

static long long deadline; // in time_msec(); LLONG_MAX: none

int fail(struct context *ctx, const char *fmt, ...)
{
	va_list ap;

	free(ctx->error);
	va_start(ap, fmt);
	ctx->error = xvasprintf(fmt, ap);
	va_end(ap);
	return -1;
}

const char *host_of(const struct context *ctx)
{
	return ctx->given->host ? ctx->given->host : settings.host;
}

void touch(const struct ovsdb_idl_row *row)
{
	for (size_t i = 0; i < txn_about.n_rows; i++)
		if (uuid_equals(&txn_about.row[i].uuid, &row->uuid))
			return;
	txn_about.row = xrealloc(txn_about.row, (txn_about.n_rows + 1) * sizeof(*txn_about.row));
	txn_about.row[txn_about.n_rows++] = (struct touched){row->table->class_, row->uuid};
}

void concern(const char *host)
{
	if (!host || !host[0]) {
		txn_about.all_hosts = true;
		return;
	}
	for (size_t i = 0; i < txn_about.n_hosts; i++)
		if (!strcmp(txn_about.host[i], host))
			return;
	txn_about.host = xrealloc(txn_about.host, (txn_about.n_hosts + 1) * sizeof(*txn_about.host));
	txn_about.host[txn_about.n_hosts++] = xstrdup(host);
}

static void about_clear(void)
{
	for (size_t i = 0; i < txn_about.n_hosts; i++)
		free(txn_about.host[i]);
	free(txn_about.host);
	free(txn_about.row);
	memset(&txn_about, 0, sizeof(txn_about));
}

void output_table(struct context *ctx, const struct listing *l)
{
	char *s = listing_render(l, settings.json);

	ds_put_cstr(&ctx->output, s);
	free(s);
}

void output_record(struct context *ctx, const struct listing *l)
{
	char *s = listing_render_record(l, settings.json);

	ds_put_cstr(&ctx->output, s);
	free(s);
}

int init_run(struct context *ctx)
{
	// begin() has made the root row, if there was none.
	return 0;
}

// A relative unix: path would be taken as relative to the library's run directory; people mean their working directory.
static char *absolute_remotes(const char *remotes)
{
	struct ds s = DS_EMPTY_INITIALIZER;
	char *copy = xstrdup(remotes);
	char *save = NULL;
	char *cwd = getcwd(NULL, 0);

	for (char *r = strtok_r(copy, ",", &save); r; r = strtok_r(NULL, ",", &save)) {
		ds_put_cstr(&s, s.length ? "," : "");
		if (!strncmp(r, "unix:", 5) && r[5] != '/' && cwd)
			ds_put_format(&s, "unix:%s/%s", cwd, r + 5);
		else
			ds_put_cstr(&s, r);
	}
	free(cwd);
	free(copy);
	return ds_steal_cstr(&s);
}

static void read_certificates(void)
{
	const char *const files[] = {settings.private_key, settings.certificate, settings.ca_cert};

	if (!strstr(settings.db, "ssl:"))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (!files[i])
			die("%s needs --private-key, --certificate and --ca-cert", settings.db);
		if (access(files[i], R_OK))
			die("%s: %s", files[i], ovs_strerror(errno));
	}
	stream_ssl_set_private_key_file(settings.private_key);
	stream_ssl_set_certificate_file(settings.certificate);
	stream_ssl_set_ca_cert_file(settings.ca_cert, false);
}

static struct ovsdb_idl *connect_idl(bool statistics)
{
	struct ovsdb_idl *idl = ovsdb_idl_create_unconnected(&weirrec_idl_class, true);

	// Counters are most of a large database, and change all the time.
	if (!statistics) {
		ovsdb_idl_omit(idl, &weirrec_port_col_statistics);
		ovsdb_idl_omit(idl, &weirrec_host_col_statistics);
		ovsdb_idl_omit(idl, &weirrec_flow_col_statistics);
		ovsdb_idl_omit(idl, &weirrec_class_col_statistics);
		ovsdb_idl_omit(idl, &weirrec_mirror_col_statistics);
		ovsdb_idl_omit(idl, &weirrec_flow_export_col_statistics);
	}
	read_certificates();
	char *remotes = absolute_remotes(settings.db);
	ovsdb_idl_set_remote(idl, remotes, false);
	free(remotes);
	// Any member of a cluster will do: it passes transactions on to the leader.
	ovsdb_idl_set_leader_only(idl, false);
	ovsdb_idl_set_db_change_aware(idl, false);
	return idl;
}

// Runs the client, and waits until it has something new (past *seqno) or the time is up. False: connection lost, or time up.
static bool advance(struct ovsdb_idl *idl, unsigned *seqno)
{
	for (;;) {
		ovsdb_idl_run(idl);
		if (!ovsdb_idl_is_alive(idl))
			return false;
		if (ovsdb_idl_get_seqno(idl) != *seqno) {
			*seqno = ovsdb_idl_get_seqno(idl);
			return true;
		}
		if (time_msec() >= deadline)
			return false;
		ovsdb_idl_wait(idl);
		poll_timer_wait_until(deadline);
		poll_block();
	}
}

static _Noreturn void die_disconnected(const struct ovsdb_idl *idl)
{
	if (ovsdb_idl_is_alive(idl)) {
		if (ovsdb_idl_has_ever_connected(idl))
			die("the database at %s does not come to what is waited for within %u s", settings.db,
			    settings.timeout);
		die("the database at %s does not answer within %u s, or has no schema Weir", settings.db, settings.timeout);
	}
	int error = ovsdb_idl_get_last_error(idl);
	if (error == EOF || error == ENOENT || error == ECONNREFUSED)
		die("no database answers at %s (is ovsdb-server running?)", settings.db);
	if (error == EAFNOSUPPORT || error == EINVAL)
		die("%s is no OVSDB remote: unix:/path, tcp:address:port or ssl:address:port", settings.db);
	die("no database answers at %s: %s", settings.db, ovs_retval_to_string(error));
}

static void begin(struct context *ctx, const struct given *list, size_t n)
{
	about_clear();
	ctx->txn = ovsdb_idl_txn_create(ctx->idl);
	ovsdb_idl_txn_add_comment(ctx->txn, "weirctl");
	ctx->symtab = ovsdb_symbol_table_create();
	ctx->root = weirrec_weir_first(ctx->idl);
	bool writes = false;
	for (size_t i = 0; i < n; i++)
		writes |= list[i].command->writes;
	if (!ctx->root && writes)
		ctx->root = weirrec_weir_insert(ctx->txn);
	if (writes && !settings.no_wait)
		ovsdb_idl_txn_increment(ctx->txn, &ctx->root->header_, &weirrec_weir_col_next_cfg, false);
}

// Runs all commands. 0; -1: the error is in the context.
static int run_all(struct context ctx[], const struct given *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		ctx[i].txn = ctx[0].txn;
		ctx[i].root = ctx[0].root;
		ctx[i].symtab = ctx[0].symtab;
		if (list[i].command->run(&ctx[i]))
			return -1;
		if (ctx[i].try_again) {
			ctx[0].try_again = true;
			return 0;
		}
	}
	struct shash_node *node;
	SHASH_FOR_EACH (node, &ctx[0].symtab->sh) {
		const struct ovsdb_symbol *symbol = node->data;
		if (!symbol->created)
			return fail(&ctx[0], "row \"%s\" is referred to but not created (-- --id=%s create ...)", node->name,
				    node->name);
	}
	return 0;
}

static enum ovsdb_idl_txn_status commit(struct context *ctx)
{
	for (;;) {
		enum ovsdb_idl_txn_status status = ovsdb_idl_txn_commit(ctx->txn);
		if (status != TXN_INCOMPLETE)
			return status;
		if (time_msec() >= deadline)
			die("the database at %s does not answer within %u s; whether it took the change is not known",
			    settings.db, settings.timeout);
		ovsdb_idl_run(ctx->idl);
		if (!ovsdb_idl_is_alive(ctx->idl))
			die("the connection to the database at %s broke; whether it took the change is not known", settings.db);
		ovsdb_idl_wait(ctx->idl);
		ovsdb_idl_txn_wait(ctx->txn);
		poll_timer_wait_until(deadline);
		poll_block();
	}
}

// The database's errors are JSON objects; people want what it has to say.
static _Noreturn void die_refused(const char *error)
{
	struct json *json = json_from_string(error);
	const char *text = error;

	if (json->type == JSON_OBJECT) {
		const struct json *details = shash_find_data(json_object(json), "details");
		const struct json *kind = shash_find_data(json_object(json), "error");
		if (details && details->type == JSON_STRING)
			text = json_string(details);
		else if (kind && kind->type == JSON_STRING)
			text = json_string(kind);
	}
	die("the database refuses the change: %s", text);
}

static void reset(struct context ctx[], size_t n)
{
	ovsdb_idl_txn_abort(ctx[0].txn);
	ovsdb_idl_txn_destroy(ctx[0].txn);
	ovsdb_symbol_table_destroy(ctx[0].symtab);
	for (size_t i = 0; i < n; i++) {
		ds_clear(&ctx[i].output);
		ctx[i].try_again = false;
		if (ctx[i].generic)
			generic_reset(ctx[i].generic);
	}
}

static const struct weirrec_host *find_host(const struct ovsdb_idl *idl, const char *name)
{
	const struct weirrec_host *host;

	WEIRREC_HOST_FOR_EACH (host, idl)
		if (!strcmp(host->name, name))
			return host;
	return NULL;
}

// NULL: all that have to have applied `cfg`; else the sentence which says who hasn't.
static char *who_lags(const struct ovsdb_idl *idl, int64_t cfg)
{
	const struct weirrec_host *host;
	size_t n = 0;

	for (size_t i = 0; !txn_about.all_hosts && i < txn_about.n_hosts; i++) {
		host = find_host(idl, txn_about.host[i]);
		if (!host)
			return xasprintf("no host %s has appeared in the database", txn_about.host[i]);
		if (host->cur_cfg < cfg)
			return xasprintf("host %s has not applied the change", host->name);
		n++;
	}
	if (n)
		return NULL;
	WEIRREC_HOST_FOR_EACH (host, idl) {
		if (host->cur_cfg < cfg)
			return xasprintf("host %s has not applied the change", host->name);
		n++;
	}
	return n ? NULL : xstrdup("no switch has ever connected to this database");
}

static void wait_applied(struct ovsdb_idl *idl, int64_t cfg)
{
	unsigned seqno = ovsdb_idl_get_seqno(idl);

	// The change is made: losing the connection now is no reason to give up.
	ovsdb_idl_enable_reconnect(idl);
	for (;;) {
		char *lag = who_lags(idl, cfg);
		if (!lag)
			return;
		if (!advance(idl, &seqno))
			die("%s within %u s (is weir-vswitchd running?); the change is in the database and applies when it is "
			    "back "
			    "(--no-wait doesn't wait)",
			    lag, settings.timeout);
		free(lag);
	}
}

// Tells what the switches say of the rows. Returns the exit status.
static int tell_errors(const struct context *ctx)
{
	int status = EXIT_SUCCESS;

	for (size_t i = 0; i < txn_about.n_rows; i++) {
		const struct touched *t = &txn_about.row[i];
		const struct uuid *uuid = ovsdb_idl_txn_get_insert_uuid(ctx->txn, &t->uuid);
		const struct ovsdb_idl_row *row = ovsdb_idl_get_row_for_uuid(ctx->idl, t->table, uuid ? uuid : &t->uuid);
		char *error = row ? row_error(row) : NULL;
		if (!error)
			continue;
		char *title = row_title(row);
		size_t n = strlen(title);
		// The switch may have named the row itself.
		fprintf(stderr, "weirctl: %s%s%s\n", strncmp(error, title, n) ? title : "",
			strncmp(error, title, n) ? ": " : "", error);
		free(title);
		free(error);
		status = EXIT_FAILURE;
	}
	return status;
}

static int finish(struct context ctx[], size_t n, enum ovsdb_idl_txn_status status)
{
	for (size_t i = 0; i < n; i++) {
		if (ctx[i].generic)
			generic_committed(&ctx[i]);
		fputs(ds_cstr(&ctx[i].output), stdout);
	}
	fflush(stdout);
	if (settings.no_wait)
		return EXIT_SUCCESS;
	if (status == TXN_SUCCESS && (txn_about.n_rows || txn_about.n_hosts || txn_about.all_hosts))
		wait_applied(ctx[0].idl, ovsdb_idl_txn_get_increment_new_value(ctx[0].txn));
	// Also when nothing had to change: what is wrong with the row still is.
	return tell_errors(&ctx[0]);
}

// One attempt on what the database holds now. True: done, *status is the exit status.
static bool attempt(struct context ctx[], const struct given *list, size_t n, int *status)
{
	begin(&ctx[0], list, n);
	if (run_all(ctx, list, n)) {
		for (size_t i = 0; i < n; i++)
			if (ctx[i].error)
				die("%s", ctx[i].error);
	}
	enum ovsdb_idl_txn_status txn_status = TXN_TRY_AGAIN;
	if (!ctx[0].try_again)
		txn_status = commit(&ctx[0]);
	switch (txn_status) {
	case TXN_SUCCESS:
	case TXN_UNCHANGED:
		*status = finish(ctx, n, txn_status);
		return true;
	case TXN_TRY_AGAIN:
		reset(ctx, n);
		return false;
	case TXN_ERROR:
		die_refused(ovsdb_idl_txn_get_error(ctx[0].txn));
	default:
		die("the transaction ended in state %s", ovsdb_idl_txn_status_to_string(txn_status));
	}
}

int database_run(const struct given *list, size_t n)
{
	struct context *ctx = xcalloc(n, sizeof(*ctx));
	bool statistics = false;
	int status;

	deadline = settings.timeout ? time_msec() + settings.timeout * 1000LL : LLONG_MAX;
	for (size_t i = 0; i < n; i++) {
		statistics |= list[i].command->statistics;
		if (list[i].command->kind == GENERIC)
			ctx[i].generic = generic_parse(&list[i]);
	}
	struct ovsdb_idl *idl = connect_idl(statistics);
	for (size_t i = 0; i < n; i++) {
		ctx[i].given = &list[i];
		ctx[i].idl = idl;
		ds_init(&ctx[i].output);
		if (ctx[i].generic)
			generic_prerequisites(ctx[i].generic, idl);
	}
	unsigned seqno = ovsdb_idl_get_seqno(idl);
	do {
		if (!advance(idl, &seqno))
			die_disconnected(idl);
	} while (!attempt(ctx, list, n, &status));

	ovsdb_idl_txn_destroy(ctx[0].txn);
	ovsdb_symbol_table_destroy(ctx[0].symtab);
	for (size_t i = 0; i < n; i++)
		ds_destroy(&ctx[i].output);
	free(ctx);
	about_clear();
	ovsdb_idl_destroy(idl);
	return status;
}

void database_names(const char *noun)
{
	unsigned seqno;

	deadline = time_msec() + (settings.timeout ? settings.timeout : 1) * 1000LL;
	struct ovsdb_idl *idl = connect_idl(false);
	seqno = ovsdb_idl_get_seqno(idl);
	for (size_t t = 0; t < WEIRREC_N_TABLES; t++) {
		const struct ovsdb_idl_table_class *table = &weirrec_table_classes[t];
		if (strcasecmp(table->name, noun))
			continue;
		if (!advance(idl, &seqno))
			break;
		for (const struct ovsdb_idl_row *row = ovsdb_idl_first_row(idl, table); row; row = ovsdb_idl_next_row(row)) {
			char *name = row_name(row);
			puts(name);
			free(name);
		}
	}
	ovsdb_idl_destroy(idl);
}
