// Whatever a guest sends: a lab worker takes frames and their offloads from the fuzzer, through ports of every mode, and accounts for all of them.
//
// The input is a list of records: operation, port, flags, length (two bytes), that many bytes.
#include "lab.h"

#include <stdio.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct config_port *ports[7];
#define PORTS (sizeof ports / sizeof ports[0])

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const char *const names[] = {"access", "trunk", "native-tagged", "native-untagged", "tunnel", "other", "small"};

	lab_setup();
	lab.keep = lab.traced = false;
	struct config_network *blue = lab_network("blue", 10), *red = lab_network("red", 20);
	for (unsigned i = 0; i < PORTS; i++)
		ports[i] = lab_port(names[i], i < 5 ? (enum vlan_mode)i : VLAN_ACCESS, i == 1 ? NULL : i == 5 ? red : blue);
	ports[6]->mtu = 100;
	ports[6]->isolated = ports[0]->isolated = true;
	ports[3]->storm_broadcast = (struct config_rate){100, 10};
	red->mac_limit = 3;
	lab_apply();
	return 0;
}

static struct rte_mbuf *packet(const uint8_t *frame, uint32_t len, uint8_t flags)
{
	struct rte_mbuf *m = lab_mbuf(frame, len, flags & 1 ? 1 + flags / 2 % 64 : 0);

	if (flags & 0x80)
		m->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_NONE;
	if ((flags & 0xc0) == 0xc0) {
		m->ol_flags |= RTE_MBUF_F_RX_LRO;
		m->tso_segsz = (uint16_t)((flags & 0x3f) * 32 + (len & 31));
	}
	return m;
}

static void operate(uint8_t op, uint8_t port, uint8_t flags, const uint8_t *frame, uint32_t len)
{
	uint16_t id = ports[port % PORTS]->id;
	struct rte_mbuf *m;

	lab.traced = op & 0x80;
	switch (op & 7) {
	case 0:
		lab_advance_ms(len);
		break;
	case 1:
		free(lab_explain(id, packet(frame, len, flags), NULL, NULL));
		break;
	case 2: // wait for a decision
		lab.w.resolve_budget = 0;
		m = packet(frame, len, flags);
		forward_burst(&lab.w, id, &m, 1);
		lab.w.resolve_budget = 64;
		break;
	default:
		m = packet(frame, len, flags);
		forward_burst(&lab.w, id, &m, 1);
	}
}

static void forget(void)
{
	const char *argv[] = {"fdb/flush"};
	char *error = NULL;

	for (const struct stage_verb *v = stage_find("fdb")->verbs; v->name; v++)
		if (!strcmp(v->name, argv[0]))
			free(v->run(1, argv, false, &error));
	free(error);
	for (unsigned i = 0; i < PORTS; i++)
		flow_table_drop_port(lab.w.flows, ports[i]->id);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (size_t at = 0; at + 5 <= size;) {
		uint32_t len = (uint32_t)(data[at + 3] << 8 | data[at + 4]) % 4096;

		if (len > size - at - 5)
			len = (uint32_t)(size - at - 5);
		operate(data[at], data[at + 1], data[at + 2], data + at + 5, len);
		at += 5 + len;
	}
	for (unsigned i = 0; i < PORTS; i++)
		while (forward_misses(&lab.w, ports[i]->id))
			;
	lab_flush();
	lab_check();
	forget(); // each input begins with nothing known
	rcu_poll();
	return 0;
}
