// bond_verbs: what the control socket says of bonds.
#include "bond.h"
#include "control.h"
#include "listing.h"
#include "verbs.h"

#include <stdio.h>
#include <string.h>

static const char *member_state(const struct bond *b, unsigned place)
{
	const struct bond_member *m = &b->member[place];

	if (!m->device)
		return "not open";
	if (!m->up)
		return "down";
	if (b->sending >> place & 1)
		return "in use";
	return b->receiving >> place & 1 ? "receives" : "stands by";
}

// The bond of this name, or each one; NULL and an answer: there is no such bond.
static bool wanted(struct control_request *r, const char *name)
{
	for (const struct bond *b = bonds; b && name; b = b->next)
		if (!strcmp(b->name, name))
			return true;
	if (name)
		verbs_refuse(r, "there is no bond %s: see weirctl bond list", name);
	return !name;
}

static void bond_list(struct control_request *r, int argc, const char *argv[], void *aux)
{
	static const char *const modes[] = {"active-backup", "balance", "802.3ad"};
	bool json = verbs_take_json(&argc, argv);
	const char *name = argc > 1 ? argv[1] : NULL;

	if (!wanted(r, name))
		return;
	struct listing *l = listing_new();
	listing_column(l, "bond", "BOND");
	listing_column(l, "mode", "MODE");
	listing_column(l, "member", "MEMBER");
	listing_column(l, "state", "STATE");
	listing_column(l, "rx_packets", "RX PACKETS");
	listing_column(l, "rx_bytes", "RX BYTES");
	listing_column(l, "tx_packets", "TX PACKETS");
	listing_column(l, "tx_bytes", "TX BYTES");
	listing_column(l, "link_losses", "LINK LOSSES");
	for (const struct bond *b = bonds; b; b = b->next)
		for (unsigned i = 0; i < BOND_MEMBERS; i++) {
			const struct port *p = b->member[i].port ? port_get(b->member[i].port) : NULL;
			struct bond_count sum;

			if (!p || (name && strcmp(b->name, name)))
				continue;
			bond_count_sum(b, i, &sum);
			listing_row(l);
			listing_str(l, b->name);
			listing_str(l, modes[b->mode]);
			listing_str(l, p->name);
			listing_str(l, member_state(b, i));
			listing_uint(l, sum.rx_packets);
			listing_uint(l, sum.rx_bytes);
			listing_uint(l, sum.tx_packets);
			listing_uint(l, sum.tx_bytes);
			listing_uint(l, b->member[i].losses);
		}
	verbs_reply(r, l, json);
}

static void list_info(struct listing *l, const struct lacp_info *i)
{
	char state[96];

	listing_fmt(l, "%02x:%02x:%02x:%02x:%02x:%02x", i->system[0], i->system[1], i->system[2], i->system[3], i->system[4], i->system[5]);
	listing_uint(l, i->key);
	listing_uint(l, i->port);
	listing_str(l, lacp_state_text(i->state, state));
}

static void lacp_list(struct control_request *r, int argc, const char *argv[], void *aux)
{
	static const char *const keys[][2] = {
		{"bond", "BOND"}, {"member", "MEMBER"}, {"mux", "MUX"}, {"receive", "RECEIVE"}, {"selected", "SELECTED"}, {"actor_system", "ACTOR SYSTEM"},
		{"actor_key", "KEY"}, {"actor_port", "PORT"}, {"actor_state", "STATE"}, {"partner_system", "PARTNER SYSTEM"}, {"partner_key", "KEY"},
		{"partner_port", "PORT"}, {"partner_state", "STATE"},
#define X(name, text) {#name, #name},
		LACP_COUNTS(X)
#undef X
	};
	bool json = verbs_take_json(&argc, argv);
	const char *name = argc > 1 ? argv[1] : NULL;

	if (!wanted(r, name))
		return;
	struct listing *l = listing_new();
	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
		listing_column(l, keys[i][0], keys[i][1]);
	for (const struct bond *b = bonds; b; b = b->next)
		for (unsigned i = 0; i < BOND_MEMBERS; i++) {
			const struct port *p = b->member[i].port ? port_get(b->member[i].port) : NULL;
			const struct lacp_port *lp = &b->lacp.port[i];

			if (!p || b->mode != BOND_LACP || (name && strcmp(b->name, name)))
				continue;
			listing_row(l);
			listing_str(l, b->name);
			listing_str(l, p->name);
			listing_str(l, lacp_mux_name(lp->mux));
			listing_str(l, lacp_receive_name(lp->receive));
			listing_bool(l, lp->selected);
			list_info(l, &lp->actor);
			list_info(l, &lp->partner);
#define X(name, text) listing_uint(l, lp->name);
			LACP_COUNTS(X)
#undef X
		}
	verbs_reply(r, l, json);
}

void bond_verbs_init(void)
{
	control_register("bond/list", "[--json] [BOND]", 0, 2, bond_list, NULL);
	control_register("lacp/list", "[--json] [BOND]", 0, 2, lacp_list, NULL);
}
