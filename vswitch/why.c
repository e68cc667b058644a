// why: see why.h; the packet, the verdict and the verb.
#include "why.h"
#include "fdb.h"
#include "match.h"
#include "station_table.h"
#include "sentence.h"
#include "verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const state_names[] = {[WHY_OK] = "ok", [WHY_PROBLEM] = "problem", [WHY_UNKNOWN] = "unknown"};

static const char *name_of(uint16_t port)
{
	const struct port *p = port_get(port);

	return p ? p->name : "that is gone";
}

// ---- which packet

static int find_port(const struct field_set *d, unsigned is, const struct port **port, char **error)
{
	bool v6 = is & IS_IPV6, several = false;
	enum field_id id = v6 ? IPV6_SRC : NW_SRC;
	const struct station *n = d->given[id] ? station_find(0, v6, d->value[id].b, &several) : NULL;
	unsigned found = n ? 1 : 0;
	uint16_t at = n ? n->port : 0;
	struct fdb_entry e;

	for (uint32_t i = 0; !n && d->given[DL_SRC] && i < fdb_high(); i++) {
		if (!fdb_at(i, &e) || memcmp(e.mac, d->value[DL_SRC].b, 6) || e.port == at)
			continue;
		at = e.port;
		found++;
	}
	*port = found == 1 && !several ? port_get(at) : NULL;
	if (*port)
		return 0;
	return sentence_fail(-EINVAL, error, "%s: say by which port it comes in: why --port PORT MATCH",
			     found > 1 || several ? "several ports have this source" : "it is not known where this source is");
}

static int choose_port(struct why *y, const char *port, char **error)
{
	struct field_set d = {0};

	y->in = port ? port_find(port) : NULL;
	if (port)
		return y->in ? 0 : sentence_fail(-EINVAL, error, "there is no port %s", port);
	if (!y->text[strspn(y->text, "0123456789abcdefABCDEF: ")])
		return sentence_fail(-EINVAL, error, "say by which port the packet comes in: why --port PORT HEX");
	int rc = field_set_read(&d, y->text, FOR_PACKET, error);
	return rc < 0 ? rc : find_port(&d, field_set_is(&d), &y->in, error);
}

// Packets are like this one if they have what was said of it; hexadecimal digits say everything.
static void make_mask(struct why *y)
{
	struct match m;
	char *ignored = NULL;

	y->value = y->f.key;
	if (match_parse(y->text, &m, &ignored)) {
		memset(&y->mask, 0xff, sizeof y->mask);
		y->mask.class = 0;
	} else {
		y->mask = m.mask;
	}
	free(ignored);
	y->mask.profile = 0;
	y->mask.port = y->mask.vlan = y->mask.ethertype = 0xffff;
	if (!y->e.assumed.guessed_src)
		memset(y->mask.src, 0xff, 6);
	if (!y->e.assumed.guessed_dst)
		memset(y->mask.dst, 0xff, 6);
}

static void choose_egress(struct why *y)
{
	const struct dry_run *r = &y->e.run;

	if (r->decision.out_kind == OUT_PORT)
		y->out = port_get(r->decision.out);
	else if (dry_ports(r) == 1)
		y->out = port_get(dry_first(r)->port);
}

// ---- what is said

static bool arrives(const struct why *y)
{
	return !y->e.run.answered && dry_first(&y->e.run) != NULL;
}

static const char *verdict(const struct why *y, const enum why_state *state, const struct buf *text, struct buf *b)
{
	uint16_t reason = dry_reason(&y->e.run);
	unsigned ports = dry_ports(&y->e.run);

	if (y->e.run.waits) {
		buf_add(b, "it waits: the switch asks for the next hop's Ethernet address, and sends it on when there is an answer");
		return "waits";
	}
	if (y->e.run.answered && !reason) {
		buf_add(b, "it is for the switch itself, which answers it");
		return "passes";
	}
	if (y->e.run.answered) {
		buf_add(b, "it doesn't arrive: dropped (%s.%s): %s; its sender is told by ICMP", reason_get(reason)->module, reason_get(reason)->name,
			reason_get(reason)->text);
		return "dropped";
	}
	if (!arrives(y)) {
		buf_add(b, "it doesn't arrive: dropped");
		if (reason)
			buf_add(b, " (%s.%s): %s", reason_get(reason)->module, reason_get(reason)->name,
				reason_get(reason)->text);
		return "dropped";
	}
	if (ports == 1)
		buf_add(b, "it arrives at port %s", name_of(dry_first(&y->e.run)->port));
	else
		buf_add(b, y->e.run.decision.out_kind == OUT_GROUP ? "it goes to the %u ports that asked for its group" : "it is flooded to %u ports", ports);
	if (!y->answered && !why_comes_back(y)) {
		buf_add(b, ", but the answer doesn't come back");
		return "one-way";
	}
	for (unsigned i = 0; i < WHY_CHECKS; i++) {
		if (state[i] != WHY_PROBLEM)
			continue;
		buf_add(b, "; but mind: %s", text[i].text);
		return "problem";
	}
	if (!y->answered)
		buf_add(b, ", and the answer comes back");
	return "passes";
}

static void render(const struct why *y, bool json, struct buf *b)
{
	struct listing *l = listing_new();
	enum why_state state[WHY_CHECKS];
	struct buf text[WHY_CHECKS] = {{0}}, says = {0};

	listing_column(l, "state", "STATE");
	listing_column(l, "check", "CHECK");
	if (json)
		listing_column(l, "question", "QUESTION");
	listing_column(l, "text", "WHAT IS KNOWN");
	for (unsigned i = 0; i < WHY_CHECKS; i++) {
		state[i] = why_checks[i].run(y, &text[i]);
		listing_row(l);
		listing_str(l, state_names[state[i]]);
		listing_str(l, why_checks[i].name);
		if (json)
			listing_str(l, why_checks[i].question);
		listing_str(l, text[i].text);
	}
	const char *word = verdict(y, state, text, &says);
	char *list = listing_render(l, json);
	if (json) {
		json_t *o = json_pack("{s:s, s:s, s:s}", "verdict", word, "text", says.text ? says.text : "", "port",
				      y->in->name),
		       *assumed = json_array();
		for (unsigned i = 0; i < y->e.assumed.n; i++)
			json_array_append_new(assumed, json_string(y->e.assumed.said[i]));
		json_object_set_new(o, "assumed", assumed);
		json_object_set_new(o, "checks", json_loads(list ? list : "[]", 0, NULL));
		char *dump = json_dumps(o, JSON_COMPACT);
		buf_add(b, "%s\n", dump ? dump : "");
		free(dump);
		json_decref(o);
	} else {
		buf_add(b, "From port %s: %s.\n", y->in->name, says.text ? says.text : "?");
		for (unsigned i = 0; i < y->e.assumed.n; i++)
			buf_add(b, "  assumed %s\n", y->e.assumed.said[i]);
		buf_add(b, "%s", list ? list : "");
	}
	free(list);
	free(says.text);
	for (unsigned i = 0; i < WHY_CHECKS; i++)
		free(text[i].text);
	listing_free(l);
}

static int run(struct why *y, const char *port, bool json, struct buf *b, char **error)
{
	int rc = choose_port(y, port, error);

	if (rc)
		return rc;
	struct explain_request r = {.port = y->in, .text = y->text};
	rc = explain_packet(&r, &y->overlay, &y->e, error);
	if (rc)
		return rc;
	y->is_sound = !parse_frame(y->e.frame, y->e.len, y->e.len, y->in->id, &y->f);
	make_mask(y);
	choose_egress(y);
	y->answered = explain_answer(&y->e, &y->overlay, &y->back, &y->no_answer);
	render(y, json, b);
	if (!y->answered)
		explain_free(&y->back);
	free(y->no_answer);
	explain_free(&y->e);
	return 0;
}

static void why_verb(struct control_request *request, int argc, const char *argv[], void *aux)
{
	bool json = verbs_take_json(&argc, argv);
	struct buf text = {0}, b = {0};
	char *error = NULL;
	const char *port = verbs_take_option(&argc, argv, "port", &error);
	struct why *y = calloc(1, sizeof *y);

	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "--", 2) && !error)
			sentence_set(&error, "why doesn't know %s: it takes --port", argv[i]);
		buf_add(&text, "%s%s", i > 1 ? " " : "", argv[i]);
	}
	if (!text.len && !error)
		sentence_set(&error, "say which packets: fields such as tcp,nw_src=10.0.0.1,nw_dst=10.0.0.7,tp_dst=443, or a "
				     "packet's bytes in hexadecimal");
	if (y)
		y->text = text.text;
	if (error || !y || run(y, port, json, &b, &error))
		verbs_refuse(request, "%s", error ? error : "out of memory");
	else
		control_reply(request, b.text ? b.text : "");
	free(y);
	free(error);
	free(text.text);
	free(b.text);
}

void why_init(void)
{
	control_register("why", "[--json] [--port PORT] MATCH|HEX", 1, 64, why_verb, NULL);
}
