// explain: what would happen to a packet. The real stages on a worker that changes nothing.
#include "verbs.h"
#include "clock.h"
#include "compose.h"
#include "egress.h"
#include "forward.h"
#include "port.h"
#include "thread.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct worker *dry;

static uint16_t probe(struct worker *w, uint16_t id)
{
	const struct port *p = port_get(id);

	if (!p)
		return TX_REASON(NO_PORT);
	return p->device && p->device->ops->tx_queues(p->device->dev) ? 0 : TX_REASON(DISCONNECTED);
}

static void no_flush(struct worker *w, struct port_worker *pw)
{
}

// A frame in a chain of buffers. NULL: none to be had.
static struct rte_mbuf *to_mbuf(const uint8_t *frame, unsigned len, struct rte_mempool *pool)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(pool), *last = m;

	for (unsigned at = 0; m && at < len;) {
		unsigned n = len - at < PKT_BUF_SIZE ? len - at : PKT_BUF_SIZE;

		if (at) {
			struct rte_mbuf *more = rte_pktmbuf_alloc(pool);

			if (!more) {
				rte_pktmbuf_free(m);
				return NULL;
			}
			last->next = more;
			last = more;
			m->nb_segs++;
		}
		memcpy(rte_pktmbuf_mtod(last, void *), frame + at, n);
		last->data_len = (uint16_t)n;
		at += n;
	}
	if (m)
		m->pkt_len = len;
	return m;
}

struct finished {
	bool done;
};

static void trace_done(struct trace *t, void *arg)
{
	((struct finished *)arg)->done = true;
}

// Fills in what the description may leave out: an address that nobody else has, and everybody as the destination.
static void defaults_for(const struct port *p, struct compose_defaults *d)
{
	static const uint8_t somebody[6] = {0x02, 0, 0, 0, 0, 0x01};

	memcpy(d->dl_src, somebody, 6);
	d->dl_src[4] = (uint8_t)(p->id >> 8);
	d->dl_src[5] = (uint8_t)p->id;
	memset(d->dl_dst, 0xff, 6);
}

static char *explain(const struct port *p, const char *text, bool json, char **error)
{
	static uint8_t frame[COMPOSE_MAX]; // one main thread
	struct compose_defaults d;
	struct effect overlay[EFFECTS_MAX];
	uint8_t n_overlay = 0;
	struct finished f = {false};

	defaults_for(p, &d);
	int len = compose(text, &d, frame, error);
	if (len < 0)
		return NULL;
	dry->pool = thread_pool(-1);
	dry->now = clock_ns();
	dry->now_ms = (uint32_t)(dry->now / 1000000);
	struct rte_mbuf *m = dry->pool ? to_mbuf(frame, (unsigned)len, dry->pool) : NULL;
	struct trace *t = calloc(1, sizeof *t);
	if (!m || !t) {
		rte_pktmbuf_free(m);
		free(t);
		return NULL;
	}
	*t = (struct trace){.done = trace_done, .arg = &f, .refs = 1, .in_port = p->id, .start = rte_rdtsc()};
	memset(pkt_of(m), 0, sizeof(struct pkt));
	pkt_of(m)->trace = t;
	pkt_of(m)->rx_tsc = t->start;
	forward_explain(dry, p->id, m, overlay, &n_overlay);
	worker_publish(dry);
	struct buf b = {0};
	if (json) {
		json_t *steps = trace_json(t, 0);
		json_t *all = json_pack("{s:s, s:i, s:o}", "port", p->name, "bytes", len, "steps", steps);
		char *dump = json_dumps(all, JSON_COMPACT);

		buf_add(&b, "%s\n", dump ? dump : "");
		free(dump);
		json_decref(all);
	} else {
		buf_add(&b, "%d bytes on port %s:\n", len, p->name);
		trace_format(t, &b, false, 0);
	}
	free(t);
	return b.text;
}

static void explain_verb(struct control_request *r, int argc, const char *argv[], void *aux)
{
	bool json = verbs_take_json(&argc, argv);
	char *error = NULL;
	const char *port = verbs_take_option(&argc, argv, "port", &error);
	const struct port *p = port ? port_find(port) : NULL;
	struct buf text = {0};

	for (int i = 1; i < argc; i++)
		buf_add(&text, "%s%s", i > 1 ? " " : "", argv[i]);
	char *answer = NULL;
	if (error) {
		verbs_refuse(r, "%s", error);
	} else if (!port) {
		verbs_refuse(r, "say on which port the packet comes in: explain --port PORT MATCH");
	} else if (!p) {
		verbs_refuse(r, "there is no port %s", port);
	} else if (!text.len) {
		verbs_refuse(r, "say which packet: fields such as tcp,nw_dst=10.0.0.7,tp_dst=443, or its bytes in hexadecimal");
	} else {
		answer = explain(p, text.text, json, &error);
		if (answer)
			control_reply(r, answer);
		else
			verbs_refuse(r, "%s", error ? error : "out of memory");
	}
	free(answer);
	free(error);
	free(text.text);
}

int explain_init(void)
{
	dry = calloc(1, sizeof *dry);
	if (!dry)
		return -ENOMEM;
	dry->id = MAX_WORKERS - 1; // only names a place in meters, which a dry worker doesn't take
	dry->dry = true;
	dry->probe = probe;
	dry->flush = no_flush;
	dry->port[0] = (struct port_worker *)(void *)lane_create(0, NULL, SOCKET_ID_ANY);
	control_register("explain", "[--json] --port PORT MATCH|HEX", 1, 64, explain_verb, NULL);
	return dry->port[0] ? 0 : -ENOMEM;
}
