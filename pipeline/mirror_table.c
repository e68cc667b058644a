// mirror_table: from rows of table Mirror to what the stages look at. See mirror_table.h.
#include "mirror_table.h"
#include "forward.h"
#include "sentence.h"
#include "tunnel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct mirror_port *mirror_ports[MAX_PORTS];
bool mirror_any_dst;

static struct mirror **mirrors; // those in force
static size_t n_mirrors;
static struct mirror_spec *next; // those of the config that is about to be applied
static size_t n_next;

static void set_bit(uint64_t *bits, uint16_t n)
{
	bits[n / 64] |= 1ULL << n % 64;
}

// ---- copies

void mirror_copy(struct worker *w, struct pkt *p, const struct mirror *m, int tag)
{
	const struct network *net = m->spec.network ? network_get(m->spec.network) : NULL;
	const struct lport *out = m->spec.output ? lport_get(m->spec.output) : NULL;

	if (!w->dry) {
		struct mirror_tally *c = &m->count[w->id];

		__atomic_store_n(&c->packets, c->packets + 1, __ATOMIC_RELAXED);
		__atomic_store_n(&c->bytes, c->bytes + pkt_mbuf(p)->pkt_len, __ATOMIC_RELAXED);
	}
	const struct lport *tunnel = m->spec.tunnel ? lport_get(m->spec.tunnel) : NULL;
	if (tunnel && tunnel->enabled) {
		struct tunnel_span span = {.session = m->spec.session, .sequence = m->sequence};

		forward_span(w, p, tunnel, tag, m->spec.snaplen, &span);
		return;
	}
	if (out && out->enabled) {
		forward_mirror(w, p, out, tag, m->spec.snaplen);
		return;
	}
	for (uint32_t i = 0; net && i < net->n_targets; i++) {
		const struct lport *to = lport_get(net->target[i].port);

		if (to)
			forward_mirror(w, p, to, lport_tag(to, net), m->spec.snaplen);
	}
	if (net)
		return;
	worker_count(w, p->origin, COUNT_COPIES, 1);
	worker_lose(w, pkt_mbuf(p), mirror_reason_no_port(), m->spec.row);
	if (p->trace) {
		struct core_record rec = {.kind = CORE_DROPPED, .port = m->spec.output, .reason = mirror_reason_no_port()};

		trace_put(p->trace, TRACE_CORE, &rec, sizeof rec);
	}
}

// ---- from rows

static struct config_port *find_port(struct config *c, const struct row_id *id)
{
	for (size_t i = 0; i < c->n_ports; i++)
		if (c->ports[i].id && row_id_equal(&c->ports[i].row, id))
			return &c->ports[i];
	return NULL;
}

static bool has_vlan(const struct config_mirror *cm, uint16_t vlan)
{
	for (size_t i = 0; i < cm->n_vlans; i++)
		if (cm->vlans[i] == vlan)
			return true;
	return !cm->n_vlans;
}

// Which networks' packets; not those of the network that gets the copies.
static int find_networks(const struct config *c, struct config_mirror *cm, struct mirror_spec *s)
{
	bool found = !cm->has_network;

	if (!cm->has_network && !cm->n_vlans)
		set_bit(s->networks, 0);
	for (size_t i = 0; i < c->n_networks; i++) {
		const struct config_network *n = &c->networks[i];

		if (!n->id || n->error)
			continue;
		bool mine = !cm->has_network || row_id_equal(&n->row, &cm->network);
		found |= mine;
		if (cm->output_vlan && n->vlan == cm->output_vlan)
			s->network = n->id;
		else if (mine && has_vlan(cm, n->vlan))
			set_bit(s->networks, n->id);
	}
	if (!found)
		return sentence_fail(-EINVAL, &cm->error, "network: it is not there yet");
	if (cm->output_vlan && !s->network)
		return sentence_fail(-EINVAL, &cm->error, "output_vlan: there is no network with VLAN %u yet", cm->output_vlan);
	return 0;
}

static void find_ports(struct config *c, const struct config_mirror *cm, struct mirror_spec *s)
{
	for (size_t i = 0; i < c->n_ports && cm->select_all; i++)
		if (c->ports[i].id)
			set_bit(s->src, c->ports[i].id);
	for (size_t i = 0; i < cm->n_src; i++) {
		const struct config_port *p = find_port(c, &cm->src[i]);

		if (p)
			set_bit(s->src, p->id);
	}
	for (size_t i = 0; i < cm->n_dst; i++) {
		const struct config_port *p = find_port(c, &cm->dst[i]);

		if (p)
			set_bit(s->dst, p->id);
	}
}

static int find_tunnel(const struct config *c, struct config_mirror *cm, struct mirror_spec *s)
{
	bool family = false;

	for (size_t i = 0; i < c->n_tunnel_ips; i++)
		family |= c->tunnel_ips[i].v6 == cm->address.v6;
	for (size_t i = 0; i < c->n_ports && !s->tunnel; i++) {
		const struct config_port *p = &c->ports[i];

		if (p->kind == PORT_TUNNEL && p->remote.v6 == cm->address.v6 && !memcmp(p->remote.b, cm->address.b, cm->address.v6 ? 16 : 4))
			s->tunnel = p->id;
	}
	if (!s->tunnel)
		return sentence_fail(-EINVAL, &cm->error, family ? "output_address: it is this switch's own" :
				     "output_address: this switch has no end point of tunnels of IPv%d: set tunnel_ips of its row in table Host", cm->address.v6 ? 6 : 4);
	s->session = cm->session;
	return 0;
}

static int make_spec(struct config *c, struct config_mirror *cm, struct mirror_spec *s)
{
	struct config_port *out = cm->has_output ? find_port(c, &cm->output) : NULL;

	memset(s, 0, sizeof *s);
	s->id = cm->row;
	s->row = row_intern("Mirror", &cm->row, cm->name);
	s->snaplen = cm->snaplen;
	if (cm->has_output && !out)
		return sentence_fail(-EINVAL, &cm->error, "output_port: the port is not there yet, or not on this switch");
	if (find_networks(c, cm, s))
		return -EINVAL;
	if (cm->has_address && find_tunnel(c, cm, s))
		return -EINVAL;
	find_ports(c, cm, s);
	if (!out)
		return 0;
	if (!cm->select_all && (mirror_bit(s->src, out->id) || mirror_bit(s->dst, out->id)))
		return sentence_fail(-EINVAL, &cm->error, "output_port: port %s can't be mirrored to itself", out->name);
	s->output = out->id;
	return 0;
}

// Ports must know that they are reserved before the topology is published: nothing is flooded to them.
int mirror_prepare(struct config *want)
{
	n_next = 0;
	free(next);
	next = calloc(want->n_mirrors + 1, sizeof *next);
	if (!next)
		return -ENOMEM;
	for (size_t i = 0; i < want->n_mirrors; i++)
		if (!want->mirrors[i].error && !make_spec(want, &want->mirrors[i], &next[n_next]))
			n_next++;
	for (size_t i = 0; i < want->n_ports; i++)
		for (size_t k = 0; k < n_next; k++)
			want->ports[i].reserved |= want->ports[i].id && next[k].output == want->ports[i].id;
	return 0;
}

// ---- publishing

static bool unchanged(void)
{
	if (n_mirrors != n_next)
		return false;
	for (size_t i = 0; i < n_next; i++)
		if (memcmp(&mirrors[i]->spec, &next[i], sizeof next[i]))
			return false;
	return true;
}

static struct mirror_tally *old_count(const struct row_id *id)
{
	for (size_t i = 0; i < n_mirrors; i++)
		if (row_id_equal(&mirrors[i]->spec.id, id))
			return mirrors[i]->count;
	return NULL;
}

static void free_list(struct mirror **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i]);
	free(list);
}

// In a cache line of its own.
static uint32_t *sequence_of(struct mirror_tally *count)
{
	return count ? (uint32_t *)(void *)&count[MAX_WORKERS] : NULL;
}

static struct mirror **make_mirrors(void)
{
	struct mirror **list = calloc(n_next + 1, sizeof *list);

	for (size_t i = 0; list && i < n_next; i++) {
		list[i] = calloc(1, sizeof *list[i]);
		if (!list[i]) {
			free_list(list, i);
			return NULL;
		}
		list[i]->spec = next[i];
		list[i]->count = old_count(&next[i].id);
		list[i]->sequence = sequence_of(list[i]->count);
	}
	return list;
}

static bool make_counts(struct mirror **list)
{
	for (size_t i = 0; i < n_next; i++) {
		if (list[i]->count)
			continue;
		list[i]->count = aligned_alloc(64, (MAX_WORKERS + 1) * sizeof *list[i]->count);
		if (!list[i]->count)
			return false;
		memset(list[i]->count, 0, (MAX_WORKERS + 1) * sizeof *list[i]->count);
		list[i]->sequence = sequence_of(list[i]->count);
	}
	return true;
}

// NULL: no mirror concerns the port (or there is no memory: then none does until the next change).
static struct mirror_port *make_port(struct mirror **list, uint16_t port)
{
	struct mirror_port head = {0};

	for (size_t i = 0; i < n_next; i++) {
		head.n_src += mirror_bit(list[i]->spec.src, port);
		head.n_dst += mirror_bit(list[i]->spec.dst, port);
		if (list[i]->spec.output == port)
			head.reserved_by = list[i]->spec.row;
	}
	if (head.reserved_by)
		head.n_src = head.n_dst = 0;
	if (!head.n_src && !head.n_dst && !head.reserved_by)
		return NULL;
	struct mirror_port *p = calloc(1, sizeof *p + (size_t)(head.n_src + head.n_dst) * sizeof p->mirror[0]);
	if (!p)
		return NULL;
	*p = head;
	for (size_t i = 0, src = 0, dst = head.n_src; i < n_next && !head.reserved_by; i++) {
		if (mirror_bit(list[i]->spec.src, port))
			p->mirror[src++] = list[i];
		if (mirror_bit(list[i]->spec.dst, port))
			p->mirror[dst++] = list[i];
	}
	return p;
}

// Packets of tunnels come and leave without a decision of their own. A copy that a mirror floods into a network is not copied again when it leaves by a tunnel.
static bool of_tunnels(struct worker *w, struct pkt *p, uint16_t port, uint16_t inner)
{
	const struct mirror_port *mp = rcu_read(mirror_ports[port & (MAX_PORTS - 1)]);

	if (!p)
		return mp && (inner ? mp->n_dst : mp->n_src);
	for (unsigned i = 0; mp && !inner && i < mp->n_src; i++)
		if (mirror_selects_src(mp->mirror[i], port, p->network))
			mirror_copy(w, p, mp->mirror[i], TAG_AS_RECEIVED);
	for (unsigned i = 0; mp && inner && i < mp->n_dst; i++) {
		const struct mirror *m = mp->mirror[mp->n_src + i];

		if (mirror_bit(m->spec.networks, p->network) && m->spec.network != inner)
			mirror_copy(w, p, m, TAG_AS_RECEIVED);
	}
	return true;
}

int mirror_reconcile(struct config *want)
{
	if (!next || unchanged())
		return 0;
	struct mirror **list = make_mirrors();
	if (!list)
		return -ENOMEM;
	if (!make_counts(list)) {
		free_list(list, n_next); // counts that were made are too few to matter, and are gone: there is no memory
		return -ENOMEM;
	}
	bool any_dst = false;
	for (unsigned i = 1; i < MAX_PORTS; i++) {
		struct mirror_port *old = mirror_ports[i], *new = make_port(list, (uint16_t)i);

		if (old || new)
			rcu_publish(mirror_ports[i], new);
		any_dst |= new && new->n_dst;
		rcu_free_later(old);
	}
	__atomic_store_n(&mirror_any_dst, any_dst, __ATOMIC_RELEASE);
	// Every flow may be one that is mirrored from now on. Mirrors change rarely.
	gen_bump(gen_slot(GEN_CONFIG, 0));
	for (size_t i = 0; i < n_mirrors; i++) {
		bool stays = false;

		for (size_t k = 0; k < n_next; k++)
			stays |= list[k]->count == mirrors[i]->count;
		if (!stays)
			rcu_free_later(mirrors[i]->count);
		rcu_free_later(mirrors[i]);
	}
	free(mirrors);
	mirrors = list;
	n_mirrors = n_next;
	__atomic_store_n(&tunnel_mirror, n_mirrors ? of_tunnels : NULL, __ATOMIC_RELEASE);
	return 0;
}

void mirror_fini(void)
{
	for (unsigned i = 1; i < MAX_PORTS; i++) {
		free(mirror_ports[i]);
		mirror_ports[i] = NULL;
	}
	for (size_t i = 0; i < n_mirrors; i++)
		free(mirrors[i]->count);
	free_list(mirrors, n_mirrors);
	mirrors = NULL;
	n_mirrors = 0;
	tunnel_mirror = NULL;
	free(next);
	next = NULL;
	n_next = 0;
	mirror_any_dst = false;
}

void mirror_count(stage_count_fn *fn, void *arg)
{
	for (size_t i = 0; i < n_mirrors; i++) {
		uint64_t packets = 0, bytes = 0;

		for (unsigned w = 0; w < MAX_WORKERS; w++) {
			packets += __atomic_load_n(&mirrors[i]->count[w].packets, __ATOMIC_RELAXED);
			bytes += __atomic_load_n(&mirrors[i]->count[w].bytes, __ATOMIC_RELAXED);
		}
		fn(arg, "Mirror", &mirrors[i]->spec.id, packets, bytes);
	}
}
