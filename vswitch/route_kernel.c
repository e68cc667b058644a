// route_kernel: routers that follow a routing table of the kernel (other_config:netlink-table), by rtnetlink(7): all routes at
// the start, then each change. When changes were lost, or when the kernel drops routes without saying so (an interface goes
// down, an address goes), all are read again.
//
// Next hops are mapped to router ports: by the gateway's address, or, of link-local gateways and routes without one, by the
// kernel's interface, if that is the device of a port of this switch, in whose network the router is.
#include "clock.h"
#include "control.h"
#include "log.h"
#include "route_load.h"
#include "route_table.h"
#include "router_table.h"
#include "sentence.h"
#include "topology.h"

#include <errno.h>
#include <limits.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

// The kernel's macros cast as they go from one attribute to the next; it aligns them to four bytes.
#pragma GCC diagnostic ignored "-Wcast-align"

#ifndef NETLINK_GET_STRICT_CHK
#define NETLINK_GET_STRICT_CHK 12
#endif

#define MAIN_TABLE 0      // the router's
#define MESSAGES 4        // datagrams that are taken at once
#define MESSAGE 32768     // bytes of one at most, as the kernel makes them for who reads so much
#define BUFFER (64 << 20) // of the socket: what comes while the main thread does something else
#define AGAIN_MS 200      // after what made another reading necessary, so that several causes are one
#define SWEEP_PREFIXES 500

enum state {
	DUMPING_V4,
	DUMPING_V6,
	SWEEPING, // routes that were not in the dump
	FOLLOWING,
	BROKEN,
	ENDING, // its routes go
};

struct follower {
	struct follower *next;
	struct row_id row; // of the router
	uint16_t router;
	uint32_t number; // the kernel's table
	int fd;
	enum state state;
	bool again;        // everything is to be read anew, from `again_at` on
	bool by_interface; // a next hop depends on `devices`
	long long again_at;
	uint32_t seq;
	uint16_t mark;
	struct route_at at;
	uint64_t taken, left_out, changes, readings;
	unsigned interface; // the last one that was mapped, as many routes have the same
	uint16_t interface_port;
	uint64_t interface_sum; // devices_sum at that time
	char problem[128];
};

struct device {
	char name[IF_NAMESIZE];
	uint16_t port;
};

static struct follower *followers;
static struct device *devices;
static size_t n_devices;
static uint64_t devices_sum; // changes when a mapping may

static void read_again(struct follower *f)
{
	if (!f->again)
		f->again_at = loop_msec() + AGAIN_MS;
	f->again = true;
}

static void broken(struct follower *f, const char *what, int err)
{
	snprintf(f->problem, sizeof f->problem, "%s: %s", what, strerror(err));
	log_event('w', "route", LOG_FIELDS({"router", route_router_name(f->router)}), "routes of the kernel can't be read: %s",
		  f->problem);
	f->state = BROKEN;
	f->again = true;
	f->again_at = loop_msec() + 5000;
}

// ---- next hops

// The router's port in the network that the kernel's interface is in; 0: none.
static uint16_t port_of_interface(const struct follower *f, unsigned index)
{
	char name[IF_NAMESIZE];

	if (!index || !if_indextoname(index, name))
		return 0;
	for (size_t i = 0; i < n_devices; i++) {
		const struct lport *lp = strcmp(devices[i].name, name) ? NULL : lport_get(devices[i].port);

		for (const struct router_port *p = lp ? router_port_in(lp->untagged.network, NULL) : NULL; p;
		     p = router_port_in(lp->untagged.network, p))
			if (p->router == f->router)
				return p->id;
	}
	return 0;
}

struct hops {
	struct route_hop hop[ROUTE_HOPS_MAX];
	uint16_t n;
	bool several; // they came as a list
};

static void add_hop(struct follower *f, struct hops *h, bool v6, const void *gateway, unsigned interface, unsigned weight)
{
	const uint8_t *ip = gateway;
	bool by_address = gateway && !(v6 && ip_is_link_local(v6, ip));

	if (h->n == ROUTE_HOPS_MAX)
		return;
	struct route_hop *hop = &h->hop[h->n];
	*hop = (struct route_hop){
		.weight = (uint16_t)weight, .has_gateway = gateway != NULL, .by_address = by_address, .gateway.v6 = v6};
	if (gateway)
		memcpy(hop->gateway.b, gateway, v6 ? 16 : 4);
	if (!by_address) {
		if (interface != f->interface || f->interface_sum != devices_sum) {
			f->interface_port = port_of_interface(f, interface);
			f->interface = interface;
			f->interface_sum = devices_sum;
		}
		f->by_interface = true;
		hop->port = f->interface_port;
		if (!hop->port)
			return;
	}
	h->n++;
}

// ---- messages

struct attributes {
	const struct rtattr *of[RTA_MAX + 1];
};

static void parse(const struct rtattr *a, size_t len, struct attributes *out)
{
	memset(out, 0, sizeof *out);
	for (; RTA_OK(a, len); a = RTA_NEXT(a, len))
		if (a->rta_type <= RTA_MAX)
			out->of[a->rta_type] = a;
}

static const void *bytes(const struct attributes *a, unsigned type, size_t n)
{
	return a->of[type] && RTA_PAYLOAD(a->of[type]) >= n ? RTA_DATA(a->of[type]) : NULL;
}

static uint32_t number(const struct attributes *a, unsigned type, uint32_t otherwise)
{
	uint32_t v = otherwise;
	const void *p = bytes(a, type, sizeof v);

	if (p)
		memcpy(&v, p, sizeof v);
	return v;
}

static void read_hops(struct follower *f, const struct attributes *a, bool v6, struct hops *h)
{
	size_t address = v6 ? 16 : 4;

	h->n = 0;
	h->several = a->of[RTA_MULTIPATH];
	if (!h->several) {
		if (!a->of[RTA_VIA] && !a->of[RTA_ENCAP])
			add_hop(f, h, v6, bytes(a, RTA_GATEWAY, address), number(a, RTA_OIF, 0), 1);
		return;
	}
	const struct rtnexthop *nh = RTA_DATA(a->of[RTA_MULTIPATH]);
	size_t left = RTA_PAYLOAD(a->of[RTA_MULTIPATH]);
	while (left >= sizeof *nh && nh->rtnh_len >= sizeof *nh && nh->rtnh_len <= left) {
		struct attributes of;

		parse((const struct rtattr *)RTNH_DATA(nh), nh->rtnh_len - sizeof *nh, &of);
		if (!(nh->rtnh_flags & RTNH_F_DEAD) && !of.of[RTA_VIA] && !of.of[RTA_ENCAP])
			add_hop(f, h, v6, bytes(&of, RTA_GATEWAY, address), (unsigned)nh->rtnh_ifindex, nh->rtnh_hops + 1u);
		size_t step = RTNH_ALIGN(nh->rtnh_len);
		left -= step < left ? step : left;
		nh = RTNH_NEXT(nh);
	}
}

static enum route_type type_of(uint8_t rtn)
{
	switch (rtn) {
	case RTN_UNICAST:
		return ROUTE_UNICAST;
	case RTN_BLACKHOLE:
		return ROUTE_BLACKHOLE;
	case RTN_UNREACHABLE:
		return ROUTE_UNREACHABLE;
	case RTN_PROHIBIT:
		return ROUTE_PROHIBIT;
	default: // local, broadcast and the like: the router has its own
		return ROUTE_NONE;
	}
}

// The kernel takes next hops of one IPv6 route away one by one.
static bool remove_one_hop(struct follower *f, struct route_spec *s, const struct hops *gone)
{
	static struct route_hop hop[ROUTE_HOPS_MAX];
	uint16_t n = 0, kept = 0;

	if (!s->prefix.ip.v6 || gone->several || gone->n != 1 || !route_get(f->router, MAIN_TABLE, s, hop, &n) || n < 2)
		return false;
	for (uint16_t i = 0; i < n; i++)
		if (hop[i].has_gateway != gone->hop[0].has_gateway || memcmp(hop[i].gateway.b, gone->hop[0].gateway.b, 16) ||
		    (!hop[i].by_address && hop[i].port != gone->hop[0].port))
			hop[kept++] = hop[i];
	s->hop = hop;
	s->n_hops = kept;
	return kept > 0;
}

static void set(struct follower *f, const struct route_spec *s)
{
	int rc = route_set(f->router, MAIN_TABLE, s);

	if (!rc) {
		f->taken++;
		return;
	}
	f->left_out++;
	snprintf(f->problem, sizeof f->problem, "%s", rc == -ENOSPC ? "there is no room for more routes" : "out of memory");
}

static void route_message(struct follower *f, const struct nlmsghdr *h)
{
	static struct hops hops;
	const struct rtmsg *m = NLMSG_DATA(h);
	struct attributes a;

	if (h->nlmsg_len < NLMSG_LENGTH(sizeof *m) || (m->rtm_family != AF_INET && m->rtm_family != AF_INET6))
		return;
	bool v6 = m->rtm_family == AF_INET6;
	parse(RTM_RTA(m), RTM_PAYLOAD(h), &a);
	if (number(&a, RTA_TABLE, m->rtm_table) != f->number || m->rtm_flags & RTM_F_CLONED)
		return;
	struct route_spec s = {.prefix = {.ip.v6 = v6, .len = m->rtm_dst_len},
			       .source = ROUTE_KERNEL,
			       .type = type_of(m->rtm_type),
			       .metric = number(&a, RTA_PRIORITY, 0),
			       .mark = f->mark,
			       .hop = hops.hop};
	const void *dst = bytes(&a, RTA_DST, v6 ? 16 : 4);
	if (dst)
		memcpy(s.prefix.ip.b, dst, v6 ? 16 : 4);
	if (s.type == ROUTE_NONE || m->rtm_tos || m->rtm_src_len || m->rtm_dst_len > (v6 ? 128 : 32) ||
	    (!dst && m->rtm_dst_len))
		return;
	f->changes += f->state == FOLLOWING;
	hops.n = 0;
	if (s.type == ROUTE_UNICAST)
		read_hops(f, &a, v6, &hops);
	s.n_hops = hops.n;
	if (h->nlmsg_type == RTM_DELROUTE) {
		if (remove_one_hop(f, &s, &hops))
			set(f, &s);
		else
			route_remove(f->router, MAIN_TABLE, &s);
	} else if (s.type == ROUTE_UNICAST && !s.n_hops) {
		f->left_out++;
		route_remove(f->router, MAIN_TABLE, &s); // what it was before
	} else {
		set(f, &s);
	}
}

static void dump(struct follower *f, uint8_t family)
{
	struct {
		struct nlmsghdr h;
		struct rtmsg m;
		struct rtattr a;
		uint32_t table;
	} ask = {
		.h = {.nlmsg_len = sizeof ask,
		      .nlmsg_type = RTM_GETROUTE,
		      .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
		      .nlmsg_seq = ++f->seq},
		.m = {.rtm_family = family},
		.a = {.rta_len = sizeof ask.a + sizeof ask.table, .rta_type = RTA_TABLE},
		.table = f->number,
	};

	f->state = family == AF_INET ? DUMPING_V4 : DUMPING_V6;
	if (send(f->fd, &ask, sizeof ask, 0) < 0)
		broken(f, "netlink", errno);
}

static void dump_done(struct follower *f)
{
	if (f->state == DUMPING_V4) {
		dump(f, AF_INET6);
	} else if (f->state == DUMPING_V6) {
		f->state = SWEEPING;
		f->at = (struct route_at){0};
	}
}

// A table that isn't there has no routes, nor has a family that the kernel doesn't know. One that can't be read leaves what is known of it.
static void dump_ended(struct follower *f, const struct nlmsghdr *h)
{
	int error = 0;

	if (h->nlmsg_len >= NLMSG_LENGTH(sizeof error))
		memcpy(&error, NLMSG_DATA(h), sizeof error);
	if (error < 0 && error != -ENOENT && error != -EOPNOTSUPP && error != -EAFNOSUPPORT)
		broken(f, "netlink", -error);
	else
		dump_done(f);
}

static void message(struct follower *f, const struct nlmsghdr *h)
{
	bool dumping = f->state == DUMPING_V4 || f->state == DUMPING_V6;

	if (dumping && h->nlmsg_flags & NLM_F_DUMP_INTR && h->nlmsg_seq == f->seq)
		read_again(f); // it changed meanwhile, and something may be missing
	switch (h->nlmsg_type) {
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		route_message(f, h);
		break;
	case RTM_NEWLINK: {
		const struct ifinfomsg *m = NLMSG_DATA(h);

		if (h->nlmsg_len >= NLMSG_LENGTH(sizeof *m) && m->ifi_change & (IFF_UP | IFF_RUNNING | 1 << 16 /* lower up */))
			read_again(f);
		break;
	}
	case RTM_DELLINK:
	case RTM_DELADDR:
		read_again(f);
		break;
	case NLMSG_DONE:
	case NLMSG_ERROR:
		if (dumping && h->nlmsg_seq == f->seq)
			dump_ended(f, h);
		break;
	case NLMSG_OVERRUN:
		read_again(f);
		break;
	}
}

// Some datagrams. False: there are none.
static bool receive(struct follower *f)
{
	static uint8_t room[MESSAGES][MESSAGE] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct mmsghdr msg[MESSAGES];
	struct iovec iov[MESSAGES];

	for (unsigned i = 0; i < MESSAGES; i++) {
		iov[i] = (struct iovec){room[i], MESSAGE};
		msg[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &iov[i], .msg_iovlen = 1}};
	}
	int n = recvmmsg(f->fd, msg, MESSAGES, MSG_DONTWAIT, NULL);
	if (n < 0) {
		if (errno == ENOBUFS) {
			read_again(f); // some were lost
			return true;
		}
		if (errno != EAGAIN && errno != EINTR)
			broken(f, "netlink", errno);
		return false;
	}
	for (int i = 0; i < n; i++) {
		size_t left = msg[i].msg_len;

		for (const struct nlmsghdr *h = (const void *)room[i]; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left))
			message(f, h);
		if (msg[i].msg_hdr.msg_flags & MSG_TRUNC)
			read_again(f);
	}
	return n > 0;
}

// ---- followers

static int open_socket(struct follower *f)
{
	struct sockaddr_nl local = {.nl_family = AF_NETLINK,
				    .nl_groups = RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE | RTMGRP_LINK | RTMGRP_IPV4_IFADDR};
	int size = BUFFER, one = 1;

	f->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	if (f->fd < 0)
		return -errno;
	if (setsockopt(f->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size))
		setsockopt(f->fd, SOL_SOCKET, SO_RCVBUF, &size,
			   sizeof size); // as much as may be; what it can't hold is read again
	setsockopt(f->fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &one, sizeof one); // before Linux 4.20 all tables come
	return bind(f->fd, (struct sockaddr *)&local, sizeof local) ? -errno : 0;
}

static void start_reading(struct follower *f)
{
	f->again = false;
	f->mark = route_new_mark();
	f->taken = f->left_out = 0;
	f->by_interface = false;
	f->interface = 0; // interfaces may have got other names
	f->problem[0] = '\0';
	f->readings++;
	if (f->fd >= 0 && f->state == BROKEN) {
		close(f->fd);
		f->fd = -1;
	}
	int rc = f->fd < 0 ? open_socket(f) : 0;
	if (rc)
		broken(f, "netlink", -rc);
	else
		dump(f, AF_INET);
}

// False: it is done with.
static bool run(struct follower *f, uint64_t until)
{
	while (f->state == ENDING && clock_ns() < until)
		if (!route_sweep(f->router, MAIN_TABLE, ROUTE_KERNEL, f->mark, &f->at, SWEEP_PREFIXES))
			return false;
	if (f->state == ENDING)
		return true;
	// A dump that is under way is read to its end first: the kernel has one at a time for a socket.
	if (f->again && (f->state == FOLLOWING || f->state == BROKEN || f->state == SWEEPING) && loop_msec() >= f->again_at)
		start_reading(f);
	while (f->state != BROKEN && clock_ns() < until && receive(f))
		;
	while (f->state == SWEEPING && clock_ns() < until)
		if (!route_sweep(f->router, MAIN_TABLE, ROUTE_KERNEL, f->mark, &f->at, SWEEP_PREFIXES)) {
			f->state = FOLLOWING;
			log_event('i', "route",
				  LOG_FIELDS({"router", route_router_name(f->router)}, {"routes", LOG_NUMBER(f->taken)}),
				  "the router has the routes of the kernel's table %u", f->number);
		}
	return true;
}

static void follower_free(struct follower *f)
{
	if (f->fd >= 0)
		close(f->fd);
	free(f);
}

void route_kernel_run(uint64_t until)
{
	for (struct follower **at = &followers; *at;) {
		struct follower *f = *at;

		if (run(f, until)) {
			at = &f->next;
			continue;
		}
		*at = f->next;
		follower_free(f);
	}
}

void route_kernel_wait(void)
{
	for (const struct follower *f = followers; f; f = f->next) {
		if (f->fd >= 0 && f->state != BROKEN)
			loop_wait_fd(f->fd);
		if (f->state == SWEEPING || f->state == ENDING)
			loop_wait_until(loop_msec());
		if (f->again)
			loop_wait_until(f->again_at);
	}
}

// Its routes go in slices, if no other follower replaces them.
static void end(struct follower *f)
{
	for (const struct follower *other = followers; other; other = other->next)
		if (other->router == f->router) {
			follower_free(f);
			return;
		}
	if (f->fd >= 0)
		close(f->fd);
	f->fd = -1;
	f->state = ENDING;
	f->again = false;
	f->mark = route_new_mark();
	f->at = (struct route_at){0};
	f->next = followers;
	followers = f;
}

static void note_devices(const struct config *c)
{
	struct device *d = calloc(c->n_ports + 1, sizeof *d);
	uint64_t sum = 14695981039346656037ULL;
	size_t n = 0;

	if (!d)
		return;
	for (size_t i = 0; i < c->n_ports; i++) {
		const struct config_port *p = &c->ports[i];
		const char *name = p->type ? config_map_get(&p->options, "iface", p->name) : NULL;
		const struct lport *lp = p->id ? lport_get(p->id) : NULL;

		if (!lp || !name || (strcmp(p->type, "tap") && strcmp(p->type, "kernel")) || strlen(name) >= sizeof d->name)
			continue;
		snprintf(d[n].name, sizeof d->name, "%s", name);
		d[n++].port = p->id;
		for (const char *s = name; *s; s++)
			sum = (sum ^ (uint8_t)*s) * 1099511628211ULL;
		const struct router_port *rp = NULL;
		while ((rp = router_port_in(lp->untagged.network, rp)))
			sum = (sum ^ rp->id ^ (uint64_t)rp->router << 16 ^ (uint64_t)rp->network << 32) * 1099511628211ULL;
	}
	free(devices);
	devices = d;
	n_devices = n;
	for (struct follower *f = followers; f && sum != devices_sum; f = f->next)
		if (f->by_interface || f->left_out)
			read_again(f);
	devices_sum = sum;
}

static uint32_t wanted_table(struct config_router *c)
{
	const char *bad = NULL, *text = config_map_get(&c->other_config, "netlink-table", NULL);
	uint32_t n = text ? (uint32_t)config_map_uint(&c->other_config, "netlink-table", 0, 1, UINT32_MAX, &bad) : 0;

	if (bad && text)
		sentence_set(
			&c->error,
			"other_config:netlink-table is the number of a routing table of the kernel, such as 254, not \"%s\"",
			text);
	return n;
}

static struct follower *follower_of(struct follower **list, const struct config_router *c, uint32_t number)
{
	for (struct follower **at = list; *at; at = &(*at)->next) {
		struct follower *f = *at;

		if (f->state != ENDING && f->router == c->id && f->number == number && row_id_equal(&f->row, &c->row)) {
			*at = f->next;
			return f;
		}
	}
	return NULL;
}

void route_kernel_reconcile(struct config *c)
{
	struct follower *old = followers;

	followers = NULL;
	for (size_t i = 0; i < c->n_routers; i++) {
		struct config_router *r = &c->routers[i];
		uint32_t n = r->id ? wanted_table(r) : 0;
		struct follower *f = n ? follower_of(&old, r, n) : NULL;

		if (!n || !route_router_name(r->id))
			continue;
		if (!f && (f = calloc(1, sizeof *f)))
			*f = (struct follower){
				.row = r->row, .router = r->id, .number = n, .fd = -1, .state = BROKEN, .again = true};
		if (!f)
			continue;
		f->next = followers;
		followers = f;
	}
	while (old) {
		struct follower *f = old;

		old = f->next;
		end(f);
	}
	note_devices(c);
}

void route_kernel_stop(void)
{
	while (followers) {
		struct follower *f = followers;

		followers = f->next;
		follower_free(f);
	}
	free(devices);
	devices = NULL;
	n_devices = 0;
}

void route_kernel_list(struct listing *l)
{
	static const char *const states[] = {[DUMPING_V4] = "loading",  [DUMPING_V6] = "loading", [SWEEPING] = "replacing",
					     [FOLLOWING] = "following", [BROKEN] = "waiting",     [ENDING] = "ending"};

	for (const struct follower *f = followers; f; f = f->next) {
		char from[48], note[200];

		snprintf(from, sizeof from, "kernel table %u", f->number);
		snprintf(note, sizeof note, "%s%sread %llu times, %llu changes", f->problem, f->problem[0] ? "; " : "",
			 (unsigned long long)f->readings, (unsigned long long)f->changes);
		// How many there are is known at the end.
		route_source_row(l, route_router_name(f->router), MAIN_TABLE, from, states[f->state],
				 f->state == FOLLOWING ? 100 : UINT_MAX, route_count(f->router, MAIN_TABLE, ROUTE_KERNEL),
				 f->left_out, note);
	}
}
