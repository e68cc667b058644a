// weir-vswitchd: start-up, the main loop, the end.
#include "capture.h"
#include "clock.h"
#include "control.h"
#include "db.h"
#include "export.h"
#include "flight.h"
#include "forward.h"
#include "key.h"
#include "load.h"
#include "link_mtu.h"
#include "lldp_port.h"
#include "metrics.h"
#include "pages.h"
#include "port.h"
#include "port_watch.h"
#include "punt.h"
#include "reconcile.h"
#include "route_load.h"
#include "route_table.h"
#include "router_table.h"
#include "tunnel_mtu.h"
#include "rcu.h"
#include "stack.h"
#include "station_file.h"
#include "stage.h"
#include "thread.h"
#include "uplink.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>

#define TICK_MS 100
#define PROBE_MS 1000
#define STATE_MS 1000
#define READY_MS 5000 // systemd is told that long after the start at the latest, so that a missing database doesn't fail the unit

struct options {
	const char *db, *rundir, *logdir, *host;
	const char *private_key, *certificate, *ca_cert;
	int huge; // 1: yes, 0: no, -1: if there are any
	unsigned memory_mb;
	bool no_pci;
	bool log_stderr, log_json;
};

static int wake_fd = -1; // rung by other threads

static void ring_main(void)
{
	uint64_t one = 1;

	if (wake_fd >= 0 && write(wake_fd, &one, sizeof one) < 0)
		return; // it can only be full, and then it rings already
}

static __attribute__((noreturn, format(printf, 1, 2))) void die(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fputs("weir-vswitchd: ", stderr);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

static void usage(void)
{
	printf("weir-vswitchd: the switch\n"
	       "usage: weir-vswitchd [OPTION]...\n"
	       "  --db REMOTE      database, such as unix:/run/weir/db.sock or tcp:10.0.0.1:6640,tcp:10.0.0.2:6640\n"
	       "  --rundir DIR     run directory: control socket, pid file, sockets of ports (default /run/weir)\n"
	       "  --logdir DIR     directory of weir-vswitchd.log (default /var/log/weir)\n"
	       "  --host NAME      name of this switch in table Host (default: the host's name)\n"
	       "  --huge           use hugepages, and fail without (default: if there are some free)\n"
	       "  --no-huge        use ordinary memory\n"
	       "  --memory MB      memory for packet buffers and tables at most (default 2048)\n"
	       "  --private-key FILE, --certificate FILE, --ca-cert FILE\n"
	       "                   for a database remote of kind ssl: (PEM)\n"
	       "  --no-pci         leave PCI devices alone\n"
	       "  --log-stderr     log to standard error too\n"
	       "  --log-format FORMAT\n"
	       "                   text (the default), or json: an object a line\n"
	       "  --version, --help\n");
}

static struct options parse_options(int argc, char *argv[])
{
	enum { DB = 1, RUNDIR, LOGDIR, HOST, HUGE, NO_HUGE, MEMORY, NO_PCI, LOG_STDERR, LOG_FORMAT, KEY, CERT, CA, VERSION, HELP };
	static const struct option known[] = {
		{"db", required_argument, NULL, DB},         {"rundir", required_argument, NULL, RUNDIR},
		{"logdir", required_argument, NULL, LOGDIR}, {"host", required_argument, NULL, HOST},
		{"huge", no_argument, NULL, HUGE},           {"no-huge", no_argument, NULL, NO_HUGE},
		{"memory", required_argument, NULL, MEMORY}, {"no-pci", no_argument, NULL, NO_PCI},
		{"log-stderr", no_argument, NULL, LOG_STDERR}, {"log-format", required_argument, NULL, LOG_FORMAT},
		{"version", no_argument, NULL, VERSION},
		{"private-key", required_argument, NULL, KEY}, {"certificate", required_argument, NULL, CERT},
		{"ca-cert", required_argument, NULL, CA},    {"help", no_argument, NULL, HELP},
		{NULL, 0, NULL, 0},
	};
	static char host[HOST_NAME_MAX + 1];
	struct options o = {.db = "unix:/run/weir/db.sock", .rundir = "/run/weir", .logdir = "/var/log/weir", .huge = -1, .memory_mb = 2048};
	int c;

	gethostname(host, sizeof host - 1);
	o.host = host;
	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (c) {
		case DB:
			o.db = optarg;
			break;
		case RUNDIR:
			o.rundir = optarg;
			break;
		case LOGDIR:
			o.logdir = optarg;
			break;
		case HOST:
			o.host = optarg;
			break;
		case HUGE:
			o.huge = 1;
			break;
		case NO_HUGE:
			o.huge = 0;
			break;
		case MEMORY: {
			char *end;
			unsigned long mb = strtoul(optarg, &end, 10);

			if (*end || mb < 128 || mb > 1 << 20)
				die("--memory wants megabytes from 128 to 1048576, not \"%s\"", optarg);
			o.memory_mb = (unsigned)mb;
			break;
		}
		case NO_PCI:
			o.no_pci = true;
			break;
		case LOG_STDERR:
			o.log_stderr = true;
			break;
		case LOG_FORMAT:
			o.log_json = !strcmp(optarg, "json");
			if (!o.log_json && strcmp(optarg, "text"))
				die("--log-format is text or json, not \"%s\"", optarg);
			break;
		case KEY:
			o.private_key = optarg;
			break;
		case CERT:
			o.certificate = optarg;
			break;
		case CA:
			o.ca_cert = optarg;
			break;
		case VERSION:
			printf("weir-vswitchd %s\n", WEIR_VERSION);
			exit(0);
		case HELP:
			usage();
			exit(0);
		default:
			fprintf(stderr, "Try weir-vswitchd --help.\n");
			exit(1);
		}
	}
	if (optind < argc)
		die("\"%s\" is no option; try --help", argv[optind]);
	if (o.rundir[0] != '/' || o.logdir[0] != '/')
		die("--rundir and --logdir want absolute paths");
	return o;
}

static void make_folder(const char *path)
{
	if (mkdir(path, 0755) && errno != EEXIST)
		die("can't make %s: %s", path, strerror(errno));
}

// One switch per run directory. The lock goes with the process, however it ends.
static int take_pidfile(const char *rundir)
{
	char path[PATH_MAX], text[32];

	snprintf(path, sizeof path, "%s/weir-vswitchd.pid", rundir);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		die("can't write %s: %s", path, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		ssize_t n = read(fd, text, sizeof text - 1);

		text[n > 0 ? n : 0] = 0;
		text[strcspn(text, "\n")] = 0;
		die("another switch runs with %s as its run directory (process %s): end it, or give this one another --rundir", rundir, text);
	}
	int n = snprintf(text, sizeof text, "%d\n", getpid());
	if (ftruncate(fd, 0) || write(fd, text, (size_t)n) != n)
		die("can't write %s: %s", path, strerror(errno));
	return fd;
}

static unsigned long free_hugepages(void)
{
	unsigned long n = 0;
	FILE *f = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "r");

	if (f) {
		if (fscanf(f, "%lu", &n) != 1)
			n = 0;
		fclose(f);
	}
	return n;
}

static bool want_hugepages(const struct options *o)
{
	if (o->huge >= 0)
		return o->huge;
	return free_hugepages() * 2 >= 256; // enough to be of use
}

// DPDK's log goes where ours does.
static ssize_t eal_log(void *cookie, const char *text, size_t n)
{
	int level = rte_log_cur_msg_loglevel();
	size_t len = n && text[n - 1] == '\n' ? n - 1 : n;

	log_line(level <= (int)RTE_LOG_ERR ? 'e' : level <= (int)RTE_LOG_WARNING ? 'w' : level <= (int)RTE_LOG_NOTICE ? 'i' : 'd', "dpdk", "%.*s", (int)len, text);
	return (ssize_t)n;
}

static void start_eal(const struct options *o)
{
	static char lcores[64], memory[32], prefix[32]; // EAL keeps pointers
	char *argv[24];
	int argc = 0;
	cookie_io_functions_t io = {.write = eal_log};
	FILE *log = fopencookie(NULL, "w", io);
	cpu_set_t allowed;

	if (log) {
		setvbuf(log, NULL, _IOLBF, 0);
		rte_openlog_stream(log);
	}
	setenv("RUNTIME_DIRECTORY", o->rundir, 1); // for DPDK's own files
	sched_getaffinity(0, sizeof allowed, &allowed);
	int first = 0;
	while (first < CPU_SETSIZE && !CPU_ISSET(first, &allowed))
		first++;
	snprintf(lcores, sizeof lcores, "0@%d", first);
	snprintf(memory, sizeof memory, "%u", o->memory_mb);
	snprintf(prefix, sizeof prefix, "weir-%d", getpid());
	argv[argc++] = (char *)(uintptr_t)"weir-vswitchd";
	argv[argc++] = (char *)(uintptr_t)"--lcores";
	argv[argc++] = lcores;
	argv[argc++] = (char *)(uintptr_t)"--iova-mode=va";
	argv[argc++] = (char *)(uintptr_t)"--file-prefix";
	argv[argc++] = prefix;
	argv[argc++] = (char *)(uintptr_t)"--log-level=lib.vhost:warning";
	// It complains of qdiscs that only rte_flow on a TAP would need, and of a legacy socket that nobody wants.
	argv[argc++] = (char *)(uintptr_t)"--log-level=pmd.net.tap:critical";
	argv[argc++] = (char *)(uintptr_t)"--log-level=lib.telemetry:error";
	if (want_hugepages(o)) {
		argv[argc++] = (char *)(uintptr_t)"--in-memory";
	} else {
		argv[argc++] = (char *)(uintptr_t)"--no-huge";
		argv[argc++] = (char *)(uintptr_t)"--no-shconf";
		argv[argc++] = (char *)(uintptr_t)"-m";
		argv[argc++] = memory;
	}
	if (o->no_pci)
		argv[argc++] = (char *)(uintptr_t)"--no-pci";
	if (rte_eal_init(argc, argv) < 0)
		die("DPDK could not be started: %s (see the log in %s)", rte_strerror(rte_errno), o->logdir);
	// EAL pins its main thread; ours, which does no packet work, goes where there is room.
	sched_setaffinity(0, sizeof allowed, &allowed);
}

// systemd's protocol of Type=notify (sd_notify(3)): one datagram.
static void tell_systemd(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	if (!path || strlen(path) >= sizeof a.sun_path)
		return;
	memcpy(a.sun_path, path, strlen(path));
	if (a.sun_path[0] == '@')
		a.sun_path[0] = 0;
	int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (s < 0)
		return;
	if (sendto(s, text, strlen(text), 0, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path))) < 0)
		log_line('w', "main", "systemd could not be told: %s", strerror(errno));
	close(s);
}

// A vhost-user port takes about eight descriptors.
static void raise_descriptor_limit(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r))
		return;
	r.rlim_cur = r.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &r))
		log_line('w', "main", "the limit of open files could not be raised: %s", strerror(errno));
}

static int watch_signals(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL); // before any thread is made, so that all inherit it
	return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

static bool asked_to_end(int signal_fd)
{
	struct signalfd_siginfo info;

	while (read(signal_fd, &info, sizeof info) == sizeof info) {
		if (info.ssi_signo != SIGHUP)
			return true;
		log_reopen();
	}
	return false;
}

struct timers {
	long long start, tick, probe, state, balance, stats;
};

static bool due(long long *at, long long now, long long interval)
{
	if (now < *at)
		return false;
	*at = now + interval;
	return true;
}

static long long balance_interval = 10000;
static long long stats_interval = 5000;

static void note_intervals(const struct config *c)
{
	const char *bad = NULL;

	balance_interval = config_map_bool(&c->other_config, "rebalance", true)
				   ? (long long)config_map_uint(&c->other_config, "rebalance-interval", 10, 1, 3600, &bad) * 1000
				   : LLONG_MAX / 2;
	stats_interval = (long long)config_map_uint(&c->other_config, "stats-interval", 5000, 100, 3600000, &bad);
}

static void run_once(struct db *db, struct timers *t, bool *notified)
{
	long long now = loop_msec();
	struct config *c = db_run(db);
	uint64_t count;

	if (read(wake_fd, &count, sizeof count) < 0 && errno != EAGAIN)
		log_line('w', "main", "wake-up: %s", strerror(errno));
	if (c) {
		note_intervals(c);
		reconcile(c, db);
		if (route_rows_wanted())
			db_again(db);
	}
	if (!*notified && (c || now - t->start > READY_MS)) {
		tell_systemd(c ? "READY=1" : "READY=1\nSTATUS=waits for its database");
		*notified = true;
	}
	bool changed = port_run(now);
	changed |= uplink_run(clock_ns());
	if (changed) {
		thread_assign(false);
		reconcile_report(db, false);
	}
	stack_run();
	control_run();
	pages_run();
	metrics_run(now);
	capture_run();
	export_run(now);
	route_load_run();
	if (due(&t->tick, now, TICK_MS)) {
		stages_tick(clock_ns());
		if (router_table_stale() || tunnel_mtu_stale())
			db_again(db);
		port_watch_tick();
		station_file_run(now, false);
		tracer_run(now);
		ledger_run(now);
	}
	if (due(&t->probe, now, PROBE_MS)) {
		thread_probe_wakeup();
		log_run(false);
		flight_watch();
	}
	if (due(&t->state, now, STATE_MS)) {
		reconcile_report(db, due(&t->stats, now, stats_interval));
		if (link_mtu_changed())
			db_again(db);
	}
	if (due(&t->balance, now, balance_interval))
		thread_assign(true);
	rcu_poll();
}

static void main_loop(struct db *db, int signal_fd)
{
	struct timers t = {.start = loop_msec()};
	bool notified = false;

	while (!asked_to_end(signal_fd)) {
		run_once(db, &t, &notified);
		db_wait(db);
		uplink_wait();
		control_wait();
		pages_wait();
		route_load_wait();
		if (export_next() != LLONG_MAX)
			loop_wait_until(export_next());
		loop_wait_fd(signal_fd);
		loop_wait_fd(wake_fd);
		loop_wait_until(t.tick);
		if (port_next() != LLONG_MAX)
			loop_wait_until(port_next());
		loop_block();
	}
}

int main(int argc, char *argv[])
{
	struct options o = parse_options(argc, argv);
	char path[PATH_MAX];
	char *error = NULL;

	make_folder(o.rundir);
	make_folder(o.logdir);
	int pid_fd = take_pidfile(o.rundir);
	snprintf(path, sizeof path, "%s/weir-vswitchd.log", o.logdir);
	log_open(path, o.log_stderr, o.log_json);
	int signal_fd = watch_signals();
	wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (signal_fd < 0 || wake_fd < 0)
		die("no descriptors: %s", strerror(errno));
	raise_descriptor_limit();
	start_eal(&o);
	clock_init();
	key_init();
	int rc = rcu_init();
	if (!rc)
		rc = stages_init(stage_list, stage_list_n);
	if (rc)
		die("the pipeline could not be set up: %s", strerror(-rc));
	forward_init();
	port_init(o.rundir, ring_main);
	stack_init(ring_main);
	station_file_init(o.rundir);
	snprintf(path, sizeof path, "%s/weir-vswitchd.ctl", o.rundir);
	if (control_open(path, &error))
		die("%s", error ? error : "the control socket could not be opened");
	if (o.private_key || o.certificate || o.ca_cert) {
		if (!o.private_key || !o.certificate || !o.ca_cert)
			die("--private-key, --certificate and --ca-cert are wanted together");
		db_set_ssl(o.private_key, o.certificate, o.ca_cert);
	}
	struct db *db = db_open(o.db, o.host);
	verbs_init();
	ledger_init(db);
	uplink_init(o.host, ring_main);
	metrics_init(db, o.rundir, ring_main);
	load_verbs_init();
	route_load_init();
	flight_init();
	top_init();
	tracer_init();
	log_verbs_init();
	capture_init(o.rundir, ring_main);
	if (explain_init())
		die("out of memory");
	why_init();
	log_event('i', "main", LOG_FIELDS({"version", WEIR_VERSION}, {"host", o.host}, {"database", o.db}, {"control", path}), "weir-vswitchd runs");
	main_loop(db, signal_fd);
	log_line('i', "main", "weir-vswitchd ends");
	tell_systemd("STOPPING=1");
	metrics_close();
	tracer_stop_all();
	capture_stop_all();
	export_stop(); // while its flows are still there
	ledger_end();
	lldp_port_close();
	station_file_run(0, true);
	stack_stop();
	port_close_all();
	uplink_close();
	thread_stop_all();
	export_close();
	route_load_stop();
	pages_stop();
	control_close();
	db_close(db);
	topology_clear();
	punt_fini();
	stages_fini();
	rcu_fini();
	snprintf(path, sizeof path, "%s/weir-vswitchd.pid", o.rundir);
	unlink(path);
	close(pid_fd);
	log_run(true);
	rte_eal_cleanup();
	return 0;
}
