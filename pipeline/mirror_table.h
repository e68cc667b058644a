// mirror_table: what the stages mirror (packets that come in) and mirror_egress (packets that leave) share: which mirrors concern a port, from table Mirror.
#ifndef PIPELINE_MIRROR_TABLE_H
#define PIPELINE_MIRROR_TABLE_H

#include "stage.h"

// Written by its worker, read by anybody.
struct mirror_tally {
	uint64_t packets, bytes;
} __attribute__((aligned(64)));

// What a mirror does. Compared as a whole with what it did: no padding, no pointers.
struct mirror_spec {
	struct row_id id;
	uint32_t row;
	uint16_t output;  // port, 0: none
	uint16_t network; // whose ports get the copies, 0: none
	uint32_t snaplen; // 0: all of a packet
	uint16_t tunnel;  // port of the tunnel to the analyser, 0: none
	uint16_t session; // of ERSPAN
	uint64_t networks[MAX_NETWORKS / 64]; // whose packets; bit 0: those without one
	uint64_t src[MAX_PORTS / 64], dst[MAX_PORTS / 64];
};

struct mirror {
	struct mirror_spec spec;
	struct mirror_tally *count; // [MAX_WORKERS]; stays when the mirror changes
	uint32_t *sequence;         // of ERSPAN packets; stays too, at the end of `count`
};

// The mirrors of one port, immutable once published.
struct mirror_port {
	uint32_t reserved_by; // row of a mirror that writes to it, 0: none
	uint16_t n_src, n_dst;
	const struct mirror *mirror[]; // n_src, then n_dst
};

extern struct mirror_port *mirror_ports[MAX_PORTS]; // RCU, NULL: none
extern bool mirror_any_dst; // some mirror selects ports that packets leave by; read atomically

static inline bool mirror_bit(const uint64_t *bits, uint16_t n)
{
	return bits[n / 64] >> n % 64 & 1;
}

// Whether the mirror copies packets of the network that came in by the port.
static inline bool mirror_selects_src(const struct mirror *m, uint16_t port, uint16_t network)
{
	return mirror_bit(m->spec.src, port) && mirror_bit(m->spec.networks, network);
}

// A copy of the packet as it is now, with `tag` (vlan_between()).
void mirror_copy(struct worker *, struct pkt *, const struct mirror *, int tag);

// The stage contract's, of stage mirror.
int mirror_prepare(struct config *);
int mirror_reconcile(struct config *);
void mirror_count(stage_count_fn *, void *arg);
void mirror_fini(void);
// The reason for which a copy is lost whose port is gone, and others that the table's functions need.
uint16_t mirror_reason_no_port(void);

#endif
