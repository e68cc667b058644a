// verbs: cached flows, workers, counters of ports. See verbs.h.
#include "verbs.h"
#include "clock.h"
#include "port.h"
#include "row.h"
#include "sentence.h"
#include "stage.h"
#include "thread.h"
#include "parse.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool verbs_take_flag(int *argc, const char *argv[], const char *name)
{
	for (int i = 1; i < *argc; i++)
		if (!strncmp(argv[i], "--", 2) && !strcmp(argv[i] + 2, name)) {
			memmove(&argv[i], &argv[i + 1], (size_t)(*argc - i - 1) * sizeof *argv);
			--*argc;
			return true;
		}
	return false;
}

bool verbs_take_json(int *argc, const char *argv[])
{
	return verbs_take_flag(argc, argv, "json");
}

const char *verbs_take_option(int *argc, const char *argv[], const char *name, char **error)
{
	for (int i = 1; i < *argc; i++) {
		if (strncmp(argv[i], "--", 2) || strcmp(argv[i] + 2, name))
			continue;
		if (i + 1 == *argc) {
			sentence_set(error, "--%s wants a value", name);
			--*argc;
			return NULL;
		}
		const char *value = argv[i + 1];
		memmove(&argv[i], &argv[i + 2], (size_t)(*argc - i - 2) * sizeof *argv);
		*argc -= 2;
		return value;
	}
	return NULL;
}

void verbs_refuse(struct control_request *r, const char *fmt, ...)
{
	char *text;
	va_list args;

	va_start(args, fmt);
	int n = vasprintf(&text, fmt, args);
	va_end(args);
	control_reply_error(r, n < 0 ? "out of memory" : text);
	if (n >= 0)
		free(text);
}

void verbs_reply(struct control_request *r, struct listing *l, bool json)
{
	char *text = listing_render(l, json);

	listing_free(l);
	if (text)
		control_reply(r, text);
	else
		control_reply_error(r, "out of memory");
	free(text);
}

// ---- flows

static void format_key(struct buf *b, const struct flow_key *k, const struct profile *pr)
{
	uint16_t type = ntohs(k->ethertype);

	buf_add(b, "dl_src=");
	buf_add_mac(b, k->src);
	buf_add(b, ",dl_dst=");
	buf_add_mac(b, k->dst);
	if (k->vlan)
		buf_add(b, ",dl_vlan=%u", k->vlan & 0xfff);
	buf_add(b, ",dl_type=0x%04x", type);
	if (pr->fields & KEY_BIT(NW_PROTO))
		buf_add(b, ",nw_proto=%u", k->proto);
	for (int i = 0; i < 2; i++) {
		char text[INET6_ADDRSTRLEN];
		bool six = type == 0x86dd;
		const void *at = six ? (i ? (const void *)k->v6.dst : (const void *)k->v6.src) : i ? (const void *)&k->v4.dst : (const void *)&k->v4.src;

		if (pr->fields & (i ? KEY_BIT(NW_DST) : KEY_BIT(NW_SRC)))
			buf_add(b, ",%s_%s=%s", six ? "ipv6" : "nw", i ? "dst" : "src", inet_ntop(six ? AF_INET6 : AF_INET, at, text, sizeof text));
	}
	if (pr->fields & KEY_BIT(TP_SRC))
		buf_add(b, ",tp_src=%u", ntohs(k->sport));
	if (pr->fields & KEY_BIT(TP_DST))
		buf_add(b, ",tp_dst=%u", ntohs(k->dport));
	if (k->class)
		buf_add(b, ",class=%s", traffic_class_name(k->class));
}

static const char *port_name(uint16_t id)
{
	const struct port *p = port_get(id);

	return p ? p->name : "?";
}

static void format_actions(struct buf *b, const struct flow *f)
{
	const struct network *net = network_get(f->network);

	const struct row_info *rule = f->actions ? row_get(f->rule) : NULL;

	if (rule) // fields that it sets, copies that it sends
		buf_add(b, "rule:%s,", rule->name);
	switch ((enum out_kind)f->out_kind) {
	case OUT_PORT:
		if (f->vlan_op == VLAN_OP_POP)
			buf_add(b, "strip_vlan,");
		else if (f->vlan_op == VLAN_OP_PUSH)
			buf_add(b, "push_vlan:0x%04x,set_vlan:%u,", f->qinq, f->vlan_tci & 0xfff);
		else if (f->vlan_op == VLAN_OP_SET)
			buf_add(b, "set_vlan:%u,", f->vlan_tci & 0xfff);
		buf_add(b, "output:%s", port_name(f->out));
		break;
	case OUT_FLOOD:
		if (f->vlan_op == VLAN_OP_GIVEN)
			buf_add(b, f->vlan_tci ? "set_vlan:%u," : "strip_vlan,", f->vlan_tci);
		buf_add(b, "flood:%s", net ? net->name : "?");
		break;
	case OUT_DROP:
		buf_add(b, "drop(%s.%s)", reason_get(f->out)->module, reason_get(f->out)->name);
		break;
	default:
		buf_add(b, "none");
	}
}

static void format_because(struct buf *b, const struct flow_cold *c)
{
	for (unsigned i = 0; i < c->n_prov; i++) {
		const struct row_info *r = row_get(c->prov_row[i]);

		if (r)
			buf_add(b, "%s%s:%s", b->len ? "," : "", r->table, r->name);
	}
}

static void list_flow(struct listing *l, unsigned worker, uint32_t index, const struct flow_view *v, uint32_t now_ms)
{
	struct buf key = {0}, actions = {0}, because = {0};
	const struct network *net = network_get(v->flow.network);
	uint32_t idle = now_ms - v->flow.used_ms;

	format_key(&key, &v->key, profile_get(v->key.profile));
	format_actions(&actions, &v->flow);
	format_because(&because, &v->cold);
	listing_row(l);
	listing_uint(l, worker);
	listing_uint(l, index);
	listing_str(l, port_name(v->key.port));
	listing_str(l, net ? net->name : NULL);
	listing_str(l, key.text);
	listing_str(l, actions.text);
	listing_uint(l, v->flow.packets);
	listing_uint(l, v->flow.bytes);
	listing_real(l, (int32_t)idle > 0 ? idle / 1000.0 : 0, 1);
	listing_str(l, because.text);
	free(key.text);
	free(actions.text);
	free(because.text);
}

static void cache_list(struct control_request *r, int argc, const char *argv[], void *aux)
{
	bool json = verbs_take_json(&argc, argv);
	char *error = NULL;
	const char *port = verbs_take_option(&argc, argv, "port", &error), *network = verbs_take_option(&argc, argv, "network", &error);
	const char *limit_text = verbs_take_option(&argc, argv, "limit", &error);
	unsigned long limit = limit_text ? strtoul(limit_text, NULL, 10) : 1000;
	const struct port *p = port ? port_find(port) : NULL;

	if (error || argc > 1) {
		verbs_refuse(r, "%s", error ? error : "cache list takes --port PORT, --network NETWORK and --limit N");
		free(error);
		return;
	}
	if (port && !p) {
		verbs_refuse(r, "there is no port %s", port);
		return;
	}
	struct listing *l = listing_new();
	static const char *const columns[][2] = {
		{"worker", "WORKER"}, {"flow", "FLOW"},   {"port", "PORT"},       {"network", "NETWORK"}, {"match", "MATCH"}, {"actions", "ACTIONS"},
		{"packets", "PACKETS"}, {"bytes", "BYTES"}, {"idle", "IDLE(s)"}, {"because", "DECIDED BY"},
	};
	for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
		listing_column(l, columns[i][0], columns[i][1]);
	uint32_t now_ms = (uint32_t)(clock_ns() / 1000000);
	for (unsigned id = 0; id < MAX_WORKERS; id++) {
		const struct worker *w = thread_worker(id);

		for (uint32_t i = 0; w && i < flow_table_high(w->flows) && listing_rows(l) < limit; i++) {
			struct flow_view v;

			if (!flow_table_read(w->flows, i, &v) || (p && v.key.port != p->id))
				continue;
			const struct network *net = network_get(v.flow.network);
			if (network && (!net || strcmp(net->name, network)))
				continue;
			list_flow(l, id, i, &v, now_ms);
		}
	}
	verbs_reply(r, l, json);
}

static void cache_flush(struct control_request *r, int argc, const char *argv[], void *aux)
{
	bool json = verbs_take_json(&argc, argv);

	gen_bump(gen_slot(GEN_CONFIG, 0));
	control_reply(r, json ? "{\"flushed\": true}\n" : "every flow is resolved again with its next packet\n");
}

// ---- workers

static void list_worker(const struct thread_view *v, void *arg)
{
	struct listing *l = arg;
	const struct thread_stats *s = &v->stats;
	double busy = (double)s->busy_cycles, all = busy + (double)s->idle_cycles;

	listing_row(l);
	listing_uint(l, v->id);
	if (v->core >= 0)
		listing_uint(l, (uint64_t)v->core);
	else
		listing_none(l);
	listing_uint(l, v->n_rxqs);
	listing_uint(l, s->packets);
	listing_real(l, all > 0 ? 100 * busy / all : 0, 2);
	if (s->packets)
		listing_real(l, busy / (double)s->packets, 1);
	else
		listing_none(l);
	uint64_t bursts = 0;
	for (int i = 1; i < BURST_SIZES; i++)
		bursts += s->bursts[i];
	if (bursts)
		listing_real(l, (double)s->packets / (double)bursts, 1);
	else
		listing_none(l);
	listing_uint(l, s->iterations);
	listing_uint(l, s->pauses);
	listing_uint(l, s->blocks);
	listing_real(l, (double)s->blocked_ns / 1e9, 1);
	if (s->wakeups) {
		listing_real(l, (double)s->wakeup_ns_sum / (double)s->wakeups / 1e3, 1);
		listing_real(l, (double)s->wakeup_ns_max / 1e3, 1);
	} else {
		listing_none(l);
		listing_none(l);
	}
	listing_uint(l, v->flows.flows);
	listing_uint(l, v->flows.limit);
}

static void worker_list(struct control_request *r, int argc, const char *argv[], void *aux)
{
	static const char *const columns[][2] = {
		{"worker", "WORKER"}, {"core", "CORE"}, {"queues", "QUEUES"}, {"packets", "PACKETS"}, {"busy_percent", "BUSY(%)"},
		{"cycles_per_packet", "CYCLES/PKT"}, {"packets_per_burst", "PKTS/BURST"}, {"iterations", "ROUNDS"}, {"pauses", "PAUSES"},
		{"blocks", "SLEEPS"}, {"blocked_s", "ASLEEP(s)"}, {"wakeup_us", "WAKE-UP(us)"}, {"wakeup_max_us", "MAX(us)"},
		{"flows", "FLOWS"}, {"flow_limit", "LIMIT"},
	};
	bool json = verbs_take_json(&argc, argv);
	struct listing *l = listing_new();

	for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
		listing_column(l, columns[i][0], columns[i][1]);
	thread_view_each(list_worker, l);
	verbs_reply(r, l, json);
}

static void list_queue(unsigned worker, const struct rxq *q, double share, void *arg)
{
	struct listing *l = arg;

	listing_row(l);
	listing_str(l, port_name(q->port));
	listing_uint(l, q->queue);
	listing_uint(l, worker);
	listing_uint(l, __atomic_load_n(&q->stats->packets, __ATOMIC_RELAXED));
	listing_uint(l, __atomic_load_n(&q->stats->bursts, __ATOMIC_RELAXED));
	listing_real(l, 100 * share, 2);
}

static void worker_queues(struct control_request *r, int argc, const char *argv[], void *aux)
{
	static const char *const columns[][2] = {{"port", "PORT"},       {"queue", "QUEUE"},   {"worker", "WORKER"},
						 {"packets", "PACKETS"}, {"bursts", "BURSTS"}, {"load_percent", "LOAD(%)"}};
	bool json = verbs_take_json(&argc, argv);
	struct listing *l = listing_new();

	for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
		listing_column(l, columns[i][0], columns[i][1]);
	thread_list_queues(list_queue, l);
	verbs_reply(r, l, json);
}

// ---- ports

static void port_stats_one(struct port *p, void *arg)
{
	struct listing *l = arg;
	struct counts s = {0};

	port_counts(p, &s);
	listing_row(l);
	listing_str(l, p->name);
	for (unsigned i = 0; i < COUNT_N; i++)
		listing_uint(l, s.c[i]);
}

static void port_stats(struct control_request *r, int argc, const char *argv[], void *aux)
{
	bool json = verbs_take_json(&argc, argv);
	struct listing *l = listing_new();

	if (argc > 1 && !port_find(argv[1])) {
		verbs_refuse(r, "there is no port %s", argv[1]);
		listing_free(l);
		return;
	}
	listing_column(l, "port", "PORT");
	for (unsigned i = 0; i < COUNT_N; i++)
		listing_column(l, count_desc[i].key, count_desc[i].key);
	if (argc > 1)
		port_stats_one(port_find(argv[1]), l);
	else
		port_each(port_stats_one, l);
	verbs_reply(r, l, json);
}

static void version(struct control_request *r, int argc, const char *argv[], void *aux)
{
	bool json = verbs_take_json(&argc, argv);

	control_reply(r, json ? "{\"version\": \"" WEIR_VERSION "\"}\n" : "weir-vswitchd " WEIR_VERSION "\n");
}

static void run_stage_verb(struct control_request *r, int argc, const char *argv[], void *aux)
{
	const struct stage_verb *v = aux;
	bool json = verbs_take_json(&argc, argv);
	char *error = NULL, *text = v->run(argc, argv, json, &error);

	if (text)
		control_reply(r, text);
	else
		control_reply_error(r, error ? error : "out of memory");
	free(text);
	free(error);
}

void verbs_init(void)
{
	static const struct {
		const char *name, *usage;
		int max;
		control_handler *run;
	} core[] = {
		{"cache/list", "[--json] [--port PORT] [--network NETWORK] [--limit N]", 7, cache_list},
		{"cache/flush", "[--json]", 1, cache_flush},
		{"worker/list", "[--json]", 1, worker_list},
		{"worker/queues", "[--json]", 1, worker_queues},
		{"port/stats", "[--json] [PORT]", 2, port_stats},
		{"version", "[--json]", 1, version},
	};

	for (size_t i = 0; i < sizeof core / sizeof core[0]; i++)
		if (strcmp(core[i].name, "version")) // the library answers that one
			control_register(core[i].name, core[i].usage, 0, core[i].max, core[i].run, NULL);
		else
			control_register("weir/version", core[i].usage, 0, core[i].max, core[i].run, NULL);
	for (unsigned i = 0; i < stage_count(); i++)
		for (const struct stage_verb *v = stage_get((uint8_t)i)->verbs; v && v->name; v++)
			control_register(v->name, v->usage, 0, 16, run_stage_verb, (void *)(uintptr_t)v);
}
