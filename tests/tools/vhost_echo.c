// vhost_echo: vhost/ without the switch: one worker that sends every packet back to the port and queue that it came from.
//
//     vhost_echo [EAL options]
//
// Lines on stdin are commands; each is answered by one line, "ok ..." or "error SENTENCE":
//
//     open NAME PATH [server] [packed] [nocsum] [notso] [queues=N] [rings=FILE] [mode=OCTAL] [owner=USER] [group=GROUP]
//     reconfigure NAME PATH ...      as open
//     close NAME
//     status NAME                    ok {json of struct vhost_status, and the queues enabled}
//     sleep on|off                   whether the worker waits for kicks when it has nothing to do (on); off: it only naps
//     worker                         ok {json: packets, sleeps, wakes, loops}
//     quit
//
// A worker that finds nothing for a millisecond arms all queues and waits in epoll, offline for RCU, as the switch's workers
// do.
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_ether.h>
#include <rte_mbuf.h>
#include <rte_net.h>
#include <rte_rcu_qsbr.h>

#include "vhost.h"

#define PORTS 1024
#define BURST 32
#define IDLE_ROUNDS 20 // of 50 us each, before the worker sleeps

struct slot {
	char name[32];
	struct vhost_port *port;   // published to the worker
	int fds[VHOST_MAX_QUEUES]; // duplicates of the kick descriptors
};

static struct slot slots[PORTS];
static struct rte_rcu_qsbr *rcu;
static struct rte_mempool *pool;
static int epoll_fd, wake_fd, main_fd;
static bool may_sleep = true, stop;
static uint64_t packets, sleeps, wakes, loops; // the worker's

static void on_changed(void *arg)
{
	eventfd_write(main_fd, 1);
	eventfd_write(wake_fd, 1);
}

static void on_quiesce(void *arg)
{
	eventfd_write(wake_fd, 1);
	rte_rcu_qsbr_synchronize(rcu, RTE_QSBR_THRID_INVALID);
}

// The library gives RX flags and no lengths; sending wants TX flags and lengths.
static void to_tx(struct rte_mbuf *m)
{
	bool partial = m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_NONE, large = m->ol_flags & RTE_MBUF_F_RX_LRO;
	struct rte_net_hdr_lens lens;
	uint32_t type;

	m->ol_flags = 0;
	if (!partial)
		return;
	type = rte_net_get_ptype(m, &lens, RTE_PTYPE_ALL_MASK);
	m->l2_len = lens.l2_len;
	m->l3_len = lens.l3_len;
	m->l4_len = lens.l4_len;
	m->ol_flags |= RTE_ETH_IS_IPV4_HDR(type) ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6;
	m->ol_flags |= (type & RTE_PTYPE_L4_MASK) == RTE_PTYPE_L4_TCP ? RTE_MBUF_F_TX_TCP_CKSUM : RTE_MBUF_F_TX_UDP_CKSUM;
	if (large)
		m->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
}

static unsigned int echo(struct vhost_port *port, uint16_t q)
{
	struct rte_mbuf *burst[BURST];
	uint16_t n = vhost_rx(port, q, pool, burst, BURST);

	for (uint16_t i = 0; i < n; i++) {
		struct rte_ether_hdr *eth = rte_pktmbuf_mtod(burst[i], struct rte_ether_hdr *);
		struct rte_ether_addr address = eth->src_addr;

		eth->src_addr = eth->dst_addr;
		eth->dst_addr = address;
		to_tx(burst[i]);
	}
	vhost_tx(port, q, burst, n);
	rte_pktmbuf_free_bulk(burst, n);
	return n;
}

// Arms every queue; false if one has packets or can't be armed.
static bool arm_all(bool on)
{
	bool armed = true;

	for (unsigned int i = 0; i < PORTS; i++) {
		struct vhost_port *port = __atomic_load_n(&slots[i].port, __ATOMIC_ACQUIRE);

		for (uint32_t bits = port ? vhost_rx_enabled(port) : 0; bits; bits &= bits - 1) {
			int status = vhost_rx_arm(port, __builtin_ctz(bits), on);

			if (on && status && status != -ENODEV)
				armed = false;
		}
	}
	return armed;
}

static void wait_for_kick(void)
{
	struct epoll_event events[16];
	eventfd_t count;

	if (!arm_all(true)) {
		arm_all(false);
		return;
	}
	sleeps++;
	rte_rcu_qsbr_thread_offline(rcu, 0);
	if (epoll_wait(epoll_fd, events, RTE_DIM(events), 1000) > 0)
		wakes++;
	eventfd_read(wake_fd, &count);
	rte_rcu_qsbr_thread_online(rcu, 0);
	arm_all(false);
}

static void *work(void *arg)
{
	const struct timespec nap = {.tv_nsec = 50000};
	unsigned int idle = 0;

	rte_rcu_qsbr_thread_register(rcu, 0);
	rte_rcu_qsbr_thread_online(rcu, 0);
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		unsigned int got = 0;

		for (unsigned int i = 0; i < PORTS; i++) {
			struct vhost_port *port = __atomic_load_n(&slots[i].port, __ATOMIC_ACQUIRE);

			for (uint32_t bits = port ? vhost_rx_enabled(port) : 0; bits; bits &= bits - 1)
				got += echo(port, __builtin_ctz(bits));
		}
		packets += got;
		loops++;
		rte_rcu_qsbr_quiescent(rcu, 0);
		idle = got ? 0 : idle + 1;
		if (idle > IDLE_ROUNDS && __atomic_load_n(&may_sleep, __ATOMIC_RELAXED))
			wait_for_kick();
		else if (idle)
			nanosleep(&nap, NULL);
	}
	rte_rcu_qsbr_thread_offline(rcu, 0);
	rte_rcu_qsbr_thread_unregister(rcu, 0);
	return NULL;
}

static void forget_fd(int *fd)
{
	if (*fd >= 0) {
		epoll_ctl(epoll_fd, EPOLL_CTL_DEL, *fd, NULL);
		close(*fd);
	}
	*fd = -1;
}

static void watch_fds(struct slot *slot)
{
	for (uint16_t q = 0; q < VHOST_MAX_QUEUES; q++) {
		int fd = slot->port ? vhost_rx_fd(slot->port, q) : -1;

		forget_fd(&slot->fds[q]);
		if (fd >= 0) {
			struct epoll_event event = {.events = EPOLLIN};

			slot->fds[q] = dup(fd);
			epoll_ctl(epoll_fd, EPOLL_CTL_ADD, slot->fds[q], &event);
		}
	}
	eventfd_write(wake_fd, 1);
}

static struct slot *find(const char *name)
{
	for (unsigned int i = 0; i < PORTS; i++) {
		if (slots[i].port && !strcmp(slots[i].name, name))
			return &slots[i];
	}
	return NULL;
}

static struct slot *unused(void)
{
	for (unsigned int i = 0; i < PORTS; i++) {
		if (!slots[i].port)
			return &slots[i];
	}
	return NULL;
}

static void parse_config(char *words, struct vhost_config *config)
{
	char *word, *save = NULL;

	*config = (struct vhost_config){.queues = 1, .csum = true, .tso = true};
	config->name = strtok_r(words, " ", &save);
	config->path = strtok_r(NULL, " ", &save);
	while ((word = strtok_r(NULL, " ", &save))) {
		char *value = strchr(word, '=');

		value = value ? value + 1 : word;
		if (!strcmp(word, "server"))
			config->server = true;
		else if (!strcmp(word, "packed"))
			config->packed = true;
		else if (!strcmp(word, "nocsum"))
			config->csum = false;
		else if (!strcmp(word, "notso"))
			config->tso = false;
		else if (!strncmp(word, "queues=", 7))
			config->queues = atoi(value);
		else if (!strncmp(word, "rings=", 6))
			config->rings = value;
		else if (!strncmp(word, "mode=", 5))
			config->mode = strtoul(value, NULL, 8);
		else if (!strncmp(word, "owner=", 6))
			config->owner = value;
		else if (!strncmp(word, "group=", 6))
			config->group = value;
	}
}

static void do_open(char *words, bool again)
{
	const struct vhost_hooks hooks = {on_changed, on_quiesce, NULL};
	struct vhost_config config;
	struct slot *slot;
	struct vhost_port *port;
	char *error = NULL;
	int status;

	parse_config(words, &config);
	slot = again ? find(config.name) : unused();
	if (!slot) {
		printf("error no such port\n");
		return;
	}
	status = again ? vhost_reconfigure(slot->port, &config, &error) : vhost_open(&config, &hooks, &port, &error);
	if (status < 0) {
		printf("error %s\n", error ? error : strerror(-status));
		free(error);
		return;
	}
	if (!again) {
		snprintf(slot->name, sizeof(slot->name), "%s", config.name);
		__atomic_store_n(&slot->port, port, __ATOMIC_RELEASE);
		watch_fds(slot);
	}
	printf("ok\n");
}

static void do_close(struct slot *slot)
{
	struct vhost_port *port = slot->port;

	__atomic_store_n(&slot->port, NULL, __ATOMIC_RELEASE);
	on_quiesce(NULL);
	watch_fds(slot);
	vhost_close(port);
}

static void print_status(struct vhost_port *port)
{
	struct vhost_status s;

	vhost_status(port, &s);
	printf("ok {\"connected\": %s, \"running\": %s, \"legacy\": %s, \"features\": %" PRIu64
	       ", \"rx_queues\": %u, \"tx_queues\": %u, "
	       "\"rx_enabled\": %u, \"tx_enabled\": %u, \"numa\": %d, \"connects\": %u, \"mtu\": %u, \"rx_errors\": %" PRIu64
	       ", \"problem\": \"%s\"}\n",
	       s.connected ? "true" : "false", s.running ? "true" : "false", s.virtio_net_legacy ? "true" : "false", s.features,
	       s.rx_queues, s.tx_queues, vhost_rx_enabled(port), vhost_tx_enabled(port), s.numa_node, s.connects, s.mtu, s.rx_errors,
	       s.problem);
}

// False on quit.
static bool command(char *line)
{
	char *word = strsep(&line, " ");
	struct slot *slot = line ? find(line) : NULL;

	if (!strcmp(word, "quit"))
		return false;
	if ((!strcmp(word, "open") || !strcmp(word, "reconfigure")) && line) {
		do_open(line, word[0] == 'r');
	} else if (!strcmp(word, "sleep") && line) {
		__atomic_store_n(&may_sleep, !strcmp(line, "on"), __ATOMIC_RELAXED);
		printf("ok\n");
	} else if (!strcmp(word, "worker")) {
		printf("ok {\"packets\": %" PRIu64 ", \"sleeps\": %" PRIu64 ", \"wakes\": %" PRIu64 ", \"loops\": %" PRIu64
		       "}\n",
		       packets, sleeps, wakes, loops);
	} else if (!slot) {
		printf("error no such port or command: %s\n", word);
	} else if (!strcmp(word, "close")) {
		do_close(slot);
		printf("ok\n");
	} else if (!strcmp(word, "status")) {
		print_status(slot->port);
	} else {
		printf("error no such command: %s\n", word);
	}
	return true;
}

static void setup(int argc, char **argv)
{
	struct epoll_event event = {.events = EPOLLIN};

	if (rte_eal_init(argc, argv) < 0)
		exit(1);
	pool = rte_pktmbuf_pool_create("packets", 8191, 250, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	rcu = aligned_alloc(RTE_CACHE_LINE_SIZE, rte_rcu_qsbr_get_memsize(1));
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	main_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (!pool || !rcu || epoll_fd < 0 || wake_fd < 0 || main_fd < 0)
		exit(1);
	rte_rcu_qsbr_init(rcu, 1);
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, wake_fd, &event);
	for (unsigned int i = 0; i < PORTS; i++) {
		for (unsigned int q = 0; q < VHOST_MAX_QUEUES; q++)
			slots[i].fds[q] = -1;
	}
}

static void serve(void)
{
	struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = main_fd, .events = POLLIN}};
	char line[1024];
	eventfd_t count;

	for (;;) {
		poll(fds, 2, -1);
		if (eventfd_read(main_fd, &count) == 0) {
			for (unsigned int i = 0; i < PORTS; i++)
				watch_fds(&slots[i]);
		}
		if (!fds[0].revents)
			continue;
		// One line is sent at a time, and the next only when the answer has come: the buffer never holds a second one.
		if (!fgets(line, sizeof(line), stdin))
			return;
		line[strcspn(line, "\n")] = '\0';
		if (!command(line))
			return;
	}
}

int main(int argc, char **argv)
{
	pthread_t worker;

	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	setup(argc, argv);
	if (pthread_create(&worker, NULL, work, NULL))
		return 1;
	printf("ok ready\n");
	serve();
	for (unsigned int i = 0; i < PORTS; i++) {
		if (slots[i].port)
			do_close(&slots[i]);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	on_changed(NULL);
	pthread_join(worker, NULL);
	rte_mempool_free(pool);
	free(rcu);
	rte_eal_cleanup();
	return 0;
}
