// multicast over tunnels: what the switch tells others of its ports, what it believes of them, and who routes for whom, with a
// clock moved by hand.
//
//     a, b, c -- blue, VNI 5000 --.         .-- peer, other: switches of the database
//     ra, rb --- red, VNI 5001 ---+-- [up] -+
//     g -------- green -----------'         '-- lone: somebody's, of `flood_to`
#include "group_message.h"
#include "lab.h"

#include <arpa/inet.h>
#include <stdio.h>

#define BLUE 5000
#define RED 5001
#define ROUTER_MAC "02:00:00:00:10:01"
#define HOP_MAC "02:00:00:00:10:02"

static struct config_network *under, *blue, *red, *green;
static uint16_t a, b, c, ra, rb, g, up, peer, other, lone;
static struct config_router *r1;
static const uint8_t station[6] = {2, 0, 0, 0, 0, 0x77};

static void set(struct config_map *m, const char *key, const char *value)
{
	size_t at = 0;

	while (at < m->n && strcmp(m->pair[at].key, key) < 0)
		at++;
	if (at < m->n && !strcmp(m->pair[at].key, key)) {
		free(m->pair[at].value);
		m->pair[at].value = strdup(value);
		return;
	}
	m->pair = realloc(m->pair, (m->n + 1) * sizeof *m->pair);
	memmove(&m->pair[at + 1], &m->pair[at], (m->n - at) * sizeof *m->pair);
	m->pair[at] = (struct config_pair){strdup(key), strdup(value)};
	m->n++;
}

static struct config_ip ip(const char *text)
{
	struct config_ip x = {.v6 = strchr(text, ':') != NULL};

	assert_int_equal(inet_pton(x.v6 ? AF_INET6 : AF_INET, text, x.b), 1);
	return x;
}

static struct config_network *network(const char *name, uint32_t vni)
{
	struct config_network *n = lab_network(name, 0);

	n->vni = vni;
	n->tunnel = strdup("vxlan");
	set(&n->multicast, "snooping", "true");
	set(&n->multicast, "unregistered", "drop");
	return n;
}

static uint16_t tunnel(const char *name, const char *remote, bool host)
{
	struct config_port *p = lab_port(name, VLAN_NETWORK_ID, NULL);
	struct config_remote r = {.ip = ip(remote), .name = strdup(name)};

	p->kind = PORT_TUNNEL;
	p->remote = r.ip;
	lab_trunk(p, blue);
	lab_trunk(p, red);
	r.host.b[0] = host;
	lab.config->remotes = realloc(lab.config->remotes, (lab.config->n_remotes + 1) * sizeof r);
	lab.config->remotes[lab.config->n_remotes++] = r;
	return p->id;
}

static void pass_ms(uint64_t ms)
{
	for (uint64_t step; ms > 100; ms -= step) {
		step = ms > 10000 ? 1000 : 100;
		lab_advance_ms(step);
		stage_find("multicast")->tick(lab.w.now);
	}
	lab_advance_ms(ms);
	lab_tick();
	lab_flush();
}

static void apply(void)
{
	lab_apply();
	lab_tick();
	lab_flush();
}

static int setup(void **state)
{
	lab_setup();
	under = lab_network("under", 7);
	blue = network("blue", BLUE);
	red = network("red", RED);
	green = lab_network("green", 30);
	set(&green->multicast, "snooping", "true");
	a = lab_port("a", VLAN_ACCESS, blue)->id;
	b = lab_port("b", VLAN_ACCESS, blue)->id;
	c = lab_port("c", VLAN_ACCESS, blue)->id;
	ra = lab_port("ra", VLAN_ACCESS, red)->id;
	rb = lab_port("rb", VLAN_ACCESS, red)->id;
	g = lab_port("g", VLAN_ACCESS, green)->id;
	struct config_port *up_port = lab_port("up", VLAN_ACCESS, under);
	up = up_port->id;
	lab_address(up_port, HOP_MAC);
	lab_ip(up_port, "192.0.2.2");
	lab_ip(up_port, "192.0.2.3");
	lab_ip(up_port, "192.0.2.4");
	struct config_router *r0 = lab_router("r0");
	lab_router_port("r0-under", r0, under, ROUTER_MAC, "192.0.2.1/24", NULL);
	lab.config->tunnel_ips = calloc(1, sizeof *lab.config->tunnel_ips);
	lab.config->tunnel_ips[0] = ip("192.0.2.1");
	lab.config->n_tunnel_ips = 1;
	peer = tunnel("peer", "192.0.2.2", true);
	other = tunnel("other", "192.0.2.3", true);
	lone = tunnel("lone", "192.0.2.4", false);
	lab_tick();
	apply();
	return 0;
}

static int teardown(void **state)
{
	lab_teardown();
	return 0;
}

static void settle(void)
{
	pass_ms(11500);
	lab_forget_sent();
}

// ---- what goes in and out

// A frame that left: by a port, or in a tunnel.
struct out {
	uint16_t port;
	uint32_t vni;
	const uint8_t *f;
	uint32_t len;
};

static struct out out_of(const struct lab_sent *s)
{
	const uint8_t *f = s->bytes;

	if (s->port != up || s->len < 50 || f[23] != 17 || f[36] != 0x12 || f[37] != 0xb5)
		return (struct out){s->port, 0, f, s->len};
	uint16_t to = f[33] == 2 ? peer : f[33] == 3 ? other : lone;
	return (struct out){to, (uint32_t)(f[46] << 16 | f[47] << 8 | f[48]), f + 50, s->len - 50};
}

static uint32_t wrap(uint8_t *o, uint16_t from, uint32_t vni, const uint8_t *frame, uint32_t len)
{
	static const uint8_t head[50] = {2,         0,  0,          0, 0x10, 1, 2,   0, 0, 0, 0x10, 2, 8,    0,    0x45,
					 [22] = 64, 17, [26] = 192, 0, 2,    0, 192, 0, 2, 1, 0xc0, 1, 0x12, 0xb5, [42] = 8};
	uint32_t sum = 0;

	memcpy(o, head, 50);
	memcpy(o + 50, frame, len);
	o[16] = (uint8_t)((len + 36) >> 8);
	o[17] = (uint8_t)(len + 36);
	o[29] = from == peer ? 2 : from == other ? 3 : 4;
	o[38] = (uint8_t)((len + 16) >> 8);
	o[39] = (uint8_t)(len + 16);
	o[46] = (uint8_t)(vni >> 16);
	o[47] = (uint8_t)(vni >> 8);
	o[48] = (uint8_t)vni;
	for (unsigned i = 14; i < 34; i += 2)
		sum += (uint32_t)(o[i] << 8 | o[i + 1]);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~((sum & 0xffff) + (sum >> 16)) & 0xffff;
	o[24] = (uint8_t)(sum >> 8);
	o[25] = (uint8_t)sum;
	return len + 50;
}

// vni 0: on the port itself.
static void come(uint16_t from, uint32_t vni, const uint8_t *frame, uint32_t len)
{
	uint8_t o[GROUP_FRAME_MAX + 50];

	lab_forget_sent();
	if (vni)
		lab_send_frame(up, o, wrap(o, from, vni, frame, len));
	else
		lab_send_frame(from, frame, len);
	lab_flush();
}

// Sends a packet for the group, with a TTL of 9, and says where it came out: "b ra-1 peer/5000" (hops that it lost; VNI).
static const char *go(uint16_t from, uint32_t vni, const char *src, const char *group)
{
	static char text[256];
	char match[256];
	uint8_t frame[LAB_FRAME];
	bool v6 = strchr(group, ':') != NULL;
	int n = 0;

	snprintf(match, sizeof match,
		 v6 ? "udp6,dl_src=02:00:00:00:00:10,ipv6_src=%s,ipv6_dst=%s,nw_ttl=9"
		    : "udp,dl_src=02:00:00:00:00:10,nw_src=%s,nw_dst=%s,nw_ttl=9",
		 src, group);
	come(from, vni, frame, lab_compose(frame, match));
	text[0] = '\0';
	for (uint16_t port = 1; port <= lone; port++) {
		for (unsigned i = 0; i < lab.n_sent; i++) {
			struct out o = out_of(&lab.sent[i]);

			if (o.port != port)
				continue;
			assert_int_equal(o.f[12], v6 ? 0x86 : 0x08);
			unsigned lost = 9u - (v6 ? o.f[21] : o.f[22]);
			n += snprintf(text + n, sizeof text - (size_t)n, "%s%s", n ? " " : "", lport_get(port)->name);
			if (lost)
				n += snprintf(text + n, sizeof text - (size_t)n, "-%u", lost);
			if (o.vni)
				n += snprintf(text + n, sizeof text - (size_t)n, "/%u", o.vni);
		}
	}
	return text;
}

// Of a report or a query.
static void say(uint16_t from, uint32_t vni, const char *src, uint8_t version, enum group_record_type type, const char *group)
{
	struct group_record r = {.type = type, .group = ip(group)};
	struct config_ip s = ip(src);
	uint8_t frame[GROUP_FRAME_MAX];

	come(from, vni, frame, group_write_report(frame, station, &s, version, &r));
}

static void ask(uint16_t from, uint32_t vni, const char *src, const char *group, uint8_t version)
{
	struct group_query q = {.src = ip(src), .version = version, .robustness = 2, .interval_s = 125, .response_ms = 1000};
	uint8_t frame[GROUP_FRAME_MAX];

	memcpy(q.mac, station, 6);
	q.group = group ? ip(group) : (struct config_ip){.v6 = q.src.v6};
	come(from, vni, frame, group_write_query(frame, &q));
}

// Messages of that kind that were sent there since; the last one, and the last record of a report. vni 0: of any.
static unsigned said(uint16_t to, uint32_t vni, enum group_message_kind kind, struct group_message *m, struct group_record *r)
{
	unsigned n = 0;

	for (unsigned i = 0; i < lab.n_sent; i++) {
		struct out o = out_of(&lab.sent[i]);
		bool v6 = o.f[12] == 0x86;
		struct group_message msg;

		if (o.port != to || (vni && o.vni != vni) || group_message_read(&msg, o.f + 14, o.len - 14, v6, v6 ? 48 : 24) ||
		    msg.kind != kind)
			continue;
		n++;
		*m = msg;
		while (kind == GROUP_REPORT && group_next_record(&msg, r))
			;
	}
	return n;
}

static unsigned reports(uint16_t to, uint32_t vni, enum group_record_type type)
{
	struct group_message m;
	struct group_record r;
	unsigned n = said(to, vni, GROUP_REPORT, &m, &r);

	if (n)
		assert_int_equal(r.type, type);
	return n;
}

static unsigned queries(uint16_t to)
{
	struct group_message m;
	struct group_record r;

	return said(to, 0, GROUP_QUERY, &m, &r);
}

struct family {
	const char *group, *src, *red_src, *none, *station, *low, *gw_blue, *gw_red;
};

static const struct family families[] = {
	{"239.1.1.1", "10.0.0.10", "10.2.0.10", "0.0.0.0", "10.0.0.77", "10.0.0.1", "10.0.0.200", "10.2.0.200"},
	{"ff05::1:1", "fd00::10", "fd02::10", "fe80::57:65ff:fe00:1388", "fe80::77", "fe80::1", "fe80::ff:fe00:2001",
	 "fe80::ff:fe00:2002"},
};

static void for_each(void (*fn)(const struct family *))
{
	settle();
	fn(&families[0]);
	fn(&families[1]);
}

// ---- one network

// Others hear from the switch, and not from its stations, that somebody here wants the group, and when the last one has left.
static void tells(const struct family *f)
{
	const uint16_t tunnels[] = {peer, other, lone};
	struct group_message m;
	struct group_record r;

	say(b, 0, f->station, 3, GROUP_TO_EX, f->group);
	lab_expect_trace("no router is to know, the switch does");
	pass_ms(100);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(reports(tunnels[i], BLUE, GROUP_TO_EX), 1);
		said(tunnels[i], BLUE, GROUP_REPORT, &m, &r);
		struct config_ip own = ip(f->none);
		assert_memory_equal(m.src.b, own.b, 16);
	}
	assert_int_equal(reports(peer, RED, 0), 0);
	pass_ms(1100); // twice, as one may be lost
	assert_int_equal(reports(peer, BLUE, GROUP_TO_EX), 2);
	say(c, 0, f->station, 2, GROUP_TO_EX, f->group);
	say(b, 0, f->station, 3, GROUP_TO_IN, f->group);
	pass_ms(3000);
	assert_int_equal(reports(peer, BLUE, 0), 0); // somebody wants it still
	say(c, 0, f->station, 2, GROUP_TO_IN, f->group);
	assert_int_equal(queries(peer), 0); // who is asked is the port that it came from
	assert_int_equal(reports(peer, BLUE, 0), 0);
	pass_ms(3500);
	assert_int_equal(reports(peer, BLUE, GROUP_TO_IN), 2);
	assert_int_equal(reports(lone, BLUE, GROUP_TO_IN), 2);
}

static void test_tells(void **state)
{
	for_each(tells);
}

static void hears(const struct family *f)
{
	assert_string_equal(go(a, 0, f->src, f->group), "");
	assert_int_equal(lab_drops(a, "multicast.UNREGISTERED"), 1 + 2 * (f->group[0] == 'f'));
	say(peer, BLUE, f->none, 3, GROUP_TO_EX, f->group);
	lab_expect_trace("no router is to know, the switch does");
	assert_int_equal(lab.n_sent, 0);
	assert_string_equal(go(a, 0, f->src, f->group), "peer/5000");
	lab_expect_trace("wanted by peer");
	// What comes from one switch goes to no other.
	say(b, 0, f->station, 3, GROUP_TO_EX, f->group);
	assert_string_equal(go(other, BLUE, f->src, f->group), "b");
	assert_string_equal(go(peer, BLUE, f->src, f->group), "b");
	assert_string_equal(go(a, 0, f->src, f->group), "b peer/5000");
	// A switch has asked its ports before it says that nobody is left: it is believed at once. Of others stations may be
	// left.
	say(lone, BLUE, f->station, 3, GROUP_TO_EX, f->group);
	assert_string_equal(go(a, 0, f->src, f->group), "b peer/5000 lone/5000");
	say(peer, BLUE, f->none, 3, GROUP_TO_IN, f->group);
	pass_ms(100);
	assert_int_equal(queries(peer), 0);
	assert_string_equal(go(a, 0, f->src, f->group), "b lone/5000");
	say(lone, BLUE, f->station, 2, GROUP_TO_IN, f->group);
	pass_ms(100);
	assert_int_equal(queries(lone), 1);
	assert_int_equal(queries(b) + queries(peer), 0);
	assert_string_equal(go(a, 0, f->src, f->group), "b lone/5000");
	pass_ms(2000);
	assert_string_equal(go(a, 0, f->src, f->group), "b");
	say(b, 0, f->station, 3, GROUP_TO_IN, f->group);
	pass_ms(2100);
	assert_string_equal(go(a, 0, f->src, f->group), "");
}

static void test_hears(void **state)
{
	for_each(hears);
}

// Who asks through a tunnel is answered there, by the switch, and nobody at its ports hears of it.
static void asked(const struct family *f)
{
	struct group_message m;
	struct group_record r;

	say(b, 0, f->station, 3, GROUP_TO_EX, f->group);
	pass_ms(3000);
	ask(peer, BLUE, f->low, NULL, 3);
	lab_expect_trace("asks who is in a group: the switch answers for its ports");
	assert_int_equal(lab.n_sent, 0);
	pass_ms(1000);
	assert_int_equal(reports(peer, BLUE, GROUP_IS_EX), 1);
	assert_int_equal(reports(other, BLUE, 0), 0);
	// For one group.
	ask(peer, BLUE, f->low, f->group[0] == 'f' ? "ff05::99" : "239.9.9.9", 3);
	pass_ms(1000);
	assert_int_equal(reports(peer, BLUE, 0), 0);
	ask(peer, BLUE, f->low, f->group, 3);
	pass_ms(1000);
	assert_int_equal(reports(peer, BLUE, GROUP_IS_EX), 1);
	// An old one takes old reports; that is its own affair.
	ask(lone, BLUE, f->low, NULL, 2);
	pass_ms(1000);
	assert_int_equal(said(lone, BLUE, GROUP_REPORT, &m, &r), 1);
	assert_int_equal(m.version, 2);
	ask(peer, BLUE, f->none, NULL, 3);
	pass_ms(1000);
	assert_int_equal(said(peer, BLUE, GROUP_REPORT, &m, &r), 1);
	assert_int_equal(m.version, 3);
	// The switch goes on asking its ports and the others, whatever address it was asked from.
	lab_forget_sent();
	pass_ms(130000);
	assert_true(queries(a) && queries(b) && queries(peer) && queries(lone));
	// A membership that nobody confirms ends, on both sides.
	lab_forget_sent();
	pass_ms(150000);
	assert_int_equal(reports(peer, BLUE, GROUP_TO_IN), 2);
}

static void test_asked(void **state)
{
	for_each(asked);
}

// A switch that dies, or forgets: what it wanted is forgotten too.
static void dies(const struct family *f)
{
	say(peer, BLUE, f->none, 3, GROUP_TO_EX, f->group);
	pass_ms(200000);
	assert_string_equal(go(a, 0, f->src, f->group), "peer/5000");
	say(peer, BLUE, f->none, 3, GROUP_IS_EX, f->group); // its answer
	pass_ms(255000);
	assert_string_equal(go(a, 0, f->src, f->group), "peer/5000");
	pass_ms(6000);
	assert_string_equal(go(a, 0, f->src, f->group), "");
}

static void test_dies(void **state)
{
	for_each(dies);
}

// A router with multicast behind another switch gets everything; one that only asks for reports, nothing more than it asked
// for.
static void routers_there(const struct family *f)
{
	ask(peer, BLUE, f->none, NULL, 3);
	assert_string_equal(go(a, 0, f->src, f->group), "");
	say(b, 0, f->station, 3, GROUP_TO_EX, f->group);
	assert_string_equal(go(a, 0, f->src, f->group), "b");
	ask(peer, BLUE, f->low, NULL, 3);
	assert_string_equal(go(a, 0, f->src, f->group), "b peer/5000");
	lab_expect_trace("peer (a router's)");
	// A querier at a port hears what the others say, and asks the others too.
	ask(c, 0, f->low, NULL, 3);
	assert_true(queries(a) && queries(peer) && queries(lone));
	say(other, BLUE, f->none, 3, GROUP_TO_EX, f->group);
	assert_int_equal(lab.n_sent, 1);
	assert_int_equal(lab.sent[0].port, c);
	say(b, 0, f->station, 3, GROUP_TO_IN, f->group);
	say(other, BLUE, f->none, 3, GROUP_TO_IN, f->group);
	pass_ms(5000);
}

static void test_routers_there(void **state)
{
	for_each(routers_there);
}

// Before anybody's ports have been heard, reports go to all of them, but not to other switches.
static void unsettled(void **state)
{
	lab_forget_sent();
	say(b, 0, "10.0.0.77", 3, GROUP_TO_EX, "239.1.1.1");
	lab_expect_trace("flooded, as nobody has asked in the network yet");
	assert_int_equal(lab.n_sent, 2);
	assert_true(lab_sent_to(a) && lab_sent_to(c));
	pass_ms(100);
	assert_int_equal(reports(peer, BLUE, GROUP_TO_EX), 1);
	assert_string_equal(go(a, 0, "10.0.0.10", "239.7.7.7"), "b c peer/5000 other/5000 lone/5000");
}

// Tunnels come and go; the new one is told what there is.
static void tunnels_change(void **state)
{
	settle();
	say(b, 0, "10.0.0.77", 3, GROUP_TO_EX, "239.1.1.1");
	for (unsigned i = 0; i < 100; i++) {
		char group[32];

		snprintf(group, sizeof group, "239.2.0.%u", i);
		say(i & 1 ? b : c, 0, "10.0.0.77", 3, GROUP_TO_EX, group);
	}
	pass_ms(2000);
	lab.config->ports[peer - 1].enabled = false;
	apply();
	assert_string_equal(go(a, 0, "10.0.0.10", "239.1.1.1"), "b");
	lab.config->ports[peer - 1].enabled = true;
	lab_forget_sent();
	apply();
	pass_ms(1000);
	assert_int_equal(reports(peer, BLUE, GROUP_IS_EX), 101);
	assert_int_equal(reports(other, BLUE, 0), 0);
}

// Where the network's querier is elsewhere, it is told to all.
static void querier_elsewhere(void **state)
{
	set(&blue->multicast, "querier", "false");
	apply();
	lab_forget_sent();
	ask(peer, BLUE, "10.0.0.1", NULL, 3);
	lab_expect_trace("everybody hears it");
	assert_int_equal(lab.n_sent, 3);
	pass_ms(2500);
	say(b, 0, "10.0.0.77", 3, GROUP_TO_EX, "239.1.1.1");
	pass_ms(3000);
	ask(peer, BLUE, "10.0.0.1", NULL, 3);
	pass_ms(1100);
	assert_int_equal(reports(peer, BLUE, GROUP_IS_EX), 1);
	assert_int_equal(reports(other, BLUE, GROUP_IS_EX), 1);
	assert_string_equal(go(a, 0, "10.0.0.10", "239.1.1.1"), "b peer/5000");
}

// ---- a router on all switches

static void with_router(bool upstream)
{
	r1 = lab_router("r1");
	set(&r1->other_config, "multicast", "true");
	if (upstream)
		set(&r1->other_config, "multicast-upstream", "r1-green");
	lab_router_port("r1-blue", r1, blue, "02:00:00:00:20:01", "10.0.0.200/24", "fd00::200/64", NULL);
	lab_router_port("r1-red", r1, red, "02:00:00:00:20:02", "10.2.0.200/24", "fd02::200/64", NULL);
	lab_router_port("r1-green", r1, green, "02:00:00:00:20:03", "10.3.0.200/24", "fd03::200/64", NULL);
	apply();
	settle();
}

static void routed(const struct family *f)
{
	// Wanted in red: it is asked for in both networks, as sources may be in either, from the router's address.
	say(ra, 0, f->station, 3, GROUP_TO_EX, f->group);
	pass_ms(100);
	assert_int_equal(reports(peer, BLUE, GROUP_TO_EX), 1);
	assert_int_equal(reports(peer, RED, GROUP_TO_EX), 1);
	assert_string_equal(go(a, 0, f->src, f->group), "ra-1");
	// Out of a tunnel, for the ports of this switch.
	assert_string_equal(go(peer, BLUE, f->src, f->group), "ra-1");
	lab_expect_trace("routed to ports of this switch only");
	assert_string_equal(go(peer, RED, f->red_src, f->group), "ra");
	// The peer has the same router, and somebody there, in whichever network: it gets one packet, in the source's network,
	// and routes.
	say(peer, BLUE, f->gw_blue, 3, GROUP_TO_EX, f->group);
	say(peer, RED, f->gw_red, 3, GROUP_TO_EX, f->group);
	assert_string_equal(go(a, 0, f->src, f->group), "ra-1 peer/5000");
	lab_expect_trace("wanted by peer, ra in red");
	assert_string_equal(go(rb, 0, f->red_src, f->group), "ra peer/5001");
	say(b, 0, f->station, 3, GROUP_TO_EX, f->group);
	assert_string_equal(go(rb, 0, f->red_src, f->group), "b-1 ra peer/5001");
	assert_string_equal(go(peer, RED, f->src, f->group), "ra"); // not where its source is
	lab_expect_trace("not routed, as its source is behind r1-blue");
	// Who has no router gets routed packets from the switch that they came to first.
	say(lone, RED, f->station, 3, GROUP_TO_EX, f->group);
	assert_string_equal(go(a, 0, f->src, f->group), "b ra-1 peer/5000 lone-1/5001");
	assert_string_equal(go(peer, BLUE, f->src, f->group), "b ra-1");
	assert_string_equal(go(other, BLUE, f->src, f->group), "b ra-1");
	say(lone, RED, f->station, 3, GROUP_TO_IN, f->group);
	say(peer, BLUE, f->gw_blue, 3, GROUP_TO_IN, f->group);
	say(peer, RED, f->gw_red, 3, GROUP_TO_IN, f->group);
	say(b, 0, f->station, 3, GROUP_TO_IN, f->group);
	pass_ms(2500);
	assert_string_equal(go(a, 0, f->src, f->group), "ra-1");
	say(ra, 0, f->station, 3, GROUP_TO_IN, f->group);
	pass_ms(4000);
	assert_string_equal(go(a, 0, f->src, f->group), "");
}

static void test_routed(void **state)
{
	with_router(false);
	for_each(routed);
	// Without the router networks speak for themselves again.
	say(ra, 0, "10.2.0.77", 3, GROUP_TO_EX, "239.1.1.1");
	pass_ms(2000);
	set(&r1->other_config, "multicast", "false");
	lab_forget_sent();
	apply();
	pass_ms(2000);
	assert_true(reports(peer, RED, GROUP_TO_EX) > 0);
	assert_int_equal(reports(peer, BLUE, 0), 0);
	lab_forget_sent();
	ask(peer, BLUE, "0.0.0.0", NULL, 3);
	pass_ms(1000);
	assert_int_equal(reports(peer, BLUE, 0), 0);
}

// The switch that a packet comes to first sends it upstream, whichever switch the upstream router is at.
static void upstream(const struct family *f)
{
	const char *green_src = f->group[0] == 'f' ? "fd03::5" : "10.3.0.5",
		   *green_low = f->group[0] == 'f' ? "fe80::1" : "10.3.0.1";

	ask(g, 0, green_low, NULL, 3);
	pass_ms(2000);
	assert_string_equal(go(a, 0, f->src, f->group), "g-1"); // nobody asked
	assert_string_equal(go(peer, BLUE, f->src, f->group), "");
	say(ra, 0, f->station, 3, GROUP_TO_EX, f->group);
	pass_ms(100);
	assert_int_equal(reports(g, 0, GROUP_TO_EX), 1);
	assert_string_equal(go(a, 0, f->src, f->group), "ra-1 g-1");
	assert_string_equal(go(peer, BLUE, f->src, f->group), "ra-1");
	assert_string_equal(go(g, 0, green_src, f->group), "ra-1");
	say(peer, BLUE, f->gw_blue, 3, GROUP_TO_EX, f->group);
	// The peer gets it in green if it is to have it, or asks for it itself.
	assert_string_equal(go(g, 0, green_src, f->group), "ra-1");
	// A member there beside the router is served with it.
	say(g, 0, green_low, 3, GROUP_TO_EX, f->group);
	assert_string_equal(go(a, 0, f->src, f->group), "ra-1 g-1 peer/5000");
	assert_string_equal(go(peer, BLUE, f->src, f->group), "ra-1");
}

static void test_upstream(void **state)
{
	with_router(true);
	for_each(upstream);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_tells, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hears, setup, teardown),
		cmocka_unit_test_setup_teardown(test_asked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_routers_there, setup, teardown),
		cmocka_unit_test_setup_teardown(unsettled, setup, teardown),
		cmocka_unit_test_setup_teardown(tunnels_change, setup, teardown),
		cmocka_unit_test_setup_teardown(querier_elsewhere, setup, teardown),
		cmocka_unit_test_setup_teardown(test_routed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_upstream, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
