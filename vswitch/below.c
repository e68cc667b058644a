// below: packets that were lost below the switch, in devices, the vhost library and the kernel.
#include "ledger.h"

#include <string.h>

struct below {
	struct listing *l;
	const struct port *only; // NULL: all
	bool lost;               // no row for 0
};

static void add_port(struct port *p, void *arg)
{
	const struct below *b = arg;
	struct port_state s;

	if (b->only && b->only != p)
		return;
	port_state(p, &s);
	for (unsigned i = 0; i < LOSS_N; i++) {
		if (s.loss[i] == LOSS_NONE || (b->lost && (!s.loss[i] || s.loss[i] == LOSS_UNKNOWN)))
			continue;
		listing_row(b->l);
		listing_str(b->l, p->name);
		listing_str(b->l, port_loss_desc[i].key);
		if (s.loss[i] == LOSS_UNKNOWN)
			listing_json(b->l, "unknown", "\"unknown\"");
		else
			listing_uint(b->l, s.loss[i]);
		listing_str(b->l, port_loss_desc[i].text);
	}
}

struct listing *below_listing(const struct port *only, bool lost)
{
	struct below b = {listing_new(), only, lost};

	listing_column(b.l, "port", "PORT");
	listing_column(b.l, "loss", "WHERE");
	listing_column(b.l, "packets", "PACKETS");
	listing_column(b.l, "text", "WHY");
	port_each(add_port, &b);
	return b.l;
}
