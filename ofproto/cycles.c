// cycles: see cycles.h.
#include "cycles.h"

#include <rte_cycles.h>

const struct cycles_desc cycles_desc[CYCLES_STAGES] = {
#define X(id, name, text) [CYCLES_##id] = {name, text},
	CYCLES_PARTS(X)
#undef X
};

static inline void add(uint64_t *to, uint64_t n)
{
	__atomic_store_n(to, *to + n, __ATOMIC_RELAXED);
}

static inline uint64_t get(const uint64_t *from)
{
	return __atomic_load_n(from, __ATOMIC_RELAXED);
}

void cycles_book(struct cycles *c, unsigned part, unsigned packets)
{
	uint64_t now = rte_rdtsc();

	add(&c->part[part].cycles, now - c->last);
	add(&c->part[part].packets, packets);
	c->last = now;
}

void load_init(struct port_load *l)
{
	// The first of everything is measured, so that a port with few packets has figures too.
	l->flushes_left = 1;
	l->turns_left = 1;
}

void load_fold(struct port_load *to, const struct port_load *from)
{
	add(&to->rx_cycles, from->rx_cycles);
	add(&to->resolve_cycles, from->resolve_cycles);
	add(&to->tx_cycles, from->tx_cycles);
	histogram_merge(&to->latency, &from->latency);
}

void load_read(const struct port_load *l, struct port_load *sum)
{
	sum->rx_cycles += get(&l->rx_cycles);
	sum->resolve_cycles += get(&l->resolve_cycles);
	sum->tx_cycles += get(&l->tx_cycles);
	histogram_merge(&sum->latency, &l->latency);
}

void load_resolved(struct port_load *l, unsigned n, uint64_t cycles)
{
	l->resolved_since += n;
	if (!cycles || !n)
		return;
	add(&l->resolve_cycles, cycles * l->resolved_since / n);
	l->resolved_since = 0;
}

void load_sent(struct port_load *l, uint64_t cycles, const struct load_row *row, unsigned rows)
{
	uint64_t n = 0, seen = 0, given = 0;

	for (unsigned i = 0; i < rows; i++)
		n += row[i].packets;
	if (!n)
		return;
	uint64_t since = l->sent_since + n;
	add(&l->tx_cycles, cycles * since / n);
	// Each row has its share of the packets that the flush stands for.
	for (unsigned i = 0; i < rows; i++) {
		seen += row[i].packets;
		uint64_t share = since * seen / n - given;

		histogram_add(&l->latency, row[i].ns, share);
		given += share;
	}
	l->sent_since = 0;
}
