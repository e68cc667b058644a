// uplink: see uplink.h.
#include "uplink.h"
#include "bond.h"
#include "clock.h"
#include "control.h"
#include "kernel_link.h"
#include "link.h"
#include "lldp_port.h"
#include "port.h"
#include "router_table.h"

#include <string.h>
#include <unistd.h>

static int watch_fd = -1; // only while somebody wants to know at once: a bond, or a router, whose next hops are behind uplinks

void uplink_init(const char *host, void (*ring)(void))
{
	bond_init(host);
	bond_verbs_init();
	lldp_port_init(host);
	link_ring = ring;
}

static void dispatch(uint64_t now)
{
	uint16_t port;

	for (struct rte_mbuf *m; (m = link_next(&port));) {
		const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *);

		if (frame[12] == LINK_SLOW_TYPE >> 8 && frame[13] == (LINK_SLOW_TYPE & 0xff))
			bond_receive(port, frame, m->data_len, now);
		else
			lldp_port_receive(port, frame, m->data_len, now);
		rte_pktmbuf_free(m);
	}
}

// Whether the link of an uplink isn't any more what was said of it last.
static void compare(struct port *p, void *arg)
{
	struct port_state s;

	if (!p->device || p->device->ops->guest || !p->watch.seen || !p->config.type || !strcmp(p->config.type, "tap") || p->device->ops == &port_ops_router ||
	    p->device->ops == &port_ops_tunnel)
		return;
	port_state(p, &s);
	*(bool *)arg |= s.link_up != p->watch.up;
}

// Whether ports are to say how their links are.
static bool watch(void)
{
	bool wanted = bonds || router_any(), news = false;

	if (wanted && watch_fd < 0) {
		watch_fd = kernel_link_watch();
		bond_changed();
	} else if (!wanted && watch_fd >= 0) {
		close(watch_fd);
		watch_fd = -1;
	}
	if (watch_fd >= 0 && kernel_link_news(watch_fd)) {
		bond_changed();
		port_each(compare, &news);
	}
	return news;
}

bool uplink_run(uint64_t now)
{
	bool news = watch();

	dispatch(now);
	news |= lldp_port_run(now);
	return bond_run(now) | news;
}

void uplink_reconcile(const struct config *c)
{
	lldp_port_reconcile(c);
	bond_changed(); // a member may be gone whose device never was there
	uplink_run(clock_ns());
}

void uplink_wait(void)
{
	if (watch_fd >= 0)
		loop_wait_fd(watch_fd);
	if (bond_busy())
		loop_wait_until(loop_msec());
}

void uplink_close(void)
{
	if (watch_fd >= 0)
		close(watch_fd);
	watch_fd = -1;
}
