// lab: see lab.h.
#include "lab.h"
#include "compose.h"
#include "punt.h"
#include "tunnel.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_mempool.h>

#define MAX_ROWS 600
#define POOL 8191

struct lab lab;

static struct rte_mempool *pool;
static struct rte_mempool *tiny; // for tests that run out of buffers
#define TINY 31
static struct rte_mbuf *hoard[TINY]; // buffers of it that the test keeps from the worker
static unsigned n_hoard;
static uint32_t rows;
static struct counts gone; // of ports that were taken away
static bool provoked[MAX_REASONS];
static char run_dir[64];
static int marker;

static void remove_run_dir(void)
{
	char path[128];

	snprintf(path, sizeof path, "%s/dpdk/rte", run_dir);
	rmdir(path);
	snprintf(path, sizeof path, "%s/dpdk", run_dir);
	rmdir(path);
	rmdir(run_dir);
}

// EAL's files go to a folder of this process; its one thread may run where it likes, or the tests would fight for a core.
void lab_eal(void)
{
	char cores[32], prog[] = "test";
	static bool done;

	if (done)
		return;
	done = true;
	snprintf(run_dir, sizeof run_dir, "/tmp/unit.XXXXXX");
	if (!mkdtemp(run_dir))
		abort();
	setenv("RUNTIME_DIRECTORY", run_dir, 1);
	atexit(remove_run_dir);
	cpu_set_t set;
	int first = -1, last = 0;
	sched_getaffinity(0, sizeof set, &set);
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (CPU_ISSET(i, &set)) {
			first = first < 0 ? i : first;
			last = i;
		}
	}
	snprintf(cores, sizeof cores, "0@(%d-%d)", first, last);
	char *argv[] = {prog, (char[]){"--no-huge"}, (char[]){"-m"}, (char[]){"192"}, (char[]){"--no-pci"}, (char[]){"--no-telemetry"},
			(char[]){"--no-shconf"}, (char[]){"--log-level=lib.eal:error"}, (char[]){"--lcores"}, cores, NULL};
	if (rte_eal_init(10, argv) < 0) {
		fprintf(stderr, "EAL: %s\n", rte_strerror(rte_errno));
		abort();
	}
	// Lists of allowed cores have gaps at times: whatever EAL made of the range, the process goes where it could before.
	sched_setaffinity(0, sizeof set, &set);
	key_init();
	if (rcu_init())
		abort();
	pool = pkt_pool_create("lab", POOL, SOCKET_ID_ANY);
	tiny = pkt_pool_create("tiny", TINY, SOCKET_ID_ANY);
	if (!pool || !tiny)
		abort();
}

// ---- hooks

static void keep_sent(struct port_worker *pw, struct rte_mbuf *m)
{
	if (lab.n_sent == lab.sent_room) {
		lab.sent_room = lab.sent_room ? 2 * lab.sent_room : 64;
		lab.sent = realloc(lab.sent, lab.sent_room * sizeof *lab.sent);
	}
	struct lab_sent *s = &lab.sent[lab.n_sent++];
	*s = (struct lab_sent){.port = pw->id, .origin = pkt_of(m)->origin, .len = m->pkt_len, .ol_flags = m->ol_flags, .tx_offload = m->tx_offload};
	s->bytes = malloc(s->len ? s->len : 1);
	const void *bytes = rte_pktmbuf_read(m, 0, s->len, s->bytes);
	assert_non_null(bytes);
	if (bytes != s->bytes)
		memcpy(s->bytes, bytes, s->len);
}

// What a device's side may take for granted of such a batch.
static void check_same(const struct port_worker *pw)
{
	uint32_t bytes = 0;

	for (unsigned i = 0; i < pw->tx_n; i++) {
		struct rte_mbuf *m = pw->tx[i];

		assert_true(RTE_MBUF_DIRECT(m));
		assert_int_equal(rte_mbuf_refcnt_read(m), 1);
		assert_int_equal(pkt_of(m)->origin, pw->tx_origin);
		assert_null(pkt_of(m)->trace);
		bytes += m->pkt_len;
	}
	assert_int_equal(bytes, pw->tx_bytes);
}

static void flush(struct worker *w, struct port_worker *pw)
{
	assert_true(pw->tx_same <= pw->tx_n);
	if (pw->tx_same == pw->tx_n)
		check_same(pw);
	if (tunnel_send(w, pw))
		return;
	for (unsigned i = 0; i < pw->tx_n; i++) {
		struct rte_mbuf *m = pw->tx[i];

		rte_mbuf_sanity_check(m, 1);
		assert_int_equal(pkt_of(m)->out, pw->id);
		lab.total_sent++;
		if (lab.keep)
			keep_sent(pw, m);
		worker_sent(w, pw, &m, 1);
	}
	pw->tx_n = pw->tx_same = 0;
	pw->tx_bytes = 0;
}

static bool deliver(struct rte_mbuf *m, unsigned worker)
{
	punt_queue(&lab.w, m);
	return true;
}

static struct rte_mempool *own_pool(void)
{
	return lab.w.pool;
}

static struct trace *new_trace(uint16_t port, void (*done)(struct trace *, void *arg), void *arg)
{
	struct trace *t = calloc(1, sizeof *t);

	t->done = done;
	t->arg = arg;
	t->refs = 1;
	t->in_port = port;
	lab.open_traces++;
	return t;
}

static void trace_done(struct trace *t, void *arg)
{
	struct buf b = {0};

	trace_format(t, &b, false, 0);
	free(lab.trace);
	lab.trace = b.text;
	lab.traces++;
	lab.open_traces--;
	free(t);
}

static uint32_t mark(struct worker *w, struct tracer *tracer, uint16_t port, struct rte_mbuf **m, unsigned n, struct trace **t)
{
	uint32_t traced = 0;

	for (unsigned i = 0; i < n && lab.traced; i++) {
		if (lab.wants_trace && !lab.wants_trace(m[i]))
			continue;
		t[i] = new_trace(port, trace_done, NULL);
		traced |= 1u << i;
	}
	return traced;
}

static void explained(struct trace *t, void *arg)
{
	struct buf b = {0};

	trace_format(t, &b, false, 0);
	lab.open_traces--;
	*(char **)arg = b.text;
	free(t);
}

char *lab_explain(uint16_t port, struct rte_mbuf *m, struct effect *overlay, uint8_t *n)
{
	static struct worker dry;
	struct effect own[EFFECTS_MAX];
	uint8_t n_own = 0;
	char *text = NULL;

	dry = (struct worker){.dry = true, .now = lab.w.now, .now_ms = lab.w.now_ms, .pool = pool, .flows = lab.w.flows};
	memset(pkt_of(m), 0, sizeof *pkt_of(m));
	pkt_of(m)->trace = new_trace(port, explained, &text);
	forward_explain(&dry, port, m, overlay ? overlay : own, n ? n : &n_own);
	assert_non_null(text);
	return text;
}

void lab_few_buffers(int n)
{
	while (n_hoard)
		rte_pktmbuf_free(hoard[--n_hoard]);
	lab.w.pool = n < 0 ? pool : tiny;
	while (n >= 0 && (int)n_hoard < TINY - n)
		hoard[n_hoard++] = rte_pktmbuf_alloc(tiny);
}

// ---- setup and teardown

static void add_port_worker(uint16_t id)
{
	struct port_worker *pw = aligned_alloc(64, (sizeof *pw + 63) & ~63UL);

	memset(pw, 0, sizeof *pw);
	pw->id = id;
	lab.w.port[id] = pw;
}

static void note_provoked(const struct counts *c)
{
	for (unsigned r = 1; r < MAX_REASONS; r++)
		provoked[r] |= c->drop[r] != 0;
}

static void remove_port_worker(uint16_t id)
{
	struct port_worker *pw = lab.w.port[id];

	forward_drain(&lab.w, id);
	flow_table_drop_port(lab.w.flows, id);
	worker_flush(&lab.w);
	worker_publish(&lab.w);
	lab.w.port[id] = NULL;
	count_read(&pw->counts, &gone);
	drop_fold(lab.w.drops, id);
	free(pw);
}

void lab_setup_stages(struct stage *const *list, unsigned n)
{
	struct flow_table_config fc = {.limit = 1 << 16, .idle_ms = 10000};

	lab_eal();
	memset(&lab, 0, sizeof lab);
	memset(&gone, 0, sizeof gone);
	lab.keep = lab.traced = true;
	lab.config = calloc(1, sizeof *lab.config);
	lab.config->networks = calloc(MAX_ROWS, sizeof *lab.config->networks);
	lab.config->ports = calloc(MAX_ROWS, sizeof *lab.config->ports);
	lab.config->fdb = calloc(MAX_ROWS, sizeof *lab.config->fdb);
	lab.config->routers = calloc(MAX_ROWS, sizeof *lab.config->routers);
	lab.config->router_ports = calloc(MAX_ROWS, sizeof *lab.config->router_ports);
	lab.config->routes = calloc(MAX_ROWS, sizeof *lab.config->routes);
	lab.w = (struct worker){
		.miss_limit = 256,
		.resolve_budget = 64,
		.pool = pool,
		.flush = flush,
		.mark = mark,
		.watch = WATCH_TRACE,
		.tracer = (struct tracer *)&marker,
	};
	lab.w.flows = flow_table_create(&fc);
	lab.w.drops = drop_create();
	assert_non_null(lab.w.flows);
	assert_non_null(lab.w.drops);
	add_port_worker(0);
	int rc = stages_init(list, n); if (rc) fail_msg("stages_init: %d", rc);
	forward_init();
	punt_deliver = deliver;
	punt_set_pool(own_pool);
	lab_advance_ms(1000 * 1000); // a time that is not zero
}

void lab_setup(void)
{
	lab_setup_stages(stage_list, stage_list_n);
}

static void append_provoked(void)
{
	const char *dir = getenv("UNIT_REASONS_DIR");
	char path[512];

	if (!dir)
		return;
	snprintf(path, sizeof path, "%s/%s.reasons", dir, program_invocation_short_name);
	FILE *f = fopen(path, "w");
	if (!f)
		fail_msg("%s: %s", path, strerror(errno));
	for (unsigned r = 1; r < reason_count(); r++)
		if (provoked[r])
			fprintf(f, "%s.%s\n", reason_get((uint16_t)r)->module, reason_get((uint16_t)r)->name);
	fclose(f);
}

// By reason, of what is counted by rows too.
static void check_drops(const struct drop_entry *entry, unsigned n, uint16_t port, const struct counts *c)
{
	uint64_t sum[MAX_REASONS] = {0};

	for (unsigned i = 0; i < n; i++)
		if (entry[i].port == port)
			sum[entry[i].reason] += entry[i].packets;
	for (unsigned r = 1; r < MAX_REASONS; r++)
		if (sum[r] != c->drop[r])
			fail_msg("port %u: %lu packets dropped for %s.%s, but %lu by rows", port, (unsigned long)c->drop[r], reason_get((uint16_t)r)->module,
				 reason_get((uint16_t)r)->name, (unsigned long)sum[r]);
}

void lab_check(void)
{
	static struct drop_entry entry[DROP_ENTRIES];
	unsigned n = drop_read(lab.w.drops, entry, false);
	struct counts rest = gone;

	for (unsigned i = 0; i < MAX_PORTS; i++) {
		struct port_worker *pw = lab.w.port[i];
		struct counts c = {0};

		if (!pw)
			continue;
		assert_int_equal(pw->tx_n, 0);
		count_read(&pw->counts, i ? &c : &rest);
		if (!i)
			continue;
		note_provoked(&c);
		check_drops(entry, n, (uint16_t)i, &c);
		assert_int_equal(c.c[COUNT_QUEUED], pw->miss_n + pw->punted);
		if (!lab.beyond_ok)
			assert_int_equal(c.c[COUNT_BEYOND_PROFILE], 0);
		if (count_missing(&c))
			fail_msg("port %u: %ld packets are missing", i, (long)count_missing(&c));
	}
	// What a port's packets did after it was gone is on the ledger of port 0.
	note_provoked(&rest);
	check_drops(entry, n, 0, &rest);
	if (count_missing(&rest))
		fail_msg("ports that are gone: %ld packets are missing", (long)count_missing(&rest));
}

void lab_teardown(void)
{
	lab_few_buffers(-1);
	stages_release();
	lab_flush();
	lab_check();
	topology_clear();
	for (unsigned i = 1; i < MAX_PORTS; i++)
		if (lab.w.port[i])
			remove_port_worker((uint16_t)i);
	worker_publish(&lab.w);
	lab_check();
	stages_fini();
	while (rcu_poll())
		;
	free(lab.w.port[0]);
	flow_table_destroy(lab.w.flows);
	drop_destroy(lab.w.drops);
	lab_forget_sent();
	free(lab.sent);
	free(lab.trace);
	config_free(lab.config);
	assert_int_equal(lab.open_traces, 0);
	assert_int_equal(rte_mempool_avail_count(pool), POOL);
	assert_int_equal(rte_mempool_avail_count(tiny), TINY);
	append_provoked();
}

// ---- config

static void next_row(struct row_id *id)
{
	rows++;
	memset(id, 0, sizeof *id);
	memcpy(id->b, &rows, sizeof rows);
	id->b[15] = 1;
}

struct config_network *lab_network(const char *name, uint16_t vlan)
{
	struct config_network *n = &lab.config->networks[lab.config->n_networks++];

	assert_true(lab.config->n_networks <= MAX_ROWS);
	*n = (struct config_network){
		.name = strdup(name),
		.id = (uint16_t)lab.config->n_networks,
		.vlan = vlan,
		.mtu = 1500,
		.learning = true,
		.flood_unknown = true,
		.ageing_s = 300,
		.mac_limit = 8192,
		.flap_threshold = 5,
		.flap_window_s = 10,
		.flap_hold_s = 60,
	};
	next_row(&n->row);
	return n;
}

struct config_port *lab_port(const char *name, enum vlan_mode mode, const struct config_network *net)
{
	struct config_port *p = &lab.config->ports[lab.config->n_ports++];

	assert_true(lab.config->n_ports <= MAX_ROWS);
	*p = (struct config_port){
		.name = strdup(name),
		.id = (uint16_t)lab.config->n_ports,
		.type = strdup("vhost-user"),
		.enabled = true,
		.vlan_mode = mode,
	};
	if (net)
		p->network = net->row;
	next_row(&p->row);
	return p;
}

void lab_trunk(struct config_port *p, const struct config_network *net)
{
	p->trunks = realloc(p->trunks, (p->n_trunks + 1) * sizeof *p->trunks);
	p->trunks[p->n_trunks++] = net->row;
}

static void read_mac(const char *s, uint8_t mac[6])
{
	assert_int_equal(sscanf(s, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4], &mac[5]), 6);
}

// "10.0.0.1/24", or an address.
static struct config_prefix read_prefix(const char *text)
{
	struct config_prefix p = {.ip.v6 = strchr(text, ':') != NULL};
	const char *slash = strchr(text, '/');
	char ip[64];

	snprintf(ip, sizeof ip, "%.*s", (int)strcspn(text, "/"), text);
	assert_int_equal(inet_pton(p.ip.v6 ? AF_INET6 : AF_INET, ip, p.ip.b), 1);
	p.len = (uint8_t)(slash ? atoi(slash + 1) : p.ip.v6 ? 128 : 32);
	return p;
}

void lab_address(struct config_port *p, const char *mac)
{
	p->addresses = realloc(p->addresses, (p->n_addresses + 1) * sizeof *p->addresses);
	p->addresses[p->n_addresses] = (struct config_address){.ip = NULL};
	read_mac(mac, p->addresses[p->n_addresses++].mac);
}

void lab_ip(struct config_port *p, const char *ip)
{
	struct config_address *a = &p->addresses[p->n_addresses - 1];

	a->ip = realloc(a->ip, (a->n_ips + 1) * sizeof *a->ip);
	a->ip[a->n_ips++] = read_prefix(ip).ip;
}

struct config_router *lab_router(const char *name)
{
	struct config_router *r = &lab.config->routers[lab.config->n_routers++];

	assert_true(lab.config->n_routers <= MAX_ROWS);
	*r = (struct config_router){.name = strdup(name), .id = (uint16_t)lab.config->n_routers, .enabled = true};
	next_row(&r->row);
	return r;
}

struct config_router_port *lab_router_port(const char *name, const struct config_router *router, const struct config_network *net, const char *mac, ...)
{
	struct config_router_port *rp = &lab.config->router_ports[lab.config->n_router_ports++];
	struct config_port *p = lab_port(name, VLAN_ACCESS, net);
	va_list ap;

	assert_true(lab.config->n_router_ports <= MAX_ROWS);
	p->kind = PORT_ROUTER;
	*rp = (struct config_router_port){.row = p->row, .name = strdup(name), .router = router->row, .network = net->row, .enabled = true};
	read_mac(mac, rp->mac);
	va_start(ap, mac);
	for (const char *text; (text = va_arg(ap, const char *));) {
		rp->addresses = realloc(rp->addresses, (rp->n_addresses + 1) * sizeof *rp->addresses);
		rp->addresses[rp->n_addresses++] = read_prefix(text);
	}
	va_end(ap);
	return rp;
}

struct config_route *lab_route(const struct config_router *router, const char *prefix, enum route_type type, ...)
{
	struct config_route *r = &lab.config->routes[lab.config->n_routes++];
	va_list ap;

	assert_true(lab.config->n_routes <= MAX_ROWS);
	*r = (struct config_route){.router = router->row, .prefix = read_prefix(prefix), .type = type};
	next_row(&r->row);
	va_start(ap, type);
	for (const char *text; type == ROUTE_UNICAST && (text = va_arg(ap, const char *));) {
		char ip[64];
		const char *star = strchr(text, '*');

		snprintf(ip, sizeof ip, "%.*s", (int)strcspn(text, "*"), text);
		r->hops = realloc(r->hops, (r->n_hops + 1) * sizeof *r->hops);
		r->hops[r->n_hops++] =
			(struct config_next_hop){.has_gateway = true, .gateway = read_prefix(ip).ip, .weight = (uint16_t)(star ? atoi(star + 1) : 1)};
	}
	va_end(ap);
	return r;
}

struct config_fdb *lab_static(const struct config_network *net, const struct config_port *port, const char *mac)
{
	struct config_fdb *f = &lab.config->fdb[lab.config->n_fdb++];

	assert_true(lab.config->n_fdb <= MAX_ROWS);
	free(f->error); // of a row that the test has taken away
	*f = (struct config_fdb){.network = net->row, .port = port->row};
	next_row(&f->row);
	read_mac(mac, f->mac);
	return f;
}

// A row that is not there: nothing refers to its new id. Its place stays, so that pointers to the others do.
void lab_remove_network(struct config_network *n)
{
	n->id = 0;
	next_row(&n->row);
	n->vlan = 0;
}

void lab_remove_port(struct config_port *p)
{
	p->id = 0;
	next_row(&p->row);
	p->n_addresses = 0;
}

static void forget_error(char **error)
{
	free(*error);
	*error = NULL;
}

void lab_apply(void)
{
	bool wanted[MAX_PORTS] = {true};
	unsigned n = 0;

	for (size_t i = 0; i < lab.config->n_networks; i++)
		forget_error(&lab.config->networks[i].error);
	for (size_t i = 0; i < lab.config->n_ports; i++) {
		forget_error(&lab.config->ports[i].error);
		wanted[lab.config->ports[i].id] = true;
	}
	for (size_t i = 0; i < lab.config->n_fdb; i++)
		forget_error(&lab.config->fdb[i].error);
	for (size_t i = 0; i < lab.config->n_router_ports; i++)
		forget_error(&lab.config->router_ports[i].error);
	for (size_t i = 0; i < lab.config->n_routes; i++)
		forget_error(&lab.config->routes[i].error);
	assert_int_equal(stages_reconcile(lab.config), 0);
	for (unsigned i = 1; i < MAX_PORTS; i++) {
		n += wanted[i];
		if (wanted[i] && !lab.w.port[i])
			add_port_worker((uint16_t)i);
		else if (!wanted[i] && lab.w.port[i])
			remove_port_worker((uint16_t)i);
	}
	flow_table_set_ports(lab.w.flows, n);
	rcu_poll();
}

// ---- time

void lab_advance_ms(uint64_t ms)
{
	lab.w.now += ms * 1000000;
	lab.w.now_ms = (uint32_t)(lab.w.now / 1000000);
}

void lab_pass_ms(unsigned ms)
{
	for (; ms; ms -= 100) {
		lab_advance_ms(100);
		stages_tick(lab.w.now);
		lab_flush();
		rcu_poll();
	}
}

void lab_tick(void)
{
	for (unsigned i = 0; i < 1100; i++)
		flow_table_sweep(lab.w.flows, lab.w.now_ms);
	for (unsigned i = 0; i < 16; i++)
		stages_tick(lab.w.now);
	rcu_poll();
}

// ---- packets

struct rte_mbuf *lab_mbuf(const void *frame, uint32_t len, uint32_t cut)
{
	const uint8_t *at = frame;
	struct rte_mbuf *head = rte_pktmbuf_alloc(pool), *last = head;

	assert_non_null(head);
	if (!cut || cut > PKT_BUF_SIZE)
		cut = PKT_BUF_SIZE;
	for (uint32_t left = len; left;) {
		uint16_t n = (uint16_t)(left < cut ? left : cut);

		memcpy(rte_pktmbuf_mtod(last, void *), at, n);
		last->data_len = n;
		at += n;
		left -= n;
		if (!left)
			break;
		last->next = rte_pktmbuf_alloc(pool);
		last = last->next;
		assert_non_null(last);
		last->data_off = RTE_PKTMBUF_HEADROOM;
		head->nb_segs++;
	}
	head->pkt_len = len;
	return head;
}

uint32_t lab_tag(uint8_t *frame, uint32_t len, uint16_t tpid, uint16_t tci)
{
	memmove(frame + 16, frame + 12, len - 12);
	frame[12] = (uint8_t)(tpid >> 8);
	frame[13] = (uint8_t)tpid;
	frame[14] = (uint8_t)(tci >> 8);
	frame[15] = (uint8_t)tci;
	return len + 4;
}

uint32_t lab_compose(uint8_t *frame, const char *text)
{
	static const struct compose_defaults defaults = {.dl_src = {2, 0, 0, 0, 0, 1}, .dl_dst = {2, 0, 0, 0, 0, 2}};
	char *error;
	int n = compose(text, &defaults, frame, &error);

	if (n < 0)
		fail_msg("%s", error);
	return (uint32_t)n;
}

void lab_forget_sent(void)
{
	for (unsigned i = 0; i < lab.n_sent; i++)
		free(lab.sent[i].bytes);
	lab.n_sent = 0;
}

// The worker's thread and the main thread in turn, until nothing is on its way between them.
void lab_flush(void)
{
	do {
		worker_flush(&lab.w);
		punt_poll();
	} while (punt_serve(&lab.w));
	worker_flush(&lab.w);
	worker_publish(&lab.w);
}

void lab_burst(uint16_t port, struct rte_mbuf **m, unsigned n)
{
	lab_forget_sent();
	forward_burst(&lab.w, port, m, n);
	lab_flush();
}

void lab_send_mbuf(uint16_t port, struct rte_mbuf *m)
{
	lab_burst(port, &m, 1);
}

void lab_send_frame(uint16_t port, const void *frame, uint32_t len)
{
	lab_send_mbuf(port, lab_mbuf(frame, len, 0));
}

void lab_send(uint16_t port, const char *text)
{
	uint8_t frame[COMPOSE_MAX];

	lab_send_frame(port, frame, lab_compose(frame, text));
}

const struct lab_sent *lab_sent_to(uint16_t port)
{
	for (unsigned i = 0; i < lab.n_sent; i++)
		if (lab.sent[i].port == port)
			return &lab.sent[i];
	return NULL;
}

// ---- what came of it

static void counts_of(uint16_t port, struct counts *c)
{
	memset(c, 0, sizeof *c);
	if (lab.w.port[port])
		count_read(&lab.w.port[port]->counts, c);
}

uint64_t lab_count(uint16_t port, enum count what)
{
	struct counts c;

	counts_of(port, &c);
	return c.c[what];
}

uint16_t lab_reason(const char *name)
{
	char module[32];
	const char *dot = strchr(name, '.');

	assert_non_null(dot);
	snprintf(module, sizeof module, "%.*s", (int)(dot - name), name);
	uint16_t id = reason_find(module, dot + 1);
	if (!id)
		fail_msg("there is no reason %s", name);
	return id;
}

uint64_t lab_drops(uint16_t port, const char *reason)
{
	struct counts c;

	counts_of(port, &c);
	return c.drop[lab_reason(reason)];
}

uint64_t lab_all_drops(uint16_t port)
{
	return lab_count(port, COUNT_DROPPED);
}

uint32_t lab_flows(void)
{
	struct flow_table_stats s;

	flow_table_stats(lab.w.flows, &s);
	return s.flows;
}

struct flow_view lab_flow(uint16_t port)
{
	struct flow_view v, found = {0};
	unsigned n = 0;

	for (uint32_t i = 0; i < flow_table_high(lab.w.flows); i++) {
		if (flow_table_read(lab.w.flows, i, &v) && v.key.port == port) {
			found = v;
			n++;
		}
	}
	assert_int_equal(n, 1);
	return found;
}

void lab_expect_trace(const char *part)
{
	if (!lab.trace || !strstr(lab.trace, part))
		fail_msg("the trace has no \"%s\":\n%s", part, lab.trace ? lab.trace : "(no trace)");
}

void lab_reject_trace(const char *part)
{
	if (lab.trace && strstr(lab.trace, part))
		fail_msg("the trace has \"%s\":\n%s", part, lab.trace);
}

void lab_expect_drop_frame(uint16_t port, const void *frame, uint32_t len, const char *reason)
{
	uint64_t before = lab_drops(port, reason), all = lab_all_drops(port);
	char line[128];

	lab_send_frame(port, frame, len);
	if (lab_drops(port, reason) != before + 1 || lab_all_drops(port) != all + 1 || lab.n_sent)
		fail_msg("not dropped for %s:\n%s", reason, lab.trace ? lab.trace : "(no trace)");
	if (lab.traced) {
		snprintf(line, sizeof line, "dropped (%s): %s", reason, reason_get(lab_reason(reason))->text);
		lab_expect_trace(line);
		lab_reject_trace("DEFECT");
	}
}

void lab_expect_drop(uint16_t port, const char *text, const char *reason)
{
	uint8_t frame[COMPOSE_MAX];

	lab_expect_drop_frame(port, frame, lab_compose(frame, text), reason);
}

void lab_expect_ports(uint16_t port, const char *text, ...)
{
	uint64_t drops = lab_all_drops(port);
	unsigned n = 0;
	va_list ap;

	lab_send(port, text);
	va_start(ap, text);
	for (int to; (to = va_arg(ap, int)); n++) {
		const struct lport *lp = lport_get((uint16_t)to);
		char line[128];

		if (!lab_sent_to((uint16_t)to))
			fail_msg("%s: nothing to port %d:\n%s", text, to, lab.trace ? lab.trace : "(no trace)");
		snprintf(line, sizeof line, "out by %s\n", lp ? lp->name : "?");
		if (lab.traced)
			lab_expect_trace(line);
	}
	va_end(ap);
	if (lab.n_sent != n || lab_all_drops(port) != drops)
		fail_msg("%s: sent %u packets instead of %u:\n%s", text, lab.n_sent, n, lab.trace ? lab.trace : "(no trace)");
	lab_reject_trace("DEFECT");
}
