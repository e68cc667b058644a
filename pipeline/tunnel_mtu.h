// tunnel_mtu: what the paths to remote end points take, as routers on them say (RFC 1191, RFC 8201). Main thread, but for tunnel_mtu_concerns().
//
// An ICMP error is believed if it is about a packet that this switch may have sent: from its end point to one of a tunnel, in a format and of a VNI that it
// has, larger than what is said to fit. Who is not on the path can make such errors up, so what they do is bounded: one MTU for each tunnel, forgotten
// TUNNEL_MTU_S after the last error; and none is believed to take less than
//   IPv4  576 bytes, which every host takes (RFC 791; it could say 68),
//   IPv6  1,280 bytes, which every link takes (RFC 8200 section 5).
// The tunnel's MTU follows, but not below TUNNEL_MTU_INNER, as guests' IPv6 needs that of a link. Where the path doesn't take so much with the headers in front, packets
// of the tunnel leave in fragments (RFC 4459 section 3.1), and the other end puts them together.
#ifndef PIPELINE_TUNNEL_MTU_H
#define PIPELINE_TUNNEL_MTU_H

#include "config.h"
#include "tunnel.h"

#define TUNNEL_MTU_S 600 // RFC 1191 section 6.3, RFC 8201 section 4
#define TUNNEL_MTU_MIN4 576
#define TUNNEL_MTU_MIN6 1280
#define TUNNEL_MTU_INNER 1280

// Workers: whether tunnel_mtu_learn() is to see an ICMP error for an address of the router.
bool tunnel_mtu_concerns(uint16_t router, bool v6, const uint8_t *dst, uint8_t type);
// A packet that concerns it, parsed. False: it isn't believed.
bool tunnel_mtu_learn(struct rte_mbuf *);
// Bytes of layer 3 that the path to the remote end point takes, and for how many seconds that is believed; 0: nobody said.
uint16_t tunnel_mtu_path(const struct config_ip *remote, unsigned *seconds);
// What is left of a tunnel's MTU `mtu`, whose headers take `overhead`, on that path.
uint16_t tunnel_mtu_inner(const struct config_ip *remote, unsigned mtu, unsigned overhead);
// The config is to be applied once more, as a path is another one.
bool tunnel_mtu_stale(void);
// Before tunnel_mtu_inner() is asked for that config; when the new table is there.
void tunnel_mtu_prepare(const struct config *);
void tunnel_mtu_reconcile(const struct tunnel_table *);
void tunnel_mtu_tick(uint64_t now);
void tunnel_mtu_fini(void);

#endif
