// vguest: a guest without a virtual machine, for tests: virtio-user ports that are driven by lines on stdin.
//
//     vguest [EAL options] -- [--bridge-tap NAME] PORT...
//
// PORT is name=value,... : path=SOCKET (needed), server=1 (listen, as QEMU does by default), queues=N, use=N (queues that the
// driver switches on at first, default all), packed=1, mrg=0, in_order=0, size=N (descriptors), mac=A:B.., offload=0 (negotiate
// no checksum and TSO features; default 1, 0 with --bridge-tap). A port in server mode waits for the switch; "ready" is
// printed when all ports are there.
//
// Each line on stdin is a command and is answered by one line, "ok ..." or "error SENTENCE" (after `rx` N more lines follow):
//
//     tx PORT QUEUE HEX [csum=START:OFFSET] [tso=MSS:HEADERS] [times=N]
//                          send a frame; csum: partial checksum, summed from START, stored at START+OFFSET (6: UDP, 16: TCP);
//                          tso: with HEADERS bytes of headers (needs csum)
//     bad PORT QUEUE [N]   make N chains of descriptors available that hold no packet, only the header that goes before one
//     rx PORT [MAX]        ok N, then N lines "QUEUE FLAGS MSS HEX" of the frames received and not read yet; FLAGS is - or some
//                          of p (partial checksum), v (checksum valid), l (large: MSS counts)
//     capture PORT on|off  keep received frames for rx (on; 4,096 at most, the rest is only counted)
//     count PORT           ok {json: rx, rx_bytes, tx, tx_full, left, kept, rxq: [...], gap_us, poll_us, held_us}; gap_us: longest
//                          time without a received packet, since one was, poll_us: longest time in which this program did not look, held_us:
//                          longest time from sending a stamped packet to a look at the ring that didn't find it there yet
//     clear PORT           forget frames, set counters to 0
//     blast PORT QUEUE N HEX [rate=PPS] [random=AT:LENGTH]... [vary=AT:LENGTH]... [stamp=AT]
//                          send the frame N times (0: for ever), at a rate or as fast as possible, without waiting; random
//                          bytes are drawn for each packet, vary counts up (big-endian); N 0 with rate 0 stops. count has
//                          `left`. stamp: 16 bytes say when it was sent, for held_us of the ports of this program
//     stop PORT, go PORT   stop polling for received packets, so that the guest runs out of receive buffers; go on
//     queues PORT N        the driver uses N queue pairs (ethtool -L)
//     link PORT            ok up|down
//     quit
//
// With --bridge-tap the packets of the first port go to and come from a new TAP interface of that name: the kernel of a network
// namespace, into which the TAP is moved, is a fast guest. It takes the same commands.
//
// When nothing happens it sleeps between polls, 50 us at first, 1 ms after a while.
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <rte_bus_vdev.h>
#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_random.h>

#define PORTS 16
#define QUEUES 16
#define BURST 32
#define KEEP 4096
#define FRAME_MAX 65600
#define FIELDS 4

struct field {
	uint16_t at, length;
	bool random;
};

struct blast {
	uint8_t *frame;
	uint32_t length;
	uint16_t queue;
	uint64_t left; // UINT64_MAX: for ever
	uint64_t sent;
	uint64_t rate;  // packets per second, 0: as fast as possible
	uint64_t start; // TSC
	struct field fields[FIELDS];
	unsigned int n_fields;
};

// When a packet was sent.
struct stamp {
	uint64_t mark, tsc;
};
#define MARK UINT64_C(0x7765697273746d70)

struct frame {
	struct rte_mbuf *m;
	uint16_t queue;
};

struct port {
	uint16_t id;
	uint16_t queues, used; // configured, switched on
	bool offload, stopped, capture, bridge;
	uint64_t rx, rx_bytes, tx, tx_full, rxq[QUEUES];
	uint64_t received_at, gap; // TSC
	uint64_t looked_at, held;  // TSC: of the last look at the ring that left nothing there
	struct frame *kept;
	uint32_t head, count; // of kept
	struct blast blast;
};

static struct port ports[PORTS];
static unsigned int n_ports;
static struct rte_mempool *pool;
static int tap = -1;
static uint64_t polled_at, poll_gap; // TSC
static unsigned int stamp_at;        // where stamped packets have it, 0: there are none

static void fail(const char *text)
{
	printf("error %s\n", text);
	exit(1);
}

static int start_port(struct port *p, uint16_t queues)
{
	struct rte_eth_conf conf = {.intr_conf.lsc = 1};
	struct rte_eth_dev_info info;

	if (rte_eth_dev_info_get(p->id, &info) < 0)
		return -1;
	if (p->offload) {
		conf.rxmode.offloads = info.rx_offload_capa & (RTE_ETH_RX_OFFLOAD_TCP_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM |
							       RTE_ETH_RX_OFFLOAD_TCP_LRO);
		conf.rxmode.max_lro_pkt_size = info.max_lro_pkt_size;
		conf.txmode.offloads = info.tx_offload_capa & (RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM |
							       RTE_ETH_TX_OFFLOAD_TCP_TSO);
	}
	conf.txmode.offloads |= info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
	// The driver knows of link changes by this interrupt only, and reconnects in server mode through it.
	if (!(*info.dev_flags & RTE_ETH_DEV_INTR_LSC))
		conf.intr_conf.lsc = 0;
	if (rte_eth_dev_configure(p->id, queues, queues, &conf) < 0)
		return -1;
	for (uint16_t q = 0; q < queues; q++) {
		if (rte_eth_rx_queue_setup(p->id, q, 0, SOCKET_ID_ANY, NULL, pool) < 0 ||
		    rte_eth_tx_queue_setup(p->id, q, 0, SOCKET_ID_ANY, NULL) < 0)
			return -1;
	}
	p->used = queues;
	return rte_eth_dev_start(p->id);
}

static void add_port(char *words)
{
	char devargs[512] = "", name[32], *word, *save = NULL;
	struct port *p = &ports[n_ports];
	unsigned int use = 0;
	size_t at = 0;

	if (n_ports == PORTS)
		fail("too many ports");
	p->queues = 1;
	p->offload = tap < 0;
	p->bridge = tap >= 0 && n_ports == 0;
	p->capture = !p->bridge;
	for (word = strtok_r(words, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		const char *value = strchr(word, '=');

		value = value ? value + 1 : "";
		if (!strncmp(word, "use=", 4)) {
			use = atoi(value);
			continue;
		}
		if (!strncmp(word, "offload=", 8)) {
			p->offload = atoi(value);
			continue;
		}
		if (!strncmp(word, "queues=", 7))
			p->queues = atoi(value);
		at += snprintf(devargs + at, sizeof(devargs) - at, "%s%s%s", at ? "," : "",
			       !strncmp(word, "packed=", 7) ? "packed_vq="
			       : !strncmp(word, "mrg=", 4)  ? "mrg_rxbuf="
			       : !strncmp(word, "size=", 5) ? "queue_size="
			       : !strncmp(word, "mac=", 4)  ? "mac="
							    : word,
			       !strncmp(word, "packed=", 7) || !strncmp(word, "mrg=", 4) || !strncmp(word, "size=", 5) ||
					       !strncmp(word, "mac=", 4)
				       ? value
				       : "");
	}
	if (p->queues > QUEUES)
		fail("too many queues");
	if (p->queues > 1)
		snprintf(devargs + at, sizeof(devargs) - at, ",cq=1");
	snprintf(name, sizeof(name), "net_virtio_user%u", n_ports);
	p->kept = calloc(KEEP, sizeof(*p->kept));
	if (rte_eal_hotplug_add("vdev", name, devargs) < 0 || rte_eth_dev_get_port_by_name(name, &p->id) < 0)
		fail("the port can't be made: see stderr");
	if (start_port(p, use ? use : p->queues) < 0)
		fail("the port can't be started: see stderr");
	n_ports++;
}

// A chain of mbufs with these bytes, NULL if there are no more mbufs.
static struct rte_mbuf *chain_of(const uint8_t *data, uint32_t length)
{
	struct rte_mbuf *head = NULL, **link = &head;

	do {
		struct rte_mbuf *m = rte_pktmbuf_alloc(pool);
		uint16_t part;

		if (!m) {
			rte_pktmbuf_free(head);
			return NULL;
		}
		part = RTE_MIN(length, (uint32_t)rte_pktmbuf_tailroom(m));
		memcpy(rte_pktmbuf_append(m, part), data, part);
		data += part;
		length -= part;
		*link = m;
		link = &m->next;
		if (m != head) {
			head->nb_segs++;
			head->pkt_len += part;
		}
	} while (length);
	return head;
}

static bool is_ipv6(const struct rte_mbuf *m)
{
	const uint8_t *bytes = rte_pktmbuf_mtod(m, const uint8_t *);

	return m->l2_len >= 2 && bytes[m->l2_len - 2] == 0x86 && bytes[m->l2_len - 1] == 0xdd;
}

// The driver sums from l2_len + l3_len, and takes the place of the checksum from the kind of packet.
static void ask_offload(struct rte_mbuf *m, unsigned int start, unsigned int offset, unsigned int mss, unsigned int headers)
{
	m->l2_len = RTE_MIN(start, 14U);
	m->l3_len = start - m->l2_len;
	m->ol_flags |= offset == 6 ? RTE_MBUF_F_TX_UDP_CKSUM : RTE_MBUF_F_TX_TCP_CKSUM;
	m->ol_flags |= is_ipv6(m) ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4;
	if (mss) {
		m->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
		m->tso_segsz = mss;
		m->l4_len = headers - start;
	}
}

static uint16_t transmit(struct port *p, uint16_t queue, struct rte_mbuf **burst, uint16_t n)
{
	uint16_t sent = rte_eth_tx_burst(p->id, queue, burst, n);

	p->tx += sent;
	p->tx_full += n - sent;
	rte_pktmbuf_free_bulk(burst + sent, n - sent);
	return sent;
}

// A packet that was not there at the last look was held by the switch until then at least, however late this program looks again.
static void read_stamp(struct port *p, const struct rte_mbuf *m)
{
	struct stamp s;

	if (!stamp_at || m->data_len < stamp_at + sizeof(s))
		return;
	memcpy(&s, rte_pktmbuf_mtod_offset(m, const char *, stamp_at), sizeof(s));
	if (s.mark == MARK && p->looked_at > s.tsc)
		p->held = RTE_MAX(p->held, p->looked_at - s.tsc);
}

static void keep(struct port *p, uint16_t queue, struct rte_mbuf *m)
{
	if (p->bridge) {
		static uint8_t bytes[FRAME_MAX];
		const void *data = rte_pktmbuf_read(m, 0, RTE_MIN(m->pkt_len, (uint32_t)FRAME_MAX), bytes);

		if (write(tap, data, RTE_MIN(m->pkt_len, (uint32_t)FRAME_MAX)) < 0 && errno != EAGAIN)
			p->tx_full++;
	}
	if (!p->capture || p->count == KEEP) {
		rte_pktmbuf_free(m);
		return;
	}
	p->kept[(p->head + p->count++) % KEEP] = (struct frame){m, queue};
}

static unsigned int receive(struct port *p)
{
	struct rte_mbuf *burst[BURST];
	unsigned int total = 0;
	uint64_t look = rte_rdtsc();

	for (uint16_t q = 0; q < p->used && !p->stopped; q++) {
		uint16_t n = rte_eth_rx_burst(p->id, q, burst, BURST);

		for (uint16_t i = 0; i < n; i++) {
			p->rx_bytes += burst[i]->pkt_len;
			read_stamp(p, burst[i]);
			keep(p, q, burst[i]);
		}
		p->rxq[q] += n;
		total += n;
	}
	p->rx += total;
	if (total) {
		uint64_t now = rte_rdtsc();

		if (p->received_at)
			p->gap = RTE_MAX(p->gap, now - p->received_at);
		p->received_at = now;
	}
	if (total <= 4) // of more, the driver leaves some for the next time, so as to take whole cache lines
		p->looked_at = look;
	return total;
}

static unsigned int from_tap(struct port *p)
{
	static uint8_t bytes[FRAME_MAX];
	struct rte_mbuf *m;
	unsigned int n = 0;
	ssize_t length;

	while (n < BURST && (length = read(tap, bytes, sizeof(bytes))) > 0) {
		m = chain_of(bytes, length);
		if (m)
			transmit(p, 0, &m, 1);
		n++;
	}
	return n;
}

static void fill_fields(struct blast *b)
{
	for (unsigned int i = 0; i < b->n_fields; i++) {
		const struct field *f = &b->fields[i];
		uint64_t value = f->random ? 0 : b->sent;

		for (unsigned int at = f->length; at--; value >>= 8)
			b->frame[f->at + at] = f->random ? rte_rand() : value;
	}
}

static unsigned int blast_on(struct port *p)
{
	struct blast *b = &p->blast;
	struct rte_mbuf *burst[BURST];
	uint64_t due = BURST;
	uint16_t n;

	if (!b->left || b->queue >= p->used)
		return 0;
	if (b->rate) {
		uint64_t want = (rte_rdtsc() - b->start) * ((double)b->rate / rte_get_tsc_hz());

		due = want > b->sent ? want - b->sent : 0;
	}
	due = RTE_MIN(due, b->left);
	due = RTE_MIN(due, (uint64_t)BURST);
	for (n = 0; n < due; n++) {
		fill_fields(b);
		if (stamp_at && b->length >= stamp_at + sizeof(struct stamp))
			memcpy(b->frame + stamp_at, &(struct stamp){MARK, rte_rdtsc()}, sizeof(struct stamp));
		burst[n] = chain_of(b->frame, b->length);
		if (!burst[n])
			break;
		b->sent++;
	}
	// Fast: what the ring doesn't take is not lost but sent later, so that N packets are N packets.
	due = transmit(p, b->queue, burst, n);
	if (!b->rate)
		b->sent -= n - due;
	else
		due = n;
	if (b->left != UINT64_MAX)
		b->left -= due;
	return due;
}

static int parse_hex(const char *text, uint8_t *out, uint32_t max)
{
	uint32_t n = 0;

	for (; text[0] && text[1]; text += 2) {
		unsigned int byte;

		if (n == max || !isxdigit((unsigned char)text[0]) || sscanf(text, "%2x", &byte) != 1)
			return -1;
		out[n++] = byte;
	}
	return text[0] ? -1 : (int)n;
}

static void do_tx(struct port *p, char *words)
{
	static uint8_t bytes[FRAME_MAX];
	unsigned int queue, start = 0, offset = 0, mss = 0, headers = 0, times = 1, sent = 0;
	char *word, *save = NULL;
	int length = -1;

	queue = (word = strtok_r(words, " ", &save)) ? strtoul(word, NULL, 10) : QUEUES;
	if ((word = strtok_r(NULL, " ", &save)))
		length = parse_hex(word, bytes, sizeof(bytes));
	if (queue >= p->used || length < 1) {
		printf("error tx PORT QUEUE HEX: no such queue or not a frame\n");
		return;
	}
	while ((word = strtok_r(NULL, " ", &save))) {
		if (sscanf(word, "csum=%u:%u", &start, &offset) < 2 && sscanf(word, "tso=%u:%u", &mss, &headers) < 2 &&
		    sscanf(word, "times=%u", &times) < 1) {
			printf("error not understood: %s\n", word);
			return;
		}
	}
	for (unsigned int i = 0; i < times; i++) {
		struct rte_mbuf *m = chain_of(bytes, length);

		if (!m)
			break;
		if (start)
			ask_offload(m, start, offset, mss, headers);
		sent += transmit(p, queue, &m, 1);
	}
	printf("ok %u\n", sent);
}

static void do_bad(struct port *p, char *words)
{
	char *rest = words;
	unsigned int queue = strtoul(rest, &rest, 10), n = strtoul(rest, &rest, 10), sent = 0;

	if (queue >= p->used) {
		printf("error bad PORT QUEUE [N]: no such queue\n");
		return;
	}
	for (n = n ? n : 1; n--;) {
		struct rte_mbuf *m = rte_pktmbuf_alloc(pool);

		if (m)
			sent += transmit(p, queue, &m, 1);
	}
	printf("ok %u\n", sent);
}

static void do_rx(struct port *p, const char *words)
{
	uint32_t n = words ? RTE_MIN((uint32_t)atoi(words), p->count) : p->count;

	printf("ok %u\n", n);
	for (; n; n--) {
		struct frame *frame = &p->kept[p->head];
		struct rte_mbuf *m = frame->m;
		uint64_t sum = m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;

		printf("%u %s%s%s%s %u ", frame->queue, sum == RTE_MBUF_F_RX_L4_CKSUM_NONE ? "p" : "",
		       sum == RTE_MBUF_F_RX_L4_CKSUM_GOOD ? "v" : "", m->ol_flags & RTE_MBUF_F_RX_LRO ? "l" : "",
		       sum || m->ol_flags & RTE_MBUF_F_RX_LRO ? "" : "-", m->ol_flags & RTE_MBUF_F_RX_LRO ? m->tso_segsz : 0);
		for (struct rte_mbuf *part = m; part; part = part->next) {
			for (uint16_t i = 0; i < part->data_len; i++)
				printf("%02x", rte_pktmbuf_mtod(part, uint8_t *)[i]);
		}
		printf("\n");
		rte_pktmbuf_free(m);
		p->head = (p->head + 1) % KEEP;
		p->count--;
	}
}

static void do_blast(struct port *p, char *words)
{
	struct blast *b = &p->blast;
	char *word, *save = NULL;
	unsigned int at, size;
	int length = -1;

	if (!b->frame)
		b->frame = malloc(FRAME_MAX);
	b->n_fields = stamp_at = 0;
	b->rate = b->sent = 0;
	b->queue = (word = strtok_r(words, " ", &save)) ? strtoul(word, NULL, 10) : QUEUES;
	b->left = (word = strtok_r(NULL, " ", &save)) ? strtoull(word, NULL, 10) : 0;
	if ((word = strtok_r(NULL, " ", &save)))
		length = parse_hex(word, b->frame, FRAME_MAX);
	while ((word = strtok_r(NULL, " ", &save))) {
		bool random = word[0] == 'r' && word[2] == 'n';

		if (sscanf(word, "rate=%" SCNu64, &b->rate) == 1)
			continue;
		if ((sscanf(word, "random=%u:%u", &at, &size) == 2 || sscanf(word, "vary=%u:%u", &at, &size) == 2) &&
		    (int)(at + size) <= length && b->n_fields < FIELDS)
			b->fields[b->n_fields++] = (struct field){at, size, random};
		else if (sscanf(word, "stamp=%u", &at) == 1 && at >= 14 && (int)(at + sizeof(struct stamp)) <= length)
			stamp_at = at;
		else
			length = -1;
	}
	if (b->queue >= p->used || length < 14) {
		b->left = 0;
		printf("error blast PORT QUEUE N HEX: no such queue, not a frame, or a field outside\n");
		return;
	}
	b->length = length;
	if (!b->left && b->rate)
		b->left = UINT64_MAX;
	b->start = rte_rdtsc();
	printf("ok\n");
}

static void forget(struct port *p)
{
	for (; p->count; p->count--) {
		rte_pktmbuf_free(p->kept[p->head].m);
		p->head = (p->head + 1) % KEEP;
	}
}

static void do_count(const struct port *p)
{
	uint64_t gap = p->received_at ? RTE_MAX(p->gap, rte_rdtsc() - p->received_at) : 0;

	printf("ok {\"rx\": %" PRIu64 ", \"rx_bytes\": %" PRIu64 ", \"tx\": %" PRIu64 ", \"tx_full\": %" PRIu64
	       ", \"left\": %" PRIu64 ", \"kept\": %u, \"rxq\": [",
	       p->rx, p->rx_bytes, p->tx, p->tx_full, p->blast.left, p->count);
	for (uint16_t q = 0; q < p->queues; q++)
		printf("%s%" PRIu64, q ? ", " : "", p->rxq[q]);
	printf("], \"gap_us\": %" PRIu64 ", \"poll_us\": %" PRIu64 ", \"held_us\": %" PRIu64 "}\n", gap * 1000000 / rte_get_tsc_hz(),
	       poll_gap * 1000000 / rte_get_tsc_hz(), p->held * 1000000 / rte_get_tsc_hz());
}

static void do_queues(struct port *p, unsigned int n)
{
	if (n < 1 || n > p->queues) {
		printf("error 1 to %u queues\n", p->queues);
		return;
	}
	p->blast.left = 0;
	rte_eth_dev_stop(p->id);
	printf(start_port(p, n) < 0 ? "error the driver can't use that many\n" : "ok\n");
}

static void port_command(struct port *p, const char *word, char *rest)
{
	struct rte_eth_link link = {0};

	if (!strcmp(word, "tx") && rest) {
		do_tx(p, rest);
	} else if (!strcmp(word, "bad") && rest) {
		do_bad(p, rest);
	} else if (!strcmp(word, "rx")) {
		do_rx(p, rest);
	} else if (!strcmp(word, "blast") && rest) {
		do_blast(p, rest);
	} else if (!strcmp(word, "count")) {
		do_count(p);
	} else if (!strcmp(word, "queues") && rest) {
		do_queues(p, atoi(rest));
	} else if (!strcmp(word, "link")) {
		rte_eth_link_get_nowait(p->id, &link);
		printf("ok %s\n", link.link_status ? "up" : "down");
	} else {
		if (!strcmp(word, "clear")) {
			forget(p);
			p->rx = p->rx_bytes = p->tx = p->tx_full = p->gap = p->held = poll_gap = 0;
			memset(p->rxq, 0, sizeof(p->rxq));
		} else if (!strcmp(word, "capture") && rest) {
			p->capture = !strcmp(rest, "on");
		} else if (!strcmp(word, "stop") || !strcmp(word, "go")) {
			p->stopped = word[0] == 's';
		} else {
			printf("error no such command: %s\n", word);
			return;
		}
		printf("ok\n");
	}
}

// False on quit.
static bool command(char *line)
{
	char *word = strsep(&line, " "), *number = strsep(&line, " ");
	unsigned long port = number ? strtoul(number, NULL, 10) : PORTS;

	if (!strcmp(word, "quit"))
		return false;
	if (port >= n_ports)
		printf("error no such port or command\n");
	else
		port_command(&ports[port], word, line);
	fflush(stdout);
	return true;
}

static void open_tap(const char *name)
{
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (tap < 0 || ioctl(tap, TUNSETIFF, &request) < 0)
		fail("the TAP can't be made: root and /dev/net/tun are needed");
}

// Reads stdin without stdio's buffer, as poll() has to know what is left.
static bool read_commands(void)
{
	static char buffer[2 * FRAME_MAX + 4096];
	static size_t have;
	struct pollfd fd = {.fd = STDIN_FILENO, .events = POLLIN};
	char *end;
	ssize_t n;

	if (poll(&fd, 1, 0) <= 0)
		return true;
	n = read(STDIN_FILENO, buffer + have, sizeof(buffer) - have - 1);
	if (n <= 0)
		return false;
	have += n;
	buffer[have] = '\0';
	while ((end = strchr(buffer, '\n'))) {
		*end = '\0';
		if (!command(buffer))
			return false;
		have -= end + 1 - buffer;
		memmove(buffer, end + 1, have + 1);
	}
	return true;
}

// Sleeps until there may be something to do: 50 us at first, 1 ms when nothing has happened for a while. A command or a packet
// of the TAP ends the sleep.
static void nap(unsigned int idle)
{
	struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = tap, .events = POLLIN}};
	const struct timespec time = {.tv_nsec = idle < 1000 ? 50000 : 1000000};

	ppoll(fds, RTE_DIM(fds), &time, NULL);
}

static void serve(void)
{
	unsigned int round = 0, idle = 0;

	for (;;) {
		unsigned int busy = 0;
		uint64_t now = rte_rdtsc();

		if (polled_at)
			poll_gap = RTE_MAX(poll_gap, now - polled_at);
		polled_at = now;
		for (unsigned int i = 0; i < n_ports; i++)
			busy += receive(&ports[i]) + blast_on(&ports[i]);
		if (tap >= 0)
			busy += from_tap(&ports[0]);
		if ((!busy || ++round % 64 == 0) && !read_commands())
			return;
		idle = busy ? 0 : idle + 1;
		if (idle)
			nap(idle);
	}
}

int main(int argc, char **argv)
{
	int used = rte_eal_init(argc, argv);

	signal(SIGPIPE, SIG_IGN);
	if (used < 0)
		fail("EAL: see stderr");
	pool = rte_pktmbuf_pool_create("packets", 32767, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	if (!pool)
		fail("no memory for packets");
	for (int i = used + 1; i < argc; i++) {
		if (!strcmp(argv[i], "--bridge-tap") && i + 1 < argc)
			open_tap(argv[++i]);
		else
			add_port(argv[i]);
	}
	printf("ok ready\n");
	fflush(stdout);
	serve();
	for (unsigned int i = 0; i < n_ports; i++) {
		forget(&ports[i]);
		rte_eth_dev_stop(ports[i].id);
		rte_eth_dev_close(ports[i].id);
	}
	rte_eal_cleanup();
	return 0;
}
