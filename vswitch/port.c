// port: the registry of ports, and what reconcile does with it. See port.h.
#include "port.h"
#include "bond.h"
#include "buf.h"
#include "control.h"
#include "sentence.h"
#include "table_stat.h"
#include "thread.h"
#include "topology.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_MS 1000

static struct port *ports[MAX_PORTS];
static struct port own = {.name = "(switch)"}; // port 0
static uint16_t last_id;
static const char *run_folder;
static void (*on_change)(void);

static const struct port_ops *const kinds[] = {&port_ops_vhost, &port_ops_tap, &port_ops_kernel, &port_ops_dpdk, &port_ops_bond, &port_ops_router, &port_ops_tunnel};

static void fill_each(table_fill_fn *fn, void *arg)
{
	fn(arg, NULL, port_count(), MAX_PORTS - 1);
}

static struct table_stat fill_stat = {.name = "port", .help = "ports", .each = fill_each};

void port_init(const char *rundir, void (*changed)(void))
{
	run_folder = rundir;
	on_change = changed;
	ports[0] = &own;
	table_stat_register(&fill_stat);
}

struct port *port_get(uint16_t id)
{
	return id < MAX_PORTS ? ports[id] : NULL;
}

struct port *port_find(const char *name)
{
	for (unsigned i = 1; i < MAX_PORTS; i++)
		if (ports[i] && !strcmp(ports[i]->name, name))
			return ports[i];
	return NULL;
}

void port_each(void (*fn)(struct port *, void *), void *arg)
{
	for (unsigned i = 1; i < MAX_PORTS; i++)
		if (ports[i])
			fn(ports[i], arg);
}

unsigned port_count(void)
{
	unsigned n = 0;

	for (unsigned i = 1; i < MAX_PORTS; i++)
		n += ports[i] != NULL;
	return n;
}

const struct port_loss_desc port_loss_desc[LOSS_N] = {
#define X(id, key, text) [LOSS_##id] = {key, text},
	PORT_LOSSES(X)
#undef X
};

uint16_t port_mtu_now(const struct port *p)
{
	const struct lport *lp = p->id ? lport_get(p->id) : NULL;

	return lp ? lp->mtu : p->mtu;
}

// A guest believes until its next start what it was told at this one.
static void check_guest_mtu(const struct port *p, struct port_state *s)
{
	uint16_t mtu = port_mtu_now(p);

	if (s->problem[0] || s->guest_mtu <= mtu)
		return;
	snprintf(s->problem, sizeof s->problem,
		 "guest's MTU too large: its hypervisor told it %u bytes, the port takes %u, and larger packets are answered or dropped; set host_mtu=%u (QEMU) "
		 "or <mtu size='%u'/> (libvirt) and start the guest anew",
		 s->guest_mtu, mtu, mtu, mtu);
}

void port_state(struct port *p, struct port_state *s)
{
	memset(s, 0, sizeof *s);
	for (unsigned i = 0; i < LOSS_N; i++)
		s->loss[i] = LOSS_NONE;
	if (p->device)
		p->device->ops->state(p->device->dev, s);
	else
		snprintf(s->problem, sizeof s->problem, "%s", p->error ? p->error : "not open yet");
	check_guest_mtu(p, s);
	for (unsigned i = 0; i < LOSS_N; i++) {
		if (p->lost[i] == LOSS_UNKNOWN || (s->loss[i] == LOSS_NONE && p->lost[i]))
			s->loss[i] = p->lost[i];
		else if (s->loss[i] < LOSS_UNKNOWN)
			s->loss[i] += p->lost[i];
	}
}

void port_counts(const struct port *p, struct counts *sum)
{
	for (unsigned i = 0; i < COUNT_N; i++)
		sum->c[i] += p->retired.c[i];
	for (unsigned i = 0; i < MAX_REASONS; i++)
		sum->drop[i] += p->retired.drop[i];
	for (unsigned i = 0; i < MAX_WORKERS; i++) {
		const struct worker *w = thread_worker(i);
		const struct port_worker *pw = !w ? NULL : p->id ? p->pw[i] : w->port[0];

		if (pw)
			count_read(&pw->counts, sum);
	}
}

// Ids are given out round robin, so that a packet that still waits somewhere is not booked on a new port that took its port's id.
static uint16_t new_id(void)
{
	for (unsigned n = 0; n < MAX_PORTS; n++) {
		last_id = last_id + 1 < MAX_PORTS ? last_id + 1 : 1;
		if (!ports[last_id])
			return last_id;
	}
	return 0;
}

static struct port *find_row(const struct row_id *row)
{
	for (unsigned i = 1; i < MAX_PORTS; i++)
		if (ports[i] && row_id_equal(&ports[i]->row, row))
			return ports[i];
	return NULL;
}

// Everything that the device depends on, as one text.
static char *signature_of(const struct config_port *cp)
{
	struct buf b = {0};

	buf_add(&b, "%s", cp->type);
	for (size_t i = 0; i < cp->options.n; i++)
		buf_add(&b, "\n%s=%s", cp->options.pair[i].key, cp->options.pair[i].value);
	return b.text;
}

// Of the device: a trunk carries the frames of its largest network.
uint16_t port_mtu(const struct config *c, const struct config_port *cp)
{
	bool trunk = cp->vlan_mode == VLAN_TRUNK || cp->vlan_mode == VLAN_NATIVE_TAGGED || cp->vlan_mode == VLAN_NATIVE_UNTAGGED;
	uint16_t largest = 0;

	if (cp->mtu)
		return cp->mtu;
	for (size_t i = 0; i < c->n_networks; i++) {
		const struct config_network *n = &c->networks[i];
		bool in = row_id_equal(&n->row, &cp->network) || (trunk && n->vlan && !cp->n_trunks);

		for (size_t t = 0; trunk && t < cp->n_trunks && !in; t++)
			in = row_id_equal(&n->row, &cp->trunks[t]);
		if (in && n->mtu > largest)
			largest = n->mtu;
	}
	return largest ? largest : 1500;
}

static void device_changed(void *arg)
{
	struct port *p = arg;

	__atomic_store_n(&p->changed, true, __ATOMIC_RELEASE);
	on_change();
}

static void device_quiesce(void *arg)
{
	rcu_synchronize();
}

static void publish_device(struct port *p, struct port_dev *d)
{
	p->device = d;
	for (unsigned i = 0; i < MAX_WORKERS; i++)
		if (p->pw[i])
			rcu_publish(p->pw[i]->device, (void *)d);
}

static void close_device(struct port *p)
{
	struct port_dev *d = p->device;
	struct port_state s;

	if (!d)
		return;
	thread_take_queues(p);
	port_state(p, &s);
	for (unsigned i = 0; i < LOSS_N; i++)
		p->lost[i] = s.loss[i] == LOSS_NONE ? 0 : s.loss[i];
	publish_device(p, NULL);
	bond_forget(p);
	rcu_synchronize();
	d->ops->close(d->dev);
	free(d);
	log_event('i', "port", LOG_FIELDS({"port", p->name}), "port %s: closed", p->name);
}

static struct port_open what_to_open(struct port *p, const struct config_port *cp)
{
	return (struct port_open){
		.config = cp,
		.rundir = run_folder,
		.mtu = p->mtu,
		.n_workers = thread_count(),
		.pool = thread_pool(-1),
		.changed = device_changed,
		.quiesce = device_quiesce,
		.arg = p,
	};
}

static void open_device(struct port *p, const struct config_port *cp)
{
	const struct port_ops *ops = NULL;
	struct port_open o = what_to_open(p, cp);
	struct port_dev *d = calloc(1, sizeof *d);
	char *error = NULL;

	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
		if (!strcmp(kinds[i]->type, cp->type))
			ops = kinds[i];
	if (!ops)
		sentence_set(&error, "there is no port type \"%s\": use vhost-user, tap, kernel, dpdk or bond", cp->type);
	else if (!d || !o.pool)
		sentence_set(&error, "out of memory");
	if (!error) {
		d->ops = ops;
		int rc = ops->open(&o, &d->dev, &error);
		if (rc && !error)
			sentence_set(&error, "can't be opened: %s", strerror(-rc));
	}
	// It is tried again every second: news is only another reason.
	bool same = error && p->error && !strcmp(error, p->error);
	free(p->error);
	p->error = error;
	if (error) {
		free(d);
		p->retry_ms = loop_msec() + RETRY_MS;
		if (!same)
			log_event('w', "port", LOG_FIELDS({"port", p->name}, {"type", cp->type}), "port %s: %s", p->name, error);
		return;
	}
	char row[ROW_ID_STRLEN + 1];
	row_id_format(&p->row, row);
	p->retry_ms = LLONG_MAX;
	publish_device(p, d);
	log_event('i', "port", LOG_FIELDS({"port", p->name}, {"type", cp->type}, {"row", row}), "port %s: open", p->name);
}

// The config is not kept, so what a retry needs is copied.
static void keep_config(struct port *p, const struct config_port *cp)
{
	struct config_port *k = &p->config;

	free(k->name);
	free(k->type);
	for (size_t i = 0; i < k->options.n; i++) {
		free(k->options.pair[i].key);
		free(k->options.pair[i].value);
	}
	free(k->options.pair);
	memset(k, 0, sizeof *k);
	k->name = strdup(cp->name);
	k->type = strdup(cp->type);
	k->id = cp->id;
	k->row = cp->row;
	k->options.pair = calloc(cp->options.n + 1, sizeof *k->options.pair);
	for (size_t i = 0; k->options.pair && i < cp->options.n; i++) {
		k->options.pair[i].key = strdup(cp->options.pair[i].key);
		k->options.pair[i].value = strdup(cp->options.pair[i].value);
		k->options.n++;
	}
}

static void free_port(void *arg)
{
	struct port *p = arg;
	struct config_port none = {.name = NULL, .type = NULL};

	free(p->config.name);
	free(p->config.type);
	for (size_t i = 0; i < p->config.options.n; i++) {
		free(p->config.options.pair[i].key);
		free(p->config.options.pair[i].value);
	}
	free(p->config.options.pair);
	p->config = none;
	free(p->name);
	free(p->affinity);
	free(p->signature);
	free(p->error);
	free(p);
}

static void fold_retired(struct port *p)
{
	for (unsigned i = 0; i < COUNT_N; i++)
		own.retired.c[i] += p->retired.c[i];
	for (unsigned i = 0; i < MAX_REASONS; i++)
		own.retired.drop[i] += p->retired.drop[i];
	load_read(&p->retired_load, &own.retired_load);
}

static void remove_port(struct port *p)
{
	close_device(p);
	thread_detach(p);
	fold_retired(p);
	ports[p->id] = NULL;
	rcu_defer(free_port, p);
}

// Not when the process ends: what was kept is for the next one.
static void forget_port(struct port *p)
{
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
		if (p->config.type && !strcmp(kinds[i]->type, p->config.type) && kinds[i]->forget)
			kinds[i]->forget(run_folder, p->config.name);
}

static void make_port(struct config_port *cp)
{
	struct port *p = calloc(1, sizeof *p);

	if (!p) {
		sentence_set(&cp->error, "out of memory");
		return;
	}
	p->id = new_id();
	if (!p->id) {
		sentence_set(&cp->error, "the switch takes %d ports at most", MAX_PORTS - 1);
		free(p);
		return;
	}
	p->row = cp->row;
	p->name = strdup(cp->name);
	p->retry_ms = LLONG_MAX;
	p->seen = true;
	ports[p->id] = p;
	cp->id = p->id;
	if (thread_attach(p))
		sentence_set(&cp->error, "out of memory for the port's queues");
}

void port_reconcile_begin(struct config *c)
{
	for (unsigned i = 1; i < MAX_PORTS; i++)
		if (ports[i])
			ports[i]->seen = false;
	for (size_t i = 0; i < c->n_ports; i++) {
		struct config_port *cp = &c->ports[i];
		struct port *p = find_row(&cp->row);

		for (size_t k = 0; k < i; k++) {
			// The one that works already goes on.
			if (!strcmp(c->ports[k].name, cp->name))
				sentence_set(p && !c->ports[k].id ? &c->ports[k].error : &cp->error, "another row of table Port has the name %s too",
					  cp->name);
		}
		if (!p)
			continue;
		p->seen = true; // also with an error: a row that went bad leaves its port as it was
		cp->id = p->id;
		if (strcmp(p->name, cp->name)) {
			free(p->name);
			p->name = strdup(cp->name);
		}
	}
	for (unsigned i = 1; i < MAX_PORTS; i++)
		if (ports[i] && !ports[i]->seen)
			thread_take_queues(ports[i]);
	for (size_t i = 0; i < c->n_ports; i++)
		if (!c->ports[i].id && !c->ports[i].error)
			make_port(&c->ports[i]);
}

static void update(struct config *c, struct config_port *cp, struct port *p)
{
	char *signature = signature_of(cp), *error = NULL;
	const char *affinity = config_map_get(&cp->other_config, "rxq-affinity", NULL);
	uint16_t mtu = port_mtu(c, cp);

	free(p->affinity);
	p->affinity = affinity ? strdup(affinity) : NULL;
	bool same = p->signature && signature && !strcmp(p->signature, signature);
	if (p->device && same && p->mtu == mtu) {
		free(signature);
		return;
	}
	p->mtu = mtu;
	free(p->signature);
	p->signature = signature;
	keep_config(p, cp);
	if (p->device) {
		struct port_open o = what_to_open(p, cp);
		o.only_mtu = same;
		int rc = strcmp(p->device->ops->type, cp->type) ? -ENOTSUP : p->device->ops->reconfigure(p->device->dev, &o, &error);

		if (!rc)
			return;
		free(error);
		close_device(p);
	}
	open_device(p, cp);
}

void port_reconcile_end(struct config *c)
{
	for (unsigned i = 1; i < MAX_PORTS; i++)
		if (ports[i] && !ports[i]->seen) {
			forget_port(ports[i]);
			remove_port(ports[i]);
		}
	for (size_t i = 0; i < c->n_ports; i++) {
		struct config_port *cp = &c->ports[i];
		struct port *p = cp->id ? ports[cp->id] : NULL;

		if (!p || cp->error)
			continue;
		update(c, cp, p); // p->error is reported with the port's state, as long as it holds
	}
}

bool port_run(long long now_ms)
{
	bool any = false;

	for (unsigned i = 1; i < MAX_PORTS; i++) {
		struct port *p = ports[i];

		if (!p)
			continue;
		if (!p->device && now_ms >= p->retry_ms) {
			open_device(p, &p->config);
			any |= p->device != NULL;
		}
		any |= __atomic_exchange_n(&p->changed, false, __ATOMIC_ACQ_REL);
	}
	return any;
}

long long port_next(void)
{
	long long next = LLONG_MAX;

	for (unsigned i = 1; i < MAX_PORTS; i++)
		if (ports[i] && !ports[i]->device && ports[i]->retry_ms < next)
			next = ports[i]->retry_ms;
	return next;
}

void port_close_all(void)
{
	for (unsigned i = 1; i < MAX_PORTS; i++)
		if (ports[i])
			remove_port(ports[i]);
}
