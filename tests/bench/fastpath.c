// fastpath: what the packet path of a worker costs, without any device: forward_burst() over prebuilt packets, and an egress
// that takes all.
//
//     fastpath [--kind KIND] [--flows N] [--macs N] [--bytes N] [--routes N] [--random pairs|source] [--packets N]
//     [--repeat N] [--limit FLOWS]
//              [--trace N] [--drop] [--tagged] [--json]
//
// --drop: the ports are isolated from each other, so that every packet is dropped, because of a row.
//
// Two ports of one network, bursts of 32 from one and the other. Each packet gets a buffer of the pool and its bytes, as the
// vhost library does it; that is not measured. What is: forward_burst(), the egress queue, the counters, and the buffer's way
// back to the pool.
//
// --kind route: two networks and a router, whose ports' neighbours are static. --kind vxlan: a network, and an uplink with the
// tunnel's other end. l2v6, route6: the same in IPv6; vxlan6: the tunnel is in IPv6. --bytes: at least what the kind needs for
// the mark. --tagged: the ports are trunks, and frames have an 802.1Q tag. --trace: one packet in N is traced, as weirctl trace
// --sample 1/N does it.
//
// Prints cycles of the time stamp counter per packet, of the fastest and of the median repeat. The measured part is the
// function measured(), the same number of packets in every run, so that instructions can be counted:
//
//     valgrind --tool=callgrind --collect-atstart=no --toggle-collect=measured fastpath --repeat 1 --packets 20000
#include "clock.h"
#include "egress.h"
#include "forward.h"
#include "route_table.h"
#include "sampler.h"
#include "station.h"
#include "stage.h"
#include "worker.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_mempool.h>

#define POOL 8191
#define REPEATS 1000

static struct mix mix = {.flows = 64, .macs = 8, .bytes = 64, .routes = 16};
static uint64_t packets = 2000000;
static unsigned repeat = 9;
static struct flow_table_config table = {.limit = 1 << 20, .idle_ms = 10000};
static bool json, drop;
static uint32_t trace_every; // 0: no trace is on

static struct worker worker;
static struct rte_mempool *pool;
static uint8_t *frames[2]; // of both sides, FRAME_MAX apart
static uint32_t conversations, stride, next[2];
static uint64_t state = 0x9e3779b97f4a7c15ULL;
static uint64_t taken; // by the egress
static bool looking;   // at what it takes
static struct port_dev null_device[2];

static __attribute__((noreturn)) void fail(const char *what)
{
	fprintf(stderr, "fastpath: %s\n", what);
	exit(1);
}

// ---- a device that takes everything

static uint32_t one_queue(void *dev)
{
	return 1;
}

static unsigned no_caps(void *dev)
{
	return 0;
}

static uint16_t take(void *dev, uint16_t q, unsigned from, struct rte_mbuf **m, uint16_t n)
{
	taken += n;
	for (uint16_t i = 0; looking && i < n; i++) {
		const struct frame_mark *mark =
			rte_pktmbuf_mtod_offset(m[i], const struct frame_mark *, mix_headers(&mix, dev == &null_device[1]));
		const char *wrong = station_check(rte_pktmbuf_mtod(m[i], const uint8_t *), m[i]->pkt_len, &mix, !mark->side);

		if (wrong || mark->magic != rte_cpu_to_be_32(FRAME_MARK) || (dev == &null_device[1]) != !mark->side) {
			fprintf(stderr, "fastpath: a packet came out wrong: %s\n", wrong ? wrong : "the mark");
			exit(1);
		}
	}
	return n;
}

static const struct port_ops null_ops = {
	.type = "null", .rx_queues = one_queue, .tx_queues = one_queue, .caps = no_caps, .tx = take};
static struct port_dev null_device[2] = {{.ops = &null_ops, .dev = &null_device[0]},
					 {.ops = &null_ops, .dev = &null_device[1]}};

// ---- a tracer

static struct sampler sampler;
static struct trace traces[BURST];
static uint64_t traced;

static void trace_done(struct trace *t, void *arg)
{
	traced++;
}

static uint32_t mark(struct worker *w, struct tracer *tracer, uint16_t port, struct rte_mbuf **m, unsigned n, struct trace **t)
{
	uint32_t picked = sampler_pick(&sampler, n);

	for (uint32_t left = picked; left; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctz(left);

		t[i] = &traces[i];
		t[i]->done = trace_done;
		t[i]->refs = 1;
		t[i]->used = t[i]->lost = 0;
		t[i]->in_port = port;
		t[i]->wall = w->now;
	}
	return picked;
}

static void start_tracer(void)
{
	sampler_start(&sampler, trace_every, 1);
	worker.mark = mark;
	worker.tracer = (struct tracer *)&sampler; // nobody looks into it
	worker.watch = WATCH_TRACE;
}

// ---- the switch

// EAL's files: a folder of this process.
static char run_dir[] = "/tmp/fastpath.XXXXXX";

static void remove_run_dir(void)
{
	static const char *const part[] = {"dpdk/rte", "dpdk", ""};
	char path[64];

	for (unsigned i = 0; i < 3; i++) {
		snprintf(path, sizeof path, "%s/%s", run_dir, part[i]);
		rmdir(path);
	}
}

static void start_eal(void)
{
	char *argv[] = {(char[]){"fastpath"},
			(char[]){"--no-huge"},
			(char[]){"-m"},
			(char[]){"128"},
			(char[]){"--no-pci"},
			(char[]){"--no-telemetry"},
			(char[]){"--no-shconf"},
			(char[]){"--log-level=lib.eal:error"},
			(char[]){"--lcores"},
			NULL,
			NULL};
	cpu_set_t set;
	char cores[32] = "0";

	if (!mkdtemp(run_dir) || setenv("RUNTIME_DIRECTORY", run_dir, 1) || atexit(remove_run_dir))
		fail("no folder in /tmp");
	// One thread, which stays where the caller put it.
	sched_getaffinity(0, sizeof set, &set);
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (CPU_ISSET(i, &set)) {
			snprintf(cores, sizeof cores, "0@%d", i);
			break;
		}
	}
	argv[9] = cores;
	if (rte_eal_init(10, argv) < 0)
		fail(rte_strerror(rte_errno));
	sched_setaffinity(0, sizeof set, &set);
}

static void add_port(uint16_t id)
{
	struct lane *l = lane_create(id, id == 1 || id == 2 ? &null_device[id - 1] : NULL, SOCKET_ID_ANY);

	if (!l)
		fail("no memory for a port");
	worker.port[id] = &l->pw;
}

static struct config_network nets[2];
static struct config_port ports[4];
static struct config_router router = {.id = 1, .enabled = true, .row = {{3}}};
static struct config_router_port router_ports[2];
static struct config config = {.networks = nets, .ports = ports, .n_ports = 2};

static char *name_of(const char *prefix, unsigned i)
{
	char *text;

	if (asprintf(&text, "%s%u", prefix, i) < 0)
		fail("no memory");
	return text;
}

// Whether the links with a router or an end point of tunnels are IPv6.
static bool links_v6(void)
{
	return mix.kind == MIX_VXLAN ? mix.under6 : mix.v6;
}

static struct config_ip ip_of(uint32_t ip)
{
	struct config_ip c = {.v6 = links_v6()};

	frame_ip(c.b, c.v6, ip);
	return c;
}

// The gateways of a side, or the tunnel's other end, are static neighbours.
static void add_gateways(struct config_port *p, unsigned side)
{
	p->n_addresses = mix.kind == MIX_ROUTE ? mix.macs : 1;
	p->addresses = calloc(p->n_addresses, sizeof *p->addresses);
	for (uint32_t k = 0; k < p->n_addresses; k++) {
		struct config_address *a = &p->addresses[k];

		if (mix.kind == MIX_ROUTE)
			frame_mac(a->mac, side, k);
		else
			frame_vtep_mac(a->mac);
		a->ip = malloc(sizeof *a->ip);
		*a->ip = ip_of(frame_station_ip(side, k));
		a->n_ips = 1;
	}
}

static void add_router_port(unsigned side)
{
	struct config_port *p = &ports[2 + side];
	struct config_router_port *rp = &router_ports[side];
	static char type[] = "router";

	*p = (struct config_port){.row = {{4, (uint8_t)side}},
				  .name = name_of("r", side),
				  .id = (uint16_t)(side + 3),
				  .kind = PORT_ROUTER,
				  .type = type,
				  .enabled = true,
				  .network = nets[side].row};
	*rp = (struct config_router_port){.row = p->row,
					  .name = p->name,
					  .id = p->id,
					  .router_id = router.id,
					  .network_id = nets[side].id,
					  .router = router.row,
					  .network = nets[side].row,
					  .enabled = true,
					  .addresses = malloc(sizeof *rp->addresses),
					  .n_addresses = 1};
	frame_switch_mac(rp->mac, side);
	*rp->addresses = (struct config_prefix){.ip = ip_of(frame_switch_ip(side)), .len = (uint8_t)frame_link_len(links_v6())};
	add_gateways(&ports[side], side);
}

// Side 0 is a network with a VNI, side 1 that of the uplink.
static void add_tunnel(void)
{
	static char type[] = "tunnel", format[] = "vxlan";
	static struct config_ip ends[2];
	static struct config_remote remote = {.networks = &nets[0].row, .n_networks = 1};

	ends[0] = ip_of(frame_switch_ip(1));
	ends[1] = ip_of(FRAME_VTEP_IP);
	nets[0].vni = FRAME_VNI;
	nets[0].tunnel = format;
	nets[0].flood_to = &ends[1];
	nets[0].n_flood_to = 1;
	remote.ip = ends[1];
	remote.name = name_of("far", 0);
	config.tunnel_ips = &ends[0];
	config.n_tunnel_ips = 1;
	config.remotes = &remote;
	config.n_remotes = 1;
	ports[2] = (struct config_port){.row = {{5}},
					.name = remote.name,
					.id = 3,
					.kind = PORT_TUNNEL,
					.type = type,
					.enabled = true,
					.vlan_mode = VLAN_NETWORK_ID,
					.trunks = &nets[0].row,
					.n_trunks = 1,
					.remote = remote.ip};
}

static void configure(void)
{
	static char type[] = "vhost-user";

	config.n_networks = mix.kind ? 2 : 1;
	for (unsigned i = 0; i < config.n_networks; i++) {
		nets[i] = (struct config_network){
			.row = {{1, (uint8_t)i}},
			.name = name_of("net", i),
			.id = (uint16_t)(i + 1),
			.mtu = 1500,
			.vlan = (uint16_t)(mix.tagged ? FRAME_VLAN + i : 0),
			.learning = true,
			.flood_unknown = true,
			.ageing_s = 300,
			.mac_limit = 1 << 20,
			.flap_threshold = 5,
			.flap_window_s = 10,
			.flap_hold_s = 60,
		};
	}
	for (unsigned i = 0; i < 2; i++) {
		ports[i] = (struct config_port){
			.row = {{2, (uint8_t)i}},
			.name = name_of("p", i),
			.id = (uint16_t)(i + 1),
			.type = type,
			.enabled = true,
			.vlan_mode = mix.tagged ? VLAN_NATIVE_TAGGED : VLAN_ACCESS,
			.isolated = drop,
			.network = nets[mix.kind ? i : 0].row,
		};
	}
	if (!mix.kind)
		return;
	router.name = name_of("router", 0);
	config.routers = &router;
	config.n_routers = 1;
	config.router_ports = router_ports;
	config.n_ports = 4;
	if (mix.kind == MIX_ROUTE) {
		config.n_router_ports = 2;
		add_router_port(0);
	} else {
		config.router_ports++;
		config.n_router_ports = 1;
		add_tunnel();
	}
	add_router_port(1);
}

static void add_routes(void)
{
	for (unsigned side = 0; side < 2; side++) {
		for (uint32_t k = 0; k < mix_side_routes(&mix); k++) {
			struct frame_route r = frame_route(&mix, side, k);
			struct route_hop hop = {.weight = 1,
						.has_gateway = true,
						.by_address = true,
						.gateway = ip_of(frame_station_ip(side, r.gateway))};
			struct route_spec spec = {.prefix = {.ip = {.v6 = mix.v6}},
						  .source = ROUTE_FILE,
						  .type = ROUTE_UNICAST,
						  .n_hops = 1,
						  .hop = &hop};

			spec.prefix.len = (uint8_t)frame_prefix(spec.prefix.ip.b, mix.v6, &r);
			if (route_set(router.id, 0, &spec))
				fail("no room for the routes");
		}
	}
	route_commit();
}

static void start_switch(void)
{
	clock_init();
	key_init();
	if (rcu_init() || stages_init(stage_list, stage_list_n))
		fail("the stages don't start");
	forward_init();
	pool = pkt_pool_create("bench", POOL, SOCKET_ID_ANY);
	worker = (struct worker){
		.miss_limit = 256, .resolve_budget = 64, .pool = pool, .flush = egress_flush, .now = 1000000000000};
	worker.now_ms = (uint32_t)(worker.now / 1000000);
	worker.flows = flow_table_create(&table);
	worker.drops = drop_create();
	if (!pool || !worker.flows || !worker.drops)
		fail("no memory");
	configure();
	if (stages_reconcile(&config))
		fail("the configuration is refused");
	for (unsigned i = 0; i < config.n_ports; i++)
		if (ports[i].error)
			fail(ports[i].error);
	if (mix.kind == MIX_ROUTE)
		add_routes();
	for (uint16_t i = 0; i <= config.n_ports; i++)
		add_port(i);
	flow_table_set_ports(worker.flows, 2);
	for (unsigned i = 0; i < 100; i++) // what settles in the first second: ways of tunnels
		stages_tick(worker.now += 100000000);
	worker.now_ms = (uint32_t)(worker.now / 1000000);
	rcu_poll();
}

// ---- packets

static void build_frames(void)
{
	conversations = mix_conversations(&mix);
	stride = mix_stride(conversations);
	for (unsigned side = 0; side < 2; side++) {
		frames[side] = aligned_alloc(64, (size_t)conversations * RTE_ALIGN(mix_bytes(&mix, side), 64));
		if (!frames[side])
			fail("no memory for the frames");
		for (uint32_t c = 0; c < conversations; c++)
			frame_build(frames[side] + (size_t)c * RTE_ALIGN(mix_bytes(&mix, side), 64), &mix, c, side);
	}
}

static void take_burst(struct rte_mbuf **m, unsigned side, uint32_t step)
{
	if (rte_pktmbuf_alloc_bulk(pool, m, BURST))
		fail("the pool is empty: packets were lost");
	for (unsigned i = 0; i < BURST; i++) {
		memcpy(rte_pktmbuf_mtod(m[i], void *), frames[side] + (size_t)next[side] * RTE_ALIGN(mix_bytes(&mix, side), 64),
		       mix_bytes(&mix, side));
		m[i]->data_len = (uint16_t)mix_bytes(&mix, side);
		m[i]->pkt_len = m[i]->data_len;
		if (mix.random)
			frame_vary(rte_pktmbuf_mtod_offset(m[i], uint8_t *, mix_outer(&mix, side)), &mix, side, &state);
		next[side] = (uint32_t)(((uint64_t)next[side] + step) % conversations);
	}
}

static inline void run_burst(struct rte_mbuf **m, unsigned side)
{
	forward_burst(&worker, (uint16_t)(side + 1), m, BURST);
	worker_flush(&worker);
	if (side)
		worker_publish(&worker);
}

static __attribute__((noinline)) void measured(struct rte_mbuf **m, unsigned side)
{
	run_burst(m, side);
}

// The switch learns the addresses, and makes its flows, in an order that is not that of the measurement.
static void warm_up(void)
{
	struct rte_mbuf *m[BURST];
	uint32_t rounds = mix.random ? 4096 : 3 * (conversations / BURST + 1) + 64;

	for (uint32_t i = 0; i < rounds; i++) {
		for (unsigned side = 2; side-- > 0;) { // what is behind a tunnel is heard of before it is sent to
			take_burst(m, side, 1);
			run_burst(m, side);
		}
	}
	while (forward_misses(&worker, 1) + forward_misses(&worker, 2))
		;
	worker_flush(&worker);
	rcu_poll();
	looking = mix.kind != MIX_L2 && !drop;
	for (unsigned side = 0; side < 2; side++) {
		take_burst(m, side, stride);
		run_burst(m, side);
	}
	looking = false;
}

// Cycles per packet.
static double run_once(void)
{
	struct rte_mbuf *m[BURST];
	uint64_t bursts = (packets + BURST - 1) / BURST, cycles = 0;

	for (uint64_t i = 0; i < bursts; i++) {
		unsigned side = i & 1;

		take_burst(m, side, stride);
		uint64_t start = rte_rdtsc_precise();
		measured(m, side);
		cycles += rte_rdtsc_precise() - start;
		worker.now += 1000;
	}
	worker.now_ms = (uint32_t)(worker.now / 1000000);
	return (double)cycles / (double)(bursts * BURST);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

// ----

static unsigned number(const char *text, unsigned lo, unsigned hi)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*end || n < lo || n > hi) {
		fprintf(stderr, "fastpath: \"%s\" is no number from %u to %u\n", text, lo, hi);
		exit(2);
	}
	return (unsigned)n;
}

static void parse_options(int argc, char *argv[])
{
	static const struct option known[] = {
		{"flows", required_argument, NULL, 'f'},   {"kind", required_argument, NULL, 'k'},
		{"routes", required_argument, NULL, 'R'},  {"macs", required_argument, NULL, 'm'},
		{"bytes", required_argument, NULL, 'b'},   {"random", required_argument, NULL, 'r'},
		{"packets", required_argument, NULL, 'p'}, {"repeat", required_argument, NULL, 'n'},
		{"limit", required_argument, NULL, 'l'},   {"trace", required_argument, NULL, 't'},
		{"json", no_argument, NULL, 'j'},          {"drop", no_argument, NULL, 'd'},
		{"tagged", no_argument, NULL, 'T'},        {NULL, 0, NULL, 0},
	};

	for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
		if (c == 'f')
			mix.flows = number(optarg, 2, 1 << 24);
		else if (c == 'm')
			mix.macs = number(optarg, 0, 1 << 20);
		else if (c == 'k' && mix_set_kind(&mix, optarg))
			continue;
		else if (c == 'R')
			mix.routes = number(optarg, 4, 1 << 20);
		else if (c == 'b')
			mix.bytes = number(optarg, FRAME_MIN, FRAME_MAX);
		else if (c == 'r' && (!strcmp(optarg, "pairs") || !strcmp(optarg, "source")))
			mix.random = optarg[0] == 'p' ? MIX_PAIRS : MIX_SOURCE;
		else if (c == 'p')
			packets = number(optarg, 1, 1u << 31);
		else if (c == 'n')
			repeat = number(optarg, 1, REPEATS);
		else if (c == 'l')
			table.limit = number(optarg, 1024, 1 << 24);
		else if (c == 't')
			trace_every = number(optarg, 1, 1000000000);
		else if (c == 'd')
			drop = true;
		else if (c == 'T')
			mix.tagged = true;
		else if (c == 'j')
			json = true;
		else
			fail("see the head of fastpath.c for its options");
	}
	if (mix.tagged && mix.kind == MIX_VXLAN)
		fail("--tagged is not for tunnels");
	if (mix.bytes < mix_least(&mix))
		mix.bytes = mix_least(&mix);
	if (!mix.macs) // one pair of addresses for each conversation
		mix.macs = mix_root(mix_conversations(&mix));
}

int main(int argc, char *argv[])
{
	static double result[REPEATS];
	struct flow_table_stats flows;
	struct counts sum = {0};

	parse_options(argc, argv);
	start_eal();
	start_switch();
	build_frames();
	warm_up();
	if (trace_every)
		start_tracer();
	uint64_t before = taken;
	for (unsigned i = 0; i < repeat; i++)
		result[i] = run_once();
	worker_publish(&worker);
	qsort(result, repeat, sizeof *result, by_value);
	flow_table_stats(worker.flows, &flows);
	for (unsigned i = 1; i <= 2; i++)
		count_read(&worker.port[i]->counts, &sum);
	double all = (double)(repeat * ((packets + BURST - 1) / BURST * BURST));
	const char *format =
		json ? "{\"cycles_best\": %.2f, \"cycles_median\": %.2f, \"packets\": %.0f, \"forwarded\": %" PRIu64
		       ", \"flows\": %u, \"resolved\": %" PRIu64 ", \"dropped\": %" PRIu64 ", \"traced\": %" PRIu64 "}\n"
		     : "%.1f cycles per packet (best), %.1f (median); %.0f packets, %" PRIu64 " forwarded, %u flows, %" PRIu64
		       " resolved, %" PRIu64 " dropped, %" PRIu64 " traced\n";
	printf(format, result[0], result[repeat / 2], all, taken - before, flows.flows, sum.c[COUNT_RESOLVED],
	       sum.c[COUNT_DROPPED], traced);
	return 0;
}
