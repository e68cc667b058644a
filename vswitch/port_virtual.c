// port_virtual: ports without a device of their own: router ports and tunnels. They have a ledger and a place in networks; what goes out by them is taken by the
// stage `router`, or by the tunnel, before it would come to a device.
#include "port.h"

#include <errno.h>
#include <string.h>

static int open_none(const struct port_open *o, void **dev, char **error)
{
	*dev = NULL;
	return 0;
}

static int reconfigure_none(void *dev, const struct port_open *o, char **error)
{
	return 0;
}

static void close_none(void *dev)
{
}

static void state_none(void *dev, struct port_state *s)
{
	s->link_up = true;
	s->numa_node = -1;
}

static int rx_fd_none(void *dev, uint16_t q)
{
	return -1;
}

static uint32_t queues_none(void *dev)
{
	return 0;
}

static unsigned caps_none(void *dev)
{
	return 0;
}

static uint16_t rx_none(void *dev, uint16_t q, struct rte_mempool *pool, struct rte_mbuf **m, uint16_t n)
{
	return 0;
}

static uint16_t tx_none(void *dev, uint16_t q, unsigned worker, struct rte_mbuf **m, uint16_t n)
{
	return 0;
}

static int rx_arm_none(void *dev, uint16_t q, bool on)
{
	return 0;
}

#define VIRTUAL(name)                                                                                                  \
	{                                                                                                              \
		.type = name, .open = open_none, .reconfigure = reconfigure_none, .close = close_none, .state = state_none,         \
		.rx_fd = rx_fd_none, .rx_queues = queues_none, .tx_queues = queues_none, .caps = caps_none, .rx = rx_none, .tx = tx_none,       \
		.rx_arm = rx_arm_none                                                                                  \
	}

const struct port_ops port_ops_router = VIRTUAL("router");
const struct port_ops port_ops_tunnel = VIRTUAL("tunnel");
