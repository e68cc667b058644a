// route_line: routes as text, the way ip-route(8) prints them.
//
//     10.0.0.0/8 via 10.1.0.1 metric 10
//     default via fe80::1 dev red-uplink
//     blackhole 192.0.2.0/24
//     2001:db8::/32 metric 5
//             nexthop via 2001:db8:1::1 weight 1
//             nexthop via 2001:db8:1::2 weight 3
//
// A line that begins with white space and "nexthop" belongs to the route before it. "dev" names a router port; with "via"
// another name is left out, as the port follows from the gateway. What a line says of protocols, scopes, sources and metrics of
// TCP is read and not used.
#ifndef PIPELINE_ROUTE_LINE_H
#define PIPELINE_ROUTE_LINE_H

#include "route_table.h"

struct route_line {
	struct route_spec spec; // spec.hop is `hop`
	struct route_hop hop[ROUTE_HOPS_MAX];
};

enum route_line_is {
	ROUTE_LINE_EMPTY, // or a comment, #
	ROUTE_LINE_ROUTE,
	ROUTE_LINE_NEXT_HOP, // one or more next hops were added to *l
	ROUTE_LINE_BAD,      // *error is a sentence; *l may be partly filled, but what it had of next hops stays
};

// What the line is, before it is taken apart: ROUTE_LINE_EMPTY, ROUTE_LINE_ROUTE or ROUTE_LINE_NEXT_HOP.
enum route_line_is route_line_kind(const char *text);
// `port`: lport id of the router port of this name; 0: there is none.
enum route_line_is route_line_parse(struct route_line *l, const char *text, uint16_t (*port)(void *arg, const char *name),
				    void *arg, char **error);

#endif
