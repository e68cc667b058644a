// gen: the generator of the bench: two virtio-user ports that listen, one thread that sends and receives on both as fast as it
// can.
//
//     gen [EAL options] -- PATH0 PATH1 [DEVARGS [PATH2 PATH3]]
//
// DEVARGS are given to all ports (net_virtio_user), such as queue_size=1024,packed_vq=1. The second pair of ports are those of
// the probe: quiet neighbours, whose packets carry the time at which they were sent. "ready" is printed when a switch has
// connected to all sockets. tso=1 among the DEVARGS: the ports have TSO, for mixes with it. Then each line on stdin is answered
// by one line, "error SENTENCE" or JSON:
//
//     mix [kind=KIND] [flows=N] [macs=N] [bytes=N] [routes=N] [tso=MSS] [random=pairs|source]
//                               what is sent from now on: see frames.h; macs=0: a pair for each conversation; kinds: l2, route,
//                               vxlan; l2v6, route6: the same in IPv6; vxlan6: the tunnel is in IPv6
//     plan [FILE]               what the mix needs of the switch; its routes go to the file, a line "PREFIX GATEWAY SIDE" each
//     learn [rate=PPS] [ask=1]  ask: the stations ask for the switch's address until it has answered; then each flow once, in
//     order, both ways; then what comes back is waited for run [seconds=S] [warm=S] [rate=PPS] [senders=N] [probe=PPS]
//     [watch=PID/TID]...
//                               sends for `warm` seconds, then measures for `seconds`; rate: packets per second and side, 0:
//                               all that the rings take; senders: 1: side 0 alone sends, 0: none; probe: packets a second from
//                               one port of the probe to the other, whose latency is told; watch: threads whose time on a
//                               processor is measured as well
//     quit
//
// What a ring doesn't take is kept and offered again, so a ring that is full costs next to nothing, and says that the switch is
// the limit: `full` counts the offers that were not taken whole, of `offers`. A generator that is the limit never finds a ring
// full.
//
// A packet counts as received if it has the mark and comes from the other side. `lost` is of the whole run, when all is quiet
// again. One packet of a burst that comes back from a mix that the switch must rewrite is looked at closely (station.h):
// `checked`, and `wrong`, with what was wrong last. The stations answer ARP and neighbour discovery; that counts as nothing.
// `ports`: UDP source ports that were seen on tunnel packets.
#include "station.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <rte_bus_vdev.h>
#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_prefetch.h>

#define TX_BURST 32
#define RX_BURST 64
#define AHEAD 16 // frames fetched ahead of being sent
#define SAMPLES 4096
#define WATCHED 8
#define GAP_US 50 // a round that takes longer was interrupted

// One side: a port, and the frames that it sends.
struct side {
	uint16_t port;
	uint16_t n_pending;
	struct rte_mbuf *pending[TX_BURST]; // built, not yet taken by the ring
	uint8_t *frames;
	uint32_t slot, bytes; // from one frame to the next, and of each
	uint32_t next, ahead;
	uint64_t due; // at a rate: what may have been sent by now
};

// What is counted, per side.
struct tally {
	uint64_t sent[2], received[2], other[2], offers[2], full[2];
};

// The quiet neighbours. What their packets took is counted by the microsecond.
#define PROBE_BYTES 96
#define PROBE_MAX_US 100000

struct probe {
	uint16_t port[2];
	bool on;
	uint64_t rate, start, sent, received; // a rate of 0: it rests
	uint8_t frame[2][PROBE_BYTES];        // of either direction
	uint32_t took[PROBE_MAX_US + 1];      // the last one: that long or longer
	uint64_t longest;                     // TSC
};

static struct side sides[2];
static struct probe probe;
static struct tally tally;
static struct mix mix = {.flows = 64, .macs = 8, .bytes = 64, .routes = 16};
static uint32_t conversations, stride;
static uint64_t checked, wrong;
static const char *what_is_wrong = "";
static uint64_t ports_seen[65536 / 64];
static bool replied[2];
static uint64_t state = 0x9e3779b97f4a7c15ULL;
static struct rte_mempool *pool, *large; // large: for frames with TSO, one buffer each
static bool with_tso;
static uint64_t hz, gap_longest, gap_sum;

static __attribute__((noreturn)) void fail(const char *text)
{
	printf("error %s\n", text);
	exit(1);
}

// ---- ports

static void add_port(unsigned i, const char *path, const char *more, uint16_t *port)
{
	struct rte_eth_conf conf = {0};
	struct rte_eth_dev_info info;
	char name[32], args[512];

	snprintf(name, sizeof name, "net_virtio_user%u", i);
	snprintf(args, sizeof args, "path=%s,server=1,queues=1%s%s", path, more ? "," : "", more ? more : "");
	if (rte_eal_hotplug_add("vdev", name, args) < 0 || rte_eth_dev_get_port_by_name(name, port) < 0)
		fail("a port can't be made: see stderr");
	if (with_tso) {
		if (rte_eth_dev_info_get(*port, &info) < 0)
			fail("a port doesn't say what it can do");
		conf.rxmode.offloads = RTE_ETH_RX_OFFLOAD_TCP_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_LRO;
		conf.rxmode.max_lro_pkt_size = info.max_lro_pkt_size;
		conf.txmode.offloads = RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_TSO;
	}
	if (rte_eth_dev_configure(*port, 1, 1, &conf) < 0 ||
	    rte_eth_rx_queue_setup(*port, 0, 0, SOCKET_ID_ANY, NULL, pool) < 0 ||
	    rte_eth_tx_queue_setup(*port, 0, 0, SOCKET_ID_ANY, NULL) < 0 || rte_eth_dev_start(*port) < 0)
		fail("a port can't be started: see stderr");
}

// ---- frames

static const char *set_mix(const struct mix *m)
{
	struct mix new = *m;
	uint32_t n = mix_conversations(&new);

	if (!new.macs)
		new.macs = mix_root(n);
	if (new.bytes < mix_least(&new) || new.bytes > (new.tso ? FRAME_TSO_MAX : FRAME_MAX) || (new.tso && !with_tso) ||
	    n > 1 << 23 || new.macs > 1 << 20 || new.routes < 4 || new.routes > 1 << 20 || (new.kind &&new.macs > 1 << 16) ||
	    ((new.kind || new.v6) && new.tso) || mix_bytes(&new, 1) > FRAME_TSO_MAX)
		return "no such packets: see frames.h";
	for (unsigned i = 0; i < 2; i++) {
		uint32_t room = RTE_ALIGN(mix_bytes(&new, i), 64);
		uint8_t *frames = aligned_alloc(64, (size_t)n * room);

		if (!frames)
			return "no memory for that many flows";
		for (uint32_t c = 0; c < n; c++)
			frame_build(frames + (size_t)c * room, &new, c, i);
		free(sides[i].frames);
		sides[i].frames = frames;
		sides[i].next = sides[i].ahead = 0;
		sides[i].slot = room;
		sides[i].bytes = mix_bytes(&new, i);
		replied[i] = false;
	}
	mix = new;
	conversations = n;
	checked = wrong = 0;
	what_is_wrong = "";
	memset(ports_seen, 0, sizeof ports_seen);
	stride = mix_stride(n);
	return NULL;
}

static inline uint32_t advance(uint32_t at, uint32_t step)
{
	at += step;
	return at >= conversations ? at - conversations : at;
}

static void aim(uint32_t step)
{
	for (unsigned i = 0; i < 2; i++) {
		sides[i].next = sides[i].ahead = 0;
		for (unsigned k = 0; k < AHEAD; k++)
			sides[i].ahead = advance(sides[i].ahead, step);
	}
}

// Of a frame with TSO only the headers are written: what follows is of no interest.
static void build_tso(struct rte_mbuf *m, const uint8_t *frame)
{
	memcpy(rte_pktmbuf_mtod(m, uint8_t *), frame, 128);
	m->l2_len = 14;
	m->l3_len = 20;
	m->l4_len = 20;
	m->tso_segsz = (uint16_t)mix.tso;
	m->ol_flags |= RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV4;
}

static bool build(struct side *s, unsigned which, uint16_t n, uint32_t step)
{
	const uint32_t slot = s->slot;

	if (rte_pktmbuf_alloc_bulk(mix.tso ? large : pool, s->pending, n))
		return false;
	for (uint16_t i = 0; i < n; i++) {
		struct rte_mbuf *m = s->pending[i];
		uint8_t *data = rte_pktmbuf_mtod(m, uint8_t *);
		const uint8_t *frame = s->frames + (size_t)s->next * slot;

		if (likely(slot == 64))
			memcpy(data, frame, 64);
		else if (slot == 128)
			memcpy(data, frame, 128);
		else if (slot == 192)
			memcpy(data, frame, 192);
		else if (mix.tso)
			build_tso(m, frame);
		else
			memcpy(data, frame, s->bytes);
		m->data_len = (uint16_t)s->bytes;
		m->pkt_len = s->bytes;
		if (mix.random)
			frame_vary(data + mix_outer(&mix, which), &mix, which, &state);
		s->next = advance(s->next, step);
		s->ahead = advance(s->ahead, step);
		rte_prefetch0(s->frames + (size_t)s->ahead * slot);
	}
	s->n_pending = n;
	return true;
}

// ---- the loop

// Offers up to n packets.
static void transmit(struct side *s, unsigned which, uint16_t n, uint32_t step)
{
	if (!s->n_pending && !build(s, which, n, step))
		return;
	uint16_t taken = rte_eth_tx_burst(s->port, 0, s->pending, s->n_pending);
	tally.sent[which] += taken;
	tally.offers[which]++;
	if (unlikely(taken < s->n_pending)) {
		tally.full[which]++;
		memmove(s->pending, s->pending + taken, (s->n_pending - taken) * sizeof *s->pending);
	}
	s->n_pending -= taken;
}

// What isn't of the mix: true if it was the switch that asks for a station, or has answered one.
static __attribute__((noinline)) bool speak(struct side *s, unsigned which, struct rte_mbuf *m)
{
	uint8_t *frame = rte_pktmbuf_mtod(m, uint8_t *);
	struct rte_mbuf *answer;
	unsigned len;

	if (station_replied(frame, m->data_len, &mix, which)) {
		replied[which] = true;
		return true;
	}
	len = station_answer(frame, m->data_len, &mix, which);
	if (!len)
		return false;
	answer = rte_pktmbuf_alloc(pool);
	if (answer) {
		memcpy(rte_pktmbuf_append(answer, (uint16_t)len), frame, len);
		if (!rte_eth_tx_burst(s->port, 0, &answer, 1))
			rte_pktmbuf_free(answer); // it asks again
	}
	return true;
}

static void look_at(const uint8_t *frame, uint32_t len, unsigned which)
{
	const char *problem = station_check(frame, len, &mix, which);

	checked++;
	if (problem) {
		wrong++;
		what_is_wrong = problem;
	}
	if (mix_outer(&mix, which)) {
		uint16_t port = ((const struct rte_udp_hdr *)(const void *)(frame + mix_outer(&mix, which) - 16))->src_port;

		ports_seen[port / 64] |= 1ull << port % 64;
	}
}

static void receive(struct side *s, unsigned which)
{
	struct rte_mbuf *m[RX_BURST];
	uint16_t n = rte_eth_rx_burst(s->port, 0, m, RX_BURST), good = 0, heard = 0;
	// Magic and the other side's number, as they are in memory.
	const struct frame_mark want = {.magic = rte_cpu_to_be_32(FRAME_MARK), .side = (uint8_t)!which};

	const unsigned headers = mix_headers(&mix, which);

	if (!n)
		return;
	for (uint16_t i = 0; i < n; i++)
		rte_prefetch0(rte_pktmbuf_mtod_offset(m[i], void *, headers));
	for (uint16_t i = 0; i < n; i++) {
		const struct frame_mark *mark = rte_pktmbuf_mtod_offset(m[i], const struct frame_mark *, headers);

		if (likely(m[i]->pkt_len == s->bytes && mark->magic == want.magic && mark->side == want.side)) {
			if (unlikely(!good && mix.kind))
				look_at(rte_pktmbuf_mtod(m[i], const uint8_t *), m[i]->pkt_len, which);
			good++;
		} else {
			heard += speak(s, which, m[i]);
		}
	}
	tally.received[which] += good;
	tally.other[which] += n - good - heard;
	rte_pktmbuf_free_bulk(m, n);
}

// ---- the probe

static void probe_build(void)
{
	const struct mix m = {.flows = 2, .macs = 1, .bytes = PROBE_BYTES};

	for (unsigned i = 0; i < 2; i++) {
		frame_build(probe.frame[i], &m, 0, i);
		frame_mac(probe.frame[i], 2 + !i, 0);
		frame_mac(probe.frame[i] + 6, 2 + i, 0);
	}
	probe.on = true;
}

static bool probe_send(unsigned from)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(pool);
	uint64_t now;

	if (!m)
		return false;
	memcpy(rte_pktmbuf_append(m, PROBE_BYTES), probe.frame[from], PROBE_BYTES);
	now = rte_rdtsc();
	memcpy(rte_pktmbuf_mtod_offset(m, void *, PROBE_BYTES - sizeof now), &now, sizeof now);
	if (rte_eth_tx_burst(probe.port[from], 0, &m, 1))
		return true;
	rte_pktmbuf_free(m);
	return false;
}

static void probe_receive(void)
{
	struct rte_mbuf *m[RX_BURST];
	uint64_t sent, took;

	for (unsigned i = 0; i < 2; i++) {
		uint16_t n = rte_eth_rx_burst(probe.port[i], 0, m, RX_BURST);
		uint64_t now = rte_rdtsc();

		for (uint16_t k = 0; k < n; k++) {
			// Both are of the same network as nobody else.
			if (i == 1 && m[k]->data_len == PROBE_BYTES) {
				memcpy(&sent, rte_pktmbuf_mtod_offset(m[k], void *, PROBE_BYTES - sizeof sent), sizeof sent);
				took = now - sent;
				probe.longest = RTE_MAX(probe.longest, took);
				took /= hz / 1000000;
				probe.took[RTE_MIN(took, (uint64_t)PROBE_MAX_US)]++;
				probe.received++;
			}
		}
		rte_pktmbuf_free_bulk(m, n);
	}
}

static void probe_go(uint64_t now)
{
	probe_receive();
	if (probe.rate && (double)(now - probe.start) * (double)probe.rate / (double)hz > (double)probe.sent)
		probe.sent += probe_send(0);
}

static void probe_begin(uint64_t rate)
{
	probe.rate = rate;
	probe.sent = probe.received = probe.longest = 0;
	memset(probe.took, 0, sizeof probe.took);
	probe.start = rte_rdtsc();
}

// The latency, in microseconds, that so large a share of the packets had at most.
static unsigned probe_quantile(double share)
{
	uint64_t sum = 0;

	for (unsigned us = 0; us < PROBE_MAX_US; us++) {
		sum += probe.took[us];
		if (probe.received && (double)sum >= share * (double)probe.received)
			return us;
	}
	return PROBE_MAX_US;
}

static void drain(void)
{
	uint64_t quiet = rte_rdtsc(), last = 0;

	while (rte_rdtsc() - quiet < hz / 50) {
		for (unsigned i = 0; i < 2; i++) {
			if (sides[i].n_pending)
				transmit(&sides[i], i, 0, 0);
			receive(&sides[i], i);
		}
		if (probe.on)
			probe_receive();
		uint64_t now = probe.received + tally.received[0] + tally.received[1] + tally.other[0] + tally.other[1] +
			       tally.sent[0] + tally.sent[1];
		if (now != last)
			quiet = rte_rdtsc();
		last = now;
	}
}

// Sends on the first `n` sides until `end`, or (if it is not 0) `most` packets each; samples are taken every `sample` cycles.
static unsigned send_until(uint64_t end, unsigned n, uint64_t rate, uint64_t most, uint32_t step, uint64_t sample,
			   uint64_t *samples)
{
	uint64_t start = rte_rdtsc(), now = start, next = start + sample, begin[2] = {tally.sent[0], tally.sent[1]};
	double per_cycle = (double)rate / (double)hz;
	unsigned n_samples = 0;

	gap_longest = gap_sum = 0;
	for (;;) {
		bool finished = most;

		for (unsigned i = 0; i < 2; i++) {
			struct side *s = &sides[i];
			uint64_t sent = tally.sent[i] - begin[i], may = TX_BURST;

			receive(s, i);
			if (i >= n)
				continue;
			if (most && sent + TX_BURST > most)
				may = most - sent;
			if (rate) {
				uint64_t due = (uint64_t)((double)(now - start) * per_cycle);

				may = RTE_MIN(may, due > sent ? due - sent : 0);
			}
			if (may)
				transmit(s, i, (uint16_t)may, step);
			finished &= sent >= most;
		}
		if (probe.on)
			probe_go(now);
		uint64_t then = now;
		now = rte_rdtsc();
		if (unlikely(now - then > hz / 1000000 * GAP_US)) {
			gap_sum += now - then;
			gap_longest = RTE_MAX(gap_longest, now - then);
		}
		if (unlikely(sample && now >= next) && n_samples < SAMPLES) {
			samples[n_samples++] = tally.received[0] + tally.received[1];
			next += sample;
		}
		if (unlikely(now >= end || finished))
			return n_samples;
	}
}

// ---- what the processors did

struct watched {
	char name[48];        // PID/TID
	uint64_t ran, waited; // nanoseconds on a processor, and ready without one
};

// From Linux' schedstat; a thread that isn't there has zeros.
static void watch(struct watched *w)
{
	char path[128], *slash;
	unsigned long long ran = 0, waited = 0;
	char name[48];

	snprintf(name, sizeof name, "%s", w->name);
	slash = strchr(name, '/');
	if (slash) {
		*slash = '\0';
		snprintf(path, sizeof path, "/proc/%s/task/%s/schedstat", name, slash + 1);
	} else {
		snprintf(path, sizeof path, "/proc/thread-self/schedstat");
	}
	FILE *f = fopen(path, "r");
	if (f) {
		if (fscanf(f, "%llu %llu", &ran, &waited) != 2)
			ran = waited = 0;
		fclose(f);
	}
	w->ran = ran;
	w->waited = waited;
}

// Time that the hypervisor gave to others, all processors, in seconds.
static double stolen(void)
{
	unsigned long long v[8] = {0};
	FILE *f = fopen("/proc/stat", "r");

	if (!f)
		return 0;
	if (fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", v, v + 1, v + 2, v + 3, v + 4, v + 5, v + 6, v + 7) != 8)
		v[7] = 0;
	fclose(f);
	return (double)v[7] / (double)sysconf(_SC_CLK_TCK);
}

// ---- commands

static void print_pair(const char *name, const uint64_t v[2])
{
	printf("\"%s\": [%" PRIu64 ", %" PRIu64 "], ", name, v[0], v[1]);
}

// The stations make themselves known, and go on until the switch has answered.
static bool introduce(void)
{
	uint64_t until = rte_rdtsc() + 10 * hz;

	for (unsigned i = 0; i < 2; i++) {
		unsigned n = station_count(&mix, i);

		while (n && !replied[i] && rte_rdtsc() < until) {
			for (unsigned k = 0; k < n; k++) {
				struct rte_mbuf *m = rte_pktmbuf_alloc(pool);

				if (!m)
					continue;
				m->data_len = (uint16_t)station_request(rte_pktmbuf_mtod(m, uint8_t *), &mix, i, k);
				m->pkt_len = m->data_len;
				if (!rte_eth_tx_burst(sides[i].port, 0, &m, 1))
					rte_pktmbuf_free(m);
			}
			drain();
		}
		if (n && !replied[i])
			return false;
	}
	return true;
}

static void do_learn(char *words)
{
	uint64_t rate = 250000;
	unsigned ask = 0;
	struct tally before = tally;

	for (char *word, *save = words; (word = strsep(&save, " "));) {
		if (*word && sscanf(word, "rate=%" SCNu64, &rate) != 1 && sscanf(word, "ask=%u", &ask) != 1) {
			printf("error not understood: %s\n", word);
			return;
		}
	}
	if (ask && !introduce()) {
		printf("error the switch doesn't answer ARP or neighbour discovery\n");
		return;
	}
	aim(1);
	if (probe.on) {
		probe_send(1);
		probe_send(0);
	}
	send_until(rte_rdtsc() + 60 * hz, 2, rate, conversations, 1, 0, NULL);
	drain();
	printf("{\"sent\": %" PRIu64 ", \"received\": %" PRIu64 "}\n",
	       tally.sent[0] + tally.sent[1] - before.sent[0] - before.sent[1],
	       tally.received[0] + tally.received[1] - before.received[0] - before.received[1]);
}

struct run {
	double seconds, warm;
	uint64_t rate, probe;
	unsigned senders, n_watched;
	struct watched watched[WATCHED + 1]; // the first is this thread
};

static bool parse_run(char *words, struct run *r)
{
	*r = (struct run){.seconds = 1, .warm = 0.2, .senders = 2, .n_watched = 1};
	for (char *word, *save = words; (word = strsep(&save, " "));) {
		if (!*word || sscanf(word, "seconds=%lf", &r->seconds) == 1 || sscanf(word, "warm=%lf", &r->warm) == 1 ||
		    sscanf(word, "rate=%" SCNu64, &r->rate) == 1 || sscanf(word, "probe=%" SCNu64, &r->probe) == 1 ||
		    (sscanf(word, "senders=%u", &r->senders) == 1 && r->senders <= 2))
			continue;
		if (!strncmp(word, "watch=", 6) && strchr(word, '/') && r->n_watched <= WATCHED) {
			snprintf(r->watched[r->n_watched].name, sizeof r->watched->name, "%s", word + 6);
			r->n_watched++;
		} else {
			printf("error not understood: %s\n", word);
			return false;
		}
	}
	return true;
}

static void do_run(char *words)
{
	static uint64_t samples[SAMPLES];
	struct tally first = tally, before, after, t;
	struct watched earlier[WATCHED + 1];
	struct run r;

	if (!parse_run(words, &r))
		return;
	aim(stride);
	checked = wrong = 0;
	send_until(rte_rdtsc() + (uint64_t)(r.warm * (double)hz), r.senders, r.rate, 0, stride, 0, NULL);
	for (unsigned i = 0; i < r.n_watched; i++)
		watch(&r.watched[i]);
	memcpy(earlier, r.watched, sizeof earlier);
	double steal = stolen();
	before = tally;
	probe_begin(r.probe);
	uint64_t start = rte_rdtsc(), sample = hz / 10;
	unsigned n = send_until(start + (uint64_t)(r.seconds * (double)hz), r.senders, r.rate, 0, stride, sample, samples);
	uint64_t cycles = rte_rdtsc() - start;
	after = tally;
	steal = stolen() - steal;
	for (unsigned i = 0; i < r.n_watched; i++)
		watch(&r.watched[i]);
	uint64_t longest = gap_longest, gaps = gap_sum;
	probe.rate = 0;
	drain();
	for (unsigned i = 0; i < sizeof t / sizeof(uint64_t); i++)
		((uint64_t *)&t)[i] = ((uint64_t *)&after)[i] - ((uint64_t *)&before)[i];
	double seconds = (double)cycles / (double)hz;
	printf("{\"seconds\": %.6f, \"cycles\": %" PRIu64 ", \"tsc_hz\": %" PRIu64 ", ", seconds, cycles, hz);
	print_pair("sent", t.sent);
	print_pair("received", t.received);
	print_pair("other", t.other);
	print_pair("offers", t.offers);
	print_pair("full", t.full);
	uint64_t all = tally.sent[0] + tally.sent[1] - first.sent[0] - first.sent[1];
	printf("\"sent_in_all\": %" PRIu64 ", \"lost\": %" PRId64
	       ", \"steal\": %.3f, \"gap_longest_us\": %.1f, \"gaps_us\": %.1f, \"threads\": [",
	       all, (int64_t)(all - (tally.received[0] + tally.received[1] - first.received[0] - first.received[1])), steal,
	       (double)longest * 1e6 / (double)hz, (double)gaps * 1e6 / (double)hz);
	for (unsigned i = 0; i < r.n_watched; i++)
		printf("%s{\"thread\": \"%s\", \"ran\": %.4f, \"waited\": %.4f}", i ? ", " : "", i ? r.watched[i].name : "self",
		       (double)(r.watched[i].ran - earlier[i].ran) / 1e9 / seconds,
		       (double)(r.watched[i].waited - earlier[i].waited) / 1e9 / seconds);
	unsigned ports = 0;
	for (unsigned i = 0; i < RTE_DIM(ports_seen); i++)
		ports += (unsigned)__builtin_popcountll(ports_seen[i]);
	printf("], \"checked\": %" PRIu64 ", \"wrong\": %" PRIu64 ", \"what_is_wrong\": \"%s\", \"ports\": %u, ", checked,
	       wrong, what_is_wrong, ports);
	if (r.probe)
		printf("\"probe\": {\"sent\": %" PRIu64 ", \"received\": %" PRIu64
		       ", \"median_us\": %u, \"p99_us\": %u, \"p999_us\": %u, \"longest_us\": %.0f}, ",
		       probe.sent, probe.received, probe_quantile(0.5), probe_quantile(0.99), probe_quantile(0.999),
		       (double)probe.longest * 1e6 / (double)hz);
	printf("\"samples_mpps\": [");
	for (unsigned i = 0; i < n; i++)
		printf("%s%.3f", i ? ", " : "",
		       (double)(samples[i] - (i ? samples[i - 1] : before.received[0] + before.received[1])) * 10 / 1e6);
	printf("]}\n");
}

static void do_mix(char *words)
{
	struct mix m = mix;
	char kind[16];

	for (char *word, *save = words; (word = strsep(&save, " "));) {
		if (sscanf(word, "random=%15s", kind) == 1 &&
		    (!strcmp(kind, "pairs") || !strcmp(kind, "source") || !strcmp(kind, "no"))) {
			m.random = kind[0] == 'p' ? MIX_PAIRS : kind[0] == 's' ? MIX_SOURCE : MIX_FIXED;
		} else if (sscanf(word, "kind=%15s", kind) == 1 && mix_set_kind(&m, kind)) {
			continue;
		} else if (*word && sscanf(word, "flows=%" SCNu32, &m.flows) != 1 &&
			   sscanf(word, "macs=%" SCNu32, &m.macs) != 1 && sscanf(word, "bytes=%" SCNu32, &m.bytes) != 1 &&
			   sscanf(word, "routes=%" SCNu32, &m.routes) != 1 && sscanf(word, "tso=%" SCNu32, &m.tso) != 1) {
			printf("error not understood: %s\n", word);
			return;
		}
	}
	const char *problem = set_mix(&m);
	if (problem)
		printf("error %s\n", problem);
	else
		printf("{\"flows\": %u, \"macs\": %u, \"bytes\": %u}\n", conversations * 2, mix.macs, mix.bytes);
}

static void format_ip(char text[INET6_ADDRSTRLEN], bool v6, uint32_t ip)
{
	uint8_t b[16];

	frame_ip(b, v6, ip);
	inet_ntop(v6 ? AF_INET6 : AF_INET, b, text, INET6_ADDRSTRLEN);
}

static void format_mac(char text[18], const uint8_t mac[6])
{
	snprintf(text, 18, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
}

static bool write_routes(const char *path)
{
	char prefix[INET6_ADDRSTRLEN], gateway[INET6_ADDRSTRLEN];
	uint8_t b[16];
	FILE *f = fopen(path, "w");

	if (!f)
		return false;
	for (unsigned side = 0; side < 2; side++) {
		for (uint32_t k = 0; k < mix_side_routes(&mix); k++) {
			struct frame_route r = frame_route(&mix, side, k);

			unsigned len = frame_prefix(b, mix.v6, &r);

			inet_ntop(mix.v6 ? AF_INET6 : AF_INET, b, prefix, sizeof prefix);
			format_ip(gateway, mix.v6, frame_station_ip(side, r.gateway));
			fprintf(f, "%s/%u %s %u\n", prefix, len, gateway, side);
		}
	}
	return !fclose(f);
}

static void do_plan(const char *path)
{
	const bool v6 = mix.kind == MIX_VXLAN ? mix.under6 : mix.v6; // of the links that the switch has addresses on
	char ip[INET6_ADDRSTRLEN], mac[18];
	uint8_t a[6];

	if (*path && !write_routes(path)) {
		printf("error %s can't be written\n", path);
		return;
	}
	printf("{\"routes\": %u, \"switch\": [", 2 * mix_side_routes(&mix));
	for (unsigned side = 0; side < 2; side++) {
		frame_switch_mac(a, side);
		format_mac(mac, a);
		format_ip(ip, v6, frame_switch_ip(side));
		printf("%s{\"mac\": \"%s\", \"ip\": \"%s\", \"len\": %u, \"stations\": {", side ? ", " : "", mac, ip,
		       frame_link_len(v6));
		for (unsigned k = 0; mix.kind == MIX_ROUTE && k < mix.macs; k++) {
			frame_mac(a, side, k);
			format_mac(mac, a);
			format_ip(ip, v6, frame_station_ip(side, k));
			printf("%s\"%s\": \"%s\"", k ? ", " : "", ip, mac);
		}
		printf("}}");
	}
	frame_vtep_mac(a);
	format_mac(mac, a);
	format_ip(ip, v6, FRAME_VTEP_IP);
	printf("], \"vtep\": {\"mac\": \"%s\", \"ip\": \"%s\"}, \"vni\": %u}\n", mac, ip, FRAME_VNI);
}

// False on quit.
static bool command(char *line)
{
	char *word = strsep(&line, " ");
	char nothing[1] = "";

	line = line ? line : nothing;
	if (!strcmp(word, "quit"))
		return false;
	if (!strcmp(word, "mix"))
		do_mix(line);
	else if (!strcmp(word, "plan"))
		do_plan(line);
	else if (!strcmp(word, "learn"))
		do_learn(line);
	else if (!strcmp(word, "run"))
		do_run(line);
	else
		printf("error no such command: %s\n", word);
	fflush(stdout);
	return true;
}

int main(int argc, char **argv)
{
	int used = rte_eal_init(argc, argv);
	char line[1024];

	signal(SIGPIPE, SIG_IGN);
	if (used < 0)
		fail("EAL: see stderr");
	if (argc - used < 3)
		fail("usage: gen [EAL options] -- PATH0 PATH1 [DEVARGS [PATH2 PATH3]]");
	hz = rte_get_tsc_hz();
	pool = rte_pktmbuf_pool_create("packets", 16383, 512, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	if (!pool)
		fail("no memory for packets");
	char *devargs = argc - used > 3 ? argv[used + 3] : NULL;
	char *tso = devargs ? strstr(devargs, ",tso=1") : NULL;
	if (tso) {
		*tso = '\0'; // it comes last
		with_tso = true;
		large = rte_pktmbuf_pool_create("large", 2047, 64, 0, UINT16_MAX, SOCKET_ID_ANY);
		if (!large)
			fail("no memory for large packets");
	}
	for (unsigned i = 0; i < 2; i++)
		add_port(i, argv[used + 1 + (int)i], devargs, &sides[i].port);
	for (unsigned i = 0; i < 2 && argc - used > 5; i++)
		add_port(2 + i, argv[used + 4 + (int)i], devargs, &probe.port[i]);
	if (argc - used > 5)
		probe_build();
	if (set_mix(&mix))
		fail("no memory for frames");
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = '\0';
		if (!command(line))
			break;
	}
	for (unsigned i = 0; i < 2; i++) {
		rte_eth_dev_stop(sides[i].port);
		rte_eth_dev_close(sides[i].port);
		if (probe.on) {
			rte_eth_dev_stop(probe.port[i]);
			rte_eth_dev_close(probe.port[i]);
		}
	}
	rte_eal_cleanup();
	return 0;
}
