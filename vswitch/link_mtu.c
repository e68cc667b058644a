// link_mtu: see link_mtu.h.
#include "link_mtu.h"
#include "config.h"
#include "control.h"
#include "port.h"

#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

// 0: there is no such interface, as long as nobody makes it.
static uint16_t ask(const char *interface)
{
	struct ifreq r = {0};
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), mtu = 0;

	if (s < 0)
		return 0;
	snprintf(r.ifr_name, sizeof r.ifr_name, "%s", interface);
	if (!ioctl(s, SIOCGIFMTU, &r))
		mtu = r.ifr_mtu;
	close(s);
	return mtu < UINT16_MAX ? (uint16_t)mtu : UINT16_MAX;
}

static bool is_kernel(const char *type)
{
	return type && !strcmp(type, "kernel");
}

static struct config_port *find(struct config *c, uint16_t id)
{
	for (size_t i = 0; i < c->n_ports; i++)
		if (c->ports[i].id == id)
			return &c->ports[i];
	return NULL;
}

static void limit(struct config *c, struct config_port *cp, uint16_t mtu)
{
	const struct port *p = port_get(cp->id);

	if (!mtu || mtu >= port_mtu(c, cp))
		return;
	if (p && p->mtu != mtu)
		log_event('i', "port", LOG_FIELDS({"port", cp->name}, {"mtu", LOG_NUMBER(mtu)}),
			  "port %s: its MTU is %u, as its interface takes no more; ip link set mtu changes that", cp->name, mtu);
	cp->mtu = mtu;
}

void link_mtu_limit(struct config *c)
{
	for (size_t i = 0; i < c->n_ports; i++) {
		struct config_port *cp = &c->ports[i], *bond;
		struct port *p = cp->id ? port_get(cp->id) : NULL;

		if (!p || cp->error || !is_kernel(cp->type))
			continue;
		p->link_mtu = ask(config_map_get(&cp->options, "iface", cp->name));
		limit(c, cp, p->link_mtu);
		if (p->bond && (bond = find(c, p->bond)))
			limit(c, bond, p->link_mtu);
	}
}

static void compare(struct port *p, void *arg)
{
	if (is_kernel(p->config.type))
		*(bool *)arg |= ask(config_map_get(&p->config.options, "iface", p->config.name)) != p->link_mtu;
}

bool link_mtu_changed(void)
{
	bool changed = false;

	port_each(compare, &changed);
	return changed;
}
